//! The cluster under test, its steps, and how a step asks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use e2e::cluster::{Cluster, Options, kubeconfig};
use e2e::netns::stdout_of;
use e2e::process::{built, wait_for};
use serde_json::Value;

use crate::asks::NodeState;

pub(crate) use e2e::cluster::NAMESPACE as SYSTEM;
/// agnhost; KUBECONFIG's nodes may know it by another name.
const POD_IMAGE: &str = "localhost/agnhost:1";
/// Between two questions of the same kind.
const PAUSE: Duration = Duration::from_millis(300);

/// A cluster with Manx's image on every node.
pub(crate) struct Lab {
    pub(crate) cluster: Cluster,
    /// What nodes were like before anything of Manx came.
    pub(crate) before: Vec<NodeState>,
    helm: PathBuf,
    /// The image of another version; none where the cluster is somebody else's.
    next_image: Option<PathBuf>,
    /// What pods of the tests run.
    pub(crate) pod_image: String,
    passed: usize,
    failed: Vec<String>,
}

impl Lab {
    /// Brings it up; Manx is not installed yet.
    pub(crate) fn up(options: Options) -> Self {
        let image = named_file("MANX_IMAGE");
        let helm = named_file("HELM");
        let next_image = Some(named_file("MANX_NEXT_IMAGE"));
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manx-cluster");
        let cluster = Cluster::up(&Options { images: vec![image], home, progress: true, ..options })
            .unwrap_or_else(|error| panic!("{error:#}"));
        let before = cluster.nodes().iter().map(|node| NodeState::of(node).unwrap()).collect();
        let pod_image = POD_IMAGE.to_owned();
        Self { cluster, before, helm, next_image, pod_image, passed: 0, failed: Vec::new() }
    }

    /// The cluster that KUBECONFIG points to.
    pub(crate) fn theirs() -> Self {
        let kubeconfig = kubeconfig().expect("KUBECONFIG is not set: it names the cluster that is tested");
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manx-theirs");
        let cluster = Cluster::theirs(&kubeconfig, &home).unwrap_or_else(|error| panic!("{error:#}"));
        let pod_image = std::env::var("POD_IMAGE").unwrap_or_else(|_| POD_IMAGE.to_owned());
        let (before, failed) = (Vec::new(), Vec::new());
        Self { cluster, before, helm: named_file("HELM"), next_image: None, pod_image, passed: 0, failed }
    }

    /// Makes one step and says how it went.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<String>) {
        let begun = Instant::now();
        let outcome = work(self);
        let took = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(seen) => {
                self.passed += 1;
                println!("  ok    {name:<66}{took:>6.1}s  {seen}");
            }
            Err(error) => {
                println!("  FAIL  {name:<66}{took:>6.1}s  {error:#}");
                self.evidence(name);
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Fails where a step did.
    pub(crate) fn end(self) {
        println!("{} of {} checks passed", self.passed, self.passed + self.failed.len());
        assert!(self.failed.is_empty(), "failed: {}", self.failed.join("; "));
        assert!(self.passed > 0);
    }

    pub(crate) fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.helm(&self.helm, arguments)
    }

    /// Installs the chart: how long helm took.
    pub(crate) fn install(&self, values: &[&str]) -> Result<Duration> {
        let begun = Instant::now();
        self.cluster.install(&self.helm, values)?;
        Ok(begun.elapsed())
    }

    /// Gives every node the image of another version.
    pub(crate) fn next_image(&self) -> Result<()> {
        self.cluster.load(self.next_image.as_ref().context("no image of another version")?)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments)
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.kubectl(&all)?).context("kubectl's JSON")
    }

    pub(crate) fn items(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let mut list = self.json(arguments)?;
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => bail!("kubectl {}: no list", arguments.join(" ")),
        }
    }

    /// `kubectl manx … -o json`, which asks the daemons in their pods.
    pub(crate) fn manxctl(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.cluster.command(&built("manxctl")?.to_string_lossy());
        command.args(["--store", "kubernetes", "-o", "json"]).args(arguments);
        serde_json::from_str(&stdout_of(command)?).with_context(|| format!("manxctl {}", arguments.join(" ")))
    }

    /// The same for what steps made in the namespace that they ask from.
    pub(crate) fn rolled_out_here(&self, what: &str) -> Result<()> {
        self.kubectl(&["rollout", "status", what, "--timeout=120s"]).map(drop)
    }

    /// Waits until what was asked for has come to be everywhere.
    pub(crate) fn rolled_out(&self, namespace: &str, what: &str) -> Result<()> {
        self.kubectl(&["-n", namespace, "rollout", "status", what, "--timeout=120s"]).map(drop)
    }

    /// Runs a shell line in a pod.
    pub(crate) fn in_pod(&self, pod: &str, line: &str) -> Result<String> {
        self.kubectl(&["exec", pod, "--", "/bin/bash", "-c", line])
    }

    /// Waits for an answer that is good; the last one that was not is the error.
    pub(crate) fn until<T>(
        &self,
        patience: Duration,
        mut question: impl FnMut(&Self) -> Result<T>,
    ) -> Result<T> {
        let mut last = None;
        let found = wait_for(patience, || match question(self) {
            Ok(seen) => Some(seen),
            Err(error) => {
                last = Some(error);
                std::thread::sleep(PAUSE);
                None
            }
        });
        match (found, last) {
            (Some(seen), _) => Ok(seen),
            (None, Some(error)) => Err(error.context(format!("still so after {}s", patience.as_secs()))),
            (None, None) => bail!("nothing was asked"),
        }
    }

    /// What people would look at first, beside the logs of the nodes.
    fn evidence(&self, name: &str) {
        for arguments in [
            &["get", "nodes,pods,services", "-A", "-o", "wide"][..],
            &["get", "manx", "-A"],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &["-n", SYSTEM, "logs", "-l", "app.kubernetes.io/name=manx", "--tail=25", "--prefix"],
        ] {
            let text = self.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
            println!("--- {name}: kubectl {}\n{text}", arguments.join(" "));
        }
    }
}

fn named_file(variable: &str) -> PathBuf {
    let remedy = "make cluster-core sets it";
    let path = std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: {remedy}"));
    let path = std::path::absolute(path).unwrap();
    assert!(path.is_file(), "{variable}={}: no such file: {remedy}", path.display());
    path
}
