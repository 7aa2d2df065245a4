//! The finite state machine of one connection (RFC 4271 §8).

use std::fmt;

use serde::Serialize;

/// The states of RFC 4271 §8.2.2, in the order a session passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// Nothing is tried; connections are refused.
    Idle,
    /// An attempt to connect is under way.
    Connect,
    /// Waiting: for the peer to connect, or for the next attempt.
    Active,
    /// Connected, our OPEN is sent.
    OpenSent,
    /// The peer's OPEN was accepted.
    OpenConfirm,
    /// The session is up.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Idle => "Idle",
            State::Connect => "Connect",
            State::Active => "Active",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        })
    }
}
