//! The messages of BMP, as octets (RFC 7854 §4, RFC 8671 §4, RFC 9069 §4, §5). Written, never read: a station has nothing to say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::link_local;
use crate::types::{Asn, RouterId};
use crate::wire::message::encode;
use crate::wire::{Capability, MessageType, Notification, Open};

/// Of BMP (RFC 7854 §4.1).
const VERSION: u8 = 3;
/// Version, length, type.
pub const HEADER: usize = 6;
/// Octets of the Per-Peer Header (RFC 7854 §4.2).
pub const PEER_HEADER: usize = 42;

/// Types of messages (RFC 7854 §4.1).
mod kind {
    pub(super) const ROUTE_MONITORING: u8 = 0;
    pub(super) const STATISTICS_REPORT: u8 = 1;
    pub(super) const PEER_DOWN: u8 = 2;
    pub(super) const PEER_UP: u8 = 3;
    pub(super) const INITIATION: u8 = 4;
    pub(super) const TERMINATION: u8 = 5;
}

/// Peer Flags (RFC 7854 §4.2, RFC 8671 §4). A is set of what is told to a peer of two octets alone: what peers say may be written
/// with four, however it came, and is.
mod flag {
    pub(super) const IPV6: u8 = 0x80;
    pub(super) const POST_POLICY: u8 = 0x40;
    pub(super) const ADJ_RIB_OUT: u8 = 0x10;
    /// An UPDATE as sent to a peer that knows two octets only (RFC 7854 §4.2, A).
    pub(super) const TWO_OCTET_AS: u8 = 0x20;
}

/// Which of a peer's tables a route stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// What the peer said.
    AdjRibIn,
    /// What import made of it.
    AdjRibInPostPolicy,
    /// What the peer is told, as it is told.
    AdjRibOut,
    /// What was selected (RFC 9069): no peer's.
    LocRib,
}

/// Whom a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The far end of its connection; `None`: the Loc-RIB.
    pub address: Option<IpAddr>,
    /// Its AS, of the Loc-RIB ours.
    pub asn: Asn,
    /// Its BGP Identifier, of the Loc-RIB ours.
    pub router_id: RouterId,
}

impl Subject {
    /// The Per-Peer Header. `at`: since 1970; `None`: not known, which is written as 0.
    fn header(&self, flags: u8, at: Option<Duration>, out: &mut Vec<u8>) {
        // RFC 9069 §4.1, §5.1: peer type 3, the address zero-filled, and no V flag.
        let (peer_type, flags) = match self.address {
            None => (3, 0),
            Some(IpAddr::V4(_)) => (0, flags),
            Some(IpAddr::V6(_)) => (0, flags | flag::IPV6),
        };
        out.extend_from_slice(&[peer_type, flags]);
        out.extend_from_slice(&[0; 8]);
        put_address(self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), out);
        out.extend_from_slice(&self.asn.0.to_be_bytes());
        out.extend_from_slice(&self.router_id.0.octets());
        let at = at.unwrap_or_default();
        out.extend_from_slice(&u32::try_from(at.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&at.subsec_micros().to_be_bytes());
    }
}

/// 16 octets, of which an IPv4 address fills the last four (RFC 7854 §4.2).
fn put_address(address: IpAddr, out: &mut Vec<u8>) {
    match link_local::wire(address) {
        IpAddr::V4(address) => {
            out.extend_from_slice(&[0; 12]);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
}

/// A message with its Common Header (RFC 7854 §4.1).
fn put(kind: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[VERSION, 0, 0, 0, 0, kind]);
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX).to_be_bytes();
    out.iter_mut().skip(start + 1).zip(length).for_each(|(to, from)| *to = from);
}

/// The length that the message at the start says it has; `None`: no whole header is there.
#[must_use]
pub fn length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*bytes.get(1..5)?.first_chunk()?);
    usize::try_from(length).ok().filter(|length| *length >= HEADER)
}

/// An Information TLV (RFC 7854 §4.4): what it says, cut to what its length can say.
fn put_tlv(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

/// Who speaks (RFC 7854 §4.3): the first message of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initiation {
    /// What software on what system; ASCII.
    pub sys_descr: String,
    /// The node.
    pub sys_name: String,
}

impl Initiation {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(kind::INITIATION, out, |out| {
            put_tlv(1, self.sys_descr.as_bytes(), out);
            put_tlv(2, self.sys_name.as_bytes(), out);
        });
    }
}

/// Why a connection to a station ends (RFC 7854 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// An operator removed the station, or this process stops.
    AdministrativelyClosed,
    /// The station read too slowly.
    OutOfResources,
    /// Whose routes these are changed.
    Unspecified,
}

impl Termination {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        let reason: u16 = match self {
            Termination::AdministrativelyClosed => 0,
            Termination::Unspecified => 1,
            Termination::OutOfResources => 2,
        };
        put(kind::TERMINATION, out, |out| put_tlv(1, &reason.to_be_bytes(), out));
    }
}

/// A session that is up (RFC 7854 §4.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerUp {
    /// Whose.
    pub subject: Subject,
    /// Since when, since 1970.
    pub at: Option<Duration>,
    /// Our end.
    pub local: SocketAddr,
    /// The far end's port.
    pub remote_port: u16,
    /// Our OPEN as it left, with its header.
    pub sent: Vec<u8>,
    /// Theirs as it came.
    pub received: Vec<u8>,
}

impl PeerUp {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(kind::PEER_UP, out, |out| {
            self.subject.header(0, self.at, out);
            put_address(self.local.ip(), out);
            out.extend_from_slice(&self.local.port().to_be_bytes());
            out.extend_from_slice(&self.remote_port.to_be_bytes());
            out.extend_from_slice(&self.sent);
            out.extend_from_slice(&self.received);
        });
    }
}

/// The Loc-RIB as if it were a peer (RFC 9069 §5.2): we are both ends, and the OPENs are made up of what says how its routes are
/// written.
pub(super) fn loc_rib_up(subject: Subject, at: Option<Duration>, out: &mut Vec<u8>) {
    let mut open = Vec::new();
    let capabilities = crate::types::AfiSafi::ALL
        .map(|family| Capability::Multiprotocol { afi: family.afi(), safi: family.safi() })
        .into_iter()
        .chain([Capability::FourOctetAsn(subject.asn)])
        .collect();
    let (my_as, router_id) = (subject.asn.two_octets(), subject.router_id);
    let said = Open { my_as, hold_time: 0, router_id, capabilities };
    encode(MessageType::Open, &mut open, |out| said.encode(out));
    put(kind::PEER_UP, out, |out| {
        subject.header(0, at, out);
        out.extend_from_slice(&[0; 20]);
        out.extend_from_slice(&open);
        out.extend_from_slice(&open);
        // VRF/Table Name (RFC 9069 §5.2.1).
        put_tlv(3, b"global", out);
    });
}

/// How a session ended (RFC 7854 §4.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerDown {
    /// 1: we did, and said so.
    LocalNotification(Notification),
    /// 2: we did, without a word, upon this event of RFC 4271 §8.1.
    LocalEvent(u16),
    /// 3: the peer did, and said so.
    RemoteNotification(Notification),
    /// 4: the peer closed without a word, or the connection broke.
    RemoteClosed,
}

impl PeerDown {
    pub(super) fn encode(&self, subject: Subject, at: Option<Duration>, out: &mut Vec<u8>) {
        put(kind::PEER_DOWN, out, |out| {
            subject.header(0, at, out);
            match self {
                PeerDown::LocalNotification(notification) => put_notification(1, notification, out),
                PeerDown::LocalEvent(event) => {
                    out.push(2);
                    out.extend_from_slice(&event.to_be_bytes());
                }
                PeerDown::RemoteNotification(notification) => put_notification(3, notification, out),
                PeerDown::RemoteClosed => out.push(4),
            }
        });
    }
}

fn put_notification(reason: u8, notification: &Notification, out: &mut Vec<u8>) {
    out.push(reason);
    encode(MessageType::Notification, out, |out| notification.encode(out));
}

/// One UPDATE with its header, as the content of a table (RFC 7854 §4.6). `two_octets`: its AS numbers are of that size.
pub(super) fn route_monitoring(
    subject: Subject,
    table: Table,
    two_octets: bool,
    at: Option<Duration>,
    update: &[u8],
    out: &mut Vec<u8>,
) {
    let flags = match table {
        Table::AdjRibIn | Table::LocRib => 0,
        Table::AdjRibInPostPolicy => flag::POST_POLICY,
        Table::AdjRibOut => flag::ADJ_RIB_OUT | flag::POST_POLICY,
    };
    put(kind::ROUTE_MONITORING, out, |out| {
        subject.header(flags | if two_octets { flag::TWO_OCTET_AS } else { 0 }, at, out);
        out.extend_from_slice(update);
    });
}

/// Numbers of one peer (RFC 7854 §4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Routes in Adj-RIB-In, by family: IPv4, IPv6 (type 9; their sum is type 7).
    pub received: [u32; 2],
}

impl Statistics {
    pub(super) fn encode(&self, subject: Subject, at: Option<Duration>, out: &mut Vec<u8>) {
        let received: u64 = self.received.iter().map(|count| u64::from(*count)).sum();
        put(kind::STATISTICS_REPORT, out, |out| {
            subject.header(0, at, out);
            out.extend_from_slice(&3u32.to_be_bytes());
            put_tlv(7, &received.to_be_bytes(), out);
            for (family, count) in crate::types::AfiSafi::ALL.into_iter().zip(self.received) {
                let mut value = family.afi().to_be_bytes().to_vec();
                value.push(family.safi());
                value.extend_from_slice(&u64::from(count).to_be_bytes());
                put_tlv(9, &value, out);
            }
        });
    }
}
