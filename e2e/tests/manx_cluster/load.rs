//! Clients outside who ask a Service all the time, each time anew, and remember every answer that they did not get.
//!
//! A router that shares flows out over several ways moves some of them when a way comes or goes; behind the other way
//! nobody knows them, and they end without an answer. No node can help that: such a connection, in flight while a ToR's
//! ways to its address changed, is counted apart. Anything else fails the step.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::netns::Netns;

/// Between two connections of one client.
const PAUSE: Duration = Duration::from_millis(10);
/// Longer than a SYN's first repetitions, and than a pod waits for its turn on a busy machine: that is a late answer, not
/// a failure.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer in this time: something was lost on the way.
const LATE: Duration = Duration::from_secs(1);
/// For so long a connection is in flight, on a busy machine.
const FLIGHT: Duration = Duration::from_secs(1);

/// Running clients.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Asked>>>,
    routers: Vec<Monitor>,
    began: Instant,
}

#[derive(Default)]
struct Asked {
    answered: usize,
    slowest: Option<Answered>,
    failures: Vec<Failure>,
}

/// Compared by what it took.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Answered {
    took: Duration,
    sent: Instant,
    target: SocketAddr,
}

struct Failure {
    target: SocketAddr,
    sent: Instant,
    error: anyhow::Error,
}

impl Load {
    /// One client for each target, behind these routers.
    pub(crate) fn start(netns: &Netns, targets: &[SocketAddr], routers: &[Netns]) -> Result<Self> {
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let routers = routers.iter().map(Monitor::start).collect::<Result<_>>()?;
        let mut clients = Vec::new();
        for target in targets {
            let (target, stop) = (*target, Arc::clone(&stop));
            clients.push(netns.spawn(move || Ok(keep_asking(target, &stop)))?);
        }
        Ok(Self { stop, clients, routers, began })
    }

    /// Stops, and fails if a single connection did.
    pub(crate) fn finish(self) -> Result<String> {
        // What ends last must still have somebody who asks.
        thread::sleep(Duration::from_secs(1));
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, clients) = (Asked::default(), self.clients.len());
        for client in self.clients {
            let one = client.join().map_err(|_| anyhow!("a client panicked"))??;
            all.answered += one.answered;
            all.slowest = all.slowest.max(one.slowest);
            all.failures.extend(one.failures);
        }
        let elapsed = self.began.elapsed().as_secs_f64();
        let changes: Vec<Changed> = self.routers.into_iter().flat_map(Monitor::finish).collect();
        let (moved, failed): (Vec<Failure>, Vec<Failure>) =
            all.failures.into_iter().partition(|failure| failure.was_moved(&changes));
        let told: Vec<String> = failed.iter().map(|failure| failure.told(self.began)).collect();
        let told: String = told.join("; ").chars().take(600).collect();
        let asked = all.answered + moved.len() + failed.len();
        ensure!(failed.is_empty(), "{} of {asked} connections failed: {told}", failed.len());
        ensure!(all.answered > clients * 10, "{} answers in {elapsed:.1}s", all.answered);
        // Few are in flight at any moment.
        ensure!(moved.len() * 100 < all.answered, "{} of {} were moved", moved.len(), all.answered);
        let slowest = all.slowest.map(|slowest| slowest.told(self.began)).unwrap_or_default();
        let apart = match moved.len() {
            0 => String::new(),
            moved => format!(", {moved} moved to another node by a ToR while in flight"),
        };
        Ok(format!("{} connections in {elapsed:.1}s, none failed{apart}, slowest {slowest}", all.answered))
    }
}

impl Answered {
    fn told(&self, began: Instant) -> String {
        let took = self.took.as_millis();
        if self.took < LATE {
            return format!("{took} ms");
        }
        // A SYN was lost: where and when is worth knowing.
        format!("{took} ms ({} at {:.2}s)", self.target, self.sent.duration_since(began).as_secs_f64())
    }
}

impl Failure {
    /// No answer came, and a router changed its ways to this address while the connection was in flight.
    fn was_moved(&self, changes: &[Changed]) -> bool {
        let kind = self.error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let is_silence = matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut));
        let in_flight = self.sent..self.sent + FLIGHT;
        is_silence
            && changes
                .iter()
                .any(|change| change.address == self.target.ip() && in_flight.contains(&change.at))
    }

    fn told(&self, began: Instant) -> String {
        let at = self.sent.duration_since(began).as_secs_f64();
        format!("{} at {at:.2}s: {:#}", self.target, self.error)
    }
}

/// A router's ways to a single address changed.
struct Changed {
    at: Instant,
    address: IpAddr,
}

/// `ip monitor route` of a router.
struct Monitor {
    child: Child,
    reader: JoinHandle<Vec<Changed>>,
}

impl Monitor {
    fn start(netns: &Netns) -> Result<Self> {
        let mut command = netns.command("ip");
        let mut child = command.args(["monitor", "route"]).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("ip monitor has no output")?;
        let reader = thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.filter_map(|line| Some(Changed { at: Instant::now(), address: address(&line)? })).collect()
        });
        Ok(Self { child, reader })
    }

    fn finish(mut self) -> Vec<Changed> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reader.join().unwrap_or_default()
    }
}

/// The destination of `[Deleted ]192.0.2.1 nhid 110 proto bgp metric 20`.
fn address(line: &str) -> Option<IpAddr> {
    let line = line.strip_prefix("Deleted ").unwrap_or(line);
    line.split(' ').next()?.parse().ok()
}

fn keep_asking(target: SocketAddr, stop: &AtomicBool) -> Asked {
    let mut asked = Asked::default();
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        match ask(target) {
            Ok(()) => {
                asked.answered += 1;
                asked.slowest = asked.slowest.max(Some(Answered { took: sent.elapsed(), sent, target }));
            }
            Err(error) => asked.failures.push(Failure { target, sent, error }),
        }
        thread::sleep(PAUSE);
    }
    asked
}

fn ask(target: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.contains(" 200 OK"), "answered {answer:?}");
    Ok(())
}
