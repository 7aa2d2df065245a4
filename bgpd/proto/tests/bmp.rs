//! What monitoring stations are told (RFC 7854, RFC 8671, RFC 9069): one speaker, its peer played by hand, a station that reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]
#![allow(clippy::disallowed_methods)]

mod collector;
mod hand;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::bmp::message::{Initiation, Table, Termination};
use bgp_proto::bmp::{StationId, StationOutput};
use bgp_proto::config::AddPath;
use bgp_proto::fsm::State;
use bgp_proto::policy::ImportPolicy;
use bgp_proto::wire::message::encode;
use bgp_proto::wire::{AddPathFamily, Capability, MessageType};
use bgp_proto::{AfiSafi, Asn, ConnId, Input};
use collector::{Collector, Said};
use hand::{Hand, announce, end_of_rib, keepalive, notification, open, peer, restarted};
use zettabgp::bmp::{BMPSession, BmpMessage};

const CONN: ConnId = ConnId(1);
const STATION: StationId = StationId(1);
const WALL: u64 = 1_700_000_000;

fn remote() -> IpAddr {
    "10.0.0.2".parse().unwrap()
}

fn connect(hand: &mut Hand, station: StationId) -> Collector {
    let initiation = Initiation { sys_descr: "Manx bgpd".to_owned(), sys_name: "n1".to_owned() };
    assert!(hand.speaker.add_station(station, &initiation, Duration::from_secs(WALL), hand.now));
    Collector::default()
}

/// The station reads all that there is; the reason where it ends.
fn read(hand: &mut Hand, station: StationId, collector: &mut Collector) -> Option<Termination> {
    loop {
        let taken = match hand.speaker.poll_station(station, hand.now) {
            StationOutput::Nothing => return None,
            StationOutput::Again => {
                hand.input(Input::Timeout);
                continue;
            }
            StationOutput::Bytes(octets) => {
                collector.read(octets);
                octets.len()
            }
            StationOutput::Over(why, last) => {
                collector.read(&last);
                assert!(!collector.is_within_message());
                hand.speaker.remove_station(station, why);
                return Some(why);
            }
        };
        hand.speaker.station_took(station, taken);
    }
}

/// Prefixes 10.x.y.0/24, so many from `first` on, in as few UPDATEs as they fit.
fn announce_many(first: u32, count: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let prefixes: Vec<u32> = (first..first + count).collect();
    for some in prefixes.chunks(900) {
        encode(MessageType::Update, &mut out, |out| {
            out.extend_from_slice(&[0, 0, 0, 18]);
            out.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 0, 2]);
            for n in some {
                let [_, _, high, low] = n.to_be_bytes();
                out.extend_from_slice(&[24, 10, high, low]);
            }
        });
    }
    out
}

fn says(hand: &mut Hand, messages: &[u8]) {
    messages.chunks(60_000).for_each(|piece| hand.bytes(CONN, piece));
}

/// RFC 7854 §4.3, §4.10, §5: who speaks, the sessions with their real OPENs, the table, its end.
#[test]
fn a_station_that_comes_later_is_told_the_sessions_and_the_table() {
    let mut hand = Hand::new(|_| {});
    hand.originate("10.245.1.0/24");
    hand.establish();
    let ours = {
        let (kind, body) = hand.sent(CONN).remove(0);
        let mut open = Vec::new();
        encode(kind, &mut open, |out| out.extend_from_slice(&body));
        open
    };
    hand.bytes(CONN, &announce(7));
    hand.run_for(Duration::from_secs(5));
    let mut station = connect(&mut hand, STATION);
    assert_eq!(read(&mut hand, STATION, &mut station), None);
    let said = station.news();
    assert_eq!(said[0], Said::Initiation { descr: "Manx bgpd".to_owned(), name: "n1".to_owned() });
    assert!(matches!(&said[1], Said::Up { peer: None, .. }), "the Loc-RIB: {:?}", said[1]);
    let local = "10.0.0.1".parse().unwrap();
    let opens = [ours, open(&[])].concat();
    assert_eq!(said[2], Said::Up { peer: Some(remote()), local, ports: (40000, 179), opens });
    station.agrees_with(&hand.speaker, &peer(), remote());
    // The peer sent no capability for IPv6.
    for table in [Table::AdjRibIn, Table::AdjRibInPostPolicy, Table::AdjRibOut] {
        assert!(station.ends.contains(&((Some(remote()), table), AfiSafi::Ipv4Unicast)), "{table:?}");
        assert!(!station.ends.contains(&((Some(remote()), table), AfiSafi::Ipv6Unicast)), "{table:?}");
    }
    for family in AfiSafi::ALL {
        assert!(station.ends.contains(&((None, Table::LocRib), family)));
    }
    assert_eq!(station.table((None, Table::LocRib)).len(), 2, "ours too");
    let old: Vec<u64> = said.iter().filter_map(time).collect();
    assert!(old.iter().all(|at| *at == 0), "when they were received is not known: {old:?}");
    hand.now += Duration::from_secs(3);
    hand.bytes(CONN, &announce(8));
    read(&mut hand, STATION, &mut station);
    let new: Vec<u64> = station.news().iter().filter_map(time).collect();
    assert_eq!(new, [(WALL + 3) * 1_000_000; 3]);
}

fn time(said: &Said) -> Option<u64> {
    match said {
        Said::Route { at, announced, .. } if *announced > 0 => Some(*at),
        _ => None,
    }
}

/// RFC 7854 §4.9: who ended the session, and with which words.
#[test]
fn each_end_of_a_session_has_its_reason() {
    type End<'a> = (&'a str, &'a dyn Fn(&mut Hand), u8, Vec<u8>);
    let ends: [End<'_>; 6] = [
        ("reset", &|hand| hand.reset(""), 1, notification(6, 4, &[])),
        ("silence", &|hand| hand.run_for(Duration::from_secs(40)), 1, notification(4, 0, &[])),
        ("nonsense", &|hand| hand.bytes(CONN, &[0; 19]), 1, notification(1, 1, &[])),
        ("its link", &|hand| hand.link_down(), 2, vec![0, 18]),
        ("its word", &|hand| hand.bytes(CONN, &notification(6, 2, &[])), 3, notification(6, 2, &[])),
        ("its TCP", &|hand| hand.close(CONN), 4, vec![]),
    ];
    for (name, end, reason, data) in ends {
        let mut hand = Hand::new(|_| {});
        let mut station = connect(&mut hand, STATION);
        hand.establish();
        hand.bytes(CONN, &announce(1));
        read(&mut hand, STATION, &mut station);
        assert_eq!(station.table((Some(remote()), Table::AdjRibIn)).len(), 1);
        station.news();
        end(&mut hand);
        read(&mut hand, STATION, &mut station);
        let down = station.news().into_iter().find(|said| matches!(said, Said::Down { .. }));
        assert_eq!(down, Some(Said::Down { peer: remote(), reason, data }), "{name}");
        station.agrees_with(&hand.speaker, &peer(), remote());
    }
}

#[test]
fn a_policy_that_changes_shows_after_policy_alone() {
    let mut hand = Hand::new(|_| {});
    let mut station = connect(&mut hand, STATION);
    hand.establish();
    (1..=5).for_each(|n| hand.bytes(CONN, &announce(n)));
    read(&mut hand, STATION, &mut station);
    let count = |station: &Collector, table| station.table((Some(remote()), table)).len();
    assert_eq!(count(&station, Table::AdjRibInPostPolicy), 5);
    hand.configure(|config| config.import = ImportPolicy::default());
    read(&mut hand, STATION, &mut station);
    assert_eq!((count(&station, Table::AdjRibIn), count(&station, Table::AdjRibInPostPolicy)), (5, 0));
    assert_eq!(station.table((None, Table::LocRib)).len(), 0);
    hand.configure(|config| config.import = ImportPolicy::accept_all());
    read(&mut hand, STATION, &mut station);
    assert_eq!(count(&station, Table::AdjRibInPostPolicy), 5);
    station.agrees_with(&hand.speaker, &peer(), remote());
}

/// RFC 7854 §5: the peer's End-of-RIB is handed on, behind what it ends.
#[test]
fn the_end_of_a_peers_table_is_told_behind_it() {
    let mut hand = Hand::new(|_| {});
    let mut station = connect(&mut hand, STATION);
    read(&mut hand, STATION, &mut station);
    hand.establish();
    says(&mut hand, &[announce_many(0, 3000), end_of_rib()].concat());
    let mut octets = Vec::new();
    while let StationOutput::Bytes(some) = hand.speaker.poll_station(STATION, hand.now) {
        octets.extend_from_slice(some);
        let taken = some.len();
        hand.speaker.station_took(STATION, taken);
    }
    let whose = (Some(remote()), Table::AdjRibIn);
    for octet in octets {
        station.read(&[octet]);
        if station.ends.contains(&(whose, AfiSafi::Ipv4Unicast)) {
            assert_eq!(station.table(whose).len(), 3000);
        }
    }
    assert!(station.ends.contains(&(whose, AfiSafi::Ipv4Unicast)));
}

/// The same where the station came halfway: what was there before it is told by another walk than what came after it.
#[test]
fn the_end_of_a_peers_table_is_behind_what_was_there_before_the_station() {
    for (before, after) in [(20_000, 3000), (6000, 20_000)] {
        let mut hand = Hand::new(|config| config.max_prefixes.ipv4 = 100_000);
        hand.establish();
        says(&mut hand, &announce_many(0, before));
        let mut station = connect(&mut hand, STATION);
        says(&mut hand, &[announce_many(before, after), end_of_rib()].concat());
        let tables = [Table::AdjRibIn, Table::AdjRibInPostPolicy].map(|table| (Some(remote()), table));
        let mut ended = BTreeMap::new();
        loop {
            let octets = match hand.speaker.poll_station(STATION, hand.now) {
                StationOutput::Bytes(octets) => octets.to_vec(),
                StationOutput::Again => Vec::new(),
                StationOutput::Nothing | StationOutput::Over(..) => break,
            };
            hand.speaker.station_took(STATION, octets.len());
            for octet in octets {
                station.read(&[octet]);
                for whose in
                    tables.iter().filter(|whose| station.ends.contains(&(**whose, AfiSafi::Ipv4Unicast)))
                {
                    ended.entry(*whose).or_insert_with(|| station.table(*whose).len());
                }
            }
        }
        let all = usize::try_from(before + after).unwrap();
        assert_eq!(ended.into_values().collect::<Vec<_>>(), [all; 2], "{before}, then {after}");
    }
}

/// design.md §4: no step looks at more than 4,096 slots, so that no session waits for a station.
#[test]
fn a_large_table_is_told_in_slices() {
    let mut hand = Hand::new(|config| config.max_prefixes.ipv4 = 100_000);
    hand.establish();
    says(&mut hand, &announce_many(0, 60_000));
    let mut station = connect(&mut hand, STATION);
    let (mut most, mut before) = (0, 0);
    loop {
        let taken = match hand.speaker.poll_station(STATION, hand.now) {
            StationOutput::Bytes(octets) => {
                station.read(octets);
                octets.len()
            }
            StationOutput::Again => 0,
            StationOutput::Nothing | StationOutput::Over(..) => break,
        };
        hand.speaker.station_took(STATION, taken);
        let now = station.table((None, Table::LocRib)).len();
        most = most.max(now - before);
        before = now;
    }
    station.agrees_with(&hand.speaker, &peer(), remote());
    assert!((1..=4096).contains(&most), "{most} prefixes came with one step");
}

/// A path of 10.x.y.0/24 with a set of its own: a MED, and so many octets of an attribute nobody knows.
fn announce_path(prefix: u32, id: u32, med: u32, padding: usize) -> Vec<u8> {
    let mut attributes =
        vec![0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 0, 2, 0x80, 4, 4];
    attributes.extend_from_slice(&med.to_be_bytes());
    if padding > 0 {
        attributes.extend_from_slice(&[0xd0, 99]);
        attributes.extend_from_slice(&u16::try_from(padding).unwrap().to_be_bytes());
        attributes.resize(attributes.len() + padding, 7);
    }
    let [_, _, high, low] = prefix.to_be_bytes();
    let mut out = Vec::new();
    encode(MessageType::Update, &mut out, |out| {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&attributes);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&[24, 10, high, low]);
    });
    out
}

/// design.md §4: a step is bounded by what it writes, not by slots: fourteen sets per prefix, or one prefix with more than a station's
/// whole queue holds. A station that comes later reads the walk, one that is there already the changes, after all of them came.
#[test]
fn a_station_that_reads_is_never_given_up_however_much_a_slot_has() {
    let several = AddPathFamily { afi: 1, safi: 1, receive: true, send: true };
    let wide: Vec<Vec<u8>> = (0..4096 * 14).map(|n| announce_path(n / 14, n % 14, n, 200)).collect();
    let deep: Vec<Vec<u8>> = (0..256).map(|n| announce_path(1, n, n, 60_000)).collect();
    for (what, routes) in [("wide", wide), ("deep", deep)] {
        let mut hand = Hand::new(|config| {
            config.max_prefixes.ipv4 = 100_000;
            config.add_path = AddPath { receive: true, send: 1 };
        });
        hand.establish_with(&[Capability::AddPath(vec![several]), Capability::ExtendedMessage]);
        let mut early = connect(&mut hand, STATION);
        routes.chunks(200).for_each(|some| says(&mut hand, &some.concat()));
        assert_eq!(hand.received() as usize, routes.len());
        let mut late = connect(&mut hand, StationId(2));
        for (station, id) in [(&mut early, STATION), (&mut late, StationId(2))] {
            station.with_ids = [Table::AdjRibIn, Table::AdjRibInPostPolicy, Table::AdjRibOut].into();
            assert_eq!(read(&mut hand, id, station), None, "{what}");
            let mut told = BTreeMap::<Table, usize>::new();
            for said in station.news() {
                if let Said::Route { whose: (_, table), announced, .. } = said {
                    *told.entry(table).or_default() += announced;
                }
            }
            for table in [Table::AdjRibIn, Table::AdjRibInPostPolicy] {
                assert!(told[&table] >= routes.len(), "{what}: {told:?}");
            }
        }
        assert!(late.raw.iter().map(Vec::len).sum::<usize>() > 16 << 20, "more than is kept");
    }
}

/// /32 prefixes of the peer, so many from this number on.
fn table(from: u32, count: u32, is_announced: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let prefixes: Vec<u32> = (from..from + count).collect();
    for some in prefixes.chunks(700) {
        let field: Vec<u8> =
            some.iter().flat_map(|n| [&[32][..], &(0x1400_0000 + n).to_be_bytes()].concat()).collect();
        encode(MessageType::Update, &mut out, |out| {
            if is_announced {
                out.extend_from_slice(&[0, 0, 0, 18]);
                out.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0xfd, 0xea]);
                out.extend_from_slice(&[0x40, 3, 4, 10, 0, 0, 2]);
                out.extend_from_slice(&field);
            } else {
                out.extend_from_slice(&u16::try_from(field.len()).unwrap().to_be_bytes());
                out.extend_from_slice(&[&field[..], &[0, 0]].concat());
            }
        });
    }
    out
}

/// A full table goes at once, from Adj-RIB-In as from the Loc-RIB: a station that reads is told so, and not given up.
#[test]
fn a_table_that_goes_whole_is_told_as_gone() {
    const COUNT: u32 = 600_000;
    let mut hand = Hand::new(|config| config.max_prefixes.ipv4 = 2 * COUNT);
    hand.establish_with(&[restarted(true)]);
    says(&mut hand, &table(0, COUNT, true));
    hand.bytes(CONN, &end_of_rib());
    assert_eq!(hand.received(), COUNT);
    hand.close(CONN);
    hand.accept(ConnId(2));
    hand.bytes(ConnId(2), &open(&[restarted(true)]));
    hand.bytes(ConnId(2), &keepalive());
    let mut station = connect(&mut hand, STATION);
    assert_eq!(read(&mut hand, STATION, &mut station), None);
    assert_eq!(station.table((Some(remote()), Table::AdjRibIn)).len(), COUNT as usize);
    hand.bytes(ConnId(2), &end_of_rib());
    assert_eq!(hand.received(), 0);
    assert_eq!(read(&mut hand, STATION, &mut station), None);
    station.agrees_with(&hand.speaker, &peer(), remote());
}

/// It reads nothing, and the same routes change all the time: each waits once, and in the end it is told how they stand.
#[test]
fn what_keeps_changing_waits_once() {
    let mut hand = Hand::new(|config| config.max_prefixes.ipv4 = 100_000);
    hand.establish();
    let mut station = connect(&mut hand, STATION);
    for _ in 0..20 {
        says(&mut hand, &[table(0, 60_000, true), table(0, 50_000, false)].concat());
    }
    assert_eq!(read(&mut hand, STATION, &mut station), None);
    assert!(station.raw.len() < 10_000, "{} messages", station.raw.len());
    assert_eq!(station.table((Some(remote()), Table::AdjRibIn)).len(), 10_000);
    station.agrees_with(&hand.speaker, &peer(), remote());
}

/// It reads nothing, and other routes come and go: what waits for it is bounded, the session goes on, and whoever reads meanwhile
/// misses nothing.
#[test]
fn a_station_that_reads_nothing_is_given_up_and_told_anew() {
    const COUNT: u32 = 60_000;
    let mut hand = Hand::new(|config| config.max_prefixes.ipv4 = 100_000);
    hand.establish();
    connect(&mut hand, STATION);
    let mut other = connect(&mut hand, StationId(2));
    let mut rounds = 0;
    let over = loop {
        says(&mut hand, &table(rounds * COUNT, COUNT, true));
        assert_eq!(read(&mut hand, StationId(2), &mut other), None, "who reads stays");
        other.news();
        other.raw.truncate(1);
        if let over @ StationOutput::Over(..) = hand.speaker.poll_station(STATION, hand.now) {
            break over;
        }
        says(&mut hand, &table(rounds * COUNT, COUNT, false));
        rounds += 1;
        assert!(rounds < 40, "it is never given up");
    };
    let StationOutput::Over(why, last) = over else { panic!() };
    assert_eq!(why, Termination::OutOfResources);
    let mut deaf = Collector::default();
    deaf.read(&last);
    assert_eq!(deaf.said.last(), Some(&Said::Termination { reason: 2 }));
    hand.speaker.remove_station(STATION, why);
    assert_eq!(hand.state(), State::Established);
    assert_eq!(hand.received(), COUNT);
    // It comes back.
    let mut back = connect(&mut hand, StationId(3));
    read(&mut hand, StationId(3), &mut back);
    back.agrees_with(&hand.speaker, &peer(), remote());
    other.agrees_with(&hand.speaker, &peer(), remote());
}

/// Graceful restart: Peer Down takes what was told, and what is kept meanwhile is told with the next session.
#[test]
fn what_is_kept_over_a_restart_is_told_again() {
    let mut hand = Hand::new(|_| {});
    let mut station = connect(&mut hand, STATION);
    hand.establish_with(&[restarted(true)]);
    (1..=3).for_each(|n| hand.bytes(CONN, &announce(n)));
    hand.close(CONN);
    read(&mut hand, STATION, &mut station);
    assert_eq!(station.table((None, Table::LocRib)).len(), 3, "they are used");
    station.agrees_with(&hand.speaker, &peer(), remote());
    hand.accept(ConnId(2));
    hand.bytes(ConnId(2), &open(&[restarted(true)]));
    hand.bytes(ConnId(2), &keepalive());
    hand.bytes(ConnId(2), &announce(1));
    read(&mut hand, STATION, &mut station);
    assert_eq!(station.table((Some(remote()), Table::AdjRibIn)).len(), 3);
    station.agrees_with(&hand.speaker, &peer(), remote());
    hand.bytes(ConnId(2), &end_of_rib());
    read(&mut hand, STATION, &mut station);
    assert_eq!(station.table((Some(remote()), Table::AdjRibIn)).len(), 1);
    station.agrees_with(&hand.speaker, &peer(), remote());
}

/// Graceful restart of a peer that tells several paths before and one after: what is left under other identifiers would be one
/// prefix with what is told anew, and take it along at the End-of-RIB.
#[test]
fn a_restart_that_switches_add_path_off() {
    let several = Capability::AddPath(vec![AddPathFamily { afi: 1, safi: 1, receive: true, send: true }]);
    let mut hand = Hand::new(|config| config.add_path = AddPath { receive: true, send: 1 });
    hand.establish_with(&[restarted(true), several.clone()]);
    hand.bytes(CONN, &announce_path(0x00f4_0001, 7, 1, 0));
    hand.bytes(CONN, &end_of_rib());
    hand.close(CONN);
    let mut station = connect(&mut hand, STATION);
    hand.accept(ConnId(2));
    hand.bytes(ConnId(2), &open(&[restarted(true)]));
    hand.bytes(ConnId(2), &keepalive());
    read(&mut hand, STATION, &mut station);
    hand.bytes(ConnId(2), &announce(1));
    read(&mut hand, STATION, &mut station);
    hand.bytes(ConnId(2), &end_of_rib());
    read(&mut hand, STATION, &mut station);
    assert_eq!(hand.received(), 1);
    assert_eq!(station.table((Some(remote()), Table::AdjRibIn)).len(), 1);
    station.agrees_with(&hand.speaker, &peer(), remote());
    // And on again.
    hand.close(ConnId(2));
    hand.accept(ConnId(3));
    hand.bytes(ConnId(3), &open(&[restarted(true), several]));
    hand.bytes(ConnId(3), &keepalive());
    assert_eq!(hand.received(), 0, "what is left has no identifier");
}

/// RFC 7911: as many routes as there are paths, with the identifiers that the session has, towards the station as towards the peer.
#[test]
fn several_paths_of_a_prefix_are_told_with_their_identifiers() {
    let mut hand = Hand::new(|config| config.add_path = AddPath { receive: true, send: 2 });
    hand.originate("10.245.1.0/24");
    let several = AddPathFamily { afi: 1, safi: 1, receive: true, send: true };
    hand.establish_with(&[Capability::AddPath(vec![several])]);
    for id in [7, 8] {
        let mut route = announce(1);
        let prefix = route.split_off(route.len() - 4);
        route.extend([&[0, 0, 0, id][..], &prefix].concat());
        route[17] += 4;
        hand.bytes(CONN, &route);
    }
    let mut station = connect(&mut hand, STATION);
    station.with_ids = [Table::AdjRibIn, Table::AdjRibInPostPolicy, Table::AdjRibOut].into();
    let count = |hand: &mut Hand, station: &mut Collector| {
        read(hand, STATION, station);
        let mut counts = BTreeMap::<Table, (usize, usize)>::new();
        for said in station.news() {
            if let Said::Route { whose: (_, table), announced, withdrawn, .. } = said {
                let count = counts.entry(table).or_default();
                *count = (count.0 + announced, count.1 + withdrawn);
            }
        }
        counts
    };
    let counts = count(&mut hand, &mut station);
    assert_eq!((counts[&Table::AdjRibIn], counts[&Table::AdjRibInPostPolicy]), ((2, 0), (2, 0)));
    assert_eq!((counts[&Table::AdjRibOut], counts[&Table::LocRib]), ((1, 0), (2, 0)));
    let mut gone = Vec::new();
    encode(MessageType::Update, &mut gone, |out| {
        out.extend_from_slice(&[0, 8, 0, 0, 0, 8, 24, 10, 244, 1, 0, 0]);
    });
    hand.bytes(CONN, &gone);
    let counts = count(&mut hand, &mut station);
    assert_eq!((counts[&Table::AdjRibIn], counts[&Table::AdjRibInPostPolicy]), ((0, 1), (0, 1)));
}

/// It disconnects in the middle of the table and comes back as another connection.
#[test]
fn a_station_that_goes_and_comes_back_is_told_everything() {
    let mut hand = Hand::new(|config| config.max_prefixes.ipv4 = 100_000);
    hand.establish();
    says(&mut hand, &announce_many(0, 20_000));
    let mut station = connect(&mut hand, STATION);
    if let StationOutput::Bytes(octets) = hand.speaker.poll_station(STATION, hand.now) {
        station.read(&octets[..octets.len() / 2]);
        let taken = octets.len() / 2;
        hand.speaker.station_took(STATION, taken);
    }
    hand.speaker.remove_station(STATION, Termination::Unspecified);
    assert_eq!(
        hand.speaker.poll_station(STATION, hand.now),
        StationOutput::Nothing,
        "nothing is for it any more"
    );
    hand.bytes(CONN, &announce(99));
    let mut back = connect(&mut hand, StationId(2));
    read(&mut hand, StationId(2), &mut back);
    back.agrees_with(&hand.speaker, &peer(), remote());
}

/// All that it was told is another speaker's.
#[test]
fn another_as_number_ends_it_and_tells_it_anew() {
    let mut hand = Hand::new(|_| {});
    hand.originate("10.245.1.0/24");
    hand.establish();
    let mut station = connect(&mut hand, STATION);
    read(&mut hand, STATION, &mut station);
    hand.configure_all(|config| config.asn = Asn(64_999));
    assert_eq!(read(&mut hand, STATION, &mut station), Some(Termination::Unspecified));
    assert!(station.news().contains(&Said::Termination { reason: 1 }));
    let mut back = connect(&mut hand, StationId(2));
    read(&mut hand, StationId(2), &mut back);
    assert_eq!(back.table((None, Table::LocRib)).len(), 1);
    back.agrees_with(&hand.speaker, &peer(), remote());
}

/// RFC 7854 §4.8.
#[test]
fn the_numbers_of_a_peer_are_reported() {
    let mut hand = Hand::new(|_| {});
    let mut station = connect(&mut hand, STATION);
    hand.establish();
    (1..=3).for_each(|n| hand.bytes(CONN, &announce(n)));
    hand.speaker.report_to_stations(hand.now);
    read(&mut hand, STATION, &mut station);
    let numbers = station.news().into_iter().find_map(|said| match said {
        Said::Statistics { peer, tlvs } if peer == remote() => Some(tlvs),
        _ => None,
    });
    assert_eq!(numbers.unwrap()[0], (7, vec![0, 0, 0, 0, 0, 0, 0, 3]));
}

/// The peer knows two octets: what it says is told with four, what it is told as it is told (RFC 7854 §4.2, A).
#[test]
fn a_peer_of_two_octets() {
    let mut hand = Hand::new(|_| {});
    hand.originate("10.245.1.0/24");
    let mut station = connect(&mut hand, STATION);
    hand.establish();
    hand.bytes(CONN, &announce(1));
    read(&mut hand, STATION, &mut station);
    for said in station.news() {
        if let Said::Route { whose: (_, table), two_octets, announced: 1.., .. } = said {
            assert_eq!(two_octets, table == Table::AdjRibOut, "{table:?}");
        }
    }
    station.agrees_with(&hand.speaker, &peer(), remote());
}

/// An implementation that shares nothing with ours reads every message, and finds in it what was said.
#[test]
fn zettabgp_reads_it() {
    let mut hand = Hand::new(|_| {});
    hand.originate("10.245.1.0/24");
    let mut station = connect(&mut hand, STATION);
    // The table before the session: what is told later is told once.
    read(&mut hand, STATION, &mut station);
    let family = Capability::Multiprotocol { afi: 1, safi: 1 };
    hand.connect(CONN);
    hand.bytes(CONN, &open(&[family, Capability::FourOctetAsn(Asn(65002))]));
    hand.bytes(CONN, &keepalive());
    let mut routes = Vec::new();
    encode(MessageType::Update, &mut routes, |out| {
        out.extend_from_slice(&[0, 0, 0, 20]);
        out.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 0, 2]);
        out.extend_from_slice(&[24, 10, 244, 1, 24, 10, 244, 2]);
    });
    hand.bytes(CONN, &routes);
    hand.bytes(CONN, &end_of_rib());
    read(&mut hand, STATION, &mut station);
    hand.bytes(CONN, &notification(6, 2, &[]));
    read(&mut hand, STATION, &mut station);
    let last = hand.speaker.remove_station(STATION, Termination::AdministrativelyClosed);
    station.read(&last);
    let (mut session, mut seen, mut prefixes) = (BMPSession::default(), Vec::new(), 0);
    for message in &station.raw {
        let read =
            session.decode_from(&message[5..]).unwrap_or_else(|error| panic!("{error:?}: {message:?}"));
        seen.push(match read {
            BmpMessage::Initiation(said) => {
                assert_eq!(said.sys_name.as_deref(), Some("n1"));
                "initiation"
            }
            BmpMessage::PeerUpNotification(up) => {
                if up.peer.peertype == 0 {
                    assert_eq!((up.peer.asnum, up.peer.peeraddress), (65002, remote()));
                    assert_eq!((up.localport, up.remoteport, up.msg2.as_num), (40000, 179, 65002));
                }
                "up"
            }
            BmpMessage::RouteMonitoring(route) => {
                if let zettabgp::prelude::BgpAddrs::IPV4U(all) = &route.update.updates {
                    prefixes += all.len();
                }
                "route"
            }
            BmpMessage::PeerDownNotification(down) => {
                assert_eq!(down.peer.routerid, "10.0.0.2".parse::<std::net::Ipv4Addr>().unwrap());
                "down"
            }
            BmpMessage::Termination(_) => "termination",
            BmpMessage::StatisticsReport | BmpMessage::RouteMirroring => "other",
        });
    }
    // Before and after policy, the Loc-RIB, and ours: selected and told.
    assert_eq!(prefixes, 2 + 2 + 2 + 1 + 1);
    seen.dedup();
    assert_eq!(seen, ["initiation", "up", "route", "up", "route", "down", "route", "termination"]);
}
