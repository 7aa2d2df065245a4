//! The frames between the shim and felix: four bytes of length, big endian, then JSON. The descriptors of an
//! ADD or CHECK (network namespace, netlink socket inside it) travel with the first byte (SCM_RIGHTS).

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::CniError;
use crate::result::PodNetwork;

/// A longer frame is refused before it is read.
pub const MAX_FRAME: u32 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    Add,
    Del,
    Check,
    /// Everything but the attachments that are named is to go (spec 1.1.0).
    Gc,
    /// Whether an ADD would be served (spec 1.1.0).
    Status,
}

impl Verb {
    pub const ALL: [Self; 5] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status];

    /// As `CNI_COMMAND` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }

    /// Whether the call is about one interface of one container.
    pub fn names_container(self) -> bool {
        match self {
            Self::Add | Self::Del | Self::Check => true,
            Self::Gc | Self::Status => false,
        }
    }

    /// Whether felix works inside the pod's namespace, and hence needs its descriptors.
    pub fn enters_namespace(self) -> bool {
        match self {
            Self::Add | Self::Check => true,
            Self::Del | Self::Gc | Self::Status => false,
        }
    }
}

/// One interface of one container, as GC names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentRef {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// The pod as the runtime names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    /// Of a static pod it is not the uid of its mirror object.
    pub uid: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub verb: Verb,
    /// `name` of the network configuration.
    pub network: String,
    /// Empty where the verb names no container.
    pub container_id: String,
    pub ifname: String,
    /// For the answer and the log only: felix uses the descriptor.
    pub netns: Option<String>,
    pub pod: Option<PodRef>,
    /// Why IPv6 could not be switched on inside the pod, if so: felix says it when it matters.
    pub ipv6_off: Option<String>,
    /// CHECK: the addresses of `prevResult`, where there is one.
    #[serde(default)]
    pub expected: Option<Vec<IpNet>>,
    /// GC: what is to stay.
    #[serde(default)]
    pub attachments: Vec<AttachmentRef>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    Added(PodNetwork),
    /// DEL, CHECK, GC and STATUS have nothing to say.
    Done,
    Failed(CniError),
}

/// A value as one frame.
///
/// # Errors
/// Where the value does not serialise, or is longer than [`MAX_FRAME`].
pub fn frame<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_vec(value)?;
    let length = u32::try_from(body.len()).ok().filter(|n| *n <= MAX_FRAME).ok_or_else(|| {
        serde::ser::Error::custom(format_args!("a frame of {} bytes, at most {MAX_FRAME}", body.len()))
    })?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Reads the value behind a length that [`frame_length`] accepted.
///
/// # Errors
/// Where the bytes are not that value.
pub fn unframe<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body)
}

/// The number of bytes that follow these four; none if it is over [`MAX_FRAME`].
pub fn frame_length(head: [u8; 4]) -> Option<usize> {
    let length = u32::from_be_bytes(head);
    (length <= MAX_FRAME).then_some(length as usize)
}
