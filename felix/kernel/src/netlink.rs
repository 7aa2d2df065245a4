//! One rtnetlink socket, used synchronously: send, then read until every answer is accounted for.
//!
//! Every call ends: what the kernel does not answer in time is [`NetlinkError::Timeout`], what it could not deliver
//! is [`NetlinkError::Overrun`]. Blocking: a call lasts as long as the kernel holds its routing lock, normally well under
//! a millisecond. From tokio, call through `spawn_blocking` or from a thread that owns the socket.
//!
//! A socket acts in the network namespace it was opened in, whoever holds it. That is how felix configures a pod's
//! namespace which it may not enter: manx-cni opens the socket there and passes it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::packet::Outgoing;
use crate::wire::{self, Received};

mod error;
pub use error::{Disagreement, Intent, NetlinkError, Refusal};

#[cfg(test)]
mod tests;

/// How long the kernel may take for one answer before we give up on it.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Messages in one datagram: past 64 nothing more is gained, and all could fail without overrunning the buffer.
const BATCH_MESSAGES: usize = 128;
const BATCH_BYTES: usize = 32 * 1024;
/// A dump that the kernel reports as interrupted by a change is begun again this often.
const DUMP_ATTEMPTS: usize = 5;
/// The kernel builds datagrams of a dump up to 32 KiB; a single message may be longer.
const RECEIVE_BYTES: usize = 128 * 1024;
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// A `NETLINK_ROUTE` socket and its sequence numbers. Shared by reference; calls take turns.
#[derive(Debug)]
pub struct RouteSocket {
    inner: Mutex<Inner>,
    timeout: Duration,
}

/// One message of an answer: kind and body.
pub(crate) type Answer = (u16, Vec<u8>);

#[derive(Debug)]
struct Inner {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl RouteSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        open_route_socket(0).map(Self::from_socket).map_err(NetlinkError::Open)
    }

    /// Takes over a socket opened elsewhere, which acts in the namespace where it was opened.
    ///
    /// Its origin must have been checked: see [`crate::descriptor::check_pod_descriptors`].
    pub fn from_fd(fd: OwnedFd) -> Self {
        // SAFETY: the descriptor is open and was owned by `fd`, which gives it up: the `Socket` alone closes it.
        Self::from_socket(unsafe { Socket::from_raw_fd(fd.into_raw_fd()) })
    }

    fn from_socket(socket: Socket) -> Self {
        prepare(&socket);
        // Sequence numbers start anywhere: answers to a former owner must not be taken for ours.
        let sequence = std::process::id().wrapping_mul(2_654_435_761);
        Self {
            inner: Mutex::new(Inner { socket, sequence, buffer: vec![0; RECEIVE_BYTES] }),
            timeout: TIMEOUT,
        }
    }

    /// The same socket, giving up after `timeout` without an answer.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The number by which the kernel names this socket as the one that asked for a change (`nlmsg_pid` of what it tells
    /// others of it).
    ///
    /// # Errors
    /// The socket has none.
    pub fn port(&self) -> Result<u32, NetlinkError> {
        let mut address = SocketAddr::new(0, 0);
        self.lock().socket.get_address(&mut address).map_err(NetlinkError::Open)?;
        Ok(address.port_number())
    }

    /// Sends one message and waits for its acknowledgement.
    pub(crate) fn request(&self, what: &str, message: impl Outgoing) -> Result<(), NetlinkError> {
        self.query(what, message).map(drop)
    }

    /// As [`Self::request`], where what is already so counts as done.
    pub(crate) fn ensure(
        &self,
        what: &str,
        intent: Intent,
        message: impl Outgoing,
    ) -> Result<(), NetlinkError> {
        match self.request(what, message) {
            Err(NetlinkError::Refused { refusal, .. })
                if refusal.disagreement(intent) == Disagreement::AlreadySo =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Sends one message; the messages it is answered with, each as kind and body, before the acknowledgement.
    pub(crate) fn query(&self, what: &str, mut message: impl Outgoing) -> Result<Vec<Answer>, NetlinkError> {
        message.add_flags(NLM_F_ACK);
        let mut inner = self.lock();
        let sequence = inner.next_sequence();
        let mut bytes = Vec::new();
        message.append(sequence, &mut bytes);
        inner.send(what, &bytes)?;
        let mut answers = Vec::new();
        let mut outcome = None;
        while outcome.is_none() {
            inner.receive(what, self.timeout, |received| {
                if received.sequence != sequence {
                    return;
                }
                match received.kind {
                    NLMSG_ERROR => outcome = Some(Refusal::parse(received.flags, received.body)),
                    kind => answers.push((kind, received.body.to_vec())),
                }
            })?;
        }
        match outcome.flatten() {
            None => Ok(answers),
            Some(refusal) => Err(NetlinkError::Refused { what: what.to_owned(), refusal }),
        }
    }

    /// What `parse` makes of everything that the kernel lists for `message`, of each its kind and body. Nothing else is
    /// kept: a listing may have a million entries.
    ///
    /// A dump that the kernel marks as inconsistent is begun anew; what comes back is of one that was consistent, or of
    /// the last attempt.
    pub(crate) fn dump<T>(
        &self,
        what: &str,
        message: &impl Outgoing,
        mut parse: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut inner = self.lock();
        let mut attempt = 1;
        loop {
            let mut message = message.clone();
            message.add_flags(NLM_F_DUMP);
            let (listed, interrupted) = inner.dump_once(what, message, self.timeout, &mut parse)?;
            if !interrupted || attempt >= DUMP_ATTEMPTS {
                return Ok(listed);
            }
            attempt += 1;
        }
    }

    /// Sends many messages, few datagrams; for each message what the kernel said: nothing, or its refusal.
    ///
    /// Only the last message of a datagram asks for an acknowledgement; refusals come by themselves. An error of the
    /// socket ends the batch: what was not reported by then is unknown.
    pub(crate) fn batch(
        &self,
        what: &str,
        messages: Vec<impl Outgoing>,
    ) -> Result<Vec<Option<Refusal>>, NetlinkError> {
        let mut inner = self.lock();
        let mut outcomes = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let mut bytes = Vec::with_capacity(BATCH_BYTES);
            let first = inner.sequence.wrapping_add(1);
            let mut count: u32 = 0;
            while let Some(mut message) = messages.next() {
                count += 1;
                let full = count as usize >= BATCH_MESSAGES || bytes.len() + message.length() >= BATCH_BYTES;
                if full || messages.peek().is_none() {
                    message.add_flags(NLM_F_ACK);
                }
                message.append(inner.next_sequence(), &mut bytes);
                if full {
                    break;
                }
            }
            outcomes.append(&mut inner.exchange(what, &bytes, first, count, self.timeout)?);
        }
        Ok(outcomes)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, what: &str, bytes: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(NetlinkError::Send { what: what.to_owned(), source }),
            }
        }
    }

    fn exchange(
        &mut self,
        what: &str,
        bytes: &[u8],
        first: u32,
        count: u32,
        timeout: Duration,
    ) -> Result<Vec<Option<Refusal>>, NetlinkError> {
        self.send(what, bytes)?;
        let mut outcomes = vec![None; count as usize];
        let mut answered = false;
        while !answered {
            self.receive(what, timeout, |received| {
                let offset = received.sequence.wrapping_sub(first);
                if received.kind != NLMSG_ERROR || offset >= count {
                    return;
                }
                if let Some(outcome) = outcomes.get_mut(offset as usize) {
                    *outcome = Refusal::parse(received.flags, received.body);
                }
                answered |= offset + 1 == count;
            })?;
        }
        Ok(outcomes)
    }

    fn dump_once<T>(
        &mut self,
        what: &str,
        message: impl Outgoing,
        timeout: Duration,
        parse: &mut impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<(Vec<T>, bool), NetlinkError> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        message.append(sequence, &mut bytes);
        self.send(what, &bytes)?;
        let mut listed = Vec::new();
        let mut interrupted = false;
        let mut end: Option<Option<Refusal>> = None;
        while end.is_none() {
            self.receive(what, timeout, |received| {
                if received.sequence != sequence {
                    return;
                }
                interrupted |= received.flags & NLM_F_DUMP_INTR != 0;
                match received.kind {
                    NLMSG_DONE | NLMSG_ERROR => end = Some(Refusal::parse(received.flags, received.body)),
                    kind => listed.extend(parse(kind, received.body)),
                }
            })?;
        }
        match end.flatten() {
            None => Ok((listed, interrupted)),
            Some(refusal) => Err(NetlinkError::Refused { what: what.to_owned(), refusal }),
        }
    }

    /// Waits for one datagram and hands out its messages.
    fn receive(
        &mut self,
        what: &str,
        timeout: Duration,
        each: impl FnMut(Received<'_>),
    ) -> Result<(), NetlinkError> {
        wait_readable(self.socket.as_fd(), what, timeout)?;
        let length = match receive(&self.socket, &mut self.buffer) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(Errno::ENOBUFS) => return Err(NetlinkError::Overrun { what: what.to_owned() }),
            Err(errno) => return Err(NetlinkError::Receive { what: what.to_owned(), source: errno.into() }),
        };
        let Some(datagram) = self.buffer.get(..length) else {
            return Err(NetlinkError::Overrun { what: what.to_owned() });
        };
        wire::messages(datagram).for_each(each);
        Ok(())
    }
}

/// A `NETLINK_ROUTE` socket that hears the multicast groups of the mask `groups` (0: none).
pub(crate) fn open_route_socket(groups: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}

/// Takes one datagram if there is one; its length, which is more than the buffer's if it did not fit.
pub(crate) fn receive(socket: &Socket, mut buffer: &mut [u8]) -> Result<usize, Errno> {
    socket
        .recv(&mut buffer, libc::MSG_DONTWAIT | libc::MSG_TRUNC)
        .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))
}

/// The room for what waits to be read. `SO_RCVBUFFORCE`, which netlink-sys lacks, needs CAP_NET_ADMIN in the first user
/// namespace, which a pod's or a test's socket may lack.
pub(crate) fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        socket.set_rx_buf_sz(libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX))?;
    }
    Ok(())
}

/// Options that make answers cheaper or clearer. Each is a convenience: without it the answers still parse.
fn prepare(socket: &Socket) {
    for (option, result) in [
        ("NETLINK_CAP_ACK", socket.set_cap_ack(true)),
        ("NETLINK_EXT_ACK", socket.set_ext_ack(true)),
        ("NETLINK_GET_STRICT_CHK", socket.set_netlink_get_strict_chk(true)),
        ("SO_RCVBUF", set_receive_buffer(socket, RECEIVE_BUFFER)),
    ] {
        if let Err(err) = result {
            tracing::debug!(option, %err, "netlink socket option refused");
        }
    }
}

fn wait_readable(fd: BorrowedFd<'_>, what: &str, timeout: Duration) -> Result<(), NetlinkError> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last millisecond is waited for and not spun away.
        let left = left.as_millis().saturating_add(u128::from(!left.is_zero()));
        let poll_timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, poll_timeout) {
            Ok(0) => return Err(NetlinkError::Timeout { what: what.to_owned(), timeout }),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(NetlinkError::Receive { what: what.to_owned(), source: errno.into() }),
        }
    }
}
