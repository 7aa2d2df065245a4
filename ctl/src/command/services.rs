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
use manx_crds::v1alpha1::{BGPAdvertisement, BGPPeer, LoadBalancerPool, ServiceAddressType};

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
const UNASKED: &str = "no BGPAdvertisement asks for it";
/// Not all nodes were asked, or answered.
const ELSEWHERE: &str = "not by the nodes that answered";
/// Rows that a screen holds.
const SCREEN: usize = 20;

/// What the rows are worked out from.
#[derive(Default)]
struct Facts {
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    pools: Vec<LoadBalancerPool>,
    events: Vec<Event>,
    /// There is somebody to tell.
    peers: bool,
    /// Kinds of addresses that some BGPAdvertisement asks for.
    asked_for: Vec<ServiceAddressType>,
    /// What each node originates; a node that did not answer is not here.
    originated: Vec<Originated>,
    /// Every node is there.
    all_nodes: bool,
}

/// The prefixes of one node, and how long they are.
#[derive(Default)]
struct Originated {
    prefixes: BTreeSet<IpNet>,
    lengths: BTreeSet<u8>,
}

impl From<BTreeSet<IpNet>> for Originated {
    fn from(prefixes: BTreeSet<IpNet>) -> Self {
        Self { lengths: prefixes.iter().map(IpNet::prefix_len).collect(), prefixes }
    }
}

impl Originated {
    fn holds(&self, address: IpAddr) -> bool {
        let around = |length: &u8| IpNet::new(address, *length).ok().map(|net| net.trunc());
        self.lengths.iter().filter_map(around).any(|net| self.prefixes.contains(&net))
    }
}

pub(crate) async fn report(fabric: &Fabric, global: &Global) -> Result<ServiceReport, Failure> {
    let mut header = fabric.header("ServiceReport");
    let request = serde_json::to_value(BgpdRequest::Originated)?;
    let answers = fabric.ask_all::<BgpdOriginated>(Daemon::Bgpd, &request).await;
    let answers = answered(answers, &mut header);
    let mut facts = Facts {
        services: fabric.list().await?,
        slices: fabric.list().await?,
        pools: fabric.list().await?,
        peers: !fabric.list::<BGPPeer>().await?.is_empty(),
        all_nodes: header.complete && global.node.is_none(),
        originated: answers.into_iter().map(|(_, answer)| answer.prefixes.into()).collect(),
        ..Facts::default()
    };
    for advertisement in fabric.list::<BGPAdvertisement>().await? {
        facts
            .asked_for
            .extend(advertisement.spec.services.into_iter().flat_map(|services| services.address_types));
    }
    // There may be very many, and most fabrics have nobody who waits.
    if facts.services.iter().any(waits) {
        facts.events = fabric.list().await?;
    }
    Ok(ServiceReport { header, services: rows(&facts, global.all) })
}

/// One row an address. ClusterIPs only where `all` are asked for: every Service has one.
fn rows(facts: &Facts, all: bool) -> Vec<ServiceRow> {
    let ready = ready(&facts.slices);
    let mut rows = Vec::new();
    for service in &facts.services {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let endpoints = ready.get(&(namespace.clone(), name.clone()));
        let row = |state: &str| ServiceRow {
            namespace: namespace.clone(),
            name: name.clone(),
            r#type: service.spec.as_ref().and_then(|spec| spec.type_.clone()).unwrap_or_default(),
            address: None,
            pool: None,
            policy: policy(service, &ServiceAddressType::LoadBalancerIP),
            ready: endpoints.map_or(0, |all| all.len() as u64),
            nodes: 0,
            state: state.to_owned(),
            message: None,
        };
        for (kind, address) in addresses(service) {
            if kind == ServiceAddressType::ClusterIP && !all {
                continue;
            }
            let of_family = |one: &&IpAddr| one.is_ipv4() == address.is_ipv4();
            let ready = endpoints.map_or(0, |all| all.iter().filter(of_family).count() as u64);
            let nodes = facts.originated.iter().filter(|node| node.holds(address)).count() as u64;
            let policy = policy(service, &kind);
            let (address, pool) = (Some(address), pool_of(&facts.pools, address));
            let state = facts.state(&kind, ready, nodes);
            rows.push(ServiceRow { address, pool, policy, ready, nodes, ..row(state) });
        }
        if waits(service) {
            let message = last_note(&facts.events, service);
            let state = if message.is_some() { FAILED } else { "waits for an address" };
            rows.push(ServiceRow { message, ..row(state) });
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

impl Facts {
    fn state(&self, kind: &ServiceAddressType, ready: u64, nodes: u64) -> &'static str {
        match (nodes, ready) {
            (0, _) if !self.asked_for.contains(kind) => UNASKED,
            (0, 0) => "withdrawn: none ready",
            (0, _) if !self.peers => NOBODY,
            (0, _) if !self.all_nodes => ELSEWHERE,
            (0, _) => NOWHERE,
            (_, _) => ANNOUNCED,
        }
    }
}

/// The traffic policy that counts for addresses of this kind.
fn policy(service: &Service, kind: &ServiceAddressType) -> String {
    let spec = service.spec.as_ref();
    let said = match kind {
        ServiceAddressType::ClusterIP => spec.and_then(|spec| spec.internal_traffic_policy.clone()),
        ServiceAddressType::ExternalIP
        | ServiceAddressType::LoadBalancerIP
        | ServiceAddressType::Unknown(_) => spec.and_then(|spec| spec.external_traffic_policy.clone()),
    };
    said.unwrap_or_else(|| "Cluster".to_owned())
}

/// A Service of type LoadBalancer that nobody has given an address yet.
fn waits(service: &Service) -> bool {
    is_balanced(service) && balancer_ips(service).next().is_none()
}

fn is_balanced(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

fn balancer_ips(service: &Service) -> impl Iterator<Item = &str> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    ingress.filter(|_| is_balanced(service)).filter_map(|one| one.ip.as_deref())
}

fn addresses(service: &Service) -> Vec<(ServiceAddressType, IpAddr)> {
    let spec = service.spec.iter();
    let cluster = spec.clone().flat_map(|spec| spec.cluster_ips.iter().flatten()).map(String::as_str);
    let external = spec.flat_map(|spec| spec.external_ips.iter().flatten()).map(String::as_str);
    let balancer = balancer_ips(service).map(|text| (ServiceAddressType::LoadBalancerIP, text));
    let texts = balancer
        .chain(external.map(|text| (ServiceAddressType::ExternalIP, text)))
        .chain(cluster.map(|text| (ServiceAddressType::ClusterIP, text)));
    texts.filter_map(|(kind, text)| Some((kind, text.parse().ok()?))).collect()
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
    let report = report(fabric, global).await?;
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
    let mut folded = 0;
    for (index, row) in report.services.iter().enumerate() {
        if global.folds() && index >= SCREEN && row.state == ANNOUNCED {
            folded += 1;
            continue;
        }
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
    if folded > 0 {
        println!("... {folded} more announced; --all shows them, and ClusterIPs");
    }
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
