//! Writes: create, compare-and-swap, server-side apply.

use ::kube::ResourceExt as _;
use ::kube::core::params::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions};
use ::kube::core::{PartialObjectMeta, Request};
use serde_json::{Value, json};

use super::super::{Key, Object, Part, Revision, StoreError};
use super::KubeStore;
use crate::store::follow::key_of;

/// How often a write that compares is tried against others that write the same object.
const TRIES: u32 = 5;

impl KubeStore {
    pub(super) async fn post<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        let key = key_of(object);
        let requests = Self::requests::<K>(key.namespace.as_deref());
        let request = requests.create(&PostParams::default(), bytes(object)?);
        self.ask(request).await.map_err(|error| error.of_object::<K>(&key))
    }

    /// The server ignores the status of what is put to a kind with a status subresource.
    pub(super) async fn put<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        let key = key_of(object);
        let requests = Self::requests::<K>(key.namespace.as_deref());
        let request = requests.replace(&key.name, &PostParams::default(), bytes(object)?);
        self.ask(request).await.map_err(|error| error.of_object::<K>(&key))
    }

    pub(super) async fn delete_if<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        revision: Option<&Revision>,
    ) -> Result<(), StoreError> {
        let preconditions = (uid.is_some() || revision.is_some()).then(|| Preconditions {
            uid: uid.map(str::to_owned),
            resource_version: revision.map(|revision| revision.0.clone()),
        });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        let requests = Self::requests::<K>(key.namespace.as_deref());
        // The answer is a Status, or the object where a finalizer holds it.
        let answer = self.ask::<Value>(requests.delete(&key.name, &params)).await;
        answer.map(|_| ()).map_err(|error| error.of_object::<K>(key))
    }

    pub(super) async fn apply_part<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        manager: &str,
        part: Part,
        body: Value,
    ) -> Result<K, StoreError> {
        let requests = Self::requests::<K>(key.namespace.as_deref());
        let head = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&())});
        let of = |metadata: Value| with(head.clone(), "metadata", metadata);
        let request = match part {
            Part::Status => {
                if let Some(uid) = uid {
                    return self.apply_status_to(key, uid, manager, &with(head, "status", body)).await;
                }
                let patch = with(of(json!({"name": key.name})), "status", body);
                return self.apply_status(key, manager, patch).await;
            }
            Part::Labels => {
                let uid = self.identity_of::<K>(key, uid).await?.uid();
                let patch = of(json!({"name": key.name, "uid": uid, "labels": body}));
                requests.patch(&key.name, &forced(manager), &Patch::Apply(&patch))
            }
            Part::Finalizers => {
                let uid = self.identity_of::<K>(key, uid).await?.uid();
                let patch = of(json!({"name": key.name, "uid": uid, "finalizers": body}));
                // A wish for labels and one for finalizers by one manager would take each other back.
                let manager = format!("{manager}-finalizers");
                requests.patch(&key.name, &forced(&manager), &Patch::Apply(&patch))
            }
        };
        self.ask(request).await.map_err(|error| error.of_object::<K>(key))
    }

    async fn apply_status<K: Object>(&self, key: &Key, manager: &str, patch: Value) -> Result<K, StoreError> {
        let requests = Self::requests::<K>(key.namespace.as_deref());
        let build = |requests: &Request, patch: &Value| {
            requests.patch_subresource("status", &key.name, &forced(manager), &Patch::Apply(patch))
        };
        let answer = self.ask_for_what_is_known(build, &requests, patch).await;
        answer.map_err(|error| error.of_object::<K>(key))
    }

    /// The status of one object. In a patch of a status the server overlooks the uid, but not the revision, which is of
    /// that object alone; another may write between the two requests, and then both are made again.
    async fn apply_status_to<K: Object>(
        &self,
        key: &Key,
        uid: &str,
        manager: &str,
        patch: &Value,
    ) -> Result<K, StoreError> {
        let mut tries = 0;
        loop {
            let revision = self.identity_of::<K>(key, Some(uid)).await?.resource_version();
            let metadata = json!({"name": key.name, "resourceVersion": revision});
            let patch = with(patch.clone(), "metadata", metadata);
            tries += 1;
            match self.apply_status(key, manager, patch).await {
                Err(StoreError::Conflict { .. }) if tries < TRIES => {}
                outcome => return outcome,
            }
        }
    }

    /// Who has the name now: the object that is wanted, or it is a conflict. Applied to nothing, a patch without uid would
    /// create an object of labels alone, and one with a uid needs the right to create before it is told that nothing is
    /// there.
    async fn identity_of<K: Object>(
        &self,
        key: &Key,
        wanted: Option<&str>,
    ) -> Result<PartialObjectMeta<K>, StoreError> {
        let requests = Self::requests::<K>(key.namespace.as_deref());
        let request = requests.get_metadata(&key.name, &GetParams::default());
        let found: PartialObjectMeta<K> =
            self.ask(request).await.map_err(|error| error.of_object::<K>(key))?;
        match found.uid() {
            Some(uid) if wanted.is_some_and(|wanted| wanted != uid) => {
                Err(StoreError::Conflict { kind: K::kind(&()).into_owned(), name: key.to_string() })
            }
            Some(_) => Ok(found),
            None => Err(StoreError::Unavailable(format!("{} has no uid", key.name))),
        }
    }
}

fn forced(manager: &str) -> PatchParams {
    PatchParams::apply(manager).force()
}

fn with(mut object: Value, field: &str, value: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.insert(field.to_owned(), value);
    }
    object
}

fn bytes<K: Object>(object: &K) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(object).map_err(|error| StoreError::Invalid(error.to_string()))
}
