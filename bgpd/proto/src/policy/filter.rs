//! Filters: ordered rules over the routes that a peer gives us and gets from us.
//!
//! ```text
//!   rule 1 ──no match──► rule 2 ──no match──► … ──► nobody decided: the default policy does
//!     │ match: its changes are made
//!     ├── Continue ─────► rule 2, which sees the route as changed
//!     └── Accept, Reject: done
//! ```
//! A verdict is a function of the rules and the route; nothing here knows a table.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::changes::Changes;
use crate::types::Asn;
use crate::wire::as_path;
use crate::wire::attr::{self, code};

/// All rules of one direction of a peer, in order. Cheap to clone; without a rule it decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter(Arc<[Rule]>);

impl Default for Filter {
    fn default() -> Filter {
        Filter(Arc::new([]))
    }
}

impl FromIterator<Rule> for Filter {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Filter {
        Filter(rules.into_iter().collect())
    }
}

/// What a rule matches, what it changes, and whether it decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// As people know it: the filter, the direction and the rule.
    pub name: Arc<str>,
    /// All of it must hold.
    pub matches: Match,
    /// What becomes of a route that it matches.
    pub action: Action,
    /// What is changed on such a route; nothing where it is rejected.
    pub changes: Changes,
}

/// What becomes of a route that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is taken or told, whatever later rules and the default policy say.
    Accept,
    /// It is not.
    Reject,
    /// The next rule is asked.
    Continue,
}

/// What a rule asks of a route: all members must hold, an empty one holds always.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Match {
    /// One of these holds the prefix.
    pub prefixes: Vec<PrefixRange>,
    /// How the route came to be here: one of these.
    pub sources: Sources,
    /// It carries all of these (RFC 1997), as `high << 16 | low`.
    pub communities: BTreeSet<u32>,
    /// It carries all of these (RFC 8092).
    pub large_communities: BTreeSet<[u32; 3]>,
    /// Its AS_PATH begins with these, the neighbour's first.
    pub path_starts_with: Vec<Asn>,
    /// The last AS of its path.
    pub origin_asn: Option<Asn>,
    /// How long its AS_PATH is at the most, as RFC 4271 §9.1.2.2 counts.
    pub path_max_length: Option<u32>,
    /// One of these holds its next hop. A route of our own has none.
    pub next_hops: Vec<IpNet>,
}

/// Prefixes inside a range, by their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PrefixRange {
    /// The range.
    pub net: IpNet,
    /// The least length.
    pub min_length: u8,
    /// The greatest length. Below `min_length`: no prefix matches.
    pub max_length: u8,
}

impl PrefixRange {
    fn holds(&self, prefix: &IpNet) -> bool {
        (self.min_length..=self.max_length).contains(&prefix.prefix_len()) && self.net.contains(prefix)
    }
}

/// How a route came to be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A block of this node.
    Block,
    /// An address of another node's block.
    BorrowedAddress,
    /// An address of a Service, or a range of them.
    Service,
    /// A prefix written out.
    Static,
    /// An address of this node.
    NodeAddress,
    /// Learned from an internal peer.
    Internal,
    /// Learned from an external peer.
    External,
}

impl Source {
    /// All of them.
    pub const ALL: [Source; 7] = [
        Source::Block,
        Source::BorrowedAddress,
        Source::Service,
        Source::Static,
        Source::NodeAddress,
        Source::Internal,
        Source::External,
    ];

    /// The name, for labels and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Block => "Block",
            Source::BorrowedAddress => "BorrowedAddress",
            Source::Service => "Service",
            Source::Static => "Static",
            Source::NodeAddress => "NodeAddress",
            Source::Internal => "Internal",
            Source::External => "External",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Source::Block => 1,
            Source::BorrowedAddress => 2,
            Source::Service => 4,
            Source::Static => 8,
            Source::NodeAddress => 16,
            Source::Internal => 32,
            Source::External => 64,
        }
    }
}

/// A set of [`Source`]s: a prefix may be a Service's address and written out, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sources(u8);

impl Sources {
    /// Those of either.
    #[must_use]
    pub fn union(self, other: Sources) -> Sources {
        Sources(self.0 | other.0)
    }

    /// Whether the two have a source in common.
    #[must_use]
    pub fn meets(self, other: Sources) -> bool {
        self.0 & other.0 != 0
    }

    /// Its members.
    pub fn iter(self) -> impl Iterator<Item = Source> {
        Source::ALL.into_iter().filter(move |source| self.meets((*source).into()))
    }

    /// As an octet; [`Sources::from_bits`] reads it.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// What [`Sources::bits`] stands for.
    #[must_use]
    pub fn from_bits(bits: u8) -> Sources {
        Sources(bits)
    }
}

impl From<Source> for Sources {
    fn from(source: Source) -> Sources {
        Sources(source.bit())
    }
}

impl FromIterator<Source> for Sources {
    fn from_iter<I: IntoIterator<Item = Source>>(sources: I) -> Sources {
        sources.into_iter().fold(Sources::default(), |all, one| all.union(one.into()))
    }
}

/// A route as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// The prefix.
    pub prefix: &'a IpNet,
    /// How it came to be here.
    pub sources: Sources,
    /// Its next hop; `None`: a route of our own.
    pub next_hop: Option<IpAddr>,
    /// Its canonical attributes, before any change and before our AS is put in front.
    pub attributes: &'a [u8],
}

/// What the rules say of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome<'a> {
    /// The rule that decided, with Accept or Reject; `None`: the default policy does.
    pub by: Option<&'a Rule>,
    /// The changes of all rules that matched; `None`: nothing is changed.
    pub changes: Option<Box<Changes>>,
}

impl Filter {
    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules' word on a route.
    #[must_use]
    pub fn judge(&self, route: &Route<'_>) -> Outcome<'_> {
        let mut outcome = Outcome::default();
        for rule in self.0.iter() {
            if !rule.matches.holds(route, outcome.changes.as_deref()) {
                continue;
            }
            if !rule.changes.is_empty() {
                match &mut outcome.changes {
                    Some(changes) => changes.then(&rule.changes),
                    None => outcome.changes = Some(Box::new(rule.changes.clone())),
                }
            }
            match rule.action {
                Action::Continue => {}
                Action::Accept | Action::Reject => {
                    outcome.by = Some(rule);
                    break;
                }
            }
        }
        outcome
    }
}

impl Match {
    /// Whether the rule is for this route, as earlier rules changed it.
    fn holds(&self, route: &Route<'_>, changes: Option<&Changes>) -> bool {
        (self.prefixes.is_empty() || self.prefixes.iter().any(|range| range.holds(route.prefix)))
            && (self.sources == Sources::default() || self.sources.meets(route.sources))
            && (self.next_hops.is_empty()
                || route
                    .next_hop
                    .is_some_and(|next_hop| self.next_hops.iter().any(|net| net.contains(&next_hop))))
            && self.communities.iter().all(|community| carries(route.attributes, *community, changes))
            && self
                .large_communities
                .iter()
                .all(|community| carries_large(route.attributes, community, changes))
            && self.holds_path(route.attributes, changes)
    }

    fn holds_path(&self, attributes: &[u8], changes: Option<&Changes>) -> bool {
        if self.path_starts_with.is_empty() && self.origin_asn.is_none() && self.path_max_length.is_none() {
            return true;
        }
        let received = attr::find(attributes, code::AS_PATH).unwrap_or_default();
        let prepended = changes.map_or(&[][..], |changes| &changes.prepend);
        let mut path = prepended.iter().copied().chain(as_path::sequence(received));
        let origin = as_path::origin(received).or(prepended.last().copied().filter(|_| received.is_empty()));
        self.path_starts_with.iter().all(|asn| path.next() == Some(*asn))
            && self.origin_asn.is_none_or(|asn| origin == Some(asn))
            && self.path_max_length.is_none_or(|max| {
                let prepended = u32::try_from(prepended.len()).unwrap_or(u32::MAX);
                as_path::length(received, 4).saturating_add(prepended) <= max
            })
    }
}

/// Whether a route carries a community (RFC 1997), as changed.
#[must_use]
pub fn carries(attributes: &[u8], community: u32, changes: Option<&Changes>) -> bool {
    match changes {
        Some(changes) if changes.add_communities.contains(&community) => true,
        Some(changes) if changes.remove_communities.contains(&community) => false,
        Some(_) | None => attr::find(attributes, code::COMMUNITIES)
            .is_some_and(|list| list.chunks_exact(4).any(|one| attr::be32(one) == community)),
    }
}

/// Whether a route carries a large community (RFC 8092), as changed.
fn carries_large(attributes: &[u8], community: &[u32; 3], changes: Option<&Changes>) -> bool {
    match changes {
        Some(changes) if changes.add_large_communities.contains(community) => true,
        Some(changes) if changes.remove_large_communities.contains(community) => false,
        Some(_) | None => attr::find(attributes, code::LARGE_COMMUNITIES)
            .is_some_and(|list| list.chunks_exact(12).any(|one| attr::large(one) == *community)),
    }
}
