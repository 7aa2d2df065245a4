//! Monitoring stations (RFC 7854): we dial, they read. `bgp_proto::bmp` says what is written.
//!
//! ```text
//!   wanted ─► dialling ── connected ──► told the table, then every change ──► lost, or too slow
//!                │                                                                 │
//!                └─ failed ─► waits 1, 2, 4 … 60 s, and dials again ◄──────────────┘
//! ```
//! No station slows a session: what cannot be written at once waits in the speaker, which ends a station that is too far behind.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_proto::Speaker;
use bgp_proto::bmp::message::{Initiation, Termination};
use bgp_proto::bmp::{StationId, StationOutput};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use crate::net;

/// A dial that got no answer by then has failed.
const DIAL: Duration = Duration::from_secs(10);
/// RFC 7854 §3.2 has 30 s that grow to 720 s; a collector that restarts would miss what happens in twelve minutes, and a
/// dial a minute hurts nobody.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A connection that held so long clears the count of failures.
const STABLE: Duration = Duration::from_secs(60);
/// Between two Statistics Reports.
const REPORT: Duration = Duration::from_secs(60);
/// Pieces of at most some 64 KiB that one turn writes to a station.
const TURN: usize = 4;

/// What tasks report.
#[derive(Debug)]
pub(crate) enum StationEvent {
    Dialled { address: SocketAddr, attempt: u64, outcome: io::Result<TcpStream> },
    Writable(StationId),
    Closed { station: StationId, error: String },
}

enum State {
    Waiting(Instant),
    Dialling { attempt: u64, task: AbortHandle },
    Up(Connection),
}

struct Connection {
    id: StationId,
    stream: Arc<TcpStream>,
    reader: AbortHandle,
    /// The task that waits for room in a full socket.
    waiter: Option<AbortHandle>,
    since: Instant,
}

impl Drop for State {
    fn drop(&mut self) {
        match self {
            State::Waiting(_) => {}
            State::Dialling { task, .. } => task.abort(),
            State::Up(connection) => {
                connection.reader.abort();
                if let Some(waiter) = &connection.waiter {
                    waiter.abort();
                }
            }
        }
    }
}

struct Station {
    state: State,
    failures: u32,
    /// Why it is not told anything now.
    problem: Option<String>,
}

pub(crate) struct Stations {
    initiation: Initiation,
    stations: BTreeMap<SocketAddr, Station>,
    events: mpsc::Sender<StationEvent>,
    received: mpsc::Receiver<StationEvent>,
    /// Connections and attempts are numbered and no number is used twice.
    next: u64,
    report_at: Instant,
    /// Some station has more to be written, and room for it.
    is_busy: bool,
    closing: Vec<JoinHandle<()>>,
}

impl Stations {
    pub(crate) fn new(node: &str) -> Self {
        let (events, received) = mpsc::channel(16);
        let sys_descr = format!("Manx bgpd {}", manx_daemon::VERSION);
        Self {
            initiation: Initiation { sys_descr, sys_name: node.to_owned() },
            stations: BTreeMap::new(),
            events,
            received,
            next: 0,
            report_at: Instant::now() + REPORT,
            is_busy: false,
            closing: Vec::new(),
        }
    }

    /// The next thing that happened to a station; never, where there is none.
    pub(crate) async fn next(&mut self) -> StationEvent {
        match self.received.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Dials whom nobody was told of yet, and lets the others go.
    pub(crate) fn want(&mut self, wanted: &BTreeSet<SocketAddr>, speaker: &mut Speaker, now: Instant) {
        let gone: Vec<SocketAddr> =
            self.stations.keys().filter(|address| !wanted.contains(address)).copied().collect();
        for address in gone {
            if let Some(station) = self.stations.remove(&address) {
                tracing::info!(%address, "BMP station removed");
                self.close(station.state, Termination::AdministrativelyClosed, speaker);
            }
        }
        for address in wanted {
            self.stations.entry(*address).or_insert_with(|| {
                tracing::info!(%address, "BMP station");
                Station { state: State::Waiting(now), failures: 0, problem: None }
            });
        }
        self.dial(now);
    }

    /// Dials whose time has come.
    fn dial(&mut self, now: Instant) {
        for (address, station) in &mut self.stations {
            if !matches!(station.state, State::Waiting(until) if until <= now) {
                continue;
            }
            self.next += 1;
            let (events, address, attempt) = (self.events.clone(), *address, self.next);
            let task = tokio::spawn(async move {
                let late = || {
                    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {}s", DIAL.as_secs()))
                };
                let outcome = tokio::time::timeout(DIAL, TcpStream::connect(address)).await;
                let outcome = outcome.unwrap_or_else(|_| Err(late()));
                drop(events.send(StationEvent::Dialled { address, attempt, outcome }).await);
            });
            station.state = State::Dialling { attempt, task: task.abort_handle() };
        }
    }

    /// Takes in what happened to a station.
    pub(crate) fn event(&mut self, event: StationEvent, speaker: &mut Speaker, now: Instant) {
        match event {
            StationEvent::Dialled { address, attempt, outcome } => {
                let is_ours = |station: &&mut Station| matches!(station.state, State::Dialling { attempt: ours, .. } if ours == attempt);
                if self.stations.get_mut(&address).filter(is_ours).is_none() {
                    return;
                }
                match outcome {
                    Ok(stream) => self.connected(address, stream, speaker, now),
                    Err(error) => self.failed(address, &error.to_string(), now),
                }
            }
            StationEvent::Writable(id) => {
                if let Some((_, connection)) = self.connection(id) {
                    connection.waiter = None;
                }
            }
            StationEvent::Closed { station, error } => {
                if let Some((address, _)) = self.connection(station) {
                    drop(speaker.remove_station(station, Termination::Unspecified));
                    self.failed(address, &error, now);
                }
            }
        }
    }

    fn connection(&mut self, id: StationId) -> Option<(SocketAddr, &mut Connection)> {
        self.stations.iter_mut().find_map(|(address, station)| match &mut station.state {
            State::Up(connection) if connection.id == id => Some((*address, connection)),
            State::Up(_) | State::Waiting(_) | State::Dialling { .. } => None,
        })
    }

    fn connected(&mut self, address: SocketAddr, stream: TcpStream, speaker: &mut Speaker, now: Instant) {
        self.next += 1;
        let id = StationId(self.next);
        let since_epoch = jiff::Timestamp::now().as_duration().unsigned_abs();
        if !speaker.add_station(id, &self.initiation, since_epoch, now) {
            return self.failed(address, "BGP is not configured yet", now);
        }
        // What it says is not looked at (RFC 7854 §3.2: nothing is ever sent by a station).
        let (stream, events) = (Arc::new(stream), self.events.clone());
        let reader = tokio::spawn(read_nothing(id, Arc::clone(&stream), events)).abort_handle();
        let Some(station) = self.stations.get_mut(&address) else { return };
        station.state = State::Up(Connection { id, stream, reader, waiter: None, since: now });
        station.problem = None;
        tracing::info!(%address, "BMP station connected");
    }

    /// Says so once, and tries again later.
    fn failed(&mut self, address: SocketAddr, error: &str, now: Instant) {
        let Some(station) = self.stations.get_mut(&address) else { return };
        if let State::Up(connection) = &station.state
            && now.saturating_duration_since(connection.since) >= STABLE
        {
            station.failures = 0;
        }
        let wait = (FIRST_WAIT * (1 << station.failures.min(6))).min(LONGEST_WAIT);
        station.failures = station.failures.saturating_add(1);
        station.state = State::Waiting(now + wait);
        if station.problem.as_deref() != Some(error) {
            tracing::warn!(
                %address, error, r#where = "FabricConfiguration spec.bmpStations", again = ?wait,
                "BMP station is not told"
            );
            station.problem = Some(error.to_owned());
        }
    }

    fn close(&mut self, mut state: State, why: Termination, speaker: &mut Speaker) {
        if let State::Up(connection) = &mut state {
            let last = speaker.remove_station(connection.id, why);
            let stream = Arc::clone(&connection.stream);
            self.closing.push(tokio::spawn(net::last_words(stream, last)));
        }
    }

    /// One turn for each station, so that none keeps a session waiting.
    pub(crate) fn turn(&mut self, speaker: &mut Speaker, now: Instant) {
        self.is_busy = false;
        if self.stations.is_empty() {
            return;
        }
        self.closing.retain(|task| !task.is_finished());
        if self.report_at <= now {
            self.report_at = now + REPORT;
            speaker.report_to_stations(now);
        }
        self.dial(now);
        let mut over = Vec::new();
        for (address, station) in &mut self.stations {
            let State::Up(connection) = &mut station.state else { continue };
            match write(connection, &self.events, speaker, now) {
                Turn::Done => {}
                Turn::More => self.is_busy = true,
                Turn::Over(why, last) => over.push((*address, why, last)),
            }
        }
        for (address, why, last) in over {
            self.too_slow(address, why, last, speaker, now);
        }
    }

    fn too_slow(
        &mut self,
        address: SocketAddr,
        why: Termination,
        last: Vec<u8>,
        speaker: &mut Speaker,
        now: Instant,
    ) {
        let Some(State::Up(connection)) = self.stations.get(&address).map(|station| &station.state) else {
            return;
        };
        drop(speaker.remove_station(connection.id, why));
        self.closing.push(tokio::spawn(net::last_words(Arc::clone(&connection.stream), last)));
        let text = match why {
            Termination::OutOfResources => {
                "it reads too slowly: more than 16 MiB, or more changes than the table has routes, wait; it is told the \
                 table anew"
            }
            Termination::Unspecified => "our AS or router id changed; it is told the table anew",
            Termination::AdministrativelyClosed => "it is not wanted any more",
        };
        self.failed(address, text, now);
    }

    /// When [`Stations::turn`] has something to do though nothing happened.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let waits = self.stations.values().filter_map(|station| match station.state {
            State::Waiting(until) => Some(until),
            State::Dialling { .. } | State::Up(_) => None,
        });
        let report = (!self.stations.is_empty()).then_some(self.report_at);
        waits.chain(report).min()
    }

    /// Who is not told, and why.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        self.stations.iter().filter_map(|(address, station)| {
            station.problem.as_ref().map(|problem| format!("BMP station {address}: {problem}"))
        })
    }

    /// Says goodbye to all.
    pub(crate) async fn stop(mut self, speaker: &mut Speaker) {
        self.turn(speaker, Instant::now());
        for station in std::mem::take(&mut self.stations).into_values() {
            self.close(station.state, Termination::AdministrativelyClosed, speaker);
        }
        for task in std::mem::take(&mut self.closing) {
            drop(task.await);
        }
    }
}

/// What one turn came to.
enum Turn {
    Done,
    More,
    Over(Termination, Vec<u8>),
}

fn write(
    connection: &mut Connection,
    events: &mpsc::Sender<StationEvent>,
    speaker: &mut Speaker,
    now: Instant,
) -> Turn {
    for _ in 0..TURN {
        let output = speaker.poll_station(connection.id, now);
        let octets = match output {
            StationOutput::Nothing => return Turn::Done,
            StationOutput::Again => return Turn::More,
            StationOutput::Over(why, last) => return Turn::Over(why, last),
            StationOutput::Bytes(_) if connection.waiter.is_some() => return Turn::Done,
            StationOutput::Bytes(octets) => octets,
        };
        match connection.stream.try_write(octets) {
            Ok(written) => speaker.station_took(connection.id, written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let (stream, events, id) = (Arc::clone(&connection.stream), events.clone(), connection.id);
                let task = tokio::spawn(async move {
                    drop(stream.writable().await);
                    drop(events.send(StationEvent::Writable(id)).await);
                });
                connection.waiter = Some(task.abort_handle());
                return Turn::Done;
            }
            // The reader sees the same failure and reports it.
            Err(_) => return Turn::Done,
        }
    }
    Turn::More
}

async fn read_nothing(station: StationId, stream: Arc<TcpStream>, events: mpsc::Sender<StationEvent>) {
    let error = match net::until_closed(&stream).await {
        Ok(()) => "the station closed the connection".to_owned(),
        Err(error) => error.to_string(),
    };
    drop(events.send(StationEvent::Closed { station, error }).await);
}
