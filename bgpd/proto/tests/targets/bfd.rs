//! BFD: packets of a peer, of a stranger and of nobody, time, and configuration, against a table of sessions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp_proto::PeerName;
use bgp_proto::bfd::{Arrival, ControlPacket, Monitor, Output, Path, SessionConfig, State, Timing};

use super::part;

/// What the octets of an input mean.
pub(crate) const RECEIVE: u8 = 0;
pub(crate) const ANSWER: u8 = 1;

const MOST_DEEDS: usize = 200;
const PEERS: u8 = 3;

struct Chaos {
    monitor: Monitor,
    now: Instant,
    wanted: BTreeMap<PeerName, SessionConfig>,
    /// What each session said last, by its discriminator.
    said: BTreeMap<u32, (Path, ControlPacket)>,
    received: u64,
    ups: usize,
}

fn path(number: u8) -> Path {
    let multihop = number == 2;
    Path {
        remote: IpAddr::from([10, 0, 0, 10 + number]),
        local: IpAddr::from([10, 0, 0, 1]),
        interface: (!multihop).then_some(u32::from(number) + 1),
        multihop,
    }
}

fn arrival(path: &Path, hop_limit: u8) -> Arrival {
    let (source, local, multihop) = (path.remote, path.local, path.multihop);
    Arrival { source, local, interface: path.interface.unwrap_or(9), hop_limit: Some(hop_limit), multihop }
}

/// RFC 5880 §6.8: whatever comes, no timer is left due, no session appears by itself, and who is not heard is not Up.
pub(super) fn run(data: &[u8]) {
    ups(data);
}

/// How often a session came up.
pub(crate) fn ups(mut data: &[u8]) -> usize {
    let (wanted, said) = (BTreeMap::new(), BTreeMap::new());
    let mut chaos =
        Chaos { monitor: Monitor::new(7), now: Instant::now(), wanted, said, received: 0, ups: 0 };
    for _ in 0..MOST_DEEDS {
        let Some(deed) = data.split_off_first() else { break };
        chaos.play(*deed, &mut data);
        chaos.drain();
    }
    let minute = Duration::from_secs(60);
    let detects = |peer: &PeerName| chaos.monitor.status(peer)?.detection_time;
    let detected: Vec<PeerName> = chaos
        .wanted
        .keys()
        .filter(|peer| detects(peer).is_some_and(|time| time <= minute))
        .cloned()
        .collect();
    chaos.wait(minute);
    for peer in detected {
        let status = chaos.monitor.status(&peer).unwrap();
        assert_ne!(status.state, State::Up, "{peer} was silent for its detection time");
    }
    let left = chaos.monitor.stop(chaos.now);
    assert!(left.is_none_or(|at| at >= chaos.now), "the last word is due in the past");
    chaos.ups
}

impl Chaos {
    fn play(&mut self, deed: u8, data: &mut &[u8]) {
        let number = (deed >> 4) % PEERS;
        let mut octet = || data.split_off_first().copied().unwrap_or_default();
        match deed & 0x0F {
            RECEIVE => {
                let hop_limit = if octet() & 7 == 0 { 254 } else { 255 };
                let bytes = part(data).unwrap_or_default();
                self.receive(&arrival(&path(number), hop_limit), bytes);
            }
            ANSWER => {
                let state = [State::AdminDown, State::Down, State::Init, State::Up][usize::from(octet() & 3)];
                self.answer(number, state, octet(), octet());
            }
            2 => {
                let millis = u64::from(octet()) * 20;
                self.wait(Duration::from_millis(millis));
            }
            3 => {
                let timing = Timing {
                    desired_min_tx: Duration::from_millis(10 + u64::from(octet())),
                    required_min_rx: Duration::from_millis(10 + u64::from(octet())),
                    detect_multiplier: octet(),
                    passive: octet() & 1 == 1,
                };
                let config = SessionConfig { path: path(number), timing };
                self.wanted.insert(PeerName::from(format!("p{number}").as_str()), config);
                self.monitor.configure(&self.wanted, self.now);
            }
            4 => {
                self.wanted.remove(&PeerName::from(format!("p{number}").as_str()));
                self.monitor.configure(&self.wanted, self.now);
            }
            _ => self.monitor.timeout(self.now),
        }
    }

    fn receive(&mut self, arrival: &Arrival, bytes: &[u8]) {
        if let Ok(packet) = ControlPacket::decode(bytes) {
            // Two of the six flags are refused, the others come back.
            assert_eq!(ControlPacket::decode(&packet.encode()), Ok(packet));
        }
        self.received += 1;
        self.monitor.receive(bytes, arrival, self.now);
        let discarded: u64 = self.monitor.discards().map(|(_, count)| count).sum();
        assert!(discarded <= self.received);
    }

    /// The peer answers what it heard last, as a sound one would, but in any state.
    fn answer(&mut self, number: u8, state: State, flags: u8, interval: u8) {
        let of_peer = |(_, (to, _)): &(&u32, &(Path, ControlPacket))| *to == path(number);
        let Some((ours, (to, heard))) = self.said.iter().find(of_peer) else { return };
        let packet = ControlPacket {
            state,
            poll: flags & 1 != 0,
            is_final: flags & 2 != 0,
            demand: flags & 4 != 0,
            detect_multiplier: (flags >> 4).max(1),
            my_discriminator: u32::from(number) + 1,
            your_discriminator: if flags & 8 != 0 { 0 } else { *ours },
            desired_min_tx: u32::from(interval) * 10_000,
            required_min_rx: u32::from(interval) * 5_000,
            ..*heard
        };
        let (arrival, bytes) = (arrival(to, 255), packet.encode());
        self.receive(&arrival, &bytes);
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.monitor.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.monitor.timeout(self.now);
            assert!(
                self.monitor.poll_timeout().is_none_or(|next| next > self.now),
                "due after it was served"
            );
            self.drain();
        }
        self.now = end;
        self.monitor.timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.monitor.poll_output() {
            outputs += 1;
            match output {
                Output::Transmit { session, path, packet } => {
                    let packet = ControlPacket::decode(&packet).expect("what we send can be read");
                    assert_eq!(packet.my_discriminator, session);
                    self.said.insert(session, (path, packet));
                }
                Output::Changed { from, status, .. } => {
                    assert_ne!(from, status.state);
                    self.ups += usize::from(status.state == State::Up);
                }
                Output::Closed { session } => {
                    self.said.remove(&session);
                }
            }
        }
        assert!(outputs <= 64, "{outputs} things to do at once");
    }
}
