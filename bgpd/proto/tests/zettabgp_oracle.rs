//! What the RIB sends, decoded by zettabgp: an implementation that shares nothing with ours.
//!
//! zettabgp is told that it is an IPv4 session (as an IPv6 one it reads the IPv4 fields as IPv6), not to guess path ids, and is never
//! given an AS_PATH that was not walked first: it does not come back from one with an octet left over. Its AS numbers are compared
//! by value, since its `==` takes 65536 and 1 for the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::wildcard_enum_match_arm)]

mod updates;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bgp_proto::rib::{OriginAttributes, Origination, Tag};
use bgp_proto::wire::attr::{self, code};
use bgp_proto::wire::{as_path, update};
use bgp_proto::{AfiSafi, PeerId};
use ipnet::IpNet;
use updates::{OWN_AS, Rng, announce, bodies, facts, octets, path, rib, settle, transmitted, withdraw};
use zettabgp::prelude::{
    BgpASitem, BgpAddr, BgpAddrs, BgpAttrItem, BgpAttrOrigin, BgpMessage, BgpSessionParams, BgpTransportMode,
    BgpUpdateMessage,
};

/// A route as both sides say it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    next_hop: IpAddr,
    as_path: Vec<u32>,
    med: Option<u32>,
    local_pref: Option<u32>,
    communities: BTreeSet<u32>,
    large: BTreeSet<[u32; 3]>,
}

/// What zettabgp reads out of a stream.
#[derive(Default)]
struct Oracle {
    table: BTreeMap<IpNet, Route>,
    ends: BTreeSet<AfiSafi>,
}

fn params() -> BgpSessionParams {
    let router_id = Ipv4Addr::new(10, 9, 9, 9);
    let mut params = BgpSessionParams::new(65099, 90, BgpTransportMode::IPv4, router_id, vec![]);
    params.fuzzy_pathid = false;
    params.has_as32bit = true;
    params
}

fn prefixes(addrs: &BgpAddrs) -> Vec<IpNet> {
    match addrs {
        BgpAddrs::None => Vec::new(),
        BgpAddrs::IPV4U(all) => all.iter().map(|p| IpNet::new(p.addr.into(), p.prefixlen).unwrap()).collect(),
        BgpAddrs::IPV6U(all) => all.iter().map(|p| IpNet::new(p.addr.into(), p.prefixlen).unwrap()).collect(),
        other => panic!("{other:?}"),
    }
}

impl Oracle {
    fn read(&mut self, stream: &[u8]) {
        for body in bodies(stream) {
            let list = update::split(body).expect("fields that add up").attributes;
            let mut segments = as_path::segments(attr::find(list, code::AS_PATH).unwrap_or_default(), 4);
            segments.by_ref().for_each(drop);
            assert!(segments.rest.is_empty(), "a path that zettabgp would not come back from");
            let mut message = BgpUpdateMessage::new();
            message.decode_from(&params(), body).unwrap();
            self.apply(&message);
        }
    }

    fn apply(&mut self, message: &BgpUpdateMessage) {
        let (withdrawn, announced) = (prefixes(&message.withdraws), prefixes(&message.updates));
        if withdrawn.is_empty() && announced.is_empty() && message.attrs.is_empty() {
            self.ends.insert(AfiSafi::Ipv4Unicast);
        }
        withdrawn.iter().for_each(|prefix| drop(self.table.remove(prefix)));
        if let Some(withdraws) = message.get_mpwithdraws() {
            let gone = prefixes(&withdraws.addrs);
            if gone.is_empty() {
                self.ends.insert(AfiSafi::Ipv6Unicast);
            }
            gone.iter().for_each(|prefix| drop(self.table.remove(prefix)));
        }
        for prefix in announced {
            let next_hop = message.get_attr_nexthop().expect("a next hop").value;
            self.table.insert(prefix, route(message, next_hop));
        }
        if let Some(reach) = message.get_mpupdates() {
            let BgpAddr::V6(next_hop) = reach.nexthop else { panic!("{:?}", reach.nexthop) };
            for prefix in prefixes(&reach.addrs) {
                self.table.insert(prefix, route(message, next_hop.into()));
            }
        }
    }
}

fn route(message: &BgpUpdateMessage, next_hop: IpAddr) -> Route {
    assert!(matches!(message.get_attr_origin().unwrap().value, BgpAttrOrigin::Igp));
    let as_path = message.get_attr_aspath().expect("a path");
    let as_path = as_path.value.iter().flat_map(|item| match item {
        BgpASitem::Seq(sequence) => sequence.value.iter().map(|asn| asn.value).collect::<Vec<_>>(),
        BgpASitem::Set(set) => panic!("a set: {set:?}"),
    });
    let mut route = Route {
        next_hop,
        as_path: as_path.collect(),
        med: None,
        local_pref: None,
        communities: BTreeSet::new(),
        large: BTreeSet::new(),
    };
    for attribute in &message.attrs {
        match attribute {
            BgpAttrItem::MED(med) => route.med = Some(med.value),
            BgpAttrItem::LocalPref(local_pref) => route.local_pref = Some(local_pref.value),
            BgpAttrItem::CommunityList(list) => {
                route.communities = list.value.iter().map(|c| c.value).collect()
            }
            BgpAttrItem::LargeCommunityList(list) => {
                route.large = list.value.iter().map(|c| [c.ga, c.ldp1, c.ldp2]).collect();
            }
            _ => {}
        }
    }
    route
}

fn prefix(rng: &mut Rng, ipv6: bool) -> IpNet {
    let (third, fourth) = (rng.octet() % 12, rng.octet());
    if ipv6 {
        let address = IpAddr::from([0x2001, 0xDB8, u16::from(third), u16::from(fourth), 0, 0, 0, 0]);
        let lengths = [49, 57, 64, 122, 128];
        return IpNet::new(address, lengths[usize::from(third) % 5]).unwrap().trunc();
    }
    let lengths = [17, 24, 25, 26, 32];
    IpNet::new(IpAddr::from([10, 7, third, fourth]), lengths[usize::from(third) % 5]).unwrap().trunc()
}

/// What an external peer says, as its own sink would see it.
fn said(rng: &mut Rng, ipv6: bool) -> Route {
    let next_hop = if ipv6 {
        IpAddr::from([0x2001, 0xDB8, 0xFFFF, 0, 0, 0, 0, 0x100 + u16::from(rng.octet() % 3)])
    } else {
        IpAddr::from([192, 0, 2, 1 + rng.octet() % 3])
    };
    let mut as_path = vec![65001];
    as_path.extend((0..rng.below(300)).map(|_| [65536, 65537, 4_200_000_000, 3][rng.below(4)]));
    as_path.truncate(if rng.below(4) == 0 { 255 } else { 4 });
    let communities = (0..rng.below(90)).map(|_| rng.word() & 0x7FFF_FFFF).collect();
    let large = (0..rng.below(3)).map(|_| [rng.word(), rng.word(), rng.word()]).collect();
    let med = (rng.below(2) == 0).then(|| rng.word());
    Route { next_hop, as_path, med, local_pref: None, communities, large }
}

fn update_of(route: &Route, prefixes: &[IpNet]) -> Vec<u8> {
    let mut more = Vec::new();
    if let Some(med) = route.med {
        more.push((0x80, code::MULTI_EXIT_DISC, med.to_be_bytes().to_vec()));
    }
    if !route.communities.is_empty() {
        more.push((
            0xC0,
            code::COMMUNITIES,
            route.communities.iter().flat_map(|c| c.to_be_bytes()).collect(),
        ));
    }
    if !route.large.is_empty() {
        let value = route.large.iter().flatten().flat_map(|c| c.to_be_bytes()).collect();
        more.push((0xC0, code::LARGE_COMMUNITIES, value));
    }
    announce(prefixes, route.next_hop, &path(&route.as_path, true), &more)
}

const SOURCE: PeerId = PeerId(0);
const OUTSIDE: PeerId = PeerId(1);
const INSIDE: PeerId = PeerId(2);

/// The same route as the external and as the internal sink is to see it.
fn expected(said: &Route, outside: bool, ipv6: bool) -> Route {
    if !outside {
        return Route { local_pref: Some(100), ..said.clone() };
    }
    let facts = facts(2, 65002);
    let next_hop =
        if ipv6 { facts.next_hop_ipv6.unwrap().into() } else { IpAddr::from(facts.next_hop_ipv4.unwrap()) };
    let as_path = [&[OWN_AS], &said.as_path[..]].concat();
    Route { next_hop, as_path, med: None, ..said.clone() }
}

#[test]
fn zettabgp_reads_what_was_meant() {
    let mut rng = Rng(0x0DDB_1A5E_5BAD_5EED);
    let mut rib = rib(OWN_AS, [10, 0, 0, 99]);
    for (peer, facts) in [(SOURCE, facts(1, 65001)), (OUTSIDE, facts(2, 65002)), (INSIDE, facts(3, OWN_AS))] {
        rib.peer_up(peer, facts);
    }
    let (mut outside, mut inside) = (Oracle::default(), Oracle::default());
    let mut known = BTreeMap::<IpNet, Route>::new();
    for round in 0..1500 {
        let ipv6 = rng.below(2) == 0;
        let prefixes: BTreeSet<IpNet> = (0..=rng.below(20)).map(|_| prefix(&mut rng, ipv6)).collect();
        let prefixes: Vec<IpNet> = prefixes.into_iter().collect();
        let body = if rng.below(4) == 0 {
            prefixes.iter().for_each(|prefix| drop(known.remove(prefix)));
            withdraw(&prefixes)
        } else {
            let route = said(&mut rng, ipv6);
            known.extend(prefixes.iter().map(|prefix| (*prefix, route.clone())));
            update_of(&route, &prefixes)
        };
        let outcome = rib.update(SOURCE, &body);
        assert!(outcome.faults.is_empty(), "{:?}", outcome.faults);
        if round % 7 == 0 {
            settle(&mut rib);
            outside.read(&transmitted(&mut rib, OUTSIDE));
            inside.read(&transmitted(&mut rib, INSIDE));
        }
    }
    settle(&mut rib);
    outside.read(&transmitted(&mut rib, OUTSIDE));
    inside.read(&transmitted(&mut rib, INSIDE));
    for (oracle, is_outside) in [(&outside, true), (&inside, false)] {
        let expected: BTreeMap<IpNet, Route> = known
            .iter()
            .map(|(prefix, route)| (*prefix, expected(route, is_outside, prefix.addr().is_ipv6())))
            .collect();
        assert!(expected.len() > 500, "{} prefixes are not much of a test", expected.len());
        assert_eq!(oracle.table.len(), expected.len());
        for (prefix, route) in expected {
            assert_eq!(oracle.table.get(&prefix), Some(&route), "{prefix}, outside: {is_outside}");
        }
        assert_eq!(oracle.ends, AfiSafi::ALL.into_iter().collect(), "End-of-RIB in both families");
    }
}

#[test]
fn zettabgp_reads_what_we_originate() {
    let mut rib = rib(OWN_AS, [10, 0, 0, 99]);
    rib.peer_up(OUTSIDE, facts(2, 65002));
    rib.peer_up(INSIDE, facts(3, OWN_AS));
    let attributes = OriginAttributes {
        communities: [64512 << 16 | 100, 0xFFFF_FF01].into(),
        large_communities: [[4_200_000_000, 1, 2]].into(),
        local_pref: Some(300),
        med: Some(20),
        prepend: 2,
        ..OriginAttributes::default()
    };
    let exports = [(Tag(1), attributes.clone())].into();
    let own: [IpNet; 3] =
        ["10.244.7.0/26", "10.96.0.1/32", "fd00:244:7::/122"].map(|text| text.parse().unwrap());
    for prefix in &own {
        rib.originate(prefix, Origination { exports: BTreeMap::clone(&exports) });
    }
    settle(&mut rib);
    for (peer, number, is_outside) in [(OUTSIDE, 2, true), (INSIDE, 3, false)] {
        let mut oracle = Oracle::default();
        oracle.read(&transmitted(&mut rib, peer));
        assert_eq!(oracle.table.len(), own.len());
        for prefix in &own {
            let facts = facts(number, 65002);
            let next_hop = match prefix {
                IpNet::V4(_) => octets(facts.next_hop_ipv4.unwrap().into()),
                IpNet::V6(_) => octets(facts.next_hop_ipv6.unwrap().into()),
            };
            let route = &oracle.table[prefix];
            assert_eq!(octets(route.next_hop), next_hop);
            assert_eq!(route.as_path, if is_outside { vec![OWN_AS; 3] } else { vec![] });
            assert_eq!(route.local_pref, (!is_outside).then_some(300));
            assert_eq!(route.med, Some(20));
            assert_eq!(
                (&route.communities, &route.large),
                (&attributes.communities, &attributes.large_communities)
            );
        }
    }
}
