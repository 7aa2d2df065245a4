use super::*;

/// Flags, code, value.
type One = (u8, u8, Vec<u8>);

const OWN_AS: u32 = 64512;
const PEER_AS: u32 = 65001;

fn external() -> Receiver {
    let router_id = 0x0A00_0001;
    Receiver {
        external: true,
        four_octet_as: true,
        own_as: OWN_AS,
        peer_as: PEER_AS,
        router_id,
        ipv4: true,
        ipv6: true,
        ipv4_paths: false,
        ipv6_paths: false,
        extended_next_hop: false,
        interface: 0,
        role: None,
    }
}

fn internal() -> Receiver {
    Receiver { external: false, peer_as: OWN_AS, ..external() }
}

fn narrow() -> Receiver {
    Receiver { four_octet_as: false, ..external() }
}

fn path4(asns: &[u32]) -> Vec<u8> {
    let mut path = vec![as_path::AS_SEQUENCE, u8::try_from(asns.len()).unwrap()];
    path.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    path
}

fn path2(asns: &[u16]) -> Vec<u8> {
    let mut path = vec![as_path::AS_SEQUENCE, u8::try_from(asns.len()).unwrap()];
    path.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    path
}

fn asns(canonical: &[u8]) -> Vec<u32> {
    let path = attr::find(canonical, code::AS_PATH).unwrap();
    as_path::segments(path, 4).flat_map(|s| s.asns().map(|asn| asn.0).collect::<Vec<_>>()).collect()
}

/// What an UPDATE with IPv4 prefixes needs at the least.
fn mandatory(receiver: &Receiver) -> Vec<One> {
    let path = match (receiver.external, receiver.four_octet_as) {
        (true, true) => path4(&[PEER_AS, 70000]),
        (true, false) => path2(&[65001, 65002]),
        (false, _) => path4(&[70000]),
    };
    let mut list = vec![
        (0x40, code::ORIGIN, vec![0]),
        (0x40, code::AS_PATH, path),
        (0x40, code::NEXT_HOP, vec![192, 0, 2, 1]),
    ];
    if !receiver.external {
        list.push((0x40, code::LOCAL_PREF, vec![0, 0, 0, 200]));
    }
    list
}

/// 2001:db8:1::/48 by way of 2001:db8::1.
fn reach6() -> One {
    let mut value = vec![0, 2, 1, 16, 0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    value.extend([48, 0x20, 1, 0xD, 0xB8, 0, 1]);
    (0x80, code::MP_REACH_NLRI, value)
}

fn list(attributes: &[One]) -> Vec<u8> {
    let mut out = Vec::new();
    for (flags, code, value) in attributes {
        if flags & flag::EXTENDED_LENGTH != 0 {
            let length = u16::try_from(value.len()).unwrap().to_be_bytes();
            out.extend([*flags, *code, length[0], length[1]]);
        } else {
            out.extend([*flags, *code, u8::try_from(value.len()).unwrap()]);
        }
        out.extend(value);
    }
    out
}

/// What became of a list: withdrawn or the canonical bytes and their key; `None`: the session is reset.
struct Read {
    result: Option<Result<(Vec<u8>, Key), ()>>,
    faults: Vec<Fault>,
}

impl Read {
    fn canonical(&self) -> &[u8] {
        &self.result.as_ref().unwrap().as_ref().unwrap().0
    }

    fn key(&self) -> Key {
        self.result.as_ref().unwrap().as_ref().unwrap().1
    }

    fn strongest(&self) -> Option<&Fault> {
        let action = self.faults.iter().map(|fault| fault.action).max()?;
        self.faults.iter().find(|fault| fault.action == action)
    }
}

fn read(bytes: &[u8], nlri: bool, receiver: &Receiver) -> Read {
    let (mut scratch, mut faults) = (Scratch::default(), Vec::new());
    let parsed = parse(bytes, nlri, receiver, &mut scratch, &mut faults);
    let result = parsed.map(|parsed| {
        if parsed.withdraw {
            return Err(());
        }
        let reach = parsed.reach;
        let (key, _) = parsed.compose(reach.as_ref().filter(|_| !nlri), &mut scratch);
        Ok((scratch.out.clone(), key))
    });
    Read { result, faults }
}

/// How a good list is spoilt.
enum Spoil {
    /// In place of the attribute of this type, or added.
    Put(u8, u8, Vec<u8>),
    Without(u8),
    /// The first attribute of this type stands there twice.
    Twice(u8),
    /// These bytes behind the list.
    Behind(Vec<u8>),
}
use Spoil::{Behind, Put, Twice, Without};

fn spoilt(mut attributes: Vec<One>, spoil: &Spoil) -> Vec<u8> {
    match spoil {
        Put(flags, code, value) => {
            let one = (*flags, *code, value.clone());
            match attributes.iter_mut().find(|known| known.1 == *code) {
                Some(known) => *known = one,
                None => attributes.push(one),
            }
            list(&attributes)
        }
        Without(code) => {
            attributes.retain(|known| known.1 != *code);
            list(&attributes)
        }
        Twice(code) => {
            let one = attributes.iter().find(|known| known.1 == *code).unwrap().clone();
            attributes.push(one);
            list(&attributes)
        }
        Behind(bytes) => [list(&attributes), bytes.clone()].concat(),
    }
}

const DISCARD: ErrorAction = ErrorAction::AttributeDiscard;
const WITHDRAW: ErrorAction = ErrorAction::TreatAsWithdraw;
const RESET_1: ErrorAction = ErrorAction::SessionReset { subcode: 1 };
const RESET_2: ErrorAction = ErrorAction::SessionReset { subcode: 2 };
const RESET_9: ErrorAction = ErrorAction::SessionReset { subcode: 9 };
const DISABLE_4: ErrorAction = ErrorAction::AfiSafiDisable(AfiSafi::Ipv4Unicast);
const DISABLE_6: ErrorAction = ErrorAction::AfiSafiDisable(AfiSafi::Ipv6Unicast);

/// How the list is spoilt; what that leads to; which attribute is blamed; by which section.
type Case = (&'static str, Spoil, ErrorAction, u8, &'static str);

fn check(receiver: &Receiver, good: &[One], nlri: bool, cases: Vec<Case>) {
    let fine = read(&list(good), nlri, receiver);
    assert!(fine.faults.is_empty() && matches!(fine.result, Some(Ok(_))), "{:?}", fine.faults);
    for (what, spoil, action, attribute, rfc) in cases {
        let read = read(&spoilt(good.to_vec(), &spoil), nlri, receiver);
        let Some(fault) = read.strongest() else { panic!("{what}: nothing was found") };
        assert_eq!((fault.action, fault.attribute, fault.rfc), (action, attribute, rfc), "{what}");
        match action {
            ErrorAction::AttributeDiscard | ErrorAction::AfiSafiDisable(_) => {
                assert!(matches!(read.result, Some(Ok(_))), "{what}: the rest is used");
            }
            ErrorAction::TreatAsWithdraw => assert_eq!(read.result, Some(Err(())), "{what}"),
            ErrorAction::SessionReset { .. } => assert_eq!(read.result, None, "{what}"),
        }
    }
}

#[test]
fn rfc_7606_from_an_external_peer() {
    let cases: Vec<Case> = vec![
        ("ORIGIN too long", Put(0x40, 1, vec![0, 0]), WITHDRAW, 1, "RFC 7606 §7.1"),
        ("ORIGIN empty", Put(0x40, 1, vec![]), WITHDRAW, 1, "RFC 7606 §7.1"),
        ("ORIGIN 3", Put(0x40, 1, vec![3]), WITHDRAW, 1, "RFC 7606 §7.1"),
        ("segment type 5", Put(0x40, 2, vec![5, 1, 0, 0, 0xFD, 0xE9]), WITHDRAW, 2, "RFC 7606 §7.2"),
        ("confederation segment", Put(0x40, 2, vec![3, 1, 0, 0, 0xFD, 0xE9]), WITHDRAW, 2, "RFC 7606 §7.2"),
        (
            "AS_SET",
            Put(0x40, 2, [path4(&[PEER_AS]), vec![1, 1, 0, 0, 0, 7]].concat()),
            WITHDRAW,
            2,
            "RFC 9774 §3",
        ),
        ("AS_SET in front", Put(0x40, 2, vec![1, 1, 0, 0, 0xFD, 0xE9]), WITHDRAW, 2, "RFC 9774 §3"),
        ("AS_CONFED_SET", Put(0x40, 2, vec![4, 1, 0, 0, 0xFD, 0xE9]), WITHDRAW, 2, "RFC 9774 §3"),
        (
            "AS_SET and a malformed segment",
            Put(0x40, 2, vec![1, 1, 0, 0, 0, 7, 2, 0]),
            WITHDRAW,
            2,
            "RFC 7606 §7.2",
        ),
        ("segment overrun", Put(0x40, 2, vec![2, 2, 0, 0, 0xFD, 0xE9]), WITHDRAW, 2, "RFC 7606 §7.2"),
        ("segment underrun", Put(0x40, 2, vec![2, 1, 0, 0, 0xFD, 0xE9, 2]), WITHDRAW, 2, "RFC 7606 §7.2"),
        ("empty segment", Put(0x40, 2, vec![2, 0]), WITHDRAW, 2, "RFC 7606 §7.2"),
        ("empty path", Put(0x40, 2, vec![]), WITHDRAW, 2, "RFC 4271 §6.3"),
        ("path of another AS", Put(0x40, 2, path4(&[65009])), WITHDRAW, 2, "RFC 4271 §6.3"),
        ("NEXT_HOP of 3", Put(0x40, 3, vec![192, 0, 2]), WITHDRAW, 3, "RFC 7606 §7.3"),
        ("NEXT_HOP of 16", Put(0x40, 3, vec![1; 16]), WITHDRAW, 3, "RFC 7606 §7.3"),
        ("MED of 3", Put(0x80, 4, vec![0; 3]), WITHDRAW, 4, "RFC 7606 §7.4"),
        ("LOCAL_PREF", Put(0x40, 5, vec![0; 4]), DISCARD, 5, "RFC 7606 §7.5"),
        ("malformed LOCAL_PREF", Put(0x40, 5, vec![0; 3]), DISCARD, 5, "RFC 7606 §7.5"),
        ("ATOMIC_AGGREGATE of 1", Put(0x40, 6, vec![0]), DISCARD, 6, "RFC 7606 §7.6"),
        ("AGGREGATOR of 6", Put(0xC0, 7, vec![0; 6]), DISCARD, 7, "RFC 7606 §7.7"),
        ("COMMUNITIES of 5", Put(0xC0, 8, vec![0; 5]), WITHDRAW, 8, "RFC 7606 §7.8"),
        ("COMMUNITIES of 0", Put(0xC0, 8, vec![]), WITHDRAW, 8, "RFC 7606 §7.8"),
        ("ORIGINATOR_ID", Put(0x80, 9, vec![0; 4]), DISCARD, 9, "RFC 7606 §7.9"),
        ("CLUSTER_LIST", Put(0x80, 10, vec![0; 4]), DISCARD, 10, "RFC 7606 §7.10"),
        ("EXTENDED_COMMUNITIES of 7", Put(0xC0, 16, vec![0; 7]), WITHDRAW, 16, "RFC 7606 §7.14"),
        ("LARGE_COMMUNITIES of 11", Put(0xC0, 32, vec![0; 11]), WITHDRAW, 32, "RFC 8092 §6"),
        ("OTC of 3", Put(0xC0, 35, vec![0; 3]), WITHDRAW, 35, "RFC 9234 §5"),
        ("AS4_PATH", Put(0xC0, 17, path4(&[PEER_AS])), DISCARD, 17, "RFC 6793 §4.1"),
        ("AS4_AGGREGATOR", Put(0xC0, 18, vec![0; 8]), DISCARD, 18, "RFC 6793 §4.1"),
        ("ORIGIN as optional", Put(0xC0, 1, vec![0]), WITHDRAW, 1, "RFC 7606 §3 (c)"),
        ("NEXT_HOP not transitive", Put(0, 3, vec![192, 0, 2, 1]), WITHDRAW, 3, "RFC 7606 §3 (c)"),
        ("MED as transitive", Put(0xC0, 4, vec![0; 4]), WITHDRAW, 4, "RFC 7606 §3 (c)"),
        ("COMMUNITIES as well-known", Put(0x40, 8, vec![0; 4]), WITHDRAW, 8, "RFC 7606 §3 (c)"),
        ("no ORIGIN", Without(1), WITHDRAW, 1, "RFC 7606 §3 (d)"),
        ("no AS_PATH", Without(2), WITHDRAW, 2, "RFC 7606 §3 (d)"),
        ("no NEXT_HOP", Without(3), WITHDRAW, 3, "RFC 7606 §3 (d)"),
        ("ORIGIN twice", Twice(1), DISCARD, 1, "RFC 7606 §3 (g)"),
        ("AS_PATH twice", Twice(2), DISCARD, 2, "RFC 7606 §3 (g)"),
        ("unknown well-known", Put(0x40, 99, vec![1]), RESET_2, 99, "RFC 4271 §6.3"),
        ("length beyond the list", Behind(vec![0xC0, 8, 8, 0, 0, 0, 1]), WITHDRAW, 0, "RFC 7606 §4"),
        ("extended length beyond", Behind(vec![0xD0, 8, 1, 0, 0]), WITHDRAW, 0, "RFC 7606 §4"),
        ("half a header", Behind(vec![0xC0, 8]), WITHDRAW, 0, "RFC 7606 §4"),
        ("MP_REACH too short", Put(0x80, 14, vec![0, 2, 1]), RESET_9, 14, "RFC 7606 §7.11"),
        ("MP_UNREACH too short", Put(0x80, 15, vec![0, 2]), RESET_9, 15, "RFC 7606 §7.12"),
        ("MP_UNREACH of a /129", Put(0x80, 15, vec![0, 2, 1, 129]), DISABLE_6, 15, "RFC 7606 §5.3"),
        ("MP_UNREACH IPv4 of a /33", Put(0x80, 15, vec![0, 1, 1, 33]), DISABLE_4, 15, "RFC 7606 §5.3"),
        ("MP_UNREACH of multicast", Put(0x80, 15, vec![0, 2, 2]), DISCARD, 15, "RFC 4760 §6"),
    ];
    check(&external(), &mandatory(&external()), true, cases);
}

#[test]
fn rfc_7606_from_an_internal_peer() {
    let cases: Vec<Case> = vec![
        ("LOCAL_PREF of 3", Put(0x40, 5, vec![0; 3]), WITHDRAW, 5, "RFC 7606 §7.5"),
        ("no LOCAL_PREF", Without(5), WITHDRAW, 5, "RFC 7606 §3 (d)"),
        ("ORIGINATOR_ID of 3", Put(0x80, 9, vec![0; 3]), WITHDRAW, 9, "RFC 7606 §7.9"),
        ("CLUSTER_LIST of 5", Put(0x80, 10, vec![0; 5]), WITHDRAW, 10, "RFC 7606 §7.10"),
        ("CLUSTER_LIST of 0", Put(0x80, 10, vec![]), WITHDRAW, 10, "RFC 7606 §7.10"),
    ];
    check(&internal(), &mandatory(&internal()), true, cases);
}

#[test]
fn rfc_7606_on_a_two_octet_session() {
    let cases: Vec<Case> = vec![
        ("AGGREGATOR of 8", Put(0xC0, 7, vec![0; 8]), DISCARD, 7, "RFC 7606 §7.7"),
        ("AS_SET of two octets", Put(0x40, 2, vec![1, 1, 0, 7]), WITHDRAW, 2, "RFC 9774 §3"),
        ("AS_SET in AS4_PATH", Put(0xC0, 17, vec![1, 1, 0, 1, 0, 7]), WITHDRAW, 17, "RFC 9774 §3"),
        ("AS_CONFED_SET in AS4_PATH", Put(0xC0, 17, vec![4, 1, 0, 1, 0, 7]), WITHDRAW, 17, "RFC 9774 §3"),
        ("a path of four octets", Put(0x40, 2, path4(&[PEER_AS])), WITHDRAW, 2, "RFC 7606 §7.2"),
    ];
    check(&narrow(), &mandatory(&narrow()), true, cases);
}

#[test]
fn rfc_7606_with_routes_in_mp_reach() {
    let mut good = vec![reach6()];
    good.extend(mandatory(&external()).into_iter().filter(|one| one.1 != code::NEXT_HOP));
    let reach = |length: u8, rest: &[u8]| {
        let mut value = vec![0, 2, 1, length];
        value.extend(vec![0x20; usize::from(length)]);
        value.push(0);
        value.extend(rest);
        Put(0x80, 14, value)
    };
    let cases: Vec<Case> = vec![
        ("next hop of 15", reach(15, &[]), DISABLE_6, 14, "RFC 7606 §7.11"),
        ("next hop of 24", reach(24, &[]), DISABLE_6, 14, "RFC 7606 §7.11"),
        ("a /129", reach(16, &[129]), DISABLE_6, 14, "RFC 7606 §5.3"),
        ("half a prefix", reach(16, &[64, 0x20]), DISABLE_6, 14, "RFC 7606 §5.3"),
        ("next hop runs over the end", Put(0x80, 14, vec![0, 2, 1, 16, 0x20]), RESET_9, 14, "RFC 7606 §7.11"),
        (
            "no reserved octet",
            Put(0x80, 14, [vec![0, 2, 1, 16], vec![0x20; 16]].concat()),
            RESET_9,
            14,
            "RFC 7606 §7.11",
        ),
        ("IPv4 multicast", Put(0x80, 14, vec![0, 1, 2, 4, 1, 1, 1, 1, 0]), DISCARD, 14, "RFC 4760 §6"),
        ("twice", Twice(14), RESET_1, 14, "RFC 7606 §3 (g)"),
        ("flags", Put(0xC0, 14, reach6().2), WITHDRAW, 14, "RFC 7606 §3 (c)"),
        ("no ORIGIN", Without(1), WITHDRAW, 1, "RFC 7606 §3 (d)"),
        ("no AS_PATH", Without(2), WITHDRAW, 2, "RFC 7606 §3 (d)"),
        ("malformed MED", Put(0x80, 4, vec![1]), WITHDRAW, 4, "RFC 7606 §7.4"),
    ];
    check(&external(), &good, false, cases);
    let only = Receiver { ipv4: false, ..external() };
    let bytes = spoilt(good, &reach(15, &[]));
    let alone = read(&bytes, false, &only);
    assert_eq!(alone.strongest().unwrap().action, RESET_9, "no other family is left");
}

/// RFC 7606 §5.2: the prefixes may have been lost with the attribute.
#[test]
fn malformed_attributes_without_prefixes_reset_the_session() {
    let bytes = list(&[(0x40, code::ORIGIN, vec![7])]);
    let read = read(&bytes, false, &external());
    assert_eq!(read.result, None);
    assert_eq!(read.strongest().unwrap().action, RESET_1);
    assert_eq!(read.strongest().unwrap().rfc, "RFC 7606 §5.2");
}

/// §3 (h): of several faults the strongest counts; all are told, but not without end.
#[test]
fn the_strongest_of_many_faults_is_kept() {
    let mut attributes = mandatory(&external());
    attributes.extend((0..40).map(|_| (0x40, code::ORIGIN, vec![0])));
    attributes.push((0x80, code::MULTI_EXIT_DISC, vec![1]));
    let read = read(&list(&attributes), true, &external());
    assert_eq!(read.result, Some(Err(())));
    assert_eq!(read.faults.len(), MAX_FAULTS + 1);
    assert_eq!(read.strongest().unwrap().attribute, code::MULTI_EXIT_DISC);
}

#[test]
fn the_notification_carries_the_attribute() {
    let attribute = (0x40, 99, vec![7; 100]);
    let bytes = list(&[mandatory(&external()), vec![attribute.clone()]].concat());
    let read = read(&bytes, true, &external());
    assert_eq!(read.strongest().unwrap().data, list(&[attribute])[..MAX_DATA]);
}

#[test]
fn an_unknown_transitive_attribute_is_kept_as_partial() {
    let unknown = [(0xC0, 99, vec![1, 2]), (0xE0, 98, vec![3]), (0x80, 97, vec![4]), (0xD0, 96, vec![5])];
    let read = read(&list(&[mandatory(&external()), unknown.to_vec()].concat()), true, &external());
    assert!(read.faults.is_empty());
    let kept = attr::attributes(read.canonical()).filter(|a| a.code > 90);
    let kept: Vec<One> = kept.map(|a| (a.flags, a.code, a.value.to_vec())).collect();
    assert_eq!(kept, [(0xE0, 96, vec![5]), (0xE0, 98, vec![3]), (0xE0, 99, vec![1, 2])]);
}

#[test]
fn local_pref_counts_from_internal_peers_only() {
    let local_pref = (0x40, code::LOCAL_PREF, vec![0, 0, 3, 0xE8]);
    let from = |receiver: &Receiver| {
        let mut attributes = mandatory(receiver);
        attributes.retain(|one| one.1 != code::LOCAL_PREF);
        attributes.push(local_pref.clone());
        read(&list(&attributes), true, receiver)
    };
    let (outside, inside) = (from(&external()), from(&internal()));
    assert_eq!((outside.key().local_pref, inside.key().local_pref), (100, 1000));
    assert_eq!(attr::find(outside.canonical(), code::LOCAL_PREF), None);
    assert_eq!(attr::find(inside.canonical(), code::LOCAL_PREF), Some(&local_pref.2[..]));
}

#[test]
fn the_key_says_what_the_attributes_say() {
    let mut attributes = mandatory(&internal());
    attributes[0].2 = vec![2];
    attributes[1].2 = [path4(&[70000, OWN_AS]), path4(&[1])].concat();
    attributes.extend([
        (0x80, code::MULTI_EXIT_DISC, vec![0, 0, 0, 7]),
        (0xC0, code::COMMUNITIES, [0xFFFF_FF01u32.to_be_bytes(), 0xFFFF_FF02u32.to_be_bytes()].concat()),
        (0x80, code::ORIGINATOR_ID, vec![10, 0, 0, 1]),
        (0x80, code::CLUSTER_LIST, vec![10, 0, 0, 9, 10, 0, 0, 1]),
    ]);
    let key = read(&list(&attributes), true, &internal()).key();
    assert_eq!((key.local_pref, key.tail, key.med), (200, 3 << 8 | 2, 7));
    assert_eq!((key.neighbor_as, key.cluster_len), (70000, 2));
    let all = [Key::OWN_AS, Key::NO_EXPORT, Key::NO_ADVERTISE, Key::ORIGINATOR];
    assert!(all.into_iter().all(|bit| key.has(bit)), "{key:?}");
    assert!(key.has(Key::REFLECTION_LOOP) && !key.has(Key::EBGP) && !key.has(Key::IPV6));
}

/// RFC 6793 §4.2.3.
#[test]
fn as4_path_is_merged_with_the_path_of_two_octets() {
    let merged = |path: &[u16], as4: &[u32], more: &[One]| {
        let mut attributes = mandatory(&narrow());
        attributes[1].2 = path2(path);
        attributes.push((0xC0, code::AS4_PATH, path4(as4)));
        attributes.extend_from_slice(more);
        read(&list(&attributes), true, &narrow())
    };
    let plain = merged(&[65001, 23456, 65003], &[70000, 65003], &[]);
    assert_eq!(asns(plain.canonical()), [65001, 70000, 65003]);
    assert_eq!(plain.key().as_path_len(), 3);
    assert_eq!(attr::find(plain.canonical(), code::AS4_PATH), None);
    let longer = merged(&[65001], &[65001, 70000], &[]);
    assert_eq!(asns(longer.canonical()), [65001], "an AS4_PATH longer than AS_PATH is ignored");

    let aggregator = |asn: u16| (0xC0, code::AGGREGATOR, [&asn.to_be_bytes()[..], &[10, 0, 0, 9]].concat());
    let wide: One = (0xC0, code::AS4_AGGREGATOR, [&70009u32.to_be_bytes()[..], &[10, 0, 0, 9]].concat());
    let both = merged(&[65001, 23456], &[70000], &[aggregator(23456), wide.clone()]);
    assert_eq!(asns(both.canonical()), [65001, 70000]);
    assert_eq!(attr::find(both.canonical(), code::AGGREGATOR), Some(&wide.2[..]));
    let old = merged(&[65001, 23456], &[70000], &[aggregator(65009), wide]);
    assert_eq!(asns(old.canonical()), [65001, 23456], "somebody aggregated who knew nothing of AS4");
    let known = [&65009u32.to_be_bytes()[..], &[10, 0, 0, 9]].concat();
    assert_eq!(attr::find(old.canonical(), code::AGGREGATOR), Some(&known[..]));
}

/// RFC 2545 §3.
#[test]
fn a_second_next_hop_is_kept_if_it_is_link_local() {
    for (second, kept) in [(0xFE80u16, 32), (0x2001, 16)] {
        let mut reach = reach6();
        reach.2[3] = 32;
        let mut address = vec![0; 16];
        address[..2].copy_from_slice(&second.to_be_bytes());
        reach.2.splice(20..20, address);
        let attributes: Vec<One> = [vec![reach], mandatory(&external())].concat();
        let read = read(&list(&attributes), false, &external());
        assert!(read.faults.is_empty(), "{:?}", read.faults);
        assert_eq!(attr::find(read.canonical(), code::NEXT_HOP).unwrap().len(), kept);
        assert!(read.key().has(Key::IPV6 | Key::EBGP));
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 20).unwrap() % bound
    }
}

/// A well-formed list with any of the attributes we know and some we do not.
fn random(rng: &mut Rng, receiver: &Receiver) -> Vec<One> {
    let mut attributes = mandatory(receiver);
    let mut octets =
        |count: usize| (0..count).map(|_| u8::try_from(rng.below(256)).unwrap()).collect::<Vec<_>>();
    let more = [
        (0x80, code::MULTI_EXIT_DISC, octets(4)),
        (0x40, code::ATOMIC_AGGREGATE, vec![]),
        (0xC0, code::AGGREGATOR, octets(8)),
        (0xE0, code::COMMUNITIES, octets(4)),
        (0xC0, code::COMMUNITIES, octets(400)),
        (0xC0, code::EXTENDED_COMMUNITIES, octets(16)),
        (0xC0, code::LARGE_COMMUNITIES, octets(24)),
        (0xC0, code::ONLY_TO_CUSTOMER, octets(4)),
        (0x80, code::ORIGINATOR_ID, octets(4)),
        (0x80, code::CLUSTER_LIST, octets(12)),
        (0xC0, 200, octets(300)),
        (0x80, 201, octets(3)),
        (0xE0, 254, octets(1)),
    ];
    for one in more {
        let wanted = !receiver.external || !matches!(one.1, code::ORIGINATOR_ID | code::CLUSTER_LIST);
        if wanted && rng.below(2) == 0 && attributes.iter().all(|known| known.1 != one.1) {
            attributes.push(one);
        }
    }
    attributes
}

/// Shuffled, and with length fields as long as somebody likes them.
fn shuffled(rng: &mut Rng, mut attributes: Vec<One>) -> Vec<One> {
    for last in (1..attributes.len()).rev() {
        let other = rng.below(last + 1);
        attributes.swap(last, other);
    }
    for one in &mut attributes {
        let extended = one.2.len() > 255 || rng.below(2) == 0;
        one.0 |= if extended { flag::EXTENDED_LENGTH } else { 0 };
    }
    attributes
}

#[test]
fn the_canonical_form_is_independent_of_order_and_its_own_canonical_form() {
    let mut rng = Rng(0x1234_5678_9ABC_DEF1);
    for round in 0..2000 {
        let receiver = if round % 2 == 0 { external() } else { internal() };
        let attributes = random(&mut rng, &receiver);
        let [one, other] = [(); 2].map(|()| {
            let bytes = list(&shuffled(&mut rng, attributes.clone()));
            read(&bytes, true, &receiver)
        });
        assert!(one.faults.is_empty(), "{:?}", one.faults);
        assert_eq!((one.canonical(), one.key()), (other.canonical(), other.key()));
        let codes: Vec<u8> = attr::attributes(one.canonical()).map(|a| a.code).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
        let again = read(one.canonical(), true, &receiver);
        assert_eq!((again.canonical(), again.key()), (one.canonical(), one.key()));
    }
}
