//! Real packets through the table: a namespace between two others forwards, UDP and TCP say what passed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use felix_calc::plan::{Operation, Transaction};
use felix_calc::table::{
    Base, Chain, Element, Family, Field, Hook, KeyType, Statement, Table, Value, Verdict,
};
use felix_kernel::nft::{Count, PolicyTable};

use crate::namespace::{Namespace, connect};
use crate::table::{base, chain, equal, interface, put, ranges, rule, set, table, v4, verdict_map};

/// A client and a server with a node between them: 10.9.1.2 and fd09:1::2 on e1, 10.9.2.2 and fd09:2::2 on e2.
pub(crate) struct Path {
    pub(crate) client: Namespace,
    pub(crate) node: Namespace,
    pub(crate) server: Namespace,
}

impl Path {
    pub(crate) fn new() -> Self {
        let (client, node, server) = (Namespace::new(), Namespace::new(), Namespace::new());
        connect(&node, &client, 1);
        connect(&node, &server, 2);
        node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (end, n) in [(&client, 1), (&server, 2)] {
            end.sh(&format!("ip route add default via 10.9.{n}.1; ip -6 route add default via fd09:{n}::1"));
        }
        Self { client, node, server }
    }

    /// Whether a datagram from the client comes back from the server.
    pub(crate) fn udp_passes(&self, to: SocketAddr) -> bool {
        let server = self.server.run(|| bound(|| UdpSocket::bind(to)));
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let client = self.client.run(|| UdpSocket::bind(any).unwrap());
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        }
        let mut buffer = [0; 16];
        client.send_to(b"ping", to).unwrap();
        let Ok((_, from)) = server.recv_from(&mut buffer) else {
            return false;
        };
        server.send_to(b"pong", from).unwrap();
        client.recv_from(&mut buffer).is_ok()
    }

    /// How a connection from the client fares: it works, is refused, or nothing is heard.
    fn tcp(&self, to: SocketAddr) -> Result<(), ErrorKind> {
        let listener = self.server.run(|| bound(|| TcpListener::bind(to)));
        let timeout = Duration::from_millis(300);
        let outcome = self.client.run(|| TcpStream::connect_timeout(&to, timeout));
        let mut stream = outcome.map_err(|error| error.kind())?;
        let (mut other, _) = listener.accept().unwrap();
        stream.write_all(b"ping").unwrap();
        let mut buffer = [0; 4];
        other.read_exact(&mut buffer).unwrap();
        Ok(())
    }
}

/// A socket on a port that an earlier one may have had: the process that a test beside this one starts holds a copy of every
/// socket until its exec, and with it the port.
pub(crate) fn bound<T>(bind: impl Fn() -> io::Result<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome.unwrap(),
        }
    }
}

fn server(port: u16) -> SocketAddr {
    SocketAddr::new([10, 9, 2, 2].into(), port)
}

fn server6(port: u16) -> SocketAddr {
    format!("[fd09:2::2]:{port}").parse().unwrap()
}

fn accept() -> Statement {
    Statement::Verdict(Verdict::Accept)
}

fn established() -> Vec<Statement> {
    let state = Statement::ConnectionState {
        established: true,
        related: true,
        new: false,
        invalid: false,
        untracked: false,
    };
    vec![state, accept()]
}

/// Dispatch by interface, anti-spoofing, sets of addresses, ranges of ports, reject: as the compiler uses them.
fn policy() -> Table {
    let tcp = || equal(Field::Protocol, Value::Protocol(6));
    let udp = || equal(Field::Protocol, Value::Protocol(17));
    let drop = || Statement::Verdict(Verdict::Drop);
    let within = |fields: &[Field], negated, set: &str| Statement::InSet {
        fields: fields.to_vec(),
        negated,
        set: set.into(),
    };
    let destination = [Field::DestinationV4, Field::Protocol, Field::DestinationPort];
    let pod = vec![
        vec![
            Statement::Family(Family::Ipv4),
            tcp(),
            within(&[Field::DestinationPort], false, "port"),
            accept(),
        ],
        vec![Statement::Family(Family::Ipv4), udp(), within(&destination, false, "np4"), accept()],
        vec![
            Statement::Family(Family::Ipv6),
            within(&[Field::DestinationV6], false, "net6"),
            tcp(),
            Statement::InRange {
                field: Field::DestinationPort,
                negated: false,
                first: Value::Port(80),
                last: Value::Port(90),
            },
            accept(),
        ],
        vec![
            udp(),
            Statement::VerdictMap {
                fields: vec![Field::Protocol, Field::DestinationPort],
                map: "cells".into(),
            },
        ],
        vec![tcp(), equal(Field::DestinationPort, Value::Port(9000)), Statement::Reject { tcp_reset: true }],
        vec![Statement::Counter, drop()],
    ];
    let spoofed = |family, source, own: &str| {
        vec![
            equal(Field::InputInterface, interface("e1")),
            Statement::Family(family),
            within(&[Field::InputInterface, source], true, own),
            drop(),
        ]
    };
    let forward = vec![
        spoofed(Family::Ipv4, Field::SourceV4, "own4"),
        spoofed(Family::Ipv6, Field::SourceV6, "own6"),
        established(),
        vec![Statement::VerdictMap { fields: vec![Field::InputInterface], map: "disp".into() }],
    ];
    table(policy_sets(), vec![("pod", chain(pod)), ("forward", base(Hook::Forward, -1, forward))])
}

fn policy_sets() -> Vec<(&'static str, felix_calc::table::Set)> {
    let v6 = |text: &str| Value::Ipv6(text.parse().unwrap());
    let own4 = vec![Element::Exact(vec![interface("e1"), v4("10.9.1.2")])];
    let own6 = vec![Element::Exact(vec![interface("e1"), v6("fd09:1::2")])];
    let named = |port| Element::Exact(vec![v4("10.9.2.2"), Value::Protocol(17), Value::Port(port)]);
    let mut cells = verdict_map(
        &[KeyType::Protocol, KeyType::Port],
        vec![(vec![Value::Protocol(17), Value::Port(5300)], Verdict::Accept)],
    );
    cells.counter = true;
    vec![
        ("own4", set(&[KeyType::Interface, KeyType::Ipv4], own4)),
        ("own6", set(&[KeyType::Interface, KeyType::Ipv6], own6)),
        ("np4", set(&[KeyType::Ipv4, KeyType::Protocol, KeyType::Port], vec![named(5400)])),
        ("net6", ranges(KeyType::Ipv6, &[(v6("fd09:2::"), v6("fd09:2::ffff"))])),
        (
            "port",
            ranges(
                KeyType::Port,
                &[(Value::Port(8000), Value::Port(8009)), (Value::Port(65000), Value::Port(65535))],
            ),
        ),
        ("cells", cells),
        (
            "disp",
            verdict_map(&[KeyType::Interface], vec![(vec![interface("e1")], Verdict::Goto("pod".into()))]),
        ),
    ]
}

#[test]
fn packets_meet_the_verdicts_that_were_written() {
    let path = Path::new();
    let mut kernel = path.node.run(|| PolicyTable::open().unwrap());
    let refused = Err(ErrorKind::ConnectionRefused);
    let silent = Err(ErrorKind::TimedOut);
    assert!(path.udp_passes(server(5301)), "an empty table lets everything pass");
    put(&mut kernel, &Table::default(), &policy()).unwrap();
    for port in [8000, 8009, 65535] {
        assert_eq!(path.tcp(server(port)), Ok(()), "{port}");
    }
    for port in [7999, 8010, 64999] {
        assert_eq!(path.tcp(server(port)), silent, "{port}");
    }
    assert_eq!(path.tcp(server(9000)), refused);
    assert_eq!(path.tcp(server6(80)), Ok(()));
    assert_eq!(path.tcp(server6(91)), silent);
    assert!(path.udp_passes(server(5300)) && path.udp_passes(server6(5300)));
    assert!(path.udp_passes(server(5400)), "by address, protocol and port");
    assert!(!path.udp_passes(server(5301)) && !path.udp_passes(server6(5400)));
    // Another address on the client is none of its own.
    path.client.sh("ip addr del 10.9.1.2/24 dev e1; ip addr add 10.9.1.77/24 dev e1; ip route replace default via 10.9.1.1");
    assert!(!path.udp_passes(server(5300)));

    let counters = kernel.counters().unwrap();
    let drops = counters.rules[&("pod".to_owned(), 5)];
    assert!(drops.packets >= 6 && drops.bytes > drops.packets * 28, "{drops:?}");
    let cell = Element::Exact(vec![Value::Protocol(17), Value::Port(5300)]);
    assert_eq!(counters.elements["cells"][&cell], Count { packets: 2, bytes: 32 + 52 });
    let listed = path.node.sh("nft list chain inet manx pod");
    assert!(
        listed.contains(&format!("counter packets {} bytes {} drop", drops.packets, drops.bytes)),
        "{listed}"
    );
    assert_eq!(kernel.read().unwrap().table, policy(), "counters are no part of the table");
}

#[test]
fn a_base_chain_drops_by_policy_and_masquerades() {
    let path = Path::new();
    let mut kernel = path.node.run(|| PolicyTable::open().unwrap());
    let nat = base(Hook::Postrouting, 100, vec![vec![Statement::Masquerade]]);
    let closed = Chain {
        base: Some(Base { hook: Hook::Forward, priority: 0, drop: true }),
        rules: vec![
            rule(established()),
            rule(vec![equal(Field::OutputInterface, interface("e2")), accept()]),
        ],
    };
    put(&mut kernel, &Table::default(), &table(vec![], vec![("nat", nat), ("forward", closed)])).unwrap();
    let socket = path.server.run(|| bound(|| UdpSocket::bind("10.9.2.2:5000")));
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    path.client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"ping", "10.9.2.2:5000").unwrap());
    let (_, from) = socket.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from.ip().to_string(), "10.9.2.1");
    // The other way nothing was allowed.
    let socket = path.client.run(|| bound(|| UdpSocket::bind("10.9.1.2:5000")));
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    path.server.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"ping", "10.9.1.2:5000").unwrap());
    assert!(socket.recv_from(&mut [0; 16]).is_err());
}

/// Allowed and refused datagrams in turn while the table changes back and forth: none lost, none leaked.
#[test]
fn no_packet_sees_a_half_change() {
    let path = Path::new();
    let mut kernel = path.node.run(|| PolicyTable::open().unwrap());
    let [one, other] = [alternative("a", &[5000, 1]), alternative("b", &[2, 5000, 3])];
    put(&mut kernel, &Table::default(), &one).unwrap();
    let allowed = path.server.run(|| bound(|| UdpSocket::bind(server(5000))));
    let refused = path.server.run(|| bound(|| UdpSocket::bind(server(6000))));
    for socket in [&allowed, &refused] {
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket2::SockRef::from(socket).set_recv_buffer_size(8 << 20).unwrap();
    }
    let stop = AtomicBool::new(false);
    let received = AtomicU64::new(0);
    let (sent, leaked, changes) = thread::scope(|scope| {
        let sender = scope.spawn(|| path.client.run(|| alternate(&stop)));
        let counter = scope.spawn(|| {
            while allowed.recv_from(&mut [0; 16]).is_ok() {
                received.fetch_add(1, Ordering::Relaxed);
            }
        });
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut changes = 0;
        while Instant::now() < deadline {
            put(&mut kernel, &one, &other).unwrap();
            put(&mut kernel, &other, &one).unwrap();
            changes += 2;
        }
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        counter.join().unwrap();
        refused.set_nonblocking(true).unwrap();
        (sent, refused.recv_from(&mut [0; 16]).is_ok(), changes)
    });
    let received = received.into_inner();
    eprintln!("{changes} changes of three transactions, {sent} allowed datagrams sent, {received} received");
    assert!(changes > 20 && sent > 1_000, "{changes} changes, {sent} datagrams");
    assert_eq!(sent, received);
    assert!(!leaked, "a refused datagram passed");
}

/// Tables that allow UDP to port 5000 alone, of differently named parts: hash, ranges and verdict map.
fn alternative(name: &str, ports: &[u16]) -> Table {
    let part = |kind: &str| format!("{kind}-{name}");
    let exact = ports.iter().map(|port| Element::Exact(vec![Value::Port(*port)])).collect();
    let within = |fields: &[Field], set| Statement::InSet { fields: fields.to_vec(), negated: false, set };
    let rules = vec![
        vec![
            equal(Field::Protocol, Value::Protocol(17)),
            within(&[Field::DestinationPort], part("hash")),
            within(&[Field::SourceV4], part("net")),
            accept(),
        ],
        vec![Statement::Verdict(Verdict::Drop)],
    ];
    let dispatch =
        verdict_map(&[KeyType::Interface], vec![(vec![interface("e1")], Verdict::Goto(part("pod")))]);
    let mut made = table(
        vec![("disp", dispatch)],
        vec![(
            "forward",
            base(
                Hook::Forward,
                0,
                vec![vec![Statement::VerdictMap { fields: vec![Field::InputInterface], map: "disp".into() }]],
            ),
        )],
    );
    made.sets.insert(part("hash"), set(&[KeyType::Port], exact));
    made.sets.insert(part("net"), ranges(KeyType::Ipv4, &[(v4("10.9.1.0"), v4("10.9.1.255"))]));
    made.chains.insert(part("pod"), chain(rules));
    made
}

/// Sends to the allowed and to the refused port in turn, at a pace that the receiver keeps; how many were allowed.
fn alternate(stop: &AtomicBool) -> u64 {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..16 {
            sent += u64::from(socket.send_to(b"ping", server(5000)).is_ok());
            // The table refuses it without an error to the sender.
            socket.send_to(b"ping", server(6000)).unwrap();
        }
        thread::sleep(Duration::from_micros(200));
    }
    sent
}

/// An element that counts keeps its count when others come and go.
#[test]
fn counts_survive_changes_of_other_elements() {
    let path = Path::new();
    let mut kernel = path.node.run(|| PolicyTable::open().unwrap());
    put(&mut kernel, &Table::default(), &policy()).unwrap();
    assert!(path.udp_passes(server(5300)));
    let element = |port| Element::Exact(vec![Value::Protocol(17), Value::Port(port)]);
    let verdict = felix_calc::table::Data::Verdict(Verdict::Accept);
    let add =
        Operation::AddElements { set: "cells".to_owned(), elements: vec![(element(5301), Some(verdict))] };
    kernel.commit(&Transaction(vec![add])).unwrap();
    assert!(path.udp_passes(server(5301)));
    let counters = kernel.counters().unwrap();
    assert_eq!(counters.elements["cells"][&element(5300)].packets, 1);
    assert_eq!(counters.elements["cells"][&element(5301)].packets, 1);
}
