//! 6: a cable is pulled, and put back.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::demo::check::{Verdict, count, some};
use crate::demo::fabric::Fabric;
use crate::demo::screen::duration;
use crate::process::wait_for;
use crate::stream::{Flow, Outcome, Stream};
use crate::topology::{Node, node};

use super::crash::received;
use super::routes::nodes_lack;

const FLOWS: u16 = 16;
/// Each flow sends one packet every 10 ms.
const EACH: Duration = Duration::from_millis(10);
/// The promise, and how long a flow is watched.
const BOUND: Duration = Duration::from_secs(1);
const WATCHED: Duration = Duration::from_secs(4);
const BACK: Duration = Duration::from_secs(20);

/// Sixteen flows from web-2 on n2 to web-1 on n1, half of them IPv6, each its own source port.
fn flows(fabric: &Fabric) -> Result<Stream> {
    let targets = fabric.pod("web-1")?.targets();
    let sources = fabric.pod("web-2")?.addresses.both();
    let flows = (1..=FLOWS)
        .zip(targets.iter().zip(sources).cycle())
        .map(|(index, (target, source))| Flow {
            local: SocketAddr::new(source, 40_000 + index),
            remote: *target,
        })
        .collect();
    Stream::start(&fabric.asker("web-2")?.netns, flows, EACH / u32::from(FLOWS))
}

pub(super) fn cut(fabric: &mut Fabric) -> Result<Verdict> {
    let n1 = node("n1").context("n1")?;
    let netns = fabric.scope.netns(n1.name);
    let before = received(fabric, n1)?;
    let stream = flows(fabric)?;
    thread::sleep(Duration::from_secs(1));
    let carried = carried(&before, &received(fabric, n1)?);
    let cut = Instant::now();
    netns.ip("link set eth0 down\n")?;
    thread::sleep(WATCHED);
    let outcome = stream.finish()?;
    let verdict = judge(&outcome, cut);
    // With every flow on the other uplink the cut would have cost nothing, and proved nothing.
    Ok(if carried.iter().all(|packets| *packets > 100) {
        verdict
    } else {
        Verdict::fail(format!(
            "before the cut the uplinks carried {carried:?} packets: no ECMP; {}",
            verdict.seen
        ))
    }
    .with("lostPackets", count(outcome.lost())))
}

fn judge(outcome: &Outcome, cut: Instant) -> Verdict {
    let recovery = outcome.recovery(cut);
    let late: Vec<String> = recovery
        .iter()
        .zip(&outcome.flows)
        .filter(|(time, _)| time.is_none_or(|time| time > BOUND))
        .map(|(_, flow)| flow.local.port().to_string())
        .collect();
    let slowest = recovery.iter().flatten().max().copied().unwrap_or_default();
    let good = recovery.len() - late.len();
    let verdict = if late.is_empty() {
        Verdict::ok(format!("after {}, slowest of {} flows", duration(slowest), recovery.len()))
    } else {
        Verdict::fail(format!(
            "{good} of {} within 1s; slowest {}; {} not within {}s (source ports {})",
            recovery.len(),
            duration(slowest),
            recovery.iter().filter(|time| time.is_none()).count(),
            WATCHED.as_secs(),
            some(&late)
        ))
    };
    verdict.with("slowestSeconds", slowest.as_secs_f64())
}

fn carried(before: &[u64], after: &[u64]) -> Vec<u64> {
    after.iter().zip(before).map(|(new, old)| new.saturating_sub(*old)).collect()
}

pub(super) fn back(fabric: &mut Fabric) -> Result<Verdict> {
    let n1 = node("n1").context("n1")?;
    let netns = fabric.scope.netns(n1.name);
    if is_up(fabric, n1)? {
        netns.ip("link set eth0 down\n")?;
        thread::sleep(Duration::from_secs(2));
    }
    let blocks = fabric.blocks()?;
    let (_, lacking) = nodes_lack(fabric, &blocks);
    if lacking.is_empty() {
        netns.ip("link set eth0 up\n")?;
        return Ok(Verdict::fail("with the uplink down every route still had two next hops"));
    }
    let begun = Instant::now();
    netns.ip("link set eth0 up\n")?;
    let mut failures = Vec::new();
    let whole = wait_for(BACK, || {
        (_, failures) = nodes_lack(fabric, &blocks);
        failures.is_empty().then(|| begun.elapsed())
    });
    let Some(took) = whole else {
        return Ok(Verdict::fail(format!("20s after the uplink is back: {}", some(&failures))));
    };
    let before = received(fabric, n1)?;
    let stream = flows(fabric)?;
    thread::sleep(Duration::from_millis(500));
    let outcome = stream.finish()?;
    let carried = carried(&before, &received(fabric, n1)?);
    Ok(if outcome.lost() > 0 {
        Verdict::fail(format!(
            "two next hops again after {}, then {} packets lost",
            duration(took),
            outcome.lost()
        ))
    } else if carried.iter().any(|packets| *packets < 50) {
        Verdict::fail(format!(
            "two next hops again after {}, but the uplinks carry {carried:?} packets",
            duration(took)
        ))
    } else {
        Verdict::ok(format!("after {}", duration(took)))
    }
    .with("backSeconds", took.as_secs_f64()))
}

fn is_up(fabric: &Fabric, node: Node) -> Result<bool> {
    let answer = fabric.scope.netns(node.name).ip_json(&["link", "show", "dev", "eth0"])?;
    let flags = answer.pointer("/0/flags").and_then(serde_json::Value::as_array).context("flags of eth0")?;
    Ok(flags.iter().any(|flag| flag.as_str() == Some("UP")))
}
