//! What operators do to a cluster that serves: new pods, new agents, a drained node, a new version. Nobody outside may
//! notice.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::cluster::chart;
use e2e::topology::TORS;

use crate::asks::{list, text};
use crate::install;
use crate::lab::{Lab, SYSTEM};
use crate::load::Load;
use crate::services::{given, service_of};

const MINUTE: Duration = Duration::from_secs(60);
/// Design: a controller's death is made up for within this.
const TAKE_OVER: Duration = Duration::from_secs(20);

/// Clients of every address of both Services.
fn load(lab: &Lab) -> Result<Load> {
    let mut targets: Vec<SocketAddr> = Vec::new();
    for service in ["web", "web-local"] {
        targets.extend(given(lab, service)?.into_iter().map(|address| SocketAddr::from((address, 80))));
    }
    let routers: Vec<_> = TORS.iter().map(|tor| lab.cluster.router(tor.name)).collect();
    Load::start(&lab.cluster.client(), &targets, &routers)
}

/// Runs a change while clients ask.
fn under_load(lab: &mut Lab, change: impl FnOnce(&mut Lab) -> Result<()>) -> Result<String> {
    let load = load(lab)?;
    let changed = change(lab);
    let outcome = load.finish();
    changed?;
    outcome
}

/// Every pod of a Deployment is replaced.
pub(crate) fn pods_rolled(lab: &mut Lab) -> Result<String> {
    under_load(lab, |lab| {
        lab.kubectl(&["rollout", "restart", "deployment/web"])?;
        lab.rolled_out_here("deployment/web")
    })
}

/// Every agent is replaced, felix first: pods and sessions live on.
pub(crate) fn agents_rolled(lab: &mut Lab) -> Result<String> {
    under_load(lab, |lab| {
        for agent in ["daemonset/manx-felix", "daemonset/manx-bgpd"] {
            lab.kubectl(&["-n", SYSTEM, "rollout", "restart", agent])?;
            lab.rolled_out(SYSTEM, agent)?;
        }
        lab.until(MINUTE, install::conditions_are_true)
    })
}

/// A node is emptied, and taken into use again.
pub(crate) fn node_drained(lab: &mut Lab) -> Result<String> {
    under_load(lab, |lab| {
        lab.kubectl(&["drain", "n3", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"])?;
        lab.kubectl(&["uncordon", "n3"])?;
        lab.kubectl(&["rollout", "restart", "deployment/web"])?;
        lab.rolled_out_here("deployment/web")
    })
}

fn holder(lab: &Lab) -> Result<String> {
    let lease = lab.json(&["-n", SYSTEM, "get", "lease", "manx-controller"])?;
    let holder = text(&lease, "/spec/holderIdentity");
    ensure!(!holder.is_empty(), "nobody holds the Lease: {lease}");
    Ok(holder.to_owned())
}

/// All addresses of all Services, none of them twice.
fn addresses(lab: &Lab) -> Result<Vec<(String, IpAddr)>> {
    let mut all: Vec<(String, IpAddr)> = Vec::new();
    for service in lab.items(&["get", "services"])? {
        for one in list(&service, "/status/loadBalancer/ingress") {
            let (name, address) = (text(&service, "/metadata/name"), text(one, "/ip").parse()?);
            if let Some((other, _)) = all.iter().find(|(_, known)| *known == address) {
                bail!("{address} is {other}'s and {name}'s");
            }
            all.push((name.to_owned(), address));
        }
    }
    Ok(all)
}

/// The controller that leads is killed; a Service made at that moment gets its address from the other.
pub(crate) fn leader_killed(lab: &mut Lab) -> Result<String> {
    let (leader, before) = (holder(lab)?, addresses(lab)?);
    let pod = leader.split('_').next().unwrap_or_default();
    let node = lab.json(&["-n", SYSTEM, "get", "pod", pod])?;
    let node = text(&node, "/spec/nodeName").to_owned();
    lab.cluster.node(&node)?.run(&["sh", "-c", "kill -9 $(pidof manx-controller)"])?;
    let killed = Instant::now();
    lab.cluster.apply(&service_of("late", "Cluster"))?;
    lab.until(2 * TAKE_OVER, |lab| given(lab, "late"))?;
    let took = killed.elapsed();
    let next = holder(lab)?;
    ensure!(next != leader, "{leader} holds the Lease still");
    ensure!(
        took < TAKE_OVER,
        "taken over after {:.1}s, expected {}s at most",
        took.as_secs_f64(),
        TAKE_OVER.as_secs()
    );
    let after = addresses(lab)?;
    for one in &before {
        ensure!(after.contains(one), "{} lost {}", one.0, one.1);
    }
    lab.kubectl(&["delete", "service", "late"])?;
    Ok(format!(
        "{:.1}s until the next gave an address, {} addresses as before",
        took.as_secs_f64(),
        before.len()
    ))
}

/// A chart folder whose CRDs have one optional field less: the version before this one.
fn older_crds(lab: &Lab) -> Result<PathBuf> {
    let older = lab.cluster.options().home.join("older-crds.yaml");
    let path = Path::new(&chart()).join("crds/bfdprofiles.yaml");
    let mut crd: serde_json::Value = serde_saphyr::from_str(
        &std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?,
    )?;
    let spec = crd
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .and_then(serde_json::Value::as_object_mut)
        .context("bfdprofiles.yaml: spec has no properties")?;
    spec.remove("passive")
        .context("BFDProfile has no field spec.passive any more: name another optional one")?;
    std::fs::write(&older, crd.to_string())?;
    Ok(older)
}

fn pod_uids(lab: &Lab, component: &str) -> Result<Vec<String>> {
    let selector = format!("app.kubernetes.io/component={component}");
    let pods = lab.items(&["-n", SYSTEM, "get", "pods", "-l", &selector])?;
    let mut uids: Vec<String> = pods.iter().map(|pod| text(pod, "/metadata/uid").to_owned()).collect();
    uids.sort();
    Ok(uids)
}

fn everything_runs(lab: &Lab, version: &str) -> Result<()> {
    for what in ["daemonset/manx-bgpd", "daemonset/manx-felix", "deployment/manx-controller"] {
        lab.rolled_out(SYSTEM, what)?;
    }
    lab.until(MINUTE, |lab| {
        for node in lab.items(&["get", "fabricnodes"])? {
            for agent in list(&node, "/status/agents") {
                let runs = text(agent, "/version");
                ensure!(runs == version, "{}: {agent}, expected {version}", text(&node, "/metadata/name"));
            }
        }
        Ok(())
    })?;
    lab.until(MINUTE, install::conditions_are_true)
}

/// Another version and back while clients ask; bgpd alone first, which leaves felix running.
pub(crate) fn upgraded(lab: &mut Lab) -> Result<String> {
    lab.next_image()?;
    let older = older_crds(lab)?;
    let chart = chart();
    let passive = "{.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.passive}";
    let has_field = |lab: &Lab| -> Result<bool> {
        let found =
            lab.kubectl(&["get", "crd", "bfdprofiles.manx.dev", "-o", &format!("jsonpath={passive}")])?;
        Ok(!found.trim().is_empty())
    };
    under_load(lab, |lab| {
        let felix = pod_uids(lab, "felix")?;
        lab.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &older.to_string_lossy()])?;
        ensure!(!has_field(lab)?, "the older CRD has the field");
        let common = ["upgrade", "manx", &chart, "--timeout", "4m"];
        lab.helm(&[&common[..], &["--set", "bgpd.image.tag=0.1.1"]].concat())?;
        ensure!(has_field(lab)?, "the upgrade did not bring the CRDs up to date");
        lab.rolled_out(SYSTEM, "daemonset/manx-bgpd")?;
        ensure!(pod_uids(lab, "felix")? == felix, "upgrading bgpd replaced felix");
        lab.helm(&[&common[..], &["--set", "image.tag=0.1.1"]].concat())?;
        everything_runs(lab, "0.1.1")?;
        lab.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &older.to_string_lossy()])?;
        lab.helm(&["rollback", "manx", "1", "--timeout", "4m"])?;
        everything_runs(lab, "0.1.0")
    })
}
