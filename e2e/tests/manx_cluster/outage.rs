//! The API server is away: what runs goes on, and what ends comes back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::cluster::Node;
use e2e::netns::stdout_of;
use serde_json::Value;

use crate::asks::{self, Pod, at, list, pods};
use crate::fabric;
use crate::install::conditions_are_true;
use crate::lab::{Lab, SYSTEM};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn fail_static(lab: &mut Lab) -> Result<String> {
    let pods = pods(lab, "web")?;
    remembered(lab, &pods)?;
    lab.cluster.stop_api_server()?;
    let outcome = while_away(lab, &pods);
    lab.cluster.start_api_server()?;
    let seen = outcome?;
    for what in ["daemonset/manx-bgpd", "daemonset/manx-felix", "deployment/manx-controller"] {
        lab.rolled_out(SYSTEM, what)?;
    }
    lab.until(MINUTE, conditions_are_true)?;
    // A new sandbox has new addresses, which the API server hears of only now.
    lab.until(MINUTE, |lab| everyone_reaches_all(lab, &asks::pods(lab, "web")?))
        .context("once it is back")?;
    Ok(seen)
}

/// felix writes down what it heard once a minute, for the time when nobody can be asked: a pod that is younger than
/// that has no second sandbox until the API server is back.
fn remembered(lab: &Lab, pods: &[Pod]) -> Result<()> {
    lab.until(2 * MINUTE, |lab| {
        for pod in pods {
            let line = format!("grep -qa {} /var/lib/manx/felix/inputs*", pod.name);
            lab.cluster.node(&pod.node)?.run(&["sh", "-c", &line]).context("not written down")?;
        }
        Ok(())
    })
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
    let pod = pods.last().context("no pod")?;
    let took = kill_sandbox(lab, lab.cluster.node(&pod.node)?, pod)?;
    Ok(format!(
        "{} pods from {} nodes, through kill -9 of all agents; a sandbox made again in {:.1}s",
        pods.len(),
        lab.cluster.nodes().len(),
        took.as_secs_f64()
    ))
}

/// Ends a pod's sandbox: the kubelet makes another, whose ADD felix has to answer from what it knows and holds. How
/// long that took.
fn kill_sandbox(lab: &Lab, node: &Node, pod: &Pod) -> Result<Duration> {
    let filter =
        format!("labels.\"io.kubernetes.pod.name\"=={},labels.\"io.cri-containerd.kind\"==sandbox", pod.name);
    let running = || -> Result<Vec<String>> {
        let tasks = node.run(&["ctr", "-n", "k8s.io", "tasks", "ls"])?;
        let runs = |id: &str| tasks.lines().any(|line| line.starts_with(id) && line.contains("RUNNING"));
        let all = node.run(&["ctr", "-n", "k8s.io", "containers", "ls", "-q", &filter])?;
        Ok(all.split_whitespace().filter(|id| runs(id)).map(str::to_owned).collect())
    };
    let before = running()?;
    let [sandbox] = before.as_slice() else { bail!("{} has sandboxes {before:?}", pod.name) };
    let killed = Instant::now();
    node.run(&["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", sandbox])?;
    lab.until(2 * MINUTE, |_| {
        let now = running()?;
        ensure!(now.len() == 1 && now != before, "{}: sandboxes {now:?}, before {before:?}", pod.name);
        // The pod's own process runs in it, so that its network was made.
        let processes = processes_of(node, pod)?;
        ensure!(!processes.is_empty(), "no process of {} in its new sandbox", pod.name);
        Ok(())
    })?;
    Ok(killed.elapsed())
}

/// Processes of a pod's container, by the name that they were given.
fn processes_of(node: &Node, pod: &Pod) -> Result<Vec<String>> {
    let find = format!("grep -lz '^HOSTNAME={}$' /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3", pod.name);
    Ok(node.run(&["bash", "-c", &find])?.split_whitespace().map(str::to_owned).collect())
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
    let processes = || processes_of(node, pod);
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

/// A node loses power while nobody can be asked. Its kubelet starts no pod without the API server, ours neither: with
/// that, sessions, blocks and pods are back. (What agents do that are started without it, their own tests show.)
pub(crate) fn power_cut(lab: &mut Lab) -> Result<String> {
    const NODE: &str = "n2";
    let node = lab.json(&["get", "fabricnode", NODE])?;
    let block = list(&node, "/status/blocks").iter().find_map(Value::as_str).context("no block")?.to_owned();
    lab.cluster.stop_api_server()?;
    let cut = cut_and_power(lab, NODE, &block);
    lab.cluster.start_api_server()?;
    let began = Instant::now();
    cut?;
    lab.until(2 * MINUTE, |lab| {
        fabric::sessions_are_up(lab)?;
        let ways = fabric::ways(lab, &block)?;
        ensure!(ways == 1, "a ToR has {ways} ways to {block} of {NODE}, which is on again");
        Ok(())
    })?;
    let sessions = began.elapsed();
    lab.cluster.await_ready(2 * MINUTE)?;
    lab.until(2 * MINUTE, |lab| {
        let pods = pods(lab, "web")?;
        ensure!(pods.iter().any(|pod| pod.node == NODE), "no pod on {NODE}");
        everyone_reaches_all(lab, &pods)
    })?;
    let pods = began.elapsed();
    lab.until(MINUTE, conditions_are_true)?;
    let (sessions, pods) = (sessions.as_secs_f64(), pods.as_secs_f64());
    Ok(format!("sessions {sessions:.1}s and all pods {pods:.1}s after the API server was back"))
}

/// The routers hear nothing of it any more; then it has power again.
fn cut_and_power(lab: &mut Lab, name: &str, block: &str) -> Result<()> {
    lab.cluster.node_mut(name)?.power_cut()?;
    lab.until(MINUTE, |lab| {
        let ways = fabric::ways(lab, block)?;
        ensure!(ways == 0, "a ToR has {ways} ways to {block} of {name}, which is off");
        Ok(())
    })?;
    lab.cluster.node_mut(name)?.power_on()
}
