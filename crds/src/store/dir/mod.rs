//! The directory datastore (api.md §13): one YAML file an object, people's and agents' apart.
//!
//! Reads take no lock: every file is replaced as a whole. Writers of programs hold the kind's lock over compare
//! and write, so two processes are as safe as two tasks; a person's editor knows no lock, and the last of two
//! such writers wins, as in every directory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::store::series::Series;
use crate::store::{Key, List, NewEvent, Object, Part, Revision, Selection, Store, StoreError};

mod compose;
mod events;
mod files;
mod hub;
mod layout;
mod load;
mod record;
mod snapshot;
mod watch;
mod write;

use hub::{Dirty, Hub};
use layout::{Kind, LAST, STATUS};
use load::Cached;
use snapshot::{Memory, Wanted};
pub use watch::DirWatch;

/// A directory of objects. Every clone is the same store.
#[derive(Clone)]
pub struct DirStore {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for DirStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirStore").field("root", &self.inner.root).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    root: PathBuf,
    /// What was read, by folder: the same content is judged once.
    cache: Mutex<BTreeMap<String, BTreeMap<Key, Cached>>>,
    /// Moments to resume from, by folder.
    memory: Mutex<Memory>,
    hub: Mutex<Option<Hub>>,
    series: Mutex<Series>,
    /// Folders that were cleared of what dead processes left.
    swept: Mutex<BTreeSet<String>>,
}

impl DirStore {
    /// Opens the store in a directory that exists.
    ///
    /// # Errors
    /// `Unavailable` where there is no directory, `Forbidden` on a network filesystem.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = root.as_ref();
        let root = std::fs::canonicalize(root).map_err(|e| io_error(root, &e))?;
        if !root.is_dir() {
            return Err(StoreError::Unavailable(format!("{}: not a directory", root.display())));
        }
        if let Some(name) = files::network_filesystem(&root).map_err(|e| io_error(&root, &e))? {
            return Err(StoreError::Forbidden(format!(
                "{} is on {name}: locks and changes of other hosts are not seen there; use a local filesystem",
                root.display()
            )));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                cache: Mutex::default(),
                memory: Mutex::default(),
                hub: Mutex::default(),
                series: Mutex::default(),
                swept: Mutex::default(),
            }),
        })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// What does not validate now: for reports, which do not watch.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn invalid<K: Object>(&self) -> Result<Vec<crate::store::InvalidObject>, StoreError> {
        self.with(|inner| {
            let snapshot = inner.scan::<K>(&Kind::of::<K>())?;
            Ok(snapshot.values().filter_map(|entry| entry.fault.clone()).collect())
        })
        .await
    }

    /// Files, locks and validation block: they run on threads that may.
    async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Unavailable(format!("reading the directory: {error}"))),
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        Self::blocking(move || work(&inner)).await
    }
}

impl Inner {
    fn lock(&self, kind: &Kind) -> Result<files::Lock, StoreError> {
        let path = self.root.join(STATUS).join(&kind.folder).join(".lock");
        let lock = files::Lock::take(&path).map_err(|e| io_error(&path, &e))?;
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.insert(kind.folder.clone()) {
            // temporary files are written under the lock: those that are there were left by the dead
            for base in [self.root.clone(), self.root.join(STATUS), self.root.join(LAST)] {
                files::sweep(&base.join(&kind.folder));
            }
        }
        Ok(lock)
    }

    fn subscribe(&self, folder: &str) -> Result<UnboundedReceiver<Dirty>, StoreError> {
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        let running = match hub.take().filter(Hub::is_alive) {
            Some(running) => running,
            None => Hub::start(&self.root).map_err(|e| io_error(&self.root, &e))?,
        };
        Ok(hub.insert(running).subscribe(folder))
    }
}

impl Store for DirStore {
    type Watch<K: Object> = DirWatch<K>;

    async fn list<K: Object>(&self, selection: &Selection) -> Result<List<K>, StoreError> {
        let kind = Kind::of::<K>();
        let wanted = Wanted::new(&kind, selection)?;
        self.with(move |inner| {
            let snapshot = inner.scan::<K>(&kind)?;
            let items = snapshot
                .iter()
                .filter_map(|(key, entry)| entry.object.as_ref().filter(|object| wanted.holds(key, object)))
                .map(|object| typed(&object.value))
                .collect::<Result<Vec<K>, StoreError>>()?;
            Ok(List { items, revision: inner.remember(&kind, &snapshot) })
        })
        .await
    }

    async fn watch<K: Object>(
        &self,
        selection: &Selection,
        from: &Revision,
    ) -> Result<DirWatch<K>, StoreError> {
        let wanted = Wanted::new(&Kind::of::<K>(), selection)?;
        let from = from.clone();
        self.with(move |inner| DirWatch::begin(inner, wanted, &from)).await
    }

    async fn get<K: Object>(&self, key: &Key) -> Result<K, StoreError> {
        let kind = Kind::of::<K>();
        kind.check_key(key)?;
        let key = key.clone();
        self.with(move |inner| {
            let found = inner.load::<K>(&kind, &key, None)?.and_then(|entry| entry.object);
            found.map_or_else(|| Err(not_found(&kind, &key)), |object| typed(&object.value))
        })
        .await
    }

    async fn create<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        let object = object.clone();
        self.with(move |inner| inner.create(&object)).await
    }

    async fn replace<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        let object = object.clone();
        self.with(move |inner| inner.replace(&object)).await
    }

    async fn delete<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        revision: Option<&Revision>,
    ) -> Result<(), StoreError> {
        let (key, uid, revision) = (key.clone(), uid.map(ToOwned::to_owned), revision.cloned());
        self.with(move |inner| inner.delete::<K>(&key, uid.as_deref(), revision.as_ref())).await
    }

    async fn apply<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        manager: &str,
        part: Part,
        body: Value,
    ) -> Result<K, StoreError> {
        let (key, uid, manager) = (key.clone(), uid.map(ToOwned::to_owned), manager.to_owned());
        self.with(move |inner| inner.apply(&key, uid.as_deref(), &manager, part, body)).await
    }

    async fn record_event<K: Object>(&self, about: &K, event: NewEvent) -> Result<(), StoreError> {
        let about = about.clone();
        self.with(move |inner| inner.record_event(&about, &event)).await
    }
}

fn typed<K: Object>(value: &Value) -> Result<K, StoreError> {
    serde_json::from_value(value.clone()).map_err(|error| StoreError::Invalid(error.to_string()))
}

fn not_found(kind: &Kind, key: &Key) -> StoreError {
    StoreError::NotFound { kind: kind.kind.clone(), name: key.to_string() }
}

fn io_error(path: &Path, error: &io::Error) -> StoreError {
    let text = format!("{}: {error}", path.display());
    let refused = matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
    if refused { StoreError::Forbidden(text) } else { StoreError::Unavailable(text) }
}
