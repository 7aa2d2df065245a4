//! BGPSession: the state of one session (api.md §5.2). All of it is bgpd's.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::AddressFamily;
use super::schema::{self, fragment, string_enum};
use super::values::{Duration, RouterId};

/// The state of one session, named `<node>.<peer>`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "BGPSession",
    plural = "bgpsessions",
    shortname = "bgps",
    category = "manx",
    status = "BGPSessionStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    selectable = ".spec.peer",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Peer", type_ = "string", json_path = ".spec.peer"),
    printcolumn(name = "Remote", type_ = "string", json_path = ".status.remoteAddress"),
    printcolumn(name = "ASN", type_ = "integer", json_path = ".status.remoteASN"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.since"),
    printcolumn(name = "BFD", type_ = "string", json_path = ".status.bfd.state"),
    printcolumn(name = "Rx", type_ = "string", json_path = ".status.families[*].accepted", priority = 1),
    printcolumn(name = "Tx", type_ = "string", json_path = ".status.families[*].advertised", priority = 1),
    printcolumn(name = "Last-Error", type_ = "string", json_path = ".status.lastError.name", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct BGPSessionSpec {
    /// Our node.
    #[schemars(with = "schema::Name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub node_name: String,
    /// A BGPPeer, or `topology` for node to node.
    #[schemars(with = "schema::Name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub peer: String,
    /// The address, interface or node at the other end.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub remote: String,
}

/// `spec.peer` of node-to-node sessions; no BGPPeer has this name.
pub const TOPOLOGY_PEER: &str = "topology";

/// What a name in Kubernetes may have at most.
const NAME_BYTES: usize = 253;

impl BGPSession {
    /// What stands behind `<node>.` in the name of a session with one neighbour of a class.
    pub fn peer_of_class(peer: &str, remote: IpAddr) -> String {
        format!("{peer}.{}", remote.to_string().replace(':', "-"))
    }

    /// The name of the object: `<node>.<peer>`; past what a name may have, its end is a hash of the whole.
    pub fn name_of(node: &str, peer: &str) -> String {
        let name = format!("{node}.{peer}");
        if name.len() <= NAME_BYTES {
            return name;
        }
        let hash: String =
            Sha256::digest(name.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        // Names are ASCII, so that any byte is a border of characters.
        let kept = name.get(..NAME_BYTES - hash.len() - 1).unwrap_or_default();
        format!("{}-{hash}", kept.trim_end_matches(['.', '-']))
    }
}

string_enum! {
    /// RFC 4271 §8.2.2
    SessionState {
        Idle = "Idle",
        Connect = "Connect",
        Active = "Active",
        OpenSent = "OpenSent",
        OpenConfirm = "OpenConfirm",
        Established = "Established",
    }
}

/// What one session is and was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPSessionStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub observed_generation: Option<i64>,
    /// The state of RFC 4271 §8.2.2, at the time of writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SessionState>,
    /// The last change of state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::DateTime>")]
    pub since: Option<Time>,
    // A link-local one with its interface, as in fe80::1%eth1; so it is no IpAddr.
    /// Our address on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<String>,
    // As local_address.
    /// The neighbour's address on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_address: Option<String>,
    /// The ASN that we sent.
    #[serde(default, rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::StatusNumber>")]
    pub local_asn: Option<u32>,
    /// The ASN that the neighbour sent.
    #[serde(default, rename = "remoteASN", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::StatusNumber>")]
    pub remote_asn: Option<u32>,
    /// The BGP identifier that the neighbour sent.
    #[serde(default, rename = "remoteRouterID", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub remote_router_id: Option<RouterId>,
    /// Why this local address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_reason: Option<String>,
    /// What both ends agreed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negotiated: Option<Negotiated>,
    /// IPv4Unicast first: the API server prints only the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub families: Vec<FamilyCounts>,
    /// Since bgpd started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Count>")]
    pub resets: Option<u32>,
    /// Kept after recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<SessionError>,
    /// The BFD session, where there is a profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdStatus>,
    /// Established, Synchronized, BFDUp.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
    pub conditions: Vec<Condition>,
}

/// What both OPENs agreed on (RFC 5492).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Negotiated {
    /// The hold time in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub hold_time: Option<Duration>,
    /// Names as IANA has them, without spaces: `FourOctetASN`, `GracefulRestart`, `RouteRefresh`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// How long the neighbour keeps our routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub restart_time: Option<Duration>,
    /// How long the neighbour keeps our stale routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub long_lived_stale_time: Option<Duration>,
}

/// Slow counts of one family; live figures are metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FamilyCounts {
    /// The family.
    pub name: AddressFamily,
    /// Prefixes received, before filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Count>")]
    pub received: Option<u32>,
    /// Prefixes accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Count>")]
    pub accepted: Option<u32>,
    /// Prefixes sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Count>")]
    pub advertised: Option<u32>,
}

string_enum! {
    /// Who ended the session.
    ErrorSource {
        Local = "Local",
        Remote = "Remote",
        Transport = "Transport",
    }
}

fragment!(
    /// RFC 9003 text, or the text of an errno.
    ErrorText,
    json!({"type": "string", "maxLength": 512})
);

/// Why the session went down last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionError {
    /// When.
    #[schemars(with = "schema::DateTime")]
    pub time: Time,
    /// Who ended the session: Local, Remote, or the Transport.
    pub from: ErrorSource,
    /// The NOTIFICATION's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Octet>")]
    pub code: Option<u8>,
    /// The NOTIFICATION's subcode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Octet>")]
    pub subcode: Option<u8>,
    /// IANA's names: `Cease/AdministrativeShutdown`.
    pub name: String,
    /// The text of RFC 9003, or of an errno.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ErrorText>")]
    pub text: Option<String>,
}

string_enum! {
    /// RFC 5880 §6.2
    BfdState {
        AdminDown = "AdminDown",
        Down = "Down",
        Init = "Init",
        Up = "Up",
    }
}

/// BFD of the session, with a profile only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BfdStatus {
    /// The state of RFC 5880 §6.2.
    pub state: BfdState,
    /// The last change of state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::DateTime>")]
    pub since: Option<Time>,
    /// Why BFD went down (RFC 5880 §4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostic: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_by_both_ends_and_hashed_where_that_is_too_long() {
        let remote: IpAddr = "fd00::12".parse().unwrap();
        let peer = BGPSession::peer_of_class(TOPOLOGY_PEER, remote);
        assert_eq!(BGPSession::name_of("worker-1", &peer), "worker-1.topology.fd00--12");
        let long = "n".repeat(250);
        let (one, other) = (BGPSession::name_of(&long, "tor-a"), BGPSession::name_of(&long, "tor-b"));
        assert_eq!((one.len(), other.len()), (253, 253));
        assert_ne!(one, other);
        assert_eq!(one, BGPSession::name_of(&long, "tor-a"));
    }
}
