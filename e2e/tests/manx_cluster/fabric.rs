//! Three nodes behind two FRR ToR routers, each node with an AS of its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::topology::{NODES, TORS};

use crate::asks::text;
use crate::install;
use crate::lab::Lab;

const MINUTE: Duration = Duration::from_secs(60);
/// The chart, and what an operator writes to peer with two routers.
pub(crate) fn behind_tors(lab: &mut Lab) -> Result<String> {
    let begun = Instant::now();
    let installed = lab.install(&[])?;
    lab.cluster.peer_with_tors()?;
    lab.cluster.await_ready(2 * MINUTE)?;
    lab.until(MINUTE, install::nodes_are_open)?;
    lab.until(MINUTE, sessions_are_up)?;
    lab.until(MINUTE, install::conditions_are_true)?;
    Ok(format!(
        "helm {:.1}s, all sessions after {:.1}s",
        installed.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    ))
}

/// As our API says it, and as the routers do.
pub(crate) fn sessions_are_up(lab: &Lab) -> Result<()> {
    let sessions = lab.items(&["get", "bgpsessions"])?;
    ensure!(sessions.len() == NODES.len() * TORS.len(), "{} BGPSessions", sessions.len());
    for session in &sessions {
        let state = text(session, "/status/state");
        ensure!(state == "Established", "{}: {state}", text(session, "/metadata/name"));
    }
    let routers = lab.cluster.routers().context("no routers")?;
    for tor in TORS {
        let sessions = routers.tor(tor.name)?.sessions()?;
        let up = sessions.values().filter(|session| session.families > 0).count();
        // The client's session is one more.
        ensure!(up > NODES.len(), "{}: {up} of {} sessions have a family up", tor.name, sessions.len());
    }
    Ok(())
}

/// How many ways the first ToR has to an address.
pub(crate) fn ways(lab: &Lab, prefix: &str) -> Result<usize> {
    let tor = TORS.first().context("no ToR")?;
    let netns = lab.cluster.router(tor.name);
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    let routes = netns.ip_json(&[family, "route", "show", prefix])?;
    let Some(route) = routes.get(0) else { return Ok(0) };
    Ok(route.get("nexthops").and_then(serde_json::Value::as_array).map_or(1, Vec::len))
}
