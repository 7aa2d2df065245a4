//! Graceful restart (RFC 4724), both roles, and its long-lived form (RFC 9494).
//!
//! ```text
//! Helper, for each family of each peer:
//!                      TCP lost, agreed                 back, F set
//!   ┌────────────┐     before                ┌───────┐  for the family   ┌──────────────────┐
//!   │ Established│ ────────────────────────► │ Stale │ ────────────────► │ Stale, refreshed │
//!   └────────────┘                           └─┬───┬─┘                   └────────┬─────────┘
//!         ▲      restart time over, long-lived │   │ restart time over,           │
//!         │      stale time agreed             ▼   │ back without F,              │
//!         │                       ┌────────────────┴─┐ link down                  │
//!         │                       │ Long-lived stale │ ──► back, F set ──► … ─────┤ End-of-RIB, or
//!         │                       └───────┬──────────┘                            │ stale time over
//!         │      that time over, back     ▼                                       ▼
//!         └───── without F, link down ─ swept ◄───────────────────────────────────┘
//!
//! Restarting, once after a start that found our routes in the kernel:
//!   Deferred ── no route is selected, nothing is told ──┬─ End-of-RIB from every peer that will send one ─┐
//!                                                       └─ Selection_Deferral_Timer ──────────────────────┤
//!   Settling ── routes are selected, told, End-of-RIB after them ◄────────────────────────────────────────┘
//!      └─ End-of-RIB also from peers that restart themselves, or the same timer ─► FibComplete: the kernel is swept
//! ```
//!
//! A NOTIFICATION, sent or received, and the hold timer keep routes as well where both sides said so (RFC 8538), but for a Hard
//! Reset: an operator's word, a limit that was passed, a peer that BFD cannot reach.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::config::GracefulRestartMode;
use crate::negotiate::Negotiated;
use crate::output::{Output, SessionEvent};
use crate::peer::{Context, Peer};
use crate::types::AfiSafi;

/// Routes of a lost session that are still in use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stale {
    pub(crate) families: BTreeMap<AfiSafi, Retained>,
}

/// Those of one family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retained {
    /// When they go, or become long-lived stale: first the peer's restart time, then, once it is back, our own stale time.
    until: Instant,
    /// How long they are kept as long-lived stale afterwards.
    long_lived: Option<Duration>,
    /// They are so already.
    is_long_lived: bool,
}

impl Stale {
    /// When something is to be done about them.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.families.values().map(|retained| retained.until).min()
    }

    pub(crate) fn is_long_lived(&self) -> bool {
        self.families.values().any(|retained| retained.is_long_lived)
    }
}

impl Peer {
    /// The session is down; `kept` is its agreement where its routes may be kept.
    pub(crate) fn lose(&mut self, kept: Option<&Negotiated>, ctx: &mut Context<'_>) {
        let families = kept.map(Negotiated::retained_families).unwrap_or_default();
        ctx.rib.peer_down(self.id, &families);
        self.synchronized = false;
        self.end_of_rib.clear();
        self.refreshing.clear();
        let restart_time =
            kept.and_then(|agreed| agreed.graceful_restart.as_ref()).map_or(0, |r| r.restart_time);
        let until = ctx.now + Duration::from_secs(u64::from(restart_time));
        let long_lived = |family| {
            let entry = kept?.long_lived_family(family).filter(|entry| entry.stale_time > 0)?;
            Some(Duration::from_secs(u64::from(entry.stale_time)))
        };
        let retained =
            |family| (family, Retained { until, long_lived: long_lived(family), is_long_lived: false });
        // RFC 4724 §4.2: a second loss before the first was repaired keeps nothing of the first; the RIB sees to it.
        let families: BTreeMap<_, _> = families.into_iter().map(retained).collect();
        self.stale = (!families.is_empty()).then_some(Stale { families });
        if self.stale.is_some() {
            ctx.outputs.push_back(Output::Event(SessionEvent::Stale { peer: self.name.clone() }));
        }
    }

    /// The session is up: keeps what the peer says it has kept itself, and waits for End-of-RIB.
    pub(crate) fn resume(&mut self, agreed: &Negotiated, ctx: &mut Context<'_>) {
        let until = ctx.now + self.config.graceful_restart.stale_time;
        let mut stale = self.stale.take().unwrap_or_default();
        stale.families.retain(|family, retained| {
            // RFC 4724 §4.2: "if the "Forwarding State" bit for a specific <AFI, SAFI> is not set …, or … is not included …,
            // then … MUST immediately remove all the stale routes from the peer for that address family"; RFC 9494 §4.2 asks
            // the same of its own bit once they are long-lived stale.
            let forwarding = match retained.is_long_lived {
                true => agreed.long_lived_family(*family).map(|entry| entry.forwarding),
                false => {
                    let restart = agreed.graceful_restart.as_ref();
                    restart.and_then(|restart| restart.family(*family)).map(|entry| entry.forwarding)
                }
            };
            let stays = agreed.families.contains(family) && forwarding == Some(true);
            if !stays {
                ctx.rib.sweep_stale(self.id, *family);
            }
            *retained = Retained { until, long_lived: None, ..*retained };
            stays
        });
        self.stale = (!stale.families.is_empty()).then_some(stale);
        self.synchronized = agreed.graceful_restart.is_none();
        if self.synchronized {
            ctx.outputs.push_back(Output::Event(SessionEvent::Synchronized { peer: self.name.clone() }));
        }
    }

    /// The peer has sent all it has of a family.
    pub(crate) fn end_of_rib_received(&mut self, family: AfiSafi, ctx: &mut Context<'_>) {
        let Some(agreed) = self.established() else { return };
        if !agreed.families.contains(&family) || self.end_of_rib.contains(&family) {
            return;
        }
        let families = agreed.families.clone();
        self.end_of_rib.insert(family);
        self.sweep(family, ctx);
        ctx.monitor.end_of_rib(self.id, family, ctx.rib);
        ctx.outputs
            .push_back(Output::Event(SessionEvent::EndOfRibReceived { peer: self.name.clone(), family }));
        if self.end_of_rib == families && !std::mem::replace(&mut self.synchronized, true) {
            ctx.outputs.push_back(Output::Event(SessionEvent::Synchronized { peer: self.name.clone() }));
        }
    }

    /// The peer did not come back in time, or came back and did not finish.
    pub(crate) fn stale_timeout(&mut self, ctx: &mut Context<'_>) {
        let Some(stale) = &mut self.stale else { return };
        let (id, now, mut long_lived) = (self.id, ctx.now, false);
        stale.families.retain(|family, retained| {
            if retained.until > now {
                return true;
            }
            let Some(time) = retained.long_lived.take() else {
                tracing::debug!(peer = %self.name, %family, "stale routes swept: time is over");
                ctx.rib.sweep_stale(id, *family);
                return false;
            };
            ctx.rib.keep_long_lived(id, *family);
            long_lived = true;
            *retained = Retained { until: now + time, long_lived: None, is_long_lived: true };
            true
        });
        if stale.families.is_empty() {
            self.stale = None;
        }
        if long_lived {
            ctx.outputs.push_back(Output::Event(SessionEvent::LongLivedStale { peer: self.name.clone() }));
        }
    }

    /// Sweeps whatever is stale.
    pub(crate) fn forget_stale(&mut self, ctx: &mut Context<'_>) {
        for family in self.stale.take().unwrap_or_default().families.into_keys() {
            ctx.rib.sweep_stale(self.id, family);
        }
    }

    fn sweep(&mut self, family: AfiSafi, ctx: &mut Context<'_>) {
        let Some(stale) = &mut self.stale else { return };
        if stale.families.remove(&family).is_some() {
            ctx.rib.sweep_stale(self.id, family);
        }
        if stale.families.is_empty() {
            self.stale = None;
        }
    }

    /// Whether route selection after our restart waits for this peer: not for one that sends no End-of-RIB, nor for one
    /// that restarts itself (RFC 4724 §4.1).
    pub(crate) fn delays_selection(&self, preserved: &BTreeSet<AfiSafi>) -> bool {
        let restarts =
            |agreed: &Negotiated| agreed.graceful_restart.as_ref().is_some_and(|restart| restart.restarting);
        self.delays_sweep(preserved) && !self.established().is_some_and(restarts)
    }

    /// Whether the sweep of the kernel waits for this peer: for everything that will tell its routes and end them with
    /// End-of-RIB, restarting itself or not. A router that was started minutes ago still sets its Restart State bit, and
    /// its routes are the ones that an earlier life left in the kernel.
    pub(crate) fn delays_sweep(&self, preserved: &BTreeSet<AfiSafi>) -> bool {
        if !self.is_wanted() || self.config.graceful_restart.mode == GracefulRestartMode::Disabled {
            return false;
        }
        let Some(agreed) = self.established() else { return true };
        agreed.graceful_restart.is_some()
            && agreed
                .families
                .iter()
                .any(|family| preserved.contains(family) && !self.end_of_rib.contains(family))
    }

    fn is_wanted(&self) -> bool {
        self.config.admin.may_come() && !self.is_refused()
    }
}

/// Where route selection stands after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Nothing is configured yet.
    NotStarted,
    /// The kernel forwards along an earlier life's routes; selection waits, at most until then.
    Deferred(Instant),
    /// Routes are selected and told; the kernel is swept once every peer has told its own, at most then.
    Settling(Instant),
    /// As ever.
    Running,
}
