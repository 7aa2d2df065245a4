//! Messages that are not as the RFCs want them, and the answers that the RFCs leave. `malformed.rs` says each of them to a whole
//! speaker; `docs/rfc.md` prints the table.
#![allow(dead_code)] // each test uses its part

mod session;
mod update;

use bgp_proto::AfiSafi;
use bgp_proto::wire::MessageType;
use bgp_proto::wire::message::encode;

pub(crate) const PEER_AS: u32 = 65002;
pub(crate) const OWN_AS: u32 = 4_200_000_001;
/// MULTI_EXIT_DISC of every route in this table; what was told before has another one.
pub(crate) const MARK: u32 = 77;
/// The prefixes in question: the last octet of 10.1.0.0/24 and the last word of 2001:db8:1::/48 tell them from others.
pub(crate) const NLRI4: [u8; 4] = [24, 10, 1, 0];
pub(crate) const NLRI6: [u8; 7] = [48, 0x20, 1, 0x0D, 0xB8, 0, 1];
pub(crate) const NEXT_HOP6: [u8; 16] = [0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// The session that the message comes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// Connected, no OPEN heard yet.
    Opening,
    /// Established with another AS, both families, AS numbers of four octets.
    External,
    /// The same with AS numbers of two octets.
    TwoOctet,
    /// Established with a peer of our own AS.
    Internal,
    /// External, of IPv4 unicast alone.
    Ipv4Alone,
    /// External, of IPv6 unicast alone.
    Ipv6Alone,
}

/// What can be seen of an answer from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The session ends with this NOTIFICATION.
    Reset(u8, u8),
    /// The session ends without a word.
    End,
    /// The family's routes are deleted, further ones ignored.
    Disable,
    /// The route is treated as withdrawn.
    Withdraw,
    /// The route is used, without the attribute at fault.
    Discard,
    /// The session stays, what was told before stands.
    Ignore,
}

impl Answer {
    pub(crate) fn text(self) -> String {
        match self {
            Answer::Reset(code, subcode) => {
                format!("session reset, {}", bgp_proto::wire::Notification::new(code, subcode).name())
            }
            Answer::End => "the session ends without an answer".to_owned(),
            Answer::Disable => "AFI/SAFI disable".to_owned(),
            Answer::Withdraw => "treat-as-withdraw".to_owned(),
            Answer::Discard => "attribute discard".to_owned(),
            Answer::Ignore => "ignored".to_owned(),
        }
    }
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The section that decides the answer.
    pub(crate) rfc: &'static str,
    pub(crate) session: Session,
    /// Whole messages.
    pub(crate) bytes: Vec<u8>,
    /// Ours first, then what the RFCs would leave as well.
    pub(crate) allowed: Vec<Answer>,
    /// Whose route is in question.
    pub(crate) family: AfiSafi,
    /// It is malformed, and not only unwelcome: it is counted.
    pub(crate) counted: bool,
}

impl Case {
    fn uncounted(mut self) -> Case {
        self.counted = false;
        self
    }
}

/// Flags, code, value.
pub(crate) type One = (u8, u8, Vec<u8>);

pub(crate) fn cases() -> Vec<Case> {
    [
        session::headers(),
        session::opens(),
        session::capabilities(),
        session::others(),
        update::frames(),
        update::well_known(),
        update::optional(),
        update::internal(),
        update::two_octet(),
        update::lists(),
        update::reach(),
        update::unreach(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A marker, a length that adds up, and a body.
pub(crate) fn message(kind: MessageType, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(kind, &mut out, |out| out.extend_from_slice(body));
    out
}

/// An OPEN of the peer's with these capabilities behind each other.
pub(crate) fn open(asn: u16, capabilities: &[u8]) -> Vec<u8> {
    let length = u8::try_from(capabilities.len()).unwrap();
    let parameters =
        if capabilities.is_empty() { vec![0] } else { [&[length + 2, 2, length], capabilities].concat() };
    open_with(4, asn, 30, [10, 0, 0, 2], &parameters)
}

pub(crate) fn open_with(version: u8, asn: u16, hold_time: u16, id: [u8; 4], parameters: &[u8]) -> Vec<u8> {
    let body = [&[version][..], &asn.to_be_bytes(), &hold_time.to_be_bytes(), &id, parameters].concat();
    message(MessageType::Open, &body)
}

/// Multiprotocol capabilities of these families, and four-octet AS numbers where an AS is given.
pub(crate) fn capabilities_of(families: &[u8], asn: Option<u32>) -> Vec<u8> {
    let mut out: Vec<u8> = families.iter().flat_map(|afi| [1, 4, 0, *afi, 0, 1]).collect();
    if let Some(asn) = asn {
        out.extend([65, 4]);
        out.extend(asn.to_be_bytes());
    }
    out
}

/// The OPEN that makes the session.
pub(crate) fn open_of(session: Session) -> Vec<u8> {
    match session {
        Session::Opening | Session::External => open(65002, &capabilities_of(&[1, 2], Some(PEER_AS))),
        Session::TwoOctet => open(65002, &capabilities_of(&[1, 2], None)),
        Session::Internal => open(23456, &capabilities_of(&[1, 2], Some(OWN_AS))),
        Session::Ipv4Alone => open(65002, &capabilities_of(&[1], Some(PEER_AS))),
        Session::Ipv6Alone => open(65002, &capabilities_of(&[2], Some(PEER_AS))),
    }
}

pub(crate) fn path(session: Session, asns: &[u32]) -> Vec<u8> {
    let mut out = vec![2, u8::try_from(asns.len()).unwrap()];
    for asn in asns {
        let octets = asn.to_be_bytes();
        out.extend(if session == Session::TwoOctet { &octets[2..] } else { &octets[..] });
    }
    out
}

/// Attributes of a sound IPv4 route on this session.
pub(crate) fn attributes4(session: Session) -> Vec<One> {
    let mut list = vec![
        (0x40, 1, vec![0]),
        (0x40, 2, path(session, &[if session == Session::Internal { 65100 } else { PEER_AS }, 65101])),
        (0x40, 3, vec![10, 0, 0, 2]),
        (0x80, 4, MARK.to_be_bytes().to_vec()),
    ];
    if session == Session::Internal {
        list.push((0x40, 5, vec![0, 0, 0, 100]));
    }
    list
}

/// Attributes of a sound IPv6 route on this session.
pub(crate) fn attributes6(session: Session) -> Vec<One> {
    let mut list = vec![(0x80, 14, [&[0, 2, 1, 16][..], &NEXT_HOP6, &[0], &NLRI6].concat())];
    list.extend(attributes4(session).into_iter().filter(|one| one.1 != 3));
    list
}

pub(crate) fn list(attributes: &[One]) -> Vec<u8> {
    let mut out = Vec::new();
    for (flags, code, value) in attributes {
        out.extend([*flags, *code]);
        if flags & 0x10 != 0 {
            out.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        } else {
            out.push(u8::try_from(value.len()).unwrap());
        }
        out.extend(value);
    }
    out
}

pub(crate) fn update(withdrawn: &[u8], list: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| u16::try_from(field.len()).unwrap().to_be_bytes();
    let body = [&length(withdrawn)[..], withdrawn, &length(list)[..], list, nlri].concat();
    message(MessageType::Update, &body)
}

/// A sound route: 10.n.0.0/24 or 2001:db8:n::/48, with another mark than the table's.
pub(crate) fn sound(session: Session, family: AfiSafi, n: u8) -> Vec<u8> {
    let (mut attributes, nlri) = match family {
        AfiSafi::Ipv4Unicast => (attributes4(session), vec![24, 10, n, 0]),
        AfiSafi::Ipv6Unicast => (attributes6(session), vec![]),
    };
    for one in &mut attributes {
        match one.1 {
            4 => one.2 = vec![0, 0, 0, 1],
            14 => *one.2.last_mut().unwrap() = n,
            _ => {}
        }
    }
    update(&[], &list(&attributes), &nlri)
}
