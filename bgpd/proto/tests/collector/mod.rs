//! A monitoring station: it reads BMP and keeps what it was told, by peer and table.
#![allow(dead_code)] // each test uses its part

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_proto::bmp::message::Table;
use bgp_proto::rib::{PathStatus, PathView};
use bgp_proto::wire::attr::{self, code};
use bgp_proto::wire::nlri::{self, Address as _, V6};
use bgp_proto::wire::update;
use bgp_proto::{AfiSafi, PeerName, Speaker};
use ipnet::IpNet;

/// Whose table: a peer's by its address, or the Loc-RIB.
pub(crate) type Whose = (Option<IpAddr>, Table);

/// A route as it was told: the next hop of MP_REACH_NLRI, the other attributes.
pub(crate) type Route = (Vec<u8>, Vec<u8>);

/// One message behind its Common Header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Route { whose: Whose, two_octets: bool, at: u64, announced: usize, withdrawn: usize },
    Statistics { peer: IpAddr, tlvs: Vec<(u16, Vec<u8>)> },
    Down { peer: IpAddr, reason: u8, data: Vec<u8> },
    Up { peer: Option<IpAddr>, local: IpAddr, ports: (u16, u16), opens: Vec<u8> },
    Initiation { descr: String, name: String },
    Termination { reason: u16 },
}

#[derive(Debug, Default)]
pub(crate) struct Collector {
    unread: Vec<u8>,
    pub(crate) said: Vec<Said>,
    /// The messages themselves.
    pub(crate) raw: Vec<Vec<u8>>,
    pub(crate) up: BTreeSet<Option<IpAddr>>,
    pub(crate) tables: BTreeMap<Whose, BTreeMap<IpNet, Route>>,
    pub(crate) ends: BTreeSet<(Whose, AfiSafi)>,
    /// Tables whose IPv4 prefixes have path identifiers (RFC 7911), which a station knows from the OPENs.
    pub(crate) with_ids: BTreeSet<Table>,
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().unwrap())
}

fn tlvs(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let end = 4 + usize::from(be16(&bytes[2..]));
        found.push((be16(bytes), bytes[4..end].to_vec()));
        bytes = &bytes[end..];
    }
    found
}

/// The Per-Peer Header: whose, whether of two octets, since 1970 in microseconds.
fn subject(header: &[u8]) -> (Whose, bool, u64) {
    let (kind, flags) = (header[0], header[1]);
    assert_eq!(header[2..10], [0; 8], "no distinguisher");
    let at = u64::from(be32(&header[34..])) * 1_000_000 + u64::from(be32(&header[38..]));
    if kind == 3 {
        assert_eq!((flags, &header[10..26]), (0, &[0; 16][..]));
        return ((None, Table::LocRib), false, at);
    }
    assert_eq!(kind, 0);
    let address: [u8; 16] = *header[10..].first_chunk().unwrap();
    let address = if flags & 0x80 == 0 {
        assert_eq!(address[..12], [0; 12]);
        IpAddr::from(Ipv4Addr::from(*address[12..].first_chunk().unwrap()))
    } else {
        IpAddr::from(Ipv6Addr::from(address))
    };
    let table = match flags & 0x50 {
        0 => Table::AdjRibIn,
        0x40 => Table::AdjRibInPostPolicy,
        0x50 => Table::AdjRibOut,
        other => panic!("flags {other:#x}"),
    };
    ((Some(address), table), flags & 0x20 != 0, at)
}

impl Collector {
    /// Reads what came.
    pub(crate) fn read(&mut self, octets: &[u8]) {
        self.unread.extend_from_slice(octets);
        while self.unread.len() >= 6 {
            assert_eq!(self.unread[0], 3, "version");
            let length = be32(&self.unread[1..]) as usize;
            assert!((6..100_000).contains(&length), "a message of {length}");
            if self.unread.len() < length {
                return;
            }
            let message: Vec<u8> = self.unread.drain(..length).collect();
            let said = self.message(message[5], &message[6..]);
            self.said.push(said);
            self.raw.push(message);
        }
    }

    pub(crate) fn is_within_message(&self) -> bool {
        !self.unread.is_empty()
    }

    /// What was said since the last question.
    pub(crate) fn news(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    fn message(&mut self, kind: u8, body: &[u8]) -> Said {
        let is_first = self.raw.is_empty();
        assert_eq!(is_first, kind == 4, "Initiation is the first message, and no other (RFC 7854 §4.3)");
        match kind {
            4 => {
                let tlvs = tlvs(body);
                let text = |kind: u16| {
                    let value = tlvs.iter().find(|(known, _)| *known == kind).map(|(_, value)| value.clone());
                    String::from_utf8(value.expect("sysDescr and sysName")).unwrap()
                };
                return Said::Initiation { descr: text(1), name: text(2) };
            }
            5 => return Said::Termination { reason: be16(&tlvs(body)[0].1) },
            0..=3 => {}
            other => panic!("type {other}"),
        }
        let (whose, two_octets, at) = subject(body);
        let rest = &body[42..];
        match kind {
            0 => {
                assert!(self.up.contains(&whose.0), "routes of {:?}, which is not up", whose.0);
                let (announced, withdrawn) = self.update(whose, rest);
                Said::Route { whose, two_octets, at, announced, withdrawn }
            }
            1 => {
                assert_eq!(be32(rest) as usize, tlvs(&rest[4..]).len());
                Said::Statistics { peer: whose.0.unwrap(), tlvs: tlvs(&rest[4..]) }
            }
            2 => {
                assert!(self.up.remove(&whose.0), "{:?} goes down and was not up", whose.0);
                self.tables.retain(|(of, _), _| *of != whose.0);
                self.ends.retain(|((of, _), _)| *of != whose.0);
                Said::Down { peer: whose.0.unwrap(), reason: rest[0], data: rest[1..].to_vec() }
            }
            _ => {
                assert!(self.up.insert(whose.0), "{:?} comes up and was up", whose.0);
                let is_ipv6 = whose.0.is_some_and(|peer| peer.is_ipv6());
                let local = match is_ipv6 {
                    true => IpAddr::from(Ipv6Addr::from(*rest.first_chunk::<16>().unwrap())),
                    false => IpAddr::from(Ipv4Addr::from(*rest[12..].first_chunk::<4>().unwrap())),
                };
                let ports = (be16(&rest[16..]), be16(&rest[18..]));
                Said::Up { peer: whose.0, local, ports, opens: rest[20..].to_vec() }
            }
        }
    }

    fn update(&mut self, whose: Whose, message: &[u8]) -> (usize, usize) {
        assert_eq!((&message[..16], message[18]), (&[0xff; 16][..], 2));
        assert_eq!(usize::from(be16(&message[16..])), message.len());
        let fields = update::split(&message[19..]).expect("an UPDATE whose lengths add up");
        if let Some(family) = update::end_of_rib(&fields) {
            self.ends.insert((whose, family));
            return (0, 0);
        }
        let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
        let ids = self.with_ids.contains(&whose.1);
        nlri::check_paths::<u32>(fields.withdrawn, ids).unwrap();
        nlri::check_paths::<u32>(fields.nlri, ids).unwrap();
        nlri::each_path(fields.withdrawn, ids, |addr: u32, len, _| withdrawn.push(addr.prefix(len)));
        nlri::each_path(fields.nlri, ids, |addr: u32, len, _| announced.push(addr.prefix(len)));
        let (mut next_hop, mut attributes) = (Vec::new(), Vec::new());
        let mut walk = attr::attributes(fields.attributes);
        for attribute in walk.by_ref() {
            match (attribute.code, attribute.value) {
                (code::MP_UNREACH_NLRI, [0, 2, 1, rest @ ..]) => {
                    nlri::check::<V6>(rest).unwrap();
                    nlri::each(rest, |addr: V6, len| withdrawn.push(addr.prefix(len)));
                }
                (code::MP_REACH_NLRI, [0, 2, 1, length, rest @ ..]) => {
                    let (hop, rest) = rest.split_at(usize::from(*length));
                    next_hop = hop.to_vec();
                    nlri::check::<V6>(&rest[1..]).unwrap();
                    nlri::each(&rest[1..], |addr: V6, len| announced.push(addr.prefix(len)));
                }
                _ => attributes.extend_from_slice(attribute.whole),
            }
        }
        assert!(walk.rest.is_empty(), "attributes that add up");
        let table = self.tables.entry(whose).or_default();
        withdrawn.iter().for_each(|prefix| drop(table.remove(prefix)));
        for prefix in &announced {
            table.insert(*prefix, (next_hop.clone(), attributes.clone()));
        }
        (announced.len(), withdrawn.len())
    }

    /// What it holds of a table.
    pub(crate) fn table(&self, whose: Whose) -> BTreeMap<IpNet, Route> {
        self.tables.get(&whose).cloned().unwrap_or_default()
    }

    /// Compares all of it with the speaker's tables: `peer` is its only one, and has read everything.
    pub(crate) fn agrees_with(&self, speaker: &Speaker, peer: &PeerName, address: IpAddr) {
        let rib = speaker.rib();
        let all: Vec<PathView> =
            AfiSafi::ALL.into_iter().flat_map(|family| rib.paths(family, None)).collect();
        let best = |view: &&PathView| matches!(view.status, PathStatus::Best(_));
        let selected: BTreeSet<IpNet> = all.iter().filter(best).map(|view| view.prefix).collect();
        let told: BTreeSet<IpNet> = self.table((None, Table::LocRib)).into_keys().collect();
        assert_eq!(told, selected, "Loc-RIB");
        let is_up = speaker.opens(peer).is_some();
        assert_eq!(self.up.contains(&Some(address)), is_up, "whether {peer} is up");
        if !is_up {
            assert!(self.tables.keys().all(|(of, _)| of.is_none()), "what is left of a peer that is down");
            return;
        }
        let id = speaker.id(peer).unwrap();
        let of_peer = all.iter().filter(|view| view.peer == Some(id));
        let prefixes: BTreeSet<IpNet> = of_peer.clone().map(|view| view.prefix).collect();
        let told = self.table((Some(address), Table::AdjRibIn));
        assert_eq!(told.keys().copied().collect::<BTreeSet<_>>(), prefixes, "Adj-RIB-In");
        let accepted = of_peer.filter(|view| !matches!(view.status, PathStatus::Rejected(_)));
        let accepted: BTreeMap<IpNet, Route> = accepted.map(|view| (view.prefix, as_told(view))).collect();
        assert_eq!(self.table((Some(address), Table::AdjRibInPostPolicy)), accepted, "after policy");
        let out = AfiSafi::ALL.into_iter().flat_map(|family| rib.adj_rib_out(id, family));
        let out: BTreeMap<IpNet, Route> =
            out.map(|route| (route.prefix, (route.next_hop, route.attributes))).collect();
        assert_eq!(self.table((Some(address), Table::AdjRibOut)), out, "Adj-RIB-Out");
    }
}

/// A path as an UPDATE has it: the next hop of IPv6 is not among the attributes.
fn as_told(view: &PathView) -> Route {
    if view.prefix.addr().is_ipv4() {
        return (Vec::new(), view.attributes.clone());
    }
    let (mut next_hop, mut rest) = (Vec::new(), Vec::new());
    for attribute in attr::attributes(&view.attributes) {
        match attribute.code {
            code::NEXT_HOP => next_hop = attribute.value.to_vec(),
            _ => rest.extend_from_slice(attribute.whole),
        }
    }
    (next_hop, rest)
}
