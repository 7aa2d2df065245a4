//! 5: a daemon is killed while packets flow through its node.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::demo::check::{Verdict, count, thousands};
use crate::demo::fabric::{Fabric, KernelRoute, kernel_routes, ruleset};
use crate::demo::screen::duration;
use crate::demo::setup::{await_socket, sandbox};
use crate::netns::Netns;
use crate::process::wait_for;
use crate::stream::{Flow, Outcome, Stream};
use crate::topology::{Node, TORS, node};

/// From the first packet to the last: one second before, two dead, the rest while it starts.
const TRAFFIC: Duration = Duration::from_secs(8);
const BEFORE: Duration = Duration::from_secs(1);
const DEAD: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);
/// Two senders of 500 packets/s each.
const INTERVAL: Duration = Duration::from_millis(2);

/// What the end of bgpd came to.
#[derive(Debug)]
pub(super) struct BgpdCrash {
    lost: usize,
    sent: usize,
    kept: Result<usize, String>,
    established: Option<Duration>,
}

/// What the end of felix came to.
#[derive(Debug)]
pub(super) struct FelixCrash {
    lost: usize,
    sent: usize,
    adopted: Result<String, String>,
}

/// 1,000 packets/s through n1: from web-2 and from the client to web-1 and back, eight flows each, half IPv6.
fn traffic(fabric: &Fabric) -> Result<[Stream; 2]> {
    let targets = fabric.pod("web-1")?.targets();
    let web = fabric.asker("web-2")?;
    let client = fabric.client_asker();
    let flows = |sources: [std::net::IpAddr; 2]| -> Vec<Flow> {
        (0..8u16)
            .zip(targets.iter().zip(sources).cycle())
            .map(|(index, (target, source))| Flow {
                local: SocketAddr::new(source, 40_200 + index),
                remote: *target,
            })
            .collect()
    };
    let addresses = fabric.pod("web-2")?.addresses.both();
    let [v4, v6] = client.bind;
    let own = [v4.context("client")?, v6.context("client")?];
    Ok([
        Stream::start(&web.netns, flows(addresses), INTERVAL)?,
        Stream::start(&client.netns, flows(own), INTERVAL)?,
    ])
}

fn finish(streams: [Stream; 2]) -> Result<(usize, usize, Vec<Outcome>)> {
    let mut outcomes = Vec::new();
    for stream in streams {
        outcomes.push(stream.finish()?);
    }
    let lost = outcomes.iter().map(Outcome::lost).sum();
    let sent = outcomes.iter().map(|outcome| outcome.packets.len()).sum();
    Ok((lost, sent, outcomes))
}

fn losses(lost: usize, sent: usize) -> Verdict {
    let seen = format!("{} of {} packets lost", thousands(lost), thousands(sent));
    let verdict = if lost == 0 && sent > 0 { Verdict::ok(seen) } else { Verdict::fail(seen) };
    verdict.with("lostPackets", count(lost)).with("sentPackets", count(sent))
}

pub(super) fn bgpd_loss(fabric: &mut Fabric) -> Result<Verdict> {
    let crash = bgpd_crash(fabric)?;
    Ok(losses(crash.lost, crash.sent))
}

pub(super) fn bgpd_routes(fabric: &mut Fabric) -> Result<Verdict> {
    let crash = bgpd_crash(fabric)?;
    Ok(match (&crash.kept, crash.established) {
        (Ok(routes), Some(took)) => {
            Verdict::ok(format!("{routes} of {routes}; Established after {}", duration(took)))
                .with("routes", count(*routes))
                .with("establishedSeconds", took.as_secs_f64())
        }
        (Ok(routes), None) => {
            Verdict::fail(format!("{routes} routes kept; no two sessions within 20s of the start"))
        }
        (Err(why), _) => Verdict::fail(why.clone()),
    })
}

fn bgpd_crash(fabric: &mut Fabric) -> Result<&BgpdCrash> {
    if fabric.notes.bgpd_crash.is_none() {
        let crash = kill_bgpd(fabric)?;
        fabric.notes.bgpd_crash = Some(crash);
    }
    fabric.notes.bgpd_crash.as_ref().context("no crash")
}

fn kill_bgpd(fabric: &mut Fabric) -> Result<BgpdCrash> {
    let n1 = node("n1").context("n1")?;
    let netns = fabric.scope.netns(n1.name);
    let before = kernel_routes(&netns)?;
    let resets = connections(fabric, n1)?;
    let monitor = RouteMonitor::start(&netns, fabric.places.logs.join("5.2.routes.log"))?;
    let streams = traffic(fabric)?;
    let begun = Instant::now();
    thread::sleep(BEFORE);
    fabric.daemons(n1.name)?.bgpd.kill()?;
    thread::sleep(DEAD);
    let dead = kernel_routes(&netns)?;
    // A crashed process leaves its socket; the next one must replace it.
    let started = fabric.launch("bgpd", n1).start()?;
    let restarted = started.started();
    fabric.daemons(n1.name)?.bgpd = started;
    let established = wait_for(PATIENCE, || (back(fabric, n1, &resets).ok()?).then(|| restarted.elapsed()));
    thread::sleep((begun + TRAFFIC).saturating_duration_since(Instant::now()));
    let (lost, sent, _) = finish(streams)?;
    let after = kernel_routes(&netns)?;
    let deleted = monitor.deletions()?;
    let kept = same(&before, &dead, "while bgpd was dead")
        .and_then(|()| same(&before, &after, "after it came back"))
        .and_then(|()| match deleted.first() {
            None => Ok(learned(&before)),
            Some(line) => Err(format!("{} routes were deleted in between, first: {line}", deleted.len())),
        });
    Ok(BgpdCrash { lost, sent, kept, established })
}

/// Routes that bgpd learned from others: neither blackholes nor those to its own pods.
fn learned(routes: &[KernelRoute]) -> usize {
    routes.iter().filter(|route| route.destination != "default" && route.hops.len() > 1).count()
}

fn same(before: &[KernelRoute], now: &[KernelRoute], when: &str) -> Result<(), String> {
    if before == now {
        return Ok(());
    }
    let gone: Vec<&str> =
        before.iter().filter(|route| !now.contains(route)).map(|route| route.destination.as_str()).collect();
    let new: Vec<&str> =
        now.iter().filter(|route| !before.contains(route)).map(|route| route.destination.as_str()).collect();
    Err(format!("routes {when}: gone or changed {gone:?}, new or changed {new:?}"))
}

/// How often each ToR has established a session with the node.
fn connections(fabric: &Fabric, node: Node) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for (tor, router) in &fabric.routers()?.tors {
        let sessions = router.sessions()?;
        all.push(sessions.get(&node.link_v4(*tor).to_string()).map_or(0, |session| session.established));
    }
    Ok(all)
}

/// Whether both ToRs established a new session since, in both families. A dynamic neighbour may be a new one.
fn back(fabric: &Fabric, node: Node, before: &[u64]) -> Result<bool> {
    for ((tor, router), old) in fabric.routers()?.tors.iter().zip(before) {
        let sessions = router.sessions()?;
        let Some(session) = sessions.get(&node.link_v4(*tor).to_string()) else { return Ok(false) };
        let renewed = session.established != *old || session.uptime < DEAD;
        if session.families != 2 || !renewed {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `ip monitor route` in a namespace.
struct RouteMonitor {
    child: std::process::Child,
    log: std::path::PathBuf,
}

impl RouteMonitor {
    fn start(netns: &Netns, log: std::path::PathBuf) -> Result<Self> {
        let file = fs::File::create(&log)?;
        let mut command = netns.command("ip");
        let child = command
            .args(["-o", "monitor", "route"])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()?;
        // It must listen before anything happens.
        thread::sleep(Duration::from_millis(100));
        Ok(Self { child, log })
    }

    /// Learned routes that were deleted. A replaced route is announced, not deleted.
    fn deletions(mut self) -> Result<Vec<String>> {
        self.child.kill()?;
        self.child.wait()?;
        let text = fs::read_to_string(&self.log)?;
        Ok(text
            .lines()
            .filter(|line| line.starts_with("Deleted") && line.contains("proto 77"))
            .map(str::to_owned)
            .collect())
    }
}

pub(super) fn felix_loss(fabric: &mut Fabric) -> Result<Verdict> {
    let crash = felix_crash(fabric)?;
    Ok(losses(crash.lost, crash.sent))
}

pub(super) fn felix_adopts(fabric: &mut Fabric) -> Result<Verdict> {
    let crash = felix_crash(fabric)?;
    Ok(match &crash.adopted {
        Ok(seen) => Verdict::ok(seen.clone()),
        Err(why) => Verdict::fail(why.clone()),
    })
}

fn felix_crash(fabric: &mut Fabric) -> Result<&FelixCrash> {
    if fabric.notes.felix_crash.is_none() {
        let crash = kill_felix(fabric)?;
        fabric.notes.felix_crash = Some(crash);
    }
    fabric.notes.felix_crash.as_ref().context("no crash")
}

/// What felix made on its node: its interfaces with their numbers, the routes, the rules.
#[derive(Debug, PartialEq)]
struct Made {
    links: Vec<(String, u64)>,
    routes: Vec<KernelRoute>,
    rules: Value,
}

fn made(netns: &Netns) -> Result<Made> {
    let answer = netns.ip_json(&["link", "show"])?;
    let mut links = Vec::new();
    for link in answer.as_array().context("ip link: no list")? {
        let name = link.get("ifname").and_then(Value::as_str).unwrap_or_default();
        if name.starts_with("manx") {
            links.push((name.to_owned(), link.get("ifindex").and_then(Value::as_u64).unwrap_or_default()));
        }
    }
    links.sort();
    Ok(Made { links, routes: kernel_routes(netns)?, rules: ruleset(netns)? })
}

impl Made {
    fn compare(&self, now: &Self, when: &str) -> Result<(), String> {
        if self.links != now.links {
            return Err(format!("interfaces {when}: {:?} instead of {:?}", now.links, self.links));
        }
        same(&self.routes, &now.routes, when)?;
        if self.rules != now.rules {
            return Err(format!("table inet manx {when}: {}", rule_difference(&self.rules, &now.rules)));
        }
        Ok(())
    }
}

impl Made {
    /// As [`Made::compare`], but new routes are welcome.
    fn still_there(&self, now: &Self, when: &str) -> Result<(), String> {
        let routes = now.routes.iter().filter(|route| self.routes.contains(route)).cloned().collect();
        let rules = now.rules.clone();
        self.compare(&Self { links: now.links.clone(), routes, rules }, when)
    }
}

/// The first object of a ruleset that is not in the other.
pub(super) fn rule_difference(before: &Value, now: &Value) -> String {
    let empty = Vec::new();
    let (old, new) = (before.as_array().unwrap_or(&empty), now.as_array().unwrap_or(&empty));
    let gone = old.iter().find(|entry| !new.contains(entry)).map(|entry| format!("gone {entry}"));
    let added = new.iter().find(|entry| !old.contains(entry)).map(|entry| format!("new {entry}"));
    let mut text = [gone, added].into_iter().flatten().collect::<Vec<_>>().join(", ");
    if text.is_empty() {
        "the same objects in another order".clone_into(&mut text);
    }
    text.chars().take(300).collect()
}

fn kill_felix(fabric: &mut Fabric) -> Result<FelixCrash> {
    let n1 = node("n1").context("n1")?;
    let netns = fabric.scope.netns(n1.name);
    let before = made(&netns)?;
    let streams = traffic(fabric)?;
    let begun = Instant::now();
    thread::sleep(BEFORE);
    fabric.daemons(n1.name)?.felix.kill()?;
    thread::sleep(DEAD);
    let dead = made(&netns)?;
    for socket in ["felix.sock", "felix-control.sock"] {
        // What the dead process left must not be taken for the new one's.
        let _ = fs::remove_file(fabric.places.run.join(n1.name).join(socket));
    }
    let started = fabric.launch("felix", n1).start()?;
    fabric.daemons(n1.name)?.felix = started;
    await_socket(fabric, n1.name, "felix", "felix.sock")?;
    let adopted = settled(&netns, &before, Made::compare);
    let served = new_pod(fabric, n1);
    thread::sleep((begun + TRAFFIC).saturating_duration_since(Instant::now()));
    let (lost, sent, _) = finish(streams)?;
    // A new pod may lead to a new block, never to the loss of anything.
    let after = settled(&netns, &before, Made::still_there);
    let pods = fabric.pods_of(n1).len();
    let adopted = before
        .compare(&dead, "while felix was dead")
        .and(adopted)
        .and(served.map_err(|error| format!("a new pod: {error:#}")))
        .and(after)
        .and_then(|()| {
            let links = before.links.len();
            if links == pods { Ok(()) } else { Err(format!("{links} interfaces for {pods} pods")) }
        })
        .map(|()| format!("{pods} pods, ruleset unchanged"));
    Ok(FelixCrash { lost, sent, adopted })
}

/// Compares until it is as it should be, and once more a second later: nothing may be taken away late.
fn settled(
    netns: &Netns,
    before: &Made,
    compare: fn(&Made, &Made, &str) -> Result<(), String>,
) -> Result<(), String> {
    let look = || {
        made(netns)
            .map_err(|error| format!("{error:#}"))
            .and_then(|now| compare(before, &now, "after it came back"))
    };
    let mut last = Ok(());
    wait_for(Duration::from_secs(5), || {
        last = look();
        last.is_ok().then_some(())
    });
    last?;
    thread::sleep(Duration::from_secs(1));
    look()
}

/// A pod that comes after the restart: it is served, and with an address that no pod has.
fn new_pod(fabric: &Fabric, node: Node) -> Result<()> {
    let sandbox = sandbox(&fabric.scope, "jobs", "after-crash", 2000);
    fabric.objects.put_pod("jobs", &sandbox.name, &sandbox.uid, node.name, "after")?;
    Netns::create(sandbox.netns.name())?;
    let runtime = fabric.runtime(node);
    let added = runtime.add(&sandbox);
    let deleted = runtime.del(&sandbox);
    fabric.objects.delete("pods/jobs/after-crash")?;
    crate::netns::remove([sandbox.netns.name()])?;
    let (addresses, _) = added?;
    deleted?;
    let taken =
        fabric.pods.iter().find(|pod| pod.addresses.both().iter().any(|own| addresses.both().contains(own)));
    match taken {
        Some(pod) => anyhow::bail!("it got an address of {}", pod.sandbox.name),
        None => Ok(()),
    }
}

/// The links that traffic to and from a node may take, with the packets that came in on them.
pub(super) fn received(fabric: &Fabric, node: Node) -> Result<Vec<u64>> {
    let netns = fabric.scope.netns(node.name);
    let mut counters = Vec::new();
    for tor in TORS {
        let answer = netns.ip_json(&["-s", "link", "show", "dev", tor.uplink()])?;
        let packets = answer.pointer("/0/stats64/rx/packets").and_then(Value::as_u64);
        counters.push(packets.with_context(|| format!("packets on {} of {}", tor.uplink(), node.name))?);
    }
    Ok(counters)
}
