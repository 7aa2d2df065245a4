//! A peer played by hand: it says what a test says, and hears what the speaker sends.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_proto::config::{PeerConfig, RangeConfig, RemoteAsn, SpeakerConfig};
use bgp_proto::fsm::State;
use bgp_proto::output::{Reason, Rejection};
use bgp_proto::policy::{ExportPolicy, ImportPolicy};
use bgp_proto::route::{NextHopResolution, OwnRoute};
use bgp_proto::status::PeerStatus;
use bgp_proto::wire::message::encode;
use bgp_proto::wire::{
    Capability, Framer, GracefulRestartCapability, MessageType, Notification, Open, RestartFamily,
    RouteRefresh,
};
use bgp_proto::{
    AfiSafi, Asn, ConnId, Input, Output, PeerName, RouterId, SessionEvent, Speaker, TransportErrorKind,
};
use ipnet::IpNet;

pub(crate) struct Hand {
    pub(crate) speaker: Speaker,
    pub(crate) now: Instant,
    pub(crate) events: Vec<SessionEvent>,
    pub(crate) dials: usize,
    pub(crate) fib_complete: usize,
    pub(crate) kernel: BTreeSet<IpNet>,
    /// Whether what the speaker offers is taken.
    pub(crate) reads: bool,
    /// Whether the kernel says at once how a next hop is reached.
    pub(crate) answers_next_hops: bool,
    heard: BTreeMap<ConnId, Vec<u8>>,
    /// Connections that had something to send when they were asked last.
    unsent: BTreeSet<ConnId>,
    closed: BTreeSet<ConnId>,
    config: SpeakerConfig,
}

pub(crate) fn peer() -> PeerName {
    PeerName::from("tor")
}

impl Hand {
    /// A speaker of AS 4200000001 at 10.0.0.1 with one peer, AS 65002 at 10.0.0.2.
    pub(crate) fn new(change: impl FnOnce(&mut PeerConfig)) -> Hand {
        Hand::with_kernel_routes(&[], change)
    }

    pub(crate) fn with_kernel_routes(families: &[AfiSafi], change: impl FnOnce(&mut PeerConfig)) -> Hand {
        let now = Instant::now();
        let mut config = SpeakerConfig::new(Asn(4_200_000_001), RouterId(Ipv4Addr::new(10, 0, 0, 1)));
        let remote = RemoteAsn::Exactly(Asn(65002));
        let mut to = PeerConfig::new(
            "10.0.0.2".parse().unwrap(),
            remote,
            ImportPolicy::accept_all(),
            ExportPolicy::default(),
        );
        to.next_hop.ipv6 = Some("fd00::1".parse().unwrap());
        change(&mut to);
        config.peers.insert(peer(), to);
        let mut hand = Hand {
            speaker: Speaker::new(1, now),
            now,
            events: Vec::new(),
            dials: 0,
            fib_complete: 0,
            kernel: BTreeSet::new(),
            reads: true,
            answers_next_hops: true,
            heard: BTreeMap::new(),
            unsent: BTreeSet::new(),
            closed: BTreeSet::new(),
            config: config.clone(),
        };
        hand.input(Input::KernelRoutesFound(families.iter().copied().collect()));
        hand.input(Input::Configure(config));
        hand
    }

    /// A speaker without peers, with ranges, that finds routes of an earlier life.
    pub(crate) fn with_ranges(families: &[AfiSafi], ranges: [(&str, RangeConfig); 1]) -> Hand {
        let mut hand = Hand::new(|_| {});
        hand.speaker = Speaker::new(1, hand.now);
        hand.fib_complete = 0;
        hand.input(Input::KernelRoutesFound(families.iter().copied().collect()));
        hand.configure_all(|config| {
            config.peers.clear();
            config.ranges = ranges.into_iter().map(|(name, range)| (PeerName::from(name), range)).collect();
        });
        hand
    }

    // ---- what the world does

    pub(crate) fn input(&mut self, input: Input<'_>) {
        self.speaker.handle_input(input, self.now);
        self.drain();
    }

    pub(crate) fn connect(&mut self, conn: ConnId) {
        let (local, remote) = (socket("10.0.0.1", 40000), socket("10.0.0.2", 179));
        self.input(Input::Connected { conn, peer: peer(), local, remote });
    }

    pub(crate) fn accept(&mut self, conn: ConnId) {
        self.accept_from(conn, "10.0.0.2");
    }

    pub(crate) fn accept_from(&mut self, conn: ConnId, from: &str) {
        let (local, remote) = (socket("10.0.0.1", 179), socket(from, 40000));
        self.input(Input::Accepted { conn, local, remote });
    }

    pub(crate) fn dial_fails(&mut self, error: TransportErrorKind) {
        self.input(Input::DialFailed { peer: peer(), error, text: format!("{error:?}") });
    }

    pub(crate) fn bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        self.input(Input::Bytes { conn, bytes });
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        self.input(Input::Closed { conn, error: None });
    }

    pub(crate) fn link_down(&mut self) {
        self.input(Input::LinkDown { peer: peer(), text: "eth0 is down".to_owned() });
    }

    pub(crate) fn bfd_down(&mut self) {
        let text = "ControlDetectionTimeExpired".to_owned();
        self.input(Input::BfdDown { peer: peer(), text });
    }

    pub(crate) fn reset(&mut self, message: &str) {
        self.input(Input::Reset { peer: peer(), message: message.to_owned() });
    }

    pub(crate) fn refresh_wanted(&mut self) {
        self.input(Input::RequestRefresh { peer: peer(), family: AfiSafi::Ipv4Unicast });
    }

    pub(crate) fn answer_next_hop(&mut self, address: &str) {
        let resolution = Some(NextHopResolution { metric: 0, interface: 1 });
        self.input(Input::NextHop { address: address.parse().unwrap(), resolution });
    }

    pub(crate) fn originate(&mut self, prefix: &str) {
        self.input(Input::Originate { prefix: prefix.parse().unwrap(), routes: vec![OwnRoute::default()] });
    }

    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut PeerConfig)) {
        self.configure_all(|config| change(config.peers.get_mut(&peer()).unwrap()));
    }

    pub(crate) fn configure_all(&mut self, change: impl FnOnce(&mut SpeakerConfig)) {
        change(&mut self.config);
        self.input(Input::Configure(self.config.clone()));
    }

    pub(crate) fn establish(&mut self) {
        self.establish_with(&[]);
    }

    pub(crate) fn establish_with(&mut self, capabilities: &[Capability]) {
        self.connect(ConnId(1));
        self.bytes(ConnId(1), &open(capabilities));
        self.bytes(ConnId(1), &keepalive());
        assert_eq!(self.state(), State::Established);
    }

    pub(crate) fn establish_on(&mut self, conn: ConnId) {
        self.bytes(conn, &open(&[]));
        self.bytes(conn, &keepalive());
        assert_eq!(self.state(), State::Established);
    }

    pub(crate) fn run_to_next_timer(&mut self) {
        if let Some(at) = self.speaker.poll_timeout() {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.speaker.poll_timeout().is_some_and(|at| at <= end) {
            self.run_to_next_timer();
        }
        self.now = end;
    }

    pub(crate) fn run_until_connect(&mut self) {
        while self.state() != State::Connect {
            self.run_to_next_timer();
        }
    }

    // ---- what the speaker did

    pub(crate) fn status(&self) -> PeerStatus {
        self.speaker.peer(&peer()).unwrap()
    }

    pub(crate) fn state(&self) -> State {
        self.status().state
    }

    /// IPv4 prefixes held from the peer.
    pub(crate) fn received(&self) -> u32 {
        self.status().families[0].received
    }

    /// The communities of the only path to a prefix.
    pub(crate) fn communities(&self, prefix: &str) -> Vec<String> {
        let paths = self.speaker.rib().paths_to(&prefix.parse().unwrap());
        assert_eq!(paths.len(), 1);
        bgp_proto::wire::display::attributes(&paths[0].attributes).communities
    }

    /// The messages sent since the last question.
    pub(crate) fn sent(&mut self, conn: ConnId) -> Vec<(MessageType, Vec<u8>)> {
        let bytes = self.heard.remove(&conn).unwrap_or_default();
        let (mut framer, mut rest, mut messages) = (Framer::default(), &bytes[..], Vec::new());
        while let Some(frame) = framer.next(&mut rest) {
            let frame = frame.expect("what a speaker sends is well formed");
            messages.push((frame.message_type, frame.body.to_vec()));
        }
        assert!(!framer.is_within_message() || !self.reads, "a message was cut short");
        messages
    }

    /// Code and subcode of the NOTIFICATION that closed the connection.
    pub(crate) fn closed_with(&mut self, conn: ConnId) -> Option<(u8, u8)> {
        self.closed_with_data(conn).map(|(code, subcode, _)| (code, subcode))
    }

    pub(crate) fn closed_with_data(&mut self, conn: ConnId) -> Option<(u8, u8, Vec<u8>)> {
        assert!(self.is_closed(conn), "{conn:?} is open");
        let (kind, body) = self.sent(conn).pop()?;
        let notification = Notification::decode(&body).filter(|_| kind == MessageType::Notification)?;
        Some((notification.code, notification.subcode, notification.data))
    }

    pub(crate) fn is_closed(&self, conn: ConnId) -> bool {
        self.closed.contains(&conn)
    }

    pub(crate) fn rejections(&self) -> Vec<Rejection> {
        let rejection = |event: &SessionEvent| match event {
            SessionEvent::ConnectionRejected { why, .. } => Some(*why),
            _ => None,
        };
        self.events.iter().filter_map(rejection).collect()
    }

    pub(crate) fn transitions(&self) -> Vec<(State, State, Reason)> {
        let change = |event: &SessionEvent| match event {
            SessionEvent::StateChanged { from, to, reason, .. } => Some((*from, *to, *reason)),
            _ => None,
        };
        self.events.iter().filter_map(change).collect()
    }

    /// The socket takes some bytes.
    pub(crate) fn take(&mut self, conn: ConnId, most: usize) -> usize {
        let Some(bytes) = self.speaker.poll_transmit(conn) else {
            self.unsent.remove(&conn);
            return 0;
        };
        let taken = bytes[..bytes.len().min(most)].to_vec();
        self.heard.entry(conn).or_default().extend_from_slice(&taken);
        self.speaker.transmitted(conn, taken.len());
        taken.len()
    }

    fn drain(&mut self) {
        loop {
            while let Some(output) = self.speaker.poll_output() {
                self.obey(output);
            }
            self.unsent.extend(self.speaker.take_ready());
            let conns: Vec<ConnId> = self.unsent.iter().copied().filter(|_| self.reads).collect();
            if conns.into_iter().map(|conn| self.take(conn, 1000)).sum::<usize>() == 0 {
                return;
            }
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Dial { remote, max_hops, .. } => {
                assert_eq!((remote, max_hops), (socket("10.0.0.2", 179), 1));
                self.dials += 1;
            }
            Output::CancelDial { .. } => {}
            Output::Close { conn, last_bytes } | Output::Refuse { conn, last_bytes } => {
                assert!(self.closed.insert(conn), "{conn:?} closed twice");
                self.heard.entry(conn).or_default().extend_from_slice(&last_bytes);
            }
            Output::Fib(change) => {
                match change.route {
                    Some(_) => self.kernel.insert(change.prefix),
                    None => self.kernel.remove(&change.prefix),
                };
            }
            Output::FibComplete { .. } => self.fib_complete += 1,
            Output::TrackNextHop { address, wanted } => {
                let resolution = Some(NextHopResolution { metric: 0, interface: 1 });
                if wanted && self.answers_next_hops {
                    self.speaker.handle_input(Input::NextHop { address, resolution }, self.now);
                }
            }
            Output::Event(event) => self.events.push(event),
        }
    }
}

// ---- what a peer says

/// The peer's OPEN: AS 65002, hold time 30 s, 10.0.0.2.
pub(crate) fn open(capabilities: &[Capability]) -> Vec<u8> {
    let open = Open {
        my_as: 65002,
        hold_time: 30,
        router_id: RouterId(Ipv4Addr::new(10, 0, 0, 2)),
        capabilities: capabilities.to_vec(),
    };
    let mut out = Vec::new();
    encode(MessageType::Open, &mut out, |out| open.encode(out));
    out
}

/// Graceful restart of IPv4 unicast, 120 s.
pub(crate) fn restarted(forwarding: bool) -> Capability {
    Capability::GracefulRestart(GracefulRestartCapability {
        restart_time: 120,
        families: vec![RestartFamily { afi: 1, safi: 1, forwarding }],
        ..GracefulRestartCapability::default()
    })
}

pub(crate) fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    encode(MessageType::Keepalive, &mut out, |_| {});
    out
}

pub(crate) fn notification(code: u8, subcode: u8, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(MessageType::Notification, &mut out, |out| {
        Notification::with_data(code, subcode, data).encode(out)
    });
    out
}

pub(crate) fn refresh(afi: u16, subtype: u8, safi: u8) -> Vec<u8> {
    let mut out = Vec::new();
    encode(MessageType::RouteRefresh, &mut out, |out| RouteRefresh { afi, subtype, safi }.encode(out));
    out
}

/// 10.244.n.0/24 by way of the peer; its AS path has two octets, as it sends no four-octet capability.
pub(crate) fn announce(n: u8) -> Vec<u8> {
    let mut out = Vec::new();
    encode(MessageType::Update, &mut out, |out| {
        out.extend_from_slice(&[0, 0, 0, 18]);
        out.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 0, 2]);
        out.extend_from_slice(&[24, 10, 244, n]);
    });
    out
}

/// The same with a community.
pub(crate) fn announce_with(n: u8, community: u32) -> Vec<u8> {
    let mut out = Vec::new();
    encode(MessageType::Update, &mut out, |out| {
        out.extend_from_slice(&[0, 0, 0, 25]);
        out.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 0, 2]);
        out.extend_from_slice(&[0xc0, 8, 4]);
        out.extend_from_slice(&community.to_be_bytes());
        out.extend_from_slice(&[24, 10, 244, n]);
    });
    out
}

pub(crate) fn end_of_rib() -> Vec<u8> {
    let mut out = Vec::new();
    encode(MessageType::Update, &mut out, |out| out.extend_from_slice(&[0, 0, 0, 0]));
    out
}

/// A marker and whatever follows it.
pub(crate) fn raw(rest: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend_from_slice(rest);
    out
}

fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}
