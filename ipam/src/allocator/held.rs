//! One block of this node and the object that records it.
//!
//! ```text
//!                    Create ─────────────── Created ──────────────┐
//!   Absent ──────────┤                                            ▼
//!     ▲              └ AlreadyExists ─▶ Unread ─ Get ─ Found ▶ Present ⇄ Replace / Replaced
//!     │ NotFound                         ▲                        │  (Conflict, no answer ─▶ Unread)
//!     └──────────────────────────────────┴───── Delete ◀──────────┘  surplus, object empty
//! ```
//! **The fence.** A request whose answer was lost, or that a process sent before it died, may still take effect.
//! A late Replace is only an old text, but a late Delete or a clearing of `nodeName` would hand the block to
//! another node while this one goes on giving addresses without asking. So addresses are given only from a block
//! that a compare-and-swap of this process has written since: whatever is still on its way carries an older
//! revision and fails.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use jiff::SignedDuration;
use manx_crds::v1alpha1::IPBlock;

use super::{Identity, Now, Settings, StoreId, StoreRequest};
use crate::block::{self, Allocation, Block, Slot};
use crate::owner::Owner;

/// The object follows what was given within a second: this long, and one write.
const COALESCE: Duration = Duration::from_millis(500);
/// How many of our own revisions are remembered, to know the watch's echo of them.
const ECHOES: usize = 8;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What is known of the object.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    /// Somebody may have written it: read first.
    Unread,
    Absent,
    Present(Box<IPBlock>),
}

/// The kind of the request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Create,
    Replace,
    Delete,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) block: Block,
    pub(super) stored: Stored,
    /// A compare-and-swap of this process has confirmed the block: addresses may be given.
    pub(super) fenced: bool,
    /// An earlier start had confirmed it, and the store has not answered since: addresses may be given all the same.
    pub(super) remembered: bool,
    /// The block was never ours: it is being claimed.
    pub(super) claiming: bool,
    /// Surplus: it is being given back.
    pub(super) leaving: bool,
    pub(super) in_flight: Option<(StoreId, Verb)>,
    /// Since when the object lags behind.
    pub(super) dirty_since: Option<Duration>,
    /// Since when nobody needs the block.
    pub(super) surplus_since: Option<Duration>,
    /// Owned addresses that no record of this node explains: kept while the object keeps them.
    pub(super) unknown: BTreeSet<IpAddr>,
    /// A revision that the watch showed and that is none of ours.
    pub(super) hinted: Option<String>,
    /// The store's last complaint.
    pub(super) trouble: Option<String>,
    /// The object that was written last: another of the same name is another claim.
    uid: Option<String>,
    echoes: VecDeque<String>,
    not_before: Duration,
    attempts: u32,
}

impl Held {
    pub(super) fn new(block: Block, stored: Stored) -> Held {
        Held {
            block,
            stored,
            fenced: false,
            remembered: false,
            claiming: false,
            leaving: false,
            in_flight: None,
            dirty_since: None,
            surplus_since: None,
            unknown: BTreeSet::new(),
            hinted: None,
            trouble: None,
            uid: None,
            echoes: VecDeque::new(),
            not_before: Duration::ZERO,
            attempts: 0,
        }
    }

    /// May addresses be given?
    pub(super) fn usable(&self) -> bool {
        (self.fenced || self.remembered) && !self.leaving
    }

    /// An earlier start wrote this object last.
    pub(super) fn remember(&mut self, uid: String) {
        self.remembered = true;
        self.uid = Some(uid);
    }

    pub(super) fn touch(&mut self, now: Now) {
        self.dirty_since.get_or_insert(now.monotonic);
    }

    /// Frees what has cooled down. The object keeps expired entries until the next write, except when the block
    /// has become empty: then its object must be empty, too, so that it can be deleted.
    pub(super) fn expire(&mut self, cooldown: SignedDuration, now: Now) {
        if self.block.expire(now.wall, cooldown) && self.block.is_empty() {
            self.touch(now);
        }
    }

    /// The next request to the store, if one is due.
    pub(super) fn next_request(&self, me: &Identity, now: Now) -> Option<(Verb, StoreRequest)> {
        if self.in_flight.is_some() || now.monotonic < self.due(now)? {
            return None;
        }
        let cidr = self.block.cidr();
        Some(match &self.stored {
            Stored::Unread => (Verb::Get, StoreRequest::Get { cidr }),
            Stored::Absent => (Verb::Create, StoreRequest::Create(Box::new(self.block.object(me, None)))),
            Stored::Present(object) if self.leaving && self.dirty_since.is_none() => {
                let (uid, revision) = block::identity_of(object);
                (Verb::Delete, StoreRequest::Delete { cidr, uid, revision })
            }
            Stored::Present(object) => {
                (Verb::Replace, StoreRequest::Replace(Box::new(self.block.object(me, Some(object)))))
            }
        })
    }

    /// When the next request is due, if there is anything to ask for.
    fn due(&self, now: Now) -> Option<Duration> {
        let at = match &self.stored {
            Stored::Unread | Stored::Absent => now.monotonic,
            Stored::Present(_) if !self.fenced || self.leaving => now.monotonic,
            Stored::Present(_) => self.dirty_since?.saturating_add(COALESCE),
        };
        Some(at.max(self.not_before))
    }

    /// When this block wants to be looked at again.
    pub(super) fn next_deadline(&self, settings: Settings, now: Now) -> Option<Duration> {
        let write = if self.in_flight.is_none() { self.due(now) } else { None };
        let expiry = self.block.next_expiry().map(|until| {
            let left = until.duration_since(now.wall).min(settings.cooldown);
            now.monotonic.saturating_add(Duration::try_from(left).unwrap_or(Duration::ZERO))
        });
        let surplus = self.surplus_since.map(|since| since.saturating_add(super::blocks::SURPLUS));
        [write, expiry, surplus].into_iter().flatten().min()
    }

    /// A request goes out.
    pub(super) fn sent(&mut self, id: StoreId, verb: Verb) {
        self.in_flight = Some((id, verb));
        match verb {
            // What was given so far is in the text; what is given from here on is not.
            Verb::Create | Verb::Replace => self.dirty_since = None,
            // From here on the object may vanish at any time.
            Verb::Delete => (self.fenced, self.remembered) = (false, false),
            // What the watch shows from here on may be newer than the answer.
            Verb::Get => self.hinted = None,
        }
    }

    /// A write took place: whatever is still on its way is older and fails.
    pub(super) fn written(&mut self, object: IPBlock) {
        self.fenced = true;
        self.remembered = false;
        self.claiming = false;
        self.uid = Some(block::identity_of(&object).0);
        self.seen(&object);
        self.stored = Stored::Present(Box::new(object));
        self.well();
    }

    /// The object was read: it is this, and its revision is ours to compare with.
    pub(super) fn seen(&mut self, object: &IPBlock) {
        let (_, revision) = block::identity_of(object);
        if self.hinted.as_ref() == Some(&revision) {
            self.hinted = None;
        }
        if self.echoes.len() == ECHOES {
            self.echoes.pop_front();
        }
        self.echoes.push_back(revision);
    }

    /// Is this the object that was written last, and not a later one of its name?
    pub(super) fn is_same(&self, object: &IPBlock) -> bool {
        self.uid.as_ref() == Some(&block::identity_of(object).0)
    }

    /// The watch shows another state than the one known: read, as soon as nothing is in flight. A revision of our
    /// own is an echo.
    pub(super) fn hint(&mut self, revision: &str) {
        if !self.echoes.iter().any(|known| known == revision) {
            self.hinted = Some(revision.to_owned());
            self.follow_hint();
        }
    }

    pub(super) fn follow_hint(&mut self) {
        if self.hinted.is_some() && self.in_flight.is_none() && matches!(self.stored, Stored::Present(_)) {
            self.stored = Stored::Unread;
        }
    }

    /// A write failed, or nobody knows: read before writing again.
    pub(super) fn unsettled(&mut self, now: Now) {
        self.stored = Stored::Unread;
        self.touch(now);
    }

    pub(super) fn well(&mut self) {
        self.attempts = 0;
        self.not_before = Duration::ZERO;
        self.trouble = None;
    }

    /// The store did not answer, or refused: wait longer each time.
    pub(super) fn back_off(&mut self, text: String, now: Now) {
        let delay = FIRST_RETRY.saturating_mul(1 << self.attempts.min(7)).min(LAST_RETRY);
        self.attempts = self.attempts.saturating_add(1);
        self.not_before = now.monotonic.saturating_add(delay);
        self.trouble = Some(text);
    }

    /// Takes over what an object says, into what this node knows.
    ///
    /// This node is the only one that gives addresses of its blocks, so its own word wins:
    ///
    /// | the object says | and here it is | then |
    /// |---|---|---|
    /// | a pod's | owned by another, with a record | here wins |
    /// | a pod's | free or cooling, block fenced | released here since: here wins |
    /// | a pod's | free, block not fenced, journal whole | it died with the process before: it cools down |
    /// | a pod's | free, block not fenced, journal not whole | kept, as unknown |
    /// | a tunnel's, or borrowed | anything without a record | kept, as unknown |
    /// | nothing | owned, with a record | here wins: the pod runs, whatever garbage collection thinks |
    /// | nothing | owned, unknown | garbage collection removed it: it cools down |
    pub(super) fn absorb(&mut self, theirs: &Block, complete: bool, settings: Settings, now: Now) {
        let until = now.wall.saturating_add(settings.cooldown).unwrap_or(now.wall);
        self.block.set_pool(theirs.pool());
        for (ip, allocation) in theirs.owned() {
            let known = match self.block.slot(ip) {
                Some(Slot::Owned(ours)) => ours == allocation || !self.unknown.contains(&ip),
                Some(Slot::Cooling { .. }) | None => false,
            };
            if known {
                continue;
            }
            if foreign(allocation) || (!self.fenced && !complete) {
                self.block.set(ip, Slot::Owned(allocation.clone()));
                self.unknown.insert(ip);
            } else if !self.fenced && self.block.slot(ip).is_none() {
                self.block.set(ip, Slot::Cooling { until });
            }
        }
        let removed: Vec<IpAddr> = self
            .unknown
            .iter()
            .copied()
            .filter(|ip| !matches!(theirs.slot(*ip), Some(Slot::Owned(_))))
            .collect();
        for ip in removed {
            self.unknown.remove(&ip);
            self.block.set(ip, Slot::Cooling { until });
        }
        if !self.fenced {
            for (ip, until) in theirs.cooling() {
                if self.block.slot(ip).is_none() && until > now.wall {
                    self.block.set(ip, Slot::Cooling { until });
                }
            }
            self.block.resume(theirs);
        }
        if self.block != *theirs {
            self.touch(now);
        }
    }
}

/// Written by somebody else than this node's assignment of pod addresses.
fn foreign(allocation: &Allocation) -> bool {
    allocation.borrowed_by.is_some() || matches!(allocation.owner, Owner::Tunnel | Owner::Other(_))
}
