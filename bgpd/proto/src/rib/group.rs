//! Update groups: peers that are told the same bytes share one adj-RIB-out and one log of encoded UPDATEs.

use std::collections::BTreeSet;
use std::ops::Range;

use hashbrown::HashTable;

use super::attrs::AttrId;
use super::core::{Best, Core, EndOfRib, Family, PerFamily};
use super::explain::Withheld;
use super::hash::{hash_bytes, spread};
use super::log::{Log, To};
use super::paths::{Late, PathOf, ToldPaths};
use super::table::{Entry, LOCAL, Slot};
use super::values::{RibEvent, Tag};
use crate::policy::{Changes, ExportPolicy, NO_PEER, Route, Source, Sources, carries};
use crate::types::{AfiSafi, PeerId};
use crate::wire::Role;
use crate::wire::attr::{self, Key, code};
use crate::wire::nlri::{PATH_ID, V6};
use crate::wire::rewrite::{self, Origin, Style};
use crate::wire::update;

/// All that decides what is told, and in which bytes. Peers equal in this share a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey {
    pub style: Style,
    pub families: BTreeSet<AfiSafi>,
    /// The longest message they take.
    pub max_message: usize,
    /// They know what a long-lived stale route is (RFC 9494).
    pub long_lived: bool,
    /// They are clients of ours (RFC 4456).
    pub client: bool,
    pub export: ExportPolicy,
    /// Which originated routes are told.
    pub tags: BTreeSet<Tag>,
    /// How many paths per prefix they are told, with identifiers (RFC 7911); 0: the best one, without.
    pub paths: PerFamily<u8>,
}

/// How a route is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Telling {
    pub attrs: AttrId,
    pub source: PeerId,
    /// What the filters change, before the set is rewritten for the group.
    pub changes: Option<Box<Changes>>,
}

/// Whether a route is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is.
    Tell(Telling),
    /// It is not.
    Not,
    /// It would be, but its attributes leave no room for a prefix in a message; they are so long.
    TooLong(usize),
}

/// A bit per slot.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

/// How many prefixes or paths the members are told, and how many of these by whose route: so that nobody has to walk them.
#[derive(Debug, Default)]
pub(super) struct Told {
    all: u32,
    /// By the number of the peer that the route is from; what is our own is in none.
    by_source: Vec<u32>,
}

/// What waits to be encoded: set and source, place in [`Out::terms`], slot.
type Pending = (u64, u32, Slot);

/// One family's part of a group.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// Adj-RIB-out. What was sent is a pure function of the best path and the group's key.
    sent: Bits,
    /// What `sent` adds up to.
    told: Told,
    /// To be told. Only within a drain.
    pending: Vec<Pending>,
    /// The changes that `pending` names, from 1 on; 0 is none. Only within a drain.
    pub(super) terms: Vec<Changes>,
    /// Only within a drain.
    withdrawn: Vec<(To, Slot)>,
    /// Not told for being too long: how many, one of them, how long. Only within a drain.
    too_long: Option<(u32, Slot, usize)>,
    /// What stands in place of `sent`, `pending` and `withdrawn` where several paths per prefix are told.
    pub(super) paths: ToldPaths,
}

#[derive(Debug)]
pub(super) struct Group {
    pub key: GroupKey,
    /// Ascending. A group without members is idle: it holds nothing and is taken over by the next new key.
    pub members: Vec<PeerId>,
    pub out: PerFamily<Out>,
    pub log: Log,
}

impl Bits {
    pub(super) fn get(&self, slot: Slot) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    pub(super) fn set(&mut self, slot: Slot, on: bool) {
        let at = slot as usize / 64;
        if at >= self.0.len() {
            if !on {
                return;
            }
            self.0.resize(at + 1, 0);
        }
        if let Some(word) = self.0.get_mut(at) {
            *word = *word & !(1 << (slot % 64)) | u64::from(on) << (slot % 64);
        }
    }

    /// The slots whose bit is set.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let words = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(at, word)| {
            let first = u32::try_from(at * 64).unwrap_or(u32::MAX);
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        })
    }
}

impl Told {
    /// A prefix or path is told from `after`, and was from `before`.
    pub(super) fn changed(&mut self, before: Option<PeerId>, after: Option<PeerId>) {
        if before == after {
            return;
        }
        if let Some(source) = before {
            self.all = self.all.saturating_sub(1);
            if let Some(count) = self.by_source.get_mut(usize::from(source.0)) {
                *count = count.saturating_sub(1);
            }
        }
        if let Some(source) = after {
            self.all += 1;
            let at = usize::from(source.0);
            if source != LOCAL && self.by_source.len() <= at {
                self.by_source.resize(at + 1, 0);
            }
            if let Some(count) = self.by_source.get_mut(at) {
                *count += 1;
            }
        }
    }

    /// How many a member is told: all but those of its own.
    pub(super) fn to(&self, peer: PeerId) -> u32 {
        let own = self.by_source.get(usize::from(peer.0)).copied().unwrap_or(0);
        self.all.saturating_sub(own)
    }
}

impl Out {
    /// How many prefixes a member is told, and paths where it is told several of them.
    pub(super) fn told_to(&self, peer: PeerId) -> u32 {
        // One of the two is empty.
        self.told.to(peer) + self.paths.count.to(peer)
    }

    pub(super) fn bit(&self, slot: Slot) -> bool {
        self.sent.get(slot)
    }

    /// A route is to be encoded.
    fn push(&mut self, telling: Telling, slot: Slot) {
        let set = pack(telling.attrs, telling.source);
        let term = self.term(telling.changes);
        self.pending.push((set, term, slot));
    }

    /// A path is to be encoded.
    pub(super) fn push_path(&mut self, telling: Telling, path: PathOf) {
        let set = pack(telling.attrs, telling.source);
        let term = self.term(telling.changes);
        self.paths.pending.push((set, term, path));
    }

    fn term(&mut self, changes: Option<Box<Changes>>) -> u32 {
        changes.map_or(0, |changes| {
            let known = self.terms.iter().position(|known| *known == *changes);
            let place = known.unwrap_or_else(|| {
                self.terms.push(*changes);
                self.terms.len() - 1
            });
            u32::try_from(place + 1).unwrap_or(u32::MAX)
        })
    }
}

impl Group {
    pub(super) fn new(key: GroupKey) -> Group {
        Group { key, members: Vec::new(), out: PerFamily::default(), log: Log::default() }
    }

    /// The peer is told everything from here on: what is there by its walk, what changes by the log.
    pub(super) fn join(&mut self, id: PeerId, core: &mut Core) {
        if let Err(at) = self.members.binary_search(&id) {
            self.members.insert(at, id);
        }
        let walk = PerFamily { ipv4: 0..core.v4.table.slots(), ipv6: 0..core.v6.table.slots() };
        let Some(peer) = core.peer_mut(id) else { return };
        (peer.cursor, peer.walk, peer.alike) = (self.log.head(), walk, PerFamily::default());
        peer.late = Late::default();
        for family in AfiSafi::ALL {
            let due = peer.facts.families.contains(&family);
            *peer.end_of_rib.of_mut(family) = if due { EndOfRib::Due } else { EndOfRib::None };
        }
    }

    /// A route of this family as it would be told now, before any look at its length.
    pub(super) fn choose<A: Family>(
        &self,
        slot: Slot,
        best: (AttrId, PeerId),
        core: &Core,
    ) -> Result<Telling, Withheld> {
        let origin = core.origin(best.1);
        let (key, bytes) = (core.attrs.key(best.0), core.attrs.bytes(best.0));
        if !self.key.families.contains(&A::FAMILY) {
            return Err(Withheld::Family);
        }
        if !self.key.style.has_next_hop(A::FAMILY, origin, &key, bytes) {
            return Err(Withheld::NextHop);
        }
        let (attrs, source) = match origin {
            Origin::Own => {
                let paths = A::plane(core).table.paths(slot).map(|(path, _)| path);
                let ours =
                    paths.filter(|path| path.peer == LOCAL && self.key.tags.contains(&Tag(path.path_id)));
                ours.min_by_key(|path| path.path_id)
                    .map(|path| (path.attrs, LOCAL))
                    .ok_or(Withheld::Audience)?
            }
            Origin::External | Origin::Internal(_) => self.hands_on(best, origin, core).map(|()| best)?,
        };
        let changes = self.filtered::<A>(slot, attrs, origin, core).ok_or(Withheld::Filter)?;
        Ok(Telling { attrs, source, changes })
    }

    /// Whether a learned route is a candidate.
    fn hands_on(
        &self,
        (attrs, source): (AttrId, PeerId),
        origin: Origin,
        core: &Core,
    ) -> Result<(), Withheld> {
        let (external, key, bytes) =
            (self.key.style.external, core.attrs.key(attrs), core.attrs.bytes(attrs));
        // RFC 9494 §4.3, RFC 1997, RFC 9234 §5, RFC 3765.
        if key.is_long_lived_stale() && !self.key.long_lived {
            return Err(Withheld::LongLivedStale);
        }
        if key.has(Key::NO_ADVERTISE) {
            return Err(Withheld::NoAdvertise);
        }
        if external && key.has(Key::NO_EXPORT) {
            return Err(Withheld::NoExport);
        }
        if self.key.style.leaks(bytes) {
            return Err(Withheld::RouteLeak);
        }
        if self.key.style.role == Some(Role::Peer) && carries(bytes, NO_PEER, None) {
            return Err(Withheld::NoPeer);
        }
        let (is_handed_on, why) = match origin {
            Origin::Own => (true, Withheld::NoTransit),
            Origin::External => (self.key.export.transit || self.key.client, Withheld::NoTransit),
            Origin::Internal(_) if external => (self.key.export.transit, Withheld::NoTransit),
            // RFC 4271 §9.2: what an internal peer told is not told to internal peers; RFC 4456 §6: from clients and to clients
            // it is.
            Origin::Internal(_) => (self.key.client || core.is_client(source), Withheld::NotReflected),
        };
        if is_handed_on { Ok(()) } else { Err(why) }
    }

    /// The word of the group's filters on a candidate: what they change, or `None` where they withhold it.
    fn filtered<A: Family>(
        &self,
        slot: Slot,
        attrs: AttrId,
        origin: Origin,
        core: &Core,
    ) -> Option<Option<Box<Changes>>> {
        let export = &self.key.export;
        if export.filter.is_empty() && !export.drained {
            return Some(None);
        }
        self.as_rules_see::<A, _>(slot, attrs, origin, core, |route| export.judge(route).ok())?
    }

    /// A candidate as the rules of the group see it.
    pub(super) fn as_rules_see<A: Family, R>(
        &self,
        slot: Slot,
        attrs: AttrId,
        origin: Origin,
        core: &Core,
        ask: impl FnOnce(&Route<'_>) -> R,
    ) -> Option<R> {
        let (addr, len) = A::plane(core).table.prefix(slot)?;
        let bytes = core.attrs.bytes(attrs);
        let (sources, next_hop) = match origin {
            Origin::Own => (own_sources(bytes), None),
            Origin::External => (Source::External.into(), Some(core.next_hop_of(attrs))),
            Origin::Internal(_) => (Source::Internal.into(), Some(core.next_hop_of(attrs))),
        };
        Some(ask(&Route { prefix: &addr.prefix(len), sources, next_hop, attributes: bytes }))
    }

    /// The attributes of a route as they leave.
    pub(super) fn rewritten<A: Family>(&self, telling: &Telling, core: &Core, out: &mut Vec<u8>) {
        let Telling { attrs, source, changes } = telling;
        rewritten::<A>(&self.key.style, (*attrs, *source), changes.as_deref(), core, out);
    }

    /// Whether and how a route is told: a pure function of the best path and the group's key.
    pub(super) fn verdict<A: Family>(&self, slot: Slot, best: Best, core: &Core) -> Verdict {
        let Some(telling) = best.and_then(|best| self.choose::<A>(slot, best, core).ok()) else {
            return Verdict::Not;
        };
        // Rewriting adds at most our AS, next hops, LOCAL_PREF, and half of the path once more (AS4_PATH).
        let added = telling.changes.as_ref().map_or(0, |changes| changes.growth());
        let bound = (usize::from(core.attrs.key(telling.attrs).len) + added) * 2 + 256;
        if bound < update::MAX_MESSAGE {
            return Verdict::Tell(telling);
        }
        let mut bytes = Vec::new();
        self.rewritten::<A>(&telling, core, &mut bytes);
        let longest = update::longest_prefix::<A>() + if self.adds_paths::<A>() { PATH_ID } else { 0 };
        if update::room::<A>(&rewrite::outgoing(&bytes), self.key.max_message) < longest {
            return Verdict::TooLong(bytes.len());
        }
        Verdict::Tell(telling)
    }

    /// A prefix was decided: its best path changed from `old` to what it is now.
    pub(super) fn consider<A: Family>(&mut self, slot: Slot, old: Best, new: Best, core: &Core) {
        if self.members.is_empty() {
            return;
        }
        if self.adds_paths::<A>() {
            return self.consider_paths::<A>(slot, core);
        }
        let verdict = self.verdict::<A>(slot, new, core);
        let members = &self.members;
        let out = self.out.of_mut(A::FAMILY);
        let (was, from) = (out.bit(slot), old.map_or(LOCAL, |(_, peer)| peer));
        match verdict {
            Verdict::Tell(telling) => {
                let source = telling.source;
                out.sent.set(slot, true);
                out.told.changed(was.then_some(from), Some(source));
                if members.iter().any(|member| *member != source) {
                    out.push(telling, slot);
                }
                if was && from != source && members.binary_search(&source).is_ok() {
                    // Its own route won: it takes back what it was told.
                    out.withdrawn.push((To::Only(source), slot));
                }
            }
            Verdict::Not | Verdict::TooLong(_) => {
                if was {
                    out.sent.set(slot, false);
                    out.told.changed(Some(from), None);
                    out.withdrawn.push((To::AllBut(from), slot));
                }
                if let Verdict::TooLong(length) = verdict {
                    out.report_too_long(slot, length);
                }
            }
        }
    }

    /// A route is told to one peer, outside of any change of it. `false`: it is not to be told.
    pub(super) fn tell<A: Family>(&mut self, slot: Slot, to: PeerId, core: &Core) -> bool {
        if self.adds_paths::<A>() {
            return !self.tell_paths::<A>(slot, to, None, core).is_empty();
        }
        let verdict = self.verdict::<A>(slot, core.best::<A>(slot), core);
        let out = self.out.of_mut(A::FAMILY);
        match verdict {
            Verdict::Tell(telling) => {
                let is_due = telling.source != to;
                // The bit is the group's: it stands also where the only member is the source.
                if !out.sent.get(slot) {
                    out.sent.set(slot, true);
                    out.told.changed(None, Some(telling.source));
                }
                if is_due {
                    out.push(telling, slot);
                }
                is_due
            }
            Verdict::Not => false,
            Verdict::TooLong(length) => {
                out.report_too_long(slot, length);
                false
            }
        }
    }

    /// Encodes what is pending, once for all members (or for `only`). Sets that differ only in what this group rewrites leave as
    /// one: packing is by outgoing bytes.
    pub(super) fn flush<A: Family>(&mut self, core: &Core, only: Option<PeerId>) -> Option<RibEvent> {
        if self.adds_paths::<A>() {
            return self.flush_paths::<A>(core, only);
        }
        let Group { key, out, log, .. } = self;
        let out = out.of_mut(A::FAMILY);
        let table = &A::plane(core).table;
        for run in out.withdrawn.chunk_by(|a, b| a.0 == b.0) {
            let Some((to, _)) = run.first() else { continue };
            log.withdraw(only.map_or(*to, To::Only), run.iter().filter_map(|(_, slot)| table.prefix(*slot)));
        }
        out.pending.sort_unstable();
        let packed = Packed::pack::<A>(&out.pending, &out.terms, &key.style, core);
        for run in packed.order.chunk_by(|a, b| a.0 == b.0) {
            let Some((bytes, source)) = run.first().and_then(|(set, _)| packed.set(*set)) else { continue };
            let to = only.map_or(To::AllBut(source), To::Only);
            log.announce(
                to,
                &rewrite::outgoing(bytes),
                key.max_message,
                run.iter().filter_map(|(_, slot)| table.prefix(*slot)),
            );
        }
        out.withdrawn.clear();
        out.pending.clear();
        out.withdrawn.shrink_to(4096); // a burst must not pin its queues
        out.pending.shrink_to(4096);
        self.end_flush::<A>(core, only)
    }

    /// What was encoded needs its changes no longer, and what was too long is reported.
    pub(super) fn end_flush<A: Family>(&mut self, core: &Core, only: Option<PeerId>) -> Option<RibEvent> {
        let out = self.out.of_mut(A::FAMILY);
        out.terms.clear();
        let (prefixes, slot, length) = out.too_long.take()?;
        let (addr, len) = A::plane(core).table.prefix(slot)?;
        let peers = only.map_or_else(|| self.members.clone(), |peer| vec![peer]);
        Some(RibEvent::AttributesTooLong { peers, prefixes, example: addr.prefix(len), length })
    }

    /// The slots that the peer was told, as of the last drain.
    pub(super) fn told<'a, A: Family>(
        &'a self,
        peer: PeerId,
        core: &'a Core,
    ) -> impl Iterator<Item = Slot> + 'a {
        let others = move |slot: &Slot| core.best::<A>(*slot).is_some_and(|(_, source)| source != peer);
        self.out.of(A::FAMILY).sent.slots().filter(others)
    }

    /// A member of `old` is about to move here. Of what it was told there, what this group tells too gets its bit, so that the
    /// member hears of a change that comes before its walk has reached the prefix; and of that, what both tell alike goes into
    /// `alike`, for the walk to pass over. The rest is returned: prefixes that it is not to be told, or not for sure.
    pub(super) fn take_over<A: Family>(
        &mut self,
        old: &Group,
        core: &Core,
        alike: &mut Bits,
    ) -> Vec<ipnet::IpNet> {
        let table = &A::plane(core).table;
        let mut rest = Vec::new();
        for slot in old.out.of(A::FAMILY).sent.slots() {
            let dirty = table.entry(slot).is_none_or(|entry| entry.has(Entry::<A>::DIRTY));
            let best = core.best::<A>(slot);
            match self.verdict::<A>(slot, best, core) {
                here @ Verdict::Tell(..) if !dirty => {
                    let out = self.out.of_mut(A::FAMILY);
                    if !out.sent.get(slot) {
                        out.sent.set(slot, true);
                        out.told.changed(None, best.map(|(_, source)| source));
                    }
                    let same = old.key.style == self.key.style && old.verdict::<A>(slot, best, core) == here;
                    alike.set(slot, same);
                }
                Verdict::Tell(..) | Verdict::Not | Verdict::TooLong(_) => {
                    rest.extend(table.prefix(slot).map(|(addr, len)| addr.prefix(len)));
                }
            }
        }
        rest
    }

    /// Everything of the group that the last member leaves behind goes.
    pub(super) fn empty(&mut self) {
        (self.out, self.log) = (PerFamily::default(), Log::default());
    }

    /// Encodes for both families.
    pub(super) fn flush_all(&mut self, core: &Core, only: Option<PeerId>, events: &mut Vec<RibEvent>) {
        events.extend(self.flush::<u32>(core, only));
        events.extend(self.flush::<V6>(core, only));
    }
}

impl Out {
    pub(super) fn report_too_long(&mut self, slot: Slot, length: usize) {
        let (count, _, _) = self.too_long.unwrap_or((0, slot, length));
        self.too_long = Some((count + 1, slot, length));
    }
}

fn pack(attrs: AttrId, source: PeerId) -> u64 {
    u64::from(attrs) << 32 | u64::from(source.0)
}

/// How a route of our own came to be here: the octet that stands for its next hop.
fn own_sources(canonical: &[u8]) -> Sources {
    let octet = attr::find(canonical, code::NEXT_HOP).and_then(|value| value.first().copied());
    Sources::from_bits(octet.unwrap_or(0))
}

/// A set as it leaves, changed and rewritten.
pub(super) fn rewritten<A: Family>(
    style: &Style,
    (attrs, source): (AttrId, PeerId),
    changes: Option<&Changes>,
    core: &Core,
    out: &mut Vec<u8>,
) {
    let (bytes, key, origin) = (core.attrs.bytes(attrs), core.attrs.key(attrs), core.origin(source));
    match changes {
        None => rewrite::rewrite(bytes, &key, A::FAMILY, style, origin, out),
        Some(changes) => rewrite::rewrite_changed(bytes, &key, A::FAMILY, style, origin, changes, out),
    }
}

/// Slots, or paths, by outgoing set.
pub(super) struct Packed<T> {
    arena: Vec<u8>,
    sets: Vec<(Range<usize>, PeerId)>,
    /// Set and slot, ascending.
    pub order: Vec<(u32, T)>,
}

impl<T: Copy + Ord> Packed<T> {
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a packed key")]
    pub(super) fn pack<A: Family>(
        pending: &[(u64, u32, T)],
        terms: &[Changes],
        style: &Style,
        core: &Core,
    ) -> Packed<T> {
        let mut packed =
            Packed { arena: Vec::new(), sets: Vec::new(), order: Vec::with_capacity(pending.len()) };
        let (mut one, mut seen) = (Vec::new(), HashTable::<(u32, u32)>::new());
        for run in pending.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let Some((key, term, _)) = run.first() else { continue };
            let (attrs, source) = ((key >> 32) as AttrId, PeerId(*key as u16));
            let changes = term.checked_sub(1).and_then(|place| terms.get(place as usize));
            rewritten::<A>(style, (attrs, source), changes, core, &mut one);
            let hash = hash_bytes(&one, u64::from(source.0));
            let same =
                |known: &(u32, u32)| known.0 == hash && packed.set(known.1) == Some((&one[..], source));
            let set = match seen.find(spread(hash), same) {
                Some((_, set)) => *set,
                None => {
                    let set = packed.sets.len() as u32;
                    packed.sets.push((packed.arena.len()..packed.arena.len() + one.len(), source));
                    packed.arena.extend_from_slice(&one);
                    seen.insert_unique(spread(hash), (hash, set), |known| spread(known.0));
                    set
                }
            };
            packed.order.extend(run.iter().map(|(_, _, slot)| (set, *slot)));
        }
        packed.order.sort_unstable();
        packed
    }

    pub(super) fn set(&self, set: u32) -> Option<(&[u8], PeerId)> {
        let (range, source) = self.sets.get(set as usize)?;
        Some((self.arena.get(range.clone())?, *source))
    }
}
