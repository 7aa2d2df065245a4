//! Desired against actual, with the keys in between.
//!
//! ```text
//!            desired                actual
//!        ┌──────────────┬ equal ┬──────────────┐
//!        │  to create   │       │  to delete   │      dirty = everything outside "equal",
//!        │      to change       │              │      and what is in doubt
//!        └──────────────┴───────┴──────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// One kernel table: what we want, what the kernel last confirmed, and what is left to do.
///
/// A key stays pending until [`Delta::confirm`]; a failed write therefore retries by itself. Reading what is pending
/// costs what changed, not what exists.
#[derive(Debug, Clone)]
pub struct Delta<K, V> {
    /// Whatever is wanted or held.
    entries: BTreeMap<K, Entry<V>>,
    /// Exactly the keys where desired and actual differ, and those in doubt.
    dirty: BTreeSet<K>,
    /// Keys whose last write ended without an answer: `actual` may be wrong about them.
    doubtful: BTreeSet<K>,
    counts: Counts,
}

/// One place of the table.
#[derive(Debug, Clone)]
struct Entry<V> {
    desired: Option<V>,
    actual: Option<V>,
}

/// How many keys of each kind there are: kept, so that a report costs nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub desired: usize,
    /// Desired, and not confirmed as desired.
    pub unwritten: usize,
}

impl<K, V> Default for Delta<K, V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            dirty: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            counts: Counts::default(),
        }
    }
}

impl<V: PartialEq> Entry<V> {
    fn is_settled(&self) -> bool {
        self.desired == self.actual
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Delta<K, V> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Wants `key` to hold this value, or (`None`) not to exist.
    pub fn set(&mut self, key: K, want: Option<V>) {
        self.change(key, |entry| entry.desired = want);
    }

    /// Replaces what we believe the kernel holds. Called on start and on every resync; ends all doubt.
    pub fn resync(&mut self, dump: impl IntoIterator<Item = (K, V)>) {
        for entry in self.entries.values_mut() {
            entry.actual = None;
        }
        for (key, value) in dump {
            self.entries.entry(key).or_insert(Entry { desired: None, actual: None }).actual = Some(value);
        }
        self.entries.retain(|_, entry| entry.desired.is_some() || entry.actual.is_some());
        self.doubtful.clear();
        let unsettled = self.entries.iter().filter(|(_, entry)| !entry.is_settled());
        self.dirty = unsettled.map(|(key, _)| key.clone()).collect();
        self.counts.unwritten = self.updates().count();
    }

    /// Notes what the kernel now holds for `key`, as it said itself.
    pub fn confirm(&mut self, key: K, holds: Option<V>) {
        self.doubtful.remove(&key);
        self.change(key, |entry| entry.actual = holds);
    }

    /// As [`Self::confirm`], of a write of what is desired.
    pub fn confirm_desired(&mut self, key: K) {
        self.doubtful.remove(&key);
        self.change(key, |entry| entry.actual.clone_from(&entry.desired));
    }

    /// Notes that a write of `key` ended without an answer: it stays pending, whatever is wanted, until confirmed.
    pub fn doubt(&mut self, key: K) {
        self.doubtful.insert(key.clone());
        self.change(key, |_| {});
    }

    /// What must be created or changed, with the value wanted.
    pub fn updates(&self) -> impl Iterator<Item = (&K, &V)> {
        self.dirty.iter().filter_map(|key| Some((key, self.desired(key)?)))
    }

    /// What must go.
    pub fn deletions(&self) -> impl Iterator<Item = &K> {
        self.dirty.iter().filter(|key| self.desired(key).is_none())
    }

    /// What is wanted for `key`.
    pub fn desired(&self, key: &K) -> Option<&V> {
        self.entries.get(key)?.desired.as_ref()
    }

    /// What the kernel last confirmed for `key`.
    pub fn actual(&self, key: &K) -> Option<&V> {
        self.entries.get(key)?.actual.as_ref()
    }

    /// Everything wanted, by key.
    pub fn all_desired(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.desired.as_ref()?)))
    }

    /// Everything the kernel confirmed, by key.
    pub fn all_actual(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.actual.as_ref()?)))
    }

    /// Whether anything is left to do for `key`.
    pub fn is_pending(&self, key: &K) -> bool {
        self.dirty.contains(key)
    }

    /// How many keys are left to do.
    pub fn pending(&self) -> usize {
        self.dirty.len()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn change(&mut self, key: K, change: impl FnOnce(&mut Entry<V>)) {
        let entry = self.entries.entry(key.clone()).or_insert(Entry { desired: None, actual: None });
        let was_desired = entry.desired.is_some();
        change(entry);
        let (is_desired, is_held) = (entry.desired.is_some(), entry.actual.is_some());
        // Where nobody doubts anything, which is nearly always, that costs no search.
        let is_dirty = !entry.is_settled() || (!self.doubtful.is_empty() && self.doubtful.contains(&key));
        if !is_desired && !is_held {
            self.entries.remove(&key);
        }
        let was_dirty = match is_dirty {
            true => !self.dirty.insert(key),
            false => self.dirty.remove(&key),
        };
        let Counts { desired, unwritten } = &mut self.counts;
        *desired = *desired + usize::from(is_desired) - usize::from(was_desired);
        *unwritten = *unwritten + usize::from(is_desired && is_dirty) - usize::from(was_desired && was_dirty);
    }
}
