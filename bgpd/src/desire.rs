//! What should be: a pure function of the objects, recomputed whole and compared, never edited.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_proto::config::{
    AdminState, GracefulRestart, GracefulRestartMode, MaxPrefixes, MaxPrefixesAction, NextHopSelf,
    PeerConfig, RemoteAsn, SpeakerConfig,
};
use bgp_proto::policy::{ExportPolicy, ImportPolicy};
use bgp_proto::route::{Audience, OwnRoute};
use bgp_proto::{AfiSafi, Asn, PeerName, RouterId};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use manx_crds::acceptance::{self, Refusal};
use manx_crds::community::{self, Resolved};
use manx_crds::v1alpha1 as api;
use manx_crds::v1alpha1::settings::{self, EffectiveNode};
use manx_crds::v1alpha1::{BGPAdvertisement, BGPPeer, EffectiveSession, FabricConfiguration, selects};

use crate::objects::Objects;

/// Everything that follows from the objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Desire {
    /// None: this node speaks no BGP, and `problem` says why.
    pub(crate) speaker: Option<SpeakerConfig>,
    pub(crate) problem: Option<Refusal>,
    /// Where to listen; 0 nowhere.
    pub(crate) port: u16,
    pub(crate) own_routes: BTreeMap<IpNet, Vec<OwnRoute>>,
    /// Own blocks: what no pod has ends here.
    pub(crate) blackholes: BTreeSet<IpNet>,
    /// BGPPeers of this node that start no session.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// Facts that are worth a sentence in BGPReady though nothing is wrong with a session.
    pub(crate) remarks: Vec<String>,
    /// This node's addresses.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

impl Desire {
    /// A node whose settings became unusable keeps the last good ones, and says so: a wrong label must not
    /// withdraw what its pods are reached by.
    pub(crate) fn or_last_good(self, last: &Self) -> Self {
        if self.speaker.is_some() || last.speaker.is_none() {
            return self;
        }
        Self { problem: self.problem, ..last.clone() }
    }
}

/// Our addresses on the interface by which a peer is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LinkAddresses {
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// Global, never link-local.
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// `links` answers for the address of a peer.
pub(crate) fn desire(objects: &Objects, node_name: &str, links: &dyn Fn(IpAddr) -> LinkAddresses) -> Desire {
    let configuration = objects.configuration.iter().next();
    let fabric_node = objects.fabric_nodes.iter().find(|n| n.name_any() == node_name);
    let node = objects.nodes.iter().find(|n| n.name_any() == node_name);
    let labels = labels(node, fabric_node);
    let effective = EffectiveNode::of(configuration, fabric_node, &labels);
    let addresses = addresses(&effective, node);
    let blocks: BTreeMap<IpNet, String> =
        objects.blocks.iter().map(|block| (block.spec.cidr.net(), block.spec.pool.clone())).collect();

    let mut desire = Desire {
        port: effective.bgp_port,
        blackholes: blocks.keys().copied().collect(),
        addresses: addresses.values().copied().collect(),
        ..Desire::default()
    };
    desire.remarks.extend(topology_remark(configuration));
    let asn = match &effective.asn {
        Ok(asn) => Asn(asn.0),
        Err(error) => {
            desire.port = 0;
            desire.problem = Some(Refusal { reason: "InvalidASNLabel", message: error.to_string() });
            return desire;
        }
    };
    if node.is_none() && fabric_node.is_none() {
        desire.port = 0;
        desire.problem = Some(Refusal {
            reason: "NoneEstablished",
            message: format!("no Node {node_name:?} in the datastore: create it, or start bgpd with --node"),
        });
        return desire;
    }
    let ipv4 = addresses.get(&AfiSafi::Ipv4Unicast).and_then(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    let router_id = RouterId(settings::router_id(effective.router_id, ipv4, node_name).0);
    let mut config = SpeakerConfig::new(asn, router_id);
    config.max_paths = settings::max_paths(configuration);

    let world = World {
        objects,
        configuration,
        effective: &effective,
        addresses: &addresses,
        blocks: &blocks,
        links,
    };
    let chosen: Vec<&BGPPeer> = objects
        .peers
        .iter()
        .filter(|peer| api::selector::selects_opt(peer.spec.node_selector.as_ref(), &labels))
        .collect();
    let mut taken: BTreeMap<IpAddr, String> = BTreeMap::new();
    for peer in oldest_first(&chosen) {
        match world.peer(peer, &mut taken) {
            Ok(one) => drop(config.peers.insert(PeerName::from(peer.name_any().as_str()), one)),
            Err(refusal) => drop(desire.refused.insert(peer.name_any(), refusal)),
        }
    }
    desire.own_routes = world.own_routes(&chosen, &labels);
    desire.speaker = Some(config);
    desire
}

/// The Node's labels, or the copy that felix keeps of them on the FabricNode.
fn labels(node: Option<&Node>, fabric_node: Option<&api::FabricNode>) -> BTreeMap<String, String> {
    node.map(|n| n.labels().clone()).or_else(|| fabric_node.map(|n| n.labels().clone())).unwrap_or_default()
}

/// The node's address of each family: a person's word, else the Node's first InternalIP; never "first found".
fn addresses(effective: &EffectiveNode, node: Option<&Node>) -> BTreeMap<AfiSafi, IpAddr> {
    let mut found = BTreeMap::new();
    for ip in [effective.ipv4, effective.ipv6].into_iter().flatten() {
        found.insert(AfiSafi::of_address(ip), ip);
    }
    let wanted = match effective.address.source {
        api::AddressSource::ExternalIP => "ExternalIP",
        // Interface and Subnet are read by felix, whose status carries the result; until then, the Node's word.
        api::AddressSource::InternalIP
        | api::AddressSource::Interface
        | api::AddressSource::Subnet
        | api::AddressSource::Unknown(_) => "InternalIP",
    };
    let listed = node.and_then(|n| n.status.as_ref()).and_then(|s| s.addresses.as_ref());
    for address in listed.into_iter().flatten().filter(|a| a.type_ == wanted) {
        if let Ok(ip) = address.address.parse::<IpAddr>() {
            found.entry(AfiSafi::of_address(ip)).or_insert(ip);
        }
    }
    found
}

fn topology_remark(configuration: Option<&FabricConfiguration>) -> Option<String> {
    match settings::topology_mode(configuration) {
        api::TopologyMode::None => None,
        mode @ (api::TopologyMode::FullMesh
        | api::TopologyMode::RouteReflector
        | api::TopologyMode::Unknown(_)) => Some(format!(
            "topology.mode {mode} opens no node-to-node session in this version: set topology.mode None and BGPPeers"
        )),
    }
}

/// Of two BGPPeers for one address the older is served (api.md §5.1); equal ages go by name.
fn oldest_first<'a>(peers: &[&'a BGPPeer]) -> Vec<&'a BGPPeer> {
    let mut peers = peers.to_vec();
    peers.sort_by_key(|peer| (peer.creation_timestamp().map(|t| t.0), peer.name_any()));
    peers
}

struct World<'a> {
    objects: &'a Objects,
    configuration: Option<&'a FabricConfiguration>,
    effective: &'a EffectiveNode,
    addresses: &'a BTreeMap<AfiSafi, IpAddr>,
    blocks: &'a BTreeMap<IpNet, String>,
    links: &'a dyn Fn(IpAddr) -> LinkAddresses,
}

impl World<'_> {
    fn peer(&self, peer: &BGPPeer, taken: &mut BTreeMap<IpAddr, String>) -> Result<PeerConfig, Refusal> {
        acceptance::bgp_peer(peer, self.configuration)?;
        let spec = &peer.spec;
        let Some(remote) = spec.address.map(IpAddr::from) else {
            return Err(refusal("UnknownValue", "spec.address is missing".to_owned()));
        };
        if self.addresses.values().any(|own| *own == remote) {
            return Err(refusal(
                "AddressIsOurs",
                format!("spec.address {remote} is this node's own address"),
            ));
        }
        if let Some(older) = taken.get(&remote) {
            let text = format!("spec.address {remote} is served by the older BGPPeer {older}");
            return Err(refusal("OverlapsPeer", text));
        }
        let passive_only = spec.passive && self.effective.bgp_port == 0;
        if passive_only {
            let text =
                "spec.passive waits for the peer to dial, but node.bgpPort 0 listens nowhere".to_owned();
            return Err(refusal("NoListener", text));
        }
        let remote_asn = match (&spec.asn, &spec.asn_type) {
            (Some(asn), _) => RemoteAsn::Exactly(Asn(asn.0)),
            (None, Some(api::AsnType::External)) => RemoteAsn::External,
            (None, Some(api::AsnType::Internal)) => RemoteAsn::Internal,
            (None, _) => {
                return Err(refusal("UnknownValue", "exactly one of asn, asnType must be set".to_owned()));
            }
        };
        taken.insert(remote, peer.name_any());
        let session = EffectiveSession::of_peer(peer, self.configuration);
        let mut config =
            PeerConfig::new(remote, remote_asn, self.import(peer), ExportPolicy { transit: spec.transit });
        config.port = spec.port.unwrap_or(api::settings::DEFAULT_BGP_PORT);
        config.local_asn = spec.local_asn.map(|asn| Asn(asn.0));
        config.families = families(spec);
        config.hold_time = session.hold;
        config.keepalive = Some(session.keepalive).filter(|k| !k.is_zero());
        config.connect_retry = session.connect_retry;
        config.passive = spec.passive;
        config.max_hops = self.hops(spec, remote_asn);
        if config.max_hops > 1 {
            // More than one hop away the node is its address; one hop away, the interface of the route.
            config.local_address = self.addresses.get(&AfiSafi::of_address(remote)).copied();
        }
        config.next_hop = self.next_hop(remote, config.max_hops);
        // A change of next hop resets the session: an address of a family that is not offered must not.
        if !config.families.contains(&AfiSafi::Ipv4Unicast) {
            config.next_hop.ipv4 = None;
        }
        if !config.families.contains(&AfiSafi::Ipv6Unicast) {
            config.next_hop.ipv6 = None;
        }
        config.graceful_restart = graceful_restart(&session);
        config.max_prefixes = max_prefixes(&session);
        config.admin = self.admin(spec);
        Ok(config)
    }

    fn hops(&self, spec: &api::BGPPeerSpec, remote_asn: RemoteAsn) -> u8 {
        let own = spec.local_asn.or(self.effective.asn.as_ref().ok().copied()).map(|asn| Asn(asn.0));
        let internal = match remote_asn {
            RemoteAsn::Internal => true,
            RemoteAsn::External => false,
            RemoteAsn::Exactly(asn) => own == Some(asn),
        };
        spec.max_hops.unwrap_or(if internal { 255 } else { 1 })
    }

    /// A peer one hop away is told our address on the link to it, of either family (RFC 4271 §5.1.3, RFC 2545 §3);
    /// one further away, or a link without an address of the family, the node's.
    fn next_hop(&self, remote: IpAddr, max_hops: u8) -> NextHopSelf {
        let link = if max_hops == 1 { (self.links)(remote) } else { LinkAddresses::default() };
        let node_v4 = match self.addresses.get(&AfiSafi::Ipv4Unicast) {
            Some(IpAddr::V4(ip)) => Some(*ip),
            Some(IpAddr::V6(_)) | None => None,
        };
        let node_v6 = match self.addresses.get(&AfiSafi::Ipv6Unicast) {
            Some(IpAddr::V6(ip)) => Some(*ip),
            Some(IpAddr::V4(_)) | None => None,
        };
        NextHopSelf { ipv4: link.ipv4.or(node_v4), ipv6: link.ipv6.or(node_v6) }
    }

    fn admin(&self, spec: &api::BGPPeerSpec) -> AdminState {
        let shutdown =
            |message: &Option<String>| AdminState::Shutdown { message: message.clone().unwrap_or_default() };
        if self.effective.admin_state == api::AdminState::Shutdown {
            return shutdown(&self.effective.admin_message);
        }
        if spec.admin_state == api::AdminState::Shutdown {
            return shutdown(&spec.admin_message);
        }
        AdminState::Up
    }

    /// Addresses inside the pools and the default route; nothing inside an own block, no own address.
    fn import(&self, peer: &BGPPeer) -> ImportPolicy {
        ImportPolicy {
            within: self.objects.pools.iter().map(|pool| pool.spec.cidr.net()).collect(),
            default_route: true,
            never: self
                .blocks
                .keys()
                .copied()
                .chain(self.addresses.values().map(|ip| IpNet::from(*ip)))
                .collect(),
            except: BTreeSet::new(),
            allow_own_asn: peer.spec.allow_own_asn.unwrap_or(0),
        }
    }

    /// Every own prefix that some advertisement takes to some peer. A peer is told with the attributes of all
    /// advertisements that name it (api.md §5.3); peers that are told alike share one entry.
    fn own_routes(
        &self,
        peers: &[&BGPPeer],
        labels: &BTreeMap<String, String>,
    ) -> BTreeMap<IpNet, Vec<OwnRoute>> {
        let mut told: BTreeMap<IpNet, BTreeMap<PeerName, OwnRoute>> = BTreeMap::new();
        for advertisement in self.objects.advertisements.iter() {
            let spec = &advertisement.spec;
            if !api::selector::selects_opt(spec.node_selector.as_ref(), labels)
                || acceptance::bgp_advertisement(advertisement, self.configuration).is_err()
            {
                continue;
            }
            let prefixes = self.prefixes(advertisement);
            for peer in
                peers.iter().filter(|p| api::selector::selects_opt(spec.peer_selector.as_ref(), p.labels()))
            {
                let name = PeerName::from(peer.name_any().as_str());
                for prefix in &prefixes {
                    self.add(
                        told.entry(*prefix).or_default().entry(name.clone()).or_default(),
                        advertisement,
                    );
                }
            }
        }
        told.into_iter().map(|(prefix, by_peer)| (prefix, share(by_peer))).collect()
    }

    /// Communities are united; the rest comes from the first advertisement, by name, that sets it.
    fn add(&self, route: &mut OwnRoute, advertisement: &BGPAdvertisement) {
        let Some(attributes) = &advertisement.spec.attributes else { return };
        for community in &attributes.communities {
            match community::resolve(community, self.configuration) {
                Some(Resolved::Standard(value)) => drop(route.communities.insert(value)),
                Some(Resolved::Large(value)) => drop(route.large_communities.insert(value)),
                None => {}
            }
        }
        route.local_pref = route.local_pref.or(attributes.local_preference);
        route.med = route.med.or(attributes.med);
        if route.prepend == 0 {
            route.prepend = attributes.prepend.unwrap_or(0);
        }
    }

    /// What an advertisement of pools originates here.
    fn prefixes(&self, advertisement: &BGPAdvertisement) -> BTreeSet<IpNet> {
        let Some(pools) = &advertisement.spec.pools else { return BTreeSet::new() };
        let chosen: BTreeMap<String, IpNet> = self
            .objects
            .pools
            .iter()
            .filter(|pool| pools.pool_selector.as_ref().is_none_or(|s| selects(s, pool.labels())))
            .map(|pool| (pool.name_any(), pool.spec.cidr.net()))
            .collect();
        let mut prefixes = BTreeSet::new();
        for (block, pool) in self.blocks {
            match (chosen.get(pool), &pools.announce) {
                (Some(_), api::PoolAnnounce::Blocks) => drop(prefixes.insert(*block)),
                (Some(cidr), api::PoolAnnounce::CIDR) => drop(prefixes.insert(*cidr)),
                (Some(_), _) | (None, _) => {}
            }
        }
        prefixes
    }
}

/// Peers that are told the same become one audience.
fn share(by_peer: BTreeMap<PeerName, OwnRoute>) -> Vec<OwnRoute> {
    let mut routes: Vec<OwnRoute> = Vec::new();
    for (peer, mut route) in by_peer {
        route.audience = Audience::Only(BTreeSet::new());
        let alike =
            |one: &OwnRoute| OwnRoute { audience: Audience::Only(BTreeSet::new()), ..one.clone() } == route;
        let index = routes.iter().position(alike).unwrap_or_else(|| {
            routes.push(route.clone());
            routes.len() - 1
        });
        if let Some(OwnRoute { audience: Audience::Only(peers), .. }) = routes.get_mut(index) {
            peers.insert(peer);
        }
    }
    routes
}

fn families(spec: &api::BGPPeerSpec) -> BTreeSet<AfiSafi> {
    let mut families = BTreeSet::new();
    if spec.offers(&api::AddressFamily::IPv4Unicast) {
        families.insert(AfiSafi::Ipv4Unicast);
    }
    if spec.offers(&api::AddressFamily::IPv6Unicast) {
        families.insert(AfiSafi::Ipv6Unicast);
    }
    families
}

fn graceful_restart(session: &EffectiveSession) -> GracefulRestart {
    let mode = match session.graceful_restart {
        api::GracefulRestartMode::Full => GracefulRestartMode::Full,
        api::GracefulRestartMode::Helper => GracefulRestartMode::Helper,
        // What a newer schema knows and we do not must not keep routes alive.
        api::GracefulRestartMode::Disabled | api::GracefulRestartMode::Unknown(_) => {
            GracefulRestartMode::Disabled
        }
    };
    GracefulRestart { mode, restart_time: session.restart_time, ..GracefulRestart::default() }
}

fn max_prefixes(session: &EffectiveSession) -> MaxPrefixes {
    MaxPrefixes {
        ipv4: session.max_prefixes_ipv4,
        ipv6: session.max_prefixes_ipv6,
        action: match session.max_prefixes_action {
            api::MaxPrefixesAction::Warn => MaxPrefixesAction::Warn,
            api::MaxPrefixesAction::Shutdown | api::MaxPrefixesAction::Unknown(_) => {
                MaxPrefixesAction::Shutdown
            }
        },
        warn_percent: session.warn_percent,
        restart_after: session.restart_after,
    }
}

fn refusal(reason: &'static str, message: String) -> Refusal {
    Refusal { reason, message }
}

#[cfg(test)]
mod tests;
