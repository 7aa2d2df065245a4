//! What can happen to a packet and why, in the words that evaluator, counters and traces share.

use serde::Serialize;

use crate::model::{Answer, Direction, RuleId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    Allow,
    Deny(Answer),
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Reason {
    Rule(RuleId),
    /// The end of a tier whose policies select the endpoint; Kubernetes isolation is this.
    TierDefault {
        tier: String,
        direction: Direction,
    },
    /// No policy of this direction selects the endpoint, or every tier passed.
    NoPolicy,
    /// Part of a connection that was allowed.
    Established,
    /// A pod may always talk to itself, also by way of its Service.
    Itself,
    /// Neither end of this stage is a pod's.
    NotOurs,
    /// Neighbour discovery and multicast listener reports of a pod to its node (RFC 4861, RFC 2710, 3810).
    NeighborDiscovery,
    /// [`crate::model::NodeSettings::workload_to_host`]
    WorkloadToHost,
    /// Connection tracking calls it invalid.
    Invalid,
    /// The source is none of the pod's addresses.
    Spoofed,
    /// An interface by our name that no endpoint owns.
    UnknownInterface,
    /// RFC 4861: a pod is no router.
    RouterAdvertisement,
    Redirect,
    ProtectedPort,
    /// To a Service that no DNAT caught.
    ServiceLoop,
}
