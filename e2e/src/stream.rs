//! Steady traffic on many flows, each packet numbered: what was lost, and for how long a flow was silent.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netns::Netns;
use crate::probe;

/// One flow: its own source port, so that ECMP may send it another way than the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Index into the flows.
    pub flow: usize,
    pub sent: Instant,
    /// When its answer came.
    pub answered: Option<Instant>,
}

/// What a stream came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub flows: Vec<Flow>,
    pub packets: Vec<Packet>,
}

/// A running stream.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    worker: JoinHandle<Result<Outcome>>,
}

/// How long after the last packet an answer still counts.
const STRAGGLERS: Duration = Duration::from_secs(2);

impl Stream {
    /// Sends one packet every `interval`, the flows in turn, from inside `netns`.
    pub fn start(netns: &Netns, flows: Vec<Flow>, interval: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let worker = netns.spawn(move || run(flows, interval, &stopped))?;
        Ok(Self { stop, worker })
    }

    /// Stops sending, waits for the last answers.
    pub fn finish(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.worker.join().map_err(|_| anyhow!("the stream's thread panicked"))?
    }
}

fn run(flows: Vec<Flow>, interval: Duration, stop: &AtomicBool) -> Result<Outcome> {
    let sockets: Vec<UdpSocket> =
        flows.iter().map(|flow| probe::datagrams(flow.local, flow.remote)).collect::<Result<_>>()?;
    for socket in &sockets {
        socket.set_nonblocking(true)?;
    }
    let answers = Mutex::new(Vec::new());
    let quiet = AtomicBool::new(false);
    let mut sent = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| receive(&sockets, &answers, &quiet));
        let begun = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let number = sent.len();
            let due = begun + interval * u32::try_from(number).unwrap_or(u32::MAX);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let Some(flow) = number.checked_rem(sockets.len()) else { break };
            let mut payload = [0u8; 12];
            if let Some(head) = payload.get_mut(..8) {
                head.copy_from_slice(&u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes());
            }
            sent.push(Packet { flow, sent: Instant::now(), answered: None });
            if let Some(socket) = sockets.get(flow) {
                // What cannot be sent stays unanswered, and is counted as lost.
                let _ = socket.send(&payload);
            }
        }
        let deadline = Instant::now() + STRAGGLERS;
        while Instant::now() < deadline && count(&answers) < sent.len() {
            thread::sleep(Duration::from_millis(5));
        }
        quiet.store(true, Ordering::Relaxed);
    });
    for (number, at) in answers.into_inner().map_err(|_| anyhow!("the receiver panicked"))? {
        let packet = usize::try_from(number).ok().and_then(|number| sent.get_mut(number));
        if let Some(packet) = packet {
            packet.answered.get_or_insert(at);
        }
    }
    Ok(Outcome { flows, packets: sent })
}

fn count(answers: &Mutex<Vec<(u64, Instant)>>) -> usize {
    answers.lock().map_or(0, |list| list.len())
}

fn receive(sockets: &[UdpSocket], answers: &Mutex<Vec<(u64, Instant)>>, quiet: &AtomicBool) {
    let mut buffer = [0u8; 64];
    while !quiet.load(Ordering::Relaxed) {
        let mut waiting: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        if poll(&mut waiting, PollTimeout::from(100u8)).unwrap_or(0) == 0 {
            continue;
        }
        for (socket, state) in sockets.iter().zip(&waiting) {
            if state.any() != Some(true) {
                continue;
            }
            while let Ok(size) = socket.recv(&mut buffer) {
                let number = buffer.get(..size.min(8)).and_then(|head| <[u8; 8]>::try_from(head).ok());
                if let (Some(number), Ok(mut list)) = (number, answers.lock()) {
                    list.push((u64::from_be_bytes(number), Instant::now()));
                }
            }
        }
    }
}

impl Outcome {
    /// Packets without an answer.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.packets.iter().filter(|packet| packet.answered.is_none()).count()
    }

    /// Packets without an answer on one flow.
    #[must_use]
    pub fn lost_on(&self, flow: usize) -> usize {
        self.packets.iter().filter(|packet| packet.flow == flow && packet.answered.is_none()).count()
    }

    /// For each flow, how long after `cut` the first packet was sent that was answered and that no unanswered
    /// one follows until the end. `None`: the flow did not come back.
    #[must_use]
    pub fn recovery(&self, cut: Instant) -> Vec<Option<Duration>> {
        (0..self.flows.len())
            .map(|flow| {
                let mut back = None;
                for packet in self.packets.iter().filter(|packet| packet.flow == flow && packet.sent >= cut) {
                    match (packet.answered, back) {
                        (Some(answered), None) => back = Some(answered.saturating_duration_since(cut)),
                        (Some(_), Some(_)) => {}
                        (None, _) => back = None,
                    }
                }
                back
            })
            .collect()
    }
}

/// One TCP connection on which a byte goes there and back every 5 ms.
#[derive(Debug)]
pub struct KeptConnection {
    last: Arc<Mutex<Instant>>,
    stop: Arc<AtomicBool>,
}

impl KeptConnection {
    /// Connects, and begins once the first byte came back.
    pub fn start(netns: &Netns, local: SocketAddr, remote: SocketAddr) -> Result<Self> {
        let patience = Duration::from_secs(2);
        let mut stream = netns
            .run(|| probe::connect_tcp(local, remote, patience))?
            .with_context(|| format!("{remote} answers no tcp"))?;
        stream.set_read_timeout(Some(patience))?;
        stream.read_exact(&mut [0u8; 16]).context("the kept connection")?;
        let last = Arc::new(Mutex::new(Instant::now()));
        let stop = Arc::new(AtomicBool::new(false));
        let kept = Self { last: Arc::clone(&last), stop: Arc::clone(&stop) };
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if stream.write_all(b"x").is_err() || stream.read_exact(&mut [0u8; 1]).is_err() {
                    return;
                }
                if let Ok(mut last) = last.lock() {
                    *last = Instant::now();
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        Ok(kept)
    }

    /// When the last byte came back.
    #[must_use]
    pub fn last_answer(&self) -> Instant {
        self.last.lock().map_or_else(|poisoned| *poisoned.into_inner(), |last| *last)
    }
}

impl Drop for KeptConnection {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
