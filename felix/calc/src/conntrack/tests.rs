#![allow(clippy::unwrap_used)]

use super::*;
use crate::model::{
    Action, HostAction, ICMP, NodeSettings, Peer, Policy, PolicyKey, PolicyKind, Rule, Selection, TCP,
    Traffic, UDP,
};
use crate::model::{Namespaces, PortRange};
use crate::selector::Selector;

const NODE: &str = "192.0.2.1";
const WEB: &str = "10.0.0.1";
const DB: &str = "10.0.0.2";
const REMOTE: &str = "10.0.1.1";
const CLIENT: &str = "203.0.113.9";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn everything() -> BTreeSet<IpAddr> {
    [NODE, WEB, DB, REMOTE, CLIENT].map(ip).into()
}

/// `web` and `db` here, `remote` elsewhere; ingress of `db` open for `web` on TCP 5432 only.
fn state() -> NodeState {
    let mut state =
        NodeState::new(NodeSettings { node_addresses: [ip(NODE)].into(), ..NodeSettings::default() });
    for (name, address, local) in [("web", WEB, true), ("db", DB, true), ("remote", REMOTE, false)] {
        let endpoint = Endpoint {
            interface: local.then(|| format!("manx-{name}")),
            addresses: [ip(address)].into(),
            sources: BTreeSet::new(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            labels: [("app".to_owned(), name.to_owned())].into(),
            ports: BTreeSet::new(),
        };
        state.endpoints.insert(EndpointId::pod("shop", name), endpoint);
    }
    state.policies.insert(key("db"), policy("db", Direction::Ingress, vec![allow("web", TCP, 5432)]));
    state
}

fn key(name: &str) -> PolicyKey {
    PolicyKey {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        kind: PolicyKind::KubernetesNetworkPolicy,
    }
}

fn select(app: &str) -> Selection {
    let selector = Selector::Equals("app".to_owned(), app.to_owned());
    Selection { namespaces: Namespaces::One("shop".to_owned()), selector }
}

fn policy(app: &str, direction: Direction, rules: Vec<Rule>) -> Policy {
    let (ingress, egress) = match direction {
        Direction::Ingress => (Some(rules), None),
        Direction::Egress => (None, Some(rules)),
    };
    Policy { tier: "default".to_owned(), order: Some(1000), applies_to: select(app), ingress, egress }
}

fn allow(app: &str, protocol: u8, port: u16) -> Rule {
    let traffic =
        Traffic { protocol: Some(protocol), ports: vec![PortRange::single(port)], ..Traffic::default() };
    let peer = Peer { selection: Some(select(app)), ..Peer::default() };
    Rule {
        index: 0,
        name: None,
        action: Action::Allow,
        family: None,
        peers: vec![peer],
        traffic: vec![traffic],
    }
}

fn tuple(source: &str, destination: &str, protocol: u8, from: u16, to: u16) -> Tuple {
    let transport = Transport::Ports { source: from, destination: to };
    Tuple { source: ip(source), destination: ip(destination), protocol, transport }
}

fn entry(source: &str, destination: &str, protocol: u8, port: u16) -> Entry {
    Entry {
        id: 7,
        zone: 0,
        original: tuple(source, destination, protocol, 40000, port),
        reply: tuple(destination, source, protocol, port, 40000),
        master: None,
    }
}

fn is_cut(state: &NodeState, entry: &Entry) -> bool {
    !denied(state, &everything(), std::slice::from_ref(entry)).is_empty()
}

#[test]
fn what_policy_denies_is_cut_and_what_it_allows_stays() {
    let state = state();
    assert!(!is_cut(&state, &entry(WEB, DB, TCP, 5432)));
    assert!(is_cut(&state, &entry(WEB, DB, TCP, 80)));
    assert!(is_cut(&state, &entry(WEB, DB, UDP, 5432)));
    assert!(is_cut(&state, &entry(REMOTE, DB, TCP, 5432)));
    assert!(is_cut(&state, &entry(CLIENT, DB, TCP, 5432)));
    // Unpoliced directions and ends that are not here.
    assert!(!is_cut(&state, &entry(DB, WEB, TCP, 80)));
    assert!(!is_cut(&state, &entry(DB, CLIENT, TCP, 443)));
    assert!(!is_cut(&state, &entry(REMOTE, CLIENT, TCP, 443)));
}

#[test]
fn the_original_direction_decides_not_the_reply() {
    // Allowed by ingress of db; that web has no ingress rule for port 40000 does not matter.
    let mut state = state();
    state.policies.insert(key("web"), policy("web", Direction::Ingress, Vec::new()));
    assert!(!is_cut(&state, &entry(WEB, DB, TCP, 5432)));
    assert!(is_cut(&state, &entry(DB, WEB, TCP, 80)));
}

#[test]
fn the_receiver_is_the_one_behind_dnat() {
    let mut through_service = entry(WEB, DB, TCP, 5432);
    through_service.original.destination = ip("10.96.0.10");
    through_service.original.transport = Transport::Ports { source: 40000, destination: 80 };
    assert!(!is_cut(&state(), &through_service));
    through_service.reply.transport = Transport::Ports { source: 8080, destination: 40000 };
    assert!(is_cut(&state(), &through_service));
}

#[test]
fn masquerade_does_not_hide_the_sender() {
    let mut state = state();
    state.policies.insert(key("out"), policy("web", Direction::Egress, vec![allow("remote", TCP, 80)]));
    let mut masked = entry(WEB, CLIENT, TCP, 443);
    masked.reply.destination = ip(NODE);
    assert!(is_cut(&state, &masked));
    let mut masked = entry(WEB, REMOTE, TCP, 80);
    masked.reply.destination = ip(NODE);
    assert!(!is_cut(&state, &masked));
}

#[test]
fn what_the_node_opens_is_never_cut() {
    assert!(!is_cut(&state(), &entry(NODE, DB, TCP, 8080)));
    assert!(!is_cut(&state(), &entry("127.0.0.1", DB, TCP, 8080)));
}

#[test]
fn towards_the_node_the_pod_and_the_node_decide() {
    let mut state = state();
    assert!(!is_cut(&state, &entry(WEB, NODE, TCP, 10250)));
    assert!(is_cut(&state, &entry(WEB, NODE, TCP, 179)));
    state.settings.workload_to_host = HostAction::Deny;
    assert!(is_cut(&state, &entry(WEB, NODE, TCP, 10250)));
    state.settings.workload_to_host = HostAction::Allow;
    state.policies.insert(key("out"), policy("web", Direction::Egress, Vec::new()));
    assert!(is_cut(&state, &entry(WEB, NODE, TCP, 10250)));
}

#[test]
fn only_addresses_that_changed_are_judged() {
    let entries = [entry(REMOTE, DB, TCP, 80)];
    assert!(denied(&state(), &[ip(WEB)].into(), &entries).is_empty());
    assert_eq!(denied(&state(), &[ip(DB)].into(), &entries).len(), 1);
    assert_eq!(denied(&state(), &[ip(REMOTE)].into(), &entries).len(), 1);
}

#[test]
fn a_related_connection_goes_with_its_master() {
    let state = state();
    let control = entry(WEB, DB, TCP, 5432);
    let refused = entry(WEB, DB, TCP, 21);
    let related = |master: &Entry| Entry { id: 9, master: Some(master.original), ..entry(DB, WEB, TCP, 20) };
    assert!(denied(&state, &everything(), &[control.clone(), related(&control)]).is_empty());
    assert_eq!(denied(&state, &everything(), &[refused.clone(), related(&refused)]).len(), 2);
    assert!(!is_cut(&state, &related(&refused)), "its master is gone: nothing is known");
}

#[test]
fn messages_are_judged_by_type() {
    let mut state = state();
    let echo = Tuple {
        source: ip(WEB),
        destination: ip(DB),
        protocol: ICMP,
        transport: Transport::Icmp { kind: 8, code: 0, identifier: 3 },
    };
    let reply = Tuple { source: ip(DB), destination: ip(WEB), ..echo };
    let ping = Entry { id: 1, zone: 0, original: echo, reply, master: None };
    assert!(is_cut(&state, &ping));
    let mut rule = allow("web", ICMP, 0);
    rule.traffic = vec![Traffic {
        protocol: Some(ICMP),
        icmp: Some(crate::model::Icmp { kind: 8, code: None }),
        ..Traffic::default()
    }];
    state.policies.insert(key("ping"), policy("db", Direction::Ingress, vec![rule]));
    assert!(!is_cut(&state, &ping));
}

#[test]
fn of_two_endpoints_with_one_address_either_may_keep_it() {
    let mut state = state();
    let mut heir = state.endpoints[&EndpointId::pod("shop", "db")].clone();
    (heir.name, heir.interface) = ("heir".to_owned(), Some("manx-heir".to_owned()));
    heir.labels.clear();
    assert!(is_cut(&state, &entry(REMOTE, DB, TCP, 80)));
    state.endpoints.insert(EndpointId::pod("shop", "heir"), heir);
    assert!(!is_cut(&state, &entry(REMOTE, DB, TCP, 80)));
}

/// Under whichever address: `web` may send from the client's net.
#[test]
fn what_a_pod_sends_under_other_addresses_is_judged_as_its_own() {
    let mut state = state();
    let borrowed = entry("203.0.113.9", REMOTE, TCP, 80);
    state.policies.insert(key("out"), policy("web", Direction::Egress, vec![allow("remote", TCP, 443)]));
    assert!(!is_cut(&state, &borrowed), "nobody here sends it");
    let web = state.endpoints.get_mut(&EndpointId::pod("shop", "web")).unwrap();
    web.sources = ["203.0.113.0/24".parse().unwrap(), format!("{DB}/32").parse().unwrap()].into();
    assert!(!is_cut(&state, &entry("203.0.113.9", REMOTE, TCP, 443)));
    // Found by the pod's own address, which is in no tuple.
    assert_eq!(denied(&state, &[ip(WEB)].into(), std::slice::from_ref(&borrowed)).len(), 1);
    assert!(denied(&state, &[ip(DB)].into(), std::slice::from_ref(&borrowed)).is_empty());
    // Whoever holds the address answers for it, whatever others may send.
    assert!(!is_cut(&state, &entry(DB, REMOTE, TCP, 80)));
    state.policies.insert(key("in"), policy("db", Direction::Egress, vec![allow("remote", TCP, 443)]));
    state.policies.insert(key("out"), policy("web", Direction::Egress, vec![allow("remote", TCP, 80)]));
    assert!(is_cut(&state, &entry(DB, REMOTE, TCP, 80)));
}

/// The prefixes of a Namespace may hold clients of its pods.
#[test]
fn what_comes_from_elsewhere_to_a_borrower_is_not_its_own() {
    let mut state = state();
    let db = state.endpoints.get_mut(&EndpointId::pod("shop", "db")).unwrap();
    db.sources = [format!("{CLIENT}/32").parse().unwrap()].into();
    assert!(is_cut(&state, &entry(CLIENT, DB, TCP, 5432)), "ingress of db is for web alone");
    state.policies.insert(key("db"), policy("db", Direction::Egress, Vec::new()));
    assert!(!is_cut(&state, &entry(CLIENT, DB, TCP, 5432)));
}

#[test]
fn a_pod_to_itself_stays() {
    let mut state = state();
    state.policies.insert(key("none"), policy("db", Direction::Egress, Vec::new()));
    assert!(!is_cut(&state, &entry(DB, DB, TCP, 80)));
}
