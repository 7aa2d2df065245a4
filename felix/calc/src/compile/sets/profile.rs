//! The policies of one endpoint and direction as chains. Endpoints with equal policies share them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Compiled;
use super::base::{ITSELF, dispatch_maps, interface, locals};
use super::builder::{Builder, commented, rule, rule_text};
use super::peers::{address_field, conditions};
use super::traffic::{Way, ways};
use crate::model::{
    Action, Answer, Direction, NamedPort, NodeState, Peer, PolicyKey, Rule as PolicyRule, RuleId,
    TierDefault, Traffic,
};
use crate::resolve::{Applied, Members, Tiers};
use crate::table::{Data, Element, Family, Field, Rule, Statement, Verdict};
use crate::verdict::Reason;

/// What decides an endpoint's chains: its policies, and its own numbers behind the port names they use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Profile {
    direction: Direction,
    tiers: Tiers,
    own: BTreeSet<NamedPort>,
}

impl Profile {
    pub(super) fn reads(&self, policies: &BTreeSet<PolicyKey>) -> bool {
        self.tiers.iter().flat_map(|(_, keys)| keys).any(|key| policies.contains(key))
    }
}

/// A profile's chain with everything that it needs: what a profile costs to compile is paid once for as
/// long as its policies, the tiers and the settings stay as they are.
#[derive(Clone, Debug)]
pub(super) struct Fragment {
    chain: String,
    made: Compiled,
}

/// Every endpoint with at least one policy, by direction; the others are in no map and pass. `kept` holds
/// fragments that are still true, and afterwards exactly those in use.
pub(super) fn build(
    builder: &mut Builder<'_>,
    state: &NodeState,
    applied: &Applied,
    kept: &mut BTreeMap<Profile, Fragment>,
) {
    let mut before = std::mem::take(kept);
    let mut maps: BTreeMap<Direction, BTreeMap<Element, Option<Data>>> = BTreeMap::new();
    for (name, (id, endpoint)) in locals(state, applied) {
        for direction in Direction::BOTH {
            let tiers = applied.tiers(id, direction, state);
            if tiers.is_empty() {
                continue;
            }
            let own = own_ports(&endpoint.ports, &tiers, direction, state);
            let profile = Profile { direction, tiers, own };
            let known = before.remove(&profile);
            let fragment = kept.entry(profile).or_insert_with_key(|profile| {
                known.unwrap_or_else(|| {
                    let mut alone = Builder::new(state);
                    let chain = profile_chain(&mut alone, profile);
                    Fragment { chain, made: alone.finish() }
                })
            });
            let element = Element::Exact(vec![interface(name)]);
            let verdict = Data::Verdict(Verdict::Goto(fragment.chain.clone()));
            maps.entry(direction).or_default().insert(element, Some(verdict));
        }
    }
    kept.values().for_each(|fragment| builder.include(&fragment.made));
    let egress = maps.remove(&Direction::Egress).unwrap_or_default();
    let ingress = maps.remove(&Direction::Ingress).unwrap_or_default();
    dispatch_maps(builder, egress, ingress);
}

/// Behind names that no rule uses, numbers are left out: they must not keep endpoints apart.
fn own_ports(
    ports: &BTreeSet<NamedPort>,
    tiers: &Tiers,
    direction: Direction,
    state: &NodeState,
) -> BTreeSet<NamedPort> {
    if direction == Direction::Egress {
        return BTreeSet::new();
    }
    let used: BTreeSet<&String> = tiers
        .iter()
        .flat_map(|(_, keys)| keys)
        .filter_map(|key| state.policies.get(key)?.rules(direction))
        .flatten()
        .flat_map(|rule| &rule.traffic)
        .flat_map(|traffic| &traffic.port_names)
        .collect();
    ports.iter().filter(|port| used.contains(&port.name)).cloned().collect()
}

fn profile_chain(builder: &mut Builder<'_>, profile: &Profile) -> String {
    let Profile { direction, tiers, own } = profile;
    let letter = match direction {
        Direction::Egress => "e",
        Direction::Ingress => "i",
    };
    let itself = Statement::InSet {
        fields: vec![Field::InputInterface, Field::OutputInterface],
        negated: false,
        set: ITSELF.to_owned(),
    };
    let mut rules = vec![commented(vec![itself, Statement::Verdict(Verdict::Accept)], "a pod to itself")];
    for (number, (tier, keys)) in tiers.iter().enumerate() {
        let chain = tier_chain(builder, tier, keys, *direction, own, &format!("-{letter}-t{number}"));
        rules.push(commented(vec![Statement::Verdict(Verdict::Jump(chain))], &format!("tier {tier}")));
    }
    rules.push(rule(vec![Statement::Verdict(Verdict::Accept)]));
    builder.chain("p", &format!("-{letter}"), rules, Vec::new())
}

/// Return means: not decided in this tier.
fn tier_chain(
    builder: &mut Builder<'_>,
    tier: &str,
    keys: &[PolicyKey],
    direction: Direction,
    own: &BTreeSet<NamedPort>,
    suffix: &str,
) -> String {
    let state = builder.state;
    let mut chain = Lines::default();
    for key in keys {
        let Some(rules) = state.policies.get(key).and_then(|policy| policy.rules(direction)) else {
            continue;
        };
        for policy_rule in rules {
            let id = RuleId { policy: key.clone(), direction, index: policy_rule.index };
            let ways = rule_ways(builder, policy_rule, direction, own);
            write_rule(builder, &mut chain, policy_rule, id, ways);
        }
    }
    let default = state.tiers.get(tier).map(|tier| tier.default);
    let end = match default {
        Some(TierDefault::Deny) => {
            let reason = Reason::TierDefault { tier: tier.to_owned(), direction };
            let text = format!("tier:{tier}/{}", direction.as_str());
            builder.deny(reason, &text, state.settings.implicit_deny)
        }
        Some(TierDefault::Pass) | None => Verdict::Return,
    };
    chain.rules.push(commented(vec![Statement::Verdict(end)], &format!("end of tier {tier}")));
    builder.chain("p", suffix, chain.rules, chain.counted)
}

#[derive(Default)]
struct Lines {
    rules: Vec<Rule>,
    counted: Vec<(usize, Reason)>,
}

/// All ways to satisfy a rule: family, then protocol and ports (a miss costs less than a set's), then the
/// peer's sets.
fn rule_ways(
    builder: &mut Builder<'_>,
    rule: &PolicyRule,
    direction: Direction,
    own: &BTreeSet<NamedPort>,
) -> Vec<Vec<Statement>> {
    let everybody = [Peer::default()];
    let everything = [Traffic::default()];
    let peers = if rule.peers.is_empty() { &everybody[..] } else { &rule.peers };
    let traffics = if rule.traffic.is_empty() { &everything[..] } else { &rule.traffic };
    let mut all = Vec::new();
    for peer in peers {
        for traffic in traffics {
            for way in ways(builder, traffic, direction, own) {
                if *peer == Peer::default() && rule.family.is_none() && way.port_names.is_none() {
                    all.push(way.conditions);
                    continue;
                }
                for family in [Family::Ipv4, Family::Ipv6] {
                    if rule.family.is_none_or(|wanted| wanted == family) {
                        all.extend(of_family(builder, peer, &way, direction, family));
                    }
                }
            }
        }
    }
    all
}

fn of_family(
    builder: &mut Builder<'_>,
    peer: &Peer,
    way: &Way,
    direction: Direction,
    family: Family,
) -> Option<Vec<Statement>> {
    // A set of (address, protocol, number) holds the selected endpoints only.
    let peer_conditions = conditions(builder, peer, direction, family, way.port_names.is_some())?;
    let mut statements = vec![Statement::Family(family)];
    statements.extend(way.conditions.iter().cloned());
    statements.extend(peer_conditions);
    if let Some(names) = &way.port_names {
        let members = Members { selection: peer.selection.clone(), port_names: Some(names.clone()) };
        let set = builder.members(members, family);
        let fields = vec![address_field(direction, family), Field::Protocol, Field::DestinationPort];
        statements.push(Statement::InSet { fields, negated: false, set });
    }
    Some(statements)
}

fn write_rule(
    builder: &mut Builder<'_>,
    chain: &mut Lines,
    policy_rule: &PolicyRule,
    id: RuleId,
    ways: Vec<Vec<Statement>>,
) {
    if ways.is_empty() {
        return; // conditions that exclude each other: no packet meets it
    }
    let text = rule_text(policy_rule, &id);
    let reason = Reason::Rule(id.clone());
    let counting = |verdict| vec![Statement::Counter, Statement::Verdict(verdict)];
    let end = match policy_rule.action {
        Action::Allow => counting(Verdict::Accept),
        Action::Pass => counting(Verdict::Return),
        Action::Deny => vec![Statement::Verdict(builder.deny(reason.clone(), &text, Answer::Drop))],
        Action::Reject => vec![Statement::Verdict(builder.deny(reason.clone(), &text, Answer::Reject))],
        Action::Log => match ways.as_slice() {
            [_, _, ..] => return write_log_of_many(builder, chain, policy_rule, id, ways),
            [] | [_] => log_statements(builder, policy_rule, &id),
        },
    };
    for conditions in ways {
        if end.contains(&Statement::Counter) {
            chain.counted.push((chain.rules.len(), reason.clone()));
        }
        chain.rules.push(commented([conditions, end.clone()].concat(), &text));
    }
}

/// A Log rule that can be satisfied in several ways must log once, so they stand in a chain of their own
/// that the first hit leaves.
fn write_log_of_many(
    builder: &mut Builder<'_>,
    chain: &mut Lines,
    policy_rule: &PolicyRule,
    id: RuleId,
    ways: Vec<Vec<Statement>>,
) {
    let text = rule_text(policy_rule, &id);
    let reason = Reason::Rule(id.clone());
    let lines = vec![
        commented(log_statements(builder, policy_rule, &id), &text),
        rule(vec![Statement::Verdict(Verdict::Return)]),
    ];
    let log = builder.chain("log", "", lines, vec![(0, reason)]);
    let hit = Statement::Verdict(Verdict::Goto(log));
    let mut any: Vec<Rule> =
        ways.into_iter().map(|conditions| rule([conditions, vec![hit.clone()]].concat())).collect();
    any.push(rule(vec![Statement::Verdict(Verdict::Return)]));
    let any = builder.chain("any", "", any, Vec::new());
    chain.rules.push(commented(vec![Statement::Verdict(Verdict::Jump(any))], &text));
}

fn log_statements(builder: &mut Builder<'_>, policy_rule: &PolicyRule, id: &RuleId) -> Vec<Statement> {
    let prefix = Builder::log_prefix(policy_rule, id);
    let mut statements = vec![Statement::Counter];
    statements.extend(builder.limited_log(&prefix, &Reason::Rule(id.clone())).into_iter().flatten());
    statements
}
