//! Node-to-node sessions (topology.mode FullMesh and RouteReflector, peerNodeSelector): who of our nodes speaks to whom, as a
//! pure function of FabricNodes and of the reflectors that were elected.
//!
//! "Both ends ours" (api.md §5.1): both ends work out the same, from the same objects. A client dials its reflector; else the
//! higher router id dials, the other end waits; a node without a listener dials, whatever the ids. One session carries both families, between the
//! IPv4 addresses where both nodes have one, else between the IPv6 ones.
//!
//! A node of which no address or no ASN is known yet gets no session. Of two nodes with one address or one router id the
//! younger has none, with anybody: with both, the others could not tell whom they speak to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::{AfiSafi, Asn, PeerName, RouterId};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use manx_crds::acceptance::Refusal;
use manx_crds::v1alpha1 as api;
use manx_crds::v1alpha1::settings::{self, EffectiveNode};
use manx_crds::v1alpha1::{BGPSession, FabricConfiguration, FabricNode, TOPOLOGY_PEER};

/// Who a node is to BGP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) asn: Asn,
    pub(crate) router_id: RouterId,
    pub(crate) addresses: BTreeMap<AfiSafi, IpAddr>,
    /// 0 listens nowhere.
    pub(crate) port: u16,
}

/// One other node, as this one speaks to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) node: String,
    /// Whose session it is: a BGPPeer's, or the topology's.
    pub(crate) class: String,
    pub(crate) remote: IpAddr,
    pub(crate) local: IpAddr,
    pub(crate) asn: Asn,
    pub(crate) port: u16,
    /// We dial, and report; else we wait, and the other end reports.
    pub(crate) dials: bool,
    /// All its addresses: the next hops of what it tells.
    pub(crate) addresses: Vec<IpAddr>,
    /// We reflect routes to it (RFC 4456).
    pub(crate) client: bool,
}

/// What follows from all nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mesh {
    /// By name of the session's peer, `<class>.<remote>`.
    pub(crate) links: BTreeMap<PeerName, Link>,
    /// Addresses of nodes whose routes a reflector tells: next hops without a session.
    pub(crate) reflected: BTreeSet<IpAddr>,
    /// Set: this node is the younger of two with one address or router id, and starts no session.
    pub(crate) conflict: Option<Refusal>,
    /// Set: this node has no address that a session could run on.
    pub(crate) homeless: Option<String>,
    /// Why some node has none, for BGPReady.
    pub(crate) remarks: Vec<String>,
}

/// The node's address of each family: a person's word, else what felix found, else the Node's first address of the kind
/// that is wanted; never "first found".
pub(crate) fn addresses(
    effective: &EffectiveNode,
    fabric_node: Option<&FabricNode>,
    node: Option<&Node>,
) -> BTreeMap<AfiSafi, IpAddr> {
    let mut all: Vec<IpAddr> = [effective.ipv4, effective.ipv6].into_iter().flatten().collect();
    if let Some(found) = fabric_node.and_then(|n| n.status.as_ref()?.addresses.as_ref()) {
        all.extend([found.ipv4, found.ipv6].into_iter().flatten().map(IpAddr::from));
    }
    let wanted = match effective.address.source {
        api::AddressSource::ExternalIP => "ExternalIP",
        // Interface and Subnet are read by felix, whose status carries the result; until then, the Node's word.
        api::AddressSource::InternalIP
        | api::AddressSource::Interface
        | api::AddressSource::Subnet
        | api::AddressSource::Unknown(_) => "InternalIP",
    };
    let listed = node.and_then(|n| n.status.as_ref()).and_then(|s| s.addresses.as_ref());
    let listed = listed.into_iter().flatten().filter(|address| address.type_ == wanted);
    all.extend(listed.filter_map(|address| address.address.parse::<IpAddr>().ok()));
    let mut found = BTreeMap::new();
    for address in all {
        found.entry(AfiSafi::of_address(address)).or_insert(address);
    }
    found
}

/// As set, the IPv4 address, or a hash of the name.
pub(crate) fn router_id(
    effective: &EffectiveNode,
    addresses: &BTreeMap<AfiSafi, IpAddr>,
    name: &str,
) -> RouterId {
    let ipv4 = match addresses.get(&AfiSafi::Ipv4Unicast) {
        Some(IpAddr::V4(ip)) => Some(*ip),
        Some(IpAddr::V6(_)) | None => None,
    };
    RouterId(settings::router_id(effective.router_id, ipv4, name).0)
}

/// Another node's identity, worked out as it does itself; `None`: not known yet.
fn identity(configuration: Option<&FabricConfiguration>, node: &FabricNode) -> Option<Identity> {
    let effective = EffectiveNode::of(configuration, Some(node), node.labels());
    let addresses = addresses(&effective, Some(node), None);
    if addresses.is_empty() {
        return None;
    }
    // A node whose label became invalid runs on with the ASN that it reports.
    let reported = || node.status.as_ref()?.bgp.as_ref()?.asn.map(Asn);
    let asn = effective.asn.as_ref().ok().map(|asn| Asn(asn.0)).or_else(reported)?;
    let router_id = router_id(&effective, &addresses, &node.name_any());
    Some(Identity { asn, router_id, addresses, port: effective.bgp_port })
}

/// Which sessions between nodes there are to be.
pub(crate) struct Wanted<'a> {
    /// Some pair of nodes may have one.
    pub(crate) any: bool,
    /// Whose session the one with this node is; none: there is none.
    pub(crate) class: &'a dyn Fn(&FabricNode) -> Option<String>,
    /// Who reflects routes between the nodes of the topology, by name; empty: nobody does.
    pub(crate) reflectors: &'a BTreeSet<String>,
}

impl Wanted<'_> {
    /// Whether we are a reflector on a session of this class, and whether the other node is.
    fn reflect(&self, class: &str, own_name: &str, other: &str) -> (bool, bool) {
        match class == TOPOLOGY_PEER {
            true => (self.reflectors.contains(own_name), self.reflectors.contains(other)),
            false => (false, false),
        }
    }
}

/// What is taken already, and by whom.
#[derive(Default)]
struct Taken {
    addresses: BTreeMap<IpAddr, String>,
    router_ids: BTreeMap<RouterId, String>,
}

impl Taken {
    /// Who older has the same, in words.
    fn conflict(&self, identity: &Identity) -> Option<(String, &String)> {
        let address = identity.addresses.values().find_map(|address| {
            self.addresses.get(address).map(|holder| (format!("address {address}"), holder))
        });
        let router_id = || {
            self.router_ids.get(&identity.router_id).map(|h| (format!("router id {}", identity.router_id), h))
        };
        address.or_else(router_id)
    }

    fn take(&mut self, name: &str, identity: &Identity) {
        self.addresses.extend(identity.addresses.values().map(|address| (*address, name.to_owned())));
        self.router_ids.insert(identity.router_id, name.to_owned());
    }
}

/// Works out the links of node `own_name`, whose identity is `own`. Conflicts of identity count whether sessions are wanted
/// or not.
pub(crate) fn mesh<'a>(
    configuration: Option<&FabricConfiguration>,
    own: &Identity,
    own_name: &str,
    nodes: impl Iterator<Item = &'a FabricNode>,
    wanted: &Wanted<'_>,
) -> Mesh {
    let open = wanted.any;
    let mut mesh = Mesh::default();
    let mut taken = Taken::default();
    for (name, node) in oldest_first(nodes) {
        let is_own = name == own_name;
        let identity = if is_own { Some(own.clone()) } else { identity(configuration, node) };
        let Some(identity) = identity else { continue };
        if let Some((what, holder)) = taken.conflict(&identity) {
            if is_own {
                mesh.conflict = Some(not_unique(&what, holder));
            } else if open {
                mesh.remarks
                    .push(format!("no session with {name}: {what} is that of the older node {holder}"));
            }
            continue;
        }
        taken.take(&name, &identity);
        if !wanted.reflectors.is_empty() {
            mesh.reflected.extend(identity.addresses.values());
        }
        let class = if is_own { None } else { (wanted.class)(node) };
        if let Some(class) = class {
            let reflects = wanted.reflect(&class, own_name, &name);
            mesh.remarks.extend(other_as(own, &name, &identity, reflects));
            match link(own, &name, class, &identity, reflects) {
                Ok(link) => {
                    let peer = BGPSession::peer_of_class(&link.class, link.remote);
                    mesh.links.insert(PeerName::from(peer.as_str()), link);
                }
                Err(why) => mesh.remarks.push(why),
            }
        }
    }
    if own.addresses.is_empty() && open {
        mesh.homeless = Some(format!(
            "no node-to-node session: node {own_name} has no address: give Node {own_name} an InternalIP, or FabricNode \
             {own_name} spec.addresses"
        ));
        mesh.remarks.clear();
    }
    // Nobody else can know this node before its object is there.
    if !taken.router_ids.values().any(|name| name == own_name) && mesh.conflict.is_none() {
        mesh.links.clear();
        if open {
            mesh.remarks = vec![format!("no node-to-node session: FabricNode {own_name} is not there yet")];
        }
    }
    mesh
}

fn not_unique(what: &str, holder: &str) -> Refusal {
    let message = format!(
        "{what} is also that of the older node {holder}: give one of the two another, in spec.addresses or \
         spec.routerID of its FabricNode; until then this node starts no session"
    );
    Refusal { reason: "IdentityNotUnique", message }
}

/// By creation, then by name. An object without a time is as old as any.
fn oldest_first<'a>(nodes: impl Iterator<Item = &'a FabricNode>) -> Vec<(String, &'a FabricNode)> {
    let mut nodes: Vec<(Option<Timestamp>, String, &FabricNode)> =
        nodes.map(|node| (node.creation_timestamp().map(|t| t.0), node.name_any(), node)).collect();
    nodes.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    nodes.into_iter().map(|(_, name, node)| (name, node)).collect()
}

/// A reflector reflects within its AS (RFC 4456 §6): between several nothing is told on.
fn other_as(own: &Identity, name: &str, other: &Identity, reflects: (bool, bool)) -> Option<String> {
    (reflects != (false, false) && own.asn != other.asn).then(|| {
        format!(
            "{name} is in AS {}, this node in AS {}: route reflectors serve one AS; use topology.mode FullMesh, or None \
             with BGPPeers",
            other.asn, own.asn
        )
    })
}

/// `reflects`: whether we are a reflector, and whether the other node is.
fn link(
    own: &Identity,
    name: &str,
    class: String,
    other: &Identity,
    reflects: (bool, bool),
) -> Result<Link, String> {
    let both = AfiSafi::ALL
        .into_iter()
        .find_map(|family| Some((*own.addresses.get(&family)?, *other.addresses.get(&family)?)));
    let Some((local, remote)) = both else {
        return Err(format!("no session with {name}: the two nodes have no address of one family"));
    };
    let dials = match (own.port, other.port) {
        (0, 0) => return Err(format!("no session with {name}: node.bgpPort 0 listens at neither end")),
        (0, _) => true,
        (_, 0) => false,
        (_, _) => match reflects {
            (true, false) => false,
            (false, true) => true,
            (true, true) | (false, false) => own.router_id > other.router_id,
        },
    };
    let client = reflects == (true, false);
    let addresses = other.addresses.values().copied().collect();
    let (node, asn, port) = (name.to_owned(), other.asn, other.port);
    Ok(Link { node, class, remote, local, asn, port, dials, addresses, client })
}

#[cfg(test)]
mod tests;
