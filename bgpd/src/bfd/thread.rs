//! The thread: waits for packets, for its clock and for orders, and nothing else.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_proto::bfd::{Monitor, Output};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::sockets::{Buffers, Port, Receiver, Sender};
use super::{News, Orders, Shared, lock};

/// A port that somebody else has is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// What a planned stop takes at the most; RFC 5880 §6.8.16 asks for a detection time.
const GOODBYE: Duration = Duration::from_secs(1);
/// Datagrams of one socket before the clock is looked at again.
const BURST: usize = 64;

pub(super) struct Worker {
    shared: Arc<Shared>,
    monitor: Monitor,
    receivers: [Option<Receiver>; Port::ALL.len()],
    /// Which ports are wanted.
    wanted: [bool; Port::ALL.len()],
    senders: BTreeMap<u32, Sender>,
    buffers: Buffers,
    /// When ports that could not be opened are tried again.
    retry: Option<Instant>,
    /// Set: the end.
    ends: Option<Instant>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, seed: u64) -> Self {
        Self {
            shared,
            monitor: Monitor::new(seed),
            receivers: [const { None }; Port::ALL.len()],
            wanted: [false; Port::ALL.len()],
            senders: BTreeMap::new(),
            buffers: Buffers::new(),
            retry: None,
            ends: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let now = Instant::now();
            self.take_orders(now);
            if self.retry.is_some_and(|at| at <= now) {
                self.listen(now);
            }
            self.monitor.timeout(now);
            self.drain();
            for curious in std::mem::take(&mut *lock(&self.shared.curious)) {
                // Whoever asked may be gone.
                drop(curious.send(self.monitor.figures()));
            }
            if self.ends.is_some_and(|at| at <= now) {
                return;
            }
            let next = [self.monitor.poll_timeout(), self.retry, self.ends].into_iter().flatten().min();
            let readable = self.wait(next.map(|at| at.saturating_duration_since(Instant::now())));
            self.receive(readable);
        }
    }

    fn take_orders(&mut self, now: Instant) {
        let orders = lock(&self.shared.orders).take();
        match orders {
            None => {}
            Some(Orders::Sessions(sessions)) => {
                self.wanted =
                    Port::ALL.map(|port| sessions.values().any(|session| Port::of(&session.path) == port));
                self.listen(now);
                self.monitor.configure(&sessions, now);
            }
            Some(Orders::Stop) => {
                let until = self.monitor.stop(now).unwrap_or(now);
                self.ends = Some(until.min(now + GOODBYE));
            }
        }
    }

    /// Opens the ports that are wanted and not open, closes the others. A busy port is said once, and tried again.
    fn listen(&mut self, now: Instant) {
        let mut refused = None;
        for ((port, receiver), wanted) in Port::ALL.into_iter().zip(&mut self.receivers).zip(self.wanted) {
            if !wanted {
                *receiver = None;
            } else if receiver.is_none() {
                match Receiver::open(port) {
                    Ok(open) => *receiver = Some(open),
                    Err(error) => {
                        refused = Some(format!("cannot listen on UDP port {}: {error}", port.number()))
                    }
                }
            }
        }
        self.retry = refused.as_ref().map(|_| now + RETRY);
        let before = std::mem::replace(&mut *lock(&self.shared.deaf), refused.clone());
        if before != refused {
            self.shared.notify.notify_one();
            if let Some(error) = refused {
                tracing::error!(
                    error,
                    expected = "no other BFD daemon on this node",
                    r#do = "ss -lunp 'sport = :3784 or sport = :4784'",
                    effect = "sessions run without BFD",
                    "BFD cannot listen"
                );
            }
        }
    }

    /// Waits until a socket is readable, an order came, or so long; which sockets are readable.
    fn wait(&self, most: Option<Duration>) -> [bool; Port::ALL.len()] {
        let wake = PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN);
        let [a, b, c, d] = self.receivers.each_ref().map(|receiver| match receiver {
            Some(receiver) => PollFd::new(receiver.as_fd(), PollFlags::POLLIN),
            None => PollFd::new(self.shared.wake.as_fd(), PollFlags::empty()),
        });
        let mut descriptors = [wake, a, b, c, d];
        // An interrupted wait is a short one.
        if ppoll(&mut descriptors, most.map(TimeSpec::from_duration), None).is_err() {
            return [false; Port::ALL.len()];
        }
        let [wake, sockets @ ..] = descriptors.map(|descriptor| descriptor.any().unwrap_or(false));
        if wake {
            // Orders are looked at in any case.
            let _ = self.shared.wake.read();
        }
        sockets
    }

    fn receive(&mut self, readable: [bool; Port::ALL.len()]) {
        let readable = self.receivers.iter().zip(readable).filter(|(_, readable)| *readable);
        for receiver in readable.filter_map(|(receiver, _)| receiver.as_ref()) {
            for _ in 0..BURST {
                match receiver.receive(&mut self.buffers) {
                    Ok(None) => {}
                    Ok(Some((length, arrival))) => {
                        let bytes = self.buffers.datagram.get(..length).unwrap_or_default();
                        self.monitor.receive(bytes, &arrival, Instant::now());
                    }
                    // Nothing more; a socket that fails otherwise fails again at the next wake-up.
                    Err(_) => break,
                }
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.monitor.poll_output() {
            match output {
                Output::Transmit { session, path, packet } => {
                    if let std::collections::btree_map::Entry::Vacant(vacant) = self.senders.entry(session) {
                        match Sender::open(&path, session) {
                            Ok(sender) => drop(vacant.insert(sender)),
                            Err(error) => tracing::debug!(%error, remote = %path.remote, "BFD cannot send"),
                        }
                    }
                    if let Some(sender) = self.senders.get(&session)
                        && let Err(error) = sender.send(&packet)
                    {
                        tracing::debug!(%error, remote = %path.remote, "a BFD packet is lost");
                    }
                }
                Output::Changed { peer, from, status } => {
                    let failure = status.is_failure(from).then_some(status);
                    let mut news = lock(&self.shared.news);
                    let earlier = news.get(&peer).and_then(|earlier| earlier.failure);
                    news.insert(peer, News { status, failure: failure.or(earlier) });
                    drop(news);
                    self.shared.notify.notify_one();
                }
                Output::Closed { session } => drop(self.senders.remove(&session)),
            }
        }
    }
}
