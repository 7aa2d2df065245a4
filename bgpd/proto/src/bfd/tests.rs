//! Rule by rule (RFC 5880, 5881, 5883), with a peer played by hand.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::types::PeerName;

const MS: Duration = Duration::from_millis(1);

/// One monitor with one session, and a peer that says what a test says.
struct Hand {
    monitor: Monitor,
    now: Instant,
    config: SessionConfig,
    sent: Vec<(Instant, ControlPacket)>,
    changes: Vec<(State, State, Diagnostic)>,
    failures: usize,
    closed: Vec<u32>,
}

fn name() -> PeerName {
    PeerName::from("tor")
}

fn path() -> Path {
    Path {
        remote: "10.0.0.2".parse().unwrap(),
        local: "10.0.0.1".parse().unwrap(),
        interface: Some(3),
        multihop: false,
    }
}

fn timing(milliseconds: u32, detect_multiplier: u8) -> Timing {
    let interval = MS * milliseconds;
    Timing { desired_min_tx: interval, required_min_rx: interval, detect_multiplier, passive: false }
}

fn arrival() -> Arrival {
    let Path { remote, local, .. } = path();
    Arrival { source: remote, local, interface: 3, hop_limit: Some(255), multihop: false }
}

impl Hand {
    fn new(change: impl FnOnce(&mut SessionConfig)) -> Hand {
        let mut config = SessionConfig { path: path(), timing: timing(100, 3) };
        change(&mut config);
        let mut hand = Hand {
            monitor: Monitor::new(7),
            now: Instant::now(),
            config,
            sent: Vec::new(),
            changes: Vec::new(),
            failures: 0,
            closed: Vec::new(),
        };
        hand.configure(|_| {});
        hand
    }

    fn configure(&mut self, change: impl FnOnce(&mut SessionConfig)) {
        change(&mut self.config);
        self.monitor.configure(&BTreeMap::from([(name(), self.config)]), self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.monitor.poll_output() {
            match output {
                Output::Transmit { packet, .. } => {
                    self.sent.push((self.now, ControlPacket::decode(&packet).unwrap()));
                }
                Output::Changed { from, status, .. } => {
                    self.failures += usize::from(status.is_failure(from));
                    self.changes.push((from, status.state, status.diagnostic));
                }
                Output::Closed { session } => self.closed.push(session),
            }
        }
    }

    /// What the peer says: Up, 100 ms, multiplier 3, and knows us.
    fn packet(&self, state: State) -> ControlPacket {
        ControlPacket {
            diagnostic: Diagnostic::NONE,
            state,
            poll: false,
            is_final: false,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: 3,
            my_discriminator: 99,
            your_discriminator: self.discriminator(),
            desired_min_tx: 100_000,
            required_min_rx: 100_000,
            required_min_echo_rx: 0,
        }
    }

    fn discriminator(&self) -> u32 {
        self.sent.last().map_or(0, |(_, packet)| packet.my_discriminator)
    }

    fn say(&mut self, packet: ControlPacket) {
        self.say_bytes(&packet.encode(), &arrival());
    }

    fn say_bytes(&mut self, bytes: &[u8], arrival: &Arrival) {
        self.monitor.receive(bytes, arrival, self.now);
        self.drain();
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.monitor.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.monitor.timeout(self.now);
            self.drain();
            assert!(
                self.monitor.poll_timeout().is_none_or(|at| at > self.now),
                "a timer is due after it was served"
            );
        }
        self.now = end;
    }

    /// Runs while the peer says Up every 90 ms and answers what is asked.
    fn run_heard(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.run_for(90 * MS);
            let is_final = self.sent.last().is_some_and(|(_, packet)| packet.poll);
            self.say(ControlPacket { is_final, ..self.packet(State::Up) });
        }
    }

    fn up() -> Hand {
        let mut hand = Hand::new(|_| {});
        hand.bring_up();
        hand
    }

    fn bring_up(&mut self) {
        self.say(ControlPacket { your_discriminator: 0, ..self.packet(State::Down) });
        self.say(self.packet(State::Up));
        assert_eq!(self.state(), State::Up);
    }

    fn status(&self) -> SessionStatus {
        self.monitor.status(&name()).unwrap()
    }

    fn state(&self) -> State {
        self.status().state
    }

    fn last(&self) -> ControlPacket {
        self.sent.last().unwrap().1
    }

    fn discarded(&self, why: Discard) -> u64 {
        self.monitor.discards().find(|(reason, _)| *reason == why).unwrap().1
    }

    /// The time between packets since `from`.
    fn gaps(&self, from: usize) -> Vec<Duration> {
        self.sent[from..].windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }
}

// ---- §4.1

#[test]
fn rfc5880_4_1_bytes_and_values_are_the_same() {
    let packet = ControlPacket {
        diagnostic: Diagnostic::DETECTION_TIME_EXPIRED,
        state: State::Init,
        poll: true,
        is_final: false,
        control_plane_independent: true,
        demand: true,
        detect_multiplier: 5,
        my_discriminator: 0x0102_0304,
        your_discriminator: 0x0506_0708,
        desired_min_tx: 1_000_000,
        required_min_rx: 300_000,
        required_min_echo_rx: 50_000,
    };
    let bytes =
        [0x21, 0xaa, 5, 24, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0x0f, 0x42, 0x40, 0, 4, 0x93, 0xe0, 0, 0, 0xc3, 0x50];
    assert_eq!(packet.encode(), bytes);
    assert_eq!(ControlPacket::decode(&bytes), Ok(packet));
    // What follows the length is not ours to judge (§6.8.6 asks for "greater than the payload" alone).
    assert_eq!(ControlPacket::decode(&[&bytes[..], &[1, 2, 3]].concat()), Ok(packet));
    for state in [State::AdminDown, State::Down, State::Init, State::Up] {
        let packet = ControlPacket { state, is_final: true, poll: false, ..packet };
        assert_eq!(ControlPacket::decode(&packet.encode()), Ok(packet));
    }
}

// ---- §6.8.6, the checks in their order

#[test]
fn rfc5880_6_8_6_the_first_check_that_fails_is_the_reason() {
    let good = Hand::up().packet(State::Up).encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        bytes.to_vec()
    };
    assert!(ControlPacket::decode(&good).is_ok());
    for (what, bytes, why) in [
        ("version 0", with(0, 0), Discard::Version),
        ("version 2, short", vec![0x40], Discard::Version),
        ("nothing", vec![], Discard::Length),
        ("cut", good[..23].to_vec(), Discard::Length),
        ("23 in length", with(3, 23), Discard::Length),
        ("longer than the payload", with(3, 25), Discard::Length),
        ("A bit with 24", with(1, 0xc4), Discard::Length),
        ("multiplier 0", with(2, 0), Discard::DetectMultiplier),
        ("multipoint", with(1, 0xc1), Discard::Multipoint),
    ] {
        assert_eq!(ControlPacket::decode(&bytes), Err(why), "{what}");
    }
    let mut nobody = good;
    nobody[4..8].fill(0);
    assert_eq!(ControlPacket::decode(&nobody), Err(Discard::MyDiscriminator));
    // Of several faults the first in the RFC's order counts.
    assert_eq!(ControlPacket::decode(&[0; 24]), Err(Discard::Version));
}

#[test]
fn rfc5880_6_8_6_discards_are_counted_and_change_nothing() {
    let mut hand = Hand::up();
    let before = hand.status();
    let (good, multihop) = (hand.packet(State::Down), Arrival { multihop: true, ..arrival() });
    hand.say(ControlPacket { your_discriminator: 1, ..good });
    assert_eq!(hand.discarded(Discard::YourDiscriminator), 1);
    hand.say_bytes(&good.encode(), &multihop);
    assert_eq!(hand.discarded(Discard::YourDiscriminator), 2, "the session is a single-hop one");
    hand.say(ControlPacket { your_discriminator: 0, ..hand.packet(State::Up) });
    assert_eq!(hand.discarded(Discard::State), 1);
    let unknown = ControlPacket { your_discriminator: 0, ..good }.encode();
    let from = |source: &str| Arrival { source: source.parse().unwrap(), ..arrival() };
    hand.say_bytes(&unknown, &from("10.0.0.3"));
    hand.say_bytes(&unknown, &Arrival { interface: 4, ..arrival() });
    hand.say_bytes(&unknown, &Arrival { local: "10.0.1.1".parse().unwrap(), ..arrival() });
    hand.say_bytes(&unknown, &multihop);
    assert_eq!(hand.discarded(Discard::UnknownSender), 4);
    // A bit, a section of two bytes, and no authentication configured.
    let mut signed = good.encode().to_vec();
    signed[1] |= 0x04;
    signed[3] = 26;
    signed.extend_from_slice(&[1, 2]);
    hand.say_bytes(&signed, &arrival());
    assert_eq!(hand.discarded(Discard::Authentication), 1);
    assert_eq!(hand.status(), before);
    assert_eq!(hand.monitor.discards().map(|(_, count)| count).sum::<u64>(), 8);
}

#[test]
fn rfc5881_5_what_passed_a_router_is_discarded_on_one_link_and_taken_over_several() {
    let mut hand = Hand::up();
    let down = hand.packet(State::Down).encode();
    for hop_limit in [Some(254), Some(1), None] {
        hand.say_bytes(&down, &Arrival { hop_limit, ..arrival() });
    }
    assert_eq!((hand.discarded(Discard::HopLimit), hand.state()), (3, State::Up));
    let mut far = Hand::new(|config| {
        config.path.multihop = true;
        config.path.interface = None;
    });
    let packet = ControlPacket { your_discriminator: 0, ..far.packet(State::Down) };
    let arrival = Arrival { multihop: true, hop_limit: Some(60), interface: 9, ..arrival() };
    far.say_bytes(&packet.encode(), &arrival);
    assert_eq!(far.state(), State::Init);
}

#[test]
fn rfc5880_6_3_a_packet_that_knows_us_is_ours_whatever_its_source() {
    let mut hand = Hand::up();
    let down = hand.packet(State::Down).encode();
    hand.say_bytes(&down, &Arrival { source: "10.0.0.77".parse().unwrap(), interface: 8, ..arrival() });
    assert_eq!(hand.state(), State::Down);
}

// ---- §6.2, §6.8.6: the machine, all of it

#[test]
fn rfc5880_6_8_6_every_state_and_every_state_heard() {
    use State::{AdminDown, Down, Init, Up};
    let reach = |state: State| {
        let mut hand = Hand::new(|_| {});
        match state {
            Down => {}
            Init => hand.say(ControlPacket { your_discriminator: 0, ..hand.packet(Down) }),
            Up => hand.bring_up(),
            AdminDown => unreachable!("a session that is AdminDown leaves"),
        }
        assert_eq!(hand.state(), state);
        hand
    };
    let table = [
        (Down, AdminDown, Down, 0),
        (Down, Down, Init, 0),
        (Down, Init, Up, 0),
        (Down, Up, Down, 0),
        (Init, AdminDown, Down, 3),
        (Init, Down, Init, 0),
        (Init, Init, Up, 0),
        (Init, Up, Up, 0),
        (Up, AdminDown, Down, 3),
        (Up, Down, Down, 3),
        (Up, Init, Up, 0),
        (Up, Up, Up, 0),
    ];
    for (own, heard, next, diagnostic) in table {
        let mut hand = reach(own);
        hand.changes.clear();
        hand.say(hand.packet(heard));
        let status = hand.status();
        assert_eq!((status.state, status.diagnostic), (next, Diagnostic(diagnostic)), "{own} hears {heard}");
        let change = (own, next, Diagnostic(diagnostic));
        assert_eq!(hand.changes, if own == next { vec![] } else { vec![change] }, "{own} hears {heard}");
        assert_eq!(hand.failures, usize::from(own == Up && heard == Down), "{own} hears {heard}");
    }
}

#[test]
fn rfc5882_3_2_a_peer_that_is_switched_off_is_no_failure() {
    let mut hand = Hand::up();
    hand.say(hand.packet(State::AdminDown));
    let status = hand.status();
    assert_eq!((hand.failures, status.state, status.is_remote_admin_down()), (0, State::Down, true));
    // It is silent from here on: still none.
    hand.run_for(10_000 * MS);
    assert_eq!((hand.failures, hand.status().is_remote_admin_down()), (0, true));
    hand.bring_up();
    hand.run_for(10_000 * MS);
    assert_eq!((hand.failures, hand.status().is_remote_admin_down()), (1, false), "this time it is one");
}

// ---- §6.8.7: sending

#[test]
fn rfc5880_6_8_3_a_session_that_is_not_up_sends_once_a_second() {
    let mut hand = Hand::new(|_| {});
    assert_eq!(hand.sent.len(), 1, "the first at once");
    let first = hand.last();
    assert_eq!((first.state, first.desired_min_tx, first.required_min_rx), (State::Down, 1_000_000, 100_000));
    assert_eq!((first.your_discriminator, first.required_min_echo_rx, first.poll), (0, 0, false));
    assert_ne!(first.my_discriminator, 0);
    hand.run_for(20_000 * MS);
    for gap in hand.gaps(0) {
        assert!((750 * MS..=1000 * MS).contains(&gap), "{gap:?}");
    }
}

#[test]
fn rfc5880_6_8_7_jitter_is_75_to_100_percent_and_with_multiplier_1_to_90() {
    for (multiplier, most) in [(3, 100), (1, 90)] {
        let mut hand = Hand::new(|config| config.timing = timing(100, multiplier));
        hand.bring_up();
        hand.run_heard(1000 * MS);
        let from = hand.sent.len();
        hand.run_heard(60_000 * MS);
        let gaps = hand.gaps(from);
        let (least, longest) = (*gaps.iter().min().unwrap(), *gaps.iter().max().unwrap());
        assert!(gaps.len() > 500 && least >= 75 * MS && longest <= most * MS, "{least:?} {longest:?}");
        assert!(longest - least > 10 * MS, "there is jitter at all");
    }
}

#[test]
fn rfc5880_6_8_2_the_slower_of_both_decides() {
    let mut hand = Hand::up();
    hand.run_heard(1000 * MS);
    assert_eq!(hand.status().transmit_interval, 100 * MS);
    hand.say(ControlPacket { required_min_rx: 400_000, ..hand.packet(State::Up) });
    assert_eq!(hand.status().transmit_interval, 400 * MS);
    // 0: no periodic packets at all; a question is answered all the same.
    hand.say(ControlPacket { required_min_rx: 0, ..hand.packet(State::Up) });
    let before = hand.sent.len();
    hand.run_for(250 * MS);
    assert_eq!(hand.sent.len(), before);
    hand.say(ControlPacket { required_min_rx: 0, poll: true, ..hand.packet(State::Up) });
    assert!(hand.sent.len() == before + 1 && hand.last().is_final && !hand.last().poll);
}

#[test]
fn rfc5880_6_8_7_a_change_of_state_is_told_at_once() {
    let mut hand = Hand::new(|_| {});
    hand.run_for(300 * MS);
    hand.say(ControlPacket { your_discriminator: 0, ..hand.packet(State::Down) });
    assert_eq!((hand.sent.last().unwrap().0, hand.last().state), (hand.now, State::Init));
    assert_eq!(hand.last().your_discriminator, 99);
    hand.say(hand.packet(State::Init));
    assert_eq!((hand.sent.last().unwrap().0, hand.last().state), (hand.now, State::Up));
}

#[test]
fn rfc5880_6_6_a_peer_in_demand_mode_is_left_alone_while_both_are_up() {
    let mut hand = Hand::up();
    hand.run_heard(1000 * MS);
    let quiet = ControlPacket { demand: true, ..hand.packet(State::Up) };
    let before = hand.sent.len();
    for _ in 0..10 {
        hand.say(quiet);
        hand.run_for(90 * MS);
    }
    assert_eq!(hand.sent.len(), before);
    // A Poll Sequence of ours is sent all the same.
    hand.configure(|config| config.timing = timing(200, 3));
    hand.run_for(90 * MS);
    assert!(hand.last().poll);
}

#[test]
fn rfc5880_6_1_the_passive_end_waits_for_the_first_packet() {
    let mut hand = Hand::new(|config| config.timing.passive = true);
    hand.run_for(10_000 * MS);
    assert_eq!(hand.sent.len(), 0);
    hand.say(ControlPacket { your_discriminator: 0, ..hand.packet(State::Down) });
    assert_eq!((hand.last().state, hand.last().your_discriminator), (State::Init, 99));
    // The peer is gone: quiet again.
    hand.run_for(5_000 * MS);
    let before = hand.sent.len();
    hand.run_for(10_000 * MS);
    assert_eq!((hand.state(), hand.sent.len()), (State::Down, before));
}

// ---- §6.8.4: detection

#[test]
fn rfc5880_6_8_4_down_after_the_peers_multiplier_times_the_slower_interval() {
    for (theirs, desired, detection) in
        [(3, 100_000, 300), (5, 100_000, 500), (3, 250_000, 750), (2, 10_000, 200)]
    {
        let mut hand = Hand::up();
        hand.run_heard(500 * MS);
        hand.say(ControlPacket {
            detect_multiplier: theirs,
            desired_min_tx: desired,
            ..hand.packet(State::Up)
        });
        assert_eq!(hand.status().detection_time, Some(detection * MS));
        hand.run_for((detection - 1) * MS);
        assert_eq!(hand.state(), State::Up);
        hand.run_for(MS);
        assert_eq!((hand.state(), hand.failures), (State::Down, 1));
        assert_eq!(hand.status().diagnostic, Diagnostic::DETECTION_TIME_EXPIRED);
        let told = hand.last();
        assert_eq!((told.state, told.diagnostic), (State::Down, Diagnostic::DETECTION_TIME_EXPIRED));
        assert_eq!(
            (told.your_discriminator, told.desired_min_tx),
            (0, 1_000_000),
            "§6.8.1: the peer is forgotten"
        );
    }
}

#[test]
fn rfc5880_6_8_6_only_what_was_not_discarded_counts_as_heard() {
    let mut hand = Hand::up();
    hand.run_heard(500 * MS);
    for _ in 0..3 {
        hand.run_for(100 * MS);
        hand.say(ControlPacket { detect_multiplier: 0, ..hand.packet(State::Up) });
    }
    assert_eq!(hand.state(), State::Down);
}

// ---- §6.5, §6.8.3: Poll Sequences

#[test]
fn rfc5880_6_5_up_begins_a_poll_and_final_ends_it() {
    let mut hand = Hand::up();
    assert!(hand.last().poll && hand.last().desired_min_tx == 100_000, "Up: no longer one second");
    hand.run_for(90 * MS);
    hand.say(hand.packet(State::Up));
    hand.run_for(90 * MS);
    assert!(hand.last().poll, "not answered yet");
    hand.say(ControlPacket { is_final: true, ..hand.packet(State::Up) });
    hand.run_for(100 * MS);
    assert!(!hand.last().poll);
}

#[test]
fn rfc5880_6_8_7_a_poll_is_answered_at_once_and_never_by_a_poll() {
    let mut hand = Hand::up();
    let before = hand.sent.len();
    hand.say(ControlPacket { poll: true, ..hand.packet(State::Up) });
    assert_eq!((hand.sent.len(), hand.sent.last().unwrap().0), (before + 1, hand.now));
    assert!(hand.last().is_final && !hand.last().poll);
}

#[test]
fn rfc5880_6_8_3_longer_intervals_count_once_the_peer_has_confirmed_them() {
    let mut hand = Hand::up();
    hand.run_heard(500 * MS);
    hand.changes.clear();
    hand.configure(|config| config.timing = timing(300, 3));
    assert_eq!(hand.status().transmit_interval, 100 * MS, "the peer counts on it still");
    assert_eq!(hand.status().detection_time, Some(900 * MS), "a longer detection time is safe at once");
    hand.run_for(100 * MS);
    assert_eq!(
        (hand.last().poll, hand.last().desired_min_tx, hand.last().required_min_rx),
        (true, 300_000, 300_000)
    );
    hand.say(ControlPacket { is_final: true, ..hand.packet(State::Up) });
    assert_eq!(hand.status().transmit_interval, 300 * MS);
    assert_eq!(hand.changes, [], "no flap");
}

#[test]
fn rfc5880_6_8_3_a_shorter_receive_interval_counts_once_the_peer_has_confirmed_it() {
    let mut hand = Hand::up();
    hand.run_heard(500 * MS);
    hand.configure(|config| config.timing = timing(20, 3));
    let fast = |hand: &Hand| ControlPacket { desired_min_tx: 20_000, ..hand.packet(State::Up) };
    hand.say(fast(&hand));
    assert_eq!(hand.status().detection_time, Some(300 * MS), "the peer still sends as slowly as before");
    hand.run_for(100 * MS);
    assert!(hand.last().poll && hand.last().required_min_rx == 20_000);
    hand.say(ControlPacket { is_final: true, ..fast(&hand) });
    assert_eq!(hand.status().detection_time, Some(60 * MS));
}

#[test]
fn rfc5880_6_5_a_change_within_a_poll_is_polled_again() {
    let mut hand = Hand::up();
    hand.run_heard(500 * MS);
    hand.configure(|config| config.timing = timing(300, 3));
    hand.run_for(100 * MS);
    assert!(hand.last().poll);
    hand.configure(|config| config.timing = timing(500, 3));
    // This one may speak of 300 ms.
    hand.say(ControlPacket { is_final: true, ..hand.packet(State::Up) });
    assert_eq!(hand.status().transmit_interval, 100 * MS);
    hand.run_for(100 * MS);
    assert_eq!((hand.last().poll, hand.last().desired_min_tx), (true, 500_000));
    hand.say(ControlPacket { is_final: true, ..hand.packet(State::Up) });
    assert_eq!(hand.status().transmit_interval, 500 * MS);
    // One that answers nothing ends nothing.
    hand.configure(|config| config.timing = timing(700, 3));
    hand.say(ControlPacket { is_final: true, ..hand.packet(State::Up) });
    assert_eq!(hand.status().transmit_interval, 500 * MS);
}

// ---- §6.8.16: switched off

#[test]
fn rfc5880_6_8_16_a_session_that_is_not_wanted_any_more_says_admin_down_for_a_detection_time() {
    let mut hand = Hand::up();
    hand.run_heard(500 * MS);
    let id = hand.discriminator();
    let until = hand.monitor.stop(hand.now);
    hand.drain();
    assert_eq!(until, Some(hand.now + 300 * MS));
    let told = hand.last();
    assert_eq!((told.state, told.diagnostic, told.poll), (State::AdminDown, Diagnostic(7), false));
    // It answers nothing more, and is gone in the end.
    let before = hand.sent.len();
    hand.say(ControlPacket { poll: true, your_discriminator: id, ..hand.packet(State::Up) });
    assert_eq!((hand.sent.len(), hand.discarded(Discard::AdminDown)), (before, 1));
    hand.run_for(300 * MS);
    assert_eq!((hand.closed, hand.monitor.poll_timeout()), (vec![id], None));
}

#[test]
fn a_session_that_nobody_heard_leaves_without_a_word() {
    let mut hand = Hand::new(|_| {});
    let before = hand.sent.len();
    assert_eq!(hand.monitor.stop(hand.now), None);
    hand.drain();
    assert_eq!((hand.sent.len(), hand.closed.len()), (before, 1));
}

#[test]
fn another_path_is_another_session_and_its_predecessor_says_goodbye() {
    let mut hand = Hand::up();
    let first = hand.discriminator();
    let before = hand.sent.len();
    hand.configure(|config| config.path.local = "10.0.0.9".parse().unwrap());
    let sent: Vec<(State, bool)> = hand.sent[before..]
        .iter()
        .map(|(_, packet)| (packet.state, packet.my_discriminator == first))
        .collect();
    assert_eq!(sent, [(State::AdminDown, true), (State::Down, false)]);
    assert_eq!((hand.failures, hand.closed), (0, vec![first]));
}

#[test]
fn two_sessions_over_two_links_to_one_link_local_address_are_told_apart() {
    let far = |interface| Path {
        remote: "fe80::1".parse().unwrap(),
        local: "fe80::2".parse().unwrap(),
        interface: Some(interface),
        multihop: false,
    };
    let mut hand = Hand::new(|_| {});
    let config = |interface| SessionConfig { path: far(interface), timing: timing(100, 3) };
    let wanted = BTreeMap::from([("a".into(), config(3)), ("b".into(), config(4))]);
    hand.monitor.configure(&wanted, hand.now);
    let down = ControlPacket { your_discriminator: 0, ..hand.packet(State::Down) };
    let Path { remote, local, .. } = far(4);
    hand.say_bytes(&down.encode(), &Arrival { source: remote, local, interface: 4, ..arrival() });
    let state = |name: &str| hand.monitor.status(&name.into()).unwrap().state;
    assert_eq!((state("a"), state("b")), (State::Down, State::Init));
}
