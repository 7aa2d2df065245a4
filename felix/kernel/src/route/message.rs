//! Routes to and from rtnetlink messages.

use std::net::IpAddr;

use ipnet::IpNet;

use super::value::{NextHop, Route, RouteKey, RouteKind};
use crate::netlink::{NetlinkError, RouteSocket};
use crate::wire::{self, AF_INET, AF_INET6, Message};

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;

const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
const RT_TABLE_UNSPEC: u8 = 0;

const RTN_UNSPEC: u8 = 0;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;
const RTN_THROW: u8 = 9;

const RTNH_F_DEAD: u8 = 1;
const RTNH_F_ONLINK: u8 = 4;
const RTNH_F_LINKDOWN: u8 = 16;
const RTM_F_CLONED: u32 = 0x200;
const RTM_HEADER: usize = 12;

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
    /// It has what [`Route`] cannot say: an encapsulation or a next-hop object.
    pub extended: bool,
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
    let mut routes = Vec::new();
    for family in [AF_INET, AF_INET6] {
        socket.dump("list routes", &dump_request(family, protocol), |kind, body| {
            if kind == wire::RTM_NEWROUTE
                && let Some(route) = KernelRoute::parse(body)
                && protocol.is_none_or(|protocol| route.protocol == protocol)
            {
                routes.push(route);
            }
        })?;
    }
    Ok(routes)
}

/// A request to list. All but the filter is zero: under strict checking (which sockets of ours ask for) every field that
/// is set is a filter, and a table or type would silently hide routes.
fn dump_request(family: u8, protocol: Option<u8>) -> Message {
    let mut message = Message::new(wire::RTM_GETROUTE, 0);
    let mut header = [0; RTM_HEADER];
    header[0] = family;
    header[5] = protocol.unwrap_or(0);
    message.put(&header);
    message
}

pub(super) fn new_route(route: &Route, protocol: u8, flags: u16) -> Message {
    let mut message = Message::new(wire::RTM_NEWROUTE, flags);
    let (route_type, scope, header_flags) = match &route.kind {
        RouteKind::Blackhole => (RTN_BLACKHOLE, RT_SCOPE_UNIVERSE, 0),
        RouteKind::Connected { .. } => (RTN_UNICAST, link_scope(route), 0),
        RouteKind::Unicast { next_hops } => {
            let scope = if next_hops.iter().all(|hop| hop.gateway.is_none()) {
                link_scope(route)
            } else {
                RT_SCOPE_UNIVERSE
            };
            let onlink = matches!(next_hops.as_slice(), [hop] if hop.onlink);
            (RTN_UNICAST, scope, if onlink { RTNH_F_ONLINK } else { 0 })
        }
    };
    put_header(&mut message, &route.key(), protocol, route_type, scope, header_flags);
    put_key(&mut message, &route.key());
    match &route.kind {
        RouteKind::Blackhole => {}
        RouteKind::Connected { ifindex } => message.attribute_u32(RTA_OIF, *ifindex),
        RouteKind::Unicast { next_hops } => match next_hops.as_slice() {
            [hop] => {
                put_gateway(&mut message, route, hop);
                if let Some(ifindex) = hop.ifindex {
                    message.attribute_u32(RTA_OIF, ifindex);
                }
            }
            hops => {
                message.nested(RTA_MULTIPATH, |m| hops.iter().for_each(|hop| put_next_hop(m, route, hop)))
            }
        },
    }
    if let Some(source) = route.source {
        message.attribute(RTA_PREFSRC, &wire::octets(source));
    }
    if let Some(mtu) = route.mtu {
        message.nested(RTA_METRICS, |m| m.attribute_u32(RTAX_MTU, mtu));
    }
    message
}

/// Deletes whatever route of `protocol` has this key; scope and type match any.
pub(super) fn delete_route(key: &RouteKey, protocol: u8) -> Message {
    let mut message = Message::new(wire::RTM_DELROUTE, 0);
    put_header(&mut message, key, protocol, RTN_UNSPEC, RT_SCOPE_NOWHERE, 0);
    put_key(&mut message, key);
    message
}

fn link_scope(route: &Route) -> u8 {
    match route.destination {
        IpNet::V4(_) => RT_SCOPE_LINK,
        IpNet::V6(_) => RT_SCOPE_UNIVERSE,
    }
}

fn put_header(message: &mut Message, key: &RouteKey, protocol: u8, route_type: u8, scope: u8, flags: u8) {
    let table = u8::try_from(key.table).unwrap_or(RT_TABLE_UNSPEC);
    let family = wire::family_of(key.destination.addr());
    let length = key.destination.prefix_len();
    message.put(&[family, length, 0, 0, table, protocol, scope, route_type]);
    message.put(&u32::from(flags).to_ne_bytes());
}

fn put_key(message: &mut Message, key: &RouteKey) {
    if key.destination.prefix_len() > 0 {
        message.attribute(RTA_DST, &wire::octets(key.destination.addr()));
    }
    message.attribute_u32(RTA_TABLE, key.table);
    if key.metric > 0 {
        message.attribute_u32(RTA_PRIORITY, key.metric);
    }
}

fn put_gateway(message: &mut Message, route: &Route, hop: &NextHop) {
    let Some(gateway) = hop.gateway else { return };
    if gateway.is_ipv4() == route.destination.addr().is_ipv4() {
        message.attribute(RTA_GATEWAY, &wire::octets(gateway));
    } else {
        message.nested(RTA_VIA, |m| {
            m.raw(&u16::from(wire::family_of(gateway)).to_ne_bytes());
            m.raw(&wire::octets(gateway));
        });
    }
}

fn put_next_hop(message: &mut Message, route: &Route, hop: &NextHop) {
    message.with_length(|m| {
        let flags = if hop.onlink { RTNH_F_ONLINK } else { 0 };
        // The kernel counts weights from 0.
        let weight = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
        m.raw(&[flags, weight]);
        m.raw(&hop.ifindex.unwrap_or(0).to_ne_bytes());
        put_gateway(m, route, hop);
    });
}

impl KernelRoute {
    /// Reads the body of RTM_NEWROUTE or RTM_DELROUTE; `None` for what is no plain IP route (a cached clone, a route
    /// with type of service or source prefix, another family).
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let header: &[u8; RTM_HEADER] = body.first_chunk()?;
        let &[family, length, source_length, tos, table, protocol, _scope, route_type, ..] = header;
        let flags = wire::u32_at(header, 8)?;
        if source_length != 0 || tos != 0 || flags & RTM_F_CLONED != 0 {
            return None;
        }
        let unspecified: IpAddr = match family {
            AF_INET => std::net::Ipv4Addr::UNSPECIFIED.into(),
            AF_INET6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut route = Self {
            destination: IpNet::new(unspecified, length).ok()?,
            table: table.into(),
            metric: 0,
            protocol,
            route_type: route_type.into(),
            next_hops: Vec::new(),
            source: None,
            mtu: None,
            extended: false,
        };
        // The flags of a lone next hop are the low byte of the route's.
        let mut single = KernelNextHop::new(0, u8::try_from(flags & 0xff).unwrap_or(0), 0);
        for (kind, value) in wire::attributes(body.get(RTM_HEADER..)?) {
            match kind {
                RTA_DST => route.destination = IpNet::new(wire::address(value)?, length).ok()?,
                RTA_TABLE => route.table = wire::u32_at(value, 0)?,
                RTA_PRIORITY => route.metric = wire::u32_at(value, 0)?,
                RTA_PREFSRC => route.source = wire::address(value),
                RTA_METRICS => {
                    route.mtu = wire::attributes(value)
                        .find(|(k, _)| *k == RTAX_MTU)
                        .and_then(|(_, v)| wire::u32_at(v, 0));
                }
                RTA_OIF => single.ifindex = wire::u32_at(value, 0)?,
                RTA_MULTIPATH => route.next_hops = parse_multipath(value, &mut route.extended),
                RTA_NH_ID => route.extended = true,
                kind => single.attribute(kind, value, &mut route.extended),
            }
        }
        if route.next_hops.is_empty() && (single.ifindex != 0 || single.gateway.is_some()) {
            route.next_hops.push(single);
        }
        Some(route)
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
    fn new(ifindex: u32, flags: u8, weight: u8) -> Self {
        Self {
            gateway: None,
            ifindex,
            weight: u16::from(weight) + 1,
            onlink: flags & RTNH_F_ONLINK != 0,
            dead: flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0,
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8], extended: &mut bool) {
        match kind {
            RTA_GATEWAY => self.gateway = wire::address(value),
            RTA_VIA => self.gateway = value.get(2..).and_then(wire::address),
            RTA_ENCAP_TYPE => *extended = true,
            _ => {}
        }
    }
}

fn parse_multipath(value: &[u8], extended: &mut bool) -> Vec<KernelNextHop> {
    let mut hops = Vec::new();
    let mut rest = value;
    while let Some(&[l0, l1, flags, weight, ..]) = rest.first_chunk::<8>() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(ifindex) = wire::u32_at(rest, 4) else { break };
        let Some(attributes) = rest.get(8..length) else { break };
        let mut hop = KernelNextHop::new(ifindex, flags, weight);
        wire::attributes(attributes).for_each(|(kind, value)| hop.attribute(kind, value, extended));
        hops.push(hop);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    hops
}

impl From<u8> for RouteType {
    fn from(route_type: u8) -> Self {
        match route_type {
            RTN_UNICAST => Self::Unicast,
            RTN_LOCAL => Self::Local,
            RTN_BLACKHOLE => Self::Blackhole,
            RTN_UNREACHABLE | RTN_PROHIBIT => Self::Reject,
            RTN_THROW => Self::Throw,
            other => Self::Other(other),
        }
    }
}
