//! One station: octets that wait for its socket, and what is still to be written.
//!
//! ```text
//!   new ─► Initiation, Loc-RIB, sessions ─► IPv4 slots ─► IPv6 slots ─► End-of-RIBs ─► Idle
//!                                             └──────────┬─────────┘                     │
//!          changes go in between, from the start on ─────┴───────────────────────────────┘
//!   more waits than is kept, or our AS or router id changed ─► Over: the shell connects anew
//! ```

use std::collections::VecDeque;

use super::changes::Changes;
use super::message::{self, Termination};
use crate::rib::{Change, SlotWalk};
use crate::types::{AfiSafi, PeerId};

/// Octets that may wait for a station's socket.
const MOST_OCTETS: usize = 16 << 20;
/// Changes that may wait to be written, beside as many as the table has rows: all of it may change at once, and be it the loss of a
/// peer that told all of it. More than that are prefixes that came and went while the station did not read.
const MOST_CHANGES: usize = 1 << 20;
/// More is written only when less than this waits.
const ENOUGH: usize = 256 << 10;
/// A piece of the queue is full above this.
const FULL: usize = 60_000;
/// Changes written in one step.
const STEP: usize = 4096;

/// Where the first telling of the table stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Walk {
    /// These slots are still to be told.
    Slots(AfiSafi, SlotWalk),
    /// All are told, and that is to be said.
    Ends,
    Idle,
}

#[derive(Debug)]
pub(super) struct Station {
    /// Whole messages in each.
    chunks: VecDeque<Vec<u8>>,
    /// Of the first chunk.
    taken: usize,
    /// The socket took something: at least a part of the first message.
    is_begun: bool,
    /// Octets in all chunks.
    queued: usize,
    changes: Changes,
    /// The most rows that the table had since the station came.
    rows: usize,
    walk: Walk,
    over: Option<Termination>,
}

impl Station {
    /// `slots` of IPv4 are told first. `rows`: how many the table has.
    pub(super) fn new(slots: u32, rows: usize) -> Station {
        Station {
            chunks: VecDeque::new(),
            taken: 0,
            is_begun: false,
            queued: 0,
            changes: Changes::default(),
            rows,
            walk: Walk::Slots(AfiSafi::Ipv4Unicast, SlotWalk::new(slots)),
            over: None,
        }
    }

    /// Ends it; the first reason stays.
    pub(super) fn end(&mut self, why: Termination) {
        self.over.get_or_insert(why);
        self.changes = Changes::default();
        self.walk = Walk::Idle;
    }

    pub(super) fn over(&self) -> Option<Termination> {
        self.over
    }

    /// Appends messages, which may be many for one call.
    pub(super) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.over.is_some() {
            return;
        }
        if self.chunks.back().is_none_or(|chunk| chunk.len() > FULL) {
            self.chunks.push_back(Vec::new());
        }
        let Some(chunk) = self.chunks.back_mut() else { return };
        let before = chunk.len();
        write(chunk);
        self.queued += chunk.len() - before;
        if self.queued - self.taken > MOST_OCTETS {
            self.end(Termination::OutOfResources);
        }
    }

    /// Takes changes in, to be written when there is room. `rows`: how many the table has.
    pub(super) fn note(&mut self, changes: &[Change], rows: usize) {
        if self.over.is_some() {
            return;
        }
        self.rows = self.rows.max(rows);
        changes.iter().for_each(|change| self.changes.note(*change));
        if self.changes.len() > MOST_CHANGES + self.rows {
            self.end(Termination::OutOfResources);
        }
    }

    /// A peer has told a family.
    pub(super) fn note_end(&mut self, peer: PeerId, family: AfiSafi) {
        if self.over.is_none() {
            self.changes.note_end(peer, family);
        }
    }

    /// A session ended: no End-of-RIB of it is to come any more.
    pub(super) fn forget_ends(&mut self, peer: PeerId) {
        self.changes.forget_ends(peer);
    }

    /// Whether more may be written.
    pub(super) fn has_room(&self) -> bool {
        self.over.is_none() && self.queued - self.taken < ENOUGH
    }

    /// The next changes to be written.
    pub(super) fn next_changes(&self) -> Vec<Change> {
        self.changes.next(STEP)
    }

    /// These were written.
    pub(super) fn wrote_changes(&mut self, changes: &[Change]) {
        self.changes.written(changes);
    }

    /// The next End-of-RIB of a peer that is due: what came before it was written, also what stood in the table before the
    /// station came.
    pub(super) fn take_end(&mut self) -> Option<(PeerId, AfiSafi)> {
        match self.walk {
            Walk::Slots(..) => None,
            Walk::Ends | Walk::Idle => self.changes.take_end(),
        }
    }

    /// Whether an End-of-RIB of the peer is still to come behind what waits.
    pub(super) fn has_end(&self, peer: PeerId, family: AfiSafi) -> bool {
        self.changes.has_end(peer, family)
    }

    /// Where the walk over the table stands, if it is not over.
    pub(super) fn slots(&self) -> Option<(AfiSafi, SlotWalk)> {
        match &self.walk {
            Walk::Slots(family, walk) => Some((*family, walk.clone())),
            Walk::Ends | Walk::Idle => None,
        }
    }

    /// It stands there now; `ipv6`: how many slots there are of the family that comes second.
    pub(super) fn walked(&mut self, family: AfiSafi, walk: SlotWalk, ipv6: u32) {
        if !matches!(self.walk, Walk::Slots(..)) {
            return;
        }
        self.walk = match family {
            _ if !walk.is_over() => Walk::Slots(family, walk),
            AfiSafi::Ipv4Unicast => Walk::Slots(AfiSafi::Ipv6Unicast, SlotWalk::new(ipv6)),
            AfiSafi::Ipv6Unicast => Walk::Ends,
        };
    }

    /// Whether it is now to be said that the table was told; it is said once.
    pub(super) fn take_ends(&mut self) -> bool {
        let due = self.walk == Walk::Ends;
        if due {
            self.walk = Walk::Idle;
        }
        due
    }

    /// Whether something is still to be written.
    pub(super) fn is_busy(&self) -> bool {
        !self.changes.is_empty() || self.walk != Walk::Idle
    }

    /// What waits for the socket, from the first octet on.
    pub(super) fn octets(&self) -> Option<&[u8]> {
        self.chunks.front().and_then(|chunk| chunk.get(self.taken..)).filter(|rest| !rest.is_empty())
    }

    /// The socket took so many.
    pub(super) fn transmitted(&mut self, count: usize) {
        self.taken += count;
        self.is_begun |= count > 0;
        while let Some(chunk) = self.chunks.front().filter(|chunk| chunk.len() <= self.taken) {
            self.taken -= chunk.len();
            self.queued -= chunk.len();
            self.chunks.pop_front();
        }
    }

    /// The end of a message that the socket took in part, and a last one. Who was told nothing yet is told first who speaks.
    pub(super) fn last_octets(&self, why: Termination) -> Vec<u8> {
        let mut last = Vec::new();
        if let Some(chunk) = self.chunks.front() {
            let mut end = 0;
            while end < self.taken || !self.is_begun && end == 0 {
                match chunk.get(end..).and_then(message::length) {
                    Some(length) => end += length,
                    None => break,
                }
            }
            last.extend_from_slice(chunk.get(self.taken..end).unwrap_or_default());
        }
        why.encode(&mut last);
        last
    }
}
