//! From which address a session runs: a node with an identity on lo between two ToRs.

use e2e::frr::Frr;
use e2e::lab::{Lab, link};
use e2e::netns::Netns;
use serde_json::Value;

use crate::node::Node;

const IDENTITY: [&str; 2] = ["10.255.0.11", "fd00:ff::11"];

/// A ToR with a loopback, number 1 or 2, behind ethN.
fn tor(lab: &mut Lab, n1: &Netns, number: u8) -> (Netns, Frr) {
    let netns = lab.space(&format!("t{number}")).unwrap();
    let eth = format!("eth{}", number - 1);
    link(
        (n1, &eth, &[&format!("10.9.{number}.2/24"), &format!("fd09:{number}::2/64")]),
        (&netns, "eth0", &[&format!("10.9.{number}.1/24"), &format!("fd09:{number}::1/64")]),
    )
    .unwrap();
    n1.ip(&format!(
        "route add 10.255.1.{number}/32 via 10.9.{number}.1\nroute add fd00:ff::1:{number}/128 via fd09:{number}::1\n"
    ))
    .unwrap();
    netns
        .ip(&format!(
            "addr add 10.255.1.{number}/32 dev lo\naddr add fd00:ff::1:{number}/128 dev lo\nroute add 10.255.0.11/32 via \
             10.9.{number}.2\nroute add fd00:ff::11/128 via fd09:{number}::2\n"
        ))
        .unwrap();
    let config = format!(
        "frr defaults datacenter\nhostname t{number}\nrouter bgp 6500{number}\n bgp router-id 10.255.1.{number}\n \
         no bgp network import-check\n neighbor 10.255.0.11 remote-as 4200000001\n \
         neighbor 10.255.0.11 timers connect 1\n neighbor 10.255.0.11 ebgp-multihop 2\n \
         neighbor 10.255.0.11 update-source lo\n neighbor 10.9.{number}.2 remote-as 4200000001\n \
         neighbor 10.9.{number}.2 timers connect 1\n neighbor 10.9.{number}.2 ebgp-multihop 2\n \
         neighbor 10.9.{number}.2 update-source lo\n address-family ipv4 unicast\n  network 10.244.7.0/26\n \
         exit-address-family\nexit\n"
    );
    let frr = Frr::start(&lab.router(&format!("t{number}")), &netns, lab.directory(), &config).expect("FRR");
    (netns, frr)
}

#[test]
fn two_tors_and_an_identity_on_lo() {
    let mut lab = Lab::new("source-lo").unwrap();
    let n1 = lab.space("n1").unwrap();
    n1.ip("addr add 10.255.0.11/32 dev lo\naddr add fd00:ff::11/128 dev lo\n").unwrap();
    let (_t1, first) = tor(&mut lab, &n1, 1);
    let (_t2, second) = tor(&mut lab, &n1, 2);
    let mut node = Node::new("n1", &n1, lab.directory(), &IDENTITY, 4_200_000_001);
    node.claim("10.244.0.0/26");
    for number in [1, 2] {
        node.peer(
            &format!("t{number}"),
            &format!("address: 10.255.1.{number}, asn: 6500{number}, maxHops: 2, sourceInterface: lo"),
        );
    }
    node.start();
    for (peer, frr) in [("t1", &first), ("t2", &second)] {
        node.await_that(&format!("{peer} is up"), |node| node.is_up(peer));
        assert_eq!(node.session(peer)["localAddress"], "10.255.0.11");
        node.await_that("its status says why", |node| {
            node.status(peer)["sourceReason"] == "address of lo, the sourceInterface"
        });
        // What we tell leads to the identity, over whichever link is there.
        let hop = |frr: &Frr| -> Value {
            let table = frr.json("show bgp ipv4 unicast 10.244.0.0/26 json").unwrap();
            table["paths"][0]["nexthops"][0]["ip"].clone()
        };
        node.await_that("the ToR has our block", |_| hop(frr) == "10.255.0.11");
    }
    // A connection to another address of ours is none of this session's.
    node.await_that("who dials another address is refused", |node| {
        let said = node.said();
        said.contains("connection rejected") && said.contains("WrongLocalAddress")
    });
    node.await_that("both ways are in the kernel", |node| {
        node.route("10.244.7.0/26")["nexthops"].as_array().is_some_and(|hops| hops.len() == 2)
    });
    without_its_interface(&node);
    first.stop();
    second.stop();
}

/// The address goes: the sessions end, and say what they miss; it is back: they are, too.
fn without_its_interface(node: &Node) {
    node.netns.ip("addr del 10.255.0.11/32 dev lo\n").unwrap();
    node.await_that("the session waits for an address", |node| {
        let (_, reason, message) = node.established("t1");
        reason == "InterfaceDown"
            && message
                == "spec.sourceInterface lo has no IPv4 address that is usable: give it one of the peer's family, or name \
                    another interface"
    });
    node.netns.ip("addr add 10.255.0.11/32 dev lo\n").unwrap();
    node.await_that("up with the address", |node| node.is_up("t1"));
}
