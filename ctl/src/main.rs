//! `manxctl`, also `kubectl manx`: shows a Manx fabric.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

mod command;
mod confirm;
mod error;
mod fabric;
mod table;
mod words;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use manx_crds::report::SoftClear;
use manx_crds::store::any::Place;
use manx_crds::v1alpha1::AdminState;
use serde::Serialize;

use crate::error::Failure;
use crate::fabric::Fabric;

/// Shows and explains a Manx fabric.
#[derive(Parser)]
#[command(
    name = "manxctl",
    version,
    after_help = "Exit codes: 0 as it should be, 1 a problem was found, 2 the command itself failed."
)]
struct Command {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args)]
pub(crate) struct Global {
    /// kubernetes (by KUBECONFIG), or the directory that holds the objects
    #[arg(long, env = "MANX_STORE", value_name = "DIR", global = true)]
    store: Option<Place>,
    /// Where the daemons' sockets are, or one directory a node with them
    #[arg(long, env = "MANX_RUN_DIR", value_name = "DIR", default_value = manx_crds::host::RUN_DIR, global = true)]
    run_dir: PathBuf,
    /// Only this node
    #[arg(long, value_name = "NODE", global = true)]
    node: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, global = true, default_value = "table")]
    output: Output,
    /// Leave the header line out
    #[arg(long, global = true)]
    no_headers: bool,
    /// Fold nothing, and leave nothing out that is as it should be
    #[arg(long, global = true)]
    all: bool,
    /// How long one node may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3, global = true)]
    node_timeout: u64,
    /// Colour: auto means on a terminal without NO_COLOR
    #[arg(long, value_enum, default_value = "auto", global = true)]
    color: Color,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
enum Verb {
    /// Says whether the fabric is as it should be
    Status,
    /// Lists the nodes
    Nodes,
    /// One node
    Node {
        #[command(subcommand)]
        what: NodeVerb,
    },
    /// Sessions and routes
    Bgp {
        #[command(subcommand)]
        what: Bgp,
    },
    /// Lists the addresses of Services, and how many nodes announce each; exit code 1 if one should be and is not
    Services,
    /// Pools and blocks
    Ipam {
        #[command(subcommand)]
        what: Ipam,
    },
    /// Policies in the order of evaluation
    Policy {
        #[command(subcommand)]
        what: Policy,
    },
    /// Installs what this version needs on the API server of KUBECONFIG
    Install {
        /// The CustomResourceDefinitions, by server-side apply
        #[arg(long)]
        crds: bool,
        /// Pools, advertisements, tiers and the BFD profile, where there are none of their names
        #[arg(long)]
        defaults: bool,
    },
    /// Puts one question to a daemon on this machine, as JSON; what manxctl does by exec in the daemons' pods
    #[command(hide = true)]
    Ask { daemon: fabric::Daemon, request: String },
    /// Steps of the chart's uninstallation, on the API server of KUBECONFIG
    Uninstall {
        #[command(subcommand)]
        step: Uninstall,
    },
}

#[derive(Subcommand)]
enum Uninstall {
    /// Deletes the DaemonSets of bgpd and felix, and waits until their pods are gone
    Agents(Patience),
    /// Waits until DaemonSet manx-cleanup has cleaned every node whose kubelet answers
    Nodes(Patience),
    /// Waits to be ended: the pod of a node that is clean
    Hold,
}

#[derive(Args)]
struct Patience {
    /// Namespace of the release
    #[arg(long, default_value = "manx-system")]
    namespace: String,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    timeout: u64,
}

#[derive(Subcommand)]
enum NodeVerb {
    /// Asks the neighbours to send elsewhere what they send here (RFC 8326); sessions stay up
    Drain {
        node: String,
        /// Why; neighbours read it should the sessions end
        #[arg(short, long)]
        message: Option<String>,
    },
    /// Takes the traffic back
    Undrain { node: String },
}

#[derive(Subcommand)]
enum Bgp {
    /// Lists the sessions; exit code 1 if one is down
    Peers {
        /// Only sessions with this BGPPeer
        #[arg(long)]
        peer: Option<String>,
    },
    /// Lists routes: received, accepted or not, and why
    Routes {
        /// Only routes from this BGPPeer
        #[arg(long)]
        peer: Option<String>,
        /// Say why beside each route
        #[arg(long)]
        why: bool,
        /// Only this prefix
        prefix: Option<String>,
    },
    /// Shows the messages of one session as bgpd reads and writes them: for 10 s, unless told how long
    Capture {
        /// The session: its BGPPeer, or the far end's address
        peer: String,
        /// Write them as pcap, for tcpdump and Wireshark; - is the standard output
        #[arg(short, long, value_name = "FILE")]
        write: Option<PathBuf>,
        /// Until Ctrl-C
        #[arg(short, long)]
        follow: bool,
        /// Until there were so many
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// For so many seconds
        #[arg(long = "for", value_name = "SECONDS")]
        seconds: Option<u64>,
    },
    /// Explains a prefix: where it comes from, who is told and who is not, and what the kernel has
    Explain {
        /// Such as 10.244.17.0/26; an address stands for the longest prefix that holds it
        prefix: String,
    },
    /// Ends the sessions with a peer, which start again at once; with --soft only their routes are sent again
    Clear {
        /// A BGPPeer, a class of sessions such as topology, or a neighbour's address
        peer: String,
        /// Ask the peer for its routes (in), send ours again (out), or both; the sessions stay up
        #[arg(long, value_enum)]
        soft: Option<Soft>,
        /// For the operator of the other side (RFC 9003)
        #[arg(short, long, default_value = "")]
        message: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Soft {
    In,
    Out,
    Both,
}

impl From<Soft> for SoftClear {
    fn from(soft: Soft) -> Self {
        match soft {
            Soft::In => Self::In,
            Soft::Out => Self::Out,
            Soft::Both => Self::Both,
        }
    }
}

#[derive(Subcommand)]
enum Ipam {
    /// Lists the pools and how full they are
    Show,
}

#[derive(Subcommand)]
enum Policy {
    /// Lists the policies
    List,
}

fn main() -> ExitCode {
    let Command { global, verb } = Command::parse();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(&global, verb)));
    match outcome {
        Ok(healthy) => ExitCode::from(u8::from(!healthy)),
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(2)
        }
    }
}

/// True if everything is as it should be, or the command simply answered.
async fn run(global: &Global, verb: Verb) -> Result<bool, Failure> {
    if let Verb::Install { crds, defaults } = verb {
        return command::install::run(crds, defaults).await.map(|()| true);
    }
    if let Verb::Uninstall { step } = verb {
        return uninstall(step).await.map(|()| true);
    }
    if let Verb::Ask { daemon, request } = verb {
        return fabric::ask(global, daemon, &request).await.map(|()| true);
    }
    let fabric = Fabric::open(global).await?;
    match verb {
        // Done above: they need no fabric.
        Verb::Install { .. } | Verb::Uninstall { .. } | Verb::Ask { .. } => Ok(true),
        Verb::Status => command::status::run(&fabric, global).await,
        Verb::Nodes => command::nodes::run(&fabric, global).await,
        Verb::Node { what: NodeVerb::Drain { node, message } } => {
            command::drain::run(&fabric, &node, AdminState::Drained, message.as_deref()).await
        }
        Verb::Node { what: NodeVerb::Undrain { node } } => {
            command::drain::run(&fabric, &node, AdminState::Up, None).await
        }
        Verb::Bgp { what: Bgp::Peers { peer } } => {
            command::peers::run(&fabric, global, peer.as_deref()).await
        }
        Verb::Bgp { what: Bgp::Routes { peer, why, prefix } } => {
            command::routes::run(&fabric, global, peer.as_deref(), prefix.as_deref(), why).await
        }
        Verb::Bgp { what: Bgp::Capture { peer, write, follow, count, seconds } } => {
            let limits = command::capture::Limits { follow, count, seconds };
            command::capture::run(&fabric, &peer, write.as_deref(), limits).await
        }
        Verb::Bgp { what: Bgp::Explain { prefix } } => command::explain::run(&fabric, global, &prefix).await,
        Verb::Bgp { what: Bgp::Clear { peer, soft, message, yes } } => {
            command::clear::run(&fabric, global, &peer, soft.map(Into::into), &message, yes).await
        }
        Verb::Services => command::services::run(&fabric, global).await,
        Verb::Ipam { what: Ipam::Show } => command::ipam::run(&fabric, global).await,
        Verb::Policy { what: Policy::List } => command::policy::run(&fabric, global).await,
    }
}

async fn uninstall(step: Uninstall) -> Result<(), Failure> {
    match step {
        Uninstall::Agents(Patience { namespace, timeout }) => {
            command::uninstall::agents(&namespace, Duration::from_secs(timeout)).await
        }
        Uninstall::Nodes(Patience { namespace, timeout }) => {
            command::uninstall::nodes(&namespace, Duration::from_secs(timeout)).await
        }
        Uninstall::Hold => command::uninstall::hold().await,
    }
}

impl Global {
    fn node_timeout(&self) -> Duration {
        Duration::from_secs(self.node_timeout)
    }

    /// Whether to colour: never the only carrier of meaning.
    fn colored(&self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none()
                    && std::env::var("TERM").is_ok_and(|term| term != "dumb")
            }
        }
    }

    /// Healthy rows fold on a terminal only.
    fn folds(&self) -> bool {
        !self.all && std::io::stdout().is_terminal()
    }

    /// Prints a report as JSON or YAML; false where a table is wanted.
    fn printed<T: Serialize>(&self, report: &T) -> Result<bool, Failure> {
        match self.output {
            Output::Table | Output::Wide => Ok(false),
            Output::Json => {
                println!("{}", serde_json::to_string_pretty(report)?);
                Ok(true)
            }
            Output::Yaml => {
                println!(
                    "{}",
                    serde_saphyr::to_string(report).map_err(|error| Failure::plain(&error.to_string()))?
                );
                Ok(true)
            }
        }
    }
}
