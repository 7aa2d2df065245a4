//! What the fuzzers run, each with its invariants: from `fuzz/`, where libFuzzer makes the bytes up, and from `corpus.rs`, which
//! replays what they found. A target panics where an invariant does not hold.
#![allow(dead_code)]

pub(crate) mod bfd;
pub(crate) mod bmp;
mod speaker;

use bgp_proto::PeerId;
use bgp_proto::wire::message::encode;
use bgp_proto::wire::{Capability, Framer, MessageType, Notification, Open, RouteRefresh, display};

use crate::updates::listener::{Listener, PEERS, peer};
use crate::updates::{OWN_AS, rib, settle, transmitted};

pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
    /// Octets of memory that one input may take: so many, and so many for each of its octets.
    pub(crate) memory: (usize, usize),
}

pub(crate) const TARGETS: [Target; 8] = [
    Target { name: "bfd", run: bfd::run, memory: (64 << 10, 64) },
    Target { name: "bmp", run: bmp::run, memory: (2 << 20, 4096) },
    Target { name: "framing", run: framing, memory: (160 << 10, 8) },
    Target { name: "open", run: open, memory: (16 << 10, 64) },
    Target { name: "capabilities", run: capability, memory: (16 << 10, 64) },
    Target { name: "notification", run: notification, memory: (16 << 10, 16) },
    Target { name: "update", run: update, memory: (512 << 10, 256) },
    Target { name: "speaker", run: speaker::run, memory: (1 << 20, 1024) },
];

impl Target {
    pub(crate) fn named(name: &str) -> &'static Target {
        TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
            let names = TARGETS.map(|target| target.name).join(", ");
            panic!("no target is called {name:?}: {names}")
        })
    }

    /// The most that an input of this length may take at any moment.
    pub(crate) fn most(&self, length: usize) -> usize {
        self.memory.0 + self.memory.1 * length
    }
}

/// The messages of a stream that arrives in pieces as `cut` says, and the error that ends it.
fn messages(
    data: &[u8],
    extended: bool,
    cut: impl Fn(usize) -> usize,
) -> Vec<Result<(u8, Vec<u8>), Notification>> {
    let (mut framer, mut out, mut at) = (Framer::default(), Vec::new(), 0);
    if extended {
        framer.expect_extended();
    }
    while at < data.len() {
        let end = (at + cut(at).max(1)).min(data.len());
        let mut piece = &data[at..end];
        while let Some(frame) = framer.next(&mut piece) {
            match frame {
                Ok(frame) => out.push(Ok((frame.message_type.number(), frame.body.to_vec()))),
                Err(notification) => {
                    out.push(Err(notification));
                    return out;
                }
            }
        }
        at = end;
    }
    out
}

/// RFC 4271 §4.1: a stream means the same however it is cut, and what was cut out of it is what was in it.
fn framing(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let extended = first & 1 != 0;
    let whole = messages(data, extended, |_| usize::MAX >> 1);
    assert_eq!(whole, messages(data, extended, |_| 1), "octet by octet");
    let uneven = |at: usize| usize::from(data[at]) % 40 + usize::from(first >> 1);
    assert_eq!(whole, messages(data, extended, uneven), "in pieces");
    let mut again = Vec::new();
    for (kind, body) in whole.into_iter().flatten() {
        let kind = MessageType::from_number(kind).unwrap();
        encode(kind, &mut again, |out| out.extend_from_slice(&body));
    }
    assert!(data.starts_with(&again));
}

/// RFC 4271 §4.2, RFC 5492 §4, RFC 9072 §2: what was read is written so that it reads the same.
fn open(body: &[u8]) {
    let Ok(open) = Open::decode(body) else { return };
    let mut again = Vec::new();
    open.encode(&mut again);
    assert_eq!(Open::decode(&again).as_ref(), Ok(&open));
    let _ = open.asn();
}

/// A code, then the value.
fn capability(data: &[u8]) {
    let Some((code, value)) = data.split_first() else { return };
    let value = &value[..value.len().min(255)];
    let capability = Capability::decode(*code, value);
    assert_eq!(capability.code(), *code);
    let mut again = Vec::new();
    capability.encode(&mut again);
    assert_eq!(usize::from(again[1]), again.len() - 2);
    assert_eq!(Capability::decode(again[0], &again[2..]), capability);
    let _ = capability.is_malformed();
}

/// RFC 4271 §4.5, RFC 9003 §2.
fn notification(body: &[u8]) {
    if let Some(refresh) = RouteRefresh::decode(body) {
        let mut again = Vec::new();
        refresh.encode(&mut again);
        assert_eq!(RouteRefresh::decode(&again), Some(refresh));
    }
    let Some(notification) = Notification::decode(&body[..body.len().min(4077)]) else { return };
    let mut again = Vec::new();
    notification.encode(&mut again);
    assert_eq!(Notification::decode(&again).as_ref(), Some(&notification));
    assert!(!notification.name().to_string().is_empty());
    let text = notification.text().unwrap_or_default();
    assert!(text.chars().count() <= 255 && text.chars().all(|c| !c.is_control()), "{text:?}");
    let cease = Notification::cease_with_text(2, &text);
    assert!(cease.data.len() <= 256);
}

/// The next part of a list of parts with their lengths in front.
pub(crate) fn part<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = data.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (part, rest) = rest.split_at(length);
    *data = rest;
    Some(part)
}

/// UPDATEs of four kinds of peers: the table stays sound, and what it tells each of them has no fault in it.
fn update(mut data: &[u8]) {
    let mut rib = rib(OWN_AS, [10, 0, 0, 99]);
    (0..PEERS).for_each(|number| rib.peer_up(PeerId(number), peer(number)));
    while let [number, rest @ ..] = data {
        data = rest;
        let Some(body) = part(&mut data) else { break };
        let number = u16::from(*number) % PEERS;
        let outcome = rib.update(PeerId(number), &body[..body.len().min(4077)]);
        assert!(outcome.faults.len() <= 20, "{} faults kept", outcome.faults.len());
    }
    settle(&mut rib);
    rib.check_invariants().unwrap();
    for family in bgp_proto::AfiSafi::ALL {
        for path in rib.paths(family, None) {
            let _ = display::attributes(&path.attributes);
        }
    }
    for number in 0..PEERS {
        Listener::new(number).listen(&transmitted(&mut rib, PeerId(number)));
    }
}
