//! Prefixes on the wire (RFC 4271 §4.3, RFC 4760 §5): a length in bits and as many octets as it needs. Where a session carries
//! several paths per prefix, a path identifier of four octets stands before each (RFC 7911 §3).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::AfiSafi;

/// Octets of a path identifier.
pub const PATH_ID: usize = 4;

/// The address of one family, in the form the table stores it. 4-byte alignment for both, so that a table entry has no holes.
pub trait Address: Copy + Eq + Ord + fmt::Debug {
    /// The family.
    const FAMILY: AfiSafi;
    /// The longest prefix.
    const BITS: u8;

    /// From the first octets of an address, the rest being zero; at most [`Address::BITS`] / 8 of them count.
    fn from_octets(octets: &[u8]) -> Self;
    /// The octets, IPv4 in the first four.
    fn octets(self) -> [u8; 16];
    /// With the bits behind `len` cleared.
    fn masked(self, len: u8) -> Self;
    /// As the prefix that the rest of the program speaks of.
    fn prefix(self, len: u8) -> IpNet;
    /// The address and length of a prefix, if it is of this family; host bits cleared.
    fn of(prefix: &IpNet) -> Option<(Self, u8)>;
}

impl Address for u32 {
    const FAMILY: AfiSafi = AfiSafi::Ipv4Unicast;
    const BITS: u8 = 32;

    fn from_octets(octets: &[u8]) -> u32 {
        // Not copied octet by octet into an array: reading four octets that were just written one by one waits for all
        // writes before them, and these miss the cache (one in eight of all cycles of a full table).
        match *octets {
            [] => 0,
            [a] => u32::from_be_bytes([a, 0, 0, 0]),
            [a, b] => u32::from_be_bytes([a, b, 0, 0]),
            [a, b, c] => u32::from_be_bytes([a, b, c, 0]),
            [a, b, c, d, ..] => u32::from_be_bytes([a, b, c, d]),
        }
    }

    fn octets(self) -> [u8; 16] {
        (u128::from(self) << 96).to_be_bytes()
    }

    fn masked(self, len: u8) -> u32 {
        self & u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
    }

    fn prefix(self, len: u8) -> IpNet {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::from(self), len.min(32)).unwrap_or_default())
    }

    fn of(prefix: &IpNet) -> Option<(u32, u8)> {
        match prefix {
            IpNet::V4(net) => Some((u32::from(net.network()), net.prefix_len())),
            IpNet::V6(_) => None,
        }
    }
}

/// An IPv6 address as four words, most significant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct V6(pub [u32; 4]);

impl V6 {
    fn new(bits: u128) -> V6 {
        let [a, b, c, d] = [bits >> 96, bits >> 64, bits >> 32, bits];
        #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are meant")]
        V6([a as u32, b as u32, c as u32, d as u32])
    }

    fn bits(self) -> u128 {
        self.0.iter().fold(0, |bits, word| bits << 32 | u128::from(*word))
    }
}

impl Address for V6 {
    const FAMILY: AfiSafi = AfiSafi::Ipv6Unicast;
    const BITS: u8 = 128;

    fn from_octets(octets: &[u8]) -> V6 {
        let words = octets.chunks(4).take(4).map(u32::from_octets);
        let mut whole = [0; 4];
        whole.iter_mut().zip(words).for_each(|(to, word)| *to = word);
        V6(whole)
    }

    fn octets(self) -> [u8; 16] {
        self.bits().to_be_bytes()
    }

    fn masked(self, len: u8) -> V6 {
        V6::new(self.bits() & u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0))
    }

    fn prefix(self, len: u8) -> IpNet {
        IpNet::V6(Ipv6Net::new(Ipv6Addr::from(self.bits()), len.min(128)).unwrap_or_default())
    }

    fn of(prefix: &IpNet) -> Option<(V6, u8)> {
        match prefix {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some((V6::new(u128::from(net.network())), net.prefix_len())),
        }
    }
}

/// A field of prefixes that cannot be walked to its end: a length above the family's, or octets that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Walks the whole field and counts its prefixes, so that [`each`] can be called without any prefix applied too early.
///
/// # Errors
/// [`Malformed`] (RFC 7606 §5.3).
pub fn check<A: Address>(field: &[u8]) -> Result<u32, Malformed> {
    check_paths::<A>(field, false)
}

/// Like [`check`]; `ids`: a path identifier stands before each prefix.
///
/// # Errors
/// [`Malformed`] (RFC 7606 §5.3), also where an identifier is cut off or no prefix follows it.
pub fn check_paths<A: Address>(mut field: &[u8], ids: bool) -> Result<u32, Malformed> {
    let mut count = 0;
    while !field.is_empty() {
        if ids {
            field = field.get(PATH_ID..).ok_or(Malformed)?;
        }
        let [len, rest @ ..] = field else { return Err(Malformed) };
        if *len > A::BITS {
            return Err(Malformed);
        }
        field = rest.get(usize::from(len.div_ceil(8))..).ok_or(Malformed)?;
        count += 1;
    }
    Ok(count)
}

/// Calls `f` for each prefix of a field that [`check`] accepted. Host bits are cleared: their value is irrelevant (RFC 4271 §4.3).
pub fn each<A: Address>(mut field: &[u8], mut f: impl FnMut(A, u8)) {
    while let [len, rest @ ..] = field {
        let Some((octets, next)) = rest.split_at_checked(usize::from(len.div_ceil(8))) else { return };
        f(A::from_octets(octets).masked(*len), *len);
        field = next;
    }
}

/// Like [`each`], with the path identifier before each prefix; 0 where there are none (`ids`).
pub fn each_path<A: Address>(mut field: &[u8], ids: bool, mut f: impl FnMut(A, u8, u32)) {
    if !ids {
        return each(field, |address, len| f(address, len, 0));
    }
    while let Some((id, [len, rest @ ..])) = field.split_first_chunk::<PATH_ID>() {
        let Some((octets, next)) = rest.split_at_checked(usize::from(len.div_ceil(8))) else { return };
        f(A::from_octets(octets).masked(*len), *len, u32::from_be_bytes(*id));
        field = next;
    }
}

/// What an UPDATE that we send names: a prefix, or one path of it.
pub trait Nlri: Copy {
    /// Its family's address.
    type Address: Address;
    /// Octets of its path identifier; 0 where it has none.
    const PATH_ID: usize;
    /// Octets on the wire.
    fn octets(&self) -> usize;
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
}

impl<A: Address> Nlri for (A, u8) {
    type Address = A;
    const PATH_ID: usize = 0;

    fn octets(&self) -> usize {
        1 + usize::from(self.1.div_ceil(8))
    }

    fn put(&self, out: &mut Vec<u8>) {
        put(out, self.0, self.1);
    }
}

/// The last one is the path identifier.
impl<A: Address> Nlri for (A, u8, u32) {
    type Address = A;
    const PATH_ID: usize = PATH_ID;

    fn octets(&self) -> usize {
        PATH_ID + (self.0, self.1).octets()
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.2.to_be_bytes());
        put(out, self.0, self.1);
    }
}

/// Appends one prefix.
pub fn put<A: Address>(out: &mut Vec<u8>, address: A, len: u8) {
    out.push(len);
    out.extend(address.octets().iter().take(usize::from(len.div_ceil(8))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_goes_to_the_wire_and_back() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.128.0/17", "10.1.2.3/32"] {
            round_trip::<u32>(text);
        }
        for text in ["::/0", "2001:db8::/32", "2001:db8:0:1:8000::/65", "2001:db8::1/128"] {
            round_trip::<V6>(text);
        }
    }

    fn round_trip<A: Address>(text: &str) {
        let prefix: IpNet = text.parse().unwrap();
        let (address, len) = A::of(&prefix).unwrap();
        let mut wire = Vec::new();
        put(&mut wire, address, len);
        assert_eq!(check::<A>(&wire), Ok(1));
        let mut back = Vec::new();
        each::<A>(&wire, |address, len| back.push(address.prefix(len)));
        assert_eq!(back, [prefix]);
    }

    /// RFC 7911 §3.
    #[test]
    fn a_path_goes_to_the_wire_and_back() {
        let (address, len) = u32::of(&"10.1.128.0/17".parse().unwrap()).unwrap();
        let mut wire = Vec::new();
        (address, len, 0x0102_0304).put(&mut wire);
        (0, 0, u32::MAX).put(&mut wire);
        assert_eq!(wire, [1, 2, 3, 4, 17, 10, 1, 128, 255, 255, 255, 255, 0]);
        assert_eq!((address, len, 1).octets(), 8);
        assert_eq!(check_paths::<u32>(&wire, true), Ok(2));
        let mut back = Vec::new();
        each_path::<u32>(&wire, true, |address, len, id| back.push((address, len, id)));
        assert_eq!(back, [(address, len, 0x0102_0304), (0, 0, u32::MAX)]);
        let (address, len) = V6::of(&"2001:db8::/32".parse().unwrap()).unwrap();
        let mut wire = Vec::new();
        (address, len, 7).put(&mut wire);
        assert_eq!(wire, [0, 0, 0, 7, 32, 0x20, 1, 0xD, 0xB8]);
        assert_eq!(check_paths::<V6>(&wire, true), Ok(1));
    }

    #[test]
    fn paths_that_cannot_be_are_refused() {
        for wire in
            [&[0, 0, 0][..], &[0, 0, 0, 1], &[0, 0, 0, 1, 33, 10, 0, 0, 0, 0], &[0, 0, 0, 1, 24, 10, 0]]
        {
            assert_eq!(check_paths::<u32>(wire, true), Err(Malformed), "{wire:?}");
        }
        assert_eq!(check_paths::<u32>(&[0, 0, 0, 1, 8, 10, 0, 0, 0], true), Err(Malformed));
        assert_eq!(check_paths::<u32>(&[], true), Ok(0));
    }

    /// RFC 4271 §4.3: their value is irrelevant.
    #[test]
    fn host_bits_are_cleared() {
        let mut seen = Vec::new();
        each::<u32>(&[20, 10, 1, 0xFF], |address, len| seen.push(address.prefix(len).to_string()));
        assert_eq!(seen, ["10.1.240.0/20"]);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        assert_eq!(check::<u32>(&[33, 10, 0, 0, 0, 0]), Err(Malformed));
        assert_eq!(check::<u32>(&[24, 10, 0]), Err(Malformed));
        assert_eq!(check::<u32>(&[24, 10, 0, 0, 8]), Err(Malformed));
        assert_eq!(check::<V6>(&[129, 0]), Err(Malformed));
        assert_eq!(check::<V6>(&[]), Ok(0));
    }
}
