//! The naive reference: what is best and who is told what, recomputed from everything every peer said.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::policy::{Action, NextHopMode, Source};
use bgp_proto::rib::{OriginAttributes, Origination, PeerFacts, Tag};
use ipnet::IpNet;

use crate::filters;
use crate::wire::{Attributes, Receiver};

pub(crate) const OWN_AS: u32 = 65000;

#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) facts: PeerFacts,
    pub(crate) up: bool,
    /// What it sent, and whether that is stale.
    pub(crate) sent: BTreeMap<IpNet, (Attributes, bool)>,
    pub(crate) receiver: Receiver,
}

pub(crate) struct Reference {
    pub(crate) peers: Vec<Peer>,
    pub(crate) own: BTreeMap<IpNet, Origination>,
    pub(crate) next_hops: BTreeMap<IpAddr, Option<u32>>,
    pub(crate) assume_reachable: bool,
    pub(crate) max_paths: usize,
}

enum Best {
    Own,
    Learned(Vec<(usize, Attributes)>),
}

impl Reference {
    fn metric(&self, next_hop: IpAddr) -> Option<u32> {
        self.next_hops.get(&next_hop).copied().unwrap_or(self.assume_reachable.then_some(0))
    }

    /// What import makes of a route; none: it is rejected.
    pub(crate) fn imported(facts: &PeerFacts, prefix: &IpNet, a: &Attributes) -> Option<Attributes> {
        let (import, mut a) = (&facts.import, a.clone());
        let inside = |nets: &BTreeSet<IpNet>| nets.iter().any(|net| net.contains(prefix));
        if a.path.contains(&OWN_AS) || inside(&import.never) {
            return None;
        }
        let source = if facts.is_external() { Source::External } else { Source::Internal };
        if facts.is_external() {
            a.local_pref = None;
        }
        let decided = filters::run(import.filter.rules(), prefix, source.into(), &mut a).0;
        if decided == Some(Action::Reject) || decided.is_none() && !inside(&import.within) {
            return None;
        }
        if facts.is_external() && a.communities.contains(&0xFFFF_0000) {
            a.local_pref = Some(0);
        }
        Some(a)
    }

    /// RFC 4271 §9.1.2.2, the multipath set in order, the best one first.
    fn best(&self, prefix: &IpNet) -> Option<Best> {
        if self.own.contains_key(prefix) {
            return Some(Best::Own);
        }
        let mut c: Vec<(usize, Attributes)> = Vec::new();
        for (at, peer) in self.peers.iter().enumerate() {
            let Some((a, _)) = peer.sent.get(prefix) else { continue };
            if let Some(a) = Self::imported(&peer.facts, prefix, a)
                && self.metric(a.next_hop).is_some()
            {
                c.push((at, a));
            }
        }
        let pref = |a: &Attributes| a.local_pref.unwrap_or(100);
        let top = c.iter().map(|x| pref(&x.1)).max()?;
        c.retain(|x| pref(&x.1) == top);
        let top = c.iter().map(|x| x.1.path.len()).min()?;
        c.retain(|x| x.1.path.len() == top);
        let top = c.iter().map(|x| x.1.origin).min()?;
        c.retain(|x| x.1.origin == top);
        let all = c.clone();
        let neighbor = |a: &Attributes| a.path.first().copied().unwrap_or(0);
        let med = |a: &Attributes| a.med.unwrap_or(0);
        c.retain(|x| !all.iter().any(|y| neighbor(&y.1) == neighbor(&x.1) && med(&y.1) < med(&x.1)));
        if c.iter().any(|x| self.peers[x.0].facts.is_external()) {
            c.retain(|x| self.peers[x.0].facts.is_external());
        }
        let top = c.iter().filter_map(|x| self.metric(x.1.next_hop)).min()?;
        c.retain(|x| self.metric(x.1.next_hop) == Some(top));
        c.sort_by_key(|x| self.peers[x.0].facts.router_id);
        c.truncate(self.max_paths.max(1));
        Some(Best::Learned(c))
    }

    /// The kernel's table.
    pub(crate) fn fib(&self, prefixes: &[IpNet]) -> BTreeMap<IpNet, Vec<IpAddr>> {
        let learned = prefixes.iter().filter_map(|prefix| match self.best(prefix)? {
            Best::Own => None,
            Best::Learned(paths) => {
                let next_hops: BTreeSet<IpAddr> = paths.iter().map(|(_, a)| a.next_hop).collect();
                Some((*prefix, next_hops.into_iter().collect()))
            }
        });
        learned.collect()
    }

    /// What peer `me` should hold of us.
    pub(crate) fn told(&self, me: usize, prefixes: &[IpNet]) -> BTreeMap<IpNet, Attributes> {
        prefixes.iter().filter_map(|prefix| Some((*prefix, self.told_of(me, prefix)?))).collect()
    }

    fn told_of(&self, me: usize, prefix: &IpNet) -> Option<Attributes> {
        let facts = &self.peers[me].facts;
        if !facts.families.contains(&bgp_proto::AfiSafi::of(prefix)) {
            return None;
        }
        let own = match prefix {
            IpNet::V4(_) => facts.next_hop_ipv4.map(IpAddr::V4),
            IpNet::V6(_) => facts.next_hop_ipv6.map(IpAddr::V6),
        };
        let external = facts.is_external();
        let (mut a, sources, told_next_hop) = match self.best(prefix)? {
            Best::Own => {
                let exports = &self.own[prefix].exports;
                let (_, o) = exports.iter().find(|(tag, _)| facts.tags.contains(tag))?;
                let a = Attributes {
                    origin: 0,
                    path: vec![OWN_AS; usize::from(o.prepend)],
                    next_hop: IpAddr::from([0, 0, 0, 0]),
                    med: o.med,
                    local_pref: o.local_pref,
                    communities: o.communities.clone(),
                    unknown: None,
                    originator: None,
                };
                (a, o.sources, own?)
            }
            Best::Learned(paths) => {
                let (source, a) = paths.first()?;
                let internal = !self.peers[*source].facts.is_external();
                let kept =
                    a.communities.contains(&0xFFFF_FF01) && external || a.communities.contains(&0xFFFF_FF02);
                // RFC 4456 §6.
                let to_client = facts.reflector_client;
                let allowed = match internal && !external {
                    true => to_client || self.peers[*source].facts.reflector_client,
                    false => facts.export.transit || to_client,
                };
                if *source == me || !allowed || kept {
                    return None;
                }
                let sends_self = match facts.export.next_hop {
                    NextHopMode::Auto => external,
                    NextHopMode::Own => true,
                    NextHopMode::Keep => false,
                };
                let mut a = a.clone();
                if internal && !external {
                    a.originator = Some(u32::from(self.peers[*source].facts.router_id.0));
                }
                let source = if internal { Source::Internal } else { Source::External };
                let next_hop = if sends_self { own? } else { a.next_hop };
                (a, source.into(), next_hop)
            }
        };
        let is_own = told_next_hop != a.next_hop && a.next_hop == IpAddr::from([0, 0, 0, 0]);
        let (decided, changes) = filters::run(facts.export.filter.rules(), prefix, sources, &mut a);
        if decided == Some(Action::Reject) {
            return None;
        }
        if facts.export.drained {
            a.communities.insert(0xFFFF_0000);
            a.local_pref = Some(0);
        }
        a.next_hop = told_next_hop;
        if is_own && !external {
            a.path.truncate(changes.prepended);
        }
        if external {
            a.path.insert(0, OWN_AS);
            a.local_pref = None;
            a.med = a.med.filter(|_| is_own || changes.has_med);
        } else {
            a.local_pref = Some(a.local_pref.unwrap_or(100));
        }
        Some(a)
    }
}

/// One of a few originations.
pub(crate) fn origination(choice: u64) -> Origination {
    let plain = OriginAttributes::default();
    let rich = OriginAttributes {
        communities: [0xFDE8_0064].into(),
        local_pref: Some(150),
        med: Some(7),
        prepend: 2,
        sources: Source::Block.into(),
        ..OriginAttributes::default()
    };
    let exports = match choice {
        0 => BTreeMap::new(),
        1 => BTreeMap::from([(Tag(1), plain)]),
        2 => BTreeMap::from([(Tag(2), rich)]),
        3 => BTreeMap::from([(Tag(1), rich.clone()), (Tag(2), plain)]),
        _ => BTreeMap::from([(Tag(3), OriginAttributes { communities: [0xFFFF_FF01].into(), ..plain })]),
    };
    Origination { exports }
}
