//! Route policy against FRR: BGPFilters, drain and what FRR's own drain does here, all of it hot.
//!
//! Needs root, FRR, and bgpd built in the same profile. What is missing fails the test and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::thread;
use std::time::{Duration, Instant};

use e2e::bgpd_node::BgpdNode;
use e2e::frr::Frr;
use e2e::lab::{Lab, link};
use e2e::process::{tail, wait_for};
use e2e::store::{Objects, peer};
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
struct Rig {
    node: BgpdNode,
    frr: Frr,
    // Last: what is above runs in its namespaces.
    _lab: Lab,
}

impl Rig {
    fn new(test: &str) -> Self {
        let mut lab = Lab::new(test).unwrap();
        let [n1, router] = ["n1", "peer"].map(|name| lab.space(name).unwrap());
        link((&n1, "eth0", &["10.9.0.2/24"]), (&router, "eth0", &["10.9.0.1/24"])).unwrap();
        let config = format!(
            "frr defaults datacenter\nhostname peer\nrouter bgp 65001\n bgp router-id 10.9.0.1\n no bgp network import-check\n \
             no bgp ebgp-requires-policy\n neighbor 10.9.0.2 remote-as 4200000001\n neighbor 10.9.0.2 timers connect 1\n \
             address-family ipv4 unicast\n  network {PODS}\n  network {LAB}\n exit-address-family\nexit\n"
        );
        let frr = Frr::start(&lab.router("peer"), &router, lab.directory(), &config).expect("FRR");
        let mut node = BgpdNode::new("n1", &n1, lab.directory()).unwrap();
        put_objects(&node.objects);
        node.start(&[]).unwrap();
        Self { node, frr, _lab: lab }
    }

    /// bgpd's word on a path from the peer.
    fn path(&self, prefix: &str) -> Value {
        let answer =
            self.node.ask(&format!("{{\"verb\": \"routes\", \"peer\": \"tor\", \"prefix\": \"{prefix}\"}}"));
        answer["routes"][0].clone()
    }

    fn is_rejected_by(&self, prefix: &str, why: &str) -> bool {
        let path = self.path(prefix);
        path["verdict"] == "rejected" && path["why"].as_str().is_some_and(|text| text.contains(why))
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
        let resets = self.node.session("tor")["resets"].clone();
        (known["connectionsEstablished"].clone(), resets)
    }

    fn await_that(&self, what: &str, question: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        if wait_for(PATIENCE, || question(self).then_some(())).is_none() {
            let paths = [self.path(PODS), self.path(LAB)];
            let log = tail(&self.node.log(), 40);
            panic!("not within {PATIENCE:?}: {what}\n{paths:#?}\n{:?}\n{log}", self.heard());
        }
        println!("{what}: after {:?}", began.elapsed());
    }

    fn put_filter(&self, spec: &str) {
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: BGPFilter\nmetadata: {{name: tor}}\nspec: {{{spec}}}\n"
        );
        self.node.objects.put(FILTER, &text).unwrap();
    }

    fn put_peer(&self, more: &str) {
        self.node.objects.put("bgppeers.manx.dev/tor", &peer("tor", "10.9.0.1", 65001, more)).unwrap();
    }

    fn put_node(&self, more: &str) {
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: n1}}\nspec: {{asn: 4200000001{more}}}\n"
        );
        self.node.objects.put("fabricnodes.manx.dev/n1", &text).unwrap();
    }
}

/// One node with one block and an advertisement for it, and no peer yet.
fn put_objects(objects: &Objects) {
    objects.put_settings().unwrap();
    objects.put_node("n1", &["10.9.0.2"], 4_200_000_001, "").unwrap();
    objects.put_advertisement().unwrap();
    objects.put_block(BLOCK, "n1").unwrap();
}

#[test]
fn filters_and_drain_change_routes_and_no_session() {
    let mut rig = Rig::new("policy");
    rig.put_node("");

    // A filter that refers to nothing starts no session: it would be wider than asked for.
    rig.put_peer("  filters: [tor]\n");
    rig.await_that("no session without the filter", |rig| {
        let refused = rig.node.ask("{\"verb\": \"status\"}")["refusedPeers"].clone();
        refused.to_string().contains("there is no BGPFilter tor")
    });
    thread::sleep(Duration::from_secs(3));
    assert_eq!(rig.heard(), (String::new(), String::new()));

    rig.put_filter("import: []");
    rig.await_that("the default policy takes pods and nothing else", |rig| {
        rig.node.has_learned(PODS)
            && !rig.node.has_learned(LAB)
            && rig.is_rejected_by(LAB, "outside all pools; no filter takes it")
    });
    rig.await_that("the block is told plainly", |rig| {
        rig.heard() == ("4200000001".to_owned(), String::new())
    });
    let sessions = rig.sessions();

    let rules = "import: [{name: no-pods, match: {prefixes: [{cidr: 10.244.0.0/16}]}, action: Reject}, \
                 {match: {asPath: {startsWith: [65001], maxLength: 1}}, action: Accept, set: {localPreference: 300}}], \
                 export: [{match: {sources: [Block]}, action: Accept, set: {addCommunities: ['64512:7', no-export], \
                 prepend: [64513, 64513]}}]";
    rig.put_filter(rules);
    rig.await_that("what a rule rejects goes, what one takes comes", |rig| {
        !rig.node.has_learned(PODS)
            && rig.node.has_learned(LAB)
            && rig.is_rejected_by(PODS, "BGPFilter tor import \"no-pods\"")
            && rig.path(LAB)["localPreference"] == 300
    });
    let marked = ("4200000001 64513 64513".to_owned(), "64512:7 no-export".to_owned());
    rig.await_that("FRR sees what export adds", |rig| rig.heard() == marked);

    // RFC 8326: our word, then FRR's.
    rig.put_node(", adminState: Drained");
    rig.await_that("FRR is asked to go elsewhere", |rig| rig.heard().1.contains("graceful-shutdown"));
    rig.put_node("");
    rig.await_that("and to come back", |rig| rig.heard() == marked);
    rig.frr.vtysh(&["configure terminal", "router bgp 65001", "bgp graceful-shutdown"]).unwrap();
    rig.await_that("FRR's routes are the last choice", |rig| rig.path(LAB)["localPreference"] == 0);
    rig.frr.vtysh(&["configure terminal", "router bgp 65001", "no bgp graceful-shutdown"]).unwrap();
    rig.await_that("until it is back", |rig| rig.path(LAB)["localPreference"] == 300);

    // The filter goes: what runs keeps it.
    rig.node.objects.delete(FILTER).unwrap();
    rig.await_that("its absence is said", |rig| {
        rig.node.ask("{\"verb\": \"status\"}")["refusedPeers"]
            .to_string()
            .contains("there is no BGPFilter tor")
    });
    thread::sleep(Duration::from_secs(3));
    assert!(!rig.node.has_learned(PODS) && rig.node.has_learned(LAB), "the last good filters stay in force");
    assert_eq!(rig.heard(), marked);
    rig.put_peer("");
    rig.await_that("without filters the default policy is back", |rig| {
        rig.node.has_learned(PODS)
            && !rig.node.has_learned(LAB)
            && rig.heard() == ("4200000001".to_owned(), String::new())
    });
    assert_eq!(rig.sessions(), sessions, "one session all along");
    rig.node.terminate(Duration::from_secs(10)).unwrap();
    rig.frr.stop();
}
