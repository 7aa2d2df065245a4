//! Topologies in network namespaces, real peers, and the demo.
//!
//! DESIGN.md of this folder says how the parts hang together.

pub mod bench;
pub mod bgpd_node;
pub mod bird;
pub mod cluster;
pub mod demo;
pub mod frr;
pub mod gobgp;
pub mod interrupt;
pub mod lab;
pub mod manx_router;
pub mod netns;
pub mod openbgpd;
pub mod pod;
pub mod probe;
pub mod process;
pub mod root;
pub mod router;
pub mod store;
pub mod stream;
pub mod topology;
