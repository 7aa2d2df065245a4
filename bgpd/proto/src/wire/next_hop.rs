//! Next hops: what peers may send, and what of it becomes part of a canonical set.

use std::net::{IpAddr, Ipv6Addr};

use crate::link_local;
use crate::types::AfiSafi;

/// A next hop of 4, 16 or 32 octets: IPv4, IPv6, or a global and a link-local IPv6 address. Link-local ones name their interface
/// ([`crate::link_local`]) as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextHop {
    octets: [u8; 32],
    length: usize,
}

impl NextHop {
    /// The octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    /// One that stands as it is, at most 32 octets of it.
    #[must_use]
    pub fn of(octets: &[u8]) -> NextHop {
        let mut next_hop = NextHop::default();
        next_hop.push(octets);
        next_hop
    }

    /// Adds an address.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.octets.iter_mut().skip(self.length).zip(octets).for_each(|(to, from)| *to = *from);
        self.length = (self.length + octets.len()).min(32);
    }

    /// As received in MP_REACH_NLRI. `interface` leads to the peer where it is spoken to by its link-local address, else it is 0.
    /// `None`: a length that is none (RFC 7606 §7.11).
    ///
    /// A neighbour on an interface is met with all that routers send: a link-local address alone, twice, behind a global one,
    /// behind `::`. What the speaker cannot send packets to becomes `::`, which import refuses.
    #[must_use]
    pub fn received(family: AfiSafi, octets: &[u8], extended: bool, interface: u32) -> Option<NextHop> {
        // RFC 8950 §4: the length tells the kind of the next hop, for IPv4 prefixes too.
        let takes_ipv6 = extended || family == AfiSafi::Ipv6Unicast;
        match octets.len() {
            4 if family == AfiSafi::Ipv4Unicast => return Some(NextHop::of(octets)),
            16 | 32 if takes_ipv6 => {}
            _ => return None,
        }
        let mut addresses = octets.chunks_exact(16).filter_map(|octets| octets.first_chunk::<16>());
        let first = addresses.next().map(|octets| Ipv6Addr::from(*octets))?;
        let second = addresses.next().map(|octets| Ipv6Addr::from(*octets));
        let mut next_hop = NextHop::default();
        if interface == 0 {
            // Bits behind fe80::/10 would be taken for an interface.
            let strange = first.is_unicast_link_local() && !link_local::is_plain(first);
            next_hop.push(&if strange { Ipv6Addr::UNSPECIFIED } else { first }.octets());
            // RFC 2545 §3: a global address and a link-local one. Whatever else stands in second place is nothing to send packets to.
            if let Some(second) = second.filter(|second| link_local::is_plain(*second)) {
                next_hop.push(&second.octets());
            }
            return Some(next_hop);
        }
        if !first.is_unicast_link_local() && !first.is_unspecified() {
            next_hop.push(&first.octets());
        }
        let on_link = second.into_iter().chain([first]).find(|address| link_local::is_plain(*address));
        if let Some(address) = on_link {
            next_hop.push(&link_local::scoped(address, interface).octets());
        }
        if next_hop.length == 0 {
            next_hop.push(&Ipv6Addr::UNSPECIFIED.octets());
        }
        Some(next_hop)
    }
}

/// Where packets go, of a canonical next hop of 4, 16 or 32 octets. Of two addresses the one whose interface is known: no route
/// has to lead there.
#[must_use]
pub fn address(canonical: &[u8]) -> IpAddr {
    if let Ok(ipv4) = <[u8; 4]>::try_from(canonical) {
        return IpAddr::from(ipv4);
    }
    let mut addresses = canonical.chunks_exact(16).filter_map(|octets| octets.first_chunk::<16>());
    let first = addresses.next().map_or(Ipv6Addr::UNSPECIFIED, |octets| Ipv6Addr::from(*octets));
    let second = addresses.next().map(|octets| IpAddr::from(Ipv6Addr::from(*octets)));
    second.filter(|second| link_local::parts(*second).is_some()).unwrap_or(IpAddr::V6(first))
}

/// A canonical next hop as it was on the wire, for whoever is told what a peer said.
#[must_use]
pub fn on_wire(canonical: &[u8]) -> NextHop {
    let mut next_hop = NextHop::default();
    if !canonical.len().is_multiple_of(16) {
        return NextHop::of(canonical);
    }
    for octets in canonical.chunks_exact(16).filter_map(|octets| octets.first_chunk::<16>()) {
        let address = IpAddr::V6(Ipv6Addr::from(*octets));
        next_hop.push(&link_local::parts(address).map_or(*octets, |(address, _)| address.octets()));
    }
    next_hop
}

/// What of a canonical next hop means something to who is not on the same link; empty: nothing.
#[must_use]
pub fn global(canonical: &[u8]) -> &[u8] {
    match canonical.first_chunk::<16>() {
        Some(first) if Ipv6Addr::from(*first).is_unicast_link_local() => &[],
        Some(first) => first,
        None => canonical,
    }
}

#[cfg(test)]
mod tests;
