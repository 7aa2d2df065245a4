//! Sessions that come and go, and the paths they leave.

use std::collections::BTreeSet;

use super::Rib;
use super::core::{Core, Family, Peer, PerFamily};
use super::group::{Group, GroupKey};
use super::paths::Late;
use super::table::Path;
use super::values::PeerFacts;
use crate::types::{AfiSafi, PeerId};
use crate::wire::message::MAX_EXTENDED_LENGTH;
use crate::wire::nlri::V6;
use crate::wire::rewrite::Style;
use crate::wire::update;

impl Rib {
    /// See [`Rib::peer_up`].
    pub(super) fn enter_peer(&mut self, id: PeerId, facts: PeerFacts) {
        self.leave(id);
        let ranks = |facts: &PeerFacts| {
            (facts.remote_asn, facts.local_asn, facts.router_id, facts.address, facts.role)
        };
        let place = usize::from(id.0);
        if place >= self.core.peers.len() {
            self.core.peers.resize_with(place + 1, || None);
        }
        let families = facts.families.clone();
        match self.core.peer(id) {
            // Stale paths were ranked and judged by what the last session was: only an equal one can take them over.
            Some(old) if ranks(&old.facts) != ranks(&facts) => {
                self.drop_paths(id, &AfiSafi::ALL.into_iter().collect());
            }
            Some(old) => {
                // Without identifiers a prefix is one path, whatever stands there under some; and the other way round.
                let ids = |facts: &PeerFacts, family| facts.add_path_receive.contains(&family);
                let goes = |family: &AfiSafi| {
                    !families.contains(family) || ids(&old.facts, *family) != ids(&facts, *family)
                };
                let gone = AfiSafi::ALL.into_iter().filter(goes).collect();
                let is_client_anew = old.facts.reflector_client != facts.reflector_client;
                self.drop_paths(id, &gone);
                if is_client_anew {
                    // Who is told these routes is another question now (RFC 4456 §6).
                    self.core.touch_all::<u32>(id);
                    self.core.touch_all::<V6>(id);
                }
            }
            None => {}
        }
        let old = self.core.peers.get_mut(place).and_then(Option::take);
        let import_changed = old.as_ref().is_some_and(|old| old.facts.import != facts.import);
        let mut peer = Peer::new(facts);
        peer.counts = old.map(|old| old.counts).unwrap_or_default();
        if let Some(slot) = self.core.peers.get_mut(place) {
            *slot = Some(peer);
        }
        if import_changed {
            self.core.import_again::<u32>(|sender| sender == id);
            self.core.import_again::<V6>(|sender| sender == id);
        }
        let group = self.group_for(id);
        self.enter(id, group);
    }

    /// The group for a peer with its present facts: the one with the same key, else an idle one, else a new one.
    pub(super) fn group_for(&mut self, id: PeerId) -> Option<usize> {
        let facts = &self.core.peer(id)?.facts;
        let style = Style {
            external: facts.is_external(),
            local_asn: facts.local_asn,
            four_octet_as: facts.four_octet_as,
            next_hop_ipv4: facts.next_hop_ipv4.map(|address| address.octets()),
            next_hop_ipv6: facts.next_hop_ipv6.map(|address| address.octets()),
            link_local: facts.link_local.map(|address| address.octets()),
            extended_next_hop: facts.extended_next_hop,
            cluster_id: u32::from(self.core.config.router_id.0),
            role: facts.role,
            next_hop: facts.export.next_hop,
        };
        let client = facts.reflector_client && !facts.is_external();
        let (families, tags) = (facts.families.clone(), facts.tags.clone());
        let max_message = if facts.extended_message { MAX_EXTENDED_LENGTH } else { update::MAX_MESSAGE };
        let adds = |family| if facts.add_path_send.contains(&family) { facts.paths_sent.max(1) } else { 0 };
        let paths = PerFamily { ipv4: adds(AfiSafi::Ipv4Unicast), ipv6: adds(AfiSafi::Ipv6Unicast) };
        let key = GroupKey {
            style,
            families,
            max_message,
            long_lived: facts.long_lived,
            client,
            export: facts.export.clone(),
            tags,
            paths,
        };
        let live = |group: &Group| !group.members.is_empty();
        if let Some(same) = self.groups.iter().position(|group| live(group) && group.key == key) {
            return Some(same);
        }
        let idle = self.groups.iter().position(|group| !live(group));
        match idle.and_then(|idle| self.groups.get_mut(idle)) {
            Some(group) => *group = Group::new(key),
            None => self.groups.push(Group::new(key)),
        }
        idle.or(Some(self.groups.len() - 1))
    }

    pub(super) fn enter(&mut self, id: PeerId, group: Option<usize>) {
        if let Some(peer) = self.core.peer_mut(id) {
            peer.group = group;
        }
        if let Some(group) = group.and_then(|group| self.groups.get_mut(group)) {
            group.join(id, &mut self.core);
        }
    }

    pub(super) fn leave(&mut self, id: PeerId) {
        let Some(peer) = self.core.peer_mut(id) else { return };
        let Some(at) = peer.group.take() else { return };
        peer.walk = PerFamily { ipv4: 0..0, ipv6: 0..0 };
        peer.late = Late::default();
        if let Some(group) = self.groups.get_mut(at) {
            group.members.retain(|member| *member != id);
            if group.members.is_empty() {
                group.empty();
            }
        }
        self.trim(at);
    }

    /// Drops every path of the peer in these families.
    pub(super) fn drop_paths(&mut self, id: PeerId, families: &BTreeSet<AfiSafi>) {
        let peers = BTreeSet::from([id]);
        if families.contains(&AfiSafi::Ipv4Unicast) {
            self.core.drop_all::<u32>(&peers);
        }
        if families.contains(&AfiSafi::Ipv6Unicast) {
            self.core.drop_all::<V6>(&peers);
        }
    }
}

impl Core {
    /// Drops every path of these peers in one family: one walk for all of them.
    pub(super) fn drop_all<A: Family>(&mut self, peers: &BTreeSet<PeerId>) {
        let held = |id: &PeerId| self.peer(*id).map_or(0, |peer| peer.counts.of(A::FAMILY).received);
        if peers.iter().map(held).sum::<u32>() > 0 {
            self.sieve::<A>(|path| !peers.contains(&path.peer), |_| ());
        }
    }

    /// What is told of the peer's paths in one family is looked at again.
    pub(super) fn touch_all<A: Family>(&mut self, id: PeerId) {
        if self.peer(id).is_none_or(|peer| peer.counts.of(A::FAMILY).received == 0) {
            return;
        }
        for slot in 0..A::plane(self).table.slots() {
            if A::plane(self).table.paths(slot).any(|(path, _)| path.peer == id) {
                self.touch_forced::<A>(slot);
            }
        }
    }

    /// Marks every path of the peer in one family stale.
    pub(super) fn stale_all<A: Family>(&mut self, id: PeerId) {
        self.sieve::<A>(|path| path.peer != id || !path.has(Path::STALE), |_| ());
        self.mark_all::<A>(id);
    }

    /// Marks every path of the peer in one family stale, those stale already too.
    pub(super) fn mark_all<A: Family>(&mut self, id: PeerId) {
        self.sieve::<A>(
            |_| true,
            |path| {
                if path.peer == id {
                    path.flags |= Path::STALE;
                }
            },
        );
        if let Some(peer) = self.peer_mut(id) {
            let counts = peer.counts.of_mut(A::FAMILY);
            counts.stale = counts.received;
        }
    }

    /// Drops what is still stale of the peer. Returns how many paths that were.
    pub(super) fn sweep<A: Family>(&mut self, id: PeerId) -> u32 {
        let stale = self.peer(id).map_or(0, |peer| peer.counts.of(A::FAMILY).stale);
        if stale > 0 {
            self.sieve::<A>(|path| path.peer != id || !path.has(Path::STALE), |_| ());
        }
        stale
    }

    /// Over all slots; cheaper than a list per peer. Paths that do not stay are dropped, the others may be marked.
    fn sieve<A: Family>(&mut self, stays: impl Fn(&Path) -> bool, mark: impl Fn(&mut Path)) {
        for slot in 0..A::plane(self).table.slots() {
            let gone = A::plane(self).table.paths(slot).filter(|(path, _)| !stays(path));
            for (path, _) in gone.collect::<Vec<_>>() {
                if let Some(at) = A::plane(self).table.locate(slot, path.peer, path.path_id) {
                    self.drop_path::<A>(slot, at);
                }
            }
            A::plane_mut(self).table.each_path_mut(slot, |path, _| mark(path));
        }
    }
}
