//! Headers, OPENs, capabilities, and messages that are neither these nor UPDATEs.

use bgp_proto::AfiSafi;
use bgp_proto::wire::MessageType;

use super::Answer::{End, Ignore, Reset};
use super::{Answer, Case, Session, capabilities_of, message, open, open_with};

fn case(session: Session, rfc: &'static str, name: &'static str, bytes: Vec<u8>, allowed: &[Answer]) -> Case {
    let (allowed, family) = (allowed.to_vec(), AfiSafi::Ipv4Unicast);
    Case { name, rfc, session, bytes, allowed, family, counted: true }
}

/// A marker and these octets behind it.
fn raw(rest: &[u8]) -> Vec<u8> {
    [&[0xFF; 16], rest].concat()
}

pub(super) fn headers() -> Vec<Case> {
    let mut first = raw(&[0, 19, 4]);
    first[0] = 0xFE;
    let mut last = raw(&[0, 19, 4]);
    last[15] = 0;
    let length = |rest: &[u8]| raw(&[rest, &[0; 8]].concat());
    let rows: [(Session, &'static str, Vec<u8>, Answer); 18] = [
        (Session::External, "marker wrong in its first octet", first.clone(), Reset(1, 1)),
        (Session::External, "marker wrong in its last octet", last, Reset(1, 1)),
        (Session::External, "another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Reset(1, 1)),
        (Session::Opening, "another protocol before the OPEN", b"SSH-2.0-x\r\n".to_vec(), Reset(1, 1)),
        (Session::Opening, "marker of a signed session (RFC 1771)", vec![0; 29], Reset(1, 1)),
        (Session::External, "length 0", length(&[0, 0, 4]), Reset(1, 2)),
        (Session::External, "length 18", length(&[0, 18, 4]), Reset(1, 2)),
        (Session::External, "KEEPALIVE of 4097", length(&[0x10, 1, 4]), Reset(1, 2)),
        (Session::Opening, "UPDATE of 65535 before the OPEN", length(&[0xFF, 0xFF, 2]), Reset(1, 2)),
        (Session::External, "KEEPALIVE of 20", length(&[0, 20, 4]), Reset(1, 2)),
        (Session::External, "UPDATE of 22", length(&[0, 22, 2]), Reset(1, 2)),
        (Session::External, "NOTIFICATION of 20", length(&[0, 20, 3]), Reset(1, 2)),
        (Session::External, "ROUTE-REFRESH of 22", length(&[0, 22, 5]), Reset(1, 2)),
        (Session::Opening, "OPEN of 28", length(&[0, 28, 1]), Reset(1, 2)),
        (Session::Opening, "OPEN of 4097", length(&[0x10, 1, 1]), Reset(1, 2)),
        (Session::External, "type 0", length(&[0, 19, 0]), Reset(1, 3)),
        (Session::External, "type 6", length(&[0, 19, 6]), Reset(1, 3)),
        (Session::Opening, "type 255 before the OPEN", length(&[0, 19, 255]), Reset(1, 3)),
    ];
    rows.into_iter()
        .map(|(session, name, bytes, answer)| case(session, "RFC 4271 §6.1", name, bytes, &[answer]))
        .collect()
}

pub(super) fn opens() -> Vec<Case> {
    let id = [10, 0, 0, 2];
    let with = |parameters: &[u8]| open_with(4, 65002, 30, id, parameters);
    let rows: [(&'static str, &'static str, Vec<u8>, Answer); 22] = [
        ("RFC 4271 §6.2", "version 3", open_with(3, 65002, 30, id, &[0]), Reset(2, 1)),
        ("RFC 4271 §6.2", "version 5", open_with(5, 65002, 30, id, &[0]), Reset(2, 1)),
        ("RFC 4271 §6.2", "version 0", open_with(0, 65002, 30, id, &[0]), Reset(2, 1)),
        ("RFC 4271 §6.2", "hold time 1", open_with(4, 65002, 1, id, &[0]), Reset(2, 6)),
        ("RFC 4271 §6.2", "hold time 2", open_with(4, 65002, 2, id, &[0]), Reset(2, 6)),
        ("RFC 4271 §6.2", "identifier 0.0.0.0", open_with(4, 65002, 30, [0; 4], &[0]), Reset(2, 3)),
        ("RFC 4271 §6.2", "parameter 1, authentication", with(&[3, 1, 1, 0]), Reset(2, 4)),
        ("RFC 4271 §6.2", "parameter 3", with(&[2, 3, 0]), Reset(2, 4)),
        ("RFC 4271 §6.2", "parameter 200 behind capabilities", with(&[6, 2, 2, 2, 0, 200, 0]), Reset(2, 4)),
        ("RFC 4271 §6.2", "parameters longer than the message", with(&[9, 2, 2, 2, 0]), Reset(2, 0)),
        ("RFC 4271 §6.2", "parameters shorter than the message", with(&[2, 2, 2, 2, 0]), Reset(2, 0)),
        ("RFC 4271 §6.2", "parameters announced and none there", with(&[4]), Reset(2, 0)),
        ("RFC 4271 §6.2", "none announced, four octets there", with(&[0, 2, 2, 2, 0]), Reset(2, 0)),
        ("RFC 4271 §6.2", "half a parameter header", with(&[1, 2]), Reset(2, 0)),
        ("RFC 4271 §6.2", "a parameter longer than all of them", with(&[4, 2, 9, 2, 0]), Reset(2, 0)),
        ("RFC 4271 §6.2", "a capability longer than its parameter", with(&[4, 2, 2, 2, 9]), Reset(2, 0)),
        ("RFC 4271 §6.2", "half a capability header", with(&[3, 2, 1, 2]), Reset(2, 0)),
        ("RFC 4271 §6.2", "half a second capability", with(&[5, 2, 3, 2, 0, 1]), Reset(2, 0)),
        ("RFC 4271 §6.2", "RFC 9072: length without octets", with(&[255, 255, 0, 9]), Reset(2, 0)),
        ("RFC 4271 §6.2", "RFC 9072: length too short", with(&[255, 255, 0, 1, 2, 0, 0]), Reset(2, 0)),
        (
            "RFC 4271 §6.2",
            "RFC 9072: a parameter longer than all",
            with(&[255, 255, 0, 5, 2, 0, 9, 2, 0]),
            Reset(2, 0),
        ),
        ("RFC 4271 §6.2", "RFC 9072: half a length", with(&[255, 255, 0, 2, 2, 0]), Reset(2, 0)),
    ];
    let mut all: Vec<Case> = rows
        .into_iter()
        .map(|(rfc, name, bytes, answer)| case(Session::Opening, rfc, name, bytes, &[answer]))
        .collect();
    let nobody = open(65002, &capabilities_of(&[1], Some(0)));
    all.push(case(Session::Opening, "RFC 7607 §2", "AS 0", nobody, &[Reset(2, 2)]).uncounted());
    let field = open(0, &capabilities_of(&[1], Some(65002)));
    let name = "AS 0 in the field, another one in the capability";
    all.push(case(Session::Opening, "RFC 7607 §2", name, field, &[Reset(2, 2)]).uncounted());
    all
}

/// "Session stays" here is: it comes up, without what the capability would have brought.
pub(super) fn capabilities() -> Vec<Case> {
    let rows: [(&'static str, &[u8]); 8] = [
        ("multiprotocol of 3", &[1, 3, 0, 1, 0]),
        ("multiprotocol of 5", &[1, 5, 0, 1, 0, 1, 0]),
        ("multiprotocol without a value", &[1, 0]),
        ("route refresh of 1", &[2, 1, 0]),
        ("graceful restart of 1", &[64, 1, 0]),
        ("graceful restart with half a family", &[64, 5, 0, 120, 0, 1, 1]),
        ("four-octet AS of 3", &[65, 3, 0, 0, 1]),
        ("four-octet AS of 5", &[65, 5, 0, 0, 0, 0, 1]),
    ];
    let malformed = |(name, capability): (&'static str, &[u8])| {
        let bytes = open(65002, &[&capabilities_of(&[1], None), capability].concat());
        case(Session::Opening, "RFC 5492 §3", name, bytes, &[Ignore, Reset(2, 0), Reset(2, 7)])
    };
    let mut all: Vec<Case> = rows.into_iter().map(malformed).collect();
    let unknown = open(65002, &[&capabilities_of(&[1], None)[..], &[222, 3, 1, 2, 3]].concat());
    let name = "a capability that nobody knows";
    all.push(case(Session::Opening, "RFC 5492 §3", name, unknown, &[Ignore]).uncounted());
    all
}

pub(super) fn others() -> Vec<Case> {
    let say = |kind, body: &[u8]| message(kind, body);
    let refresh = |body: &[u8]| say(MessageType::RouteRefresh, body);
    let end = |body: &[u8]| say(MessageType::Notification, body);
    let rows: [(&'static str, &'static str, Vec<u8>, &[Answer]); 6] = [
        ("RFC 4271 §6.4", "a NOTIFICATION with an unknown code", end(&[99, 1]), &[End]),
        ("RFC 4271 §6.4", "a NOTIFICATION with an unknown subcode", end(&[6, 200, 1]), &[End]),
        ("RFC 9003 §3", "a shutdown text longer than what is there", end(&[6, 2, 200, b'x']), &[End]),
        ("RFC 9003 §3", "a shutdown text that is no UTF-8", end(&[6, 2, 2, 0xFF, 0xFE]), &[End]),
        ("RFC 2918 §4", "ROUTE-REFRESH of a family not negotiated", refresh(&[0, 9, 0, 9]), &[Ignore]),
        ("RFC 7313 §5", "ROUTE-REFRESH of an unknown subtype", refresh(&[0, 1, 77, 1]), &[Ignore]),
    ];
    rows.into_iter()
        .map(|(rfc, name, bytes, allowed)| case(Session::External, rfc, name, bytes, allowed).uncounted())
        .collect()
}
