//! The forwarding table: what was learned, and a blackhole for each own block, as kernel routes of our protocol.
//!
//! ```text
//!   driver ── Inbox: of each prefix the newest wish ──► thread: RouteTable.set / sweep / apply ──► kernel
//!          ◄──────────────── Report ────────────────
//! ```
//! The thread owns the table and its socket; a kernel that is slow delays routes, never a keepalive. What the thread has
//! not come to is replaced by what is newer: however fast peers change their minds, no more waits than there are
//! prefixes. Routes of an earlier life are adopted at start and swept family by family once the speaker says that its own
//! are complete.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use bgp_proto::route::{FibChange, FibRoute};
use bgp_proto::{AfiSafi, link_local};
use felix_kernel::host::{METRIC_LEARNED, METRIC_LEARNED_DEFAULT, ROUTE_PROTOCOL_BGP};
use felix_kernel::netlink::{NetlinkError, RouteSocket};
use felix_kernel::route::{NextHop, Route, RouteKey, RouteState, RouteTable};
use felix_kernel::shared::Shared;
use ipnet::IpNet;
use tokio::sync::{oneshot, watch};

mod inbox;
mod install;
use inbox::{Errand, Inbox};
use install::Installer;
pub(crate) use install::{FamilyReport, Report};

#[cfg(test)]
mod tests;

/// Routes that are removed one by one before the inbox is read again: some 10 ms of work.
const REMOVALS: usize = 2048;

/// The driver's end.
pub(crate) struct Fib {
    /// Whether learned routes are written at all.
    installs: bool,
    inbox: Arc<Inbox>,
    report: watch::Receiver<Report>,
    /// What the kernel refused when it was last asked.
    refused: Arc<BTreeMap<IpNet, String>>,
    learned: BTreeMap<IpNet, Arc<FibRoute>>,
    routes: Shared<FibRoute>,
    blackholes: BTreeSet<IpNet>,
    /// The way to each next hop: the kernel takes gateways on its links alone.
    ways: BTreeMap<IpAddr, NextHop>,
}

impl Fib {
    /// Starts the thread, with this socket; the prefixes of our protocol that the kernel holds from before. Learned routes
    /// are written if this `installs`, blackholes in any case.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub(crate) fn start(socket: RouteSocket, installs: bool) -> Result<(Self, Vec<IpNet>), NetlinkError> {
        let mut table = RouteTable::new(ROUTE_PROTOCOL_BGP).with_objects().removing_in_parts(REMOVALS);
        table.adopt(&socket)?;
        let found = table.adopted().map(|key| key.destination).collect();
        let inbox = Arc::new(Inbox::default());
        let (installer, report) = Installer::new(socket, table);
        let letters = Arc::clone(&inbox);
        thread::spawn(move || installer.run(&letters));
        Ok((Self::with(installs, inbox, report), found))
    }

    fn with(installs: bool, inbox: Arc<Inbox>, report: watch::Receiver<Report>) -> Self {
        let (learned, blackholes, ways) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let (refused, routes) = (Arc::default(), Shared::default());
        Self { installs, inbox, report, refused, learned, routes, blackholes, ways }
    }

    pub(crate) fn learned(&mut self, change: FibChange) {
        if !self.installs {
            return;
        }
        let FibChange { prefix, route } = change;
        let changed = match route {
            Some(route) => {
                self.learned.insert(prefix, self.routes.share(route));
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

    /// A next hop is reached this way from now on. Before the first word of it no route goes there.
    pub(crate) fn leads(&mut self, next_hop: IpAddr, way: NextHop) {
        if !self.installs {
            return;
        }
        let before = self.ways.insert(next_hop, way);
        if before.is_none_or(|before| before == way) {
            return;
        }
        for (prefix, route) in &self.learned {
            if route.next_hops.contains(&next_hop) {
                self.settle(prefix);
            }
        }
    }

    /// No route goes to this next hop any more.
    pub(crate) fn forget(&mut self, next_hop: IpAddr) {
        self.ways.remove(&next_hop);
    }

    /// Both kinds share one place in the kernel, so one going must leave the other; an own block wins.
    fn settle(&self, prefix: &IpNet) {
        self.inbox.wish(key(prefix), self.wanted(prefix));
    }

    /// Every route of the family was handed over: what is left from before may go.
    pub(crate) fn complete(&mut self, family: AfiSafi) {
        self.inbox.ask(Errand::Sweep(family));
    }

    /// The kernel's routes may differ from what was written.
    pub(crate) fn look(&mut self) {
        self.inbox.ask(Errand::Look);
    }

    /// The route that a prefix should have; none: no route of ours.
    pub(crate) fn wanted(&self, prefix: &IpNet) -> Option<Route> {
        if self.blackholes.contains(prefix) {
            return Some(Route::blackhole(*prefix, metric(prefix)));
        }
        let route = self.learned.get(prefix)?;
        let hops = route.next_hops.iter();
        let hops = hops.map(|hop| self.ways.get(hop).copied().unwrap_or_else(|| way(*hop)));
        Some(Route::unicast(*prefix, metric(prefix), hops))
    }

    /// How the kernel stands to a prefix: the thread says so when it comes to it.
    pub(crate) fn state(&self, prefix: &IpNet) -> oneshot::Receiver<RouteState> {
        let (answer, receiver) = oneshot::channel();
        self.inbox.ask(Errand::Tell(key(prefix), answer));
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
            let before = std::mem::replace(&mut self.refused, Arc::clone(&report.refused));
            if !Arc::ptr_eq(&before, &self.refused) && before != self.refused {
                return;
            }
        }
        std::future::pending().await
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
