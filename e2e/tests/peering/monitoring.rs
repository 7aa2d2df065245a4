//! What monitoring stations are told (RFC 7854) and what a capture shows, read by Wireshark's dissectors, which share nothing with
//! us: tshark. The session is signed and its distance proven, so that a capture on its link would show less.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::frr::Frr;
use e2e::lab::{Lab, link};
use e2e::netns::{Netns, stdout_of};
use e2e::process::{built, wait_for};

use crate::node::Node;

const STATION: &str = "10.9.3.9:11019";
const KEY: &str = "spoken-by-both";

/// tcpdump on the station's link, ended with the test.
struct Dump {
    tcpdump: Child,
    file: PathBuf,
}

impl Dump {
    fn start(netns: &Netns, file: PathBuf) -> Self {
        let mut command = netns.command("tcpdump");
        command.args(["-q", "-U", "-i", "any", "-s", "0", "-w"]).arg(&file).args(["tcp", "port", "11019"]);
        let tcpdump = command.stderr(Stdio::null()).spawn().expect("tcpdump");
        wait_for(Duration::from_secs(10), || file.exists().then_some(())).expect("a file of tcpdump's");
        Self { tcpdump, file }
    }

    /// Every BMP message as Wireshark writes it out. Several may be in one packet, and their fields would stand side by side.
    fn messages(&self) -> Vec<String> {
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(&self.file).args(["-d", "tcp.port==11019,bmp", "-V"]);
        let output = command.output().expect("tshark is missing: apt-get install -y tshark");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split("BGP Monitoring Protocol, Type ").skip(1).map(str::to_owned).collect()
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// tcpdump may be in the middle of a packet: what is whole by then is read.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file).args(["-d", "tcp.port==11019,bmp", "-Y", filter, "-T", "fields"]);
    command.args(fields.iter().flat_map(|field| ["-e", *field]));
    let output = command.output().expect("tshark is missing: apt-get install -y tshark");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Accepts one connection and reads it to its end: what it was told.
fn collect(listener: TcpListener) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).unwrap();
        told
    })
}

fn listen(netns: &Netns) -> TcpListener {
    netns.run(|| Ok(TcpListener::bind(STATION)?)).unwrap()
}

/// The node's settings, with these stations.
fn settings(node: &Node, stations: &str) {
    let text = format!(
        "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {{name: default}}\nspec:\n  \
         topology: {{mode: None}}\n  session: {{timers: {{hold: 9s, connectRetry: 1s}}}}\n  bmpStations: [{stations}]\n"
    );
    node.objects.put("fabricconfigurations.manx.dev/default", &text).unwrap();
}

struct Rig {
    lab: Lab,
    node: Node,
    frr: Frr,
    station: Netns,
}

/// n1 with a ToR that signs, and a station on a link of its own.
fn rig(test: &str) -> Rig {
    let mut lab = Lab::new(test).unwrap();
    let (n1, t1, station) = (lab.space("n1").unwrap(), lab.space("t1").unwrap(), lab.space("c").unwrap());
    link((&n1, "eth0", &["10.9.1.2/24"]), (&t1, "eth0", &["10.9.1.1/24"])).unwrap();
    link((&n1, "eth1", &["10.9.3.1/24"]), (&station, "eth0", &["10.9.3.9/24"])).unwrap();
    let config = format!(
        "frr defaults datacenter\nhostname t1\nrouter bgp 65001\n bgp router-id 10.9.1.1\n no bgp network import-check\n \
         no bgp ebgp-requires-policy\n neighbor 10.9.1.2 remote-as 4200000001\n neighbor 10.9.1.2 timers connect 1\n \
         neighbor 10.9.1.2 password {KEY}\n neighbor 10.9.1.2 ttl-security hops 1\n address-family ipv4 unicast\n  \
         network 10.244.7.0/26\n  network 192.0.2.0/24\n exit-address-family\nexit\n"
    );
    let frr = Frr::start(&lab.router("t1"), &t1, lab.directory(), &config).expect("FRR");
    let mut node = Node::new("n1", &n1, lab.directory(), &["10.9.1.2"], 4_200_000_001);
    node.claim("10.244.0.0/26");
    node.objects.put_secret("manx-secrets", "tor-keys", "r12", KEY).unwrap();
    let auth = "session: {ttlSecurity: true, auth: {md5: {secretRef: {name: tor-keys, key: r12}}}}";
    node.peer("t1", &format!("address: 10.9.1.1, asn: 65001, {auth}"));
    node.start();
    node.await_that("t1 is up", |node| node.is_up("t1"));
    Rig { lab, node, frr, station }
}

/// The ToR is configured so in its address family.
fn tells(frr: &Frr, lines: &[&str]) {
    let within = ["configure terminal", "router bgp 65001", "address-family ipv4 unicast"];
    frr.vtysh(&[&within[..], lines].concat()).unwrap();
}

/// `manxctl bgp capture t1`, as an operator of the node calls it.
fn capture(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(built("manxctl").unwrap());
    command.arg("--node").arg("n1").arg("--run-dir").arg(node.run_dir()).args(["bgp", "capture", "t1"]);
    command.args(arguments);
    command
}

#[test]
fn wireshark_reads_what_a_station_is_told() {
    let Rig { lab, node, frr, station } = rig("bmp-told");
    let dump = Dump::start(&station, lab.directory().join("bmp.pcap"));
    let told = collect(listen(&station));
    let since = node.session("t1")["since"].clone();
    settings(&node, "{address: 10.9.3.9, port: 11019}");
    // Whose, the flags L and O, and what it announces or withdraws.
    let says = |whose: &str, flags: &str, way: &str, prefix: &str| {
        dump.messages().iter().any(|message| {
            let is_its = message.starts_with("Route Monitoring") && message.contains(whose);
            let (withdrawn, announced) = message.split_once("Path attributes").unwrap_or((message, ""));
            let text = if way == "announces" { announced } else { withdrawn };
            is_its && message.contains(&format!("= Flags: {flags}")) && text.contains(prefix)
        })
    };
    let (peer, own) = ("Type: Global Instance Peer (0)", "Type: Loc-RIB Instance Peer (3)");
    let announces = |whose, flags, prefix| says(whose, flags, "announces", prefix);
    node.await_that("Adj-RIB-In", |_| {
        announces(peer, "0x00", "10.244.7.0/26") && announces(peer, "0x00", "192.0.2.0/24")
    });
    node.await_that("after policy", |_| announces(peer, "0x40", "10.244.7.0/26"));
    node.await_that("Adj-RIB-Out", |_| announces(peer, "0x50", "10.244.0.0/26"));
    node.await_that("Loc-RIB", |_| {
        announces(own, "0x00", "10.244.7.0/26") && announces(own, "0x00", "10.244.0.0/26")
    });
    assert!(!announces(peer, "0x40", "192.0.2.0/24"), "a prefix outside the pools is not taken");
    let is_up = |message: &String| message.starts_with("Peer Up") && message.contains("Address: 10.9.1.1");
    let up = dump.messages().into_iter().find(is_up).expect("Peer Up");
    assert_eq!(up.matches("OPEN Message (1)").count(), 2, "{up}");
    assert!(up.contains("BGP Identifier: 10.9.1.2") && up.contains("BGP Identifier: 10.9.1.1"), "{up}");
    // A change.
    tells(&frr, &["no network 10.244.7.0/26", "network 10.244.8.0/26"]);
    node.await_that("a change", |_| announces(peer, "0x00", "10.244.8.0/26"));
    node.await_that("a withdrawal", |_| says(peer, "0x00", "withdraws", "10.244.7.0/26"));
    // Removed: a goodbye, and the session does not notice.
    settings(&node, "");
    let told = told.join().unwrap();
    assert_eq!(
        told[told.len() - 6..],
        [0, 1, 0, 2, 0, 0],
        "Termination, administratively closed (RFC 7854 §4.5)"
    );
    assert_eq!(node.session("t1")["since"], since, "the session is the one of before");
    // Wireshark 4.0 takes the name of the Loc-RIB behind the OPENs (RFC 9069 §5.2.1) for BGP.
    let is_known = |message: &&String| message.starts_with("Peer Up") && message.contains(own);
    let all = dump.messages();
    let malformed: Vec<_> = all.iter().filter(|message| message.contains("[Malformed Packet")).collect();
    assert!(malformed.iter().all(is_known), "{malformed:#?}");
    frr.stop();
}

#[test]
fn a_station_that_is_absent_silent_or_back() {
    let Rig { lab: _lab, node, frr, station } = rig("bmp-absent");
    settings(&node, "{address: 10.9.3.9, port: 11019}");
    let refused = "BMP station is not told";
    node.await_that("nobody listens there", |node| node.said().contains(refused));
    // It accepts and reads nothing.
    let listener = listen(&station);
    let silent: TcpStream = listener.accept().unwrap().0;
    node.await_that("connected", |node| node.said().contains("BMP station connected"));
    let since = node.session("t1")["since"].clone();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(11) {
        tells(&frr, &["no network 10.244.7.0/26"]);
        tells(&frr, &["network 10.244.7.0/26"]);
    }
    assert!(node.is_up("t1"), "a hold time of 9 s is over");
    assert_eq!(node.session("t1")["since"], since);
    // It goes, and is back.
    drop(silent);
    let told = collect(listener);
    node.await_that("connected again", |node| node.said().matches("BMP station connected").count() == 2);
    assert_eq!(
        node.said().matches(refused).count(),
        2,
        "refused and closed: each said once\n{}",
        node.said()
    );
    settings(&node, "");
    let told = told.join().unwrap();
    assert_eq!((told[0], told[5]), (3, 4), "Initiation");
    assert!(told.windows(4).any(|octets| octets == [26, 10, 244, 7]), "the table is told anew");
    frr.stop();
}

#[test]
fn wireshark_reads_a_capture_of_a_signed_session() {
    let Rig { lab, node, frr, station: _ } = rig("capture");
    let file = lab.directory().join("t1.pcap");
    let mut running =
        capture(&node, &["--for", "6", "-w", &file.to_string_lossy()]).spawn().expect("manxctl");
    std::thread::sleep(Duration::from_secs(1));
    tells(&frr, &["network 10.244.8.0/26"]);
    assert!(running.wait().unwrap().success());
    let types = tshark(&file, "bgp", &["bgp.type"]);
    // The two OPENs of the session, which was there before.
    assert_eq!(types[..2], ["1", "1"], "{types:?}");
    assert!(types.contains(&"2".to_owned()) && types.contains(&"4".to_owned()), "{types:?}");
    let told = tshark(&file, "bgp.type == 2 && ip.src == 10.9.1.1", &["bgp.nlri_prefix", "tcp.seq_raw"]);
    assert!(told.iter().any(|line| line.contains("10.244.8.0")), "{told:?}");
    assert!(tshark(&file, "_ws.malformed || tcp.analysis.flags", &["frame.number"]).is_empty());
    let mut tcpdump = Command::new("tcpdump");
    let shown = stdout_of({
        tcpdump.args(["-n", "-v", "-r"]).arg(&file);
        tcpdump
    })
    .unwrap();
    assert!(shown.contains("Update Message (2)") && shown.contains("10.244.8.0/26"), "{shown}");
    assert!(!shown.contains("incorrect"), "checksums: {shown}");
    // As lines, so many and no more.
    let shown = capture(&node, &["--count", "3"]).output().unwrap();
    let lines = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(lines.lines().next().unwrap().contains("> 10.9.1.1 OPEN "), "{lines}");
    // A session that is not there.
    let mut other = Command::new(built("manxctl").unwrap());
    other.arg("--node").arg("n1").arg("--run-dir").arg(node.run_dir()).args(["bgp", "capture", "t9"]);
    let output = other.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no session of this node is called t9"), "{said}");
    frr.stop();
}
