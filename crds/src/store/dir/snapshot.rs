//! All objects of a kind at one moment, and what became of them since another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::compose::hex;
use super::layout::{Kind, STATUS, object_name};
use super::load::{Entry, Loaded};
use super::{Inner, io_error};
use crate::store::{Key, Object, Revision, Selection, StoreError};
use crate::v1alpha1::selector::try_selects;

/// Moments a watch may resume from, for each kind.
const REMEMBERED: usize = 32;

pub(super) type Snapshot = Arc<BTreeMap<Key, Entry>>;
pub(super) type Memory = BTreeMap<String, VecDeque<(String, Snapshot)>>;

/// The content's hash: equal content, equal revision.
pub(super) fn digest(snapshot: &Snapshot) -> Revision {
    let mut digest = Sha256::new();
    for (key, entry) in snapshot.iter() {
        if let Some(object) = &entry.object {
            digest.update(key.namespace.as_deref().unwrap_or_default());
            digest.update(b"/");
            digest.update(&key.name);
            digest.update(b"@");
            digest.update(&object.revision);
            digest.update(b"\n");
        }
    }
    Revision(hex(&digest.finalize(), 16))
}

impl Inner {
    /// Reads every object of a kind.
    pub(super) fn scan<K: Object>(&self, kind: &Kind) -> Result<Snapshot, StoreError> {
        fs::metadata(&self.root).map_err(|e| io_error(&self.root, &e))?;
        let mut keys = BTreeSet::new();
        for base in [self.root.clone(), self.root.join(STATUS)] {
            let folder = base.join(&kind.folder);
            collect(&folder, kind.namespaced, &mut keys).map_err(|e| io_error(&folder, &e))?;
        }
        let mut snapshot = BTreeMap::new();
        for key in keys {
            if let Some(entry) = self.load::<K>(kind, &key, None)? {
                snapshot.insert(key, entry);
            }
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = cache.get_mut(&kind.folder) {
            kept.retain(|key, _| snapshot.contains_key(key));
        }
        drop(cache);
        Ok(Arc::new(snapshot))
    }

    /// Reads some objects of a kind again.
    pub(super) fn rescan<K: Object>(
        &self,
        kind: &Kind,
        snapshot: &Snapshot,
        keys: &BTreeSet<Key>,
    ) -> Result<Snapshot, StoreError> {
        // a store whose directory is gone holds no fewer objects than before
        fs::metadata(&self.root).map_err(|e| io_error(&self.root, &e))?;
        let mut next = BTreeMap::clone(snapshot);
        for key in keys {
            match self.load::<K>(kind, key, None)? {
                Some(entry) => next.insert(key.clone(), entry),
                None => next.remove(key),
            };
        }
        Ok(Arc::new(next))
    }

    /// Keeps a moment, so that a watch can go on from it.
    pub(super) fn remember(&self, kind: &Kind, snapshot: &Snapshot) -> Revision {
        let revision = digest(snapshot);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let moments = memory.entry(kind.folder.clone()).or_default();
        moments.retain(|(known, _)| *known != revision.0);
        moments.push_back((revision.0.clone(), Arc::clone(snapshot)));
        while moments.len() > REMEMBERED {
            moments.pop_front();
        }
        revision
    }

    pub(super) fn recall(&self, kind: &Kind, revision: &Revision) -> Option<Snapshot> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let moments = memory.get(&kind.folder)?;
        moments.iter().find(|(known, _)| *known == revision.0).map(|(_, snapshot)| Arc::clone(snapshot))
    }
}

fn collect(folder: &Path, namespaced: bool, keys: &mut BTreeSet<Key>) -> io::Result<()> {
    for (name, is_dir) in list(folder)? {
        if let Some(object) = object_name(&name).filter(|_| !is_dir) {
            keys.insert(Key::cluster(object));
        } else if is_dir && namespaced && !name.starts_with('.') {
            for (file, _) in list(&folder.join(&name))? {
                if let Some(object) = object_name(&file) {
                    keys.insert(Key::namespaced(&name, object));
                }
            }
        }
    }
    Ok(())
}

fn list(directory: &Path) -> io::Result<Vec<(String, bool)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Kubernetes names are ASCII: what is no UTF-8 is no object
        if let Ok(name) = entry.file_name().into_string() {
            let is_dir = entry.path().is_dir();
            found.push((name, is_dir));
        }
    }
    Ok(found)
}

/// A selection, checked against what the kind lets be selected.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    selection: Selection,
}

impl Wanted {
    /// # Errors
    /// A field that is not selectable, or labels that mean nothing.
    pub(super) fn new(kind: &Kind, selection: &Selection) -> Result<Self, StoreError> {
        for field in selection.fields.keys() {
            let metadata = field == "metadata.name" || (field == "metadata.namespace" && kind.namespaced);
            let own = match kind.schema {
                Some(schema) => schema.selectable.contains(field),
                None => {
                    kind.folder == "pods"
                        && matches!(
                            field.as_str(),
                            "spec.nodeName"
                                | "spec.hostNetwork"
                                | "spec.serviceAccountName"
                                | "status.phase"
                                | "status.podIP"
                        )
                }
            };
            if !metadata && !own {
                return Err(StoreError::Invalid(format!("field label not supported: {field}")));
            }
        }
        if let Some(labels) = &selection.labels {
            try_selects(labels, &BTreeMap::new()).map_err(|error| StoreError::Invalid(error.to_string()))?;
        }
        Ok(Self { selection: selection.clone() })
    }

    pub(super) fn in_namespace(&self, key: &Key) -> bool {
        self.selection.namespace.is_none() || self.selection.namespace == key.namespace
    }

    pub(super) fn holds(&self, key: &Key, object: &Loaded) -> bool {
        self.in_namespace(key)
            && self.selection.fields.iter().all(|(field, wanted)| field_text(&object.value, field) == *wanted)
            && self.selection.labels.as_ref().is_none_or(|selector| {
                let labels = object.value.pointer("/metadata/labels").and_then(Value::as_object);
                let labels = labels
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
                    .collect();
                try_selects(selector, &labels).unwrap_or(false)
            })
    }
}

/// A field as a field selector compares it; what is absent is empty, an absent bool false.
fn field_text(object: &Value, field: &str) -> String {
    match object.pointer(&format!("/{}", field.replace('.', "/"))) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None if field == "spec.hostNetwork" => "false".to_owned(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}
