#![allow(clippy::unwrap_used)]

use super::*;

const A: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const B: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// One served interface without a task behind it, and the moment that it began.
fn link() -> (Unnumbered, Instant) {
    let mut unnumbered = Unnumbered::new();
    let served = Served {
        peer: PeerName::from("leaf"),
        ifindex: 3,
        ours: "fe80::9".parse().unwrap(),
        known: None,
        others: BTreeMap::new(),
        established: false,
        look_at: None,
        deaf: None,
        searching: watch::channel(true).0,
        task: tokio::spawn(async {}).abort_handle(),
    };
    unnumbered.served.insert("eth1".to_owned(), served);
    (unnumbered, Instant::now())
}

fn heard(unnumbered: &mut Unnumbered, from: Ipv6Addr, now: Instant) -> bool {
    unnumbered.take(Report::Heard { ifindex: 3, from }, now)
}

fn known(unnumbered: &Unnumbered) -> Option<Ipv6Addr> {
    unnumbered.served["eth1"].known.map(|known| known.address)
}

fn others(unnumbered: &Unnumbered) -> Vec<Ipv6Addr> {
    unnumbered.served["eth1"].others.keys().copied().collect()
}

#[tokio::test]
async fn the_first_router_that_is_heard_is_the_neighbour() {
    let (mut unnumbered, now) = link();
    assert!(!unnumbered.take(Report::Heard { ifindex: 4, from: A }, now), "another interface");
    assert!(heard(&mut unnumbered, A, now) && !heard(&mut unnumbered, A, now), "the same is no news");
    assert!(heard(&mut unnumbered, B, now) && !heard(&mut unnumbered, B, now), "said once");
    assert_eq!((known(&unnumbered), others(&unnumbered)), (Some(A), vec![B]));
}

#[tokio::test]
async fn who_dials_is_heard() {
    let (mut unnumbered, now) = link();
    let from = |interface| IpAddr::V6(link_local::scoped(A, interface));
    assert!(!unnumbered.dialled_by(from(4), now) && !unnumbered.dialled_by("10.0.0.1".parse().unwrap(), now));
    assert!(unnumbered.dialled_by(from(3), now) && known(&unnumbered) == Some(A));
}

#[tokio::test]
async fn another_router_follows_one_that_is_silent_and_no_other() {
    let (mut unnumbered, now) = link();
    let facts = Facts::default();
    let at = |seconds| now + Duration::from_secs(seconds);
    heard(&mut unnumbered, A, now);
    heard(&mut unnumbered, B, at(8));
    heard(&mut unnumbered, A, at(9));
    assert!(!unnumbered.tick(&facts, at(20)) && known(&unnumbered) == Some(A), "12 s were not over");
    heard(&mut unnumbered, B, at(20));
    let due = unnumbered.next_tick().unwrap();
    assert_eq!(due, at(21));
    assert!(unnumbered.tick(&facts, due) && known(&unnumbered) == Some(B));
    // It is silent too, and nobody else is there.
    assert!(unnumbered.tick(&facts, at(33)) && known(&unnumbered).is_none());
    assert_eq!((unnumbered.next_tick(), others(&unnumbered)), (None, vec![]));
}

#[tokio::test]
async fn a_session_keeps_its_neighbour_however_silent() {
    let (mut unnumbered, now) = link();
    let facts = Facts::default();
    let at = |seconds| now + Duration::from_secs(seconds);
    heard(&mut unnumbered, A, now);
    unnumbered.session(&PeerName::from("leaf"), true, at(1));
    assert!(!*unnumbered.served["eth1"].searching.borrow());
    assert_eq!(unnumbered.next_tick(), None);
    heard(&mut unnumbered, B, at(500));
    assert!(!unnumbered.tick(&facts, at(1000)) && known(&unnumbered) == Some(A));
    // It ends: the neighbour is asked, and given the time to answer.
    unnumbered.session(&PeerName::from("leaf"), false, at(1000));
    assert!(*unnumbered.served["eth1"].searching.borrow());
    assert!(!unnumbered.tick(&facts, at(1011)) && known(&unnumbered) == Some(A));
    assert!(unnumbered.tick(&facts, at(1012)) && known(&unnumbered).is_none(), "B was heard too long ago");
}

#[tokio::test]
async fn what_keeps_us_from_hearing_is_said_until_something_is_heard() {
    let (mut unnumbered, now) = link();
    let deaf = || Report::Deaf { ifindex: 3, error: "Operation not permitted".to_owned() };
    assert!(unnumbered.take(deaf(), now) && !unnumbered.take(deaf(), now));
    assert!(heard(&mut unnumbered, A, now) && unnumbered.served["eth1"].deaf.is_none());
}

#[tokio::test]
async fn an_interface_that_is_not_there_is_named() {
    let (unnumbered, _) = link();
    let place = unnumbered.place(&Facts::default(), "eth1");
    let text = "spec.interface eth1: this node has no such interface: create it, or name another".to_owned();
    assert_eq!(place, Place::Nobody { reason: Reason::InterfaceDown, text, ifindex: None });
    let address = IpAddr::V6(link_local::scoped(A, 7));
    assert_eq!(shown(&Facts::default(), address), "fe80::1%7", "an interface that is gone has no name");
    assert_eq!(shown(&Facts::default(), "10.0.0.1".parse().unwrap()), "10.0.0.1");
}

#[test]
fn a_lower_address_of_ours_takes_the_place_only_of_one_that_is_gone() {
    assert_eq!(preferred([B, A].into_iter(), None), Some(A));
    assert_eq!(preferred([B, A].into_iter(), Some(B)), Some(B));
    assert_eq!(preferred([A].into_iter(), Some(B)), Some(A));
    assert_eq!(preferred([].into_iter(), Some(B)), None);
}

#[tokio::test]
async fn a_router_that_is_long_gone_is_not_spoken_of() {
    let (mut unnumbered, now) = link();
    heard(&mut unnumbered, A, now);
    heard(&mut unnumbered, B, now);
    unnumbered.session(&PeerName::from("leaf"), true, now);
    let later = now + FORGOTTEN;
    assert!(heard(&mut unnumbered, A, later), "there is something new to say");
    assert_eq!((known(&unnumbered), others(&unnumbered)), (Some(A), vec![]));
    assert!(!heard(&mut unnumbered, A, later));
}
