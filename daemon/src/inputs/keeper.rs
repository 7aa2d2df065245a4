//! When the inputs are written and read.
//!
//! ```text
//!             3 s without an answer              every kind heard
//!   waiting ────────────────────────► recalled ──────────────────► heard ──┐ a change, and a minute since the last:
//!      └──────────────── every kind heard ────────────────────────► ▲      │ written on a thread of its own
//!                                                                   └──────┘
//! ```
//! Nothing is written before the store was heard whole: half of it, or a memory of it, would replace what is whole.
//! What ADD waits for waits for none of this: the loop hands over shared objects, and a thread does the rest.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use manx_crds::report::InputsReport;
use manx_crds::v1alpha1::SCHEMA_REVISION;
use tokio::sync::oneshot;

use super::{Draft, Head, Inputs, Owner, Refusal, file};

/// A store that has not said everything by then gives no answer: a list takes less, and an ADD waits 5 s.
const ANSWER: Duration = Duration::from_secs(3);
/// Between the first answer and the first file: the claims that a new agent makes come first.
const FIRST: Duration = Duration::from_secs(5);
/// Between two files.
const PAUSE: Duration = Duration::from_secs(60);
/// A file that takes longer to write is written less often: at most this part of one thread's time.
const SHARE: u32 = 50;

/// Makes the content, on the thread that writes it.
pub type Gather = Box<dyn FnOnce() -> serde_json::Result<Draft> + Send>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// The store may still answer in time.
    Waiting,
    /// It did not, and there is no memory either.
    Nothing,
    /// What an earlier process heard.
    Recalled { saved: Timestamp, since: Timestamp },
    /// The store itself. `after`: from when until when another memory was worked from, and of which moment it was.
    Store { after: Option<(Timestamp, Timestamp, Timestamp)> },
}

struct Written {
    outcome: io::Result<String>,
    took: Duration,
}

/// Keeps one daemon's inputs.
pub struct Keeper {
    path: PathBuf,
    owner: Owner,
    boot: String,
    started: Instant,
    source: Source,
    /// A file that was not used, or could not be written.
    problem: Option<String>,
    /// The content may differ from the file's.
    changed: bool,
    not_before: Instant,
    writing: Option<oneshot::Receiver<Written>>,
    /// Digest of the content that the file has.
    written: Option<String>,
}

impl Keeper {
    /// Of the file in this directory, which agents may share; nothing is read or written yet.
    pub fn new(state_dir: &Path, owner: Owner) -> Self {
        let path = state_dir.join(format!("inputs-{}", owner.agent));
        // Without a boot id no state of the kernel is taken for ours, which is the safe side.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let now = Instant::now();
        Self {
            path,
            owner,
            boot: boot.trim().to_owned(),
            started: now,
            source: Source::Waiting,
            problem: None,
            changed: false,
            not_before: now,
            writing: None,
            written: None,
        }
    }

    /// When [`Keeper::is_silent`] or [`Keeper::tick`] may have something to do.
    pub fn next_tick(&self) -> Option<Instant> {
        match &self.source {
            Source::Waiting => self.started.checked_add(ANSWER),
            Source::Nothing | Source::Recalled { .. } => None,
            Source::Store { .. } if self.writing.is_some() => Instant::now().checked_add(FIRST),
            Source::Store { .. } => self.changed.then_some(self.not_before),
        }
    }

    /// The store gives no answer, and the memory was not asked yet.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.source == Source::Waiting && now.duration_since(self.started) >= ANSWER
    }

    /// Reads the file. `read` takes out of it what is needed, all of it or nothing; it is told whether the kernel is
    /// still the one of then. A file that cannot be used is moved aside and named.
    pub fn recall<T>(&mut self, read: impl FnOnce(Inputs, bool) -> Result<T, Refusal>) -> Option<T> {
        self.source = Source::Nothing;
        let bytes = match file::read(&self.path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                tracing::warn!(
                    path = %self.path.display(), effect = "what is new waits for the datastore",
                    "the datastore does not answer, and nothing is remembered"
                );
                return None;
            }
            Err(error) => {
                self.refuse(&error.to_string());
                return None;
            }
        };
        let outcome = Inputs::decode(&bytes, &self.owner).and_then(|inputs| {
            let (saved, boot) = (inputs.head.saved, inputs.head.boot.clone());
            let same_boot = !boot.is_empty() && boot == self.boot;
            read(inputs, same_boot).map(|read| (read, saved))
        });
        match outcome {
            Ok((read, saved)) => {
                let since = Timestamp::now();
                self.source = Source::Recalled { saved, since };
                tracing::warn!(
                    saved = %seconds(saved), age = age(saved, since),
                    effect = "what runs goes on; what is new is served from what was known then",
                    "the datastore does not answer: working from remembered inputs"
                );
                Some(read)
            }
            Err(refusal) => {
                self.refuse(&refusal.to_string());
                None
            }
        }
    }

    fn refuse(&mut self, why: &str) {
        let kept = match file::move_aside(&self.path) {
            Ok(aside) => format!("moved to {}", aside.display()),
            Err(error) => format!("not moved aside: {error}"),
        };
        tracing::error!(
            path = %self.path.display(), error = why, kept,
            effect = "what is new waits for the datastore",
            "the datastore does not answer, and what is remembered cannot be used"
        );
        self.problem = Some(format!("{} was not used: {why}; {kept}", self.path.display()));
    }

    /// Every kind was heard from the store: it is what counts from here on.
    pub fn heard(&mut self, now: Instant) {
        let after = match &self.source {
            Source::Store { .. } => return,
            Source::Recalled { saved, since } => {
                let until = Timestamp::now();
                tracing::info!(
                    saved = %seconds(*saved), age = age(*saved, until),
                    "the datastore answers: remembered inputs are replaced"
                );
                Some((*since, until, *saved))
            }
            Source::Waiting | Source::Nothing => None,
        };
        self.source = Source::Store { after };
        self.not_before = now.checked_add(FIRST).unwrap_or(now);
        self.changed = true;
    }

    /// Something changed in the store.
    pub fn touch(&mut self) {
        self.changed = true;
    }

    /// Whether what counts is a memory.
    pub fn is_recalled(&self) -> bool {
        matches!(self.source, Source::Recalled { .. })
    }

    /// A file is being written.
    #[cfg(test)]
    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Writes the file where one is due; what `gather` returns is called on another thread.
    pub fn tick(&mut self, now: Instant, gather: impl FnOnce() -> Gather) {
        self.take_written(now);
        let due = matches!(self.source, Source::Store { .. }) && self.changed && self.not_before <= now;
        if !due || self.writing.is_some() {
            return;
        }
        self.changed = false;
        let (head, path, before, gather) = (self.head(), self.path.clone(), self.written.clone(), gather());
        let (written, outcome) = oneshot::channel();
        self.writing = Some(outcome);
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let outcome = write(&path, &head, before.as_deref(), gather);
            // The loop is gone: the process ends.
            drop(written.send(Written { outcome, took: began.elapsed() }));
        });
    }

    /// At a clean stop: what changed since the last file, at once.
    pub async fn finish(mut self, gather: Gather) {
        if let Some(writing) = self.writing.take() {
            // Gone without a word: it is written again.
            self.written = writing.await.ok().and_then(|written| written.outcome.ok());
        }
        if !matches!(self.source, Source::Store { .. }) || !self.changed {
            return;
        }
        let (head, path, before) = (self.head(), self.path, self.written);
        let task = tokio::task::spawn_blocking(move || write(&path, &head, before.as_deref(), gather));
        if let Ok(Err(error)) = task.await {
            tracing::error!(%error, "the inputs were not remembered");
        }
    }

    fn take_written(&mut self, now: Instant) {
        let Some(writing) = &mut self.writing else { return };
        let written = match writing.try_recv() {
            Ok(written) => written,
            Err(oneshot::error::TryRecvError::Empty) => return,
            Err(oneshot::error::TryRecvError::Closed) => {
                let outcome = Err(io::Error::other("the thread that writes is gone"));
                Written { outcome, took: Duration::ZERO }
            }
        };
        self.writing = None;
        let pause = PAUSE.max(written.took.saturating_mul(SHARE));
        self.not_before = now.checked_add(pause).unwrap_or(now);
        match written.outcome {
            Ok(digest) => {
                self.written = Some(digest);
                self.problem = None;
            }
            Err(error) => {
                tracing::error!(%error, effect = "a start without the datastore would know less", "the inputs were not remembered");
                self.changed = true;
                self.problem = Some(format!("the inputs were not remembered: {error}"));
            }
        }
    }

    fn head(&self) -> Head {
        Head {
            owner: self.owner.clone(),
            version: crate::VERSION.to_owned(),
            schema_revision: SCHEMA_REVISION,
            boot: self.boot.clone(),
            saved: Timestamp::now(),
        }
    }

    /// For `manxctl status`.
    pub fn report(&self) -> InputsReport {
        let saved = match &self.source {
            Source::Recalled { saved, .. } => Some(*saved),
            Source::Waiting | Source::Nothing | Source::Store { .. } => None,
        };
        let age = saved.map(|saved| Timestamp::now().duration_since(saved).as_secs());
        InputsReport {
            remembered: self.is_recalled(),
            saved: saved.map(Time),
            age_seconds: age.and_then(|age| u64::try_from(age).ok()),
            problem: self.problem.clone(),
        }
    }

    /// What a person should know of the inputs in use or, afterwards, of those that were; empty where that is nothing.
    pub fn remark(&self) -> String {
        let remark = match &self.source {
            Source::Waiting => String::new(),
            Source::Nothing => "the datastore does not answer, and no inputs are remembered".to_owned(),
            Source::Recalled { saved, since } => format!(
                "the datastore does not answer: since {} on inputs remembered from {}",
                seconds(*since),
                seconds(*saved)
            ),
            Source::Store { after: None } => String::new(),
            Source::Store { after: Some((since, until, saved)) } => format!(
                "the datastore did not answer: from {} to {} on inputs remembered from {}",
                seconds(*since),
                seconds(*until),
                seconds(*saved)
            ),
        };
        [Some(remark), self.problem.clone()]
            .into_iter()
            .flatten()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Writes the content where it differs from what the file has; its digest.
fn write(path: &Path, head: &Head, before: Option<&str>, gather: Gather) -> io::Result<String> {
    let draft = gather()?;
    let digest = draft.digest()?;
    if before != Some(digest.as_str()) {
        file::replace(path, &draft.encode(head)?)?;
    }
    Ok(digest)
}

fn seconds(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn age(then: Timestamp, now: Timestamp) -> String {
    format!("{}s", now.duration_since(then).as_secs())
}
