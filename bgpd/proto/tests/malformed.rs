//! Malformed messages said to a whole speaker: each is answered as the RFCs allow, counted, told once, and does no more harm than
//! its answer. The table is `malformed_table`, its rows are printed by `docs/rfc.md`.
#![allow(clippy::wildcard_enum_match_arm)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod hand;
mod malformed_table;

use std::time::Duration;

use bgp_proto::config::RemoteAsn;
use bgp_proto::fsm::State;
use bgp_proto::output::Reason;
use bgp_proto::{AfiSafi, ConnId, SessionEvent};
use hand::{Hand, keepalive};
use malformed_table::{
    Answer, Case, MARK, Session, attributes4, attributes6, cases, list, open_of, sound, update,
};

const CONN: ConnId = ConnId(1);
/// The route that the message is about, and one that it does not name.
const VICTIM: u8 = 1;
const OTHER: u8 = 2;

/// The speaker as it is before the message, with a victim and another route of each family.
fn hand_of(session: Session) -> Hand {
    let mut hand = Hand::new(|config| {
        if session == Session::Internal {
            config.remote_asn = RemoteAsn::Internal;
        }
    });
    hand.connect(CONN);
    if session == Session::Opening {
        return hand;
    }
    hand.bytes(CONN, &open_of(session));
    hand.bytes(CONN, &keepalive());
    assert_eq!(hand.state(), State::Established, "{session:?}");
    for family in families(session) {
        hand.bytes(CONN, &sound(session, family, VICTIM));
        hand.bytes(CONN, &sound(session, family, OTHER));
    }
    assert!(hand.status().malformed.is_empty(), "{session:?}: {:?}", hand.status().malformed);
    hand
}

fn families(session: Session) -> Vec<AfiSafi> {
    match session {
        Session::Opening => vec![],
        Session::Ipv4Alone => vec![AfiSafi::Ipv4Unicast],
        Session::Ipv6Alone => vec![AfiSafi::Ipv6Unicast],
        Session::External | Session::TwoOctet | Session::Internal => AfiSafi::ALL.to_vec(),
    }
}

/// MULTI_EXIT_DISC of 10.n.0.0/24 or 2001:db8:n::/48 as it is held; `None`: it is not.
fn held(hand: &Hand, family: AfiSafi, n: u8) -> Option<u32> {
    let prefix = match family {
        AfiSafi::Ipv4Unicast => format!("10.{n}.0.0/24"),
        AfiSafi::Ipv6Unicast => format!("2001:db8:{n:x}::/48"),
    };
    let paths = hand.speaker.rib().paths_to(&prefix.parse().unwrap());
    assert!(paths.len() <= 1);
    paths.first().map(|path| path.med)
}

fn observed(hand: &mut Hand, case: &Case) -> Answer {
    if hand.is_closed(CONN) {
        return hand.closed_with(CONN).map_or(Answer::End, |(code, subcode)| Answer::Reset(code, subcode));
    }
    if case.session == Session::Opening {
        hand.bytes(CONN, &keepalive());
        assert_eq!(hand.state(), State::Established, "{}", case.name);
        return Answer::Ignore;
    }
    assert_eq!(hand.state(), State::Established, "{}", case.name);
    for family in families(case.session).into_iter().filter(|family| *family != case.family) {
        let both = [held(hand, family, VICTIM), held(hand, family, OTHER)];
        assert_eq!(both, [Some(1); 2], "{}: {family} has nothing to do with it", case.name);
    }
    match (held(hand, case.family, VICTIM), held(hand, case.family, OTHER)) {
        (Some(MARK), Some(1)) => Answer::Discard,
        (Some(1), Some(1)) => Answer::Ignore,
        (None, Some(1)) => Answer::Withdraw,
        (None, None) => Answer::Disable,
        other => panic!("{}: {other:?}", case.name),
    }
}

/// Malformed messages by the counter of their reason, and what was told.
fn count(hand: &Hand) -> u64 {
    hand.status().malformed.values().sum()
}

fn told(hand: &Hand) -> usize {
    hand.events.iter().filter(|event| matches!(event, SessionEvent::Malformed { .. })).count()
}

fn check_counted(hand: &mut Hand, case: &Case, answer: Answer) {
    let (counted, told_once) = (count(hand), told(hand));
    assert_eq!(counted > 0, case.counted, "{}: {:?}", case.name, hand.status().malformed);
    let by_section = hand.status().malformed.keys().any(|known| known.rfc == case.rfc);
    assert!(by_section || !case.counted, "{}: {:?}", case.name, hand.status().malformed);
    match answer {
        Answer::Reset(..) if case.counted => {
            let (_, error) = hand.status().last_error.unwrap();
            assert!(!error.text.is_empty(), "{}: the operator is told nothing", case.name);
            assert_eq!(hand.status().reason, Reason::NotificationSent);
        }
        Answer::Reset(..) | Answer::End => {}
        Answer::Disable | Answer::Withdraw | Answer::Discard | Answer::Ignore => {
            assert_eq!(told_once > 0, case.counted, "{}: {:?}", case.name, hand.events);
            if case.session != Session::Opening && case.counted {
                for again in 2..5 {
                    hand.bytes(CONN, &case.bytes);
                    assert_eq!(count(hand), counted * again, "{}", case.name);
                }
                assert_eq!(told(hand), told_once, "{}: told once", case.name);
            }
        }
    }
}

/// Whatever happened, a peer that comes back and behaves is served.
fn check_recovery(hand: &mut Hand, case: &Case) {
    hand.reset("");
    let conn = ConnId(9);
    hand.run_for(Duration::from_secs(6));
    hand.connect(conn);
    let session = if case.session == Session::Opening { Session::External } else { case.session };
    hand.bytes(conn, &open_of(session));
    hand.bytes(conn, &keepalive());
    assert_eq!(hand.state(), State::Established, "{}", case.name);
    for family in families(session) {
        hand.bytes(conn, &sound(session, family, VICTIM));
        assert_eq!(held(hand, family, VICTIM), Some(1), "{}: {family}", case.name);
    }
}

/// RFC 7606 §2: with the mildest answer that leaves the routes right.
#[test]
fn every_malformed_message_is_answered_as_the_rfcs_allow() {
    let cases = cases();
    assert!(cases.len() >= 122, "{} messages", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let mut hand = hand_of(case.session);
        hand.bytes(CONN, &case.bytes);
        let answer = observed(&mut hand, case);
        if answer != case.allowed[0] {
            let allowed = case.allowed.contains(&answer);
            wrong.push(format!("{} ({}): {answer:?}, allowed: {allowed}", case.name, case.rfc));
            continue;
        }
        hand.speaker.rib().check_invariants().unwrap_or_else(|what| panic!("{}: {what}", case.name));
        check_counted(&mut hand, case, answer);
        check_recovery(&mut hand, case);
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The same over a connection that delivers octet by octet.
#[test]
fn the_answer_does_not_depend_on_how_the_message_is_cut() {
    for case in cases() {
        let mut hand = hand_of(case.session);
        for octet in &case.bytes {
            if !hand.is_closed(CONN) {
                hand.bytes(CONN, std::slice::from_ref(octet));
            }
        }
        assert_eq!(observed(&mut hand, &case), case.allowed[0], "{}", case.name);
    }
}

/// What the table spoils is sound before: the fault is the one that the row names.
#[test]
fn the_messages_before_they_are_spoilt_are_accepted() {
    for session in [Session::External, Session::TwoOctet, Session::Internal] {
        for (family, attributes, nlri) in [
            (AfiSafi::Ipv4Unicast, attributes4(session), &malformed_table::NLRI4[..]),
            (AfiSafi::Ipv6Unicast, attributes6(session), &[]),
        ] {
            let mut hand = hand_of(session);
            hand.bytes(CONN, &update(&[], &list(&attributes), nlri));
            assert_eq!(held(&hand, family, VICTIM), Some(MARK), "{session:?}");
            assert_eq!((count(&hand), told(&hand)), (0, 0), "{session:?}");
        }
    }
}

#[test]
fn names_are_told_apart() {
    let mut names: Vec<_> = cases().iter().map(|case| (case.name, case.session as u8, case.rfc)).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "two rows of one name");
}

/// RFC 4760 §7: the routes of the family go, and further ones are ignored until the session restarts.
#[test]
fn a_disabled_family_comes_back_with_the_next_session() {
    let case = cases().into_iter().find(|case| case.name == "a next hop of 15").unwrap();
    let mut hand = hand_of(case.session);
    hand.bytes(CONN, &case.bytes);
    hand.bytes(CONN, &sound(case.session, AfiSafi::Ipv6Unicast, OTHER));
    assert_eq!(held(&hand, AfiSafi::Ipv6Unicast, OTHER), None, "ignored");
    hand.bytes(CONN, &sound(case.session, AfiSafi::Ipv4Unicast, 3));
    assert_eq!(held(&hand, AfiSafi::Ipv4Unicast, 3), Some(1), "the other family goes on");
    check_recovery(&mut hand, &case);
}

/// RFC 6793 §6: segments of a confederation (RFC 5065) are taken out of AS4_PATH, and the rest is used.
#[test]
fn rfc6793_6_confederation_segments_leave_as4_path() {
    let mut hand = hand_of(Session::TwoOctet);
    let mut attributes = attributes4(Session::TwoOctet);
    attributes[1].2 = malformed_table::path(Session::TwoOctet, &[65002, 23456]);
    let confederation = [3, 1, 0, 0, 0, 9];
    attributes.push((0xC0, 17, [&confederation[..], &[2, 1, 0, 1, 0x11, 0x70]].concat()));
    hand.bytes(CONN, &update(&[], &list(&attributes), &malformed_table::NLRI4));
    let path = hand.speaker.rib().paths_to(&"10.1.0.0/24".parse().unwrap()).remove(0);
    let shown = bgp_proto::wire::display::attributes(&path.attributes);
    assert_eq!(shown.as_path, "65002 70000");
    assert_eq!(count(&hand), 0);
}

/// RFC 6793 §4.2.3: where AS4_PATH is ignored, so is the AS_SET in it.
#[test]
fn rfc6793_4_2_3_an_as_set_in_a_path_that_does_not_count_is_nothing() {
    let of = |as4_path: &[u8], aggregator: u16| {
        let mut hand = hand_of(Session::TwoOctet);
        let mut attributes = attributes4(Session::TwoOctet);
        attributes[1].2 = malformed_table::path(Session::TwoOctet, &[65002, 65003]);
        attributes.push((0xC0, 7, [&aggregator.to_be_bytes()[..], &[10, 0, 0, 9]].concat()));
        attributes.push((0xC0, 17, as4_path.to_vec()));
        attributes.push((0xC0, 18, vec![0, 1, 0x11, 0x70, 10, 0, 0, 9]));
        hand.bytes(CONN, &update(&[], &list(&attributes), &malformed_table::NLRI4));
        let paths = hand.speaker.rib().paths_to(&"10.1.0.0/24".parse().unwrap());
        (
            paths
                .iter()
                .map(|p| bgp_proto::wire::display::attributes(&p.attributes).as_path)
                .collect::<Vec<_>>(),
            count(&hand),
        )
    };
    let set = [1, 1, 0, 1, 0, 7];
    let longer = [&[2, 2, 0, 0, 0xFD, 0xEA, 0, 0, 0, 9][..], &set].concat();
    let as_is = vec!["65002 65003".to_owned()];
    assert_eq!(of(&set, 23456), (vec![], 1), "it counts");
    assert_eq!(of(&set, 65009), (as_is.clone(), 0), "somebody aggregated who knew nothing of it");
    assert_eq!(of(&longer, 23456), (as_is, 0), "it is longer than AS_PATH");
}

/// RFC 8092 §5.
#[test]
fn rfc8092_5_repeated_large_communities_are_removed() {
    let mut hand = hand_of(Session::External);
    let one = |n: u8| [[0, 0, 0xFC, 0], [0, 0, 0, 1], [0, 0, 0, n]].concat();
    let mut attributes = attributes4(Session::External);
    attributes.push((0xC0, 32, [one(2), one(1), one(2), one(2), one(3)].concat()));
    hand.bytes(CONN, &update(&[], &list(&attributes), &malformed_table::NLRI4));
    let path = hand.speaker.rib().paths_to(&"10.1.0.0/24".parse().unwrap()).remove(0);
    let shown = bgp_proto::wire::display::attributes(&path.attributes);
    let value = bgp_proto::wire::attr::find(&path.attributes, 32).unwrap();
    assert_eq!(value, [one(2), one(1), one(3)].concat(), "in the order that they came");
    assert_eq!(shown.communities.len(), 3);
    assert_eq!(count(&hand), 0, "silently");
}
