//! What a network of speakers should do, as a model beside the speakers: who is linked, what each tells and takes, and what
//! follows from it, computed without any of the code under test.
//!
//! ```text
//!   seed ─► kinds: what people configure here ─► terms of each end, cabling ─► speakers
//!                                                      ▲    │                     │
//!                                       trouble: changes ───┤                     ▼
//!                                                           └─► reference ◄─ judge ─► mutants: what it must find
//! ```

mod judge;
mod mutants;
mod reference;
mod terms;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use bgp_proto::Asn;
use bgp_proto::config::{PeerConfig, RangeConfig, RemoteAsn, SpeakerConfig};
use bgp_proto::policy::{ExportPolicy, ImportPolicy};
use bgp_proto::route::Audience;
use bgp_proto::wire::Role;
use ipnet::IpNet;

pub(crate) use self::judge::{Fault, Moves, RARE, held_paths};
pub(crate) use self::mutants::FORGOTTEN;
pub(crate) use self::reference::{Reference, Route, Seen, Since};
pub(crate) use self::terms::{Kinds, Terms};
use crate::sim::cabling::{Attachment, Cabling, address4};
use crate::sim::{self, Net, Rng, name};

/// An end of a link: the node and its neighbour there.
pub(crate) type End = (usize, usize);

/// Who is told of a prefix; `None`: everybody.
type Told = Option<BTreeSet<usize>>;

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) kinds: Kinds,
    pub(crate) nodes: usize,
    pub(crate) asns: Vec<Asn>,
    next_asn: u32,
    /// How many next hops a node uses at a time.
    max_paths: Vec<u16>,
    pub(crate) ends: BTreeMap<End, Terms>,
    pub(crate) cabling: Cabling,
    /// The last interface of each node.
    interfaces: Vec<u32>,
    pub(crate) own: Vec<BTreeMap<IpNet, Told>>,
    /// Next hops that lead nowhere, by node.
    pub(crate) unreachable: BTreeSet<(usize, IpAddr)>,
    /// Sessions that are down, by who tells and who is told: what is still held of them.
    pub(crate) lost: BTreeMap<End, BTreeMap<IpNet, Vec<Route>>>,
}

impl World {
    /// A connected network: a random tree and some links more, nobody with more than eight.
    pub(crate) fn random(rng: &mut Rng, nodes: usize, kinds: Kinds) -> World {
        let links = links(rng, nodes);
        let mut world = World {
            kinds,
            nodes,
            asns: (0..nodes).map(sim::asn).collect(),
            next_asn: 65_000,
            max_paths: vec![16; nodes],
            ends: links
                .iter()
                .flat_map(|(a, b)| [(*a, *b), (*b, *a)])
                .map(|end| (end, Terms::default()))
                .collect(),
            cabling: Cabling::default(),
            interfaces: (0..nodes).map(|_| u32::try_from(1 + rng.below(50)).unwrap()).collect(),
            own: vec![BTreeMap::new(); nodes],
            unreachable: BTreeSet::new(),
            lost: BTreeMap::new(),
        };
        for (a, b) in &links {
            if kinds.reflection && rng.once_in(2) {
                // Links of the tree come first, so that an AS is mostly in one piece; where it is not, its own number cuts it.
                world.asns[*b] = world.asns[*a];
            }
            world.cable(*a, *b, rng);
            if kinds.roles {
                world.relate(*a, *b, rng);
            }
            for end in [(*a, *b), (*b, *a)] {
                kinds.changes().into_iter().for_each(|change| world.draw(end, change, rng));
            }
        }
        for paths in world.max_paths.iter_mut().filter(|_| kinds.next_hops) {
            *paths = [1, 2, 16][rng.pick(3)];
        }
        for prefix in prefixes() {
            world.own[rng.pick(nodes)].insert(prefix, None);
        }
        world
    }

    /// How two neighbours are connected.
    fn cable(&mut self, a: usize, b: usize, rng: &mut Rng) {
        if !self.kinds.unnumbered {
            return;
        }
        match rng.below(4) {
            0 => {}
            1 => [(a, b), (b, a)].into_iter().for_each(|(x, y)| self.cabling.attach(x, y, Attachment::Ipv6)),
            which => {
                // Half of the links are as alike as links can be: many a node meets fe80::1 on several of them.
                let own = |node: usize, is_first: bool| match which {
                    2 => {
                        if is_first {
                            1
                        } else {
                            2
                        }
                    }
                    _ => 0x10 + u16::try_from(node).unwrap(),
                };
                for (node, peer) in [(a, b), (b, a)] {
                    self.interfaces[node] += 1;
                    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, own(node, node == a));
                    // On every other node later links have lower numbers.
                    let index = self.interfaces[node];
                    let index = if node % 2 == 0 { index } else { 10_000 - index };
                    self.cabling.attach(node, peer, Attachment::Interface { index, own });
                }
            }
        }
    }

    /// What two neighbours are to each other: one of five relations, or nothing; at times only one of them says so.
    pub(crate) fn relate(&mut self, a: usize, b: usize, rng: &mut Rng) {
        let (of_a, of_b) = match rng.below(6) {
            0 => (Some(Role::Provider), Some(Role::Customer)),
            1 => (Some(Role::Customer), Some(Role::Provider)),
            2 => (Some(Role::Peer), Some(Role::Peer)),
            3 => (Some(Role::RouteServer), Some(Role::RouteServerClient)),
            4 => (Some(Role::RouteServerClient), Some(Role::RouteServer)),
            _ => (None, None),
        };
        let silent = rng.below(8);
        self.ends.get_mut(&(a, b)).unwrap().role = of_a.filter(|_| silent != 0);
        self.ends.get_mut(&(b, a)).unwrap().role = of_b.filter(|_| silent != 1);
    }

    /// The terms of both ends, seen from the first one.
    pub(crate) fn terms(&self, node: usize, peer: usize) -> (&Terms, &Terms) {
        (&self.ends[&(node, peer)], &self.ends[&(peer, node)])
    }

    pub(crate) fn peers(&self, node: usize) -> Vec<usize> {
        self.ends.range((node, 0)..=(node, usize::MAX)).map(|((_, peer), _)| *peer).collect()
    }

    /// The AS that a node is in, as a neighbour has it.
    pub(crate) fn asn_towards(&self, node: usize, peer: usize) -> Asn {
        self.ends[&(node, peer)].local_asn.unwrap_or(self.asns[node])
    }

    fn fresh_asn(&mut self) -> Asn {
        self.next_asn += 1;
        Asn(self.next_asn)
    }

    // ---- the speakers

    /// Speakers configured as this world says, none of them started.
    pub(crate) fn network(&self, seed: u64) -> Net {
        let configs =
            (0..self.nodes).map(|node| SpeakerConfig::new(self.asns[node], sim::router_id(node))).collect();
        let mut net = Net::new(seed, configs);
        net.cabling = self.cabling.clone();
        for (node, address) in &self.unreachable {
            net.set_reachable(*node, *address, false);
        }
        for node in 0..self.nodes {
            self.configure(&mut net, node);
            for prefix in self.own[node].keys() {
                self.originate(&mut net, node, *prefix);
            }
        }
        net
    }

    /// A node tells of a prefix of its own whom this world says.
    pub(crate) fn originate(&self, net: &mut Net, node: usize, prefix: IpNet) {
        let audience = match &self.own[node][&prefix] {
            None => Audience::All,
            Some(some) => Audience::Only(some.iter().map(|peer| name(*peer)).collect()),
        };
        net.originate_to(node, &prefix.to_string(), audience);
    }

    /// Makes a node's configuration what this world says, but for limits and shutdowns.
    pub(crate) fn configure(&self, net: &mut Net, node: usize) {
        net.cabling = self.cabling.clone();
        net.configure(node, |config| {
            config.asn = self.asns[node];
            config.max_paths = self.max_paths[node];
            let (peers, ranges) = (std::mem::take(&mut config.peers), std::mem::take(&mut config.ranges));
            for peer in self.peers(node) {
                let mut to = self.peer_config(node, peer);
                let before = peers.get(&name(peer)).or(ranges.get(&name(peer)).map(|range| &range.peer));
                if let Some(before) = before {
                    (to.max_prefixes, to.admin) = (before.max_prefixes, before.admin.clone());
                }
                if !self.ends[&(node, peer)].by_range {
                    config.peers.insert(name(peer), to);
                    continue;
                }
                // It dials us; and a wider range that would refuse it is not asked.
                let stranger = PeerConfig { import: ImportPolicy::default(), ..to.clone() };
                let everybody = if to.remote.is_ipv4() { "10.0.0.0/8" } else { "fd00::/16" };
                let wider = RangeConfig { prefix: sim::net(everybody), limit: 0, peer: stranger };
                config.ranges.insert("a-wider-one".into(), wider);
                let range = RangeConfig { prefix: to.remote.into(), limit: 1, peer: to };
                config.ranges.insert(name(peer), range);
            }
        });
    }

    fn peer_config(&self, node: usize, peer: usize) -> PeerConfig {
        let terms = &self.ends[&(node, peer)];
        let mut import = ImportPolicy::accept_all();
        if let Some(within) = terms.within {
            import.within = [within].into();
        }
        if self.kinds.next_hops {
            import.never = self.addresses(node).map(IpNet::from).into();
        }
        import.allow_own_asn = terms.allow_own_asn;
        import.filter = terms::refusing(&terms.refused);
        let export = ExportPolicy {
            transit: terms.transit,
            filter: terms::refusing(&terms.withheld),
            next_hop: terms.next_hop,
            drained: terms.drained,
        };
        let remote = self.cabling.sees(node, peer);
        let mut to =
            PeerConfig::new(remote, RemoteAsn::Exactly(self.asn_towards(peer, node)), import, export);
        to.local_asn = terms.local_asn;
        to.next_hop.ipv4 = self.names_ipv4(node, peer).then(|| address4(node));
        to.next_hop.ipv6 = self.names_ipv6(node, peer).then(|| sim::address6(node));
        to.extended_next_hop = terms.extended_next_hop;
        to.add_path = terms.add_path;
        to.graceful_restart = terms.graceful_restart;
        to.role = terms.role;
        to.reflector_client = terms.client;
        to
    }

    /// The addresses of a node that are known beyond a link.
    pub(crate) fn addresses(&self, node: usize) -> [IpAddr; 2] {
        [sim::address(node), IpAddr::V6(sim::address6(node))]
    }

    /// Whether a node has an IPv4 address to name to a neighbour as next hop: the session's own, or one that it is told.
    pub(crate) fn names_ipv4(&self, node: usize, peer: usize) -> bool {
        self.cabling.of(node, peer) == Attachment::Ipv4 || self.ends[&(node, peer)].names_ipv4
    }

    /// The same for a global IPv6 address: on an interface there may be none.
    pub(crate) fn names_ipv6(&self, node: usize, peer: usize) -> bool {
        !self.cabling.is_unnumbered(node, peer) || self.ends[&(node, peer)].names_ipv6
    }
}

fn links(rng: &mut Rng, nodes: usize) -> BTreeSet<End> {
    let mut links = BTreeSet::new();
    let degree = |links: &BTreeSet<End>, node| links.iter().filter(|(a, b)| *a == node || *b == node).count();
    for node in 1..nodes {
        let mut other = rng.pick(node);
        while degree(&links, other) >= 6 {
            other = rng.pick(node);
        }
        links.insert((other, node));
    }
    for _ in 0..nodes {
        let (a, b) = (rng.pick(nodes), rng.pick(nodes));
        if a != b && degree(&links, a) < 8 && degree(&links, b) < 8 {
            links.insert((a.min(b), a.max(b)));
        }
    }
    links
}

/// What may be originated, anywhere and by several.
pub(crate) fn prefixes() -> Vec<IpNet> {
    let v4 = (0..6).map(|n| format!("10.244.{n}.0/26"));
    let v6 = (0..4).map(|n| format!("fd00:244:{n}::/122"));
    v4.chain(v6).map(|text| text.parse().unwrap()).collect()
}
