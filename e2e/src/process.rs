//! A process of the fabric: started in a namespace with the capabilities it is meant to have, ended by pid.

use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Netns;
use crate::root::Root;

/// A program of ours, which was built beside the test that asks: target/PROFILE/NAME for target/PROFILE/deps/TEST-….
pub fn built(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("path of this test")?;
    let profile = test.parent().and_then(Path::parent).context("a test lies in target/PROFILE/deps")?;
    let path = profile.join(name);
    if !path.exists() {
        bail!(
            "{} is missing: build it first, in the profile of this test (cargo build -p {name})",
            path.display()
        );
    }
    Ok(path)
}

/// How to start one process.
#[derive(Clone, Debug)]
pub struct Launch {
    /// For logs and errors, such as `bgpd on n1`.
    pub label: String,
    pub netns: Netns,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The only capabilities it may ever have, as setpriv spells them. `None`: all of root's.
    pub capabilities: Option<&'static [&'static str]>,
    /// Standard output and error are appended here.
    pub log: PathBuf,
}

/// A running process. Dropped, it is killed and reaped, unless [`Process::leave`] was called.
#[derive(Debug)]
pub struct Process {
    label: String,
    child: Child,
    started: Instant,
    started_at: Timestamp,
    /// It finds the programs of another release than we do.
    rooted: bool,
    left: bool,
}

impl Launch {
    /// Starts it in a process group of its own, so that Ctrl-C reaches us alone.
    pub fn start(&self) -> Result<Process> {
        self.start_of(None)
    }

    /// Starts the program that `root` has instead of this machine's, where there is a `root`.
    pub fn start_of(&self, root: Option<&Root>) -> Result<Process> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("{}", self.log.display()))?;
        let child = self
            .command(root)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", self.label))?;
        Ok(Process {
            label: self.label.clone(),
            child,
            started: Instant::now(),
            started_at: Timestamp::now(),
            rooted: root.is_some(),
            left: false,
        })
    }

    /// nsenter, setpriv and what enters a root all exec: the pid of the child is the daemon's own.
    fn command(&self, root: Option<&Root>) -> Command {
        let (program, arguments) = match root {
            Some(root) => root.runs(&self.program, &self.arguments),
            None => (self.program.clone(), self.arguments.clone()),
        };
        match self.capabilities {
            None => {
                let mut command = self.netns.command(&program.to_string_lossy());
                command.args(&arguments);
                command
            }
            Some(names) => {
                let mut command = self.netns.command("setpriv");
                command
                    .arg(format!("--bounding-set=-all{}", plus(names)))
                    .arg("--inh-caps=-all")
                    .arg("--")
                    .arg(&program)
                    .args(&arguments);
                command
            }
        }
    }
}

fn plus(names: &[&str]) -> String {
    names.iter().map(|name| format!(",+{name}")).collect()
}

impl Process {
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// A command that finds the programs that the process finds: its root's, if it has one.
    #[must_use]
    pub fn command_beside(&self, program: &str) -> Command {
        if !self.rooted {
            return Command::new(program);
        }
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.pid())).arg("--").arg(program);
        command
    }

    /// An error that says how it ended, if it has.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}", self.label),
        }
    }

    /// `kill -9`, and reaps it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill -9 {}", self.label))?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, then waits; an error if it is still there after `patience` or ended by anything but itself.
    pub fn terminate(&mut self, patience: Duration) -> Result<()> {
        kill(self.raw_pid()?, Signal::SIGTERM).with_context(|| format!("SIGTERM to {}", self.label))?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                match status.signal() {
                    Some(signal) => bail!("{} ended by signal {signal} after SIGTERM", self.label),
                    None => bail!("{} ended after SIGTERM: {status}", self.label),
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("{} still runs {patience:?} after SIGTERM", self.label)
    }

    /// Gives it up: it goes on running after this value is dropped.
    pub fn leave(mut self) {
        self.left = true;
    }

    fn raw_pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id()).context("pid")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.left {
            // Both fail only for a process that ended already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Asks `question` every 10 ms until it answers, the patience is over, or the run is broken off.
pub fn wait_for<T>(patience: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if Instant::now() >= deadline || crate::interrupt::requested() {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The last `count` lines of a log, for people.
#[must_use]
pub fn tail(log: &Path, count: usize) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}
