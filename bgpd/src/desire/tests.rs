use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use manx_crds::store::follow::Change as Followed;

use bgp_proto::Input;
use bgp_proto::output::Reason;
use bgp_proto::policy::{Source, Sources};
use bgp_proto::route::{Audience, OwnRoute};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use manx_crds::services::ServiceIndex;

use super::*;

mod peering;

use crate::objects::{Change, Objects};
use crate::originate::Originated;

fn parse<K: serde::de::DeserializeOwned>(yaml: &str) -> K {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"))
}

pub(super) fn put<K: serde::de::DeserializeOwned>(wrap: fn(Followed<K>) -> Change, yaml: &str) -> Change {
    wrap(Followed::Put(parse(yaml)))
}

const NODE: &str =
    "{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {rack: '12'}}, status: {addresses: [
    {type: InternalIP, address: 10.0.0.11}, {type: InternalIP, address: 'fd00::11'}]}}";
const POOL: &str =
    "{apiVersion: manx.dev/v1alpha1, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.244.0.0/16}}";
const BLOCK: &str = "{apiVersion: manx.dev/v1alpha1, kind: IPBlock, metadata: {name: 10-244-0-0-26},
    spec: {cidr: 10.244.0.0/26, pool: pods, nodeName: n1}}";

pub(super) fn peer(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: BGPPeer, metadata: {{name: {name}, labels: {{tier: {name}}}}}, spec: {{{spec}}}}}"
    )
}

fn advertisement(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: BGPAdvertisement, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    )
}

fn configuration(spec: &str) -> String {
    format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {{name: default}}, spec: {{{spec}}}}}"
    )
}

fn objects(changes: Vec<Change>) -> Objects {
    let mut objects = Objects::default();
    objects.take(put(Change::Node, NODE));
    objects.take(put(Change::Pool, POOL));
    objects.take(put(Change::Block, BLOCK));
    for change in changes {
        objects.take(change);
    }
    objects
}

pub(super) fn of(changes: Vec<Change>) -> Desire {
    seen(&objects(changes))
}

/// Nothing runs yet.
const AT_FIRST: Running<'_> = Running {
    mesh: &BTreeMap::new(),
    topology: &Topology::None,
    settled_for: Duration::ZERO,
    reflectors: &BTreeSet::new(),
    carries: &|_| true,
};

/// Every peer is behind eth0; there is lo with addresses, and eth9 without.
fn seen(objects: &Objects) -> Desire {
    desired(objects, &AT_FIRST)
}

/// The same, after what runs.
fn desired(objects: &Objects, running: &Running<'_>) -> Desire {
    let eth0 = LinkAddresses {
        name: Some("eth0".to_owned()),
        ipv4: Some(Ipv4Addr::new(10, 0, 1, 11)),
        ipv6: Some("fd00:1::11".parse().unwrap()),
    };
    let lo = LinkAddresses {
        name: Some("lo".to_owned()),
        ipv4: Some(Ipv4Addr::new(10, 255, 0, 11)),
        ipv6: Some("fd00:ff::11".parse().unwrap()),
    };
    let named = |name: &str| match name {
        "eth0" => Some(eth0.clone()),
        "lo" => Some(lo.clone()),
        "eth9" => Some(LinkAddresses { name: Some("eth9".to_owned()), ..LinkAddresses::default() }),
        _ => None,
    };
    let on = |name: &str| match name {
        "eth0" => Place::Neighbour { local: on(2, "fe80::9"), remote: on(2, "fe80::1"), others: Vec::new() },
        "eth1" => Place::Neighbour {
            local: on(3, "fe80::9"),
            remote: on(3, "fe80::1"),
            others: vec!["fe80::2".parse().unwrap()],
        },
        other => Place::Nobody {
            reason: Reason::NeighborNotFound,
            text: format!("no router was heard on {other}"),
            ifindex: (other == "eth9").then_some(9),
        },
    };
    let is_up = |name: &str| name == "eth0";
    let links = Links { towards: &|_| eth0.clone(), named: &named, is_up: &is_up, on: &on };
    desire(objects, "n1", &links, running)
}

fn on(interface: u32, text: &str) -> IpAddr {
    IpAddr::V6(bgp_proto::link_local::scoped(text.parse().unwrap(), interface))
}

/// A block that is told to a peer.
pub(crate) fn advertised() -> Desire {
    of(vec![
        put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001")),
        put(Change::Advertisement, &advertisement("all", "pools: {}")),
    ])
}

/// What the speaker is told to originate, without Services.
pub(super) fn told(desire: &Desire) -> BTreeMap<IpNet, Vec<OwnRoute>> {
    let inputs = Originated::default().all(&desire.export, &ServiceIndex::new("n1"), Instant::now());
    let originate = |input| {
        let Input::Originate { prefix, routes } = input else { panic!("{input:?}") };
        (prefix, routes)
    };
    inputs.into_iter().map(originate).collect()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn a_plain_peer_gets_both_families_and_the_addresses_of_its_link() {
    let desire = of(vec![put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001"))]);
    let config = desire.speaker.as_ref().unwrap();
    assert_eq!((config.asn, config.router_id.0), (Asn(64512), Ipv4Addr::new(10, 0, 0, 11)));
    let tor = &config.peers[&PeerName::from("tor-a")];
    assert_eq!(tor.next_hop.ipv4, Some(Ipv4Addr::new(10, 0, 1, 11)));
    assert_eq!(tor.next_hop.ipv6, Some("fd00:1::11".parse().unwrap()));
    assert_eq!((tor.max_hops, tor.local_address, tor.families.len()), (1, None, 2));
    assert!(
        tor.import.never.contains(&net("10.244.0.0/26")) && tor.import.never.contains(&net("10.0.0.11/32"))
    );
    assert!(tor.import.within.contains(&net("10.244.0.0/16")) && tor.import.default_route);
    assert_eq!(desire.blackholes, BTreeSet::from([net("10.244.0.0/26")]));
    assert!(told(&desire).is_empty(), "nothing is originated without a BGPAdvertisement");
}

#[test]
fn blocks_go_to_the_peers_that_advertisements_select_with_their_attributes() {
    let desire = of(vec![
        put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001")),
        put(Change::Peer, &peer("tor-b", "address: 10.0.2.1, asn: 65002")),
        put(Change::Peer, &peer("tor-c", "address: 10.0.3.1, asn: 65003")),
        put(
            Change::Advertisement,
            &advertisement("all", "pools: {}, attributes: {communities: ['64512:1'], med: 5}"),
        ),
        put(
            Change::Advertisement,
            &advertisement(
                "some",
                "peerSelector: {matchLabels: {tier: tor-b}}, pools: {}, attributes: {communities: [no-export], med: 9, prepend: 2}",
            ),
        ),
    ]);
    let routes = &told(&desire)[&net("10.244.0.0/26")];
    assert_eq!(routes.len(), 2);
    assert_eq!(routes[0].audience, only(&["tor-a", "tor-c"]));
    assert_eq!((routes[0].med, routes[0].prepend), (Some(5), 0));
    assert_eq!(routes[1].audience, only(&["tor-b"]));
    assert_eq!(routes[1].communities, BTreeSet::from([64512 << 16 | 1, 0xffff_ff01]));
    assert_eq!((routes[1].med, routes[1].prepend), (Some(5), 2), "the first by name that sets it");
}

#[test]
fn announce_cidr_tells_the_pool_where_a_block_of_it_is() {
    let desire = of(vec![
        put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001")),
        put(Change::Advertisement, &advertisement("pools", "pools: {announce: CIDR}")),
    ]);
    assert_eq!(told(&desire).keys().copied().collect::<Vec<_>>(), [net("10.244.0.0/16")]);
}

#[test]
fn what_cannot_be_served_says_why_and_does_not_stop_the_others() {
    let desire = of(vec![
        put(Change::Peer, &peer("ok", "address: 10.0.1.1, asn: 65001")),
        put(Change::Peer, &peer("twice", "address: 10.0.1.1, asn: 65001")),
        put(Change::Peer, &peer("own", "address: 10.0.0.11, asn: 65001")),
        put(Change::Peer, &peer("later", "address: 10.0.4.1, asn: 65001, adminState: Sleeping")),
        put(
            Change::Peer,
            &peer("elsewhere", "address: 10.0.5.1, asn: 65001, nodeSelector: {matchLabels: {rack: '13'}}"),
        ),
    ]);
    let reasons: Vec<(&str, &str)> = desire.refused.iter().map(|(n, r)| (n.as_str(), r.reason)).collect();
    assert_eq!(reasons, [("later", "UnknownValue"), ("own", "AddressIsOurs"), ("twice", "OverlapsPeer")]);
    let served: Vec<&str> = desire.speaker.as_ref().unwrap().peers.keys().map(PeerName::as_str).collect();
    assert_eq!(served, ["ok"]);
}

#[test]
fn the_asn_comes_from_the_label_or_there_is_none() {
    let labelled = configuration("node: {asnFromLabel: {key: rack, base: 4200000000}}");
    let desire = of(vec![put(Change::Configuration, &labelled)]);
    assert_eq!(desire.speaker.unwrap().asn, Asn(4_200_000_012));
    let wrong = configuration("node: {asnFromLabel: {key: site, base: 4200000000}}");
    let desire = of(vec![put(Change::Configuration, &wrong)]);
    assert_eq!((desire.speaker, desire.problem.unwrap().reason), (None, "InvalidASNLabel"));
}

#[test]
fn a_label_that_becomes_invalid_changes_nothing_but_the_problem() {
    let good = of(vec![
        put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001")),
        put(Change::Advertisement, &advertisement("all", "pools: {}")),
    ]);
    let wrong = configuration("node: {asnFromLabel: {key: site, base: 4200000000}}");
    let kept = of(vec![put(Change::Configuration, &wrong)]).or_last_good(&good);
    assert_eq!(kept.problem.as_ref().unwrap().reason, "InvalidASNLabel");
    assert_eq!(Desire { problem: None, ..kept.clone() }, good);
    assert_eq!(good.clone().or_last_good(&kept), good, "and it ends with the label");
}

fn fabric_node(name: &str, address: &str, spec: &str) -> Change {
    let text = format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: {name}}}, spec: {{{spec}}},
          status: {{addresses: {address}}}}}"
    );
    put(Change::FabricNode, &text)
}

/// n1 and two others, of which one has no address yet.
fn mesh(mut changes: Vec<Change>) -> Desire {
    let mut all = vec![
        fabric_node("n1", "{ipv4: 10.0.0.11, ipv6: 'fd00::11'}", ""),
        fabric_node("n2", "{ipv4: 10.0.0.12, ipv6: 'fd00::12'}", ""),
        fabric_node("n3", "{}", ""),
    ];
    all.append(&mut changes);
    of(all)
}

fn only(names: &[&str]) -> Audience {
    Audience::Only(names.iter().map(|name| PeerName::from(*name)).collect())
}

#[test]
fn full_mesh_is_the_default_and_needs_to_know_the_other_node() {
    let desire = mesh(vec![]);
    let config = desire.speaker.as_ref().unwrap();
    let names: Vec<&str> = config.peers.keys().map(PeerName::as_str).collect();
    assert_eq!(names, ["topology.10.0.0.12"]);
    let peer = &config.peers[&PeerName::from("topology.10.0.0.12")];
    assert_eq!(
        (peer.remote, peer.remote_asn),
        ("10.0.0.12".parse().unwrap(), RemoteAsn::Exactly(Asn(64512)))
    );
    assert_eq!(peer.local_address, Some("10.0.0.11".parse().unwrap()));
    assert_eq!((peer.passive, peer.max_hops, peer.port), (true, 255, 179), "the higher router id dials");
    assert_eq!(peer.next_hop.ipv4, Some(Ipv4Addr::new(10, 0, 0, 11)));
    assert_eq!(peer.next_hop.ipv6, Some("fd00::11".parse().unwrap()), "one session carries both families");
    assert!(!peer.export.transit && !peer.import.default_route);
    assert_eq!(peer.import.within, BTreeSet::from([net("10.244.0.0/16")]));
    assert!(peer.import.never.contains(&net("10.244.0.0/26")));
    assert!(!desire.reports(&PeerName::from("topology.10.0.0.12")), "the dialling end reports");
    assert_eq!(desire.class_of(&PeerName::from("topology.10.0.0.12")), "topology");
    // Own blocks, always.
    let told = told(&desire);
    assert_eq!(told[&net("10.244.0.0/26")][0].audience, only(&["topology.10.0.0.12"]));
}

#[test]
fn settings_of_the_topology_come_first_and_a_mode_of_none_ends_it() {
    let timers = configuration("session: {timers: {hold: 9s}}, topology: {session: {timers: {hold: 6s}}}");
    let desire = mesh(vec![put(Change::Configuration, &timers)]);
    let peers = desire.speaker.unwrap().peers;
    assert_eq!(peers[&PeerName::from("topology.10.0.0.12")].hold_time, std::time::Duration::from_secs(6));
    let none = mesh(vec![put(Change::Configuration, &configuration("topology: {mode: None}"))]);
    assert_eq!((none.speaker.unwrap().peers.len(), none.refused.len()), (0, 0));
    let refused = mesh(vec![put(Change::Configuration, &configuration("topology: {mode: Star}"))]);
    assert_eq!(refused.speaker.unwrap().peers.len(), 0);
    assert!(refused.refused["topology"].message.starts_with("spec.topology.mode"));
}

#[test]
fn a_bfd_profile_is_looked_up_where_the_session_names_it() {
    let profile = "{apiVersion: manx.dev/v1alpha1, kind: BFDProfile, metadata: {name: fast},
        spec: {transmitInterval: 100ms, receiveInterval: 50ms, detectMultiplier: 5, passive: true}}";
    let inherited = configuration("session: {bfdProfile: fast}");
    let changes = || {
        vec![
            put(Change::Configuration, &inherited),
            put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001")),
            put(Change::Peer, &peer("tor-b", "address: 10.0.2.1, asn: 65001, session: {bfdProfile: ''}")),
            put(Change::Peer, &peer("tor-c", "address: 10.0.3.1, asn: 65001, session: {bfdProfile: slow}")),
        ]
    };
    let (tor_a, tor_c) = (PeerName::from("tor-a"), PeerName::from("tor-c"));
    let with = mesh(changes().into_iter().chain([put(Change::BfdProfile, profile)]).collect());
    let timing = with.bfd[&tor_a];
    let milliseconds = |interval: Duration| interval.as_millis();
    assert_eq!((milliseconds(timing.desired_min_tx), milliseconds(timing.required_min_rx)), (100, 50));
    assert_eq!((timing.detect_multiplier, timing.passive), (5, true));
    assert!(with.bfd.contains_key(&PeerName::from("topology.10.0.0.12")), "node to node, too");
    assert_eq!(with.bfd.len(), 2, "switched off with tor-b");
    let missing = "spec.session.bfdProfile: there is no BFDProfile slow: create it, or name another";
    assert_eq!(with.bfd_missing[&tor_c], missing);
    let without = mesh(changes());
    let text = &without.bfd_missing[&tor_a];
    assert!(
        text.starts_with("spec.session.bfdProfile of FabricConfiguration default: there is no"),
        "{text}"
    );
    let admin = without.or_last_good(&Desire::default()).speaker.unwrap().peers[&tor_a].admin.clone();
    assert!(matches!(admin, AdminState::Withheld { .. }), "{admin:?}");
}

#[test]
fn advertisements_reach_other_nodes_where_inter_node_says_so() {
    let desire = mesh(vec![
        put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001")),
        put(Change::Advertisement, &advertisement("blocks", "pools: {}, attributes: {med: 5}")),
        put(
            Change::Advertisement,
            &advertisement("inside", "interNode: true, prefixes: [{cidr: 198.51.100.0/24}]"),
        ),
        put(Change::Advertisement, &advertisement("outside", "prefixes: [{cidr: 203.0.113.0/24}]")),
        put(Change::Advertisement, &advertisement("nodes", "interNode: true, nodeAddresses: {}")),
    ]);
    let told = told(&desire);
    let audiences = |prefix: &str| -> Vec<(Audience, Option<u32>)> {
        told[&net(prefix)].iter().map(|route| (route.audience.clone(), route.med)).collect()
    };
    assert_eq!(
        audiences("10.244.0.0/26"),
        [(only(&["topology.10.0.0.12"]), None), (only(&["tor-a"]), Some(5))],
        "blocks go to other nodes as they are"
    );
    assert_eq!(audiences("198.51.100.0/24"), [(only(&["tor-a", "topology.10.0.0.12"]), None)]);
    assert_eq!(audiences("203.0.113.0/24"), [(only(&["tor-a"]), None)]);
    for own in ["10.0.0.11/32", "fd00::11/128"] {
        assert_eq!(audiences(own), [(only(&["tor-a"]), None)], "a session runs on these very addresses");
    }
    let node = &desire.speaker.unwrap().peers[&PeerName::from("topology.10.0.0.12")];
    assert!(node.import.within.contains(&net("198.51.100.0/24")));
    assert!(!node.import.within.contains(&net("203.0.113.0/24")) && !node.import.default_route);
}

#[test]
fn a_persons_word_on_a_neighbour_replaces_the_session_of_the_mesh() {
    let desire = mesh(vec![put(Change::Peer, &peer("special", "address: 10.0.0.12, asn: 64512"))]);
    let names: Vec<String> =
        desire.speaker.unwrap().peers.keys().map(|name| name.as_str().to_owned()).collect();
    assert_eq!(names, ["special"]);
    assert!(desire.mesh.is_empty() && desire.remarks[0].contains("n2"), "{:?}", desire.remarks);
}

#[test]
fn the_younger_of_two_nodes_with_one_address_starts_nothing_and_keeps_what_runs() {
    let alone = mesh(vec![]);
    let older = |created: &str| {
        vec![put(
            Change::FabricNode,
            &format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: n0, creationTimestamp: '{created}'}},
                  spec: {{}}, status: {{addresses: {{ipv4: 10.0.0.11}}}}}}"
            ),
        )]
    };
    // n1 has no creation time, which is older than any.
    assert_eq!(mesh(older("2026-01-01T00:00:00Z")).problem, None);
    let mut young = older("2026-01-01T00:00:00Z");
    young.push(put(
        Change::FabricNode,
        "{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {name: n1, creationTimestamp: '2026-02-01T00:00:00Z'},
          spec: {}, status: {addresses: {ipv4: 10.0.0.11}}}",
    ));
    let twin = mesh(young);
    let problem = twin.problem.clone().unwrap();
    assert_eq!(problem.reason, "IdentityNotUnique");
    assert!(problem.message.contains("10.0.0.11") && problem.message.contains("n0"), "{}", problem.message);
    let fresh = twin.clone().or_last_good(&Desire::default());
    assert_eq!((fresh.speaker, fresh.port), (None, 0), "a node that starts has no session");
    let running = twin.or_last_good(&alone);
    assert_eq!((running.speaker, running.port), (alone.speaker, 179), "one that runs keeps its sessions");
    assert!(running.problem.is_some() && !running.blackholes.is_empty());
}

const AUTH: &str = "session: {auth: {md5: {secretRef: {name: tor-keys, key: r12}}}}";

fn secret(data: &str) -> Vec<Change> {
    let text = format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: tor-keys, namespace: manx-secrets}}, data: {{{data}}}}}"
    );
    vec![put(Change::Secret, &text), Change::Secret(Followed::InSync)]
}

fn with_key(secrets: Vec<Change>) -> Desire {
    let mut changes = vec![
        put(Change::Peer, &peer("tor-a", &format!("address: 10.0.1.1, asn: 65001, {AUTH}"))),
        put(Change::Peer, &peer("tor-b", "address: 10.0.2.1, asn: 65002")),
    ];
    changes.extend(secrets);
    of(changes)
}

fn withheld(desire: &Desire, name: &str) -> Option<(Reason, String)> {
    match &desire.speaker.as_ref().unwrap().peers[&PeerName::from(name)].admin {
        AdminState::Withheld { reason, text } => Some((*reason, text.clone())),
        AdminState::Up | AdminState::Shutdown { .. } => None,
    }
}

#[test]
fn a_session_is_signed_with_the_key_that_its_secret_holds() {
    let desire = with_key(secret("r12: b25l, r13: dHdv"));
    let keys: Vec<(IpNet, &[u8])> =
        desire.keys.iter().map(|(peer, key)| (*peer, key.as_ref().unwrap().bytes())).collect();
    assert_eq!(keys, [(net("10.0.1.1/32"), b"one".as_slice())]);
    assert_eq!(desire.secrets, BTreeSet::from([("tor-keys".to_owned(), "r12".to_owned())]));
    assert_eq!((withheld(&desire, "tor-a"), withheld(&desire, "tor-b")), (None, None));
    let peers = &desire.speaker.as_ref().unwrap().peers;
    assert!(peers[&PeerName::from("tor-a")].signed && !peers[&PeerName::from("tor-b")].signed);
    // The speaker hears nothing of another key: nothing is reset.
    let rolled = with_key(secret("r12: dHdv"));
    assert!(rolled.keys != desire.keys);
    assert_eq!(rolled.speaker, desire.speaker);
}

#[test]
fn a_session_without_its_key_is_not_tried_and_says_which_secret_it_waits_for() {
    for (secrets, text) in [
        (
            vec![Change::Secret(Followed::InSync)],
            "spec.session.auth.md5.secretRef: there is no Secret manx-secrets/tor-keys: create it with the session's \
             password under key r12, or name another",
        ),
        (
            secret("r13: dHdv"),
            "spec.session.auth.md5.secretRef: Secret manx-secrets/tor-keys has no key r12 (it has r13): put the session's \
             password there, or name another key",
        ),
    ] {
        let desire = with_key(secrets);
        assert_eq!(withheld(&desire, "tor-a"), Some((Reason::SecretMissing, text.to_owned())));
        assert_eq!(withheld(&desire, "tor-b"), None, "the other is tried");
        assert_eq!(desire.keys, BTreeMap::from([(net("10.0.1.1/32"), None)]), "and nobody gets in");
        assert!(desire.refused.is_empty());
    }
    let shut = of(vec![put(
        Change::Peer,
        &peer("tor-a", &format!("address: 10.0.1.1, asn: 65001, adminState: Shutdown, {AUTH}")),
    )]);
    assert_eq!(withheld(&shut, "tor-a"), None, "what a person shut down says so");
}

#[test]
fn an_authentication_that_this_version_has_not_is_never_left_out() {
    let auth = "session: {auth: {tcpAO: {keys: [{id: 1, secretRef: {name: tor-keys, key: r12}}]}}}";
    let mut changes = secret("r12: b25l");
    changes.push(put(Change::Peer, &peer("tor-a", &format!("address: 10.0.1.1, asn: 65001, {auth}"))));
    let desire = of(changes);
    let (reason, text) = withheld(&desire, "tor-a").unwrap();
    assert_eq!(reason, Reason::AuthUnsupported);
    assert!(text.starts_with("spec.session.auth.tcpAO is not supported by this version: use md5"), "{text}");
    assert_eq!(desire.keys.values().collect::<Vec<_>>(), [&None]);
}

#[test]
fn sessions_between_nodes_are_signed_as_the_topology_says() {
    let changes = |secrets: Vec<Change>| {
        let mut changes = secrets;
        changes.push(put(Change::Configuration, &configuration(&format!("topology: {{{AUTH}}}"))));
        changes
    };
    let signed = mesh(changes(secret("r12: b25l")));
    let node = net("10.0.0.12/32");
    assert_eq!(signed.keys[&node].as_ref().unwrap().bytes(), b"one");
    let waits = mesh(changes(vec![Change::Secret(Followed::InSync)]));
    let (reason, text) = withheld(&waits, "topology.10.0.0.12").unwrap();
    assert_eq!((reason, waits.keys[&node].clone()), (Reason::SecretMissing, None));
    assert!(text.starts_with("spec.topology.session.auth.md5.secretRef: there is no Secret"), "{text}");
}

#[test]
fn nothing_is_known_before_the_secrets_are_where_a_session_asks_for_a_key() {
    let in_sync = |peer_spec: &str| {
        let mut objects = objects(vec![put(Change::Peer, &peer("tor-a", peer_spec))]);
        for change in [
            Change::Configuration(Followed::InSync),
            Change::FabricNode(Followed::InSync),
            Change::Node(Followed::InSync),
            Change::Peer(Followed::InSync),
            Change::Filter(Followed::InSync),
            Change::BfdProfile(Followed::InSync),
            Change::Advertisement(Followed::InSync),
            Change::Pool(Followed::InSync),
            Change::Block(Followed::InSync),
        ] {
            objects.take(change);
        }
        objects
    };
    assert!(in_sync("address: 10.0.1.1, asn: 65001").in_sync());
    let mut objects = in_sync(&format!("address: 10.0.1.1, asn: 65001, {AUTH}"));
    assert!(!objects.in_sync() && !objects.known());
    // They cannot be read, and nothing is remembered of them: the sessions that need none are tried.
    objects.is_without_secrets = true;
    assert!(!objects.in_sync() && objects.known());
    let desire = seen(&objects);
    let (_, text) = withheld(&desire, "tor-a").unwrap();
    assert!(
        text.contains("was not read yet: may this agent list the Secrets of namespace manx-secrets?"),
        "{text}"
    );
    objects.take(Change::Secret(Followed::InSync));
    assert!(objects.in_sync());
}

#[test]
fn a_multihop_peer_is_spoken_to_from_the_nodes_address() {
    let desire = of(vec![put(Change::Peer, &peer("rr", "address: 10.9.9.9, asnType: Internal"))]);
    let peer = &desire.speaker.unwrap().peers[&PeerName::from("rr")];
    assert_eq!(peer.max_hops, 255);
    assert_eq!(peer.local_address, Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11))));
    assert_eq!(peer.next_hop.ipv4, Some(Ipv4Addr::new(10, 0, 0, 11)));
}

#[test]
fn a_shut_down_node_shuts_every_session_with_its_words() {
    let node = "{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {name: n1},
        spec: {adminState: Shutdown, adminMessage: fan swap}}";
    let desire = of(vec![
        put(Change::FabricNode, node),
        put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001")),
    ]);
    let peer = &desire.speaker.unwrap().peers[&PeerName::from("tor-a")];
    assert_eq!(peer.admin, AdminState::Shutdown { message: "fan swap".into() });
}

#[test]
fn learned_routes_are_told_where_transit_asks_for_it_alone() {
    let desire = of(vec![
        put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001")),
        put(Change::Peer, &peer("spine", "address: 10.0.2.1, asn: 65002, transit: true")),
    ]);
    let peers = desire.speaker.unwrap().peers;
    assert!(!peers[&PeerName::from("tor-a")].export.transit);
    assert!(peers[&PeerName::from("spine")].export.transit);
}

/// Make before break: who had a session with every node ends those with the other clients last.
#[test]
fn sessions_are_kept_until_the_reflectors_carry_their_routes() {
    let node = |number: u8| {
        format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: n{number}}}, spec: {{addresses: {{ipv4: \
             10.0.0.1{number}}}}}}}"
        )
    };
    let with = |topology: &str, reflectors: &str| {
        let mut changes: Vec<Change> = (1..=4).map(|number| put(Change::FabricNode, &node(number))).collect();
        let text = format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {{name: default}}, spec: {{topology: \
             {{mode: {topology}}}}}, status: {{routeReflectors: [{reflectors}]}}}}"
        );
        changes.push(put(Change::Configuration, &text));
        objects(changes)
    };
    let one = |number: u8| {
        format!("{{nodeName: n{number}, clusterID: 10.0.0.1{number}, addresses: [10.0.0.1{number}]}}")
    };
    let nodes = |desire: &Desire| desire.mesh.values().map(|link| link.node.clone()).collect::<BTreeSet<_>>();
    let named = |numbers: &[u8]| numbers.iter().map(|number| format!("n{number}")).collect::<BTreeSet<_>>();
    let later = |objects: &Objects, before: &Desire, carries: &dyn Fn(&PeerName) -> bool, seconds| {
        let (Desire { mesh, topology, reflectors, .. }, settled_for) = (before, Duration::from_secs(seconds));
        desired(objects, &Running { mesh, topology, settled_for, reflectors, carries })
    };
    let follow = |objects: &Objects, before: &Desire, carries| later(objects, before, &|_| carries, 1);
    let full = desired(&with("FullMesh", ""), &AT_FIRST);
    assert_eq!((nodes(&full), full.is_changing), (named(&[2, 3, 4]), false));
    let awaits = follow(&with("RouteReflector", ""), &full, true);
    assert_eq!((nodes(&awaits), awaits.is_changing), (named(&[2, 3, 4]), false));
    // Elected: the session with n2 is an old one, and stands; what n2 reflects is not there yet.
    let elected = with("RouteReflector", &one(2));
    let first = follow(&elected, &awaits, true);
    assert_eq!((nodes(&first), first.is_changing), (named(&[2, 3, 4]), true));
    let waits = follow(&elected, &first, false);
    assert_eq!((nodes(&waits), waits.is_changing), (named(&[2, 3, 4]), true));
    let done = follow(&elected, &waits, true);
    assert_eq!((nodes(&done), done.is_changing), (named(&[2]), false));
    // Another one is elected: the old one's session stays as long.
    let other = with("RouteReflector", &one(3));
    let moved = follow(&other, &done, true);
    assert_eq!((nodes(&moved), moved.is_changing), (named(&[2, 3]), true));
    assert_eq!(nodes(&follow(&other, &moved, true)), named(&[3]));
    // Of two, one does not come: after a while the other is enough. One without any session counts as not there.
    let two = with("RouteReflector", &format!("{}, {}", one(2), one(9)));
    let only_n2 = |name: &PeerName| name.as_str() == "topology.10.0.0.12";
    let first = later(&two, &full, &only_n2, 1);
    let waits = later(&two, &first, &only_n2, 59);
    assert_eq!((nodes(&waits), waits.is_changing), (named(&[2, 3, 4]), true));
    let enough = later(&two, &waits, &only_n2, 60);
    assert_eq!((nodes(&enough), enough.is_changing), (named(&[2]), false));
    assert_eq!(nodes(&later(&two, &waits, &|_| false, 3600)), named(&[2, 3, 4]), "none carries anything");
    // And back: a reflector reflects until everybody has the new sessions.
    let clients = |desire: &Desire| desire.mesh.values().filter(|link| link.client).count();
    let reflector = follow(&with("RouteReflector", &one(1)), &full, true);
    assert_eq!(clients(&reflector), 3);
    let everybody = with("FullMesh", &one(1));
    let begun = follow(&everybody, &reflector, true);
    assert_eq!((clients(&begun), begun.is_changing), (3, true));
    let goes_on = later(&everybody, &begun, &|_| true, 29);
    assert_eq!((clients(&goes_on), goes_on.is_changing), (3, true));
    let over = later(&everybody, &goes_on, &|_| true, 30);
    assert_eq!((clients(&over), over.is_changing, nodes(&over)), (0, false, named(&[2, 3, 4])));
    // A reflector keeps nothing: it speaks to all.
    let reflects = follow(&with("RouteReflector", &one(1)), &done, false);
    assert_eq!((nodes(&reflects), reflects.is_changing), (named(&[2, 3, 4]), false));
    assert!(reflects.mesh.values().all(|link| link.client));
}

#[test]
fn a_prefix_waits_for_what_its_gate_names() {
    let anycast = "prefixes: [{cidr: 198.51.100.0/24, gate: {interface: eth0}},
        {cidr: 203.0.113.0/24, gate: {interface: eth9}}, {cidr: 203.0.113.128/25},
        {cidr: 198.51.100.53/32, gate: {service: {namespace: shop, name: web}}}]";
    let desire = of(vec![
        put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001")),
        put(Change::Advertisement, &advertisement("vips", anycast)),
    ]);
    let told: Vec<IpNet> = told(&desire).into_keys().collect();
    assert_eq!(
        told,
        [net("198.51.100.0/24"), net("203.0.113.128/25")],
        "eth9 is down, the Service unheard of"
    );
    let mut index = ServiceIndex::new("n1");
    index.set_gates(&desire.export.gates);
    index.put_slice(&slice_of_web());
    assert_eq!(index.update(), BTreeSet::from([net("198.51.100.53/32")]));
    let routes = desire.export.routes(&net("198.51.100.53/32"), &index);
    assert_eq!(routes[0].sources, Sources::from(Source::Static));
}

fn slice_of_web() -> EndpointSlice {
    parse(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
         endpoints: [{addresses: [10.244.0.1], nodeName: n1}], \
         metadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}}",
    )
}

/// A Service's address with one endpoint on this node, or without.
fn index(has_endpoint: bool) -> ServiceIndex {
    let advertisement: manx_crds::v1alpha1::BGPAdvertisement =
        parse(&advertisement("vips", "services: {addressTypes: [ClusterIP]}"));
    let mut index = ServiceIndex::new("n1");
    index.set_rules(BTreeMap::from([("vips".to_owned(), advertisement.spec.services.unwrap())]));
    index.put_service(&parse(
        "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: web}, \
         spec: {clusterIP: 10.96.0.1, internalTrafficPolicy: Local}}",
    ));
    if has_endpoint {
        index.put_slice(&slice_of_web());
    }
    index.update();
    index
}

/// kube-proxy hears of an endpoint when we do and programs it later: routers hear of us last, and first that we are
/// no longer there.
#[test]
fn an_address_that_begins_to_be_served_here_waits_for_kube_proxy() {
    let desire = of(vec![
        put(Change::Peer, &peer("tor-a", "address: 10.0.1.1, asn: 65001")),
        put(Change::Advertisement, &advertisement("vips", "services: {addressTypes: [ClusterIP]}")),
    ]);
    let (with, without, changed) = (index(true), index(false), BTreeSet::from([net("10.96.0.1/32")]));
    assert_eq!(with.prefixes().count(), 1);
    let second = Duration::from_secs(1);
    let start = Instant::now();
    let count = |inputs: Vec<Input<'_>>| {
        let originated = inputs.iter().filter(|input| matches!(input, Input::Originate { .. })).count();
        (originated, inputs.len() - originated)
    };

    let mut restarted = Originated::default();
    assert_eq!(
        count(restarted.all(&desire.export, &with, start)),
        (1, 0),
        "peers have it from an earlier life"
    );

    let mut originated = Originated::default();
    assert_eq!(count(originated.all(&desire.export, &without, start)), (0, 0));
    assert_eq!(count(originated.some(&changed, &desire.export, &with, start)), (0, 0));
    let due = originated.next_due().unwrap();
    assert!(due > start + second && due < start + 5 * second);
    assert_eq!(
        count(originated.all(&desire.export, &with, start + second)),
        (0, 0),
        "other changes hurry nothing"
    );
    assert_eq!(originated.next_due(), Some(due));
    assert_eq!(count(originated.some(&BTreeSet::new(), &desire.export, &with, due)), (1, 0));
    assert_eq!(originated.next_due(), None);
    assert_eq!(count(originated.some(&changed, &desire.export, &without, due)), (0, 1), "withdrawn at once");

    originated.some(&changed, &desire.export, &with, due);
    assert_eq!(count(originated.some(&changed, &desire.export, &without, due + second)), (0, 0));
    assert_eq!(originated.next_due(), None, "gone while it waited");
}
