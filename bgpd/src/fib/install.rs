//! The thread that has the kernel's routes as they are wished.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bgp_proto::AfiSafi;
use bgp_proto::durations::Durations;
use felix_kernel::netlink::{NetlinkError, RouteSocket};
use felix_kernel::route::{Applied, RouteTable};
use ipnet::IpNet;
use nix::errno::Errno;
use tokio::sync::watch;

use super::inbox::{Errand, Inbox, Letters};

/// A look at the kernel without any reason to: a lost event costs at most this.
const AUDIT: Duration = Duration::from_secs(60);
/// Between two reports.
const REPORT: Duration = Duration::from_millis(200);
/// Events of one incident (a link takes many routes with it) are answered by one look.
const LOOK_AFTER: Duration = Duration::from_millis(10);
/// After the socket failed.
const AGAIN: Duration = Duration::from_millis(200);

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
    pub(crate) refused: Arc<BTreeMap<IpNet, String>>,
    /// The socket itself failed.
    pub(crate) error: Option<String>,
}

pub(super) struct Installer {
    socket: RouteSocket,
    table: RouteTable,
    reports: watch::Sender<Report>,
    tally: Tally,
    /// What the table refused when it was last looked at, and which look that was.
    refused: (u64, Arc<BTreeMap<IpNet, String>>),
    /// The kernel is read before the next write.
    looks: bool,
}

impl Installer {
    /// Also the end at which its reports are read.
    pub(super) fn new(socket: RouteSocket, table: RouteTable) -> (Self, watch::Receiver<Report>) {
        let (reports, report) = watch::channel(Report::default());
        let (tally, refused) = (Tally::default(), (0, Arc::default()));
        let mut this = Self { socket, table, reports, tally, refused, looks: false };
        this.report(None);
        (this, report)
    }

    /// For as long as the process lives.
    pub(super) fn run(mut self, inbox: &Inbox) {
        let mut again: Option<Instant> = None;
        let mut audit_at = Instant::now() + AUDIT;
        let mut reported = Instant::now();
        let mut is_unreported = false;
        loop {
            let report_at = if is_unreported { reported.checked_add(REPORT) } else { None };
            let due = [self.table.next_retry(), again, report_at].into_iter().flatten().min();
            let due = due.map_or(audit_at, |at| at.min(audit_at));
            if let Some(letters) = inbox.take(due.saturating_duration_since(Instant::now())) {
                self.read(letters);
            }
            let now = Instant::now();
            if audit_at <= now {
                audit_at = now + AUDIT;
                self.look();
            }
            let mut error = None;
            if self.table.is_due(now) {
                let outcome = self.apply(now);
                again = match &outcome {
                    Ok(0) => None,
                    Ok(_) => Some(now),
                    Err(_) => now.checked_add(AGAIN),
                };
                error = outcome.err().map(|error| error.to_string());
            } else {
                again = None;
            }
            is_unreported = true;
            if error.is_some() || now.duration_since(reported) >= REPORT {
                (reported, is_unreported) = (now, false);
                self.report(error);
            }
        }
    }

    fn read(&mut self, letters: Letters) {
        for (key, route) in letters.wishes {
            match route.map(|route| self.table.set(route)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::error!(%error, "a route that cannot be"),
                // It was wished for before, be it for so short that nobody wrote it: what an earlier life left there goes.
                None => self.table.give_up(&key),
            }
        }
        let mut looked = false;
        for errand in letters.errands {
            match errand {
                Errand::Sweep(family) => {
                    let swept = self.table.sweep(|key| AfiSafi::of(&key.destination) == family);
                    if swept > 0 {
                        tracing::info!(routes = swept, %family, "routes of an earlier life removed");
                    }
                }
                Errand::Look => {
                    if !looked {
                        looked = true;
                        thread::sleep(LOOK_AFTER);
                    }
                    self.look();
                    self.table.wake();
                }
                // Whoever asked may be gone.
                Errand::Tell(key, answer) => drop(answer.send(self.table.state(&key))),
            }
        }
    }

    /// Somebody may have changed our routes.
    fn look(&mut self) {
        self.looks = true;
        self.table.mark_stale();
    }

    /// Writes what is due; how many removals were put off until more is heard.
    fn apply(&mut self, now: Instant) -> Result<usize, NetlinkError> {
        if std::mem::take(&mut self.looks) {
            let before = self.unwritten();
            if let Err(error) = self.table.resync(&self.socket) {
                self.looks = true;
                return Err(error);
            }
            for ((family, before), (_, after)) in before.into_iter().zip(self.unwritten()) {
                let lost = u64::try_from(after.saturating_sub(before)).unwrap_or(u64::MAX);
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
        outcome.map(|applied| applied.put_off)
    }

    fn error(&mut self, name: String) {
        *self.tally.errors.entry(name).or_default() += 1;
    }

    fn unwritten(&self) -> [(AfiSafi, usize); 2] {
        FAMILIES.map(|(family, v6)| (family, self.table.counts(v6).routes.unwritten))
    }

    /// Counts are kept by the table, and what is refused is listed only when that changed.
    fn report(&mut self, error: Option<String>) {
        if self.refused.0 != self.table.refusals() {
            let refused = self.table.refused().map(|(key, refusal)| (key.destination, refusal.to_string()));
            let refused = Arc::new(refused.collect());
            say(&self.refused.1, &refused);
            self.refused = (self.table.refusals(), refused);
        }
        if let Some(error) = &error {
            tracing::warn!(%error, "kernel routes");
        }
        let adopted = self.table.adopted().len();
        let (refused, tally) = (Arc::clone(&self.refused.1), self.tally.clone());
        let mut report =
            Report { error, adopted, tally, refused, pending: self.table.pending(), ..Report::default() };
        for (family, v6) in FAMILIES {
            let counts = self.table.counts(v6);
            let (desired, multipath) = (counts.routes.desired, counts.multipath);
            if desired == 0 {
                continue;
            }
            let programmed = desired.saturating_sub(counts.routes.unwritten);
            report.families.insert(family, FamilyReport { desired, programmed, multipath });
            report.desired += desired;
            report.programmed += programmed;
            report.multipath += multipath;
        }
        self.reports.send_replace(report);
    }
}

const FAMILIES: [(AfiSafi, bool); 2] = [(AfiSafi::Ipv4Unicast, false), (AfiSafi::Ipv6Unicast, true)];

/// Says each refusal once, and that it is over.
fn say(before: &BTreeMap<IpNet, String>, refused: &BTreeMap<IpNet, String>) {
    for (prefix, error) in refused {
        if before.get(prefix) != Some(error) {
            tracing::warn!(%prefix, %error, "the kernel refuses a route");
        }
    }
    for prefix in before.keys().filter(|prefix| !refused.contains_key(*prefix)) {
        tracing::info!(%prefix, "no longer refused");
    }
}
