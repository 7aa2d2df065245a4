//! From the configuration in force to another one, peer by peer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Speaker;
use super::due::Table;
use crate::config::{PeerConfig, SpeakerConfig};
use crate::output::Output;
use crate::peer::Peer;
use crate::restart::Selection;
use crate::rib::{Rib, RibConfig};
use crate::types::{PeerId, PeerName};
use crate::wire::Notification;
use crate::wire::notification::cease;

impl Speaker {
    pub(super) fn configure(&mut self, config: SpeakerConfig) {
        if self.config.as_ref() == Some(&config) {
            return;
        }
        let is_first = self.config.is_none();
        let same_identity = self
            .config
            .as_ref()
            .is_some_and(|old| (old.asn, old.router_id) == (config.asn, config.router_id));
        if !same_identity {
            self.stop_all();
        }
        self.dismiss_strangers(&config);
        self.remove_peers(&config);
        self.config = Some(config.clone());
        if !same_identity {
            self.renew_rib(&config);
        }
        self.rib.set_max_paths(config.max_paths.max(1));
        self.set_aliases(&config);
        if is_first {
            self.begin_selection(&config);
        }
        let refused = self.assign_addresses(&config);
        self.configure_dynamic(&config);
        for (name, peer) in config.peers {
            self.configure_peer(&name, peer, refused.contains(&name), is_first);
        }
        if !same_identity && !is_first {
            let ids: Vec<PeerId> = self.peers.keys().copied().collect();
            for id in ids {
                self.with_peer(id, |peer, ctx| peer.start(ctx));
            }
        }
    }

    /// Another AS or router id: every session says goodbye, its routes leave the FIB.
    fn stop_all(&mut self) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.with_peer(id, |peer, ctx| {
                let change = Notification::new(6, cease::OTHER_CONFIGURATION_CHANGE);
                peer.stop(change, "our AS or router id changed", false, ctx);
                peer.forget_stale(ctx);
            });
        }
    }

    fn remove_peers(&mut self, config: &SpeakerConfig) {
        let gone: Vec<(PeerName, PeerId)> = self
            .names
            .iter()
            .filter(|(name, id)| !config.peers.contains_key(name) && !self.dynamic.contains(id))
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        for (name, id) in gone {
            self.with_peer(id, |peer, ctx| {
                peer.stop(Notification::new(6, cease::PEER_DE_CONFIGURED), "", false, ctx);
            });
            self.rib.remove_peer(id);
            self.timers.set(id, None);
            self.peers.remove(&id);
            self.names.remove(&name);
        }
    }

    /// The RIB knows who we are, so it is built anew; what the old one still has to say is said first.
    fn renew_rib(&mut self, config: &SpeakerConfig) {
        while self.rib.drain() {}
        while let Some(change) = self.rib.taking().poll_fib() {
            self.outputs.push_back(Output::Fib(change));
        }
        while let Some(event) = self.rib.taking().poll_event() {
            if let Some(output) = self.rib_event(event) {
                self.outputs.push_back(output);
            }
        }
        self.rib = Table::new(Rib::new(RibConfig {
            max_paths: config.max_paths.max(1),
            feeds_fib: self.feeds_fib,
            ..RibConfig::new(config.asn, config.router_id, self.seed)
        }));
        self.monitor.start_over();
        if matches!(self.selection, Selection::Deferred(_)) {
            self.rib.defer_selection(true);
        }
        self.unanswered.clear();
        for (prefix, routes) in std::mem::take(&mut self.own) {
            self.audiences.release(&routes);
            self.originate(prefix, routes);
        }
    }

    fn set_aliases(&mut self, config: &SpeakerConfig) {
        let ranges = config.ranges.values().map(|range| &range.peer);
        let local = config.peers.values().chain(ranges).filter_map(|peer| peer.local_asn);
        self.rib.set_aliases(local.filter(|asn| *asn != config.asn).collect());
    }

    /// RFC 4724 §4.1: selection is deferred where our forwarding state survived and a peer may send End-of-RIB.
    fn begin_selection(&mut self, config: &SpeakerConfig) {
        let ranges = config.ranges.values().map(|range| &range.peer);
        if !self.preserved.is_empty() && config.peers.values().chain(ranges).any(PeerConfig::may_help) {
            self.selection = Selection::Deferred(self.now + config.selection_deferral);
            self.rib.defer_selection(true);
        } else {
            self.selection = Selection::Running;
            self.fib_complete_due = true;
        }
    }

    /// Numbers for new names, and who is served where two have one address: the first by name.
    fn assign_addresses(&mut self, config: &SpeakerConfig) -> BTreeSet<PeerName> {
        self.addresses.clear();
        let mut refused = BTreeSet::new();
        for (name, peer) in &config.peers {
            let Some(id) = self.names.get(name).copied().or_else(|| self.free_id()) else {
                tracing::error!(peer = %name, "not served: more than 65,535 peers");
                continue;
            };
            self.names.insert(name.clone(), id);
            if *self.addresses.entry(peer.remote).or_insert(id) != id {
                refused.insert(name.clone());
            }
        }
        refused
    }

    pub(super) fn free_id(&self) -> Option<PeerId> {
        let taken: BTreeSet<PeerId> = self.names.values().copied().collect();
        (0..u16::MAX).map(PeerId).find(|id| !taken.contains(id))
    }

    fn configure_peer(&mut self, name: &PeerName, config: PeerConfig, refuse: bool, at_start: bool) {
        let Some(id) = self.names.get(name).copied() else { return };
        let why = refuse.then(|| self.overlap(name, config.remote));
        if !self.peers.contains_key(&id) {
            let peer = Peer::new(id, name.clone(), config, at_start, self.now);
            self.peers.insert(id, peer);
            self.with_peer(id, |peer, ctx| match why {
                Some(why) => peer.refuse(why, ctx),
                None => peer.start(ctx),
            });
            return;
        }
        self.with_peer(id, |peer, ctx| {
            if let Some(why) = why {
                peer.config = config;
                return peer.refuse(why, ctx);
            }
            if peer.config != config {
                peer.configure(config, ctx);
            }
            peer.serve(ctx);
        });
    }

    fn overlap(&self, name: &PeerName, remote: IpAddr) -> String {
        let holder = self.addresses.get(&remote).and_then(|id| {
            self.names.iter().find(|(_, other)| *other == id).map(|(holder, _)| holder.as_str())
        });
        format!("{remote} is the address of peer {} already; {name} is not served", holder.unwrap_or("?"))
    }
}
