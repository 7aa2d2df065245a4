//! One peer: its machine, at times a second one for a colliding connection, and what it remembers between sessions.
//!
//! ```text
//!   primary ── dials and listens; carries the session
//!   second  ── exists only while a further connection is up (RFC 4271 §8.2.1), for one of two reasons:
//!              both sides dialled at once: the collision is resolved when the second OPEN arrives (§6.8);
//!              the peer restarted before we noticed: its OPEN ends the old session (RFC 4724 §5).
//!              When the primary has no connection any more, or the second is Established, the second becomes primary.
//! ```
//!
//! Files: `machine` carries out what [`crate::fsm`] decides, `receive` turns bytes into events, [`crate::restart`] keeps
//! routes of a lost session.

mod machine;
mod malformed;
mod monitored;
mod receive;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::audience::Audiences;
use crate::bmp::Monitor;
use crate::config::{AdminState, GracefulRestartMode, PeerConfig};
use crate::connection::{Connection, Jitter, Link};
use crate::fsm::{Event, State};
use crate::input::TransportErrorKind;
use crate::link_local;
use crate::negotiate::{Offer, OwnRestart};
use crate::output::{ErrorFrom, Output, Reason, Rejection, SessionError, SessionEvent};
use crate::restart::Stale;
use crate::speaker::due::Table;
use crate::status::{Malformation, MessageCounters, NOTIFICATION_KINDS, NotificationKind};
use crate::types::{AfiSafi, Asn, ConnId, PeerId, PeerName, RouterId};
use crate::wire::Notification;
use crate::wire::notification::cease;

/// By how much a hold timer is put off while bytes of its peer wait to be read.
const UNREAD: Duration = Duration::from_secs(1);

/// What a peer may touch beside itself.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) jitter: &'a mut Jitter,
    pub(crate) outputs: &'a mut VecDeque<Output>,
    pub(crate) rib: &'a mut Table,
    pub(crate) monitor: &'a mut Monitor,
    /// Whose connection it is: grows when a connection is taken, shrinks when it is dropped.
    pub(crate) conns: &'a mut BTreeMap<ConnId, PeerId>,
    pub(crate) audiences: &'a Audiences,
    pub(crate) asn: Asn,
    pub(crate) router_id: RouterId,
    /// Families whose kernel routes an earlier life left.
    pub(crate) preserved: &'a BTreeSet<AfiSafi>,
}

impl Context<'_> {
    fn event(&mut self, event: SessionEvent) {
        self.outputs.push_back(Output::Event(event));
    }
}

/// Which of a peer's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Primary,
    Second,
}

/// What a peer does once its machine is Idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Nothing, until told.
    Stay,
    /// Start again at once.
    Start,
    /// Listen at once, dial after the damping time: the peer or the network failed, and a peer that is back is welcome.
    Listen,
    /// Refuse everything for the damping time: the peer does not speak the protocol as we understand it.
    Hold,
    /// Refuse everything for this time; `None`: until reset.
    HoldFor(Option<Duration>),
}

/// What comes along with an event: what is told to the peer, to people, and what happens next.
#[derive(Debug)]
struct Cause {
    error: SessionError,
    then: Then,
    /// Not worth being remembered: the loser of a collision.
    quiet: bool,
    /// Routes may be kept (RFC 4724 §4.2).
    retain: bool,
    /// The peer said Hard Reset (RFC 8538).
    hard: bool,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) name: PeerName,
    pub(crate) config: PeerConfig,
    /// It is a neighbour of this range, and there because it dialled us.
    range: Option<PeerName>,
    primary: Connection,
    second: Option<Connection>,
    /// A Dial is under way.
    dialling: bool,
    then: Then,
    /// The end of damping or of a prefix-limit pause.
    idle_until: Option<Instant>,
    /// ConnectRetryCounter (RFC 4271 §8.1.1); a session that held for a minute clears it.
    failures: u32,
    /// What was reported last.
    state: State,
    since: Instant,
    reason: Reason,
    last_error: Option<(Instant, SessionError)>,
    /// How often the session left Established, by why.
    resets_by: BTreeMap<Reason, u64>,
    /// When it did last.
    lost: Option<Instant>,
    messages: MessageCounters,
    notifications: BTreeMap<NotificationKind, u64>,
    /// What of its messages was malformed, and how often.
    malformed: BTreeMap<Malformation, u64>,
    pub(crate) stale: Option<Stale>,
    pub(crate) end_of_rib: BTreeSet<AfiSafi>,
    /// Families that the peer tells anew, and when what it has not told by then goes (RFC 7313).
    pub(crate) refreshing: BTreeMap<AfiSafi, Instant>,
    pub(crate) synchronized: bool,
    end_of_rib_sent: BTreeSet<AfiSafi>,
    near_limit: BTreeSet<AfiSafi>,
    above_limit: BTreeSet<AfiSafi>,
    /// It was there when the speaker started, and no session was up since: our OPEN says "restarted" (RFC 4724 §3).
    first_since_start: bool,
    /// Its configuration cannot be served.
    refused: bool,
}

impl Peer {
    pub(crate) fn new(id: PeerId, name: PeerName, config: PeerConfig, at_start: bool, now: Instant) -> Peer {
        Peer {
            id,
            name,
            config,
            range: None,
            primary: Connection::idle(),
            second: None,
            dialling: false,
            then: Then::Stay,
            idle_until: None,
            failures: 0,
            state: State::Idle,
            since: now,
            reason: Reason::Connecting,
            last_error: None,
            resets_by: BTreeMap::new(),
            lost: None,
            messages: MessageCounters::default(),
            notifications: BTreeMap::new(),
            malformed: BTreeMap::new(),
            stale: None,
            end_of_rib: BTreeSet::new(),
            refreshing: BTreeMap::new(),
            synchronized: false,
            end_of_rib_sent: BTreeSet::new(),
            near_limit: BTreeSet::new(),
            above_limit: BTreeSet::new(),
            first_since_start: at_start,
            refused: false,
        }
    }

    /// A neighbour of a range.
    pub(crate) fn of_range(
        id: PeerId,
        name: PeerName,
        config: PeerConfig,
        range: PeerName,
        at_start: bool,
        now: Instant,
    ) -> Peer {
        Peer { range: Some(range), ..Peer::new(id, name, config, at_start, now) }
    }

    pub(crate) fn range(&self) -> Option<&PeerName> {
        self.range.as_ref()
    }

    /// What audiences know it by.
    fn audience(&self) -> &PeerName {
        self.range.as_ref().unwrap_or(&self.name)
    }

    /// Nothing is left of it: it only listens, and nothing of an earlier session is kept. A pause refuses it, and is not over.
    pub(crate) fn is_over(&self) -> bool {
        let is_done = match self.primary.state {
            State::Active => true,
            State::Idle => self.config.admin != AdminState::Up,
            State::Connect | State::OpenSent | State::OpenConfirm | State::Established => false,
        };
        is_done && self.second.is_none() && self.stale.is_none()
    }

    // ---- what is wanted

    /// Starts the machine where the configuration wants a session. Ends damping and pauses.
    pub(crate) fn start(&mut self, ctx: &mut Context<'_>) {
        self.failures = 0;
        match self.config.admin {
            AdminState::Up if !self.refused => {
                if self.primary.state == State::Idle {
                    self.then = Then::Start;
                    self.reason = Reason::Connecting;
                }
            }
            AdminState::Up => {}
            AdminState::Withheld { reason, .. } => self.reason = reason,
            AdminState::Shutdown { .. } => self.reason = Reason::AdminShutdown,
        }
        self.settle(ctx);
    }

    /// Another peer has this address already.
    pub(crate) fn refuse(&mut self, why: String, ctx: &mut Context<'_>) {
        if !self.refused {
            self.refused = true;
            self.stop(Notification::new(6, cease::OTHER_CONFIGURATION_CHANGE), "", false, ctx);
            ctx.event(SessionEvent::PeerRefused { peer: self.name.clone(), why });
        }
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// The address is free.
    pub(crate) fn serve(&mut self, ctx: &mut Context<'_>) {
        if std::mem::take(&mut self.refused) {
            self.start(ctx);
        }
    }

    /// Ends whatever there is with a NOTIFICATION; `again`: and starts anew.
    pub(crate) fn stop(
        &mut self,
        notification: Notification,
        text: &str,
        again: bool,
        ctx: &mut Context<'_>,
    ) {
        self.idle_until = None;
        let then = if again { Then::Start } else { Then::Stay };
        self.halt(Cause { then, ..Cause::local(notification, text) }, ctx);
    }

    /// Ends the connections without a word where graceful restart was agreed, so that the peer keeps our routes
    /// (RFC 4724 §4.2); says goodbye where it was not.
    pub(crate) fn stop_for_restart(&mut self, ctx: &mut Context<'_>) {
        let keeps_routes = self.config.graceful_restart.mode == GracefulRestartMode::Full
            && self.established().is_some_and(|negotiated| negotiated.graceful_restart.is_some());
        if keeps_routes {
            let cause = Cause::transport(Reason::Connecting, "this speaker restarts");
            self.then = Then::Stay;
            self.step(
                Slot::Primary,
                Event::TcpConnectionFails,
                Some(Cause { then: Then::Stay, ..cause }),
                ctx,
            );
        }
        self.stop(Notification::new(6, cease::ADMINISTRATIVE_SHUTDOWN), "", false, ctx);
    }

    /// An operator's reset: ends damping and pauses too.
    pub(crate) fn reset(&mut self, message: &str, ctx: &mut Context<'_>) {
        self.failures = 0;
        let again = self.config.admin == AdminState::Up && !self.refused;
        self.stop(Notification::cease_with_text(cease::ADMINISTRATIVE_RESET, message), message, again, ctx);
    }

    /// Takes over another configuration: hot where possible, else by a reset of this session.
    pub(crate) fn configure(&mut self, config: PeerConfig, ctx: &mut Context<'_>) {
        let before = std::mem::replace(&mut self.config, config);
        match self.config.admin.clone() {
            AdminState::Shutdown { message } => {
                self.reason = Reason::AdminShutdown;
                if !matches!(before.admin, AdminState::Shutdown { .. }) {
                    let notification =
                        Notification::cease_with_text(cease::ADMINISTRATIVE_SHUTDOWN, &message);
                    self.stop(notification, &message, false, ctx);
                }
                return;
            }
            AdminState::Withheld { .. } if self.state != State::Established => return self.withhold(ctx),
            AdminState::Withheld { .. } | AdminState::Up => {}
        }
        if needs_reset(&before, &self.config) && self.state.has_connection() {
            self.failures = 0;
            let text = "the configuration of the session changed";
            let change = Notification::new(6, cease::OTHER_CONFIGURATION_CHANGE);
            self.stop(change, text, !self.refused, ctx);
            return;
        }
        if self.state.has_connection() {
            self.apply_hot(&before, ctx);
        } else if !self.refused && concerns_attempts(&before, &self.config) {
            // Nothing is up: what was changed may be what was wrong.
            if before.admin != AdminState::Up {
                self.reason = Reason::Connecting;
            }
            self.halt(Cause { then: Then::Start, ..Cause::transport(self.reason, "") }.quietly(), ctx);
            self.start(ctx);
        }
    }

    /// What the session needs is missing: attempts end, and none is begun.
    fn withhold(&mut self, ctx: &mut Context<'_>) {
        self.idle_until = None;
        let change = Cause::local(Notification::new(6, cease::OTHER_CONFIGURATION_CHANGE), "");
        self.halt(Cause { then: Then::Stay, ..change }.quietly(), ctx);
    }

    fn apply_hot(&mut self, before: &PeerConfig, ctx: &mut Context<'_>) {
        if let Some(negotiated) = &mut self.primary.negotiated {
            negotiated.set_keepalive(self.config.keepalive);
        }
        if self.established().is_none() {
            return;
        }
        if before.import != self.config.import {
            ctx.rib.set_import(self.id, self.config.import.clone());
        }
        if before.export != self.config.export {
            ctx.rib.set_export(self.id, self.config.export.clone());
        }
        if before.reflector_client != self.config.reflector_client {
            ctx.rib.set_reflector_client(self.id, self.config.reflector_client);
        }
        if before.add_path.send != self.config.add_path.send {
            ctx.rib.set_paths_sent(self.id, self.config.add_path.send);
        }
        if before.max_prefixes != self.config.max_prefixes {
            self.near_limit.clear();
            self.above_limit.clear();
            self.check_limits(ctx);
        }
    }

    /// The audiences changed: the peer may take other routes of our own.
    pub(crate) fn retag(&mut self, ctx: &mut Context<'_>) {
        if self.established().is_some() {
            ctx.rib.set_tags(self.id, ctx.audiences.tags_of(self.audience()));
        }
    }

    // ---- what happens to connections

    /// A connection came in from the peer's address.
    pub(crate) fn accepted(&mut self, link: Link, ctx: &mut Context<'_>) -> Result<(), Rejection> {
        match self.config.admin {
            AdminState::Up if !self.refused => {}
            AdminState::Withheld { .. } => return Err(Rejection::Withheld),
            AdminState::Up | AdminState::Shutdown { .. } => return Err(Rejection::AdminShutdown),
        }
        if self.config.local_address.is_some_and(|address| address != link.local.ip()) {
            return Err(Rejection::WrongLocalAddress);
        }
        match self.primary.state {
            State::Idle => return Err(Rejection::IdleHold),
            State::Established if self.established().is_none_or(|n| n.graceful_restart.is_none()) => {
                return Err(Rejection::AlreadyConnected);
            }
            State::Active => {
                self.take(Slot::Primary, link, ctx);
            }
            State::Connect | State::OpenSent | State::OpenConfirm | State::Established => {
                // The peer gave up an older attempt that we still hold.
                if self.second.is_some() {
                    self.step(Slot::Second, Event::OpenCollisionDump, Some(Cause::collision()), ctx);
                }
                let conn = link.conn;
                self.second = Some(Connection::listening(link));
                ctx.conns.insert(conn, self.id);
                self.fire(Slot::Second, Event::TcpConnectionConfirmed, None, ctx);
            }
        }
        Ok(())
    }

    /// Our attempt succeeded. `false`: it is not wanted any more.
    pub(crate) fn connected(&mut self, link: Link, ctx: &mut Context<'_>) -> bool {
        let expected = link.remote.ip().to_canonical() == self.config.remote;
        match self.primary.state {
            State::Connect | State::Active if expected && self.dialling => {
                self.dialling = false;
                self.take(Slot::Primary, link, ctx);
                true
            }
            State::Idle
            | State::Connect
            | State::Active
            | State::OpenSent
            | State::OpenConfirm
            | State::Established => false,
        }
    }

    fn take(&mut self, slot: Slot, link: Link, ctx: &mut Context<'_>) {
        ctx.conns.insert(link.conn, self.id);
        if let Some(connection) = self.connection_mut(slot) {
            connection.link = Some(link);
        }
        self.fire(slot, Event::TcpConnectionConfirmed, None, ctx);
    }

    pub(crate) fn dial_failed(&mut self, kind: TransportErrorKind, text: String, ctx: &mut Context<'_>) {
        if !std::mem::take(&mut self.dialling) {
            return;
        }
        let reason = match kind {
            TransportErrorKind::Refused => Reason::ConnectionRefused,
            TransportErrorKind::TimedOut => Reason::ConnectionTimedOut,
            TransportErrorKind::NoRoute => Reason::NoRoute,
            TransportErrorKind::InterfaceDown => Reason::InterfaceDown,
            TransportErrorKind::Other => Reason::Connecting,
        };
        self.fire(Slot::Primary, Event::TcpConnectionFails, Some(Cause::transport(reason, &text)), ctx);
    }

    /// The connection ended without us.
    pub(crate) fn closed(&mut self, conn: ConnId, error: Option<String>, ctx: &mut Context<'_>) {
        ctx.conns.remove(&conn);
        let Some(slot) = self.slot_of(conn) else { return };
        let text = error.unwrap_or_else(|| "the peer closed the connection".to_owned());
        if let Some(connection) = self.connection_mut(slot) {
            connection.link = None;
        }
        let cause = Cause { retain: true, ..Cause::transport(Reason::Connecting, &text) };
        self.fire(slot, Event::TcpConnectionFails, Some(cause), ctx);
    }

    /// The link to the peer is down. Its routes are not kept: nothing could be sent along them.
    pub(crate) fn link_down(&mut self, text: &str, ctx: &mut Context<'_>) {
        for slot in [Slot::Second, Slot::Primary] {
            if self.connection(slot).is_some_and(|connection| connection.state.has_connection()) {
                let cause = Cause::transport(Reason::InterfaceDown, text);
                self.fire(slot, Event::TcpConnectionFails, Some(cause), ctx);
            }
        }
        self.forget_stale(ctx);
    }

    /// BFD says that the path failed: as if the link were down, with a last word for a peer that may hear it.
    pub(crate) fn bfd_down(&mut self, text: &str, ctx: &mut Context<'_>) {
        for slot in [Slot::Second, Slot::Primary] {
            if self.connection(slot).is_some_and(|connection| connection.state.has_connection()) {
                // RFC 4271 §8.2.2, AutomaticStop: "increments the ConnectRetryCounter by 1".
                self.failures = self.failures.saturating_add(1);
                let notification = Notification::new(6, cease::BFD_DOWN);
                let cause = Cause { then: Then::Listen, ..Cause::local(notification, text) };
                self.fire(slot, Event::Stop, Some(cause), ctx);
            }
        }
        self.forget_stale(ctx);
    }

    // ---- time

    /// Does what is due.
    pub(crate) fn timeout(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.idle_until) {
            self.idle_until = None;
            self.then = Then::Start;
            self.settle(ctx);
        }
        for slot in [Slot::Second, Slot::Primary] {
            let Some(timers) = self.connection(slot).map(|connection| connection.timers) else { continue };
            if due(timers.hold) {
                self.fire(slot, Event::HoldTimerExpires, Some(self.hold_timer_expired(slot)), ctx);
            } else if due(timers.send_hold) {
                self.send_hold_timer(slot, ctx);
            } else if due(timers.connect_retry) {
                self.fire(slot, Event::ConnectRetryTimerExpires, self.unanswered(), ctx);
            } else if self.connection(slot).is_some_and(|connection| connection.may_keep_alive(now)) {
                self.fire(slot, Event::KeepaliveTimerExpires, None, ctx);
            }
        }
        self.stale_timeout(ctx);
        self.refresh_timeout(ctx);
    }

    /// The connections whose hold timer has run out (RFC 4271 §6.5).
    pub(crate) fn unheard(&self, now: Instant) -> impl Iterator<Item = ConnId> {
        let is_due = move |connection: &&Connection| connection.timers.hold.is_some_and(|at| at <= now);
        let due = [Some(&self.primary), self.second.as_ref()].into_iter().flatten().filter(is_due);
        due.filter_map(|connection| Some(connection.link.as_ref()?.conn))
    }

    /// Bytes of a connection wait: it is not silent.
    pub(crate) fn unread(&mut self, conn: ConnId, now: Instant) {
        let connection = self.slot_of(conn).and_then(|slot| self.connection_mut(slot));
        if let Some(hold) = connection.and_then(|connection| connection.timers.hold.as_mut()) {
            *hold = (*hold).max(now + UNREAD);
        }
    }

    /// The attempt that the retry timer ends, unless another connection is up meanwhile.
    fn unanswered(&self) -> Option<Cause> {
        // A segment with a wrong signature is dropped in silence (RFC 2385 §2.0).
        let signed = if self.config.signed { "; its key may be another one" } else { "" };
        let text = format!(
            "Connection timed out: no answer from {} port {}{signed}",
            link_local::wire(self.config.remote),
            self.config.port
        );
        (self.dialling && self.second.is_none()).then(|| Cause::transport(Reason::ConnectionTimedOut, &text))
    }

    fn hold_timer_expired(&self, slot: Slot) -> Cause {
        let hold = self.connection(slot).map_or(Duration::ZERO, Connection::hold_time);
        let text = if hold.is_zero() {
            "no OPEN from the peer within 4 minutes".to_owned()
        } else {
            format!("nothing heard from the peer for {} s", hold.as_secs())
        };
        Cause { then: Then::Listen, ..Cause::local(Notification::new(4, 0), &text) }
    }

    fn send_hold_timer(&mut self, slot: Slot, ctx: &mut Context<'_>) {
        let now = ctx.now;
        if let Some(connection) = self.connection_mut(slot) {
            connection.watch_sending(now);
            if connection.timers.send_hold.is_some_and(|at| at <= now) {
                let text = "the peer has read nothing for the send hold time (RFC 9687)";
                let cause = Cause { then: Then::Listen, ..Cause::local(Notification::new(8, 0), text) };
                self.fire(slot, Event::SendHoldTimerExpires, Some(cause), ctx);
            }
        }
    }

    /// By how much a keepalive that [`Peer::timeout`] sends now is late.
    pub(crate) fn keepalive_delay(&self, now: Instant) -> Option<Duration> {
        let timers = [Some(&self.primary), self.second.as_ref()].into_iter().flatten().map(|one| one.timers);
        timers.filter_map(|timers| timers.keepalive).filter_map(|due| now.checked_duration_since(due)).max()
    }

    /// Counts a NOTIFICATION by what it says.
    fn count_notification(&mut self, sent: bool, notification: &Notification) {
        let kind = NotificationKind { sent, code: notification.code, subcode: notification.subcode };
        let is_named =
            self.notifications.len() < NOTIFICATION_KINDS || self.notifications.contains_key(&kind);
        let kind = if is_named { kind } else { NotificationKind { sent, code: 0, subcode: 0 } };
        let count = self.notifications.entry(kind).or_default();
        *count = count.saturating_add(1);
    }

    /// When [`Peer::timeout`] has something to do.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        [
            self.idle_until,
            self.primary.timers.next(),
            self.second.as_ref().and_then(|second| second.timers.next()),
            self.stale.as_ref().and_then(Stale::next),
            self.refreshing.values().min().copied(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // ---- bytes out

    /// Fetches UPDATEs for a connection, only when everything before them is out, so that a keepalive never waits behind more
    /// than one fetch.
    pub(crate) fn fetch(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let Some(slot) = self.slot_of(conn) else { return };
        let is_free = |connection: &Connection| {
            connection.state == State::Established
                && connection.link.as_ref().is_some_and(|link| link.outbox.is_empty())
        };
        if self.connection(slot).is_some_and(is_free) {
            self.fetch_updates(slot, ctx);
        }
        if let Some(connection) = self.connection_mut(slot) {
            connection.watch_sending(ctx.now);
        }
    }

    /// The next bytes of a connection.
    pub(crate) fn waiting(&self, conn: ConnId) -> Option<&[u8]> {
        let link = self.connection(self.slot_of(conn)?)?.link.as_ref()?;
        Some(link.outbox.rest()).filter(|rest| !rest.is_empty())
    }

    /// The connections that it has.
    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnId> {
        let links = [Some(&self.primary), self.second.as_ref()].into_iter().flatten();
        links.filter_map(|connection| Some(connection.link.as_ref()?.conn))
    }

    pub(crate) fn transmitted(&mut self, conn: ConnId, count: usize) {
        let Some(slot) = self.slot_of(conn) else { return };
        if let Some(link) = self.connection_mut(slot).and_then(|connection| connection.link.as_mut()) {
            link.outbox.transmitted(count);
            if link.outbox.is_empty()
                && let Some(connection) = self.connection_mut(slot)
            {
                connection.timers.send_hold = None;
            }
        }
    }

    // ---- the two machines

    fn connection(&self, slot: Slot) -> Option<&Connection> {
        match slot {
            Slot::Primary => Some(&self.primary),
            Slot::Second => self.second.as_ref(),
        }
    }

    fn connection_mut(&mut self, slot: Slot) -> Option<&mut Connection> {
        match slot {
            Slot::Primary => Some(&mut self.primary),
            Slot::Second => self.second.as_mut(),
        }
    }

    fn slot_of(&self, conn: ConnId) -> Option<Slot> {
        [Slot::Primary, Slot::Second]
            .into_iter()
            .find(|slot| self.connection(*slot).is_some_and(|c| c.is(conn)))
    }

    /// What we offer on a connection.
    fn offer(&self, local: SocketAddr, ctx: &Context<'_>) -> Offer<'_> {
        Offer {
            asn: self.config.local_asn.unwrap_or(ctx.asn),
            router_id: ctx.router_id,
            local: local.ip().to_canonical(),
            config: &self.config,
        }
    }

    /// What our OPEN says about our restart: after the first session since the start, forwarding has survived whatever
    /// ended a session, since this process did.
    fn own_restart(&self, ctx: &Context<'_>) -> OwnRestart {
        let forwarding =
            if self.first_since_start { ctx.preserved.clone() } else { AfiSafi::ALL.into_iter().collect() };
        OwnRestart { restarting: self.first_since_start, forwarding }
    }
}

impl Cause {
    /// We end it. Where the peer has misbehaved it is damped hard.
    fn local(notification: Notification, text: &str) -> Cause {
        let reason = match (notification.code, notification.subcode) {
            (2, 2) => Reason::BadPeerAS,
            (4, _) => Reason::HoldTimerExpired,
            (6, cease::MAXIMUM_NUMBER_OF_PREFIXES_REACHED) => Reason::MaxPrefixesReached,
            (6, cease::ADMINISTRATIVE_SHUTDOWN) => Reason::AdminShutdown,
            (6, cease::BFD_DOWN) => Reason::BFDDown,
            _ => Reason::NotificationSent,
        };
        let error = SessionError {
            from: ErrorFrom::Local,
            notification: Some(notification),
            reason,
            text: text.to_owned(),
        };
        Cause { error, then: Then::Hold, quiet: false, retain: false, hard: false }
    }

    /// The peer ends it.
    fn remote(notification: Notification) -> Cause {
        let (notification, hard) = notification.open_hard_reset();
        let reason = match (notification.code, notification.subcode) {
            (2, 2) => Reason::BadPeerAS,
            _ => Reason::NotificationReceived,
        };
        let text = notification.text().unwrap_or_default();
        let error = SessionError { from: ErrorFrom::Remote, notification: Some(notification), reason, text };
        Cause { error, then: Then::Listen, quiet: false, retain: false, hard }
    }

    /// The network ends it.
    fn transport(reason: Reason, text: &str) -> Cause {
        let error =
            SessionError { from: ErrorFrom::Transport, notification: None, reason, text: text.to_owned() };
        Cause { error, then: Then::Listen, quiet: false, retain: false, hard: false }
    }

    /// This connection lost a collision.
    fn collision() -> Cause {
        Cause::local(Notification::new(6, cease::CONNECTION_COLLISION_RESOLUTION), "").quietly()
    }

    fn quietly(self) -> Cause {
        Cause { quiet: true, ..self }
    }
}

/// Whether a running session cannot take over the difference: it decides who the peer is, or was said in an OPEN.
fn needs_reset(before: &PeerConfig, after: &PeerConfig) -> bool {
    let PeerConfig {
        remote,
        port,
        remote_asn,
        local_asn,
        local_address,
        families,
        next_hop,
        extended_next_hop,
        hold_time,
        max_hops,
        ttl_security,
        signed,
        graceful_restart,
        add_path,
        role,
        role_strict,
        reflector_client: _,
        keepalive: _,
        connect_retry: _,
        passive: _,
        max_prefixes: _,
        import: _,
        export: _,
        admin: _,
    } = before;
    *remote != after.remote
        || *port != after.port
        || *remote_asn != after.remote_asn
        || *local_asn != after.local_asn
        || *local_address != after.local_address
        || *families != after.families
        || *next_hop != after.next_hop
        || *extended_next_hop != after.extended_next_hop
        || *hold_time != after.hold_time
        || *max_hops != after.max_hops
        || *ttl_security != after.ttl_security
        || *signed != after.signed
        || graceful_restart.mode != after.graceful_restart.mode
        || graceful_restart.long_lived_stale_time.is_zero()
            != after.graceful_restart.long_lived_stale_time.is_zero()
        || add_path.receive != after.add_path.receive
        || (add_path.send > 0) != (after.add_path.send > 0)
        || *role != after.role
        || *role_strict != after.role_strict
}

/// Whether a peer that is not up should be tried anew, whatever it waits for: not over a policy, which decides nothing yet.
fn concerns_attempts(before: &PeerConfig, after: &PeerConfig) -> bool {
    let but_policies =
        PeerConfig { import: after.import.clone(), export: after.export.clone(), ..before.clone() };
    but_policies != *after
}
