//! What the world tells the speaker.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::SpeakerConfig;
use crate::route::{NextHopResolution, OwnRoute};
use crate::types::{AfiSafi, ConnId, PeerName};

/// One thing that happened. Every input is defined in every state; what does not concern anybody is ignored.
#[derive(Debug)]
pub enum Input<'a> {
    /// The whole desired configuration. The first one starts the speaker.
    Configure(SpeakerConfig),
    /// These families' routes of an earlier life are in the kernel (so forwarding survived, RFC 4724 §4.1). Only before
    /// the first [`Input::Configure`]; later it is ignored.
    KernelRoutesFound(BTreeSet<AfiSafi>),
    /// Announce a prefix of our own, or change how it is announced.
    Originate {
        /// The prefix.
        prefix: IpNet,
        /// Attributes and audience: a peer is told as the first one says whose audience it is in, and nothing if there is
        /// none. An empty list tells nobody, yet keeps learned routes to the prefix out of the FIB.
        routes: Vec<OwnRoute>,
    },
    /// Stop announcing a prefix of our own.
    Withdraw {
        /// The prefix.
        prefix: IpNet,
    },
    /// The last [`crate::Output::Dial`] of this peer succeeded.
    Connected {
        /// A number never used before.
        conn: ConnId,
        /// As in the Dial.
        peer: PeerName,
        /// Our end.
        local: SocketAddr,
        /// Their end.
        remote: SocketAddr,
    },
    /// The last [`crate::Output::Dial`] of this peer failed.
    DialFailed {
        /// As in the Dial.
        peer: PeerName,
        /// What kind of failure.
        error: TransportErrorKind,
        /// For people: the operating system's words, such as `Connection refused (ECONNREFUSED)`.
        text: String,
    },
    /// A connection came in on the listening socket.
    Accepted {
        /// A number never used before.
        conn: ConnId,
        /// Our end.
        local: SocketAddr,
        /// Their end.
        remote: SocketAddr,
    },
    /// Bytes of one connection, in order, cut anywhere. At most 64 KiB at a time keep timers on time.
    Bytes {
        /// The connection.
        conn: ConnId,
        /// What was read.
        bytes: &'a [u8],
    },
    /// Bytes of this connection, or its end, wait to be read: its hold timer is put off by a second, so that a shell which is behind takes
    /// nobody for silent. See [`crate::Speaker::unheard`].
    Unread {
        /// The connection.
        conn: ConnId,
    },
    /// The connection ended, or broke, without us.
    Closed {
        /// The connection.
        conn: ConnId,
        /// The operating system's words; `None`: the peer closed in order.
        error: Option<String>,
    },
    /// How a next hop asked for by [`crate::Output::TrackNextHop`] resolves; `None`: it does not. Links that go down
    /// arrive this way too.
    NextHop {
        /// The next hop.
        address: IpAddr,
        /// Its resolution.
        resolution: Option<NextHopResolution>,
    },
    /// The link to this peer is down: end its session at once, as a transport failure.
    LinkDown {
        /// The peer.
        peer: PeerName,
        /// For people: which link.
        text: String,
    },
    /// BFD was Up towards this peer and says that the path failed (RFC 5882 §4): end its session at once with Cease/BFD Down
    /// (RFC 9384). Nothing of it is kept, whatever graceful restart was agreed; what was kept already goes too.
    BfdDown {
        /// The peer.
        peer: PeerName,
        /// For people: BFD's diagnostic.
        text: String,
    },
    /// An operator resets a session: Cease/Administrative Reset, then start again. Ends damping and prefix-limit waits.
    Reset {
        /// The peer.
        peer: PeerName,
        /// For the operator of the other side (RFC 9003); may be empty.
        message: String,
    },
    /// Ask the peer to send its routes again (RFC 2918).
    RequestRefresh {
        /// The peer.
        peer: PeerName,
        /// Of this family.
        family: AfiSafi,
    },
    /// Tell the peer a family again, as if it had asked for it (RFC 2918).
    TellAgain {
        /// The peer.
        peer: PeerName,
        /// Of this family.
        family: AfiSafi,
    },
    /// The time of [`crate::Speaker::poll_timeout`] has come.
    Timeout,
    /// The process is about to end. `restarting`: connections are closed without a NOTIFICATION, so that peers keep our
    /// routes (RFC 4724 §4.2) where graceful restart was agreed; all others get Cease/Administrative Shutdown.
    Stop {
        /// Whether we will be back soon.
        restarting: bool,
    },
}

/// Why a connection could not be made, as far as it decides the reason shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// ECONNREFUSED.
    Refused,
    /// ETIMEDOUT, or the shell's own limit.
    TimedOut,
    /// EHOSTUNREACH, ENETUNREACH.
    NoRoute,
    /// ENETDOWN, or the interface is gone or down.
    InterfaceDown,
    /// EADDRNOTAVAIL and everything else.
    Other,
}
