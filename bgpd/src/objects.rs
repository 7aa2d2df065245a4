//! What the store says, as last heard: one map a kind, and whether every kind was heard whole.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use manx_crds::store::follow::{self, Follow};
use manx_crds::store::{InvalidObject, Key, Object, Selection, Store};
use manx_crds::v1alpha1::{
    BGPAdvertisement, BGPPeer, FabricConfiguration, FabricNode, IPBlock, IPPool,
};
use tokio::sync::mpsc;

/// One change of one kind.
#[derive(Debug)]
pub(crate) enum Change {
    Configuration(follow::Change<FabricConfiguration>),
    FabricNode(follow::Change<FabricNode>),
    Node(follow::Change<Node>),
    Peer(follow::Change<BGPPeer>),
    Advertisement(follow::Change<BGPAdvertisement>),
    Pool(follow::Change<IPPool>),
    Block(follow::Change<IPBlock>),
}

/// Objects of one kind.
#[derive(Debug)]
pub(crate) struct Kind<K> {
    pub(crate) objects: BTreeMap<Key, K>,
    in_sync: bool,
}

impl<K> Default for Kind<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), in_sync: false }
    }
}

impl<K: Object> Kind<K> {
    /// True if what is known differs now.
    fn take(&mut self, change: follow::Change<K>, invalid: &mut BTreeMap<(String, Key), InvalidObject>) -> bool {
        match change {
            follow::Change::Put(object) => {
                self.objects.insert(key(&object), object);
                true
            }
            follow::Change::Deleted(object) => self.objects.remove(&key(&object)).is_some(),
            follow::Change::InSync => !std::mem::replace(&mut self.in_sync, true),
            follow::Change::Invalid(what) => {
                let key = Key { namespace: what.namespace.clone(), name: what.name.clone() };
                tracing::error!(
                    error = what.error,
                    r#where = what.place,
                    expected = what.expected,
                    in_force = if what.last_good { "the last good version" } else { "nothing: it was never valid" },
                    "an object does not validate"
                );
                invalid.insert((what.kind.clone(), key), what);
                false
            }
            follow::Change::Valid(key) => {
                if invalid.remove(&(K::kind(&()).into_owned(), key.clone())).is_some() {
                    tracing::info!(kind = %K::kind(&()), object = key.name, "valid again");
                }
                false
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &K> {
        self.objects.values()
    }
}

fn key<K: Object>(object: &K) -> Key {
    Key { namespace: object.namespace(), name: object.name_any() }
}

/// Everything that bgpd watches.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) configuration: Kind<FabricConfiguration>,
    pub(crate) fabric_nodes: Kind<FabricNode>,
    pub(crate) nodes: Kind<Node>,
    pub(crate) peers: Kind<BGPPeer>,
    pub(crate) advertisements: Kind<BGPAdvertisement>,
    pub(crate) pools: Kind<IPPool>,
    /// Of this node only.
    pub(crate) blocks: Kind<IPBlock>,
    pub(crate) invalid: BTreeMap<(String, Key), InvalidObject>,
}

impl Objects {
    /// Takes a change in; true if anything may follow from it.
    pub(crate) fn take(&mut self, change: Change) -> bool {
        let invalid = &mut self.invalid;
        match change {
            Change::Configuration(change) => self.configuration.take(change, invalid),
            Change::FabricNode(change) => self.fabric_nodes.take(change, invalid),
            Change::Node(change) => self.nodes.take(change, invalid),
            Change::Peer(change) => self.peers.take(change, invalid),
            Change::Advertisement(change) => self.advertisements.take(change, invalid),
            Change::Pool(change) => self.pools.take(change, invalid),
            Change::Block(change) => self.blocks.take(change, invalid),
        }
    }

    /// Before every kind was listed, what is missing is not gone: nothing is concluded from it.
    pub(crate) fn in_sync(&self) -> bool {
        self.configuration.in_sync
            && self.fabric_nodes.in_sync
            && self.nodes.in_sync
            && self.peers.in_sync
            && self.advertisements.in_sync
            && self.pools.in_sync
            && self.blocks.in_sync
    }
}

/// Watches everything that bgpd needs, one task a kind.
pub(crate) fn watch<S: Store>(store: &S, node: &str) -> mpsc::Receiver<Change> {
    let (changes, receiver) = mpsc::channel(256);
    let all = Selection::default;
    let named = |field: &str| Selection {
        fields: BTreeMap::from([(field.to_owned(), node.to_owned())]),
        ..Selection::default()
    };
    follow_kind(store, all(), &changes, Change::Configuration);
    follow_kind(store, all(), &changes, Change::FabricNode);
    follow_kind(store, named("metadata.name"), &changes, Change::Node);
    follow_kind(store, all(), &changes, Change::Peer);
    follow_kind(store, all(), &changes, Change::Advertisement);
    follow_kind(store, all(), &changes, Change::Pool);
    follow_kind(store, named("spec.nodeName"), &changes, Change::Block);
    receiver
}

fn follow_kind<S: Store, K: Object>(
    store: &S,
    selection: Selection,
    changes: &mpsc::Sender<Change>,
    wrap: fn(follow::Change<K>) -> Change,
) {
    let mut follow = Follow::<S, K>::new(store.clone(), selection);
    let changes = changes.clone();
    tokio::spawn(async move {
        while changes.send(wrap(follow.next().await)).await.is_ok() {}
    });
}
