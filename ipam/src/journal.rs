//! What a node remembers of its pods across a restart, as bytes and back. The file is felix's.
//!
//! ```text
//!   manx-journal 1
//!   <crc32, 8 digits> {"pod":{"container_id":…,"step":"Assigned",…}}      one record, one line
//!   <crc32, 8 digits> {"removed":{"container_id":…,"cooling":[…]}}
//! ```
//! Append-only: the newest record of a container and interface is in force. Lines are text so that a person can
//! read them in an emergency, and each carries its own checksum, so that damage is found where it is:
//!
//! - A **torn tail** is what a crash in the middle of an append leaves: the last line does not end or does not
//!   check. Nobody was ever told that it is there, so it is cut off and nothing is lost.
//! - A **corrupt middle** is a damaged disk or an editor. What follows may rest on the lost record, so the
//!   journal is no longer the whole truth ([`Replay::complete`] is false); what could be read is still used,
//!   because an address too many that counts as owned is harmless and one too few is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::owner::{PodOwner, Sandbox};

mod checksum;
#[cfg(test)]
mod tests;

use checksum::crc32;

/// The first line of every journal.
pub const HEADER: &str = "manx-journal 1\n";

/// How far an ADD, or the DEL after it, has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// The addresses are chosen; the kernel knows nothing yet.
    Assigned,
    /// The interface exists, with addresses and routes.
    Linked,
    /// The policy is in the kernel, too: ADD has answered, or may.
    Programmed,
    /// DEL has begun.
    Removing,
}

/// A link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

/// One address of a pod, with the block and the pool that it came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    pub ip: IpAddr,
    pub block: IpNet,
    pub pool: String,
}

/// One interface of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    pub container_id: String,
    /// Inside the pod, such as `eth0`.
    pub interface: String,
    pub namespace: String,
    pub name: String,
    /// The uid that the runtime was told.
    pub uid: String,
    pub addresses: Vec<Address>,
    pub step: Step,
    /// From [`Step::Linked`] on.
    pub host_interface: Option<String>,
    pub mac: Option<MacAddress>,
    pub host_mac: Option<MacAddress>,
    /// Name of the runtime's network; empty in records of the first release.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
}

impl PodRecord {
    pub fn owner(&self) -> PodOwner {
        PodOwner {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            sandbox: Sandbox::of(&self.container_id),
            interface: self.interface.clone(),
        }
    }

    pub fn key(&self) -> Attachment {
        Attachment { container_id: self.container_id.clone(), interface: self.interface.clone() }
    }
}

/// What CNI names an attachment by: the container and the interface in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    pub container_id: String,
    pub interface: String,
}

/// An address that was released.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cooling {
    pub ip: IpAddr,
    pub until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    Pod(PodRecord),
    /// The attachment is gone; its addresses cool down.
    Removed {
        container_id: String,
        interface: String,
        cooling: Vec<Cooling>,
    },
    /// From here on the block's object may be gone, or another node's: who starts without the store must not give
    /// addresses from it.
    Leaving {
        block: IpNet,
    },
    /// It did not leave, or was claimed again.
    Kept {
        block: IpNet,
    },
}

impl Record {
    /// The bytes to append.
    pub fn encode(&self) -> Vec<u8> {
        // A record holds strings, numbers and lists only, which JSON can always express.
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut line = String::with_capacity(json.len() + 10);
        let _ = writeln!(line, "{:08x} {json}", crc32(json.as_bytes()));
        line.into_bytes()
    }
}

/// What the records add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub pods: BTreeMap<Attachment, PodRecord>,
    pub cooling: BTreeMap<IpAddr, Timestamp>,
    /// Blocks that were given back or lost, and have not come back.
    pub leaving: BTreeSet<IpNet>,
}

impl State {
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Pod(pod) => {
                for address in &pod.addresses {
                    self.cooling.remove(&address.ip);
                }
                self.pods.insert(pod.key(), pod);
            }
            Record::Removed { container_id, interface, cooling } => {
                self.pods.remove(&Attachment { container_id, interface });
                self.cooling.extend(cooling.into_iter().map(|one| (one.ip, one.until)));
            }
            Record::Leaving { block } => drop(self.leaving.insert(block)),
            Record::Kept { block } => drop(self.leaving.remove(&block)),
        }
    }

    /// A whole new journal that says the same, without what was superseded or has cooled down by `now`.
    pub fn compact(&self, now: Timestamp) -> Vec<u8> {
        let mut bytes = HEADER.as_bytes().to_vec();
        for pod in self.pods.values() {
            bytes.extend(Record::Pod(pod.clone()).encode());
        }
        let cooling: Vec<Cooling> = self
            .cooling
            .iter()
            .filter(|(_, until)| **until > now)
            .map(|(ip, until)| Cooling { ip: *ip, until: *until })
            .collect();
        if !cooling.is_empty() {
            let carrier = Record::Removed { container_id: String::new(), interface: String::new(), cooling };
            bytes.extend(carrier.encode());
        }
        for block in &self.leaving {
            bytes.extend(Record::Leaving { block: *block }.encode());
        }
        bytes
    }
}

/// A journal read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub state: State,
    /// Up to here the bytes are whole records: cut the file to this length before appending.
    pub valid_length: usize,
    /// How many bytes of an unfinished append stand behind.
    pub torn: usize,
    /// Damaged records that are followed by whole ones.
    pub corrupt: Vec<Corrupt>,
}

/// One damaged line, named so that a person finds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal line {line} (byte {offset}): {problem}")]
pub struct Corrupt {
    /// From 1.
    pub line: usize,
    pub offset: usize,
    pub problem: &'static str,
}

impl Replay {
    /// Is this everything that was ever acknowledged?
    pub fn complete(&self) -> bool {
        self.corrupt.is_empty()
    }
}

/// Reads a journal back. Any bytes have an answer; none is an error.
pub fn replay(bytes: &[u8]) -> Replay {
    let mut replay = Replay { state: State::default(), valid_length: 0, torn: 0, corrupt: Vec::new() };
    // Damage is a torn tail until a whole record follows it.
    let mut pending: Vec<Corrupt> = Vec::new();
    let mut offset = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let end = offset + line.len();
        match decode(line, index == 0) {
            Ok(record) => {
                replay.corrupt.append(&mut pending);
                replay.valid_length = end;
                if let Some(record) = record {
                    replay.state.apply(record);
                }
            }
            Err(problem) => pending.push(Corrupt { line: index + 1, offset, problem }),
        }
        offset = end;
    }
    replay.torn = bytes.len() - replay.valid_length;
    // Without its first line it is no journal of ours, or one of a version that we cannot read.
    if replay.valid_length == 0 && bytes.len() > HEADER.len() {
        replay.corrupt = pending;
    }
    replay
}

/// One line. `None`: the header.
fn decode(line: &[u8], first: bool) -> Result<Option<Record>, &'static str> {
    if first {
        let header = line == HEADER.as_bytes();
        return if header { Ok(None) } else { Err("the first line is not \"manx-journal 1\"") };
    }
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
    let text = text.strip_suffix('\n').ok_or("no end of line")?;
    let (sum, json) = text.split_once(' ').ok_or("no checksum")?;
    let sum = u32::from_str_radix(sum, 16).map_err(|_| "no checksum")?;
    if sum != crc32(json.as_bytes()) {
        return Err("the checksum does not match");
    }
    serde_json::from_str(json).map(Some).map_err(|_| "no record of this version")
}

impl Serialize for MacAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for MacAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let octets: Option<Vec<u8>> =
            text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        let octets = octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok());
        octets
            .map(MacAddress)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no link-layer address")))
    }
}
