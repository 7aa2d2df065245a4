//! felix: pods, policy and addresses of this node.

mod add;
mod address;
mod allocation;
mod check;
mod cni;
mod collect;
mod control;
mod dataplane;
mod del;
mod denied;
mod driver;
mod inputs;
mod install;
mod journal;
mod network;
mod node;
mod objects;
mod pods;
mod services;
mod source_prefixes;
mod start;
mod status;
mod trace;
mod uninstall;
mod wiring;
mod writer;

use std::io::Write as _;

use anyhow::Context as _;
use clap::Parser;
use felix_kernel::capability::{self, CapabilityError};
use manx_daemon::options::Options;

use crate::uninstall::Uninstall;

/// The node agent of Manx: wires pods, gives them addresses, enforces NetworkPolicy.
#[derive(Parser)]
#[command(
    name = "felix",
    version,
    after_help = "felix uninstall removes everything of Manx's from this node"
)]
struct Command {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    directories: install::Directories,
}

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next();
    // Not a subcommand: what felix needs to run, an uninstallation does without.
    if arguments.next().is_some_and(|first| first == "uninstall") {
        let Err(error) = Uninstall::parse_from(program.into_iter().chain(arguments)).run() else {
            return std::process::ExitCode::SUCCESS;
        };
        // A hook reads standard error; nobody is left to tell that it cannot be written.
        drop(writeln!(std::io::stderr(), "felix uninstall: {error:#}"));
        return std::process::ExitCode::FAILURE;
    }
    let Command { options, directories } = Command::parse();
    let outcome = options.node_name().context("the host name, where --node is not given").and_then(|node| {
        manx_daemon::log::start("felix", &node, &options.log)?;
        // Before any thread: capabilities belong to threads and are inherited.
        let kept = capability::keep_only(capability::FELIX);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        match kept {
            Ok(()) => runtime.block_on(start::run(&options, directories, node)),
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
            tracing::error!(error = format!("{error:#}"), "felix ends");
            std::process::ExitCode::FAILURE
        }
    }
}
