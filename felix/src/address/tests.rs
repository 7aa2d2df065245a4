use std::collections::BTreeMap;

use manx_crds::v1alpha1::{FabricConfiguration, FabricNode};

use super::*;

const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: n}, status: {addresses: [
   {type: ExternalIP, address: 203.0.113.1}, {type: InternalIP, address: 192.0.2.1},
   {type: InternalIP, address: 192.0.2.2}, {type: InternalIP, address: '2001:db8::1'}]}}";
const HELD: [(&str, &str); 4] =
    [("eth0", "192.0.2.1"), ("lo", "10.255.0.1"), ("eth1", "10.0.0.1"), ("eth1", "10.0.0.2")];

fn choose(address: &str, own: &str, node: Option<&str>, before: &Chosen) -> Chosen {
    let configuration: FabricConfiguration = serde_saphyr::from_str(&format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {{name: default}},
          spec: {{node: {{address: {address}}}}}}}"
    ))
    .unwrap();
    let fabric_node: FabricNode = serde_saphyr::from_str(&format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: n}}, spec: {own}}}"
    ))
    .unwrap();
    let effective = EffectiveNode::of(Some(&configuration), Some(&fabric_node), &BTreeMap::new());
    let node: Option<Node> = node.map(|node| serde_saphyr::from_str(node).unwrap());
    let held = HELD.map(|(name, address)| (name.to_owned(), address.parse().unwrap()));
    Offer { name: "n", effective: &effective, node: node.as_ref(), held: &held, before }.choose()
}

#[test]
fn each_source_says_what_it_chose() {
    let nobody = Chosen::default();
    for (address, own, expected, source) in [
        ("{source: InternalIP}", "{}", "192.0.2.1 2001:db8::1", "Node InternalIP"),
        ("{source: ExternalIP}", "{}", "203.0.113.1", "Node ExternalIP"),
        ("{source: Interface, interface: lo}", "{}", "10.255.0.1", "interface lo"),
        ("{source: Subnet, subnets: [192.0.0.0/8]}", "{}", "192.0.2.1", "subnets 192.0.0.0/8"),
        (
            "{source: InternalIP}",
            "{addresses: {ipv4: 198.51.100.1}}",
            "198.51.100.1 2001:db8::1",
            "FabricNode spec.addresses, Node InternalIP",
        ),
    ] {
        let chosen = choose(address, own, Some(NODE), &nobody);
        assert_eq!((chosen.text().as_str(), chosen.source.as_str()), (expected, source), "{address}");
        assert_eq!(chosen.problem, None);
    }
}

#[test]
fn of_several_the_one_in_use_stays_and_else_nobody_is_chosen() {
    let two = "{source: Interface, interface: eth1}";
    let chosen = choose(two, "{}", Some(NODE), &Chosen::default());
    assert!(chosen.is_empty());
    let (reason, text) = chosen.problem.unwrap();
    assert_eq!(reason, AddressesReady::AmbiguousAddress);
    assert!(text.contains("10.0.0.1 and 10.0.0.2"), "{text}");
    let before = Chosen { ipv4: Some("10.0.0.2".parse().unwrap()), ..Chosen::default() };
    assert_eq!(choose(two, "{}", Some(NODE), &before).text(), "10.0.0.2");
}

#[test]
fn nothing_to_choose_from_is_told_apart_from_an_address_that_went() {
    let reason = |before: &Chosen| choose("{source: InternalIP}", "{}", None, before).problem.unwrap();
    let (never, text) = reason(&Chosen::default());
    assert_eq!(never, AddressesReady::NoMatchingAddress);
    assert_eq!(text, "Node n has no InternalIP and FabricNode spec.addresses is empty: set either");
    let before = Chosen { ipv4: Some("192.0.2.1".parse().unwrap()), ..Chosen::default() };
    assert_eq!(reason(&before).0, AddressesReady::AddressRemoved);
}
