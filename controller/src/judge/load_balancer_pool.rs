//! LoadBalancerPool: Accepted, Allocatable, AddressesAvailable, `capacity`, the finalizer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kube::ResourceExt as _;
use manx_crds::acceptance::Refusal;
use manx_crds::conditions::Allocatable;
use manx_crds::v1alpha1::{Assignment, LoadBalancerPool, LoadBalancerPoolCapacity};
use manx_ipam::pool::Pools as PodPools;

use super::node::addresses_of;
use super::pool::{INTERVAL, SLOW, addresses, available, pools as pod_pools, told_of_pool};
use super::{Band, Notice, Offer, accepted, finalizer, status};
use crate::load_balancer::pool::{Pool, Pools};
use crate::load_balancer::range::Ranges;
use crate::objects::Objects;
use crate::wish::{Kind, Saying, Wish};

/// All LoadBalancerPools, for judging them and for giving their addresses away.
pub fn pools(objects: &Objects) -> Pools {
    let pod_pools: PodPools = pod_pools(objects);
    // Agents hand out pod addresses without looking at our pools, so an IPPool holds, whatever its age.
    let taken: Vec<(Ranges, String)> = objects
        .pools
        .iter()
        .filter(|object| {
            pod_pools.get(&object.name_any()).is_some_and(|pool| pod_pools.overlaps(pool).is_none())
        })
        .map(|object| {
            let words =
                format!("IPPool {} ({}), whose addresses are for pods", object.name_any(), object.spec.cidr);
            (addresses(object), words)
        })
        .collect();
    let nodes: BTreeSet<IpAddr> = objects.fabric_nodes.iter().flat_map(addresses_of).collect();
    let parsed = objects.load_balancer_pools.iter().map(|object| (object.name_any(), Pool::try_from(object)));
    Pools::new(parsed, &taken, nodes)
}

pub fn judge(objects: &Objects, pools: &Pools, in_use: &BTreeSet<IpAddr>) -> (Vec<Offer>, Vec<Notice>) {
    let mut offers = Vec::new();
    let mut notices = Vec::new();
    for object in objects.load_balancer_pools.iter() {
        let name = object.name_any();
        let verdict = pools.refusal(&name).map_or(Ok(()), |refusal| Err(refusal.clone()));
        let mut conditions = vec![accepted(&verdict)];
        conditions.extend(allocatable(object, &verdict));
        let mut wish = Wish { whole: true, slow: Some((SLOW, INTERVAL)), ..Wish::default() };
        let mut assigned = 0;
        if let Some(pool) = pools.get(&name) {
            let size = pool.addresses.size();
            assigned = in_use.iter().filter(|ip| pool.addresses.contains(**ip)).count();
            let assigned = u64::try_from(assigned).unwrap_or(u64::MAX);
            let available = available(Band::of(u128::from(assigned), size), "LoadBalancerPool");
            let known = object.status.as_ref().map(|status| status.conditions.as_slice());
            notices.extend(told_of_pool(
                Kind::LoadBalancerPool,
                &name,
                known.unwrap_or_default(),
                &verdict,
                &available,
            ));
            conditions.push(available);
            let capacity = LoadBalancerPoolCapacity {
                addresses: Some(size.to_string()),
                assigned: i64::try_from(assigned).ok(),
            };
            wish.fields.insert("capacity".to_owned(), serde_json::to_value(capacity).unwrap_or_default());
        }
        wish.conditions = conditions;
        offers.push(status(Kind::LoadBalancerPool, object, object.status.as_ref(), wish));
        offers.extend(finalizer(Kind::LoadBalancerPool, object, assigned > 0));
    }
    (offers, notices)
}

/// Nothing is said of a pool whose fields mean nothing: Accepted says it.
fn allocatable(object: &LoadBalancerPool, verdict: &Result<(), Refusal>) -> Option<Saying> {
    if object.metadata.deletion_timestamp.is_some() {
        let text = "the pool is being deleted: it goes when no Service has an address of it";
        return Some(Saying::new(Allocatable::Terminating, text));
    }
    match verdict {
        Err(refusal) if refusal.reason == "Overlaps" => {
            Some(Saying::new(Allocatable::Overlaps, refusal.message.clone()))
        }
        Err(_) => None,
        Ok(()) if object.spec.assignment == Assignment::None => {
            Some(Saying::new(Allocatable::AssignmentNone, "assignment None: what is assigned stays"))
        }
        Ok(()) => Some(Saying::new(Allocatable::Allocatable, "")),
    }
}
