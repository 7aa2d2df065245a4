//! The speaker: peers and routes behind one mutable entry.

use std::collections::VecDeque;
use std::time::Instant;

use crate::config::SpeakerConfig;
use crate::input::Input;
use crate::output::Output;
use crate::status::PeerStatus;
use crate::types::{ConnId, PeerName};

/// A BGP speaker. See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Speaker {
    config: Option<SpeakerConfig>,
    outputs: VecDeque<Output>,
    timeout: Option<Instant>,
}

impl Speaker {
    /// A speaker that does nothing before its first [`Input::Configure`]. `seed` makes its jitter, and hash tables that
    /// peers could otherwise fill on purpose: take it from the system's random source.
    #[must_use]
    pub fn new(seed: u64, now: Instant) -> Speaker {
        let _ = (seed, now);
        Speaker { config: None, outputs: VecDeque::new(), timeout: None }
    }

    /// Takes in one thing that happened. Drain [`Speaker::poll_output`] before the next.
    pub fn handle_input(&mut self, input: Input<'_>, now: Instant) {
        let _ = now;
        if let Input::Configure(config) = input {
            self.config = Some(config);
        }
    }

    /// The next thing to do, `None` when the speaker waits.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due; in the past: at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// The next bytes for this connection, at most 64 KiB; `None`: nothing to send. Ask again after
    /// [`Speaker::transmitted`] and after every input.
    pub fn poll_transmit(&mut self, conn: ConnId) -> Option<&[u8]> {
        let _ = conn;
        None
    }

    /// The socket took the first `written` bytes of the last [`Speaker::poll_transmit`].
    pub fn transmitted(&mut self, conn: ConnId, written: usize) {
        let _ = (conn, written);
    }

    /// Connections that have bytes to send, in order: after a drain the shell offers each its socket.
    pub fn connections(&self) -> impl Iterator<Item = ConnId> {
        std::iter::empty()
    }

    /// The configuration in force, once there is one.
    #[must_use]
    pub fn config(&self) -> Option<&SpeakerConfig> {
        self.config.as_ref()
    }

    /// One peer as it stands.
    #[must_use]
    pub fn peer(&self, name: &PeerName) -> Option<PeerStatus> {
        let _ = name;
        None
    }
}
