//! Passwords of sessions, in Secrets of one namespace: bgpd signs with them, the controller says what is missing.
//!
//! No log line and no message shows what a Secret holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use manx_crds::conditions::ResolvedRefs;
use manx_crds::store::{Key, Selection};
use manx_crds::v1alpha1::{SecretKeyRef, SessionAuth};

use crate::kind::{Invalid, Kind};

/// Where the Secrets are unless `--secrets-namespace` says otherwise.
pub const NAMESPACE: &str = "manx-secrets";
/// TCP-MD5 keys are at most this long, bytes (TCP_MD5SIG_MAXKEYLEN).
const LONGEST: usize = 80;

/// The key of a session: 1 to 80 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(Vec<u8>);

impl SessionKey {
    /// A key out of a Secret's value. The line break that a file ends with is not part of a password.
    ///
    /// # Errors
    /// What is wrong with its length.
    pub fn new(value: &[u8]) -> Result<Self, String> {
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        match value.len() {
            0 => Err("is empty".to_owned()),
            1..=LONGEST => Ok(Self(value.to_vec())),
            length => Err(format!("has {length} bytes, and TCP-MD5 takes {LONGEST} at most")),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// [`ResolvedRefs::SecretNotFound`] or [`ResolvedRefs::SecretKeyMissing`].
    pub reason: ResolvedRefs,
    /// Which Secret, what of it, and what to do.
    pub message: String,
}

/// The Secrets of the one namespace, as last heard.
pub struct Secrets {
    pub namespace: String,
    pub kind: Kind<Secret>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self::of(NAMESPACE)
    }
}

/// Every key that an `auth` names, with the field that names it.
pub fn references(auth: &SessionAuth) -> Vec<(String, &SecretKeyRef)> {
    let md5 = auth.md5.iter().map(|md5| ("md5.secretRef".to_owned(), &md5.secret_ref));
    let ao = auth.tcp_ao.iter().flat_map(|ao| ao.keys.iter().enumerate());
    md5.chain(ao.map(|(index, key)| (format!("tcpAO.keys[{index}].secretRef"), &key.secret_ref))).collect()
}

impl Secrets {
    /// None heard yet.
    pub fn of(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), kind: Kind::default() }
    }

    /// What to watch.
    pub fn selection(namespace: &str) -> Selection {
        Selection { namespace: Some(namespace.to_owned()), ..Selection::default() }
    }

    /// The key that a session refers to.
    ///
    /// # Errors
    /// It is not there, or is none.
    pub fn key(&self, reference: &SecretKeyRef, invalid: &Invalid) -> Result<SessionKey, Missing> {
        let SecretKeyRef { name, key } = reference;
        let place = Key::namespaced(&self.namespace, name);
        let no_secret = |message| Err(Missing { reason: ResolvedRefs::SecretNotFound, message });
        let no_key = |message| Err(Missing { reason: ResolvedRefs::SecretKeyMissing, message });
        let Some(secret) = self.kind.get(&place) else {
            if let Some(refused) = invalid.get(&("Secret".to_owned(), place.clone())) {
                let expected = refused.expected.as_deref().map(|text| format!(", expected {text}"));
                return no_secret(format!(
                    "Secret {place} is not used: {}: {}{}",
                    refused.place,
                    refused.error,
                    expected.unwrap_or_default()
                ));
            }
            if !self.kind.known() {
                return no_secret(format!(
                    "Secret {place} was not read yet: may this agent list the Secrets of namespace {}?",
                    self.namespace
                ));
            }
            return no_secret(format!(
                "there is no Secret {place}: create it with the session's password under key {key}, or name another"
            ));
        };
        let Some(ByteString(value)) = secret.data.as_ref().and_then(|data| data.get(key)) else {
            let has: Vec<&str> = secret.data.iter().flatten().map(|(key, _)| key.as_str()).take(5).collect();
            let has = if has.is_empty() { "nothing".to_owned() } else { has.join(", ") };
            return no_key(format!(
                "Secret {place} has no key {key} (it has {has}): put the session's password there, or name another key"
            ));
        };
        SessionKey::new(value).or_else(|wrong| {
            no_key(format!("key {key} of Secret {place} {wrong}: put the session's password there"))
        })
    }

    /// These keys of these Secrets and nothing else, by Secret and key: what a session needs without the datastore.
    pub fn excerpt(&self, used: &BTreeSet<(String, String)>) -> Vec<Secret> {
        let mut excerpt: BTreeMap<&str, BTreeMap<String, ByteString>> = BTreeMap::new();
        for (name, key) in used {
            let secret = self.kind.get(&Key::namespaced(&self.namespace, name));
            if let Some(value) = secret.and_then(|secret| secret.data.as_ref()?.get(key)) {
                excerpt.entry(name).or_default().insert(key.clone(), value.clone());
            }
        }
        let secret = |(name, data): (&str, _)| {
            let mut secret = Secret { data: Some(data), ..Secret::default() };
            secret.metadata.name = Some(name.to_owned());
            secret.metadata.namespace = Some(self.namespace.clone());
            secret
        };
        excerpt.into_iter().map(secret).collect()
    }
}

#[cfg(test)]
mod tests;
