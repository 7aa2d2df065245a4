//! What the store says, as last heard, and which conclusions have to be drawn again.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Node, Secret, Service};
use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use manx_crds::store::{Key, Selection, Store, follow};
use manx_crds::v1alpha1::{
    self as api, BFDProfile, BGPAdvertisement, BGPFilter, BGPPeer, BGPSession, FabricConfiguration,
    FabricNode, GlobalNetworkPolicy, HostEndpoint, IPBlock, IPPool, LoadBalancerPool, Tier,
};
use manx_daemon::kind::{Invalid, Kind, Taken, follow, with_field};
use manx_daemon::secrets::Secrets;
use tokio::sync::mpsc;

/// The CRD that is asked for the revision of the schema: all of them are installed together.
const ASKED_CRD: &str = "fabricconfigurations.manx.dev";

/// One change of one kind.
#[derive(Debug)]
pub enum Change {
    Configuration(Box<follow::Change<FabricConfiguration>>),
    FabricNode(follow::Change<FabricNode>),
    Peer(Box<follow::Change<BGPPeer>>),
    Session(follow::Change<BGPSession>),
    Advertisement(follow::Change<BGPAdvertisement>),
    BfdProfile(follow::Change<BFDProfile>),
    Pool(follow::Change<IPPool>),
    Block(follow::Change<IPBlock>),
    LoadBalancerPool(follow::Change<LoadBalancerPool>),
    Service(Box<follow::Change<Service>>),
    Namespace(follow::Change<Namespace>),
    Policy(follow::Change<NetworkPolicy>),
    ServiceCidr(follow::Change<ServiceCIDR>),
    Filter(Box<follow::Change<BGPFilter>>),
    Tier(follow::Change<Tier>),
    OwnPolicy(Box<follow::Change<api::NetworkPolicy>>),
    GlobalPolicy(Box<follow::Change<GlobalNetworkPolicy>>),
    HostEndpoint(Box<follow::Change<HostEndpoint>>),
    Secret(follow::Change<Secret>),
    Crd(Box<follow::Change<CustomResourceDefinition>>),
}

/// Conclusions that are out of date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// FabricConfiguration, BGPPeer, BGPAdvertisement, FabricNode.
    pub fabric: bool,
    /// Established and `sessions` of BGPPeers.
    pub sessions: bool,
    /// IPPools and garbage.
    pub pools: bool,
    /// LoadBalancerPools and Services.
    pub load_balancer: bool,
    pub policies: bool,
    /// Kinds that this version stores and does not act on.
    pub later: bool,
}

impl Stale {
    pub const ALL: Stale =
        Stale { fabric: true, sessions: true, pools: true, load_balancer: true, policies: true, later: true };
}

/// Everything that the controller watches.
#[derive(Debug, Default)]
pub struct Objects {
    pub configuration: Kind<FabricConfiguration>,
    pub fabric_nodes: Kind<FabricNode>,
    pub peers: Kind<BGPPeer>,
    pub sessions: Kind<BGPSession>,
    pub advertisements: Kind<BGPAdvertisement>,
    pub bfd_profiles: Kind<BFDProfile>,
    pub pools: Kind<IPPool>,
    pub blocks: Kind<IPBlock>,
    pub load_balancer_pools: Kind<LoadBalancerPool>,
    pub services: Kind<Service>,
    pub namespaces: Kind<Namespace>,
    pub policies: Kind<NetworkPolicy>,
    pub service_cidrs: Kind<ServiceCIDR>,
    pub filters: Kind<BGPFilter>,
    pub tiers: Kind<Tier>,
    pub own_policies: Kind<api::NetworkPolicy>,
    pub global_policies: Kind<GlobalNetworkPolicy>,
    pub host_endpoints: Kind<HostEndpoint>,
    /// Nothing waits for them either: they may not be readable, and then what was said of them stays.
    pub secrets: Secrets,
    /// One of our CRDs. Nothing waits for it: where it may not be read, the revision of this program is assumed.
    pub crds: Kind<CustomResourceDefinition>,
    pub invalid: Invalid,
    pub stale: Stale,
}

impl Objects {
    /// Takes a change in.
    pub fn take(&mut self, change: Change) {
        let (invalid, stale) = (&mut self.invalid, &mut self.stale);
        let changed = |taken: Taken| taken != Taken::Nothing;
        match change {
            Change::Configuration(change) => {
                if changed(self.configuration.take(*change, invalid)) {
                    *stale = Stale::ALL;
                }
            }
            Change::FabricNode(change) => {
                if changed(self.fabric_nodes.take(change, invalid)) {
                    *stale = Stale { policies: stale.policies, later: stale.later, ..Stale::ALL };
                }
            }
            Change::Peer(change) => stale.fabric |= changed(self.peers.take(*change, invalid)),
            Change::Session(change) => stale.sessions |= changed(self.sessions.take(change, invalid)),
            Change::Advertisement(change) => {
                stale.fabric |= changed(self.advertisements.take(change, invalid));
            }
            Change::BfdProfile(change) => stale.fabric |= changed(self.bfd_profiles.take(change, invalid)),
            Change::Pool(change) => {
                let changed = changed(self.pools.take(change, invalid));
                stale.pools |= changed;
                stale.load_balancer |= changed;
            }
            Change::Block(change) => stale.pools |= changed(self.blocks.take(change, invalid)),
            Change::LoadBalancerPool(change) => {
                stale.load_balancer |= changed(self.load_balancer_pools.take(change, invalid));
            }
            Change::Service(change) => {
                let changed = changed(self.services.take(*change, invalid));
                stale.load_balancer |= changed;
                stale.fabric |= changed;
            }
            Change::Namespace(change) => {
                stale.load_balancer |= changed(self.namespaces.take(change, invalid));
            }
            Change::Policy(change) => stale.policies |= changed(self.policies.take(change, invalid)),
            Change::ServiceCidr(change) => stale.pools |= changed(self.service_cidrs.take(change, invalid)),
            Change::Filter(change) => {
                let changed = changed(self.filters.take(*change, invalid));
                stale.later |= changed;
                stale.fabric |= changed;
            }
            Change::Tier(change) => stale.later |= changed(self.tiers.take(change, invalid)),
            Change::OwnPolicy(change) => stale.later |= changed(self.own_policies.take(*change, invalid)),
            Change::GlobalPolicy(change) => {
                stale.later |= changed(self.global_policies.take(*change, invalid))
            }
            Change::HostEndpoint(change) => {
                stale.later |= changed(self.host_endpoints.take(*change, invalid))
            }
            Change::Secret(change) => stale.fabric |= changed(self.secrets.kind.take(change, invalid)),
            Change::Crd(change) => stale.fabric |= changed(self.crds.take(*change, invalid)),
        }
    }

    /// Every kind was heard whole: what is missing is not there. Before that nothing is concluded.
    pub fn in_sync(&self) -> bool {
        self.missing().is_none()
    }

    /// The first kind that was not heard whole yet.
    pub fn missing(&self) -> Option<&'static str> {
        let kinds = [
            ("FabricConfiguration", self.configuration.in_sync()),
            ("FabricNode", self.fabric_nodes.in_sync()),
            ("BGPPeer", self.peers.in_sync()),
            ("BGPSession", self.sessions.in_sync()),
            ("BGPAdvertisement", self.advertisements.in_sync()),
            ("BFDProfile", self.bfd_profiles.in_sync()),
            ("IPPool", self.pools.in_sync()),
            ("IPBlock", self.blocks.in_sync()),
            ("LoadBalancerPool", self.load_balancer_pools.in_sync()),
            ("Service", self.services.in_sync()),
            ("Namespace", self.namespaces.in_sync()),
            ("NetworkPolicy", self.policies.in_sync()),
            ("ServiceCIDR", self.service_cidrs.in_sync()),
            ("BGPFilter", self.filters.in_sync()),
            ("Tier", self.tiers.in_sync()),
            ("NetworkPolicy of manx.dev", self.own_policies.in_sync()),
            ("GlobalNetworkPolicy", self.global_policies.in_sync()),
            ("HostEndpoint", self.host_endpoints.in_sync()),
        ];
        kinds.into_iter().find(|(_, in_sync)| !in_sync).map(|(kind, _)| kind)
    }

    /// The one FabricConfiguration, if there is one.
    pub fn the_configuration(&self) -> Option<&FabricConfiguration> {
        self.configuration.iter().next()
    }

    pub fn namespace_labels(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        self.namespaces.iter().map(|namespace| (namespace.name_any(), namespace.labels().clone())).collect()
    }
}

/// Watches everything that the controller needs, one task a kind.
pub(crate) fn watch<S: Store>(store: &S, secrets_namespace: &str) -> mpsc::Receiver<Change> {
    let (changes, receiver) = mpsc::channel(1024);
    let all = Selection::default;
    follow(store, all(), &changes, |change| Change::Configuration(Box::new(change)));
    follow(store, all(), &changes, Change::FabricNode);
    follow(store, all(), &changes, |change| Change::Peer(Box::new(change)));
    follow(store, all(), &changes, Change::Session);
    follow(store, all(), &changes, Change::Advertisement);
    follow(store, all(), &changes, Change::BfdProfile);
    follow(store, all(), &changes, Change::Pool);
    follow(store, all(), &changes, Change::Block);
    follow(store, all(), &changes, Change::LoadBalancerPool);
    follow(store, all(), &changes, |change| Change::Service(Box::new(change)));
    follow(store, all(), &changes, Change::Namespace);
    follow(store, all(), &changes, Change::Policy);
    follow(store, all(), &changes, Change::ServiceCidr);
    follow(store, all(), &changes, |change| Change::Filter(Box::new(change)));
    follow(store, all(), &changes, Change::Tier);
    follow(store, all(), &changes, |change| Change::OwnPolicy(Box::new(change)));
    follow(store, all(), &changes, |change| Change::GlobalPolicy(Box::new(change)));
    follow(store, all(), &changes, |change| Change::HostEndpoint(Box::new(change)));
    follow(store, Secrets::selection(secrets_namespace), &changes, Change::Secret);
    follow(store, with_field("metadata.name", ASKED_CRD), &changes, |change| Change::Crd(Box::new(change)));
    receiver
}

/// The names of all Nodes: asked for only where a block's node seems to be gone, because Nodes change all the time.
pub(crate) async fn node_names<S: Store>(
    store: &S,
) -> Result<std::collections::BTreeSet<String>, manx_crds::store::StoreError> {
    let nodes = store.list::<Node>(&Selection::default()).await?;
    Ok(nodes.items.iter().map(Node::name_any).collect())
}

/// As people write it.
pub fn name(key: &Key) -> String {
    match &key.namespace {
        Some(namespace) => format!("{namespace}/{}", key.name),
        None => key.name.clone(),
    }
}
