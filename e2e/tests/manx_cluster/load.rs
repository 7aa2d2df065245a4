//! Clients outside who ask a Service all the time, each time anew, and remember every answer that they did not get.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use e2e::netns::Netns;

/// Between two connections of one client.
const PAUSE: Duration = Duration::from_millis(10);
/// Longer than a SYN's first repetition: a lost packet is a late answer, not a failure.
const PATIENCE: Duration = Duration::from_secs(4);

/// Running clients.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Asked>>>,
    began: Instant,
}

#[derive(Default)]
struct Asked {
    answered: usize,
    slowest: Duration,
    failures: Vec<String>,
}

impl Load {
    /// One client for each target.
    pub(crate) fn start(netns: &Netns, targets: &[SocketAddr]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let mut clients = Vec::new();
        for target in targets {
            let (target, stop) = (*target, Arc::clone(&stop));
            clients.push(netns.spawn(move || Ok(keep_asking(target, &stop, began)))?);
        }
        Ok(Self { stop, clients, began })
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
        let took = self.began.elapsed().as_secs_f64();
        let (failed, first) = (all.failures.len(), all.failures.join("; "));
        let first: String = first.chars().take(600).collect();
        ensure!(failed == 0, "{failed} of {} connections failed: {first}", failed + all.answered);
        ensure!(all.answered > clients * 10, "{} answers in {took:.1}s", all.answered);
        let slowest = all.slowest.as_millis();
        Ok(format!("{} connections in {took:.1}s, none failed, slowest {slowest} ms", all.answered))
    }
}

fn keep_asking(target: SocketAddr, stop: &AtomicBool, began: Instant) -> Asked {
    let mut asked = Asked::default();
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        match ask(target) {
            Ok(()) => {
                asked.answered += 1;
                asked.slowest = asked.slowest.max(sent.elapsed());
            }
            Err(error) => {
                let at = sent.duration_since(began).as_secs_f64();
                asked.failures.push(format!("{target} at {at:.2}s: {error:#}"));
            }
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
