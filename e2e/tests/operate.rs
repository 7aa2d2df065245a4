//! What an operator has of bgpd, against a real FRR: metrics over HTTP, `manxctl bgp explain` and `clear` over the socket, Events.
//!
//! Needs root, FRR, and bgpd and manxctl built in the same profile. What is missing fails the test and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use e2e::bgpd_node::BgpdNode;
use e2e::frr::{Arguments, Frr};
use e2e::lab::{Lab, link};
use e2e::process::{built, tail, wait_for};
use e2e::store::{Objects, peer};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(40);
const HEALTH: &str = "127.0.0.1:9992";

/// One node with bgpd, one router, one link; and a second peer that nobody answers for.
struct Rig {
    node: BgpdNode,
    frr: Frr,
    // Last: what is above runs in its namespaces.
    _lab: Lab,
}

impl Rig {
    fn start() -> Self {
        let mut lab = Lab::new("operate").unwrap();
        let [n1, router] = ["n1", "peer"].map(|name| lab.space(name).unwrap());
        link((&n1, "eth0", &["10.9.0.2/24"]), (&router, "eth0", &["10.9.0.1/24"])).unwrap();
        let arguments = Arguments { beside: &["bfdd"], ..Arguments::default() };
        let frr = Frr::start_with(&lab.router("peer"), &router, lab.directory(), FRR, arguments).unwrap();
        let mut node = BgpdNode::new("n1", &n1, lab.directory()).unwrap();
        put_objects(&node.objects);
        node.start(&["--health-address", HEALTH]).unwrap();
        Self { node, frr, _lab: lab }
    }

    /// Exit code, output, errors.
    fn manxctl(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(built("manxctl").unwrap());
        command
            .arg("--store")
            .arg(self.node.objects.directory())
            .arg("--run-dir")
            .arg(self.node.run_dir())
            .args(words);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn printed(&self, words: &[&str], expected_code: i32) -> String {
        let (code, out, err) = self.manxctl(words);
        assert_eq!(code, expected_code, "manxctl {words:?}\n{out}\n{err}");
        println!("$ manxctl {}\n{out}", words.join(" "));
        out
    }

    fn scrape(&self) -> (String, String) {
        let answer = self.node.netns.run(|| {
            let mut stream = TcpStream::connect(HEALTH)?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: n1\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        let answer = answer.unwrap_or_default();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        (head.to_owned(), body.to_owned())
    }

    /// The sample whose name and labels are written so.
    fn metric(&self, sample: &str) -> Option<f64> {
        let (_, body) = self.scrape();
        let line = body.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
    }

    fn neighbor(&self) -> Value {
        self.frr.json("show bgp neighbors 10.9.0.2 json").unwrap_or_default()["10.9.0.2"].clone()
    }

    fn await_that(&self, what: &str, question: impl Fn(&Self) -> bool) {
        if wait_for(PATIENCE, || question(self).then_some(())).is_none() {
            let (_, metrics) = self.scrape();
            let log = tail(&self.node.log(), 40);
            let events = self.node.objects.events();
            panic!("not within {PATIENCE:?}: {what}\n{metrics}\n{events}\n{log}\n{:#}", self.neighbor());
        }
    }

    fn has_event(&self, reason: &str) -> bool {
        self.node.objects.events().lines().any(|line| line.contains(&format!("\"reason\":\"{reason}\"")))
    }
}

const FRR: &str = "frr defaults datacenter\nhostname peer\nbfd\n profile fast\n  receive-interval 300\n  transmit-interval 300\n  \
    detect-multiplier 5\n exit\nexit\nrouter bgp 65001\n bgp router-id 10.9.0.1\n no bgp network import-check\n \
    neighbor 10.9.0.2 remote-as 4200000001\n neighbor 10.9.0.2 timers connect 1\n neighbor 10.9.0.2 bfd\n \
    neighbor 10.9.0.2 bfd profile fast\n address-family ipv4 unicast\n  network 10.244.7.0/26\n  network 10.244.8.0/26\n  \
    network 192.168.0.0/16\n exit-address-family\nexit\n";

fn put_objects(objects: &Objects) {
    let put = |name: &str, text: &str| objects.put(name, text).unwrap();
    let object = |kind: &str, name: &str, spec: &str| {
        format!("apiVersion: manx.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    let configuration = "{topology: {mode: None}, session: {timers: {hold: 30s, connectRetry: 1s}}}";
    put("fabricconfigurations.manx.dev/default", &object("FabricConfiguration", "default", configuration));
    put("ippools.manx.dev/default-ipv4", &object("IPPool", "default-ipv4", "{cidr: 10.244.0.0/16}"));
    let block = "{cidr: 10.244.0.0/26, pool: default-ipv4, nodeName: n1}";
    put("ipblocks.manx.dev/10-244-0-0-26", &object("IPBlock", "10-244-0-0-26", block));
    put("bgpadvertisements.manx.dev/pool-blocks", &object("BGPAdvertisement", "pool-blocks", "{pools: {}}"));
    let filter = "{import: [{name: no-eight, match: {prefixes: [{cidr: 10.244.8.0/26}]}, action: Reject}]}";
    put("bgpfilters.manx.dev/from-tor", &object("BGPFilter", "from-tor", filter));
    let profile = "{transmitInterval: 300ms, receiveInterval: 300ms, detectMultiplier: 5}";
    put("bfdprofiles.manx.dev/fast", &object("BFDProfile", "fast", profile));
    let tor = peer("tor", "10.9.0.1", 65001, "  filters: [from-tor]\n  session: {bfdProfile: fast}\n");
    put("bgppeers.manx.dev/tor", &tor);
    put("bgppeers.manx.dev/gone", &peer("gone", "10.9.0.9", 65009, ""));
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus:\n  addresses:\n  - {type: InternalIP, address: \
                10.9.0.2}\n";
    put("nodes/n1", node);
    put("fabricnodes.manx.dev/n1", &object("FabricNode", "n1", "{asn: 4200000001}"));
}

const TOR: &str = r#"peer="10.9.0.1""#;

#[test]
fn an_operator_sees_explains_and_clears() {
    let rig = Rig::start();
    rig.await_that("Established, BFD up, the route in the kernel", |rig| {
        rig.metric(&format!("manx_bfd_session_up{{{TOR},peer_name=\"tor\"}}")) == Some(1.0)
            && rig.metric("manx_route_programmed{family=\"IPv4Unicast\"}") == Some(2.0)
    });
    // FRR makes its BFD session anew when it knows our address, and the old one says Down: the session must have held.
    rig.await_that("the session has held for a while", |rig| {
        let since =
            rig.metric(&format!("manx_bgp_session_since_timestamp_seconds{{{TOR},peer_name=\"tor\"}}"));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        rig.metric(&format!("manx_bgp_session_up{{{TOR},peer_name=\"tor\"}}")) == Some(1.0)
            && since.is_some_and(|since| now - since > 5.0)
            && rig.metric("manx_route_programmed{family=\"IPv4Unicast\"}") == Some(2.0)
    });
    metrics(&rig);
    explanations(&rig);
    repair(&rig);
    soft_clear(&rig);
    hard_clear(&rig);
    drain(&rig);
}

/// What is scraped is what both ends say of the session.
fn metrics(rig: &Rig) {
    let (head, body) = rig.scrape();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"));
    let tor = format!("{TOR},peer_name=\"tor\"");
    for (sample, expected) in [
        (format!("manx_bgp_session_up{{{tor}}}"), 1.0),
        ("manx_bgp_session_up{peer=\"10.9.0.9\",peer_name=\"gone\"}".to_owned(), 0.0),
        (format!("manx_bgp_prefixes{{{tor},family=\"IPv4Unicast\",stage=\"received\"}}"), 4.0),
        (format!("manx_bgp_prefixes{{{tor},family=\"IPv4Unicast\",stage=\"accepted\"}}"), 1.0),
        (format!("manx_bgp_prefixes{{{tor},family=\"IPv4Unicast\",stage=\"advertised\"}}"), 1.0),
        ("manx_bgp_rib_prefixes{family=\"IPv4Unicast\"}".to_owned(), 4.0),
        ("manx_bgp_originated_prefixes{family=\"IPv4Unicast\",source=\"Block\"}".to_owned(), 1.0),
        ("manx_route_desired{family=\"IPv4Unicast\"}".to_owned(), 2.0),
        ("manx_route_pending{family=\"IPv4Unicast\"}".to_owned(), 0.0),
        ("manx_store_in_sync{component=\"bgpd\"}".to_owned(), 1.0),
        ("manx_store_disconnected_seconds{component=\"bgpd\"}".to_owned(), 0.0),
        (format!("manx_bfd_detection_time_seconds{{{TOR}}}"), 1.5),
    ] {
        assert_eq!(rig.metric(&sample), Some(expected), "{sample} in\n{body}");
    }
    // gone is not up, so the node is not ready, and the reason is a label.
    assert_eq!(rig.metric(r#"manx_node_condition{type="BGPReady",reason="SomeDown"}"#), Some(0.0));
    for least_one in [
        format!("manx_bfd_packets_total{{{TOR},direction=\"received\"}}"),
        format!("manx_bgp_messages_total{{{TOR},direction=\"received\",type=\"update\"}}"),
        "manx_bgp_decision_duration_seconds_count".to_owned(),
        "manx_bfd_send_delay_seconds_count".to_owned(),
        "manx_loop_lag_seconds_count{component=\"bgpd\"}".to_owned(),
        "manx_route_apply_duration_seconds_count".to_owned(),
        r#"manx_store_requests_total{component="bgpd",verb="list",kind="BGPPeer",code="OK"}"#.to_owned(),
        "process_resident_memory_bytes".to_owned(),
    ] {
        assert!(rig.metric(&least_one).is_some_and(|value| value >= 1.0), "{least_one} in\n{body}");
    }
    let theirs = rig.neighbor();
    let received = theirs["addressFamilyInfo"]["ipv4Unicast"]["acceptedPrefixCounter"].as_f64();
    assert_eq!(received, Some(1.0), "{theirs:#}");
}

fn explanations(rig: &Rig) {
    let explain = |prefix: &str| rig.printed(&["bgp", "explain", prefix], 0);
    let has = |text: &str, line: &str| {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.lines().any(|one| squeezed(one) == squeezed(line)), "{line:?} in\n{text}");
    };
    let own = explain("10.244.0.0/26");
    assert!(own.starts_with("10.244.0.0/26   IPBlock of default-ipv4, claimed by n1 "), "{own}");
    // FRR tells it back to us, and our AS is in its path.
    has(
        &own,
        "n1 originated as Block, by BGPAdvertisement pool-blocks; best: this node: the only accepted path",
    );
    has(&own, "tor rejected 65001 4200000001 via 10.9.0.1: our AS is in its AS_PATH");
    has(&own, "sent to tor next hop 10.9.0.2, AS path 4200000001");
    assert!(own.contains("not sent to   gone   session down: "), "{own}");
    has(&own, "kernel blackhole ok");

    let learned = explain("10.244.7.0/26");
    assert!(
        learned.starts_with("10.244.7.0/26   inside IPPool default-ipv4, in no node's IPBlock\n"),
        "{learned}"
    );
    has(&learned, "n1 received from 1 of 2 peers");
    has(&learned, "* tor accepted 65001 via 10.9.0.1: inside pool default-ipv4");
    assert!(learned.contains("    gone         never up      session "), "{learned}");
    has(&learned, "best tor: the only path");
    has(&learned, "kernel 10.244.7.0/26 via 10.9.0.1 dev eth0 ok");
    // An address stands for the prefix that holds it. Whoever is tried in vain goes from state to state.
    let steady = |text: &str| -> Vec<String> {
        let lines = text.lines().skip(1).filter(|line| !line.contains("gone"));
        lines.map(ToOwned::to_owned).collect()
    };
    assert_eq!(steady(&explain("10.244.7.9")), steady(&learned));

    let refused = explain("10.244.8.0/26");
    has(&refused, "tor rejected 65001 via 10.9.0.1: BGPFilter from-tor import \"no-eight\"");
    has(&explain("192.168.0.0/16"), "tor rejected 65001 via 10.9.0.1: outside all pools; no filter takes it");
    let unknown = explain("203.0.113.0/24");
    has(&unknown, "n1 received from none of 2 peers");
    has(&unknown, "kernel no route of ours");

    let json: Value =
        serde_json::from_str(&rig.printed(&["bgp", "explain", "10.244.7.0/26", "-o", "json"], 0)).unwrap();
    assert_eq!(json["kind"], "BGPExplainReport");
    assert_eq!(json["nodes"][0]["received"][0]["best"], true, "{json:#}");
    assert_eq!(json["nodes"][0]["kernel"]["state"], "ok", "{json:#}");
    let (code, _, err) = rig.manxctl(&["bgp", "explain", "nonsense"]);
    assert!(code == 2 && err.contains("is no prefix"), "{code} {err}");

    let wide = rig.printed(&["bgp", "peers", "-o", "wide"], 1);
    let line = wide.lines().find(|line| line.contains("Established")).unwrap();
    assert!(
        wide.lines().next().unwrap().ends_with("CAPABILITIES") && line.contains("RouteRefresh"),
        "{wide}"
    );
    assert!(line.contains(" Up "), "{wide}");
}

/// A route that somebody else removes is written again, and counted.
fn repair(rig: &Rig) {
    let repairs = r#"manx_route_repairs_total{family="IPv4Unicast"}"#;
    assert_eq!(rig.metric(repairs), Some(0.0));
    rig.node.netns.ip("route del 10.244.7.0/26 proto 77\n").unwrap();
    rig.await_that("the route is back, and counted", |rig| {
        rig.metric(repairs) == Some(1.0)
            && rig.metric("manx_route_programmed{family=\"IPv4Unicast\"}") == Some(2.0)
    });
}

fn soft_clear(rig: &Rig) {
    let stats = |rig: &Rig, key: &str| rig.neighbor()["messageStats"][key].as_u64().unwrap_or_default();
    let (refreshes, updates) = (stats(rig, "routeRefreshRecv"), stats(rig, "updatesRecv"));
    let said = rig.printed(&["bgp", "clear", "tor", "--soft", "both"], 0);
    assert!(said.contains("asked to send IPv4Unicast again (ROUTE-REFRESH)"), "{said}");
    assert!(said.contains("IPv4Unicast is sent again"), "{said}");
    rig.await_that("FRR was asked, and told again", |rig| {
        stats(rig, "routeRefreshRecv") > refreshes && stats(rig, "updatesRecv") > updates
    });
    assert_eq!(rig.metric(&format!("manx_bgp_session_up{{{TOR},peer_name=\"tor\"}}")), Some(1.0));
    let said = rig.printed(&["bgp", "clear", "gone", "--soft", "in"], 1);
    assert!(said.contains("not done: the session is not up"), "{said}");
    let said = rig.printed(&["bgp", "clear", "nobody", "--soft", "in"], 1);
    assert!(said.contains("no session of the nodes that were asked is with nobody"), "{said}");
}

fn hard_clear(rig: &Rig) {
    let (code, _, err) = rig.manxctl(&["bgp", "clear", "tor"]);
    assert!(
        code == 2 && err.contains("--yes") && err.contains("ends 1 session with tor on n1"),
        "{code} {err}"
    );
    let resets =
        format!("manx_bgp_session_resets_total{{{TOR},peer_name=\"tor\",reason=\"NotificationSent\"}}");
    assert_eq!(rig.metric(&resets), None, "nothing was done");
    // Both agreed on RFC 8538: what must not be survived leaves as a Hard Reset that says it within.
    let sent = format!("manx_bgp_notifications_total{{{TOR},direction=\"sent\",code=\"6\",subcode=\"9\"}}");
    let dropped = |rig: &Rig| rig.neighbor()["connectionsDropped"].as_u64().unwrap_or_default();
    let dropped_before = dropped(rig);
    // BFD may have ended a session so before.
    let before = rig.metric(&sent).unwrap_or(0.0);
    let said = rig.printed(&["bgp", "clear", "tor", "--yes", "-m", "fan swap, ticket 4711"], 0);
    assert!(said.contains("ended with Cease/AdministrativeReset and started again"), "{said}");
    rig.await_that("the session ended once and is back", |rig| {
        rig.metric(&resets) == Some(1.0)
            && rig.metric(&format!("manx_bgp_session_up{{{TOR},peer_name=\"tor\"}}")) == Some(1.0)
    });
    assert_eq!(rig.metric(&sent), Some(before + 1.0));
    assert!(dropped(rig) > dropped_before, "{:#}", rig.neighbor());
    // The timeline says who ended it, and with which words; an Event of this reason may have been said a moment ago.
    let log = rig.node.said();
    for words in ["session cleared by a person", "Cease/AdministrativeReset: fan swap, ticket 4711"] {
        assert!(log.contains(words), "{words} in\n{log}");
    }
    for reason in ["SessionEstablished", "SessionDown", "BFDUp"] {
        assert!(rig.has_event(reason), "{reason} in\n{}", rig.node.objects.events());
    }
}

fn drain(rig: &Rig) {
    // A session that is down is the news of BGPReady, and keeps no node from being drained.
    rig.await_that("a session is down", |rig| {
        rig.metric(r#"manx_node_condition{type="BGPReady",reason="SomeDown"}"#) == Some(0.0)
    });
    let said = rig.printed(&["node", "drain", "n1", "-m", "fan swap"], 0);
    assert!(said.contains("drained; sessions stay up"), "{said}");
    rig.await_that("the drain begins and ends", |rig| {
        rig.has_event("DrainStarted") && rig.has_event("DrainCompleted")
    });
    let explained = rig.printed(&["bgp", "explain", "10.244.0.0/26"], 0);
    assert!(explained.contains("65535:0"), "GRACEFUL_SHUTDOWN is told (RFC 8326):\n{explained}");
}
