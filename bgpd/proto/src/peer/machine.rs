//! Carries out what the state machine decides.

use std::time::Duration;

use super::{Cause, Context, Peer, Slot, Then};
use crate::config::AdminState;
use crate::connection::Timers;
use crate::fsm::{Action, Event, State, Transition, transition};
use crate::negotiate::Negotiated;
use crate::output::{Output, Reason, SessionEvent};
use crate::types::AfiSafi;
use crate::wire::message::{self, HEADER_LENGTH, MAX_EXTENDED_LENGTH};
use crate::wire::notification::fsm as fsm_error;
use crate::wire::{MessageType, Notification};

/// "A HoldTimer value of 4 minutes is suggested" while the peer's OPEN is awaited (RFC 4271 §8.2.2).
const OPEN_HOLD_TIME: Duration = Duration::from_secs(4 * 60);
/// The damping time after a first failure; it doubles with each further one.
const FIRST_IDLE_HOLD: Duration = Duration::from_secs(1);
/// Its bound.
const LONGEST_IDLE_HOLD: Duration = Duration::from_secs(60);
/// A session that held so long clears the count of failures.
const STABLE: Duration = Duration::from_secs(60);

/// One event on its way through the actions.
struct Firing {
    event: Event,
    /// The state it met.
    state: State,
    cause: Option<Cause>,
    /// The last message of a connection.
    last_word: Option<Notification>,
}

impl Peer {
    /// One event: what the table says, then what follows for the peer as a whole.
    pub(super) fn fire(&mut self, slot: Slot, event: Event, cause: Option<Cause>, ctx: &mut Context<'_>) {
        self.step(slot, event, cause, ctx);
        self.settle(ctx);
    }

    /// Ends both machines for one cause.
    pub(super) fn halt(&mut self, cause: Cause, ctx: &mut Context<'_>) {
        let then = cause.then;
        if self.second.is_some() {
            self.step(Slot::Second, Event::OpenCollisionDump, Some(Cause::collision()), ctx);
            self.second = None;
        }
        self.step(Slot::Primary, Event::Stop, Some(cause), ctx);
        self.then = then;
        self.settle(ctx);
    }

    /// One event, for one machine, as the table says.
    pub(super) fn step(&mut self, slot: Slot, event: Event, cause: Option<Cause>, ctx: &mut Context<'_>) {
        let Some(state) = self.connection(slot).map(|connection| connection.state) else { return };
        let Transition { next, actions } = transition(state, event);
        let mut firing = Firing { event, state, cause, last_word: None };
        for action in actions {
            self.act(slot, *action, &mut firing, ctx);
        }
        if let Some(connection) = self.connection_mut(slot) {
            connection.state = next;
        }
        // A stop that met no connection ended nothing: there is nothing to report.
        let ended = state.has_connection() || event != Event::Stop;
        if let Some(cause) = firing.cause {
            if slot == Slot::Primary {
                self.then = cause.then;
            }
            if !cause.quiet && ended {
                tracing::debug!(peer = %self.name, ?event, %state, error = %cause.error, "session ends");
                self.reason = cause.error.reason;
                self.last_error = Some((ctx.now, cause.error.clone()));
                ctx.event(SessionEvent::Error { peer: self.name.clone(), error: cause.error });
            }
        }
    }

    fn act(&mut self, slot: Slot, action: Action, firing: &mut Firing, ctx: &mut Context<'_>) {
        match action {
            Action::Dial => {
                self.dialling = true;
                let remote = (self.config.remote, self.config.port).into();
                let (local, max_hops) = (self.config.local_address, self.config.max_hops);
                let (peer, ttl_security) = (self.name.clone(), self.config.ttl_security);
                ctx.outputs.push_back(Output::Dial { peer, remote, local, max_hops, ttl_security });
            }
            Action::CancelDial => self.cancel_dial(ctx),
            Action::RestartConnectRetryTimer => self.restart_connect_retry(slot, ctx),
            Action::SendOpen => self.send_open(slot, ctx),
            Action::StartSessionTimers | Action::RestartHoldTimer => self.restart_hold_timer(slot, ctx),
            Action::SendKeepalive => self.send_keepalive(slot, ctx),
            Action::SessionUp => self.session_up(slot, ctx),
            Action::SessionDown => self.session_down(slot, firing, ctx),
            Action::SendNotification => {
                let said = firing.cause.as_ref().and_then(|cause| cause.error.notification.clone());
                let survives = self.survives_notifications(slot);
                // RFC 8538 §3: what must not be survived says so where the peer would survive it.
                firing.last_word =
                    said.map(|said| if survives && said.is_final() { said.hard_reset() } else { said });
            }
            Action::SendFsmError => {
                let subcode = match firing.state {
                    State::OpenSent => fsm_error::IN_OPEN_SENT,
                    State::OpenConfirm => fsm_error::IN_OPEN_CONFIRM,
                    State::Established => fsm_error::IN_ESTABLISHED,
                    State::Idle | State::Connect | State::Active => 0,
                };
                let text = format!("unexpected {:?} in {}", firing.event, firing.state);
                let notification = Notification::new(5, subcode);
                firing.last_word = Some(notification.clone());
                firing.cause = Some(Cause::local(notification, &text));
            }
            Action::DropConnection => {
                if firing.state == State::Established {
                    let (word, cause) = (firing.last_word.as_ref(), firing.cause.as_ref());
                    self.tell_down(slot, firing.event, word, cause, ctx);
                }
                self.drop_connection(slot, firing.last_word.take(), ctx);
            }
            Action::StopTimers => {
                if let Some(connection) = self.connection_mut(slot) {
                    connection.timers = Timers::default();
                }
            }
            Action::CountFailure => self.failures = self.failures.saturating_add(1),
        }
    }

    /// What follows for the peer once its machines have moved. Safe to be called at any time.
    pub(super) fn settle(&mut self, ctx: &mut Context<'_>) {
        if self.second.as_ref().is_some_and(|second| !second.state.has_connection()) {
            self.second = None;
        }
        match (self.primary.state, self.second.as_ref().map(|second| second.state)) {
            // RFC 4271 §6.8: an Established connection wins.
            (State::Connect | State::OpenSent | State::OpenConfirm, Some(State::Established)) => {
                let event =
                    if self.primary.state.has_connection() { Event::OpenCollisionDump } else { Event::Stop };
                self.step(Slot::Primary, event, Some(Cause::collision()), ctx);
                self.promote_second(ctx);
            }
            (State::Idle | State::Active, Some(_)) => self.promote_second(ctx),
            (_, None | Some(_)) => {}
        }
        if let AdminState::Withheld { reason, .. } = &self.config.admin
            && self.primary.state == State::Idle
        {
            self.reason = *reason;
        }
        self.report(ctx);
        if self.primary.state == State::Idle && self.then != Then::Stay {
            self.leave_idle(ctx);
            self.report(ctx);
        }
    }

    fn promote_second(&mut self, ctx: &mut Context<'_>) {
        if let Some(second) = self.second.take() {
            self.cancel_dial(ctx);
            self.primary = second;
            self.then = Then::Stay;
        }
    }

    fn leave_idle(&mut self, ctx: &mut Context<'_>) {
        let wanted = self.config.admin == AdminState::Up && !self.refused;
        match std::mem::replace(&mut self.then, Then::Stay) {
            _ if !wanted => {}
            Then::Stay => {}
            Then::Start => {
                self.idle_until = None;
                let event = if self.config.passive { Event::StartPassive } else { Event::Start };
                self.step(Slot::Primary, event, None, ctx);
            }
            Then::Listen => {
                self.step(Slot::Primary, Event::StartPassive, None, ctx);
                if !self.config.passive {
                    self.primary.timers.connect_retry = Some(ctx.now + self.damping(ctx));
                }
            }
            Then::Hold => self.idle_until = Some(ctx.now + self.damping(ctx)),
            Then::HoldFor(pause) => self.idle_until = pause.map(|pause| ctx.now + pause),
        }
    }

    /// 1, 2, 4 … 60 s with the number of failures, jittered.
    fn damping(&self, ctx: &mut Context<'_>) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(6);
        ctx.jitter.shorten((FIRST_IDLE_HOLD * (1 << doublings)).min(LONGEST_IDLE_HOLD))
    }

    /// Tells a change of the peer's state, once.
    fn report(&mut self, ctx: &mut Context<'_>) {
        let state =
            self.second.as_ref().map_or(self.primary.state, |second| second.state.max(self.primary.state));
        if state != self.state {
            let from = std::mem::replace(&mut self.state, state);
            self.since = ctx.now;
            tracing::debug!(peer = %self.name, %from, to = %state, reason = ?self.reason, "session state");
            let (peer, reason) = (self.name.clone(), self.reason);
            ctx.event(SessionEvent::StateChanged { peer, from, to: state, reason });
        }
    }

    // ---- actions

    fn cancel_dial(&mut self, ctx: &mut Context<'_>) {
        if std::mem::take(&mut self.dialling) {
            ctx.outputs.push_back(Output::CancelDial { peer: self.name.clone() });
        }
    }

    fn restart_connect_retry(&mut self, slot: Slot, ctx: &mut Context<'_>) {
        if self.config.passive {
            return;
        }
        let retry = ctx.jitter.shorten(self.config.connect_retry.max(Duration::from_secs(1)));
        let at = ctx.now + retry;
        if let Some(connection) = self.connection_mut(slot) {
            connection.timers.connect_retry = Some(at);
        }
    }

    fn send_open(&mut self, slot: Slot, ctx: &mut Context<'_>) {
        let Some(local) = self.connection(slot).and_then(|c| c.link.as_ref()).map(|link| link.local) else {
            return;
        };
        let open = self.offer(local, ctx).open(&self.own_restart(ctx));
        self.messages.sent.open += 1;
        if let Some(link) = self.connection_mut(slot).and_then(|connection| connection.link.as_mut()) {
            link.open_sent.clear();
            message::encode(MessageType::Open, &mut link.open_sent, |out| open.encode(out));
        }
        self.send(slot, MessageType::Open, ctx, |out| open.encode(out));
        let now = ctx.now;
        if let Some(connection) = self.connection_mut(slot) {
            connection.timers.hold = Some(now + OPEN_HOLD_TIME);
        }
    }

    fn restart_hold_timer(&mut self, slot: Slot, ctx: &mut Context<'_>) {
        let now = ctx.now;
        if let Some(connection) = self.connection_mut(slot) {
            let hold = connection.hold_time();
            connection.timers.hold = (!hold.is_zero()).then(|| now + hold);
        }
    }

    fn send_keepalive(&mut self, slot: Slot, ctx: &mut Context<'_>) {
        self.messages.sent.keepalive += 1;
        self.send(slot, MessageType::Keepalive, ctx, |_| {});
        if let Some(connection) = self.connection_mut(slot) {
            let interval = connection.keepalive_interval();
            connection.timers.keepalive =
                (!interval.is_zero()).then(|| ctx.now + ctx.jitter.shorten(interval));
        }
    }

    pub(super) fn send(
        &mut self,
        slot: Slot,
        message_type: MessageType,
        ctx: &mut Context<'_>,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(connection) = self.connection_mut(slot) else { return };
        if let Some(link) = &mut connection.link {
            message::encode(message_type, link.outbox.tail(), body);
        }
        connection.watch_sending(ctx.now);
    }

    fn drop_connection(&mut self, slot: Slot, last_word: Option<Notification>, ctx: &mut Context<'_>) {
        let Some(connection) = self.connection_mut(slot) else { return };
        connection.negotiated = None;
        let Some(link) = connection.link.take() else { return };
        let mut last_bytes = Vec::new();
        if let Some(notification) = last_word {
            last_bytes.extend_from_slice(link.outbox.unfinished_message());
            message::encode(MessageType::Notification, &mut last_bytes, |out| notification.encode(out));
            self.messages.sent.notification += 1;
            self.count_notification(true, &notification);
        }
        ctx.conns.remove(&link.conn);
        ctx.outputs.push_back(Output::Close { conn: link.conn, last_bytes });
    }

    fn session_up(&mut self, slot: Slot, ctx: &mut Context<'_>) {
        let Some(connection) = self.connection(slot) else { return };
        let (Some(negotiated), Some(link)) = (connection.negotiated.clone(), connection.link.as_ref()) else {
            return;
        };
        let facts = self.facts(&negotiated, link.local, ctx);
        self.reason = Reason::Established;
        self.first_since_start = false;
        self.end_of_rib.clear();
        self.end_of_rib_sent.clear();
        self.near_limit.clear();
        self.above_limit.clear();
        ctx.rib.peer_up(self.id, facts);
        self.tell_up(slot, ctx);
        // A collision is over (RFC 4271 §6.8); one that comes in from here on is a restarted peer's.
        let rival = match slot {
            Slot::Primary => Slot::Second,
            Slot::Second => Slot::Primary,
        };
        if self.connection(rival).is_some_and(|c| c.state.has_connection() && c.state != State::Established) {
            self.step(rival, Event::OpenCollisionDump, Some(Cause::collision()), ctx);
        }
        self.resume(&negotiated, ctx);
    }

    fn session_down(&mut self, slot: Slot, firing: &Firing, ctx: &mut Context<'_>) {
        let why = firing.cause.as_ref().map_or(Reason::Connecting, |cause| cause.error.reason);
        *self.resets_by.entry(why).or_default() += 1;
        self.lost = Some(ctx.now);
        if ctx.now.saturating_duration_since(self.since) >= STABLE {
            self.failures = 0;
        }
        // BFD may have been switched off since the OPENs: what they agreed on then counts with its peer alone.
        let survives = self.config.graceful_restart.notification && self.survives_notifications(slot);
        let retain = firing.cause.as_ref().is_some_and(|cause| {
            let survived = |said: &Notification| survives && !cause.hard && !said.is_final();
            cause.retain || cause.error.notification.as_ref().is_some_and(survived)
        });
        let negotiated = self.connection(slot).and_then(|connection| connection.negotiated.clone());
        self.lose(negotiated.filter(|_| retain).as_ref(), ctx);
    }

    /// Both sides agreed that NOTIFICATIONs leave the routes (RFC 8538).
    fn survives_notifications(&self, slot: Slot) -> bool {
        let connection = self.connection(slot).filter(|connection| connection.state == State::Established);
        connection.and_then(|c| c.negotiated.as_ref()).is_some_and(Negotiated::survives_notifications)
    }

    /// The agreement of the session that is up.
    pub(crate) fn established(&self) -> Option<&Negotiated> {
        [Slot::Primary, Slot::Second]
            .into_iter()
            .filter_map(|slot| self.connection(slot))
            .find(|connection| connection.state == State::Established)
            .and_then(|connection| connection.negotiated.as_ref())
    }

    /// Fills the outbox with UPDATEs and counts them.
    pub(super) fn fetch_updates(&mut self, slot: Slot, ctx: &mut Context<'_>) {
        let mut fetched = 0;
        let id = self.id;
        if let Some(bytes) = ctx.rib.taking().poll_transmit(id)
            && let Some(link) = self.connection_mut(slot).and_then(|connection| connection.link.as_mut())
        {
            link.outbox.tail().extend_from_slice(bytes);
            fetched = bytes.len();
            if ctx.monitor.is_watching() {
                ctx.monitor.told(id, bytes, ctx.now);
            }
            let mut rest = bytes;
            while let Ok(Some(length)) = message::message_length(rest, MAX_EXTENDED_LENGTH) {
                match rest.get(HEADER_LENGTH - 1) {
                    // The borders of a refresh stand in the log, among what they enclose.
                    Some(kind) if *kind == MessageType::RouteRefresh.number() => {
                        self.messages.sent.route_refresh += 1;
                    }
                    Some(_) | None => self.messages.sent.update += 1,
                }
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        if fetched > 0 {
            ctx.rib.taking().transmitted(id, fetched);
        }
        self.report_end_of_rib_sent(ctx);
    }

    fn report_end_of_rib_sent(&mut self, ctx: &mut Context<'_>) {
        let Some(negotiated) = self.established() else { return };
        if self.end_of_rib_sent.len() == negotiated.families.len() {
            return;
        }
        let sent: Vec<AfiSafi> = negotiated
            .families
            .iter()
            .copied()
            .filter(|f| !self.end_of_rib_sent.contains(f) && ctx.rib.initial_table_sent(self.id, *f))
            .collect();
        for family in sent {
            self.end_of_rib_sent.insert(family);
            ctx.event(SessionEvent::EndOfRibSent { peer: self.name.clone(), family });
        }
    }
}
