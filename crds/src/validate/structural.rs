//! The structural part of a CRD's schema: types, ranges, enums, patterns, required and unknown fields, and the
//! defaults. The texts are the API server's.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use regex::Regex;
use serde_json::{Map, Value};

use super::{Fault, nearest};

static PATTERNS: LazyLock<Mutex<BTreeMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);

/// Whether the text matches; a pattern that does not compile matches nothing (a test compiles them all).
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut patterns = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
    regex.as_ref().is_some_and(|regex| regex.is_match(text))
}

/// Checks `value` and fills in what is absent and has a default.
pub(super) fn check(schema: &Value, value: &mut Value, path: &str, faults: &mut Vec<Fault>) {
    let wanted = wanted_type(schema);
    if !wanted.split(',').any(|wanted| is_a(value, wanted)) {
        let found = type_name(value);
        faults.push(Fault::at(
            path,
            format!("Invalid value: {found:?}: {path} in body must be of type {wanted}: {found:?}"),
        ));
        return;
    }
    match value {
        Value::Object(map) => check_object(schema, map, path, faults),
        Value::Array(items) => check_array(schema, items, path, faults),
        Value::String(text) => check_string(schema, text, path, faults),
        Value::Number(number) => check_number(schema, number, path, faults),
        Value::Bool(_) | Value::Null => {}
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let list: Vec<String> = allowed.iter().map(quoted).collect();
        let list = list.join(", ");
        let mut fault = Fault::at(path, format!("Unsupported value: {value}: supported values: {list}"));
        fault.expected = Some(list);
        faults.push(fault);
    }
}

/// The type of a schema, or both of an int-or-string.
fn wanted_type(schema: &Value) -> &str {
    match schema.get("type").and_then(Value::as_str) {
        Some(wanted) => wanted,
        None if is_set(schema, "x-kubernetes-int-or-string") => "integer,string",
        None => "object",
    }
}

fn is_set(schema: &Value, keyword: &str) -> bool {
    schema.get(keyword).and_then(Value::as_bool).unwrap_or(false)
}

/// A value of an enum as the API server lists it: numbers are quoted, too.
fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            format!("\"{value}\"")
        }
    }
}

fn is_a(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Number(number) => wanted == "number" || (wanted == "integer" && !number.is_f64()),
        Value::Object(_) | Value::Array(_) | Value::String(_) | Value::Bool(_) | Value::Null => {
            type_name(value) == wanted
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn bound(schema: &Value, keyword: &str) -> Option<usize> {
    schema.get(keyword).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok())
}

fn check_object(schema: &Value, map: &mut Map<String, Value>, path: &str, faults: &mut Vec<Fault>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let others = schema.get("additionalProperties");
    for (name, inner) in properties.into_iter().flatten() {
        if let Some(default) = inner.get("default")
            && map.get(name).is_none_or(Value::is_null)
        {
            map.insert(name.clone(), default.clone());
        }
    }
    for required in
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    {
        if !map.contains_key(required) {
            faults.push(Fault::at(&join(path, required), "Required value".to_owned()));
        }
    }
    if let Some(least) = bound(schema, "minProperties").filter(|least| map.len() < *least) {
        let count = map.len();
        faults.push(Fault::at(
            path,
            format!("Invalid value: {count}: {path} in body should have at least {least} properties"),
        ));
    }
    // metadata is ObjectMeta's, and checked as such
    if properties.is_none() && others.is_none() && path == "metadata" {
        return;
    }
    for (name, inner) in map.iter_mut() {
        let inner_path = join(path, name);
        match (properties.and_then(|p| p.get(name)), others) {
            (Some(inner_schema), _) | (None, Some(inner_schema)) => {
                check(inner_schema, inner, &inner_path, faults)
            }
            (None, None) if is_set(schema, "x-kubernetes-preserve-unknown-fields") => {}
            (None, None) => {
                let known = properties.into_iter().flatten().map(|(name, _)| name.as_str());
                faults.push(Fault::unknown(&inner_path, name, nearest(name, known)));
            }
        }
    }
}

fn check_array(schema: &Value, items: &mut [Value], path: &str, faults: &mut Vec<Fault>) {
    let count = items.len();
    if let Some(most) = bound(schema, "maxItems").filter(|most| count > *most) {
        faults.push(Fault::at(path, format!("Too many: {count}: must have at most {most} items")));
        return;
    }
    if let Some(least) = bound(schema, "minItems").filter(|least| count < *least) {
        faults.push(Fault::at(
            path,
            format!("Invalid value: {count}: {path} in body should have at least {least} items"),
        ));
    }
    if let Some(item_schema) = schema.get("items") {
        for (index, item) in items.iter_mut().enumerate() {
            check(item_schema, item, &format!("{path}[{index}]"), faults);
        }
    }
    let keys: Vec<String> = items.iter().filter_map(|item| item_key(schema, item)).collect();
    for (index, key) in keys.iter().enumerate() {
        if keys.iter().take(index).any(|earlier| earlier == key) {
            faults.push(Fault::at(&format!("{path}[{index}]"), format!("Duplicate value: {key}")));
        }
    }
}

/// What must be unique of an item: itself in a set, its keys in a list map.
fn item_key(schema: &Value, item: &Value) -> Option<String> {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Some(item.to_string()),
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys")?.as_array()?;
            let map: Map<String, Value> = keys
                .iter()
                .filter_map(Value::as_str)
                .filter_map(|key| item.get(key).map(|value| (key.to_owned(), value.clone())))
                .collect();
            Some(Value::Object(map).to_string())
        }
        Some(_) | None => None,
    }
}

fn check_string(schema: &Value, text: &str, path: &str, faults: &mut Vec<Fault>) {
    let length = text.chars().count();
    if let Some(most) = bound(schema, "maxLength").filter(|most| length > *most) {
        faults.push(Fault::at(path, format!("Too long: may not be more than {most} bytes")));
    }
    if let Some(least) = bound(schema, "minLength").filter(|least| length < *least) {
        faults.push(Fault::at(
            path,
            format!("Invalid value: {text:?}: {path} in body should be at least {least} chars long"),
        ));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !matches_pattern(pattern, text)
    {
        let mut fault =
            Fault::at(path, format!("Invalid value: {text:?}: {path} in body should match '{pattern}'"));
        fault.expected = Some(format!("text that matches {pattern}"));
        faults.push(fault);
    }
    if schema.get("format").and_then(Value::as_str) == Some("date-time") && text.parse::<Timestamp>().is_err()
    {
        faults.push(Fault::at(
            path,
            format!("Invalid value: {text:?}: {path} in body must be of type date-time: {text:?}"),
        ));
    }
}

fn check_number(schema: &Value, number: &serde_json::Number, path: &str, faults: &mut Vec<Fault>) {
    let of = |keyword: &str| schema.get(keyword).and_then(Value::as_i64).map(i128::from);
    let Some(value) = number.as_i128() else { return };
    if let Some(least) = of("minimum").filter(|least| value < *least) {
        faults.push(Fault::at(
            path,
            format!("Invalid value: {value}: {path} in body should be greater than or equal to {least}"),
        ));
    }
    if let Some(most) = of("maximum").filter(|most| value > *most) {
        faults.push(Fault::at(
            path,
            format!("Invalid value: {value}: {path} in body should be less than or equal to {most}"),
        ));
    }
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
