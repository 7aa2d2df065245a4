//! One speaker and a peer that we play by hand, byte by byte: what each RFC asks for, one test each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod hand;

use std::time::Duration;

use bgp_proto::config::{AdminState, GracefulRestartMode, MaxPrefixesAction, RemoteAsn};
use bgp_proto::fsm::State;
use bgp_proto::output::{ErrorFrom, Reason, Rejection};
use bgp_proto::status::Synchronized;
use bgp_proto::wire::{Capability, GracefulRestartCapability, MessageType, RestartFamily};
use bgp_proto::{AfiSafi, Asn, ConnId, Input, SessionEvent, TransportErrorKind};
use hand::{Hand, announce, end_of_rib, keepalive, notification, open, raw, refresh, restarted};

const SECOND: Duration = Duration::from_secs(1);

// ---- RFC 4271 §8: how a session comes up

#[test]
fn rfc4271_8_2_2_idle_dials_on_start() {
    let hand = Hand::new(|_| {});
    assert_eq!(hand.state(), State::Connect);
    assert_eq!(hand.dials, 1);
}

#[test]
fn rfc4271_8_1_1_a_passive_peer_never_dials() {
    let mut hand = Hand::new(|config| config.passive = true);
    hand.run_for(600 * SECOND);
    assert_eq!((hand.state(), hand.dials), (State::Active, 0));
    hand.accept(ConnId(1));
    hand.establish_on(ConnId(1));
    assert_eq!(hand.state(), State::Established);
}

#[test]
fn rfc4271_8_2_2_the_states_of_a_session_in_order() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    let states: Vec<State> = hand.transitions().into_iter().map(|(_, to, _)| to).collect();
    assert_eq!(states, [State::Connect, State::OpenSent, State::OpenConfirm, State::Established]);
    assert_eq!(hand.status().reason, Reason::Established);
}

#[test]
fn rfc4271_4_2_our_open_is_the_first_message() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    let sent = hand.sent(ConnId(1));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, MessageType::Open);
    assert_eq!(
        sent[0].1[..9],
        [4, 0x5b, 0xa0, 0, 30, 10, 0, 0, 1],
        "version, AS_TRANS, hold time, identifier"
    );
}

#[test]
fn rfc4271_8_2_2_an_acceptable_open_is_answered_by_a_keepalive() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[]));
    assert_eq!(hand.state(), State::OpenConfirm);
    assert_eq!(hand.sent(ConnId(1)).last().unwrap().0, MessageType::Keepalive);
}

#[test]
fn rfc4271_8_2_2_a_refused_connection_is_tried_again() {
    let mut hand = Hand::new(|_| {});
    for attempt in 1..5 {
        assert_eq!(hand.dials, attempt);
        hand.dial_fails(TransportErrorKind::Refused);
        assert_eq!((hand.state(), hand.status().reason), (State::Active, Reason::ConnectionRefused));
        hand.run_for(3749 * SECOND / 1000);
        assert_eq!(hand.dials, attempt, "75 % of 5 s have not passed");
        hand.run_for(1251 * SECOND / 1000);
        assert_eq!(hand.state(), State::Connect);
    }
}

#[test]
fn rfc4271_8_2_2_an_attempt_without_answer_is_replaced() {
    let mut hand = Hand::new(|_| {});
    hand.run_for(60 * SECOND);
    assert!((12..=17).contains(&hand.dials), "{} dials in a minute", hand.dials);
    assert_eq!(hand.state(), State::Connect);
}

#[test]
fn a_peer_is_heard_while_we_wait_for_the_next_attempt() {
    let mut hand = Hand::new(|_| {});
    hand.dial_fails(TransportErrorKind::TimedOut);
    hand.accept(ConnId(1));
    hand.establish_on(ConnId(1));
    assert_eq!(hand.state(), State::Established);
}

#[test]
fn transport_errors_have_their_reasons() {
    for (kind, reason) in [
        (TransportErrorKind::Refused, Reason::ConnectionRefused),
        (TransportErrorKind::TimedOut, Reason::ConnectionTimedOut),
        (TransportErrorKind::NoRoute, Reason::NoRoute),
        (TransportErrorKind::InterfaceDown, Reason::InterfaceDown),
        (TransportErrorKind::Other, Reason::Connecting),
    ] {
        let mut hand = Hand::new(|_| {});
        hand.dial_fails(kind);
        let status = hand.status();
        assert_eq!(status.reason, reason);
        assert_eq!(status.last_error.unwrap().1.from, ErrorFrom::Transport);
    }
}

// ---- RFC 4271 §4.4, §6.5, §10: timers

#[test]
fn rfc4271_10_keepalives_come_at_a_third_of_the_hold_time_jittered() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.sent(ConnId(1));
    let mut last = hand.now;
    for _ in 0..50 {
        hand.run_to_next_timer();
        let sent = hand.sent(ConnId(1));
        assert!(sent.iter().all(|(kind, _)| *kind == MessageType::Keepalive));
        if !sent.is_empty() {
            let gap = hand.now - last;
            assert!(gap >= Duration::from_millis(7500) && gap <= 10 * SECOND, "{gap:?}");
            last = hand.now;
        }
        hand.bytes(ConnId(1), &keepalive());
    }
    assert_eq!(hand.state(), State::Established);
}

#[test]
fn rfc4271_6_5_the_hold_timer_ends_a_silent_session() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.run_for(29 * SECOND);
    assert_eq!(hand.state(), State::Established);
    hand.run_for(SECOND);
    assert_eq!(hand.closed_with(ConnId(1)), Some((4, 0)));
    assert_eq!(hand.status().last_error.unwrap().1.reason, Reason::HoldTimerExpired);
}

#[test]
fn rfc4271_4_4_updates_hold_a_session_like_keepalives() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    for n in 0..10 {
        hand.run_for(29 * SECOND);
        hand.bytes(ConnId(1), &announce(n));
    }
    assert_eq!(hand.state(), State::Established);
}

#[test]
fn rfc4271_4_2_a_hold_time_of_zero_runs_no_timers() {
    let mut hand = Hand::new(|config| config.hold_time = Duration::ZERO);
    hand.establish();
    hand.sent(ConnId(1));
    hand.run_for(1_000_000 * SECOND);
    assert_eq!(hand.state(), State::Established);
    assert!(hand.sent(ConnId(1)).is_empty());
}

#[test]
fn rfc4271_8_2_2_an_open_is_awaited_for_four_minutes() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.run_for(239 * SECOND);
    assert_eq!(hand.state(), State::OpenSent);
    hand.run_for(SECOND);
    assert_eq!(hand.closed_with(ConnId(1)), Some((4, 0)));
}

#[test]
fn rfc9687_a_peer_that_never_reads_is_given_up() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.reads = false;
    for _ in 0..30 {
        hand.run_for(20 * SECOND);
        hand.bytes(ConnId(1), &keepalive());
    }
    assert_eq!(hand.closed_with(ConnId(1)), Some((8, 0)), "though it sends keepalives");
}

// ---- RFC 4271 §6: errors

#[test]
fn rfc4271_6_1_garbage_is_not_synchronized() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(hand.closed_with(ConnId(1)), Some((1, 1)));
}

#[test]
fn rfc4271_6_1_header_errors_end_an_established_session() {
    for (bytes, expected) in [
        (raw(&[0, 18, 4]), (1, 2)),
        (raw(&[0x10, 1, 2]), (1, 2)),
        (raw(&[0, 19, 6]), (1, 3)),
        (raw(&[0, 20, 4, 0]), (1, 2)),
    ] {
        let mut hand = Hand::new(|_| {});
        hand.establish();
        hand.bytes(ConnId(1), &bytes);
        assert_eq!(hand.closed_with(ConnId(1)), Some(expected));
        assert_eq!(hand.status().reason, Reason::NotificationSent);
    }
}

#[test]
fn rfc4271_6_2_open_errors_are_told_by_their_subcode() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(Change, (u8, u8)); 5] = [
        (|open| open[19] = 3, (2, 1)),
        (|open| open[20..22].copy_from_slice(&[0xfd, 0xeb]), (2, 2)),
        (|open| open[24..28].fill(0), (2, 3)),
        (|open| open[22..24].copy_from_slice(&[0, 2]), (2, 6)),
        (
            |open| {
                open.splice(16..29, [0, 32, 1, 4, 0xfd, 0xea, 0, 9, 10, 0, 0, 2, 3, 9, 1, 0]).for_each(drop)
            },
            (2, 4),
        ),
    ];
    for (change, expected) in cases {
        let mut hand = Hand::new(|_| {});
        hand.connect(ConnId(1));
        let mut bytes = open(&[]);
        change(&mut bytes);
        hand.bytes(ConnId(1), &bytes);
        assert_eq!(hand.closed_with(ConnId(1)), Some(expected));
        assert_eq!(hand.state(), State::Idle, "refused for a while");
    }
}

#[test]
fn a_wrong_as_is_named_to_the_operator() {
    let mut hand = Hand::new(|config| config.remote_asn = RemoteAsn::Exactly(Asn(65099)));
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[]));
    let status = hand.status();
    assert_eq!(status.reason, Reason::BadPeerAS);
    assert_eq!(status.message, "OpenMessageError/BadPeerAS: the peer says AS 65002, expected AS 65099");
}

#[test]
fn the_peers_complaint_about_our_as_is_a_bad_peer_as_too() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &notification(2, 2, &[]));
    assert_eq!(hand.status().reason, Reason::BadPeerAS);
    assert_eq!(hand.status().last_error.unwrap().1.from, ErrorFrom::Remote);
}

#[test]
fn rfc6608_unexpected_messages_name_the_state() {
    for (state, bytes, subcode) in
        [(1, keepalive(), 1), (1, announce(1), 1), (2, announce(1), 2), (2, open(&[]), 2), (3, open(&[]), 3)]
    {
        let mut hand = Hand::new(|_| {});
        hand.connect(ConnId(1));
        if state > 1 {
            hand.bytes(ConnId(1), &open(&[]));
        }
        if state > 2 {
            hand.bytes(ConnId(1), &keepalive());
        }
        hand.bytes(ConnId(1), &bytes);
        assert_eq!(hand.closed_with(ConnId(1)), Some((5, subcode)));
    }
}

#[test]
fn rfc4271_6_4_a_notification_is_never_answered() {
    for established in [false, true] {
        let mut hand = Hand::new(|_| {});
        hand.connect(ConnId(1));
        if established {
            hand.establish_on(ConnId(1));
        }
        hand.bytes(ConnId(1), &notification(6, 4, &[]));
        assert_eq!(hand.closed_with(ConnId(1)), None);
        assert!(hand.is_closed(ConnId(1)));
    }
}

#[test]
fn rfc9003_the_peers_text_reaches_the_operator() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.bytes(ConnId(1), &notification(6, 2, b"\x0bToR upgrade"));
    let (_, error) = hand.status().last_error.unwrap();
    assert_eq!(error.to_string(), "Cease/AdministrativeShutdown: ToR upgrade");
    assert_eq!(hand.status().reason, Reason::NotificationReceived);
    assert_eq!(hand.state(), State::Active, "welcome when it is back");
}

#[test]
fn rfc7606_a_malformed_attribute_withdraws_and_the_session_lives() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.bytes(ConnId(1), &announce(1));
    assert_eq!(hand.received(), 1);
    let mut bad = announce(1);
    let origin = bad.windows(4).position(|w| w == [0x40, 1, 1, 0]).unwrap();
    bad[origin + 3] = 9;
    hand.bytes(ConnId(1), &bad);
    assert_eq!((hand.state(), hand.received()), (State::Established, 0));
    assert_eq!(hand.status().messages.malformed_updates, 1);
    assert!(hand.events.iter().any(|event| matches!(event, SessionEvent::Malformed { .. })));
}

#[test]
fn rfc7606_what_cannot_be_parsed_ends_the_session() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.bytes(ConnId(1), &raw(&[0, 23, 2, 0, 9, 0, 0]));
    assert_eq!(hand.closed_with(ConnId(1)), Some((3, 1)));
}

// ---- damping

#[test]
fn a_peer_that_misbehaves_waits_longer_each_time() {
    let mut hand = Hand::new(|_| {});
    let mut waits = Vec::new();
    for conn in 1..=9 {
        hand.connect(ConnId(conn));
        hand.bytes(ConnId(conn), b"garbage");
        assert_eq!(hand.state(), State::Idle);
        let from = hand.now;
        while hand.state() == State::Idle {
            hand.run_to_next_timer();
        }
        waits.push((hand.now - from).as_secs_f64());
    }
    for (wait, longest) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
        assert!((0.75 * longest..=longest).contains(wait), "{waits:?}");
    }
}

#[test]
fn a_damped_peer_is_refused() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), b"garbage");
    hand.accept(ConnId(2));
    assert_eq!(hand.closed_with(ConnId(2)), Some((6, 5)));
    assert!(hand.rejections().contains(&Rejection::IdleHold));
}

#[test]
fn a_minute_of_session_clears_the_damping() {
    let mut hand = Hand::new(|_| {});
    for conn in 1..=4 {
        hand.connect(ConnId(conn));
        hand.bytes(ConnId(conn), b"garbage");
        hand.run_until_connect();
    }
    hand.connect(ConnId(5));
    hand.establish_on(ConnId(5));
    for _ in 0..4 {
        hand.run_for(20 * SECOND);
        hand.bytes(ConnId(5), &keepalive());
    }
    hand.bytes(ConnId(5), b"garbage");
    hand.run_for(SECOND);
    assert_eq!(hand.state(), State::Connect, "after a second again");
}

#[test]
fn a_peer_whose_connection_broke_is_welcome_at_once() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.close(ConnId(1));
    assert_eq!(hand.state(), State::Active);
    hand.accept(ConnId(2));
    hand.establish_on(ConnId(2));
    assert_eq!(hand.status().resets, 1);
}

// ---- RFC 4271 §6.8 and incoming connections

#[test]
fn rfc4486_a_stranger_is_rejected() {
    let mut hand = Hand::new(|_| {});
    hand.accept_from(ConnId(7), "10.0.0.99");
    assert_eq!(hand.closed_with(ConnId(7)), Some((6, 5)));
    assert_eq!(hand.rejections(), [Rejection::UnknownPeer]);
}

#[test]
fn a_connection_to_another_local_address_is_rejected() {
    let mut hand = Hand::new(|config| config.local_address = Some("10.0.0.77".parse().unwrap()));
    hand.accept(ConnId(7));
    assert_eq!(hand.rejections(), [Rejection::WrongLocalAddress]);
}

#[test]
fn rfc4271_6_8_an_established_session_wins_without_graceful_restart() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.accept(ConnId(2));
    assert_eq!(hand.closed_with(ConnId(2)), Some((6, 7)));
    assert_eq!(hand.rejections(), [Rejection::AlreadyConnected]);
    assert_eq!(hand.state(), State::Established);
}

#[test]
fn rfc4724_5_a_restarted_peers_open_ends_the_old_session() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    hand.bytes(ConnId(1), &announce(1));
    hand.run_for(6 * SECOND);
    hand.accept(ConnId(2));
    assert_eq!(hand.state(), State::Established, "a mere connection proves nothing");
    hand.bytes(ConnId(2), &open(&[restarted(true)]));
    assert!(hand.is_closed(ConnId(1)) && !hand.is_closed(ConnId(2)));
    assert_eq!(hand.received(), 1, "kept as stale");
    hand.bytes(ConnId(2), &keepalive());
    assert_eq!(hand.state(), State::Established);
    hand.bytes(ConnId(2), &end_of_rib());
    assert_eq!(hand.received(), 0, "not announced again");
}

#[test]
fn a_late_collision_is_not_taken_for_a_restart() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    hand.accept(ConnId(2));
    hand.bytes(ConnId(2), &open(&[restarted(true)]));
    assert_eq!(hand.closed_with(ConnId(2)), Some((6, 7)));
    assert_eq!(hand.state(), State::Established);
}

// ---- RFC 4724

#[test]
fn rfc4724_stale_routes_wait_for_end_of_rib() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    assert_eq!(hand.status().synchronized, Synchronized::AwaitingEndOfRib);
    hand.bytes(ConnId(1), &announce(1));
    hand.bytes(ConnId(1), &announce(2));
    hand.bytes(ConnId(1), &end_of_rib());
    assert_eq!(hand.status().synchronized, Synchronized::Synchronized);
    hand.close(ConnId(1));
    assert_eq!((hand.received(), hand.status().synchronized), (2, Synchronized::Stale));
    hand.accept(ConnId(2));
    hand.bytes(ConnId(2), &open(&[restarted(true)]));
    hand.bytes(ConnId(2), &keepalive());
    hand.bytes(ConnId(2), &announce(2));
    assert_eq!(hand.received(), 2);
    hand.bytes(ConnId(2), &end_of_rib());
    assert_eq!(hand.received(), 1);
}

#[test]
fn rfc4724_4_2_without_the_f_bit_stale_routes_go_at_once() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    hand.bytes(ConnId(1), &announce(1));
    hand.close(ConnId(1));
    hand.accept(ConnId(2));
    hand.bytes(ConnId(2), &open(&[restarted(false)]));
    assert_eq!(hand.received(), 1);
    hand.bytes(ConnId(2), &keepalive());
    assert_eq!(hand.received(), 0);
}

#[test]
fn rfc4724_4_2_a_peer_that_does_not_finish_is_swept_after_the_stale_time() {
    let mut hand = Hand::new(|config| config.hold_time = Duration::ZERO);
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    hand.bytes(ConnId(1), &announce(1));
    hand.close(ConnId(1));
    hand.accept(ConnId(2));
    hand.bytes(ConnId(2), &open(&[restarted(true)]));
    hand.bytes(ConnId(2), &keepalive());
    hand.run_for(359 * SECOND);
    assert_eq!(hand.received(), 1);
    hand.run_for(SECOND);
    assert_eq!((hand.received(), hand.state()), (0, State::Established));
}

#[test]
fn rfc4724_4_2_a_notification_keeps_nothing() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    hand.bytes(ConnId(1), &announce(1));
    hand.bytes(ConnId(1), &notification(6, 4, &[]));
    assert_eq!((hand.received(), hand.status().synchronized), (0, Synchronized::NotEstablished));
}

#[test]
fn a_link_that_is_down_keeps_nothing() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    hand.bytes(ConnId(1), &announce(1));
    hand.link_down();
    assert_eq!((hand.received(), hand.status().reason), (0, Reason::InterfaceDown));
    assert!(hand.is_closed(ConnId(1)));
}

#[test]
fn rfc4724_3_the_r_bit_is_set_on_the_first_session_only() {
    let restart_of = |hand: &mut Hand, conn| {
        let sent = hand.sent(conn);
        let open = bgp_proto::wire::Open::decode(&sent[0].1).unwrap();
        open.capabilities.into_iter().find_map(|c| match c {
            Capability::GracefulRestart(restart) => Some(restart),
            _ => None,
        })
    };
    let mut hand = Hand::with_kernel_routes(&[AfiSafi::Ipv4Unicast], |_| {});
    hand.connect(ConnId(1));
    let first: GracefulRestartCapability = restart_of(&mut hand, ConnId(1)).unwrap();
    let family = |afi, forwarding| RestartFamily { afi, safi: 1, forwarding };
    assert!(first.restarting);
    assert_eq!(first.families, [family(1, true), family(2, false)], "F only where routes were found");
    hand.establish_on(ConnId(1));
    hand.close(ConnId(1));
    hand.accept(ConnId(2));
    let second = restart_of(&mut hand, ConnId(2)).unwrap();
    assert!(!second.restarting);
    assert_eq!(second.families, [family(1, true), family(2, true)], "this process did not restart");
}

#[test]
fn rfc4724_4_1_nothing_is_told_before_selection() {
    let mut hand = Hand::with_kernel_routes(&[AfiSafi::Ipv4Unicast], |_| {});
    hand.originate("10.244.1.0/26");
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    let kinds =
        |hand: &mut Hand| hand.sent(ConnId(1)).into_iter().filter(|m| m.0 == MessageType::Update).count();
    assert_eq!(kinds(&mut hand), 0);
    assert!(hand.speaker.selection_deferred_until().is_some());
    hand.bytes(ConnId(1), &end_of_rib());
    assert!(hand.speaker.selection_deferred_until().is_none());
    let updates: Vec<Vec<u8>> =
        hand.sent(ConnId(1)).into_iter().filter(|m| m.0 == MessageType::Update).map(|m| m.1).collect();
    let (last, routes) = updates.split_last().unwrap();
    assert!(!routes.is_empty() && routes.iter().all(|body| body.ends_with(&[26, 10, 244, 1, 0])));
    assert_eq!(last, &[0, 0, 0, 0], "then End-of-RIB");
    assert_eq!(hand.fib_complete, 2);
}

#[test]
fn rfc4724_4_1_a_peer_that_restarts_itself_is_not_waited_for() {
    let mut hand = Hand::with_kernel_routes(&[AfiSafi::Ipv4Unicast], |_| {});
    hand.connect(ConnId(1));
    let restart = GracefulRestartCapability { restarting: true, ..GracefulRestartCapability::default() };
    hand.bytes(ConnId(1), &open(&[Capability::GracefulRestart(restart)]));
    hand.bytes(ConnId(1), &keepalive());
    assert!(hand.speaker.selection_deferred_until().is_none());
}

#[test]
fn a_first_start_waits_for_nobody() {
    let hand = Hand::new(|_| {});
    assert!(hand.speaker.selection_deferred_until().is_none());
    assert_eq!(hand.fib_complete, 2);
}

// ---- RFC 2918

#[test]
fn rfc2918_a_refresh_is_answered_with_everything() {
    let mut hand = Hand::new(|_| {});
    hand.originate("10.244.1.0/26");
    hand.establish();
    let told = |hand: &mut Hand| {
        let sent = hand.sent(ConnId(1));
        sent.iter().filter(|(_, body)| body.windows(5).any(|w| w == [26, 10, 244, 1, 0])).count()
    };
    assert_eq!(told(&mut hand), 1);
    hand.bytes(ConnId(1), &refresh(1, 0, 1));
    assert_eq!(told(&mut hand), 1);
    for unknown in [refresh(1, 0, 2), refresh(25, 0, 70), refresh(1, 1, 1)] {
        hand.bytes(ConnId(1), &unknown);
        assert_eq!((told(&mut hand), hand.state()), (0, State::Established));
    }
}

#[test]
fn rfc2918_we_can_ask_as_well() {
    let mut hand = Hand::new(|_| {});
    hand.establish_with(&[Capability::RouteRefresh]);
    hand.sent(ConnId(1));
    hand.refresh_wanted();
    assert_eq!(hand.sent(ConnId(1)), [(MessageType::RouteRefresh, vec![0, 1, 0, 1])]);
}

// ---- RFC 4486: prefix limits

#[test]
fn rfc4486_4_above_the_limit_the_session_ends_and_comes_back_later() {
    let mut hand = Hand::new(|config| {
        config.max_prefixes.ipv4 = 5;
        config.max_prefixes.restart_after = 60 * SECOND;
    });
    hand.establish();
    for n in 0..5 {
        hand.bytes(ConnId(1), &announce(n));
    }
    assert_eq!(hand.state(), State::Established, "the limit itself is allowed");
    hand.bytes(ConnId(1), &announce(5));
    assert_eq!(hand.closed_with_data(ConnId(1)), Some((6, 1, vec![0, 1, 1, 0, 0, 0, 5])));
    let status = hand.status();
    assert_eq!((status.state, status.reason), (State::Idle, Reason::MaxPrefixesReached));
    assert_eq!(status.message, "Cease/MaximumNumberOfPrefixesReached: received 6 of 5 IPv4Unicast");
    assert_eq!(status.retry_at, Some(hand.now + 60 * SECOND));
    hand.run_for(59 * SECOND);
    assert_eq!(hand.state(), State::Idle);
    hand.run_for(SECOND);
    assert_eq!(hand.state(), State::Connect);
}

#[test]
fn the_limit_is_warned_of_before_and_can_be_no_more_than_a_warning() {
    let mut hand = Hand::new(|config| {
        config.max_prefixes.ipv4 = 5;
        config.max_prefixes.action = MaxPrefixesAction::Warn;
    });
    hand.establish();
    for n in 0..10 {
        hand.bytes(ConnId(1), &announce(n));
    }
    let near = |e: &&SessionEvent| matches!(e, SessionEvent::PrefixLimitNear { count: 4, limit: 5, .. });
    let reached =
        |e: &&SessionEvent| matches!(e, SessionEvent::PrefixLimitReached { count: 6, limit: 5, .. });
    assert_eq!(hand.events.iter().filter(near).count(), 1);
    assert_eq!(hand.events.iter().filter(reached).count(), 1);
    assert_eq!(hand.state(), State::Established);
}

#[test]
fn a_session_shut_down_for_good_comes_back_by_a_reset() {
    let mut hand = Hand::new(|config| {
        config.max_prefixes.ipv4 = 0;
        config.max_prefixes.restart_after = Duration::ZERO;
    });
    hand.establish();
    hand.bytes(ConnId(1), &announce(1));
    hand.run_for(100_000 * SECOND);
    assert_eq!((hand.state(), hand.status().retry_at), (State::Idle, None));
    hand.reset("try again");
    assert_eq!(hand.state(), State::Connect);
}

// ---- operators and configuration

#[test]
fn rfc9003_a_reset_tells_the_peer_why() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.reset("maintenance");
    assert_eq!(hand.closed_with_data(ConnId(1)), Some((6, 4, b"\x0bmaintenance".to_vec())));
    assert_eq!(hand.state(), State::Connect, "and starts again at once");
}

#[test]
fn rfc9003_a_shutdown_tells_the_peer_why_and_stays_down() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.configure(|config| config.admin = AdminState::Shutdown { message: "rack 12 moves".to_owned() });
    assert_eq!(hand.closed_with_data(ConnId(1)), Some((6, 2, b"\x0drack 12 moves".to_vec())));
    hand.run_for(10_000 * SECOND);
    assert_eq!((hand.state(), hand.status().reason), (State::Idle, Reason::AdminShutdown));
    hand.accept(ConnId(2));
    assert_eq!(hand.rejections(), [Rejection::AdminShutdown]);
    hand.configure(|config| config.admin = AdminState::Up);
    assert_eq!(hand.state(), State::Connect);
}

#[test]
fn an_unchanged_configuration_touches_nothing() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    let events = hand.events.len();
    hand.configure(|_| {});
    assert_eq!((hand.state(), hand.events.len()), (State::Established, events));
}

#[test]
fn policies_limits_and_timers_change_without_a_reset() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.bytes(ConnId(1), &announce(1));
    assert_eq!(hand.status().families[0].accepted, 1);
    hand.configure(|config| {
        config.import = bgp_proto::policy::ImportPolicy::default();
        config.connect_retry = 60 * SECOND;
        config.keepalive = Some(2 * SECOND);
        config.graceful_restart.restart_time = 30 * SECOND;
        config.max_prefixes.ipv6 = 7;
    });
    assert_eq!((hand.state(), hand.status().families[0].accepted), (State::Established, 0));
    assert_eq!(hand.status().negotiated.unwrap().keepalive, 2);
    assert_eq!(hand.status().resets, 0);
}

#[test]
fn rfc4486_what_was_said_in_an_open_takes_a_reset() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.configure(|config| config.hold_time = 9 * SECOND);
    assert_eq!(hand.closed_with(ConnId(1)), Some((6, 6)));
    assert_eq!(hand.state(), State::Connect);
    hand.connect(ConnId(2));
    hand.establish_on(ConnId(2));
    hand.configure(|config| config.graceful_restart.mode = GracefulRestartMode::Disabled);
    assert_eq!(hand.closed_with(ConnId(2)), Some((6, 6)));
}

#[test]
fn rfc4486_a_removed_peer_is_told() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.configure_all(|config| config.peers.clear());
    assert_eq!(hand.closed_with(ConnId(1)), Some((6, 3)));
    hand.accept(ConnId(2));
    assert_eq!(hand.rejections(), [Rejection::UnknownPeer]);
}

#[test]
fn another_router_id_resets_every_session_and_keeps_our_routes() {
    let mut hand = Hand::new(|_| {});
    hand.originate("10.244.1.0/26");
    hand.establish();
    hand.bytes(ConnId(1), &announce(1));
    assert_eq!(hand.kernel.len(), 1);
    hand.configure_all(|config| config.router_id.0 = "10.0.0.200".parse().unwrap());
    assert_eq!(hand.closed_with(ConnId(1)), Some((6, 6)));
    assert!(hand.kernel.is_empty(), "what the peer said is gone with its session");
    hand.connect(ConnId(2));
    assert_eq!(hand.sent(ConnId(2))[0].1[5..9], [10, 0, 0, 200]);
    hand.establish_on(ConnId(2));
    assert!(hand.sent(ConnId(2)).iter().any(|(_, body)| body.windows(5).any(|w| w == [26, 10, 244, 1, 0])));
}

#[test]
fn two_peers_with_one_address_are_not_both_served() {
    let mut hand = Hand::new(|_| {});
    hand.configure_all(|config| {
        let copy = config.peers.values().next().unwrap().clone();
        config.peers.insert("zz".into(), copy);
    });
    let refused = |e: &SessionEvent| match e {
        SessionEvent::PeerRefused { peer, why } => Some((peer.to_string(), why.clone())),
        _ => None,
    };
    let refusals: Vec<_> = hand.events.iter().filter_map(refused).collect();
    assert_eq!(
        refusals,
        [("zz".to_owned(), "10.0.0.2 is the address of peer tor already; zz is not served".to_owned())]
    );
    hand.establish();
    hand.configure_all(|config| drop(config.peers.remove(&"tor".into())));
    assert_eq!(hand.speaker.peer(&"zz".into()).unwrap().state, State::Connect, "the address is free");
}

#[test]
fn inputs_about_unknown_things_are_ignored() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.bytes(ConnId(99), b"garbage");
    hand.close(ConnId(99));
    hand.input(Input::LinkDown { peer: "nobody".into(), text: String::new() });
    hand.input(Input::Reset { peer: "nobody".into(), message: String::new() });
    hand.input(Input::Withdraw { prefix: "10.9.9.0/24".parse().unwrap() });
    hand.input(Input::Timeout);
    assert_eq!(hand.state(), State::Established);
    hand.input(Input::Connected {
        conn: ConnId(50),
        peer: "nobody".into(),
        local: "10.0.0.1:1".parse().unwrap(),
        remote: "10.0.0.2:179".parse().unwrap(),
    });
    assert!(hand.is_closed(ConnId(50)));
}

#[test]
fn a_message_begun_is_finished_before_the_notification() {
    let mut hand = Hand::new(|_| {});
    hand.originate("10.244.1.0/26");
    hand.establish();
    hand.sent(ConnId(1));
    hand.reads = false;
    hand.input(Input::Originate {
        prefix: "10.244.2.0/26".parse().unwrap(),
        routes: vec![Default::default()],
    });
    hand.take(ConnId(1), 30);
    hand.reset("");
    let messages = hand.sent(ConnId(1));
    let kinds: Vec<MessageType> = messages.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [MessageType::Update, MessageType::Notification], "both whole");
}
