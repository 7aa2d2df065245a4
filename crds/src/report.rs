//! What `manxctl -o json` prints (`cli.manx.dev/v1`, ux.md §5) and what the daemons answer on their control
//! sockets. Inside v1 fields are only added. Durations are `…Seconds`, counts integers, absent means unknown.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::store::InvalidObject;
use crate::v1alpha1::{AddressFamily, BfdState, SessionError, SessionState};

mod control;
mod operate;
pub use control::*;
pub use operate::*;

/// `apiVersion` of every report.
pub const API_VERSION: &str = "cli.manx.dev/v1";

/// What every report begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    pub api_version: String,
    pub kind: String,
    pub time: Time,
    pub source: Source,
    /// False: something that was asked did not answer; it stands in `missing`.
    pub complete: bool,
    pub missing: Vec<Missing>,
}

impl Header {
    /// The header of a complete report; [`Header::miss`] takes that back.
    pub fn new(kind: &str, source: Source, time: Time) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: kind.to_owned(),
            time,
            source,
            complete: true,
            missing: Vec::new(),
        }
    }

    /// Notes that a node could not be asked.
    pub fn miss(&mut self, node: impl Into<String>, reason: impl Into<String>) {
        self.complete = false;
        self.missing.push(Missing { node: node.into(), reason: reason.into() });
    }
}

/// Where a report's facts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    Kubernetes,
    Directory,
    Node,
    Diag,
}

/// A node that was asked and did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub node: String,
    /// `Timeout`, or the text of the error.
    pub reason: String,
}

/// How a thing fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Health {
    #[serde(rename = "ok")]
    Ok,
    #[serde(rename = "warn")]
    Warn,
    #[serde(rename = "FAIL")]
    Fail,
}

/// `manxctl status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FabricStatus {
    #[serde(flatten)]
    pub header: Header,
    /// The fabric's name: of the context, or of the store's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fabric: Option<String>,
    pub result: Health,
    pub sections: Vec<Section>,
    /// Stored forms that do not validate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid: Vec<InvalidObject>,
}

/// One line of `manxctl status`: `nodes`, `bgp`, `routes`, `addresses`, `services`, `policy`, `drift`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Section {
    pub name: String,
    pub result: Health,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// What the table prints behind the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// Something that is not as it should be, over the nodes that see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `BGPPeer/r12-tor-b`
    pub object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub nodes: Vec<String>,
    /// The command that shows more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `manxctl nodes`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    #[serde(flatten)]
    pub header: Header,
    pub nodes: Vec<NodeRow>,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_established: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<u64>,
    /// The reason of condition PolicyProgrammed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The reason of condition DataplaneReady.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<String>,
    /// The reason of condition BGPReady.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// Versions of the agents by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<String, String>,
}

/// `manxctl bgp peers`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerReport {
    #[serde(flatten)]
    pub header: Header,
    pub sessions: Vec<SessionRow>,
}

/// One session, as bgpd answers it or as its BGPSession tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionRow {
    pub node: String,
    /// The BGPPeer.
    pub peer: String,
    pub remote: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    pub state: SessionState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The reason of condition Established, where it is False.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdState>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<FamilyRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<SessionError>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// When it is tried again, where a pause holds it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_seconds: Option<u64>,
    /// What the peer sent that was malformed, since bgpd started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub malformed: Vec<MalformedRow>,
}

/// Prefixes of one family of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyRow {
    pub name: AddressFamily,
    pub received: u64,
    pub accepted: u64,
    pub advertised: u64,
}

/// `manxctl bgp routes`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BGPRouteReport {
    #[serde(flatten)]
    pub header: Header,
    pub routes: Vec<RouteRow>,
}

/// One path: originated here, or received from a neighbour, taken or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRow {
    pub node: String,
    pub prefix: String,
    /// The BGPPeer it came from; absent where it is originated here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The identifier that the neighbour gave the path; absent where its session carries one path per prefix (RFC 7911).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_id: Option<u32>,
    /// Left to right as in the attribute; a set in braces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub as_path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    pub verdict: RouteVerdict,
    /// Why accepted or rejected, and why not installed.
    pub why: String,
    pub best: bool,
    /// Among the next hops that the kernel uses.
    pub installed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// Kept for a neighbour that restarts (RFC 4724).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// BGPPeers it is sent to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent_to: Vec<String>,
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteVerdict {
    Originated,
    Accepted,
    Rejected,
}

/// `manxctl services`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    #[serde(flatten)]
    pub header: Header,
    pub services: Vec<ServiceRow>,
}

/// One address of a Service, or a Service that waits for one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    pub namespace: String,
    pub name: String,
    /// `LoadBalancer`, `ClusterIP`, `NodePort`
    pub r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The LoadBalancerPool that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The traffic policy that counts for this address: `Cluster` or `Local`.
    pub policy: String,
    /// Endpoints of the address's family that are ready and not terminating.
    pub ready: u64,
    /// Nodes that originate it.
    pub nodes: u64,
    /// `announced`, `withdrawn: none ready`, `not announced`, `no BGPAdvertisement asks for it`, `no BGPPeer to tell`,
    /// `not by the nodes that answered`, `waits for an address`, `AddressRequestFailed`
    pub state: String,
    /// Why there is no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `manxctl ipam show`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IPAMReport {
    #[serde(flatten)]
    pub header: Header,
    pub pools: Vec<PoolRow>,
}

/// One IPPool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRow {
    pub name: String,
    pub cidr: String,
    pub used: u64,
    /// Decimal text: an IPv6 pool exceeds 64 bits.
    pub size: String,
    /// Decimal text, for the same reason.
    pub free_blocks: String,
    pub blocks: u64,
    /// Nodes that hold a block.
    pub nodes: u64,
    /// The reason of condition AddressesAvailable, or of Allocatable where that is False.
    pub state: String,
}

/// `manxctl policy list`, in the order of evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    #[serde(flatten)]
    pub header: Header,
    pub policies: Vec<PolicyRow>,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRow {
    pub tier: String,
    pub order: i64,
    /// `netpol`, `cnp`, `mnp`, `gnp`
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    /// `Enforce` or `Audit`
    pub mode: String,
    pub selected_pods: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub selects_hosts: bool,
    /// Packets on all nodes since felix started; in Audit, those that would have been.
    pub denied: u64,
    /// `True`, or the reason why not: `PolicyRejected`, `Pending`, `NodesFailed`.
    pub programmed: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[cfg(test)]
mod tests;
