//! Events, appended as JSON lines: at most one for an object and reason in 60 s, counted as a series.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::PoisonError;
use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::json;

use super::layout::EVENTS;
use super::{Inner, io_error};
use crate::store::follow::key_of;
use crate::store::{NewEvent, Object, StoreError};

/// A file of this size becomes `….1`, and the `….1` before it goes.
const LARGEST: u64 = 8 * 1024 * 1024;
impl Inner {
    pub(super) fn record_event<K: Object>(&self, about: &K, event: &NewEvent) -> Result<(), StoreError> {
        let key = key_of(about);
        let object =
            format!("{}/{}/{}", K::plural(&()), key.namespace.as_deref().unwrap_or_default(), key.name);
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = series.count(object, event.reason.clone(), Instant::now()) else { return Ok(()) };
        drop(series);
        let now = Timestamp::now();
        let uid = about.uid();
        let mut line = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": format!("{}.{:x}", key.name, now.as_nanosecond()),
                         "namespace": key.namespace.as_deref().unwrap_or("default"), "creationTimestamp": now},
            "eventTime": now, "type": if event.warning { "Warning" } else { "Normal" },
            "reason": event.reason, "action": event.action, "note": event.note,
            "reportingController": event.controller, "reportingInstance": event.instance,
            "regarding": {"apiVersion": K::api_version(&()), "kind": K::kind(&()), "name": key.name,
                          "namespace": key.namespace, "uid": uid},
        });
        if let (true, Some(line)) = (seen > 1, line.as_object_mut()) {
            line.insert("series".to_owned(), json!({"count": seen, "lastObservedTime": now}));
        }
        self.append(&event.controller, &format!("{line}\n"))
    }

    fn append(&self, controller: &str, line: &str) -> Result<(), StoreError> {
        let name: String =
            controller.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let directory = self.root.join(EVENTS);
        let path = directory.join(format!("{name}.jsonl"));
        let fail = |error: std::io::Error| io_error(&path, &error);
        fs::create_dir_all(&directory).map_err(fail)?;
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LARGEST) {
            fs::rename(&path, directory.join(format!("{name}.jsonl.1"))).map_err(fail)?;
        }
        // one write at the end of the file: lines of two processes do not mix
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
        file.write_all(line.as_bytes()).map_err(fail)
    }
}
