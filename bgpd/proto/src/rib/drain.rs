//! Decisions: each dirty prefix once, then the groups and the FIB are told.

use super::attrs::NIL;
use super::core::{Best, Core, Dirty, Family};
use super::group::Group;
use super::table::{Entry, LOCAL, Path, Slot};
use super::values::RibEvent;
use crate::decision::{self, Candidate};
use crate::route::{FibChange, FibRoute};
use crate::wire::nlri::V6;

/// Paths looked at in one go, so that timers are looked at in between: a prefix may have thousands.
const AT_ONCE: usize = 65_536;

impl Core {
    /// See [`super::Rib::drain`].
    pub(super) fn drain(&mut self, groups: &mut [Group], events: &mut Vec<RibEvent>) -> bool {
        if let Some(changed) = self.next_hops.take_changed() {
            self.touch_users::<u32>(&changed);
            self.touch_users::<V6>(&changed);
        }
        self.drain_family::<u32>(groups, events);
        self.drain_family::<V6>(groups, events);
        if self.is_dirty() {
            return true;
        }
        if self.attrs.reap(&mut self.next_hops) {
            self.changed.clear();
        }
        false
    }

    fn drain_family<A: Family>(&mut self, groups: &mut [Group], events: &mut Vec<RibEvent>) {
        let plane = A::plane_mut(self);
        let mut dirty = std::mem::take(&mut plane.dirty);
        let from = plane.done.min(dirty.len());
        let (mut to, mut looked_at) = (from, 0);
        let mut candidates = Vec::new();
        let all_paths = groups.iter().any(Group::adds_paths::<A>);
        for item in dirty.iter().skip(from) {
            if looked_at >= AT_ONCE {
                break;
            }
            looked_at += self.settle::<A>(item, groups, all_paths, &mut candidates);
            to += 1;
        }
        let step = dirty.get(from..to).unwrap_or_default();
        self.decided += step.len() as u64;
        for group in groups.iter_mut().filter(|group| !group.members.is_empty()) {
            events.extend(group.flush::<A>(self, None));
        }
        let table = &mut A::plane_mut(self).table;
        for item in step {
            if table.entry(item.slot).is_some_and(|entry| !entry.has(Entry::<A>::USED | Entry::<A>::FIB)) {
                table.remove(item.slot);
            }
        }
        let plane = A::plane_mut(self);
        plane.done = to;
        if to == dirty.len() {
            plane.done = 0;
            dirty.clear();
            dirty.shrink_to(4096); // a burst must not pin its queue
        }
        plane.dirty = dirty;
    }

    /// `all_paths`: some group is told more than the best path. Returns how many paths were looked at, at least one.
    fn settle<A: Family>(
        &mut self,
        item: &Dirty,
        groups: &mut [Group],
        all_paths: bool,
        candidates: &mut Vec<Candidate>,
    ) -> usize {
        let slot = item.slot;
        let forced = A::plane(self).table.entry(slot).is_some_and(|entry| entry.has(Entry::<A>::FORCED));
        let (best, mut looked_at) = self.decide::<A>(slot, candidates);
        if all_paths {
            looked_at *= 1 + groups.iter().filter(|group| group.adds_paths::<A>()).count();
        }
        if best != item.best || forced {
            self.note_best::<A>(slot);
            groups.iter_mut().for_each(|group| group.consider::<A>(slot, item.best, best, self));
        } else if all_paths {
            let concerned = groups.iter_mut().filter(|group| group.adds_paths::<A>());
            concerned.for_each(|group| group.consider_paths::<A>(slot, self));
        }
        if self.fib_mark::<A>(slot) != item.fib {
            let plane = A::plane_mut(self);
            if let Some(entry) = plane.table.entry_mut(slot)
                && !entry.has(Entry::<A>::FIB)
            {
                entry.flags |= Entry::<A>::FIB;
                plane.fib.push_back(slot);
            }
        }
        looked_at
    }

    /// Selects the best path of a prefix, makes it the inline one and flags those used beside it. Of how many there are to choose
    /// from comes with it.
    fn decide<A: Family>(&mut self, slot: Slot, candidates: &mut Vec<Candidate>) -> (Best, usize) {
        let single = A::plane(self).table.entry(slot).filter(|entry| entry.more == NIL);
        let (selected, looked_at) = if let Some(entry) = single {
            (entry.has(Entry::<A>::USED) && self.is_usable(&entry.first), 1)
        } else {
            self.decide_among::<A>(slot, candidates)
        };
        let settled = Entry::<A>::DIRTY | Entry::<A>::BEST | Entry::<A>::FORCED;
        if let Some(entry) = A::plane_mut(self).table.entry_mut(slot) {
            entry.flags = entry.flags & !settled | if selected { Entry::<A>::BEST } else { 0 };
        }
        (self.best::<A>(slot), looked_at)
    }

    fn decide_among<A: Family>(&mut self, slot: Slot, candidates: &mut Vec<Candidate>) -> (bool, usize) {
        candidates.clear();
        let table = &A::plane(self).table;
        let mut looked_at = 0;
        let counted = table.paths(slot).inspect(|_| looked_at += 1);
        candidates.extend(counted.filter_map(|(path, at)| self.candidate(&path, at)));
        let selection = decision::select(candidates, self.config.max_paths);
        // What is left are the paths in use; from here on it matters which, not in what order.
        candidates.sort_unstable_by_key(|member| member.place);
        let table = &mut A::plane_mut(self).table;
        table.each_path_mut(slot, |path, at| {
            let member = candidates.binary_search_by_key(&at, |member| member.place).is_ok();
            path.flags = path.flags & !Path::MULTIPATH | if member { Path::MULTIPATH } else { 0 };
        });
        if let Some(selection) = selection.filter(|selection| selection.best.place != NIL) {
            table.promote(slot, selection.best.place);
        }
        (selection.is_some(), looked_at)
    }

    fn touch_users<A: Family>(&mut self, changed: &[bool]) {
        for slot in 0..A::plane(self).table.slots() {
            let uses = |path: &Path| changed.get(self.attrs.key(path.attrs).next_hop as usize) == Some(&true);
            if A::plane(self).table.paths(slot).any(|(path, _)| uses(&path)) {
                self.touch::<A>(slot);
            }
        }
    }

    /// Every prefix with more than one path is decided again.
    pub(super) fn touch_contested<A: Family>(&mut self) {
        for slot in 0..A::plane(self).table.slots() {
            if A::plane(self).table.entry(slot).is_some_and(|entry| entry.more != NIL) {
                self.touch::<A>(slot);
            }
        }
    }

    /// The next changed kernel route of a family, as it is now. Only while nothing is dirty.
    pub(super) fn poll_fib<A: Family>(&mut self) -> Option<FibChange> {
        let plane = A::plane_mut(self);
        let Some(slot) = plane.fib.pop_front() else {
            plane.fib.shrink_to(4096);
            return None;
        };
        let entry = plane.table.entry_mut(slot)?;
        entry.flags &= !Entry::<A>::FIB;
        let (prefix, is_used) = (entry.addr.prefix(entry.len), entry.has(Entry::<A>::USED));
        if !is_used {
            plane.table.remove(slot);
            return Some(FibChange { prefix, route: None });
        }
        Some(FibChange { prefix, route: self.fib_route::<A>(slot) })
    }

    /// The kernel route of a prefix: an originated one has none.
    pub(super) fn fib_route<A: Family>(&self, slot: Slot) -> Option<FibRoute> {
        A::plane(self).table.best(slot).filter(|best| best.peer != LOCAL)?;
        let single = A::plane(self).table.entry(slot).filter(|entry| entry.more == NIL);
        let next_hops = match single {
            Some(entry) => vec![self.next_hops.address(self.attrs.key(entry.first.attrs).next_hop)],
            None => {
                let in_use = self.next_hops_in_use::<A>(slot).into_iter();
                let mut next_hops: Vec<_> = in_use.map(|id| self.next_hops.address(id)).collect();
                next_hops.sort_unstable();
                next_hops
            }
        };
        Some(FibRoute { next_hops, encap: None })
    }
}
