//! The same answer written a second time, from api.md §5.3 and the objects as they are: slow, and with nothing kept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use super::Gates;
use crate::store::Key;
use crate::store::follow::key_of;
use crate::v1alpha1::{ServiceAddressType as Type, ServiceAdvertisement, ServiceAnnounce, WhenNoEndpoints};

/// Everything there is, as one node sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) node: String,
    pub(super) is_excluded: bool,
    pub(super) rules: BTreeMap<String, ServiceAdvertisement>,
    pub(super) gates: Gates,
    pub(super) services: BTreeMap<Key, Service>,
    pub(super) slices: BTreeMap<Key, EndpointSlice>,
    pub(super) namespaces: BTreeMap<String, Namespace>,
}

/// Each prefix, and the rules that originate it.
pub(super) fn originated(world: &World) -> BTreeMap<IpNet, BTreeSet<String>> {
    let mut all: BTreeMap<IpNet, BTreeSet<String>> = BTreeMap::new();
    for (name, gates) in &world.gates {
        for (service, prefix) in gates {
            if [true, false].iter().any(|v4| nodes_with_endpoints(world, service, *v4).contains(&world.node))
            {
                all.entry(*prefix).or_default().insert(name.clone());
            }
        }
    }
    if world.is_excluded {
        return all;
    }
    for (name, rule) in &world.rules {
        for service in world.services.values().filter(|service| is_selected(world, rule, service)) {
            for (kind, text) in addresses(service) {
                let Ok(address) = text.parse::<IpAddr>() else { continue };
                if !rule.address_types.contains(&kind) {
                    continue;
                }
                let inside: Vec<IpNet> =
                    rule.cidrs.iter().map(|c| c.net()).filter(|net| net.contains(&address)).collect();
                if inside.is_empty() && (kind == Type::ExternalIP || !rule.cidrs.is_empty()) {
                    continue;
                }
                let policy = policy(service, &kind);
                let nodes = nodes_with_endpoints(world, &key_of(service), address.is_ipv4());
                let here = match (nodes.is_empty(), policy.as_str()) {
                    (true, _) => rule.when_no_endpoints == WhenNoEndpoints::Announce,
                    (false, "Local") => nodes.contains(&world.node),
                    (false, _) => true,
                };
                if !here {
                    continue;
                }
                if rule.announce == ServiceAnnounce::CIDRs {
                    for net in inside {
                        all.entry(net).or_default().insert(name.clone());
                    }
                }
                if rule.announce == ServiceAnnounce::Hosts || policy == "Local" {
                    all.entry(IpNet::from(address)).or_default().insert(name.clone());
                }
            }
        }
    }
    all
}

fn is_selected(world: &World, rule: &ServiceAdvertisement, service: &Service) -> bool {
    let namespace = service.namespace().unwrap();
    let mut of_namespace = world.namespaces.get(&namespace).map(|n| n.labels().clone()).unwrap_or_default();
    of_namespace.insert("kubernetes.io/metadata.name".into(), namespace);
    let all_in = |wanted: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
                  labels: &BTreeMap<String, String>| {
        let wanted = wanted.iter().flat_map(|selector| selector.match_labels.iter().flatten());
        wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let spec = service.spec.as_ref().unwrap();
    all_in(&rule.service_selector, service.labels())
        && all_in(&rule.namespace_selector, &of_namespace)
        && spec.type_.as_deref() != Some("ExternalName")
        && spec.cluster_ip.as_deref() != Some("None")
}

fn addresses(service: &Service) -> Vec<(Type, String)> {
    let spec = service.spec.as_ref().unwrap();
    let mut all = Vec::new();
    for text in spec.cluster_ips.iter().flatten() {
        all.push((Type::ClusterIP, text.clone()));
    }
    for text in spec.external_ips.iter().flatten() {
        all.push((Type::ExternalIP, text.clone()));
    }
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    for ingress in balancer.and_then(|b| b.ingress.as_ref()).into_iter().flatten() {
        if spec.type_.as_deref() == Some("LoadBalancer") && ingress.ip_mode.as_deref() != Some("Proxy") {
            all.extend(ingress.ip.iter().map(|text| (Type::LoadBalancerIP, text.clone())));
        }
    }
    all
}

fn policy(service: &Service, kind: &Type) -> String {
    let spec = service.spec.as_ref().unwrap();
    let policy =
        if *kind == Type::ClusterIP { &spec.internal_traffic_policy } else { &spec.external_traffic_policy };
    policy.clone().unwrap_or_else(|| "Cluster".into())
}

/// The nodes of every endpoint of the family that is ready and not terminating; `""` where none is named.
fn nodes_with_endpoints(world: &World, service: &Key, is_ipv4: bool) -> BTreeSet<String> {
    let mut nodes = BTreeSet::new();
    for slice in world.slices.values() {
        let belongs = slice.namespace() == service.namespace
            && slice.labels().get("kubernetes.io/service-name") == Some(&service.name);
        if !belongs || slice.address_type != if is_ipv4 { "IPv4" } else { "IPv6" } {
            continue;
        }
        for endpoint in &slice.endpoints {
            let (ready, terminating) = match &endpoint.conditions {
                None => (true, false),
                Some(conditions) => (conditions.ready != Some(false), conditions.terminating == Some(true)),
            };
            if ready && !terminating {
                nodes.insert(endpoint.node_name.clone().unwrap_or_default());
            }
        }
    }
    nodes
}
