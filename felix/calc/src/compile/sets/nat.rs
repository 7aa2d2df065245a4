//! `natOutgoing`: the one base chain that translates, absent where no pool asks for it.
//!
//! The kernel asks it for the first packet of a connection only, and asks the next table's chain if it decides nothing:
//! so it ends in silence for everything that is not ours, and kube-proxy's chains decide beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::address_value;
use super::base::base_chain;
use super::builder::{Builder, address_key, commented, rule};
use super::peers::merged;
use crate::model::NodeState;
use crate::nat::OutgoingNat;
use crate::table::{Element, Family, Field, Hook, Rule, Statement, Verdict};

pub const SOURCE_NAT: &str = "srcnat";
/// Where the kernel's users translate sources; the chain's type follows from hook and priority.
const PRIORITY_SOURCE_NAT: i32 = 100;

pub(super) fn build(builder: &mut Builder<'_>, state: &NodeState) {
    let mut rules = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        rules.extend(of_family(builder, &state.nat, family));
    }
    if !rules.is_empty() {
        base_chain(builder, SOURCE_NAT, Hook::Postrouting, PRIORITY_SOURCE_NAT, rules);
    }
}

fn of_family(builder: &mut Builder<'_>, nat: &OutgoingNat, family: Family) -> Vec<Rule> {
    let (source, destination, nodes) = match family {
        Family::Ipv4 => (Field::SourceV4, Field::DestinationV4, "nodes4"),
        Family::Ipv6 => (Field::SourceV6, Field::DestinationV6, "nodes6"),
    };
    let key = address_key(family);
    // Pools that exclude the same are one set.
    let mut groups: BTreeMap<&BTreeSet<IpNet>, Vec<&IpNet>> = BTreeMap::new();
    for (pool, excluded) in nat.masquerade.iter().filter(|(pool, _)| is_of(pool.addr(), family)) {
        groups.entry(excluded).or_default().push(pool);
    }
    if groups.is_empty() {
        return Vec::new();
    }
    let within = |field, negated, set| Statement::InSet { fields: vec![field], negated, set };
    let inside = |set| {
        rule(vec![
            Statement::Family(family),
            within(destination, false, set),
            Statement::Verdict(Verdict::Accept),
        ])
    };
    // Nodes come and go one by one: elements of a set that keeps its name.
    let addresses = nat.nodes.iter().filter(|address| is_of(**address, family));
    let elements = addresses.map(|address| (Element::Exact(vec![address_value(*address)]), None)).collect();
    builder.fixed_set(nodes, &[key], None, elements);
    let mut rules = vec![inside(nodes.to_owned())];
    let pools = merged(nat.pools.iter(), family);
    if !pools.is_empty() {
        rules.push(inside(builder.ranges("pools", key, &pools)));
    }
    for (excluded, pools) in groups {
        let hidden = builder.ranges("masq", key, &merged(pools.into_iter(), family));
        let mut statements = vec![Statement::Family(family), within(source, false, hidden)];
        let seen = merged(excluded.iter(), family);
        if !seen.is_empty() {
            statements.push(within(destination, true, builder.ranges("nomasq", key, &seen)));
        }
        statements.push(Statement::Masquerade);
        rules.push(commented(statements, "natOutgoing"));
    }
    rules
}

fn is_of(address: IpAddr, family: Family) -> bool {
    match family {
        Family::Ipv4 => address.is_ipv4(),
        Family::Ipv6 => address.is_ipv6(),
    }
}
