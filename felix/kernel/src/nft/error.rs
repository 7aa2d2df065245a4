//! What can go wrong with our table, and what the caller does about it.

use std::io;
use std::time::Duration;

use crate::netlink::Refusal;

/// Reading or writing nftables or connection tracking failed. `what` names the request, for people.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("cannot open a netfilter netlink socket")]
    Open(#[source] io::Error),
    #[error("cannot send to the kernel: {what}")]
    Send { what: String, source: io::Error },
    #[error("cannot read the kernel's answer: {what}")]
    Receive { what: String, source: io::Error },
    /// Whether the kernel acted is unknown: read the table.
    #[error("the kernel did not answer within {timeout:?}: {what}")]
    Timeout { what: String, timeout: Duration },
    /// Whether the kernel acted is unknown: read the table.
    #[error("the kernel's answer was lost, the receive buffer is full: {what}")]
    AnswerLost { what: String },
    #[error("{what}: others changed it {attempts} times while it was read")]
    Interrupted { what: String, attempts: usize },
    #[error("{what}: {refusal}")]
    Refused { what: String, refusal: Refusal },
    /// Nothing of the transaction is in force. `index` counts its operations from 0; `step` says which part of it.
    #[error("operation {index}, {step}: {refusal}")]
    Operation { index: usize, step: String, refusal: Refusal },
    /// Another socket, so another process or another handle of ours, owns the table.
    #[error("table inet {table} belongs to another netlink socket (port {port}) that is still open", table = felix_calc::host::TABLE)]
    Owned { port: u32 },
    /// The value says something that nftables has no form for; nothing was sent.
    #[error("{what}: {why}")]
    Unsupported { what: String, why: String },
    #[error("{what}: the kernel's answer lacks {missing}")]
    Malformed { what: String, missing: &'static str },
}

impl NftError {
    /// What the kernel said, if it said no.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } | Self::Operation { refusal, .. } => Some(refusal),
            Self::Open(_)
            | Self::Send { .. }
            | Self::Receive { .. }
            | Self::Timeout { .. }
            | Self::AnswerLost { .. }
            | Self::Interrupted { .. }
            | Self::Owned { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. } => None,
        }
    }

    /// Whether the kernel's number for its refusal is this one.
    pub(crate) fn is(&self, errno: i32) -> bool {
        self.refusal().is_some_and(|refusal| refusal.errno == errno)
    }

    pub(super) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), why: why.into() }
    }
}
