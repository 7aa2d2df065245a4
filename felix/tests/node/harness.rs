//! One node with a real felix on a directory of objects: its namespace, an outside behind its uplink, and the calls that
//! a container runtime makes.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use manx_crds::store::dir::DirStore;
use manx_crds::store::{Key, Object, Store as _};
use serde_json::{Value, json};

use crate::namespace::{Namespace, connect};

pub(crate) const NODE_V4: &str = "10.9.1.1";
pub(crate) const NODE_V6: &str = "fd09:1::1";
pub(crate) const OUTSIDE_V4: &str = "10.9.1.2";
pub(crate) const OUTSIDE_V6: &str = "fd09:1::2";

pub(crate) struct Node {
    pub(crate) netns: Namespace,
    /// Behind the uplink: 10.9.1.2 and fd09:1::2; it knows no way to pods.
    pub(crate) outside: Namespace,
    pub(crate) root: tempfile::TempDir,
    felix: Option<Child>,
}

/// A pod as its runtime knows it.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) netns: Namespace,
    pub(crate) container: String,
}

impl Node {
    pub(crate) fn new() -> Self {
        let (netns, outside) = (Namespace::new(), Namespace::new());
        connect(&netns, &outside, 1);
        let root = tempfile::tempdir().unwrap();
        for directory in ["store", "bin", "net.d"] {
            std::fs::create_dir(root.path().join(directory)).unwrap();
        }
        let node = Self { netns, outside, root, felix: None };
        node.object(
            "nodes/n1.yaml",
            &format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: n1, labels: {{rack: '12'}}}},
                  spec: {{taints: [{{key: manx.dev/agent-not-ready, effect: NoSchedule}},
                                   {{key: other, effect: NoSchedule}}]}},
                  status: {{addresses: [{{type: InternalIP, address: {NODE_V4}}},
                                        {{type: InternalIP, address: '{NODE_V6}'}}]}}}}"
            ),
        );
        node.object("namespaces/shop.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
        node.pool("v4", "10.244.0.0/16", "");
        node.pool("v6", "'fd00:10::/112'", "");
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes an object's file.
    pub(crate) fn object(&self, file: &str, yaml: &str) {
        let path = self.path("store").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, yaml).unwrap();
        std::fs::rename(temporary, path).unwrap();
    }

    pub(crate) fn pool(&self, name: &str, cidr: &str, rest: &str) {
        self.object(
            &format!("ippools.manx.dev/{name}.yaml"),
            &format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: IPPool, metadata: {{name: {name}}}, spec: {{cidr: {cidr}{rest}}}}}"
            ),
        );
    }

    /// A pod's object and its namespace; nothing is called yet.
    pub(crate) fn pod(&self, name: &str) -> Pod {
        self.object(
            &format!("pods/shop/{name}.yaml"),
            &format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop}},
                  spec: {{nodeName: n1, containers: [{{name: c, image: i}}]}}}}"
            ),
        );
        Pod { name: name.to_owned(), netns: Namespace::new(), container: format!("c0ffee-{name}") }
    }

    pub(crate) fn start(&mut self) {
        self.felix = Some(self.felix(&[]));
        self.wait("felix answers", || self.path("run/felix.sock").exists());
    }

    /// felix as a process of its own; `through`: what it is started by, such as setpriv with its arguments.
    pub(crate) fn felix(&self, through: &[&str]) -> Child {
        let mut command = self.daemon(env!("CARGO_BIN_EXE_felix").as_ref(), through, "log");
        command
            .args(["--cni-bin-dir".as_ref(), self.path("bin").as_os_str()])
            .args(["--cni-conf-dir".as_ref(), self.path("net.d").as_os_str()]);
        self.netns.run(|| command.spawn().unwrap())
    }

    /// As [`Node::felix`], the bgpd that is built beside it.
    pub(crate) fn bgpd(&self, through: &[&str]) -> Child {
        let mut command = self.daemon(&beside("bgpd"), through, "bgpd.log");
        self.netns.run(|| command.spawn().unwrap())
    }

    fn daemon(&self, program: &Path, through: &[&str], log: &str) -> Command {
        let mut command = match through {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command
            .args(["--node", "n1", "--log", "debug"])
            .args(["--store".as_ref(), self.path("store").as_os_str()])
            .args(["--run-dir".as_ref(), self.path("run").as_os_str()])
            .args(["--state-dir".as_ref(), self.path("state").as_os_str()]);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path(log)).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// As `kill -9`, which no destructor sees.
    pub(crate) fn kill(&mut self) {
        if let Some(mut felix) = self.felix.take() {
            felix.kill().unwrap();
            felix.wait().unwrap();
        }
    }

    /// As `systemctl stop`: it ends by itself.
    pub(crate) fn stop(&mut self) {
        if let Some(mut felix) = self.felix.take() {
            let pid = nix::unistd::Pid::from_raw(felix.id().try_into().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
            assert!(felix.wait().unwrap().success(), "{}", self.log());
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn wait(&self, what: &str, so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !so() {
            assert!(Instant::now() < deadline, "not within 30 s: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The object as the store has it, status and all.
    pub(crate) fn get<K: Object>(&self, key: &Key) -> Option<K> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = DirStore::open(self.path("store")).unwrap();
        runtime.block_on(store.get::<K>(key)).ok()
    }

    pub(crate) fn configuration(&self) -> Value {
        json!({"cniVersion": "1.1.0", "name": "manx", "type": "manx-cni", "socket": self.path("run/felix.sock")})
    }

    /// One call of a plugin, as a runtime makes it.
    pub(crate) fn call(&self, plugin: &Path, verb: &str, pod: Option<&Pod>, stdin: &Value) -> Output {
        let mut command = Command::new(plugin);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", self.path("bin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(pod) = pod {
            let netns = format!("/proc/{}/fd/{}", std::process::id(), pod.netns.fd().as_raw_fd());
            let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={}", pod.name);
            command
                .env("CNI_CONTAINERID", &pod.container)
                .env("CNI_IFNAME", "eth0")
                .env("CNI_NETNS", netns)
                .env("CNI_ARGS", arguments);
        }
        let mut child = self.netns.run(|| command.spawn().unwrap());
        child.stdin.take().unwrap().write_all(stdin.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// manx-cni: its answer, or its error with the code.
    pub(crate) fn cni(&self, verb: &str, pod: Option<&Pod>, more: Value) -> Result<Value, Value> {
        let mut stdin = self.configuration();
        stdin.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let output = self.call(&plugin(), verb, pod, &stdin);
        let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() { Ok(answer) } else { Err(answer) }
    }

    pub(crate) fn add(&self, pod: &Pod) -> Value {
        self.cni("ADD", Some(pod), json!({})).unwrap_or_else(|error| panic!("ADD: {error}\n{}", self.log()))
    }

    pub(crate) fn uninstall(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_felix"));
        command
            .args(["uninstall", "--node", "n1"])
            .args(["--store".as_ref(), self.path("store").as_os_str()])
            .args(["--run-dir".as_ref(), self.path("run").as_os_str()])
            .args(["--state-dir".as_ref(), self.path("state").as_os_str()])
            .args(["--cni-bin-dir".as_ref(), self.path("bin").as_os_str()])
            .args(["--cni-conf-dir".as_ref(), self.path("net.d").as_os_str()])
            .args(more);
        self.netns.run(|| command.output().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The plugin that is built beside felix.
pub(crate) fn plugin() -> PathBuf {
    beside("manx-cni")
}

fn beside(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_felix")).with_file_name(name);
    assert!(path.exists(), "{} is missing: make build", path.display());
    path
}

/// The addresses of an ADD's answer: IPv4, IPv6.
pub(crate) fn addresses(added: &Value) -> [String; 2] {
    [0, 1].map(|n| {
        let text = added["ips"][n]["address"].as_str().unwrap();
        text.split('/').next().unwrap().to_owned()
    })
}
