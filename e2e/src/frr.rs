//! FRR in a namespace: zebra and bgpd of their own path space, configured and asked through vtysh.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::netns::{Netns, stdout_of};
use crate::process::{Launch, Process, wait_for};

const DAEMONS: &str = "/usr/lib/frr";
const RUN: &str = "/var/run/frr";
const ETC: &str = "/etc/frr";

/// One running FRR router.
#[derive(Debug)]
pub struct Frr {
    /// The path space: `vtysh -N NAME`.
    name: String,
    zebra: Process,
    bgpd: Process,
    /// Its other daemons.
    more: Vec<Process>,
}

/// What its daemons are given beside what they always get.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arguments<'a> {
    /// Such as `-K 120`: routes found in the kernel are kept for that long.
    pub zebra: &'a [&'a str],
    /// Such as `-n`: no kernel routes.
    pub bgpd: &'a [&'a str],
    /// Other daemons beside zebra and bgpd, such as `bfdd`.
    pub beside: &'a [&'a str],
}

/// The version that is installed, such as `8.4.4`.
pub fn version() -> Result<String> {
    let mut command = Command::new(Path::new(DAEMONS).join("bgpd"));
    command.arg("--version");
    let text = stdout_of(command).context("FRR is missing: apt-get install -y frr")?;
    text.split_whitespace().nth(2).map(str::to_owned).context("version of FRR's bgpd")
}

impl Frr {
    /// Starts zebra and bgpd in `netns` and gives them `config`, a combined frr.conf.
    pub fn start(name: &str, netns: &Netns, logs: &Path, config: &str) -> Result<Self> {
        Self::start_with(name, netns, logs, config, Arguments::default())
    }

    /// As [`Frr::start`], with more arguments and daemons.
    pub fn start_with(
        name: &str,
        netns: &Netns,
        logs: &Path,
        config: &str,
        with: Arguments<'_>,
    ) -> Result<Self> {
        version()?;
        let run = Path::new(RUN).join(name);
        prepare(name, &run)?;
        let zebra = daemon("zebra", name, netns, logs, &run, with.zebra)?;
        wait_for(Duration::from_secs(10), || run.join("zserv.api").exists().then_some(()))
            .with_context(|| format!("zebra of {name} opened no zserv.api; log {}", logs.display()))?;
        let bgpd = daemon("bgpd", name, netns, logs, &run, with.bgpd)?;
        let started = with.beside.iter().map(|program| daemon(program, name, netns, logs, &run, &[]));
        let more = started.collect::<Result<Vec<_>>>()?;
        for program in ["zebra", "bgpd"].iter().chain(with.beside) {
            let socket = format!("{program}.vty");
            wait_for(Duration::from_secs(10), || run.join(&socket).exists().then_some(()))
                .with_context(|| format!("{name} opened no {socket}; log {}", logs.display()))?;
        }
        let file = logs.join(format!("{name}.frr.conf"));
        fs::write(&file, config)?;
        let mut load = Command::new("vtysh");
        load.args(["-N", name, "-f"]).arg(&file);
        stdout_of(load).with_context(|| format!("configuration of {name}"))?;
        let mut router = Self { name: name.to_owned(), zebra, bgpd, more };
        router.check_running()?;
        Ok(router)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `vtysh -c COMMAND` prints; several commands are lines of one session.
    pub fn vtysh(&self, commands: &[&str]) -> Result<String> {
        ask(&self.name, commands)
    }

    /// The answer to a `show … json`.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.vtysh(&[command])?;
        serde_json::from_str(&text).with_context(|| format!("JSON of {command} on {}", self.name))
    }

    /// An error if one of its daemons ended.
    pub fn check_running(&mut self) -> Result<()> {
        self.zebra.check_running()?;
        self.more.iter_mut().try_for_each(Process::check_running)?;
        self.bgpd.check_running()
    }

    /// Leaves it running and only forgets it.
    pub fn leave(self) {
        self.zebra.leave();
        self.bgpd.leave();
        self.more.into_iter().for_each(Process::leave);
    }

    /// Ends it and removes what it left in /etc and /run.
    pub fn stop(self) {
        let name = self.name.clone();
        drop(self);
        forget(&name);
    }
}

/// Removes the directories of a path space whose daemons are gone.
pub fn forget(name: &str) {
    // Gone already is what we want.
    let _ = fs::remove_dir_all(Path::new(RUN).join(name));
    let _ = fs::remove_dir_all(Path::new(ETC).join(name));
}

/// Path spaces that begin with `prefix`.
#[must_use]
pub fn list(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(ETC) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

fn ask(name: &str, commands: &[&str]) -> Result<String> {
    let mut command = Command::new("vtysh");
    command.args(["-N", name]);
    for line in commands {
        command.args(["-c", line]);
    }
    let text = stdout_of(command).with_context(|| format!("vtysh -N {name} -c {commands:?}"))?;
    if text.starts_with('%') {
        bail!("vtysh -N {name} -c {commands:?}: {}", text.trim());
    }
    Ok(text)
}

/// The daemons run as user frr, so their directory must be frr's; vtysh insists on its own file.
fn prepare(name: &str, run: &Path) -> Result<()> {
    let owner = fs::metadata(ETC).context("FRR is missing: apt-get install -y frr")?;
    forget(name);
    for directory in [run, &Path::new(ETC).join(name)] {
        fs::create_dir_all(directory).with_context(|| format!("{}", directory.display()))?;
        chown(directory, Some(owner.uid()), Some(owner.gid()))?;
    }
    fs::write(Path::new(ETC).join(name).join("vtysh.conf"), "")?;
    Ok(())
}

fn daemon(
    program: &str,
    name: &str,
    netns: &Netns,
    logs: &Path,
    run: &Path,
    more: &[&str],
) -> Result<Process> {
    let pid_file = run.join(format!("{program}.pid"));
    let arguments = [
        "-N",
        name,
        "-f",
        "/dev/null",
        "--vty_socket",
        &run.to_string_lossy(),
        "-i",
        &pid_file.to_string_lossy(),
        "-u",
        "frr",
        "-g",
        "frr",
        "-A",
        "127.0.0.1",
        "--log",
        "stdout",
    ];
    Launch {
        label: format!("FRR {program} of {name}"),
        netns: netns.clone(),
        program: PathBuf::from(DAEMONS).join(program),
        arguments: arguments.iter().chain(more).map(|&word| word.to_owned()).collect(),
        capabilities: None,
        log: logs.join(format!("{name}.{program}.log")),
    }
    .start()
}
