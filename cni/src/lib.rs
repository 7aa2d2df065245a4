//! What `manx-cni` and felix say to each other, and the CNI types behind it (spec 0.4.0, 1.0.0 and 1.1.0).
//!
//! ```text
//!   runtime ── CNI_* and JSON ──► manx-cni ── Request + 2 descriptors ──► felix
//!           ◄── JSON, exit code ──         ◄──────── Response ─────────
//! ```
//! The shim parses, opens the pod's namespace and a netlink socket inside it, and passes both along; it has
//! no credentials and decides nothing. Everything that can be refused without felix is refused here.

pub mod args;
pub mod conf;
pub mod error;
pub mod request;
pub mod result;
pub mod version;

/// felix's CNI socket in its run directory.
pub const SOCKET: &str = "felix.sock";
/// Where the socket is unless the network configuration says otherwise.
pub const SOCKET_PATH: &str = "/run/manx/felix.sock";
