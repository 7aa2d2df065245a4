//! NetworkPolicy: what the endpoints of one namespace may send and receive (api.md §7.2).

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::policy_rule::{
    PolicyMode, PolicyRule, PolicyStatus, PolicyType, SelectorText, default_tier, directions,
};
use super::schema;

/// What the endpoints of one namespace may send and receive.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "NetworkPolicy",
    plural = "networkpolicies",
    shortname = "mnp",
    category = "manx",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    selectable = ".spec.tier",
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Order", type_ = "integer", json_path = ".spec.order"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#
    ),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failedNodes", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.selector) || !self.selector.contains('global(')").message("global() is legal in a rule's namespaceSelector only"))]
#[x_kube(validation = Rule::new("!has(self.serviceAccountSelector) || !self.serviceAccountSelector.contains('global(')").message("global() is legal in a rule's namespaceSelector only"))]
#[x_kube(validation = Rule::new("!(self.tier in ['kube-admin', 'kube-baseline'])").message("tiers kube-admin and kube-baseline hold ClusterNetworkPolicy only"))]
#[x_kube(validation = Rule::new("!has(self.types) || 'Ingress' in self.types || !has(self.ingress) || self.ingress.size() == 0").message("ingress rules need Ingress in types"))]
#[x_kube(validation = Rule::new("!has(self.types) || 'Egress' in self.types || !has(self.egress) || self.egress.size() == 0").message("egress rules need Egress in types"))]
pub struct NetworkPolicySpec {
    /// The Tier that the policy belongs to.
    #[serde(default = "default_tier")]
    #[schemars(with = "schema::Name")]
    pub tier: String,
    /// Policies of a tier are evaluated from the lowest order up, those without one last, those of one order by
    /// name, namespace and kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Count>")]
    pub order: Option<u32>,
    /// Enforce decides; Audit counts and logs what would be denied, and decides nothing.
    #[serde(default)]
    pub mode: PolicyMode,
    /// Labels of the endpoints that it is for, such as app == 'db'; absent is all of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SelectorText>")]
    pub selector: Option<String>,
    /// Labels of the service accounts of the pods that it is for; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SelectorText>")]
    pub service_account_selector: Option<String>,
    /// The directions that it is for. Absent: Ingress, and Egress where there are egress rules; Egress alone where
    /// there are no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub types: Option<Vec<PolicyType>>,
    /// Rules for what comes to the endpoint, in order; the first that decides wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub ingress: Option<Vec<PolicyRule>>,
    /// Rules for what the endpoint sends, in order; the first that decides wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub egress: Option<Vec<PolicyRule>>,
}

impl NetworkPolicySpec {
    /// The directions that the policy is for: as `types` says, else by the rules that it has.
    pub fn directions(&self) -> Vec<PolicyType> {
        let has = |rules: &Option<Vec<PolicyRule>>| rules.as_ref().is_some_and(|rules| !rules.is_empty());
        directions(self.types.as_deref(), has(&self.ingress), has(&self.egress))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_the_default() {
        let spec: NetworkPolicySpec = serde_saphyr::from_str("{selector: all()}").unwrap();
        assert_eq!((spec.tier.as_str(), spec.order, &spec.mode), ("default", None, &PolicyMode::Enforce));
        assert_eq!(spec.directions(), [PolicyType::Ingress]);
    }

    #[test]
    fn an_empty_list_of_rules_is_no_rule() {
        let spec: NetworkPolicySpec =
            serde_saphyr::from_str("{ingress: [], egress: [{action: Allow}]}").unwrap();
        assert_eq!(spec.directions(), [PolicyType::Egress]);
    }
}
