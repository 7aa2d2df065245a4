//! BGPPeer: Accepted, ResolvedRefs, Established and `sessions`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use kube::ResourceExt;
use manx_crds::acceptance::{self, Refusal};
use manx_crds::conditions::{self, PeerEstablished, ResolvedRefs};
use manx_crds::store::Key;
use manx_crds::v1alpha1::selector::selects_opt;
use manx_crds::v1alpha1::settings::EffectiveNode;
use manx_crds::v1alpha1::{
    AdminState, BGPPeer, BGPSession, FabricNode, Neighbor, SessionCount, SessionState,
};

use super::configuration::{keys, missing_profile};
use super::node::addresses_of;
use super::{About, Notice, Offer, accepted, age, says, status};
use crate::objects::Objects;
use crate::wish::{Kind, Saying, Wish};

/// Agents watch BGPPeers, so that each write of a status reaches every node (api.md §12).
const INTERVAL: Duration = Duration::from_secs(30);
const SLOW: &[&str] = &["sessions", "Established"];
/// Nodes that a message names.
const NAMED: usize = 5;

pub fn judge(objects: &Objects) -> (Vec<Offer>, Vec<Notice>) {
    let verdicts = verdicts(objects);
    let mut sessions: BTreeMap<&str, Vec<&BGPSession>> = BTreeMap::new();
    for session in objects.sessions.iter() {
        sessions.entry(session.spec.peer.as_str()).or_default().push(session);
    }
    let mut offers = Vec::new();
    let mut notices = Vec::new();
    for peer in objects.peers.iter() {
        let name = peer.name_any();
        let verdict = verdicts.get(&name).cloned().unwrap_or(Ok(()));
        let references = references(objects, peer);
        if let Some(missing) = references.as_ref().filter(|saying| saying.status == "False") {
            let known = peer.status.as_ref().map(|status| status.conditions.as_slice());
            notices.push(Notice {
                about: About::Object(Kind::BGPPeer, Key::cluster(&name)),
                reason: "ReferenceNotFound",
                note: missing.message.clone(),
                told: says(known.unwrap_or_default(), missing),
            });
        }
        let of_peer = sessions.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let (count, established) = roll_up(objects, peer, &verdict, of_peer);
        let mut conditions = vec![accepted(&verdict), established];
        conditions.extend(references);
        let mut wish = Wish { conditions, whole: true, slow: Some((SLOW, INTERVAL)), ..Wish::default() };
        wish.fields.insert("sessions".to_owned(), serde_json::to_value(count).unwrap_or_default());
        offers.push(status(Kind::BGPPeer, peer, peer.status.as_ref(), wish));
    }
    (offers, notices)
}

fn selected<'a>(objects: &'a Objects, peer: &'a BGPPeer) -> impl Iterator<Item = &'a FabricNode> {
    objects.fabric_nodes.iter().filter(|node| selects_opt(peer.spec.node_selector.as_ref(), node.labels()))
}

/// Condition Accepted of every BGPPeer: as bgpd decides on each node, oldest first.
fn verdicts(objects: &Objects) -> BTreeMap<String, Result<(), Refusal>> {
    let mut peers: Vec<&BGPPeer> = objects.peers.iter().collect();
    peers.sort_by_key(|peer| age(*peer));
    let mut taken: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    for peer in peers {
        let name = peer.name_any();
        let verdict = verdict(objects, peer, &taken);
        if let (Ok(()), Some(neighbour)) = (&verdict, neighbour(peer)) {
            for node in selected(objects, peer) {
                taken.entry((node.name_any(), neighbour.clone())).or_insert_with(|| name.clone());
            }
        }
        verdicts.insert(name, verdict);
    }
    verdicts
}

/// What a node may have one session with, as its BGPPeer names it: the field and what stands there.
fn neighbour(peer: &BGPPeer) -> Option<String> {
    let address = peer.spec.address.map(|remote| format!("spec.address {}", remote.0));
    address.or_else(|| peer.spec.interface.as_ref().map(|name| format!("spec.interface {name}")))
}

fn verdict(
    objects: &Objects,
    peer: &BGPPeer,
    taken: &BTreeMap<(String, String), String>,
) -> Result<(), Refusal> {
    let configuration = objects.the_configuration();
    acceptance::bgp_peer(peer)?;
    let refuse = |reason, message| Err(Refusal { reason, message });
    let waits = peer.spec.passive || peer.spec.listen_range.is_some();
    for node in selected(objects, peer) {
        let name = node.name_any();
        if let Some(remote) = peer.spec.address.map(IpAddr::from)
            && addresses_of(node).contains(&remote)
        {
            return refuse(
                "AddressIsOurs",
                format!(
                    "spec.address {remote} is the address of node {name} itself, which starts no session: leave that \
                     node out by spec.nodeSelector, or correct the address"
                ),
            );
        }
        if let Some(neighbour) = neighbour(peer)
            && let Some(older) = taken.get(&(name.clone(), neighbour.clone()))
        {
            return refuse(
                "OverlapsPeer",
                format!(
                    "{neighbour} is served by the older BGPPeer {older} on node {name}: remove one of the two, or give \
                     them different nodes by spec.nodeSelector"
                ),
            );
        }
        if waits && EffectiveNode::of(configuration, Some(node), node.labels()).bgp_port == 0 {
            return refuse(
                "NoListener",
                format!(
                    "the peer dials us, but node.bgpPort 0 listens nowhere on {name}: set a port, or spec.passive false"
                ),
            );
        }
    }
    Ok(())
}

/// Whether what the BGPPeer names is there. Nothing is said of references that this version does not follow: Accepted
/// names the field.
fn references(objects: &Objects, peer: &BGPPeer) -> Option<Saying> {
    let own = peer.spec.session.as_ref();
    let profile = own.and_then(|session| session.bfd_profile.as_deref());
    if let Some(message) = missing_profile(objects, profile, "spec.session.bfdProfile") {
        return Some(Saying::new(ResolvedRefs::BFDProfileNotFound, message));
    }
    if let Some(name) = peer
        .spec
        .filters
        .iter()
        .find(|name| !objects.filters.objects.contains_key(&Key::cluster(name.as_str())))
    {
        return Some(Saying::new(
            ResolvedRefs::BGPFilterNotFound,
            acceptance::filter_not_found(name).message,
        ));
    }
    let said = peer.status.as_ref().map(|status| status.conditions.as_slice());
    let auth = own.and_then(|session| session.auth.as_ref());
    keys(objects, auth, "spec.session.auth", said.unwrap_or_default())
}

fn roll_up(
    objects: &Objects,
    peer: &BGPPeer,
    verdict: &Result<(), Refusal>,
    sessions: &[&BGPSession],
) -> (SessionCount, Saying) {
    let mut nodes: BTreeSet<String> = selected(objects, peer).map(ResourceExt::name_any).collect();
    if let Some(Neighbor::Nodes(peers)) = peer.spec.neighbor() {
        // Either end may be the one that dials, and reports.
        let others = objects.fabric_nodes.iter().filter(|node| selects_opt(Some(&peers), node.labels()));
        nodes.extend(others.map(ResourceExt::name_any));
    }
    let sessions: Vec<&BGPSession> =
        sessions.iter().copied().filter(|session| nodes.contains(&session.spec.node_name)).collect();
    let up = |session: &BGPSession| {
        session.status.as_ref().and_then(|status| status.state.as_ref()) == Some(&SessionState::Established)
    };
    // One neighbour a node, or as many as there are of a class of neighbours.
    let desired = match peer.spec.neighbor() {
        Some(Neighbor::Address(_) | Neighbor::Interface(_)) => nodes.len(),
        Some(Neighbor::ListenRange(_) | Neighbor::Nodes(_)) | None => sessions.len(),
    };
    let established = sessions.iter().filter(|session| up(session)).count();
    let count = SessionCount {
        desired: u32::try_from(desired).unwrap_or(u32::MAX),
        established: u32::try_from(established).unwrap_or(u32::MAX),
    };
    let down = || {
        let without = nodes.iter().filter(|node| {
            desired == nodes.len() && !sessions.iter().any(|session| session.spec.node_name == **node)
        });
        let without = without.map(|node| format!("{node}: bgpd has no session (is it running?)"));
        let down = sessions.iter().filter(|session| !up(session)).map(|session| {
            let status = session.status.as_ref().map(|status| status.conditions.as_slice());
            let condition = conditions::find(status.unwrap_or_default(), "Established");
            let reason = condition.map_or("Connecting", |condition| condition.reason.as_str());
            format!("{}: {reason}", session.spec.node_name)
        });
        let texts: Vec<String> = down.chain(without).collect();
        let more = texts.len().saturating_sub(NAMED);
        let named = texts.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        if more == 0 { named } else { format!("{named}; and {more} more") }
    };
    let saying = match (&peer.spec.admin_state, verdict) {
        (AdminState::Shutdown, _) => Saying::new(
            PeerEstablished::Shutdown,
            "spec.adminState Shutdown: set it to Up to open the sessions",
        ),
        (AdminState::Drained, _) => Saying::new(
            PeerEstablished::Drained,
            "spec.adminState Drained: set it to Up to attract traffic again",
        ),
        _ if nodes.is_empty() => Saying::new(
            PeerEstablished::NoMatchingNode,
            "spec.nodeSelector matches no FabricNode: correct it",
        ),
        (_, Err(refusal)) if established == 0 => Saying::new(
            PeerEstablished::NoneEstablished,
            format!("the BGPPeer is not accepted: {}", refusal.reason),
        ),
        _ if established > 0 && established >= desired => Saying::new(PeerEstablished::AllEstablished, ""),
        _ if established > 0 => Saying::new(PeerEstablished::SomeDown, down()),
        _ => Saying::new(PeerEstablished::NoneEstablished, down()),
    };
    (count, saying)
}
