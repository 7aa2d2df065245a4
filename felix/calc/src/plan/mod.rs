//! From one table to another in three transactions: add, switch, remove.
//!
//! Each is atomic in the kernel, yet a packet in flight looks its sets up one after the other and each
//! lookup sees the table of its own moment. So nothing may be added, brought into use and taken away in
//! one transaction (policy-compiler.md §6, measured there): what is new is complete before anything refers
//! to it, and what is old goes only after nothing refers to it.

mod apply;
mod diff;
mod found;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub(crate) use self::apply::sets_read;
pub use self::apply::{ApplyError, apply};
pub use self::diff::{ChainDelta, SetDelta, TableDelta, diff};
pub use self::found::{Touched, Unlike, keep_found};
use crate::compile::{GATE_SETS, KNOWN_INTERFACES};
use crate::table::{Base, Chain, Data, DataType, Element, KeyType, Rule, Set, Table, Value};

/// Three transactions, to be committed in this order. Between any two the kernel's table treats every
/// packet as the old table or as the new one does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub add: Transaction,
    pub switch: Transaction,
    pub remove: Transaction,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.transactions().iter().all(|transaction| transaction.0.is_empty())
    }

    pub fn transactions(&self) -> [&Transaction; 3] {
        [&self.add, &self.switch, &self.remove]
    }
}

/// One netlink batch: all of it or nothing. The order is the kernel's: a target exists before what refers
/// to it, a reference goes before its target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Transaction(pub Vec<Operation>);

/// What the kernel is told; each maps to one or few netlink messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Operation {
    /// An empty set or map. EEXIST if the name is taken by another shape.
    AddSet { name: String, shape: SetShape },
    /// A chain without rules; a base chain when `base` is present.
    AddChain { name: String, base: Option<Base> },
    /// Elements that the set does not hold (an element with other data: delete it earlier in the batch).
    AddElements { set: String, elements: Vec<(Element, Option<Data>)> },
    /// Elements that the set holds.
    DeleteElements { set: String, elements: Vec<Element> },
    /// Flush the chain and add these rules. Empty: flush only, which drops the chain's references.
    ReplaceRules { chain: String, rules: Vec<Rule> },
    /// A set to which no rule refers.
    DeleteSet { name: String },
    /// A chain without rules, to which no rule and no element refers.
    DeleteChain { name: String },
}

/// A set without its elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetShape {
    pub key: Vec<KeyType>,
    pub interval: bool,
    pub data: Option<DataType>,
    pub counter: bool,
}

impl Set {
    pub fn shape(&self) -> SetShape {
        SetShape { key: self.key.clone(), interval: self.interval, data: self.data, counter: self.counter }
    }
}

/// From `before` (what the kernel holds) to `after`. Empty when they are equal.
pub fn plan(before: &Table, after: &Table) -> Plan {
    let delta = diff(before, after);
    if delta.reshaped.is_empty() { plan_delta(delta) } else { replace(before, after) }
}

/// The plan for a difference without reshaped objects.
///
/// ```text
/// add     new sets with their elements; new chains with their rules
/// switch  elements of live sets; rules of live chains; base chains come and go
/// remove  elements of an address that moved to another set; dispatch of interfaces gone;
///         old chains, old sets
/// ```
pub fn plan_delta(delta: TableDelta) -> Plan {
    let mut draft = Draft::new(&delta);
    for (name, change) in delta.sets {
        match change {
            SetDelta::Added(set) => draft.add_set(name, set),
            SetDelta::Removed => draft.removed_sets.push(Operation::DeleteSet { name }),
            SetDelta::Changed { added, removed } => draft.change_set(&name, added, removed),
        }
    }
    for (name, change) in delta.chains {
        match change {
            ChainDelta::Added(chain) => draft.add_chain(name, chain),
            ChainDelta::Rules(rules) => {
                draft.switch_rules.push(Operation::ReplaceRules { chain: name, rules })
            }
            ChainDelta::Removed { base } => draft.remove_chain(name, base),
        }
    }
    draft.finish()
}

/// Everything anew in one transaction, for a table whose shapes another release made. Packets may be lost
/// while it is committed; none passes that neither table lets through.
fn replace(before: &Table, after: &Table) -> Plan {
    let empty = Table::default();
    let down = plan_delta(diff(before, &empty));
    let up = plan_delta(diff(&empty, after));
    let all = [down.switch, down.remove, up.add, up.switch];
    let switch = Transaction(all.into_iter().flat_map(|transaction| transaction.0).collect());
    Plan { switch, ..Plan::default() }
}

/// Operations by what they depend on; each list is in order within itself.
#[derive(Debug, Default)]
struct Draft {
    /// Interfaces that are known until the switch: until then their packets pass the gate.
    leaving: BTreeSet<Value>,
    /// Addresses that some set of members gains.
    gaining: BTreeSet<Value>,
    new_sets: Vec<Operation>,
    new_chains: Vec<Operation>,
    new_elements: Vec<Operation>,
    new_rules: Vec<Operation>,
    new_verdicts: Vec<Operation>,
    switch_new_bases: Vec<Operation>,
    switch_elements: Vec<Operation>,
    switch_rules: Vec<Operation>,
    switch_old_bases: Vec<Operation>,
    late_elements: Vec<Operation>,
    flushed_chains: Vec<Operation>,
    removed_sets: Vec<Operation>,
    removed_chains: Vec<Operation>,
}

impl Draft {
    fn new(delta: &TableDelta) -> Self {
        let mut draft = Self::default();
        for (name, change) in &delta.sets {
            let SetDelta::Changed { added, removed } = change else { continue };
            if name == KNOWN_INTERFACES {
                draft.leaving = removed.keys().filter_map(first_value).cloned().collect();
            }
            draft.gaining.extend(
                added.iter().filter(|(_, data)| data.is_none()).filter_map(|(e, _)| address(e)).cloned(),
            );
        }
        draft
    }

    fn add_set(&mut self, name: String, set: Set) {
        self.new_sets.push(Operation::AddSet { name: name.clone(), shape: set.shape() });
        let elements: Vec<_> = set.elements.into_iter().collect();
        if !elements.is_empty() {
            // Verdicts may name chains of this transaction: behind them.
            let list = if set.data.is_some() { &mut self.new_verdicts } else { &mut self.new_elements };
            list.push(Operation::AddElements { set: name, elements });
        }
    }

    fn change_set(
        &mut self,
        name: &str,
        added: BTreeMap<Element, Option<Data>>,
        removed: BTreeMap<Element, Option<Data>>,
    ) {
        let gate = GATE_SETS.contains(&name);
        let (late, now): (Vec<_>, Vec<_>) = removed.into_iter().partition(|(element, data)| {
            // The gate closes first: a packet that passed it must still find its policy. And an address
            // that moves from set to set is in both for a moment: in neither, a packet that asks the new
            // set before and the old one after the switch would be lost.
            let moves = data.is_none() && address(element).is_some_and(|value| self.gaining.contains(value));
            let behind_gate = !gate && first_value(element).is_some_and(|value| self.leaving.contains(value));
            behind_gate || moves
        });
        let delete = |elements: Vec<(Element, Option<Data>)>| Operation::DeleteElements {
            set: name.to_owned(),
            elements: elements.into_iter().map(|(element, _)| element).collect(),
        };
        if !now.is_empty() {
            self.switch_elements.push(delete(now));
        }
        if !added.is_empty() {
            let elements = added.into_iter().collect();
            self.switch_elements.push(Operation::AddElements { set: name.to_owned(), elements });
        }
        if !late.is_empty() {
            self.late_elements.push(delete(late));
        }
    }

    fn add_chain(&mut self, name: String, Chain { base, rules }: Chain) {
        let rules = Operation::ReplaceRules { chain: name.clone(), rules };
        match base {
            None => {
                self.new_chains.push(Operation::AddChain { name, base });
                self.new_rules.push(rules);
            }
            Some(_) => self.switch_new_bases.extend([Operation::AddChain { name, base }, rules]),
        }
    }

    fn remove_chain(&mut self, name: String, base: bool) {
        let flush = Operation::ReplaceRules { chain: name.clone(), rules: Vec::new() };
        if base {
            self.switch_old_bases.extend([flush, Operation::DeleteChain { name }]);
        } else {
            self.flushed_chains.push(flush);
            self.removed_chains.push(Operation::DeleteChain { name });
        }
    }

    fn finish(self) -> Plan {
        let list = |lists: Vec<Vec<Operation>>| Transaction(lists.into_iter().flatten().collect());
        Plan {
            add: list(vec![
                self.new_sets,
                self.new_chains,
                self.new_elements,
                self.new_rules,
                self.new_verdicts,
            ]),
            switch: list(vec![
                self.switch_elements,
                self.switch_rules,
                self.switch_new_bases,
                self.switch_old_bases,
            ]),
            remove: list(vec![
                self.late_elements,
                self.flushed_chains,
                self.removed_sets,
                self.removed_chains,
            ]),
        }
    }
}

fn first_value(element: &Element) -> Option<&Value> {
    match element {
        Element::Exact(values) => values.first(),
        Element::Range { prefix, first, .. } => prefix.first().or(Some(first)),
    }
}

/// The address with which an element of a set of members begins.
fn address(element: &Element) -> Option<&Value> {
    first_value(element).filter(|value| match value {
        Value::Ipv4(_) | Value::Ipv6(_) => true,
        Value::Interface(_) | Value::Protocol(_) | Value::Port(_) | Value::Word(_) => false,
    })
}
