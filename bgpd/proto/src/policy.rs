//! What may come in from a peer and what may go out to it. Nothing is implicit (RFC 8212).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// What is taken from a peer. `never` is asked first, then the default route, then `within`.
///
/// What is refused is kept: a changed policy is run again over it, the peer need not send it again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportPolicy {
    /// Prefixes inside one of these are accepted (the pools).
    pub within: BTreeSet<IpNet>,
    /// Whether 0.0.0.0/0 and ::/0 are accepted.
    pub default_route: bool,
    /// Prefixes inside one of these are refused, whatever `within` says (blocks of this node, addresses of this node). Routes
    /// with a next hop inside one of these are refused too.
    pub never: BTreeSet<IpNet>,
    /// Exceptions from `never`: exactly these prefixes (borrowed addresses).
    pub except: BTreeSet<IpNet>,
    /// How often our own AS may stand in the path.
    pub allow_own_asn: u8,
}

impl ImportPolicy {
    /// Takes every prefix of both families.
    #[must_use]
    pub fn accept_all() -> ImportPolicy {
        let everything = [IpNet::from(ipnet::Ipv4Net::default()), IpNet::from(ipnet::Ipv6Net::default())];
        ImportPolicy { within: everything.into(), default_route: true, ..ImportPolicy::default() }
    }

    /// The verdict over a prefix: `None` takes it.
    #[must_use]
    pub fn refuses(&self, prefix: &IpNet) -> Option<ImportRejection> {
        if let Some(own) = self.never.iter().find(|net| net.contains(prefix))
            && !self.except.contains(prefix)
        {
            let address = own.prefix_len() == own.max_prefix_len();
            return Some(if address { ImportRejection::OwnAddress } else { ImportRejection::OwnBlock });
        }
        if prefix.prefix_len() == 0 {
            return (!self.default_route).then_some(ImportRejection::DefaultRoute);
        }
        let inside = self.within.iter().any(|net| net.contains(prefix));
        (!inside).then_some(ImportRejection::OutsidePools)
    }

    /// The verdict over a next hop: `None` takes it.
    #[must_use]
    pub fn refuses_next_hop(&self, next_hop: IpAddr) -> Option<ImportRejection> {
        let own = self.never.iter().any(|net| net.contains(&next_hop));
        (own && !self.except.contains(&IpNet::from(next_hop))).then_some(ImportRejection::NextHopOwnAddress)
    }
}

/// What is told to a peer. Prefixes of our own are told to their audience; this is about the rest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ExportPolicy {
    /// Whether learned routes are told as well.
    pub transit: bool,
}

/// Why a path that was received is no candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImportRejection {
    /// Our AS is in its AS_PATH (RFC 4271 §9.1.2).
    AsPathLoop,
    /// Its ORIGINATOR_ID is our BGP Identifier (RFC 4456 §8).
    OriginatorLoop,
    /// Our cluster is in its CLUSTER_LIST (RFC 4456 §8).
    ClusterLoop,
    /// Its ONLY_TO_CUSTOMER attribute says that it came from above (RFC 9234 §5).
    RouteLeak,
    /// Its next hop is no address of a host: loopback, multicast, unspecified, reserved (RFC 4271 §6.3).
    NextHopMartian,
    /// Its next hop is an address of this node (RFC 4271 §6.3).
    NextHopOwnAddress,
    /// It is a host route to an address of this node.
    OwnAddress,
    /// It lies inside a block that this node owns.
    OwnBlock,
    /// A default route, which the policy does not take.
    DefaultRoute,
    /// Outside the pools.
    OutsidePools,
}

impl ImportRejection {
    /// Every reason.
    pub const ALL: [ImportRejection; 10] = [
        ImportRejection::AsPathLoop,
        ImportRejection::OriginatorLoop,
        ImportRejection::ClusterLoop,
        ImportRejection::RouteLeak,
        ImportRejection::NextHopMartian,
        ImportRejection::NextHopOwnAddress,
        ImportRejection::OwnAddress,
        ImportRejection::OwnBlock,
        ImportRejection::DefaultRoute,
        ImportRejection::OutsidePools,
    ];

    /// The name, for labels and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ImportRejection::AsPathLoop => "ASPathLoop",
            ImportRejection::OriginatorLoop => "OriginatorLoop",
            ImportRejection::ClusterLoop => "ClusterLoop",
            ImportRejection::RouteLeak => "RouteLeak",
            ImportRejection::NextHopMartian => "NextHopMartian",
            ImportRejection::NextHopOwnAddress => "NextHopOwnAddress",
            ImportRejection::OwnAddress => "OwnAddress",
            ImportRejection::OwnBlock => "OwnBlock",
            ImportRejection::DefaultRoute => "DefaultRoute",
            ImportRejection::OutsidePools => "OutsidePools",
        }
    }

    /// The reason as half a sentence for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            ImportRejection::AsPathLoop => "our AS is in its AS_PATH",
            ImportRejection::OriginatorLoop => "its ORIGINATOR_ID is our router id",
            ImportRejection::ClusterLoop => "our cluster is in its CLUSTER_LIST",
            ImportRejection::RouteLeak => "it is a route leak: ONLY_TO_CUSTOMER is set (RFC 9234)",
            ImportRejection::NextHopMartian => "its next hop is not a host's address",
            ImportRejection::NextHopOwnAddress => "its next hop is an address of this node",
            ImportRejection::OwnAddress => "it is an address of this node",
            ImportRejection::OwnBlock => "it is inside a block of this node",
            ImportRejection::DefaultRoute => "the import policy takes no default route",
            ImportRejection::OutsidePools => "it is outside the pools",
        }
    }
}

impl fmt::Display for ImportRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
