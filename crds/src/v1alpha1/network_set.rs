//! NetworkSet: a labelled list of ranges in a namespace (api.md §7.3).

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::values::Cidr;

/// A list of ranges, matched by this object's labels in policies of its namespace.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "NetworkSet",
    plural = "networksets",
    shortname = "netset",
    category = "manx",
    namespaced,
    derive = "PartialEq",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSetSpec {
    /// The ranges; those that overlap are merged.
    #[schemars(length(max = 10000), extend("x-kubernetes-list-type" = "atomic"))]
    pub nets: Vec<Cidr>,
}
