//! GoBGP in a namespace: one process, one configuration, asked through its client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::netns::{Netns, stdout_of};
use crate::process::{Launch, Process, tail, wait_for};

const PROGRAM: &str = "/usr/bin/gobgpd";

/// One running GoBGP.
#[derive(Debug)]
pub struct GoBgp {
    netns: Netns,
    process: Process,
}

/// The version that is installed, such as `3.10.0`.
pub fn version() -> Result<String> {
    let mut command = Command::new(PROGRAM);
    command.arg("--version");
    let text = stdout_of(command).context("GoBGP is missing: apt-get install -y gobgpd")?;
    text.split_whitespace().nth(2).map(str::to_owned).context("version of GoBGP")
}

impl GoBgp {
    /// Starts it in `netns` with a configuration in TOML; `directory` keeps that and the log.
    pub fn start(name: &str, netns: &Netns, directory: &Path, config: &str) -> Result<Self> {
        version()?;
        fs::create_dir_all(directory)?;
        let file = directory.join(format!("{name}.gobgp.toml"));
        let log = directory.join(format!("{name}.gobgp.log"));
        fs::write(&file, config)?;
        let arguments = ["-f", &file.to_string_lossy(), "--api-hosts", "127.0.0.1:50051", "--pprof-disable"];
        let process = Launch {
            label: format!("GoBGP {name}"),
            netns: netns.clone(),
            program: PathBuf::from(PROGRAM),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            capabilities: None,
            log: log.clone(),
        }
        .start()?;
        let mut router = Self { netns: netns.clone(), process };
        let ready = wait_for(Duration::from_secs(10), || router.ask("global").ok());
        router.process.check_running().with_context(|| tail(&log, 10))?;
        ready.with_context(|| format!("GoBGP {name} answers nothing\n{}", tail(&log, 10)))?;
        Ok(router)
    }

    /// What `gobgp COMMAND` prints.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut client = self.netns.command("gobgp");
        client.args(command.split_whitespace());
        stdout_of(client).with_context(|| format!("gobgp {command}"))
    }

    /// The answer as JSON.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.ask(&format!("-j {command}"))?;
        serde_json::from_str(&text).with_context(|| format!("JSON of gobgp {command}"))
    }

    /// `kill -9`, as a crash would be.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}
