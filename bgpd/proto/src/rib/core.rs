//! All of the RIB but the groups, so that a group can be written while this is read.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use super::attrs::{AttrId, AttrTable, NIL};
use super::group::Bits;
use super::hash::fold;
use super::import::Changed;
use super::next_hop::NextHops;
use super::paths::{Late, identity};
use super::table::{Entry, LOCAL, Path, Slot, Table};
use super::values::{Counts, PeerFacts, RibConfig};
use super::watch::Change;
use crate::decision::Candidate;
use crate::link_local;
use crate::types::{AfiSafi, Asn, PeerId};
use crate::wire::attr::{self, Key, code};
use crate::wire::nlri::{Address, V6};
use crate::wire::rewrite::Origin;

/// The best path as the groups know it.
pub(super) type Best = Option<(AttrId, PeerId)>;

/// A prefix that waits for a decision, with what the groups and the FIB were told last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dirty {
    pub slot: Slot,
    pub best: Best,
    /// [`Core::fib_mark`] of the routes in use.
    pub fib: u64,
}

/// What one family owns.
#[derive(Debug)]
pub(super) struct Plane<A> {
    pub table: Table<A>,
    /// Each prefix at most once (flag DIRTY).
    pub dirty: Vec<Dirty>,
    /// How many of `dirty` are done.
    pub done: usize,
    /// Prefixes whose kernel route changed. A prefix with flag FIB is in it, and keeps its slot until it has left.
    pub fib: VecDeque<Slot>,
}

impl<A: Address> Plane<A> {
    fn new(seed: u64) -> Plane<A> {
        Plane { table: Table::new(seed), dirty: Vec::new(), done: 0, fib: VecDeque::new() }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.done < self.dirty.len()
    }
}

/// A family as the RIB keeps it.
pub(super) trait Family: Address {
    /// Its place in arrays of two.
    const INDEX: usize;
    fn plane(core: &Core) -> &Plane<Self>;
    fn plane_mut(core: &mut Core) -> &mut Plane<Self>;
}

impl Family for u32 {
    const INDEX: usize = 0;

    fn plane(core: &Core) -> &Plane<u32> {
        &core.v4
    }

    fn plane_mut(core: &mut Core) -> &mut Plane<u32> {
        &mut core.v4
    }
}

impl Family for V6 {
    const INDEX: usize = 1;

    fn plane(core: &Core) -> &Plane<V6> {
        &core.v6
    }

    fn plane_mut(core: &mut Core) -> &mut Plane<V6> {
        &mut core.v6
    }
}

/// Two values, one per family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PerFamily<T> {
    pub ipv4: T,
    pub ipv6: T,
}

impl<T> PerFamily<T> {
    pub(super) fn of(&self, family: AfiSafi) -> &T {
        match family {
            AfiSafi::Ipv4Unicast => &self.ipv4,
            AfiSafi::Ipv6Unicast => &self.ipv6,
        }
    }

    pub(super) fn of_mut(&mut self, family: AfiSafi) -> &mut T {
        match family {
            AfiSafi::Ipv4Unicast => &mut self.ipv4,
            AfiSafi::Ipv6Unicast => &mut self.ipv6,
        }
    }
}

/// Where a peer's End-of-RIB stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum EndOfRib {
    /// The family is not told to the peer.
    #[default]
    None,
    /// It follows the initial table.
    Due,
    /// It ends at this place of the group's log; at 0 once it is all that is left in the peer's tail.
    Logged(u64),
    /// The peer has it.
    Sent,
}

/// Where an enhanced refresh towards a peer stands (RFC 7313).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Refresh {
    #[default]
    None,
    /// It begins after what the peer is being told.
    Due,
    /// Its beginning was told; its end follows the walk.
    Walking,
}

/// What the table knows of a peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub facts: PeerFacts,
    /// What stands for the peer in the path identifiers that we give.
    pub identity: u32,
    /// Import takes everything: the common case of a benchmark and of a route collector.
    pub takes_all: bool,
    /// The group it is a member of while its session is up.
    pub group: Option<usize>,
    pub counts: PerFamily<Counts>,
    /// RFC 7606's AFI/SAFI disable: what it sends of this family is ignored.
    pub disabled: PerFamily<bool>,
    /// Position in the group's log.
    pub cursor: u64,
    /// The rest of a message that the peer was in the middle of when it left the log.
    pub tail: Vec<u8>,
    /// Slots whose routes are still to be told; later slots come through the log.
    pub walk: PerFamily<Range<Slot>>,
    /// Slots that the walk passes over: they were told in the group that the peer was in before, and as they would be now.
    pub alike: PerFamily<Bits>,
    /// Fell behind the log, or changed groups: to be told how these stand.
    pub late: Late,
    pub end_of_rib: PerFamily<EndOfRib>,
    pub refresh: PerFamily<Refresh>,
}

impl Peer {
    pub(super) fn new(facts: PeerFacts) -> Peer {
        let takes_all = facts.import == crate::policy::ImportPolicy::accept_all();
        Peer {
            identity: identity(&facts),
            facts,
            takes_all,
            group: None,
            counts: PerFamily::default(),
            disabled: PerFamily::default(),
            cursor: 0,
            tail: Vec::new(),
            walk: PerFamily { ipv4: 0..0, ipv6: 0..0 },
            alike: PerFamily::default(),
            late: Late::default(),
            end_of_rib: PerFamily::default(),
            refresh: PerFamily::default(),
        }
    }

    /// The peer leaves the log: `rest` of the message that it is in the middle of goes out from its tail. An End-of-RIB that it
    /// has not begun to read is due again; one that it has begun is that message, and must not come twice.
    pub(super) fn leave_log(&mut self, rest: Vec<u8>) {
        let kept = self.cursor + rest.len() as u64;
        self.tail.extend(rest);
        for family in AfiSafi::ALL {
            let end_of_rib = self.end_of_rib.of_mut(family);
            if let EndOfRib::Logged(end) = *end_of_rib {
                *end_of_rib = if end > kept { EndOfRib::Due } else { EndOfRib::Logged(0) };
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Core {
    pub config: RibConfig,
    /// Numbers other than our own that some peer knows us by (RFC 7705).
    pub aliases: BTreeSet<Asn>,
    /// How many bytes of UPDATEs a peer may be behind before it leaves the log.
    pub backlog: u64,
    pub attrs: AttrTable,
    pub changed: Changed,
    pub v4: Plane<u32>,
    pub v6: Plane<V6>,
    /// By `PeerId`.
    pub peers: Vec<Option<Peer>>,
    pub next_hops: NextHops,
    /// What monitoring stations are to be told of; none: there is no station.
    pub changes: Option<Vec<Change>>,
    /// Decisions so far.
    pub decided: u64,
}

impl Core {
    pub(super) fn new(config: RibConfig) -> Core {
        Core {
            attrs: AttrTable::new(config.seed),
            changed: Changed::default(),
            v4: Plane::new(config.seed),
            v6: Plane::new(config.seed),
            peers: Vec::new(),
            next_hops: NextHops::new(config.unknown_next_hops),
            changes: None,
            decided: 0,
            config,
            aliases: BTreeSet::new(),
            backlog: 8 << 20,
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.v4.is_dirty() || self.v6.is_dirty()
    }

    pub(super) fn peer(&self, peer: PeerId) -> Option<&Peer> {
        self.peers.get(usize::from(peer.0)).and_then(Option::as_ref)
    }

    pub(super) fn peer_mut(&mut self, peer: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(peer.0)).and_then(Option::as_mut)
    }

    /// Where the routes of a peer come from.
    pub(super) fn origin(&self, peer: PeerId) -> Origin {
        match self.peer(peer) {
            Some(peer) if peer.facts.is_external() => Origin::External,
            Some(peer) => Origin::Internal(u32::from(peer.facts.router_id.0)),
            None => Origin::Own,
        }
    }

    /// Whether a peer is a client of ours, a route reflector.
    pub(super) fn is_client(&self, peer: PeerId) -> bool {
        self.peer(peer).is_some_and(|peer| peer.facts.reflector_client && !peer.facts.is_external())
    }

    /// The next hop of a learned set, as it is on the wire.
    pub(super) fn next_hop_of(&self, attrs: AttrId) -> std::net::IpAddr {
        link_local::wire(self.next_hops.address(self.attrs.key(attrs).next_hop))
    }

    /// What the groups were told of a prefix, or would be: the path the last decision selected.
    pub(super) fn best<A: Family>(&self, slot: Slot) -> Best {
        A::plane(self).table.best(slot).map(|path| (path.attrs, path.peer))
    }

    /// Before the first change of a prefix since its last decision.
    pub(super) fn touch<A: Family>(&mut self, slot: Slot) {
        let Some(entry) = A::plane(self).table.entry(slot) else { return };
        if entry.has(Entry::<A>::DIRTY) {
            return;
        }
        let dirty = Dirty { slot, best: self.best::<A>(slot), fib: self.fib_mark::<A>(slot) };
        let plane = A::plane_mut(self);
        plane.dirty.push(dirty);
        if let Some(entry) = plane.table.entry_mut(slot) {
            entry.flags |= Entry::<A>::DIRTY;
        }
    }

    /// Like [`Core::touch`], and what is told is looked at again whatever the decision says.
    pub(super) fn touch_forced<A: Family>(&mut self, slot: Slot) {
        self.touch::<A>(slot);
        if let Some(entry) = A::plane_mut(self).table.entry_mut(slot) {
            entry.flags |= Entry::<A>::FORCED;
        }
    }

    /// Stands for the kernel route of a prefix: equal routes have equal marks, 0 is no route.
    pub(super) fn fib_mark<A: Family>(&self, slot: Slot) -> u64 {
        let table = &A::plane(self).table;
        let Some(entry) = table.entry(slot).filter(|entry| entry.has(Entry::<A>::BEST)) else { return 0 };
        if entry.first.peer == LOCAL || !self.config.feeds_fib {
            return 0;
        }
        if entry.more == NIL {
            return mark_with(0, self.attrs.key(entry.first.attrs).next_hop);
        }
        self.next_hops_in_use::<A>(slot).into_iter().fold(0, mark_with)
    }

    /// The next hops of the paths in use, ascending by id, each once.
    pub(super) fn next_hops_in_use<A: Family>(&self, slot: Slot) -> Vec<u32> {
        let used = |(path, at): &(Path, u32)| *at == NIL || path.has(Path::MULTIPATH);
        let paths = A::plane(self).table.paths(slot).filter(used);
        let mut next_hops: Vec<u32> = paths.map(|(path, _)| self.attrs.key(path.attrs).next_hop).collect();
        next_hops.sort_unstable();
        next_hops.dedup();
        next_hops
    }

    /// A path as the decision sees it; `None`: it is no candidate.
    pub(super) fn candidate(&self, path: &Path, place: u32) -> Option<Candidate> {
        if path.rejected != 0 {
            return None;
        }
        let key = self.attrs.key(path.attrs);
        let metric = self.next_hops.metric(key.next_hop)?;
        // Ours or the word of whoever told it (RFC 9494 §4.3): the set has the community in both cases.
        let (long_lived_stale, path_id) = (key.is_long_lived_stale(), path.path_id);
        let Some(peer) = self.peer(path.peer) else {
            let (external, router_id, peer_address) = (false, 0, None);
            let local = true;
            return Some(Candidate {
                key,
                local,
                long_lived_stale,
                external,
                metric,
                router_id,
                peer_address,
                path_id,
                place,
            });
        };
        let originator =
            key.has(Key::ORIGINATOR).then(|| attr::find(self.attrs.bytes(path.attrs), code::ORIGINATOR_ID));
        Some(Candidate {
            key,
            local: false,
            long_lived_stale,
            external: peer.facts.is_external(),
            metric,
            router_id: originator.flatten().map_or(u32::from(peer.facts.router_id.0), attr::be32),
            peer_address: Some(peer.facts.address),
            path_id,
            place,
        })
    }

    /// Whether a single path is usable; the short form of [`Core::candidate`].
    pub(super) fn is_usable(&self, path: &Path) -> bool {
        path.rejected == 0 && self.next_hops.metric(self.attrs.key(path.attrs).next_hop).is_some()
    }

    /// Adds `by` (1 or -1) to what the path's peer counts.
    pub(super) fn count<A: Family>(&mut self, path: &Path, by: i32) {
        let Some(peer) = self.peer_mut(path.peer) else { return };
        let counts = peer.counts.of_mut(A::FAMILY);
        counts.received = counts.received.saturating_add_signed(by);
        if path.rejected == 0 {
            counts.accepted = counts.accepted.saturating_add_signed(by);
        }
        if path.has(Path::STALE) {
            counts.stale = counts.stale.saturating_add_signed(by);
        }
    }

    /// Puts a path in place of the peer's last one.
    pub(super) fn put_path<A: Family>(&mut self, slot: Slot, path: Path) {
        self.touch::<A>(slot);
        self.attrs.acquire(path.attrs);
        self.attrs.acquire(path.raw);
        self.count::<A>(&path, 1);
        self.note_path::<A>(slot, &path);
        let table = &mut A::plane_mut(self).table;
        match table.locate(slot, path.peer, path.path_id) {
            None => table.add(slot, path),
            Some(at) => {
                let old = table.path_mut(slot, at).map(|place| std::mem::replace(place, path));
                if let Some(old) = old {
                    self.attrs.release(old.attrs);
                    self.attrs.release(old.raw);
                    self.count::<A>(&old, -1);
                }
            }
        }
    }

    /// Takes a path away.
    pub(super) fn drop_path<A: Family>(&mut self, slot: Slot, at: u32) {
        self.touch::<A>(slot);
        if let Some(old) = A::plane_mut(self).table.take(slot, at) {
            self.attrs.release(old.attrs);
            self.attrs.release(old.raw);
            self.count::<A>(&old, -1);
            self.note_path::<A>(slot, &old);
        }
    }

    /// The peer's path is announced.
    pub(super) fn announce<A: Family>(&mut self, addr: A, len: u8, path: Path) {
        if let Some(slot) = A::plane_mut(self).table.find_or_insert(addr, len) {
            self.put_path::<A>(slot, path);
        }
    }

    /// The peer's path is withdrawn.
    pub(super) fn withdraw<A: Family>(&mut self, addr: A, len: u8, peer: PeerId, path_id: u32) {
        let table = &A::plane(self).table;
        let found = table.find(addr, len).and_then(|slot| Some((slot, table.locate(slot, peer, path_id)?)));
        if let Some((slot, at)) = found {
            self.drop_path::<A>(slot, at);
        }
    }
}

/// Folded over next hops in ascending order, this tells sets of them apart.
fn mark_with(mark: u64, next_hop: u32) -> u64 {
    fold(mark ^ u64::from(next_hop), 0xA076_1D64_78BD_642F).wrapping_add(0x9E37_79B9_7F4A_7C15)
}
