//! One speaker and a peer that we play by hand, byte by byte: what each RFC asks for, one test each.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod hand;

use std::time::Duration;

use bgp_proto::config::RemoteAsn;
use bgp_proto::fsm::State;
use bgp_proto::output::{ErrorFrom, Reason, Rejection};
use bgp_proto::wire::MessageType;
use bgp_proto::{Asn, ConnId, Input, SessionEvent, TransportErrorKind};
use hand::{Hand, announce, end_of_rib, keepalive, notification, open, raw, restarted};

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
    assert_eq!((hand.state(), hand.status().reason), (State::Connect, Reason::ConnectionTimedOut));
    assert_eq!(hand.status().message, "Connection timed out: no answer from 10.0.0.2 port 179");
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

/// Others have their turn all the time, so that whatever may go early does.
#[test]
fn rfc4271_4_4_what_goes_early_leaves_a_second_where_chance_does() {
    for (hold, least, most) in [(3, 750, 1_000), (4, 1_000, 1_334), (6, 1_400, 1_910), (30, 7_400, 9_910)] {
        let mut hand = Hand::new(|config| config.hold_time = hold * SECOND);
        hand.establish();
        hand.sent(ConnId(1));
        let (mut gaps, mut last) = (Vec::new(), hand.now);
        while gaps.len() < 50 {
            hand.now += Duration::from_millis(10);
            hand.input(Input::Timeout);
            if hand.sent(ConnId(1)).iter().any(|(kind, _)| *kind == MessageType::Keepalive) {
                gaps.push((hand.now - last).as_millis());
                last = hand.now;
                hand.bytes(ConnId(1), &keepalive());
            }
        }
        let (shortest, longest) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*shortest >= least && *longest <= most + 10, "hold {hold}: {shortest} to {longest} ms");
    }
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

/// A shell that is behind: the peer spoke, and nobody has read it yet.
#[test]
fn rfc4271_6_5_who_has_bytes_waiting_is_not_silent() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.run_for(29 * SECOND);
    hand.now += SECOND;
    assert_eq!(hand.speaker.unheard(hand.now).collect::<Vec<_>>(), [ConnId(1)]);
    hand.input(Input::Unread { conn: ConnId(1) });
    hand.input(Input::Timeout);
    assert_eq!(hand.state(), State::Established);
    assert_eq!(hand.speaker.unheard(hand.now).count(), 0);
    // What waited is read, and the timer runs as from then.
    hand.bytes(ConnId(1), &keepalive());
    hand.run_for(29 * SECOND);
    assert_eq!(hand.state(), State::Established);
    hand.run_for(SECOND);
    assert_eq!(hand.closed_with(ConnId(1)), Some((4, 0)));
}

#[test]
fn a_timer_is_put_off_by_a_second_and_never_brought_forward() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.input(Input::Unread { conn: ConnId(1) });
    hand.run_for(29 * SECOND);
    assert_eq!(hand.state(), State::Established, "the hold timer runs for 30 s");
    hand.now += SECOND;
    hand.input(Input::Unread { conn: ConnId(1) });
    // Of a connection that is gone: nothing.
    hand.input(Input::Unread { conn: ConnId(9) });
    hand.run_for(SECOND - Duration::from_millis(1));
    assert_eq!(hand.state(), State::Established);
    hand.run_for(Duration::from_millis(1));
    assert_eq!(hand.closed_with(ConnId(1)), Some((4, 0)));
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
        (raw(&[0x10, 1, 1]), (1, 2)),
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
    for conn in 1..=40 {
        hand.connect(ConnId(conn));
        hand.bytes(ConnId(conn), b"garbage");
        assert_eq!(hand.state(), State::Idle);
        let from = hand.now;
        while hand.state() == State::Idle {
            hand.run_to_next_timer();
        }
        waits.push((hand.now - from).as_secs_f64());
    }
    for (wait, doublings) in waits.iter().zip(0..) {
        let longest = 2f64.powi(doublings).min(60.0);
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
