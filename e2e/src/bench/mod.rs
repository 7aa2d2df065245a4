//! `make bench-bgp`: what bgpd costs beside BIRD, FRR, OpenBGPD and GoBGP, measured in the same run.
//!
//! ```text
//!   namespace bench-gen: this process                      namespace bench-NAME
//!     source 172.16.0.1 ──── src0, 172.16.0.0/12 ────────► the daemon
//!     sinks  192.168.1.1… ── snk0, 192.168.0.0/16 ───────►
//! ```
//! Source and sinks are one process with UPDATEs encoded before the clock starts, so they cost little and are not the
//! bound. CPU is user and system time of all the daemon's processes, from the moment every session is up until every sink
//! holds every prefix; memory is the sum of their high-water marks. Runs of the daemons are interleaved.

pub mod cells;
pub mod daemon;
pub mod extras;
pub mod feed;
pub mod proc;
pub mod report;
pub mod session;
pub mod soak;
