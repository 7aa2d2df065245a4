//! FabricConfiguration: cluster defaults, and who talks to whom among our own nodes (api.md §4.1).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Session;
use super::schema::{self, duration_range, fragment, string_enum};
use super::values::{Asn, Cidr, Community, Duration, Ip};

/// Cluster defaults. One object, named `default`; without it every default applies.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "FabricConfiguration",
    plural = "fabricconfigurations",
    shortname = "fc",
    category = "manx",
    status = "FabricConfigurationStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name == 'default'").message("FabricConfiguration is a singleton: name it default").field_path(".metadata"),
    printcolumn(name = "Topology", type_ = "string", json_path = ".spec.topology.mode"),
    printcolumn(name = "ASN", type_ = "integer", json_path = ".spec.node.asn"),
    printcolumn(name = "Accepted", type_ = "string", json_path = r#".status.conditions[?(@.type=="Accepted")].status"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.session) || !has(self.session.auth)").message("auth is not inherited: set it in topology.session or in the BGPPeer").reason(Reason::FieldValueForbidden))]
pub struct FabricConfigurationSpec {
    /// For every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeSettings>,
    /// In order; a later match wins, field by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub overrides: Vec<NodeOverride>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// Defaults of every session; carries no `auth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Next hops of one route, 64 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<MaxPaths>")]
    pub max_paths: Option<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub communities: Vec<CommunityAlias>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub bmp_stations: Vec<BmpStation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<VxlanSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancerSettings>,
}

fragment!(
    /// ECMP width.
    MaxPaths,
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 256})
);
fragment!(
    /// Link MTU.
    Mtu,
    json!({"type": "integer", "format": "int32", "minimum": 1280, "maximum": 65535})
);

/// What a node is told, for all nodes or by an override.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.asn) && has(self.asnFromLabel))").message("asn and asnFromLabel cannot both be set").reason(Reason::FieldValueForbidden))]
pub struct NodeSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<Asn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn_from_label: Option<AsnFromLabel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressSettings>,
    /// 0 listens nowhere.
    #[serde(default, rename = "bgpPort", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::PortOrZero>")]
    pub bgp_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Mtu>")]
    pub mtu: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

/// ASN = `base` + the label's value as a decimal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AsnFromLabel {
    #[schemars(with = "schema::LabelKey")]
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Uint32>")]
    pub base: Option<u32>,
}

/// Where a node's addresses come from; never "first found".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.source == 'Interface') == has(self.interface)").message("interface must be set with source Interface, and only then"))]
#[x_kube(validation = Rule::new("(self.source == 'Subnet') == has(self.subnets)").message("subnets must be set with source Subnet, and only then"))]
pub struct AddressSettings {
    pub source: AddressSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Interface>")]
    pub interface: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub subnets: Vec<Cidr>,
}

string_enum! {
    /// Where a node's addresses come from.
    AddressSource {
        InternalIP = "InternalIP",
        ExternalIP = "ExternalIP",
        Interface = "Interface",
        Subnet = "Subnet",
    }
}
string_enum! {
    /// What is logged; applied live.
    LogLevel {
        Error = "Error",
        Warn = "Warn",
        Info = "Info",
        Debug = "Debug",
        Trace = "Trace",
    }
}

/// Settings for the nodes that a selector matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeOverride {
    #[schemars(with = "schema::LabelSelector")]
    pub node_selector: LabelSelector,
    pub node: NodeSettings,
}

/// Who talks to whom among our own nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.mode) && self.mode == 'RouteReflector' || !has(self.routeReflectors)").message("routeReflectors is used with mode RouteReflector only").reason(Reason::FieldValueForbidden))]
pub struct Topology {
    /// FullMesh where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TopologyMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_reflectors: Option<RouteReflectors>,
    /// For node-to-node sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

string_enum! {
    /// Node-to-node sessions.
    TopologyMode {
        FullMesh = "FullMesh",
        RouteReflector = "RouteReflector",
        None = "None",
    }
}

/// How the controller chooses reflectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteReflectors {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub node_selector: Option<LabelSelector>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ReflectorCount>")]
    pub count: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelKey>")]
    pub spread_key: Option<String>,
}

fragment!(
    /// How many reflectors.
    ReflectorCount,
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 16})
);

/// A name for a community.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommunityAlias {
    #[schemars(with = "schema::CommunityName")]
    pub name: String,
    #[x_kube(validation = Rule::new("self.contains(':')").message("must be numeric, such as 64512:100 or 64512:1:2"))]
    pub value: Community,
}

/// A BMP collector (RFC 7854).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BmpStation {
    pub address: Ip,
    #[schemars(with = "schema::Port")]
    pub port: u16,
}

duration_range!(
    /// An hour at most.
    Cooldown, "duration(self) <= duration('1h')", "must be at most 1h");
fragment!(
    /// Free blocks that a node keeps claimed.
    SpareBlocks,
    json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 4})
);

/// Pod addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpamSettings {
    /// How long a released address rests; 60s where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Cooldown>")]
    pub cooldown: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub borrowing: Option<Borrowing>,
    /// 1 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SpareBlocks>")]
    pub spare_blocks: Option<u8>,
}

string_enum! {
    /// Whether a node takes addresses of another's block.
    Borrowing {
        Never = "Never",
        Allowed = "Allowed",
    }
}

fragment!(
    /// RFC 7348: 24 bits.
    Vni,
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 16_777_215})
);

/// VXLAN (RFC 7348).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VxlanSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Port>")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vni>")]
    pub vni: Option<u32>,
}

fragment!(
    /// Log lines a second and node.
    DenyLogRate,
    json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 1000})
);

/// Policy enforcement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySettings {
    /// For a Deny that no rule wrote; Drop where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implicit_deny: Option<ImplicitDeny>,
    /// After the pod's egress policy; Allow where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_to_host: Option<WorkloadToHost>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<PolicyDataplane>,
    /// 10 where unset, 0 is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DenyLogRate>")]
    pub deny_log_rate: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub failsafe_inbound: Option<Vec<FailsafePort>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub failsafe_outbound: Option<Vec<FailsafePort>>,
}

string_enum! {
    /// The answer to what no rule allowed.
    ImplicitDeny {
        Drop = "Drop",
        Reject = "Reject",
    }
}
string_enum! {
    /// What pods may reach on their own node.
    WorkloadToHost {
        Allow = "Allow",
        Deny = "Deny",
    }
}
string_enum! {
    /// Which policy compiler.
    PolicyDataplane {
        Auto = "Auto",
        Classes = "Classes",
        Sets = "Sets",
    }
}

/// A port that no HostEndpoint can close.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.endPort >= self.port").message("endPort must not be below port"))]
pub struct FailsafePort {
    pub protocol: FailsafeProtocol,
    #[schemars(with = "schema::Port")]
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Port>")]
    pub end_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub nets: Vec<Cidr>,
}

string_enum! {
    /// Protocols with ports.
    FailsafeProtocol {
        TCP = "TCP",
        UDP = "UDP",
        SCTP = "SCTP",
    }
}

/// Service addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assign: Option<LoadBalancerAssign>,
}

string_enum! {
    /// Which Services get an address.
    LoadBalancerAssign {
        AllServices = "AllServices",
        ClassOnly = "ClassOnly",
    }
}

/// Written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FabricConfigurationStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["nodeName"]))]
    pub route_reflectors: Vec<RouteReflectorStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
    pub conditions: Vec<Condition>,
}

/// An elected reflector: all that a client needs to dial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteReflectorStatus {
    #[schemars(with = "schema::Name")]
    pub node_name: String,
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,
}
