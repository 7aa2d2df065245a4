//! Monitoring stations: what the shell says of them, and what is to be written to them ([`crate::bmp`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Speaker;
use crate::bmp::message::{Initiation, Statistics, Subject, Termination};
use crate::bmp::{StationId, StationOutput};
use crate::status::SessionOpens;
use crate::types::{AfiSafi, PeerId, PeerName};

impl Speaker {
    /// A station is connected. It is told the sessions and the table, then every change; `false`: not before the first
    /// configuration. `since_epoch`: what the clock on the wall says at `now`.
    pub fn add_station(
        &mut self,
        station: StationId,
        initiation: &Initiation,
        since_epoch: Duration,
        now: Instant,
    ) -> bool {
        let Some(config) = &self.config else { return false };
        let own = Subject { address: None, asn: config.asn, router_id: config.router_id };
        self.now = self.now.max(now);
        self.monitor.set_clock(now, since_epoch);
        let monitored = |id: &PeerId| Some((*id, self.peers.get(id)?.monitored(&self.monitor)?));
        let sessions: BTreeMap<PeerId, _> = self.peers.keys().filter_map(monitored).collect();
        // What was noted for the other stations before is theirs.
        self.hand_changes();
        self.rib.watch(true);
        self.monitor.add(station, initiation, own, sessions, &self.rib);
        true
    }

    /// A station is not wanted any more, or its connection ended. Returns what may still be written to it.
    pub fn remove_station(&mut self, station: StationId, why: Termination) -> Vec<u8> {
        let last = self.monitor.remove(station, why);
        self.rib.watch(self.monitor.is_watching());
        last
    }

    /// The next octets for a station's socket. One call writes at most 4,096 changes and looks at 4,096 slots, and
    /// it writes some 2 MiB at most.
    pub fn poll_station(&mut self, station: StationId, now: Instant) -> StationOutput<'_> {
        self.hand_changes();
        self.monitor.poll(station, &self.rib, now)
    }

    /// The station's socket took the first `written` octets of the last [`Speaker::poll_station`].
    pub fn station_took(&mut self, station: StationId, written: usize) {
        self.monitor.transmitted(station, written);
    }

    /// Tells the stations the numbers of every session (RFC 7854 §4.8).
    pub fn report_to_stations(&mut self, now: Instant) {
        let Speaker { peers, rib, monitor, .. } = self;
        for id in peers.keys().filter(|_| monitor.is_watching()).copied().collect::<Vec<_>>() {
            let received = AfiSafi::ALL.map(|family| rib.counts(id, family).received);
            monitor.report(id, Statistics { received }, now);
        }
    }

    /// What the table noted goes to the stations, where there are any.
    pub(super) fn hand_changes(&mut self) {
        self.monitor.note(self.rib.taking());
    }

    /// The OPENs of the session that is up.
    #[must_use]
    pub fn opens(&self, name: &PeerName) -> Option<SessionOpens> {
        self.peers.get(self.names.get(name)?)?.opens()
    }

    /// Whose connection it is.
    #[must_use]
    pub fn owner(&self, conn: crate::ConnId) -> Option<&PeerName> {
        self.name(*self.conns.get(&conn)?)
    }
}
