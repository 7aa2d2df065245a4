//! Graceful restart (RFC 4724), one test for each rule, with a peer played by hand.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod hand;

use std::time::Duration;

use bgp_proto::config::{AddPath, MaxPrefixesAction};
use bgp_proto::fsm::State;
use bgp_proto::output::{Reason, SessionEvent};
use bgp_proto::status::Synchronized;
use bgp_proto::wire::{
    AddPathFamily, Capability, GracefulRestartCapability, LongLivedFamily, MessageType, RestartFamily,
};
use bgp_proto::{AfiSafi, ConnId, Input};
use hand::{Hand, announce, announce_with, end_of_rib, keepalive, notification, open, restarted};

const SECOND: Duration = Duration::from_secs(1);

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

/// RFC 4724 and RFC 7911: the peer may choose other identifiers after its restart, so that what is stale stands beside what it tells
/// anew. It told no more than it may.
#[test]
fn stale_paths_do_not_count_against_the_limit() {
    let several = Capability::AddPath(vec![AddPathFamily { afi: 1, safi: 1, receive: true, send: true }]);
    let mut hand = Hand::new(|config| {
        config.add_path = AddPath { receive: true, send: 1 };
        config.max_prefixes.ipv4 = 4;
        config.max_prefixes.action = MaxPrefixesAction::Shutdown;
    });
    let path = |id: u8| {
        let mut route = announce(id % 8);
        let prefix = route.split_off(route.len() - 4);
        route.extend([&[0, 0, 0, id][..], &prefix].concat());
        route[17] += 4;
        route
    };
    hand.establish_with(&[restarted(true), several.clone()]);
    (1..=4).for_each(|id| hand.bytes(ConnId(1), &path(id)));
    hand.bytes(ConnId(1), &end_of_rib());
    let reached = |hand: &Hand| {
        let is_limit = |event: &&SessionEvent| {
            matches!(event, SessionEvent::PrefixLimitReached { .. } | SessionEvent::PrefixLimitNear { .. })
        };
        hand.events.iter().filter(is_limit).count()
    };
    assert_eq!(reached(&hand), 1, "near");
    hand.close(ConnId(1));
    hand.accept(ConnId(2));
    hand.bytes(ConnId(2), &open(&[restarted(true), several]));
    hand.bytes(ConnId(2), &keepalive());
    (9..=12).for_each(|id| hand.bytes(ConnId(2), &path(id)));
    assert_eq!((hand.state(), hand.received()), (State::Established, 8));
    hand.bytes(ConnId(2), &end_of_rib());
    assert_eq!((hand.state(), hand.received()), (State::Established, 4));
    assert_eq!(reached(&hand), 2, "near once in each session");
    hand.bytes(ConnId(2), &path(13));
    assert_eq!(hand.closed_with(ConnId(2)), Some((6, 1)));
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
fn rfc9384_bfd_down_ends_the_session_with_its_own_cease_and_keeps_nothing() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    hand.bytes(ConnId(1), &announce(1));
    hand.bytes(ConnId(1), &end_of_rib());
    hand.bfd_down();
    assert_eq!((hand.received(), hand.status().reason), (0, Reason::BFDDown));
    assert_eq!(hand.closed_with(ConnId(1)), Some((6, 10)));
    assert_eq!(hand.status().synchronized, Synchronized::NotEstablished);
    // The peer is welcome as soon as it is back, and tried after a damping time.
    assert_eq!(hand.state(), State::Active);
    hand.run_until_connect();
    hand.connect(ConnId(2));
    hand.establish_on(ConnId(2));
}

#[test]
fn bfd_down_takes_what_was_kept_already() {
    let mut hand = Hand::new(|_| {});
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    hand.bytes(ConnId(1), &announce(1));
    hand.close(ConnId(1));
    assert_eq!((hand.received(), hand.status().synchronized), (1, Synchronized::Stale));
    hand.bfd_down();
    assert_eq!((hand.received(), hand.status().synchronized), (0, Synchronized::NotEstablished));
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
    assert_eq!(hand.fib_complete, 0, "the sweep of the kernel waits for its routes all the same");
    hand.bytes(ConnId(1), &announce(1));
    hand.bytes(ConnId(1), &end_of_rib());
    assert_eq!((hand.fib_complete, hand.kernel.len()), (2, 1));
}

#[test]
fn a_first_start_waits_for_nobody() {
    let hand = Hand::new(|_| {});
    assert!(hand.speaker.selection_deferred_until().is_none());
    assert_eq!(hand.fib_complete, 2);
}

#[test]
fn the_kernel_is_not_swept_before_next_hops_are_known() {
    let mut hand = Hand::with_kernel_routes(&[AfiSafi::Ipv4Unicast], |_| {});
    hand.answers_next_hops = false;
    hand.connect(ConnId(1));
    hand.bytes(ConnId(1), &open(&[restarted(true)]));
    hand.bytes(ConnId(1), &keepalive());
    hand.bytes(ConnId(1), &announce(1));
    hand.bytes(ConnId(1), &end_of_rib());
    assert!(hand.speaker.selection_deferred_until().is_none());
    assert_eq!((hand.fib_complete, hand.kernel.len()), (0, 0), "the route waits for its next hop");
    hand.answer_next_hop("10.0.0.2");
    assert_eq!((hand.fib_complete, hand.kernel.len()), (2, 1));
}

#[test]
fn a_prefix_by_a_new_next_hop_is_decided_once() {
    let mut hand = Hand::new(|_| {});
    hand.establish();
    let before = hand.speaker.rib().decided();
    hand.bytes(ConnId(1), &[announce(1), announce(2)].concat());
    assert_eq!((hand.speaker.rib().decided() - before, hand.kernel.len()), (2, 2));
    // Another answer later on decides what goes there anew.
    hand.answer_next_hop("10.0.0.2");
    let before = hand.speaker.rib().decided();
    let address = "10.0.0.2".parse().unwrap();
    hand.input(Input::NextHop { address, resolution: None });
    assert_eq!((hand.speaker.rib().decided() - before, hand.kernel.len()), (2, 0));
}

// ---- RFC 9494

/// Graceful restart of 120 s, and 1000 s of long-lived stale routes behind it, of IPv4 unicast.
fn long_lived(forwarding: bool) -> [Capability; 2] {
    let entry = LongLivedFamily { afi: 1, safi: 1, forwarding, stale_time: 1000 };
    [restarted(true), Capability::LongLivedGracefulRestart(vec![entry])]
}

/// The peer has told two routes, the second with a community, and is gone.
fn gone_for_long(community: u32) -> Hand {
    let mut hand = Hand::new(|config| {
        config.graceful_restart.long_lived_stale_time = 500 * SECOND;
        config.passive = true;
    });
    hand.accept(ConnId(1));
    hand.bytes(ConnId(1), &open(&long_lived(true)));
    hand.bytes(ConnId(1), &keepalive());
    hand.bytes(ConnId(1), &announce(1));
    hand.bytes(ConnId(1), &announce_with(2, community));
    hand.bytes(ConnId(1), &end_of_rib());
    hand.close(ConnId(1));
    hand
}

#[test]
fn rfc9494_4_2_stale_routes_live_on_after_the_restart_time() {
    let mut hand = gone_for_long(0xFFFF_0007);
    hand.run_for(119 * SECOND);
    assert_eq!((hand.received(), hand.status().synchronized), (2, Synchronized::Stale));
    hand.run_for(2 * SECOND);
    assert_eq!(hand.received(), 1, "what says NO_LLGR goes");
    assert_eq!(hand.status().synchronized, Synchronized::LongLivedStale);
    assert_eq!(hand.kernel.len(), 1, "the other one is used as long as nothing better is there");
    assert_eq!(hand.communities("10.244.1.0/24"), ["65535:6"]);
    hand.run_for(997 * SECOND);
    assert_eq!(hand.received(), 1);
    hand.run_for(3 * SECOND);
    assert_eq!((hand.received(), hand.kernel.len()), (0, 0));
    assert_eq!(hand.status().synchronized, Synchronized::NotEstablished);
}

#[test]
fn rfc9494_4_2_a_peer_that_is_back_tells_its_routes_or_loses_them() {
    for (forwarding, kept) in [(true, 2), (false, 0)] {
        let mut hand = gone_for_long(1);
        hand.run_for(200 * SECOND);
        hand.accept(ConnId(2));
        hand.bytes(ConnId(2), &open(&long_lived(forwarding)));
        hand.bytes(ConnId(2), &keepalive());
        assert_eq!(hand.received(), kept);
        hand.bytes(ConnId(2), &announce(1));
        assert_eq!(hand.communities("10.244.1.0/24"), Vec::<String>::new(), "as good as any other");
        hand.bytes(ConnId(2), &end_of_rib());
        assert_eq!(hand.received(), 1);
    }
}

#[test]
fn rfc9494_4_1_nothing_is_kept_for_long_unless_both_said_so() {
    let mut hand = Hand::new(|config| config.passive = true);
    hand.accept(ConnId(1));
    hand.bytes(ConnId(1), &open(&long_lived(true)));
    hand.bytes(ConnId(1), &keepalive());
    hand.bytes(ConnId(1), &announce(1));
    hand.close(ConnId(1));
    hand.run_for(121 * SECOND);
    assert_eq!(hand.received(), 0);
}
