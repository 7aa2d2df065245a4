use std::net::IpAddr;

use crate::addr::Address;
use crate::link::Link;
use crate::route::{KernelNextHop, KernelRoute, MAIN_TABLE, RouteType};

use super::{Facts, Resolved};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: u32, carrier: bool) -> Link {
    Link {
        index,
        name: format!("eth{index}"),
        up: true,
        carrier,
        loopback: false,
        mtu: 1500,
        mac: None,
        kind: None,
        master: None,
        lower: None,
    }
}

fn address(ifindex: u32, text: &str) -> Address {
    Address { ifindex, address: text.parse().unwrap(), link_scope: text.starts_with("fe80"), usable: true }
}

fn route(destination: &str, metric: u32, hops: &[(Option<&str>, u32)]) -> KernelRoute {
    let hop = |&(gateway, ifindex): &(Option<&str>, u32)| KernelNextHop {
        gateway: gateway.map(ip),
        ifindex,
        weight: 1,
        onlink: false,
        dead: false,
    };
    KernelRoute {
        destination: destination.parse().unwrap(),
        table: MAIN_TABLE,
        metric,
        protocol: 2,
        route_type: RouteType::Unicast,
        next_hops: hops.iter().map(hop).collect(),
        source: None,
        mtu: None,
        extended: false,
        object: None,
    }
}

/// eth1 10.1.0.1/24 and fe80::11, eth2 10.2.0.1/24 and fd02::1/64, default by eth2.
fn facts(routes: Vec<KernelRoute>) -> Facts {
    let mut facts = Facts::default();
    [link(1, true), link(2, true)].into_iter().for_each(|link| facts.set_link(link));
    for (index, text) in [(1, "10.1.0.1/24"), (1, "fe80::11/64"), (2, "10.2.0.1/24"), (2, "fd02::1/64")] {
        facts.set_address(address(index, text));
    }
    let mut all = vec![
        route("10.1.0.0/24", 0, &[(None, 1)]),
        route("10.2.0.0/24", 0, &[(None, 2)]),
        route("fd02::/64", 256, &[(None, 2)]),
        route("0.0.0.0/0", 0, &[(Some("10.2.0.2"), 2)]),
    ];
    all.extend(routes);
    facts.set_routes(all);
    facts
}

fn resolved(ifindex: u32, gateway: Option<&str>, source: &str, through: &str) -> Option<Resolved> {
    Some(Resolved {
        ifindex,
        gateway: gateway.map(ip),
        source: Some(ip(source)),
        through: through.parse().unwrap(),
    })
}

#[test]
fn the_longest_prefix_wins_then_the_lowest_metric() {
    let facts = facts(vec![
        route("192.0.2.0/24", 20, &[(Some("10.1.0.9"), 1)]),
        route("192.0.2.0/24", 10, &[(Some("10.2.0.9"), 2)]),
        route("192.0.0.0/16", 0, &[(Some("10.1.0.8"), 1)]),
    ]);
    assert_eq!(facts.resolve(ip("10.1.0.7"), None), resolved(1, None, "10.1.0.1", "10.1.0.0/24"));
    assert_eq!(
        facts.resolve(ip("192.0.2.1"), None),
        resolved(2, Some("10.2.0.9"), "10.2.0.1", "192.0.2.0/24")
    );
    assert_eq!(
        facts.resolve(ip("192.0.3.1"), None),
        resolved(1, Some("10.1.0.8"), "10.1.0.1", "192.0.0.0/16")
    );
    assert_eq!(facts.resolve(ip("8.8.8.8"), None), resolved(2, Some("10.2.0.2"), "10.2.0.1", "0.0.0.0/0"));
    assert_eq!(facts.resolve(ip("fd02::2"), None), resolved(2, None, "fd02::1", "fd02::/64"));
    assert_eq!(facts.resolve(ip("fd03::2"), None), None, "no IPv6 default");
}

#[test]
fn a_down_link_hides_its_subnet_and_does_not_fall_back_to_the_default() {
    let mut facts = facts(Vec::new());
    facts.set_link(link(1, false));
    assert_eq!(facts.resolve(ip("10.1.0.7"), None), None);
    // Set down by the administrator: the kernel takes the connected route away, the address stays.
    facts.set_link(Link { up: false, ..link(1, false) });
    facts.set_routes([route("0.0.0.0/0", 0, &[(Some("10.2.0.2"), 2)])]);
    assert_eq!(facts.resolve(ip("10.1.0.7"), None), None);
    // The same subnet on a link that is up: reachable by that one.
    facts.set_address(address(2, "10.1.0.2/24"));
    facts.set_routes([route("10.1.0.0/24", 0, &[(None, 2)])]);
    assert_eq!(facts.resolve(ip("10.1.0.7"), None), resolved(2, None, "10.1.0.2", "10.1.0.0/24"));
    facts.remove_link(1);
    assert!(!facts.is_local(ip("10.1.0.1")), "addresses go with their link");
}

#[test]
fn of_several_next_hops_a_live_one_is_taken() {
    let both = [(Some("10.1.0.9"), 1), (Some("10.2.0.9"), 2)];
    let mut facts = facts(vec![route("192.0.2.0/24", 0, &both)]);
    assert_eq!(facts.resolve(ip("192.0.2.1"), None).unwrap().ifindex, 1);
    assert_eq!(facts.resolve(ip("192.0.2.1"), Some(2)).unwrap().ifindex, 2);
    facts.set_link(link(1, false));
    assert_eq!(facts.resolve(ip("192.0.2.1"), None).unwrap().ifindex, 2);
    assert_eq!(facts.resolve(ip("192.0.2.1"), Some(1)), None);
}

#[test]
fn own_and_refused_addresses_are_no_next_hops() {
    let mut blackhole = route("198.51.100.0/24", 0, &[]);
    blackhole.route_type = RouteType::Blackhole;
    let facts = facts(vec![blackhole]);
    assert_eq!(facts.resolve(ip("10.1.0.1"), None), None);
    assert_eq!(facts.resolve(ip("198.51.100.1"), None), None);
}

#[test]
fn a_link_local_next_hop_needs_its_interface_and_a_link_local_source() {
    let mut facts = facts(Vec::new());
    assert_eq!(facts.resolve(ip("fe80::2"), None), None);
    let found = facts.resolve(ip("fe80::2"), Some(1)).unwrap();
    assert_eq!((found.ifindex, found.source, found.is_connected()), (1, Some(ip("fe80::11")), true));
    facts.set_link(link(1, false));
    assert_eq!(facts.resolve(ip("fe80::2"), Some(1)), None);
}
