//! All stations, and the sessions that they are told of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::message::{self, Initiation, PeerDown, PeerUp, Statistics, Subject, Table, Termination};
use super::station::Station;
use super::{StationId, StationOutput};
use crate::rib::Rib;
use crate::types::{AfiSafi, PeerId};
use crate::wire::MessageType;
use crate::wire::message::{HEADER_LENGTH, MAX_EXTENDED_LENGTH, message_length};
use crate::wire::update;

/// A session that is up, as stations are told of it.
#[derive(Debug, Clone)]
pub(crate) struct Monitored {
    pub up: PeerUp,
    pub families: BTreeSet<AfiSafi>,
    /// What it is told has AS numbers of two octets.
    pub two_octets: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Monitor {
    stations: BTreeMap<StationId, Station>,
    /// Of sessions that are up, while there is a station.
    sessions: BTreeMap<PeerId, Monitored>,
    /// Ourselves.
    own: Option<Subject>,
    /// A moment on both clocks: the speaker's, and since 1970.
    clock: Option<(Instant, Duration)>,
}

impl Monitor {
    /// Whether anybody is to be told anything.
    pub(crate) fn is_watching(&self) -> bool {
        !self.stations.is_empty()
    }

    /// A moment of the speaker's clock, since 1970.
    pub(crate) fn time(&self, at: Instant) -> Option<Duration> {
        let (instant, epoch) = self.clock?;
        match at.checked_duration_since(instant) {
            Some(later) => Some(epoch + later),
            None => epoch.checked_sub(instant.saturating_duration_since(at)),
        }
    }

    /// The clocks of now: before the first question of [`Monitor::time`].
    pub(crate) fn set_clock(&mut self, now: Instant, since_epoch: Duration) {
        self.clock = Some((now, since_epoch));
    }

    // ---- stations

    /// A station is connected: it is told who we are, the sessions, then the table. `sessions`: those that are up.
    pub(crate) fn add(
        &mut self,
        id: StationId,
        initiation: &Initiation,
        own: Subject,
        sessions: BTreeMap<PeerId, Monitored>,
        rib: &Rib,
    ) {
        let at = self.clock.map(|(_, epoch)| epoch);
        let mut station = Station::new(rib.slots(AfiSafi::Ipv4Unicast), rib.rows());
        station.append(|out| {
            initiation.encode(out);
            message::loc_rib_up(own, at, out);
        });
        for session in sessions.values() {
            station.append(|out| session.up.encode(out));
        }
        self.own = Some(own);
        self.sessions = sessions;
        self.stations.insert(id, station);
    }

    /// A station is gone, or not wanted any more. Returns what may still be said to it.
    pub(crate) fn remove(&mut self, id: StationId, why: Termination) -> Vec<u8> {
        let last = self.stations.remove(&id).map(|station| station.last_octets(why));
        if self.stations.is_empty() {
            *self = Monitor { clock: self.clock, ..Monitor::default() };
        }
        last.unwrap_or_default()
    }

    /// Another AS or router id: all that was told is of somebody else.
    pub(crate) fn start_over(&mut self) {
        self.stations.values_mut().for_each(|station| station.end(Termination::Unspecified));
    }

    /// See [`crate::Speaker::poll_station`]: at most one step of writing.
    pub(crate) fn poll(&mut self, id: StationId, rib: &Rib, now: Instant) -> StationOutput<'_> {
        let at = self.time(now);
        let Monitor { stations, sessions, own, .. } = self;
        let Some(station) = stations.get_mut(&id) else { return StationOutput::Nothing };
        if let Some(own) = *own
            && station.has_room()
            // Paths that were not decided yet will be told as changed.
            && (!rib.is_dirty() || rib.is_deferred())
        {
            write(station, sessions, own, at, rib);
        }
        if let Some(why) = station.over() {
            let last = station.last_octets(why);
            return StationOutput::Over(why, last);
        }
        match (station.octets(), station.is_busy()) {
            (Some(octets), _) => StationOutput::Bytes(octets),
            (None, true) => StationOutput::Again,
            (None, false) => StationOutput::Nothing,
        }
    }

    pub(crate) fn transmitted(&mut self, id: StationId, count: usize) {
        if let Some(station) = self.stations.get_mut(&id) {
            station.transmitted(count);
        }
    }

    // ---- what happens

    fn append(&mut self, write: impl Fn(&mut Vec<u8>)) {
        self.stations.values_mut().for_each(|station| station.append(&write));
    }

    pub(crate) fn session_up(&mut self, peer: PeerId, session: Monitored) {
        self.append(|out| session.up.encode(out));
        self.sessions.insert(peer, session);
    }

    /// Peer Down, of what was said to be up (RFC 7854 §4.9); with it goes all that was told.
    pub(crate) fn session_down(&mut self, peer: PeerId, down: &PeerDown, now: Instant) {
        let at = self.time(now);
        self.stations.values_mut().for_each(|station| station.forget_ends(peer));
        if let Some(session) = self.sessions.remove(&peer) {
            self.append(|out| down.encode(session.up.subject, at, out));
        }
    }

    /// What the table noted since the last call goes to the stations, if there are any.
    pub(crate) fn note(&mut self, rib: &mut Rib) {
        if self.is_watching() {
            let (changes, rows) = (rib.take_changes(), rib.rows());
            self.stations.values_mut().for_each(|station| station.note(&changes, rows));
        }
    }

    /// The peer has told a family, behind what the table noted of it.
    pub(crate) fn end_of_rib(&mut self, peer: PeerId, family: AfiSafi, rib: &mut Rib) {
        self.note(rib);
        self.stations.values_mut().for_each(|station| station.note_end(peer, family));
    }

    /// Messages that were handed to a peer's connection: Adj-RIB-Out after policy is what is sent (RFC 8671 §5.1).
    pub(crate) fn told(&mut self, peer: PeerId, mut messages: &[u8], now: Instant) {
        let at = self.time(now);
        let Monitor { stations, sessions, .. } = self;
        let Some(session) = sessions.get(&peer) else { return };
        while let Ok(Some(length)) = message_length(messages, MAX_EXTENDED_LENGTH) {
            let Some((message, rest)) = messages.split_at_checked(length) else { return };
            messages = rest;
            if message.get(HEADER_LENGTH - 1) == Some(&MessageType::Update.number()) {
                let (subject, table) = (session.up.subject, Table::AdjRibOut);
                for station in stations.values_mut() {
                    station.append(|out| {
                        message::route_monitoring(subject, table, session.two_octets, at, message, out);
                    });
                }
            }
        }
    }

    /// The numbers of one peer.
    pub(crate) fn report(&mut self, peer: PeerId, statistics: Statistics, now: Instant) {
        let at = self.time(now);
        if let Some(subject) = self.sessions.get(&peer).map(|session| session.up.subject) {
            self.append(|out| statistics.encode(subject, at, out));
        }
    }
}

/// One step, of some 2 MiB at most: what changed first, then the next slots of a table that is told for the first time.
fn write(
    station: &mut Station,
    sessions: &BTreeMap<PeerId, Monitored>,
    own: Subject,
    at: Option<Duration>,
    rib: &Rib,
) {
    let is_up = |peer: PeerId| sessions.contains_key(&peer);
    let changes = station.next_changes();
    let told = rib.tell_changes(&changes, &is_up, &mut |peer, table, update| {
        put(station, sessions, own, (peer, table), at, update);
    });
    station.wrote_changes(changes.get(..told).unwrap_or_default());
    while let Some((peer, family)) = station.take_end() {
        let Some(session) = sessions.get(&peer) else { continue };
        for table in [Table::AdjRibIn, Table::AdjRibInPostPolicy] {
            put_end_of_rib(station, session.up.subject, table, family, at);
        }
    }
    if let Some((family, mut walk)) = station.slots() {
        // When these were received is not known any more (RFC 7854 §4.2: 0).
        rib.tell_slots(family, &mut walk, &is_up, &mut |peer, table, update| {
            put(station, sessions, own, (peer, table), None, update);
        });
        station.walked(family, walk, rib.slots(AfiSafi::Ipv6Unicast));
    }
    if station.take_ends() {
        for (peer, session) in sessions {
            for family in &session.families {
                // What the peer told since the station came may still wait, and its own End-of-RIB behind that.
                let is_to_come = station.has_end(*peer, *family);
                for table in [Table::AdjRibIn, Table::AdjRibInPostPolicy, Table::AdjRibOut] {
                    if table == Table::AdjRibOut || !is_to_come {
                        put_end_of_rib(station, session.up.subject, table, *family, at);
                    }
                }
            }
        }
        for family in AfiSafi::ALL {
            put_end_of_rib(station, own, Table::LocRib, family, at);
        }
    }
}

fn put(
    station: &mut Station,
    sessions: &BTreeMap<PeerId, Monitored>,
    own: Subject,
    (peer, table): (Option<PeerId>, Table),
    at: Option<Duration>,
    update: &[u8],
) {
    let session = peer.and_then(|peer| sessions.get(&peer));
    let subject = session.map_or(own, |session| session.up.subject);
    let two_octets = table == Table::AdjRibOut && session.is_some_and(|session| session.two_octets);
    station.append(|out| message::route_monitoring(subject, table, two_octets, at, update, out));
}

/// End-of-RIB behind the first telling of a table (RFC 7854 §5).
fn put_end_of_rib(
    station: &mut Station,
    subject: Subject,
    table: Table,
    family: AfiSafi,
    at: Option<Duration>,
) {
    let mut update = Vec::new();
    update::put_end_of_rib(&mut update, family);
    station.append(|out| message::route_monitoring(subject, table, false, at, &update, out));
}
