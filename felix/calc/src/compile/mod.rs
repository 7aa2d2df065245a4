//! From a node's state to its nftables table.
//!
//! The interface behind which compilers are exchanged: v1 ([`sets::SetsCompiler`]) walks rules in order,
//! with one set per peer; another may classify peers first. All of them must agree with the evaluator.

mod counters;
mod digest;
pub mod sets;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

pub use counters::{CounterIndex, Place};

use crate::model::{NodeState, PolicyKey};
use crate::plan::TableDelta;
use crate::resolve::{Members, MembersDelta, Resolution};
use crate::table::{Family, Table};

/// The set of all interfaces that belong to an endpoint. No packet of a `manx*` interface that is not in
/// it passes, so an interface's other elements may come before it and go after it (see `plan`).
pub const KNOWN_INTERFACES: &str = "known";
/// By interface and address: what a pod may send from.
pub const OWN_V4: &str = "own4";
pub const OWN_V6: &str = "own6";
/// The sets that let an interface's packets through to its policies.
pub const GATE_SETS: [&str; 3] = [KNOWN_INTERFACES, OWN_V4, OWN_V6];

pub trait Compiler: fmt::Debug {
    /// The table of a state, from nothing: the definition that [`Compiler::refresh`] must reach.
    fn compile(&self, state: &NodeState) -> Compiled;

    /// Brings `compiled` to `compile(state)`; returns the difference. `resolution` is that of `state`, and
    /// `dirty` says what may differ from the state that `compiled` was made of. Called with one `compiled`
    /// only, so that a compiler may remember what it made.
    fn refresh(
        &mut self,
        compiled: &mut Compiled,
        state: &NodeState,
        resolution: &Resolution,
        dirty: &Dirty,
    ) -> TableDelta;
}

/// A table with what is needed to read it back and to keep it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    pub table: Table,
    pub counters: CounterIndex,
    /// Sets whose elements are members of a peer.
    pub members: BTreeMap<String, SetSource>,
}

/// Whose addresses, of which family, a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSource {
    pub members: Arc<Members>,
    pub family: Family,
}

/// What changed between two states, as far as a compiler can save work by knowing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Local endpoints, policies that apply to them, tiers or settings.
    pub structure: bool,
    /// Tiers or settings, which stand in every chain.
    pub node_wide: bool,
    /// Policies that are new, gone or different, whomever they apply to.
    pub policies: BTreeSet<PolicyKey>,
    /// Members of peers that were named before and are named still.
    pub members: BTreeMap<Arc<Members>, MembersDelta>,
}
