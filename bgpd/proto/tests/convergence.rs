//! Speakers in virtual time, five in the gate and hundreds in `make test-deep`: whatever is cut, delayed, restarted and configured
//! anew, in the end every speaker was told, holds and installs what a reference computation says, and then nothing moves.
//!
//! `BGP_SEED`, `BGP_SEEDS`, `BGP_SPEAKERS` and `BGP_TROUBLES` turn it up; a seed that fails prints the command that replays it.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::print_stderr, dead_code)]

mod sim;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use sim::seeds::{is_replay, knob, replay};
use sim::{Net, Rng, for_seeds};
use world::{FORGOTTEN, Fault, Kinds, Moves, RARE, Since, World, held_paths};

const SECOND: Duration = Duration::from_secs(1);
/// How many worlds are spoilt in one way.
const SPOILT: u64 = 5;

fn speakers() -> usize {
    usize::try_from(knob("BGP_SPEAKERS", 5)).unwrap()
}

/// A world and its network after all the trouble, at rest.
fn after_trouble(seed: u64, speakers: usize, kinds: Kinds) -> (World, Net) {
    let mut rng = Rng(seed ^ 0xC0FF_EE00);
    let mut world = World::random(&mut rng, speakers, kinds);
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

fn judge(world: &World, net: &Net, when: &str) {
    world.judge(net).unwrap_or_else(|fault| panic!("{when}: {fault}\n{:?}", world.kinds));
}

#[test]
fn every_speaker_ends_with_the_reference_and_is_quiet() {
    let mut met = BTreeMap::new();
    for_seeds(40, |seed| {
        let (world, mut net) = after_trouble(seed, speakers(), Kinds::of(seed));
        judge(&world, &net, "after the trouble");
        world.count(&net, &mut met);
        let before = Moves::of(&net);
        net.run_for(600 * SECOND);
        assert_eq!(Moves::of(&net), before, "something moves although nothing happens");
        if seed % 4 == 0 || is_replay() {
            bears_no_trace(&world, &net, seed);
        }
    });
    // One seed in twenty has the rare one.
    let seeds = knob("BGP_SEEDS", 40);
    let is_due = |what: &str| seeds >= if what == RARE { 200 } else { 40 };
    let missing: Vec<_> = met.iter().filter(|(what, count)| **count == 0 && is_due(what)).collect();
    assert!(is_replay() || missing.is_empty(), "no seed has {missing:?}: {met:?}");
}

/// A table that a minute of trouble has gone over is the one of speakers that never saw any, path identifiers included.
fn bears_no_trace(world: &World, net: &Net, seed: u64) {
    let mut fresh = world.network(seed + 1);
    fresh.start_all();
    fresh.run_for(600 * SECOND);
    judge(world, &fresh, "the fresh one");
    for (node, (old, new)) in net.nodes.iter().zip(&fresh.nodes).enumerate() {
        assert_eq!(old.kernel, new.kernel, "kernel of node {node}");
    }
    assert_eq!(held_paths(world, net), held_paths(world, &fresh));
}

/// RFC 4724, RFC 8538, RFC 9494: what is kept of a node that died or a link that is cut, and what everybody makes of it, until it goes;
/// and when all is back, nothing of it is left.
#[test]
fn what_is_lost_is_kept_for_its_time_and_told_so() {
    let mut old = 0;
    for_seeds(12, |seed| {
        let kinds = Kinds { restarts: true, ..Kinds::of(seed) };
        let world = World::random(&mut Rng(seed), speakers(), kinds);
        let mut net = world.network(seed);
        net.start_all();
        net.run_for(600 * SECOND);
        judge(&world, &net, "before");
        // A hold timer runs for up to 30 s before anything is lost.
        for ((since, after), pause) in world.lose(&mut net).into_iter().zip([45, 205, 550]) {
            net.run_for(pause * SECOND);
            judge(&after, &net, &format!("{since:?} after the loss"));
            if since == Since::Minutes {
                old += after.lost.values().filter(|kept| !kept.is_empty()).count();
            }
        }
        world.find(&mut net);
        net.run_for(600 * SECOND);
        judge(&world, &net, "after all is back");
    });
    assert!(is_replay() || knob("BGP_SEEDS", 12) < 12 || old > 0, "nothing grew old");
}

// ---- it can fail: each of these breaks one thing and is found

/// How many of the first seeds a judge finds a fault with that is one of these.
fn found(
    kinds: fn(u64) -> Kinds,
    mut spoil: impl FnMut(&mut World, &mut Net),
    is_it: impl Fn(&Fault) -> bool,
) -> usize {
    let judged = (0..SPOILT).filter_map(|seed| {
        let (mut world, mut net) = after_trouble(seed, 5, kinds(seed));
        judge(&world, &net, "before it is spoilt");
        spoil(&mut world, &mut net);
        net.run_for(60 * SECOND);
        world.judge(&net).err()
    });
    judged.filter(is_it).count()
}

#[test]
fn a_route_that_leaks_past_its_export_policy_is_found() {
    // Where nothing else keeps a route from being told.
    let leaks = found(|_| Kinds::default(), World::leak, |fault| matches!(fault, Fault::Leaked { .. }));
    assert!(leaks >= 2, "{leaks} of {SPOILT}");
}

#[test]
fn a_withdrawal_that_is_lost_is_found() {
    let lost = found(Kinds::of, World::lose_a_withdrawal, |fault| {
        matches!(fault, Fault::Leaked { .. } | Fault::Kernel { .. } | Fault::Path { .. })
    });
    assert_eq!(u64::try_from(lost).unwrap(), SPOILT);
}

#[test]
fn an_import_policy_that_is_not_applied_is_found() {
    let missed = found(Kinds::of, World::forget_an_import_policy, |fault| {
        !matches!(fault, Fault::Down { .. } | Fault::Connections { .. } | Fault::Told { .. })
    });
    assert!(missed >= 3, "{missed} of {SPOILT}");
}

/// All that people can configure here, each forgotten by the reference, in worlds that have all of it.
#[test]
fn whatever_is_forgotten_is_found() {
    let mut found = BTreeMap::new();
    for seed in 0..8 {
        let (world, net) = after_trouble(seed, 5, Kinds::ALL);
        judge(&world, &net, "before it is spoilt");
        for (what, forget) in FORGOTTEN {
            let mut spoilt = world.clone();
            forget(&mut spoilt);
            *found.entry(what).or_insert(0) += usize::from(spoilt.judge(&net).is_err());
        }
    }
    let missed: Vec<_> = found.iter().filter(|(_, count)| **count < 2).collect();
    assert!(missed.is_empty(), "of 8: {missed:?}");
}

#[test]
fn what_is_kept_too_long_or_not_at_all_is_found() {
    let mut missed = BTreeMap::from([(Since::Moments, 0), (Since::Minutes, 0)]);
    for seed in 0..SPOILT {
        // Where nothing else keeps a route from being told.
        let world = World::random(&mut Rng(seed), 5, Kinds { restarts: true, ..Kinds::default() });
        let mut net = world.network(seed);
        net.start_all();
        net.run_for(600 * SECOND);
        let [(_, moments), (_, minutes), (_, long)] = <[_; 3]>::try_from(world.lose(&mut net)).unwrap();
        net.run_for(45 * SECOND);
        *missed.get_mut(&Since::Moments).unwrap() += usize::from(minutes.judge(&net).is_err());
        net.run_for(205 * SECOND);
        let is_found = moments.judge(&net).is_err() && long.judge(&net).is_err();
        *missed.get_mut(&Since::Minutes).unwrap() += usize::from(is_found);
    }
    assert!(missed.values().all(|count| *count >= 2), "{missed:?}");
}

#[test]
fn a_session_that_stays_down_is_found() {
    let down = found(Kinds::of, World::cut_for_good, |fault| matches!(fault, Fault::Down { .. }));
    assert_eq!(u64::try_from(down).unwrap(), SPOILT);
}

#[test]
fn a_flap_is_found() {
    let (world, mut net) = after_trouble(1, 5, Kinds::of(1));
    let before = Moves::of(&net);
    world.flap(&mut net);
    net.run_for(60 * SECOND);
    judge(&world, &net, "after the flap");
    assert_ne!(Moves::of(&net), before, "all is as it was, and yet it moved");
}

#[test]
fn a_failing_seed_says_how_to_replay_it() {
    let command = replay(17);
    let test = "a_failing_seed_says_how_to_replay_it -- --exact";
    assert!(command.starts_with("BGP_SEED=17 ") && command.contains("--test convergence"), "{command}");
    assert!(command.contains(test), "{command}");
}
