//! One connection: its state, its TCP end, its timers, and the bytes that wait to be sent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::fsm::State;
use crate::negotiate::{LEAST_INTERVAL, Negotiated};
use crate::types::ConnId;
use crate::wire::message::{self, Framer, MAX_EXTENDED_LENGTH};

/// A keepalive goes at most this much before its time where another timer has its turn, so that a wake-up serves many sessions.
pub(crate) const EARLY: Duration = Duration::from_millis(100);

/// What a state machine of RFC 4271 §8 carries along.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) state: State,
    /// The TCP connection, from OpenSent on.
    pub(crate) link: Option<Link>,
    pub(crate) timers: Timers,
    /// From OpenConfirm on.
    pub(crate) negotiated: Option<Negotiated>,
}

/// One TCP connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: ConnId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// We dialled.
    pub(crate) initiated: bool,
    /// When it came up.
    pub(crate) since: Instant,
    pub(crate) framer: Framer,
    pub(crate) outbox: Outbox,
    /// Our OPEN with its header.
    pub(crate) open_sent: Vec<u8>,
    /// Theirs, and when it came.
    pub(crate) open_received: Vec<u8>,
    pub(crate) open_at: Option<Instant>,
}

/// The timers of one connection; `None` does not run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Timers {
    pub(crate) connect_retry: Option<Instant>,
    pub(crate) hold: Option<Instant>,
    pub(crate) keepalive: Option<Instant>,
    /// RFC 9687: runs while bytes wait for the peer to read.
    pub(crate) send_hold: Option<Instant>,
}

impl Timers {
    pub(crate) fn next(&self) -> Option<Instant> {
        [self.connect_retry, self.hold, self.keepalive, self.send_hold].into_iter().flatten().min()
    }
}

impl Connection {
    pub(crate) fn idle() -> Connection {
        Connection { state: State::Idle, link: None, timers: Timers::default(), negotiated: None }
    }

    /// A machine for an incoming connection: it stands where a listening one stands (§8.2.1).
    pub(crate) fn listening(link: Link) -> Connection {
        Connection { state: State::Active, link: Some(link), timers: Timers::default(), negotiated: None }
    }

    pub(crate) fn is(&self, conn: ConnId) -> bool {
        self.link.as_ref().is_some_and(|link| link.conn == conn)
    }

    pub(crate) fn hold_time(&self) -> Duration {
        self.negotiated.as_ref().map_or(Duration::ZERO, |negotiated| negotiated.hold_time)
    }

    pub(crate) fn keepalive_interval(&self) -> Duration {
        self.negotiated.as_ref().map_or(Duration::ZERO, |negotiated| negotiated.keepalive)
    }

    /// Whether a keepalive is due, or will be within [`EARLY`].
    pub(crate) fn may_keep_alive(&self, now: Instant) -> bool {
        // On top of the quarter that chance takes at most (RFC 4271 §10), where that leaves as much.
        let early =
            if self.keepalive_interval() * 3 / 4 >= LEAST_INTERVAL + EARLY { EARLY } else { Duration::ZERO };
        self.timers.keepalive.is_some_and(|at| at <= now + early)
    }

    /// Arms or stops the send hold timer: RFC 9687 §3 asks for at least 8 minutes or twice the hold time.
    pub(crate) fn watch_sending(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if link.outbox.is_empty() {
            self.timers.send_hold = None;
        } else if self.timers.send_hold.is_none() || link.outbox.took_bytes() {
            let limit = Duration::from_secs(8 * 60)
                .max(self.negotiated.as_ref().map_or(Duration::ZERO, |negotiated| negotiated.hold_time * 2));
            self.timers.send_hold = Some(now + limit);
        }
    }
}

impl Link {
    pub(crate) fn new(
        conn: ConnId,
        local: SocketAddr,
        remote: SocketAddr,
        initiated: bool,
        since: Instant,
    ) -> Link {
        Link {
            conn,
            local,
            remote,
            initiated,
            since,
            framer: Framer::default(),
            outbox: Outbox::default(),
            open_sent: Vec::new(),
            open_received: Vec::new(),
            open_at: None,
        }
    }
}

/// Messages that wait for the socket. Holds whole messages, of which the first may have been taken in part; UPDATEs are
/// added only when it is empty, so it stays below 64 KiB plus a few keepalives however slowly the peer reads.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    taken: usize,
    progress: bool,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// What waits.
    pub(crate) fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// Where to append whole messages.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The socket took so many bytes.
    pub(crate) fn transmitted(&mut self, count: usize) {
        self.progress |= count > 0;
        self.taken = self.bytes.len().min(self.taken + count);
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(4096);
            self.taken = 0;
        }
    }

    /// Whether bytes were taken since the last question.
    fn took_bytes(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// What must still go out before a last message can follow: the rest of a message that was taken in part.
    pub(crate) fn unfinished_message(&self) -> &[u8] {
        let mut end = 0;
        while end < self.taken {
            let message = self.bytes.get(end..).unwrap_or_default();
            match message::message_length(message, MAX_EXTENDED_LENGTH) {
                Ok(Some(length)) => end += length,
                Ok(None) | Err(_) => return &[],
            }
        }
        self.bytes.get(self.taken..end).unwrap_or_default()
    }
}

/// Jitter (RFC 4271 §10) from a seed: the same seed, the same times.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// 75 to 100 % of a duration.
    pub(crate) fn shorten(&mut self, duration: Duration) -> Duration {
        self.shorten_to(duration, 1000)
    }

    /// 75 % to `up_to` per mille of a duration.
    pub(crate) fn shorten_to(&mut self, duration: Duration, up_to: u32) -> Duration {
        let spread = u64::from(up_to.saturating_sub(750)) + 1;
        let per_mille = 750 + u32::try_from(self.draw() % spread).unwrap_or(0);
        duration * per_mille / 1000
    }

    /// The next number.
    pub(crate) fn draw(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014)
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
