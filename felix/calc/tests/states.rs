//! Named states: all facts, who reaches whom, and the table to the letter. Each sequence of them is walked
//! forwards, backwards, with facts reversed, with nothing in between, and all at once; the result must
//! depend on the facts alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod named;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use felix_calc::compile::Compiler;
use felix_calc::compile::sets::SetsCompiler;
use felix_calc::evaluator::node;
use felix_calc::graph::{CalcGraph, Change, Update};
use felix_calc::model::{Answer, NodeSettings, NodeState, TCP};
use felix_calc::nat::OutgoingNat;
use felix_calc::plan::apply;
use felix_calc::simulate::{simulate, simulate_source_nat};
use felix_calc::table::Table;
use felix_calc::verdict::Verdict;

use named::{NamedState, all, first_packet, reached};
use support::change::facts;
use support::generate::{Random, Style};
use support::{render, states};

#[test]
fn each_state_reaches_whom_it_says() {
    for NamedState { name, state, reaches } in all() {
        let table = SetsCompiler::default().compile(&state).table;
        let by_evaluator = reached(&state, |packet| node(&state, packet).verdict == Verdict::Allow);
        let by_table = reached(&state, |packet| simulate(&table, packet).unwrap().verdict == Verdict::Allow);
        let differ = |by: &BTreeSet<String>| by.symmetric_difference(&reaches).cloned().collect::<Vec<_>>();
        assert_eq!(differ(&by_evaluator), Vec::<String>::new(), "{name}: evaluator");
        assert_eq!(differ(&by_table), Vec::<String>::new(), "{name}: table");
        expectorate::assert_contents(format!("tests/golden/{name}.txt"), &render::table(&table));
    }
}

#[test]
fn what_leaves_all_pools_and_nodes_leaves_under_the_nodes_address() {
    let state = all().into_iter().find(|state| state.name == "outgoing").unwrap().state;
    let table = SetsCompiler::default().compile(&state).table;
    for (source, destination, hidden) in [
        ("10.0.0.1", "198.51.100.1", true),
        ("fd00::1", "2001:db8::1", true),
        ("10.0.0.1", "10.0.1.1", false),
        ("10.0.0.1", "192.0.2.1", false),
        ("fd00::1", "2001:db8:ffff::2", false),
        ("10.0.0.1", "203.0.113.7", false),
        ("10.9.0.1", "198.51.100.1", false),
        ("198.51.100.1", "10.0.0.1", false),
    ] {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        assert_eq!(state.nat.masquerades(source, destination), hidden, "{source} to {destination}");
        let [input, output] = ["eth0", "eth1"].map(|interface| Some(interface.to_owned()));
        let packet = first_packet(input, output, [source, destination], TCP, 80);
        assert_eq!(simulate_source_nat(&table, &packet), Ok(hidden), "{source} to {destination}");
    }
}

#[test]
fn a_pod_sends_from_its_addresses_and_from_what_it_is_allowed() {
    let state = all().into_iter().find(|state| state.name == "sources").unwrap().state;
    let table = SetsCompiler::default().compile(&state).table;
    for (pod, source, destination, passes) in [
        (1, "10.0.0.1", "203.0.113.7", true),
        (1, "198.51.100.255", "203.0.113.7", true),
        (1, "198.51.101.0", "203.0.113.7", false),
        (1, "2001:db8:5:ffff::1", "2001:db8:9::9", true),
        (1, "2001:db8:6::1", "2001:db8:9::9", false),
        (1, "203.0.113.9", "203.0.113.7", false),
        (1, "10.0.0.2", "203.0.113.7", false),
        (3, "203.0.113.9", "203.0.113.7", true),
        (3, "198.51.100.1", "203.0.113.7", false),
    ] {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let [input, output] = [format!("manx{pod:011x}"), "eth0".to_owned()].map(Some);
        let packet = first_packet(input, output, [source, destination], TCP, 80);
        let verdict = if passes { Verdict::Allow } else { Verdict::Deny(Answer::Drop) };
        assert_eq!(node(&state, &packet).verdict, verdict, "{pod} from {source}: evaluator");
        assert_eq!(simulate(&table, &packet).unwrap().verdict, verdict, "{pod} from {source}: table");
    }
}

/// What the kernel would hold after all plans so far, beside the graph.
struct Node {
    graph: CalcGraph,
    kernel: Table,
}

impl Node {
    fn new() -> Self {
        Self { graph: CalcGraph::new(NodeSettings::default()), kernel: Table::default() }
    }

    /// Tells what differs from the state of now; `backwards`: last key first.
    fn become_state(&mut self, wanted: &NodeState, backwards: bool) {
        let mut updates = difference(self.graph.state(), wanted);
        if backwards {
            updates.reverse();
        }
        updates.into_iter().for_each(|update| self.graph.on_update(update));
    }

    fn flush(&mut self, what: &str) {
        let flush = self.graph.flush();
        for transaction in flush.plan.transactions() {
            apply(&mut self.kernel, transaction).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let keys: Vec<String> = flush.changes.iter().map(key_of).collect();
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "{what}: a key twice in {keys:?}");
    }

    fn check(&self, wanted: &NodeState, what: &str) {
        assert_eq!(self.graph.state(), wanted, "{what}");
        let compiled = SetsCompiler::default().compile(wanted);
        assert_eq!(*self.graph.table(), compiled.table, "{what}: the graph's table");
        assert_eq!(*self.graph.counters(), compiled.counters, "{what}: the graph's counters");
        assert_eq!(self.kernel, compiled.table, "{what}: the kernel's table");
    }
}

#[test]
fn sequences_end_where_their_last_state_is() {
    let forwards = all();
    let mut backwards = all();
    backwards.reverse();
    let empty = NodeState::new(NodeSettings::default());
    for (order, sequence) in [("forwards", forwards), ("backwards", backwards)] {
        for reversed_facts in [false, true] {
            for between in [false, true] {
                let what = format!("{order}, reversed facts {reversed_facts}, gaps {between}");
                let (mut node, mut squashed) = (Node::new(), Node::new());
                for NamedState { name, state, .. } in &sequence {
                    if between {
                        node.become_state(&empty, reversed_facts);
                        node.flush(&what);
                        node.check(&empty, &format!("{what}: gap before {name}"));
                    }
                    node.become_state(state, reversed_facts);
                    node.flush(&what);
                    node.check(state, &format!("{what}: {name}"));
                    // Never flushed in between: all facts of all states pile up under their keys.
                    let news = facts(state).into_iter().chain(difference(&union(&sequence), state));
                    news.for_each(|update| squashed.graph.on_update(update));
                }
                squashed.flush(&what);
                squashed.check(&sequence.last().unwrap().state, &format!("{what}: squashed"));
            }
        }
    }
}

#[test]
fn each_state_alone_in_small_steps() {
    for NamedState { name, state, .. } in all() {
        let mut node = Node::new();
        let mut all = facts(&state);
        for step in 0..all.len() {
            node.graph.on_update(all.swap_remove((step * 7) % all.len()));
            node.flush(name);
            let so_far = node.graph.state().clone();
            node.check(&so_far, &format!("{name} after {step} facts"));
        }
        node.check(&state, name);
    }
}

/// P7: any order, any flushes in between.
#[test]
fn the_order_of_facts_does_not_matter() {
    for seed in 0..states() / 4 {
        let mut random = Random::new(seed);
        let state = support::generate::state(&mut random, Style::General);
        let mut facts = facts(&state);
        let mut graph = CalcGraph::new(NodeSettings::default());
        while !facts.is_empty() {
            let next = random.below(facts.len());
            graph.on_update(facts.swap_remove(next));
            if random.chance(30) {
                graph.flush();
            }
        }
        graph.flush();
        assert_eq!(*graph.state(), state, "seed {seed}");
        assert_eq!(*graph.table(), SetsCompiler::default().compile(&state).table, "seed {seed}");
    }
}

#[test]
fn told_twice_is_no_change() {
    let state = all().pop().unwrap().state;
    let mut node = Node::new();
    node.become_state(&state, false);
    node.flush("first");
    facts(&state).into_iter().for_each(|fact| node.graph.on_update(fact));
    let flush = node.graph.flush();
    assert!(flush.plan.is_empty() && flush.changes.is_empty() && flush.recheck.is_empty(), "{flush:#?}");
}

/// What refers to something that goes, and comes before what it refers to.
#[test]
fn a_referent_may_go_first_and_come_last() {
    let state = all().into_iter().find(|state| state.name == "tiers").unwrap().state;
    for missing in facts(&state) {
        let gone = match &missing {
            Update::Endpoint(id, _) => Update::Endpoint(id.clone(), None),
            Update::Namespace(name, _) => Update::Namespace(name.clone(), None),
            Update::Tier(name, _) => Update::Tier(name.clone(), None),
            Update::Policy(key, _) => Update::Policy(key.clone(), None),
            Update::Settings(_) => {
                Update::Settings(NodeSettings { deny_log_rate: 0, ..NodeSettings::default() })
            }
            Update::OutgoingNat(_) => Update::OutgoingNat(OutgoingNat::default()),
        };
        let mut node = Node::new();
        node.become_state(&state, false);
        node.flush("all");
        node.graph.on_update(gone);
        node.flush("gone");
        let without = node.graph.state().clone();
        node.check(&without, &format!("without {missing:?}"));
        node.graph.on_update(missing);
        node.flush("back");
        node.check(&state, "back");
    }
}

/// A pod elsewhere touches the sets that hold it and nothing else.
#[test]
fn a_remote_pod_costs_elements_only() {
    use felix_calc::plan::Operation;
    let state = all().into_iter().find(|state| state.name == "isolated").unwrap().state;
    let mut node = Node::new();
    node.become_state(&state, false);
    node.flush("all");
    let (id, mut remote) = named::remote_pod("web-9", "10.0.9.9", "web");
    node.graph.on_update(Update::Endpoint(id.clone(), Some(remote.clone())));
    let flush = node.graph.flush();
    let [add, switch, remove] = flush.plan.transactions();
    assert!(add.0.is_empty() && remove.0.is_empty());
    assert!(
        matches!(&switch.0[..], [Operation::AddElements { elements, .. }] if elements.len() == 1),
        "{switch:?}"
    );
    assert_eq!(flush.recheck, remote.addresses);
    assert!(flush.changes.is_empty());
    remote.labels = BTreeMap::new();
    node.graph.on_update(Update::Endpoint(id, Some(remote)));
    let switch = node.graph.flush().plan.switch;
    assert!(
        matches!(&switch.0[..], [Operation::DeleteElements { elements, .. }] if elements.len() == 1),
        "{switch:?}"
    );
}

fn key_of(change: &Change) -> String {
    match change {
        Change::Endpoint { id, .. } => format!("endpoint {id}"),
        Change::Policy { key, .. } => format!("policy {key}"),
    }
}

/// A state that holds every key of all.
fn union(sequence: &[NamedState]) -> NodeState {
    let mut union = NodeState::new(NodeSettings::default());
    for NamedState { state, .. } in sequence {
        union.endpoints.extend(state.endpoints.clone());
        union.namespaces.extend(state.namespaces.clone());
        union.tiers.extend(state.tiers.clone());
        union.policies.extend(state.policies.clone());
    }
    union
}

/// The updates from one state to another.
fn difference(from: &NodeState, to: &NodeState) -> Vec<Update> {
    let mut updates = vec![Update::Settings(to.settings.clone()), Update::OutgoingNat(to.nat.clone())];
    let mut keyed = |all: Vec<Update>| updates.extend(all);
    keyed(changed(&from.namespaces, &to.namespaces, Update::Namespace));
    keyed(changed(&from.endpoints, &to.endpoints, Update::Endpoint));
    keyed(changed(&from.policies, &to.policies, Update::Policy));
    keyed(changed(&from.tiers, &to.tiers, Update::Tier));
    updates
}

fn changed<K: Ord + Clone, V: PartialEq + Clone>(
    from: &BTreeMap<K, V>,
    to: &BTreeMap<K, V>,
    update: fn(K, Option<V>) -> Update,
) -> Vec<Update> {
    let keys: BTreeSet<&K> = from.keys().chain(to.keys()).collect();
    let differs = |key: &&K| from.get(*key) != to.get(*key);
    keys.into_iter().filter(differs).map(|key| update(key.clone(), to.get(key).cloned())).collect()
}
