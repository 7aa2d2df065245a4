//! What happened, so that a test that exercises nothing cannot pass.

#[derive(Debug, Default)]
pub struct Stats {
    pub adds: u64,
    pub assigned: u64,
    pub refused: u64,
    pub claimed: u64,
    pub given_back: u64,
    pub crashes: u64,
    pub conflicts: u64,
    pub taken: u64,
    pub lost_before: u64,
    pub lost_after: u64,
    pub late: u64,
    pub late_deletes: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Stats) {
        let Stats {
            adds,
            assigned,
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
    pub fn assert_everything_happened(&self) {
        let text = format!("{self:?}");
        assert!(!text.contains(": 0"), "something never happened: {text}");
    }
}
