//! Histories that once left a peer with a wrong idea of the table, as short as they get. The long ones are `tests/rib_model`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::Ipv4Addr;

use super::*;
use crate::types::{Asn, RouterId};

const PREFIX: &str = "10.0.0.0/24";
const PREFIX_ON_THE_WIRE: [u8; 4] = [24, 10, 0, 0];
/// RFC 4724 §2: an UPDATE without anything in it.
const END_OF_RIB: [u8; 4] = [0; 4];

fn facts(id: u8) -> PeerFacts {
    PeerFacts {
        families: [AfiSafi::Ipv4Unicast].into(),
        next_hop_ipv4: Some(Ipv4Addr::new(192, 0, 2, 254)),
        export: ExportPolicy::new(true),
        ..PeerFacts::new(
            Asn(65100 + u32::from(id)),
            Asn(65000),
            RouterId(Ipv4Addr::new(0, 0, 0, id)),
            IpAddr::from([192, 0, 2, id]),
        )
    }
}

/// A table in which these peers are up.
fn rib(peers: &[u8]) -> Rib {
    let mut config = RibConfig::new(Asn(65000), RouterId(Ipv4Addr::new(9, 9, 9, 9)), 1);
    config.unknown_next_hops = UnknownNextHops::Reachable;
    let mut rib = Rib::new(config);
    peers.iter().for_each(|id| rib.peer_up(PeerId(u16::from(*id)), facts(*id)));
    rib
}

/// The peer announces the prefix.
fn announce(rib: &mut Rib, id: u8) {
    let mut body = vec![0, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xFE, 0x4C + id];
    body.extend([0x40, 3, 4, 192, 0, 2, id]);
    body.extend(PREFIX_ON_THE_WIRE);
    let outcome = rib.update(PeerId(u16::from(id)), &body);
    assert_eq!((outcome.faults.len(), outcome.announced), (0, 1));
    while rib.drain() {}
}

/// At most so many bytes of what waits for the peer.
fn pull(rib: &mut Rib, id: u8, most: usize) -> Vec<u8> {
    let (id, mut stream) = (PeerId(u16::from(id)), Vec::new());
    while stream.len() < most
        && let Some(bytes) = rib.poll_transmit(id)
    {
        let some = bytes.len().min(most - stream.len());
        stream.extend_from_slice(&bytes[..some]);
        rib.transmitted(id, some);
    }
    stream
}

/// The bodies of the UPDATEs in a stream of whole ones.
fn bodies(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while !stream.is_empty() {
        let (message, rest) = stream.split_at(usize::from(u16::from_be_bytes([stream[16], stream[17]])));
        bodies.push(message[19..].to_vec());
        stream = rest;
    }
    bodies
}

fn withdraws(body: &[u8]) -> bool {
    body[..2] == [0, 4] && body[2..6] == PREFIX_ON_THE_WIRE
}

#[test]
fn a_peer_that_changed_groups_hears_of_a_change_before_its_walk() {
    let mut rib = rib(&[1, 2]);
    announce(&mut rib, 1);
    let told = bodies(&pull(&mut rib, 2, usize::MAX));
    assert!(told.iter().any(|body| body.ends_with(&PREFIX_ON_THE_WIRE)));
    // Into a group of its own, which has told nothing to anybody.
    rib.set_tags(PeerId(2), [Tag(7)].into());
    // Own and told to nobody: the learned route must go.
    rib.originate(&PREFIX.parse().unwrap(), Origination::default());
    while rib.drain() {}
    let told = bodies(&pull(&mut rib, 2, usize::MAX));
    assert_eq!(told.iter().filter(|body| withdraws(body)).count(), 1);
    rib.check_invariants().unwrap();
}

#[test]
fn a_peer_that_changed_groups_takes_back_what_its_own_route_beats() {
    let mut rib = rib(&[1, 2]);
    announce(&mut rib, 2);
    pull(&mut rib, 1, usize::MAX);
    rib.set_tags(PeerId(1), [Tag(7)].into());
    announce(&mut rib, 1);
    let told = bodies(&pull(&mut rib, 1, usize::MAX));
    assert!(told.iter().any(|body| withdraws(body)), "{told:?}");
    rib.check_invariants().unwrap();
}

#[test]
fn the_bit_of_a_route_stands_in_a_group_of_its_source_alone() {
    let mut rib = rib(&[1]);
    announce(&mut rib, 1);
    rib.peer_down(PeerId(1), &[AfiSafi::Ipv4Unicast].into());
    rib.peer_up(PeerId(1), facts(1));
    while rib.drain() {}
    assert_eq!(bodies(&pull(&mut rib, 1, usize::MAX)), [END_OF_RIB]);
    rib.check_invariants().unwrap();
    assert_eq!(rib.advertised(PeerId(1), AfiSafi::Ipv4Unicast), 0);
}

#[test]
fn an_end_of_rib_that_the_peer_has_begun_to_read_comes_once() {
    for read in 0..=23 {
        let mut rib = rib(&[1]);
        let mut stream = pull(&mut rib, 1, read);
        rib.set_tags(PeerId(1), [Tag(7)].into());
        stream.extend(pull(&mut rib, 1, 1));
        rib.set_tags(PeerId(1), [Tag(8)].into());
        assert_eq!(rib.initial_table_sent(PeerId(1), AfiSafi::Ipv4Unicast), stream.len() == 23, "{read}");
        stream.extend(pull(&mut rib, 1, usize::MAX));
        assert_eq!(bodies(&stream), [END_OF_RIB], "{read}");
        assert!(rib.initial_table_sent(PeerId(1), AfiSafi::Ipv4Unicast));
    }
}

#[test]
fn an_end_of_rib_that_a_slow_peer_has_begun_to_read_comes_once() {
    let mut rib = rib(&[1, 2]);
    let mut stream = pull(&mut rib, 1, 5);
    rib.set_backlog(1);
    announce(&mut rib, 2);
    let event = RibEvent::PeerFellBehind { peer: PeerId(1), prefixes: 1 };
    assert!(std::iter::from_fn(|| rib.poll_event()).any(|known| known == event));
    stream.extend(pull(&mut rib, 1, usize::MAX));
    let told = bodies(&stream);
    assert_eq!(told[0], END_OF_RIB);
    assert!(told[1..].iter().all(|body| body.ends_with(&PREFIX_ON_THE_WIRE)), "{told:?}");
}
