//! What the table of cells does not show: one change, the kernel, 200 sessions, rest, a restart.

use std::net::SocketAddrV4;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::bench::cells::{self, Cell, Generator, block_on, sink, source};
use crate::bench::daemon::{Bed, Kind, SOURCE, Setup, TO_SINKS, TO_SOURCE, sink_address};
use crate::bench::feed::{self, Profile, SOURCE_AS};
use crate::bench::proc::{self, Processes};
use crate::bench::session::{Heard, Identity, Session};

const TABLE: u32 = 100_000;
const CHANGES: u32 = 300;
/// Prefixes in the kernel when the speaker is killed.
const RESTART_TABLE: u32 = 10_000;
/// Sessions of the tests with many.
const MANY: usize = 200;
const HOLD: u16 = 90;
const PATIENCE: Duration = Duration::from_secs(120);

/// Named figures of one daemon.
pub type Figures = Vec<(&'static str, f64)>;

/// What is measured beside the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    Change,
    Kernel,
    Out,
    In,
    Idle,
    Restart,
}

impl Extra {
    pub const ALL: [Self; 6] = [Self::Change, Self::Kernel, Self::Out, Self::In, Self::Idle, Self::Restart];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Kernel => "fib",
            Self::Out => "sessions_out",
            Self::In => "sessions_in",
            Self::Idle => "idle",
            Self::Restart => "restart",
        }
    }

    /// Why this daemon has no such figure.
    #[must_use]
    pub fn lacks(self, kind: Kind) -> Option<&'static str> {
        match (self, kind) {
            (Self::Kernel | Self::Restart, Kind::OpenBgpd) => {
                Some("OpenBGPD writes no kernel routes on Linux")
            }
            (Self::Kernel | Self::Restart, Kind::GoBgp) => Some("GoBGP writes no kernel routes by itself"),
            (
                Self::Change | Self::Kernel | Self::Out | Self::In | Self::Idle | Self::Restart,
                Kind::Manx | Kind::Bird | Kind::Frr | Kind::OpenBgpd | Kind::GoBgp,
            ) => None,
        }
    }

    /// Measures it once.
    pub fn run(self, manx: &Path, kind: Kind) -> Result<Figures> {
        match self {
            Self::Change => change(manx, kind),
            Self::Kernel => kernel(manx, kind),
            Self::Out => sessions_out(manx, kind),
            Self::In => sessions_in(manx, kind),
            Self::Idle => idle(manx, kind),
            Self::Restart => restart(manx, kind),
        }
    }
}

const fn setup(sinks: usize) -> Setup {
    Setup { sinks, kernel: false, passive: true, hold: HOLD, restart: false }
}

/// A prefix in a table of 100,000 gets another path: from the source's write to the sink's read.
fn change(manx: &Path, kind: Kind) -> Result<Figures> {
    let mut bed = Bed::make(manx, 1)?;
    let processes = bed.start(kind, setup(1))?;
    let generator = bed.generator.clone();
    generator.run(|| block_on(changes(&processes)))
}

async fn changes(processes: &Processes) -> Result<Figures> {
    let cell = Cell { profile: Profile::K8s, prefixes: TABLE, sinks: 1 };
    let mut generator = Generator::connect(cell, HOLD).await?;
    let stream = cell.profile.updates(TABLE, SOURCE_AS, SOURCE);
    generator.source.send(stream).await.context("the source is gone")?;
    generator.complete(1, PATIENCE).await?;
    processes.settle(Duration::from_secs(10)).await?;
    while generator.heard.try_recv().is_ok() {}
    let before = processes.cpu()?;
    let mut latencies = Vec::new();
    for number in 0..CHANGES {
        let update = cell.profile.update(number * 331 % TABLE, SOURCE_AS, SOURCE, number + 1);
        let sent = Instant::now();
        generator.source.send(update).await.context("the source is gone")?;
        let heard = tokio::time::timeout(Duration::from_secs(5), generator.heard.recv()).await;
        match heard.with_context(|| format!("change {number} never arrived"))? {
            Some(Heard::Update { at }) => latencies.push(at.duration_since(sent).as_secs_f64() * 1e3),
            Some(Heard::Complete { .. }) => {}
            Some(Heard::Ended { why, .. }) => bail!("the sink's session ended: {why}"),
            None => bail!("the sink is gone"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cpu = processes.cpu()? - before;
    latencies.sort_by(f64::total_cmp);
    let at = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or_default();
    Ok(vec![("median_ms", at(50)), ("p99_ms", at(99)), ("cpu_us", cpu * 1e6 / f64::from(CHANGES))])
}

/// A table of 100,000 into the kernel, and out of it again.
fn kernel(manx: &Path, kind: Kind) -> Result<Figures> {
    let mut bed = Bed::make(manx, 1)?;
    let processes = bed.start(kind, Setup { kernel: true, ..setup(1) })?;
    let daemon = bed.daemon_netns().clone();
    let (generator, own) = (bed.generator.clone(), daemon.run(proc::kernel_routes)?);
    let count = move || daemon.run(proc::kernel_routes);
    generator.run(|| block_on(into_kernel(&processes, own, &count)))
}

async fn into_kernel(processes: &Processes, own: u64, count: &impl Fn() -> Result<u64>) -> Result<Figures> {
    let cell = Cell { profile: Profile::Dfz, prefixes: TABLE, sinks: 1 };
    let generator = Generator::connect(cell, HOLD).await?;
    let stream = cell.profile.updates(TABLE, SOURCE_AS, SOURCE);
    processes.settle(Duration::from_secs(5)).await?;
    let (before, began) = (processes.cpu()?, Instant::now());
    generator.source.send(stream).await.context("the source is gone")?;
    until(|| Ok(count()? >= own + u64::from(TABLE))).await.context("routes into the kernel")?;
    let (wall, cpu) = (began.elapsed().as_secs_f64(), processes.cpu()? - before);
    processes.settle(Duration::from_secs(10)).await?;
    let settled = processes.cpu()? - before;
    let rss = processes.peak_mib()?;
    let (before, began) = (processes.cpu()?, Instant::now());
    generator.told.abort();
    until(|| Ok(count()? <= own)).await.context("routes out of the kernel")?;
    Ok(vec![
        ("in_s", wall),
        ("in_cpu_s", cpu),
        ("settled_cpu_s", settled),
        ("rss_mib", rss),
        ("out_s", began.elapsed().as_secs_f64()),
        ("out_cpu_s", processes.cpu()? - before),
    ])
}

async fn until(question: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !question()? {
        if Instant::now() > deadline {
            bail!("not within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The daemon dials 200 neighbours that listen already.
fn sessions_out(manx: &Path, kind: Kind) -> Result<Figures> {
    let mut bed = Bed::make(manx, MANY)?;
    let generator = bed.generator.clone();
    generator.run(|| {
        block_on(async {
            let mut listeners = Vec::new();
            for number in 0..MANY {
                listeners.push(TcpListener::bind(SocketAddrV4::new(sink_address(number), 179)).await?);
            }
            let (up, mut ups) = mpsc::unbounded_channel();
            for (number, listener) in listeners.into_iter().enumerate() {
                let up = up.clone();
                tokio::spawn(async move {
                    loop {
                        let (stream, _) = listener.accept().await?;
                        let first = Instant::now();
                        if let Ok(session) = Session::open(sink(number, HOLD), stream).await {
                            drop(up.send((number, first, session)));
                        }
                    }
                    #[expect(unreachable_code, reason = "the type of the block")]
                    anyhow::Ok(())
                });
            }
            let start = Instant::now();
            bed.start(kind, Setup { passive: false, ..setup(MANY) })?;
            all_up(&mut ups, start).await
        })
    })
}

type Ups = mpsc::UnboundedReceiver<(usize, Instant, Session)>;

/// Seconds until the last of the sessions: from `start`, and from the first connection.
async fn all_up(ups: &mut Ups, start: Instant) -> Result<Figures> {
    let mut up: Vec<Option<Session>> = (0..MANY).map(|_| None).collect();
    let (mut missing, mut first) = (MANY, None::<Instant>);
    let wait = async {
        while missing > 0 {
            let (number, connected, session) = ups.recv().await.context("nobody listens")?;
            first = Some(first.map_or(connected, |first| first.min(connected)));
            if let Some(place) = up.get_mut(number) {
                missing -= usize::from(place.is_none());
                *place = Some(session);
            }
        }
        anyhow::Ok(())
    };
    let outcome = tokio::time::timeout(PATIENCE, wait).await;
    outcome.with_context(|| format!("{missing} of {MANY} sessions never came up"))??;
    let since_first = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
    Ok(vec![("since_start_s", start.elapsed().as_secs_f64()), ("since_first_s", since_first)])
}

/// 200 neighbours dial at once a daemon that would dial them, too, and got no answer so far.
fn sessions_in(manx: &Path, kind: Kind) -> Result<Figures> {
    let mut bed = Bed::make(manx, MANY)?;
    bed.start(kind, Setup { passive: false, ..setup(MANY) })?;
    let generator = bed.generator.clone();
    generator.run(|| {
        block_on(async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let (up, mut ups) = mpsc::unbounded_channel();
            let start = Instant::now();
            for number in 0..MANY {
                let up = up.clone();
                tokio::spawn(async move {
                    let first = Instant::now();
                    let session = Session::dial_until(sink(number, HOLD), TO_SINKS, PATIENCE).await?;
                    drop(up.send((number, first, session)));
                    anyhow::Ok(())
                });
            }
            all_up(&mut ups, start).await
        })
    })
}

/// 200 sessions and nothing to say: CPU a minute, with keepalives every 30 s and every 3 s.
fn idle(manx: &Path, kind: Kind) -> Result<Figures> {
    let mut figures = Vec::new();
    for (name, hold) in [("hold_90_ms_a_minute", 90), ("hold_9_ms_a_minute", 9)] {
        let mut bed = Bed::make(manx, MANY)?;
        let processes = bed.start(kind, Setup { hold, ..setup(MANY) })?;
        let generator = bed.generator.clone();
        let cpu = generator.run(|| {
            block_on(async {
                let cell = Cell { profile: Profile::Dfz, prefixes: 1, sinks: MANY };
                let _generator = Generator::connect(cell, hold).await?;
                // What a daemon has to say of new sessions, such as their statuses, is said.
                tokio::time::sleep(Duration::from_secs(20)).await;
                let (before, began) = (processes.cpu()?, Instant::now());
                tokio::time::sleep(Duration::from_secs(31)).await;
                Ok((processes.cpu()? - before) * 1e3 * 60.0 / began.elapsed().as_secs_f64())
            })
        })?;
        figures.push((name, cpu));
    }
    Ok(figures)
}

/// `kill -9` with 10,000 routes in the kernel, and a new start: how many were away, and how long it took.
fn restart(manx: &Path, kind: Kind) -> Result<Figures> {
    let mut bed = Bed::make(manx, 1)?;
    let setup = Setup { kernel: true, restart: true, ..setup(1) };
    let processes = bed.start(kind, setup)?;
    let daemon = bed.daemon_netns().clone();
    let (generator, own) = (bed.generator.clone(), daemon.run(proc::kernel_routes)?);
    let count = move || daemon.run(proc::kernel_routes);
    generator.run(|| {
        block_on(async {
            let whole = own + u64::from(RESTART_TABLE);
            let told = tell().await?;
            until(|| Ok(count()? >= whole)).await.context("routes into the kernel")?;
            processes.settle(Duration::from_secs(10)).await?;
            for pid in processes.pids() {
                // Who ended with another is gone already.
                let _ = kill(*pid, Signal::SIGKILL);
            }
            bed.kill();
            told.abort();
            let killed = Instant::now();
            let mut least = count()?;
            bed.start_again(kind, setup)?;
            let again = tokio::spawn(tell());
            let mut fed = None;
            // Whatever is swept after the start is swept by then.
            while killed.elapsed() < Duration::from_secs(15) {
                least = least.min(count()?);
                if fed.is_none() && again.is_finished() {
                    fed = Some(killed.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let fed = fed.context("the source's session did not come back within 15 s")?;
            let lost = whole.saturating_sub(least);
            let away = whole.saturating_sub(count()?);
            Ok(vec![
                ("lost", f64::from(u32::try_from(lost)?)),
                ("missing_after", f64::from(u32::try_from(away)?)),
                ("session_again_s", fed.as_secs_f64()),
            ])
        })
    })
}

/// The source with graceful restart: tells 10,000 prefixes and End-of-RIB, and keeps the session.
async fn tell() -> Result<tokio::task::JoinHandle<Result<()>>> {
    let identity = Identity { restart_time: Some(120), ..source(HOLD) };
    let session = Session::dial_until(identity, TO_SOURCE, cells::SESSIONS).await?;
    let (streams, receiver) = mpsc::channel(4);
    streams.send(Profile::Dfz.updates(RESTART_TABLE, SOURCE_AS, SOURCE)).await?;
    streams.send(feed::end_of_rib()).await?;
    Ok(tokio::spawn(async move {
        let outcome = session.feed(receiver).await;
        drop(streams);
        outcome
    }))
}
