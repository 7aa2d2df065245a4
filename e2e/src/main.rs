//! `demo up` runs the demo, `demo down` removes one that was left up. `make demo` and `make demo-down` call them.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use e2e::demo::{self, Options};

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
        /// Only these checks or groups, such as 6.1,7 (ONLY=6.1,7).
        #[arg(long, env = "ONLY", value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Remove a fabric that was left up.
    Down,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up { keep, only } if tor_is_frr() => {
            let only = only.into_iter().filter(|id| !id.is_empty()).collect();
            demo::up(&Options { keep: keep || asked("KEEP"), only })
        }
        Command::Up { .. } => {
            let _ = writeln!(
                std::io::stderr(),
                "error: bgpd cannot play the routers yet\n  where      TOR={}\n  expected   TOR=frr, or no TOR: a router hands on \
                 what it learned, and spec.transit of BGPPeer is not there yet\n  do         make demo",
                std::env::var("TOR").unwrap_or_default()
            );
            return ExitCode::from(2);
        }
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

/// The routers are FRR unless somebody asks for others.
fn tor_is_frr() -> bool {
    std::env::var("TOR").is_ok_and(|tor| tor.is_empty() || tor == "frr") || std::env::var_os("TOR").is_none()
}

/// `KEEP=1`, as make passes it on.
fn asked(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0")
}
