//! The ways to peer (api.md §5.1): bgpd in namespaces against FRR and BIRD, with what goes with them: keys, stations.
//!
//! Needs root, FRR, BIRD, and bgpd built in the same profile. What is missing fails the test and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod asleep;
mod distance;
mod gate;
mod md5;
mod monitoring;
mod node;
mod nodes;
mod range;
mod source;
mod unnumbered;
