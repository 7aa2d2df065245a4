//! Attributes for people: the canonical bytes of a path, read by zettabgp.
//!
//! The only module that names zettabgp, and never on the path of a route: decoding into its types costs several times
//! the whole of what a route costs otherwise. What it gets was validated and made canonical before (`wire::canonical`),
//! which is what keeps its decoder from input that it panics or never ends on. Where it falls short:
//! - AS_PATH is walked here: its `BgpAS` takes 65536 and 1 for equal, so a set would lose members, and its decoder
//!   does not end on a path with a stray byte.
//! - Extended communities, AGGREGATOR and whatever it does not know are not asked of it; they are shown by number.

use zettabgp::prelude::{BgpAttrItem, BgpSessionParams, BgpTransportMode};

use super::as_path::{AS_SET, segments};

/// What a person wants to know of a path's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// `IGP`, `EGP`, `incomplete`; empty without the attribute.
    pub origin: &'static str,
    /// Left to right as in the attribute; a set in braces: `65013 65000 {65001,65002}`.
    pub as_path: String,
    /// LOCAL_PREF, where the path carries it.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// `64512:100`, then `64512:1:2`.
    pub communities: Vec<String>,
    /// Types of attributes that are not shown otherwise.
    pub others: Vec<u8>,
}

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const MULTI_EXIT_DISC: u8 = 4;
const LOCAL_PREF: u8 = 5;
const COMMUNITIES: u8 = 8;
const LARGE_COMMUNITIES: u8 = 32;
const EXTENDED_LENGTH: u8 = 0x10;

/// Reads canonical attributes (`PathView::attributes`). What does not decode is in [`Attributes::others`].
#[must_use]
pub fn attributes(mut bytes: &[u8]) -> Attributes {
    let mut shown = Attributes::default();
    while let Some((flags, kind, value, rest)) = next(bytes) {
        bytes = rest;
        match kind {
            AS_PATH => shown.as_path = as_path(value),
            NEXT_HOP => {}
            ORIGIN | MULTI_EXIT_DISC | LOCAL_PREF | COMMUNITIES | LARGE_COMMUNITIES => {
                if !decode(flags, kind, value, &mut shown) {
                    shown.others.push(kind);
                }
            }
            _ => shown.others.push(kind),
        }
    }
    shown
}

/// The value of NEXT_HOP among encoded attributes.
#[must_use]
pub fn next_hop(mut bytes: &[u8]) -> Option<&[u8]> {
    while let Some((_, kind, value, rest)) = next(bytes) {
        if kind == NEXT_HOP {
            return Some(value);
        }
        bytes = rest;
    }
    None
}

/// Flags, type, value, and what stands behind.
fn next(bytes: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let (flags, kind, length, rest) = match bytes {
        [flags, kind, high, low, rest @ ..] if flags & EXTENDED_LENGTH != 0 => {
            (*flags, *kind, usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        [flags, kind, length, rest @ ..] if flags & EXTENDED_LENGTH == 0 => {
            (*flags, *kind, usize::from(*length), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((flags, kind, value, rest))
}

fn decode(flags: u8, kind: u8, value: &[u8], shown: &mut Attributes) -> bool {
    // Lengths that its decoders index without looking.
    let whole = match kind {
        ORIGIN => value.len() == 1,
        MULTI_EXIT_DISC | LOCAL_PREF => value.len() == 4,
        COMMUNITIES => value.len().is_multiple_of(4),
        LARGE_COMMUNITIES => value.len().is_multiple_of(12),
        _ => false,
    };
    if !whole {
        return false;
    }
    let Ok(item) = BgpAttrItem::decode_from(&session(), kind, flags, value.len(), value) else {
        return false;
    };
    if let BgpAttrItem::Origin(_) = &item {
        shown.origin = match value {
            [0] => "IGP",
            [1] => "EGP",
            _ => "incomplete",
        };
    } else if let BgpAttrItem::MED(med) = &item {
        shown.med = Some(med.value);
    } else if let BgpAttrItem::LocalPref(preference) = &item {
        shown.local_pref = Some(preference.value);
    } else if let BgpAttrItem::CommunityList(list) = &item {
        shown
            .communities
            .extend(list.value.iter().map(|one| format!("{}:{}", one.value >> 16, one.value & 0xffff)));
    } else if let BgpAttrItem::LargeCommunityList(list) = &item {
        shown
            .communities
            .extend(list.value.iter().map(|one| format!("{}:{}:{}", one.ga, one.ldp1, one.ldp2)));
    } else {
        return false;
    }
    true
}

/// A session as its decoder needs it: four-octet AS numbers, nothing guessed.
fn session() -> BgpSessionParams {
    let any = std::net::Ipv4Addr::UNSPECIFIED;
    let mut session = BgpSessionParams::new(0, 0, BgpTransportMode::IPv4, any, Vec::new());
    session.has_as32bit = true;
    session.fuzzy_pathid = false;
    session
}

fn as_path(path: &[u8]) -> String {
    let mut words = Vec::new();
    for segment in segments(path, 4) {
        let numbers: Vec<String> = segment.asns().map(|asn| asn.to_string()).collect();
        words.push(if segment.kind == AS_SET {
            format!("{{{}}}", numbers.join(","))
        } else {
            numbers.join(" ")
        });
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_operators_write_it() {
        let bytes = [
            &[0x40, 1, 1, 0][..],
            &[0x40, 2, 20, 2, 2, 0, 0, 0xfd, 0xf5, 0xfa, 0x56, 0xea, 0x01, 1, 2, 0, 0, 0, 7, 0, 1, 0, 0],
            &[0x40, 3, 4, 10, 0, 0, 1],
            &[0x80, 4, 4, 0, 0, 0, 9],
            &[0x40, 5, 4, 0, 0, 0, 200],
            &[0xc0, 8, 8, 0xfc, 0, 0, 100, 0xff, 0xff, 0xff, 1],
            &[0xd0, 32, 0, 12, 0, 0, 0xfc, 0, 0, 0, 0, 1, 0, 0, 0, 2],
            &[0xc0, 99, 2, 1, 2],
        ]
        .concat();
        assert_eq!(
            attributes(&bytes),
            Attributes {
                origin: "IGP",
                as_path: "65013 4200000001 {7,65536}".into(),
                local_pref: Some(200),
                med: Some(9),
                communities: vec!["64512:100".into(), "65535:65281".into(), "64512:1:2".into()],
                others: vec![99],
            }
        );
    }

    #[test]
    fn nothing_panics_whatever_the_bytes() {
        let mut state: u32 = 1;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for _ in 0..20_000 {
            let length = usize::from(random() % 64);
            let kinds = [1, 2, 3, 4, 5, 8, 32, 99];
            let mut bytes: Vec<u8> = (0..length).map(|_| random()).collect();
            if let [flags, kind, ..] = bytes.as_mut_slice() {
                *flags &= 0xf0;
                *kind = kinds[usize::from(*kind) % kinds.len()];
            }
            let _ = attributes(&bytes);
        }
    }
}
