//! What a Service asks for: families, addresses, a pool, neighbours on its address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::ResourceExt as _;
use manx_crds::annotations;
use manx_ipam::pool::Family;

/// The class of Services that are ours whatever `loadBalancer.assign` says.
pub const CLASS: &str = annotations::LOAD_BALANCER_CLASS;
/// Annotation: the address comes from this LoadBalancerPool.
pub const POOL: &str = annotations::LOAD_BALANCER_POOL.key;
/// Annotation: exactly these addresses, one a family at most.
pub const ADDRESSES: &str = annotations::LOAD_BALANCER_IPS.key;
/// Annotation: Services of equal value and disjoint ports share an address.
pub const SHARING: &str = annotations::SHARED_ADDRESS_KEY.key;

/// How many of the wanted families must be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The first that is served.
    One,
    /// As many as are served, and at least one (PreferDualStack).
    Some,
    /// All or nothing (SingleStack with its family, RequireDualStack).
    All,
}

/// A protocol and a port.
pub type Port = (String, i32);

/// What a Service of ours asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In the order of the Service's `ipFamilies`.
    pub families: Vec<Family>,
    pub count: Count,
    /// Exactly these, where not empty.
    pub addresses: Vec<IpAddr>,
    /// Where the addresses were asked for, for people.
    pub asked_in: &'static str,
    pub pool: Option<String>,
    pub sharing: Option<String>,
    pub ports: BTreeSet<Port>,
}

/// Whether a Service is ours, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Of another type: it has no address of ours.
    Nothing,
    /// Another controller's.
    NotOurs,
    Addresses(Request),
    /// What it asks for cannot be read: it keeps what it has, and the text says why.
    Unreadable(String),
}

/// Reads a Service. `class_only`: without our class it is not ours (`loadBalancer.assign: ClassOnly`).
pub fn read(service: &Service, class_only: bool) -> Asks {
    let none = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&none);
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return Asks::Nothing;
    }
    match spec.load_balancer_class.as_deref() {
        Some(CLASS) => {}
        None if !class_only => {}
        Some(_) | None => return Asks::NotOurs,
    }
    match request(service, spec) {
        Ok(request) => Asks::Addresses(request),
        Err(text) => Asks::Unreadable(text),
    }
}

fn request(service: &Service, spec: &ServiceSpec) -> Result<Request, String> {
    let annotation = |key: &str| service.annotations().get(key).map(|value| value.trim());
    let (families, count) = families(spec)?;
    let (addresses, asked_in) = match (annotation(ADDRESSES), spec.load_balancer_ip.as_deref()) {
        (Some(text), _) => (addresses(text)?, ADDRESSES),
        (None, Some(text)) if !text.is_empty() => {
            let ip = text.parse::<IpAddr>().map_err(|_| {
                format!("spec.loadBalancerIP {text:?} is no IP address: write one, such as 192.0.2.10")
            })?;
            (vec![ip], "spec.loadBalancerIP")
        }
        (None, Some(_) | None) => (Vec::new(), ""),
    };
    if let Some(ip) = addresses.iter().find(|ip| !families.contains(&Family::of(**ip))) {
        return Err(format!(
            "{ip} of {asked_in} is {}, but spec.ipFamilies of the Service is {}: ask for an address of that family, \
             or set spec.ipFamilyPolicy PreferDualStack",
            Family::of(*ip),
            families.iter().map(Family::to_string).collect::<Vec<_>>().join(",")
        ));
    }
    if count == Count::All && !addresses.is_empty() && addresses.len() < families.len() {
        return Err(format!(
            "{asked_in} names {} of the 2 addresses that spec.ipFamilyPolicy RequireDualStack needs: name one of \
             each family",
            addresses.len()
        ));
    }
    let pool = match annotation(POOL) {
        Some("") => {
            return Err(format!("{POOL} is empty: write the name of a LoadBalancerPool, or remove it"));
        }
        pool => pool.map(str::to_owned),
    };
    let sharing = match annotation(SHARING) {
        Some("") => {
            return Err(format!("{SHARING} is empty: write a key that both Services have, or remove it"));
        }
        key => key.map(str::to_owned),
    };
    let ports = spec.ports.iter().flatten();
    let ports =
        ports.map(|port| (port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port.port)).collect();
    Ok(Request { families, count, addresses, asked_in, pool, sharing, ports })
}

/// The API server fills `ipFamilies`. In a directory nobody does: then the addresses of the Service itself tell, else
/// the pools.
fn families(spec: &ServiceSpec) -> Result<(Vec<Family>, Count), String> {
    let mut families = Vec::new();
    for text in spec.ip_families.iter().flatten() {
        match text.as_str() {
            "IPv4" => families.push(Family::Ipv4),
            "IPv6" => families.push(Family::Ipv6),
            other => return Err(format!("spec.ipFamilies {other:?} must be IPv4 or IPv6")),
        }
    }
    if families.is_empty() {
        let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        for family in ips.filter_map(|ip| Some(Family::of(ip.parse::<IpAddr>().ok()?))) {
            if !families.contains(&family) {
                families.push(family);
            }
        }
    }
    let known = !families.is_empty();
    match spec.ip_family_policy.as_deref() {
        Some("RequireDualStack") => Ok((both(families), Count::All)),
        Some("PreferDualStack") if known => Ok((families, Count::Some)),
        Some("PreferDualStack") => Ok((both(families), Count::Some)),
        Some("SingleStack") | None if known => Ok((families.into_iter().take(1).collect(), Count::All)),
        Some("SingleStack") | None => Ok((both(families), Count::One)),
        Some(other) => Err(format!(
            "spec.ipFamilyPolicy {other:?} must be SingleStack, PreferDualStack or RequireDualStack"
        )),
    }
}

fn both(mut families: Vec<Family>) -> Vec<Family> {
    for family in Family::ALL {
        if !families.contains(&family) {
            families.push(family);
        }
    }
    families
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let wrong = |why: &str| {
        format!(
            "{ADDRESSES} {text:?}: {why}: write at most one address of each family, such as 192.0.2.10,2001:db8::10"
        )
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let ip: IpAddr = part.parse().map_err(|_| wrong(&format!("{part:?} is no IP address")))?;
        if addresses.iter().any(|other| Family::of(*other) == Family::of(ip)) {
            return Err(wrong(&format!("two addresses are {}", Family::of(ip))));
        }
        addresses.push(ip);
    }
    Ok(addresses)
}

/// The addresses that the Service's status holds.
pub fn observed(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|one| one.ip.as_ref()?.parse().ok()).collect()
}
