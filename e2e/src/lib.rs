//! Topologies in network namespaces, real peers, and the demo.
//!
//! DESIGN.md of this folder says how the parts hang together.

pub mod bird;
pub mod frr;
pub mod interrupt;
pub mod netns;
pub mod process;
pub mod topology;
