//! Bytes on the wire, both ways. This module alone knows message layouts.

pub mod notification;

pub use notification::Notification;
