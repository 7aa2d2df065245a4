//! Random histories against a naive reference: every peer's received table and the kernel's table must equal what the reference
//! computes from everything that was said. Six peers (four eBGP, one of them with two-octet AS numbers, and two iBGP) in up to
//! six update groups, both families; announcements, withdrawals, originations, next hops, policies and tags that change, sessions
//! lost, replaced, removed and kept as stale, refresh, deferral, partial writes, peers that fall behind the log; several paths per
//! prefix (RFC 7911) in either direction, to and from peers with and without them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod filters;
mod reference;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bgp_proto::policy::{ExportPolicy, Filter, ImportPolicy, NextHopMode};
use bgp_proto::rib::{PeerFacts, Rib, RibConfig, RibEvent, Tag, UnknownNextHops};
use bgp_proto::route::NextHopResolution;
use bgp_proto::{AfiSafi, Asn, PeerId, RouterId};
use ipnet::IpNet;
use reference::{OWN_AS, Peer, Reference, origination};
use wire::{Attributes, Named, Receiver, announce, withdraw};

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct World {
    rng: Rng,
    rib: Rib,
    reference: Reference,
    fib: BTreeMap<IpNet, Vec<IpAddr>>,
    prefixes: Vec<IpNet>,
}

fn prefixes() -> Vec<IpNet> {
    let v4 = (0..24u32).map(|i| {
        let address = Ipv4Addr::from(0x0A00_0000 + ((i % 5) << 16) + ((i / 5) << 8));
        IpNet::new(address.into(), if i % 2 == 0 { 24 } else { 26 }).unwrap()
    });
    let v6 = (0..16u16).map(|i| {
        let address = IpAddr::from([0x2001, 0xdb8, i % 3, i, 0, 0, 0, 0]);
        IpNet::new(address, if i % 2 == 0 { 64 } else { 122 }).unwrap()
    });
    v4.chain(v6).collect()
}

fn import(choice: u64) -> ImportPolicy {
    match choice {
        0 => narrow_import(),
        1 => ImportPolicy::accept_all(),
        2 => ImportPolicy { filter: filters::import(), ..narrow_import() },
        _ => ImportPolicy { filter: filters::import(), ..ImportPolicy::accept_all() },
    }
}

fn narrow_import() -> ImportPolicy {
    ImportPolicy {
        within: ["10.0.0.0/15".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()].into(),
        never: ["10.1.1.0/24".parse().unwrap()].into(),
        ..ImportPolicy::default()
    }
}

fn facts(i: u8) -> PeerFacts {
    let both: BTreeSet<AfiSafi> = AfiSafi::ALL.into_iter().collect();
    let internal = i >= 4;
    let own = if i == 3 { 1 } else { i };
    PeerFacts {
        families: if i == 2 { [AfiSafi::Ipv4Unicast].into() } else { both },
        four_octet_as: i != 1,
        next_hop_ipv4: Some(Ipv4Addr::new(203, 0, 113, if internal { 9 } else { own })),
        next_hop_ipv6: Some("2001:db8:ffff::9".parse().unwrap()),
        link_local: (i == 0).then(|| "fe80::1".parse().unwrap()),
        import: if i == 1 { narrow_import() } else { ImportPolicy::accept_all() },
        export: ExportPolicy::new(i != 2),
        reflector_client: i == 4,
        tags: if i == 2 { [Tag(2)].into() } else { [Tag(1)].into() },
        add_path_receive: if matches!(i, 0 | 4) { AfiSafi::ALL.into() } else { BTreeSet::new() },
        add_path_send: match i {
            1 => [AfiSafi::Ipv6Unicast].into(),
            3 | 4 => AfiSafi::ALL.into(),
            _ => BTreeSet::new(),
        },
        paths_sent: 3,
        ..PeerFacts::new(
            Asn([70001, 65102, 65103, 65104, OWN_AS, OWN_AS][usize::from(i)]),
            Asn(OWN_AS),
            RouterId(Ipv4Addr::new(0, 0, 0, i + 1)),
            IpAddr::from([192, 0, 2, 100 + i]),
        )
    }
}

/// The far end of a session that begins.
fn receiver(facts: &PeerFacts) -> Receiver {
    let ids = |family| facts.add_path_send.contains(&family);
    Receiver {
        four_octet: facts.four_octet_as,
        ids: (ids(AfiSafi::Ipv4Unicast), ids(AfiSafi::Ipv6Unicast)),
        ..Receiver::default()
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let assume_reachable = rng.one_in(2);
        let mut config = RibConfig::new(Asn(OWN_AS), RouterId(Ipv4Addr::new(9, 9, 9, 9)), seed);
        if assume_reachable {
            config.unknown_next_hops = UnknownNextHops::Reachable;
        }
        let max_paths = usize::from(config.max_paths);
        let peer =
            |i| Peer { facts: facts(i), up: false, sent: BTreeMap::new(), receiver: receiver(&facts(i)) };
        let (own, next_hops) = (BTreeMap::new(), BTreeMap::new());
        let reference =
            Reference { peers: (0..6).map(peer).collect(), own, next_hops, assume_reachable, max_paths };
        World { rng, rib: Rib::new(config), reference, fib: BTreeMap::new(), prefixes: prefixes() }
    }

    fn step(&mut self) {
        let i = self.rng.below(6) as usize;
        let (id, up) = (PeerId(i as u16), self.reference.peers[i].up);
        match self.rng.below(32) {
            0 | 1 if !up || self.rng.one_in(4) => self.raise(i),
            2 if up && self.rng.one_in(3) => self.lose(i),
            3 => self.rib.set_backlog(if self.rng.one_in(3) { 200 } else { 1 << 20 }),
            4 if up => {
                let prefix = self.prefixes[self.rng.below(40) as usize];
                self.rib.refresh(id, AfiSafi::of(&prefix));
            }
            5 | 6 => self.originate(),
            7 => self.next_hop(),
            8 if self.rng.one_in(3) => self.change_facts(i),
            9 if self.rng.one_in(4) => {
                let defer = self.rng.one_in(3);
                self.rib.defer_selection(defer);
            }
            10 | 11 => self.pull(i, true),
            12..=17 => self.drain(),
            18..=20 if up => {
                let prefix = self.prefixes[self.rng.below(40) as usize];
                let named = self.named(i, prefix);
                if self.carries(i, &prefix) {
                    self.reference.peers[i].sent.remove(&(prefix, named.1.unwrap_or(0)));
                }
                self.rib.update(id, &withdraw(&[named]));
            }
            21 if self.rng.one_in(6) => {
                let max = 1 + self.rng.below(3);
                self.reference.max_paths = max as usize;
                self.rib.set_max_paths(max as u16);
            }
            22 if self.rng.one_in(4) => self.sweep(i),
            _ if up => self.announce(i),
            _ => {}
        }
        self.events();
    }

    fn carries(&self, i: usize, prefix: &IpNet) -> bool {
        self.reference.peers[i].facts.families.contains(&AfiSafi::of(prefix))
    }

    /// A prefix as the peer names it: with one of a few path identifiers where it gives them.
    fn named(&mut self, i: usize, prefix: IpNet) -> Named {
        let facts = &self.reference.peers[i].facts;
        let ids = facts.add_path_receive.contains(&AfiSafi::of(&prefix));
        (prefix, ids.then(|| [0, 1, 0x8000_0007][self.rng.below(3) as usize]))
    }

    fn announce(&mut self, i: usize) {
        let ipv6 = self.rng.one_in(2);
        let facts = self.reference.peers[i].facts.clone();
        let mut path: Vec<u32> =
            (0..self.rng.below(3)).map(|_| [100, 101, 70000][self.rng.below(3) as usize]).collect();
        if self.rng.one_in(12) {
            path.push(OWN_AS);
        }
        if facts.is_external() {
            path.insert(0, facts.remote_asn.0);
        }
        let n = 1 + self.rng.below(3) as u8;
        let mut some = |p, v: u32| self.rng.one_in(p).then_some(v);
        let a = Attributes {
            origin: u8::from(some(5, 1).is_some()),
            path,
            next_hop: if ipv6 {
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)])
            } else {
                IpAddr::from([192, 0, 2, n])
            },
            med: some(3, u32::from(n)),
            local_pref: if facts.is_external() { some(4, 300) } else { Some(100 + some(3, 1).unwrap_or(0)) },
            communities: [
                some(5, 0xFFFF_FF01).or(some(9, 0xFFFF_FF02)),
                some(6, 0xFFFF_0000),
                some(4, 0xFDE9_0001),
            ]
            .into_iter()
            .flatten()
            .collect(),
            unknown: some(6, 5).map(|v| v as u8),
            originator: None,
        };
        let of_family: Vec<IpNet> =
            self.prefixes.iter().filter(|p| matches!(p, IpNet::V6(_)) == ipv6).copied().collect();
        let count = 1 + self.rng.below(4);
        let some: Vec<Named> = (0..count)
            .map(|_| {
                let prefix = of_family[self.rng.below(of_family.len() as u64) as usize];
                self.named(i, prefix)
            })
            .collect();
        let shuffled = self.rng.one_in(3);
        let outcome = self.rib.update(PeerId(i as u16), &announce(&some, &a, facts.four_octet_as, shuffled));
        if self.carries(i, &some[0].0) {
            let discarded = usize::from(facts.is_external() && a.local_pref.is_some());
            assert_eq!(outcome.faults.len(), discarded, "{:?}", outcome.faults);
            for (prefix, id) in some {
                self.reference.peers[i].sent.insert((prefix, id.unwrap_or(0)), (a.clone(), false));
            }
        }
    }

    /// A session, also in place of one that is up: what was sent before stays, unless the peer is another one now, or names paths
    /// otherwise.
    fn raise(&mut self, i: usize) {
        let peer = &mut self.reference.peers[i];
        if self.rng.one_in(6) {
            let router_id = RouterId(Ipv4Addr::new(0, 0, self.rng.below(2) as u8, i as u8 + 1));
            if std::mem::replace(&mut peer.facts.router_id, router_id) != router_id {
                peer.sent.clear();
            }
        }
        if self.rng.one_in(6) {
            peer.facts.families = AfiSafi::ALL.into_iter().filter(|_| !self.rng.one_in(3)).collect();
            peer.sent.retain(|(prefix, _), _| peer.facts.families.contains(&AfiSafi::of(prefix)));
        }
        if self.rng.one_in(4) {
            let mut some = || AfiSafi::ALL.into_iter().filter(|_| self.rng.one_in(2)).collect();
            let before = std::mem::replace(&mut peer.facts.add_path_receive, some());
            peer.facts.add_path_send = some();
            // What has identifiers stands for nothing that has none.
            let after = &peer.facts.add_path_receive;
            peer.sent.retain(|(prefix, _), _| {
                let family = AfiSafi::of(prefix);
                before.contains(&family) == after.contains(&family)
            });
        }
        if self.rng.one_in(6) {
            peer.facts.reflector_client = self.rng.one_in(2);
        }
        peer.up = true;
        peer.receiver = receiver(&peer.facts);
        self.rib.peer_up(PeerId(i as u16), peer.facts.clone());
    }

    fn lose(&mut self, i: usize) {
        if self.rng.one_in(4) {
            self.rib.remove_peer(PeerId(i as u16));
            let peer = &mut self.reference.peers[i];
            peer.up = false;
            return peer.sent.clear();
        }
        let retain: BTreeSet<AfiSafi> = AfiSafi::ALL.into_iter().filter(|_| self.rng.one_in(2)).collect();
        if retain.is_empty() && self.rng.one_in(2) {
            self.rib.peers_down(&BTreeSet::from([PeerId(i as u16)]));
        } else {
            self.rib.peer_down(PeerId(i as u16), &retain);
        }
        let peer = &mut self.reference.peers[i];
        peer.up = false;
        peer.sent.retain(|(prefix, _), (_, stale)| {
            !std::mem::replace(stale, true) && retain.contains(&AfiSafi::of(prefix))
        });
    }

    fn sweep(&mut self, i: usize) {
        for family in AfiSafi::ALL {
            let peer = &mut self.reference.peers[i];
            let before = peer.sent.len();
            peer.sent.retain(|(prefix, _), (_, stale)| !*stale || AfiSafi::of(prefix) != family);
            assert_eq!(self.rib.sweep_stale(PeerId(i as u16), family) as usize, before - peer.sent.len());
        }
    }

    fn originate(&mut self) {
        let prefix = self.prefixes[self.rng.below(40) as usize];
        if self.rng.one_in(2) {
            let known = self.reference.own.remove(&prefix).is_some();
            assert_eq!(self.rib.withdraw_origination(&prefix), known);
        } else {
            let origination = origination(self.rng.below(5));
            self.rib.originate(&prefix, origination.clone());
            self.reference.own.insert(prefix, origination);
        }
    }

    fn next_hop(&mut self) {
        let n = 1 + self.rng.below(3) as u8;
        let address = if self.rng.one_in(2) {
            IpAddr::from([192, 0, 2, n])
        } else {
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)])
        };
        let metric = (!self.rng.one_in(4)).then_some(self.rng.below(2) as u32);
        self.rib.set_next_hop(address, metric.map(|metric| NextHopResolution { metric, interface: 1 }));
        self.reference.next_hops.insert(address, metric);
    }

    fn change_facts(&mut self, i: usize) {
        let (id, choice) = (PeerId(i as u16), self.rng.below(6));
        let facts = &mut self.reference.peers[i].facts;
        match choice {
            0 => facts.import = import(self.rng.below(4)),
            1 => {
                let filter =
                    if self.rng.one_in(2) { filters::export(self.rng.below(2)) } else { Filter::default() };
                let next_hop =
                    [NextHopMode::Auto, NextHopMode::Own, NextHopMode::Keep][self.rng.below(3) as usize];
                let (transit, drained) = (!self.rng.one_in(3), self.rng.one_in(3));
                facts.export = ExportPolicy { transit, filter, next_hop, drained };
            }
            2 => facts.paths_sent = 1 + self.rng.below(4) as u8,
            3 => facts.reflector_client = !facts.reflector_client,
            _ => facts.tags = (1..=3).filter(|_| self.rng.one_in(2)).map(Tag).collect(),
        }
        match choice {
            0 => self.rib.set_import(id, facts.import.clone()),
            1 => self.rib.set_export(id, facts.export.clone()),
            2 => self.rib.set_paths_sent(id, facts.paths_sent),
            3 => self.rib.set_reflector_client(id, facts.reflector_client),
            _ => self.rib.set_tags(id, facts.tags.clone()),
        }
    }

    fn drain(&mut self) {
        while self.rib.drain() {}
        self.rib.check_invariants().unwrap();
        self.events();
        while let Some(change) = self.rib.poll_fib() {
            match change.route {
                Some(route) => _ = self.fib.insert(change.prefix, route.next_hops),
                None => _ = self.fib.remove(&change.prefix),
            }
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.rib.poll_event() {
            match event {
                RibEvent::TrackNextHop { address, wanted: false } => {
                    _ = self.reference.next_hops.remove(&address)
                }
                RibEvent::TrackNextHop { .. } | RibEvent::PeerFellBehind { .. } => {}
                RibEvent::AttributesTooLong { .. } => panic!("{event:?}"),
            }
        }
    }

    fn pull(&mut self, i: usize, partly: bool) {
        if !self.reference.peers[i].up {
            return;
        }
        while let Some(bytes) = self.rib.poll_transmit(PeerId(i as u16)) {
            let some = if partly { self.rng.below(bytes.len() as u64) as usize + 1 } else { bytes.len() };
            self.reference.peers[i].receiver.bytes(&bytes[..some]);
            self.rib.transmitted(PeerId(i as u16), some);
            if partly {
                break;
            }
        }
    }

    fn settle(&mut self, seed: u64) {
        self.rib.defer_selection(false);
        self.drain();
        for i in 0..6 {
            self.pull(i, false);
            self.drain();
        }
        self.rib.check_invariants().unwrap();
        assert_eq!(self.fib, self.reference.fib(&self.prefixes), "seed {seed}: the kernel's table");
        for i in 0..6 {
            let peer = &self.reference.peers[i];
            self.check_counts(i);
            if !peer.up {
                continue;
            }
            let identifier = |path: Option<(usize, u32)>| {
                let peer = path.map(|(source, _)| PeerId(source as u16));
                self.rib.identifier_of(peer, path.map_or(0, |(_, id)| id))
            };
            let expected = self.reference.told(i, &self.prefixes, identifier);
            assert!(peer.receiver.is_between_messages());
            for prefix in &self.prefixes {
                let all = (*prefix, 0)..=(*prefix, u32::MAX);
                let want: Vec<_> = expected.range(all.clone()).collect();
                let got: Vec<_> = peer.receiver.table.range(all).collect();
                assert_eq!(want, got, "seed {seed}, peer {i}, {prefix}: {:?}", self.rib.paths_to(prefix));
            }
            for family in AfiSafi::ALL {
                let name = if family == AfiSafi::Ipv4Unicast { "IPv4" } else { "IPv6" };
                let ends = peer.receiver.ends.iter().filter(|end| **end == name).count();
                assert_eq!(
                    ends,
                    usize::from(peer.facts.families.contains(&family)),
                    "seed {seed}, peer {i}, {name}"
                );
                let told = expected.keys().filter(|(prefix, _)| AfiSafi::of(prefix) == family).count();
                assert_eq!(self.rib.advertised(PeerId(i as u16), family) as usize, told);
                assert_eq!(self.rib.adj_rib_out(PeerId(i as u16), family).len(), told);
            }
        }
    }

    fn check_counts(&self, i: usize) {
        let peer = &self.reference.peers[i];
        for family in AfiSafi::ALL {
            let of = peer.sent.iter().filter(|((prefix, _), _)| AfiSafi::of(prefix) == family);
            let counts = self.rib.counts(PeerId(i as u16), family);
            assert_eq!(counts.received as usize, of.clone().count());
            assert_eq!(counts.stale as usize, of.clone().filter(|(_, (_, stale))| *stale).count());
            let accepted =
                of.filter(|((prefix, _), (a, _))| Reference::imported(&peer.facts, prefix, a).is_some());
            assert_eq!(counts.accepted as usize, accepted.count());
        }
    }
}

#[test]
fn random_histories_end_as_the_reference_says() {
    for seed in 1..=400 {
        let mut world = World::new(seed);
        for step in 0..400 {
            world.step();
            if step == 200 {
                world.settle(seed);
            }
        }
        world.settle(seed);
        // Everything gone: nothing is left.
        for i in 0..6 {
            world.rib.remove_peer(PeerId(i));
        }
        for prefix in world.prefixes.clone() {
            world.rib.withdraw_origination(&prefix);
        }
        world.drain();
        assert!(world.fib.is_empty());
        assert_eq!(world.rib.attribute_sets(), 0, "seed {seed}: attribute sets leak");
        AfiSafi::ALL.into_iter().for_each(|family| assert_eq!(world.rib.size(family), (0, 0)));
    }
}
