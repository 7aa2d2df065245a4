//! `from` and `to`: who is at the other end.

use felix_calc::{Namespaces, Peer, Selection, Selector};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer};

use super::problem::{Path, Problems};
use crate::labels;

const CIDR: &str = "must be a CIDR such as 10.9.8.0/24 or 2001:db8::/64";

/// The peers of a rule; an empty list is everybody. None: the rule matches nothing.
pub(super) fn read(
    written: &[NetworkPolicyPeer],
    namespace: &str,
    path: &Path,
    problems: &mut Problems,
) -> Option<Vec<Peer>> {
    let peers: Vec<Option<Peer>> = written
        .iter()
        .enumerate()
        .map(|(index, peer)| read_one(peer, namespace, &path.index(index), problems))
        .collect();
    peers.into_iter().collect()
}

fn read_one(peer: &NetworkPolicyPeer, namespace: &str, path: &Path, problems: &mut Problems) -> Option<Peer> {
    let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = peer;
    match (ip_block, namespace_selector, pod_selector) {
        (Some(block), None, None) => net(block, &path.field("ipBlock"), problems),
        (Some(_), _, _) => {
            problems.forbidden(
                path,
                "ipBlock stands alone: it does not combine with namespaceSelector or podSelector",
            );
            None
        }
        (None, None, None) => {
            problems.required(path, "must have ipBlock, namespaceSelector or podSelector");
            None
        }
        (None, namespaces, pods) => {
            let mut read = |selector: Option<&_>, field: &str| match selector.map(labels::selector) {
                None => Some(None),
                Some(Ok(selector)) => Some(Some(selector)),
                Some(Err(bad)) => {
                    problems.selector(&path.field(field), bad);
                    None
                }
            };
            let namespaces = read(namespaces.as_ref(), "namespaceSelector");
            let pods = read(pods.as_ref(), "podSelector");
            let (namespaces, pods) = namespaces.zip(pods)?;
            Some(selected(namespaces, pods, namespace))
        }
    }
}

/// Without a namespaceSelector: pods of the policy's own namespace. Without a podSelector: all pods of the namespaces.
fn selected(namespaces: Option<Selector>, pods: Option<Selector>, own: &str) -> Peer {
    let namespaces = match namespaces {
        None => Namespaces::One(own.to_owned()),
        Some(Selector::All) => Namespaces::All,
        Some(selector) => Namespaces::Matching(selector),
    };
    let selection = Selection { namespaces, selector: pods.unwrap_or(Selector::All) };
    Peer { selection: Some(selection), ..Peer::default() }
}

fn net(block: &IPBlock, path: &Path, problems: &mut Problems) -> Option<Peer> {
    let IPBlock { cidr, except } = block;
    let parsed = parse(cidr);
    if parsed.is_none() {
        problems.invalid(&path.field("cidr"), cidr, CIDR);
    }
    let mut not_nets = Vec::new();
    for (index, text) in except.iter().flatten().enumerate() {
        let path = path.field("except").index(index);
        match (parse(text), parsed) {
            (None, _) => problems.invalid(&path, text, CIDR),
            (Some(inner), Some(outer)) if outer == inner || !outer.contains(&inner) => {
                problems.invalid(&path, text, &format!("must lie inside {outer} and be smaller"));
            }
            (Some(inner), Some(_)) => not_nets.push(inner),
            (Some(_), None) => {}
        }
    }
    let complete = not_nets.len() == except.iter().flatten().count();
    parsed.filter(|_| complete).map(|net| Peer { nets: vec![net], not_nets, ..Peer::default() })
}

/// Upstream allows host bits in a NetworkPolicy and means the network.
fn parse(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|net| net.trunc())
}
