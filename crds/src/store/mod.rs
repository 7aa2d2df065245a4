//! One trait for every datastore: the Kubernetes API server and a directory of YAML files.
//!
//! A backend owes five things, and the conformance suite asks each of them for all five:
//! 1. `create` is the claim: of two writers of one name exactly one succeeds.
//! 2. `replace` and `delete` compare: a revision that is not the object's newest is a conflict.
//! 3. A watch never misses a final state: it may skip intermediate ones, or answer
//!    [`StoreError::Expired`], after which the caller lists again.
//! 4. What does not validate is never delivered; the last good version stays in force.
//! 5. `apply` touches the manager's own fields only, and with a uid no other object of the name.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::future::Future;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub mod any;
pub mod dir;
pub mod follow;
pub mod kube;
mod series;

/// A kind that a store can hold: ours, or one of the upstream kinds that we read.
pub trait Object:
    ::kube::Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: ::kube::Resource<DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// What names an object among its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Absent for cluster-scoped kinds.
    pub namespace: Option<String>,
    pub name: String,
}

impl Key {
    /// Of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { namespace: None, name: name.into() }
    }

    /// Of an object in a namespace.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), name: name.into() }
    }
}

/// `shop/web-1`, or the name alone.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// An opaque point in a store's history, as `metadata.resourceVersion` spells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub String);

/// Which objects of a kind are wanted. The default is all of them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub namespace: Option<String>,
    /// Equality on selectable fields, such as `spec.nodeName`.
    pub fields: BTreeMap<String, String>,
    pub labels: Option<LabelSelector>,
}

/// The objects of one moment.
#[derive(Clone, Debug)]
pub struct List<K> {
    pub items: Vec<K>,
    /// Where a watch goes on.
    pub revision: Revision,
}

/// One step of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent<K> {
    /// The object's newest state, new or changed.
    Put(K),
    /// The object is gone; its last state.
    Deleted(K),
    /// A stored form does not validate (directory only); the last good version stays in force.
    Invalid(InvalidObject),
    /// It validates again, or was removed.
    Valid(Key),
}

/// A stored form that was refused: who, where, why, what to do (ux.md §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvalidObject {
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
    /// `/etc/manx/objects/ippools.manx.dev/default-ipv4.yaml:4:9`
    pub place: String,
    /// The line itself, where it can be shown.
    pub line: Option<String>,
    pub error: String,
    pub expected: Option<String>,
    /// True: an older version is in force. False: the object does not exist yet.
    pub last_good: bool,
}

/// What a field manager owns of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Status,
    Labels,
    Finalizers,
}

/// An Event to record (`events.k8s.io/v1`).
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub warning: bool,
    /// CamelCase, from api.md §10.
    pub reason: String,
    /// What was being done: `Reconcile`, `Assign`.
    pub action: String,
    pub note: String,
    /// `manx-bgpd`, `manx-felix`, `manx-controller`
    pub controller: String,
    pub instance: String,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{kind} {name} exists already")]
    AlreadyExists { kind: String, name: String },
    #[error("{kind} {name} is not there")]
    NotFound { kind: String, name: String },
    #[error("{kind} {name} was changed by somebody else")]
    Conflict { kind: String, name: String },
    /// The history that was asked for is gone: list again.
    #[error("the history of {kind} before this is gone")]
    Expired { kind: String },
    /// Refused by schema or CEL; the text is the API server's.
    #[error("{0}")]
    Invalid(String),
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// Nobody knows whether the write took place: read before writing again.
    #[error("no answer: {0}")]
    Unavailable(String),
}

/// A running watch. Dropping it ends it.
pub trait Watch<K>: Send {
    /// Waits for the next change. An error ends the watch: `Expired` → list again, others → back off, resume.
    fn next(&mut self) -> impl Future<Output = Result<WatchEvent<K>, StoreError>> + Send;
    /// Where to resume: everything before it was delivered.
    fn revision(&self) -> Revision;
}

/// A datastore. Cheap to clone; every clone is the same store.
pub trait Store: Clone + Send + Sync + 'static {
    type Watch<K: Object>: Watch<K>;

    fn list<K: Object>(
        &self,
        selection: &Selection,
    ) -> impl Future<Output = Result<List<K>, StoreError>> + Send;
    /// Everything that happened after `from`.
    fn watch<K: Object>(
        &self,
        selection: &Selection,
        from: &Revision,
    ) -> impl Future<Output = Result<Self::Watch<K>, StoreError>> + Send;
    fn get<K: Object>(&self, key: &Key) -> impl Future<Output = Result<K, StoreError>> + Send;
    /// `AlreadyExists` if the name is taken.
    fn create<K: Object>(&self, object: &K) -> impl Future<Output = Result<K, StoreError>> + Send;
    /// Replaces spec and metadata, if `metadata.resourceVersion` is still the newest.
    fn replace<K: Object>(&self, object: &K) -> impl Future<Output = Result<K, StoreError>> + Send;
    /// Deletes the object that has this uid and revision, if given.
    fn delete<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        revision: Option<&Revision>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Server-side apply by `manager`, with force: `body` is the manager's whole wish for this part
    /// (`{"conditions": […]}` for Status, `{"rack": "12"}` for Labels, `["manx.dev/ipam"]` for Finalizers).
    /// With `uid` it is meant for that object alone: another of its name is a conflict.
    fn apply<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        manager: &str,
        part: Part,
        body: serde_json::Value,
    ) -> impl Future<Output = Result<K, StoreError>> + Send;
    fn record_event<K: Object>(
        &self,
        about: &K,
        event: NewEvent,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
