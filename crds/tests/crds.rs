//! The derived CRDs are those of the API document, and those that the chart installs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// Drops descriptions and sorts what has no order.
fn normalise(value: &mut Value, is_properties: bool) {
    match value {
        Value::Object(map) => {
            if !is_properties {
                map.remove("description");
                if map.get("properties").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
                    map.remove("properties");
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

#[test]
fn the_types_make_the_crds_of_the_api() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/crds.yaml");
    let wanted: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    let made = manx_crds::v1alpha1::crds().unwrap();
    assert_eq!(made.len(), 10);
    let mut differences = Vec::new();
    for mut wanted in wanted {
        let name = wanted["metadata"]["name"].clone();
        let made = made.iter().find(|crd| name == crd["metadata"]["name"]).expect("the kind exists");
        let mut made = made.clone();
        normalise(&mut wanted, false);
        normalise(&mut made, false);
        let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
        leaves("", &wanted, &mut left);
        leaves("", &made, &mut right);
        for (path, value) in &left {
            if right.get(path) != Some(value) {
                differences.push(format!("{name} {path}: wanted {value}, made {:?}", right.get(path)));
            }
        }
        for (path, value) in right.iter().filter(|(path, _)| !left.contains_key(*path)) {
            differences.push(format!("{name} {path}: made {value}, not wanted"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
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
