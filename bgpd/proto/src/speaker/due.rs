//! What the speaker need not look for among all its peers: the next timer, and who may have something to send.
//!
//! A peer changes in [`Speaker::with_peer`](super::Speaker) and where its bytes are fetched; the table changes behind [`Table`].
//! Both note it here, so that a keepalive costs the same however many peers there are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::time::Instant;

use crate::rib::Rib;
use crate::types::PeerId;

/// When each peer has something to do next.
#[derive(Debug, Default)]
pub(super) struct Timers {
    of: BTreeMap<PeerId, Instant>,
    queue: BTreeSet<(Instant, PeerId)>,
}

impl Timers {
    pub(super) fn set(&mut self, peer: PeerId, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.of.insert(peer, at),
            None => self.of.remove(&peer),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.queue.remove(&(before, peer));
        }
        self.queue.extend(at.map(|at| (at, peer)));
    }

    pub(super) fn first(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Whose time has come, the longest overdue first.
    pub(super) fn due(&self, now: Instant) -> Vec<PeerId> {
        self.queue.iter().take_while(|(at, _)| *at <= now).map(|(_, peer)| *peer).collect()
    }

    pub(super) fn of(&self, peer: PeerId) -> Option<Instant> {
        self.of.get(&peer).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// The RIB, and whether it was touched: whoever changes it does so through here.
#[derive(Debug)]
pub(crate) struct Table {
    rib: Rib,
    /// Something may wait for [`Rib::drain`].
    undrained: bool,
    /// Something may wait for any peer.
    unoffered: bool,
}

impl Table {
    pub(super) fn new(rib: Rib) -> Table {
        Table { rib, undrained: true, unoffered: true }
    }

    /// For calls that take from the RIB what it has ready, and change nothing of what peers are told.
    pub(crate) fn taking(&mut self) -> &mut Rib {
        &mut self.rib
    }

    /// As [`Rib::drain`], where something was touched since.
    pub(super) fn drain(&mut self) -> bool {
        if self.undrained {
            self.unoffered = true;
            self.undrained = self.rib.drain();
        }
        self.undrained
    }

    /// Whether any peer may have something to hear that it was not offered. What was put into the log for one of a group counts:
    /// the others must read past it, or it is kept for them.
    pub(super) fn take_unoffered(&mut self) -> bool {
        let filled = self.rib.take_filled();
        std::mem::take(&mut self.unoffered) || filled
    }
}

impl Deref for Table {
    type Target = Rib;

    fn deref(&self) -> &Rib {
        &self.rib
    }
}

impl DerefMut for Table {
    fn deref_mut(&mut self) -> &mut Rib {
        (self.undrained, self.unoffered) = (true, true);
        &mut self.rib
    }
}
