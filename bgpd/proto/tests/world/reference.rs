//! What must come of a world, by the RFCs and none of the code under test: every node chooses among what its neighbours tell it, and
//! tells them of its choice, until nobody chooses anew. From a neighbour a route always comes worse than it was there (a longer path,
//! internal and no more external, one cluster more), so that there is one such end, and every order of events leads to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::wire::Role;
use ipnet::IpNet;

use super::{World, prefixes, shown};
use crate::sim::{address, address6};

/// A route as a node holds it. Addresses and router ids ascend with the numbers of the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    path: Vec<u32>,
    /// For whose customers it is (RFC 9234).
    only: Option<u32>,
    /// Where packets go.
    hop: usize,
    /// Who told it; none: it is the node's own.
    from: Option<usize>,
    is_external: bool,
    /// Who brought it into this AS, and by which reflectors (RFC 4456).
    originator: usize,
    clusters: Vec<usize>,
}

/// By prefix and node: what the node chose, and all that is as good.
pub(crate) struct Reference {
    chosen: BTreeMap<IpNet, Vec<Option<Choice>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice {
    best: Route,
    hops: BTreeSet<usize>,
}

impl World {
    pub(crate) fn reference(&self) -> Reference {
        Reference { chosen: prefixes().into_iter().map(|prefix| (prefix, self.choices(prefix))).collect() }
    }

    pub(crate) fn is_internal(&self, a: usize, b: usize) -> bool {
        self.asns[a] == self.asns[b]
    }

    fn choices(&self, prefix: IpNet) -> Vec<Option<Choice>> {
        let mut chosen = vec![None; self.nodes];
        for _ in 0..10 * self.nodes {
            let next: Vec<_> = (0..self.nodes).map(|node| self.choice(node, prefix, &chosen)).collect();
            if next == chosen {
                return chosen;
            }
            chosen = next;
        }
        panic!("{prefix}: there is no end to it");
    }

    fn choice(&self, node: usize, prefix: IpNet, chosen: &[Option<Choice>]) -> Option<Choice> {
        if self.own[node].contains(&prefix) {
            let (path, clusters, hops) = (Vec::new(), Vec::new(), BTreeSet::new());
            let (only, from, is_external) = (None, None, false);
            let best = Route { path, only, hop: node, from, is_external, originator: node, clusters };
            return Some(Choice { best, hops });
        }
        let comes = |from: usize| {
            let route = self.sent(from, node, prefix, &chosen[from].as_ref()?.best)?;
            self.takes(from, node, prefix, &route).then_some(route)
        };
        let candidates: Vec<Route> = self.peers(node).into_iter().filter_map(comes).collect();
        // RFC 4271 §9.1.2.2: all as good up to here share the traffic; RFC 4456 §9.
        let grade = |route: &Route| (route.path.len(), Reverse(route.is_external));
        let key = |route: &Route| (grade(route), route.originator, route.clusters.len(), route.from);
        let best = candidates.iter().min_by_key(|route| key(route))?.clone();
        let equals = candidates.iter().filter(|route| grade(route) == grade(&best));
        Some(Choice { hops: equals.map(|route| route.hop).collect(), best })
    }

    /// A node's choice as a neighbour gets it, if it does.
    fn sent(&self, from: usize, to: usize, prefix: IpNet, route: &Route) -> Option<Route> {
        let is_internal = self.is_internal(from, to);
        let is_withheld = self.withheld.get(&(from, to)).is_some_and(|some| some.contains(&prefix));
        let transit = self.transit.get(&(from, to)).copied().unwrap_or(false);
        let to_client = self.clients.contains(&(from, to));
        let is_reflected = is_internal && route.from.is_some() && !route.is_external;
        let is_told = match route.from {
            None => true,
            Some(source) if source == to => false,
            // RFC 4456 §6.
            Some(source) if is_reflected => to_client || self.clients.contains(&(from, source)),
            Some(_) if is_internal => transit || to_client,
            Some(_) => transit,
        };
        if is_withheld || !is_told {
            return None;
        }
        let own = if is_internal { Vec::new() } else { vec![self.asns[from].0] };
        Some(Route {
            path: [own, route.path.clone()].concat(),
            only: self.only_to_customer(from, to, route.only)?,
            // Within an AS the next hop stays (RFC 4271 §5.1.3).
            hop: if is_internal { route.hop } else { from },
            from: Some(from),
            is_external: !is_internal,
            originator: if is_reflected { route.originator } else { from },
            clusters: if is_reflected { [&[from], &route.clusters[..]].concat() } else { Vec::new() },
        })
    }

    /// RFC 9234 §5: what is for customers goes to nobody else, and what goes down or across is for customers, whichever end says so.
    fn only_to_customer(&self, from: usize, to: usize, only: Option<u32>) -> Option<Option<u32>> {
        match self.roles.get(&(from, to)).filter(|_| !self.is_internal(from, to)) {
            Some(Role::Customer | Role::RouteServerClient | Role::Peer) if only.is_some() => None,
            Some(Role::Provider | Role::RouteServer | Role::Peer) => Some(only.or(Some(self.asns[from].0))),
            Some(Role::Customer | Role::RouteServerClient) | None => Some(only),
        }
    }

    /// Whether what is held of a neighbour may be used.
    fn takes(&self, from: usize, to: usize, prefix: IpNet, route: &Route) -> bool {
        let is_within = self.within[&(to, from)].is_none_or(|within| within.contains(&prefix));
        let is_refused = self.refused.get(&(to, from)).is_some_and(|some| some.contains(&prefix));
        // RFC 4271 §9.1.2, RFC 4456 §8.
        let loops = route.path.contains(&self.asns[to].0)
            || !route.is_external && (route.originator == to || route.clusters.contains(&to));
        is_within && !is_refused && !loops
    }
}

impl Reference {
    /// What `to` holds of `from`, taken or refused: the AS path, and for whose customers it is.
    pub(crate) fn told(&self, world: &World, from: usize, to: usize) -> BTreeMap<IpNet, String> {
        let told = self.chosen.iter().filter_map(|(prefix, chosen)| {
            let route = world.sent(from, to, *prefix, &chosen[from].as_ref()?.best)?;
            let path: Vec<String> = route.path.iter().map(u32::to_string).collect();
            Some((*prefix, shown(&path.join(" "), route.only)))
        });
        told.collect()
    }

    pub(crate) fn kernel(&self, node: usize) -> BTreeMap<IpNet, Vec<IpAddr>> {
        let learned = self.chosen.iter().filter_map(|(prefix, chosen)| {
            let choice = chosen[node].as_ref().filter(|choice| choice.best.from.is_some())?;
            let hop = |other: &usize| match prefix {
                IpNet::V4(_) => address(*other),
                IpNet::V6(_) => IpAddr::V6(address6(*other)),
            };
            Some((*prefix, choice.hops.iter().map(hop).collect()))
        });
        learned.collect()
    }
}
