//! How far away a peer may be: TTL and GTSM (RFC 5082).

use std::thread;
use std::time::Duration;

use e2e::frr::Frr;
use e2e::lab::{Lab, link};
use e2e::netns::Netns;

use crate::node::Node;

/// Longer than two retries and a hold time.
const HELD: Duration = Duration::from_secs(6);

/// n1 ── mid ── far: far is two hops away. FRR runs on one of the two.
struct Chain {
    lab: Lab,
    mid: Netns,
    far: Netns,
    node: Node,
}

impl Chain {
    fn new(test: &str) -> Self {
        let mut lab = Lab::new(test).unwrap();
        let [n1, mid, far] = ["n1", "mid", "far"].map(|name| lab.space(name).unwrap());
        link(
            (&n1, "eth0", &["10.9.0.2/24", "fd09:0::2/64"]),
            (&mid, "eth0", &["10.9.0.1/24", "fd09:0::1/64"]),
        )
        .unwrap();
        link(
            (&mid, "eth1", &["10.9.1.2/24", "fd09:1::2/64"]),
            (&far, "eth0", &["10.9.1.1/24", "fd09:1::1/64"]),
        )
        .unwrap();
        n1.ip("route add 10.9.1.0/24 via 10.9.0.1\nroute add fd09:1::/64 via fd09:0::1\n").unwrap();
        far.ip("route add 10.9.0.0/24 via 10.9.1.2\nroute add fd09:0::/64 via fd09:1::2\n").unwrap();
        let node = Node::new("n1", &n1, lab.directory(), &["10.9.0.2", "fd09::2"], 4_200_000_001);
        Self { lab, mid, far, node }
    }

    /// FRR of AS 65001 with a neighbour n1 at both of its addresses.
    fn frr(&self, netns: &Netns, settings: &[&str]) -> Frr {
        let mut neighbours = String::new();
        for address in ["10.9.0.2", "fd09::2"] {
            neighbours.push_str(&format!(
                " neighbor {address} remote-as 4200000001\n neighbor {address} timers connect 1\n"
            ));
            for setting in settings {
                neighbours.push_str(&format!(" neighbor {address} {setting}\n"));
            }
        }
        let config = format!(
            "frr defaults datacenter\nhostname peer\nrouter bgp 65001\n bgp router-id 10.9.9.9\n{neighbours}exit\n"
        );
        Frr::start(&self.lab.router("peer"), netns, self.lab.directory(), &config).expect("FRR")
    }

    fn stays_down(&self, what: &str, peers: &[&str]) {
        for peer in peers {
            self.node.await_that(&format!("{peer} down: {what}"), |node| !node.is_up(peer));
        }
        let until = std::time::Instant::now() + HELD;
        while std::time::Instant::now() < until {
            for peer in peers {
                assert!(!self.node.is_up(peer), "{peer} is up: {what}\n{}", self.node.said());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn comes_up(&self, what: &str, peers: &[&str]) {
        for peer in peers {
            self.node.await_that(&format!("{peer} up: {what}"), |node| node.is_up(peer));
        }
    }
}

const BOTH: [&str; 2] = ["v4", "v6"];

/// Two BGPPeers, one a family, alike but for the address.
fn peers(node: &Node, [ipv4, ipv6]: [&str; 2], rest: &str) {
    node.peer("v4", &format!("address: {ipv4}, asn: 65001, {rest}"));
    node.peer("v6", &format!("address: \"{ipv6}\", asn: 65001, {rest}"));
}

const FAR: [&str; 2] = ["10.9.1.1", "fd09:1::1"];
const NEAR: [&str; 2] = ["10.9.0.1", "fd09::1"];

/// The same, whoever dials.
fn two_hops_away(test: &str, we_dial: bool) {
    let mut chain = Chain::new(test);
    let waits = if we_dial { "passive" } else { "timers 3 9" };
    let frr = chain.frr(&chain.far, &["ttl-security hops 2", waits]);
    let passive = if we_dial { "passive: false" } else { "passive: true" };
    let with = |node: &Node, rest: &str| peers(node, FAR, &format!("{rest}, {passive}"));
    with(&chain.node, "maxHops: 2, session: {ttlSecurity: true}");
    chain.node.start();
    chain.comes_up("two hops are allowed", &BOTH);
    // What it sends arrives with 254: one too few for a neighbour on the link.
    with(&chain.node, "maxHops: 1, session: {ttlSecurity: true}");
    chain.stays_down("one hop is allowed", &BOTH);
    with(&chain.node, "maxHops: 2, session: {ttlSecurity: true}");
    chain.comes_up("hot, without a restart", &BOTH);
    if !we_dial {
        // Ours arrive with 1, and it wants 254. (Where FRR accepts, it does not look.)
        with(&chain.node, "maxHops: 2, session: {ttlSecurity: false}");
        chain.stays_down("we do not prove how far we are", &BOTH);
    }
    frr.stop();
}

#[test]
fn gtsm_where_we_dial() {
    two_hops_away("gtsm-dial", true);
}

#[test]
fn gtsm_where_we_are_dialled() {
    two_hops_away("gtsm-listen", false);
}

#[test]
fn gtsm_on_the_link_and_who_is_further_away_hears_nothing() {
    let mut chain = Chain::new("gtsm-link");
    let frr = chain.frr(&chain.mid, &["ttl-security hops 1"]);
    peers(&chain.node, NEAR, "session: {ttlSecurity: true}");
    chain.node.start();
    chain.comes_up("on the link", &BOTH);
    // All peers are on the link: the listening socket drops the SYN of whoever is not, and answers nothing.
    let attempt = || {
        let to = "10.9.0.2:179".parse().unwrap();
        let outcome = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(2));
        Ok(outcome.map(drop).map_err(|error| error.kind()))
    };
    assert_eq!(chain.far.run(attempt).unwrap(), Err(std::io::ErrorKind::TimedOut));
    // With a peer that need not prove anything it is heard again (and then refused by what it says).
    chain.node.peer("other", "address: 10.9.1.1, asn: 65002, maxHops: 2");
    chain.node.await_that("the socket answers", |_| chain.far.run(attempt).unwrap().is_ok());
    assert!(chain.node.is_up("v4"));
    frr.stop();
}

#[test]
fn without_gtsm_an_external_peer_is_one_hop_away() {
    let mut chain = Chain::new("ttl");
    let frr = chain.frr(&chain.far, &["ebgp-multihop 2"]);
    peers(&chain.node, FAR, "port: 179");
    chain.node.start();
    chain.stays_down("packets end at the first router", &BOTH);
    peers(&chain.node, FAR, "maxHops: 2");
    chain.comes_up("two hops", &BOTH);
    frr.stop();
}
