//! The first compiler: rules in order, one set per peer, endpoints found by map (policy-compiler.md §7).
//!
//! ```text
//! fwd-e   forward, filter-1   spoofed? connected? loop? not a pod? invalid?  iifname vmap @disp-e
//! fwd-i   forward, filter     connected? not a pod? unknown? invalid?        oifname vmap @disp-i
//! in-e    input,   filter-1   not a pod? ND; spoofed? connected? invalid?    iifname vmap @disp-e
//! in-host input,   filter     not a pod? ND; bgpd's ports; connected?        may pods reach the node?
//! srcnat  postrouting, srcnat to a node or a pool? from a pool that masquerades; absent without one
//!
//! p-<hash>-e        itself? ; jump each tier ; accept            one endpoint's policies of one direction
//! p-<hash>-e-t0     family, protocol, ports, peer: counter accept | goto deny-<hash> | log | return
//! deny-<hash>       counter ; limited log ; drop or reject
//! ```
//! Accept ends its own base chain only, which is why both directions have one each. Every chain but the
//! base chains is named by its content and never edited: a changed policy is a new chain, and the switch
//! is an element of a dispatch map. Sets of members keep their name and change by element.

mod base;
mod builder;
mod nat;
mod peers;
mod profile;
mod traffic;

use std::collections::BTreeMap;
use std::net::IpAddr;

use self::builder::Builder;
use self::profile::{Fragment, Profile};
use super::{Compiled, Compiler, Dirty, SetSource};
use crate::model::NodeState;
use crate::plan::{SetDelta, TableDelta, diff};
use crate::resolve::{Member, Resolution};
use crate::table::{Data, Element, Family, Set, Value};

pub use self::base::{FORWARD_EGRESS, FORWARD_INGRESS, INPUT_EGRESS, INPUT_HOST};
pub use self::nat::SOURCE_NAT;

#[derive(Debug, Default)]
pub struct SetsCompiler {
    /// What the last refresh made of each profile; never a different answer, only a faster one.
    kept: BTreeMap<Profile, Fragment>,
}

impl Compiler for SetsCompiler {
    fn compile(&self, state: &NodeState) -> Compiled {
        let resolution = Resolution::of(state);
        let mut compiled = structure(state, &resolution, &mut BTreeMap::new());
        for (name, source) in &compiled.members {
            if let Some(set) = compiled.table.sets.get_mut(name) {
                set.elements = elements(source, resolution.membership.of(&source.members));
            }
        }
        compiled
    }

    fn refresh(
        &mut self,
        compiled: &mut Compiled,
        state: &NodeState,
        resolution: &Resolution,
        dirty: &Dirty,
    ) -> TableDelta {
        let mut delta = TableDelta { sets: apply_members(compiled, dirty), ..TableDelta::default() };
        if dirty.structure {
            self.kept.retain(|profile, _| !dirty.node_wide && !profile.reads(&dirty.policies));
            let mut next = structure(state, resolution, &mut self.kept);
            let mut kept = take_member_sets(compiled);
            let mut named = take_member_sets(&mut next);
            let structural = diff(&compiled.table, &next.table);
            delta.chains = structural.chains;
            delta.reshaped = structural.reshaped;
            delta.sets.extend(structural.sets);
            for (name, set) in &mut named {
                match (kept.remove(name), next.members.get(name)) {
                    (Some(before), _) => set.elements = before.elements,
                    (None, Some(source)) => {
                        set.elements = elements(source, resolution.membership.of(&source.members));
                        delta.sets.insert(name.clone(), SetDelta::Added(set.clone()));
                    }
                    (None, None) => {}
                }
            }
            delta.sets.extend(kept.into_keys().map(|name| (name, SetDelta::Removed)));
            next.table.sets.append(&mut named);
            *compiled = next;
        }
        delta
    }
}

/// Everything but the elements of member sets: its cost follows this node's endpoints and their rules.
fn structure(state: &NodeState, resolution: &Resolution, kept: &mut BTreeMap<Profile, Fragment>) -> Compiled {
    let mut builder = Builder::new(state);
    base::build(&mut builder, state, &resolution.applied);
    nat::build(&mut builder, state);
    profile::build(&mut builder, state, &resolution.applied, kept);
    builder.finish()
}

type Elements = BTreeMap<Element, Option<Data>>;

/// Brings the member sets up to date in place.
fn apply_members(compiled: &mut Compiled, dirty: &Dirty) -> BTreeMap<String, SetDelta> {
    let mut changes = BTreeMap::new();
    if dirty.members.is_empty() {
        return changes;
    }
    for (name, source) in &compiled.members {
        let Some(change) = dirty.members.get(&source.members) else { continue };
        let Some(set) = compiled.table.sets.get_mut(name) else { continue };
        let added = elements(source, change.added.iter().copied());
        let removed = elements(source, change.removed.iter().copied());
        if added.is_empty() && removed.is_empty() {
            continue;
        }
        for element in removed.keys() {
            set.elements.remove(element);
        }
        set.elements.extend(added.clone());
        changes.insert(name.clone(), SetDelta::Changed { added, removed });
    }
    changes
}

fn take_member_sets(compiled: &mut Compiled) -> BTreeMap<String, Set> {
    let sets = &mut compiled.table.sets;
    compiled.members.keys().filter_map(|name| Some((name.clone(), sets.remove(name)?))).collect()
}

/// Those members that a set of this source holds, as its elements.
fn elements(source: &SetSource, members: impl Iterator<Item = Member>) -> Elements {
    let of_family = members.filter(|member| match (source.family, member.address) {
        (Family::Ipv4, IpAddr::V4(_)) | (Family::Ipv6, IpAddr::V6(_)) => true,
        (Family::Ipv4, IpAddr::V6(_)) | (Family::Ipv6, IpAddr::V4(_)) => false,
    });
    of_family
        .map(|Member { address, port }| {
            let mut key = vec![address_value(address)];
            if let Some((protocol, number)) = port {
                key.extend([Value::Protocol(protocol), Value::Port(number)]);
            }
            (Element::Exact(key), None)
        })
        .collect()
}

fn address_value(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => Value::Ipv4(address),
        IpAddr::V6(address) => Value::Ipv6(address),
    }
}
