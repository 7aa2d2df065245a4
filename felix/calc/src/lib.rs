//! Cluster state to this node's desired state. Pure: no clock, file, socket, task, lock or client.
//!
//! ```text
//! Update ──▶ CalcGraph.on_update       coalesced by key, no work
//!            CalcGraph.flush           index → policies per local endpoint → Compiler → Table
//!               │  Flush { plan: add → switch → remove, changes, recheck }
//!               ▼
//!            felix (kernel writer)     conntrack::denied(state, recheck, entries) → entries to cut
//!
//! evaluator   NodeState × Packet → verdict and reason, plain and slow: what the words mean
//! simulate    Table × Packet → verdict, counters, logs: what the kernel would do
//! ```
//! The compiled table and the evaluator must agree on every packet: that is the main test of this crate.

pub mod compile;
pub mod conntrack;
pub mod evaluator;
pub mod graph;
pub mod host;
pub mod model;
pub mod nat;
pub mod packet;
pub mod plan;
pub mod resolve;
pub mod selector;
pub mod simulate;
pub mod table;
pub mod verdict;

pub use graph::{CalcGraph, Change, Flush, Update};
pub use model::{
    Action, Direction, Endpoint, EndpointId, Icmp, NamedPort, Namespaces, NodeSettings, NodeState, Peer,
    Policy, PolicyKey, PolicyKind, PortRange, Rule, RuleId, Selection, Tier, TierDefault, Traffic,
};
pub use nat::OutgoingNat;
pub use selector::Selector;
