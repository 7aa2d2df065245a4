//! BFDProfile: timers that sessions refer to (api.md §5.5). It has no status: BGPSession tells a session's state.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{duration_range, fragment, is_false};
use super::values::Duration;

duration_range!(
    /// RFC 5880 §6.8.1: negotiated, so that the slower end decides.
    BfdInterval,
    "duration(self) >= duration('10ms') && duration(self) <= duration('60s')",
    "must be between 10ms and 60s"
);
fragment!(
    /// How many packets in a row may be missing (RFC 5880 §6.8.4).
    DetectMultiplier,
    json!({"type": "integer", "format": "int32", "minimum": 2, "maximum": 255})
);

/// BFD timers that sessions refer to by name.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "BFDProfile",
    plural = "bfdprofiles",
    shortname = "bfdp",
    category = "manx",
    derive = "PartialEq",
    printcolumn(name = "Tx", type_ = "string", json_path = ".spec.transmitInterval"),
    printcolumn(name = "Rx", type_ = "string", json_path = ".spec.receiveInterval"),
    printcolumn(name = "Multiplier", type_ = "integer", json_path = ".spec.detectMultiplier"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BFDProfileSpec {
    /// The least time between two packets that we send, 10ms to 60s; the neighbour may ask for more.
    #[serde(default = "default_interval")]
    #[schemars(with = "BfdInterval")]
    pub transmit_interval: Duration,
    /// The least time between two packets that we are able to receive, 10ms to 60s.
    #[serde(default = "default_interval")]
    #[schemars(with = "BfdInterval")]
    pub receive_interval: Duration,
    /// How many packets in a row may be missing before the session is down (RFC 5880 §6.8.4).
    #[serde(default = "default_multiplier")]
    #[schemars(with = "DetectMultiplier")]
    pub detect_multiplier: u8,
    /// Waits for the neighbour's first packet (RFC 5880 §6.1).
    #[serde(default, skip_serializing_if = "is_false")]
    pub passive: bool,
}

const fn default_interval() -> Duration {
    Duration(std::time::Duration::from_millis(300))
}

const fn default_multiplier() -> u8 {
    3
}

impl Default for BFDProfileSpec {
    fn default() -> Self {
        Self {
            transmit_interval: default_interval(),
            receive_interval: default_interval(),
            detect_multiplier: default_multiplier(),
            passive: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_the_default() {
        let profile: BFDProfile = serde_saphyr::from_str(
            "{apiVersion: manx.dev/v1alpha1, kind: BFDProfile, metadata: {name: a}, spec: {transmitInterval: 100ms}}",
        )
        .unwrap();
        let wanted = BFDProfileSpec {
            transmit_interval: Duration(std::time::Duration::from_millis(100)),
            ..BFDProfileSpec::default()
        };
        assert_eq!(profile.spec, wanted);
        assert_eq!(
            serde_json::to_value(&profile.spec).unwrap(),
            json!({"transmitInterval": "100ms", "receiveInterval": "300ms", "detectMultiplier": 3})
        );
    }
}
