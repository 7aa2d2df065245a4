#![allow(clippy::cast_possible_truncation)]

use netlink_packet_core::Parseable;
use netlink_packet_route::route::RouteMessage;
use proptest::prelude::*;

use super::message::{self, KernelRoute};
use super::{METRIC_DEFAULT_V6, NextHop, Route, RouteKind};
use crate::{packet, wire};

fn address(v6: bool) -> impl Strategy<Value = std::net::IpAddr> {
    any::<u128>().prop_map(move |bits| {
        // 2000::/3 and 64.0.0.0/3: neither link-local nor unspecified.
        if v6 {
            std::net::Ipv6Addr::from((bits >> 3) | (1 << 125)).into()
        } else {
            std::net::Ipv4Addr::from(((bits as u32) >> 3) | (1 << 30)).into()
        }
    })
}

fn hop(v6: bool) -> impl Strategy<Value = NextHop> {
    let gateway = if v6 { address(true).boxed() } else { prop_oneof![address(false), address(true)].boxed() };
    (proptest::option::of(gateway), 1..9u32, 1..=256u16, any::<bool>()).prop_map(
        |(gateway, ifindex, weight, onlink)| NextHop {
            gateway,
            ifindex: Some(ifindex),
            weight,
            onlink: onlink && gateway.is_some(),
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    any::<bool>().prop_flat_map(|v6| {
        let kind = prop_oneof![
            proptest::collection::vec(hop(v6), 1..6).prop_map(|next_hops| RouteKind::Unicast { next_hops }),
            Just(RouteKind::Blackhole),
            (1..9u32).prop_map(|ifindex| RouteKind::Connected { ifindex }),
        ];
        let length = if v6 { 0..=128u8 } else { 0..=32u8 };
        (
            address(v6),
            length,
            1..2000u32,
            0..3000u32,
            kind,
            proptest::option::of(address(v6)),
            proptest::option::of(1280..9000u32),
        )
            .prop_map(|(address, length, table, metric, kind, source, mtu)| Route {
                destination: ipnet::IpNet::new(address, length).unwrap(),
                table,
                metric,
                kind,
                source,
                mtu,
                encap: None,
            })
    })
}

/// Whether what was read from the kernel is what was wanted.
fn satisfies(read: Route, wanted: Route) -> bool {
    let ((read_key, read), (key, way)) = (read.split(), wanted.split());
    read_key == key && read.satisfies(&way)
}

fn nla_kind() -> impl Strategy<Value = u16> {
    prop_oneof![0..80u16, any::<u16>()]
}

/// Bytes, a number, or attributes nested up to three deep.
fn nla_value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        any::<u32>().prop_map(|number| number.to_ne_bytes().to_vec()),
        Just(b"veth\0".to_vec()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        proptest::collection::vec((nla_kind(), inner), 0..4).prop_map(|attributes| {
            let mut bytes = Vec::new();
            attributes.iter().for_each(|(kind, value)| put(&mut bytes, *kind, value));
            bytes
        })
    })
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

proptest! {
    /// What we write, read as the kernel's listing, is what was wanted.
    #[test]
    fn a_message_reads_back_as_the_route_it_was_made_of(wanted in route()) {
        let wanted = wanted.normalised().unwrap();
        let mut bytes = Vec::new();
        packet::append(message::new_route(&wanted, None, 77, 0), 1, &mut bytes);
        let received = wire::messages(&bytes).next().unwrap();
        let read = KernelRoute::parse(received.body).unwrap();
        prop_assert_eq!(read.protocol, 77);
        let read = read.to_route();
        prop_assert!(satisfies(read.clone(), wanted.clone()));
        prop_assert_eq!(&read, &wanted);
        prop_assert_eq!(wanted.clone().normalised(), Ok(wanted), "normal form is its own normal form");
    }

    /// No byte string is a panic.
    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        KernelRoute::parse(&bytes);
        crate::link::Link::parse(&bytes);
        crate::addr::Address::parse(&bytes);
        crate::neigh::Neighbour::parse(&bytes);
        crate::netlink::Refusal::parse(0x300, &bytes);
        for message in wire::messages(&bytes) {
            wire::attributes(message.body).for_each(drop);
        }
    }

    /// Nor is any attribute of any kind: the crate decodes many that we do not ask for.
    #[test]
    fn any_attributes_are_read_without_harm(
        family in prop_oneof![Just(0u8), Just(2), Just(10), any::<u8>()],
        attributes in proptest::collection::vec((nla_kind(), nla_value()), 0..4),
    ) {
        for header in [8, 12, 16] {
            let mut bytes = vec![0; header];
            bytes[0] = family;
            attributes.iter().for_each(|(kind, value)| put(&mut bytes, *kind, value));
            KernelRoute::parse(&bytes);
            crate::link::Link::parse(&bytes);
            crate::addr::Address::parse(&bytes);
            crate::neigh::Neighbour::parse(&bytes);
        }
    }
}

#[test]
fn order_and_repetition_of_next_hops_make_no_difference() {
    let hop = |text: &str| NextHop::via(text.parse().unwrap());
    let destination = "10.0.0.77/24".parse().unwrap();
    let one =
        Route::unicast(destination, 0, [hop("10.9.1.2"), hop("10.9.2.2"), hop("10.9.1.2")]).normalised();
    let other = Route::unicast(destination.trunc(), 0, [hop("10.9.2.2"), hop("10.9.1.2")]).normalised();
    assert_eq!(one, other);
}

#[test]
fn metric_zero_is_the_kernels_default_in_ipv6_only() {
    assert_eq!(Route::blackhole("fd00::/64".parse().unwrap(), 0).key().metric, METRIC_DEFAULT_V6);
    assert_eq!(Route::blackhole("10.0.0.0/8".parse().unwrap(), 0).key().metric, 0);
}

/// A route of ours with one more attribute, as the kernel would list it.
fn body_with(route: Route, kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet::append(message::new_route(&route.normalised().unwrap(), None, 77, 0), 1, &mut bytes);
    let mut body = wire::messages(&bytes).next().unwrap().body.to_vec();
    put(&mut body, kind, value);
    body
}

#[test]
fn an_attribute_that_cannot_be_decoded_loses_no_route() {
    let wanted =
        Route::unicast("10.0.0.0/24".parse().unwrap(), 7, [NextHop::via("10.9.1.2".parse().unwrap())]);
    let body = body_with(wanted.clone(), libc::RTA_CACHEINFO, &[1]);
    assert!(RouteMessage::parse(&body).is_err(), "the crate's reader of whole messages gives up on it");
    assert!(satisfies(KernelRoute::parse(&body).unwrap().to_route(), wanted));
    let without_hops = Route::blackhole("10.0.0.0/24".parse().unwrap(), 7);
    let found = KernelRoute::parse(&body_with(without_hops, libc::RTA_MULTIPATH, &[1, 2, 3])).unwrap();
    assert!(found.extended && found.next_hops.is_empty());
}

#[test]
fn a_destination_that_cannot_be_decoded_is_no_default_route() {
    let default =
        Route::unicast("0.0.0.0/0".parse().unwrap(), 0, [NextHop::via("10.9.1.2".parse().unwrap())]);
    assert_eq!(KernelRoute::parse(&body_with(default, libc::RTA_DST, &[10, 0, 0])), None);
}
