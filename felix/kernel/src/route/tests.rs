#![allow(clippy::cast_possible_truncation)]

use proptest::prelude::*;

use super::message::{self, KernelRoute};
use super::{METRIC_DEFAULT_V6, NextHop, Route, RouteKind};
use crate::wire;

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

proptest! {
    /// What we write, read as the kernel's listing, is what was wanted.
    #[test]
    fn a_message_reads_back_as_the_route_it_was_made_of(wanted in route()) {
        let wanted = wanted.normalised().unwrap();
        let mut bytes = Vec::new();
        message::new_route(&wanted, 77, 0).finish_into(1, &mut bytes);
        let received = wire::messages(&bytes).next().unwrap();
        let read = KernelRoute::parse(received.body).unwrap();
        prop_assert_eq!(read.protocol, 77);
        let read = read.to_route();
        prop_assert!(read.satisfies(&wanted));
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
