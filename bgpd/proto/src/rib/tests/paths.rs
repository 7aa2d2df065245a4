//! Several paths per prefix (RFC 7911): each promise in a few lines. The long histories are `tests/rib_model`.

use super::*;
use crate::wire::nlri::{Address, Nlri};
use crate::wire::verdict::{ErrorAction, subcode};

/// A peer that tells several paths, and is told `paths`; 0: the best one.
fn adding(number: u8, paths: u8) -> PeerFacts {
    PeerFacts {
        add_path_receive: AfiSafi::ALL.into(),
        add_path_send: if paths == 0 { BTreeSet::new() } else { AfiSafi::ALL.into() },
        paths_sent: paths,
        ..facts(number)
    }
}

fn up(rib: &mut Rib, facts: PeerFacts, number: u8) {
    rib.peer_up(peer(number), facts);
    settle(rib);
    heard_paths(rib, number);
}

fn named(prefix: &str, id: u32) -> (u32, u8, u32) {
    let (address, len) = u32::of(&net(prefix)).unwrap();
    (address, len, id)
}

/// The peer announces paths of prefixes with one set: its AS, then `further`, by the next hop 192.0.2.`hop`.
fn announce_paths(
    rib: &mut Rib,
    number: u8,
    hop: u8,
    further: &[u32],
    paths: &[(&str, u32)],
) -> UpdateOutcome {
    announce_as(rib, number, number, hop, further, paths)
}

/// The same by a peer that is in the AS of number `of`.
fn announce_as(
    rib: &mut Rib,
    number: u8,
    of: u8,
    hop: u8,
    further: &[u32],
    paths: &[(&str, u32)],
) -> UpdateOutcome {
    let asns = [&[65000 + u32::from(of)], further].concat();
    let mut path = vec![2, u8::try_from(asns.len()).unwrap()];
    path.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    let mut list = Vec::new();
    attr::put(&mut list, 0x40, code::ORIGIN, &[0]);
    attr::put(&mut list, 0x40, code::AS_PATH, &path);
    attr::put(&mut list, 0x40, code::NEXT_HOP, &[192, 0, 2, hop]);
    let mut body = [&[0, 0][..], &u16::try_from(list.len()).unwrap().to_be_bytes(), &list].concat();
    paths.iter().for_each(|(prefix, id)| named(prefix, *id).put(&mut body));
    rib.update(peer(number), &body)
}

fn withdraw_paths(rib: &mut Rib, number: u8, paths: &[(&str, u32)]) {
    let mut field = Vec::new();
    paths.iter().for_each(|(prefix, id)| named(prefix, *id).put(&mut field));
    let length = u16::try_from(field.len()).unwrap().to_be_bytes();
    let body = [&length[..], &field, &[0, 0]].concat();
    assert!(rib.update(peer(number), &body).faults.is_empty());
}

/// A prefix and the identifier of a path.
type Named = (String, u32);

/// What a peer that is told several paths was sent: announced and withdrawn.
fn heard_paths(rib: &mut Rib, number: u8) -> (Vec<Named>, Vec<Named>) {
    let (mut announced, mut withdrawn, mut stream) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(bytes) = rib.poll_transmit(peer(number)) {
        let length = bytes.len();
        stream.extend_from_slice(bytes);
        rib.transmitted(peer(number), length);
    }
    let ids = rib.core.peer(peer(number)).unwrap().facts.add_path_send.contains(&V4);
    let mut rest = &stream[..];
    while let Some(length) = update::message_length(rest) {
        let fields = update::split(&rest[update::HEADER..length]).unwrap();
        let owned = |a: u32, len, id| (a.prefix(len).to_string(), id);
        nlri::each_path(fields.nlri, ids, |a, len, id| announced.push(owned(a, len, id)));
        nlri::each_path(fields.withdrawn, ids, |a, len, id| withdrawn.push(owned(a, len, id)));
        rest = &rest[length..];
    }
    announced.sort_unstable();
    (announced, withdrawn)
}

const NET: &str = "10.1.0.0/24";

fn ids_of(rib: &Rib, paths: &[(u8, u32)]) -> Vec<Named> {
    let one = |(number, id): &(u8, u32)| (NET.to_owned(), rib.identifier_of(Some(peer(*number)), *id));
    let mut ids: Vec<_> = paths.iter().map(one).collect();
    ids.sort_unstable();
    ids
}

/// RFC 7911 §5: a path is replaced and withdrawn by its identifier; 0 is one like others.
#[test]
fn paths_of_one_peer_stand_beside_each_other() {
    let mut rib = rib();
    up(&mut rib, adding(1, 0), 1);
    announce_paths(&mut rib, 1, 1, &[], &[(NET, 0)]);
    announce_paths(&mut rib, 1, 2, &[], &[(NET, 7)]);
    announce_paths(&mut rib, 1, 3, &[7, 8], &[(NET, u32::MAX)]);
    settle(&mut rib);
    assert_eq!(rib.counts(peer(1), V4).received, 3);
    let ids: Vec<_> = rib.paths_to(&net(NET)).iter().map(|view| view.path_id).collect();
    assert_eq!(rib.paths(V4, None).iter().map(|view| view.path_id).collect::<Vec<_>>(), {
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted
    });
    assert_eq!(fib(&mut rib), [(NET.to_owned(), Some(vec![1, 2]))]);
    // The same identifier: the path before is replaced.
    announce_paths(&mut rib, 1, 4, &[], &[(NET, 7)]);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), [(NET.to_owned(), Some(vec![1, 4]))]);
    // One not seen before is ignored.
    withdraw_paths(&mut rib, 1, &[(NET, 9)]);
    assert!(!rib.is_dirty());
    withdraw_paths(&mut rib, 1, &[(NET, 0), (NET, 7)]);
    settle(&mut rib);
    assert_eq!(fib(&mut rib), [(NET.to_owned(), Some(vec![3]))]);
    rib.peer_down(peer(1), &BTreeSet::new());
    settle(&mut rib);
    // A prefix stays until the kernel was told that it is gone.
    assert_eq!(fib(&mut rib), [(NET.to_owned(), None)]);
    assert_eq!((rib.size(V4), rib.attribute_sets()), ((0, 0), 0));
}

/// RFC 4724, RFC 7313: what is not told again goes, path by path.
#[test]
fn a_restart_and_a_refresh_sweep_path_by_path() {
    let mut rib = rib();
    up(&mut rib, adding(1, 0), 1);
    let tell = |rib: &mut Rib, ids: &[u32]| {
        ids.iter().for_each(|id| _ = announce_paths(rib, 1, 1, &[], &[(NET, *id)]));
        settle(rib);
    };
    tell(&mut rib, &[1, 2, 3]);
    rib.begin_refresh(peer(1), V4);
    tell(&mut rib, &[1, 3]);
    assert_eq!(rib.sweep_stale(peer(1), V4), 1);
    settle(&mut rib);
    rib.peer_down(peer(1), &[V4].into());
    rib.peer_up(peer(1), adding(1, 0));
    tell(&mut rib, &[3, 4]);
    let counts = rib.counts(peer(1), V4);
    assert_eq!((counts.received, counts.stale), (3, 1));
    assert_eq!(rib.sweep_stale(peer(1), V4), 1);
    settle(&mut rib);
    let ids: BTreeSet<_> = rib.paths_to(&net(NET)).iter().filter_map(|view| view.path_id).collect();
    assert_eq!(ids, [3, 4].into());
}

/// RFC 9494 §4.2, §4.3.
#[test]
fn long_lived_stale_paths_are_the_last_choice_each() {
    let mut rib = rib();
    up(&mut rib, adding(1, 0), 1);
    announce_paths(&mut rib, 1, 1, &[], &[(NET, 1)]);
    announce_paths(&mut rib, 1, 2, &[], &[(NET, 2)]);
    rib.peer_down(peer(1), &[V4].into());
    rib.keep_long_lived(peer(1), V4);
    rib.peer_up(peer(1), adding(1, 0));
    announce_paths(&mut rib, 1, 3, &[7], &[(NET, 2)]);
    settle(&mut rib);
    assert_eq!(fib(&mut rib).last(), Some(&(NET.to_owned(), Some(vec![3]))));
}

/// RFC 7911 §3: every path under an identifier of ours, which names it as long as it lives.
#[test]
fn the_best_paths_are_told_under_identifiers_that_stay() {
    let mut rib = rib();
    for number in 1..=3 {
        up(&mut rib, facts(number), number);
    }
    up(&mut rib, adding(9, 2), 9);
    announce(&mut rib, 3, NET, &[7, 8]);
    announce(&mut rib, 2, NET, &[7]);
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 9), (ids_of(&rib, &[(2, 0), (3, 0)]), vec![]));
    // A better one takes the place of the worst: that one is withdrawn, and nothing is said of the other.
    announce(&mut rib, 1, NET, &[]);
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 9), (ids_of(&rib, &[(1, 0)]), ids_of(&rib, &[(3, 0)])));
    // What changes is told under its identifier, and the order of the two changes nothing.
    announce(&mut rib, 1, NET, &[7, 8]);
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 9), (ids_of(&rib, &[(1, 0)]), vec![]));
    rib.peer_down(peer(2), &BTreeSet::new());
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 9), (ids_of(&rib, &[(3, 0)]), ids_of(&rib, &[(2, 0)])));
    assert_eq!(rib.advertised(peer(9), V4), 2);
    let shown: Vec<_> = rib.adj_rib_out(peer(9), V4).iter().map(|route| route.path_id).collect();
    assert_eq!(shown.len(), 2);
    assert!(shown.iter().all(Option::is_some));
}

/// The best of those that may be told: a peer's own is not told to it, and takes the place of another all the same.
#[test]
fn a_peer_is_not_told_its_own_paths() {
    let mut rib = rib();
    up(&mut rib, adding(1, 3), 1);
    up(&mut rib, adding(2, 3), 2);
    announce_paths(&mut rib, 1, 1, &[], &[(NET, 5)]);
    announce_paths(&mut rib, 1, 1, &[7], &[(NET, 6)]);
    announce_paths(&mut rib, 2, 2, &[8], &[(NET, 5)]);
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 1).0, ids_of(&rib, &[(2, 5)]));
    assert_eq!(heard_paths(&mut rib, 2).0, ids_of(&rib, &[(1, 5), (1, 6)]));
}

/// Our own route is the best one; others follow it. Whoever is not told it is told the others.
#[test]
fn our_own_route_and_learned_ones() {
    let mut rib = rib();
    up(&mut rib, facts(1), 1);
    up(&mut rib, adding(8, 2), 8);
    up(&mut rib, PeerFacts { tags: [Tag(3)].into(), ..adding(9, 2) }, 9);
    announce(&mut rib, 1, NET, &[]);
    let exports =
        BTreeMap::from([(Tag(1), OriginAttributes::default()), (Tag(2), OriginAttributes::default())]);
    rib.originate(&net(NET), Origination { exports });
    settle(&mut rib);
    let (mut both, own) = (ids_of(&rib, &[(1, 0)]), (NET.to_owned(), rib.identifier_of(None, 0)));
    assert_eq!(heard_paths(&mut rib, 9).0, both);
    both.push(own.clone());
    both.sort_unstable();
    assert_eq!(heard_paths(&mut rib, 8).0, both);
    rib.withdraw_origination(&net(NET));
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 8), (vec![], vec![own]));
}

#[test]
fn more_or_fewer_paths_are_told_hot() {
    let mut rib = rib();
    for number in 1..=3 {
        up(&mut rib, facts(number), number);
        announce(&mut rib, number, NET, &[]);
    }
    settle(&mut rib);
    rib.peer_up(peer(9), adding(9, 3));
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 9).0, ids_of(&rib, &[(1, 0), (2, 0), (3, 0)]));
    rib.set_paths_sent(peer(9), 1);
    settle(&mut rib);
    let (announced, withdrawn) = heard_paths(&mut rib, 9);
    assert_eq!((announced.len(), withdrawn.len()), (1, 2));
    rib.set_paths_sent(peer(9), 2);
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 9).1, []);
    assert_eq!(rib.advertised(peer(9), V4), 2);
}

/// Identifiers depend on whose path it is, not on when it came or as what number the peer is known here.
#[test]
fn identifiers_are_a_function_of_the_path() {
    let mut rib = rib();
    rib.peer_up(peer(1), facts(1));
    rib.peer_up(peer(2), facts(2));
    let before = rib.identifier_of(Some(peer(1)), 4);
    let all: BTreeSet<u32> = (0..70_000).map(|id| rib.identifier_of(Some(peer(1)), id)).collect();
    assert_eq!(all.len(), 70_000, "two paths of one peer under one identifier");
    assert_ne!(rib.identifier_of(Some(peer(2)), 4), before);
    rib.remove_peer(peer(1));
    rib.peer_up(peer(5), facts(1));
    assert_eq!(rib.identifier_of(Some(peer(5)), 4), before);
    rib.peer_up(peer(5), PeerFacts { router_id: RouterId(Ipv4Addr::new(10, 0, 0, 77)), ..facts(1) });
    assert_ne!(rib.identifier_of(Some(peer(5)), 4), before);
}

/// A neighbour on an interface: the index of that is another one after a reboot. One router on two links, with one address on both, is
/// one source of identifiers, and of its paths the better one is told, like where identifiers meet by chance.
#[test]
fn identifiers_do_not_depend_on_the_interface() {
    let on = |interface, last: u8| {
        let address = crate::link_local::scoped("fe80::1".parse().unwrap(), interface);
        PeerFacts {
            address: IpAddr::V6(address),
            router_id: RouterId(Ipv4Addr::new(10, 0, 0, last)),
            ..adding(1, 0)
        }
    };
    let mut rib = rib();
    up(&mut rib, on(3, 1), 1);
    let before = rib.identifier_of(Some(peer(1)), 4);
    rib.peer_down(peer(1), &BTreeSet::new());
    up(&mut rib, on(4, 1), 2);
    assert_eq!(rib.identifier_of(Some(peer(2)), 4), before);
    up(&mut rib, on(5, 2), 3);
    assert_ne!(rib.identifier_of(Some(peer(3)), 4), before, "another router with the same address");
    // The same router twice.
    up(&mut rib, on(3, 1), 1);
    up(&mut rib, adding(9, 4), 9);
    let mine = ids_of(&rib, &[(1, 0)]);
    for (number, hop) in [(1, 1), (2, 2)] {
        // Both announce as peer 1's AS.
        announce_as(&mut rib, number, 1, hop, &[], &[(NET, 0)]);
    }
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 9), (mine.clone(), vec![]));
    assert_eq!(rib.advertised(peer(9), V4), 1);
    assert_eq!(fib(&mut rib), [(NET.to_owned(), Some(vec![1, 2]))], "both are used");
    rib.peer_down(peer(1), &BTreeSet::new());
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 9).1, [], "the other one took its place");
    assert_eq!(rib.advertised(peer(9), V4), 1);
    rib.peer_down(peer(2), &BTreeSet::new());
    settle(&mut rib);
    assert_eq!(heard_paths(&mut rib, 9), (vec![], mine));
}

/// A step of a drain is bounded by the paths that are compared.
#[test]
fn a_prefix_of_many_paths_counts_as_many() {
    let mut rib = rib();
    up(&mut rib, adding(1, 0), 1);
    let prefixes: Vec<String> = (0..=255).map(|n| format!("10.2.{n}.0/24")).collect();
    for id in 0..=255 {
        // A list of 256 prefixes fits into one message.
        let paths: Vec<(&str, u32)> = prefixes.iter().map(|prefix| (prefix.as_str(), id)).collect();
        assert!(announce_paths(&mut rib, 1, 1, &[], &paths).faults.is_empty());
    }
    let extra = [("10.3.0.0/24", 1), ("10.3.0.0/24", 2)];
    announce_paths(&mut rib, 1, 1, &[], &extra);
    let mut steps = 1;
    while rib.drain() {
        steps += 1;
    }
    assert_eq!((rib.decided(), steps), (257, 2), "65,538 paths");
    rib.check_invariants().unwrap();
}

/// A peer that reads slowly is told the present state, path by path.
#[test]
fn a_slow_reader_catches_up_path_by_path() {
    let mut rib = rib();
    up(&mut rib, adding(1, 0), 1);
    up(&mut rib, adding(9, 4), 9);
    rib.set_backlog(50);
    announce_paths(&mut rib, 1, 1, &[], &[(NET, 1)]);
    settle(&mut rib);
    announce_paths(&mut rib, 1, 1, &[], &[(NET, 2)]);
    settle(&mut rib);
    withdraw_paths(&mut rib, 1, &[(NET, 1)]);
    settle(&mut rib);
    let events: Vec<_> = std::iter::from_fn(|| rib.poll_event()).collect();
    assert!(events.iter().any(|event| matches!(event, RibEvent::PeerFellBehind { .. })), "{events:?}");
    let (announced, mut withdrawn) = heard_paths(&mut rib, 9);
    withdrawn.dedup(); // the log has the last withdrawal, and what the peer missed names the path as well
    assert_eq!((announced, withdrawn), (ids_of(&rib, &[(1, 2)]), ids_of(&rib, &[(1, 1)])));
}

/// Paths with one set leave in one UPDATE, whatever their prefixes.
#[test]
fn paths_are_packed_by_set() {
    let mut rib = rib();
    up(&mut rib, adding(1, 0), 1);
    rib.peer_up(peer(9), adding(9, 4));
    settle(&mut rib);
    heard_paths(&mut rib, 9);
    announce_paths(&mut rib, 1, 1, &[], &[(NET, 1), ("10.2.0.0/16", 1)]);
    announce_paths(&mut rib, 1, 1, &[7], &[(NET, 2), ("10.2.0.0/16", 2)]);
    settle(&mut rib);
    let bytes = rib.poll_transmit(peer(9)).unwrap();
    let messages = std::iter::successors(Some(bytes), |rest| rest.get(update::message_length(rest)?..));
    assert_eq!(messages.filter(|rest| !rest.is_empty()).count(), 2);
}

/// RFC 7606 §5.3: prefixes that cannot be read reset the session, be it that an identifier is missing.
#[test]
fn prefixes_without_their_identifiers_are_malformed() {
    let mut rib = rib();
    up(&mut rib, adding(1, 0), 1);
    for field in [&[0, 0, 0][..], &[0, 0, 0, 1], &[24, 10, 0, 0], &[0, 0, 0, 1, 33, 10, 0, 0, 0, 0]] {
        let length = u16::try_from(field.len()).unwrap().to_be_bytes();
        let outcome = rib.update(peer(1), &[&length[..], field, &[0, 0]].concat());
        let reset = ErrorAction::SessionReset { subcode: subcode::INVALID_NETWORK_FIELD };
        assert_eq!(outcome.action(), Some(reset), "{field:?}");
        // In MP_UNREACH_NLRI of one of two families: that family ends.
        let mut list = Vec::new();
        attr::put(&mut list, 0x80, code::MP_UNREACH_NLRI, &[&[0, 1, 1][..], field].concat());
        let length = u16::try_from(list.len()).unwrap().to_be_bytes();
        let outcome = rib.update(peer(1), &[&[0, 0][..], &length, &list].concat());
        assert_eq!(outcome.action(), Some(ErrorAction::AfiSafiDisable(V4)), "{field:?}");
        rib.peer_up(peer(1), adding(1, 0));
    }
}

/// What is done for a prefix is in proportion to its paths: a peer gets so many.
#[test]
fn a_peer_has_no_more_paths_of_a_prefix_than_are_kept() {
    let mut rib = rib();
    up(&mut rib, adding(1, 0), 1);
    for id in 0..256 {
        assert!(announce_paths(&mut rib, 1, 1, &[], &[(NET, id)]).faults.is_empty());
    }
    let outcome = announce_paths(&mut rib, 1, 1, &[], &[(NET, 256), ("10.2.0.0/16", 256)]);
    assert_eq!(outcome.action(), Some(ErrorAction::TreatAsWithdraw));
    assert_eq!((outcome.announced, outcome.withdrawn), (1, 1));
    assert_eq!(outcome.faults[0].reason, "more than 256 paths of one prefix");
    assert!(announce_paths(&mut rib, 1, 2, &[], &[(NET, 255)]).faults.is_empty(), "one that is there");
    settle(&mut rib);
    assert_eq!(rib.counts(peer(1), V4).received, 257);
    // What is left from before a restart does not count against what is told after it.
    rib.peer_down(peer(1), &[V4].into());
    rib.peer_up(peer(1), adding(1, 0));
    assert!(announce_paths(&mut rib, 1, 1, &[], &[(NET, 999)]).faults.is_empty());
    // But what is stale is bounded as well, however often it is marked.
    for id in 1000..1255 {
        assert!(announce_paths(&mut rib, 1, 1, &[], &[(NET, id)]).faults.is_empty());
    }
    rib.begin_refresh(peer(1), V4);
    let outcome = announce_paths(&mut rib, 1, 1, &[], &[(NET, 2000)]);
    assert_eq!((outcome.announced, outcome.withdrawn), (0, 1));
}
