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
    /// Who talks to whom among our own nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// Defaults of every session; carries no `auth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Next hops of one route, 64 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<MaxPaths>")]
    pub max_paths: Option<u16>,
    /// Names for communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub communities: Vec<CommunityAlias>,
    /// Where sessions and routes are reported (RFC 7854).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub bmp_stations: Vec<BmpStation>,
    /// Pod addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamSettings>,
    /// VXLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<VxlanSettings>,
    /// Policy enforcement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySettings>,
    /// Service addresses.
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
    /// The ASN; 64512 where nothing is set. Not with asnFromLabel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<Asn>,
    /// The ASN as a base plus a label of the node; a node without the label speaks no BGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn_from_label: Option<AsnFromLabel>,
    /// Where the node's addresses come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressSettings>,
    /// 0 listens nowhere.
    #[serde(default, rename = "bgpPort", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::PortOrZero>")]
    pub bgp_port: Option<u16>,
    /// The MTU of pods; from the uplinks where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Mtu>")]
    pub mtu: Option<u16>,
    /// What the agents log; Info where unset, applied live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

/// ASN = `base` + the label's value as a decimal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AsnFromLabel {
    /// The label's key.
    #[schemars(with = "schema::LabelKey")]
    pub key: String,
    /// What is added to the label's value; 0 where unset.
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
    /// InternalIP and ExternalIP are the Node's first of each family, Interface and Subnet are found on the
    /// node.
    pub source: AddressSource,
    /// The interface whose addresses are taken; with source Interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Interface>")]
    pub interface: Option<String>,
    /// Ranges that hold the address; with source Subnet.
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
    /// The nodes.
    #[schemars(with = "schema::LabelSelector")]
    pub node_selector: LabelSelector,
    /// What they are told.
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
    /// How reflectors are chosen; with mode RouteReflector.
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
    /// The candidates; absent is all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub node_selector: Option<LabelSelector>,
    /// How many; 3 where unset, or all candidates if they are fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ReflectorCount>")]
    pub count: Option<u8>,
    /// The label over whose values the reflectors are spread; topology.kubernetes.io/zone where unset.
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
    /// The name.
    #[schemars(with = "schema::CommunityName")]
    pub name: String,
    /// The community, as a number.
    #[x_kube(validation = Rule::new("self.contains(':')").message("must be numeric, such as 64512:100 or 64512:1:2"))]
    pub value: Community,
}

/// A BMP collector (RFC 7854).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BmpStation {
    /// The collector's address.
    pub address: Ip,
    /// The collector's port.
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
    /// Whether a node takes addresses of another's block when its own are full; Never where unset.
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
    /// The UDP port; 4789 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Port>")]
    pub port: Option<u16>,
    /// The VXLAN network identifier; 4096 where unset.
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
    /// Which policy compiler; Auto, which is Classes where the kernel is able to, where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<PolicyDataplane>,
    /// 10 where unset, 0 is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DenyLogRate>")]
    pub deny_log_rate: Option<u16>,
    /// Ports that no HostEndpoint can close towards the node; absent is the built-in list, an empty one none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub failsafe_inbound: Option<Vec<FailsafePort>>,
    /// Ports that no HostEndpoint can close from the node; absent is the built-in list, an empty one none.
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
    /// The protocol.
    pub protocol: FailsafeProtocol,
    /// The port, or the first of a range.
    #[schemars(with = "schema::Port")]
    pub port: u16,
    /// The last port of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Port>")]
    pub end_port: Option<u16>,
    /// Addresses of the other end; absent is all.
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
    /// AllServices, or ClassOnly: those of loadBalancerClass manx.dev/load-balancer; AllServices where unset.
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
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub observed_generation: Option<i64>,
    /// The reflectors that were elected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["nodeName"]))]
    pub route_reflectors: Vec<RouteReflectorStatus>,
    /// Accepted, ResolvedRefs, TopologyReady, SchemaCompatible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
    pub conditions: Vec<Condition>,
}

/// An elected reflector: all that a client needs to dial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteReflectorStatus {
    /// The node.
    #[schemars(with = "schema::Name")]
    pub node_name: String,
    /// Its cluster id (RFC 4456), which is its own router id.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// Where clients dial it.
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,
}
