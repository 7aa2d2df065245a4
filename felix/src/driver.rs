//! THE loop: wait for one thing, take it in, then let everything that follows from it happen.
//!
//! ```text
//!   store ──► Objects ──► CalcGraph ── flush ──► dataplane thread ──► nftables, routes
//!   shim ───► Call ─────► ADD, DEL ──► Allocator ──► journal thread, store
//!   kernel ─► facts ────► settings                 └─► wiring (blocking task)
//! ```
//! One owner of the graph, the allocator and the attachments. Threads and tasks carry out and report; a restart
//! begins from the journal, the kernel and the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use felix_calc::plan::Touched;
use felix_calc::{CalcGraph, EndpointId};
use felix_kernel::monitor::{KernelEvent, Monitor};
use felix_kernel::netlink::RouteSocket;
use felix_kernel::route::Route;
use ipnet::IpNet;
use jiff::Timestamp;
use manx_cni::request::Verb;
use manx_crds::store::{Key, Store};
use manx_daemon::control::Question;
use manx_daemon::inputs::keeper::Keeper;
use manx_ipam::allocator::{Allocator, Input, Now, RequestId, StoreAnswer, StoreId, StoreRequest};
use manx_ipam::journal::Attachment;
use tokio::sync::{mpsc, oneshot};

use crate::add::Add;
use crate::address::Chosen;
use crate::cni::Call;
use crate::dataplane::{Command, Dataplane, Generation, Outcome, Routes};
use crate::del::Del;
use crate::install::{Found, Installing};
use crate::journal::Journal;
use crate::network::Told;
use crate::objects::{Change, Objects};
use crate::services::Services;
use crate::source_prefixes::SourcePrefixes;
use crate::status::Status;
use crate::wiring::{Ends, WiringError};
use crate::{allocation, control};

/// What nobody waits for is taken together for this long.
const SETTLE: Duration = Duration::from_millis(100);
/// Flows that were confirmed while connections were listed are met by a second look.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// What tasks report.
#[derive(Debug)]
pub(crate) enum Event {
    Store {
        id: StoreId,
        answer: Box<StoreAnswer>,
    },
    Wired {
        id: RequestId,
        ends: Ends,
        outcome: Result<u32, WiringError>,
    },
    /// The container runtime's directories were looked at.
    Installed(Result<Vec<Found>, String>),
    /// Everything up to this record is on disk, or this one could not be written (yet). In the order of the records.
    Journaled {
        sequence: u64,
        outcome: Result<(), String>,
    },
}

/// Everything that reaches the loop, beside its timer and the kernel.
pub(crate) struct Sources {
    pub(crate) changes: mpsc::Receiver<Change>,
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) outcomes: mpsc::UnboundedReceiver<Outcome>,
    pub(crate) questions: mpsc::Receiver<Question>,
}

/// One interface of one sandbox that exists on this node.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) host_interface: String,
    pub(crate) index: u32,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) sources: SourcePrefixes,
}

/// What happens to a table that was handed over.
#[derive(Debug, Default)]
pub(crate) struct Programming {
    pub(crate) handed_over: Generation,
    pub(crate) switched: Generation,
    /// The graph knows something that no table handed over says.
    pub(crate) dirty: Option<Instant>,
    /// Somebody waits for it.
    pub(crate) urgent: bool,
    pub(crate) routes: Routes,
    /// The next hand-over reads the kernel first.
    pub(crate) resync: bool,
    pub(crate) retry_at: Option<Instant>,
    pub(crate) failures: u32,
    pub(crate) error: Option<String>,
    pub(crate) refused_routes: BTreeMap<String, String>,
    /// The kernel holds what the objects say, for the first time since the start.
    pub(crate) complete: bool,
    pub(crate) last_policies: Vec<String>,
    /// Who came and went before that: a table that was found is changed for them alone.
    pub(crate) touched: Touched,
    /// Addresses whose connections are judged when the store's word is in force, not a memory's.
    pub(crate) unjudged: BTreeSet<IpAddr>,
    /// Somebody else changed a table that was found.
    pub(crate) disturbed: bool,
}

impl Programming {
    /// An endpoint comes or goes.
    pub(crate) fn touch(&mut self, attached: &Attached) {
        if !self.complete {
            self.touched.interfaces.insert(attached.host_interface.clone());
            self.touched.addresses.extend(&attached.addresses);
        }
    }
}

pub(crate) struct Driver<S: Store> {
    pub(crate) node: String,
    pub(crate) store: S,
    pub(crate) objects: Objects,
    pub(crate) graph: CalcGraph,
    pub(crate) allocator: Allocator,
    pub(crate) journal: Journal,
    pub(crate) dataplane: Dataplane,
    pub(crate) monitor: Monitor,
    pub(crate) host: Arc<RouteSocket>,
    pub(crate) status: Status,
    pub(crate) events: mpsc::UnboundedSender<Event>,

    pub(crate) attached: BTreeMap<Attachment, Attached>,
    /// Endpoints in the graph by pod.
    pub(crate) endpoints: BTreeMap<Key, BTreeSet<EndpointId>>,
    pub(crate) adds: BTreeMap<RequestId, Add>,
    pub(crate) dels: BTreeMap<RequestId, Del>,
    pub(crate) next_request: u64,
    pub(crate) programming: Programming,
    pub(crate) recheck: BTreeMap<Generation, BTreeSet<IpAddr>>,
    pub(crate) second_looks: VecDeque<(Instant, BTreeSet<IpAddr>)>,
    /// When the routes to pods are compared with the kernel's.
    pub(crate) look_routes: Option<Instant>,
    pub(crate) journal_next: u64,
    /// The last record of which the journal has said anything.
    pub(crate) journal_acked: u64,
    /// The last record of which it has said that it is on disk, with all before it.
    pub(crate) journal_saved: u64,
    pub(crate) journal_failed: BTreeMap<u64, String>,
    /// Requests to the store that wait for the journal.
    pub(crate) gated: VecDeque<(u64, StoreId, StoreRequest)>,
    pub(crate) settings_problems: Vec<String>,
    /// What this node goes by.
    pub(crate) chosen: Chosen,
    pub(crate) told: Told,
    pub(crate) installing: Installing,
    pub(crate) services: Services,
    /// What we work from when the store is silent.
    pub(crate) inputs: Keeper,
    /// What this node originates of them.
    pub(crate) service_prefixes: BTreeSet<IpNet>,
    pub(crate) started: Instant,
}

impl<S: Store> Driver<S> {
    /// Runs until a signal asks for the end.
    pub(crate) async fn run(
        mut self,
        mut sources: Sources,
        mut stop: oneshot::Receiver<()>,
    ) -> anyhow::Result<()> {
        self.begin();
        loop {
            let timer = self.deadline();
            tokio::select! {
                biased;
                _ = &mut stop => {
                    tracing::info!("stopping; pods, routes and rules stay in the kernel");
                    let gather = self.objects.gather(&self.service_prefixes);
                    self.inputs.finish(gather).await;
                    return Ok(());
                }
                Some(outcome) = sources.outcomes.recv() => self.outcome(outcome),
                Some(event) = sources.events.recv() => self.event(event),
                Some(call) = sources.calls.recv() => self.call(call),
                Some(change) = sources.changes.recv() => {
                    self.objects.take(change);
                    // What came with it is taken with it.
                    while let Ok(change) = sources.changes.try_recv() {
                        self.objects.take(change);
                    }
                }
                events = self.monitor.changed() => self.kernel(&events?),
                Some(question) = sources.questions.recv() => control::answer(&self, question),
                () = sleep_until(timer) => {}
            }
            self.follow_up();
        }
    }

    /// The first table: the closed one where the kernel holds none, so that nothing of ours is ever open.
    fn begin(&mut self) {
        self.programming.resync = true;
        self.dirty(true);
        self.flush(Instant::now());
    }

    /// Everything that follows, in order: objects → graph, allocator → journal and store, graph → kernel.
    fn follow_up(&mut self) {
        let now = Instant::now();
        self.digest_news();
        self.tick_inputs(now);
        let at = self.now();
        if self.allocator.poll_timeout(at).is_some_and(|due| due <= at.monotonic) {
            self.allocator.handle_input(Input::Timeout, at);
        }
        self.expire_adds(now);
        self.drain_allocator();
        self.flush(now);
        while self.second_looks.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, addresses)) = self.second_looks.pop_front()
        {
            self.judge(addresses);
        }
        if self.look_routes.is_some_and(|at| at <= now) {
            self.look_routes = None;
            self.dataplane.send(Command::LookRoutes(self.pod_routes()));
        }
        self.tick_status(now);
        self.tick_network(now);
        self.tick_install(now);
    }

    fn deadline(&self) -> Option<Instant> {
        let allocator = self.allocator.poll_timeout(self.now()).and_then(|due| self.started.checked_add(due));
        // While nothing may be handed over, what ends that wakes the loop.
        let flush = match self.programming.dirty {
            Some(since) if !self.programming.urgent && !self.is_busy() && self.may_program() => {
                since.checked_add(SETTLE).filter(|_| self.programming.retry_at.is_none())
            }
            Some(_) | None => None,
        };
        let second_look = self.second_looks.front().map(|(at, _)| *at);
        [
            allocator,
            flush,
            second_look,
            self.programming.retry_at.filter(|_| self.may_program()),
            self.look_routes,
            self.next_add_deadline(),
            self.status.next_tick(),
            self.told.next_tick(),
            self.inputs.next_tick(),
            self.installing.next_tick().filter(|_| self.serves()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The allocator's two clocks.
    pub(crate) fn now(&self) -> Now {
        Now { monotonic: self.started.elapsed(), wall: Timestamp::now() }
    }

    fn call(&mut self, call: Call) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        match call.request.verb {
            Verb::Add => self.begin_add(id, call),
            Verb::Del => self.begin_del(id, call),
            Verb::Check => self.begin_check(call),
            Verb::Gc => self.begin_collect(call),
            Verb::Status => self.answer_status(call),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Store { id, answer } => {
                let now = self.now();
                self.allocator.handle_input(Input::Answer { id, answer: *answer }, now);
            }
            Event::Installed(outcome) => self.installed(outcome),
            Event::Wired { id, ends, outcome } => self.wired(id, &ends, outcome),
            Event::Journaled { sequence, outcome } => {
                self.journal_acked = self.journal_acked.max(sequence);
                match outcome {
                    Ok(()) => {
                        self.journal_saved = self.journal_saved.max(sequence);
                        self.journal_failed = self.journal_failed.split_off(&(sequence + 1));
                    }
                    Err(error) => drop(self.journal_failed.insert(sequence, error)),
                }
                allocation::release_gated(self);
                self.answer_ready();
            }
        }
    }

    fn kernel(&mut self, events: &[KernelEvent]) {
        // With an interface or the node's address the kernel drops routes, and says so of none or of few of them.
        let (mut node, mut routes) = (false, false);
        for event in events {
            match event {
                KernelEvent::Link(link) | KernelEvent::LinkGone(link) => {
                    node = true;
                    routes |= self.attached.values().any(|attached| attached.index == link.index);
                }
                KernelEvent::Address(_) | KernelEvent::AddressGone(_) | KernelEvent::Resync => {
                    (node, routes) = (true, true);
                }
                // Our own removals are heard too: those are of pods that are no longer attached.
                KernelEvent::OwnRouteGone(gone) => {
                    let gone = gone.destination.addr();
                    routes |= self.attached.values().any(|attached| attached.addresses.contains(&gone));
                }
                KernelEvent::Neighbour(_)
                | KernelEvent::NeighbourGone(_)
                | KernelEvent::Routes
                // No route of ours goes by one.
                | KernelEvent::OwnObjectGone => {}
            }
        }
        self.objects.news.node |= node;
        if routes {
            self.look_routes = self.look_routes.or_else(|| Instant::now().checked_add(SETTLE));
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Switched { generation, took, changes } => self.switched(generation, took, changes),
            Outcome::Done { generation } => {
                if generation == self.programming.handed_over {
                    self.programming.failures = 0;
                    self.programming.error = None;
                    self.status.touch();
                }
            }
            Outcome::Failed { generation, error } => self.failed(generation, error),
            Outcome::ReversePathStays { interface, error } => self.reverse_path_stays(&interface, &error),
            Outcome::Connections { addresses, entries } => self.cut_denied(&addresses, &entries),
            Outcome::Cut(cut) => {
                if cut > 0 {
                    tracing::info!(cut, "connections cut that the policy denies now");
                }
            }
            Outcome::Touched { what } => {
                tracing::warn!(gone = what, "the ruleset was changed by somebody else");
                self.status.repaired(&what);
                self.programming.resync = true;
                self.programming.disturbed = true;
                // What was handed over in the meantime is not carried out, and nothing more is said of it.
                self.programming.retry_at = Some(Instant::now());
                self.dirty(true);
            }
            Outcome::RoutesRefused(refused) => {
                for (prefix, error) in &refused {
                    tracing::warn!(prefix, error, "the kernel refuses a route to a pod");
                }
                self.programming.refused_routes = refused;
                self.status.touch();
                self.answer_ready();
            }
        }
    }

    fn switched(&mut self, generation: Generation, took: Duration, changes: usize) {
        let first = self.programming.switched.0 == 0;
        self.programming.switched = generation;
        if changes > 0 || first {
            let policies = std::mem::take(&mut self.programming.last_policies);
            tracing::info!(
                changes,
                policies = policies.join(" "),
                took = manx_daemon::log::took(took),
                "ruleset applied"
            );
        }
        if !self.programming.complete && self.objects.in_sync() && generation == self.programming.handed_over
        {
            self.programming.complete = true;
            tracing::info!(pods = self.attached.len(), "in sync with the datastore and the kernel");
        }
        let due: Vec<Generation> = self.recheck.range(..=generation).map(|(g, _)| *g).collect();
        let mut addresses = BTreeSet::new();
        for generation in due {
            addresses.extend(self.recheck.remove(&generation).unwrap_or_default());
        }
        if !addresses.is_empty() {
            let again = Instant::now().checked_add(SECOND_LOOK).unwrap_or_else(Instant::now);
            self.second_looks.push_back((again, addresses.clone()));
            self.judge(addresses);
        }
        self.status.touch();
        self.after_switch(generation);
        self.answer_ready();
    }

    fn failed(&mut self, generation: Generation, error: String) {
        let failures = self.programming.failures.saturating_add(1);
        tracing::error!(
            error,
            generation = generation.0,
            effect = "the kernel keeps the rules it has; ADD waits",
            r#do = "felix reads the kernel and tries again",
            "policy not programmed"
        );
        self.programming.failures = failures;
        self.programming.error = Some(error);
        self.programming.resync = true;
        let pause = Duration::from_millis(200).saturating_mul(1 << failures.min(7));
        self.programming.retry_at = Instant::now().checked_add(pause);
        self.status.touch();
    }

    /// Hands the next table over, when the last one decides and either somebody waits or nothing more is coming.
    fn flush(&mut self, now: Instant) {
        let retry = self.programming.retry_at.is_some_and(|at| at <= now);
        if self.programming.retry_at.is_some() && !retry {
            return;
        }
        let due = self
            .programming
            .dirty
            .is_some_and(|since| self.programming.urgent || now.duration_since(since) >= SETTLE);
        if self.is_busy() || !(due || retry) || !self.may_program() {
            return;
        }
        self.programming.retry_at = None;
        self.programming.dirty = None;
        self.programming.urgent = false;
        let flush = self.graph.flush();
        self.programming.handed_over = Generation(self.programming.handed_over.0 + 1);
        let generation = self.programming.handed_over;
        self.note_flush(&flush);
        let recheck = self.judged_now(flush.recheck);
        if !recheck.is_empty() {
            self.recheck.insert(generation, recheck);
        }
        let routes = std::mem::take(&mut self.programming.routes);
        let keep = self.keeps_found().then(|| self.programming.touched.clone());
        let resync = std::mem::take(&mut self.programming.resync) || keep.is_some();
        let command = if resync {
            Command::Resync {
                generation,
                table: Box::new(self.graph.table().clone()),
                routes: self.pod_routes(),
                sweep: self.objects.in_sync(),
                keep,
            }
        } else {
            Command::Apply { generation, plan: Box::new(flush.plan), routes }
        };
        self.mark_handed_over(generation);
        self.dataplane.send(command);
    }

    /// The last table handed over does not decide yet, and nobody has said that it will not.
    fn is_busy(&self) -> bool {
        self.programming.switched < self.programming.handed_over && self.programming.retry_at.is_none()
    }

    /// Before the store was heard whole, a table that was found is changed only for those who come and go, and an
    /// empty kernel gets the closed table, then the one that the memory makes.
    pub(crate) fn may_program(&self) -> bool {
        let remembered = self.inputs.is_recalled();
        if self.heard() {
            true
        } else if self.status.adopted_table() {
            remembered && (self.programming.disturbed || !self.programming.touched.is_empty())
        } else {
            remembered || self.programming.handed_over.0 == 0
        }
    }

    /// What the store says is in the kernel, or may be.
    fn heard(&self) -> bool {
        self.objects.in_sync() || self.programming.complete
    }

    fn keeps_found(&self) -> bool {
        !self.heard() && self.status.adopted_table()
    }

    /// A memory may be older than what let a connection in: only those of endpoints that came or went are judged by it.
    fn judged_now(&mut self, mut recheck: BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        if self.heard() {
            self.programming.touched = Touched::default();
            recheck.append(&mut self.programming.unjudged);
            return recheck;
        }
        let touched = &self.programming.touched.addresses;
        let (now, later) = recheck.into_iter().partition(|address| touched.contains(address));
        self.programming.unjudged.extend::<BTreeSet<IpAddr>>(later);
        now
    }

    /// Rules are in force, and the objects that an ADD is judged by are known or remembered.
    pub(crate) fn serves(&self) -> bool {
        let decided = self.programming.switched.0 > 0;
        if self.objects.in_sync() {
            decided
        } else {
            self.inputs.is_recalled() && (decided || self.status.adopted_table())
        }
    }

    /// The kernel holds all that there is to go by.
    pub(crate) fn is_settled(&self) -> bool {
        self.programming.complete || (self.inputs.is_recalled() && self.serves())
    }

    /// All routes to pods of this node.
    pub(crate) fn pod_routes(&self) -> Vec<Route> {
        self.attached.values().flat_map(|attached| self.routes_of(attached)).collect()
    }

    fn judge(&self, addresses: BTreeSet<IpAddr>) {
        // What a pod sent under other addresses is found by none of its own.
        let mut borrowers = felix_calc::conntrack::borrowers(self.graph.state());
        let whole = borrowers.any(|borrower| !borrower.addresses.is_disjoint(&addresses));
        self.dataplane.send(Command::ListConnections { addresses, whole });
    }

    fn cut_denied(&self, addresses: &BTreeSet<IpAddr>, entries: &[felix_calc::conntrack::Entry]) {
        let denied = felix_calc::conntrack::denied(self.graph.state(), addresses, entries);
        if !denied.is_empty() {
            self.dataplane.send(Command::Cut(denied));
        }
    }

    /// Something that the graph was told must reach the kernel; `urgent` if somebody waits for it.
    pub(crate) fn dirty(&mut self, urgent: bool) {
        self.programming.dirty.get_or_insert_with(Instant::now);
        self.programming.urgent |= urgent;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
