//! `manxctl status`: is the fabric as it should be? One line a section, what is wrong first, each with its figures.

use std::collections::BTreeMap;

use jiff::Timestamp;
use manx_crds::report::{
    BgpdStatus, FabricStatus, FelixStatus, Header, Health, IPAMReport, InputsReport, NodeRow, Problem,
    Section, SessionRow,
};
use manx_crds::store::InvalidObject;
use manx_crds::v1alpha1::{SessionState, TOPOLOGY_PEER};
use serde_json::json;

use crate::Global;
use crate::command::{ipam, nodes, peers, policy};
use crate::error::Failure;
use crate::fabric::{Daemon, Fabric, answered};
use crate::table::paint;
use crate::words::{age, names, thousands};

/// What the sections are made of.
struct Facts {
    header: Header,
    bgpd: Vec<(String, BgpdStatus)>,
    felix: Vec<(String, FelixStatus)>,
    nodes: Vec<NodeRow>,
    sessions: Vec<SessionRow>,
    pools: IPAMReport,
    rejected: Vec<(String, String)>,
    policies: usize,
}

async fn gather(fabric: &Fabric) -> Result<Facts, Failure> {
    let mut header = fabric.header("FabricStatus");
    let request = json!({"verb": "status"});
    let bgpd = answered(fabric.ask_all::<BgpdStatus>(Daemon::Bgpd, &request).await, &mut header);
    let felix = answered(fabric.ask_all::<FelixStatus>(Daemon::Felix, &request).await, &mut header);
    let policies = policy::report(fabric).await?.policies;
    let rejected = policies
        .iter()
        .filter(|policy| policy.programmed != "True")
        .map(|policy| {
            let name = format!("{}/{}", policy.namespace.clone().unwrap_or_default(), policy.name);
            (name, format!("{}: {}", policy.programmed, policy.message.clone().unwrap_or_default()))
        })
        .collect();
    Ok(Facts {
        header,
        bgpd,
        felix,
        nodes: nodes::report(fabric).await?.nodes,
        sessions: peers::report(fabric, None).await?.sessions,
        pools: ipam::report(fabric).await?,
        rejected,
        policies: policies.len(),
    })
}

pub(crate) async fn run(fabric: &Fabric, global: &Global) -> Result<bool, Failure> {
    let facts = gather(fabric).await?;
    let now = Timestamp::now();
    let mut sections = vec![
        nodes_section(&facts),
        bgp_section(&facts, now),
        routes_section(&facts),
        addresses_section(&facts.pools),
        policy_section(&facts),
        objects_section(&facts),
        drift_section(&facts),
    ];
    // What is wrong first; among equals the order of the list stays.
    sections.sort_by_key(|section| std::cmp::Reverse(section.result));
    let result = sections.iter().map(|section| section.result).max().unwrap_or(Health::Ok);
    let report = FabricStatus {
        header: facts.header.clone(),
        fabric: Some(fabric.name.clone()).filter(|name| !name.is_empty()),
        result,
        sections,
        invalid: invalid(&facts),
    };
    let healthy = result != Health::Fail;
    if global.printed(&report)? {
        return Ok(healthy);
    }
    print(&report, &facts, fabric, global);
    Ok(healthy)
}

fn print(report: &FabricStatus, facts: &Facts, fabric: &Fabric, global: &Global) {
    let version = facts.bgpd.first().map(|(_, status)| status.version.clone()).unwrap_or_default();
    let name = report.fabric.clone().unwrap_or_else(|| "this node".to_owned());
    println!("{name}   directory datastore, {} nodes   manx {version}", fabric.nodes.len());
    for section in &report.sections {
        let word = match section.result {
            Health::Ok => "ok",
            Health::Warn => "warn",
            Health::Fail => "FAIL",
        };
        let word = paint(&format!("{word:<4}"), global.colored());
        println!("  {word}   {:<11} {}", section.name, section.message.clone().unwrap_or_default());
        for problem in &section.problems {
            let nodes = if problem.nodes.is_empty() {
                String::new()
            } else {
                format!("   {}", names(&problem.nodes))
            };
            let text = problem.message.as_ref().map(|text| format!("   {text}")).unwrap_or_default();
            println!("                       {}   {}{nodes}{text}", problem.object, problem.reason);
        }
    }
    let count = |health| report.sections.iter().filter(|section| section.result == health).count();
    match (count(Health::Fail), count(Health::Warn)) {
        (0, 0) => println!("healthy"),
        (problems, warnings) => println!("{problems} problems, {warnings} warnings"),
    }
}

fn section(name: &str, result: Health, message: String) -> Section {
    Section {
        name: name.to_owned(),
        result,
        ok: None,
        of: None,
        message: Some(message),
        problems: Vec::new(),
    }
}

fn nodes_section(facts: &Facts) -> Section {
    let ready = facts.nodes.iter().filter(|row| nodes::healthy(row)).count();
    let of = facts.nodes.len();
    let mut section = section("nodes", Health::Ok, format!("{ready} of {of} ready"));
    (section.ok, section.of) = (Some(ready as u64), Some(of as u64));
    for missing in &facts.header.missing {
        section.result = Health::Warn;
        section.problems.push(problem(&format!("Node/{}", missing.node), &missing.reason, Vec::new(), None));
    }
    for (node, status) in facts.felix.iter().filter(|(_, status)| status.dataplane != "Programmed") {
        section.result = Health::Fail;
        let text = Some(status.message.clone()).filter(|text| !text.is_empty());
        section.problems.push(problem(&format!("Node/{node}"), &status.dataplane, Vec::new(), text));
    }
    let of_bgpd = facts.bgpd.iter().map(|(node, status)| (node, "bgpd", &status.inputs));
    let of_felix = facts.felix.iter().map(|(node, status)| (node, "felix", &status.inputs));
    for (node, agent, inputs) in of_bgpd.chain(of_felix) {
        for (reason, text) in of_inputs(agent, inputs) {
            section.result = section.result.max(Health::Warn);
            section.problems.push(problem(&format!("Node/{node}"), reason, Vec::new(), Some(text)));
        }
    }
    section
}

/// What is worth knowing of what an agent works from.
fn of_inputs(agent: &str, inputs: &InputsReport) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if inputs.remembered {
        let age = inputs.age_seconds.unwrap_or_default();
        let text = format!("{agent} works from inputs remembered {age}s ago");
        found.push(("DatastoreSilent", text));
    }
    found.extend(inputs.problem.clone().map(|text| ("InputsNotUsed", format!("{agent}: {text}"))));
    found
}

fn bgp_section(facts: &Facts, now: Timestamp) -> Section {
    let up = facts.sessions.iter().filter(|session| session.state == SessionState::Established).count();
    let of = facts.sessions.len();
    let result = if up == of { Health::Ok } else { Health::Fail };
    let mut section = section("bgp", result, format!("{up} of {of} sessions Established"));
    (section.ok, section.of) = (Some(up as u64), Some(of as u64));
    let mut down: BTreeMap<(String, String), (Vec<String>, Option<String>)> = BTreeMap::new();
    for session in facts.sessions.iter().filter(|session| session.state != SessionState::Established) {
        let reason = session.reason.clone().unwrap_or_else(|| session.state.to_string());
        let since = session.since.as_ref().map(|since| format!("since {}", age(Some(since), now)));
        let entry = down.entry((session.peer.clone(), reason)).or_insert_with(|| (Vec::new(), since));
        entry.0.push(session.node.clone());
    }
    for ((peer, reason), (nodes, since)) in down {
        section.problems.push(problem(&peer_object(&peer), &reason, nodes, since));
    }
    for (node, status) in &facts.bgpd {
        for (peer, why) in &status.refused_peers {
            section.result = section.result.max(Health::Warn);
            let object = peer_object(peer);
            section.problems.push(problem(&object, "UnknownValue", vec![node.clone()], Some(why.clone())));
        }
        if !(status.in_sync || status.inputs.remembered) || status.asn.is_none() {
            section.result = Health::Fail;
            let object = format!("Node/{node}");
            section.problems.push(problem(&object, &status.ready, Vec::new(), Some(status.message.clone())));
        }
    }
    section
}

/// Where the settings of a session stand: its BGPPeer, or for node-to-node sessions the topology.
fn peer_object(peer: &str) -> String {
    if peer == TOPOLOGY_PEER { "FabricConfiguration/default".to_owned() } else { format!("BGPPeer/{peer}") }
}

fn routes_section(facts: &Facts) -> Section {
    let sum = |pick: fn(&BgpdStatus) -> u64| facts.bgpd.iter().map(|(_, status)| pick(status)).sum::<u64>();
    let whole = facts.bgpd.iter().filter(|(_, status)| {
        status.kernel_routes == status.kernel_routes_wanted && status.kernel_refused.is_empty()
    });
    let whole = whole.count();
    let of = facts.bgpd.len();
    let text = format!(
        "{} + {} own blocks (v4, v6); {whole} of {of} kernels hold every route, {} with several next hops",
        sum(|status| status.own_ipv4),
        sum(|status| status.own_ipv6),
        sum(|status| status.kernel_multipath),
    );
    let mut section = section("routes", if whole == of { Health::Ok } else { Health::Fail }, text);
    for (node, status) in &facts.bgpd {
        if let Some((prefix, error)) = status.kernel_refused.iter().next() {
            let text = Some(format!("{} routes, such as {prefix}: {error}", status.kernel_refused.len()));
            section.problems.push(problem(&format!("Node/{node}"), "KernelRejected", Vec::new(), text));
        }
    }
    section
}

fn addresses_section(pools: &IPAMReport) -> Section {
    if pools.pools.is_empty() {
        return section("addresses", Health::Warn, "no IPPool: pods cannot get an address".to_owned());
    }
    let texts: Vec<String> = pools
        .pools
        .iter()
        .map(|pool| match pool.size.parse::<u128>() {
            // The size of an IPv6 pool says nothing.
            Ok(size) if size <= 1 << 32 => {
                format!("{} {} of {}", pool.name, thousands(pool.used), thousands(size))
            }
            Ok(_) | Err(_) => format!("{} {}", pool.name, thousands(pool.used)),
        })
        .collect();
    let mut section = section("addresses", Health::Ok, texts.join(", "));
    for pool in pools.pools.iter().filter(|pool| pool.state != "Available") {
        section.result =
            section.result.max(if pool.state == "Exhausted" { Health::Fail } else { Health::Warn });
        section.problems.push(problem(&format!("IPPool/{}", pool.name), &pool.state, Vec::new(), None));
    }
    section
}

fn policy_section(facts: &Facts) -> Section {
    let good = facts.policies - facts.rejected.len();
    let mut section = section("policy", Health::Ok, format!("{good} of {} Programmed", facts.policies));
    for (name, text) in &facts.rejected {
        section.result = Health::Fail;
        let (reason, message) = text.split_once(": ").unwrap_or((text.as_str(), ""));
        let message = Some(message.to_owned()).filter(|message| !message.is_empty());
        section.problems.push(problem(&format!("NetworkPolicy/{name}"), reason, Vec::new(), message));
    }
    section
}

fn objects_section(facts: &Facts) -> Section {
    let invalid = invalid(facts);
    let result = if invalid.is_empty() { Health::Ok } else { Health::Fail };
    let text = match invalid.len() {
        0 => "every object validates".to_owned(),
        n => format!("{n} do not validate"),
    };
    let mut section = section("objects", result, text);
    for object in invalid {
        let reason =
            if object.last_good { "the last good version is in force" } else { "never valid: absent" };
        let text = Some(format!("{}: {}", object.place, object.error));
        section.problems.push(problem(&format!("{}/{}", object.kind, object.name), reason, Vec::new(), text));
    }
    section
}

/// Each invalid object once, though every daemon reports it.
fn invalid(facts: &Facts) -> Vec<InvalidObject> {
    let of_bgpd = facts.bgpd.iter().flat_map(|(_, status)| &status.invalid);
    let of_felix = facts.felix.iter().flat_map(|(_, status)| &status.invalid);
    let mut once: BTreeMap<(String, Option<String>, String), InvalidObject> = BTreeMap::new();
    for object in of_bgpd.chain(of_felix) {
        let key = (object.kind.clone(), object.namespace.clone(), object.name.clone());
        once.entry(key).or_insert_with(|| object.clone());
    }
    once.into_values().collect()
}

fn drift_section(facts: &Facts) -> Section {
    let drift: u64 = facts.felix.iter().map(|(_, status)| status.drift).sum();
    let result = if drift == 0 { Health::Ok } else { Health::Fail };
    section("drift", result, format!("{drift} routes and rules differ from what they should be"))
}

fn problem(object: &str, reason: &str, nodes: Vec<String>, message: Option<String>) -> Problem {
    Problem { object: object.to_owned(), since: None, reason: reason.to_owned(), message, nodes, next: None }
}
