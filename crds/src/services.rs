//! Which addresses of Services a node originates (api.md §5.3): a pure function of a Service, all its EndpointSlices
//! and the node, and [`ServiceIndex`], which keeps the answers while objects come and go.
//!
//! ```text
//!   Service ──► ServiceFacts ─┐
//!   EndpointSlices ─► Endpoints ─┼─► prefixes(rule, …) ─► ServiceIndex: prefix ─► the BGPAdvertisements that say so
//!   ServiceAdvertisement ─────┘
//! ```
//! One definition for two readers, so that they never differ: bgpd tells the prefixes to peers, felix rejects in its
//! forward chain what kube-proxy left of them (no service loop). Nothing here is ever installed as a route.
//!
//! | question | answer |
//! |---|---|
//! | which Services | those kube-proxy serves: neither headless nor ExternalName |
//! | which policy | ClusterIP: `internalTrafficPolicy`; ExternalIP, LoadBalancerIP: `externalTrafficPolicy` |
//! | Cluster | here, while an endpoint of the address's family is ready and not terminating |
//! | Local | here, while such an endpoint is on this node |
//! | none such anywhere | `whenNoEndpoints`: Withdraw, or Announce from every selected node under either policy |
//! | `announce: CIDRs` | the `cidrs` around an address that is announced here; with Local its host route too |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::v1alpha1::selector::selects_opt;
use crate::v1alpha1::{ServiceAddressType, ServiceAdvertisement, ServiceAnnounce, WhenNoEndpoints};

mod index;
pub use index::{Gates, ServiceIndex};

/// A node with this label, whatever its value, announces no Service.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Says on an EndpointSlice which Service of its namespace it belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Whether a node with these labels announces no Service at all.
pub fn excludes(node_labels: &BTreeMap<String, String>) -> bool {
    node_labels.contains_key(EXCLUDE_LABEL)
}

/// How a Service came by an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    ClusterIP,
    ExternalIP,
    LoadBalancerIP,
}

impl Source {
    fn is(self, wanted: &ServiceAddressType) -> bool {
        match wanted {
            ServiceAddressType::ClusterIP => self == Self::ClusterIP,
            ServiceAddressType::ExternalIP => self == Self::ExternalIP,
            ServiceAddressType::LoadBalancerIP => self == Self::LoadBalancerIP,
            // acceptance::bgp_advertisement refuses the whole advertisement.
            ServiceAddressType::Unknown(_) => false,
        }
    }
}

/// What of a Service decides; an update of anything else follows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    labels: BTreeMap<String, String>,
    addresses: BTreeSet<(Source, IpAddr)>,
    /// `internalTrafficPolicy: Local`
    internal_local: bool,
    /// `externalTrafficPolicy: Local`
    external_local: bool,
}

impl ServiceFacts {
    /// Reads a Service. Text that is no address, and addresses that name no host of a network, are left out.
    pub fn of(service: &Service) -> Self {
        let mut facts =
            Self { labels: service.metadata.labels.clone().unwrap_or_default(), ..Self::default() };
        let Some(spec) = service.spec.as_ref().filter(|spec| is_served(spec)) else { return facts };
        facts.internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
        facts.external_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let cluster = spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.iter());
        facts.take(Source::ClusterIP, cluster.map(String::as_str));
        facts.take(Source::ExternalIP, spec.external_ips.iter().flatten().map(String::as_str));
        if spec.type_.as_deref() == Some("LoadBalancer") {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let ingress = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
            // ipMode Proxy: packets to the address end in a balancer elsewhere, and kube-proxy leaves them alone.
            let ours = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
            facts.take(Source::LoadBalancerIP, ours.filter_map(|ingress| ingress.ip.as_deref()));
        }
        facts
    }

    fn take<'a>(&mut self, source: Source, texts: impl Iterator<Item = &'a str>) {
        let addresses = texts.filter_map(|text| text.parse::<IpAddr>().ok()).filter(names_a_host);
        self.addresses.extend(addresses.map(|address| (source, address)));
    }

    fn is_local(&self, source: Source) -> bool {
        match source {
            Source::ClusterIP => self.internal_local,
            Source::ExternalIP | Source::LoadBalancerIP => self.external_local,
        }
    }
}

/// What kube-proxy serves. An empty clusterIP is an object that was not written by an API server: its other addresses count.
fn is_served(spec: &ServiceSpec) -> bool {
    let headless = spec.cluster_ip.as_deref() == Some("None")
        || spec.cluster_ips.iter().flatten().any(|address| address == "None");
    !headless && spec.type_.as_deref() != Some("ExternalName")
}

fn names_a_host(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    !(link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// Whether there are endpoints of one family that take new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usable {
    anywhere: bool,
    here: bool,
}

/// The endpoints of a Service, or of one of its slices, as one node sees them. kube-proxy serves an address from
/// endpoints of its own family, so each family counts for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    ipv4: Usable,
    ipv6: Usable,
}

impl Endpoints {
    /// Reads one EndpointSlice.
    pub fn of(slice: &EndpointSlice, node: &str) -> Self {
        let mut usable = Usable::default();
        for endpoint in slice.endpoints.iter().filter(|endpoint| takes_traffic(endpoint)) {
            usable.anywhere = true;
            usable.here |= endpoint.node_name.as_deref() == Some(node);
        }
        match slice.address_type.as_str() {
            "IPv4" => Self { ipv4: usable, ..Self::default() },
            "IPv6" => Self { ipv6: usable, ..Self::default() },
            // FQDN: no address that anything is sent to.
            _ => Self::default(),
        }
    }

    /// Those of two slices of one Service.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let join =
            |a: Usable, b: Usable| Usable { anywhere: a.anywhere || b.anywhere, here: a.here || b.here };
        Self { ipv4: join(self.ipv4, other.ipv4), ipv6: join(self.ipv6, other.ipv6) }
    }

    /// Whether one of either family takes new connections on this node.
    #[must_use]
    pub fn any_here(self) -> bool {
        self.ipv4.here || self.ipv6.here
    }

    fn for_address(self, address: IpAddr) -> Usable {
        match address {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        }
    }
}

/// Ready and not terminating. An absent `ready` is yes and an absent `terminating` no, as the API defines them;
/// `publishNotReadyAddresses` keeps a terminating endpoint ready, and it is left all the same: it is about to go.
fn takes_traffic(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    ready && !terminating
}

/// What `rule` originates of one Service on a node whose view of its endpoints is `endpoints`. Whether the node is
/// selected, or [excluded](excludes), was asked before.
pub fn prefixes(
    rule: &ServiceAdvertisement,
    service: &ServiceFacts,
    endpoints: Endpoints,
    namespace_labels: &BTreeMap<String, String>,
) -> BTreeSet<IpNet> {
    let mut prefixes = BTreeSet::new();
    if !selects_opt(rule.service_selector.as_ref(), &service.labels)
        || !selects_opt(rule.namespace_selector.as_ref(), namespace_labels)
    {
        return prefixes;
    }
    for (source, address) in &service.addresses {
        let is_local = service.is_local(*source);
        if !rule.address_types.iter().any(|wanted| source.is(wanted))
            || !is_announced(&rule.when_no_endpoints, is_local, endpoints.for_address(*address))
        {
            continue;
        }
        let ranges: Vec<IpNet> =
            rule.cidrs.iter().map(|cidr| cidr.net()).filter(|range| range.contains(address)).collect();
        // Any author of a Service can set externalIPs (CVE-2020-8554), so these must lie in a range, always.
        let anywhere = rule.cidrs.is_empty() && *source != Source::ExternalIP;
        if ranges.is_empty() && !anywhere {
            continue;
        }
        match rule.announce {
            ServiceAnnounce::Hosts => drop(prefixes.insert(IpNet::from(*address))),
            ServiceAnnounce::CIDRs => {
                prefixes.extend(ranges);
                if is_local {
                    prefixes.insert(IpNet::from(*address));
                }
            }
            // acceptance::bgp_advertisement refuses the whole advertisement.
            ServiceAnnounce::Unknown(_) => {}
        }
    }
    prefixes
}

fn is_announced(when_none: &WhenNoEndpoints, is_local: bool, usable: Usable) -> bool {
    if usable.anywhere {
        return usable.here || !is_local;
    }
    match when_none {
        WhenNoEndpoints::Announce => true,
        WhenNoEndpoints::Withdraw | WhenNoEndpoints::Unknown(_) => false,
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
