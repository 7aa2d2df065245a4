//! What may come in from a peer and what may go out to it. Nothing is implicit (RFC 8212).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use self::changes::{Changes, GRACEFUL_SHUTDOWN, NO_PEER};
pub use self::filter::{Action, Filter, Match, Outcome, PrefixRange, Route, Rule, Source, Sources, carries};

mod changes;
mod filter;

/// What is taken from a peer. `never` is asked first, then `filter`; where it does not decide, the default route and `within`.
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
    /// What people say of it. No rule takes what `never` refuses.
    pub filter: Filter,
}

/// What import makes of a path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportVerdict {
    /// Why it is no candidate; `None`: it is one.
    pub rejected: Option<ImportRejection>,
    /// What is changed on a candidate.
    pub changes: Option<Box<Changes>>,
    /// The rule that decided, as people know it.
    pub rule: Option<Arc<str>>,
}

impl ImportPolicy {
    /// Takes every prefix of both families.
    #[must_use]
    pub fn accept_all() -> ImportPolicy {
        let everything = [IpNet::from(ipnet::Ipv4Net::default()), IpNet::from(ipnet::Ipv6Net::default())];
        ImportPolicy { within: everything.into(), default_route: true, ..ImportPolicy::default() }
    }

    /// The verdict over a path. `external`: it comes by eBGP.
    #[must_use]
    pub fn judge(&self, route: &Route<'_>, external: bool) -> ImportVerdict {
        if let Some(rejected) = self.never_takes(route.prefix) {
            return ImportVerdict { rejected: Some(rejected), ..ImportVerdict::default() };
        }
        let Outcome { by, mut changes } = self.filter.judge(route);
        let rule = by.map(|rule| rule.name.clone());
        let rejected = match by.map(|rule| rule.action) {
            Some(Action::Reject) => Some(ImportRejection::Filter),
            Some(Action::Accept) => None,
            Some(Action::Continue) | None => self.refuses_by_default(route.prefix),
        };
        if rejected.is_some() {
            return ImportVerdict { rejected, changes: None, rule };
        }
        // RFC 8326 §3.2, §4.1: the last choice, whatever a rule prefers; a rule that takes the community away undoes it.
        if external && carries(route.attributes, GRACEFUL_SHUTDOWN, changes.as_deref()) {
            changes.get_or_insert_default().local_pref = Some(0);
        }
        ImportVerdict { rejected, changes, rule }
    }

    /// Without a filter: the verdict over a prefix; `None` takes it.
    #[must_use]
    pub fn refuses(&self, prefix: &IpNet) -> Option<ImportRejection> {
        self.never_takes(prefix).or_else(|| self.refuses_by_default(prefix))
    }

    fn never_takes(&self, prefix: &IpNet) -> Option<ImportRejection> {
        let own =
            self.never.iter().find(|net| net.contains(prefix)).filter(|_| !self.except.contains(prefix))?;
        let address = own.prefix_len() == own.max_prefix_len();
        Some(if address { ImportRejection::OwnAddress } else { ImportRejection::OwnBlock })
    }

    fn refuses_by_default(&self, prefix: &IpNet) -> Option<ImportRejection> {
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

/// What is told to a peer. Prefixes of our own are told to their audience, learned ones with `transit`; of these candidates
/// `filter` may withhold some.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ExportPolicy {
    /// Whether learned routes are told as well.
    pub transit: bool,
    /// What people say of it.
    pub filter: Filter,
    /// Whose address goes with a route.
    pub next_hop: NextHopMode,
    /// Everything is told with GRACEFUL_SHUTDOWN, to internal peers with LOCAL_PREF 0 (RFC 8326 §4).
    pub drained: bool,
}

/// The next hop that we announce (RFC 4271 §5.1.3). Of what we originate it is always ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum NextHopMode {
    /// Ourselves towards external peers, the one received towards internal ones.
    #[default]
    Auto,
    /// Ourselves, always.
    Own,
    /// The one received, always: a third party's towards external peers.
    Keep,
}

impl ExportPolicy {
    /// Our own routes, and with `transit` learned ones, as they stand.
    #[must_use]
    pub fn new(transit: bool) -> ExportPolicy {
        ExportPolicy { transit, ..ExportPolicy::default() }
    }

    /// What is changed on a candidate.
    ///
    /// # Errors
    /// The rule that rejects the route.
    pub fn judge(&self, route: &Route<'_>) -> Result<Option<Box<Changes>>, &Rule> {
        let Outcome { by, mut changes } = self.filter.judge(route);
        if let Some(rule) = by.filter(|rule| rule.action == Action::Reject) {
            return Err(rule);
        }
        if self.drained {
            let drain = Changes {
                local_pref: Some(0),
                add_communities: [GRACEFUL_SHUTDOWN].into(),
                ..Changes::default()
            };
            changes.get_or_insert_default().then(&drain);
        }
        Ok(changes)
    }
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
    /// A rule of a filter.
    Filter,
    /// With what the filters add its attributes are longer than any message may be.
    AttributesTooLong,
}

impl ImportRejection {
    /// Every reason.
    pub const ALL: [ImportRejection; 12] = [
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
        ImportRejection::Filter,
        ImportRejection::AttributesTooLong,
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
            ImportRejection::Filter => "Filter",
            ImportRejection::AttributesTooLong => "AttributesTooLong",
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
            ImportRejection::OutsidePools => "outside all pools; no filter takes it",
            ImportRejection::Filter => "a filter rejects it",
            ImportRejection::AttributesTooLong => "filters make its attributes longer than a message",
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
