//! Bidirectional Forwarding Detection as a value (RFC 5880, 5881, 5883): no I/O, no clock, no threads.
//!
//! ```text
//!   configure(desired set, now) ─┐   ┌─────────┐   ┌─► Output::Transmit   one packet, at once
//!   receive(bytes, arrival, now) ┼──►│ Monitor ├───┼─► Output::Changed    a state, for BGP and for people
//!   timeout(now)                ─┘   └────┬────┘   └─► Output::Closed     its socket may go
//!                                         ▼
//!                                   poll_timeout()
//! ```
//! Drive it as the speaker: one call in, drain [`Monitor::poll_output`], wait for the next datagram or
//! [`Monitor::poll_timeout`].
//!
//! `packet` is the wire, `session` one session's machine and timers, `monitor` the set of them: discriminators, which
//! session a packet belongs to, and when which is due. Left out, all optional: echo, demand mode of our own (a peer's is
//! obeyed), authentication.

mod monitor;
mod packet;
mod session;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use monitor::{Arrival, Figures, Monitor, Output, SessionFigures, SessionStatus};
pub use packet::{ControlPacket, Discard, LENGTH};

/// The states of RFC 5880 §6.2, drawn in `session.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Switched off by an operator: says nothing of the path.
    AdminDown,
    /// The peer is not heard, or does not hear us.
    Down,
    /// The peer is heard, and does not know yet that it is.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    fn code(self) -> u8 {
        match self {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        }
    }

    /// Of the two lowest bits.
    fn of_code(code: u8) -> State {
        match code & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::AdminDown => "AdminDown",
            State::Down => "Down",
            State::Init => "Init",
            State::Up => "Up",
        })
    }
}

/// Why a session left Up last (RFC 5880 §4.1): five bits, of which 9 to 31 have no meaning yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// It did not leave Up.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// Nothing was heard for the detection time.
    pub const DETECTION_TIME_EXPIRED: Diagnostic = Diagnostic(1);
    /// The peer is Down or AdminDown.
    pub const NEIGHBOR_SIGNALED_DOWN: Diagnostic = Diagnostic(3);
    /// An operator ended it.
    pub const ADMINISTRATIVELY_DOWN: Diagnostic = Diagnostic(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("NoDiagnostic"),
            1 => f.write_str("ControlDetectionTimeExpired"),
            2 => f.write_str("EchoFunctionFailed"),
            3 => f.write_str("NeighborSignaledSessionDown"),
            4 => f.write_str("ForwardingPlaneReset"),
            5 => f.write_str("PathDown"),
            6 => f.write_str("ConcatenatedPathDown"),
            7 => f.write_str("AdministrativelyDown"),
            8 => f.write_str("ReverseConcatenatedPathDown"),
            other => write!(f, "Diagnostic{other}"),
        }
    }
}

/// Between which addresses a session runs. Another path is another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// The peer.
    pub remote: IpAddr,
    /// Our end, where packets are sent from.
    pub local: IpAddr,
    /// The link, by its index; none over several hops.
    pub interface: Option<u32>,
    /// Over several hops (RFC 5883), else on one link (RFC 5881).
    pub multihop: bool,
}

/// What is asked of a session. Everything but the path changes while it runs, without a flap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// Between which addresses.
    pub path: Path,
    /// How it is timed.
    pub timing: Timing,
}

/// How often packets are sent and expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The shortest interval at which we send while Up.
    pub desired_min_tx: Duration,
    /// The shortest interval at which we can take packets.
    pub required_min_rx: Duration,
    /// How many packets in a row the peer may miss; 0 counts as 1.
    pub detect_multiplier: u8,
    /// Waits for the peer's first packet (RFC 5880 §6.1).
    pub passive: bool,
}

#[cfg(test)]
mod tests;
