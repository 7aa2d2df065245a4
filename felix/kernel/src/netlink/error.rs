//! What can go wrong between us and the kernel, and the three ways in which it disagrees.

use std::fmt;
use std::io;
use std::time::Duration;

use netlink_packet_core::{ErrorBuffer, NLM_F_ACK_TLVS, NLM_F_CAPPED};
use nix::errno::Errno;

use crate::wire;

const NLMSGERR_ATTR_MSG: u16 = 1;

/// A request did not go through. `what` names the request, for people.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open a route netlink socket")]
    Open(#[source] io::Error),
    #[error("cannot send to the kernel: {what}")]
    Send { what: String, source: io::Error },
    #[error("cannot read the kernel's answer: {what}")]
    Receive { what: String, source: io::Error },
    #[error("the kernel did not answer within {timeout:?}: {what}")]
    Timeout { what: String, timeout: Duration },
    /// The answer was lost; whether the kernel acted is unknown.
    #[error("the kernel's answer was lost, the receive buffer is full: {what}")]
    Overrun { what: String },
    #[error("{what}: {refusal}")]
    Refused { what: String, refusal: Refusal },
    #[error("{what}: the kernel's answer lacks {missing}")]
    Malformed { what: String, missing: &'static str },
}

impl NetlinkError {
    /// The kernel's refusal, if that is what went wrong.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Open(_)
            | Self::Send { .. }
            | Self::Receive { .. }
            | Self::Timeout { .. }
            | Self::Overrun { .. }
            | Self::Malformed { .. } => None,
        }
    }

    /// Whether the kernel said that the object exists already.
    pub fn is_exists(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.errno == libc::EEXIST)
    }

    /// Whether the kernel said that there is no such object.
    pub fn is_absent(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.disagreement(Intent::Delete) == Disagreement::AlreadySo)
    }
}

/// The kernel's no: the error number and, where it gives one, its own explanation (NETLINK_EXT_ACK).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub errno: i32,
    pub text: Option<String>,
}

impl Refusal {
    /// Reads the body of NLMSG_ERROR (or NLMSG_DONE); `None` is an acknowledgement.
    pub(crate) fn parse(flags: u16, body: &[u8]) -> Option<Self> {
        let error = ErrorBuffer::new_checked(body).ok()?;
        let errno = error.code()?.get().checked_neg()?;
        // What follows the number is left undecoded by the crate: the message refused, or its header alone, and then
        // the attributes of the extended acknowledgement.
        let echoed = if flags & NLM_F_CAPPED != 0 {
            wire::HEADER
        } else {
            wire::u32_at(error.payload(), 0).and_then(|length| usize::try_from(length).ok()).unwrap_or(0)
        };
        let text = (flags & NLM_F_ACK_TLVS != 0)
            .then(|| error.payload().get(echoed.next_multiple_of(4)..))
            .flatten()
            .and_then(|tlvs| wire::attributes(tlvs).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG))
            .map(|(_, value)| wire::string(value));
        Some(Self { errno, text })
    }

    /// How to take this refusal of a request that meant `intent`.
    pub fn disagreement(&self, intent: Intent) -> Disagreement {
        match (intent, self.errno) {
            (Intent::Create, libc::EEXIST)
            | (
                Intent::Delete,
                libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL | libc::ENXIO,
            ) => Disagreement::AlreadySo,
            (
                _,
                libc::ENODEV
                | libc::ENXIO
                | libc::EBUSY
                | libc::EAGAIN
                | libc::EINTR
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTUNREACH,
            ) => Disagreement::NotYet,
            (Intent::Create | Intent::Delete, _) => Disagreement::Wrong,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Errno::from_raw(self.errno))?;
        match &self.text {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

/// What a refused request was for: the same number means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Create or change.
    Create,
    Delete,
}

/// The three ways in which the kernel disagrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disagreement {
    /// It is already as wanted: counts as success.
    AlreadySo,
    /// Something is missing that may come (interface down, no memory): stays pending, tried again soon.
    NotYet,
    /// The request itself is refused: goes to status, tried again with long pauses.
    Wrong,
}
