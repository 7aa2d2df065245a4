//! Speakers in virtual time, five in the gate and hundreds in `make test-deep`: whatever is cut, delayed, restarted and configured
//! anew, in the end every speaker was told, holds and installs what a reference computation says, and then nothing moves.
//!
//! `BGP_SEED`, `BGP_SEEDS`, `BGP_SPEAKERS` and `BGP_TROUBLES` turn it up; a seed that fails prints the command that replays it.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::print_stderr, dead_code)]

mod sim;
mod world;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use sim::{Net, Rng, for_seeds, knob};
use world::{Fault, Moves, Policies, World, held_paths};

const SECOND: Duration = Duration::from_secs(1);

fn speakers() -> usize {
    usize::try_from(knob("BGP_SPEAKERS", 5)).unwrap()
}

/// A world and its network after all the trouble, at rest.
fn after_trouble(seed: u64, speakers: usize) -> (World, Net) {
    after_trouble_with(seed, speakers, 0)
}

/// With so many paths per prefix (RFC 7911). Every other seed has filters, every other pair of them roles (RFC 9234), and every other
/// four of them several nodes in an AS, with reflectors (RFC 4456); the last two not where several paths are told: the reference
/// knows the best one alone, and where that one is held back, the next is told.
fn after_trouble_with(seed: u64, speakers: usize, paths: u8) -> (World, Net) {
    let mut rng = Rng(seed ^ 0xC0FF_EE00);
    let policies = Policies {
        filters: seed & 1 != 0,
        roles: seed & 2 != 0 && paths == 0,
        reflection: seed & 4 != 0 && paths == 0,
    };
    let mut world = World::random(&mut rng, speakers).with_policies(policies, &mut rng);
    world.paths = paths;
    let mut net = world.network(seed);
    net.start_all();
    net.run_for(5 * SECOND);
    for _ in 0..knob("BGP_TROUBLES", 40) {
        world.trouble(&mut net);
    }
    world.lift(&mut net);
    net.run_for(1200 * SECOND);
    (world, net)
}

#[test]
fn every_speaker_ends_with_the_reference_and_is_quiet() {
    for_seeds(40, |seed| {
        let (world, mut net) = after_trouble(seed, speakers());
        world.judge(&net).unwrap_or_else(|fault| panic!("{fault}"));
        let before = Moves::of(&net);
        net.run_for(600 * SECOND);
        assert_eq!(Moves::of(&net), before, "something moves although nothing happens");
    });
}

/// A table that a minute of trouble has gone over is the one of speakers that never saw any.
#[test]
fn history_leaves_no_trace() {
    for_seeds(12, |seed| {
        let (world, net) = after_trouble(seed, speakers());
        let mut fresh = world.network(seed + 1);
        fresh.start_all();
        fresh.run_for(600 * SECOND);
        world.judge(&fresh).unwrap_or_else(|fault| panic!("the fresh one: {fault}"));
        for (node, (old, new)) in net.nodes.iter().zip(&fresh.nodes).enumerate() {
            assert_eq!(old.kernel, new.kernel, "kernel of node {node}");
        }
    });
}

/// Several paths per prefix: who is told what, under which identifier, follows from what is.
#[test]
fn several_paths_per_prefix_leave_no_trace_of_history() {
    let further = AtomicUsize::new(0);
    for_seeds(16, |seed| {
        let (world, mut net) = after_trouble_with(seed, speakers(), 3);
        world.judge(&net).unwrap_or_else(|fault| panic!("{fault}"));
        let before = Moves::of(&net);
        net.run_for(600 * SECOND);
        assert_eq!(Moves::of(&net), before, "something moves although nothing happens");
        let mut fresh = world.network(seed + 1);
        fresh.start_all();
        fresh.run_for(600 * SECOND);
        for (from, to) in world.transit.keys() {
            let held = held_paths(&net, *from, *to);
            assert_eq!(held, held_paths(&fresh, *from, *to), "from node {from} to node {to}");
            let prefixes: BTreeSet<IpNet> = held.iter().map(|path| path.0).collect();
            further.fetch_add(held.len() - prefixes.len(), Ordering::Relaxed);
        }
    });
    assert!(further.into_inner() > 0, "nobody was told of a second path");
}

// ---- it can fail: each of these breaks one thing and is found

/// How many of the first seeds a judge finds a fault with.
fn found(spoil: impl Fn(&mut World, &mut Net), is_it: impl Fn(&Fault) -> bool) -> usize {
    let judged = (0..8).filter_map(|seed| {
        let (mut world, mut net) = after_trouble(seed, 5);
        world.judge(&net).unwrap();
        spoil(&mut world, &mut net);
        net.run_for(60 * SECOND);
        world.judge(&net).err()
    });
    judged.filter(is_it).count()
}

#[test]
fn a_route_that_leaks_past_its_export_policy_is_found() {
    let leaks = found(World::leak, |fault| matches!(fault, Fault::Leaked { .. }));
    assert!(leaks >= 4, "{leaks} of 8");
}

#[test]
fn a_withdrawal_that_is_lost_is_found() {
    let lost = found(World::lose_a_withdrawal, |fault| {
        matches!(fault, Fault::Leaked { .. } | Fault::Kernel { .. } | Fault::Path { .. })
    });
    assert_eq!(lost, 8);
}

#[test]
fn an_import_policy_that_is_not_applied_is_found() {
    let missed = found(World::forget_an_import_policy, |fault| {
        matches!(
            fault,
            Fault::Kernel { .. } | Fault::Path { .. } | Fault::Leaked { .. } | Fault::Missing { .. }
        )
    });
    assert!(missed >= 4, "{missed} of 8");
}

#[test]
fn a_filter_a_role_or_a_client_that_nobody_wrote_is_found() {
    let forgotten: [fn(&mut World, &mut Net); 3] =
        [World::forget_the_filters, World::forget_the_roles, World::forget_the_clients];
    for (forget, what) in forgotten.into_iter().zip(["filters", "roles", "clients"]) {
        let count = found(forget, |fault| !matches!(fault, Fault::Down { .. } | Fault::Connections { .. }));
        assert!((3..=4).contains(&count), "{what}: {count} of the 4 seeds that have some");
    }
}

#[test]
fn a_session_that_stays_down_is_found() {
    assert_eq!(found(World::cut_for_good, |fault| matches!(fault, Fault::Down { .. })), 8);
}

#[test]
fn a_flap_is_found() {
    let (world, mut net) = after_trouble(1, 5);
    let before = Moves::of(&net);
    world.flap(&mut net);
    net.run_for(60 * SECOND);
    world.judge(&net).unwrap();
    assert_ne!(Moves::of(&net), before, "all is as it was, and yet it moved");
}

#[test]
fn a_failing_seed_says_how_to_replay_it() {
    let command = sim::replay(17);
    let test = "a_failing_seed_says_how_to_replay_it -- --exact";
    assert!(command.starts_with("BGP_SEED=17 ") && command.contains("--test convergence"), "{command}");
    assert!(command.contains(test), "{command}");
}
