//! One copy of each value that many hold: a million routes have a handful of ways between them.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Fewer than these are not looked through.
const FEW: usize = 64;

/// The copies. What nobody holds any more goes when there are twice as many as were in use the last time.
#[derive(Debug)]
pub struct Shared<T> {
    values: BTreeSet<Arc<T>>,
    look_at: usize,
}

impl<T: Ord> Default for Shared<T> {
    fn default() -> Self {
        Self { values: BTreeSet::new(), look_at: FEW }
    }
}

impl<T: Ord> Shared<T> {
    /// The one copy of this value.
    pub fn share(&mut self, value: T) -> Arc<T> {
        if let Some(held) = self.values.get(&value) {
            return Arc::clone(held);
        }
        if self.values.len() >= self.look_at {
            self.values.retain(|held| Arc::strong_count(held) > 1);
            self.look_at = FEW.max(self.values.len().saturating_mul(2));
        }
        let held = Arc::new(value);
        self.values.insert(Arc::clone(&held));
        held
    }

    /// Each value, and how many hold it.
    pub fn holders(&self) -> impl Iterator<Item = (&T, usize)> {
        self.values.iter().map(|held| (&**held, Arc::strong_count(held) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_those_that_nobody_holds_go() {
        let mut shared = Shared::default();
        let (one, again) = (shared.share(1), shared.share(1));
        assert!(Arc::ptr_eq(&one, &again));
        for value in 2..10_000 {
            shared.share(value);
        }
        assert!(shared.values.len() <= FEW, "{} values", shared.values.len());
        assert!(Arc::ptr_eq(&one, &shared.share(1)));
        assert!(shared.holders().any(|found| found == (&1, 2)));
    }
}
