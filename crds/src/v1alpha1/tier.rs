//! Tier: the order of policy groups (api.md §7.1).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::schema::{self, string_enum};

/// A group of policies, evaluated by its order. The three fixed tiers are installed to be seen: deleting them
/// changes nothing.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "Tier",
    plural = "tiers",
    category = "manx",
    status = "TierStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name != 'kube-admin' || (self.spec.order == 1000 && self.spec.defaultAction == 'Pass')").message("tier kube-admin is fixed: order 1000, defaultAction Pass").field_path(".spec.order"),
    validation = Rule::new("self.metadata.name != 'default' || (self.spec.order == 1000000 && self.spec.defaultAction == 'Deny')").message("tier default is fixed: order 1000000, defaultAction Deny").field_path(".spec.order"),
    validation = Rule::new("self.metadata.name != 'kube-baseline' || (self.spec.order == 10000000 && self.spec.defaultAction == 'Pass')").message("tier kube-baseline is fixed: order 10000000, defaultAction Pass").field_path(".spec.order"),
    printcolumn(name = "Order", type_ = "integer", json_path = ".spec.order"),
    printcolumn(name = "Default", type_ = "string", json_path = ".spec.defaultAction"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TierSpec {
    /// Tiers are evaluated from the lowest order up, those of one order by name. Fixed for the three tiers
    /// kube-admin, default and kube-baseline.
    #[schemars(with = "schema::Count")]
    pub order: u32,
    /// What becomes of traffic whose endpoint a policy of this tier selected, and on which none decided.
    #[serde(default)]
    pub default_action: TierDefaultAction,
}

string_enum! {
    /// What a tier does with what its policies did not decide.
    TierDefaultAction {
        Deny = "Deny",
        /// The next tier is asked.
        Pass = "Pass",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for TierDefaultAction {
    fn default() -> Self {
        Self::Deny
    }
}

/// A tier that is there whether an object says so or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedTier {
    pub name: &'static str,
    pub order: u32,
}

impl FixedTier {
    /// Holds ClusterNetworkPolicies of tier Admin.
    pub const KUBE_ADMIN: Self = Self { name: "kube-admin", order: 1_000 };
    /// Holds our policies and Kubernetes' NetworkPolicies.
    pub const DEFAULT: Self = Self { name: "default", order: 1_000_000 };
    /// Holds ClusterNetworkPolicies of tier Baseline.
    pub const KUBE_BASELINE: Self = Self { name: "kube-baseline", order: 10_000_000 };
    /// All three, in the order of evaluation.
    pub const ALL: [Self; 3] = [Self::KUBE_ADMIN, Self::DEFAULT, Self::KUBE_BASELINE];
}

/// Written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub observed_generation: Option<i64>,
    /// Accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_tiers_are_those_of_the_schema() {
        let crd = schema::crd::<Tier>().unwrap().to_string();
        for tier in FixedTier::ALL {
            let rule =
                format!("self.metadata.name != '{}' || (self.spec.order == {} &&", tier.name, tier.order);
            assert!(crd.contains(&rule), "{rule}");
        }
        assert!(FixedTier::ALL.is_sorted_by_key(|tier| tier.order));
    }

    #[test]
    fn a_tier_denies_unless_told() {
        let spec: TierSpec = serde_saphyr::from_str("{order: 500}").unwrap();
        assert_eq!(spec, TierSpec { order: 500, default_action: TierDefaultAction::Deny });
    }
}
