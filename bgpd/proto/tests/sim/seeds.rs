//! Chance, and how to meet it again.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Small, fast, and the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A place in a list of so many.
    pub(crate) fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.below(u64::try_from(count).unwrap())).unwrap()
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A number from the environment: what `make test-deep` turns up.
pub(crate) fn knob(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: no number")))
}

/// Runs a test for many seeds, `BGP_SEEDS` of them where it is set; one that fails says how to run it alone.
pub(crate) fn for_seeds(count: u64, mut test: impl FnMut(u64)) {
    if is_replay() {
        return test(knob("BGP_SEED", 0));
    }
    for seed in 0..knob("BGP_SEEDS", count) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!("seed {seed} fails; replay it alone:\n  {}", replay(seed));
            std::panic::resume_unwind(panic);
        }
    }
}

/// One seed alone is run.
pub(crate) fn is_replay() -> bool {
    std::env::var("BGP_SEED").is_ok()
}

/// The command that runs the present test with one seed.
pub(crate) fn replay(seed: u64) -> String {
    let knobs = ["BGP_SPEAKERS", "BGP_TROUBLES"].into_iter();
    let knobs: String =
        knobs.filter_map(|name| Some(format!("{name}={} ", std::env::var(name).ok()?))).collect();
    let thread = std::thread::current();
    let (binary, test) = (env!("CARGO_CRATE_NAME"), thread.name().unwrap_or_default());
    format!(
        "BGP_SEED={seed} {knobs}cargo test --locked --profile ci -p bgp-proto --test {binary} {test} -- --exact --nocapture"
    )
}
