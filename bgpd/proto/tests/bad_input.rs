//! What a peer does wrong, knowingly or not, and what the operator reads: one test for each way, named by it.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod hand;
mod malformed_table;

use std::time::Duration;

use bgp_proto::config::RemoteAsn;
use bgp_proto::fsm::State;
use bgp_proto::output::Reason;
use bgp_proto::{AfiSafi, Asn, ConnId, PeerName, SessionEvent};
use hand::{Hand, keepalive, open};
use malformed_table::{
    OWN_AS, Session, attributes4, capabilities_of, list, open as open_of, open_with, update,
};

const CONN: ConnId = ConnId(1);
const SECOND: Duration = Duration::from_secs(1);

/// What the operator reads of a peer whose OPEN is this: the status, which the event says as well.
fn refused(mut hand: Hand, open: &[u8], notification: (u8, u8)) -> String {
    hand.connect(CONN);
    hand.bytes(CONN, open);
    assert_eq!(hand.closed_with(CONN), Some(notification));
    assert_eq!(hand.state(), State::Idle, "damped");
    let (message, retry) = (hand.status().message, hand.status().retry_at.unwrap());
    assert!(retry > hand.now, "tried again later");
    let told = hand.events.iter().filter_map(|event| match event {
        SessionEvent::Error { error, .. } => Some(error.to_string()),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [message.as_str()]);
    message
}

#[test]
fn a_wrong_as() {
    let hand = Hand::new(|config| config.remote_asn = RemoteAsn::Exactly(Asn(65099)));
    assert_eq!(
        refused(hand, &open(&[]), (2, 2)),
        "OpenMessageError/BadPeerAS: the peer says AS 65002, expected AS 65099"
    );
    let hand = Hand::new(|config| config.remote_asn = RemoteAsn::Internal);
    assert_eq!(
        refused(hand, &open(&[]), (2, 2)),
        "OpenMessageError/BadPeerAS: the peer says AS 65002, expected our own AS 4200000001"
    );
    let hand = Hand::new(|config| config.remote_asn = RemoteAsn::External);
    let ours = open_of(23456, &capabilities_of(&[1], Some(OWN_AS)));
    assert_eq!(
        refused(hand, &ours, (2, 2)),
        "OpenMessageError/BadPeerAS: the peer says AS 4200000001, expected any AS but ours, 4200000001"
    );
}

/// RFC 6286 §2.1: within an AS; with another AS it is allowed.
#[test]
fn the_same_router_id() {
    let internal = |capabilities: &[u8]| {
        let length = u8::try_from(capabilities.len()).unwrap();
        open_with(4, 23456, 30, [10, 0, 0, 1], &[&[length + 2, 2, length], capabilities].concat())
    };
    let hand = Hand::new(|config| config.remote_asn = RemoteAsn::Internal);
    assert_eq!(
        refused(hand, &internal(&capabilities_of(&[1], Some(OWN_AS))), (2, 3)),
        "OpenMessageError/BadBGPIdentifier: the peer has our own BGP identifier 10.0.0.1"
    );
    let mut hand = Hand::new(|_| {});
    hand.connect(CONN);
    hand.bytes(CONN, &internal(&capabilities_of(&[1], Some(65002))));
    hand.bytes(CONN, &keepalive());
    assert_eq!(hand.state(), State::Established, "of another AS");
}

#[test]
fn a_capability_mismatch() {
    let hand = Hand::new(|config| config.families = [AfiSafi::Ipv6Unicast].into());
    let message = refused(hand, &open_of(65002, &capabilities_of(&[1], Some(65002))), (2, 7));
    let offers = [AfiSafi::Ipv6Unicast, AfiSafi::Ipv4Unicast].map(|family| family.as_str());
    assert_eq!(
        message,
        format!(
            "OpenMessageError/UnsupportedCapability: no family in common: we offer {}, the peer {}",
            offers[0], offers[1]
        )
    );
}

#[test]
fn version_3() {
    assert_eq!(
        refused(Hand::new(|_| {}), &open_with(3, 65002, 30, [10, 0, 0, 2], &[0]), (2, 1)),
        "OpenMessageError/UnsupportedVersionNumber: the peer speaks BGP version 3, expected 4"
    );
}

#[test]
fn hold_time_1() {
    assert_eq!(
        refused(Hand::new(|_| {}), &open_with(4, 65002, 1, [10, 0, 0, 2], &[0]), (2, 6)),
        "OpenMessageError/UnacceptableHoldTime: the peer proposes a hold time of 1 s, expected 0 or at least 3"
    );
}

#[test]
fn an_open_that_makes_no_sense() {
    assert_eq!(
        refused(Hand::new(|_| {}), &open_with(4, 65002, 30, [10, 0, 0, 2], &[9, 2, 2, 2, 0]), (2, 0)),
        "OpenMessageError: the lengths in the peer's OPEN do not add up"
    );
    assert_eq!(
        refused(Hand::new(|_| {}), &open_with(4, 65002, 30, [0; 4], &[0]), (2, 3)),
        "OpenMessageError/BadBGPIdentifier: the peer's BGP identifier is 0.0.0.0, expected any other"
    );
}

#[test]
fn another_protocol() {
    assert_eq!(
        refused(Hand::new(|_| {}), b"HTTP/1.1 400 Bad Request\r\n", (1, 1)),
        "MessageHeaderError/ConnectionNotSynchronized: what came is not BGP: the marker is wrong"
    );
}

#[test]
fn a_silent_peer() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.run_for(31 * SECOND);
    assert_eq!(hand.closed_with(CONN), Some((4, 0)));
    assert_eq!(hand.status().message, "HoldTimerExpired: nothing heard from the peer for 30 s");
    assert_eq!(hand.status().reason, Reason::HoldTimerExpired);
}

/// RFC 9687 §3: what is kept for it is bounded, however much there is to tell, and then it is given up.
#[test]
fn a_peer_that_never_reads() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.reads = false;
    let id = hand.speaker.id(&hand::peer()).unwrap();
    let mut most = 0;
    for round in 0u32..30 {
        for n in 0..2000 {
            hand.originate(&format!("10.{}.{}.{}/32", 100 + n / 256, n % 256, round));
        }
        most = most.max(hand.speaker.rib().backlog(id));
        hand.run_for(20 * SECOND);
        if hand.is_closed(CONN) {
            break;
        }
        hand.bytes(CONN, &keepalive());
    }
    assert!((100_000..9 << 20).contains(&most), "{most} octets kept for it");
    assert_eq!(hand.closed_with(CONN), Some((8, 0)), "though it sends keepalives");
    let (_, error) = hand.status().last_error.unwrap();
    assert_eq!(
        error.to_string(),
        "SendHoldTimerExpired: the peer has read nothing for the send hold time (RFC 9687)"
    );
    assert_eq!(hand.speaker.rib().backlog(id), 0, "nothing is kept for a peer that is gone");
}

#[test]
fn a_flapping_peer() {
    let mut hand = Hand::new(|_| {});
    let (mut attempts, began) = (0, hand.now);
    // It takes the connection, opens the session, and drops it: for ten minutes, whenever it may.
    while hand.now < began + 600 * SECOND {
        hand.run_until_connect();
        attempts += 1;
        let conn = ConnId(attempts);
        hand.connect(conn);
        hand.bytes(conn, &open(&[]));
        hand.bytes(conn, &keepalive());
        hand.close(conn);
    }
    assert!((10..=22).contains(&attempts), "{attempts} sessions in ten minutes: 1, 2, 4 … 60 s between them");
    let status = hand.status();
    assert_eq!(status.resets, attempts);
    assert_eq!(status.message, "the peer closed the connection");
    assert!(status.retry_at.is_some_and(|at| at > hand.now + 40 * SECOND), "and it is said when");
}

#[test]
fn a_peer_that_breaks_the_protocol_again_and_again() {
    let mut hand = Hand::new(|_| {});
    let (mut attempts, began) = (0, hand.now);
    while hand.now < began + 600 * SECOND {
        hand.run_until_connect();
        attempts += 1;
        hand.connect(ConnId(attempts));
        hand.bytes(ConnId(attempts), b"garbage");
    }
    assert!((10..=22).contains(&attempts), "{attempts} attempts in ten minutes");
    assert_eq!(hand.status().malformed.values().sum::<u64>(), attempts, "each is counted");
}

#[test]
fn two_peers_for_one_address() {
    let mut hand = Hand::new(|_| {});
    hand.configure_all(|config| {
        let twin = config.peers[&hand::peer()].clone();
        config.peers.insert(PeerName::from("tor-2"), twin);
    });
    let told: Vec<String> = hand
        .events
        .iter()
        .filter_map(|event| match event {
            SessionEvent::PeerRefused { peer, why } => Some(format!("{peer}: {why}")),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("tor-2: ") && told[0].contains("10.0.0.2"), "{told:?}");
    hand.establish();
    assert_eq!(hand.speaker.peer(&PeerName::from("tor-2")).unwrap().state, State::Idle);
}

/// 1,000,000 prefixes where 50,000 are allowed: RFC 4271 §6.7, RFC 4486 §4, with AFI, SAFI and the limit as data.
#[test]
fn a_million_prefixes() {
    let mut hand = Hand::new(|_| {});
    hand.connect(CONN);
    hand.bytes(CONN, &open_of(65002, &capabilities_of(&[1], Some(65002))));
    hand.bytes(CONN, &keepalive());
    let attributes = list(&attributes4(Session::External));
    let (mut most, mut sent) = (0, 0u32);
    let mut numbers = 0u32..1_000_000;
    while !numbers.is_empty() {
        let nlri: Vec<u8> = numbers
            .by_ref()
            .take(700)
            .flat_map(|n| [&[32][..], &(0x1400_0000 + n).to_be_bytes()].concat())
            .collect();
        // Also after the end: what is on the way still comes.
        hand.bytes(CONN, &update(&[], &attributes, &nlri));
        sent += 1;
        most = most.max(hand.speaker.rib().size(AfiSafi::Ipv4Unicast).1);
    }
    assert_eq!(sent, 1429);
    assert!(most <= 50_000 + 700, "{most} paths held");
    assert_eq!(
        hand.closed_with_data(CONN),
        Some((6, 1, vec![0, 1, 1, 0, 0, 0xC3, 0x50])),
        "Cease/Maximum Number of Prefixes Reached"
    );
    assert_eq!(hand.speaker.rib().size(AfiSafi::Ipv4Unicast), (0, 0), "nothing of it stays");
    let status = hand.status();
    assert_eq!((status.state, status.reason), (State::Idle, Reason::MaxPrefixesReached));
    let (_, text) = status.message.split_once(": received ").unwrap();
    assert_eq!(text, format!("50,400 of 50,000 {}", AfiSafi::Ipv4Unicast));
    assert!(hand.events.iter().any(|event| matches!(event, SessionEvent::PrefixLimitNear { .. })), "at 80 %");
    hand.run_for(899 * SECOND);
    assert_eq!(hand.state(), State::Idle, "restartAfter is 15 minutes");
    hand.run_for(2 * SECOND);
    assert_eq!(hand.state(), State::Connect);
}
