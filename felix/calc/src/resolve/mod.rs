//! From facts to what concerns this node: which policies apply to which local endpoint, and which
//! addresses stand behind each peer that their rules name. Kept up to date change by change.
//!
//! ```text
//!  policy / local endpoint changed ──▶ Applied: endpoint → policies     (policies of its namespace, and
//!                                         │                              those without one)
//!                                         ▼ rules of policies in force
//!  any endpoint / namespace changed ──▶ Members: peer → addresses       (peers of its namespace, and
//!                                                                        those without one)
//! ```

mod applied;
mod members;

pub use applied::{Applied, Tiers};
pub use members::{Member, Members, MembersDelta, Membership};

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{EndpointId, Labels, Namespaces, NodeState, Selection};

/// All that follows from a state for this node's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    pub applied: Applied,
    pub membership: Membership,
}

impl Resolution {
    /// From nothing.
    pub fn of(state: &NodeState) -> Self {
        let mut resolution = Self::default();
        for key in state.policies.keys() {
            resolution.applied.index_policy(key, state);
        }
        for (id, endpoint) in &state.endpoints {
            resolution.membership.contribute(id, endpoint, &state.namespaces);
            if endpoint.is_local() {
                resolution.applied.refresh_endpoint(id, state);
            }
        }
        resolution.follow_policies(state);
        resolution
    }

    /// Brings the peers that are watched in line with the policies that apply to local endpoints.
    pub fn follow_policies(&mut self, state: &NodeState) {
        let wanted: BTreeSet<Members> = self
            .applied
            .in_force()
            .filter_map(|key| state.policies.get(key))
            .flat_map(members::named_by)
            .collect();
        self.membership.watch(wanted, state);
    }
}

/// Where a selection must be looked up: with the endpoints of one namespace, or with all.
fn scope(selection: &Selection) -> Option<&str> {
    match &selection.namespaces {
        Namespaces::One(name) => Some(name),
        Namespaces::All | Namespaces::Matching(_) => None,
    }
}

/// Whether namespace and labels fit; `namespaces` as in [`NodeState::namespaces`].
fn fits(
    selection: &Selection,
    namespace: &str,
    labels: &Labels,
    namespaces: &BTreeMap<String, Labels>,
) -> bool {
    let here = match &selection.namespaces {
        Namespaces::All => true,
        Namespaces::One(name) => name == namespace,
        Namespaces::Matching(selector) => namespaces
            .get(namespace)
            .map_or_else(|| selector.matches(&Labels::new()), |l| selector.matches(l)),
    };
    here && selection.selector.matches(labels)
}

/// Ids by namespace; an empty namespace has no entry.
type ByNamespace = BTreeMap<String, BTreeSet<EndpointId>>;
