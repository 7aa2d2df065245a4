//! Events that wait for their time: of one object and reason one in a minute (api.md §10), and then the newest text. The
//! store would drop what comes earlier, and a text that is dropped is never told again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::Write;
use crate::judge::About;

/// Longer than the store's minute, which begins when the request does.
const PAUSE: Duration = Duration::from_secs(65);
/// Objects and reasons that are remembered, before those that may be told again are forgotten.
const MANY: usize = 4096;

#[derive(Clone, Debug)]
struct Waiting {
    about: About,
    warning: bool,
    reason: &'static str,
    note: String,
}

/// What is to be told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    waiting: VecDeque<Waiting>,
    told: BTreeMap<(About, &'static str), Duration>,
}

impl Events {
    /// To be told; in the place of what waits about the same.
    pub(crate) fn push(&mut self, about: About, warning: bool, reason: &'static str, note: String) {
        self.retract(&about, reason);
        self.waiting.push_back(Waiting { about, warning, reason, note });
    }

    /// It is not so any more: who was not told yet need not know.
    pub(crate) fn retract(&mut self, about: &About, reason: &str) {
        self.waiting.retain(|event| event.about != *about || event.reason != reason);
    }

    /// The next one whose time has come.
    pub(crate) fn pull(&mut self, now: Duration) -> Option<Write> {
        let due = self.waiting.iter().position(|event| self.due(event).is_none_or(|at| at <= now))?;
        let Waiting { about, warning, reason, note } = self.waiting.remove(due)?;
        if self.told.len() >= MANY {
            self.told.retain(|_, told| told.saturating_add(PAUSE) > now);
        }
        self.told.insert((about.clone(), reason), now);
        Some(Write::Event { about, warning, reason, note })
    }

    /// When to pull again though nothing is new.
    pub(crate) fn deadline(&self, now: Duration) -> Option<Duration> {
        self.waiting.iter().filter_map(|event| self.due(event)).filter(|at| *at > now).min()
    }

    fn due(&self, event: &Waiting) -> Option<Duration> {
        let told = self.told.get(&(event.about.clone(), event.reason))?;
        Some(told.saturating_add(PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use manx_crds::store::Key;

    use super::*;
    use crate::wish::Kind;

    #[test]
    fn of_one_object_and_reason_the_newest_text_is_told_when_its_minute_is_over() {
        let mut events = Events::default();
        let about = |name: &str| About::Object(Kind::Service, Key::namespaced("shop", name));
        let at = Duration::from_secs;
        let note = |write: Option<Write>| match write {
            Some(Write::Event { note, .. }) => Some(note),
            Some(Write::Apply { .. } | Write::Block(_)) | None => None,
        };
        events.push(about("a"), true, "AddressRequestFailed", "first".to_owned());
        assert_eq!(note(events.pull(at(0))).as_deref(), Some("first"));
        events.push(about("a"), true, "AddressRequestFailed", "second".to_owned());
        events.push(about("a"), true, "AddressRequestFailed", "third".to_owned());
        events.push(about("b"), true, "AddressRequestFailed", "another".to_owned());
        assert_eq!(note(events.pull(at(1))).as_deref(), Some("another"));
        assert_eq!(note(events.pull(at(2))), None);
        assert_eq!(events.deadline(at(2)), Some(PAUSE));
        assert_eq!(note(events.pull(PAUSE)).as_deref(), Some("third"));
        assert_eq!(events.deadline(PAUSE), None);
        events.push(about("a"), true, "AddressRequestFailed", "over before it was told".to_owned());
        events.retract(&about("a"), "AddressRequestFailed");
        assert_eq!(note(events.pull(at(1000))), None);
    }
}
