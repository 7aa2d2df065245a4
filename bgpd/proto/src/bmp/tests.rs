use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::changes::Changes;
use super::message::{Initiation, PeerDown, Statistics, Subject, Table, Termination, route_monitoring};
use super::station::Station;
use crate::rib::Change;
use crate::types::{AfiSafi, Asn, PeerId, RouterId};
use crate::wire::Notification;

const AT: Option<Duration> = Some(Duration::from_micros(0x0102_0304 * 1_000_000 + 5));

fn subject(address: &str) -> Subject {
    let address = Some(address.parse::<IpAddr>().unwrap());
    Subject { address, asn: Asn(0x0001_0002), router_id: RouterId(Ipv4Addr::new(10, 0, 0, 2)) }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// RFC 7854 §4.1, §4.2: every octet of the headers, by hand.
#[test]
fn route_monitoring_of_each_table() {
    let update = [1, 2, 3];
    let of = |subject, table| written(|out| route_monitoring(subject, table, false, AT, &update, out));
    let ipv4 = [
        &[3, 0, 0, 0, 51, 0][..],
        &[0, 0x40],
        &[0; 8],
        &[0; 12],
        &[192, 0, 2, 1],
        &[0, 1, 0, 2],
        &[10, 0, 0, 2],
        &[1, 2, 3, 4],
        &[0, 0, 0, 5],
        &update,
    ]
    .concat();
    assert_eq!(of(subject("192.0.2.1"), Table::AdjRibInPostPolicy), ipv4);
    let ipv6 = of(subject("2001:db8::1"), Table::AdjRibOut);
    assert_eq!(ipv6[6..8], [0, 0x80 | 0x40 | 0x10], "V, L and O (RFC 8671 §4)");
    assert_eq!(ipv6[16..20], [0x20, 1, 0x0d, 0xb8]);
    assert_eq!(of(subject("2001:db8::1"), Table::AdjRibIn)[7], 0x80);
    let own = Subject { address: None, ..subject("::") };
    assert_eq!(of(own, Table::LocRib)[6..32], [&[3, 0][..], &[0; 24]].concat(), "RFC 9069 §4.1, §5.1");
    let old =
        written(|out| route_monitoring(subject("192.0.2.1"), Table::AdjRibOut, true, None, &update, out));
    assert_eq!((old[7], &old[40..48]), (0x70, &[0; 8][..]), "A, and no time");
}

/// RFC 7854 §4.9.
#[test]
fn peer_down_of_each_reason() {
    let reason = |down: PeerDown| written(|out| down.encode(subject("192.0.2.1"), AT, out))[48..].to_vec();
    let marker = [0xff; 16];
    let said = [&[1][..], &marker, &[0, 21, 3, 6, 2]].concat();
    assert_eq!(reason(PeerDown::LocalNotification(Notification::new(6, 2))), said);
    assert_eq!(reason(PeerDown::LocalEvent(18)), [2, 0, 18]);
    let said = [&[3][..], &marker, &[0, 22, 3, 4, 0, 9]].concat();
    assert_eq!(reason(PeerDown::RemoteNotification(Notification::with_data(4, 0, [9]))), said);
    assert_eq!(reason(PeerDown::RemoteClosed), [4]);
}

/// RFC 7854 §4.3, §4.5, §4.8.
#[test]
fn initiation_termination_and_statistics() {
    let initiation = Initiation { sys_descr: "d".to_owned(), sys_name: "n1".to_owned() };
    let said = written(|out| initiation.encode(out));
    assert_eq!(said, [3, 0, 0, 0, 17, 4, 0, 1, 0, 1, b'd', 0, 2, 0, 2, b'n', b'1']);
    let said = written(|out| Termination::OutOfResources.encode(out));
    assert_eq!(said, [3, 0, 0, 0, 12, 5, 0, 1, 0, 2, 0, 2]);
    let said = written(|out| Statistics { received: [3, 4] }.encode(subject("192.0.2.1"), AT, out));
    let numbers = [
        &[0, 0, 0, 3][..],
        &[0, 7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7],
        &[0, 9, 0, 11, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 3],
        &[0, 9, 0, 11, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 4],
    ];
    assert_eq!(said[48..], numbers.concat());
}

fn best(n: u32) -> Change {
    Change::Best { prefix: IpNet::new(IpAddr::from(Ipv4Addr::from(n)), 32).unwrap() }
}

/// What changes all the time keeps nothing else waiting, and End-of-RIB comes behind all that came before it, however much follows.
#[test]
fn changes_go_round() {
    let mut changes = Changes::default();
    (0..10).for_each(|n| changes.note(best(n)));
    let mut told = changes.next(4);
    changes.written(&told);
    changes.note_end(PeerId(1), AfiSafi::Ipv4Unicast);
    changes.note_end(PeerId(2), AfiSafi::Ipv4Unicast);
    changes.forget_ends(PeerId(2));
    assert_eq!(changes.take_end(), None);
    for round in 0.. {
        (0..4).for_each(|n| changes.note(best(n)));
        let step = changes.next(4);
        changes.written(&step);
        told.extend(step);
        if let Some(end) = changes.take_end() {
            assert_eq!(end, (PeerId(1), AfiSafi::Ipv4Unicast));
            break;
        }
        assert!(round < 10, "it never comes");
    }
    assert!((0..10).all(|n| told.contains(&best(n))), "{told:?}");
    assert_eq!(changes.take_end(), None);
}

#[test]
fn what_waits_for_a_station_is_bounded() {
    let mut station = Station::new(0, 0);
    for _ in 0..1000 {
        station.append(|out| out.extend_from_slice(&[7; 60_001]));
    }
    assert_eq!(station.over(), Some(Termination::OutOfResources), "octets");
    let mut station = Station::new(0, 0);
    let changes: Vec<Change> = (0..1 << 20).map(best).collect();
    station.note(&changes, 0);
    station.note(&changes, 0);
    assert_eq!(station.over(), None, "each waits once");
    station.note(&[best(1 << 20)], 1);
    assert_eq!(station.over(), None, "as many as the table has rows may wait beside");
    station.note(&[best(1 << 21)], 0);
    assert_eq!(station.over(), Some(Termination::OutOfResources), "changes");
    station.end(Termination::Unspecified);
    assert_eq!(station.over(), Some(Termination::OutOfResources), "the first reason stays");
}

/// However the socket takes it: whole messages, then one that says goodbye.
#[test]
fn the_last_message_follows_a_whole_one() {
    let message = written(|out| Termination::Unspecified.encode(out));
    for taken in 0..=3 * message.len() {
        let mut station = Station::new(0, 0);
        for _ in 0..3 {
            station.append(|out| out.extend_from_slice(&message));
        }
        station.transmitted(taken);
        let all = message.repeat(3);
        let stream = [&all[..taken], &station.last_octets(Termination::Unspecified)].concat();
        assert_eq!(stream.len() % message.len(), 0, "{taken} taken");
        assert_eq!(stream, message.repeat(stream.len() / message.len()));
    }
}
