//! The only netlink, nftables and socket-option code, shared by felix and bgpd.
//!
//! Everything here works with CAP_NET_ADMIN and CAP_NET_RAW alone: no namespace is entered, sockets and descriptors of a
//! pod's namespace are passed in. Calls that reach the kernel block and end in bounded time; see [`netlink`].
#![allow(unsafe_code)] // this crate alone; every block says why it is sound

pub mod addr;
pub mod capability;
pub mod conntrack;
pub mod delta;
pub mod denial;
pub mod descriptor;
pub mod facts;
pub mod link;
pub mod monitor;
pub mod neigh;
pub mod netlink;
pub mod nft;
mod packet;
pub mod route;
pub mod router_discovery;
pub mod shared;
pub mod socket;
mod sockopt;
pub mod sysctl;
mod wire;

/// What the kernel sees of us, by name and number: for whoever uses this crate and not felix-calc.
pub use felix_calc::host;
