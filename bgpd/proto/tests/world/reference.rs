//! What must come of a world, by the RFCs and none of the code under test: every node ranks what its neighbours tell it, and tells
//! them of the best, or of the best few, until nobody ranks anew. From a neighbour a route always comes worse than it was there (long-lived
//! stale or leaving for good, a longer path, internal and no more external, one cluster more), so that there is one such end, and
//! every order of events leads to it.
//!
//! One thing is asked of the speakers: which identifier each gives a path, which is theirs to choose (RFC 7911 §3).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::config::GracefulRestartMode;
use bgp_proto::policy::NextHopMode;
use bgp_proto::wire::Role;
use bgp_proto::{AfiSafi, PeerId};
use ipnet::IpNet;

use super::{End, World, prefixes};
use crate::sim::{Net, address, address6};

/// A route as a node holds it. Router ids ascend with the numbers of the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(super) path: Vec<u32>,
    /// For whose customers it is (RFC 9234).
    pub(super) only: Option<u32>,
    /// Its sender, or one before, will be gone (RFC 8326), or is gone for long (RFC 9494).
    pub(super) is_leaving: bool,
    pub(super) is_old: bool,
    /// Kept although its session is down.
    pub(super) is_kept: bool,
    pub(super) hop: Hop,
    /// Who told it, and under which identifier; none: it is the node's own.
    pub(super) from: Option<usize>,
    pub(super) id: u32,
    pub(super) is_external: bool,
    /// Who brought it into this AS, and by which reflectors (RFC 4456); none: who told it.
    pub(super) originator: Option<usize>,
    pub(super) clusters: Vec<usize>,
}

/// A next hop as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop {
    /// What may be told on.
    named: Option<IpAddr>,
    /// A link-local address of this neighbour: packets go there, whatever else is named (RFC 2545 §3).
    link: Option<usize>,
}

/// Which identifiers the speakers give.
pub(crate) struct Seen<'a> {
    net: &'a Net,
    peers: BTreeMap<End, PeerId>,
}

impl<'a> Seen<'a> {
    pub(crate) fn of(world: &World, net: &'a Net) -> Seen<'a> {
        let id = |(node, peer): &End| {
            let speaker = net.nodes[*node].speaker.as_ref()?;
            Some(((*node, *peer), speaker.id(&net.peer_name(*node, *peer))?))
        };
        Seen { net, peers: world.ends.keys().filter_map(id).collect() }
    }

    pub(super) fn peer(&self, node: usize, peer: usize) -> Option<PeerId> {
        self.peers.get(&(node, peer)).copied()
    }

    fn identifier(&self, node: usize, route: &Route) -> u32 {
        let source = route.from.map(|from| self.peers[&(node, from)]);
        self.net.nodes[node].speaker.as_ref().unwrap().rib().identifier_of(source, route.id)
    }
}

/// By prefix and node: what the node may use, best first.
pub(crate) struct Reference<'a> {
    world: &'a World,
    seen: &'a Seen<'a>,
    pub(super) ranked: BTreeMap<IpNet, Vec<Vec<Route>>>,
}

impl<'a> Reference<'a> {
    pub(crate) fn of(world: &'a World, seen: &'a Seen<'a>) -> Reference<'a> {
        let mut reference = Reference { world, seen, ranked: BTreeMap::new() };
        for prefix in prefixes() {
            let ranked = reference.settle(prefix);
            reference.ranked.insert(prefix, ranked);
        }
        reference
    }

    fn settle(&self, prefix: IpNet) -> Vec<Vec<Route>> {
        let mut ranked = vec![Vec::new(); self.world.nodes];
        for _ in 0..20 * self.world.nodes {
            let next: Vec<_> = (0..self.world.nodes).map(|node| self.rank(node, prefix, &ranked)).collect();
            if next == ranked {
                return ranked;
            }
            ranked = next;
        }
        panic!("{prefix}: there is no end to it");
    }

    fn rank(&self, node: usize, prefix: IpNet, ranked: &[Vec<Route>]) -> Vec<Route> {
        let told = |from: usize| self.tell(from, node, prefix, &ranked[from]);
        let told = self.world.peers(node).into_iter().flat_map(told);
        let mut usable: Vec<Route> =
            told.filter(|route| self.world.refuses(node, prefix, route).is_none()).collect();
        // RFC 4271 §9.1.2.2, RFC 4456 §9; of two paths of one neighbour the lower identifier.
        usable.sort_by_key(|route| {
            let from = route.from.map(|from| self.world.cabling.sees(node, from));
            (grade(route), route.originator.or(route.from), route.clusters.len(), from, route.id)
        });
        let own = self.world.own[node].contains_key(&prefix).then(Route::own);
        own.into_iter().chain(usable).collect()
    }

    /// What of its routes a node tells a neighbour, as the neighbour gets it.
    fn tell(&self, from: usize, to: usize, prefix: IpNet, ranked: &[Route]) -> Vec<Route> {
        if let Some(held) = self.world.lost.get(&(from, to)) {
            return held.get(&prefix).cloned().unwrap_or_default();
        }
        let (ours, theirs) = self.world.terms(from, to);
        let most = usize::from(ours.add_path.send);
        if most == 0 || !theirs.add_path.receive {
            // The best one or none.
            let best = ranked.first().filter(|best| best.from != Some(to));
            return best.and_then(|best| self.world.sent(from, to, prefix, best)).into_iter().collect();
        }
        // RFC 7911: the best few of those that may be told. The neighbour's own count, and it is not told them.
        let (mut told, mut ids) = (Vec::new(), BTreeSet::new());
        for route in ranked {
            let id = self.seen.identifier(from, route);
            if ids.len() == most || ids.contains(&id) {
                continue;
            }
            if let Some(sent) = self.world.sent(from, to, prefix, route) {
                ids.insert(id);
                told.extend((route.from != Some(to)).then_some(Route { id, ..sent }));
            }
        }
        told
    }

    // ---- what follows

    /// What `to` holds of `from`, used or not.
    pub(crate) fn told(&self, from: usize, to: usize, prefix: IpNet) -> Vec<Route> {
        self.tell(from, to, prefix, &self.ranked[&prefix][from])
    }

    /// Whether the best route of a node is not to be told to a neighbour.
    pub(super) fn holds_back(&self, from: usize, to: usize, prefix: IpNet) -> bool {
        let best = self.ranked[&prefix][from].first();
        best.is_some_and(|best| best.from != Some(to) && self.world.sent(from, to, prefix, best).is_none())
    }

    /// The next hops in use, best first: those of all that is as good as the best, as many as the node may have.
    pub(crate) fn hops(&self, node: usize, prefix: IpNet) -> Vec<IpAddr> {
        let mut hops = Vec::new();
        for route in self.equals(node, prefix) {
            let hop = self.world.goes_to(node, route);
            if !hops.contains(&hop) && hops.len() < usize::from(self.world.max_paths[node]) {
                hops.push(hop);
            }
        }
        hops
    }

    fn equals(&self, node: usize, prefix: IpNet) -> impl Iterator<Item = &Route> {
        let ranked = &self.ranked[&prefix][node];
        let best = ranked.first().filter(|best| best.from.is_some());
        ranked.iter().filter(move |route| best.is_some_and(|best| grade(best) == grade(route)))
    }

    /// What becomes of a route that a node holds.
    pub(crate) fn fate(&self, node: usize, prefix: IpNet, route: &Route) -> &'static str {
        if let Some(why) = self.world.refuses(node, prefix, route) {
            return why;
        }
        if self.ranked[&prefix][node].first() == Some(route) {
            return "best";
        }
        let hop = self.world.goes_to(node, route);
        let is_used =
            self.equals(node, prefix).any(|equal| equal == route) && self.hops(node, prefix).contains(&hop);
        if is_used { "used as well" } else { "beaten" }
    }
}

/// What is equal in this shares the traffic.
fn grade(route: &Route) -> (bool, Reverse<u32>, usize, Reverse<bool>) {
    (route.is_old, Reverse(route.local_pref()), route.path.len(), Reverse(route.is_external))
}

impl Route {
    fn own() -> Route {
        let hop = Hop { named: None, link: None };
        let (path, clusters) = (Vec::new(), Vec::new());
        let (only, from, originator) = (None, None, None);
        let (is_leaving, is_old, is_kept, is_external) = (false, false, false, false);
        Route { path, only, is_leaving, is_old, is_kept, hop, from, id: 0, is_external, originator, clusters }
    }

    /// RFC 8326: who leaves is the last choice.
    pub(super) fn local_pref(&self) -> u32 {
        if self.is_leaving { 0 } else { 100 }
    }
}

impl World {
    pub(crate) fn is_internal(&self, a: usize, b: usize) -> bool {
        self.asn_towards(a, b) == self.asn_towards(b, a)
    }

    /// A route as a neighbour gets it, if it may be told.
    fn sent(&self, from: usize, to: usize, prefix: IpNet, route: &Route) -> Option<Route> {
        let (ours, theirs) = self.terms(from, to);
        let is_internal = self.is_internal(from, to);
        let to_client = ours.client && is_internal;
        let is_reflected = is_internal && route.from.is_some() && !route.is_external;
        let is_told = match route.from {
            None => self.own[from][&prefix].as_ref().is_none_or(|some| some.contains(&to)),
            // RFC 4456 §6.
            Some(source) if is_reflected => to_client || self.ends[&(from, source)].client,
            Some(_) => ours.transit || to_client,
        };
        // RFC 9494 §4.3.
        let understands = !route.is_old || theirs.knows_long_lived();
        let is_carried = self.carries(from, to, prefix) && self.carries(to, from, prefix);
        if !is_told || !understands || !is_carried || ours.withheld.contains(&prefix) {
            return None;
        }
        let own = if is_internal { Vec::new() } else { vec![self.asn_towards(from, to).0] };
        Some(Route {
            path: [own, route.path.clone()].concat(),
            only: self.only_to_customer(from, to, route.only)?,
            is_leaving: route.is_leaving || ours.drained,
            is_old: route.is_old,
            is_kept: false,
            hop: self.hop(from, to, prefix, route)?,
            from: Some(from),
            id: 0,
            is_external: !is_internal,
            originator: if is_reflected { route.originator.or(route.from) } else { None },
            clusters: if is_reflected { [&[from], &route.clusters[..]].concat() } else { Vec::new() },
        })
    }

    /// The next hop that goes with a route (RFC 4271 §5.1.3), if there is one that the neighbour understands.
    fn hop(&self, from: usize, to: usize, prefix: IpNet, route: &Route) -> Option<Hop> {
        let is_kept = route.from.is_some()
            && match self.ends[&(from, to)].next_hop {
                NextHopMode::Auto => self.is_internal(from, to),
                NextHopMode::Own => false,
                NextHopMode::Keep => true,
            };
        // RFC 8950: IPv6 next hops of IPv4 prefixes, where both ends say so.
        let takes_ipv6 = AfiSafi::of(&prefix) == AfiSafi::Ipv6Unicast || self.extends(from, to);
        if let Some(named) = route.hop.named.filter(|named| is_kept && (named.is_ipv4() || takes_ipv6)) {
            return Some(Hop { named: Some(named), link: None });
        }
        if !takes_ipv6 {
            return self.names_ipv4(from, to).then_some(Hop { named: Some(address(from)), link: None });
        }
        let named = self.names_ipv6(from, to).then_some(IpAddr::V6(address6(from)));
        let link = self.cabling.is_unnumbered(from, to).then_some(from);
        (named.is_some() || link.is_some()).then_some(Hop { named, link })
    }

    fn extends(&self, a: usize, b: usize) -> bool {
        let (ours, theirs) = self.terms(a, b);
        ours.extended_next_hop && theirs.extended_next_hop
    }

    /// Whether a node takes the family for one of the session: both offer it, and it has a next hop to name.
    pub(super) fn carries(&self, node: usize, peer: usize, prefix: IpNet) -> bool {
        let offers = |a: usize, b: usize| self.names_ipv4(a, b) || self.ends[&(a, b)].extended_next_hop;
        let has_hop = self.names_ipv4(node, peer) || self.extends(node, peer);
        AfiSafi::of(&prefix) == AfiSafi::Ipv6Unicast || offers(node, peer) && offers(peer, node) && has_hop
    }

    /// RFC 9234 §5: what is for customers goes to nobody else, and what goes down or across is for customers, whichever end says so.
    fn only_to_customer(&self, from: usize, to: usize, only: Option<u32>) -> Option<Option<u32>> {
        if self.is_internal(from, to) {
            return Some(only);
        }
        let (ours, theirs) = self.terms(from, to);
        let marked = only.or(Some(self.asn_towards(from, to).0));
        let sent = match ours.role {
            Some(Role::Customer | Role::RouteServerClient | Role::Peer) if only.is_some() => return None,
            Some(Role::Provider | Role::RouteServer | Role::Peer) => marked,
            Some(Role::Customer | Role::RouteServerClient) | None => only,
        };
        Some(match theirs.role {
            Some(Role::Customer | Role::RouteServerClient | Role::Peer) => sent.or(marked),
            Some(Role::Provider | Role::RouteServer) | None => sent,
        })
    }

    /// Why what is held of a neighbour may not be used; `None`: it may.
    fn refuses(&self, node: usize, prefix: IpNet, route: &Route) -> Option<&'static str> {
        let from = route.from?;
        let terms = &self.ends[&(node, from)];
        let hop = self.goes_to(node, route);
        // RFC 4271 §9.1.2, RFC 4456 §8.
        let own = [self.asns[node].0, self.asn_towards(node, from).0];
        let times = route.path.iter().filter(|asn| own.contains(asn)).count();
        let loops = times > usize::from(terms.allow_own_asn)
            || !route.is_external && (route.originator == Some(node) || route.clusters.contains(&node));
        // RFC 9234 §5: up from a customer, or across from somebody else's.
        let leaks = match terms.role.filter(|_| route.is_external) {
            Some(Role::Provider | Role::RouteServer) => route.only.is_some(),
            Some(Role::Peer) => route.only != Some(self.asn_towards(from, node).0),
            Some(Role::Customer | Role::RouteServerClient) | None => false,
        };
        let is_own = self.kinds.next_hops && self.addresses(node).contains(&hop);
        let is_outside = terms.within.is_some_and(|within| !within.contains(&prefix));
        if loops || leaks || is_own || is_outside || terms.refused.contains(&prefix) {
            return Some("refused");
        }
        self.unreachable.contains(&(node, hop)).then_some("unreachable")
    }

    /// Where the packets go.
    pub(super) fn goes_to(&self, node: usize, route: &Route) -> IpAddr {
        let link = route.hop.link.map(|neighbour| self.cabling.sees(node, neighbour));
        link.or(route.hop.named).unwrap()
    }
}

// ---- what is kept of a session that is down

impl super::Terms {
    /// RFC 9494 §4.1: an OPEN says it, with graceful restart alone.
    fn knows_long_lived(&self) -> bool {
        let restart = &self.graceful_restart;
        restart.mode != GracefulRestartMode::Disabled && !restart.long_lived_stale_time.is_zero()
    }
}

/// How long ago a session was lost, as [`super::terms`] draws times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Since {
    /// No restart time is over.
    Moments,
    /// All are, and no long-lived one.
    Minutes,
    /// All are.
    Long,
}

impl Reference<'_> {
    /// What a node keeps of a neighbour that is gone. `cut`: the hold timer says so.
    pub(crate) fn kept(
        &self,
        from: usize,
        to: usize,
        since: Since,
        cut: bool,
    ) -> BTreeMap<IpNet, Vec<Route>> {
        let (theirs, ours) = self.world.terms(from, to);
        let (theirs, ours) = (&theirs.graceful_restart, &ours.graceful_restart);
        let agreed = theirs.mode == GracefulRestartMode::Full && ours.mode != GracefulRestartMode::Disabled;
        let survives = !cut || theirs.notification && ours.notification;
        let is_long_lived = !theirs.long_lived_stale_time.is_zero() && !ours.long_lived_stale_time.is_zero();
        let is_kept = match since {
            Since::Moments => agreed && survives,
            Since::Minutes => agreed && survives && is_long_lived,
            Since::Long => false,
        };
        let old = since == Since::Minutes;
        let keep = |route: Route| Route { is_kept: true, is_old: old || route.is_old, ..route };
        let told = |prefix: &IpNet| self.told(from, to, *prefix).into_iter().map(keep).collect();
        let prefixes = prefixes().into_iter().filter(|_| is_kept);
        prefixes.map(|prefix| (prefix, told(&prefix))).collect()
    }
}
