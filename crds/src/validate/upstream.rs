//! Kinds of Kubernetes itself: what their Rust types read is what they may say.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::document::{Document, options, parse_error};
use super::{Fault, metadata, nearest};

/// Checks the shape of an upstream object. Values that only the API server would refuse, such as a bad CIDR in
/// a NetworkPolicy, pass: whoever enforces them fails closed and says so.
pub(crate) fn check<K: DeserializeOwned + Serialize>(
    text: &str,
    document: &Document,
    value: &Value,
    strict: bool,
) -> Result<(), Vec<Fault>> {
    let mut faults = Vec::new();
    metadata::check(value, &mut faults);
    match serde_saphyr::from_str_with_options::<K>(text, options()) {
        Ok(object) => {
            if let Ok(read) = serde_json::to_value(&object) {
                compare(value, &read, "", strict, &mut faults);
            }
        }
        Err(error) => {
            let error = parse_error(&error);
            let path = error.place.map_or_else(String::new, |place| document.path_at(place));
            faults.push(Fault::at(&path, format!("Invalid value: {}", error.message)));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// What was written and not read is an unknown field. Only `strict` looks below the first level: dropping a
/// field of a policy would widen it, dropping one of a Pod changes nothing here.
fn compare(written: &Value, read: &Value, path: &str, strict: bool, faults: &mut Vec<Fault>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (name, inner) in written.iter().filter(|(_, inner)| !inner.is_null()) {
                let inner_path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match read.get(name) {
                    Some(_) if path.is_empty() && (name == "metadata" || !strict) => {}
                    Some(found) => compare(inner, found, &inner_path, strict, faults),
                    None if path.is_empty() && name == "status" => {}
                    None => faults.push(Fault::unknown(&inner_path, name, nearest(name, KNOWN.into_iter()))),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            for (index, (inner, found)) in written.iter().zip(read).enumerate() {
                compare(inner, found, &format!("{path}[{index}]"), strict, faults);
            }
        }
        _ => {}
    }
}

/// Names worth proposing: the first level of every kind, and the fields of a NetworkPolicy.
const KNOWN: [&str; 27] = [
    "apiVersion",
    "cidr",
    "data",
    "egress",
    "endPort",
    "except",
    "from",
    "ingress",
    "ipBlock",
    "key",
    "kind",
    "matchExpressions",
    "matchLabels",
    "metadata",
    "namespaceSelector",
    "operator",
    "podSelector",
    "policyTypes",
    "port",
    "ports",
    "protocol",
    "spec",
    "status",
    "stringData",
    "to",
    "type",
    "values",
];
