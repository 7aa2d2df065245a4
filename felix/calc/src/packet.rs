//! A packet as the hooks of one node see it: input of the evaluator and of the simulator.

use std::net::IpAddr;

use serde::Serialize;

use crate::table::{Family, Hook};

/// Which hooks it passes follows from its interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Packet {
    /// Absent: the node sends it.
    pub input: Option<String>,
    /// Absent: it is for the node.
    pub output: Option<String>,
    pub source: IpAddr,
    /// Behind DNAT, of the family of `source`.
    pub destination: IpAddr,
    pub protocol: u8,
    /// The first four bytes of the transport header: two ports, or ICMP type, code and checksum. Absent:
    /// the packet has none (a later fragment, a truncated packet).
    pub header: Option<[u8; 4]>,
    /// IPv6 hop limit; not read for IPv4.
    pub hop_limit: u8,
    pub connection: Connection,
    /// `ct status dnat`; means nothing where the packet is of no connection.
    pub dnat: bool,
}

/// `ct state`, the answer of connection tracking, which is an input here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Connection {
    New,
    Established,
    Related,
    Invalid,
    /// Neighbour discovery is.
    Untracked,
}

impl Packet {
    pub fn family(&self) -> Family {
        match self.source {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// The one filter hook that the packet passes on this node.
    pub fn hook(&self) -> Hook {
        match (&self.input, &self.output) {
            (None, _) => Hook::Output,
            (Some(_), None) => Hook::Input,
            (Some(_), Some(_)) => Hook::Forward,
        }
    }

    /// Bytes 0 and 1 of the transport header, whatever the protocol.
    pub fn source_port(&self) -> Option<u16> {
        self.header.map(|[high, low, ..]| u16::from_be_bytes([high, low]))
    }

    /// Bytes 2 and 3 of the transport header, whatever the protocol.
    pub fn destination_port(&self) -> Option<u16> {
        self.header.map(|[.., high, low]| u16::from_be_bytes([high, low]))
    }

    pub fn icmp_kind(&self) -> Option<u8> {
        self.header.map(|[kind, ..]| kind)
    }

    pub fn icmp_code(&self) -> Option<u8> {
        self.header.map(|[_, code, ..]| code)
    }
}

/// The transport header of a protocol that carries ports.
pub fn ports(source: u16, destination: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    [a, b, c, d]
}
