//! IPv4 prefixes with IPv6 next hops (RFC 8950); the peer is played by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::wildcard_enum_match_arm)]

mod hand;

use bgp_proto::fsm::State;
use bgp_proto::wire::message::encode;
use bgp_proto::wire::{Capability, ExtendedNextHop, MessageType, Open};
use bgp_proto::{AfiSafi, Asn, ConnId};
use hand::Hand;

const NEXT_HOP: &str = "fd00::2";

fn both() -> Vec<Capability> {
    let mut capabilities: Vec<Capability> = AfiSafi::ALL.map(Capability::multiprotocol).into();
    capabilities.push(Capability::FourOctetAsn(Asn(65002)));
    capabilities
}

fn agreed() -> Vec<Capability> {
    let mut capabilities = both();
    capabilities.push(Capability::ExtendedNextHop(vec![ExtendedNextHop::IPV4_VIA_IPV6]));
    capabilities
}

/// A session where we ask for it, over IPv4, so that there would be an IPv4 next hop all the same.
fn session(capabilities: &[Capability]) -> Hand {
    let mut hand = Hand::new(|config| config.extended_next_hop = true);
    hand.originate("10.244.9.0/26");
    hand.establish_with(capabilities);
    hand
}

/// 10.244.n.0/24 in MP_REACH_NLRI, by way of fd00::2.
fn announce_via_ipv6(n: u8) -> Vec<u8> {
    let next_hop: std::net::Ipv6Addr = NEXT_HOP.parse().unwrap();
    let mut reach = vec![0, 1, 1, 16];
    reach.extend_from_slice(&next_hop.octets());
    reach.extend_from_slice(&[0, 24, 10, 244, n]);
    let mut list = vec![0x80, 14, u8::try_from(reach.len()).unwrap()];
    list.extend_from_slice(&reach);
    list.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea]);
    let mut out = Vec::new();
    encode(MessageType::Update, &mut out, |out| {
        out.extend_from_slice(&[0, 0, 0, u8::try_from(list.len()).unwrap()]);
        out.extend_from_slice(&list);
    });
    out
}

/// Withdraws 10.244.n.0/24 in MP_UNREACH_NLRI.
fn withdraw(n: u8) -> Vec<u8> {
    let mut out = Vec::new();
    encode(MessageType::Update, &mut out, |out| {
        out.extend_from_slice(&[0, 0, 0, 10, 0x80, 15, 7, 0, 1, 1, 24, 10, 244, n]);
    });
    out
}

fn has(body: &[u8], bytes: &[u8]) -> bool {
    body.windows(bytes.len()).any(|window| window == bytes)
}

/// What the speaker said of its own prefix: its whole UPDATE.
fn told(hand: &mut Hand) -> Vec<u8> {
    let sent = hand.sent(ConnId(1));
    let mut with = sent
        .into_iter()
        .filter(|(kind, body)| *kind == MessageType::Update && has(body, &[26, 10, 244, 9, 0]));
    with.next().expect("the prefix was told").1
}

#[test]
fn it_is_offered_where_it_is_asked_for() {
    for asked in [true, false] {
        let mut hand = Hand::new(|config| config.extended_next_hop = asked);
        hand.connect(ConnId(1));
        let (kind, body) = hand.sent(ConnId(1)).remove(0);
        assert_eq!(kind, MessageType::Open);
        let offered = agreed().pop().unwrap();
        assert_eq!(Open::decode(&body).unwrap().capabilities.contains(&offered), asked);
    }
}

#[test]
fn ipv4_prefixes_go_and_come_with_ipv6_next_hops() {
    let mut hand = session(&agreed());
    assert!(hand.status().negotiated.unwrap().capabilities.contains(&"ExtendedNextHop"));
    // RFC 8950 §3: AFI 1 in MP_REACH_NLRI, a next hop of 16 octets, no NEXT_HOP.
    let update = told(&mut hand);
    let own: std::net::Ipv6Addr = "fd00::1".parse().unwrap();
    assert!(has(&update, &[[0, 1, 1, 16].as_slice(), &own.octets()].concat()), "{update:?}");
    assert!(!has(&update, &[0x40, 3, 4]), "{update:?}");
    hand.bytes(ConnId(1), &announce_via_ipv6(4));
    assert_eq!((hand.received(), hand.kernel.len()), (1, 1));
    hand.bytes(ConnId(1), &withdraw(4));
    assert_eq!((hand.received(), hand.kernel.len(), hand.state()), (0, 0, State::Established));
}

#[test]
fn without_the_peers_word_nothing_changes() {
    let mut hand = session(&both());
    assert!(!hand.status().negotiated.unwrap().capabilities.contains(&"ExtendedNextHop"));
    let update = told(&mut hand);
    assert!(has(&update, &[0x40, 3, 4, 10, 0, 0, 1]) && !has(&update, &[0, 1, 1, 16]), "{update:?}");
    // And a next hop of 16 octets is an impossible one (RFC 7606 §7.11).
    hand.bytes(ConnId(1), &announce_via_ipv6(4));
    assert_eq!((hand.received(), hand.kernel.len(), hand.state()), (0, 0, State::Established));
}

#[test]
fn another_pair_of_families_is_no_agreement() {
    let mut capabilities = both();
    let other = ExtendedNextHop { afi: 1, safi: 2, next_hop_afi: 2 };
    capabilities.push(Capability::ExtendedNextHop(vec![other]));
    let hand = session(&capabilities);
    assert!(!hand.status().negotiated.unwrap().capabilities.contains(&"ExtendedNextHop"));
}

#[test]
fn it_is_said_in_an_open_so_that_a_change_resets_the_session() {
    let mut hand = session(&agreed());
    hand.configure(|config| config.extended_next_hop = false);
    assert_eq!(hand.closed_with(ConnId(1)), Some((6, 6)), "Cease/Other Configuration Change");
}

#[test]
fn a_refresh_tells_it_again() {
    let mut hand = session(&agreed());
    assert!(!told(&mut hand).is_empty());
    hand.bytes(ConnId(1), &hand::refresh(1, 0, 1));
    let update = told(&mut hand);
    assert!(has(&update, &[0, 1, 1, 16]), "{update:?}");
}
