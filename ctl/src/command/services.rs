//! `manxctl services`: which addresses Services have, where they come from, and how many nodes tell them to peers.
//!
//! Objects say what ought to be; every node's bgpd says what it originates. An address is announced where a prefix that
//! some node originates holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use manx_crds::report::{BgpdOriginated, BgpdRequest, ServiceReport, ServiceRow};
use manx_crds::services::SERVICE_NAME_LABEL;
use manx_crds::v1alpha1::{BGPPeer, LoadBalancerPool};

use crate::Global;
use crate::error::Failure;
use crate::fabric::{Daemon, Fabric, answered, missing_line};
use crate::table::{Align, Table, paint};
use crate::words::natural;

const ANNOUNCED: &str = "announced";
const FAILED: &str = "AddressRequestFailed";
const NOWHERE: &str = "not announced";
/// A lab of one segment, say: nothing is wrong with the Service.
const NOBODY: &str = "no BGPPeer to tell";

/// What the rows are worked out from.
#[derive(Default)]
struct Facts {
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    pools: Vec<LoadBalancerPool>,
    events: Vec<Event>,
    /// There is somebody to tell.
    peers: bool,
    /// What each node originates; a node that did not answer is not here.
    originated: Vec<BTreeSet<IpNet>>,
}

pub(crate) async fn report(fabric: &Fabric, all: bool) -> Result<ServiceReport, Failure> {
    let mut header = fabric.header("ServiceReport");
    let request = serde_json::to_value(BgpdRequest::Originated)?;
    let answers = fabric.ask_all::<BgpdOriginated>(Daemon::Bgpd, &request).await;
    let answers = answered(answers, &mut header);
    let facts = Facts {
        services: fabric.list().await?,
        slices: fabric.list().await?,
        pools: fabric.list().await?,
        events: fabric.list().await?,
        peers: !fabric.list::<BGPPeer>().await?.is_empty(),
        originated: answers.into_iter().map(|(_, answer)| answer.prefixes).collect(),
    };
    Ok(ServiceReport { header, services: rows(&facts, all) })
}

/// One row an address. ClusterIPs only where `all` are asked for: every Service has one.
fn rows(facts: &Facts, all: bool) -> Vec<ServiceRow> {
    let ready = ready(&facts.slices);
    let mut rows = Vec::new();
    for service in &facts.services {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let balanced = is(service, "LoadBalancer");
        let mut addresses = outside(service);
        let waits = balanced && addresses.is_empty();
        if all {
            addresses.extend(cluster_ips(service).map(|address| (address, Policy::Internal)));
        }
        let told = |address: &IpAddr| -> usize {
            let holds = |prefixes: &&BTreeSet<IpNet>| prefixes.iter().any(|prefix| prefix.contains(address));
            facts.originated.iter().filter(holds).count()
        };
        let row =
            |address: Option<IpAddr>, policy: Policy, ready: u64, nodes: usize, state: &str| ServiceRow {
                namespace: namespace.clone(),
                name: name.clone(),
                r#type: service.spec.as_ref().and_then(|spec| spec.type_.clone()).unwrap_or_default(),
                address,
                pool: address.and_then(|address| pool_of(&facts.pools, address)),
                policy: policy.of(service),
                ready,
                nodes: nodes as u64,
                state: state.to_owned(),
                message: None,
            };
        for (address, policy) in addresses {
            let of_family = |one: &&IpAddr| one.is_ipv4() == address.is_ipv4();
            let known = ready.get(&(namespace.clone(), name.clone()));
            let ready = known.map_or(0, |ready| ready.iter().filter(of_family).count());
            let nodes = told(&address);
            let state = match (nodes, ready) {
                (0, 0) => "withdrawn: none ready",
                (0, _) if facts.peers => NOWHERE,
                (0, _) => NOBODY,
                (_, _) => ANNOUNCED,
            };
            rows.push(row(Some(address), policy, ready as u64, nodes, state));
        }
        if waits {
            let message = last_note(&facts.events, service);
            let state = if message.is_some() { FAILED } else { "waits for an address" };
            rows.push(ServiceRow { message, ..row(None, Policy::External, 0, 0, state) });
        }
    }
    rows.sort_by(|a, b| {
        (a.state == ANNOUNCED)
            .cmp(&(b.state == ANNOUNCED))
            .then_with(|| a.namespace.cmp(&b.namespace))
            .then_with(|| natural(&a.name, &b.name))
            .then_with(|| a.address.cmp(&b.address))
    });
    rows
}

/// Which of a Service's traffic policies is meant.
#[derive(Clone, Copy)]
enum Policy {
    Internal,
    External,
}

impl Policy {
    fn of(self, service: &Service) -> String {
        let spec = service.spec.as_ref();
        let said = match self {
            Self::Internal => spec.and_then(|spec| spec.internal_traffic_policy.clone()),
            Self::External => spec.and_then(|spec| spec.external_traffic_policy.clone()),
        };
        said.unwrap_or_else(|| "Cluster".to_owned())
    }
}

fn is(service: &Service, kind: &str) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some(kind)
}

/// Addresses by which others than pods reach it.
fn outside(service: &Service) -> Vec<(IpAddr, Policy)> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let balancer = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    let balancer = balancer.filter(|_| is(service, "LoadBalancer")).filter_map(|one| one.ip.as_deref());
    let external = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten());
    let texts = balancer.chain(external.map(String::as_str));
    texts.filter_map(|text| Some((text.parse().ok()?, Policy::External))).collect()
}

fn cluster_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let texts = service.spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten());
    texts.filter_map(|text| text.parse().ok())
}

fn pool_of(pools: &[LoadBalancerPool], address: IpAddr) -> Option<String> {
    let holds = |pool: &&LoadBalancerPool| pool.spec.addresses.iter().any(|range| range.contains(address));
    pools.iter().find(holds).map(LoadBalancerPool::name_any)
}

/// Addresses of endpoints that are ready and not terminating, by Service.
fn ready(slices: &[EndpointSlice]) -> BTreeMap<(String, String), BTreeSet<IpAddr>> {
    let mut ready: BTreeMap<(String, String), BTreeSet<IpAddr>> = BTreeMap::new();
    for slice in slices {
        let Some(service) = slice.labels().get(SERVICE_NAME_LABEL) else { continue };
        let serves = slice.endpoints.iter().filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
                && !conditions.and_then(|conditions| conditions.terminating).unwrap_or(false)
        });
        let addresses =
            serves.flat_map(|endpoint| &endpoint.addresses).filter_map(|text| text.parse::<IpAddr>().ok());
        ready.entry((slice.namespace().unwrap_or_default(), service.clone())).or_default().extend(addresses);
    }
    ready
}

/// Why the last request for an address failed. Not of an earlier Service of that name.
fn last_note(events: &[Event], service: &Service) -> Option<String> {
    let about = |event: &&Event| {
        let regarding = event.regarding.as_ref();
        event.reason.as_deref() == Some(FAILED)
            && regarding.and_then(|object| object.uid.as_deref()) == service.metadata.uid.as_deref()
            && regarding.and_then(|object| object.name.as_deref()) == service.metadata.name.as_deref()
            && regarding.and_then(|object| object.namespace.as_deref())
                == service.metadata.namespace.as_deref()
    };
    let newest = events.iter().filter(about).max_by_key(|event| {
        let series = event.series.as_ref().map(|series| series.last_observed_time.0);
        series.or(event.event_time.as_ref().map(|time| time.0))
    });
    newest.and_then(|event| event.note.clone())
}

/// False where a Service should have an address, or its address a way, and has none.
pub(crate) async fn run(fabric: &Fabric, global: &Global) -> Result<bool, Failure> {
    let report = report(fabric, global.all).await?;
    let healthy = report.header.complete
        && !report.services.iter().any(|row| [FAILED, NOWHERE].contains(&row.state.as_str()));
    if global.printed(&report)? {
        return Ok(healthy);
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("TYPE", Align::Left),
        ("ADDRESS", Align::Left),
        ("POOL", Align::Left),
        ("POLICY", Align::Left),
        ("READY", Align::Right),
        ("NODES", Align::Right),
        ("STATE", Align::Left),
    ]);
    for row in &report.services {
        table.row(vec![
            format!("{}/{}", row.namespace, row.name),
            row.r#type.clone(),
            row.address.map(|address| address.to_string()).unwrap_or_default(),
            row.pool.clone().unwrap_or_default(),
            row.policy.clone(),
            row.ready.to_string(),
            row.nodes.to_string(),
            paint(&row.state, global.colored()),
        ]);
    }
    print!("{}", table.render(!global.no_headers));
    for row in &report.services {
        if let Some(message) = &row.message {
            println!("{}/{}: {message}", row.namespace, row.name);
        }
    }
    if let Some(line) = missing_line(&report.header, fabric.nodes.len()) {
        println!("{line}");
    }
    Ok(healthy)
}

#[cfg(test)]
mod tests;
