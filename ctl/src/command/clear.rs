//! `manxctl bgp clear`: sessions that end and start again, or whose routes are sent again.

use manx_crds::report::{BGPClearReport, BgpdCleared, BgpdPeers, BgpdRequest, ClearedRow, SoftClear};
use serde_json::json;

use crate::Global;
use crate::confirm::confirmed;
use crate::error::Failure;
use crate::fabric::{Daemon, Fabric, answered, missing_line};
use crate::words::{names, natural};

pub(crate) async fn run(
    fabric: &Fabric,
    global: &Global,
    peer: &str,
    soft: Option<SoftClear>,
    message: &str,
    yes: bool,
) -> Result<bool, Failure> {
    if soft.is_none() && !confirmed(&warning(fabric, peer).await, yes)? {
        println!("nothing was done");
        return Ok(true);
    }
    let mut header = fabric.header("BGPClearReport");
    let request = BgpdRequest::Clear { peer: peer.to_owned(), soft, message: message.to_owned() };
    let answers = fabric.ask_all::<BgpdCleared>(Daemon::Bgpd, &serde_json::to_value(request)?).await;
    let mut sessions: Vec<ClearedRow> =
        answered(answers, &mut header).into_iter().flat_map(|(_, answer)| answer.sessions).collect();
    sessions.sort_by(|a, b| natural(&a.node, &b.node).then_with(|| natural(&a.remote, &b.remote)));
    let report = BGPClearReport { header, sessions };
    let found = !report.sessions.is_empty();
    let done = report.header.complete && found && report.sessions.iter().all(|row| row.not_done.is_empty());
    if global.printed(&report)? {
        return Ok(done);
    }
    print!("{}", text(&report.sessions));
    if !found {
        println!("no session of the nodes that were asked is with {peer}: manxctl bgp peers lists them");
    }
    if let Some(line) = missing_line(&report.header, fabric.nodes.len()) {
        println!("{line}");
    }
    Ok(done)
}

/// What a hard clear would do, counted.
async fn warning(fabric: &Fabric, peer: &str) -> String {
    let answers = fabric.ask_all::<BgpdPeers>(Daemon::Bgpd, &json!({"verb": "peers"})).await;
    let peers = answers.into_values().filter_map(Result::ok);
    let nodes: Vec<String> = peers
        .flat_map(|answer| answer.sessions)
        .filter(|session| session.peer == peer || session.remote == peer)
        .map(|session| session.node)
        .collect();
    format!(
        "ends {} with {peer} on {} (Cease/AdministrativeReset); routes go until they are back",
        if nodes.len() == 1 { "1 session".to_owned() } else { format!("{} sessions", nodes.len()) },
        if nodes.is_empty() { "no node".to_owned() } else { names(&nodes) },
    )
}

fn text(sessions: &[ClearedRow]) -> String {
    let mut text = String::new();
    for row in sessions {
        let who = format!("{}   {} {}", row.node, row.peer, row.remote);
        let blank = " ".repeat(who.chars().count());
        let lines = row.done.iter().cloned().chain(row.not_done.iter().map(|why| format!("not done: {why}")));
        for (index, line) in lines.enumerate() {
            let margin = if index == 0 { &who } else { &blank };
            text.push_str(&format!("{margin}   {line}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_session_by_session() {
        let row = |done: &[&str], not_done: &[&str]| ClearedRow {
            node: "n1".to_owned(),
            peer: "tor-a".to_owned(),
            remote: "10.0.0.1".to_owned(),
            done: done.iter().map(ToString::to_string).collect(),
            not_done: not_done.iter().map(ToString::to_string).collect(),
        };
        let rows = [
            row(&["ended with Cease/AdministrativeReset and started again"], &[]),
            row(&["IPv4Unicast is sent again"], &["the peer offers no route refresh"]),
        ];
        assert_eq!(
            text(&rows),
            "n1   tor-a 10.0.0.1   ended with Cease/AdministrativeReset and started again\n\
             n1   tor-a 10.0.0.1   IPv4Unicast is sent again\n\
             \x20                     not done: the peer offers no route refresh\n"
        );
    }
}
