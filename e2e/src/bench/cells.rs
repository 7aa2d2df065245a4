//! One source, N prefixes, so many sinks: what it costs each daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::bench::daemon::{Bed, Kind, SINK_AS, SOURCE, Setup, TO_SINKS, TO_SOURCE, sink_address};
use crate::bench::feed::{self, Profile, SOURCE_AS};
use crate::bench::proc::Processes;
use crate::bench::session::{Heard, Identity, Session};

/// For sessions to come up.
pub const SESSIONS: Duration = Duration::from_secs(60);
const HOLD: u16 = 90;

/// One place of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub profile: Profile,
    pub prefixes: u32,
    pub sinks: usize,
}

/// What one run of one daemon cost.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Until every sink held everything.
    pub cpu_s: f64,
    /// Until the daemon had nothing left to do, which may be later.
    pub settled_cpu_s: f64,
    pub rss_mib: f64,
    pub wall_s: f64,
    /// UPDATEs that the first sink took, which says how well they were packed.
    pub updates: u64,
}

/// Source, sinks and what they report.
pub struct Generator {
    /// What is sent here, the source tells.
    pub source: mpsc::Sender<Vec<u8>>,
    pub heard: mpsc::UnboundedReceiver<Heard>,
    pub told: JoinHandle<Result<()>>,
}

/// The source's identity.
#[must_use]
pub fn source(hold: u16) -> Identity {
    Identity { address: SOURCE, asn: SOURCE_AS, hold, restart_time: None }
}

/// That of a sink.
#[must_use]
pub fn sink(number: usize, hold: u16) -> Identity {
    Identity { address: sink_address(number), asn: SINK_AS, hold, restart_time: None }
}

impl Generator {
    /// Dials the daemon from every address; the sinks wait for so many prefixes.
    pub async fn connect(cell: Cell, hold: u16) -> Result<Self> {
        let (reports, heard) = mpsc::unbounded_channel();
        let dials: Vec<_> = (0..cell.sinks)
            .map(|number| tokio::spawn(Session::dial_until(sink(number, hold), TO_SINKS, SESSIONS)))
            .collect();
        for (number, dial) in dials.into_iter().enumerate() {
            let session = dial.await?.with_context(|| format!("sink {number}"))?;
            tokio::spawn(session.sink(number, cell.profile, cell.prefixes, reports.clone()));
        }
        let session = Session::dial_until(source(hold), TO_SOURCE, SESSIONS).await?;
        let (source, streams) = mpsc::channel(4);
        let told = tokio::spawn(session.feed(streams));
        Ok(Self { source, heard, told })
    }

    /// Waits until every sink holds everything; UPDATEs of the first sink.
    pub async fn complete(&mut self, sinks: usize, patience: Duration) -> Result<u64> {
        let (mut done, mut first) = (0, 0);
        let wait = async {
            while done < sinks {
                match self.heard.recv().await.context("no sink is left")? {
                    Heard::Complete { sink, updates, .. } => {
                        done += 1;
                        if sink == 0 {
                            first = updates;
                        }
                    }
                    Heard::Update { .. } => {}
                    Heard::Ended { sink, why } => bail!("the session of sink {sink} ended: {why}"),
                }
            }
            Ok(())
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(outcome) => outcome.map(|()| first),
            Err(_) => bail!("{done} of {sinks} sinks hold everything after {} s", patience.as_secs()),
        }
    }
}

/// A runtime for the generator, on the thread that is in its namespace.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Runs one cell once.
pub fn run(manx: &Path, kind: Kind, cell: Cell, patience: Duration) -> Result<Sample> {
    let mut bed = Bed::make(manx, cell.sinks)?;
    let setup = Setup { sinks: cell.sinks, kernel: false, passive: true, hold: HOLD, restart: false };
    let stream = cell.profile.updates(cell.prefixes, SOURCE_AS, SOURCE);
    let processes = bed.start(kind, setup)?;
    let generator = bed.generator.clone();
    generator.run(|| block_on(measure(cell, &processes, stream, patience)))
}

async fn measure(cell: Cell, processes: &Processes, stream: Vec<u8>, patience: Duration) -> Result<Sample> {
    let mut generator = Generator::connect(cell, HOLD).await?;
    processes.settle(Duration::from_secs(5)).await?;
    let (began, before) = (Instant::now(), processes.cpu()?);
    generator.source.send(stream).await.context("the source is gone")?;
    generator.source.send(feed::end_of_rib()).await.context("the source is gone")?;
    let updates = generator.complete(cell.sinks, patience).await?;
    let (cpu, wall) = (processes.cpu()?, began.elapsed());
    processes.settle(Duration::from_secs(5)).await?;
    Ok(Sample {
        cpu_s: cpu - before,
        settled_cpu_s: processes.cpu()? - before,
        rss_mib: processes.peak_mib()?,
        wall_s: wall.as_secs_f64(),
        updates,
    })
}
