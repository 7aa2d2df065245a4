//! What a daemon works from, as a file: the objects that it last heard, for a start during which the store gives no
//! answer (design.md §1, "Fail static").
//!
//! ```text
//!   manx-inputs 1 <sha256 of all that follows, 64 digits>
//!   {"head":{"agent":"felix",…},"kinds":{"pods":{"resourceVersion":"17","objects":[…]},…},"values":{…}}
//! ```
//! Written whole or not at all, and used whole or not at all: a table made of half of the policies would be open where
//! the other half denies. Any byte that differs makes the file count as absent. [`keeper`] says when it is written and
//! read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use manx_crds::store::Object;
use manx_crds::store::kube::prune;
use manx_crds::v1alpha1::SCHEMA_REVISION;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};

mod file;
pub mod keeper;
#[cfg(test)]
mod tests;

/// The first word of the file, and the version of its format.
const MAGIC: &str = "manx-inputs";
const FORMAT: &str = "1";

/// Whose inputs they are. Those of another node or of another datastore would be wrong here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// `felix`, `bgpd`
    pub agent: String,
    pub node: String,
    /// As `--store` names it.
    pub store: String,
}

/// What is said of the inputs as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    #[serde(flatten)]
    pub owner: Owner,
    /// Of the program that wrote them.
    pub version: String,
    pub schema_revision: u32,
    /// The kernel's boot id: in another boot nothing of that kernel's state is left.
    pub boot: String,
    pub saved: Timestamp,
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it does not begin with {MAGIC:?}")]
    NotInputs,
    #[error("its format is {found:?}, this program reads {FORMAT:?}")]
    Format { found: String },
    #[error("its checksum does not match: it is damaged or cut off")]
    Checksum,
    #[error("it was written for schema revision {found}, this program knows {SCHEMA_REVISION}")]
    Schema { found: u32 },
    #[error(
        "it was written by {} of node {} for store {}", found.agent, found.node, found.store
    )]
    Owner { found: Box<Owner> },
    #[error("{what}: {error}")]
    Content { what: String, error: String },
}

/// The objects of one kind as they are written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Heard {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
    objects: Vec<Box<RawValue>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    kinds: BTreeMap<String, Heard>,
    /// What follows from objects that are too many to be kept themselves.
    values: BTreeMap<String, Box<RawValue>>,
}

/// Inputs on their way to the file.
#[derive(Debug, Default)]
pub struct Draft(Content);

impl Draft {
    /// All objects of a kind; what nobody reads of them is left out.
    ///
    /// # Errors
    /// An object cannot be expressed as JSON.
    pub fn kind<K: Object>(
        &mut self,
        resource_version: Option<String>,
        objects: impl IntoIterator<Item = K>,
    ) -> serde_json::Result<()> {
        let objects = objects.into_iter().map(|mut object| {
            prune(&mut object);
            object.meta_mut().owner_references = None;
            to_raw_value(&object)
        });
        let heard = Heard { resource_version, objects: objects.collect::<Result<_, _>>()? };
        self.0.kinds.insert(name_of::<K>(), heard);
        Ok(())
    }

    /// A value that is no object.
    ///
    /// # Errors
    /// It cannot be expressed as JSON.
    pub fn value(&mut self, name: &str, value: &impl Serialize) -> serde_json::Result<()> {
        self.0.values.insert(name.to_owned(), to_raw_value(value)?);
        Ok(())
    }

    /// The same for equal contents, whenever they are saved.
    fn digest(&self) -> serde_json::Result<String> {
        Ok(sha256(&serde_json::to_vec(&self.0)?))
    }

    /// The file's bytes.
    fn encode(&self, head: &Head) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct File<'a> {
            head: &'a Head,
            kinds: &'a BTreeMap<String, Heard>,
            values: &'a BTreeMap<String, Box<RawValue>>,
        }
        let Content { kinds, values } = &self.0;
        let mut body = serde_json::to_vec(&File { head, kinds, values })?;
        body.push(b'\n');
        let mut bytes = format!("{MAGIC} {FORMAT} {}\n", sha256(&body)).into_bytes();
        bytes.append(&mut body);
        Ok(bytes)
    }
}

/// Inputs that were read back.
#[derive(Debug)]
pub struct Inputs {
    pub head: Head,
    content: Content,
}

impl Inputs {
    /// Any bytes have an answer.
    ///
    /// # Errors
    /// Why they are not used.
    pub fn decode(bytes: &[u8], owner: &Owner) -> Result<Self, Refusal> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(Refusal::NotInputs)?;
        let (first, body) = bytes.split_at(end);
        let body = body.get(1..).unwrap_or_default();
        let first = std::str::from_utf8(first).map_err(|_| Refusal::NotInputs)?;
        let mut words = first.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(Refusal::NotInputs);
        }
        let (format, sum) = (words.next().unwrap_or_default(), words.next());
        if format != FORMAT {
            return Err(Refusal::Format { found: format.to_owned() });
        }
        if sum != Some(sha256(body).as_str()) || words.next().is_some() {
            return Err(Refusal::Checksum);
        }
        #[derive(Deserialize)]
        struct HeadOnly {
            head: Head,
        }
        let HeadOnly { head } = from_json("its head", body)?;
        if head.owner != *owner {
            return Err(Refusal::Owner { found: Box::new(head.owner) });
        }
        // An older one lacks fields, which have defaults; a newer one has some that this program would not honour.
        if head.schema_revision > SCHEMA_REVISION {
            return Err(Refusal::Schema { found: head.schema_revision });
        }
        Ok(Self { head, content: from_json("its objects", body)? })
    }

    /// The objects of a kind.
    ///
    /// # Errors
    /// The kind is missing: it was not among the inputs of the program that wrote them, and nothing follows from its
    /// absence. Or an object is not of the kind.
    pub fn take<K: Object>(&mut self) -> Result<Vec<K>, Refusal> {
        let name = name_of::<K>();
        let heard = self.content.kinds.remove(&name).ok_or_else(|| missing(&name))?;
        heard.objects.iter().map(|object| from_json(&name, object.get().as_bytes())).collect()
    }

    /// A value that is no object.
    ///
    /// # Errors
    /// It is missing, or another one.
    pub fn value<V: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<V, Refusal> {
        let value = self.content.values.get(name).ok_or_else(|| missing(name))?;
        from_json(name, value.get().as_bytes())
    }
}

fn missing(what: &str) -> Refusal {
    Refusal::Content { what: what.to_owned(), error: "missing".to_owned() }
}

fn from_json<T: for<'a> Deserialize<'a>>(what: &str, bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::Content { what: what.to_owned(), error: error.to_string() })
}

/// `networkpolicies.networking.k8s.io`, `pods`: kinds of two groups may share their short name.
fn name_of<K: Object>() -> String {
    let (plural, group) = (K::plural(&()), K::group(&()));
    if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") }
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a String never fails.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
