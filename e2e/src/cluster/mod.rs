//! A real Kubernetes in network namespaces of this machine.
//!
//! [`ControlPlane`] is etcd and kube-apiserver alone, a few seconds away: enough for datastores, CRDs and rights.
//! [`Cluster`] is that with a controller manager, a scheduler and nodes that run pods, for tests and for
//! `make cluster`.

mod authority;
mod binaries;
mod console;
mod control_plane;
mod etcd;
mod install;
mod network;
mod node;
mod options;
mod state;
mod theirs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::Flock;

use crate::demo::screen::{Screen, State};
use crate::interrupt;
use crate::netns::{Netns, fed, stdout_of};
use crate::process::{Process, wait_for};
use crate::router::{Kind, RouterPlaces, Routers};

pub use authority::Authority;
pub use binaries::{Binaries, newer_containerd};
pub use control_plane::{ControlPlane, Site};
pub use install::{NAMESPACE, chart};
pub use node::{Component, Node};
pub use options::{Cni, Families, Options, ProxyMode, VIP_RANGES};
pub use theirs::{TRIAL, kubeconfig};

/// The taint that kubelets register with; felix removes it once the node can run pods.
pub const TAINT: &str = "manx.dev/agent-not-ready";

const COREDNS: &str = include_str!("coredns.yaml");
/// How long nodes may take to register, or to be ready where something makes them so.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running cluster. Dropped, it is removed with everything of it, unless [`Cluster::leave`] was called or another
/// process started it.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    plane: Option<ControlPlane>,
    /// In place of the control plane, where it is not ours.
    theirs: Option<theirs::Theirs>,
    controllers: Vec<Process>,
    nodes: Vec<Node>,
    routers: Option<Routers>,
    /// Held by the process that made it, so that there is one at a time.
    lock: Option<Flock<fs::File>>,
}

impl Cluster {
    /// Makes one. An error if another runs or was left up on this machine; what a run that died left is removed.
    pub fn up(options: &Options) -> Result<Self> {
        options.check()?;
        let binaries = Binaries::find_all()?;
        let lock = state::lock()?;
        state::remove_crashed()?;
        // A shared one would be told apart by nobody: home is absolute, because nodes are told.
        let options = Options { home: std::path::absolute(&options.home)?, ..options.clone() };
        state::sweep(&options.home)?;
        state::write(&options, false)?;
        let mut cluster = Self {
            options,
            plane: None,
            theirs: None,
            controllers: Vec::new(),
            nodes: Vec::new(),
            routers: None,
            lock: Some(lock),
        };
        let mut screen = cluster.options.progress.then(|| Screen::new(""));
        cluster.build(&mut screen, binaries)?;
        Ok(cluster)
    }

    /// The cluster that [`Cluster::leave`] left on this machine.
    pub fn found() -> Result<Self> {
        let options = state::read()?.context(
            "no cluster is up on this machine\n  expected   one that was left up\n  do         make cluster",
        )?;
        let plane = ControlPlane::found(site(&options), Binaries::find_all()?);
        let nodes = (1..=options.nodes).map(|number| Node::new(&options, number)).collect();
        Ok(Self {
            options,
            plane: Some(plane),
            theirs: None,
            controllers: Vec::new(),
            nodes,
            routers: None,
            lock: None,
        })
    }

    /// Removes whatever cluster there is on this machine, whoever made it. False: there was none.
    pub fn down() -> Result<bool> {
        let _lock = state::lock()?;
        state::remove()
    }

    /// Leaves it up when this value is gone.
    pub fn leave(mut self) -> Result<()> {
        state::write(&self.options, true)?;
        for node in &mut self.nodes {
            node.leave();
        }
        for process in std::mem::take(&mut self.controllers) {
            process.leave();
        }
        if let Some(routers) = self.routers.take() {
            routers.leave();
        }
        if let Some(plane) = self.plane.take() {
            plane.leave();
        }
        self.lock = None;
        Ok(())
    }

    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The control plane: tokens, kubeconfigs, kubectl as somebody else.
    pub fn plane(&self) -> Result<&ControlPlane> {
        self.plane.as_ref().context("the control plane is not up")
    }

    /// Standard output of kubectl as admin; its standard error is the error's text.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let Some(theirs) = &self.theirs else { return self.plane()?.kubectl(arguments) };
        let mut command = theirs.kubectl();
        command.args(arguments);
        stdout_of(command).with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let Some(theirs) = &self.theirs else { return self.plane()?.apply(yaml) };
        let mut command = theirs.kubectl();
        command.args(["apply", "-f", "-"]);
        fed(command, "kubectl apply", yaml)
    }

    /// A command beside the API server, with the admin's KUBECONFIG: helm, for example.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        if let Some(theirs) = &self.theirs {
            return theirs.command(program);
        }
        let mut command = network::control().command(program);
        command.env("KUBECONFIG", self.options.home.join("kubeconfig"));
        command
    }

    /// The outside client: behind the ToRs, or behind the nodes' gateway in the L2 lab.
    #[must_use]
    pub fn client(&self) -> Netns {
        network::scope().netns("client")
    }

    /// The namespace of a ToR.
    #[must_use]
    pub fn router(&self, name: &str) -> Netns {
        network::scope().netns(name)
    }

    /// The ToRs and the client's router, where there are any and this process started them.
    #[must_use]
    pub fn routers(&self) -> Option<&Routers> {
        self.routers.as_ref()
    }

    /// How many nodes take pods, also where they are not ours to enter.
    #[must_use]
    pub fn size(&self) -> usize {
        usize::from(self.options.nodes)
    }

    /// The node of that name, such as `n1`.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("no node {name}"))
    }

    /// The same, to cut its power.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.name() == name).with_context(|| format!("no node {name}"))
    }

    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Cuts the API server off at once; [`Cluster::start_api_server`] brings it back.
    pub fn stop_api_server(&mut self) -> Result<()> {
        self.plane.as_mut().context("the control plane is not up")?.stop_api_server()
    }

    /// Starts the API server again and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        self.plane.as_mut().context("the control plane is not up")?.start_api_server()
    }

    /// Gives an OCI archive to every node that is on.
    pub fn load(&self, archive: &Path) -> Result<()> {
        self.nodes.iter().filter(|node| node.is_on()).try_for_each(|node| node.load(archive))
    }

    /// Waits until every node is Ready.
    pub fn await_ready(&self, patience: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", patience.as_secs());
        self.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", &timeout]).map(drop)
    }

    fn build(&mut self, screen: &mut Option<Screen>, binaries: Binaries) -> Result<()> {
        let shape = if self.options.tors { "2 ToRs and a client around" } else { "one L2 segment" };
        let text = format!("{} nodes, {shape}", self.options.nodes);
        step(screen, "network", &text, || self.network())?;
        let text = format!("etcd, kube-apiserver at {}", self.options.api_address());
        step(screen, "control plane", &text, || self.start_plane(binaries))?;
        let names = self.options.node_names().join(" ");
        step(screen, "nodes", &format!("{names} registered"), || self.await_nodes())?;
        if self.options.dns {
            let ready = self.options.cni != Cni::None;
            let text = if ready { "answers" } else { "waits for a node that is ready" };
            step(screen, "CoreDNS", text, || self.dns(ready))?;
        }
        console::write(&self.options, self.plane()?)?;
        match self.options.helm.clone() {
            Some(helm) => {
                step(screen, "Manx", "helm install manx charts/manx", || self.install_and_peer(&helm))
            }
            None => Ok(()),
        }
    }

    fn network(&mut self) -> Result<()> {
        network::build(&self.options)?;
        for number in 1..=self.options.nodes {
            network::build_node(&self.options, number)?;
            self.nodes.push(Node::new(&self.options, number));
        }
        network::route_pods(&self.options)?;
        if self.options.tors {
            let logs = self.options.home.join("logs");
            let places = RouterPlaces { logs: &logs, home: &self.options.home, run: &logs, binaries: &logs };
            let routers = Routers::start_accepting(Kind::Frr, &network::scope(), &places, &VIP_RANGES)?;
            self.routers = Some(routers);
        }
        Ok(())
    }

    /// Nodes start while the API server does: their runtimes load images meanwhile.
    fn start_plane(&mut self, binaries: Binaries) -> Result<()> {
        node::prepare(&self.options)?;
        let plane = ControlPlane::prepare_at(site(&self.options), binaries)?;
        for name in self.options.node_names() {
            plane.kubeconfig(&name, &format!("system:node:{name}"), &["system:nodes"])?;
        }
        plane.kubeconfig("kube-proxy", "system:kube-proxy", &[])?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            plane.kubeconfig(name, &format!("system:{name}"), &[])?;
        }
        let plane = self.plane.insert(plane);
        for node in &mut self.nodes {
            node.launch()?;
        }
        plane.start_api_server()?;
        fs::write(self.options.home.join("api-ready"), "")?;
        for (name, flags) in [
            ("kube-controller-manager", controller_manager_flags(&self.options, plane)),
            ("kube-scheduler", kubeconfig_flags(plane, &self.options.home, "kube-scheduler")),
        ] {
            self.controllers.push(plane.launch(name, flags).start()?);
        }
        Ok(())
    }

    fn await_nodes(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.await_runtime()?;
        }
        let wanted = self.options.node_names();
        let mut seen = String::new();
        let found = wait_for(PATIENCE, || {
            seen = self
                .kubectl(&[
                    "get",
                    "nodes",
                    "-o",
                    "jsonpath={range .items[?(@.status.nodeInfo)]}{.metadata.name} {end}",
                ])
                .unwrap_or_default();
            wanted.iter().all(|name| seen.split_whitespace().any(|one| one == name)).then_some(())
        });
        if found.is_none() {
            bail!(
                "nodes registered: {seen}; expected {}; logs in {}",
                wanted.join(" "),
                self.options.home.join("logs").display()
            );
        }
        // The controller manager makes it; without, no pod is admitted.
        wait_for(PATIENCE, || self.kubectl(&["get", "serviceaccount", "default"]).ok())
            .context("no ServiceAccount default: is kube-controller-manager running?")?;
        if self.options.cni == Cni::None { Ok(()) } else { self.await_ready(PATIENCE) }
    }

    fn dns(&self, ready: bool) -> Result<()> {
        let all: Vec<String> =
            self.options.dns_addresses().iter().map(|address| format!("\"{address}\"")).collect();
        let policy = if all.len() == 2 { "RequireDualStack" } else { "SingleStack" };
        let text = COREDNS
            .replace("@FIRST@", all.first().map_or("", String::as_str))
            .replace("@ALL@", &all.join(", "))
            .replace("@POLICY@", policy);
        self.apply(&text)?;
        if ready {
            self.kubectl(&["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s"])?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        // Nodes before the control plane, or kubelets would complain into their logs.
        self.nodes.clear();
        self.controllers.clear();
        self.plane = None;
        if let Some(routers) = self.routers.take() {
            routers.stop();
        }
        // Nobody can be told here; the next run removes what is left.
        let _ = state::remove();
    }
}

fn site(options: &Options) -> Site {
    Site {
        netns: network::control(),
        address: options.api_address(),
        services: options.services(),
        home: options.home.clone(),
        logs: options.home.join("logs"),
        flags: options.api_server_flags.clone(),
    }
}

fn kubeconfig_flags(plane: &ControlPlane, home: &Path, name: &str) -> Vec<String> {
    let kubeconfig: PathBuf = home.join(format!("{name}.kubeconfig"));
    let mut flags: Vec<String> = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
        .iter()
        .map(|flag| format!("--{flag}={}", kubeconfig.display()))
        .collect();
    flags.push("--leader-elect=false".to_owned());
    flags.push(format!("--client-ca-file={}", plane.authority().file("ca.crt").display()));
    flags
}

fn controller_manager_flags(options: &Options, plane: &ControlPlane) -> Vec<String> {
    let pki = |name: &str| plane.authority().file(name).display().to_string();
    let mut flags = kubeconfig_flags(plane, &options.home, "kube-controller-manager");
    flags.extend([
        // Manx hands out addresses by itself; the stock plugins have theirs from a file.
        "--allocate-node-cidrs=false".to_owned(),
        format!("--cluster-cidr={}", options.pods().join(",")),
        format!("--service-cluster-ip-range={}", options.services().join(",")),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        "--use-service-account-credentials=true".to_owned(),
    ]);
    flags.extend(options.controller_manager_flags.iter().cloned());
    flags
}

fn step(
    screen: &mut Option<Screen>,
    name: &str,
    text: &str,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let Some(screen) = screen else { return work() };
    let step = screen.begin(name, text);
    let result = work();
    step.end(if result.is_ok() { State::Ok } else { State::Fail }, text);
    if interrupt::requested() {
        bail!("interrupted: the cluster is removed again");
    }
    result
}
