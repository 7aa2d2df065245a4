//! Neighbours of a range: who becomes a peer by dialling us, how many, and when nothing of them is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::wildcard_enum_match_arm)]

mod hand;

use std::time::Duration;

use bgp_proto::config::{AdminState, PeerConfig, RangeConfig, RemoteAsn, SpeakerConfig};
use bgp_proto::fsm::State;
use bgp_proto::output::Rejection;
use bgp_proto::policy::{ExportPolicy, ImportPolicy};
use bgp_proto::route::{Audience, OwnRoute};
use bgp_proto::{AfiSafi, Asn, ConnId, Input, PeerName, SessionEvent};
use hand::{Hand, announce, keepalive, open, restarted};

const SECOND: Duration = Duration::from_secs(1);

fn range(prefix: &str, limit: u16) -> RangeConfig {
    let remote = "10.1.0.0".parse().unwrap();
    let (import, export) = (ImportPolicy::accept_all(), ExportPolicy::default());
    let peer = PeerConfig::new(remote, RemoteAsn::Exactly(Asn(65002)), import, export);
    RangeConfig { prefix: prefix.parse().unwrap(), limit, peer }
}

/// A speaker with a range `rack`, 10.1.0.0/16, of two neighbours at a time.
fn hand_with(change: impl FnOnce(&mut SpeakerConfig)) -> Hand {
    let mut hand = Hand::new(|_| {});
    hand.configure_all(|config| {
        config.ranges.insert(PeerName::from("rack"), range("10.1.0.0/16", 2));
        change(config);
    });
    hand
}

fn names(hand: &Hand) -> Vec<String> {
    let peers = hand.speaker.peers().filter(|(_, _, range)| range.is_some());
    peers.map(|(name, _, _)| name.as_str().to_owned()).collect()
}

fn state(hand: &Hand, name: &str) -> Option<State> {
    hand.speaker.peer(&PeerName::from(name)).map(|peer| peer.state)
}

fn come(hand: &mut Hand, conn: u64, from: &str) {
    hand.accept_from(ConnId(conn), from);
    hand.bytes(ConnId(conn), &open(&[]));
    hand.bytes(ConnId(conn), &keepalive());
}

#[test]
fn a_neighbour_that_dials_becomes_a_peer_and_is_gone_with_its_session() {
    let mut hand = hand_with(|_| {});
    assert!(names(&hand).is_empty());
    come(&mut hand, 7, "10.1.2.3");
    assert_eq!(names(&hand), ["rack.10.1.2.3"]);
    assert_eq!(state(&hand, "rack.10.1.2.3"), Some(State::Established));
    hand.bytes(ConnId(7), &announce(4));
    assert_eq!(hand.kernel.len(), 1);
    hand.close(ConnId(7));
    assert!(names(&hand).is_empty() && hand.kernel.is_empty(), "{:?} {:?}", names(&hand), hand.kernel);
    // And it may come again.
    come(&mut hand, 8, "10.1.2.3");
    assert_eq!(state(&hand, "rack.10.1.2.3"), Some(State::Established));
    assert_eq!(hand.dials, 1, "nobody of the range was dialled, only the peer with an address");
}

#[test]
fn a_name_has_no_colon() {
    let mut hand = hand_with(|config| {
        config.ranges.insert(PeerName::from("six"), range("fd00::/64", 9));
    });
    let (local, remote) = ("[fd00::1]:179".parse().unwrap(), "[fd00::2:3]:4000".parse().unwrap());
    hand.input(Input::Accepted { conn: ConnId(7), local, remote });
    assert_eq!(names(&hand), ["six.fd00--2-3"]);
}

#[test]
fn there_are_no_more_than_the_limit_and_the_others_hear_why() {
    let mut hand = hand_with(|_| {});
    for (conn, from) in [(7, "10.1.0.1"), (8, "10.1.0.2"), (9, "10.1.0.3")] {
        come(&mut hand, conn, from);
    }
    assert_eq!(names(&hand), ["rack.10.1.0.1", "rack.10.1.0.2"]);
    assert_eq!(hand.rejections(), [Rejection::RangeFull]);
    assert_eq!(hand.closed_with(ConnId(9)), Some((6, 5)), "Cease/Connection Rejected");
    hand.close(ConnId(7));
    come(&mut hand, 10, "10.1.0.3");
    assert_eq!(names(&hand), ["rack.10.1.0.2", "rack.10.1.0.3"]);
    come(&mut hand, 11, "10.2.0.1");
    assert_eq!(hand.rejections(), [Rejection::RangeFull, Rejection::UnknownPeer]);
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    let mut hand = hand_with(|_| {});
    for n in 0..10_000_u64 {
        hand.accept_from(ConnId(100 + n), &format!("10.1.{}.{}", n / 250, n % 250));
    }
    assert_eq!(names(&hand).len(), 2);
    assert_eq!(hand.speaker.connections().count(), 2, "all others were closed");
    assert_eq!(hand.rejections().len(), 9_998);
    // Those that say nothing are not waited for longer than anybody (RFC 4271 §8.2.2), and make room.
    hand.run_for(241 * SECOND);
    assert!(hand.speaker.connections().all(|conn| conn < ConnId(100)), "the silent ones are closed");
    hand.run_for(61 * SECOND);
    assert!(names(&hand).is_empty());
}

#[test]
fn routes_of_a_neighbour_that_restarts_are_kept_for_its_time() {
    let mut hand = hand_with(|_| {});
    hand.accept_from(ConnId(7), "10.1.0.1");
    hand.bytes(ConnId(7), &open(&[restarted(true)]));
    hand.bytes(ConnId(7), &keepalive());
    hand.bytes(ConnId(7), &announce(4));
    hand.close(ConnId(7));
    assert_eq!((names(&hand).len(), hand.kernel.len()), (1, 1), "kept as stale");
    hand.run_for(119 * SECOND);
    assert_eq!((names(&hand).len(), hand.kernel.len()), (1, 1));
    hand.run_for(2 * SECOND);
    assert_eq!((names(&hand).len(), hand.kernel.len()), (0, 0), "it did not come back in time");
}

#[test]
fn who_broke_the_limit_of_prefixes_waits_like_any_peer() {
    let mut hand = hand_with(|config| {
        let rack = config.ranges.get_mut(&PeerName::from("rack")).unwrap();
        rack.peer.max_prefixes.ipv4 = 1;
        rack.peer.max_prefixes.restart_after = 60 * SECOND;
    });
    come(&mut hand, 7, "10.1.0.1");
    hand.bytes(ConnId(7), &announce(1));
    hand.bytes(ConnId(7), &announce(2));
    assert_eq!((state(&hand, "rack.10.1.0.1"), hand.kernel.len()), (Some(State::Idle), 0));
    hand.accept_from(ConnId(8), "10.1.0.1");
    assert_eq!(hand.rejections(), [Rejection::IdleHold]);
    hand.run_for(61 * SECOND);
    assert!(names(&hand).is_empty());
    come(&mut hand, 9, "10.1.0.1");
    assert_eq!(state(&hand, "rack.10.1.0.1"), Some(State::Established));
}

#[test]
fn the_narrowest_range_counts_and_a_peer_by_its_address_beats_all() {
    let mut hand = hand_with(|config| {
        config.ranges.insert(PeerName::from("few"), range("10.1.9.0/24", 9));
    });
    come(&mut hand, 7, "10.1.9.1");
    come(&mut hand, 8, "10.1.8.1");
    assert_eq!(names(&hand), ["few.10.1.9.1", "rack.10.1.8.1"]);
    // A person gives one of them a peer of its own: it is that one from then on.
    hand.configure_all(|config| {
        let own =
            PeerConfig { remote: "10.1.8.1".parse().unwrap(), passive: true, ..range("10.1.0.0/16", 1).peer };
        config.peers.insert(PeerName::from("own"), own);
    });
    assert_eq!(names(&hand), ["few.10.1.9.1"]);
    assert_eq!(hand.closed_with(ConnId(8)), Some((6, 3)), "Cease/Peer De-configured");
    come(&mut hand, 9, "10.1.8.1");
    assert_eq!(state(&hand, "own"), Some(State::Established));
}

#[test]
fn a_changed_range_reaches_its_neighbours_and_a_range_that_is_gone_takes_them_along() {
    let mut hand = hand_with(|_| {});
    come(&mut hand, 7, "10.1.0.1");
    hand.bytes(ConnId(7), &announce(1));
    // Hot: a policy. No reset.
    hand.configure_all(|config| {
        config.ranges.get_mut(&PeerName::from("rack")).unwrap().peer.import = ImportPolicy::default();
    });
    assert_eq!(state(&hand, "rack.10.1.0.1"), Some(State::Established));
    assert!(hand.kernel.is_empty(), "the new policy refuses its route");
    hand.configure_all(|config| config.ranges.clear());
    assert!(names(&hand).is_empty());
    assert_eq!(hand.closed_with(ConnId(7)), Some((6, 3)));
    hand.accept_from(ConnId(8), "10.1.0.1");
    assert_eq!(hand.rejections(), [Rejection::UnknownPeer]);
}

#[test]
fn a_range_that_is_shut_down_ends_its_sessions_and_takes_none() {
    let mut hand = hand_with(|_| {});
    come(&mut hand, 7, "10.1.0.1");
    hand.configure_all(|config| {
        let message = "moved".to_owned();
        config.ranges.get_mut(&PeerName::from("rack")).unwrap().peer.admin = AdminState::Shutdown { message };
    });
    assert_eq!(hand.closed_with(ConnId(7)), Some((6, 2)));
    assert!(names(&hand).is_empty());
    hand.accept_from(ConnId(8), "10.1.0.1");
    assert_eq!(hand.rejections(), [Rejection::AdminShutdown]);
}

#[test]
fn what_the_range_is_told_each_neighbour_is_told() {
    let mut hand = hand_with(|_| {});
    let only = |name: &str| Audience::Only([PeerName::from(name)].into());
    for (prefix, to) in [("10.244.1.0/26", "rack"), ("10.244.2.0/26", "tor")] {
        let routes = vec![OwnRoute { audience: only(to), ..OwnRoute::default() }];
        hand.input(Input::Originate { prefix: prefix.parse().unwrap(), routes });
    }
    come(&mut hand, 7, "10.1.0.1");
    let has = |sent: &[(_, Vec<u8>)], third| {
        sent.iter().any(|(_, b)| b.windows(5).any(|w| w == [26, 10, 244, third, 0]))
    };
    let sent = hand.sent(ConnId(7));
    assert!(has(&sent, 1) && !has(&sent, 2), "{sent:?}");
}

#[test]
fn after_a_restart_the_kernel_is_swept_when_neighbours_had_their_time() {
    let hand = Hand::with_kernel_routes(&[AfiSafi::Ipv4Unicast], |config| {
        config.admin = AdminState::Shutdown { message: String::new() }
    });
    assert_eq!(hand.fib_complete, 2, "nobody is waited for");
    let mut hand = Hand::with_ranges(&[AfiSafi::Ipv4Unicast], [("rack", range("10.1.0.0/16", 2))]);
    hand.run_for(60 * SECOND);
    assert_eq!(hand.fib_complete, 0, "nobody knows who will come");
    come(&mut hand, 7, "10.1.0.1");
    hand.bytes(ConnId(7), &announce(1));
    assert_eq!(hand.kernel.len(), 1, "what comes is selected at once");
    hand.run_for(61 * SECOND);
    assert_eq!(hand.fib_complete, 2);
}

#[test]
fn an_operators_reset_lets_the_neighbour_come_again() {
    let mut hand = hand_with(|_| {});
    come(&mut hand, 7, "10.1.0.1");
    let peer = PeerName::from("rack.10.1.0.1");
    hand.input(Input::Reset { peer, message: String::new() });
    assert_eq!(hand.closed_with(ConnId(7)), Some((6, 4)));
    assert!(names(&hand).is_empty());
    assert!(hand.events.iter().any(|event| matches!(event, SessionEvent::Error { .. })));
}
