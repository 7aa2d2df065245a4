//! Filters, drain and next-hop modes, as the table acts on them.

use super::*;
use crate::policy::{
    Action, Changes, Filter, GRACEFUL_SHUTDOWN, ImportRejection, Match, NO_PEER, NextHopMode, PrefixRange,
    Rule, Source,
};
use crate::wire::Role;

const OTHER: &str = "10.244.2.0/24";

fn within(text: &str) -> Match {
    let net = net(text);
    let prefixes = vec![PrefixRange { net, min_length: net.prefix_len(), max_length: net.max_prefix_len() }];
    Match { prefixes, ..Match::default() }
}

fn filter(rules: &[(Match, Action, Changes)]) -> Filter {
    let rules = rules.iter().enumerate();
    let named = rules.map(|(at, (matches, action, changes))| Rule {
        name: format!("rule {at}").into(),
        matches: matches.clone(),
        action: *action,
        changes: changes.clone(),
    });
    named.collect()
}

fn prefer(local_pref: u32) -> Changes {
    Changes { local_pref: Some(local_pref), ..Changes::default() }
}

fn carry(rib: &mut Rib, number: u8, prefix: &str, communities: &[u32]) {
    let asn = 65000 + u32::from(number);
    let mut list = Vec::new();
    attr::put(&mut list, 0x40, code::ORIGIN, &[0]);
    attr::put(&mut list, 0x40, code::AS_PATH, &[&[2, 1][..], &asn.to_be_bytes()].concat());
    attr::put(&mut list, 0x40, code::NEXT_HOP, &[192, 0, 2, number]);
    let value: Vec<u8> = communities.iter().flat_map(|one| one.to_be_bytes()).collect();
    attr::put(&mut list, 0xC0, code::COMMUNITIES, &value);
    let mut body = [&[0, 0][..], &u16::try_from(list.len()).unwrap().to_be_bytes(), &list].concat();
    let (address, len) = <u32 as nlri::Address>::of(&net(prefix)).unwrap();
    nlri::put(&mut body, address, len);
    let outcome = rib.update(peer(number), &body);
    assert!(outcome.faults.is_empty(), "{:?}", outcome.faults);
}

fn sent(rib: &Rib, number: u8, prefix: &str) -> Vec<u8> {
    let told = rib.adj_rib_out(peer(number), V4);
    told.into_iter().find(|route| route.prefix == net(prefix)).expect(prefix).attributes
}

fn path_of(attributes: &[u8]) -> Vec<u32> {
    let path = attr::find(attributes, code::AS_PATH).unwrap();
    crate::wire::as_path::sequence(path).map(|asn| asn.0).collect()
}

#[test]
fn a_rule_takes_what_the_default_refuses_but_never_what_may_not_enter() {
    let mut rib = rib_with(1);
    let never = [net("10.244.7.0/26")].into();
    let everything = filter(&[(Match::default(), Action::Accept, Changes::default())]);
    rib.set_import(peer(1), ImportPolicy { never, filter: everything, ..ImportPolicy::default() });
    for prefix in ["198.51.100.0/24", "0.0.0.0/0", "10.244.7.8/32"] {
        announce(&mut rib, 1, prefix, &[]);
    }
    announce(&mut rib, 1, "203.0.113.0/24", &[OWN_AS]);
    settle(&mut rib);
    let taken: Vec<String> = fib(&mut rib).into_iter().map(|(prefix, _)| prefix).collect();
    assert_eq!(taken, ["198.51.100.0/24", "0.0.0.0/0"]);
    let status = |prefix: &str| rib.paths_to(&net(prefix))[0].clone();
    assert_eq!(status("10.244.7.8/32").status, PathStatus::Rejected(ImportRejection::OwnBlock));
    assert_eq!(status("203.0.113.0/24").status, PathStatus::Rejected(ImportRejection::AsPathLoop));
    assert_eq!(status("0.0.0.0/0").rule.as_deref(), Some("rule 0"));
}

/// RFC 8212: without a policy nothing enters and nothing learned leaves; what we do by default is a policy.
#[test]
fn an_external_peer_without_a_policy_gives_and_gets_nothing() {
    let mut rib = rib_with(1);
    let nothing = PeerFacts { import: ImportPolicy::default(), export: ExportPolicy::default(), ..facts(2) };
    rib.peer_up(peer(2), PeerFacts { tags: BTreeSet::new(), ..nothing });
    rib.originate(
        &net("10.244.9.0/24"),
        Origination { exports: [(Tag(1), OriginAttributes::default())].into() },
    );
    announce(&mut rib, 1, NET, &[]);
    announce(&mut rib, 2, OTHER, &[]);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1]));
    assert_eq!(heard(&mut rib, 2), Heard { ends: AfiSafi::ALL.to_vec(), ..told(&[], &[]) });
}

#[test]
fn a_changed_import_filter_touches_what_it_changes_alone() {
    let mut rib = rib_with(3);
    for number in [1, 2] {
        announce(&mut rib, number, NET, &[]);
        announce(&mut rib, number, OTHER, &[]);
    }
    settle(&mut rib);
    heard(&mut rib, 3);
    fib(&mut rib);
    let rules = filter(&[(within(NET), Action::Continue, prefer(200))]);
    rib.set_import(peer(2), ImportPolicy { filter: rules, ..ImportPolicy::accept_all() });
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[2]), "local preference decides before the router id");
    assert_eq!(heard(&mut rib, 3), told(&[NET], &[]));
    rib.set_import(peer(2), ImportPolicy::accept_all());
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1, 2]));
    let reject = filter(&[(within(NET), Action::Reject, Changes::default())]);
    rib.set_import(peer(2), ImportPolicy { filter: reject, ..ImportPolicy::accept_all() });
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1]));
    let views = rib.paths_to(&net(NET));
    let rejected = views.iter().find(|view| view.peer == Some(peer(2))).unwrap();
    assert_eq!(rejected.status, PathStatus::Rejected(ImportRejection::Filter));
    assert_eq!(rejected.rule.as_deref(), Some("rule 0"));
}

/// A peer that says LOCAL_PREF with the very bytes that a filter made does not get what the filter gives.
#[test]
fn no_peer_can_say_what_a_filter_says() {
    let mut rib = rib_with(2);
    let rules = filter(&[(Match::default(), Action::Accept, prefer(900))]);
    rib.set_import(peer(1), ImportPolicy { filter: rules, ..ImportPolicy::accept_all() });
    announce(&mut rib, 1, NET, &[]);
    let made = rib.paths_to(&net(NET))[0].attributes.clone();
    assert_eq!(attr::find(&made, code::LOCAL_PREF), Some(&[0, 0, 3, 132][..]));
    rib.set_import(peer(1), ImportPolicy::accept_all());
    let mut body = [&[0, 0][..], &u16::try_from(made.len()).unwrap().to_be_bytes(), &made].concat();
    nlri::put(&mut body, 0x0AF4_0200, 24);
    let outcome = rib.update(peer(1), &body);
    assert_eq!(outcome.faults.len(), 1, "LOCAL_PREF from an external peer");
    settle(&mut rib);
    assert_eq!(rib.paths_to(&net(OTHER))[0].local_pref, 100);
}

#[test]
fn a_changed_export_filter_tells_the_differences_alone() {
    let mut rib = rib_with(2);
    let prefixes: Vec<String> = (0..9_000).map(|at| format!("10.{}.{}.0/24", at / 256, at % 256)).collect();
    prefixes.iter().for_each(|prefix| announce(&mut rib, 1, prefix, &[]));
    settle(&mut rib);
    assert_eq!(heard(&mut rib, 2).announced.len(), 9_000);
    let mark = Changes { add_communities: [0xFDE9_0001].into(), ..Changes::default() };
    let rules = filter(&[
        (within("10.1.1.0/24"), Action::Reject, Changes::default()),
        (within("10.2.0.0/16"), Action::Accept, mark),
    ]);
    rib.set_export(peer(2), ExportPolicy { filter: rules, ..ExportPolicy::new(true) });
    settle(&mut rib);
    let changed = heard(&mut rib, 2);
    assert_eq!(changed.withdrawn, ["10.1.1.0/24"]);
    assert_eq!(changed.announced.len(), 256);
    assert!(changed.announced.iter().all(|prefix| prefix.starts_with("10.2.")));
    assert_eq!(attr::find(&sent(&rib, 2, "10.2.7.0/24"), code::COMMUNITIES), Some(&[0xFD, 0xE9, 0, 1][..]));
    rib.set_export(peer(2), ExportPolicy::new(true));
    settle(&mut rib);
    let changed = heard(&mut rib, 2);
    assert_eq!((changed.announced.len(), changed.withdrawn.len()), (257, 0));
    assert_eq!(changed.ends, [], "no second End-of-RIB");
}

#[test]
fn what_a_walk_had_still_to_tell_is_told_after_a_change_too() {
    let mut rib = rib_with(1);
    let prefixes: Vec<String> = (0..9_000).map(|at| format!("10.{}.{}.0/24", at / 256, at % 256)).collect();
    prefixes.iter().for_each(|prefix| announce(&mut rib, 1, prefix, &[]));
    settle(&mut rib);
    rib.peer_up(peer(2), facts(2));
    settle(&mut rib);
    // The first stretch of the initial table is read, no more.
    let length = rib.poll_transmit(peer(2)).unwrap().len();
    rib.transmitted(peer(2), length);
    let reject = filter(&[(within("10.1.1.0/24"), Action::Reject, Changes::default())]);
    rib.set_export(peer(2), ExportPolicy { filter: reject, ..ExportPolicy::new(true) });
    settle(&mut rib);
    let rest = heard(&mut rib, 2);
    assert!(
        rest.announced.len() < 9_000 && rest.announced.contains(&prefixes[8_999]),
        "{}",
        rest.announced.len()
    );
    assert_eq!(rib.advertised(peer(2), V4), 8_999);
    assert_eq!(rest.ends, AfiSafi::ALL.to_vec());
}

#[test]
fn rules_see_where_a_route_of_our_own_comes_from() {
    let mut rib = rib();
    let rules = filter(&[(
        Match { sources: Source::BorrowedAddress.into(), ..Match::default() },
        Action::Reject,
        Changes::default(),
    )]);
    rib.peer_up(
        peer(1),
        PeerFacts { export: ExportPolicy { filter: rules, ..ExportPolicy::default() }, ..facts(1) },
    );
    for (prefix, source) in [(NET, Source::Block), ("10.244.9.9/32", Source::BorrowedAddress)] {
        let attributes = OriginAttributes { sources: source.into(), ..OriginAttributes::default() };
        rib.originate(&net(prefix), Origination { exports: [(Tag(1), attributes)].into() });
    }
    settle(&mut rib);
    assert_eq!(heard(&mut rib, 1).announced, [NET]);
}

/// A peer cannot be told what does not fit; it is told so far as it is, and somebody hears of it.
#[test]
fn what_prepending_makes_too_long_is_withdrawn_and_reported() {
    let mut rib = rib_with(2);
    // Our AS in front, and 4 octets are left.
    let outcome = announce_padded(&mut rib, 1, NET, &[], 4096 - 23 - 4 - 9 - 7 - 4 - 4 - 4 - 4);
    assert!(outcome.faults.is_empty());
    settle(&mut rib);
    assert_eq!(heard(&mut rib, 2), told(&[NET], &[]));
    while rib.poll_event().is_some() {}
    let twice = Changes { prepend: vec![Asn(OWN_AS), Asn(OWN_AS)], ..Changes::default() };
    let rules = filter(&[(Match::default(), Action::Accept, twice)]);
    rib.set_export(peer(2), ExportPolicy { filter: rules, ..ExportPolicy::new(true) });
    settle(&mut rib);
    assert_eq!(heard(&mut rib, 2), told(&[], &[NET]));
    let events: Vec<RibEvent> = std::iter::from_fn(|| rib.poll_event()).collect();
    // Moving a peer withdraws what it is told no more; what would be told and is not is reported with it.
    assert!(
        events.iter().any(
            |event| matches!(event, RibEvent::AttributesTooLong { example, .. } if *example == net(NET))
        ),
        "{events:?}"
    );
    rib.set_export(peer(2), ExportPolicy::new(true));
    settle(&mut rib);
    assert_eq!(heard(&mut rib, 2), told(&[NET], &[]));
}

#[test]
fn export_rules_prepend_behind_our_own_as_and_set_a_med() {
    let mut rib = rib_with(2);
    announce(&mut rib, 1, NET, &[70001]);
    let changes = Changes { prepend: vec![Asn(64513), Asn(64514)], med: Some(7), ..Changes::default() };
    let rules = filter(&[(Match::default(), Action::Continue, changes)]);
    let export = ExportPolicy { filter: rules, ..ExportPolicy::new(true) };
    rib.set_export(peer(2), export.clone());
    rib.peer_up(peer(3), PeerFacts { remote_asn: Asn(OWN_AS), export, ..facts(3) });
    settle(&mut rib);
    let external = sent(&rib, 2, NET);
    assert_eq!(path_of(&external), [OWN_AS, 64513, 64514, 65001, 70001]);
    assert_eq!(attr::find(&external, code::MULTI_EXIT_DISC), Some(&[0, 0, 0, 7][..]));
    heard(&mut rib, 3);
    assert_eq!(path_of(&sent(&rib, 3, NET)), [64513, 64514, 65001, 70001]);
}

/// RFC 8326 §4.1 and §4.3.
#[test]
fn a_drained_peer_is_told_so_with_everything_and_keeps_its_session() {
    let mut rib = rib_with(2);
    rib.peer_up(peer(3), PeerFacts { remote_asn: Asn(OWN_AS), ..facts(3) });
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    (2..=3).for_each(|number| drop(heard(&mut rib, number)));
    for number in [2, 3] {
        rib.set_export(peer(number), ExportPolicy { drained: true, ..ExportPolicy::new(true) });
        settle(&mut rib);
        assert_eq!(heard(&mut rib, number), told(&[NET], &[]), "told again, not withdrawn");
        let communities = attr::find(&sent(&rib, number, NET), code::COMMUNITIES).map(<[u8]>::to_vec);
        assert_eq!(communities, Some(GRACEFUL_SHUTDOWN.to_be_bytes().to_vec()));
    }
    assert_eq!(attr::find(&sent(&rib, 2, NET), code::LOCAL_PREF), None);
    assert_eq!(attr::find(&sent(&rib, 3, NET), code::LOCAL_PREF), Some(&[0, 0, 0, 0][..]));
}

/// RFC 8326 §3.2, §4.1.
#[test]
fn a_route_that_is_about_to_go_is_the_last_choice() {
    let mut rib = rib_with(2);
    carry(&mut rib, 1, NET, &[1, GRACEFUL_SHUTDOWN]);
    announce(&mut rib, 2, NET, &[70001, 70002]);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[2]), "the longer path");
    let prefer_it = filter(&[(Match::default(), Action::Accept, prefer(900))]);
    rib.set_import(peer(1), ImportPolicy { filter: prefer_it, ..ImportPolicy::accept_all() });
    settle(&mut rib);
    assert_eq!(fib(&mut rib), [], "whatever a rule prefers");
    let undo = Changes { remove_communities: [GRACEFUL_SHUTDOWN].into(), ..Changes::default() };
    let rules = filter(&[(Match::default(), Action::Accept, undo)]);
    rib.set_import(peer(1), ImportPolicy { filter: rules, ..ImportPolicy::accept_all() });
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1]));
}

/// RFC 1997, RFC 3765.
#[test]
fn learned_routes_go_no_further_than_their_communities_allow() {
    for (community, to_external, to_internal, to_lateral) in [
        (0xFFFF_FF01, false, true, false),
        (0xFFFF_FF02, false, false, false),
        (NO_PEER, true, true, false),
        (0xFDE9_0001, true, true, true),
    ] {
        let mut rib = rib_with(2);
        rib.peer_up(peer(3), PeerFacts { remote_asn: Asn(OWN_AS), ..facts(3) });
        rib.peer_up(peer(4), PeerFacts { role: Some(Role::Peer), ..facts(4) });
        carry(&mut rib, 1, NET, &[community]);
        settle(&mut rib);
        let told = [2, 3, 4].map(|number| heard(&mut rib, number).announced.len() == 1);
        assert_eq!(told, [to_external, to_internal, to_lateral], "{community:x}");
    }
}

#[test]
fn the_next_hop_is_ours_or_a_third_partys() {
    let mut rib = rib_with(2);
    rib.peer_up(peer(3), PeerFacts { remote_asn: Asn(OWN_AS), ..facts(3) });
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    let (ours, theirs) = ([203, 0, 113, 9], [192, 0, 2, 1]);
    for (mode, external, internal) in [
        (NextHopMode::Auto, ours, theirs),
        (NextHopMode::Own, ours, ours),
        (NextHopMode::Keep, theirs, theirs),
    ] {
        for (number, expected) in [(2, external), (3, internal)] {
            rib.set_export(peer(number), ExportPolicy { next_hop: mode, ..ExportPolicy::new(true) });
            settle(&mut rib);
            heard(&mut rib, number);
            assert_eq!(attr::find(&sent(&rib, number, NET), code::NEXT_HOP), Some(&expected[..]), "{mode:?}");
        }
    }
}

#[test]
fn what_filters_make_too_long_on_import_is_refused_and_named() {
    let mut rib = rib_with(1);
    let add_large_communities = (0..6_000).map(|at| [64512, 0, at]).collect();
    let changes = Changes { add_large_communities, ..Changes::default() };
    let rules = filter(&[(Match::default(), Action::Accept, changes)]);
    rib.set_import(peer(1), ImportPolicy { filter: rules, ..ImportPolicy::accept_all() });
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    let status = PathStatus::Rejected(ImportRejection::AttributesTooLong);
    assert_eq!(rib.paths_to(&net(NET))[0].status, status);
    assert_eq!(fib(&mut rib), []);
}
