//! UPDATEs and peers for tests that drive the RIB itself.
#![allow(dead_code)] // each test uses its part

pub(crate) mod listener;

use std::net::{IpAddr, Ipv4Addr};

use bgp_proto::policy::ExportPolicy;
use bgp_proto::rib::{PeerFacts, Rib, RibConfig, Tag, UnknownNextHops};
use bgp_proto::wire::attr::{self, code};
use bgp_proto::{Asn, PeerId, RouterId};
use ipnet::IpNet;

pub(crate) const OWN_AS: u32 = 64512;

/// The same numbers on every run.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next()).unwrap() % bound
    }

    pub(crate) fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[7]
    }

    pub(crate) fn word(&mut self) -> u32 {
        u32::try_from(self.next() & 0xFFFF_FFFF).unwrap()
    }
}

/// A table that takes every next hop for reachable.
pub(crate) fn rib(asn: u32, router_id: [u8; 4]) -> Rib {
    let mut config = RibConfig::new(Asn(asn), RouterId(Ipv4Addr::from(router_id)), 7);
    config.unknown_next_hops = UnknownNextHops::Reachable;
    Rib::new(config)
}

/// A peer of both families that everything is taken from and told to.
pub(crate) fn facts(number: u8, remote_asn: u32) -> PeerFacts {
    PeerFacts {
        next_hop_ipv4: Some(Ipv4Addr::new(203, 0, 113, number)),
        next_hop_ipv6: Some(format!("2001:db8:ffff::{number:x}").parse().unwrap()),
        export: ExportPolicy::new(true),
        tags: [Tag(1)].into(),
        ..PeerFacts::new(
            Asn(remote_asn),
            Asn(OWN_AS),
            RouterId(Ipv4Addr::new(10, 0, 0, number)),
            IpAddr::from([192, 0, 2, number]),
        )
    }
}

/// Everything there is to do for the table.
pub(crate) fn settle(rib: &mut Rib) {
    while rib.drain() {}
}

/// All that a peer is sent, taken in pieces of any size.
pub(crate) fn transmitted(rib: &mut Rib, peer: PeerId) -> Vec<u8> {
    let mut stream = Vec::new();
    while let Some(bytes) = rib.poll_transmit(peer) {
        let length = bytes.len();
        stream.extend_from_slice(bytes);
        rib.transmitted(peer, length);
    }
    stream
}

/// The bodies of the UPDATEs in a stream of whole messages.
pub(crate) fn bodies(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    while !stream.is_empty() {
        assert_eq!(stream[..16], [0xFF; 16], "marker");
        let length = usize::from(u16::from_be_bytes([stream[16], stream[17]]));
        assert!((23..=4096).contains(&length) && stream[18] == 2, "header of {length} octets");
        bodies.push(&stream[19..length]);
        stream = &stream[length..];
    }
    bodies
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A prefix, or one with a path identifier before it.
pub(crate) trait Named {
    fn named(&self) -> (Option<u32>, IpNet);
}

impl Named for IpNet {
    fn named(&self) -> (Option<u32>, IpNet) {
        (None, *self)
    }
}

impl Named for (Option<u32>, IpNet) {
    fn named(&self) -> (Option<u32>, IpNet) {
        *self
    }
}

pub(crate) fn nlri(prefixes: &[impl Named]) -> Vec<u8> {
    let one = |(id, net): (Option<u32>, IpNet)| {
        let mut out: Vec<u8> = id.iter().flat_map(|id| id.to_be_bytes()).collect();
        out.push(net.prefix_len());
        out.extend(&octets(net.network())[..usize::from(net.prefix_len().div_ceil(8))]);
        out
    };
    prefixes.iter().map(Named::named).flat_map(one).collect()
}

pub(crate) fn path(asns: &[u32], four_octet_as: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if !asns.is_empty() {
        out.extend([2, u8::try_from(asns.len()).unwrap()]);
    }
    for asn in asns {
        if four_octet_as {
            out.extend(asn.to_be_bytes());
        } else {
            out.extend(Asn(*asn).two_octets().to_be_bytes());
        }
    }
    out
}

/// Attributes beyond the mandatory ones: flags, code, value.
pub(crate) type More = Vec<(u8, u8, Vec<u8>)>;

/// An UPDATE that announces prefixes of the family of `next_hop`.
pub(crate) fn announce(prefixes: &[impl Named], next_hop: IpAddr, as_path: &[u8], more: &More) -> Vec<u8> {
    let mut list = Vec::new();
    let behind = if next_hop.is_ipv4() { nlri(prefixes) } else { Vec::new() };
    if next_hop.is_ipv6() {
        let mut value = vec![0, 2, 1, 16];
        value.extend(octets(next_hop));
        value.push(0);
        value.extend(nlri(prefixes));
        attr::put(&mut list, 0x80, code::MP_REACH_NLRI, &value);
    }
    attr::put(&mut list, 0x40, code::ORIGIN, &[0]);
    attr::put(&mut list, 0x40, code::AS_PATH, as_path);
    if next_hop.is_ipv4() {
        attr::put(&mut list, 0x40, code::NEXT_HOP, &octets(next_hop));
    }
    for (flags, code, value) in more {
        attr::put(&mut list, *flags, *code, value);
    }
    body(&[], &list, &behind)
}

/// An UPDATE that withdraws prefixes of one family.
pub(crate) fn withdraw(prefixes: &[impl Named]) -> Vec<u8> {
    if prefixes.first().is_none_or(|first| first.named().1.addr().is_ipv4()) {
        return body(&nlri(prefixes), &[], &[]);
    }
    let (mut list, value) = (Vec::new(), [vec![0, 2, 1], nlri(prefixes)].concat());
    attr::put(&mut list, 0x80, code::MP_UNREACH_NLRI, &value);
    body(&[], &list, &[])
}

pub(crate) fn body(withdrawn: &[u8], list: &[u8], behind: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| u16::try_from(field.len()).unwrap().to_be_bytes();
    [&length(withdrawn)[..], withdrawn, &length(list)[..], list, behind].concat()
}
