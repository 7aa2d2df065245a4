//! Session settings and how they inherit (api.md §3).

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{self, duration_range, fragment, string_enum};
use super::values::Duration;
use super::{BGPPeer, FabricConfiguration};

mod effective;
pub use effective::EffectiveSession;

duration_range!(
    /// RFC 4271 §4.2
    HoldTime, "duration(self) <= duration('65535s')", "must be at most 65535s");
duration_range!(
    /// A third of the largest hold time.
    KeepaliveTime,
    "duration(self) >= duration('1s') && duration(self) <= duration('21845s')",
    "must be between 1s and 21845s"
);
duration_range!(
    /// RFC 4271 §8
    ConnectRetryTime,
    "duration(self) >= duration('1s') && duration(self) <= duration('65535s')",
    "must be between 1s and 65535s"
);
duration_range!(
    /// The twelve bits of RFC 4724 §3.
    RestartTime,
    "duration(self) >= duration('1s') && duration(self) <= duration('4095s')",
    "must be between 1s and 4095s"
);
duration_range!(
    /// The 24 bits of RFC 9494.
    StaleTime, "duration(self) <= duration('16777215s')", "must be at most 16777215s");
duration_range!(
    /// A day at most.
    RestartAfter, "duration(self) <= duration('24h')", "must be at most 24h");

/// The settings of a BGP session. An absent leaf is inherited, except `auth`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Hold, keepalive and connect-retry times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timers: Option<SessionTimers>,
    /// The name of a BFDProfile; `""` stands for none and ends inheritance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::NameOrEmpty>")]
    pub bfd_profile: Option<String>,
    /// Never inherited: keys belong to one neighbour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<SessionAuth>,
    /// GTSM (RFC 5082) with `maxHops` as the distance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<bool>,
    /// Graceful restart (RFC 4724), and its long-lived form (RFC 9494).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestart>,
    /// Several paths for one prefix (RFC 7911).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_path: Option<AddPath>,
    /// How many prefixes the neighbour may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<MaxPrefixes>,
}

/// Timers of RFC 4271 §10.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.hold) || duration(self.hold) == duration('0s') || duration(self.hold) >= duration('3s')").message("hold must be 0s or at least 3s (RFC 4271)"))]
#[x_kube(validation = Rule::new("!has(self.keepalive) || !has(self.hold) || duration(self.hold) == duration('0s') || duration(self.keepalive) < duration(self.hold)").message("keepalive must be shorter than hold"))]
pub struct SessionTimers {
    /// 0s, or 3s to 65535s (RFC 4271 §4.2); 30s where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<HoldTime>")]
    pub hold: Option<Duration>,
    /// 1s to 21845s, below hold; a third of hold where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<KeepaliveTime>")]
    pub keepalive: Option<Duration>,
    /// How long to wait before dialling again, jittered; 5s where unset (RFC 4271 §8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ConnectRetryTime>")]
    pub connect_retry: Option<Duration>,
}

/// How segments are authenticated: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.md5) != has(self.tcpAO)").message("exactly one of md5, tcpAO must be set"))]
pub struct SessionAuth {
    /// RFC 2385
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<Md5Auth>,
    /// RFC 5925
    #[serde(default, rename = "tcpAO", skip_serializing_if = "Option::is_none")]
    pub tcp_ao: Option<TcpAoAuth>,
}

/// TCP MD5 signatures (RFC 2385).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Md5Auth {
    /// The key.
    pub secret_ref: SecretKeyRef,
}

/// TCP-AO (RFC 5925): the first key sends, all receive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.keys.all(k, self.keys.exists_one(o, o.id == k.id))").message("key ids must be unique"))]
pub struct TcpAoAuth {
    /// The keys: the first sends, all receive.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub keys: Vec<TcpAoKey>,
}

/// One TCP-AO master key tuple.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpAoKey {
    /// SendID and RecvID of the key (RFC 5925 §3.1).
    #[schemars(with = "schema::Octet")]
    pub id: u8,
    /// The MAC algorithm (RFC 5926).
    #[serde(default)]
    pub algorithm: TcpAoAlgorithm,
    /// The key.
    pub secret_ref: SecretKeyRef,
}

string_enum! {
    /// MAC algorithms of RFC 5926.
    TcpAoAlgorithm {
        HmacSha1 = "HMAC-SHA-1-96",
        Aes128Cmac = "AES-128-CMAC-96",
    }
}
#[expect(clippy::derivable_impls, reason = "the macro that makes the enum derives none")]
impl Default for TcpAoAlgorithm {
    fn default() -> Self {
        Self::HmacSha1
    }
}

/// A key of a Secret in the agents' namespace, always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(with = "schema::Name")]
    pub name: String,
    /// The key inside the Secret.
    #[schemars(with = "SecretKey")]
    pub key: String,
}

fragment!(
    /// A key inside a Secret.
    SecretKey,
    json!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[-._a-zA-Z0-9]+$"})
);
fragment!(
    /// Paths to send for one prefix.
    PathCount,
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 64})
);
fragment!(
    /// A limit of received prefixes.
    PrefixLimit,
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 10_000_000})
);
fragment!(
    /// A share in percent.
    Percent,
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 100})
);

/// Graceful restart (RFC 4724, RFC 8538) and its long-lived form (RFC 9494).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.mode) || self.mode != 'Disabled' || !(has(self.restartTime) || has(self.longLivedStaleTime))").message("restartTime and longLivedStaleTime have no effect with mode Disabled").reason(Reason::FieldValueForbidden))]
pub struct GracefulRestart {
    /// Full is restarting speaker and helper, Helper is helper alone; Full where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<GracefulRestartMode>,
    /// How long the neighbour is asked to keep our routes; 120s where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<RestartTime>")]
    pub restart_time: Option<Duration>,
    /// How long stale routes are kept after that (RFC 9494); 0s, which is off, where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<StaleTime>")]
    pub long_lived_stale_time: Option<Duration>,
}

string_enum! {
    /// Which roles of RFC 4724 are played.
    GracefulRestartMode {
        /// Restarting speaker and helper.
        Full = "Full",
        Helper = "Helper",
        Disabled = "Disabled",
    }
}

/// ADD-PATH (RFC 7911).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddPath {
    /// Takes several paths for one prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<bool>,
    /// Paths sent for one prefix; absent is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathCount>")]
    pub send: Option<u8>,
}

/// Limits on what a neighbour may send, counted before filters (RFC 4486).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaxPrefixes {
    /// IPv4 prefixes that the neighbour may send; 50000 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PrefixLimit>")]
    pub ipv4: Option<u32>,
    /// IPv6 prefixes that the neighbour may send; 50000 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PrefixLimit>")]
    pub ipv6: Option<u32>,
    /// Shutdown ends the session with Cease/1, Warn tells and keeps it; Shutdown where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<MaxPrefixesAction>,
    /// The share of the limit that warns; 80 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Percent>")]
    pub warn_percent: Option<u8>,
    /// `0s` stays down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<RestartAfter>")]
    pub restart_after: Option<Duration>,
}

string_enum! {
    /// What happens at the limit.
    MaxPrefixesAction {
        Shutdown = "Shutdown",
        Warn = "Warn",
    }
}

#[cfg(test)]
mod tests;
