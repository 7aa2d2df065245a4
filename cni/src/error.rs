//! CNI errors: one JSON object on stdout and exit code 1.

use serde::{Deserialize, Serialize};

/// Error codes of the CNI specification §"Error".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    IncompatibleVersion,
    UnsupportedField,
    UnknownContainer,
    InvalidEnvironment,
    Io,
    Decode,
    InvalidConfig,
    TryAgainLater,
    /// STATUS: an ADD would fail (spec 1.1.0).
    NotAvailable,
    /// 100 and more are the plugin's own.
    Internal,
}

impl Code {
    /// The number that goes over the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::Internal => 100,
        }
    }
}

/// `msg` says what, `details` where, what was expected, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg} (CNI code {code})")]
pub struct CniError {
    pub code: u32,
    pub msg: String,
    pub details: String,
}

impl CniError {
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code: code.number(), msg: what.into(), details: String::new() }
    }

    /// Adds the other three parts of the house's error form.
    #[must_use]
    pub fn because(mut self, place: &str, expected: &str, todo: &str) -> Self {
        self.details = format!("where: {place}; expected: {expected}; do: {todo}");
        self
    }
}
