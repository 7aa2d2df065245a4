//! Several paths per prefix towards peers that take them (RFC 7911): which ones, under which identifiers, what was told of them.
//!
//! ```text
//! candidates ─► decision::rank ─► verdict of the group, path by path ─► the first `paths` that pass: what is told
//!                                                                            │ compared with `told`
//!                                        withdrawn, by identifier ◄──────────┴──────────► pending ─► packed, encoded
//! ```

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::attrs::AttrId;
use super::core::{Core, Family};
use super::group::{Bits, Group, Packed, Telling, Told, Verdict};
use super::hash::fold;
use super::log::To;
use super::table::{Entry, LOCAL, Path, Slot};
use super::values::{PeerFacts, RibEvent};
use crate::decision;
use crate::link_local;
use crate::types::{AfiSafi, PeerId};
use crate::wire::rewrite;

/// The identifier of the route that this node originates; one per prefix and peer.
const OWN: u32 = 1;

/// A path as it is told: a prefix and the identifier.
pub(super) type PathOf = (Slot, u32);

/// Adj-RIB-out of a group and a family with several paths per prefix. Empty in every other one.
#[derive(Debug, Default)]
pub(super) struct ToldPaths {
    /// Set and source.
    told: BTreeMap<PathOf, (AttrId, PeerId)>,
    /// What `told` adds up to.
    pub count: Told,
    /// To be told: set and source, place in the terms, path. Only within a drain.
    pub pending: Vec<(u64, u32, PathOf)>,
    /// Only within a drain.
    withdrawn: Vec<(To, PathOf)>,
}

impl ToldPaths {
    /// What was told of a prefix: identifier, set, source.
    pub(super) fn of(&self, slot: Slot) -> impl Iterator<Item = (u32, (AttrId, PeerId))> + '_ {
        self.told.range((slot, 0)..=(slot, u32::MAX)).map(|((_, id), told)| (*id, *told))
    }

    /// The prefixes of which something was told, ascending.
    pub(super) fn slots(&self) -> BTreeSet<Slot> {
        self.told.keys().map(|(slot, _)| *slot).collect()
    }

    /// A path is told so from here on. Returns what was told under its identifier.
    fn insert(&mut self, path: PathOf, telling: &Telling) -> Option<(AttrId, PeerId)> {
        let before = self.told.insert(path, (telling.attrs, telling.source));
        self.count.changed(before.map(|(_, source)| source), Some(telling.source));
        before
    }

    fn remove(&mut self, path: PathOf) {
        if let Some((_, source)) = self.told.remove(&path) {
            self.count.changed(Some(source), None);
        }
    }

    /// All that was told, with its source.
    pub(super) fn each(&self) -> impl Iterator<Item = (PathOf, PeerId)> + '_ {
        self.told.iter().map(|(path, (_, source))| (*path, *source))
    }
}

/// What a peer has not heard of: it fell behind the log, or changed groups.
#[derive(Debug, Default)]
pub(super) struct Late {
    pub prefixes: BTreeSet<IpNet>,
    /// Of families with several paths per prefix.
    pub paths: BTreeSet<(IpNet, u32)>,
}

impl Late {
    pub(super) fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.paths.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.prefixes.len() + self.paths.len()
    }

    /// A prefix that was named in what the peer did not read; `ids`: which families carry identifiers.
    pub(super) fn insert(&mut self, prefix: IpNet, id: u32, ids: (bool, bool)) {
        let has_id = match AfiSafi::of(&prefix) {
            AfiSafi::Ipv4Unicast => ids.0,
            AfiSafi::Ipv6Unicast => ids.1,
        };
        if has_id {
            self.paths.insert((prefix, id));
        } else {
            self.prefixes.insert(prefix);
        }
    }

    pub(super) fn append(&mut self, other: &mut Late) {
        self.prefixes.append(&mut other.prefixes);
        self.paths.append(&mut other.paths);
    }
}

/// What stands for a peer in the identifiers of its paths: it is the same after a restart of either side, and after a reboot, which gives
/// interfaces other indices. Two sessions on two links with one router that has one address on both stand for one source then: of
/// its paths with one identifier the better one is told, like wherever identifiers meet. Nothing is lost by that: the next hop of
/// both is told as ourselves.
#[expect(clippy::cast_possible_truncation, reason = "32 of the 64 bits are kept")]
pub(super) fn identity(facts: &PeerFacts) -> u32 {
    let address = match link_local::wire(facts.address) {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        std::net::IpAddr::V6(v6) => v6,
    };
    let bits = u128::from(address);
    let high = fold((bits >> 64) as u64 ^ 0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB);
    let both = fold(high ^ bits as u64, 0x8EBC_6AF0_9C88_C6E3);
    fold(both ^ u64::from(u32::from(facts.router_id.0)), 0x5899_65CC_7537_4CC3) as u32
}

/// A permutation of 32 bits that leaves no likeness: identifiers that came through several speakers must not meet.
fn scatter(mut bits: u32) -> u32 {
    bits ^= bits >> 16;
    bits = bits.wrapping_mul(0x85EB_CA6B);
    bits ^= bits >> 13;
    bits = bits.wrapping_mul(0xC2B2_AE35);
    bits ^ bits >> 16
}

impl Core {
    /// The identifier under which a path is told to whomever (RFC 7911 §3): a function of whose path it is and of the identifier
    /// that it came with, and so neither of the order of events nor of other paths. Two paths of one peer never share one.
    pub(super) fn path_identifier(&self, path: &Path) -> u32 {
        self.peer(path.peer).map_or(OWN, |peer| scatter(path.path_id ^ peer.identity))
    }

    /// The candidates of a prefix, best first.
    fn ranked<A: Family>(&self, slot: Slot) -> Vec<Path> {
        let table = &A::plane(self).table;
        let mut candidates: Vec<_> =
            table.paths(slot).filter_map(|(path, at)| self.candidate(&path, at)).collect();
        decision::rank(&mut candidates);
        candidates.iter().filter_map(|candidate| table.path(slot, candidate.place)).collect()
    }
}

impl Group {
    /// Whether the group is told several paths per prefix of this family.
    pub(super) fn adds_paths<A: Family>(&self) -> bool {
        *self.key.paths.of(A::FAMILY) > 0
    }

    /// Which families carry path identifiers: IPv4, IPv6.
    pub(super) fn path_ids(&self) -> (bool, bool) {
        (self.key.paths.ipv4 > 0, self.key.paths.ipv6 > 0)
    }

    /// The paths of a prefix as they are told, best first, each with its identifier: of those that pass the group's verdict the
    /// best ones, as many as the group takes. `too_long` gets the length of each that does not fit a message.
    pub(super) fn paths_of<A: Family>(
        &self,
        slot: Slot,
        core: &Core,
        mut too_long: impl FnMut(usize),
    ) -> Vec<(u32, Telling)> {
        let most = usize::from(*self.key.paths.of(A::FAMILY));
        let (mut chosen, mut own) = (Vec::<(u32, Telling)>::new(), false);
        for path in core.ranked::<A>(slot) {
            if chosen.len() >= most {
                break;
            }
            let id = core.path_identifier(&path);
            // The paths of our own are one route under several tags; the verdict finds the group's. Of two paths that share an
            // identifier by chance, the better one is told.
            let again = path.peer == LOCAL && std::mem::replace(&mut own, true);
            if again || chosen.iter().any(|(known, _)| *known == id) {
                continue;
            }
            match self.verdict::<A>(slot, Some((path.attrs, path.peer)), core) {
                Verdict::Tell(telling) => chosen.push((id, telling)),
                Verdict::Not => {}
                Verdict::TooLong(length) => too_long(length),
            }
        }
        chosen
    }

    /// A prefix was decided: what is told of it follows.
    pub(super) fn consider_paths<A: Family>(&mut self, slot: Slot, core: &Core) {
        if self.members.is_empty() {
            return;
        }
        let mut too_long = Vec::new();
        let wanted = self.paths_of::<A>(slot, core, |length| too_long.push(length));
        let Group { members, out, .. } = self;
        let out = out.of_mut(A::FAMILY);
        too_long.into_iter().for_each(|length| out.report_too_long(slot, length));
        let told: Vec<_> = out.paths.of(slot).collect();
        for (id, (_, source)) in told {
            if !wanted.iter().any(|(known, _)| *known == id) {
                out.paths.remove((slot, id));
                out.paths.withdrawn.push((To::AllBut(source), (slot, id)));
            }
        }
        for (id, telling) in wanted {
            let (now, source) = ((telling.attrs, telling.source), telling.source);
            let before = out.paths.insert((slot, id), &telling);
            if before == Some(now) {
                continue;
            }
            if before.is_some_and(|(_, from)| from != source) && members.binary_search(&source).is_ok() {
                // Its own path took over the identifier: it takes back what it was told under it.
                out.paths.withdrawn.push((To::Only(source), (slot, id)));
            }
            if members.iter().any(|member| *member != source) {
                out.push_path(telling, (slot, id));
            }
        }
    }

    /// The paths of a prefix are told to one peer, outside of any change: all, or those with an identifier among `only`. Returns
    /// the identifiers that were told.
    pub(super) fn tell_paths<A: Family>(
        &mut self,
        slot: Slot,
        to: PeerId,
        only: Option<&BTreeSet<u32>>,
        core: &Core,
    ) -> BTreeSet<u32> {
        let mut too_long = Vec::new();
        let wanted = self.paths_of::<A>(slot, core, |length| too_long.push(length));
        let out = self.out.of_mut(A::FAMILY);
        too_long.into_iter().for_each(|length| out.report_too_long(slot, length));
        let mut told = BTreeSet::new();
        for (id, telling) in wanted {
            out.paths.insert((slot, id), &telling);
            if telling.source != to && only.is_none_or(|only| only.contains(&id)) {
                told.insert(id);
                out.push_path(telling, (slot, id));
            }
        }
        told
    }

    /// Paths that a peer may have a wrong idea of: told as they stand. Returns those that it is not to be told.
    pub(super) fn tell_late_paths<A: Family>(
        &mut self,
        late: &BTreeSet<(IpNet, u32)>,
        to: PeerId,
        core: &Core,
    ) -> Vec<(A, u8, u32)> {
        let mut by_prefix = BTreeMap::<(A, u8), BTreeSet<u32>>::new();
        for (prefix, id) in late {
            if let Some(prefix) = A::of(prefix) {
                by_prefix.entry(prefix).or_default().insert(*id);
            }
        }
        let mut gone = Vec::new();
        for ((addr, len), ids) in by_prefix {
            let slot = A::plane(core).table.find(addr, len);
            let told = slot.map(|slot| self.tell_paths::<A>(slot, to, Some(&ids), core));
            let told = told.unwrap_or_default();
            gone.extend(ids.difference(&told).map(|id| (addr, len, *id)));
        }
        gone
    }

    /// [`Group::flush`] where paths have identifiers.
    pub(super) fn flush_paths<A: Family>(&mut self, core: &Core, only: Option<PeerId>) -> Option<RibEvent> {
        let Group { key, out, log, .. } = self;
        let out = out.of_mut(A::FAMILY);
        let table = &A::plane(core).table;
        let named = |(slot, id): &PathOf| table.prefix(*slot).map(|(addr, len)| (addr, len, *id));
        out.paths.withdrawn.sort_unstable();
        for run in out.paths.withdrawn.chunk_by(|a, b| a.0 == b.0) {
            let Some((to, _)) = run.first() else { continue };
            log.withdraw(only.map_or(*to, To::Only), run.iter().filter_map(|(_, path)| named(path)));
        }
        out.paths.pending.sort_unstable();
        let packed = Packed::pack::<A>(&out.paths.pending, &out.terms, &key.style, core);
        for run in packed.order.chunk_by(|a, b| a.0 == b.0) {
            let Some((bytes, source)) = run.first().and_then(|(set, _)| packed.set(*set)) else { continue };
            let to = only.map_or(To::AllBut(source), To::Only);
            let prefixes = run.iter().filter_map(|(_, path)| named(path));
            log.announce(to, &rewrite::outgoing(bytes), key.max_message, prefixes);
        }
        out.paths.withdrawn.clear();
        out.paths.pending.clear();
        out.paths.withdrawn.shrink_to(4096); // a burst must not pin its queues
        out.paths.pending.shrink_to(4096);
        self.end_flush::<A>(core, only)
    }

    /// [`Group::take_over`] where paths have identifiers.
    pub(super) fn take_over_paths<A: Family>(
        &mut self,
        old: &Group,
        core: &Core,
        alike: &mut Bits,
    ) -> Vec<(IpNet, u32)> {
        let table = &A::plane(core).table;
        let mut rest = Vec::new();
        let same_style = old.key.style == self.key.style;
        // What a next hop that came or went makes of the paths is not decided yet, and so nobody was told.
        let undecided = core.next_hops.has_changed();
        for slot in old.out.of(A::FAMILY).paths.slots() {
            let Some((addr, len)) = table.prefix(slot) else { continue };
            let dirty = undecided || table.entry(slot).is_none_or(|entry| entry.has(Entry::<A>::DIRTY));
            let told = old.out.of(A::FAMILY).paths.of(slot).map(|(id, _)| id);
            if dirty {
                rest.extend(told.map(|id| (addr.prefix(len), id)));
                continue;
            }
            let here = self.paths_of::<A>(slot, core, |_| ());
            let gone = told.filter(|id| !here.iter().any(|(known, _)| known == id));
            rest.extend(gone.map(|id| (addr.prefix(len), id)));
            let by_id = |mut paths: Vec<(u32, Telling)>| {
                paths.sort_unstable_by_key(|(id, _)| *id);
                paths
            };
            let (here, there) = (by_id(here), by_id(old.paths_of::<A>(slot, core, |_| ())));
            alike.set(slot, same_style && here == there);
            let out = &mut self.out.of_mut(A::FAMILY).paths;
            for (id, telling) in here {
                out.insert((slot, id), &telling);
            }
        }
        rest
    }

    /// Whether what was told of a prefix is what is to be told; `walking`: nothing is right as well.
    pub(super) fn paths_fit<A: Family>(&self, slot: Slot, walking: bool, core: &Core) -> bool {
        let wanted: BTreeMap<u32, (AttrId, PeerId)> = self
            .paths_of::<A>(slot, core, |_| ())
            .into_iter()
            .map(|(id, telling)| (id, (telling.attrs, telling.source)))
            .collect();
        let told: BTreeMap<_, _> = self.out.of(A::FAMILY).paths.of(slot).collect();
        told == wanted || walking && told.is_empty()
    }
}
