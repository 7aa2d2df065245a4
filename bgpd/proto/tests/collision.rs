//! Connection collision (RFC 4271 §6.8): both sides dial at once, and everything that can interleave does.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use bgp_proto::config::{PeerConfig, RemoteAsn, SpeakerConfig};
use bgp_proto::fsm::State;
use bgp_proto::policy::{ExportPolicy, ImportPolicy};
use bgp_proto::{Asn, ConnId, Input, Output, PeerName, RouterId, SessionEvent, Speaker};

/// What one connection carries towards one side.
enum Item {
    Bytes(Vec<u8>),
    Fin,
}

struct Side {
    speaker: Speaker,
    open: BTreeSet<ConnId>,
    dialling: bool,
    errors: Vec<String>,
}

/// Two sides, two connections: number 1 dialled by side 0, number 2 by side 1. Nothing moves unless chosen.
struct Pair {
    sides: [Side; 2],
    /// Towards a side, of a connection: in order within, in any order between.
    flights: BTreeMap<(usize, ConnId), VecDeque<Item>>,
    dialled: [u64; 2],
    now: Instant,
}

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Move {
    /// The dial of a side arrives: accepted there, connected here.
    Connect(usize),
    /// The next item of a connection arrives at a side.
    Deliver(usize, ConnId),
}

fn peer() -> PeerName {
    PeerName::from("peer")
}

fn at(side: usize, port: u16) -> SocketAddr {
    let last = u8::try_from(side + 1).unwrap();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), port)
}

impl Pair {
    /// `ids`: last octet of each side's identifier.
    fn new(ids: [u8; 2], asns: [u32; 2]) -> Pair {
        let now = Instant::now();
        let side = |me: usize| {
            let mut config = SpeakerConfig::new(Asn(asns[me]), RouterId(Ipv4Addr::new(1, 1, 1, ids[me])));
            let to = PeerConfig::new(
                at(1 - me, 179).ip(),
                RemoteAsn::Exactly(Asn(asns[1 - me])),
                ImportPolicy::accept_all(),
                ExportPolicy::default(),
            );
            config.peers.insert(peer(), to);
            let mut speaker = Speaker::new(u64::try_from(me).unwrap(), now);
            speaker.handle_input(Input::Configure(config), now);
            Side { speaker, open: BTreeSet::new(), dialling: false, errors: Vec::new() }
        };
        let mut pair = Pair { sides: [side(0), side(1)], flights: BTreeMap::new(), dialled: [0, 0], now };
        pair.drain(0);
        pair.drain(1);
        pair
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves: Vec<Move> =
            (0..2).filter(|side| self.sides[*side].dialling).map(Move::Connect).collect();
        let loaded = self.flights.iter().filter(|(_, items)| !items.is_empty());
        moves.extend(loaded.map(|((side, conn), _)| Move::Deliver(*side, *conn)));
        moves
    }

    fn make(&mut self, step: Move) {
        let now = self.now;
        match step {
            Move::Connect(from) => {
                let to = 1 - from;
                // Odd numbers are dialled by side 0, even ones by side 1.
                let conn = ConnId(self.dialled[from] * 2 + u64::try_from(from).unwrap() + 1);
                self.dialled[from] += 1;
                self.sides[from].dialling = false;
                for side in [from, to] {
                    self.sides[side].open.insert(conn);
                }
                let (near, far) = (at(from, 40000), at(to, 179));
                self.sides[to].speaker.handle_input(Input::Accepted { conn, local: far, remote: near }, now);
                self.drain(to);
                let input = Input::Connected { conn, peer: peer(), local: near, remote: far };
                self.sides[from].speaker.handle_input(input, now);
                self.drain(from);
            }
            Move::Deliver(side, conn) => {
                let item = self.flights.get_mut(&(side, conn)).unwrap().pop_front().unwrap();
                if !self.sides[side].open.contains(&conn) {
                    return;
                }
                match item {
                    Item::Bytes(bytes) => {
                        self.sides[side].speaker.handle_input(Input::Bytes { conn, bytes: &bytes }, now);
                    }
                    Item::Fin => {
                        self.sides[side].open.remove(&conn);
                        self.sides[side].speaker.handle_input(Input::Closed { conn, error: None }, now);
                    }
                }
                self.drain(side);
            }
        }
    }

    fn drain(&mut self, side: usize) {
        loop {
            while let Some(output) = self.sides[side].speaker.poll_output() {
                match output {
                    Output::Dial { .. } => self.sides[side].dialling = true,
                    Output::CancelDial { .. } => self.sides[side].dialling = false,
                    Output::Close { conn, last_bytes } | Output::Refuse { conn, last_bytes } => {
                        self.sides[side].open.remove(&conn);
                        let flight = self.flights.entry((1 - side, conn)).or_default();
                        flight.push_back(Item::Bytes(last_bytes));
                        flight.push_back(Item::Fin);
                    }
                    Output::Event(SessionEvent::Error { error, .. }) => {
                        self.sides[side].errors.push(error.to_string());
                    }
                    Output::Fib(_) | Output::FibComplete { .. } | Output::TrackNextHop { .. } => {}
                    Output::Event(_) => {}
                }
            }
            let conns: Vec<ConnId> = self.sides[side].speaker.connections().collect();
            let mut moved = false;
            for conn in conns {
                if let Some(bytes) = self.sides[side].speaker.poll_transmit(conn) {
                    let bytes = bytes.to_vec();
                    self.sides[side].speaker.transmitted(conn, bytes.len());
                    self.flights.entry((1 - side, conn)).or_default().push_back(Item::Bytes(bytes));
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn state(&self, side: usize) -> State {
        self.sides[side].speaker.peer(&peer()).unwrap().state
    }
}

/// What each side sees of a path. Moves of different sides commute, so paths that look the same to both are one.
fn views(path: &[Move]) -> [Vec<Move>; 2] {
    [0, 1].map(|side| {
        path.iter().copied().filter(|step| !matches!(step, Move::Deliver(to, _) if *to != side)).collect()
    })
}

/// Plays every order of the first `depth` moves (what follows is taken as it comes), by replaying. Returns how many there
/// were.
fn every_order(ids: [u8; 2], asns: [u32; 2], depth: usize, check: impl Fn(&mut Pair, &[Move])) -> usize {
    let (mut orders, mut seen) = (0, BTreeSet::new());
    let mut stack: Vec<Vec<Move>> = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        if !seen.insert(views(&path)) {
            continue;
        }
        let mut pair = Pair::new(ids, asns);
        for step in &path {
            pair.make(*step);
        }
        let moves = pair.moves();
        if moves.is_empty() || path.len() == depth {
            let mut rest = path.clone();
            while let Some(step) = pair.moves().first().copied() {
                pair.make(step);
                rest.push(step);
            }
            orders += 1;
            check(&mut pair, &rest);
            continue;
        }
        stack.extend(moves.into_iter().map(|step| [&path[..], &[step]].concat()));
    }
    orders
}

/// One session, the same one on both sides, or (where both sides met a session before they could compare identifiers, and
/// graceful restart takes the later OPEN for a restart) none yet and both ready to try again.
fn settled(pair: &Pair, path: &[Move]) -> bool {
    let states = [pair.state(0), pair.state(1)];
    if states == [State::Established; 2] {
        assert_eq!(pair.sides[0].open, pair.sides[1].open, "{path:?}");
        assert_eq!(pair.sides[0].open.len(), 1, "one connection is left: {path:?}");
        return true;
    }
    for side in 0..2 {
        assert!(pair.sides[side].open.is_empty(), "{states:?} with a connection: {path:?}");
        let waits = pair.sides[side].speaker.poll_timeout().is_some();
        assert!(waits, "nobody would ever try again: {states:?} {path:?}");
    }
    false
}

/// Time passes; dials now take longer than a handshake, so the jitter of the retry timers decides who is first.
fn try_again(pair: &mut Pair, path: &[Move]) {
    for _ in 0..20 {
        let timers = pair.sides.iter().filter_map(|side| side.speaker.poll_timeout());
        pair.now = timers.min().unwrap();
        for side in 0..2 {
            if pair.sides[side].speaker.poll_timeout().is_some_and(|at| at <= pair.now) {
                pair.sides[side].speaker.handle_input(Input::Timeout, pair.now);
                pair.drain(side);
            }
        }
        while let Some(step) = pair.moves().first().copied() {
            pair.make(step);
        }
        if settled(pair, path) {
            return;
        }
    }
    panic!("no session after 20 timers: {path:?}");
}

#[test]
fn rfc4271_6_8_every_interleaving_ends_with_one_session() {
    for (ids, asns) in [([1, 2], [65001, 65002]), ([2, 1], [65001, 65002]), ([1, 2], [65001, 65001])] {
        let (met, counts) = (std::cell::Cell::new(0), std::cell::RefCell::new([0usize; 3]));
        let orders = every_order(ids, asns, 9, |pair, path| {
            if !settled(pair, path) {
                try_again(pair, path);
            } else {
                met.set(met.get() + 1);
                let both_dialled = path.iter().filter(|step| matches!(step, Move::Connect(_))).count() == 2;
                let kept = pair.sides[0].open.first().unwrap().0;
                counts.borrow_mut()[usize::try_from(kept).unwrap()] += usize::from(both_dialled);
            }
        });
        let met = met.get();
        eprintln!("identifiers {ids:?}: {orders} orders, {met} with a session at once, kept {counts:?}");
        assert!(orders > 100, "{orders}");
        assert!(met * 10 >= orders * 9, "{met} of {orders}");
    }
}

/// Both connections up, both OPENs in flight, then OPENs before anything else: identifiers alone decide.
fn tie_break(ids: [u8; 2], asns: [u32; 2]) -> u64 {
    let mut pair = Pair::new(ids, asns);
    pair.make(Move::Connect(0));
    pair.make(Move::Connect(1));
    for side in 0..2 {
        for conn in [ConnId(1), ConnId(2)] {
            pair.make(Move::Deliver(side, conn));
        }
    }
    while let Some(step) = pair.moves().first().copied() {
        pair.make(step);
    }
    assert!(settled(&pair, &[]));
    pair.sides[0].open.first().unwrap().0
}

#[test]
fn rfc4271_6_8_the_higher_identifier_keeps_its_connection() {
    assert_eq!(tie_break([9, 1], [65001, 65002]), 1);
    assert_eq!(tie_break([1, 9], [65001, 65002]), 2);
}

#[test]
fn rfc6286_2_3_equal_identifiers_leave_it_to_the_as() {
    assert_eq!(tie_break([5, 5], [65002, 65001]), 1);
    assert_eq!(tie_break([5, 5], [65001, 65002]), 2);
}

#[test]
fn losing_a_collision_is_no_error_to_report() {
    for ids in [[9, 1], [1, 9]] {
        let mut pair = Pair::new(ids, [65001, 65002]);
        pair.make(Move::Connect(0));
        pair.make(Move::Connect(1));
        while let Some(step) = pair.moves().first().copied() {
            pair.make(step);
        }
        assert!(settled(&pair, &[]));
        for side in &pair.sides {
            assert!(side.errors.is_empty(), "{:?}", side.errors);
        }
    }
}
