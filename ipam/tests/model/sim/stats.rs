//! What happened, so that a test that exercises nothing cannot pass.

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(super) adds: u64,
    pub(super) assigned: u64,
    pub(super) from_memory: u64,
    pub(super) refused: u64,
    pub(super) claimed: u64,
    pub(super) given_back: u64,
    pub(super) crashes: u64,
    pub(super) conflicts: u64,
    pub(super) taken: u64,
    pub(super) lost_before: u64,
    pub(super) lost_after: u64,
    pub(super) late: u64,
    pub(super) late_deletes: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Stats) {
        let Stats {
            adds,
            assigned,
            from_memory,
            refused,
            claimed,
            given_back,
            crashes,
            conflicts,
            taken,
            lost_before,
            lost_after,
            late,
            late_deletes,
        } = other;
        self.adds += adds;
        self.assigned += assigned;
        self.from_memory += from_memory;
        self.refused += refused;
        self.claimed += claimed;
        self.given_back += given_back;
        self.crashes += crashes;
        self.conflicts += conflicts;
        self.taken += taken;
        self.lost_before += lost_before;
        self.lost_after += lost_after;
        self.late += late;
        self.late_deletes += late_deletes;
    }
}

impl Stats {
    #[allow(dead_code, reason = "the run with injected faults ends at the first violation")]
    pub(crate) fn assert_everything_happened(&self) {
        let text = format!("{self:?}");
        assert!(!text.contains(": 0"), "something never happened: {text}");
    }
}
