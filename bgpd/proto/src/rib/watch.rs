//! The table as monitoring stations are told of it: what changed, and slot by slot. Nothing is noted while nobody watches.
//!
//! A step is bounded by what it makes a station's queue grow: a slot may have thousands of rows (members of groups, several paths
//! per prefix), and a row 64 KiB. So a walk may stop within a slot.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ipnet::IpNet;

use super::Rib;
use super::attrs::AttrId;
use super::core::{Core, Family};
use super::group::{Group, Telling, Verdict};
use super::next_hop::SELF;
use super::table::{LOCAL, Path, Slot};
use crate::bmp::message::Table;
use crate::policy::NextHopMode;
use crate::types::{AfiSafi, PeerId};
use crate::wire::attr::{self, Key, code};
use crate::wire::message::MAX_EXTENDED_LENGTH;
use crate::wire::next_hop;
use crate::wire::nlri::{Nlri, V6};
use crate::wire::rewrite::{self, Origin, Outgoing, Style};
use crate::wire::update;

/// What stations are to be told of anew, as it stands by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A path in a peer's Adj-RIB-In.
    Path {
        /// Whose.
        peer: PeerId,
        /// To where.
        prefix: IpNet,
        /// RFC 7911; 0 without.
        path_id: u32,
    },
    /// The best path to a prefix.
    Best {
        /// The prefix.
        prefix: IpNet,
    },
}

/// Octets that one step may write, and a row more.
const OCTETS: usize = 1 << 20;
/// Slots that one step of a walk looks at.
const SLOTS: u32 = 4096;
/// Headers of one Route Monitoring message and of the UPDATE in it.
const HEADERS: usize = 48 + 23;
/// The longest prefix with its identifier.
const PREFIX: usize = 4 + 1 + 16;

/// Where the telling of a family's slots stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotWalk {
    /// Still to be told.
    slots: Range<Slot>,
    /// Of the first slot, this row and those before it were told.
    told: Option<Within>,
}

impl SlotWalk {
    /// Over so many slots.
    pub(crate) fn new(slots: u32) -> SlotWalk {
        SlotWalk { slots: 0..slots, told: None }
    }

    /// Whether all was told.
    pub(crate) fn is_over(&self) -> bool {
        self.slots.is_empty()
    }
}

/// A row among those of a slot. What changes meanwhile is noted, so that it does not matter what comes before the place of a walk.
type Within = (Table, PeerId, Option<u32>);

/// Where one UPDATE goes: whose table, and which; no peer is the Loc-RIB.
type Tell<'a> = &'a mut dyn FnMut(Option<PeerId>, Table, &[u8]);

/// A route of one table, in the order in which they are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row<A> {
    table: Table,
    peer: PeerId,
    /// Withdrawals first.
    set: Option<Set>,
    addr: A,
    len: u8,
    /// Where the session carries identifiers (RFC 7911).
    path_id: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Set {
    Canonical(AttrId),
    /// Place in [`Rows::rewritten`].
    Rewritten(usize),
}

impl<A> Row<A> {
    fn within(&self) -> Within {
        (self.table, self.peer, self.path_id)
    }
}

/// Routes that are told in one step.
#[derive(Debug)]
struct Rows<A> {
    rows: Vec<Row<A>>,
    /// Sets as [`rewrite::rewrite`] writes them.
    rewritten: Vec<Vec<u8>>,
    /// Where each of them is.
    places: BTreeMap<Vec<u8>, usize>,
    /// Sets that are told, of which table and peer.
    sets: BTreeSet<(Table, PeerId, Option<Set>)>,
    /// About so many octets are to be written, and no more.
    octets: usize,
}

impl<A: Family> Rows<A> {
    fn new() -> Rows<A> {
        Rows {
            rows: Vec::new(),
            rewritten: Vec::new(),
            places: BTreeMap::new(),
            sets: BTreeSet::new(),
            octets: 0,
        }
    }

    fn push(&mut self, row: Row<A>, core: &Core) {
        let length = match row.set {
            None => 0,
            Some(Set::Canonical(id)) => usize::from(core.attrs.key(id).len),
            Some(Set::Rewritten(place)) => self.rewritten.get(place).map_or(0, Vec::len),
        };
        // Where a set leaves most of a message to the prefixes, its share of a further prefix is less than one prefix more.
        let is_new = self.sets.insert((row.table, row.peer, row.set));
        let own = if is_new || length > 1024 { HEADERS + length } else { 0 };
        self.octets += 2 * PREFIX + own;
        self.rows.push(row);
    }

    /// A path of a peer's, before and after import; none: withdrawn from both.
    fn push_path(
        &mut self,
        peer: PeerId,
        path: Option<Path>,
        prefix: (A, u8),
        path_id: Option<u32>,
        core: &Core,
    ) {
        for row in rows_of_path(peer, path, prefix, path_id) {
            self.push(row, core);
        }
    }

    /// A set that was rewritten: the same for equal ones.
    fn rewritten(&mut self, bytes: &[u8]) -> Set {
        if let Some(place) = self.places.get(bytes) {
            return Set::Rewritten(*place);
        }
        let place = self.rewritten.len();
        self.rewritten.push(bytes.to_vec());
        self.places.insert(bytes.to_vec(), place);
        Set::Rewritten(place)
    }

    /// Writes what was gathered, packed by table, peer and set.
    fn tell(mut self, core: &Core, tell: Tell<'_>) {
        self.rows.sort_unstable();
        self.rows.dedup();
        let (mut set_bytes, mut message) = (Vec::new(), Vec::new());
        for run in self.rows.chunk_by(|a, b| (a.table, a.peer, a.set) == (b.table, b.peer, b.set)) {
            let Some(Row { table, peer, set, .. }) = run.first().copied() else { continue };
            let subject = (table != Table::LocRib).then_some(peer);
            let bytes = match set {
                None => None,
                Some(Set::Rewritten(place)) => self.rewritten.get(place).map(Vec::as_slice),
                Some(Set::Canonical(id)) => {
                    core.written::<A>(table, id, &mut set_bytes);
                    Some(&set_bytes[..])
                }
            };
            let mut tell = |update: &[u8]| tell(subject, table, update);
            // All of a session's family carry identifiers, or none.
            if run.iter().any(|row| row.path_id.is_some()) {
                let paths = run.iter().map(|row| (row.addr, row.len, row.path_id.unwrap_or_default()));
                tell_run(bytes, paths, &mut message, &mut tell);
            } else {
                tell_run(bytes, run.iter().map(|row| (row.addr, row.len)), &mut message, &mut tell);
            }
        }
    }
}

/// A path of a peer's, before and after import; none: withdrawn from both.
fn rows_of_path<A>(
    peer: PeerId,
    path: Option<Path>,
    (addr, len): (A, u8),
    path_id: Option<u32>,
) -> [Row<A>; 2]
where
    A: Copy,
{
    let raw = path.map(|path| Set::Canonical(path.raw));
    let accepted = path.filter(|path| path.rejected == 0).map(|path| Set::Canonical(path.attrs));
    [(Table::AdjRibIn, raw), (Table::AdjRibInPostPolicy, accepted)].map(|(table, set)| Row {
        table,
        peer,
        set,
        addr,
        len,
        path_id,
    })
}

/// Routes of one set, or withdrawals without one.
fn tell_run<N: Nlri>(
    set: Option<&[u8]>,
    routes: impl Iterator<Item = N>,
    message: &mut Vec<u8>,
    tell: &mut dyn FnMut(&[u8]),
) {
    let mut routes = routes.peekable();
    let outgoing = set.map(rewrite::outgoing);
    let longest = update::longest_prefix::<N::Address>() + N::PATH_ID;
    let fits = |outgoing: &Outgoing<'_>, limit| update::room::<N::Address>(outgoing, limit) >= longest;
    while routes.peek().is_some() {
        message.clear();
        match &outgoing {
            None => update::put_withdrawal(message, &mut routes),
            // A station takes what any session may carry, so no set is too long for it.
            Some(outgoing) if fits(outgoing, update::MAX_MESSAGE) => {
                update::put_announcement(message, outgoing, update::MAX_MESSAGE, &mut routes);
            }
            Some(outgoing) if fits(outgoing, MAX_EXTENDED_LENGTH) => {
                update::put_announcement(message, outgoing, MAX_EXTENDED_LENGTH, &mut routes);
            }
            Some(_) => return,
        }
        tell(message);
    }
}

impl Rib {
    /// `true`: changes are noted from here on.
    pub(crate) fn watch(&mut self, on: bool) {
        if on != self.core.changes.is_some() {
            self.core.changes = on.then(Vec::new);
        }
    }

    /// What was noted since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        self.core.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Prefixes and paths of both families: how much there is to be told of what is said and selected.
    pub(crate) fn rows(&self) -> usize {
        AfiSafi::ALL
            .map(|family| self.size(family))
            .into_iter()
            .map(|(prefixes, paths)| prefixes + paths)
            .sum()
    }

    /// Notes every path that is held of a peer: what is left of its last session is its Adj-RIB-In again, now that it is up.
    pub(crate) fn note_held(&mut self, peer: PeerId) {
        self.core.note_held::<u32>(peer);
        self.core.note_held::<V6>(peer);
    }

    /// Whether nothing is selected yet.
    pub(crate) fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// One above the highest slot of a family.
    pub(crate) fn slots(&self, family: AfiSafi) -> u32 {
        match family {
            AfiSafi::Ipv4Unicast => self.core.v4.table.slots(),
            AfiSafi::Ipv6Unicast => self.core.v6.table.slots(),
        }
    }

    /// How these stand now, as UPDATEs; those that do not fit into a step are left. Returns how many of them were told. Of peers
    /// that are down nothing is told.
    pub(crate) fn tell_changes(
        &self,
        changes: &[Change],
        is_up: &dyn Fn(PeerId) -> bool,
        tell: Tell<'_>,
    ) -> usize {
        let (mut ipv4, mut ipv6) = (Rows::<u32>::new(), Rows::<V6>::new());
        let mut told = 0;
        for change in changes {
            if ipv4.octets + ipv6.octets >= OCTETS {
                break;
            }
            self.core.changed_rows(change, is_up, &mut ipv4);
            self.core.changed_rows(change, is_up, &mut ipv6);
            told += 1;
        }
        ipv4.tell(&self.core, tell);
        ipv6.tell(&self.core, tell);
        told
    }

    /// The next step of a walk over everything in these slots: what peers that are up say and are told, and what was selected.
    pub(crate) fn tell_slots(
        &self,
        family: AfiSafi,
        walk: &mut SlotWalk,
        is_up: &dyn Fn(PeerId) -> bool,
        tell: Tell<'_>,
    ) {
        match family {
            AfiSafi::Ipv4Unicast => self.slot_rows::<u32>(walk, is_up).tell(&self.core, tell),
            AfiSafi::Ipv6Unicast => self.slot_rows::<V6>(walk, is_up).tell(&self.core, tell),
        }
    }

    fn slot_rows<A: Family>(&self, walk: &mut SlotWalk, is_up: &dyn Fn(PeerId) -> bool) -> Rows<A> {
        let members = |group: &Group| -> Vec<PeerId> {
            group.members.iter().copied().filter(|peer| is_up(*peer)).collect()
        };
        let groups: Vec<_> = self.groups.iter().map(|group| (group, members(group))).collect();
        let slots = A::plane(&self.core).table.slots();
        let end = walk.slots.end.min(slots).min(walk.slots.start.saturating_add(SLOTS));
        let (mut rows, mut here) = (Rows::new(), Vec::new());
        while walk.slots.start < end {
            self.rows_of_slot(walk.slots.start, &groups, is_up, &mut rows, &mut here);
            here.sort_unstable_by_key(Row::within);
            let from = walk.told;
            for row in here.drain(..).filter(|row| from.is_none_or(|told| row.within() > told)) {
                if rows.octets >= OCTETS {
                    return rows;
                }
                walk.told = Some(row.within());
                rows.push(row, &self.core);
            }
            (walk.slots.start, walk.told) = (walk.slots.start + 1, None);
        }
        if end == slots {
            // The table may have become smaller.
            walk.slots.start = walk.slots.end;
        }
        rows
    }

    /// All of one slot, in any order. `groups`: with the members that are up. Of `rows` the rewritten sets alone.
    fn rows_of_slot<A: Family>(
        &self,
        slot: Slot,
        groups: &[(&Group, Vec<PeerId>)],
        is_up: &dyn Fn(PeerId) -> bool,
        rows: &mut Rows<A>,
        here: &mut Vec<Row<A>>,
    ) {
        let table = &A::plane(&self.core).table;
        let Some((addr, len)) = table.prefix(slot) else { return };
        for (path, _) in table.paths(slot).filter(|(path, _)| path.peer != LOCAL && is_up(path.peer)) {
            let id = self.core.takes_paths(path.peer, A::FAMILY).then_some(path.path_id);
            here.extend(rows_of_path(path.peer, Some(path), (addr, len), id));
        }
        // What is rejected was never told as accepted.
        here.retain(|row| row.set.is_some());
        if let Some(best) = table.best(slot) {
            let set = Some(Set::Canonical(best.attrs));
            here.push(Row { table: Table::LocRib, peer: LOCAL, set, addr, len, path_id: None });
        }
        let mut bytes = Vec::new();
        for (group, members) in groups.iter().filter(|(_, members)| !members.is_empty()) {
            for (path_id, telling) in self.tellings::<A>(group, slot) {
                group.rewritten::<A>(&telling, &self.core, &mut bytes);
                let set = Some(rows.rewritten(&bytes));
                let row = |peer| Row { table: Table::AdjRibOut, peer, set, addr, len, path_id };
                here.extend(members.iter().filter(|peer| **peer != telling.source).map(|peer| row(*peer)));
            }
        }
    }

    /// What the members of a group were told of a slot.
    fn tellings<A: Family>(&self, group: &Group, slot: Slot) -> Vec<(Option<u32>, Telling)> {
        let out = group.out.of(A::FAMILY);
        if group.adds_paths::<A>() {
            let paths = match out.paths.of(slot).next() {
                Some(_) => group.paths_of::<A>(slot, &self.core, |_| ()),
                None => Vec::new(),
            };
            return paths.into_iter().map(|(id, telling)| (Some(id), telling)).collect();
        }
        if !out.bit(slot) {
            return Vec::new();
        }
        match group.verdict::<A>(slot, self.core.best::<A>(slot), &self.core) {
            Verdict::Tell(telling) => vec![(None, telling)],
            Verdict::Not | Verdict::TooLong(_) => Vec::new(),
        }
    }
}

impl Core {
    /// A path is put in place or goes. What is left of a session that is down is nobody's Adj-RIB-In.
    pub(super) fn note_path<A: Family>(&mut self, slot: Slot, path: &Path) {
        if self.changes.is_none() || self.peer(path.peer).is_none_or(|peer| peer.group.is_none()) {
            return;
        }
        let Some((addr, len)) = A::plane(self).table.prefix(slot) else { return };
        let change = Change::Path { peer: path.peer, prefix: addr.prefix(len), path_id: path.path_id };
        self.changes.iter_mut().for_each(|changes| changes.push(change));
    }

    fn note_held<A: Family>(&mut self, peer: PeerId) {
        if self.peer(peer).is_none_or(|peer| peer.counts.of(A::FAMILY).received == 0) {
            return;
        }
        for slot in 0..A::plane(self).table.slots() {
            let held = A::plane(self).table.paths(slot).filter(|(path, _)| path.peer == peer);
            for (path, _) in held.collect::<Vec<_>>() {
                self.note_path::<A>(slot, &path);
            }
        }
    }

    /// The best path changed.
    pub(super) fn note_best<A: Family>(&mut self, slot: Slot) {
        if self.changes.is_none() {
            return;
        }
        let Some((addr, len)) = A::plane(self).table.prefix(slot) else { return };
        let change = Change::Best { prefix: addr.prefix(len) };
        self.changes.iter_mut().for_each(|changes| changes.push(change));
    }

    /// How what changed stands now, if it is of this family.
    fn changed_rows<A: Family>(&self, change: &Change, is_up: &dyn Fn(PeerId) -> bool, rows: &mut Rows<A>) {
        let table = &A::plane(self).table;
        match change {
            Change::Path { peer, prefix, path_id } if is_up(*peer) => {
                let Some((addr, len)) = A::of(prefix) else { return };
                let slot = table.find(addr, len);
                let same = |path: &Path| path.peer == *peer && path.path_id == *path_id;
                let path = slot.and_then(|slot| table.paths(slot).find(|(path, _)| same(path)));
                let id = self.takes_paths(*peer, A::FAMILY).then_some(*path_id);
                rows.push_path(*peer, path.map(|(path, _)| path), (addr, len), id, self);
            }
            Change::Best { prefix } => {
                let Some((addr, len)) = A::of(prefix) else { return };
                let best = table.find(addr, len).and_then(|slot| table.best(slot));
                let set = best.map(|best| Set::Canonical(best.attrs));
                let row = Row { table: Table::LocRib, peer: LOCAL, set, addr, len, path_id: None };
                rows.push(row, self);
            }
            Change::Path { .. } => {}
        }
    }

    /// A canonical set as an UPDATE of this table has it.
    fn written<A: Family>(&self, table: Table, id: AttrId, out: &mut Vec<u8>) {
        let (bytes, key) = (self.attrs.bytes(id), self.attrs.key(id));
        match table {
            Table::LocRib => {
                // The next hop is the one received (RFC 9069 §5.4); a route of our own has none.
                let origin = if key.next_hop == SELF { Origin::Own } else { Origin::External };
                rewrite::rewrite(bytes, &key, A::FAMILY, &self.loc_rib_style(bytes, &key), origin, out);
            }
            Table::AdjRibIn | Table::AdjRibInPostPolicy | Table::AdjRibOut => as_received::<A>(bytes, out),
        }
    }

    /// Nothing is put in or left out but LOCAL_PREF, which every selected route has.
    fn loc_rib_style(&self, canonical: &[u8], key: &Key) -> Style {
        let received = attr::find(canonical, code::NEXT_HOP).unwrap_or_default();
        let received = next_hop::on_wire(received);
        let mut addresses =
            received.octets().chunks_exact(16).filter_map(|octets| octets.first_chunk::<16>());
        Style {
            external: false,
            local_asn: self.config.asn,
            four_octet_as: true,
            next_hop_ipv4: Some([0; 4]),
            // A link-local one is handed on to nobody else, so it stands for ours here.
            next_hop_ipv6: Some(addresses.next().copied().unwrap_or_default()),
            link_local: addresses.next().copied(),
            extended_next_hop: key.has(Key::IPV6),
            cluster_id: 0,
            role: None,
            next_hop: NextHopMode::Keep,
        }
    }
}

/// A canonical set in the form of [`rewrite::rewrite`]: any next hop but IPv4's own stands in front, for MP_REACH_NLRI, instead of
/// among the attributes.
fn as_received<A: Family>(canonical: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let next_hop = attr::find(canonical, code::NEXT_HOP).unwrap_or_default();
    if A::FAMILY == AfiSafi::Ipv4Unicast && next_hop.len() == 4 {
        out.push(0);
        out.extend_from_slice(canonical);
        return;
    }
    let next_hop = next_hop::on_wire(next_hop);
    out.push(u8::try_from(next_hop.octets().len()).unwrap_or_default());
    out.extend_from_slice(next_hop.octets());
    for attribute in attr::attributes(canonical).filter(|one| one.code != code::NEXT_HOP) {
        out.extend_from_slice(attribute.whole);
    }
}
