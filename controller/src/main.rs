//! manx-controller: what is about the cluster.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use manx_controller::{Leadership, Settings};
use manx_crds::host::CONTROLLER_SOCKET;
use manx_crds::store::any::AnyStore;
use manx_daemon::options::{Options, private_directory};
use tokio::sync::oneshot;

/// The Lease of the controllers.
const LEASE: &str = "manx-controller";

/// The controller of Manx: gives Services their addresses, writes statuses, takes back what nodes that are gone had.
#[derive(Parser)]
#[command(name = "manx-controller", version)]
struct Command {
    #[command(flatten)]
    options: Options,
    /// Namespace of the Lease that one of several controllers holds; with --store kubernetes
    #[arg(long, env = "MANX_LEASE_NAMESPACE", default_value = "manx-system")]
    lease_namespace: String,
    /// Name of this controller among several; without it that of the node
    #[arg(long, env = "MANX_IDENTITY")]
    identity: Option<String>,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let options = &command.options;
    let outcome = options.node_name().context("the host name, where --node is not given").and_then(|node| {
        manx_daemon::log::start("manx-controller", &node, &options.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(run(&command, &node))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "manx-controller ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: &Command, node: &str) -> anyhow::Result<()> {
    let options = &command.options;
    private_directory(&options.run_dir)?;
    let stop = manx_daemon::stop::signal()?;
    let questions = manx_daemon::control::listen(&options.run_dir.join(CONTROLLER_SOCKET))
        .context("the control socket")?;
    options.serve_health(CONTROLLER_SOCKET).await.context("probes")?;
    tracing::info!(version = manx_daemon::VERSION, "manx-controller starts");
    let store = AnyStore::open(&options.store).await.context("the datastore")?;
    let directory =
        store.directory().map(|directory| directory.root().join(manx_controller::leadership::LOCK));
    let settings = Settings {
        identity: unique(command.identity.as_deref().unwrap_or(node))?,
        directory: directory.is_some(),
        secrets_namespace: options.secrets_namespace.clone(),
        report: Some(questions),
    };
    let leadership = match directory {
        Some(lock) => Leadership::Lock(lock),
        None => Leadership::Lease { namespace: command.lease_namespace.clone(), name: LEASE.to_owned() },
    };
    manx_controller::run(store, leadership, settings, stopped(stop)).await?;
    Ok(())
}

/// A container that starts again has the name and the process id of the one before, and must not pass for it.
fn unique(name: &str) -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    let mut random = std::fs::OpenOptions::new().read(true).open("/dev/urandom")?;
    random.read_exact(&mut bytes)?;
    Ok(format!("{name}_{:016x}", u64::from_ne_bytes(bytes)))
}

async fn stopped(stop: oneshot::Receiver<()>) {
    // Nobody can ask for the end any more: that is the end, too.
    let _ = stop.await;
}
