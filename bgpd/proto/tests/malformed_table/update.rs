//! UPDATEs.

use bgp_proto::AfiSafi;

use super::Answer::{Disable, Discard, Ignore, Reset, Withdraw};
use super::{
    Answer, Case, NEXT_HOP6, NLRI4, NLRI6, One, PEER_AS, Session, attributes4, attributes6, list, path,
    update,
};

/// How a sound list of attributes is spoilt.
enum Spoil {
    /// In place of the attribute of this type, or added.
    Put(u8, u8, Vec<u8>),
    Without(u8),
    /// A second attribute of this type, behind the others.
    Again(u8, u8, Vec<u8>),
    /// These octets behind the list.
    Behind(Vec<u8>),
    Both(Box<Spoil>, Box<Spoil>),
}
use Spoil::{Again, Behind, Both, Put, Without};

impl Spoil {
    fn apply(self, list: &mut Vec<One>, behind: &mut Vec<u8>) {
        match self {
            Put(flags, code, value) => {
                let one = (flags, code, value);
                match list.iter_mut().find(|known| known.1 == code) {
                    Some(known) => *known = one,
                    None => list.push(one),
                }
            }
            Without(code) => list.retain(|known| known.1 != code),
            Again(flags, code, value) => list.push((flags, code, value)),
            Behind(octets) => behind.extend(octets),
            Both(one, other) => {
                one.apply(list, behind);
                other.apply(list, behind);
            }
        }
    }
}

type Row = (&'static str, &'static str, Spoil, &'static [Answer]);

const WITHDRAW: &[Answer] = &[Withdraw];
const DISCARD: &[Answer] = &[Discard];
/// What RFC 7606 §7.11 and §5.3 leave where another family is left.
const DISABLE: &[Answer] = &[Disable, Reset(3, 9)];
const RESET_1: &[Answer] = &[Reset(3, 1)];
const RESET_2: &[Answer] = &[Reset(3, 2)];
const RESET_9: &[Answer] = &[Reset(3, 9)];

fn spoilt(mut attributes: Vec<One>, spoil: Spoil) -> Vec<u8> {
    let mut behind = Vec::new();
    spoil.apply(&mut attributes, &mut behind);
    [list(&attributes), behind].concat()
}

fn ipv4(session: Session, rows: Vec<Row>) -> Vec<Case> {
    let case = |(rfc, name, spoil, allowed): Row| {
        let bytes = update(&[], &spoilt(attributes4(session), spoil), &NLRI4);
        let (allowed, family) = (allowed.to_vec(), AfiSafi::Ipv4Unicast);
        Case { name, rfc, session, bytes, allowed, family, counted: true }
    };
    rows.into_iter().map(case).collect()
}

fn ipv6(session: Session, rows: Vec<Row>) -> Vec<Case> {
    let case = |(rfc, name, spoil, allowed): Row| {
        let bytes = update(&[], &spoilt(attributes6(session), spoil), &[]);
        let (allowed, family) = (allowed.to_vec(), AfiSafi::Ipv6Unicast);
        Case { name, rfc, session, bytes, allowed, family, counted: true }
    };
    rows.into_iter().map(case).collect()
}

fn whole(rfc: &'static str, name: &'static str, bytes: Vec<u8>, allowed: &[Answer]) -> Case {
    let (session, family) = (Session::External, AfiSafi::Ipv4Unicast);
    Case { name, rfc, session, bytes, allowed: allowed.to_vec(), family, counted: true }
}

pub(super) fn frames() -> Vec<Case> {
    let good = list(&attributes4(Session::External));
    let body = |octets: &[u8]| super::message(bgp_proto::wire::MessageType::Update, octets);
    let network = &[Reset(3, 10)];
    let long = [&[0, 0, 0xFF, 0xFF][..], &good, &NLRI4].concat();
    let eats_nlri = [&[0, 0, 0, u8::try_from(good.len()).unwrap() + 9][..], &good, &NLRI4].concat();
    vec![
        whole("RFC 7606 §4", "withdrawn routes longer than the message", body(&[0, 9, 0, 0]), RESET_1),
        whole("RFC 7606 §4", "no room for the attributes' length", body(&[0, 2, 8, 10]), RESET_1),
        whole("RFC 7606 §4", "attributes of 65535 octets", body(&long), RESET_1),
        whole("RFC 7606 §4", "attributes longer than the message", body(&eats_nlri), RESET_1),
        whole("RFC 7606 §5.3", "a withdrawn /33", update(&[33, 10, 1, 0, 0, 0], &[], &[]), network),
        whole("RFC 7606 §5.3", "half a withdrawn prefix", update(&[24, 10, 1], &[], &[]), network),
        whole("RFC 7606 §5.3", "a /33", update(&[], &good, &[33, 10, 1, 0, 0, 0]), network),
        whole("RFC 7606 §5.3", "a /255", update(&[], &good, &[255, 10, 1, 0]), network),
        whole("RFC 7606 §5.3", "half a prefix", update(&[], &good, &[24, 10]), network),
        whole(
            "RFC 7606 §5.3",
            "a sound prefix and half a one",
            update(&[], &good, &[24, 10, 1, 0, 8]),
            network,
        ),
    ]
}

pub(super) fn well_known() -> Vec<Case> {
    let path = |asns: &[u32]| path(Session::External, asns);
    let malformed_path = |octets: &[u8]| Put(0x40, 2, octets.to_vec());
    let set_first = [&[1, 1, 0, 0, 0xFD, 0xEA][..], &path(&[65101])].concat();
    let set_last = [&path(&[PEER_AS])[..], &[1, 2, 0, 0, 0xFE, 0x4D, 0, 0, 0xFE, 0x4E]].concat();
    ipv4(
        Session::External,
        vec![
            ("RFC 7606 §7.1", "ORIGIN without a value", Put(0x40, 1, vec![]), WITHDRAW),
            ("RFC 7606 §7.1", "ORIGIN of 2", Put(0x40, 1, vec![0, 0]), WITHDRAW),
            ("RFC 7606 §7.1", "ORIGIN 3", Put(0x40, 1, vec![3]), WITHDRAW),
            ("RFC 7606 §7.1", "ORIGIN 255", Put(0x40, 1, vec![255]), WITHDRAW),
            ("RFC 7606 §3 (c)", "ORIGIN as optional", Put(0xC0, 1, vec![0]), WITHDRAW),
            ("RFC 7606 §3 (c)", "ORIGIN as non-transitive", Put(0x00, 1, vec![0]), WITHDRAW),
            ("RFC 7606 §3 (d)", "no ORIGIN", Without(1), WITHDRAW),
            ("RFC 7606 §7.2", "segment of type 0", malformed_path(&[0, 1, 0, 0, 0xFD, 0xEA]), WITHDRAW),
            ("RFC 7606 §7.2", "segment of type 5", malformed_path(&[5, 1, 0, 0, 0xFD, 0xEA]), WITHDRAW),
            ("RFC 7606 §7.2", "AS_CONFED_SEQUENCE", malformed_path(&[3, 1, 0, 0, 0xFD, 0xEA]), WITHDRAW),
            ("RFC 9774 §3", "AS_CONFED_SET", malformed_path(&[4, 1, 0, 0, 0xFD, 0xEA]), WITHDRAW),
            ("RFC 7606 §7.2", "segment over the end", malformed_path(&[2, 2, 0, 0, 0xFD, 0xEA]), WITHDRAW),
            ("RFC 7606 §7.2", "an octet too many", malformed_path(&[2, 1, 0, 0, 0xFD, 0xEA, 2]), WITHDRAW),
            ("RFC 7606 §7.2", "segment without numbers", malformed_path(&[2, 0]), WITHDRAW),
            ("RFC 7606 §7.2", "AS numbers of two octets", malformed_path(&[2, 1, 0xFD, 0xEA]), WITHDRAW),
            ("RFC 4271 §6.3", "empty AS_PATH", malformed_path(&[]), &[Withdraw, Discard]),
            ("RFC 4271 §6.3", "AS_PATH of another AS", Put(0x40, 2, path(&[65009])), &[Withdraw, Discard]),
            ("RFC 9774 §3", "AS_PATH that begins with an AS_SET", Put(0x40, 2, set_first), WITHDRAW),
            ("RFC 9774 §3", "AS_PATH that ends with an AS_SET", Put(0x40, 2, set_last), WITHDRAW),
            ("RFC 7607 §2", "AS 0 in AS_PATH", Put(0x40, 2, path(&[PEER_AS, 0])), WITHDRAW),
            ("RFC 7606 §3 (c)", "AS_PATH as optional", Put(0xC0, 2, path(&[PEER_AS])), WITHDRAW),
            ("RFC 7606 §3 (d)", "no AS_PATH", Without(2), WITHDRAW),
            ("RFC 7606 §7.3", "NEXT_HOP without a value", Put(0x40, 3, vec![]), WITHDRAW),
            ("RFC 7606 §7.3", "NEXT_HOP of 3", Put(0x40, 3, vec![10, 0, 0]), WITHDRAW),
            ("RFC 7606 §7.3", "NEXT_HOP of 5", Put(0x40, 3, vec![10, 0, 0, 2, 0]), WITHDRAW),
            ("RFC 7606 §7.3", "NEXT_HOP of 16", Put(0x40, 3, NEXT_HOP6.to_vec()), WITHDRAW),
            ("RFC 7606 §3 (c)", "NEXT_HOP as optional", Put(0x80, 3, vec![10, 0, 0, 2]), WITHDRAW),
            ("RFC 7606 §3 (d)", "no NEXT_HOP", Without(3), WITHDRAW),
            ("RFC 7606 §7.5", "LOCAL_PREF", Put(0x40, 5, vec![0, 0, 0, 200]), DISCARD),
            ("RFC 7606 §7.5", "LOCAL_PREF of 3", Put(0x40, 5, vec![0; 3]), DISCARD),
            ("RFC 7606 §7.6", "ATOMIC_AGGREGATE of 1", Put(0x40, 6, vec![0]), DISCARD),
            ("RFC 7606 §3 (c)", "ATOMIC_AGGREGATE as optional", Put(0xC0, 6, vec![]), WITHDRAW),
            ("RFC 4271 §6.3", "a well-known attribute 99", Put(0x40, 99, vec![1]), RESET_2),
            ("RFC 4271 §6.3", "attribute 99 without any flag", Put(0x00, 99, vec![1]), RESET_2),
        ],
    )
}

pub(super) fn optional() -> Vec<Case> {
    ipv4(
        Session::External,
        vec![
            ("RFC 7606 §7.4", "MULTI_EXIT_DISC without a value", Put(0x80, 4, vec![]), WITHDRAW),
            ("RFC 7606 §7.4", "MULTI_EXIT_DISC of 3", Put(0x80, 4, vec![0; 3]), WITHDRAW),
            ("RFC 7606 §7.4", "MULTI_EXIT_DISC of 5", Put(0x80, 4, vec![0; 5]), WITHDRAW),
            ("RFC 7606 §3 (c)", "MULTI_EXIT_DISC as transitive", Put(0xC0, 4, vec![0; 4]), WITHDRAW),
            ("RFC 7606 §7.7", "AGGREGATOR without a value", Put(0xC0, 7, vec![]), DISCARD),
            ("RFC 7606 §7.7", "AGGREGATOR of 6", Put(0xC0, 7, vec![1; 6]), DISCARD),
            ("RFC 7606 §7.7", "AGGREGATOR of 9", Put(0xC0, 7, vec![1; 9]), DISCARD),
            ("RFC 7607 §2", "AGGREGATOR of AS 0", Put(0xC0, 7, vec![0, 0, 0, 0, 10, 0, 0, 9]), DISCARD),
            ("RFC 7606 §3 (c)", "AGGREGATOR as non-transitive", Put(0x80, 7, vec![1; 8]), WITHDRAW),
            ("RFC 7606 §7.8", "COMMUNITIES without a value", Put(0xC0, 8, vec![]), WITHDRAW),
            ("RFC 7606 §7.8", "COMMUNITIES of 3", Put(0xC0, 8, vec![0; 3]), WITHDRAW),
            ("RFC 7606 §7.8", "COMMUNITIES of 5", Put(0xC0, 8, vec![0; 5]), WITHDRAW),
            ("RFC 7606 §3 (c)", "COMMUNITIES as well-known", Put(0x40, 8, vec![0; 4]), WITHDRAW),
            ("RFC 7606 §7.9", "ORIGINATOR_ID", Put(0x80, 9, vec![10, 0, 0, 9]), DISCARD),
            ("RFC 7606 §7.9", "ORIGINATOR_ID of 3", Put(0x80, 9, vec![0; 3]), DISCARD),
            ("RFC 7606 §7.10", "CLUSTER_LIST", Put(0x80, 10, vec![10, 0, 0, 9]), DISCARD),
            ("RFC 7606 §7.10", "CLUSTER_LIST of 3", Put(0x80, 10, vec![0; 3]), DISCARD),
            ("RFC 7606 §7.14", "EXTENDED COMMUNITIES without a value", Put(0xC0, 16, vec![]), WITHDRAW),
            ("RFC 7606 §7.14", "EXTENDED COMMUNITIES of 7", Put(0xC0, 16, vec![0; 7]), WITHDRAW),
            ("RFC 7606 §7.14", "EXTENDED COMMUNITIES of 12", Put(0xC0, 16, vec![0; 12]), WITHDRAW),
            ("RFC 7606 §3 (c)", "EXTENDED COMMUNITIES as well-known", Put(0x40, 16, vec![0; 8]), WITHDRAW),
            ("RFC 7606 §7.15", "IPv6 EXTENDED COMMUNITIES without a value", Put(0xC0, 25, vec![]), WITHDRAW),
            ("RFC 7606 §7.15", "IPv6 EXTENDED COMMUNITIES of 19", Put(0xC0, 25, vec![0; 19]), WITHDRAW),
            ("RFC 8092 §6", "LARGE_COMMUNITY without a value", Put(0xC0, 32, vec![]), WITHDRAW),
            ("RFC 8092 §6", "LARGE_COMMUNITY of 11", Put(0xC0, 32, vec![0; 11]), WITHDRAW),
            ("RFC 8092 §6", "LARGE_COMMUNITY of 13", Put(0xC0, 32, vec![0; 13]), WITHDRAW),
            ("RFC 7606 §3 (c)", "LARGE_COMMUNITY as non-transitive", Put(0x80, 32, vec![0; 12]), WITHDRAW),
            ("RFC 9234 §5", "ONLY_TO_CUSTOMER without a value", Put(0xC0, 35, vec![]), WITHDRAW),
            ("RFC 9234 §5", "ONLY_TO_CUSTOMER of 3", Put(0xC0, 35, vec![0; 3]), WITHDRAW),
            ("RFC 9234 §5", "ONLY_TO_CUSTOMER of 8", Put(0xC0, 35, vec![0; 8]), WITHDRAW),
            ("RFC 7606 §3 (c)", "ONLY_TO_CUSTOMER as non-transitive", Put(0x80, 35, vec![0; 4]), WITHDRAW),
            (
                "RFC 6793 §4.1",
                "AS4_PATH on a four-octet session",
                Put(0xC0, 17, vec![2, 1, 0, 0, 0, 7]),
                DISCARD,
            ),
            ("RFC 6793 §4.1", "AS4_AGGREGATOR on a four-octet session", Put(0xC0, 18, vec![1; 8]), DISCARD),
            ("RFC 6793 §4.1", "AS4_PATH of 1 on a four-octet session", Put(0xC0, 17, vec![2]), DISCARD),
        ],
    )
}

pub(super) fn internal() -> Vec<Case> {
    ipv4(
        Session::Internal,
        vec![
            ("RFC 7606 §7.5", "LOCAL_PREF without a value", Put(0x40, 5, vec![]), WITHDRAW),
            ("RFC 7606 §7.5", "LOCAL_PREF of 3", Put(0x40, 5, vec![0; 3]), WITHDRAW),
            ("RFC 7606 §7.5", "LOCAL_PREF of 5", Put(0x40, 5, vec![0; 5]), WITHDRAW),
            ("RFC 7606 §3 (c)", "LOCAL_PREF as optional", Put(0xC0, 5, vec![0; 4]), WITHDRAW),
            ("RFC 7606 §3 (d)", "no LOCAL_PREF", Without(5), &[Withdraw, Discard]),
            ("RFC 7606 §7.9", "ORIGINATOR_ID without a value", Put(0x80, 9, vec![]), WITHDRAW),
            ("RFC 7606 §7.9", "ORIGINATOR_ID of 3", Put(0x80, 9, vec![0; 3]), WITHDRAW),
            ("RFC 7606 §7.9", "ORIGINATOR_ID of 8", Put(0x80, 9, vec![0; 8]), WITHDRAW),
            ("RFC 7606 §3 (c)", "ORIGINATOR_ID as transitive", Put(0xC0, 9, vec![0; 4]), WITHDRAW),
            ("RFC 7606 §7.10", "CLUSTER_LIST without a value", Put(0x80, 10, vec![]), WITHDRAW),
            ("RFC 7606 §7.10", "CLUSTER_LIST of 5", Put(0x80, 10, vec![0; 5]), WITHDRAW),
            ("RFC 7606 §3 (c)", "CLUSTER_LIST as transitive", Put(0xC0, 10, vec![0; 4]), WITHDRAW),
        ],
    )
}

/// AGGREGATOR of AS_TRANS (RFC 6793 §9) goes with AS4_AGGREGATOR.
pub(super) fn two_octet() -> Vec<Case> {
    let trans = (0xC0, 7, vec![0x5B, 0xA0, 10, 0, 0, 9]);
    let beside = |spoil: Spoil| {
        let (flags, code, value) = trans.clone();
        Both(Box::new(Put(flags, code, value)), Box::new(spoil))
    };
    ipv4(
        Session::TwoOctet,
        vec![
            (
                "RFC 7606 §7.2",
                "AS numbers of four octets",
                Put(0x40, 2, vec![2, 1, 0, 0, 0xFD, 0xEA]),
                WITHDRAW,
            ),
            ("RFC 7607 §2", "AS 0 in AS_PATH", Put(0x40, 2, vec![2, 2, 0xFD, 0xEA, 0, 0]), WITHDRAW),
            ("RFC 7606 §7.7", "AGGREGATOR of 8", Put(0xC0, 7, vec![1; 8]), DISCARD),
            ("RFC 7607 §2", "AGGREGATOR of AS 0", Put(0xC0, 7, vec![0, 0, 10, 0, 0, 9]), DISCARD),
            ("RFC 6793 §6", "AS4_PATH without a value", Put(0xC0, 17, vec![]), DISCARD),
            ("RFC 6793 §6", "AS4_PATH of 5", Put(0xC0, 17, vec![2, 1, 0, 0, 0]), DISCARD),
            (
                "RFC 6793 §6",
                "AS4_PATH with a segment over the end",
                Put(0xC0, 17, vec![2, 2, 0, 0, 0, 7]),
                DISCARD,
            ),
            (
                "RFC 6793 §6",
                "AS4_PATH with a segment of type 9",
                Put(0xC0, 17, vec![9, 1, 0, 0, 0, 7]),
                DISCARD,
            ),
            ("RFC 6793 §6", "AS4_PATH with an empty segment", Put(0xC0, 17, vec![2, 0]), DISCARD),
            ("RFC 6793 §6", "AS4_PATH with AS 0", Put(0xC0, 17, vec![2, 1, 0, 0, 0, 0]), DISCARD),
            (
                "RFC 9774 §3",
                "AS_SET of two octets",
                Put(0x40, 2, vec![2, 1, 0xFD, 0xEA, 1, 1, 0, 7]),
                WITHDRAW,
            ),
            ("RFC 9774 §3", "AS_SET in AS4_PATH", Put(0xC0, 17, vec![1, 1, 0, 0, 0, 7]), WITHDRAW),
            ("RFC 9774 §3", "AS_CONFED_SET in AS4_PATH", Put(0xC0, 17, vec![4, 1, 0, 0, 0, 7]), WITHDRAW),
            ("RFC 6793 §6", "AS4_PATH as non-transitive", Put(0x80, 17, vec![2, 1, 0, 0, 0, 7]), DISCARD),
            ("RFC 6793 §6", "AS4_AGGREGATOR of 7", beside(Put(0xC0, 18, vec![1; 7])), DISCARD),
            ("RFC 6793 §6", "AS4_AGGREGATOR of AS 0", beside(Put(0xC0, 18, vec![0; 8])), DISCARD),
        ],
    )
}

pub(super) fn lists() -> Vec<Case> {
    let mut all = ipv4(
        Session::External,
        vec![
            ("RFC 7606 §3 (g)", "ORIGIN twice", Again(0x40, 1, vec![2]), DISCARD),
            ("RFC 7606 §3 (g)", "AS_PATH twice, the second malformed", Again(0x40, 2, vec![9]), DISCARD),
            ("RFC 7606 §3 (g)", "NEXT_HOP twice", Again(0x40, 3, vec![10, 0, 0, 9]), DISCARD),
            ("RFC 7606 §3 (g)", "MULTI_EXIT_DISC twice", Again(0x80, 4, vec![0; 4]), DISCARD),
            (
                "RFC 7606 §3 (g)",
                "an unknown attribute twice",
                Both(Box::new(Put(0xC0, 99, vec![1])), Box::new(Again(0xC0, 99, vec![2]))),
                DISCARD,
            ),
            ("RFC 7606 §4", "a length beyond the list", Behind(vec![0xC0, 8, 8, 0, 0, 0, 1]), WITHDRAW),
            ("RFC 7606 §4", "an extended length beyond the list", Behind(vec![0xD0, 8, 1, 0, 0]), WITHDRAW),
            ("RFC 7606 §4", "one octet behind the list", Behind(vec![0xC0]), WITHDRAW),
            ("RFC 7606 §4", "two octets behind the list", Behind(vec![0xC0, 8]), WITHDRAW),
            ("RFC 7606 §4", "half an extended length", Behind(vec![0xD0, 8, 0]), WITHDRAW),
            (
                "RFC 7606 §7.1",
                "§3 (h): ORIGIN 9 and ATOMIC_AGGREGATE of 1",
                Both(Box::new(Put(0x40, 1, vec![9])), Box::new(Put(0x40, 6, vec![0]))),
                WITHDRAW,
            ),
            (
                "RFC 4271 §6.3",
                "§3 (h): ORIGIN 9 and a well-known attribute 99",
                Both(Box::new(Put(0x40, 1, vec![9])), Box::new(Put(0x40, 99, vec![0]))),
                RESET_2,
            ),
        ],
    );
    let unreach = (0x80, 15, [&[0, 2, 1][..], &NLRI6].concat());
    let origin = (0x40, 1, vec![9]);
    let empty_reach = (0x80, 14, [&[0, 2, 1, 16][..], &NEXT_HOP6, &[0]].concat());
    let rfc = "RFC 7606 §5.2";
    all.extend([
        whole(
            rfc,
            "a malformed ORIGIN alone",
            update(&[], &list(std::slice::from_ref(&origin)), &[]),
            RESET_1,
        ),
        whole(
            rfc,
            "a malformed ORIGIN beside withdrawn routes",
            update(&NLRI4, &list(std::slice::from_ref(&origin)), &[]),
            RESET_1,
        ),
        whole(
            rfc,
            "a malformed ORIGIN beside MP_UNREACH_NLRI",
            update(&[], &list(&[unreach, origin.clone()]), &[]),
            RESET_1,
        ),
        whole(
            rfc,
            "a malformed ORIGIN beside an MP_REACH_NLRI without prefixes",
            update(&[], &list(&[empty_reach, origin]), &[]),
            RESET_1,
        ),
        whole(rfc, "a list that ends within an attribute, alone", update(&[], &[0x40, 1], &[]), RESET_1),
        whole(
            rfc,
            "an MP_UNREACH_NLRI of a /129 beside ORIGIN",
            update(&[], &list(&[(0x80, 15, vec![0, 2, 1, 129]), (0x40, 1, vec![0])]), &[]),
            RESET_1,
        ),
    ]);
    all
}

/// MP_REACH_NLRI of these numbers.
fn mp_reach(afi: u8, safi: u8, next_hop: &[u8], behind: &[u8]) -> Spoil {
    let length = u8::try_from(next_hop.len()).unwrap();
    Put(0x80, 14, [&[0, afi, safi, length][..], next_hop, behind].concat())
}

pub(super) fn reach() -> Vec<Case> {
    let prefix = [&[0][..], &NLRI6].concat();
    let next_hop = |length: usize, behind: &[u8]| mp_reach(2, 1, &[0x20; 40][..length], behind);
    let twice = Again(0x80, 14, attributes6(Session::External)[0].2.clone());
    let mut all = ipv6(
        Session::External,
        vec![
            ("RFC 7606 §7.11", "MP_REACH_NLRI of 3", Put(0x80, 14, vec![0, 2, 1]), RESET_9),
            ("RFC 7606 §7.11", "MP_REACH_NLRI without a value", Put(0x80, 14, vec![]), RESET_9),
            ("RFC 7606 §7.11", "a next hop over the end", Put(0x80, 14, vec![0, 2, 1, 16, 1]), RESET_9),
            ("RFC 7606 §7.11", "no reserved octet", next_hop(16, &[]), RESET_9),
            ("RFC 7606 §7.11", "a next hop of 0", next_hop(0, &prefix), DISABLE),
            ("RFC 7606 §7.11", "a next hop of 4", next_hop(4, &prefix), DISABLE),
            ("RFC 7606 §7.11", "a next hop of 15", next_hop(15, &prefix), DISABLE),
            ("RFC 7606 §7.11", "a next hop of 24", next_hop(24, &prefix), DISABLE),
            ("RFC 7606 §7.11", "a next hop of 33", next_hop(33, &prefix), DISABLE),
            ("RFC 7606 §5.3", "an IPv6 /129", mp_reach(2, 1, &NEXT_HOP6, &[0, 129]), DISABLE),
            ("RFC 7606 §5.3", "half an IPv6 prefix", mp_reach(2, 1, &NEXT_HOP6, &[0, 64, 0x20, 1]), DISABLE),
            ("RFC 7606 §3 (g)", "MP_REACH_NLRI twice", twice, RESET_1),
            (
                "RFC 7606 §3 (c)",
                "MP_REACH_NLRI as transitive",
                Put(0xC0, 14, attributes6(Session::External)[0].2.clone()),
                WITHDRAW,
            ),
            ("RFC 7606 §3 (d)", "no ORIGIN beside MP_REACH_NLRI", Without(1), WITHDRAW),
            ("RFC 7606 §3 (d)", "no AS_PATH beside MP_REACH_NLRI", Without(2), WITHDRAW),
            ("RFC 7606 §7.4", "MULTI_EXIT_DISC of 1 beside MP_REACH_NLRI", Put(0x80, 4, vec![1]), WITHDRAW),
            (
                "RFC 4760 §6",
                "a family that was not negotiated",
                mp_reach(1, 2, &[10, 0, 0, 2], &[0]),
                &[Ignore],
            ),
            ("RFC 4760 §6", "a family that nobody knows", mp_reach(77, 77, &[], &[0, 9]), &[Ignore]),
        ],
    );
    let ipv6_hop = mp_reach(1, 1, &NEXT_HOP6, &[&[0][..], &NLRI4].concat());
    let wide = mp_reach(1, 1, &[10, 0, 0, 2], &[0, 33, 10, 1, 0, 0, 0]);
    all.extend(ipv6(
        Session::External,
        vec![
            ("RFC 7606 §7.11", "IPv4 by an IPv6 next hop, RFC 8950 not agreed", ipv6_hop, DISABLE),
            ("RFC 7606 §5.3", "an IPv4 /33 in MP_REACH_NLRI", wide, DISABLE),
        ],
    ));
    let of_ipv4 = all.len() - 2;
    all.iter_mut().skip(of_ipv4).for_each(|case| case.family = AfiSafi::Ipv4Unicast);
    all.extend(ipv6(
        Session::Ipv6Alone,
        vec![
            ("RFC 7606 §7.11", "a next hop of 15, the only family", next_hop(15, &prefix), RESET_9),
            ("RFC 7606 §5.3", "a /129, the only family", mp_reach(2, 1, &NEXT_HOP6, &[0, 129]), RESET_9),
        ],
    ));
    all.extend(ipv4(
        Session::Ipv4Alone,
        vec![(
            "RFC 4760 §6",
            "IPv6 routes beside IPv4 ones, not negotiated",
            Put(0x80, 14, attributes6(Session::External)[0].2.clone()),
            DISCARD,
        )],
    ));
    all
}

pub(super) fn unreach() -> Vec<Case> {
    let of = |octets: &[u8]| update(&[], &list(&[(0x80, 15, octets.to_vec())]), &[]);
    let sound = [&[0, 2, 1][..], &NLRI6].concat();
    let twice = list(&[(0x80, 15, sound.clone()), (0x80, 15, sound.clone())]);
    let mut all = vec![
        whole("RFC 7606 §7.12", "MP_UNREACH_NLRI of 2", of(&[0, 2]), RESET_9),
        whole("RFC 7606 §7.12", "MP_UNREACH_NLRI without a value", of(&[]), RESET_9),
        whole("RFC 7606 §5.3", "a withdrawn /129", of(&[0, 2, 1, 129]), DISABLE),
        whole("RFC 7606 §5.3", "half a withdrawn IPv6 prefix", of(&[0, 2, 1, 64, 1]), DISABLE),
        whole("RFC 7606 §3 (g)", "MP_UNREACH_NLRI twice", update(&[], &twice, &[]), RESET_1),
        whole(
            "RFC 7606 §3 (c)",
            "MP_UNREACH_NLRI as transitive",
            update(&[], &list(&[(0xC0, 15, sound.clone())]), &[]),
            WITHDRAW,
        ),
        whole("RFC 4760 §6", "withdrawn, of a family not negotiated", of(&[0, 2, 2, 8, 10]), &[Ignore]),
    ];
    all.iter_mut().for_each(|case| case.family = AfiSafi::Ipv6Unicast);
    all.push(whole("RFC 7606 §5.3", "an IPv4 /33 in MP_UNREACH_NLRI", of(&[0, 1, 1, 33]), DISABLE));
    let mut alone = whole("RFC 7606 §5.3", "a withdrawn /129, the only family", of(&[0, 2, 1, 129]), RESET_9);
    (alone.session, alone.family) = (Session::Ipv6Alone, AfiSafi::Ipv6Unicast);
    let prefixes = update(&[], &list(&attributes4(Session::Ipv6Alone)), &NLRI4);
    let mut foreign = whole("RFC 4760 §6", "IPv4 prefixes, not negotiated", prefixes, &[Ignore]);
    (foreign.session, foreign.family) = (Session::Ipv6Alone, AfiSafi::Ipv6Unicast);
    all.extend([alone, foreign]);
    all
}
