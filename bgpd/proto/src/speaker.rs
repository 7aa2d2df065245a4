//! The speaker: peers and routes behind one mutable entry.

mod configure;
pub(crate) mod due;
mod dynamic;
mod stations;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use ipnet::IpNet;

use crate::audience::Audiences;
use crate::bmp::Monitor;
use crate::config::{PeerConfig, SpeakerConfig};
use crate::connection::{EARLY, Jitter, Link};
use crate::durations::Durations;
use crate::fsm::State;
use crate::input::Input;
use crate::output::{Output, Reason, Rejection, SessionEvent};
use crate::peer::{Context, Peer};
use crate::restart::Selection;
use crate::rib::{Rib, RibConfig, RibEvent};
use crate::route::OwnRoute;
use crate::status::PeerStatus;
use crate::types::{AfiSafi, Asn, ConnId, PeerId, PeerName, RouterId};
use crate::wire::message::encode;
use crate::wire::notification::cease;
use crate::wire::{MessageType, Notification};
use due::{Table, Timers};

/// A BGP speaker. See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Speaker {
    /// The latest time heard of.
    now: Instant,
    seed: u64,
    jitter: Jitter,
    config: Option<SpeakerConfig>,
    rib: Table,
    /// Somebody does what [`Output::Fib`] says.
    feeds_fib: bool,
    peers: BTreeMap<PeerId, Peer>,
    names: BTreeMap<PeerName, PeerId>,
    addresses: BTreeMap<IpAddr, PeerId>,
    conns: BTreeMap<ConnId, PeerId>,
    /// The peers that are neighbours of ranges.
    dynamic: BTreeSet<PeerId>,
    /// When the peers have something to do.
    timers: Timers,
    /// Peers that something happened to since [`Speaker::take_ready`].
    stirred: BTreeSet<PeerId>,
    /// Neighbours of ranges that something happened to: they may be over.
    perhaps_over: BTreeSet<PeerId>,
    own: BTreeMap<IpNet, Vec<OwnRoute>>,
    audiences: Audiences,
    /// Families whose kernel routes an earlier life left.
    preserved: BTreeSet<AfiSafi>,
    selection: Selection,
    fib_complete_due: bool,
    /// Next hops asked for and not answered once.
    unanswered: BTreeSet<IpAddr>,
    /// What follows from the inputs is worked out when the outputs are taken, behind the questions for next hops.
    advance_due: bool,
    outputs: VecDeque<Output>,
    /// Monitoring stations.
    monitor: Monitor,
    /// The RIB has more to decide than fits one step.
    more_work: bool,
    stopped: bool,
    /// By how much keepalives left late.
    keepalive_delay: Durations,
}

impl Speaker {
    /// A speaker that does nothing before its first [`Input::Configure`]. `seed` makes its jitter, and hash tables that
    /// peers could otherwise fill on purpose: take it from the system's random source.
    #[must_use]
    pub fn new(seed: u64, now: Instant) -> Speaker {
        Speaker {
            now,
            seed,
            jitter: Jitter::new(seed),
            config: None,
            // Replaced by the first configuration; no peer and no route gets in before.
            rib: Table::new(Rib::new(RibConfig::new(Asn(0), RouterId(Ipv4Addr::UNSPECIFIED), seed))),
            feeds_fib: true,
            peers: BTreeMap::new(),
            names: BTreeMap::new(),
            addresses: BTreeMap::new(),
            conns: BTreeMap::new(),
            dynamic: BTreeSet::new(),
            timers: Timers::default(),
            stirred: BTreeSet::new(),
            perhaps_over: BTreeSet::new(),
            own: BTreeMap::new(),
            audiences: Audiences::default(),
            preserved: BTreeSet::new(),
            selection: Selection::NotStarted,
            fib_complete_due: false,
            unanswered: BTreeSet::new(),
            advance_due: false,
            outputs: VecDeque::new(),
            monitor: Monitor::default(),
            more_work: false,
            stopped: false,
            keepalive_delay: Durations::default(),
        }
    }

    /// For a speaker whose shell writes no kernel routes, like a reflector's: there is no [`Output::Fib`], and nothing is kept for one.
    #[must_use]
    pub fn without_fib(self) -> Speaker {
        Speaker { feeds_fib: false, ..self }
    }

    // ---- in

    /// Takes in one thing that happened. Drain [`Speaker::poll_output`] before the next.
    pub fn handle_input(&mut self, input: Input<'_>, now: Instant) {
        if self.stopped {
            return;
        }
        self.now = self.now.max(now);
        match input {
            Input::Configure(config) => self.configure(config),
            Input::KernelRoutesFound(families) => {
                if self.config.is_none() {
                    self.preserved = families;
                }
            }
            Input::Originate { prefix, routes } => self.originate(prefix.trunc(), routes),
            Input::Withdraw { prefix } => self.withdraw(prefix.trunc()),
            Input::Connected { conn, peer, local, remote } => self.connected(conn, &peer, local, remote),
            Input::DialFailed { peer, error, text } => {
                self.with_named(&peer, |peer, ctx| peer.dial_failed(error, text, ctx));
            }
            Input::Accepted { conn, local, remote } => self.accepted(conn, local, remote),
            Input::Bytes { conn, bytes } => self.with_conn(conn, |peer, ctx| peer.receive(conn, bytes, ctx)),
            Input::Unread { conn } => {
                // Told of many at once by a shell that is behind, and nothing follows from it: no step of the RIB.
                return self.with_conn(conn, |peer, ctx| peer.unread(conn, ctx.now));
            }
            Input::Closed { conn, error } => self.with_conn(conn, |peer, ctx| peer.closed(conn, error, ctx)),
            Input::NextHop { address, resolution } => {
                self.unanswered.remove(&address);
                self.rib.set_next_hop(address, resolution);
                // Answers come by the thousand, and each would look at the whole table: one look serves all.
                self.advance_due = true;
                return;
            }
            Input::LinkDown { peer, text } => self.with_named(&peer, |peer, ctx| peer.link_down(&text, ctx)),
            Input::BfdDown { peer, text } => self.with_named(&peer, |peer, ctx| peer.bfd_down(&text, ctx)),
            Input::Reset { peer, message } => self.with_named(&peer, |peer, ctx| peer.reset(&message, ctx)),
            Input::RequestRefresh { peer, family } => self.with_named(&peer, |peer, ctx| {
                if !peer.request_refresh(family, ctx) {
                    tracing::debug!(peer = %peer.name, %family, "no refresh: not agreed, or no session");
                }
            }),
            Input::TellAgain { peer, family } => {
                self.with_named(&peer, |peer, ctx| peer.tell_again(family, ctx));
            }
            Input::Timeout => self.timeout(),
            Input::Stop { restarting } => self.stop(restarting),
        }
        // A shell answers as soon as it is asked where next hops lead: then every prefix is decided once.
        if self.rib.has_events() { self.advance_due = true } else { self.advance() }
    }

    /// What follows from any input: selection may begin, and the RIB decides what is dirty, one bounded step at a time.
    fn advance(&mut self) {
        if let Selection::Deferred(until) = self.selection
            && (until <= self.now || !self.peers.values().any(|peer| peer.delays_selection(&self.preserved)))
        {
            tracing::debug!(timer = until <= self.now, "route selection begins");
            self.selection = Selection::Settling(until);
            self.rib.defer_selection(false);
        }
        if let Selection::Settling(until) = self.selection
            && (until <= self.now || !self.delays_sweep())
        {
            self.selection = Selection::Running;
            self.fib_complete_due = true;
        }
        self.more_work = !self.stopped && self.rib.drain();
        self.hand_changes();
    }

    /// Whether somebody may still tell what the kernel holds from before; who of a range will come nobody knows.
    fn delays_sweep(&self) -> bool {
        let ranges = self.config.iter().flat_map(|config| config.ranges.values());
        ranges.map(|range| &range.peer).any(PeerConfig::may_help)
            || self.peers.values().any(|peer| peer.delays_sweep(&self.preserved))
    }

    fn timeout(&mut self) {
        let now = self.now;
        for id in self.timers.due(now + EARLY) {
            if let Some(delay) = self.peers.get(&id).and_then(|peer| peer.keepalive_delay(now)) {
                self.keepalive_delay.observe(delay);
            }
            self.with_peer(id, |peer, ctx| peer.timeout(ctx));
        }
    }

    fn stop(&mut self, restarting: bool) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.with_peer(id, |peer, ctx| match restarting {
                true => peer.stop_for_restart(ctx),
                false => peer.stop(Notification::new(6, cease::ADMINISTRATIVE_SHUTDOWN), "", false, ctx),
            });
        }
        self.stopped = true;
    }

    fn originate(&mut self, prefix: IpNet, routes: Vec<OwnRoute>) {
        if self.own.get(&prefix) == Some(&routes) {
            return;
        }
        // New audiences before old ones are released, so that one which stays keeps its tag.
        let (origination, is_new) = self.audiences.acquire(&routes);
        if is_new {
            self.retag();
        }
        self.rib.originate(&prefix, origination);
        if let Some(before) = self.own.insert(prefix, routes) {
            self.audiences.release(&before);
        }
    }

    fn withdraw(&mut self, prefix: IpNet) {
        if let Some(before) = self.own.remove(&prefix) {
            self.audiences.release(&before);
            self.rib.withdraw_origination(&prefix);
        }
    }

    fn retag(&mut self) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.with_peer(id, |peer, ctx| peer.retag(ctx));
        }
    }

    fn connected(&mut self, conn: ConnId, name: &PeerName, local: SocketAddr, remote: SocketAddr) {
        let link = Link::new(conn, local, remote, true, self.now);
        let wanted = self
            .names
            .get(name)
            .copied()
            .and_then(|id| self.with_peer(id, |peer, ctx| peer.connected(link, ctx)));
        if wanted != Some(true) {
            self.outputs.push_back(Output::Close { conn, last_bytes: Vec::new() });
        }
    }

    fn accepted(&mut self, conn: ConnId, local: SocketAddr, remote: SocketAddr) {
        let link = Link::new(conn, local, remote, false, self.now);
        let taken = self.peer_at(remote).and_then(|id| {
            let taken = self.with_peer(id, |peer, ctx| peer.accepted(link, ctx));
            taken.unwrap_or(Err(Rejection::UnknownPeer))
        });
        let Err(why) = taken else { return };
        // RFC 4486 §4: a connection that nobody wants, and one that loses to an Established session.
        let subcode = match why {
            Rejection::UnknownPeer
            | Rejection::WrongLocalAddress
            | Rejection::AdminShutdown
            | Rejection::Withheld
            | Rejection::RangeFull
            | Rejection::IdleHold => cease::CONNECTION_REJECTED,
            Rejection::AlreadyConnected => cease::CONNECTION_COLLISION_RESOLUTION,
        };
        let mut last_bytes = Vec::new();
        encode(MessageType::Notification, &mut last_bytes, |out| Notification::new(6, subcode).encode(out));
        self.outputs.push_back(Output::Refuse { conn, last_bytes });
        self.outputs.push_back(Output::Event(SessionEvent::ConnectionRejected { remote, local, why }));
    }

    // ---- out

    /// The next thing to do, `None` when the speaker waits.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        loop {
            while let Some(event) = self.rib.taking().poll_event() {
                if let Some(output) = self.rib_event(event) {
                    return Some(output);
                }
            }
            if !std::mem::take(&mut self.advance_due) {
                break;
            }
            self.advance();
        }
        if let Some(change) = self.rib.taking().poll_fib() {
            return Some(Output::Fib(change));
        }
        // Routes that wait for their next hop's first answer belong to the table as well.
        if self.fib_complete_due && !self.stopped && !self.rib.is_dirty() && self.unanswered.is_empty() {
            self.fib_complete_due = false;
            self.outputs.extend(AfiSafi::ALL.map(|family| Output::FibComplete { family }));
        }
        // Whoever reads of a peer's end may still ask for it; now everything was read.
        if self.outputs.is_empty() && !self.perhaps_over.is_empty() {
            self.reap();
        }
        self.outputs.pop_front()
    }

    fn rib_event(&mut self, event: RibEvent) -> Option<Output> {
        match event {
            RibEvent::TrackNextHop { address, wanted } => {
                if wanted {
                    self.unanswered.insert(address);
                } else {
                    self.unanswered.remove(&address);
                }
                return Some(Output::TrackNextHop { address, wanted });
            }
            RibEvent::AttributesTooLong { peers, prefixes, example, length } => {
                let peers: Vec<&str> =
                    peers.iter().filter_map(|id| self.name(*id)).map(PeerName::as_str).collect();
                tracing::warn!(?peers, prefixes, %example, length, "not announced: the attributes do not fit a message");
            }
            RibEvent::PeerFellBehind { peer, prefixes } => {
                let peer = self.name(peer).map(PeerName::as_str);
                tracing::info!(
                    peer,
                    prefixes,
                    "peer reads slowly: it is told the present state when it reads again"
                );
            }
        }
        None
    }

    /// When [`Input::Timeout`] is due; in the past: at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        if self.more_work {
            return Some(self.now);
        }
        let selection = match self.selection {
            Selection::Deferred(until) | Selection::Settling(until) => Some(until),
            Selection::NotStarted | Selection::Running => None,
        };
        self.timers.first().into_iter().chain(selection).min()
    }

    /// The connections whose hold timer has run out. Before [`Input::Timeout`] ends their sessions, a shell hands over what it has
    /// read of them, and says [`Input::Unread`] of those that have more: the fault is ours then, not theirs.
    pub fn unheard(&self, now: Instant) -> impl Iterator<Item = ConnId> {
        let due = self.timers.due(now).into_iter().filter_map(|id| self.peers.get(&id));
        due.flat_map(move |peer| peer.unheard(now))
    }

    /// The connections that may have something to send and were not named since they had nothing, in order. Ask after every
    /// drain; whoever is named has something until [`Speaker::poll_transmit`] says `None`, however often that has to wait for its
    /// socket.
    pub fn take_ready(&mut self) -> Vec<ConnId> {
        let stirred = std::mem::take(&mut self.stirred);
        if self.rib.take_unoffered() {
            return self.connections().collect();
        }
        let ready = stirred.iter().filter_map(|id| self.peers.get(id)).flat_map(Peer::connections);
        let mut ready: Vec<ConnId> = ready.collect();
        ready.sort_unstable();
        ready
    }

    /// The next bytes for this connection, at most 64 KiB; `None`: nothing to send. Ask again after
    /// [`Speaker::transmitted`].
    pub fn poll_transmit(&mut self, conn: ConnId) -> Option<&[u8]> {
        let id = *self.conns.get(&conn)?;
        self.act(id, |peer, ctx| peer.fetch(conn, ctx))?;
        self.peers.get(&id)?.waiting(conn)
    }

    /// The socket took the first `written` bytes of the last [`Speaker::poll_transmit`].
    pub fn transmitted(&mut self, conn: ConnId, written: usize) {
        if let Some(peer) = self.conns.get(&conn).and_then(|id| self.peers.get_mut(id)) {
            peer.transmitted(conn, written);
            self.timers.set(peer.id, peer.next_timeout());
        }
    }

    /// The connections the speaker holds, in order.
    pub fn connections(&self) -> impl Iterator<Item = ConnId> {
        self.conns.keys().copied()
    }

    // ---- queries

    /// The configuration in force, once there is one.
    #[must_use]
    pub fn config(&self) -> Option<&SpeakerConfig> {
        self.config.as_ref()
    }

    /// All peers by name, each with its configuration, and the range that it is a neighbour of.
    pub fn peers(&self) -> impl Iterator<Item = (&PeerName, &PeerConfig, Option<&PeerName>)> {
        let peer = |id: &PeerId| self.peers.get(id);
        self.names
            .iter()
            .filter_map(move |(name, id)| peer(id).map(|peer| (name, &peer.config, peer.range())))
    }

    /// Of all peers by name: the range that it is a neighbour of, its state, and why it is in it.
    pub fn states(&self) -> impl Iterator<Item = (&PeerName, Option<&PeerName>, State, Reason)> {
        let peer = |id: &PeerId| self.peers.get(id);
        self.names.iter().filter_map(move |(name, id)| {
            let peer = peer(id)?;
            Some((name, peer.range(), peer.state(), peer.reason()))
        })
    }

    /// What a peer is to be.
    #[must_use]
    pub fn settings(&self, name: &PeerName) -> Option<&PeerConfig> {
        Some(&self.peers.get(self.names.get(name)?)?.config)
    }

    /// The range that a peer is a neighbour of.
    #[must_use]
    pub fn range(&self, name: &PeerName) -> Option<&PeerName> {
        self.peers.get(self.names.get(name)?)?.range()
    }

    /// One peer as it stands. Costs the same however many routes there are.
    #[must_use]
    pub fn peer(&self, name: &PeerName) -> Option<PeerStatus> {
        Some(self.peers.get(self.names.get(name)?)?.status(&self.rib))
    }

    /// By how much keepalives left later than they were due.
    #[must_use]
    pub fn keepalive_delay(&self) -> &Durations {
        &self.keepalive_delay
    }

    /// Whether every peer whose session is up has all that it is to be told, as far as its socket goes.
    #[must_use]
    pub fn has_told_all(&self) -> bool {
        !self.more_work && !self.rib.is_dirty() && self.peers.values().all(|peer| peer.has_all(&self.rib))
    }

    /// The routes.
    #[must_use]
    pub fn rib(&self) -> &Rib {
        &self.rib
    }

    /// The name behind a number of the RIB's.
    #[must_use]
    pub fn name(&self, id: PeerId) -> Option<&PeerName> {
        self.peers.get(&id).map(|peer| &peer.name)
    }

    /// The RIB's number of a peer.
    #[must_use]
    pub fn id(&self, name: &PeerName) -> Option<PeerId> {
        self.names.get(name).copied()
    }

    /// Checks the routes, and what is noted of the peers.
    ///
    /// # Errors
    /// What does not hold, as a sentence.
    #[doc(hidden)]
    pub fn check_invariants(&self) -> Result<(), String> {
        for (id, peer) in &self.peers {
            if self.timers.of(*id) != peer.next_timeout() {
                return Err(format!("{}: its timer is another one than noted", peer.name));
            }
        }
        let peers = self.peers.values().filter(|peer| peer.next_timeout().is_some()).count();
        if self.timers.len() != peers {
            return Err("a timer of nobody".to_owned());
        }
        self.rib.check_invariants()
    }

    /// Whether route selection waits for End-of-RIB after a restart, and until when at the most.
    #[must_use]
    pub fn selection_deferred_until(&self) -> Option<Instant> {
        match self.selection {
            Selection::Deferred(until) => Some(until),
            Selection::NotStarted | Selection::Settling(_) | Selection::Running => None,
        }
    }

    // ---- one peer, and what it may touch

    fn with_named(&mut self, name: &PeerName, act: impl FnOnce(&mut Peer, &mut Context<'_>)) {
        if let Some(id) = self.names.get(name).copied() {
            self.with_peer(id, act);
        }
    }

    fn with_conn(&mut self, conn: ConnId, act: impl FnOnce(&mut Peer, &mut Context<'_>)) {
        if let Some(id) = self.conns.get(&conn).copied() {
            self.with_peer(id, act);
        }
    }

    /// Whatever happens to a peer happens here: its connections are ready, and it may be over.
    fn with_peer<R>(&mut self, id: PeerId, act: impl FnOnce(&mut Peer, &mut Context<'_>) -> R) -> Option<R> {
        let result = self.act(id, act)?;
        self.stirred.insert(id);
        if self.dynamic.contains(&id) {
            self.perhaps_over.insert(id);
        }
        Some(result)
    }

    fn act<R>(&mut self, id: PeerId, act: impl FnOnce(&mut Peer, &mut Context<'_>) -> R) -> Option<R> {
        let Speaker {
            peers,
            timers,
            jitter,
            outputs,
            rib,
            monitor,
            conns,
            audiences,
            config,
            preserved,
            now,
            ..
        } = self;
        let (asn, router_id) = config.as_ref().map(|config| (config.asn, config.router_id))?;
        let peer = peers.get_mut(&id)?;
        let now = *now;
        let mut ctx =
            Context { now, jitter, outputs, rib, monitor, conns, audiences, asn, router_id, preserved };
        let result = act(peer, &mut ctx);
        timers.set(id, peer.next_timeout());
        Some(result)
    }
}
