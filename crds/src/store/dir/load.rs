//! Reading one object: judge the text, fall back to the last that validated, add what agents say.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::compose::{compose, hex, revision};
use super::files::{self, Lock};
use super::layout::{Files, Kind};
use super::record::Record;
use super::{Inner, io_error};
use crate::store::{InvalidObject, Key, Object, StoreError};
use crate::validate::{Document, Fault, Place, upstream};

/// An object as readers see it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) value: Value,
    pub(super) revision: String,
    /// People's part, validated, with defaults: what a change is compared with.
    pub(super) people: Value,
    pub(super) record: Record,
}

/// What a key holds: an object, or something that does not validate, or both (the last good version).
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) object: Option<Arc<Loaded>>,
    pub(super) fault: Option<InvalidObject>,
}

/// An entry, and the content it was made of.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    content: String,
    entry: Entry,
}

/// What is wrong with a text, with its place.
#[derive(Debug)]
pub(super) struct Refused {
    place: Option<Place>,
    pub(super) error: String,
    expected: Option<String>,
}

impl Inner {
    /// Reads what a key holds; none if nothing. `lock` says that the caller holds the kind's lock.
    pub(super) fn load<K: Object>(
        &self,
        kind: &Kind,
        key: &Key,
        lock: Option<&Lock>,
    ) -> Result<Option<Entry>, StoreError> {
        let paths = Files::of(&self.root, kind, key);
        let people = files::read(&paths.people).map_err(|e| io_error(&paths.people, &e))?;
        let agents = files::read(&paths.agents).map_err(|e| io_error(&paths.agents, &e))?;
        let mode = if kind.is_secret() { file_mode(&paths.people) } else { 0 };
        // of a Terminating object the last copy is what is in force
        let copy = if people.is_none() && agents.is_some() { read_last(&paths)? } else { None };
        let content = format!(
            "{}.{}.{mode:o}",
            revision(people.as_deref(), agents.as_deref()),
            revision(copy.as_deref(), None)
        );
        if let Some(entry) = self.cached(kind, key, &content) {
            return Ok(Some(entry));
        }
        let record = agents.as_deref().and_then(|bytes| self.read_record(&paths.agents, bytes));
        let entry = match &people {
            Some(bytes) => self.load_present::<K>(kind, key, &paths, bytes, record, lock)?,
            None if agents.is_none() => None,
            None => self.load_removed::<K>(kind, key, &paths, record, lock)?,
        };
        // a first sight wrote the record: what is cached must be what is on disk now
        let now = files::read(&paths.agents).map_err(|e| io_error(&paths.agents, &e))?;
        if now == agents {
            self.remember_entry(kind, key, content, entry.as_ref());
        } else {
            self.forget_entry(kind, key);
        }
        Ok(entry)
    }

    fn read_record(&self, path: &Path, bytes: &[u8]) -> Option<Record> {
        serde_json::from_slice(bytes)
            .inspect_err(|error| tracing::error!(file = %path.display(), %error, "the agents' part is unreadable; it is made anew"))
            .ok()
    }

    fn load_present<K: Object>(
        &self,
        kind: &Kind,
        key: &Key,
        paths: &Files,
        bytes: &[u8],
        record: Option<Record>,
        lock: Option<&Lock>,
    ) -> Result<Option<Entry>, StoreError> {
        // without a record the object is new: what an earlier one of its name was does not bind it
        let last = match &record {
            Some(_) => read_last(paths)?,
            None => None,
        };
        let older = last.as_deref().filter(|last| *last != bytes);
        let good = older.and_then(|text| judge::<K>(kind, key, text, None).ok());
        let verdict =
            secret_mode(kind, &paths.people).and_then(|()| judge::<K>(kind, key, bytes, good.as_ref()));
        match verdict {
            Ok(people) => {
                let record = match record {
                    Some(record) if record.deleted.is_none() => record,
                    found => match self.first_sight(kind, paths, found, lock)? {
                        Some(record) => record,
                        None => return Ok(None),
                    },
                };
                if last.as_deref() != Some(bytes) {
                    self.keep_last(kind, paths, bytes, lock);
                }
                let object = loaded::<K>(kind, key, people, record, Some(bytes));
                Ok(Some(Entry { object: Some(object), fault: None }))
            }
            Err(refused) => {
                let object = good
                    .zip(record)
                    .map(|(people, record)| loaded::<K>(kind, key, people, record, last.as_deref()));
                let fault = Some(invalid(kind, key, &paths.people, bytes, refused, object.is_some()));
                Ok(Some(Entry { object, fault }))
            }
        }
    }

    /// Gives an object its uid, or ends the Terminating of one whose file is back. None if the file is gone by now.
    fn first_sight(
        &self,
        kind: &Kind,
        paths: &Files,
        found: Option<Record>,
        lock: Option<&Lock>,
    ) -> Result<Option<Record>, StoreError> {
        let _held = match lock {
            Some(_) => None,
            None => match self.lock(kind) {
                Ok(lock) => Some(lock),
                // a reader without the right to write still reads
                Err(StoreError::Forbidden(_)) => {
                    return Ok(Some(found.unwrap_or_else(|| new_record(path_uid(&paths.people)))));
                }
                Err(error) => return Err(error),
            },
        };
        if files::read(&paths.people).map_err(|e| io_error(&paths.people, &e))?.is_none() {
            return Ok(None);
        }
        let now = files::read(&paths.agents).map_err(|e| io_error(&paths.agents, &e))?;
        let mut record = match now.as_deref().and_then(|bytes| self.read_record(&paths.agents, bytes)) {
            Some(record) if record.deleted.is_none() => return Ok(Some(record)),
            Some(record) => record,
            None => new_record(random_uid().map_err(|e| io_error(&paths.agents, &e))?),
        };
        record.deleted = None;
        write_record(paths, &record)?;
        Ok(Some(record))
    }

    /// An object whose file was removed: a finalizer keeps it, Terminating; else its remains go.
    fn load_removed<K: Object>(
        &self,
        kind: &Kind,
        key: &Key,
        paths: &Files,
        record: Option<Record>,
        lock: Option<&Lock>,
    ) -> Result<Option<Entry>, StoreError> {
        let last = read_last(paths)?;
        let people = last.as_deref().and_then(|bytes| judge::<K>(kind, key, bytes, None).ok());
        if let (Some(record), Some(people)) = (&record, people)
            && !record.finalizers().is_empty()
        {
            let record = if record.deleted.is_some() {
                record.clone()
            } else {
                let marked = Record { deleted: Some(now()), ..record.clone() };
                match self.mark_deleted(kind, paths, lock)? {
                    Some(written) => written,
                    None => marked,
                }
            };
            let object = Some(loaded::<K>(kind, key, people, record, last.as_deref()));
            return Ok(Some(Entry { object, fault: None }));
        }
        let _held = match lock {
            Some(_) => None,
            None => match self.lock(kind) {
                Ok(lock) => Some(lock),
                Err(StoreError::Forbidden(_)) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let unchanged = files::read(&paths.agents)
            .map_err(|e| io_error(&paths.agents, &e))?
            .as_deref()
            .and_then(|bytes| self.read_record(&paths.agents, bytes))
            == record;
        if unchanged && files::read(&paths.people).map_err(|e| io_error(&paths.people, &e))?.is_none() {
            remove_remains(paths)?;
        }
        Ok(None)
    }

    fn mark_deleted(
        &self,
        kind: &Kind,
        paths: &Files,
        lock: Option<&Lock>,
    ) -> Result<Option<Record>, StoreError> {
        let _held = match lock {
            Some(_) => None,
            None => match self.lock(kind) {
                Ok(lock) => Some(lock),
                Err(StoreError::Forbidden(_)) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let bytes = files::read(&paths.agents).map_err(|e| io_error(&paths.agents, &e))?;
        let Some(mut record) = bytes.as_deref().and_then(|bytes| self.read_record(&paths.agents, bytes))
        else {
            return Ok(None);
        };
        let restored = files::read(&paths.people).map_err(|e| io_error(&paths.people, &e))?.is_some();
        if record.deleted.is_none() && !restored {
            record.deleted = Some(now());
            write_record(paths, &record)?;
        }
        Ok(Some(record))
    }

    /// Keeps the text that validated, unless the file holds another by now: an older one must not be kept last.
    fn keep_last(&self, kind: &Kind, paths: &Files, bytes: &[u8], lock: Option<&Lock>) {
        let held = match lock {
            Some(_) => None,
            None => match self.lock(kind) {
                Ok(lock) => Some(lock),
                Err(error) => {
                    tracing::debug!(%error, "the last good version is not kept");
                    return;
                }
            },
        };
        if files::read(&paths.people).is_ok_and(|now| now.as_deref() == Some(bytes)) {
            write_last(kind, paths, bytes);
        }
        drop(held);
    }

    fn cached(&self, kind: &Kind, key: &Key, content: &str) -> Option<Entry> {
        let cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let cached = cache.get(&kind.folder)?.get(key)?;
        (cached.content == content).then(|| cached.entry.clone())
    }

    fn remember_entry(&self, kind: &Kind, key: &Key, content: String, entry: Option<&Entry>) {
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = cache.entry(kind.folder.clone()).or_default();
        match entry {
            Some(entry) => kept.insert(key.clone(), Cached { content, entry: entry.clone() }),
            None => kept.remove(key),
        };
    }

    pub(super) fn forget_entry(&self, kind: &Kind, key: &Key) {
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(kept) = cache.get_mut(&kind.folder) {
            kept.remove(key);
        }
    }
}

fn loaded<K: Object>(
    kind: &Kind,
    key: &Key,
    people: Value,
    mut record: Record,
    bytes: Option<&[u8]>,
) -> Arc<Loaded> {
    let revision = revision(bytes, Some(&record_bytes(&record)));
    let mut value = compose(kind, key, &people, &record, &revision);
    if let Err(error) = K::deserialize(&value) {
        // written by hand, for agents write nothing that cannot be read
        tracing::error!(kind = kind.kind, object = key.name, %error, "what agents said of it is unreadable, and ignored");
        record.managers.values_mut().for_each(|managed| managed.status = Value::Null);
        value = compose(kind, key, &people, &record, &revision);
    }
    Arc::new(Loaded { value, revision, people, record })
}

/// The record as it stands on disk: sorted, so that equal records are equal bytes.
pub(super) fn record_bytes(record: &Record) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

pub(super) fn write_record(paths: &Files, record: &Record) -> Result<(), StoreError> {
    files::replace(&paths.agents, &record_bytes(record), 0o644).map_err(|e| io_error(&paths.agents, &e))
}

pub(super) fn remove_remains(paths: &Files) -> Result<(), StoreError> {
    // the record last: as long as it is there, the rest is found again
    files::remove(&paths.last).map_err(|e| io_error(&paths.last, &e))?;
    files::remove(&paths.agents).map_err(|e| io_error(&paths.agents, &e))
}

/// The last good copy, for whoever may read it.
fn read_last(paths: &Files) -> Result<Option<Vec<u8>>, StoreError> {
    match files::read(&paths.last) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(None),
        read => read.map_err(|e| io_error(&paths.last, &e)),
    }
}

/// Keeps a text that validated, under the kind's lock. Not synced: the file itself is, and after a crash that
/// tears the copy, the file that validates is copied again.
pub(super) fn write_last(kind: &Kind, paths: &Files, bytes: &[u8]) {
    let mode = if kind.is_secret() { 0o600 } else { 0o644 };
    if let Err(error) = files::replace_unsynced(&paths.last, bytes, mode) {
        tracing::debug!(file = %paths.last.display(), %error, "the last good version is not kept");
    }
}

pub(super) fn now() -> Time {
    // as in a cluster: whole seconds
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

pub(super) fn new_record(uid: String) -> Record {
    Record { uid, created: now(), deleted: None, managers: Default::default() }
}

pub(super) fn random_uid() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// For readers that cannot write: the same for the same file.
fn path_uid(path: &Path) -> String {
    format!("path-{}", hex(&Sha256::digest(path.as_os_str().as_encoded_bytes()), 8))
}

fn file_mode(path: &Path) -> u32 {
    std::fs::metadata(path).map(|meta| meta.permissions().mode() & 0o7777).unwrap_or(0)
}

fn secret_mode(kind: &Kind, path: &Path) -> Result<(), Refused> {
    let mode = if kind.is_secret() { file_mode(path) } else { 0 };
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Refused {
        place: None,
        error: format!("mode {mode:04o}: others could read this Secret"),
        expected: Some("mode 0600".to_owned()),
    })
}

/// Whether a text is a valid object of this name; `old` is what it replaces.
pub(super) fn judge<K: Object>(
    kind: &Kind,
    key: &Key,
    bytes: &[u8],
    old: Option<&Value>,
) -> Result<Value, Refused> {
    let plain =
        |error: String, expected: &str| Refused { place: None, error, expected: Some(expected.to_owned()) };
    if key.namespace.is_some() != kind.namespaced {
        let folder = &kind.folder;
        let place = if kind.namespaced { format!("{folder}/NAMESPACE/") } else { format!("{folder}/") };
        return Err(plain(format!("{} stands in the wrong directory", kind.kind), &place));
    }
    let text =
        std::str::from_utf8(bytes).map_err(|error| plain(format!("not UTF-8: {error}"), "YAML in UTF-8"))?;
    let document = Document::parse(text).map_err(|error| Refused {
        place: error.place,
        error: format!("not YAML: {}", error.message),
        expected: Some("one object in YAML".to_owned()),
    })?;
    let mut value = document.to_value();
    let refuse = |faults: Vec<Fault>| refused(kind, key, &document, faults);
    identify(kind, key, &mut value).map_err(refuse)?;
    let value = match kind.schema {
        Some(schema) => schema.validate(&value, old).map_err(refuse)?,
        None => {
            upstream::check::<K>(text, &document, &value, kind.is_policy()).map_err(refuse)?;
            if kind.is_secret() {
                fold_string_data(&mut value);
            }
            value
        }
    };
    match serde_json::from_value::<K>(value.clone()) {
        Ok(_) => Ok(value),
        Err(error) => Err(plain(error.to_string(), "an object of this kind")),
    }
}

/// As the API server: `stringData` is for writing, and readers find it in `data`, where it wins.
fn fold_string_data(value: &mut Value) {
    let Some(secret) = value.as_object_mut() else { return };
    let Some(Value::Object(texts)) = secret.remove("stringData") else { return };
    let data = secret.entry("data").or_insert_with(|| json!({}));
    if data.is_null() {
        *data = json!({});
    }
    let Some(data) = data.as_object_mut() else { return };
    for (key, text) in texts {
        if let Value::String(text) = text {
            data.insert(key, json!(ByteString(text.into_bytes())));
        }
    }
}

/// The file's name is the object's.
fn identify(kind: &Kind, key: &Key, value: &mut Value) -> Result<(), Vec<Fault>> {
    let mut faults = Vec::new();
    if !value.is_object() {
        let mut fault = Fault::at("kind", "Required value".to_owned());
        fault.expected = Some(format!("an object of kind {}", kind.kind));
        return Err(vec![fault]);
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(namespace) = &key.namespace
    {
        metadata.entry("namespace").or_insert_with(|| json!(namespace));
    }
    for (pointer, path, wanted) in [
        ("/apiVersion", "apiVersion", Some(&kind.api_version)),
        ("/kind", "kind", Some(&kind.kind)),
        ("/metadata/name", "metadata.name", Some(&key.name)),
        ("/metadata/namespace", "metadata.namespace", key.namespace.as_ref()),
    ] {
        let found = value.pointer(pointer);
        if found.and_then(Value::as_str) == wanted.map(String::as_str)
            && (found.is_some() == wanted.is_some())
        {
            continue;
        }
        let mut fault = match (found, wanted) {
            (Some(found), Some(wanted)) => Fault::at(
                path,
                format!("Invalid value: {found}: must be {wanted:?}, as the file's place says"),
            ),
            (Some(_), None) => Fault::at(path, "Forbidden: this kind has no namespace".to_owned()),
            (None, _) => Fault::at(path, "Required value".to_owned()),
        };
        fault.expected = wanted.cloned();
        faults.push(fault);
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn refused(kind: &Kind, key: &Key, document: &Document, faults: Vec<Fault>) -> Refused {
    let mut placed: Vec<(Option<Place>, Fault)> = faults
        .into_iter()
        .map(|fault| {
            let place =
                if fault.at_key { document.place_of_key(&fault.path) } else { document.place(&fault.path) };
            (place, fault)
        })
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    let texts: Vec<String> = placed
        .iter()
        .map(|(_, fault)| {
            if fault.at_key {
                format!("{} of {} {}", fault.error, kind.kind, key.name)
            } else {
                fault.error.clone()
            }
        })
        .collect();
    let first = placed.into_iter().next();
    Refused {
        place: first.as_ref().and_then(|(place, _)| *place),
        error: texts.join("; "),
        expected: first.and_then(|(_, fault)| fault.expected),
    }
}

/// An error up to where it begins to quote.
fn without_values(error: &str) -> String {
    match error.split_once(['"', '`', '\'']) {
        Some((before, _)) => {
            format!("{}: a value does not belong there", before.trim_end_matches([' ', ':']))
        }
        None => error.to_owned(),
    }
}

fn invalid(
    kind: &Kind,
    key: &Key,
    path: &Path,
    bytes: &[u8],
    refused: Refused,
    last_good: bool,
) -> InvalidObject {
    let file = path.display();
    // What stands in a Secret is shown to nobody: neither its line, nor a value that an error quotes.
    let shown = refused.place.filter(|_| !kind.is_secret());
    let line = shown.and_then(|place| {
        let index = usize::try_from(place.line).ok()?.checked_sub(1)?;
        String::from_utf8_lossy(bytes).lines().nth(index).map(|line| line.trim_end().to_owned())
    });
    let error = if kind.is_secret() { without_values(&refused.error) } else { refused.error };
    InvalidObject {
        kind: kind.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        place: match refused.place {
            Some(place) => format!("{file}:{}:{}", place.line, place.column),
            None => file.to_string(),
        },
        line,
        error,
        expected: refused.expected,
        last_good,
    }
}
