//! The scalars of policy rules: protocols and ports, each a number or a text (api.md §2), and IP versions.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::json;

use super::schema::fragment;

/// The numbers of IANA's registry that have names here.
const PROTOCOLS: [(&str, u8); 6] =
    [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("UDPLite", 136), ("ICMP", 1), ("ICMPv6", 58)];

/// A protocol above IP: by name, or 1 to 255.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyProtocol {
    /// As the user wrote it: a name, or a number. Names and numbers of one protocol are different texts, so compare
    /// [`PolicyProtocol::number`].
    Name(&'static str),
    Number(u8),
    /// A text or a number that this program is too old to know; never guessed (api.md §14).
    Unknown(String),
}

impl PolicyProtocol {
    /// IANA's number.
    pub fn number(&self) -> Option<u8> {
        match self {
            Self::Name(name) => PROTOCOLS.iter().find(|(known, _)| known == name).map(|(_, number)| *number),
            Self::Number(number) => Some(*number),
            Self::Unknown(_) => None,
        }
    }

    /// TCP, UDP, SCTP, UDPLite.
    pub fn has_ports(&self) -> bool {
        matches!(self.number(), Some(6 | 17 | 132 | 136))
    }
}

impl From<&str> for PolicyProtocol {
    fn from(text: &str) -> Self {
        match PROTOCOLS.iter().find(|(name, _)| *name == text) {
            Some((name, _)) => Self::Name(name),
            None => Self::Unknown(text.to_owned()),
        }
    }
}

impl From<i64> for PolicyProtocol {
    fn from(number: i64) -> Self {
        match u8::try_from(number) {
            Ok(number @ 1..) => Self::Number(number),
            Ok(0) | Err(_) => Self::Unknown(number.to_string()),
        }
    }
}

impl fmt::Display for PolicyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}

impl Serialize for PolicyProtocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Number(number) => serializer.serialize_u8(*number),
            Self::Unknown(text) => serialize_unknown(text, serializer),
        }
    }
}

/// A port of a rule: a number, the first and the last of a range, or the name of a container's port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyPort {
    Number(u16),
    /// `first:last`, both included. The schema cannot compare them: where the first is above the last, no port
    /// is meant.
    Span {
        first: u16,
        last: u16,
    },
    Named(String),
    /// A text or a number that is no port; never guessed (api.md §14).
    Unknown(String),
}

impl From<&str> for PolicyPort {
    fn from(text: &str) -> Self {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<u16>().ok()).flatten()
        };
        if let Some(port) = number(text) {
            return Self::Number(port);
        }
        if let Some((first, last)) = text.split_once(':') {
            return match (number(first), number(last)) {
                (Some(first), Some(last)) => Self::Span { first, last },
                _ => Self::Unknown(text.to_owned()),
            };
        }
        let letters = text.bytes().any(|b| b.is_ascii_lowercase());
        if letters { Self::Named(text.to_owned()) } else { Self::Unknown(text.to_owned()) }
    }
}

impl From<i64> for PolicyPort {
    fn from(number: i64) -> Self {
        u16::try_from(number).map_or_else(|_| Self::Unknown(number.to_string()), Self::Number)
    }
}

impl fmt::Display for PolicyPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(port) => port.fmt(f),
            Self::Span { first, last } => write!(f, "{first}:{last}"),
            Self::Named(text) | Self::Unknown(text) => f.write_str(text),
        }
    }
}

impl Serialize for PolicyPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(port) => serializer.serialize_u16(*port),
            Self::Span { .. } | Self::Named(_) => serializer.collect_str(self),
            Self::Unknown(text) => serialize_unknown(text, serializer),
        }
    }
}

/// The version of IP that a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    V4,
    V6,
    /// A number that this program is too old to know.
    Unknown(i64),
}

impl From<i64> for IpVersion {
    fn from(number: i64) -> Self {
        match number {
            4 => Self::V4,
            6 => Self::V6,
            other => Self::Unknown(other),
        }
    }
}

impl Serialize for IpVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(match self {
            Self::V4 => 4,
            Self::V6 => 6,
            Self::Unknown(number) => *number,
        })
    }
}

impl<'de> Deserialize<'de> for IpVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(Self::from)
    }
}

/// What was read as a number goes out as one.
fn serialize_unknown<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    match text.parse::<i64>() {
        Ok(number) => serializer.serialize_i64(number),
        Err(_) => serializer.serialize_str(text),
    }
}

/// Reads an int-or-string.
struct IntOrText<T>(std::marker::PhantomData<T>);

impl<T: From<i64> + for<'a> From<&'a str>> Visitor<'_> for IntOrText<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer or a string")
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Ok(T::from(number))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        i64::try_from(number).map(T::from).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok(T::from(text))
    }
}

impl<'de> Deserialize<'de> for PolicyProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntOrText(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for PolicyPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntOrText(std::marker::PhantomData))
    }
}

fragment!(
    /// A protocol: its name, or 1 to 255.
    ProtocolSchema,
    json!({"x-kubernetes-int-or-string": true, "minimum": 1, "maximum": 255, "maxLength": 7,
           "pattern": "^(TCP|UDP|SCTP|UDPLite|ICMP|ICMPv6)$"})
);
fragment!(
    /// A port, a range of ports, or the name of one. A name holds a letter, so that `80-90` is none.
    PortSchema,
    json!({"x-kubernetes-int-or-string": true, "minimum": 0, "maximum": 65535, "maxLength": 15,
           "pattern": "^([0-9]{1,5}(:[0-9]{1,5})?|([0-9][-0-9]*)?[a-z]([-a-z0-9]*[a-z0-9])?)$"})
);
fragment!(
    /// 4 or 6.
    IpVersionSchema,
    json!({"type": "integer", "format": "int32", "enum": [4, 6]})
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_names_or_numbers() {
        for (text, wanted, number) in [
            ("\"TCP\"", PolicyProtocol::Name("TCP"), Some(6)),
            ("6", PolicyProtocol::Number(6), Some(6)),
            ("\"UDPLite\"", PolicyProtocol::Name("UDPLite"), Some(136)),
            ("0", PolicyProtocol::Unknown("0".to_owned()), None),
            ("256", PolicyProtocol::Unknown("256".to_owned()), None),
            ("\"GRE\"", PolicyProtocol::Unknown("GRE".to_owned()), None),
        ] {
            let read: PolicyProtocol = serde_json::from_str(text).unwrap();
            assert_eq!((&read, read.number()), (&wanted, number), "{text}");
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
        assert!(PolicyProtocol::Number(132).has_ports());
        assert!(!PolicyProtocol::Name("ICMP").has_ports());
        assert!(serde_json::from_str::<PolicyProtocol>("true").is_err());
    }

    #[test]
    fn ports_are_numbers_spans_or_names() {
        for (text, wanted) in [
            ("5432", PolicyPort::Number(5432)),
            ("\"9000:9010\"", PolicyPort::Span { first: 9000, last: 9010 }),
            ("\"9:1\"", PolicyPort::Span { first: 9, last: 1 }),
            ("\"metrics\"", PolicyPort::Named("metrics".to_owned())),
            ("\"8-http\"", PolicyPort::Named("8-http".to_owned())),
            ("70000", PolicyPort::Unknown("70000".to_owned())),
            ("\"1:70000\"", PolicyPort::Unknown("1:70000".to_owned())),
            ("\"80-90\"", PolicyPort::Unknown("80-90".to_owned())),
        ] {
            let read: PolicyPort = serde_json::from_str(text).unwrap();
            assert_eq!(read, wanted, "{text}");
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
        assert_eq!(serde_json::from_str::<PolicyPort>("\"80\"").unwrap(), PolicyPort::Number(80));
    }

    #[test]
    fn versions_are_numbers() {
        for (text, wanted) in [("4", IpVersion::V4), ("6", IpVersion::V6), ("8", IpVersion::Unknown(8))] {
            let read: IpVersion = serde_json::from_str(text).unwrap();
            assert_eq!(read, wanted);
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
    }
}
