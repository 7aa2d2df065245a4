//! `felix uninstall`: takes from this node what is Manx's, whoever of us made it and however it ended. May be repeated;
//! what cannot be removed is said, and the rest goes all the same.
//!
//! The order is that of a node that still runs pods: the container runtime is told first, then the scheduler, then the
//! kernel, and the record of what was there last.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use felix_calc::host::{ROUTE_PROTOCOL_BGP, ROUTE_PROTOCOL_LOCAL};
use felix_kernel::link;
use felix_kernel::netlink::RouteSocket;
use felix_kernel::nft::PolicyTable;
use felix_kernel::route::{self, RouteKey};
use felix_kernel::sysctl::{Record, Sysctl};
use manx_crds::store::StoreError;
use manx_crds::store::any::{AnyStore, Place};

use crate::install::{self, Directories};
use crate::network::Network;
use crate::writer;

/// Removes from this node everything that is Manx's: the plugin and its configuration, our nftables table, routes,
/// changed host settings, sockets and state. Stop felix and bgpd first.
#[derive(Parser)]
#[command(name = "felix uninstall", version)]
pub(crate) struct Uninstall {
    /// Name of this node in the datastore; without it, or without --store, the Node is told nothing
    #[arg(long, env = "NODE_NAME")]
    node: Option<String>,
    /// kubernetes, or the directory that holds the objects
    #[arg(long, env = "MANX_STORE", value_name = "DIR")]
    store: Option<Place>,
    /// Where the sockets are
    #[arg(long, env = "MANX_RUN_DIR", value_name = "DIR", default_value = manx_crds::host::RUN_DIR)]
    run_dir: PathBuf,
    /// What is remembered across a restart
    #[arg(long, env = "MANX_STATE_DIR", value_name = "DIR", default_value = manx_crds::host::STATE_DIR)]
    state_dir: PathBuf,
    #[command(flatten)]
    directories: Directories,
    /// Also the links of pods that still run: they lose their network
    #[arg(long)]
    pods: bool,
}

/// What we keep in the state directory; what a person put there stays.
const STATE: [&str; 4] = ["journal", "inputs", "sysctl", "keys"];
const SOCKETS: [&str; 3] = [manx_cni::SOCKET, manx_crds::host::FELIX_SOCKET, manx_crds::host::BGPD_SOCKET];

/// What was removed, and what could not be.
#[derive(Default)]
struct Report {
    removed: Vec<String>,
    failed: Vec<String>,
}

impl Report {
    fn take<T>(&mut self, what: &str, outcome: anyhow::Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.push(format!("{what}: {error:#}"));
                None
            }
        }
    }

    fn removed(&mut self, what: impl Into<String>) {
        self.removed.push(what.into());
    }
}

impl Uninstall {
    /// # Errors
    /// Where felix or bgpd still run, which would put everything back, or where something could not be removed.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        for socket in SOCKETS {
            let path = self.run_dir.join(socket);
            if UnixStream::connect(&path).is_ok() {
                anyhow::bail!(
                    "{} still answers: delete the DaemonSets of felix and bgpd first, then run this again",
                    path.display()
                );
            }
        }
        let mut report = Report::default();
        let installed = install::remove(&self.directories).context("the container runtime's directories");
        for path in report.take("installed files", installed).into_iter().flatten() {
            report.removed(path.display().to_string());
        }
        let told = self.tell_node();
        if let Some(true) = report.take("the Node", told) {
            report.removed("NetworkUnavailable is True: no pod comes to this node");
        }
        kernel(&mut report, self.pods);
        settings(&mut report, &self.state_dir);
        files(&mut report, &self.run_dir, |name| SOCKETS.contains(&name));
        files(&mut report, &self.state_dir, |name| STATE.iter().any(|ours| name.starts_with(ours)));
        self.print(&report)
    }

    fn print(&self, report: &Report) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        for line in &report.removed {
            writeln!(out, "removed  {line}")?;
        }
        for line in &report.failed {
            writeln!(out, "FAILED   {line}")?;
        }
        if report.removed.is_empty() && report.failed.is_empty() {
            writeln!(out, "nothing of Manx's was left on this node")?;
        }
        if !self.pods {
            let left = RouteSocket::open().ok().and_then(|socket| link::list_pod_links(&socket).ok());
            let left = left.map_or(0, |links| links.len());
            if left > 0 {
                writeln!(out, "left     the links of {left} pods; --pods removes them too")?;
            }
        }
        anyhow::ensure!(report.failed.is_empty(), "{} things could not be removed", report.failed.len());
        Ok(())
    }

    /// The kubelet's node has no network any more. A Node that is gone needs no word.
    fn tell_node(&self) -> anyhow::Result<bool> {
        let (Some(node), Some(store)) = (&self.node, &self.store) else { return Ok(false) };
        let wish = Network {
            available: false,
            reason: "Uninstalled".to_owned(),
            message: "Manx was removed from this node".to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let told = runtime.block_on(async {
            let store = AnyStore::open(store).await?;
            writer::network(&store, node, &wish).await
        });
        match told {
            Ok(changed) => Ok(changed),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn kernel(report: &mut Report, pods: bool) {
    let socket = match report.take("the kernel", RouteSocket::open().map_err(Into::into)) {
        Some(socket) => socket,
        None => return,
    };
    for (protocol, whose) in [(ROUTE_PROTOCOL_BGP, "bgpd"), (ROUTE_PROTOCOL_LOCAL, "felix")] {
        let count = report.take("routes", remove_routes(&socket, protocol));
        if let Some(count @ 1..) = count {
            report.removed(format!("{count} routes of protocol {protocol} ({whose})"));
        }
    }
    if let Some(true) = report.take("table inet manx", PolicyTable::remove().map_err(Into::into)) {
        report.removed("table inet manx");
    }
    if pods {
        for name in report.take("links of pods", remove_links(&socket)).into_iter().flatten() {
            report.removed(format!("interface {name}"));
        }
    }
}

fn remove_routes(socket: &RouteSocket, protocol: u8) -> anyhow::Result<usize> {
    let routes = route::dump(socket, Some(protocol))?;
    for found in &routes {
        let key = RouteKey { table: found.table, destination: found.destination, metric: found.metric };
        route::delete(socket, &key, protocol)?;
    }
    route::delete_objects(socket, protocol)?;
    Ok(routes.len())
}

fn remove_links(socket: &RouteSocket) -> anyhow::Result<Vec<String>> {
    let links = link::list_pod_links(socket)?;
    let indexes: Vec<u32> = links.iter().map(|link| link.index).collect();
    let refused = link::delete_all(socket, &indexes)?;
    if let Some((index, why)) = refused.first() {
        anyhow::bail!("interface {index}: {why}");
    }
    Ok(links.into_iter().map(|link| link.name).collect())
}

/// Host settings as they were before the first start.
fn settings(report: &mut Report, state_dir: &Path) {
    let path = state_dir.join("sysctl.json");
    let read = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<Record>(&bytes).map_err(Into::into),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => Err(error.into()),
    };
    let Some(mut record) = report.take("sysctl.json", read) else { return };
    let before = record.clone();
    for problem in Sysctl::default().restore(&mut record) {
        report.failed.push(problem.to_string());
    }
    for (key, value) in before.iter().filter(|(key, _)| !record.contains_key(*key)) {
        report.removed(format!("sysctl {key} is {value} again"));
    }
    // What could not be put back is tried again the next time.
    let kept = if record.is_empty() { std::fs::remove_file(&path) } else { rewrite(&path, &record) };
    report.take("sysctl.json", kept.map_err(Into::into));
}

fn rewrite(path: &Path, record: &Record) -> std::io::Result<()> {
    std::fs::write(path, serde_json::to_vec(record)?)
}

/// Files and directories of ours, then the directory where nothing else is in it.
fn files(report: &mut Report, directory: &Path, ours: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // It is here only if a setting could not be put back.
        if !ours(&name) || name == "sysctl.json" {
            continue;
        }
        let path = entry.path();
        let outcome = match path.is_dir() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        if report.take(&path.display().to_string(), outcome.map_err(Into::into)).is_some() {
            report.removed(path.display().to_string());
        }
    }
    // A mount of the pod that we run in, or somebody else's files: it stays.
    if std::fs::remove_dir(directory).is_ok() {
        report.removed(directory.display().to_string());
    }
}
