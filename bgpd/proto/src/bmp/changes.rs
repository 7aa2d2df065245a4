//! What a station is still to be told: each path and each best path once, however often it changes.
//!
//! ```text
//!   note ─► waiting, sorted ── round and round, a step at a time ─► told as they stand then
//!     └───► End-of-RIBs ────── due when the rounds have passed all that waited before them
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

use crate::rib::Change;
use crate::types::{AfiSafi, PeerId};

#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Sorted, so that what is told of one peer is told together.
    waiting: BTreeSet<Change>,
    /// The last one written in this round: what keeps changing must not keep others waiting.
    last: Option<Change>,
    /// Rounds that are over.
    rounds: u64,
    /// End-of-RIBs, each with the rounds that have to be over before.
    ends: VecDeque<(u64, PeerId, AfiSafi)>,
}

impl Changes {
    pub(super) fn note(&mut self, change: Change) {
        self.waiting.insert(change);
    }

    /// The peer has told a family: that is to be said behind all that waits now.
    pub(super) fn note_end(&mut self, peer: PeerId, family: AfiSafi) {
        // What this round has passed already is written in the next one.
        let rounds = self.rounds + 1 + u64::from(self.last.is_some());
        self.ends.push_back((rounds, peer, family));
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ends.is_empty()
    }

    /// The next ones of this round, at most so many.
    pub(super) fn next(&self, most: usize) -> Vec<Change> {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        self.waiting.range((from, Bound::Unbounded)).take(most).copied().collect()
    }

    /// These, the first ones of [`Changes::next`], were written.
    pub(super) fn written(&mut self, changes: &[Change]) {
        for change in changes {
            self.waiting.remove(change);
        }
        self.last = changes.last().copied().or(self.last);
        if self.next(1).is_empty() {
            self.last = None;
            self.rounds += 1;
        }
    }

    /// Whether an End-of-RIB is still to be said.
    pub(super) fn has_end(&self, peer: PeerId, family: AfiSafi) -> bool {
        self.ends.iter().any(|(_, of, what)| (*of, *what) == (peer, family))
    }

    /// The next End-of-RIB that is due.
    pub(super) fn take_end(&mut self) -> Option<(PeerId, AfiSafi)> {
        let is_due =
            |(rounds, ..): &(u64, PeerId, AfiSafi)| *rounds <= self.rounds || self.waiting.is_empty();
        self.ends.front().copied().filter(is_due)?;
        self.ends.pop_front().map(|(_, peer, family)| (peer, family))
    }

    /// The peer's session ended, and with it what it was about to end.
    pub(super) fn forget_ends(&mut self, peer: PeerId) {
        self.ends.retain(|(_, of, _)| *of != peer);
    }
}
