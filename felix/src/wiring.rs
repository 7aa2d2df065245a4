//! The link of a pod: a veth pair whose other end is born in the pod's namespace, its addresses, routes and
//! neighbours. Blocking; every call of the kernel ends in bounded time.
//!
//! ```text
//!   host namespace                          pod's namespace (through the socket that the shim passed)
//!   manx4f2a1c09b7d ═══════ veth ═══════ eth0   10.244.0.1/32, fd00:…::1/128
//!     fe80::1                                   default via 169.254.1.1, fe80::1
//!     neighbours: the pod's addresses, permanent   neighbours: both gateways, permanent
//! ```
//! Both MAC addresses are known, so nobody asks: no ARP, no neighbour discovery, no entry that can expire. The host
//! end has no IPv4 address: the kernel would choose it as source of what the node itself sends to the pod.

use std::net::IpAddr;
use std::os::fd::AsFd as _;

use felix_calc::host::{INTERFACE_PREFIX, POD_GATEWAY_V4, POD_GATEWAY_V6, ROUTE_PROTOCOL_LOCAL};
use felix_kernel::descriptor::PodNamespace;
use felix_kernel::link::{self, MacAddress, Veth};
use felix_kernel::netlink::{NetlinkError, RouteSocket};
use felix_kernel::route::{self, KernelRoute, NextHop, Route, RouteError};
use felix_kernel::sysctl::{self, Sysctl};
use felix_kernel::{addr, neigh};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

/// What the link of one attachment is called and addressed by: a function of container and interface, so that it is
/// the same after a crash in the middle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) host_interface: String,
    pub(crate) host_mac: MacAddress,
    pub(crate) pod_mac: MacAddress,
}

impl Ends {
    pub(crate) fn of(container_id: &str, interface: &str) -> Self {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(container_id)
            .chain_update("/")
            .chain_update(interface)
            .finalize()
            .into();
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = digest;
        let hex: String = [a, b, c, d, e, f].iter().map(|byte| format!("{byte:02x}")).collect();
        // Locally administered, unicast.
        let mac = |first: u8, rest: [u8; 5]| {
            let [v, w, x, y, z] = rest;
            MacAddress([first & 0xfc | 0x02, v, w, x, y, z])
        };
        Self {
            host_interface: format!("{INTERFACE_PREFIX}{}", hex.get(..11).unwrap_or_default()),
            host_mac: mac(g, [h, i, j, k, l]),
            pod_mac: mac(m, [n, o, p, a, b]),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WiringError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error("interface {0} is not in the pod's namespace after it was made there")]
    PodEndMissing(String),
    #[error("{0}")]
    Setting(String),
    /// The shim could not switch IPv6 on inside the pod.
    #[error("IPv6 is off inside the pod: {0}")]
    Ipv6Off(String),
}

/// What to make.
pub(crate) struct Wire<'a> {
    pub(crate) ends: &'a Ends,
    /// Inside the pod, such as `eth0`.
    pub(crate) interface: &'a str,
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) mtu: u32,
    pub(crate) pod: &'a PodNamespace,
    pub(crate) ipv6_off: Option<&'a str>,
}

/// Makes the link and everything on it but the routes to the pod, which the dataplane owns. The index of the host end.
pub(crate) fn wire(host: &RouteSocket, wire: &Wire<'_>) -> Result<u32, WiringError> {
    if let Some(why) = wire.ipv6_off
        && wire.addresses.iter().any(IpAddr::is_ipv6)
    {
        return Err(WiringError::Ipv6Off(why.to_owned()));
    }
    let index = create(host, wire)?;
    let outcome =
        host_end(host, wire, index).and_then(|()| pod_end(wire)).and_then(|()| settle(host, wire, index));
    if let Err(error) = outcome {
        // Half a link is none; if this fails too, the start-up sweep and the runtime's DEL remain.
        if let Err(also) = link::delete(host, index) {
            tracing::warn!(error = %also, interface = wire.ends.host_interface, "a half-made link stays");
        }
        return Err(error);
    }
    Ok(index)
}

fn create(host: &RouteSocket, wire: &Wire<'_>) -> Result<u32, WiringError> {
    let veth = Veth {
        host_name: &wire.ends.host_interface,
        host_mac: wire.ends.host_mac,
        pod_name: wire.interface,
        pod_mac: wire.ends.pod_mac,
        mtu: wire.mtu,
        namespace: wire.pod.namespace.as_fd(),
    };
    match link::create_veth(host, &veth) {
        Ok(index) => Ok(index),
        // An ADD that was cut off left it: the name is this attachment's and nobody else's.
        Err(error) if error.is_exists() && link::by_name(host, &wire.ends.host_interface)?.is_some() => {
            link::delete_by_name(host, &wire.ends.host_interface)?;
            Ok(link::create_veth(host, &veth)?)
        }
        Err(error) => Err(error.into()),
    }
}

fn host_end(host: &RouteSocket, wire: &Wire<'_>, index: u32) -> Result<(), WiringError> {
    link::secure_host_end(host, index)?;
    let mut changed = sysctl::Record::new();
    let problems = Sysctl::default().apply(&sysctl::host_end(&wire.ends.host_interface), &mut changed);
    if let Some(problem) = problems.first() {
        return Err(WiringError::Setting(problem.to_string()));
    }
    link::set_up(host, index)?;
    if wire.addresses.iter().any(IpAddr::is_ipv6) {
        addr::add(host, index, IpNet::from(IpAddr::V6(POD_GATEWAY_V6)))?;
    }
    for address in wire.addresses {
        neigh::set_permanent(host, index, *address, wire.ends.pod_mac)?;
    }
    Ok(())
}

fn pod_end(wire: &Wire<'_>) -> Result<(), WiringError> {
    let pod = &wire.pod.socket;
    let eth = link::by_name(pod, wire.interface)?
        .ok_or_else(|| WiringError::PodEndMissing(wire.interface.to_owned()))?;
    link::set_up(pod, eth.index)?;
    for address in wire.addresses {
        addr::add(pod, eth.index, IpNet::from(*address))?;
    }
    for family_is_v4 in [true, false] {
        if !wire.addresses.iter().any(|address| address.is_ipv4() == family_is_v4) {
            continue;
        }
        let gateway = if family_is_v4 { IpAddr::V4(POD_GATEWAY_V4) } else { IpAddr::V6(POD_GATEWAY_V6) };
        neigh::set_permanent(pod, eth.index, gateway, wire.ends.host_mac)?;
        let everything = if family_is_v4 { "0.0.0.0/0" } else { "::/0" };
        let Ok(destination) = everything.parse::<IpNet>() else { continue };
        if family_is_v4 {
            route::replace(pod, Route::connected(IpNet::from(gateway), 0, eth.index), ROUTE_PROTOCOL_LOCAL)?;
        }
        let hop = NextHop { onlink: true, ..NextHop::via_on(gateway, eth.index) };
        route::replace(pod, Route::unicast(destination, 0, [hop]), ROUTE_PROTOCOL_LOCAL)?;
    }
    Ok(())
}

/// Waits until the first packet to the pod would arrive: the kernel answers before link and addresses take effect.
fn settle(host: &RouteSocket, wire: &Wire<'_>, index: u32) -> Result<(), WiringError> {
    let usable = link::settle(host, index)?.is_usable();
    for address in wire.addresses {
        if !addr::settle(&wire.pod.socket, *address)? || !usable {
            tracing::warn!(%address, interface = wire.ends.host_interface, "the pod is slow to become reachable");
        }
    }
    Ok(())
}

/// What is not as ADD left it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("interface {0} is gone from the host, or down")]
    HostEnd(String),
    #[error("interface {0} is gone from the pod, is down, or is another")]
    PodEnd(String),
    #[error("the pod has no address {0}")]
    Address(IpAddr),
    #[error("the pod has no default route via {0}")]
    DefaultRoute(IpAddr),
    #[error("the host has no route to {0}")]
    HostRoute(IpAddr),
}

/// Compares a pod's link, addresses and routes with what [`wire`] and the dataplane made.
pub(crate) fn check(
    host: &RouteSocket,
    pod: &RouteSocket,
    ends: &Ends,
    interface: &str,
    addresses: &[IpAddr],
) -> Result<(), CheckError> {
    let near = link::by_name(host, &ends.host_interface)?.filter(|link| link.up);
    let near = near.ok_or_else(|| CheckError::HostEnd(ends.host_interface.clone()))?;
    let far = link::by_name(pod, interface)?.filter(|link| link.up && link.mac == Some(ends.pod_mac));
    let far = far.ok_or_else(|| CheckError::PodEnd(interface.to_owned()))?;
    let held = addr::list(pod)?;
    let inside = route::dump(pod, None)?;
    let outside = route::dump(host, Some(ROUTE_PROTOCOL_LOCAL))?;
    for address in addresses {
        if !held.iter().any(|held| held.ifindex == far.index && held.address.addr() == *address) {
            return Err(CheckError::Address(*address));
        }
        let gateway = gateway(*address);
        // A gateway is of its route's family.
        let default = |route: &KernelRoute| {
            let mut hops = route.next_hops.iter();
            route.destination.prefix_len() == 0
                && hops.any(|hop| hop.gateway == Some(gateway) && hop.ifindex == far.index)
        };
        if !inside.iter().any(default) {
            return Err(CheckError::DefaultRoute(gateway));
        }
        let to_pod = |route: &KernelRoute| {
            let mut hops = route.next_hops.iter();
            route.destination == IpNet::from(*address) && hops.any(|hop| hop.ifindex == near.index)
        };
        if !outside.iter().any(to_pod) {
            return Err(CheckError::HostRoute(*address));
        }
    }
    Ok(())
}

/// The pod's next hop for everything of this family.
pub(crate) fn gateway(family_of: IpAddr) -> IpAddr {
    match family_of {
        IpAddr::V4(_) => IpAddr::V4(POD_GATEWAY_V4),
        IpAddr::V6(_) => IpAddr::V6(POD_GATEWAY_V6),
    }
}

/// The route to one address of a pod.
pub(crate) fn pod_route(address: IpAddr, index: u32, node: Option<IpAddr>) -> Route {
    Route { source: node, ..Route::connected(IpNet::from(address), 0, index) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_short_and_told_apart() {
        let one = Ends::of("9f3c1a7be210", "eth0");
        assert_eq!(one, Ends::of("9f3c1a7be210", "eth0"));
        let other = Ends::of("9f3c1a7be210", "eth1");
        assert_ne!(one.host_interface, other.host_interface);
        assert_eq!(one.host_interface.len(), 15);
        assert!(one.host_interface.starts_with("manx"));
        for mac in [one.host_mac, one.pod_mac] {
            assert_eq!(mac.0[0] & 0x03, 0x02, "{mac} must be unicast and locally administered");
        }
        assert_ne!(one.host_mac, one.pod_mac);
    }
}
