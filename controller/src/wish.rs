//! What the controller wants an object's status to say, and when that is written.
//!
//! ```text
//!            differs, urgent or its pause is over            answered
//!   agreed ───────────────────────────────────► in flight ─────────────► believed for 30 s
//!     ▲                                            │ failed                  │
//!     │                                            ▼                         │ then the store's word counts again
//!     │                                        backing off                   │
//!     └──────────────────────────────────────────────────────────────────────┘
//! ```
//! The store's status is the memory: after a restart what stands there already is not written again. Between a write
//! and the watch that brings it back, what was written is believed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use manx_crds::conditions::ConditionReason;
use manx_crds::store::Key;
use serde_json::{Map, Value, json};

use crate::Now;

/// How long a write is believed before the store's word counts again.
const BELIEVED: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Also between writes that the store forgets again (an older schema prunes them, somebody else overwrites them).
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// After a failure the pause grows no further: a right that was missing may be there again.
const LONGEST_FAILURE: Duration = Duration::from_secs(60);

/// Kinds whose status the controller writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    FabricConfiguration,
    FabricNode,
    BGPPeer,
    BGPAdvertisement,
    IPPool,
    LoadBalancerPool,
    Service,
    BGPFilter,
    Tier,
    NetworkPolicy,
    GlobalNetworkPolicy,
    HostEndpoint,
}

/// What of an object is written: each by its own apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    Status,
    /// The value is `{"finalizers": […]}`, those of the controller.
    Finalizers,
}

/// One part of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    pub kind: Kind,
    pub part: Part,
    pub key: Key,
}

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    pub type_: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Saying {
    pub fn new<R: ConditionReason>(reason: R, message: impl Into<String>) -> Self {
        Self { type_: R::TYPE, status: reason.status(), reason: reason.as_str(), message: message.into() }
    }
}

/// What a status should say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// Fields beside the conditions.
    pub fields: Map<String, Value>,
    pub conditions: Vec<Saying>,
    pub generation: Option<i64>,
    /// The status is the controller's alone, and so is its `observedGeneration`.
    pub whole: bool,
    /// Fields and condition types that may wait, and the shortest time between two writes for their sake.
    pub slow: Option<(&'static [&'static str], Duration)>,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The object is not there: nothing is wanted of it.
    Gone,
    /// It did not take place.
    Refused(String),
    /// Nobody knows whether it took place.
    Unknown(String),
}

#[derive(Clone, Debug)]
struct Entry {
    uid: String,
    /// As the store has it, reduced to what is ours.
    current: Value,
    wish: Wish,
    /// With the uid of the object that it was meant for.
    in_flight: Option<(String, Value)>,
    /// Nothing is wanted any more; it waits for the answer of what is in flight.
    gone: bool,
    written: Option<(Value, Duration)>,
    not_before: Duration,
    pause: Duration,
    /// Writes that the store did not keep, one after the other.
    forgotten: u32,
}

/// All wishes.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    entries: BTreeMap<Slot, Entry>,
    /// Slots to look at.
    open: std::collections::BTreeSet<Slot>,
    /// Slots to look at again, each at its time.
    later: BTreeMap<Slot, Duration>,
}

impl Wishes {
    /// Tells what the status should say; `status` is the object's as last heard.
    pub fn offer(&mut self, slot: Slot, uid: &str, status: Value, wish: Wish) {
        let current = reduce(status, &wish);
        let fresh = || Entry {
            uid: uid.to_owned(),
            current: Value::Null,
            wish: Wish::default(),
            in_flight: None,
            gone: false,
            written: None,
            not_before: Duration::ZERO,
            pause: Duration::ZERO,
            forgotten: 0,
        };
        let entry = self.entries.entry(slot.clone()).or_insert_with(fresh);
        if entry.uid != uid {
            *entry = Entry { in_flight: entry.in_flight.take(), ..fresh() };
        }
        entry.gone = false;
        entry.current = current;
        entry.wish = wish;
        self.open.insert(slot);
    }

    /// Nothing is wanted of objects of this kind that are not named here.
    pub fn keep_only(&mut self, kind: Kind, alive: impl Fn(&Key) -> bool) {
        self.entries.retain(|slot, entry| {
            entry.gone |= slot.kind == kind && !alive(&slot.key);
            !entry.gone || entry.in_flight.is_some()
        });
    }

    /// The next status to write. One write of an object is under way at any time.
    pub fn pull(&mut self, now: Now) -> Option<(Slot, String, Value)> {
        let due: Vec<Slot> =
            self.later.iter().filter(|(_, at)| **at <= now.monotonic).map(|(slot, _)| slot.clone()).collect();
        for slot in due {
            self.later.remove(&slot);
            self.open.insert(slot);
        }
        while let Some(slot) = self.open.pop_first() {
            let Some(entry) = self.entries.get_mut(&slot) else {
                self.later.remove(&slot);
                continue;
            };
            match entry.look(now) {
                Look::Agreed => drop(self.later.remove(&slot)),
                Look::Later(at) => drop(self.later.insert(slot, at)),
                Look::Write(body) => {
                    self.later.remove(&slot);
                    entry.in_flight = Some((entry.uid.clone(), body.clone()));
                    return Some((slot, entry.uid.clone(), body));
                }
            }
        }
        None
    }

    /// When to pull again though nothing was heard.
    pub fn deadline(&self) -> Option<Duration> {
        self.later.values().min().copied()
    }

    /// What became of a write.
    pub fn answer(&mut self, slot: &Slot, outcome: &Outcome, now: Duration) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let Some((uid, body)) = entry.in_flight.take() else { return };
        if entry.gone {
            self.entries.remove(slot);
            return;
        }
        if uid != entry.uid {
            // It was meant for an object that another of its name has replaced.
            self.open.insert(slot.clone());
            return;
        }
        match outcome {
            Outcome::Done => {
                entry.pause = Duration::ZERO;
                entry.written = Some((body, now));
                self.open.insert(slot.clone());
            }
            Outcome::Gone => {}
            Outcome::Refused(_) | Outcome::Unknown(_) => {
                entry.pause = (entry.pause * 2).clamp(FIRST_PAUSE, LONGEST_FAILURE);
                entry.not_before = now.saturating_add(entry.pause);
                self.open.insert(slot.clone());
            }
        }
    }
}

enum Look {
    Agreed,
    Later(Duration),
    Write(Value),
}

impl Entry {
    fn look(&mut self, now: Now) -> Look {
        if self.in_flight.is_some() {
            return Look::Agreed;
        }
        let believed = self.written.as_ref().and_then(|(body, at)| {
            let until = at.saturating_add(BELIEVED);
            (now.monotonic < until).then_some((body, until))
        });
        let (base, until) = match believed {
            Some((body, until)) => (body.clone(), Some(until)),
            None => (self.current.clone(), None),
        };
        let body = self.wish.body(&base, now.wall);
        if body == base {
            return match until {
                // The store should have it by then.
                Some(until) if base != self.current => Look::Later(until),
                Some(_) | None => {
                    self.forgotten = 0;
                    Look::Agreed
                }
            };
        }
        let mut not_before = self.not_before;
        if let (None, Some((written, at))) = (until, &self.written)
            && timeless(written) == timeless(&body)
        {
            // The store did not keep it: insist, but ever less often.
            let pause = BELIEVED.saturating_mul(1 << self.forgotten.min(7)).min(LONGEST_PAUSE);
            not_before = not_before.max(at.saturating_add(pause));
        }
        if let (Some((slow, interval)), Some((_, at))) = (self.wish.slow, &self.written)
            && without(&body, slow) == without(&base, slow)
        {
            not_before = not_before.max(at.saturating_add(interval));
        }
        if not_before > now.monotonic {
            return Look::Later(not_before);
        }
        let again = |(written, _): &(Value, Duration)| timeless(written) == timeless(&body);
        if until.is_none() && self.written.as_ref().is_some_and(again) {
            self.forgotten = self.forgotten.saturating_add(1);
        }
        Look::Write(body)
    }
}

impl Wish {
    /// The whole status as one field manager applies it: a condition keeps its time while its status stays.
    fn body(&self, base: &Value, now: Timestamp) -> Value {
        let mut body = self.fields.clone();
        // Times of the API have whole seconds.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let mut conditions: Vec<Value> = Vec::new();
        for saying in &self.conditions {
            let old = base.get("conditions").and_then(Value::as_array).into_iter().flatten();
            let old = old
                .filter_map(|old| serde_json::from_value::<Condition>(old.clone()).ok())
                .find(|old| old.type_ == saying.type_ && old.status == saying.status);
            let condition = Condition {
                type_: saying.type_.to_owned(),
                status: saying.status.to_owned(),
                reason: saying.reason.to_owned(),
                message: saying.message.clone(),
                observed_generation: self.generation,
                last_transition_time: old.map_or(Time(now), |old| old.last_transition_time),
            };
            conditions.push(serde_json::to_value(condition).unwrap_or_default());
        }
        if !conditions.is_empty() {
            conditions.sort_by_key(type_of);
            body.insert("conditions".to_owned(), Value::Array(conditions));
            if let (true, Some(generation)) = (self.whole, self.generation) {
                body.insert("observedGeneration".to_owned(), json!(generation));
            }
        }
        Value::Object(body)
    }
}

fn type_of(condition: &Value) -> String {
    condition.get("type").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Of a status what the wish is about: its fields, those it might have, and its condition types.
fn reduce(status: Value, wish: &Wish) -> Value {
    let Value::Object(mut status) = status else { return json!({}) };
    let slow = wish.slow.map(|(slow, _)| slow).unwrap_or_default();
    status.retain(|name, _| match name.as_str() {
        "conditions" => !wish.conditions.is_empty(),
        "observedGeneration" => wish.whole,
        name => wish.fields.contains_key(name) || slow.contains(&name) || OWN_FIELDS.contains(&name),
    });
    if let Some(Value::Array(items)) = status.get_mut("conditions") {
        items.retain(|item| wish.conditions.iter().any(|saying| saying.type_ == type_of(item)));
        items.sort_by_key(type_of);
    }
    status.retain(|_, value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    });
    Value::Object(status)
}

/// Fields that are the controller's alone, so that one that is no longer wished is taken away.
const OWN_FIELDS: &[&str] = &["capacity", "sessions", "loadBalancer", "finalizers"];

fn timeless(body: &Value) -> Value {
    let mut body = body.clone();
    for condition in body.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(condition) = condition {
            condition.remove("lastTransitionTime");
        }
    }
    body
}

fn without(body: &Value, slow: &[&str]) -> Value {
    let mut body = body.clone();
    if let Value::Object(fields) = &mut body {
        fields.retain(|name, _| !slow.contains(&name.as_str()));
        if let Some(Value::Array(items)) = fields.get_mut("conditions") {
            items.retain(|item| !slow.contains(&type_of(item).as_str()));
        }
    }
    body
}

#[cfg(test)]
mod tests;
