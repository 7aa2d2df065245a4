//! IPPool: Accepted, Allocatable, AddressesAvailable, `capacity`, the finalizer.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use kube::ResourceExt as _;
use manx_crds::acceptance::{self, Refusal};
use manx_crds::conditions::{AddressesAvailable, Allocatable};
use manx_crds::store::Key;
use manx_crds::v1alpha1::selector::selects_opt;
use manx_crds::v1alpha1::{Assignment, Cidr, IPPool, PoolCapacity};
use manx_ipam::pool::{Pool, Pools};

use super::node::addresses_of;
use super::{About, Band, Notice, Offer, accepted, finalizer, says, status};
use crate::load_balancer::range::{Range, Ranges};
use crate::objects::Objects;
use crate::wish::{Kind, Saying, Wish};

/// Agents watch pools, and addresses come and go with pods.
pub(super) const INTERVAL: Duration = Duration::from_secs(300);
pub(super) const SLOW: &[&str] = &["capacity"];

/// How much of a pool is in use.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    assigned: u64,
    blocks: u64,
}

pub fn judge(objects: &Objects) -> (Vec<Offer>, Vec<Notice>) {
    let parsed = pools(objects);
    let foreign = foreign(objects);
    let mut used: BTreeMap<&str, Use> = BTreeMap::new();
    for block in objects.blocks.iter() {
        let one = used.entry(block.spec.pool.as_str()).or_default();
        one.blocks += 1;
        one.assigned += u64::try_from(block.spec.allocations.len()).unwrap_or(u64::MAX);
    }
    let mut offers = Vec::new();
    let mut notices = Vec::new();
    for object in objects.pools.iter() {
        let name = object.name_any();
        let used = used.get(name.as_str()).copied().unwrap_or_default();
        let size = addresses(object).size();
        let verdict = verdict(object, &parsed, &foreign);
        let available = available(Band::of(u128::from(used.assigned), size), "IPPool");
        let mut conditions = vec![accepted(&verdict), available.clone()];
        conditions.extend(allocatable(objects, object, &verdict));
        let known = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        notices.extend(told_of_pool(Kind::IPPool, &name, known, &verdict, &available));
        let capacity = PoolCapacity {
            addresses: Some(size.to_string()),
            assigned: i64::try_from(used.assigned).ok(),
            blocks: i64::try_from(used.blocks).ok(),
        };
        let mut wish = Wish { conditions, whole: true, slow: Some((SLOW, INTERVAL)), ..Wish::default() };
        wish.fields.insert("capacity".to_owned(), serde_json::to_value(capacity).unwrap_or_default());
        offers.push(status(Kind::IPPool, object, object.status.as_ref(), wish));
        offers.extend(finalizer(Kind::IPPool, object, used.assigned > 0));
    }
    (offers, notices)
}

/// All IPPools that can be read.
pub(super) fn pools(objects: &Objects) -> Pools {
    Pools::new(objects.pools.iter().filter_map(|object| Pool::try_from(object).ok()))
}

/// What of an IPPool may be given to pods.
pub(super) fn addresses(object: &IPPool) -> Ranges {
    let excluded: Vec<Range> = object.spec.excluded.iter().map(|cidr| Range::from(Cidr::net(cidr))).collect();
    Ranges::without(&[Range::from(object.spec.cidr.net())], &excluded)
}

/// Addresses that no pod may have, each with whose they are.
fn foreign(objects: &Objects) -> Vec<(Range, String)> {
    let mut foreign = Vec::new();
    for node in objects.fabric_nodes.iter() {
        for ip in addresses_of(node) {
            foreign.push((
                Range::from(IpNet::from(ip)),
                format!("{ip}, the address of node {}", node.name_any()),
            ));
        }
    }
    for object in objects.service_cidrs.iter() {
        let cidrs = object.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        for cidr in cidrs.filter_map(|text| text.parse::<IpNet>().ok()) {
            let whose = format!("the Service range {cidr} (ServiceCIDR {})", object.name_any());
            foreign.push((Range::from(cidr), whose));
        }
    }
    foreign
}

fn verdict(object: &IPPool, pools: &Pools, foreign: &[(Range, String)]) -> Result<(), Refusal> {
    acceptance::ip_pool(object)?;
    if let Err(error) = Pool::try_from(object) {
        return Err(Refusal { reason: "UnknownValue", message: error.to_string() });
    }
    let overlaps = |message| Err(Refusal { reason: "Overlaps", message });
    if let Some(older) = pools.get(&object.name_any()).and_then(|pool| pools.overlaps(pool)) {
        let (own, theirs) = (&object.spec.cidr, &older.cidr);
        return overlaps(format!("{own} overlaps IPPool {} ({theirs}); the older pool is used", older.name));
    }
    let own = addresses(object);
    match foreign.iter().find(|(range, _)| own.meets(range)) {
        Some((_, whose)) => overlaps(format!(
            "{} overlaps {whose}: exclude it by spec.excluded, or set assignment None and create a pool of another range; \
             until then pods may be given addresses that are not theirs",
            object.spec.cidr
        )),
        None => Ok(()),
    }
}

/// Nothing is said of a pool with values that this version does not know: Accepted says it.
fn allocatable(objects: &Objects, object: &IPPool, verdict: &Result<(), Refusal>) -> Option<Saying> {
    if object.metadata.deletion_timestamp.is_some() {
        let text = "the pool is being deleted: it goes when no pod has an address of it";
        return Some(Saying::new(Allocatable::Terminating, text));
    }
    match verdict {
        Err(refusal) if refusal.reason == "Overlaps" => {
            return Some(Saying::new(Allocatable::Overlaps, refusal.message.clone()));
        }
        Err(_) => return None,
        Ok(()) => {}
    }
    if object.spec.assignment == Assignment::None {
        return Some(Saying::new(Allocatable::AssignmentNone, "assignment None: what is assigned stays"));
    }
    let selector = object.spec.node_selector.as_ref();
    if !objects.fabric_nodes.iter().any(|node| selects_opt(selector, node.labels())) {
        return Some(Saying::new(
            Allocatable::NoMatchingNode,
            "spec.nodeSelector matches no FabricNode: correct it",
        ));
    }
    Some(Saying::new(Allocatable::Allocatable, ""))
}

/// AddressesAvailable; the figures are in `capacity`, because a message with them would never rest.
pub(super) fn available(band: Band, kind: &str) -> Saying {
    match band {
        Band::Below80 => Saying::new(AddressesAvailable::Available, ""),
        Band::From80 => Saying::new(
            AddressesAvailable::NearlyExhausted,
            format!("80 % of the addresses are assigned: add {kind} capacity"),
        ),
        Band::From95 => Saying::new(
            AddressesAvailable::NearlyExhausted,
            format!("95 % of the addresses are assigned: add {kind} capacity"),
        ),
        Band::Full => Saying::new(
            AddressesAvailable::Exhausted,
            format!("every address is assigned: add {kind} capacity"),
        ),
    }
}

/// Events about a pool.
pub(super) fn told_of_pool(
    kind: Kind,
    name: &str,
    known: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    verdict: &Result<(), Refusal>,
    available: &Saying,
) -> Vec<Notice> {
    let about = || About::Object(kind, Key::cluster(name));
    let mut notices = Vec::new();
    if let Err(refusal) = verdict
        && refusal.reason == "Overlaps"
    {
        notices.push(Notice {
            about: about(),
            reason: "PoolOverlaps",
            note: refusal.message.clone(),
            told: says(known, &accepted(verdict)),
        });
    }
    let reason = match available.reason {
        "Exhausted" => Some("PoolExhausted"),
        "NearlyExhausted" => Some("PoolNearlyExhausted"),
        _ => None,
    };
    notices.extend(reason.map(|reason| Notice {
        about: about(),
        reason,
        note: available.message.clone(),
        told: says(known, available),
    }));
    notices
}
