//! Writing one object, under the lock of its kind.

use std::io;

use serde_json::Value;

use super::compose::{compose, people_part, revision};
use super::files;
use super::layout::{Files, Kind};
use super::load::{Loaded, judge, new_record, random_uid, remove_remains, write_last, write_record};
use super::{Inner, io_error, not_found, typed};
use crate::store::follow::key_of;
use crate::store::{Key, Object, Part, Revision, StoreError};

impl Inner {
    /// The claim: of two writers of one name exactly one succeeds.
    pub(super) fn create<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        let (kind, key) = (Kind::of::<K>(), key_of(object));
        kind.check_key(&key)?;
        let lock = self.lock(&kind)?;
        let taken = || StoreError::AlreadyExists { kind: kind.kind.clone(), name: key.to_string() };
        if self.load::<K>(&kind, &key, Some(&lock))?.is_some() {
            return Err(taken());
        }
        let people = people_part(&kind, &json(object)?, None, None);
        let bytes = text_of::<K>(&kind, &key, &people, None)?;
        let paths = Files::of(&self.root, &kind, &key);
        let mode = if kind.is_secret() { 0o600 } else { 0o644 };
        let uid = random_uid().map_err(|e| io_error(&paths.agents, &e))?;
        match files::create(&paths.people, &bytes, mode) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(taken()),
            Err(error) => return Err(io_error(&paths.people, &error)),
        }
        write_record(&paths, &new_record(uid))?;
        write_last(&kind, &paths, &bytes);
        self.answer(&kind, &key, &lock)
    }

    pub(super) fn replace<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        let (kind, key) = (Kind::of::<K>(), key_of(object));
        kind.check_key(&key)?;
        let lock = self.lock(&kind)?;
        let entry = self.load::<K>(&kind, &key, Some(&lock))?.unwrap_or_default();
        if let Some(fault) = entry.fault {
            return Err(StoreError::Invalid(format!("{}: {}", fault.place, fault.error)));
        }
        let Some(old) = entry.object else { return Err(not_found(&kind, &key)) };
        compare(&kind, &key, &old, object.meta().uid.as_deref(), object.meta().resource_version.as_deref())?;
        let new = people_part(&kind, &json(object)?, Some(&old.record), Some(&old.people));
        let bytes = text_of::<K>(&kind, &key, &new, Some(&old.people))?;
        let paths = Files::of(&self.root, &kind, &key);
        // the file of a Terminating object is gone, and stays so: its last copy is what is in force
        let terminating = old.record.deleted.is_some();
        let target = if terminating { &paths.last } else { &paths.people };
        let mode = if kind.is_secret() { 0o600 } else { 0o644 };
        let held = files::read(target).map_err(|e| io_error(target, &e))?;
        let replaced = held.as_deref() == Some(&bytes)
            || files::replace_held(target, held.as_deref(), &bytes, mode)
                .map_err(|e| io_error(target, &e))?;
        if !replaced {
            return Err(StoreError::Conflict { kind: kind.kind.clone(), name: key.to_string() });
        }
        if terminating {
            // people's and agents' files are as before: what was read of them is not
            self.forget_entry(&kind, &key);
            write_record(&paths, &old.record)?;
        } else {
            write_last(&kind, &paths, &bytes);
        }
        self.answer(&kind, &key, &lock)
    }

    pub(super) fn delete<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        revision: Option<&Revision>,
    ) -> Result<(), StoreError> {
        let kind = Kind::of::<K>();
        kind.check_key(key)?;
        let lock = self.lock(&kind)?;
        let Some(entry) = self.load::<K>(&kind, key, Some(&lock))? else { return Err(not_found(&kind, key)) };
        let paths = Files::of(&self.root, &kind, key);
        match &entry.object {
            Some(old) => compare(&kind, key, old, uid, revision.map(|r| r.0.as_str()))?,
            // a text that was never valid has neither uid nor revision
            None if uid.is_some() || revision.is_some() => return Err(not_found(&kind, key)),
            None => {}
        }
        files::remove(&paths.people).map_err(|e| io_error(&paths.people, &e))?;
        // marks it Terminating where a finalizer holds it, and removes what is left of it where none does
        self.load::<K>(&kind, key, Some(&lock))?;
        Ok(())
    }

    pub(super) fn apply<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        manager: &str,
        part: Part,
        body: Value,
    ) -> Result<K, StoreError> {
        let kind = Kind::of::<K>();
        kind.check_key(key)?;
        let lock = self.lock(&kind)?;
        let found = self.load::<K>(&kind, key, Some(&lock))?.and_then(|entry| entry.object);
        let Some(old) = found else { return Err(not_found(&kind, key)) };
        compare(&kind, key, &old, uid, None)?;
        let schema = kind.schema.and_then(|schema| schema.schema.pointer("/properties/status"));
        let mut record = old.record.clone();
        record.apply(manager, part, body, schema).map_err(|error| StoreError::Invalid(error.to_string()))?;
        if let (Part::Status, Some(schema_of_kind)) = (part, kind.schema) {
            let status = record.status(Value::Object(serde_json::Map::new()), schema);
            schema_of_kind.validate_status(&status).map_err(|faults| {
                let texts: Vec<String> = faults.into_iter().map(|fault| fault.error).collect();
                StoreError::Invalid(texts.join("; "))
            })?;
        }
        if record == old.record {
            return typed(&old.value);
        }
        // what cannot be read back is not written
        typed::<K>(&compose(&kind, key, &old.people, &record, &old.revision))?;
        let paths = Files::of(&self.root, &kind, key);
        if record.deleted.is_some() && record.finalizers().is_empty() {
            remove_remains(&paths)?;
            self.forget_entry(&kind, key);
            let revision = revision(None, None);
            return typed(&compose(&kind, key, &old.people, &record, &revision));
        }
        write_record(&paths, &record)?;
        self.answer(&kind, key, &lock)
    }

    fn answer<K: Object>(&self, kind: &Kind, key: &Key, lock: &files::Lock) -> Result<K, StoreError> {
        let found = self.load::<K>(kind, key, Some(lock))?.and_then(|entry| entry.object);
        found.map_or_else(|| Err(not_found(kind, key)), |object| typed(&object.value))
    }
}

fn compare(
    kind: &Kind,
    key: &Key,
    old: &Loaded,
    uid: Option<&str>,
    revision: Option<&str>,
) -> Result<(), StoreError> {
    let same_uid =
        uid.is_none_or(|uid| old.value.pointer("/metadata/uid").and_then(Value::as_str) == Some(uid));
    if same_uid && revision.is_none_or(|revision| old.revision == revision) {
        return Ok(());
    }
    Err(StoreError::Conflict { kind: kind.kind.clone(), name: key.to_string() })
}

fn json<K: Object>(object: &K) -> Result<Value, StoreError> {
    serde_json::to_value(object).map_err(|error| StoreError::Invalid(error.to_string()))
}

/// The file's text, judged as a reader will judge it.
fn text_of<K: Object>(
    kind: &Kind,
    key: &Key,
    people: &Value,
    old: Option<&Value>,
) -> Result<Vec<u8>, StoreError> {
    let bytes = match serde_saphyr::to_string(people) {
        Ok(yaml) => yaml.into_bytes(),
        Err(error) => return Err(StoreError::Invalid(error.to_string())),
    };
    judge::<K>(kind, key, &bytes, old).map_err(|refused| StoreError::Invalid(refused.error))?;
    Ok(bytes)
}
