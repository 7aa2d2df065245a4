//! Facts in, this node's table out: the one mutable thing of this crate.
//!
//! ```text
//!  on_update ──▶ pending (one entry a key) ──flush──▶ state ──▶ table
//!                                                       └──▶ Flush: what the kernel must do about it
//! ```
//! The result depends on the facts and never on the order in which they came: a reference to something
//! that is not here yet (a policy's tier, an endpoint's namespace) has a defined meaning and is seen again
//! when it arrives.

mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use self::round::Round;
use crate::compile::sets::SetsCompiler;
use crate::compile::{Compiled, Compiler, CounterIndex, Dirty};
use crate::model::{Endpoint, EndpointId, Labels, NodeSettings, NodeState, Policy, PolicyKey, Tier};
use crate::nat::OutgoingNat;
use crate::plan::{Plan, plan_delta};
use crate::resolve::{Applied, Resolution};
use crate::table::Table;

/// One fact, whole: it replaces what was known under its key. Absent: it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    Endpoint(EndpointId, Option<Endpoint>),
    Namespace(String, Option<Labels>),
    Tier(String, Option<Tier>),
    Policy(PolicyKey, Option<Policy>),
    Settings(NodeSettings),
    OutgoingNat(OutgoingNat),
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
    compiler: Box<dyn Compiler + Send>,
    state: NodeState,
    resolution: Resolution,
    compiled: Compiled,
    pending: Pending,
    /// The closed table has not been planned yet.
    first: bool,
}

/// The newest fact of each key, not yet in the state.
#[derive(Debug, Default)]
struct Pending {
    endpoints: BTreeMap<EndpointId, Option<Endpoint>>,
    namespaces: BTreeMap<String, Option<Labels>>,
    tiers: BTreeMap<String, Option<Tier>>,
    policies: BTreeMap<PolicyKey, Option<Policy>>,
    settings: Option<NodeSettings>,
    nat: Option<OutgoingNat>,
}

impl CalcGraph {
    /// Knows nothing: its table is empty until the first flush, whose plan makes the closed table.
    pub fn new(settings: NodeSettings) -> Self {
        Self::with_compiler(settings, Box::new(SetsCompiler::default()))
    }

    pub fn with_compiler(settings: NodeSettings, compiler: Box<dyn Compiler + Send>) -> Self {
        Self {
            compiler,
            state: NodeState::new(settings),
            resolution: Resolution::default(),
            compiled: Compiled::default(),
            pending: Pending::default(),
            first: true,
        }
    }

    /// Takes note; costs one map insertion. The newest fact of a key wins.
    pub fn on_update(&mut self, update: Update) {
        match update {
            Update::Endpoint(id, endpoint) => drop(self.pending.endpoints.insert(id, endpoint)),
            Update::Namespace(name, labels) => drop(self.pending.namespaces.insert(name, labels)),
            Update::Tier(name, tier) => drop(self.pending.tiers.insert(name, tier)),
            Update::Policy(key, policy) => drop(self.pending.policies.insert(key, policy)),
            Update::Settings(settings) => self.pending.settings = Some(settings),
            Update::OutgoingNat(nat) => self.pending.nat = Some(nat),
        }
    }

    /// The facts of all flushes so far.
    pub fn state(&self) -> &NodeState {
        &self.state
    }

    /// The settings as last told, which a flush may not have worked in yet.
    pub fn settings(&self) -> &NodeSettings {
        self.pending.settings.as_ref().unwrap_or(&self.state.settings)
    }

    /// As last told.
    pub fn nat(&self) -> &OutgoingNat {
        self.pending.nat.as_ref().unwrap_or(&self.state.nat)
    }

    /// What the kernel should hold since the last flush.
    pub fn table(&self) -> &Table {
        &self.compiled.table
    }

    /// What the table's counters and log lines speak of.
    pub fn counters(&self) -> &CounterIndex {
        &self.compiled.counters
    }

    /// Which policies apply to which local endpoint.
    pub fn applied(&self) -> &Applied {
        &self.resolution.applied
    }

    /// Whether a flush would have anything to look at.
    pub fn is_dirty(&self) -> bool {
        let Pending { endpoints, namespaces, tiers, policies, settings, nat } = &self.pending;
        let quiet = endpoints.is_empty() && namespaces.is_empty() && tiers.is_empty() && policies.is_empty();
        self.first || settings.is_some() || nat.is_some() || !quiet
    }

    /// Works the pending facts in. The cost follows what changed: a pod elsewhere costs the evaluation of
    /// the peers that can name it; what changes this node's policies costs this node's policies.
    pub fn flush(&mut self) -> Flush {
        if !self.is_dirty() {
            return Flush::default();
        }
        let mut round = Round::take(&mut self.pending, &self.state);
        round.structure |= std::mem::take(&mut self.first);
        round.work_in(&mut self.state, &mut self.resolution);
        let dirty = Dirty {
            structure: round.structure,
            node_wide: round.node_wide,
            policies: round.changed_policies.clone(),
            members: self.resolution.membership.take_changes(),
        };
        if round.structure {
            self.resolution.follow_policies(&self.state);
        }
        let delta = self.compiler.refresh(&mut self.compiled, &self.state, &self.resolution, &dirty);
        for change in dirty.members.values() {
            round.recheck.extend(change.added.iter().chain(&change.removed).map(|member| member.address));
        }
        let changes = round.changes(&self.state, &self.resolution.applied);
        Flush { plan: plan_delta(delta), changes, recheck: round.recheck }
    }
}
