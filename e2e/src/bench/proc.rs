//! What a daemon's processes cost, as /proc tells it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

/// All processes of one daemon.
#[derive(Clone, Debug)]
pub struct Processes {
    pids: Vec<Pid>,
}

impl Processes {
    #[must_use]
    pub fn of(pids: Vec<Pid>) -> Self {
        Self { pids }
    }

    #[must_use]
    pub fn pids(&self) -> &[Pid] {
        &self.pids
    }

    /// Seconds of user and system time so far.
    ///
    /// From `schedstat`, which counts nanoseconds a thread, where the kernel has it and no thread ended that had more than
    /// that; else from `stat`, which counts 10 ms of all that ever were.
    pub fn cpu(&self) -> Result<f64> {
        let mut sum = 0.0;
        for pid in &self.pids {
            // What threads took that ended since is in `stat` alone.
            sum += stat(*pid)?.max(threads(*pid).unwrap_or(0.0));
        }
        Ok(sum)
    }

    /// High-water marks of resident memory, added up, in MiB.
    pub fn peak_mib(&self) -> Result<f64> {
        let mut kib = 0.0;
        for pid in &self.pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))
                .with_context(|| format!("process {pid}"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
            kib += line.trim().trim_end_matches(" kB").parse::<f64>()?;
        }
        Ok(kib / 1024.0)
    }

    /// Waits until the processes have nothing to do: less than 1 ms of CPU within 200 ms, three times in a row.
    pub async fn settle(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let (mut before, mut quiet) = (self.cpu()?, 0);
        while quiet < 3 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = self.cpu()?;
            quiet = if now - before < 0.001 { quiet + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }
}

fn threads(pid: Pid) -> Option<f64> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread that ended meanwhile has taken its share with it.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        nanoseconds += text.split_whitespace().next()?.parse::<f64>().ok()?;
    }
    (nanoseconds > 0.0).then_some(nanoseconds / 1e9)
}

fn stat(pid: Pid) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: Vec<f64> = fields.skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// Routes in the IPv4 tables of the namespace that this thread is in.
pub fn kernel_routes() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/fib_triestat").context("fib_triestat")?;
    let counts =
        text.lines().filter_map(|line| line.trim().strip_prefix("Prefixes:")?.trim().parse::<u64>().ok());
    Ok(counts.sum())
}
