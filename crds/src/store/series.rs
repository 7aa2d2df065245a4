//! Events are written at most once for an object and reason in 60 s, and counted meanwhile (api.md §10).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
/// Pairs of object and reason that are counted at once.
const MOST: usize = 4096;

/// By object and reason: when it was written last, and how often it was seen since.
#[derive(Debug, Default)]
pub(super) struct Series(BTreeMap<(String, String), (Instant, u64)>);

impl Series {
    /// How often this was seen since it was written last, if it is time to write it again.
    pub(super) fn count(&mut self, object: String, reason: String, now: Instant) -> Option<u64> {
        let what = (object, reason);
        match self.0.get_mut(&what) {
            Some((written, unseen)) if now.duration_since(*written) < WINDOW => {
                *unseen += 1;
                None
            }
            Some((written, unseen)) => {
                *written = now;
                Some(std::mem::take(unseen) + 1)
            }
            None => {
                if self.0.len() >= MOST {
                    self.0.retain(|_, (written, _)| now.duration_since(*written) < WINDOW);
                }
                self.0.insert(what, (now, 0));
                Some(1)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_within_the_window_is_counted_and_told_once_after_it() {
        let mut series = Series::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut seen = |seconds| series.count("pod/a".to_owned(), "Failed".to_owned(), at(seconds));
        assert_eq!([seen(0), seen(1), seen(59), seen(60), seen(61)], [Some(1), None, None, Some(3), None]);
        assert_eq!(series.count("pod/b".to_owned(), "Failed".to_owned(), at(1)), Some(1));
    }
}
