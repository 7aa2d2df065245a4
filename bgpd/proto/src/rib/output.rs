//! What goes to the peers: from the group's log, from the walk of a new member, and what a slow one missed.

use super::Rib;
use super::core::{Core, EndOfRib, Family, PerFamily, Refresh};
use super::group::{Bits, Group};
use super::log::To;
use super::paths::Late;
use super::table::Slot;
use super::values::RibEvent;
use crate::types::{AfiSafi, PeerId};
use crate::wire::nlri::V6;
use crate::wire::refresh::{BEGIN, END};

/// Slots that a walk looks at in one go.
const STEP: u32 = 4096;

/// Where the next bytes for a peer are.
enum Source {
    Tail,
    Log(usize, (usize, std::ops::Range<usize>)),
}

impl Rib {
    /// See [`Rib::poll_transmit`].
    pub(super) fn transmit(&mut self, id: PeerId) -> Option<&[u8]> {
        match self.locate_output(id)? {
            Source::Tail => self.core.peer(id).map(|peer| peer.tail.as_slice()),
            Source::Log(group, stretch) => self.groups.get(group)?.log.bytes(stretch),
        }
    }

    fn locate_output(&mut self, id: PeerId) -> Option<Source> {
        loop {
            let peer = self.core.peer_mut(id)?;
            let group = peer.group?;
            if !peer.tail.is_empty() {
                return Some(Source::Tail);
            }
            if let Some(stretch) = self.groups.get(group)?.log.next(id, &mut peer.cursor) {
                return Some(Source::Log(group, stretch));
            }
            if !self.fill(id, group) {
                return None;
            }
            self.filled = true;
        }
    }

    /// For a peer that has read the whole log: the next slice of its initial table, and how what it missed stands now. `false`:
    /// there is nothing more for it.
    fn fill(&mut self, id: PeerId, at: usize) -> bool {
        if self.deferred || self.is_dirty() {
            return false;
        }
        if self.fill_late(id, at) {
            return true;
        }
        self.fill_family::<u32>(id, at) || self.fill_family::<V6>(id, at)
    }

    fn fill_late(&mut self, id: PeerId, at: usize) -> bool {
        let Some(peer) = self.core.peer_mut(id).filter(|peer| !peer.late.is_empty()) else { return false };
        let late = std::mem::take(&mut peer.late);
        let Some(group) = self.groups.get_mut(at) else { return false };
        let (mut gone4, mut gone6) = (Vec::new(), Vec::new());
        for prefix in &late.prefixes {
            sort_late::<u32>(prefix, id, group, &self.core, &mut gone4);
            sort_late::<V6>(prefix, id, group, &self.core, &mut gone6);
        }
        group.log.withdraw(To::Only(id), gone4.into_iter());
        group.log.withdraw(To::Only(id), gone6.into_iter());
        let gone4 = group.tell_late_paths::<u32>(&late.paths, id, &self.core);
        let gone6 = group.tell_late_paths::<V6>(&late.paths, id, &self.core);
        group.log.withdraw(To::Only(id), gone4.into_iter());
        group.log.withdraw(To::Only(id), gone6.into_iter());
        let mut events = Vec::new();
        group.flush_all(&self.core, Some(id), &mut events);
        self.events.extend(events);
        true
    }

    fn fill_family<A: Family>(&mut self, id: PeerId, at: usize) -> bool {
        let end = A::plane(&self.core).table.slots();
        let (Some(peer), Some(group)) = (self.core.peer_mut(id), self.groups.get_mut(at)) else {
            return false;
        };
        let walk = peer.walk.of_mut(A::FAMILY);
        let step = walk.start..walk.end.min(end).min(walk.start.saturating_add(STEP));
        if !step.is_empty() {
            walk.start = step.end;
            let alike = peer.alike.of(A::FAMILY);
            let due: Vec<Slot> = step.filter(|slot| !alike.get(*slot)).collect();
            for slot in due {
                group.tell::<A>(slot, id, &self.core);
            }
            let event = group.flush::<A>(&self.core, Some(id));
            self.events.extend(event);
            return true;
        }
        *walk = 0..0;
        *peer.alike.of_mut(A::FAMILY) = Bits::default();
        let end_of_rib = peer.end_of_rib.of_mut(A::FAMILY);
        match *end_of_rib {
            EndOfRib::Due => {
                group.log.end_of_rib(To::Only(id), A::FAMILY);
                *end_of_rib = EndOfRib::Logged(group.log.head());
                return true;
            }
            EndOfRib::None | EndOfRib::Logged(_) | EndOfRib::Sent => {}
        }
        // RFC 7313 §4.1: the borders of a refresh enclose the whole table, and come after End-of-RIB.
        let refresh = peer.refresh.of_mut(A::FAMILY);
        let (border, then) = match *refresh {
            Refresh::None => return false,
            Refresh::Due => (BEGIN, Refresh::Walking),
            Refresh::Walking => (END, Refresh::None),
        };
        if border == BEGIN {
            *peer.walk.of_mut(A::FAMILY) = 0..end;
        }
        *refresh = then;
        group.log.refresh_border(To::Only(id), A::FAMILY, border);
        true
    }

    /// See [`Rib::transmitted`].
    pub(super) fn advance(&mut self, id: PeerId, bytes: usize) {
        let Some(peer) = self.core.peer_mut(id) else { return };
        let Some(at) = peer.group else { return };
        if peer.tail.is_empty() {
            peer.cursor += bytes as u64;
        } else {
            peer.tail.drain(..bytes.min(peer.tail.len()));
        }
        for family in AfiSafi::ALL {
            let end_of_rib = peer.end_of_rib.of_mut(family);
            if peer.tail.is_empty() && matches!(*end_of_rib, EndOfRib::Logged(end) if end <= peer.cursor) {
                *end_of_rib = EndOfRib::Sent;
            }
        }
        self.trim(at);
    }

    /// Forgets what every member has. A member further behind than the limit leaves the log: the prefixes it has not heard of are
    /// read back from the encoded bytes, so keeping up costs no bookkeeping.
    pub(super) fn trim(&mut self, at: usize) {
        let Some(group) = self.groups.get_mut(at) else { return };
        let head = group.log.head();
        let limit = self.core.backlog;
        let mut low = head;
        for member in &group.members {
            let Some(peer) = self.core.peer_mut(*member) else { continue };
            if head - peer.cursor <= limit {
                low = low.min(peer.cursor);
                continue;
            }
            let late = &mut peer.late;
            let ids = group.path_ids();
            let rest =
                group.log.unread(*member, peer.cursor, ids, |prefix, path| late.insert(prefix, path, ids));
            peer.leave_log(rest);
            peer.cursor = head;
            let prefixes = u32::try_from(peer.late.len()).unwrap_or(u32::MAX);
            self.events.push_back(RibEvent::PeerFellBehind { peer: *member, prefixes });
        }
        group.log.trim(low);
    }

    /// The peer moves to the group of its present facts, and is told what that changes.
    pub(super) fn regroup(&mut self, id: PeerId) {
        let Some(peer) = self.core.peer(id) else { return };
        let Some(old) = peer.group else { return };
        let (cursor, walk) = (peer.cursor, peer.walk.clone());
        let next = self.group_for(id);
        if next == Some(old) {
            return;
        }
        let mut late = Late::default();
        let (mut rest, mut alike) = (Vec::new(), PerFamily::<Bits>::default());
        if let Some(Ok([from, to])) = next.map(|next| self.groups.get_disjoint_mut([old, next])) {
            // The families with several paths per prefix are those of the session, in both groups.
            let ids = from.path_ids();
            rest = from.log.unread(id, cursor, ids, |prefix, path| late.insert(prefix, path, ids));
            move_over::<u32>(to, from, &self.core, &mut alike.ipv4, &mut late);
            move_over::<V6>(to, from, &self.core, &mut alike.ipv6, &mut late);
        }
        let Some(peer) = self.core.peer_mut(id) else { return };
        // What its last walk had still to tell is due in any case.
        for family in AfiSafi::ALL {
            let passed = std::mem::take(peer.alike.of_mut(family));
            for slot in walk.of(family).clone().filter(|slot| !passed.get(*slot)) {
                alike.of_mut(family).set(slot, false);
            }
        }
        late.append(&mut peer.late);
        peer.leave_log(rest);
        let sent = peer.end_of_rib;
        self.leave(id);
        self.enter(id, next);
        if let Some(peer) = self.core.peer_mut(id) {
            (peer.late, peer.alike) = (late, alike);
            for family in AfiSafi::ALL {
                if matches!(*sent.of(family), EndOfRib::Sent | EndOfRib::Logged(_)) {
                    *peer.end_of_rib.of_mut(family) = *sent.of(family);
                }
            }
        }
    }
}

/// What a member of `from` was told there, as the group that it moves to sees it.
fn move_over<A: Family>(to: &mut Group, from: &Group, core: &Core, alike: &mut Bits, late: &mut Late) {
    if to.adds_paths::<A>() {
        late.paths.extend(to.take_over_paths::<A>(from, core, alike));
    } else {
        late.prefixes.extend(to.take_over::<A>(from, core, alike));
    }
}

/// A prefix that a peer may have a wrong idea of: told, or put on the list of what is withdrawn.
fn sort_late<A: Family>(
    prefix: &ipnet::IpNet,
    id: PeerId,
    group: &mut Group,
    core: &Core,
    gone: &mut Vec<(A, u8)>,
) {
    let Some((addr, len)) = A::of(prefix) else { return };
    let slot = A::plane(core).table.find(addr, len);
    if !slot.is_some_and(|slot| group.tell::<A>(slot, id, core)) {
        gone.push((addr, len));
    }
}
