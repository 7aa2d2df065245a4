//! Bytes on the wire, both ways. This module alone knows message layouts.

pub mod as_path;
pub mod attr;
pub mod canonical;
pub mod capability;
pub mod display;
pub mod message;
pub mod next_hop;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod refresh;
pub mod rewrite;
pub mod update;
pub mod verdict;

pub use capability::{
    AddPathFamily, Capability, ExtendedNextHop, GracefulRestartCapability, LongLivedFamily, RestartFamily,
    Role,
};
pub use message::{Frame, Framer, MessageType};
pub use notification::Notification;
pub use open::Open;
pub use refresh::RouteRefresh;
