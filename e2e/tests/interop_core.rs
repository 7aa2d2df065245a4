//! bgpd against FRR and BIRD: session, IPv4 and IPv6 both ways, route refresh, graceful restart, clean stop.
//!
//! Needs root, FRR, BIRD, and bgpd built in the same profile. What is missing fails the test and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::bgpd_node::BgpdNode;
use e2e::bird::Bird;
use e2e::frr::Frr;
use e2e::lab::Lab;
use e2e::netns::Netns;
use e2e::process::{tail, wait_for};
use e2e::store::{Objects, block_name, peer};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// What bgpd announces and what the peer announces inside the pools.
const OWN: [&str; 2] = ["10.244.0.0/26", "fd00:10:244::/122"];
const THEIRS: [&str; 2] = ["10.244.7.0/26", "fd00:10:244::700/122"];
/// The node's.
const ADDRESSES: [&str; 2] = ["10.9.0.2", "fd09::2"];
/// Outside all pools: never imported.
const STRANGE: [&str; 2] = ["192.0.2.0/24", "2001:db8:77::/48"];

enum Peer {
    Frr(Frr),
    Bird(Bird),
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Frr,
    Bird,
}

/// One node with bgpd, one peer, one link.
struct Rig {
    node: BgpdNode,
    peer: Peer,
    router: Netns,
    lab: Lab,
}

impl Rig {
    fn start(kind: Kind, test: &str) -> Self {
        let mut lab = Lab::new(test).unwrap();
        let [n1, router] = lab.node_and_peer().unwrap();
        let mut node = BgpdNode::new("n1", &n1, lab.directory()).unwrap();
        put_objects(&node.objects);
        node.start(&[]).unwrap();
        let peer = match kind {
            Kind::Frr => Peer::Frr(
                Frr::start(&lab.router("peer"), &router, lab.directory(), &frr_config()).expect("FRR"),
            ),
            Kind::Bird => {
                Peer::Bird(Bird::start("peer", &router, lab.directory(), &bird_config()).expect("BIRD"))
            }
        };
        Self { node, peer, router, lab }
    }

    /// Waits for something, and shows both ends when it does not come.
    fn await_that(&self, what: &str, question: impl Fn(&Self) -> bool) {
        if wait_for(PATIENCE, || question(self).then_some(())).is_none() {
            panic!(
                "not within {PATIENCE:?}: {what}\n{}\nbgpd:\n{}",
                self.peer.describe(),
                tail(&self.node.log(), 40)
            );
        }
    }

    /// The node's routes of bgpd: destination, gateway, metric.
    fn learned(&self) -> Vec<(String, String, u64)> {
        let mut routes = Vec::new();
        for family in ["-4", "-6"] {
            for route in self.node.routes(family).unwrap() {
                let text = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
                let gateway =
                    if route["type"] == "blackhole" { "blackhole".to_owned() } else { text("gateway") };
                routes.push((text("dst"), gateway, route["metric"].as_u64().unwrap_or_default()));
            }
        }
        routes.sort();
        routes
    }

    fn converged(&self) -> bool {
        OWN.iter().all(|prefix| self.peer.path(prefix).is_some_and(|path| !path.stale))
            && THEIRS.iter().all(|prefix| self.node.has_learned(prefix))
    }
}

fn put_objects(objects: &Objects) {
    objects.put_settings().unwrap();
    for block in OWN {
        objects.put_block(block, "n1").unwrap();
    }
    objects.put("bgppeers.manx.dev/peer", &peer("peer", "10.9.0.1", 65001, "")).unwrap();
    objects.put_advertisement().unwrap();
    objects.put_node("n1", &ADDRESSES, 4_200_000_001, "").unwrap();
}

fn frr_config() -> String {
    let [their4, their6] = THEIRS;
    let [strange4, strange6] = STRANGE;
    let family = |name: &str, networks: [&str; 2]| {
        format!(
            " address-family {name} unicast\n  network {}\n  network {}\n  neighbor 10.9.0.2 activate\n  \
             neighbor 10.9.0.2 default-originate\n exit-address-family\n",
            networks[0], networks[1]
        )
    };
    format!(
        "frr defaults datacenter\nhostname peer\nrouter bgp 65001\n bgp router-id 10.9.0.1\n bgp graceful-restart\n \
         no bgp network import-check\n neighbor 10.9.0.2 remote-as 4200000001\n neighbor 10.9.0.2 timers connect 1\n{}{}exit\n",
        family("ipv4", [their4, strange4]),
        family("ipv6", [their6, strange6])
    )
}

fn bird_config() -> String {
    let [their4, their6] = THEIRS;
    let [strange4, strange6] = STRANGE;
    format!(
        "router id 10.9.0.1;\nprotocol device {{ scan time 1; }}\n\
         protocol static {{ ipv4; route {their4} blackhole; route {strange4} blackhole; route 0.0.0.0/0 blackhole; }}\n\
         protocol static {{ ipv6; route {their6} blackhole; route {strange6} blackhole; route ::/0 blackhole; }}\n\
         protocol bgp node {{ local 10.9.0.1 as 65001; neighbor 10.9.0.2 as 4200000001; hold time 9;\n \
         connect retry time 1; connect delay time 1; graceful restart on; long lived graceful restart off;\n \
         ipv4 {{ import all; export where source = RTS_STATIC; }};\n \
         ipv6 {{ import all; export where source = RTS_STATIC; next hop self; }};\n}}\n"
    )
}

/// A path as the peer holds it.
#[derive(Debug, PartialEq)]
struct Path {
    as_path: String,
    next_hop: String,
    stale: bool,
}

impl Peer {
    /// The peer's path to one of bgpd's prefixes.
    fn path(&self, prefix: &str) -> Option<Path> {
        match self {
            Self::Frr(router) => {
                let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
                let answer = router.json(&format!("show bgp {family} unicast {prefix} json")).ok()?;
                let path = answer["paths"].as_array()?.first()?.clone();
                let hop = path["nexthops"].as_array()?.iter().find(|hop| hop["scope"] != "link-local")?;
                Some(Path {
                    as_path: path["aspath"]["string"].as_str()?.to_owned(),
                    next_hop: hop["ip"].as_str()?.to_owned(),
                    stale: path["stale"] == Value::Bool(true),
                })
            }
            Self::Bird(bird) => {
                let text = bird.ask(&format!("show route {prefix} protocol node all")).ok()?;
                let value = |key: &str| {
                    let line = text.lines().find(|line| line.trim_start().starts_with(key))?;
                    Some(line.split_once(':')?.1.trim().to_owned())
                };
                Some(Path {
                    as_path: value("BGP.as_path")?,
                    next_hop: value("BGP.next_hop")?.split_whitespace().next()?.to_owned(),
                    // While it helps, BIRD marks the routes; its protocol line says the session is not up.
                    stale: !self.established(),
                })
            }
        }
    }

    fn established(&self) -> bool {
        match self {
            Self::Frr(router) => router
                .json("show bgp neighbors 10.9.0.2 json")
                .is_ok_and(|answer| answer["10.9.0.2"]["bgpState"] == "Established"),
            Self::Bird(bird) => {
                bird.ask("show protocols node").is_ok_and(|text| text.contains("Established"))
            }
        }
    }

    /// Asks for everything again (RFC 2918).
    fn refresh(&self) {
        match self {
            Self::Frr(router) => router
                .vtysh(&[
                    "clear bgp ipv4 unicast 10.9.0.2 soft in",
                    "clear bgp ipv6 unicast 10.9.0.2 soft in",
                ])
                .map(|_| ()),
            Self::Bird(bird) => bird.ask("reload in node").map(|_| ()),
        }
        .unwrap();
    }

    /// UPDATEs that came in, or routes in them.
    fn updates(&self) -> u64 {
        match self {
            Self::Frr(router) => {
                let answer = router.json("show bgp neighbors 10.9.0.2 json").unwrap();
                answer["10.9.0.2"]["messageStats"]["updatesRecv"].as_u64().unwrap()
            }
            Self::Bird(bird) => {
                let text = bird.ask("show protocols all node").unwrap();
                text.lines()
                    .filter(|line| line.trim_start().starts_with("Import updates:"))
                    .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
                    .sum()
            }
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Frr(router) => router
                .vtysh(&["show bgp neighbors 10.9.0.2", "show bgp ipv4 unicast", "show bgp ipv6 unicast"])
                .unwrap_or_else(|error| format!("{error:#}")),
            Self::Bird(bird) => {
                let ask = |command| bird.ask(command).unwrap_or_else(|error| format!("{error:#}"));
                format!("{}{}", ask("show protocols all node"), ask("show route all"))
            }
        }
    }
}

fn both_ways(kind: Kind, test: &str) {
    let rig = Rig::start(kind, test);
    rig.await_that("routes of both families both ways", Rig::converged);
    for (prefix, next_hop) in OWN.iter().zip(ADDRESSES) {
        let path = rig.peer.path(prefix).unwrap();
        assert_eq!(
            path,
            Path { as_path: "4200000001".to_owned(), next_hop: next_hop.to_owned(), stale: false }
        );
    }
    let learned = rig.learned();
    let gateways = [vec!["10.9.0.1".to_owned()], vec!["fd09::1".to_owned(), link_local(&rig.router)]];
    for (prefix, right) in THEIRS.iter().zip(&gateways) {
        let (_, gateway, metric) = learned.iter().find(|(destination, ..)| destination == prefix).unwrap();
        assert!(right.contains(gateway), "{prefix} via {gateway}");
        assert_eq!(*metric, 512, "{prefix}");
    }
    let defaults: Vec<_> = learned.iter().filter(|(destination, ..)| destination == "default").collect();
    assert_eq!(defaults.len(), 2, "{learned:?}");
    assert!(defaults.iter().all(|(_, _, metric)| *metric == 4096), "{defaults:?}");
    assert!(STRANGE.iter().all(|prefix| !rig.node.has_learned(prefix)), "{learned:?}");
    assert!(
        OWN.iter().all(|prefix| learned.iter().any(|(d, gateway, _)| d == prefix && gateway == "blackhole"))
    );
    // What is learned is not sent back, and a block that goes is withdrawn.
    assert!(
        THEIRS
            .iter()
            .all(|prefix| rig.peer.path(prefix).is_none_or(|path| path.as_path != "4200000001 65001"))
    );
    rig.node.objects.delete(&format!("ipblocks.manx.dev/{}", block_name(OWN[0]))).unwrap();
    rig.await_that("the IPv4 block is withdrawn", |rig| rig.peer.path(OWN[0]).is_none());
    assert!(rig.peer.path(OWN[1]).is_some());
    rig.node.objects.put_block(OWN[0], "n1").unwrap();
    rig.await_that("the IPv4 block is announced again", Rig::converged);
}

fn link_local(netns: &Netns) -> String {
    let answer = netns.ip_json(&["-6", "addr", "show", "dev", "eth0", "scope", "link"]).unwrap();
    answer[0]["addr_info"][0]["local"].as_str().unwrap_or_default().to_owned()
}

fn route_refresh(kind: Kind, test: &str) {
    let rig = Rig::start(kind, test);
    rig.await_that("routes of both families both ways", Rig::converged);
    // Let what belongs to the start arrive, so that what comes next is the answer.
    thread::sleep(Duration::from_millis(500));
    let before = rig.peer.updates();
    rig.peer.refresh();
    rig.await_that("both families again after ROUTE-REFRESH", |rig| rig.peer.updates() >= before + 2);
    assert!(rig.peer.established());
    assert!(rig.converged());
}

fn graceful_restart(kind: Kind, test: &str) {
    let mut rig = Rig::start(kind, test);
    rig.await_that("routes of both families both ways", Rig::converged);
    let before = rig.learned();
    let monitor = rig.lab.directory().join("monitor");
    let mut watching = rig
        .node
        .netns
        .command("ip")
        .args(["-o", "monitor", "route"])
        .stdout(fs::File::create(&monitor).unwrap())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(200));
    rig.node.kill().unwrap();
    let stop = AtomicBool::new(false);
    let gone = thread::scope(|scope| {
        let rig_ = &rig;
        let watcher = scope.spawn(|| {
            let mut gone: Vec<&str> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                gone.extend(OWN.into_iter().filter(|prefix| rig_.peer.path(prefix).is_none()));
                thread::sleep(Duration::from_millis(20));
            }
            gone
        });
        rig_.await_that("the peer notices", |rig| !rig.peer.established());
        thread::sleep(Duration::from_secs(2));
        assert_eq!(rig_.learned(), before, "the kernel's routes while bgpd is dead");
        stop.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    assert!(gone.is_empty(), "the peer dropped {gone:?} while bgpd was dead\n{}", rig.peer.describe());
    rig.node.start(&[]).unwrap();
    let restarted = Instant::now();
    let mut missed = Vec::new();
    while !(rig.peer.established() && rig.converged()) {
        missed.extend(
            OWN.iter().filter(|prefix| rig.peer.path(prefix).is_none()).map(|&prefix| prefix.to_owned()),
        );
        missed.extend(
            THEIRS.iter().filter(|prefix| !rig.node.has_learned(prefix)).map(|&prefix| prefix.to_owned()),
        );
        assert!(
            restarted.elapsed() < PATIENCE,
            "no session again\n{}\n{}",
            rig.peer.describe(),
            tail(&rig.node.log(), 40)
        );
        thread::sleep(Duration::from_millis(20));
    }
    assert!(missed.is_empty(), "gone for a while during the restart: {missed:?}");
    // Whatever the sweep after End-of-RIB takes away, it has taken by now.
    thread::sleep(Duration::from_secs(3));
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert_eq!(rig.learned(), before, "the kernel's routes after the restart");
    let text = fs::read_to_string(&monitor).unwrap();
    let deleted: Vec<&str> =
        text.lines().filter(|line| line.starts_with("Deleted") && line.contains("proto 77")).collect();
    assert!(deleted.is_empty(), "{deleted:?}");
    assert!(rig.converged());
}

fn clean_stop(kind: Kind, test: &str) {
    let mut rig = Rig::start(kind, test);
    rig.await_that("routes of both families both ways", Rig::converged);
    let before = rig.learned();
    rig.node
        .terminate(Duration::from_secs(5))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", tail(&rig.node.log(), 20)));
    let stopped = Instant::now();
    rig.await_that("the peer sees the session end", |rig| !rig.peer.established());
    assert!(stopped.elapsed() < Duration::from_secs(3), "the peer found out by its hold timer only");
    assert_eq!(rig.learned(), before, "the kernel keeps what it had: fail static");
}

/// The addresses of a Service, one a family.
const VIPS: [&str; 2] = ["192.0.2.10/32", "2001:db8:99::10/128"];

fn service(policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{namespace: shop, name: web}}\nspec:\n  type: LoadBalancer\n  \
         clusterIP: 10.96.0.10\n  ipFamilyPolicy: RequireDualStack\n  externalTrafficPolicy: {policy}\n\
         status:\n  loadBalancer:\n    ingress:\n    - ip: 192.0.2.10\n    - ip: \"2001:db8:99::10\"\n"
    )
}

/// The only endpoint of the Service, of one family.
fn slice(family: &str, address: &str, node: &str, conditions: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\nmetadata:\n  namespace: shop\n  \
         name: web-{}\n  labels: {{kubernetes.io/service-name: web}}\nendpoints:\n\
         - {{addresses: [\"{address}\"], nodeName: {node}, conditions: {{{conditions}}}}}\n",
        family.to_lowercase()
    )
}

/// Writes the endpoint of both families.
fn put_endpoints(objects: &Objects, node: &str, conditions: &str) {
    for (family, address) in [("IPv4", "10.244.0.5"), ("IPv6", "fd00:10:244::5")] {
        let name = format!("endpointslices.discovery.k8s.io/shop/web-{}", family.to_lowercase());
        objects.put(&name, &slice(family, address, node, conditions)).unwrap();
    }
}

/// A Service's addresses come and go with its endpoints, without a route in the node's own kernel.
fn services(kind: Kind, test: &str) {
    const READY: &str = "ready: true, serving: true, terminating: false";
    const TERMINATING: &str = "ready: false, serving: true, terminating: true";
    let rig = Rig::start(kind, test);
    rig.node.objects
        .put(
            "bgpadvertisements.manx.dev/load-balancer-ips",
            "apiVersion: manx.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {name: load-balancer-ips}\nspec:\n  \
             services: {addressTypes: [LoadBalancerIP]}\n",
        )
        .unwrap();
    rig.node.objects.put("services/shop/web", &service("Cluster")).unwrap();
    rig.await_that("blocks of both families", Rig::converged);
    let told = |rig: &Rig| VIPS.map(|vip| rig.peer.path(vip).is_some());
    assert_eq!(told(&rig), [false, false], "no endpoint yet");
    put_endpoints(&rig.node.objects, "n2", READY);
    rig.await_that("both addresses of the Service, for an endpoint elsewhere", |rig| {
        told(rig) == [true, true]
    });
    for (vip, next_hop) in VIPS.iter().zip(ADDRESSES) {
        assert_eq!(rig.peer.path(vip).unwrap().next_hop, next_hop);
    }
    let kernel = rig.node.netns.ip_json(&["route", "show", "table", "all"]).unwrap().to_string();
    assert!(!kernel.contains("192.0.2.10"), "kube-proxy's address has no route of ours: {kernel}");
    // The event that marks the endpoint terminating is the one that withdraws.
    put_endpoints(&rig.node.objects, "n2", TERMINATING);
    let marked = Instant::now();
    rig.await_that("withdrawn with its only endpoint", |rig| told(rig) == [false, false]);
    println!("withdrawn {} ms after the endpoint was marked terminating", marked.elapsed().as_millis());
    put_endpoints(&rig.node.objects, "n1", READY);
    rig.await_that("announced again", |rig| told(rig) == [true, true]);
    // Local: here is an endpoint; then it is elsewhere.
    rig.node.objects.put("services/shop/web", &service("Local")).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(told(&rig), [true, true], "Local, with an endpoint on this node");
    put_endpoints(&rig.node.objects, "n2", READY);
    rig.await_that("Local, with endpoints elsewhere", |rig| told(rig) == [false, false]);
    rig.node.objects.put("services/shop/web", &service("Cluster")).unwrap();
    rig.await_that("Cluster again", |rig| told(rig) == [true, true]);
    let excluded = "node.kubernetes.io/exclude-from-external-load-balancers: \"\"";
    rig.node.objects.put_node("n1", &ADDRESSES, 4_200_000_001, excluded).unwrap();
    rig.await_that("an excluded node announces no Service", |rig| told(rig) == [false, false]);
    assert!(rig.converged(), "and its blocks as before");
}

#[test]
fn frr_services() {
    services(Kind::Frr, "frr-svc");
}

#[test]
fn frr_both_families_both_ways() {
    both_ways(Kind::Frr, "frr-ways");
}

#[test]
fn bird_both_families_both_ways() {
    both_ways(Kind::Bird, "bird-ways");
}

#[test]
fn frr_route_refresh() {
    route_refresh(Kind::Frr, "frr-refr");
}

#[test]
fn bird_route_refresh() {
    route_refresh(Kind::Bird, "bird-refr");
}

#[test]
fn frr_graceful_restart() {
    graceful_restart(Kind::Frr, "frr-gr");
}

#[test]
fn bird_graceful_restart() {
    graceful_restart(Kind::Bird, "bird-gr");
}

#[test]
fn frr_clean_stop() {
    clean_stop(Kind::Frr, "frr-stop");
}

#[test]
fn bird_clean_stop() {
    clean_stop(Kind::Bird, "bird-stop");
}
