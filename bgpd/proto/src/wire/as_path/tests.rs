use super::*;

/// A path from segments, in numbers of `width` octets.
fn path(segments: &[(u8, &[u32])], width: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, asns) in segments {
        out.extend([*kind, u8::try_from(asns.len()).unwrap()]);
        asns.iter().for_each(|asn| out.extend(&asn.to_be_bytes()[4 - width..]));
    }
    out
}

#[test]
fn malformed_segments_end_the_walk() {
    for bad in [&[2, 0][..], &[3, 1, 0, 0, 0, 1], &[2, 2, 0, 0, 0, 1], &[2], &[0, 1, 0, 0, 0, 1]] {
        let mut walk = segments(bad, 4);
        assert_eq!(walk.next(), None);
        assert!(!walk.rest.is_empty(), "{bad:?}");
    }
}

#[test]
fn a_set_counts_as_one() {
    assert_eq!(length(&path(&[(2, &[1, 2, 3]), (1, &[4, 5])], 4), 4), 4);
}

/// RFC 6793 §4.2.3, its cases.
#[test]
fn as4_path_replaces_the_tail() {
    let merged = |two: &[(u8, &[u32])], four: &[(u8, &[u32])]| {
        let mut out = Vec::new();
        merge(&path(two, 2), &path(four, 4), &mut out);
        out
    };
    assert_eq!(
        merged(&[(2, &[65001, 23456, 23456])], &[(2, &[70000, 80000])]),
        path(&[(2, &[65001]), (2, &[70000, 80000])], 4)
    );
    assert_eq!(merged(&[(2, &[23456])], &[(2, &[70000])]), path(&[(2, &[70000])], 4));
    // longer than AS_PATH: ignored
    assert_eq!(merged(&[(2, &[23456])], &[(2, &[70000, 80000])]), path(&[(2, &[23456])], 4));
    // a set in front is taken whole
    assert_eq!(
        merged(&[(1, &[1, 2]), (2, &[23456])], &[(2, &[70000])]),
        path(&[(1, &[1, 2]), (2, &[70000])], 4)
    );
}

#[test]
fn narrowing_marks_what_does_not_fit() {
    let mut out = Vec::new();
    assert!(narrow(&path(&[(2, &[65001, 70000])], 4), &mut out));
    assert_eq!(out, path(&[(2, &[65001, 23456])], 2));
    out.clear();
    assert!(!narrow(&path(&[(2, &[65001])], 4), &mut out));
}

#[test]
fn a_full_segment_is_not_joined() {
    let full: Vec<u32> = (1..=255).collect();
    let mut out = Vec::new();
    prepend(&path(&[(2, &full)], 4), Asn(9), 2, &mut out);
    assert_eq!(out, path(&[(2, &[9, 9]), (2, &full)], 4));
    out.clear();
    prepend(&path(&[(2, &[7])], 4), Asn(9), 1, &mut out);
    assert_eq!(out, path(&[(2, &[9, 7])], 4));
    out.clear();
    prepend(&[], Asn(9), 1, &mut out);
    assert_eq!(out, path(&[(2, &[9])], 4));
}
