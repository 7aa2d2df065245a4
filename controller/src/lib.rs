//! What is about the cluster and not about one node: addresses of Services, statuses, garbage collection.
//!
//! ```text
//!   store ─► Objects ─► judge, load_balancer, garbage ─► wishes, notices, cuts ─► writer ─► store
//!                          values and `now` in, values out       election: one of us writes
//! ```
//! [`core`] is a value; [`run()`] is the shell that gives it a store, a clock and leadership. The binary
//! `manx-controller` runs it with a Lease, felix on a directory datastore with a file lock (api.md §13).

use std::time::Duration;

use jiff::Timestamp;

mod clock;
pub mod core;
pub mod election;
mod events;
pub mod garbage;
pub mod judge;
pub mod leadership;
pub mod load_balancer;
pub mod objects;
pub mod reflectors;
mod run;
pub mod wish;
mod writer;

pub use leadership::Leadership;
pub use run::{Lost, Report, Settings, run};

/// The field manager of everything that is written here (api.md §9).
pub const MANAGER: &str = "manx-controller";

/// The time, twice: delays are monotonic, what outlives the process is wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the process started.
    pub monotonic: Duration,
    pub wall: Timestamp,
}
