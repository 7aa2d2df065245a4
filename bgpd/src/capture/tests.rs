use bgp_proto::wire::MessageType;
use bgp_proto::wire::message::encode;

use super::*;

fn message(kind: MessageType, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    encode(kind, &mut out, |out| out.resize(length, 7));
    out
}

fn cut(stream: &mut Stream, octets: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for octets in octets.chunks(piece) {
        stream.take(octets, |message| found.push(message.to_vec()));
    }
    found
}

#[test]
fn a_capture_that_begins_in_the_middle_finds_the_next_message() {
    let messages = [
        message(MessageType::Update, 50),
        message(MessageType::Update, 60),
        message(MessageType::Keepalive, 19),
    ];
    let stream = messages.concat();
    for piece in [1, 7, 300] {
        for begin in 1..50 {
            let found = cut(&mut Stream::default(), &stream[begin..], piece);
            assert_eq!(found, messages[1..], "from {begin} in pieces of {piece}");
        }
    }
}

#[test]
fn what_is_no_message_is_shown_as_it_came() {
    let mut stream = Stream { phase: Phase::Cut, begun: Vec::new() };
    let open = message(MessageType::Open, 40);
    assert_eq!(cut(&mut stream, &open, 10), std::slice::from_ref(&open));
    assert_eq!(cut(&mut stream, b"GET / HTTP/1.1", 100), [b"GET / HTTP/1.1".to_vec()]);
    assert_eq!(cut(&mut stream, &open, 1000), [open], "out of step from there on, and nothing is left out");
}

fn capture() -> Capture {
    let stream = || Stream { phase: Phase::Cut, begun: Vec::new() };
    let (local, remote) = ("10.0.0.1:179".parse().unwrap(), "10.0.0.2:50000".parse().unwrap());
    Capture {
        messages: VecDeque::new(),
        octets: 0,
        next: 0,
        asked: Instant::now(),
        connections: BTreeMap::from([(
            ConnId(1),
            Connection { local, remote, received: stream(), sent: stream() },
        )]),
        latest: 0,
    }
}

#[test]
fn only_the_latest_are_kept_and_the_others_are_counted() {
    let mut capture = capture();
    let update = message(MessageType::Update, 4000);
    for _ in 0..2000 {
        capture.record(ConnId(1), false, &update);
        assert!(capture.octets <= MOST_OCTETS);
    }
    let kept = capture.messages.len() as u64;
    assert_eq!(kept, MOST_OCTETS as u64 / update.len() as u64);
    let (mut after, mut seen, mut lost) = (0, 0, 0);
    loop {
        let (messages, next, missed) = capture.answer(after);
        let octets: usize = messages.iter().map(|message| message.octets.0.len()).sum();
        assert!(octets < ANSWER + update.len());
        (seen, lost, after) = (seen + messages.len() as u64, lost + missed, next);
        if messages.is_empty() {
            break;
        }
    }
    assert_eq!((seen, lost, after), (kept, 2000 - kept, 2000));
}

#[test]
fn a_capture_that_nobody_asks_for_is_over() {
    let mut captures = Captures::default();
    let begun = capture();
    let asked = begun.asked;
    captures.running.insert(PeerName::from("tor"), begun);
    captures.tick(asked + FORGOTTEN / 2);
    assert_eq!(captures.next_tick(), Some(asked + FORGOTTEN));
    captures.tick(asked + FORGOTTEN);
    assert!(captures.running.is_empty() && captures.next_tick().is_none());
}
