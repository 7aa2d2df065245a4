//! The one clock of the shell.

use std::time::Instant;

use jiff::Timestamp;

use crate::Now;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the shell has the clock; the core gets `now`")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Now {
        Now { monotonic: self.0.elapsed(), wall: Timestamp::now() }
    }

    /// The moment of a monotonic time.
    pub(crate) fn at(&self, monotonic: std::time::Duration) -> tokio::time::Instant {
        self.0.checked_add(monotonic).unwrap_or(self.0).into()
    }
}
