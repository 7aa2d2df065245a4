//! What should be: a pure function of the objects, recomputed whole and compared, never edited.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bgp_proto::bfd::Timing;
use bgp_proto::config::{
    AddPath, AdminState, GracefulRestart, GracefulRestartMode, MaxPrefixes, MaxPrefixesAction, NextHopSelf,
    PeerConfig, RangeConfig, RemoteAsn, SpeakerConfig,
};
use bgp_proto::policy::{ExportPolicy, Filter, ImportPolicy, NextHopMode};
use bgp_proto::wire::Role;
use bgp_proto::{AfiSafi, Asn, PeerName};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use manx_crds::acceptance::{self, Refusal};
use manx_crds::services;
use manx_crds::v1alpha1 as api;
use manx_crds::v1alpha1::settings::{self, EffectiveNode};
use manx_crds::v1alpha1::{BGPPeer, EffectiveSession, FabricConfiguration};
use manx_daemon::secrets::SessionKey;

use crate::auth::{self, SecretKey};
use crate::bfd;
use crate::filters;
use crate::mesh::{self, Identity, Link, Mesh};
use crate::objects::Objects;
use crate::originate::{Export, Facts};
use crate::unnumbered::Place;

/// Everything that follows from the objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Desire {
    /// None: this node speaks no BGP, and `problem` says why.
    pub(crate) speaker: Option<SpeakerConfig>,
    pub(crate) problem: Option<Refusal>,
    /// `problem` is a conflict with an older node: sessions that run go on as they are, none is started.
    pub(crate) is_twin: bool,
    /// Where to listen; 0 nowhere.
    pub(crate) port: u16,
    pub(crate) export: Export,
    /// No Service is announced from here: the node says so.
    pub(crate) is_excluded: bool,
    /// Own blocks: what no pod has ends here.
    pub(crate) blackholes: BTreeSet<IpNet>,
    /// Node-to-node sessions, by the name of the peer in `speaker`.
    pub(crate) mesh: BTreeMap<PeerName, Link>,
    /// Addresses of nodes whose routes reflectors tell.
    pub(crate) reflected: BTreeSet<IpAddr>,
    /// Whose segments are signed, and with what; none: the key is missing, and the session is not tried.
    pub(crate) keys: BTreeMap<IpNet, Option<SessionKey>>,
    /// Why each session runs from the address that it runs from.
    pub(crate) source_reasons: BTreeMap<PeerName, String>,
    /// How the sessions are timed whose path BFD watches; those of a range by its name.
    pub(crate) bfd: BTreeMap<PeerName, Timing>,
    /// Sessions whose BFDProfile is not there, with what is missing; empty once it was decided what follows.
    pub(crate) bfd_missing: BTreeMap<PeerName, String>,
    /// Interfaces whose neighbour is to be found, and for which session.
    pub(crate) interfaces: BTreeMap<String, PeerName>,
    /// What sessions of this node read of Secrets.
    pub(crate) secrets: BTreeSet<SecretKey>,
    /// What starts no session: BGPPeers of this node by name, and `topology`.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// Sessions whose filters are not there, as they would be without any; of those that run the last filters stay in force.
    pub(crate) unfiltered: BTreeMap<PeerName, PeerConfig>,
    pub(crate) unfiltered_ranges: BTreeMap<PeerName, RangeConfig>,
    /// Which nodes are to speak to which.
    pub(crate) topology: Topology,
    /// The nodes that reflect routes, for now.
    pub(crate) reflectors: BTreeSet<String>,
    /// What ran is kept until what is to replace it carries its routes.
    pub(crate) is_changing: bool,
    /// A person drains this node (RFC 8326).
    pub(crate) is_drained: bool,
    /// Why there can be no node-to-node session from here.
    pub(crate) homeless: Option<String>,
    /// Facts that are worth a sentence in BGPReady though nothing is wrong with a session.
    pub(crate) remarks: Vec<String>,
    /// Where BMP goes.
    pub(crate) stations: BTreeSet<SocketAddr>,
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
        self.keep_filters(last);
        bfd::resolve_missing(&mut self, last);
        if self.is_twin {
            self.speaker = last.speaker.clone();
            self.port = last.port;
            self.bfd = last.bfd.clone();
            let newest = |address| self.keys.get(address).cloned();
            self.keys =
                last.keys.iter().map(|(a, key)| (*a, newest(a).unwrap_or_else(|| key.clone()))).collect();
            return self;
        }
        if self.speaker.is_some() || last.speaker.is_none() {
            return self;
        }
        let Self { problem, generation, stations, .. } = self;
        Self { problem, generation, stations, ..last.clone() }
    }

    /// A session whose filters went keeps those that it had: without them it would let in and out what they withhold. One that
    /// never had them is not started.
    fn keep_filters(&mut self, last: &Self) {
        let Some(speaker) = &mut self.speaker else { return };
        for (name, mut config) in std::mem::take(&mut self.unfiltered) {
            let Some(before) = last.speaker.as_ref().and_then(|speaker| speaker.peers.get(&name)) else {
                continue;
            };
            keep_filters_of(before, &mut config);
            speaker.peers.insert(name, config);
        }
        for (name, mut range) in std::mem::take(&mut self.unfiltered_ranges) {
            let Some(before) = last.speaker.as_ref().and_then(|speaker| speaker.ranges.get(&name)) else {
                continue;
            };
            keep_filters_of(&before.peer, &mut range.peer);
            speaker.ranges.insert(name, range);
        }
    }

    /// The other nodes' addresses: next hops that their sessions prove, or those of their reflectors.
    pub(crate) fn mesh_addresses(&self) -> BTreeSet<IpAddr> {
        let links = self.mesh.values().flat_map(|link| link.addresses.iter());
        links.chain(&self.reflected).copied().collect()
    }

    /// Whether this end writes the session's BGPSession: between two of our nodes the one that dials does.
    pub(crate) fn reports(&self, peer: &PeerName) -> bool {
        self.mesh.get(peer).is_none_or(|link| link.dials)
    }

    /// What a session's BGPSession calls its other end: an address, or the interface behind which it is.
    pub(crate) fn remote_of(&self, peer: &PeerName, config: &PeerConfig) -> String {
        let interface = self.interfaces.iter().find(|(_, of)| *of == peer);
        interface.map_or_else(|| config.remote.to_string(), |(name, _)| name.clone())
    }

    /// A session's peer as people name it: a BGPPeer, or `topology`.
    pub(crate) fn class_of<'a>(&'a self, peer: &'a PeerName) -> &'a str {
        self.mesh.get(peer).map_or(peer.as_str(), |link| link.class.as_str())
    }
}

/// Our addresses on one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LinkAddresses {
    /// The interface; none: no route leads to the peer.
    pub(crate) name: Option<String>,
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// Global, never link-local.
    pub(crate) ipv6: Option<Ipv6Addr>,
}

impl LinkAddresses {
    fn of(&self, family: AfiSafi) -> Option<IpAddr> {
        match family {
            AfiSafi::Ipv4Unicast => self.ipv4.map(IpAddr::V4),
            AfiSafi::Ipv6Unicast => self.ipv6.map(IpAddr::V6),
        }
    }
}

/// This node's interfaces, as the kernel has them now.
pub(crate) struct Links<'a> {
    /// The one by which an address is reached.
    pub(crate) towards: &'a dyn Fn(IpAddr) -> LinkAddresses,
    /// The one of this name.
    pub(crate) named: &'a dyn Fn(&str) -> Option<LinkAddresses>,
    /// Whether packets can leave through the one of this name.
    pub(crate) is_up: &'a dyn Fn(&str) -> bool,
    /// Who is at the other end of the one of this name.
    pub(crate) on: &'a dyn Fn(&str) -> Place,
}

/// What runs, as it bears on what should.
pub(crate) struct Running<'a> {
    /// The node-to-node sessions of before.
    pub(crate) mesh: &'a BTreeMap<PeerName, Link>,
    /// The topology of before, and for how long nothing else was asked for.
    pub(crate) topology: &'a Topology,
    pub(crate) settled_for: Duration,
    /// Who reflected.
    pub(crate) reflectors: &'a BTreeSet<String>,
    /// Whether a session with a reflector stands long enough for others to be ended on its account.
    pub(crate) carries: &'a dyn Fn(&PeerName) -> bool,
}

/// Works out what should be.
pub(crate) fn desire(objects: &Objects, node_name: &str, links: &Links<'_>, running: &Running<'_>) -> Desire {
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
        stations: stations(configuration),
        is_drained: effective.admin_state == api::AdminState::Drained,
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
        running,
    };
    let chosen: Vec<&BGPPeer> = objects
        .peers
        .iter()
        .filter(|peer| api::selector::selects_opt(peer.spec.node_selector.as_ref(), &labels))
        .collect();
    desire.speaker = Some(world.speaker(&identity, node_name, &labels, &chosen, &mut desire));
    desire.export = Export::of(&Facts {
        objects,
        configuration,
        labels: &labels,
        blocks: &blocks,
        addresses: addresses.values().map(|address| IpNet::from(*address)).collect(),
        is_up: links.is_up,
        peers: &chosen,
        node_sessions: desire.mesh.keys().cloned().collect(),
    });
    desire
}

/// `spec.bmpStations`; one that is named twice is one.
fn stations(configuration: Option<&FabricConfiguration>) -> BTreeSet<SocketAddr> {
    let stations = configuration.into_iter().flat_map(|configuration| &configuration.spec.bmp_stations);
    stations.map(|station| SocketAddr::new(station.address.0, station.port)).collect()
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

/// What has a BGPPeer already, by name: the older one of two is served.
#[derive(Default)]
struct Taken {
    addresses: BTreeMap<IpAddr, String>,
    interfaces: BTreeMap<String, String>,
    ranges: BTreeMap<IpNet, String>,
}

struct World<'a> {
    objects: &'a Objects,
    configuration: Option<&'a FabricConfiguration>,
    effective: &'a EffectiveNode,
    addresses: &'a BTreeMap<AfiSafi, IpAddr>,
    blocks: &'a BTreeMap<IpNet, String>,
    links: &'a Links<'a>,
    running: &'a Running<'a>,
}

impl World<'_> {
    /// The speaker with all its peers; what starts no session, and why, goes into `desire`.
    fn speaker(
        &self,
        identity: &Identity,
        node_name: &str,
        labels: &BTreeMap<String, String>,
        chosen: &[&BGPPeer],
        desire: &mut Desire,
    ) -> SpeakerConfig {
        let mut config = SpeakerConfig::new(identity.asn, identity.router_id);
        config.max_paths = settings::max_paths(self.configuration);
        let mut taken = Taken::default();
        for peer in oldest_first(chosen) {
            if let Err(refusal) = self.add(peer, &mut taken, &mut config, desire) {
                desire.refused.insert(peer.name_any(), refusal);
            }
        }
        let Mesh { mut links, reflected, conflict, homeless, remarks } =
            self.mesh(identity, node_name, labels, desire);
        // A person's word on that neighbour.
        let of = |name: &PeerName, link: &Link| match taken.addresses.get(&link.remote) {
            Some(peer) => PeerName::from(peer.as_str()),
            None => name.clone(),
        };
        self.keep_mesh(node_name, &of, &mut links, desire);
        if desire.is_changing {
            let text =
                "the topology changes: sessions with other nodes are kept until new ones carry their routes";
            desire.remarks.push(text.to_owned());
        }
        desire.reflected = reflected;
        desire.remarks.extend(remarks);
        desire.homeless = homeless;
        desire.is_twin = conflict.is_some();
        desire.problem = conflict;
        let import = self.node_import();
        for (name, link) in links {
            // A person's word on that neighbour.
            if let Some(peer) = taken.addresses.get(&link.remote) {
                desire.remarks.push(format!("node {} is spoken to as BGPPeer {peer} says", link.node));
                continue;
            }
            self.add_node(name, link, &import, &mut config, desire);
        }
        config
    }

    /// What a BGPPeer asks for on this node. Nodes as neighbours come with the node-to-node sessions.
    fn add(
        &self,
        peer: &BGPPeer,
        taken: &mut Taken,
        config: &mut SpeakerConfig,
        desire: &mut Desire,
    ) -> Result<(), Refusal> {
        acceptance::bgp_peer(peer)?;
        let session = EffectiveSession::of_peer(peer, self.configuration);
        let name = PeerName::from(peer.name_any().as_str());
        let filters = filters::filters(&peer.spec.filters, self.objects, self.configuration);
        let own = peer.spec.session.as_ref().is_some_and(|own| own.bfd_profile.is_some());
        let profile = bfd::profile_field(own, "spec.session.bfdProfile");
        let neighbor = peer.spec.neighbor();
        match &neighbor {
            Some(api::Neighbor::Address(_) | api::Neighbor::Interface(_)) => {
                let (mut one, source) = self.single(peer, neighbor.as_ref(), taken, desire)?;
                let whose = IpNet::from(one.remote);
                auth::require(&session, "spec.session.auth", self.objects, whose, &mut one, desire);
                desire.source_reasons.insert(name.clone(), source);
                bfd::require(&session, profile, self.objects, &name, desire);
                match filters {
                    Ok(filters) => drop(config.peers.insert(name, filters.put_into(one))),
                    Err(refusal) => {
                        desire.unfiltered.insert(name, one);
                        return Err(refusal);
                    }
                }
            }
            Some(api::Neighbor::ListenRange(prefix)) => {
                let (mut range, source) = self.range(peer, prefix.net(), taken)?;
                let whose = range.prefix;
                auth::require(&session, "spec.session.auth", self.objects, whose, &mut range.peer, desire);
                desire.source_reasons.insert(name.clone(), source);
                bfd::require(&session, profile, self.objects, &name, desire);
                match filters {
                    Ok(filters) => {
                        range.peer = filters.put_into(range.peer);
                        config.ranges.insert(name, range);
                    }
                    Err(refusal) => {
                        desire.unfiltered_ranges.insert(name, range);
                        return Err(refusal);
                    }
                }
            }
            Some(api::Neighbor::Nodes(_)) => {}
            None => return Err(nobody_named()),
        }
        Ok(())
    }

    /// The session of a BGPPeer with one neighbour.
    fn single(
        &self,
        peer: &BGPPeer,
        neighbor: Option<&api::Neighbor>,
        taken: &mut Taken,
        desire: &mut Desire,
    ) -> Result<(PeerConfig, String), Refusal> {
        match neighbor {
            Some(api::Neighbor::Address(remote)) => self.peer(peer, *remote, taken),
            Some(api::Neighbor::Interface(name)) => self.on_interface(peer, name, taken, desire),
            Some(api::Neighbor::ListenRange(_) | api::Neighbor::Nodes(_)) | None => Err(nobody_named()),
        }
    }

    /// The session of a BGPPeer with an address, and why it runs from the address that it runs from.
    fn peer(
        &self,
        peer: &BGPPeer,
        remote: IpAddr,
        taken: &mut Taken,
    ) -> Result<(PeerConfig, String), Refusal> {
        let spec = &peer.spec;
        if self.addresses.values().any(|own| *own == remote) {
            return Err(refusal(
                "AddressIsOurs",
                format!("spec.address {remote} is this node's own address"),
            ));
        }
        if let Some(older) = taken.addresses.get(&remote) {
            let text = format!("spec.address {remote} is served by the older BGPPeer {older}");
            return Err(refusal("OverlapsPeer", text));
        }
        if spec.passive && self.effective.bgp_port == 0 {
            let text = "spec.passive waits for the peer to dial, but node.bgpPort 0 listens nowhere";
            return Err(refusal("NoListener", text.to_owned()));
        }
        let settings = self.settings(peer, remote)?;
        taken.addresses.insert(remote, peer.name_any());
        Ok(settings)
    }

    /// The settings of a session with one neighbour, and why it runs from the address that it runs from.
    fn settings(&self, peer: &BGPPeer, remote: IpAddr) -> Result<(PeerConfig, String), Refusal> {
        let spec = &peer.spec;
        let remote_asn = match (&spec.asn, &spec.asn_type) {
            (Some(asn), _) => RemoteAsn::Exactly(Asn(asn.0)),
            (None, Some(api::AsnType::External)) => RemoteAsn::External,
            (None, Some(api::AsnType::Internal)) => RemoteAsn::Internal,
            (None, _) => {
                return Err(refusal("UnknownValue", "exactly one of asn, asnType must be set".to_owned()));
            }
        };
        let mut config = PeerConfig::new(remote, remote_asn, self.import(peer), self.export(spec));
        config.port = spec.port.unwrap_or(settings::DEFAULT_BGP_PORT);
        config.local_asn = spec.local_asn.map(|asn| Asn(asn.0));
        config.families = families(spec);
        config.passive = spec.passive;
        config.max_hops = self.hops(spec, remote_asn);
        config.admin = self.admin(&spec.admin_state, spec.admin_message.as_ref());
        let (source, link) = self.source(spec, &mut config);
        config.next_hop = self.next_hop(&link);
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
        Ok((config, source))
    }

    fn hops(&self, spec: &api::BGPPeerSpec, remote_asn: RemoteAsn) -> u8 {
        if spec.interface.is_some() {
            return 1;
        }
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
    fn next_hop(&self, link: &LinkAddresses) -> NextHopSelf {
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

    /// Own routes, and with `transit` learned ones; the filters are put in by whoever has them.
    fn export(&self, spec: &api::BGPPeerSpec) -> ExportPolicy {
        let next_hop = match spec.next_hop {
            api::NextHop::Own => NextHopMode::Own,
            api::NextHop::Keep => NextHopMode::Keep,
            // A newer schema's is refused by acceptance.
            api::NextHop::Auto | api::NextHop::Unknown(_) => NextHopMode::Auto,
        };
        let drained = [&self.effective.admin_state, &spec.admin_state].contains(&&api::AdminState::Drained);
        ExportPolicy { transit: spec.transit, next_hop, drained, ..ExportPolicy::default() }
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

    fn pools(&self) -> impl Iterator<Item = IpNet> {
        self.objects.pools.iter().map(|pool| pool.spec.cidr.net())
    }

    /// Own blocks and addresses, which nobody else tells us of.
    fn own(&self) -> BTreeSet<IpNet> {
        let addresses = self.addresses.values().map(|ip| IpNet::from(*ip));
        self.blocks.keys().copied().chain(addresses).collect()
    }
}

fn keep_filters_of(before: &PeerConfig, now: &mut PeerConfig) {
    now.import.filter.clone_from(&before.import.filter);
    now.export.filter.clone_from(&before.export.filter);
}

fn apply(session: &EffectiveSession, config: &mut PeerConfig) {
    config.ttl_security = session.ttl_security;
    config.hold_time = session.hold;
    config.keepalive = Some(session.keepalive).filter(|k| !k.is_zero());
    config.connect_retry = session.connect_retry;
    config.graceful_restart = graceful_restart(session);
    config.max_prefixes = max_prefixes(session);
    config.add_path =
        AddPath { receive: session.add_path_receive, send: session.add_path_send.unwrap_or_default() };
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

fn nobody_named() -> Refusal {
    let text = "exactly one of address, interface, listenRange, peerNodeSelector must be set";
    refusal("UnknownValue", text.to_owned())
}

fn refusal(reason: &'static str, message: String) -> Refusal {
    Refusal { reason, message }
}

mod interface;
mod nodes;
pub(crate) use nodes::Topology;
#[cfg(test)]
mod policy_tests;
mod range;
mod source;
#[cfg(test)]
pub(crate) mod tests;
