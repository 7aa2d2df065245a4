//! report.md and report.json: what was tried, on what machine, and what came of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

use super::check::Done;
use super::screen::{State, duration};

/// One run, finished or broken off.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) started_at: Timestamp,
    /// The checks alone, and everything.
    pub(crate) checks_took: Duration,
    pub(crate) took: Duration,
    pub(crate) versions: Vec<(&'static str, String)>,
    /// `frr` or `bgpd`.
    pub(crate) tor: &'static str,
    /// How many checks were to be made.
    pub(crate) planned: usize,
    pub(crate) done: Vec<Done>,
    pub(crate) drawing: String,
    /// Why the run ended before all checks were made.
    pub(crate) broken_off: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    result: &'static str,
    started_at: String,
    seconds: f64,
    versions: BTreeMap<&'a str, &'a str>,
    tor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_off: Option<&'a str>,
    checks: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    title: &'a str,
    result: &'static str,
    expected: &'a str,
    seen: &'a str,
    figures: &'a BTreeMap<String, f64>,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'a str>,
}

impl Report {
    /// Whether every check that was planned was made and is ok.
    #[must_use]
    pub(crate) fn passed(&self) -> bool {
        self.broken_off.is_none()
            && self.planned > 0
            && self.done.len() == self.planned
            && self.done.iter().all(|done| done.verdict.state == State::Ok)
    }

    fn failed(&self) -> Vec<&'static str> {
        self.done.iter().filter(|done| done.verdict.state != State::Ok).map(|done| done.id).collect()
    }

    /// `26 of 26 checks passed in 58.3s, with build 4m27s` and where the report is.
    #[must_use]
    pub(crate) fn summary(&self) -> String {
        let good = self.done.len() - self.failed().len();
        let mut text = format!("{good} of {} checks passed", self.planned);
        if self.passed() {
            text.push_str(&format!(" in {}, with build {}", duration(self.checks_took), duration(self.took)));
        } else {
            let failed = self.failed();
            if !failed.is_empty() {
                text.push_str(&format!(", {} failed: {}", failed.len(), failed.join(" ")));
            }
            if self.done.len() < self.planned {
                text.push_str(&format!(", {} not made", self.planned - self.done.len()));
            }
        }
        format!("{text:<57}  report: target/demo/report.{{md,json}}")
    }

    /// Writes both files.
    pub(crate) fn write(&self, home: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.document()).context("report.json")?;
        fs::write(home.join("report.json"), json + "\n").context("report.json")?;
        fs::write(home.join("report.md"), self.markdown()).context("report.md")
    }

    fn document(&self) -> Document<'_> {
        Document {
            api_version: "cli.manx.dev/v1",
            kind: "DemoReport",
            result: if self.passed() { "passed" } else { "failed" },
            started_at: self.started_at.to_string(),
            seconds: self.took.as_secs_f64(),
            versions: self.versions.iter().map(|(name, version)| (*name, version.as_str())).collect(),
            tor: self.tor,
            broken_off: self.broken_off.as_deref(),
            checks: self.done.iter().map(entry).collect(),
        }
    }

    fn markdown(&self) -> String {
        let mut text = format!("# Manx demo\n\n{}\n\n", self.summary());
        if let Some(why) = &self.broken_off {
            text.push_str(&format!("Broken off: {why}\n\n"));
        }
        let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        text.push_str(&format!("{} · {cpus} CPUs", self.started_at));
        for (name, version) in &self.versions {
            text.push_str(&format!(" · {name} {version}"));
        }
        text.push_str(&format!(" · ToR {}\n\n```text\n{}\n\n", self.tor, self.drawing));
        for done in &self.done {
            text.push_str(&done.line(false));
            text.push('\n');
        }
        text.push_str("```\n");
        for done in self.done.iter().filter(|done| done.verdict.state != State::Ok) {
            text.push_str(&format!("\n```text\n{}\n```\n", done.form()));
        }
        text
    }
}

fn entry(done: &Done) -> Entry<'_> {
    Entry {
        id: done.id,
        title: &done.title,
        result: done.verdict.state.word(),
        expected: done.expected,
        seen: &done.verdict.seen,
        figures: &done.verdict.figures,
        seconds: done.took.as_secs_f64(),
        evidence: done.evidence.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::check::Verdict;

    fn report(states: &[State], planned: usize) -> Report {
        let done = states
            .iter()
            .map(|state| Done {
                id: "1.1",
                title: "t".to_owned(),
                expected: "e",
                verdict: Verdict { state: *state, ..Verdict::ok("seen") },
                took: Duration::from_secs(1),
                evidence: None,
            })
            .collect();
        Report {
            started_at: Timestamp::UNIX_EPOCH,
            checks_took: Duration::from_millis(58_300),
            took: Duration::from_secs(267),
            versions: vec![("frr", "8.4.4".to_owned())],
            tor: "frr",
            planned,
            done,
            drawing: String::new(),
            broken_off: None,
        }
    }

    #[test]
    fn the_summary_is_the_mock() {
        let all = report(&[State::Ok; 26], 26);
        assert!(all.passed());
        assert_eq!(
            all.summary(),
            "26 of 26 checks passed in 58.3s, with build 4m27s          report: target/demo/report.{md,json}"
        );
        let mut states = [State::Ok; 26];
        states[3] = State::Fail;
        let one = report(&states, 26);
        assert!(!one.passed());
        assert_eq!(
            one.summary(),
            "25 of 26 checks passed, 1 failed: 1.1                      report: target/demo/report.{md,json}"
        );
    }

    #[test]
    fn a_check_that_was_skipped_or_not_made_is_not_passed() {
        assert!(!report(&[State::Skip], 1).passed());
        assert!(!report(&[State::Ok], 2).passed());
        assert!(!report(&[], 0).passed());
        let json = serde_json::to_value(report(&[State::Ok], 2).document()).unwrap();
        assert_eq!(json["result"], "failed");
        assert_eq!(json["kind"], "DemoReport");
        assert_eq!(json["checks"][0]["result"], "ok");
    }
}
