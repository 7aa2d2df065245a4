use super::*;
use std::time::Duration as Span;

fn session(yaml: &str) -> Session {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn nothing_set_gives_what_is_built_in() {
    let effective = EffectiveSession::inherit(None, None);
    assert_eq!(effective.hold, Span::from_secs(30));
    assert_eq!(effective.keepalive, Span::from_secs(10));
    assert_eq!(effective.connect_retry, Span::from_secs(5));
    assert_eq!(effective.restart_time, Span::from_secs(120));
    assert_eq!(effective.long_lived_stale_time, Span::ZERO);
    assert_eq!((effective.max_prefixes_ipv4, effective.max_prefixes_ipv6), (50_000, 50_000));
    assert_eq!(effective.restart_after, Span::from_secs(900));
    assert_eq!(effective.auth, None);
}

#[test]
fn each_leaf_comes_from_the_first_that_sets_it() {
    let own = session("{timers: {keepalive: 4s}, maxPrefixes: {ipv4: 7}}");
    let fabric =
        session("{timers: {hold: 9s, keepalive: 2s}, maxPrefixes: {ipv4: 1, ipv6: 8}, bfdProfile: fast}");
    let effective = EffectiveSession::inherit(Some(&own), Some(&fabric));
    assert_eq!((effective.hold, effective.keepalive), (Span::from_secs(9), Span::from_secs(4)));
    assert_eq!((effective.max_prefixes_ipv4, effective.max_prefixes_ipv6), (7, 8));
    assert_eq!(effective.bfd_profile.as_deref(), Some("fast"));
}

#[test]
fn a_keepalive_left_at_or_above_hold_becomes_a_third() {
    let own = session("{timers: {hold: 9s}}");
    let fabric = session("{timers: {hold: 90s, keepalive: 30s}}");
    assert_eq!(EffectiveSession::inherit(Some(&own), Some(&fabric)).keepalive, Span::from_secs(3));
}

#[test]
fn an_empty_profile_ends_inheritance_and_auth_has_none() {
    let own = session("{bfdProfile: ''}");
    let fabric = session("{bfdProfile: fast, auth: {md5: {secretRef: {name: a, key: b}}}}");
    let effective = EffectiveSession::inherit(Some(&own), Some(&fabric));
    assert_eq!((effective.bfd_profile, effective.auth), (None, None));
}
