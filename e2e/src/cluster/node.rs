//! One node: a network namespace with containerd, kubelet and kube-proxy below a process 1 of its own.
//!
//! ```text
//!   started ── power_cut ──► off ── power_on ──► started        what is on disk stays; kernel state is lost
//!      └── stop(component) / start(component)                   the others go on
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::{self, Netns, stdout_of};
use crate::process::{Launch, Process, tail, wait_for};

use super::TAINT;
use super::network;
use super::options::{Cni, Options};

const SCRIPT: &str = include_str!("node.sh");
/// The cluster's home inside a node.
const INSIDE: &str = "/run/cluster/home";

const CONTAINERD: &str = r#"version = 2
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Without CAP_SYS_RESOURCE a score cannot be lowered, and runc would end without a word.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#;

/// What runs on a node and can be stopped alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    Containerd,
    Kubelet,
    KubeProxy,
}

impl Component {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// One node of a cluster.
#[derive(Debug)]
pub struct Node {
    name: String,
    number: u8,
    netns: Netns,
    options: Options,
    process: Option<Process>,
}

/// What all nodes share: the script and the runtime's configuration.
pub(crate) fn prepare(options: &Options) -> Result<()> {
    fs::write(options.home.join("node.sh"), SCRIPT)?;
    fs::write(options.home.join("containerd.toml"), CONTAINERD)?;
    let images = options.home.join("images");
    fs::create_dir_all(&images)?;
    for archive in &options.images {
        let name = archive.file_name().context("an image without a file name")?;
        fs::copy(archive, images.join(name)).with_context(|| format!("{}", archive.display()))?;
    }
    let runtime = options.home.join("runtime");
    fs::create_dir_all(&runtime)?;
    for program in ["containerd", "containerd-shim-runc-v2", "runc"] {
        match &options.runtime {
            Some(folder) => drop(
                fs::copy(folder.join(program), runtime.join(program))
                    .with_context(|| format!("{}", folder.join(program).display()))?,
            ),
            None => drop(fs::remove_file(runtime.join(program))),
        }
    }
    Ok(())
}

impl Node {
    /// The node of that number, 1 for `n1`. It is off, or an earlier process started it.
    pub(crate) fn new(options: &Options, number: u8) -> Self {
        let name = format!("n{number}");
        let netns = network::scope().netns(&name);
        Self { name, number, netns, options: options.clone(), process: None }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's own namespace, where its agents and pods with hostNetwork are.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// InternalIPs, as the kubelet is told.
    pub fn addresses(&self) -> Result<Vec<std::net::IpAddr>> {
        self.options.internal_addresses(self.number)
    }

    /// A command that will run in all of the node's namespaces, with its files.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init()?.to_string()).args(["--all", "--", program]);
        Ok(command)
    }

    /// Standard output of a command on the node; its standard error is the error's text.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let (program, rest) = arguments.split_first().context("no command")?;
        let mut command = self.command(program)?;
        command.args(rest);
        stdout_of(command).with_context(|| format!("on {}", self.name))
    }

    /// Gives the node an OCI archive.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let file = fs::File::open(archive).with_context(|| format!("{}", archive.display()))?;
        let output = self
            .command("ctr")?
            .args(["--namespace", "k8s.io", "images", "import", "--no-unpack", "-"])
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .context("starting ctr")?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("{} on {}: {}", archive.display(), self.name, error.trim());
        }
        Ok(())
    }

    /// Ends one component with SIGKILL and holds it back until [`Node::start`].
    pub fn stop(&self, component: Component) -> Result<()> {
        fs::write(self.file(&format!("{}.stopped", component.name())), "")?;
        self.kill(component)
    }

    /// Lets a stopped component run again.
    pub fn start(&self, component: Component) -> Result<()> {
        let mark = self.file(&format!("{}.stopped", component.name()));
        fs::remove_file(&mark)
            .with_context(|| format!("{} of {} is not stopped", component.name(), self.name))
    }

    /// Ends one component with SIGKILL; it is started again after half a second, as a service manager would.
    pub fn kill(&self, component: Component) -> Result<()> {
        let pid = fs::read_to_string(self.file(&format!("{}.pid", component.name())))
            .with_context(|| format!("{} of {} never ran", component.name(), self.name))?;
        self.run(&["sh", "-c", &format!("kill -9 {}", pid.trim())]).map(drop)
    }

    /// Whether it has power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.init().is_ok()
    }

    /// Cuts its power: every process ends at once, and the kernel's state with the namespace. Files stay.
    pub fn power_cut(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill()?,
            // Another process started it; its pid is only trusted while it is in the node's namespace.
            None => {
                self.init()?;
                kill(self.keeper()?, Signal::SIGKILL).context("the node's process")?;
            }
        }
        netns::remove([self.netns.name()]).with_context(|| format!("removing {}", self.name))?;
        network::unplug(&self.options, self.number)
    }

    /// Powers it on: links and addresses anew, the disk as it was.
    pub fn power_on(&mut self) -> Result<()> {
        if self.is_on() {
            bail!("{} is on", self.name);
        }
        network::build_node(&self.options, self.number)?;
        network::route_pods(&self.options)?;
        self.launch()
    }

    /// Starts process 1. The namespace is there.
    pub(crate) fn launch(&mut self) -> Result<()> {
        let settings = self.configure().with_context(|| format!("configuration of {}", self.name))?;
        let process = Launch {
            label: format!("node {}", self.name),
            netns: self.netns.clone(),
            program: PathBuf::from("bash"),
            arguments: vec![
                self.options.home.join("node.sh").display().to_string(),
                "enter".to_owned(),
                settings.display().to_string(),
            ],
            capabilities: None,
            log: self.log("node"),
        }
        .start()?;
        fs::write(self.file("pid"), process.pid().to_string())?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until its runtime has the images.
    pub(crate) fn await_runtime(&mut self) -> Result<()> {
        let done = self.file("images.imported");
        let mut ended = None;
        let found = wait_for(Duration::from_secs(90), || {
            ended = self.process.as_mut().and_then(|process| process.check_running().err());
            (ended.is_some() || done.exists()).then_some(())
        });
        match (ended, found) {
            (None, Some(())) => Ok(()),
            (ended, _) => {
                let what = ended.map_or_else(
                    || "its runtime has no images after 90s".to_owned(),
                    |error| format!("{error:#}"),
                );
                bail!(
                    "{}: {what}; the last lines of {}:\n{}\nof containerd:\n{}",
                    self.name,
                    self.log("node").display(),
                    tail(&self.log("node"), 10),
                    tail(&self.log("containerd"), 10)
                )
            }
        }
    }

    /// Leaves it running.
    pub(crate) fn leave(&mut self) {
        if let Some(process) = self.process.take() {
            process.leave();
        }
    }

    /// Where a component's log is.
    #[must_use]
    pub fn log(&self, component: &str) -> PathBuf {
        self.options.home.join("logs").join(&self.name).join(format!("{component}.log"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.options.home.join("nodes").join(&self.name).join(name)
    }

    /// The parent of process 1, outside: with it, the node goes.
    fn keeper(&self) -> Result<Pid> {
        let text =
            fs::read_to_string(self.file("pid")).with_context(|| format!("{} never ran", self.name))?;
        let pid = text.trim().parse::<i32>().context("pid")?;
        Ok(Pid::from_raw(pid))
    }

    /// Process 1 as this machine numbers it.
    fn init(&self) -> Result<u32> {
        let keeper = self.keeper()?;
        let living = self.netns.pids().contains(&keeper);
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
        let first = children
            .ok()
            .filter(|_| living)
            .and_then(|text| text.split_whitespace().next().and_then(|pid| pid.parse::<u32>().ok()));
        first.with_context(|| format!("{} is off", self.name))
    }

    /// Writes what the script and the kubelet read; answers the script's settings.
    fn configure(&self) -> Result<PathBuf> {
        for directory in [self.options.home.join("logs").join(&self.name), self.file("")] {
            fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        }
        let _ = fs::remove_file(self.file("images.imported"));
        fs::write(self.file("kubelet.yaml"), self.kubelet_configuration())?;
        if self.options.cni == Cni::Ptp {
            fs::write(self.file("cni.conflist"), self.conflist())?;
        }
        let settings = self.file("settings");
        let binaries = super::Binaries::find_all()?;
        fs::write(
            &settings,
            format!(
                "name='{}'\nhome='{}'\nbin='{}'\nkubelet='{}'\nproxy='{}'\n",
                self.name,
                self.options.home.display(),
                binaries.directory().display(),
                self.kubelet_flags()?,
                self.proxy_flags()
            ),
        )?;
        Ok(settings)
    }

    fn kubelet_flags(&self) -> Result<String> {
        let addresses: Vec<String> = self.addresses()?.iter().map(ToString::to_string).collect();
        Ok(format!(
            "--config={INSIDE}/nodes/{0}/kubelet.yaml --kubeconfig={INSIDE}/{0}.kubeconfig --hostname-override={0} --node-ip={1} --v=1",
            self.name,
            addresses.join(",")
        ))
    }

    /// Empty where there is no kube-proxy. The limits are those of the machine: a namespace may not change them.
    fn proxy_flags(&self) -> String {
        let Some(mode) = self.options.proxy.flag() else { return String::new() };
        format!(
            "--kubeconfig={INSIDE}/kube-proxy.kubeconfig --hostname-override={} --proxy-mode={mode} --cluster-cidr={} \
             --conntrack-max-per-core=0 --conntrack-min=0 --conntrack-tcp-timeout-established=0s \
             --conntrack-tcp-timeout-close-wait=0s --v=1",
            self.name,
            self.options.pods().join(",")
        )
    }

    fn kubelet_configuration(&self) -> String {
        let dns: Vec<String> =
            self.options.dns_addresses().iter().map(|address| format!("\"{address}\"")).collect();
        let taints = match self.options.cni {
            Cni::None => format!("[{{key: {TAINT}, effect: NoSchedule}}]"),
            Cni::Ptp => "[]".to_owned(),
        };
        format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
             authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, \
             x509: {{clientCAFile: {INSIDE}/pki/ca.crt}}}}\n\
             authorization: {{mode: Webhook}}\n\
             registerWithTaints: {taints}\n\
             containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n\
             cgroupDriver: cgroupfs\nenforceNodeAllocatable: []\noomScoreAdj: 0\nfailSwapOn: false\n\
             clusterDNS: [{}]\nclusterDomain: cluster.local\nresolvConf: \"\"\n\
             serializeImagePulls: false\nmaxPods: 250\n\
             evictionHard: {{memory.available: \"1Mi\", nodefs.available: \"0%\", nodefs.inodesFree: \"0%\", imagefs.available: \"0%\"}}\n\
             imageGCHighThresholdPercent: 100\nimageGCLowThresholdPercent: 99\nmakeIPTablesUtilChains: false\n\
             nodeStatusUpdateFrequency: 5s\nkubeAPIQPS: 100\nkubeAPIBurst: 200\n",
            dns.join(", ")
        )
    }

    fn conflist(&self) -> String {
        let ranges: Vec<String> = self
            .options
            .node_pods(self.number)
            .iter()
            .map(|range| format!("[{{\"subnet\":\"{range}\"}}]"))
            .collect();
        let routes: Vec<String> = self.options.families.of("{\"dst\":\"0.0.0.0/0\"}", "{\"dst\":\"::/0\"}");
        format!(
            "{{\"cniVersion\":\"1.0.0\",\"name\":\"ptp\",\"plugins\":[{{\"type\":\"ptp\",\"ipMasq\":false,\
             \"ipam\":{{\"type\":\"host-local\",\"ranges\":[{}],\"routes\":[{}]}}}},\
             {{\"type\":\"portmap\",\"capabilities\":{{\"portMappings\":true}}}}]}}\n",
            ranges.join(","),
            routes.join(",")
        )
    }
}
