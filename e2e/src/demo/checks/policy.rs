//! 3: NetworkPolicy, from a file to a verdict on packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::demo::check::{Verdict, count};
use crate::demo::fabric::{Asker, Fabric, Question, Want, ask};
use crate::demo::screen::duration;
use crate::probe;
use crate::process::wait_for;
use crate::stream::{Flow, KeptConnection, Stream};

/// For a question that is to be answered, and for one that is to stay without an answer.
const ANSWER: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_millis(900);
/// Ten times the goal of half a second.
const IN_FORCE: Duration = Duration::from_secs(5);

const OBJECT: &str = "networkpolicies.networking.k8s.io/shop/db-from-api";
const POLICY: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-from-api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector: {matchLabels: {app: api}}
    ports:
    - {port: 5432, protocol: TCP}
    - {port: 5432, protocol: UDP}
";

pub(super) fn open(fabric: &mut Fabric) -> Result<Verdict> {
    let questions = to_db(fabric, |_| true)?;
    let failures = ask(&questions, Want::Answer, ANSWER);
    Ok(Verdict::counted(questions.len(), &failures, ": the next check can fail"))
}

pub(super) fn refuses(fabric: &mut Fabric) -> Result<Verdict> {
    let took = put_and_wait(fabric)?;
    let questions = to_db(fabric, |asker| asker.name != "api-1")?;
    let failures = ask(&questions, Want::Silence, SILENCE);
    let verdict = Verdict::counted(questions.len(), &failures, "");
    Ok(match took {
        Some(took) => verdict.with("inForceSeconds", took.as_secs_f64()),
        None => Verdict::fail(format!("web-1 still gets an answer 5s after the file; {}", verdict.seen)),
    })
}

pub(super) fn lets_through(fabric: &mut Fabric) -> Result<Verdict> {
    if !fabric.objects.path(OBJECT).exists() && put_and_wait(fabric)?.is_none() {
        return Ok(Verdict::skip("shop/db-from-api is not in force"));
    }
    let questions = to_db(fabric, |asker| asker.name == "api-1")?;
    let failures = ask(&questions, Want::Answer, ANSWER);
    Ok(Verdict::counted(questions.len(), &failures, ""))
}

pub(super) fn open_again(fabric: &mut Fabric) -> Result<Verdict> {
    if !fabric.objects.path(OBJECT).exists() && put_and_wait(fabric)?.is_none() {
        return Ok(Verdict::skip("shop/db-from-api was not in force"));
    }
    let begun = Instant::now();
    fabric.objects.delete(OBJECT)?;
    let answered = wait_for(IN_FORCE, || answers(fabric, "web-1", "db-1").then(|| begun.elapsed()));
    let questions = to_db(fabric, |_| true)?;
    let failures = ask(&questions, Want::Answer, ANSWER);
    let verdict = Verdict::counted(questions.len(), &failures, "");
    Ok(match answered {
        Some(took) => {
            verdict.and(&format!(", after {}", duration(took))).with("openSeconds", took.as_secs_f64())
        }
        None => {
            Verdict::fail(format!("web-1 gets no answer 5s after the policy's removal; {}", verdict.seen))
        }
    })
}

/// Writes the policy; how long until web-1 is refused.
fn put_and_wait(fabric: &Fabric) -> Result<Option<Duration>> {
    let begun = Instant::now();
    fabric.objects.put(OBJECT, POLICY)?;
    Ok(wait_for(IN_FORCE, || (!answers(fabric, "web-1", "db-1")).then(|| begun.elapsed())))
}

/// Whether one UDP question, asked once, is answered within 100 ms.
pub(super) fn answers(fabric: &Fabric, from: &str, to: &str) -> bool {
    let ask = || -> Result<bool> {
        let asker = fabric.asker(from)?;
        let [target, _] = fabric.pod(to)?.targets();
        let local = probe::from(None, target);
        let seen = asker.netns.run(|| probe::exchange_udp(local, target, Duration::from_millis(300)))?;
        Ok(seen.is_some())
    };
    ask().unwrap_or(false)
}

fn to_db(fabric: &Fabric, wanted: impl Fn(&Asker) -> bool) -> Result<Vec<Question>> {
    let db = fabric.pod("db-1")?;
    Ok(fabric
        .everybody_but("db-1")?
        .iter()
        .filter(|asker| wanted(asker))
        .flat_map(|asker| Question::both(asker, db))
        .collect())
}

const CUT: &str = "networkpolicies.networking.k8s.io/shop/db-not-from-web-1";
/// Everybody who talks to db-1, but web-1: the client by its addresses, the pods by a label.
const NOT_FROM_WEB_1: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-not-from-web-1, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - namespaceSelector: {}
      podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [web-1]}]}
    - ipBlock: {cidr: 198.51.100.0/24}
    - ipBlock: {cidr: \"fd00:c::/64\"}
";

pub(super) fn cuts(fabric: &mut Fabric) -> Result<Verdict> {
    let [target, _] = fabric.pod("db-1")?.targets();
    let victim = fabric.asker("web-1")?;
    let kept = KeptConnection::start(&victim.netns, probe::from(None, target), target)?;
    let mut others = Vec::new();
    for asker in fabric.everybody_but("db-1")?.into_iter().filter(|asker| asker.name != "web-1") {
        let [source, _] = asker.bind;
        let local = SocketAddr::new(source.unwrap_or(any_like(target)), 40_100);
        let stream =
            Stream::start(&asker.netns, vec![Flow { local, remote: target }], Duration::from_millis(10))?;
        others.push((asker.name, stream));
    }
    thread::sleep(Duration::from_millis(500));
    let before = kept.last_answer();
    let begun = Instant::now();
    let alive = begun.duration_since(before) < Duration::from_millis(400);
    fabric.objects.put(CUT, NOT_FROM_WEB_1)?;
    // Silent for a second: cut. TCP would have sent a lost segment again after 200 ms.
    let silent = wait_for(IN_FORCE + Duration::from_secs(1), || {
        (kept.last_answer().elapsed() > Duration::from_secs(1)).then(|| kept.last_answer())
    });
    let mut losses = Vec::new();
    let (mut packets, mut lost) = (0, 0);
    for (name, stream) in others {
        let outcome = stream.finish()?;
        packets += outcome.packets.len();
        lost += outcome.lost();
        if outcome.lost() > 0 || outcome.packets.is_empty() {
            losses.push(format!("{name} lost {} of {}", outcome.lost(), outcome.packets.len()));
        }
    }
    fabric.objects.delete(CUT)?;
    let open = wait_for(IN_FORCE, || answers(fabric, "web-1", "db-1").then_some(()));
    open.context("web-1 does not reach db-1 again 5s after the policy's removal")?;
    let cut = silent.map(|last| last.saturating_duration_since(begun));
    Ok(match cut {
        _ if !alive => Verdict::fail("web-1's connection was silent before the change"),
        None => Verdict::fail("web-1's connection was still answered 6s after the change"),
        Some(_) if !losses.is_empty() => Verdict::fail(losses.join("; ")),
        Some(took) => Verdict::ok(format!("after {}; 5 others lost 0 packets", duration(took)))
            .with("cutSeconds", took.as_secs_f64())
            .with("packets", count(packets)),
    }
    .with("lostPackets", count(lost)))
}

fn any_like(remote: SocketAddr) -> IpAddr {
    if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
