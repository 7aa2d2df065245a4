//! An established connection is cut exactly if its first packet would be refused by the table of now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use felix_calc::compile::Compiler;
use felix_calc::compile::sets::SetsCompiler;
use felix_calc::conntrack::{Entry, Transport, Tuple, denied};
use felix_calc::model::NodeState;
use felix_calc::packet::{Connection, Packet};
use felix_calc::simulate::simulate;
use felix_calc::verdict::Verdict;

use support::generate::{Random, Style, packet, state};
use support::states;

#[test]
fn cut_is_what_the_table_would_refuse() {
    let (mut cut, mut kept) = (0, 0);
    for seed in 0..states() / 2 {
        let mut random = Random::new(seed);
        let mut state = state(&mut random, Style::General);
        state.settings.service_prefixes.clear();
        let table = SetsCompiler::default().compile(&state).table;
        for _ in 0..40 {
            let Some(first) = first_packet(packet(&mut random, &state), &state) else { continue };
            let refused = simulate(&table, &first).unwrap().verdict != Verdict::Allow;
            let ends: BTreeSet<IpAddr> = [first.source, first.destination].into();
            let entries = [entry(&first)];
            assert_eq!(
                denied(&state, &ends, &entries).len() == 1,
                refused,
                "seed {seed}: {first:#?}\n{state:#?}"
            );
            *(if refused { &mut cut } else { &mut kept }) += 1;
        }
    }
    assert!(cut > 100 && kept > 100, "{cut} cut, {kept} kept: the test must see both");
}

/// The packet as the one that could have made an entry: it travels where its addresses say.
fn first_packet(mut packet: Packet, state: &NodeState) -> Option<Packet> {
    let holders = |address: IpAddr| state.endpoints.values().filter(move |e| e.addresses.contains(&address));
    let interface = |address: IpAddr| {
        let local = holders(address).find_map(|e| e.interface.clone());
        local.unwrap_or_else(|| "eth0".to_owned())
    };
    let borrows = |source: IpAddr| {
        let local = state.endpoints.values().filter(|endpoint| endpoint.is_local());
        local.filter(move |endpoint| endpoint.may_send_from(source) && !endpoint.addresses.contains(&source))
    };
    let receiver = holders(packet.destination).find_map(|e| e.interface.clone());
    // Whoever holds the source sent it; else a pod that may borrow it, unless that pod is the receiver.
    let borrowers: Vec<String> = borrows(packet.source)
        .filter(|_| holders(packet.source).count() == 0)
        .filter_map(|endpoint| endpoint.interface.clone())
        .filter(|borrower| receiver.as_ref() != Some(borrower))
        .collect();
    // An entry does not tell who of several it is from.
    let shared = [packet.source, packet.destination].iter().any(|address| holders(*address).count() > 1)
        || borrowers.len() > 1;
    if shared || packet.source == packet.destination || packet.header.is_none() {
        return None;
    }
    packet.input = borrowers.first().cloned().or_else(|| Some(interface(packet.source)));
    packet.output = Some(interface(packet.destination));
    packet.connection = Connection::New;
    packet.dnat = false;
    let policed = packet.input.as_deref() != Some("eth0") || packet.output.as_deref() != Some("eth0");
    let from_node = packet.source.is_loopback() || state.settings.node_addresses.contains(&packet.source);
    let to_node = state.settings.node_addresses.contains(&packet.destination);
    (policed && !from_node && !to_node).then_some(packet)
}

fn entry(first: &Packet) -> Entry {
    let [a, b, c, d] = first.header.unwrap();
    let (to, back) = match first.protocol {
        1 | 58 => {
            let message = Transport::Icmp { kind: a, code: b, identifier: 1 };
            (message, message)
        }
        47 => (Transport::Other, Transport::Other),
        _ => {
            let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let back = Transport::Ports { source: destination, destination: source };
            (Transport::Ports { source, destination }, back)
        }
    };
    let tuple =
        |source, destination, transport| Tuple { source, destination, protocol: first.protocol, transport };
    Entry {
        id: 1,
        zone: 0,
        original: tuple(first.source, first.destination, to),
        reply: tuple(first.destination, first.source, back),
        master: None,
    }
}
