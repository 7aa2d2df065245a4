//! Connection tracking with real flows.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use felix_calc::conntrack::{Entry, Transport, Tuple};
use felix_calc::table::{Base, Chain, Field, Hook, Statement, Table, Value, Verdict};
use felix_kernel::conntrack::{Conntrack, Wanted};
use felix_kernel::nft::PolicyTable;

use crate::packets::{Path, bound};
use crate::table::{equal, put, rule, table};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Tracks everything; lets established connections and new ones to some TCP ports pass.
fn allow(ports: &[u16]) -> Table {
    let accept = || Statement::Verdict(Verdict::Accept);
    let state = Statement::ConnectionState {
        established: true,
        related: true,
        new: false,
        invalid: false,
        untracked: false,
    };
    let mut rules = vec![rule(vec![state, accept()])];
    for port in ports {
        rules.push(rule(vec![
            equal(Field::Protocol, Value::Protocol(6)),
            equal(Field::DestinationPort, Value::Port(*port)),
            accept(),
        ]));
    }
    rules.push(rule(vec![equal(Field::Protocol, Value::Protocol(6)), Statement::Verdict(Verdict::Drop)]));
    let base = Base { hook: Hook::Forward, priority: 0, drop: false };
    table(vec![], vec![("forward", Chain { base: Some(base), rules })])
}

/// A connection, both ends.
fn flow(path: &Path, to: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = path.server.run(|| bound(|| TcpListener::bind(to)));
    let client = path.client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)).unwrap());
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    }
    (client, server)
}

/// Whether what one end writes arrives at the other.
fn alive((client, server): &(TcpStream, TcpStream)) -> bool {
    let mut buffer = [0; 4];
    let (mut client, mut server) = (client, server);
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut buffer).is_ok()
}

fn ports(flow: &(TcpStream, TcpStream)) -> Transport {
    let [source, destination] = [&flow.0, &flow.1].map(|stream| stream.local_addr().unwrap().port());
    Transport::Ports { source, destination }
}

#[test]
fn exactly_the_meant_connection_is_cut() {
    let path = Path::new();
    let (mut kernel, mut conntrack) =
        path.node.run(|| (PolicyTable::open().unwrap(), Conntrack::open().unwrap()));
    put(&mut kernel, &Table::default(), &allow(&[80, 81])).unwrap();
    let [kept, cut] = [80, 81].map(|port| flow(&path, SocketAddr::new(ip("10.9.2.2"), port)));
    let six = flow(&path, SocketAddr::new(ip("fd09:2::2"), 81));
    assert!(alive(&kept) && alive(&cut) && alive(&six));

    let all = conntrack.list(Wanted::All).unwrap();
    let tuple = |flow: &(TcpStream, TcpStream)| Tuple {
        source: flow.0.local_addr().unwrap().ip(),
        destination: flow.1.local_addr().unwrap().ip(),
        protocol: 6,
        transport: ports(flow),
    };
    let expected: BTreeSet<Tuple> = [&kept, &cut, &six].map(tuple).into();
    assert_eq!(all.iter().map(|entry| entry.original).collect::<BTreeSet<_>>(), expected);
    let [from, answered] = [Wanted::From(ip("10.9.1.2")), Wanted::AnsweredBy(ip("10.9.2.2"))];
    for wanted in [from, answered] {
        assert_eq!(conntrack.list(wanted).unwrap().len(), 2, "{wanted:?}");
    }
    assert_eq!(conntrack.list(Wanted::From(ip("fd09:1::2"))).unwrap().len(), 1);
    assert_eq!(conntrack.list(Wanted::From(ip("10.9.2.2"))).unwrap(), vec![]);

    // Port 81 is closed to IPv4: the flow lives on until its entry is gone, and no other goes with it.
    let doomed: Vec<Entry> = all.iter().filter(|entry| entry.original == tuple(&cut)).cloned().collect();
    put(&mut kernel, &allow(&[80, 81]), &allow(&[80])).unwrap();
    assert!(alive(&cut));
    assert_eq!(conntrack.delete(&doomed).unwrap(), 1);
    assert!(!alive(&cut));
    assert!(alive(&kept) && alive(&six));
    assert_eq!(conntrack.delete(&doomed).unwrap(), 0, "gone is done");
    assert_eq!(conntrack.list(Wanted::All).unwrap().len(), 2);
}

/// A later flow with the same addresses and ports is another: the id says so.
#[test]
fn a_reused_tuple_is_not_hit() {
    let path = Path::new();
    let (mut kernel, mut conntrack) =
        path.node.run(|| (PolicyTable::open().unwrap(), Conntrack::open().unwrap()));
    put(&mut kernel, &Table::default(), &allow(&[])).unwrap();
    let [client, server] = [(&path.client, "10.9.1.2:4000"), (&path.server, "10.9.2.2:5000")]
        .map(|(namespace, address)| namespace.run(|| UdpSocket::bind(address).unwrap()));
    server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let packet = || {
        client.send_to(b"ping", "10.9.2.2:5000").unwrap();
        server.recv_from(&mut [0; 4]).unwrap();
    };
    packet();
    let old = conntrack.list(Wanted::All).unwrap();
    assert_eq!(old.len(), 1);
    assert_eq!(conntrack.delete(&old).unwrap(), 1);
    // Others take the memory of the old entry, of which its id is made.
    for port in 10_000..10_200 {
        client.send_to(b"ping", ("10.9.2.2", port)).unwrap();
    }
    packet();
    let listed = conntrack.list(Wanted::All).unwrap();
    let new = listed.iter().find(|entry| entry.original == old[0].original).unwrap();
    assert_ne!(new.id, old[0].id);
    assert_eq!(conntrack.delete(&old).unwrap(), 0);
    assert_eq!(conntrack.list(Wanted::All).unwrap().len(), listed.len());
    assert_eq!(conntrack.delete(std::slice::from_ref(new)).unwrap(), 1);
}

/// Behind DNAT and in a zone: both tuples are told, and the entry is found again.
#[test]
fn translated_zoned_and_icmp_entries_are_listed_and_deleted() {
    let path = Path::new();
    let mut conntrack = path.node.run(|| Conntrack::open().unwrap());
    path.node.sh("nft 'add table inet other
              add chain inet other pre { type filter hook prerouting priority -300; }
              add rule inet other pre ip saddr 10.9.1.2 icmp type echo-request ct zone set 7
              add rule inet other pre ip saddr 10.9.2.2 icmp type echo-reply ct zone set 7
              add chain inet other nat { type nat hook prerouting priority -100; }
              add rule inet other nat ip daddr 10.99.0.1 tcp dport 80 dnat ip to 10.9.2.2:8080'");
    let listener = path.server.run(|| TcpListener::bind("10.9.2.2:8080").unwrap());
    let client = path.client.run(|| TcpStream::connect("10.99.0.1:80").unwrap());
    let (_server, _) = listener.accept().unwrap();
    path.client.sh("ping -c 1 -W 1 10.9.2.2 >/dev/null; ping -c 1 -W 1 fd09:2::2 >/dev/null");

    let all = conntrack.list(Wanted::All).unwrap();
    let of = |protocol| all.iter().find(|entry| entry.original.protocol == protocol).unwrap();
    let tcp = of(6);
    let source = client.local_addr().unwrap().port();
    assert_eq!(tcp.original.destination, ip("10.99.0.1"));
    assert_eq!(tcp.original.transport, Transport::Ports { source, destination: 80 });
    assert_eq!(tcp.reply.source, ip("10.9.2.2"));
    assert_eq!(tcp.reply.transport, Transport::Ports { source: 8080, destination: source });
    assert_eq!(conntrack.list(Wanted::AnsweredBy(ip("10.9.2.2"))).unwrap().len(), 2);
    assert!(matches!(
        of(1),
        Entry { zone: 7, original: Tuple { transport: Transport::Icmp { kind: 8, code: 0, .. }, .. }, .. }
    ));
    assert!(matches!(of(58).original.transport, Transport::Icmp { kind: 128, code: 0, .. }));
    assert_eq!(conntrack.delete(&all).unwrap(), all.len());
    assert_eq!(conntrack.list(Wanted::All).unwrap(), vec![]);
    assert_eq!(path.node.sh("conntrack -L 2>/dev/null").trim(), "");
}

/// More than one datagram of deletions, checked by the conntrack tool.
#[test]
fn a_thousand_connections_go_at_once() {
    let path = Path::new();
    let mut conntrack = path.node.run(|| Conntrack::open().unwrap());
    path.node.sh("nft 'add table ip other; add chain ip other c { type filter hook forward priority 0; }
                       add rule ip other c ct state new accept'");
    let socket = path.client.run(|| UdpSocket::bind("10.9.1.2:4000").unwrap());
    for port in 10_000..11_000 {
        socket.send_to(b"ping", ("10.9.2.2", port)).unwrap();
    }
    let entries = conntrack.list(Wanted::From(ip("10.9.1.2"))).unwrap();
    assert_eq!(entries.len(), 1_000);
    let (half, rest) = entries.split_at(500);
    assert_eq!(conntrack.delete(half).unwrap(), 500);
    // 500 of these are gone already, in between.
    assert_eq!(conntrack.delete(&entries).unwrap(), rest.len());
    assert_eq!(path.node.sh("conntrack -C").trim(), "0");
}
