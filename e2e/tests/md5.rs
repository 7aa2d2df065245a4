//! Sessions with a password (RFC 2385): bgpd against FRR, and against itself where FRR would reset the session.
//!
//! Needs root, FRR, and bgpd built in the same profile. What is missing fails the test and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use e2e::frr::Frr;
use e2e::netns::{self, Netns};
use e2e::process::{Launch, Process, built, tail, wait_for};
use e2e::store::{Objects, peer};
use e2e::topology::{self, Scope};
use serde_json::Value;

/// What is not Established is written after 10 s.
const PATIENCE: Duration = Duration::from_secs(40);
/// Longer than the hold time, 9 s.
const HELD: Duration = Duration::from_secs(12);
const NAMESPACE: &str = "manx-secrets";
const SECRET: &str = "secrets/manx-secrets/tor-keys";
const AUTH: &str = "  session: {auth: {md5: {secretRef: {name: tor-keys, key: r12}}}}\n";

/// One bgpd in a namespace, with a directory of its own.
struct Speaker {
    node: &'static str,
    netns: Netns,
    home: PathBuf,
    objects: Objects,
    bgpd: Option<Process>,
}

impl Speaker {
    /// Everything but its peer and its Secret.
    fn new(node: &'static str, netns: &Netns, directory: &Path, number: u8, asn: u32) -> Self {
        let home = directory.join(node);
        for name in ["run", "state"] {
            fs::create_dir_all(home.join(name)).unwrap();
        }
        let objects = Objects::create(&home.join("objects")).unwrap();
        objects.put_settings().unwrap();
        let node_text = format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\nstatus:\n  addresses:\n  \
             - {{type: InternalIP, address: 10.9.0.{number}}}\n  - {{type: InternalIP, address: \"fd09::{number}\"}}\n"
        );
        objects.put(&format!("nodes/{node}"), &node_text).unwrap();
        let fabric_node = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: {node}}}\nspec: {{asn: {asn}}}\n"
        );
        objects.put(&format!("fabricnodes.manx.dev/{node}"), &fabric_node).unwrap();
        let advertisement = "apiVersion: manx.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {name: pool-blocks}\n\
                             spec: {pools: {}}\n";
        objects.put("bgpadvertisements.manx.dev/pool-blocks", advertisement).unwrap();
        Self { node, netns: netns.clone(), home, objects, bgpd: None }
    }

    fn claim(&self, block: &str) {
        let name = block.replace(['.', '/'], "-");
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: IPBlock\nmetadata: {{name: {name}}}\nspec: {{cidr: {block}, \
             pool: default-ipv4, nodeName: {}}}\n",
            self.node
        );
        self.objects.put(&format!("ipblocks.manx.dev/{name}"), &text).unwrap();
    }

    fn password(&self, password: &str) {
        self.objects.put_secret(NAMESPACE, "tor-keys", "r12", password).unwrap();
    }

    fn log(&self) -> PathBuf {
        self.home.join("bgpd.log")
    }

    fn start(&mut self) {
        let path = |name: &str| self.home.join(name).to_string_lossy().into_owned();
        let (store, run, state) = (path("objects"), path("run"), path("state"));
        let words = ["--node", self.node, "--store", &store, "--run-dir", &run, "--state-dir", &state];
        let launch = Launch {
            label: format!("bgpd on {}", self.node),
            netns: self.netns.clone(),
            program: built("bgpd").unwrap(),
            arguments: words.iter().map(|&word| word.to_owned()).collect(),
            capabilities: Some(&["net_admin", "net_bind_service"]),
            log: self.log(),
        };
        self.bgpd = Some(launch.start().unwrap());
    }

    /// The status of its one BGPSession, as it was last written.
    fn status(&self) -> Value {
        let file = format!("objects/.status/bgpsessions.manx.dev/{}.peer.yaml", self.node);
        let text = fs::read_to_string(self.home.join(file)).unwrap_or_default();
        let written: Value = serde_json::from_str(&text).unwrap_or_default();
        written["managers"]["manx-bgpd"]["status"].clone()
    }

    /// What bgpd says of its one session at this moment.
    fn live(&self) -> Value {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.home.join("run/bgpd.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"{\"verb\": \"peers\"}\n")?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        };
        let answer: Value = serde_json::from_str(&ask().unwrap_or_default()).unwrap_or_default();
        answer["sessions"][0].clone()
    }

    fn is_up(&self) -> bool {
        self.live()["state"] == "Established"
    }

    /// Whether the session is not up for this reason, in words that hold these.
    fn is_refused(&self, reason: &str, words: &str) -> bool {
        let live = self.live();
        live["state"] != "Established"
            && live["reason"] == reason
            && live["message"].as_str().is_some_and(|message| message.contains(words))
    }

    /// Status, reason and message of condition Established, as it was last written.
    fn established(&self) -> (String, String, String) {
        let status = self.status();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let one = conditions.into_iter().find(|one| one["type"] == "Established").unwrap_or_default();
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// Waits for something, and shows what there is when it does not come.
    fn await_that(&self, what: &str, question: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        if wait_for(PATIENCE, || question(self).then_some(())).is_none() {
            panic!("not within {PATIENCE:?}: {what}\n{:#}\n{}", self.status(), tail(&self.log(), 40));
        }
        println!("{what}: after {:?}", began.elapsed());
    }

    /// The BGPSession says that it is not up for this reason, in words that hold these.
    fn await_refusal(&self, wanted: &str, words: &str) {
        self.await_that(&format!("{wanted}: {words}"), |speaker| {
            let (status, reason, message) = speaker.established();
            status == "False" && reason == wanted && message.contains(words)
        });
    }

    fn has_learned(&self, prefix: &str) -> bool {
        let routes = self.netns.ip_json(&["-4", "route", "show", "proto", "77"]).unwrap();
        routes.as_array().unwrap().iter().any(|route| route["dst"] == prefix && route["type"] != "blackhole")
    }
}

/// Two namespaces and a link.
struct Link {
    node: Netns,
    router: Netns,
    directory: PathBuf,
    name: String,
}

impl Link {
    fn new(test: &str) -> Self {
        topology::remove_stale_tests().unwrap();
        let scope = Scope::test(test);
        let [node, router] = ["n1", "peer"].map(|name| Netns::create(scope.netns(name).name()).unwrap());
        for netns in [&node, &router] {
            netns.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/default/accept_dad", "0")]).unwrap();
        }
        let link =
            format!("link add eth0 netns {} type veth peer name eth0 netns {}\n", node.name(), router.name());
        netns::batch(&[], &link).unwrap();
        for (netns, number) in [(&router, 1), (&node, 2)] {
            let addresses =
                format!("addr add 10.9.0.{number}/24 dev eth0\naddr add fd09::{number}/64 dev eth0 nodad\n");
            netns.ip(&format!("link set eth0 up\n{addresses}")).unwrap();
        }
        let directory = std::env::temp_dir().join(scope.router("files"));
        fs::create_dir_all(&directory).unwrap();
        Self { node, router, directory, name: scope.router("peer") }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = netns::remove([self.node.name(), self.router.name()]);
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// What a connection without a signature meets at the node's port: the error, or what it was sent.
fn unsigned(from: &Netns) -> Result<Vec<u8>, ErrorKind> {
    let to: SocketAddr = "10.9.0.2:179".parse().unwrap();
    let outcome = from.run(|| {
        let attempt = TcpStream::connect_timeout(&to, Duration::from_secs(3));
        let read = attempt.and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).map(|_| heard)
        });
        Ok(read.map_err(|error| error.kind()))
    });
    outcome.unwrap()
}

fn frr_with(link: &Link, password: &str) -> Frr {
    let config = format!(
        "frr defaults datacenter\nhostname peer\nrouter bgp 65001\n bgp router-id 10.9.0.1\n no bgp network import-check\n \
         neighbor 10.9.0.2 remote-as 4200000001\n neighbor 10.9.0.2 timers connect 1\n neighbor 10.9.0.2 password {password}\n \
         address-family ipv4 unicast\n  network 10.244.7.0/26\n exit-address-family\nexit\n"
    );
    Frr::start(&link.name, &link.router, &link.directory, &config).expect("FRR")
}

fn frr_password(frr: &Frr, password: &str) {
    let line = format!("neighbor 10.9.0.2 password {password}");
    frr.vtysh(&["configure terminal", "router bgp 65001", &line]).unwrap();
}

#[test]
fn frr_password_from_a_secret() {
    let link = Link::new("md5-frr");
    let frr = frr_with(&link, "one");
    let mut node = Speaker::new("n1", &link.node, &link.directory, 2, 4_200_000_001);
    node.claim("10.244.0.0/26");
    node.objects.put("bgppeers.manx.dev/peer", &peer("peer", "10.9.0.1", 65001, AUTH)).unwrap();
    node.start();

    // No Secret: nobody is dialled, nobody gets in, and the words say what to do.
    node.await_refusal(
        "SecretMissing",
        "spec.session.auth.md5.secretRef: there is no Secret manx-secrets/tor-keys: create it with the session's password \
         under key r12",
    );
    assert_eq!(unsigned(&link.router), Ok(Vec::new()), "closed without a word");
    // A file that others could read is no Secret; with its mode mended it is, without a restart.
    node.password("one");
    let file = node.objects.path(SECRET);
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    node.await_that("up with the Secret", Speaker::is_up);
    node.objects.delete(SECRET).unwrap();
    frr.vtysh(&["clear bgp ipv4 unicast *"]).unwrap();
    node.await_that("not tried without it", |node| node.is_refused("SecretMissing", "there is no Secret"));
    let open = "apiVersion: v1\nkind: Secret\nmetadata: {name: tor-keys, namespace: manx-secrets}\nstringData: {r12: one}\n";
    node.objects.put(SECRET, open).unwrap();
    let text = "mode 0644: others could read this Secret, expected mode 0600";
    node.await_that(text, |node| node.is_refused("SecretMissing", text));
    mode(0o600);
    node.await_that("up with the mode mended", Speaker::is_up);
    node.await_that("the peer's route is learned", |node| node.has_learned("10.244.7.0/26"));
    assert_eq!(unsigned(&link.router), Err(ErrorKind::TimedOut), "the kernel drops what is not signed");

    // Another key at the peer alone: down, and the status says what may be wrong. Then here, too.
    frr_password(&frr, "two");
    node.await_refusal("ConnectionTimedOut", "no answer from 10.9.0.1 port 179; its key may be another one");
    node.password("two");
    node.await_that("up with the peer's new key", Speaker::is_up);
    without_the_secret(&node, &frr);
    without_the_datastore(&mut node);
    frr.stop();
}

/// A Secret that goes takes no session with it, and none comes up without it.
fn without_the_secret(node: &Speaker, frr: &Frr) {
    let resets = node.live()["resets"].clone();
    node.objects.delete(SECRET).unwrap();
    let says = |node: &Speaker| {
        node.live()["message"].as_str().is_some_and(|text| text.contains("there is no Secret"))
    };
    node.await_that("the session that runs says so", says);
    thread::sleep(HELD);
    assert_eq!((node.is_up(), &node.live()["resets"]), (true, &resets), "it runs on");
    frr.vtysh(&["clear bgp ipv4 unicast *"]).unwrap();
    node.await_that("and is not tried again", |node| node.is_refused("SecretMissing", "there is no Secret"));
    node.password("two");
    node.await_that("up as soon as the Secret is back", Speaker::is_up);
}

/// What is remembered holds the keys in use, for root alone, and brings the session back.
fn without_the_datastore(node: &mut Speaker) {
    node.bgpd.as_mut().unwrap().terminate(Duration::from_secs(10)).unwrap();
    let memory = node.home.join("state/inputs-bgpd");
    assert_eq!(fs::metadata(&memory).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&memory).unwrap();
    assert!(text.contains("\"r12\":\"dHdv\"") && !text.contains("\"other\""), "{text}");
    // Nobody may read the directory: bgpd runs without CAP_DAC_OVERRIDE.
    let silent =
        |mode| fs::set_permissions(node.objects.directory(), fs::Permissions::from_mode(mode)).unwrap();
    silent(0);
    node.start();
    let up = |node: &Speaker| {
        let log = fs::read_to_string(node.log()).unwrap_or_default();
        let life = log.rsplit("bgpd starts").next().unwrap_or_default();
        life.contains("working from remembered inputs") && life.contains("session up")
    };
    node.await_that("up from memory", up);
    fs::set_permissions(node.objects.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let log = fs::read_to_string(node.log()).unwrap();
    assert!(!log.contains("dHdv") && !log.contains("two"), "no key in the log");
}

#[test]
fn a_key_rolls_over_on_both_sides_without_a_reset() {
    let link = Link::new("md5-roll");
    let mut node = Speaker::new("n1", &link.node, &link.directory, 2, 4_200_000_001);
    let mut other = Speaker::new("n2", &link.router, &link.directory, 1, 65001);
    node.objects.put("bgppeers.manx.dev/peer", &peer("peer", "fd09::1", 65001, AUTH)).unwrap();
    let waits = format!("{AUTH}  passive: true\n");
    other.objects.put("bgppeers.manx.dev/peer", &peer("peer", "fd09::2", 4_200_000_001, &waits)).unwrap();
    for speaker in [&mut node, &mut other] {
        speaker.password("one");
        speaker.start();
    }
    let session = |speaker: &Speaker| {
        let live = speaker.live();
        (live["state"].clone(), live["resets"].clone())
    };
    node.await_that("up", Speaker::is_up);
    other.await_that("up at the end that is dialled", Speaker::is_up);
    let before = [session(&node), session(&other)];
    assert_eq!(before[0].1, 0);

    // One side first, the other within the hold time.
    node.password("two");
    thread::sleep(Duration::from_secs(4));
    other.password("two");
    thread::sleep(HELD);
    assert_eq!([session(&node), session(&other)], before, "nothing was reset");
    node.claim("10.244.3.0/26");
    other.await_that("the session carries routes under the new key", |other| {
        other.has_learned("10.244.3.0/26")
    });
    assert_eq!([session(&node), session(&other)], before);

    // The key on the connection is the new one indeed: with another one at one end alone nothing is heard any more.
    node.password("three");
    node.await_that("down once the hold time is over", |node| !node.is_up());
    let log = fs::read_to_string(node.log()).unwrap();
    assert!(log.contains("HoldTimerExpired"), "{log}");
    other.password("three");
    node.await_that("up again", Speaker::is_up);
}
