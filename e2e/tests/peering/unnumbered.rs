//! Neighbours on interfaces: `interface`, without an address on either end (api.md §11, unnumbered leaf–spine).

use std::thread::sleep;
use std::time::{Duration, Instant};

use e2e::bird::Bird;
use e2e::frr::{Arguments, Frr};
use e2e::lab::{Lab, link};
use e2e::netns::{Netns, stdout_of};

use crate::node::{Node, alone};

/// What leaves have in the pools, and the address there that answers.
const PODS: [(&str, &str); 2] =
    [("10.244.7.0/26", "10.244.7.1"), ("fd00:10:244::7:0/122", "fd00:10:244::7:1")];
/// The node is its loopback.
const NODE: [&str; 2] = ["10.99.0.1", "fd99::1"];
const OWN: &str = "10.244.0.0/26";

/// n1 eno1 ── eth1 a, and n1 eno2 ── eth1 b; no link has an address but what IPv6 gives it.
struct Fabric {
    lab: Lab,
    leaves: [Netns; 2],
    node: Node,
}

fn fabric(test: &str) -> Fabric {
    let mut lab = Lab::new(test).unwrap();
    let [n1, a, b] = ["n1", "a", "b"].map(|name| lab.space(name).unwrap());
    n1.ip(&format!("addr add {}/32 dev lo\naddr add {}/128 dev lo\n", NODE[0], NODE[1])).unwrap();
    for (leaf, port) in [(&a, "eno1"), (&b, "eno2")] {
        link((&n1, port, &[]), (leaf, "eth1", &[])).unwrap();
        leaf.ip(&format!("addr add {}/32 dev lo\naddr add {}/128 dev lo\n", PODS[0].1, PODS[1].1)).unwrap();
    }
    let node = Node::new("n1", &n1, lab.directory(), &NODE, 4_200_000_001);
    node.claim(OWN);
    let loopbacks = "apiVersion: manx.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {name: loopbacks}\nspec: \
                     {nodeAddresses: {}}\n";
    node.objects.put("bgpadvertisements.manx.dev/loopbacks", loopbacks).unwrap();
    Fabric { lab, leaves: [a, b], node }
}

impl Fabric {
    fn frr(&self, at: usize) -> Frr {
        let name = ["a", "b"][at];
        let config = format!(
            "frr defaults datacenter\nhostname {name}\ninterface eth1\n ipv6 nd ra-interval 10\n no ipv6 nd suppress-ra\nexit\n\
             router bgp {asn}\n bgp router-id 10.99.1.{id}\n no bgp network import-check\n no bgp default ipv4-unicast\n \
             neighbor eth1 interface remote-as external\n neighbor eth1 timers 3 9\n neighbor eth1 timers connect 1\n \
             neighbor eth1 bfd\n \
             address-family ipv4 unicast\n  network {v4}\n  neighbor eth1 activate\n exit-address-family\n \
             address-family ipv6 unicast\n  network {v6}\n  neighbor eth1 activate\n exit-address-family\nexit\n",
            asn = 65001 + at,
            id = at + 1,
            v4 = PODS[0].0,
            v6 = PODS[1].0,
        );
        let arguments = Arguments { beside: &["bfdd"], ..Arguments::default() };
        let router = self.lab.router(name);
        Frr::start_with(&router, &self.leaves[at], self.lab.directory(), &config, arguments).expect("FRR")
    }

    /// The kernel's next hops of a prefix: gateway and interface, in order of the interface.
    fn next_hops(&self, prefix: &str) -> Vec<(String, String)> {
        let route = self.node.route(prefix);
        let all = match route["nexthops"].as_array() {
            Some(several) => several.clone(),
            None if route.is_null() => Vec::new(),
            None => vec![route],
        };
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let gateway = |hop: &serde_json::Value| match hop["via"]["host"].as_str() {
            Some(host) => format!("via {} {host}", hop["via"]["family"].as_str().unwrap_or_default()),
            None => text(&hop["gateway"]),
        };
        let mut hops: Vec<_> = all.iter().map(|hop| (text(&hop["dev"]), gateway(hop))).collect();
        hops.sort();
        hops
    }

    /// The link-local address of a leaf's end.
    fn link_local(&self, at: usize) -> String {
        let links = self.leaves[at].ip_json(&["-6", "addr", "show", "dev", "eth1", "scope", "link"]).unwrap();
        links[0]["addr_info"][0]["local"].as_str().unwrap().to_owned()
    }

    fn has(&self, prefix: &str, expected: &[(&str, String)]) -> bool {
        let expected: Vec<_> = expected.iter().map(|(dev, via)| ((*dev).to_owned(), via.clone())).collect();
        self.next_hops(prefix) == expected
    }

    /// Pings from the node's own address; how many of these came back.
    fn pings(&self, to: &str, count: u32) -> u32 {
        let from = if to.contains(':') { NODE[1] } else { NODE[0] };
        let mut ping = self.node.netns.command("ping");
        ping.args(["-q", "-i", "0.05", "-W", "1", "-c", &count.to_string(), "-I", from, to]);
        let text = stdout_of(ping).unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "received,").unwrap_or(0);
        words.get(at.wrapping_sub(1)).and_then(|word| word.parse().ok()).unwrap_or(0)
    }
}

fn profile(node: &Node) {
    let text = "apiVersion: manx.dev/v1alpha1\nkind: BFDProfile\nmetadata: {name: default}\nspec: {}\n";
    node.objects.put("bfdprofiles.manx.dev/default", text).unwrap();
}

/// The example of api.md §11 against FRR 8.4 on two uplinks.
#[test]
fn both_families_over_two_uplinks_without_an_address() {
    let _alone = alone();
    let mut fabric = fabric("unnumbered-frr");
    profile(&fabric.node);
    let routers = [fabric.frr(0), fabric.frr(1)];
    fabric.node.peer("leaf-a", "interface: eno1, asnType: External, session: {bfdProfile: default}");
    fabric.node.peer("leaf-b", "interface: eno2, asnType: External, session: {bfdProfile: default}");
    let began = Instant::now();
    fabric.node.start();
    fabric.node.await_that("both up", |node| node.is_up("leaf-a") && node.is_up("leaf-b"));
    println!("up {:?} after the start of bgpd", began.elapsed());
    let [a, b] = [0, 1].map(|at| fabric.link_local(at));
    // IPv4 and IPv6 by way of both, in the real kernel.
    let via = |address: &String| format!("via inet6 {address}");
    fabric.node.await_that("IPv4 by way of both", |_| {
        fabric.has(PODS[0].0, &[("eno1", via(&a)), ("eno2", via(&b))])
    });
    fabric.node.await_that("IPv6 by way of both", |_| {
        fabric.has(PODS[1].0, &[("eno1", a.clone()), ("eno2", b.clone())])
    });
    for (_, address) in PODS {
        fabric.node.await_that(&format!("ping {address}"), |_| fabric.pings(address, 1) == 1);
        assert_eq!(fabric.pings(address, 20), 20, "{address}");
    }
    // What it is called.
    let session = fabric.node.session("leaf-a");
    assert_eq!(session["remote"], format!("{a}%eno1"));
    assert!(session["localAddress"].as_str().unwrap().ends_with("%eno1"), "{session}");
    assert!(session["capabilities"].to_string().contains("ExtendedNextHop"), "{session}");
    fabric.node.await_that("its object says so", |node| {
        node.status("leaf-a")["remoteAddress"] == format!("{a}%eno1")
            && node.status("leaf-a")["sourceReason"]
                == "link-local address of eno1, the interface of the peer"
    });
    fabric.node.await_that("BFD is up on both", |node| {
        ["leaf-a", "leaf-b"].iter().all(|peer| node.session(peer)["bfd"] == "Up")
    });
    nothing_is_repaired(&fabric);
    restart(&mut fabric);
    link_down(&fabric, &a, &b);
    routers.into_iter().for_each(Frr::stop);
}

/// The kernel's listing reads back as what was written: at rest nothing is written again.
fn nothing_is_repaired(fabric: &Fabric) {
    let mut monitor = fabric.node.netns.command("ip");
    monitor.args(["-4", "monitor", "route"]).stdout(std::process::Stdio::piped());
    let mut monitor = monitor.spawn().unwrap();
    sleep(Duration::from_millis(300));
    // A new link makes bgpd look at every route of its own.
    fabric.node.netns.ip("link add probe type veth peer name eborp\nlink set probe up\n").unwrap();
    sleep(Duration::from_secs(2));
    fabric.node.netns.ip("link del probe\n").unwrap();
    sleep(Duration::from_secs(1));
    monitor.kill().unwrap();
    let said = monitor.wait_with_output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(!said.contains("10.244.7.0"), "{said}");
}

/// bgpd is killed and comes back: until both leaves have told their routes again, the kernel keeps those of before.
fn restart(fabric: &mut Fabric) {
    let mut monitor = fabric.node.netns.command("ip");
    monitor.args(["-4", "monitor", "route"]).stdout(std::process::Stdio::piped());
    let mut monitor = monitor.spawn().unwrap();
    sleep(Duration::from_millis(300));
    fabric.node.kill().unwrap();
    fabric.node.start();
    fabric.node.await_that("both up again", |node| node.is_up("leaf-a") && node.is_up("leaf-b"));
    monitor.kill().unwrap();
    let said = String::from_utf8(monitor.wait_with_output().unwrap().stdout).unwrap();
    assert!(!said.contains("Deleted 10.244.7.0"), "{said}");
    fabric.node.await_that("BFD is up on both again", |node| {
        ["leaf-a", "leaf-b"].iter().all(|peer| node.session(peer)["bfd"] == "Up")
    });
    // FRR 8.4 takes the BFD session of a bgpd that begins anew for a failed path, and lets go of our routes for a moment.
    fabric.node.await_that("the way back is there again", |_| fabric.pings(PODS[0].1, 20) == 20);
}

/// The far end of one uplink loses its carrier: its routes go at once, and come back with it.
fn link_down(fabric: &Fabric, a: &str, b: &str) {
    let began = Instant::now();
    fabric.leaves[0].ip("link set eth1 down\n").unwrap();
    let alone = |address: &str, via: String| fabric.has(address, &[("eno2", via)]);
    while !(alone(PODS[0].0, format!("via inet6 {b}")) && alone(PODS[1].0, b.to_owned())) {
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", fabric.next_hops(PODS[0].0));
        sleep(Duration::from_millis(5));
    }
    println!("one way alone {:?} after the link went down", began.elapsed());
    let session = fabric.node.session("leaf-a");
    assert_eq!(
        (session["reason"].as_str(), session["message"].as_str()),
        (Some("InterfaceDown"), Some("interface eno1 has no carrier"))
    );
    assert_eq!(fabric.pings(PODS[0].1, 20), 20);
    fabric.leaves[0].ip("link set eth1 up\n").unwrap();
    fabric.node.await_that("found again", |node| node.is_up("leaf-a"));
    fabric.node.await_that("by way of both again", |_| {
        fabric.has(PODS[0].0, &[("eno1", format!("via inet6 {a}")), ("eno2", format!("via inet6 {b}"))])
    });
}

/// Nobody is there; then somebody, then somebody else; then the interface itself is gone and made anew.
#[test]
fn whoever_is_there_is_the_neighbour() {
    let mut fabric = fabric("unnumbered-who");
    fabric.node.peer("leaf-a", "interface: eno1, asnType: External, session: {timers: {hold: 9s}}");
    fabric.node.peer("leaf-x", "interface: eno7, asnType: External");
    fabric.node.start();
    fabric.node.await_that("nobody is there, and its object says so", |node| {
        let (status, reason, message) = node.established("leaf-a");
        (status.as_str(), reason.as_str()) == ("False", "NeighborNotFound")
            && message.starts_with("no router was heard on eno1: expected router advertisements (RFC 4861)")
    });
    assert!(fabric.node.status("leaf-a")["remoteAddress"].is_null());
    fabric.node.await_that("and where there is no interface, so does that one", |node| {
        let (_, reason, message) = node.established("leaf-x");
        reason == "InterfaceDown"
            && message == "spec.interface eno7: this node has no such interface: create it, or name another"
    });
    let first = fabric.frr(0);
    fabric.node.await_that("somebody", |node| node.is_up("leaf-a"));
    let before = fabric.link_local(0);
    first.stop();
    // Another box on the same cable.
    fabric.leaves[0].ip("addr flush dev eth1 scope link\naddr add fe80::77/64 dev eth1\n").unwrap();
    assert_ne!(fabric.link_local(0), before);
    let second = fabric.frr(0);
    fabric.node.await_that("somebody else", |node| {
        node.is_up("leaf-a") && node.session("leaf-a")["remote"] == "fe80::77%eno1"
    });
    fabric
        .node
        .await_that("its routes", |_| fabric.has(PODS[0].0, &[("eno1", "via inet6 fe80::77".to_owned())]));
    // The interface goes, with everything on it.
    fabric.node.netns.ip("link del eno1\n").unwrap();
    fabric.node.await_that("the interface is gone", |node| {
        node.session("leaf-a")["reason"] == "InterfaceDown" && node.route(PODS[0].0).is_null()
    });
    link((&fabric.node.netns, "eno1", &[]), (&fabric.leaves[0], "eth1", &[])).unwrap();
    fabric.node.await_that("found again", |node| node.is_up("leaf-a"));
    second.stop();
}

/// BIRD waits for whoever dials; its radv says that it is there. Distance is proven by GTSM, the session is signed.
#[test]
fn bird_is_found_by_its_advertisements() {
    let mut fabric = fabric("unnumbered-bird");
    let config = format!(
        "router id 10.99.1.1;\nprotocol device {{ scan time 1; }}\nprotocol kernel {{ ipv4 {{ export all; }}; }}\n\
         protocol kernel {{ ipv6 {{ export all; }}; }}\n\
         protocol static {{ ipv4; route {} blackhole; }}\nprotocol static {{ ipv6; route {} blackhole; }}\n\
         protocol radv {{ interface \"eth1\" {{ max ra interval 10; default lifetime 0; }}; }}\n\
         protocol bgp node {{ local as 65001; neighbor range fe80::/10 external; interface \"eth1\"; dynamic name \"node\"; \
         ttl security on; password \"one\";\n\
         ipv4 {{ import all; export where source = RTS_STATIC; extended next hop on; }};\n\
         ipv6 {{ import all; export where source = RTS_STATIC; }}; }}\n",
        PODS[0].0, PODS[1].0
    );
    let bird = Bird::start("a", &fabric.leaves[0], fabric.lab.directory(), &config).expect("BIRD");
    fabric.node.objects.put_secret("manx-secrets", "tor-keys", "r12", "one").unwrap();
    fabric.node.peer(
        "leaf-a",
        "interface: eno1, asn: 65001, session: {ttlSecurity: true, auth: {md5: {secretRef: {name: tor-keys, key: r12}}}}",
    );
    fabric.node.start();
    fabric.node.await_that("up", |node| node.is_up("leaf-a"));
    let leaf = fabric.link_local(0);
    fabric.node.await_that("IPv4", |_| fabric.has(PODS[0].0, &[("eno1", format!("via inet6 {leaf}"))]));
    fabric.node.await_that("IPv6", |_| fabric.has(PODS[1].0, &[("eno1", leaf.clone())]));
    for (_, address) in PODS {
        fabric.node.await_that(&format!("ping {address}"), |_| fabric.pings(address, 1) == 1);
    }
    drop(bird);
}
