//! One flush: the facts that really changed, worked into the state and its indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Change, Pending};
use crate::model::{
    Direction, Endpoint, EndpointId, Labels, NodeSettings, NodeState, Policy, PolicyKey, Tier,
};
use crate::nat::OutgoingNat;
use crate::resolve::{Applied, Resolution};

pub(super) struct Round {
    endpoints: BTreeMap<EndpointId, Option<Endpoint>>,
    namespaces: BTreeMap<String, Option<Labels>>,
    tiers: BTreeMap<String, Option<Tier>>,
    policies: BTreeMap<PolicyKey, Option<Policy>>,
    settings: Option<NodeSettings>,
    nat: Option<OutgoingNat>,
    /// Endpoints that changed themselves, not only by their namespace.
    told: BTreeSet<EndpointId>,
    /// The chains of this node may differ.
    pub(super) structure: bool,
    pub(super) node_wide: bool,
    pub(super) recheck: BTreeSet<IpAddr>,
    changed_endpoints: BTreeSet<EndpointId>,
    pub(super) changed_policies: BTreeSet<PolicyKey>,
}

impl Round {
    /// What is pending and differs from what is known: a fact told twice is no change.
    pub(super) fn take(pending: &mut Pending, state: &NodeState) -> Self {
        let Pending { endpoints, namespaces, tiers, policies, settings, nat } = std::mem::take(pending);
        let endpoints = news(endpoints, &state.endpoints);
        Self {
            told: endpoints.keys().cloned().collect(),
            endpoints,
            namespaces: news(namespaces, &state.namespaces),
            tiers: news(tiers, &state.tiers),
            policies: news(policies, &state.policies),
            settings: settings.filter(|settings| *settings != state.settings),
            nat: nat.filter(|nat| *nat != state.nat),
            structure: false,
            node_wide: false,
            recheck: BTreeSet::new(),
            changed_endpoints: BTreeSet::new(),
            changed_policies: BTreeSet::new(),
        }
    }

    pub(super) fn work_in(&mut self, state: &mut NodeState, resolution: &mut Resolution) {
        let affected = self.affected_endpoints(resolution);
        for id in &affected {
            if let Some(endpoint) = state.endpoints.get(id) {
                resolution.membership.withdraw(id, endpoint, &state.namespaces);
                self.note_local(id, endpoint);
            }
        }
        let policies = std::mem::take(&mut self.policies);
        let changed: Vec<PolicyKey> = policies.keys().cloned().collect();
        let before: BTreeSet<PolicyKey> =
            changed.iter().filter(|key| resolution.applied.selects(key) > 0).cloned().collect();
        self.note_node_wide(state, &resolution.applied);
        merge(&mut state.endpoints, std::mem::take(&mut self.endpoints));
        merge(&mut state.namespaces, std::mem::take(&mut self.namespaces));
        merge(&mut state.tiers, std::mem::take(&mut self.tiers));
        merge(&mut state.policies, policies);
        if let Some(settings) = self.settings.take() {
            state.settings = settings;
        }
        // Established connections keep the source they began with: nothing to judge again.
        if let Some(nat) = self.nat.take() {
            state.nat = nat;
            self.structure = true;
        }
        for id in &affected {
            if let Some(endpoint) = state.endpoints.get(id) {
                resolution.membership.contribute(id, endpoint, &state.namespaces);
                self.note_local(id, endpoint);
            }
            if resolution.applied.refresh_endpoint(id, state) {
                self.structure = true;
                self.changed_endpoints.insert(id.clone());
            }
        }
        for key in changed {
            self.refresh_policy(key, &before, state, resolution);
        }
        for id in &self.changed_endpoints {
            let addresses = state.endpoints.get(id).map(|endpoint| &endpoint.addresses);
            self.recheck.extend(addresses.into_iter().flatten());
        }
    }

    /// What the outside is told, each key once.
    pub(super) fn changes(&self, state: &NodeState, applied: &Applied) -> Vec<Change> {
        let mut changes = Vec::new();
        for id in &self.changed_endpoints {
            let local = state.endpoints.get(id).is_some_and(Endpoint::is_local);
            let in_order = |direction| {
                applied.tiers(id, direction, state).into_iter().flat_map(|(_, keys)| keys).collect()
            };
            let policies = local.then(|| Direction::BOTH.map(in_order));
            changes.push(Change::Endpoint { id: id.clone(), policies });
        }
        for key in &self.changed_policies {
            let selects = state.policies.contains_key(key).then(|| applied.selects(key));
            changes.push(Change::Policy { key: key.clone(), selects });
        }
        changes
    }

    /// Endpoints that changed themselves, and those whose namespace did.
    fn affected_endpoints(&self, resolution: &Resolution) -> BTreeSet<EndpointId> {
        let mut affected = self.told.clone();
        for namespace in self.namespaces.keys() {
            affected.extend(resolution.membership.in_namespace(namespace).cloned());
        }
        affected
    }

    /// A local endpoint that came, went or changed is in the dispatch maps under what it was and what it is.
    fn note_local(&mut self, id: &EndpointId, endpoint: &Endpoint) {
        if endpoint.is_local() && self.told.contains(id) {
            self.structure = true;
            self.changed_endpoints.insert(id.clone());
            self.recheck.extend(&endpoint.addresses);
        }
    }

    /// Tiers and settings stand in every chain.
    fn note_node_wide(&mut self, state: &NodeState, applied: &Applied) {
        // Service prefixes stand in one base chain only, and a connection that went past it came by DNAT.
        let prefixes_only = self.settings.as_ref().is_some_and(|settings| {
            let service_prefixes = state.settings.service_prefixes.clone();
            NodeSettings { service_prefixes, ..settings.clone() } == state.settings
        });
        if self.tiers.is_empty() && (self.settings.is_none() || prefixes_only) {
            self.structure |= prefixes_only;
            return;
        }
        (self.structure, self.node_wide) = (true, true);
        for id in applied.endpoints() {
            self.recheck.extend(state.endpoints.get(id).into_iter().flat_map(|endpoint| &endpoint.addresses));
            if !self.tiers.is_empty() {
                self.changed_endpoints.insert(id.clone());
            }
        }
    }

    fn refresh_policy(
        &mut self,
        key: PolicyKey,
        before: &BTreeSet<PolicyKey>,
        state: &NodeState,
        resolution: &mut Resolution,
    ) {
        let gained_or_lost = resolution.applied.refresh_policy(&key, state);
        let in_force = before.contains(&key) || resolution.applied.selects(&key) > 0;
        if in_force || !gained_or_lost.is_empty() {
            self.structure = true;
            // Its rules may be others for those that it selected all the while.
            self.changed_endpoints.extend(resolution.applied.selected_by(&key).cloned());
        }
        self.changed_endpoints.extend(gained_or_lost);
        self.changed_policies.insert(key);
    }
}

fn news<K: Ord, V: PartialEq>(
    pending: BTreeMap<K, Option<V>>,
    known: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    pending.into_iter().filter(|(key, value)| known.get(key) != value.as_ref()).collect()
}

fn merge<K: Ord, V>(known: &mut BTreeMap<K, V>, news: BTreeMap<K, Option<V>>) {
    for (key, value) in news {
        match value {
            Some(value) => drop(known.insert(key, value)),
            None => drop(known.remove(&key)),
        }
    }
}
