//! What agents say of an object: one record a field manager, merged when the object is read.
//!
//! A manager that stops applying a field takes it away; what another manager applies with another value changes
//! hands (server-side apply with force).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::store::Part;

/// The file under `.status/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Record {
    pub(super) uid: String,
    pub(super) created: Time,
    /// Deletion was asked for; finalizers hold the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deleted: Option<Time>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) managers: BTreeMap<String, Managed>,
}

/// What one manager owns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Managed {
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(super) status: Value,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) finalizers: Vec<String>,
}

impl Record {
    pub(super) fn finalizers(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.managers.values().flat_map(|m| m.finalizers.iter().cloned()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = (&String, &String)> {
        self.managers.values().flat_map(|m| &m.labels)
    }

    /// Every manager's status over `base`.
    pub(super) fn status(&self, base: Value, schema: Option<&Value>) -> Value {
        self.managers.values().filter(|m| !m.status.is_null()).fold(base, |mut status, managed| {
            merge(&mut status, &managed.status, schema, "status");
            status
        })
    }

    /// Takes a manager's whole wish for one part.
    ///
    /// # Errors
    /// A body that is no such part.
    pub(super) fn apply(
        &mut self,
        manager: &str,
        part: Part,
        body: Value,
        schema: Option<&Value>,
    ) -> Result<(), serde_json::Error> {
        let mut own = self.managers.remove(manager).unwrap_or_default();
        match part {
            Part::Status => {
                for other in self.managers.values_mut() {
                    yield_to(&mut other.status, &body, schema, "status");
                }
                own.status = body;
            }
            Part::Labels => {
                own.labels = serde_json::from_value(body)?;
                for other in self.managers.values_mut() {
                    other.labels.retain(|key, value| own.labels.get(key).is_none_or(|new| new == value));
                }
            }
            Part::Finalizers => own.finalizers = serde_json::from_value(body)?,
        }
        self.managers.insert(manager.to_owned(), own);
        self.managers.retain(|_, managed| *managed != Managed::default());
        Ok(())
    }
}

fn property<'a>(schema: Option<&'a Value>, name: &str) -> Option<&'a Value> {
    schema?.get("properties")?.get(name)
}

/// The keys of a list map; none for lists that have one owner. Upstream kinds bring no schema: their lists
/// with owners per item are these.
fn list_keys<'a>(schema: Option<&'a Value>, name: &str) -> Option<Vec<&'a str>> {
    match schema {
        Some(schema) => {
            if schema.get("x-kubernetes-list-type")?.as_str()? != "map" {
                return None;
            }
            Some(
                schema
                    .get("x-kubernetes-list-map-keys")?
                    .as_array()?
                    .iter()
                    .filter_map(Value::as_str)
                    .collect(),
            )
        }
        None => match name {
            "conditions" => Some(vec!["type"]),
            "podIPs" | "hostIPs" => Some(vec!["ip"]),
            _ => None,
        },
    }
}

fn same_item(a: &Value, b: &Value, keys: &[&str]) -> bool {
    keys.iter().all(|key| a.get(key) == b.get(key))
}

fn merge(base: &mut Value, over: &Value, schema: Option<&Value>, name: &str) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(key) {
                    Some(found) => merge(found, value, property(schema, key), key),
                    None => {
                        base.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(over)) if list_keys(schema, name).is_some() => {
            let keys = list_keys(schema, name).unwrap_or_default();
            let item_schema = schema.and_then(|schema| schema.get("items"));
            for item in over {
                match base.iter_mut().find(|found| same_item(found, item, &keys)) {
                    Some(found) => merge(found, item, item_schema, "item"),
                    None => base.push(item.clone()),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// Takes out of `held` what `wish` sets otherwise.
fn yield_to(held: &mut Value, wish: &Value, schema: Option<&Value>, name: &str) {
    match (held, wish) {
        (Value::Object(held), Value::Object(wish)) => {
            let differs: Vec<String> = held
                .iter_mut()
                .filter_map(|(key, value)| {
                    let wanted = wish.get(key)?;
                    yields(value, wanted, property(schema, key), key).then(|| key.clone())
                })
                .collect();
            differs.iter().for_each(|key| remove(held, key));
        }
        (Value::Array(held), Value::Array(wish)) => {
            let keys = list_keys(schema, name).unwrap_or_default();
            let item_schema = schema.and_then(|schema| schema.get("items"));
            held.retain_mut(|item| {
                wish.iter()
                    .find(|wanted| same_item(item, wanted, &keys))
                    .is_none_or(|wanted| !yields(item, wanted, item_schema, "item"))
            });
        }
        _ => {}
    }
}

/// Whether a value goes as a whole; what goes in part is cut here.
fn yields(held: &mut Value, wish: &Value, schema: Option<&Value>, name: &str) -> bool {
    let divisible = matches!((&*held, wish), (Value::Object(_), Value::Object(_)))
        || (held.is_array() && wish.is_array() && list_keys(schema, name).is_some());
    if !divisible {
        return held != wish;
    }
    yield_to(held, wish, schema, name);
    false
}

fn remove(map: &mut Map<String, Value>, key: &str) {
    map.remove(key);
}

#[cfg(test)]
mod tests;
