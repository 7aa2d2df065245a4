//! Several nodes against one store, with conflicts, lost answers, late writes, late watches, crashes and torn
//! journals: no address is given twice, none is lost.
//!
//! A failing seed prints the command that replays it with every step.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, clippy::cast_possible_truncation, clippy::wildcard_enum_match_arm)]

#[path = "model/sim/mod.rs"]
mod sim;

use manx_ipam::allocator::Allocator;

/// Runs of `make test`; `MANX_IPAM_RUNS` asks for more, `MANX_IPAM_SEED` replays one.
const RUNS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn no_address_is_given_twice_and_none_is_lost() {
    if let Some(seed) = number("MANX_IPAM_SEED") {
        let stats = sim::run(seed, true, &Allocator::new).unwrap_or_else(|violation| panic!("{violation}"));
        println!("seed {seed}: {stats:?}");
        return;
    }
    let runs = number("MANX_IPAM_RUNS").unwrap_or(RUNS);
    let mut total = sim::Stats::default();
    for seed in 0..runs {
        match sim::run(seed, false, &Allocator::new) {
            Ok(stats) => total += stats,
            Err(violation) => panic!(
                "seed {seed}: {violation}\n  replay: MANX_IPAM_SEED={seed} cargo test -p manx-ipam --test model -- --nocapture"
            ),
        }
    }
    println!("{runs} runs: {total:?}");
    total.assert_everything_happened();
}
