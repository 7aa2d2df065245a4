//! `make soak`: a table of a million routes that never rests, short timers, and no core to spare; no session may flap.
//!
//! ```text
//!   namespace bench-gen                                   namespace bench-daemon
//!     source, hold 3 s ──── 1M routes, churned ─────────► bgpd A, kernel routes
//!     sink,   hold 3 s ◄────────────────────────────────►   │
//!     bgpd B, hold 3 s ◄──── BFD 100 ms × 3 ────────────────┘
//!     one thread a core that only burns
//! ```
//! B is the same bgpd at the other end of BFD and of the churn, so either end's delay would be seen.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::bench::cells::{Cell, Generator, SESSIONS, block_on};
use crate::bench::daemon::{Bed, DAEMON_AS, Kind, SOURCE, Setup, TO_SINKS};
use crate::bench::feed::{Profile, SOURCE_AS};
use crate::bench::session::Heard;
use crate::interrupt;
use crate::process::{Launch, Process, tail};
use crate::store::{Objects, peer};

const TABLE: u32 = 1_000_000;
const UPDATES: u32 = TABLE / 10;
/// The least that a peer may ask for (RFC 4271 §4.2).
const HOLD: u16 = 3;
const BESIDE_AS: u32 = 65003;
/// B on the sinks' link.
const BESIDE: &str = "192.168.0.1";
const PROFILE: &str = "apiVersion: manx.dev/v1alpha1\nkind: BFDProfile\nmetadata: {name: soak}\nspec: {transmitInterval: 100ms, \
                       receiveInterval: 100ms, detectMultiplier: 3}\n";
/// How often the sessions are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What a soak came to.
#[derive(Debug)]
pub struct Outcome {
    pub seconds: f64,
    /// UPDATEs of the source: paths that change, withdrawals, and what was withdrawn again.
    pub updates: u64,
    /// UPDATEs that the sink took.
    pub heard: u64,
    pub cpu_s: f64,
    pub rss_mib: f64,
    /// Sessions that ended, and looks at which one or its BFD was not up; each says which.
    pub flaps: Vec<String>,
}

/// Churns for so long, and counts.
pub fn run(manx: &Path, seconds: u64) -> Result<Outcome> {
    let mut bed = Bed::make(manx, 1)?;
    let setup = Setup { sinks: 1, kernel: true, passive: true, hold: HOLD, restart: false };
    let processes = bed.start(Kind::Manx, setup)?;
    let objects = Objects::at(&bed.home().join("objects"));
    objects.put("bfdprofiles.manx.dev/soak", PROFILE)?;
    let more = "  transit: true\n  families: [IPv4Unicast]\n  session: {bfdProfile: soak}\n";
    objects.put("bgppeers.manx.dev/beside", &peer("beside", BESIDE, BESIDE_AS, more))?;
    let beside = Beside::start(&bed, manx)?;
    let ends = [("A", bed.home().join("run/bgpd.sock"), 3), ("B", beside.socket.clone(), 1)];
    await_up(&bed, &ends, &beside)?;
    let burning = Burning::start();
    let before = processes.cpu()?;
    let generator = bed.generator.clone();
    let churned = generator.run(|| block_on(churn(seconds, &ends)));
    drop(burning);
    let mut outcome =
        churned.with_context(|| format!("A:\n{}\nB:\n{}", tail(&bed.log(), 10), tail(&beside.log, 10)))?;
    outcome.cpu_s = processes.cpu()? - before;
    outcome.rss_mib = processes.peak_mib()?;
    Ok(outcome)
}

/// The other bgpd.
struct Beside {
    _bgpd: Process,
    socket: PathBuf,
    log: PathBuf,
}

impl Beside {
    fn start(bed: &Bed, manx: &Path) -> Result<Self> {
        let home = bed.home().with_file_name("beside");
        let (run, state) = (home.join("run"), home.join("state"));
        for directory in [&run, &state] {
            fs::create_dir_all(directory)?;
        }
        let objects = Objects::create(&home.join("objects"))?;
        objects.put("bfdprofiles.manx.dev/soak", PROFILE)?;
        let head = |kind: &str, name: &str| {
            format!("apiVersion: manx.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n")
        };
        let settings = format!(
            "spec:\n  topology: {{mode: None}}\n  session:\n    timers: {{hold: {HOLD}s, connectRetry: 1s}}\n    \
             maxPrefixes: {{ipv4: 10000000}}\n"
        );
        objects.put(
            "fabricconfigurations.manx.dev/default",
            &(head("FabricConfiguration", "default") + &settings),
        )?;
        objects.put("ippools.manx.dev/all", &(head("IPPool", "all") + "spec: {cidr: \"0.0.0.0/3\"}\n"))?;
        objects.put(
            "nodes/beside",
            &format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: beside}}\nstatus:\n  addresses:\n  \
                 - {{type: InternalIP, address: {BESIDE}}}\n"
            ),
        )?;
        let node = head("FabricNode", "beside") + &format!("spec: {{asn: {BESIDE_AS}}}\n");
        objects.put("fabricnodes.manx.dev/beside", &node)?;
        let more = "  passive: true\n  families: [IPv4Unicast]\n  session: {bfdProfile: soak}\n";
        objects.put("bgppeers.manx.dev/a", &peer("a", &TO_SINKS.to_string(), DAEMON_AS, more))?;
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let (store, run, state) = (path(objects.directory()), path(&run), path(&state));
        let words = [
            "--node",
            "beside",
            "--store",
            &store,
            "--run-dir",
            &run,
            "--state-dir",
            &state,
            "--no-kernel-routes",
        ];
        let log = home.join("bgpd.log");
        let bgpd = Launch {
            label: "bgpd B".to_owned(),
            netns: bed.generator.clone(),
            program: manx.to_owned(),
            arguments: words.iter().map(|&word| word.to_owned()).collect(),
            capabilities: Some(&["net_admin", "net_raw", "net_bind_service"]),
            log: log.clone(),
        }
        .start()?;
        Ok(Self { _bgpd: bgpd, socket: home.join("run/bgpd.sock"), log })
    }
}

/// A thread a core that does nothing and takes all it gets, until it is dropped.
struct Burning {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Burning {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(2, usize::from);
        let burn = |stop: Arc<AtomicBool>| {
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..cores).map(|_| burn(Arc::clone(&stop))).collect();
        Self { stop, threads }
    }
}

impl Drop for Burning {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One end: its name, its socket, and how many sessions it has.
type End = (&'static str, PathBuf, usize);

/// The sessions of one bgpd, as it sees them now.
fn sessions(socket: &Path) -> Result<Vec<Value>> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
    // An end that is slow to answer is not down.
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"{\"verb\": \"peers\"}\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer.get("sessions").and_then(Value::as_array).cloned().unwrap_or_default())
}

/// What is not as it should be: a session that is not Established, or not without a reset since the first look, or whose BFD is
/// not Up.
fn wrong(end: &End, since: &[Value]) -> Result<Vec<String>> {
    let (name, socket, count) = end;
    let now = sessions(socket)?;
    let mut wrong = Vec::new();
    if now.len() != *count {
        wrong.push(format!("{name} has {} sessions of {count}", now.len()));
    }
    for session in &now {
        let peer = &session["peer"];
        let before = since.iter().find(|one| one["peer"] == *peer).unwrap_or(&Value::Null);
        let bfd = &session["bfd"];
        let is_well = session["state"] == "Established"
            && (bfd.is_null() || *bfd == "Up")
            && (before.is_null() || before["resets"] == session["resets"]);
        if !is_well {
            wrong.push(format!(
                "{name} {peer}: {} BFD {bfd}, resets {} (before {}), {}",
                session["state"], session["resets"], before["resets"], session["lastError"]
            ));
        }
    }
    Ok(wrong)
}

/// Waits for B: BFD Up at both ends. The generator's sessions come with the churn.
fn await_up(bed: &Bed, ends: &[End; 2], beside: &Beside) -> Result<()> {
    let is_up = |end: &End, peer: &str| {
        let sessions = sessions(&end.1).unwrap_or_default();
        sessions.iter().any(|s| s["peer"] == peer && s["state"] == "Established" && s["bfd"] == "Up")
    };
    let deadline = Instant::now() + SESSIONS;
    while !(is_up(&ends[0], "beside") && is_up(&ends[1], "a")) {
        if Instant::now() > deadline {
            bail!("A and B are not up with BFD\nA:\n{}\nB:\n{}", tail(&bed.log(), 10), tail(&beside.log, 10));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

async fn churn(seconds: u64, ends: &[End; 2]) -> Result<Outcome> {
    let cell = Cell { profile: Profile::Dfz, prefixes: TABLE, sinks: 1 };
    let mut generator = Generator::connect(cell, HOLD).await?;
    generator
        .source
        .send(cell.profile.updates(TABLE, SOURCE_AS, SOURCE))
        .await
        .context("the source is gone")?;
    generator.complete(1, Duration::from_secs(120)).await?;
    let since = [sessions(&ends[0].1)?, sessions(&ends[1].1)?];
    let began = Instant::now();
    let mut looks = Looks::begin(ends.clone(), since.clone());
    let (mut updates, mut heard, mut flaps) = (u64::from(UPDATES), 0, Vec::new());
    let mut version = 1;
    while began.elapsed() < Duration::from_secs(seconds) && !interrupt::requested() {
        for stream in round(cell.profile, version) {
            updates += stream.1;
            send(&generator.source, stream.0, &mut flaps).await;
            while let Ok(message) = generator.heard.try_recv() {
                match message {
                    Heard::Update { .. } => heard += 1,
                    Heard::Complete { .. } => {}
                    Heard::Ended { why, .. } => flaps.push(format!("the sink's session ended: {why}")),
                }
            }
            flaps.extend(looks.news().await?);
        }
        // Each round is another stretch of the table, and comes by in another version.
        version += 1;
        if !flaps.is_empty() {
            break;
        }
    }
    flaps.extend(all_wrong(ends, &since)?);
    Ok(Outcome { seconds: began.elapsed().as_secs_f64(), updates, heard, cpu_s: 0.0, rss_mib: 0.0, flaps })
}

/// Looks at both ends, beside the sessions of this thread: they have to say that they live while an end takes its time.
struct Looks {
    ends: [End; 2],
    since: [Vec<Value>; 2],
    next: Instant,
    running: Option<JoinHandle<Result<Vec<String>>>>,
}

impl Looks {
    fn begin(ends: [End; 2], since: [Vec<Value>; 2]) -> Self {
        Self { ends, since, next: Instant::now() + LOOK, running: None }
    }

    /// What the last look found wrong, if one is done.
    async fn news(&mut self) -> Result<Vec<String>> {
        match self.running.take() {
            Some(look) if look.is_finished() => look.await?,
            Some(look) => {
                self.running = Some(look);
                Ok(Vec::new())
            }
            None if Instant::now() < self.next => Ok(Vec::new()),
            None => {
                self.next = Instant::now() + LOOK;
                let (ends, since) = (self.ends.clone(), self.since.clone());
                self.running = Some(tokio::task::spawn_blocking(move || all_wrong(&ends, &since)));
                Ok(Vec::new())
            }
        }
    }
}

fn all_wrong(ends: &[End; 2], since: &[Vec<Value>; 2]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (end, since) in ends.iter().zip(since) {
        all.extend(wrong(end, since)?);
    }
    Ok(all)
}

async fn send(source: &mpsc::Sender<Vec<u8>>, stream: Vec<u8>, flaps: &mut Vec<String>) {
    if source.send(stream).await.is_err() {
        flaps.push("the source's session ended".to_owned());
    }
}

/// One round of churn over a tenth of the table: other paths, then withdrawn, then told again. Each stream with its UPDATEs.
fn round(profile: Profile, version: u32) -> impl Iterator<Item = (Vec<u8>, u64)> {
    const STRETCH: u32 = UPDATES / 10;
    const AT_ONCE: u32 = 500;
    let first = version % 10 * STRETCH;
    let steps = (first..first + STRETCH).step_by(usize::try_from(AT_ONCE).unwrap_or(1));
    steps.flat_map(move |from| {
        let all = move |make: &dyn Fn(u32) -> Vec<u8>| -> (Vec<u8>, u64) {
            ((from..from + AT_ONCE).flat_map(make).collect(), u64::from(AT_ONCE))
        };
        [
            all(&|number| profile.update(number, SOURCE_AS, SOURCE, version)),
            all(&|number| profile.withdrawal(number)),
            all(&|number| profile.update(number, SOURCE_AS, SOURCE, version + 1)),
        ]
    })
}
