//! BIRD in a namespace: one process, one configuration, asked through birdc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::netns::{Netns, stdout_of};
use crate::process::{Launch, Process, wait_for};

/// One running BIRD.
#[derive(Debug)]
pub struct Bird {
    socket: PathBuf,
    process: Process,
}

/// Whether it is installed, and if not, what installs it.
pub fn installed() -> Result<PathBuf> {
    let program = PathBuf::from("/usr/sbin/bird");
    if program.exists() { Ok(program) } else { anyhow::bail!("BIRD is missing: apt-get install -y bird2") }
}

impl Bird {
    /// Starts it in `netns`; `directory` keeps its configuration, socket and log.
    pub fn start(name: &str, netns: &Netns, directory: &Path, config: &str) -> Result<Self> {
        Self::start_with(name, netns, directory, config, &[])
    }

    /// As [`Bird::start`], with more arguments, such as `-R` for a restart.
    pub fn start_with(
        name: &str,
        netns: &Netns,
        directory: &Path,
        config: &str,
        more: &[&str],
    ) -> Result<Self> {
        let program = installed()?;
        fs::create_dir_all(directory)?;
        let file = directory.join(format!("{name}.bird.conf"));
        let socket = directory.join(format!("{name}.bird.ctl"));
        fs::write(&file, config)?;
        // What a killed one left would look like an answer.
        let _ = fs::remove_file(&socket);
        let mut process = Launch {
            label: format!("BIRD {name}"),
            netns: netns.clone(),
            program,
            arguments: ["-f", "-c", &file.to_string_lossy(), "-s", &socket.to_string_lossy()]
                .iter()
                .chain(more)
                .map(|&word| word.to_owned())
                .collect(),
            capabilities: None,
            log: directory.join(format!("{name}.bird.log")),
        }
        .start()?;
        let ready = wait_for(Duration::from_secs(5), || socket.exists().then_some(()));
        process.check_running()?;
        ready.with_context(|| format!("BIRD {name} opened no socket"))?;
        Ok(Self { socket, process })
    }

    /// What `birdc COMMAND` prints.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut client = Command::new("birdc");
        client.arg("-s").arg(&self.socket).args(command.split_whitespace());
        stdout_of(client).with_context(|| format!("birdc {command}"))
    }

    /// `kill -9`, as a crash would be.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}
