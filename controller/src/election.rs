//! Who of several controllers writes: a Lease (coordination.k8s.io/v1), held by compare-and-swap.
//!
//! ```text
//!              absent, nobody's, or not renewed for as long as its holder promised
//!   follower ──────────────────────────────────────────────────────────────────► leader ──┐ every 2 s
//!      ▲                                                                           │ ▲    │ renewed
//!      │                                                                           │ └────┘
//!      └── another holds it; not renewed for 8 s: nothing is written from then on ◄┘
//! ```
//! No clock of another machine is believed: a Lease is old when *we* have seen it unchanged for its duration. The
//! leader counts from the moment it *sent* a renewal, the follower from the moment it *received* what it saw, so the
//! leader's term ends first, whatever the network delays. Between the two lie 4 s, in which every write that the leader
//! began is over or given up (`leadership::REQUEST`). A killed leader is followed after 14 s at most: its last renewal
//! is seen within 2 s, and lasts for 12 s.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use crate::Now;

/// How long a holder's word counts.
pub const DURATION: Duration = Duration::from_secs(12);
/// A leader that could not renew for this long writes no more.
pub const RENEW_WITHIN: Duration = Duration::from_secs(8);
/// Between two looks, or two renewals.
pub const RETRY: Duration = Duration::from_secs(2);

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Get,
    Create(Box<Lease>),
    Replace(Box<Lease>),
    /// Nothing before this time.
    Wait(Duration),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Found(Box<Lease>),
    Absent,
    /// Created or replaced.
    Written(Box<Lease>),
    /// Somebody else was first.
    Conflict,
    /// Refused, or no answer.
    Failed,
}

/// One candidate's view.
#[derive(Clone, Debug)]
pub struct Election {
    namespace: String,
    name: String,
    identity: String,
    /// The Lease, and since when it says what it says.
    observed: Option<(Lease, Duration)>,
    /// What was observed is the newest, as far as we know: it may be written over.
    fresh: bool,
    next: Duration,
    sent: Duration,
    /// When the last renewal that took place was sent.
    renewed: Option<Duration>,
}

impl Election {
    /// `identity` must be no other process's, not even an earlier one's.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            observed: None,
            fresh: false,
            next: Duration::ZERO,
            sent: Duration::ZERO,
            renewed: None,
        }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Until when we may write; `None`: we do not lead.
    pub fn leads_until(&self) -> Option<Duration> {
        self.renewed.map(|sent| sent.saturating_add(RENEW_WITHIN))
    }

    /// Who holds the Lease, as last seen.
    pub fn holder(&self) -> Option<&str> {
        holder(&self.observed.as_ref()?.0)
    }

    /// The next step. Each but `Wait` is answered before the next is asked for.
    pub fn step(&mut self, now: Now) -> Step {
        let at = now.monotonic;
        if at < self.next {
            return Step::Wait(self.next);
        }
        if self.leads_until().is_some_and(|until| until <= at) {
            // Nobody renews a term that is over: what was concluded in it may be out of date.
            self.renewed = None;
        }
        self.sent = at;
        if !self.fresh {
            return Step::Get;
        }
        let Some((lease, since)) = &self.observed else {
            return Step::Create(Box::new(self.ours(None, now)));
        };
        let until = since.saturating_add(promised(lease));
        let mine = holder(lease) == Some(self.identity.as_str());
        if mine || holder(lease).is_none() || until <= at {
            return Step::Replace(Box::new(self.ours(Some(lease), now)));
        }
        self.fresh = false;
        self.next = at.saturating_add(RETRY).min(until);
        Step::Wait(self.next)
    }

    /// What came of the last step.
    pub fn answer(&mut self, answer: Answer, now: Duration) {
        match answer {
            Answer::Found(lease) => {
                if holder(&lease) != Some(self.identity.as_str()) {
                    self.renewed = None;
                }
                let since = match &self.observed {
                    Some((old, since)) if old.spec == lease.spec => *since,
                    Some(_) | None => now,
                };
                self.observed = Some((*lease, since));
                self.fresh = true;
            }
            Answer::Absent => {
                self.renewed = None;
                self.observed = None;
                self.fresh = true;
            }
            Answer::Written(lease) => {
                self.renewed = Some(self.sent);
                self.observed = Some((*lease, now));
                self.fresh = true;
                self.next = self.sent.saturating_add(RETRY);
            }
            Answer::Conflict => self.fresh = false,
            Answer::Failed => {
                self.fresh = false;
                self.next = now.saturating_add(RETRY / 2);
            }
        }
    }

    /// The Lease given back, so that the next leader need not wait.
    pub fn release(&self, now: Now) -> Option<Lease> {
        self.renewed?;
        let (lease, _) = self.observed.as_ref().filter(|_| self.fresh)?;
        let mut released = lease.clone();
        if let Some(spec) = &mut released.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(now.wall));
        }
        Some(released)
    }

    fn ours(&self, old: Option<&Lease>, now: Now) -> Lease {
        let none = LeaseSpec::default();
        let before = old.and_then(|lease| lease.spec.as_ref()).unwrap_or(&none);
        let mine = before.holder_identity.as_deref() == Some(self.identity.as_str());
        let time = Some(MicroTime(micros(now.wall)));
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if mine { before.acquire_time.clone() } else { time.clone() },
            renew_time: time,
            lease_transitions: Some(match (old, mine) {
                (None, _) => 0,
                (Some(_), true) => before.lease_transitions.unwrap_or(0),
                (Some(_), false) => before.lease_transitions.unwrap_or(0).saturating_add(1),
            }),
            ..before.clone()
        };
        let metadata = old.map(|lease| lease.metadata.clone()).unwrap_or_else(|| ObjectMeta {
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            ..ObjectMeta::default()
        });
        Lease { metadata, spec: Some(spec) }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// What the holder promised, not what we would: it may be of another version.
fn promised(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DURATION, Duration::from_secs)
}

/// MicroTime has microseconds: what comes back must equal what was sent.
fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
