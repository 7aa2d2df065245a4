//! FabricNode: IdentityUnique. Two nodes with one address or one router id: the younger is told, and starts no session.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use kube::ResourceExt as _;
use manx_crds::conditions::IdentityUnique;
use manx_crds::store::Key;
use manx_crds::v1alpha1::{FabricNode, RouterId};

use super::{About, Notice, Offer, age, says, status};
use crate::objects::Objects;
use crate::wish::{Kind, Saying, Wish};

/// A conflict is told when it has held for this long: addresses that move from node to node meet for a moment.
const HOLD: Duration = Duration::from_secs(10);

/// Since when conflicts hold.
#[derive(Clone, Debug, Default)]
pub struct Conflicts(BTreeMap<String, Duration>);

impl Conflicts {
    /// When a conflict will have held for long enough.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        self.0.values().map(|since| since.saturating_add(HOLD)).filter(|at| *at > now).min()
    }

    pub fn judge(&mut self, objects: &Objects, now: Duration) -> (Vec<Offer>, Vec<Notice>) {
        let verdicts = verdicts(objects);
        self.0.retain(|name, _| verdicts.get(name).is_some_and(|saying| saying.status == "False"));
        let mut offers = Vec::new();
        let mut notices = Vec::new();
        for node in objects.fabric_nodes.iter() {
            let name = node.name_any();
            let Some(verdict) = verdicts.get(&name) else { continue };
            let conditions = node.status.as_ref().map(|status| status.conditions.as_slice());
            let known = says(conditions.unwrap_or_default(), verdict);
            let mut said = verdict.clone();
            if verdict.status == "False" {
                let since = *self.0.entry(name.clone()).or_insert(now);
                if now < since.saturating_add(HOLD) && !known {
                    said = Saying::new(IdentityUnique::Unique, "");
                } else {
                    notices.push(Notice {
                        about: About::Object(Kind::FabricNode, Key::cluster(&name)),
                        reason: "IdentityConflict",
                        note: verdict.message.clone(),
                        told: known,
                    });
                }
            }
            let wish = Wish { conditions: vec![said], ..Wish::default() };
            offers.push(status(Kind::FabricNode, node, node.status.as_ref(), wish));
        }
        (offers, notices)
    }
}

/// Whether each node is the only one, or younger than one with the same identity.
fn verdicts(objects: &Objects) -> BTreeMap<String, Saying> {
    let mut nodes: Vec<&FabricNode> = objects.fabric_nodes.iter().collect();
    nodes.sort_by_key(|node| age(*node));
    let mut addresses: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut router_ids: BTreeMap<RouterId, String> = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    for node in nodes {
        let name = node.name_any();
        let own = addresses_of(node);
        let router_id = node.status.as_ref().and_then(|status| status.bgp.as_ref()?.router_id);
        let by_address = own.iter().find_map(|ip| Some((ip, addresses.get(ip)?)));
        let by_id = router_id.and_then(|id| Some((id, router_ids.get(&id)?)));
        let saying = match (by_address, by_id) {
            (Some((ip, older)), _) => Saying::new(
                IdentityUnique::DuplicateAddress,
                format!(
                    "{ip} is the address of node {older}, too, which is older: correct the Node's InternalIP, or set \
                     spec.addresses of FabricNode {name}"
                ),
            ),
            (None, Some((id, older))) => Saying::new(
                IdentityUnique::DuplicateRouterID,
                format!(
                    "router id {id} is that of node {older}, too, which is older: set spec.routerID of FabricNode {name}"
                ),
            ),
            (None, None) => Saying::new(IdentityUnique::Unique, ""),
        };
        for ip in own {
            addresses.entry(ip).or_insert_with(|| name.clone());
        }
        if let Some(id) = router_id {
            router_ids.entry(id).or_insert_with(|| name.clone());
        }
        verdicts.insert(name, saying);
    }
    verdicts
}

/// A node's addresses, as felix chose them.
pub fn addresses_of(node: &FabricNode) -> Vec<IpAddr> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    addresses.into_iter().flat_map(|found| [found.ipv4, found.ipv6]).flatten().map(IpAddr::from).collect()
}
