use super::*;

fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    encode(MessageType::Keepalive, &mut out, |_| {});
    out
}

fn header(length: u16, number: u8) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend_from_slice(&length.to_be_bytes());
    out.push(number);
    out
}

#[test]
fn keepalive_is_a_bare_header() {
    let mut expected = vec![0xff; 16];
    expected.extend_from_slice(&[0, 19, 4]);
    assert_eq!(keepalive(), expected);
}

#[test]
fn any_cut_gives_the_same_messages() {
    let mut stream = Vec::new();
    encode(MessageType::Notification, &mut stream, |out| out.extend_from_slice(&[6, 2, 1, b'x']));
    stream.extend(keepalive());
    encode(MessageType::RouteRefresh, &mut stream, |out| out.extend_from_slice(&[0, 1, 0, 1]));
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let (mut framer, mut got) = (Framer::default(), Vec::new());
            for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                let mut input = piece;
                while let Some(frame) = framer.next(&mut input) {
                    let frame = frame.unwrap();
                    got.push((frame.message_type, frame.body.to_vec()));
                }
            }
            assert_eq!(
                got,
                [
                    (MessageType::Notification, vec![6, 2, 1, b'x']),
                    (MessageType::Keepalive, vec![]),
                    (MessageType::RouteRefresh, vec![0, 1, 0, 1])
                ],
                "cut at {first} and {second}"
            );
            assert!(!framer.is_within_message() || framer.taken);
        }
    }
}

#[test]
fn rfc4271_6_1_marker_must_be_all_ones() {
    for at in 0..16 {
        let mut bytes = keepalive();
        bytes[at] = 0;
        assert_eq!(message_length(&bytes, MAX_LENGTH), Err(Notification::new(1, 1)));
        assert_eq!(
            message_length(&bytes[..=at], MAX_LENGTH),
            Err(Notification::new(1, 1)),
            "known before the header is whole"
        );
    }
}

#[test]
fn rfc4271_6_1_length_must_fit_the_type() {
    for (length, number) in
        [(18, 4), (0, 4), (4097, 2), (65535, 2), (28, 1), (22, 2), (20, 3), (18, 3), (20, 4), (22, 5)]
    {
        assert_eq!(
            message_length(&header(length, number), MAX_LENGTH),
            Err(Notification::with_data(1, 2, length.to_be_bytes())),
            "length {length}, type {number}"
        );
    }
    for (length, number) in [(29, 1), (4096, 1), (23, 2), (4096, 2), (21, 3), (19, 4), (23, 5)] {
        assert_eq!(message_length(&header(length, number), MAX_LENGTH), Ok(Some(usize::from(length))));
    }
}

#[test]
fn rfc4271_6_1_type_must_be_known() {
    for number in [0, 6, 255] {
        assert_eq!(
            message_length(&header(19, number), MAX_LENGTH),
            Err(Notification::with_data(1, 3, [number]))
        );
    }
}

#[test]
fn an_error_after_a_whole_message_comes_after_it() {
    let mut stream = keepalive();
    stream.extend(header(19, 9));
    let (mut framer, mut input) = (Framer::default(), &stream[..]);
    assert_eq!(framer.next(&mut input).unwrap().unwrap().message_type, MessageType::Keepalive);
    assert_eq!(framer.next(&mut input).unwrap(), Err(Notification::with_data(1, 3, [9])));
}

#[test]
fn only_an_unfinished_message_is_kept() {
    let mut stream = keepalive().repeat(1000);
    stream.truncate(stream.len() - 3);
    let (mut framer, mut input) = (Framer::default(), &stream[..]);
    while framer.next(&mut input).is_some() {}
    assert_eq!(framer.unfinished.len(), 16);
}
