//! felix: pods, policy and addresses of this node.

mod add;
mod allocation;
mod cni;
mod control;
mod controller;
mod dataplane;
mod del;
mod driver;
mod journal;
mod node;
mod objects;
mod pods;
mod start;
mod status;
mod trace;
mod wiring;
mod writer;

use anyhow::Context as _;
use clap::Parser;
use felix_kernel::capability::{self, CapabilityError};
use manx_daemon::options::Options;

/// The node agent of Manx: wires pods, gives them addresses, enforces NetworkPolicy.
#[derive(Parser)]
#[command(name = "felix", version)]
struct Command {
    #[command(flatten)]
    options: Options,
}

fn main() -> std::process::ExitCode {
    let options = Command::parse().options;
    let outcome = options.node_name().context("the host name, where --node is not given").and_then(|node| {
        manx_daemon::log::start("felix", &node, &options.log)?;
        keep_capabilities(&node)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(start::run(&options, node))
    });
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "felix ends");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Before any thread: capabilities belong to threads and are inherited.
fn keep_capabilities(node: &str) -> anyhow::Result<()> {
    match capability::keep_only(capability::FELIX) {
        Ok(()) => Ok(()),
        Err(CapabilityError::Missing(missing)) => {
            tracing::error!(
                error = %missing,
                r#where = format!("felix on {node}, {}", missing.place()),
                expected = missing.expected(),
                r#do = missing.remedy("felix"),
                "a capability is missing"
            );
            Err(missing.into())
        }
        Err(error) => Err(error.into()),
    }
}
