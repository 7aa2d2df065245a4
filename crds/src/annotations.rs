//! The keys of Manx on objects of others (api.md §8): names and parsers. A value that does not parse fails what asked
//! for it, with key and value quoted; it is never ignored.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::v1alpha1::{Cidr, PolicyMode};

/// Taint of a Node whose felix is not ready; effect NoSchedule. Set by kubelet, removed by felix.
pub const AGENT_NOT_READY_TAINT: &str = "manx.dev/agent-not-ready";
/// Label of a Node that announces no Service's external address.
pub const EXCLUDE_FROM_LOAD_BALANCERS_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// `Service.spec.loadBalancerClass` of Services that are ours alone.
pub const LOAD_BALANCER_CLASS: &str = "manx.dev/load-balancer";

/// IPPools of a pod, in this order; selectors are ignored. On Pod and Namespace.
pub const IP_POOLS: Annotation<Vec<String>> = Annotation { key: "manx.dev/ip-pools", parse: pools };
/// Families of a pod, sorted; absent is every family with a pool. On Pod and Namespace.
pub const IP_FAMILIES: Annotation<Vec<IpFamily>> =
    Annotation { key: "manx.dev/ip-families", parse: families };
/// Exactly these, or ADD fails. On Pod: on a Namespace it would be every pod's.
pub const IP_ADDRESSES: Annotation<Addresses> = Annotation { key: "manx.dev/ip-addresses", parse: addresses };
/// What a pod may send from beside its own address. On Namespace and Pod; see [`allowed_source_prefixes`].
pub const ALLOWED_SOURCE_PREFIXES: Annotation<Vec<Cidr>> =
    Annotation { key: "manx.dev/allowed-source-prefixes", parse: prefixes };
/// The LoadBalancerPool of a Service. The pool's selectors count all the same: whoever writes a Service is not who gave
/// the pool to some namespaces. On Service.
pub const LOAD_BALANCER_POOL: Annotation<String> =
    Annotation { key: "manx.dev/load-balancer-pool", parse: pool };
/// Exactly these, or the assignment fails. On Service.
pub const LOAD_BALANCER_IPS: Annotation<Addresses> =
    Annotation { key: "manx.dev/load-balancer-ips", parse: addresses };
/// Services of equal key and disjoint ports share an address. On Service; any text.
pub const SHARED_ADDRESS_KEY: Annotation<String> =
    Annotation { key: "manx.dev/shared-address-key", parse: any_text };
/// `spec.mode` of policies of Kubernetes. On NetworkPolicy and ClusterNetworkPolicy; what is not `Audit` enforces
/// (api.md §7.4).
pub const MODE: Annotation<PolicyMode> = Annotation { key: "manx.dev/mode", parse: mode };
/// The revision of the schema that a CRD is of (api.md §14). On our CRDs.
pub const SCHEMA_REVISION: Annotation<u32> =
    Annotation { key: "manx.dev/schema-revision", parse: schema_revision };

/// A key and what its value means.
#[derive(Clone, Copy, Debug)]
pub struct Annotation<T> {
    pub key: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

/// A value that does not parse, quoted with its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key}: invalid value {value:?}: {problem}")]
pub struct BadAnnotation {
    pub key: &'static str,
    pub value: String,
    pub problem: String,
}

impl<T> Annotation<T> {
    /// What a value means.
    ///
    /// # Errors
    /// A value that means nothing.
    pub fn parse(&self, value: &str) -> Result<T, BadAnnotation> {
        (self.parse)(value).map_err(|problem| self.refuse(value, problem))
    }

    /// What an object's annotations say; none where they do not hold the key.
    ///
    /// # Errors
    /// A value that means nothing.
    pub fn read(&self, annotations: Option<&BTreeMap<String, String>>) -> Result<Option<T>, BadAnnotation> {
        annotations.and_then(|all| all.get(self.key)).map(|value| self.parse(value)).transpose()
    }

    /// As [`Annotation::read`], of a Pod and its Namespace: the Pod's value replaces the Namespace's.
    ///
    /// # Errors
    /// A value in force that means nothing.
    pub fn read_pod(
        &self,
        pod: Option<&BTreeMap<String, String>>,
        namespace: Option<&BTreeMap<String, String>>,
    ) -> Result<Option<T>, BadAnnotation> {
        Ok(match self.read(pod)? {
            Some(value) => Some(value),
            None => self.read(namespace)?,
        })
    }

    /// The error of a value that parses and still cannot be honoured.
    pub fn refuse(&self, value: &str, problem: impl Into<String>) -> BadAnnotation {
        BadAnnotation { key: self.key, value: value.to_owned(), problem: problem.into() }
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    IPv4,
    IPv6,
}

/// At most one address a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

impl Addresses {
    /// IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// What a pod may send from: what its Namespace lists, or the part of it that the Pod names.
///
/// # Errors
/// A value that means nothing, or a prefix of the Pod outside all of its Namespace.
pub fn allowed_source_prefixes(
    pod: Option<&BTreeMap<String, String>>,
    namespace: Option<&BTreeMap<String, String>>,
) -> Result<Vec<Cidr>, BadAnnotation> {
    let listed = ALLOWED_SOURCE_PREFIXES.read(namespace)?.unwrap_or_default();
    let Some(own) = ALLOWED_SOURCE_PREFIXES.read(pod)? else { return Ok(listed) };
    match own.iter().find(|cidr| !listed.iter().any(|range| range.net().contains(&cidr.net()))) {
        Some(outside) => {
            let value = pod.and_then(|all| all.get(ALLOWED_SOURCE_PREFIXES.key)).map_or("", String::as_str);
            let problem = format!(
                "{outside} must lie inside what {} lists on the pod's Namespace",
                ALLOWED_SOURCE_PREFIXES.key
            );
            Err(ALLOWED_SOURCE_PREFIXES.refuse(value, problem))
        }
        None => Ok(own),
    }
}

/// A DNS-1123 subdomain, as far as it can name an object.
fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let ends = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 253
        && text.bytes().all(legal)
        && text.bytes().next().is_some_and(ends)
        && text.bytes().last().is_some_and(ends)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

fn pools(text: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for name in words(text) {
        if !is_name(name) {
            return Err("must be names of IPPools, comma-separated".to_owned());
        }
        if names.iter().any(|known| known == name) {
            return Err(format!("{name} is named twice"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn families(text: &str) -> Result<Vec<IpFamily>, String> {
    let mut families = Vec::new();
    for word in words(text) {
        let family = match word {
            "IPv4" => Some(IpFamily::IPv4),
            "IPv6" => Some(IpFamily::IPv6),
            _ => None,
        };
        match family.filter(|family| !families.contains(family)) {
            Some(family) => families.push(family),
            None => return Err("must be IPv4, IPv6 or IPv4,IPv6".to_owned()),
        }
    }
    families.sort();
    Ok(families)
}

fn addresses(text: &str) -> Result<Addresses, String> {
    let mut addresses = Addresses::default();
    for word in words(text) {
        let twice = match word.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => addresses.ipv4.replace(ip).map(|_| "IPv4"),
            Ok(IpAddr::V6(ip)) => addresses.ipv6.replace(ip).map(|_| "IPv6"),
            Err(_) => {
                return Err(format!("{word:?} is no address; must be at most one IPv4 and one IPv6 address"));
            }
        };
        if let Some(family) = twice {
            return Err(format!("two {family} addresses; must be at most one a family"));
        }
    }
    Ok(addresses)
}

fn prefixes(text: &str) -> Result<Vec<Cidr>, String> {
    words(text)
        .map(|word| word.parse().map_err(|error: crate::v1alpha1::ValueError| error.to_string()))
        .collect()
}

fn pool(text: &str) -> Result<String, String> {
    let name = text.trim();
    if is_name(name) { Ok(name.to_owned()) } else { Err("must be the name of a LoadBalancerPool".to_owned()) }
}

#[expect(clippy::unnecessary_wraps, reason = "every parser has one type")]
fn any_text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "every parser has one type")]
fn mode(text: &str) -> Result<PolicyMode, String> {
    Ok(if text == "Audit" { PolicyMode::Audit } else { PolicyMode::Enforce })
}

fn schema_revision(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "must be an integer".to_owned())
}

#[cfg(test)]
mod tests;
