//! Neighbours that dial us: `listenRange`.

use std::collections::VecDeque;
use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use e2e::frr::Frr;
use e2e::lab::{Lab, link};
use e2e::netns::Netns;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use crate::node::{Node, alone};

/// Neighbours of one range at a time, where its object says nothing.
const LIMIT: usize = 256;
/// Connections that bgpd has refused and not closed yet.
const REFUSED: usize = 256;
const KEY: &str = "session: {auth: {md5: {secretRef: {name: tor-keys, key: r12}}}}";

struct Rack {
    lab: Lab,
    other: Netns,
    node: Node,
}

/// n1 ── other, which has 10.9.0.1 and whatever a test adds.
fn rack(test: &str) -> Rack {
    let mut lab = Lab::new(test).unwrap();
    let [n1, other] = ["n1", "other"].map(|name| lab.space(name).unwrap());
    link((&n1, "eth0", &["10.9.0.2/16", "fd09::2/64"]), (&other, "eth0", &["10.9.0.1/16", "fd09::1/64"]))
        .unwrap();
    let node = Node::new("n1", &n1, lab.directory(), &["10.9.0.2", "fd09::2"], 4_200_000_001);
    node.claim("10.244.0.0/26");
    Rack { lab, other, node }
}

fn frr(rack: &Rack, neighbour: &str) -> Frr {
    let config = format!(
        "frr defaults datacenter\nhostname peer\nrouter bgp 65001\n bgp router-id 10.9.0.1\n no bgp network import-check\n \
         neighbor 10.9.0.2 remote-as 4200000001\n neighbor 10.9.0.2 timers connect 1\n{neighbour} \
         address-family ipv4 unicast\n  network 10.244.7.0/26\n exit-address-family\nexit\n"
    );
    Frr::start(&rack.lab.router("peer"), &rack.other, rack.lab.directory(), &config).expect("FRR")
}

#[test]
fn a_router_of_the_range_dials_with_its_key() {
    let mut rack = rack("range-frr");
    let frr = frr(&rack, " neighbor 10.9.0.2 password one\n");
    rack.node.objects.put_secret("manx-secrets", "tor-keys", "r12", "one").unwrap();
    rack.node.peer("rack", &format!("listenRange: 10.9.0.0/16, asnType: External, {KEY}"));
    rack.node.start();
    rack.node.await_that("up", |node| node.is_up("rack"));
    rack.node.await_that("its route is learned", |node| !node.route("10.244.7.0/26").is_null());
    rack.node.await_that("its object is named after it", |node| {
        node.status("rack.10.9.0.1")["state"] == "Established"
    });
    let table = || frr.json("show bgp ipv4 unicast 10.244.0.0/26 json").unwrap();
    rack.node.await_that("it has our block", |_| table()["paths"][0]["nexthops"][0]["ip"] == "10.9.0.2");
    // Nobody gets in without the key, whatever the address.
    rack.other.ip("addr add 10.9.0.77/16 dev eth0\n").unwrap();
    assert_eq!(connects(&rack.other), Err(std::io::ErrorKind::TimedOut));
    // Another key here alone ends it, the old one brings it back: the key of the range is the one in use.
    rack.node.objects.put_secret("manx-secrets", "tor-keys", "r12", "two").unwrap();
    rack.node.await_that("down with another key, and its object is gone", |node| {
        node.sessions().is_empty() && node.status("rack.10.9.0.1").is_null()
    });
    assert!(rack.node.route("10.244.7.0/26").is_null(), "with its routes");
    rack.node.objects.put_secret("manx-secrets", "tor-keys", "r12", "one").unwrap();
    rack.node.await_that("up again", |node| node.is_up("rack"));
    frr.stop();
}

fn connects(from: &Netns) -> Result<(), std::io::ErrorKind> {
    let to: SocketAddr = "10.9.0.2:179".parse().unwrap();
    from.run(|| {
        let attempt = TcpStream::connect_timeout(&to, Duration::from_secs(2));
        Ok(attempt.map(drop).map_err(|error| error.kind()))
    })
    .unwrap()
}

/// Descriptors, and the most memory that was ever resident, in KiB.
fn weight(node: &Node) -> (usize, u64) {
    let pid = node.pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let memory = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), memory)
}

/// 10,000 connections, each from an address of its own in 10.8.0.0/16, the last 900 of them held open. They say nothing.
fn flood() -> anyhow::Result<VecDeque<TcpStream>> {
    let to = SockaddrIn::new(10, 9, 0, 2, 179);
    let mut held = VecDeque::new();
    for n in 0..10_000_u32 {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let from = SockaddrIn::new(10, 8, u8::try_from(n / 250)?, u8::try_from(n % 250)?, 0);
        bind(fd.as_raw_fd(), &from)?;
        connect(fd.as_raw_fd(), &to)?;
        held.push_back(TcpStream::from(fd));
        if held.len() > 900 {
            held.pop_front();
        }
    }
    Ok(held)
}

/// Whether bgpd refused a connection, which it says; otherwise it has begun a session with an OPEN.
fn is_refused(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut heard = [0; 21];
    stream.read_exact(&mut heard).unwrap();
    match heard[18] {
        1 => false,
        _ => {
            assert_eq!(heard[18..], [3, 6, 5]);
            true
        }
    }
}

#[test]
fn ten_thousand_connections_to_port_179() {
    let _alone = alone();
    let mut rack = rack("range-flood");
    rack.other.ip("route add local 10.8.0.0/16 dev lo\n").unwrap();
    rack.node.netns.ip("route add 10.8.0.0/16 via 10.9.0.1\n").unwrap();
    rack.node.peer("rack", "listenRange: 10.8.0.0/16, asn: 65001");
    rack.node.peer("tor", "address: 10.9.0.1, asn: 65001");
    rack.node.start();
    rack.node.await_that("listening", |node| !node.sessions().is_empty() && connects(&rack.other).is_ok());
    let before = weight(&rack.node);
    let held = rack.other.run(flood).unwrap();
    // Who is too many hears it (Cease/Connection Rejected); the others of those that stay have the places of who left. Only
    // then has bgpd taken all of them out of the kernel's queue.
    let refused = held.iter().filter(|stream| is_refused(stream)).count();
    assert!(refused >= held.len() - LIMIT, "{refused} of {} refused", held.len());
    let (descriptors, memory) = weight(&rack.node);
    println!("{before:?} before, {:?} after", (descriptors, memory));
    assert!(descriptors < before.0 + LIMIT + REFUSED + 100, "{descriptors} descriptors, {} before", before.0);
    assert!(memory < before.1 + 64 * 1024, "{memory} KiB, {} before", before.1);
    let said = rack.node.said();
    let lines = said.lines().filter(|line| line.contains("connection rejected")).count();
    assert!((1..1_000).contains(&lines), "{lines} lines");
    assert!(said.lines().count() < 1_000, "{} lines of log", said.lines().count());
    assert!(said.contains("RangeFull"), "the log says why: {said}");
    // A router with a session of its own gets it.
    let frr = frr(&rack, "");
    rack.node.await_that("the router's session comes up", |node| node.is_up("tor"));
    frr.stop();
}
