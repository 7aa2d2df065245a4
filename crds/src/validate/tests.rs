use super::*;

const BAD: &str = include_str!("../../testdata/bad.yaml");
const GOOD: &str = include_str!("../../testdata/good.yaml");

fn documents(text: &str) -> impl Iterator<Item = &str> {
    text.split("---\n").filter(|part| !part.trim().is_empty())
}

fn validate(object: &Value, old: Option<&Value>) -> Result<Value, String> {
    let kind = object["kind"].as_str().unwrap();
    let schema = schema_of("manx.dev", kind).unwrap();
    schema
        .validate(object, old)
        .map_err(|faults| faults.iter().map(|fault| fault.error.clone()).collect::<Vec<_>>().join("\n"))
}

fn identity(object: &Value) -> String {
    format!("{}/{}", object["kind"], object["metadata"]["name"])
}

#[test]
fn every_rule_compiles() {
    assert_eq!(SCHEMAS.len(), 10);
    for schema in SCHEMAS.values() {
        assert_eq!(schema.compilation_errors(), 0, "{}", schema.kind);
    }
}

#[test]
fn good_objects_are_accepted() {
    let mut count = 0;
    for text in documents(GOOD) {
        let object = Document::parse(text).unwrap().to_value();
        assert!(validate(&object, None).is_ok(), "{}: {:?}", identity(&object), validate(&object, None));
        count += 1;
    }
    assert_eq!(count, 20);
}

#[test]
fn bad_objects_are_refused_with_their_text() {
    let mut stored: BTreeMap<String, Value> = BTreeMap::new();
    let (mut refused, mut accepted) = (0, 0);
    for text in documents(BAD) {
        let object = Document::parse(text).unwrap().to_value();
        let old = text.contains("#update").then(|| stored.get(&identity(&object)).expect("made before"));
        let verdict = validate(&object, old);
        match text.lines().find_map(|line| line.strip_prefix("#want: ")) {
            Some(want) => {
                let error = verdict.expect_err(&identity(&object));
                assert!(error.contains(want), "{}: {error:?} does not hold {want:?}", identity(&object));
                refused += 1;
            }
            None => {
                stored.insert(identity(&object), verdict.expect("accepted"));
                accepted += 1;
            }
        }
    }
    assert_eq!((refused, accepted), (50, 4));
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
