//! ObjectMeta: the members that it has, and their types.

use serde_json::Value;

use super::{Fault, nearest};

const MEMBERS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

pub(super) fn check(object: &Value, faults: &mut Vec<Fault>) {
    let Some(metadata) = object.get("metadata") else {
        faults.push(Fault::at("metadata", "Required value".to_owned()));
        return;
    };
    let Some(members) = metadata.as_object() else { return };
    for name in members.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
        faults.push(Fault::unknown(&format!("metadata.{name}"), name, nearest(name, MEMBERS.into_iter())));
    }
    for map in ["labels", "annotations"] {
        for (key, value) in members.get(map).and_then(Value::as_object).into_iter().flatten() {
            if !value.is_string() {
                faults.push(Fault {
                    path: format!("metadata.{map}"),
                    at_key: false,
                    error: format!(
                        "metadata.{map}: Invalid value: {value}: the value of {key:?} must be a string"
                    ),
                    expected: Some(format!("{key}: \"{value}\"")),
                });
            }
        }
        if members.get(map).is_some_and(|value| !value.is_object() && !value.is_null()) {
            faults.push(Fault::at(
                &format!("metadata.{map}"),
                "Invalid value: must be a map of strings".to_owned(),
            ));
        }
    }
    if members.get("name").and_then(Value::as_str).is_none() {
        faults.push(Fault::at("metadata.name", "Required value: name is required".to_owned()));
    }
}
