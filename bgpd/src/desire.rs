//! What should be: a pure function of the objects, recomputed whole and compared, never edited.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_proto::config::{
    AdminState, GracefulRestart, GracefulRestartMode, MaxPrefixes, MaxPrefixesAction, NextHopSelf,
    PeerConfig, RemoteAsn, SpeakerConfig,
};
use bgp_proto::policy::{ExportPolicy, Filter, ImportPolicy};
use bgp_proto::wire::Role;
use bgp_proto::{AfiSafi, Asn, PeerName};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use manx_crds::acceptance::{self, Refusal};
use manx_crds::services;
use manx_crds::v1alpha1 as api;
use manx_crds::v1alpha1::settings::{self, EffectiveNode};
use manx_crds::v1alpha1::{BGPPeer, EffectiveSession, FabricConfiguration, TOPOLOGY_PEER};
use manx_daemon::secrets::SessionKey;

use crate::auth::{self, SecretKey};
use crate::mesh::{self, Identity, Link, Mesh};
use crate::objects::Objects;
use crate::originate::{Export, Facts};

/// Everything that follows from the objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Desire {
    /// None: this node speaks no BGP, and `problem` says why.
    pub(crate) speaker: Option<SpeakerConfig>,
    pub(crate) problem: Option<Refusal>,
    /// `problem` is a conflict with an older node: sessions that run go on as they are, none is started.
    is_twin: bool,
    /// Where to listen; 0 nowhere.
    pub(crate) port: u16,
    pub(crate) export: Export,
    /// No Service is announced from here: the node says so.
    pub(crate) is_excluded: bool,
    /// Own blocks: what no pod has ends here.
    pub(crate) blackholes: BTreeSet<IpNet>,
    /// Node-to-node sessions, by the name of the peer in `speaker`.
    pub(crate) mesh: BTreeMap<PeerName, Link>,
    /// Whose segments are signed, and with what; none: the key is missing, and the session is not tried.
    pub(crate) keys: BTreeMap<IpAddr, Option<SessionKey>>,
    /// What sessions of this node read of Secrets.
    pub(crate) secrets: BTreeSet<SecretKey>,
    /// What starts no session: BGPPeers of this node by name, and `topology`.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// Why there can be no node-to-node session from here.
    pub(crate) homeless: Option<String>,
    /// Facts that are worth a sentence in BGPReady though nothing is wrong with a session.
    pub(crate) remarks: Vec<String>,
    /// This node's addresses.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Of the FabricNode that this was read from.
    pub(crate) generation: Option<i64>,
}

impl Desire {
    /// A node whose settings became unusable keeps the last good ones, and says so: a wrong label must not
    /// withdraw what its pods are reached by. A node that met its older twin keeps its sessions, and still tells them
    /// what it has.
    pub(crate) fn or_last_good(mut self, last: &Self) -> Self {
        if self.is_twin {
            self.speaker = last.speaker.clone();
            self.port = last.port;
            let newest = |address| self.keys.get(address).cloned();
            self.keys =
                last.keys.iter().map(|(a, key)| (*a, newest(a).unwrap_or_else(|| key.clone()))).collect();
            return self;
        }
        if self.speaker.is_some() || last.speaker.is_none() {
            return self;
        }
        Self { problem: self.problem, generation: self.generation, ..last.clone() }
    }

    /// The other nodes' addresses: next hops that their sessions prove.
    pub(crate) fn mesh_addresses(&self) -> BTreeSet<IpAddr> {
        self.mesh.values().flat_map(|link| link.addresses.iter().copied()).collect()
    }

    /// Whether this end writes the session's BGPSession: between two of our nodes the one that dials does.
    pub(crate) fn reports(&self, peer: &PeerName) -> bool {
        self.mesh.get(peer).is_none_or(|link| link.dials)
    }

    /// A session's peer as people name it: a BGPPeer, or `topology`.
    pub(crate) fn class_of<'a>(&self, peer: &'a PeerName) -> &'a str {
        if self.mesh.contains_key(peer) { TOPOLOGY_PEER } else { peer.as_str() }
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
    let fabric_node = objects.fabric_nodes.named(node_name);
    let node = objects.nodes.named(node_name);
    let labels = labels(node, fabric_node);
    let effective = EffectiveNode::of(configuration, fabric_node, &labels);
    let addresses = mesh::addresses(&effective, fabric_node, node);
    let blocks: BTreeMap<IpNet, String> =
        objects.blocks.iter().map(|block| (block.spec.cidr.net(), block.spec.pool.clone())).collect();

    let mut desire = Desire {
        blackholes: blocks.keys().copied().collect(),
        addresses: addresses.values().copied().collect(),
        is_excluded: services::excludes(&labels),
        generation: fabric_node.and_then(|node| node.metadata.generation),
        ..Desire::default()
    };
    let asn = match &effective.asn {
        Ok(asn) => Asn(asn.0),
        Err(error) => {
            desire.problem = Some(refusal("InvalidASNLabel", error.to_string()));
            return desire;
        }
    };
    if node.is_none() && fabric_node.is_none() {
        let text = format!("no Node {node_name:?} in the datastore: create it, or start bgpd with --node");
        desire.problem = Some(refusal("NoneEstablished", text));
        return desire;
    }
    desire.port = effective.bgp_port;
    let router_id = mesh::router_id(&effective, &addresses, node_name);
    let identity = Identity { asn, router_id, addresses: addresses.clone(), port: effective.bgp_port };
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
    desire.speaker = Some(world.speaker(&identity, node_name, &chosen, &mut desire));
    desire.export = Export::of(&Facts {
        objects,
        configuration,
        labels: &labels,
        blocks: &blocks,
        addresses: addresses.values().map(|address| IpNet::from(*address)).collect(),
        peers: &chosen,
        node_sessions: desire.mesh.keys().cloned().collect(),
    });
    desire
}

/// The Node's labels, or the copy that felix keeps of them on the FabricNode.
fn labels(node: Option<&Node>, fabric_node: Option<&api::FabricNode>) -> BTreeMap<String, String> {
    node.map(|n| n.labels().clone()).or_else(|| fabric_node.map(|n| n.labels().clone())).unwrap_or_default()
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
    /// The speaker with all its peers; what starts no session, and why, goes into `desire`.
    fn speaker(
        &self,
        identity: &Identity,
        node_name: &str,
        chosen: &[&BGPPeer],
        desire: &mut Desire,
    ) -> SpeakerConfig {
        let mut config = SpeakerConfig::new(identity.asn, identity.router_id);
        config.max_paths = settings::max_paths(self.configuration);
        let mut taken: BTreeMap<IpAddr, String> = BTreeMap::new();
        for peer in oldest_first(chosen) {
            match self.peer(peer, &mut taken) {
                Ok(mut one) => {
                    let session = EffectiveSession::of_peer(peer, self.configuration);
                    auth::require(&session, "spec.session.auth", self.objects, &mut one, desire);
                    config.peers.insert(PeerName::from(peer.name_any().as_str()), one);
                }
                Err(refusal) => drop(desire.refused.insert(peer.name_any(), refusal)),
            }
        }
        let Mesh { links, conflict, homeless, remarks } = self.mesh(identity, node_name, desire);
        desire.remarks.extend(remarks);
        desire.homeless = homeless;
        desire.is_twin = conflict.is_some();
        desire.problem = conflict;
        let import = self.node_import();
        let session = EffectiveSession::of_topology(self.configuration);
        for (name, link) in links {
            // A person's word on that neighbour.
            if let Some(peer) = taken.get(&link.remote) {
                desire.remarks.push(format!("node {} is spoken to as BGPPeer {peer} says", link.node));
                continue;
            }
            let mut one = self.node_peer(&link, import.clone());
            auth::require(&session, "spec.topology.session.auth", self.objects, &mut one, desire);
            config.peers.insert(name.clone(), one);
            desire.mesh.insert(name, link);
        }
        config
    }

    fn mesh(&self, identity: &Identity, node_name: &str, desire: &mut Desire) -> Mesh {
        let accepted = acceptance::topology(self.configuration);
        let open =
            accepted.is_ok() && settings::topology_mode(self.configuration) == api::TopologyMode::FullMesh;
        if let Err(refusal) = accepted {
            desire.refused.insert(TOPOLOGY_PEER.to_owned(), refusal);
        }
        mesh::mesh(self.configuration, identity, node_name, self.objects.fabric_nodes.iter(), open)
    }

    /// Another node of ours, over the nodes' addresses.
    fn node_peer(&self, link: &Link, import: ImportPolicy) -> PeerConfig {
        let session = EffectiveSession::of_topology(self.configuration);
        // Learned routes are told to no node: api.md §5.
        let export = ExportPolicy::new(false);
        let mut config = PeerConfig::new(link.remote, RemoteAsn::Exactly(link.asn), import, export);
        config.port = link.port;
        config.passive = !link.dials;
        // Nodes may be any number of subnets apart.
        config.max_hops = u8::MAX;
        config.local_address = Some(link.local);
        config.next_hop = self.next_hop(link.remote, config.max_hops);
        apply(&session, &mut config);
        config.admin = self.admin(&api::AdminState::Up, None);
        config
    }

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
        let mut config =
            PeerConfig::new(remote, remote_asn, self.import(peer), ExportPolicy::new(spec.transit));
        config.port = spec.port.unwrap_or(settings::DEFAULT_BGP_PORT);
        config.local_asn = spec.local_asn.map(|asn| Asn(asn.0));
        config.families = families(spec);
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
        apply(&EffectiveSession::of_peer(peer, self.configuration), &mut config);
        config.role = spec.role.as_ref().and_then(role);
        config.role_strict = spec.role_strict.unwrap_or(false);
        config.reflector_client = spec.reflector_client;
        config.admin = self.admin(&spec.admin_state, spec.admin_message.as_ref());
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

    /// The node's word, then the neighbour's.
    fn admin(&self, of_peer: &api::AdminState, message: Option<&String>) -> AdminState {
        let shutdown =
            |message: Option<&String>| AdminState::Shutdown { message: message.cloned().unwrap_or_default() };
        if self.effective.admin_state == api::AdminState::Shutdown {
            return shutdown(self.effective.admin_message.as_ref());
        }
        if *of_peer == api::AdminState::Shutdown {
            return shutdown(message);
        }
        AdminState::Up
    }

    /// Addresses inside the pools and the default route; nothing inside an own block, no own address.
    fn import(&self, peer: &BGPPeer) -> ImportPolicy {
        ImportPolicy {
            within: self.pools().collect(),
            default_route: true,
            never: self.own(),
            except: BTreeSet::new(),
            allow_own_asn: peer.spec.allow_own_asn.unwrap_or(0),
            filter: Filter::default(),
        }
    }

    /// Blocks of other nodes, and what some BGPAdvertisement with `interNode` may make them tell.
    fn node_import(&self) -> ImportPolicy {
        let mut within: BTreeSet<IpNet> = self.pools().collect();
        let advertisements =
            self.objects.advertisements.iter().filter(|a| {
                a.spec.inter_node && acceptance::bgp_advertisement(a, self.configuration).is_ok()
            });
        for advertisement in advertisements {
            within.extend(advertisement.spec.prefixes.iter().map(|prefix| prefix.cidr.net()));
            match &advertisement.spec.services {
                Some(services) if services.cidrs.is_empty() => within.extend(everything()),
                Some(services) => within.extend(services.cidrs.iter().map(|cidr| cidr.net())),
                None => {}
            }
        }
        let default_route = advertised_default(self.objects);
        ImportPolicy { within, default_route, never: self.own(), ..ImportPolicy::default() }
    }

    fn pools(&self) -> impl Iterator<Item = IpNet> {
        self.objects.pools.iter().map(|pool| pool.spec.cidr.net())
    }

    /// Own blocks and addresses, which nobody else tells us of.
    fn own(&self) -> BTreeSet<IpNet> {
        let addresses = self.addresses.values().map(|ip| IpNet::from(*ip));
        self.blocks.keys().copied().chain(addresses).collect()
    }
}

fn everything() -> [IpNet; 2] {
    [IpNet::from(ipnet::Ipv4Net::default()), IpNet::from(ipnet::Ipv6Net::default())]
}

/// Whether somebody tells our nodes a default route on purpose.
fn advertised_default(objects: &Objects) -> bool {
    let between_nodes = objects.advertisements.iter().filter(|a| a.spec.inter_node);
    between_nodes.flat_map(|a| &a.spec.prefixes).any(|prefix| prefix.cidr.net().prefix_len() == 0)
}

fn apply(session: &EffectiveSession, config: &mut PeerConfig) {
    config.hold_time = session.hold;
    config.keepalive = Some(session.keepalive).filter(|k| !k.is_zero());
    config.connect_retry = session.connect_retry;
    config.graceful_restart = graceful_restart(session);
    config.max_prefixes = max_prefixes(session);
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
    GracefulRestart {
        mode,
        restart_time: session.restart_time,
        long_lived_stale_time: session.long_lived_stale_time,
        // Where BFD tells that a node is dead, the hold timer need not.
        notification: session.bfd_profile.is_some(),
        ..GracefulRestart::default()
    }
}

/// RFC 9234's roles; `None`: a newer schema's, which acceptance refuses.
fn role(role: &api::Role) -> Option<Role> {
    match role {
        api::Role::Provider => Some(Role::Provider),
        api::Role::Customer => Some(Role::Customer),
        api::Role::Peer => Some(Role::Peer),
        api::Role::RouteServer => Some(Role::RouteServer),
        api::Role::RouteServerClient => Some(Role::RouteServerClient),
        api::Role::Unknown(_) => None,
    }
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
