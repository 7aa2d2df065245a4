//! Network namespaces: made, entered, and removed with everything that runs in them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Where `ip netns` keeps its bind mounts.
const DIRECTORY: &str = "/run/netns";

/// A named network namespace. Dropping the value leaves the namespace; [`remove`] takes it away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace and brings its loopback up.
    pub fn create(name: &str) -> Result<Self> {
        batch(&[], &format!("netns add {name}\n")).with_context(|| format!("namespace {name}"))?;
        let netns = Self { name: name.to_owned() };
        netns.ip("link set lo up\n")?;
        Ok(netns)
    }

    /// The handle of a namespace that exists already, or will.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path that a container runtime passes as CNI_NETNS.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs lines of `ip -batch` in it; the first that fails ends the batch.
    pub fn ip(&self, lines: &str) -> Result<()> {
        batch(&["-n", &self.name], lines).with_context(|| format!("ip in {}", self.name))
    }

    /// What `ip -j ARGUMENTS` answers here; an empty answer is an empty list.
    pub fn ip_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-j", "-d"]).args(arguments);
        let text = stdout_of(command)?;
        if text.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&text).with_context(|| format!("JSON of ip {}", arguments.join(" ")))
    }

    /// A command that will run in this namespace and nowhere else.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets that it makes stay here, and so do
    /// children that it starts.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = self.open()?;
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    enter(&file)?;
                    work()
                })
                .join()
                .map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
        })
    }

    /// As [`Netns::run`], without waiting.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let file = self.open()?;
        Ok(thread::spawn(move || {
            enter(&file)?;
            work()
        }))
    }

    /// Sets sysctls below /proc/sys/net of this namespace, such as `ipv4/ip_forward`.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                fs::write(Path::new("/proc/sys/net").join(key), value)
                    .with_context(|| format!("sysctl net/{key}={value}"))?;
            }
            Ok(())
        })
    }

    /// Processes whose network namespace this is.
    #[must_use]
    pub fn pids(&self) -> Vec<Pid> {
        let Ok(own) = fs::metadata(self.path()) else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                fs::metadata(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino()))
            })
            .map(Pid::from_raw)
            .collect()
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("namespace {}", self.name))
    }
}

fn enter(file: &File) -> Result<()> {
    setns(file, CloneFlags::CLONE_NEWNET).context("setns")
}

/// Names of the namespaces that begin with `prefix`.
#[must_use]
pub fn list(prefix: &str) -> BTreeSet<String> {
    fs::read_dir(DIRECTORY)
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| name.starts_with(prefix))
                .collect()
        })
        .unwrap_or_default()
}

/// Ends what runs in the namespaces, waits for it, and removes them. What is gone already is no error.
pub fn remove<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let spaces: Vec<Netns> = names.into_iter().map(Netns::named).collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let living: Vec<Pid> =
            spaces.iter().flat_map(Netns::pids).filter(|pid| *pid != Pid::this()).collect();
        if living.is_empty() || Instant::now() > deadline {
            break;
        }
        for pid in living {
            // A process that ended meanwhile is what we want.
            let _ = kill(pid, Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let lines: String = spaces
        .iter()
        .filter(|space| space.path().exists())
        .map(|space| format!("netns del {}\n", space.name))
        .collect();
    batch(&["-force"], &lines).context("removing namespaces")
}

/// Runs lines of `ip -batch`, in the namespace that `options` names.
pub fn batch(options: &[&str], lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("ip: is iproute2 installed?")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{}", String::from_utf8_lossy(&output.stderr).trim())
}

/// Standard output of a command that must succeed; its standard error is the error's text.
pub fn stdout_of(mut command: Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{program}: {}: {}", output.status, error.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of {program}"))
}

/// Standard output of a command with `input` as its standard input. `what` it does stands before its standard error.
pub fn fed(mut command: Command, what: &str, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of {what}"))
}
