//! Next-hop objects (linux/nexthop.h): next hops under a number, which routes name instead of having their own.
//!
//! ```text
//!   route ──► object: one next hop
//!   route ──► group ──► an object for each next hop, with its weight
//! ```
//! A route that names one is written in two thirds of the time, because its gateway is not looked up again; and where all routes
//! of an object go, as they do with a router that is dead, the object is removed and the kernel takes them along: 100,000 in
//! 0.03 s instead of 0.5 s. When a link goes down the kernel removes its objects and their routes without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::value::NextHop;
use crate::delta::Delta;
use crate::netlink::{Disagreement, Intent, NetlinkError, Refusal, RouteSocket};
use crate::wire::{self, Message};

// linux/rtnetlink.h, linux/nexthop.h
pub(crate) const RTM_NEWNEXTHOP: u16 = 104;
pub(crate) const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
/// Bytes of `struct nhmsg`.
const HEADER: usize = 8;
/// `nh_protocol` in it.
pub(crate) const PROTOCOL_AT: u32 = 2;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const RTNH_F_ONLINK: u32 = 4;
/// Bytes of `struct nexthop_grp`.
const MEMBER: usize = 8;

/// Numbers begin with the protocol's, so that people see whose an object is: 77000001.
const NUMBERS: u32 = 1_000_000;

/// What an object stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Definition {
    /// Its weight is 1.
    Hop(NextHop),
    /// Objects and their weights, ascending.
    Group(Vec<(u32, u16)>),
}

impl Definition {
    fn members(&self) -> impl Iterator<Item = u32> {
        let members = match self {
            Self::Hop(_) => &[][..],
            Self::Group(members) => members,
        };
        members.iter().map(|(member, _)| *member)
    }
}

/// The objects of one protocol number.
#[derive(Debug)]
pub(super) struct Objects {
    protocol: u8,
    delta: Delta<u32, Definition>,
    /// Of what is wanted.
    numbers: BTreeMap<Definition, u32>,
    /// Where the next free number is looked for.
    next: u32,
    /// Some may be used by no route any more.
    unswept: bool,
}

impl Objects {
    pub(super) fn new(protocol: u8) -> Self {
        let next = u32::from(protocol) * NUMBERS + 1;
        Self { protocol, delta: Delta::new(), numbers: BTreeMap::new(), next, unswept: false }
    }

    /// The object that stands for these next hops; none where one of them does not say all that an object must.
    pub(super) fn number(&mut self, next_hops: &[NextHop]) -> Option<u32> {
        if next_hops.iter().any(|hop| hop.gateway.is_none() || hop.ifindex.is_none()) {
            return None;
        }
        let alone = |hop: &NextHop| Definition::Hop(NextHop { weight: 1, ..*hop });
        if let [hop] = next_hops {
            return Some(self.enter(alone(hop)));
        }
        let mut members: Vec<_> = next_hops.iter().map(|hop| (self.enter(alone(hop)), hop.weight)).collect();
        members.sort_unstable();
        Some(self.enter(Definition::Group(members)))
    }

    fn enter(&mut self, definition: Definition) -> u32 {
        if let Some(known) = self.numbers.get(&definition) {
            return *known;
        }
        let is_taken =
            |number: u32| self.delta.desired(&number).is_some() || self.delta.actual(&number).is_some();
        while is_taken(self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.numbers.insert(definition.clone(), number);
        self.delta.set(number, Some(definition));
        number
    }

    /// The next hops that an object of ours stands for.
    pub(super) fn next_hops(&self, number: u32) -> Option<Vec<NextHop>> {
        match self.delta.desired(&number)? {
            Definition::Hop(hop) => Some(vec![*hop]),
            Definition::Group(members) => {
                let hop = |(member, weight): &(u32, u16)| match self.delta.desired(member)? {
                    Definition::Hop(hop) => Some(NextHop { weight: *weight, ..*hop }),
                    Definition::Group(_) => None,
                };
                members.iter().map(hop).collect()
            }
        }
    }

    /// Reads ours from the kernel. What is found beside what is wanted is wanted from now on, until [`Self::sweep`]: routes of
    /// an earlier life may go by it.
    ///
    /// # Errors
    /// The dump failed; nothing changed.
    pub(super) fn read(&mut self, socket: &RouteSocket) -> Result<(), NetlinkError> {
        let found = self.list(socket)?;
        let news: Vec<_> =
            found.iter().filter(|(number, _)| self.delta.desired(number).is_none()).cloned().collect();
        self.delta.resync(found);
        for (number, definition) in news {
            self.numbers.entry(definition.clone()).or_insert(number);
            self.delta.set(number, Some(definition));
        }
        self.unswept = true;
        Ok(())
    }

    fn list(&self, socket: &RouteSocket) -> Result<Vec<(u32, Definition)>, NetlinkError> {
        let mut request = Message::new(RTM_GETNEXTHOP, 0);
        request.put(&[0; HEADER]);
        socket.dump("list next-hop objects", &request, |kind, body| {
            let is_ours = body.get(PROTOCOL_AT as usize) == Some(&self.protocol);
            if kind == RTM_NEWNEXTHOP && is_ours { parse(body) } else { None }
        })
    }

    pub(super) fn is_pending(&self) -> bool {
        self.delta.pending() > 0
    }

    /// Those that groups of these go by: they stay for as long as the group does.
    pub(super) fn members<'a>(
        &'a self,
        groups: impl Iterator<Item = u32> + 'a,
    ) -> impl Iterator<Item = u32> + 'a {
        groups.filter_map(|group| self.delta.desired(&group)).flat_map(Definition::members)
    }

    /// Whether the kernel holds it, and otherwise than it should be.
    pub(super) fn is_outdated(&self, number: u32) -> bool {
        self.delta.is_pending(&number) && self.delta.actual(&number).is_some()
    }

    /// Writes what is missing of these and of their members. Those that the kernel refuses come back.
    ///
    /// # Errors
    /// The socket failed: which of them are there is unknown.
    pub(super) fn write(
        &mut self,
        socket: &RouteSocket,
        wanted: &BTreeSet<u32>,
    ) -> Result<BTreeMap<u32, Refusal>, NetlinkError> {
        let members: BTreeSet<u32> = self.members(wanted.iter().copied()).collect();
        let lone =
            wanted.iter().filter(|number| matches!(self.delta.desired(number), Some(Definition::Hop(_))));
        let lone = members.iter().chain(lone).copied().collect();
        let mut refused = self.write_all(socket, lone)?;
        let mut groups = BTreeSet::new();
        for group in wanted {
            let Some(definition @ Definition::Group(_)) = self.delta.desired(group) else { continue };
            match definition.members().find_map(|member| refused.get(&member)) {
                Some(refusal) => drop(refused.insert(*group, refusal.clone())),
                None => drop(groups.insert(*group)),
            }
        }
        refused.append(&mut self.write_all(socket, groups)?);
        Ok(refused)
    }

    fn write_all(
        &mut self,
        socket: &RouteSocket,
        numbers: BTreeSet<u32>,
    ) -> Result<BTreeMap<u32, Refusal>, NetlinkError> {
        let due = numbers.into_iter().filter(|number| self.delta.is_pending(number));
        let message = |number: u32| {
            let how = if self.delta.actual(&number).is_some() { NLM_F_REPLACE } else { NLM_F_EXCL };
            Some((number, encode(number, self.delta.desired(&number)?, self.protocol, NLM_F_CREATE | how)))
        };
        let (numbers, messages): (Vec<_>, Vec<_>) = due.filter_map(message).unzip();
        let outcomes = socket.batch("write next-hop objects", messages).inspect_err(|_| {
            numbers.iter().for_each(|number| self.delta.doubt(*number));
        })?;
        let mut refused = BTreeMap::new();
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            match outcome {
                None => self.delta.confirm_desired(number),
                Some(refusal) => drop(refused.insert(number, refusal)),
            }
        }
        Ok(refused)
    }

    /// Removes one, and with it every route that goes by it.
    ///
    /// # Errors
    /// The socket failed, or the kernel refused.
    pub(super) fn remove(&mut self, socket: &RouteSocket, number: u32) -> Result<(), NetlinkError> {
        socket.ensure("remove a next-hop object", Intent::Delete, gone(number))?;
        self.forget(number);
        self.delta.confirm(number, None);
        self.unswept = true;
        Ok(())
    }

    fn forget(&mut self, number: u32) {
        let definition = self.delta.desired(&number).cloned();
        if let Some(definition) =
            definition.filter(|definition| self.numbers.get(definition) == Some(&number))
        {
            self.numbers.remove(&definition);
        }
        self.delta.set(number, None);
    }

    /// Removes those that neither a route of these nor a group goes by, where there may be any.
    ///
    /// # Errors
    /// The socket failed.
    pub(super) fn sweep(
        &mut self,
        socket: &RouteSocket,
        used: impl FnOnce() -> BTreeSet<u32>,
    ) -> Result<(), NetlinkError> {
        if !std::mem::take(&mut self.unswept) {
            return Ok(());
        }
        let mut used = used();
        let members: Vec<u32> = self.members(used.iter().copied()).collect();
        used.extend(members);
        let unused =
            self.delta.all_desired().map(|(number, _)| *number).filter(|number| !used.contains(number));
        unused.collect::<Vec<_>>().into_iter().for_each(|number| self.forget(number));
        // Groups before their members: a group that has none goes by itself.
        let mut going: Vec<u32> = self.delta.deletions().copied().collect();
        going.sort_by_key(|number| matches!(self.delta.actual(number), Some(Definition::Hop(_))));
        let outcomes = socket.batch("remove next-hop objects", going.iter().copied().map(gone).collect())?;
        for (number, outcome) in going.into_iter().zip(outcomes) {
            match outcome.map(|refusal| (refusal.disagreement(Intent::Delete), refusal)) {
                None | Some((Disagreement::AlreadySo, _)) => self.delta.confirm(number, None),
                // Tried again with the next sweep.
                Some((_, refusal)) => tracing::debug!(number, %refusal, "a next-hop object stays"),
            }
        }
        Ok(())
    }
}

/// Removes the objects of `protocol`, and with them every route that goes by them. How many.
///
/// # Errors
/// The kernel refused.
pub fn delete_objects(socket: &RouteSocket, protocol: u8) -> Result<usize, NetlinkError> {
    let mut objects = Objects::new(protocol);
    match objects.read(socket) {
        Ok(()) => {}
        Err(error) if is_unsupported(&error) => return Ok(0),
        Err(error) => return Err(error),
    }
    let found = objects.delta.counts().desired;
    objects.sweep(socket, BTreeSet::new)?;
    Ok(found)
}

/// A kernel before 5.3 has none.
pub(super) fn is_unsupported(error: &NetlinkError) -> bool {
    matches!(error, NetlinkError::Refused { refusal, .. } if refusal.errno == libc::EOPNOTSUPP)
}

fn message(kind: u16, flags: u16, family: u8, protocol: u8, hop_flags: u32) -> Message {
    let mut message = Message::new(kind, flags);
    let [a, b, c, d] = hop_flags.to_ne_bytes();
    message.put(&[family, 0, protocol, 0, a, b, c, d]);
    message
}

fn encode(number: u32, definition: &Definition, protocol: u8, flags: u16) -> Message {
    match definition {
        Definition::Hop(hop) => {
            let family = hop.gateway.map_or(0, wire::family_of);
            let hop_flags = if hop.onlink { RTNH_F_ONLINK } else { 0 };
            let mut message = message(RTM_NEWNEXTHOP, flags, family, protocol, hop_flags);
            message.attribute_u32(NHA_ID, number);
            if let Some(gateway) = hop.gateway {
                message.attribute(NHA_GATEWAY, &wire::octets(gateway));
            }
            if let Some(ifindex) = hop.ifindex {
                message.attribute_u32(NHA_OIF, ifindex);
            }
            message
        }
        Definition::Group(members) => {
            let mut message = message(RTM_NEWNEXTHOP, flags, 0, protocol, 0);
            message.attribute_u32(NHA_ID, number);
            let mut octets = Vec::with_capacity(members.len() * MEMBER);
            for (member, weight) in members {
                octets.extend_from_slice(&member.to_ne_bytes());
                // The kernel counts weights from 0.
                octets.push(u8::try_from(weight.saturating_sub(1)).unwrap_or(u8::MAX));
                octets.extend_from_slice(&[0; 3]);
            }
            message.attribute(NHA_GROUP, &octets);
            message
        }
    }
}

fn gone(number: u32) -> Message {
    let mut message = message(RTM_DELNEXTHOP, 0, 0, 0, 0);
    message.attribute_u32(NHA_ID, number);
    message
}

/// Reads the body of RTM_NEWNEXTHOP; none: it is of a kind that we do not write.
fn parse(body: &[u8]) -> Option<(u32, Definition)> {
    let hop_flags = wire::u32_at(body, 4)?;
    let (mut number, mut group) = (None, None);
    let mut hop = NextHop { gateway: None, ifindex: None, weight: 1, onlink: hop_flags & RTNH_F_ONLINK != 0 };
    for (kind, value) in wire::attributes(body.get(HEADER..)?) {
        match kind {
            NHA_ID => number = wire::u32_at(value, 0),
            NHA_OIF => hop.ifindex = wire::u32_at(value, 0),
            NHA_GATEWAY => hop.gateway = address(value),
            NHA_GROUP => group = Some(members(value)),
            _ => {}
        }
    }
    let definition = match group {
        Some(members) => Definition::Group(members),
        None => Definition::Hop(hop),
    };
    Some((number?, definition))
}

fn members(value: &[u8]) -> Vec<(u32, u16)> {
    let member = |octets: &[u8]| Some((wire::u32_at(octets, 0)?, u16::from(*octets.get(4)?) + 1));
    let mut members: Vec<_> = value.chunks_exact(MEMBER).filter_map(member).collect();
    members.sort_unstable();
    members
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}
