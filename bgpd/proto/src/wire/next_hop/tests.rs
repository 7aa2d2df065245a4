#![allow(clippy::unwrap_used)]

use super::*;

const V4: AfiSafi = AfiSafi::Ipv4Unicast;
const V6: AfiSafi = AfiSafi::Ipv6Unicast;

fn octets(addresses: &[&str]) -> Vec<u8> {
    addresses.iter().flat_map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).collect()
}

fn on(interface: u32, text: &str) -> IpAddr {
    IpAddr::V6(link_local::scoped(text.parse().unwrap(), interface))
}

/// What becomes of addresses received: where packets go, and what may be told to others.
fn read(interface: u32, addresses: &[&str]) -> (IpAddr, Vec<u8>) {
    let next_hop = NextHop::received(V4, &octets(addresses), true, interface).unwrap();
    let same = NextHop::received(V6, &octets(addresses), false, interface).unwrap();
    assert_eq!(next_hop, same, "the family makes no difference");
    (address(next_hop.octets()), global(next_hop.octets()).to_vec())
}

#[test]
fn a_neighbour_on_an_interface_may_say_it_in_any_way() {
    let here = on(5, "fe80::1");
    // Alone (BIRD), twice (FRR without a global address), behind `::`, in front of what is none.
    for addresses in [&["fe80::1"][..], &["fe80::1", "fe80::1"], &["::", "fe80::1"], &["fe80::1", "::"]] {
        assert_eq!(read(5, addresses), (here, vec![]), "{addresses:?}");
    }
    // Behind a global one, which others may be told.
    let global = octets(&["2001:db8::1"]);
    assert_eq!(read(5, &["2001:db8::1", "fe80::1"]), (here, global.clone()));
    assert_eq!(read(5, &["2001:db8::1"]), ("2001:db8::1".parse().unwrap(), global.clone()));
    assert_eq!(read(5, &["2001:db8::1", "::"]), ("2001:db8::1".parse().unwrap(), global));
    // On another interface it is another neighbour.
    assert_ne!(read(5, &["fe80::1"]).0, read(6, &["fe80::1"]).0);
}

#[test]
fn what_nothing_can_be_sent_to_is_no_address() {
    let none: IpAddr = "::".parse().unwrap();
    for (interface, addresses) in [
        (5, &["::"][..]),
        (5, &["::", "::"]),
        (5, &["fe80:0:0:7::1"]),
        (5, &["fe80:0:0:7::1", "fe81::1"]),
        // Without an interface nobody can make up one.
        (0, &["fe80:0:0:7::1"]),
        (0, &["::", "fe80::1"]),
    ] {
        assert_eq!(read(interface, addresses).0, none, "{interface} {addresses:?}");
    }
}

#[test]
fn without_an_interface_the_global_address_counts() {
    let (to, told) = read(0, &["2001:db8::1", "fe80::1"]);
    assert_eq!((to, told), ("2001:db8::1".parse().unwrap(), octets(&["2001:db8::1"])));
    assert_eq!(read(0, &["2001:db8::1", "fe80:0:0:7::1"]).0, to);
    // It leads nowhere: no interface is known.
    assert_eq!(read(0, &["fe80::1"]), ("fe80::1".parse().unwrap(), vec![]));
}

#[test]
fn who_is_told_what_was_said_hears_of_no_interface() {
    for addresses in [&["fe80::1"][..], &["2001:db8::1", "fe80::1"], &["2001:db8::1"]] {
        let next_hop = NextHop::received(V6, &octets(addresses), false, 5).unwrap();
        assert_eq!(on_wire(next_hop.octets()).octets(), octets(addresses));
    }
    assert_eq!(on_wire(&[192, 0, 2, 1]).octets(), [192, 0, 2, 1]);
}

#[test]
fn lengths_that_are_none() {
    for length in [0, 1, 4, 8, 12, 15, 16, 17, 20, 24, 31, 32, 33, 48, 64] {
        let is_read = |family, extended, interface| {
            NextHop::received(family, &vec![0; length], extended, interface).is_some()
        };
        for interface in [0, 5] {
            assert_eq!(is_read(V4, false, interface), length == 4, "{length}");
            assert_eq!(is_read(V4, true, interface), [4, 16, 32].contains(&length), "{length}");
            assert_eq!(is_read(V6, true, interface), [16, 32].contains(&length), "{length}");
        }
    }
}
