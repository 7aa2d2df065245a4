//! What this node originates, to whom, with which attributes (api.md §5, §5.3).
//!
//! ```text
//!   BGPAdvertisements ─► Teller: its peers, its attributes ──────┐
//!   blocks, addresses, prefixes ─► prefix → origins (Export) ────┼─► routes(prefix) ─► Originate, Withdraw
//!   Services ─► prefix → origins (ServiceIndex, incremental) ────┘
//! ```
//! A prefix has origins, an origin has a teller; what a peer is told follows from both. So a change of one Service
//! costs its prefixes, and a change of peers or attributes costs one walk over all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bgp_proto::policy::{Source, Sources};
use bgp_proto::route::{Audience, OwnRoute};
use bgp_proto::{AfiSafi, Input, PeerName};
use ipnet::IpNet;
use kube::ResourceExt as _;
use manx_crds::acceptance;
use manx_crds::community::{self, Resolved};
use manx_crds::services::{Gates, ServiceIndex};
use manx_crds::store::Key;
use manx_crds::v1alpha1 as api;
use manx_crds::v1alpha1::selector::selects_opt;
use manx_crds::v1alpha1::{BGPAdvertisement, BGPPeer, FabricConfiguration, ServiceAdvertisement};

use crate::objects::Objects;

/// Who says that a prefix is ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// It is a block of this node: told over node-to-node sessions, always.
    Block,
    /// A BGPAdvertisement, by name.
    Advertisement(String),
}

/// Whom an origin tells, and what it attaches.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Teller {
    peers: BTreeSet<PeerName>,
    /// Of this the audience means nothing.
    attributes: OwnRoute,
}

/// Everything that decides what is originated, but for the Services.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Export {
    tellers: BTreeMap<Origin, Teller>,
    prefixes: BTreeMap<IpNet, BTreeSet<Origin>>,
    /// The `services` part of the advertisements in force here.
    pub(crate) services: BTreeMap<String, ServiceAdvertisement>,
    /// Prefixes that they announce only while a Service has a ready endpoint here: they come with the Services.
    pub(crate) gates: Gates,
}

/// What [`Export::of`] needs to know of this node.
pub(crate) struct Facts<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) configuration: Option<&'a FabricConfiguration>,
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// Own blocks and the pool of each.
    pub(crate) blocks: &'a BTreeMap<IpNet, String>,
    /// This node's addresses, as host routes.
    pub(crate) addresses: BTreeSet<IpNet>,
    /// Whether packets can leave through the interface of this name.
    pub(crate) is_up: &'a dyn Fn(&str) -> bool,
    /// The BGPPeers that select this node.
    pub(crate) peers: &'a [&'a BGPPeer],
    /// Node-to-node sessions.
    pub(crate) node_sessions: BTreeSet<PeerName>,
}

impl Export {
    pub(crate) fn of(facts: &Facts<'_>) -> Self {
        let mut export = Self::default();
        for block in facts.blocks.keys() {
            export.prefixes.entry(*block).or_default().insert(Origin::Block);
        }
        let attributes = OwnRoute { sources: Source::Block.into(), ..OwnRoute::default() };
        let blocks = Teller { peers: facts.node_sessions.clone(), attributes };
        export.tellers.insert(Origin::Block, blocks);
        for advertisement in facts.objects.advertisements.iter() {
            if !selects_opt(advertisement.spec.node_selector.as_ref(), facts.labels)
                || acceptance::bgp_advertisement(advertisement, facts.configuration).is_err()
            {
                continue;
            }
            let name = advertisement.name_any();
            let origin = Origin::Advertisement(name.clone());
            for prefix in facts.prefixes(advertisement) {
                export.prefixes.entry(prefix).or_default().insert(origin.clone());
            }
            let gates = gates(&advertisement.spec);
            if !gates.is_empty() {
                export.gates.insert(name.clone(), gates);
            }
            if let Some(services) = &advertisement.spec.services {
                export.services.insert(name, services.clone());
            }
            export.tellers.insert(origin, facts.teller(advertisement));
        }
        export
    }

    /// Who says that a prefix is ours, ascending.
    pub(crate) fn origins(&self, prefix: &IpNet, services: &ServiceIndex) -> BTreeSet<Origin> {
        let own = self.prefixes.get(prefix).into_iter().flatten().cloned();
        let of_services = services.origins(prefix).map(|name| Origin::Advertisement(name.to_owned()));
        own.chain(of_services).collect()
    }

    /// How a prefix is told: with the attributes of all origins that name a peer; peers that are told alike share one
    /// entry. Empty: it is told to nobody.
    pub(crate) fn routes(&self, prefix: &IpNet, services: &ServiceIndex) -> Vec<OwnRoute> {
        // Ascending: of several advertisements the first by name decides.
        let origins = self.origins(prefix, services);
        let mut by_peer: BTreeMap<&PeerName, OwnRoute> = BTreeMap::new();
        for teller in origins.iter().filter_map(|origin| self.tellers.get(origin)) {
            for peer in &teller.peers {
                unite(by_peer.entry(peer).or_default(), &teller.attributes);
            }
        }
        share(by_peer)
    }

    fn all<'a>(&'a self, services: &'a ServiceIndex) -> BTreeSet<IpNet> {
        self.prefixes.keys().copied().chain(services.prefixes().map(|(prefix, _)| prefix)).collect()
    }
}

impl Facts<'_> {
    /// What an advertisement originates here, but for Services.
    fn prefixes(&self, advertisement: &BGPAdvertisement) -> BTreeSet<IpNet> {
        let spec = &advertisement.spec;
        let open = spec.prefixes.iter().filter(|prefix| match &prefix.gate {
            None => true,
            Some(gate) => gate.interface.as_ref().is_some_and(|interface| (self.is_up)(interface)),
        });
        let mut prefixes: BTreeSet<IpNet> = open.map(|prefix| prefix.cidr.net()).collect();
        if spec.node_addresses.is_some() {
            prefixes.extend(&self.addresses);
        }
        if let Some(pools) = &spec.pools {
            prefixes.extend(self.of_pools(pools));
        }
        prefixes
    }

    fn of_pools(&self, pools: &api::PoolAdvertisement) -> BTreeSet<IpNet> {
        let chosen: BTreeMap<String, IpNet> = self
            .objects
            .pools
            .iter()
            .filter(|pool| selects_opt(pools.pool_selector.as_ref(), pool.labels()))
            .map(|pool| (pool.name_any(), pool.spec.cidr.net()))
            .collect();
        let mut prefixes = BTreeSet::new();
        for (block, pool) in self.blocks {
            match (chosen.get(pool), &pools.announce) {
                (Some(_), api::PoolAnnounce::Blocks) => drop(prefixes.insert(*block)),
                (Some(cidr), api::PoolAnnounce::CIDR) => drop(prefixes.insert(*cidr)),
                (Some(_), api::PoolAnnounce::Unknown(_)) | (None, _) => {}
            }
        }
        prefixes
    }

    fn teller(&self, advertisement: &BGPAdvertisement) -> Teller {
        let spec = &advertisement.spec;
        let selected = self.peers.iter().filter(|p| selects_opt(spec.peer_selector.as_ref(), p.labels()));
        let mut peers: BTreeSet<PeerName> =
            selected.map(|peer| PeerName::from(peer.name_any().as_str())).collect();
        // Node-to-node sessions run on the nodes' addresses: a route to one, learned over its own session, would lead to
        // itself (RFC 4271 §9.1.2.1).
        if spec.inter_node && spec.node_addresses.is_none() {
            peers.extend(self.node_sessions.iter().cloned());
        }
        Teller { peers, attributes: self.attributes(advertisement) }
    }

    fn attributes(&self, advertisement: &BGPAdvertisement) -> OwnRoute {
        let mut route = OwnRoute { sources: sources(&advertisement.spec), ..OwnRoute::default() };
        let Some(attributes) = &advertisement.spec.attributes else { return route };
        for community in &attributes.communities {
            match community::resolve(community, self.configuration) {
                Some(Resolved::Standard(value)) => drop(route.communities.insert(value)),
                Some(Resolved::Large(value)) => drop(route.large_communities.insert(value)),
                // acceptance::bgp_advertisement refuses the whole advertisement.
                None => {}
            }
        }
        route.local_pref = attributes.local_preference;
        route.med = attributes.med;
        route.prepend = attributes.prepend.unwrap_or(0);
        route
    }
}

/// The prefixes of an advertisement that wait for Services, and for which. One that is listed twice is announced while
/// either gate is open.
fn gates(spec: &api::BGPAdvertisementSpec) -> BTreeSet<(Key, IpNet)> {
    let gated = spec.prefixes.iter().filter_map(|prefix| {
        let service = prefix.gate.as_ref()?.service.as_ref()?;
        Some((Key::namespaced(&service.namespace, &service.name), prefix.cidr.net()))
    });
    gated.collect()
}

/// How what an advertisement originates came to be here, for filters.
fn sources(spec: &api::BGPAdvertisementSpec) -> Sources {
    let all = [
        spec.pools.as_ref().map(|_| Source::Block),
        spec.services.as_ref().map(|_| Source::Service),
        spec.node_addresses.as_ref().map(|_| Source::NodeAddress),
        (!spec.prefixes.is_empty()).then_some(Source::Static),
    ];
    all.into_iter().flatten().collect()
}

/// Communities and sources are united; the rest stays as the first set it.
fn unite(route: &mut OwnRoute, with: &OwnRoute) {
    route.communities.extend(&with.communities);
    route.large_communities.extend(&with.large_communities);
    route.sources = route.sources.union(with.sources);
    route.local_pref = route.local_pref.or(with.local_pref);
    route.med = route.med.or(with.med);
    if route.prepend == 0 {
        route.prepend = with.prepend;
    }
}

/// Peers that are told the same become one audience.
fn share(by_peer: BTreeMap<&PeerName, OwnRoute>) -> Vec<OwnRoute> {
    let mut routes: Vec<(OwnRoute, BTreeSet<PeerName>)> = Vec::new();
    for (peer, route) in by_peer {
        match routes.iter_mut().find(|(known, _)| *known == route) {
            Some((_, peers)) => drop(peers.insert(peer.clone())),
            None => routes.push((route, BTreeSet::from([peer.clone()]))),
        }
    }
    routes.into_iter().map(|(route, peers)| OwnRoute { audience: Audience::Only(peers), ..route }).collect()
}

fn sources_of(routes: &[OwnRoute]) -> Sources {
    routes.iter().fold(Sources::default(), |all, route| all.union(route.sources))
}

/// How long an address of a Service is held back when this node begins to serve it. kube-proxy hears of the endpoint
/// when we do, and programs it up to a second later (its `minSyncPeriod`): until then the kernel would refuse what
/// routers send here.
const PROXY: Duration = Duration::from_secs(2);

/// What the speaker was last told to originate.
#[derive(Debug, Default)]
pub(crate) struct Originated {
    told: BTreeMap<IpNet, Vec<OwnRoute>>,
    /// How many of these came to be here in which way; one that did in several is in each.
    counts: BTreeMap<(AfiSafi, Source), u64>,
    /// Addresses of Services that are told from then on, unless they are gone by then.
    held_back: BTreeMap<IpNet, Instant>,
    /// Whether anything was told: the first time, peers may have these addresses from an earlier life, and would take
    /// them back at End-of-RIB.
    has_begun: bool,
}

impl Originated {
    /// Everything anew: peers, attributes or own prefixes may have changed.
    pub(crate) fn all(
        &mut self,
        export: &Export,
        services: &ServiceIndex,
        now: Instant,
    ) -> Vec<Input<'static>> {
        let mut prefixes = export.all(services);
        prefixes.extend(self.told.keys());
        let inputs = self.some(&prefixes, export, services, now);
        self.has_begun = true;
        inputs
    }

    /// These prefixes, and those that were held back long enough: Services changed.
    pub(crate) fn some(
        &mut self,
        prefixes: &BTreeSet<IpNet>,
        export: &Export,
        services: &ServiceIndex,
        now: Instant,
    ) -> Vec<Input<'static>> {
        let due = self.held_back.iter().filter(|(_, due)| **due <= now).map(|(prefix, _)| *prefix);
        let prefixes: BTreeSet<IpNet> = prefixes.iter().copied().chain(due).collect();
        let mut inputs = Vec::new();
        for prefix in prefixes {
            let routes = export.routes(&prefix, services);
            if routes.is_empty() {
                self.held_back.remove(&prefix);
                if self.take(&prefix) {
                    inputs.push(Input::Withdraw { prefix });
                }
            } else if self.told.get(&prefix) != Some(&routes) && !self.holds_back(prefix, export, now) {
                self.put(prefix, routes.clone());
                inputs.push(Input::Originate { prefix, routes });
            }
        }
        inputs
    }

    fn put(&mut self, prefix: IpNet, routes: Vec<OwnRoute>) {
        self.take(&prefix);
        for source in sources_of(&routes).iter() {
            *self.counts.entry((AfiSafi::of(&prefix), source)).or_default() += 1;
        }
        self.told.insert(prefix, routes);
    }

    /// Whether it was told.
    fn take(&mut self, prefix: &IpNet) -> bool {
        let Some(before) = self.told.remove(prefix) else { return false };
        for source in sources_of(&before).iter() {
            if let Some(count) = self.counts.get_mut(&(AfiSafi::of(prefix), source)) {
                *count = count.saturating_sub(1);
            }
        }
        true
    }

    /// How many prefixes are told, by how they came to be here.
    pub(crate) fn counts(&self) -> impl Iterator<Item = ((AfiSafi, Source), u64)> {
        self.counts.iter().map(|(key, count)| (*key, *count))
    }

    /// How a prefix that is told came to be here.
    pub(crate) fn sources(&self, prefix: &IpNet) -> Option<Sources> {
        self.told.get(prefix).map(|routes| sources_of(routes))
    }

    /// Whether a prefix that has routes is to wait.
    fn holds_back(&mut self, prefix: IpNet, export: &Export, now: Instant) -> bool {
        let is_new_of_services =
            self.has_begun && !self.told.contains_key(&prefix) && !export.prefixes.contains_key(&prefix);
        if is_new_of_services && *self.held_back.entry(prefix).or_insert(now + PROXY) > now {
            return true;
        }
        self.held_back.remove(&prefix);
        false
    }

    /// When the next prefix was held back long enough.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.held_back.values().min().copied()
    }

    /// The prefixes that some peer is told of.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.told.keys()
    }
}
