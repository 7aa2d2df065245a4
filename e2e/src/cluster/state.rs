//! What tells one process about the cluster of another, and what takes a cluster off the machine.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::netns;
use crate::{frr, topology};

use super::network::{self, PREFIX};
use super::options::Options;

const LOCK: &str = "/run/manx-cluster.lock";
const STATE: &str = "/run/manx-cluster.json";
const CGROUPS: &str = "/sys/fs/cgroup";

#[derive(Serialize, Deserialize)]
struct Record {
    options: Options,
    /// Whether it was left up on purpose.
    left: bool,
}

/// Only one cluster is made or removed at a time, and a test's is there as long as its process holds the lock.
pub(crate) fn lock() -> Result<Flock<fs::File>> {
    let file = fs::File::create(LOCK).context(LOCK)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        anyhow!(
            "another process has a cluster on this machine\n  where      {LOCK}: {error}\n  expected   one at a time\n  do         fuser -v {LOCK}; wait for it, or end it with SIGINT"
        )
    })
}

/// Says what is up, for other processes.
pub(crate) fn write(options: &Options, left: bool) -> Result<()> {
    let record = Record { options: options.clone(), left };
    fs::write(STATE, serde_json::to_vec_pretty(&record)?).context(STATE)
}

/// The options of the cluster that was left up, if one was.
pub(crate) fn read() -> Result<Option<Options>> {
    Ok(record()?.filter(|record| record.left).map(|record| record.options))
}

fn record() -> Result<Option<Record>> {
    match fs::read(STATE) {
        // A file of another version: whatever it was, it can only be removed.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(STATE),
    }
}

/// Removes what a run that died left. An error if somebody left a cluster up on purpose. The lock is held.
pub(crate) fn remove_crashed() -> Result<()> {
    if read()?.is_some() {
        bail!(
            "a cluster is up on this machine\n  where      namespaces {PREFIX}*\n  expected   one at a time\n  do         make cluster-down, or use it: . target/cluster/env; kubectl get pods -A"
        );
    }
    remove().map(drop)
}

/// Removes processes, namespaces, routers, cgroups and files of whatever cluster there is; logs stay. The lock is held.
pub(crate) fn remove() -> Result<bool> {
    let names = netns::list(PREFIX);
    let record = record()?;
    let found = !names.is_empty() || Path::new(STATE).exists();
    // Everything of a node is below a process in its namespace, so nothing survives this.
    netns::remove(names.iter().map(String::as_str)).context("removing namespaces")?;
    let scope = network::scope();
    for name in topology::TORS.iter().map(|tor| tor.name).chain(["client"]) {
        frr::forget(&scope.router(name));
    }
    remove_groups()?;
    if let Some(record) = record {
        remove_files(&record.options.home)?;
    }
    match fs::remove_file(STATE) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(STATE)?,
        Ok(()) | Err(_) => {}
    }
    Ok(found)
}

/// Makes the home of a cluster, without what an earlier one left in it.
pub(crate) fn sweep(home: &Path) -> Result<()> {
    remove_files(home)?;
    let logs = home.join("logs");
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("{}", logs.display()))?;
    }
    fs::create_dir_all(&logs).with_context(|| format!("{}", logs.display()))
}

/// Removes everything in a home but the logs.
fn remove_files(home: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(home) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.ends_with("logs") {
            continue;
        }
        let same_device = |path: &Path| Some(fs::symlink_metadata(path).ok()?.dev());
        if same_device(&path) != same_device(home) {
            bail!("{} is a mount, left alone: is a node still running?", path.display());
        }
        let removed = if path.is_dir() { remove_tree(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

/// The kernel may still be taking a node's mounts apart.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match fs::remove_dir_all(path) {
            Err(error) if Instant::now() < deadline && error.kind() != std::io::ErrorKind::NotFound => {
                thread::sleep(Duration::from_millis(100));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
    }
}

/// Removes the nodes' cgroups in every hierarchy, once the processes in them are gone.
fn remove_groups() -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left: BTreeSet<PathBuf> = groups().into_iter().flat_map(|group| depth_first(&group)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let shown: Vec<String> = left.iter().take(3).map(|path| path.display().to_string()).collect();
            bail!("{} cgroups are still in use, such as {}", left.len(), shown.join(" "));
        }
        // Deepest first: a path sorts before what is below it.
        for group in left.iter().rev() {
            let _ = fs::remove_dir(group);
        }
        if groups().iter().any(|group| group.exists()) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The cluster's group in each hierarchy that has one.
fn groups() -> Vec<PathBuf> {
    let name = PREFIX.trim_end_matches('-');
    let Ok(entries) = fs::read_dir(CGROUPS) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path().join(name))
        .filter(|group| group.is_dir())
        .collect();
    found.extend(Some(Path::new(CGROUPS).join(name)).filter(|group| group.is_dir()));
    found
}

fn depth_first(group: &Path) -> Vec<PathBuf> {
    let mut all = vec![group.to_owned()];
    let Ok(entries) = fs::read_dir(group) else { return all };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(depth_first(&entry.path()));
        }
    }
    all
}
