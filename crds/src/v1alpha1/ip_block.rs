//! IPBlock: one block, who holds it and who has its addresses (api.md §6.2). A record, like a Lease: no status.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{self, fragment, string_enum};
use super::values::Cidr;

/// One block. Its name is its range, so that creating it is the claim.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "IPBlock",
    plural = "ipblocks",
    shortname = "ipb",
    category = "manx",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    selectable = ".spec.pool",
    validation = Rule::new("self.metadata.name == self.spec.cidr.replace('.', '-').replace(':', '-').replace('/', '-')").message("metadata.name must be spec.cidr with . : / replaced by -").field_path(".spec.cidr"),
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidr"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.nodeName) || !has(oldSelf.nodeName) || self.nodeName == oldSelf.nodeName").message("nodeName changes by being released first: a block is never handed over"))]
pub struct IPBlockSpec {
    /// The block; the object's name is this, with . : / as -.
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub cidr: Cidr,
    /// The IPPool that the block is cut of.
    #[schemars(with = "schema::Name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub pool: String,
    /// Absent is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub node_name: Option<String>,
    /// Next fit: the ordinal after the last one given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Octet>")]
    pub cursor: Option<u8>,
    /// The addresses that somebody has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub allocations: Vec<Allocation>,
    /// Addresses that cool down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub released: Vec<Released>,
}

fragment!(
    /// An address inside the block.
    AddressText,
    json!({"type": "string", "maxLength": 39})
);
fragment!(
    /// An object's uid.
    Uid,
    json!({"type": "string", "maxLength": 36})
);
fragment!(
    /// The beginning of a sandbox id.
    Sandbox,
    json!({"type": "string", "maxLength": 16})
);

/// An address and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The address.
    #[schemars(with = "AddressText")]
    pub ip: IpAddr,
    /// Who has it.
    pub owner: AllocationOwner,
    /// The node that took it of another's block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub borrowed_by: Option<String>,
}

/// Who has an address. uid and sandbox make a late release harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllocationOwner {
    /// A Pod, or the node's Tunnel.
    pub kind: OwnerKind,
    /// The Pod's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub namespace: Option<String>,
    /// The Pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub name: Option<String>,
    /// The Pod's uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Uid>")]
    pub uid: Option<String>,
    /// The beginning of the id of the Pod's sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Sandbox>")]
    pub sandbox: Option<String>,
    /// `eth0` where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Interface>")]
    pub interface: Option<String>,
}

string_enum! {
    /// What an address is for.
    OwnerKind {
        Pod = "Pod",
        Tunnel = "Tunnel",
    }
}

/// An address that nobody gets before `until`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// The address.
    #[schemars(with = "AddressText")]
    pub ip: IpAddr,
    /// When it may be given again.
    #[schemars(with = "schema::DateTime")]
    pub until: Time,
}
