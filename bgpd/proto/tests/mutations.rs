//! UPDATEs with anything in them: nothing panics, the invariants hold, a sane route still gets through, and whatever came in, what
//! goes out has no fault in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod updates;

use std::collections::BTreeSet;
use std::net::IpAddr;

use bgp_proto::rib::Rib;
use bgp_proto::wire::attr::code;
use bgp_proto::wire::verdict::ErrorAction;
use bgp_proto::{AfiSafi, Asn, PeerId};
use ipnet::IpNet;
use updates::listener::{Listener, PEERS, peer};
use updates::{OWN_AS, Rng, announce, body, path, rib, settle, transmitted, withdraw};

const MUTATIONS: usize = 30_000;

/// A well-formed UPDATE that the peer might send.
fn valid(rng: &mut Rng, number: u16) -> Vec<u8> {
    let facts = peer(number);
    let ipv6 = number == 3 || rng.below(2) == 0;
    let net = |rng: &mut Rng| {
        let third = rng.octet() % 8;
        if ipv6 {
            let address = IpAddr::from([0x2001, 0xDB8, u16::from(third), 0, 0, 0, 0, 0]);
            return IpNet::new(address, 48).unwrap();
        }
        IpNet::new(IpAddr::from([10, 3, third, 0]), 24).unwrap()
    };
    let ids = !facts.add_path_receive.is_empty();
    let named = |rng: &mut Rng| (ids.then(|| rng.word() % 4), net(rng));
    let prefixes: Vec<(Option<u32>, IpNet)> = (0..=rng.below(4)).map(|_| named(rng)).collect();
    if rng.below(6) == 0 {
        return withdraw(&prefixes);
    }
    let mut asns = if facts.is_external() { vec![facts.remote_asn.0] } else { vec![] };
    asns.extend((0..rng.below(4)).map(|_| 65100 + rng.word() % 20_000));
    let next_hop = if ipv6 { "2001:db8:ffff::77".parse().unwrap() } else { IpAddr::from([192, 0, 2, 77]) };
    let mut octets = |count: usize| (0..count).map(|_| rng.octet()).collect::<Vec<_>>();
    let aggregator = octets(if facts.four_octet_as { 8 } else { 6 });
    let mut more = vec![
        (0x80, code::MULTI_EXIT_DISC, octets(4)),
        (0x40, code::LOCAL_PREF, octets(4)),
        (0x40, code::ATOMIC_AGGREGATE, vec![]),
        (0xC0, code::AGGREGATOR, aggregator),
        (0xC0, code::COMMUNITIES, octets(12)),
        (0x80, code::ORIGINATOR_ID, octets(4)),
        (0x80, code::CLUSTER_LIST, octets(8)),
        (0xC0, code::EXTENDED_COMMUNITIES, octets(8)),
        (0xC0, code::AS4_PATH, path(&asns, true)),
        (0xC0, code::AS4_AGGREGATOR, octets(8)),
        (0xC0, code::LARGE_COMMUNITIES, octets(12)),
        (0xC0, 77, octets(5)),
        (0xC0, 78, octets(300)),
    ];
    more.retain(|one| match one.1 {
        code::LOCAL_PREF => !facts.is_external(),
        code::ORIGINATOR_ID | code::CLUSTER_LIST => !facts.is_external() && rng.below(3) == 0,
        code::AS4_PATH | code::AS4_AGGREGATOR => !facts.four_octet_as && rng.below(3) == 0,
        _ => rng.below(3) == 0,
    });
    announce(&prefixes, next_hop, &path(&asns, facts.four_octet_as), &more)
}

fn mutated(rng: &mut Rng, mut body: Vec<u8>) -> Vec<u8> {
    for _ in 0..=rng.below(3) {
        let at = rng.below(body.len().max(1));
        match rng.below(9) {
            0 if !body.is_empty() => body[at] = rng.octet(),
            1 if !body.is_empty() => body[at] ^= 1 << rng.below(8),
            2 if !body.is_empty() => body[at] = body[at].wrapping_add(1),
            3 if !body.is_empty() => body[at] = [0, 1, 0x7F, 0x80, 0xFF][rng.below(5)],
            4 => body.truncate(at),
            5 => body.insert(at, rng.octet()),
            6 if !body.is_empty() => drop(body.remove(at)),
            7 => {
                let end = (at + rng.below(40)).min(body.len());
                let copy = body[at.min(end)..end].to_vec();
                let to = rng.below(body.len().max(1));
                body.splice(to..to, copy);
            }
            _ => {}
        }
    }
    body.truncate(4077);
    body
}

/// Attributes of any kind behind each other, in a frame that adds up.
fn soup(rng: &mut Rng) -> Vec<u8> {
    let mut list = Vec::new();
    for _ in 0..rng.below(12) {
        let code = if rng.below(8) == 0 { rng.octet() } else { 1 + rng.octet() % 36 };
        let length = rng.below(24);
        let flags = [0x40, 0x80, 0xC0, 0xE0, 0x50, 0x00][rng.below(6)];
        list.extend([flags, code]);
        if flags & 0x10 != 0 {
            list.push(0);
        }
        list.push(u8::try_from(length).unwrap());
        list.extend((0..length).map(|_| rng.octet()));
    }
    let withdrawn: &[u8] = if rng.below(2) == 0 { &[] } else { &[24, 10, 3, 1] };
    let behind: &[u8] = if rng.below(2) == 0 { &[] } else { &[24, 10, 3, 2, 0] };
    body(withdrawn, &list, behind)
}

fn restart(rib: &mut Rib, listeners: &mut [Listener], number: u16) {
    let retain = if number == 0 { AfiSafi::ALL.into_iter().collect() } else { BTreeSet::new() };
    rib.peer_down(PeerId(number), &retain);
    rib.peer_up(PeerId(number), peer(number));
    listeners[usize::from(number)] = Listener::new(number);
}

#[test]
fn mutated_updates_do_no_harm() {
    let mut rng = Rng(0x5EED_0F0D_DB17_F11D);
    let mut rib = rib(OWN_AS, [10, 0, 0, 99]);
    (0..PEERS).for_each(|number| rib.peer_up(PeerId(number), peer(number)));
    let mut listeners: Vec<Listener> = (0..PEERS).map(Listener::new).collect();
    let (mut clean, mut answers) = (0, BTreeSet::new());
    for round in 0..MUTATIONS {
        let number = u16::try_from(rng.below(usize::from(PEERS))).unwrap();
        let kind = rng.below(8);
        let body = match kind {
            0 => soup(&mut rng),
            1 => valid(&mut rng, number),
            _ => {
                let body = valid(&mut rng, number);
                mutated(&mut rng, body)
            }
        };
        let outcome = rib.update(PeerId(number), &body);
        clean += u32::from(outcome.faults.is_empty());
        assert!(kind != 1 || outcome.faults.is_empty(), "{:?} in a valid UPDATE", outcome.faults);
        answers.extend(outcome.action().map(ErrorAction::as_str));
        match outcome.action() {
            Some(ErrorAction::SessionReset { .. } | ErrorAction::AfiSafiDisable(_)) if rng.below(4) == 0 => {
                restart(&mut rib, &mut listeners, number);
            }
            Some(_) | None => {}
        }
        if round % 16 == 0 {
            settle(&mut rib);
            while rib.poll_fib().is_some() {}
            while rib.poll_event().is_some() {}
            let listener = &mut listeners[usize::from(number)];
            listener.listen(&transmitted(&mut rib, PeerId(number)));
        }
        if round % 500 == 0 {
            rib.check_invariants().unwrap();
        }
    }
    let expected = ["AfiSafiDisable", "AttributeDiscard", "SessionReset", "TreatAsWithdraw"];
    assert_eq!(answers, expected.into(), "every answer of RFC 7606 was given");
    assert!(clean > 3000, "{clean} UPDATEs without a fault: the others hide them");

    (0..PEERS).for_each(|number| restart(&mut rib, &mut listeners, number));
    let sane: IpNet = "172.20.0.0/16".parse().unwrap();
    let asn = Asn(65001);
    let body = announce(&[sane], IpAddr::from([192, 0, 2, 77]), &path(&[asn.0], true), &vec![]);
    assert!(rib.update(PeerId(0), &body).faults.is_empty());
    settle(&mut rib);
    rib.check_invariants().unwrap();
    let mut told = rib.adj_rib_out(PeerId(1), AfiSafi::Ipv4Unicast).into_iter();
    assert!(told.any(|route| route.prefix == sane));
    for (listener, number) in listeners.iter_mut().zip(0..) {
        listener.listen(&transmitted(&mut rib, PeerId(number)));
    }
}
