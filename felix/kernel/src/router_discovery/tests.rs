#![allow(clippy::unwrap_used)]

use super::*;

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn heard(message: &[u8], source: Ipv6Addr, hop_limit: u8) -> Option<Message> {
    parse(message, Some(source), Some(hop_limit))
}

#[test]
fn what_we_say_is_heard() {
    let mac = MacAddress([2, 0, 0x5e, 0x10, 0, 1]);
    for message in [advertisement(None), advertisement(Some(mac))] {
        assert_eq!(heard(&message, ROUTER, 255), Some(Message::Advertisement { from: ROUTER }));
        // Nobody's default router, and nobody's prefix.
        assert_eq!(message[6..8], [0, 0]);
    }
    assert_eq!(advertisement(Some(mac))[16..], [1, 1, 2, 0, 0x5e, 0x10, 0, 1]);
}

#[test]
fn what_may_have_come_from_elsewhere_is_not() {
    let message = advertisement(None);
    for limit in [0, 1, 64, 254] {
        assert_eq!(heard(&message, ROUTER, limit), None, "{limit}");
    }
    assert_eq!(parse(&message, Some(ROUTER), None), None);
    assert_eq!(parse(&message, None, Some(255)), None);
    assert_eq!(heard(&message, "2001:db8::1".parse().unwrap(), 255), None, "RFC 4861 §6.1.2");
    assert_eq!(heard(&message, Ipv6Addr::UNSPECIFIED, 255), None);
}

#[test]
fn what_is_malformed_is_not() {
    let message = advertisement(None);
    for length in 0..message.len() {
        assert_eq!(heard(&message[..length], ROUTER, 255), None, "{length} octets");
    }
    let with = |options: &[u8]| [&message[..], options].concat();
    for options in
        [&[1, 0][..], &[1, 0, 0, 0, 0, 0, 0, 0], &[1, 1, 0, 0, 0, 0, 0], &[1, 2, 0, 0, 0, 0, 0, 0], &[1]]
    {
        assert_eq!(heard(&with(options), ROUTER, 255), None, "{options:?}");
    }
    assert!(heard(&with(&[31, 1, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0]), ROUTER, 255).is_some());
    let mut code = message.clone();
    code[1] = 1;
    let mut kind = message;
    kind[0] = 135;
    assert_eq!((heard(&code, ROUTER, 255), heard(&kind, ROUTER, 255)), (None, None));
}

#[test]
fn a_host_without_an_address_asks_too() {
    let message = [133, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(heard(&message, ROUTER, 255), Some(Message::Solicitation { from: Some(ROUTER) }));
    assert_eq!(heard(&message, Ipv6Addr::UNSPECIFIED, 255), Some(Message::Solicitation { from: None }));
    assert_eq!(heard(&message[..7], ROUTER, 255), None);
}

#[test]
fn the_filter_lets_two_types_in() {
    let Filter(words) = Filter::only(&[133, 134]);
    let passes = |kind: usize| words[kind >> 5] >> (kind & 31) & 1 == 0;
    assert_eq!((0..256).filter(|kind| passes(*kind)).collect::<Vec<_>>(), [133, 134]);
}
