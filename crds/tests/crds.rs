//! The derived CRDs are those of the API document, and those that the chart installs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// Drops descriptions and sorts what has no order.
fn normalise(value: &mut Value, is_properties: bool) {
    match value {
        Value::Object(map) => {
            if !is_properties {
                map.remove("description");
                // DESIGN.md, "The reference": a bound that no API server can hold.
                if map.get("maximum") == Some(&Value::from(i64::MAX)) {
                    map.remove("maximum");
                }
                for empty in ["properties", "shortNames"] {
                    let is_empty = |value: &Value| {
                        value == &Value::Array(Vec::new()) || value == &Value::Object(Default::default())
                    };
                    if map.get(empty).is_some_and(is_empty) {
                        map.remove(empty);
                    }
                }
                for unordered in ["required", "x-kubernetes-validations"] {
                    if let Some(Value::Array(items)) = map.get_mut(unordered) {
                        items.sort_by_key(ToString::to_string);
                    }
                }
            }
            for (key, inner) in map.iter_mut() {
                normalise(inner, !is_properties && key == "properties");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| normalise(item, false)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Every leaf by its path, so that a difference names itself.
fn leaves(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            into.insert(format!("{prefix}/"), "object".into());
            map.iter().for_each(|(key, inner)| leaves(&format!("{prefix}/{key}"), inner, into));
        }
        Value::Array(items) => {
            into.insert(format!("{prefix}/"), "array".into());
            items.iter().enumerate().for_each(|(n, inner)| leaves(&format!("{prefix}/{n}"), inner, into));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            into.insert(prefix.to_owned(), value.to_string());
        }
    }
}

/// Where the types differ from the reference on purpose: the path, and why. DESIGN.md has the reasons.
const DIFFERENT: [(&str, &str); 2] = [
    ("/metadata/annotations/", "the reference shows schemas; api.md §14 wants their revision on each CRD"),
    ("/metadata/annotations/manx.dev/schema-revision", "its value is a test of its own"),
];

fn reference() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/crds.yaml");
    serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Every leaf in which two values differ, as `path: wanted …, made …`.
fn differences(wanted: &Value, made: &Value) -> BTreeMap<String, String> {
    let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
    leaves("", wanted, &mut left);
    leaves("", made, &mut right);
    let paths: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    paths
        .into_iter()
        .filter(|path| left.get(*path) != right.get(*path))
        .map(|path| {
            let show =
                |side: &BTreeMap<String, String>| side.get(path).map_or("nothing".to_owned(), Clone::clone);
            (path.clone(), format!("wanted {}, made {}", show(&left), show(&right)))
        })
        .collect()
}

#[test]
fn the_types_make_the_crds_of_the_api() {
    let made = manx_crds::v1alpha1::crds().unwrap();
    let names = |crds: &[Value]| -> BTreeSet<String> {
        crds.iter().map(|crd| crd["metadata"]["name"].to_string()).collect()
    };
    assert_eq!(names(&made), names(&reference()));
    assert_eq!(made.len(), 16);
    let mut unexplained = Vec::new();
    let mut explained = BTreeSet::new();
    for mut wanted in reference() {
        let name = wanted["metadata"]["name"].clone();
        let mut made = made.iter().find(|crd| name == crd["metadata"]["name"]).unwrap().clone();
        normalise(&mut wanted, false);
        normalise(&mut made, false);
        for (path, what) in differences(&wanted, &made) {
            match DIFFERENT.iter().find(|(known, _)| path == *known) {
                Some((known, _)) => explained.insert(*known),
                None => {
                    unexplained.push(format!("{name} {path}: {what}"));
                    true
                }
            };
        }
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    assert_eq!(
        explained.len(),
        DIFFERENT.len(),
        "a difference that is none any more is taken out of the list"
    );
}

/// API servers hold bounds as float64: one that is not exact there refuses values that it allows.
#[test]
fn every_bound_is_exact_as_a_float() {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let mut seen = 0;
    for crd in manx_crds::v1alpha1::crds().unwrap() {
        let mut all = BTreeMap::new();
        leaves("", &crd, &mut all);
        for (path, value) in
            all.iter().filter(|(path, _)| path.ends_with("/maximum") || path.ends_with("/minimum"))
        {
            let bound: f64 = value.parse().unwrap();
            assert!(bound.abs() <= EXACT, "{} {path}: {value}", crd["metadata"]["name"]);
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} bounds");
}

#[test]
fn a_difference_names_its_path() {
    let crd = &reference()[0];
    let mut other = crd.clone();
    *other.pointer_mut("/spec/names/shortNames/0").unwrap() = "fcs".into();
    let schema =
        other.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
    schema.as_object_mut().unwrap().remove("maxPaths");
    let found = differences(crd, &other);
    assert_eq!(found["/spec/names/shortNames/0"], "wanted \"fc\", made \"fcs\"");
    let gone = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/maxPaths/maximum";
    assert_eq!(found[gone], "wanted 256, made nothing");
    assert!(
        found.len() > 2 && found.keys().all(|path| path.contains("maxPaths") || path.contains("shortNames"))
    );
}

/// The paths of all fields without a text for `kubectl explain`.
fn undescribed(schema: &Value, path: &str, into: &mut Vec<String>) {
    let described =
        schema.get("description").and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
    if !described && !path.ends_with("[]") && !path.ends_with("{}") {
        into.push(path.to_owned());
    }
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        undescribed(inner, &format!("{path}.{name}"), into);
    }
    for (keyword, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(keyword).filter(|inner| inner.is_object()) {
            undescribed(inner, &format!("{path}{mark}"), into);
        }
    }
}

#[test]
fn every_field_is_explained() {
    let mut missing = Vec::new();
    for crd in manx_crds::v1alpha1::crds().unwrap() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        undescribed(schema, kind, &mut missing);
        // The API server refuses a CRD that says more of it, and explains it by itself.
        assert_eq!(schema["properties"]["metadata"], serde_json::json!({"type": "object"}), "{kind}");
        missing.retain(|path| *path != format!("{kind}.metadata"));
    }
    assert!(missing.is_empty(), "without a description:\n{}", missing.join("\n"));
}

#[test]
fn every_crd_tells_the_revision_of_its_schema() {
    use manx_crds::annotations::SCHEMA_REVISION;
    for crd in manx_crds::v1alpha1::crds().unwrap() {
        let value = crd["metadata"]["annotations"][SCHEMA_REVISION.key].as_str().unwrap();
        assert_eq!(SCHEMA_REVISION.parse(value), Ok(manx_crds::v1alpha1::SCHEMA_REVISION));
    }
}

/// `EXPECTORATE=overwrite` writes them anew.
#[test]
fn the_chart_installs_these_crds() {
    for crd in manx_crds::v1alpha1::crds().unwrap() {
        let yaml = serde_saphyr::to_string(&crd).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../charts/manx/crds")
            .join(format!("{}.yaml", crd["spec"]["names"]["plural"].as_str().unwrap()));
        expectorate::assert_contents(path, &yaml);
    }
}
