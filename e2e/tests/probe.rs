//! The probes themselves: they see what passes, and they see what does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use e2e::netns::{self, Netns};
use e2e::probe::{self, EchoServer};
use e2e::stream::{Flow, KeptConnection, Stream};
use e2e::topology::Scope;

struct Pair {
    left: Netns,
    right: Netns,
}

impl Pair {
    fn new(name: &str) -> Self {
        let scope = Scope::test(name);
        let [left, right] = ["left", "right"].map(|name| Netns::create(scope.netns(name).name()).unwrap());
        netns::batch(
            &[],
            &format!("link add eth0 netns {} type veth peer name eth0 netns {}\n", left.name(), right.name()),
        )
        .unwrap();
        for (netns, number) in [(&left, 1), (&right, 2)] {
            netns
                .ip(&format!(
                    "link set eth0 up\naddr add 192.0.2.{number}/24 dev eth0\n\
                     addr add 2001:db8::{number}/64 dev eth0 nodad\n"
                ))
                .unwrap();
        }
        Self { left, right }
    }

    fn nft(&self, rules: &str) {
        let status = self.right.command("nft").arg(rules).status().unwrap();
        assert!(status.success(), "nft {rules}");
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = netns::remove([self.left.name(), self.right.name()]);
    }
}

fn targets() -> [SocketAddr; 2] {
    ["192.0.2.2:5432".parse().unwrap(), "[2001:db8::2]:5432".parse().unwrap()]
}

#[test]
fn an_open_port_answers_with_the_source_and_a_filtered_one_does_not() {
    let pair = Pair::new("answer");
    let _server = EchoServer::start(&pair.right, probe::PORT).unwrap();
    let patience = Duration::from_secs(2);
    let sources: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    for (target, source) in targets().into_iter().zip(sources) {
        assert_eq!(probe::exchange(&pair.left, None, target, patience).unwrap().source, source);
        let answered = probe::refused(&pair.left, None, target, patience).unwrap_err();
        assert!(answered.to_string().contains("answered"), "{answered}");
    }
    pair.nft("table inet t { chain c { type filter hook input priority 0; udp dport 5432 drop; }; }");
    let error = probe::exchange(&pair.left, None, targets()[0], patience).unwrap_err();
    assert!(error.to_string().contains("not udp"), "{error}");
    assert!(probe::refused(&pair.left, None, targets()[0], patience).is_err(), "tcp is still open");
    pair.nft("add rule inet t c tcp dport 5432 drop");
    probe::refused(&pair.left, None, targets()[0], Duration::from_millis(600)).unwrap();
    // What could not even ask proves no refusal.
    let foreign = Some("198.51.100.1".parse().unwrap());
    assert!(probe::refused(&pair.left, foreign, targets()[0], patience).is_err());
}

#[test]
fn a_stream_counts_what_is_lost_and_how_long() {
    let pair = Pair::new("stream");
    let _server = EchoServer::start(&pair.right, probe::PORT).unwrap();
    let [v4, v6] = targets();
    let flows = vec![
        Flow { local: "192.0.2.1:40001".parse().unwrap(), remote: v4 },
        Flow { local: "[2001:db8::1]:40002".parse().unwrap(), remote: v6 },
    ];
    let stream = Stream::start(&pair.left, flows, Duration::from_millis(1)).unwrap();
    let kept = KeptConnection::start(&pair.left, probe::from(None, v4), v4).unwrap();
    thread::sleep(Duration::from_millis(300));
    let cut = Instant::now();
    pair.nft("table ip t { chain c { type filter hook input priority 0; drop; }; }");
    thread::sleep(Duration::from_millis(300));
    let silent = kept.last_answer();
    pair.nft("delete table ip t");
    thread::sleep(Duration::from_millis(300));
    let outcome = stream.finish().unwrap();
    assert!(outcome.packets.len() > 500, "{}", outcome.packets.len());
    assert_eq!(outcome.lost_on(1), 0, "IPv6 was not cut");
    assert!((50..400).contains(&outcome.lost_on(0)), "{}", outcome.lost_on(0));
    let recovery = outcome.recovery(cut);
    assert!(recovery[0].unwrap() >= Duration::from_millis(250), "{recovery:?}");
    assert!(recovery[1].unwrap() < Duration::from_millis(250), "{recovery:?}");
    assert!(silent < cut + Duration::from_millis(100));
}
