//! What the kernel makes of a transaction, with the errors it would give: the planner's judge in tests.

use std::collections::BTreeMap;

use super::{Operation, Transaction};
use crate::table::{Chain, Data, Rule, Set, Statement, Table, Verdict};

/// The kernel refuses the whole transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{operation}: {name} exists")]
    Exists { operation: &'static str, name: String },
    #[error("{operation}: {name} does not exist")]
    NotFound { operation: &'static str, name: String },
    #[error("delete {name}: something refers to it")]
    Busy { name: String },
}

/// Applies all of it or, on an error, nothing.
pub fn apply(table: &mut Table, transaction: &Transaction) -> Result<(), ApplyError> {
    let mut next = table.clone();
    for operation in &transaction.0 {
        step(&mut next, operation)?;
    }
    *table = next;
    Ok(())
}

fn step(table: &mut Table, operation: &Operation) -> Result<(), ApplyError> {
    match operation {
        Operation::AddSet { name, shape } => {
            let set = Set {
                key: shape.key.clone(),
                interval: shape.interval,
                data: shape.data,
                counter: shape.counter,
                elements: BTreeMap::new(),
            };
            vacant("add set", name, table.sets.insert(name.clone(), set).is_none())
        }
        Operation::AddChain { name, base } => {
            let chain = Chain { base: *base, rules: Vec::new() };
            vacant("add chain", name, table.chains.insert(name.clone(), chain).is_none())
        }
        Operation::AddElements { set, elements } => {
            let mut targets = elements.iter().filter_map(|(_, data)| data.as_ref()).filter_map(data_target);
            targets.try_for_each(|chain| found("add element", chain, table.chains.contains_key(chain)))?;
            let held = table.sets.get_mut(set).ok_or_else(|| missing("add element", set))?;
            for (element, data) in elements {
                // EEXIST with other data; with the same it is a no-op, which a plan has no use for either.
                vacant("add element", set, held.elements.insert(element.clone(), data.clone()).is_none())?;
            }
            Ok(())
        }
        Operation::DeleteElements { set, elements } => {
            let held = table.sets.get_mut(set).ok_or_else(|| missing("delete element", set))?;
            elements
                .iter()
                .try_for_each(|element| found("delete element", set, held.elements.remove(element).is_some()))
        }
        Operation::ReplaceRules { chain, rules } => {
            for rule in rules {
                for target in chain_targets(rule) {
                    found("add rule", target, table.chains.contains_key(target))?;
                }
                for set in sets_read(rule) {
                    found("add rule", set, table.sets.contains_key(set))?;
                }
            }
            let held = table.chains.get_mut(chain).ok_or_else(|| missing("flush chain", chain))?;
            held.rules.clone_from(rules);
            Ok(())
        }
        Operation::DeleteSet { name } => {
            let used =
                table.chains.values().flat_map(|chain| &chain.rules).any(|r| sets_read(r).any(|s| s == name));
            idle(name, !used)?;
            found("delete set", name, table.sets.remove(name).is_some())
        }
        Operation::DeleteChain { name } => {
            let by_rule =
                table.chains.values().flat_map(|c| &c.rules).any(|r| chain_targets(r).any(|t| t == name));
            let by_element = table
                .sets
                .values()
                .flat_map(|set| set.elements.values().flatten())
                .any(|data| data_target(data) == Some(name));
            idle(name, !by_rule && !by_element)?;
            match table.chains.remove(name) {
                Some(chain) => idle(name, chain.rules.is_empty()),
                None => Err(missing("delete chain", name)),
            }
        }
    }
}

/// Chains to which a rule goes or jumps.
pub(super) fn chain_targets(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.statements.iter().filter_map(|statement| match statement {
        Statement::Verdict(verdict) => verdict_target(verdict),
        Statement::Family(_)
        | Statement::Match { .. }
        | Statement::InterfacePrefix { .. }
        | Statement::InRange { .. }
        | Statement::InSet { .. }
        | Statement::VerdictMap { .. }
        | Statement::ConnectionState { .. }
        | Statement::ConnectionDnat { .. }
        | Statement::Counter
        | Statement::Limit { .. }
        | Statement::Log { .. }
        | Statement::Reject { .. }
        | Statement::Masquerade => None,
    })
}

/// Sets and maps that a rule looks up.
pub(crate) fn sets_read(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.statements.iter().filter_map(|statement| match statement {
        Statement::InSet { set, .. } => Some(set.as_str()),
        Statement::VerdictMap { map, .. } => Some(map.as_str()),
        Statement::Family(_)
        | Statement::Match { .. }
        | Statement::InterfacePrefix { .. }
        | Statement::InRange { .. }
        | Statement::ConnectionState { .. }
        | Statement::ConnectionDnat { .. }
        | Statement::Counter
        | Statement::Limit { .. }
        | Statement::Log { .. }
        | Statement::Reject { .. }
        | Statement::Masquerade
        | Statement::Verdict(_) => None,
    })
}

pub(super) fn data_target(data: &Data) -> Option<&str> {
    match data {
        Data::Verdict(verdict) => verdict_target(verdict),
        Data::Word(_) => None,
    }
}

fn verdict_target(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
        Verdict::Accept | Verdict::Drop | Verdict::Return | Verdict::Continue => None,
    }
}

fn vacant(operation: &'static str, name: &str, vacant: bool) -> Result<(), ApplyError> {
    if vacant { Ok(()) } else { Err(ApplyError::Exists { operation, name: name.to_owned() }) }
}

fn found(operation: &'static str, name: &str, found: bool) -> Result<(), ApplyError> {
    if found { Ok(()) } else { Err(missing(operation, name)) }
}

fn missing(operation: &'static str, name: &str) -> ApplyError {
    ApplyError::NotFound { operation, name: name.to_owned() }
}

fn idle(name: &str, idle: bool) -> Result<(), ApplyError> {
    if idle { Ok(()) } else { Err(ApplyError::Busy { name: name.to_owned() }) }
}
