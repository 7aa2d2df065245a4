//! What bgpd and felix share as processes, and nothing of what they do.
//!
//! [`options`]: who am I and where is everything. [`log`]: JSON lines as ux.md §8 prints them.
//! [`control`]: the unix socket that `manxctl` asks. [`health`]: what the kubelet and Prometheus ask. [`metrics`]: what the
//! latter gets. [`traffic`]: what is asked of the datastore. [`kind`]: objects as last heard from the store.
//! [`secrets`]: the passwords of sessions.

pub mod control;
pub mod health;
pub mod inputs;
pub mod kind;
pub mod log;
pub mod metrics;
pub mod options;
pub mod secrets;
pub mod stop;
pub mod traffic;

/// Which version this is: the workspace's, as logs, statuses and what is installed on nodes say it. A static, so that
/// it is in a program once.
pub static VERSION: &str = env!("CARGO_PKG_VERSION");
