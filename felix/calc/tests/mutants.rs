//! Can the property fail? Each deliberate bug of a compiler must be caught by it.
//!
//! A bug is written as what it does: to the state that the compiler reads, or to the table that it makes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]
#![allow(clippy::wildcard_enum_match_arm)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use felix_calc::compile::Compiler;
use felix_calc::compile::sets::SetsCompiler;
use felix_calc::model::{
    Action, Answer, HostAction, Namespaces, NodeState, Peer, Rule, SCTP, Selection, TierDefault, Traffic,
};
use felix_calc::selector::Selector;
use felix_calc::table::{Element, Family, Field, Rule as TableRule, Set, Statement, Table, Value, Verdict};
use ipnet::IpNet;

use support::disagreement;
use support::generate::{Random, Style, packet, state};

const STATES: u64 = 3_000;
const PACKETS: usize = 60;

enum Bug {
    Reads(fn(&mut NodeState)),
    Writes(fn(&mut Table)),
}

use Bug::{Reads, Writes};

/// Number of the mutant in policy-compiler.md §8 where it is one of those.
const BUGS: &[(&str, Bug)] = &[
    ("3 except lost", Reads(|s| peers(s, |p| p.not_nets.clear()))),
    ("4 strangers selected as if they had no labels", Reads(strangers_are_pods)),
    ("7 source ports ignored", Reads(|s| traffic(s, |t| t.source_ports.clear()))),
    ("8 log lost", Writes(|t| statements(t, |r| r.statements.retain(|s| !is_policy_log(s))))),
    ("9 protocol not compared", Writes(|t| policy_rules(t, |r| r.statements.retain(|s| !is_protocol(s))))),
    ("10 range end exclusive", Writes(|t| ranges(t, port_minus_one))),
    ("11 not-ports as an inverted lookup on any protocol", Writes(any_protocol_for_negated_ports)),
    ("12 not-ICMP ignored", Reads(|s| traffic(s, |t| t.not_icmp = None))),
    ("13 ICMP code ignored", Reads(|s| traffic(s, |t| t.icmp.iter_mut().for_each(|i| i.code = None)))),
    ("14 egress port name resolved at the sender", Writes(sender_ports)),
    ("15 egress port names match nothing", Writes(|t| sets(t, "np", |s| s.elements.clear()))),
    ("16 own numbers of the first endpoint for all", Reads(ports_of_first)),
    ("17 policies by name, not order", Reads(|s| s.policies.values_mut().for_each(|p| p.order = None))),
    ("18 empty tier's default applied", Reads(empty_tiers_deny)),
    ("22 SCTP forgotten", Writes(|t| policy_rules(t, forget_sctp))),
    ("23 Pass compiled as Accept", Writes(pass_accepts)),
    ("24 goto instead of jump to a tier", Writes(jumps_go)),
    ("25 last address of a net left out", Writes(|t| ranges(t, |_, last| address_minus_one(last)))),
    ("26 dispatch of the other direction", Writes(swap_dispatch)),
    ("Pass keeps the tier's default", Reads(pass_denies)),
    ("policy without rules does not isolate", Reads(empty_is_absent)),
    ("policy of one type read as both", Reads(both_types)),
    ("namespace of a peer ignored", Reads(|s| selections(s, |x| x.namespaces = Namespaces::All))),
    ("namespace selector ignored", Reads(namespace_selector_ignored)),
    ("only the first peer", Reads(|s| rules(s, |r| r.peers.truncate(1)))),
    ("only the first traffic", Reads(|s| rules(s, |r| r.traffic.truncate(1)))),
    ("rules last to first", Reads(|s| lists(s, |l| l.reverse()))),
    ("Reject compiled as Drop", Reads(|s| rules(s, reject_drops))),
    ("implicit deny answers wrongly", Reads(|s| s.settings.implicit_deny = other(s.settings.implicit_deny))),
    ("ipVersion ignored", Reads(|s| rules(s, |r| r.family = None))),
    ("IPv6 forgotten in rules", Writes(|t| policy_rules(t, forget_ipv6))),
    ("negated lookup not negated", Writes(|t| policy_rules(t, never_negated))),
    (
        "IPv6 sources not checked",
        Writes(|t| t.chains.get_mut("fwd-e").unwrap().rules.drain(1..2).for_each(drop)),
    ),
    (
        "connections accepted before the source check",
        Writes(|t| t.chains.get_mut("fwd-e").unwrap().rules.rotate_left(2)),
    ),
    ("established traffic judged anew", Writes(|t| drop(t.chains.get_mut("fwd-i").unwrap().rules.remove(0)))),
    (
        "unknown destination interface passes",
        Writes(|t| drop(t.chains.get_mut("fwd-i").unwrap().rules.remove(2))),
    ),
    ("source prefixes ignored", Reads(|s| sources(s, |x| x.clear()))),
    ("source prefixes of all pods in one", Reads(shared_sources)),
    ("who may send from elsewhere is not policed", Writes(|t| chains(t, "src-", returns_accept))),
    ("invalid packets pass", Writes(|t| statements(t, invalid_passes))),
    ("pod to itself policed", Writes(|t| sets(t, "self", |s| s.elements.clear()))),
    ("router advertisements accepted", Writes(|t| statements(t, |r| kinds(r, 134, 200)))),
    (
        "discovery with any hop limit",
        Writes(|t| statements(t, |r| r.statements.retain(|s| !is_hop_limit(s)))),
    ),
    ("an Allow opens bgpd's ports", Writes(|t| drop(t.chains.remove("in-host")))),
    ("workload-to-host ignored", Reads(|s| s.settings.workload_to_host = HostAction::Allow)),
    ("service loops pass", Reads(|s| s.settings.service_prefixes.clear())),
    ("what is of no connection loops", Writes(|t| statements(t, only_connections))),
    ("natOutgoing ignored", Reads(|s| s.nat.masquerade.clear())),
    ("natExclude ignored", Reads(|s| s.nat.masquerade.values_mut().for_each(|x| x.clear()))),
    ("masquerade towards pools", Reads(|s| s.nat.pools.clear())),
    ("masquerade towards nodes", Writes(|t| sets(t, "nodes", |s| s.elements.clear()))),
    ("equal rules of two policies counted as one", Writes(|t| t.chains.values_mut().for_each(drop_denies))),
];

#[test]
fn every_deliberate_bug_is_caught() {
    let mut missed = Vec::new();
    for (name, bug) in BUGS {
        match (0..STATES).find(|seed| caught(*seed, bug)) {
            Some(seed) => eprintln!("caught at state {seed:4}: {name}"),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not caught in {STATES} states: {missed:#?}");
}

/// The same states and packets without a bug: what catches a mutant must not catch the compiler itself.
#[test]
fn without_a_bug_nothing_is_caught() {
    assert!(!(0..200).any(|seed| caught(seed, &Reads(|_| ()))));
}

fn caught(seed: u64, bug: &Bug) -> bool {
    let mut random = Random::new(seed);
    let state = state(&mut random, Style::General);
    let mut compiled = match bug {
        Reads(change) => {
            let mut read = state.clone();
            change(&mut read);
            SetsCompiler::default().compile(&read)
        }
        Writes(_) => SetsCompiler::default().compile(&state),
    };
    if let Writes(change) = bug {
        let before = compiled.table.clone();
        change(&mut compiled.table);
        if before == compiled.table {
            return false;
        }
    }
    (0..PACKETS).any(|_| {
        let packet = packet(&mut random, &state);
        differs(&state, &compiled, &packet)
    })
}

fn differs(
    state: &NodeState,
    compiled: &felix_calc::compile::Compiled,
    packet: &felix_calc::packet::Packet,
) -> bool {
    // A bug may make a table whose counters belong to nobody: that is caught as well.
    std::panic::catch_unwind(|| disagreement(state, compiled, packet).is_some()).unwrap_or(true)
}

// ------------------------------------------------------------------------------- bugs in what is read

fn lists(state: &mut NodeState, change: fn(&mut Vec<Rule>)) {
    for policy in state.policies.values_mut() {
        [&mut policy.ingress, &mut policy.egress].into_iter().flatten().for_each(change);
    }
}

fn rules(state: &mut NodeState, change: fn(&mut Rule)) {
    for policy in state.policies.values_mut() {
        [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten().for_each(change);
    }
}

fn peers(state: &mut NodeState, change: fn(&mut Peer)) {
    for policy in state.policies.values_mut() {
        let rules = [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten();
        rules.flat_map(|rule| &mut rule.peers).for_each(change);
    }
}

fn traffic(state: &mut NodeState, change: fn(&mut Traffic)) {
    for policy in state.policies.values_mut() {
        let rules = [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten();
        rules.flat_map(|rule| &mut rule.traffic).for_each(change);
    }
}

fn selections(state: &mut NodeState, change: fn(&mut Selection)) {
    for policy in state.policies.values_mut() {
        let rules = [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten();
        let peers = rules.flat_map(|rule| &mut rule.peers);
        peers.flat_map(|peer| [&mut peer.selection, &mut peer.not_selection]).flatten().for_each(change);
    }
}

fn sources(state: &mut NodeState, change: fn(&mut BTreeSet<IpNet>)) {
    state.endpoints.values_mut().for_each(|endpoint| change(&mut endpoint.sources));
}

fn shared_sources(state: &mut NodeState) {
    let all: BTreeSet<IpNet> =
        state.endpoints.values().flat_map(|endpoint| endpoint.sources.clone()).collect();
    state.endpoints.values_mut().for_each(|endpoint| endpoint.sources.clone_from(&all));
}

fn strangers_are_pods(state: &mut NodeState) {
    peers(state, |peer| {
        let nobody = |selection: &Selection| {
            matches!(selection.namespaces, Namespaces::All) && selection.selector.matches(&BTreeMap::new())
        };
        if peer.selection.as_ref().is_some_and(nobody) {
            peer.selection = None;
        }
    });
}

fn ports_of_first(state: &mut NodeState) {
    let first = state.endpoints.values().next().unwrap().ports.clone();
    state.endpoints.values_mut().filter(|e| e.is_local()).for_each(|e| e.ports = first.clone());
}

fn empty_tiers_deny(state: &mut NodeState) {
    let any = state.policies.values().next().unwrap().clone();
    for (number, tier) in state.tiers.keys().cloned().collect::<Vec<_>>().into_iter().enumerate() {
        let mut policy = any.clone();
        let everybody = Selection { namespaces: Namespaces::All, selector: Selector::All };
        (policy.tier, policy.applies_to) = (tier, everybody);
        (policy.ingress, policy.egress) = (Some(Vec::new()), Some(Vec::new()));
        let mut key = state.policies.keys().next().unwrap().clone();
        key.name = format!("empty-{number}");
        state.policies.insert(key, policy);
    }
}

fn pass_denies(state: &mut NodeState) {
    state.tiers.values_mut().for_each(|tier| tier.default = TierDefault::Deny);
}

fn empty_is_absent(state: &mut NodeState) {
    for policy in state.policies.values_mut() {
        for rules in [&mut policy.ingress, &mut policy.egress] {
            if rules.as_ref().is_some_and(Vec::is_empty) {
                *rules = None;
            }
        }
    }
}

fn both_types(state: &mut NodeState) {
    for policy in state.policies.values_mut() {
        policy.ingress.get_or_insert_default();
        policy.egress.get_or_insert_default();
    }
}

fn namespace_selector_ignored(state: &mut NodeState) {
    selections(state, |selection| {
        if matches!(selection.namespaces, Namespaces::Matching(_)) {
            selection.namespaces = Namespaces::All;
        }
    });
}

fn reject_drops(rule: &mut Rule) {
    if rule.action == Action::Reject {
        rule.action = Action::Deny;
    }
}

fn other(answer: Answer) -> Answer {
    match answer {
        Answer::Drop => Answer::Reject,
        Answer::Reject => Answer::Drop,
    }
}

// ------------------------------------------------------------------------------ bugs in what is written

fn statements(table: &mut Table, change: fn(&mut TableRule)) {
    table.chains.values_mut().flat_map(|chain| &mut chain.rules).for_each(change);
}

/// Rules of tier chains.
fn policy_rules(table: &mut Table, change: fn(&mut TableRule)) {
    let tiers =
        table.chains.iter_mut().filter(|(name, _)| name.starts_with("p-") || name.starts_with("any-"));
    tiers.flat_map(|(_, chain)| &mut chain.rules).for_each(change);
}

fn sets(table: &mut Table, prefix: &str, change: fn(&mut Set)) {
    table.sets.iter_mut().filter(|(name, _)| name.starts_with(prefix)).for_each(|(_, set)| change(set));
}

fn chains(table: &mut Table, prefix: &str, change: fn(&mut Statement)) {
    let chains = table.chains.iter_mut().filter(|(name, _)| name.starts_with(prefix));
    chains.flat_map(|(_, c)| &mut c.rules).flat_map(|r| &mut r.statements).for_each(change);
}

fn returns_accept(statement: &mut Statement) {
    if *statement == Statement::Verdict(Verdict::Return) {
        *statement = Statement::Verdict(Verdict::Accept);
    }
}

/// Ranges in rules and in sets.
fn ranges(table: &mut Table, change: fn(&Value, &mut Value)) {
    for statement in table.chains.values_mut().flat_map(|c| &mut c.rules).flat_map(|r| &mut r.statements) {
        if let Statement::InRange { first, last, .. } = statement {
            change(first, last);
        }
    }
    for set in table.sets.values_mut().filter(|set| set.interval) {
        set.elements = std::mem::take(&mut set.elements)
            .into_iter()
            .map(|(mut element, data)| {
                if let Element::Range { first, last, .. } = &mut element {
                    change(first, last);
                }
                (element, data)
            })
            .collect();
    }
}

fn port_minus_one(first: &Value, last: &mut Value) {
    if let (Value::Port(first), Value::Port(last)) = (first, last)
        && *first < *last
    {
        *last -= 1;
    }
}

fn address_minus_one(last: &mut Value) {
    match last {
        Value::Ipv4(address) => *address = (u32::from(*address) - 1).into(),
        Value::Ipv6(address) => *address = (u128::from(*address) - 1).into(),
        _ => {}
    }
}

fn is_policy_log(statement: &Statement) -> bool {
    matches!(statement, Statement::Log { prefix, .. } if prefix.starts_with("manx:log:"))
}

fn is_protocol(statement: &Statement) -> bool {
    matches!(statement, Statement::Match { field: Field::Protocol, .. })
}

fn is_hop_limit(statement: &Statement) -> bool {
    matches!(statement, Statement::Match { field: Field::HopLimit, .. })
}

fn any_protocol_for_negated_ports(table: &mut Table) {
    policy_rules(table, |rule| {
        let inverted = |s: &Statement| match s {
            Statement::Match { field, negated, .. } => *negated && *field == Field::DestinationPort,
            Statement::InRange { field, negated, .. } => *negated && *field == Field::DestinationPort,
            Statement::InSet { fields, negated, .. } => *negated && fields[..] == [Field::DestinationPort],
            _ => false,
        };
        if rule.statements.iter().any(inverted) {
            rule.statements.retain(|s| !is_protocol(s));
        }
    });
}

fn sender_ports(table: &mut Table) {
    policy_rules(table, |rule| {
        for statement in &mut rule.statements {
            if let Statement::InSet { fields, .. } = statement
                && fields.len() == 3
            {
                fields[0] = match fields[0] {
                    Field::DestinationV4 => Field::SourceV4,
                    _ => Field::SourceV6,
                };
            }
        }
    });
}

fn forget_sctp(rule: &mut TableRule) {
    let sctp = Statement::Match { field: Field::Protocol, negated: false, value: Value::Protocol(SCTP) };
    if rule.statements.contains(&sctp) {
        rule.statements.insert(
            0,
            Statement::Match { field: Field::Protocol, negated: false, value: Value::Protocol(6) },
        );
    }
}

fn pass_accepts(table: &mut Table) {
    policy_rules(table, |rule| {
        if let [.., Statement::Counter, Statement::Verdict(verdict @ Verdict::Return)] =
            &mut rule.statements[..]
        {
            *verdict = Verdict::Accept;
        }
    });
}

fn jumps_go(table: &mut Table) {
    policy_rules(table, |rule| {
        if let [Statement::Verdict(verdict)] = &mut rule.statements[..]
            && let Verdict::Jump(chain) = verdict
        {
            *verdict = Verdict::Goto(chain.clone());
        }
    });
}

fn swap_dispatch(table: &mut Table) {
    let egress = table.sets.remove("disp-e").unwrap();
    let ingress = table.sets.insert("disp-i".to_owned(), egress).unwrap();
    table.sets.insert("disp-e".to_owned(), ingress);
}

fn forget_ipv6(rule: &mut TableRule) {
    if rule.statements.contains(&Statement::Family(Family::Ipv6)) {
        rule.statements.insert(0, Statement::Family(Family::Ipv4));
    }
}

fn never_negated(rule: &mut TableRule) {
    for statement in &mut rule.statements {
        if let Statement::InSet { negated, .. } = statement {
            *negated = false;
        }
    }
}

fn invalid_passes(rule: &mut TableRule) {
    for statement in &mut rule.statements {
        if let Statement::ConnectionState { invalid, .. } = statement {
            *invalid = false;
        }
    }
}

fn only_connections(rule: &mut TableRule) {
    for statement in &mut rule.statements {
        if let Statement::ConnectionState { invalid, untracked: untracked @ true, .. } = statement {
            (*invalid, *untracked) = (false, false);
        }
    }
}

fn kinds(rule: &mut TableRule, from: u8, to: u8) {
    for statement in &mut rule.statements {
        if let Statement::Match { field: Field::Icmpv6Type, value, .. } = statement
            && *value == Value::Protocol(from)
        {
            *value = Value::Protocol(to);
        }
    }
}

/// All denials end in one chain, as if their content alone named them.
fn drop_denies(chain: &mut felix_calc::table::Chain) {
    for statement in chain.rules.iter_mut().flat_map(|rule| &mut rule.statements) {
        if let Statement::Verdict(verdict @ Verdict::Goto(_)) = statement
            && matches!(verdict, Verdict::Goto(name) if name.starts_with("deny-"))
        {
            *verdict = Verdict::Drop;
        }
    }
}
