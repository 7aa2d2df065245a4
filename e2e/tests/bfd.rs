//! BFD against FRR's bfdd and BIRD: both families, one hop and several, timers that change hot, silent loss, planned stops.
//!
//! Needs root, FRR, BIRD, nftables, and bgpd built in the same profile. What is missing fails the test and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::thread;
use std::time::{Duration, Instant};

use e2e::bgpd_node::BgpdNode;
use e2e::bird::Bird;
use e2e::frr::{Arguments, Frr};
use e2e::lab::Lab;
use e2e::netns::Netns;
use e2e::process::{tail, wait_for};
use e2e::store::{Objects, peer};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(40);
/// 300 ms five times: long enough for a machine that compiles meanwhile.
const DETECTION: Duration = Duration::from_millis(1500);
/// What is silent must be noticed by then, and is noticed by nobody else: the hold time is 60 s.
const NOTICED: Duration = Duration::from_secs(6);
/// Peers of n1: name, address, what is said of them, the address by which they know n1.
const PEERS: [(&str, &str, &str, &str); 3] = [
    ("four", "10.9.0.1", "", "10.9.0.2"),
    ("six", "fd09::1", "", "fd09::2"),
    ("far", "10.8.0.1", "  maxHops: 4\n", "10.8.0.2"),
];
const WITH_BFD: &str = "  session: {bfdProfile: fast}\n";
const OWN: &str = "10.244.0.0/26";

/// One node with bgpd, one router, one link, and an address on the loopback of each.
struct Rig {
    node: BgpdNode,
    frr: Option<Frr>,
    bird: Option<Bird>,
    router: Netns,
    lab: Lab,
}

impl Rig {
    fn new(test: &str) -> Self {
        let mut lab = Lab::new(test).unwrap();
        let [n1, router] = lab.node_and_peer().unwrap();
        for (netns, number, other) in [(&router, 1, 2), (&n1, 2, 1)] {
            let route = format!("route add 10.8.0.{other}/32 via 10.9.0.{other}\n");
            netns.ip(&format!("addr add 10.8.0.{number}/32 dev lo\n{route}")).unwrap();
        }
        let node = BgpdNode::new("n1", &n1, lab.directory()).unwrap();
        put_objects(&node.objects);
        Self { node, frr: None, bird: None, router, lab }
    }

    /// With FRR and its bfdd; every session Established, with BFD Up at both ends.
    fn with_frr(test: &str) -> Self {
        let mut rig = Self::new(test);
        rig.start_frr();
        rig.profile("300ms", 5);
        rig.peers(WITH_BFD);
        rig.start_bgpd();
        rig.settle();
        rig
    }

    fn start_frr(&mut self) {
        let config = frr_config();
        let arguments = Arguments { beside: &["bfdd"], ..Arguments::default() };
        let frr =
            Frr::start_with(&self.lab.router("peer"), &self.router, self.lab.directory(), &config, arguments);
        self.frr = Some(frr.expect("FRR"));
    }

    /// Every session Established with BFD Up at both ends, for good: FRR makes its BFD session anew when it knows which address
    /// of its own BGP runs on, and the old one says Down.
    fn settle(&self) {
        let all_up = |rig: &Self| {
            rig.all_established()
                && PEERS.iter().all(|(name, ..)| rig.bfd(name) == "Up")
                && PEERS.iter().all(|peer| rig.frr_bfd(peer.3)["status"] == "up")
        };
        let began = Instant::now();
        loop {
            self.await_that("every session Established, BFD Up at both ends", all_up);
            let before = self.resets();
            thread::sleep(2 * DETECTION);
            if all_up(self) && self.resets() == before {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "sessions flap: {:?}", self.resets());
        }
    }

    fn profile(&self, interval: &str, multiplier: u8) {
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: BFDProfile\nmetadata: {{name: fast}}\nspec: {{transmitInterval: \
             {interval}, receiveInterval: {interval}, detectMultiplier: {multiplier}}}\n"
        );
        self.node.objects.put("bfdprofiles.manx.dev/fast", &text).unwrap();
    }

    fn peers(&self, session: &str) {
        for (name, address, more, _) in PEERS {
            let text = peer(name, address, 65001, &format!("{more}{session}"));
            self.node.objects.put(&format!("bgppeers.manx.dev/{name}"), &text).unwrap();
        }
    }

    fn start_bgpd(&mut self) {
        self.node.start(&[]).unwrap();
    }

    /// What bgpd says of one session at this moment.
    fn live(&self, name: &str) -> Value {
        self.node.session(name)
    }

    fn bfd(&self, name: &str) -> String {
        self.live(name)["bfd"].as_str().unwrap_or_default().to_owned()
    }

    fn is_established(&self, name: &str) -> bool {
        self.node.is_up(name)
    }

    fn all_established(&self) -> bool {
        PEERS.iter().all(|(name, ..)| self.is_established(name))
    }

    fn resets(&self) -> Vec<Value> {
        PEERS.iter().map(|(name, ..)| self.live(name)["resets"].clone()).collect()
    }

    /// Status and reason of condition BFDUp, as it was last written.
    fn bfd_up(&self, name: &str) -> (String, String) {
        let (status, reason, _) = self.node.condition(name, "BFDUp");
        (status, reason)
    }

    fn frr(&self) -> &Frr {
        self.frr.as_ref().unwrap()
    }

    /// FRR's BFD session with this address of ours.
    fn frr_bfd(&self, address: &str) -> Value {
        let answer = self.frr().json("show bfd peers json").unwrap_or_default();
        let peers = answer.as_array().cloned().unwrap_or_default();
        peers.into_iter().find(|peer| peer["peer"] == address).unwrap_or_default()
    }

    /// How often FRR's BFD session went down.
    fn frr_downs(&self, address: &str) -> u64 {
        let answer = self.frr().json("show bfd peers counters json").unwrap_or_default();
        let peers = answer.as_array().cloned().unwrap_or_default();
        let peer = peers.into_iter().find(|peer| peer["peer"] == address).unwrap_or_default();
        peer["session-down"].as_u64().unwrap()
    }

    fn nft(&self, rules: &str) {
        let status = self.router.command("nft").arg(rules).status().unwrap();
        assert!(status.success(), "nft {rules}");
    }

    /// Whatever crosses the link is lost, and nobody is told.
    fn cut(&self) {
        self.nft(
            "table inet cut { chain in { type filter hook prerouting priority -300; iifname eth0 drop; }; \
             chain out { type filter hook postrouting priority 300; oifname eth0 drop; }; }",
        );
    }

    fn mend(&self) {
        self.nft("delete table inet cut");
    }

    /// Waits for something, and shows both ends when it does not come.
    fn await_that(&self, what: &str, question: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        if wait_for(PATIENCE, || question(self).then_some(())).is_none() {
            let there = match (&self.frr, &self.bird) {
                (Some(frr), _) => frr.vtysh(&["show bfd peers", "show bgp summary", "show bgp ipv4 unicast"]),
                (None, Some(bird)) => {
                    Ok(["show bfd sessions", "show protocols all"].map(|c| bird.ask(c).unwrap()).concat())
                }
                (None, None) => Ok(String::new()),
            };
            let live: Vec<Value> = PEERS.iter().map(|(name, ..)| self.live(name)).collect();
            let log = tail(&self.node.log(), 40);
            panic!("not within {PATIENCE:?}: {what}\n{live:#?}\n{}\n{log}", there.unwrap_or_default());
        }
        println!("{what}: after {:?}", began.elapsed());
    }
}

fn put_objects(objects: &Objects) {
    objects.put_settings().unwrap();
    // Only BFD may notice what these tests do.
    let settings = "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {name: default}\nspec:\n  \
                    topology: {mode: None}\n  session: {timers: {hold: 60s, connectRetry: 1s}}\n";
    objects.put("fabricconfigurations.manx.dev/default", settings).unwrap();
    objects.put_block(OWN, "n1").unwrap();
    objects.put_advertisement().unwrap();
    objects.put_node("n1", &["10.8.0.2"], 4_200_000_001, "").unwrap();
}

fn frr_config() -> String {
    let neighbors: String = PEERS
        .iter()
        .map(|(_, _, more, address)| {
            let far = if more.is_empty() {
                String::new()
            } else {
                format!(" neighbor {address} ebgp-multihop 4\n neighbor {address} update-source 10.8.0.1\n")
            };
            format!(
                " neighbor {address} remote-as 4200000001\n neighbor {address} timers connect 1\n{far} \
                 neighbor {address} bfd\n neighbor {address} bfd profile fast\n"
            )
        })
        .collect();
    format!(
        "frr defaults datacenter\nhostname peer\nbfd\n profile fast\n  receive-interval 300\n  transmit-interval 300\n  \
         detect-multiplier 5\n exit\nexit\nrouter bgp 65001\n bgp router-id 10.9.0.1\n timers bgp 20 60\n bgp graceful-restart\n \
         no bgp network import-check\n{neighbors} address-family ipv4 unicast\n  network 10.244.7.0/26\n \
         exit-address-family\nexit\n"
    )
}

#[test]
fn frr_agrees_on_intervals_and_on_others_without_a_flap() {
    let rig = Rig::with_frr("bfd-frr");
    for (name, _, more, address) in PEERS {
        let theirs = rig.frr_bfd(address);
        assert_eq!(theirs["multihop"], !more.is_empty(), "{theirs:#}");
        rig.await_that(&format!("{name}: FRR heard of 300 ms five times"), |rig| {
            let theirs = rig.frr_bfd(address);
            let said = ["remote-receive-interval", "remote-transmit-interval", "remote-detect-multiplier"];
            said.map(|key| theirs[key].as_u64().unwrap_or_default()) == [300, 300, 5]
        });
        rig.await_that(&format!("{name}: BGPSession says Up"), |rig| {
            rig.node.status(name)["bfd"]["state"] == "Up" && rig.bfd_up(name).0 == "True"
        });
    }
    let (resets, downs) = (rig.resets(), PEERS.map(|peer| rig.frr_downs(peer.3)));
    let since = PEERS.map(|(name, ..)| rig.node.status(name)["bfd"]["since"].clone());
    rig.profile("700ms", 7);
    for (name, .., address) in PEERS {
        rig.await_that(&format!("{name}: FRR heard of 700 ms seven times"), |rig| {
            let theirs = rig.frr_bfd(address);
            let said = ["remote-receive-interval", "remote-transmit-interval", "remote-detect-multiplier"];
            said.map(|key| theirs[key].as_u64().unwrap_or_default()) == [700, 700, 7]
        });
    }
    thread::sleep(2 * DETECTION);
    rig.profile("300ms", 5);
    thread::sleep(2 * DETECTION);
    assert_eq!((rig.resets(), PEERS.map(|peer| rig.frr_downs(peer.3))), (resets, downs), "no flap");
    assert_eq!(PEERS.map(|(name, ..)| rig.node.status(name)["bfd"]["since"].clone()), since);
    switched_off_at_the_peer(&rig);
}

/// AdminDown at the peer ends nothing (RFC 5882 §3.2).
fn switched_off_at_the_peer(rig: &Rig) {
    let resets = rig.resets();
    let set = |line: &str| rig.frr().vtysh(&["configure terminal", "bfd", "profile fast", line]).unwrap();
    set("shutdown");
    rig.await_that("BFD is not Up any more", |rig| PEERS.iter().all(|(name, ..)| rig.bfd(name) == "Down"));
    rig.await_that("BGPSession says AdminDown", |rig| {
        PEERS.iter().all(|(name, ..)| rig.bfd_up(name) == ("False".into(), "AdminDown".into()))
    });
    assert!(rig.all_established() && rig.resets() == resets, "{:?}", rig.resets());
    set("no shutdown");
    rig.await_that("BFD Up again", |rig| PEERS.iter().all(|(name, ..)| rig.bfd(name) == "Up"));
    assert!(rig.all_established() && rig.resets() == resets, "{:?}", rig.resets());
}

#[test]
fn frr_silent_loss_is_noticed_in_the_detection_time_and_not_without_bfd() {
    let rig = Rig::with_frr("bfd-loss");
    rig.cut();
    let cut = Instant::now();
    let noticed =
        wait_for(NOTICED, || PEERS.iter().all(|(name, ..)| !rig.is_established(name)).then_some(()));
    println!("noticed after {:?}", cut.elapsed());
    assert!(noticed.is_some(), "{:#?}", PEERS.map(|(name, ..)| rig.live(name)));
    for (name, ..) in PEERS {
        let live = rig.live(name);
        assert_eq!(
            (&live["reason"], &live["lastError"]["name"]),
            (&"BFDDown".into(), &"Cease/BFDDown".into()),
            "{live:#}"
        );
        let text = live["lastError"]["text"].as_str().unwrap();
        assert!(text.starts_with("ControlDetectionTimeExpired"), "{text}");
    }
    let routes = rig.node.routes("-4").unwrap();
    assert!(
        !routes.iter().any(|route| route["dst"] == "10.244.7.0/26"),
        "its routes went along, graceful restart or not: {routes:#?}"
    );
    rig.await_that("BGPSession says BFDUp=False", |rig| {
        rig.bfd_up("four") == ("False".into(), "Down".into())
    });
    rig.mend();
    rig.settle();

    // Without a profile nobody notices in that time.
    rig.peers("");
    rig.await_that("no BFD any more", |rig| PEERS.iter().all(|(name, ..)| rig.bfd(name).is_empty()));
    rig.await_that("and every session up", Rig::all_established);
    rig.cut();
    thread::sleep(NOTICED);
    assert!(rig.all_established(), "the loss was noticed without BFD: the test above proves nothing");
}

/// Who dials us out of a range is watched for as long as its session stands.
#[test]
fn a_neighbour_of_a_range_is_watched_and_its_silence_is_noticed() {
    let mut rig = Rig::new("bfd-range");
    rig.start_frr();
    rig.profile("300ms", 5);
    let range = "apiVersion: manx.dev/v1alpha1\nkind: BGPPeer\nmetadata: {name: rack}\nspec: {listenRange: 10.9.0.0/24, \
                 asn: 65001, session: {bfdProfile: fast}}\n";
    rig.node.objects.put("bgppeers.manx.dev/rack", range).unwrap();
    rig.start_bgpd();
    let both_up = |rig: &Rig| {
        let is_up = rig.is_established("rack") && rig.bfd("rack") == "Up";
        is_up && rig.frr_bfd("10.9.0.2")["status"] == "up"
    };
    let resets = |rig: &Rig| rig.live("rack")["resets"].clone();
    let mut before = Value::Null;
    // FRR makes its session anew once.
    while before != resets(&rig) {
        rig.await_that("Established, BFD Up at both ends", both_up);
        before = resets(&rig);
        thread::sleep(2 * DETECTION);
    }
    rig.await_that("BGPSession says so", |rig| rig.bfd_up("rack.10.9.0.1").0 == "True");
    rig.cut();
    let cut = Instant::now();
    let noticed = wait_for(NOTICED, || (!rig.is_established("rack")).then_some(()));
    println!("noticed after {:?}", cut.elapsed());
    assert!(noticed.is_some(), "{:#}", rig.live("rack"));
    rig.await_that("its routes went along", |rig| {
        let routes = rig.node.routes("-4").unwrap();
        !routes.iter().any(|route| route["dst"] == "10.244.7.0/26")
    });
    rig.mend();
    rig.await_that("it dials again, and is watched again", both_up);
}

#[test]
fn frr_keeps_the_routes_of_a_bgpd_that_is_stopped_on_purpose() {
    let mut rig = Rig::with_frr("bfd-stop");
    let paths = |rig: &Rig| {
        let answer = rig.frr().json(&format!("show bgp ipv4 unicast {OWN} json")).unwrap_or_default();
        let paths = answer["paths"].as_array().cloned().unwrap_or_default();
        let stale = paths.iter().filter(|path| path["stale"] == Value::Bool(true)).count();
        (paths.len(), stale)
    };
    rig.await_that("FRR has the block three times", |rig| paths(rig) == (3, 0));
    let began = Instant::now();
    rig.node.terminate(Duration::from_secs(10)).unwrap();
    println!("stopped within {:?}", began.elapsed());
    // Longer than the detection time: what FRR makes of AdminDown it has made by then.
    thread::sleep(DETECTION + Duration::from_secs(2));
    assert!(PEERS.iter().all(|peer| rig.frr_bfd(peer.3)["status"] != "up"));
    assert_eq!(paths(&rig), (3, 3), "kept as stale");
    rig.start_bgpd();
    rig.settle();
    rig.await_that("and the routes are fresh", |rig| paths(rig) == (3, 0));
}

fn bird_config() -> String {
    let session = |name: &str, local: &str, remote: &str, more: &str| {
        format!(
            "protocol bgp {name} {{ local {local} as 65001; neighbor {remote} as 4200000001; hold time 60;\n \
             connect retry time 1; connect delay time 1; error wait time 1, 2; bfd on; {more} }}\n"
        )
    };
    let ipv4 = "ipv4 { import all; export where source = RTS_STATIC; };";
    format!(
        "router id 10.9.0.1;\nprotocol device {{ scan time 1; }}\n\
         protocol static {{ ipv4; route 10.244.7.0/26 blackhole; }}\n\
         protocol bfd {{ interface \"eth0\" {{ interval 300 ms; multiplier 5; }}; multihop {{ interval 300 ms; \
         multiplier 5; }}; }}\n{}{}{}",
        session("four", "10.9.0.1", "10.9.0.2", ipv4),
        session("six", "fd09::1", "fd09::2", "ipv6 { import all; export none; };"),
        session("far", "10.8.0.1", "10.8.0.2", &format!("multihop 4; {ipv4}"))
    )
}

#[test]
fn bird_comes_up_and_its_loss_is_noticed() {
    let mut rig = Rig::new("bfd-bird");
    rig.bird = Some(Bird::start("peer", &rig.router, rig.lab.directory(), &bird_config()).expect("BIRD"));
    rig.profile("300ms", 5);
    rig.peers(WITH_BFD);
    rig.start_bgpd();
    let there = |rig: &Rig| {
        let text = rig.bird.as_ref().unwrap().ask("show bfd sessions").unwrap_or_default();
        let up = |address: &str| {
            text.lines().any(|line| line.starts_with(&format!("{address} ")) && line.contains(" Up "))
        };
        PEERS.iter().all(|peer| up(peer.3))
    };
    rig.await_that("every session Established", Rig::all_established);
    rig.await_that("BFD Up here", |rig| PEERS.iter().all(|(name, ..)| rig.bfd(name) == "Up"));
    rig.await_that("BFD Up there", there);
    // Other timers, hot.
    let resets = rig.resets();
    rig.profile("500ms", 5);
    thread::sleep(2 * DETECTION);
    assert!(there(&rig) && rig.resets() == resets, "no flap");
    let text = rig.bird.as_ref().unwrap().ask("show bfd sessions").unwrap();
    assert!(text.lines().filter(|line| line.contains(" Up ")).all(|line| line.contains("0.500")), "{text}");
    rig.cut();
    let cut = Instant::now();
    let noticed =
        wait_for(NOTICED, || PEERS.iter().all(|(name, ..)| !rig.is_established(name)).then_some(()));
    println!("noticed after {:?}", cut.elapsed());
    assert!(noticed.is_some() && PEERS.iter().all(|(name, ..)| rig.live(name)["reason"] == "BFDDown"));
    rig.mend();
    rig.await_that("every session is back", Rig::all_established);
}

#[test]
fn a_profile_that_is_missing_starts_no_session_and_says_so() {
    let mut rig = Rig::with_frr("bfd-profile");
    let resets = rig.resets();
    // Deleted under running sessions: they go on, watched as before.
    rig.node.objects.delete("bfdprofiles.manx.dev/fast").unwrap();
    thread::sleep(2 * DETECTION);
    assert_eq!((rig.resets(), rig.bfd("four").as_str()), (resets, "Up"));
    // A new life has nothing to go on with.
    rig.node.terminate(Duration::from_secs(10)).unwrap();
    rig.start_bgpd();
    rig.await_that("not tried, with words", |rig| {
        let live = rig.live("four");
        let words = "there is no BFDProfile fast: create it, or name another";
        live["state"] == "Idle" && live["message"].as_str().is_some_and(|message| message.contains(words))
    });
    rig.profile("300ms", 5);
    rig.settle();
}
