use super::*;

#[test]
fn names_are_ianas() {
    assert_eq!(Notification::new(6, 2).name().to_string(), "Cease/AdministrativeShutdown");
    assert_eq!(Notification::new(6, 1).name().to_string(), "Cease/MaximumNumberOfPrefixesReached");
    assert_eq!(Notification::new(4, 0).name().to_string(), "HoldTimerExpired");
    assert_eq!(Notification::new(2, 77).name().to_string(), "OpenMessageError/77");
    assert_eq!(Notification::new(99, 1).name().to_string(), "Error99/1");
}

#[test]
fn rfc9003_text_survives_the_wire_both_ways() {
    let sent = Notification::cease_with_text(cease::ADMINISTRATIVE_SHUTDOWN, "ToR upgrade ☂");
    let mut bytes = Vec::new();
    sent.encode(&mut bytes);
    assert_eq!(bytes[..3], [6, 2, 15]);
    let got = Notification::decode(&bytes).unwrap();
    assert_eq!(got, sent);
    assert_eq!(got.text().unwrap(), "ToR upgrade ☂");
}

#[test]
fn rfc9003_text_is_cut_between_characters() {
    let sent = Notification::cease_with_text(cease::ADMINISTRATIVE_RESET, &"é".repeat(200));
    assert_eq!(sent.data[0], 254);
    assert_eq!(sent.text().unwrap().chars().count(), 127);
}

#[test]
fn rfc9003_void_text_is_no_text() {
    assert_eq!(Notification::with_data(6, 2, [9, b'x']).text(), None, "length above what is there");
    assert_eq!(Notification::with_data(6, 2, [0]).text(), None);
    assert_eq!(Notification::with_data(6, 2, []).text(), None);
    assert_eq!(Notification::with_data(6, 1, [1, b'x']).text(), None, "not a text by definition");
    assert_eq!(Notification::with_data(6, 2, [3, 0xff, b'a', b'\n']).text().unwrap(), "\u{fffd}a ");
}

#[test]
fn a_body_of_one_byte_is_no_notification() {
    assert_eq!(Notification::decode(&[6]), None);
}

#[test]
fn data_never_makes_the_message_longer_than_4096() {
    let mut bytes = Vec::new();
    Notification::with_data(1, 2, vec![0; 5000]).encode(&mut bytes);
    assert_eq!(bytes.len() + 19, 4096);
}
