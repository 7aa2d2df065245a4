//! Routes change under forwarded traffic, which is what a node's routes carry: not one packet may be lost.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use felix_calc::host::{METRIC_LEARNED, ROUTE_PROTOCOL_BGP};
use felix_kernel::route::{NextHop, Route, RouteTable};
use felix_kernel::{addr, link};

use nix::sys::socket::{setsockopt, sockopt};

use crate::namespace::{Namespace, connect};

/// Changed together, as when a link goes: the watched one is in the middle.
const ROUTES: usize = 256;
const ROUNDS: usize = 60;

#[test]
fn changing_next_hops_loses_nothing_v4() {
    run("10.99.0.1", 32, ["10.9.1.2", "10.9.2.2"], false);
}

#[test]
fn changing_next_hops_loses_nothing_v6() {
    run("fd99::1", 128, ["fd09:1::2", "fd09:2::2"], false);
}

#[test]
fn changing_next_hop_objects_loses_nothing_v4() {
    run("10.99.0.1", 32, ["10.9.1.2", "10.9.2.2"], true);
}

#[test]
fn changing_next_hop_objects_loses_nothing_v6() {
    run("fd99::1", 128, ["fd09:1::2", "fd09:2::2"], true);
}

fn run(target: &str, length: u8, gateways: [&str; 2], by_objects: bool) {
    let (client, here, there) = (Namespace::new(), Namespace::new(), Namespace::new());
    let links = [1, 2].map(|n| connect(&here, &there, n));
    connect(&client, &here, 3);
    client.sh("ip route add default via 10.9.3.2; ip -6 route add default via fd09:3::2");
    here.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    there.sh("ip route add 10.9.3.0/24 via 10.9.1.1; ip -6 route add fd09:3::/64 via fd09:1::1");
    there.sh("for i in all e1 e2; do echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done");
    let far = there.socket();
    let lo = link::by_name(&far, "lo").unwrap().unwrap().index;
    addr::add(&far, lo, format!("{target}/{length}").parse().unwrap()).unwrap();
    assert!(addr::settle(&far, target.parse().unwrap()).unwrap());
    let any = if target.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let receiver = there.run(|| UdpSocket::bind(any).unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    // What a busy machine keeps the receiver from reading must wait, not be dropped.
    setsockopt(&receiver, sockopt::RcvBufForce, &(64 << 20)).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let sender = client.run(|| UdpSocket::bind(any).unwrap());

    let socket = here.socket();
    let mut table = RouteTable::new(ROUTE_PROTOCOL_BGP);
    if by_objects {
        table = table.with_objects();
    }
    let hop = |gateway: &str| NextHop {
        ifindex: by_objects.then(|| links[usize::from(gateway == gateways[1])]),
        ..NextHop::via(gateway.parse().unwrap())
    };
    let mut set = |gateways: &[&str]| {
        for i in 0..ROUTES {
            let destination = if i == ROUTES / 2 {
                format!("{target}/{length}")
            } else if length == 32 {
                format!("10.98.{i}.0/24")
            } else {
                format!("fd98:{i:x}::/64")
            };
            let hops = gateways.iter().map(|text| hop(text));
            table.set(Route::unicast(destination.parse().unwrap(), METRIC_LEARNED, hops)).unwrap();
        }
        let applied = table.apply(&socket, Instant::now()).unwrap();
        assert_eq!((applied.written, applied.pending), (ROUTES, 0));
    };
    set(&gateways);
    let stop = AtomicBool::new(false);
    let (sent, received) = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0u32;
            while !stop.load(Ordering::Relaxed) {
                sender.send_to(&sent.to_ne_bytes(), (target, port)).unwrap();
                sent += 1;
                thread::sleep(Duration::from_micros(50));
            }
            sent
        });
        let receiving = scope.spawn(|| {
            let mut received = 0u32;
            let mut buffer = [0; 16];
            while receiver.recv(&mut buffer).is_ok() {
                received += 1;
            }
            received
        });
        let (one, other) = gateways.split_at(1);
        for _ in 0..ROUNDS {
            set(one);
            set(other);
            set(&gateways);
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        (sending.join().unwrap(), receiving.join().unwrap())
    });
    eprintln!(
        "{target}: {} changes of {ROUTES} routes, {sent} packets sent, {received} received",
        ROUNDS * 3
    );
    assert!(sent > 300, "the traffic spans the changes");
    // The kernel itself can drop a packet whose lookup met the old route in the moment it died: seen once in some 10,000
    // changes under a flood. Routes that were removed and added again would lose hundreds.
    assert!(sent - received <= 1, "{} packets lost", sent - received);
}
