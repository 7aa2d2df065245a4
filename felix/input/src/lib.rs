//! The one door between the API and the calculation: objects of Kubernetes and Manx in, `felix_calc`'s model out.
//!
//! ```text
//!   NetworkPolicy ─▶ policy::network_policy ─▶ Policy, and what was refused of it (Event PolicyRejected)
//!   Pod ───────────▶ pod::endpoint ──────────▶ Endpoint
//!   Namespace ─────▶ namespace::labels ──────▶ Labels
//!   Node, FabricNode, FabricConfiguration ─▶ node::settings ─▶ NodeSettings
//!   IPPools, FabricNodes ─▶ nat::outgoing ───▶ OutgoingNat
//! ```
//! Shared by felix, the offline trace of `manxctl` and the controller, so that an object means the same wherever it
//! is read. Each translation is a function of its object alone: no clock, no store, no state.

pub mod labels;
pub mod namespace;
pub mod nat;
pub mod node;
pub mod pod;
pub mod policy;

pub use policy::{Rejected, Translated, network_policy};
