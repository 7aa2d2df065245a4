//! The API server is away: what runs goes on, and what ends comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::Node;
use e2e::netns::stdout_of;
use serde_json::Value;

use crate::asks::{Pod, at, list, pods};
use crate::fabric;
use crate::install::conditions_are_true;
use crate::lab::{Lab, SYSTEM};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn fail_static(lab: &mut Lab) -> Result<String> {
    let pods = pods(lab, "web")?;
    lab.cluster.stop_api_server()?;
    let outcome = while_away(lab, &pods);
    lab.cluster.start_api_server()?;
    let seen = outcome?;
    for what in ["daemonset/manx-bgpd", "daemonset/manx-felix", "deployment/manx-controller"] {
        lab.rolled_out(SYSTEM, what)?;
    }
    lab.until(MINUTE, conditions_are_true)?;
    Ok(seen)
}

fn while_away(lab: &Lab, pods: &[Pod]) -> Result<String> {
    everyone_reaches_all(lab, pods).context("before the agents are killed")?;
    for node in lab.cluster.nodes() {
        for agent in ["felix", "bgpd"] {
            let killed =
                node.run(&["sh", "-c", &format!("pids=$(pidof {agent}) && kill -9 $pids && echo $pids")])?;
            ensure!(!killed.trim().is_empty(), "no {agent} on {}", node.name());
        }
    }
    everyone_reaches_all(lab, pods).context("at once after kill -9 of all agents")?;
    for node in lab.cluster.nodes() {
        lab.until(MINUTE, |_| {
            for agent in ["felix", "bgpd"] {
                node.run(&["pidof", agent]).with_context(|| format!("{agent} was not restarted"))?;
            }
            Ok(())
        })?;
    }
    everyone_reaches_all(lab, pods).context("after the agents are back")?;
    let pod = pods.first().context("no pod")?;
    restart_container(lab, lab.cluster.node(&pod.node)?, pod)?;
    everyone_reaches_all(lab, pods).context("after a container was restarted")?;
    Ok(format!("{} pods from {} nodes, through kill -9 of all agents", pods.len(), lab.cluster.nodes().len()))
}

/// From every node to every pod: kubectl is of no use now.
fn everyone_reaches_all(lab: &Lab, pods: &[Pod]) -> Result<()> {
    for node in lab.cluster.nodes() {
        for address in pods.iter().flat_map(|pod| &pod.addresses) {
            let mut command = node.command("timeout")?;
            command.args([
                "3",
                "busybox",
                "wget",
                "-qO-",
                &format!("http://{}/hostname", at(*address, 8080)),
            ]);
            stdout_of(command).with_context(|| format!("{} does not reach {address}", node.name()))?;
        }
    }
    Ok(())
}

/// Ends a container's process; the kubelet starts it again in the same sandbox.
fn restart_container(lab: &Lab, node: &Node, pod: &Pod) -> Result<()> {
    let find = format!("grep -lz '^HOSTNAME={}$' /proc/[0-9]*/environ | cut -d/ -f3", pod.name);
    let processes = || -> Result<Vec<String>> {
        Ok(node.run(&["bash", "-c", &find])?.split_whitespace().map(str::to_owned).collect())
    };
    let before = processes()?;
    ensure!(!before.is_empty(), "no process of {} on {}", pod.name, node.name());
    node.run(&["bash", "-c", &format!("kill -9 {}", before.join(" "))])?;
    lab.until(MINUTE, |_| {
        let now = processes()?;
        ensure!(!now.is_empty() && now.iter().all(|pid| !before.contains(pid)), "{}: {now:?}", pod.name);
        Ok(())
    })?;
    // It answers once it listens.
    lab.until(MINUTE, |lab| everyone_reaches_all(lab, std::slice::from_ref(pod)))
}

/// A node loses power while nobody can be asked: with its power its sessions and blocks are back, and with the API
/// server its pods.
pub(crate) fn power_cut(lab: &mut Lab) -> Result<String> {
    const NODE: &str = "n2";
    let blocks = lab.json(&["get", "fabricnode", NODE])?;
    let block = list(&blocks, "/status/blocks")
        .iter()
        .filter_map(Value::as_str)
        .next()
        .context("no block")?
        .to_owned();
    lab.cluster.stop_api_server()?;
    let outcome = cut_and_back(lab, NODE, &block);
    lab.cluster.start_api_server()?;
    let seen = outcome?;
    lab.cluster.await_ready(2 * MINUTE)?;
    lab.until(2 * MINUTE, |lab| {
        let pods = pods(lab, "web")?;
        ensure!(pods.iter().any(|pod| pod.node == NODE), "no pod on {NODE}");
        everyone_reaches_all(lab, &pods)
    })?;
    lab.until(MINUTE, conditions_are_true)?;
    Ok(seen)
}

fn cut_and_back(lab: &mut Lab, name: &str, block: &str) -> Result<String> {
    lab.cluster.node_mut(name)?.power_cut()?;
    lab.until(MINUTE, |lab| {
        let ways = fabric::ways(lab, block)?;
        ensure!(ways == 0, "a ToR has {ways} ways to {block} of {name}, which is off");
        Ok(())
    })?;
    lab.cluster.node_mut(name)?.power_on()?;
    let began = std::time::Instant::now();
    lab.until(2 * MINUTE, |lab| {
        let ways = fabric::ways(lab, block)?;
        ensure!(ways == 1, "a ToR has {ways} ways to {block} of {name}, which is on again");
        Ok(())
    })?;
    Ok(format!("{block} back {:.1}s after power, without the API server", began.elapsed().as_secs_f64()))
}
