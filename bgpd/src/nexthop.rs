//! Where next hops lead: the speaker asks, the kernel's facts answer, and answer again when they change.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp_proto::route::NextHopResolution;
use felix_kernel::facts::Facts;

use crate::desire::LinkAddresses;

/// A next hop behind a router costs more than one on a link of ours.
const BEHIND_A_ROUTER: u32 = 10;

/// The next hops that the speaker wants to know of, and what it was last told.
#[derive(Debug, Default)]
pub(crate) struct NextHops {
    tracked: BTreeMap<IpAddr, Option<NextHopResolution>>,
}

impl NextHops {
    /// Begins to track; the answer as of now.
    pub(crate) fn track(&mut self, facts: &Facts, address: IpAddr) -> Option<NextHopResolution> {
        let resolution = resolve(facts, address);
        self.tracked.insert(address, resolution);
        resolution
    }

    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.tracked.remove(&address);
    }

    /// The answers that differ from those given.
    pub(crate) fn changed(&mut self, facts: &Facts) -> Vec<(IpAddr, Option<NextHopResolution>)> {
        let mut news = Vec::new();
        for (address, known) in &mut self.tracked {
            let resolution = resolve(facts, *address);
            if *known != resolution {
                *known = resolution;
                news.push((*address, resolution));
            }
        }
        news
    }
}

/// A default route resolves no next hop: the router behind it need not be the one that is meant, and a ToR that is
/// cut off would seem reachable through the management network.
fn resolve(facts: &Facts, address: IpAddr) -> Option<NextHopResolution> {
    let found = facts.resolve(address, None).filter(|found| found.through.prefix_len() > 0)?;
    let metric = if found.is_connected() { 0 } else { BEHIND_A_ROUTER };
    Some(NextHopResolution { metric, interface: found.ifindex })
}

/// Our addresses on the interface by which `remote` is reached, the one that the kernel would use first.
pub(crate) fn link_addresses(facts: &Facts, remote: IpAddr) -> LinkAddresses {
    let Some(found) = facts.resolve(remote, None) else { return LinkAddresses::default() };
    let mut link = LinkAddresses::default();
    let source = found.source.into_iter();
    let held = facts
        .addresses()
        .filter(|held| held.ifindex == found.ifindex && !held.link_scope && held.usable)
        .map(|held| held.address.addr());
    for address in source.chain(held) {
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
    let mut held = facts.addresses().filter(|held| held.address.addr() == local);
    let Some(first) = held.next() else {
        return Some(format!("address {local} is gone from this node"));
    };
    if held.next().is_some() {
        let connected = facts.resolve(remote, None).is_some_and(|found| found.is_connected());
        return (!connected).then(|| format!("no interface that is up leads to {remote}"));
    }
    let link = facts.link(first.ifindex)?;
    if link.is_usable() {
        return None;
    }
    let what = if link.up { "has no carrier" } else { "is down" };
    Some(format!("interface {} {what}", link.name))
}
