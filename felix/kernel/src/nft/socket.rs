//! One nfnetlink socket, used synchronously: send, then read until the answer is complete.
//!
//! Every receive ends within the socket's timeout (SO_RCVTIMEO). A transaction is worked off by the kernel inside the
//! send call, which takes as long as the kernel needs (a second per million elements).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, send,
    setsockopt, socket, sockopt,
};

use super::error::NftError;
use crate::netlink::Refusal;
use crate::wire::{self, Message, Received};

/// How long an answer may take.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// A transaction is one datagram and must fit: two million elements.
const SEND_BUFFER: usize = 256 << 20;
const RECEIVE_BUFFER: usize = 8 << 20;
const RECEIVE_BYTES: usize = 256 << 10;
/// A dump that the kernel reports as interrupted by a change is begun again this often.
const DUMP_ATTEMPTS: usize = 20;

/// A `NETLINK_NETFILTER` socket and its sequence numbers.
#[derive(Debug)]
pub(crate) struct NetfilterSocket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of an answer, behind its netlink header: `nfgenmsg`, then attributes.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn attributes(&self) -> &[u8] {
        self.body.get(super::wire::GENERIC_HEADER..).unwrap_or(&[])
    }
}

/// The kernel's word on one message of several: its index, `None` for yes, and where in the message it saw the fault.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) index: u32,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) offset: Option<usize>,
}

/// Messages in place, numbered upwards from what [`NetfilterSocket::take_sequences`] gave.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) first: u32,
    pub(crate) messages: u32,
    /// Index of the message that asks for an acknowledgement.
    pub(crate) acknowledged: u32,
    pub(crate) bytes: &'a [u8],
}

impl Frame<'_> {
    /// Whether the first message opens a batch.
    fn batch(&self) -> bool {
        wire::messages(self.bytes).next().is_some_and(|first| first.kind == super::wire::BATCH_BEGIN)
    }
}

/// How a dump went.
enum Dump {
    Whole(Vec<Answer>),
    /// All parts came, and some table changed between two of them.
    Interrupted(Vec<Answer>),
    /// The kernel gave up in the middle.
    Ended,
}

impl NetfilterSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, NftError> {
        let (fd, port) = open_fd().map_err(NftError::Open)?;
        prepare(&fd).map_err(NftError::Open)?;
        Ok(Self { fd, port, sequence: 1, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Netlink port: how the kernel names this socket to others.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends one message; what comes back before its acknowledgement.
    pub(crate) fn request(&mut self, what: &str, mut message: Message) -> Result<Vec<Answer>, NftError> {
        message.add_flags(wire::NLM_F_ACK);
        let first = self.take_sequences(1);
        let mut bytes = Vec::with_capacity(message.len());
        message.finish_into(first, &mut bytes);
        let mut answers = Vec::new();
        let frame = Frame { first, messages: 1, acknowledged: 0, bytes: &bytes };
        let mut outcomes = self.send_frame(what, &frame, |received| answers.push(keep(received)))?;
        match outcomes.pop().and_then(|outcome| outcome.refusal) {
            None => Ok(answers),
            Some(refusal) => Err(NftError::Refused { what: what.to_owned(), refusal }),
        }
    }

    /// Sends messages as one datagram; the last of them must ask for an acknowledgement.
    pub(crate) fn exchange(&mut self, what: &str, messages: Vec<Message>) -> Result<Vec<Outcome>, NftError> {
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let first = self.take_sequences(count);
        let mut bytes = Vec::with_capacity(messages.iter().map(Message::len).sum());
        for (index, message) in (0..count).zip(messages) {
            message.finish_into(first.wrapping_add(index), &mut bytes);
        }
        let frame = Frame { first, messages: count, acknowledged: count.saturating_sub(1), bytes: &bytes };
        self.send_frame(what, &frame, |_| {})
    }

    /// Sends messages that are in place; the refusals and acknowledgements in the order in which the kernel gave them.
    ///
    /// Ends with the word on the acknowledged message, or on the opening frame of a batch if that is a refusal: so the
    /// kernel tells that it gave up on all.
    pub(crate) fn send_frame(
        &mut self,
        what: &str,
        frame: &Frame<'_>,
        mut other: impl FnMut(Received<'_>),
    ) -> Result<Vec<Outcome>, NftError> {
        self.send(what, frame.bytes)?;
        let mut outcomes = Vec::new();
        let mut done = false;
        while !done {
            self.receive(what, |received| {
                let index = received.sequence.wrapping_sub(frame.first);
                if index >= frame.messages {
                    return; // the answer to a request that timed out
                }
                if received.kind != wire::NLMSG_ERROR {
                    return other(received);
                }
                let refusal = Refusal::parse(received.flags, received.body);
                let opening = index == 0 && frame.acknowledged != 0 && frame.batch();
                done |= index == frame.acknowledged || (opening && refusal.is_some());
                let offset = refusal.as_ref().and_then(|_| fault_offset(&received));
                outcomes.push(Outcome { index, refusal, offset });
            })?;
        }
        Ok(outcomes)
    }

    /// Reserves consecutive sequence numbers; the first.
    pub(crate) fn take_sequences(&mut self, count: u32) -> u32 {
        let first = self.sequence;
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Everything that matches `message`: begun again when any table changed meanwhile, unless `place_kept` of what
    /// came tells that the change cannot have moved the place at which the kernel went on.
    pub(crate) fn dump(
        &mut self,
        what: &str,
        message: &Message,
        place_kept: impl Fn(&[Answer]) -> bool,
    ) -> Result<Vec<Answer>, NftError> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.dump_once(what, message.clone())? {
                Dump::Whole(answers) => return Ok(answers),
                Dump::Interrupted(answers) if place_kept(&answers) => return Ok(answers),
                Dump::Interrupted(_) | Dump::Ended => {}
            }
        }
        Err(NftError::Interrupted { what: what.to_owned(), attempts: DUMP_ATTEMPTS })
    }

    fn dump_once(&mut self, what: &str, mut message: Message) -> Result<Dump, NftError> {
        message.add_flags(wire::NLM_F_DUMP);
        let sequence = self.take_sequences(1);
        let mut bytes = Vec::with_capacity(message.len());
        message.finish_into(sequence, &mut bytes);
        self.send(what, &bytes)?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        let mut end: Option<Option<Refusal>> = None;
        while end.is_none() {
            self.receive(what, |received| {
                if received.sequence != sequence {
                    return;
                }
                interrupted |= received.flags & wire::NLM_F_DUMP_INTR != 0;
                match received.kind {
                    wire::NLMSG_DONE | wire::NLMSG_ERROR => {
                        end = Some(Refusal::parse(received.flags, received.body))
                    }
                    _ => answers.push(keep(received)),
                }
            })?;
        }
        match end.flatten() {
            // A dump may end with EINTR instead of the flag.
            Some(refusal) if refusal.errno == libc::EINTR => Ok(Dump::Ended),
            Some(refusal) => Err(NftError::Refused { what: what.to_owned(), refusal }),
            None if interrupted => Ok(Dump::Interrupted(answers)),
            None => Ok(Dump::Whole(answers)),
        }
    }

    fn send(&mut self, what: &str, bytes: &[u8]) -> Result<(), NftError> {
        loop {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                // Interrupted while it waited for memory: the kernel has not looked at it.
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(NftError::Send { what: what.to_owned(), source: errno.into() }),
            }
        }
    }

    /// Waits for one datagram and hands out its messages.
    fn receive(&mut self, what: &str, each: impl FnMut(Received<'_>)) -> Result<(), NftError> {
        let what = || what.to_owned();
        let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
            Ok(length) => length,
            Err(Errno::EINTR) => return Ok(()),
            Err(Errno::EAGAIN) => return Err(NftError::Timeout { what: what(), timeout: TIMEOUT }),
            Err(Errno::ENOBUFS) => return Err(NftError::AnswerLost { what: what() }),
            Err(errno) => return Err(NftError::Receive { what: what(), source: errno.into() }),
        };
        let datagram = self.buffer.get(..length).ok_or_else(|| NftError::AnswerLost { what: what() })?;
        wire::messages(datagram).for_each(each);
        Ok(())
    }
}

impl AsFd for NetfilterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A bound `NETLINK_NETFILTER` socket, and the port that the kernel gave it.
pub(super) fn open_fd() -> io::Result<(OwnedFd, u32)> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    let address: NetlinkAddr = getsockname(fd.as_raw_fd())?;
    Ok((fd, address.pid()))
}

fn prepare(fd: &OwnedFd) -> io::Result<()> {
    socket2::SockRef::from(fd).set_read_timeout(Some(TIMEOUT))?;
    // Explanations, and refusals that do not repeat the request: helpful, not needed.
    for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
        if let Err(err) = crate::sockopt::set(fd.as_fd(), libc::SOL_NETLINK, option, &1i32) {
            tracing::debug!(option, %err, "netlink socket option refused");
        }
    }
    // The FORCE forms need CAP_NET_ADMIN in the first user namespace; without, what the limits allow has to do.
    if setsockopt(fd, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        setsockopt(fd, sockopt::SndBuf, &SEND_BUFFER)?;
    }
    if setsockopt(fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    Ok(())
}

fn keep(received: Received<'_>) -> Answer {
    Answer { body: received.body.to_vec() }
}

/// Where in its message the kernel saw the fault (NLMSGERR_ATTR_OFFS), counted from the netlink header.
fn fault_offset(received: &Received<'_>) -> Option<usize> {
    const NLMSGERR_ATTR_OFFS: u16 = 2;
    if received.flags & wire::NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echoed = usize::try_from(wire::u32_at(received.body, 4)?).ok()?;
    let skip = if received.flags & wire::NLM_F_CAPPED != 0 { wire::HEADER } else { echoed };
    let tlvs = received.body.get(4 + skip.next_multiple_of(4)..)?;
    let (_, value) = wire::attributes(tlvs).find(|(kind, _)| *kind == NLMSGERR_ATTR_OFFS)?;
    usize::try_from(wire::u32_at(value, 0)?).ok()
}
