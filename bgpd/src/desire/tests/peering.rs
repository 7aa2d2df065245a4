//! The ways to peer: from which address, how far, with whom.

use super::*;
use bgp_proto::config::RemoteAsn;

/// The only peer of a node whose objects are these.
fn only_peer(changes: Vec<Change>) -> (PeerConfig, String) {
    let desire = of(changes);
    assert_eq!(desire.refused, BTreeMap::new());
    let (name, config) = desire.speaker.unwrap().peers.into_iter().next().unwrap();
    (config, desire.source_reasons[&name].clone())
}

fn one(spec: &str) -> PeerConfig {
    only_peer(vec![put(Change::Peer, &peer("tor", spec))]).0
}

fn refusal_of(changes: Vec<Change>) -> (&'static str, String) {
    let refusal = of(changes).refused["tor"].clone();
    (refusal.reason, refusal.message)
}

#[test]
fn ttl_security_is_the_peers_own_or_inherited() {
    assert!(!one("address: 10.0.1.1, asn: 65001").ttl_security);
    assert!(one("address: 10.0.1.1, asn: 65001, session: {ttlSecurity: true}").ttl_security);
    let inherited = |spec: &str| {
        let all = put(Change::Configuration, &configuration("session: {ttlSecurity: true}"));
        only_peer(vec![all, put(Change::Peer, &peer("tor", spec))]).0
    };
    assert!(inherited("address: 10.0.1.1, asn: 65001").ttl_security);
    assert!(!inherited("address: 10.0.1.1, asn: 65001, session: {ttlSecurity: false}").ttl_security);
}

#[test]
fn several_paths_per_prefix_are_asked_for_by_direction_and_inherited_so() {
    use bgp_proto::config::AddPath;
    assert_eq!(one("address: 10.0.1.1, asn: 65001").add_path, AddPath::default());
    let of = |all: &str, spec: &str| {
        let all = put(Change::Configuration, &configuration(&format!("session: {{addPath: {{{all}}}}}")));
        only_peer(vec![all, put(Change::Peer, &peer("tor", &format!("address: 10.0.1.1, asn: 65001{spec}")))])
            .0
            .add_path
    };
    assert_eq!(of("send: 64", ""), AddPath { receive: false, send: 64 });
    let both = of("receive: true, send: 64", ", session: {addPath: {send: 2}}");
    assert_eq!(both, AddPath { receive: true, send: 2 });
    assert!(!of("receive: true", ", session: {addPath: {receive: false}}").receive);
}

#[test]
fn a_session_runs_from_the_interface_that_is_named() {
    let loopback = "address: 10.9.9.9, asn: 65001, maxHops: 2, sourceInterface: lo";
    let (config, why) = only_peer(vec![put(Change::Peer, &peer("tor", loopback))]);
    assert_eq!(config.local_address, Some("10.255.0.11".parse().unwrap()));
    assert_eq!(
        config.next_hop.ipv4,
        Some(Ipv4Addr::new(10, 255, 0, 11)),
        "what it says of itself is the same"
    );
    assert_eq!(why, "address of lo, the sourceInterface");
    let ipv6 = one("address: 'fd09::9', asn: 65001, maxHops: 2, sourceInterface: lo");
    assert_eq!(ipv6.local_address, Some("fd00:ff::11".parse().unwrap()), "of the peer's family");
    assert_eq!(ipv6.admin, AdminState::Up);
}

#[test]
fn a_session_whose_interface_has_no_address_waits_for_one() {
    for (name, text) in [
        ("eth7", "spec.sourceInterface eth7: this node has no such interface: create it, or name another"),
        (
            "eth9",
            "spec.sourceInterface eth9 has no IPv4 address that is usable: give it one of the peer's family, or name \
             another interface",
        ),
    ] {
        let config = one(&format!("address: 10.9.9.9, asn: 65001, sourceInterface: {name}"));
        assert_eq!(config.local_address, None);
        let text = text.to_owned();
        assert_eq!(config.admin, AdminState::Withheld { reason: Reason::InterfaceDown, text });
    }
    let shut = "address: 10.9.9.9, asn: 65001, sourceInterface: eth7, adminState: Shutdown";
    assert_eq!(one(shut).admin, AdminState::Shutdown { message: String::new() });
}

#[test]
fn the_local_address_has_a_reason() {
    let why = |spec: &str| only_peer(vec![put(Change::Peer, &peer("tor", spec))]).1;
    assert_eq!(
        why("address: 10.0.1.1, asn: 65001"),
        "address of eth0, the interface of the route to the peer"
    );
    assert_eq!(
        why("address: 10.9.9.9, asn: 65001, maxHops: 2"),
        "the node's address: the peer is more than one hop away"
    );
}

#[test]
fn who_the_neighbour_may_be_and_who_we_are_to_it() {
    assert_eq!(one("address: 10.0.1.1, asnType: External").remote_asn, RemoteAsn::External);
    assert_eq!(one("address: 10.0.1.1, asnType: External").max_hops, 1);
    assert_eq!(one("address: 10.0.1.1, asnType: Internal").remote_asn, RemoteAsn::Internal);
    let other = one("address: 10.0.1.1, asn: 65001, localASN: 65099, passive: true, port: 1179");
    assert_eq!((other.local_asn, other.passive, other.port), (Some(Asn(65099)), true, 1179));
    // With the peer's own number as ours the session is an internal one.
    let internal = one("address: 10.0.1.1, asn: 65001, localASN: 65001");
    assert_eq!(internal.max_hops, 255);
    let plain = one("address: 10.0.1.1, asn: 65001");
    assert_eq!((plain.local_asn, plain.passive, plain.port), (None, false, 179));
}

#[test]
fn who_waits_to_be_dialled_needs_a_listener() {
    let deaf = || put(Change::Configuration, &configuration("node: {bgpPort: 0}"));
    let passive = put(Change::Peer, &peer("tor", "address: 10.0.1.1, asn: 65001, passive: true"));
    let (reason, message) = refusal_of(vec![deaf(), passive]);
    assert_eq!(reason, "NoListener");
    assert_eq!(message, "spec.passive waits for the peer to dial, but node.bgpPort 0 listens nowhere");
    let range = put(Change::Peer, &peer("tor", "listenRange: 10.0.1.0/24, asn: 65001"));
    let (reason, message) = refusal_of(vec![deaf(), range]);
    assert_eq!(reason, "NoListener");
    assert_eq!(message, "spec.listenRange waits for neighbours to dial, but node.bgpPort 0 listens nowhere");
    let dials = of(vec![deaf(), put(Change::Peer, &peer("tor", "address: 10.0.1.1, asn: 65001"))]);
    assert_eq!((dials.port, dials.refused.len()), (0, 0), "one that we dial needs none");
    let own = put(Change::Peer, &peer("tor", "address: 10.0.0.11, asn: 65001"));
    assert_eq!(
        refusal_of(vec![own]),
        ("AddressIsOurs", "spec.address 10.0.0.11 is this node's own address".to_owned())
    );
}

#[test]
fn a_range_has_the_settings_and_the_key_of_its_peer() {
    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: tor-keys, namespace: manx-secrets}, data: {r12: b25l}}";
    let desire = of(vec![
        put(Change::Secret, secret),
        Change::Secret(Followed::InSync),
        put(
            Change::Peer,
            &peer(
                "rack",
                "listenRange: 10.0.1.0/24, asnType: External, session: {ttlSecurity: true, maxPrefixes: {ipv4: 7}, \
                 auth: {md5: {secretRef: {name: tor-keys, key: r12}}}}",
            ),
        ),
    ]);
    assert_eq!(desire.refused, BTreeMap::new());
    let config = desire.speaker.unwrap();
    assert!(config.peers.is_empty());
    let range = &config.ranges[&PeerName::from("rack")];
    assert_eq!((range.prefix, range.limit), (net("10.0.1.0/24"), 256));
    let settings = &range.peer;
    assert_eq!((settings.remote_asn, settings.max_hops), (RemoteAsn::External, 1));
    assert_eq!((settings.max_prefixes.ipv4, settings.signed, settings.ttl_security), (7, true, true));
    assert_eq!(settings.next_hop.ipv4, None, "the session's own address, on whichever link it runs");
    assert_eq!(settings.next_hop.ipv6, Some("fd00:1::11".parse().unwrap()));
    assert_eq!(desire.keys[&net("10.0.1.0/24")].as_ref().unwrap().bytes(), b"one");
}

#[test]
fn of_two_peers_with_one_range_the_older_is_served() {
    let at = |name: &str, second: u32, range: &str| {
        let text = format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: BGPPeer, metadata: {{name: {name}, creationTimestamp: \
             '2026-01-01T00:00:0{second}Z'}}, spec: {{listenRange: '{range}', asn: 65001}}}}"
        );
        put(Change::Peer, &text)
    };
    let desire = of(vec![at("a", 2, "10.0.1.0/24"), at("b", 1, "10.0.1.0/24"), at("c", 3, "10.0.0.0/16")]);
    let ranges: Vec<&str> = desire.speaker.as_ref().unwrap().ranges.keys().map(PeerName::as_str).collect();
    assert_eq!(ranges, ["b", "c"], "one inside another is fine");
    let text = "spec.listenRange 10.0.1.0/24 is served by the older BGPPeer b".to_owned();
    assert_eq!(desire.refused["a"], refusal("OverlapsPeer", text));
    let link_local = of(vec![at("d", 1, "fe80::/10")]);
    assert!(link_local.refused["d"].message.contains("reached through spec.interface"));
}

/// Two nodes more: n2 with a label, n3 without.
fn with_nodes(changes: Vec<Change>) -> Desire {
    let node = |name: &str, number: u8, labels: &str| {
        let text = format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: {name}, labels: {{{labels}}}}}, spec: \
             {{asn: 6500{number}, addresses: {{ipv4: 10.0.0.1{number}}}}}}}"
        );
        put(Change::FabricNode, &text)
    };
    let mut all =
        vec![node("n1", 1, "rack: '12'"), node("n2", 2, "spine: 'yes'"), node("n3", 3, "rack: '12'")];
    all.extend(changes);
    of(all)
}

#[test]
fn peer_node_selector_joins_what_it_selects_whichever_way_round() {
    let none = || put(Change::Configuration, &configuration("topology: {mode: None}"));
    let out = "nodeSelector: {matchLabels: {rack: '12'}}, peerNodeSelector: {matchLabels: {spine: 'yes'}}";
    let back = "nodeSelector: {matchLabels: {spine: 'yes'}}, peerNodeSelector: {matchLabels: {rack: '12'}}";
    for selectors in [out, back] {
        let spec = format!("{selectors}, transit: true, maxHops: 3, session: {{timers: {{hold: 9s}}}}");
        let desire = with_nodes(vec![none(), put(Change::Peer, &peer("spines", &spec))]);
        assert_eq!(desire.refused, BTreeMap::new());
        let config = desire.speaker.as_ref().unwrap();
        let names: Vec<&str> = config.peers.keys().map(PeerName::as_str).collect();
        assert_eq!(names, ["spines.10.0.0.12"], "n3 is no spine");
        let name = PeerName::from("spines.10.0.0.12");
        let one = &config.peers[&name];
        assert_eq!((one.remote_asn, one.passive, one.max_hops), (RemoteAsn::Exactly(Asn(65002)), true, 3));
        assert_eq!((one.hold_time, one.export.transit), (Duration::from_secs(9), true));
        assert_eq!(
            (desire.class_of(&name), desire.reports(&name)),
            ("spines", false),
            "the higher router id dials"
        );
    }
}

#[test]
fn a_persons_word_beats_the_mesh_for_the_pairs_that_it_names() {
    let spec = "peerNodeSelector: {matchLabels: {spine: 'yes'}}, adminState: Shutdown";
    let desire = with_nodes(vec![put(Change::Peer, &peer("spines", spec))]);
    let config = desire.speaker.as_ref().unwrap();
    let names: Vec<&str> = config.peers.keys().map(PeerName::as_str).collect();
    assert_eq!(names, ["spines.10.0.0.12", "topology.10.0.0.13"]);
    assert_eq!(
        config.peers[&PeerName::from("spines.10.0.0.12")].admin,
        AdminState::Shutdown { message: String::new() }
    );
    // And a peer by its address beats both.
    let own = put(Change::Peer, &peer("own", "address: 10.0.0.12, asn: 65002"));
    let desire = with_nodes(vec![put(Change::Peer, &peer("spines", spec)), own]);
    let names: Vec<&str> = desire.speaker.as_ref().unwrap().peers.keys().map(PeerName::as_str).collect();
    assert_eq!(names, ["own", "topology.10.0.0.13"]);
    assert_eq!(desire.remarks, ["node n2 is spoken to as BGPPeer own says"]);
}

#[test]
fn a_neighbour_on_an_interface_is_one_hop_away_by_its_link_local_address() {
    let (config, why) =
        only_peer(vec![put(Change::Peer, &peer("leaf", "interface: eth1, asnType: External"))]);
    assert_eq!((config.remote, config.local_address), (on(3, "fe80::1"), Some(on(3, "fe80::9"))));
    assert_eq!((config.max_hops, config.extended_next_hop, config.admin.clone()), (1, true, AdminState::Up));
    assert_eq!(why, "link-local address of eth1, the interface of the peer");
    // No address of the node stands in for one of the link: the neighbour could not reach it.
    assert_eq!((config.next_hop.ipv4, config.next_hop.ipv6), (None, None));
    let numbered = one("interface: eth0, asnType: External");
    assert_eq!(numbered.next_hop.ipv6, Some("fd00:1::11".parse().unwrap()));
    assert_eq!(numbered.next_hop.ipv4, Some(Ipv4Addr::new(10, 0, 1, 11)));
    let internal = one("interface: eth1, asnType: Internal, families: [IPv6Unicast]");
    assert_eq!((internal.max_hops, internal.extended_next_hop), (1, false));
    // Who is not spoken to is named.
    let desire = of(vec![put(Change::Peer, &peer("leaf", "interface: eth1, asnType: External"))]);
    assert_eq!(
        desire.remarks.first().map(String::as_str),
        Some("there are several routers on eth1: BGPPeer leaf speaks to fe80::1%eth1, not to fe80::2%eth1")
    );
    assert_eq!(desire.interfaces, BTreeMap::from([("eth1".to_owned(), PeerName::from("leaf"))]));
}

#[test]
fn interfaces_without_a_neighbour_wait_each_for_its_own() {
    let two = |a: &str, b: &str| {
        let spec = |name: &str| format!("interface: {name}, asnType: External");
        of(vec![put(Change::Peer, &peer("a", &spec(a))), put(Change::Peer, &peer("b", &spec(b)))])
    };
    for desire in [two("eth7", "eth8"), two("eth9", "eth7")] {
        let peers = desire.speaker.as_ref().unwrap().peers.clone();
        let (a, b) = (&peers[&PeerName::from("a")], &peers[&PeerName::from("b")]);
        assert_ne!(a.remote, b.remote, "each is another nobody");
        for one in [a, b] {
            assert!(bgp_proto::link_local::is_nobody(one.remote) && one.local_address.is_none());
            assert!(matches!(&one.admin, AdminState::Withheld { reason: Reason::NeighborNotFound, .. }));
        }
        assert!(desire.refused.is_empty());
    }
    let desire = two("eth1", "eth1");
    let refusal = &desire.refused["b"];
    assert_eq!(
        (refusal.reason, refusal.message.as_str()),
        ("OverlapsPeer", "spec.interface eth1 is served by the older BGPPeer a")
    );
}
