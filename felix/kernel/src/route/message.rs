//! Routes to and from rtnetlink messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use netlink_packet_core::ParseableParametrized;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage, RouteMetric,
    RouteNextHop, RouteNextHopFlags, RouteScope, RouteType as KernelType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::value::{NextHop, Route, RouteKey, RouteKind};
use crate::netlink::{NetlinkError, RouteSocket};
use crate::packet::{self, Request};

/// Bytes of `struct rtmsg`.
const HEADER: usize = 12;
/// `rtm_protocol` in it.
pub(crate) const PROTOCOL_AT: u32 = 5;

/// A route as the kernel lists it, of any protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRoute {
    pub destination: IpNet,
    pub table: u32,
    pub metric: u32,
    pub protocol: u8,
    pub route_type: RouteType,
    pub next_hops: Vec<KernelNextHop>,
    pub source: Option<IpAddr>,
    pub mtu: Option<u32>,
    /// It has what [`Route`] cannot say: an encapsulation.
    pub extended: bool,
    /// The number of the next-hop object that it goes by. The kernel lists its next hops as well, unless sysctl
    /// net.ipv4.nexthop_compat_mode says otherwise.
    pub object: Option<u32>,
}

/// One next hop as the kernel lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelNextHop {
    pub gateway: Option<IpAddr>,
    pub ifindex: u32,
    /// 1 to 256.
    pub weight: u16,
    pub onlink: bool,
    /// The interface is down, by administrator or carrier.
    pub dead: bool,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteType {
    Unicast,
    /// An address of this host.
    Local,
    Blackhole,
    /// Unreachable or prohibit: refused with an ICMP error.
    Reject,
    /// Ends the lookup in this table.
    Throw,
    /// Broadcast, multicast, anycast, NAT.
    Other(u8),
}

/// The kernel's routes of both families, of this protocol number or of all; without cached clones.
///
/// # Errors
/// The dump failed.
pub fn dump(socket: &RouteSocket, protocol: Option<u8>) -> Result<Vec<KernelRoute>, NetlinkError> {
    list(socket, protocol, |found| protocol.is_none_or(|protocol| found == protocol))
}

/// All routes but those of these protocols. The kernel cannot leave those out; they are not looked at, so that a million
/// of them cost little.
///
/// # Errors
/// The dump failed.
pub fn dump_others(socket: &RouteSocket, protocols: &[u8]) -> Result<Vec<KernelRoute>, NetlinkError> {
    list(socket, None, |found| !protocols.contains(&found))
}

/// The routes that the kernel lists for this protocol (none: all) and whose protocol is wanted.
fn list(
    socket: &RouteSocket,
    protocol: Option<u8>,
    is_wanted: impl Fn(u8) -> bool,
) -> Result<Vec<KernelRoute>, NetlinkError> {
    let mut routes = Vec::new();
    for family in packet::FAMILIES {
        let request = dump_request(family, protocol);
        routes.append(&mut socket.dump("list routes", &request, |kind, body| {
            let found = *body.get(PROTOCOL_AT as usize)?;
            if kind == libc::RTM_NEWROUTE && is_wanted(found) { KernelRoute::parse(body) } else { None }
        })?);
    }
    Ok(routes)
}

/// A request to list. All but the filter is zero: under strict checking (which sockets of ours ask for) every field that
/// is set is a filter, and a table or type would silently hide routes.
fn dump_request(family: AddressFamily, protocol: Option<u8>) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.protocol = protocol.unwrap_or(0).into();
    packet::request(RouteNetlinkMessage::GetRoute(message), 0)
}

/// `object`: the number of a next-hop object, which then stands for the route's next hops.
pub(super) fn new_route(route: &Route, object: Option<u32>, protocol: u8, flags: u16) -> Request {
    let mut message = message(&route.key(), protocol);
    let RouteMessage { header, attributes, .. } = &mut message;
    header.kind = KernelType::Unicast;
    match (&route.kind, object) {
        (RouteKind::Unicast { .. }, Some(object)) => attributes.push(RouteAttribute::NhId(object)),
        (RouteKind::Blackhole, _) => header.kind = KernelType::BlackHole,
        (RouteKind::Connected { ifindex }, _) => {
            header.scope = link_scope(route);
            attributes.push(RouteAttribute::Oif(*ifindex));
        }
        (RouteKind::Unicast { next_hops }, None) => {
            if next_hops.iter().all(|hop| hop.gateway.is_none()) {
                header.scope = link_scope(route);
            }
            match next_hops.as_slice() {
                [hop] => {
                    header.flags.set(RouteFlags::Onlink, hop.onlink);
                    attributes.extend(gateway(route, hop));
                    attributes.extend(hop.ifindex.map(RouteAttribute::Oif));
                }
                hops => {
                    let hops = hops.iter().map(|hop| next_hop(route, hop)).collect();
                    attributes.push(RouteAttribute::MultiPath(hops));
                }
            }
        }
    }
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    packet::request(RouteNetlinkMessage::NewRoute(message), flags)
}

/// Deletes whatever route of `protocol` has this key; scope and type match any.
pub(super) fn delete_route(key: &RouteKey, protocol: u8) -> Request {
    let mut message = message(key, protocol);
    message.header.scope = RouteScope::NoWhere;
    packet::request(RouteNetlinkMessage::DelRoute(message), 0)
}

fn link_scope(route: &Route) -> RouteScope {
    match route.destination {
        IpNet::V4(_) => RouteScope::Link,
        IpNet::V6(_) => RouteScope::Universe,
    }
}

/// A route of this key and protocol, of scope universe and no type.
fn message(key: &RouteKey, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = key.destination;
    message.header = RouteHeader {
        address_family: packet::family(destination.addr()),
        destination_prefix_length: destination.prefix_len(),
        table: u8::try_from(key.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: protocol.into(),
        ..RouteHeader::default()
    };
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.addr().into()));
    }
    message.attributes.push(RouteAttribute::Table(key.table));
    if key.metric > 0 {
        message.attributes.push(RouteAttribute::Priority(key.metric));
    }
    message
}

fn gateway(route: &Route, hop: &NextHop) -> Option<RouteAttribute> {
    let gateway = hop.gateway?;
    Some(if gateway.is_ipv4() == route.destination.addr().is_ipv4() {
        RouteAttribute::Gateway(gateway.into())
    } else {
        RouteAttribute::Via(gateway.into())
    })
}

fn next_hop(route: &Route, hop: &NextHop) -> RouteNextHop {
    let mut message = RouteNextHop::default();
    message.flags.set(RouteNextHopFlags::Onlink, hop.onlink);
    // The kernel counts weights from 0.
    message.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    message.interface_index = hop.ifindex.unwrap_or(0);
    message.attributes.extend(gateway(route, hop));
    message
}

impl KernelRoute {
    /// Reads the body of RTM_NEWROUTE or RTM_DELROUTE; `None` for what is no plain IP route (a cached clone, a route
    /// with type of service or source prefix, another family).
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let header = RouteHeader::parse(body).ok()?;
        if header.source_prefix_length != 0 || header.tos != 0 || header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut route = Self {
            destination: IpNet::new(unspecified(header.address_family)?, header.destination_prefix_length)
                .ok()?,
            table: header.table.into(),
            metric: 0,
            protocol: header.protocol.into(),
            route_type: u8::from(header.kind).into(),
            next_hops: Vec::new(),
            source: None,
            mtu: None,
            extended: false,
            object: None,
        };
        // The flags of a lone next hop are the low byte of the route's.
        let flags = u8::try_from(header.flags.bits() & 0xff).unwrap_or(0);
        let mut single = KernelNextHop::new(0, RouteNextHopFlags::from_bits_retain(flags), 0);
        let asked = (header.address_family, header.kind, RouteLwEnCapType::None);
        for attribute in packet::attributes(body, HEADER) {
            match RouteAttribute::parse_with_param(&attribute, asked) {
                Ok(attribute) => route.take(attribute, &mut single),
                Err(_) => match attribute.kind() {
                    // Without these it would be read as a route that it is not.
                    libc::RTA_DST | libc::RTA_TABLE | libc::RTA_PRIORITY | libc::RTA_OIF => return None,
                    // A next hop cannot be decoded: no route of ours.
                    libc::RTA_MULTIPATH => route.extended = true,
                    _ => {}
                },
            }
        }
        if route.next_hops.is_empty() && (single.ifindex != 0 || single.gateway.is_some()) {
            route.next_hops.push(single);
        }
        Some(route)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not asked for, the crate's enum is open")]
    fn take(&mut self, attribute: RouteAttribute, single: &mut KernelNextHop) {
        match attribute {
            RouteAttribute::Destination(address) => {
                let length = self.destination.prefix_len();
                let destination = ip_address(&address).and_then(|address| IpNet::new(address, length).ok());
                self.destination = destination.unwrap_or(self.destination);
            }
            RouteAttribute::Table(table) => self.table = table,
            RouteAttribute::Priority(metric) => self.metric = metric,
            RouteAttribute::PrefSource(address) => self.source = ip_address(&address),
            RouteAttribute::Metrics(metrics) => {
                self.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::Oif(ifindex) => single.ifindex = ifindex,
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    let mut found = KernelNextHop::new(hop.interface_index, hop.flags, hop.hops);
                    hop.attributes.iter().for_each(|attribute| found.take(attribute, &mut self.extended));
                    self.next_hops.push(found);
                }
            }
            RouteAttribute::NhId(object) => self.object = Some(object),
            other => single.take(&other, &mut self.extended),
        }
    }

    /// As a value of ours; a shape that we never write becomes a unicast route without next hops, which no wanted route
    /// equals, so that it is replaced or removed like any other difference.
    pub(crate) fn to_route(&self) -> Route {
        let hops = || {
            let hops = self.next_hops.iter().map(|hop| NextHop {
                gateway: hop.gateway,
                ifindex: Some(hop.ifindex),
                weight: hop.weight,
                onlink: hop.onlink,
            });
            RouteKind::Unicast { next_hops: hops.collect() }
        };
        let kind = match self.route_type {
            _ if self.extended => RouteKind::Unicast { next_hops: Vec::new() },
            RouteType::Unicast => hops(),
            RouteType::Blackhole => RouteKind::Blackhole,
            RouteType::Local | RouteType::Reject | RouteType::Throw | RouteType::Other(_) => {
                RouteKind::Unicast { next_hops: Vec::new() }
            }
        };
        let route = Route {
            destination: self.destination,
            table: self.table,
            metric: self.metric,
            kind,
            source: self.source,
            mtu: self.mtu,
            encap: None,
        };
        route.clone().normalised().unwrap_or(route)
    }
}

impl KernelNextHop {
    fn new(ifindex: u32, flags: RouteNextHopFlags, weight: u8) -> Self {
        Self {
            gateway: None,
            ifindex,
            weight: u16::from(weight) + 1,
            onlink: flags.contains(RouteNextHopFlags::Onlink),
            dead: flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not asked for, the crate's enum is open")]
    fn take(&mut self, attribute: &RouteAttribute, extended: &mut bool) {
        match attribute {
            RouteAttribute::Gateway(address) => self.gateway = ip_address(address),
            RouteAttribute::Via(RouteVia::Inet(v4)) => self.gateway = Some((*v4).into()),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => self.gateway = Some((*v6).into()),
            RouteAttribute::EncapType(_) => *extended = true,
            _ => {}
        }
    }
}

fn unspecified(family: AddressFamily) -> Option<IpAddr> {
    if family == AddressFamily::Inet {
        Some(Ipv4Addr::UNSPECIFIED.into())
    } else {
        (family == AddressFamily::Inet6).then(|| Ipv6Addr::UNSPECIFIED.into())
    }
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(v4) = address {
        Some((*v4).into())
    } else if let RouteAddress::Inet6(v6) = address {
        Some((*v6).into())
    } else {
        None
    }
}

impl From<u8> for RouteType {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's other types, of which none forwards")]
    fn from(route_type: u8) -> Self {
        match KernelType::from(route_type) {
            KernelType::Unicast => Self::Unicast,
            KernelType::Local => Self::Local,
            KernelType::BlackHole => Self::Blackhole,
            KernelType::Unreachable | KernelType::Prohibit => Self::Reject,
            KernelType::Throw => Self::Throw,
            _ => Self::Other(route_type),
        }
    }
}
