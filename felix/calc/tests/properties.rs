//! The compiled table means what the evaluator says, on random states (P2).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod support;

use felix_calc::compile::Compiler;
use felix_calc::compile::sets::SetsCompiler;
use felix_calc::model::NodeState;
use felix_calc::packet::Packet;

use support::generate::{Random, Style, packet, state};
use support::{disagreement, shrink, states};

const PACKETS: usize = 60;

/// Seeds of states on which a compiler or the evaluator was once wrong; they run first.
const REGRESSIONS: [u64; 0] = [];

#[test]
fn the_table_agrees_with_the_evaluator() {
    for seed in REGRESSIONS.into_iter().chain(0..states()) {
        check(seed);
    }
}

fn check(seed: u64) {
    let mut random = Random::new(seed);
    let style = if seed.is_multiple_of(3) { Style::Kubernetes } else { Style::General };
    let state = state(&mut random, style);
    let compiled = SetsCompiler::default().compile(&state);
    for _ in 0..PACKETS {
        let packet = packet(&mut random, &state);
        if disagreement(&state, &compiled, &packet).is_some() {
            report(seed, &state, &packet);
        }
    }
}

fn report(seed: u64, state: &NodeState, packet: &Packet) {
    let differs = |state: &NodeState| disagreement(state, &SetsCompiler::default().compile(state), packet);
    let small = shrink::shrink(state.clone(), |state| differs(state).is_some());
    let why = differs(&small).unwrap();
    let table = SetsCompiler::default().compile(&small).table;
    panic!("seed {seed}: {why}\n{packet:#?}\n{small:#?}\n{:#?}", table.chains);
}
