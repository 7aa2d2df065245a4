//! BFD for the sessions of this node: what is wanted, what is heard, and between both a thread of its own.
//!
//! ```text
//!   driver ── want(desired set) ──► orders ─┐ wake    ┌──────────────────────────────┐
//!                                           ├───────► │ thread: Monitor, UDP sockets │ ◄──► peers
//!   driver ◄── news(), one entry a peer ◄───┘ notify  └──────────────────────────────┘
//! ```
//! The thread waits for nothing but its sockets and its clock: a loop that is busy with a million routes delays no packet.
//! What it has to say waits in one entry a peer until the driver takes it, so neither waits for the other.

mod sockets;
mod thread;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bgp_proto::bfd::{Diagnostic, Figures, Path, SessionConfig, SessionStatus, State, Timing};
use bgp_proto::config::{AdminState, PeerConfig, SpeakerConfig};
use bgp_proto::output::Reason;
use bgp_proto::{AfiSafi, PeerName, Speaker, fsm, link_local};
use felix_kernel::facts::Facts;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use manx_crds::v1alpha1::{BFDProfileSpec, BfdState, BfdStatus, EffectiveSession};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::{Notify, oneshot};

use crate::desire::Desire;
use crate::nexthop;
use crate::objects::Objects;
use crate::session_status::at;

/// What the thread should do.
#[derive(Debug)]
enum Orders {
    /// These sessions, and no others.
    Sessions(BTreeMap<PeerName, SessionConfig>),
    /// AdminDown for all of them (RFC 5880 §6.8.16), then the end.
    Stop,
}

/// What there is to say of one session since the driver asked last.
#[derive(Debug, Clone)]
pub(crate) struct News {
    pub(crate) status: SessionStatus,
    /// It was Up and the path failed, be it Up again or not.
    pub(crate) failure: Option<SessionStatus>,
}

/// What the thread and the driver share; neither holds a lock while it does anything else.
#[derive(Debug)]
struct Shared {
    orders: Mutex<Option<Orders>>,
    wake: EventFd,
    news: Mutex<BTreeMap<PeerName, News>>,
    /// Who wants to know what was counted.
    curious: Mutex<Vec<oneshot::Sender<Figures>>>,
    /// Why some port cannot be listened on.
    deaf: Mutex<Option<String>>,
    notify: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is held is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Bfd {
    shared: Arc<Shared>,
    thread: std::thread::JoinHandle<()>,
    wanted: BTreeMap<PeerName, SessionConfig>,
    known: BTreeMap<PeerName, SessionStatus>,
    /// Why some port cannot be listened on.
    deaf: Option<String>,
    /// The path of some neighbour of a range is watched on account of routes that are kept: until they go, which nobody says.
    outlives: bool,
}

impl Bfd {
    /// Starts the thread; it opens sockets when there is a session. `seed`: nobody should guess a discriminator.
    ///
    /// # Errors
    /// No thread, or no file descriptor.
    pub(crate) fn start(seed: u64) -> std::io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let shared = Arc::new(Shared {
            orders: Mutex::new(None),
            wake: EventFd::from_flags(flags)?,
            news: Mutex::new(BTreeMap::new()),
            curious: Mutex::new(Vec::new()),
            deaf: Mutex::new(None),
            notify: Notify::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(move || thread::Worker::new(theirs, seed).run())?;
        Ok(Self {
            shared,
            thread,
            wanted: BTreeMap::new(),
            known: BTreeMap::new(),
            deaf: None,
            outlives: false,
        })
    }

    /// Takes the whole desired set. What is equal is not touched.
    pub(crate) fn want(&mut self, desire: &Desire, speaker: &Speaker, facts: &Facts) {
        let neighbours = neighbours(desire, speaker);
        self.outlives = neighbours.iter().any(|(_, is_up)| !is_up);
        let neighbours = neighbours.iter().map(|(neighbour, _)| *neighbour);
        let wanted = sessions(desire, neighbours, facts, &self.wanted);
        if wanted != self.wanted {
            self.known.retain(|peer, _| wanted.contains_key(peer));
            self.wanted = wanted;
            self.order(Orders::Sessions(self.wanted.clone()));
        }
    }

    /// Whether a timer of the speaker may have ended the reason for a session.
    pub(crate) fn follows_timers(&self) -> bool {
        self.outlives
    }

    fn order(&self, orders: Orders) {
        *lock(&self.shared.orders) = Some(orders);
        self.wake();
    }

    /// What the thread counted: it says so as soon as it is awake.
    pub(crate) fn figures(&self) -> oneshot::Receiver<Figures> {
        let (answer, receiver) = oneshot::channel();
        lock(&self.shared.curious).push(answer);
        self.wake();
        receiver
    }

    fn wake(&self) {
        // It fails where the count of wake-ups is full: then one is due anyway.
        let _ = self.shared.wake.write(1);
    }

    /// Waits for something to be said, of a session or of the ports; sessions that are not wanted any more are left out.
    pub(crate) async fn news(&mut self) -> Vec<(PeerName, News)> {
        loop {
            let news = std::mem::take(&mut *lock(&self.shared.news));
            let news: Vec<_> = news.into_iter().filter(|(peer, _)| self.wanted.contains_key(peer)).collect();
            let deaf = lock(&self.shared.deaf).clone();
            if !news.is_empty() || deaf != self.deaf {
                self.deaf = deaf;
                self.known.extend(news.iter().map(|(peer, news)| (peer.clone(), news.status)));
                return news;
            }
            self.shared.notify.notified().await;
        }
    }

    /// Says AdminDown to every peer and waits until they had time to hear it: a graceful-restart helper keeps our routes.
    pub(crate) async fn stop(self) {
        self.order(Orders::Stop);
        let thread = self.thread;
        // The thread ends within a second; one that panicked has ended already.
        drop(tokio::task::spawn_blocking(move || thread.join()).await);
    }

    /// How the BFD session of a peer stands, with what keeps it from coming up; none: it has no profile.
    pub(crate) fn view(&self, peer: &PeerName) -> Option<View> {
        self.wanted.get(peer)?;
        Some(View { status: self.known.get(peer).copied(), problem: self.deaf.clone() })
    }
}

/// One BFD session as people see it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// None: it never left Down.
    status: Option<SessionStatus>,
    problem: Option<String>,
}

impl View {
    pub(crate) fn state(&self) -> BfdState {
        self.status.map_or(BfdState::Down, |status| match status.state {
            State::AdminDown => BfdState::AdminDown,
            State::Down => BfdState::Down,
            State::Init => BfdState::Init,
            State::Up => BfdState::Up,
        })
    }

    /// `status.bfd` of the BGPSession.
    pub(crate) fn report(&self, now: Instant, wall: Timestamp) -> BfdStatus {
        let diagnostic = self.status.map(|status| status.diagnostic).filter(|why| *why != Diagnostic::NONE);
        BfdStatus {
            state: self.state(),
            since: self.status.map(|status| Time(at(status.since, now, wall))),
            diagnostic: diagnostic.map(|why| why.to_string()),
        }
    }

    /// Status, reason and message of condition BFDUp.
    pub(crate) fn condition(&self) -> (bool, &'static str, String) {
        match self.status {
            Some(status) if status.state == State::Up => (true, "Up", String::new()),
            Some(status) if status.is_remote_admin_down() => (
                false,
                "AdminDown",
                "the peer has switched BFD off; the BGP session does not end by it".to_owned(),
            ),
            Some(status) if status.diagnostic != Diagnostic::NONE => (false, "Down", why(&status)),
            Some(_) | None => {
                let silent = "the peer was not heard: configure BFD there, and let UDP 3784 (4784 over several hops) pass";
                (false, "Down", self.problem.clone().unwrap_or_else(|| silent.to_owned()))
            }
        }
    }
}

/// Why a session is down, in a sentence.
pub(crate) fn why(status: &SessionStatus) -> String {
    match status.diagnostic {
        Diagnostic::DETECTION_TIME_EXPIRED => {
            format!("{}: nothing was heard from the peer for the detection time", status.diagnostic)
        }
        Diagnostic::NEIGHBOR_SIGNALED_DOWN => format!(
            "{}: the peer says {}, {}",
            status.diagnostic, status.remote_state, status.remote_diagnostic
        ),
        other => other.to_string(),
    }
}

/// Where a BFDProfile is named.
pub(crate) fn profile_field(is_own: bool, own: &'static str) -> &'static str {
    if is_own { own } else { "spec.session.bfdProfile of FabricConfiguration default" }
}

/// Puts the timers of a session into `desire`, or what is missing.
pub(crate) fn require(
    session: &EffectiveSession,
    field: &str,
    objects: &Objects,
    peer: &PeerName,
    desire: &mut Desire,
) {
    let Some(name) = &session.bfd_profile else { return };
    match objects.bfd_profiles.named(name) {
        Some(profile) => drop(desire.bfd.insert(peer.clone(), timing(&profile.spec))),
        None => {
            let text = format!("{field}: there is no BFDProfile {name}: create it, or name another");
            desire.bfd_missing.insert(peer.clone(), text);
        }
    }
}

fn timing(profile: &BFDProfileSpec) -> Timing {
    Timing {
        desired_min_tx: profile.transmit_interval.get(),
        required_min_rx: profile.receive_interval.get(),
        detect_multiplier: profile.detect_multiplier,
        passive: profile.passive,
    }
}

/// Whose profile is missing goes on as it was before, with the timers of then, and says so; a peer that is new or was
/// waiting already is not tried (fail static, api.md law 6).
pub(crate) fn resolve_missing(desire: &mut Desire, last: &Desire) {
    for (peer, text) in std::mem::take(&mut desire.bfd_missing) {
        let ran = last.speaker.as_ref().and_then(|speaker| settings(speaker, &peer));
        let ran = ran.is_some_and(|before| !matches!(before.admin, AdminState::Withheld { .. }));
        if ran {
            if let Some(timing) = last.bfd.get(&peer) {
                desire.bfd.insert(peer.clone(), *timing);
            }
            desire.remarks.push(format!("{peer} goes on as before: {text}"));
        } else if let Some(SpeakerConfig { peers, ranges, .. }) = &mut desire.speaker
            && let Some(config) =
                peers.get_mut(&peer).or_else(|| ranges.get_mut(&peer).map(|range| &mut range.peer))
            && config.admin == AdminState::Up
        {
            config.admin = AdminState::Withheld { reason: Reason::BFDDown, text };
        }
    }
}

/// What a peer, or every neighbour of a range, is to be.
fn settings<'a>(speaker: &'a SpeakerConfig, name: &PeerName) -> Option<&'a PeerConfig> {
    speaker.peers.get(name).or_else(|| speaker.ranges.get(name).map(|range| &range.peer))
}

/// A neighbour of a range: its name, and how it is timed.
type Neighbour<'a> = (&'a PeerName, &'a PeerConfig, Timing);

/// Whether the paths of neighbours depend on how their sessions stand.
pub(crate) fn watches_ranges(desire: &Desire) -> bool {
    let ranges = desire.speaker.iter().flat_map(|config| config.ranges.keys());
    ranges.into_iter().any(|range| desire.bfd.contains_key(range))
}

/// The neighbours of ranges whose path is watched, and whether their session is up. Whoever dials may say who he is before
/// anything is sent to him: there is BFD while the BGP session is Established, and for as long as routes of one that ended are
/// kept.
fn neighbours<'a>(desire: &Desire, speaker: &'a Speaker) -> Vec<(Neighbour<'a>, bool)> {
    let of_ranges = speaker.peers().filter_map(|(name, config, range)| {
        let timing = desire.bfd.get(range?)?;
        let status = speaker.peer(name)?;
        let is_up = status.state == fsm::State::Established;
        let keeps = status.families.iter().any(|family| family.stale > 0);
        (is_up || keeps).then_some(((name, config, *timing), is_up))
    });
    of_ranges.collect()
}

/// The sessions that should be there: of peers that should be up, on the path that BGP takes. A path that is gone for
/// now is the one of before: that its session goes down is what BFD is for.
fn sessions<'a>(
    desire: &'a Desire,
    neighbours: impl Iterator<Item = Neighbour<'a>>,
    facts: &Facts,
    last: &BTreeMap<PeerName, SessionConfig>,
) -> BTreeMap<PeerName, SessionConfig> {
    let named = desire.bfd.iter().filter_map(|(name, timing)| {
        let config = desire.speaker.as_ref()?.peers.get(name)?;
        Some((name, config, *timing))
    });
    let wanted = named.chain(neighbours).filter_map(|(name, config, timing)| {
        if matches!(config.admin, AdminState::Shutdown { .. }) {
            return None;
        }
        let before = last.get(name).map(|session| session.path).filter(|path| leads_to(path, config.remote));
        let path = path(config, facts).or(before)?;
        Some((name.clone(), SessionConfig { path, timing }))
    });
    wanted.collect()
}

/// Whether a path is one to this peer.
fn leads_to(path: &Path, remote: IpAddr) -> bool {
    match link_local::parts(remote) {
        Some((remote, interface)) => path.remote == IpAddr::V6(remote) && path.interface == Some(interface),
        None => path.remote == remote,
    }
}

/// Over one link for a peer that may be one hop away (RFC 5881), else over several hops (RFC 5883).
fn path(config: &PeerConfig, facts: &Facts) -> Option<Path> {
    if let Some((remote, interface)) = link_local::parts(config.remote) {
        let local = link_local::wire(config.local_address?);
        return Some(Path { remote: IpAddr::V6(remote), local, interface: Some(interface), multihop: false });
    }
    let remote = config.remote;
    let found = facts.resolve(remote, None);
    if config.max_hops > 1 {
        let local = config.local_address.or_else(|| found?.source)?;
        return Some(Path { remote, local, interface: None, multihop: true });
    }
    let link = nexthop::link_addresses(facts, remote);
    let on_link = match AfiSafi::of_address(remote) {
        AfiSafi::Ipv4Unicast => link.ipv4.map(IpAddr::V4),
        AfiSafi::Ipv6Unicast => link.ipv6.map(IpAddr::V6),
    };
    let local = config.local_address.or(on_link)?;
    Some(Path { remote, local, interface: Some(found?.ifindex), multihop: false })
}

#[cfg(test)]
mod tests;
