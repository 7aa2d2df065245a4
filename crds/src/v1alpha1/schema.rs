//! Schema fragments that several kinds share, as api.md §2 lists them.
//!
//! A fragment stands for a field's schema where its Rust type alone cannot say it:
//! `#[schemars(with = "Option<schema::Name>")] node_name: Option<String>`.

use kube::CustomResourceExt;
use schemars::Schema;
use serde_json::{Map, Value, json};

use crate::annotations;

/// Declares a type that exists for its schema only.
macro_rules! fragment {
    ($(#[$doc:meta])* $name:ident, $schema:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, serde::Serialize)]
        pub struct $name;

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

pub(crate) fn fragment_schema(value: Value) -> Schema {
    match value {
        Value::Object(map) => Schema::from(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Schema::from(Map::new())
        }
    }
}

pub(crate) const CIDR_RULE: &str = "isCIDR(self) && string(cidr(self).masked()) == self";
pub(crate) const CIDR_MESSAGE: &str =
    "must be a CIDR in canonical form with no host bits set, such as 10.244.0.0/16 or fd00:10::/48";
pub(crate) const IP_RULE: &str = "isIP(self) && ip.isCanonical(self)";
pub(crate) const IP_MESSAGE: &str = "must be an IP address in canonical form, such as 10.0.0.1 or fd00::1";
pub(crate) const RANGE_RULE: &str = "isCIDR(self) ? string(cidr(self).masked()) == self : self.split('-').size() == 2 && self.split('-').all(a, isIP(a) && ip.isCanonical(a)) && ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family()";
pub(crate) const RANGE_MESSAGE: &str = "must be a CIDR with no host bits set, or a range first-last, such as 192.0.2.0/24 or 192.0.2.10-192.0.2.20";
pub(crate) const COMMUNITY_RULE: &str = "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') || (self.matches('^[0-9]{1,5}:[0-9]{1,5}$') && self.split(':').all(n, int(n) <= 65535)) || (self.matches('^[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$') && self.split(':').all(n, int(n) <= 4294967295))";
pub(crate) const COMMUNITY_MESSAGE: &str =
    "must be n:n with n up to 65535, n:n:n with n up to 4294967295, or the name of a community";
pub(crate) const DURATION_PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

fragment!(
    /// The name of an object (DNS-1123 subdomain).
    Name,
    json!({"type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"})
);
fragment!(
    /// The name of an object, or nothing.
    NameOrEmpty,
    json!({"type": "string", "maxLength": 253, "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"})
);
fragment!(
    /// A label key.
    LabelKey,
    json!({"type": "string", "maxLength": 317,
           "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"})
);
fragment!(
    /// A network interface (kernel IFNAMSIZ).
    Interface,
    json!({"type": "string", "minLength": 1, "maxLength": 15, "pattern": "^[^\\s/]+$"})
);
fragment!(
    /// Text sent in a NOTIFICATION (RFC 9003).
    AdminMessage,
    json!({"type": "string", "maxLength": 255, "x-kubernetes-validations": [
        {"rule": "bytes(self).size() <= 255", "message": "must be at most 255 octets of UTF-8 (RFC 9003)"}]})
);
fragment!(
    /// The name of a community.
    CommunityName,
    json!({"type": "string", "maxLength": 32, "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"})
);
fragment!(
    /// A TCP or UDP port that can be dialled.
    Port,
    json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535})
);
fragment!(
    /// A port, or 0 for none.
    PortOrZero,
    json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 65535})
);
fragment!(
    /// A 32-bit unsigned value, 0 included.
    Uint32,
    json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": 4294967295_u32})
);
fragment!(
    /// A count that fits in int32.
    Count,
    json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 2147483647})
);
fragment!(
    /// A count, or a generation. No maximum beside int64's own: API servers hold bounds as float64, where 2^63 - 1 is
    /// 2^63, and compare every value with what that is as int64, which is negative.
    LongCount,
    json!({"type": "integer", "format": "int64", "minimum": 0})
);
fragment!(
    /// One octet.
    Octet,
    json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 255})
);
fragment!(
    /// A number in a status that the API server need not check.
    StatusNumber,
    json!({"type": "integer", "format": "int64"})
);
fragment!(
    /// RFC 3339.
    DateTime,
    json!({"type": "string", "format": "date-time"})
);
fragment!(
    /// metav1.LabelSelector with the enum of `operator` that upstream leaves open.
    LabelSelector,
    json!({"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
        "matchLabels": {"type": "object", "additionalProperties": {"type": "string"},
            "description": "Labels that must have these values, all of them."},
        "matchExpressions": {"type": "array", "x-kubernetes-list-type": "atomic",
            "description": "What must hold of labels, all of it.", "items": {
            "type": "object", "required": ["key", "operator"], "properties": {
                "key": {"type": "string", "description": "The label's key."},
                "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                    "description": "How the label relates to values."},
                "values": {"type": "array", "x-kubernetes-list-type": "atomic", "items": {"type": "string"},
                    "description": "What In and NotIn compare with; empty for Exists and DoesNotExist."}}}}}})
);
fragment!(
    /// `status.conditions`: metav1.Condition, a list map by `type`.
    Conditions,
    json!({"type": "array", "maxItems": 32, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {"type": "object", "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "What the condition is about."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds; of ours, True is the good one."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0,
                    "description": "The generation of the object that the condition speaks of."},
                "lastTransitionTime": {"type": "string", "format": "date-time",
                    "description": "When status changed last."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024,
                    "description": "Why, in one word."},
                "message": {"type": "string", "maxLength": 32768,
                    "description": "Why, and what to do."}}}})
);

/// Declares a Duration field's schema with its range.
macro_rules! duration_range {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $message:literal) => {
        $crate::v1alpha1::schema::fragment!(
            $(#[$doc])*
            $name,
            serde_json::json!({"type": "string", "maxLength": 32,
                   "pattern": $crate::v1alpha1::schema::DURATION_PATTERN,
                   "x-kubernetes-validations": [{"rule": $rule, "message": $message}]})
        );
    };
}
pub(crate) use duration_range;
pub(crate) use fragment;

/// Declares an enum of strings: its schema lists the values, a value of a newer schema becomes `Unknown`.
macro_rules! string_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
            /// A value that this program is too old to know; never guessed (api.md §14).
            Unknown(String),
        }

        impl $name {
            /// Every value of the schema.
            pub const VALUES: &'static [&'static str] = &[$($text),+];

            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Unknown(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    other => Self::Unknown(other.to_owned()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                Ok(Self::from(text.as_ref()))
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
                $crate::v1alpha1::schema::fragment_schema(
                    serde_json::json!({"type": "string", "enum": Self::VALUES}),
                )
            }
        }
    };
}
pub(crate) use string_enum;

/// Serialises nothing for a `false` that the schema does not default.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

/// The CRD of a kind as it is installed: what kube-derive makes, without `nullable` (a null is no value of
/// ours), with int32 and int64 as the only integer formats, whole numbers as such, with the three
/// members every object has, and the revision of the schema. JSON, because the typed CRD holds its bounds as floats.
///
/// # Errors
/// Only if kube-derive made something that is no JSON; a test shows that it does not.
pub fn crd<K: CustomResourceExt>() -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(K::crd())?;
    if let Some(metadata) = value.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        let revision = super::SCHEMA_REVISION.to_string();
        metadata.insert("annotations".to_owned(), json!({annotations::SCHEMA_REVISION.key: revision}));
    }
    if let Some(versions) = value.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                make_structural(schema);
                add_object_members(schema);
            }
        }
    }
    Ok(value)
}

fn add_object_members(schema: &mut Value) {
    let Some(root) = schema.as_object_mut() else { return };
    let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (name, description) in [
        ("apiVersion", "The version of the schema that the object is written in."),
        ("kind", "The kind of the object."),
    ] {
        properties.insert(name.to_owned(), json!({"type": "string", "description": description}));
    }
    // The API server describes it by itself, and refuses a CRD that does.
    properties.insert("metadata".to_owned(), json!({"type": "object"}));
    // kube-derive's own says nothing of the kind; the documentation of its spec does
    if let Some(description) = properties.get("spec").and_then(|spec| spec.get("description")).cloned() {
        root.insert("description".to_owned(), description);
    }
}

/// A bound without its fraction; 2^63 is how a float holds the largest int64.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what the largest int64 needs")]
fn whole(number: f64) -> i64 {
    number as i64
}

/// Visits a schema and all schemas inside it; keywords only, never the names of properties.
fn make_structural(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("nullable");
    map.remove("title");
    if let Some(values) = map.get_mut("enum").and_then(Value::as_array_mut) {
        values.retain(|value| !value.is_null());
    }
    let is_integer = map.get("type").and_then(Value::as_str) == Some("integer");
    if is_integer || map.contains_key("x-kubernetes-int-or-string") {
        for bound in ["minimum", "maximum"] {
            if let Some(number) = map.get(bound).and_then(Value::as_f64) {
                map.insert(bound.to_owned(), json!(whole(number)));
            }
        }
    }
    if is_integer {
        let small = |value: &Value| value.as_i64().is_some_and(|number| number <= i64::from(i32::MAX));
        let small = map.get("maximum").is_some_and(small)
            || map.get("enum").and_then(Value::as_array).is_some_and(|values| values.iter().all(small));
        map.insert("format".to_owned(), json!(if small { "int32" } else { "int64" }));
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(make_structural);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(keyword) {
            make_structural(inner);
        }
    }
}
