//! A table that an earlier life left, changed for single endpoints only.
//!
//! What it says of all others was true later than whatever is remembered of them, so it stays as it is to the last
//! element. Chains and sets of ranges are named by their content: what a new endpoint needs can stand beside what is
//! there, and a set of members that is there keeps those that it has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::apply::{chain_targets, data_target, sets_read};
use crate::compile::GATE_SETS;
use crate::table::{Element, Table, Value};

/// The endpoints that came or went since, by what the table knows of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub interfaces: BTreeSet<String>,
    pub addresses: BTreeSet<IpAddr>,
}

impl Touched {
    pub fn is_empty(&self) -> bool {
        self.interfaces.is_empty() && self.addresses.is_empty()
    }

    fn holds(&self, value: &Value) -> bool {
        match value {
            Value::Interface(name) => self.interfaces.contains(name),
            Value::Ipv4(address) => self.addresses.contains(&IpAddr::V4(*address)),
            Value::Ipv6(address) => self.addresses.contains(&IpAddr::V6(*address)),
            Value::Protocol(_) | Value::Port(_) | Value::Word(_) => false,
        }
    }

    /// Whether an element speaks of them. Ranges never do: they are content, not members.
    fn concerns(&self, element: &Element) -> bool {
        match element {
            Element::Exact(values) => values.first().is_some_and(|value| self.holds(value)),
            Element::Range { .. } => false,
        }
    }
}

/// The table found has no place for an endpoint as this compiler writes it: another release left it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table in the kernel has no set {set:?} of this release's form")]
pub struct Unlike {
    pub set: String,
}

/// `found` with what `compiled` says of the endpoints that were touched, and nothing else of it. Nothing is taken away
/// but elements of theirs.
///
/// # Errors
/// Where an element of theirs has no place.
pub fn keep_found(found: &Table, compiled: &Table, touched: &Touched) -> Result<Table, Unlike> {
    let mut table = found.clone();
    for set in table.sets.values_mut().filter(|set| !set.interval) {
        set.elements.retain(|element, _| !touched.concerns(element));
    }
    let mut wanted: Vec<String> = Vec::new();
    for (name, set) in compiled.sets.iter().filter(|(_, set)| !set.interval) {
        let elements = set.elements.iter().filter(|(element, _)| touched.concerns(element));
        let elements: Vec<_> = elements.map(|(element, data)| (element.clone(), data.clone())).collect();
        match table.sets.get_mut(name) {
            _ if elements.is_empty() => {}
            Some(place) if place.shape() == set.shape() => {
                let targets = elements.iter().filter_map(|(_, data)| data_target(data.as_ref()?));
                wanted.extend(targets.map(str::to_owned));
                place.elements.extend(elements);
            }
            // No rule in the kernel reads it; one that comes brings it along.
            None if !(set.data.is_some() || GATE_SETS.contains(&name.as_str())) => {}
            Some(_) | None => return Err(Unlike { set: name.clone() }),
        }
    }
    add_chains(&mut table, compiled, wanted);
    Ok(table)
}

/// The chains that these names lead to, with the sets that they read, as far as they are not there.
fn add_chains(table: &mut Table, compiled: &Table, mut wanted: Vec<String>) {
    while let Some(name) = wanted.pop() {
        if table.chains.contains_key(&name) {
            continue;
        }
        let Some(chain) = compiled.chains.get(&name) else { continue };
        for rule in &chain.rules {
            wanted.extend(chain_targets(rule).map(str::to_owned));
            for set in sets_read(rule).filter(|set| !table.sets.contains_key(*set)).collect::<Vec<_>>() {
                if let Some(content) = compiled.sets.get(set) {
                    table.sets.insert(set.to_owned(), content.clone());
                }
            }
        }
        table.chains.insert(name, chain.clone());
    }
}
