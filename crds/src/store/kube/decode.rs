//! Objects one by one: one that this version cannot read must not hide the others.

use ::kube::core::ObjectMeta;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::super::{InvalidObject, Key, Object};
use super::prune::prune;

/// An object, or why it is none for us.
#[derive(Clone, Debug)]
pub(super) enum Decoded<K> {
    Object(K),
    /// Its schema is newer than we are (api.md §14.4).
    Unreadable {
        key: Key,
        error: String,
    },
}

#[derive(Deserialize)]
struct Named {
    metadata: ObjectMeta,
}

impl<'de, K: Object> Deserialize<'de> for Decoded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str::<K>(text.get()) {
            Ok(mut object) => {
                prune(&mut object);
                Ok(Self::Object(object))
            }
            Err(error) => {
                let named: Named = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                let key = Key {
                    namespace: named.metadata.namespace,
                    name: named.metadata.name.unwrap_or_default(),
                };
                Ok(Self::Unreadable { key, error: error.to_string() })
            }
        }
    }
}

/// As it is reported: the place is the object itself.
pub(super) fn unreadable<K: Object>(key: &Key, error: &str, last_good: bool) -> InvalidObject {
    let kind = K::kind(&()).into_owned();
    InvalidObject {
        place: format!("{kind}/{key}"),
        kind,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        line: None,
        error: error.to_owned(),
        expected: Some("an object of this version's schema: upgrade the agents".to_owned()),
        last_good,
    }
}
