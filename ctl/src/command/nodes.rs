//! `manxctl nodes`: one line a node, what is wrong first.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use manx_crds::report::{BgpdStatus, FelixStatus, NodeReport, NodeRow};
use manx_crds::v1alpha1::FabricNode;
use serde_json::json;

use crate::Global;
use crate::error::Failure;
use crate::fabric::{Daemon, Fabric, missing_line};
use crate::table::{Align, Table};
use crate::words::{age, natural};

pub(crate) async fn report(fabric: &Fabric) -> Result<NodeReport, Failure> {
    let mut header = fabric.header("NodeReport");
    let bgpd = fabric.ask_all::<BgpdStatus>(Daemon::Bgpd, &json!({"verb": "status"})).await;
    let felix = fabric.ask_all::<FelixStatus>(Daemon::Felix, &json!({"verb": "status"})).await;
    let objects: BTreeMap<String, FabricNode> =
        fabric.list::<FabricNode>().await?.into_iter().map(|node| (node.name_any(), node)).collect();
    let nodes: BTreeMap<String, Node> =
        fabric.list::<Node>().await?.into_iter().map(|node| (node.name_any(), node)).collect();
    let mut rows = Vec::new();
    for name in &fabric.nodes {
        let mut row = NodeRow { name: name.clone(), ..NodeRow::default() };
        if let Some(object) = objects.get(name) {
            from_object(&mut row, object);
        }
        if let Some(node) = nodes.get(name) {
            row.created = node.creation_timestamp().or(row.created);
        }
        match bgpd.get(name) {
            Some(Ok(live)) => {
                row.asn = live.asn;
                row.router_id.clone_from(&live.router_id);
                row.sessions = Some(live.sessions);
                row.sessions_established = Some(live.sessions_established);
                row.bgp = Some(live.ready.clone());
                if row.addresses.is_empty() {
                    row.addresses.clone_from(&live.addresses);
                }
                row.agents.insert("bgpd".to_owned(), live.version.clone());
            }
            Some(Err(reason)) => header.miss(name.clone(), reason.clone()),
            None => {}
        }
        match felix.get(name) {
            Some(Ok(live)) => {
                row.blocks = Some(live.blocks);
                row.pods = Some(live.pods);
                row.policy = Some(live.policy.clone());
                row.dataplane = Some(live.dataplane.clone());
                row.agents.insert("felix".to_owned(), live.version.clone());
            }
            Some(Err(reason)) => header.miss(name.clone(), reason.clone()),
            None => {}
        }
        rows.push(row);
    }
    rows.sort_by(|a, b| healthy(a).cmp(&healthy(b)).then_with(|| natural(&a.name, &b.name)));
    Ok(NodeReport { header, nodes: rows })
}

fn from_object(row: &mut NodeRow, object: &FabricNode) {
    row.created = object.creation_timestamp();
    let Some(status) = &object.status else { return };
    let addresses = status.addresses.clone().unwrap_or_default();
    row.addresses = [addresses.ipv4, addresses.ipv6].into_iter().flatten().map(|ip| ip.0).collect();
    row.asn = status.bgp.as_ref().and_then(|bgp| bgp.asn);
    row.router_id = status.bgp.as_ref().and_then(|bgp| bgp.router_id).map(|id| id.to_string());
    row.blocks = Some(status.blocks.len() as u64);
    row.agents = status.agents.iter().map(|agent| (agent.name.clone(), agent.version.clone())).collect();
}

/// Every session up, rules and policy in the kernel.
pub(crate) fn healthy(row: &NodeRow) -> bool {
    row.sessions.is_some()
        && row.sessions == row.sessions_established
        && row.policy.as_deref() == Some("Programmed")
        && row.dataplane.as_deref() == Some("Programmed")
}

pub(crate) async fn run(fabric: &Fabric, global: &Global) -> Result<bool, Failure> {
    let report = report(fabric).await?;
    if global.printed(&report)? {
        return Ok(true);
    }
    let now = Timestamp::now();
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("ADDRESS", Align::Left),
        ("ASN", Align::Left),
        ("BGP", Align::Left),
        ("BLOCKS", Align::Right),
        ("PODS", Align::Right),
        ("POLICY", Align::Left),
        ("DATAPLANE", Align::Left),
        ("AGE", Align::Left),
    ]);
    let unknown = || "<unknown>".to_owned();
    for row in &report.nodes {
        let sessions = match (row.sessions_established, row.sessions) {
            (Some(up), Some(of)) => format!("{up} of {of}"),
            _ => unknown(),
        };
        table.row(vec![
            row.name.clone(),
            row.addresses.first().map(ToString::to_string).unwrap_or_default(),
            row.asn.map(|asn| asn.to_string()).unwrap_or_default(),
            sessions,
            row.blocks.map(|n| n.to_string()).unwrap_or_default(),
            row.pods.map(|n| n.to_string()).unwrap_or_default(),
            row.policy.clone().unwrap_or_else(unknown),
            row.dataplane.clone().unwrap_or_else(unknown),
            age(row.created.as_ref(), now),
        ]);
    }
    print!("{}", table.render(!global.no_headers));
    if let Some(line) = missing_line(&report.header, fabric.nodes.len()) {
        println!("{line}");
    }
    Ok(true)
}
