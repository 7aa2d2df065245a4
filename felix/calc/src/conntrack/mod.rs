//! Which established connections a change denies (policy-compiler.md §9).
//!
//! Established packets leave the table early, so a denial reaches them only through connection tracking:
//! after a change the entries of the addresses concerned are judged by the policy of now, as the first
//! packet of their original direction would be, and those that it denies are to be deleted. No entry that
//! is still allowed may go: the next packet might be a reply, which would then be new in the wrong
//! direction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::evaluator::{Applicable, Evaluator};
use crate::model::{Direction, Endpoint, EndpointId, NodeState};
use crate::packet::{Connection, Packet, ports};
use crate::verdict::Verdict;

/// Stands for any interface that is not a pod's.
const ELSEWHERE: &str = "elsewhere";

/// One entry, as the kernel tells it. To delete exactly this one: original tuple, zone and id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub id: u32,
    pub zone: u16,
    /// As the first packet came in, before any translation.
    pub original: Tuple,
    /// What an answer looks like when it comes in: its source is the receiver behind DNAT.
    pub reply: Tuple,
    /// Original tuple of the connection that made the kernel expect this one (FTP and such).
    pub master: Option<Tuple>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub transport: Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Transport {
    Ports { source: u16, destination: u16 },
    Icmp { kind: u8, code: u8, identifier: u16 },
    Other,
}

/// The entries that `state` denies, among those with an address in `recheck` at either end.
///
/// Judged is the side that is local: egress of a sender here, then ingress of a receiver here, or what
/// the node lets pods reach. A connection that the node itself opened is never policed and never cut.
/// Cost: the entries of `recheck`, and one look at every endpoint.
pub fn denied(state: &NodeState, recheck: &BTreeSet<IpAddr>, entries: &[Entry]) -> Vec<Entry> {
    let masters: BTreeMap<&Tuple, &Entry> = entries.iter().map(|entry| (&entry.original, entry)).collect();
    let borrowers: Vec<&Endpoint> = borrowers(state).collect();
    // What they send under other addresses is theirs, too.
    let borrowed: BTreeSet<&IpNet> = borrowers
        .iter()
        .filter(|borrower| !borrower.addresses.is_disjoint(recheck))
        .flat_map(|borrower| &borrower.sources)
        .collect();
    let mut judge = Judge { state, evaluator: Evaluator::new(state), borrowers, applicable: BTreeMap::new() };
    entries
        .iter()
        .filter(|entry| {
            // A related connection stands and falls with its master. A master that is gone says nothing.
            let judged = match &entry.master {
                None => Some(*entry),
                Some(master) => masters.get(master).copied(),
            };
            judged.is_some_and(|judged| {
                let ends = [judged.original.source, judged.reply.source];
                let concerned = ends.iter().any(|end| recheck.contains(end))
                    || borrowed.iter().any(|prefix| prefix.contains(&judged.original.source));
                concerned && judge.denies(judged)
            })
        })
        .cloned()
        .collect()
}

/// Endpoints of this node that may send from more than their addresses. Their connections are found by no address of
/// theirs; what comes from elsewhere under an address that they may use and nobody holds is taken for theirs.
pub fn borrowers(state: &NodeState) -> impl Iterator<Item = &Endpoint> {
    state.endpoints.values().filter(|endpoint| endpoint.is_local() && !endpoint.sources.is_empty())
}

struct Judge<'a> {
    state: &'a NodeState,
    evaluator: Evaluator<'a>,
    borrowers: Vec<&'a Endpoint>,
    applicable: BTreeMap<(&'a str, Direction), Applicable<'a>>,
}

impl<'a> Judge<'a> {
    fn denies(&mut self, entry: &Entry) -> bool {
        let (source, receiver) = (entry.original.source, entry.reply.source);
        if source.is_loopback() || self.state.settings.node_addresses.contains(&source) {
            return false;
        }
        let receivers = self.local(receiver);
        let mut senders = self.local(source);
        // Whoever holds the address sent it; under one that nobody holds, those who may borrow it did, but not to
        // themselves: then it came from elsewhere.
        if self.evaluator.at(source).is_empty() {
            let others = self.borrowers.iter().copied().filter(|borrower| {
                borrower.may_send_from(source)
                    && !receivers.iter().any(|receiver| receiver.interface == borrower.interface)
            });
            senders.extend(others);
        }
        if senders
            .iter()
            .any(|sender| receivers.iter().any(|receiver| sender.interface == receiver.interface))
        {
            return false; // a pod to itself
        }
        // Two endpoints may hold one address for a moment: what either may do stays.
        !senders.is_empty() && senders.iter().all(|sender| self.refuses_to_send(sender, &receivers, entry))
            || !receivers.is_empty()
                && receivers.iter().all(|receiver| self.refuses_to_receive(receiver, &senders, entry))
    }

    fn refuses_to_send(&mut self, sender: &'a Endpoint, receivers: &[&Endpoint], entry: &Entry) -> bool {
        let to_node = self.state.settings.node_addresses.contains(&entry.reply.source);
        let packet = packet(entry, Some(sender), receivers.first().copied(), to_node);
        let node = to_node && self.evaluator.input_host(&packet).verdict != Verdict::Allow;
        node || self.refuses(sender, Direction::Egress, &packet)
    }

    fn refuses_to_receive(&mut self, receiver: &'a Endpoint, senders: &[&Endpoint], entry: &Entry) -> bool {
        let packet = packet(entry, senders.first().copied(), Some(receiver), false);
        self.refuses(receiver, Direction::Ingress, &packet)
    }

    fn refuses(&mut self, endpoint: &'a Endpoint, direction: Direction, packet: &Packet) -> bool {
        let Some(interface) = endpoint.interface.as_deref() else { return false };
        let evaluator = &self.evaluator;
        let applicable = self
            .applicable
            .entry((interface, direction))
            .or_insert_with(|| evaluator.applicable(endpoint, direction));
        evaluator.decide(applicable, endpoint, direction, packet).verdict != Verdict::Allow
    }

    /// The endpoints of this node that hold the address and own their interface.
    fn local(&self, address: IpAddr) -> Vec<&'a Endpoint> {
        let owns = |endpoint: &&'a Endpoint| {
            let owner: Option<(&EndpointId, &Endpoint)> =
                endpoint.interface.as_deref().and_then(|interface| self.evaluator.local(interface));
            owner.is_some_and(|(_, owner)| owner == *endpoint)
        };
        self.evaluator.at(address).iter().copied().filter(owns).collect()
    }
}

/// The first packet of the connection, as policy sees it: behind DNAT, in the original direction.
fn packet(entry: &Entry, from: Option<&Endpoint>, to: Option<&Endpoint>, to_node: bool) -> Packet {
    let interface = |endpoint: Option<&Endpoint>| {
        endpoint.and_then(|endpoint| endpoint.interface.clone()).or_else(|| Some(ELSEWHERE.to_owned()))
    };
    let header = match (entry.original.transport, entry.reply.transport) {
        (Transport::Ports { source, .. }, Transport::Ports { source: receiver, .. }) => {
            Some(ports(source, receiver))
        }
        (Transport::Icmp { kind, code, .. }, _) => Some([kind, code, 0, 0]),
        (Transport::Ports { .. } | Transport::Other, _) => None,
    };
    Packet {
        input: interface(from),
        output: interface(to).filter(|_| !to_node),
        source: entry.original.source,
        destination: entry.reply.source,
        protocol: entry.original.protocol,
        header,
        hop_limit: 64,
        connection: Connection::New,
        dnat: entry.original.destination != entry.reply.source,
    }
}

#[cfg(test)]
mod tests;
