//! A table that was found, changed for single endpoints while everything else is a memory: they get what the memory
//! says, and no packet between others notices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;

use felix_calc::compile::Compiler;
use felix_calc::compile::sets::SetsCompiler;
use felix_calc::model::{Endpoint, NodeState};
use felix_calc::packet::Packet;
use felix_calc::plan::{Touched, Unlike, apply, keep_found, plan};
use felix_calc::simulate::simulate;
use felix_calc::table::Table;

use support::generate::{Random, Style, packet, state};
use support::states;

const PACKETS: usize = 20;

fn compile(state: &NodeState) -> Table {
    SetsCompiler::default().compile(state).table
}

/// A state and the same without one of its local endpoints.
fn with_and_without(random: &mut Random) -> (NodeState, NodeState, Endpoint) {
    let with = state(random, Style::General);
    let local: Vec<_> = with.endpoints.iter().filter(|(_, endpoint)| endpoint.is_local()).collect();
    let (id, endpoint) = random.pick(&local);
    let (id, endpoint) = (id.clone(), endpoint.clone());
    let mut without = with.clone();
    without.endpoints.remove(&id);
    (with, without, endpoint)
}

fn touched(endpoint: &Endpoint) -> Touched {
    Touched {
        interfaces: endpoint.interface.iter().cloned().collect(),
        addresses: endpoint.addresses.clone(),
    }
}

/// The kernel takes the way there, and on it nothing but elements is removed.
fn arrive(found: &Table, wanted: &Table, what: &str) {
    let mut table = found.clone();
    for transaction in plan(found, wanted).transactions() {
        apply(&mut table, transaction).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert_eq!(table, *wanted, "{what}");
    for name in found.chains.keys() {
        assert_eq!(table.chains.get(name), found.chains.get(name), "{what}: chain {name}");
    }
    assert!(found.sets.keys().all(|name| table.sets.contains_key(name)), "{what}: a set is gone");
}

fn same_verdict(one: &Table, other: &Table, packet: &Packet) -> bool {
    simulate(one, packet).unwrap().verdict == simulate(other, packet).unwrap().verdict
}

#[test]
fn who_comes_and_who_goes_is_treated_as_from_the_facts() {
    let mut differ = 0;
    for seed in 0..states() {
        let mut random = Random::new(seed);
        let (with, without, endpoint) = with_and_without(&mut random);
        let touched = touched(&endpoint);
        for (from, to, what) in [(&without, &with, "comes"), (&with, &without, "goes")] {
            let (found, compiled) = (compile(from), compile(to));
            let kept = keep_found(&found, &compiled, &touched).unwrap();
            arrive(&found, &kept, &format!("seed {seed}, {what}"));
            for _ in 0..PACKETS {
                let packet = packet(&mut random, &with);
                assert!(
                    same_verdict(&kept, &compiled, &packet),
                    "seed {seed}, {what}: {packet:#?}\n{endpoint:#?}"
                );
                differ += u64::from(!same_verdict(&found, &compiled, &packet));
            }
        }
    }
    assert!(differ > states(), "the endpoint made a difference {differ} times only");
}

/// The memory is of another moment altogether: policies, peers, settings, nodes.
#[test]
fn what_is_remembered_of_others_changes_nothing() {
    let mut differ = 0;
    for seed in 0..states() {
        let mut random = Random::new(seed);
        let found = compile(&state(&mut random, Style::General));
        let (memory, _, endpoint) = with_and_without(&mut random);
        let compiled = compile(&memory);
        assert_eq!(keep_found(&found, &compiled, &Touched::default()).unwrap(), found, "seed {seed}");
        let touched = touched(&endpoint);
        let kept = keep_found(&found, &compiled, &touched).unwrap();
        arrive(&found, &kept, &format!("seed {seed}"));
        for _ in 0..PACKETS {
            let packet = packet(&mut random, &memory);
            let interfaces: BTreeSet<&String> = packet.input.iter().chain(&packet.output).collect();
            let concerned = interfaces.iter().any(|name| touched.interfaces.contains(*name))
                || [packet.source, packet.destination]
                    .iter()
                    .any(|address| touched.addresses.contains(address));
            if !concerned {
                assert!(same_verdict(&kept, &found, &packet), "seed {seed}: {packet:#?}");
                differ += u64::from(!same_verdict(&kept, &compiled, &packet));
            }
        }
    }
    assert!(differ > states() / 4, "the memory said otherwise {differ} times only");
}

#[test]
fn a_table_of_another_release_takes_no_endpoint() {
    let (with, _, endpoint) = with_and_without(&mut Random::new(1));
    let compiled = compile(&with);
    let touched = touched(&endpoint);
    for spoil in [
        |table: &mut Table| drop(table.sets.remove("known")),
        |table: &mut Table| table.sets.get_mut("known").unwrap().counter = true,
    ] {
        let mut found = compiled.clone();
        spoil(&mut found);
        let refused = keep_found(&found, &compiled, &touched);
        assert_eq!(refused, Err(Unlike { set: "known".to_owned() }));
        assert_eq!(keep_found(&found, &compiled, &Touched::default()), Ok(found));
    }
}
