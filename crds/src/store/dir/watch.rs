//! A running watch: a moment that was delivered, the changes since, and what has to be read again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use super::hub::Dirty;
use super::layout::Kind;
use super::load::Entry;
use super::snapshot::{Snapshot, Wanted};
use super::{DirStore, Inner, typed};
use crate::store::{Key, Object, Revision, StoreError, Watch, WatchEvent};

/// Changes of one kind in the directory.
pub struct DirWatch<K> {
    inner: Arc<Inner>,
    kind: Kind,
    wanted: Wanted,
    /// What a receiver of every event so far holds.
    delivered: Snapshot,
    /// What `queue` leads to.
    reached: Snapshot,
    queue: VecDeque<Step<K>>,
    notices: UnboundedReceiver<Dirty>,
    keys: BTreeSet<Key>,
    all: bool,
}

/// One event, and what its key holds after it.
struct Step<K> {
    key: Key,
    after: Entry,
    event: WatchEvent<K>,
}

impl<K> std::fmt::Debug for DirWatch<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirWatch").field("folder", &self.kind.folder).finish_non_exhaustive()
    }
}

impl<K: Object> DirWatch<K> {
    /// Goes on from `from`, a moment that this store remembers. Runs on a thread that may block.
    pub(super) fn begin(inner: &Arc<Inner>, wanted: Wanted, from: &Revision) -> Result<Self, StoreError> {
        let kind = Kind::of::<K>();
        // first the notices, then the look: what changes in between is seen twice rather than never
        let notices = inner.subscribe(&kind.folder)?;
        let now = inner.scan::<K>(&kind)?;
        let base = if super::snapshot::digest(&now) == *from {
            Some(Arc::clone(&now))
        } else {
            inner.recall(&kind, from)
        };
        let Some(base) = base else {
            return Err(StoreError::Expired { kind: kind.kind });
        };
        // what does not validate is told anew at each beginning: a list cannot carry it
        let unfaulted = base
            .iter()
            .map(|(key, entry)| (key.clone(), Entry { object: entry.object.clone(), fault: None }))
            .collect::<BTreeMap<_, _>>();
        let mut watch = Self {
            inner: Arc::clone(inner),
            kind,
            wanted,
            delivered: Arc::clone(&base),
            reached: Arc::new(unfaulted),
            queue: VecDeque::new(),
            notices,
            keys: BTreeSet::new(),
            all: false,
        };
        for (key, entry) in base.iter().filter(|(_, entry)| entry.fault.is_some()) {
            if now.get(key).is_none_or(|entry| entry.fault.is_none()) && watch.wanted.in_namespace(key) {
                let after = Entry { object: entry.object.clone(), fault: None };
                watch.push(key, after, WatchEvent::Valid(key.clone()));
            }
        }
        watch.advance(now)?;
        Ok(watch)
    }

    /// Queues what differs between the last moment and `now`.
    fn advance(&mut self, now: Snapshot) -> Result<(), StoreError> {
        let before = Arc::clone(&self.reached);
        for (key, old) in before.iter().filter(|(key, _)| !now.contains_key(*key)) {
            self.step(key, old, &Entry::default())?;
        }
        for (key, new) in now.iter() {
            match before.get(key) {
                Some(old) => self.step(key, old, new)?,
                None => self.step(key, &Entry::default(), new)?,
            }
        }
        self.reached = now;
        Ok(())
    }

    fn step(&mut self, key: &Key, old: &Entry, new: &Entry) -> Result<(), StoreError> {
        let was = old.object.as_ref().filter(|object| self.wanted.holds(key, object));
        let is = new.object.as_ref().filter(|object| self.wanted.holds(key, object));
        let replaced = match (was, is) {
            (Some(was), Some(is)) => was.record.uid != is.record.uid,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let mut after = old.clone();
        if let (Some(was), true) = (was, replaced) {
            // the state in which it left, where it still exists outside the selection
            let outside = new.object.as_ref().filter(|_| is.is_none());
            let event = WatchEvent::Deleted(typed(&outside.unwrap_or(was).value)?);
            after.object = outside.cloned();
            self.push(key, after.clone(), event);
        }
        if let Some(is) = is.filter(|is| was.is_none_or(|was| was.revision != is.revision)) {
            after.object = Some(Arc::clone(is));
            self.push(key, after.clone(), WatchEvent::Put(typed(&is.value)?));
        }
        if self.wanted.in_namespace(key) && old.fault != new.fault {
            after.fault.clone_from(&new.fault);
            let event = new.fault.clone().map_or_else(|| WatchEvent::Valid(key.clone()), WatchEvent::Invalid);
            self.push(key, after, event);
        }
        Ok(())
    }

    fn push(&mut self, key: &Key, after: Entry, event: WatchEvent<K>) {
        self.queue.push_back(Step { key: key.clone(), after, event });
    }

    /// The next event; from then on it counts as delivered.
    fn pop(&mut self) -> Option<WatchEvent<K>> {
        let Step { key, after, event } = self.queue.pop_front()?;
        if self.queue.is_empty() {
            self.delivered = Arc::clone(&self.reached);
            return Some(event);
        }
        let delivered = Arc::make_mut(&mut self.delivered);
        if after.object.is_none() && after.fault.is_none() {
            delivered.remove(&key);
        } else {
            delivered.insert(key, after);
        }
        Some(event)
    }

    fn note(&mut self, dirty: Dirty) {
        match dirty {
            Dirty::All => self.all = true,
            Dirty::Key(key) => {
                self.keys.insert(key);
            }
        }
    }

    /// Reads again what the notices named. Dropped halfway, it is asked again: nothing is forgotten before.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let (kind, keys, all) = (self.kind.clone(), self.keys.clone(), self.all);
        let reached = Arc::clone(&self.reached);
        let now = DirStore::blocking(move || {
            if all { inner.scan::<K>(&kind) } else { inner.rescan::<K>(&kind, &reached, &keys) }
        })
        .await?;
        self.keys.clear();
        self.all = false;
        self.advance(now)
    }
}

impl<K: Object> Watch<K> for DirWatch<K> {
    async fn next(&mut self) -> Result<WatchEvent<K>, StoreError> {
        loop {
            if let Some(event) = self.pop() {
                return Ok(event);
            }
            self.delivered = Arc::clone(&self.reached);
            if self.keys.is_empty() && !self.all {
                match self.notices.recv().await {
                    Some(dirty) => self.note(dirty),
                    None => {
                        return Err(StoreError::Unavailable(
                            "the directory is not watched any more".to_owned(),
                        ));
                    }
                }
            }
            while let Ok(dirty) = self.notices.try_recv() {
                self.note(dirty);
            }
            self.catch_up().await?;
        }
    }

    fn revision(&self) -> Revision {
        self.inner.remember(&self.kind, &self.delivered)
    }
}
