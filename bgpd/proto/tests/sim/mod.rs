//! Speakers on a simulated network in virtual time: no sockets, no tasks, no clock. TCP as it looks from above: bytes in
//! order, cut anywhere, late; connections that break; links that are silent for a while. A seed decides everything.

pub(crate) mod cabling;
pub(crate) mod seeds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_proto::config::{PeerConfig, RemoteAsn, SpeakerConfig};
use bgp_proto::fsm::State;
use bgp_proto::policy::{ExportPolicy, ImportPolicy};
use bgp_proto::route::{Audience, NextHopResolution, OwnRoute};
use bgp_proto::{
    AfiSafi, Asn, ConnId, Input, Output, PeerName, RouterId, SessionEvent, Speaker, TransportErrorKind,
};
use ipnet::IpNet;

use cabling::Cabling;
pub(crate) use cabling::{address, address6};
pub(crate) use seeds::{Rng, for_seeds};

enum Happening {
    Syn { from: usize, to: usize, peer: PeerName, attempt: u64 },
    SynAck { pipe: usize, peer: PeerName, attempt: u64 },
    Refused { node: usize, peer: PeerName, attempt: u64, kind: TransportErrorKind },
    Bytes { pipe: usize, side: usize, bytes: Vec<u8> },
    Fin { pipe: usize, side: usize, error: Option<String> },
}

/// One TCP connection; side 0 dialled.
struct Pipe {
    nodes: [usize; 2],
    conns: [ConnId; 2],
    /// Nothing towards a side arrives before what was sent earlier.
    arrival: [Instant; 2],
    open: [bool; 2],
    /// Bytes that a side has not read, while it does not read.
    unread: [VecDeque<Vec<u8>>; 2],
    deaf: [bool; 2],
    dead: bool,
}

pub(crate) struct Node {
    pub(crate) speaker: Option<Speaker>,
    pub(crate) config: SpeakerConfig,
    pub(crate) own: BTreeMap<IpNet, Vec<OwnRoute>>,
    /// The kernel's table: it outlives the speaker.
    pub(crate) kernel: BTreeMap<IpNet, Vec<IpAddr>>,
    confirmed: BTreeSet<IpNet>,
    /// Every change of the kernel's table.
    pub(crate) kernel_log: Vec<(Instant, IpNet, Option<Vec<IpAddr>>)>,
    pub(crate) events: Vec<(Instant, SessionEvent)>,
    pub(crate) fib_complete: BTreeSet<AfiSafi>,
    dials: BTreeMap<PeerName, u64>,
    /// Connections that had something to send when they were asked last.
    unsent: BTreeSet<ConnId>,
    next_conn: u64,
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) rng: Rng,
    pub(crate) latency: Duration,
    /// Random additional latency up to this.
    pub(crate) jitter: Duration,
    /// Bytes arrive in pieces.
    pub(crate) cut: bool,
    /// The RIB's invariants are checked after every drain: a walk over the whole table.
    pub(crate) checks: bool,
    pub(crate) cabling: Cabling,
    /// Next hops that lead nowhere, by node.
    unreachable: BTreeSet<(usize, IpAddr)>,
    silent: BTreeSet<(usize, usize)>,
    held: Vec<Happening>,
    pipes: Vec<Pipe>,
    /// Which end of which pipe a connection of a node is.
    ends: BTreeMap<(usize, ConnId), (usize, usize)>,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    attempts: u64,
}

pub(crate) fn asn(node: usize) -> Asn {
    Asn(4_200_000_000 + u32::try_from(node).unwrap())
}

pub(crate) fn name(node: usize) -> PeerName {
    PeerName::from(format!("n{node}").as_str())
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Ascending with the node's number.
pub(crate) fn router_id(node: usize) -> RouterId {
    let (high, low) = (u8::try_from(node / 250).unwrap(), u8::try_from(node % 250 + 1).unwrap());
    RouterId(Ipv4Addr::new(10, 255, high, low))
}

/// A configuration of `node` towards these peers: eBGP, everything imported, learned routes told on if `transit`.
pub(crate) fn config(node: usize, peers: &[usize], transit: bool) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(asn(node), router_id(node));
    for peer in peers {
        let mut to = PeerConfig::new(
            address(*peer),
            RemoteAsn::Exactly(asn(*peer)),
            ImportPolicy::accept_all(),
            ExportPolicy::new(transit),
        );
        to.next_hop.ipv6 = Some(address6(node));
        config.peers.insert(name(*peer), to);
    }
    config
}

impl Net {
    pub(crate) fn new(seed: u64, configs: Vec<SpeakerConfig>) -> Net {
        let start = Instant::now();
        let nodes = configs
            .into_iter()
            .map(|config| Node {
                speaker: None,
                config,
                own: BTreeMap::new(),
                kernel: BTreeMap::new(),
                confirmed: BTreeSet::new(),
                kernel_log: Vec::new(),
                events: Vec::new(),
                fib_complete: BTreeSet::new(),
                dials: BTreeMap::new(),
                unsent: BTreeSet::new(),
                next_conn: 1,
            })
            .collect();
        Net {
            now: start,
            start,
            nodes,
            rng: Rng(seed),
            latency: Duration::from_millis(20),
            jitter: Duration::from_millis(5),
            cut: true,
            checks: true,
            cabling: Cabling::default(),
            unreachable: BTreeSet::new(),
            silent: BTreeSet::new(),
            held: Vec::new(),
            pipes: Vec::new(),
            ends: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            attempts: 0,
        }
    }

    // ---- what a test does

    /// A process starts on the node and finds what is in the kernel.
    pub(crate) fn start(&mut self, node: usize) {
        let seed = self.rng.next();
        let n = &mut self.nodes[node];
        let mut speaker = Speaker::new(seed, self.now);
        let found: BTreeSet<AfiSafi> = n.kernel.keys().map(AfiSafi::of).collect();
        n.confirmed.clear();
        n.fib_complete.clear();
        speaker.handle_input(Input::KernelRoutesFound(found), self.now);
        for (prefix, routes) in &n.own {
            speaker.handle_input(Input::Originate { prefix: *prefix, routes: routes.clone() }, self.now);
        }
        speaker.handle_input(Input::Configure(n.config.clone()), self.now);
        n.speaker = Some(speaker);
        self.drain(node);
    }

    pub(crate) fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
        }
    }

    /// The process dies: its sockets are closed by the kernel, its routes stay.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].speaker = None;
        self.nodes[node].dials.clear();
        for pipe in 0..self.pipes.len() {
            for side in 0..2 {
                if self.pipes[pipe].nodes[side] == node && self.pipes[pipe].open[side] {
                    self.close_end(pipe, side, Some("Connection reset by peer (ECONNRESET)".to_owned()));
                }
            }
        }
    }

    /// The process ends by itself.
    pub(crate) fn stop(&mut self, node: usize, restarting: bool) {
        self.input(node, Input::Stop { restarting });
        self.nodes[node].speaker = None;
        self.nodes[node].dials.clear();
    }

    pub(crate) fn input(&mut self, node: usize, input: Input<'_>) {
        let now = self.now;
        let Some(speaker) = &mut self.nodes[node].speaker else { return };
        speaker.handle_input(input, now);
        self.drain(node);
    }

    pub(crate) fn configure(&mut self, node: usize, change: impl FnOnce(&mut SpeakerConfig)) {
        change(&mut self.nodes[node].config);
        let config = self.nodes[node].config.clone();
        self.input(node, Input::Configure(config));
    }

    pub(crate) fn originate(&mut self, node: usize, prefix: &str) {
        self.originate_to(node, prefix, Audience::All);
    }

    pub(crate) fn originate_to(&mut self, node: usize, prefix: &str, audience: Audience) {
        let routes = vec![OwnRoute { audience, ..OwnRoute::default() }];
        self.nodes[node].own.insert(net(prefix), routes.clone());
        self.input(node, Input::Originate { prefix: net(prefix), routes });
    }

    pub(crate) fn withdraw(&mut self, node: usize, prefix: &str) {
        self.nodes[node].own.remove(&net(prefix));
        self.input(node, Input::Withdraw { prefix: net(prefix) });
    }

    /// Nothing passes between two nodes, and neither is told.
    pub(crate) fn silence(&mut self, a: usize, b: usize) {
        self.silent.insert((a.min(b), a.max(b)));
    }

    /// What was held back arrives late, as TCP would retransmit it: before anything that is still under way.
    pub(crate) fn heal(&mut self) {
        self.silent.clear();
        for happening in std::mem::take(&mut self.held) {
            self.schedule(self.now, happening);
        }
    }

    /// A next hop of a node leads nowhere, or somewhere again.
    pub(crate) fn set_reachable(&mut self, node: usize, address: IpAddr, reachable: bool) {
        if reachable {
            self.unreachable.remove(&(node, address));
        } else {
            self.unreachable.insert((node, address));
        }
        let resolution = self.resolution(node, address);
        self.input(node, Input::NextHop { address, resolution });
    }

    fn resolution(&self, node: usize, address: IpAddr) -> Option<NextHopResolution> {
        let leads = !self.unreachable.contains(&(node, address));
        leads.then_some(NextHopResolution { metric: 0, interface: 1 })
    }

    /// Breaks every connection between two nodes.
    pub(crate) fn reset_connections(&mut self, a: usize, b: usize) {
        for pipe in 0..self.pipes.len() {
            let p = &mut self.pipes[pipe];
            if p.dead || !(p.nodes == [a, b] || p.nodes == [b, a]) {
                continue;
            }
            p.dead = true;
            for side in 0..2 {
                if std::mem::take(&mut self.pipes[pipe].open[side]) {
                    let (node, conn) = (self.pipes[pipe].nodes[side], self.pipes[pipe].conns[side]);
                    let error = Some("Connection reset by peer (ECONNRESET)".to_owned());
                    self.input(node, Input::Closed { conn, error });
                }
            }
        }
    }

    /// The node stops or resumes reading what the other one sends.
    pub(crate) fn set_deaf(&mut self, node: usize, deaf: bool) {
        for pipe in 0..self.pipes.len() {
            for side in 0..2 {
                if self.pipes[pipe].nodes[side] != node {
                    continue;
                }
                self.pipes[pipe].deaf[side] = deaf;
                if deaf {
                    continue;
                }
                while let Some(bytes) = self.pipes[pipe].unread[side].pop_front() {
                    self.schedule(self.now, Happening::Bytes { pipe, side, bytes });
                }
            }
            for node in self.pipes[pipe].nodes {
                self.window_opens(node);
            }
        }
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let timers = self.nodes.iter().filter_map(|n| n.speaker.as_ref()?.poll_timeout());
            let next = timers.chain(self.queue.keys().next().map(|(at, _)| *at)).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= self.now) {
                let happening = entry.remove();
                self.happen(happening);
            }
            for node in 0..self.nodes.len() {
                let due = |s: &Speaker| s.poll_timeout().is_some_and(|at| at <= self.now);
                if self.nodes[node].speaker.as_ref().is_some_and(due) {
                    self.input(node, Input::Timeout);
                }
            }
        }
        self.now = end;
    }

    // ---- what a test looks at

    pub(crate) fn state(&self, node: usize, peer: usize) -> State {
        // A neighbour of a range is a peer only while something is left of it.
        let status = self.nodes[node].speaker.as_ref().unwrap().peer(&self.peer_name(node, peer));
        status.map_or(State::Idle, |status| status.state)
    }

    /// What a node calls another one: where a range stands for it, the range's name and the address.
    pub(crate) fn peer_name(&self, node: usize, peer: usize) -> PeerName {
        let name = name(peer);
        if !self.nodes[node].config.ranges.contains_key(&name) {
            return name;
        }
        let address = self.cabling.sees(node, peer).to_string().replace(':', "-");
        PeerName::from(format!("{name}.{address}").as_str())
    }

    pub(crate) fn kernel(&self, node: usize, prefix: &str) -> Vec<IpAddr> {
        self.nodes[node].kernel.get(&net(prefix)).cloned().unwrap_or_default()
    }

    /// Changes that took a route out of a node's kernel since then.
    pub(crate) fn withdrawals_since(&self, node: usize, since: Instant) -> usize {
        self.nodes[node].kernel_log.iter().filter(|(at, _, route)| *at >= since && route.is_none()).count()
    }

    /// What a node reported as errors, in order.
    pub(crate) fn errors(&self, node: usize) -> Vec<String> {
        let error = |event: &SessionEvent| match event {
            SessionEvent::Error { error, .. } => Some(error.to_string()),
            _ => None,
        };
        self.nodes[node].events.iter().filter_map(|(_, event)| error(event)).collect()
    }

    pub(crate) fn live_connections(&self) -> usize {
        self.pipes.iter().filter(|pipe| pipe.open.contains(&true)).count()
    }

    // ---- the network

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    fn delay(&mut self) -> Duration {
        let most = u64::try_from(self.jitter.as_micros()).unwrap();
        self.latency + Duration::from_micros(self.rng.below(most + 1))
    }

    fn is_silent(&self, a: usize, b: usize) -> bool {
        self.silent.contains(&(a.min(b), a.max(b)))
    }

    fn happen(&mut self, happening: Happening) {
        let (a, b) = match &happening {
            Happening::Syn { from, to, .. } => (*from, *to),
            Happening::Refused { .. } => (0, 0),
            Happening::SynAck { pipe, .. } | Happening::Bytes { pipe, .. } | Happening::Fin { pipe, .. } => {
                (self.pipes[*pipe].nodes[0], self.pipes[*pipe].nodes[1])
            }
        };
        if self.is_silent(a, b) {
            return self.held.push(happening);
        }
        match happening {
            Happening::Syn { from, to, peer, attempt } => self.syn(from, to, peer, attempt),
            Happening::SynAck { pipe, peer, attempt } => self.syn_ack(pipe, peer, attempt),
            Happening::Refused { node, peer, attempt, kind } => {
                if self.nodes[node].dials.get(&peer) == Some(&attempt) {
                    self.nodes[node].dials.remove(&peer);
                    self.input(node, Input::DialFailed { peer, error: kind, text: format!("{kind:?}") });
                }
            }
            Happening::Bytes { pipe, side, bytes } => {
                let p = &mut self.pipes[pipe];
                if p.dead || !p.open[side] {
                    return;
                }
                if p.deaf[side] {
                    return p.unread[side].push_back(bytes);
                }
                let (node, conn) = (p.nodes[side], p.conns[side]);
                self.input(node, Input::Bytes { conn, bytes: &bytes });
                self.window_opens(self.pipes[pipe].nodes[1 - side]);
            }
            Happening::Fin { pipe, side, error } => {
                if std::mem::take(&mut self.pipes[pipe].open[side]) {
                    let (node, conn) = (self.pipes[pipe].nodes[side], self.pipes[pipe].conns[side]);
                    self.input(node, Input::Closed { conn, error });
                }
            }
        }
    }

    fn syn(&mut self, from: usize, to: usize, peer: PeerName, attempt: u64) {
        let delay = self.delay();
        if self.nodes[to].speaker.is_none() {
            let kind = TransportErrorKind::Refused;
            return self.schedule(self.now + delay, Happening::Refused { node: from, peer, attempt, kind });
        }
        let conns = [self.conn(from), self.conn(to)];
        self.pipes.push(Pipe {
            nodes: [from, to],
            conns,
            arrival: [self.now + delay, self.now],
            open: [false, true],
            unread: [VecDeque::new(), VecDeque::new()],
            deaf: [false, false],
            dead: false,
        });
        let pipe = self.pipes.len() - 1;
        self.ends.insert((from, conns[0]), (pipe, 0));
        self.ends.insert((to, conns[1]), (pipe, 1));
        self.schedule(self.now + delay, Happening::SynAck { pipe, peer, attempt });
        let local = SocketAddr::new(self.cabling.own(to, from), 179);
        let remote = SocketAddr::new(self.cabling.sees(to, from), 40000);
        self.input(to, Input::Accepted { conn: conns[1], local, remote });
    }

    fn syn_ack(&mut self, pipe: usize, peer: PeerName, attempt: u64) {
        let [from, to] = self.pipes[pipe].nodes;
        if self.nodes[from].speaker.is_none() || self.nodes[from].dials.get(&peer) != Some(&attempt) {
            return self.close_end(pipe, 0, None);
        }
        self.nodes[from].dials.remove(&peer);
        self.pipes[pipe].open[0] = true;
        let conn = self.pipes[pipe].conns[0];
        let local = SocketAddr::new(self.cabling.own(from, to), 40000);
        let remote = SocketAddr::new(self.cabling.sees(from, to), 179);
        self.input(from, Input::Connected { conn, peer, local, remote });
    }

    /// One side closes; the other learns of it after everything sent before.
    fn close_end(&mut self, pipe: usize, side: usize, error: Option<String>) {
        self.pipes[pipe].open[side] = false;
        let delay = self.delay();
        let at = self.pipes[pipe].arrival[1 - side].max(self.now + delay);
        self.schedule(at, Happening::Fin { pipe, side: 1 - side, error });
    }

    fn conn(&mut self, node: usize) -> ConnId {
        self.nodes[node].next_conn += 1;
        ConnId(self.nodes[node].next_conn)
    }

    fn end_of(&self, node: usize, conn: ConnId) -> Option<(usize, usize)> {
        self.ends.get(&(node, conn)).copied()
    }

    fn write(&mut self, pipe: usize, side: usize, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = u64::try_from(rest.len()).unwrap();
            let piece = if self.cut { 1 + self.rng.below(most.min(1460)) } else { most };
            let (now, later) = rest.split_at(usize::try_from(piece).unwrap());
            rest = later;
            let delay = self.delay();
            let arrival = &mut self.pipes[pipe].arrival[1 - side];
            *arrival = (*arrival).max(self.now + delay);
            let at = *arrival;
            self.schedule(at, Happening::Bytes { pipe, side: 1 - side, bytes: now.to_vec() });
        }
    }

    /// Does what a node's speaker asks for after an input.
    fn drain(&mut self, node: usize) {
        self.carry_out(node);
        self.check(node);
    }

    /// Bytes were taken from a node, which may have more for the same connection. Mostly it has none, and is as it was.
    fn window_opens(&mut self, node: usize) {
        if self.carry_out(node) {
            self.check(node);
        }
    }

    /// Does what a node's speaker asks for, as a shell would, and says whether that was anything.
    fn carry_out(&mut self, node: usize) -> bool {
        let mut was_busy = false;
        loop {
            let Some(speaker) = &mut self.nodes[node].speaker else { return was_busy };
            if let Some(output) = speaker.poll_output() {
                self.obey(node, output);
                was_busy = true;
                continue;
            }
            let ready = speaker.take_ready();
            self.nodes[node].unsent.extend(ready);
            let conns = self.nodes[node].unsent.clone();
            if !conns.into_iter().any(|conn| self.transmit(node, conn)) {
                return was_busy;
            }
            was_busy = true;
        }
    }

    fn check(&mut self, node: usize) {
        let Node { speaker, unsent, .. } = &mut self.nodes[node];
        let Some(speaker) = speaker.as_mut().filter(|_| self.checks) else { return };
        let silent = speaker.connections().filter(|conn| !unsent.contains(conn));
        let forgotten = silent.collect::<Vec<_>>().into_iter().find(|c| speaker.poll_transmit(*c).is_some());
        assert_eq!(forgotten, None, "node {node} after {:?} has more to send", self.now - self.start);
        if let Err(what) = speaker.check_invariants() {
            panic!("node {node} after {:?}: {what}", self.now - self.start);
        }
    }

    fn transmit(&mut self, node: usize, conn: ConnId) -> bool {
        let Some((pipe, side)) = self.end_of(node, conn) else { return false };
        // A peer that does not read has a full window.
        if self.pipes[pipe].deaf[1 - side] && self.pipes[pipe].unread[1 - side].len() > 8 {
            return false;
        }
        let takes = self.rng.below(4096) + 1;
        let Some(bytes) = self.nodes[node].speaker.as_mut().and_then(|s| s.poll_transmit(conn)) else {
            self.nodes[node].unsent.remove(&conn);
            return false;
        };
        assert!(bytes.len() <= 70_000, "a transmit of {} bytes", bytes.len());
        let taken = bytes[..bytes.len().min(usize::try_from(takes).unwrap())].to_vec();
        self.nodes[node].speaker.as_mut().unwrap().transmitted(conn, taken.len());
        self.write(pipe, side, &taken);
        true
    }

    fn obey(&mut self, node: usize, output: Output) {
        match output {
            Output::Dial { peer, remote, .. } => self.dial(node, peer, remote),
            Output::CancelDial { peer } => {
                self.nodes[node].dials.remove(&peer);
            }
            Output::Close { conn, last_bytes } | Output::Refuse { conn, last_bytes } => {
                if let Some((pipe, side)) = self.end_of(node, conn) {
                    self.write(pipe, side, &last_bytes);
                    self.close_end(pipe, side, None);
                }
            }
            Output::Fib(change) => {
                let hops = change.route.map(|route| route.next_hops);
                let n = &mut self.nodes[node];
                match &hops {
                    Some(hops) => {
                        n.kernel.insert(change.prefix, hops.clone());
                        n.confirmed.insert(change.prefix);
                    }
                    None => {
                        n.kernel.remove(&change.prefix);
                        n.confirmed.remove(&change.prefix);
                    }
                }
                n.kernel_log.push((self.now, change.prefix, hops));
            }
            Output::FibComplete { family } => self.sweep(node, family),
            Output::TrackNextHop { address, wanted } => {
                if wanted {
                    let resolution = self.resolution(node, address);
                    let now = self.now;
                    if let Some(speaker) = &mut self.nodes[node].speaker {
                        speaker.handle_input(Input::NextHop { address, resolution }, now);
                    }
                }
            }
            Output::Event(event) => self.nodes[node].events.push((self.now, event)),
        }
    }

    fn dial(&mut self, node: usize, peer: PeerName, remote: SocketAddr) {
        self.attempts += 1;
        let attempt = self.attempts;
        self.nodes[node].dials.insert(peer.clone(), attempt);
        let to = (0..self.nodes.len()).find(|other| self.cabling.sees(node, *other) == remote.ip());
        let delay = self.delay();
        match to {
            Some(to) if !self.is_silent(node, to) => {
                self.schedule(self.now + delay, Happening::Syn { from: node, to, peer, attempt });
            }
            Some(_) | None => {
                let kind = TransportErrorKind::TimedOut;
                let at = self.now + Duration::from_secs(3);
                self.schedule(at, Happening::Refused { node, peer, attempt, kind });
            }
        }
    }

    /// What the speaker did not mention since its start goes.
    fn sweep(&mut self, node: usize, family: AfiSafi) {
        let now = self.now;
        let n = &mut self.nodes[node];
        assert!(n.fib_complete.insert(family), "FibComplete twice for {family}");
        let strangers: Vec<IpNet> = n
            .kernel
            .keys()
            .filter(|p| AfiSafi::of(p) == family && !n.confirmed.contains(p))
            .copied()
            .collect();
        for prefix in strangers {
            n.kernel.remove(&prefix);
            n.kernel_log.push((now, prefix, None));
        }
    }
}
