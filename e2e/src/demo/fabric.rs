//! The running fabric: what the steps built, and how checks look at it.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::netns::Netns;
use crate::pod::{Addresses, Runtime, Sandbox};
use crate::probe::{self, EchoServer};
use crate::process::{Launch, Process};
use crate::router::{Kind, RouterPlaces, Routers};
use crate::store::Objects;
use crate::topology::{CLIENT_V4, CLIENT_V6, NODES, Node, Scope, node};

use super::checks::Notes;

/// Where everything of one run lies.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// `target/demo`, as it is printed.
    pub(crate) shown: PathBuf,
    /// The same, absolute.
    pub(crate) home: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) objects: PathBuf,
    pub(crate) state: PathBuf,
    /// Sockets, one directory a node: unix socket paths must be short.
    pub(crate) run: PathBuf,
    /// Where the binaries are.
    pub(crate) binaries: PathBuf,
}

/// The daemons of one node.
#[derive(Debug)]
pub(crate) struct Daemons {
    pub(crate) node: Node,
    pub(crate) bgpd: Process,
    pub(crate) felix: Process,
}

/// One pod that is up.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) sandbox: Sandbox,
    pub(crate) node: Node,
    pub(crate) addresses: Addresses,
    #[expect(dead_code, reason = "held, so that the pod answers for as long as it is there")]
    pub(crate) server: EchoServer,
}

/// Who is where, of which app.
pub(crate) const PODS: [(&str, &str, &str, &str); 6] = [
    ("n1", "shop", "web-1", "web"),
    ("n1", "shop", "api-1", "api"),
    ("n2", "shop", "web-2", "web"),
    ("n2", "jobs", "job-1", "job"),
    ("n3", "shop", "db-1", "db"),
    ("n3", "jobs", "job-2", "job"),
];

/// One end that asks: a pod, the client, or a node.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) name: String,
    pub(crate) netns: Netns,
    /// What it binds to, by family; `None`: what the kernel picks.
    pub(crate) bind: [Option<IpAddr>; 2],
    /// Sources that are right to be seen.
    pub(crate) right: Vec<IpAddr>,
}

/// The fabric, as far as the steps got.
#[derive(Debug)]
pub(crate) struct Fabric {
    pub(crate) scope: Scope,
    pub(crate) places: Places,
    pub(crate) objects: Objects,
    pub(crate) kind: Kind,
    pub(crate) routers: Option<Routers>,
    pub(crate) daemons: Vec<Daemons>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) client: Option<EchoServer>,
    /// How long after the first bgpd's start the routers had all sessions up, if they had them within 20 s.
    pub(crate) established_after: Option<Duration>,
    pub(crate) notes: Notes,
}

/// A place in a log; what is written after it can be read.
#[derive(Debug)]
pub(crate) struct LogMark {
    path: PathBuf,
    offset: u64,
}

impl LogMark {
    #[must_use]
    pub(crate) fn now(path: &Path) -> Self {
        let offset = fs::metadata(path).map_or(0, |data| data.len());
        Self { path: path.to_owned(), offset }
    }

    /// The lines written since.
    #[must_use]
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut text = Vec::new();
        let read = fs::File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut text)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&text).lines().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        }
    }
}

impl Places {
    /// Where the routers' files are.
    pub(crate) fn of_routers(&self) -> RouterPlaces<'_> {
        RouterPlaces { logs: &self.logs, home: &self.state, run: &self.run, binaries: &self.binaries }
    }
}

impl Fabric {
    /// The routers, or why there are none.
    pub(crate) fn routers(&self) -> Result<&Routers> {
        self.routers.as_ref().context("the routers are not up")
    }

    pub(crate) fn daemons(&mut self, name: &str) -> Result<&mut Daemons> {
        self.daemons
            .iter_mut()
            .find(|daemons| daemons.node.name == name)
            .with_context(|| format!("{name} is not up"))
    }

    pub(crate) fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.iter().find(|pod| pod.sandbox.name == name).with_context(|| format!("pod {name} is not up"))
    }

    #[must_use]
    pub(crate) fn log(&self, daemon: &str, node: &str) -> PathBuf {
        self.places.logs.join(format!("{node}.{daemon}.log"))
    }

    /// How a node's container runtime calls manx-cni.
    #[must_use]
    pub(crate) fn runtime(&self, node: Node) -> Runtime {
        Runtime {
            program: self.places.binaries.join("manx-cni"),
            node: self.scope.netns(node.name),
            socket: self.places.run.join(node.name).join("felix.sock"),
        }
    }

    /// bgpd and felix of one node, as they are started every time.
    #[must_use]
    pub(crate) fn launch(&self, daemon: &str, node: Node) -> Launch {
        let capabilities: &'static [&'static str] =
            if daemon == "bgpd" { &["net_admin", "net_bind_service"] } else { &["net_admin", "net_raw"] };
        let path = |path: &Path| path.to_string_lossy().into_owned();
        Launch {
            label: format!("{daemon} on {}", node.name),
            netns: self.scope.netns(node.name),
            program: self.places.binaries.join(daemon),
            arguments: vec![
                "--node".to_owned(),
                node.name.to_owned(),
                "--store".to_owned(),
                path(&self.places.objects),
                "--run-dir".to_owned(),
                path(&self.places.run.join(node.name)),
                "--state-dir".to_owned(),
                path(&self.places.state.join(node.name)),
            ],
            capabilities: Some(capabilities),
            log: self.log(daemon, node.name),
        }
    }

    /// What `manxctl ARGUMENTS` prints, whatever it exits with.
    pub(crate) fn manxctl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(self.places.binaries.join("manxctl"))
            .arg("--store")
            .arg(&self.places.objects)
            .arg("--run-dir")
            .arg(&self.places.run)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("starting manxctl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0 | 1) => Ok(text),
            _ => bail!("manxctl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()),
        }
    }

    /// The report that `manxctl … -o json` prints.
    pub(crate) fn manxctl_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let text = self.manxctl(&all)?;
        serde_json::from_str(&text).with_context(|| format!("JSON of manxctl {}", all.join(" ")))
    }

    /// A pod as one that asks.
    pub(crate) fn asker(&self, pod: &str) -> Result<Asker> {
        let pod = self.pod(pod)?;
        Ok(Asker {
            name: pod.sandbox.name.clone(),
            netns: pod.sandbox.netns.clone(),
            bind: [None, None],
            right: pod.addresses.both().to_vec(),
        })
    }

    #[must_use]
    pub(crate) fn client_asker(&self) -> Asker {
        let both = [IpAddr::from(CLIENT_V4), IpAddr::from(CLIENT_V6)];
        Asker {
            name: "client".to_owned(),
            netns: self.scope.netns("client"),
            bind: both.map(Some),
            right: both.to_vec(),
        }
    }

    #[must_use]
    pub(crate) fn node_asker(&self, node: Node) -> Asker {
        Asker {
            name: node.name.to_owned(),
            netns: self.scope.netns(node.name),
            bind: [None, None],
            right: node.addresses(),
        }
    }

    /// The five other pods and the client: who may ask a pod.
    pub(crate) fn everybody_but(&self, pod: &str) -> Result<Vec<Asker>> {
        let mut askers = Vec::new();
        for (_, _, name, _) in PODS {
            if name != pod {
                askers.push(self.asker(name)?);
            }
        }
        askers.push(self.client_asker());
        Ok(askers)
    }

    /// The pods of a node.
    #[must_use]
    pub(crate) fn pods_of(&self, node: Node) -> Vec<&Pod> {
        self.pods.iter().filter(|pod| pod.node == node).collect()
    }

    /// Blocks by owner, from the store.
    pub(crate) fn blocks(&self) -> Result<Vec<(Node, String)>> {
        let mut owned = Vec::new();
        for block in self.objects.blocks()? {
            if let Some(owner) = block.spec.node_name.as_deref().and_then(node) {
                owned.push((owner, block.spec.cidr));
            }
        }
        Ok(owned)
    }
}

impl Pod {
    /// Where it answers, by family.
    #[must_use]
    pub(crate) fn targets(&self) -> [SocketAddr; 2] {
        self.addresses.both().map(|address| SocketAddr::new(address, probe::PORT))
    }
}

/// One question from one end to another.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) from: Asker,
    pub(crate) to: String,
    pub(crate) target: SocketAddr,
}

impl Question {
    /// Both families, from one end to one pod.
    #[must_use]
    pub(crate) fn both(from: &Asker, to: &Pod) -> Vec<Self> {
        to.targets()
            .into_iter()
            .map(|target| Self { from: from.clone(), to: to.sandbox.name.clone(), target })
            .collect()
    }

    fn bind(&self) -> Option<IpAddr> {
        let [v4, v6] = self.from.bind;
        if self.target.is_ipv4() { v4 } else { v6 }
    }

    fn label(&self) -> String {
        format!("{} -> {} {}", self.from.name, self.to, if self.target.is_ipv4() { "v4" } else { "v6" })
    }

    /// An answer with the right source, else what was wrong.
    fn passes(&self, patience: Duration) -> Result<(), String> {
        let answer = probe::exchange(&self.from.netns, self.bind(), self.target, patience);
        match answer {
            Ok(seen) if self.from.right.contains(&seen.source) => Ok(()),
            Ok(seen) => Err(format!("{}: source seen as {}", self.label(), seen.source)),
            Err(error) => Err(format!("{}: {error:#}", self.label())),
        }
    }

    fn is_refused(&self, patience: Duration) -> Result<(), String> {
        probe::refused(&self.from.netns, self.bind(), self.target, patience)
            .map_err(|error| format!("{}: {error:#}", self.label()))
    }
}

/// Whether questions are meant to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Answer,
    Silence,
}

/// Asks all at once, eight at a time; what did not come out as wanted, in order.
#[must_use]
pub(crate) fn ask(questions: &[Question], want: Want, patience: Duration) -> Vec<String> {
    let mut failures = Vec::new();
    for group in questions.chunks(8) {
        let answers: Vec<Result<(), String>> = thread::scope(|scope| {
            let threads: Vec<_> = group
                .iter()
                .map(|question| {
                    scope.spawn(move || match want {
                        Want::Answer => question.passes(patience),
                        Want::Silence => question.is_refused(patience),
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a probe panicked".to_owned())))
                .collect()
        });
        failures.extend(answers.into_iter().filter_map(Result::err));
    }
    failures
}

/// One route of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KernelRoute {
    pub(crate) destination: String,
    pub(crate) kind: String,
    pub(crate) protocol: String,
    pub(crate) metric: u64,
    /// Gateway and interface, sorted.
    pub(crate) hops: Vec<(String, String)>,
}

/// All routes of the main table, both families, that a daemon of ours or a router put there.
pub(crate) fn kernel_routes(netns: &Netns) -> Result<Vec<KernelRoute>> {
    let mut routes = Vec::new();
    for family in ["-4", "-6"] {
        let answer = netns.ip_json(&[family, "route", "show", "table", "main"])?;
        for entry in answer.as_array().context("ip route: no list")? {
            routes.push(route(entry));
        }
    }
    routes.retain(|route| route.protocol != "kernel" && route.protocol != "ra");
    routes.sort();
    Ok(routes)
}

fn route(entry: &Value) -> KernelRoute {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let hop = |value: &Value| {
        let gateway = match value.get("via") {
            Some(via) => text(via, "host"),
            None => text(value, "gateway"),
        };
        (gateway, text(value, "dev"))
    };
    let mut hops: Vec<(String, String)> = match entry.get("nexthops").and_then(Value::as_array) {
        Some(list) => list.iter().map(hop).collect(),
        None => vec![hop(entry)],
    };
    hops.sort();
    KernelRoute {
        destination: text(entry, "dst"),
        kind: entry.get("type").and_then(Value::as_str).unwrap_or("unicast").to_owned(),
        protocol: text(entry, "protocol"),
        metric: entry.get("metric").and_then(Value::as_u64).unwrap_or_default(),
        hops,
    }
}

/// Table `inet manx` as JSON without what counts or is numbered anew: handles, packet and byte counters, flags
/// and the order of set elements.
pub(crate) fn ruleset(netns: &Netns) -> Result<Value> {
    let mut command = netns.command("nft");
    command.args(["-j", "list", "table", "inet", "manx"]);
    let text = crate::netns::stdout_of(command)?;
    let mut value: Value = serde_json::from_str(&text).context("JSON of nft")?;
    let list =
        value.get_mut("nftables").and_then(Value::as_array_mut).ok_or_else(|| anyhow!("nft: no list"))?;
    list.retain(|entry| entry.get("metainfo").is_none());
    let mut plain = Value::Array(std::mem::take(list));
    strip(&mut plain);
    Ok(plain)
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in ["handle", "packets", "bytes", "flags", "expires"] {
                map.remove(key);
            }
            for (key, inner) in map.iter_mut() {
                strip(inner);
                if key == "elem" || key == "set" {
                    sort(inner);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn sort(value: &mut Value) {
    if let Value::Array(list) = value {
        list.sort_by_cached_key(Value::to_string);
    }
}

/// Whether every node's session with every ToR carries both families.
pub(crate) fn established(routers: &Routers, nodes: &[Node]) -> Result<usize> {
    let mut up = 0;
    for (tor, router) in &routers.tors {
        let sessions = router.sessions()?;
        up += nodes
            .iter()
            .filter(|node| {
                sessions.get(&node.link_v4(*tor).to_string()).is_some_and(|session| session.families == 2)
            })
            .count();
    }
    Ok(up)
}

/// How many sessions there are when all is well.
#[must_use]
pub(crate) fn session_count() -> usize {
    NODES.len() * crate::topology::TORS.len()
}
