//! What the store says, as last heard, and the keys that changed since somebody looked.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use manx_crds::store::follow;
use manx_crds::store::{Key, Object, Selection, Store};
use manx_crds::v1alpha1::{BGPAdvertisement, FabricConfiguration, FabricNode, IPBlock, IPPool};
use manx_daemon::kind::{Invalid, Shared, Taken, follow, with_field};
use tokio::sync::mpsc;

use crate::services::ServiceChange;

/// One change of one kind.
#[derive(Debug)]
pub(crate) enum Change {
    Configuration(follow::Change<FabricConfiguration>),
    FabricNode(follow::Change<FabricNode>),
    Node(follow::Change<Node>),
    Pod(Box<follow::Change<Pod>>),
    Namespace(follow::Change<Namespace>),
    Policy(follow::Change<NetworkPolicy>),
    Pool(follow::Change<IPPool>),
    Block(follow::Change<IPBlock>),
    Advertisement(follow::Change<BGPAdvertisement>),
    Service(Box<ServiceChange>),
}

/// What somebody has to look at again.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// FabricConfiguration, Node, FabricNode: what this node is.
    pub(crate) node: bool,
    /// Our FabricNode was deleted.
    pub(crate) fabric_node_gone: bool,
    /// FabricNodes and pools: who is outside.
    pub(crate) nat: bool,
    pub(crate) pods: BTreeSet<Key>,
    pub(crate) namespaces: BTreeSet<Key>,
    pub(crate) policies: BTreeSet<Key>,
    pub(crate) pools: bool,
    pub(crate) blocks: BTreeSet<Key>,
    /// The blocks were listed for the first time.
    pub(crate) blocks_listed: bool,
    /// Advertisements, Services, their slices.
    pub(crate) services: bool,
    /// The last kind was heard whole.
    pub(crate) in_sync: bool,
    /// What an earlier process heard is what counts now; the blocks of then.
    pub(crate) remembered: Option<Vec<IPBlock>>,
    /// Anything at all.
    pub(crate) any: bool,
}

/// Everything that felix watches.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// Who we are.
    pub(crate) node: String,
    pub(crate) configuration: Shared<FabricConfiguration>,
    pub(crate) fabric_nodes: Shared<FabricNode>,
    /// This node's own.
    pub(crate) nodes: Shared<Node>,
    pub(crate) pods: Shared<Pod>,
    pub(crate) namespaces: Shared<Namespace>,
    pub(crate) policies: Shared<NetworkPolicy>,
    pub(crate) pools: Shared<IPPool>,
    /// Of this node only.
    pub(crate) blocks: Shared<IPBlock>,
    pub(crate) advertisements: Shared<BGPAdvertisement>,
    pub(crate) invalid: Invalid,
    /// What came of Services and their slices, in order.
    pub(crate) service_changes: Vec<ServiceChange>,
    pub(crate) news: News,
}

impl Objects {
    pub(crate) fn take(&mut self, change: Change) {
        let was_in_sync = self.in_sync();
        let (invalid, news) = (&mut self.invalid, &mut self.news);
        match change {
            Change::Configuration(change) => {
                let taken = self.configuration.take(change, invalid) != Taken::Nothing;
                news.node |= taken;
            }
            Change::FabricNode(change) => {
                let gone = matches!(&change, follow::Change::Deleted(node) if node.name_any() == self.node);
                let taken = self.fabric_nodes.take(change, invalid);
                let unremembered = self.fabric_nodes.take_gone();
                news.fabric_node_gone |= gone || unremembered.iter().any(|key| key.name == self.node);
                news.nat |= taken != Taken::Nothing;
                news.node |= match taken {
                    Taken::Nothing => false,
                    Taken::InSync => true,
                    Taken::Object(key) => key.name == self.node,
                };
            }
            Change::Node(change) => news.node |= self.nodes.take(change, invalid) != Taken::Nothing,
            Change::Pod(change) => note(&mut self.pods, *change, invalid, &mut news.pods),
            Change::Namespace(change) => {
                note(&mut self.namespaces, change, invalid, &mut news.namespaces);
            }
            Change::Policy(change) => note(&mut self.policies, change, invalid, &mut news.policies),
            Change::Pool(change) => {
                let taken = self.pools.take(change, invalid) != Taken::Nothing;
                news.pools |= taken;
                news.nat |= taken;
            }
            Change::Block(change) => match self.blocks.take(change, invalid) {
                Taken::Nothing => {}
                Taken::Object(key) => drop(news.blocks.insert(key)),
                Taken::InSync => news.blocks_listed = true,
            },
            Change::Service(change) => {
                self.service_changes.push(*change);
                news.services = true;
            }
            Change::Advertisement(change) => {
                news.services |= self.advertisements.take(change, invalid) != Taken::Nothing;
            }
        }
        self.news.any = true;
        self.news.in_sync |= !was_in_sync && self.in_sync();
    }

    /// Every kind was heard whole, or is remembered from when it was.
    pub(crate) fn known(&self) -> bool {
        self.configuration.known()
            && self.fabric_nodes.known()
            && self.nodes.known()
            && self.pods.known()
            && self.namespaces.known()
            && self.policies.known()
            && self.pools.known()
            && self.blocks.known()
            && self.advertisements.known()
    }

    /// Every kind was heard whole: what is missing is not there.
    pub(crate) fn in_sync(&self) -> bool {
        self.configuration.in_sync()
            && self.fabric_nodes.in_sync()
            && self.nodes.in_sync()
            && self.pods.in_sync()
            && self.namespaces.in_sync()
            && self.policies.in_sync()
            && self.pools.in_sync()
            && self.blocks.in_sync()
            && self.advertisements.in_sync()
    }

    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.get(&Key::namespaced(namespace, name))
    }
}

fn note<K: Object>(
    kind: &mut Shared<K>,
    change: follow::Change<K>,
    invalid: &mut Invalid,
    keys: &mut BTreeSet<Key>,
) {
    if let Taken::Object(key) = kind.take(change, invalid) {
        keys.insert(key);
    }
    keys.extend(kind.take_gone());
}

/// Watches everything that felix needs, one task a kind.
pub(crate) fn watch<S: Store>(store: &S, node: &str) -> (mpsc::Sender<Change>, mpsc::Receiver<Change>) {
    let (changes, receiver) = mpsc::channel(1024);
    let all = Selection::default;
    follow(store, all(), &changes, Change::Configuration);
    follow(store, all(), &changes, Change::FabricNode);
    follow(store, with_field("metadata.name", node), &changes, Change::Node);
    follow(store, all(), &changes, |change| Change::Pod(Box::new(change)));
    follow(store, all(), &changes, Change::Namespace);
    follow(store, all(), &changes, Change::Policy);
    follow(store, all(), &changes, Change::Pool);
    follow(store, with_field("spec.nodeName", node), &changes, Change::Block);
    follow(store, all(), &changes, Change::Advertisement);
    (changes, receiver)
}
