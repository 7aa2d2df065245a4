//! LoadBalancerPool: addresses for Services of type LoadBalancer (api.md §6.3).

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::ip_pool::Assignment;
use super::range::Range;
use super::schema;

/// Addresses for Services of type LoadBalancer. A Service's status is the record, so there are no blocks.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "LoadBalancerPool",
    plural = "loadbalancerpools",
    shortname = "lbp",
    category = "manx",
    status = "LoadBalancerPoolStatus",
    derive = "PartialEq",
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Assignment", type_ = "string", json_path = ".spec.assignment"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.capacity.assigned"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.capacity.addresses"),
    printcolumn(
        name = "Allocatable",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Allocatable")].reason"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPoolSpec {
    /// The pool: CIDRs without host bits, and ranges first-last. It may grow; an address in use is kept.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<Range>,
    /// Services that may have an address of it; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub service_selector: Option<LabelSelector>,
    /// Namespaces whose Services may have an address of it; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub namespace_selector: Option<LabelSelector>,
    /// Automatic serves every Service that the selectors match, Manual those that name the pool, None nobody.
    #[serde(default)]
    pub assignment: Assignment,
    /// Addresses that are not given away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub excluded: Vec<Range>,
}

impl LoadBalancerPoolSpec {
    /// Whether the address may be given away: in `addresses`, and not in `excluded`.
    pub fn offers(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|range| range.contains(address))
            && !self.excluded.iter().any(|range| range.contains(address))
    }

    /// Whether it is asked before pools that select everything.
    pub fn has_selector(&self) -> bool {
        self.service_selector.is_some() || self.namespace_selector.is_some()
    }
}

/// Written by the controller, at most every 5 min.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPoolStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub observed_generation: Option<i64>,
    /// How full the pool is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<LoadBalancerPoolCapacity>,
    /// Accepted, Allocatable, AddressesAvailable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
    pub conditions: Vec<Condition>,
}

/// How full the pool is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPoolCapacity {
    /// How many addresses it offers, as a decimal: an IPv6 pool exceeds int64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub addresses: Option<String>,
    /// How many addresses Services have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub assigned: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_offers_what_it_does_not_exclude() {
        let pool: LoadBalancerPool = serde_saphyr::from_str(
            "{apiVersion: manx.dev/v1alpha1, kind: LoadBalancerPool, metadata: {name: public}, spec: {
              addresses: [192.0.2.0/25, 192.0.2.200-192.0.2.220, '2001:db8:0:1::/112'],
              excluded: [192.0.2.0-192.0.2.0]}}",
        )
        .unwrap();
        for (address, offered) in [
            ("192.0.2.0", false),
            ("192.0.2.1", true),
            ("192.0.2.128", false),
            ("192.0.2.220", true),
            ("2001:db8:0:1::ffff", true),
            ("2001:db8:0:1::1:0", false),
        ] {
            assert_eq!(pool.spec.offers(address.parse().unwrap()), offered, "{address}");
        }
        assert_eq!(pool.spec.assignment, Assignment::Automatic);
        assert!(!pool.spec.has_selector());
    }
}
