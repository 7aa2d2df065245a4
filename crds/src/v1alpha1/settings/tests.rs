use super::*;

fn configuration(spec: &str) -> FabricConfiguration {
    FabricConfiguration::new("default", serde_saphyr::from_str(spec).unwrap())
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

const RACKS: &str = "{node: {asn: 64512, bgpPort: 1790}, overrides: [
  {nodeSelector: {matchLabels: {site: edge}}, node: {asnFromLabel: {key: rack, base: 4200000000}, mtu: 9000}},
  {nodeSelector: {matchLabels: {special: yes}}, node: {asn: 65100}}]}";

#[test]
fn a_later_override_wins_field_by_field() {
    let config = configuration(&RACKS.replace("yes", "'yes'"));
    let of = |pairs: &[(&str, &str)]| EffectiveNode::of(Some(&config), None, &labels(pairs));
    assert_eq!(of(&[]).asn, Ok(Asn(64512)));
    let edge = of(&[("site", "edge"), ("rack", "12")]);
    assert_eq!((edge.asn, edge.mtu, edge.bgp_port), (Ok(Asn(4_200_000_012)), Some(9000), 1790));
    let both = of(&[("site", "edge"), ("rack", "12"), ("special", "yes")]);
    assert_eq!((both.asn, both.mtu), (Ok(Asn(65100)), Some(9000)));
}

#[test]
fn a_label_that_gives_no_as_number_gives_no_bgp() {
    let config = configuration(RACKS);
    let asn = |rack: Option<&str>| {
        let mut all = labels(&[("site", "edge")]);
        all.extend(rack.map(|r| ("rack".to_owned(), r.to_owned())));
        EffectiveNode::of(Some(&config), None, &all).asn
    };
    assert!(matches!(asn(None), Err(AsnLabelError::Missing { .. })));
    for bad in ["twelve", "", "+1", "1.0"] {
        assert!(matches!(asn(Some(bad)), Err(AsnLabelError::NotDecimal { .. })), "{bad}");
    }
    for far in ["94967295", "94967296", "99999999999"] {
        assert!(matches!(asn(Some(far)), Err(AsnLabelError::OutOfRange { .. })), "{far}");
    }
}

#[test]
fn the_node_object_beats_all() {
    let config = configuration(RACKS);
    let spec = "{asn: 65000, routerID: 10.9.9.9, addresses: {ipv4: 10.0.0.1}, adminState: Drained}";
    let node = FabricNode::new("n1", serde_saphyr::from_str(spec).unwrap());
    let effective = EffectiveNode::of(Some(&config), Some(&node), &labels(&[("site", "edge")]));
    assert_eq!(effective.asn, Ok(Asn(65000)));
    assert_eq!(effective.router_id, Some(RouterId(Ipv4Addr::new(10, 9, 9, 9))));
    assert_eq!(effective.ipv4, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(effective.admin_state, AdminState::Drained);
}

#[test]
fn a_router_id_out_of_a_name_is_a_unicast_address() {
    for n in 0..1000 {
        let id = router_id(None, None, &format!("worker-{n}")).0;
        assert!(
            !id.is_multicast() && !id.is_loopback() && !id.is_unspecified() && !id.is_broadcast(),
            "{id}"
        );
    }
    assert_eq!(router_id(None, Some(Ipv4Addr::new(10, 0, 0, 1)), "a").0, Ipv4Addr::new(10, 0, 0, 1));
}
