//! The start: what is remembered, what the kernel holds, what the store says, in this order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use felix_calc::host::{INTERFACE_PREFIX, ROUTE_PROTOCOL_BGP, ROUTE_PROTOCOL_LOCAL};
use felix_calc::{CalcGraph, NodeSettings};
use felix_kernel::monitor::{Monitor, OwnRoutes, Removals};
use felix_kernel::netlink::RouteSocket;
use felix_kernel::sysctl::{Record, Sysctl, host_settings};
use manx_crds::host::FELIX_SOCKET;
use manx_crds::store::any::AnyStore;
use manx_crds::store::dir::DirStore;
use manx_daemon::options::{Options, private_directory};
use manx_ipam::allocator::{Allocator, Identity, Restored, Settings};
use manx_ipam::journal::Replay;
use tokio::sync::mpsc;

use crate::dataplane::Dataplane;
use crate::driver::{Attached, Driver, Event, Programming, Sources};
use crate::install::{Directories, Installer, Installing, PLUGIN};
use crate::journal::Journal;
use crate::services::Services;
use crate::source_prefixes::SourcePrefixes;
use crate::status::Status;
use crate::{cni, dataplane, denied, objects, writer};

/// Writes that wait for the store.
const WRITES: usize = 4096;

pub(crate) async fn run(options: &Options, directories: Directories, node: String) -> anyhow::Result<()> {
    private_directory(&options.run_dir)?;
    private_directory(&options.state_dir)?;
    let store = AnyStore::open(&options.store).await.context("the datastore")?;
    let questions =
        manx_daemon::control::listen(&options.run_dir.join(FELIX_SOCKET)).context("the control socket")?;
    options.serve_health(FELIX_SOCKET).await.context("probes")?;
    let (events, event) = mpsc::unbounded_channel();
    let (journal, replayed) = {
        let events = events.clone();
        // The loop is gone: the process ends.
        let heard = move |sequence, outcome| drop(events.send(Event::Journaled { sequence, outcome }));
        Journal::open(&options.state_dir.join("journal"), heard).context("the journal")?
    };
    let (monitor, (dataplane, outcomes, adopted)) = kernel(&store, &node).await?;
    // Behind the table, whose first rule loads connection tracking where it is a module.
    let settings_problems = settings(options, &monitor)?;
    let attached = attached(&replayed, &monitor);
    tracing::info!(
        version = manx_daemon::VERSION,
        pods = attached.len(),
        table = if adopted.table { "adopted" } else { "none" },
        routes = adopted.routes,
        "felix starts"
    );
    let me = Identity { node: node.clone(), incarnation: incarnation()? };
    let restored =
        Restored { complete: replayed.complete() && replayed.valid_length > 0, state: replayed.state };
    let (writes, written) = mpsc::channel(WRITES);
    tokio::spawn(writer::run(store.clone(), node.clone(), written));
    // Last of all, so that nobody is answered before there is something to answer with.
    let calls = cni::listen(&options.run_dir.join(manx_cni::SOCKET)).context("the CNI socket")?;
    let (sender, changes) = objects::watch(&store, &node);
    if let Some(directory) = store.directory() {
        tokio::spawn(controller(directory.clone(), node.clone(), options.secrets_namespace.clone()));
    }
    let services = Services::new(&node, sender);
    let inputs = options.inputs("felix", &node);
    let objects = objects::Objects { node: node.clone(), ..objects::Objects::default() };
    let driver = Driver {
        status: Status::new(writes, adopted.table, store.directory().is_some()),
        node,
        store,
        objects,
        graph: CalcGraph::new(NodeSettings::default()),
        allocator: Allocator::new(me, Settings::default(), restored),
        journal,
        dataplane,
        monitor,
        host: Arc::new(RouteSocket::open()?),
        events,
        attached,
        endpoints: BTreeMap::new(),
        adds: BTreeMap::new(),
        dels: BTreeMap::new(),
        next_request: 0,
        programming: Programming::default(),
        recheck: BTreeMap::new(),
        second_looks: std::collections::VecDeque::new(),
        look_routes: None,
        journal_next: 0,
        journal_acked: 0,
        journal_saved: 0,
        journal_failed: BTreeMap::new(),
        gated: std::collections::VecDeque::new(),
        settings_problems,
        chosen: crate::address::Chosen::default(),
        told: crate::network::Told::default(),
        services,
        inputs,
        service_prefixes: std::collections::BTreeSet::new(),
        installing: Installing::new(Installer {
            directories,
            plugin: std::env::current_exe()?.with_file_name(PLUGIN),
            socket: options.run_dir.join(manx_cni::SOCKET),
        }),
        started: Instant::now(),
    };
    let sources = Sources { changes, calls, events: event, outcomes, questions };
    driver.run(sources, manx_daemon::stop::signal()?).await
}

/// What the kernel says, and where it is told. Where it denies either, the FabricNode says so.
async fn kernel(store: &AnyStore, node: &str) -> anyhow::Result<(Monitor, dataplane::Started)> {
    let open = || {
        let own = [
            OwnRoutes::new(ROUTE_PROTOCOL_LOCAL, Removals::Told),
            OwnRoutes::new(ROUTE_PROTOCOL_BGP, Removals::NotTold),
        ];
        let monitor = Monitor::start(&own).context("the kernel's links")?;
        Ok((monitor, Dataplane::start().context("the kernel's tables")?))
    };
    let opened = open();
    if let Err(error) = &opened {
        denied::by_kernel(store, node, error).await;
    }
    opened
}

/// Of all felix on one directory, the one that holds the lock is the controller (api.md §13). The kernel gives the lock
/// up with the process.
async fn controller(store: DirStore, node: String, secrets_namespace: String) {
    let lock = store.root().join(manx_controller::leadership::LOCK);
    let settings =
        manx_controller::Settings { identity: node, directory: true, secrets_namespace, report: None };
    let leadership = manx_controller::Leadership::Lock(lock);
    let ended = manx_controller::run(store, leadership, settings, std::future::pending()).await;
    if let Err(error) = ended {
        tracing::error!(%error, "the controller ended");
    }
}

/// Attachments of an earlier life whose links are still there. A record without a link is a pod that the machine lost
/// (a reboot): its address stays its own until the runtime deletes it.
fn attached(replayed: &Replay, monitor: &Monitor) -> BTreeMap<manx_ipam::journal::Attachment, Attached> {
    let mut attached = BTreeMap::new();
    for (attachment, pod) in &replayed.state.pods {
        let Some(host_interface) = &pod.host_interface else { continue };
        let Some(link) = monitor.facts().link_by_name(host_interface) else {
            tracing::info!(pod = format!("{}/{}", pod.namespace, pod.name), "recorded, but its link is gone");
            continue;
        };
        attached.insert(
            attachment.clone(),
            Attached {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                host_interface: host_interface.clone(),
                index: link.index,
                addresses: pod.addresses.iter().map(|address| address.ip).collect(),
                sources: SourcePrefixes::default(),
            },
        );
    }
    attached
}

/// Host settings that forwarding needs. What they were is kept on disk until somebody restores it.
fn settings(options: &Options, monitor: &Monitor) -> anyhow::Result<Vec<String>> {
    let path = options.state_dir.join("sysctl.json");
    let mut record: Record = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{}", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Record::new(),
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    };
    let before = record.clone();
    let uplinks: Vec<&str> = monitor
        .facts()
        .links()
        .filter(|link| !link.loopback && !link.name.starts_with(INTERFACE_PREFIX))
        .map(|link| link.name.as_str())
        .collect();
    let problems = Sysctl::default().apply(&host_settings(&uplinks), &mut record);
    for problem in &problems {
        tracing::error!(error = %problem, r#do = problem.remedy(), "a host setting is not as pods need it");
    }
    if record != before {
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(&record)?)?;
        std::fs::File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, &path)?;
    }
    Ok(problems.iter().map(ToString::to_string).collect())
}

/// Tells this start of the process from every other.
fn incarnation() -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}
