//! UPDATE as a frame: its three fields, End-of-RIB, and messages packed to the limit.

use ipnet::IpNet;

use crate::types::AfiSafi;
use crate::wire::attr::{self, code, flag};
use crate::wire::nlri::{self, Address, Nlri, V6};
use crate::wire::rewrite::Outgoing;

/// Octets of the message header (RFC 4271 §4.1).
pub const HEADER: usize = 19;
/// The longest message without RFC 8654, and the longest withdrawal with it.
pub const MAX_MESSAGE: usize = 4096;
/// The type code of UPDATE.
const UPDATE: u8 = 2;
/// Octets of an MP_REACH_NLRI or MP_UNREACH_NLRI header with extended length.
const MP_HEADER: usize = 4;

/// The fields of an UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a> {
    /// Withdrawn IPv4 prefixes.
    pub withdrawn: &'a [u8],
    /// Path attributes.
    pub attributes: &'a [u8],
    /// IPv4 prefixes announced.
    pub nlri: &'a [u8],
}

/// Splits the body of an UPDATE. `None`: the lengths do not add up (RFC 4271 §6.3, Malformed Attribute List).
#[must_use]
pub fn split(body: &[u8]) -> Option<Fields<'_>> {
    let (withdrawn, rest) = field(body)?;
    let (attributes, nlri) = field(rest)?;
    Some(Fields { withdrawn, attributes, nlri })
}

fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Which family's End-of-RIB this is (RFC 4724 §2): nothing at all, or an MP_UNREACH_NLRI without prefixes alone.
#[must_use]
pub fn end_of_rib(fields: &Fields<'_>) -> Option<AfiSafi> {
    if !fields.withdrawn.is_empty() || !fields.nlri.is_empty() {
        return None;
    }
    if fields.attributes.is_empty() {
        return Some(AfiSafi::Ipv4Unicast);
    }
    let mut walk = attr::attributes(fields.attributes);
    let only =
        walk.next().filter(|attribute| attribute.code == code::MP_UNREACH_NLRI && walk.rest.is_empty())?;
    match *only.value {
        [high, low, safi] => AfiSafi::from_numbers(u16::from_be_bytes([high, low]), safi),
        _ => None,
    }
}

/// Appends one message header with a length still to come; returns where the message starts.
fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0xFF; 16]);
    out.extend_from_slice(&[0, 0, UPDATE]);
    start
}

/// Writes `length` at `at`.
fn set16(out: &mut [u8], at: usize, length: usize) {
    let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    out.iter_mut().skip(at).zip(length).for_each(|(to, from)| *to = from);
}

fn end(out: &mut [u8], start: usize) {
    let length = out.len() - start;
    set16(out, start + 16, length);
}

/// Appends the family's End-of-RIB.
pub fn put_end_of_rib(out: &mut Vec<u8>, family: AfiSafi) {
    let start = begin(out);
    match family {
        AfiSafi::Ipv4Unicast => out.extend_from_slice(&[0, 0, 0, 0]),
        AfiSafi::Ipv6Unicast => {
            out.extend_from_slice(&[0, 0, 0, 6]);
            attr::put(out, flag::OPTIONAL_NON_TRANSITIVE, code::MP_UNREACH_NLRI, &[0, 2, 1]);
        }
    }
    end(out, start);
}

/// Room that prefixes have in a message of at most `limit` octets with these attributes; less than a prefix needs: the set is too long to be sent.
#[must_use]
pub fn room<A: Address>(outgoing: &Outgoing<'_>, limit: usize) -> usize {
    let fixed = HEADER + 4 + outgoing.attributes.len();
    let reach = if stands_in_nlri::<A>(outgoing) { 0 } else { MP_HEADER + 5 + outgoing.next_hop.len() };
    limit.saturating_sub(fixed + reach)
}

/// IPv4 prefixes with an IPv4 next hop stand behind the attributes, all others in MP_REACH_NLRI (RFC 8950 §3).
fn stands_in_nlri<A: Address>(outgoing: &Outgoing<'_>) -> bool {
    A::FAMILY == AfiSafi::Ipv4Unicast && outgoing.next_hop.is_empty()
}

/// Octets that the longest prefix of a family takes.
#[must_use]
pub fn longest_prefix<A: Address>() -> usize {
    1 + usize::from(A::BITS / 8)
}

/// Appends one UPDATE of at most `limit` octets that announces as many of the prefixes as it holds. The set fits: [`room`].
pub fn put_announcement<N: Nlri>(
    out: &mut Vec<u8>,
    outgoing: &Outgoing<'_>,
    limit: usize,
    prefixes: &mut std::iter::Peekable<impl Iterator<Item = N>>,
) {
    let start = begin(out);
    if stands_in_nlri::<N::Address>(outgoing) {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&u16::try_from(outgoing.attributes.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(outgoing.attributes);
        put_prefixes(out, start, limit, prefixes);
    } else {
        out.extend_from_slice(&[0, 0, 0, 0]);
        let list = out.len();
        // RFC 7606 §5.1: MP_REACH_NLRI first.
        out.extend_from_slice(&[flag::OPTIONAL | flag::EXTENDED_LENGTH, code::MP_REACH_NLRI, 0, 0]);
        out.extend_from_slice(&N::Address::FAMILY.afi().to_be_bytes());
        out.push(N::Address::FAMILY.safi());
        out.push(u8::try_from(outgoing.next_hop.len()).unwrap_or_default());
        out.extend_from_slice(outgoing.next_hop);
        out.push(0);
        put_prefixes(out, start, limit - outgoing.attributes.len().min(limit), prefixes);
        let value = out.len() - list - MP_HEADER;
        set16(out, list + 2, value);
        out.extend_from_slice(outgoing.attributes);
        let length = out.len() - list;
        set16(out, list - 2, length);
    }
    end(out, start);
}

/// Appends one UPDATE that withdraws as many of the prefixes as it holds.
pub fn put_withdrawal<N: Nlri>(
    out: &mut Vec<u8>,
    prefixes: &mut std::iter::Peekable<impl Iterator<Item = N>>,
) {
    let start = begin(out);
    out.extend_from_slice(&[0, 0]);
    let from = out.len();
    match N::Address::FAMILY {
        AfiSafi::Ipv4Unicast => {
            put_prefixes(out, start, MAX_MESSAGE - 2, prefixes);
            let length = out.len() - from;
            set16(out, from - 2, length);
            out.extend_from_slice(&[0, 0]);
        }
        AfiSafi::Ipv6Unicast => {
            out.extend_from_slice(&[0, 0]);
            let list = out.len();
            out.extend_from_slice(&[
                flag::OPTIONAL | flag::EXTENDED_LENGTH,
                code::MP_UNREACH_NLRI,
                0,
                0,
                0,
                2,
                1,
            ]);
            put_prefixes(out, start, MAX_MESSAGE, prefixes);
            let length = out.len() - list;
            set16(out, list + 2, length - MP_HEADER);
            set16(out, list - 2, length);
        }
    }
    end(out, start);
}

fn put_prefixes<N: Nlri>(
    out: &mut Vec<u8>,
    start: usize,
    limit: usize,
    prefixes: &mut std::iter::Peekable<impl Iterator<Item = N>>,
) {
    while let Some(prefix) = prefixes.next_if(|prefix| out.len() - start + prefix.octets() <= limit) {
        prefix.put(out);
    }
}

/// Calls `f` for each prefix named in messages that we encoded ourselves, announced or withdrawn, with its path identifier: 0
/// where the family is not among those with identifiers (`ids`: IPv4, IPv6).
pub fn each_named(mut messages: &[u8], ids: (bool, bool), f: &mut impl FnMut(IpNet, u32)) {
    while let Some(length) = message_length(messages) {
        let Some((message, rest)) = messages.split_at_checked(length) else { return };
        if let Some(fields) = message.get(HEADER..).and_then(split) {
            nlri::each_path(fields.withdrawn, ids.0, |addr: u32, len, id| f(addr.prefix(len), id));
            nlri::each_path(fields.nlri, ids.0, |addr: u32, len, id| f(addr.prefix(len), id));
            for attribute in attr::attributes(fields.attributes) {
                match (attribute.code, attribute.value) {
                    (code::MP_UNREACH_NLRI, [0, 2, 1, nlri @ ..]) => {
                        nlri::each_path(nlri, ids.1, |addr: V6, len, id| f(addr.prefix(len), id));
                    }
                    (code::MP_REACH_NLRI, [0, afi, 1, length, rest @ ..]) => {
                        let nlri = rest.get(usize::from(*length) + 1..).unwrap_or_default();
                        if *afi == 1 {
                            nlri::each_path(nlri, ids.0, |addr: u32, len, id| f(addr.prefix(len), id));
                        } else {
                            nlri::each_path(nlri, ids.1, |addr: V6, len, id| f(addr.prefix(len), id));
                        }
                    }
                    _ => {}
                }
            }
        }
        messages = rest;
    }
}

/// The length of the message that starts here; `None` where there is no whole header.
#[must_use]
pub fn message_length(messages: &[u8]) -> Option<usize> {
    let length = messages.get(16..18)?.first_chunk::<2>()?;
    Some(usize::from(u16::from_be_bytes(*length))).filter(|length| *length >= HEADER)
}
