//! Path attributes: their codes, how a list of them is walked and written, and what the table reads from a set.
//!
//! A set is kept as canonical bytes: types ascending, one of each, flags as their definition says, extended length only above
//! 255, AS numbers of four octets, no MP_REACH_NLRI or MP_UNREACH_NLRI. The next hop of either family is attribute 3, of 4, 16
//! or 32 octets.

/// Type codes (IANA, BGP Path Attributes).
pub mod code {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MULTI_EXIT_DISC: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH_NLRI: u8 = 14;
    pub const MP_UNREACH_NLRI: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub const LARGE_COMMUNITIES: u8 = 32;
    pub const ONLY_TO_CUSTOMER: u8 = 35;
}

/// Attribute flags (RFC 4271 §4.3).
pub mod flag {
    pub const OPTIONAL: u8 = 0x80;
    pub const TRANSITIVE: u8 = 0x40;
    pub const PARTIAL: u8 = 0x20;
    pub const EXTENDED_LENGTH: u8 = 0x10;

    /// Optional and Transitive bits of a well-known attribute.
    pub const WELL_KNOWN: u8 = TRANSITIVE;
    /// Those of an optional transitive one.
    pub const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;
    /// Those of an optional non-transitive one.
    pub const OPTIONAL_NON_TRANSITIVE: u8 = OPTIONAL;
}

/// The Optional and Transitive bits that the definition of an attribute asks for; `None`: we do not know the attribute.
#[must_use]
pub fn defined_flags(code: u8) -> Option<u8> {
    match code {
        code::ORIGIN | code::AS_PATH | code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => {
            Some(flag::WELL_KNOWN)
        }
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::IPV6_EXTENDED_COMMUNITIES
        | code::LARGE_COMMUNITIES
        | code::ONLY_TO_CUSTOMER => Some(flag::OPTIONAL_TRANSITIVE),
        code::MULTI_EXIT_DISC
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH_NLRI
        | code::MP_UNREACH_NLRI => Some(flag::OPTIONAL_NON_TRANSITIVE),
        _ => None,
    }
}

/// What decision and policy read from a set, taken from its bytes once. 24 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Key {
    /// LOCAL_PREF, 100 without one.
    pub local_pref: u32,
    /// `Key::LONG_LIVED_STALE`, length of the AS_PATH << 8, ORIGIN: lower is better.
    pub tail: u32,
    /// MULTI_EXIT_DISC, 0 without one.
    pub med: u32,
    /// The first AS of the path; 0: it starts with no AS_SEQUENCE.
    pub neighbor_as: u32,
    /// Index of the next hop in the RIB's next-hop table.
    pub next_hop: u32,
    /// Length of the canonical bytes.
    pub len: u16,
    /// `Key::EBGP` and the others.
    pub flags: u8,
    /// Length of the CLUSTER_LIST.
    pub cluster_len: u8,
}

impl Key {
    /// Received by eBGP; part of a set's identity, since it decides what is cleaned away.
    pub const EBGP: u8 = 1;
    /// With an IPv6 next hop, as sets of IPv6 prefixes and by RFC 8950 of IPv4 ones; part of a set's identity, since attribute 3 of
    /// a peer's list is never one.
    pub const IPV6: u8 = 2;
    /// Our AS is in the path.
    pub const OWN_AS: u8 = 4;
    /// NO_EXPORT or NO_EXPORT_SUBCONFED.
    pub const NO_EXPORT: u8 = 8;
    /// NO_ADVERTISE.
    pub const NO_ADVERTISE: u8 = 16;
    /// Our BGP Identifier is the ORIGINATOR_ID, or our cluster is in the CLUSTER_LIST (RFC 4456 §8).
    pub const REFLECTION_LOOP: u8 = 32;
    /// Import changed it; part of a set's identity, so that no peer's bytes are taken for it.
    pub const CHANGED: u8 = 64;
    /// There is an ORIGINATOR_ID.
    pub const ORIGINATOR: u8 = 128;
    /// The flags that tell two sets of equal bytes apart.
    pub const IDENTITY: u8 = Key::EBGP | Key::IPV6 | Key::CHANGED;

    /// In `tail`: LLGR_STALE is among the communities (RFC 9494). No path is so long that its length gets there.
    pub const LONG_LIVED_STALE: u32 = 1 << 31;

    /// Whether all these bits are set.
    #[must_use]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Length of the AS_PATH as the decision counts it.
    #[must_use]
    pub fn as_path_len(&self) -> u32 {
        (self.tail & !Key::LONG_LIVED_STALE) >> 8
    }

    /// Whether LLGR_STALE is among the communities.
    #[must_use]
    pub fn is_long_lived_stale(&self) -> bool {
        self.tail & Key::LONG_LIVED_STALE != 0
    }
}

/// One attribute of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// All flags as they stand.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// The value.
    pub value: &'a [u8],
    /// Header and value.
    pub whole: &'a [u8],
}

/// Walks a list of attributes; ends early, with [`Attributes::rest`] not empty, where one runs over the end.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    /// What is not walked yet.
    pub rest: &'a [u8],
}

/// A walk over `list`.
#[must_use]
pub fn attributes(list: &[u8]) -> Attributes<'_> {
    Attributes { rest: list }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let (flags, code, length, head) = match *self.rest {
            [flags, code, high, low, ..] if flags & flag::EXTENDED_LENGTH != 0 => {
                (flags, code, usize::from(u16::from_be_bytes([high, low])), 4)
            }
            [flags, code, length, ..] if flags & flag::EXTENDED_LENGTH == 0 => {
                (flags, code, usize::from(length), 3)
            }
            _ => return None,
        };
        let (whole, rest) = self.rest.split_at_checked(head + length)?;
        let value = whole.get(head..)?;
        self.rest = rest;
        Some(Attribute { flags, code, value, whole })
    }
}

/// The value of one attribute.
#[must_use]
pub fn find(list: &[u8], code: u8) -> Option<&[u8]> {
    attributes(list).find(|attribute| attribute.code == code).map(|attribute| attribute.value)
}

/// Appends an attribute; the length field is as long as the value needs, whatever `flags` says.
pub fn put(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    put_header(out, flags, code, value.len());
    out.extend_from_slice(value);
}

/// Appends the header of an attribute whose value of `length` octets follows.
pub fn put_header(out: &mut Vec<u8>, flags: u8, code: u8, length: usize) {
    match u8::try_from(length) {
        Ok(length) => out.extend_from_slice(&[flags & !flag::EXTENDED_LENGTH, code, length]),
        Err(_) => {
            let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, code, high, low]);
        }
    }
}

/// Four octets as a number; 0 where there are fewer.
#[must_use]
pub fn be32(octets: &[u8]) -> u32 {
    octets.first_chunk::<4>().map_or(0, |four| u32::from_be_bytes(*four))
}

/// Twelve octets as a large community (RFC 8092); zeros where there are fewer.
#[must_use]
pub fn large(octets: &[u8]) -> [u32; 3] {
    let (words, _) = octets.as_chunks::<4>();
    let word = |at: usize| words.get(at).map_or(0, |four| u32::from_be_bytes(*four));
    [word(0), word(1), word(2)]
}

/// A large community as it stands in the attribute.
#[must_use]
pub fn large_octets(community: &[u32; 3]) -> [u8; 12] {
    let mut octets = [0; 12];
    let words = community.iter().flat_map(|word| word.to_be_bytes());
    octets.iter_mut().zip(words).for_each(|(to, from)| *to = from);
    octets
}

/// What well-known communities ask for (RFC 1997), as flags of a [`Key`].
#[must_use]
pub fn community_flags(value: &[u8]) -> u8 {
    value.chunks_exact(4).map(be32).fold(0, |flags, community| match community {
        0xFFFF_FF01 | 0xFFFF_FF03 => flags | Key::NO_EXPORT,
        0xFFFF_FF02 => flags | Key::NO_ADVERTISE,
        _ => flags,
    })
}
