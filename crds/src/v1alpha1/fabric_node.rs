//! FabricNode: what a person says of one node, and what the agents found (api.md §4.2).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{self, fragment, string_enum};
use super::values::{Asn, Ip, RouterId};

/// One a node, same name; created empty by felix.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "FabricNode",
    plural = "fabricnodes",
    shortname = "fnode",
    category = "manx",
    status = "FabricNodeStatus",
    derive = "PartialEq",
    printcolumn(name = "IPv4", type_ = "string", json_path = ".status.addresses.ipv4"),
    printcolumn(name = "IPv6", type_ = "string", json_path = ".status.addresses.ipv6", priority = 1),
    printcolumn(name = "ASN", type_ = "integer", json_path = ".status.bgp.asn"),
    printcolumn(name = "Router-ID", type_ = "string", json_path = ".status.bgp.routerID"),
    printcolumn(name = "Admin", type_ = "string", json_path = ".spec.adminState"),
    printcolumn(
        name = "BGP",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="BGPReady")].reason"#
    ),
    printcolumn(
        name = "Dataplane",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="DataplaneReady")].reason"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.adminMessage) || self.adminState != 'Up'").message("adminMessage has no effect while adminState is Up").reason(Reason::FieldValueForbidden))]
pub struct FabricNodeSpec {
    /// The node's ASN; that of the FabricConfiguration where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<Asn>,
    /// The BGP identifier (RFC 6286); the node's IPv4 address, or a hash of its name, where unset.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<RouterId>,
    /// The node's addresses; they beat the FabricConfiguration's source, family by family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<NodeAddresses>,
    /// For all its sessions. Drained asks for traffic to go elsewhere and keeps them (RFC 8326); Shutdown ends
    /// them (RFC 4486).
    #[serde(default)]
    pub admin_state: AdminState,
    /// Text that neighbours get with the end of a session (RFC 9003).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::AdminMessage>")]
    pub admin_message: Option<String>,
}

fragment!(
    /// A canonical IPv4 address.
    Ipv4Text,
    json!({"type": "string", "maxLength": 39, "x-kubernetes-validations": [{
        "rule": "isIP(self) && ip.isCanonical(self) && ip(self).family() == 4", "message": "must be an IPv4 address"}]})
);
fragment!(
    /// A canonical IPv6 address.
    Ipv6Text,
    json!({"type": "string", "maxLength": 39, "x-kubernetes-validations": [{
        "rule": "isIP(self) && ip.isCanonical(self) && ip(self).family() == 6", "message": "must be an IPv6 address"}]})
);

/// A node's addresses by family, as a person sets them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddresses {
    /// The IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Ipv4Text>")]
    pub ipv4: Option<Ip>,
    /// The IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Ipv6Text>")]
    pub ipv6: Option<Ip>,
}

string_enum! {
    /// What a person wants of a node's or a neighbour's sessions (RFC 8326, RFC 9003).
    AdminState {
        Up = "Up",
        /// GRACEFUL_SHUTDOWN and LOCAL_PREF 0; sessions stay.
        Drained = "Drained",
        /// Cease/2.
        Shutdown = "Shutdown",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for AdminState {
    fn default() -> Self {
        Self::Up
    }
}

/// What the agents found; each field has one writer (api.md §4.2).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FabricNodeStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub observed_generation: Option<i64>,
    /// The node's addresses, by felix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<NodeAddressesStatus>,
    /// Where the addresses come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_source: Option<String>,
    /// What bgpd runs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<NodeBgpStatus>,
    /// Addresses of the node's tunnels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub tunnel_addresses: Vec<String>,
    /// The MTU of pods.
    #[serde(default, rename = "podMTU", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::PortOrZero>")]
    pub pod_mtu: Option<u16>,
    /// The ranges this node holds; written by a claim, not by a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub blocks: Vec<String>,
    /// The MAC address of the VXLAN device.
    #[serde(default, rename = "vtepMAC", skip_serializing_if = "Option::is_none")]
    pub vtep_mac: Option<String>,
    /// The agents of the node; each writes its own item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub agents: Vec<AgentStatus>,
    /// Policies that this node could not program; normally empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub policy_failures: Vec<PolicyFailure>,
    /// AddressesReady, IdentityUnique, DataplaneReady, PolicyProgrammed, BGPReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
    pub conditions: Vec<Condition>,
}

/// A node's addresses by family, as felix chose them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddressesStatus {
    /// The IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ipv4: Option<Ip>,
    /// The IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ipv6: Option<Ip>,
}

/// What bgpd runs with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeBgpStatus {
    /// The node's ASN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::StatusNumber>")]
    pub asn: Option<u32>,
    /// The BGP identifier.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub router_id: Option<RouterId>,
    /// The port that bgpd listens on; 0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::PortOrZero>")]
    pub port: Option<u16>,
}

fragment!(
    /// `manx.dev/schema-revision`
    SchemaRevision,
    json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 100_000})
);

/// An agent of this node; each writes its own item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// felix or bgpd.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The schema revision that the program was built with.
    #[schemars(with = "SchemaRevision")]
    pub schema_revision: u32,
}

/// A policy that this node could not program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyFailure {
    /// The policy's kind.
    pub kind: String,
    /// The policy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The policy's name.
    pub name: String,
    /// The policy's generation.
    #[schemars(with = "schema::LongCount")]
    pub generation: i64,
    /// Why, in one word.
    pub reason: String,
    /// What the kernel said.
    #[schemars(length(max = 1024))]
    pub message: String,
}
