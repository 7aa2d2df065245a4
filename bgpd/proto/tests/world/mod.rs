//! What a network of speakers should do, as a model beside the speakers: who is linked, what each tells and takes, and what
//! follows from it, computed without any of the code under test.

mod reference;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use bgp_proto::config::AddPath;
use bgp_proto::fsm::State;
use bgp_proto::policy::{Action, Changes, Filter, Match, PrefixRange, Rule};
use bgp_proto::wire::attr::{self, code};
use bgp_proto::wire::{Role, display};
use bgp_proto::{AfiSafi, Asn};
use ipnet::IpNet;

use crate::sim::{self, Net, Rng, name};

/// An end of a link: the node and its neighbour there.
type End = (usize, usize);

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) nodes: usize,
    pub(crate) links: BTreeSet<End>,
    pub(crate) asns: Vec<Asn>,
    next_asn: u32,
    /// Whether a node tells the other one what it learned elsewhere.
    pub(crate) transit: BTreeMap<End, bool>,
    /// What a node takes of the other one; `None`: everything.
    pub(crate) within: BTreeMap<End, Option<IpNet>>,
    pub(crate) own: Vec<BTreeSet<IpNet>>,
    /// What a filter of a node withholds from the other one.
    pub(crate) withheld: BTreeMap<End, BTreeSet<IpNet>>,
    /// What a filter of a node refuses of the other one.
    pub(crate) refused: BTreeMap<End, BTreeSet<IpNet>>,
    /// What a node is to the other one (RFC 9234); the two ends go together.
    pub(crate) roles: BTreeMap<End, Role>,
    /// Whom a node reflects to and from (RFC 4456).
    pub(crate) clients: BTreeSet<End>,
    /// Which of these there are, and change.
    pub(crate) policies: Policies,
    /// How many paths per prefix everybody tells everybody (RFC 7911); 0: the best one.
    pub(crate) paths: u8,
}

/// What people configure beside `transit` and `within`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    pub(crate) filters: bool,
    pub(crate) roles: bool,
    /// Several nodes in one AS, some of them reflectors.
    pub(crate) reflection: bool,
}

/// How a network differs from its world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A session is not up.
    Down { node: usize, peer: usize },
    /// Somebody was told a route that it should not have been.
    Leaked { from: usize, to: usize, prefix: IpNet },
    /// Somebody was not told a route.
    Missing { from: usize, to: usize, prefix: IpNet },
    /// A route goes another way than the reference.
    Path { from: usize, to: usize, prefix: IpNet, is: String, should: String },
    /// A kernel has another route, none, or one that it should not have.
    Kernel { node: usize, prefix: IpNet, is: Vec<IpAddr>, should: Vec<IpAddr> },
    /// Connections beyond one for each link.
    Connections { is: usize, should: usize },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Down { node, peer } => write!(f, "node {node}: the session with node {peer} is down"),
            Fault::Leaked { from, to, prefix } => write!(f, "node {from} leaks {prefix} to node {to}"),
            Fault::Missing { from, to, prefix } => {
                write!(f, "node {from} does not tell node {to} of {prefix}")
            }
            Fault::Path { from, to, prefix, is, should } => {
                write!(f, "{prefix} from node {from} to node {to} by {is}, the reference has {should}")
            }
            Fault::Kernel { node, prefix, is, should } => {
                write!(f, "kernel of node {node}: {prefix} via {is:?}, the reference has {should:?}")
            }
            Fault::Connections { is, should } => write!(f, "{is} connections, expected {should}"),
        }
    }
}

/// What changes when something happens, and only then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moves {
    /// By node: changes of the kernel, events, UPDATEs sent.
    by_node: Vec<(usize, usize, u64)>,
}

impl Moves {
    pub(crate) fn of(net: &Net) -> Moves {
        let updates = |node: &sim::Node| -> u64 {
            let speaker = node.speaker.as_ref().unwrap();
            node.config.peers.keys().map(|peer| speaker.peer(peer).unwrap().messages.sent.update).sum()
        };
        let by_node = net.nodes.iter().map(|n| (n.kernel_log.len(), n.events.len(), updates(n))).collect();
        Moves { by_node }
    }
}

impl World {
    /// A connected network: a random tree and some links more, nobody with more than eight.
    pub(crate) fn random(rng: &mut Rng, nodes: usize) -> World {
        let mut pick = |bound: usize| usize::try_from(rng.below(u64::try_from(bound).unwrap())).unwrap();
        let mut links = BTreeSet::new();
        let degree =
            |links: &BTreeSet<End>, node| links.iter().filter(|(a, b)| *a == node || *b == node).count();
        for node in 1..nodes {
            let mut other = pick(node);
            while degree(&links, other) >= 6 {
                other = pick(node);
            }
            links.insert((other, node));
        }
        for _ in 0..nodes {
            let (a, b) = (pick(nodes), pick(nodes));
            if a != b && degree(&links, a) < 8 && degree(&links, b) < 8 {
                links.insert((a.min(b), a.max(b)));
            }
        }
        let ends: Vec<End> = links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
        let mut world = World {
            nodes,
            links,
            asns: (0..nodes).map(sim::asn).collect(),
            next_asn: 65_000,
            transit: ends.iter().map(|end| (*end, true)).collect(),
            within: ends.iter().map(|end| (*end, None)).collect(),
            own: vec![BTreeSet::new(); nodes],
            withheld: BTreeMap::new(),
            refused: BTreeMap::new(),
            roles: BTreeMap::new(),
            clients: BTreeSet::new(),
            policies: Policies::default(),
            paths: 0,
        };
        for end in &ends {
            world.transit.insert(*end, pick(4) > 0);
        }
        for prefix in prefixes() {
            world.own[pick(nodes)].insert(prefix);
        }
        world
    }

    /// Filters, roles and reflectors anywhere, and some of them changing in each trouble.
    pub(crate) fn with_policies(mut self, policies: Policies, rng: &mut Rng) -> World {
        self.policies = policies;
        let links = self.links.clone();
        for (a, b) in links.iter().filter(|_| policies.reflection) {
            // Links of the tree come first, so that an AS is mostly in one piece; where it is not, its own number cuts it.
            if rng.below(2) == 0 {
                self.asns[*b] = self.asns[*a];
            }
        }
        for (a, b) in &links {
            if policies.reflection && rng.below(2) == 0 {
                self.clients.insert((*a, *b));
            }
            for (from, to) in [(*a, *b), (*b, *a)] {
                for prefix in prefixes().into_iter().filter(|_| policies.filters) {
                    if rng.below(8) == 0 {
                        self.withheld.entry((from, to)).or_default().insert(prefix);
                    }
                    if rng.below(8) == 0 {
                        self.refused.entry((to, from)).or_default().insert(prefix);
                    }
                }
            }
            if policies.roles {
                self.relate(*a, *b, rng.below(6));
            }
        }
        self
    }

    /// What two neighbours are to each other: one of five relations, or nothing.
    pub(crate) fn relate(&mut self, a: usize, b: usize, which: u64) {
        let (of_a, of_b) = match which {
            0 => (Role::Provider, Role::Customer),
            1 => (Role::Customer, Role::Provider),
            2 => (Role::Peer, Role::Peer),
            3 => (Role::RouteServer, Role::RouteServerClient),
            4 => (Role::RouteServerClient, Role::RouteServer),
            _ => {
                self.roles.remove(&(a, b));
                self.roles.remove(&(b, a));
                return;
            }
        };
        self.roles.insert((a, b), of_a);
        self.roles.insert((b, a), of_b);
    }

    pub(crate) fn peers(&self, node: usize) -> Vec<usize> {
        (0..self.nodes).filter(|other| self.links.contains(&(node.min(*other), node.max(*other)))).collect()
    }

    /// Speakers configured as this world says, none of them started.
    pub(crate) fn network(&self, seed: u64) -> Net {
        let configs = (0..self.nodes).map(|node| sim::config(node, &self.peers(node), true)).collect();
        let mut net = Net::new(seed, configs);
        for node in 0..self.nodes {
            self.configure(&mut net, node);
            for prefix in &self.own[node] {
                net.originate(node, &prefix.to_string());
            }
        }
        net
    }

    /// Makes a node's configuration what this world says.
    pub(crate) fn configure(&self, net: &mut Net, node: usize) {
        net.configure(node, |config| {
            config.asn = self.asns[node];
            for peer in self.peers(node) {
                let to = config.peers.get_mut(&name(peer)).unwrap();
                to.remote_asn = bgp_proto::config::RemoteAsn::Exactly(self.asns[peer]);
                to.export.transit = self.transit[&(node, peer)];
                to.add_path = AddPath { receive: self.paths > 0, send: self.paths };
                to.import = bgp_proto::policy::ImportPolicy::accept_all();
                if let Some(within) = self.within[&(node, peer)] {
                    to.import.within = [within].into();
                }
                to.import.filter = refusing(self.refused.get(&(node, peer)));
                to.export.filter = refusing(self.withheld.get(&(node, peer)));
                to.reflector_client = self.clients.contains(&(node, peer));
                to.role = self.roles.get(&(node, peer)).copied();
            }
        });
    }

    /// Compares a network at rest with the reference.
    pub(crate) fn judge(&self, net: &Net) -> Result<(), Fault> {
        for (node, peer) in self.transit.keys() {
            if net.state(*node, *peer) != State::Established {
                return Err(Fault::Down { node: *node, peer: *peer });
            }
        }
        let (is, should) = (net.live_connections(), self.links.len());
        if is != should {
            return Err(Fault::Connections { is, should });
        }
        let reference = self.reference();
        for (from, to) in self.transit.keys() {
            let told = reference.told(self, *from, *to);
            if self.paths == 0 {
                compare_told(net, *from, *to, &told)?;
            } else {
                self.compare_paths(net, *from, *to, &told)?;
            }
        }
        (0..self.nodes).try_for_each(|node| compare_kernel(net, node, &reference.kernel(node)))
    }

    /// Of several paths one is that of the reference; where nothing learned is told, there is no other.
    fn compare_paths(
        &self,
        net: &Net,
        from: usize,
        to: usize,
        should: &BTreeMap<IpNet, String>,
    ) -> Result<(), Fault> {
        let held = held_paths(net, from, to);
        for (prefix, should) in should {
            let of_prefix = held.iter().filter(|path| path.0 == *prefix);
            let is: Vec<String> = of_prefix.map(|path| path.2.clone()).collect();
            if !is.contains(should) {
                let (is, should) = (is.join(" or "), should.clone());
                return Err(Fault::Path { from, to, prefix: *prefix, is, should });
            }
        }
        let expected = |(prefix, _, path): &&(IpNet, Option<u32>, String)| should.get(prefix) == Some(path);
        match held.iter().find(|path| !self.transit[&(from, to)] && !expected(path)) {
            Some((prefix, ..)) => Err(Fault::Leaked { from, to, prefix: *prefix }),
            None => Ok(()),
        }
    }
}

/// One rule for each prefix that is refused.
fn refusing(prefixes: Option<&BTreeSet<IpNet>>) -> Filter {
    let rule = |prefix: &IpNet| {
        let length = prefix.prefix_len();
        let range = PrefixRange { net: *prefix, min_length: length, max_length: length };
        Rule {
            name: prefix.to_string().into(),
            matches: Match { prefixes: vec![range], ..Match::default() },
            action: Action::Reject,
            changes: Changes::default(),
        }
    };
    prefixes.into_iter().flatten().map(rule).collect()
}

/// An AS path, and whose customers the route is for.
pub(crate) fn shown(as_path: &str, only_to_customer: Option<u32>) -> String {
    only_to_customer.map_or(as_path.to_owned(), |asn| format!("{as_path} for customers of {asn}"))
}

fn shown_of(canonical: &[u8]) -> String {
    let only = attr::find(canonical, code::ONLY_TO_CUSTOMER).map(attr::be32);
    shown(&display::attributes(canonical).as_path, only)
}

/// What the neighbour holds of what a node told it: prefix, identifier, AS path.
pub(crate) fn held_paths(net: &Net, from: usize, to: usize) -> BTreeSet<(IpNet, Option<u32>, String)> {
    let speaker = net.nodes[to].speaker.as_ref().unwrap();
    let id = speaker.id(&name(from)).unwrap();
    let paths = AfiSafi::ALL.into_iter().flat_map(|family| speaker.rib().paths(family, Some(id)));
    paths.map(|path| (path.prefix, path.path_id, shown_of(&path.attributes))).collect()
}

/// What the neighbour holds of what a node told it, whether taken or refused, with the AS path.
fn compare_told(net: &Net, from: usize, to: usize, should: &BTreeMap<IpNet, String>) -> Result<(), Fault> {
    let speaker = net.nodes[to].speaker.as_ref().unwrap();
    let id = speaker.id(&name(from)).unwrap();
    let mut held = BTreeMap::new();
    for family in AfiSafi::ALL {
        for path in speaker.rib().paths(family, Some(id)) {
            held.insert(path.prefix, shown_of(&path.attributes));
        }
    }
    for (prefix, is) in &held {
        match should.get(prefix) {
            None => return Err(Fault::Leaked { from, to, prefix: *prefix }),
            Some(should) if should != is => {
                let (is, should) = (is.clone(), should.clone());
                return Err(Fault::Path { from, to, prefix: *prefix, is, should });
            }
            Some(_) => {}
        }
    }
    match should.keys().find(|prefix| !held.contains_key(*prefix)) {
        Some(prefix) => Err(Fault::Missing { from, to, prefix: *prefix }),
        None => Ok(()),
    }
}

fn compare_kernel(net: &Net, node: usize, should: &BTreeMap<IpNet, Vec<IpAddr>>) -> Result<(), Fault> {
    let is = &net.nodes[node].kernel;
    for prefix in is.keys().chain(should.keys()) {
        let of = |kernel: &BTreeMap<IpNet, Vec<IpAddr>>| kernel.get(prefix).cloned().unwrap_or_default();
        let (is, should) = (of(is), of(should));
        if is != should {
            return Err(Fault::Kernel { node, prefix: *prefix, is, should });
        }
    }
    Ok(())
}

/// What may be originated, anywhere and by several.
pub(crate) fn prefixes() -> Vec<IpNet> {
    let v4 = (0..6).map(|n| format!("10.244.{n}.0/26"));
    let v6 = (0..4).map(|n| format!("fd00:244:{n}::/122"));
    v4.chain(v6).map(|text| text.parse().unwrap()).collect()
}
