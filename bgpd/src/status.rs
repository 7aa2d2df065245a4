//! What the API is told of this node's sessions, and how seldom (api.md §4.2, §5.2).
//!
//! ```text
//!   speaker ── event ──► dirty ── tick ──► wish per object ── due ──► writer task ──► store
//!                                             │
//!             Established: at once            │ at most one write of an object in 10 s;
//!             anything else: held for 10 s    │ a restart that ends where it began writes nothing but `since`
//! ```
//! Nothing here ticks while the network does not change: no heartbeat, no uptime.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bgp_proto::bfd;
use bgp_proto::fsm::State;
use bgp_proto::{PeerName, SessionEvent, Speaker};
use felix_kernel::facts::Facts;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use manx_crds::v1alpha1::{
    BGPSession, BGPSessionSpec, BGPSessionStatus, BfdState, SessionError, SessionState,
};
use manx_daemon::log::took;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::bfd::Bfd;
use crate::desire::Desire;
use crate::fib::Fib;
use crate::session_status::{self, Source};
use crate::writer::{NodeWish, Write};

/// At most one write of an object in this time; what is not Established must have held as long.
const HOLD: Duration = Duration::from_secs(10);
/// Counts that merely drift are written when they are this old.
const DRIFT: Duration = Duration::from_secs(600);
/// At most one Event for an object and reason in this time (api.md §10).
const EVENT_EVERY: Duration = Duration::from_secs(60);
/// The writer is behind: tried again.
const BUSY: Duration = Duration::from_secs(1);

/// One object: what it should say, since when, and what was last written.
#[derive(Debug)]
struct Tracked<T> {
    wish: T,
    /// When the wish may be written.
    due: Option<Instant>,
    written: Option<(T, Instant)>,
}

/// Of whom something happened since the wishes were worked out.
#[derive(Debug)]
enum Dirty {
    Peers(BTreeSet<PeerName>),
    All,
}

impl Default for Dirty {
    fn default() -> Self {
        Self::Peers(BTreeSet::new())
    }
}

/// All that there is to tell of.
#[derive(Clone, Copy)]
pub(crate) struct Sees<'a> {
    pub(crate) speaker: &'a Speaker,
    pub(crate) desire: &'a Desire,
    pub(crate) bfd: &'a Bfd,
    pub(crate) fib: &'a Fib,
    pub(crate) facts: &'a Facts,
}

pub(crate) struct Status {
    node: String,
    writes: mpsc::Sender<Write>,
    sessions: BTreeMap<PeerName, Tracked<(BGPSessionSpec, BGPSessionStatus)>>,
    fabric_node: Option<Tracked<NodeWish>>,
    /// Whose wishes are worked out anew.
    dirty: Dirty,
    /// When all are, without an event of theirs: counts drift, most of all while sessions are young.
    look_at: Option<Instant>,
    /// The last event.
    heard: Option<Instant>,
    /// The writer knows which sessions of an earlier life may stay.
    introduced: bool,
    /// The store was heard: what it holds of ours beyond what is wanted may go.
    may_introduce: bool,
    said: BTreeMap<(PeerName, &'static str, String), Instant>,
    next: Option<Instant>,
}

impl Status {
    pub(crate) fn new(node: String, writes: mpsc::Sender<Write>) -> Self {
        Self {
            node,
            writes,
            sessions: BTreeMap::new(),
            fabric_node: None,
            dirty: Dirty::All,
            look_at: None,
            heard: None,
            introduced: false,
            may_introduce: false,
            said: BTreeMap::new(),
            next: Some(Instant::now()),
        }
    }

    /// When [`Status::tick`] has something to do.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.next
    }

    /// The store was heard whole: what is wanted is all that there is to be.
    pub(crate) fn introduce(&mut self) {
        if !self.may_introduce {
            self.may_introduce = true;
            self.touch();
        }
    }

    /// The objects changed: sessions may have come or gone.
    pub(crate) fn touch(&mut self) {
        self.dirty = Dirty::All;
        self.next = Some(Instant::now());
    }

    pub(crate) fn event(&mut self, event: &SessionEvent, speaker: &Speaker, desire: &Desire, now: Instant) {
        self.next = Some(now);
        self.heard = Some(now);
        self.look_within(HOLD, now);
        if let (Some(peer), Dirty::Peers(peers)) = (event.peer(), &mut self.dirty) {
            peers.insert(peer.clone());
        }
        // Between two of our nodes one end reports.
        if event.peer().is_some_and(|peer| !desire.reports(peer)) {
            return;
        }
        if let SessionEvent::StateChanged { peer, from, to, .. } = event {
            let (reason, warning) = match (from, to) {
                (_, State::Established) => ("SessionEstablished", false),
                (State::Established, _) => ("SessionDown", true),
                (
                    State::Idle | State::Connect | State::Active | State::OpenSent | State::OpenConfirm,
                    State::Idle | State::Connect | State::Active | State::OpenSent | State::OpenConfirm,
                ) => return,
            };
            let note = session_status::note(peer, speaker);
            self.say(peer, reason, warning, note, now);
        }
        // Comes once for each reason of a peer.
        if let SessionEvent::Malformed { peer, what } = event {
            self.say_once(peer, "MalformedMessage", what, true, what.clone(), now);
        }
        if let SessionEvent::PrefixLimitNear { peer, family, count, limit } = event {
            let note = format!("received {count} of {limit} {family} prefixes");
            self.say(peer, "PrefixLimitNear", true, note, now);
        }
        if let SessionEvent::PrefixLimitReached { peer, family, count, limit } = event {
            let note = format!("received {count} of {limit} {family} prefixes");
            self.say(peer, "PrefixLimitReached", true, note, now);
        }
    }

    /// BFD's session came up, or left Up.
    pub(crate) fn bfd(
        &mut self,
        peer: &PeerName,
        status: &bfd::SessionStatus,
        failure: Option<&bfd::SessionStatus>,
        desire: &Desire,
        now: Instant,
    ) {
        if !desire.reports(peer) {
            return;
        }
        if let Some(failure) = failure {
            self.say(peer, "BFDDown", true, crate::bfd::why(failure), now);
        }
        if status.state == bfd::State::Up {
            let detection = status.detection_time.map(took).unwrap_or_default();
            self.say(peer, "BFDUp", false, format!("BFD is Up, detection time {detection}"), now);
        }
    }

    /// A person drains this node: its peers are about to be told.
    pub(crate) fn drain_started(&mut self, speaker: &Speaker) {
        let note = format!("GRACEFUL_SHUTDOWN towards {} sessions (RFC 8326)", established(speaker));
        tracing::info!(note, "drain started");
        self.of_node("DrainStarted", note);
    }

    /// Every peer was told.
    pub(crate) fn drained(&mut self, speaker: &Speaker, after: Duration) {
        let note =
            format!("{} sessions told in {:.1}s; they stay up", established(speaker), after.as_secs_f64());
        tracing::info!(note, "drain completed");
        self.of_node("DrainCompleted", note);
    }

    fn of_node(&mut self, reason: &'static str, note: String) {
        // An Event that finds the writer busy is lost; the log has it.
        drop(self.writes.try_send(Write::Event { session: None, reason, warning: false, note }));
    }

    fn say(&mut self, peer: &PeerName, reason: &'static str, warning: bool, note: String, now: Instant) {
        self.say_once(peer, reason, "", warning, note, now);
    }

    /// Of what has this reason and is about one thing, one Event in a while; about another thing there is another.
    fn say_once(
        &mut self,
        peer: &PeerName,
        reason: &'static str,
        about: &str,
        warning: bool,
        note: String,
        now: Instant,
    ) {
        let key = (peer.clone(), reason, about.to_owned());
        let last = self.said.get(&key);
        if last.is_some_and(|last| now.duration_since(*last) < EVENT_EVERY) {
            return;
        }
        // Neighbours of a range may be any number in the course of time.
        self.said.retain(|_, at| now.duration_since(*at) < EVENT_EVERY);
        self.said.insert(key, now);
        let event = Write::Event { session: Some(self.name(peer)), reason, warning, note };
        // An Event that finds the writer busy is lost; the log has it.
        drop(self.writes.try_send(event));
    }

    fn name(&self, peer: &PeerName) -> String {
        BGPSession::name_of(&self.node, peer.as_str())
    }

    fn look_within(&mut self, time: Duration, now: Instant) {
        self.look_at = self.look_at.into_iter().chain(now.checked_add(time)).min();
    }

    /// Works out the wishes where something happened, and hands over what is due.
    pub(crate) fn tick(&mut self, sees: Sees<'_>, now: Instant) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.dirty = Dirty::All;
        }
        match std::mem::take(&mut self.dirty) {
            Dirty::All => {
                let settled = self.heard.and_then(|heard| heard.checked_add(HOLD)).filter(|at| *at > now);
                self.look_at = settled.or(now.checked_add(DRIFT));
                self.wish_for_all(sees, now);
                self.node_wish(sees, now);
            }
            Dirty::Peers(peers) if peers.is_empty() => {}
            Dirty::Peers(peers) => {
                peers.iter().for_each(|peer| self.wish_for(peer, sees, now));
                self.node_wish(sees, now);
            }
        }
        self.hand_over(now);
        let dues = self.sessions.values().filter_map(|tracked| tracked.due);
        let node = self.fabric_node.as_ref().and_then(|tracked| tracked.due);
        self.next = dues.chain(node).chain(self.look_at).min();
    }

    fn wish_for_all(&mut self, sees: Sees<'_>, now: Instant) {
        let peers = sees.speaker.peers().map(|(peer, ..)| peer);
        let ours: BTreeSet<&PeerName> = peers.filter(|peer| is_ours(peer, sees)).collect();
        let gone: Vec<PeerName> = self.sessions.keys().filter(|peer| !ours.contains(peer)).cloned().collect();
        gone.iter().for_each(|peer| self.forget(peer, now));
        if sees.desire.speaker.is_some() && !self.introduced && self.may_introduce {
            let wanted = ours.iter().map(|peer| self.name(peer)).collect();
            self.introduced = self.writes.try_send(Write::Keep(wanted)).is_ok();
            if !self.introduced {
                self.look_within(BUSY, now);
            }
        }
        ours.into_iter().for_each(|peer| self.wish_for(peer, sees, now));
    }

    fn wish_for(&mut self, peer: &PeerName, sees: Sees<'_>, now: Instant) {
        let Sees { speaker, desire, bfd, facts, .. } = sees;
        let known = speaker.peer(peer).zip(speaker.settings(peer)).filter(|_| is_ours(peer, sees));
        let Some((live, settings)) = known else { return self.forget(peer, now) };
        let before = self.sessions.get(peer).map(|tracked| &tracked.wish.1);
        let of_range = speaker.range(peer).unwrap_or(peer);
        let spec = BGPSessionSpec {
            node_name: self.node.clone(),
            peer: desire.class_of(of_range).to_owned(),
            remote: desire.remote_of(peer, settings),
        };
        let why = Source { reason: desire.source_reasons.get(of_range), facts };
        let (view, wall) = (bfd.view(peer), Timestamp::now());
        let status = session_status::of(&live, settings, why, view.as_ref(), before, now, wall);
        let settled = live.state == State::Established;
        let tracked = self.sessions.entry(peer.clone()).or_insert_with(|| Tracked {
            wish: (spec.clone(), BGPSessionStatus::default()),
            due: None,
            written: None,
        });
        let wish = (spec, status);
        // Counts alone are written while the session is young, then when the last write is old.
        let differs = tracked.wish != wish;
        let only_counts = differs && without_counts(&tracked.wish.1) == without_counts(&wish.1);
        let fresh = tracked.written.as_ref().is_some_and(|(_, at)| now.duration_since(*at) < DRIFT);
        let drifts = only_counts && fresh && now.duration_since(live.since) > DRIFT;
        if differs && !drifts && !fails_as_before(&tracked.wish.1, &wish.1) {
            tracked.wish = wish;
            tracked.due = sooner(tracked.due, tracked.written.as_ref().map(|(_, at)| *at), settled, now);
        }
    }

    fn node_wish(&mut self, Sees { speaker, desire, fib, .. }: Sees<'_>, now: Instant) {
        let before = self.fabric_node.as_ref().map(|tracked| &tracked.wish.ready);
        let wish = NodeWish {
            bgp: session_status::node_bgp(desire),
            ready: session_status::ready(speaker, desire, &fib.report(), before, Timestamp::now()),
        };
        let settled = wish.ready.status == "True";
        match &mut self.fabric_node {
            Some(tracked) if tracked.wish == wish => {}
            Some(tracked) => {
                tracked.wish = wish;
                tracked.due = sooner(tracked.due, tracked.written.as_ref().map(|(_, at)| *at), settled, now);
            }
            None => {
                let due = due(None, settled, now);
                self.fabric_node = Some(Tracked { wish, due, written: None });
            }
        }
    }

    /// The session of a peer that is gone: its object goes too.
    fn forget(&mut self, peer: &PeerName, now: Instant) {
        if !self.sessions.contains_key(peer) {
            return;
        }
        match self.writes.try_send(Write::Forget { session: self.name(peer) }) {
            Ok(()) => drop(self.sessions.remove(peer)),
            Err(_) => self.look_within(BUSY, now),
        }
    }

    fn hand_over(&mut self, now: Instant) {
        let node = self.node.clone();
        for (peer, tracked) in &mut self.sessions {
            if tracked.due.is_none_or(|at| at > now) {
                continue;
            }
            let (spec, status) = tracked.wish.clone();
            let name = BGPSession::name_of(&node, peer.as_str());
            let write = Write::Session { name, spec, status: Box::new(status) };
            offer(&self.writes, write, tracked, now);
        }
        if let Some(tracked) = &mut self.fabric_node
            && tracked.due.is_some_and(|at| at <= now)
        {
            let write = Write::Node(Box::new(tracked.wish.clone()));
            offer(&self.writes, write, tracked, now);
        }
    }
}

/// Whether there is an object for a peer, and we write it.
fn is_ours(peer: &PeerName, Sees { speaker, desire, .. }: Sees<'_>) -> bool {
    let is_wanted = desire
        .speaker
        .as_ref()
        .is_some_and(|config| config.peers.contains_key(peer) || speaker.range(peer).is_some());
    is_wanted && desire.reports(peer)
}

fn offer<T: Clone + PartialEq>(
    writes: &mpsc::Sender<Write>,
    write: Write,
    tracked: &mut Tracked<T>,
    now: Instant,
) {
    if tracked.written.as_ref().is_some_and(|(written, _)| *written == tracked.wish) {
        // It changed and changed back within the hold.
        tracked.due = None;
    } else if writes.try_send(write).is_ok() {
        tracked.written = Some((tracked.wish.clone(), now));
        tracked.due = None;
    } else {
        tracked.due = now.checked_add(BUSY);
    }
}

/// When a wish of now may be written.
fn due(last_write: Option<Instant>, settled: bool, now: Instant) -> Option<Instant> {
    let allowed = last_write.and_then(|at| at.checked_add(HOLD)).unwrap_or(now).max(now);
    if settled { Some(allowed) } else { now.checked_add(HOLD).map(|held| held.max(allowed)) }
}

/// The same where a wish of before waits already: attempts that fail more often than every 10 s must not put off for ever
/// what there is to say.
fn sooner(
    waiting: Option<Instant>,
    last_write: Option<Instant>,
    settled: bool,
    now: Instant,
) -> Option<Instant> {
    waiting.into_iter().chain(due(last_write, settled, now)).min()
}

/// One more attempt that failed as the last one did: nothing to write.
fn fails_as_before(before: &BGPSessionStatus, after: &BGPSessionStatus) -> bool {
    let is_down = |status: &BGPSessionStatus| status.state != Some(SessionState::Established);
    let said = |status: &BGPSessionStatus| BGPSessionStatus {
        state: None,
        since: None,
        local_address: None,
        source_reason: None,
        // Down and Init take turns while one end alone hears the other.
        bfd: status.bfd.clone().filter(|bfd| bfd.state == BfdState::Up),
        last_error: status
            .last_error
            .clone()
            .map(|error| SessionError { time: Time(Timestamp::UNIX_EPOCH), ..error }),
        ..without_counts(status)
    };
    is_down(before) && is_down(after) && before.state.is_some() && said(before) == said(after)
}

fn without_counts(status: &BGPSessionStatus) -> BGPSessionStatus {
    BGPSessionStatus { families: Vec::new(), ..status.clone() }
}

/// A condition that keeps its transition time while its status stays.
pub(crate) fn condition(
    kind: &str,
    status: bool,
    reason: &str,
    message: String,
    before: Option<&Condition>,
    now: Timestamp,
) -> Condition {
    let status = if status { "True" } else { "False" };
    let last_transition_time = match before {
        Some(before) if before.status == status && before.type_ == kind => {
            before.last_transition_time.clone()
        }
        Some(_) | None => Time(now),
    };
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time,
        observed_generation: None,
    }
}

/// Sessions that are up.
fn established(speaker: &Speaker) -> usize {
    speaker.states().filter(|(_, _, state, _)| *state == State::Established).count()
}

/// A value as the store takes it.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn status(state: &str, second: u32, error: &str, reason: &str) -> BGPSessionStatus {
        serde_saphyr::from_str(&format!(
            "{{state: {state}, since: '2026-01-01T00:00:{second:02}Z', lastError: {{time: '2026-01-01T00:00:{second:02}Z', \
             from: Transport, name: Transport, text: {error}}}, conditions: [{{type: Established, status: 'False', \
             reason: {reason}, message: {error}, lastTransitionTime: '2026-01-01T00:00:00Z'}}]}}"
        ))
        .unwrap()
    }

    #[test]
    fn attempts_that_fail_alike_are_written_once() {
        let first = status("Connect", 1, "no answer", "ConnectionTimedOut");
        assert!(fails_as_before(&first, &status("Active", 7, "no answer", "ConnectionTimedOut")));
        assert!(!fails_as_before(&first, &status("Active", 7, "refused", "ConnectionRefused")));
        let up = status("Established", 7, "no answer", "ConnectionTimedOut");
        assert!(!fails_as_before(&first, &up) && !fails_as_before(&up, &first));
        assert!(!fails_as_before(&BGPSessionStatus::default(), &first), "the first of all is written");
    }

    #[test]
    fn what_waits_to_be_written_is_not_put_off_by_what_comes_after_it() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let first = sooner(None, None, false, began);
        assert_eq!(first, Some(at(10)), "what is not Established must hold");
        assert_eq!(sooner(first, None, false, at(9)), Some(at(10)));
        assert_eq!(sooner(first, None, true, at(9)), Some(at(9)), "Established is written at once");
        assert_eq!(sooner(None, Some(at(5)), true, at(9)), Some(at(15)), "and at most once in 10 s");
    }
}
