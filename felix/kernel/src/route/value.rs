//! The value of a route, and its one normal form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// The kernel's main routing table (RT_TABLE_MAIN).
pub const MAIN_TABLE: u32 = 254;
/// What the kernel makes of metric 0 in IPv6 (IP6_RT_PRIO_USER).
pub const METRIC_DEFAULT_V6: u32 = 1024;
/// Next hops in one route.
pub const MAX_NEXT_HOPS: usize = 256;

/// One route as we want it, or as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// In canonical form (no host bits); [`super::RouteTable::set`] makes it so.
    pub destination: IpNet,
    /// [`MAIN_TABLE`] unless told otherwise.
    pub table: u32,
    /// Lower wins. For IPv6 0 means [`METRIC_DEFAULT_V6`].
    pub metric: u32,
    pub kind: RouteKind,
    /// Preferred source address of packets that this host sends along it.
    pub source: Option<IpAddr>,
    /// Path MTU, bytes.
    pub mtu: Option<u32>,
    /// Encapsulation. This version writes none and refuses a route that has one.
    pub encap: Option<Tunnel>,
}

/// What a route does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Forwards through one of these, by flow hash and weight.
    Unicast { next_hops: Vec<NextHop> },
    /// Drops silently.
    Blackhole,
    /// The destination is on this interface itself, as a local pod is (scope link, no gateway).
    Connected { ifindex: u32 },
}

/// One way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// An IPv4 destination may have an IPv6 gateway (RFC 8950), not the other way round.
    pub gateway: Option<IpAddr>,
    /// Left out, the kernel finds it by the gateway. Needed for a link-local gateway.
    pub ifindex: Option<u32>,
    /// 1 to 256; a flow's chance is weight / sum of weights.
    pub weight: u16,
    /// The gateway is on the link even if no connected prefix covers it.
    pub onlink: bool,
}

impl NextHop {
    /// A gateway of weight 1 that the kernel finds by itself.
    pub fn via(gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), ifindex: None, weight: 1, onlink: false }
    }

    /// A gateway of weight 1 on this interface.
    pub fn via_on(gateway: IpAddr, ifindex: u32) -> Self {
        Self { gateway: Some(gateway), ifindex: Some(ifindex), weight: 1, onlink: false }
    }
}

/// The outer header of a tunnelled route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// RFC 2003.
    IpIp { remote: Ipv4Addr },
    /// RFC 7348.
    Vxlan { vni: u32, remote: IpAddr },
}

/// What the kernel tells routes apart by: one table, prefix and metric hold one route of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    pub table: u32,
    pub destination: IpNet,
    /// As the kernel shows it: never 0 for IPv6.
    pub metric: u32,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} metric {} table {}", self.destination, self.metric, self.table)
    }
}

/// All of a route but its key. Many routes have the same, and [`super::RouteTable`] keeps it once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) kind: RouteKind,
    pub(crate) source: Option<IpAddr>,
    pub(crate) mtu: Option<u32>,
    pub(crate) encap: Option<Tunnel>,
    /// The number of the next-hop object that stands for its next hops.
    pub(crate) object: Option<u32>,
}

impl Way {
    /// Whether a route that was read from the kernel goes the way that `wanted` asked for.
    pub(super) fn satisfies(&self, wanted: &Self) -> bool {
        let Self { kind, source, mtu, encap, object } = self;
        let rest = *source == wanted.source
            && *mtu == wanted.mtu
            && *encap == wanted.encap
            && *object == wanted.object;
        rest && match (kind, &wanted.kind) {
            (RouteKind::Unicast { next_hops: held }, RouteKind::Unicast { next_hops: wanted }) => {
                held.len() == wanted.len()
                    && wanted.iter().all(|hop| held.iter().any(|held| same_hop(held, hop)))
            }
            (held, wanted) => held == wanted,
        }
    }
}

/// A route that no kernel would take, or that we do not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoute {
    #[error("route {0}: no next hop")]
    NoNextHop(RouteKey),
    #[error("route {0}: more than {MAX_NEXT_HOPS} next hops")]
    TooManyNextHops(RouteKey),
    #[error("route {0}: next hop has neither a gateway nor an interface")]
    EmptyNextHop(RouteKey),
    #[error("route {0}: weight {1}, expected 1 to 256")]
    Weight(RouteKey, u16),
    #[error("route {0}: gateway {1} is of the other address family")]
    GatewayFamily(RouteKey, IpAddr),
    #[error("route {0}: gateway {1} is link-local and has no interface")]
    LinkLocalWithoutInterface(RouteKey, IpAddr),
    #[error("route {0}: source {1} is of the other address family")]
    SourceFamily(RouteKey, IpAddr),
    #[error("route {0}: tunnelled routes are not written by this version")]
    Tunnel(RouteKey),
}

impl Route {
    /// A route in the main table, without source, MTU or tunnel.
    pub fn new(destination: IpNet, metric: u32, kind: RouteKind) -> Self {
        Self { destination, table: MAIN_TABLE, metric, kind, source: None, mtu: None, encap: None }
    }

    /// Drops what matches.
    pub fn blackhole(destination: IpNet, metric: u32) -> Self {
        Self::new(destination, metric, RouteKind::Blackhole)
    }

    /// Forwards through these.
    pub fn unicast(destination: IpNet, metric: u32, next_hops: impl IntoIterator<Item = NextHop>) -> Self {
        Self::new(destination, metric, RouteKind::Unicast { next_hops: next_hops.into_iter().collect() })
    }

    /// To a local pod.
    pub fn connected(destination: IpNet, metric: u32, ifindex: u32) -> Self {
        Self::new(destination, metric, RouteKind::Connected { ifindex })
    }

    /// The key under which the kernel and [`super::RouteTable`] know it.
    pub fn key(&self) -> RouteKey {
        let metric = match self.destination {
            IpNet::V6(_) if self.metric == 0 => METRIC_DEFAULT_V6,
            IpNet::V4(_) | IpNet::V6(_) => self.metric,
        };
        RouteKey { table: self.table, destination: self.destination.trunc(), metric }
    }

    /// The form in which two routes that do the same are equal: canonical prefix, next hops sorted and without
    /// repetition, a lone next hop of weight 1, an interface without gateway as [`RouteKind::Connected`].
    ///
    /// # Errors
    /// No kernel would take it.
    pub(crate) fn normalised(mut self) -> Result<Self, InvalidRoute> {
        let key = self.key();
        self.destination = key.destination;
        self.metric = key.metric;
        if self.encap.is_some() {
            return Err(InvalidRoute::Tunnel(key));
        }
        if let Some(source) = self.source
            && source.is_ipv4() != self.destination.addr().is_ipv4()
        {
            return Err(InvalidRoute::SourceFamily(key, source));
        }
        if let RouteKind::Unicast { next_hops } = &mut self.kind {
            next_hops.sort_unstable();
            next_hops.dedup_by_key(|hop| (hop.gateway, hop.ifindex));
            check(&key, next_hops)?;
            if let [hop] = next_hops.as_mut_slice() {
                hop.weight = 1;
                if let NextHop { gateway: None, ifindex: Some(ifindex), .. } = *hop {
                    self.kind = RouteKind::Connected { ifindex };
                }
            }
        }
        Ok(self)
    }

    pub(super) fn split(self) -> (RouteKey, Way) {
        let key = self.key();
        let Self { kind, source, mtu, encap, .. } = self;
        (key, Way { kind, source, mtu, encap, object: None })
    }

    pub(super) fn join(key: &RouteKey, way: &Way) -> Self {
        let Way { kind, source, mtu, encap, object: _ } = way.clone();
        let RouteKey { table, destination, metric } = *key;
        Self { destination, table, metric, kind, source, mtu, encap }
    }
}

fn same_hop(held: &NextHop, wanted: &NextHop) -> bool {
    held.gateway == wanted.gateway
        && (wanted.ifindex.is_none() || held.ifindex == wanted.ifindex)
        && held.weight == wanted.weight
        && held.onlink == wanted.onlink
}

fn check(key: &RouteKey, next_hops: &[NextHop]) -> Result<(), InvalidRoute> {
    if next_hops.is_empty() {
        return Err(InvalidRoute::NoNextHop(*key));
    }
    if next_hops.len() > MAX_NEXT_HOPS {
        return Err(InvalidRoute::TooManyNextHops(*key));
    }
    for hop in next_hops {
        if !(1..=256).contains(&hop.weight) {
            return Err(InvalidRoute::Weight(*key, hop.weight));
        }
        match (hop.gateway, hop.ifindex) {
            (None, None) => return Err(InvalidRoute::EmptyNextHop(*key)),
            (Some(gateway), _) if gateway.is_ipv4() && key.destination.addr().is_ipv6() => {
                return Err(InvalidRoute::GatewayFamily(*key, gateway));
            }
            (Some(gateway @ IpAddr::V6(v6)), None) if v6.is_unicast_link_local() => {
                return Err(InvalidRoute::LinkLocalWithoutInterface(*key, gateway));
            }
            (Some(_), _) | (None, Some(_)) => {}
        }
    }
    Ok(())
}
