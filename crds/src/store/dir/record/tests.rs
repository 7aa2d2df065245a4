use super::*;
use serde_json::json;

fn record() -> Record {
    Record {
        uid: "u".into(),
        created: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
        deleted: None,
        managers: BTreeMap::new(),
    }
}

fn schema() -> &'static Value {
    crate::validate::schema_of("manx.dev", "FabricNode")
        .unwrap()
        .schema
        .pointer("/properties/status")
        .unwrap()
}

fn status(record: &Record) -> Value {
    record.status(json!({}), Some(schema()))
}

#[test]
fn managers_own_their_items_and_fields() {
    let mut record = record();
    let felix = json!({"addresses": {"ipv4": "10.0.0.1"}, "agents": [{"name": "felix", "version": "1"}],
        "conditions": [{"type": "AddressesReady", "status": "True"}]});
    let bgpd = json!({"bgp": {"asn": 1}, "agents": [{"name": "bgpd", "version": "1"}],
        "conditions": [{"type": "BGPReady", "status": "False"}]});
    record.apply("manx-felix", Part::Status, felix, Some(schema())).unwrap();
    record.apply("manx-bgpd", Part::Status, bgpd, Some(schema())).unwrap();
    let both = status(&record);
    assert_eq!(both["agents"].as_array().unwrap().len(), 2);
    assert_eq!(both["conditions"].as_array().unwrap().len(), 2);
    assert_eq!((&both["bgp"]["asn"], &both["addresses"]["ipv4"]), (&json!(1), &json!("10.0.0.1")));

    record.apply("manx-bgpd", Part::Status, json!({"bgp": {"asn": 2}}), Some(schema())).unwrap();
    let now = status(&record);
    assert_eq!(now["bgp"], json!({"asn": 2}));
    assert_eq!(now["agents"], json!([{"name": "felix", "version": "1"}]));
    assert_eq!(now["conditions"], json!([{"type": "AddressesReady", "status": "True"}]));
}

#[test]
fn what_another_sets_otherwise_changes_hands() {
    let mut record = record();
    let apply = |record: &mut Record, who: &str, body: Value| {
        record.apply(who, Part::Status, body, Some(schema())).unwrap();
    };
    apply(&mut record, "a", json!({"podMTU": 1500, "bgp": {"asn": 1, "port": 179}, "blocks": ["x", "y"]}));
    apply(&mut record, "b", json!({"podMTU": 1400, "bgp": {"asn": 2}, "blocks": ["y"]}));
    assert_eq!(status(&record), json!({"podMTU": 1400, "bgp": {"asn": 2, "port": 179}, "blocks": ["y"]}));
    apply(&mut record, "b", json!({}));
    assert_eq!(status(&record), json!({"bgp": {"port": 179}}), "what b took is not a's any more");
}

#[test]
fn labels_and_finalizers_are_united() {
    let mut record = record();
    record.apply("a", Part::Labels, json!({"rack": "1", "zone": "z"}), None).unwrap();
    record.apply("b", Part::Labels, json!({"rack": "2"}), None).unwrap();
    record.apply("a", Part::Finalizers, json!(["manx.dev/ipam"]), None).unwrap();
    let labels: BTreeMap<_, _> = record.labels().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, BTreeMap::from([("rack", "2"), ("zone", "z")]));
    assert_eq!(record.finalizers(), ["manx.dev/ipam"]);
    record.apply("a", Part::Finalizers, json!([]), None).unwrap();
    record.apply("a", Part::Labels, json!({}), None).unwrap();
    record.apply("b", Part::Labels, json!({}), None).unwrap();
    assert!(record.managers.is_empty());
    assert!(record.apply("a", Part::Labels, json!(["no", "map"]), None).is_err());
}
