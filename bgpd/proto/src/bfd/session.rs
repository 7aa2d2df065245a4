//! One session: its state machine (RFC 5880 §6.2, §6.8.6) and its timers (§6.8.2 to §6.8.7).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::packet::{ControlPacket, Discard};
use super::{Diagnostic, SessionConfig, SessionFigures, SessionStatus, State, Timing};
use crate::connection::Jitter;
use crate::types::PeerName;

/// "not less than one second" while the session is not Up (RFC 5880 §6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// A Poll Sequence (RFC 5880 §6.5): the peer confirms that it has heard of new intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    Idle,
    /// `sent`: a packet with P is out, so that F answers it. `again`: the values changed meanwhile, so that this F
    /// may speak of the old ones.
    Running {
        sent: bool,
        again: bool,
    },
}

/// A session towards one peer. What a packet says is the state of its sender:
///
/// ```text
///                        ┌── Down heard, detection time over ◄─────────────┐
///                        ▼                                                 │
///   start ──────────► Down ── Down heard ──► Init ── Init or Up heard ──► Up
///     ▲                │  ▲                    │                           ▲
///     │                │  └── detection time over, AdminDown heard           │
///     │                └─────────────────────── Init heard ────────────────┘
///     │
///   AdminDown ◄── an operator, from any state; sent for a detection time, then the session is gone
/// ```
/// AdminDown heard means Down in every state; what is silent in Down stays Down.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) name: PeerName,
    pub(super) config: SessionConfig,
    pub(super) discriminator: u32,
    /// The earliest entry of this session among what is due; the monitor's.
    pub(super) armed: Option<Instant>,
    state: State,
    since: Instant,
    diagnostic: Diagnostic,
    remote_state: State,
    remote_diagnostic: Diagnostic,
    /// 0: the peer is not heard.
    remote_discriminator: u32,
    remote_desired_min_tx: Duration,
    remote_min_rx: Duration,
    remote_multiplier: u32,
    remote_demand: bool,
    poll: Poll,
    /// What the peer was last told, or will be by the next packet.
    told: (Duration, Duration),
    /// What counts for our own timers; it lags behind `told` while a Poll Sequence runs (RFC 5880 §6.8.3).
    tx_in_force: Duration,
    rx_in_force: Duration,
    /// Before jitter.
    interval: Duration,
    last_sent: Option<Instant>,
    next_send: Instant,
    last_heard: Option<Instant>,
    /// The state changed since the last packet: it is told at once (RFC 5880 §6.8.7).
    urgent: bool,
    /// A packet with P awaits its F.
    final_due: bool,
    /// AdminDown, and gone then.
    leaves_at: Option<Instant>,
    /// Packets, by direction.
    sent: u64,
    received: u64,
    /// How often it left Up, by why: the field has five bits, so these are 32 at the most.
    downs: BTreeMap<Diagnostic, u64>,
    /// By how much the last periodic packet was late; the monitor's to take.
    pub(super) late: Option<Duration>,
}

impl Session {
    pub(super) fn new(name: PeerName, config: SessionConfig, discriminator: u32, now: Instant) -> Session {
        let told = (slow(config.timing.desired_min_tx), config.timing.required_min_rx);
        Session {
            name,
            config,
            discriminator,
            armed: None,
            state: State::Down,
            since: now,
            diagnostic: Diagnostic::NONE,
            remote_state: State::Down,
            remote_diagnostic: Diagnostic::NONE,
            remote_discriminator: 0,
            remote_desired_min_tx: Duration::ZERO,
            remote_min_rx: INITIAL_REMOTE_MIN_RX,
            remote_multiplier: 0,
            remote_demand: false,
            poll: Poll::Idle,
            told,
            tx_in_force: told.0,
            rx_in_force: told.1,
            interval: told.0,
            last_sent: None,
            next_send: now,
            last_heard: None,
            urgent: false,
            final_due: false,
            leaves_at: None,
            sent: 0,
            received: 0,
            downs: BTreeMap::new(),
            late: None,
        }
    }

    pub(super) fn figures(&self) -> SessionFigures {
        let (sent, received, downs) = (self.sent, self.received, self.downs.clone());
        SessionFigures { status: self.status(), sent, received, downs }
    }

    pub(super) fn status(&self) -> SessionStatus {
        SessionStatus {
            state: self.state,
            since: self.since,
            diagnostic: self.diagnostic,
            remote_state: self.remote_state,
            remote_diagnostic: self.remote_diagnostic,
            transmit_interval: self.interval,
            detection_time: self.last_heard.map(|_| self.detection_time()),
        }
    }

    /// Other timers, without a flap: the peer is told by a Poll Sequence.
    pub(super) fn configure(&mut self, timing: Timing, now: Instant, jitter: &mut Jitter) {
        if self.config.timing != timing {
            self.config.timing = timing;
            self.announce();
            self.reschedule(now, jitter);
        }
    }

    /// Takes a packet that belongs to this session; the state before, where it changed (RFC 5880 §6.8.6).
    pub(super) fn receive(
        &mut self,
        packet: &ControlPacket,
        now: Instant,
        jitter: &mut Jitter,
    ) -> Result<Option<State>, Discard> {
        self.received = self.received.saturating_add(1);
        self.remote_discriminator = packet.my_discriminator;
        self.remote_state = packet.state;
        self.remote_diagnostic = packet.diagnostic;
        self.remote_demand = packet.demand;
        self.remote_min_rx = micros(packet.required_min_rx);
        self.remote_desired_min_tx = micros(packet.desired_min_tx);
        self.remote_multiplier = u32::from(packet.detect_multiplier);
        if packet.is_final {
            self.end_poll();
        }
        if self.state == State::AdminDown {
            self.reschedule(now, jitter);
            return Err(Discard::AdminDown);
        }
        let before = self.state;
        if let Some((next, diagnostic)) = next_state(self.state, packet.state) {
            self.enter(next, diagnostic, now);
        }
        self.final_due |= packet.poll;
        self.last_heard = Some(now);
        self.reschedule(now, jitter);
        Ok((before != self.state).then_some(before))
    }

    /// Does what is due beside sending; the state before, where it changed.
    pub(super) fn timeout(&mut self, now: Instant, jitter: &mut Jitter) -> Option<State> {
        if self.detect_at().is_none_or(|at| at > now) {
            return None;
        }
        // RFC 5880 §6.8.1: "If a period of a Detection Time passes without the receipt of a valid, authenticated BFD packet
        // from the remote system, this variable [bfd.RemoteDiscr] MUST be set to zero". With it goes what the peer asked for.
        self.last_heard = None;
        self.remote_discriminator = 0;
        self.remote_min_rx = INITIAL_REMOTE_MIN_RX;
        self.remote_demand = false;
        self.poll = Poll::Idle;
        let before = self.state;
        match self.state {
            State::Init | State::Up => self.enter(State::Down, Diagnostic::DETECTION_TIME_EXPIRED, now),
            State::Down | State::AdminDown => {}
        }
        self.settle_values();
        self.reschedule(now, jitter);
        (before != self.state).then_some(before)
    }

    /// AdminDown, told for a detection time of the peer's (RFC 5880 §6.8.16). `false`: there is nobody to tell.
    pub(super) fn leave(&mut self, now: Instant, jitter: &mut Jitter) -> bool {
        if self.remote_discriminator == 0 {
            return false;
        }
        let theirs = self.interval * u32::from(self.config.timing.detect_multiplier.max(1));
        self.leaves_at = Some(now + theirs);
        self.enter(State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN, now);
        self.reschedule(now, jitter);
        true
    }

    pub(super) fn has_left(&self, now: Instant) -> bool {
        self.leaves_at.is_some_and(|at| at <= now)
    }

    pub(super) fn leaves_at(&self) -> Option<Instant> {
        self.leaves_at
    }

    /// The next packet that is due now, if any.
    pub(super) fn transmit(&mut self, now: Instant, jitter: &mut Jitter) -> Option<ControlPacket> {
        let packet = self.next_packet(now, jitter)?;
        self.sent = self.sent.saturating_add(1);
        Some(packet)
    }

    fn next_packet(&mut self, now: Instant, jitter: &mut Jitter) -> Option<ControlPacket> {
        if std::mem::take(&mut self.final_due) {
            // RFC 5880 §6.8.7: at once, whatever the timer says, with P clear. It tells the state as well.
            self.urgent = false;
            return Some(ControlPacket { is_final: true, ..self.packet() });
        }
        let told_at_once = self.urgent && !self.is_waiting();
        let periodic = self.sends() && self.next_send <= now;
        if !told_at_once && !periodic {
            return None;
        }
        self.urgent = false;
        if periodic {
            self.late = Some(now.saturating_duration_since(self.next_send));
        }
        self.last_sent = Some(now);
        self.next_send = now + self.jittered(jitter);
        let mut packet = self.packet();
        if let Poll::Running { sent, .. } = &mut self.poll {
            *sent = true;
            packet.poll = true;
        }
        Some(packet)
    }

    /// When [`Session::timeout`] or [`Session::transmit`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let send = self.sends().then_some(self.next_send);
        [send, self.detect_at(), self.leaves_at].into_iter().flatten().min()
    }

    // ---- state

    fn enter(&mut self, next: State, diagnostic: Diagnostic, now: Instant) {
        if next == self.state {
            return;
        }
        if self.state == State::Up {
            *self.downs.entry(diagnostic).or_default() += 1;
        }
        self.state = next;
        self.since = now;
        self.diagnostic = diagnostic;
        self.urgent = true;
        self.announce();
    }

    // ---- intervals

    /// Works out what the peer should be told; a change of it begins a Poll Sequence (RFC 5880 §6.8.3).
    fn announce(&mut self) {
        let timing = &self.config.timing;
        let tx = if self.state == State::Up { timing.desired_min_tx } else { slow(timing.desired_min_tx) };
        let told = (tx, timing.required_min_rx);
        let is_other = std::mem::replace(&mut self.told, told) != told;
        if self.state == State::AdminDown {
            self.poll = Poll::Idle;
        } else if is_other && self.remote_discriminator != 0 {
            self.poll = match self.poll {
                Poll::Running { sent: true, .. } => Poll::Running { sent: true, again: true },
                Poll::Idle | Poll::Running { sent: false, .. } => Poll::Running { sent: false, again: false },
            };
        }
        if self.state != State::Up || self.poll == Poll::Idle {
            return self.settle_values();
        }
        // "If bfd.DesiredMinTxInterval is increased and bfd.SessionState is Up, the actual transmission interval used MUST NOT
        // change until the Poll Sequence … has terminated"; "If bfd.RequiredMinRxInterval is reduced and bfd.SessionState is Up,
        // the previous value … MUST be used when calculating the Detection Time … until the Poll Sequence … has terminated".
        self.tx_in_force = self.tx_in_force.min(told.0);
        self.rx_in_force = self.rx_in_force.max(told.1);
    }

    fn settle_values(&mut self) {
        (self.tx_in_force, self.rx_in_force) = self.told;
    }

    fn end_poll(&mut self) {
        match self.poll {
            Poll::Running { sent: true, again: false } => {
                self.poll = Poll::Idle;
                self.settle_values();
            }
            Poll::Running { sent: true, again: true } => {
                self.poll = Poll::Running { sent: false, again: false };
            }
            // The answer to something older.
            Poll::Idle | Poll::Running { sent: false, .. } => {}
        }
    }

    /// Takes over another interval at once, counted from the last packet (RFC 5880 §6.8.2).
    fn reschedule(&mut self, now: Instant, jitter: &mut Jitter) {
        let interval = self.tx_in_force.max(self.remote_min_rx);
        if interval != self.interval {
            self.interval = interval;
            let jittered = self.jittered(jitter);
            self.next_send = self.last_sent.map_or(now, |at| at + jittered);
        }
    }

    /// 75 to 100 %, with a multiplier of 1 to 90 % (RFC 5880 §6.8.7).
    fn jittered(&self, jitter: &mut Jitter) -> Duration {
        let up_to = if self.config.timing.detect_multiplier <= 1 { 900 } else { 1000 };
        jitter.shorten_to(self.interval, up_to)
    }

    /// RFC 5880 §6.8.4, asynchronous mode.
    fn detection_time(&self) -> Duration {
        self.rx_in_force.max(self.remote_desired_min_tx) * self.remote_multiplier
    }

    fn detect_at(&self) -> Option<Instant> {
        self.last_heard.map(|at| at + self.detection_time())
    }

    /// Waits for the peer's first packet.
    fn is_waiting(&self) -> bool {
        self.config.timing.passive && self.remote_discriminator == 0
    }

    /// Whether packets are sent periodically (RFC 5880 §6.8.7).
    fn sends(&self) -> bool {
        let peer_wants_none = self.remote_demand
            && self.state == State::Up
            && self.remote_state == State::Up
            && self.poll == Poll::Idle;
        !self.is_waiting() && !peer_wants_none && !self.remote_min_rx.is_zero()
    }

    fn packet(&self) -> ControlPacket {
        ControlPacket {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: false,
            is_final: false,
            // Our BFD lives and dies with bgpd.
            control_plane_independent: false,
            demand: false,
            detect_multiplier: self.config.timing.detect_multiplier.max(1),
            my_discriminator: self.discriminator,
            your_discriminator: self.remote_discriminator,
            desired_min_tx: wire(self.told.0),
            required_min_rx: wire(self.told.1),
            required_min_echo_rx: 0,
        }
    }
}

/// RFC 5880 §6.8.1: "MUST be initialized to 1", microseconds.
const INITIAL_REMOTE_MIN_RX: Duration = Duration::from_micros(1);

/// The last part of RFC 5880 §6.8.6: what follows from our state and the one heard, and why where it is a loss.
fn next_state(own: State, heard: State) -> Option<(State, Diagnostic)> {
    match (own, heard) {
        (State::AdminDown, _) => None,
        (State::Down, State::AdminDown | State::Up) => None,
        (State::Down, State::Down) => Some((State::Init, Diagnostic::NONE)),
        (State::Down, State::Init) => Some((State::Up, Diagnostic::NONE)),
        (State::Init, State::AdminDown) => Some((State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN)),
        (State::Init, State::Down) => None,
        (State::Init, State::Init | State::Up) => Some((State::Up, Diagnostic::NONE)),
        (State::Up, State::AdminDown | State::Down) => {
            Some((State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN))
        }
        (State::Up, State::Init | State::Up) => None,
    }
}

fn slow(desired: Duration) -> Duration {
    desired.max(SLOW)
}

fn micros(wire: u32) -> Duration {
    Duration::from_micros(wire.into())
}

fn wire(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX)
}
