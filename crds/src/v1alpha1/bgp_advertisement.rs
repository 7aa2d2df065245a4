//! BGPAdvertisement: what nodes originate, towards whom (api.md §5.3).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{self, fragment, is_false, string_enum};
use super::values::{Cidr, Community};

/// What nodes originate, towards whom.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "BGPAdvertisement",
    plural = "bgpadvertisements",
    shortname = "bgpa",
    category = "manx",
    status = "BGPAdvertisementStatus",
    derive = "PartialEq",
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.pools.announce"),
    printcolumn(name = "Services", type_ = "string", json_path = ".spec.services.addressTypes"),
    printcolumn(name = "Prefixes", type_ = "string", json_path = ".spec.prefixes[*].cidr"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.pools), has(self.services), has(self.nodeAddresses), has(self.prefixes)].filter(x, x).size() == 1").message("exactly one of pools, services, nodeAddresses, prefixes must be set"))]
pub struct BGPAdvertisementSpec {
    /// The nodes that originate; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub node_selector: Option<LabelSelector>,
    /// BGPPeers; absent is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub peer_selector: Option<LabelSelector>,
    /// Also over node-to-node sessions.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inter_node: bool,
    /// Blocks of IPPools, or the pools themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<PoolAdvertisement>,
    /// Addresses of Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceAdvertisement>,
    /// The node's own addresses, a /32 and a /128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_addresses: Option<NodeAddressAdvertisement>,
    /// Prefixes written out here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["cidr"]))]
    pub prefixes: Vec<PrefixAdvertisement>,
    /// What the routes carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<RouteAttributes>,
}

/// Blocks of pools, or the pools themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolAdvertisement {
    /// The IPPools; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub pool_selector: Option<LabelSelector>,
    /// Blocks are those of the node; CIDR is the pool's own range, from nodes that hold a block of it.
    #[serde(default)]
    pub announce: PoolAnnounce,
}

string_enum! {
    /// What of a pool is announced.
    PoolAnnounce {
        Blocks = "Blocks",
        /// The pool's range, from nodes that hold a block of it.
        CIDR = "CIDR",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for PoolAnnounce {
    fn default() -> Self {
        Self::Blocks
    }
}

/// Addresses of Services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.announce != 'CIDRs' || has(self.cidrs)").message("announce CIDRs needs cidrs").reason(Reason::FieldValueRequired))]
#[x_kube(validation = Rule::new("!('ExternalIP' in self.addressTypes) || has(self.cidrs)").message("ExternalIP needs cidrs: any author of a Service can set externalIPs (CVE-2020-8554)").reason(Reason::FieldValueRequired))]
pub struct ServiceAdvertisement {
    /// Which addresses of a Service: ClusterIP, ExternalIP, LoadBalancerIP.
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub address_types: Vec<ServiceAddressType>,
    /// The Services; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub service_selector: Option<LabelSelector>,
    /// The namespaces of the Services; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub namespace_selector: Option<LabelSelector>,
    /// Only addresses in here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub cidrs: Vec<Cidr>,
    /// Hosts is a /32 or /128 for each address; CIDRs is the ranges of cidrs themselves, and hosts for Services
    /// of policy Local.
    #[serde(default)]
    pub announce: ServiceAnnounce,
    /// What becomes of the address of a Service without a ready endpoint.
    #[serde(default)]
    pub when_no_endpoints: WhenNoEndpoints,
}

string_enum! {
    /// Which addresses of a Service.
    ServiceAddressType {
        ClusterIP = "ClusterIP",
        ExternalIP = "ExternalIP",
        LoadBalancerIP = "LoadBalancerIP",
    }
}
string_enum! {
    /// Hosts, or the ranges themselves.
    ServiceAnnounce {
        Hosts = "Hosts",
        CIDRs = "CIDRs",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for ServiceAnnounce {
    fn default() -> Self {
        Self::Hosts
    }
}
string_enum! {
    /// A Service without ready endpoints.
    WhenNoEndpoints {
        Withdraw = "Withdraw",
        Announce = "Announce",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for WhenNoEndpoints {
    fn default() -> Self {
        Self::Withdraw
    }
}

/// The node's own /32 and /128.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeAddressAdvertisement {}

impl schemars::JsonSchema for NodeAddressAdvertisement {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NodeAddressAdvertisement".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema::fragment_schema(json!({"type": "object", "properties": {}}))
    }
}

/// One range, perhaps only while something works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrefixAdvertisement {
    /// The prefix.
    pub cidr: Cidr,
    /// What must work on a node for it to originate the prefix; absent is always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
}

/// What must work here for a range to be announced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.interface) != has(self.service)").message("exactly one of interface, service must be set"))]
pub struct Gate {
    /// An interface of the node that must be up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Interface>")]
    pub interface: Option<String>,
    /// A Service that must have a ready endpoint on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// The Service's namespace.
    #[schemars(with = "schema::Name")]
    pub namespace: String,
    /// The Service's name.
    #[schemars(with = "schema::Name")]
    pub name: String,
}

fragment!(
    /// How often our own ASN is repeated.
    Prepend,
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 10})
);

/// What is attached to the routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteAttributes {
    /// Communities, as numbers or by name (RFC 1997, RFC 8092).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub communities: Vec<Community>,
    /// LOCAL_PREF towards internal neighbours (RFC 4271 §5.1.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Uint32>")]
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC (RFC 4271 §5.1.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Uint32>")]
    pub med: Option<u32>,
    /// How often our own ASN is put before the path, towards external neighbours; 0 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Prepend>")]
    pub prepend: Option<u8>,
}

/// Written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPAdvertisementStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
    pub conditions: Vec<Condition>,
}
