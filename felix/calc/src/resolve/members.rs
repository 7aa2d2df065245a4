//! Which addresses stand behind each peer that a rule names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::{ByNamespace, fits, scope};
use crate::model::{Direction, Endpoint, EndpointId, Labels, NodeState, Policy, Selection};

/// Endpoints, as one rule's peer names them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Members {
    /// Absent: every endpoint.
    pub selection: Option<Selection>,
    /// Present: not the addresses alone but each with the numbers behind these port names.
    pub port_names: Option<BTreeSet<String>>,
}

/// One element of the set that a compiler makes of [`Members`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    pub address: IpAddr,
    /// Protocol and number.
    pub port: Option<(u8, u16)>,
}

/// What one round of changes did to one set of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersDelta {
    pub added: BTreeSet<Member>,
    pub removed: BTreeSet<Member>,
}

/// All watched peers with their members. A member counts how many endpoints stand for it, so that two
/// endpoints may hold one address for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<Arc<Members>, BTreeMap<Member, usize>>,
    /// Watched peers by the one namespace in which they can select; those of any under `None`.
    by_scope: BTreeMap<Option<String>, BTreeSet<Arc<Members>>>,
    endpoints: ByNamespace,
    /// Presence before the round, of everything the round touched.
    touched: BTreeMap<Arc<Members>, BTreeMap<Member, bool>>,
}

impl Membership {
    pub fn of(&self, members: &Members) -> impl Iterator<Item = Member> {
        self.members.get(members).into_iter().flatten().map(|(member, _)| *member)
    }

    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &EndpointId> {
        self.endpoints.get(namespace).into_iter().flatten()
    }

    /// Takes an endpoint's share out, with the labels under which it was put in.
    pub fn withdraw(&mut self, id: &EndpointId, endpoint: &Endpoint, namespaces: &BTreeMap<String, Labels>) {
        if let Some(ids) = self.endpoints.get_mut(&endpoint.namespace) {
            ids.remove(id);
            if ids.is_empty() {
                self.endpoints.remove(&endpoint.namespace);
            }
        }
        self.count(endpoint, namespaces, false);
    }

    pub fn contribute(
        &mut self,
        id: &EndpointId,
        endpoint: &Endpoint,
        namespaces: &BTreeMap<String, Labels>,
    ) {
        self.endpoints.entry(endpoint.namespace.clone()).or_default().insert(id.clone());
        self.count(endpoint, namespaces, true);
    }

    /// Ends a round: what changed in the peers that were watched all the while.
    pub fn take_changes(&mut self) -> BTreeMap<Arc<Members>, MembersDelta> {
        let mut changes = BTreeMap::new();
        for (members, before) in std::mem::take(&mut self.touched) {
            let Some(held) = self.members.get(&members) else { continue };
            let mut delta = MembersDelta::default();
            for (member, was) in before {
                match (was, held.contains_key(&member)) {
                    (false, true) => drop(delta.added.insert(member)),
                    (true, false) => drop(delta.removed.insert(member)),
                    (true, true) | (false, false) => {}
                }
            }
            if delta != MembersDelta::default() {
                changes.insert(members, delta);
            }
        }
        changes
    }

    /// Watches exactly these. A peer that is new is looked up once, in its namespace if it has one.
    pub fn watch(&mut self, wanted: BTreeSet<Members>, state: &NodeState) {
        let dropped: Vec<_> = self.members.keys().filter(|m| !wanted.contains(m.as_ref())).cloned().collect();
        for members in dropped {
            self.members.remove(&members);
            let scope = members.selection.as_ref().and_then(scope).map(str::to_owned);
            if let Some(filed) = self.by_scope.get_mut(&scope) {
                filed.remove(&members);
                if filed.is_empty() {
                    self.by_scope.remove(&scope);
                }
            }
        }
        for members in wanted {
            if !self.members.contains_key(&members) {
                self.start(Arc::new(members), state);
            }
        }
    }

    fn start(&mut self, members: Arc<Members>, state: &NodeState) {
        let scope = members.selection.as_ref().and_then(scope).map(str::to_owned);
        let mut held: BTreeMap<Member, usize> = BTreeMap::new();
        let mut take = |endpoint: &Endpoint| {
            for member in share(&members, endpoint, &state.namespaces) {
                *held.entry(member).or_insert(0) += 1;
            }
        };
        match &scope {
            Some(namespace) => self
                .endpoints
                .get(namespace)
                .into_iter()
                .flatten()
                .filter_map(|id| state.endpoints.get(id))
                .for_each(&mut take),
            None => state.endpoints.values().for_each(&mut take),
        }
        self.by_scope.entry(scope).or_default().insert(Arc::clone(&members));
        self.members.insert(members, held);
    }

    fn count(&mut self, endpoint: &Endpoint, namespaces: &BTreeMap<String, Labels>, more: bool) {
        let here = self.by_scope.get(&Some(endpoint.namespace.clone()));
        let everywhere = self.by_scope.get(&None);
        for members in here.into_iter().chain(everywhere).flatten() {
            let Some(held) = self.members.get_mut(members) else { continue };
            for member in share(members, endpoint, namespaces) {
                let touched = self.touched.entry(Arc::clone(members)).or_default();
                touched.entry(member).or_insert_with(|| held.contains_key(&member));
                let endpoints = held.entry(member).or_insert(0);
                *endpoints = if more { *endpoints + 1 } else { endpoints.saturating_sub(1) };
                if *endpoints == 0 {
                    held.remove(&member);
                }
            }
        }
    }
}

/// Everything a policy's rules name.
pub(super) fn named_by(policy: &Policy) -> BTreeSet<Members> {
    let mut named = BTreeSet::new();
    for direction in Direction::BOTH {
        for rule in policy.rules(direction).into_iter().flatten() {
            let selections = rule.peers.iter().flat_map(|peer| [&peer.selection, &peer.not_selection]);
            for selection in selections.flatten() {
                named.insert(Members { selection: Some(selection.clone()), port_names: None });
            }
            if direction == Direction::Ingress {
                continue;
            }
            // The receiver of egress is the peer: its numbers behind the name are looked up with it.
            for names in rule.traffic.iter().map(|traffic| &traffic.port_names).filter(|n| !n.is_empty()) {
                let peers = rule.peers.iter().map(|peer| peer.selection.clone());
                let anybody = rule.peers.is_empty().then_some(None);
                for selection in peers.chain(anybody) {
                    named.insert(Members { selection, port_names: Some(names.clone()) });
                }
            }
        }
    }
    named
}

/// The members for which one endpoint stands.
fn share(members: &Members, endpoint: &Endpoint, namespaces: &BTreeMap<String, Labels>) -> BTreeSet<Member> {
    let selected = members
        .selection
        .as_ref()
        .is_none_or(|selection| fits(selection, &endpoint.namespace, &endpoint.labels, namespaces));
    if !selected {
        return BTreeSet::new();
    }
    let addresses = endpoint.addresses.iter();
    match &members.port_names {
        None => addresses.map(|address| Member { address: *address, port: None }).collect(),
        Some(names) => addresses
            .flat_map(|address| {
                let ports = endpoint.ports.iter().filter(|port| names.contains(&port.name));
                ports.map(|port| Member { address: *address, port: Some((port.protocol, port.number)) })
            })
            .collect(),
    }
}
