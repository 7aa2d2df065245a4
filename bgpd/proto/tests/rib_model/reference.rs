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
    /// What it sent by prefix and path identifier (0 without), and whether that is stale.
    pub(crate) sent: BTreeMap<(IpNet, u32), (Attributes, bool)>,
    pub(crate) receiver: Receiver,
}

pub(crate) struct Reference {
    pub(crate) peers: Vec<Peer>,
    pub(crate) own: BTreeMap<IpNet, Origination>,
    pub(crate) next_hops: BTreeMap<IpAddr, Option<u32>>,
    pub(crate) assume_reachable: bool,
    pub(crate) max_paths: usize,
}

/// A path: who sent it, its path identifier, what import made of it.
type Learned = (usize, u32, Attributes);

enum Best {
    Own,
    Learned(Vec<Learned>),
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

    /// Every learned path that may be used.
    fn candidates(&self, prefix: &IpNet) -> Vec<Learned> {
        let mut c: Vec<Learned> = Vec::new();
        for (at, peer) in self.peers.iter().enumerate() {
            for ((_, id), (a, _)) in peer.sent.range((*prefix, 0)..=(*prefix, u32::MAX)) {
                if let Some(a) = Self::imported(&peer.facts, prefix, a)
                    && self.metric(a.next_hop).is_some()
                {
                    c.push((at, *id, a));
                }
            }
        }
        c
    }

    fn best(&self, prefix: &IpNet) -> Option<Best> {
        if self.own.contains_key(prefix) {
            return Some(Best::Own);
        }
        let mut c = self.equals(self.candidates(prefix))?;
        let mut next_hops = BTreeSet::new();
        c.retain(|x| {
            if next_hops.len() < self.max_paths.max(1) {
                next_hops.insert(x.2.next_hop);
            }
            next_hops.contains(&x.2.next_hop)
        });
        Some(Best::Learned(c))
    }

    /// All that may be told of a prefix, best first: our own, then what is best without those before.
    fn ranking(&self, prefix: &IpNet) -> Vec<Option<Learned>> {
        let own = self.own.contains_key(prefix).then_some(None);
        let (mut c, mut ranking) = (self.candidates(prefix), Vec::from_iter(own));
        while let Some(best) = self.equals(c.clone()).map(|equals| equals[0].clone()) {
            c.retain(|x| (x.0, x.1) != (best.0, best.1));
            ranking.push(Some(best));
        }
        ranking
    }

    /// RFC 4271 §9.1.2.2: the equally good paths, the best one first.
    fn equals(&self, mut c: Vec<Learned>) -> Option<Vec<Learned>> {
        let pref = |a: &Attributes| a.local_pref.unwrap_or(100);
        let top = c.iter().map(|x| pref(&x.2)).max()?;
        c.retain(|x| pref(&x.2) == top);
        let top = c.iter().map(|x| x.2.path.len()).min()?;
        c.retain(|x| x.2.path.len() == top);
        let top = c.iter().map(|x| x.2.origin).min()?;
        c.retain(|x| x.2.origin == top);
        let all = c.clone();
        let neighbor = |a: &Attributes| a.path.first().copied().unwrap_or(0);
        let med = |a: &Attributes| a.med.unwrap_or(0);
        c.retain(|x| !all.iter().any(|y| neighbor(&y.2) == neighbor(&x.2) && med(&y.2) < med(&x.2)));
        if c.iter().any(|x| self.peers[x.0].facts.is_external()) {
            c.retain(|x| self.peers[x.0].facts.is_external());
        }
        let top = c.iter().filter_map(|x| self.metric(x.2.next_hop)).min()?;
        c.retain(|x| self.metric(x.2.next_hop) == Some(top));
        c.sort_by_key(|x| (self.peers[x.0].facts.router_id, x.1));
        Some(c)
    }

    /// The kernel's table.
    pub(crate) fn fib(&self, prefixes: &[IpNet]) -> BTreeMap<IpNet, Vec<IpAddr>> {
        let learned = prefixes.iter().filter_map(|prefix| match self.best(prefix)? {
            Best::Own => None,
            Best::Learned(paths) => {
                let next_hops: BTreeSet<IpAddr> = paths.iter().map(|(_, _, a)| a.next_hop).collect();
                Some((*prefix, next_hops.into_iter().collect()))
            }
        });
        learned.collect()
    }

    /// What peer `me` should hold of us, by prefix and path identifier; `identifier` is of a peer's path, or of our own.
    pub(crate) fn told(
        &self,
        me: usize,
        prefixes: &[IpNet],
        identifier: impl Fn(Option<(usize, u32)>) -> u32,
    ) -> BTreeMap<(IpNet, u32), Attributes> {
        let facts = &self.peers[me].facts;
        let mut told = BTreeMap::new();
        for prefix in prefixes {
            let many = facts.add_path_send.contains(&bgp_proto::AfiSafi::of(prefix));
            let ranking = self.ranking(prefix);
            let looked_at = if many { ranking.len() } else { 1 };
            let most = if many { usize::from(facts.paths_sent) } else { 1 };
            let passing = ranking.into_iter().take(looked_at).filter_map(|path| {
                let sent = self.told_of(me, prefix, path.as_ref())?;
                Some((path.map(|(source, id, _)| (source, id)), sent))
            });
            for (path, sent) in passing.take(most) {
                if path.is_none_or(|(source, _)| source != me) {
                    let id = if many { identifier(path) } else { 0 };
                    assert_eq!(told.insert((*prefix, id), sent), None, "an identifier twice");
                }
            }
        }
        told
    }

    /// A path as `me` is told it; `None` is our own.
    fn told_of(&self, me: usize, prefix: &IpNet, path: Option<&Learned>) -> Option<Attributes> {
        let facts = &self.peers[me].facts;
        if !facts.families.contains(&bgp_proto::AfiSafi::of(prefix)) {
            return None;
        }
        let own = match prefix {
            IpNet::V4(_) => facts.next_hop_ipv4.map(IpAddr::V4),
            IpNet::V6(_) => facts.next_hop_ipv6.map(IpAddr::V6),
        };
        let external = facts.is_external();
        let (mut a, sources, told_next_hop) = match path {
            None => {
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
            Some((source, _, a)) => {
                let internal = !self.peers[*source].facts.is_external();
                let kept =
                    a.communities.contains(&0xFFFF_FF01) && external || a.communities.contains(&0xFFFF_FF02);
                // RFC 4456 §6.
                let to_client = facts.reflector_client && !external;
                let allowed = match internal && !external {
                    true => to_client || self.peers[*source].facts.reflector_client,
                    false => facts.export.transit || to_client,
                };
                if !allowed || kept {
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
