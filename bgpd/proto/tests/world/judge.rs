//! A network at rest beside its reference: who holds what of whom, what became of it, what kernels have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use bgp_proto::fsm::State;
use bgp_proto::link_local::parts;
use bgp_proto::rib::{PathStatus, PathView};
use bgp_proto::wire::attr::{self, code};
use bgp_proto::wire::display;
use bgp_proto::{AfiSafi, Speaker};
use ipnet::IpNet;

use super::{End, Reference, Route, Seen, World, prefixes};
use crate::sim::{Net, router_id};

/// What few worlds have.
pub(crate) const RARE: &str = "one that is reflected and for customers";

/// How a network differs from its world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A session is not up.
    Down { node: usize, peer: usize },
    /// Somebody was told a route that it should not have been.
    Leaked { from: usize, to: usize, prefix: IpNet, is: String },
    /// Somebody was not told a route.
    Missing { from: usize, to: usize, prefix: IpNet, should: String },
    /// A route goes another way than the reference, or is used otherwise.
    Path { from: usize, to: usize, prefix: IpNet, is: String, should: String },
    /// A kernel has another route, none, or one that it should not have.
    Kernel { node: usize, prefix: IpNet, is: Vec<IpAddr>, should: Vec<IpAddr> },
    /// What a node says that it told is not what the other one holds.
    Told { from: usize, to: usize },
    /// Connections beyond one for each link.
    Connections { is: usize, should: usize },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Down { node, peer } => write!(f, "node {node}: the session with node {peer} is down"),
            Fault::Leaked { from, to, prefix, is } => {
                write!(f, "node {from} leaks {prefix} to node {to}: {is}")
            }
            Fault::Missing { from, to, prefix, should } => {
                write!(f, "node {from} does not tell node {to} of {prefix}: {should}")
            }
            Fault::Path { from, to, prefix, is, should } => {
                write!(f, "{prefix} from node {from} to node {to}:\n{is}the reference has\n{should}")
            }
            Fault::Kernel { node, prefix, is, should } => {
                write!(f, "kernel of node {node}: {prefix} via {is:?}, the reference has {should:?}")
            }
            Fault::Told { from, to } => {
                write!(f, "node {from} says that it told node {to} other paths than node {to} holds")
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
        let updates = |speaker: &Speaker| -> u64 {
            let names = speaker.peers().map(|(name, _, _)| name);
            names.map(|name| speaker.peer(name).unwrap().messages.sent.update).sum()
        };
        let of = |node: &crate::sim::Node| {
            (node.kernel_log.len(), node.events.len(), node.speaker.as_ref().map_or(0, updates))
        };
        Moves { by_node: net.nodes.iter().map(of).collect() }
    }
}

/// What a node holds of a prefix: by neighbour and identifier, what it is and what became of it.
type Holds = BTreeMap<(IpNet, usize, u32), String>;

/// All that is held of a prefix, a line each.
fn all_of(holds: &Holds, prefix: IpNet) -> String {
    let of_prefix = holds.iter().filter(|((of, _, _), _)| *of == prefix);
    of_prefix.map(|((_, from, id), text)| format!("  of node {from} ({id}): {text}\n")).collect()
}

impl World {
    /// Compares a network at rest with the reference.
    pub(crate) fn judge(&self, net: &Net) -> Result<(), Fault> {
        for (node, peer) in self.ends.keys().filter(|(node, peer)| !self.lost.contains_key(&(*peer, *node))) {
            if net.nodes[*node].speaker.is_some() && net.state(*node, *peer) != State::Established {
                return Err(Fault::Down { node: *node, peer: *peer });
            }
        }
        let lost = |(a, b): &&End| self.lost.contains_key(&(*a, *b)) || self.lost.contains_key(&(*b, *a));
        let up = self.ends.keys().filter(|(a, b)| a < b).filter(|end| !lost(end)).count();
        if net.live_connections() != up {
            return Err(Fault::Connections { is: net.live_connections(), should: up });
        }
        let seen = Seen::of(self, net);
        let reference = Reference::of(self, &seen);
        for node in (0..self.nodes).filter(|node| net.nodes[*node].speaker.is_some()) {
            self.compare_held(net, node, &reference, &seen)?;
            compare_kernel(net, node, &reference)?;
        }
        Ok(())
    }

    fn compare_held(
        &self,
        net: &Net,
        to: usize,
        reference: &Reference<'_>,
        seen: &Seen<'_>,
    ) -> Result<(), Fault> {
        let mut should = Holds::new();
        for (from, prefix) in
            self.peers(to).into_iter().flat_map(|from| prefixes().into_iter().map(move |p| (from, p)))
        {
            for route in reference.told(from, to, prefix) {
                let text = self.shown(to, &route, reference.fate(to, prefix, &route));
                should.insert((prefix, from, route.id), text);
            }
        }
        let is_all: Holds = self.peers(to).into_iter().flat_map(|from| held(net, from, to, seen)).collect();
        for ((prefix, from, id), is) in &is_all {
            let (prefix, from, is) = (*prefix, *from, is.clone());
            match should.get(&(prefix, from, *id)) {
                None => return Err(Fault::Leaked { from, to, prefix, is }),
                Some(known) if *known != is => {
                    let (is, should) = (all_of(&is_all, prefix), all_of(&should, prefix));
                    return Err(Fault::Path { from, to, prefix, is, should });
                }
                Some(_) => {}
            }
        }
        if let Some(((prefix, from, _), should)) = should.iter().find(|(key, _)| !is_all.contains_key(key)) {
            let (prefix, from, should) = (*prefix, *from, should.clone());
            return Err(Fault::Missing { from, to, prefix, should });
        }
        self.compare_told(net, to, &is_all, seen)
    }

    /// What the neighbours say that they told a node, beside what it holds of them.
    fn compare_told(&self, net: &Net, to: usize, holds: &Holds, seen: &Seen<'_>) -> Result<(), Fault> {
        for from in self.peers(to).into_iter().filter(|from| !self.lost.contains_key(&(*from, to))) {
            let (rib, peer) = (net.nodes[from].speaker.as_ref().unwrap().rib(), seen.peer(from, to).unwrap());
            let told = AfiSafi::ALL.into_iter().flat_map(|family| rib.adj_rib_out(peer, family));
            // A family that the node does not take is told in vain.
            let told: BTreeSet<(IpNet, u32)> = told
                .filter(|route| self.carries(to, from, route.prefix))
                .map(|route| (route.prefix, route.path_id.unwrap_or(0)))
                .collect();
            let held = holds.keys().filter(|(_, of, _)| *of == from).map(|(prefix, _, id)| (*prefix, *id));
            if told != held.collect() {
                return Err(Fault::Told { from, to });
            }
        }
        Ok(())
    }

    /// What only some worlds have, so that nobody believes a test that never met it.
    pub(crate) fn count(&self, net: &Net, met: &mut BTreeMap<&'static str, usize>) {
        let seen = Seen::of(self, net);
        let reference = Reference::of(self, &seen);
        let mut count = |what, is: bool| *met.entry(what).or_default() += usize::from(is);
        for ((from, to), prefix) in
            self.ends.keys().flat_map(|end| prefixes().into_iter().map(move |p| (end, p)))
        {
            let told = reference.told(*from, *to, prefix);
            let further = || told.iter().skip(1);
            let by_ipv6 = |route: &Route| prefix.addr().is_ipv4() && self.goes_to(*to, route).is_ipv6();
            let on_link = |route: &Route| by_ipv6(route) && self.cabling.is_unnumbered(*to, *from);
            count("an IPv4 prefix by an interface", told.iter().any(on_link));
            count("an IPv4 prefix by a global IPv6 address", told.iter().any(|r| by_ipv6(r) && !on_link(r)));
            count("a further path by an interface", further().any(on_link));
            count("a further path that is reflected", further().any(|route| !route.clusters.is_empty()));
            count("a further path for customers", further().any(|route| route.only.is_some()));
            let both = |route: &Route| route.only.is_some() && !route.clusters.is_empty();
            count(RARE, further().any(both));
            count(
                "one in place of a better one",
                !told.is_empty() && reference.holds_back(*from, *to, prefix),
            );
            count("several next hops in use", reference.hops(*to, prefix).len() > 1);
        }
        for node in 0..self.nodes {
            let neighbours =
                self.peers(node).into_iter().filter_map(|peer| parts(self.cabling.sees(node, peer)));
            let addresses: Vec<_> = neighbours.map(|(address, _)| address).collect();
            let distinct: BTreeSet<_> = addresses.iter().collect();
            count("two neighbours with one link-local address", distinct.len() < addresses.len());
        }
    }

    /// A route of the reference for people, as [`shown_of`] writes one of a speaker's.
    fn shown(&self, node: usize, route: &Route, fate: &str) -> String {
        let path: Vec<String> = route.path.iter().map(u32::to_string).collect();
        Shown {
            path: path.join(" "),
            via: self.goes_to(node, route),
            only: route.only,
            originator: route.originator.map(|node| router_id(node).0),
            clusters: route.clusters.iter().map(|node| router_id(*node).0).collect(),
            local_pref: route.local_pref(),
            is_leaving: route.is_leaving,
            is_old: route.is_old,
            is_kept: route.is_kept,
        }
        .text(fate)
    }
}

/// What is compared of a route.
struct Shown {
    path: String,
    via: IpAddr,
    only: Option<u32>,
    originator: Option<Ipv4Addr>,
    clusters: Vec<Ipv4Addr>,
    local_pref: u32,
    is_leaving: bool,
    is_old: bool,
    is_kept: bool,
}

impl Shown {
    fn text(&self, fate: &str) -> String {
        let Shown { path, via, local_pref, .. } = self;
        let mut text = format!("[{path}] via {via}");
        // Import changes nothing of what it refuses.
        if fate != "refused" {
            text += &format!(", preference {local_pref}");
        }
        if let Some(only) = self.only {
            text += &format!(", for customers of {only}");
        }
        if let Some(originator) = self.originator {
            text += &format!(", from {originator} by {:?}", self.clusters);
        }
        let marks = [(self.is_leaving, "leaving"), (self.is_old, "long-lived stale"), (self.is_kept, "kept")];
        for (_, word) in marks.into_iter().filter(|(is, _)| *is) {
            text += &format!(", {word}");
        }
        format!("{text}: {fate}")
    }
}

fn shown_of(view: &PathView) -> String {
    let find = |code| attr::find(&view.attributes, code);
    let shown = display::attributes(&view.attributes);
    let fate = match view.status {
        PathStatus::Best(_) => "best",
        PathStatus::Multipath => "used as well",
        PathStatus::Beaten(_) => "beaten",
        PathStatus::NextHopUnreachable => "unreachable",
        PathStatus::Rejected(_) => "refused",
    };
    let has = |community: &str| shown.communities.iter().any(|known| known == community);
    let clusters = find(code::CLUSTER_LIST).unwrap_or_default().chunks_exact(4);
    Shown {
        path: shown.as_path.clone(),
        via: view.next_hop.unwrap(),
        only: find(code::ONLY_TO_CUSTOMER).map(attr::be32),
        originator: find(code::ORIGINATOR_ID).map(|id| Ipv4Addr::from(attr::be32(id))),
        clusters: clusters.map(|id| Ipv4Addr::from(attr::be32(id))).collect(),
        local_pref: view.local_pref,
        is_leaving: has("65535:0"),
        is_old: has("65535:6"),
        is_kept: view.stale,
    }
    .text(fate)
}

/// What a node holds of a neighbour.
fn held(net: &Net, from: usize, to: usize, seen: &Seen<'_>) -> Vec<((IpNet, usize, u32), String)> {
    let rib = net.nodes[to].speaker.as_ref().unwrap().rib();
    let Some(peer) = seen.peer(to, from) else { return Vec::new() };
    let paths = AfiSafi::ALL.into_iter().flat_map(|family| rib.paths(family, Some(peer)));
    paths.map(|view| ((view.prefix, from, view.path_id.unwrap_or(0)), shown_of(&view))).collect()
}

/// All that a network holds, with the identifiers: what must be the same whatever happened before.
pub(crate) fn held_paths(world: &World, net: &Net) -> BTreeSet<(End, IpNet, u32, String)> {
    let seen = Seen::of(world, net);
    let of_end = |(from, to): &End| {
        let end = (*from, *to);
        held(net, *from, *to, &seen).into_iter().map(move |((prefix, _, id), text)| (end, prefix, id, text))
    };
    world.ends.keys().flat_map(of_end).collect()
}

fn compare_kernel(net: &Net, node: usize, reference: &Reference<'_>) -> Result<(), Fault> {
    let is = &net.nodes[node].kernel;
    for prefix in is.keys().copied().chain(prefixes()) {
        let is = is.get(&prefix).cloned().unwrap_or_default();
        let mut should = reference.hops(node, prefix);
        should.sort_unstable();
        if is != should {
            return Err(Fault::Kernel { node, prefix, is, should });
        }
    }
    Ok(())
}
