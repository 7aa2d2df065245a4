//! Neighbours of a range: a peer is made when one dials us, and is gone when nothing of it is left.
//!
//! ```text
//!   (none) ── a connection from an address of the range, room for one more ──► peer, passive
//!     ▲                                                                          │
//!     └── no connection, no stale routes, no pause that refuses it ◄─────────────┘
//! ```
//! A pause (damping, a prefix limit) outlives the session, so that whoever broke the rules does not begin anew at once.

use std::net::{IpAddr, SocketAddr};

use super::Speaker;
use crate::config::{AdminState, PeerConfig, RangeConfig, SpeakerConfig};
use crate::output::Rejection;
use crate::peer::Peer;
use crate::restart::Selection;
use crate::types::{PeerId, PeerName};
use crate::wire::Notification;
use crate::wire::notification::cease;

impl Speaker {
    /// Whom a connection from this address is for; a neighbour of a range becomes a peer by it.
    pub(super) fn peer_at(&mut self, remote: SocketAddr) -> Result<PeerId, Rejection> {
        let address = remote.ip().to_canonical();
        match self.addresses.get(&address) {
            Some(id) => Ok(*id),
            None => self.admit(address),
        }
    }

    fn admit(&mut self, address: IpAddr) -> Result<PeerId, Rejection> {
        let config = self.config.as_ref().ok_or(Rejection::UnknownPeer)?;
        let (range, settings) = config.range_of(address).ok_or(Rejection::UnknownPeer)?;
        match settings.peer.admin {
            AdminState::Up => {}
            AdminState::Withheld { .. } => return Err(Rejection::Withheld),
            AdminState::Shutdown { .. } => return Err(Rejection::AdminShutdown),
        }
        let of_range = |id: &&PeerId| self.peers.get(*id).is_some_and(|peer| peer.range() == Some(range));
        if self.dynamic.iter().filter(of_range).count() >= usize::from(settings.limit) {
            return Err(Rejection::RangeFull);
        }
        let (name, config, range) = (name_of(range, address), neighbour(settings, address), range.clone());
        // A person's own peer may have that name.
        if self.names.contains_key(&name) {
            return Err(Rejection::UnknownPeer);
        }
        let id = self.free_id().ok_or(Rejection::RangeFull)?;
        let at_start = matches!(self.selection, Selection::Deferred(_) | Selection::Settling(_));
        self.peers.insert(id, Peer::of_range(id, name.clone(), config, range, at_start, self.now));
        self.names.insert(name, id);
        self.addresses.insert(address, id);
        self.dynamic.insert(id);
        self.with_peer(id, |peer, ctx| peer.start(ctx));
        Ok(id)
    }

    /// Neighbours of ranges of which nothing is left.
    pub(super) fn reap(&mut self) {
        let over = |id: &&PeerId| self.peers.get(*id).is_none_or(Peer::is_over);
        let touched = std::mem::take(&mut self.perhaps_over);
        for id in touched.into_iter().filter(|id| self.dynamic.contains(id) && over(&id)).collect::<Vec<_>>()
        {
            self.dismiss(id);
        }
    }

    /// Neighbours whose range is gone, is another one now, or has become somebody's peer by its address.
    pub(super) fn dismiss_strangers(&mut self, config: &SpeakerConfig) {
        let belongs = |peer: &Peer| {
            let range = config.range_of(peer.config.remote).map(|(range, _)| range);
            let is_taken = config.peers.contains_key(&peer.name)
                || config.peers.values().any(|other| other.remote == peer.config.remote);
            range == peer.range() && !is_taken
        };
        let strangers = |id: &&PeerId| !self.peers.get(*id).is_some_and(belongs);
        let strangers: Vec<PeerId> = self.dynamic.iter().filter(strangers).copied().collect();
        for id in strangers {
            self.with_peer(id, |peer, ctx| {
                peer.stop(Notification::new(6, cease::PEER_DE_CONFIGURED), "", false, ctx);
            });
            self.dismiss(id);
        }
    }

    /// The neighbours that are there take over what their range says.
    pub(super) fn configure_dynamic(&mut self, config: &SpeakerConfig) {
        for id in self.dynamic.clone() {
            let Some(remote) = self.peers.get(&id).map(|peer| peer.config.remote) else { continue };
            let Some((_, settings)) = config.range_of(remote) else { continue };
            self.addresses.insert(remote, id);
            let settings = neighbour(settings, remote);
            self.with_peer(id, |peer, ctx| {
                if peer.config != settings {
                    peer.configure(settings, ctx);
                }
            });
        }
    }

    fn dismiss(&mut self, id: PeerId) {
        self.dynamic.remove(&id);
        self.timers.set(id, None);
        if let Some(peer) = self.peers.remove(&id) {
            self.names.remove(&peer.name);
            self.addresses.retain(|_, holder| *holder != id);
            self.rib.remove_peer(id);
            // Its paths are decided away by the next drain.
            self.more_work |= self.rib.is_dirty();
        }
    }
}

/// As the shell names its objects: the range's name and the address, in which a name may have no colon.
fn name_of(range: &PeerName, address: IpAddr) -> PeerName {
    PeerName::from(format!("{range}.{}", address.to_string().replace(':', "-")).as_str())
}

fn neighbour(range: &RangeConfig, address: IpAddr) -> PeerConfig {
    PeerConfig { remote: address, passive: true, ..range.peer.clone() }
}
