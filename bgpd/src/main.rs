//! bgpd: BGP sessions of this node, and the kernel routes that follow from them.

mod auth;
mod bfd;
mod bmp;
mod by_prefix;
mod capture;
mod clear;
mod control;
mod denied;
mod desire;
mod driver;
mod events;
mod explain;
mod fib;
mod filters;
mod inputs;
mod listen;
mod mesh;
mod metrics;
mod net;
mod nexthop;
mod objects;
mod originate;
mod routes;
mod services;
mod session_status;
mod status;
mod unnumbered;
mod writer;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context as _;
use bgp_proto::{AfiSafi, Input, Speaker};
use clap::Parser;
use felix_kernel::capability::{self, CapabilityError};
use felix_kernel::host::{ROUTE_PROTOCOL_BGP, ROUTE_PROTOCOL_LOCAL};
use felix_kernel::monitor::{Monitor, OwnRoutes, Removals};
use felix_kernel::netlink::RouteSocket;
use manx_crds::host::BGPD_SOCKET;
use manx_crds::store::Store;
use manx_crds::store::any::AnyStore;
use manx_daemon::options::{Options, private_directory};
use manx_daemon::secrets::Secrets;
use manx_daemon::traffic::{Counted, Traffic};
use tokio::sync::mpsc;

use crate::driver::{Driver, Sources};

/// The BGP daemon of Manx: speaks to routers, announces this node's blocks, installs what it learns.
#[derive(Parser)]
#[command(name = "bgpd", version)]
struct Command {
    #[command(flatten)]
    options: Options,
    /// Hand on what is learned and write none of it to the kernel: for a speaker that forwards no packets
    #[arg(long)]
    no_kernel_routes: bool,
}

/// Sessions and writes that wait for the store's writer.
const WRITES: usize = 1024;

fn main() -> std::process::ExitCode {
    let Command { options, no_kernel_routes } = Command::parse();
    let installs = !no_kernel_routes;
    let outcome = options.node_name().context("the host name, where --node is not given").and_then(|node| {
        manx_daemon::log::start("bgpd", &node, &options.log)?;
        // Before any thread: capabilities belong to threads and are inherited.
        let kept = capability::keep_if_there(capability::BGPD, capability::BGPD_MAY_KEEP);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match kept {
            Ok(()) => runtime.block_on(run(&options, node, installs)),
            Err(CapabilityError::Missing(missing)) => {
                runtime.block_on(denied::without_capability(&options, &node, &missing));
                Err(missing.into())
            }
            Err(error @ (CapabilityError::Read(_) | CapabilityError::Drop(_))) => Err(error.into()),
        }
    });
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "bgpd ends");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options, node: String, installs: bool) -> anyhow::Result<()> {
    private_directory(&options.run_dir)?;
    private_directory(&options.state_dir)?;
    let traffic = Traffic::default();
    let store = AnyStore::open(&options.store).await.context("the datastore")?;
    let store = Counted::new(store, &traffic);
    let questions =
        manx_daemon::control::listen(&options.run_dir.join(BGPD_SOCKET)).context("the control socket")?;
    options.serve_health(BGPD_SOCKET).await.context("probes")?;
    let (monitor, (fib, found)) = kernel(&store, &node, installs).await?;
    let started = Instant::now();
    let speaker = Speaker::new(seed()?, started);
    let mut speaker = if installs { speaker } else { speaker.without_fib() };
    // RFC 4724 §4.1: the F bit says that forwarding went on while we were away.
    let families: std::collections::BTreeSet<AfiSafi> = found.iter().map(AfiSafi::of).collect();
    tracing::info!(version = manx_daemon::VERSION, adopted = found.len(), "bgpd starts");
    speaker.handle_input(Input::KernelRoutesFound(families), started);
    let (net, net_events) = net::Net::new();
    let bfd = bfd::Bfd::start(seed()?).context("the thread of BFD")?;
    let (writes, written) = mpsc::channel(WRITES);
    tokio::spawn(writer::run(store.clone(), node.clone(), written));
    let sources = Sources {
        changes: objects::watch(&store, &node, &options.secrets_namespace),
        net: net_events,
        questions,
    };
    let driver = Driver {
        inputs: options.inputs("bgpd", &node),
        sweep: inputs::Sweep::default(),
        status: status::Status::new(node.clone(), writes),
        services: services::Services::new(store, &node),
        stations: bmp::Stations::new(&node),
        captures: capture::Captures::default(),
        node,
        speaker,
        net,
        bfd,
        fib,
        monitor,
        next_hops: nexthop::NextHops::default(),
        objects: objects::Objects {
            secrets: Secrets::of(&options.secrets_namespace),
            ..objects::Objects::default()
        },
        desire: desire::Desire::default(),
        originated: originate::Originated::default(),
        unnumbered: unnumbered::Unnumbered::new(),
        deaf: BTreeMap::new(),
        said: events::Said::default(),
        look_at: None,
        objects_changed: false,
        elected: started,
        started,
        traffic,
        figures: metrics::LoopFigures::default(),
        answered: false,
        sessions_changed: false,
        drains: None,
        unsent: std::collections::BTreeSet::new(),
        closing: Vec::new(),
    };
    driver.run(sources, manx_daemon::stop::signal()?).await
}

/// What the kernel says of links and routes, where routes are written, and the prefixes that were found there. Where the
/// kernel denies it, the FabricNode says so.
async fn kernel<S: Store>(
    store: &S,
    node: &str,
    installs: bool,
) -> anyhow::Result<(Monitor, (fib::Fib, Vec<ipnet::IpNet>))> {
    let open = || {
        let socket = RouteSocket::open().context("the kernel's routes")?;
        let own = [
            OwnRoutes::new(ROUTE_PROTOCOL_BGP, Removals::ToldUnlessBy(socket.port()?)),
            OwnRoutes::new(ROUTE_PROTOCOL_LOCAL, Removals::NotTold),
        ];
        let monitor = Monitor::start(&own).context("the kernel's links and routes")?;
        Ok((monitor, fib::Fib::start(socket, installs).context("the kernel's routes")?))
    };
    let opened = open();
    if let Err(error) = &opened {
        denied::by_kernel(store, node, error).await;
    }
    opened
}

/// Peers choose prefixes and attributes, so the hash tables' seed must not be guessable.
fn seed() -> anyhow::Result<u64> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
