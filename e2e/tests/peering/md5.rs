//! Sessions with a password (RFC 2385): bgpd against FRR, and against itself where FRR would reset the session.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::Duration;

use e2e::frr::Frr;
use e2e::lab::Lab;
use e2e::netns::Netns;

use crate::node::Node;

/// Longer than the hold time, 9 s.
const HELD: Duration = Duration::from_secs(12);
const SECRET: &str = "secrets/manx-secrets/tor-keys";
const AUTH: &str = "session: {auth: {md5: {secretRef: {name: tor-keys, key: r12}}}}";

/// Two namespaces and a link.
struct Link {
    lab: Lab,
    node: Netns,
    router: Netns,
}

impl Link {
    fn new(test: &str) -> Self {
        let mut lab = Lab::new(test).unwrap();
        let [node, router] = lab.node_and_peer().unwrap();
        Self { lab, node, router }
    }

    /// The node at one end, without a peer and without a Secret.
    fn speaker(&self, name: &str, netns: &Netns, number: u8, asn: u32) -> Node {
        let addresses = [format!("10.9.0.{number}"), format!("fd09::{number}")];
        Node::new(name, netns, self.lab.directory(), &addresses.each_ref().map(String::as_str), asn)
    }
}

fn password(node: &Node, password: &str) {
    node.objects.put_secret("manx-secrets", "tor-keys", "r12", password).unwrap();
}

fn is_up(node: &Node) -> bool {
    node.is_up("peer")
}

/// Whether the session is not up for this reason, in words that hold these.
fn is_refused(node: &Node, reason: &str, words: &str) -> bool {
    let live = node.session("peer");
    live["state"] != "Established"
        && live["reason"] == reason
        && live["message"].as_str().is_some_and(|message| message.contains(words))
}

/// The BGPSession says that it is not up for this reason, in words that hold these.
fn await_refusal(node: &Node, wanted: &str, words: &str) {
    node.await_that(&format!("{wanted}: {words}"), |node| {
        let (status, reason, message) = node.established("peer");
        status == "False" && reason == wanted && message.contains(words)
    });
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
    Frr::start(&link.lab.router("peer"), &link.router, link.lab.directory(), &config).expect("FRR")
}

fn frr_password(frr: &Frr, password: &str) {
    let line = format!("neighbor 10.9.0.2 password {password}");
    frr.vtysh(&["configure terminal", "router bgp 65001", &line]).unwrap();
}

#[test]
fn frr_password_from_a_secret() {
    let link = Link::new("md5-frr");
    let frr = frr_with(&link, "one");
    let mut node = link.speaker("n1", &link.node, 2, 4_200_000_001);
    node.claim("10.244.0.0/26");
    node.peer("peer", &format!("address: 10.9.0.1, asn: 65001, {AUTH}"));
    node.start();

    // No Secret: nobody is dialled, nobody gets in, and the words say what to do.
    await_refusal(
        &node,
        "SecretMissing",
        "spec.session.auth.md5.secretRef: there is no Secret manx-secrets/tor-keys: create it with the session's password \
         under key r12",
    );
    assert_eq!(unsigned(&link.router), Ok(Vec::new()), "closed without a word");
    // A file that others could read is no Secret; with its mode mended it is, without a restart.
    password(&node, "one");
    let file = node.objects.path(SECRET);
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    node.await_that("up with the Secret", is_up);
    node.objects.delete(SECRET).unwrap();
    frr.vtysh(&["clear bgp ipv4 unicast *"]).unwrap();
    node.await_that("not tried without it", |node| is_refused(node, "SecretMissing", "there is no Secret"));
    let open = "apiVersion: v1\nkind: Secret\nmetadata: {name: tor-keys, namespace: manx-secrets}\nstringData: {r12: one}\n";
    node.objects.put(SECRET, open).unwrap();
    let text = "mode 0644: others could read this Secret, expected mode 0600";
    node.await_that(text, |node| is_refused(node, "SecretMissing", text));
    mode(0o600);
    node.await_that("up with the mode mended", is_up);
    node.await_that("the peer's route is learned", |node| node.has_learned("10.244.7.0/26"));
    assert_eq!(unsigned(&link.router), Err(ErrorKind::TimedOut), "the kernel drops what is not signed");

    // Another key at the peer alone: down, and the status says what may be wrong. Then here, too.
    frr_password(&frr, "two");
    await_refusal(
        &node,
        "ConnectionTimedOut",
        "no answer from 10.9.0.1 port 179; its key may be another one",
    );
    password(&node, "two");
    node.await_that("up with the peer's new key", is_up);
    without_the_secret(&node, &frr);
    without_the_datastore(&mut node);
    frr.stop();
}

/// A Secret that goes takes no session with it, and none comes up without it.
fn without_the_secret(node: &Node, frr: &Frr) {
    let resets = node.session("peer")["resets"].clone();
    node.objects.delete(SECRET).unwrap();
    let says = |node: &Node| {
        node.session("peer")["message"].as_str().is_some_and(|text| text.contains("there is no Secret"))
    };
    node.await_that("the session that runs says so", says);
    thread::sleep(HELD);
    assert_eq!((is_up(node), &node.session("peer")["resets"]), (true, &resets), "it runs on");
    frr.vtysh(&["clear bgp ipv4 unicast *"]).unwrap();
    node.await_that("and is not tried again", |node| is_refused(node, "SecretMissing", "there is no Secret"));
    password(node, "two");
    node.await_that("up as soon as the Secret is back", is_up);
}

/// What is remembered holds the keys in use, for root alone, and brings the session back.
fn without_the_datastore(node: &mut Node) {
    node.terminate(Duration::from_secs(10)).unwrap();
    let memory = node.state_dir().join("inputs-bgpd");
    assert_eq!(fs::metadata(&memory).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&memory).unwrap();
    assert!(text.contains("\"r12\":\"dHdv\"") && !text.contains("\"other\""), "{text}");
    // Nobody may read the directory: bgpd runs without CAP_DAC_OVERRIDE.
    let silent =
        |mode| fs::set_permissions(node.objects.directory(), fs::Permissions::from_mode(mode)).unwrap();
    silent(0);
    node.start();
    let up = |node: &Node| {
        let log = node.said();
        let life = log.rsplit("bgpd starts").next().unwrap_or_default();
        life.contains("working from remembered inputs") && life.contains("session up")
    };
    node.await_that("up from memory", up);
    fs::set_permissions(node.objects.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let log = node.said();
    assert!(!log.contains("dHdv") && !log.contains("two"), "no key in the log");
}

#[test]
fn a_key_rolls_over_on_both_sides_without_a_reset() {
    let link = Link::new("md5-roll");
    let mut node = link.speaker("n1", &link.node, 2, 4_200_000_001);
    let mut other = link.speaker("n2", &link.router, 1, 65001);
    node.peer("peer", &format!("address: \"fd09::1\", asn: 65001, {AUTH}"));
    other.peer("peer", &format!("address: \"fd09::2\", asn: 4200000001, passive: true, {AUTH}"));
    for speaker in [&mut node, &mut other] {
        password(speaker, "one");
        speaker.start();
    }
    let session = |speaker: &Node| {
        let live = speaker.session("peer");
        (live["state"].clone(), live["resets"].clone())
    };
    node.await_that("up", is_up);
    other.await_that("up at the end that is dialled", is_up);
    let before = [session(&node), session(&other)];
    assert_eq!(before[0].1, 0);

    // One side first, the other within the hold time.
    password(&node, "two");
    thread::sleep(Duration::from_secs(4));
    password(&other, "two");
    thread::sleep(HELD);
    assert_eq!([session(&node), session(&other)], before, "nothing was reset");
    node.claim("10.244.3.0/26");
    other.await_that("the session carries routes under the new key", |other| {
        other.has_learned("10.244.3.0/26")
    });
    assert_eq!([session(&node), session(&other)], before);

    // The key on the connection is the new one indeed: with another one at one end alone nothing is heard any more.
    password(&node, "three");
    node.await_that("down once the hold time is over", |node| !is_up(node));
    let log = node.said();
    assert!(log.contains("HoldTimerExpired"), "{log}");
    password(&other, "three");
    node.await_that("up again", is_up);
}
