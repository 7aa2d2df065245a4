//! Several paths per prefix (RFC 7911) from FRR and BIRD by way of bgpd to another of the same: received, in the kernel, handed on;
//! one withdrawn; switched off and on while the session runs.
//!
//! Needs root, FRR, BIRD, and bgpd built in the same profile. What is missing fails the test and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::bgpd_node::BgpdNode;
use e2e::bird::Bird;
use e2e::frr::Frr;
use e2e::lab::{Lab, link};
use e2e::netns::Netns;
use e2e::process::{tail, wait_for};
use e2e::store::peer;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(25);
/// What the source tells by two next hops, its own address and another one of the link.
const PREFIX: &str = "10.244.7.0/26";
const OTHER_HOP: &str = "10.9.0.4";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Frr,
    Bird,
}

enum Router {
    Frr(Frr),
    Bird(Bird),
}

/// The source, a node with bgpd, the sink: a link from each to the next.
struct Rig {
    node: BgpdNode,
    teller: Router,
    listener: Router,
    source: Netns,
    // Last: what is above runs in its namespaces.
    _lab: Lab,
}

impl Rig {
    fn start(kind: Kind, test: &str) -> Self {
        let mut lab = Lab::new(test).unwrap();
        let [n1, source, sink] = ["n1", "source", "sink"].map(|name| lab.space(name).unwrap());
        link((&n1, "eth0", &["10.9.0.2/24"]), (&source, "eth0", &["10.9.0.3/24"])).unwrap();
        link((&n1, "eth1", &["10.8.0.2/24"]), (&sink, "eth0", &["10.8.0.3/24"])).unwrap();
        // FRR takes its second path from the kernel.
        source.ip(&format!("route add {PREFIX} via {OTHER_HOP} dev eth0 onlink\n")).unwrap();
        let mut node = BgpdNode::new("n1", &n1, lab.directory()).unwrap();
        node.objects.put_settings().unwrap();
        node.objects.put_node("n1", &["10.9.0.2"], 4_200_000_001, "").unwrap();
        let several = "  transit: true\n  session: {addPath: {send: 4}}\n";
        node.objects.put("bgppeers.manx.dev/sink", &peer("sink", "10.8.0.3", 65008, several)).unwrap();
        put_source(&node, true);
        node.start(&[]).unwrap();
        let start = |name: &str, netns: &Netns, configs: [String; 2]| match kind {
            Kind::Frr => {
                Router::Frr(Frr::start(&lab.router(name), netns, lab.directory(), &configs[0]).expect("FRR"))
            }
            Kind::Bird => Router::Bird(Bird::start(name, netns, lab.directory(), &configs[1]).expect("BIRD")),
        };
        let teller = start("source", &source, [frr_source(), bird_source()]);
        let listener = start("sink", &sink, [frr_sink(), bird_sink()]);
        Self { node, teller, listener, source, _lab: lab }
    }

    /// What bgpd says of the source's paths: path identifier and whether it is in use, by next hop.
    fn paths(&self) -> BTreeSet<(String, Option<u64>, bool)> {
        let row = |row: &Value| {
            let hop = row["nextHop"].as_str().unwrap_or_default().to_owned();
            (hop, row["pathId"].as_u64(), row["installed"] == true)
        };
        self.node.paths(PREFIX).iter().filter(|row| row["from"] == "source").map(row).collect()
    }

    /// The gateways of the prefix in the node's kernel.
    fn gateways(&self) -> BTreeSet<String> {
        let route = self.node.route(PREFIX).unwrap();
        let several = route["nexthops"].as_array().cloned().unwrap_or_default();
        let ways = if several.is_empty() { vec![route] } else { several };
        ways.iter().filter_map(|way| Some(way["gateway"].as_str()?.to_owned())).collect()
    }

    /// How many paths the sink has.
    fn told(&self) -> usize {
        match &self.listener {
            Router::Frr(router) => router
                .json(&format!("show bgp ipv4 unicast {PREFIX} json"))
                .ok()
                .and_then(|answer| Some(answer["paths"].as_array()?.len()))
                .unwrap_or_default(),
            Router::Bird(bird) => bird
                .ask(&format!("show route {PREFIX} protocol node all"))
                .unwrap_or_default()
                .matches("BGP.as_path: 4200000001 65009")
                .count(),
        }
    }

    /// Both ends agree on so many paths; `hops` are those in use.
    fn await_paths(&self, what: &str, hops: &[&str]) {
        let as_expected = || {
            let paths = self.paths();
            let in_use: BTreeSet<&str> = paths.iter().filter(|path| path.2).map(|path| &path.0[..]).collect();
            let named: BTreeSet<u64> = paths.iter().filter_map(|path| path.1).collect();
            in_use == BTreeSet::from_iter(hops.iter().copied())
                && named.len() == hops.len()
                && self.gateways().iter().map(String::as_str).collect::<BTreeSet<_>>() == in_use
                && self.told() == hops.len()
        };
        if wait_for(PATIENCE, || as_expected().then_some(())).is_none() {
            let log = tail(&self.node.log(), 30);
            panic!(
                "not within {PATIENCE:?}: {what}\nbgpd: {:?}\nkernel: {:?}\nsink: {}\n{:#?}\n{log}",
                self.paths(),
                self.gateways(),
                self.told(),
                self.node.sessions()
            );
        }
    }

    /// The source withdraws its path by the other next hop, or tells it again.
    fn tell_other_path(&self, on: bool) {
        match &self.teller {
            Router::Frr(_) => {
                let deed = if on { "add" } else { "del" };
                self.source.ip(&format!("route {deed} {PREFIX} via {OTHER_HOP} dev eth0 onlink\n")).unwrap();
            }
            Router::Bird(bird) => {
                bird.ask(if on { "enable second" } else { "disable second" }).unwrap();
            }
        }
    }
}

/// Writes the BGPPeer of the source, which may tell several paths or one.
fn put_source(node: &BgpdNode, several: bool) {
    let spec = format!("  session: {{addPath: {{receive: {several}}}}}\n");
    node.objects.put("bgppeers.manx.dev/source", &peer("source", "10.9.0.3", 65009, &spec)).unwrap();
}

fn frr_source() -> String {
    format!(
        "frr defaults datacenter\nhostname source\nroute-map EQUAL permit 10\n set origin igp\nexit\nrouter bgp 65009\n bgp router-id 10.9.0.3\n no bgp network import-check\n \
         no bgp ebgp-requires-policy\n neighbor 10.9.0.2 remote-as 4200000001\n neighbor 10.9.0.2 timers connect 1\n \
         address-family ipv4 unicast\n  network {PREFIX}\n  redistribute kernel route-map EQUAL\n  neighbor 10.9.0.2 addpath-tx-all-paths\n \
         exit-address-family\nexit\n"
    )
}

fn frr_sink() -> String {
    "frr defaults datacenter\nhostname sink\nrouter bgp 65008\n bgp router-id 10.8.0.3\n no bgp ebgp-requires-policy\n \
     neighbor 10.8.0.2 remote-as 4200000001\n neighbor 10.8.0.2 timers connect 1\nexit\n"
        .to_owned()
}

fn bird(session: &str, more: &str) -> String {
    format!(
        "router id {session}.3;\nprotocol device {{ scan time 1; }}\nprotocol direct {{ ipv4; }}\n{more}\
         protocol bgp node {{ local {session}.3 as 650{}; neighbor {session}.2 as 4200000001; hold time 9;\n \
         connect retry time 1; connect delay time 1; error wait time 1, 2;\n \
         ipv4 {{ add paths on; import all; export where source = RTS_STATIC; }};\n}}\n",
        if session == "10.9.0" { "09" } else { "08" }
    )
}

fn bird_source() -> String {
    let one = format!("protocol static {{ ipv4; route {PREFIX} blackhole; }}\n");
    let other = format!("protocol static second {{ ipv4; route {PREFIX} via {OTHER_HOP}; }}\n");
    bird("10.9.0", &(one + &other))
}

fn bird_sink() -> String {
    bird("10.8.0", "")
}

fn both_ways(kind: Kind, test: &str) {
    let rig = Rig::start(kind, test);
    let own = "10.9.0.3";
    rig.await_paths("two paths, both in the kernel and at the sink", &[own, OTHER_HOP]);
    rig.tell_other_path(false);
    rig.await_paths("one of them is withdrawn", &[own]);
    rig.tell_other_path(true);
    rig.await_paths("it is back", &[own, OTHER_HOP]);
    // Another direction is another OPEN: the session starts anew, and the source may tell one path only.
    put_source(&rig.node, false);
    let one = || {
        let paths = rig.paths();
        paths.len() == 1 && paths.iter().all(|path| path.1.is_none()) && rig.told() == 1
    };
    let what = || format!("{:?}, at the sink {}", rig.paths(), rig.told());
    assert!(wait_for(PATIENCE, || one().then_some(())).is_some(), "one path without identifier: {}", what());
    let log = rig.node.said();
    assert!(log.contains("the configuration of the session changed"), "{log}");
    put_source(&rig.node, true);
    rig.await_paths("two paths again", &[own, OTHER_HOP]);
}

#[test]
fn paths_from_frr_and_to_frr() {
    both_ways(Kind::Frr, "addpath-frr");
}

#[test]
fn paths_from_bird_and_to_bird() {
    both_ways(Kind::Bird, "addpath-bird");
}
