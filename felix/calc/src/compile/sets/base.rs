//! Base chains, and what they look up: whose interface, whose address, which policies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::{KNOWN_INTERFACES, OWN_V4, OWN_V6};
use super::address_value;
use super::builder::{Builder, address_key, commented, rule};
use super::peers::merged;
use crate::host::INTERFACE_PREFIX;
use crate::model::{Answer, Endpoint, EndpointId, HostAction, ICMPV6, NodeState};
use crate::resolve::Applied;
use crate::table::{
    Base, Chain, Data, DataType, Element, Family, Field, Hook, KeyType, Rule, Statement, Value, Verdict,
};
use crate::verdict::Reason;

pub const FORWARD_EGRESS: &str = "fwd-e";
pub const FORWARD_INGRESS: &str = "fwd-i";
pub const INPUT_EGRESS: &str = "in-e";
pub const INPUT_HOST: &str = "in-host";

const DISPATCH_EGRESS: &str = "disp-e";
const DISPATCH_INGRESS: &str = "disp-i";
/// Which chain knows what the pod may send from beside its own addresses.
const SOURCES: &str = "sources";
/// Interface twice: a pod that talks to itself by way of its Service.
pub(super) const ITSELF: &str = "self";

/// `filter`, and the place just before it.
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_POLICY: i32 = -1;

pub(super) fn build(builder: &mut Builder<'_>, state: &NodeState, applied: &Applied) {
    endpoint_sets(builder, state, applied);
    let spoofed = spoofed(builder, state, applied);
    let unknown = builder.deny(Reason::UnknownInterface, "unknown-interface", Answer::Drop);
    let invalid = builder.deny(Reason::Invalid, "invalid", Answer::Drop);
    let discovery = neighbor_discovery(builder, &unknown);

    let mut rules = anti_spoofing(&spoofed);
    rules.push(connected());
    rules.extend(service_loops(builder, state, &invalid));
    rules.extend([not_ours(Field::InputInterface), invalid_state(&invalid)]);
    rules.push(dispatch(Field::InputInterface, DISPATCH_EGRESS));
    base_chain(builder, FORWARD_EGRESS, Hook::Forward, PRIORITY_POLICY, rules);

    let mut rules = vec![connected(), not_ours(Field::OutputInterface)];
    rules.push(rule(vec![not_known(Field::OutputInterface), Statement::Verdict(unknown)]));
    rules.extend([invalid_state(&invalid), dispatch(Field::OutputInterface, DISPATCH_INGRESS)]);
    base_chain(builder, FORWARD_INGRESS, Hook::Forward, PRIORITY_FILTER, rules);

    let mut rules = vec![not_ours(Field::InputInterface), to_discovery(&discovery)];
    rules.extend(anti_spoofing(&spoofed));
    rules.extend([connected(), invalid_state(&invalid), dispatch(Field::InputInterface, DISPATCH_EGRESS)]);
    base_chain(builder, INPUT_EGRESS, Hook::Input, PRIORITY_POLICY, rules);

    let mut rules = vec![not_ours(Field::InputInterface), to_discovery(&discovery)];
    rules.extend(protected_ports(builder, state));
    rules.push(connected());
    if state.settings.workload_to_host == HostAction::Deny {
        let denied = builder.deny(Reason::WorkloadToHost, "workload-to-host", Answer::Drop);
        rules.push(rule(vec![Statement::Verdict(denied)]));
    }
    base_chain(builder, INPUT_HOST, Hook::Input, PRIORITY_FILTER, rules);
}

/// Local endpoints by interface; the first by id if two claim one.
pub(super) fn locals<'a>(
    state: &'a NodeState,
    applied: &'a Applied,
) -> BTreeMap<&'a str, (&'a EndpointId, &'a Endpoint)> {
    let mut locals = BTreeMap::new();
    for id in applied.endpoints() {
        let endpoint = state.endpoints.get(id);
        if let Some((endpoint, interface)) = endpoint.and_then(|e| Some((e, e.interface.as_ref()?))) {
            locals.entry(interface.as_str()).or_insert((id, endpoint));
        }
    }
    locals
}

pub(super) fn interface(name: &str) -> Value {
    Value::Interface(name.to_owned())
}

fn endpoint_sets(builder: &mut Builder<'_>, state: &NodeState, applied: &Applied) {
    let mut known = BTreeMap::new();
    // All endpoints, not only those that have policies: one that loses its last policy must not leave it
    // before a packet that still found the policy.
    let mut itself = BTreeMap::new();
    let (mut own4, mut own6) = (BTreeMap::new(), BTreeMap::new());
    for (name, (_, endpoint)) in locals(state, applied) {
        known.insert(Element::Exact(vec![interface(name)]), None);
        itself.insert(Element::Exact(vec![interface(name), interface(name)]), None);
        for address in &endpoint.addresses {
            let own = match address {
                IpAddr::V4(_) => &mut own4,
                IpAddr::V6(_) => &mut own6,
            };
            own.insert(Element::Exact(vec![interface(name), address_value(*address)]), None);
        }
    }
    builder.fixed_set(KNOWN_INTERFACES, &[KeyType::Interface], None, known);
    builder.fixed_set(ITSELF, &[KeyType::Interface, KeyType::Interface], None, itself);
    builder.fixed_set(OWN_V4, &[KeyType::Interface, address_key(Family::Ipv4)], None, own4);
    builder.fixed_set(OWN_V6, &[KeyType::Interface, address_key(Family::Ipv6)], None, own6);
}

pub(super) fn dispatch_maps(
    builder: &mut Builder<'_>,
    egress: BTreeMap<Element, Option<Data>>,
    ingress: BTreeMap<Element, Option<Data>>,
) {
    builder.fixed_set(DISPATCH_EGRESS, &[KeyType::Interface], Some(DataType::Verdict), egress);
    builder.fixed_set(DISPATCH_INGRESS, &[KeyType::Interface], Some(DataType::Verdict), ingress);
}

pub(super) fn base_chain(builder: &mut Builder<'_>, name: &str, hook: Hook, priority: i32, rules: Vec<Rule>) {
    builder.fixed_chain(name, Chain { base: Some(Base { hook, priority, drop: false }), rules });
}

/// Behind a failed source check: an interface of nobody, or an address that is not the pod's. Few pods may send from
/// others, so only here is it asked which; the chain comes back for what they may.
fn spoofed(builder: &mut Builder<'_>, state: &NodeState, applied: &Applied) -> Verdict {
    let unknown = builder.deny(Reason::UnknownInterface, "unknown-interface", Answer::Drop);
    let spoofed = builder.deny(Reason::Spoofed, "spoofed", Answer::Drop);
    let mut allowed = BTreeMap::new();
    for (name, (_, endpoint)) in locals(state, applied) {
        if let Some(chain) = allowed_sources(builder, endpoint, &spoofed) {
            let verdict = Data::Verdict(Verdict::Goto(chain));
            allowed.insert(Element::Exact(vec![interface(name)]), Some(verdict));
        }
    }
    builder.fixed_set(SOURCES, &[KeyType::Interface], Some(DataType::Verdict), allowed);
    let rules = vec![
        rule(vec![not_known(Field::InputInterface), Statement::Verdict(unknown)]),
        dispatch(Field::InputInterface, SOURCES),
        rule(vec![Statement::Verdict(spoofed)]),
    ];
    Verdict::Jump(builder.chain("spoof", "", rules, Vec::new()))
}

/// Pods that may send from the same prefixes share the chain that knows them.
fn allowed_sources(builder: &mut Builder<'_>, endpoint: &Endpoint, spoofed: &Verdict) -> Option<String> {
    let mut rules = Vec::new();
    for (family, source) in [(Family::Ipv4, Field::SourceV4), (Family::Ipv6, Field::SourceV6)] {
        let ranges = merged(endpoint.sources.iter(), family);
        if ranges.is_empty() {
            continue;
        }
        let set = builder.ranges("src", address_key(family), &ranges);
        let within = Statement::InSet { fields: vec![source], negated: false, set };
        rules.push(rule(vec![Statement::Family(family), within, Statement::Verdict(Verdict::Return)]));
    }
    if rules.is_empty() {
        return None;
    }
    rules.push(rule(vec![Statement::Verdict(spoofed.clone())]));
    Some(builder.chain("src", "", rules, Vec::new()))
}

/// On every packet, also of established connections: a pod sends from its own addresses, or from what it is allowed.
fn anti_spoofing(spoofed: &Verdict) -> Vec<Rule> {
    [(Family::Ipv4, Field::SourceV4, OWN_V4), (Family::Ipv6, Field::SourceV6, OWN_V6)]
        .map(|(family, source, own)| {
            rule(vec![
                from_us(Field::InputInterface, false),
                Statement::Family(family),
                Statement::InSet {
                    fields: vec![Field::InputInterface, source],
                    negated: true,
                    set: own.to_owned(),
                },
                Statement::Verdict(spoofed.clone()),
            ])
        })
        .to_vec()
}

/// Neighbour discovery and multicast listener reports, whose sources (link-local, unspecified) are in no
/// set of addresses, and which connection tracking does not follow.
fn neighbor_discovery(builder: &mut Builder<'_>, unknown: &Verdict) -> String {
    let advertisement = builder.deny(Reason::RouterAdvertisement, "router-advertisement", Answer::Drop);
    let redirect = builder.deny(Reason::Redirect, "redirect", Answer::Drop);
    // Each rule says of itself what it reads, however it is reached.
    let message = |kind: Statement, rest: Vec<Statement>| {
        rule([vec![Statement::Family(Family::Ipv6), is_icmpv6(), kind], rest].concat())
    };
    let field = Field::Icmpv6Type;
    let kind = |kind: u8| Statement::Match { field, negated: false, value: Value::Protocol(kind) };
    let (first, last) = (Value::Protocol(130), Value::Protocol(132));
    let listener = Statement::InRange { field, negated: false, first, last };
    // RFC 4861 §7.1.1 and 7.1.2: a receiver discards discovery with another hop limit.
    let on_link = Statement::Match { field: Field::HopLimit, negated: false, value: Value::Protocol(255) };
    let accept = || Statement::Verdict(Verdict::Accept);
    let mut rules = vec![rule(vec![not_known(Field::InputInterface), Statement::Verdict(unknown.clone())])];
    for discovery in [133, 135, 136] {
        rules.push(message(kind(discovery), vec![on_link.clone(), accept()]));
    }
    rules.push(message(listener, vec![accept()]));
    rules.push(message(kind(143), vec![accept()]));
    rules.push(message(kind(134), vec![Statement::Verdict(advertisement)]));
    rules.push(message(kind(137), vec![Statement::Verdict(redirect)]));
    rules.push(rule(vec![Statement::Verdict(Verdict::Return)]));
    builder.chain("nd", "", rules, Vec::new())
}

fn to_discovery(chain: &str) -> Rule {
    rule(vec![
        Statement::Family(Family::Ipv6),
        is_icmpv6(),
        Statement::Verdict(Verdict::Jump(chain.to_owned())),
    ])
}

fn is_icmpv6() -> Statement {
    Statement::Match { field: Field::Protocol, negated: false, value: Value::Protocol(ICMPV6) }
}

/// Packets to our own Services that no DNAT caught would come back to us from the router: first those that are of no
/// connection, such as the rest of one that a router moved here from another node. They have no status to ask for, and
/// a reset could end a connection that lives.
fn service_loops(builder: &mut Builder<'_>, state: &NodeState, invalid: &Verdict) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (family, destination) in [(Family::Ipv4, Field::DestinationV4), (Family::Ipv6, Field::DestinationV6)]
    {
        let ranges = merged(state.settings.service_prefixes.iter(), family);
        if ranges.is_empty() {
            continue;
        }
        let set = builder.ranges("svc", address_key(family), &ranges);
        let looping = builder.deny(Reason::ServiceLoop, "service-loop", Answer::Reject);
        let to_service = |rest: [Statement; 2]| {
            let destined = Statement::InSet { fields: vec![destination], negated: false, set: set.clone() };
            rule([Statement::Family(family), destined].into_iter().chain(rest).collect())
        };
        let of_none = Statement::ConnectionState {
            established: false,
            related: false,
            new: false,
            invalid: true,
            untracked: true,
        };
        rules.push(to_service([of_none, Statement::Verdict(invalid.clone())]));
        rules.push(to_service([Statement::ConnectionDnat { negated: true }, Statement::Verdict(looping)]));
    }
    rules
}

/// In a chain behind that of policy, so that no Allow reaches them.
fn protected_ports(builder: &mut Builder<'_>, state: &NodeState) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (protocol, port) in &state.settings.protected_ports {
        let denied = builder.deny(Reason::ProtectedPort, "protected-port", Answer::Drop);
        let protocol =
            Statement::Match { field: Field::Protocol, negated: false, value: Value::Protocol(*protocol) };
        let port =
            Statement::Match { field: Field::DestinationPort, negated: false, value: Value::Port(*port) };
        rules.push(commented(vec![protocol, port, Statement::Verdict(denied)], "a port of bgpd"));
    }
    rules
}

fn connected() -> Rule {
    rule(vec![
        Statement::ConnectionState {
            established: true,
            related: true,
            new: false,
            invalid: false,
            untracked: false,
        },
        Statement::Verdict(Verdict::Accept),
    ])
}

fn invalid_state(denied: &Verdict) -> Rule {
    rule(vec![
        Statement::ConnectionState {
            established: false,
            related: false,
            new: false,
            invalid: true,
            untracked: false,
        },
        Statement::Verdict(denied.clone()),
    ])
}

fn not_ours(field: Field) -> Rule {
    rule(vec![from_us(field, true), Statement::Verdict(Verdict::Accept)])
}

fn from_us(field: Field, negated: bool) -> Statement {
    Statement::InterfacePrefix { field, negated, prefix: INTERFACE_PREFIX.to_owned() }
}

fn not_known(field: Field) -> Statement {
    Statement::InSet { fields: vec![field], negated: true, set: KNOWN_INTERFACES.to_owned() }
}

fn dispatch(field: Field, map: &str) -> Rule {
    rule(vec![Statement::VerdictMap { fields: vec![field], map: map.to_owned() }])
}
