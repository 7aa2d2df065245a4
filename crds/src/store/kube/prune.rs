//! What is kept of an object that is listed or watched. A Pod as it comes takes 135 kB in memory, most of it who
//! manages which field; what felix and bgpd read of it is less than 1 kB.
//!
//! `get` prunes nothing: what is read to be replaced goes back whole.

use std::any::Any;

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, Secret, Service};

use super::super::Object;

/// Takes away what neither felix nor bgpd reads.
pub fn prune<K: Object>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    if let Some(annotations) = &mut object.meta_mut().annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    let any: &mut dyn Any = object;
    if let Some(pod) = any.downcast_mut::<Pod>() {
        prune_pod(pod);
    } else if let Some(node) = any.downcast_mut::<Node>() {
        if let Some(status) = &mut node.status {
            status.images = None;
            status.volumes_in_use = None;
            status.volumes_attached = None;
        }
    } else if let Some(service) = any.downcast_mut::<Service>() {
        service.metadata.owner_references = None;
    } else if let Some(secret) = any.downcast_mut::<Secret>() {
        secret.metadata.owner_references = None;
    }
}

fn prune_pod(pod: &mut Pod) {
    pod.metadata.owner_references = None;
    if let Some(spec) = &mut pod.spec {
        let old = std::mem::take(spec);
        let containers = old.containers.into_iter().map(ports_only).collect();
        // Ports of sidecars can be named in policies too.
        let init_containers = old.init_containers.map(|all| all.into_iter().map(ports_only).collect());
        *spec = PodSpec {
            containers,
            init_containers,
            node_name: old.node_name,
            host_network: old.host_network,
            host_users: old.host_users,
            service_account_name: old.service_account_name,
            ..PodSpec::default()
        };
    }
    if let Some(status) = &mut pod.status {
        status.container_statuses = None;
        status.init_container_statuses = None;
        status.ephemeral_container_statuses = None;
    }
}

fn ports_only(container: Container) -> Container {
    Container {
        name: container.name,
        ports: container.ports,
        restart_policy: container.restart_policy,
        ..Container::default()
    }
}
