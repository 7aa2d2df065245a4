//! Routes of one protocol number: what is wanted, what the kernel holds, and the way from one to the other.
//!
//! ```text
//!  absent ──set──► pending ──apply: yes──► installed ──withdraw, apply──► absent
//!                    │  ▲
//!       apply: no    ▼  │ its time came, or wake()
//!                  refused (not yet: 0.1 s … 5 s, wrong: 1 s … 60 s)
//!
//!  start: adopt ──► adopted ──set──► pending or installed
//!                      └────sweep──► pending deletion
//! ```
//!
//! Synchronous: `apply` blocks for as long as the kernel works (100,000 routes: about 0.2 s). In tokio give the table
//! and its [`RouteSocket`] to a thread of their own, or move both through `spawn_blocking` and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};

pub use crate::delta::Counts;
use crate::delta::Delta;
use crate::netlink::{Disagreement, Intent, NetlinkError, Refusal, RouteSocket};
use crate::shared::Shared;

mod apply;
mod message;
mod object;
mod value;
pub use message::{KernelNextHop, KernelRoute, RouteType, dump, dump_others};
pub use object::delete_objects;
pub use value::{
    InvalidRoute, MAIN_TABLE, MAX_NEXT_HOPS, METRIC_DEFAULT_V6, NextHop, Route, RouteKey, RouteKind, Tunnel,
};

use object::Objects;
use value::Way;

pub(crate) use message::PROTOCOL_AT;
pub(crate) use object::{PROTOCOL_AT as OBJECT_PROTOCOL_AT, RTM_DELNEXTHOP, RTM_NEWNEXTHOP};

#[cfg(test)]
mod tests;

/// The routes of one protocol number in one namespace. Routes of other protocols are neither read nor touched.
#[derive(Debug)]
pub struct RouteTable {
    protocol: u8,
    /// IPv4 and IPv6 each, so that each is counted.
    v4: Delta<RouteKey, Arc<Way>>,
    v6: Delta<RouteKey, Arc<Way>>,
    ways: Shared<Way>,
    /// Where routes go by next-hop objects.
    objects: Option<Objects>,
    /// Routes that one apply removes one by one, or a part of them where that is more.
    removals: usize,
    /// Wanted with more than one next hop: IPv4, IPv6.
    multipath: [usize; 2],
    /// Found at start and not wanted yet: kept until swept.
    adopted: BTreeSet<RouteKey>,
    refused: BTreeMap<RouteKey, Refused>,
    /// A group that lacks a next hop, which the kernel refused, is written again.
    repair_at: Option<Instant>,
    /// Goes up with every change of what is refused.
    refusals: u64,
    /// An answer was lost, or somebody changed our routes: read the kernel before the next write.
    stale: bool,
}

#[derive(Debug, Clone)]
struct Refused {
    refusal: Refusal,
    disagreement: Disagreement,
    attempts: u32,
    due: Option<Instant>,
}

/// Where one route stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteState {
    /// Neither wanted nor held.
    Absent,
    /// Held from before our start, not wanted yet, kept until swept.
    Adopted,
    /// Wanted or to be removed, not confirmed yet.
    Pending,
    /// Held as wanted.
    Installed,
    /// The kernel refused for want of something that may come; tried again soon.
    NotYet(Refusal),
    /// The kernel refused the request as such; tried again with long pauses.
    Wrong(Refusal),
}

/// What one [`RouteTable::apply`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    pub written: usize,
    pub removed: usize,
    /// Refused in this call, each with how the kernel disagreed.
    pub refused: Vec<(RouteKey, Disagreement, Refusal)>,
    /// Removals that [`RouteTable::removing_in_parts`] left for the next apply.
    pub put_off: usize,
    /// Left to do, refused and put off ones included.
    pub pending: usize,
}

/// How many routes of a family there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FamilyCounts {
    pub routes: Counts,
    /// Wanted with more than one next hop.
    pub multipath: usize,
}

fn is_v6(key: &RouteKey) -> bool {
    key.destination.addr().is_ipv6()
}

/// The one of the key's family.
fn of<T>(key: &RouteKey, v4: T, v6: T) -> T {
    if is_v6(key) { v6 } else { v4 }
}

impl RouteTable {
    /// An empty table for `protocol` (`rtm_protocol`), as in `felix_calc::host`. Call [`Self::adopt`] before the first apply.
    pub fn new(protocol: u8) -> Self {
        Self {
            protocol,
            v4: Delta::new(),
            v6: Delta::new(),
            ways: Shared::default(),
            objects: None,
            removals: usize::MAX,
            multipath: [0; 2],
            adopted: BTreeSet::new(),
            refused: BTreeMap::new(),
            repair_at: None,
            refusals: 0,
            stale: false,
        }
    }

    /// The same, whose routes go by next-hop objects where their next hops name gateway and interface: for a table of many
    /// routes with few next hops.
    #[must_use]
    pub fn with_objects(self) -> Self {
        Self { objects: Some(Objects::new(self.protocol)), ..self }
    }

    /// The same, but an apply removes so many routes one by one, or an eighth of those that go where that is more, and puts off the
    /// rest. For a caller that is told of removals bit by bit, hears of others meanwhile, and so comes to those that go with their
    /// object. An eighth, so that looking at them again for each part costs what they are, and not its square.
    #[must_use]
    pub fn removing_in_parts(self, routes: usize) -> Self {
        Self { removals: routes, ..self }
    }

    /// Reads our routes from the kernel and keeps those not wanted (yet) until they are swept. How many were found.
    ///
    /// # Errors
    /// The dump failed; nothing changed.
    pub fn adopt(&mut self, socket: &RouteSocket) -> Result<usize, NetlinkError> {
        self.read(socket)?;
        let held = self.deltas().flat_map(Delta::all_actual).map(|(key, _)| *key);
        self.adopted = held.filter(|key| self.delta(key).desired(key).is_none()).collect();
        Ok(self.deltas().flat_map(Delta::all_actual).count())
    }

    /// Reads our routes from the kernel again, after an overrun or when they may have been changed by others.
    /// What is adopted stays so; what is neither wanted nor adopted goes with the next apply.
    ///
    /// # Errors
    /// The dump failed; nothing changed.
    pub fn resync(&mut self, socket: &RouteSocket) -> Result<(), NetlinkError> {
        self.read(socket)?;
        let (v4, v6) = (&self.v4, &self.v6);
        self.adopted.retain(|key| of(key, v4, v6).actual(key).is_some());
        Ok(())
    }

    /// Wants this route; replaces what was wanted under the same key. The key it goes by from now on.
    ///
    /// # Errors
    /// The route is one that no kernel would take, or that this version does not write. Nothing changed.
    pub fn set(&mut self, route: Route) -> Result<RouteKey, InvalidRoute> {
        let (key, mut way) = route.normalised()?.split();
        if let (Some(objects), RouteKind::Unicast { next_hops }) = (&mut self.objects, &way.kind) {
            way.object = objects.number(next_hops);
        }
        let way = self.ways.share(way);
        self.adopted.remove(&key);
        let delta = self.delta(&key);
        let before = delta.desired(&key).cloned();
        if before.as_ref() != Some(&way) {
            let held = delta.actual(&key).is_some_and(|held| !self.stale && held.satisfies(&way));
            self.forget_refusal(&key);
            self.count_multipath(&key, before.as_deref(), Some(&way));
            let delta = self.delta_mut(&key);
            delta.set(key, Some(way));
            if held {
                // An adopted route that does what is wanted is not written again.
                delta.confirm_desired(key);
            }
        }
        Ok(key)
    }

    /// No longer wants the route under this key. An adopted route stays adopted.
    pub fn withdraw(&mut self, key: &RouteKey) {
        if let Some(before) = self.delta(key).desired(key).cloned() {
            self.forget_refusal(key);
            self.count_multipath(key, Some(&before), None);
            self.delta_mut(key).set(*key, None);
        }
    }

    /// As [`Self::withdraw`]; an adopted route goes too: whoever withdraws it knows of it.
    pub fn give_up(&mut self, key: &RouteKey) {
        self.withdraw(key);
        self.adopted.remove(key);
    }

    fn wants(&self, key: &RouteKey) -> bool {
        self.delta(key).desired(key).is_some()
    }

    /// Gives up adopted routes for which `which` holds; the next apply removes them. How many.
    pub fn sweep(&mut self, mut which: impl FnMut(&RouteKey) -> bool) -> usize {
        let before = self.adopted.len();
        self.adopted.retain(|key| !which(key));
        before - self.adopted.len()
    }

    /// Writes what is pending and due: new and changed routes first, then removals.
    ///
    /// A refusal concerns its route alone and is reported in [`Applied`]; the route stays pending.
    ///
    /// # Errors
    /// The socket failed or an answer was lost. What was confirmed stays so; the next apply reads the kernel first.
    pub fn apply(&mut self, socket: &RouteSocket, now: Instant) -> Result<Applied, NetlinkError> {
        if self.stale {
            self.resync(socket)?;
        }
        let mut applied = Applied::default();
        let result = self.apply_pending(socket, now, &mut applied);
        if result.is_err() {
            self.stale = true;
        }
        applied.pending = self.pending();
        result.map(|()| applied)
    }

    /// When the first refused route may be tried again; `None` if an apply would find nothing put off.
    pub fn next_retry(&self) -> Option<Instant> {
        self.refused.values().filter_map(|refused| refused.due).chain(self.repair_at).min()
    }

    /// Forgets the pauses: something changed (an interface came up) that may have been what refused routes lacked.
    pub fn wake(&mut self) {
        for refused in self.refused.values_mut() {
            refused.due = None;
        }
        self.stale |= self.repair_at.take().is_some();
    }

    /// The kernel may have dropped routes without a word, as it does when an interface goes down: read before writing.
    pub fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// The monitor heard that a route of ours is gone. If it should be there, the next apply reads the kernel first; our
    /// own removals, which are heard as well, cost nothing.
    pub fn heard_gone(&mut self, gone: &KernelRoute) {
        let key = gone.to_route().key();
        if gone.protocol == self.protocol
            && self.delta(&key).desired(&key).is_some()
            && self.delta(&key).actual(&key).is_some()
        {
            self.stale = true;
        }
    }

    /// Where the route under this key stands.
    pub fn state(&self, key: &RouteKey) -> RouteState {
        if let Some(refused) = self.refused.get(key) {
            let refusal = refused.refusal.clone();
            return match refused.disagreement {
                Disagreement::Wrong => RouteState::Wrong(refusal),
                Disagreement::NotYet | Disagreement::AlreadySo => RouteState::NotYet(refusal),
            };
        }
        if self.adopted.contains(key) {
            RouteState::Adopted
        } else if self.delta(key).is_pending(key) {
            RouteState::Pending
        } else if self.delta(key).desired(key).is_some() {
            RouteState::Installed
        } else {
            RouteState::Absent
        }
    }

    /// How many routes are left to write or remove.
    pub fn pending(&self) -> usize {
        let pending = self.v4.pending().saturating_add(self.v6.pending());
        pending.saturating_sub(self.adopted.len())
    }

    /// Whether an apply now would have anything to do.
    pub fn is_due(&self, now: Instant) -> bool {
        self.stale
            || self.repair_at.is_some_and(|at| at <= now)
            || self.due_updates(now).next().is_some()
            || self.due_deletions(now).next().is_some()
    }

    /// The routes of one address family, counted. Costs nothing.
    pub fn counts(&self, v6: bool) -> FamilyCounts {
        let (delta, [four, six]) = (if v6 { &self.v6 } else { &self.v4 }, self.multipath);
        FamilyCounts { routes: delta.counts(), multipath: if v6 { six } else { four } }
    }

    /// What is wanted, by key.
    pub fn wanted(&self) -> impl Iterator<Item = &RouteKey> {
        self.deltas().flat_map(Delta::all_desired).map(|(key, _)| key)
    }

    /// What is wanted and the kernel refuses, and why.
    pub fn refused(&self) -> impl Iterator<Item = (&RouteKey, &Refusal)> {
        let wanted = self.refused.iter().filter(|(key, _)| self.wants(key));
        wanted.map(|(key, refused)| (key, &refused.refusal))
    }

    /// Another number than before: something else is refused.
    pub fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Found at start, not wanted yet and not swept.
    pub fn adopted(&self) -> impl ExactSizeIterator<Item = &RouteKey> {
        self.adopted.iter()
    }

    fn read(&mut self, socket: &RouteSocket) -> Result<(), NetlinkError> {
        self.read_objects(socket)?;
        let found = dump(socket, Some(self.protocol))?;
        let (mut held_v4, mut held_v6) = (Vec::new(), Vec::new());
        for found in found {
            let object = found.object;
            let (key, mut found) = found.to_route().split();
            if let Some((objects, number)) = self.objects.as_ref().zip(object)
                && let Some(next_hops) = objects.next_hops(number)
            {
                found.kind = RouteKind::Unicast { next_hops };
            }
            found.object = object;
            let way = match self.delta(&key).desired(&key) {
                // The kernel fills in what was left open (the interface of a gateway): that is no difference.
                Some(wanted) if found.satisfies(wanted) => Arc::clone(wanted),
                Some(_) | None => self.ways.share(found),
            };
            if is_v6(&key) { &mut held_v6 } else { &mut held_v4 }.push((key, way));
        }
        self.v4.resync(held_v4);
        self.v6.resync(held_v6);
        let (v4, v6) = (&self.v4, &self.v6);
        self.refused.retain(|key, _| of(key, v4, v6).is_pending(key));
        self.refusals += 1;
        self.stale = false;
        Ok(())
    }

    fn read_objects(&mut self, socket: &RouteSocket) -> Result<(), NetlinkError> {
        match self.objects.as_mut().map_or(Ok(()), |objects| objects.read(socket)) {
            Err(error) if object::is_unsupported(&error) && self.wanted().next().is_none() => {
                tracing::info!("this kernel has no next-hop objects: every route names its own next hops");
                self.objects = None;
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn deltas(&self) -> impl Iterator<Item = &Delta<RouteKey, Arc<Way>>> {
        [&self.v4, &self.v6].into_iter()
    }

    fn delta(&self, key: &RouteKey) -> &Delta<RouteKey, Arc<Way>> {
        of(key, &self.v4, &self.v6)
    }

    fn delta_mut(&mut self, key: &RouteKey) -> &mut Delta<RouteKey, Arc<Way>> {
        of(key, &mut self.v4, &mut self.v6)
    }

    fn count_multipath(&mut self, key: &RouteKey, before: Option<&Way>, now: Option<&Way>) {
        let [v4, v6] = &mut self.multipath;
        let count = of(key, v4, v6);
        let several = |way: Option<&Way>| match way.map(|way| &way.kind) {
            Some(RouteKind::Unicast { next_hops }) => usize::from(next_hops.len() > 1),
            Some(RouteKind::Blackhole | RouteKind::Connected { .. }) | None => 0,
        };
        *count = *count + several(now) - several(before);
    }

    fn forget_refusal(&mut self, key: &RouteKey) {
        if !self.refused.is_empty() && self.refused.remove(key).is_some() {
            self.refusals += 1;
        }
    }

    fn is_due_key(&self, key: &RouteKey, now: Instant) -> bool {
        self.refused.get(key).and_then(|refused| refused.due).is_none_or(|due| due <= now)
    }

    fn due_updates(&self, now: Instant) -> impl Iterator<Item = &RouteKey> {
        let updates = self.deltas().flat_map(Delta::updates).map(|(key, _)| key);
        updates.filter(move |key| self.is_due_key(key, now))
    }

    fn due_deletions(&self, now: Instant) -> impl Iterator<Item = &RouteKey> {
        let deletions = self.deltas().flat_map(Delta::deletions);
        deletions.filter(move |key| !self.adopted.contains(key) && self.is_due_key(key, now))
    }
}

/// Writes one route and waits for the answer; a route that is already there is replaced. For a pod's own namespace, where
/// nobody else writes.
///
/// # Errors
/// The route is invalid, or the kernel refused it.
pub fn replace(socket: &RouteSocket, route: Route, protocol: u8) -> Result<(), RouteError> {
    let route = route.normalised()?;
    let what = format!("set route {}", route.key());
    let message = message::new_route(&route, None, protocol, NLM_F_CREATE | NLM_F_REPLACE);
    Ok(socket.request(&what, message)?)
}

/// Removes one route of `protocol`; one that is not there counts as removed.
///
/// # Errors
/// The kernel refused.
pub fn delete(socket: &RouteSocket, key: &RouteKey, protocol: u8) -> Result<(), NetlinkError> {
    socket.ensure(&format!("remove route {key}"), Intent::Delete, message::delete_route(key, protocol))
}

/// Why a single route could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error(transparent)]
    Invalid(#[from] InvalidRoute),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
