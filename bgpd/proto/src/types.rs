//! Identities that every module of the speaker shares.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An autonomous system number, four octets (RFC 6793).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// AS_TRANS: stands for any number above 65535 in a two-octet field (RFC 6793 §9).
    pub const TRANS: Asn = Asn(23456);

    /// The value of a two-octet field: the number itself, or AS_TRANS where it does not fit.
    #[must_use]
    pub fn two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A BGP Identifier: any non-zero 32-bit number, unique within the AS, written like an address (RFC 6286).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RouterId(pub Ipv4Addr);

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A peer within the speaker and its RIB: small and reused after a peer is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u16);

/// A peer as the configuration names it: the key of [`crate::SpeakerConfig::peers`]. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for PeerName {
    fn from(name: &str) -> PeerName {
        PeerName(Arc::from(name))
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One TCP connection. The shell chooses the numbers and never uses one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// An address family that this speaker carries (RFC 4760): the table it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AfiSafi {
    /// AFI 1, SAFI 1.
    #[serde(rename = "IPv4Unicast")]
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    #[serde(rename = "IPv6Unicast")]
    Ipv6Unicast,
}

impl AfiSafi {
    /// Every family, in the order of their numbers.
    pub const ALL: [AfiSafi; 2] = [AfiSafi::Ipv4Unicast, AfiSafi::Ipv6Unicast];

    /// The family with these IANA numbers, if this speaker carries it.
    #[must_use]
    pub fn from_numbers(afi: u16, safi: u8) -> Option<AfiSafi> {
        match (afi, safi) {
            (1, 1) => Some(AfiSafi::Ipv4Unicast),
            (2, 1) => Some(AfiSafi::Ipv6Unicast),
            _ => None,
        }
    }

    /// The Address Family Identifier.
    #[must_use]
    pub fn afi(self) -> u16 {
        match self {
            AfiSafi::Ipv4Unicast => 1,
            AfiSafi::Ipv6Unicast => 2,
        }
    }

    /// The Subsequent Address Family Identifier.
    #[must_use]
    pub fn safi(self) -> u8 {
        1
    }

    /// The family whose table holds this prefix.
    #[must_use]
    pub fn of(prefix: &IpNet) -> AfiSafi {
        match prefix {
            IpNet::V4(_) => AfiSafi::Ipv4Unicast,
            IpNet::V6(_) => AfiSafi::Ipv6Unicast,
        }
    }

    /// The family of prefixes that contain this address.
    #[must_use]
    pub fn of_address(address: IpAddr) -> AfiSafi {
        match address {
            IpAddr::V4(_) => AfiSafi::Ipv4Unicast,
            IpAddr::V6(_) => AfiSafi::Ipv6Unicast,
        }
    }

    /// As the API writes it: `IPv4Unicast`, `IPv6Unicast`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AfiSafi::Ipv4Unicast => "IPv4Unicast",
            AfiSafi::Ipv6Unicast => "IPv6Unicast",
        }
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
