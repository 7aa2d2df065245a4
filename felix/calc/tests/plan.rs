//! From table to table in three transactions: they arrive (P4), and a packet in flight meets the old
//! policy or the new one (P5); what the graph plans is what the tables differ by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod support;

use std::collections::BTreeSet;

use felix_calc::compile::Compiler;
use felix_calc::compile::sets::SetsCompiler;
use felix_calc::evaluator::{Decision, Evaluator};
use felix_calc::graph::{CalcGraph, Update};
use felix_calc::model::{NodeSettings, NodeState};
use felix_calc::packet::Packet;
use felix_calc::plan::{Operation, Plan, apply, plan};
use felix_calc::simulate::simulate_during;
use felix_calc::table::{Hook, Table};
use felix_calc::verdict::Verdict;

use support::change::{change, facts};
use support::generate::{Random, Style, packet, state};
use support::states;

const CHANGES: usize = 4;
const PACKETS: usize = 15;

#[test]
fn plans_arrive_and_no_packet_falls_between() {
    for seed in 0..states() / 2 {
        let mut random = Random::new(seed);
        let style = if seed.is_multiple_of(2) { Style::Kubernetes } else { Style::General };
        let start = state(&mut random, style);
        let mut graph = CalcGraph::new(NodeSettings::default());
        facts(&start).into_iter().for_each(|fact| graph.on_update(fact));
        let first = graph.flush();
        assert_eq!(first.plan, plan(&Table::default(), graph.table()), "seed {seed}");
        for step in 0..CHANGES {
            let updates = change(&mut random, graph.state(), style);
            one_change(&mut random, &mut graph, updates, &format!("seed {seed} step {step}"));
        }
    }
}

fn one_change(random: &mut Random, graph: &mut CalcGraph, updates: Vec<Update>, what: &str) {
    let (old_state, old_table) = (graph.state().clone(), graph.table().clone());
    updates.iter().cloned().for_each(|update| graph.on_update(update));
    let flush = graph.flush();
    let compiled = SetsCompiler::default().compile(graph.state());
    assert_eq!(*graph.table(), compiled.table, "{what}: table after {updates:#?}");
    assert_eq!(*graph.counters(), compiled.counters, "{what}: counters after {updates:#?}");
    assert_eq!(flush.plan, plan(&old_table, graph.table()), "{what}: plan after {updates:#?}");

    let mut tables = vec![old_table];
    for transaction in flush.plan.transactions() {
        let mut next = tables.last().unwrap().clone();
        apply(&mut next, transaction).unwrap_or_else(|error| panic!("{what}: {error} in {transaction:#?}"));
        tables.push(next);
    }
    assert_eq!(*tables.last().unwrap(), *graph.table(), "{what}: after {:#?}", flush.plan);
    assert!(plan(graph.table(), graph.table()).is_empty());

    for _ in 0..PACKETS {
        let chosen = if random.chance(50) { &old_state } else { graph.state() };
        let packet = packet(random, chosen);
        if let Some(why) = violation(&old_state, graph.state(), &tables, &packet) {
            panic!("{what}: {why}\n{updates:#?}\n{packet:#?}\n{:#?}\n{old_state:#?}", flush.plan);
        }
    }
}

/// A verdict, at some moment of some transaction, that neither the old state nor the new one gives.
fn violation(old: &NodeState, new: &NodeState, tables: &[Table], packet: &Packet) -> Option<String> {
    if packet.source == packet.destination && packet.input != packet.output {
        return None; // no route leads from a pod's own address to elsewhere
    }
    let allowed = acceptable(old, new, packet);
    for (number, pair) in tables.windows(2).enumerate().filter(|(_, pair)| pair[0] != pair[1]) {
        for flips_at in 0.. {
            let (walk, looks) = match simulate_during(&pair[0], &pair[1], flips_at, packet) {
                Ok(walked) => walked,
                Err(error) => return Some(format!("transaction {number}, look {flips_at}: {error}")),
            };
            if !allowed.contains(&walk.verdict) {
                let verdict = walk.verdict;
                return Some(format!(
                    "transaction {number}, look {flips_at}: {verdict:?}, not one of {allowed:?}"
                ));
            }
            if flips_at > looks {
                break;
            }
        }
    }
    None
}

/// Each direction by the old state or by the new one.
fn acceptable(old: &NodeState, new: &NodeState, packet: &Packet) -> BTreeSet<Verdict> {
    type Stage<'a> = fn(&Evaluator<'a>, &Packet) -> Decision;
    let (old, new) = (Evaluator::new(old), Evaluator::new(new));
    let stages: [Stage<'_>; 2] = match packet.hook() {
        Hook::Forward => [Evaluator::forward_egress, Evaluator::forward_ingress],
        Hook::Input => [Evaluator::input_egress, Evaluator::input_host],
        Hook::Output | Hook::Prerouting | Hook::Postrouting => return [Verdict::Allow].into(),
    };
    let mut verdicts = BTreeSet::new();
    for first in [&old, &new] {
        match stages[0](first, packet).verdict {
            Verdict::Allow => verdicts.extend([&old, &new].map(|second| stages[1](second, packet).verdict)),
            denied @ Verdict::Deny(_) => drop(verdicts.insert(denied)),
        }
    }
    verdicts
}

/// Two tables that have nothing to do with each other, as after a restart with other facts.
#[test]
fn any_table_becomes_any_other() {
    for seed in 0..states() / 4 {
        let mut random = Random::new(seed);
        let mut table = SetsCompiler::default().compile(&state(&mut random, Style::General)).table;
        let wanted = SetsCompiler::default().compile(&state(&mut random, Style::General)).table;
        for transaction in plan(&table, &wanted).transactions() {
            apply(&mut table, transaction).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        assert_eq!(table, wanted, "seed {seed}");
    }
}

/// A table of another release: same names, other shapes.
#[test]
fn a_table_of_other_shapes_is_replaced() {
    let wanted = SetsCompiler::default().compile(&state(&mut Random::new(1), Style::General)).table;
    let mut table = wanted.clone();
    table.sets.get_mut("known").unwrap().counter = true;
    table.chains.get_mut("fwd-e").unwrap().base.as_mut().unwrap().priority = 7;
    let plan = plan(&table, &wanted);
    assert!(plan.add.0.is_empty() && plan.remove.0.is_empty());
    apply(&mut table, &plan.switch).unwrap();
    assert_eq!(table, wanted);
}

/// Deliberate bugs of the planner: each must let some packet fall between.
#[test]
fn a_planner_that_orders_badly_is_caught() {
    type Bug = fn(&mut Plan);
    let bugs: [(&str, Bug); 4] = [
        ("29 old chains removed with the switch", |plan| {
            plan.switch.0.append(&mut plan.remove.0);
        }),
        ("31 new objects only with the switch", |plan| {
            plan.switch.0.splice(0..0, std::mem::take(&mut plan.add.0));
        }),
        ("an address that moves leaves its old set with the switch", |plan| hasten(plan, &["sel", "np"])),
        ("dispatch leaves together with the interface", |plan| hasten(plan, &["disp"])),
    ];
    for (name, bug) in bugs {
        let caught = (0..3_000).find(|seed| bug_shows(*seed, bug));
        eprintln!("{name}: caught at {caught:?}");
        assert!(caught.is_some(), "{name}: not caught");
    }
}

/// Deletes elements of these sets in the switch instead of after it.
fn hasten(plan: &mut Plan, prefixes: &[&str]) {
    let early = |operation: &Operation| matches!(operation, Operation::DeleteElements { set, .. } if prefixes.iter().any(|p| set.starts_with(p)));
    let (hastened, left) = std::mem::take(&mut plan.remove.0).into_iter().partition(early);
    plan.remove.0 = left;
    plan.switch.0.extend::<Vec<_>>(hastened);
}

fn bug_shows(seed: u64, bug: fn(&mut Plan)) -> bool {
    let mut random = Random::new(seed);
    let old = state(&mut random, Style::Kubernetes);
    let mut graph = CalcGraph::new(NodeSettings::default());
    facts(&old).into_iter().for_each(|fact| graph.on_update(fact));
    graph.flush();
    let mut tables = vec![graph.table().clone()];
    change(&mut random, &old, Style::Kubernetes).into_iter().for_each(|update| graph.on_update(update));
    let mut plan = graph.flush().plan;
    bug(&mut plan);
    for transaction in plan.transactions() {
        let mut next = tables.last().unwrap().clone();
        apply(&mut next, transaction).unwrap();
        tables.push(next);
    }
    (0..PACKETS).any(|_| {
        let packet = packet(&mut random, &old);
        violation(&old, graph.state(), &tables, &packet).is_some()
    })
}
