use super::*;
use crate::types::AfiSafi;
use crate::wire::notification;

fn open(capabilities: Vec<Capability>) -> Open {
    Open { my_as: 65001, hold_time: 9, router_id: RouterId(Ipv4Addr::new(10, 255, 0, 2)), capabilities }
}

fn fixed(version: u8, hold: u16, id: [u8; 4]) -> Vec<u8> {
    let mut body = vec![version, 0xfd, 0xe9];
    body.extend_from_slice(&hold.to_be_bytes());
    body.extend_from_slice(&id);
    body
}

fn with_parameters(parameters: &[u8]) -> Vec<u8> {
    let mut body = fixed(4, 9, [10, 255, 0, 2]);
    body.extend_from_slice(parameters);
    body
}

#[test]
fn vector_without_capabilities() {
    let body = with_parameters(&[0]);
    assert_eq!(Open::decode(&body), Ok(open(vec![])));
    let mut out = Vec::new();
    open(vec![]).encode(&mut out);
    assert_eq!(out, body);
}

#[test]
fn vector_with_capabilities_in_one_parameter() {
    let value = open(vec![
        Capability::multiprotocol(AfiSafi::Ipv4Unicast),
        Capability::RouteRefresh,
        Capability::FourOctetAsn(Asn(65001)),
    ]);
    let body = with_parameters(&[16, 2, 14, 1, 4, 0, 1, 0, 1, 2, 0, 65, 4, 0, 0, 0xfd, 0xe9]);
    assert_eq!(Open::decode(&body), Ok(value.clone()));
    let mut out = Vec::new();
    value.encode(&mut out);
    assert_eq!(out, body);
}

#[test]
fn one_parameter_for_each_capability_is_read_too() {
    let body = with_parameters(&[10, 2, 2, 2, 0, 2, 4, 65, 2, 1, 2]);
    let capabilities = Open::decode(&body).unwrap().capabilities;
    assert_eq!(capabilities, [Capability::RouteRefresh, Capability::Other { code: 65, value: vec![1, 2] }]);
}

#[test]
fn frr_with_a_domain_name_is_understood() {
    // FRR 8.4 with `hostname tor-a` and `domainname example.org` sends capability 73.
    let body = with_parameters(&[
        33, 2, 6, 1, 4, 0, 1, 0, 1, 2, 23, 73, 21, 5, b't', b'o', b'r', b'-', b'a', 11, b'e', b'x', b'a',
        b'm', b'p', b'l', b'e', b'.', b'o', b'r', b'g', 0, 0, 0,
    ]);
    let capabilities = Open::decode(&body).unwrap().capabilities;
    assert_eq!(capabilities[0], Capability::multiprotocol(AfiSafi::Ipv4Unicast));
    assert_eq!(capabilities[1].code(), 73);
}

#[test]
fn rfc9072_extended_parameters_are_read() {
    let capability = [2, 0, 6, 1, 4, 0, 1, 0, 1];
    for length_octet in [255, 1] {
        let mut parameters = vec![length_octet, 255, 0, 9];
        parameters.extend_from_slice(&capability);
        let open = Open::decode(&with_parameters(&parameters)).unwrap();
        assert_eq!(open.capabilities, [Capability::multiprotocol(AfiSafi::Ipv4Unicast)]);
    }
}

#[test]
fn rfc9072_extended_parameters_are_written_when_needed() {
    for count in [1, 62, 63, 64, 300] {
        let value = open(vec![Capability::Other { code: 200, value: vec![1, 2] }; count]);
        let mut out = Vec::new();
        value.encode(&mut out);
        assert_eq!(Open::decode(&out), Ok(value), "{count} capabilities");
    }
}

#[test]
fn rfc4271_6_2_version_must_be_4() {
    for version in [0, 3, 5, 255] {
        let mut body = fixed(version, 9, [1, 1, 1, 1]);
        body.push(0);
        assert_eq!(
            Open::decode(&body),
            Err(Notification::with_data(2, notification::open::UNSUPPORTED_VERSION_NUMBER, [0, 4]))
        );
    }
}

#[test]
fn rfc4271_6_2_hold_time_of_one_or_two_seconds_is_unacceptable() {
    for (hold, acceptable) in [(0, true), (1, false), (2, false), (3, true), (65535, true)] {
        let mut body = fixed(4, hold, [1, 1, 1, 1]);
        body.push(0);
        match Open::decode(&body) {
            Ok(open) => assert!(acceptable && open.hold_time == hold),
            Err(error) => assert!(!acceptable && (error.code, error.subcode) == (2, 6)),
        }
    }
}

#[test]
fn rfc6286_zero_is_no_bgp_identifier() {
    let mut body = fixed(4, 9, [0, 0, 0, 0]);
    body.push(0);
    assert_eq!(Open::decode(&body), Err(Notification::with_data(2, 3, [0, 0, 0, 0])));
    let mut body = fixed(4, 9, [255, 255, 255, 255]);
    body.push(0);
    assert!(Open::decode(&body).is_ok(), "any other number is valid (RFC 6286 §2.1)");
}

#[test]
fn rfc4271_6_2_an_unknown_parameter_is_unsupported() {
    let authentication = with_parameters(&[3, 1, 1, 0]);
    assert_eq!(Open::decode(&authentication), Err(Notification::new(2, 4)));
}

#[test]
fn lengths_that_do_not_add_up_are_malformed() {
    for parameters in [
        &[][..],
        &[1],
        &[0, 0],
        &[1, 2],
        &[3, 2, 2, 2],
        &[4, 2, 2, 2, 1],
        &[3, 2, 1, 2],
        &[255, 255, 0],
        &[255, 255, 0, 9, 2, 0, 6, 1, 4],
        &[255, 255, 0, 2, 2, 0],
    ] {
        assert_eq!(
            Open::decode(&with_parameters(parameters)),
            Err(Notification::new(2, 0)),
            "{parameters:?}"
        );
    }
    assert_eq!(Open::decode(&[4, 0, 1]), Err(Notification::new(2, 0)));
}

#[test]
fn rfc6793_the_four_octet_capability_wins() {
    let mut value = open(vec![Capability::FourOctetAsn(Asn(4_200_000_012))]);
    value.my_as = 23456;
    assert_eq!(value.asn(), Asn(4_200_000_012));
    assert_eq!(open(vec![]).asn(), Asn(65001));
}
