//! The routing table of the speaker: UPDATEs in; encoded UPDATEs and kernel routes out.
//!
//! ```text
//!  update(peer, body) ──► attributes interned ──► candidate paths by prefix ──► dirty queue
//!                                                                                   │ drain()
//!                    poll_fib() ◄── next hops changed ◄── decision, once per prefix ┤
//!  poll_transmit(peer) ◄── one encoded log per group ◄── packed by outgoing bytes ◄─┘
//! ```
//!
//! How to drive it: hand in at most 64 KiB of UPDATEs, then call [`Rib::drain`] until it returns `false`, then pull
//! [`Rib::poll_fib`], [`Rib::poll_event`] and, for each peer whose socket can write, [`Rib::poll_transmit`].

mod attrs;
mod check;
mod core;
mod drain;
mod explain;
mod group;
mod hash;
mod import;
mod input;
mod log;
mod long_lived;
mod next_hop;
mod output;
mod paths;
mod sessions;
mod table;
mod values;
mod view;
mod watch;

pub use explain::{ExportView, Withheld};
pub use values::{
    Counts, OriginAttributes, Origination, PathStatus, PathView, PeerFacts, RibConfig, RibEvent, Tag,
    UnknownNextHops, UpdateOutcome,
};
pub use view::AdvertisedRoute;
pub use watch::Change;

pub(crate) use long_lived::LLGR_STALE;
pub(crate) use watch::SlotWalk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;

use self::core::{Core, EndOfRib, Refresh};
use self::group::Group;
use crate::policy::{ExportPolicy, ImportPolicy};
use crate::route::{FibChange, NextHopResolution};
use crate::types::{AfiSafi, Asn, PeerId};
use crate::wire::canonical::Scratch;
use crate::wire::nlri::V6;

/// The table. One per speaker.
#[derive(Debug)]
pub struct Rib {
    core: Core,
    groups: Vec<Group>,
    originations: BTreeMap<IpNet, Origination>,
    /// Nothing is selected or told (RFC 4724 §4.1).
    deferred: bool,
    /// Something was put into a log outside of a drain.
    filled: bool,
    events: VecDeque<RibEvent>,
    scratch: Scratch,
}

impl Rib {
    /// An empty table.
    #[must_use]
    pub fn new(config: RibConfig) -> Rib {
        Rib {
            core: Core::new(config),
            groups: Vec::new(),
            originations: BTreeMap::new(),
            deferred: false,
            filled: false,
            events: VecDeque::new(),
            scratch: Scratch::default(),
        }
    }

    // ---- sessions

    /// The session with `peer` is Established: its UPDATEs count from here, and its initial table follows, ended by
    /// End-of-RIB in each family. Paths kept as stale stay until heard again or swept, unless the peer's AS, router id or
    /// address is another one. A peer that is up already starts over. `PeerId(u16::MAX)` is no peer.
    pub fn peer_up(&mut self, peer: PeerId, facts: PeerFacts) {
        if peer != table::LOCAL {
            self.enter_peer(peer, facts);
        }
    }

    /// The session ended. Paths of the families in `retain` become stale (RFC 4724 §4.2), all others go; a path that was
    /// stale already goes too.
    pub fn peer_down(&mut self, peer: PeerId, retain: &BTreeSet<AfiSafi>) {
        self.leave(peer);
        for family in AfiSafi::ALL {
            if retain.contains(&family) {
                self.mark_stale(peer, family);
            } else {
                self.drop_paths(peer, &BTreeSet::from([family]));
            }
        }
    }

    /// Several sessions ended at once, none retained: one walk over the table for all of them.
    pub fn peers_down(&mut self, peers: &BTreeSet<PeerId>) {
        peers.iter().for_each(|peer| self.leave(*peer));
        self.core.drop_all::<u32>(peers);
        self.core.drop_all::<V6>(peers);
    }

    /// The peer is removed: whatever is left of it goes, its number may be used again.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.peer_down(peer, &BTreeSet::new());
        // Dirty prefixes still name the peer as the source of what was told; its number means nobody to the groups by then.
        if let Some(slot) = self.core.peers.get_mut(usize::from(peer.0)) {
            *slot = None;
        }
    }

    /// Marks the peer's paths of one family stale, as after a session loss; those stale already go.
    pub fn mark_stale(&mut self, peer: PeerId, family: AfiSafi) {
        match family {
            AfiSafi::Ipv4Unicast => self.core.stale_all::<u32>(peer),
            AfiSafi::Ipv6Unicast => self.core.stale_all::<V6>(peer),
        }
    }

    /// The peer's End-of-RIB, or the timer: what is still stale goes. Returns how many paths that were.
    pub fn sweep_stale(&mut self, peer: PeerId, family: AfiSafi) -> u32 {
        match family {
            AfiSafi::Ipv4Unicast => self.core.sweep::<u32>(peer),
            AfiSafi::Ipv6Unicast => self.core.sweep::<V6>(peer),
        }
    }

    /// The peer has been gone for longer than its restart time: what is stale of it in this family stays as the last choice, and
    /// is told as such (RFC 9494 §4.2), until it is heard again or [`Rib::sweep_stale`].
    pub fn keep_long_lived(&mut self, peer: PeerId, family: AfiSafi) {
        match family {
            AfiSafi::Ipv4Unicast => self.core.keep_long_lived::<u32>(peer),
            AfiSafi::Ipv6Unicast => self.core.keep_long_lived::<V6>(peer),
        }
    }

    /// `true`: no route is selected and nothing is told to anybody (restarting speaker, RFC 4724 §4.1).
    /// `false`: selection happens in the drains that follow, and End-of-RIB goes out after them.
    pub fn defer_selection(&mut self, defer: bool) {
        self.deferred = defer;
    }

    // ---- input

    /// The body of an UPDATE (what follows the 19 bytes of header) from a peer that is up. Changes show after the next drain.
    /// End-of-RIB is reported, not acted upon: the session decides about [`Rib::sweep_stale`].
    pub fn update(&mut self, peer: PeerId, body: &[u8]) -> UpdateOutcome {
        if self.core.peer(peer).is_none_or(|known| known.group.is_none()) {
            return UpdateOutcome::default();
        }
        let outcome = self.core.update(peer, body, &mut self.scratch);
        for fault in &outcome.faults {
            if let crate::wire::verdict::ErrorAction::AfiSafiDisable(family) = fault.action {
                self.drop_paths(peer, &BTreeSet::from([family]));
            }
        }
        outcome
    }

    /// ROUTE-REFRESH from the peer (RFC 2918): everything of the family is told again.
    pub fn refresh(&mut self, peer: PeerId, family: AfiSafi) {
        let slots = match family {
            AfiSafi::Ipv4Unicast => self.core.v4.table.slots(),
            AfiSafi::Ipv6Unicast => self.core.v6.table.slots(),
        };
        if let Some(peer) = self.core.peer_mut(peer).filter(|peer| peer.facts.families.contains(&family)) {
            if peer.facts.enhanced_route_refresh {
                *peer.refresh.of_mut(family) = Refresh::Due;
            } else {
                *peer.walk.of_mut(family) = 0..slots;
                *peer.alike.of_mut(family) = Default::default();
            }
        }
    }

    /// The peer begins to tell a family anew (RFC 7313 §4.2): what it does not tell again before [`Rib::sweep_stale`] goes then.
    pub fn begin_refresh(&mut self, peer: PeerId, family: AfiSafi) {
        match family {
            AfiSafi::Ipv4Unicast => self.core.mark_all::<u32>(peer),
            AfiSafi::Ipv6Unicast => self.core.mark_all::<V6>(peer),
        }
    }

    /// A new import policy, run over everything the peer sent.
    pub fn set_import(&mut self, peer: PeerId, policy: ImportPolicy) {
        let Some(known) = self.core.peer_mut(peer).filter(|known| known.facts.import != policy) else {
            return;
        };
        known.takes_all = policy == ImportPolicy::accept_all();
        known.facts.import = policy;
        self.core.import_again::<u32>(|sender| sender == peer);
        self.core.import_again::<V6>(|sender| sender == peer);
    }

    /// The numbers other than our own that some peer knows us by (RFC 7705).
    pub fn set_aliases(&mut self, aliases: BTreeSet<Asn>) {
        if self.core.aliases == aliases {
            return;
        }
        self.core.aliases = aliases;
        self.core.import_again::<u32>(|_| true);
        self.core.import_again::<V6>(|_| true);
    }

    /// A new export policy: what it no longer lets out is withdrawn, what it newly lets out is told.
    pub fn set_export(&mut self, peer: PeerId, policy: ExportPolicy) {
        if let Some(known) = self.core.peer_mut(peer) {
            known.facts.export = policy;
            self.regroup(peer);
        }
    }

    /// The peer becomes a client of ours, or is none any more: who is told its routes, and which ones it is told, are other questions
    /// now (RFC 4456 §6).
    pub fn set_reflector_client(&mut self, peer: PeerId, is_client: bool) {
        let Some(known) = self.core.peer_mut(peer).filter(|known| known.facts.reflector_client != is_client)
        else {
            return;
        };
        known.facts.reflector_client = is_client;
        self.core.touch_all::<u32>(peer);
        self.core.touch_all::<V6>(peer);
        self.regroup(peer);
    }

    /// The originated routes that a peer takes.
    pub fn set_tags(&mut self, peer: PeerId, tags: BTreeSet<Tag>) {
        if let Some(known) = self.core.peer_mut(peer) {
            known.facts.tags = tags;
            self.regroup(peer);
        }
    }

    /// More or fewer paths per prefix for a peer that takes several (RFC 7911): what goes is withdrawn, what comes is told.
    pub fn set_paths_sent(&mut self, peer: PeerId, paths: u8) {
        if let Some(known) = self.core.peer_mut(peer) {
            known.facts.paths_sent = paths;
            self.regroup(peer);
        }
    }

    /// More or fewer equal paths per route.
    pub fn set_max_paths(&mut self, max_paths: u16) {
        if self.core.config.max_paths != max_paths {
            self.core.config.max_paths = max_paths;
            self.core.touch_contested::<u32>();
            self.core.touch_contested::<V6>();
        }
    }

    /// How many bytes of UPDATEs a peer may be behind before it leaves the shared log; 8 MiB to begin with.
    pub fn set_backlog(&mut self, bytes: u64) {
        self.core.backlog = bytes;
    }

    /// Originates a route, or changes how it is told. No change, no output. Host bits of the prefix are cleared.
    pub fn originate(&mut self, prefix: &IpNet, origination: Origination) {
        let prefix = prefix.trunc();
        if self.originations.get(&prefix) != Some(&origination) {
            self.put_origination(&prefix, Some(&origination));
            self.originations.insert(prefix, origination);
        }
    }

    /// Ends an originated route. `false`: there was none.
    pub fn withdraw_origination(&mut self, prefix: &IpNet) -> bool {
        let prefix = prefix.trunc();
        let known = self.originations.remove(&prefix).is_some();
        if known {
            self.put_origination(&prefix, None);
        }
        known
    }

    fn put_origination(&mut self, prefix: &IpNet, origination: Option<&Origination>) {
        match AfiSafi::of(prefix) {
            AfiSafi::Ipv4Unicast => self.core.originate::<u32>(prefix, origination),
            AfiSafi::Ipv6Unicast => self.core.originate::<V6>(prefix, origination),
        }
    }

    /// How a next hop is reached; `None`: it is not, and routes through it are no candidates.
    pub fn set_next_hop(&mut self, address: IpAddr, resolution: Option<NextHopResolution>) {
        self.core.next_hops.tell(address, resolution);
    }

    // ---- drain and output

    /// Decides dirty prefixes, tells the groups, encodes. A call ends behind the prefix with which 65,536 paths of a family were
    /// looked at; `true`: more are waiting.
    pub fn drain(&mut self) -> bool {
        if self.deferred {
            return false;
        }
        let mut events = Vec::new();
        let more = self.core.drain(&mut self.groups, &mut events);
        self.events.extend(events);
        (0..self.groups.len()).for_each(|group| self.trim(group));
        more
    }

    /// The next changed kernel route, as it should be now; an originated prefix has none. `None` also while prefixes wait for
    /// [`Rib::drain`] or selection is deferred.
    pub fn poll_fib(&mut self) -> Option<FibChange> {
        if self.deferred || self.is_dirty() {
            return None;
        }
        self.core.poll_fib::<u32>().or_else(|| self.core.poll_fib::<V6>())
    }

    /// Whether there is a next event.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.core.next_hops.has_events() || !self.events.is_empty()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<RibEvent> {
        self.core.next_hops.poll_event().or_else(|| self.events.pop_front())
    }

    /// The next bytes for this peer: messages with their headers, at most 64 KiB and one message more, the first of them
    /// possibly begun by the last [`Rib::transmitted`]. They stay next until reported as transmitted.
    pub fn poll_transmit(&mut self, peer: PeerId) -> Option<&[u8]> {
        self.transmit(peer)
    }

    /// Whether a call of [`Rib::poll_transmit`] since the last question put something into a log that several read.
    pub(crate) fn take_filled(&mut self) -> bool {
        std::mem::take(&mut self.filled)
    }

    /// So many of the bytes of [`Rib::poll_transmit`] were taken. Whoever puts other messages on the same connection takes
    /// whole messages.
    pub fn transmitted(&mut self, peer: PeerId, bytes: usize) {
        self.advance(peer, bytes);
    }

    // ---- queries (more of them in `view`)

    /// How many prefixes the peer sent, and what became of them. Constant time.
    #[must_use]
    pub fn counts(&self, peer: PeerId, family: AfiSafi) -> Counts {
        self.core.peer(peer).map(|peer| *peer.counts.of(family)).unwrap_or_default()
    }

    /// Whether the peer's initial table of this family was taken as far as its End-of-RIB ([`Rib::transmitted`]).
    #[must_use]
    pub fn initial_table_sent(&self, peer: PeerId, family: AfiSafi) -> bool {
        self.core.peer(peer).is_some_and(|peer| *peer.end_of_rib.of(family) == EndOfRib::Sent)
    }

    /// Whether prefixes wait for [`Rib::drain`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.core.is_dirty() || self.core.next_hops.has_changed()
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
