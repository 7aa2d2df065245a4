//! The kernel's side of policy and pod routes, on a thread of its own: it owns the nftables writer and the table of
//! local routes, does one command after the other, and reports.
//!
//! ```text
//!   loop ── Apply { plan, routes } ──► add, switch ──► Switched ──► remove ──► Done
//!        ── Resync { table, routes } ► read, plan, the same
//!        ◄── Failed: what follows is refused until a Resync comes
//! ```
//! An ADD waits for *switch* and never for *remove*.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use felix_calc::conntrack::Entry;
use felix_calc::host::ROUTE_PROTOCOL_LOCAL;
use felix_calc::plan::{Plan, Touched, Transaction, keep_found, plan};
use felix_calc::table::Table;
use felix_calc::{CalcGraph, NodeSettings};
use felix_kernel::conntrack::{Conntrack, Wanted};
use felix_kernel::link;
use felix_kernel::netlink::RouteSocket;
use felix_kernel::nft::{Counters, Foreign, NftError, PolicyTable, Watch};
use felix_kernel::route::{Route, RouteKey, RouteState, RouteTable};
use felix_kernel::sysctl::{self, Sysctl};
use tokio::sync::mpsc as queue;

/// How often the kernel is looked at when nothing happens: a foreign flush is repaired within this.
const LOOK: Duration = Duration::from_millis(500);

/// A listing of everything costs as much as this many filtered pairs (policy-compiler: 100 ms against 22 ms each way).
const FILTERED: usize = 4;

/// Numbers the tables that were handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Generation(pub(crate) u64);

/// Routes to local pods: wanted, or no longer.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) set: Vec<Route>,
    pub(crate) withdraw: Vec<RouteKey>,
}

#[derive(Debug)]
pub(crate) enum Command {
    /// From the table handed over before to the next one.
    Apply { generation: Generation, plan: Box<Plan>, routes: Routes },
    /// From whatever the kernel holds to this table and these routes. `sweep`: what else of ours is there goes.
    /// `keep`: of a table that is there, only what speaks of these changes.
    Resync {
        generation: Generation,
        table: Box<Table>,
        routes: Vec<Route>,
        sweep: bool,
        keep: Option<Touched>,
    },
    /// The kernel may have dropped routes without a word: these are all that there should be.
    LookRoutes(Vec<Route>),
    /// Connections of these addresses are wanted for judgement; `whole`: with those of no end that is known.
    ListConnections { addresses: BTreeSet<IpAddr>, whole: bool },
    /// Connections that the policy now denies.
    Cut(Vec<Entry>),
    /// Links of pods that are gone.
    DeleteLinks(Vec<String>),
    /// Whether a pod's link takes only what is routed back through it.
    ReversePath { interface: String, index: u32, strict: bool },
    /// Packets and bytes of every counted rule.
    ReadCounters(tokio::sync::oneshot::Sender<Counters>),
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// The table of this generation decides now.
    Switched { generation: Generation, took: Duration, changes: usize },
    /// And nothing of the older ones is left.
    Done { generation: Generation },
    /// The kernel refused; everything up to here is to be resynced.
    Failed { generation: Generation, error: String },
    /// What was asked for, beside for whom: several questions may be under way.
    Connections { addresses: BTreeSet<IpAddr>, entries: Vec<Entry> },
    /// The kernel drops what is not routed back through this link, and is not to.
    ReversePathStays { interface: String, error: String },
    /// How many connections were cut.
    Cut(usize),
    /// Somebody else changed our table.
    Touched { what: String },
    /// The routes that the kernel does not take, by destination.
    RoutesRefused(BTreeMap<String, String>),
}

/// The loop's end.
#[derive(Debug, Clone)]
pub(crate) struct Dataplane {
    commands: mpsc::Sender<Command>,
}

impl Dataplane {
    /// Starts the thread. The table that the kernel holds from before is adopted, not touched.
    ///
    /// # Errors
    /// Where the kernel cannot be spoken to.
    pub(crate) fn start() -> anyhow::Result<Started> {
        let socket = RouteSocket::open()?;
        let mut routes = RouteTable::new(ROUTE_PROTOCOL_LOCAL);
        let adopted_routes = routes.adopt(&socket)?;
        let mut nft = PolicyTable::open()?;
        let watch = nft.watch()?;
        let reading = nft.read()?;
        // Opening makes an empty table where there is none: only chains can decide anything.
        let adopted = Adopted { table: decides(&reading.table), routes: adopted_routes };
        let conntrack = Conntrack::open()?;
        let (commands, receiver) = mpsc::channel();
        let (outcomes, outcome) = queue::unbounded_channel();
        let worker = Worker {
            nft,
            watch,
            conntrack,
            socket,
            routes,
            outcomes,
            poisoned: false,
            refused: BTreeMap::new(),
        };
        thread::Builder::new().name("dataplane".to_owned()).spawn(move || worker.run(&receiver))?;
        Ok((Self { commands }, outcome, adopted))
    }

    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("the dataplane thread is gone; the kernel keeps what it has");
        }
    }
}

/// The loop's end, what it hears, and what was found.
pub(crate) type Started = (Dataplane, queue::UnboundedReceiver<Outcome>, Adopted);

/// What an earlier life left in the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adopted {
    pub(crate) table: bool,
    pub(crate) routes: usize,
}

/// A table that says something of pods. The closed one, which a process that died early leaves, is as good as none.
fn decides(table: &Table) -> bool {
    let mut nothing = CalcGraph::new(NodeSettings::default());
    nothing.flush();
    !table.chains.is_empty() && table != nothing.table()
}

struct Worker {
    nft: PolicyTable,
    watch: Watch,
    conntrack: Conntrack,
    socket: RouteSocket,
    routes: RouteTable,
    outcomes: queue::UnboundedSender<Outcome>,
    /// A plan failed: the next ones build on what is not there.
    poisoned: bool,
    refused: BTreeMap<String, String>,
}

impl Worker {
    fn run(mut self, commands: &mpsc::Receiver<Command>) {
        loop {
            match commands.recv_timeout(LOOK) {
                Ok(command) => self.obey(command),
                Err(mpsc::RecvTimeoutError::Timeout) => self.look(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Apply { generation, plan, routes } => self.apply(generation, &plan, routes),
            Command::Resync { generation, table, routes, sweep, keep } => {
                self.routes_resync(routes, sweep);
                self.resync(generation, &table, keep.as_ref());
            }
            Command::LookRoutes(routes) => {
                self.want(routes);
                self.routes.mark_stale();
                self.routes.wake();
                self.apply_routes();
            }
            Command::ListConnections { addresses, whole } => match self.connections(&addresses, whole) {
                Ok(entries) => self.report(Outcome::Connections { addresses, entries }),
                Err(error) => {
                    tracing::warn!(%error, effect = "established flows stay", "connections not listed")
                }
            },
            Command::Cut(entries) => self.cut(&entries),
            Command::DeleteLinks(names) => self.delete_links(&names),
            Command::ReversePath { interface, index, strict } => self.reverse_path(interface, index, strict),
            Command::ReadCounters(answer) => match self.nft.counters() {
                // Who asked may have given up.
                Ok(counters) => drop(answer.send(counters)),
                Err(error) => tracing::warn!(%error, "counters not read"),
            },
        }
    }

    fn apply(&mut self, generation: Generation, plan: &Plan, routes: Routes) {
        if self.poisoned {
            return;
        }
        for key in &routes.withdraw {
            self.routes.withdraw(key);
        }
        self.want(routes.set);
        self.execute(generation, plan);
    }

    fn routes_resync(&mut self, routes: Vec<Route>, sweep: bool) {
        let wanted: Vec<RouteKey> = routes.iter().map(Route::key).collect();
        let stale: Vec<RouteKey> =
            self.routes.wanted().copied().filter(|key| !wanted.contains(key)).collect();
        for key in &stale {
            self.routes.withdraw(key);
        }
        self.want(routes);
        if sweep {
            self.routes.sweep(|_| true);
        }
        self.routes.mark_stale();
    }

    fn resync(&mut self, generation: Generation, table: &Table, keep: Option<&Touched>) {
        self.poisoned = false;
        match self.nft.read() {
            Ok(actual) => {
                // An empty one decides nothing: it is made whole.
                let kept = keep.filter(|_| !actual.table.chains.is_empty());
                if let Some(touched) = kept {
                    match keep_found(&actual.table, table, touched) {
                        Ok(table) => self.execute(generation, &plan(&actual.table, &table)),
                        Err(error) => self.fail(generation, error.to_string()),
                    }
                    return;
                }
                if !actual.unknown.is_empty() {
                    tracing::warn!(
                        objects = actual.unknown.join(" "),
                        "somebody put these into our table: they go"
                    );
                }
                let plan = plan(&actual.table, table);
                self.execute(generation, &plan);
            }
            Err(error) => self.fail(generation, error.to_string()),
        }
    }

    fn want(&mut self, routes: Vec<Route>) {
        for route in routes {
            if let Err(error) = self.routes.set(route) {
                tracing::error!(%error, "a route that cannot be");
            }
        }
    }

    fn execute(&mut self, generation: Generation, plan: &Plan) {
        let began = Instant::now();
        self.apply_routes();
        let [add, switch, remove] = plan.transactions();
        if let Err(error) = self.commit(add).and_then(|()| self.commit(switch)) {
            self.fail(generation, error.to_string());
            return;
        }
        let changes = add.0.len() + switch.0.len() + remove.0.len();
        self.report(Outcome::Switched { generation, took: began.elapsed(), changes });
        match self.commit(remove) {
            Ok(()) => self.report(Outcome::Done { generation }),
            Err(error) => self.fail(generation, error.to_string()),
        }
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), NftError> {
        self.nft.commit(transaction)
    }

    fn fail(&mut self, generation: Generation, error: String) {
        self.poisoned = true;
        self.report(Outcome::Failed { generation, error });
    }

    fn apply_routes(&mut self) {
        let now = Instant::now();
        if !self.routes.is_due(now) {
            return;
        }
        let lost = self.routes.apply(&self.socket, now).err().map(|error| error.to_string());
        if let Some(error) = &lost {
            tracing::warn!(error, "routes to pods");
        }
        let refused: BTreeMap<String, String> = self
            .routes
            .wanted()
            .filter_map(|key| match self.routes.state(key) {
                RouteState::NotYet(refusal) | RouteState::Wrong(refusal) => {
                    Some((key.destination.to_string(), refusal.to_string()))
                }
                RouteState::Pending => lost.clone().map(|error| (key.destination.to_string(), error)),
                RouteState::Absent | RouteState::Adopted | RouteState::Installed => None,
            })
            .collect();
        if refused != self.refused {
            self.refused.clone_from(&refused);
            self.report(Outcome::RoutesRefused(refused));
        }
    }

    /// Nothing to do: is everything as we left it?
    fn look(&mut self) {
        self.apply_routes();
        match self.watch.look() {
            Ok(Foreign::Unchanged) => {}
            Ok(Foreign::Changed { by }) => {
                let who =
                    by.map_or_else(|| "somebody".to_owned(), |(pid, name)| format!("{name} (process {pid})"));
                self.touched(format!("table inet manx, changed by {who}"));
            }
            Ok(Foreign::Unknown) => {
                self.touched("table inet manx, perhaps: the kernel dropped news of it".to_owned())
            }
            Err(error) => tracing::warn!(%error, "nftables events"),
        }
    }

    /// Plans that were made for the table as we left it are void.
    fn touched(&mut self, what: String) {
        self.poisoned = true;
        self.report(Outcome::Touched { what });
    }

    /// Few addresses are asked for one by one, in both directions; many by one listing of everything.
    fn connections(&mut self, addresses: &BTreeSet<IpAddr>, whole: bool) -> Result<Vec<Entry>, NftError> {
        if whole || addresses.len() > FILTERED {
            return self.conntrack.list(Wanted::All);
        }
        let mut entries = Vec::new();
        for address in addresses {
            entries.extend(self.conntrack.list(Wanted::From(*address))?);
            entries.extend(self.conntrack.list(Wanted::AnsweredBy(*address))?);
        }
        entries.sort_unstable_by_key(|entry| (entry.id, entry.original));
        entries.dedup();
        Ok(entries)
    }

    fn cut(&mut self, entries: &[Entry]) {
        match self.conntrack.delete(entries) {
            Ok(cut) => self.report(Outcome::Cut(cut)),
            Err(error) => tracing::warn!(%error, "denied connections stay"),
        }
    }

    fn delete_links(&mut self, names: &[String]) {
        for name in names {
            if let Err(error) = link::delete_by_name(&self.socket, name) {
                tracing::warn!(%error, interface = name, "a dead pod's link stays");
            }
        }
    }

    fn reverse_path(&self, interface: String, index: u32, strict: bool) {
        if let Err(error) = link::set_strict_reverse_path(&self.socket, index, strict) {
            // Gone with its pod, as a rule.
            tracing::warn!(%error, interface, strict, "reverse path filter of a pod's link");
            return;
        }
        let everywhere = Some(Sysctl::default()).filter(|_| !strict);
        if let Some(problem) = everywhere.and_then(|sysctl| sysctl::strict_everywhere(&sysctl)) {
            self.report(Outcome::ReversePathStays { interface, error: problem.to_string() });
        }
    }

    fn report(&self, outcome: Outcome) {
        // The loop is gone: the process ends.
        drop(self.outcomes.send(outcome));
    }
}
