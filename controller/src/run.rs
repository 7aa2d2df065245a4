//! THE loop: leadership, then changes and answers into the core, writes out of it. It answers the control socket itself:
//! that an answer comes proves that it turns.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use manx_crds::store::Store;
use manx_daemon::control::Question;
use manx_daemon::secrets::Secrets;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::core::{Core, Write};
use crate::leadership::{Leadership, Term};
use crate::objects;
use crate::wish::Outcome;
use crate::writer;

/// Writes under way at once.
const WRITES: usize = 8;
/// Nodes are a long list.
const NODES: Duration = Duration::from_secs(60);

/// How this controller runs.
#[derive(Debug)]
pub struct Settings {
    /// Of this process alone: it is the holder of the Lease and the instance of Events.
    pub identity: String,
    /// A directory: nobody else removes what belongs to a Node that is gone.
    pub directory: bool,
    /// Where the passwords of sessions are.
    pub secrets_namespace: String,
    /// Who asks for the state, if anybody can.
    pub report: Option<mpsc::Receiver<Question>>,
}

/// Questions of the control socket.
pub(crate) struct Questions(Option<mpsc::Receiver<Question>>);

impl Questions {
    /// The next one; never, where nobody asks.
    pub(crate) async fn next(&mut self) -> Question {
        if let Some(receiver) = &mut self.0 {
            if let Some(question) = receiver.recv().await {
                return question;
            }
            self.0 = None;
        }
        std::future::pending().await
    }
}

/// The state of the process, for its control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub leads: bool,
    /// Leading: every kind was heard whole. Waiting: somebody else was seen to lead.
    pub in_sync: bool,
    /// The first kind that was not heard whole yet, while leading.
    pub waits_for: Option<&'static str>,
    /// The last write that failed, until one succeeds.
    pub error: Option<String>,
}

impl Report {
    pub(crate) fn answer(&self, question: Question) {
        match question.verb() {
            "status" => question.answer(&self.json()),
            _ => question.unknown(&["status"]),
        }
    }

    pub fn json(&self) -> Value {
        json!({"leads": self.leads, "inSync": self.in_sync, "waitsFor": self.waits_for, "error": self.error})
    }
}

/// Leadership is lost. What was concluded in the term may be out of date: the process begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leadership is lost: the Lease could not be renewed in time")]
pub struct Lost;

/// Waits for leadership and leads until `stop`.
///
/// # Errors
/// [`Lost`]; tasks that watch the store may still run, so that the caller ends the process.
pub async fn run<S: Store>(
    store: S,
    leadership: Leadership,
    settings: Settings,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Lost> {
    let clock = Clock::start();
    let mut stop = std::pin::pin!(stop);
    let Settings { identity, directory, secrets_namespace, report } = settings;
    let mut questions = Questions(report);
    let term = tokio::select! {
        term = leadership.acquire(&store, &identity, clock, &mut questions) => term?,
        () = &mut stop => return Ok(()),
    };
    tracing::info!(identity, "leads");
    // Everything is read after leadership began: what an earlier leader wrote is in it.
    let changes = objects::watch(&store, &secrets_namespace);
    let mut core = Core::new(directory);
    core.objects.secrets = Secrets::of(&secrets_namespace);
    let mut leader = Leader {
        store,
        clock,
        core,
        term,
        changes,
        writes: JoinSet::new(),
        nodes: JoinSet::new(),
        report: Report { leads: true, ..Report::default() },
        failed: BTreeMap::new(),
        identity,
    };
    let outcome = tokio::select! {
        lost = leader.lead(&mut questions) => Err(lost),
        () = &mut stop => Ok(()),
    };
    if outcome.is_ok() {
        // What is under way ends before the next one may lead.
        while leader.writes.join_next().await.is_some() {}
        leader.term.release().await;
    }
    outcome
}

struct Leader<S: Store> {
    store: S,
    clock: Clock,
    core: Core,
    term: Term,
    changes: tokio::sync::mpsc::Receiver<objects::Change>,
    writes: JoinSet<(Write, Outcome)>,
    nodes: JoinSet<Option<std::collections::BTreeSet<String>>>,
    identity: String,
    report: Report,
    /// What failed last, by what was written: said once.
    failed: BTreeMap<String, String>,
}

impl<S: Store> Leader<S> {
    async fn lead(&mut self, questions: &mut Questions) -> Lost {
        loop {
            self.work();
            let deadline = self.core.deadline(self.clock.now().monotonic);
            tokio::select! {
                biased;
                () = self.term.over(self.clock) => return Lost,
                question = questions.next() => self.report.answer(question),
                Some(joined) = self.writes.join_next() => match joined {
                    Ok((write, outcome)) => self.written(&write, &outcome),
                    Err(error) => tracing::error!(%error, "a write was lost"),
                },
                Some(joined) = self.nodes.join_next() => {
                    self.core.nodes(joined.ok().flatten(), self.clock.now().monotonic);
                }
                Some(change) = self.changes.recv() => {
                    self.core.take(change);
                    while let Ok(change) = self.changes.try_recv() {
                        self.core.take(change);
                    }
                }
                () = sleep_until(deadline.map(|at| self.clock.at(at))) => {}
            }
        }
    }

    fn work(&mut self) {
        let now = self.clock.now();
        self.core.work(now);
        if self.core.asks_for_nodes() {
            let store = self.store.clone();
            self.nodes.spawn(async move {
                let listed = tokio::time::timeout(NODES, objects::node_names(&store)).await;
                match listed {
                    Ok(Ok(names)) => Some(names),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, effect = "blocks of nodes that are gone stay", "Nodes");
                        None
                    }
                    Err(_) => None,
                }
            });
        }
        while self.writes.len() < WRITES && self.term.leads(now.monotonic) {
            let Some(write) = self.core.pull(now) else { break };
            let store = self.store.clone();
            let identity = self.identity.clone();
            self.writes.spawn(async move {
                let outcome = writer::write(&store, &write, &identity).await;
                (write, outcome)
            });
        }
        self.report.waits_for = self.core.objects.missing();
        self.report.in_sync = self.report.waits_for.is_none();
    }

    fn written(&mut self, write: &Write, outcome: &Outcome) {
        let what = words(write);
        match outcome {
            Outcome::Done | Outcome::Gone => {
                if self.failed.remove(&what).is_some() {
                    tracing::info!(what, "written after all");
                }
                self.report.error = self.failed.values().next().cloned();
            }
            Outcome::Refused(error) | Outcome::Unknown(error) => {
                if self.failed.get(&what) != Some(error) {
                    tracing::warn!(what, error, effect = "it is tried again", "the store");
                }
                self.report.error = Some(format!("{what}: {error}"));
                // An Event is not tried again, so that nothing would ever take its failure back.
                if !matches!(write, Write::Event { .. }) {
                    self.failed.insert(what, error.clone());
                }
            }
        }
        self.core.answer(write, outcome, self.clock.now().monotonic);
    }
}

fn words(write: &Write) -> String {
    match write {
        Write::Apply { slot, .. } => {
            format!("{:?} of {:?} {}", slot.part, slot.kind, objects::name(&slot.key))
        }
        Write::Block(_) => "an IPBlock of a node that is gone".to_owned(),
        Write::Event { reason, .. } => format!("Event {reason}"),
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
