//! Who is told what of whom beside plain eBGP and iBGP: route reflection (RFC 4456), roles (RFC 9234), long-lived stale
//! routes (RFC 9494).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod updates;

use std::net::IpAddr;

use bgp_proto::policy::{ExportPolicy, ImportRejection};
use bgp_proto::rib::{OriginAttributes, Origination, PathStatus, PeerFacts, Rib, Tag};
use bgp_proto::wire::Role;
use bgp_proto::wire::attr::{self, be32, code};
use bgp_proto::{AfiSafi, PeerId};
use ipnet::IpNet;
use updates::{More, OWN_AS, announce, facts, path, rib, settle, transmitted};

const V4: AfiSafi = AfiSafi::Ipv4Unicast;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A table whose peers are numbered as in the list.
fn with(peers: Vec<PeerFacts>) -> Rib {
    let mut rib = rib(OWN_AS, [10, 9, 9, 9]);
    for (number, facts) in peers.into_iter().enumerate() {
        rib.peer_up(PeerId(u16::try_from(number).unwrap()), facts);
    }
    rib
}

fn update(rib: &mut Rib, number: u16, prefix: &str, asns: &[u32], more: &More) {
    let next_hop = IpAddr::from([192, 0, 2, 77]);
    let outcome = rib.update(PeerId(number), &announce(&[net(prefix)], next_hop, &path(asns, true), more));
    assert!(outcome.faults.is_empty(), "{:?}", outcome.faults);
    settle(rib);
    rib.check_invariants().unwrap();
}

/// What a peer is told of a prefix.
fn told(rib: &Rib, number: u16, prefix: &str) -> Option<Vec<u8>> {
    let mut routes = rib.adj_rib_out(PeerId(number), V4).into_iter();
    routes.find(|route| route.prefix == net(prefix)).map(|route| route.attributes)
}

fn find(attributes: &Option<Vec<u8>>, code: u8) -> Option<Vec<u8>> {
    attr::find(attributes.as_ref()?, code).map(<[u8]>::to_vec)
}

// ---- RFC 4456

/// Its routes are kept over a restart, and meanwhile it became a client, or is none any more.
#[test]
fn rfc4456_6_stale_routes_are_those_of_what_the_peer_is_now() {
    let of = |number: u8, reflector_client| PeerFacts {
        reflector_client,
        export: ExportPolicy::default(),
        ..facts(number, OWN_AS)
    };
    for several in [false, true] {
        let mut other = of(2, false);
        if several {
            other.add_path_send = [V4].into();
            other.paths_sent = 2;
        }
        let mut rib = with(vec![of(1, false), other]);
        update(&mut rib, 0, "10.1.0.0/24", &[70_000], &local_pref());
        assert_eq!(told(&rib, 1, "10.1.0.0/24"), None);
        for client in [true, false] {
            rib.peer_down(PeerId(0), &[V4].into());
            rib.peer_up(PeerId(0), of(1, client));
            settle(&mut rib);
            rib.check_invariants().unwrap();
            assert_eq!(told(&rib, 1, "10.1.0.0/24").is_some(), client);
            update(&mut rib, 0, "10.1.0.0/24", &[70_000], &local_pref());
            assert_eq!(told(&rib, 1, "10.1.0.0/24").is_some(), client);
        }
    }
}

/// Under a running session: everybody is told what a speaker would tell that was configured so from the start.
#[test]
fn rfc4456_6_a_peer_becomes_a_client_and_is_none_any_more() {
    let of = |number: u8, reflector_client, several| {
        let mut facts =
            PeerFacts { reflector_client, export: ExportPolicy::default(), ..facts(number, OWN_AS) };
        if several {
            (facts.add_path_send, facts.paths_sent) = ([V4].into(), 2);
        }
        facts
    };
    let everything = |rib: &Rib| {
        let all = (0..4).map(|number| {
            let told = rib.adj_rib_out(PeerId(number), V4).into_iter();
            told.map(|route| (route.prefix, route.attributes)).collect::<Vec<_>>()
        });
        all.collect::<Vec<_>>()
    };
    let tell = |rib: &mut Rib| {
        update(rib, 0, "10.1.0.0/24", &[70_000], &local_pref());
        update(rib, 1, "10.2.0.0/24", &[70_000], &local_pref());
        update(rib, 1, "10.1.0.0/24", &[70_000, 70_001], &local_pref());
    };
    for several in [false, true] {
        let fresh = |client| {
            let mut rib = with((1..5).map(|number| of(number, number == 1 && client, several)).collect());
            tell(&mut rib);
            rib
        };
        let mut rib = fresh(false);
        for client in [true, false, true] {
            rib.set_reflector_client(PeerId(0), client);
            settle(&mut rib);
            // What differs for the peer itself is told as it reads.
            (0..4).for_each(|number| _ = transmitted(&mut rib, PeerId(number)));
            rib.check_invariants().unwrap();
            assert_eq!(everything(&rib), everything(&fresh(client)), "several: {several}, client: {client}");
            assert_eq!(told(&rib, 2, "10.1.0.0/24").is_some(), client);
            assert_eq!(told(&rib, 0, "10.2.0.0/24").is_some(), client);
        }
    }
}

/// Two clients, two others of our AS, an external peer, an external peer that is told nothing but what is ours.
fn reflector() -> Rib {
    let internal = |number, reflector_client| PeerFacts {
        reflector_client,
        export: ExportPolicy::default(),
        ..facts(number, OWN_AS)
    };
    with(vec![
        internal(1, true),
        internal(2, true),
        internal(3, false),
        internal(4, false),
        facts(5, 65005),
        PeerFacts { export: ExportPolicy::default(), ..facts(6, 65006) },
    ])
}

fn local_pref() -> More {
    vec![(0x40, code::LOCAL_PREF, vec![0, 0, 0, 100])]
}

#[test]
fn rfc4456_6_from_clients_to_all_from_others_to_clients() {
    let mut rib = reflector();
    update(&mut rib, 0, "10.1.0.0/24", &[], &local_pref());
    update(&mut rib, 2, "10.3.0.0/24", &[], &local_pref());
    update(&mut rib, 4, "10.5.0.0/24", &[65005], &vec![]);
    let told_by = |prefix| (0..6).filter(|number| told(&rib, *number, prefix).is_some()).collect::<Vec<_>>();
    // Peers 4 (it alone takes transit) and 5 are external.
    assert_eq!(told_by("10.1.0.0/24"), [1, 2, 3, 4]);
    assert_eq!(told_by("10.3.0.0/24"), [0, 1, 4]);
    assert_eq!(told_by("10.5.0.0/24"), [0, 1]);
}

#[test]
fn rfc4456_8_a_reflected_route_says_who_brought_it_and_by_which_clusters() {
    let mut rib = reflector();
    update(&mut rib, 0, "10.1.0.0/24", &[65077], &local_pref());
    let reflected = told(&rib, 1, "10.1.0.0/24");
    assert_eq!(find(&reflected, code::ORIGINATOR_ID), Some(vec![10, 0, 0, 1]));
    assert_eq!(find(&reflected, code::CLUSTER_LIST), Some(vec![10, 9, 9, 9]));
    assert_eq!(find(&reflected, code::NEXT_HOP), Some(vec![192, 0, 2, 77]), "unchanged (RFC 4456 §10)");
    assert_eq!(find(&reflected, code::AS_PATH), Some(path(&[65077], true)));
    // Behind another reflector: the originator stays, our cluster stands before the others.
    let mut more = local_pref();
    more.push((0x80, code::ORIGINATOR_ID, vec![10, 0, 0, 88]));
    more.push((0x80, code::CLUSTER_LIST, vec![10, 8, 8, 8]));
    update(&mut rib, 2, "10.3.0.0/24", &[], &more);
    let reflected = told(&rib, 1, "10.3.0.0/24");
    assert_eq!(find(&reflected, code::ORIGINATOR_ID), Some(vec![10, 0, 0, 88]));
    assert_eq!(find(&reflected, code::CLUSTER_LIST), Some(vec![10, 9, 9, 9, 10, 8, 8, 8]));
    // Outside of the AS neither means anything.
    let outside = told(&rib, 4, "10.3.0.0/24");
    assert_eq!((find(&outside, code::ORIGINATOR_ID), find(&outside, code::CLUSTER_LIST)), (None, None));
    assert!(outside.is_some());
}

#[test]
fn rfc4456_8_what_has_passed_this_cluster_is_not_taken_again() {
    let mut rib = reflector();
    let mut more = local_pref();
    more.push((0x80, code::CLUSTER_LIST, vec![10, 8, 8, 8, 10, 9, 9, 9]));
    update(&mut rib, 2, "10.3.0.0/24", &[], &more);
    let status: Vec<_> = rib.paths_to(&net("10.3.0.0/24")).iter().map(|view| view.status).collect();
    assert_eq!(status, [PathStatus::Rejected(ImportRejection::ClusterLoop)]);
}

#[test]
fn a_route_of_our_own_is_not_reflected_but_told() {
    let mut rib = reflector();
    let exports = [(Tag(1), OriginAttributes::default())].into();
    rib.originate(&net("10.9.0.0/24"), Origination { exports });
    settle(&mut rib);
    let own = told(&rib, 0, "10.9.0.0/24");
    assert!(own.is_some());
    assert_eq!((find(&own, code::ORIGINATOR_ID), find(&own, code::CLUSTER_LIST)), (None, None));
}

// ---- RFC 9234

/// One external peer for each role of ours, in their order; a sixth without.
fn roles() -> Rib {
    let roles = Role::ALL.into_iter().map(Some).chain([None]);
    let peer = |(at, role)| PeerFacts { role, ..facts(at, 65000 + u32::from(at)) };
    with((1..).zip(roles).map(peer).collect())
}

fn otc(asn: u32) -> More {
    vec![(0xC0, code::ONLY_TO_CUSTOMER, asn.to_be_bytes().to_vec())]
}

#[test]
fn rfc9234_5_ingress_leaks_are_rejected_and_what_comes_from_above_is_marked() {
    for (at, role) in (0u16..).zip(Role::ALL) {
        let peer = 65001 + u32::from(at);
        for (marked, what) in [(None, "none"), (Some(peer), "the peer's"), (Some(65099), "another's")] {
            let mut rib = roles();
            update(&mut rib, at, "10.1.0.0/24", &[peer], &marked.map(otc).unwrap_or_default());
            let view = rib.paths_to(&net("10.1.0.0/24")).remove(0);
            let leaks = match role {
                Role::Provider | Role::RouteServer => marked.is_some(),
                Role::Peer => marked == Some(65099),
                Role::Customer | Role::RouteServerClient => false,
            };
            let rejected = view.status == PathStatus::Rejected(ImportRejection::RouteLeak);
            assert_eq!(rejected, leaks, "our role {role:?}, ONLY_TO_CUSTOMER {what}");
            let from_above = matches!(role, Role::Customer | Role::RouteServerClient | Role::Peer);
            let held = attr::find(&view.attributes, code::ONLY_TO_CUSTOMER).map(be32);
            assert_eq!(held, marked.or(from_above.then_some(peer)), "our role {role:?}, {what}");
        }
    }
}

#[test]
fn rfc9234_5_egress_what_came_from_above_goes_down_only() {
    let mut rib = roles();
    // From our provider: peer 3 is the one towards whom we are the customer.
    update(&mut rib, 3, "10.1.0.0/24", &[65004], &vec![]);
    let told_by = |rib: &Rib, prefix| (0..6).filter(|n| told(rib, *n, prefix).is_some()).collect::<Vec<_>>();
    assert_eq!(told_by(&rib, "10.1.0.0/24"), [0, 1, 5], "our customer, our clients, and who has no role");
    for number in [0, 1, 5] {
        let marked = find(&told(&rib, number, "10.1.0.0/24"), code::ONLY_TO_CUSTOMER);
        assert_eq!(marked, Some(65004u32.to_be_bytes().to_vec()), "kept as it was marked");
    }
    // From our customer: to everybody, marked where it goes down or sideways.
    update(&mut rib, 0, "10.2.0.0/24", &[65001], &vec![]);
    assert_eq!(told_by(&rib, "10.2.0.0/24"), [1, 2, 3, 4, 5]);
    for number in [1, 2, 3, 4, 5] {
        let marked = find(&told(&rib, number, "10.2.0.0/24"), code::ONLY_TO_CUSTOMER).map(|v| be32(&v));
        let expected = matches!(number, 1 | 4).then_some(OWN_AS);
        assert_eq!(marked, expected, "peer {number}");
    }
}

#[test]
fn rfc9234_5_routes_of_our_own_are_marked_as_well() {
    let mut rib = roles();
    let exports = [(Tag(1), OriginAttributes::default())].into();
    rib.originate(&net("10.9.0.0/24"), Origination { exports });
    settle(&mut rib);
    for (number, role) in (0..).zip(Role::ALL) {
        let marked = find(&told(&rib, number, "10.9.0.0/24"), code::ONLY_TO_CUSTOMER).map(|v| be32(&v));
        let down = matches!(role, Role::Provider | Role::RouteServer | Role::Peer);
        assert_eq!(marked, down.then_some(OWN_AS), "our role {role:?}");
    }
}

// ---- RFC 9494

#[test]
fn rfc9494_4_3_long_lived_stale_routes_are_the_last_choice_and_told_to_those_who_know_them() {
    let knows = |number, long_lived| PeerFacts { long_lived, ..facts(number, 65000 + u32::from(number)) };
    let mut rib = with(vec![knows(1, true), knows(2, true), knows(3, true), knows(4, false)]);
    let stale = vec![(0xC0, code::COMMUNITIES, vec![0xFF, 0xFF, 0, 6])];
    update(&mut rib, 0, "10.1.0.0/24", &[65001], &stale);
    let told_by = |rib: &Rib| (0..4).filter(|n| told(rib, *n, "10.1.0.0/24").is_some()).collect::<Vec<_>>();
    assert_eq!(told_by(&rib), [1, 2]);
    // A longer path that is alive is better.
    update(&mut rib, 1, "10.1.0.0/24", &[65002, 65077, 65078], &vec![]);
    assert_eq!(told_by(&rib), [0, 2, 3]);
    let alive = rib.paths_to(&net("10.1.0.0/24"));
    let best = alive.iter().find(|view| matches!(view.status, PathStatus::Best(_))).unwrap();
    assert_eq!((best.peer, best.as_path_len), (Some(PeerId(1)), 3));
    // Their peer gone for long, the two are alike again and the shorter path wins.
    rib.peer_down(PeerId(1), &[V4].into());
    settle(&mut rib);
    rib.keep_long_lived(PeerId(1), V4);
    settle(&mut rib);
    rib.check_invariants().unwrap();
    assert_eq!(told_by(&rib), [2]);
    assert_eq!(find(&told(&rib, 2, "10.1.0.0/24"), code::COMMUNITIES), Some(vec![0xFF, 0xFF, 0, 6]));
}
