//! What differs between two tables, by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::table::{Chain, Data, Element, Rule, Set, Table};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDelta {
    pub sets: BTreeMap<String, SetDelta>,
    pub chains: BTreeMap<String, ChainDelta>,
    /// Names under which both tables hold things that the kernel cannot turn into each other (another key,
    /// another hook). A compiler's names determine their shapes, so only a table of another release has any.
    pub reshaped: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetDelta {
    Added(Set),
    Removed,
    /// An element whose data changed is in both.
    Changed {
        added: BTreeMap<Element, Option<Data>>,
        removed: BTreeMap<Element, Option<Data>>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainDelta {
    Added(Chain),
    Removed { base: bool },
    Rules(Vec<Rule>),
}

impl TableDelta {
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.chains.is_empty() && self.reshaped.is_empty()
    }
}

pub fn diff(before: &Table, after: &Table) -> TableDelta {
    let mut delta = TableDelta::default();
    for (name, set) in &after.sets {
        match before.sets.get(name) {
            None => drop(delta.sets.insert(name.clone(), SetDelta::Added(set.clone()))),
            Some(old) if old.shape() != set.shape() => drop(delta.reshaped.insert(name.clone())),
            Some(old) => {
                let (added, removed) =
                    (without(&set.elements, &old.elements), without(&old.elements, &set.elements));
                if !(added.is_empty() && removed.is_empty()) {
                    delta.sets.insert(name.clone(), SetDelta::Changed { added, removed });
                }
            }
        }
    }
    for name in before.sets.keys().filter(|name| !after.sets.contains_key(*name)) {
        delta.sets.insert(name.clone(), SetDelta::Removed);
    }
    for (name, chain) in &after.chains {
        match before.chains.get(name) {
            None => drop(delta.chains.insert(name.clone(), ChainDelta::Added(chain.clone()))),
            Some(old) if old.base != chain.base => drop(delta.reshaped.insert(name.clone())),
            Some(old) if old.rules != chain.rules => {
                delta.chains.insert(name.clone(), ChainDelta::Rules(chain.rules.clone()));
            }
            Some(_) => {}
        }
    }
    for (name, chain) in before.chains.iter().filter(|(name, _)| !after.chains.contains_key(*name)) {
        delta.chains.insert(name.clone(), ChainDelta::Removed { base: chain.base.is_some() });
    }
    delta
}

fn without(
    elements: &BTreeMap<Element, Option<Data>>,
    others: &BTreeMap<Element, Option<Data>>,
) -> BTreeMap<Element, Option<Data>> {
    let differs = |(element, data): &(&Element, &Option<Data>)| others.get(*element) != Some(*data);
    elements.iter().filter(differs).map(|(element, data)| (element.clone(), data.clone())).collect()
}
