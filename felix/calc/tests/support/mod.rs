//! Random states and packets that collide on purpose, their shrinking, and the comparison of the compiled
//! table with the evaluator.
#![allow(dead_code, unreachable_pub)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

pub mod change;
pub mod generate;
pub mod render;
pub mod shrink;

use felix_calc::compile::Compiled;
use felix_calc::evaluator::Evaluator;
use felix_calc::model::{Action, NodeState, RuleId};
use felix_calc::packet::Packet;
use felix_calc::simulate::{simulate, simulate_source_nat};
use felix_calc::verdict::Reason;

/// `None`: table and evaluator agree on verdict, deciding rules, log lines and source address; else what differs.
pub fn disagreement(state: &NodeState, compiled: &Compiled, packet: &Packet) -> Option<String> {
    let want = Evaluator::new(state).node(packet);
    let got = match simulate(&compiled.table, packet) {
        Ok(walk) => walk,
        Err(error) => return Some(error.to_string()),
    };
    let counted: Vec<&Reason> = got
        .counted
        .iter()
        .map(|place| compiled.counters.places.get(place).expect("every counter is someone's"))
        .filter(|reason| decides(state, reason))
        .collect();
    let deciding: Vec<&Reason> = want.reasons.iter().filter(|reason| is_counted(state, reason)).collect();
    let logged: Vec<&Reason> = got
        .logged
        .iter()
        .map(|prefix| compiled.counters.log_prefixes.get(prefix).expect("every line is someone's"))
        .filter(|reason| !decides(state, reason))
        .collect();
    let logs: Vec<Reason> = want.logs.iter().cloned().map(Reason::Rule).collect();
    if got.verdict != want.verdict {
        return Some(format!(
            "verdict: want {:?} by {:?}, got {:?}",
            want.verdict, want.reasons, got.verdict
        ));
    }
    if counted != deciding {
        return Some(format!("deciding: want {deciding:?}, got {counted:?}"));
    }
    if logged != logs.iter().collect::<Vec<_>>() {
        return Some(format!("logs: want {logs:?}, got {logged:?}"));
    }
    let hidden = state.nat.masquerades(packet.source, packet.destination);
    match simulate_source_nat(&compiled.table, packet) {
        Ok(found) if found == hidden => None,
        found => Some(format!("masquerade: want {hidden}, got {found:?}")),
    }
}

fn decides(state: &NodeState, reason: &Reason) -> bool {
    if let Reason::Rule(id) = reason {
        !matches!(action(state, id), Action::Pass | Action::Log)
    } else {
        true
    }
}

fn action(state: &NodeState, id: &RuleId) -> Action {
    let rules = state.policies[&id.policy].rules(id.direction).unwrap();
    rules.iter().find(|rule| rule.index == id.index).unwrap().action
}

/// What the kernel counts: rules, and every denial.
fn is_counted(state: &NodeState, reason: &Reason) -> bool {
    match reason {
        Reason::NoPolicy
        | Reason::Established
        | Reason::Itself
        | Reason::NotOurs
        | Reason::NeighborDiscovery => false,
        Reason::WorkloadToHost => state.settings.workload_to_host == felix_calc::model::HostAction::Deny,
        Reason::Rule(_)
        | Reason::TierDefault { .. }
        | Reason::Invalid
        | Reason::Spoofed
        | Reason::UnknownInterface
        | Reason::RouterAdvertisement
        | Reason::Redirect
        | Reason::ProtectedPort
        | Reason::ServiceLoop => true,
    }
}

/// How many random states a property is tried on: `MANX_PROPERTY_STATES`, else 2,500, and 300 in a build
/// without optimisation.
pub fn states() -> u64 {
    let asked = std::env::var("MANX_PROPERTY_STATES").ok().and_then(|states| states.parse().ok());
    asked.unwrap_or(if optimised() { 2_500 } else { 300 })
}

/// Whether this is the profile that CI runs; `ci` inherits from `release`.
fn optimised() -> bool {
    std::env::current_exe().is_ok_and(|path| !path.components().any(|part| part.as_os_str() == "debug"))
}
