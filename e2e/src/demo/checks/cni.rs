//! 4: one hundred pods, as fast as a runtime that adds them one after the other.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::demo::check::{Verdict, count, some};
use crate::demo::fabric::{Fabric, kernel_routes};
use crate::demo::screen::duration;
use crate::demo::setup::sandbox;
use crate::netns::{self, Netns};
use crate::pod::{Addresses, Sandbox};
use crate::probe;
use crate::process::wait_for;
use crate::topology::{Node, node};

const PODS: u32 = 100;
const POLICY: &str = "networkpolicies.networking.k8s.io/jobs/burst-from-api";
const FROM_API: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: burst-from-api, namespace: jobs}
spec:
  podSelector: {matchLabels: {app: burst}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}
      podSelector: {matchLabels: {app: api}}
";

/// The pods that were added, with how long each call took.
#[derive(Debug, Default)]
pub(super) struct Run {
    added: Vec<(Sandbox, Addresses)>,
    took: Vec<Duration>,
    /// Kept open: what a policy let through late is found here.
    servers: Vec<(String, UdpSocket)>,
}

pub(super) fn add(fabric: &mut Fabric) -> Result<Verdict> {
    let node = node("n1").context("n1")?;
    let sandboxes = prepare(fabric, node)?;
    fabric.objects.put(POLICY, FROM_API)?;
    let mut run = Run::default();
    let mut failures = Vec::new();
    let mut burst = sandboxes.into_iter();
    let canary = burst.next().context("no canary")?;
    if let Err(why) = policy_known(fabric, node, &canary, &mut run) {
        fabric.notes.cni = Some(run);
        return Ok(Verdict::fail(format!("{why:#}")));
    }
    run.took.clear();
    for sandbox in burst {
        if let Err(why) = add_one(fabric, node, &sandbox, &mut run) {
            failures.push(format!("{}: {why:#}", sandbox.name));
        }
        if crate::interrupt::requested() {
            break;
        }
    }
    failures.extend(late(&run.servers)?);
    let mut sorted = run.took.clone();
    sorted.sort_unstable();
    let (p50, p99) = (percentile(&sorted, 50), percentile(&sorted, 99));
    fabric.notes.cni = Some(run);
    let good = usize::try_from(PODS)?.saturating_sub(failures.len());
    let verdict = if failures.is_empty() && sorted.len() == usize::try_from(PODS)? {
        Verdict::ok(format!("p50 {}  p99 {}  n={PODS}", millis(p50), millis(p99)))
    } else {
        Verdict::fail(format!("{good} of {PODS}; {}", some(&failures)))
    };
    Ok(verdict
        .with("n", count(sorted.len()))
        .with("p50Seconds", p50.as_secs_f64())
        .with("p99Seconds", p99.as_secs_f64()))
}

/// Latencies keep their tenth of a millisecond.
fn millis(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1}ms", time.as_secs_f64() * 1000.0)
    } else {
        duration(time)
    }
}

/// The nearest-rank percentile of a sorted list.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Namespaces and Pod objects of one canary and a hundred.
fn prepare(fabric: &Fabric, node: Node) -> Result<Vec<Sandbox>> {
    let sandboxes: Vec<Sandbox> = (0..=PODS)
        .map(|number| sandbox(&fabric.scope, "jobs", &format!("burst-{number}"), 1000 + number))
        .collect();
    let lines: String =
        sandboxes.iter().map(|sandbox| format!("netns add {}\n", sandbox.netns.name())).collect();
    netns::batch(&[], &lines)?;
    for sandbox in &sandboxes {
        sandbox.netns.ip("link set lo up\n")?;
        fabric.objects.put_pod("jobs", &sandbox.name, &sandbox.uid, node.name, "burst")?;
    }
    Ok(sandboxes)
}

/// Adds the canary and waits until the policy is in force on it; from then on every ADD must wait for it.
fn policy_known(fabric: &Fabric, node: Node, canary: &Sandbox, run: &mut Run) -> Result<()> {
    let server = listen(&canary.netns)?;
    let (addresses, took) = fabric.runtime(node).add(canary)?;
    run.added.push((canary.clone(), addresses));
    run.took.push(took);
    let known =
        wait_for(Duration::from_secs(5), || at_once(fabric, &server, addresses).is_ok().then_some(()));
    known.context("jobs/burst-from-api is not in force on burst-0 5s after its file")
}

/// ADD, then two packets at once.
fn add_one(fabric: &Fabric, node: Node, sandbox: &Sandbox, run: &mut Run) -> Result<()> {
    let server = listen(&sandbox.netns)?;
    let (addresses, took) = fabric.runtime(node).add(sandbox)?;
    run.added.push((sandbox.clone(), addresses));
    run.took.push(took);
    let arrived = at_once(fabric, &server, addresses);
    run.servers.push((sandbox.name.clone(), server));
    arrived
}

/// Pods at which more arrived than the allowed packets that were read.
fn late(servers: &[(String, UdpSocket)]) -> Result<Vec<String>> {
    let mut late = Vec::new();
    for (name, server) in servers {
        server.set_nonblocking(true)?;
        if let Ok((_, from)) = server.recv_from(&mut [0u8; 16]) {
            late.push(format!("{name}: a packet from {from}, which the policy refuses, arrived late"));
        }
    }
    Ok(late)
}

fn listen(netns: &Netns) -> Result<UdpSocket> {
    netns.run(|| {
        let socket = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, probe::PORT)))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(socket)
    })
}

/// In each family one packet from web-1, which the policy refuses, then one from api-1. Both leave the same node
/// and are delivered in order: once the second is there, the first was dropped or is there too.
fn at_once(fabric: &Fabric, server: &UdpSocket, addresses: Addresses) -> Result<()> {
    for target in addresses.both() {
        let target = SocketAddr::new(target, probe::PORT);
        for (pod, word) in [("web-1", b"refused"), ("api-1", b"allowed")] {
            fabric.asker(pod)?.netns.run(|| {
                let socket = UdpSocket::bind(probe::from(None, target))?;
                socket.send_to(word, target).with_context(|| format!("from {pod} to {target}"))?;
                Ok(())
            })?;
        }
        let mut buffer = [0u8; 16];
        let (size, from) =
            server.recv_from(&mut buffer).with_context(|| format!("nothing from api-1 at {target}"))?;
        if buffer.get(..size) != Some(b"allowed".as_slice()) {
            // The second is on its way; it must not be taken for the next family's.
            let _ = server.recv_from(&mut buffer);
            anyhow::bail!("a packet from {from}, which the policy refuses, arrived");
        }
    }
    Ok(())
}

pub(super) fn del(fabric: &mut Fabric) -> Result<Verdict> {
    if fabric.notes.cni.is_none() {
        add(fabric)?;
    }
    let run = fabric.notes.cni.take().unwrap_or_default();
    let node = node("n1").context("n1")?;
    let runtime = fabric.runtime(node);
    let total = run.added.len().saturating_sub(1);
    let mut took = Vec::new();
    let mut failures = Vec::new();
    for (sandbox, _) in &run.added {
        match runtime.del(sandbox) {
            Ok(time) => took.push(time),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    // A runtime repeats a DEL whose answer it lost.
    if let Some((sandbox, _)) = run.added.first()
        && let Err(error) = runtime.del(sandbox)
    {
        failures.push(format!("DEL of what is gone: {error:#}"));
    }
    let begun = Instant::now();
    let mut left = Vec::new();
    wait_for(Duration::from_secs(5), || {
        left = leftovers(fabric, node, &run.added).unwrap_or_else(|error| vec![format!("{error:#}")]);
        left.is_empty().then_some(())
    });
    let freed = begun.elapsed();
    failures.extend(left);
    clean(fabric)?;
    took.sort_unstable();
    let verdict = if total < usize::try_from(PODS)? {
        Verdict::fail(format!("only {total} of {PODS} pods had been added; {}", some(&failures)))
    } else {
        Verdict::counted(total, &failures, "")
    };
    Ok(verdict
        .with("p50Seconds", percentile(&took, 50).as_secs_f64())
        .with("p99Seconds", percentile(&took, 99).as_secs_f64())
        .with("freedSeconds", freed.as_secs_f64()))
}

/// What still holds one of the pods: an allocation, or a route of the node.
fn leftovers(fabric: &Fabric, node: Node, added: &[(Sandbox, Addresses)]) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for block in fabric.objects.blocks()? {
        for allocation in block.spec.allocations {
            if allocation.owner.name.starts_with("burst-") {
                left.push(format!(
                    "{} of {} still {}'s",
                    allocation.ip, block.spec.cidr, allocation.owner.name
                ));
            }
        }
    }
    let routes = kernel_routes(&fabric.scope.netns(node.name))?;
    for (sandbox, addresses) in added {
        for address in addresses.both() {
            let text = address.to_string();
            if routes.iter().any(|route| route.destination == text) {
                left.push(format!("route to {text} of {}", sandbox.name));
            }
        }
    }
    let links = fabric.scope.netns(node.name).ip_json(&["link", "show"])?;
    let pods = fabric.pods_of(node).len();
    let ours = links.as_array().map_or(0, |list| {
        let name = |link: &serde_json::Value| {
            link.get("ifname").and_then(serde_json::Value::as_str).unwrap_or_default().starts_with("manx")
        };
        list.iter().filter(|link| name(link)).count()
    });
    if ours > pods {
        left.push(format!("{} interfaces manx… too many", ours - pods));
    }
    Ok(left)
}

fn clean(fabric: &Fabric) -> Result<()> {
    fabric.objects.delete(POLICY)?;
    for number in 0..=PODS {
        fabric.objects.delete(&format!("pods/jobs/burst-{number}"))?;
    }
    let names = netns::list(&format!("{}pod-burst-", fabric.scope.namespaces));
    netns::remove(names.iter().map(String::as_str))
}
