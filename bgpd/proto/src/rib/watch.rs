//! The table as monitoring stations are told of it: what changed, and slot by slot. Nothing is noted while nobody watches.

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
    /// The peer has told a family's routes.
    EndOfRib {
        /// Which peer.
        peer: PeerId,
        /// Which family.
        family: AfiSafi,
    },
}

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

/// Routes that are told in one step.
#[derive(Debug)]
struct Rows<A> {
    rows: Vec<Row<A>>,
    /// Sets as [`rewrite::rewrite`] writes them.
    rewritten: Vec<Vec<u8>>,
}

impl<A: Family> Rows<A> {
    fn new() -> Rows<A> {
        Rows { rows: Vec::new(), rewritten: Vec::new() }
    }

    fn push(
        &mut self,
        table: Table,
        peer: PeerId,
        set: Option<Set>,
        (addr, len): (A, u8),
        path_id: Option<u32>,
    ) {
        self.rows.push(Row { table, peer, set, addr, len, path_id });
    }

    /// A path of a peer's, before and after import; none: withdrawn from both.
    fn push_path(&mut self, peer: PeerId, path: Option<Path>, prefix: (A, u8), path_id: Option<u32>) {
        let raw = path.map(|path| Set::Canonical(path.raw));
        let accepted = path.filter(|path| path.rejected == 0).map(|path| Set::Canonical(path.attrs));
        self.push(Table::AdjRibIn, peer, raw, prefix, path_id);
        self.push(Table::AdjRibInPostPolicy, peer, accepted, prefix, path_id);
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

    /// How these stand now, as UPDATEs. Of peers that are down nothing is told.
    pub(crate) fn tell_changes(&self, changes: &[Change], is_up: &dyn Fn(PeerId) -> bool, tell: Tell<'_>) {
        self.core.changed_rows::<u32>(changes, is_up).tell(&self.core, tell);
        self.core.changed_rows::<V6>(changes, is_up).tell(&self.core, tell);
    }

    /// Everything in these slots: what peers that are up say and are told, and what was selected.
    pub(crate) fn tell_slots(
        &self,
        family: AfiSafi,
        slots: Range<Slot>,
        is_up: &dyn Fn(PeerId) -> bool,
        tell: Tell<'_>,
    ) {
        match family {
            AfiSafi::Ipv4Unicast => self.slot_rows::<u32>(slots, is_up).tell(&self.core, tell),
            AfiSafi::Ipv6Unicast => self.slot_rows::<V6>(slots, is_up).tell(&self.core, tell),
        }
    }

    fn slot_rows<A: Family>(&self, slots: Range<Slot>, is_up: &dyn Fn(PeerId) -> bool) -> Rows<A> {
        let mut rows = Rows::new();
        let table = &A::plane(&self.core).table;
        for slot in slots.start..slots.end.min(table.slots()) {
            let Some(prefix) = table.prefix(slot) else { continue };
            for (path, _) in table.paths(slot).filter(|(path, _)| path.peer != LOCAL && is_up(path.peer)) {
                let id = self.core.takes_paths(path.peer, A::FAMILY).then_some(path.path_id);
                rows.push_path(path.peer, Some(path), prefix, id);
            }
            if let Some(best) = table.best(slot) {
                rows.push(Table::LocRib, LOCAL, Some(Set::Canonical(best.attrs)), prefix, None);
            }
        }
        // What is rejected was never told as accepted.
        rows.rows.retain(|row| row.set.is_some());
        for group in &self.groups {
            let members: Vec<PeerId> = group.members.iter().copied().filter(|peer| is_up(*peer)).collect();
            if !members.is_empty() {
                self.told_rows(group, &members, slots.clone(), &mut rows);
            }
        }
        rows
    }

    /// What these members of a group were told of these slots.
    fn told_rows<A: Family>(
        &self,
        group: &Group,
        members: &[PeerId],
        slots: Range<Slot>,
        rows: &mut Rows<A>,
    ) {
        let out = group.out.of(A::FAMILY);
        for slot in slots {
            let Some(prefix) = A::plane(&self.core).table.prefix(slot) else { continue };
            let tellings: Vec<(Option<u32>, Telling)> = if group.adds_paths::<A>() {
                let paths = match out.paths.of(slot).next() {
                    Some(_) => group.paths_of::<A>(slot, &self.core, |_| ()),
                    None => Vec::new(),
                };
                paths.into_iter().map(|(id, telling)| (Some(id), telling)).collect()
            } else if out.bit(slot)
                && let Verdict::Tell(telling) =
                    group.verdict::<A>(slot, self.core.best::<A>(slot), &self.core)
            {
                vec![(None, telling)]
            } else {
                Vec::new()
            };
            for (id, telling) in tellings {
                let mut bytes = Vec::new();
                group.rewritten::<A>(&telling, &self.core, &mut bytes);
                if rows.rewritten.last() != Some(&bytes) {
                    rows.rewritten.push(bytes);
                }
                let set = Some(Set::Rewritten(rows.rewritten.len() - 1));
                for member in members.iter().filter(|member| **member != telling.source) {
                    rows.push(Table::AdjRibOut, *member, set, prefix, id);
                }
            }
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

    fn changed_rows<A: Family>(&self, changes: &[Change], is_up: &dyn Fn(PeerId) -> bool) -> Rows<A> {
        let mut rows = Rows::new();
        let table = &A::plane(self).table;
        for change in changes {
            match change {
                Change::Path { peer, prefix, path_id } if is_up(*peer) => {
                    let Some((addr, len)) = A::of(prefix) else { continue };
                    let slot = table.find(addr, len);
                    let same = |path: &Path| path.peer == *peer && path.path_id == *path_id;
                    let path = slot.and_then(|slot| table.paths(slot).find(|(path, _)| same(path)));
                    let id = self.takes_paths(*peer, A::FAMILY).then_some(*path_id);
                    rows.push_path(*peer, path.map(|(path, _)| path), (addr, len), id);
                }
                Change::Best { prefix } => {
                    let Some((addr, len)) = A::of(prefix) else { continue };
                    let best = table.find(addr, len).and_then(|slot| table.best(slot));
                    let set = best.map(|best| Set::Canonical(best.attrs));
                    rows.push(Table::LocRib, LOCAL, set, (addr, len), None);
                }
                Change::Path { .. } | Change::EndOfRib { .. } => {}
            }
        }
        rows
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
