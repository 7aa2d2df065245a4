//! Which rule a counter or a log line of the kernel speaks of.

use std::collections::BTreeMap;

use crate::verdict::Reason;

/// A rule of the table that counts: its chain and position from 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub chain: String,
    pub position: usize,
}

/// Counters and log prefixes of one table, back to what people wrote. Several places may count for one
/// reason: add them up. A place goes with its chain, so read its last figure before `remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterIndex {
    pub places: BTreeMap<Place, Reason>,
    /// Whole prefix of the log line, `manx:deny:…` or `manx:log:…`.
    pub log_prefixes: BTreeMap<String, Reason>,
}

impl CounterIndex {
    pub fn reason(&self, chain: &str, position: usize) -> Option<&Reason> {
        self.places.get(&Place { chain: chain.to_owned(), position })
    }
}
