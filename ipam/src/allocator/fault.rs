//! Bugs that the model test must find: built for tests only.

use super::Allocator;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Gives addresses from a listed block before a write of this process has confirmed it.
    NoFenceAtStart,
    /// Goes on giving addresses from a block whose deletion was asked for.
    UseWhileLeaving,
    /// Answers without a journal record.
    NoRecord,
    /// A released address can be given at once.
    NoCooldown,
}

impl Fault {
    pub const ALL: [Fault; 4] =
        [Fault::NoFenceAtStart, Fault::UseWhileLeaving, Fault::NoRecord, Fault::NoCooldown];
}

impl Allocator {
    pub fn inject(&mut self, fault: Option<Fault>) {
        self.fault = fault;
    }
}
