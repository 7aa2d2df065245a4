//! The datastore that was asked for at start: one type, so that daemons are built once.

use std::path::PathBuf;
use std::str::FromStr;

use super::dir::{DirStore, DirWatch};
use super::kube::{KubeStore, KubeWatch};
use super::{Key, List, NewEvent, Object, Part, Revision, Selection, Store, StoreError, Watch, WatchEvent};

/// The word for the API server where a directory could be named.
pub const KUBERNETES: &str = "kubernetes";

/// Which datastore: `kubernetes`, or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Kubernetes,
    Directory(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            KUBERNETES => Ok(Self::Kubernetes),
            "" => Err(format!("expected {KUBERNETES}, or a directory of objects")),
            path => Ok(Self::Directory(PathBuf::from(path))),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kubernetes => f.write_str(KUBERNETES),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

/// Either datastore.
#[derive(Clone, Debug)]
pub enum AnyStore {
    Kubernetes(KubeStore),
    Directory(DirStore),
}

impl AnyStore {
    /// Opens the directory, or prepares to ask the API server that the environment names.
    ///
    /// # Errors
    /// As [`KubeStore::from_environment`] and [`DirStore::open`].
    pub async fn open(place: &Place) -> Result<Self, StoreError> {
        match place {
            Place::Kubernetes => Ok(Self::Kubernetes(KubeStore::from_environment().await?)),
            Place::Directory(path) => Ok(Self::Directory(DirStore::open(path)?)),
        }
    }

    /// The directory, if it is one.
    pub fn directory(&self) -> Option<&DirStore> {
        match self {
            Self::Directory(store) => Some(store),
            Self::Kubernetes(_) => None,
        }
    }
}

/// A watch of either.
#[derive(Debug)]
pub enum AnyWatch<K: Object> {
    Kubernetes(Box<KubeWatch<K>>),
    Directory(Box<DirWatch<K>>),
}

impl<K: Object> Watch<K> for AnyWatch<K> {
    async fn next(&mut self) -> Result<WatchEvent<K>, StoreError> {
        match self {
            Self::Kubernetes(watch) => watch.next().await,
            Self::Directory(watch) => watch.next().await,
        }
    }

    fn revision(&self) -> Revision {
        match self {
            Self::Kubernetes(watch) => watch.revision(),
            Self::Directory(watch) => watch.revision(),
        }
    }
}

impl Store for AnyStore {
    type Watch<K: Object> = AnyWatch<K>;

    async fn list<K: Object>(&self, selection: &Selection) -> Result<List<K>, StoreError> {
        match self {
            Self::Kubernetes(store) => store.list(selection).await,
            Self::Directory(store) => store.list(selection).await,
        }
    }

    async fn watch<K: Object>(
        &self,
        selection: &Selection,
        from: &Revision,
    ) -> Result<AnyWatch<K>, StoreError> {
        Ok(match self {
            Self::Kubernetes(store) => AnyWatch::Kubernetes(Box::new(store.watch(selection, from).await?)),
            Self::Directory(store) => AnyWatch::Directory(Box::new(store.watch(selection, from).await?)),
        })
    }

    async fn get<K: Object>(&self, key: &Key) -> Result<K, StoreError> {
        match self {
            Self::Kubernetes(store) => store.get(key).await,
            Self::Directory(store) => store.get(key).await,
        }
    }

    async fn create<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        match self {
            Self::Kubernetes(store) => store.create(object).await,
            Self::Directory(store) => store.create(object).await,
        }
    }

    async fn replace<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        match self {
            Self::Kubernetes(store) => store.replace(object).await,
            Self::Directory(store) => store.replace(object).await,
        }
    }

    async fn delete<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        revision: Option<&Revision>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Kubernetes(store) => store.delete::<K>(key, uid, revision).await,
            Self::Directory(store) => store.delete::<K>(key, uid, revision).await,
        }
    }

    async fn apply<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        manager: &str,
        part: Part,
        body: serde_json::Value,
    ) -> Result<K, StoreError> {
        match self {
            Self::Kubernetes(store) => store.apply(key, uid, manager, part, body).await,
            Self::Directory(store) => store.apply(key, uid, manager, part, body).await,
        }
    }

    async fn record_event<K: Object>(&self, about: &K, event: NewEvent) -> Result<(), StoreError> {
        match self {
            Self::Kubernetes(store) => store.record_event(about, event).await,
            Self::Directory(store) => store.record_event(about, event).await,
        }
    }
}
