//! BMP (RFC 7854, RFC 8671, RFC 9069): what peers say, what becomes of it and what they are told, for monitoring stations.
//!
//! ```text
//!   Peer ── session up, down; UPDATEs as they leave ──┐
//!   Rib  ── which paths and best paths changed ───────┼─► Monitor ─► Station, one per connection ─► poll: octets
//!   Rib  ── slots, at most 1 MiB at a time ────────────┘
//! ```
//!
//! Nothing is copied or noted while there is no station. What is told of Adj-RIB-In and of the Loc-RIB is how the table stands when
//! it is written, so that a station which reads slowly is told the latest and what changed twice once; what is told of
//! Adj-RIB-Out are the UPDATEs themselves.

mod changes;
pub mod message;
mod monitor;
mod station;

pub(crate) use monitor::{Monitor, Monitored};

/// One connection to a station. The shell chooses the numbers and never uses one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StationId(pub u64);

/// What is to be done for a station.
#[derive(Debug, PartialEq, Eq)]
pub enum StationOutput<'a> {
    /// Nothing, until something happens.
    Nothing,
    /// Write this.
    Bytes(&'a [u8]),
    /// More may be there at once: ask again when everything more urgent is done.
    Again,
    /// It cannot be told on: write these octets as far as the socket takes them, close, and connect anew; the table is told again.
    Over(message::Termination, Vec<u8>),
}

#[cfg(test)]
mod tests;
