//! What the store says, as last heard: one map a kind, and whether every kind was heard whole.

use k8s_openapi::api::core::v1::{Node, Secret};
use manx_crds::store::follow;
use manx_crds::store::{Selection, Store};
use manx_crds::v1alpha1::{
    BFDProfile, BGPAdvertisement, BGPFilter, BGPPeer, FabricConfiguration, FabricNode, IPBlock, IPPool,
};
use manx_daemon::kind::{Invalid, Shared, Taken, follow, with_field};
use manx_daemon::secrets::Secrets;
use tokio::sync::mpsc;

/// One change of one kind.
#[derive(Debug)]
pub(crate) enum Change {
    Configuration(follow::Change<FabricConfiguration>),
    FabricNode(follow::Change<FabricNode>),
    Node(follow::Change<Node>),
    Peer(follow::Change<BGPPeer>),
    Filter(follow::Change<BGPFilter>),
    Advertisement(follow::Change<BGPAdvertisement>),
    BfdProfile(follow::Change<BFDProfile>),
    Pool(follow::Change<IPPool>),
    Block(follow::Change<IPBlock>),
    Secret(follow::Change<Secret>),
}

/// Everything that bgpd watches.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) configuration: Shared<FabricConfiguration>,
    pub(crate) fabric_nodes: Shared<FabricNode>,
    /// This node's own.
    pub(crate) nodes: Shared<Node>,
    pub(crate) peers: Shared<BGPPeer>,
    pub(crate) filters: Shared<BGPFilter>,
    pub(crate) advertisements: Shared<BGPAdvertisement>,
    pub(crate) bfd_profiles: Shared<BFDProfile>,
    pub(crate) pools: Shared<IPPool>,
    /// Of this node only.
    pub(crate) blocks: Shared<IPBlock>,
    pub(crate) secrets: Secrets,
    /// The Secrets were waited for, and nothing is remembered of them.
    pub(crate) is_without_secrets: bool,
    pub(crate) invalid: Invalid,
}

impl Objects {
    /// Takes a change in; true if anything may follow from it.
    pub(crate) fn take(&mut self, change: Change) -> bool {
        let invalid = &mut self.invalid;
        let taken = match change {
            Change::Configuration(change) => self.configuration.take(change, invalid),
            Change::FabricNode(change) => self.fabric_nodes.take(change, invalid),
            Change::Node(change) => self.nodes.take(change, invalid),
            Change::Peer(change) => self.peers.take(change, invalid),
            Change::Filter(change) => self.filters.take(change, invalid),
            Change::Advertisement(change) => self.advertisements.take(change, invalid),
            Change::BfdProfile(change) => self.bfd_profiles.take(change, invalid),
            Change::Pool(change) => self.pools.take(change, invalid),
            Change::Block(change) => self.blocks.take(change, invalid),
            Change::Secret(change) => {
                // What does not validate is named where a session needs it.
                let judged = matches!(change, follow::Change::Invalid(_) | follow::Change::Valid(_));
                return self.secrets.kind.take(change, invalid) != Taken::Nothing || judged;
            }
        };
        taken != Taken::Nothing
    }

    /// Whether any session, of this node or another, asks for a key.
    fn asks_for_keys(&self) -> bool {
        let topology = self.configuration.iter().filter_map(|c| c.spec.topology.as_ref()?.session.as_ref());
        let peers = self.peers.iter().filter_map(|peer| peer.spec.session.as_ref());
        topology.chain(peers).any(|session| session.auth.is_some())
    }

    /// Before every kind was listed, what is missing is not gone: nothing is concluded from it.
    pub(crate) fn in_sync(&self) -> bool {
        self.configuration.in_sync()
            && self.fabric_nodes.in_sync()
            && self.nodes.in_sync()
            && self.peers.in_sync()
            && self.filters.in_sync()
            && self.advertisements.in_sync()
            && self.bfd_profiles.in_sync()
            && self.pools.in_sync()
            && self.blocks.in_sync()
            && (self.secrets.kind.in_sync() || !self.asks_for_keys())
    }

    /// Every kind was listed, or is remembered from when it was.
    pub(crate) fn known(&self) -> bool {
        self.configuration.known()
            && self.fabric_nodes.known()
            && self.nodes.known()
            && self.peers.known()
            && self.filters.known()
            && self.advertisements.known()
            && self.bfd_profiles.known()
            && self.pools.known()
            && self.blocks.known()
            && (self.secrets.kind.known() || self.is_without_secrets || !self.asks_for_keys())
    }
}

/// Watches everything that bgpd needs, one task a kind.
pub(crate) fn watch<S: Store>(store: &S, node: &str, secrets_namespace: &str) -> mpsc::Receiver<Change> {
    let (changes, receiver) = mpsc::channel(256);
    follow(store, Selection::default(), &changes, Change::Configuration);
    follow(store, Selection::default(), &changes, Change::FabricNode);
    follow(store, with_field("metadata.name", node), &changes, Change::Node);
    follow(store, Selection::default(), &changes, Change::Peer);
    follow(store, Selection::default(), &changes, Change::Filter);
    follow(store, Selection::default(), &changes, Change::Advertisement);
    follow(store, Selection::default(), &changes, Change::BfdProfile);
    follow(store, Selection::default(), &changes, Change::Pool);
    follow(store, with_field("spec.nodeName", node), &changes, Change::Block);
    follow(store, Secrets::selection(secrets_namespace), &changes, Change::Secret);
    receiver
}
