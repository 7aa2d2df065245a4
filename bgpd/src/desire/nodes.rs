//! Sessions with other nodes of ours: those of the topology, and those that a BGPPeer with `peerNodeSelector` makes.
//!
//! A pair of nodes has one session. It is the one of the oldest BGPPeer that selects one of them and whose
//! `peerNodeSelector` selects the other, whichever way round; else the topology's. Both ends come to the same, from the
//! same objects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bgp_proto::config::{PeerConfig, RemoteAsn, SpeakerConfig};
use bgp_proto::policy::{ExportPolicy, ImportPolicy};
use bgp_proto::{AfiSafi, PeerName};
use ipnet::IpNet;
use kube::ResourceExt as _;
use manx_crds::acceptance;
use manx_crds::v1alpha1 as api;
use manx_crds::v1alpha1::selector::selects_opt;
use manx_crds::v1alpha1::settings;
use manx_crds::v1alpha1::{BGPPeer, EffectiveSession, FabricNode, TOPOLOGY_PEER};

use super::{Desire, LinkAddresses, World, apply, families, oldest_first};
use crate::auth;
use crate::bfd;
use crate::filters;
use crate::mesh::{self, Identity, Link, Mesh, Wanted};
use crate::objects::Objects;

type Labels = BTreeMap<String, String>;

/// For how long reflectors go on after everybody was told to speak to everybody: whoever is slow has heard by then.
const HANDOVER: Duration = Duration::from_secs(30);
/// After so long one reflector of several is enough.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which nodes speak to which, as the configuration and its status say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Topology {
    #[default]
    None,
    FullMesh,
    /// These nodes are elected.
    RouteReflector(BTreeSet<String>),
}

impl Topology {
    /// Reflectors are wanted and none is elected yet: sessions between nodes that run go on.
    fn awaits_reflectors(&self) -> bool {
        match self {
            Self::RouteReflector(elected) => elected.is_empty(),
            Self::None | Self::FullMesh => false,
        }
    }
}

impl World<'_> {
    pub(super) fn mesh(
        &self,
        identity: &Identity,
        node_name: &str,
        labels: &Labels,
        desire: &mut Desire,
    ) -> Mesh {
        desire.topology = match acceptance::topology(self.configuration) {
            Ok(()) => self.topology(),
            Err(refusal) => {
                desire.refused.insert(TOPOLOGY_PEER.to_owned(), refusal);
                Topology::None
            }
        };
        desire.reflectors = self.reflectors(&desire.topology);
        let (all, reflectors) = (desire.topology == Topology::FullMesh, desire.reflectors.clone());
        if desire.topology.awaits_reflectors() {
            let text = "no route reflector is elected: TopologyReady of FabricConfiguration default says why";
            desire.remarks.push(text.to_owned());
        }
        let with_nodes: Vec<&BGPPeer> =
            self.objects.peers.iter().filter(|peer| self.joins_nodes(peer)).collect();
        let with_nodes = oldest_first(&with_nodes);
        let class = |other: &FabricNode| {
            let chosen = with_nodes.iter().find(|peer| joins(peer, labels, other.labels()));
            let one_reflects = || reflectors.contains(node_name) || reflectors.contains(&other.name_any());
            chosen
                .map(|peer| peer.name_any())
                .or_else(|| (all || one_reflects()).then(|| TOPOLOGY_PEER.to_owned()))
        };
        let any = all || !reflectors.is_empty() || !with_nodes.is_empty();
        let wanted = Wanted { any, class: &class, reflectors: &reflectors };
        mesh::mesh(self.configuration, identity, node_name, self.objects.fabric_nodes.iter(), &wanted)
    }

    fn topology(&self) -> Topology {
        match settings::topology_mode(self.configuration) {
            api::TopologyMode::RouteReflector => {
                let status = self.configuration.and_then(|object| object.status.as_ref());
                let elected = status.map(|status| status.route_reflectors.as_slice()).unwrap_or_default();
                Topology::RouteReflector(elected.iter().map(|one| one.node_name.clone()).collect())
            }
            api::TopologyMode::FullMesh => Topology::FullMesh,
            api::TopologyMode::None | api::TopologyMode::Unknown(_) => Topology::None,
        }
    }

    /// Who reflects: those that are elected; and where everybody is to speak to everybody from now on, those of before, until
    /// everybody does.
    fn reflectors(&self, topology: &Topology) -> BTreeSet<String> {
        match topology {
            Topology::RouteReflector(elected) => elected.clone(),
            Topology::FullMesh if self.changed_for(topology) < HANDOVER => self.running.reflectors.clone(),
            Topology::FullMesh | Topology::None => BTreeSet::new(),
        }
    }

    fn changed_for(&self, topology: &Topology) -> Duration {
        if self.running.topology == topology { self.running.settled_for } else { Duration::ZERO }
    }

    /// Make before break: what runs goes on until what replaces it carries the same routes. A client keeps its sessions with
    /// other clients until those with its reflectors stand; where one of these does not come, another is enough after a
    /// while. `of` says as which peer we speak to a link's node.
    pub(super) fn keep_mesh(
        &self,
        node_name: &str,
        of: &dyn Fn(&PeerName, &Link) -> PeerName,
        links: &mut BTreeMap<PeerName, Link>,
        desire: &mut Desire,
    ) {
        let elected = match &desire.topology {
            Topology::RouteReflector(elected) => elected,
            Topology::FullMesh => {
                desire.is_changing = !desire.reflectors.is_empty();
                return;
            }
            Topology::None => return,
        };
        let carries = |node: &String| {
            let mut names = links.iter().filter(|(_, link)| link.node == *node);
            names.any(|(name, link)| (self.running.carries)(&of(name, link)))
        };
        let has_changed = elected.contains(node_name)
            || self.running.topology == &desire.topology
                && elected.iter().any(carries)
                && (elected.iter().all(carries) || self.changed_for(&desire.topology) >= PATIENCE);
        if has_changed {
            return;
        }
        let is_there = |link: &Link| self.objects.fabric_nodes.named(&link.node).is_some();
        let kept = self.running.mesh.iter();
        let kept = kept.filter(|(_, link)| link.class == TOPOLOGY_PEER && is_there(link));
        let kept: Vec<_> = kept.filter(|(name, _)| !links.contains_key(*name)).collect();
        desire.is_changing = !kept.is_empty() && !elected.is_empty();
        links.extend(kept.into_iter().map(|(name, link)| (name.clone(), link.clone())));
    }

    fn joins_nodes(&self, peer: &BGPPeer) -> bool {
        peer.spec.peer_node_selector.is_some() && acceptance::bgp_peer(peer).is_ok()
    }

    /// Another node of ours, over the nodes' addresses.
    pub(super) fn add_node(
        &self,
        name: PeerName,
        link: Link,
        import: &ImportPolicy,
        config: &mut SpeakerConfig,
        desire: &mut Desire,
    ) {
        if config.peers.contains_key(&name) {
            desire
                .remarks
                .push(format!("no session with {}: BGPPeer {name} has the name of that session", link.node));
            return;
        }
        let of_class = self.objects.peers.named(&link.class);
        let (session, own, [auth_field, bfd_field]) = match of_class {
            Some(peer) => (
                EffectiveSession::of_peer(peer, self.configuration),
                peer.spec.session.as_ref(),
                ["spec.session.auth", "spec.session.bfdProfile"],
            ),
            None => (
                EffectiveSession::of_topology(self.configuration),
                self.configuration.and_then(|c| c.spec.topology.as_ref()?.session.as_ref()),
                ["spec.topology.session.auth", "spec.topology.session.bfdProfile"],
            ),
        };
        let has_profile = own.is_some_and(|own| own.bfd_profile.is_some());
        let profile = bfd::profile_field(has_profile, bfd_field);
        bfd::require(&session, profile, self.objects, &name, desire);
        let mut one = self.node_peer(&link, of_class, import.clone());
        apply(&session, &mut one);
        auth::require(&session, auth_field, self.objects, IpNet::from(link.remote), &mut one, desire);
        let why = "the node's address, as between all our nodes";
        desire.source_reasons.insert(name.clone(), why.to_owned());
        let filters = of_class.map(|peer| &peer.spec.filters).map_or(&[][..], Vec::as_slice);
        match filters::filters(filters, self.objects, self.configuration) {
            Ok(filters) => drop(config.peers.insert(name.clone(), filters.put_into(one))),
            Err(refusal) => {
                desire.refused.insert(link.class.clone(), refusal);
                desire.unfiltered.insert(name.clone(), one);
            }
        }
        desire.mesh.insert(name, link);
    }

    fn node_peer(&self, link: &Link, of_class: Option<&BGPPeer>, import: ImportPolicy) -> PeerConfig {
        let spec = of_class.map(|peer| &peer.spec);
        // Learned routes are told to no node (api.md §5), unless a person wants it.
        let drained = self.effective.admin_state == api::AdminState::Drained;
        let export = spec
            .map_or_else(|| ExportPolicy { drained, ..ExportPolicy::default() }, |spec| self.export(spec));
        let allow_own_asn = spec.and_then(|spec| spec.allow_own_asn).unwrap_or(0);
        let import = ImportPolicy { allow_own_asn, ..import };
        let mut config = PeerConfig::new(link.remote, RemoteAsn::Exactly(link.asn), import, export);
        config.port = link.port;
        config.passive = !link.dials;
        // Nodes may be any number of subnets apart.
        config.max_hops = spec.and_then(|spec| spec.max_hops).unwrap_or(u8::MAX);
        config.local_address = Some(link.local);
        config.reflector_client = link.client;
        config.next_hop = self.next_hop(&LinkAddresses::default());
        config.admin = self.admin(&api::AdminState::Up, None);
        if let Some(spec) = spec {
            config.families = families(spec);
            config.admin = self.admin(&spec.admin_state, spec.admin_message.as_ref());
        }
        if !config.families.contains(&AfiSafi::Ipv4Unicast) {
            config.next_hop.ipv4 = None;
        }
        if !config.families.contains(&AfiSafi::Ipv6Unicast) {
            config.next_hop.ipv6 = None;
        }
        config
    }

    /// Blocks of other nodes, and what some BGPAdvertisement with `interNode` may make them tell.
    pub(super) fn node_import(&self) -> ImportPolicy {
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
}

/// Whether a BGPPeer makes a session between two nodes with these labels, whichever of them it selects.
fn joins(peer: &BGPPeer, one: &Labels, other: &Labels) -> bool {
    let (nodes, peers) = (peer.spec.node_selector.as_ref(), peer.spec.peer_node_selector.as_ref());
    selects_opt(nodes, one) && selects_opt(peers, other)
        || selects_opt(nodes, other) && selects_opt(peers, one)
}

fn everything() -> [IpNet; 2] {
    [IpNet::from(ipnet::Ipv4Net::default()), IpNet::from(ipnet::Ipv6Net::default())]
}

/// Whether somebody tells our nodes a default route on purpose.
fn advertised_default(objects: &Objects) -> bool {
    let between_nodes = objects.advertisements.iter().filter(|a| a.spec.inter_node);
    between_nodes.flat_map(|a| &a.spec.prefixes).any(|prefix| prefix.cidr.net().prefix_len() == 0)
}
