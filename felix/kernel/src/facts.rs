//! What is known of a network namespace, and the pure question asked of it: where does this next hop lead?

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::Address;
use crate::link::Link;
use crate::neigh::Neighbour;
use crate::route::{KernelNextHop, KernelRoute, MAIN_TABLE, RouteType};

#[cfg(test)]
mod tests;

/// Links, addresses, neighbours, and routes of the main table, as last heard from the kernel.
///
/// Routes of our own making are left out by whoever fills it ([`crate::monitor::Monitor`]): a next hop must not be
/// resolved through a route that BGP installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<Address>,
    neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
    /// By prefix and metric: lookups try prefixes from long to short and take the lowest metric.
    routes: BTreeMap<(IpNet, u32), KernelRoute>,
    /// Whether IPv6, and a length that prefixes have, the longest first: a host has a handful, and a lookup tries no others.
    lengths: BTreeSet<(bool, Reverse<u8>)>,
}

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    pub ifindex: u32,
    /// The router in between; none if the address is directly connected.
    pub gateway: Option<IpAddr>,
    /// The address this host would use as source.
    pub source: Option<IpAddr>,
    /// The route that led there; of length 0, it is a default route.
    pub through: IpNet,
}

impl Resolved {
    /// The address is on a link of this host.
    pub fn is_connected(&self) -> bool {
        self.gateway.is_none()
    }
}

impl Facts {
    /// All links, by index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The link of this index.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// The link of this name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// All addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.iter()
    }

    /// All neighbours.
    pub fn neighbours(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.values()
    }

    /// Routes of the main table that are not ours.
    pub fn routes(&self) -> impl Iterator<Item = &KernelRoute> {
        self.routes.values()
    }

    /// Whether `address` is one of this host's.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|held| held.address.addr() == address)
    }

    /// Where `address` leads now, or `None`: no route, a route that refuses, an own address, or a link that is down.
    ///
    /// A link-local address needs `interface`; with an interface given, only routes through it count. A connected route
    /// whose link is down hides shorter ones: a neighbour behind a cut cable is unreachable, not reachable by default.
    /// (Where the administrator set the link down, the kernel forgets its IPv6 addresses, and this with them: who needs
    /// a neighbour on the link asks [`Resolved::is_connected`] too.)
    pub fn resolve(&self, address: IpAddr, interface: Option<u32>) -> Option<Resolved> {
        if self.is_local(address) {
            return None;
        }
        if is_link_local(address) {
            let ifindex = interface.filter(|&ifindex| self.is_usable(ifindex))?;
            let through = IpNet::from(address);
            return Some(Resolved { ifindex, gateway: None, source: self.source(ifindex, address), through });
        }
        if self.down_connected(address, interface) {
            return None;
        }
        let route = self.longest_match(address, interface)?;
        if route.route_type != RouteType::Unicast {
            return None;
        }
        let hop = route.next_hops.iter().find(|hop| self.is_live(hop, interface))?;
        let source = route.source.or_else(|| self.source(hop.ifindex, hop.gateway.unwrap_or(address)));
        Some(Resolved { ifindex: hop.ifindex, gateway: hop.gateway, source, through: route.destination })
    }

    pub(crate) fn set_link(&mut self, link: Link) {
        self.links.insert(link.index, link);
    }

    pub(crate) fn remove_link(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
        self.addresses.retain(|address| address.ifindex != ifindex);
        self.neighbours.retain(|(index, _), _| *index != ifindex);
    }

    pub(crate) fn set_address(&mut self, address: Address) {
        self.remove_address(&address);
        self.addresses.insert(address);
    }

    pub(crate) fn remove_address(&mut self, address: &Address) {
        self.addresses.retain(|held| (held.ifindex, held.address) != (address.ifindex, address.address));
    }

    pub(crate) fn set_neighbour(&mut self, neighbour: Neighbour) {
        self.neighbours.insert((neighbour.ifindex, neighbour.address), neighbour);
    }

    pub(crate) fn remove_neighbour(&mut self, neighbour: &Neighbour) {
        self.neighbours.remove(&(neighbour.ifindex, neighbour.address));
    }

    /// Replaces all routes. Those of other tables are left out.
    pub(crate) fn set_routes(&mut self, routes: impl IntoIterator<Item = KernelRoute>) {
        self.routes = BTreeMap::new();
        for route in routes.into_iter().filter(|route| route.table == MAIN_TABLE) {
            // IPv6 lists every interface's fe80::/64 and ff00::/8 with one metric: their hops are one entry here.
            self.routes
                .entry((route.destination, route.metric))
                .and_modify(|held| held.next_hops.extend(route.next_hops.iter().copied()))
                .or_insert(route);
        }
        let prefixes = self.routes.keys().map(|(prefix, _)| prefix);
        self.lengths =
            prefixes.map(|prefix| (prefix.addr().is_ipv6(), Reverse(prefix.prefix_len()))).collect();
    }

    fn is_usable(&self, ifindex: u32) -> bool {
        self.links.get(&ifindex).is_some_and(Link::is_usable)
    }

    fn is_live(&self, hop: &KernelNextHop, interface: Option<u32>) -> bool {
        !hop.dead && interface.is_none_or(|wanted| wanted == hop.ifindex) && self.is_usable(hop.ifindex)
    }

    /// Whether `address` lies in the subnet of an address on a link that is down, and of none on a link that is up.
    ///
    /// The kernel removes the connected route of a link that is set down but keeps its IPv4 addresses; without this, the
    /// default route would take over.
    fn down_connected(&self, address: IpAddr, interface: Option<u32>) -> bool {
        let mut on_link = self
            .addresses
            .iter()
            .filter(|held| !is_host_prefix(&held.address) && held.address.contains(&address))
            .filter(|held| interface.is_none_or(|wanted| wanted == held.ifindex))
            .peekable();
        on_link.peek().is_some() && on_link.all(|held| !self.is_usable(held.ifindex))
    }

    fn longest_match(&self, address: IpAddr, interface: Option<u32>) -> Option<&KernelRoute> {
        let of_family = (address.is_ipv6(), Reverse(u8::MAX))..=(address.is_ipv6(), Reverse(0));
        self.lengths.range(of_family).find_map(|&(_, Reverse(length))| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            self.routes.range((prefix, 0)..=(prefix, u32::MAX)).map(|(_, route)| route).find(|route| {
                interface.is_none_or(|wanted| route.next_hops.iter().any(|hop| hop.ifindex == wanted))
            })
        })
    }

    /// An address of the interface to speak to `peer` from: one that shares its subnet, else any of the same reach.
    fn source(&self, ifindex: u32, peer: IpAddr) -> Option<IpAddr> {
        let candidates = || {
            self.addresses.iter().filter(move |held| {
                held.ifindex == ifindex
                    && held.usable
                    && held.address.addr().is_ipv4() == peer.is_ipv4()
                    && (peer.is_ipv4() || is_link_local(held.address.addr()) == is_link_local(peer))
            })
        };
        let near = candidates().find(|held| held.address.contains(&peer));
        near.or_else(|| candidates().next()).map(|held| held.address.addr())
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        // IPv4 link-local addresses are routed like any other; only IPv6 ties them to an interface.
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_host_prefix(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}
