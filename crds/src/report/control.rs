//! The control sockets: one request a line, one answer a line.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::{PolicyRow, PoolRow, RouteRow, SessionRow, SoftClear};
use crate::store::InvalidObject;

/// What bgpd is asked: `{"verb": "peers"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase")]
pub enum BgpdRequest {
    Status,
    Peers,
    /// The prefixes that this node tells of itself.
    Originated,
    Routes {
        /// Of one BGPPeer only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// Of one prefix only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
    },
    /// What goes to and fro on one session. bgpd keeps the messages for as long as somebody asks for them.
    Capture {
        /// The session: its name, its BGPPeer if that has one session here, or the far end's address.
        peer: String,
        /// The number that the last answer said is next; none: from here on, behind the session's OPENs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
    /// All that this node does with one prefix; an address stands for the longest prefix that holds it.
    Explain {
        prefix: String,
    },
    /// Ends the sessions with a peer and starts them again, or refreshes their routes.
    Clear {
        /// A BGPPeer, a class of sessions such as `topology`, or the address of a neighbour.
        peer: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        soft: Option<SoftClear>,
        /// For the operator of the other side (RFC 9003).
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// What `/metrics` shows.
    Metrics,
}

/// What felix is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase")]
pub enum FelixRequest {
    Status,
    Policies,
    Ipam,
    Endpoints,
    Trace {
        /// `shop/web-1`, or an address.
        from: String,
        to: String,
        /// `tcp`, `udp`, `sctp`
        protocol: String,
        port: u16,
    },
    Table,
}

/// Any verb that could not be answered (ux.md §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlError {
    pub error: String,
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    #[serde(rename = "do", default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// An answer, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer<T> {
    Error(ControlError),
    Ok(T),
}

/// What a daemon works from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputsReport {
    /// The datastore does not answer: this is what an earlier process heard of it last.
    pub remembered: bool,
    /// When that was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// A file of inputs that was not used, with the reason and where it is now; or one that could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How a node stands to traffic, as a person wants it (`spec.adminState` of its FabricNode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drain {
    /// It takes traffic.
    Up,
    /// It is to be drained, and some peer whose session is up was not told yet.
    Draining,
    /// Every peer was told.
    Drained,
}

/// bgpd: `status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpdStatus {
    pub node: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// 0 listens nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Every kind was heard whole from the store.
    pub in_sync: bool,
    #[serde(default)]
    pub inputs: InputsReport,
    /// The reason of condition BGPReady, and its message.
    pub ready: String,
    pub message: String,
    /// None: an older bgpd, which does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    pub sessions: u64,
    pub sessions_established: u64,
    /// Own blocks by family, originated.
    pub own_ipv4: u64,
    pub own_ipv6: u64,
    /// Learned routes that the kernel holds, of those it should.
    pub kernel_routes: u64,
    pub kernel_routes_wanted: u64,
    /// Of those, with more than one next hop.
    pub kernel_multipath: u64,
    /// What the kernel refused: prefix and error.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kernel_refused: BTreeMap<String, String>,
    /// BGPPeers of this node that are not used, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused_peers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid: Vec<InvalidObject>,
}

/// bgpd: `peers`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpdPeers {
    pub node: String,
    pub sessions: Vec<SessionRow>,
}

/// bgpd: `capture`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpdCapture {
    pub node: String,
    /// The session's name.
    pub peer: String,
    pub messages: Vec<CapturedMessage>,
    /// To be asked for next.
    pub next: u64,
    /// Messages that nobody asked for in time, before these.
    pub lost: u64,
}

/// What was read from a session's connection, or written to it: one message, or octets that are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapturedMessage {
    /// Microseconds since 1970.
    pub time: u64,
    /// Our end.
    pub local: SocketAddr,
    /// The far end.
    pub remote: SocketAddr,
    /// By us.
    pub sent: bool,
    /// From the marker on.
    pub octets: ByteString,
}

/// bgpd: `originated`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpdOriginated {
    pub node: String,
    pub prefixes: BTreeSet<IpNet>,
}

/// bgpd: `routes`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpdRoutes {
    pub node: String,
    pub routes: Vec<RouteRow>,
}

/// felix: `status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixStatus {
    pub node: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    pub in_sync: bool,
    #[serde(default)]
    pub inputs: InputsReport,
    pub pods: u64,
    pub blocks: u64,
    pub policies: u64,
    /// The reason of condition DataplaneReady, and its message.
    pub dataplane: String,
    /// The reason of condition PolicyProgrammed.
    pub policy: String,
    pub message: String,
    /// Rules and routes of ours that differ from what they should be.
    pub drift: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid: Vec<InvalidObject>,
}

/// felix: `policies`, in the order of evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixPolicies {
    pub node: String,
    pub policies: Vec<PolicyRow>,
}

/// felix: `ipam`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixIpam {
    pub node: String,
    pub pools: Vec<PoolRow>,
    pub blocks: Vec<BlockRow>,
}

/// One block of this node, as its journal has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockRow {
    pub cidr: String,
    pub pool: String,
    pub used: u64,
    pub cooling: u64,
    pub size: u64,
    /// False: the object in the store is behind the journal.
    pub synced: bool,
}

/// felix: `endpoints`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixEndpoints {
    pub node: String,
    pub endpoints: Vec<EndpointRow>,
}

/// One pod of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRow {
    pub namespace: String,
    pub name: String,
    /// The host's end of the pair.
    pub interface: String,
    pub addresses: Vec<IpAddr>,
    pub sandbox: String,
    /// Policies that select it, in the order of evaluation: `netpol shop/db`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<String>,
    /// In the kernel.
    pub programmed: bool,
}

/// felix: `trace`, and the body of `manxctl policy trace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTrace {
    pub packet: TracePacket,
    /// `Allow` or `Deny`
    pub verdict: String,
    /// `Drop` or `Reject`, where denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<TraceStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_connections: Option<u64>,
    pub considered: Vec<TraceStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelAgreement>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TracePacket {
    pub from: String,
    pub to: String,
    pub protocol: String,
    pub port: u16,
}

/// One rule that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceStep {
    /// `egress` or `ingress`
    pub direction: String,
    pub tier: String,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// Absent on `decidedBy`.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Whether the rules in the kernel give the same verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelAgreement {
    pub agrees: bool,
    pub nodes: Vec<NodeAgreement>,
}

/// The kernel of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeAgreement {
    pub name: String,
    pub agrees: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// felix: `table`, what it believes to be in the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FelixTable {
    pub node: String,
    /// The table value of `felix-calc`, as it serialises or prints itself.
    pub table: serde_json::Value,
}
