//! Where an object of a kind stands in the directory.
//!
//! ```text
//!   ippools.manx.dev/default-ipv4.yaml          people's
//!   pods/shop/web-1.yaml                        core kinds without the group
//!   .status/pods/shop/web-1.yaml                what agents say of it, its uid, its finalizers
//!   .last/pods/shop/web-1.yaml                  the last text that validated
//!   .status/pods/.lock                          who writes, one at a time
//!   .events/manx-felix.jsonl
//! ```

use std::any::TypeId;
use std::path::{Path, PathBuf};

use kube::core::NamespaceResourceScope;

use crate::store::{Key, Object, StoreError};
use crate::validate::{KindSchema, schema_of};

pub(super) const STATUS: &str = ".status";
pub(super) const LAST: &str = ".last";
pub(super) const EVENTS: &str = ".events";
pub(super) const SUFFIX: &str = ".yaml";

/// What the directory knows of a kind.
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) kind: String,
    pub(super) api_version: String,
    /// `ippools.manx.dev`, `pods`
    pub(super) folder: String,
    pub(super) namespaced: bool,
    /// Absent for upstream kinds.
    pub(super) schema: Option<&'static KindSchema>,
}

impl Kind {
    pub(super) fn of<K: Object>() -> Self {
        let (group, plural) = (K::group(&()), K::plural(&()));
        Self {
            kind: K::kind(&()).into_owned(),
            api_version: K::api_version(&()).into_owned(),
            folder: if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") },
            namespaced: TypeId::of::<K::Scope>() == TypeId::of::<NamespaceResourceScope>(),
            schema: schema_of(&group, &K::kind(&())),
        }
    }

    /// A policy, whose fields narrow what passes: none may be dropped.
    pub(super) fn is_policy(&self) -> bool {
        self.folder == "networkpolicies.networking.k8s.io"
    }

    pub(super) fn is_secret(&self) -> bool {
        self.folder == "secrets"
    }

    /// The name must be one path segment, and no other than Kubernetes allows.
    pub(super) fn check_key(&self, key: &Key) -> Result<(), StoreError> {
        let namespace_fits = key.namespace.is_some() == self.namespaced;
        let well_formed = |name: &str| {
            !name.is_empty()
                && name.len() <= 253
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
                && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
                && name.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric())
        };
        if namespace_fits && well_formed(&key.name) && key.namespace.as_deref().is_none_or(well_formed) {
            return Ok(());
        }
        Err(StoreError::Invalid(format!(
            "metadata.name: Invalid value: {:?}: must be a DNS-1123 subdomain, {} a namespace",
            key.name,
            if self.namespaced { "in" } else { "without" }
        )))
    }
}

/// The three files of one object.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) people: PathBuf,
    pub(super) agents: PathBuf,
    pub(super) last: PathBuf,
}

impl Files {
    pub(super) fn of(root: &Path, kind: &Kind, key: &Key) -> Self {
        let at = |base: PathBuf| {
            let mut path = base.join(&kind.folder);
            if let Some(namespace) = &key.namespace {
                path.push(namespace);
            }
            path.push(format!("{}{SUFFIX}", key.name));
            path
        };
        Self { people: at(root.to_owned()), agents: at(root.join(STATUS)), last: at(root.join(LAST)) }
    }
}

/// The object's name, if a directory entry holds one; temporary and hidden files do not.
pub(super) fn object_name(file: &str) -> Option<&str> {
    file.strip_suffix(SUFFIX).filter(|name| !name.is_empty() && !name.starts_with('.'))
}
