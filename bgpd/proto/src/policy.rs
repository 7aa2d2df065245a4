//! What may come in from a peer and what may go out to it. Nothing is implicit (RFC 8212).

use std::collections::BTreeSet;

use ipnet::IpNet;

/// What is taken from a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportPolicy {
    /// Prefixes inside one of these are accepted (the pools).
    pub within: BTreeSet<IpNet>,
    /// Whether 0.0.0.0/0 and ::/0 are accepted.
    pub default_route: bool,
    /// Prefixes inside one of these are refused, whatever `within` says (blocks of this node, addresses of this node).
    pub never: BTreeSet<IpNet>,
    /// Exceptions from `never`: exactly these prefixes (borrowed addresses).
    pub except: BTreeSet<IpNet>,
    /// How often our own AS may stand in the path.
    pub allow_own_asn: u8,
}

/// What is told to a peer. Prefixes of our own are told to their audience; this is about the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportPolicy {
    /// Whether learned routes are told as well.
    pub transit: bool,
}
