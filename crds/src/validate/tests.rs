use super::*;

fn validate(object: &Value, old: Option<&Value>) -> Result<Value, String> {
    let kind = object["kind"].as_str().unwrap();
    let schema = schema_of("manx.dev", kind).unwrap();
    schema
        .validate(object, old)
        .map_err(|faults| faults.iter().map(|fault| fault.error.clone()).collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_rule_compiles() {
    assert_eq!(SCHEMAS.len(), 16);
    for schema in SCHEMAS.values() {
        assert_eq!(schema.compilation_errors(), 0, "{}", schema.kind);
    }
}

#[test]
fn the_words_are_the_api_servers() {
    for (text, wanted) in [
        (
            "{apiVersion: manx.dev/v1alpha1, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.244.1.0/16}}",
            r#"spec.cidr: Invalid value: "10.244.1.0/16": must be a CIDR in canonical form with no host bits set, such as 10.244.0.0/16 or fd00:10::/48"#,
        ),
        (
            "{apiVersion: manx.dev/v1alpha1, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.244.0.0/28}}",
            "spec: Invalid value: cidr must be at least one block (blockSize, or /26 and /122)",
        ),
        (
            "{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {name: cluster}, spec: {}}",
            "metadata: Invalid value: FabricConfiguration is a singleton: name it default",
        ),
        (
            "{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {name: default}, spec: {session: {timers: {hold: 90}}}}",
            r#"spec.session.timers.hold: Invalid value: "integer": spec.session.timers.hold in body must be of type string: "integer""#,
        ),
        (
            "{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {name: default}, spec: {node: {asn: 23456}}}",
            "spec.node.asn: Invalid value: 23456: ASN 23456, 65535 and 4294967295 are reserved (RFC 6793, RFC 7300)",
        ),
        (
            "{apiVersion: manx.dev/v1alpha1, kind: IPBlock, metadata: {name: wrong}, spec: {cidr: 10.244.1.64/26, pool: p}}",
            "spec.cidr: Invalid value: metadata.name must be spec.cidr with . : / replaced by -",
        ),
        (
            "{apiVersion: manx.dev/v1alpha1, kind: BGPPeer, metadata: {name: tor-a}, spec: {nodeselector: {}, address: 10.0.0.1, asn: 1}}",
            r#"unknown field "nodeselector" in spec"#,
        ),
    ] {
        let object = Document::parse(text).unwrap().to_value();
        assert_eq!(validate(&object, None), Err(wanted.to_owned()));
    }
}

#[test]
fn an_unknown_field_names_the_nearest() {
    let object = serde_json::json!({"apiVersion": "manx.dev/v1alpha1", "kind": "BGPPeer", "metadata": {"name": "a"},
        "spec": {"nodeselector": {}, "address": "10.0.0.1", "asn": 1}});
    let faults = schema_of("manx.dev", "BGPPeer").unwrap().validate(&object, None).unwrap_err();
    assert_eq!(faults[0].expected.as_deref(), Some("nodeSelector"));
    assert!(faults[0].at_key);
}

#[test]
fn defaults_are_filled_in() {
    let object =
        Document::parse("{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {name: n}, spec: {}}");
    let read = validate(&object.unwrap().to_value(), None).unwrap();
    assert_eq!(read["spec"]["adminState"], "Up");
}

#[test]
fn an_int_or_string_is_either() {
    let policy = |rule: &str| {
        let text = format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: NetworkPolicy, metadata: {{name: a, namespace: b}}, spec: {{ingress: [{{action: Allow, {rule}}}]}}}}"
        );
        validate(&Document::parse(&text).unwrap().to_value(), None).map(|_| ())
    };
    let path = "spec.ingress[0]";
    assert_eq!(policy("protocol: TCP, destination: {ports: [0, 65535, '1:2', http]}"), Ok(()));
    assert_eq!(policy("protocol: 6, source: {ports: [1]}"), Ok(()));
    assert_eq!(policy("protocol: 58, icmp: {type: 128, code: 0}"), Ok(()));
    for (rule, error) in [
        (
            "protocol: 0",
            "protocol: Invalid value: 0: spec.ingress[0].protocol in body should be greater than or equal to 1",
        ),
        (
            "protocol: tcp",
            "protocol: Invalid value: \"tcp\": spec.ingress[0].protocol in body should match '^(TCP|UDP|SCTP|UDPLite|ICMP|ICMPv6)$'",
        ),
        (
            "protocol: true",
            "protocol: Invalid value: \"boolean\": spec.ingress[0].protocol in body must be of type integer,string: \"boolean\"",
        ),
        ("ipVersion: 5", "ipVersion: Unsupported value: 5: supported values: \"4\", \"6\""),
    ] {
        assert_eq!(policy(rule), Err(format!("{path}.{error}")));
    }
    let error = policy("protocol: 47, source: {ports: [1]}");
    assert_eq!(error, Err(format!("{path}: Invalid value: ports need protocol TCP, UDP, SCTP or UDPLite")));
}

#[test]
fn a_set_of_changes_holds_one() {
    let text = "{apiVersion: manx.dev/v1alpha1, kind: BGPFilter, metadata: {name: a}, spec: {import: [{action: Accept, set: {}}]}}";
    let error = validate(&Document::parse(text).unwrap().to_value(), None).unwrap_err();
    assert_eq!(
        error,
        "spec.import[0].set: Invalid value: 0: spec.import[0].set in body should have at least 1 properties"
    );
}

#[test]
fn a_place_is_that_of_the_value_or_of_the_key() {
    let text = "kind: IPPool\nspec:\n  # a comment\n  cidr: 10.244.1.0/16\n  list:\n  - {a: 1}\n  - b\n";
    let document = Document::parse(text).unwrap();
    let at = |path: &str| document.place(path).map(|place| (place.line, place.column));
    assert_eq!(at("spec.cidr"), Some((4, 9)));
    assert_eq!(at("spec.list[0].a"), Some((6, 9)));
    assert_eq!(at("spec.list[1]"), Some((7, 5)));
    assert_eq!(at("spec.absent"), Some((2, 1)));
    let key = document.place_of_key("spec.cidr").unwrap();
    assert_eq!((key.line, key.column), (4, 3));
    assert_eq!(document.path_at(Place { line: 4, column: 9 }), "spec.cidr");
}

#[test]
fn what_is_no_yaml_names_its_line() {
    let error = Document::parse("kind: IPPool\nspec:\n  cidr: [10.0.0.0/8\n").unwrap_err();
    assert!(error.place.is_some_and(|place| place.line >= 3), "{error:?}");
    assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
    assert!(Document::parse("").is_err());
    assert!(Document::parse("a: 1\n---\nb: 2\n").is_err());
    assert!(Document::parse("a: 1\na: 2\n").is_err());
}
