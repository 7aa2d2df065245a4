//! Which policies apply to which local endpoint.

use std::collections::{BTreeMap, BTreeSet};

use super::{fits, scope};
use crate::model::{Direction, EndpointId, NodeState, PolicyKey};

/// Names of tiers in order, each with its policies in order: one direction of one endpoint.
pub type Tiers = Vec<(String, Vec<PolicyKey>)>;
/// Without an order, the order, and what decides between equals.
type Ranked<'a> = (bool, i32, &'a PolicyKey);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Every local endpoint, with all policies that select it, whatever their type.
    by_endpoint: BTreeMap<EndpointId, BTreeSet<PolicyKey>>,
    /// Policies that apply to at least one local endpoint, with how many.
    selects: BTreeMap<PolicyKey, usize>,
    /// Policies by the one namespace in which they can select; those of any under `None`.
    by_scope: BTreeMap<Option<String>, BTreeSet<PolicyKey>>,
    /// The scope under which each policy is filed.
    filed: BTreeMap<PolicyKey, Option<String>>,
}

impl Applied {
    pub fn in_force(&self) -> impl Iterator<Item = &PolicyKey> {
        self.selects.keys()
    }

    /// How many local endpoints the policy applies to.
    pub fn selects(&self, key: &PolicyKey) -> usize {
        self.selects.get(key).copied().unwrap_or(0)
    }

    /// The local endpoints to which the policy applies.
    pub fn selected_by(&self, key: &PolicyKey) -> impl Iterator<Item = &EndpointId> {
        self.by_endpoint.iter().filter(move |(_, policies)| policies.contains(key)).map(|(id, _)| id)
    }

    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointId> {
        self.by_endpoint.keys()
    }

    /// Files the policy under its scope, or takes it out when the state has it no more.
    pub fn index_policy(&mut self, key: &PolicyKey, state: &NodeState) {
        if let Some(scope) = self.filed.remove(key)
            && let Some(filed) = self.by_scope.get_mut(&scope)
        {
            filed.remove(key);
            if filed.is_empty() {
                self.by_scope.remove(&scope);
            }
        }
        if let Some(policy) = state.policies.get(key) {
            let scope = scope(&policy.applies_to).map(str::to_owned);
            self.by_scope.entry(scope.clone()).or_default().insert(key.clone());
            self.filed.insert(key.clone(), scope);
        }
    }

    /// Finds the endpoint's policies anew. Returns whether they are others than before.
    pub fn refresh_endpoint(&mut self, id: &EndpointId, state: &NodeState) -> bool {
        let Some(endpoint) = state.endpoints.get(id).filter(|endpoint| endpoint.is_local()) else {
            return self.replace(id, None);
        };
        let here = self.by_scope.get(&Some(endpoint.namespace.clone()));
        let everywhere = self.by_scope.get(&None);
        let selected = here
            .into_iter()
            .chain(everywhere)
            .flatten()
            .filter(|key| {
                state.policies.get(*key).is_some_and(|policy| {
                    fits(&policy.applies_to, &endpoint.namespace, &endpoint.labels, &state.namespaces)
                })
            })
            .cloned()
            .collect();
        self.replace(id, Some(selected))
    }

    /// Finds the local endpoints of one policy anew. Returns those for which the answer changed.
    pub fn refresh_policy(&mut self, key: &PolicyKey, state: &NodeState) -> Vec<EndpointId> {
        self.index_policy(key, state);
        let policy = state.policies.get(key);
        let mut changed = Vec::new();
        for (id, policies) in &mut self.by_endpoint {
            let selected = policy.zip(state.endpoints.get(id)).is_some_and(|(policy, endpoint)| {
                fits(&policy.applies_to, &endpoint.namespace, &endpoint.labels, &state.namespaces)
            });
            let differs = if selected { policies.insert(key.clone()) } else { policies.remove(key) };
            if differs {
                changed.push(id.clone());
                count(&mut self.selects, key, selected);
            }
        }
        changed
    }

    /// What the endpoint meets in one direction, in the order of evaluation (api.md §7): tiers by order,
    /// then name; policies by order, those without one last, then name, namespace, kind. A tier without
    /// a policy for this endpoint and direction is not walked, so its default never applies.
    pub fn tiers(&self, id: &EndpointId, direction: Direction, state: &NodeState) -> Tiers {
        let mut by_tier: BTreeMap<(i32, &str), Vec<Ranked<'_>>> = BTreeMap::new();
        for key in self.by_endpoint.get(id).into_iter().flatten() {
            let Some(policy) = state.policies.get(key) else { continue };
            let Some(tier) = state.tiers.get(&policy.tier) else { continue };
            if policy.rules(direction).is_some() {
                let rank = (policy.order.is_none(), policy.order.unwrap_or(0), key);
                by_tier.entry((tier.order, &policy.tier)).or_default().push(rank);
            }
        }
        by_tier
            .into_iter()
            .map(|((_, tier), mut policies)| {
                policies.sort_unstable();
                (tier.to_owned(), policies.into_iter().map(|(_, _, key)| key.clone()).collect())
            })
            .collect()
    }

    fn replace(&mut self, id: &EndpointId, selected: Option<BTreeSet<PolicyKey>>) -> bool {
        let before = match &selected {
            Some(selected) => self.by_endpoint.insert(id.clone(), selected.clone()),
            None => self.by_endpoint.remove(id),
        };
        if before == selected {
            return false;
        }
        for key in before.iter().flatten() {
            count(&mut self.selects, key, false);
        }
        for key in selected.iter().flatten() {
            count(&mut self.selects, key, true);
        }
        true
    }
}

fn count(selects: &mut BTreeMap<PolicyKey, usize>, key: &PolicyKey, more: bool) {
    let endpoints = selects.entry(key.clone()).or_insert(0);
    *endpoints = if more { *endpoints + 1 } else { endpoints.saturating_sub(1) };
    if *endpoints == 0 {
        selects.remove(key);
    }
}
