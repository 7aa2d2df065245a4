//! What capabilities change in a session that is up, with a peer played by hand: enhanced route refresh (RFC 7313), extended
//! messages (RFC 8654), graceful restart over NOTIFICATIONs (RFC 8538), several paths per prefix (RFC 7911).
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod hand;

use std::time::Duration;

use bgp_proto::ConnId;
use bgp_proto::config::{AddPath, PeerConfig};
use bgp_proto::fsm::State;
use bgp_proto::output::Reason;
use bgp_proto::status::Synchronized;
use bgp_proto::wire::message::encode;
use bgp_proto::wire::{AddPathFamily, Capability, GracefulRestartCapability, MessageType, RestartFamily};
use hand::{Hand, announce, end_of_rib, keepalive, notification, open, refresh, restarted};

const CONN: ConnId = ConnId(1);
const ENHANCED: &[Capability] = &[Capability::RouteRefresh, Capability::EnhancedRouteRefresh];

/// Types of messages, and the subtype of a ROUTE-REFRESH.
fn kinds(hand: &mut Hand) -> Vec<(MessageType, u8)> {
    let refresh = |kind, body: &[u8]| if kind == MessageType::RouteRefresh { body[2] } else { 0 };
    hand.sent(CONN).iter().map(|(kind, body)| (*kind, refresh(*kind, body))).collect()
}

// ---- RFC 7313

#[test]
fn rfc7313_4_1_a_refresh_has_a_beginning_and_an_end() {
    let mut hand = Hand::new(|_| {});
    hand.originate("10.1.0.0/24");
    hand.establish_with(ENHANCED);
    hand.sent(CONN);
    hand.bytes(CONN, &refresh(1, 0, 1));
    let (update, border) = (MessageType::Update, MessageType::RouteRefresh);
    assert_eq!(kinds(&mut hand), [(border, 1), (update, 0), (border, 2)]);
    // Without the capability there are no borders.
    let mut hand = Hand::new(|_| {});
    hand.originate("10.1.0.0/24");
    hand.establish_with(&[Capability::RouteRefresh]);
    hand.sent(CONN);
    hand.bytes(CONN, &refresh(1, 0, 1));
    assert_eq!(kinds(&mut hand), [(update, 0)]);
}

#[test]
fn rfc7313_4_2_what_is_not_told_again_goes_at_the_end() {
    let mut hand = Hand::new(|_| {});
    hand.establish_with(ENHANCED);
    hand.bytes(CONN, &announce(1));
    hand.bytes(CONN, &announce(2));
    hand.bytes(CONN, &refresh(1, 1, 1));
    hand.bytes(CONN, &announce(2));
    assert_eq!(hand.received(), 2, "in use until the end");
    hand.bytes(CONN, &refresh(1, 2, 1));
    assert_eq!(hand.received(), 1);
    // An end without a beginning sweeps nothing.
    hand.bytes(CONN, &refresh(1, 2, 1));
    assert_eq!((hand.received(), hand.state()), (1, State::Established));
}

#[test]
fn rfc7313_4_2_a_beginning_before_end_of_rib_is_ignored() {
    let mut hand = Hand::new(|_| {});
    hand.establish_with(&[Capability::RouteRefresh, Capability::EnhancedRouteRefresh, restarted(true)]);
    hand.bytes(CONN, &announce(1));
    hand.bytes(CONN, &refresh(1, 1, 1));
    hand.bytes(CONN, &refresh(1, 2, 1));
    assert_eq!(hand.received(), 1);
    hand.bytes(CONN, &end_of_rib());
    hand.bytes(CONN, &refresh(1, 1, 1));
    hand.bytes(CONN, &refresh(1, 2, 1));
    assert_eq!(hand.received(), 0);
}

/// A refresh that begins over and over must not hide from the limit what is told meanwhile.
#[test]
fn rfc7313_4_2_another_beginning_makes_no_room_above_the_limit() {
    let mut hand = Hand::new(|config| config.max_prefixes.ipv4 = 3);
    hand.establish_with(ENHANCED);
    for n in 0..2 {
        hand.bytes(CONN, &refresh(1, 1, 1));
        (0..3).for_each(|of| hand.bytes(CONN, &announce(3 * n + of)));
    }
    assert_eq!(hand.closed_with(CONN), Some((6, 1)));
    assert_eq!(hand.status().message, "Cease/MaximumNumberOfPrefixesReached: received 4 of 3 IPv4Unicast");
}

/// Twice the limit is the end, whatever of it is about to go.
#[test]
fn rfc7313_4_2_what_is_told_anew_may_stand_there_twice_and_no_more() {
    for (limit, is_up) in [(3, true), (2, false)] {
        let mut hand = Hand::new(|_| {});
        hand.establish_with(ENHANCED);
        (0..5).for_each(|n| hand.bytes(CONN, &announce(n)));
        hand.bytes(CONN, &refresh(1, 1, 1));
        hand.configure(|config| config.max_prefixes.ipv4 = limit);
        assert_eq!(hand.state() == State::Established, is_up, "5 prefixes, all stale, {limit} allowed");
    }
}

#[test]
fn rfc7313_4_2_a_refresh_without_end_ends_by_time() {
    let mut hand = Hand::new(|config| config.hold_time = Duration::ZERO);
    hand.establish_with(ENHANCED);
    hand.bytes(CONN, &announce(1));
    hand.bytes(CONN, &refresh(1, 1, 1));
    hand.run_for(Duration::from_secs(359));
    assert_eq!(hand.received(), 1);
    hand.run_for(Duration::from_secs(2));
    assert_eq!((hand.received(), hand.state()), (0, State::Established));
}

#[test]
fn rfc7313_5_a_border_of_another_length_ends_the_session() {
    let mut hand = Hand::new(|_| {});
    hand.establish_with(ENHANCED);
    let mut long = Vec::new();
    encode(MessageType::RouteRefresh, &mut long, |out| out.extend_from_slice(&[0, 1, 1, 1, 0]));
    hand.bytes(CONN, &long);
    assert_eq!(hand.closed_with_data(CONN), Some((7, 1, long)));
    // A request may be longer (RFC 5291), and an unknown subtype is ignored.
    let mut hand = Hand::new(|_| {});
    hand.establish_with(ENHANCED);
    let mut request = Vec::new();
    encode(MessageType::RouteRefresh, &mut request, |out| out.extend_from_slice(&[0, 1, 0, 1, 0]));
    hand.bytes(CONN, &request);
    hand.bytes(CONN, &refresh(1, 3, 1));
    assert_eq!(hand.state(), State::Established);
}

// ---- RFC 7911

/// The peer tells and takes several paths of IPv4 prefixes.
fn add_path() -> Capability {
    Capability::AddPath(vec![AddPathFamily { afi: 1, safi: 1, receive: true, send: true }])
}

/// Paths of 10.244.9.0/24 by way of the peer, under these identifiers; withdrawn or announced.
fn paths(ids: &[u32], announced: bool) -> Vec<u8> {
    let nlri: Vec<u8> =
        ids.iter().flat_map(|id| [&id.to_be_bytes()[..], &[24, 10, 244, 9]].concat()).collect();
    let mut out = Vec::new();
    encode(MessageType::Update, &mut out, |out| {
        if announced {
            out.extend_from_slice(&[0, 0, 0, 18]);
            out.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 0, 2]);
            out.extend_from_slice(&nlri);
        } else {
            out.extend_from_slice(&u16::try_from(nlri.len()).unwrap().to_be_bytes());
            out.extend_from_slice(&nlri);
            out.extend_from_slice(&[0, 0]);
        }
    });
    out
}

#[test]
fn rfc7911_4_identifiers_are_read_and_sent_where_both_sides_said_so() {
    let both = |config: &mut PeerConfig| config.add_path = AddPath { receive: true, send: 2 };
    let mut hand = Hand::new(both);
    hand.originate("10.1.0.0/24");
    hand.establish_with(&[add_path()]);
    assert!(hand.status().negotiated.unwrap().capabilities.contains(&"AddPath"));
    let told = hand.sent(CONN);
    assert!(told.iter().any(|(_, body)| body.ends_with(&[0, 0, 0, 1, 24, 10, 1, 0])), "{told:?}");
    hand.bytes(CONN, &paths(&[1, 2], true));
    assert_eq!(hand.received(), 2);
    hand.bytes(CONN, &paths(&[2, 3], false));
    assert_eq!(hand.received(), 1);
    // The peer says nothing of it: everything is as without.
    let mut hand = Hand::new(both);
    hand.originate("10.1.0.0/24");
    hand.establish_with(&[]);
    let told = hand.sent(CONN);
    assert!(
        told.iter()
            .any(|(_, body)| body.ends_with(&[0, 0, 2, 24, 10, 1, 0]) || body.ends_with(&[24, 10, 1, 0]))
    );
    assert!(!told.iter().any(|(_, body)| body.ends_with(&[0, 0, 0, 1, 24, 10, 1, 0])), "{told:?}");
    hand.bytes(CONN, &announce(1));
    assert_eq!(hand.received(), 1);
}

/// Each path counts: what bounds memory must not be passed by one prefix.
#[test]
fn rfc7911_8_each_path_counts_for_the_limit() {
    let mut hand = Hand::new(|config| {
        config.add_path.receive = true;
        config.max_prefixes.ipv4 = 2;
    });
    hand.establish_with(&[add_path()]);
    hand.bytes(CONN, &paths(&[1, 2], true));
    assert_eq!(hand.state(), State::Established);
    hand.bytes(CONN, &paths(&[3], true));
    assert_eq!(hand.closed_with(CONN), Some((6, 1)));
}

/// How many paths are told is ours to say; whether identifiers are, an OPEN said.
#[test]
fn rfc7911_4_more_paths_need_no_new_session() {
    let mut hand = Hand::new(|config| config.add_path.send = 1);
    hand.establish_with(&[add_path()]);
    hand.configure(|config| config.add_path.send = 4);
    assert_eq!(hand.state(), State::Established);
    hand.configure(|config| config.add_path.receive = true);
    assert_eq!(hand.closed_with(CONN), Some((6, 6)));
    assert_eq!(
        hand.status().message,
        "Cease/OtherConfigurationChange: the configuration of the session changed"
    );
}

/// RFC 7606 §5.3: an UPDATE without the identifiers that were agreed on cannot be read.
#[test]
fn rfc7911_5_an_update_without_identifiers_ends_the_session() {
    let mut hand = Hand::new(|config| config.add_path.receive = true);
    hand.establish_with(&[add_path()]);
    hand.bytes(CONN, &announce(1));
    assert_eq!(hand.closed_with(CONN), Some((3, 10)));
}

// ---- RFC 8654

/// 10.244.9.0/24 with a large unknown attribute: more than 4096 octets in all.
fn long_update(length: u16) -> Vec<u8> {
    let mut out = Vec::new();
    encode(MessageType::Update, &mut out, |out| {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(18 + 4 + length).to_be_bytes());
        out.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 0, 2]);
        out.extend_from_slice(&[0xd0, 200]);
        out.extend_from_slice(&length.to_be_bytes());
        out.resize(out.len() + usize::from(length), 7);
        out.extend_from_slice(&[24, 10, 244, 9]);
    });
    out
}

#[test]
fn rfc8654_4_extended_messages_are_taken_whatever_the_peer_says_of_itself() {
    for capabilities in [&[][..], &[Capability::ExtendedMessage]] {
        let mut hand = Hand::new(|_| {});
        hand.establish_with(capabilities);
        let long = long_update(60_000);
        for piece in long.chunks(1000) {
            hand.bytes(CONN, piece);
        }
        assert_eq!((hand.received(), hand.state()), (1, State::Established));
    }
}

#[test]
fn rfc8654_4_an_open_stays_short() {
    let mut hand = Hand::new(|_| {});
    hand.connect(CONN);
    let mut long = Vec::new();
    encode(MessageType::Open, &mut long, |out| out.resize(5000, 0));
    hand.bytes(CONN, &long);
    assert_eq!(hand.closed_with(CONN), Some((1, 2)));
}

// ---- RFC 8538

fn survivor(notification: bool) -> Capability {
    Capability::GracefulRestart(GracefulRestartCapability {
        notification,
        restart_time: 120,
        families: vec![RestartFamily { afi: 1, safi: 1, forwarding: true }],
        ..GracefulRestartCapability::default()
    })
}

/// A session with one route, whose peer says the N bit or not.
fn with_route(notification: bool) -> Hand {
    let mut hand = Hand::new(|config| config.graceful_restart.notification = true);
    hand.connect(CONN);
    hand.bytes(CONN, &open(&[survivor(notification)]));
    hand.bytes(CONN, &keepalive());
    hand.bytes(CONN, &announce(1));
    hand.bytes(CONN, &end_of_rib());
    assert_eq!(hand.received(), 1);
    hand
}

#[test]
fn rfc8538_a_notification_is_survived_where_both_said_so() {
    for (agreed, kept) in [(true, 1), (false, 0)] {
        let mut hand = with_route(agreed);
        hand.bytes(CONN, &notification(6, 6, &[]));
        assert_eq!((hand.received(), hand.status().reason), (kept, Reason::NotificationReceived));
        assert_eq!(hand.status().synchronized == Synchronized::Stale, agreed);
    }
    // Ours too: here the marker is wrong.
    let mut hand = with_route(true);
    hand.bytes(CONN, &[0; 19]);
    assert_eq!((hand.closed_with(CONN), hand.received()), (Some((1, 1)), 1));
}

#[test]
fn rfc8538_3_a_hard_reset_keeps_nothing_and_says_what_it_carries() {
    let mut hand = with_route(true);
    hand.bytes(CONN, &notification(6, 9, &[6, 2, 3, b'b', b'y', b'e']));
    assert_eq!((hand.received(), hand.status().synchronized), (0, Synchronized::NotEstablished));
    let (_, error) = hand.status().last_error.unwrap();
    assert_eq!(error.to_string(), "Cease/AdministrativeShutdown: bye");
    // One without content is one all the same.
    let mut hand = with_route(true);
    hand.bytes(CONN, &notification(6, 9, &[]));
    assert_eq!(hand.received(), 0);
}

#[test]
fn rfc8538_3_our_own_word_for_good_is_a_hard_reset() {
    let mut hand = with_route(true);
    hand.reset("bye");
    assert_eq!(hand.closed_with_data(CONN), Some((6, 9, vec![6, 4, 3, b'b', b'y', b'e'])));
    assert_eq!(hand.received(), 0);
    // Where it was not agreed it is what it always was.
    let mut hand = with_route(false);
    hand.reset("bye");
    assert_eq!(hand.closed_with_data(CONN), Some((6, 4, vec![3, b'b', b'y', b'e'])));
    // A change of configuration is survived.
    let mut hand = with_route(true);
    hand.configure(|config| config.hold_time = Duration::from_secs(9));
    assert_eq!((hand.closed_with(CONN), hand.received()), (Some((6, 6)), 1));
}

#[test]
fn rfc8538_4_the_hold_timer_is_survived_where_both_said_so() {
    for (agreed, kept) in [(true, 1), (false, 0)] {
        let mut hand = with_route(agreed);
        hand.run_for(Duration::from_secs(31));
        assert_eq!((hand.closed_with(CONN), hand.received()), (Some((4, 0)), kept));
        hand.run_for(Duration::from_secs(120));
        assert_eq!(hand.received(), 0, "the peer's restart time is over");
    }
}

#[test]
fn rfc8538_is_agreed_by_both_or_not_at_all() {
    let mut hand = Hand::new(|_| {});
    hand.establish_with(&[survivor(true)]);
    hand.bytes(CONN, &announce(1));
    hand.bytes(CONN, &notification(6, 6, &[]));
    assert_eq!(hand.received(), 0);
}
