use std::time::Duration;

use manx_crds::store::follow::Change as Follow;
use manx_crds::v1alpha1::{BGPPeer, FabricConfiguration, FabricNode};

use super::*;
use crate::objects::{Change, Objects};
use crate::reflectors::{Elected, Reflectors};

fn node(name: &str, second: u32, ip: &str, port: &str) -> Change {
    let object: FabricNode = serde_saphyr::from_str(&format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: {name}, labels: {{port: {port}}}, \
         creationTimestamp: '2026-01-01T00:00:0{second}Z'}}, spec: {{}}, \
         status: {{addresses: {{ipv4: {ip}}}, bgp: {{routerID: {ip}}}, \
         agents: [{{name: bgpd, version: '1', schemaRevision: 1}}]}}}}"
    ))
    .unwrap();
    Change::FabricNode(Follow::Put(object))
}

fn configuration(spec: &str) -> Change {
    let object: FabricConfiguration = serde_saphyr::from_str(&format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {{name: default}}, spec: {{{spec}}}}}"
    ))
    .unwrap();
    Change::Configuration(Box::new(Follow::Put(object)))
}

fn peer(name: &str, spec: &str) -> Change {
    let object: BGPPeer = serde_saphyr::from_str(&format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: BGPPeer, metadata: {{name: {name}}}, spec: {{asn: 65001, {spec}}}}}"
    ))
    .unwrap();
    Change::Peer(Box::new(Follow::Put(object)))
}

fn objects(changes: Vec<Change>) -> Objects {
    let mut objects = Objects::default();
    changes.into_iter().for_each(|change| objects.take(change));
    objects
}

fn said(offers: &[Offer], name: &str, kind: &str) -> Option<(&'static str, String)> {
    let offer = offers.iter().find(|offer| offer.slot.key.name == name).unwrap();
    let saying = offer.wish.conditions.iter().find(|saying| saying.type_ == kind)?;
    Some((saying.reason, saying.message.clone()))
}

#[test]
fn the_younger_of_two_nodes_with_one_address_is_told_when_it_lasts() {
    let objects = objects(vec![
        node("a", 2, "10.0.0.1", "x"),
        node("b", 1, "10.0.0.1", "x"),
        node("c", 3, "10.0.0.3", "x"),
    ]);
    let mut conflicts = node::Conflicts::default();
    let (offers, notices) = conflicts.judge(&objects, Duration::ZERO);
    assert_eq!(said(&offers, "a", "IdentityUnique").unwrap().0, "Unique");
    assert!(notices.is_empty());
    assert_eq!(conflicts.deadline(Duration::ZERO), Some(Duration::from_secs(10)));
    let (offers, notices) = conflicts.judge(&objects, Duration::from_secs(10));
    let (reason, text) = said(&offers, "a", "IdentityUnique").unwrap();
    assert_eq!(reason, "DuplicateAddress");
    assert!(text.starts_with("10.0.0.1 is the address of node b, too"), "{text}");
    assert_eq!(said(&offers, "b", "IdentityUnique").unwrap().0, "Unique");
    assert_eq!(notices.len(), 1);
}

#[test]
fn a_peer_is_judged_on_every_node_that_it_selects() {
    let objects = objects(vec![
        configuration("overrides: [{nodeSelector: {matchLabels: {port: none}}, node: {bgpPort: 0}}]"),
        node("a", 1, "10.0.0.1", "some"),
        node("b", 2, "10.0.0.2", "none"),
        peer("good", "address: 10.0.0.9"),
        peer("own", "address: 10.0.0.2"),
        peer("own-elsewhere", "address: 10.0.0.2, nodeSelector: {matchLabels: {port: some}}"),
        peer("passive", "address: 10.0.0.8, passive: true"),
        peer("nowhere", "address: 10.0.0.7, nodeSelector: {matchLabels: {port: other}}"),
        peer("shut", "address: 10.0.0.6, adminState: Shutdown"),
        peer("unknown", "address: 10.0.0.5, session: {bfdProfile: fast}, adminState: Sleeping"),
    ]);
    let (offers, notices) = peer::judge(&objects);
    for (name, accepted, established) in [
        ("good", "Accepted", "NoneEstablished"),
        ("own", "AddressIsOurs", "NoneEstablished"),
        ("own-elsewhere", "Accepted", "NoneEstablished"),
        ("passive", "NoListener", "NoneEstablished"),
        ("nowhere", "Accepted", "NoMatchingNode"),
        ("shut", "Accepted", "Shutdown"),
        ("unknown", "UnknownValue", "NoneEstablished"),
    ] {
        assert_eq!(said(&offers, name, "Accepted").unwrap().0, accepted, "{name}");
        assert_eq!(said(&offers, name, "Established").unwrap().0, established, "{name}");
    }
    let (_, text) = said(&offers, "good", "Established").unwrap();
    assert_eq!(text, "a: bgpd has no session (is it running?); b: bgpd has no session (is it running?)");
    assert_eq!(said(&offers, "unknown", "ResolvedRefs").unwrap().0, "BFDProfileNotFound");
    let told: Vec<&str> = notices.iter().map(|notice| notice.reason).collect();
    assert_eq!(told, ["ReferenceNotFound"]);
}

fn secret(data: &str) -> Change {
    let text = format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: tor, namespace: manx-secrets}}, data: {{{data}}}}}"
    );
    Change::Secret(Follow::Put(serde_saphyr::from_str(&text).unwrap()))
}

#[test]
fn keys_that_sessions_refer_to_are_looked_up_in_the_one_namespace() {
    const AUTH: &str = "session: {auth: {md5: {secretRef: {name: tor, key: r12}}}}";
    let judged = |changes: Vec<Change>| {
        let mut all = vec![
            configuration(&format!("topology: {{{AUTH}}}")),
            node("a", 1, "10.0.0.1", "x"),
            peer("r12", &format!("address: 10.0.0.9, {AUTH}")),
            peer("open", "address: 10.0.0.8"),
        ];
        all.extend(changes);
        let objects = objects(all);
        let (offers, notices) = peer::judge(&objects);
        let open = said(&offers, "open", "ResolvedRefs").unwrap().0;
        let fabric = said(&configuration::judge(&objects, &Elected::default()), "default", "ResolvedRefs");
        let accepted = said(&offers, "r12", "Accepted").unwrap().0;
        (said(&offers, "r12", "ResolvedRefs"), fabric, notices, open, accepted)
    };
    // Not heard yet: nothing is said, and nothing that was said is taken back.
    let (of_peer, fabric, notices, open, accepted) = judged(vec![]);
    assert_eq!((of_peer, fabric, notices.len()), (None, None, 0));
    assert_eq!((open, accepted), ("ResolvedRefs", "Accepted"));

    let heard = || Change::Secret(Follow::InSync);
    let (of_peer, fabric, notices, ..) = judged(vec![heard()]);
    let missing = "auth.md5.secretRef: there is no Secret manx-secrets/tor: create it with the session's password under \
                   key r12, or name another";
    assert_eq!(of_peer, Some(("SecretNotFound", format!("spec.session.{missing}"))));
    assert_eq!(fabric, Some(("SecretNotFound", format!("spec.topology.session.{missing}"))));
    let told: Vec<(&str, &str)> = notices.iter().map(|n| (n.reason, n.note.as_str())).collect();
    assert_eq!(told, [("ReferenceNotFound", format!("spec.session.{missing}").as_str())]);

    let (of_peer, fabric, ..) = judged(vec![secret("other: cHc="), heard()]);
    assert_eq!((of_peer.unwrap().0, fabric.unwrap().0), ("SecretKeyMissing", "SecretKeyMissing"));
    let (of_peer, fabric, notices, ..) = judged(vec![secret("r12: cHc="), heard()]);
    assert_eq!((of_peer.unwrap().0, fabric.unwrap().0), ("ResolvedRefs", "ResolvedRefs"));
    assert!(notices.is_empty());
}

#[test]
fn a_new_leader_leaves_what_was_said_of_keys_until_it_heard_them() {
    let text = "{apiVersion: manx.dev/v1alpha1, kind: BGPPeer, metadata: {name: r12}, spec: {asn: 65001, address: 10.0.0.9, \
                session: {auth: {md5: {secretRef: {name: tor, key: r12}}}}}, status: {conditions: [{type: ResolvedRefs, \
                status: 'False', reason: SecretKeyMissing, message: as it was, lastTransitionTime: '2026-01-01T00:00:00Z'}]}}";
    let known: BGPPeer = serde_saphyr::from_str(text).unwrap();
    let objects = objects(vec![Change::Peer(Box::new(Follow::Put(known)))]);
    let (offers, notices) = peer::judge(&objects);
    assert_eq!(said(&offers, "r12", "ResolvedRefs"), Some(("SecretKeyMissing", "as it was".to_owned())));
    assert!(notices.iter().all(|notice| notice.told), "{notices:?}");
}

#[test]
fn the_configuration_says_what_this_version_does_not_do() {
    for (spec, kind, reason) in [
        ("topology: {mode: FullMesh}", "Accepted", "Accepted"),
        ("topology: {mode: RouteReflector}", "Accepted", "Accepted"),
        ("topology: {mode: RouteReflector}", "TopologyReady", "Ready"),
        (
            "topology: {mode: RouteReflector, routeReflectors: {count: 2}}",
            "TopologyReady",
            "NotEnoughCandidates",
        ),
        ("communities: [{name: a, value: '1:2'}, {name: a, value: '1:3'}]", "Accepted", "DuplicateCommunity"),
        ("session: {bfdProfile: fast}", "ResolvedRefs", "BFDProfileNotFound"),
        ("", "SchemaCompatible", "Compatible"),
    ] {
        let objects = objects(vec![configuration(spec), node("a", 1, "10.0.0.1", "x")]);
        let elected = Reflectors::default().elect(&objects, Duration::ZERO);
        let offers = configuration::judge(&objects, &elected);
        assert_eq!(said(&offers, "default", kind).unwrap().0, reason, "{spec}");
    }
}

#[test]
fn agents_and_schema_may_be_one_revision_apart() {
    for (revision, reason) in
        [("1", "Compatible"), ("2", "Compatible"), ("3", "AgentsOlderThanSchema"), ("0", "Compatible")]
    {
        let crd: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "fabricconfigurations.manx.dev",
                             "annotations": {"manx.dev/schema-revision": revision}},
                "spec": {"group": "manx.dev", "names": {"kind": "a", "plural": "b"}, "scope": "Cluster", "versions": []}
            }))
            .unwrap();
        let objects = objects(vec![
            configuration(""),
            node("a", 1, "10.0.0.1", "x"),
            Change::Crd(Box::new(Follow::Put(crd))),
        ]);
        let offers = configuration::judge(&objects, &Elected::default());
        assert_eq!(said(&offers, "default", "SchemaCompatible").unwrap().0, reason, "{revision}");
    }
}

#[test]
fn a_pool_over_addresses_of_nodes_or_services_says_whose_they_are() {
    let pool = |name: &str, spec: &str| -> Change {
        let text = format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: IPPool, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
        );
        Change::Pool(Follow::Put(serde_saphyr::from_str(&text).unwrap()))
    };
    let services = "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: kubernetes}, \
                    spec: {cidrs: [10.96.0.0/16, 'fd00:96::/112']}}";
    let objects = objects(vec![
        node("a", 1, "10.0.0.1", "x"),
        Change::ServiceCidr(Follow::Put(serde_saphyr::from_str(services).unwrap())),
        pool("beside", "cidr: 10.244.0.0/16"),
        pool("nodes", "cidr: 10.0.0.0/16"),
        pool("without", "cidr: 10.0.0.0/24, excluded: [10.0.0.0/26]"),
        pool("services", "cidr: 10.96.128.0/20"),
        pool("six", "cidr: 'fd00:96::/64'"),
    ]);
    let (offers, notices) = pool::judge(&objects);
    assert_eq!(said(&offers, "beside", "Accepted").unwrap().0, "Accepted");
    for (name, whose) in [
        ("nodes", "10.0.0.0/16 overlaps 10.0.0.1, the address of node a: exclude it"),
        (
            "services",
            "10.96.128.0/20 overlaps the Service range 10.96.0.0/16 (ServiceCIDR kubernetes): exclude it",
        ),
        ("six", "fd00:96::/64 overlaps the Service range fd00:96::/112 (ServiceCIDR kubernetes): exclude it"),
    ] {
        for kind in ["Accepted", "Allocatable"] {
            let (reason, text) = said(&offers, name, kind).unwrap();
            assert!(reason == "Overlaps" && text.starts_with(whose), "{name} {kind} {reason}: {text}");
        }
    }
    // The older pool comes first: `without` lies in `nodes`, whose name comes first.
    let (_, text) = said(&offers, "without", "Accepted").unwrap();
    assert_eq!(text, "10.0.0.0/24 overlaps IPPool nodes (10.0.0.0/16); the older pool is used");
    let told: Vec<&str> = notices.iter().map(|notice| notice.reason).collect();
    assert_eq!(told, ["PoolOverlaps"; 4]);
}

#[test]
fn an_excluded_address_of_a_node_is_no_overlap() {
    let text = "{apiVersion: manx.dev/v1alpha1, kind: IPPool, metadata: {name: p}, \
                spec: {cidr: 10.0.0.0/24, excluded: [10.0.0.0/26]}}";
    let objects = objects(vec![
        node("a", 1, "10.0.0.1", "x"),
        Change::Pool(Follow::Put(serde_saphyr::from_str(text).unwrap())),
    ]);
    assert_eq!(said(&pool::judge(&objects).0, "p", "Accepted").unwrap().0, "Accepted");
}

#[test]
fn kinds_that_nobody_acts_on_say_so() {
    let text = "{apiVersion: manx.dev/v1alpha1, kind: HostEndpoint, metadata: {name: h}, spec: {}}";
    let tier = |name: &str| {
        let text = format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: Tier, metadata: {{name: {name}}}, spec: {{order: 7}}}}"
        );
        Change::Tier(Follow::Put(serde_saphyr::from_str(&text).unwrap()))
    };
    let objects = objects(vec![
        Change::HostEndpoint(Box::new(Follow::Put(serde_saphyr::from_str(text).unwrap()))),
        tier("default"),
        tier("security"),
    ]);
    let offers: Vec<Offer> = later::judge(&objects).into_iter().flat_map(|(_, offers)| offers).collect();
    assert_eq!(offers.len(), 3);
    assert_eq!(said(&offers, "default", "Accepted").unwrap().0, "Accepted");
    let (reason, text) = said(&offers, "h", "Accepted").unwrap();
    assert_eq!(reason, "UnknownValue");
    assert!(text.starts_with("HostEndpoint is not supported by this version and changes nothing"), "{text}");
    assert_eq!(said(&offers, "security", "Accepted").unwrap().0, "UnknownValue");
}

#[test]
fn bands_are_reached_exactly() {
    for (assigned, size, band) in [
        (0, 100, Band::Below80),
        (79, 100, Band::Below80),
        (80, 100, Band::From80),
        (95, 100, Band::From95),
        (100, 100, Band::Full),
        (3, 2, Band::Full),
        (1, u128::MAX, Band::Below80),
        (u128::MAX / 10 * 9, u128::MAX, Band::From80),
    ] {
        assert_eq!(Band::of(assigned, size), band, "{assigned} of {size}");
    }
}

fn filter(name: &str, spec: &str) -> Change {
    let text = format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: BGPFilter, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    );
    Change::Filter(Box::new(Follow::Put(serde_saphyr::from_str(&text).unwrap())))
}

#[test]
fn a_filter_that_refers_to_nothing_is_named_on_the_peer_and_one_not_understood_on_itself() {
    let objects = objects(vec![
        configuration("communities: [{name: from-k8s, value: '64512:100'}]"),
        node("a", 1, "10.0.0.1", "some"),
        filter("good", "import: [{match: {communities: [from-k8s, no-export]}, action: Reject}]"),
        filter("unnamed", "export: [{action: Accept, set: {addCommunities: [from-nowhere]}}]"),
        filter("newer", "export: [{action: Defer}]"),
        peer("filtered", "address: 10.0.0.9, filters: [good]"),
        peer("astray", "address: 10.0.0.8, filters: [good, missing]"),
    ]);
    let (offers, notices) = peer::judge(&objects);
    assert_eq!(said(&offers, "filtered", "ResolvedRefs").map(|said| said.0), Some("ResolvedRefs"));
    let (reason, text) = said(&offers, "astray", "ResolvedRefs").unwrap();
    assert_eq!(reason, "BGPFilterNotFound");
    assert!(text.starts_with("spec.filters: there is no BGPFilter missing: create it"), "{text}");
    assert_eq!(said(&offers, "astray", "Accepted").unwrap().0, "Accepted");
    let told: Vec<&str> = notices.iter().map(|notice| notice.reason).collect();
    assert_eq!(told, ["ReferenceNotFound"]);

    let filters = later::judge(&objects).into_iter().find(|(kind, _)| *kind == Kind::BGPFilter).unwrap().1;
    assert_eq!(said(&filters, "good", "Accepted").unwrap().0, "Accepted");
    let (reason, text) = said(&filters, "unnamed", "Accepted").unwrap();
    assert_eq!(reason, "UnknownCommunity");
    assert!(text.starts_with("spec.export[0]: from-nowhere is neither well-known"), "{text}");
    assert_eq!(said(&filters, "newer", "Accepted").unwrap().0, "UnknownValue");
}
