//! The chart, as people install it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::cluster::TAINT;

use crate::asks::{condition, list, text};
use crate::lab::{Lab, SYSTEM};

/// `helm install manx charts/manx`, no values, nothing else done: nodes get ready.
pub(crate) fn without_values(lab: &mut Lab) -> Result<String> {
    let begun = Instant::now();
    let installed = lab.install(&[])?;
    lab.cluster.await_ready(Duration::from_secs(120))?;
    let ready = begun.elapsed();
    lab.until(Duration::from_secs(60), nodes_are_open)?;
    for what in ["daemonset/manx-bgpd", "daemonset/manx-felix", "deployment/manx-controller"] {
        lab.rolled_out(SYSTEM, what)?;
    }
    lab.until(Duration::from_secs(60), mesh_is_well)?;
    lab.helm(&["test", "manx", "--timeout", "1m"])?;
    Ok(format!("helm {:.1}s, nodes Ready after {:.1}s", installed.as_secs_f64(), ready.as_secs_f64()))
}

/// The chart on a cluster that waits for it, or the Manx that it has.
pub(crate) fn on_theirs(lab: &mut Lab) -> Result<String> {
    let had = lab.cluster.has_manx();
    if !had {
        lab.install(&[])?;
    }
    lab.cluster.await_ready(Duration::from_secs(240))?;
    lab.until(Duration::from_secs(120), nodes_are_open)?;
    lab.until(Duration::from_secs(120), conditions_are_true)?;
    lab.helm(&["test", "manx", "--timeout", "1m"])?;
    Ok(format!("{} nodes, {}", lab.cluster.size(), if had { "Manx was there" } else { "installed" }))
}

/// felix took its taint off, and says that the network is there.
pub(crate) fn nodes_are_open(lab: &Lab) -> Result<()> {
    for node in lab.items(&["get", "nodes"])? {
        let name = text(&node, "/metadata/name");
        let tainted = list(&node, "/spec/taints").iter().any(|taint| text(taint, "/key") == TAINT);
        ensure!(!tainted, "{name} still has the taint {TAINT}");
        let network = condition(&node, "NetworkUnavailable")?;
        ensure!(text(network, "/status") == "False", "{name}: NetworkUnavailable: {network}");
    }
    Ok(())
}

/// Every condition of every object of ours is true: a user who looks finds nothing to worry about.
pub(crate) fn conditions_are_true(lab: &Lab) -> Result<()> {
    let mut seen = 0;
    for kind in ["fabricnodes", "ippools", "bgpadvertisements", "bgppeers", "loadbalancerpools"] {
        for object in lab.items(&["get", kind])? {
            for condition in list(&object, "/status/conditions") {
                let (name, kind) = (text(&object, "/metadata/name"), text(condition, "/type"));
                ensure!(text(condition, "/status") == "True", "{name}: {kind}: {condition}");
                seen += 1;
            }
        }
    }
    let nodes = lab.cluster.size();
    ensure!(seen >= nodes * 4, "{seen} conditions of {nodes} nodes");
    Ok(())
}

/// The same, and every node has a session with every other.
pub(crate) fn mesh_is_well(lab: &Lab) -> Result<()> {
    conditions_are_true(lab)?;
    let nodes = lab.cluster.size();
    let sessions = lab.items(&["get", "bgpsessions"])?;
    let expected = nodes * (nodes - 1) / 2;
    ensure!(sessions.len() >= expected, "{} BGPSessions, expected {expected} or more", sessions.len());
    for session in sessions {
        let state = text(&session, "/status/state");
        ensure!(state == "Established", "{}: {state}", text(&session, "/metadata/name"));
    }
    Ok(())
}

/// What people ask first at three in the morning: answered by every daemon, from wherever kubectl works.
pub(crate) fn manxctl_answers(lab: &mut Lab) -> Result<String> {
    let nodes = lab.cluster.size();
    let questions = [
        &["status"][..],
        &["nodes"],
        &["bgp", "peers"],
        &["bgp", "routes"],
        &["services"],
        &["ipam", "show"],
    ];
    for arguments in questions {
        let report = lab.manxctl(arguments)?;
        ensure!(list(&report, "/missing").is_empty(), "{arguments:?}: did not answer: {}", report["missing"]);
    }
    let sessions = lab.manxctl(&["bgp", "peers"])?;
    let rows = list(&sessions, "/sessions");
    let mut askers: Vec<&str> = rows.iter().map(|row| text(row, "/node")).collect();
    askers.sort_unstable();
    askers.dedup();
    ensure!(askers.len() == nodes, "sessions of {askers:?}, expected of {nodes} nodes");
    let down: Vec<_> = rows.iter().filter(|row| text(row, "/state") != "Established").collect();
    ensure!(down.is_empty(), "{down:?}");
    Ok(format!("status, nodes, peers, routes, services, pools; {} ends of sessions", rows.len()))
}
