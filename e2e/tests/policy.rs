//! Route policy against FRR: BGPFilters, drain and what FRR's own drain does here, all of it hot.
//!
//! Needs root, FRR, and bgpd built in the same profile. What is missing fails the test and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use e2e::frr::Frr;
use e2e::netns::{self, Netns};
use e2e::process::{Launch, Process, built, tail, wait_for};
use e2e::store::{Objects, peer};
use e2e::topology::{self, Scope};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// A block of another node, which the default import policy takes.
const PODS: &str = "10.244.7.0/26";
/// Outside the pools, which it does not.
const LAB: &str = "198.51.100.0/24";
/// What the node announces.
const BLOCK: &str = "10.244.0.0/26";
const FILTER: &str = "bgpfilters.manx.dev/tor";

/// bgpd in one namespace, FRR in another, a link between them.
struct Lab {
    node: Netns,
    router: Netns,
    directory: PathBuf,
    objects: Objects,
    frr: Frr,
    bgpd: Process,
}

impl Lab {
    fn new(test: &str) -> Self {
        topology::remove_stale_tests().unwrap();
        let scope = Scope::test(test);
        let [node, router] = ["n1", "peer"].map(|name| Netns::create(scope.netns(name).name()).unwrap());
        let link =
            format!("link add eth0 netns {} type veth peer name eth0 netns {}\n", node.name(), router.name());
        netns::batch(&[], &link).unwrap();
        for (netns, number) in [(&router, 1), (&node, 2)] {
            netns.sysctl(&[("ipv4/ip_forward", "1")]).unwrap();
            netns.ip(&format!("link set eth0 up\naddr add 10.9.0.{number}/24 dev eth0\n")).unwrap();
        }
        let directory = std::env::temp_dir().join(scope.router("files"));
        for name in ["run", "state"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        let objects = objects(&directory.join("objects"));
        let config = format!(
            "frr defaults datacenter\nhostname peer\nrouter bgp 65001\n bgp router-id 10.9.0.1\n no bgp network import-check\n \
             no bgp ebgp-requires-policy\n neighbor 10.9.0.2 remote-as 4200000001\n neighbor 10.9.0.2 timers connect 1\n \
             address-family ipv4 unicast\n  network {PODS}\n  network {LAB}\n exit-address-family\nexit\n"
        );
        let frr = Frr::start(&scope.router("peer"), &router, &directory, &config).expect("FRR");
        let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let (store, run, state) = (path("objects"), path("run"), path("state"));
        let words = ["--node", "n1", "--store", &store, "--run-dir", &run, "--state-dir", &state];
        let launch = Launch {
            label: "bgpd on n1".to_owned(),
            netns: node.clone(),
            program: built("bgpd").unwrap(),
            arguments: words.iter().map(|&word| word.to_owned()).collect(),
            capabilities: Some(&["net_admin", "net_bind_service"]),
            log: directory.join("bgpd.log"),
        };
        let bgpd = launch.start().unwrap();
        Self { node, router, directory, objects, frr, bgpd }
    }

    fn ask(&self, request: &str) -> Value {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.directory.join("run/bgpd.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(format!("{request}\n").as_bytes())?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        };
        serde_json::from_str(&ask().unwrap_or_default()).unwrap_or_default()
    }

    /// bgpd's word on a path from the peer.
    fn path(&self, prefix: &str) -> Value {
        let answer =
            self.ask(&format!("{{\"verb\": \"routes\", \"peer\": \"tor\", \"prefix\": \"{prefix}\"}}"));
        answer["routes"][0].clone()
    }

    fn is_rejected_by(&self, prefix: &str, why: &str) -> bool {
        let path = self.path(prefix);
        path["verdict"] == "rejected" && path["why"].as_str().is_some_and(|text| text.contains(why))
    }

    fn has_learned(&self, prefix: &str) -> bool {
        let routes = self.node.ip_json(&["-4", "route", "show", "proto", "77"]).unwrap();
        routes.as_array().unwrap().iter().any(|route| route["dst"] == prefix && route["type"] != "blackhole")
    }

    /// The block as FRR has it: AS path and communities; empty strings where it has none.
    fn heard(&self) -> (String, String) {
        let answer = self.frr.json(&format!("show bgp ipv4 unicast {BLOCK} json")).unwrap_or_default();
        let path = &answer["paths"][0];
        let text = |value: &Value| value["string"].as_str().unwrap_or_default().to_owned();
        (text(&path["aspath"]), text(&path["community"]))
    }

    /// How often the session came up, as FRR counts, and as bgpd does.
    fn sessions(&self) -> (Value, Value) {
        let neighbors = self.frr.json("show bgp neighbors 10.9.0.2 json").unwrap();
        let known = &neighbors["10.9.0.2"];
        assert_eq!(known["bgpState"], "Established", "{known:#}");
        let resets = self.ask("{\"verb\": \"peers\"}")["sessions"][0]["resets"].clone();
        (known["connectionsEstablished"].clone(), resets)
    }

    fn await_that(&self, what: &str, question: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        if wait_for(PATIENCE, || question(self).then_some(())).is_none() {
            let paths = [self.path(PODS), self.path(LAB)];
            let log = tail(&self.directory.join("bgpd.log"), 40);
            panic!("not within {PATIENCE:?}: {what}\n{paths:#?}\n{:?}\n{log}", self.heard());
        }
        println!("{what}: after {:?}", began.elapsed());
    }

    fn put_filter(&self, spec: &str) {
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: BGPFilter\nmetadata: {{name: tor}}\nspec: {{{spec}}}\n"
        );
        self.objects.put(FILTER, &text).unwrap();
    }

    fn put_peer(&self, more: &str) {
        self.objects.put("bgppeers.manx.dev/tor", &peer("tor", "10.9.0.1", 65001, more)).unwrap();
    }

    fn put_node(&self, more: &str) {
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: n1}}\nspec: {{asn: 4200000001{more}}}\n"
        );
        self.objects.put("fabricnodes.manx.dev/n1", &text).unwrap();
    }

    fn stop(mut self) {
        self.bgpd.terminate(Duration::from_secs(10)).unwrap();
        self.frr.stop();
        netns::remove([self.node.name(), self.router.name()]).unwrap();
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// One node with one block and an advertisement for it, and no peer yet.
fn objects(directory: &std::path::Path) -> Objects {
    let objects = Objects::create(directory).unwrap();
    objects.put_settings().unwrap();
    let texts = [
        (
            "nodes/n1",
            "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 10.9.0.2}]}\n",
        ),
        (
            "bgpadvertisements.manx.dev/pool-blocks",
            "apiVersion: manx.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {name: pool-blocks}\nspec: {pools: {}}\n",
        ),
        (
            "ipblocks.manx.dev/10-244-0-0-26",
            "apiVersion: manx.dev/v1alpha1\nkind: IPBlock\nmetadata: {name: 10-244-0-0-26}\nspec: {cidr: 10.244.0.0/26, \
             pool: default-ipv4, nodeName: n1}\n",
        ),
    ];
    for (name, text) in texts {
        objects.put(name, text).unwrap();
    }
    objects
}

#[test]
fn filters_and_drain_change_routes_and_no_session() {
    let lab = Lab::new("policy");
    lab.put_node("");

    // A filter that refers to nothing starts no session: it would be wider than asked for.
    lab.put_peer("  filters: [tor]\n");
    lab.await_that("no session without the filter", |lab| {
        let refused = lab.ask("{\"verb\": \"status\"}")["refusedPeers"].clone();
        refused.to_string().contains("there is no BGPFilter tor")
    });
    thread::sleep(Duration::from_secs(3));
    assert_eq!(lab.heard(), (String::new(), String::new()));

    lab.put_filter("import: []");
    lab.await_that("the default policy takes pods and nothing else", |lab| {
        lab.has_learned(PODS)
            && !lab.has_learned(LAB)
            && lab.is_rejected_by(LAB, "outside all pools; no filter takes it")
    });
    lab.await_that("the block is told plainly", |lab| {
        lab.heard() == ("4200000001".to_owned(), String::new())
    });
    let sessions = lab.sessions();

    let rules = "import: [{name: no-pods, match: {prefixes: [{cidr: 10.244.0.0/16}]}, action: Reject}, \
                 {match: {asPath: {startsWith: [65001], maxLength: 1}}, action: Accept, set: {localPreference: 300}}], \
                 export: [{match: {sources: [Block]}, action: Accept, set: {addCommunities: ['64512:7', no-export], \
                 prepend: [64513, 64513]}}]";
    lab.put_filter(rules);
    lab.await_that("what a rule rejects goes, what one takes comes", |lab| {
        !lab.has_learned(PODS)
            && lab.has_learned(LAB)
            && lab.is_rejected_by(PODS, "BGPFilter tor import \"no-pods\"")
            && lab.path(LAB)["localPreference"] == 300
    });
    let marked = ("4200000001 64513 64513".to_owned(), "64512:7 no-export".to_owned());
    lab.await_that("FRR sees what export adds", |lab| lab.heard() == marked);

    // RFC 8326: our word, then FRR's.
    lab.put_node(", adminState: Drained");
    lab.await_that("FRR is asked to go elsewhere", |lab| lab.heard().1.contains("graceful-shutdown"));
    lab.put_node("");
    lab.await_that("and to come back", |lab| lab.heard() == marked);
    lab.frr.vtysh(&["configure terminal", "router bgp 65001", "bgp graceful-shutdown"]).unwrap();
    lab.await_that("FRR's routes are the last choice", |lab| lab.path(LAB)["localPreference"] == 0);
    lab.frr.vtysh(&["configure terminal", "router bgp 65001", "no bgp graceful-shutdown"]).unwrap();
    lab.await_that("until it is back", |lab| lab.path(LAB)["localPreference"] == 300);

    // The filter goes: what runs keeps it.
    lab.objects.delete(FILTER).unwrap();
    lab.await_that("its absence is said", |lab| {
        lab.ask("{\"verb\": \"status\"}")["refusedPeers"].to_string().contains("there is no BGPFilter tor")
    });
    thread::sleep(Duration::from_secs(3));
    assert!(!lab.has_learned(PODS) && lab.has_learned(LAB), "the last good filters stay in force");
    assert_eq!(lab.heard(), marked);
    lab.put_peer("");
    lab.await_that("without filters the default policy is back", |lab| {
        lab.has_learned(PODS)
            && !lab.has_learned(LAB)
            && lab.heard() == ("4200000001".to_owned(), String::new())
    });
    assert_eq!(lab.sessions(), sessions, "one session all along");
    lab.stop();
}
