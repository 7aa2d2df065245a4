//! Neighbours on interfaces, by their link-local addresses (RFC 8950, RFC 2545 §3); two that have the same address are two.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::wildcard_enum_match_arm)]

mod hand;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use bgp_proto::config::{AdminState, NextHopSelf, PeerConfig, RemoteAsn, SpeakerConfig};
use bgp_proto::fsm::State;
use bgp_proto::output::{Reason, Rejection};
use bgp_proto::policy::{ExportPolicy, ImportPolicy};
use bgp_proto::route::{NextHopResolution, OwnRoute};
use bgp_proto::wire::message::encode;
use bgp_proto::wire::{Capability, ExtendedNextHop, Framer, MessageType};
use bgp_proto::{AfiSafi, Asn, ConnId, Input, Output, PeerName, RouterId, SessionEvent, Speaker, link_local};
use ipnet::IpNet;

const NEIGHBOUR: &str = "fe80::1";
const OURS: &str = "fe80::9";
/// The session with the neighbour on interface 2, and the one on interface 3.
const SESSIONS: [(&str, u32, ConnId); 2] = [("leaf-a", 2, ConnId(2)), ("leaf-b", 3, ConnId(3))];

fn on(interface: u32, text: &str) -> IpAddr {
    IpAddr::V6(link_local::scoped(text.parse().unwrap(), interface))
}

struct Node {
    speaker: Speaker,
    now: Instant,
    config: SpeakerConfig,
    kernel: BTreeMap<IpNet, Vec<IpAddr>>,
    tracked: Vec<IpAddr>,
    down: Vec<IpAddr>,
    sent: BTreeMap<ConnId, Vec<u8>>,
    rejected: Vec<Rejection>,
}

impl Node {
    fn new() -> Node {
        let mut config = SpeakerConfig::new(Asn(4_200_000_001), RouterId(Ipv4Addr::new(10, 0, 0, 1)));
        for (name, interface, _) in SESSIONS {
            let remote = on(interface, NEIGHBOUR);
            let mut peer = PeerConfig::new(
                remote,
                RemoteAsn::External,
                ImportPolicy::accept_all(),
                ExportPolicy::default(),
            );
            peer.extended_next_hop = true;
            peer.next_hop = NextHopSelf::default();
            config.peers.insert(PeerName::from(name), peer);
        }
        let now = Instant::now();
        let mut node = Node {
            speaker: Speaker::new(7, now),
            now,
            config: config.clone(),
            kernel: BTreeMap::new(),
            tracked: Vec::new(),
            down: Vec::new(),
            sent: BTreeMap::new(),
            rejected: Vec::new(),
        };
        node.input(Input::Configure(config));
        for prefix in ["10.244.9.0/26", "fd00:9::/64"] {
            node.input(Input::Originate {
                prefix: prefix.parse().unwrap(),
                routes: vec![OwnRoute::default()],
            });
        }
        node
    }

    fn input(&mut self, input: Input<'_>) {
        self.speaker.handle_input(input, self.now);
        loop {
            while let Some(output) = self.speaker.poll_output() {
                self.obey(output);
            }
            let mut wrote = false;
            for conn in self.speaker.connections().collect::<Vec<_>>() {
                let Some(bytes) = self.speaker.poll_transmit(conn).map(<[u8]>::to_vec) else { continue };
                self.speaker.transmitted(conn, bytes.len());
                self.sent.entry(conn).or_default().extend(bytes);
                wrote = true;
            }
            if !wrote {
                return;
            }
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Fib(change) => match change.route {
                Some(route) => drop(self.kernel.insert(change.prefix, route.next_hops)),
                None => drop(self.kernel.remove(&change.prefix)),
            },
            Output::TrackNextHop { address, wanted: true } => {
                self.tracked.push(address);
                self.tell(address);
            }
            Output::Close { conn, last_bytes } | Output::Refuse { conn, last_bytes } => {
                self.sent.entry(conn).or_default().extend(last_bytes)
            }
            Output::Event(SessionEvent::ConnectionRejected { why, .. }) => self.rejected.push(why),
            _ => {}
        }
    }

    /// How a next hop stands.
    fn tell(&mut self, address: IpAddr) {
        let interface = link_local::parts(address).map(|(_, interface)| interface);
        let resolution = interface
            .filter(|_| !self.down.contains(&address))
            .map(|interface| NextHopResolution { metric: 0, interface });
        self.speaker.handle_input(Input::NextHop { address, resolution }, self.now);
    }

    fn accept(&mut self, (_, interface, conn): (&str, u32, ConnId)) {
        let (local, remote) =
            (SocketAddr::new(on(interface, OURS), 179), SocketAddr::new(on(interface, NEIGHBOUR), 40000));
        self.input(Input::Accepted { conn, local, remote });
    }

    fn establish(&mut self, session: (&str, u32, ConnId), agrees: bool) {
        self.accept(session);
        let mut capabilities: Vec<Capability> = AfiSafi::ALL.map(Capability::multiprotocol).into();
        capabilities.push(Capability::FourOctetAsn(Asn(65002)));
        if agrees {
            capabilities.push(Capability::ExtendedNextHop(vec![ExtendedNextHop::IPV4_VIA_IPV6]));
        }
        self.input(Input::Bytes { conn: session.2, bytes: &hand::open(&capabilities) });
        self.input(Input::Bytes { conn: session.2, bytes: &hand::keepalive() });
        assert_eq!(self.state(session.0), State::Established);
    }

    fn state(&self, peer: &str) -> State {
        self.speaker.peer(&peer.into()).unwrap().state
    }

    /// Bodies of the UPDATEs that a neighbour was sent.
    fn told(&mut self, conn: ConnId) -> Vec<Vec<u8>> {
        let bytes = self.sent.remove(&conn).unwrap_or_default();
        let (mut framer, mut rest, mut bodies) = (Framer::default(), &bytes[..], Vec::new());
        while let Some(frame) = framer.next(&mut rest) {
            let frame = frame.unwrap();
            if frame.message_type == MessageType::Update {
                bodies.push(frame.body.to_vec());
            }
        }
        bodies
    }
}

/// An UPDATE that announces a prefix in MP_REACH_NLRI by way of these addresses.
fn announce(prefix: &str, next_hop: &[&str]) -> Vec<u8> {
    let octets: Vec<u8> =
        next_hop.iter().flat_map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).collect();
    let (afi, nlri) = match prefix.parse().unwrap() {
        IpNet::V4(net) => (1, net.addr().octets()[..usize::from(net.prefix_len().div_ceil(8))].to_vec()),
        IpNet::V6(net) => (2, net.addr().octets()[..usize::from(net.prefix_len().div_ceil(8))].to_vec()),
    };
    let len = prefix.parse::<IpNet>().unwrap().prefix_len();
    let mut reach = vec![0, afi, 1, u8::try_from(octets.len()).unwrap()];
    reach.extend([octets, vec![0, len], nlri].concat());
    let mut list = vec![0x80, 14, u8::try_from(reach.len()).unwrap()];
    list.extend_from_slice(&reach);
    list.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea]);
    let mut out = Vec::new();
    encode(MessageType::Update, &mut out, |out| {
        out.extend_from_slice(&[0, 0, 0, u8::try_from(list.len()).unwrap()]);
        out.extend_from_slice(&list);
    });
    out
}

fn has(bodies: &[Vec<u8>], bytes: &[u8]) -> bool {
    bodies.iter().any(|body| body.windows(bytes.len()).any(|window| window == bytes))
}

#[test]
fn one_address_on_two_interfaces_is_two_ways() {
    let mut node = Node::new();
    for session in SESSIONS {
        node.establish(session, true);
        for prefix in ["10.244.4.0/24", "fd00:4::/64"] {
            node.input(Input::Bytes { conn: session.2, bytes: &announce(prefix, &[NEIGHBOUR]) });
        }
    }
    let (a, b) = (on(2, NEIGHBOUR), on(3, NEIGHBOUR));
    assert_eq!(node.tracked, [a, b]);
    for prefix in ["10.244.4.0/24", "fd00:4::/64"] {
        let mut hops = node.kernel[&prefix.parse().unwrap()].clone();
        hops.sort_unstable();
        assert_eq!(hops, [a, b], "{prefix}");
    }
    // One link goes down: the other way stays.
    node.down.push(a);
    node.tell(a);
    node.input(Input::LinkDown { peer: "leaf-a".into(), text: "eth2 is down".to_owned() });
    for prefix in ["10.244.4.0/24", "fd00:4::/64"] {
        assert_eq!(node.kernel[&prefix.parse().unwrap()], [b], "{prefix}");
    }
    assert_eq!(
        (node.state("leaf-b"), node.speaker.peer(&"leaf-a".into()).unwrap().reason),
        (State::Established, Reason::InterfaceDown)
    );
}

#[test]
fn our_link_local_address_goes_out_as_it_is_on_the_wire() {
    let mut node = Node::new();
    node.establish(SESSIONS[0], true);
    let told = node.told(ConnId(2));
    let ours = OURS.parse::<Ipv6Addr>().unwrap().octets();
    // RFC 8950 §3: AFI 1, a next hop of 16 octets, no NEXT_HOP; the same for AFI 2.
    assert!(has(&told, &[&[0, 1, 1, 16][..], &ours, &[0, 26, 10, 244, 9, 0]].concat()), "{told:?}");
    assert!(has(&told, &[&[0, 2, 1, 16][..], &ours, &[0, 64, 0xfd, 0, 0, 9]].concat()), "{told:?}");
    assert!(!has(&told, &[0x40, 3, 4]), "{told:?}");
}

#[test]
fn a_global_address_stands_before_it() {
    let mut node = Node::new();
    let mut config = node.config.clone();
    let global: Ipv6Addr = "fd00::9".parse().unwrap();
    config.peers.get_mut(&"leaf-a".into()).unwrap().next_hop.ipv6 = Some(global);
    node.input(Input::Configure(config));
    node.establish(SESSIONS[0], true);
    let told = node.told(ConnId(2));
    let both = [global.octets(), OURS.parse::<Ipv6Addr>().unwrap().octets()].concat();
    assert!(has(&told, &[&[0, 1, 1, 32][..], &both].concat()), "{told:?}");
}

#[test]
fn a_neighbour_that_cannot_is_told_ipv6_alone() {
    let mut node = Node::new();
    node.establish(SESSIONS[0], false);
    let agreed = node.speaker.peer(&"leaf-a".into()).unwrap().negotiated.unwrap();
    assert_eq!(agreed.families, [AfiSafi::Ipv6Unicast]);
    let told = node.told(ConnId(2));
    assert!(has(&told, &[64, 0xfd, 0, 0, 9]) && !has(&told, &[26, 10, 244, 9, 0]), "{told:?}");
}

#[test]
fn the_same_address_on_another_interface_is_a_stranger() {
    let mut node = Node::new();
    node.accept(("", 4, ConnId(4)));
    assert_eq!(node.rejected, [Rejection::UnknownPeer]);
}

#[test]
fn another_neighbour_on_the_interface_is_another_session() {
    let mut node = Node::new();
    node.establish(SESSIONS[0], true);
    node.input(Input::Bytes { conn: ConnId(2), bytes: &announce("10.244.4.0/24", &[NEIGHBOUR, NEIGHBOUR]) });
    assert_eq!(node.kernel.len(), 1);
    let mut config = node.config.clone();
    config.peers.get_mut(&"leaf-a".into()).unwrap().remote = on(2, "fe80::2");
    node.input(Input::Configure(config.clone()));
    assert!(node.kernel.is_empty() && node.state("leaf-a") != State::Established);
    // And nobody is nobody: it is neither dialled nor let in.
    let peer = config.peers.get_mut(&"leaf-a".into()).unwrap();
    peer.remote = link_local::nobody(2);
    peer.admin = AdminState::Withheld { reason: Reason::NeighborNotFound, text: "nobody on eth2".to_owned() };
    node.input(Input::Configure(config));
    let status = node.speaker.peer(&"leaf-a".into()).unwrap();
    assert_eq!((status.state, status.reason), (State::Idle, Reason::NeighborNotFound));
    node.accept(SESSIONS[0]);
    assert_eq!(node.rejected, [Rejection::UnknownPeer]);
}

/// RFC 4724 §4.1: what an earlier life left in the kernel waits for a neighbour that is not found yet, and for no other that is withheld.
#[test]
fn after_a_restart_the_kernel_waits_for_a_neighbour_that_is_looked_for() {
    for (reason, waits) in
        [(Reason::NeighborNotFound, true), (Reason::InterfaceDown, false), (Reason::SecretMissing, false)]
    {
        let now = Instant::now();
        let mut speaker = Speaker::new(7, now);
        let mut config = Node::new().config;
        for peer in config.peers.values_mut() {
            peer.admin = AdminState::Withheld { reason, text: "nobody".to_owned() };
        }
        speaker.handle_input(Input::KernelRoutesFound(AfiSafi::ALL.into_iter().collect()), now);
        speaker.handle_input(Input::Configure(config), now);
        assert_eq!(speaker.selection_deferred_until().is_some(), waits, "{reason:?}");
        let swept = std::iter::from_fn(|| speaker.poll_output())
            .any(|output| matches!(output, Output::FibComplete { .. }));
        assert_eq!(swept, !waits, "{reason:?}");
    }
}
