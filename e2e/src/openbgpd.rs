//! OpenBGPD in a namespace: one configuration, asked through bgpctl.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::netns::{Netns, stdout_of};
use crate::process::{Launch, Process, tail, wait_for};

const PROGRAM: &str = "/usr/sbin/bgpd";
/// Where its processes lock themselves in; the service that would make it does not run.
const HOME: &str = "/run/openbgpd";

/// One running OpenBGPD: three processes, of which this one ends the others with it.
#[derive(Debug)]
pub struct OpenBgpd {
    socket: PathBuf,
    process: Process,
}

/// The version that is installed, such as `7.7`.
pub fn version() -> Result<String> {
    let mut command = Command::new(PROGRAM);
    command.arg("-V");
    // It says so on standard error.
    let output = command.output().context("OpenBGPD is missing: apt-get install -y openbgpd")?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    text.split_whitespace().nth(1).map(str::to_owned).context("version of OpenBGPD")
}

impl OpenBgpd {
    /// Starts it in `netns`; `directory` keeps its configuration, socket and log. The socket is named here.
    pub fn start(name: &str, netns: &Netns, directory: &Path, config: &str) -> Result<Self> {
        version()?;
        fs::create_dir_all(directory)?;
        fs::create_dir_all(HOME)?;
        let file = directory.join(format!("{name}.openbgpd.conf"));
        let socket = directory.join(format!("{name}.openbgpd.sock"));
        let log = directory.join(format!("{name}.openbgpd.log"));
        fs::write(&file, format!("socket \"{}\"\n{config}", socket.display()))?;
        // It refuses a configuration that others may read.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        // What a killed one left would look like an answer.
        let _ = fs::remove_file(&socket);
        let mut process = Launch {
            label: format!("OpenBGPD {name}"),
            netns: netns.clone(),
            program: PathBuf::from(PROGRAM),
            arguments: vec!["-d".to_owned(), "-f".to_owned(), file.to_string_lossy().into_owned()],
            capabilities: None,
            log: log.clone(),
        }
        .start()?;
        let ready = wait_for(Duration::from_secs(5), || socket.exists().then_some(()));
        process.check_running().with_context(|| tail(&log, 10))?;
        ready.with_context(|| format!("OpenBGPD {name} opened no socket\n{}", tail(&log, 10)))?;
        Ok(Self { socket, process })
    }

    /// What `bgpctl COMMAND` prints.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut client = Command::new("bgpctl");
        client.arg("-s").arg(&self.socket).args(command.split_whitespace());
        stdout_of(client).with_context(|| format!("bgpctl {command}"))
    }

    /// The answer to a `show …` as JSON.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.ask(&format!("-j {command}"))?;
        serde_json::from_str(&text).with_context(|| format!("JSON of bgpctl {command}"))
    }

    /// `kill -9`, as a crash would be.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}
