//! `demo up` runs the demo, `demo down` removes one that was left up. `make demo` and `make demo-down` call them.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use e2e::demo::{self, Options};
use e2e::router::Kind;

/// A Manx fabric of three nodes and two routers in network namespaces of this machine, checked.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the fabric, check it, show it, remove it.
    Up {
        /// Leave it up (KEEP=1).
        #[arg(long)]
        keep: bool,
        /// What plays the routers: frr, or manx for our own bgpd (TOR=manx).
        #[arg(long, env = "TOR", default_value = "frr")]
        tor: String,
        /// Only these checks or groups, such as 6.1,7 (ONLY=6.1,7).
        #[arg(long, env = "ONLY", value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Remove a fabric that was left up.
    Down,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up { keep, tor, only } => Kind::parse(&tor).and_then(|tor| {
            let only = only.into_iter().filter(|id| !id.is_empty()).collect();
            demo::up(&Options { keep: keep || asked("KEEP"), tor, only })
        }),
        Command::Down => demo::down().map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// `KEEP=1`, as make passes it on.
fn asked(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0")
}
