//! Kinds that this version stores and does not act on: Accepted says so, and nobody believes that a policy protects.

use manx_crds::acceptance::{self, Refusal};
use manx_crds::store::Object;
use serde::Serialize;

use super::{Offer, accepted, status};
use crate::objects::Objects;
use crate::wish::{Kind, Wish};

/// What each of these kinds should say.
pub fn judge(objects: &Objects) -> [(Kind, Vec<Offer>); 5] {
    let tiers = objects.tiers.iter().map(|tier| {
        let verdict = acceptance::tier(tier);
        offer(Kind::Tier, tier, tier.status.as_ref(), &verdict)
    });
    let filters = objects.filters.iter().map(|one| {
        let verdict = acceptance::bgp_filter(one, objects.the_configuration());
        offer(Kind::BGPFilter, one, one.status.as_ref(), &verdict)
    });
    let policies =
        objects.own_policies.iter().map(|one| later(Kind::NetworkPolicy, one, one.status.as_ref()));
    let global = objects.global_policies.iter();
    let global = global.map(|one| later(Kind::GlobalNetworkPolicy, one, one.status.as_ref()));
    let hosts = objects.host_endpoints.iter().map(|one| later(Kind::HostEndpoint, one, one.status.as_ref()));
    [
        (Kind::Tier, tiers.collect()),
        (Kind::BGPFilter, filters.collect()),
        (Kind::NetworkPolicy, policies.collect()),
        (Kind::GlobalNetworkPolicy, global.collect()),
        (Kind::HostEndpoint, hosts.collect()),
    ]
}

fn later<K: Object>(kind: Kind, object: &K, status: Option<&impl Serialize>) -> Offer {
    offer(kind, object, status, &acceptance::kind(&K::kind(&())))
}

fn offer<K: Object>(
    kind: Kind,
    object: &K,
    current: Option<&impl Serialize>,
    verdict: &Result<(), Refusal>,
) -> Offer {
    let wish = Wish { conditions: vec![accepted(verdict)], whole: true, ..Wish::default() };
    status(kind, object, current, wish)
}
