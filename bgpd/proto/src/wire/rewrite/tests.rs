use super::*;
use crate::wire::canonical::{self, Receiver, Scratch};

const OWN: u32 = 64512;

fn style(external: bool, four_octet_as: bool) -> Style {
    let mut next_hop_ipv6 = [0; 16];
    next_hop_ipv6[..4].copy_from_slice(&[0x20, 1, 0xD, 0xB8]);
    next_hop_ipv6[15] = 9;
    Style {
        external,
        local_asn: Asn(OWN),
        four_octet_as,
        next_hop_ipv4: Some([203, 0, 113, 9]),
        next_hop_ipv6: Some(next_hop_ipv6),
        link_local: None,
        extended_next_hop: false,
        cluster_id: 0x0A00_0009,
        role: None,
        next_hop: NextHopMode::Auto,
    }
}

fn path(asns: &[u32]) -> Vec<u8> {
    let mut path = vec![as_path::AS_SEQUENCE, u8::try_from(asns.len()).unwrap()];
    path.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    path
}

/// A canonical set with everything that rewriting looks at.
fn set(as_path: &[u8], next_hop: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    attr::put(&mut out, 0x40, code::ORIGIN, &[1]);
    attr::put(&mut out, 0x40, code::AS_PATH, as_path);
    attr::put(&mut out, 0x40, code::NEXT_HOP, next_hop);
    attr::put(&mut out, 0x80, code::MULTI_EXIT_DISC, &[0, 0, 0, 50]);
    attr::put(&mut out, 0xC0, code::AGGREGATOR, &[0, 1, 0x11, 0x70, 10, 0, 0, 1]);
    attr::put(&mut out, 0xC0, code::COMMUNITIES, &[0xFD, 0xE9, 0, 1]);
    attr::put(&mut out, 0x80, code::ORIGINATOR_ID, &[10, 0, 0, 5]);
    attr::put(&mut out, 0x80, code::CLUSTER_LIST, &[10, 0, 0, 6]);
    attr::put(&mut out, 0xE0, 99, &[7; 300]);
    out
}

fn sent(canonical: &[u8], family: AfiSafi, style: &Style, origin: Origin) -> (Vec<u8>, Vec<u8>) {
    let key = Key { local_pref: 150, ..Key::default() };
    let mut out = vec![1, 2, 3];
    rewrite(canonical, &key, family, style, origin, &mut out);
    let outgoing = outgoing(&out);
    let codes: Vec<u8> = attr::attributes(outgoing.attributes).map(|a| a.code).collect();
    assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    (outgoing.next_hop.to_vec(), outgoing.attributes.to_vec())
}

fn has_next_hop(style: &Style, family: AfiSafi, origin: Origin, canonical: &[u8]) -> bool {
    let ipv6 = attr::find(canonical, code::NEXT_HOP).unwrap().len() > 4;
    style.has_next_hop(
        family,
        origin,
        &Key { flags: if ipv6 { Key::IPV6 } else { 0 }, ..Key::default() },
        canonical,
    )
}

const V4: AfiSafi = AfiSafi::Ipv4Unicast;
const V6: AfiSafi = AfiSafi::Ipv6Unicast;

#[test]
fn towards_an_external_peer() {
    let received = set(&path(&[65001, 70000]), &[192, 0, 2, 1]);
    for origin in [Origin::External, Origin::Internal(1)] {
        let (next_hop, list) = sent(&received, V4, &style(true, true), origin);
        let find = |code| attr::find(&list, code);
        assert_eq!(find(code::AS_PATH), Some(&path(&[OWN, 65001, 70000])[..]));
        assert_eq!((next_hop, find(code::NEXT_HOP)), (vec![], Some(&[203, 0, 113, 9][..])));
        assert_eq!(find(code::LOCAL_PREF), None);
        assert_eq!(find(code::MULTI_EXIT_DISC), None, "RFC 4271 §5.1.4");
        assert_eq!((find(code::ORIGINATOR_ID), find(code::CLUSTER_LIST)), (None, None));
        assert_eq!(find(code::COMMUNITIES), Some(&[0xFD, 0xE9, 0, 1][..]));
        assert_eq!(find(99), Some(&[7; 300][..]));
    }
}

#[test]
fn towards_an_internal_peer() {
    let received = set(&path(&[65001, 70000]), &[192, 0, 2, 1]);
    let (_, list) = sent(&received, V4, &style(false, true), Origin::External);
    let find = |code| attr::find(&list, code);
    assert_eq!(find(code::AS_PATH), Some(&path(&[65001, 70000])[..]));
    assert_eq!(find(code::NEXT_HOP), Some(&[192, 0, 2, 1][..]), "RFC 4271 §5.1.3");
    assert_eq!(find(code::LOCAL_PREF), Some(&[0, 0, 0, 150][..]), "RFC 4271 §5.1.5");
    assert_eq!(find(code::MULTI_EXIT_DISC), Some(&[0, 0, 0, 50][..]));
}

/// LOCAL_PREF is put where there was none, also behind the last attribute.
#[test]
fn local_pref_is_added_at_its_place() {
    let short = &set(&path(&[65001]), &[192, 0, 2, 1])[..4 + 9 + 7];
    let (_, list) = sent(short, V4, &style(false, true), Origin::External);
    assert_eq!(attr::attributes(&list).last().map(|a| (a.code, a.value)), Some((5, &[0, 0, 0, 150][..])));
}

#[test]
fn what_we_originate() {
    let own = set(&[], &[]);
    let (_, list) = sent(&own, V4, &style(true, true), Origin::Own);
    assert_eq!(attr::find(&list, code::AS_PATH), Some(&path(&[OWN])[..]));
    assert_eq!(attr::find(&list, code::MULTI_EXIT_DISC), Some(&[0, 0, 0, 50][..]));
    let (_, list) = sent(&own, V4, &style(false, true), Origin::Own);
    assert_eq!(attr::find(&list, code::AS_PATH), Some(&[][..]), "RFC 4271 §5.1.2 b");
    assert_eq!(attr::find(&list, code::NEXT_HOP), Some(&[203, 0, 113, 9][..]));
    let prepended = set(&path(&[OWN, OWN]), &[]);
    let (_, list) = sent(&prepended, V4, &style(true, true), Origin::Own);
    assert_eq!(attr::find(&list, code::AS_PATH), Some(&path(&[OWN, OWN, OWN])[..]));
}

#[test]
fn the_next_hop_of_ipv6_leaves_the_list() {
    let mut received = vec![0x20; 32];
    received[16] = 0xFE;
    received[17] = 0x80;
    let canonical = set(&path(&[65001]), &received);
    let ours = style(true, true).next_hop_ipv6.unwrap();
    let (next_hop, list) = sent(&canonical, V6, &style(true, true), Origin::External);
    assert_eq!((&next_hop[..], attr::find(&list, code::NEXT_HOP)), (&ours[..], None));
    let (next_hop, _) = sent(&canonical, V6, &style(false, true), Origin::External);
    assert_eq!(next_hop, received[..16], "a link-local address means nothing elsewhere");
    let link_local = [0xFE; 16];
    let here = Style { link_local: Some(link_local), ..style(true, true) };
    let (next_hop, _) = sent(&canonical, V6, &here, Origin::External);
    assert_eq!(next_hop, [ours, link_local].concat());
}

#[test]
fn without_an_address_of_ours_nothing_is_told_that_needs_one() {
    let none = Style { next_hop_ipv4: None, next_hop_ipv6: None, ..style(true, true) };
    let (ipv4, ipv6) = (set(&path(&[65001]), &[192, 0, 2, 1]), set(&path(&[65001]), &[0x20; 16]));
    assert!(!has_next_hop(&none, V4, Origin::External, &ipv4));
    assert!(!has_next_hop(&none, V6, Origin::Internal(1), &ipv6));
    let inside = Style { external: false, ..none };
    assert!(has_next_hop(&inside, V4, Origin::External, &ipv4));
    assert!(!has_next_hop(&inside, V4, Origin::Own, &ipv4));
    assert!(has_next_hop(&style(true, true), V6, Origin::Own, &ipv6));
}

#[test]
fn a_full_segment_is_not_prepended_to() {
    let full: Vec<u32> = (1..=255).collect();
    let canonical = set(&path(&full), &[192, 0, 2, 1]);
    let (_, list) = sent(&canonical, V4, &style(true, true), Origin::External);
    let expected = [path(&[OWN]), path(&full)].concat();
    assert_eq!(attr::find(&list, code::AS_PATH), Some(&expected[..]));
    let in_set = [as_path::AS_SET, 1, 0, 0, 0xFD, 0xE9];
    let (_, list) = sent(&set(&in_set, &[192, 0, 2, 1]), V4, &style(true, true), Origin::External);
    assert_eq!(attr::find(&list, code::AS_PATH), Some(&[path(&[OWN]), in_set.to_vec()].concat()[..]));
}

/// RFC 6793 §4.2.2.
#[test]
fn towards_a_peer_of_two_octets() {
    let wide = set(&path(&[65001, 70000]), &[192, 0, 2, 1]);
    let (_, list) = sent(&wide, V4, &style(true, false), Origin::External);
    let find = |code| attr::find(&list, code);
    assert_eq!(find(code::AS_PATH), Some(&[2, 3, 0xFC, 0, 0xFD, 0xE9, 0x5B, 0xA0][..]));
    assert_eq!(find(code::AS4_PATH), Some(&path(&[OWN, 65001, 70000])[..]));
    assert_eq!(find(code::AGGREGATOR), Some(&[0x5B, 0xA0, 10, 0, 0, 1][..]));
    assert_eq!(find(code::AS4_AGGREGATOR), Some(&[0, 1, 0x11, 0x70, 10, 0, 0, 1][..]));
    let narrow = set(&path(&[65001]), &[192, 0, 2, 1]);
    let (_, list) = sent(&narrow, V4, &style(true, false), Origin::External);
    assert_eq!(attr::find(&list, code::AS4_PATH), None, "nothing was lost");
}

/// What we send is what a peer of ours accepts without a fault, and reads as what we meant.
#[test]
fn what_is_sent_reads_back() {
    let paths: [&[u32]; 4] = [&[65001], &[65001, 70000, 65002], &[4_200_000_001, 3, 4], &[65001; 200]];
    for (asns, external, wide) in
        paths.iter().flat_map(|p| [(p, true, true), (p, true, false), (p, false, true), (p, false, false)])
    {
        let canonical = set(&path(asns), &[192, 0, 2, 1]);
        let (_, list) = sent(&canonical, V4, &style(external, wide), Origin::External);
        let peer_as = if external { OWN } else { 65001 };
        let receiver = Receiver {
            external,
            four_octet_as: wide,
            own_as: 65099,
            peer_as,
            router_id: 1,
            ipv4: true,
            ipv6: true,
            ipv4_paths: false,
            ipv6_paths: false,
            extended_next_hop: false,
            interface: 0,
            role: None,
        };
        let (mut scratch, mut faults) = (Scratch::default(), Vec::new());
        let parsed = canonical::parse(&list, true, &receiver, &mut scratch, &mut faults).unwrap();
        assert_eq!((faults, parsed.withdraw), (vec![], false));
        let (key, next_hop) = parsed.compose(None, &mut scratch);
        let expected_path = if external { path(&[&[OWN], *asns].concat()) } else { path(asns) };
        assert_eq!(attr::find(&scratch.out, code::AS_PATH), Some(&expected_path[..]));
        assert_eq!(key.local_pref, if external { 100 } else { 150 });
        assert_eq!(key.med, if external { 0 } else { 50 });
        assert_eq!(next_hop.octets(), if external { [203, 0, 113, 9] } else { [192, 0, 2, 1] });
        for code in [code::ORIGIN, code::AGGREGATOR, code::COMMUNITIES, 99] {
            assert_eq!(attr::find(&scratch.out, code), attr::find(&canonical, code), "attribute {code}");
        }
    }
}

#[test]
fn ipv4_prefixes_may_have_ipv6_next_hops() {
    let via_ipv4 = set(&path(&[65001]), &[192, 0, 2, 1]);
    let mut global = [0; 16];
    global[..2].copy_from_slice(&[0x20, 1]);
    let via_ipv6 = set(&path(&[65001]), &global);
    let extended = |external| Style { extended_next_hop: true, ..style(external, true) };
    let own = extended(true).next_hop_ipv6.unwrap();
    // Towards an external peer, and for what is ours: our IPv6 address, and no NEXT_HOP beside it.
    for (received, external, origin) in [
        (&via_ipv4, true, Origin::External),
        (&via_ipv6, true, Origin::External),
        (&via_ipv4, false, Origin::Own),
    ] {
        let (next_hop, list) = sent(received, V4, &extended(external), origin);
        assert_eq!((next_hop, attr::find(&list, code::NEXT_HOP)), (own.to_vec(), None));
    }
    // What an external peer told goes to internal peers as it is, each with its own kind.
    let (next_hop, list) = sent(&via_ipv6, V4, &extended(false), Origin::External);
    assert_eq!((next_hop, attr::find(&list, code::NEXT_HOP)), (global.to_vec(), None));
    let (next_hop, list) = sent(&via_ipv4, V4, &extended(false), Origin::External);
    assert_eq!((next_hop, attr::find(&list, code::NEXT_HOP)), (vec![], Some(&[192, 0, 2, 1][..])));
    // Who does not understand it is told ourselves instead, and nothing where we have no address to tell.
    let plain = style(false, true);
    let (next_hop, list) = sent(&via_ipv6, V4, &plain, Origin::External);
    assert_eq!((next_hop, attr::find(&list, code::NEXT_HOP)), (vec![], Some(&[203, 0, 113, 9][..])));
    let nothing = Style { next_hop_ipv4: None, ..plain.clone() };
    assert!(has_next_hop(&plain, V4, Origin::External, &via_ipv6));
    assert!(!has_next_hop(&nothing, V4, Origin::External, &via_ipv6));
    assert!(has_next_hop(&nothing, V4, Origin::External, &via_ipv4));
    let extended = Style { next_hop_ipv4: None, ..extended(true) };
    assert!(has_next_hop(&extended, V4, Origin::Own, &via_ipv4));
}

#[test]
fn an_address_of_one_link_is_told_on_that_link_alone() {
    let neighbour = crate::link_local::scoped("fe80::1".parse().unwrap(), 7).octets();
    let mut link_local = [0; 16];
    (link_local[0], link_local[1], link_local[15]) = (0xFE, 0x80, 9);
    let global = style(true, true).next_hop_ipv6.unwrap();
    let here = Style { link_local: Some(link_local), extended_next_hop: true, ..style(true, true) };
    let (via_link, both) =
        (set(&path(&[65001]), &neighbour), set(&path(&[65001]), &[global, neighbour].concat()));
    for family in [V4, V6] {
        // Ours behind our global one; alone where there is none (FRR and BIRD take both).
        let (next_hop, list) = sent(&via_link, family, &here, Origin::Own);
        assert_eq!((next_hop, attr::find(&list, code::NEXT_HOP)), ([global, link_local].concat(), None));
        let alone = Style { next_hop_ipv6: None, next_hop_ipv4: None, ..here.clone() };
        assert_eq!(sent(&via_link, family, &alone, Origin::External).0, link_local);
        assert!(has_next_hop(&alone, family, Origin::Own, &via_link));
        // Elsewhere ours stands for the neighbour's, also where next hops are to be kept; its global one may be named.
        for mode in [NextHopMode::Auto, NextHopMode::Keep] {
            let inside =
                Style { external: false, extended_next_hop: true, next_hop: mode, ..style(true, true) };
            assert_eq!(sent(&via_link, family, &inside, Origin::External).0, global);
            assert_eq!(sent(&both, family, &inside, Origin::External).0, global);
            let nowhere = Style { next_hop_ipv6: None, next_hop_ipv4: None, ..inside };
            assert!(!has_next_hop(&nowhere, family, Origin::External, &via_link));
            assert!(has_next_hop(&nowhere, family, Origin::External, &both));
        }
    }
}
