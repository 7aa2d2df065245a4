//! Bugs that the model test must find: built for tests only.

use super::Allocator;
use crate::journal::State;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Gives addresses from a listed block before a write of this process has confirmed it.
    NoFenceAtStart,
    /// Takes a deletion without an answer for one that did not happen, and goes on giving addresses.
    ResumeAfterLostDelete,
    /// Answers without a journal record.
    NoRecord,
    /// A released address can be given at once.
    NoCooldown,
    /// Starts with an empty memory and calls it complete.
    NoReplay,
    /// What changes after the claim does not reach the object.
    NoWrite,
    /// Takes a block that was given back for ours, because the memory of it says so.
    ForgetLeaving,
}

impl Fault {
    /// Each fault and what must be found because of it.
    pub const ALL: [(Fault, &'static str); 7] = [
        (Fault::NoFenceAtStart, "under a running pod"),
        (Fault::ResumeAfterLostDelete, "under a running pod"),
        (Fault::NoRecord, "given twice"),
        (Fault::NoCooldown, "after its release"),
        (Fault::NoReplay, "given twice"),
        (Fault::NoWrite, "not empty"),
        (Fault::ForgetLeaving, "holds"),
    ];
}

impl Allocator {
    pub fn inject(&mut self, fault: Option<Fault>) {
        self.fault = fault;
        if fault == Some(Fault::NoReplay) {
            self.known = State::default();
        }
    }
}
