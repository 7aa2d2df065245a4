//! Objects of one kind as last heard from the store, and the task that hears them.

use std::collections::BTreeMap;

use manx_crds::store::follow::{Change, Follow, key_of};
use manx_crds::store::{InvalidObject, Key, Object, Selection, Store};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Stored forms that do not validate, by kind and key.
pub type Invalid = BTreeMap<(String, Key), InvalidObject>;

/// Objects of one kind.
#[derive(Debug)]
pub struct Kind<K> {
    pub objects: BTreeMap<Key, K>,
    in_sync: bool,
}

impl<K> Default for Kind<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), in_sync: false }
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

impl<K: Object> Kind<K> {
    /// Takes a change in and says, in the log, what does not validate and what does again.
    pub fn take(&mut self, change: Change<K>, invalid: &mut Invalid) -> Taken {
        match change {
            Change::Put(object) => {
                let key = key_of(&object);
                self.objects.insert(key.clone(), object);
                Taken::Object(key)
            }
            Change::Deleted(object) => {
                let key = key_of(&object);
                if self.objects.remove(&key).is_some() { Taken::Object(key) } else { Taken::Nothing }
            }
            Change::InSync if self.in_sync => Taken::Nothing,
            Change::InSync => {
                self.in_sync = true;
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

    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.objects.values()
    }

    /// A cluster-scoped object.
    pub fn named(&self, name: &str) -> Option<&K> {
        self.objects.get(&Key::cluster(name))
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
