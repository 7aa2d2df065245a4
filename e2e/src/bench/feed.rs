//! What the source tells: three profiles of routes, encoded before anything is measured.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};

/// The source's AS.
pub const SOURCE_AS: u32 = 65001;
const HEADER: usize = 19;

/// The kinds of tables, as in the baseline that the layout of the RIB was chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A full table: a set of attributes for ten /24s; four ASes, four communities.
    Dfz,
    /// A set for each /26.
    K8s,
    /// Two /26s for each UPDATE, 40,000 sets that differ in the next hop alone.
    K8sNodes,
}

impl Profile {
    pub const ALL: [Self; 3] = [Self::Dfz, Self::K8s, Self::K8sNodes];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dfz => "dfz",
            Self::K8s => "k8s",
            Self::K8sNodes => "k8snodes",
        }
    }

    pub fn parse(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|profile| profile.name() == name) {
            Some(profile) => Ok(profile),
            None => bail!("no profile {name:?}: PROFILE=dfz,k8s,k8snodes"),
        }
    }

    fn prefixes_per_update(self) -> u32 {
        match self {
            Self::Dfz => 10,
            Self::K8s => 1,
            Self::K8sNodes => 2,
        }
    }

    /// Length of the prefixes, and the first of them.
    fn space(self) -> (u8, u32) {
        match self {
            Self::Dfz => (24, 1 << 24),
            Self::K8s | Self::K8sNodes => (26, 10 << 24),
        }
    }

    /// The number of a prefix among those of the profile.
    #[must_use]
    pub fn number(self, address: u32, length: u8) -> Option<u32> {
        let (own, first) = self.space();
        let shift = 32u32.saturating_sub(u32::from(own));
        (length == own).then(|| address.checked_sub(first)).flatten().map(|offset| offset >> shift)
    }

    fn prefix(self, number: u32) -> (u32, u8) {
        let (length, first) = self.space();
        (first + (number << (32 - u32::from(length))), length)
    }

    /// All UPDATEs for `prefixes` prefixes, one after the other, from AS `asn` by way of `next_hop`. The profile k8snodes
    /// has its nodes' addresses as next hops, all inside 172.16.0.0/12.
    #[must_use]
    pub fn updates(self, prefixes: u32, asn: u32, next_hop: Ipv4Addr) -> Vec<u8> {
        let mut stream = Vec::new();
        let count = prefixes / self.prefixes_per_update();
        for number in 0..count {
            stream.extend(self.update(number, asn, next_hop, 0));
        }
        stream
    }

    /// One UPDATE. Another `version` has another path, and so is a change of what was told before.
    #[must_use]
    pub fn update(self, number: u32, asn: u32, next_hop: Ipv4Addr, version: u32) -> Vec<u8> {
        let mut path = vec![asn];
        let mut next_hop = u32::from(next_hop);
        let mut communities = Vec::new();
        match self {
            Self::Dfz => {
                path.extend([3000 + number % 977, 70_000 + number % 7919, 200_000 + number]);
                communities
                    .extend((0..4).flat_map(|at| ((65_001 << 16) | ((number + at) & 0xFFFF)).to_be_bytes()));
            }
            Self::K8s => path.push(4_200_000_000 + number),
            Self::K8sNodes => next_hop = 0xAC10_0100 + number % 40_000,
        }
        if version > 0 {
            path.push(100_000 + version);
        }
        let mut attributes = Vec::new();
        attribute(&mut attributes, 0x40, 1, &[0]);
        let mut as_path = vec![2, octet(path.len())];
        path.iter().for_each(|asn| as_path.extend(asn.to_be_bytes()));
        attribute(&mut attributes, 0x40, 2, &as_path);
        attribute(&mut attributes, 0x40, 3, &next_hop.to_be_bytes());
        if !communities.is_empty() {
            attribute(&mut attributes, 0xC0, 8, &communities);
        }
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len()).unwrap_or_default().to_be_bytes());
        body.extend(attributes);
        let first = number * self.prefixes_per_update();
        for number in first..first + self.prefixes_per_update() {
            let (address, length) = self.prefix(number);
            body.push(length);
            body.extend(address.to_be_bytes().iter().take(usize::from(length).div_ceil(8)));
        }
        message(2, &body)
    }

    /// The UPDATE that takes back what the one with this number told.
    #[must_use]
    pub fn withdrawal(self, number: u32) -> Vec<u8> {
        let mut withdrawn = Vec::new();
        let first = number * self.prefixes_per_update();
        for number in first..first + self.prefixes_per_update() {
            let (address, length) = self.prefix(number);
            withdrawn.push(length);
            withdrawn.extend(address.to_be_bytes().iter().take(usize::from(length).div_ceil(8)));
        }
        let mut body = u16::try_from(withdrawn.len()).unwrap_or_default().to_be_bytes().to_vec();
        body.extend(withdrawn);
        body.extend([0, 0]);
        message(2, &body)
    }
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn attribute(to: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    to.extend([flags, code, octet(value.len())]);
    to.extend(value);
}

/// A whole message (RFC 4271 §4.1).
#[must_use]
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xFF; 16];
    message.extend(u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// An OPEN with IPv4 unicast and four-octet AS numbers; with `restart_time` also graceful restart (RFC 4724), so that
/// the routes of who restarts are kept.
#[must_use]
pub fn open(asn: u32, id: Ipv4Addr, hold: u16, restart_time: Option<u16>) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
    capabilities.extend(asn.to_be_bytes());
    if let Some(time) = restart_time {
        capabilities.extend([64, 6]);
        capabilities.extend((time & 0x0FFF).to_be_bytes());
        capabilities.extend([0, 1, 1, 0x80]);
    }
    let mut body = vec![4];
    body.extend(u16::try_from(asn).unwrap_or(23456).to_be_bytes());
    body.extend(hold.to_be_bytes());
    body.extend(id.octets());
    body.extend([octet(capabilities.len() + 2), 2, octet(capabilities.len())]);
    body.extend(capabilities);
    message(1, &body)
}

/// End-of-RIB of IPv4 unicast (RFC 4724 §2).
#[must_use]
pub fn end_of_rib() -> Vec<u8> {
    message(2, &[0, 0, 0, 0])
}

/// The prefixes of an UPDATE's body: those withdrawn and those told, each as address and length.
pub fn prefixes(body: &[u8], mut told: impl FnMut(u32, u8)) -> Option<()> {
    let length = |at: usize| Some(usize::from(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?)));
    let withdrawn = length(0)?;
    let attributes = length(2 + withdrawn)?;
    let mut rest = body.get(4 + withdrawn + attributes..)?;
    while let [bits, more @ ..] = rest {
        let octets = usize::from(*bits).div_ceil(8);
        let mut address = [0; 4];
        address.iter_mut().zip(more.get(..octets)?).for_each(|(to, from)| *to = *from);
        told(u32::from_be_bytes(address), *bits);
        rest = more.get(octets..)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a sink would count of a stream.
    fn numbers(profile: Profile, stream: &[u8]) -> Vec<u32> {
        let (mut found, mut rest) = (Vec::new(), stream);
        while let [_, ..] = rest {
            let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
            assert_eq!(rest[18], 2);
            prefixes(&rest[HEADER..length], |address, bits| found.extend(profile.number(address, bits)))
                .unwrap();
            rest = &rest[length..];
        }
        found
    }

    #[test]
    fn a_sink_finds_every_prefix_once() {
        for profile in Profile::ALL {
            let stream = profile.updates(1000, SOURCE_AS, Ipv4Addr::new(172, 16, 0, 1));
            assert_eq!(numbers(profile, &stream), (0..1000).collect::<Vec<_>>(), "{}", profile.name());
        }
    }

    #[test]
    fn a_prefix_of_another_length_is_none_of_the_profile() {
        assert_eq!(Profile::Dfz.number(1 << 24, 25), None);
        assert_eq!(Profile::K8s.number(1 << 24, 26), None);
    }
}
