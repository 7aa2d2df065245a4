//! Which of several paths to a prefix is used (RFC 4271 §9.1.2.2), as a pure function with its reason.

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
