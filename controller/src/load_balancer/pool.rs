//! LoadBalancerPools as values: which may be used at all, and which serve a Service, in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use manx_crds::acceptance::{self, Refusal};
use manx_crds::v1alpha1::selector::selects_opt;
use manx_crds::v1alpha1::{self as api, Assignment, LoadBalancerPool};
use manx_ipam::pool::Family;

use super::range::{Range, Ranges};

/// A LoadBalancerPool, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub name: String,
    /// What may be given: `addresses` without `excluded`.
    pub addresses: Ranges,
    pub service_selector: Option<LabelSelector>,
    pub namespace_selector: Option<LabelSelector>,
    pub assignment: Assignment,
    /// Deletion has begun: it serves nothing new.
    pub terminating: bool,
    pub created: Option<Timestamp>,
}

impl TryFrom<&LoadBalancerPool> for Pool {
    type Error = Refusal;

    fn try_from(object: &LoadBalancerPool) -> Result<Pool, Refusal> {
        acceptance::load_balancer_pool(object)?;
        let spec = &object.spec;
        // What holds no address was refused above.
        let read = |ranges: &[api::Range]| -> Vec<Range> {
            ranges.iter().filter_map(|range| Range::try_from(range).ok()).collect()
        };
        Ok(Pool {
            name: object.name_any(),
            addresses: Ranges::without(&read(&spec.addresses), &read(&spec.excluded)),
            service_selector: spec.service_selector.clone(),
            namespace_selector: spec.namespace_selector.clone(),
            assignment: spec.assignment.clone(),
            terminating: object.metadata.deletion_timestamp.is_some(),
            created: object.creation_timestamp().map(|time| time.0),
        })
    }
}

/// Why a pool gives a Service no new address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Condition Accepted of the pool is False.
    NotAccepted,
    Terminating,
    AssignmentNone,
    AssignmentManual,
    ServiceSelector,
    NamespaceSelector,
    NotNamed,
    NoFamily,
    Full,
}

impl Refused {
    /// The reason as it stands behind the pool's name.
    pub fn text(self) -> &'static str {
        match self {
            Refused::NotAccepted => "the pool is not accepted, see its conditions",
            Refused::Terminating => "the pool is being deleted",
            Refused::AssignmentNone => "assignment None",
            Refused::AssignmentManual => "assignment Manual, and the Service does not name it",
            Refused::ServiceSelector => "serviceSelector does not match",
            Refused::NamespaceSelector => "namespaceSelector does not match",
            Refused::NotNamed => "not the pool that the Service names",
            Refused::NoFamily => "it has no addresses of this family",
            Refused::Full => "every address is in use",
        }
    }
}

/// What of a Service chooses pools.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    pub service_labels: &'a BTreeMap<String, String>,
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// `manx.dev/load-balancer-pool`
    pub named: Option<&'a str>,
    /// The Service asks for an address by itself, which names its pool, too.
    pub by_address: bool,
}

/// All LoadBalancerPools of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pools {
    /// In the order in which they are tried: those with a selector first, then by name (api.md §6.3).
    pools: Vec<Pool>,
    refused: BTreeMap<String, Refusal>,
    /// Addresses of nodes: never given, whatever pool holds them.
    reserved: BTreeSet<IpAddr>,
}

impl Pools {
    /// `taken` are ranges that are not ours to give, each with the words that say whose.
    pub fn new(
        parsed: impl IntoIterator<Item = (String, Result<Pool, Refusal>)>,
        taken: &[(Ranges, String)],
        reserved: BTreeSet<IpAddr>,
    ) -> Pools {
        let mut refused = BTreeMap::new();
        let mut pools = Vec::new();
        for (name, parsed) in parsed {
            match parsed {
                Ok(pool) => pools.push(pool),
                Err(refusal) => drop(refused.insert(name, refusal)),
            }
        }
        pools.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        let mut accepted: Vec<&Pool> = Vec::new();
        for pool in &pools {
            let foreign = taken.iter().find_map(|(ranges, whose)| {
                pool.addresses.overlaps(ranges).map(|(mine, _)| format!("{mine} overlaps {whose}"))
            });
            let older = || {
                accepted.iter().find_map(|older| {
                    let (mine, _) = pool.addresses.overlaps(&older.addresses)?;
                    Some(format!("{mine} overlaps LoadBalancerPool {}; the older pool is used", older.name))
                })
            };
            match foreign.or_else(older) {
                Some(message) => {
                    refused.insert(pool.name.clone(), Refusal { reason: "Overlaps", message });
                }
                None => accepted.push(pool),
            }
        }
        let selective = |pool: &Pool| pool.service_selector.is_some() || pool.namespace_selector.is_some();
        pools.sort_by(|a, b| (!selective(a), &a.name).cmp(&(!selective(b), &b.name)));
        Pools { pools, refused, reserved }
    }

    /// Why a pool's condition Accepted is False.
    pub fn refusal(&self, name: &str) -> Option<&Refusal> {
        self.refused.get(name)
    }

    pub fn get(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// In the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// The pool whose address this is; an accepted one first.
    pub fn holding(&self, ip: IpAddr) -> Option<&Pool> {
        let mut holding = self.pools.iter().filter(|pool| pool.addresses.contains(ip));
        holding.clone().find(|pool| !self.refused.contains_key(&pool.name)).or_else(|| holding.next())
    }

    /// A node has this address.
    pub fn is_reserved(&self, ip: IpAddr) -> bool {
        self.reserved.contains(&ip)
    }

    /// Whether the pool gives this Service a new address of the family.
    ///
    /// # Errors
    /// Why it does not.
    pub fn serves(&self, pool: &Pool, asking: &Asking<'_>, family: Family) -> Result<(), Refused> {
        if self.refused.contains_key(&pool.name) {
            return Err(Refused::NotAccepted);
        }
        if pool.terminating {
            return Err(Refused::Terminating);
        }
        let named = asking.named == Some(pool.name.as_str());
        if asking.named.is_some() && !named {
            return Err(Refused::NotNamed);
        }
        match &pool.assignment {
            Assignment::Automatic => {}
            Assignment::Manual if named || asking.by_address => {}
            Assignment::Manual => return Err(Refused::AssignmentManual),
            Assignment::None | Assignment::Unknown(_) => return Err(Refused::AssignmentNone),
        }
        // Whoever may write a Service is not who gave the pool to some namespaces: naming it opens nothing.
        if !selects_opt(pool.service_selector.as_ref(), asking.service_labels) {
            return Err(Refused::ServiceSelector);
        }
        if !selects_opt(pool.namespace_selector.as_ref(), asking.namespace_labels) {
            return Err(Refused::NamespaceSelector);
        }
        if pool.addresses.has(family) { Ok(()) } else { Err(Refused::NoFamily) }
    }
}
