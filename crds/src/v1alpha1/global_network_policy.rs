//! GlobalNetworkPolicy: what endpoints of all namespaces, and host endpoints, may send and receive (api.md §7.2).

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::policy_rule::{
    PolicyMode, PolicyRule, PolicyStatus, PolicyType, SelectorText, default_tier, directions,
};
use super::schema::{self, is_false};

/// What endpoints of all namespaces, and host endpoints, may send and receive.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "GlobalNetworkPolicy",
    plural = "globalnetworkpolicies",
    shortname = "gnp",
    category = "manx",
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
#[x_kube(validation = Rule::new("!has(self.namespaceSelector) || !self.namespaceSelector.contains('global(')").message("global() is legal in a rule's namespaceSelector only"))]
#[x_kube(validation = Rule::new("!((has(self.doNotTrack) && self.doNotTrack) && (has(self.preDNAT) && self.preDNAT))").message("preDNAT and doNotTrack cannot both be true").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!(has(self.preDNAT) && self.preDNAT) || ((!has(self.egress) || self.egress.size() == 0) && !(has(self.types) && 'Egress' in self.types))").message("a preDNAT policy has no egress").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!((has(self.doNotTrack) && self.doNotTrack) || (has(self.preDNAT) && self.preDNAT)) || (has(self.applyOnForward) && self.applyOnForward)").message("doNotTrack and preDNAT need applyOnForward: true"))]
pub struct GlobalNetworkPolicySpec {
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
    /// Labels of the endpoints that it is for, such as app == 'db'; absent is all.
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
    /// Labels of the namespaces of the endpoints; absent is all of them, and host endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SelectorText>")]
    pub namespace_selector: Option<String>,
    /// Before connection tracking: each packet is judged by itself. For host endpoints; needs applyOnForward.
    #[serde(default, skip_serializing_if = "is_false")]
    pub do_not_track: bool,
    /// Before destinations are rewritten, so that ports of Services can be judged. For host endpoints; needs
    /// applyOnForward, and has no egress.
    #[serde(default, rename = "preDNAT", skip_serializing_if = "is_false")]
    pub pre_dnat: bool,
    /// Judges what a host forwards, too, not only what it sends and receives itself. For host endpoints.
    #[serde(default, skip_serializing_if = "is_false")]
    pub apply_on_forward: bool,
}

impl GlobalNetworkPolicySpec {
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
        let spec: GlobalNetworkPolicySpec =
            serde_saphyr::from_str("{tier: security, order: 10, preDNAT: true, applyOnForward: true}")
                .unwrap();
        assert_eq!((spec.tier.as_str(), spec.order), ("security", Some(10)));
        assert!(spec.pre_dnat && spec.apply_on_forward && !spec.do_not_track);
        assert_eq!(spec.directions(), [PolicyType::Ingress]);
        let text = serde_json::to_value(&spec).unwrap();
        assert_eq!((text.get("preDNAT"), text.get("doNotTrack")), (Some(&true.into()), None));
    }
}
