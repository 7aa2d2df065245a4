//! One bgpd in a namespace, driven by the objects of a directory and asked on its socket.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::netns::{self, Netns};
use e2e::process::{Launch, Process, built, tail, wait_for};
use e2e::store::Objects;
use e2e::topology::{self, Scope};
use serde_json::Value;

/// What is not Established is written after 10 s; a hold time is 9 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Namespaces of one test and a directory; both go with it.
pub(crate) struct Lab {
    scope: Scope,
    spaces: Vec<Netns>,
    pub(crate) directory: PathBuf,
}

impl Lab {
    pub(crate) fn new(test: &str) -> Self {
        topology::remove_stale_tests().unwrap();
        let scope = Scope::test(test);
        let directory = std::env::temp_dir().join(scope.router("files"));
        fs::create_dir_all(&directory).unwrap();
        Self { scope, spaces: Vec::new(), directory }
    }

    /// A namespace that forwards.
    pub(crate) fn space(&mut self, name: &str) -> Netns {
        let netns = Netns::create(self.scope.netns(name).name()).unwrap();
        netns
            .sysctl(&[
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv6/conf/default/forwarding", "1"),
                ("ipv6/conf/default/accept_dad", "0"),
            ])
            .unwrap();
        netns.ip("link set lo up\n").unwrap();
        self.spaces.push(netns.clone());
        netns
    }

    /// The name of a router's path space.
    pub(crate) fn router(&self, name: &str) -> String {
        self.scope.router(name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = netns::remove(self.spaces.iter().map(Netns::name));
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// A link between two namespaces, both ends up, each with the addresses given.
pub(crate) fn link(one: (&Netns, &str, &[&str]), other: (&Netns, &str, &[&str])) {
    let line = format!(
        "link add {} netns {} type veth peer name {} netns {}\n",
        one.1,
        one.0.name(),
        other.1,
        other.0.name()
    );
    netns::batch(&[], &line).unwrap();
    for (netns, name, addresses) in [one, other] {
        let addresses: String = addresses.iter().map(|a| format!("addr add {a} dev {name}\n")).collect();
        netns.ip(&format!("link set {name} up\n{addresses}")).unwrap();
    }
}

pub(crate) struct Node {
    name: String,
    pub(crate) netns: Netns,
    home: PathBuf,
    pub(crate) objects: Objects,
    pub(crate) bgpd: Option<Process>,
}

impl Node {
    /// A node with these addresses, of AS 4200000001 unless `settings` of its FabricNode say otherwise.
    pub(crate) fn new(name: &str, netns: &Netns, directory: &Path, addresses: &[&str], asn: u32) -> Self {
        let home = directory.join(name);
        for part in ["run", "state"] {
            fs::create_dir_all(home.join(part)).unwrap();
        }
        let objects = Objects::create(&home.join("objects")).unwrap();
        objects.put_settings().unwrap();
        let node = Self { name: name.to_owned(), netns: netns.clone(), home, objects, bgpd: None };
        node.knows(name, addresses, asn, "");
        let advertisement = "apiVersion: manx.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {name: pool-blocks}\n\
                             spec: {pools: {}}\n";
        node.objects.put("bgpadvertisements.manx.dev/pool-blocks", advertisement).unwrap();
        node
    }

    /// This node, or another one, as its store has it; `labels` as in YAML.
    pub(crate) fn knows(&self, name: &str, addresses: &[&str], asn: u32, labels: &str) {
        let lines: String =
            addresses.iter().map(|a| format!("  - {{type: InternalIP, address: \"{a}\"}}\n")).collect();
        let text = format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nstatus:\n  addresses:\n{lines}"
        );
        self.objects.put(&format!("nodes/{name}"), &text).unwrap();
        let of = |ipv4: bool| addresses.iter().find(|a| a.contains(':') != ipv4);
        let ipv4 = of(true).map(|a| format!("ipv4: {a}"));
        let ipv6 = of(false).map(|a| format!("ipv6: \"{a}\""));
        let both: Vec<String> = [ipv4, ipv6].into_iter().flatten().collect();
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: \
             {{asn: {asn}, addresses: {{{}}}}}\n",
            both.join(", ")
        );
        self.objects.put(&format!("fabricnodes.manx.dev/{name}"), &text).unwrap();
    }

    /// A BGPPeer; `spec` as in YAML, on one line.
    pub(crate) fn peer(&self, name: &str, spec: &str) {
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        );
        self.objects.put(&format!("bgppeers.manx.dev/{name}"), &text).unwrap();
    }

    pub(crate) fn claim(&self, block: &str) {
        let name = block.replace(['.', ':', '/'], "-");
        let pool = if block.contains(':') { "default-ipv6" } else { "default-ipv4" };
        let text = format!(
            "apiVersion: manx.dev/v1alpha1\nkind: IPBlock\nmetadata: {{name: \"{name}\"}}\nspec: {{cidr: \"{block}\", \
             pool: {pool}, nodeName: {}}}\n",
            self.name
        );
        self.objects.put(&format!("ipblocks.manx.dev/{name}"), &text).unwrap();
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.home.join("bgpd.log")
    }

    /// Where its socket is.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.home.join("run")
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) fn start(&mut self) {
        let path = |name: &str| self.home.join(name).to_string_lossy().into_owned();
        let (store, run, state) = (path("objects"), path("run"), path("state"));
        let words = ["--node", &self.name, "--store", &store, "--run-dir", &run, "--state-dir", &state];
        let launch = Launch {
            label: format!("bgpd on {}", self.name),
            netns: self.netns.clone(),
            program: built("bgpd").unwrap(),
            arguments: words.iter().map(|&word| word.to_owned()).collect(),
            capabilities: Some(&["net_admin", "net_raw", "net_bind_service"]),
            log: self.log(),
        };
        self.bgpd = Some(launch.start().unwrap());
    }

    /// All sessions as bgpd sees them at this moment.
    pub(crate) fn sessions(&self) -> Vec<Value> {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.home.join("run/bgpd.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"{\"verb\": \"peers\"}\n")?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        };
        let answer: Value = serde_json::from_str(&ask().unwrap_or_default()).unwrap_or_default();
        answer["sessions"].as_array().cloned().unwrap_or_default()
    }

    /// The session with this BGPPeer; of a class of neighbours the first.
    pub(crate) fn session(&self, peer: &str) -> Value {
        self.sessions().into_iter().find(|session| session["peer"] == peer).unwrap_or_default()
    }

    pub(crate) fn is_up(&self, peer: &str) -> bool {
        self.session(peer)["state"] == "Established"
    }

    /// The status of a BGPSession `<node>.<peer>`, as it was last written.
    pub(crate) fn status(&self, peer: &str) -> Value {
        let file = format!("objects/.status/bgpsessions.manx.dev/{}.{peer}.yaml", self.name);
        let text = fs::read_to_string(self.home.join(file)).unwrap_or_default();
        let written: Value = serde_json::from_str(&text).unwrap_or_default();
        written["managers"]["manx-bgpd"]["status"].clone()
    }

    /// Status, reason and message of condition Established, as it was last written.
    pub(crate) fn established(&self, peer: &str) -> (String, String, String) {
        let status = self.status(peer);
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let one = conditions.into_iter().find(|one| one["type"] == "Established").unwrap_or_default();
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// Waits for something, and shows what there is when it does not come.
    pub(crate) fn await_that(&self, what: &str, question: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        if wait_for(PATIENCE, || question(self).then_some(())).is_none() {
            panic!("not within {PATIENCE:?}: {what}\n{:#?}\n{}", self.sessions(), tail(&self.log(), 40));
        }
        println!("{what}: after {:?}", began.elapsed());
    }

    /// The kernel's route to a prefix as bgpd wrote it.
    pub(crate) fn route(&self, prefix: &str) -> Value {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let routes = self.netns.ip_json(&[family, "route", "show", "proto", "77"]).unwrap();
        let mut routes = routes.as_array().cloned().unwrap_or_default().into_iter();
        routes.find(|r| r["dst"] == prefix && r["type"] != "blackhole").unwrap_or_default()
    }
}
