//! A cluster that somebody else made and that KUBECONFIG points to: only its API server is ours to ask.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::netns::stdout_of;

use super::install::NAMESPACE;
use super::{Binaries, Cluster, Families, Options, TAINT};

/// The namespace of what is put on such a cluster to try it.
pub const TRIAL: &str = "manx-trial";

/// What KUBECONFIG points to, unless that is the cluster of `make cluster`.
#[must_use]
pub fn kubeconfig() -> Option<OsString> {
    let own = Options::default().home.join("kubeconfig");
    std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty() && Path::new(path) != own)
}

impl Cluster {
    /// The cluster of this KUBECONFIG, seen from namespace [`TRIAL`], which is made. `home` is for what is written on
    /// the way. Refused where neither Manx runs nor nodes wait for somebody to wire their pods.
    pub fn theirs(kubeconfig: &OsString, home: &Path) -> Result<Self> {
        let kubectl = Binaries::find()?.program("kubectl");
        fs::create_dir_all(home).with_context(|| format!("{}", home.display()))?;
        let copy = home.join("theirs.kubeconfig");
        let mut command = Command::new(&kubectl);
        // A list of files becomes one, with the current context only.
        command.env("KUBECONFIG", kubeconfig).args(["config", "view", "--raw", "--minify", "--flatten"]);
        let text =
            stdout_of(command).with_context(|| format!("KUBECONFIG={}", Path::new(kubeconfig).display()))?;
        private(&copy, &text)?;
        let mut cluster = Self {
            options: Options { home: home.to_owned(), ..Options::default() },
            plane: None,
            theirs: Some(Theirs { kubeconfig: copy, kubectl }),
            controllers: Vec::new(),
            nodes: Vec::new(),
            routers: None,
            lock: None,
        };
        cluster.look()?;
        if cluster.kubectl(&["get", "namespace", TRIAL]).is_err() {
            cluster.kubectl(&["create", "namespace", TRIAL])?;
        }
        cluster.kubectl(&["config", "set-context", "--current", "--namespace", TRIAL])?;
        Ok(cluster)
    }

    /// Whether the release runs there already.
    #[must_use]
    pub fn has_manx(&self) -> bool {
        self.kubectl(&["-n", NAMESPACE, "get", "daemonset", "manx-felix"]).is_ok()
    }

    /// How many nodes there are, and which families they have.
    fn look(&mut self) -> Result<()> {
        let list: Value = serde_json::from_str(&self.kubectl(&["get", "nodes", "-o", "json"])?)?;
        let nodes = list.get("items").and_then(Value::as_array).context("kubectl get nodes")?;
        let open: Vec<&Value> = nodes.iter().filter(|node| is_open(node)).collect();
        self.options.nodes =
            u8::try_from(open.len()).context("more than 255 nodes: try a smaller cluster")?;
        self.options.families = match (has_address(&open, false), has_address(&open, true)) {
            (true, true) => Families::Dual,
            (true, false) => Families::Ipv4,
            (false, true) => Families::Ipv6,
            (false, false) => bail!("no node of this cluster takes pods and has an InternalIP"),
        };
        if !self.has_manx() && open.iter().any(|node| is_ready(node)) {
            bail!(
                "another CNI wires the pods of this cluster\n  where      KUBECONFIG\n  \
                 expected   nodes that are NotReady because no CNI is installed, or Manx\n  \
                 do         unset KUBECONFIG for a cluster in namespaces of this machine"
            );
        }
        Ok(())
    }
}

/// Somebody else's cluster, and who asks it.
#[derive(Debug)]
pub(super) struct Theirs {
    pub(super) kubeconfig: PathBuf,
    kubectl: PathBuf,
}

impl Theirs {
    /// A command that finds the cluster.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    pub(super) fn kubectl(&self) -> Command {
        self.command(&self.kubectl.to_string_lossy())
    }
}

/// It holds a credential.
fn private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let file = options.create(true).write(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("{}", path.display()))
}

/// Pods without a toleration may run there, once it is ready.
fn is_open(node: &Value) -> bool {
    let taints = node.pointer("/spec/taints").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    !taints.iter().any(|taint| {
        let key = taint.get("key").and_then(Value::as_str).unwrap_or_default();
        key != TAINT && !key.starts_with("node.kubernetes.io/")
    })
}

fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|all| {
        all.iter().any(|one| {
            one.get("type").and_then(Value::as_str) == Some("Ready")
                && one.get("status").and_then(Value::as_str) == Some("True")
        })
    })
}

fn has_address(nodes: &[&Value], v6: bool) -> bool {
    let internal = |one: &Value| {
        one.get("type").and_then(Value::as_str) == Some("InternalIP")
            && one.get("address").and_then(Value::as_str).is_some_and(|address| address.contains(':') == v6)
    };
    let all = nodes.iter().filter_map(|node| node.pointer("/status/addresses").and_then(Value::as_array));
    all.flatten().any(internal)
}
