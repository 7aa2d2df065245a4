//! `make bench-bgp`: see `e2e::bench`. Prints every run as it ends, and writes the results down as it goes.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use e2e::bench::cells::{self, Cell};
use e2e::bench::daemon::Kind;
use e2e::bench::extras::Extra;
use e2e::bench::feed::Profile;
use e2e::bench::report::Results;
use e2e::bench::soak;
use e2e::{interrupt, topology};

/// What bgpd costs beside BIRD, FRR, OpenBGPD and GoBGP.
#[derive(Parser)]
struct Arguments {
    /// The bgpd to measure, built as it ships.
    #[arg(long)]
    bgpd: PathBuf,
    /// Where the results are added to.
    #[arg(long)]
    json: PathBuf,
    /// The page that is written from them.
    #[arg(long)]
    page: PathBuf,
    #[arg(long, env = "PROFILE", default_value = "", value_delimiter = ',')]
    profile: Vec<String>,
    #[arg(long, env = "N", default_value = "", value_delimiter = ',')]
    n: Vec<String>,
    #[arg(long, env = "SINKS", default_value = "", value_delimiter = ',')]
    sinks: Vec<String>,
    #[arg(long, env = "DAEMONS", default_value = "", value_delimiter = ',')]
    daemons: Vec<String>,
    /// change, fib, sessions_out, sessions_in, idle, restart; none: no such part.
    #[arg(long, env = "EXTRAS", default_value = "", value_delimiter = ',')]
    extras: Vec<String>,
    #[arg(long, env = "RUNS", default_value = "")]
    runs: String,
    /// No benchmark: so many seconds of churn without a flap, or an error.
    #[arg(long)]
    soak: Option<u64>,
    /// Every cell for every daemon: hours.
    #[arg(long, env = "FULL", default_value = "")]
    full: String,
    /// What a reader must know of this run, such as that the machine was busy otherwise.
    #[arg(long, env = "NOTE", default_value = "")]
    note: String,
}

struct Plan {
    cells: Vec<Cell>,
    daemons: Vec<Kind>,
    extras: Vec<Extra>,
    runs: Option<usize>,
    full: bool,
}

impl Plan {
    fn of(arguments: &Arguments) -> Result<Self> {
        let given =
            |words: &[String]| words.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>();
        let full = !matches!(arguments.full.as_str(), "" | "0");
        let profiles = or_all(&given(&arguments.profile), &Profile::ALL, Profile::parse)?;
        let counts = or_all(&given(&arguments.n), &[10_000, 100_000, 1_000_000], |word| Ok(word.parse()?))?;
        let sinks = or_all(&given(&arguments.sinks), &[1, 50, 200], |word| Ok(word.parse()?))?;
        let named =
            [&arguments.profile, &arguments.n, &arguments.sinks].iter().any(|words| !given(words).is_empty());
        let extras = match given(&arguments.extras) {
            // Who asks for a part of the table gets no more.
            words if words.is_empty() && named => Vec::new(),
            words if words == ["none"] => Vec::new(),
            words => or_all(&words, &Extra::ALL, |word| {
                Extra::ALL
                    .into_iter()
                    .find(|extra| extra.name() == word)
                    .with_context(|| format!("no part {word:?}"))
            })?,
        };
        let only_extras = !given(&arguments.extras).is_empty() && !named && arguments.extras != ["none"];
        let mut cells = Vec::new();
        for &profile in profiles.iter().filter(|_| !only_extras) {
            for &sinks in &sinks {
                cells.extend(counts.iter().map(|&prefixes| Cell { profile, prefixes, sinks }));
            }
        }
        Ok(Self {
            cells,
            daemons: or_all(&given(&arguments.daemons), &Kind::ALL, Kind::parse)?,
            extras,
            runs: Some(&arguments.runs)
                .filter(|runs| !runs.is_empty())
                .map(|runs| runs.parse())
                .transpose()?,
            full,
        })
    }

    /// How often a cell is measured; without FULL, what takes too long is left out.
    fn runs(&self, cell: Cell, kind: Kind) -> usize {
        let routes = u64::from(cell.prefixes) * u64::try_from(cell.sinks).unwrap_or(u64::MAX);
        let most = match kind {
            Kind::Manx | Kind::Bird | Kind::Frr => 2_000_000,
            Kind::OpenBgpd => 500_000,
            Kind::GoBgp => 100_000,
        };
        if self.full {
            return self.runs.unwrap_or(5);
        }
        if routes > most {
            return 0;
        }
        self.runs.unwrap_or(if routes >= 500_000 || kind == Kind::GoBgp { 1 } else { 3 })
    }
}

fn or_all<T: Copy>(words: &[String], all: &[T], parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    if words.is_empty() { Ok(all.to_vec()) } else { words.iter().map(|word| parse(word)).collect() }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let plan = Plan::of(arguments)?;
    interrupt::listen()?;
    topology::remove_stale_tests()?;
    if let Some(seconds) = arguments.soak {
        return soak(&arguments.bgpd, seconds);
    }
    let mut results = Results::load(&arguments.json)?;
    for kind in &plan.daemons {
        results.versions.insert(kind.name().to_owned(), kind.version(&arguments.bgpd)?);
    }
    results.setting.extend(setting(&arguments.note)?);
    for &cell in &plan.cells {
        measure(&plan, arguments, cell, &mut results)?;
    }
    for &extra in &plan.extras {
        for &kind in &plan.daemons {
            if interrupt::requested() {
                return Ok(());
            }
            let outcome = match extra.lacks(kind) {
                Some(why) => Err(anyhow::anyhow!(why)),
                None => extra.run(&arguments.bgpd, kind),
            };
            match &outcome {
                Ok(figures) => println!("{:<12} {:<8} {figures:?}", extra.name(), kind.name()),
                Err(error) => println!("{:<12} {:<8} {error:#}", extra.name(), kind.name()),
            }
            results.add_extra(extra, kind, &outcome);
        }
        write(&mut results, arguments)?;
    }
    println!("written: {}, {}", arguments.json.display(), arguments.page.display());
    Ok(())
}

fn soak(bgpd: &Path, seconds: u64) -> Result<()> {
    println!(
        "soak: 1,000,000 routes churned for {seconds} s, hold time 3 s, BFD 100 ms x 3, every core busy"
    );
    let soaked = soak::run(bgpd, seconds)?;
    let soak::Outcome { seconds, updates, heard, cpu_s, rss_mib, flaps } = soaked;
    println!(
        "{seconds:.0} s: {updates} UPDATEs in, {heard} heard by the sink, {cpu_s:.1} CPU s, {rss_mib:.0} MiB, {} flaps",
        flaps.len()
    );
    anyhow::ensure!(flaps.is_empty(), "sessions flapped:\n{}", flaps.join("\n"));
    Ok(())
}

/// One cell, the daemons in turns.
fn measure(plan: &Plan, arguments: &Arguments, cell: Cell, results: &mut Results) -> Result<()> {
    let Cell { profile, prefixes, sinks } = cell;
    let patience = Duration::from_secs(if plan.full { 1200 } else { 120 });
    let most = plan.daemons.iter().map(|&kind| plan.runs(cell, kind)).max().unwrap_or_default();
    for &kind in plan.daemons.iter().filter(|&&kind| plan.runs(cell, kind) > 0) {
        results.forget(cell, kind);
    }
    for turn in 0..most {
        for &kind in plan.daemons.iter().filter(|&&kind| turn < plan.runs(cell, kind)) {
            if interrupt::requested() {
                return Ok(());
            }
            let outcome = cells::run(&arguments.bgpd, kind, cell, patience);
            let place = format!("{:<8} {prefixes:>8} × {sinks:<3} {:<8}", profile.name(), kind.name());
            match &outcome {
                Ok(sample) => println!(
                    "{place} {:>8.4} CPU s (settled {:.4}) {:>6.1} MiB {:>7.3} s, {} UPDATEs",
                    sample.cpu_s, sample.settled_cpu_s, sample.rss_mib, sample.wall_s, sample.updates
                ),
                Err(error) => println!("{place} {error:#}"),
            }
            results.add(cell, kind, &outcome);
        }
    }
    write(results, arguments)
}

fn write(results: &mut Results, arguments: &Arguments) -> Result<()> {
    results.conclude();
    results.save(&arguments.json)?;
    let page = &arguments.page;
    if let Some(parent) = page.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(page, results.page()?).with_context(|| format!("{}", page.display()))
}

fn setting(note: &str) -> Result<Vec<(String, String)>> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).with_context(|| path.to_owned());
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let cpus = read("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches(|c: char| c == ':' || c.is_whitespace());
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let mut setting = vec![
        ("machine".to_owned(), format!("{count} × {model}, Linux {}", kernel.trim())),
        ("date".to_owned(), jiff::Zoned::now().strftime("%Y-%m-%d").to_string()),
    ];
    if !note.is_empty() {
        setting.push(("note".to_owned(), note.to_owned()));
    }
    Ok(setting)
}
