//! The scalar types of api.md §2: each parses on the way in and prints its canonical text.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{self, fragment_schema};

/// A text that is no value of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {expected}")]
pub struct ValueError {
    pub text: String,
    /// `must be …`
    pub expected: &'static str,
}

pub(super) fn refuse<T>(text: &str, expected: &'static str) -> Result<T, ValueError> {
    Err(ValueError { text: text.to_owned(), expected })
}

/// Serde by text, for types with Display and FromStr, and their schema.
macro_rules! text_value {
    ($name:ident, $schema:expr) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::v1alpha1::schema::fragment_schema($schema)
            }
        }
    };
}
pub(super) use text_value;

/// An autonomous system number that may be configured (RFC 6793).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// AS_TRANS, and the last number of each width (RFC 6793, RFC 7300): never anybody's own.
    pub const RESERVED: [u32; 4] = [0, 23456, 65535, 4_294_967_295];

    /// The number, unless it is reserved.
    pub fn checked(number: u32) -> Option<Self> {
        (!Self::RESERVED.contains(&number)).then_some(Self(number))
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for Asn {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Asn".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        fragment_schema(
            json!({"type": "integer", "format": "int64", "minimum": 1, "maximum": 4_294_967_295_u32,
            "x-kubernetes-validations": [{"rule": "!(self in [23456, 65535, 4294967295])",
                "message": "ASN 23456, 65535 and 4294967295 are reserved (RFC 6793, RFC 7300)"}]}),
        )
    }
}

/// An address range in canonical text, no host bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The network with its host bits cleared.
    pub fn masked(net: IpNet) -> Self {
        Self(net.trunc())
    }
    pub fn net(&self) -> IpNet {
        self.0
    }
    /// The name of the IPBlock of this range: the text with `.` `:` `/` as `-`.
    pub fn block_name(&self) -> String {
        self.0.to_string().replace(['.', ':', '/'], "-")
    }
}

impl From<Cidr> for IpNet {
    fn from(cidr: Cidr) -> Self {
        cidr.0
    }
}
impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl FromStr for Cidr {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<IpNet>() {
            Ok(net) if net.trunc() == net && net.to_string() == text => Ok(Self(net)),
            Ok(_) | Err(_) => refuse(text, schema::CIDR_MESSAGE),
        }
    }
}
text_value!(
    Cidr,
    json!({"type": "string", "maxLength": 43,
        "x-kubernetes-validations": [{"rule": schema::CIDR_RULE, "message": schema::CIDR_MESSAGE}]})
);

/// An IP address in canonical text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip(pub IpAddr);

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        ip.0
    }
}
impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl FromStr for Ip {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.to_string() == text => Ok(Self(ip)),
            Ok(_) | Err(_) => refuse(text, schema::IP_MESSAGE),
        }
    }
}
text_value!(
    Ip,
    json!({"type": "string", "maxLength": 39,
        "x-kubernetes-validations": [{"rule": schema::IP_RULE, "message": schema::IP_MESSAGE}]})
);

/// A BGP identifier (RFC 6286), written as an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub Ipv4Addr);

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl FromStr for RouterId {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<Ipv4Addr>() {
            Ok(id) if !id.is_unspecified() => Ok(Self(id)),
            Ok(_) | Err(_) => refuse(text, "must be an IPv4 address other than 0.0.0.0 (RFC 6286)"),
        }
    }
}
text_value!(
    RouterId,
    json!({"type": "string", "maxLength": 15, "x-kubernetes-validations": [{
        "rule": "isIP(self) && ip(self).family() == 4 && self != '0.0.0.0'",
        "message": "must be an IPv4 address other than 0.0.0.0 (RFC 6286)"}]})
);

/// A span of time as GEP-2257 writes it: `300ms`, `90s`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub std::time::Duration);

impl Duration {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}
impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        if seconds > 99_999 {
            // a number has five digits at most
            write!(f, "{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        } else if seconds > 0 || millis == 0 {
            write!(f, "{seconds}s")?;
        }
        if millis > 0 { write!(f, "{millis}ms") } else { Ok(()) }
    }
}
impl FromStr for Duration {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected = "must be a duration such as 300ms, 90s or 1h30m";
        let mut rest = text;
        let mut total = std::time::Duration::ZERO;
        for _ in 0..4 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let (unit_millis, tail) = match tail {
                t if t.starts_with("ms") => (1, t.get(2..)),
                t if t.starts_with('h') => (3_600_000, t.get(1..)),
                t if t.starts_with('m') => (60_000, t.get(1..)),
                t if t.starts_with('s') => (1_000, t.get(1..)),
                _ => return refuse(text, expected),
            };
            let (Ok(number), 1..=5) = (number.parse::<u64>(), digits) else {
                return refuse(text, expected);
            };
            total += std::time::Duration::from_millis(number * unit_millis);
            rest = tail.unwrap_or_default();
            if rest.is_empty() {
                return Ok(Self(total));
            }
        }
        refuse(text, expected)
    }
}
text_value!(Duration, json!({"type": "string", "maxLength": 32, "pattern": schema::DURATION_PATTERN}));

/// A BGP community as it is configured: a number of RFC 1997 or RFC 8092, or a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// `n:n` (RFC 1997)
    Standard(u16, u16),
    /// `n:n:n` (RFC 8092)
    Large(u32, u32, u32),
    /// Well-known, such as `no-export`, else from `FabricConfiguration.spec.communities`.
    Named(String),
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(a, b) => write!(f, "{a}:{b}"),
            Self::Large(a, b, c) => write!(f, "{a}:{b}:{c}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}
impl FromStr for Community {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parts: Vec<&str> = text.split(':').collect();
        let digits = |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let community = match parts.as_slice() {
            [name] if name.starts_with(|c: char| c.is_ascii_lowercase()) => {
                Some(Self::Named((*name).to_owned()))
            }
            [a, b] if parts.iter().all(digits) => {
                a.parse().ok().zip(b.parse().ok()).map(|(a, b)| Self::Standard(a, b))
            }
            [a, b, c] if parts.iter().all(digits) => match (a.parse(), b.parse(), c.parse()) {
                (Ok(a), Ok(b), Ok(c)) => Some(Self::Large(a, b, c)),
                _ => None,
            },
            _ => None,
        };
        community.map_or_else(|| refuse(text, schema::COMMUNITY_MESSAGE), Ok)
    }
}
text_value!(
    Community,
    json!({"type": "string", "maxLength": 32, "x-kubernetes-validations": [
        {"rule": schema::COMMUNITY_RULE, "message": schema::COMMUNITY_MESSAGE}]})
);

#[cfg(test)]
mod tests;
