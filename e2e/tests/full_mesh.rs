//! Three nodes on one L2 segment and no router: topology.mode FullMesh, with one AS for all and with one for each, and
//! RouteReflector.
//!
//! Needs root, and bgpd built in the same profile. What is missing fails the test and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use e2e::bgpd_node::BgpdNode;
use e2e::lab::{Lab, link};
use e2e::netns::Netns;
use e2e::process::{tail, wait_for};
use e2e::store::{Objects, block_name};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// One AS for all, which is the default, or one for each node.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Internal,
    External,
}

/// Three nodes with one store, and the switch between them.
struct Rig {
    nodes: Vec<BgpdNode>,
    objects: Objects,
    lab: Lab,
}

fn number(node: usize) -> usize {
    node + 11
}

fn v4(node: usize) -> String {
    format!("10.9.0.{}", number(node))
}

fn v6(node: usize) -> String {
    format!("fd09::{}", number(node))
}

/// The node's block of each family.
fn blocks(node: usize) -> [String; 2] {
    [format!("10.244.{node}.0/26"), format!("fd00:10:244::{}00/122", node + 1)]
}

impl Rig {
    fn start(kind: Kind, test: &str) -> Self {
        let mut lab = Lab::new(test).unwrap();
        let switch = lab.space("switch").unwrap();
        switch.ip("link add br0 type bridge\nlink set br0 up\n").unwrap();
        let objects = Objects::create(&lab.directory().join("objects")).unwrap();
        put_objects(&objects, kind);
        let mut nodes = Vec::new();
        for (index, name) in NODES.iter().enumerate() {
            let (netns, port) = (lab.space(name).unwrap(), format!("port{index}"));
            let addresses = [format!("{}/24", v4(index)), format!("{}/64", v6(index))];
            link((&netns, "eth0", &addresses.each_ref().map(String::as_str)), (&switch, &port, &[])).unwrap();
            switch.ip(&format!("link set {port} master br0\n")).unwrap();
            nodes.push(BgpdNode::with_objects(name, &netns, lab.directory(), objects.clone()).unwrap());
        }
        for node in &mut nodes {
            node.start(&[]).unwrap();
        }
        Self { nodes, objects, lab }
    }

    /// Waits for something, and shows the logs when it does not come.
    fn await_that(&self, what: &str, question: impl Fn(&Self) -> bool) {
        if wait_for(PATIENCE, || question(self).then_some(())).is_none() {
            let logs: Vec<String> = (0..NODES.len())
                .map(|node| {
                    format!(
                        "{}:\n{}\n{:?}",
                        NODES[node],
                        tail(&self.nodes[node].log(), 20),
                        self.learned(node)
                    )
                })
                .collect();
            panic!("not within {PATIENCE:?}: {what}\n{}", logs.join("\n"));
        }
    }

    /// A node's routes of bgpd: destination and gateway, or `blackhole`.
    fn learned(&self, node: usize) -> Vec<(String, String)> {
        let mut routes = Vec::new();
        for family in ["-4", "-6"] {
            for route in self.nodes[node].routes(family).unwrap() {
                let text = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
                let gateway =
                    if route["type"] == "blackhole" { "blackhole".to_owned() } else { text("gateway") };
                routes.push((text("dst"), gateway));
            }
        }
        routes.sort();
        routes
    }

    /// What a node should hold: its own blocks as blackholes, those of `others` by their addresses.
    fn expected(node: usize, others: &[usize]) -> Vec<(String, String)> {
        let mut routes: Vec<(String, String)> =
            blocks(node).into_iter().map(|block| (block, "blackhole".to_owned())).collect();
        for other in others.iter().filter(|other| **other != node) {
            let [block4, block6] = blocks(*other);
            routes.push((block4, v4(*other)));
            routes.push((block6, v6(*other)));
        }
        routes.sort();
        routes
    }

    fn is_full(&self, among: &[usize]) -> bool {
        among.iter().all(|node| self.learned(*node) == Self::expected(*node, among))
    }

    /// BGPSession objects, with what they say.
    fn sessions(&self) -> Vec<(String, String)> {
        let directory = self.objects.directory().join("bgpsessions.manx.dev");
        let status = self.objects.directory().join(".status/bgpsessions.manx.dev");
        let mut all = Vec::new();
        for entry in
            fs::read_dir(&directory).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new())
        {
            let name = entry.file_name().to_string_lossy().trim_end_matches(".yaml").to_owned();
            let text = fs::read_to_string(status.join(entry.file_name())).unwrap_or_default();
            let written: Value = serde_json::from_str(&text).unwrap_or_default();
            let state = written["managers"]["manx-bgpd"]["status"]["state"].as_str().map(str::to_owned);
            all.push((name, state.unwrap_or_default()));
        }
        all.sort();
        all
    }

    /// Collects deletions of our routes from now on.
    fn watch(&self, node: usize) -> (PathBuf, std::process::Child) {
        let file = self.lab.directory().join(format!("monitor-{}", NODES[node]));
        let child = self.nodes[node]
            .netns
            .command("ip")
            .args(["-o", "monitor", "route"])
            .stdout(fs::File::create(&file).unwrap())
            .spawn()
            .unwrap();
        (file, child)
    }
}

fn put_objects(objects: &Objects, kind: Kind) {
    objects.put_settings().unwrap();
    let settings = "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {name: default}\nspec:\n  \
                    topology: {session: {timers: {hold: 9s, connectRetry: 1s}}}\n";
    objects.put("fabricconfigurations.manx.dev/default", settings).unwrap();
    for (index, name) in NODES.iter().enumerate() {
        put_node(objects, kind, index);
        for block in blocks(index) {
            objects.put_block(&block, name).unwrap();
        }
    }
}

/// What kubelet and a person say of a node. felix, which would copy the addresses into the status, does not run here.
fn put_node(objects: &Objects, kind: Kind, index: usize) {
    let (name, v4, v6) = (NODES[index], v4(index), v6(index));
    objects
        .put(
            &format!("nodes/{name}"),
            &format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nstatus:\n  addresses:\n  \
                 - {{type: InternalIP, address: {v4}}}\n  - {{type: InternalIP, address: \"{v6}\"}}\n"
            ),
        )
        .unwrap();
    let asn =
        if kind == Kind::External { format!("asn: {}, ", 4_200_000_001 + index) } else { String::new() };
    objects
        .put(
            &format!("fabricnodes.manx.dev/{name}"),
            &format!(
                "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: {name}}}\n\
                 spec: {{{asn}addresses: {{ipv4: {v4}, ipv6: \"{v6}\"}}}}\n"
            ),
        )
        .unwrap();
}

/// Every node learns the others' blocks, both families over one session, and pods' addresses are reached.
fn everybody_learns(kind: Kind, test: &str) -> Rig {
    let rig = Rig::start(kind, test);
    let started = Instant::now();
    rig.await_that("every node holds the blocks of the two others", |rig| rig.is_full(&[0, 1, 2]));
    println!("full mesh of 3 nodes after {:?}", started.elapsed());
    rig
}

/// A connection from one node to an address in another's block.
fn connects(from: &Netns, to: &Netns, address: &str) -> bool {
    let address: SocketAddr = SocketAddr::new(address.parse().unwrap(), 8080);
    let held = to.ip_json(&["addr", "show"]).unwrap();
    let listener = to
        .run(|| Ok(TcpListener::bind(address)?))
        .unwrap_or_else(|error| panic!("{address} in {}: {error:#}\n{held}", to.name()));
    let connected = from.run(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(3))?)).is_ok();
    drop(listener);
    connected
}

#[test]
fn internal_mesh() {
    let mut rig = everybody_learns(Kind::Internal, "mesh-i");
    // An address of each block, as a pod would have it: the kernel's routes carry packets.
    for (index, node) in rig.nodes.iter().enumerate() {
        node.netns
            .ip(&format!(
                "addr add 10.244.{index}.1/32 dev lo\naddr add fd00:10:244::{}01/128 dev lo nodad\n",
                index + 1
            ))
            .unwrap();
    }
    assert!(
        connects(&rig.nodes[0].netns, &rig.nodes[2].netns, "10.244.2.1"),
        "IPv4 from n1 into the block of n3"
    );
    assert!(
        connects(&rig.nodes[2].netns, &rig.nodes[0].netns, "fd00:10:244::101"),
        "IPv6 from n3 into the block of n1"
    );
    // Only the dialling end, the one with the higher router id, writes the BGPSession.
    let names = ["n2.topology.10.9.0.11", "n3.topology.10.9.0.11", "n3.topology.10.9.0.12"];
    let up: Vec<(String, String)> =
        names.iter().map(|name| ((*name).to_owned(), "Established".to_owned())).collect();
    rig.await_that("one BGPSession a pair, by the end that dials", |rig| rig.sessions() == up);
    a_killed_node_is_waited_for(&mut rig);
    a_removed_node_is_forgotten(&rig);
}

/// Nobody may read the directory: a datastore that does not answer. bgpd runs without CAP_DAC_OVERRIDE.
fn silence(rig: &Rig, silent: bool) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::Permissions::from_mode(if silent { 0 } else { 0o755 });
    fs::set_permissions(rig.objects.directory(), mode).unwrap();
}

#[test]
fn sessions_and_blocks_return_without_the_datastore() {
    let mut rig = everybody_learns(Kind::Internal, "mesh-s");
    rig.await_that("bgpd remembers its inputs", |rig| rig.nodes[0].state_dir().join("inputs-bgpd").exists());
    silence(&rig, true);
    // Killed: not one route goes, and the sessions are back.
    let (file, mut monitor) = rig.watch(0);
    rig.nodes[0].kill().unwrap();
    rig.nodes[0].start(&[]).unwrap();
    let life = |rig: &Rig| {
        let log = rig.nodes[0].said();
        log.rsplit("bgpd starts").next().unwrap_or_default().to_owned()
    };
    let speaks = |rig: &Rig| life(rig).matches("session synchronized").count() >= 2;
    rig.await_that("n1 works from its memory", |rig| life(rig).contains("working from remembered inputs"));
    rig.await_that("it speaks to both others again", speaks);
    thread::sleep(Duration::from_secs(1));
    assert!(rig.is_full(&[0, 1, 2]), "routes after the restart");
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let monitored = fs::read_to_string(file).unwrap();
    let deleted: Vec<&str> =
        monitored.lines().filter(|line| line.starts_with("Deleted") && line.contains("proto 77")).collect();
    assert!(deleted.is_empty(), "{deleted:?}");
    // A power-cut: nothing is left in the kernel either.
    rig.nodes[0].kill().unwrap();
    let flush = |words: &[&str]| {
        let flushed = rig.nodes[0].netns.command("ip").args(words).status();
        assert!(flushed.unwrap().success(), "ip {words:?}");
    };
    // Objects take their routes along; `ip route flush` alone cannot name routes by objects to the kernel.
    flush(&["nexthop", "flush", "proto", "77"]);
    for family in ["-4", "-6"] {
        flush(&[family, "route", "flush", "proto", "77"]);
    }
    rig.nodes[0].start(&[]).unwrap();
    rig.await_that("it speaks to both others again", speaks);
    rig.await_that("sessions, blocks and routes are back", |rig| rig.is_full(&[0, 1, 2]));
    // What the datastore says replaces what was remembered of it: a block of n1 is gone.
    let [gone, _] = blocks(0);
    silence(&rig, false);
    rig.objects.delete(&format!("ipblocks.manx.dev/{}", block_name(&gone))).unwrap();
    rig.await_that("the block is withdrawn everywhere", |rig| {
        (0..NODES.len()).all(|node| rig.learned(node).iter().all(|(prefix, _)| *prefix != gone))
    });
    assert!(life(&rig).contains("remembered inputs are replaced"));
}

/// What the controller would elect: it does not run here.
fn elect(rig: &Rig, reflectors: &[usize]) {
    let list: Vec<Value> = reflectors
        .iter()
        .map(|node| json!({"nodeName": NODES[*node], "clusterID": v4(*node), "addresses": [v4(*node)]}))
        .collect();
    let status = rig.objects.directory().join(".status/fabricconfigurations.manx.dev");
    let (file, new) = (status.join("default.yaml"), status.join(".new"));
    // It has been there since somebody saw the object for the first time.
    let mut record: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    record["managers"] = json!({"manx-controller": {"status": {"routeReflectors": list}}});
    fs::write(&new, record.to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

#[test]
fn reflected() {
    let mut rig = everybody_learns(Kind::Internal, "mesh-r");
    let put = |rig: &Rig, topology: &str| {
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {{name: default}}\nspec:\n  \
             topology: {{{topology}session: {{timers: {{hold: 9s, connectRetry: 1s}}}}}}\n"
        );
        rig.objects.put("fabricconfigurations.manx.dev/default", &text).unwrap();
    };
    let up = |names: &[&str]| -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), "Established".to_owned())).collect()
    };
    let mesh = ["n2.topology.10.9.0.11", "n3.topology.10.9.0.11", "n3.topology.10.9.0.12"];
    rig.await_that("the mesh is reported", |rig| rig.sessions() == up(&mesh));
    put(&rig, "mode: RouteReflector, ");
    thread::sleep(Duration::from_secs(3));
    assert!(rig.is_full(&[0, 1, 2]), "nobody is elected yet: what runs goes on");
    // n1 reflects: n2 and n3 have no session with each other, and each other's blocks all the same.
    elect(&rig, &[0]);
    rig.await_that("sessions with the reflector alone", |rig| rig.sessions() == up(&mesh[..2]));
    rig.await_that("blocks are reflected", |rig| rig.is_full(&[0, 1, 2]));
    // A second one, the first one dies: n3 hears of n2 from itself, n2 of n3 likewise.
    elect(&rig, &[0, 1]);
    rig.await_that("sessions with both", |rig| rig.sessions() == up(&mesh));
    rig.nodes[0].kill().unwrap();
    thread::sleep(Duration::from_secs(1));
    elect(&rig, &[1]);
    rig.await_that("n2 and n3 without n1", |rig| {
        [1, 2].iter().all(|node| {
            let (held, expected) = (rig.learned(*node), Rig::expected(*node, &[1, 2]));
            expected.iter().all(|route| held.contains(route))
        })
    });
}

#[test]
fn external_mesh() {
    let mut rig = everybody_learns(Kind::External, "mesh-e");
    a_killed_node_is_waited_for(&mut rig);
    a_removed_node_is_forgotten(&rig);
    // A mode without sessions between nodes, while they run.
    rig.objects
        .put(
            "fabricconfigurations.manx.dev/default",
            "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {name: default}\nspec: {topology: {mode: None}}\n",
        )
        .unwrap();
    rig.await_that("mode None takes the sessions and their routes away", |rig| {
        (0..2).all(|node| rig.learned(node) == Rig::expected(node, &[]))
    });
    // n3 is no node any more, and nobody deletes for it what it owns but a garbage collector.
    rig.await_that("and their BGPSessions", |rig| {
        rig.sessions().iter().all(|(name, _)| name.starts_with("n3."))
    });
}

/// `kill -9` of the end that dials and of one that waits: nobody's routes change, before, during and after.
fn a_killed_node_is_waited_for(rig: &mut Rig) {
    for victim in [2, 0] {
        let monitors: Vec<_> = (0..3).map(|node| rig.watch(node)).collect();
        thread::sleep(Duration::from_millis(200));
        rig.nodes[victim].kill().unwrap();
        thread::sleep(Duration::from_secs(2));
        assert!(rig.is_full(&[0, 1, 2]), "routes while bgpd on {} is dead", NODES[victim]);
        rig.nodes[victim].start(&[]).unwrap();
        rig.await_that("it speaks to both others again", |rig| {
            let log = rig.nodes[victim].said();
            let life = log.rsplit("bgpd starts").next().unwrap_or_default();
            life.matches("session synchronized").count() >= 2
        });
        // Whatever the sweep after End-of-RIB takes away, it has taken by now.
        thread::sleep(Duration::from_secs(1));
        assert!(rig.is_full(&[0, 1, 2]), "routes after the restart of {}", NODES[victim]);
        for (file, mut child) in monitors {
            child.kill().unwrap();
            child.wait().unwrap();
            let text = fs::read_to_string(&file).unwrap();
            let deleted: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with("Deleted") && line.contains("proto 77"))
                .collect();
            assert!(deleted.is_empty(), "{}: {deleted:?}", file.display());
        }
    }
}

/// The node is gone, and so are its objects: the others close their sessions and forget its routes, not each other's.
fn a_removed_node_is_forgotten(rig: &Rig) {
    for object in ["nodes/n3", "fabricnodes.manx.dev/n3"] {
        rig.objects.delete(object).unwrap();
    }
    let removed = Instant::now();
    rig.await_that("n1 and n2 hold each other's blocks only", |rig| rig.is_full(&[0, 1]));
    println!("routes of a removed node gone after {:?}", removed.elapsed());
}

#[test]
fn twins_do_not_harm_the_others() {
    let rig = everybody_learns(Kind::Internal, "mesh-t");
    // n3 claims the address of n1. Without creation times the names decide: n3 is the younger.
    let twin = "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {name: n3}\nspec: {addresses: {ipv4: 10.9.0.11}}\n";
    rig.objects.put("fabricnodes.manx.dev/n3", twin).unwrap();
    rig.await_that("n3 says so", |rig| {
        let answer = rig.nodes[2].ask("{\"verb\": \"status\"}");
        answer["ready"] == "IdentityNotUnique" && answer["message"].as_str().unwrap().contains("10.9.0.11")
    });
    rig.await_that("n1 and n2 stay together", |rig| {
        let holds = |node: usize, other: usize| {
            let routes = rig.learned(node);
            Rig::expected(node, &[other]).iter().all(|route| routes.contains(route))
        };
        holds(0, 1) && holds(1, 0)
    });
    put_node(&rig.objects, Kind::Internal, 2);
    rig.await_that("mended, all is as before", |rig| rig.is_full(&[0, 1, 2]));
}
