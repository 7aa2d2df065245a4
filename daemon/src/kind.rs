//! Objects of one kind as last heard from the store, and the task that hears them.
//!
//! ```text
//!             remember (the store gives no answer)      InSync
//!   unheard ───────────────────────────────► remembered ──────► in sync
//!      └────────────────────────── InSync ──────────────────────────▲
//! ```
//! What is remembered and not heard by then is gone.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::marker::PhantomData;
use std::sync::Arc;

use manx_crds::store::follow::{Change, Follow, key_of};
use manx_crds::store::{InvalidObject, Key, Object, Selection, Store};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Stored forms that do not validate, by kind and key.
pub type Invalid = BTreeMap<(String, Key), InvalidObject>;

/// Objects of one kind; `V` is how each is held.
#[derive(Debug)]
pub struct Kind<K, V = K> {
    pub objects: BTreeMap<Key, V>,
    in_sync: bool,
    remembered: bool,
    /// Remembered, and not heard yet.
    unheard: BTreeSet<Key>,
    /// Remembered, and not there when the kind was heard whole; until somebody asks.
    gone: BTreeSet<Key>,
    /// `metadata.resourceVersion` of what was heard last.
    revision: Option<String>,
    kind: PhantomData<K>,
}

/// Objects that another thread may be handed, all at once and without a copy.
pub type Shared<K> = Kind<K, Arc<K>>;

impl<K, V> Default for Kind<K, V> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            in_sync: false,
            remembered: false,
            unheard: BTreeSet::new(),
            gone: BTreeSet::new(),
            revision: None,
            kind: PhantomData,
        }
    }
}

/// What a change means for whoever derives something from the objects.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing follows from it.
    Nothing,
    /// The object under this key is new, changed or gone.
    Object(Key),
    /// The kind was heard whole for the first time.
    InSync,
}

impl<K: Object, V: From<K> + Borrow<K>> Kind<K, V> {
    /// Takes a change in and says, in the log, what does not validate and what does again.
    pub fn take(&mut self, change: Change<K>, invalid: &mut Invalid) -> Taken {
        match change {
            Change::Put(object) => {
                let key = key_of(&object);
                self.unheard.remove(&key);
                self.revision.clone_from(&object.meta().resource_version);
                self.objects.insert(key.clone(), V::from(object));
                Taken::Object(key)
            }
            Change::Deleted(object) => {
                let key = key_of(&object);
                self.unheard.remove(&key);
                if self.objects.remove(&key).is_some() { Taken::Object(key) } else { Taken::Nothing }
            }
            Change::InSync if self.in_sync => Taken::Nothing,
            Change::InSync => {
                self.in_sync = true;
                self.gone = std::mem::take(&mut self.unheard);
                for key in &self.gone {
                    self.objects.remove(key);
                }
                Taken::InSync
            }
            Change::Invalid(what) => {
                note_invalid(what, invalid);
                Taken::Nothing
            }
            Change::Valid(key) => {
                note_valid::<K>(&key, invalid);
                Taken::Nothing
            }
        }
    }

    /// Heard whole: what is missing is not there.
    pub fn in_sync(&self) -> bool {
        self.in_sync
    }

    /// Heard whole, or remembered from when it was: there is something to work from.
    pub fn known(&self) -> bool {
        self.in_sync || self.remembered
    }

    /// Takes what an earlier process heard for what is, until the store answers. What was heard already is newer.
    /// Returns the keys under which objects are new.
    pub fn remember(&mut self, objects: Vec<K>) -> BTreeSet<Key> {
        if self.in_sync {
            return BTreeSet::new();
        }
        self.remembered = true;
        for object in objects {
            let key = key_of(&object);
            if let btree_map::Entry::Vacant(vacant) = self.objects.entry(key.clone()) {
                vacant.insert(V::from(object));
                self.unheard.insert(key);
            }
        }
        self.unheard.clone()
    }

    /// What was remembered and is not there, once after the kind was heard whole.
    pub fn take_gone(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.gone)
    }

    pub fn get(&self, key: &Key) -> Option<&K> {
        self.objects.get(key).map(Borrow::borrow)
    }

    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.objects.values().map(Borrow::borrow)
    }

    /// A cluster-scoped object.
    pub fn named(&self, name: &str) -> Option<&K> {
        self.get(&Key::cluster(name))
    }
}

impl<K> Shared<K> {
    /// All objects, for another thread, and the revision of what was heard last.
    pub fn share(&self) -> (Vec<Arc<K>>, Option<String>) {
        (self.objects.values().cloned().collect(), self.revision.clone())
    }
}

/// Says, in the log, that a stored form does not validate, and remembers it.
pub fn note_invalid(what: InvalidObject, invalid: &mut Invalid) {
    let key = Key { namespace: what.namespace.clone(), name: what.name.clone() };
    tracing::error!(
        error = what.error,
        r#where = what.place,
        expected = what.expected,
        in_force = if what.last_good { "the last good version" } else { "nothing: it was never valid" },
        "an object does not validate"
    );
    invalid.insert((what.kind.clone(), key), what);
}

/// It validates again, or is gone.
pub fn note_valid<K: Object>(key: &Key, invalid: &mut Invalid) {
    if invalid.remove(&(K::kind(&()).into_owned(), key.clone())).is_some() {
        tracing::info!(kind = %K::kind(&()), object = key.name, "valid again");
    }
}

/// Follows one kind for as long as the receiver lives, or until the task is aborted.
pub fn follow<S: Store, K: Object, C: Send + 'static>(
    store: &S,
    selection: Selection,
    changes: &mpsc::Sender<C>,
    wrap: fn(Change<K>) -> C,
) -> AbortHandle {
    let mut follow = Follow::<S, K>::new(store.clone(), selection);
    let changes = changes.clone();
    tokio::spawn(async move { while changes.send(wrap(follow.next().await)).await.is_ok() {} }).abort_handle()
}

/// Objects whose field has this value.
pub fn with_field(field: &str, value: &str) -> Selection {
    Selection { fields: BTreeMap::from([(field.to_owned(), value.to_owned())]), ..Selection::default() }
}
