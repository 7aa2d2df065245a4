//! Values that cross the border of the RIB.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::Sources;
use crate::types::PeerName;

/// How a prefix of our own is announced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnRoute {
    /// Communities (RFC 1997), as `high << 16 | low`.
    pub communities: BTreeSet<u32>,
    /// Large communities (RFC 8092).
    pub large_communities: BTreeSet<[u32; 3]>,
    /// MULTI_EXIT_DISC, none if absent.
    pub med: Option<u32>,
    /// LOCAL_PREF towards internal peers; 100 if absent.
    pub local_pref: Option<u32>,
    /// How often our AS is prepended beyond the once that eBGP asks for.
    pub prepend: u8,
    /// How it came to be here, for filters.
    pub sources: Sources,
    /// Who is told.
    pub audience: Audience,
}

/// The peers that are told of a prefix of our own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Audience {
    /// All of them.
    #[default]
    All,
    /// These only; names that do not exist (yet) are allowed.
    Only(BTreeSet<PeerName>),
}

/// How the host reaches a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHopResolution {
    /// The cost of the way there; smaller is better (RFC 4271 §9.1.2.2 e).
    pub metric: u32,
    /// The interface it leaves by.
    pub interface: u32,
}

/// One change of the forwarding table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FibChange {
    /// The prefix.
    pub prefix: IpNet,
    /// Its route; `None`: it has none any more.
    pub route: Option<FibRoute>,
}

/// A route learned from peers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FibRoute {
    /// The next hops of all equally good paths, ascending, without duplicates; never empty.
    pub next_hops: Vec<IpAddr>,
    /// Set once a tunnel carries the packets.
    pub encap: Option<Tunnel>,
}

/// How packets are wrapped on their way to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tunnel {
    /// IP in IP, to this address.
    Ipip(IpAddr),
    /// VXLAN, to this address.
    Vxlan(IpAddr),
}
