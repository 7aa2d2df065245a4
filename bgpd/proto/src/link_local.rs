//! Link-local addresses with the interface that they mean something on.
//!
//! On the wire the 54 bits behind fe80::/10 are zero (RFC 4291 §2.5.6). Inside the speaker the index of the interface stands in
//! 32 of them, so that one address is one neighbour wherever it goes: as the address of a peer, as a next hop, as a part of an
//! attribute set. Two neighbours on two interfaces that both are fe80::1 are two. The shell puts the index in where an address
//! comes from a socket, and takes it out where one goes to a socket, to the kernel, or to a person.
//!
//! ```text
//!    fe80 : 0000 : index of the interface : 64 bits of interface identifier
//! ```

use std::net::{IpAddr, Ipv6Addr};

/// Where the index stands.
const INDEX: std::ops::Range<usize> = 4..8;

/// The address on this interface. One that is not link-local, or not as RFC 4291 §2.5.6 writes it, stays as it is; 0 is no
/// interface.
#[must_use]
pub fn scoped(address: Ipv6Addr, interface: u32) -> Ipv6Addr {
    let mut octets = address.octets();
    if !is_plain(address) {
        return address;
    }
    octets.iter_mut().skip(INDEX.start).zip(interface.to_be_bytes()).for_each(|(to, from)| *to = from);
    Ipv6Addr::from(octets)
}

/// The address as it is on the wire, and the index of its interface; `None`: it is not bound to one.
#[must_use]
pub fn parts(address: IpAddr) -> Option<(Ipv6Addr, u32)> {
    let IpAddr::V6(address) = address else { return None };
    let mut octets = address.octets();
    let index = octets.get(INDEX)?.first_chunk::<4>().map(|index| u32::from_be_bytes(*index))?;
    if index == 0 || !address.is_unicast_link_local() {
        return None;
    }
    octets.iter_mut().take(INDEX.end).skip(INDEX.start).for_each(|octet| *octet = 0);
    Some((Ipv6Addr::from(octets), index))
}

/// The address as it is on the wire.
#[must_use]
pub fn wire(address: IpAddr) -> IpAddr {
    parts(address).map_or(address, |(address, _)| IpAddr::V6(address))
}

/// Stands for the neighbour on an interface as long as nobody was found there: the subnet's anycast address, which is no host's
/// own (RFC 4291 §2.6.1).
#[must_use]
pub fn nobody(interface: u32) -> IpAddr {
    IpAddr::V6(scoped(Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 0), interface))
}

/// Whether an address is one of [`nobody`]'s.
#[must_use]
pub fn is_nobody(address: IpAddr) -> bool {
    parts(address).is_some_and(|(address, _)| address.segments() == [0xFE80, 0, 0, 0, 0, 0, 0, 0])
}

/// Link-local, with the bits of RFC 4291 §2.5.6 zero: what a router may say of itself.
pub(crate) fn is_plain(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0xFE80, 0, 0, 0, ..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_interface_goes_in_and_comes_out() {
        let address: Ipv6Addr = "fe80::2:1".parse().unwrap();
        let here = IpAddr::V6(scoped(address, 7));
        assert_eq!(parts(here), Some((address, 7)));
        assert_eq!(wire(here), IpAddr::V6(address));
        assert_ne!(scoped(address, 7), scoped(address, 8));
        assert_eq!(parts(IpAddr::V6(scoped(address, u32::MAX))), Some((address, u32::MAX)));
    }

    #[test]
    fn other_addresses_stay_as_they_are() {
        for text in ["2001:db8::1", "fe80:0:0:7::1", "fe80:1::1", "fe81::1", "::"] {
            let address: Ipv6Addr = text.parse().unwrap();
            assert_eq!(scoped(address, 9), address, "{text}");
        }
        for text in ["10.0.0.1", "2001:db8:1:2::1", "fe80::1", "::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!((parts(address), wire(address)), (None, address), "{text}");
        }
    }

    #[test]
    fn nobody_is_on_every_interface() {
        assert!(is_nobody(nobody(3)) && nobody(3) != nobody(4));
        assert!(!is_nobody(IpAddr::V6(scoped("fe80::1".parse().unwrap(), 3))));
        assert!(!is_nobody("fe80::".parse().unwrap()), "on no interface");
    }
}
