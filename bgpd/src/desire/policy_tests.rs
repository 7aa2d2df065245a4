//! Filters, drain and next-hop modes: from the objects to the policies of a peer.

use super::tests::{of, peer, put, told};
use super::*;
use crate::objects::Change;
use bgp_proto::policy::{Source, Sources};

const FILTER: &str = "{apiVersion: manx.dev/v1alpha1, kind: BGPFilter, metadata: {name: from-tor}, spec: {
    import: [{name: no-pods, match: {prefixes: [{cidr: 10.244.0.0/16}]}, action: Reject}], export: [{action: Accept}]}}";

fn tor(spec: &str) -> Change {
    put(Change::Peer, &peer("tor-a", &format!("address: 10.0.1.1, asn: 65001, {spec}")))
}

fn config_of(desire: &Desire) -> Option<&PeerConfig> {
    desire.speaker.as_ref().unwrap().peers.get(&PeerName::from("tor-a"))
}

fn rules(config: &PeerConfig) -> Vec<String> {
    let rules = config.import.filter.rules().iter().chain(config.export.filter.rules());
    rules.map(|rule| rule.name.to_string()).collect()
}

const RULES: [&str; 2] = ["BGPFilter from-tor import \"no-pods\"", "BGPFilter from-tor export rule 0"];

#[test]
fn a_peer_has_the_filters_that_it_names() {
    let desire = of(vec![put(Change::Filter, FILTER), tor("filters: [from-tor]")]);
    assert_eq!(rules(config_of(&desire).unwrap()), RULES);
    assert!(desire.refused.is_empty(), "{:?}", desire.refused);
}

/// api.md law 6.
#[test]
fn a_filter_that_refers_to_nothing_starts_no_session_and_takes_none_away() {
    let missing = of(vec![tor("filters: [from-tor]")]);
    let refusal = missing.refused["tor-a"].clone();
    assert_eq!(refusal.reason, "BGPFilterNotFound");
    assert!(
        refusal.message.starts_with("spec.filters: there is no BGPFilter from-tor: create it"),
        "{refusal:?}"
    );

    let fresh = missing.or_last_good(&Desire::default());
    assert_eq!(config_of(&fresh), None, "never wider than asked for");

    let good = of(vec![put(Change::Filter, FILTER), tor("filters: [from-tor]")]);
    let kept = of(vec![tor("filters: [from-tor], transit: true")]).or_last_good(&good);
    let config = config_of(&kept).unwrap();
    assert_eq!(rules(config), RULES, "the last good filters");
    assert!(config.export.transit, "and the rest as it is said now");
    assert_eq!(kept.refused["tor-a"].reason, "BGPFilterNotFound");
    let still = of(vec![tor("filters: [from-tor]")]).or_last_good(&kept);
    assert_eq!(rules(config_of(&still).unwrap()), RULES);
    let healed = of(vec![put(Change::Filter, FILTER), tor("filters: [from-tor]")]).or_last_good(&still);
    assert_eq!(healed, good);
}

#[test]
fn a_drained_node_drains_every_session_and_a_drained_peer_its_own() {
    let node = "{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {name: n1}, spec: {adminState: Drained}}";
    let drained = of(vec![put(Change::FabricNode, node), tor("")]);
    assert!(config_of(&drained).unwrap().export.drained && drained.is_drained);
    assert_eq!(config_of(&drained).unwrap().admin, AdminState::Up, "the session stays");
    let one = of(vec![tor("adminState: Drained, adminMessage: fan swap")]);
    assert!(config_of(&one).unwrap().export.drained && !one.is_drained);
    assert!(!config_of(&of(vec![tor("")])).unwrap().export.drained);
}

#[test]
fn the_next_hop_is_as_the_peer_says() {
    for (text, mode) in [("Auto", NextHopMode::Auto), ("Self", NextHopMode::Own), ("Keep", NextHopMode::Keep)]
    {
        let desire = of(vec![tor(&format!("nextHop: {text}, allowOwnASN: 2, localASN: 65009"))]);
        let config = config_of(&desire).unwrap();
        assert_eq!(config.export.next_hop, mode);
        assert_eq!((config.import.allow_own_asn, config.local_asn), (2, Some(Asn(65009))));
    }
}

#[test]
fn what_is_originated_says_where_it_comes_from() {
    let advertise = |name: &str, spec: &str| {
        put(
            Change::Advertisement,
            &format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: BGPAdvertisement, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
            ),
        )
    };
    let desire = of(vec![
        tor(""),
        advertise("blocks", "pools: {}"),
        advertise("node", "nodeAddresses: {}"),
        advertise("anycast", "prefixes: [{cidr: 198.51.100.53/32}, {cidr: 10.0.0.11/32}]"),
    ]);
    let told = told(&desire);
    let sources = |prefix: &str| told[&prefix.parse::<IpNet>().unwrap()][0].sources;
    assert_eq!(sources("10.244.0.0/26"), Source::Block.into());
    assert_eq!(sources("198.51.100.53/32"), Source::Static.into());
    let both: Sources = [Source::Static, Source::NodeAddress].into_iter().collect();
    assert_eq!(sources("10.0.0.11/32"), both);
}
