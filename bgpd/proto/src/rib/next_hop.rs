//! Next hops, each once, with what the world said about reaching them.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::values::{RibEvent, UnknownNextHops};
use crate::route::NextHopResolution;

/// A next hop.
pub(super) type NextHopId = u32;

/// This node itself, as next hop of what it originates: always there, never tracked.
pub(super) const SELF: NextHopId = 0;

#[derive(Debug, Clone, Copy)]
struct NextHop {
    address: IpAddr,
    /// `None`: unreachable.
    metric: Option<u32>,
    /// Attribute sets that name it.
    refs: u32,
    /// The drain that it came up in: until that is over, whatever names it waits for its decision in any case.
    since: u64,
}

#[derive(Debug)]
pub(super) struct NextHops {
    all: Vec<NextHop>,
    free: Vec<NextHopId>,
    index: BTreeMap<IpAddr, NextHopId>,
    /// What the world said of addresses that no path uses yet.
    told: BTreeMap<IpAddr, Option<u32>>,
    unknown: UnknownNextHops,
    /// Changed since the last walk over the paths.
    changed: Vec<NextHopId>,
    /// How many drains are over.
    drains: u64,
    events: VecDeque<RibEvent>,
}

impl NextHops {
    pub(super) fn new(unknown: UnknownNextHops) -> NextHops {
        let own = NextHop { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), metric: Some(0), refs: 1, since: 0 };
        NextHops {
            all: vec![own],
            free: Vec::new(),
            index: BTreeMap::new(),
            told: BTreeMap::new(),
            unknown,
            changed: Vec::new(),
            drains: 0,
            events: VecDeque::new(),
        }
    }

    /// The id of an address.
    pub(super) fn intern(&mut self, address: IpAddr) -> NextHopId {
        if let Some(known) = self.index.get(&address) {
            return *known;
        }
        let metric = self.told.remove(&address).unwrap_or(match self.unknown {
            UnknownNextHops::Reachable => Some(0),
            UnknownNextHops::Unreachable => None,
        });
        let next_hop = NextHop { address, metric, refs: 0, since: self.drains };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(slot) = self.all.get_mut(id as usize) {
                    *slot = next_hop;
                }
                id
            }
            None => {
                self.all.push(next_hop);
                u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.index.insert(address, id);
        self.events.push_back(RibEvent::TrackNextHop { address, wanted: true });
        id
    }

    pub(super) fn acquire(&mut self, id: NextHopId) {
        if let Some(next_hop) = self.all.get_mut(id as usize) {
            next_hop.refs += 1;
        }
    }

    /// Only while no prefix is dirty: the id is free for another address from here on.
    pub(super) fn release(&mut self, id: NextHopId) {
        let Some(next_hop) = self.all.get_mut(id as usize) else { return };
        next_hop.refs = next_hop.refs.saturating_sub(1);
        if next_hop.refs == 0 {
            self.index.remove(&next_hop.address);
            self.free.push(id);
            self.events.push_back(RibEvent::TrackNextHop { address: next_hop.address, wanted: false });
        }
    }

    pub(super) fn address(&self, id: NextHopId) -> IpAddr {
        self.all.get(id as usize).map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |next_hop| next_hop.address)
    }

    /// The cost of the way to it; `None`: there is none.
    pub(super) fn metric(&self, id: NextHopId) -> Option<u32> {
        self.all.get(id as usize).and_then(|next_hop| next_hop.metric)
    }

    /// What the world says of an address.
    pub(super) fn tell(&mut self, address: IpAddr, resolution: Option<NextHopResolution>) {
        let metric = resolution.map(|resolution| resolution.metric);
        let Some(id) = self.index.get(&address) else {
            self.told.insert(address, metric);
            return;
        };
        if let Some(next_hop) = self.all.get_mut(*id as usize)
            && next_hop.metric != metric
        {
            next_hop.metric = metric;
            if next_hop.since < self.drains {
                self.changed.push(*id);
            }
        }
    }

    /// The next hops that changed since the last call, as a bit per id; `None`: none did. Decisions follow.
    pub(super) fn take_changed(&mut self) -> Option<Vec<bool>> {
        self.drains += 1;
        if self.changed.is_empty() {
            return None;
        }
        let mut bits = vec![false; self.all.len()];
        for id in self.changed.drain(..) {
            if let Some(bit) = bits.get_mut(id as usize) {
                *bit = true;
            }
        }
        Some(bits)
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn poll_event(&mut self) -> Option<RibEvent> {
        self.events.pop_front()
    }

    /// How often a next hop is named, for [`super::Rib::check_invariants`].
    pub(super) fn refs(&self, id: NextHopId) -> u32 {
        self.all.get(id as usize).map_or(0, |next_hop| next_hop.refs)
    }
}

/// RFC 4271 §6.3: whether this may be the address of a host that forwards packets.
pub(super) fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_loopback() || v4.octets()[0] >= 224,
        IpAddr::V6(v6) => {
            v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()
        }
    }
}
