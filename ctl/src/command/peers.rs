//! `manxctl bgp peers`: every session, what is wrong first.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt as _;
use manx_crds::report::{BGPPeerReport, BgpdPeers, MalformedRow, SessionRow};
use manx_crds::v1alpha1::{AddressFamily, BGPSession, SessionState};
use serde_json::json;

use crate::error::Failure;
use crate::fabric::{Daemon, Fabric, answered, missing_line};
use crate::table::{Align, Table, paint};
use crate::words::{age, lasts, natural, thousands};
use crate::{Global, Output};

/// Established rows that are shown on a terminal before the rest folds.
const SCREEN: usize = 20;
/// A pause before the next attempt that is shown, seconds.
const WORTH_SAYING: u64 = 60;

/// The report: live from the daemons, from BGPSession objects where a daemon is silent.
pub(crate) async fn report(fabric: &Fabric, peer: Option<&str>) -> Result<BGPPeerReport, Failure> {
    let mut header = fabric.header("BGPPeerReport");
    let answers = fabric.ask_all::<BgpdPeers>(Daemon::Bgpd, &json!({"verb": "peers"})).await;
    let live = answered(answers, &mut header);
    let mut sessions: Vec<SessionRow> = live.into_iter().flat_map(|(_, peers)| peers.sessions).collect();
    let silent: Vec<String> = header.missing.iter().map(|missing| missing.node.clone()).collect();
    for object in fabric.list::<BGPSession>().await? {
        if silent.contains(&object.spec.node_name) {
            sessions.push(from_object(&object));
        }
    }
    if let Some(peer) = peer {
        sessions.retain(|session| session.peer == peer);
    }
    sessions.sort_by(|a, b| {
        let up = |row: &SessionRow| row.state == SessionState::Established;
        (up(a).cmp(&up(b))).then_with(|| natural(&a.node, &b.node)).then_with(|| natural(&a.peer, &b.peer))
    });
    Ok(BGPPeerReport { header, sessions })
}

fn from_object(object: &BGPSession) -> SessionRow {
    let status = object.status.clone().unwrap_or_default();
    let established = status.conditions.iter().find(|condition| condition.type_ == "Established");
    SessionRow {
        node: object.spec.node_name.clone(),
        peer: object.spec.peer.clone(),
        remote: status.remote_address.clone().unwrap_or_else(|| object.spec.remote.clone()),
        asn: status.remote_asn,
        state: status.state.unwrap_or(SessionState::Idle),
        since: status.since,
        reason: established.map(|condition| condition.reason.clone()),
        message: established.map(|condition| condition.message.clone()).or(Some(object.name_any())),
        bfd: status.bfd.map(|bfd| bfd.state),
        families: Vec::new(),
        last_error: status.last_error,
        resets: status.resets.map(u64::from),
        local_address: status.local_address,
        hold_seconds: None,
        capabilities: status.negotiated.map(|n| n.capabilities).unwrap_or_default(),
        retry_seconds: None,
        malformed: Vec::new(),
    }
}

pub(crate) async fn run(fabric: &Fabric, global: &Global, peer: Option<&str>) -> Result<bool, Failure> {
    let report = report(fabric, peer).await?;
    let healthy = report.sessions.iter().all(|session| session.state == SessionState::Established)
        && report.header.complete;
    if global.printed(&report)? {
        return Ok(healthy);
    }
    let now = Timestamp::now();
    let is_wide = global.output == Output::Wide;
    let mut columns = vec![
        ("NODE", Align::Left),
        ("PEER", Align::Left),
        ("REMOTE", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Left),
        ("BFD", Align::Left),
        ("RX", Align::Left),
        ("TX", Align::Left),
        ("REASON", Align::Left),
    ];
    if is_wide {
        columns.extend([
            ("ASN", Align::Right),
            ("LOCAL", Align::Left),
            ("HOLD", Align::Right),
            ("RESETS", Align::Right),
            ("MALFORMED", Align::Right),
            ("CAPABILITIES", Align::Left),
        ]);
    }
    let mut table = Table::new(&columns);
    let mut folded = 0;
    for (index, session) in report.sessions.iter().enumerate() {
        if global.folds() && index >= SCREEN && session.state == SessionState::Established {
            folded += 1;
            continue;
        }
        let state = session.state.to_string();
        let mut cells = vec![
            session.node.clone(),
            session.peer.clone(),
            session.remote.clone(),
            paint(&state, global.colored()),
            age(session.since.as_ref(), now),
            session.bfd.as_ref().map(ToString::to_string).unwrap_or_default(),
            families(session, |family| family.accepted),
            families(session, |family| family.advertised),
            session.reason.clone().unwrap_or_default(),
        ];
        if is_wide {
            cells.extend(wide(session));
        }
        table.row(cells);
    }
    print!("{}", table.render(!global.no_headers));
    if folded > 0 {
        println!("... {folded} more Established; --all shows them");
    }
    if is_wide || !healthy {
        for line in errors(&report.sessions, now) {
            println!("{line}");
        }
    }
    if is_wide {
        for line in malformed(&report.sessions) {
            println!("{line}");
        }
    }
    if let Some(line) = missing_line(&report.header, fabric.nodes.len()) {
        println!("{line}");
    }
    Ok(healthy)
}

/// What `-o wide` adds to a row.
fn wide(session: &SessionRow) -> Vec<String> {
    let number = |number: Option<u64>| number.map(thousands).unwrap_or_default();
    vec![
        session.asn.map(|asn| asn.to_string()).unwrap_or_default(),
        session.local_address.clone().unwrap_or_default(),
        session.hold_seconds.map(|seconds| format!("{seconds}s")).unwrap_or_default(),
        number(session.resets),
        thousands(session.malformed.iter().map(|row| row.count).sum::<u64>()),
        session.capabilities.join(","),
    ]
}

/// `lab   UPDATE attribute 4: … TreatAsWithdraw (RFC 7606 §7.4), 3 times`
fn malformed(sessions: &[SessionRow]) -> Vec<String> {
    let line = |session: &SessionRow, row: &MalformedRow| {
        let attribute = row.attribute.map(|number| format!(" attribute {number}")).unwrap_or_default();
        format!(
            "{}   {} on {}: {}{attribute}: {}: {} ({})",
            session.peer,
            times(row.count),
            session.node,
            row.message,
            row.reason,
            row.action,
            row.rfc
        )
    };
    sessions.iter().flat_map(|session| session.malformed.iter().map(move |row| line(session, row))).collect()
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{} times", thousands(count)) }
}

/// `12/12`: IPv4 and IPv6.
fn families(session: &SessionRow, count: impl Fn(&manx_crds::report::FamilyRow) -> u64) -> String {
    let of =
        |name: AddressFamily| session.families.iter().find(|family| family.name == name).map_or(0, &count);
    format!("{}/{}", of(AddressFamily::IPv4Unicast), of(AddressFamily::IPv6Unicast))
}

/// One error of a peer, over the nodes that see it.
struct Failed {
    nodes: usize,
    ago: String,
    /// The shortest pause before the next attempt, seconds.
    retry: Option<u64>,
}

/// The last error of each peer that has a session down, with the nodes that see it.
fn errors(sessions: &[SessionRow], now: Timestamp) -> Vec<String> {
    let mut by_text: BTreeMap<(String, String, String), Failed> = BTreeMap::new();
    for session in sessions.iter().filter(|session| session.state != SessionState::Established) {
        let Some(error) = &session.last_error else { continue };
        let text = match &error.text {
            Some(text) if error.name == "Transport" => text.clone(),
            Some(text) => format!("{}: {text}", error.name),
            None => error.name.clone(),
        };
        let ago = age(Some(&error.time), now);
        let entry = by_text
            .entry((session.peer.clone(), error.from.to_string(), text))
            .or_insert_with(|| Failed { nodes: 0, ago, retry: session.retry_seconds });
        entry.nodes += 1;
        entry.retry = entry.retry.min(session.retry_seconds);
    }
    by_text
        .into_iter()
        .map(|((peer, from, text), Failed { nodes, ago, retry })| {
            let nodes = if nodes > 1 { format!(", {nodes} nodes") } else { String::new() };
            // Attempts that are seconds away are no news.
            let retry = retry.filter(|seconds| *seconds >= WORTH_SAYING).map(lasts);
            let retry = retry.map(|after| format!("; tries again in {after}")).unwrap_or_default();
            format!("{peer}   last error {ago} ago, {from}{nodes}: {text}{retry}")
        })
        .collect()
}

#[cfg(test)]
mod tests;
