use std::net::Ipv4Addr;

use super::*;
use crate::decision::BestPathReason;
use crate::route::FibRoute;
use crate::types::{Asn, RouterId};
use crate::wire::attr::{self, code};
use crate::wire::{nlri, update};

mod paths;
mod policy;

const OWN_AS: u32 = 64512;
const V4: AfiSafi = AfiSafi::Ipv4Unicast;

fn rib() -> Rib {
    let mut config = RibConfig::new(Asn(OWN_AS), RouterId(Ipv4Addr::new(10, 0, 0, 99)), 1);
    config.unknown_next_hops = UnknownNextHops::Reachable;
    Rib::new(config)
}

/// The peer of this number is in AS 65000 + number at 192.0.2.number.
fn facts(number: u8) -> PeerFacts {
    PeerFacts {
        next_hop_ipv4: Some(Ipv4Addr::new(203, 0, 113, 9)),
        next_hop_ipv6: Some("2001:db8::9".parse().unwrap()),
        export: ExportPolicy::new(true),
        tags: [Tag(1)].into(),
        ..PeerFacts::new(
            Asn(65000 + u32::from(number)),
            Asn(OWN_AS),
            RouterId(Ipv4Addr::new(10, 0, 0, number)),
            IpAddr::from([192, 0, 2, number]),
        )
    }
}

/// Peers 1 to `count`, each up and past its initial table.
fn rib_with(count: u8) -> Rib {
    let mut rib = rib();
    for number in 1..=count {
        rib.peer_up(peer(number), facts(number));
        settle(&mut rib);
        heard(&mut rib, number);
    }
    rib
}

fn peer(number: u8) -> PeerId {
    PeerId(u16::from(number))
}

fn settle(rib: &mut Rib) {
    while rib.drain() {}
    rib.check_invariants().unwrap();
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// The peer announces a prefix: its own AS, then `further` ones; `padding` octets of an attribute nobody knows.
fn announce_padded(
    rib: &mut Rib,
    number: u8,
    prefix: &str,
    further: &[u32],
    padding: usize,
) -> UpdateOutcome {
    let asns = [&[65000 + u32::from(number)], further].concat();
    let mut path = vec![2, u8::try_from(asns.len()).unwrap()];
    path.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    let mut list = Vec::new();
    attr::put(&mut list, 0x40, code::ORIGIN, &[0]);
    attr::put(&mut list, 0x40, code::AS_PATH, &path);
    attr::put(&mut list, 0x40, code::NEXT_HOP, &[192, 0, 2, number]);
    if padding > 0 {
        attr::put(&mut list, 0xC0, 99, &vec![0; padding]);
    }
    let mut body = [&[0, 0][..], &u16::try_from(list.len()).unwrap().to_be_bytes(), &list].concat();
    let prefix = net(prefix);
    let (address, len) = <u32 as crate::wire::nlri::Address>::of(&prefix).unwrap();
    nlri::put(&mut body, address, len);
    rib.update(peer(number), &body)
}

fn announce(rib: &mut Rib, number: u8, prefix: &str, further: &[u32]) {
    let outcome = announce_padded(rib, number, prefix, further, 0);
    assert!(outcome.faults.is_empty(), "{:?}", outcome.faults);
}

/// What a peer was sent, in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    announced: Vec<String>,
    withdrawn: Vec<String>,
    ends: Vec<AfiSafi>,
}

fn heard(rib: &mut Rib, number: u8) -> Heard {
    let mut heard = Heard::default();
    let mut stream = Vec::new();
    while let Some(bytes) = rib.poll_transmit(peer(number)) {
        let length = bytes.len();
        stream.extend_from_slice(bytes);
        rib.transmitted(peer(number), length);
    }
    let mut rest = &stream[..];
    while let Some(length) = update::message_length(rest) {
        let fields = update::split(&rest[update::HEADER..length]).unwrap();
        heard.ends.extend(update::end_of_rib(&fields));
        nlri::each(fields.nlri, |a: u32, len| {
            heard.announced.push(nlri::Address::prefix(a, len).to_string())
        });
        nlri::each(fields.withdrawn, |a: u32, len| {
            heard.withdrawn.push(nlri::Address::prefix(a, len).to_string());
        });
        rest = &rest[length..];
    }
    heard
}

fn told(announced: &[&str], withdrawn: &[&str]) -> Heard {
    let owned = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
    Heard { announced: owned(announced), withdrawn: owned(withdrawn), ends: vec![] }
}

/// The changed kernel routes: prefix and next hops by their last octet; none: the route goes.
fn fib(rib: &mut Rib) -> Vec<(String, Option<Vec<u8>>)> {
    let octet = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    let hops = |route: FibRoute| route.next_hops.iter().map(octet).collect();
    let changes = std::iter::from_fn(|| rib.poll_fib());
    changes.map(|change| (change.prefix.to_string(), change.route.map(hops))).collect()
}

fn one(prefix: &str, next_hops: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
    vec![(prefix.to_owned(), (!next_hops.is_empty()).then(|| next_hops.to_vec()))]
}

const NET: &str = "10.244.1.0/24";

#[test]
fn where_nobody_writes_routes_none_are_kept_ready() {
    let feeds_fib = false;
    let mut rib = Rib::new(RibConfig { feeds_fib, ..rib().core.config });
    rib.peer_up(peer(1), facts(1));
    rib.peer_up(peer(2), facts(2));
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    assert_eq!((fib(&mut rib), heard(&mut rib, 2).announced), (vec![], vec![NET.to_owned()]));
    rib.peer_down(peer(1), &[].into());
    settle(&mut rib);
    assert_eq!((fib(&mut rib), heard(&mut rib, 2).withdrawn), (vec![], vec![NET.to_owned()]));
    assert_eq!(rib.size(V4), (0, 0));
}

#[test]
fn paths_of_equal_length_share_the_traffic_whatever_is_in_them() {
    let mut rib = rib_with(3);
    announce(&mut rib, 1, NET, &[70001]);
    announce(&mut rib, 2, NET, &[70002]);
    announce(&mut rib, 3, NET, &[70003, 70004]);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1, 2]));
    let statuses: Vec<PathStatus> = rib.paths_to(&net(NET)).iter().map(|path| path.status).collect();
    assert!(statuses.contains(&PathStatus::Best(BestPathReason::RouterId)), "{statuses:?}");
    assert!(statuses.contains(&PathStatus::Multipath), "{statuses:?}");
    assert!(statuses.contains(&PathStatus::Beaten(BestPathReason::AsPathLength)), "{statuses:?}");
    rib.set_max_paths(1);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1]));
    rib.peer_down(peer(1), &BTreeSet::new());
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[2]));
}

#[test]
fn a_route_of_our_own_wins_and_leaves_the_kernel_alone() {
    let mut rib = rib_with(2);
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1]));
    assert_eq!((heard(&mut rib, 1), heard(&mut rib, 2)), (told(&[], &[]), told(&[NET], &[])));

    let exports = [(Tag(1), OriginAttributes::default())].into();
    rib.originate(&net(NET), Origination { exports });
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[]));
    assert_eq!((heard(&mut rib, 1), heard(&mut rib, 2)), (told(&[NET], &[]), told(&[NET], &[])));

    rib.originate(&net(NET), Origination::default());
    settle(&mut rib);
    assert_eq!(fib(&mut rib), [], "told to nobody, it still wins");
    assert_eq!((heard(&mut rib, 1), heard(&mut rib, 2)), (told(&[], &[NET]), told(&[], &[NET])));

    assert!(rib.withdraw_origination(&net(NET)) && !rib.withdraw_origination(&net(NET)));
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1]));
    assert_eq!((heard(&mut rib, 1), heard(&mut rib, 2)), (told(&[], &[]), told(&[NET], &[])));
}

/// RFC 4724 §4.2.
#[test]
fn stale_paths_stay_in_use_until_swept() {
    let mut rib = rib_with(2);
    let other = "10.244.2.0/24";
    announce(&mut rib, 1, NET, &[]);
    announce(&mut rib, 1, other, &[]);
    settle(&mut rib);
    fib(&mut rib);
    heard(&mut rib, 2);
    rib.peer_down(peer(1), &[V4].into());
    settle(&mut rib);
    assert_eq!((fib(&mut rib), heard(&mut rib, 2)), (vec![], told(&[], &[])));
    assert_eq!(rib.counts(peer(1), V4), Counts { received: 2, accepted: 2, stale: 2 });

    rib.peer_up(peer(1), facts(1));
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    assert_eq!(rib.counts(peer(1), V4).stale, 1);
    assert_eq!(rib.sweep_stale(peer(1), V4), 1);
    settle(&mut rib);
    assert_eq!((fib(&mut rib), heard(&mut rib, 2)), (one(other, &[]), told(&[], &[other])));
    assert_eq!(rib.counts(peer(1), V4), Counts { received: 1, accepted: 1, stale: 0 });
}

#[test]
fn a_session_that_comes_back_with_another_import_policy_judges_stale_paths_anew() {
    let mut rib = rib_with(1);
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1]));
    rib.peer_down(peer(1), &[V4].into());
    rib.peer_up(peer(1), PeerFacts { import: ImportPolicy::default(), ..facts(1) });
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[]));
    assert_eq!(rib.counts(peer(1), V4), Counts { received: 1, accepted: 0, stale: 1 });
}

/// A path that was stale already goes when the session is lost again.
#[test]
fn a_second_loss_keeps_nothing_that_was_not_heard_again() {
    let mut rib = rib_with(1);
    announce(&mut rib, 1, NET, &[]);
    for stays in [1, 0] {
        rib.peer_down(peer(1), &[V4].into());
        settle(&mut rib);
        assert_eq!(rib.counts(peer(1), V4).received, stays);
        rib.peer_up(peer(1), facts(1));
    }
}

#[test]
fn the_initial_table_ends_with_end_of_rib_in_each_family() {
    let mut rib = rib_with(1);
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    rib.peer_up(peer(2), facts(2));
    settle(&mut rib);
    assert!(!rib.initial_table_sent(peer(2), V4));
    let ends = AfiSafi::ALL.to_vec();
    assert_eq!(heard(&mut rib, 2), Heard { ends, ..told(&[NET], &[]) });
    assert!(AfiSafi::ALL.into_iter().all(|family| rib.initial_table_sent(peer(2), family)));
}

/// RFC 4724 §4.1.
#[test]
fn a_deferred_table_says_nothing() {
    let mut rib = rib();
    rib.defer_selection(true);
    rib.peer_up(peer(1), facts(1));
    rib.peer_up(peer(2), facts(2));
    announce(&mut rib, 1, NET, &[]);
    assert!(!rib.drain());
    assert_eq!((fib(&mut rib), heard(&mut rib, 2)), (vec![], Heard::default()));
    rib.defer_selection(false);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1]));
    assert_eq!(heard(&mut rib, 2), Heard { ends: AfiSafi::ALL.to_vec(), ..told(&[NET], &[]) });
}

/// RFC 2918.
#[test]
fn a_refresh_tells_everything_again_to_one_peer() {
    let mut rib = rib_with(3);
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    (2..=3).for_each(|number| drop(heard(&mut rib, number)));
    rib.refresh(peer(2), V4);
    assert_eq!(heard(&mut rib, 2), told(&[NET], &[]), "without a second End-of-RIB");
    assert_eq!(heard(&mut rib, 3), told(&[], &[]));
    rib.refresh(peer(1), V4);
    assert_eq!(heard(&mut rib, 1), told(&[], &[]), "its own route is not told to it");
}

#[test]
fn a_slow_peer_leaves_the_log_and_hears_of_the_present_later() {
    let mut rib = rib_with(3);
    while rib.poll_event().is_some() {}
    rib.set_backlog(5_000);
    let prefixes: Vec<String> = (0..1500).map(|at| format!("10.{}.{}.0/24", at / 256, at % 256)).collect();
    for (step, chunk) in (0..).zip(prefixes.chunks(50)) {
        for (prefix, asn) in chunk.iter().zip(70_000 + step * 50..) {
            announce(&mut rib, 1, prefix, &[asn]);
        }
        settle(&mut rib);
        heard(&mut rib, 2);
    }
    let fell = |event| matches!(event, RibEvent::PeerFellBehind { peer: PeerId(3), .. });
    assert!(std::iter::from_fn(|| rib.poll_event()).any(fell));
    // One UPDATE each, some 60 octets: more than one chunk of the log, whose chunks go as a whole.
    assert!(rib.backlog(peer(3)) < 66_000, "the log is bounded: {}", rib.backlog(peer(3)));
    rib.peer_down(peer(1), &BTreeSet::new());
    announce(&mut rib, 2, &prefixes[0], &[]);
    settle(&mut rib);
    let late = heard(&mut rib, 3);
    assert_eq!(late.announced, [prefixes[0].clone()], "one is left, from another peer");
    let withdrawn: BTreeSet<String> = late.withdrawn.into_iter().collect();
    assert_eq!(withdrawn, prefixes[1..].iter().cloned().collect());
}

#[test]
fn attributes_that_outgrow_a_message_are_withdrawn_and_reported() {
    let mut rib = rib_with(2);
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    assert_eq!(heard(&mut rib, 2), told(&[NET], &[]));
    while rib.poll_event().is_some() {}
    // 4,068 octets of attributes came in; our AS in front makes them too long for any prefix.
    let outcome = announce_padded(&mut rib, 1, NET, &[], 4068 - 4 - 9 - 7 - 4);
    assert!(outcome.faults.is_empty());
    settle(&mut rib);
    assert_eq!(heard(&mut rib, 2), told(&[], &[NET]));
    assert_eq!(rib.counts(peer(1), V4).accepted, 1, "for us it is a route like any");
    let events: Vec<RibEvent> = std::iter::from_fn(|| rib.poll_event()).collect();
    let [RibEvent::AttributesTooLong { peers, prefixes, example, length }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(peers.contains(&peer(2)) && *length > 4068, "{events:?}");
    assert_eq!((*prefixes, *example), (1, net(NET)));
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    assert_eq!(heard(&mut rib, 2), told(&[NET], &[]));
}

#[test]
fn a_next_hop_that_goes_takes_its_routes_along() {
    let mut rib = rib_with(2);
    announce(&mut rib, 1, NET, &[]);
    announce(&mut rib, 2, NET, &[70000]);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1]));
    let address = IpAddr::from([192, 0, 2, 1]);
    rib.set_next_hop(address, None);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[2]));
    rib.set_next_hop(address, Some(NextHopResolution { metric: 0, interface: 2 }));
    settle(&mut rib);
    assert_eq!(fib(&mut rib), one(NET, &[1]));
}

#[test]
fn a_changed_import_policy_runs_over_what_was_kept() {
    let mut rib = rib_with(2);
    rib.set_import(peer(1), ImportPolicy::default());
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    assert_eq!((fib(&mut rib), heard(&mut rib, 2)), (vec![], told(&[], &[])));
    assert_eq!(rib.counts(peer(1), V4), Counts { received: 1, accepted: 0, stale: 0 });
    rib.set_import(peer(1), ImportPolicy { within: [net("10.0.0.0/8")].into(), ..ImportPolicy::default() });
    settle(&mut rib);
    assert_eq!((fib(&mut rib), heard(&mut rib, 2)), (one(NET, &[1]), told(&[NET], &[])));
}

/// RFC 7705: whoever is told another number of ours hands it on, and where it comes back nobody finds our own one in it.
#[test]
fn a_path_that_came_by_us_again_and_again_under_another_number_is_a_loop() {
    let mut rib = rib_with(1);
    let alias = 65500;
    rib.set_aliases([Asn(alias)].into());
    let loops = PathStatus::Rejected(crate::policy::ImportRejection::AsPathLoop);
    for (times, is_loop) in [(1, false), (16, false), (17, true), (100, true)] {
        announce(&mut rib, 1, NET, &vec![alias; times]);
        settle(&mut rib);
        assert_eq!(rib.paths_to(&net(NET))[0].status == loops, is_loop, "{times}");
    }
    rib.set_aliases(BTreeSet::new());
    settle(&mut rib);
    assert_ne!(rib.paths_to(&net(NET))[0].status, loops);
}

/// RFC 4271 §9.1.2.
#[test]
fn a_path_with_our_as_in_it_is_kept_as_rejected() {
    let mut rib = rib_with(1);
    announce(&mut rib, 1, NET, &[OWN_AS]);
    settle(&mut rib);
    let status = PathStatus::Rejected(crate::policy::ImportRejection::AsPathLoop);
    assert_eq!(rib.paths_to(&net(NET)).iter().map(|path| path.status).collect::<Vec<_>>(), [status]);
    assert_eq!(fib(&mut rib), []);
}
