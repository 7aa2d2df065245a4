//! Uninstalled, Manx was never there.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::cluster::TRIAL;
use serde_json::Value;

use crate::asks::{NodeState, list, text};
use crate::lab::{Lab, SYSTEM};

/// `helm uninstall` with pods still running: the kernel and the files of every node are as before.
pub(crate) fn helm_uninstall(lab: &mut Lab) -> Result<String> {
    lab.helm(&["uninstall", "manx", "--wait", "--timeout", "4m"])?;
    lab.until(Duration::from_secs(30), |lab| {
        for (node, before) in lab.cluster.nodes().iter().zip(&lab.before) {
            let differences = before.differences(&NodeState::of(node)?);
            ensure!(differences.is_empty(), "{} differs:\n  {}", node.name(), differences.join("\n  "));
        }
        let left = lab.kubectl(&["-n", SYSTEM, "get", "all", "-o", "name"])?;
        ensure!(left.trim().is_empty(), "left in {SYSTEM}: {left}");
        nothing_is_said(lab)
    })?;
    Ok("routes, rules, tables, links, settings and files as before".to_owned())
}

/// No object says that something runs.
fn nothing_is_said(lab: &Lab) -> Result<()> {
    let sessions = lab.items(&["get", "bgpsessions"])?;
    ensure!(sessions.is_empty(), "{} BGPSessions are left", sessions.len());
    for node in lab.items(&["get", "fabricnodes"])? {
        let name = text(&node, "/metadata/name");
        ensure!(list(&node, "/status/agents").is_empty(), "{name}: agents are left");
        // The controller's, which was there to the end, is true without agents as well.
        let of_agents = |one: &&Value| text(one, "/type") != "IdentityUnique";
        let left = list(&node, "/status/conditions").iter().find(of_agents);
        ensure!(left.is_none(), "{name}: {left:?} is left");
    }
    Ok(())
}

/// The same where agents could not clean up after themselves.
pub(crate) fn after_kill(lab: &mut Lab) -> Result<String> {
    for node in lab.cluster.nodes() {
        node.run(&["sh", "-c", "kill -9 $(pidof felix) $(pidof bgpd)"])?;
    }
    helm_uninstall(lab)
}

/// What the steps made on somebody else's cluster goes; so does Manx, if it was not there before.
pub(crate) fn from_theirs(lab: &mut Lab, had: bool) -> Result<String> {
    lab.kubectl(&["delete", "namespace", TRIAL, "--timeout=120s"])?;
    if had {
        return Ok("Manx stays, as it was found".to_owned());
    }
    lab.helm(&["uninstall", "manx", "--wait", "--timeout", "4m"])?;
    lab.until(Duration::from_secs(60), |lab| {
        let left = lab.kubectl(&["-n", SYSTEM, "get", "all", "-o", "name"])?;
        ensure!(left.trim().is_empty(), "left in {SYSTEM}: {left}");
        Ok(())
    })?;
    Ok(format!("nothing left in {SYSTEM}"))
}
