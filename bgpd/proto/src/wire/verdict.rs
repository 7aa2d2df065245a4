//! What an UPDATE that is not as it should be leads to: the four answers of RFC 7606 §2, each with its evidence.

use std::fmt;

use crate::types::AfiSafi;

/// The answers of RFC 7606 §2, mildest first; an UPDATE with several faults gets the strongest (§3 h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorAction {
    /// The attribute is dropped, the route is used.
    AttributeDiscard,
    /// The routes of the UPDATE are treated as withdrawn; the session stays.
    TreatAsWithdraw,
    /// The family's routes are dropped and the peer's further ones of it ignored until the session restarts.
    AfiSafiDisable(AfiSafi),
    /// The session ends with an UPDATE Message Error of this subcode.
    SessionReset {
        /// Subcode of error code 3 (RFC 4271 §4.5).
        subcode: u8,
    },
}

impl ErrorAction {
    /// The name, for labels and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorAction::AttributeDiscard => "AttributeDiscard",
            ErrorAction::TreatAsWithdraw => "TreatAsWithdraw",
            ErrorAction::AfiSafiDisable(_) => "AfiSafiDisable",
            ErrorAction::SessionReset { .. } => "SessionReset",
        }
    }
}

/// One fault found in an UPDATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it leads to.
    pub action: ErrorAction,
    /// Type code of the attribute; 0 is the message itself (framing, withdrawn routes, NLRI).
    pub attribute: u8,
    /// What is wrong, as half a sentence.
    pub reason: &'static str,
    /// The section that decides the answer.
    pub rfc: &'static str,
    /// Data of the NOTIFICATION where the answer is a session reset: the attribute or the bytes at fault, at most 64.
    pub data: Vec<u8>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attribute != 0 {
            write!(f, "attribute {}: ", self.attribute)?;
        }
        write!(f, "{} ({}, {})", self.reason, self.action.as_str(), self.rfc)
    }
}

/// Subcodes of UPDATE Message Error (3).
pub mod subcode {
    /// The lengths do not add up, or the list of attributes makes no sense.
    pub const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
    /// A well-known attribute that we do not know.
    pub const UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE: u8 = 2;
    /// An optional attribute that cannot be read.
    pub const OPTIONAL_ATTRIBUTE_ERROR: u8 = 9;
    /// A prefix in the message itself that cannot be read.
    pub const INVALID_NETWORK_FIELD: u8 = 10;
}
