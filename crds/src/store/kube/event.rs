//! Events (`events.k8s.io/v1`): the first of a series creates the object, the next count it up.

use std::sync::PoisonError;
use std::time::Instant;

use ::kube::ResourceExt as _;
use ::kube::core::params::{Patch, PatchParams, PostParams};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::super::{Key, NewEvent, Object, StoreError};
use super::KubeStore;
use crate::store::follow::key_of;

/// The note's limit in the API.
const LONGEST_NOTE: usize = 1024;

impl KubeStore {
    pub(super) async fn record<K: Object>(&self, about: &K, event: &NewEvent) -> Result<(), StoreError> {
        let key = key_of(about);
        let object = format!("{}/{key}", K::plural(&()));
        let seen = {
            let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
            series.count(object.clone(), event.reason.clone(), Instant::now())
        };
        let Some(seen) = seen else { return Ok(()) };
        let name = name_of_series(&key.name, &object, about.uid().as_deref(), event);
        let namespace = key.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let event_key = Key::namespaced(namespace, name);
        match self.create_event(&event_key, about, event).await {
            // It happened before, in this life or an earlier one.
            Err(StoreError::AlreadyExists { .. }) => self.count_up(&event_key, seen).await,
            outcome => outcome,
        }
    }

    async fn create_event<K: Object>(
        &self,
        key: &Key,
        about: &K,
        event: &NewEvent,
    ) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let of = key_of(about);
        let body = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "eventTime": micro(now), "type": if event.warning { "Warning" } else { "Normal" },
            "reason": event.reason, "action": event.action, "note": short(&event.note),
            "reportingController": event.controller, "reportingInstance": event.instance,
            "regarding": {"apiVersion": K::api_version(&()), "kind": K::kind(&()), "name": of.name,
                          "namespace": of.namespace, "uid": about.uid(),
                          "resourceVersion": about.resource_version()},
        });
        let bytes = serde_json::to_vec(&body).map_err(|error| StoreError::Invalid(error.to_string()))?;
        let requests = Self::requests::<Event>(key.namespace.as_deref());
        let request = requests.create(&PostParams::default(), bytes);
        let created = self.ask::<Event>(request).await;
        created.map(|_| ()).map_err(|error| error.of_object::<Event>(key))
    }

    async fn count_up(&self, key: &Key, seen: u64) -> Result<(), StoreError> {
        let old: Event = self.get_whole(key).await?;
        let told = old.series.map_or(1, |series| series.count);
        let count = told.saturating_add(i32::try_from(seen).unwrap_or(i32::MAX));
        let patch = json!({"series": {"count": count, "lastObservedTime": micro(Timestamp::now())}});
        let requests = Self::requests::<Event>(key.namespace.as_deref());
        let request = requests.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch));
        let patched = self.ask::<Event>(request).await;
        patched.map(|_| ()).map_err(|error| error.of_object::<Event>(key))
    }
}

/// One name for what is one series: a process that restarts counts on where it was. The note is in it, since the API
/// lets nobody change the note of an Event.
fn name_of_series(name: &str, object: &str, uid: Option<&str>, event: &NewEvent) -> String {
    let mut hash = Sha256::new();
    for part in [object, uid.unwrap_or_default(), &event.reason, &event.action, &event.instance, &event.note]
    {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let room = 253 - digest.len() - 1;
    let stem: String = name.chars().take(room).collect();
    format!("{}.{digest}", stem.trim_end_matches(['.', '-']))
}

fn short(note: &str) -> String {
    if note.len() <= LONGEST_NOTE {
        return note.to_owned();
    }
    let mut end = LONGEST_NOTE - '…'.len_utf8();
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", note.get(..end).unwrap_or_default())
}

/// `MicroTime`: exactly six digits.
fn micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_digits_and_notes_an_end() {
        assert_eq!(micro(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
        assert_eq!(short("kurz"), "kurz");
        let long = short(&"ä".repeat(600));
        assert!(long.len() <= LONGEST_NOTE && long.ends_with('…'), "{}", long.len());
    }
}
