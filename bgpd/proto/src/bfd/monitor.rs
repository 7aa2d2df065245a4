//! All sessions of this node: which packet belongs to which, and which is due when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::packet::{self, Discard, LENGTH};
use super::session::Session;
use super::{Diagnostic, Path, SessionConfig, State};
use crate::connection::Jitter;
use crate::durations::Durations;
use crate::types::PeerName;

/// How a datagram came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it.
    pub source: IpAddr,
    /// To which of our addresses.
    pub local: IpAddr,
    /// On which link.
    pub interface: u32,
    /// TTL or hop limit, if the kernel told.
    pub hop_limit: Option<u8>,
    /// On the port of RFC 5883, else on that of RFC 5881.
    pub multihop: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this, now, from the session's own port.
    Transmit {
        /// The session's discriminator: one socket each.
        session: u32,
        /// From where to where.
        path: Path,
        /// The packet.
        packet: [u8; LENGTH],
    },
    /// A session changed its state.
    Changed {
        /// The peer that was configured.
        peer: PeerName,
        /// Before.
        from: State,
        /// After.
        status: SessionStatus,
    },
    /// The session is gone.
    Closed {
        /// Its discriminator.
        session: u32,
    },
}

/// A session as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStatus {
    /// Ours.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Why it is not Up.
    pub diagnostic: Diagnostic,
    /// The peer's state, as last heard.
    pub remote_state: State,
    /// Why the peer's session is not Up, as last heard.
    pub remote_diagnostic: Diagnostic,
    /// How often we send, before jitter.
    pub transmit_interval: Duration,
    /// How long the peer may be silent; none: it is not heard.
    pub detection_time: Option<Duration>,
}

/// What was counted of a session since it was configured on this path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFigures {
    /// As it stands.
    pub status: SessionStatus,
    /// Packets sent.
    pub sent: u64,
    /// Packets that belonged to it.
    pub received: u64,
    /// How often it left Up, by why.
    pub downs: BTreeMap<Diagnostic, u64>,
}

/// What was counted of all sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// By the name that each was configured under.
    pub sessions: BTreeMap<PeerName, SessionFigures>,
    /// By how much periodic packets left later than they were due.
    pub send_delay: Durations,
}

impl SessionStatus {
    /// Whether this end of Up says that the path failed: not where the peer was switched off (RFC 5882 §3.2).
    #[must_use]
    pub fn is_failure(&self, from: State) -> bool {
        from == State::Up && self.state == State::Down && !self.is_remote_admin_down()
    }

    /// It is not Up because the peer's operator wants none.
    #[must_use]
    pub fn is_remote_admin_down(&self) -> bool {
        self.state == State::Down
            && self.remote_state == State::AdminDown
            && self.diagnostic != Diagnostic::DETECTION_TIME_EXPIRED
    }
}

/// By what a sender is known that does not know us yet: the port, its address, and on one link the link.
type Sender = (bool, IpAddr, u32);

fn sender(path: &Path) -> Sender {
    (path.multihop, path.remote, path.interface.unwrap_or(0))
}

/// The sessions of this node. See the module's documentation for how to drive it.
#[derive(Debug)]
pub struct Monitor {
    jitter: Jitter,
    /// By our discriminator; those that leave, too.
    sessions: BTreeMap<u32, Session>,
    names: BTreeMap<PeerName, u32>,
    senders: BTreeMap<Sender, u32>,
    /// One live entry a session, never later than its deadline; entries that are not the session's `armed` are dead.
    due: BinaryHeap<Reverse<(Instant, u32)>>,
    outputs: VecDeque<Output>,
    discards: BTreeMap<Discard, u64>,
    send_delay: Durations,
}

impl Monitor {
    /// No sessions. `seed` makes discriminators, which nobody should guess, and jitter.
    #[must_use]
    pub fn new(seed: u64) -> Monitor {
        Monitor {
            jitter: Jitter::new(seed),
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
            senders: BTreeMap::new(),
            due: BinaryHeap::new(),
            outputs: VecDeque::new(),
            discards: Discard::ALL.into_iter().map(|why| (why, 0)).collect(),
            send_delay: Durations::default(),
        }
    }

    /// Takes the whole desired set. Other timers are taken over by a running session; one that is gone, or has another
    /// path, says AdminDown for a detection time, so that its peer does not take it for a failure.
    pub fn configure(&mut self, wanted: &BTreeMap<PeerName, SessionConfig>, now: Instant) {
        let is_kept = |name: &PeerName, session: &Session| {
            wanted.get(name).is_some_and(|config| config.path == session.config.path)
        };
        let gone: Vec<(PeerName, u32)> = self
            .names
            .iter()
            .filter(|(name, id)| self.sessions.get(id).is_none_or(|session| !is_kept(name, session)))
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        for (name, id) in gone {
            self.names.remove(&name);
            self.leave(id, now);
        }
        for (name, config) in wanted {
            match self.names.get(name).copied() {
                Some(id) => self.with(id, now, |session, jitter| {
                    session.configure(config.timing, now, jitter);
                    None
                }),
                None => self.add(name.clone(), *config, now),
            }
        }
    }

    /// Every session says AdminDown (RFC 5880 §6.8.16). Until when they say it; none: nobody is to be told.
    pub fn stop(&mut self, now: Instant) -> Option<Instant> {
        self.configure(&BTreeMap::new(), now);
        self.sessions.values().filter_map(Session::leaves_at).max()
    }

    /// Takes a datagram in. What is wrong with it is counted.
    pub fn receive(&mut self, bytes: &[u8], arrival: &Arrival, now: Instant) {
        if let Err(why) = self.accept(bytes, arrival, now) {
            let count = self.discards.entry(why).or_default();
            *count += 1;
            // The first of many says it; the counter tells the rest.
            if count.is_power_of_two() {
                tracing::debug!(source = %arrival.source, reason = %why, n = *count, "BFD packet discarded");
            }
        }
    }

    fn accept(&mut self, bytes: &[u8], arrival: &Arrival, now: Instant) -> Result<(), Discard> {
        // RFC 5881 §5: "All received BFD Control packets that are demultiplexed to the session MUST be discarded if the
        // received TTL or Hop Limit is not equal to 255".
        if !arrival.multihop && arrival.hop_limit != Some(u8::MAX) {
            return Err(Discard::HopLimit);
        }
        let parsed = packet::parse(bytes)?;
        let packet = parsed.packet;
        let id = match (packet.your_discriminator, packet.state) {
            (0, State::Init | State::Up) => return Err(Discard::State),
            (0, State::Down | State::AdminDown) => self.of_sender(arrival).ok_or(Discard::UnknownSender)?,
            // §6.3: by this field alone, whatever the addresses; but what came without a check of its TTL is of another kind.
            (ours, _) => self
                .sessions
                .get(&ours)
                .filter(|session| session.config.path.multihop == arrival.multihop)
                .map(|session| session.discriminator)
                .ok_or(Discard::YourDiscriminator)?,
        };
        if parsed.is_authenticated {
            return Err(Discard::Authentication);
        }
        let mut outcome = Ok(());
        self.with(id, now, |session, jitter| match session.receive(&packet, now, jitter) {
            Ok(before) => before,
            Err(why) => {
                outcome = Err(why);
                None
            }
        });
        outcome
    }

    fn of_sender(&self, arrival: &Arrival) -> Option<u32> {
        let by = |interface| self.senders.get(&(arrival.multihop, arrival.source, interface));
        let id = *by(arrival.interface).or_else(|| by(0))?;
        self.sessions.get(&id).filter(|session| session.config.path.local == arrival.local).map(|_| id)
    }

    /// The time of [`Monitor::poll_timeout`] has come: does what is due.
    pub fn timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let Some(session) = self.sessions.get_mut(&id).filter(|session| session.armed == Some(at)) else {
                continue;
            };
            session.armed = None;
            if session.has_left(now) {
                self.remove(id);
            } else {
                self.with(id, now, |session, jitter| session.timeout(now, jitter));
            }
        }
    }

    /// When [`Monitor::timeout`] may have something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// What is to be done, in order; `None`: nothing more.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// A session by the name it was configured under.
    #[must_use]
    pub fn status(&self, peer: &PeerName) -> Option<SessionStatus> {
        self.sessions.get(self.names.get(peer)?).map(Session::status)
    }

    /// What was counted.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let session = |id: &u32| self.sessions.get(id).map(Session::figures);
        let sessions = self.names.iter().filter_map(|(name, id)| Some((name.clone(), session(id)?)));
        Figures { sessions: sessions.collect(), send_delay: self.send_delay }
    }

    /// How many datagrams were discarded, by reason; every reason is there.
    pub fn discards(&self) -> impl Iterator<Item = (Discard, u64)> {
        self.discards.iter().map(|(why, count)| (*why, *count))
    }

    /// One session does something; what it wants to send leaves, and it is armed anew.
    fn with(&mut self, id: u32, now: Instant, act: impl FnOnce(&mut Session, &mut Jitter) -> Option<State>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(from) = act(session, &mut self.jitter) {
            let (peer, status) = (session.name.clone(), session.status());
            self.outputs.push_back(Output::Changed { peer, from, status });
        }
        while let Some(packet) = session.transmit(now, &mut self.jitter) {
            let (path, packet) = (session.config.path, packet.encode());
            self.outputs.push_back(Output::Transmit { session: id, path, packet });
        }
        if let Some(late) = session.late.take() {
            self.send_delay.observe(late);
        }
        if let Some(deadline) = session.deadline()
            && session.armed.is_none_or(|armed| deadline < armed)
        {
            session.armed = Some(deadline);
            self.due.push(Reverse((deadline, id)));
        }
    }

    fn add(&mut self, name: PeerName, config: SessionConfig, now: Instant) {
        // Whoever leaves on this path would contradict the new session.
        if let Some(former) = self.senders.get(&sender(&config.path)).copied()
            && !self.names.values().any(|id| *id == former)
        {
            self.remove(former);
        }
        let id = self.discriminator();
        self.names.insert(name.clone(), id);
        self.senders.insert(sender(&config.path), id);
        self.sessions.insert(id, Session::new(name, config, id, now));
        self.with(id, now, |_, _| None);
    }

    fn leave(&mut self, id: u32, now: Instant) {
        let mut is_heard = false;
        self.with(id, now, |session, jitter| {
            is_heard = session.leave(now, jitter);
            None
        });
        if !is_heard {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u32) {
        if let Some(session) = self.sessions.remove(&id) {
            let sender = sender(&session.config.path);
            if self.senders.get(&sender) == Some(&id) {
                self.senders.remove(&sender);
            }
            self.outputs.push_back(Output::Closed { session: id });
        }
    }

    /// "a unique, nonzero discriminator value"; "SHOULD be set to a random … value" (RFC 5880 §6.8.1).
    fn discriminator(&mut self) -> u32 {
        loop {
            let [a, b, c, d, ..] = self.jitter.draw().to_be_bytes();
            let drawn = u32::from_be_bytes([a, b, c, d]);
            if drawn != 0 && !self.sessions.contains_key(&drawn) {
                return drawn;
            }
        }
    }
}
