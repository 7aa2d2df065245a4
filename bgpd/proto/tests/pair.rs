//! Two and three speakers in virtual time.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::print_stderr, dead_code)]

mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::config::GracefulRestartMode;
use bgp_proto::fsm::State;
use bgp_proto::{AfiSafi, Input, SessionEvent};
use ipnet::IpNet;
use sim::{Net, address, address6, config, for_seeds, name};

const SECOND: Duration = Duration::from_secs(1);

fn pair(seed: u64) -> Net {
    Net::new(seed, vec![config(0, &[1], false), config(1, &[0], false)])
}

#[test]
fn two_speakers_meet_and_learn_both_families() {
    for_seeds(50, |seed| {
        let mut net = pair(seed);
        net.originate(0, "10.244.1.0/26");
        net.originate(0, "fd00:244:1::/122");
        net.originate(1, "10.244.2.0/26");
        net.start_all();
        net.run_for(5 * SECOND);
        assert_eq!((net.state(0, 1), net.state(1, 0)), (State::Established, State::Established));
        assert_eq!(net.live_connections(), 1, "the collision left one connection");
        assert_eq!(net.kernel(1, "10.244.1.0/26"), [address(0)]);
        assert_eq!(net.kernel(1, "fd00:244:1::/122"), [IpAddr::V6(address6(0))]);
        assert_eq!(net.kernel(0, "10.244.2.0/26"), [address(1)]);
        net.withdraw(0, "10.244.1.0/26");
        net.run_for(SECOND);
        assert!(net.kernel(1, "10.244.1.0/26").is_empty());
    });
}

#[test]
fn both_end_of_ribs_arrive_and_the_session_is_synchronized() {
    let mut net = pair(1);
    net.start_all();
    net.run_for(5 * SECOND);
    for node in 0..2 {
        let peer = name(1 - node);
        for family in AfiSafi::ALL {
            let received = SessionEvent::EndOfRibReceived { peer: peer.clone(), family };
            assert_eq!(net.nodes[node].events.iter().filter(|(_, event)| *event == received).count(), 1);
        }
        assert!(
            net.nodes[node]
                .events
                .iter()
                .any(|(_, e)| *e == SessionEvent::Synchronized { peer: peer.clone() })
        );
    }
}

#[test]
fn a_day_of_keepalives_is_quiet() {
    let mut net = pair(3);
    net.originate(0, "10.244.1.0/26");
    net.start_all();
    net.run_for(10 * SECOND);
    let (events, began) = (net.nodes[0].events.len(), std::time::Instant::now());
    net.run_for(Duration::from_secs(24 * 3600));
    assert_eq!(net.nodes[0].events.len(), events, "nothing to report");
    assert_eq!((net.state(0, 1), net.state(1, 0)), (State::Established, State::Established));
    let keepalives = net.nodes[0].speaker.as_ref().unwrap().peer(&name(1)).unwrap().messages.sent.keepalive;
    // Every 10 s, jittered to 75-100 %.
    assert!((8640..=11600).contains(&keepalives), "{keepalives}");
    eprintln!("one day of two speakers: {:?}", began.elapsed());
}

#[test]
fn a_keepalive_concerns_those_whose_turn_it_is_and_a_route_all_of_them() {
    let others: Vec<usize> = (1..=20).collect();
    let leaves = others.iter().map(|node| config(*node, &[0], false));
    let mut net = Net::new(5, std::iter::once(config(0, &others, false)).chain(leaves).collect());
    net.originate(0, "10.244.1.0/26");
    net.start_all();
    net.run_for(20 * SECOND);
    let hub = net.nodes[0].speaker.as_mut().unwrap();
    assert_eq!((hub.connections().count(), hub.take_ready()), (20, Vec::new()));
    let due = hub.poll_timeout().unwrap();
    hub.handle_input(Input::Timeout, due);
    assert!(hub.poll_output().is_none());
    let ready = hub.take_ready();
    assert!((1..=5).contains(&ready.len()), "{ready:?}");
    for conn in ready {
        assert_eq!(hub.poll_transmit(conn).unwrap().len(), 19, "a KEEPALIVE");
        hub.transmitted(conn, 19);
        assert_eq!(hub.poll_transmit(conn), None);
    }
    let at = hub.poll_timeout().unwrap();
    assert!(at > due + Duration::from_millis(100), "those that are due a moment later went along");
    let (prefix, routes) = ("10.244.2.0/26".parse().unwrap(), vec![bgp_proto::route::OwnRoute::default()]);
    hub.handle_input(Input::Originate { prefix, routes }, at);
    assert_eq!(hub.take_ready().len(), 20);
}

#[test]
fn rfc4271_6_5_a_silent_link_ends_the_session_at_the_hold_time() {
    let mut net = pair(4);
    net.originate(1, "10.244.2.0/26");
    net.start_all();
    net.run_for(5 * SECOND);
    net.silence(0, 1);
    net.run_for(20 * SECOND);
    assert_eq!(net.state(0, 1), State::Established, "not before the last keepalive is 30 s old");
    net.run_for(11 * SECOND);
    assert_ne!(net.state(0, 1), State::Established);
    assert_eq!(net.errors(0)[0], "HoldTimerExpired: nothing heard from the peer for 30 s");
    assert!(net.kernel(0, "10.244.2.0/26").is_empty(), "the hold timer keeps nothing (RFC 4724 §4)");
    net.heal();
    net.run_for(70 * SECOND);
    assert_eq!(net.state(0, 1), State::Established);
    assert_eq!(net.kernel(0, "10.244.2.0/26"), [address(1)]);
}

#[test]
fn rfc4724_a_killed_speaker_comes_back_and_no_route_is_lost_anywhere() {
    for_seeds(50, |seed| {
        let mut net =
            Net::new(seed, vec![config(0, &[1, 2], false), config(1, &[0], false), config(2, &[0], false)]);
        net.originate(0, "10.244.1.0/26");
        net.originate(0, "fd00:244:1::/122");
        net.originate(1, "10.244.2.0/26");
        net.originate(2, "10.244.2.0/26");
        net.originate(2, "fd00:244:3::/122");
        net.start_all();
        net.run_for(10 * SECOND);
        assert_eq!(net.kernel(0, "10.244.2.0/26"), [address(1), address(2)], "two paths");
        let kernels: Vec<_> = net.nodes.iter().map(|node| node.kernel.clone()).collect();
        let died = net.now;
        net.kill(0);
        net.run_for(2 * SECOND);
        net.start(0);
        net.run_for(20 * SECOND);
        for (node, before) in kernels.iter().enumerate() {
            assert_eq!(net.withdrawals_since(node, died), 0, "node {node} lost a route");
            assert_eq!(net.nodes[node].kernel, *before, "node {node}");
        }
        assert_eq!(net.nodes[0].fib_complete.len(), 2, "the kernel was swept after End-of-RIB");
        assert!(net.nodes[1].events.iter().any(|(_, e)| *e == SessionEvent::Stale { peer: name(0) }));
        assert_eq!((net.state(0, 1), net.state(0, 2)), (State::Established, State::Established));
    });
}

#[test]
fn rfc4724_what_is_not_announced_again_goes_after_end_of_rib() {
    let mut net = pair(6);
    net.originate(0, "10.244.1.0/26");
    net.originate(0, "10.244.7.0/26");
    net.start_all();
    net.run_for(10 * SECOND);
    net.nodes[0].kernel.insert(sim::net("10.244.99.0/26"), vec![address(1)]);
    net.kill(0);
    net.nodes[0].own.remove(&sim::net("10.244.7.0/26"));
    net.run_for(SECOND);
    assert_eq!(net.kernel(1, "10.244.7.0/26"), [address(0)], "kept as stale");
    net.start(0);
    net.run_for(10 * SECOND);
    assert_eq!(net.kernel(1, "10.244.1.0/26"), [address(0)]);
    assert!(net.kernel(1, "10.244.7.0/26").is_empty());
    assert!(net.kernel(0, "10.244.99.0/26").is_empty(), "a stranger in our own kernel is swept as well");
}

#[test]
fn rfc4724_a_speaker_that_stays_away_loses_its_routes_after_its_restart_time() {
    let mut net = pair(7);
    net.originate(0, "10.244.1.0/26");
    net.start_all();
    net.run_for(10 * SECOND);
    net.kill(0);
    net.run_for(119 * SECOND);
    assert_eq!(net.kernel(1, "10.244.1.0/26"), [address(0)]);
    net.run_for(2 * SECOND);
    assert!(net.kernel(1, "10.244.1.0/26").is_empty());
}

#[test]
fn rfc4724_a_planned_restart_is_as_quiet_as_a_kill() {
    let mut net = pair(8);
    net.originate(0, "10.244.1.0/26");
    net.originate(1, "10.244.2.0/26");
    net.start_all();
    net.run_for(10 * SECOND);
    let stopped = net.now;
    net.stop(0, true);
    net.run_for(SECOND);
    net.start(0);
    net.run_for(10 * SECOND);
    assert_eq!((net.withdrawals_since(0, stopped), net.withdrawals_since(1, stopped)), (0, 0));
    assert_eq!(net.kernel(1, "10.244.1.0/26"), [address(0)]);
}

#[test]
fn a_stop_for_good_says_goodbye() {
    let mut net = pair(9);
    net.originate(0, "10.244.1.0/26");
    net.start_all();
    net.run_for(10 * SECOND);
    net.stop(0, false);
    net.run_for(SECOND);
    assert!(net.kernel(1, "10.244.1.0/26").is_empty());
    assert_eq!(net.errors(1)[0], "Cease/AdministrativeShutdown");
}

#[test]
fn rfc4724_4_1_a_missing_peer_delays_selection_only_until_the_timer() {
    let mut net = pair(10);
    net.originate(1, "10.244.2.0/26");
    net.start_all();
    net.run_for(10 * SECOND);
    net.kill(0);
    net.kill(1);
    net.start(0);
    net.run_for(119 * SECOND);
    assert_eq!(net.kernel(0, "10.244.2.0/26"), [address(1)], "the kernel still forwards");
    assert!(net.nodes[0].fib_complete.is_empty());
    net.run_for(2 * SECOND);
    assert_eq!(net.nodes[0].fib_complete.len(), 2);
    assert!(net.kernel(0, "10.244.2.0/26").is_empty());
}

#[test]
fn without_graceful_restart_a_kill_takes_the_routes_at_once() {
    let mut net = pair(11);
    net.configure(1, |c| {
        c.peers.get_mut(&name(0)).unwrap().graceful_restart.mode = GracefulRestartMode::Disabled
    });
    net.originate(0, "10.244.1.0/26");
    net.start_all();
    net.run_for(10 * SECOND);
    net.kill(0);
    net.run_for(SECOND);
    assert!(net.kernel(1, "10.244.1.0/26").is_empty());
}

#[test]
fn a_peer_that_does_not_read_costs_bounded_memory_and_catches_up() {
    let mut net = pair(12);
    net.checks = false; // tens of thousands of walks over thousands of prefixes
    net.start_all();
    net.run_for(5 * SECOND);
    net.set_deaf(1, true);
    for round in 0..3 {
        for block in 0..4000u32 {
            let prefix = format!("10.{}.{}.0/26", 100 + block / 256, block % 256);
            if round == 1 { net.withdraw(0, &prefix) } else { net.originate(0, &prefix) }
        }
    }
    net.run_for(20 * SECOND);
    net.set_deaf(1, false);
    net.run_for(20 * SECOND);
    assert_eq!(net.nodes[1].kernel.len(), 4000);
    assert_eq!(net.state(0, 1), State::Established);
}

/// What each kernel must hold once everything is quiet: the next hops are the neighbours one step nearer to an origin.
fn reference(net: &Net, links: &BTreeSet<(usize, usize)>) -> Vec<BTreeMap<IpNet, Vec<IpAddr>>> {
    let near = |a: usize, b: usize| links.contains(&(a.min(b), a.max(b)));
    let count = net.nodes.len();
    let mut kernels = vec![BTreeMap::new(); count];
    let prefixes: BTreeSet<IpNet> = net.nodes.iter().flat_map(|node| node.own.keys().copied()).collect();
    for prefix in prefixes {
        let mut distance: Vec<Option<usize>> =
            net.nodes.iter().map(|node| node.own.contains_key(&prefix).then_some(0)).collect();
        for step in 0..count {
            for node in 0..count {
                let next_to = (0..count).any(|other| near(node, other) && distance[other] == Some(step));
                if distance[node].is_none() && next_to {
                    distance[node] = Some(step + 1);
                }
            }
        }
        for (node, kernel) in kernels.iter_mut().enumerate() {
            let Some(own @ 1..) = distance[node] else { continue };
            let via = |other: usize| match prefix {
                IpNet::V4(_) => address(other),
                IpNet::V6(_) => IpAddr::V6(address6(other)),
            };
            let hops =
                (0..count).filter(|o| near(node, *o) && distance[*o] == Some(own - 1)).map(via).collect();
            kernel.insert(prefix, hops);
        }
    }
    kernels
}

fn trouble(net: &mut Net, nodes: usize) {
    let pick = |net: &mut Net| usize::try_from(net.rng.below(u64::try_from(nodes).unwrap())).unwrap();
    let (a, b) = (pick(net), pick(net));
    let prefix = match net.rng.below(6) {
        n @ 0..3 => format!("10.244.{n}.0/26"),
        n => format!("fd00:244:{n}::/122"),
    };
    match net.rng.below(10) {
        0..3 => net.originate(a, &prefix),
        3..5 => net.withdraw(a, &prefix),
        5 => net.reset_connections(a, b),
        6 => net.silence(a, b),
        7 => net.heal(),
        8 => {
            net.kill(a);
            let pause = net.rng.below(3);
            net.run_for(Duration::from_secs(pause));
            net.start(a);
        }
        _ => net.input(a, Input::Reset { peer: name(b), message: "test".to_owned() }),
    }
    let pause = net.rng.below(4000);
    net.run_for(Duration::from_millis(pause));
}

fn converges(seed: u64, links: &[(usize, usize)], nodes: usize) {
    let links: BTreeSet<(usize, usize)> = links.iter().copied().collect();
    let peers = |node: usize| -> Vec<usize> {
        (0..nodes).filter(|o| links.contains(&(node.min(*o), node.max(*o)))).collect()
    };
    let mut net = Net::new(seed, (0..nodes).map(|node| config(node, &peers(node), true)).collect());
    net.start_all();
    for _ in 0..30 {
        trouble(&mut net, nodes);
    }
    net.heal();
    net.run_for(Duration::from_secs(600));
    for (a, b) in &links {
        assert_eq!(
            (net.state(*a, *b), net.state(*b, *a)),
            (State::Established, State::Established),
            "{a}-{b}"
        );
    }
    assert_eq!(net.live_connections(), links.len(), "one connection for each link");
    let expected = reference(&net, &links);
    for (node, expected) in expected.into_iter().enumerate() {
        assert_eq!(net.nodes[node].kernel, expected, "kernel of node {node}");
    }
}

#[test]
fn two_speakers_agree_after_any_trouble() {
    for_seeds(100, |seed| converges(seed, &[(0, 1)], 2));
}

#[test]
fn three_speakers_in_a_line_agree_after_any_trouble() {
    for_seeds(60, |seed| converges(seed, &[(0, 1), (1, 2)], 3));
}

#[test]
fn three_speakers_in_a_triangle_agree_after_any_trouble() {
    for_seeds(60, |seed| converges(seed, &[(0, 1), (1, 2), (0, 2)], 3));
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let mut net = pair(seed);
        net.start_all();
        for _ in 0..20 {
            trouble(&mut net, 2);
        }
        let start = net.start;
        net.nodes.iter().map(|n| n.events.iter().map(|(at, e)| (*at - start, e.clone())).collect()).collect()
    };
    let first: Vec<Vec<(Duration, SessionEvent)>> = history(5);
    assert!(first.iter().all(|events| events.len() > 10));
    assert_eq!(first, history(5));
    assert_ne!(first, history(6));
}
