//! BGPPeer: a neighbour, or a class of neighbours, of a class of nodes (api.md §5.1).

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{self, fragment, is_false, string_enum};
use super::values::{Asn, Cidr, Ip};
use super::{AdminState, Session};

/// A neighbour, or a class of neighbours, of a class of nodes.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "BGPPeer",
    plural = "bgppeers",
    shortname = "bgpp",
    category = "manx",
    status = "BGPPeerStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name != 'topology'").message("topology is the name of the node-to-node sessions: choose another").field_path(".metadata"),
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Interface", type_ = "string", json_path = ".spec.interface"),
    printcolumn(name = "Range", type_ = "string", json_path = ".spec.listenRange", priority = 1),
    printcolumn(name = "ASN", type_ = "integer", json_path = ".spec.asn"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.asnType", priority = 1),
    printcolumn(name = "Admin", type_ = "string", json_path = ".spec.adminState"),
    printcolumn(name = "Up", type_ = "integer", json_path = ".status.sessions.established"),
    printcolumn(name = "Of", type_ = "integer", json_path = ".status.sessions.desired"),
    printcolumn(name = "Established", type_ = "string", json_path = r#".status.conditions[?(@.type=="Established")].status"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.address), has(self.interface), has(self.listenRange), has(self.peerNodeSelector)].filter(x, x).size() == 1").message("exactly one of address, interface, listenRange, peerNodeSelector must be set"))]
#[x_kube(validation = Rule::new("has(self.peerNodeSelector) || has(self.asn) != has(self.asnType)").message("exactly one of asn, asnType must be set"))]
#[x_kube(validation = Rule::new("!has(self.peerNodeSelector) || !(has(self.asn) || has(self.asnType))").message("asn and asnType must be empty with peerNodeSelector: each node's own ASN is used").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!has(self.interface) || !(has(self.sourceInterface) || (has(self.maxHops) && self.maxHops > 1))").message("an interface peer is one hop away: sourceInterface and maxHops do not apply").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!has(self.listenRange) || !has(self.port)").message("port does not apply to listenRange: the neighbours dial us").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!(has(self.reflectorClient) && self.reflectorClient) || !has(self.asnType) || self.asnType == 'Internal'").message("a route-reflector client is an internal peer (RFC 4456)").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!has(self.role) || !(has(self.peerNodeSelector) || (has(self.asnType) && self.asnType == 'Internal'))").message("role applies to external peers only (RFC 9234)").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!has(self.roleStrict) || has(self.role)").message("roleStrict needs role").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!has(self.adminMessage) || self.adminState != 'Up'").message("adminMessage has no effect while adminState is Up").reason(Reason::FieldValueForbidden))]
pub struct BGPPeerSpec {
    /// Which of our nodes; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub node_selector: Option<LabelSelector>,
    /// The neighbour's address. Exactly one of address, interface, listenRange, peerNodeSelector is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!isIP(self) || !(ip(self).isLinkLocalUnicast() || ip(self).isUnspecified() || ip(self).isLoopback())").message("a link-local address is reached through spec.interface; unspecified and loopback addresses are no peers"))]
    pub address: Option<Ip>,
    /// The interface behind which the neighbour is, without an address (RFC 8950).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Interface>")]
    pub interface: Option<String>,
    /// Neighbours of this range dial us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_range: Option<Cidr>,
    /// Nodes of ours that are the neighbours, by labels of their FabricNodes; both ends are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub peer_node_selector: Option<LabelSelector>,
    /// The neighbour's ASN; exactly one of asn, asnType, and neither with peerNodeSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<Asn>,
    /// The neighbour's ASN is our own (Internal), or any other (External).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn_type: Option<AsnType>,
    /// Sent alone instead of the node's (RFC 7705).
    #[serde(default, rename = "localASN", skip_serializing_if = "Option::is_none")]
    pub local_asn: Option<Asn>,
    /// Empty is both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub families: Vec<AddressFamily>,
    /// 179 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Port>")]
    pub port: Option<u16>,
    /// Never dials.
    #[serde(default, skip_serializing_if = "is_false")]
    pub passive: bool,
    /// 1 to external, 255 to internal neighbours where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Hops>")]
    pub max_hops: Option<u8>,
    /// The interface whose address we dial from. Absent: one hop away, that of the route; farther, the node's
    /// address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Interface>")]
    pub source_interface: Option<String>,
    /// Settings of the session; what is absent comes from the FabricConfiguration, except auth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// BGPFilters; the first rule that decides wins, then the default policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<schema::Name>", length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub filters: Vec<String>,
    /// The next hop we announce. Auto is RFC 4271's, Self is this node, Keep is that of the route.
    #[serde(default)]
    pub next_hop: NextHop,
    /// Reflects routes to this internal neighbour (RFC 4456).
    #[serde(default, skip_serializing_if = "is_false")]
    pub reflector_client: bool,
    /// Candidates for export include learned routes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub transit: bool,
    /// How often our own ASN may stand in a path that the neighbour sends; 0 where unset.
    #[serde(default, rename = "allowOwnASN", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<OwnAsnCount>")]
    pub allow_own_asn: Option<u8>,
    /// Our role (RFC 9234).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// No session with a neighbour that does not tell its role (RFC 9234).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_strict: Option<bool>,
    /// Drained asks for traffic to go elsewhere and keeps sessions (RFC 8326); Shutdown ends them (RFC 4486).
    #[serde(default)]
    pub admin_state: AdminState,
    /// Text that the neighbour gets with the end of the session (RFC 9003).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::AdminMessage>")]
    pub admin_message: Option<String>,
}

fragment!(
    /// A distance in hops.
    Hops,
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 255})
);
fragment!(
    /// How often our own ASN may stand in a received path.
    OwnAsnCount,
    json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 10})
);

string_enum! {
    /// Which ASN a neighbour may have, where the number does not matter.
    AsnType {
        External = "External",
        Internal = "Internal",
    }
}
string_enum! {
    /// An address family of RFC 4760.
    AddressFamily {
        IPv4Unicast = "IPv4Unicast",
        IPv6Unicast = "IPv6Unicast",
    }
}
string_enum! {
    /// The next hop we announce (RFC 4271 §5.1.3).
    NextHop {
        Auto = "Auto",
        Own = "Self",
        Keep = "Keep",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for NextHop {
    fn default() -> Self {
        Self::Auto
    }
}
string_enum! {
    /// Our role towards the neighbour (RFC 9234).
    Role {
        Provider = "Provider",
        Customer = "Customer",
        Peer = "Peer",
        RouteServer = "RouteServer",
        RouteServerClient = "RouteServerClient",
    }
}

/// Who the neighbour is: the union of api.md's laws as an enum.
#[derive(Clone, Debug, PartialEq)]
pub enum Neighbor {
    Address(IpAddr),
    Interface(String),
    ListenRange(Cidr),
    Nodes(LabelSelector),
}

impl BGPPeerSpec {
    /// The neighbour, or `None` where not exactly one member is set (the schema refuses that).
    pub fn neighbor(&self) -> Option<Neighbor> {
        match (&self.address, &self.interface, &self.listen_range, &self.peer_node_selector) {
            (Some(ip), None, None, None) => Some(Neighbor::Address(ip.0)),
            (None, Some(name), None, None) => Some(Neighbor::Interface(name.clone())),
            (None, None, Some(range), None) => Some(Neighbor::ListenRange(*range)),
            (None, None, None, Some(selector)) => Some(Neighbor::Nodes(selector.clone())),
            _ => None,
        }
    }

    /// Whether the family is offered.
    pub fn offers(&self, family: &AddressFamily) -> bool {
        self.families.is_empty() || self.families.contains(family)
    }
}

/// Written by the controller, at most every 30 s.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub observed_generation: Option<i64>,
    /// How many sessions there should be, and are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionCount>,
    /// Accepted, ResolvedRefs, Established.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
    pub conditions: Vec<Condition>,
}

/// Sessions of a BGPPeer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionCount {
    /// Sessions that the spec asks for.
    #[schemars(with = "schema::Count")]
    pub desired: u32,
    /// Sessions that are Established.
    #[schemars(with = "schema::Count")]
    pub established: u32,
}
