//! A watch that outlives its connections.
//!
//! ```text
//!            ┌───────────── ended by the server, as every few minutes ◄────────────┐
//!            ▼                                                                     │
//!     ┌────────────┐ opened ┌─────────┐ event, bookmark: revision moves ┌──────────┴─┐
//!     │ connecting ├───────►│ reading ├────────────────────────────────►│  reading   │
//!     └────────────┘        └────┬────┘                                 └────────────┘
//!                                └── 410, silence, broken: an error, `revision()` says where to resume
//! ```

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use ::kube::Client;
use ::kube::core::WatchEvent as Wire;
use ::kube::core::params::WatchParams;
use futures::{Stream, StreamExt as _};

use super::super::{Key, Object, Revision, Selection, StoreError, Watch, WatchEvent};
use super::KubeStore;
use super::decode::{Decoded, unreadable};
use super::error::{Failure, watch_ended};
use super::read::selectors;
use crate::store::follow::key_of;

/// The server ends the watch after this; the next goes on where it was.
const LENGTH: Duration = Duration::from_secs(240);
/// Bookmarks come about once a minute. Silence for longer is a connection that nobody told us is dead.
const SILENCE: Duration = Duration::from_secs(150);
const OPENING: Duration = Duration::from_secs(30);

type Events<K> = Pin<Box<dyn Stream<Item = Result<Wire<Decoded<K>>, ::kube::Error>> + Send>>;

/// A running watch of one kind.
pub struct KubeWatch<K: Object> {
    client: Client,
    namespace: Option<String>,
    params: WatchParams,
    revision: Revision,
    events: Option<Events<K>>,
    /// What was told to be unreadable.
    unreadable: BTreeSet<Key>,
}

impl<K: Object> std::fmt::Debug for KubeWatch<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeWatch").field("kind", &K::kind(&())).field("revision", &self.revision).finish()
    }
}

impl<K: Object> KubeWatch<K> {
    pub(super) async fn begin(
        client: Client,
        selection: &Selection,
        from: &Revision,
    ) -> Result<Self, StoreError> {
        // Another store's moment, or none at all.
        if from.0.parse::<u64>().is_err() {
            return Err(StoreError::Expired { kind: K::kind(&()).into_owned() });
        }
        let (label_selector, field_selector) = selectors(selection)?;
        let params = WatchParams {
            label_selector,
            field_selector,
            timeout: u32::try_from(LENGTH.as_secs()).ok(),
            bookmarks: true,
            send_initial_events: false,
        };
        let mut watch = Self {
            client,
            namespace: selection.namespace.clone(),
            params,
            revision: from.clone(),
            events: None,
            unreadable: BTreeSet::new(),
        };
        watch.open().await?;
        Ok(watch)
    }

    async fn open(&mut self) -> Result<(), StoreError> {
        let requests = KubeStore::requests::<K>(self.namespace.as_deref());
        let request = requests
            .watch(&self.params, &self.revision.0)
            .map_err(|error| Failure::building(error).of_kind::<K>())?;
        let opening = self.client.request_events::<Decoded<K>>(request);
        let events = tokio::time::timeout(OPENING, opening)
            .await
            .map_err(|_| Failure::Silent(OPENING).of_kind::<K>())?
            .map_err(|error| Failure::from(error).of_kind::<K>())?;
        self.events = Some(events.boxed());
        Ok(())
    }

    /// The next event that is news; `None`: the connection came to its end in order.
    async fn read(&mut self) -> Result<Option<Wire<Decoded<K>>>, StoreError> {
        let Some(events) = &mut self.events else { return Ok(None) };
        match tokio::time::timeout(SILENCE, events.next()).await {
            Err(_) => Err(Failure::Silent(SILENCE).of_kind::<K>()),
            Ok(None) => Ok(None),
            Ok(Some(Ok(event))) => Ok(Some(event)),
            Ok(Some(Err(error))) => Err(Failure::from(error).of_kind::<K>()),
        }
    }

    /// What an event means; `None`: nothing to tell.
    fn take(&mut self, event: Wire<Decoded<K>>) -> Result<Option<WatchEvent<K>>, StoreError> {
        match event {
            Wire::Added(object) | Wire::Modified(object) => Ok(Some(self.put(object))),
            Wire::Deleted(Decoded::Object(object)) => {
                self.reached(&object);
                self.unreadable.remove(&key_of(&object));
                Ok(Some(WatchEvent::Deleted(object)))
            }
            Wire::Deleted(Decoded::Unreadable { key, .. }) => {
                let told = self.unreadable.remove(&key);
                Ok(told.then_some(WatchEvent::Valid(key)))
            }
            Wire::Bookmark(mark) => {
                self.revision = Revision(mark.metadata.resource_version);
                Ok(None)
            }
            Wire::Error(status) => Err(watch_ended::<K>(&status)),
        }
    }

    fn put(&mut self, object: Decoded<K>) -> WatchEvent<K> {
        match object {
            Decoded::Object(object) => {
                self.reached(&object);
                self.unreadable.remove(&key_of(&object));
                WatchEvent::Put(object)
            }
            Decoded::Unreadable { key, error } => {
                let what = unreadable::<K>(&key, &error, true);
                self.unreadable.insert(key);
                WatchEvent::Invalid(what)
            }
        }
    }

    fn reached(&mut self, object: &K) {
        if let Some(version) = &object.meta().resource_version {
            self.revision = Revision(version.clone());
        }
    }
}

impl<K: Object> Watch<K> for KubeWatch<K> {
    async fn next(&mut self) -> Result<WatchEvent<K>, StoreError> {
        loop {
            match self.read().await? {
                Some(event) => {
                    if let Some(news) = self.take(event)? {
                        return Ok(news);
                    }
                }
                None => {
                    self.events = None;
                    self.open().await?;
                }
            }
        }
    }

    fn revision(&self) -> Revision {
        self.revision.clone()
    }
}
