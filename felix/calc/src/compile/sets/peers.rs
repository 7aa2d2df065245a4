//! The peer side of a rule: addresses.

use ipnet::IpNet;

use super::builder::{Builder, address_key};
use crate::model::{Direction, Peer, Selection};
use crate::resolve::Members;
use crate::table::{Family, Field, Statement, Value};

/// A peer's conditions for one family; `None`: no address of that family fits.
pub(super) fn conditions(
    builder: &mut Builder<'_>,
    peer: &Peer,
    direction: Direction,
    family: Family,
    without_selection: bool,
) -> Option<Vec<Statement>> {
    let field = address_field(direction, family);
    let mut conditions = Vec::new();
    if !peer.nets.is_empty() {
        let ranges = merged(peer.nets.iter(), family);
        if ranges.is_empty() {
            return None;
        }
        conditions.extend(in_ranges(builder, field, family, ranges, false));
    }
    let ranges = merged(peer.not_nets.iter(), family);
    if !ranges.is_empty() {
        conditions.extend(in_ranges(builder, field, family, ranges, true));
    }
    let mut selected = |selection: &Selection, negated: bool| {
        let members = Members { selection: Some(selection.clone()), port_names: None };
        let set = builder.members(members, family);
        conditions.push(Statement::InSet { fields: vec![field], negated, set });
    };
    if let Some(selection) = peer.selection.as_ref().filter(|_| !without_selection) {
        selected(selection, false);
    }
    if let Some(selection) = &peer.not_selection {
        selected(selection, true);
    }
    Some(conditions)
}

/// Where the peer's address stands in a packet of this direction.
pub(super) fn address_field(direction: Direction, family: Family) -> Field {
    match (direction, family) {
        (Direction::Egress, Family::Ipv4) => Field::DestinationV4,
        (Direction::Egress, Family::Ipv6) => Field::DestinationV6,
        (Direction::Ingress, Family::Ipv4) => Field::SourceV4,
        (Direction::Ingress, Family::Ipv6) => Field::SourceV6,
    }
}

/// Disjoint ranges of one family, in order, neighbours joined: the kernel refuses overlaps.
pub(super) fn merged<'a>(nets: impl Iterator<Item = &'a IpNet>, family: Family) -> Vec<(Value, Value)> {
    match family {
        Family::Ipv4 => {
            let nets = nets.filter_map(|net| match net {
                IpNet::V4(net) => Some((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(_) => None,
            });
            let value = |address: u32| Value::Ipv4(address.into());
            join(nets.collect(), |last| last.checked_add(1))
                .into_iter()
                .map(|(first, last)| (value(first), value(last)))
                .collect()
        }
        Family::Ipv6 => {
            let nets = nets.filter_map(|net| match net {
                IpNet::V6(net) => Some((u128::from(net.network()), u128::from(net.broadcast()))),
                IpNet::V4(_) => None,
            });
            let value = |address: u128| Value::Ipv6(address.into());
            join(nets.collect(), |last| last.checked_add(1))
                .into_iter()
                .map(|(first, last)| (value(first), value(last)))
                .collect()
        }
    }
}

/// Sorts ranges and joins those that overlap or touch. `next` is absent behind the greatest value.
pub(super) fn join<T: Copy + Ord>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(open) if next(open.1).is_none_or(|next| first <= next) => open.1 = open.1.max(last),
            Some(_) | None => joined.push((first, last)),
        }
    }
    joined
}

fn in_ranges(
    builder: &mut Builder<'_>,
    field: Field,
    family: Family,
    ranges: Vec<(Value, Value)>,
    negated: bool,
) -> Option<Statement> {
    let kind = match family {
        Family::Ipv4 => "net4",
        Family::Ipv6 => "net6",
    };
    let whole = match family {
        Family::Ipv4 => (Value::Ipv4([0; 4].into()), Value::Ipv4([255; 4].into())),
        Family::Ipv6 => (Value::Ipv6([0; 16].into()), Value::Ipv6([255; 16].into())),
    };
    match ranges.as_slice() {
        // Every address of the family, which is matched already.
        [all] if *all == whole && !negated => None,
        [(first, last)] => Some(one_range(field, first, last, negated)),
        _ => {
            let set = builder.ranges(kind, address_key(family), &ranges);
            Some(Statement::InSet { fields: vec![field], negated, set })
        }
    }
}

/// One range needs no set.
pub(super) fn one_range(field: Field, first: &Value, last: &Value, negated: bool) -> Statement {
    if first == last {
        Statement::Match { field, negated, value: first.clone() }
    } else {
        Statement::InRange { field, negated, first: first.clone(), last: last.clone() }
    }
}
