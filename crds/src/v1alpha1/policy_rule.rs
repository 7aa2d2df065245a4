//! The rules of NetworkPolicy and GlobalNetworkPolicy (api.md §7.2).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::policy_values::{
    IpVersion, IpVersionSchema, PolicyPort, PolicyProtocol, PortSchema, ProtocolSchema,
};
use super::schema::{self, fragment, string_enum};
use super::values::Cidr;

fragment!(
    /// Calico's selector grammar; the controller parses it, because it is too rich for CEL.
    SelectorText,
    json!({"type": "string", "maxLength": 1024})
);
fragment!(
    /// An ICMP type; 255 is reserved (RFC 4443 §2.1).
    IcmpTypeSchema,
    json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 254})
);
fragment!(
    /// What an HTTP match would be.
    HttpSchema,
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
);

string_enum! {
    /// Whether a policy decides.
    PolicyMode {
        Enforce = "Enforce",
        /// Counts and logs what would be denied, and decides nothing.
        Audit = "Audit",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for PolicyMode {
    fn default() -> Self {
        Self::Enforce
    }
}

string_enum! {
    /// A direction that a policy is for, seen from the endpoint.
    PolicyType {
        Ingress = "Ingress",
        Egress = "Egress",
    }
}

string_enum! {
    /// What a rule does.
    PolicyAction {
        Allow = "Allow",
        /// In silence.
        Deny = "Deny",
        /// With an answer: RST, or ICMP prohibited.
        Reject = "Reject",
        /// Leaves the tier.
        Pass = "Pass",
        /// Logs, and goes on.
        Log = "Log",
    }
}

/// One rule. All members must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.http)").message("http is not supported; dropping it would widen the rule").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!(has(self.icmp) || has(self.notICMP)) || (has(self.protocol) && (self.protocol == 'ICMP' || self.protocol == 'ICMPv6' || self.protocol == 1 || self.protocol == 58))").message("icmp needs protocol ICMP or ICMPv6"))]
#[x_kube(validation = Rule::new("!has(self.protocol) || !has(self.ipVersion) || ((self.protocol != 'ICMP' && self.protocol != 1) || self.ipVersion == 4) && ((self.protocol != 'ICMPv6' && self.protocol != 58) || self.ipVersion == 6)").message("ICMP is IPv4 and ICMPv6 is IPv6"))]
#[x_kube(validation = Rule::new("!(has(self.destination) && has(self.destination.services)) || !(has(self.destination) && (has(self.destination.ports) || has(self.destination.notPorts)))").message("services brings its own ports: leave destination.ports empty").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("(!(has(self.source) && (has(self.source.ports) || has(self.source.notPorts))) && !(has(self.destination) && (has(self.destination.ports) || has(self.destination.notPorts)))) || (has(self.protocol) && (self.protocol == 'TCP' || self.protocol == 'UDP' || self.protocol == 'SCTP' || self.protocol == 'UDPLite' || self.protocol == 6 || self.protocol == 17 || self.protocol == 132 || self.protocol == 136))").message("ports need protocol TCP, UDP, SCTP or UDPLite"))]
pub struct PolicyRule {
    /// What counters and deny logs call the rule; its index where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub name: Option<String>,
    /// Allow, Deny and Reject decide, Pass leaves the tier, Log logs and goes on.
    pub action: PolicyAction,
    /// 4 or 6; absent is both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IpVersionSchema>")]
    pub ip_version: Option<IpVersion>,
    /// TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6, or a number of IANA's registry; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ProtocolSchema>")]
    pub protocol: Option<PolicyProtocol>,
    /// All protocols but this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ProtocolSchema>")]
    pub not_protocol: Option<PolicyProtocol>,
    /// The ICMP message; needs protocol ICMP or ICMPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpMatch>,
    /// All ICMP messages but this one.
    #[serde(default, rename = "notICMP", skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<IcmpMatch>,
    /// Where the traffic comes from; absent is anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RuleEntity>,
    /// Where the traffic goes; absent is anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<RuleEntity>,
    /// Not supported, and refused: dropping it would widen the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<HttpSchema>")]
    pub http: Option<Value>,
}

/// An ICMP message (RFC 792, RFC 4443).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.code) || has(self.type)").message("icmp code needs type"))]
pub struct IcmpMatch {
    /// The type; absent is all.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IcmpTypeSchema>")]
    pub icmp_type: Option<u8>,
    /// The code; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Octet>")]
    pub code: Option<u8>,
}

/// One end of a rule. All members must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.domains)").message("domains is not supported; dropping it would widen the rule").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!has(self.selector) || !self.selector.contains('global(')").message("global() is legal in namespaceSelector only"))]
#[x_kube(validation = Rule::new("!has(self.notSelector) || !self.notSelector.contains('global(')").message("global() is legal in namespaceSelector only"))]
#[x_kube(validation = Rule::new("!has(self.services) || !(has(self.selector) || has(self.notSelector) || has(self.namespaceSelector) || has(self.nets) || has(self.notNets) || has(self.serviceAccounts))").message("services stands alone: selectors, nets and serviceAccounts do not combine with it").reason(Reason::FieldValueForbidden))]
pub struct RuleEntity {
    /// Ranges that hold the address; any of them. One family a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub nets: Option<Vec<Cidr>>,
    /// Ranges that must not hold the address, none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub not_nets: Option<Vec<Cidr>>,
    /// Labels of endpoints and network sets, such as app == 'api'; in the policy's own namespace, unless
    /// namespaceSelector is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SelectorText>")]
    pub selector: Option<String>,
    /// Labels that the other end must not have; it matches strangers, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SelectorText>")]
    pub not_selector: Option<String>,
    /// Labels of namespaces; global() stands for what has no namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SelectorText>")]
    pub namespace_selector: Option<String>,
    /// Ports, ranges first:last, and names of container ports; any of them. Needs protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<PortSchema>>", length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Option<Vec<PolicyPort>>,
    /// Ports that must not match, none of them. Needs protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<PortSchema>>", length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub not_ports: Option<Vec<PolicyPort>>,
    /// Service accounts of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccountMatch>,
    /// A Service, with its addresses and ports; stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceMatch>,
    /// Not supported, and refused: dropping it would widen the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub domains: Option<Vec<String>>,
}

/// Service accounts by name, by label, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountMatch {
    /// Names, any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<schema::Name>>", length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub names: Option<Vec<String>>,
    /// Labels of the service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SelectorText>")]
    pub selector: Option<String>,
}

/// A Service by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMatch {
    /// The Service's name.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// The Service's namespace; that of the policy where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Name>")]
    pub namespace: Option<String>,
}

/// Written by the controller, once for a generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LongCount>")]
    pub observed_generation: Option<i64>,
    /// How many nodes could not program this generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Count>")]
    pub failed_nodes: Option<u32>,
    /// Accepted, Programmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
    pub conditions: Vec<Condition>,
}

pub(super) fn default_tier() -> String {
    super::FixedTier::DEFAULT.name.to_owned()
}

/// The directions that a policy is for: as its `types` say, else by the rules that it has. None or ingress rules
/// make Ingress, egress rules alone Egress, both make both.
pub(super) fn directions(
    types: Option<&[PolicyType]>,
    has_ingress: bool,
    has_egress: bool,
) -> Vec<PolicyType> {
    match types {
        Some(types) => types.to_vec(),
        None => [
            (has_ingress || !has_egress).then_some(PolicyType::Ingress),
            has_egress.then_some(PolicyType::Egress),
        ]
        .into_iter()
        .flatten()
        .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        let rule: PolicyRule = serde_saphyr::from_str(
            "{name: api, action: Allow, protocol: TCP, source: {selector: \"app == 'api'\"},
              destination: {ports: [5432, '9000:9010', metrics]}}",
        )
        .unwrap();
        assert_eq!(rule.action, PolicyAction::Allow);
        let ports = rule.destination.as_ref().unwrap().ports.as_ref().unwrap();
        assert_eq!(
            ports[..],
            [
                PolicyPort::Number(5432),
                PolicyPort::Span { first: 9000, last: 9010 },
                PolicyPort::Named("metrics".to_owned())
            ]
        );
        let text = serde_json::to_value(&rule).unwrap();
        assert_eq!(text["destination"], json!({"ports": [5432, "9000:9010", "metrics"]}));
        assert_eq!(serde_json::from_value::<PolicyRule>(text).unwrap(), rule);
    }

    #[test]
    fn an_unknown_action_is_never_guessed() {
        let rule: PolicyRule = serde_saphyr::from_str("{action: Mirror}").unwrap();
        assert_eq!(rule.action, PolicyAction::Unknown("Mirror".to_owned()));
    }

    #[test]
    fn directions_follow_from_the_rules() {
        let of = |ingress, egress| directions(None, ingress, egress);
        assert_eq!(of(false, false), [PolicyType::Ingress]);
        assert_eq!(of(true, false), [PolicyType::Ingress]);
        assert_eq!(of(false, true), [PolicyType::Egress]);
        assert_eq!(of(true, true), [PolicyType::Ingress, PolicyType::Egress]);
        assert_eq!(directions(Some(&[PolicyType::Egress]), true, false), [PolicyType::Egress]);
    }
}
