//! Pods as endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use felix_calc::model::{SCTP, TCP, UDP};
use felix_calc::{Endpoint, EndpointId, NamedPort};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

/// A pod's link on this node, as the journal knows it: the kernel's truth, ahead of any status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Host end, `manx…`.
    pub interface: String,
    pub addresses: BTreeSet<IpAddr>,
    /// What it may send from beside them.
    pub sources: BTreeSet<IpNet>,
}

/// The usual identity of a pod.
pub fn endpoint_id(pod: &Pod) -> EndpointId {
    EndpointId::pod(&namespace(pod), &pod.metadata.name.clone().unwrap_or_default())
}

/// The pod as an endpoint, or none:
/// - a pod on the host network has no address of its own, so no rule that selects pods means it;
/// - a pod whose containers have ended for good has given its addresses back, and another may hold them.
///
/// A pod with a link on this node is one until the link is gone, whatever its status says.
pub fn endpoint(pod: &Pod, local: Option<&Local>) -> Option<Endpoint> {
    if local.is_none() && (on_host_network(pod) || has_ended(pod)) {
        return None;
    }
    let addresses = match local {
        Some(local) => local.addresses.clone(),
        None => status_addresses(pod),
    };
    Some(Endpoint {
        interface: local.map(|local| local.interface.clone()),
        addresses,
        sources: local.map(|local| local.sources.clone()).unwrap_or_default(),
        namespace: namespace(pod),
        name: pod.metadata.name.clone().unwrap_or_default(),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        ports: named_ports(pod),
    })
}

fn on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// `podIPs`, or the older `podIP`. What is no address is left out: it is on no packet.
pub fn status_addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let Some(status) = &pod.status else { return BTreeSet::new() };
    let many = status.pod_ips.iter().flatten().map(|one| one.ip.as_str());
    many.chain(status.pod_ip.as_deref()).filter_map(|text| text.parse().ok()).collect()
}

/// Ports by name, of the containers that run as long as the pod: the ordinary ones and the sidecars, which are init
/// containers that always restart. An ordinary init container is over before the pod is ready to receive.
fn named_ports(pod: &Pod) -> BTreeSet<NamedPort> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    sidecars
        .chain(&spec.containers)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(named_port)
        .collect()
}

fn named_port(port: &ContainerPort) -> Option<NamedPort> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => TCP,
        Some("UDP") => UDP,
        Some("SCTP") => SCTP,
        Some(_) => return None,
    };
    let number = u16::try_from(port.container_port).ok().filter(|number| *number != 0)?;
    Some(NamedPort { name: port.name.clone()?, protocol, number })
}

fn namespace(pod: &Pod) -> String {
    pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned())
}

#[cfg(test)]
mod tests;
