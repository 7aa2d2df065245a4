//! What operators change and ask for: refresh, limits, resets, configuration; the peer is played by hand.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod hand;

use std::time::Duration;

use bgp_proto::config::{AdminState, GracefulRestartMode, MaxPrefixesAction};
use bgp_proto::fsm::State;
use bgp_proto::output::{Reason, Rejection};
use bgp_proto::status::{NOTIFICATION_KINDS, NotificationKind};
use bgp_proto::wire::{Capability, MessageType};
use bgp_proto::{AfiSafi, Asn, ConnId, Input, SessionEvent};
use hand::{Hand, announce, notification, refresh};

const SECOND: Duration = Duration::from_secs(1);

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

#[test]
fn rfc2918_a_person_may_have_routes_told_again() {
    let mut hand = Hand::new(|_| {});
    hand.originate("10.244.1.0/26");
    hand.input(Input::TellAgain { peer: hand::peer(), family: AfiSafi::Ipv4Unicast });
    hand.establish();
    let told = |hand: &mut Hand| {
        let sent = hand.sent(ConnId(1));
        sent.iter().filter(|(_, body)| body.windows(5).any(|w| w == [26, 10, 244, 1, 0])).count()
    };
    assert_eq!(told(&mut hand), 1, "nobody is told twice who was not there yet");
    hand.input(Input::TellAgain { peer: hand::peer(), family: AfiSafi::Ipv4Unicast });
    assert_eq!((told(&mut hand), hand.state()), (1, State::Established));
    hand.input(Input::TellAgain { peer: hand::peer(), family: AfiSafi::Ipv6Unicast });
    assert_eq!(told(&mut hand), 0);
}

#[test]
fn what_ended_a_session_is_counted() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.reset("router upgrade");
    let status = hand.status();
    assert_eq!(status.resets_by, [(Reason::NotificationSent, 1)].into());
    assert_eq!((status.resets, status.lost), (1, Some(hand.now)));
    let sent = NotificationKind { sent: true, code: 6, subcode: 4 };
    assert_eq!(status.notifications, [(sent, 1)].into());
    // A peer may say what it likes; what is kept of it stays small.
    for n in 0..=255 {
        hand.connect(ConnId(10 + u64::from(n)));
        hand.establish_on(ConnId(10 + u64::from(n)));
        hand.bytes(ConnId(10 + u64::from(n)), &notification(6, n, &[]));
        hand.reset("");
    }
    let status = hand.status();
    assert!(status.notifications.len() <= NOTIFICATION_KINDS + 2, "{}", status.notifications.len());
    assert_eq!(status.notifications.values().sum::<u64>(), 257);
    assert_eq!(status.resets_by[&Reason::NotificationReceived], 256);
}

/// RFC 4456 asks for no new session: nothing of it is said in an OPEN.
#[test]
fn a_peer_becomes_a_client_and_is_none_any_more_without_a_reset() {
    let mut hand = Hand::new(|_| {});
    hand.configure_all(|config| config.asn = Asn(65002));
    hand.run_until_connect();
    hand.establish();
    for client in [true, false, true] {
        hand.configure(|config| config.reflector_client = client);
        assert_eq!((hand.state(), hand.is_closed(ConnId(1))), (State::Established, false));
    }
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

fn withheld(text: &str) -> AdminState {
    AdminState::Withheld { reason: Reason::SecretMissing, text: text.to_owned() }
}

#[test]
fn a_withheld_peer_is_neither_dialled_nor_accepted_and_comes_up_once_it_may() {
    let mut hand = Hand::new(|config| config.admin = withheld("no key"));
    hand.run_for(1_000 * SECOND);
    assert_eq!((hand.state(), hand.transitions()), (State::Idle, Vec::new()));
    hand.accept(ConnId(1));
    assert_eq!(hand.rejections(), [Rejection::Withheld]);
    let status = hand.status();
    assert_eq!((status.reason, status.message.as_str()), (Reason::SecretMissing, "no key"));
    hand.configure(|config| config.admin = withheld("an empty key"));
    assert_eq!((hand.state(), hand.status().message.as_str()), (State::Idle, "an empty key"));
    hand.configure(|config| config.admin = AdminState::Up);
    assert_eq!((hand.state(), hand.status().reason), (State::Connect, Reason::Connecting));
    // An attempt that was under way ends.
    hand.configure(|config| config.admin = withheld("no key"));
    assert_eq!((hand.state(), hand.status().reason), (State::Idle, Reason::SecretMissing));
    hand.connect(ConnId(2));
    assert!(hand.is_closed(ConnId(2)));
}

#[test]
fn a_session_that_runs_outlives_its_missing_key_but_not_its_end() {
    let mut hand = Hand::new(|config| config.signed = true);
    hand.establish();
    hand.configure(|config| config.admin = withheld("no key"));
    let status = hand.status();
    assert_eq!((status.state, status.reason, status.resets), (State::Established, Reason::Established, 0));
    assert_eq!(status.message, "no key");
    hand.configure(|config| config.admin = AdminState::Up);
    assert_eq!((hand.state(), hand.status().resets), (State::Established, 0), "the key is back");
    hand.configure(|config| config.admin = withheld("no key"));
    hand.close(ConnId(1));
    hand.run_for(1_000 * SECOND);
    assert_eq!((hand.state(), hand.status().reason), (State::Idle, Reason::SecretMissing));
    hand.accept(ConnId(2));
    assert_eq!(hand.rejections(), [Rejection::Withheld]);
    // Shutting it down still says so.
    hand.configure(|config| config.admin = AdminState::Shutdown { message: String::new() });
    assert_eq!((hand.state(), hand.status().reason), (State::Idle, Reason::AdminShutdown));
}

#[test]
fn a_session_that_begins_to_be_signed_is_another_one() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    hand.configure(|config| {
        config.signed = true;
        config.admin = withheld("no key");
    });
    assert_eq!(hand.closed_with(ConnId(1)), Some((6, 6)));
    assert_eq!((hand.state(), hand.status().reason), (State::Idle, Reason::SecretMissing));
    hand.configure(|config| config.admin = AdminState::Up);
    hand.run_for(6 * SECOND);
    assert!(hand.status().message.contains("its key may be another one"), "{}", hand.status().message);
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
    hand.input(Input::BfdDown { peer: "nobody".into(), text: String::new() });
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

#[test]
fn a_corrected_configuration_is_tried_at_once_and_a_new_policy_is_no_correction() {
    let mut hand = Hand::new(|_| {});
    for conn in 1..=6 {
        hand.connect(ConnId(conn));
        hand.bytes(ConnId(conn), b"garbage");
        if conn < 6 {
            hand.run_until_connect();
        }
    }
    hand.configure(|config| config.import = bgp_proto::policy::ImportPolicy::default());
    assert_eq!(hand.state(), State::Idle, "damped as before");
    hand.configure(|config| config.hold_time = 9 * SECOND);
    assert_eq!(hand.state(), State::Connect);
    hand.connect(ConnId(7));
    hand.bytes(ConnId(7), b"garbage");
    hand.run_for(SECOND);
    assert_eq!(hand.state(), State::Connect, "the failures before it count no more");
}
