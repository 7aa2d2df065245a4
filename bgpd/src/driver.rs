//! THE loop: wait for one thing, hand it to the speaker, do everything that the speaker asks for, wait again.
//!
//! ```text
//!   store ──► Objects ──► desire() ──┐                     ┌─► Net     dial, close, write
//!         ──► Services ──► index ────┤                     │
//!   sockets ─────────► NetEvent ─────┤    ┌─────────┐      ├─► Fib     kernel routes, on a thread
//!   kernel ──► NextHops ─────────────┼──► │ Speaker │ ─────┼─► NextHops track
//!   BFD's thread ──► Bfd ────────────┤    │         │      │
//!   timer ───────────────────────────┤    └─────────┘      ├─► Status  objects and Events, throttled
//!   control socket, signals ─────────┘                     └─► log
//! ```
//! One owner: nothing else touches the speaker, and no task holds state of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use bgp_proto::fsm::State;
use bgp_proto::{ConnId, Input, Output, PeerName, SessionEvent, Speaker};
use felix_kernel::link::Link;
use felix_kernel::monitor::{KernelEvent, Monitor};
use manx_daemon::control::Question;
use manx_daemon::inputs::keeper::Keeper;
use manx_daemon::traffic::Traffic;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::bfd::{self, Bfd, News};
use crate::bmp::Stations;
use crate::capture::Captures;
use crate::desire::{self, Desire, Links, Running};
use crate::fib::Fib;
use crate::inputs::Sweep;
use crate::metrics::LoopFigures;
use crate::net::{self, Distance, Net, NetEvent, Target};
use crate::nexthop::{self, Answer, NextHops};
use crate::objects::{Change, Objects};
use crate::originate::Originated;
use crate::services::{ServiceChange, Services};
use crate::status::{Sees, Status};
use crate::unnumbered::{Report, Unnumbered};
use crate::{control, events};

/// Changes of objects that come together are taken together.
const SETTLE: Duration = Duration::from_millis(20);

/// Sockets are looked at this often. While something is always to be done, be it work that was put off, the runtime would not do it
/// for a hundred turns, and peers that speak would seem silent.
const LOOK: Duration = Duration::from_millis(10);

/// How long a session with a reflector has stood when those that it replaces are ended: by then the other clients have theirs,
/// and each heard of the others.
const CARRIES: Duration = Duration::from_secs(10);

/// Everything that reaches the loop, beside its timer.
pub(crate) struct Sources {
    pub(crate) changes: mpsc::Receiver<Change>,
    pub(crate) net: mpsc::Receiver<NetEvent>,
    pub(crate) questions: mpsc::Receiver<Question>,
}

pub(crate) struct Driver {
    pub(crate) node: String,
    pub(crate) speaker: Speaker,
    pub(crate) net: Net,
    pub(crate) bfd: Bfd,
    pub(crate) stations: Stations,
    /// Sessions whose messages somebody looks at.
    pub(crate) captures: Captures,
    pub(crate) fib: Fib,
    pub(crate) monitor: Monitor,
    pub(crate) next_hops: NextHops,
    /// Who is on the interfaces that BGPPeers name.
    pub(crate) unnumbered: Unnumbered,
    pub(crate) objects: Objects,
    pub(crate) services: Services,
    /// What we work from when the store is silent.
    pub(crate) inputs: Keeper,
    pub(crate) sweep: Sweep,
    pub(crate) status: Status,
    /// What the speaker was last told.
    pub(crate) desire: Desire,
    pub(crate) originated: Originated,
    /// Where the sockets do not listen, and why.
    pub(crate) deaf: BTreeMap<std::net::SocketAddr, String>,
    pub(crate) said: events::Said,
    /// When what changed is looked at; none: nothing changed.
    pub(crate) look_at: Option<Instant>,
    /// More changed than Services and their endpoints.
    pub(crate) objects_changed: bool,
    /// When another topology than before was asked for.
    pub(crate) elected: Instant,
    pub(crate) started: Instant,
    /// What is asked of the datastore.
    pub(crate) traffic: Traffic,
    pub(crate) figures: LoopFigures,
    /// Next hops were answered: the speaker decides when it is asked next.
    pub(crate) answered: bool,
    /// Some session came up or ended: BFD watches neighbours of ranges for as long as theirs stand.
    pub(crate) sessions_changed: bool,
    /// A drain is under way since then.
    pub(crate) drains: Option<Instant>,
    /// Connections that may have something to send, and whose sockets may take it.
    pub(crate) unsent: BTreeSet<ConnId>,
    /// Closing connections, waited for at the end.
    pub(crate) closing: Vec<JoinHandle<()>>,
}

impl Driver {
    /// Runs until a signal asks for the end.
    pub(crate) async fn run(
        mut self,
        mut sources: Sources,
        mut stop: tokio::sync::oneshot::Receiver<()>,
    ) -> anyhow::Result<()> {
        let mut looked = Instant::now();
        // Kept over turns: for a new one that is the next, the runtime wakes itself and asks the kernel once more.
        let mut sleep = pin!(tokio::time::sleep_until(looked.into()));
        loop {
            let is_behind = self.drain();
            if looked.elapsed() >= LOOK {
                tokio::task::yield_now().await;
                looked = Instant::now();
            }
            if std::mem::take(&mut self.sessions_changed) && bfd::watches_ranges(&self.desire) {
                self.bfd.want(&self.desire, &self.speaker, self.monitor.facts());
            }
            self.stations.turn(&mut self.speaker, Instant::now());
            let timer = self.deadline();
            if let Some(at) = timer.filter(|at| sleep.deadline() != (*at).into()) {
                sleep.as_mut().reset(at.into());
            }
            tokio::select! {
                biased;
                _ = &mut stop => return self.stop().await,
                Some(change) = sources.changes.recv() => self.change(change),
                Some(change) = self.services.next() => self.service_change(change),
                events = self.monitor.changed() => self.kernel(&events?),
                // Before bytes: a path that failed has none to offer.
                news = self.bfd.news() => self.bfd_news(news),
                Some(report) = self.unnumbered.report() => self.heard(report),
                // Few and cheap, and before bytes too: who asks in a storm asks because of it.
                Some(question) = sources.questions.recv() => control::answer(&mut self, question),
                () = self.fib.refusals() => self.status.touch(),
                event = self.stations.next() => {
                    self.stations.event(event, &mut self.speaker, Instant::now());
                }
                Some(event) = sources.net.recv() => self.net_event(event),
                () = &mut sleep, if timer.is_some() => {}
                // Whatever else is to be done is done first.
                () = tokio::task::yield_now(), if is_behind || self.stations.is_busy() => {}
            }
            let now = Instant::now();
            if self.unnumbered.next_tick().is_some_and(|at| at <= now)
                && self.unnumbered.tick(self.monitor.facts(), now)
            {
                self.look(now);
            }
            if let Some(late) = timer.and_then(|at| now.checked_duration_since(at)) {
                self.figures.lag.observe(late);
            }
            if self.look_at.is_some_and(|at| at <= now) {
                self.look_at = None;
                if std::mem::take(&mut self.objects_changed) {
                    self.reconsider(now);
                } else {
                    self.reconsider_services(now);
                }
            }
            if self.originated.next_due().is_some_and(|at| at <= now) {
                self.reconsider_services(now);
            }
            self.tick_inputs(now);
            if self.speaker.poll_timeout().is_some_and(|at| at <= now) {
                let now = self.hear(&mut sources.net, now);
                self.input(Input::Timeout, now);
                self.sessions_changed |= self.bfd.follows_timers();
            }
            self.watch_drain(now);
            self.captures.tick(now);
            let sees = Sees {
                speaker: &self.speaker,
                desire: &self.desire,
                bfd: &self.bfd,
                fib: &self.fib,
                facts: self.monitor.facts(),
            };
            self.status.tick(sees, now);
        }
    }

    /// Nobody is silent whose bytes wait for us: who has some in its socket gets more time, and what was read is handed over.
    /// Returns until when that was asked of everybody.
    fn hear(&mut self, net: &mut mpsc::Receiver<NetEvent>, mut now: Instant) -> Instant {
        let mut handed_over = 0;
        loop {
            // First, since it costs nothing: a read is a step of the RIB, and our own keepalives wait behind each.
            self.put_off(now);
            if handed_over == net::QUEUE || self.speaker.unheard(now).next().is_none() {
                return now;
            }
            self.drain();
            let Ok(event) = net.try_recv() else { return now };
            self.net_event(event);
            handed_over += 1;
            // That took its time, in which other timers ran out.
            now = Instant::now();
        }
    }

    /// Puts off the hold timers that have run out of whoever has bytes in its socket.
    fn put_off(&mut self, now: Instant) {
        let unread: Vec<ConnId> =
            self.speaker.unheard(now).filter(|conn| self.net.has_unread(*conn)).collect();
        for conn in unread {
            tracing::debug!(?conn, "a hold timer is put off: bytes wait to be read");
            self.input(Input::Unread { conn }, now);
        }
    }

    /// Hands one thing to the speaker.
    pub(crate) fn input(&mut self, input: Input<'_>, now: Instant) {
        self.timed(|speaker| speaker.handle_input(input, now));
    }

    fn next_output(&mut self) -> Option<Output> {
        match std::mem::take(&mut self.answered) {
            true => self.timed(Speaker::poll_output),
            false => self.speaker.poll_output(),
        }
    }

    /// Notes how long the speaker took, where it decided prefixes.
    fn timed<R>(&mut self, act: impl FnOnce(&mut Speaker) -> R) -> R {
        let (before, began) = (self.speaker.rib().decided(), Instant::now());
        let result = act(&mut self.speaker);
        if self.speaker.rib().decided() != before {
            self.figures.decision.observe(began.elapsed());
        }
        result
    }

    /// A drain is over when every peer was told of it.
    fn watch_drain(&mut self, now: Instant) {
        if let Some(began) = self.drains
            && self.speaker.has_told_all()
        {
            self.drains = None;
            self.status.drained(&self.speaker, now.duration_since(began));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let inputs = [self.inputs.next_tick(), self.sweep.next_tick(), self.originated.next_due()];
        let others = [
            self.speaker.poll_timeout(),
            self.look_at,
            self.status.next_tick(),
            self.stations.next_tick(),
            self.captures.next_tick(),
            self.unnumbered.next_tick(),
        ];
        others.into_iter().chain(inputs).flatten().min()
    }

    fn change(&mut self, change: Change) {
        if self.objects.take(change) {
            self.inputs.touch();
            self.look(Instant::now());
        }
    }

    /// A change of one Service costs what follows from it. What was not in force before its lists were heard is
    /// looked at whole.
    fn service_change(&mut self, change: ServiceChange) {
        let was_in_sync = self.services.in_sync();
        self.services.take(change);
        self.inputs.touch();
        self.objects_changed |= !was_in_sync && self.services.in_sync();
        self.look_at.get_or_insert_with(|| Instant::now() + SETTLE);
    }

    pub(crate) fn look(&mut self, now: Instant) {
        self.objects_changed = true;
        self.look_at.get_or_insert(now + SETTLE);
    }

    /// Works out anew what should be and tells the speaker the differences.
    fn reconsider(&mut self, now: Instant) {
        if !self.objects.known() {
            return;
        }
        let facts = self.monitor.facts();
        let links = Links {
            towards: &|remote| nexthop::link_addresses(facts, remote),
            named: &|name| nexthop::named(facts, name),
            is_up: &|name| facts.link_by_name(name).is_some_and(Link::is_usable),
            on: &|name| self.unnumbered.place(facts, name),
        };
        let speaker = &self.speaker;
        let carries = |name: &PeerName| {
            let since =
                speaker.peer(name).filter(|peer| peer.state == State::Established).map(|peer| peer.since);
            since.is_some_and(|since| since.max(self.elected) + CARRIES <= now)
        };
        let running = Running {
            mesh: &self.desire.mesh,
            topology: &self.desire.topology,
            settled_for: now.saturating_duration_since(self.elected),
            reflectors: &self.desire.reflectors,
            carries: &carries,
        };
        let desire = desire::desire(&self.objects, &self.node, &links, &running).or_last_good(&self.desire);
        if desire.is_changing {
            self.objects_changed = true;
            self.look_at.get_or_insert(now + CARRIES / 2);
        }
        self.services.want(&desire.export.services, &desire.export.gates, desire.is_excluded);
        let remembered = self.inputs.is_recalled();
        if self.speaker.config().is_none() && !self.services.in_sync() && !remembered {
            // An End-of-RIB without the Services would take from the peers what an earlier life told them.
            return;
        }
        events::log_refusals(&self.desire, &desire);
        self.net.set_keys(&desire.keys);
        for (address, outcome) in self.net.listen(desire.port) {
            self.listening(address, outcome.err().map(|error| error.to_string()));
        }
        let before = std::mem::replace(&mut self.desire, desire);
        if before != self.desire {
            self.status.touch();
        }
        if before.topology != self.desire.topology {
            self.elected = now;
        }
        if self.desire.is_drained && !before.is_drained && before.speaker.is_some() {
            self.drains = Some(now);
            self.status.drain_started(&self.speaker);
        }
        if !self.desire.is_drained {
            self.drains = None;
        }
        // Own routes first, so that the speaker's first UPDATE is whole.
        self.services.update();
        let inputs = self.originated.all(&self.desire.export, self.services.index(), now);
        self.tell(inputs, now);
        self.fib.blackholes(&self.desire.blackholes);
        self.next_hops.set_proven(self.desire.mesh_addresses());
        self.resolve(now);
        self.unnumbered.want(&self.desire.interfaces, self.monitor.facts());
        self.bfd.want(&self.desire, &self.speaker, self.monitor.facts());
        let is_other = before.speaker != self.desire.speaker;
        if let Some(config) = self.desire.speaker.as_ref().filter(|_| is_other) {
            self.net.set_distances(config);
            self.input(Input::Configure(config.clone()), now);
        }
        self.stations.want(&self.desire.stations, &mut self.speaker, now);
        if self.objects.in_sync() {
            self.sweep.heard(is_other, now);
        }
    }

    /// Only Services changed: only their prefixes are looked at.
    fn reconsider_services(&mut self, now: Instant) {
        let changed = self.services.update();
        if self.speaker.config().is_some() {
            let inputs = self.originated.some(&changed, &self.desire.export, self.services.index(), now);
            self.tell(inputs, now);
        }
    }

    fn tell(&mut self, inputs: Vec<Input<'_>>, now: Instant) {
        for input in inputs {
            self.input(input, now);
        }
    }

    /// Tells where next hops lead now, where they led elsewhere before.
    fn resolve(&mut self, now: Instant) {
        for (address, answer) in self.next_hops.changed(self.monitor.facts()) {
            self.leads(address, answer, now);
        }
    }

    fn leads(&mut self, address: IpAddr, answer: Answer, now: Instant) {
        // One that leads nowhere keeps its way: its routes are withdrawn next, and stay as they are until then.
        if let Some(way) = answer.way {
            self.fib.leads(address, way);
        }
        self.answered = true;
        self.input(Input::NextHop { address, resolution: answer.resolution }, now);
    }

    fn kernel(&mut self, events: &[KernelEvent]) {
        let now = Instant::now();
        if events.iter().any(may_change_our_routes) {
            self.fib.look();
        }
        self.resolve(now);
        if events.iter().any(concerns_links) {
            for (peer, text) in self.peers_behind_dead_links() {
                self.input(Input::LinkDown { peer, text }, now);
            }
        }
        // Our own next hops may be addresses that came or went.
        if events
            .iter()
            .any(|event| !matches!(event, KernelEvent::Neighbour(_) | KernelEvent::NeighbourGone(_)))
        {
            self.look(now);
        }
    }

    /// A session over an interface that is down ends at once, not when the hold timer notices.
    fn peers_behind_dead_links(&self) -> Vec<(PeerName, String)> {
        let Some(config) = &self.desire.speaker else { return Vec::new() };
        let direct = config.peers.iter().filter(|(_, peer)| peer.max_hops == 1);
        direct
            .filter_map(|(name, peer)| {
                let local = self.speaker.peer(name)?.local?.ip();
                let text = nexthop::unusable(self.monitor.facts(), local, peer.remote)?;
                Some((name.clone(), text))
            })
            .collect()
    }

    /// A path that failed takes its session along, whatever graceful restart was agreed (api.md §3).
    fn bfd_news(&mut self, news: Vec<(PeerName, News)>) {
        let now = Instant::now();
        for (peer, News { status, failure }) in news {
            events::bfd(&peer, &status);
            self.status.bfd(&peer, &status, failure.as_ref(), &self.desire, now);
            if let Some(failure) = failure {
                let text = bfd::why(&failure);
                self.input(Input::BfdDown { peer, text }, now);
            }
        }
        self.status.touch();
    }

    /// Another neighbour is there, or can be told why none is.
    fn heard(&mut self, report: Report) {
        let now = Instant::now();
        if self.unnumbered.take(report, now) {
            self.reconsider(now);
        }
    }

    /// Who dials over an interface is its neighbour, if there is none: the session waits for it before the connection is looked at.
    fn dialled_by(&mut self, stream: &TcpStream, now: Instant) {
        let remote = stream.peer_addr().map(|remote| net::canonical(remote).ip());
        if remote.is_ok_and(|remote| self.unnumbered.dialled_by(remote, now)) {
            self.reconsider(now);
        }
    }

    fn net_event(&mut self, event: NetEvent) {
        let now = Instant::now();
        match event {
            NetEvent::Dialled { peer, attempt, outcome } => {
                if !self.net.finish_dial(&peer, attempt) {
                    return;
                }
                let input = match outcome {
                    Ok(stream) => match self.net.adopt(stream) {
                        Ok((conn, local, remote)) => Input::Connected { conn, peer, local, remote },
                        Err(error) => Input::DialFailed {
                            peer,
                            error: bgp_proto::input::TransportErrorKind::Other,
                            text: error.to_string(),
                        },
                    },
                    Err(error) => Input::DialFailed { peer, error: error.kind, text: error.text },
                };
                self.input(input, now);
            }
            NetEvent::Accepted { stream, at } => {
                self.dialled_by(&stream, now);
                match self.net.adopt_accepted(stream, at) {
                    Ok((conn, local, remote)) => {
                        self.input(Input::Accepted { conn, local, remote }, now);
                    }
                    Err(error) => tracing::debug!(%error, "a connection that came in is not looked at"),
                }
            }
            NetEvent::Bytes { conn, bytes } => {
                // Before the speaker, which may forget the connection over it.
                self.captures.received(conn, &bytes, &self.speaker, &self.net);
                self.input(Input::Bytes { conn, bytes: &bytes }, now);
            }
            NetEvent::Closed { conn, error } => {
                if self.net.forget(conn) {
                    self.input(Input::Closed { conn, error }, now);
                }
            }
            NetEvent::Writable(conn) => {
                self.net.room(conn);
                self.unsent.insert(conn);
            }
            NetEvent::Deaf { address, error } => {
                self.net.deaf(address);
                self.listening(address, Some(error));
            }
            NetEvent::ListenAgain(address) => {
                if let Some(outcome) = self.net.listen_again(address) {
                    self.listening(address, outcome.err().map(|error| error.to_string()));
                }
            }
        }
    }

    fn listening(&mut self, address: std::net::SocketAddr, error: Option<String>) {
        match error {
            None => {
                if self.deaf.remove(&address).is_some() {
                    tracing::info!(%address, "listening");
                }
            }
            // Said once, and tried again.
            Some(error) if self.deaf.get(&address) == Some(&error) => {}
            Some(error) => {
                tracing::error!(
                    %error,
                    r#where = %address,
                    expected = "the port free, or another in FabricConfiguration spec.node.bgpPort (0 = only dial out)",
                    r#do = format!("ss -ltnp 'sport = :{}'; meanwhile bgpd dials out", address.port()),
                    "cannot listen"
                );
                self.deaf.insert(address, error);
            }
        }
    }

    /// Does what the speaker asks for, until it asks for nothing and every socket has what it takes; `true` where there is more to
    /// send than goes between two looks at the sockets, as to a peer that comes late to a full table and reads fast.
    fn drain(&mut self) -> bool {
        let began = Instant::now();
        let mut is_behind = false;
        loop {
            while let Some(output) = self.next_output() {
                self.obey(output);
            }
            if is_behind {
                break;
            }
            self.unsent.extend(self.speaker.take_ready());
            let mut wrote = false;
            for conn in self.unsent.clone() {
                wrote |= self.transmit(conn);
            }
            if !wrote {
                break;
            }
            is_behind = began.elapsed() >= LOOK;
        }
        self.closing.retain(|task| !task.is_finished());
        is_behind
    }

    /// One turn for one connection, so that none starves another.
    fn transmit(&mut self, conn: ConnId) -> bool {
        let Some(bytes) = self.speaker.poll_transmit(conn) else {
            self.unsent.remove(&conn);
            return false;
        };
        match self.net.write(conn, bytes) {
            Some(written) if written > 0 => {
                let seen =
                    self.captures.is_running().then(|| bytes.get(..written).unwrap_or_default().to_vec());
                self.speaker.transmitted(conn, written);
                self.captures.sent(conn, &seen.unwrap_or_default(), &self.speaker, &self.net);
                true
            }
            Some(_) => false,
            // It is asked again when there is room.
            None => {
                self.unsent.remove(&conn);
                false
            }
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Dial { peer, remote, local, max_hops, ttl_security } => {
                let distance = Distance { max_hops, is_proven: ttl_security };
                self.net.dial(peer, Target { remote, local, distance });
            }
            Output::CancelDial { peer } => self.net.cancel_dial(&peer),
            Output::Close { conn, last_bytes } => {
                self.captures.sent(conn, &last_bytes, &self.speaker, &self.net);
                self.closing.extend(self.net.close(conn, last_bytes));
            }
            Output::Refuse { conn, last_bytes } => self.closing.extend(self.net.refuse(conn, last_bytes)),
            Output::Fib(change) => self.fib.learned(change),
            Output::FibComplete { family } => self.sweep.complete(family),
            Output::TrackNextHop { address, wanted } => self.track(address, wanted),
            Output::Event(event) => self.event(event),
        }
    }

    fn track(&mut self, address: IpAddr, wanted: bool) {
        if !wanted {
            self.next_hops.forget(address);
            self.fib.forget(address);
            return;
        }
        let answer = self.next_hops.track(self.monitor.facts(), address);
        self.leads(address, answer, Instant::now());
    }

    fn event(&mut self, event: SessionEvent) {
        if let SessionEvent::StateChanged { peer, from, to, .. } = &event {
            self.unnumbered.session(peer, *to == State::Established, Instant::now());
            self.sessions_changed |= *from == State::Established || *to == State::Established;
        }
        events::log(&event, &self.speaker, &mut self.said);
        self.status.event(&event, &self.speaker, &self.desire, Instant::now());
    }

    /// Says goodbye: with graceful restart the peers keep our routes, and the kernel keeps ours.
    async fn stop(mut self) -> anyhow::Result<()> {
        tracing::info!("stopping; routes stay in the kernel");
        self.input(Input::Stop { restarting: true }, Instant::now());
        while self.drain() {}
        let gather = self.objects.gather(self.services.prefixes(), &self.desire.secrets);
        self.inputs.finish(gather).await;
        for task in std::mem::take(&mut self.closing) {
            task.await?;
        }
        self.stations.stop(&mut self.speaker).await;
        // Last: a peer that takes AdminDown for a failure has by then seen the session end, and keeps the routes.
        self.bfd.stop().await;
        Ok(())
    }
}

/// Links take routes with them, and others may remove ours.
fn may_change_our_routes(event: &KernelEvent) -> bool {
    match event {
        KernelEvent::Link(_)
        | KernelEvent::LinkGone(_)
        | KernelEvent::Address(_)
        | KernelEvent::AddressGone(_)
        | KernelEvent::Routes
        | KernelEvent::OwnRouteGone(_)
        | KernelEvent::OwnObjectGone
        | KernelEvent::Resync => true,
        KernelEvent::Neighbour(_) | KernelEvent::NeighbourGone(_) => false,
    }
}

/// A session may have lost its link or its address.
fn concerns_links(event: &KernelEvent) -> bool {
    match event {
        KernelEvent::Link(_)
        | KernelEvent::LinkGone(_)
        | KernelEvent::Address(_)
        | KernelEvent::AddressGone(_)
        | KernelEvent::Resync => true,
        KernelEvent::Routes
        | KernelEvent::OwnRouteGone(_)
        | KernelEvent::OwnObjectGone
        | KernelEvent::Neighbour(_)
        | KernelEvent::NeighbourGone(_) => false,
    }
}
