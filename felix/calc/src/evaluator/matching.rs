//! One rule against one packet.

use std::net::IpAddr;

use super::Evaluator;
use crate::model::{
    Direction, Endpoint, ICMP, ICMPV6, Icmp, NamedPort, Namespaces, NodeState, PORT_PROTOCOLS, Peer,
    PortRange, Rule, Selection, Traffic,
};
use crate::packet::Packet;

pub(super) fn selects(state: &NodeState, selection: &Selection, endpoint: &Endpoint) -> bool {
    let namespace = match &selection.namespaces {
        Namespaces::All => true,
        Namespaces::One(name) => *name == endpoint.namespace,
        Namespaces::Matching(selector) => match state.namespaces.get(&endpoint.namespace) {
            Some(labels) => selector.matches(labels),
            None => selector.matches(&std::collections::BTreeMap::new()),
        },
    };
    namespace && selection.selector.matches(&endpoint.labels)
}

/// `own` is the endpoint to which the rule applies.
pub(super) fn rule(
    evaluator: &Evaluator<'_>,
    rule: &Rule,
    own: &Endpoint,
    direction: Direction,
    packet: &Packet,
) -> bool {
    if rule.family.is_some_and(|family| family != packet.family()) {
        return false;
    }
    let everybody = [Peer::default()];
    let everything = [Traffic::default()];
    let peers = if rule.peers.is_empty() { &everybody[..] } else { &rule.peers };
    let traffics = if rule.traffic.is_empty() { &everything[..] } else { &rule.traffic };
    let address = match direction {
        Direction::Egress => packet.destination,
        Direction::Ingress => packet.source,
    };
    peers.iter().filter(|one| peer(evaluator, one, address)).any(|peer| {
        let named = receiver_ports(evaluator, peer, own, direction, address);
        traffics.iter().any(|one| traffic(one, &named, packet))
    })
}

fn peer(evaluator: &Evaluator<'_>, peer: &Peer, address: IpAddr) -> bool {
    let held = |selection: &Selection| {
        evaluator.at(address).iter().any(|endpoint| evaluator.selects(selection, endpoint))
    };
    peer.selection.as_ref().is_none_or(held)
        && !peer.not_selection.as_ref().is_some_and(held)
        && (peer.nets.is_empty() || peer.nets.iter().any(|net| net.contains(&address)))
        && !peer.not_nets.iter().any(|net| net.contains(&address))
}

/// The named ports of whoever receives the packet.
fn receiver_ports<'a>(
    evaluator: &Evaluator<'a>,
    peer: &Peer,
    own: &'a Endpoint,
    direction: Direction,
    address: IpAddr,
) -> Vec<&'a NamedPort> {
    match direction {
        Direction::Ingress => own.ports.iter().collect(),
        Direction::Egress => evaluator
            .at(address)
            .iter()
            .filter(|endpoint| peer.selection.as_ref().is_none_or(|s| evaluator.selects(s, endpoint)))
            .flat_map(|endpoint| &endpoint.ports)
            .collect(),
    }
}

fn traffic(traffic: &Traffic, named: &[&NamedPort], packet: &Packet) -> bool {
    let Traffic { protocol, not_protocol, ports, port_names, not_ports, source_ports, icmp, not_icmp } =
        traffic;
    let header = packet.header.is_some();
    let carries_ports = header && PORT_PROTOCOLS.contains(&packet.protocol);
    let carries_icmp = header && (packet.protocol == ICMP || packet.protocol == ICMPV6);
    let within = |ranges: &[PortRange], port: Option<u16>| {
        port.is_some_and(|port| ranges.iter().any(|r| r.contains(port)))
    };
    let by_name = named.iter().any(|port| {
        port_names.contains(&port.name)
            && port.protocol == packet.protocol
            && Some(port.number) == packet.destination_port()
    });
    let message = |wanted: &Icmp| {
        packet.icmp_kind() == Some(wanted.kind)
            && wanted.code.is_none_or(|code| packet.icmp_code() == Some(code))
    };
    protocol.is_none_or(|wanted| wanted == packet.protocol)
        && not_protocol.is_none_or(|other| other != packet.protocol)
        && (ports.is_empty() && port_names.is_empty()
            || carries_ports && (within(ports, packet.destination_port()) || by_name))
        && (not_ports.is_empty() || carries_ports && !within(not_ports, packet.destination_port()))
        && (source_ports.is_empty() || carries_ports && within(source_ports, packet.source_port()))
        && icmp.as_ref().is_none_or(|wanted| carries_icmp && message(wanted))
        && not_icmp.as_ref().is_none_or(|other| carries_icmp && !message(other))
}
