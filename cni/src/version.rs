//! Versions of the CNI specification.

use serde::Serialize;

use crate::error::{CniError, Code};

/// What we answer, oldest first.
pub const SUPPORTED: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];

/// A version whose result format we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CniVersion {
    V0_4,
    V1_0,
    V1_1,
}

impl CniVersion {
    /// # Errors
    /// Code 1 for a version that we do not speak.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        match text {
            "0.4.0" => Ok(Self::V0_4),
            "1.0.0" => Ok(Self::V1_0),
            "1.1.0" => Ok(Self::V1_1),
            other => Err(CniError::new(
                Code::IncompatibleVersion,
                format!("CNI version {other:?} is not supported"),
            )
            .because(
                "cniVersion of the network configuration",
                &SUPPORTED.join(" or "),
                "change cniVersion",
            )),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_4 => "0.4.0",
            Self::V1_0 => "1.0.0",
            Self::V1_1 => "1.1.0",
        }
    }
}

/// The answer to VERSION.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionReport {
    pub cni_version: String,
    pub supported_versions: Vec<&'static str>,
}

impl VersionReport {
    /// Echoes the version that was asked for, where the caller named one (spec §VERSION).
    pub fn new(asked: Option<&str>) -> Self {
        Self { cni_version: asked.unwrap_or("1.0.0").to_owned(), supported_versions: SUPPORTED.to_vec() }
    }
}
