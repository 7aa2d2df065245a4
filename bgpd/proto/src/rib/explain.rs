//! Why a peer is told a prefix, or is not: the verdict of its group, with its reason.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Rib;
use super::attrs::AttrId;
use super::core::Family;
use super::group::{Group, Telling, Verdict, rewritten};
use super::table::{Entry, LOCAL, Slot};
use super::view::AdvertisedRoute;
use crate::types::{AfiSafi, PeerId};
use crate::wire::nlri::V6;
use crate::wire::rewrite::{self, Style};

/// Why a prefix is not told to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Withheld {
    /// There is no path in use.
    NoPath,
    /// It is being worked on: told soon.
    NotYet,
    /// The best path is the peer's own.
    OwnPath,
    /// The session does not carry the family.
    Family,
    /// We have no next hop to announce on this session.
    NextHop,
    /// We originate it, and nothing tells it to this peer.
    Audience,
    /// Long-lived stale, and the peer knows no such routes (RFC 9494 §4.3).
    LongLivedStale,
    /// It carries NO_ADVERTISE (RFC 1997).
    NoAdvertise,
    /// It carries NO_EXPORT, and the peer is external (RFC 1997).
    NoExport,
    /// ONLY_TO_CUSTOMER, and the peer is none (RFC 9234 §5).
    RouteLeak,
    /// It carries NOPEER, and the peer is a lateral one (RFC 3765).
    NoPeer,
    /// It is learned, and the session has no transit.
    NoTransit,
    /// It is from an internal peer, and so is this one (RFC 4271 §9.2).
    NotReflected,
    /// A rule of an export filter.
    Filter,
    /// Its attributes leave no room for a prefix.
    TooLong,
}

impl Withheld {
    /// The name, for JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Withheld::NoPath => "NoPath",
            Withheld::NotYet => "NotYet",
            Withheld::OwnPath => "OwnPath",
            Withheld::Family => "Family",
            Withheld::NextHop => "NextHop",
            Withheld::Audience => "Audience",
            Withheld::LongLivedStale => "LongLivedStale",
            Withheld::NoAdvertise => "NoAdvertise",
            Withheld::NoExport => "NoExport",
            Withheld::RouteLeak => "RouteLeak",
            Withheld::NoPeer => "NoPeer",
            Withheld::NoTransit => "NoTransit",
            Withheld::NotReflected => "NotReflected",
            Withheld::Filter => "Filter",
            Withheld::TooLong => "TooLong",
        }
    }

    /// The reason as half a sentence for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Withheld::NoPath => "no path is in use",
            Withheld::NotYet => "being told",
            Withheld::OwnPath => "the best path is its own",
            Withheld::Family => "the session does not carry the family",
            Withheld::NextHop => "no next hop of this family to announce on the session",
            Withheld::Audience => "no BGPAdvertisement tells it to this peer",
            Withheld::LongLivedStale => {
                "it is long-lived stale, and the peer knows no such routes (RFC 9494)"
            }
            Withheld::NoAdvertise => "it carries NO_ADVERTISE",
            Withheld::NoExport => "it carries NO_EXPORT, and the peer is external",
            Withheld::RouteLeak => "it would be a route leak: ONLY_TO_CUSTOMER is set (RFC 9234)",
            Withheld::NoPeer => "it carries NOPEER, and the peer's role is Peer (RFC 3765)",
            Withheld::NoTransit => "learned, and transit is false",
            Withheld::NotReflected => {
                "learned from an internal peer, and neither is a client of this reflector"
            }
            Withheld::Filter => "an export filter rejects it",
            Withheld::TooLong => "its attributes leave no room in a message",
        }
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What becomes of a prefix towards a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportView {
    /// As it was told, AS numbers in four octets whatever the peer reads, or why it was not.
    pub told: Result<AdvertisedRoute, Withheld>,
    /// The rule of a filter that decided, as people know it.
    pub rule: Option<Arc<str>>,
}

impl ExportView {
    fn not(why: Withheld) -> ExportView {
        ExportView { told: Err(why), rule: None }
    }
}

impl Rib {
    /// Whether the peer is told a prefix, and why. `None`: no session with it is up.
    #[must_use]
    pub fn export_to(&self, peer: PeerId, prefix: &IpNet) -> Option<ExportView> {
        let group = self.group_of(peer)?;
        Some(match AfiSafi::of(prefix) {
            AfiSafi::Ipv4Unicast => self.export::<u32>(peer, group, prefix),
            AfiSafi::Ipv6Unicast => self.export::<V6>(peer, group, prefix),
        })
    }

    /// The longest prefix in the table that holds an address.
    #[must_use]
    pub fn longest_match(&self, address: IpAddr) -> Option<IpNet> {
        let host = IpNet::from(address);
        (0..=host.max_prefix_len()).rev().find_map(|len| {
            let prefix = IpNet::new(address, len).ok()?.trunc();
            (!self.paths_to(&prefix).is_empty()).then_some(prefix)
        })
    }

    fn export<A: Family>(&self, peer: PeerId, group: &Group, prefix: &IpNet) -> ExportView {
        let table = &A::plane(&self.core).table;
        let found = A::of(prefix).and_then(|(addr, len)| table.find(addr, len));
        let Some((slot, best)) = found.and_then(|slot| Some((slot, self.core.best::<A>(slot)?))) else {
            return ExportView::not(Withheld::NoPath);
        };
        let told = if group.adds_paths::<A>() {
            // Of several paths the first one that is not the peer's own stands for all.
            let paths = group.paths_of::<A>(slot, &self.core, |_| ());
            let other = paths.into_iter().find(|(_, telling)| telling.source != peer);
            other
                .map(|(id, telling)| (Some(id), telling))
                .ok_or_else(|| self.withheld::<A>(peer, group, slot, best))
        } else if best.1 == peer {
            Err(Withheld::OwnPath)
        } else {
            match group.verdict::<A>(slot, Some(best), &self.core) {
                Verdict::Tell(telling) => Ok((None, telling)),
                Verdict::Not | Verdict::TooLong(_) => Err(self.withheld::<A>(peer, group, slot, best)),
            }
        };
        let (attrs, source) = match &told {
            Ok((_, telling)) => (telling.attrs, telling.source),
            Err(Withheld::Filter) => best,
            Err(why) => return ExportView::not(*why),
        };
        let filter = &group.key.export.filter;
        let origin = self.core.origin(source);
        let rule = group.as_rules_see::<A, _>(slot, attrs, origin, &self.core, |route| {
            filter.judge(route).by.map(|rule| rule.name.clone())
        });
        let told = told.and_then(|telling| self.as_told::<A>(peer, group, slot, &telling, prefix));
        ExportView { told, rule: rule.flatten() }
    }

    /// Why the best path is not told.
    fn withheld<A: Family>(
        &self,
        peer: PeerId,
        group: &Group,
        slot: Slot,
        best: (AttrId, PeerId),
    ) -> Withheld {
        match group.choose::<A>(slot, best, &self.core) {
            _ if best.1 == peer => Withheld::OwnPath,
            Ok(_) => Withheld::TooLong,
            Err(why) => why,
        }
    }

    /// A route as the peer has it, unless that is still to come.
    fn as_told<A: Family>(
        &self,
        peer: PeerId,
        group: &Group,
        slot: Slot,
        (path_id, telling): &(Option<u32>, Telling),
        prefix: &IpNet,
    ) -> Result<AdvertisedRoute, Withheld> {
        let entry = A::plane(&self.core).table.entry(slot);
        let dirty = entry.is_none_or(|entry| entry.has(Entry::<A>::DIRTY));
        let is_due = self.core.peer(peer).is_none_or(|known| {
            known.walk.of(A::FAMILY).contains(&slot) && !known.alike.of(A::FAMILY).get(slot)
                || known.late.prefixes.contains(prefix)
                || known.late.paths.range((*prefix, 0)..=(*prefix, u32::MAX)).next().is_some()
        });
        let out = group.out.of(A::FAMILY);
        if dirty || is_due || !out.bit(slot) && out.paths.of(slot).next().is_none() {
            return Err(Withheld::NotYet);
        }
        let mut bytes = Vec::new();
        let style = Style { four_octet_as: true, ..group.key.style.clone() };
        let Telling { attrs, source, changes } = telling;
        rewritten::<A>(&style, (*attrs, *source), changes.as_deref(), &self.core, &mut bytes);
        let outgoing = rewrite::outgoing(&bytes);
        Ok(AdvertisedRoute {
            prefix: *prefix,
            path_id: *path_id,
            source: (telling.source != LOCAL).then_some(telling.source),
            next_hop: outgoing.next_hop.to_vec(),
            attributes: outgoing.attributes.to_vec(),
        })
    }
}
