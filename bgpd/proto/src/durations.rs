//! How long things took, as plain counts: the histogram of a value that has no clock.

use std::time::Duration;

/// Buckets: up to 0.5 ms, then twice as long each, up to 32.768 s.
const BUCKETS: usize = 17;
/// The bound of the first one.
const FIRST: Duration = Duration::from_micros(500);

/// Durations that were observed, counted by how long they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durations {
    buckets: [u64; BUCKETS],
    count: u64,
    sum: Duration,
}

impl Durations {
    /// Counts one.
    pub fn observe(&mut self, duration: Duration) {
        let bucket = Durations::bounds().zip(&mut self.buckets).find(|(bound, _)| duration <= *bound);
        if let Some((_, count)) = bucket {
            *count = count.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(duration);
    }

    /// Upper bounds of the buckets, ascending. What is longer than the last one is in none of them.
    pub fn bounds() -> impl Iterator<Item = Duration> {
        std::iter::successors(Some(FIRST), |bound| bound.checked_mul(2)).take(BUCKETS)
    }

    /// Each bucket's upper bound, and how many are in it and in no earlier one.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        Durations::bounds().zip(self.buckets)
    }

    /// How many were observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn buckets_double_from_half_a_millisecond_to_half_a_minute() {
        let bounds: Vec<Duration> = Durations::bounds().collect();
        assert_eq!(bounds.first(), Some(&Duration::from_micros(500)));
        assert_eq!(bounds.last(), Some(&Duration::from_micros(32_768_000)));
        let mut durations = Durations::default();
        for micros in [0, 500, 501, 1_000, 40_000_000] {
            durations.observe(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = durations.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts.get(..3), Some(&[2, 2, 0][..]));
        // What is longer than every bucket is counted all the same.
        assert_eq!((durations.count(), counts.iter().sum::<u64>()), (5, 4));
        assert_eq!(durations.sum(), Duration::from_micros(40_002_001));
    }
}
