//! `manxctl bgp peers`: every session, what is wrong first.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt as _;
use manx_crds::report::{BGPPeerReport, BgpdPeers, SessionRow};
use manx_crds::v1alpha1::{AddressFamily, BGPSession, SessionState};
use serde_json::json;

use crate::error::Failure;
use crate::fabric::{Daemon, Fabric, answered, missing_line};
use crate::table::{Align, Table, paint};
use crate::words::{age, names, natural};
use crate::{Global, Output};

/// Established rows that are shown on a terminal before the rest folds.
const SCREEN: usize = 20;

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
        capabilities: Vec::new(),
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
    let mut table = Table::new(&[
        ("NODE", Align::Left),
        ("PEER", Align::Left),
        ("REMOTE", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Left),
        ("BFD", Align::Left),
        ("RX", Align::Left),
        ("TX", Align::Left),
        ("REASON", Align::Left),
    ]);
    let mut folded = 0;
    for (index, session) in report.sessions.iter().enumerate() {
        if global.folds() && index >= SCREEN && session.state == SessionState::Established {
            folded += 1;
            continue;
        }
        let state = session.state.to_string();
        table.row(vec![
            session.node.clone(),
            session.peer.clone(),
            session.remote.clone(),
            paint(&state, global.colored()),
            age(session.since.as_ref(), now),
            session.bfd.as_ref().map(ToString::to_string).unwrap_or_default(),
            families(session, |family| family.accepted),
            families(session, |family| family.advertised),
            session.reason.clone().unwrap_or_default(),
        ]);
    }
    print!("{}", table.render(!global.no_headers));
    if folded > 0 {
        println!("... {folded} more Established; --all shows them");
    }
    if global.output == Output::Wide || !healthy {
        for line in errors(&report.sessions, now) {
            println!("{line}");
        }
    }
    if let Some(line) = missing_line(&report.header, fabric.nodes.len()) {
        println!("{line}");
    }
    Ok(healthy)
}

/// `12/12`: IPv4 and IPv6.
fn families(session: &SessionRow, count: impl Fn(&manx_crds::report::FamilyRow) -> u64) -> String {
    let of =
        |name: AddressFamily| session.families.iter().find(|family| family.name == name).map_or(0, &count);
    format!("{}/{}", of(AddressFamily::IPv4Unicast), of(AddressFamily::IPv6Unicast))
}

/// The last error of each peer that has a session down, with the nodes that see it.
fn errors(sessions: &[SessionRow], now: Timestamp) -> Vec<String> {
    let mut by_text: BTreeMap<(String, String), (Vec<String>, String)> = BTreeMap::new();
    for session in sessions.iter().filter(|session| session.state != SessionState::Established) {
        let Some(error) = &session.last_error else { continue };
        let text = match &error.text {
            Some(text) if error.name == "Transport" => text.clone(),
            Some(text) => format!("{}: {text}", error.name),
            None => error.name.clone(),
        };
        let ago = age(Some(&error.time), now);
        let entry = by_text
            .entry((session.peer.clone(), format!("{}: {text}", error.from)))
            .or_insert_with(|| (Vec::new(), ago));
        entry.0.push(session.node.clone());
    }
    by_text
        .into_iter()
        .map(|((peer, text), (nodes, ago))| {
            format!("{peer}   last error {ago} ago on {}, {text}", names(&nodes))
        })
        .collect()
}
