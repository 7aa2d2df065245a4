//! Routes change under forwarded traffic, which is what a node's routes carry: not one packet may be lost.
//!
//! Forwarded and not sent by the host itself: between the lookup and the transmission of its own packets a process can
//! be preempted, and if the route is freed meanwhile the kernel discards that one packet (about one in 1,000 at 600
//! changes a second).

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use felix_calc::host::{METRIC_LEARNED, ROUTE_PROTOCOL_BGP};
use felix_kernel::route::{NextHop, Route, RouteTable};

use crate::namespace::{Namespace, connect};

#[test]
fn changing_next_hops_loses_nothing_v4() {
    run("10.99.0.1", 32, ["10.9.1.2", "10.9.2.2"]);
}

#[test]
fn changing_next_hops_loses_nothing_v6() {
    run("fd99::1", 128, ["fd09:1::2", "fd09:2::2"]);
}

fn run(target: &str, length: u8, gateways: [&str; 2]) {
    let (client, here, there) = (Namespace::new(), Namespace::new(), Namespace::new());
    connect(&here, &there, 1);
    connect(&here, &there, 2);
    connect(&client, &here, 3);
    client.sh("ip route add default via 10.9.3.2; ip -6 route add default via fd09:3::2");
    here.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    there.sh("ip route add 10.9.3.0/24 via 10.9.1.1; ip -6 route add fd09:3::/64 via fd09:1::1");
    there.sh("for i in all e1 e2; do echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done");
    there.sh(&format!("ip address add {target}/{length} dev lo"));
    let any = if target.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let receiver = there.run(|| UdpSocket::bind(any).unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let sender = client.run(|| UdpSocket::bind(any).unwrap());

    let socket = here.socket();
    let mut table = RouteTable::new(ROUTE_PROTOCOL_BGP);
    let route = |gateways: &[&str]| {
        let hops = gateways.iter().map(|text| NextHop::via(text.parse().unwrap()));
        Route::unicast(format!("{target}/{length}").parse().unwrap(), METRIC_LEARNED, hops)
    };
    let mut set = |gateways: &[&str]| {
        table.set(route(gateways)).unwrap();
        let applied = table.apply(&socket, Instant::now()).unwrap();
        assert_eq!((applied.written, applied.pending), (1, 0));
    };
    set(&gateways);
    let stop = AtomicBool::new(false);
    let (sent, received) = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0u32;
            while !stop.load(Ordering::Relaxed) {
                sender.send_to(&sent.to_ne_bytes(), (target, port)).unwrap();
                sent += 1;
                thread::sleep(Duration::from_micros(100));
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
        for _ in 0..200 {
            set(one);
            set(other);
            set(&gateways);
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        (sending.join().unwrap(), receiving.join().unwrap())
    });
    eprintln!("{target}: 600 changes, {sent} packets sent, {received} received");
    assert!(sent > 500, "the traffic spans the changes");
    assert_eq!(received, sent);
}
