//! The named states, in words that read like the objects they come from.
//!
//! One node with `web-1`, `db-1` (namespace shop) and `probe-1` (namespace ops) on it; `web-2` of shop and
//! `batch-1` of ops elsewhere; `client` is outside. Every pod has IPv4 and IPv6.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use felix_calc::model::{
    Action, Answer, Endpoint, EndpointId, HostAction, NamedPort, Namespaces, NodeSettings, NodeState, Peer,
    Policy, PolicyKey, PolicyKind, PortRange, Rule, SCTP, Selection, TCP, Tier, TierDefault, Traffic, UDP,
};
use felix_calc::nat::OutgoingNat;
use felix_calc::packet::{Connection, Packet, ports};
use felix_calc::selector::Selector;

pub struct NamedState {
    pub name: &'static str,
    pub state: NodeState,
    /// `sender > receiver protocol port`, of all that [`reached`] tries.
    pub reaches: BTreeSet<String>,
}

pub fn all() -> Vec<NamedState> {
    vec![
        named("open", cluster(), without(&[])),
        isolated(),
        named_ports(),
        blocks(),
        one_type_each(),
        namespaces(),
        tiers(),
        strict_node(),
        outgoing(),
        sources(),
    ]
}

// ------------------------------------------------------------------------------------------- the states

/// Kubernetes: `db` accepts `web` on TCP 5432 and nobody else.
fn isolated() -> NamedState {
    let mut state = cluster();
    let rule = allow(vec![pods("web")], vec![tcp(5432)]);
    add(&mut state, "db", "app == 'db'", Some(vec![rule]), None);
    let reaches = without(&["> db-1"]);
    let opened = ["web-1 > db-1 tcp 5432", "web-2 > db-1 tcp 5432"];
    named("isolated", state, with(reaches, &opened))
}

/// A name is another number at each receiver, and one number may carry the name for one protocol only.
fn named_ports() -> NamedState {
    let mut state = cluster();
    let sql = Traffic { protocol: Some(TCP), port_names: ["sql".to_owned()].into(), ..Traffic::default() };
    add(&mut state, "in", "app == 'db'", Some(vec![allow(vec![], vec![sql.clone()])]), None);
    add(&mut state, "out", "app == 'web'", None, Some(vec![allow(vec![], vec![sql])]));
    let reaches = without(&["> db-1", "web-1 >"]);
    let to_db =
        ["web-1", "web-2", "probe-1", "batch-1", "client"].map(|from| format!("{from} > db-1 tcp 5432"));
    let to_batch = ["web-1 > batch-1 tcp 80".to_owned()];
    named("named-ports", state, with(reaches, &[&to_db[..], &to_batch[..]].concat()))
}

/// `ipBlock` with an exception: the pods of other nodes but not those of one block, and no IPv6.
fn blocks() -> NamedState {
    let mut state = cluster();
    let peer = Peer { nets: nets(&["10.0.0.0/8"]), not_nets: nets(&["10.0.1.0/24"]), ..Peer::default() };
    let ranges =
        Traffic { protocol: Some(TCP), ports: vec![PortRange { first: 80, last: 90 }], ..Traffic::default() };
    add(&mut state, "out", "app == 'web'", None, Some(vec![allow(vec![peer], vec![ranges])]));
    let v4_only = ["web-1 > db-1 tcp 80 v4", "web-1 > probe-1 tcp 80 v4"];
    named("blocks", state, with(without(&["web-1 >"]), &v4_only))
}

/// A policy with no rule isolates in the direction that it names, and in no other.
fn one_type_each() -> NamedState {
    let mut state = cluster();
    add(&mut state, "in", "app == 'db'", Some(vec![]), None);
    add(&mut state, "out", "app == 'web'", None, Some(vec![]));
    named("one-type-each", state, without(&["> db-1", "web-1 >"]))
}

/// Peers by the labels of their namespace, and by namespace and pod together.
fn namespaces() -> NamedState {
    let mut state = cluster();
    let ops = Namespaces::Matching(selector("team == 'ops'"));
    let all_ops = Peer {
        selection: Some(Selection { namespaces: ops.clone(), selector: Selector::All }),
        ..Peer::default()
    };
    let batch = Peer {
        selection: Some(Selection { namespaces: ops, selector: selector("app == 'batch'") }),
        ..Peer::default()
    };
    add(
        &mut state,
        "db",
        "app == 'db'",
        Some(vec![allow(vec![all_ops], vec![tcp(5432)]), allow(vec![batch], vec![udp(53)])]),
        None,
    );
    let opened = ["probe-1 > db-1 tcp 5432", "batch-1 > db-1 tcp 5432", "batch-1 > db-1 udp 53"];
    named("namespaces", state, with(without(&["> db-1"]), &opened))
}

/// An admin tier that denies one, passes one, and a baseline behind a default tier with no policy of it.
fn tiers() -> NamedState {
    let mut state = cluster();
    state.tiers.insert("security".to_owned(), Tier { order: 10, default: TierDefault::Pass });
    let from = |app: &str| Peer {
        selection: Some(Selection {
            namespaces: Namespaces::All,
            selector: selector(&format!("app == '{app}'")),
        }),
        ..Peer::default()
    };
    let rule = |index: u16, action: Action, app: &str| Rule {
        index,
        name: Some(format!("{app}-rule")),
        action,
        family: None,
        peers: vec![from(app)],
        traffic: vec![],
    };
    let policy = |tier: &str, rules: Vec<Rule>| Policy {
        tier: tier.to_owned(),
        order: Some(1),
        applies_to: Selection { namespaces: Namespaces::All, selector: selector("app == 'db'") },
        ingress: Some(rules),
        egress: None,
    };
    let key =
        |name: &str, kind: PolicyKind| PolicyKey { name: name.to_owned(), namespace: String::new(), kind };
    state.policies.insert(
        key("guard", PolicyKind::GlobalNetworkPolicy),
        policy(
            "security",
            vec![
                rule(0, Action::Log, "web"),
                rule(1, Action::Reject, "batch"),
                rule(2, Action::Pass, "probe"),
                rule(3, Action::Allow, "web"),
            ],
        ),
    );
    state.policies.insert(
        key("baseline", PolicyKind::ClusterNetworkPolicy),
        policy("kube-baseline", vec![rule(0, Action::Deny, "probe")]),
    );
    named("tiers", state, without(&["batch-1 > db-1", "probe-1 > db-1"]))
}

/// Pods may not reach their node, whatever their policy; denials are answered.
fn strict_node() -> NamedState {
    let mut state = cluster();
    state.settings.workload_to_host = HostAction::Deny;
    state.settings.implicit_deny = Answer::Reject;
    let sctp = Traffic { protocol: Some(SCTP), ports: vec![PortRange::single(5432)], ..Traffic::default() };
    add(&mut state, "db", "app == 'db'", Some(vec![allow(vec![], vec![sctp])]), None);
    let reaches = without(&["> db-1", "web-1 > node", "db-1 > node", "probe-1 > node"]);
    let opened =
        ["web-1", "web-2", "probe-1", "batch-1", "client"].map(|from| format!("{from} > db-1 sctp 5432"));
    named("strict-node", state, with(reaches, &opened))
}

/// Three pools: two hide their pods from the outside (one of each family, one with an exception), one does not.
fn outgoing() -> NamedState {
    let mut state = cluster();
    let masquerade = [("10.0.0.0/16", nets(&["203.0.113.0/24"])), ("fd00::/16", nets(&[]))];
    state.nat = OutgoingNat {
        pools: nets(&["10.0.0.0/16", "10.9.0.0/16", "fd00::/16"]).into_iter().collect(),
        nodes: ["192.0.2.1", "192.0.2.2", "2001:db8:ffff::2"].map(|node| node.parse().unwrap()).into(),
        masquerade: masquerade
            .map(|(pool, excluded)| (pool.parse().unwrap(), excluded.into_iter().collect()))
            .into(),
    };
    named("outgoing", state, without(&[]))
}

/// Two pods of one namespace may send from the same prefixes, which overlap; one of another only from one more.
fn sources() -> NamedState {
    let mut state = cluster();
    for (name, prefixes) in [
        ("web-1", &["198.51.100.0/24", "198.51.100.128/25", "2001:db8:5::/48"][..]),
        ("db-1", &["198.51.100.0/24", "198.51.100.128/25", "2001:db8:5::/48"]),
        ("probe-1", &["203.0.113.9/32"]),
    ] {
        let endpoint = state.endpoints.values_mut().find(|endpoint| endpoint.name == name).unwrap();
        endpoint.sources = nets(prefixes).into_iter().collect();
    }
    named("sources", state, without(&[]))
}

// --------------------------------------------------------------------------------------------- the words

const LOCAL: [(&str, &str, &str, u8); 3] =
    [("shop", "web-1", "web", 1), ("shop", "db-1", "db", 2), ("ops", "probe-1", "probe", 3)];
const REMOTE: [(&str, &str, &str, u8); 2] = [("shop", "web-2", "web", 1), ("ops", "batch-1", "batch", 2)];
const FLOWS: [(u8, &str, u16); 6] = [
    (TCP, "tcp", 80),
    (TCP, "tcp", 5432),
    (UDP, "udp", 53),
    (UDP, "udp", 5432),
    (SCTP, "sctp", 5432),
    (TCP, "tcp", 179),
];

fn cluster() -> NodeState {
    let settings = NodeSettings {
        node_addresses: [ip("192.0.2.1"), ip("2001:db8::1")].into(),
        ..NodeSettings::default()
    };
    let mut state = NodeState::new(settings);
    for (namespace, team) in [("shop", "sales"), ("ops", "ops")] {
        state.namespaces.insert(namespace.to_owned(), [("team".to_owned(), team.to_owned())].into());
    }
    let pods = LOCAL.map(|pod| (pod, 0u8)).into_iter().chain(REMOTE.map(|pod| (pod, 1u8)));
    for ((namespace, name, app, number), node) in pods {
        let port = |name: &str, protocol, number| NamedPort { name: name.to_owned(), protocol, number };
        let ports = match app {
            "db" => [port("sql", TCP, 5432), port("sql", UDP, 5432)].into(),
            "batch" => [port("sql", TCP, 80)].into(),
            _ => BTreeSet::new(),
        };
        let endpoint = Endpoint {
            interface: (node == 0).then(|| format!("manx{number:011x}")),
            addresses: [ip(&format!("10.0.{node}.{number}")), ip(&format!("fd00::{node}:{number}"))].into(),
            sources: BTreeSet::new(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            ports,
        };
        state.endpoints.insert(EndpointId::pod(namespace, name), endpoint);
    }
    state
}

pub fn remote_pod(name: &str, address: &str, app: &str) -> (EndpointId, Endpoint) {
    let endpoint = Endpoint {
        addresses: [ip(address)].into(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        ..Endpoint::default()
    };
    (EndpointId::pod("shop", name), endpoint)
}

fn add(
    state: &mut NodeState,
    name: &str,
    applies_to: &str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) {
    let key = PolicyKey {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        kind: PolicyKind::KubernetesNetworkPolicy,
    };
    let number = |rules: Option<Vec<Rule>>| {
        rules.map(|rules| {
            rules
                .into_iter()
                .enumerate()
                .map(|(index, rule)| Rule { index: u16::try_from(index).unwrap(), ..rule })
                .collect()
        })
    };
    let applies_to =
        Selection { namespaces: Namespaces::One("shop".to_owned()), selector: selector(applies_to) };
    let policy = Policy {
        tier: "default".to_owned(),
        order: Some(1000),
        applies_to,
        ingress: number(ingress),
        egress: number(egress),
    };
    state.policies.insert(key, policy);
}

fn allow(peers: Vec<Peer>, traffic: Vec<Traffic>) -> Rule {
    Rule { index: 0, name: None, action: Action::Allow, family: None, peers, traffic }
}

fn pods(app: &str) -> Peer {
    let selection = Selection {
        namespaces: Namespaces::One("shop".to_owned()),
        selector: selector(&format!("app == '{app}'")),
    };
    Peer { selection: Some(selection), ..Peer::default() }
}

fn tcp(port: u16) -> Traffic {
    Traffic { protocol: Some(TCP), ports: vec![PortRange::single(port)], ..Traffic::default() }
}

fn udp(port: u16) -> Traffic {
    Traffic { protocol: Some(UDP), ports: vec![PortRange::single(port)], ..Traffic::default() }
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

/// The packet that opens a connection from the first to the second address.
pub fn first_packet(
    input: Option<String>,
    output: Option<String>,
    [source, destination]: [IpAddr; 2],
    protocol: u8,
    port: u16,
) -> Packet {
    Packet {
        input,
        output,
        source,
        destination,
        protocol,
        header: Some(ports(40000, port)),
        hop_limit: 64,
        connection: Connection::New,
        dnat: false,
    }
}

fn nets(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn named(name: &'static str, state: NodeState, reaches: BTreeSet<String>) -> NamedState {
    NamedState { name, state, reaches }
}

/// Every flow but those whose text contains one of these; bgpd's port is closed on the node always.
fn without(parts: &[&str]) -> BTreeSet<String> {
    let everything = reached(&cluster(), |_| true);
    let closed = LOCAL.map(|(_, name, ..)| format!("{name} > node tcp 179"));
    let out = |flow: &String| {
        parts.iter().any(|part| flow.contains(part)) || closed.iter().any(|part| flow.contains(part))
    };
    everything.into_iter().filter(|flow| !out(flow) || flow.starts_with("node >")).collect()
}

/// Adds flows in both families, or in the one that is named.
fn with<T: AsRef<str>>(mut reaches: BTreeSet<String>, flows: &[T]) -> BTreeSet<String> {
    for flow in flows.iter().map(AsRef::as_ref) {
        if flow.ends_with(" v4") || flow.ends_with(" v6") {
            reaches.insert(flow.to_owned());
        } else {
            reaches.extend([format!("{flow} v4"), format!("{flow} v6")]);
        }
    }
    reaches
}

/// All flows between the pods, the client and the node that `passes` lets through, as new connections.
pub fn reached(state: &NodeState, passes: impl Fn(&Packet) -> bool) -> BTreeSet<String> {
    let mut ends: Vec<(String, Option<String>, Vec<IpAddr>)> = state
        .endpoints
        .values()
        .map(|e| {
            (
                e.name.clone(),
                Some(e.interface.clone().unwrap_or_else(|| "eth0".to_owned())),
                e.addresses.iter().copied().collect(),
            )
        })
        .collect();
    ends.push(("client".to_owned(), Some("eth0".to_owned()), vec![ip("203.0.113.9"), ip("2001:db8:9::9")]));
    ends.push(("node".to_owned(), None, vec![ip("192.0.2.1"), ip("2001:db8::1")]));
    let mut flows = BTreeSet::new();
    for (sender, input, sources) in &ends {
        for (receiver, output, destinations) in &ends {
            let through_here = input != output && !(input.is_none() && output.as_deref() == Some("eth0"));
            if !through_here {
                continue;
            }
            for (protocol, text, port) in FLOWS {
                for (source, destination) in sources.iter().zip(destinations) {
                    let (input, output) = (input.clone(), output.clone());
                    let packet = first_packet(input, output, [*source, *destination], protocol, port);
                    if passes(&packet) {
                        let family = if source.is_ipv4() { "v4" } else { "v6" };
                        flows.insert(format!("{sender} > {receiver} {text} {port} {family}"));
                    }
                }
            }
        }
    }
    flows
}
