//! Who knows whom under which address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_proto::link_local;

/// How a node reaches a neighbour; the two ends of a link are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Attachment {
    /// By its IPv4 address.
    #[default]
    Ipv4,
    /// By its global IPv6 address.
    Ipv6,
    /// By its link-local address on this interface, on which the node itself has this one.
    Interface { index: u32, own: Ipv6Addr },
}

/// By node and neighbour; IPv4 where nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cabling(BTreeMap<(usize, usize), Attachment>);

impl Cabling {
    pub(crate) fn of(&self, node: usize, peer: usize) -> Attachment {
        self.0.get(&(node, peer)).copied().unwrap_or_default()
    }

    pub(crate) fn attach(&mut self, node: usize, peer: usize, attachment: Attachment) {
        self.0.insert((node, peer), attachment);
    }

    pub(crate) fn is_unnumbered(&self, node: usize, peer: usize) -> bool {
        matches!(self.of(node, peer), Attachment::Interface { .. })
    }

    /// The neighbour's address, as the node knows it.
    pub(crate) fn sees(&self, node: usize, peer: usize) -> IpAddr {
        match (self.of(node, peer), self.of(peer, node)) {
            (Attachment::Interface { index, .. }, Attachment::Interface { own, .. }) => {
                IpAddr::V6(link_local::scoped(own, index))
            }
            (Attachment::Ipv6, _) => IpAddr::V6(address6(peer)),
            _ => address(peer),
        }
    }

    /// The node's own end of a connection with the neighbour.
    pub(crate) fn own(&self, node: usize, peer: usize) -> IpAddr {
        match self.of(node, peer) {
            Attachment::Interface { index, own } => IpAddr::V6(link_local::scoped(own, index)),
            Attachment::Ipv6 => IpAddr::V6(address6(node)),
            Attachment::Ipv4 => address(node),
        }
    }
}

pub(crate) fn address4(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, u8::try_from(node / 250).unwrap(), u8::try_from(node % 250 + 1).unwrap())
}

pub(crate) fn address(node: usize) -> IpAddr {
    IpAddr::V4(address4(node))
}

pub(crate) fn address6(node: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::try_from(node + 1).unwrap())
}
