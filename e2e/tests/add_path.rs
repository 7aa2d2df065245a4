//! Several paths per prefix (RFC 7911) from FRR and BIRD by way of bgpd to another of the same: received, in the kernel, handed on;
//! one withdrawn; switched off and on while the session runs.
//!
//! Needs root, FRR, BIRD, and bgpd built in the same profile. What is missing fails the test and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use e2e::bird::Bird;
use e2e::frr::Frr;
use e2e::netns::{self, Netns};
use e2e::process::{Launch, Process, built, tail, wait_for};
use e2e::store::{Objects, peer};
use e2e::topology::{self, Scope};
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
    node: Netns,
    source: Netns,
    sink: Netns,
    directory: PathBuf,
    objects: Objects,
    bgpd: Option<Process>,
    teller: Option<Router>,
    listener: Option<Router>,
}

impl Rig {
    fn start(kind: Kind, test: &str) -> Self {
        topology::remove_stale_tests().unwrap();
        let scope = Scope::test(test);
        let [node, source, sink] =
            ["n1", "source", "sink"].map(|name| Netns::create(scope.netns(name).name()).unwrap());
        for (link, other, number) in [("eth0", &source, 9), ("eth1", &sink, 8)] {
            let pair = format!(
                "link add {link} netns {} type veth peer name eth0 netns {}\n",
                node.name(),
                other.name()
            );
            netns::batch(&[], &pair).unwrap();
            other.ip(&format!("link set eth0 up\naddr add 10.{number}.0.3/24 dev eth0\n")).unwrap();
            node.ip(&format!("link set {link} up\naddr add 10.{number}.0.2/24 dev {link}\n")).unwrap();
        }
        // FRR takes its second path from the kernel.
        source.ip(&format!("route add {PREFIX} via {OTHER_HOP} dev eth0 onlink\n")).unwrap();
        let directory = std::env::temp_dir().join(scope.router("files"));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let objects = Objects::create(&directory.join("objects")).unwrap();
        let mut rig =
            Self { node, source, sink, directory, objects, bgpd: None, teller: None, listener: None };
        rig.put_objects();
        rig.start_bgpd();
        let start = |name: &str, netns: &Netns, configs: [String; 2]| match kind {
            Kind::Frr => {
                Router::Frr(Frr::start(&scope.router(name), netns, &rig.directory, &configs[0]).expect("FRR"))
            }
            Kind::Bird => Router::Bird(Bird::start(name, netns, &rig.directory, &configs[1]).expect("BIRD")),
        };
        let teller = start("source", &rig.source, [frr_source(), bird_source()]);
        let listener = start("sink", &rig.sink, [frr_sink(), bird_sink()]);
        (rig.teller, rig.listener) = (Some(teller), Some(listener));
        rig
    }

    fn put_objects(&self) {
        let put = |name: &str, text: &str| self.objects.put(name, text).unwrap();
        put(
            "fabricconfigurations.manx.dev/default",
            "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {name: default}\nspec:\n  \
             topology: {mode: None}\n  session: {timers: {hold: 9s, connectRetry: 1s}}\n",
        );
        put(
            "ippools.manx.dev/p0",
            "apiVersion: manx.dev/v1alpha1\nkind: IPPool\nmetadata: {name: p0}\nspec: {cidr: \"10.244.0.0/16\"}\n",
        );
        put(
            "nodes/n1",
            "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus:\n  addresses:\n  \
             - {type: InternalIP, address: 10.9.0.2}\n",
        );
        put(
            "fabricnodes.manx.dev/n1",
            "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {name: n1}\nspec: {asn: 4200000001}\n",
        );
        self.put_source(true);
        let several = "  transit: true\n  session: {addPath: {send: 4}}\n";
        put("bgppeers.manx.dev/sink", &peer("sink", "10.8.0.3", 65008, several));
    }

    /// The BGPPeer of the source, which may tell several paths or one.
    fn put_source(&self, several: bool) {
        let spec = format!("  session: {{addPath: {{receive: {several}}}}}\n");
        self.objects.put("bgppeers.manx.dev/source", &peer("source", "10.9.0.3", 65009, &spec)).unwrap();
    }

    fn start_bgpd(&mut self) {
        let path = |name: &str| self.directory.join(name).to_string_lossy().into_owned();
        for name in ["run", "state"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        let (store, run, state) = (path("objects"), path("run"), path("state"));
        let words = ["--node", "n1", "--store", &store, "--run-dir", &run, "--state-dir", &state];
        let launch = Launch {
            label: "bgpd on n1".to_owned(),
            netns: self.node.clone(),
            program: built("bgpd").unwrap(),
            arguments: words.iter().map(|&word| word.to_owned()).collect(),
            capabilities: Some(&["net_admin", "net_bind_service"]),
            log: self.directory.join("bgpd.log"),
        };
        self.bgpd = Some(launch.start().unwrap());
    }

    fn ask(&self, question: &str) -> Value {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.directory.join("run/bgpd.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(question.as_bytes())?;
            stream.write_all(b"\n")?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        };
        serde_json::from_str(&ask().unwrap_or_default()).unwrap_or_default()
    }

    /// What bgpd says of the source's paths: path identifier and whether it is in use, by next hop.
    fn paths(&self) -> BTreeSet<(String, Option<u64>, bool)> {
        let answer = self.ask(&format!("{{\"verb\": \"routes\", \"prefix\": \"{PREFIX}\"}}"));
        let rows = answer["routes"].as_array().cloned().unwrap_or_default();
        let row = |row: &Value| {
            let hop = row["nextHop"].as_str().unwrap_or_default().to_owned();
            (hop, row["pathId"].as_u64(), row["installed"] == true)
        };
        rows.iter().filter(|row| row["from"] == "source").map(row).collect()
    }

    /// The gateways of the prefix in the node's kernel.
    fn gateways(&self) -> BTreeSet<String> {
        let answer = self.node.ip_json(&["-4", "route", "show", PREFIX, "proto", "77"]).unwrap();
        let routes = answer.as_array().cloned().unwrap_or_default();
        let ways = routes.iter().flat_map(|route| {
            let several = route["nexthops"].as_array().cloned().unwrap_or_default();
            if several.is_empty() { vec![route.clone()] } else { several }
        });
        ways.filter_map(|way| Some(way["gateway"].as_str()?.to_owned())).collect()
    }

    /// How many paths the sink has.
    fn told(&self) -> usize {
        match self.listener.as_ref().unwrap() {
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
            let log = tail(&self.directory.join("bgpd.log"), 30);
            panic!(
                "not within {PATIENCE:?}: {what}\nbgpd: {:?}\nkernel: {:?}\nsink: {}\n{}\n{log}",
                self.paths(),
                self.gateways(),
                self.told(),
                self.ask("{\"verb\": \"peers\"}")
            );
        }
    }

    /// The source withdraws its path by the other next hop, or tells it again.
    fn tell_other_path(&self, on: bool) {
        match self.teller.as_ref().unwrap() {
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

impl Drop for Rig {
    fn drop(&mut self) {
        self.bgpd = None;
        for router in [self.teller.take(), self.listener.take()] {
            if let Some(Router::Frr(router)) = router {
                router.stop();
            }
        }
        let _ = netns::remove([self.node.name(), self.source.name(), self.sink.name()]);
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
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
    rig.put_source(false);
    let one = || {
        let paths = rig.paths();
        paths.len() == 1 && paths.iter().all(|path| path.1.is_none()) && rig.told() == 1
    };
    let what = || format!("{:?}, at the sink {}", rig.paths(), rig.told());
    assert!(wait_for(PATIENCE, || one().then_some(())).is_some(), "one path without identifier: {}", what());
    let log = fs::read_to_string(rig.directory.join("bgpd.log")).unwrap();
    assert!(log.contains("the configuration of the session changed"), "{log}");
    rig.put_source(true);
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
