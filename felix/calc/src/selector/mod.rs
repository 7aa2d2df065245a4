//! Label selectors: the tree, what it means, and (in `parse`) the language people write it in.
//!
//! Kubernetes label selectors map onto the same tree: `In` is [`Selector::In`], `NotIn` its negation (true
//! when the label is absent, in both languages), `Exists` is [`Selector::Has`].

mod parse;

pub use parse::SelectorError;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::model::Labels;

/// A condition on labels. `Not` of a comparison is true when the label is absent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Selector {
    All,
    Has(String),
    Equals(String, String),
    In(String, BTreeSet<String>),
    Contains(String, String),
    StartsWith(String, String),
    EndsWith(String, String),
    Not(Box<Selector>),
    /// Empty: true.
    And(Vec<Selector>),
    /// Empty: false.
    Or(Vec<Selector>),
}

impl Selector {
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = |key: &String| labels.get(key).map(String::as_str);
        match self {
            Self::All => true,
            Self::Has(key) => labels.contains_key(key),
            Self::Equals(key, wanted) => value(key) == Some(wanted.as_str()),
            Self::In(key, wanted) => value(key).is_some_and(|v| wanted.contains(v)),
            Self::Contains(key, part) => value(key).is_some_and(|v| v.contains(part.as_str())),
            Self::StartsWith(key, part) => value(key).is_some_and(|v| v.starts_with(part.as_str())),
            Self::EndsWith(key, part) => value(key).is_some_and(|v| v.ends_with(part.as_str())),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(all) => all.iter().all(|s| s.matches(labels)),
            Self::Or(any) => any.iter().any(|s| s.matches(labels)),
        }
    }

    pub fn negate(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            Self::All
            | Self::Has(_)
            | Self::Equals(..)
            | Self::In(..)
            | Self::Contains(..)
            | Self::StartsWith(..)
            | Self::EndsWith(..)
            | Self::And(_)
            | Self::Or(_) => Self::Not(Box::new(self)),
        }
    }
}
