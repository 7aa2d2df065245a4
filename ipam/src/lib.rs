//! The addresses of a node: blocks, claims and assignments as values. No clock, socket, file, task or lock.
//!
//! ```text
//!   IPPool ──▶ pool       which pools serve a pod, which of their blocks this node tries
//!                │
//!   ADD, DEL ──▶ allocator ──▶ journal    records as bytes, durable before the runtime hears an answer
//!                │    ▲
//!                ▼    └──────── store answers, watch hints
//!              block ──▶ IPBlock          creating the object is the claim, every write compares and swaps
//! ```
//! An address is given from a block that this node holds, without asking anybody; the object follows within a
//! second. DESIGN.md says why no address can be given twice.

#[cfg(test)]
extern crate self as manx_ipam;

pub mod allocator;
pub mod block;
pub mod journal;
mod owner;
pub mod pool;

pub use owner::{DEFAULT_INTERFACE, Owner, PodOwner, Sandbox};

#[cfg(test)]
#[path = "../tests/model/faults.rs"]
mod faults;
