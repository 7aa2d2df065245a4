//! Which of several paths to a prefix is used (RFC 4271 §9.1.2.2), as a pure function with its reason.
//!
//! ```text
//! candidates ─► origin of the route ─► long-lived stale ─► LOCAL_PREF ─► AS_PATH length ─► ORIGIN ─► MED ─► eBGP ─► metric
//!                                              what is left is equally good: the multipath set ◄────────────────────┘
//!                                                        │
//!                            router id ─► CLUSTER_LIST ─► peer address ─► path id ─► the best one
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::wire::attr::Key;

/// A usable path, as the decision sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its attributes.
    pub key: Key,
    /// This node originates it.
    pub local: bool,
    /// Long-lived stale (RFC 9494).
    pub long_lived_stale: bool,
    /// From an external peer.
    pub external: bool,
    /// Cost of the way to its next hop.
    pub metric: u32,
    /// ORIGINATOR_ID, else the peer's BGP Identifier.
    pub router_id: u32,
    /// The peer's address; `None` for a route of our own.
    pub peer_address: Option<IpAddr>,
    /// RFC 7911; 0 without.
    pub path_id: u32,
    /// Where the caller finds the path again.
    pub place: u32,
}

/// The outcome of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// The best path.
    pub best: Candidate,
    /// Why.
    pub reason: BestPathReason,
    /// How many candidates, from the first on, make up the multipath set; at least 1. They have as many next hops as are
    /// allowed; several may lead to one of them.
    pub multipath: usize,
}

/// Chooses. Afterwards the best candidate is first, the other members of the multipath set follow it, with at most `max_paths`
/// next hops in all, and the losers are gone. The order of the input does not matter. `None`: there is no candidate.
pub fn select(candidates: &mut Vec<Candidate>, max_paths: u16) -> Option<Selection> {
    let mut settled = BestPathReason::OnlyPath;
    keep_lowest(candidates, |c| !c.local, BestPathReason::LocallyOriginated, &mut settled);
    keep_lowest(candidates, |c| c.long_lived_stale, BestPathReason::NotLongLivedStale, &mut settled);
    keep_lowest(candidates, |c| !c.key.local_pref, BestPathReason::LocalPref, &mut settled);
    keep_lowest(candidates, |c| c.key.as_path_len(), BestPathReason::AsPathLength, &mut settled);
    keep_lowest(candidates, |c| c.key.tail, BestPathReason::Origin, &mut settled);
    keep_lowest_med(candidates, &mut settled);
    keep_lowest(candidates, |c| !c.external, BestPathReason::ExternalOverInternal, &mut settled);
    keep_lowest(candidates, |c| c.metric, BestPathReason::IgpMetric, &mut settled);
    if candidates.len() > 1 {
        candidates.sort_unstable_by_key(tie_break);
        settled =
            candidates.first().zip(candidates.get(1)).map_or(settled, |(best, next)| tie_reason(best, next));
    }
    let best = *candidates.first()?;
    if best.local {
        candidates.truncate(1);
    } else {
        keep_next_hops(candidates, usize::from(max_paths.max(1)));
    }
    Some(Selection { best, reason: settled, multipath: candidates.len() })
}

/// Keeps the paths by the first `most` next hops: two reflectors that tell the same paths must not halve what is used of them.
fn keep_next_hops(candidates: &mut Vec<Candidate>, most: usize) {
    if candidates.len() <= most {
        return;
    }
    let mut kept = Vec::with_capacity(most);
    candidates.retain(|candidate| {
        let next_hop = candidate.key.next_hop;
        let known = kept.contains(&next_hop);
        if !known && kept.len() < most {
            kept.push(next_hop);
            return true;
        }
        known
    });
}

/// Sorts from best to worst: each candidate is the one that [`select`] would choose if those before it were not there.
pub fn rank(candidates: &mut [Candidate]) {
    // What comes before MED.
    let grade = |c: &Candidate| (!c.local, c.long_lived_stale, !c.key.local_pref, c.key.tail);
    candidates.sort_unstable_by_key(grade);
    for class in candidates.chunk_by_mut(|a, b| grade(a) == grade(b)).filter(|class| class.len() > 1) {
        rank_class(class);
    }
}

/// Paths that are equal up to MED, which compares those of one neighbour AS only: each AS is a queue, and of the queues' heads the
/// best one is next.
fn rank_class(class: &mut [Candidate]) {
    let last = |c: &Candidate| (!c.external, c.metric, tie_break(c));
    class.sort_unstable_by_key(|c| (c.key.neighbor_as, c.key.med, last(c)));
    let queued = class.to_vec();
    let mut heads = BTreeSet::new();
    let mut before = None;
    for (at, candidate) in queued.iter().enumerate() {
        if before != Some(candidate.key.neighbor_as) {
            heads.insert((last(candidate), at));
        }
        before = Some(candidate.key.neighbor_as);
    }
    for place in class {
        let Some((_, at)) = heads.pop_first() else { return };
        let Some(next) = queued.get(at) else { return };
        *place = *next;
        let behind = queued.get(at + 1).filter(|behind| behind.key.neighbor_as == next.key.neighbor_as);
        heads.extend(behind.map(|behind| (last(behind), at + 1)));
    }
}

/// Why `loser` is not the best one, `best` being it: the first step at which the two differ.
#[must_use]
pub fn beaten_by(best: &Candidate, loser: &Candidate) -> BestPathReason {
    let mut both = vec![*best, *loser];
    select(&mut both, 1).map_or(BestPathReason::OnlyPath, |selection| selection.reason)
}

fn keep_lowest<K: Ord + Copy>(
    candidates: &mut Vec<Candidate>,
    rank: impl Fn(&Candidate) -> K,
    reason: BestPathReason,
    settled: &mut BestPathReason,
) {
    if candidates.len() < 2 {
        return;
    }
    let Some(lowest) = candidates.iter().map(&rank).min() else { return };
    let before = candidates.len();
    candidates.retain(|candidate| rank(candidate) == lowest);
    if candidates.len() < before {
        *settled = reason;
    }
}

/// RFC 4271 §9.1.2.2 (c): a path goes if another one from the same neighbour AS has a lower MED. Sorted in place, so that it costs
/// k log k and no memory.
fn keep_lowest_med(candidates: &mut Vec<Candidate>, settled: &mut BestPathReason) {
    if candidates.len() < 2 {
        return;
    }
    let before = candidates.len();
    candidates.sort_unstable_by_key(|c| (c.key.neighbor_as, c.key.med));
    let mut lowest = None;
    candidates.retain(|c| match lowest {
        Some((asn, med)) if asn == c.key.neighbor_as => c.key.med == med,
        Some(_) | None => {
            lowest = Some((c.key.neighbor_as, c.key.med));
            true
        }
    });
    if candidates.len() < before {
        *settled = BestPathReason::Med;
    }
}

type TieBreak = (u32, u8, Option<IpAddr>, u32, u32);

fn tie_break(c: &Candidate) -> TieBreak {
    (c.router_id, c.key.cluster_len, c.peer_address, c.path_id, c.place)
}

fn tie_reason(best: &Candidate, next: &Candidate) -> BestPathReason {
    if best.local {
        BestPathReason::LocallyOriginated
    } else if best.router_id != next.router_id {
        BestPathReason::RouterId
    } else if best.key.cluster_len != next.key.cluster_len {
        BestPathReason::ClusterListLength
    } else if best.peer_address != next.peer_address {
        BestPathReason::PeerAddress
    } else {
        BestPathReason::PathId
    }
}

/// The step that settled the decision: the one at which the last other candidate fell out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BestPathReason {
    /// There is no other candidate.
    OnlyPath,
    /// This node originates it.
    LocallyOriginated,
    /// The other is long-lived stale (RFC 9494 §4.3).
    NotLongLivedStale,
    /// Higher LOCAL_PREF (RFC 4271 §9.1.1).
    LocalPref,
    /// Shorter AS_PATH (a).
    AsPathLength,
    /// Lower ORIGIN (b).
    Origin,
    /// Lower MULTI_EXIT_DISC from the same neighbour AS (c).
    Med,
    /// eBGP over iBGP (d).
    ExternalOverInternal,
    /// Nearer next hop (e).
    IgpMetric,
    /// Lower ORIGINATOR_ID or BGP Identifier (f; RFC 4456 §9).
    RouterId,
    /// Shorter CLUSTER_LIST (RFC 4456 §9).
    ClusterListLength,
    /// Lower peer address (g).
    PeerAddress,
    /// Lower path identifier (RFC 7911).
    PathId,
}

impl BestPathReason {
    /// The name, for labels and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BestPathReason::OnlyPath => "OnlyPath",
            BestPathReason::LocallyOriginated => "LocallyOriginated",
            BestPathReason::NotLongLivedStale => "NotLongLivedStale",
            BestPathReason::LocalPref => "LocalPref",
            BestPathReason::AsPathLength => "ASPathLength",
            BestPathReason::Origin => "Origin",
            BestPathReason::Med => "MED",
            BestPathReason::ExternalOverInternal => "ExternalOverInternal",
            BestPathReason::IgpMetric => "IGPMetric",
            BestPathReason::RouterId => "RouterID",
            BestPathReason::ClusterListLength => "ClusterListLength",
            BestPathReason::PeerAddress => "PeerAddress",
            BestPathReason::PathId => "PathID",
        }
    }

    /// The reason as half a sentence for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            BestPathReason::OnlyPath => "only path",
            BestPathReason::LocallyOriginated => "locally originated",
            BestPathReason::NotLongLivedStale => "the other is long-lived stale",
            BestPathReason::LocalPref => "higher local preference",
            BestPathReason::AsPathLength => "shorter AS path",
            BestPathReason::Origin => "lower origin",
            BestPathReason::Med => "lower MED",
            BestPathReason::ExternalOverInternal => "eBGP over iBGP",
            BestPathReason::IgpMetric => "nearer next hop",
            BestPathReason::RouterId => "lower router id",
            BestPathReason::ClusterListLength => "shorter cluster list",
            BestPathReason::PeerAddress => "lower peer address",
            BestPathReason::PathId => "lower path id",
        }
    }
}

#[cfg(test)]
mod tests;
