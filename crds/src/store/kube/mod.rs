//! The Kubernetes API server as a datastore.
//!
//! One request a call: what a failure means, and whether to try again, is the caller's ([`super::follow`] does it for
//! readers). kube's client carries TLS, the service account's token, read again from its file as it rotates, and JSON.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::kube::config::{KubeConfigOptions, Kubeconfig};
use ::kube::core::Request;
use ::kube::{Client, Config};
use serde::de::DeserializeOwned;

use super::series::Series;
use super::{Key, List, NewEvent, Object, Part, Revision, Selection, Store, StoreError};

mod decode;
mod error;
mod event;
mod exec;
mod install;
mod older;
mod prune;
mod read;
mod watch;
mod write;

pub use install::Created;
pub use prune::prune;
pub use watch::KubeWatch;

/// How long a request may take, a watch apart. An API server that is rolled or overloaded answers later than this only
/// to what is better asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// An API server. Every clone is the same store.
#[derive(Clone)]
pub struct KubeStore {
    client: Client,
    series: Arc<Mutex<Series>>,
    /// Kinds and fields that the server's CRDs do not have, told once.
    left_out: Arc<Mutex<BTreeSet<String>>>,
}

impl std::fmt::Debug for KubeStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeStore").finish_non_exhaustive()
    }
}

impl KubeStore {
    /// The server that the environment names: `KUBECONFIG`, `~/.kube/config`, or the service account of a pod. Nothing
    /// is asked of it yet.
    ///
    /// # Errors
    /// `Unavailable` where neither is there or one cannot be read.
    pub async fn from_environment() -> Result<Self, StoreError> {
        let config = Config::infer().await.map_err(|error| {
            StoreError::Unavailable(format!(
                "no API server is configured: {error}; set KUBECONFIG, or run in a pod with a service account"
            ))
        })?;
        Self::new(config)
    }

    /// The server of a kubeconfig file: of its current context, or of the one that is named.
    ///
    /// # Errors
    /// `Unavailable` where the file or the context cannot be used.
    pub async fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Self, StoreError> {
        let fail = |error: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!("kubeconfig {}: {error}", path.display()))
        };
        let file = Kubeconfig::read_from(path).map_err(|error| fail(&error))?;
        let options =
            KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(file, &options).await.map_err(|error| fail(&error))?;
        Self::new(config)
    }

    /// The server of that configuration.
    ///
    /// # Errors
    /// `Unavailable` where a certificate or key of the configuration cannot be used.
    pub fn new(mut config: Config) -> Result<Self, StoreError> {
        // Reading has its own limits: a watch may be silent for minutes.
        config.read_timeout = None;
        config.connect_timeout = Some(Duration::from_secs(5));
        let client = Client::try_from(config).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { client, series: Arc::default(), left_out: Arc::default() })
    }

    /// Requests about the objects of a kind, in a namespace or in all.
    fn requests<K: Object>(namespace: Option<&str>) -> Request {
        Request::new(K::url_path(&(), namespace))
    }

    /// Sends one request and reads its answer whole.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, ::kube::core::request::Error>,
    ) -> Result<T, error::Failure> {
        let request = request.map_err(error::Failure::building)?;
        match tokio::time::timeout(PATIENCE, self.client.request::<T>(request)).await {
            Ok(answer) => answer.map_err(error::Failure::from),
            Err(_) => Err(error::Failure::Silent(PATIENCE)),
        }
    }
}

impl Store for KubeStore {
    type Watch<K: Object> = KubeWatch<K>;

    async fn list<K: Object>(&self, selection: &Selection) -> Result<List<K>, StoreError> {
        self.list_pages(selection).await
    }

    async fn watch<K: Object>(
        &self,
        selection: &Selection,
        from: &Revision,
    ) -> Result<KubeWatch<K>, StoreError> {
        KubeWatch::begin(self.client.clone(), selection, from).await
    }

    async fn get<K: Object>(&self, key: &Key) -> Result<K, StoreError> {
        self.get_whole(key).await
    }

    async fn create<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        self.post(object).await
    }

    async fn replace<K: Object>(&self, object: &K) -> Result<K, StoreError> {
        self.put(object).await
    }

    async fn delete<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        revision: Option<&Revision>,
    ) -> Result<(), StoreError> {
        self.delete_if::<K>(key, uid, revision).await
    }

    async fn apply<K: Object>(
        &self,
        key: &Key,
        uid: Option<&str>,
        manager: &str,
        part: Part,
        body: serde_json::Value,
    ) -> Result<K, StoreError> {
        self.apply_part(key, uid, manager, part, body).await
    }

    async fn record_event<K: Object>(&self, about: &K, event: NewEvent) -> Result<(), StoreError> {
        self.record(about, &event).await
    }
}
