//! 40 real pairs of agents and 160 more watch clients on a real API server: what a node costs it.
//!
//! `make scale` runs it. Nodes are namespaces around one router, each with felix and bgpd of its own, all in one full mesh;
//! their Node objects have no kubelet. The watch clients read what agents watch, and discard it. Figures are printed; what is
//! asserted is that all become ready, and that who has nothing to say writes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::cluster::ControlPlane;
use e2e::netns::{self, Netns};
use e2e::process::{Launch, Process, built, tail, wait_for};
use serde_json::Value;

const NODES: usize = 40;
const CLIENTS: usize = 160;
/// What every agent watches of the cluster, by path.
const WATCHED: [&str; 4] = [
    "/apis/manx.dev/v1alpha1/fabricnodes",
    "/apis/manx.dev/v1alpha1/ipblocks",
    "/api/v1/nodes",
    "/apis/manx.dev/v1alpha1/bgppeers",
];
const PATIENCE: Duration = Duration::from_secs(300);
const IDLE: Duration = Duration::from_secs(300);
/// What a write is, as the API server counts requests.
const WRITES: [&str; 6] = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];
/// Where the proxy for the watch clients listens, in the control plane's namespace.
const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8001);

struct Pair {
    netns: Netns,
    /// felix, bgpd.
    agents: Vec<Process>,
}

struct Rig {
    // Agents end before what they talk to.
    pairs: Vec<Pair>,
    proxy: Option<Process>,
    plane: ControlPlane,
    home: PathBuf,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let names: Vec<String> = self.pairs.iter().map(|pair| pair.netns.name().to_owned()).collect();
        self.pairs.clear();
        self.proxy = None;
        // The next run removes what stays.
        let _ = netns::remove(names.iter().map(String::as_str));
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn address(number: usize) -> (String, String) {
    (format!("10.99.0.{}", number + 10), format!("fd99::{}", number + 10))
}

impl Rig {
    fn up() -> Self {
        let plane = ControlPlane::up("scale").unwrap();
        let home = std::env::temp_dir().join(format!("manx-test-{}-scale", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        plane
            .netns()
            .sysctl(&[
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv6/conf/default/accept_dad", "0"),
            ])
            .unwrap();
        plane.netns().ip("addr add 10.99.0.1/32 dev lo\naddr add fd99::1/128 dev lo\n").unwrap();
        let mut install = plane.netns().command(&built("manxctl").unwrap().to_string_lossy());
        install.env("KUBECONFIG", plane.admin_kubeconfig()).args(["install", "--crds", "--defaults"]);
        netns::stdout_of(install).unwrap();
        let mut rig = Self { pairs: Vec::new(), proxy: None, plane, home };
        rig.proxy = Some(rig.start_proxy());
        for number in 1..=NODES {
            let pair = rig.node(number);
            rig.pairs.push(pair);
        }
        rig
    }

    fn start_proxy(&self) -> Process {
        let kubeconfig = self.plane.admin_kubeconfig();
        let process = Launch {
            label: "kubectl proxy".to_owned(),
            netns: self.plane.netns().clone(),
            program: self.plane.binaries().program("kubectl"),
            arguments: vec![
                format!("--kubeconfig={}", kubeconfig.display()),
                "proxy".to_owned(),
                format!("--port={}", PROXY.port()),
            ],
            capabilities: None,
            log: self.home.join("proxy.log"),
        };
        let process = process.start().unwrap();
        wait_for(PATIENCE, || self.plane.run(|| Ok(TcpStream::connect(PROXY)?)).ok()).expect("kubectl proxy");
        process
    }

    /// A namespace, its Node, and both agents in it.
    fn node(&self, number: usize) -> Pair {
        let name = format!("s{number}");
        let netns = Netns::create(&format!("manx-test-{}-scale-{name}", std::process::id())).unwrap();
        netns
            .sysctl(&[
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv6/conf/default/accept_dad", "0"),
            ])
            .unwrap();
        let control = self.plane.netns();
        let link = format!(
            "link add eth0 netns {} type veth peer name {name} netns {}\n",
            netns.name(),
            control.name()
        );
        netns::batch(&[], &link).unwrap();
        let (v4, v6) = address(number);
        // A link each and one neighbour: the kernel keeps 1,024 neighbours for all namespaces together.
        control
            .ip(&format!(
                "link set {name} up\naddr add 10.99.0.1 peer {v4} dev {name}\naddr add fe80::1/64 dev {name} nodad\n\
                 route add {v6}/128 dev {name}\n"
            ))
            .unwrap();
        netns
            .ip(&format!(
                "link set eth0 up\naddr add {v4} peer 10.99.0.1 dev eth0\naddr add {v6}/128 dev eth0 nodad\n\
                 route add default via 10.99.0.1\nroute add default via fe80::1 dev eth0\n"
            ))
            .unwrap();
        self.plane
            .apply(&format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, status: {{addresses: \
                 [{{type: InternalIP, address: {v4}}}, {{type: InternalIP, address: \"{v6}\"}}]}}}}"
            ))
            .unwrap();
        let agents = ["felix", "bgpd"].map(|agent| self.agent(agent, &name, &netns)).into();
        Pair { netns, agents }
    }

    fn agent(&self, agent: &str, node: &str, netns: &Netns) -> Process {
        let path = |what: &str| {
            let path = self.home.join(node).join(what);
            fs::create_dir_all(&path).unwrap();
            path.to_string_lossy().into_owned()
        };
        let (run, state) = (path("run"), path("state"));
        let words = ["--node", node, "--store", "kubernetes", "--run-dir", &run, "--state-dir", &state];
        let mut arguments = vec![
            format!("KUBECONFIG={}", self.plane.admin_kubeconfig().display()),
            built(agent).unwrap().to_string_lossy().into_owned(),
        ];
        arguments.extend(words.map(str::to_owned));
        Launch {
            label: format!("{agent} on {node}"),
            netns: netns.clone(),
            program: PathBuf::from("env"),
            arguments,
            capabilities: None,
            log: self.log(agent, node),
        }
        .start()
        .unwrap()
    }

    fn log(&self, agent: &str, node: &str) -> PathBuf {
        self.home.join(format!("{agent}-{node}.log"))
    }

    fn items(&self, kind: &str) -> Vec<Value> {
        let text = self.plane.kubectl(&["get", kind, "-o", "json"]).unwrap();
        let mut list: Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(list["items"].take()).unwrap()
    }

    /// How many nodes say that both their agents are well.
    fn ready(&self) -> usize {
        let is_true = |node: &Value, kind: &str| {
            let conditions = node["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|one| one["type"] == kind && one["status"] == "True")
        };
        let nodes = self.items("fabricnodes");
        nodes.iter().filter(|node| is_true(node, "DataplaneReady") && is_true(node, "BGPReady")).count()
    }

    /// Writes that the API server has answered, by resource. Its own and Leases, which are a clock, left out.
    fn writes(&self) -> BTreeMap<String, u64> {
        let metrics = self.plane.kubectl(&["get", "--raw", "/metrics"]).unwrap();
        let mut all = BTreeMap::new();
        for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let label = |name: &str| {
                let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap_or_default();
                rest.split('"').next().unwrap_or_default().to_owned()
            };
            let ours = label("group") == "manx.dev"
                || ["nodes", "pods", "events", "services"].contains(&label("resource").as_str());
            if ours && WRITES.contains(&label("verb").as_str()) {
                let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
                *all.entry(format!("{} {}", label("verb"), label("resource"))).or_default() += count;
            }
        }
        all
    }

    /// Octets that each node has received, of API server and peers together.
    fn received(&self) -> Vec<u64> {
        let read = |pair: &Pair| {
            let links = pair.netns.ip_json(&["-s", "link", "show", "eth0"]).unwrap();
            links[0]["stats64"]["rx"]["bytes"].as_u64().unwrap()
        };
        self.pairs.iter().map(read).collect()
    }

    /// Resident memory of all agents of a kind, in KiB.
    fn resident(&self, which: usize) -> Vec<u64> {
        let mut all: Vec<u64> = self.pairs.iter().map(|pair| resident(pair.agents[which].pid())).collect();
        all.sort_unstable();
        all
    }
}

/// `VmRSS` of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Clients that read everything agents watch, and only count.
fn watch(rig: &Rig) -> Arc<AtomicU64> {
    let read = Arc::new(AtomicU64::new(0));
    for _ in 0..CLIENTS {
        for path in WATCHED {
            let read = Arc::clone(&read);
            let mut stream = rig.plane.run(|| Ok(TcpStream::connect(PROXY)?)).unwrap();
            write!(
                stream,
                "GET {path}?watch=true&allowWatchBookmarks=true HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            .unwrap();
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    let mut buffer = [0; 16 << 10];
                    while let Ok(size @ 1..) = stream.read(&mut buffer) {
                        read.fetch_add(size as u64, Ordering::Relaxed);
                    }
                })
                .unwrap();
        }
    }
    read
}

fn sum(of: &BTreeMap<String, u64>) -> u64 {
    of.values().sum()
}

fn since(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let grown = |(what, count): (&String, &u64)| {
        let more = count - before.get(what).copied().unwrap_or_default();
        (more > 0).then(|| (what.clone(), more))
    };
    after.iter().filter_map(grown).collect()
}

#[test]
fn forty_nodes() {
    let begun = Instant::now();
    let rig = Rig::up();
    let read = watch(&rig);
    println!(
        "{NODES} pairs of agents started, {CLIENTS} clients watch: {:.1}s",
        begun.elapsed().as_secs_f64()
    );
    let mut seen = 0;
    let all = wait_for(PATIENCE, || {
        seen = rig.ready();
        thread::sleep(Duration::from_secs(1));
        (seen == NODES).then_some(())
    });
    if all.is_none() {
        panic!("{seen} of {NODES} nodes are ready\n{}", tail(&rig.log("bgpd", "s1"), 20));
    }
    let sessions = NODES * (NODES - 1) / 2;
    let up = || rig.items("bgpsessions").iter().filter(|one| one["status"]["state"] == "Established").count();
    let established = wait_for(PATIENCE, || {
        thread::sleep(Duration::from_secs(1));
        (up() == sessions).then_some(())
    });
    assert!(established.is_some(), "{} of {sessions} sessions are Established", up());
    println!("all ready, {sessions} sessions: {:.1}s", begun.elapsed().as_secs_f64());
    // What follows a start, statistics included, is written by then.
    thread::sleep(Duration::from_secs(90));
    let (writes, octets, watched) = (rig.writes(), rig.received(), read.load(Ordering::Relaxed));
    println!("start: {} writes, {:.1} a node: {writes:?}", sum(&writes), sum(&writes) as f64 / NODES as f64);
    let mean = octets.iter().sum::<u64>() / NODES as u64;
    println!("start: {} KiB received a node (API server and peers)", mean >> 10);
    println!("start: {} KiB read by each watch client", (watched / CLIENTS as u64) >> 10);
    for (which, agent) in ["felix", "bgpd"].into_iter().enumerate() {
        let all = rig.resident(which);
        println!(
            "{agent}: {:.1} MiB resident in the middle, {:.1} at most",
            all[NODES / 2] as f64 / 1024.0,
            all[NODES - 1] as f64 / 1024.0
        );
    }
    thread::sleep(IDLE);
    let idle = since(&writes, &rig.writes());
    let quiet: Vec<u64> = rig.received().iter().zip(&octets).map(|(after, before)| after - before).collect();
    let mean = quiet.iter().sum::<u64>() / NODES as u64;
    println!(
        "idle, {} s: {} writes {idle:?}, {} B/s received a node, {} octets read by each watch client",
        IDLE.as_secs(),
        sum(&idle),
        mean / IDLE.as_secs(),
        (read.load(Ordering::Relaxed) - watched) / CLIENTS as u64
    );
    assert!(idle.is_empty(), "who has nothing to say writes: {idle:?}");
    assert_eq!(rig.ready(), NODES);
}
