use manx_crds::conditions::{Accepted, PeerEstablished};

use super::*;

fn now(seconds: u64) -> Now {
    let wall = Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap()).unwrap();
    Now { monotonic: Duration::from_secs(seconds), wall }
}

fn slot() -> Slot {
    Slot { kind: Kind::BGPPeer, part: Part::Status, key: Key::cluster("a") }
}

fn wish(up: u32, established: PeerEstablished) -> Wish {
    let mut fields = Map::new();
    fields.insert("sessions".into(), json!({"established": up}));
    Wish {
        fields,
        conditions: vec![Saying::new(Accepted::Accepted, ""), Saying::new(established, "")],
        generation: Some(1),
        whole: true,
        slow: Some((&["sessions", "Established"], Duration::from_secs(30))),
    }
}

#[test]
fn what_the_store_says_already_is_not_written() {
    let mut wishes = Wishes::default();
    wishes.offer(slot(), "u", Value::Null, wish(1, PeerEstablished::AllEstablished));
    let (_, _, body) = wishes.pull(now(0)).unwrap();
    assert_eq!(wishes.pull(now(0)), None);
    wishes.answer(&slot(), &Outcome::Done, now(0).monotonic);
    // A new leader finds it.
    let mut next = Wishes::default();
    let mut theirs = body.clone();
    theirs["routeReflectors"] = json!([1]);
    next.offer(slot(), "u", theirs, wish(1, PeerEstablished::AllEstablished));
    assert_eq!(next.pull(now(500)), None);
    assert_eq!(next.deadline(), None);
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let mut wishes = Wishes::default();
    wishes.offer(slot(), "u", Value::Null, wish(0, PeerEstablished::NoneEstablished));
    let (_, _, first) = wishes.pull(now(0)).unwrap();
    wishes.answer(&slot(), &Outcome::Done, now(0).monotonic);
    wishes.offer(slot(), "u", first.clone(), wish(1, PeerEstablished::AllEstablished));
    let (_, _, second) = wishes.pull(now(40)).unwrap();
    let time = |body: &Value, index: usize| body["conditions"][index]["lastTransitionTime"].clone();
    assert_eq!(time(&first, 0), time(&second, 0), "Accepted");
    assert_ne!(time(&first, 1), time(&second, 1), "Established");
    assert_eq!(second["observedGeneration"], 1);
}

#[test]
fn what_may_wait_waits_and_what_may_not_does_not() {
    let mut wishes = Wishes::default();
    wishes.offer(slot(), "u", Value::Null, wish(0, PeerEstablished::NoneEstablished));
    let (_, _, body) = wishes.pull(now(0)).unwrap();
    wishes.answer(&slot(), &Outcome::Done, now(0).monotonic);
    wishes.offer(slot(), "u", body.clone(), wish(1, PeerEstablished::AllEstablished));
    assert_eq!(wishes.pull(now(29)), None);
    assert_eq!(wishes.deadline(), Some(Duration::from_secs(30)));
    let mut urgent = wish(1, PeerEstablished::AllEstablished);
    urgent.conditions[0] = Saying::new(Accepted::OverlapsPeer, "b is older");
    wishes.offer(slot(), "u", body, urgent);
    assert!(wishes.pull(now(29)).is_some());
}

#[test]
fn a_failure_backs_off_and_a_right_that_returns_is_used_within_a_minute() {
    let mut wishes = Wishes::default();
    wishes.offer(slot(), "u", Value::Null, wish(0, PeerEstablished::NoneEstablished));
    let mut tries = Vec::new();
    for at in 0..400 {
        if wishes.pull(now(at)).is_some() {
            tries.push(at);
            wishes.answer(&slot(), &Outcome::Refused("forbidden".into()), now(at).monotonic);
        }
    }
    assert_eq!(tries[..4], [0, 2, 6, 14]);
    assert!(tries.windows(2).all(|pair| pair[1] - pair[0] <= 60), "{tries:?}");
}

#[test]
fn a_store_that_forgets_is_written_to_ever_less_often() {
    let mut wishes = Wishes::default();
    let mut writes = 0;
    for at in 0..4_000 {
        wishes.offer(slot(), "u", json!({}), wish(0, PeerEstablished::NoneEstablished));
        if wishes.pull(now(at)).is_some() {
            writes += 1;
            wishes.answer(&slot(), &Outcome::Done, now(at).monotonic);
        }
    }
    assert!((3..12).contains(&writes), "{writes}");
}

#[test]
fn one_write_is_under_way_also_when_the_object_is_replaced() {
    let mut wishes = Wishes::default();
    wishes.offer(slot(), "u", Value::Null, wish(0, PeerEstablished::NoneEstablished));
    assert_eq!(wishes.pull(now(0)).unwrap().1, "u");
    wishes.keep_only(Kind::BGPPeer, |_| false);
    wishes.offer(slot(), "v", Value::Null, wish(0, PeerEstablished::NoneEstablished));
    assert_eq!(wishes.pull(now(1)), None);
    wishes.answer(&slot(), &Outcome::Done, now(2).monotonic);
    assert_eq!(wishes.pull(now(2)).unwrap().1, "v");
}
