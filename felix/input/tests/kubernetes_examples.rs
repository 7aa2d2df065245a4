//! The cases of the Kubernetes documentation of NetworkPolicy, read from YAML and asked of the reference evaluator:
//! what an author means is what comes out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::net::IpAddr;

use felix_calc::evaluator;
use felix_calc::model::{ICMP, SCTP, TCP, UDP};
use felix_calc::packet::{Connection, Packet, ports};
use felix_calc::verdict::Verdict;
use felix_calc::{Direction, EndpointId, NodeState};
use felix_input::{namespace, node, pod, policy};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;

/// Pods by name: namespace, address, labels, ports.
const PODS: &[(&str, &str, &str, &str, &str)] = &[
    ("db", "shop", "10.244.0.1", "role: db", "{name: sql, containerPort: 6379}"),
    ("frontend", "shop", "10.244.0.2", "role: frontend", "{name: sql, containerPort: 5432}"),
    ("other", "shop", "10.244.0.3", "app: other", "{containerPort: 80}"),
    ("client", "team", "10.244.1.1", "role: client", "{name: sql, containerPort: 7000}"),
    ("idle", "team", "10.244.1.2", "app: idle", "{containerPort: 80}"),
    ("alien", "alien", "10.244.2.1", "role: client", "{containerPort: 80}"),
];
const NAMESPACES: &[(&str, &str)] =
    &[("shop", "team: shop"), ("team", "user: alice"), ("alien", "user: bob")];

/// A stranger inside 172.17.0.0/16, one inside its exception, and one anywhere.
const INSIDE: &str = "172.17.9.9";
const EXCEPTED: &str = "172.17.1.9";
const ANYWHERE: &str = "198.51.100.7";

fn read<K: serde::de::DeserializeOwned>(yaml: &str) -> K {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// The cluster with these policies in namespace `shop`; every pod is local, and none of the policies is refused.
fn cluster(policies: &[&str]) -> NodeState {
    let mut state = NodeState::new(node::settings(None, None, None));
    for (name, labels) in NAMESPACES {
        let object: Namespace = read(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}}}}}"
        ));
        state.namespaces.insert((*name).to_owned(), namespace::labels(&object));
    }
    for (name, home, address, labels, port) in PODS {
        let object: Pod = read(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {home}, labels: {{{labels}}}}}, \
              spec: {{containers: [{{name: main, ports: [{port}]}}]}}}}"
        ));
        let local = pod::Local {
            interface: format!("manx{name}"),
            addresses: [address.parse().unwrap()].into(),
            sources: [].into(),
        };
        state.endpoints.insert(pod::endpoint_id(&object), pod::endpoint(&object, Some(&local)).unwrap());
    }
    for (index, spec) in policies.iter().enumerate() {
        let object: NetworkPolicy = read(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p{index}, namespace: shop}}, \
              spec: {spec}}}"
        ));
        let translated = policy::network_policy(&object);
        assert_eq!(translated.rejected, [], "{spec}");
        state.policies.insert(translated.key, translated.policy);
    }
    state
}

fn address(of: &str) -> IpAddr {
    let known = PODS.iter().find(|(name, ..)| *name == of).map_or(of, |(_, _, address, ..)| address);
    known.parse().unwrap()
}

fn home(of: &str) -> &'static str {
    PODS.iter().find(|(name, ..)| *name == of).map(|(_, home, ..)| *home).expect("a pod of the table")
}

/// Does `pod` let a packet through: from `other` (ingress), or to it (egress)?
fn passes(state: &NodeState, direction: Direction, pod: &str, other: &str, protocol: u8, port: u16) -> bool {
    let (source, destination) = match direction {
        Direction::Ingress => (address(other), address(pod)),
        Direction::Egress => (address(pod), address(other)),
    };
    let packet = Packet {
        input: Some("uplink".into()),
        output: Some("uplink".into()),
        source,
        destination,
        protocol,
        header: Some(ports(40_000, port)),
        hop_limit: 64,
        connection: Connection::New,
        dnat: false,
    };
    let endpoint = &state.endpoints[&EndpointId::pod(home(pod), pod)];
    evaluator::verdict(state, endpoint, direction, &packet).verdict == Verdict::Allow
}

fn from(state: &NodeState, pod: &str, other: &str, port: u16) -> bool {
    passes(state, Direction::Ingress, pod, other, TCP, port)
}

fn to(state: &NodeState, pod: &str, other: &str, port: u16) -> bool {
    passes(state, Direction::Egress, pod, other, TCP, port)
}

/// Who reaches the database on this port, of everybody in the table and the three strangers.
fn reach_db(state: &NodeState, port: u16) -> Vec<&'static str> {
    let everybody = PODS.iter().map(|(name, ..)| *name).chain([INSIDE, EXCEPTED, ANYWHERE]);
    everybody.filter(|other| *other != "db" && from(state, "db", other, port)).collect()
}

const EVERYBODY: [&str; 8] = ["frontend", "other", "client", "idle", "alien", INSIDE, EXCEPTED, ANYWHERE];

#[test]
fn without_a_policy_everything_passes() {
    let state = cluster(&[]);
    assert_eq!(reach_db(&state, 6379), EVERYBODY);
    assert!(to(&state, "db", ANYWHERE, 443));
}

#[test]
fn default_deny_and_default_allow() {
    let deny_ingress = cluster(&["{podSelector: {}, policyTypes: [Ingress]}"]);
    assert_eq!(reach_db(&deny_ingress, 6379), [""; 0]);
    assert!(to(&deny_ingress, "db", ANYWHERE, 443));
    assert!(from(&deny_ingress, "client", "db", 80), "another namespace is not touched");

    let deny_egress = cluster(&["{podSelector: {}, policyTypes: [Egress]}"]);
    assert_eq!(reach_db(&deny_egress, 6379), EVERYBODY);
    assert!(!to(&deny_egress, "db", ANYWHERE, 443));

    let deny_all = cluster(&["{podSelector: {}, policyTypes: [Ingress, Egress]}"]);
    assert!(!from(&deny_all, "db", "frontend", 6379) && !to(&deny_all, "db", "frontend", 80));

    let allow_ingress = cluster(&["{podSelector: {}, ingress: [{}], policyTypes: [Ingress]}"]);
    assert_eq!(reach_db(&allow_ingress, 6379), EVERYBODY);
    let allow_egress = cluster(&["{podSelector: {}, egress: [{}], policyTypes: [Egress]}"]);
    assert!(to(&allow_egress, "db", ANYWHERE, 443));
}

/// The large example of the documentation: ipBlock with except, or a namespace, or a pod; one port.
#[test]
fn the_example_of_the_documentation() {
    let state = cluster(&["{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress],
        ingress: [{from: [
            {ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}},
            {namespaceSelector: {matchLabels: {user: alice}}},
            {podSelector: {matchLabels: {role: frontend}}}],
          ports: [{protocol: TCP, port: 6379}]}],
        egress: [{to: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{protocol: TCP, port: 5978}]}]}"]);
    assert_eq!(reach_db(&state, 6379), ["frontend", "client", "idle", INSIDE]);
    assert_eq!(reach_db(&state, 6380), [""; 0]);
    assert!(!passes(&state, Direction::Ingress, "db", "frontend", UDP, 6379));
    assert!(to(&state, "db", "10.0.0.9", 5978));
    assert!(!to(&state, "db", "10.0.0.9", 5979) && !to(&state, "db", "10.0.1.9", 5978));
    assert!(from(&state, "other", "alien", 80), "a pod that no policy selects is open");
}

#[test]
fn one_peer_with_two_selectors_is_and_two_peers_are_or() {
    let both = cluster(&["{podSelector: {}, ingress: [{from: [
        {namespaceSelector: {matchLabels: {user: alice}}, podSelector: {matchLabels: {role: client}}}]}]}"]);
    assert_eq!(reach_db(&both, 80), ["client"]);
    let either = cluster(&[
        "{podSelector: {}, ingress: [{from: [
        {namespaceSelector: {matchLabels: {user: alice}}}, {podSelector: {matchLabels: {role: client}}}]}]}",
    ]);
    // the podSelector alone means this namespace, in which nobody is a client
    assert_eq!(reach_db(&either, 80), ["client", "idle"]);
}

#[test]
fn selectors_that_are_empty_and_selectors_that_are_absent() {
    let own = cluster(&["{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"]);
    assert_eq!(reach_db(&own, 80), ["frontend", "other"]);
    let every = cluster(&["{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}"]);
    assert_eq!(reach_db(&every, 80), ["frontend", "other", "client", "idle", "alien"]);
    let clients = cluster(&["{podSelector: {}, ingress: [{from: [
        {namespaceSelector: {}, podSelector: {matchLabels: {role: client}}}]}]}"]);
    assert_eq!(reach_db(&clients, 80), ["client", "alien"]);
}

#[test]
fn an_empty_list_of_peers_or_ports_is_like_none() {
    for rule in ["{}", "{from: []}", "{ports: []}", "{from: [], ports: []}"] {
        let state = cluster(&[&format!("{{podSelector: {{}}, ingress: [{rule}]}}")]);
        assert_eq!(reach_db(&state, 80), EVERYBODY, "{rule}");
    }
    for rules in ["[]", "null"] {
        let state = cluster(&[&format!("{{podSelector: {{}}, ingress: {rules}}}")]);
        assert_eq!(reach_db(&state, 80), [""; 0], "{rules}");
    }
}

#[test]
fn a_namespace_is_selected_by_its_name() {
    let state = cluster(&[
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchExpressions: [
        {key: kubernetes.io/metadata.name, operator: In, values: [team, other]}]}}]}]}",
    ]);
    assert!(to(&state, "db", "client", 80) && to(&state, "db", "idle", 80));
    assert!(
        !to(&state, "db", "alien", 80)
            && !to(&state, "db", "frontend", 80)
            && !to(&state, "db", ANYWHERE, 80)
    );
}

#[test]
fn a_range_of_ports_includes_both_ends() {
    let state = cluster(&["{podSelector: {matchLabels: {role: db}}, policyTypes: [Egress], egress: [{
        to: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{protocol: TCP, port: 32000, endPort: 32768}]}]}"]);
    for (port, expected) in [(31_999, false), (32_000, true), (32_500, true), (32_768, true), (32_769, false)]
    {
        assert_eq!(to(&state, "db", "10.0.0.9", port), expected, "{port}");
    }
}

#[test]
fn a_port_without_a_number_is_its_whole_protocol_and_without_a_protocol_tcp() {
    let state = cluster(&[
        "{podSelector: {}, ingress: [{ports: [{protocol: UDP}, {port: 80}, {protocol: SCTP, port: 9}]}]}",
    ]);
    let reaches = |protocol, port| passes(&state, Direction::Ingress, "db", ANYWHERE, protocol, port);
    assert!(reaches(UDP, 1) && reaches(UDP, 65_535) && reaches(TCP, 80) && reaches(SCTP, 9));
    assert!(!reaches(TCP, 81) && !reaches(SCTP, 80) && !reaches(ICMP, 0));
}

/// A name is looked up at the receiver: on ingress the pod itself, on egress each peer by its own ports.
#[test]
fn a_named_port_is_the_receivers() {
    let ingress = cluster(&["{podSelector: {}, ingress: [{ports: [{port: sql}]}]}"]);
    assert!(from(&ingress, "db", ANYWHERE, 6379) && !from(&ingress, "db", ANYWHERE, 5432));
    assert!(from(&ingress, "frontend", ANYWHERE, 5432) && !from(&ingress, "other", ANYWHERE, 80));
    let egress = cluster(&[
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: sql}]}]}",
    ]);
    assert!(to(&egress, "other", "frontend", 5432) && to(&egress, "other", "client", 7000));
    assert!(!to(&egress, "other", "frontend", 7000) && !to(&egress, "other", ANYWHERE, 5432));
}

#[test]
fn policies_add_up_and_their_order_does_not_matter() {
    let deny = "{podSelector: {}, policyTypes: [Ingress]}";
    let frontend = "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{podSelector: {matchLabels: {role: frontend}}}]}]}";
    let stranger =
        "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}";
    for policies in [[deny, frontend, stranger], [stranger, frontend, deny], [frontend, deny, stranger]] {
        let state = cluster(&policies);
        assert_eq!(reach_db(&state, 80), ["frontend", ANYWHERE]);
        assert!(!from(&state, "other", "frontend", 80));
    }
}

#[test]
fn an_invalid_rule_opens_nothing_and_its_neighbours_stay() {
    let object: NetworkPolicy = read(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,
        metadata: {name: typo, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress, Egress],
          ingress: [{from: [{ipBlock: {cidr: 10.0.0.300/24}}, {podSelector: {}}]},
                    {from: [{podSelector: {matchLabels: {role: frontend}}}]}],
          egress: [{ports: [{port: 0}]}]}}",
    );
    let translated = policy::network_policy(&object);
    let paths: Vec<&str> = translated.rejected.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["spec.ingress[0].from[0].ipBlock.cidr", "spec.egress[0].ports[0].port"]);
    let mut state = cluster(&[]);
    state.policies.insert(translated.key, translated.policy);
    assert_eq!(reach_db(&state, 80), ["frontend"]);
    assert!(!to(&state, "db", ANYWHERE, 443));
}
