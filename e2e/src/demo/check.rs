//! What a check is, and what it may come to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::fabric::Fabric;
use super::screen::State;

/// One line of the table.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// The promise, in full, for the failure form.
    pub(crate) expected: &'static str,
    pub(crate) run: fn(&mut Fabric) -> Result<Verdict>,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) state: State,
    /// One line, with its figure.
    pub(crate) seen: String,
    pub(crate) figures: BTreeMap<String, f64>,
}

/// A check that was made.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) id: &'static str,
    pub(crate) title: String,
    pub(crate) expected: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
    /// Below target/demo, when something was kept.
    pub(crate) evidence: Option<String>,
}

impl Verdict {
    #[must_use]
    pub(crate) fn ok(seen: impl Into<String>) -> Self {
        Self { state: State::Ok, seen: seen.into(), figures: BTreeMap::new() }
    }

    #[must_use]
    pub(crate) fn fail(seen: impl Into<String>) -> Self {
        Self { state: State::Fail, seen: seen.into(), figures: BTreeMap::new() }
    }

    /// The ground of the check is gone, for the reason given.
    #[must_use]
    pub(crate) fn skip(why: impl Into<String>) -> Self {
        Self { state: State::Skip, seen: why.into(), figures: BTreeMap::new() }
    }

    /// `n of n WHAT` if there is no failure, else the count and the first failures.
    #[must_use]
    pub(crate) fn counted(total: usize, failures: &[String], what: &str) -> Self {
        let good = total.saturating_sub(failures.len());
        let mut verdict = if failures.is_empty() && total > 0 {
            Self::ok(format!("{good} of {total}{what}"))
        } else {
            Self::fail(format!("{good} of {total}{what}; {}", some(failures)))
        };
        verdict.set("passed", count(good));
        verdict.set("total", count(total));
        verdict
    }

    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: f64) -> Self {
        self.set(name, value);
        self
    }

    /// More words behind what was seen, where it is good.
    #[must_use]
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.seen.push_str(more);
        self
    }
}

/// A count as a figure; counts here stay far below 2^53.
#[must_use]
pub(crate) fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

/// At most five failures, and how many more.
#[must_use]
pub(crate) fn some(failures: &[String]) -> String {
    let mut text = failures.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    if failures.len() > 5 {
        text.push_str(&format!("; and {} more", failures.len() - 5));
    }
    text
}

/// Thousands as `8,000`.
#[must_use]
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Done {
    /// The line of the table.
    #[must_use]
    pub(crate) fn line(&self, colour: bool) -> String {
        let seen = self.verdict.seen.lines().next().unwrap_or_default();
        format!("  {:<5}{:<51}{}{seen}", self.id, self.title, self.verdict.state.painted(6, colour))
    }

    /// The failure form of ux.md §2.
    #[must_use]
    pub(crate) fn form(&self) -> String {
        let evidence = self.evidence.as_deref().unwrap_or("none");
        format!(
            "{} {}  {}\n  expected   {}\n  seen       {}\n  look       make demo KEEP=1 ONLY={}; . target/demo/env; \
             manxctl status\n  evidence   {evidence}",
            self.verdict.state.word(),
            self.id,
            self.title,
            self.expected,
            self.verdict.seen.replace('\n', "\n             "),
            self.id,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_line_has_the_columns_of_the_mock() {
        let done = Done {
            id: "1.1",
            title: "sessions Established, by FRR and by manxctl".to_owned(),
            expected: "",
            verdict: Verdict::ok("6 of 6, 1.1s after bgpd started"),
            took: Duration::ZERO,
            evidence: None,
        };
        let mock =
            "  1.1  sessions Established, by FRR and by manxctl        ok    6 of 6, 1.1s after bgpd started";
        assert_eq!(done.line(false), mock);
    }

    #[test]
    fn nothing_counted_is_no_success() {
        assert_eq!(Verdict::counted(0, &[], "").state, State::Fail);
        assert_eq!(Verdict::counted(2, &[], "").state, State::Ok);
        assert_eq!(Verdict::counted(2, &["x".to_owned()], "").state, State::Fail);
        assert_eq!(thousands(8000), "8,000");
    }
}
