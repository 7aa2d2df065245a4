//! A whole speaker and a world that does anything: bytes, connections, time, configuration.

use std::time::Duration;

use bgp_proto::config::AddPath;
use bgp_proto::fsm::State;
use bgp_proto::wire::message::encode;
use bgp_proto::wire::{AddPathFamily, Capability, MessageType};
use bgp_proto::{ConnId, Input, TransportErrorKind};

use super::part;
use crate::hand::{Hand, announce, end_of_rib, keepalive, notification, open, refresh, restarted};

/// What the octets of an input mean; [`SAY`] and the two behind it take a part that follows.
pub(crate) const CONNECT: u8 = 0;
pub(crate) const SAY: u8 = 1;
pub(crate) const WAIT: u8 = 2;
const FRAMED: u8 = 3;
const OPEN: u8 = 4;

/// Deeds of one input, so that each ends soon.
const MOST_DEEDS: usize = 200;

/// The peer tells and takes several paths of IPv4 prefixes.
fn several_paths() -> Capability {
    Capability::AddPath(vec![AddPathFamily { afi: 1, safi: 1, receive: true, send: true }])
}

/// As [`announce`], with a path identifier.
fn announce_path(n: u8, id: u8) -> Vec<u8> {
    let mut out = announce(n);
    let prefix = out.split_off(out.len() - 4);
    out.extend([0, 0, 0, id]);
    out.extend(prefix);
    out[17] += 4;
    out
}

pub(super) struct Chaos {
    pub(super) hand: Hand,
    /// The latest connection.
    pub(super) conn: u64,
}

pub(super) fn run(mut data: &[u8]) {
    let mut chaos = Chaos::new();
    for _ in 0..MOST_DEEDS {
        let Some((deed, rest)) = data.split_first() else { break };
        data = rest;
        chaos.play(*deed, &mut data);
        chaos.check();
    }
    chaos.a_sane_peer_is_served();
}

impl Chaos {
    pub(super) fn new() -> Chaos {
        Chaos { hand: Hand::new(|_| {}), conn: 0 }
    }

    pub(super) fn play(&mut self, deed: u8, data: &mut &[u8]) {
        // The upper bits choose among the latest connections, the one of now first.
        let conn = ConnId(self.conn.saturating_sub(u64::from(deed >> 6)));
        let hand = &mut self.hand;
        let mut octet = || data.split_off_first().copied().unwrap_or_default();
        match deed & 0x1F {
            CONNECT => {
                self.conn += 1;
                hand.connect(ConnId(self.conn));
            }
            SAY => hand.bytes(conn, part(data).unwrap_or_default()),
            WAIT => hand.run_for(Duration::from_millis(u64::from(octet()) * 500)),
            FRAMED => {
                let kind = MessageType::from_number(octet() % 5 + 1).unwrap();
                let (mut out, body) = (Vec::new(), part(data).unwrap_or_default());
                encode(kind, &mut out, |out| out.extend_from_slice(&body[..body.len().min(4077)]));
                hand.bytes(conn, &out);
            }
            OPEN => hand.bytes(conn, &open(&[])),
            5 => hand.bytes(conn, &open(&[restarted(octet() & 1 == 1)])),
            6 => hand.bytes(conn, &keepalive()),
            7 => hand.bytes(conn, &announce(octet())),
            8 => hand.bytes(conn, &end_of_rib()),
            9 => hand.bytes(conn, &refresh(1, octet() % 4, 1)),
            10 => hand.bytes(conn, &notification(octet(), octet(), &[])),
            11 => {
                self.conn += 1;
                hand.accept(ConnId(self.conn));
            }
            12 => hand.dial_fails(TransportErrorKind::TimedOut),
            13 => hand.close(conn),
            14 => hand.link_down(),
            15 => hand.reset("chaos"),
            16 => hand.refresh_wanted(),
            17 => hand.originate(&format!("10.245.{}.0/24", octet())),
            18 => {
                let limit = u32::from(octet());
                hand.configure(|config| config.max_prefixes.ipv4 = limit);
            }
            19 => hand.reads = !hand.reads,
            20 => hand.input(Input::Timeout),
            21 => {
                let hold_time = Duration::from_secs(u64::from(octet()));
                hand.configure(|config| config.hold_time = hold_time);
            }
            22 => hand.run_to_next_timer(),
            23 => hand.bytes(conn, &open(&[several_paths()])),
            24 => {
                let (receive, send) = (octet() & 1 == 1, octet() % 5);
                hand.configure(|config| config.add_path = AddPath { receive, send });
            }
            25 => hand.bytes(conn, &announce_path(octet(), octet())),
            _ => hand.bytes(conn, &[octet()]),
        }
    }

    fn check(&self) {
        let speaker = &self.hand.speaker;
        assert!(speaker.connections().count() <= 2, "more than two connections of one peer");
        let due = speaker.poll_timeout().is_some_and(|at| at <= self.hand.now);
        assert!(!due, "a timer is due after it was served");
        if let Err(what) = speaker.check_invariants() {
            panic!("{what}");
        }
    }

    /// Whatever happened before.
    fn a_sane_peer_is_served(mut self) {
        let hand = &mut self.hand;
        hand.reads = true;
        hand.configure(|config| {
            config.max_prefixes.ipv4 = 1000;
            config.add_path = AddPath::default();
            config.hold_time = Duration::from_secs(30);
        });
        hand.run_for(Duration::ZERO);
        hand.reset("");
        let conn = ConnId(self.conn + 1);
        hand.connect(conn);
        hand.bytes(conn, &open(&[]));
        hand.bytes(conn, &keepalive());
        assert_eq!(hand.state(), State::Established);
        hand.bytes(conn, &announce(77));
        assert_eq!(hand.received(), 1);
        hand.speaker.check_invariants().unwrap();
    }
}
