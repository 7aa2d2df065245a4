//! The forwarding table: what was learned, and a blackhole for each own block, as kernel routes of our protocol.
//!
//! ```text
//!   driver ── Command, in batches ──► thread: RouteTable.set / sweep / apply ──► kernel
//!          ◄──────── Report ─────────
//! ```
//! The thread owns the table and its socket; a kernel that is slow delays routes, never a keepalive. Routes of an
//! earlier life are adopted at start and swept family by family once the speaker says that its own are complete.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bgp_proto::durations::Durations;
use bgp_proto::route::{FibChange, FibRoute};
use bgp_proto::{AfiSafi, link_local};
use felix_kernel::host::{METRIC_LEARNED, METRIC_LEARNED_DEFAULT, ROUTE_PROTOCOL_BGP};
use felix_kernel::netlink::{NetlinkError, RouteSocket};
use felix_kernel::route::{Applied, NextHop, Route, RouteKey, RouteKind, RouteState, RouteTable};
use ipnet::IpNet;
use nix::errno::Errno;
use tokio::sync::{oneshot, watch};

/// A look at the kernel without any reason to: a lost event costs at most this.
const AUDIT: Duration = Duration::from_secs(60);
/// Between two reports: each walks the table.
const REPORT: Duration = Duration::from_millis(200);
/// Events of one incident (a link takes many routes with it) are answered by one look.
const LOOK_AFTER: Duration = Duration::from_millis(10);

enum Command {
    Set(Route),
    Withdraw(RouteKey),
    Sweep(AfiSafi),
    /// Somebody may have changed our routes, or a link came back.
    Look,
    /// How one route stands.
    Tell(RouteKey, oneshot::Sender<RouteState>),
}

/// Routes of one family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FamilyReport {
    pub(crate) desired: usize,
    pub(crate) programmed: usize,
    /// With more than one next hop.
    pub(crate) multipath: usize,
}

/// What happened to kernel routes since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How long a write took, from the first route to the last answer.
    pub(crate) apply: Durations,
    /// What the kernel answered instead of yes, every attempt by itself.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Routes that were not in the kernel any more as they had been written.
    pub(crate) repairs: BTreeMap<AfiSafi, u64>,
}

/// How the kernel stands, as of the last write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) desired: usize,
    pub(crate) programmed: usize,
    pub(crate) pending: usize,
    /// Routes with more than one next hop.
    pub(crate) multipath: usize,
    /// Found at start and not wanted yet.
    pub(crate) adopted: usize,
    pub(crate) families: BTreeMap<AfiSafi, FamilyReport>,
    pub(crate) tally: Tally,
    /// What the kernel refuses, by destination, and why.
    pub(crate) refused: BTreeMap<IpNet, String>,
    /// The socket itself failed.
    pub(crate) error: Option<String>,
}

/// The driver's end.
pub(crate) struct Fib {
    /// Whether learned routes are written at all.
    installs: bool,
    commands: mpsc::Sender<Command>,
    report: watch::Receiver<Report>,
    /// What the kernel refused when it was last asked.
    refused: BTreeMap<IpNet, String>,
    learned: BTreeMap<IpNet, FibRoute>,
    blackholes: BTreeSet<IpNet>,
    /// The way to next hops that are on no link of ours: the kernel takes gateways on its links alone.
    gateways: BTreeMap<IpAddr, NextHop>,
}

impl Fib {
    /// Starts the thread; the prefixes of our protocol that the kernel holds from before. Learned routes are written if
    /// this `installs`, blackholes in any case.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub(crate) fn start(installs: bool) -> Result<(Self, Vec<IpNet>), NetlinkError> {
        let socket = RouteSocket::open()?;
        let mut table = RouteTable::new(ROUTE_PROTOCOL_BGP);
        table.adopt(&socket)?;
        let found = table.adopted().map(|key| key.destination).collect();
        let (commands, receiver) = mpsc::channel();
        let tally = Tally::default();
        let (reports, report) = watch::channel(report(&table, &tally, None));
        thread::spawn(move || Writer { socket, table, reports, tally, looks: false }.run(&receiver));
        Ok((Self::with(installs, commands, report), found))
    }

    fn with(installs: bool, commands: mpsc::Sender<Command>, report: watch::Receiver<Report>) -> Self {
        let (learned, blackholes, gateways) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let refused = BTreeMap::new();
        Self { installs, commands, report, refused, learned, blackholes, gateways }
    }

    pub(crate) fn learned(&mut self, change: FibChange) {
        if !self.installs {
            return;
        }
        let FibChange { prefix, route } = change;
        let changed = match route {
            Some(route) => {
                self.learned.insert(prefix, route);
                true
            }
            None => self.learned.remove(&prefix).is_some(),
        };
        if changed && !self.blackholes.contains(&prefix) {
            self.settle(&prefix);
        }
    }

    /// Traffic to an own address that no pod has ends here, instead of circling between us and the router.
    pub(crate) fn blackholes(&mut self, wanted: &BTreeSet<IpNet>) {
        let before = std::mem::replace(&mut self.blackholes, wanted.clone());
        for prefix in before.symmetric_difference(wanted) {
            self.settle(prefix);
        }
    }

    /// A next hop is reached through this router from now on; none: it is on a link of ours.
    pub(crate) fn gateway(&mut self, next_hop: IpAddr, gateway: Option<NextHop>) {
        let before = match gateway {
            Some(gateway) => self.gateways.insert(next_hop, gateway),
            None => self.gateways.remove(&next_hop),
        };
        if before == gateway {
            return;
        }
        for (prefix, route) in &self.learned {
            if route.next_hops.contains(&next_hop) {
                self.settle(prefix);
            }
        }
    }

    /// A next hop leads nowhere, or nobody asks any more. Its routes are withdrawn next, and stay as they are until then.
    pub(crate) fn forget_gateway(&mut self, next_hop: IpAddr) {
        self.gateways.remove(&next_hop);
    }

    /// Both kinds share one place in the kernel, so one going must leave the other; an own block wins.
    fn settle(&self, prefix: &IpNet) {
        self.send(match self.wanted(prefix) {
            Some(route) => Command::Set(route),
            None => Command::Withdraw(key(prefix)),
        });
    }

    /// Every route of the family was handed over: what is left from before may go.
    pub(crate) fn complete(&mut self, family: AfiSafi) {
        self.send(Command::Sweep(family));
    }

    /// The kernel's routes may differ from what was written.
    pub(crate) fn look(&mut self) {
        self.send(Command::Look);
    }

    /// The route that a prefix should have; none: no route of ours.
    pub(crate) fn wanted(&self, prefix: &IpNet) -> Option<Route> {
        if self.blackholes.contains(prefix) {
            return Some(Route::blackhole(*prefix, metric(prefix)));
        }
        let route = self.learned.get(prefix)?;
        let hops = route.next_hops.iter();
        let hops = hops.map(|hop| self.gateways.get(hop).copied().unwrap_or_else(|| way(*hop)));
        Some(Route::unicast(*prefix, metric(prefix), hops))
    }

    /// How the kernel stands to a prefix: the thread says so when it comes to it.
    pub(crate) fn state(&self, prefix: &IpNet) -> oneshot::Receiver<RouteState> {
        let (answer, receiver) = oneshot::channel();
        self.send(Command::Tell(key(prefix), answer));
        receiver
    }

    pub(crate) fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Waits until the kernel refuses other routes than before. Nothing is lost where the waiting is given up.
    pub(crate) async fn refusals(&mut self) {
        // The thread ends only with the process.
        while self.report.changed().await.is_ok() {
            let report = self.report.borrow();
            if report.refused != self.refused {
                self.refused.clone_from(&report.refused);
                return;
            }
        }
        std::future::pending().await
    }

    fn send(&self, command: Command) {
        // The thread ends only with the process.
        if self.commands.send(command).is_err() {
            tracing::error!("the route thread is gone; kernel routes stay as they are");
        }
    }
}

/// To a router on a link of ours. A link-local one says which link; the kernel finds the others.
fn way(next_hop: IpAddr) -> NextHop {
    match link_local::parts(next_hop) {
        Some((address, ifindex)) => NextHop::via_on(IpAddr::V6(address), ifindex),
        None => NextHop::via(next_hop),
    }
}

fn metric(prefix: &IpNet) -> u32 {
    if prefix.prefix_len() == 0 { METRIC_LEARNED_DEFAULT } else { METRIC_LEARNED }
}

fn key(prefix: &IpNet) -> RouteKey {
    Route::blackhole(*prefix, metric(prefix)).key()
}

struct Writer {
    socket: RouteSocket,
    table: RouteTable,
    reports: watch::Sender<Report>,
    tally: Tally,
    /// The kernel is read before the next write.
    looks: bool,
}

impl Writer {
    fn run(mut self, commands: &mpsc::Receiver<Command>) {
        let mut said = BTreeMap::new();
        let mut again: Option<Instant> = None;
        let mut reported = Instant::now();
        let mut unreported = false;
        loop {
            let report_at = if unreported { reported.checked_add(REPORT) } else { None };
            let retry = [self.table.next_retry(), again, report_at].into_iter().flatten().min();
            let wait = retry.map_or(AUDIT, |at| at.saturating_duration_since(Instant::now()).min(AUDIT));
            match commands.recv_timeout(wait) {
                Ok(first) => self.take(first, commands),
                Err(mpsc::RecvTimeoutError::Timeout) if retry.is_none() => self.look(),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            let error = match self.table.is_due(now).then(|| self.apply(now)) {
                None => None,
                Some(Ok(())) => {
                    again = None;
                    None
                }
                Some(Err(error)) => {
                    again = now.checked_add(Duration::from_millis(200));
                    Some(error.to_string())
                }
            };
            unreported = true;
            if error.is_some() || now.duration_since(reported) >= REPORT {
                (reported, unreported) = (now, false);
                let report = report(&self.table, &self.tally, error);
                say(&mut said, &report);
                self.reports.send_replace(report);
            }
        }
    }

    /// Somebody may have changed our routes.
    fn look(&mut self) {
        self.looks = true;
        self.table.mark_stale();
    }

    fn apply(&mut self, now: Instant) -> Result<(), NetlinkError> {
        if std::mem::take(&mut self.looks) {
            let before = self.unwritten();
            if let Err(error) = self.table.resync(&self.socket) {
                self.looks = true;
                return Err(error);
            }
            for (family, count) in self.unwritten() {
                let lost = count.saturating_sub(before.get(&family).copied().unwrap_or(0));
                *self.tally.repairs.entry(family).or_default() += lost;
            }
        }
        let outcome = self.table.apply(&self.socket, now);
        match &outcome {
            Ok(Applied { written: 0, removed: 0, refused, .. }) if refused.is_empty() => {}
            Ok(applied) => {
                self.tally.apply.observe(now.elapsed());
                for (_, _, refusal) in &applied.refused {
                    self.error(format!("{:?}", Errno::from_raw(refusal.errno)));
                }
            }
            Err(_) => self.error("socket".to_owned()),
        }
        outcome.map(drop)
    }

    fn error(&mut self, name: String) {
        *self.tally.errors.entry(name).or_default() += 1;
    }

    fn unwritten(&self) -> BTreeMap<AfiSafi, u64> {
        let mut counts = BTreeMap::new();
        for key in self.table.unwritten() {
            *counts.entry(AfiSafi::of(&key.destination)).or_default() += 1;
        }
        counts
    }

    fn take(&mut self, first: Command, commands: &mpsc::Receiver<Command>) {
        let mut next = Some(first);
        let mut looked = false;
        while let Some(command) = next {
            match command {
                Command::Set(route) => {
                    if let Err(error) = self.table.set(route) {
                        tracing::error!(%error, "a route that cannot be");
                    }
                }
                Command::Withdraw(key) => self.table.withdraw(&key),
                Command::Sweep(family) => {
                    let swept = self.table.sweep(|key| AfiSafi::of(&key.destination) == family);
                    if swept > 0 {
                        tracing::info!(routes = swept, %family, "routes of an earlier life removed");
                    }
                }
                Command::Look => {
                    if !looked {
                        looked = true;
                        thread::sleep(LOOK_AFTER);
                    }
                    self.look();
                    self.table.wake();
                }
                // Whoever asked may be gone.
                Command::Tell(key, answer) => drop(answer.send(self.table.state(&key))),
            }
            next = commands.try_recv().ok();
        }
    }
}

/// Says each refusal once, and that it is over.
fn say(said: &mut BTreeMap<IpNet, String>, report: &Report) {
    if let Some(error) = &report.error {
        tracing::warn!(%error, "kernel routes");
    }
    for (prefix, error) in &report.refused {
        if said.get(prefix) != Some(error) {
            tracing::warn!(%prefix, %error, "the kernel refuses a route");
        }
    }
    for prefix in said.keys().filter(|prefix| !report.refused.contains_key(*prefix)) {
        tracing::info!(%prefix, "no longer refused");
    }
    said.clone_from(&report.refused);
}

fn report(table: &RouteTable, tally: &Tally, error: Option<String>) -> Report {
    let (adopted, tally) = (table.adopted().count(), tally.clone());
    let mut report = Report { error, adopted, tally, ..Report::default() };
    for (key, route) in table.wanted() {
        let family = report.families.entry(AfiSafi::of(&key.destination)).or_default();
        family.desired += 1;
        family.multipath +=
            usize::from(matches!(&route.kind, RouteKind::Unicast { next_hops } if next_hops.len() > 1));
        match table.state(key) {
            RouteState::Installed => family.programmed += 1,
            RouteState::NotYet(refusal) | RouteState::Wrong(refusal) => {
                report.refused.insert(key.destination, refusal.to_string());
            }
            RouteState::Absent | RouteState::Adopted | RouteState::Pending => {}
        }
    }
    for family in report.families.values() {
        report.desired += family.desired;
        report.programmed += family.programmed;
        report.multipath += family.multipath;
    }
    report.pending = table.pending();
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fib() -> (Fib, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel();
        let (_, report) = watch::channel(Report::default());
        (Fib::with(true, commands, report), receiver)
    }

    /// What the commands so far leave in the kernel.
    fn last(commands: &mpsc::Receiver<Command>) -> Option<bool> {
        commands.try_iter().last().map(|command| match command {
            Command::Set(route) => matches!(route.kind, RouteKind::Blackhole),
            Command::Withdraw(_) | Command::Sweep(_) | Command::Look | Command::Tell(..) => {
                panic!("no route was set")
            }
        })
    }

    fn change(prefix: IpNet, learned: bool) -> FibChange {
        let next_hops = vec!["10.0.0.1".parse().unwrap()];
        FibChange { prefix, route: learned.then_some(FibRoute { next_hops, encap: None }) }
    }

    #[test]
    fn a_blackhole_outlives_the_learned_route_it_replaced() {
        let (mut fib, commands) = fib();
        let prefix: IpNet = "10.244.0.0/26".parse().unwrap();
        fib.learned(change(prefix, true));
        assert_eq!(last(&commands), Some(false));
        fib.blackholes(&BTreeSet::from([prefix]));
        assert_eq!(last(&commands), Some(true));
        fib.learned(change(prefix, false));
        assert_eq!(last(&commands), None);
    }

    #[test]
    fn what_forwards_nothing_writes_its_blackholes_alone() {
        let (mut fib, commands) = fib();
        fib.installs = false;
        let prefix: IpNet = "10.244.0.0/26".parse().unwrap();
        fib.learned(change(prefix, true));
        assert_eq!(last(&commands), None);
        fib.blackholes(&BTreeSet::from([prefix]));
        assert_eq!(last(&commands), Some(true));
        fib.blackholes(&BTreeSet::new());
        assert!(matches!(commands.try_iter().last(), Some(Command::Withdraw(_))));
    }

    #[test]
    fn a_learned_route_outlives_the_blackhole_it_waited_for() {
        let (mut fib, commands) = fib();
        let prefix: IpNet = "10.244.0.0/26".parse().unwrap();
        fib.blackholes(&BTreeSet::from([prefix]));
        assert_eq!(last(&commands), Some(true));
        fib.learned(change(prefix, true));
        assert_eq!(last(&commands), None);
        fib.blackholes(&BTreeSet::new());
        assert_eq!(last(&commands), Some(false));
    }

    #[test]
    fn a_next_hop_behind_a_router_is_reached_through_it() {
        let (mut fib, commands) = fib();
        let (next_hop, router): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.9.0.1".parse().unwrap());
        let gateways = |commands: &mpsc::Receiver<Command>| -> Vec<IpAddr> {
            commands
                .try_iter()
                .filter_map(|command| match command {
                    Command::Set(Route { kind: RouteKind::Unicast { next_hops }, .. }) => {
                        next_hops[0].gateway
                    }
                    Command::Set(_)
                    | Command::Withdraw(_)
                    | Command::Sweep(_)
                    | Command::Look
                    | Command::Tell(..) => None,
                })
                .collect()
        };
        fib.gateway(next_hop, Some(NextHop::via(router)));
        fib.learned(change("10.244.0.0/26".parse().unwrap(), true));
        assert_eq!(gateways(&commands), [router]);
        // The same again writes nothing; on a link of ours it is its own gateway.
        fib.gateway(next_hop, Some(NextHop::via(router)));
        assert_eq!(gateways(&commands), Vec::<IpAddr>::new());
        fib.gateway(next_hop, None);
        assert_eq!(gateways(&commands), [next_hop]);
    }
}
