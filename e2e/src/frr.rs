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
use crate::root::{self, Root};

const DAEMONS: &str = "/usr/lib/frr";
const RUN: &str = "/var/run/frr";
const ETC: &str = "/etc/frr";
const MANAGER: &str = "mgmtd";

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
    /// Whose programs; `None`: this machine's.
    pub root: Option<&'a Root>,
}

/// The version that is installed, such as `8.4.4`.
pub fn version() -> Result<String> {
    version_of(None)
}

/// The version that `root` has, or this machine.
pub fn version_of(root: Option<&Root>) -> Result<String> {
    let words = root::version_words(root, &Path::new(DAEMONS).join("bgpd"))
        .context("FRR is missing: apt-get install -y frr")?;
    words.get(2).cloned().context("version of FRR's bgpd")
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
        version_of(with.root)?;
        let run = Path::new(RUN).join(name);
        prepare(name, &run)?;
        let space = Space { name, netns, logs, run: &run, root: with.root };
        // Since FRR 10 it is what keeps interfaces and static routes, and zebra tells it all that happens to them.
        let managed = root::has(with.root, &Path::new(DAEMONS).join(MANAGER));
        let manager = managed.then(|| space.manager()).transpose()?;
        let zebra = space.daemon("zebra", with.zebra)?;
        space.wait_for_socket("zserv.api")?;
        let bgpd = space.daemon("bgpd", with.bgpd)?;
        let beside = with.beside.iter().map(|program| space.daemon(program, &[]));
        let more = manager.map(Ok).into_iter().chain(beside).collect::<Result<Vec<_>>>()?;
        for program in ["zebra", "bgpd"].iter().chain(with.beside) {
            space.wait_for_socket(&format!("{program}.vty"))?;
        }
        let mut router = Self { name: name.to_owned(), zebra, bgpd, more };
        let file = logs.join(format!("{name}.frr.conf"));
        fs::write(&file, config)?;
        let mut load = router.client();
        load.arg("-f").arg(&file);
        stdout_of(load).with_context(|| format!("configuration of {name}"))?;
        router.check_running()?;
        Ok(router)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `vtysh -c COMMAND` prints; several commands are lines of one session.
    pub fn vtysh(&self, commands: &[&str]) -> Result<String> {
        let mut client = self.client();
        for line in commands {
            client.args(["-c", line]);
        }
        let name = &self.name;
        let text = stdout_of(client).with_context(|| format!("vtysh -N {name} -c {commands:?}"))?;
        if text.starts_with('%') {
            bail!("vtysh -N {name} -c {commands:?}: {}", text.trim());
        }
        Ok(text)
    }

    /// The vtysh of its release.
    fn client(&self) -> Command {
        let mut command = self.bgpd.command_beside("vtysh");
        command.args(["-N", &self.name]);
        command
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

/// Where one router's daemons run.
#[derive(Clone, Copy)]
struct Space<'a> {
    name: &'a str,
    netns: &'a Netns,
    logs: &'a Path,
    run: &'a Path,
    root: Option<&'a Root>,
}

impl Space<'_> {
    /// It knows no `-f`.
    fn manager(&self) -> Result<Process> {
        let manager = self.process(MANAGER, &[])?;
        self.wait_for_socket("mgmtd_be.sock")?;
        Ok(manager)
    }

    fn daemon(&self, program: &str, more: &[&str]) -> Result<Process> {
        self.process(program, &[&["-f", "/dev/null"], more].concat())
    }

    fn process(&self, program: &str, more: &[&str]) -> Result<Process> {
        let name = self.name;
        let pid_file = self.run.join(format!("{program}.pid"));
        let arguments = [
            "-N",
            name,
            "--vty_socket",
            &self.run.to_string_lossy(),
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
            netns: self.netns.clone(),
            program: PathBuf::from(DAEMONS).join(program),
            arguments: arguments.iter().chain(more).map(|&word| word.to_owned()).collect(),
            capabilities: None,
            log: self.logs.join(format!("{name}.{program}.log")),
        }
        .start_of(self.root)
    }

    fn wait_for_socket(&self, file: &str) -> Result<()> {
        wait_for(Duration::from_secs(10), || self.run.join(file).exists().then_some(()))
            .with_context(|| format!("{} opened no {file}; log {}", self.name, self.logs.display()))
    }
}
