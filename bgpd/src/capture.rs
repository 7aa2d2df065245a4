//! The messages of one session for whoever looks (`manxctl bgp capture`): what sockets took and gave, so that it is the same with
//! TCP-MD5 and GTSM, where a capture on the link shows no more than a key lets it.
//!
//! A capture lives while somebody asks for it, and keeps the latest 4 MiB of messages; at most 8 live at a time. Of a session that
//! nobody looks at nothing is kept but its two OPENs, which every session has and without which no UPDATE can be read.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bgp_proto::wire::message::{MAX_EXTENDED_LENGTH, message_length};
use bgp_proto::{ConnId, PeerName, Speaker, link_local};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use manx_crds::report::{BgpdCapture, CapturedMessage, ControlError};

use crate::control;
use crate::driver::Driver;
use crate::net::Net;

/// Octets of messages that a capture keeps.
const MOST_OCTETS: usize = 4 << 20;
/// Captures at a time.
const MOST_CAPTURES: usize = 8;
/// Octets of messages in one answer.
const ANSWER: usize = 256 << 10;
/// Nobody asked for so long: it is over.
const FORGOTTEN: Duration = Duration::from_secs(15);
/// A message begins with so many octets of ones (RFC 4271 §4.1).
const MARKER: [u8; 16] = [0xff; 16];

/// One direction of one connection, cut into messages.
///
/// ```text
///   searching ── marker ──► cut ── what is no message ──► lost: octets as they come
/// ```
/// A connection that is younger than the capture is cut from its first octet on.
#[derive(Debug, Default)]
struct Stream {
    phase: Phase,
    /// The beginning of a message: less than 64 KiB.
    begun: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Searching,
    Cut,
    Lost,
}

impl Stream {
    /// Calls `f` with each message that is whole now.
    fn take(&mut self, octets: &[u8], mut f: impl FnMut(&[u8])) {
        self.begun.extend_from_slice(octets);
        if self.phase == Phase::Searching {
            let found = self.begun.windows(MARKER.len()).position(|window| window == MARKER);
            // A marker may have begun.
            let before = found.unwrap_or(self.begun.len().saturating_sub(MARKER.len() - 1));
            self.begun.drain(..before);
            if found.is_none() {
                return;
            }
            self.phase = Phase::Cut;
        }
        let mut rest = &self.begun[..];
        while self.phase == Phase::Cut {
            match message_length(rest, MAX_EXTENDED_LENGTH) {
                Ok(Some(length)) if rest.len() >= length => {
                    let (message, behind) = rest.split_at(length);
                    f(message);
                    rest = behind;
                }
                Ok(_) => break,
                Err(_) => self.phase = Phase::Lost,
            }
        }
        if self.phase == Phase::Lost && !rest.is_empty() {
            f(rest);
            rest = &[];
        }
        let taken = self.begun.len() - rest.len();
        self.begun.drain(..taken);
    }
}

#[derive(Debug)]
struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    received: Stream,
    sent: Stream,
}

#[derive(Debug)]
struct Capture {
    /// The latest, each with its octets.
    messages: VecDeque<CapturedMessage>,
    octets: usize,
    /// The number of the message that comes next.
    next: u64,
    asked: Instant,
    connections: BTreeMap<ConnId, Connection>,
    /// Connections with higher numbers are younger than this capture.
    latest: u64,
}

impl Capture {
    fn record(&mut self, conn: ConnId, sent: bool, octets: &[u8]) {
        let time = microseconds(Timestamp::now());
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let (local, remote) = (connection.local, connection.remote);
        let stream = if sent { &mut connection.sent } else { &mut connection.received };
        let mut whole = Vec::new();
        stream.take(octets, |message| whole.push(message.to_vec()));
        for message in whole {
            self.octets += message.len();
            self.next += 1;
            self.messages.push_back(CapturedMessage {
                time,
                local,
                remote,
                sent,
                octets: ByteString(message),
            });
        }
        while self.octets > MOST_OCTETS
            && let Some(oldest) = self.messages.pop_front()
        {
            self.octets -= oldest.octets.0.len();
        }
    }

    /// From `after` on; what is kept no more is counted.
    fn answer(&self, after: u64) -> (Vec<CapturedMessage>, u64, u64) {
        let first = self.next - self.messages.len() as u64;
        let lost = first.saturating_sub(after);
        let skipped = usize::try_from(after.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut room = ANSWER;
        let fits = |message: &&CapturedMessage| {
            let fits = room > 0;
            room = room.saturating_sub(message.octets.0.len());
            fits
        };
        let messages: Vec<_> = self.messages.iter().skip(skipped).take_while(fits).cloned().collect();
        let next = after.max(first).min(self.next) + messages.len() as u64;
        (messages, next, lost)
    }
}

fn microseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_microsecond()).unwrap_or_default()
}

fn before(ago: Duration) -> Timestamp {
    let now = Timestamp::now();
    now.checked_sub(ago).unwrap_or(now)
}

/// All captures, by session.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    running: BTreeMap<PeerName, Capture>,
}

impl Captures {
    /// Whether anybody looks at any session.
    pub(crate) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Octets came in on a connection.
    pub(crate) fn received(&mut self, conn: ConnId, octets: &[u8], speaker: &Speaker, net: &Net) {
        if self.running.is_empty() {
            return;
        }
        self.learn(conn, speaker, net);
        self.record(conn, false, octets);
    }

    /// A socket took octets.
    pub(crate) fn sent(&mut self, conn: ConnId, octets: &[u8], speaker: &Speaker, net: &Net) {
        if self.running.is_empty() {
            return;
        }
        self.learn(conn, speaker, net);
        self.record(conn, true, octets);
    }

    fn learn(&mut self, conn: ConnId, speaker: &Speaker, net: &Net) {
        let Some(capture) = speaker.owner(conn).and_then(|peer| self.running.get_mut(peer)) else { return };
        if capture.connections.contains_key(&conn) {
            return;
        }
        let Some((local, remote)) = net.ends(conn) else { return };
        let (local, remote) = (on_the_wire(local), on_the_wire(remote));
        let phase = if conn.0 > capture.latest { Phase::Cut } else { Phase::Searching };
        let stream = || Stream { phase, begun: Vec::new() };
        // A peer has two connections at the most: what is older is gone.
        while capture.connections.len() >= 4 {
            capture.connections.pop_first();
        }
        let connection = Connection { local, remote, received: stream(), sent: stream() };
        capture.connections.insert(conn, connection);
    }

    fn record(&mut self, conn: ConnId, sent: bool, octets: &[u8]) {
        let of_it = |capture: &&mut Capture| capture.connections.contains_key(&conn);
        if let Some(capture) = self.running.values_mut().find(of_it) {
            capture.record(conn, sent, octets);
        }
    }

    /// Forgets what nobody asked for.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.running.retain(|_, capture| now.saturating_duration_since(capture.asked) < FORGOTTEN);
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.running.values().map(|capture| capture.asked + FORGOTTEN).min()
    }
}

impl Driver {
    /// Answers `capture`: begins one, or tells what came since.
    pub(crate) fn capture(&mut self, peer: &str, after: Option<u64>) -> Result<BgpdCapture, ControlError> {
        let name = self.session_named(peer)?;
        let now = Instant::now();
        let running = &mut self.captures.running;
        if !running.contains_key(&name) && running.len() >= MOST_CAPTURES {
            return Err(refused(
                format!("{MOST_CAPTURES} sessions are captured already"),
                "one of them to end",
                "end another manxctl bgp capture of this node",
            ));
        }
        let latest = self.net.latest();
        let capture = running.entry(name.clone()).or_insert_with(|| Capture {
            messages: VecDeque::new(),
            octets: 0,
            next: 0,
            asked: now,
            connections: BTreeMap::new(),
            latest,
        });
        capture.asked = now;
        let (messages, next, lost) = match after {
            Some(after) => capture.answer(after),
            None => (Vec::new(), capture.next, 0),
        };
        let before = if after.is_none() { self.opens(&name, now) } else { Vec::new() };
        let messages = before.into_iter().chain(messages).collect();
        Ok(BgpdCapture { node: self.node.clone(), peer: name.to_string(), messages, next, lost })
    }

    /// The messages that the running session began with, at their times.
    fn opens(&self, name: &PeerName, now: Instant) -> Vec<CapturedMessage> {
        let Some(opens) = self.speaker.opens(name) else { return Vec::new() };
        let (local, remote) = (on_the_wire(opens.local), on_the_wire(opens.remote));
        let message = |(at, octets), sent| CapturedMessage {
            time: microseconds(before(now.saturating_duration_since(at))),
            local,
            remote,
            sent,
            octets: ByteString(octets),
        };
        vec![message(opens.sent, true), message(opens.received, false)]
    }

    /// The one session that is meant.
    fn session_named(&self, text: &str) -> Result<PeerName, ControlError> {
        let found = control::sessions_named(self, text);
        // Its own name means one session, also where a class is called alike.
        if let Some((name, _)) = found.iter().find(|(name, _)| name.as_str() == text) {
            return Ok(name.clone());
        }
        match &found[..] {
            [(name, _)] => Ok(name.clone()),
            [] => Err(refused(
                format!("no session of this node is called {text}, or leads there"),
                "a BGPPeer of this node, or the far end's address",
                "manxctl bgp peers",
            )),
            _ => {
                let remotes: Vec<&str> = found.iter().map(|(_, remote)| remote.as_str()).collect();
                Err(refused(
                    format!("{text} has {} sessions here: {}", found.len(), remotes.join(", ")),
                    "one of them, by the far end's address",
                    "manxctl bgp capture ADDRESS",
                ))
            }
        }
    }
}

/// Without the interface that a link-local address has in here.
fn on_the_wire(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(link_local::wire(end.ip()), end.port())
}

fn refused(error: String, expected: &str, remedy: &str) -> ControlError {
    ControlError { error, place: None, expected: Some(expected.to_owned()), remedy: Some(remedy.to_owned()) }
}

#[cfg(test)]
mod tests;
