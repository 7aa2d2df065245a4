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
    desired: BTreeMap<K, V>,
    actual: BTreeMap<K, V>,
    /// Exactly the keys where desired and actual differ, and those in doubt.
    dirty: BTreeSet<K>,
    /// Keys whose last write ended without an answer: `actual` may be wrong about them.
    doubtful: BTreeSet<K>,
}

impl<K, V> Default for Delta<K, V> {
    fn default() -> Self {
        Self {
            desired: BTreeMap::new(),
            actual: BTreeMap::new(),
            dirty: BTreeSet::new(),
            doubtful: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Delta<K, V> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Wants `key` to hold this value, or (`None`) not to exist.
    pub fn set(&mut self, key: K, want: Option<V>) {
        match want {
            Some(value) => self.desired.insert(key.clone(), value),
            None => self.desired.remove(&key),
        };
        self.mark(key);
    }

    /// Replaces what we believe the kernel holds. Called on start and on every resync; ends all doubt.
    pub fn resync(&mut self, dump: impl IntoIterator<Item = (K, V)>) {
        self.actual = dump.into_iter().collect();
        self.doubtful.clear();
        let Self { desired, actual, dirty, .. } = self;
        dirty.clear();
        dirty.extend(
            desired.iter().filter(|(key, value)| actual.get(key) != Some(value)).map(|(key, _)| key.clone()),
        );
        dirty.extend(actual.keys().filter(|key| !desired.contains_key(key)).cloned());
    }

    /// Notes what the kernel now holds for `key`, as it said itself.
    pub fn confirm(&mut self, key: K, holds: Option<V>) {
        match holds {
            Some(value) => self.actual.insert(key.clone(), value),
            None => self.actual.remove(&key),
        };
        self.doubtful.remove(&key);
        self.mark(key);
    }

    /// Notes that a write of `key` ended without an answer: it stays pending, whatever is wanted, until confirmed.
    pub fn doubt(&mut self, key: K) {
        self.dirty.insert(key.clone());
        self.doubtful.insert(key);
    }

    /// What must be created or changed, with the value wanted.
    pub fn updates(&self) -> impl Iterator<Item = (&K, &V)> {
        self.dirty.iter().filter_map(|key| self.desired.get_key_value(key))
    }

    /// What must go.
    pub fn deletions(&self) -> impl Iterator<Item = &K> {
        self.dirty.iter().filter(|key| !self.desired.contains_key(key))
    }

    /// What is wanted for `key`.
    pub fn desired(&self, key: &K) -> Option<&V> {
        self.desired.get(key)
    }

    /// What the kernel last confirmed for `key`.
    pub fn actual(&self, key: &K) -> Option<&V> {
        self.actual.get(key)
    }

    /// Everything wanted, by key.
    pub fn all_desired(&self) -> impl Iterator<Item = (&K, &V)> {
        self.desired.iter()
    }

    /// Everything the kernel confirmed, by key.
    pub fn all_actual(&self) -> impl Iterator<Item = (&K, &V)> {
        self.actual.iter()
    }

    /// Whether anything is left to do for `key`.
    pub fn is_pending(&self, key: &K) -> bool {
        self.dirty.contains(key)
    }

    /// How many keys are left to do.
    pub fn pending(&self) -> usize {
        self.dirty.len()
    }

    fn mark(&mut self, key: K) {
        if self.desired.get(&key) == self.actual.get(&key) && !self.doubtful.contains(&key) {
            self.dirty.remove(&key);
        } else {
            self.dirty.insert(key);
        }
    }
}
