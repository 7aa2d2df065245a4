//! The model test must fail when the allocator is wrong: each fault is found within these many runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, clippy::cast_possible_truncation, clippy::wildcard_enum_match_arm)]

use manx_ipam::allocator::{Allocator, Fault};

#[path = "sim/mod.rs"]
mod sim;

const RUNS: u64 = 3_000;

#[test]
fn every_injected_fault_is_found() {
    for (fault, finding) in Fault::ALL {
        let found = (0..RUNS).find_map(|seed| {
            let broken = |me, settings, restored| {
                let mut allocator = Allocator::new(me, settings, restored);
                allocator.inject(Some(fault));
                allocator
            };
            sim::run(seed, false, &broken)
                .err()
                .filter(|violation| violation.contains(finding))
                .map(|violation| (seed, violation))
        });
        let (seed, violation) = found.unwrap_or_else(|| panic!("{fault:?} survived {RUNS} runs"));
        println!("{fault:?}: seed {seed}: {violation}");
    }
}
