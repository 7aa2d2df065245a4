//! BGPFilters as the speaker takes them: those that a peer names, one after another.
//!
//! A name that leads nowhere, or a rule that this version cannot read, gives no filter at all: a rule left out could let in
//! or out what it withholds.

use std::sync::Arc;

use bgp_proto::Asn;
use bgp_proto::config::PeerConfig;
use bgp_proto::policy::{Action, Changes, Filter, Match, PrefixRange, Rule, Source, Sources};
use ipnet::IpNet;
use manx_crds::acceptance::{self, Refusal};
use manx_crds::community::{self, Resolved};
use manx_crds::v1alpha1::{
    Community, FabricConfiguration, FilterAction, FilterRule, PrefixMatch, RouteChanges, RouteMatch,
    RouteSource,
};

use crate::objects::Objects;

/// What a peer's filters say, in each direction.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    pub(crate) import: Filter,
    pub(crate) export: Filter,
}

impl Filters {
    /// The peer with them.
    pub(crate) fn put_into(self, mut peer: PeerConfig) -> PeerConfig {
        (peer.import.filter, peer.export.filter) = (self.import, self.export);
        peer
    }
}

/// The filters of these names, in this order.
pub(crate) fn filters(
    names: &[String],
    objects: &Objects,
    configuration: Option<&FabricConfiguration>,
) -> Result<Filters, Refusal> {
    let (mut import, mut export) = (Vec::new(), Vec::new());
    for name in names {
        let Some(filter) = objects.filters.named(name) else {
            return Err(acceptance::filter_not_found(name));
        };
        acceptance::bgp_filter(filter, configuration).map_err(|refusal| Refusal {
            message: format!("spec.filters: BGPFilter {name} is not accepted: {}", refusal.message),
            ..refusal
        })?;
        import.extend(rules(name, "import", filter.spec.import.as_deref(), configuration));
        export.extend(rules(name, "export", filter.spec.export.as_deref(), configuration));
    }
    Ok(Filters { import: import.into_iter().collect(), export: export.into_iter().collect() })
}

fn rules(
    filter: &str,
    direction: &str,
    rules: Option<&[FilterRule]>,
    configuration: Option<&FabricConfiguration>,
) -> Vec<Rule> {
    let all = rules.unwrap_or_default().iter().enumerate();
    all.filter_map(|(index, rule)| {
        let name: Arc<str> = match &rule.name {
            Some(name) => format!("BGPFilter {filter} {direction} {name:?}").into(),
            None => format!("BGPFilter {filter} {direction} rule {index}").into(),
        };
        let action = match rule.action {
            FilterAction::Accept => Action::Accept,
            FilterAction::Reject => Action::Reject,
            FilterAction::Continue => Action::Continue,
            // acceptance::bgp_filter refuses the whole filter.
            FilterAction::Unknown(_) => return None,
        };
        let matches = rule.matching.as_ref().map(|one| matches(one, configuration)).unwrap_or_default();
        let changes = rule.set.as_ref().map(|one| changes(one, configuration)).unwrap_or_default();
        Some(Rule { name, matches, action, changes })
    })
    .collect()
}

fn matches(of: &RouteMatch, configuration: Option<&FabricConfiguration>) -> Match {
    let path = of.as_path.clone().unwrap_or_default();
    let (communities, large_communities) = split(&of.communities, configuration);
    Match {
        prefixes: of.prefixes.iter().map(range).collect(),
        sources: of.sources.iter().filter_map(source).collect::<Sources>(),
        communities: communities.into_iter().collect(),
        large_communities: large_communities.into_iter().collect(),
        path_starts_with: path.starts_with.iter().map(|asn| Asn(asn.0)).collect(),
        origin_asn: path.origin_asn.map(|asn| Asn(asn.0)),
        path_max_length: path.max_length.map(u32::from),
        next_hops: of.next_hops.iter().map(|cidr| cidr.net()).collect::<Vec<IpNet>>(),
    }
}

fn range(of: &PrefixMatch) -> PrefixRange {
    let (min_length, max_length) = of.lengths();
    PrefixRange { net: of.cidr.net(), min_length, max_length }
}

/// `None`: a newer schema's, which acceptance refuses.
fn source(of: &RouteSource) -> Option<Source> {
    match of {
        RouteSource::Block => Some(Source::Block),
        RouteSource::BorrowedAddress => Some(Source::BorrowedAddress),
        RouteSource::Service => Some(Source::Service),
        RouteSource::Static => Some(Source::Static),
        RouteSource::NodeAddress => Some(Source::NodeAddress),
        RouteSource::Internal => Some(Source::Internal),
        RouteSource::External => Some(Source::External),
        RouteSource::Unknown(_) => None,
    }
}

fn changes(of: &RouteChanges, configuration: Option<&FabricConfiguration>) -> Changes {
    let (add, add_large) = split(&of.add_communities, configuration);
    let (remove, remove_large) = split(&of.remove_communities, configuration);
    Changes {
        local_pref: of.local_preference,
        med: of.med,
        remove_communities: remove.into_iter().collect(),
        add_communities: add.into_iter().collect(),
        remove_large_communities: remove_large.into_iter().collect(),
        add_large_communities: add_large.into_iter().collect(),
        prepend: of.prepend.iter().map(|asn| Asn(asn.0)).collect(),
    }
}

/// The communities of RFC 1997, and those of RFC 8092.
fn split(of: &[Community], configuration: Option<&FabricConfiguration>) -> (Vec<u32>, Vec<[u32; 3]>) {
    let (mut standard, mut large) = (Vec::new(), Vec::new());
    for community in of {
        match community::resolve(community, configuration) {
            Some(Resolved::Standard(value)) => standard.push(value),
            Some(Resolved::Large(value)) => large.push(value),
            // acceptance::bgp_filter refuses the whole filter.
            None => {}
        }
    }
    (standard, large)
}

#[cfg(test)]
mod tests {
    use manx_crds::v1alpha1::BGPFilter;

    use super::*;

    fn objects(filters: &[&str]) -> Objects {
        let mut objects = Objects::default();
        for filter in filters {
            let filter: BGPFilter = serde_saphyr::from_str(filter).unwrap();
            objects.take(crate::objects::Change::Filter(manx_crds::store::follow::Change::Put(filter)));
        }
        objects
    }

    const FROM_TOR: &str = "{apiVersion: manx.dev/v1alpha1, kind: BGPFilter, metadata: {name: from-tor}, spec: {
        import: [{name: backup-path, match: {communities: ['65012:666', '1:2:3', no-export]}, action: Continue,
                  set: {localPreference: 50, addCommunities: [graceful-shutdown], removeCommunities: ['1:2:3'], prepend: [64513, 64514]}},
                 {match: {prefixes: [{cidr: 0.0.0.0/0, maxLength: 0}, {cidr: 10.96.0.0/12, minLength: 24}],
                          asPath: {startsWith: [65012], originASN: 65000, maxLength: 3}, nextHops: [10.0.0.0/8]},
                  action: Accept},
                 {action: Reject}]}}";
    const TO_TOR: &str = "{apiVersion: manx.dev/v1alpha1, kind: BGPFilter, metadata: {name: to-tor}, spec: {
        export: [{match: {sources: [BorrowedAddress, Internal]}, action: Reject}]}}";

    #[test]
    fn rules_come_in_the_order_of_the_filters_and_are_named_as_people_know_them() {
        let objects = objects(&[FROM_TOR, TO_TOR]);
        let Filters { import, export } =
            filters(&["to-tor".into(), "from-tor".into()], &objects, None).unwrap();
        let names: Vec<&str> = import.rules().iter().chain(export.rules()).map(|rule| &*rule.name).collect();
        assert_eq!(
            names,
            [
                "BGPFilter from-tor import \"backup-path\"",
                "BGPFilter from-tor import rule 1",
                "BGPFilter from-tor import rule 2",
                "BGPFilter to-tor export rule 0"
            ]
        );
        let [first, second, third] = import.rules() else { panic!("{import:?}") };
        assert_eq!(first.action, Action::Continue);
        assert_eq!(first.matches.communities, [65012 << 16 | 666, 0xFFFF_FF01].into());
        assert_eq!(first.matches.large_communities, [[1, 2, 3]].into());
        let changes = Changes {
            local_pref: Some(50),
            add_communities: [0xFFFF_0000].into(),
            remove_large_communities: [[1, 2, 3]].into(),
            prepend: vec![Asn(64513), Asn(64514)],
            ..Changes::default()
        };
        assert_eq!(first.changes, changes);
        let lengths: Vec<_> =
            second.matches.prefixes.iter().map(|one| (one.min_length, one.max_length)).collect();
        assert_eq!(lengths, [(0, 0), (24, 32)]);
        assert_eq!(second.matches.path_starts_with, [Asn(65012)]);
        assert_eq!((second.matches.origin_asn, second.matches.path_max_length), (Some(Asn(65000)), Some(3)));
        assert_eq!(second.matches.next_hops, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
        assert_eq!((third.action, &third.matches), (Action::Reject, &Match::default()));
        let [only] = export.rules() else { panic!("{export:?}") };
        assert_eq!(only.matches.sources, [Source::BorrowedAddress, Source::Internal].into_iter().collect());
    }

    #[test]
    fn a_filter_that_is_not_there_or_not_understood_gives_none() {
        let newer = "{apiVersion: manx.dev/v1alpha1, kind: BGPFilter, metadata: {name: newer}, spec: {import: [{action: Defer}]}}";
        let named = "{apiVersion: manx.dev/v1alpha1, kind: BGPFilter, metadata: {name: named}, spec: {
            import: [{match: {communities: [from-k8s]}, action: Reject}]}}";
        let objects = objects(&[newer, named]);
        for (name, reason, text) in [
            ("missing", "BGPFilterNotFound", "there is no BGPFilter missing"),
            ("newer", "UnknownValue", "BGPFilter newer is not accepted: spec.import[0].action \"Defer\""),
            ("named", "UnknownCommunity", "BGPFilter named is not accepted: spec.import[0]: from-k8s"),
        ] {
            let refusal = filters(&[name.to_owned()], &objects, None).unwrap_err();
            assert_eq!(refusal.reason, reason, "{name}");
            assert!(refusal.message.contains(text), "{name}: {}", refusal.message);
        }
    }
}
