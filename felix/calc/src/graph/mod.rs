//! Facts in, this node's table out: the one mutable thing of this crate.
//!
//! ```text
//!  on_update ──▶ pending (one entry a key) ──flush──▶ state ──▶ table
//!                                                       └──▶ Flush: what the kernel must do about it
//! ```
//! The result depends on the facts and never on the order in which they came: a reference to something
//! that is not here yet (a policy's tier, an endpoint's namespace) has a defined meaning and is seen again
//! when it arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{Endpoint, EndpointId, Labels, NodeSettings, NodeState, Policy, PolicyKey, Tier};
use crate::plan::Plan;
use crate::table::Table;

/// One fact, whole: it replaces what was known under its key. Absent: it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    Endpoint(EndpointId, Option<Endpoint>),
    Namespace(String, Option<Labels>),
    Tier(String, Option<Tier>),
    Policy(PolicyKey, Option<Policy>),
    Settings(NodeSettings),
}

/// What one flush did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flush {
    /// From the table of the flush before to the table of now. Kernel out of step: `plan::plan(&actual,
    /// graph.table())` instead.
    pub plan: Plan,
    /// What changed for whom, by key, each once.
    pub changes: Vec<Change>,
    /// Addresses whose established connections must be judged again once `plan` is in the kernel
    /// (`conntrack::denied`).
    pub recheck: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A local endpoint came, went, moved, or other policies apply to it: its policies in the order of
    /// evaluation, egress and ingress; `None` when it is gone.
    Endpoint { id: EndpointId, policies: Option<[Vec<PolicyKey>; 2]> },
    /// How many local endpoints the policy applies to; `None` when the policy is gone.
    Policy { key: PolicyKey, selects: Option<usize> },
}

/// Owner of the facts and of the table that follows from them.
#[derive(Debug)]
pub struct CalcGraph {
    state: NodeState,
    table: Table,
    pending: Pending,
}

/// The newest fact of each key, not yet in the state.
#[derive(Debug, Default)]
struct Pending {
    endpoints: BTreeMap<EndpointId, Option<Endpoint>>,
    namespaces: BTreeMap<String, Option<Labels>>,
    tiers: BTreeMap<String, Option<Tier>>,
    policies: BTreeMap<PolicyKey, Option<Policy>>,
    settings: Option<NodeSettings>,
}

impl CalcGraph {
    /// Knows nothing: its table is empty until the first flush, whose plan makes the closed table.
    pub fn new(settings: NodeSettings) -> Self {
        Self { state: NodeState::new(settings), table: Table::default(), pending: Pending::default() }
    }

    /// Takes note; costs one map insertion. The newest fact of a key wins.
    pub fn on_update(&mut self, update: Update) {
        match update {
            Update::Endpoint(id, endpoint) => drop(self.pending.endpoints.insert(id, endpoint)),
            Update::Namespace(name, labels) => drop(self.pending.namespaces.insert(name, labels)),
            Update::Tier(name, tier) => drop(self.pending.tiers.insert(name, tier)),
            Update::Policy(key, policy) => drop(self.pending.policies.insert(key, policy)),
            Update::Settings(settings) => self.pending.settings = Some(settings),
        }
    }

    /// The facts of all flushes so far.
    pub fn state(&self) -> &NodeState {
        &self.state
    }

    /// What the kernel should hold since the last flush.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Works the pending facts in. The cost follows what changed, not what is known.
    pub fn flush(&mut self) -> Flush {
        let Pending { endpoints, namespaces, tiers, policies, settings } = std::mem::take(&mut self.pending);
        merge(&mut self.state.endpoints, endpoints);
        merge(&mut self.state.namespaces, namespaces);
        merge(&mut self.state.tiers, tiers);
        merge(&mut self.state.policies, policies);
        if let Some(settings) = settings {
            self.state.settings = settings;
        }
        Flush::default()
    }
}

fn merge<K: Ord, V>(known: &mut BTreeMap<K, V>, news: BTreeMap<K, Option<V>>) {
    for (key, value) in news {
        match value {
            Some(value) => drop(known.insert(key, value)),
            None => drop(known.remove(&key)),
        }
    }
}
