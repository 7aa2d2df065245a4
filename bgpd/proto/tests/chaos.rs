//! Any bytes, any inputs, in any state: nothing panics, nothing grows without bound, and the speaker still works.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod hand;

use std::time::Duration;

use bgp_proto::fsm::State;
use bgp_proto::{AfiSafi, ConnId, Input, TransportErrorKind};
use hand::{Hand, announce, end_of_rib, keepalive, notification, open, refresh, restarted};
use proptest::collection::vec;
use proptest::prelude::*;

/// One thing that a hostile or broken world does.
#[derive(Debug, Clone)]
enum Deed {
    Connect,
    Accept,
    DialFails,
    Say(Vec<u8>),
    SayCut(Vec<u8>, usize),
    Unread,
    Close,
    LinkDown,
    BfdDown,
    Reset,
    Refresh,
    Wait(u64),
    Originate(u8),
    Limit(u32),
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let valid = prop_oneof![
        Just(open(&[])),
        Just(open(&[restarted(true)])),
        Just(keepalive()),
        any::<u8>().prop_map(announce),
        Just(end_of_rib()),
        Just(refresh(1, 0, 1)),
        (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..20))
            .prop_map(|(code, sub, data)| notification(code, sub, &data)),
    ];
    let garbage = vec(any::<u8>(), 0..200);
    // A valid header before anything.
    let framed = (1u8..6, vec(any::<u8>(), 0..200)).prop_map(|(kind, body)| {
        let mut out = vec![0xff; 16];
        out.extend_from_slice(&u16::try_from(body.len() + 19).unwrap().to_be_bytes());
        out.push(kind);
        out.extend(body);
        out
    });
    let spoilt =
        (valid.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, value)| {
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes
        });
    prop_oneof![6 => valid, 1 => garbage, 2 => framed, 3 => spoilt]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => Just(Deed::Connect),
        3 => Just(Deed::Accept),
        1 => Just(Deed::DialFails),
        20 => message().prop_map(Deed::Say),
        4 => (message(), 0usize..50).prop_map(|(bytes, at)| Deed::SayCut(bytes, at)),
        1 => Just(Deed::Unread),
        1 => Just(Deed::Close),
        1 => Just(Deed::LinkDown),
        1 => Just(Deed::BfdDown),
        1 => Just(Deed::Reset),
        1 => Just(Deed::Refresh),
        3 => (0u64..100_000).prop_map(Deed::Wait),
        1 => any::<u8>().prop_map(Deed::Originate),
        1 => (0u32..20).prop_map(Deed::Limit),
    ]
}

fn play(hand: &mut Hand, next: &mut u64, pick: u64, deed: Deed) {
    let some = ConnId(next.saturating_sub(pick % 3));
    match deed {
        Deed::Connect => {
            *next += 1;
            hand.connect(ConnId(*next));
        }
        Deed::Accept => {
            *next += 1;
            hand.accept(ConnId(*next));
        }
        Deed::DialFails => hand.dial_fails(TransportErrorKind::TimedOut),
        Deed::Say(bytes) => hand.bytes(some, &bytes),
        Deed::SayCut(bytes, at) => {
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            hand.bytes(some, first);
            hand.bytes(some, second);
        }
        Deed::Unread => hand.input(Input::Unread { conn: some }),
        Deed::Close => hand.close(some),
        Deed::LinkDown => hand.link_down(),
        Deed::BfdDown => hand.bfd_down(),
        Deed::Reset => hand.reset("chaos"),
        Deed::Refresh => hand.refresh_wanted(),
        Deed::Wait(millis) => hand.run_for(Duration::from_millis(millis)),
        Deed::Originate(n) => hand.originate(&format!("10.245.{n}.0/24")),
        Deed::Limit(limit) => hand.configure(|config| config.max_prefixes.ipv4 = limit),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_the_speaker_still_works(deeds in vec((any::<u64>(), deed()), 1..80), kernel: bool) {
        let families: &[AfiSafi] = if kernel { &AfiSafi::ALL } else { &[] };
        let mut hand = Hand::with_kernel_routes(families, |_| {});
        let mut next = 0;
        for (pick, deed) in deeds {
            play(&mut hand, &mut next, pick, deed);
            prop_assert!(hand.speaker.connections().count() <= 2);
            let wakes = hand.speaker.poll_timeout();
            prop_assert!(wakes.is_none_or(|at| at > hand.now), "a timer is due after it was served");
        }
        // Whatever happened: a sane peer gets its session and its routes through.
        hand.configure(|config| config.max_prefixes.ipv4 = 1000);
        hand.reset("");
        hand.originate("10.246.0.0/24");
        let conn = ConnId(next + 1);
        hand.connect(conn);
        hand.bytes(conn, &open(&[]));
        hand.bytes(conn, &keepalive());
        prop_assert_eq!(hand.state(), State::Established);
        hand.bytes(conn, &announce(77));
        prop_assert_eq!(hand.received(), 1);
        let told = hand.sent(conn).iter().any(|(_, body)| body.windows(4).any(|w| w == [24, 10, 246, 0]));
        prop_assert!(told || hand.speaker.selection_deferred_until().is_some());
        hand.input(Input::Stop { restarting: false });
        prop_assert_eq!(hand.closed_with(conn), Some((6, 2)));
    }
}
