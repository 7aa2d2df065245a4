//! AS_PATH: segments of two- or four-octet AS numbers (RFC 4271 §4.3, RFC 6793).

use crate::types::Asn;
use crate::wire::attr;

/// A segment of an AS_PATH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// `AS_SET` or `AS_SEQUENCE`.
    pub kind: u8,
    /// Its AS numbers, each of the path's width.
    pub numbers: &'a [u8],
    /// How many.
    pub count: u8,
}

/// Segment type of an unordered set.
pub const AS_SET: u8 = 1;
/// Segment type of a sequence.
pub const AS_SEQUENCE: u8 = 2;

impl Segment<'_> {
    /// What the segment adds to the length of the path: a set counts as one (RFC 4271 §9.1.2.2 a).
    #[must_use]
    pub fn length(&self) -> u32 {
        if self.kind == AS_SET { 1 } else { u32::from(self.count) }
    }

    /// Its AS numbers; the width is what the octets are divided by.
    pub fn asns(&self) -> impl Iterator<Item = Asn> + '_ {
        let width = self.numbers.len() / usize::from(self.count.max(1));
        self.numbers
            .chunks_exact(width.max(1))
            .map(|number| Asn(number.iter().fold(0, |value, octet| value << 8 | u32::from(*octet))))
    }
}

/// Walks a path of AS numbers of `width` octets; ends early, with [`Segments::rest`] not empty, at a malformed segment.
#[derive(Debug, Clone)]
pub struct Segments<'a> {
    /// What is not walked yet.
    pub rest: &'a [u8],
    width: usize,
}

/// The segments of a path, `width` being 2 or 4.
#[must_use]
pub fn segments(path: &[u8], width: usize) -> Segments<'_> {
    Segments { rest: path, width }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        // RFC 7606 §7.2: an unknown type, no AS number, or fewer octets than counted is malformed.
        let [kind @ (AS_SET | AS_SEQUENCE), count @ 1..=255, rest @ ..] = self.rest else { return None };
        let (numbers, rest) = rest.split_at_checked(usize::from(*count) * self.width)?;
        self.rest = rest;
        Some(Segment { kind: *kind, numbers, count: *count })
    }
}

/// The same path in four-octet numbers, appended to `out`. The path is well-formed.
pub fn widen(path: &[u8], out: &mut Vec<u8>) {
    for segment in segments(path, 2) {
        out.extend_from_slice(&[segment.kind, segment.count]);
        segment.asns().for_each(|asn| out.extend_from_slice(&asn.0.to_be_bytes()));
    }
}

/// The same path in two-octet numbers, AS_TRANS for what does not fit, appended to `out`. `true`: something did not.
pub fn narrow(path: &[u8], out: &mut Vec<u8>) -> bool {
    let mut lost = false;
    for segment in segments(path, 4) {
        out.extend_from_slice(&[segment.kind, segment.count]);
        for asn in segment.asns() {
            lost |= asn.0 > u32::from(u16::MAX);
            out.extend_from_slice(&asn.two_octets().to_be_bytes());
        }
    }
    lost
}

/// How long the decision thinks the path is.
#[must_use]
pub fn length(path: &[u8], width: usize) -> u32 {
    segments(path, width).map(|segment| segment.length()).sum()
}

/// The AS numbers in front of a four-octet path, up to its first set.
pub fn sequence(path: &[u8]) -> impl Iterator<Item = Asn> + '_ {
    let in_order = segments(path, 4).take_while(|segment| segment.kind == AS_SEQUENCE);
    in_order.flat_map(|segment| segment.numbers.chunks_exact(4)).map(|number| Asn(attr::be32(number)))
}

/// The last AS of a four-octet path; none where it ends with a set (RFC 6811 §2).
#[must_use]
pub fn origin(path: &[u8]) -> Option<Asn> {
    let last = segments(path, 4).last().filter(|segment| segment.kind == AS_SEQUENCE)?;
    last.numbers.last_chunk::<4>().map(|number| Asn(u32::from_be_bytes(*number)))
}

/// The path that AS_PATH of two-octet numbers and AS4_PATH describe together, appended to `out` (RFC 6793 §4.2.3): what AS_PATH has
/// more in front, then AS4_PATH. An AS4_PATH longer than AS_PATH is ignored. Both are well-formed.
pub fn merge(as_path: &[u8], as4_path: &[u8], out: &mut Vec<u8>) {
    let Some(mut leading) = length(as_path, 2).checked_sub(length(as4_path, 4)) else {
        return widen(as_path, out);
    };
    for segment in segments(as_path, 2) {
        if leading == 0 {
            break;
        }
        let take = u8::try_from(leading).unwrap_or(u8::MAX).min(segment.count);
        let take = if segment.kind == AS_SET { segment.count } else { take };
        out.extend_from_slice(&[segment.kind, take]);
        segment.asns().take(usize::from(take)).for_each(|asn| out.extend_from_slice(&asn.0.to_be_bytes()));
        leading -= leading.min(if segment.kind == AS_SET { 1 } else { u32::from(take) });
    }
    out.extend_from_slice(as4_path);
}

/// `asn`, `times` over, in front of a four-octet path, appended to `out`; joined with its first sequence where that has room.
pub fn prepend(path: &[u8], asn: Asn, times: u8, out: &mut Vec<u8>) {
    let joined = match *path {
        [AS_SEQUENCE, count, ..] => count.checked_add(times),
        _ => None,
    };
    let rest = if joined.is_some() { path.get(2..).unwrap_or_default() } else { path };
    if times > 0 {
        out.extend_from_slice(&[AS_SEQUENCE, joined.unwrap_or(times)]);
        (0..times).for_each(|_| out.extend_from_slice(&asn.0.to_be_bytes()));
        out.extend_from_slice(rest);
    } else {
        out.extend_from_slice(path);
    }
}

#[cfg(test)]
mod tests;
