//! Leadership: waiting for it, keeping it, giving it back.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use manx_crds::store::{Key, Store, StoreError};
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::election::{Answer, DURATION, Election, RENEW_WITHIN, Step};
use crate::run::{Lost, Questions, Report};

/// How long a request may take: what a leader began is over, or given up, before another may lead.
pub(crate) const REQUEST: Duration = Duration::from_secs(3);
const _: () = assert!(RENEW_WITHIN.as_secs() + REQUEST.as_secs() < DURATION.as_secs());
/// How often the lock is tried while another process holds it.
const TRY: Duration = Duration::from_secs(5);
/// A candidate looks at the Lease every 2 s, and gives each look 3 s: one that did not for so long never will.
const STALLED: Duration = Duration::from_secs(30);
/// The lock in a directory datastore.
pub const LOCK: &str = ".controller.lock";

/// How one of several controllers becomes the one.
#[derive(Clone, Debug)]
pub enum Leadership {
    /// A file lock, where all of them run on one host (api.md §13). The kernel gives it up with the process.
    Lock(PathBuf),
    /// A Lease of the API server.
    Lease { namespace: String, name: String },
}

/// A time of leadership.
pub(crate) enum Term {
    Lock { _lock: Flock<LockFile> },
    Lease(Keeper),
}

#[expect(clippy::disallowed_types, reason = "the shell holds the lock's file")]
type LockFile = std::fs::File;

pub(crate) struct Keeper {
    pulse: watch::Receiver<Pulse>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What the election's task says at every step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pulse {
    /// Until when we may write; `None`: we do not lead.
    until: Option<Duration>,
    /// When the step was taken.
    at: Duration,
    /// Somebody else was seen to lead: this one is ready to.
    waits: bool,
}

impl Leadership {
    /// Waits until we lead, and answers meanwhile.
    ///
    /// # Errors
    /// The election's task is gone.
    pub(crate) async fn acquire<S: Store>(
        &self,
        store: &S,
        identity: &str,
        clock: Clock,
        questions: &mut Questions,
    ) -> Result<Term, Lost> {
        match self {
            Self::Lock(path) => Ok(Term::Lock { _lock: lock(path, questions).await }),
            Self::Lease { namespace, name } => {
                let (tell, pulse) = watch::channel(Pulse::default());
                let (stop, stopped) = oneshot::channel();
                let election = Election::new(namespace, name, identity);
                let task = tokio::spawn(keep(store.clone(), election, clock, tell, stopped));
                let mut keeper = Keeper { pulse, stop, task };
                keeper.elected(clock, questions).await?;
                Ok(Term::Lease(keeper))
            }
        }
    }
}

impl Keeper {
    async fn elected(&mut self, clock: Clock, questions: &mut Questions) -> Result<(), Lost> {
        // Who asks while the election's task does not turn gets no answer.
        let mut unanswered = Vec::new();
        loop {
            let pulse = *self.pulse.borrow_and_update();
            if pulse.until.is_some() {
                return Ok(());
            }
            tokio::select! {
                changed = self.pulse.changed() => changed.map_err(|_| Lost)?,
                question = questions.next() => {
                    if clock.now().monotonic < pulse.at.saturating_add(STALLED) {
                        Report { in_sync: pulse.waits, ..Report::default() }.answer(question);
                    } else {
                        unanswered.push(question);
                    }
                }
            }
        }
    }
}

impl Term {
    /// Whether a write may begin now.
    pub(crate) fn leads(&self, now: Duration) -> bool {
        match self {
            Self::Lock { .. } => true,
            Self::Lease(keeper) => keeper.pulse.borrow().until.is_some_and(|until| now < until),
        }
    }

    /// Waits for the end of the term.
    pub(crate) async fn over(&mut self, clock: Clock) {
        let Self::Lease(keeper) = self else { return std::future::pending().await };
        loop {
            let Some(until) = keeper.pulse.borrow_and_update().until else { return };
            tokio::select! {
                changed = keeper.pulse.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(clock.at(until)) => return,
            }
        }
    }

    /// Gives leadership back: the next one need not wait for the end of the term.
    pub(crate) async fn release(self) {
        if let Self::Lease(keeper) = self {
            // The task is gone already when nobody listens.
            let _ = keeper.stop.send(());
            if let Err(error) = keeper.task.await {
                tracing::warn!(%error, "the Lease was not given back");
            }
        }
    }
}

async fn lock(path: &Path, questions: &mut Questions) -> Flock<LockFile> {
    let mut said = false;
    let mut report = Report::default();
    loop {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        match file.map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock)) {
            Ok(Ok(lock)) => return lock,
            Ok(Err(_)) => report.in_sync = true,
            Err(error) if !said => {
                said = true;
                tracing::warn!(%error, path = %path.display(), "the controller's lock");
            }
            Err(_) => {}
        }
        let again = tokio::time::sleep(TRY);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                question = questions.next() => report.answer(question),
            }
        }
    }
}

/// Drives the election until it was won and lost, or given back.
async fn keep<S: Store>(
    store: S,
    mut election: Election,
    clock: Clock,
    tell: watch::Sender<Pulse>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut led = false;
    let mut seen: Option<String> = None;
    loop {
        let now = clock.now();
        let step = election.step(now);
        let leads = election.leads_until();
        tell.send_replace(Pulse { until: leads, at: now.monotonic, waits: election.holder().is_some() });
        if led && leads.is_none() {
            return;
        }
        led |= leads.is_some();
        if election.holder() != seen.as_deref() {
            seen = election.holder().map(str::to_owned);
            tracing::info!(holder = seen.as_deref().unwrap_or("nobody"), "the controllers' Lease");
        }
        let answer = match step {
            Step::Wait(at) => {
                tokio::select! {
                    _ = &mut stop => break,
                    () = tokio::time::sleep_until(clock.at(at)) => continue,
                }
            }
            Step::Get => request(store.get::<Lease>(&election.key())).await.map(Answer::found),
            Step::Create(lease) => request(store.create(&*lease)).await.map(Answer::written),
            Step::Replace(lease) => request(store.replace(&*lease)).await.map(Answer::written),
        };
        let answer = answer.unwrap_or_else(|error| match error {
            StoreError::NotFound { .. } => Answer::Absent,
            StoreError::AlreadyExists { .. } | StoreError::Conflict { .. } => Answer::Conflict,
            error @ (StoreError::Expired { .. }
            | StoreError::Invalid(_)
            | StoreError::Forbidden(_)
            | StoreError::Unavailable(_)) => {
                tracing::warn!(%error, effect = "leadership ends if this lasts", "the controllers' Lease");
                Answer::Failed
            }
        });
        election.answer(answer, clock.now().monotonic);
    }
    if let Some(lease) = election.release(clock.now()) {
        match request(store.replace(&lease)).await {
            Ok(_) => tracing::info!("leadership given back"),
            Err(error) => tracing::warn!(%error, "the Lease was not given back: it ends by itself"),
        }
    }
}

/// A request of the store that is given up after [`REQUEST`].
pub(crate) async fn request<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(REQUEST, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::Unavailable(format!("none within {}s", REQUEST.as_secs()))),
    }
}

impl Answer {
    fn found(lease: Lease) -> Self {
        Self::Found(Box::new(lease))
    }

    fn written(lease: Lease) -> Self {
        Self::Written(Box::new(lease))
    }
}

impl Election {
    fn key(&self) -> Key {
        Key::namespaced(self.namespace(), self.name())
    }
}
