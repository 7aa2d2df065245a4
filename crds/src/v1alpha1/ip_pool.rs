//! IPPool: addresses for pods and tunnels, cut into blocks (api.md §6.1).

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{self, fragment, string_enum};
use super::values::Cidr;

/// Addresses for pods and tunnels, cut into blocks.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "IPPool",
    plural = "ippools",
    shortname = "ipp",
    category = "manx",
    status = "IPPoolStatus",
    derive = "PartialEq",
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidr"),
    printcolumn(name = "Encap", type_ = "string", json_path = ".spec.encapsulation"),
    printcolumn(name = "NAT", type_ = "string", json_path = ".spec.natOutgoing"),
    printcolumn(name = "Assignment", type_ = "string", json_path = ".spec.assignment"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.capacity.assigned"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.capacity.addresses", priority = 1),
    printcolumn(
        name = "Allocatable",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Allocatable")].reason"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.blockSize) == has(oldSelf.blockSize) && (!has(self.blockSize) || self.blockSize == oldSelf.blockSize)").message("blockSize is immutable: create a second pool and drain this one"))]
#[x_kube(validation = Rule::new("!has(self.blockSize) || !isCIDR(self.cidr) || (cidr(self.cidr).ip().family() == 4 ? self.blockSize <= 32 : self.blockSize >= 120)").message("blockSize must be 24-32 for IPv4 and 120-128 for IPv6"))]
#[x_kube(validation = Rule::new("!isCIDR(self.cidr) || cidr(self.cidr).prefixLength() <= (has(self.blockSize) ? self.blockSize : (cidr(self.cidr).ip().family() == 4 ? 26 : 122))").message("cidr must be at least one block (blockSize, or /26 and /122)"))]
#[x_kube(validation = Rule::new("!isCIDR(self.cidr) || cidr(self.cidr).ip().family() == 4 || !self.encapsulation.startsWith('IPIP')").message("IPIP carries IPv4 only: use VXLAN or None"))]
#[x_kube(validation = Rule::new("!isCIDR(self.cidr) || !(cidr(self.cidr).ip().isLinkLocalUnicast() || cidr(self.cidr).ip().isLoopback())").message("cidr must not be link-local or loopback"))]
#[x_kube(validation = Rule::new("!has(self.natExclude) || self.natOutgoing == 'Masquerade'").message("natExclude has no effect with natOutgoing None").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!has(self.excluded) || !isCIDR(self.cidr) || self.excluded.all(c, isCIDR(c) && cidr(self.cidr).containsCIDR(c))").message("excluded must lie inside cidr"))]
pub struct IPPoolSpec {
    /// The addresses. Immutable: a pool is replaced by a second one, and drained.
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable: create a second pool and drain this one"))]
    pub cidr: Cidr,
    /// 26 or 122 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BlockSize>")]
    pub block_size: Option<u8>,
    /// How packets between nodes are wrapped (RFC 2003, RFC 7348); the CrossSubnet forms wrap between subnets
    /// alone.
    #[serde(default)]
    pub encapsulation: Encapsulation,
    /// Masquerade gives what leaves all pools the node's address.
    #[serde(default)]
    pub nat_outgoing: NatOutgoing,
    /// Beside all pools and node addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub nat_exclude: Vec<Cidr>,
    /// For new blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub node_selector: Option<LabelSelector>,
    /// For new addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub namespace_selector: Option<LabelSelector>,
    /// Automatic serves every pod that the selectors match, Manual those that name the pool, None nobody: the
    /// pool is drained.
    #[serde(default)]
    pub assignment: Assignment,
    /// Ranges inside cidr that are not given away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub excluded: Vec<Cidr>,
}

fragment!(
    /// The length of a block's prefix.
    BlockSize,
    json!({"type": "integer", "format": "int32", "minimum": 24, "maximum": 128})
);

impl IPPoolSpec {
    /// The length of a block's prefix: as set, or /26 and /122.
    pub fn block_length(&self) -> u8 {
        self.block_size.unwrap_or(match self.cidr.net() {
            IpNet::V4(_) => 26,
            IpNet::V6(_) => 122,
        })
    }
}

string_enum! {
    /// How packets between nodes are wrapped (RFC 2003, RFC 7348).
    Encapsulation {
        None = "None",
        IPIP = "IPIP",
        IPIPCrossSubnet = "IPIPCrossSubnet",
        VXLAN = "VXLAN",
        VXLANCrossSubnet = "VXLANCrossSubnet",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for Encapsulation {
    fn default() -> Self {
        Self::None
    }
}
string_enum! {
    /// The source of what leaves all pools.
    NatOutgoing {
        None = "None",
        Masquerade = "Masquerade",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for NatOutgoing {
    fn default() -> Self {
        Self::None
    }
}
string_enum! {
    /// Who gets new addresses.
    Assignment {
        Automatic = "Automatic",
        /// Only pods that name the pool.
        Manual = "Manual",
        /// Nobody: the pool is drained.
        None = "None",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for Assignment {
    fn default() -> Self {
        Self::Automatic
    }
}

/// Written by the controller, at most every 5 min.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub observed_generation: Option<i64>,
    /// How full the pool is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<PoolCapacity>,
    /// Accepted, Allocatable, AddressesAvailable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
    pub conditions: Vec<Condition>,
}

/// How full the pool is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolCapacity {
    /// Decimal: an IPv6 pool exceeds int64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub addresses: Option<String>,
    /// How many addresses somebody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub assigned: Option<i64>,
    /// How many blocks are claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub blocks: Option<i64>,
}
