//! BGPFilter: ordered rules for what a peer gives us and gets from us (api.md §5.4).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::schema::{self, fragment, string_enum};
use super::values::{Asn, Cidr, Community};

/// Ordered rules for what a peer gives us and gets from us.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "manx.dev",
    version = "v1alpha1",
    kind = "BGPFilter",
    plural = "bgpfilters",
    shortname = "bgpf",
    category = "manx",
    status = "BGPFilterStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.__import__) || has(self.export)").message("at least one of import, export must be set").reason(Reason::FieldValueRequired))]
#[x_kube(validation = Rule::new("!has(self.__import__) || self.__import__.all(r, !has(r.match) || !has(r.match.sources))").message("sources tells how a route came to be here: only export rules may match it").reason(Reason::FieldValueForbidden))]
pub struct BGPFilterSpec {
    /// Rules for what the neighbour sends, in order; the first that decides wins, then the next filter, then the
    /// default import policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub import: Option<Vec<FilterRule>>,
    /// Rules for what the neighbour is sent, in order; they see candidates only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub export: Option<Vec<FilterRule>>,
}

/// One rule: what it matches, what it changes, and whether it decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.action != 'Reject' || !has(self.set)").message("set has no effect with action Reject").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("self.action != 'Continue' || has(self.set)").message("action Continue needs set").reason(Reason::FieldValueRequired))]
pub struct FilterRule {
    /// What `manxctl bgp routes --why` calls the rule; its index where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub name: Option<String>,
    /// All members must hold; absent matches every route.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<RouteMatch>,
    /// Accept and Reject end all filters of the peer; Continue changes the route and goes on.
    pub action: FilterAction,
    /// What is changed on a route that the rule matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<RouteChanges>,
}

string_enum! {
    /// What becomes of a route that a rule matches.
    FilterAction {
        /// Ends all filters of the peer.
        Accept = "Accept",
        Reject = "Reject",
        /// Change, and go on.
        Continue = "Continue",
    }
}

/// What a rule asks of a route: all members must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteMatch {
    /// The route's prefix; any of the items may hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub prefixes: Vec<PrefixMatch>,
    /// How the route came to be here; in export rules only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub sources: Vec<RouteSource>,
    /// Communities that the route carries, all of them (RFC 1997, RFC 8092).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub communities: Vec<Community>,
    /// The route's AS_PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_path: Option<AsPathMatch>,
    /// Ranges that hold the route's next hop; any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub next_hops: Vec<Cidr>,
}

fragment!(
    /// The length of a prefix.
    PrefixLength,
    json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 128})
);

/// Prefixes inside a range, by their length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minLength) || !has(self.maxLength) || self.minLength <= self.maxLength").message("minLength must not be above maxLength"))]
#[x_kube(validation = Rule::new("!has(self.minLength) || !isCIDR(self.cidr) || self.minLength >= cidr(self.cidr).prefixLength()").message("minLength must not be below the length of cidr"))]
#[x_kube(validation = Rule::new("!isCIDR(self.cidr) || cidr(self.cidr).ip().family() == 6 || ((!has(self.minLength) || self.minLength <= 32) && (!has(self.maxLength) || self.maxLength <= 32))").message("an IPv4 prefix length is at most 32"))]
pub struct PrefixMatch {
    /// The range that holds the prefix.
    pub cidr: Cidr,
    /// The least length; that of cidr where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PrefixLength>")]
    pub min_length: Option<u8>,
    /// The greatest length; 32 or 128 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PrefixLength>")]
    pub max_length: Option<u8>,
}

impl PrefixMatch {
    /// The lengths that match, least and greatest: as set, or cidr's own to 32 or 128. The greatest may be below
    /// cidr's own length; then nothing matches.
    pub fn lengths(&self) -> (u8, u8) {
        let net = self.cidr.net();
        (self.min_length.unwrap_or(net.prefix_len()), self.max_length.unwrap_or(net.max_prefix_len()))
    }
}

string_enum! {
    /// How a route came to be here.
    RouteSource {
        /// A block of this node.
        Block = "Block",
        /// An address of another node's block.
        BorrowedAddress = "BorrowedAddress",
        /// An address of a Service, or a range of them.
        Service = "Service",
        /// `prefixes` of a BGPAdvertisement.
        Static = "Static",
        /// `nodeAddresses` of a BGPAdvertisement.
        NodeAddress = "NodeAddress",
        /// Learned over iBGP.
        Internal = "Internal",
        /// Learned over eBGP.
        External = "External",
    }
}

/// What a rule asks of an AS_PATH: all members must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AsPathMatch {
    /// The path's first ASNs, the neighbour's first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub starts_with: Vec<Asn>,
    /// The path's last ASN.
    #[serde(default, rename = "originASN", skip_serializing_if = "Option::is_none")]
    pub origin_asn: Option<Asn>,
    /// How many ASNs at most, as RFC 4271 §9.1.2.2 counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Octet>")]
    pub max_length: Option<u8>,
}

/// What is changed on a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct RouteChanges {
    /// LOCAL_PREF (RFC 4271 §5.1.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Uint32>")]
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC (RFC 4271 §5.1.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Uint32>")]
    pub med: Option<u32>,
    /// Communities that the route gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub add_communities: Vec<Community>,
    /// Communities that the route loses, before others are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub remove_communities: Vec<Community>,
    /// ASNs put before the path, the first one outermost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub prepend: Vec<Asn>,
}

/// Written by the controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPFilterStatus {
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

    fn filter(spec: &str) -> BGPFilterSpec {
        serde_saphyr::from_str(spec).unwrap()
    }

    #[test]
    fn rules_keep_their_order_and_names() {
        let spec = filter(
            "{import: [{name: a, match: {communities: ['65012:666']}, action: Continue, set: {localPreference: 50}},
              {action: Reject}]}",
        );
        let rules = spec.import.clone().unwrap();
        assert_eq!(rules[0].name.as_deref(), Some("a"));
        assert_eq!(rules[0].matching.as_ref().unwrap().communities, [Community::Standard(65012, 666)]);
        assert_eq!(rules[0].set.as_ref().unwrap().local_preference, Some(50));
        assert_eq!(
            rules[1],
            FilterRule { name: None, matching: None, action: FilterAction::Reject, set: None }
        );
        assert_eq!(spec.export, None);
        let text = serde_json::to_value(&spec).unwrap();
        assert_eq!(text["import"][0]["match"]["communities"][0], "65012:666");
    }

    #[test]
    fn an_action_of_a_newer_schema_is_unknown() {
        let spec = filter("{export: [{action: Defer}]}");
        assert_eq!(spec.export.unwrap()[0].action, FilterAction::Unknown("Defer".to_owned()));
    }

    #[test]
    fn lengths_default_to_those_of_the_range_and_below() {
        let lengths = |text: &str| serde_saphyr::from_str::<PrefixMatch>(text).unwrap().lengths();
        assert_eq!(lengths("{cidr: 10.96.0.0/12}"), (12, 32));
        assert_eq!(lengths("{cidr: 'fd00::/48'}"), (48, 128));
        assert_eq!(lengths("{cidr: 0.0.0.0/0, maxLength: 0}"), (0, 0));
        assert_eq!(lengths("{cidr: 10.96.0.0/12, minLength: 24, maxLength: 30}"), (24, 30));
    }
}
