//! One kind, followed for ever: a list, then a watch from there, then again after each gap.
//!
//! ```text
//!            ┌──────────── Expired, or any error of the list: back off ◄─────────┐
//!            ▼                                                                   │
//!   ┌─────────────┐  Put*, Deleted*, InSync  ┌─────────────┐  error: back off  ┌─┴────────┐
//!   │   listing   ├─────────────────────────►│  watching   ├──────────────────►│ resuming │
//!   └─────────────┘                          └─────▲───────┘                   └─┬────────┘
//!                                                  └──────── Resumed ────────────┘
//! ```
//! What vanished during a gap is delivered as `Deleted`, what was replaced by another object of the same name
//! as `Deleted`, then `Put`: whoever applies the changes in order holds the store's state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ::kube::ResourceExt as _;

use super::{InvalidObject, Key, List, Object, Revision, Selection, Store, StoreError, Watch, WatchEvent};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// One step of what a kind is.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// New or changed.
    Put(K),
    /// Gone; its last state.
    Deleted(K),
    /// All that a list held was delivered; comes once for each list.
    InSync,
    /// A stored form does not validate; the last good version stays in force.
    Invalid(InvalidObject),
    /// It validates again, or was removed.
    Valid(Key),
}

/// Where an object stands: its key.
pub fn key_of<K: Object>(object: &K) -> Key {
    Key { namespace: object.namespace(), name: object.name_any() }
}

/// A kind, followed. Never ends and never fails: errors are logged, and retried with growing delays.
#[derive(Debug)]
pub struct Follow<S: Store, K: Object> {
    store: S,
    selection: Selection,
    known: BTreeMap<Key, K>,
    invalid: BTreeSet<Key>,
    queue: VecDeque<Change<K>>,
    watch: Option<S::Watch<K>>,
    resume: Option<Revision>,
    delay: Option<Duration>,
}

/// Follows the objects of a kind that a selection wants.
pub fn follow<S: Store, K: Object>(store: &S, selection: Selection) -> Follow<S, K> {
    Follow::new(store.clone(), selection)
}

impl<S: Store, K: Object> Follow<S, K> {
    pub fn new(store: S, selection: Selection) -> Self {
        Self {
            store,
            selection,
            known: BTreeMap::new(),
            invalid: BTreeSet::new(),
            queue: VecDeque::new(),
            watch: None,
            resume: None,
            delay: None,
        }
    }

    /// Waits for the next change. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Change<K> {
        loop {
            if let Some(change) = self.queue.pop_front() {
                return change;
            }
            if let Err(error) = self.step().await {
                self.recover(&error).await;
            }
        }
    }

    /// One call of the store: list, begin a watch, or wait for its next event.
    async fn step(&mut self) -> Result<(), StoreError> {
        let Some(from) = self.resume.clone() else {
            let list = self.store.list::<K>(&self.selection).await?;
            self.take_list(list);
            return Ok(());
        };
        let watch = match &mut self.watch {
            Some(watch) => watch,
            None => self.watch.insert(self.store.watch::<K>(&self.selection, &from).await?),
        };
        let event = watch.next().await?;
        if self.delay.take().is_some() {
            tracing::info!(kind = %K::kind(&()), "the datastore answers again");
        }
        self.take_event(event);
        Ok(())
    }

    fn take_list(&mut self, list: List<K>) {
        let mut gone = std::mem::take(&mut self.known);
        for object in list.items {
            let key = key_of(&object);
            let old = gone.remove(&key);
            let same = old.as_ref().is_some_and(|old| {
                old.resource_version() == object.resource_version() && old.uid() == object.uid()
            });
            if let Some(replaced) = old.filter(|old| old.uid() != object.uid()) {
                self.queue.push_back(Change::Deleted(replaced));
            }
            self.known.insert(key, object.clone());
            if !same {
                self.queue.push_back(Change::Put(object));
            }
        }
        self.queue.extend(gone.into_values().map(Change::Deleted));
        // a watch begins with what is invalid now
        self.queue.extend(std::mem::take(&mut self.invalid).into_iter().map(Change::Valid));
        self.queue.push_back(Change::InSync);
        self.resume = Some(list.revision);
        self.watch = None;
    }

    fn take_event(&mut self, event: WatchEvent<K>) {
        match event {
            WatchEvent::Put(object) => {
                if let Some(old) = self.known.insert(key_of(&object), object.clone())
                    && old.uid() != object.uid()
                {
                    self.queue.push_back(Change::Deleted(old));
                }
                self.queue.push_back(Change::Put(object));
            }
            WatchEvent::Deleted(object) => {
                if self.known.remove(&key_of(&object)).is_some() {
                    self.queue.push_back(Change::Deleted(object));
                }
            }
            WatchEvent::Invalid(what) => {
                self.invalid.insert(Key { namespace: what.namespace.clone(), name: what.name.clone() });
                self.queue.push_back(Change::Invalid(what));
            }
            WatchEvent::Valid(key) => {
                if self.invalid.remove(&key) {
                    self.queue.push_back(Change::Valid(key));
                }
            }
        }
    }

    async fn recover(&mut self, error: &StoreError) {
        // a running watch knows how far it got
        if let Some(watch) = self.watch.take() {
            self.resume = Some(watch.revision());
        }
        if let StoreError::Expired { .. } = error {
            self.resume = None;
            if self.delay.is_none() {
                self.delay = Some(FIRST_DELAY);
                return;
            }
        } else if self.delay.is_none() {
            tracing::warn!(kind = %K::kind(&()), %error, "the datastore does not answer; trying again");
        }
        let delay = self.delay.unwrap_or(FIRST_DELAY);
        self.delay = Some((delay * 2).min(LONGEST_DELAY));
        tokio::time::sleep(delay).await;
    }
}
