//! The other side of a rule: what the packet says of itself.

use std::collections::BTreeSet;

use super::builder::Builder;
use super::peers::{join, one_range};
use crate::model::{Direction, ICMP, ICMPV6, Icmp, NamedPort, PORT_PROTOCOLS, PortRange, Traffic};
use crate::table::{Field, KeyType, Statement, Value};

/// One way to satisfy a [`Traffic`]; the ways of one are disjoint, but for the number and the name of a
/// port, which may mean the same.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) conditions: Vec<Statement>,
    /// Egress by port name: address, protocol and number are looked up together in the peer's set.
    pub(super) port_names: Option<BTreeSet<String>>,
}

pub(super) fn ways(
    builder: &mut Builder<'_>,
    traffic: &Traffic,
    direction: Direction,
    own: &BTreeSet<NamedPort>,
) -> Vec<Way> {
    let Traffic { protocol, not_protocol, ports, port_names, not_ports, source_ports, icmp, not_icmp } =
        traffic;
    let by_port =
        !(ports.is_empty() && port_names.is_empty() && not_ports.is_empty() && source_ports.is_empty());
    let by_icmp = icmp.is_some() || not_icmp.is_some();
    let possible =
        |number: &u8| protocol.is_none_or(|p| p == *number) && not_protocol.is_none_or(|p| p != *number);
    match (by_port, by_icmp) {
        (true, true) => Vec::new(),
        (true, false) => PORT_PROTOCOLS
            .into_iter()
            .filter(possible)
            .flat_map(|number| port_ways(builder, traffic, number, direction, own))
            .collect(),
        (false, true) => [ICMP, ICMPV6]
            .into_iter()
            .filter(possible)
            .flat_map(|number| icmp_ways(icmp.as_ref(), not_icmp.as_ref(), number))
            .collect(),
        (false, false) => {
            let is = protocol.map(|number| protocol_match(number, false));
            let is_not = not_protocol.map(|number| protocol_match(number, true));
            vec![Way { conditions: is.into_iter().chain(is_not).collect(), port_names: None }]
        }
    }
}

/// `th dport` reads two bytes of any protocol, so every port condition stands behind its protocol.
fn port_ways(
    builder: &mut Builder<'_>,
    traffic: &Traffic,
    number: u8,
    direction: Direction,
    own: &BTreeSet<NamedPort>,
) -> Vec<Way> {
    let mut common = vec![protocol_match(number, false)];
    if !traffic.source_ports.is_empty() {
        common.push(in_ports(builder, Field::SourcePort, &traffic.source_ports, false));
    }
    if !traffic.not_ports.is_empty() {
        common.push(in_ports(builder, Field::DestinationPort, &traffic.not_ports, true));
    }
    if traffic.ports.is_empty() && traffic.port_names.is_empty() {
        return vec![Way { conditions: common, port_names: None }];
    }
    let mut numbers = traffic.ports.clone();
    if direction == Direction::Ingress {
        let named =
            own.iter().filter(|port| port.protocol == number && traffic.port_names.contains(&port.name));
        numbers.extend(named.map(|port| PortRange::single(port.number)));
    }
    let mut ways = Vec::new();
    if !numbers.is_empty() {
        let mut conditions = common.clone();
        conditions.push(in_ports(builder, Field::DestinationPort, &numbers, false));
        ways.push(Way { conditions, port_names: None });
    }
    if direction == Direction::Egress && !traffic.port_names.is_empty() {
        ways.push(Way { conditions: common, port_names: Some(traffic.port_names.clone()) });
    }
    ways
}

fn in_ports(builder: &mut Builder<'_>, field: Field, ranges: &[PortRange], negated: bool) -> Statement {
    let ranges =
        join(ranges.iter().map(|range| (range.first, range.last)).collect(), |last| last.checked_add(1));
    let ranges: Vec<_> =
        ranges.into_iter().map(|(first, last)| (Value::Port(first), Value::Port(last))).collect();
    match ranges.as_slice() {
        [(first, last)] => one_range(field, first, last, negated),
        _ => {
            let set = builder.ranges("port", KeyType::Port, &ranges);
            Statement::InSet { fields: vec![field], negated, set }
        }
    }
}

fn icmp_ways(icmp: Option<&Icmp>, not_icmp: Option<&Icmp>, number: u8) -> Vec<Way> {
    let (kind, code) = match number {
        ICMP => (Field::IcmpType, Field::IcmpCode),
        _ => (Field::Icmpv6Type, Field::Icmpv6Code),
    };
    let is =
        |field: Field, value: u8| Statement::Match { field, negated: false, value: Value::Protocol(value) };
    let is_not =
        |field: Field, value: u8| Statement::Match { field, negated: true, value: Value::Protocol(value) };
    let mut common = vec![protocol_match(number, false)];
    if let Some(wanted) = icmp {
        common.push(is(kind, wanted.kind));
        common.extend(wanted.code.map(|value| is(code, value)));
    }
    let mut alternatives: Vec<Vec<Statement>> = vec![Vec::new()];
    if let Some(other) = not_icmp {
        // Another type; or this type with another code.
        alternatives = vec![vec![is_not(kind, other.kind)]];
        alternatives.extend(other.code.map(|value| vec![is(kind, other.kind), is_not(code, value)]));
    }
    alternatives
        .into_iter()
        .map(|alternative| Way { conditions: [common.clone(), alternative].concat(), port_names: None })
        .collect()
}

fn protocol_match(number: u8, negated: bool) -> Statement {
    Statement::Match { field: Field::Protocol, negated, value: Value::Protocol(number) }
}
