//! HostEndpoint: interfaces of nodes under policy (api.md §7.3).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{self, fragment, string_enum};

/// Interfaces of nodes under policy. It carries its own labels and, below them, those of its node.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "HostEndpoint",
    plural = "hostendpoints",
    shortname = "hep",
    category = "manx",
    status = "HostEndpointStatus",
    derive = "PartialEq",
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".spec.interfaces"),
    printcolumn(name = "Default", type_ = "string", json_path = ".spec.defaultAction"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct HostEndpointSpec {
    /// The nodes; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::LabelSelector>")]
    pub node_selector: Option<LabelSelector>,
    /// Names of interfaces, where a trailing * matches the rest; * alone is all but the loopback and Manx's own.
    #[serde(default = "all_interfaces")]
    #[schemars(with = "Vec<InterfacePattern>", length(min = 1, max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub interfaces: Vec<String>,
    /// What becomes of traffic that no policy of any tier selected.
    #[serde(default)]
    pub default_action: HostDefaultAction,
    /// Names that rules may use for ports of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub ports: Vec<HostPort>,
}

fragment!(
    /// The name of an interface (kernel IFNAMSIZ), or its beginning and a `*`.
    InterfacePattern,
    json!({"type": "string", "minLength": 1, "maxLength": 16, "pattern": "^[^\\s/*]*\\*?$"})
);
fragment!(
    /// The name of a port.
    HostPortName,
    json!({"type": "string", "maxLength": 15, "pattern": "^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$"})
);

fn all_interfaces() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Whether the pattern of `interfaces` matches a name. What `*` alone leaves out, the caller knows.
pub fn interface_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

string_enum! {
    /// What becomes of traffic that no policy selected.
    HostDefaultAction {
        Allow = "Allow",
        Deny = "Deny",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for HostDefaultAction {
    fn default() -> Self {
        Self::Allow
    }
}

string_enum! {
    /// Protocols with ports.
    HostPortProtocol {
        TCP = "TCP",
        UDP = "UDP",
        SCTP = "SCTP",
    }
}

/// A name for a port of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// What rules call it.
    #[schemars(with = "HostPortName")]
    pub name: String,
    /// The protocol that the port is of.
    pub protocol: HostPortProtocol,
    /// The port.
    #[schemars(with = "schema::Port")]
    pub port: u16,
}

/// Written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostEndpointStatus {
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
    fn a_bare_host_endpoint_allows_on_all_interfaces() {
        let spec: HostEndpointSpec = serde_saphyr::from_str("{}").unwrap();
        assert_eq!(
            (spec.interfaces.as_slice(), &spec.default_action),
            (&["*".to_owned()][..], &HostDefaultAction::Allow)
        );
    }

    #[test]
    fn a_trailing_star_matches_the_rest() {
        for (pattern, name, matches) in [
            ("eno*", "eno1", true),
            ("eno*", "en0", false),
            ("bond0", "bond0", true),
            ("bond0", "bond01", false),
            ("*", "eth0", true),
        ] {
            assert_eq!(interface_matches(pattern, name), matches, "{pattern} {name}");
        }
    }
}
