#![allow(clippy::disallowed_methods)] // a start for virtual time

use super::*;
use crate::wire::message::encode;
use crate::wire::{MessageType, Notification};

#[test]
fn jitter_stays_between_75_and_100_percent_and_repeats_with_its_seed() {
    let ten = Duration::from_secs(10);
    let draw = |seed| {
        let mut jitter = Jitter::new(seed);
        (0..1000).map(|_| jitter.shorten(ten)).collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
    let (least, most) = (draw(7).into_iter().min().unwrap(), draw(7).into_iter().max().unwrap());
    assert!(least >= Duration::from_millis(7500) && least < Duration::from_millis(7600), "{least:?}");
    assert!(most <= ten && most > Duration::from_millis(9900), "{most:?}");
}

#[test]
fn a_message_begun_is_finished_before_the_last_word() {
    let mut all = Vec::new();
    encode(MessageType::Keepalive, &mut all, |_| {});
    encode(MessageType::Notification, &mut all, |out| Notification::new(6, 2).encode(out));
    for taken in 0..all.len() {
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(&all);
        outbox.transmitted(taken);
        let expected = match taken {
            0 | 19 => &[][..],
            1..19 => &all[taken..19],
            _ => &all[taken..],
        };
        assert_eq!(outbox.unfinished_message(), expected, "{taken} taken");
        assert_eq!(outbox.rest(), &all[taken..]);
    }
}

#[test]
fn an_empty_outbox_gives_its_memory_back() {
    let mut outbox = Outbox::default();
    outbox.tail().resize(60_000, 0);
    outbox.transmitted(60_000);
    assert!(outbox.is_empty() && outbox.tail().capacity() <= 4096);
}

#[test]
fn rfc9687_the_send_hold_timer_runs_while_nothing_is_read() {
    let start = Instant::now();
    let minutes = |n: u64| start + Duration::from_secs(60 * n);
    let at = "127.0.0.1:179".parse().unwrap();
    let mut connection = Connection::listening(Link::new(ConnId(1), at, at, false, start));
    connection.watch_sending(start);
    assert_eq!(connection.timers.send_hold, None, "nothing to send");
    connection.link.as_mut().unwrap().outbox.tail().extend_from_slice(&[1, 2, 3]);
    connection.watch_sending(start);
    connection.watch_sending(minutes(1));
    assert_eq!(connection.timers.send_hold, Some(minutes(8)), "no progress");
    connection.link.as_mut().unwrap().outbox.transmitted(1);
    connection.watch_sending(minutes(2));
    assert_eq!(connection.timers.send_hold, Some(minutes(10)), "progress");
    connection.link.as_mut().unwrap().outbox.transmitted(2);
    connection.watch_sending(minutes(3));
    assert_eq!(connection.timers.send_hold, None, "all sent");
}
