//! 7: what people get wrong, where they see it, and that nothing else is disturbed.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::demo::check::{Verdict, count, some};
use crate::demo::fabric::{Fabric, KernelRoute, LogMark, Question, Want, ask, kernel_routes, ruleset};
use crate::demo::setup::sandbox;
use crate::netns::{self, Netns};
use crate::pod;
use crate::probe;
use crate::process::wait_for;
use crate::store;
use crate::topology::{CLIENT_V4, NODES, TORS, node};

use super::crash::rule_difference;
use super::policy::answers;

const PATIENCE: Duration = Duration::from_secs(15);

/// What 7.6 compares.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// By ToR and node: families, times established.
    sessions: BTreeMap<String, (usize, u64)>,
    routes: BTreeMap<&'static str, Vec<KernelRoute>>,
    rules: BTreeMap<&'static str, Value>,
}

fn snapshot(fabric: &Fabric) -> Result<Snapshot> {
    let mut taken = Snapshot { sessions: BTreeMap::new(), routes: BTreeMap::new(), rules: BTreeMap::new() };
    for (tor, router) in &fabric.routers()?.tors {
        let sessions = router.sessions()?;
        for node in NODES {
            let session = sessions.get(&node.link_v4(*tor).to_string());
            let state = session.map_or((0, 0), |session| (session.families, session.established));
            taken.sessions.insert(format!("{} with {}", tor.name, node.name), state);
        }
        taken.routes.insert(tor.name, kernel_routes(&fabric.scope.netns(tor.name))?);
    }
    for node in NODES {
        let netns = fabric.scope.netns(node.name);
        taken.routes.insert(node.name, kernel_routes(&netns)?);
        taken.rules.insert(node.name, ruleset(&netns)?);
    }
    Ok(taken)
}

impl Snapshot {
    fn differences(&self, now: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (name, state) in &self.sessions {
            if now.sessions.get(name) != Some(state) {
                differences.push(format!("session {name}: {state:?} then, {:?} now", now.sessions.get(name)));
            }
        }
        for (name, routes) in &self.routes {
            if now.routes.get(name) != Some(routes) {
                differences.push(format!("routes of {name}"));
            }
        }
        for (name, rules) in &self.rules {
            match now.rules.get(name) {
                Some(new) if new == rules => {}
                Some(new) => differences.push(format!("rules of {name}: {}", rule_difference(rules, new))),
                None => differences.push(format!("rules of {name}: gone")),
            }
        }
        differences
    }
}

/// Before the first bad input of the run.
fn remember(fabric: &mut Fabric) -> Result<()> {
    if fabric.notes.before_bad_input.is_none() {
        fabric.notes.before_bad_input = Some(snapshot(fabric)?);
    }
    Ok(())
}

pub(super) fn wrong_as(fabric: &mut Fabric) -> Result<Verdict> {
    remember(fabric)?;
    let [tor, _] = TORS;
    let log = LogMark::now(&fabric.log("bgpd", "n1"));
    let more = "  nodeSelector: {matchLabels: {kubernetes.io/hostname: n1}}\n";
    fabric
        .objects
        .put("bgppeers.manx.dev/wrong-as", &store::peer("wrong-as", &tor.v6().to_string(), 65099, more))?;
    let mut report = Err(String::new());
    wait_for(PATIENCE, || {
        report = reason_of(fabric, "wrong-as");
        (report.as_deref() == Ok("BadPeerAS")).then_some(())
    });
    let logged = wait_for(Duration::from_secs(5), || {
        log.lines().into_iter().find(|line| line.contains("wrong-as") && line.contains("BadPeerAS"))
    });
    fabric.objects.delete("bgppeers.manx.dev/wrong-as")?;
    let gone = wait_for(PATIENCE, || reason_of(fabric, "wrong-as").is_err().then_some(()));
    Ok(match (report.as_deref(), logged, gone) {
        (Ok("BadPeerAS"), Some(_), Some(())) => Verdict::ok("BadPeerAS in bgp peers and the log"),
        (Ok("BadPeerAS"), None, _) => {
            Verdict::fail("BadPeerAS in bgp peers, no line in bgpd's log names it and wrong-as")
        }
        (Ok("BadPeerAS"), Some(_), None) => {
            Verdict::fail("the session is still listed 15s after its BGPPeer was removed")
        }
        (Ok(other), _, _) => Verdict::fail(format!("bgp peers says {other:?}")),
        (Err(why), _, _) => Verdict::fail(why),
    })
}

/// The reason of n1's session with that peer, by manxctl.
fn reason_of(fabric: &Fabric, peer: &str) -> Result<String, String> {
    let report = fabric.manxctl_json(&["bgp", "peers"]).map_err(|error| format!("{error:#}"))?;
    let sessions =
        report.get("sessions").and_then(Value::as_array).ok_or("no sessions in manxctl bgp peers")?;
    let text =
        |session: &Value, key: &str| session.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let found =
        sessions.iter().find(|session| text(session, "node") == "n1" && text(session, "peer") == peer);
    found.map(|session| text(session, "reason")).ok_or_else(|| format!("bgp peers lists no {peer} on n1"))
}

const NO_YAML: &str =
    "apiVersion: manx.dev/v1alpha1\nkind: IPPool\nmetadata: }{ name default-ipv4\nspec: {}\n";

pub(super) fn no_yaml(fabric: &mut Fabric) -> Result<Verdict> {
    remember(fabric)?;
    const OBJECT: &str = "ippools.manx.dev/default-ipv4";
    let good = fabric.objects.text(OBJECT)?;
    let logs = [LogMark::now(&fabric.log("bgpd", "n1")), LogMark::now(&fabric.log("felix", "n1"))];
    fabric.objects.put(OBJECT, NO_YAML)?;
    let named = |lines: &[String]| lines.iter().any(|line| line.contains("default-ipv4.yaml:3"));
    let logged =
        wait_for(Duration::from_secs(5), || logs.iter().all(|log| named(&log.lines())).then_some(()));
    let status = fabric.manxctl(&["status"]);
    let served = serve_pod(fabric);
    fabric.objects.put(OBJECT, &good)?;
    let mut failures = Vec::new();
    if logged.is_none() {
        let silent = ["bgpd", "felix"].iter().zip(&logs).filter(|(_, log)| !named(&log.lines()));
        let names: Vec<&str> = silent.map(|(name, _)| *name).collect();
        failures.push(format!("no line with default-ipv4.yaml:3 in the log of {}", names.join(" and ")));
    }
    match status {
        Ok(text) if text.contains("default-ipv4.yaml:3") => {}
        Ok(_) => failures.push("manxctl status does not name default-ipv4.yaml:3".to_owned()),
        Err(error) => failures.push(format!("{error:#}")),
    }
    if let Err(error) = served {
        failures.push(format!("an ADD meanwhile: {error:#}"));
    }
    Ok(if failures.is_empty() {
        Verdict::ok("line 3 named; last good one in force")
    } else {
        Verdict::fail(some(&failures))
    })
}

/// ADD and DEL of one pod on n1.
fn serve_pod(fabric: &Fabric) -> Result<()> {
    let node = node("n1").context("n1")?;
    let sandbox = sandbox(&fabric.scope, "jobs", "meanwhile", 2001);
    fabric.objects.put_pod("jobs", &sandbox.name, &sandbox.uid, node.name, "meanwhile")?;
    Netns::create(sandbox.netns.name())?;
    let runtime = fabric.runtime(node);
    let added = runtime.add(&sandbox);
    let deleted = runtime.del(&sandbox);
    fabric.objects.delete("pods/jobs/meanwhile")?;
    netns::remove([sandbox.netns.name()])?;
    added?;
    deleted?;
    Ok(())
}

const BAD_CIDR: &str = "networkpolicies.networking.k8s.io/jobs/bad-cidr";
const BAD_CIDR_TEXT: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: bad-cidr, namespace: jobs}
spec:
  podSelector: {matchLabels: {pod: job-1}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 10.0.0.300/24}
";

pub(super) fn bad_cidr(fabric: &mut Fabric) -> Result<Verdict> {
    remember(fabric)?;
    if !answers(fabric, "web-1", "job-1") {
        return Ok(Verdict::skip("job-1 did not answer before the policy"));
    }
    let events = fabric.objects.events().len();
    fabric.objects.put(BAD_CIDR, BAD_CIDR_TEXT)?;
    let event = wait_for(PATIENCE, || {
        let all = fabric.objects.events();
        let new = all.get(events..).unwrap_or(&all);
        new.lines()
            .find(|line| line.contains("PolicyRejected") && line.contains("bad-cidr"))
            .map(str::to_owned)
    });
    let mut failures = Vec::new();
    match event {
        None => failures.push("no Event PolicyRejected about bad-cidr within 15s".to_owned()),
        Some(line) if !line.contains("10.0.0.300/24") => {
            failures.push(format!("the Event does not name the CIDR: {line}"))
        }
        Some(_) => {}
    }
    let isolated = wait_for(Duration::from_secs(5), || (!answers(fabric, "web-1", "job-1")).then_some(()));
    if isolated.is_none() {
        failures.push("job-1 still answers web-1".to_owned());
    }
    let from = fabric.everybody_but("job-1")?;
    let job = fabric.pod("job-1")?;
    let questions: Vec<Question> = from.iter().flat_map(|asker| Question::both(asker, job)).collect();
    failures.extend(ask(&questions, Want::Silence, Duration::from_millis(900)));
    if !answers(fabric, "web-1", "job-2") {
        failures.push("job-2, which the policy does not select, is isolated too".to_owned());
    }
    fabric.objects.delete(BAD_CIDR)?;
    if wait_for(Duration::from_secs(5), || answers(fabric, "web-1", "job-1").then_some(())).is_none() {
        failures.push("job-1 does not answer 5s after the policy's removal".to_owned());
    }
    Ok(if failures.is_empty() {
        Verdict::ok("PolicyRejected; pod stays isolated").with("refused", count(questions.len()))
    } else {
        Verdict::fail(some(&failures))
    })
}

pub(super) fn garbage(fabric: &mut Fabric) -> Result<Verdict> {
    remember(fabric)?;
    let n1 = node("n1").context("n1")?;
    let [tor, _] = TORS;
    let log = LogMark::now(&fabric.log("bgpd", n1.name));
    let stranger = throw(&fabric.scope.netns("client"), CLIENT_V4.into(), n1.v4().into());
    let closed = match stranger {
        Ok(closed) => closed,
        Err(error) => return Ok(Verdict::fail(format!("from the client: {error:#}"))),
    };
    // Once more from where the node's own peer lives: its session must not mind.
    let peer = throw(&fabric.scope.netns(tor.name), tor.v4().into(), n1.link_v4(tor).into());
    thread::sleep(Duration::from_millis(300));
    let source = CLIENT_V4.to_string();
    let lines: Vec<String> = log.lines().into_iter().filter(|line| line.contains(&source)).collect();
    Ok(match (peer, lines.len()) {
        (Err(error), _) => Verdict::fail(format!("from tor-a's own address: {error:#}")),
        (Ok(_), 1) => {
            Verdict::ok("closed; 1 log line names the source").with("closedSeconds", closed.as_secs_f64())
        }
        (Ok(_), other) => Verdict::fail(format!("closed; {other} log lines name {source}")),
    })
}

/// Connects to port 179, writes 4 KiB that are no BGP, and waits until the other end closes.
fn throw(netns: &Netns, from: IpAddr, to: IpAddr) -> Result<Duration> {
    let patience = Duration::from_secs(5);
    netns.run(|| {
        let remote = SocketAddr::new(to, 179);
        let connected = probe::connect_tcp(probe::from(Some(from), remote), remote, patience)?;
        let mut stream = connected.with_context(|| format!("{remote} does not answer"))?;
        let begun = Instant::now();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        })
        .take(512)
        .flatten()
        .collect();
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        // Closed already is what is asked for; reading tells.
        let _ = stream.write_all(&noise);
        let mut buffer = [0u8; 4096];
        while begun.elapsed() < patience {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(begun.elapsed()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Ok(begun.elapsed()),
            }
        }
        bail!("{remote} keeps the connection open 5s after 4 KiB of garbage")
    })
}

pub(super) fn cni_config(fabric: &mut Fabric) -> Result<Verdict> {
    remember(fabric)?;
    let node = node("n1").context("n1")?;
    let sandbox = sandbox(&fabric.scope, "shop", "web-1", 2002);
    let call =
        fabric.runtime(node).call("ADD", &sandbox, "{\"cniVersion\": \"1.0.0\",\n \"name\": \"manx\",, }")?;
    let error = match pod::error_of(&call) {
        Ok(error) => error,
        Err(why) => return Ok(Verdict::fail(format!("{why:#}"))),
    };
    let text = format!("{} {}", error.msg, error.details);
    let names = |word: &str| text.to_lowercase().contains(word);
    Ok(if call.success {
        Verdict::fail("exit code 0")
    } else if error.code != 6 {
        Verdict::fail(format!("CNI code {}: {text}", error.code))
    } else if !(names("line 2") && names("column")) {
        Verdict::fail(format!("CNI code 6, without line 2 and column: {text}"))
    } else {
        Verdict::ok("CNI code 6, names line, column")
    })
}

pub(super) fn nothing_else(fabric: &mut Fabric) -> Result<Verdict> {
    if fabric.notes.before_bad_input.is_none() {
        for check in [wrong_as, no_yaml, bad_cidr, garbage, cni_config] {
            check(fabric)?;
        }
    }
    let before = fabric.notes.before_bad_input.take().context("no state from before 7.1")?;
    let mut differences = Vec::new();
    wait_for(Duration::from_secs(5), || {
        differences = match snapshot(fabric) {
            Ok(now) => before.differences(&now),
            Err(error) => vec![format!("{error:#}")],
        };
        differences.is_empty().then_some(())
    });
    let verdict = if differences.is_empty() {
        Verdict::ok("0 differences")
    } else {
        Verdict::fail(format!("{} differences: {}", differences.len(), some(&differences)))
    };
    Ok(verdict.with("differences", count(differences.len())))
}
