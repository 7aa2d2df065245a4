//! The way from what the kernel holds to what is wanted: objects, routes, then removals.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::value::Way;
use super::{Applied, Refused, Route, RouteKey, RouteTable, message, of};
use crate::netlink::{Disagreement, Intent, NetlinkError, Refusal, RouteSocket};
use crate::packet::Request;
use crate::shared::Shared;

const NOT_YET_FIRST: Duration = Duration::from_millis(100);
const NOT_YET_LAST: Duration = Duration::from_secs(5);
const WRONG_FIRST: Duration = Duration::from_secs(1);
const WRONG_LAST: Duration = Duration::from_secs(60);

/// So many routes are worth to be removed by their object, where it is more than one in [`A_MESSAGE`].
const MANY: usize = 64;
/// A message to the kernel costs as much as passing over so many routes.
const A_MESSAGE: usize = 16;

/// The objects that routes go by, wanted or held.
fn in_use(ways: &Shared<Way>) -> BTreeSet<u32> {
    ways.holders().filter(|(_, holders)| *holders > 0).filter_map(|(way, _)| way.object).collect()
}

/// The least part of what goes that is removed at a time, where it is removed in parts.
const PARTS: usize = 8;

/// Routes confirmed together: after a lost answer no more than these are in doubt.
const CHUNK: usize = 1024;

impl RouteTable {
    pub(super) fn apply_pending(
        &mut self,
        socket: &RouteSocket,
        now: Instant,
        applied: &mut Applied,
    ) -> Result<(), NetlinkError> {
        let updates: Vec<RouteKey> = self.due_updates(now).copied().collect();
        let occupied = self.write(socket, updates, now, applied)?;
        if !occupied.is_empty() {
            // Somebody holds these places. If it is we (a write whose answer was lost), the dump says so and they are
            // replaced or already right; if it is another protocol, they stay refused.
            self.resync(socket)?;
            let (ours, foreign): (Vec<_>, Vec<_>) =
                occupied.into_iter().partition(|(key, _)| self.delta(key).actual(key).is_some());
            for (key, refusal) in foreign {
                self.refuse(key, refusal, Disagreement::Wrong, now, applied);
            }
            let again = ours.into_iter().map(|(key, _)| key);
            let again = again.filter(|key| self.delta(key).is_pending(key)).collect();
            for (key, refusal) in self.write(socket, again, now, applied)? {
                self.refuse(key, refusal, Disagreement::Wrong, now, applied);
            }
        }
        self.remove(socket, now, applied)?;
        match &mut self.objects {
            Some(objects) => objects.sweep(socket, || in_use(&self.ways)),
            None => Ok(()),
        }
    }

    /// Writes the objects that these routes go by, and returns the routes that can be written then.
    fn write_objects(
        &mut self,
        socket: &RouteSocket,
        keys: Vec<RouteKey>,
        now: Instant,
        applied: &mut Applied,
    ) -> Result<Vec<RouteKey>, NetlinkError> {
        let Some(objects) = self.objects.as_mut().filter(|objects| objects.is_pending()) else {
            return Ok(keys);
        };
        let (v4, v6) = (&self.v4, &self.v6);
        let object = |key: &RouteKey| of(key, v4, v6).desired(key)?.object;
        let mut wanted: BTreeSet<u32> = keys.iter().filter_map(object).collect();
        // A group that lost a next hop with its link gets it back, whether or not a route is written.
        wanted.extend(in_use(&self.ways).into_iter().filter(|number| objects.is_outdated(*number)));
        let refused = objects.write(socket, &wanted)?;
        self.repair_at = match wanted.iter().any(|number| objects.is_outdated(*number)) {
            true => now.checked_add(NOT_YET_LAST),
            false => None,
        };
        if refused.is_empty() {
            return Ok(keys);
        }
        let refusal = |key: &RouteKey| refused.get(&object(key)?).cloned();
        let judged: Vec<_> = keys.into_iter().map(|key| (key, refusal(&key))).collect();
        let mut writable = Vec::new();
        for (key, refusal) in judged {
            match refusal {
                None => writable.push(key),
                Some(refusal) => {
                    let mut disagreement = refusal.disagreement(Intent::Create);
                    if disagreement == Disagreement::AlreadySo {
                        // Its number is taken: by us, which a look will show, or by somebody else.
                        self.stale = true;
                        disagreement = Disagreement::Wrong;
                    }
                    self.refuse(key, refusal, disagreement, now, applied);
                }
            }
        }
        Ok(writable)
    }

    /// Writes these routes; those whose place is taken come back with the refusal.
    fn write(
        &mut self,
        socket: &RouteSocket,
        keys: Vec<RouteKey>,
        now: Instant,
        applied: &mut Applied,
    ) -> Result<Vec<(RouteKey, Refusal)>, NetlinkError> {
        let keys = self.write_objects(socket, keys, now, applied)?;
        let mut occupied = Vec::new();
        for keys in keys.chunks(CHUNK) {
            let (keys, messages): (Vec<_>, Vec<_>) =
                keys.iter().filter_map(|key| Some((*key, self.write_message(key)?))).unzip();
            let outcomes = match socket.batch("write routes", messages) {
                Ok(outcomes) => outcomes,
                Err(err) => {
                    keys.into_iter().for_each(|key| self.delta_mut(&key).doubt(key));
                    return Err(err);
                }
            };
            for (key, outcome) in keys.into_iter().zip(outcomes) {
                match outcome {
                    None => {
                        self.forget_refusal(&key);
                        self.delta_mut(&key).confirm_desired(key);
                        applied.written += 1;
                    }
                    Some(refusal) if refusal.errno == libc::EEXIST => occupied.push((key, refusal)),
                    Some(refusal) => {
                        // A refused IPv6 multipath replacement may have removed the old route already.
                        self.stale |= self.delta(&key).actual(&key).is_some();
                        let mut disagreement = refusal.disagreement(Intent::Create);
                        if self.goes_by_object(&key) && refusal.errno == libc::EINVAL {
                            // The kernel removed the object meanwhile.
                            self.stale = true;
                            disagreement = Disagreement::NotYet;
                        }
                        self.refuse(key, refusal, disagreement, now, applied);
                    }
                }
            }
        }
        Ok(occupied)
    }

    fn write_message(&self, key: &RouteKey) -> Option<Request> {
        let delta = self.delta(key);
        let route = Route::join(key, delta.desired(key)?);
        // NLM_F_REPLACE takes whatever route holds this prefix and metric, another's too. So only where the kernel said
        // that it is ours; else it must be free.
        let how = if delta.actual(key).is_some() { NLM_F_REPLACE } else { NLM_F_EXCL };
        let object = delta.desired(key)?.object;
        Some(message::new_route(&route, object, self.protocol, NLM_F_CREATE | how))
    }

    fn goes_by_object(&self, key: &RouteKey) -> bool {
        self.delta(key).desired(key).is_some_and(|way| way.object.is_some())
    }

    fn remove(
        &mut self,
        socket: &RouteSocket,
        now: Instant,
        applied: &mut Applied,
    ) -> Result<(), NetlinkError> {
        let keys: Vec<RouteKey> = self.due_deletions(now).copied().collect();
        let mut keys = self.remove_with_objects(socket, keys, applied)?;
        let part = self.removals.max(keys.len() / PARTS);
        applied.put_off = keys.len().saturating_sub(part);
        keys.truncate(part);
        for keys in keys.chunks(CHUNK) {
            let messages = keys.iter().map(|key| message::delete_route(key, self.protocol)).collect();
            let outcomes = match socket.batch("remove routes", messages) {
                Ok(outcomes) => outcomes,
                Err(err) => {
                    keys.iter().for_each(|key| self.delta_mut(key).doubt(*key));
                    return Err(err);
                }
            };
            for (key, outcome) in keys.iter().zip(outcomes) {
                match outcome.map(|refusal| (refusal.disagreement(Intent::Delete), refusal)) {
                    None | Some((Disagreement::AlreadySo, _)) => {
                        self.forget_refusal(key);
                        self.delta_mut(key).confirm(*key, None);
                        applied.removed += 1;
                    }
                    Some((disagreement, refusal)) => self.refuse(*key, refusal, disagreement, now, applied),
                }
            }
        }
        Ok(())
    }

    /// Where all routes of an object go, and they are many, the object goes and takes them along. The rest is returned. IPv4
    /// alone: of each IPv6 route that goes so the kernel tells everybody, as of its own doing.
    fn remove_with_objects(
        &mut self,
        socket: &RouteSocket,
        keys: Vec<RouteKey>,
        applied: &mut Applied,
    ) -> Result<Vec<RouteKey>, NetlinkError> {
        let Some(objects) = &mut self.objects else { return Ok(keys) };
        // The kernel walks over its whole table for it.
        let held = self.v4.pending() + self.v4.counts().desired;
        if keys.len() < MANY || keys.len() < held / A_MESSAGE {
            return Ok(keys);
        }
        let v4 = &self.v4;
        let object = |key: &RouteKey| v4.actual(key)?.object;
        let mut going: BTreeMap<u32, usize> = BTreeMap::new();
        for number in keys.iter().filter_map(object) {
            *going.entry(number).or_default() += 1;
        }
        let mut users: BTreeMap<u32, usize> = BTreeMap::new();
        for (way, holders) in self.ways.holders() {
            if let Some(number) = way.object.filter(|_| holders > 0) {
                *users.entry(number).or_default() += holders;
            }
        }
        // Without a member a group that is in use would lose a next hop, or itself and its routes.
        let groups = users.iter().filter(|(number, _)| going.get(number) != users.get(number));
        let kept: BTreeSet<u32> = objects.members(groups.map(|(number, _)| *number)).collect();
        going.retain(|number, routes| {
            *routes >= MANY && users.get(number) == Some(routes) && !kept.contains(number)
        });
        for number in going.keys() {
            objects.remove(socket, *number)?;
        }
        let (gone, rest): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| object(key).is_some_and(|number| going.contains_key(&number)));
        applied.removed += gone.len();
        for key in gone {
            self.forget_refusal(&key);
            self.delta_mut(&key).confirm(key, None);
        }
        Ok(rest)
    }

    fn refuse(
        &mut self,
        key: RouteKey,
        refusal: Refusal,
        disagreement: Disagreement,
        now: Instant,
        applied: &mut Applied,
    ) {
        let attempts = self.refused.get(&key).map_or(0, |refused| refused.attempts).saturating_add(1);
        let (first, last) = match disagreement {
            Disagreement::NotYet | Disagreement::AlreadySo => (NOT_YET_FIRST, NOT_YET_LAST),
            Disagreement::Wrong => (WRONG_FIRST, WRONG_LAST),
        };
        let pause = first.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(last);
        let due = now.checked_add(pause);
        self.refusals += 1;
        self.refused.insert(key, Refused { refusal: refusal.clone(), disagreement, attempts, due });
        applied.refused.push((key, disagreement, refusal));
    }
}
