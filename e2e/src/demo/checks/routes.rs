//! 1: sessions and routes.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::demo::check::{Verdict, count};
use crate::demo::fabric::{Fabric, KernelRoute, established, kernel_routes, session_count};
use crate::demo::screen::duration;
use crate::process::wait_for;
use crate::router::{Router, Routers};
use crate::topology::{NODES, Node, TORS, Tor};

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn sessions(fabric: &mut Fabric) -> Result<Verdict> {
    let total = session_count();
    let routers = fabric.routers()?;
    let by_router = || established(routers, &NODES).ok().filter(|up| *up == total);
    if wait_for(PATIENCE, by_router).is_none() {
        return Ok(Verdict::fail(format!("{} of {total} by the ToRs", established(routers, &NODES)?)));
    }
    let Some(took) = fabric.established_after else {
        return Ok(Verdict::fail(format!(
            "{total} of {total} by the ToRs, but later than 20s after bgpd started"
        )));
    };
    let mut by_manxctl = Err("manxctl was not asked".to_owned());
    wait_for(PATIENCE, || {
        by_manxctl = manxctl_sessions(fabric);
        by_manxctl.as_ref().ok().filter(|up| **up == total).map(|_| ())
    });
    Ok(match by_manxctl {
        Ok(up) if up == total => {
            Verdict::ok(format!("{up} of {total}, {} after bgpd started", duration(took)))
                .with("sessions", count(up))
                .with("establishedSeconds", took.as_secs_f64())
        }
        Ok(up) => Verdict::fail(format!("{total} of {total} by FRR, {up} of {total} by manxctl bgp peers")),
        Err(error) => Verdict::fail(format!("{total} of {total} by FRR; {error}")),
    })
}

/// Established sessions with a ToR, by `manxctl bgp peers -o json`.
fn manxctl_sessions(fabric: &Fabric) -> Result<usize, String> {
    let report = fabric.manxctl_json(&["bgp", "peers"]).map_err(|error| format!("{error:#}"))?;
    let Some(sessions) = report.get("sessions").and_then(Value::as_array) else {
        return Err("manxctl bgp peers -o json has no sessions".to_owned());
    };
    let text =
        |session: &Value, key: &str| session.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut up = 0;
    for (node, tor) in NODES.iter().flat_map(|node| TORS.iter().map(move |tor| (node, tor))) {
        up += usize::from(sessions.iter().any(|session| {
            text(session, "node") == node.name
                && text(session, "peer") == tor.name
                && text(session, "remote") == tor.v4().to_string()
                && text(session, "state") == "Established"
        }));
    }
    Ok(up)
}

pub(super) fn blocks_on_routers(fabric: &mut Fabric) -> Result<Verdict> {
    let blocks = fabric.blocks()?;
    let routers = fabric.routers()?;
    let mut failures = Vec::new();
    wait_for(PATIENCE, || {
        failures = routers_lack(fabric, routers, &blocks);
        failures.is_empty().then_some(())
    });
    let held = (blocks.len() * routers.tors.len()).saturating_sub(failures.len());
    let lacking: Vec<String> = NODES
        .iter()
        .filter(|node| blocks.iter().filter(|(owner, _)| owner == *node).count() < 2)
        .map(|node| format!("{} claimed no block of each family", node.name))
        .collect();
    failures.extend(lacking);
    if !failures.is_empty() {
        return Ok(Verdict::counted(blocks.len() * routers.tors.len(), &failures, " blocks"));
    }
    Ok(Verdict::ok(format!("{0} of {0} blocks on both ToRs", blocks.len())).with("routes", count(held)))
}

fn routers_lack(fabric: &Fabric, routers: &Routers, blocks: &[(Node, String)]) -> Vec<String> {
    let mut failures = Vec::new();
    for (tor, router) in &routers.tors {
        let kernel = kernel_routes(&fabric.scope.netns(tor.name)).unwrap_or_default();
        for (owner, cidr) in blocks {
            if let Err(why) = router_holds(*tor, router, &kernel, *owner, cidr) {
                failures.push(format!("{} {cidr} of {}: {why}", tor.name, owner.name));
            }
        }
    }
    failures
}

/// In BGP: the best path is the owner's own, its next hop the owner. In the kernel: the owner's link, only.
fn router_holds(
    tor: Tor,
    router: &Router,
    kernel: &[KernelRoute],
    owner: Node,
    cidr: &str,
) -> Result<(), String> {
    let best = router.best_path(cidr).map_err(|error| format!("{error:#}"))?;
    if best.as_path != owner.asn.to_string() {
        return Err(format!("AS path {:?}", best.as_path));
    }
    let hops = best.next_hops;
    let address =
        if cidr.contains(':') { owner.link_v6(tor).to_string() } else { owner.link_v4(tor).to_string() };
    if !hops.contains(&address) {
        return Err(format!("next hop {hops:?} instead of {address}"));
    }
    let route = kernel.iter().find(|route| route.destination == cidr).ok_or("not in the kernel")?;
    match route.hops.as_slice() {
        [(_, device)] if *device == owner.downlink() => Ok(()),
        hops => Err(format!("kernel next hops {hops:?}")),
    }
}

pub(super) fn blocks_on_nodes(fabric: &mut Fabric) -> Result<Verdict> {
    let blocks = fabric.blocks()?;
    let begun = Instant::now();
    let (mut total, mut failures) = (0, Vec::new());
    wait_for(PATIENCE, || {
        (total, failures) = nodes_lack(fabric, &blocks);
        failures.is_empty().then_some(())
    });
    Ok(Verdict::counted(total, &failures, " routes")
        .and(", 2 next hops each")
        .with("waitedSeconds", begun.elapsed().as_secs_f64()))
}

/// How many routes there should be, and which are not as they should be.
pub(super) fn nodes_lack(fabric: &Fabric, blocks: &[(Node, String)]) -> (usize, Vec<String>) {
    let (mut total, mut failures) = (0, Vec::new());
    for node in NODES {
        let kernel = kernel_routes(&fabric.scope.netns(node.name)).unwrap_or_default();
        for (owner, cidr) in blocks.iter().filter(|(owner, _)| *owner != node) {
            total += 1;
            if let Err(why) = node_holds(&kernel, cidr) {
                failures.push(format!("{} {cidr} of {}: {why}", node.name, owner.name));
            }
        }
    }
    (total, failures)
}

/// One next hop by each ToR: its address on the right interface.
fn node_holds(kernel: &[KernelRoute], cidr: &str) -> Result<(), String> {
    let route = kernel.iter().find(|route| route.destination == cidr).ok_or("not in the kernel")?;
    let right = route.hops.len() == TORS.len()
        && TORS.iter().all(|tor| {
            let addresses = [tor.v4().to_string(), tor.v6().to_string()];
            route.hops.iter().any(|(gateway, device)| addresses.contains(gateway) && device == tor.uplink())
        });
    if right { Ok(()) } else { Err(format!("next hops {:?}", route.hops)) }
}
