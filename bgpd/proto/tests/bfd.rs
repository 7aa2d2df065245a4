//! Two monitors in virtual time over a link that loses and delays, and any bytes in any state.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp_proto::PeerName;
use bgp_proto::bfd::{
    Arrival, ControlPacket, Diagnostic, Monitor, Output, Path, SessionConfig, State, Timing,
};
use proptest::collection::vec;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

/// SplitMix64, so that a seed replays.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

struct End {
    monitor: Monitor,
    wanted: SessionConfig,
    changes: Vec<(Instant, State, State, Diagnostic)>,
    failures: usize,
    /// When its latest packet arrives: a link delays, and does not reorder.
    arrives: Instant,
}

/// Two ends and what is on the way.
struct Link {
    now: Instant,
    ends: [End; 2],
    flying: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    number: u64,
    dice: Dice,
    loss_percent: u64,
    delay_ms: u64,
    is_cut: bool,
}

fn name() -> PeerName {
    PeerName::from("other")
}

fn address(end: usize) -> IpAddr {
    ["10.0.0.1", "10.0.0.2"][end].parse().unwrap()
}

fn timing(tx: u32, rx: u32, detect_multiplier: u8) -> Timing {
    Timing { desired_min_tx: MS * tx, required_min_rx: MS * rx, detect_multiplier, passive: false }
}

impl Link {
    fn new(seed: u64, timings: [Timing; 2]) -> Link {
        let now = Instant::now();
        let end = |number: usize| {
            let path = Path {
                remote: address(1 - number),
                local: address(number),
                interface: Some(2),
                multihop: false,
            };
            let wanted = SessionConfig { path, timing: timings[number] };
            let monitor = Monitor::new(seed + number as u64);
            End { monitor, wanted, changes: Vec::new(), failures: 0, arrives: now }
        };
        let mut link = Link {
            now,
            ends: [end(0), end(1)],
            flying: BTreeMap::new(),
            number: 0,
            dice: Dice(seed),
            loss_percent: 0,
            delay_ms: 2,
            is_cut: false,
        };
        for number in 0..2 {
            let timing = link.ends[number].wanted.timing;
            link.configure(number, timing);
        }
        link
    }

    fn configure(&mut self, number: usize, timing: Timing) {
        self.ends[number].wanted.timing = timing;
        let wanted = BTreeMap::from([(name(), self.ends[number].wanted)]);
        self.ends[number].monitor.configure(&wanted, self.now);
        self.drain(number);
    }

    fn drain(&mut self, number: usize) {
        while let Some(output) = self.ends[number].monitor.poll_output() {
            match output {
                Output::Transmit { packet, .. } => {
                    let is_lost = self.is_cut || self.dice.roll(100) < self.loss_percent;
                    let delay = MS * u32::try_from(self.dice.roll(self.delay_ms + 1)).unwrap();
                    let at = (self.now + delay).max(self.ends[number].arrives);
                    self.ends[number].arrives = at;
                    self.number += 1;
                    if !is_lost {
                        self.flying.insert((at, self.number), (1 - number, packet.to_vec()));
                    }
                }
                Output::Changed { from, status, .. } => {
                    let end = &mut self.ends[number];
                    end.changes.push((self.now, from, status.state, status.diagnostic));
                    end.failures += usize::from(status.is_failure(from));
                }
                Output::Closed { .. } => {}
            }
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let timers = [0, 1].map(|number| self.ends[number].monitor.poll_timeout());
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let next = timers.into_iter().chain([arrival]).flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, bytes) = entry.remove();
                let (source, local) = (address(1 - to), address(to));
                let arrival = Arrival { source, local, interface: 2, hop_limit: Some(255), multihop: false };
                self.ends[to].monitor.receive(&bytes, &arrival, self.now);
            }
            for number in 0..2 {
                self.ends[number].monitor.timeout(self.now);
                self.drain(number);
            }
        }
        self.now = end;
    }

    fn states(&self) -> [State; 2] {
        [0, 1].map(|number| self.ends[number].monitor.status(&name()).unwrap().state)
    }

    fn failures(&self) -> usize {
        self.ends.iter().map(|end| end.failures).sum()
    }
}

#[test]
fn both_ends_come_up_and_agree_on_the_slower_interval() {
    let mut link = Link::new(1, [timing(100, 50, 3), timing(30, 300, 5)]);
    link.run_for(3000 * MS);
    assert_eq!(link.states(), [State::Up, State::Up]);
    let [first, second] = [0, 1].map(|number| link.ends[number].monitor.status(&name()).unwrap());
    assert_eq!((first.transmit_interval, second.transmit_interval), (300 * MS, 50 * MS));
    assert_eq!((first.detection_time, second.detection_time), (Some(250 * MS), Some(900 * MS)));
}

#[test]
fn a_cut_is_noticed_within_the_detection_time_and_repaired() {
    for seed in 0..50 {
        let mut link = Link::new(seed, [timing(100, 100, 3); 2]);
        link.run_for(5000 * MS);
        assert_eq!(link.states(), [State::Up, State::Up], "seed {seed}");
        let cut = link.now;
        link.is_cut = true;
        link.run_for(5000 * MS);
        for end in &link.ends {
            let (at, from, to, why) = *end.changes.last().unwrap();
            assert_eq!((from, to, why), (State::Up, State::Down, Diagnostic::DETECTION_TIME_EXPIRED));
            assert!((200 * MS..=310 * MS).contains(&(at - cut)), "seed {seed}: {:?}", at - cut);
        }
        link.is_cut = false;
        link.run_for(5000 * MS);
        assert_eq!((link.states(), link.failures()), ([State::Up, State::Up], 2), "seed {seed}");
    }
}

#[test]
fn timers_change_under_loss_without_a_flap() {
    for seed in 0..50 {
        let mut link = Link::new(seed, [timing(100, 100, 20); 2]);
        (link.loss_percent, link.delay_ms) = (20, 30);
        link.run_for(10_000 * MS);
        assert_eq!(link.states(), [State::Up, State::Up], "seed {seed}");
        for step in 0..40 {
            let interval = [10, 50, 100, 400, 1000][usize::try_from(link.dice.roll(5)).unwrap()];
            link.configure(step % 2, timing(interval, interval, 20));
            let pause = link.dice.roll(3000);
            link.run_for(MS * u32::try_from(pause).unwrap());
        }
        assert_eq!((link.states(), link.failures()), ([State::Up, State::Up], 0), "seed {seed}");
        // In the end both do what was asked for last.
        link.loss_percent = 0;
        link.run_for(30_000 * MS);
        let [first, second] = [0, 1].map(|number| link.ends[number].monitor.status(&name()).unwrap());
        let slower =
            link.ends[0].wanted.timing.desired_min_tx.max(link.ends[1].wanted.timing.required_min_rx);
        assert_eq!((first.transmit_interval, second.transmit_interval), (slower, slower), "seed {seed}");
        assert_eq!((first.detection_time, second.detection_time), (Some(slower * 20), Some(slower * 20)));
    }
}

#[test]
fn a_planned_stop_is_no_failure_at_the_other_end() {
    for seed in 0..20 {
        let mut link = Link::new(seed, [timing(100, 100, 3); 2]);
        link.run_for(3000 * MS);
        let now = link.now;
        assert!(link.ends[0].monitor.stop(now).is_some_and(|until| until <= now + 300 * MS));
        link.drain(0);
        link.run_for(5000 * MS);
        assert_eq!(link.failures(), 0);
        let other = link.ends[1].monitor.status(&name()).unwrap();
        assert_eq!((other.state, other.is_remote_admin_down()), (State::Down, true), "seed {seed}");
        // The next life is known by its address alone.
        let timing = link.ends[0].wanted.timing;
        link.ends[0].monitor = Monitor::new(seed + 1000);
        link.configure(0, timing);
        link.run_for(3000 * MS);
        assert_eq!((link.states(), link.failures()), ([State::Up, State::Up], 0), "seed {seed}");
    }
}

#[test]
fn a_crash_is_a_failure_as_soon_as_the_next_life_speaks() {
    let mut link = Link::new(3, [timing(1000, 1000, 50); 2]);
    link.run_for(5000 * MS);
    let timing = link.ends[0].wanted.timing;
    link.ends[0].monitor = Monitor::new(77);
    link.configure(0, timing);
    link.run_for(100 * MS);
    assert_eq!(link.ends[1].failures, 1);
    let down = link.ends[1].changes.iter().find(|change| change.1 == State::Up).unwrap();
    assert_eq!((down.2, down.3), (State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN));
    link.run_for(5000 * MS);
    assert_eq!(link.states(), [State::Up, State::Up]);
}

#[test]
fn two_hundred_sessions_send_no_more_than_asked() {
    let mut monitor = Monitor::new(5);
    let now = Instant::now();
    let path = |n: u8| Path {
        remote: IpAddr::from([10, 0, 1, n]),
        local: address(0),
        interface: Some(2),
        multihop: false,
    };
    let wanted: BTreeMap<PeerName, SessionConfig> = (0..200)
        .map(|n| {
            (format!("p{n}").as_str().into(), SessionConfig { path: path(n), timing: timing(100, 100, 3) })
        })
        .collect();
    monitor.configure(&wanted, now);
    let mut packets = 0;
    let (mut at, mut wakes) = (now, 0);
    while at < now + 10_000 * MS {
        while let Some(output) = monitor.poll_output() {
            if let Output::Transmit { session, path, packet } = output {
                packets += 1;
                // Each hears an answer, as its peer would give it.
                let heard = ControlPacket::decode(&packet).unwrap();
                let answer = ControlPacket {
                    my_discriminator: session ^ 1,
                    your_discriminator: session,
                    poll: false,
                    is_final: heard.poll,
                    state: if heard.state == State::Down { State::Down } else { State::Up },
                    desired_min_tx: 100_000,
                    ..heard
                };
                let arrival = Arrival {
                    source: path.remote,
                    local: path.local,
                    interface: 2,
                    hop_limit: Some(255),
                    multihop: false,
                };
                monitor.receive(&answer.encode(), &arrival, at);
            }
        }
        let next = monitor.poll_timeout().unwrap();
        assert!(next > at || wakes == 0 || monitor.poll_output().is_none());
        at = at.max(next);
        wakes += 1;
        monitor.timeout(at);
    }
    let up = wanted.keys().filter(|peer| monitor.status(peer).unwrap().state == State::Up).count();
    assert_eq!(up, 200);
    // 10 s at 75 to 100 ms.
    assert!((200 * 95..200 * 140).contains(&packets), "{packets}");
    assert!(wakes < packets * 2, "{wakes} wake-ups for {packets} packets");
}

/// What a hostile or broken world does.
#[derive(Debug, Clone)]
enum Deed {
    Bytes(Vec<u8>, Option<u8>, bool),
    Packet(Vec<u32>, Vec<u8>),
    Wait(u64),
    Configure(u32, u32, u8, bool),
    Forget,
}

fn deed() -> impl Strategy<Value = Deed> {
    let hops = prop_oneof![4 => Just(Some(255)), 1 => any::<u8>().prop_map(Some), 1 => Just(None)];
    prop_oneof![
        3 => (vec(any::<u8>(), 0..60), hops, any::<bool>()).prop_map(|(b, h, m)| Deed::Bytes(b, h, m)),
        12 => (vec(any::<u32>(), 5), vec(any::<u8>(), 3)).prop_map(|(n, b)| Deed::Packet(n, b)),
        4 => (0u64..5000).prop_map(Deed::Wait),
        1 => (0u32..2000, 0u32..2000, any::<u8>(), any::<bool>())
            .prop_map(|(tx, rx, multiplier, passive)| Deed::Configure(tx, rx, multiplier, passive)),
        1 => Just(Deed::Forget),
    ]
}

struct Victim {
    monitor: Monitor,
    now: Instant,
    own: u32,
    sent: usize,
}

impl Victim {
    fn drain(&mut self) {
        while let Some(output) = self.monitor.poll_output() {
            if let Output::Transmit { session, packet, .. } = output {
                assert!(ControlPacket::decode(&packet).is_ok(), "what is sent is well formed");
                self.own = session;
                self.sent += 1;
            }
        }
    }

    fn hear(&mut self, bytes: &[u8], hop_limit: Option<u8>, multihop: bool) {
        let arrival = Arrival { source: address(1), local: address(0), interface: 2, hop_limit, multihop };
        let before = self.sent;
        self.monitor.receive(bytes, &arrival, self.now);
        self.drain();
        assert!(self.sent <= before + 2, "one packet in, at most an answer and a change of state out");
    }

    fn configure(&mut self, timing: Option<Timing>) {
        let path = Path { remote: address(1), local: address(0), interface: Some(2), multihop: false };
        let wanted = timing.map(|timing| (name(), SessionConfig { path, timing }));
        self.monitor.configure(&wanted.into_iter().collect(), self.now);
        self.drain();
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut turns = 0;
        while let Some(at) = self.monitor.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.monitor.timeout(self.now);
            self.drain();
            turns += 1;
            assert!(turns < 100_000, "it spins");
        }
        self.now = end;
        assert!(
            self.monitor.poll_timeout().is_none_or(|at| at > self.now),
            "a timer is due after it was served"
        );
    }

    fn play(&mut self, deed: Deed) {
        match deed {
            Deed::Bytes(bytes, hop_limit, multihop) => self.hear(&bytes, hop_limit, multihop),
            Deed::Packet(numbers, bytes) => {
                // Mostly well formed and mostly ours.
                let mut packet = vec![0x20 | bytes[0] & 0x1f, bytes[1] & 0xfa, bytes[2] | 1, 24];
                let own = if numbers[1] % 4 == 0 { 0 } else { self.own };
                for number in [numbers[0] | 1, own, numbers[2] % 3_000_000, numbers[3] % 3_000_000, 0] {
                    packet.extend_from_slice(&number.to_be_bytes());
                }
                self.hear(&packet, Some(255), false);
            }
            Deed::Wait(milliseconds) => self.wait(Duration::from_millis(milliseconds)),
            Deed::Configure(tx, rx, multiplier, passive) => {
                self.configure(Some(Timing { passive, ..timing(tx.max(1), rx, multiplier) }));
            }
            Deed::Forget => self.configure(None),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_a_sane_peer_comes_up(seed: u64, deeds in vec(deed(), 1..80)) {
        let mut victim = Victim { monitor: Monitor::new(seed), now: Instant::now(), own: 0, sent: 0 };
        victim.configure(Some(timing(100, 100, 3)));
        for deed in deeds {
            victim.play(deed);
        }
        // The other end is silent long enough to be forgotten, then speaks as it should.
        victim.configure(Some(timing(100, 100, 3)));
        victim.wait(Duration::from_secs(3 * 256));
        let sane = ControlPacket {
            diagnostic: Diagnostic::NONE,
            state: State::Down,
            poll: false,
            is_final: false,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: 3,
            my_discriminator: 42,
            your_discriminator: 0,
            desired_min_tx: 1_000_000,
            required_min_rx: 100_000,
            required_min_echo_rx: 0,
        };
        victim.hear(&sane.encode(), Some(255), false);
        let known = ControlPacket { state: State::Init, your_discriminator: victim.own, ..sane };
        victim.hear(&known.encode(), Some(255), false);
        prop_assert_eq!(victim.monitor.status(&name()).unwrap().state, State::Up);
    }

    #[test]
    fn any_bytes_are_a_packet_or_a_reason(bytes in vec(any::<u8>(), 0..80)) {
        if let Ok(packet) = ControlPacket::decode(&bytes) {
            // The length may count what follows.
            let again = packet.encode();
            prop_assert_eq!((&again[..3], &again[4..]), (&bytes[..3], &bytes[4..24]));
        }
    }
}
