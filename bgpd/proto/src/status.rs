//! What can be asked of a speaker at any moment, without changing it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::fsm::State;
use crate::output::{NegotiatedStatus, Reason, SessionError};
use crate::types::{AfiSafi, ConnId};

/// One peer as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// RFC 4271 §8.2.2.
    pub state: State,
    /// Since when, on the speaker's clock.
    pub since: Instant,
    /// Why it is in this state.
    pub reason: Reason,
    /// For people: the reason in words; may be empty.
    pub message: String,
    /// Our end of the connection, if there is one.
    pub local: Option<SocketAddr>,
    /// Their end of the connection, if there is one.
    pub remote: Option<SocketAddr>,
    /// What was agreed, while OpenConfirm or Established.
    pub negotiated: Option<NegotiatedStatus>,
    /// The last error, kept after recovery, and when it was.
    pub last_error: Option<(Instant, SessionError)>,
    /// How often the session left Established.
    pub resets: u64,
    /// The same by why.
    pub resets_by: BTreeMap<Reason, u64>,
    /// When it left Established last.
    pub lost: Option<Instant>,
    /// Whether the peer's routes stand.
    pub synchronized: Synchronized,
    /// By family, in order; those configured.
    pub families: Vec<FamilyStatus>,
    /// Messages in and out, by type.
    pub messages: MessageCounters,
    /// NOTIFICATIONs, by what they say. Its size is bounded: past [`NOTIFICATION_KINDS`] the rest is counted as code 0.
    pub notifications: BTreeMap<NotificationKind, u64>,
    /// Bytes that wait until the peer reads.
    pub send_queue: u64,
    /// What of the peer's messages was malformed, and how often since the peer was configured. Its size is bounded: by the
    /// reasons there are, and the 256 types of attributes and capabilities.
    pub malformed: BTreeMap<Malformation, u64>,
    /// When it is tried again, if a timer holds it back.
    pub retry_at: Option<Instant>,
}

/// One way in which a message was not as the RFCs want it, and what that leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Malformation {
    /// `header`, `OPEN` or `UPDATE`.
    pub message: &'static str,
    /// Type of the attribute, code of the capability; 0 is the message itself.
    pub attribute: u8,
    /// What is wrong, as half a sentence.
    pub reason: &'static str,
    /// `SessionReset`, `AfiSafiDisable`, `TreatAsWithdraw`, `AttributeDiscard` (RFC 7606 §2) or `CapabilityIgnored`.
    pub action: &'static str,
    /// The section that decides the answer.
    pub rfc: &'static str,
}

/// Condition `Synchronized` of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronized {
    /// The peer's routes stand.
    Synchronized,
    /// The session is up, some End-of-RIB is still to come.
    AwaitingEndOfRib,
    /// The session is down, the routes of the last one are kept.
    Stale,
    /// The session is down for long, some of its routes are kept as the last choice (RFC 9494).
    LongLivedStale,
    /// The session is down.
    NotEstablished,
}

/// The messages that a running session began with: what follows them cannot be read without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOpens {
    /// The connection.
    pub conn: ConnId,
    /// Our end.
    pub local: SocketAddr,
    /// Their end.
    pub remote: SocketAddr,
    /// Our OPEN with its header, and when the connection came up, upon which it was sent.
    pub sent: (Instant, Vec<u8>),
    /// Theirs, and when it came.
    pub received: (Instant, Vec<u8>),
}

/// Prefix counts of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyStatus {
    /// The family.
    pub family: AfiSafi,
    /// Announced by the peer and not withdrawn.
    pub received: u32,
    /// Of these, accepted by the import policy.
    pub accepted: u32,
    /// Told to the peer.
    pub advertised: u32,
    /// Of those received, kept from before the peer's restart and not heard again yet.
    pub stale: u32,
    /// The limit on `received`.
    pub limit: u32,
}

/// How many kinds of NOTIFICATIONs are told apart of one peer: it may send any code and subcode that it likes.
pub const NOTIFICATION_KINDS: usize = 64;

/// What a NOTIFICATION says, and who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotificationKind {
    /// We did.
    pub sent: bool,
    /// RFC 4271 §4.5.
    pub code: u8,
    /// RFC 4271 §4.5, RFC 4486.
    pub subcode: u8,
}

/// Messages since the speaker started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageCounters {
    /// Received.
    pub received: ByType,
    /// Queued for sending.
    pub sent: ByType,
    /// UPDATEs that RFC 7606 had something to say about.
    pub malformed_updates: u64,
}

/// One number per message type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByType {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub route_refresh: u64,
}
