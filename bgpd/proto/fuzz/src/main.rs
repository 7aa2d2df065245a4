//! libFuzzer around the targets of `tests/targets`, one binary for all: `FUZZ_TARGET` chooses. `make fuzz` builds and runs it.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/collector/mod.rs"]
mod collector;
#[path = "../../tests/hand/mod.rs"]
mod hand;
#[path = "../../tests/targets/mod.rs"]
mod targets;
#[path = "../../tests/updates/mod.rs"]
mod updates;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use targets::Target;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

static TARGET: LazyLock<&Target> = LazyLock::new(|| Target::named(&std::env::var("FUZZ_TARGET").unwrap_or_default()));

fuzz_target!(|data: &[u8]| {
    let target = *TARGET;
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(data);
    let took = MEMORY.peak_usage().saturating_sub(before);
    assert!(took <= target.most(data.len()), "{took} octets of memory for an input of {}", data.len());
});
