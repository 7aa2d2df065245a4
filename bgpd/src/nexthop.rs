//! Where next hops lead: the speaker asks, the kernel's facts answer, and answer again when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use bgp_proto::link_local;
use bgp_proto::route::NextHopResolution;
use felix_kernel::facts::Facts;
use felix_kernel::link::Link;
use felix_kernel::route::NextHop;

use crate::desire::LinkAddresses;

/// A next hop behind a router costs more than one on a link of ours.
const BEHIND_A_ROUTER: u32 = 10;

/// Where a next hop leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// For the speaker; none: nowhere.
    pub(crate) resolution: Option<NextHopResolution>,
    /// For the kernel, which takes gateways on its links only: the next hop itself, or the router in between.
    pub(crate) way: Option<NextHop>,
}

/// The next hops that the speaker wants to know of, and what it was last told.
#[derive(Debug, Default)]
pub(crate) struct NextHops {
    tracked: BTreeMap<IpAddr, Answer>,
    /// Addresses of our own nodes, which node-to-node sessions prove.
    proven: BTreeSet<IpAddr>,
}

impl NextHops {
    /// Begins to track; the answer as of now.
    pub(crate) fn track(&mut self, facts: &Facts, address: IpAddr) -> Answer {
        let answer = resolve(facts, address, self.proven.contains(&address));
        self.tracked.insert(address, answer);
        answer
    }

    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.tracked.remove(&address);
    }

    /// The answers change with the next call of [`NextHops::changed`].
    pub(crate) fn set_proven(&mut self, addresses: BTreeSet<IpAddr>) {
        self.proven = addresses;
    }

    /// The answers that differ from those given.
    pub(crate) fn changed(&mut self, facts: &Facts) -> Vec<(IpAddr, Answer)> {
        let mut news = Vec::new();
        for (address, known) in &mut self.tracked {
            let answer = resolve(facts, *address, self.proven.contains(address));
            if *known != answer {
                *known = answer;
                news.push((*address, answer));
            }
        }
        news
    }
}

/// A default route resolves no next hop: the router behind it need not be the one that is meant, and a ToR that is
/// cut off would seem reachable through the management network. One of our own nodes is what its address says, and
/// what its session proves by running over the same route: there a default route is as good as any.
fn resolve(facts: &Facts, address: IpAddr, is_proven: bool) -> Answer {
    if let Some((address, interface)) = link_local::parts(address) {
        // It says itself which link it is on, and that is all that the kernel asks for.
        let found = facts.resolve(IpAddr::V6(address), Some(interface));
        let resolution = found.map(|_| NextHopResolution { metric: 0, interface });
        return Answer { resolution, way: found.map(|_| NextHop::via_on(IpAddr::V6(address), interface)) };
    }
    let found = facts.resolve(address, None).filter(|found| is_proven || found.through.prefix_len() > 0);
    let Some(found) = found else { return Answer::default() };
    let metric = if found.is_connected() { 0 } else { BEHIND_A_ROUTER };
    let way = NextHop::via_on(found.gateway.unwrap_or(address), found.ifindex);
    Answer { resolution: Some(NextHopResolution { metric, interface: found.ifindex }), way: Some(way) }
}

/// Our addresses on the interface by which `remote` is reached, the one that the kernel would use first.
pub(crate) fn link_addresses(facts: &Facts, remote: IpAddr) -> LinkAddresses {
    let Some(found) = facts.resolve(remote, None) else { return LinkAddresses::default() };
    addresses(facts, found.ifindex, found.source)
}

/// Our addresses on the interface of this name; none: there is no such interface.
pub(crate) fn named(facts: &Facts, name: &str) -> Option<LinkAddresses> {
    Some(addresses(facts, facts.link_by_name(name)?.index, None))
}

fn addresses(facts: &Facts, ifindex: u32, preferred: Option<IpAddr>) -> LinkAddresses {
    let name = facts.link(ifindex).map(|link| link.name.clone());
    let mut link = LinkAddresses { name, ..LinkAddresses::default() };
    let held = facts
        .addresses()
        .filter(|held| held.ifindex == ifindex && !held.link_scope && held.usable)
        .map(|held| held.address.addr())
        .filter(|address| !address.is_loopback());
    for address in preferred.into_iter().chain(held) {
        match address {
            IpAddr::V4(ip) => drop(link.ipv4.get_or_insert(ip)),
            IpAddr::V6(ip) if ip.is_unicast_link_local() => {}
            IpAddr::V6(ip) => drop(link.ipv6.get_or_insert(ip)),
        }
    }
    link
}

/// Why packets from `local` to the neighbour `remote` cannot leave, if so: nobody has the address any more, or the
/// interface is down. A router may have one address on every link: then it is the neighbour that tells the interface.
pub(crate) fn unusable(facts: &Facts, local: IpAddr, remote: IpAddr) -> Option<String> {
    if let Some((local, ifindex)) = link_local::parts(local) {
        return unusable_link(facts, local, ifindex);
    }
    let mut held = facts.addresses().filter(|held| held.address.addr() == local);
    let Some(first) = held.next() else {
        return Some(format!("address {local} is gone from this node"));
    };
    if held.next().is_some() {
        let connected = facts.resolve(remote, None).is_some_and(|found| found.is_connected());
        return (!connected).then(|| format!("no interface that is up leads to {remote}"));
    }
    facts.link(first.ifindex).and_then(dead)
}

/// The same of our own address on one link: it says which.
fn unusable_link(facts: &Facts, local: Ipv6Addr, ifindex: u32) -> Option<String> {
    let Some(link) = facts.link(ifindex) else {
        return Some("the interface of the session is gone".to_owned());
    };
    let is_held = || {
        let mut of_link = facts.addresses().filter(|held| held.ifindex == ifindex);
        of_link.any(|held| held.address.addr() == IpAddr::V6(local))
    };
    dead(link)
        .or_else(|| (!is_held()).then(|| format!("address {local} is gone from interface {}", link.name)))
}

fn dead(link: &Link) -> Option<String> {
    if link.is_usable() {
        return None;
    }
    let what = if link.up { "has no carrier" } else { "is down" };
    Some(format!("interface {} {what}", link.name))
}
