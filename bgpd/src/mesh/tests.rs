use super::*;

/// All nodes with all.
const ALL: Wanted<'_> =
    Wanted { any: true, class: &|_| Some("topology".to_owned()), reflectors: &BTreeSet::new() };
const NONE: Wanted<'_> = Wanted { any: false, class: &|_| None, reflectors: &BTreeSet::new() };

fn node(name: &str, created: u32, spec: &str, status: &str) -> FabricNode {
    let text = format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: {name},
          creationTimestamp: '2026-01-01T00:00:{created:02}Z', labels: {{rack: '7'}}}}, spec: {{{spec}}}, status: {{{status}}}}}"
    );
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn addressed(name: &str, created: u32, address: &str) -> FabricNode {
    node(name, created, "", &format!("addresses: {{ipv4: {address}}}"))
}

fn configuration(spec: &str) -> FabricConfiguration {
    serde_saphyr::from_str(&format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {{name: default}}, spec: {{{spec}}}}}"
    ))
    .unwrap()
}

/// The mesh as each node sees it.
fn seen_by(configuration: Option<&FabricConfiguration>, nodes: &[FabricNode]) -> BTreeMap<String, Mesh> {
    let of = |node: &FabricNode| {
        let own = identity(configuration, node)?;
        Some((node.name_any(), mesh(configuration, &own, &node.name_any(), nodes.iter(), &ALL)))
    };
    nodes.iter().filter_map(of).collect()
}

fn links(mesh: &Mesh) -> Vec<(&str, bool)> {
    mesh.links.values().map(|link| (link.node.as_str(), link.dials)).collect()
}

#[test]
fn of_every_pair_one_end_dials_and_both_agree_on_the_rest() {
    let nodes = [
        addressed("n1", 1, "10.0.0.11"),
        addressed("n2", 2, "10.0.0.12"),
        node(
            "n3",
            3,
            "asn: 4200000003, routerID: 10.0.0.1",
            "addresses: {ipv4: 10.0.0.13, ipv6: 'fd00::13'}",
        ),
    ];
    let seen = seen_by(None, &nodes);
    assert_eq!(links(&seen["n1"]), [("n2", false), ("n3", true)], "n3 has the lowest router id");
    assert_eq!(links(&seen["n2"]), [("n1", true), ("n3", true)]);
    assert_eq!(links(&seen["n3"]), [("n1", false), ("n2", false)]);
    let to_n3 = &seen["n1"].links[&PeerName::from("topology.10.0.0.13")];
    assert_eq!(to_n3.asn, Asn(4_200_000_003));
    assert_eq!((to_n3.local, to_n3.remote), ("10.0.0.11".parse().unwrap(), "10.0.0.13".parse().unwrap()));
    assert_eq!(to_n3.addresses.len(), 2, "the next hops of both families");
}

#[test]
fn a_node_without_a_listener_dials_whatever_the_ids() {
    let off = configuration("overrides: [{nodeSelector: {matchLabels: {quiet: 'yes'}}, node: {bgpPort: 0}}]");
    let mut quiet = addressed("n1", 1, "10.0.0.11");
    quiet.metadata.labels = Some(BTreeMap::from([("quiet".into(), "yes".into())]));
    let mut nodes = [quiet, addressed("n2", 2, "10.0.0.12")];
    let seen = seen_by(Some(&off), &nodes);
    assert_eq!((links(&seen["n1"]), links(&seen["n2"])), (vec![("n2", true)], vec![("n1", false)]));
    nodes[1].metadata.labels = nodes[0].metadata.labels.clone();
    let seen = seen_by(Some(&off), &nodes);
    assert!(seen["n1"].links.is_empty() && seen["n1"].remarks[0].contains("bgpPort 0"), "{seen:?}");
}

#[test]
fn ipv6_carries_the_session_where_one_node_has_nothing_else() {
    let nodes = [
        node("n1", 1, "", "addresses: {ipv4: 10.0.0.11, ipv6: 'fd00::11'}"),
        node("n2", 2, "", "addresses: {ipv6: 'fd00::12'}"),
        addressed("n3", 3, "10.0.0.13"),
    ];
    let seen = seen_by(None, &nodes);
    let names: Vec<&str> = seen["n1"].links.keys().map(PeerName::as_str).collect();
    assert_eq!(names, ["topology.10.0.0.13", "topology.fd00--12"]);
    assert_eq!(links(&seen["n2"]).len(), 1, "n2 and n3 have no address of one family");
    assert_eq!(seen["n2"].remarks.len(), 1);
}

#[test]
fn an_identity_that_is_not_known_yet_gets_no_session() {
    let labelled = configuration("node: {asnFromLabel: {key: site}}");
    let without_asn = addressed("n2", 2, "10.0.0.12");
    let reports = node("n3", 3, "", "addresses: {ipv4: 10.0.0.13}, bgp: {asn: 65007}");
    let own = node("n1", 1, "asn: 65001", "addresses: {ipv4: 10.0.0.11}");
    let nodes = [own, without_asn, reports, node("n4", 4, "asn: 65004", "")];
    let seen = seen_by(Some(&labelled), &nodes);
    assert_eq!(links(&seen["n1"]), [("n3", false)]);
    assert_eq!(seen["n1"].links.values().next().unwrap().asn, Asn(65007), "what it runs with");
}

#[test]
fn a_node_without_its_own_object_waits() {
    let nodes = [addressed("n2", 2, "10.0.0.12")];
    let own = identity(None, &addressed("n1", 1, "10.0.0.11")).unwrap();
    let mesh = mesh(None, &own, "n1", nodes.iter(), &ALL);
    assert!(mesh.links.is_empty() && mesh.conflict.is_none());
    assert_eq!(mesh.remarks, ["no node-to-node session: FabricNode n1 is not there yet"]);
}

#[test]
fn of_two_nodes_with_one_identity_the_younger_has_no_session_with_anybody() {
    for (what, twin) in [
        ("address 10.0.0.12", addressed("n1", 9, "10.0.0.12")),
        ("router id 10.0.0.12", node("n1", 9, "routerID: 10.0.0.12", "addresses: {ipv4: 10.0.0.11}")),
    ] {
        let nodes = [twin, addressed("n2", 2, "10.0.0.12"), addressed("n3", 3, "10.0.0.13")];
        let seen = seen_by(None, &nodes);
        let conflict = seen["n1"].conflict.as_ref().unwrap();
        assert_eq!(conflict.reason, "IdentityNotUnique");
        assert!(conflict.message.starts_with(what) && conflict.message.contains("node n2"), "{conflict:?}");
        assert_eq!(links(&seen["n2"]), [("n3", false)], "{what}: the older goes on without it");
        assert_eq!(links(&seen["n3"]), [("n2", true)], "{what}");
        assert!(seen["n2"].conflict.is_none() && seen["n2"].remarks[0].contains(what), "{:?}", seen["n2"]);
    }
}

#[test]
fn a_conflict_is_one_without_sessions_between_nodes_too() {
    let nodes = [addressed("n1", 9, "10.0.0.12"), addressed("n2", 2, "10.0.0.12")];
    let own = identity(None, &nodes[0]).unwrap();
    let closed = mesh(None, &own, "n1", nodes.iter(), &NONE);
    assert!(closed.conflict.is_some() && closed.links.is_empty() && closed.remarks.is_empty());
}

#[test]
fn with_reflectors_everybody_speaks_to_them_and_to_nobody_else() {
    let nodes = [
        addressed("n1", 1, "10.0.0.11"),
        addressed("n2", 2, "10.0.0.12"),
        addressed("n3", 3, "10.0.0.13"),
        addressed("n4", 4, "10.0.0.14"),
    ];
    let reflectors: BTreeSet<String> = ["n1".to_owned(), "n3".to_owned()].into();
    let of = |name: &str| {
        let node = nodes.iter().find(|node| node.name_any() == name).unwrap();
        let one_is = |other: &FabricNode| reflectors.contains(name) || reflectors.contains(&other.name_any());
        let class = |other: &FabricNode| one_is(other).then(|| "topology".to_owned());
        let wanted = Wanted { any: true, class: &class, reflectors: &reflectors };
        mesh(None, &identity(None, node).unwrap(), name, nodes.iter(), &wanted)
    };
    let links = |mesh: &Mesh| -> Vec<(String, bool, bool)> {
        mesh.links.values().map(|link| (link.node.clone(), link.dials, link.client)).collect()
    };
    let link = |node: &str, dials, client| (node.to_owned(), dials, client);
    // The clients dial, whatever the router ids; of the two reflectors the higher one does, and neither is the other's client.
    assert_eq!(links(&of("n2")), [link("n1", true, false), link("n3", true, false)]);
    assert_eq!(links(&of("n4")), [link("n1", true, false), link("n3", true, false)]);
    assert_eq!(
        links(&of("n1")),
        [link("n2", false, true), link("n3", false, false), link("n4", false, true)]
    );
    assert_eq!(links(&of("n3")), [link("n1", true, false), link("n2", false, true), link("n4", false, true)]);
    assert!(of("n2").reflected.contains(&"10.0.0.14".parse().unwrap()), "a next hop without a session");
    assert!(of("n2").remarks.is_empty());
}

#[test]
fn reflectors_serve_one_as_and_say_so() {
    let nodes =
        [addressed("n1", 1, "10.0.0.11"), node("n2", 2, "asn: 64999", "addresses: {ipv4: 10.0.0.12}")];
    let own = identity(None, &nodes[1]).unwrap();
    let reflectors = ["n1".to_owned()].into();
    let mesh = mesh(None, &own, "n2", nodes.iter(), &Wanted { reflectors: &reflectors, ..ALL });
    assert!(mesh.remarks[0].contains("route reflectors serve one AS"), "{:?}", mesh.remarks);
}
