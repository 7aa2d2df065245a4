//! The steps before the checks: packages, binaries, namespaces, routers, nodes, pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::frr;
use crate::netns::{self, Netns};
use crate::pod::Sandbox;
use crate::probe::{self, EchoServer};
use crate::process::{tail, wait_for};
use crate::router::Routers;
use crate::topology::{self, NODES, Scope, node};

use super::fabric::{Daemons, Fabric, PODS, Places, Pod, established, session_count};
use super::screen::{Screen, State, Step};

/// The product's binaries and the packages of the workspace that build them.
const BINARIES: [&str; 4] = ["bgpd", "felix", "manx-cni", "manxctl"];

/// What the demo runs, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 7] = [
    ("/usr/lib/frr/bgpd", "frr"),
    ("/usr/bin/vtysh", "frr"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/bin/tcpdump", "tcpdump"),
    ("/usr/bin/nsenter", "util-linux"),
];

/// Debian packages that are missing, without doubles.
#[must_use]
pub(crate) fn missing_packages() -> Vec<&'static str> {
    let mut missing: Vec<&'static str> =
        PROGRAMS.iter().filter(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Installs what is missing. The error is apt's own text.
pub(crate) fn packages(screen: &mut Screen, home: &Path) -> Result<()> {
    let missing = missing_packages();
    let text = if missing.is_empty() { "frr".to_owned() } else { missing.join(" ") };
    let step = screen.begin("packages", &text);
    finish(step, &text, install(&missing, home))
}

fn install(missing: &[&str], home: &Path) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let log = home.join("apt.log");
    let attempt = |arguments: &[&str]| -> Result<bool> {
        let file = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .context("starting apt-get")?;
        Ok(status.success())
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(missing);
    // A fresh machine has no package lists: one update, then once more.
    if attempt(&arguments)? || (attempt(&["update"])? && attempt(&arguments)?) {
        return Ok(());
    }
    bail!("apt-get {} failed:\n{}", arguments.join(" "), tail(&log, 20))
}

/// The packages of `make build`, all in one call: dependencies have the features that the whole workspace gives them,
/// and what another lane compiled is not compiled again.
const PACKAGES: [&str; 7] = ["bgpd", "felix", "manx-cni", "manx-controller", "manx-daemon", "manxctl", "e2e"];

/// What cargo tells a program of its package, by the names' beginnings.
const OF_THIS_PACKAGE: [&str; 5] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_PRIMARY_PACKAGE", "CARGO_BIN_NAME", "CARGO_CRATE_NAME"];

/// Builds the binaries in the profile that this program was built in.
pub(crate) fn build(screen: &mut Screen, places: &Places) -> Result<()> {
    let profile = profile(&places.binaries);
    let text = format!("profile {profile}, {} binaries", BINARIES.len());
    let step = screen.begin("build", &text);
    finish(step, &text, compile(profile, places))
}

/// cargo's name of the profile whose folder this is.
fn profile(binaries: &Path) -> &str {
    match binaries.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    }
}

fn compile(profile: &str, places: &Places) -> Result<()> {
    let log = places.home.join("build.log");
    let file = fs::File::create(&log).with_context(|| format!("{}", log.display()))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--profile", profile]);
    for package in PACKAGES {
        command.args(["-p", package]);
    }
    // Started by `cargo run`, this process has cargo's words about itself, and a build script that looks at them (ring's)
    // runs again for them: everything above it would be compiled anew, now and by the next cargo that has others.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OF_THIS_PACKAGE.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("the build failed; the last lines of {}:\n{}", log.display(), tail(&log, 20));
    }
    for binary in BINARIES {
        let path = places.binaries.join(binary);
        if !path.exists() {
            bail!("{} was not built", path.display());
        }
    }
    Ok(())
}

/// The six namespaces, those of six pods, and the links.
pub(crate) fn namespaces(screen: &mut Screen, scope: &Scope) -> Result<()> {
    let text = "6 + 6 pods, 8 links, IPv4 and IPv6";
    let step = screen.begin("namespaces", text);
    let made = topology::build(scope).and_then(|()| {
        for (_, _, name, _) in PODS {
            Netns::create(scope.netns(&format!("pod-{name}")).name())?;
        }
        Ok(())
    });
    finish(step, text, made)
}

/// FRR or bgpd in both ToRs, FRR in the client.
pub(crate) fn routers(screen: &mut Screen, fabric: &mut Fabric) -> Result<()> {
    let text = "tor-a AS 65001, tor-b AS 65002";
    let step = screen.begin("ToR routers", text);
    let started = Routers::start(fabric.kind, &fabric.scope, &fabric.places.of_routers())
        .map(|routers| fabric.routers = Some(routers));
    finish(step, text, started)
}

/// bgpd and felix on each node; done when all their sockets are there.
pub(crate) fn nodes(screen: &mut Screen, fabric: &mut Fabric) -> Result<()> {
    let text = "bgpd and felix on n1 n2 n3";
    let step = screen.begin("nodes", text);
    let started = start_nodes(fabric);
    finish(step, text, started)
}

fn start_nodes(fabric: &mut Fabric) -> Result<()> {
    fabric.objects.put_fabric()?;
    for node in NODES {
        for directory in [fabric.places.run.join(node.name), fabric.places.state.join(node.name)] {
            fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        }
        let bgpd = fabric.launch("bgpd", node).start()?;
        let felix = fabric.launch("felix", node).start()?;
        fabric.daemons.push(Daemons { node, bgpd, felix });
    }
    for node in NODES {
        for (daemon, socket) in
            [("bgpd", "bgpd.sock"), ("felix", "felix-control.sock"), ("felix", "felix.sock")]
        {
            await_socket(fabric, node.name, daemon, socket)?;
        }
    }
    // Whether they come up is check 1.1's business; here is when, which nobody can ask later to the millisecond.
    let begun = fabric.daemons.first().map(|first| first.bgpd.started());
    let routers = fabric.routers()?;
    fabric.established_after = wait_for(Duration::from_secs(20), || {
        let up = established(routers, &NODES).ok()?;
        if up == session_count() { begun.map(|begun| begun.elapsed()) } else { None }
    });
    Ok(())
}

/// Waits for a daemon's socket; its log is the error's text.
pub(crate) fn await_socket(fabric: &mut Fabric, node: &str, daemon: &str, socket: &str) -> Result<()> {
    let path = fabric.places.run.join(node).join(socket);
    let log = fabric.log(daemon, node);
    let daemons = fabric.daemons(node)?;
    let process = if daemon == "bgpd" { &mut daemons.bgpd } else { &mut daemons.felix };
    let mut ended = None;
    let found = wait_for(Duration::from_secs(15), || {
        ended = process.check_running().err();
        (ended.is_some() || path.exists()).then_some(())
    });
    match (ended, found) {
        (None, Some(())) => Ok(()),
        (Some(error), _) => bail!("{error:#}; the last lines of {}:\n{}", log.display(), tail(&log, 10)),
        (None, None) => {
            bail!(
                "{daemon} on {node} opened no {} in 15s; the last lines of {}:\n{}",
                path.display(),
                log.display(),
                tail(&log, 10)
            )
        }
    }
}

/// The six pods, by ADD. The server of each listens before, so that a packet at once finds it.
pub(crate) fn pods(screen: &mut Screen, fabric: &mut Fabric) -> Result<()> {
    let total = PODS.len();
    let step = screen.begin("pods", &format!("0 of {total} by manx-cni ADD"));
    let added = add_pods(fabric);
    let text = format!("{} of {total} by manx-cni ADD", fabric.pods.len());
    finish(step, &text, added)
}

fn add_pods(fabric: &mut Fabric) -> Result<()> {
    fabric.client = Some(EchoServer::start(&fabric.scope.netns("client"), probe::PORT)?);
    let planned: Vec<Sandbox> = PODS
        .iter()
        .zip(1..)
        .map(|((_, namespace, name, _), number)| sandbox(&fabric.scope, namespace, name, number))
        .collect();
    for ((node_name, namespace, name, app), sandbox) in PODS.iter().zip(&planned) {
        fabric.objects.put_pod(namespace, name, &sandbox.uid, node_name, app)?;
    }
    for ((node_name, _, _, _), sandbox) in PODS.iter().zip(planned) {
        let node = node(node_name).context("a pod of no node")?;
        let server = EchoServer::start(&sandbox.netns, probe::PORT)?;
        let (addresses, _) = fabric.runtime(node).add(&sandbox)?;
        fabric.pods.push(Pod { sandbox, node, addresses, server });
    }
    Ok(())
}

/// What a runtime would have made up for a pod.
#[must_use]
pub(crate) fn sandbox(scope: &Scope, namespace: &str, name: &str, number: u32) -> Sandbox {
    Sandbox {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("5b0c3e9e-6e0b-4c0a-9d4e-{number:012x}"),
        container: format!("{number:064x}"),
        netns: scope.netns(&format!("pod-{name}")),
    }
}

/// Ends a step in the state that its result says.
fn finish(step: Step, text: &str, result: Result<()>) -> Result<()> {
    step.end(if result.is_ok() { State::Ok } else { State::Fail }, text);
    result
}

/// Takes everything away that a demo leaves on the machine, whoever started it.
pub(crate) fn remove(run: &Path) -> Result<()> {
    topology::remove_stale_demo()?;
    if run.exists() {
        fs::remove_dir_all(run).with_context(|| format!("{}", run.display()))?;
    }
    Ok(())
}

/// Versions of what takes part.
#[must_use]
pub(crate) fn versions(frr: bool) -> Vec<(&'static str, String)> {
    let first = |program: &str, argument: &str| {
        let mut command = Command::new(program);
        command.arg(argument);
        netns::stdout_of(command)
            .map(|text| text.lines().next().unwrap_or_default().to_owned())
            .unwrap_or_default()
    };
    let mut versions = vec![
        ("kernel", first("uname", "-r")),
        ("nft", first("nft", "--version")),
        ("rustc", first("rustc", "--version")),
    ];
    if frr {
        versions.push(("frr", frr::version().unwrap_or_default()));
    }
    versions
}

/// The folder of this program: the daemons are built beside it.
pub(crate) fn binaries() -> Result<PathBuf> {
    let program = std::env::current_exe().context("path of this program")?;
    Ok(program.parent().context("folder of this program")?.to_owned())
}
