//! `cluster up` makes a Kubernetes cluster in namespaces of this machine, `cluster down` removes it. `make cluster` and
//! `make cluster-down` call them.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use e2e::cluster::{self, Cluster, Cni, Families, Options, ProxyMode};
use e2e::interrupt;

/// A real Kubernetes 1.34 in network namespaces of this machine; or Manx on the cluster that KUBECONFIG points to.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a cluster and leave it up.
    Up(Up),
    /// Remove the cluster, whoever made it.
    Down,
    /// kubectl as admin of the cluster that is up.
    #[command(disable_help_flag = true)]
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a command on a node, with its files and in all its namespaces.
    On {
        /// Such as n1.
        node: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Give an OCI archive to every node.
    Load { archive: PathBuf },
    /// Cut a node's power: its processes end at once, its disk stays.
    PowerCut { node: String },
    /// Power a node on again.
    PowerOn { node: String },
}

#[derive(clap::Args)]
struct Up {
    /// How many nodes: n1, n2, …
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// Two FRR ToR routers and an outside client around the nodes, instead of one L2 segment.
    #[arg(long)]
    tors: bool,
    /// Families of nodes, pods and Services.
    #[arg(long, value_enum, default_value = "dual")]
    family: Families,
    /// How kube-proxy programs Services.
    #[arg(long, value_enum, default_value = "nftables")]
    proxy: ProxyMode,
    /// Who wires pods: nobody until Manx is installed, or the stock ptp plugin.
    #[arg(long, value_enum, default_value = "none")]
    cni: Cni,
    /// Leave CoreDNS out.
    #[arg(long)]
    no_dns: bool,
    /// An OCI archive that every node has from its start.
    #[arg(long = "image", value_name = "ARCHIVE")]
    images: Vec<PathBuf>,
    /// Install the chart of this checkout with this helm, and peer with the ToRs where there are any.
    #[arg(long = "install", value_name = "HELM")]
    helm: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up(asked) => match cluster::kubeconfig() {
            Some(kubeconfig) => up_theirs(&kubeconfig, &asked),
            None => up(asked),
        },
        Command::Down => {
            if let Some(kubeconfig) = cluster::kubeconfig() {
                return leave_theirs(&kubeconfig);
            }
            say(if Cluster::down()? {
                "Cluster removed. Logs stay in target/cluster/logs."
            } else {
                "No cluster was up."
            });
            Ok(())
        }
        Command::Kubectl { arguments } => {
            let cluster = Cluster::found()?;
            let plane = cluster.plane()?;
            let error = plane.kubectl_command(&plane.admin_kubeconfig()).args(arguments).exec();
            Err(error).context("starting kubectl")
        }
        Command::On { node, command } => {
            let (program, rest) = command.split_first().context("no command")?;
            let error = Cluster::found()?.node(&node)?.command(program)?.args(rest).exec();
            Err(error).with_context(|| format!("starting {program} on {node}"))
        }
        Command::Load { archive } => Cluster::found()?.load(&archive),
        Command::PowerCut { node } => Cluster::found()?.node_mut(&node)?.power_cut(),
        Command::PowerOn { node } => {
            let mut cluster = Cluster::found()?;
            cluster.node_mut(&node)?.power_on()?;
            cluster.leave()
        }
    }
}

/// What to look at first where Manx runs.
const TRY: &str = "  kubectl get manx -A         pools, nodes, blocks, sessions\n  \
    kubectl manx status           also: nodes, bgp peers, bgp routes, ipam show\n  \
    kubectl create deployment web --image=localhost/agnhost:1 --replicas=6 -- /agnhost netexec --http-port=8080\n";

fn up(asked: Up) -> Result<()> {
    let options = Options {
        nodes: asked.nodes,
        tors: asked.tors,
        families: asked.family,
        proxy: asked.proxy,
        cni: asked.cni,
        dns: !asked.no_dns,
        images: asked.images,
        helm: asked.helm,
        progress: true,
        ..Options::default()
    };
    interrupt::listen()?;
    let cluster = Cluster::up(&options)?;
    let waiting = match (&options.helm, options.cni) {
        (Some(_), _) => "Manx runs.",
        (None, Cni::None) => "Nodes are NotReady until Manx is installed.",
        (None, Cni::Ptp) => "Pods are wired by the stock ptp plugin.",
    };
    let manx = if options.helm.is_some() { TRY } else { "" };
    cluster.leave()?;
    say(&format!(
        "Up. {waiting}\n  . target/cluster/env        kubectl, helm, and `on` for a command in a namespace\n  \
         kubectl get nodes -o wide\n{manx}  on n1 ip route              n1 … ctl client{}\n  make cluster-down           removes it",
        if options.tors { " tor-a tor-b; vtysh -N cluster-tor-a" } else { "" }
    ));
    Ok(())
}

/// Manx on somebody else's cluster.
fn up_theirs(kubeconfig: &OsString, asked: &Up) -> Result<()> {
    let helm = asked.helm.as_ref().context("KUBECONFIG is set: there is nothing to do without --install")?;
    let cluster = Cluster::theirs(kubeconfig, &Options::default().home)?;
    say(&format!("KUBECONFIG: {} nodes take pods", cluster.size()));
    if cluster.has_manx() {
        say("Manx runs there already.");
    } else {
        say("helm install manx charts/manx");
        cluster.install(helm, &[])?;
    }
    say("waiting for nodes to be Ready");
    cluster.await_ready(std::time::Duration::from_secs(240))?;
    say(&format!("Manx runs.\n{TRY}  make cluster-down           uninstalls it"));
    Ok(())
}

fn leave_theirs(kubeconfig: &OsString) -> Result<()> {
    let cluster = Cluster::theirs(kubeconfig, &Options::default().home)?;
    cluster.kubectl(&["delete", "namespace", cluster::TRIAL, "--ignore-not-found"])?;
    if !cluster.has_manx() {
        say("Manx does not run on the cluster of KUBECONFIG.");
        return Ok(());
    }
    let helm = std::env::var_os("HELM").context("HELM is not set: make cluster-down sets it")?;
    cluster.helm(&PathBuf::from(helm), &["uninstall", "manx", "--wait", "--timeout", "4m"])?;
    say("Manx uninstalled from the cluster of KUBECONFIG.");
    Ok(())
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
