//! BIRD in a namespace: one process, one configuration, asked through birdc.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::netns::{Netns, stdout_of};
use crate::process::{Launch, Process, wait_for};
use crate::root::{self, Root};

const PROGRAM: &str = "/usr/sbin/bird";

/// One running BIRD.
#[derive(Debug)]
pub struct Bird {
    socket: PathBuf,
    process: Process,
}

/// What it is given beside what it always gets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arguments<'a> {
    /// Such as `-R` for a restart.
    pub bird: &'a [&'a str],
    /// Whose program; `None`: this machine's.
    pub root: Option<&'a Root>,
}

/// The version that `root` has, or this machine, such as `2.0.12`; an error that says what to install.
pub fn version_of(root: Option<&Root>) -> Result<String> {
    let words =
        root::version_words(root, Path::new(PROGRAM)).context("BIRD is missing: apt-get install -y bird2")?;
    words.last().cloned().context("version of BIRD")
}

impl Bird {
    /// Starts it in `netns`; `directory` keeps its configuration, socket and log.
    pub fn start(name: &str, netns: &Netns, directory: &Path, config: &str) -> Result<Self> {
        Self::start_with(name, netns, directory, config, Arguments::default())
    }

    /// As [`Bird::start`], with more arguments.
    pub fn start_with(
        name: &str,
        netns: &Netns,
        directory: &Path,
        config: &str,
        with: Arguments<'_>,
    ) -> Result<Self> {
        version_of(with.root)?;
        fs::create_dir_all(directory)?;
        let file = directory.join(format!("{name}.bird.conf"));
        let socket = directory.join(format!("{name}.bird.ctl"));
        fs::write(&file, config)?;
        // What a killed one left would look like an answer.
        let _ = fs::remove_file(&socket);
        let mut process = Launch {
            label: format!("BIRD {name}"),
            netns: netns.clone(),
            program: PathBuf::from(PROGRAM),
            arguments: ["-f", "-c", &file.to_string_lossy(), "-s", &socket.to_string_lossy()]
                .iter()
                .chain(with.bird)
                .map(|&word| word.to_owned())
                .collect(),
            capabilities: None,
            log: directory.join(format!("{name}.bird.log")),
        }
        .start_of(with.root)?;
        let ready = wait_for(Duration::from_secs(5), || socket.exists().then_some(()));
        process.check_running()?;
        ready.with_context(|| format!("BIRD {name} opened no socket"))?;
        Ok(Self { socket, process })
    }

    /// What `birdc COMMAND` prints.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut client = self.process.command_beside("birdc");
        client.arg("-s").arg(&self.socket).args(command.split_whitespace());
        stdout_of(client).with_context(|| format!("birdc {command}"))
    }

    /// `kill -9`, as a crash would be.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}
