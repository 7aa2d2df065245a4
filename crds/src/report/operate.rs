//! `manxctl bgp explain` and `clear`: what bgpd answers, and what is printed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::{Header, RouteVerdict};
use crate::v1alpha1::SessionState;

/// bgpd: `explain`, all that one node does with one prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpdExplanation {
    pub node: String,
    /// The prefix; where an address was asked for, the longest one that holds it.
    pub prefix: String,
    /// Absent: this node does not originate it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originated: Option<OriginatedRow>,
    /// Received, taken or not; the best one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub received: Vec<ReceivedRow>,
    /// The sessions that are not up: nothing can be received or sent there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<SilentRow>,
    /// Sessions that are up.
    pub peers: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<BestRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent_to: Vec<SentRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_sent_to: Vec<NotSentRow>,
    pub kernel: KernelRow,
}

/// Why this node originates a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginatedRow {
    /// `Block`, `Service`, `Static`, `NodeAddress`
    #[serde(rename = "as")]
    pub sources: Vec<String>,
    /// BGPAdvertisements that tell it, by name.
    pub advertisements: Vec<String>,
    /// It is a block of this node: told to other nodes in any case.
    pub block: bool,
}

/// One path that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedRow {
    pub from: String,
    pub verdict: RouteVerdict,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub as_path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    /// The rule or reason that decided on it.
    pub why: String,
    /// Selected.
    pub best: bool,
    /// In use, alone or beside the best one.
    pub used: bool,
    /// Where it lost against the best one: `LocalPref`, `ASPathLength`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beaten_by: Option<String>,
    /// Kept for a neighbour that restarts (RFC 4724).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// A session that is not up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SilentRow {
    pub peer: String,
    pub state: SessionState,
    pub reason: String,
    /// When it was up last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Time>,
}

/// How the decision fell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BestRow {
    /// The peer; absent: this node's own route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The step that settled it: `OnlyPath`, `LocalPref`, `RouterID`, …
    pub reason: String,
    /// The same in words.
    pub text: String,
}

/// A peer that is told the prefix, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SentRow {
    pub peer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub as_path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// The rule of a filter that lets it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// A peer that is not told, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotSentRow {
    pub peer: String,
    /// `SessionDown`, or where it was withheld: `NoTransit`, `Filter`, …
    pub reason: String,
    pub why: String,
}

/// The kernel's route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelRow {
    /// `blackhole`, or the next hops; absent: there should be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    pub next_hops: u64,
    /// `ok`, `none`, `pending`, `refused: …`, `unknown: …`
    pub state: String,
}

/// `manxctl bgp explain`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BGPExplainReport {
    #[serde(flatten)]
    pub header: Header,
    pub prefix: String,
    /// Whose prefix it is, as the objects say.
    pub owner: String,
    /// The node that the object names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_node: Option<String>,
    pub nodes: Vec<BgpdExplanation>,
}

/// How a session is cleared without being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SoftClear {
    /// The peer is asked to send its routes again (RFC 2918).
    In,
    /// Our routes are sent again.
    Out,
    Both,
}

/// bgpd: `clear`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpdCleared {
    pub node: String,
    /// The sessions of the peer that was named; none: this node has no such session.
    pub sessions: Vec<ClearedRow>,
}

/// One session that was to be cleared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClearedRow {
    pub node: String,
    pub peer: String,
    pub remote: String,
    /// What was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<String>,
    /// What could not be done, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_done: Vec<String>,
}

/// `manxctl bgp clear`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BGPClearReport {
    #[serde(flatten)]
    pub header: Header,
    pub sessions: Vec<ClearedRow>,
}

/// Messages of a peer that were not as the RFCs want them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MalformedRow {
    /// `header`, `OPEN` or `UPDATE`
    pub message: String,
    /// Type of the attribute, code of the capability; absent: the message itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute: Option<u8>,
    pub reason: String,
    /// `SessionReset`, `AfiSafiDisable`, `TreatAsWithdraw`, `AttributeDiscard`, `CapabilityIgnored`
    pub action: String,
    pub rfc: String,
    pub count: u64,
}

/// Any daemon: `metrics`, as they are exposed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsText {
    pub text: String,
}
