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

mod values;

pub use values::{
    Counts, OriginAttributes, Origination, PathStatus, PathView, PeerFacts, RibConfig, RibEvent, Tag,
    UnknownNextHops, UpdateOutcome,
};

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::{ExportPolicy, ImportPolicy};
use crate::route::{FibChange, NextHopResolution};
use crate::types::{AfiSafi, PeerId};

/// The table. One per speaker.
#[derive(Debug)]
pub struct Rib {}

#[expect(clippy::todo, reason = "signatures first; bodies follow")]
impl Rib {
    /// An empty table.
    #[must_use]
    pub fn new(config: RibConfig) -> Rib {
        _ = config;
        todo!()
    }

    // ---- sessions

    /// The session with `peer` is Established: its UPDATEs count from here, and its initial table follows, ended by
    /// End-of-RIB in each family. Paths kept as stale stay until heard again or swept. A peer that is up already starts over.
    pub fn peer_up(&mut self, peer: PeerId, facts: PeerFacts) {
        _ = (peer, facts);
        todo!()
    }

    /// The session ended. Paths of the families in `retain` become stale (RFC 4724 §4.2), all others go; a path that was
    /// stale already goes too.
    pub fn peer_down(&mut self, peer: PeerId, retain: &BTreeSet<AfiSafi>) {
        _ = (peer, retain);
        todo!()
    }

    /// Several sessions ended at once, none retained: one walk over the table for all of them.
    pub fn peers_down(&mut self, peers: &BTreeSet<PeerId>) {
        _ = peers;
        todo!()
    }

    /// The peer is removed: whatever is left of it goes, its number may be used again.
    pub fn remove_peer(&mut self, peer: PeerId) {
        _ = peer;
        todo!()
    }

    /// Marks the peer's paths of one family stale without a session loss (enhanced route refresh, RFC 7313).
    pub fn mark_stale(&mut self, peer: PeerId, family: AfiSafi) {
        _ = (peer, family);
        todo!()
    }

    /// The peer's End-of-RIB, or the timer: what is still stale goes. Returns how many paths that were.
    pub fn sweep_stale(&mut self, peer: PeerId, family: AfiSafi) -> u32 {
        _ = (peer, family);
        todo!()
    }

    /// `true`: no route is selected and nothing is told to anybody (restarting speaker, RFC 4724 §4.1).
    /// `false`: selection happens in the drains that follow, and End-of-RIB goes out after them.
    pub fn defer_selection(&mut self, defer: bool) {
        _ = defer;
        todo!()
    }

    // ---- input

    /// The body of an UPDATE (what follows the 19 bytes of header) from a peer that is up. Changes show after the next drain.
    /// End-of-RIB is reported, not acted upon: the session decides about [`Rib::sweep_stale`].
    pub fn update(&mut self, peer: PeerId, body: &[u8]) -> UpdateOutcome {
        _ = (peer, body);
        todo!()
    }

    /// ROUTE-REFRESH from the peer (RFC 2918): everything of the family is told again.
    pub fn refresh(&mut self, peer: PeerId, family: AfiSafi) {
        _ = (peer, family);
        todo!()
    }

    /// A new import policy, run over everything the peer sent.
    pub fn set_import(&mut self, peer: PeerId, policy: ImportPolicy) {
        _ = (peer, policy);
        todo!()
    }

    /// A new export policy: what it no longer lets out is withdrawn, what it newly lets out is told.
    pub fn set_export(&mut self, peer: PeerId, policy: ExportPolicy) {
        _ = (peer, policy);
        todo!()
    }

    /// More or fewer equal paths per route.
    pub fn set_max_paths(&mut self, max_paths: u16) {
        _ = max_paths;
        todo!()
    }

    /// The originated routes that a peer takes.
    pub fn set_tags(&mut self, peer: PeerId, tags: BTreeSet<Tag>) {
        _ = (peer, tags);
        todo!()
    }

    /// Originates a route, or changes how it is told. No change, no output. Host bits of the prefix are cleared.
    pub fn originate(&mut self, prefix: &IpNet, origination: Origination) {
        _ = (prefix, origination);
        todo!()
    }

    /// Ends an originated route. `false`: there was none.
    pub fn withdraw_origination(&mut self, prefix: &IpNet) -> bool {
        _ = prefix;
        todo!()
    }

    /// How a next hop is reached; `None`: it is not, and routes through it are no candidates.
    pub fn set_next_hop(&mut self, address: IpAddr, resolution: Option<NextHopResolution>) {
        _ = (address, resolution);
        todo!()
    }

    // ---- drain and output

    /// Decides dirty prefixes, tells the groups, encodes. At most 65,536 prefixes a call; `true`: more are waiting.
    pub fn drain(&mut self) -> bool {
        todo!()
    }

    /// The next changed kernel route, as it should be now; an originated prefix has none. `None` also while prefixes wait for
    /// [`Rib::drain`] or selection is deferred.
    pub fn poll_fib(&mut self) -> Option<FibChange> {
        todo!()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<RibEvent> {
        todo!()
    }

    /// The next bytes for this peer: UPDATE messages with their headers, at most 64 KiB, the first of them possibly begun by
    /// the last [`Rib::transmitted`]. They stay next until reported as transmitted.
    pub fn poll_transmit(&mut self, peer: PeerId) -> Option<&[u8]> {
        _ = peer;
        todo!()
    }

    /// So many of the bytes of [`Rib::poll_transmit`] were taken. Whoever puts other messages on the same connection takes
    /// whole messages.
    pub fn transmitted(&mut self, peer: PeerId, bytes: usize) {
        _ = (peer, bytes);
        todo!()
    }

    // ---- queries

    /// How many prefixes the peer sent, and what became of them. Constant time.
    #[must_use]
    pub fn counts(&self, peer: PeerId, family: AfiSafi) -> Counts {
        _ = (peer, family);
        todo!()
    }

    /// How many prefixes the peer was told, as of the last drain. Walks the family's table.
    #[must_use]
    pub fn advertised(&self, peer: PeerId, family: AfiSafi) -> u32 {
        _ = (peer, family);
        todo!()
    }

    /// Whether the peer's initial table of this family was handed to [`Rib::poll_transmit`] as far as its End-of-RIB.
    #[must_use]
    pub fn initial_table_sent(&self, peer: PeerId, family: AfiSafi) -> bool {
        _ = (peer, family);
        todo!()
    }

    /// Whether prefixes wait for [`Rib::drain`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        todo!()
    }
}
