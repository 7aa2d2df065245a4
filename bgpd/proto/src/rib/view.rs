//! The table as people ask for it. All of it walks the table and sorts by prefix; nothing here is on the way of a route.

use std::sync::Arc;

use ipnet::IpNet;

use super::Rib;
use super::core::{Core, Family};
use super::group::{Telling, Verdict};
use super::import::rejection;
use super::table::{LOCAL, Path, Slot};
use super::values::{PathStatus, PathView};
use crate::decision;
use crate::types::{AfiSafi, PeerId};
use crate::wire::nlri::V6;
use crate::wire::rewrite;

/// What a peer was told about one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedRoute {
    /// The prefix.
    pub prefix: IpNet,
    /// The identifier that we gave the path, if the session carries them in this family (RFC 7911).
    pub path_id: Option<u32>,
    /// Whose route it is; `None`: our own.
    pub source: Option<PeerId>,
    /// The next hop in MP_REACH_NLRI; empty for IPv4, where it is among the attributes.
    pub next_hop: Vec<u8>,
    /// The attributes as sent.
    pub attributes: Vec<u8>,
}

impl Rib {
    /// Every path of one family, by prefix; those of one peer, if asked for. Rejected ones too, each with its status.
    #[must_use]
    pub fn paths(&self, family: AfiSafi, peer: Option<PeerId>) -> Vec<PathView> {
        match family {
            AfiSafi::Ipv4Unicast => self.core.path_views::<u32>(peer),
            AfiSafi::Ipv6Unicast => self.core.path_views::<V6>(peer),
        }
    }

    /// The paths to one prefix.
    #[must_use]
    pub fn paths_to(&self, prefix: &IpNet) -> Vec<PathView> {
        match AfiSafi::of(prefix) {
            AfiSafi::Ipv4Unicast => self.core.views_of_prefix::<u32>(prefix),
            AfiSafi::Ipv6Unicast => self.core.views_of_prefix::<V6>(prefix),
        }
    }

    /// What the peer was told in one family, as of the last drain, by prefix: adj-RIB-out, computed from what is.
    #[must_use]
    pub fn adj_rib_out(&self, peer: PeerId, family: AfiSafi) -> Vec<AdvertisedRoute> {
        match family {
            AfiSafi::Ipv4Unicast => self.advertised_routes::<u32>(peer),
            AfiSafi::Ipv6Unicast => self.advertised_routes::<V6>(peer),
        }
    }

    /// The identifier under which a path is told that `peer` gave `received` (0 without one); `None`: one of our own.
    #[doc(hidden)]
    #[must_use]
    pub fn identifier_of(&self, peer: Option<PeerId>, received: u32) -> u32 {
        let path = Path { peer: peer.unwrap_or(LOCAL), path_id: received, ..Path::NONE };
        self.core.path_identifier(&path)
    }

    /// How many prefixes the peer was told, as of the last drain; several paths of one count each. Constant time.
    #[must_use]
    pub fn advertised(&self, peer: PeerId, family: AfiSafi) -> u32 {
        self.group_of(peer).map_or(0, |group| group.out.of(family).told_to(peer))
    }

    /// Bytes of UPDATEs that are encoded and that the peer has not taken.
    #[must_use]
    pub fn behind(&self, peer: PeerId) -> u64 {
        let Some((known, group)) = self.core.peer(peer).zip(self.group_of(peer)) else { return 0 };
        group.log.head().saturating_sub(known.cursor) + known.tail.len() as u64
    }

    /// Whether the peer has taken all that there is to tell it.
    #[must_use]
    pub fn has_all(&self, peer: PeerId) -> bool {
        let Some(known) = self.core.peer(peer) else { return true };
        let is_walked = |family: AfiSafi| {
            known.walk.of(family).is_empty() && *known.refresh.of(family) == super::core::Refresh::None
        };
        self.behind(peer) == 0 && known.late.is_empty() && AfiSafi::ALL.into_iter().all(is_walked)
    }

    /// How many decisions were made: a prefix counts as often as it was decided.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.core.decided
    }

    /// Prefixes and paths of one family.
    #[must_use]
    pub fn size(&self, family: AfiSafi) -> (usize, usize) {
        match family {
            AfiSafi::Ipv4Unicast => self.core.size::<u32>(),
            AfiSafi::Ipv6Unicast => self.core.size::<V6>(),
        }
    }

    /// Distinct attribute sets held.
    #[must_use]
    pub fn attribute_sets(&self) -> usize {
        self.core.attrs.len()
    }

    /// Bytes of UPDATEs kept for the peer's group: the most that any of its members is behind.
    #[must_use]
    pub fn backlog(&self, peer: PeerId) -> u64 {
        self.group_of(peer).map_or(0, |group| group.log.len())
    }

    pub(super) fn group_of(&self, peer: PeerId) -> Option<&super::group::Group> {
        self.groups.get(self.core.peer(peer)?.group?)
    }

    fn advertised_routes<A: Family>(&self, peer: PeerId) -> Vec<AdvertisedRoute> {
        let Some(group) = self.group_of(peer) else { return Vec::new() };
        let route = |slot: Slot, path_id: Option<u32>, telling: &Telling| {
            let (addr, len) = A::plane(&self.core).table.prefix(slot)?;
            let (mut bytes, source) = (Vec::new(), telling.source);
            group.rewritten::<A>(telling, &self.core, &mut bytes);
            let outgoing = rewrite::outgoing(&bytes);
            Some(AdvertisedRoute {
                prefix: addr.prefix(len),
                path_id,
                source: (source != LOCAL).then_some(source),
                next_hop: outgoing.next_hop.to_vec(),
                attributes: outgoing.attributes.to_vec(),
            })
        };
        let mut routes = Vec::new();
        if group.adds_paths::<A>() {
            for slot in group.out.of(A::FAMILY).paths.slots() {
                let paths = group.paths_of::<A>(slot, &self.core, |_| ());
                let told = paths.iter().filter(|(_, telling)| telling.source != peer);
                routes.extend(told.filter_map(|(id, telling)| route(slot, Some(*id), telling)));
            }
        } else {
            for slot in group.told::<A>(peer, &self.core) {
                if let Verdict::Tell(telling) =
                    group.verdict::<A>(slot, self.core.best::<A>(slot), &self.core)
                {
                    routes.extend(route(slot, None, &telling));
                }
            }
        }
        routes.sort_by_key(|route| (route.prefix, route.path_id));
        routes
    }
}

impl Core {
    fn size<A: Family>(&self) -> (usize, usize) {
        let table = &A::plane(self).table;
        (table.prefixes(), table.prefixes() + table.further_paths())
    }

    fn views_of_prefix<A: Family>(&self, prefix: &IpNet) -> Vec<PathView> {
        let slot = A::of(prefix).and_then(|(addr, len)| A::plane(self).table.find(addr, len));
        slot.map(|slot| self.views::<A>(slot, None)).unwrap_or_default()
    }

    fn path_views<A: Family>(&self, peer: Option<PeerId>) -> Vec<PathView> {
        let slots = 0..A::plane(self).table.slots();
        let mut views: Vec<_> = slots.flat_map(|slot| self.views::<A>(slot, peer)).collect();
        views.sort_by_key(|view| (view.prefix, view.peer, view.path_id));
        views
    }

    /// The paths of one prefix with their status; the decision is run again for its reasons.
    fn views<A: Family>(&self, slot: Slot, of: Option<PeerId>) -> Vec<PathView> {
        let table = &A::plane(self).table;
        let Some((addr, len)) = table.prefix(slot) else { return Vec::new() };
        let wanted = |path: &Path| of.is_none_or(|peer| path.peer == peer);
        if !table.paths(slot).any(|(path, _)| wanted(&path)) {
            return Vec::new();
        }
        let mut candidates: Vec<_> =
            table.paths(slot).filter_map(|(path, at)| self.candidate(&path, at)).collect();
        let all = candidates.clone();
        let selection = decision::select(&mut candidates, self.config.max_paths);
        let status = |path: &Path, at: u32| {
            if let Some(rejection) = rejection(path.rejected) {
                return PathStatus::Rejected(rejection);
            }
            let own = all.iter().find(|candidate| candidate.place == at);
            let (Some(own), Some(selection)) = (own, selection) else {
                return PathStatus::NextHopUnreachable;
            };
            if selection.best.place == at {
                PathStatus::Best(selection.reason)
            } else if candidates.iter().any(|member| member.place == at) {
                PathStatus::Multipath
            } else {
                PathStatus::Beaten(decision::beaten_by(&selection.best, own))
            }
        };
        let prefix = addr.prefix(len);
        let paths = table.paths(slot).filter(|(path, _)| wanted(path));
        paths
            .map(|(path, at)| {
                let key = self.attrs.key(path.attrs);
                PathView {
                    prefix,
                    peer: (path.peer != LOCAL).then_some(path.peer),
                    path_id: self.takes_paths(path.peer, A::FAMILY).then_some(path.path_id),
                    status: status(&path, at),
                    stale: path.has(Path::STALE),
                    next_hop: (path.peer != LOCAL).then(|| self.next_hops.address(key.next_hop)),
                    local_pref: key.local_pref,
                    med: key.med,
                    as_path_len: key.as_path_len(),
                    attributes: self.attrs.bytes(path.attrs).to_vec(),
                    rule: self.deciding_rule(&path, &prefix),
                }
            })
            .collect()
    }

    /// The import rule that decided on a path, if it was one.
    fn deciding_rule(&self, path: &Path, prefix: &IpNet) -> Option<Arc<str>> {
        (path.peer != LOCAL)
            .then(|| self.judged(path.peer, path.raw))
            .and_then(|set| self.import_verdict(path.peer, &set, prefix).rule)
    }
}
