//! One object out of people's text and agents' record, and back.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::layout::Kind;
use super::record::Record;
use crate::store::Key;

/// The first 128 bits of a hash over both files: equal content, equal revision.
pub(super) fn revision(people: Option<&[u8]>, agents: Option<&[u8]>) -> String {
    let mut digest = Sha256::new();
    for part in [people, agents] {
        match part {
            Some(bytes) => {
                digest.update(bytes.len().to_be_bytes());
                digest.update(bytes);
            }
            None => digest.update([0xff; 8]),
        }
    }
    hex(&digest.finalize(), 16)
}

pub(super) fn hex(bytes: &[u8], count: usize) -> String {
    bytes.iter().take(count).map(|byte| format!("{byte:02x}")).collect()
}

/// A number that changes with spec, small enough for every JSON reader (53 bits).
fn generation(spec: Option<&Value>) -> i64 {
    let digest = Sha256::digest(spec.map(Value::to_string).unwrap_or_default());
    digest.iter().take(6).fold(0_i64, |number, byte| number << 8 | i64::from(*byte)).max(1)
}

/// The object that readers see.
pub(super) fn compose(kind: &Kind, key: &Key, people: &Value, record: &Record, revision: &str) -> Value {
    let mut object = people.as_object().cloned().unwrap_or_default();
    let generation = generation(object.get("spec"));
    let mut metadata = match object.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(_) | None => Map::new(),
    };
    metadata.insert("name".to_owned(), json!(key.name));
    if let Some(namespace) = &key.namespace {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    metadata.entry("uid").or_insert_with(|| json!(record.uid));
    metadata.insert("resourceVersion".to_owned(), json!(revision));
    metadata.insert("creationTimestamp".to_owned(), json!(record.created));
    metadata.insert("generation".to_owned(), json!(generation));
    metadata.remove("managedFields");
    metadata.remove("deletionTimestamp");
    if let Some(deleted) = &record.deleted {
        metadata.insert("deletionTimestamp".to_owned(), json!(deleted));
    }
    add_labels(&mut metadata, record);
    add_finalizers(&mut metadata, record);
    object.insert("metadata".to_owned(), Value::Object(metadata));

    // our kinds ignore a status that a person wrote, as the API server does; of a Node or Pod it is the word
    // of the kubelet that is not there
    let own = object.remove("status");
    let base = if kind.schema.is_some() { Value::Null } else { own.unwrap_or(Value::Null) };
    let schema = kind.schema.and_then(|schema| schema.schema.pointer("/properties/status"));
    let base = if base.is_null() { json!({}) } else { base };
    let status = record.status(base, schema);
    if status.as_object().is_some_and(|status| !status.is_empty()) {
        object.insert("status".to_owned(), status);
    }
    object.insert("apiVersion".to_owned(), json!(kind.api_version));
    object.insert("kind".to_owned(), json!(kind.kind));
    Value::Object(object)
}

fn add_labels(metadata: &mut Map<String, Value>, record: &Record) {
    let managed: BTreeMap<&String, &String> = record.labels().collect();
    if managed.is_empty() {
        return;
    }
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if labels.is_null() {
        *labels = json!({});
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.extend(managed.into_iter().map(|(key, value)| (key.clone(), json!(value))));
    }
}

fn add_finalizers(metadata: &mut Map<String, Value>, record: &Record) {
    let mut all: Vec<String> = match metadata.get("finalizers").and_then(Value::as_array) {
        Some(own) => own.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        None => Vec::new(),
    };
    all.extend(record.finalizers());
    all.sort_unstable();
    all.dedup();
    if !all.is_empty() {
        metadata.insert("finalizers".to_owned(), json!(all));
    }
}

/// What of an object goes into people's file: neither status, nor what the store makes, nor what agents own.
pub(super) fn people_part(
    kind: &Kind,
    object: &Value,
    record: Option<&Record>,
    old: Option<&Value>,
) -> Value {
    let mut object = object.as_object().cloned().unwrap_or_default();
    object.remove("status");
    if kind.schema.is_none()
        && let Some(status) = old.and_then(|old| old.get("status"))
    {
        object.insert("status".to_owned(), status.clone());
    }
    object.insert("apiVersion".to_owned(), json!(kind.api_version));
    object.insert("kind".to_owned(), json!(kind.kind));
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let old_metadata = old.and_then(|old| old.get("metadata"));
        let theirs = |name: &str| old_metadata.and_then(|m| m.get(name));
        for made in [
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "managedFields",
            "selfLink",
        ] {
            metadata.remove(made);
        }
        if theirs("uid").is_none() {
            metadata.remove("uid");
        }
        if let (Some(record), Some(labels)) =
            (record, metadata.get_mut("labels").and_then(Value::as_object_mut))
        {
            for (key, value) in record.labels() {
                let peoples = theirs("labels").and_then(|labels| labels.get(key)).cloned();
                if labels.get(key).and_then(Value::as_str) == Some(value) {
                    match peoples {
                        Some(own) => labels.insert(key.clone(), own),
                        None => labels.remove(key),
                    };
                }
            }
        }
        let agents = record.map(Record::finalizers).unwrap_or_default();
        if let Some(finalizers) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
            finalizers.retain(|name| name.as_str().is_none_or(|name| !agents.iter().any(|a| a == name)));
        }
        metadata.retain(|_, value| match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        });
    }
    Value::Object(object)
}
