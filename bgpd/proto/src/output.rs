//! What the speaker asks the world to do, and what it reports.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::fsm::State;
use crate::route::FibChange;
use crate::types::{AfiSafi, Asn, ConnId, PeerName, RouterId};
use crate::wire::Notification;

/// One thing to do. Outputs are to be obeyed in order; what is read and written on connections is not among them
/// ([`crate::Speaker::poll_transmit`]).
#[derive(Debug)]
pub enum Output {
    /// Connect to a peer and answer with [`crate::Input::Connected`] or [`crate::Input::DialFailed`]. It replaces an
    /// attempt for the same peer that is still under way, whose answer is not wanted any more.
    Dial {
        /// The peer.
        peer: PeerName,
        /// Where to.
        remote: SocketAddr,
        /// Where from; `None`: as the kernel chooses.
        local: Option<IpAddr>,
        /// How many hops the peer may be away: the TTL, or RFC 5082's distance.
        max_hops: u8,
        /// Whether packets from further away are dropped (RFC 5082).
        ttl_security: bool,
    },
    /// Give up an attempt that is under way.
    CancelDial {
        /// The peer.
        peer: PeerName,
    },
    /// Write `last_bytes` as far as the socket takes them within a second or so, then close. The speaker has forgotten
    /// the connection: neither [`crate::Speaker::poll_transmit`] nor inputs about it mean anything from here on.
    Close {
        /// The connection.
        conn: ConnId,
        /// The rest of what was due, mostly a NOTIFICATION; may be empty.
        last_bytes: Vec<u8>,
    },
    /// As [`Output::Close`], for a connection that came in and is nobody's: whoever made it can make any number, so that the
    /// shell may spend less on its last bytes.
    Refuse {
        /// The connection.
        conn: ConnId,
        /// A NOTIFICATION.
        last_bytes: Vec<u8>,
    },
    /// The forwarding table should change.
    Fib(FibChange),
    /// Every route of this family that should be in the kernel has been emitted: what is there besides may be swept.
    /// Once per family after a start.
    FibComplete {
        /// The family.
        family: AfiSafi,
    },
    /// Answer with [`crate::Input::NextHop`] now and whenever the answer changes; `wanted: false`: stop.
    TrackNextHop {
        /// The next hop.
        address: IpAddr,
        /// Start or stop.
        wanted: bool,
    },
    /// Something worth a status, an Event, a log line.
    Event(SessionEvent),
}

/// Something that happened to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The peer's state changed (RFC 4271 §8.2.2; of two connections the further one counts).
    StateChanged {
        /// The peer.
        peer: PeerName,
        /// Before.
        from: State,
        /// After.
        to: State,
        /// Why it is not Established, or that it is.
        reason: Reason,
    },
    /// A session ended or an attempt failed.
    Error {
        /// The peer.
        peer: PeerName,
        /// What, by whom.
        error: SessionError,
    },
    /// The peer has sent its End-of-RIB of this family.
    EndOfRibReceived {
        /// The peer.
        peer: PeerName,
        /// The family.
        family: AfiSafi,
    },
    /// All routes of this family and our End-of-RIB were handed to the socket.
    EndOfRibSent {
        /// The peer.
        peer: PeerName,
        /// The family.
        family: AfiSafi,
    },
    /// The peer's routes stand: End-of-RIB came for every family, or none is to be expected (no graceful restart).
    Synchronized {
        /// The peer.
        peer: PeerName,
    },
    /// The session is down; the peer's routes are kept as stale until it is back (RFC 4724 §4.2).
    Stale {
        /// The peer.
        peer: PeerName,
    },
    /// The peer did not come back in its restart time; its routes are kept on as the last choice (RFC 9494).
    LongLivedStale {
        /// The peer.
        peer: PeerName,
    },
    /// A message was malformed and the session lives (RFC 7606): once per peer and reason,
    /// [`crate::status::PeerStatus::malformed`] counts them all.
    Malformed {
        /// The peer.
        peer: PeerName,
        /// What was wrong and what was done about it.
        what: String,
    },
    /// The warning threshold of a prefix limit was passed upwards.
    PrefixLimitNear {
        /// The peer.
        peer: PeerName,
        /// The family.
        family: AfiSafi,
        /// Received.
        count: u32,
        /// Allowed.
        limit: u32,
    },
    /// The limit was passed; what follows is up to `MaxPrefixes::action`.
    PrefixLimitReached {
        /// The peer.
        peer: PeerName,
        /// The family.
        family: AfiSafi,
        /// Received.
        count: u32,
        /// Allowed.
        limit: u32,
    },
    /// The configuration of this peer cannot be served.
    PeerRefused {
        /// The peer.
        peer: PeerName,
        /// Why: what, where, expected.
        why: String,
    },
    /// A connection came in that nobody waits for; it was closed with Cease/Connection Rejected (RFC 4486).
    ConnectionRejected {
        /// Who.
        remote: SocketAddr,
        /// On which of our addresses.
        local: SocketAddr,
        /// Why.
        why: Rejection,
    },
}

impl SessionEvent {
    /// Whom it is about; a connection that nobody wanted is about none.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerName> {
        match self {
            SessionEvent::StateChanged { peer, .. }
            | SessionEvent::Error { peer, .. }
            | SessionEvent::EndOfRibReceived { peer, .. }
            | SessionEvent::EndOfRibSent { peer, .. }
            | SessionEvent::Synchronized { peer }
            | SessionEvent::Stale { peer }
            | SessionEvent::LongLivedStale { peer }
            | SessionEvent::Malformed { peer, .. }
            | SessionEvent::PrefixLimitNear { peer, .. }
            | SessionEvent::PrefixLimitReached { peer, .. }
            | SessionEvent::PeerRefused { peer, .. } => Some(peer),
            SessionEvent::ConnectionRejected { .. } => None,
        }
    }
}

/// Why an incoming connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Rejection {
    /// No peer has this address.
    UnknownPeer,
    /// The peer is configured with another local address.
    WrongLocalAddress,
    /// The session is shut down by its configuration.
    AdminShutdown,
    /// What the session needs is missing.
    Withheld,
    /// The peer waits after a failure (damping, prefix limit).
    IdleHold,
    /// The session is Established, or another incoming connection is under way.
    AlreadyConnected,
    /// Its range has as many peers as it may have.
    RangeFull,
}

/// Why a session is in its state: the reasons of condition `Established` of a BGPSession.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Reason {
    /// It is up.
    Established,
    /// It is on its way, or the peer closed without a NOTIFICATION.
    Connecting,
    /// The peer's host refuses the port.
    ConnectionRefused,
    /// The peer does not answer.
    ConnectionTimedOut,
    /// There is no route to the peer.
    NoRoute,
    /// The link is down.
    InterfaceDown,
    /// Nobody was found on the interface.
    NeighborNotFound,
    /// The key of the session is not there: it is not tried.
    SecretMissing,
    /// The session asks for an authentication that this program or this kernel has not: it is not tried.
    AuthUnsupported,
    /// The peer's AS is not the one configured.
    BadPeerAS,
    /// The peer was silent for the hold time.
    HoldTimerExpired,
    /// BFD says that the path to the peer failed, or the session waits for what BFD needs.
    BFDDown,
    /// We ended it; `SessionError` says why.
    NotificationSent,
    /// The peer ended it; `SessionError` says why.
    NotificationReceived,
    /// More prefixes than allowed.
    MaxPrefixesReached,
    /// Shut down by configuration.
    AdminShutdown,
}

/// Who ended a session or an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ErrorFrom {
    /// We did: a NOTIFICATION was sent.
    Local,
    /// The peer did: a NOTIFICATION was received.
    Remote,
    /// The network did.
    Transport,
}

/// Why a session ended or an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionError {
    /// Who.
    pub from: ErrorFrom,
    /// The NOTIFICATION; `None` from Transport.
    pub notification: Option<Notification>,
    /// The reason shown while nothing newer is known.
    pub reason: Reason,
    /// For people: RFC 9003's text of the peer, the operating system's words, or our explanation. May be empty.
    pub text: String,
}

impl SessionError {
    /// IANA's name, such as `Cease/AdministrativeShutdown`; empty from Transport.
    #[must_use]
    pub fn name(&self) -> String {
        self.notification.as_ref().map_or_else(String::new, |n| n.name().to_string())
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.notification, self.text.is_empty()) {
            (Some(notification), true) => notification.name().fmt(f),
            (Some(notification), false) => write!(f, "{}: {}", notification.name(), self.text),
            (None, _) => f.write_str(&self.text),
        }
    }
}

/// What two OPENs agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiatedStatus {
    /// Our AS on this session.
    pub local_asn: Asn,
    /// The peer's AS.
    pub remote_asn: Asn,
    /// The peer's BGP Identifier.
    pub remote_router_id: RouterId,
    /// The hold time in force, seconds; 0: none.
    pub hold_time: u16,
    /// Between two keepalives of ours, seconds; 0: none.
    pub keepalive: u16,
    /// Names of the capabilities both sides sent, such as `FourOctetASN`, sorted.
    pub capabilities: Vec<&'static str>,
    /// Families both sides sent, in order.
    pub families: Vec<AfiSafi>,
    /// The peer's restart time, seconds, where it sent the graceful-restart capability.
    pub restart_time: Option<u16>,
    /// For how long its routes are kept on afterwards, seconds: the longest of its families (RFC 9494).
    pub long_lived_stale_time: Option<u32>,
}
