//! Results: `target/bench/bgp.json`, which later runs of other parts add to, and the table in `docs/bgp-bench.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::bench::cells::{Cell, Sample};
use crate::bench::daemon::Kind;
use crate::bench::extras::{Extra, Figures};
use crate::bench::feed::Profile;

/// Everything that was measured, and what follows from it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Machine, kernel, date: what a figure is worth nothing without.
    pub setting: BTreeMap<String, String>,
    pub versions: BTreeMap<String, String>,
    /// One a cell: bgpd, and its ratios to the peers.
    pub rows: Vec<Row>,
    pub cells: Vec<Measured>,
    pub extras: BTreeMap<String, BTreeMap<String, Outcome>>,
}

/// bgpd in one cell, and how it stands beside BIRD and FRR; a ratio below 1 is less than theirs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub profile: String,
    pub n: u32,
    pub sinks: usize,
    pub cpu_s: f64,
    pub rss_mib: f64,
    pub ratio_cpu_bird: Option<f64>,
    pub ratio_rss_bird: Option<f64>,
    pub ratio_cpu_frr: Option<f64>,
    /// UPDATEs that one sink took.
    pub updates: u64,
}

/// One cell: every daemon's runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    pub profile: String,
    pub n: u32,
    pub sinks: usize,
    pub daemons: BTreeMap<String, Runs>,
}

/// The runs of one daemon in one cell.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Runs {
    pub cpu_s: Vec<f64>,
    pub settled_cpu_s: Vec<f64>,
    pub wall_s: Vec<f64>,
    pub rss_mib: Vec<f64>,
    pub updates: u64,
    /// Why a run gave no figure.
    pub failed: Vec<String>,
}

/// Figures by name, or why there are none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub figures: BTreeMap<String, f64>,
    pub why_none: Option<String>,
}

/// The middle one; of two, the lower.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

fn minimum(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::min)
}

impl Results {
    /// What earlier runs left; nothing is no error.
    pub fn load(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("{}: remove it to begin anew", path.display())),
            Err(_) => Ok(Self::default()),
        }
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("{}", path.display()))
    }

    /// Forgets what an earlier run measured there.
    pub fn forget(&mut self, cell: Cell, kind: Kind) {
        self.at(cell).daemons.remove(kind.name());
    }

    pub fn add(&mut self, cell: Cell, kind: Kind, outcome: &Result<Sample>) {
        let runs = self.at(cell).daemons.entry(kind.name().to_owned()).or_default();
        match outcome {
            Ok(sample) => {
                runs.cpu_s.push(round(sample.cpu_s));
                runs.settled_cpu_s.push(round(sample.settled_cpu_s));
                runs.wall_s.push(round(sample.wall_s));
                runs.rss_mib.push(round(sample.rss_mib));
                runs.updates = sample.updates;
            }
            Err(error) => runs.failed.push(format!("{error:#}")),
        }
    }

    pub fn add_extra(&mut self, extra: Extra, kind: Kind, outcome: &Result<Figures>) {
        let outcome = match outcome {
            Ok(figures) => Outcome {
                figures: figures.iter().map(|(name, value)| ((*name).to_owned(), round(*value))).collect(),
                why_none: None,
            },
            Err(error) => Outcome { why_none: Some(format!("{error:#}")), ..Outcome::default() },
        };
        self.extras.entry(extra.name().to_owned()).or_default().insert(kind.name().to_owned(), outcome);
    }

    fn at(&mut self, cell: Cell) -> &mut Measured {
        let name = cell.profile.name();
        let is_it = |m: &Measured| m.profile == name && m.n == cell.prefixes && m.sinks == cell.sinks;
        let at = self.cells.iter().position(is_it).unwrap_or_else(|| {
            self.cells.push(Measured {
                profile: name.to_owned(),
                n: cell.prefixes,
                sinks: cell.sinks,
                daemons: BTreeMap::new(),
            });
            self.cells.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just now")]
        &mut self.cells[at]
    }

    /// Works the rows out anew from all cells.
    pub fn conclude(&mut self) {
        let order = |m: &Measured| {
            (Profile::ALL.iter().position(|profile| profile.name() == m.profile), m.sinks, m.n)
        };
        self.cells.sort_by_key(order);
        self.rows = self.cells.iter().filter_map(row).collect();
    }

    /// The page for people.
    pub fn page(&self) -> Result<String> {
        let mut page = String::from(HEAD);
        for (name, value) in &self.setting {
            writeln!(page, "- {name}: {value}")?;
        }
        let versions: Vec<&str> = self.versions.values().map(String::as_str).collect();
        writeln!(page, "- versions: {}\n", versions.join(", "))?;
        self.write_cells(&mut page)?;
        self.write_extras(&mut page)?;
        Ok(page)
    }

    fn write_cells(&self, page: &mut String) -> Result<()> {
        page.push_str(CELLS);
        for measured in &self.cells {
            let Measured { profile, n, sinks, .. } = measured;
            write!(page, "| {profile} | {n} | {sinks} |")?;
            for kind in Kind::ALL {
                write!(page, " {} |", figure(measured.daemons.get(kind.name())))?;
            }
            let row = row(measured);
            for pick in [
                |row: &Row| row.ratio_cpu_bird,
                |row: &Row| row.ratio_rss_bird,
                |row: &Row| row.ratio_cpu_frr,
            ] {
                write!(page, " {} |", ratio(row.as_ref().and_then(pick)))?;
            }
            page.push('\n');
        }
        page.push_str("\nUPDATEs that one sink took, which is how well they were packed:\n\n");
        page.push_str("| profile | N | sinks | Manx | BIRD | FRR | OpenBGPD | GoBGP |\n|---|---|---|---|---|---|---|---|\n");
        for measured in &self.cells {
            let Measured { profile, n, sinks, daemons } = measured;
            write!(page, "| {profile} | {n} | {sinks} |")?;
            for kind in Kind::ALL {
                let updates =
                    daemons.get(kind.name()).filter(|runs| !runs.cpu_s.is_empty()).map(|runs| runs.updates);
                write!(page, " {} |", updates.map_or("–".to_owned(), |updates| updates.to_string()))?;
            }
            page.push('\n');
        }
        let failed: Vec<String> = self.cells.iter().flat_map(failures).collect();
        if !failed.is_empty() {
            writeln!(page, "\nRuns that gave no figure:\n\n{}", failed.join("\n"))?;
        }
        Ok(())
    }

    fn write_extras(&self, page: &mut String) -> Result<()> {
        page.push_str(EXTRAS);
        for extra in Extra::ALL {
            let Some(by_daemon) = self.extras.get(extra.name()) else { continue };
            let names = by_daemon.values().map(|outcome| outcome.figures.keys().cloned().collect::<Vec<_>>());
            let names = names.max_by_key(Vec::len).unwrap_or_default();
            writeln!(
                page,
                "\n### {}\n\n| | {} |\n|---|{}",
                extra.name(),
                names.join(" | "),
                "---|".repeat(names.len())
            )?;
            for kind in Kind::ALL {
                let Some(outcome) = by_daemon.get(kind.name()) else { continue };
                if let Some(why) = &outcome.why_none {
                    writeln!(page, "| {} | {why} |", kind.name())?;
                    continue;
                }
                let values = names
                    .iter()
                    .map(|name| outcome.figures.get(name).map_or("–".to_owned(), ToString::to_string));
                writeln!(page, "| {} | {} |", kind.name(), values.collect::<Vec<_>>().join(" | "))?;
            }
        }
        Ok(())
    }
}

fn row(measured: &Measured) -> Option<Row> {
    let of = |kind: Kind| measured.daemons.get(kind.name());
    let manx = of(Kind::Manx)?;
    let (cpu_s, rss_mib) = (median(&manx.cpu_s)?, median(&manx.rss_mib)?);
    let beside = |own: f64, peer: Option<f64>| peer.filter(|peer| *peer > 0.0).map(|peer| round(own / peer));
    let cpu = |kind| of(kind).and_then(|runs| median(&runs.cpu_s));
    Some(Row {
        profile: measured.profile.clone(),
        n: measured.n,
        sinks: measured.sinks,
        cpu_s,
        rss_mib,
        ratio_cpu_bird: beside(cpu_s, cpu(Kind::Bird)),
        ratio_rss_bird: beside(rss_mib, of(Kind::Bird).and_then(|runs| median(&runs.rss_mib))),
        ratio_cpu_frr: beside(cpu_s, cpu(Kind::Frr)),
        updates: manx.updates,
    })
}

fn failures(measured: &Measured) -> Vec<String> {
    let of = |(name, runs): (&String, &Runs)| {
        let Measured { profile, n, sinks, .. } = measured;
        runs.failed
            .iter()
            .map(|why| format!("- {profile} × {n} × {sinks}, {name}: {why}"))
            .collect::<Vec<_>>()
    };
    measured.daemons.iter().flat_map(of).collect()
}

/// Median CPU, the least in brackets, and memory.
fn figure(runs: Option<&Runs>) -> String {
    let Some(runs) = runs else { return "–".to_owned() };
    match (median(&runs.cpu_s), minimum(&runs.cpu_s), median(&runs.rss_mib)) {
        (Some(cpu), Some(least), Some(rss)) => format!("{cpu} ({least}) / {rss:.0}"),
        _ => "failed".to_owned(),
    }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

const HEAD: &str = "# bgpd beside BIRD, FRR, OpenBGPD and GoBGP

Written by `make bench-bgp`, as measured. Figures are for comparing the columns of one row, which were measured in turns on
one machine; another machine has others.

- dfz: ten /24s share a set of attributes (UPDATEs of ten); k8s: a set for every /26; k8snodes: two /26s an UPDATE, and
  40,000 sets that differ in the next hop alone.
- One source, so many sinks, all eBGP, everything taken and handed on. Source and sinks are one process of ours, with UPDATEs
  that were encoded before.
- CPU s: user and system time of all processes of the daemon, from all sessions up until every sink holds every prefix:
  median of the runs, the least in brackets. MiB: high-water marks of resident memory, added up.
- No daemon writes kernel routes, except in `fib` and `restart`: bgpd runs with `--no-kernel-routes`, BIRD without protocol
  kernel, FRR's bgpd with `-n` (its zebra runs, for next hops), OpenBGPD with `fib-update no`.
- bgpd is the binary that ships (profile `image`); the others are Debian's.
";

const CELLS: &str = "## Tables: CPU s (least) / MiB

| profile | N | sinks | Manx | BIRD | FRR | OpenBGPD | GoBGP | CPU ÷ BIRD | MiB ÷ BIRD | CPU ÷ FRR |
|---|---|---|---|---|---|---|---|---|---|---|
";

const EXTRAS: &str = "
## Beside the tables

- change: one of 100,000 prefixes gets another path: from the source's write to the sink's read, 300 times.
- fib: 100,000 routes into the kernel, and out again when the source goes; BIRD with protocol kernel, FRR with zebra.
- sessions_out: the daemon starts and dials 200 neighbours that listen; until the last is Established, since its start and
  since the first connection.
- sessions_in: 200 neighbours dial at once a daemon that has dialled them in vain for 3 s; until the last is Established.
- idle: 200 sessions without a route, CPU ms a minute, from 20 s after they came up.
- restart: `kill -9` with 10,000 routes in the kernel, new start at once, graceful restart: how many were away at any time
  within 15 s, and at the end; when the source's session was back.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_s: f64, rss_mib: f64) -> Result<Sample> {
        Ok(Sample { cpu_s, settled_cpu_s: cpu_s, rss_mib, wall_s: 1.0, updates: 7 })
    }

    #[test]
    fn ratios_are_those_of_medians_and_a_failed_peer_has_none() {
        let cell = Cell { profile: Profile::K8s, prefixes: 10, sinks: 1 };
        let mut results = Results::default();
        for cpu in [1.0, 9.0, 2.0] {
            results.add(cell, Kind::Manx, &sample(cpu, 10.0));
            results.add(cell, Kind::Bird, &sample(cpu * 4.0, 40.0));
        }
        results.add(cell, Kind::Frr, &Err(anyhow::anyhow!("no session")));
        results.conclude();
        let row = &results.rows[0];
        assert_eq!((row.cpu_s, row.ratio_cpu_bird, row.ratio_rss_bird), (2.0, Some(0.25), Some(0.25)));
        assert_eq!(row.ratio_cpu_frr, None);
        let page = results.page().unwrap();
        assert!(
            page.contains("| k8s | 10 | 1 | 2 (1) / 10 | 8 (4) / 40 | failed | – | – | 0.25 | 0.25 | – |"),
            "{page}"
        );
        assert!(page.contains("k8s × 10 × 1, frr: no session"), "{page}");
    }

    #[test]
    fn a_later_run_of_a_part_keeps_the_rest() {
        let cells = [10, 20].map(|prefixes| Cell { profile: Profile::Dfz, prefixes, sinks: 1 });
        let mut results = Results::default();
        for cell in cells {
            results.add(cell, Kind::Manx, &sample(1.0, 1.0));
        }
        results.forget(cells[0], Kind::Manx);
        results.add(cells[0], Kind::Manx, &sample(3.0, 1.0));
        results.conclude();
        assert_eq!(results.rows.iter().map(|row| row.cpu_s).collect::<Vec<_>>(), [3.0, 1.0]);
    }
}
