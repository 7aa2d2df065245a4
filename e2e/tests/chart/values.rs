//! values.yaml, its schema and the table of the README are one.

use std::fmt::Write as _;

use serde_json::Value;

use crate::helm::chart;

const BEGIN: &str = "<!-- values: written by `make golden` from values.yaml and values.schema.json -->\n";
const END: &str = "<!-- end of values -->\n";

fn read(file: &str) -> String {
    std::fs::read_to_string(chart(file)).unwrap()
}

/// Follows `$ref` into the definitions; what stands beside it wins.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.strip_prefix('#').unwrap()).expect("a definition"),
        None => schema,
    }
}

/// One line a described key: what has a description is not entered further.
fn rows(root: &Value, schema: &Value, values: &Value, path: &str, into: &mut Vec<(String, String, String)>) {
    if let Some(description) = schema["description"].as_str() {
        into.push((path.to_owned(), values.to_string(), description.to_owned()));
        return;
    }
    let schema = resolve(root, schema);
    let (properties, values) = (schema["properties"].as_object(), values.as_object());
    let properties = properties.unwrap_or_else(|| panic!("{path} has neither description nor properties"));
    let values = values.unwrap_or_else(|| panic!("{path} is no mapping in values.yaml"));
    assert_eq!(schema["additionalProperties"], false, "{path} takes keys that nobody reads");
    for key in values.keys() {
        assert!(properties.contains_key(key), "{path}.{key} is in values.yaml and not in the schema");
    }
    for (key, inner) in properties {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match values.get(key) {
            Some(value) => rows(root, inner, value, &path, into),
            // Helm's own key for subcharts.
            None => assert_eq!(path, "global", "{path} is in the schema and not in values.yaml"),
        }
    }
}

/// `make golden` writes it anew.
#[test]
fn the_readme_describes_every_value() {
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let mut table = Vec::new();
    rows(&schema, &schema, &values, "", &mut table);
    assert!(table.len() > 30, "{} values", table.len());
    let mut text = "| key | default | meaning |\n|---|---|---|\n".to_owned();
    for (key, default, meaning) in table {
        writeln!(text, "| `{key}` | `{default}` | {meaning} |").unwrap();
    }
    let readme = read("README.md");
    let (head, rest) = readme.split_once(BEGIN).expect("README.md: the line where the values begin");
    let (_, tail) = rest.split_once(END).expect("README.md: the line where the values end");
    expectorate::assert_contents(chart("README.md"), &format!("{head}{BEGIN}{text}{END}{tail}"));
}
