//! `make demo`: builds the fabric, checks it, shows it, removes it.

mod check;
mod checks;
mod drawing;
mod evidence;
mod fabric;
mod report;
pub(crate) mod screen;
mod setup;

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};

use crate::frr;
use crate::interrupt;
use crate::router::{self, Kind};
use crate::store::Objects;
use crate::topology::{NODES, Scope};

use check::{Check, Done, Verdict};
use checks::Notes;
use fabric::{Fabric, Places};
use report::Report;
use screen::{Screen, State};

/// Sockets of the nodes; also where the lock lies, beside it.
const RUN: &str = "/run/manx-demo";
const LOCK: &str = "/run/manx-demo.lock";

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Leave the fabric up.
    pub keep: bool,
    /// What plays the ToRs.
    pub tor: Kind,
    /// Checks whose id begins with one of these; empty: all.
    pub only: Vec<String>,
}

/// Runs the demo. True: every check passed.
pub fn up(options: &Options) -> Result<bool> {
    let begun = Instant::now();
    let started_at = Timestamp::now();
    let chosen = choose(&options.only)?;
    let places = places()?;
    let _lock = lock()?;
    interrupt::listen()?;
    setup::remove(&places.run).context("removing what an earlier demo left")?;
    sweep(&places)?;
    let mut screen = Screen::new(note(options.tor));
    greet(&screen, options.tor);
    let mut fabric = Fabric {
        scope: Scope::demo(),
        objects: Objects::create(&places.objects)?,
        places,
        kind: options.tor,
        routers: None,
        daemons: Vec::new(),
        pods: Vec::new(),
        client: None,
        established_after: None,
        notes: Notes::default(),
    };
    let built = build(&mut screen, &mut fabric);
    let checks_begun = Instant::now();
    let mut report = Report {
        started_at,
        checks_took: Duration::ZERO,
        took: Duration::ZERO,
        versions: Vec::new(),
        tor: options.tor.name(),
        planned: chosen.len(),
        done: Vec::new(),
        drawing: String::new(),
        broken_off: None,
    };
    match built {
        Ok(()) => run_checks(&mut screen, &mut fabric, &chosen, &mut report),
        Err(error) => report.broken_off = Some(broken(&fabric, &error)),
    }
    report.checks_took = checks_begun.elapsed();
    report.versions = setup::versions(true);
    if report.broken_off.is_none() {
        let router = router::version(options.tor, &fabric.places.binaries)?;
        report.drawing = drawing::look(&fabric, &router).draw();
    }
    report.took = begun.elapsed();
    report.write(&fabric.places.home)?;
    show(&report);
    let passed = report.passed();
    leave_or_remove(fabric, options.keep)?;
    Ok(passed)
}

/// Removes what `KEEP=1` left.
pub fn down() -> Result<()> {
    let places = places()?;
    let _lock = lock()?;
    setup::remove(&places.run)?;
    say("Fabric removed.");
    Ok(())
}

/// The checks whose ids were asked for.
fn choose(only: &[String]) -> Result<Vec<Check>> {
    let chosen: Vec<Check> = checks::ALL
        .into_iter()
        .filter(|check| only.is_empty() || only.iter().any(|id| is_of(check.id, id)))
        .collect();
    if chosen.is_empty() {
        let ids: Vec<&str> = checks::ALL.iter().map(|check| check.id).collect();
        bail!("ONLY={}: no such check; there are {}", only.join(","), ids.join(" "));
    }
    Ok(chosen)
}

/// `6.1` is of `6.1` and of `6`.
fn is_of(id: &str, asked: &str) -> bool {
    id == asked || id.split('.').next() == Some(asked)
}

fn places() -> Result<Places> {
    let shown = PathBuf::from("target/demo");
    let root = std::env::current_dir()?;
    if !root.join("Cargo.lock").exists() {
        bail!("{} is not the checkout: run make demo there", root.display());
    }
    let home = root.join(&shown);
    Ok(Places {
        shown,
        objects: home.join("objects"),
        state: home.join("state"),
        logs: home.join("logs"),
        home,
        run: PathBuf::from(RUN),
        binaries: setup::binaries()?,
    })
}

/// Removes what an earlier run left in target/demo: its evidence must not be taken for this one's.
fn sweep(places: &Places) -> Result<()> {
    let evidence =
        checks::ALL.iter().map(|check| places.home.join(check.id)).chain([places.home.join("setup")]);
    for old in evidence.chain([places.logs.clone(), places.state.clone()]).filter(|old| old.exists()) {
        fs::remove_dir_all(&old).with_context(|| format!("{}", old.display()))?;
    }
    fs::create_dir_all(&places.logs).with_context(|| format!("{}", places.logs.display()))
}

/// One demo at a time: its namespaces have fixed names, so that people can type them.
fn lock() -> Result<Flock<fs::File>> {
    let file = fs::File::create(LOCK).context(LOCK)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        anyhow!("another demo runs on this machine\n  where      {LOCK}: {error}\n  expected   one at a time\n  do         fuser -v {LOCK}; wait for it, or end it with SIGINT")
    })
}

/// The first line and every other say who plays the routers, where that is not FRR.
fn note(tor: Kind) -> &'static str {
    match tor {
        Kind::Frr => "",
        Kind::Manx => "   TOR=manx",
    }
}

fn greet(screen: &Screen, tor: Kind) {
    let missing = setup::missing_packages();
    let now = if missing.is_empty() { "nothing".to_owned() } else { missing.join(" ") };
    let routers = match tor {
        Kind::Frr => frr::version().map_or_else(|_| "FRR".to_owned(), |version| format!("FRR {version}")),
        Kind::Manx => "TOR=manx: our bgpd".to_owned(),
    };
    screen.say(&format!(
        "Manx demo: {} nodes, 2 ToR routers ({routers}), 1 client and 6 pods in network namespaces of this\n\
         machine. Installs what is missing with apt (now: {now}). Everything else stays in target/demo.",
        NODES.len()
    ));
}

fn build(screen: &mut Screen, fabric: &mut Fabric) -> Result<()> {
    setup::packages(screen, &fabric.places.home)?;
    setup::build(screen, &fabric.places)?;
    not_interrupted()?;
    setup::namespaces(screen, &fabric.scope)?;
    setup::routers(screen, fabric)?;
    not_interrupted()?;
    setup::nodes(screen, fabric)?;
    not_interrupted()?;
    setup::pods(screen, fabric)
}

fn not_interrupted() -> Result<()> {
    if interrupt::requested() { bail!("interrupted") } else { Ok(()) }
}

/// A step failed: what is known goes beside the report.
fn broken(fabric: &Fabric, error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    say(&format!("FAIL {text}"));
    evidence::collect(fabric, "setup");
    text
}

fn run_checks(screen: &mut Screen, fabric: &mut Fabric, chosen: &[Check], report: &mut Report) {
    let step = screen.begin("checks", &format!("0 of {}", chosen.len()));
    for check in chosen {
        if interrupt::requested() {
            report.broken_off = Some(format!("interrupted before {}", check.id));
            break;
        }
        step.update(&format!("{} of {}   {} {}", report.done.len(), chosen.len(), check.id, check.title));
        let done = make(fabric, check);
        if done.verdict.state == State::Fail || (done.verdict.state == State::Skip && !interrupt::requested())
        {
            step.interject(|| say(&done.form()));
        }
        report.done.push(done);
        // A run that is broken off later still has its report.
        if let Err(error) = report.write(&fabric.places.home) {
            step.interject(|| say(&format!("report: {error:#}")));
        }
    }
    let good = report.done.iter().filter(|done| done.verdict.state == State::Ok).count();
    let state = if good == chosen.len() { State::Ok } else { State::Fail };
    step.end(state, &format!("{good} of {}", chosen.len()));
}

fn make(fabric: &mut Fabric, check: &Check) -> Done {
    let begun = Instant::now();
    let mut verdict = (check.run)(fabric).unwrap_or_else(|error| Verdict::fail(format!("{error:#}")));
    if verdict.state == State::Fail && interrupt::requested() {
        // Nobody waited long enough to know.
        verdict = Verdict::skip("interrupted");
    }
    verdict.seen = match verdict.seen.split_once('\n') {
        Some((first, rest)) => format!("{first}{}\n{rest}", note(fabric.kind)),
        None => format!("{}{}", verdict.seen, note(fabric.kind)),
    };
    let evidence = if verdict.state == State::Fail { evidence::collect(fabric, check.id) } else { None };
    Done {
        id: check.id,
        title: if fabric.kind == Kind::Manx {
            check.title.replace("FRR", "bgpd")
        } else {
            check.title.to_owned()
        },
        expected: check.expected,
        verdict,
        took: begun.elapsed(),
        evidence,
    }
}

fn show(report: &Report) {
    let terminal = std::io::stdout().is_terminal();
    if !report.drawing.is_empty() {
        let utf8 = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .is_some_and(|value| value.to_lowercase().replace('-', "").contains("utf8"));
        say(&if terminal && utf8 { report.drawing.clone() } else { drawing::plain(&report.drawing) });
        say("");
    }
    for done in &report.done {
        say(&done.line(screen::colour(terminal)));
    }
    say(&report.summary());
}

fn leave_or_remove(mut fabric: Fabric, keep: bool) -> Result<()> {
    if !keep {
        let run = fabric.places.run.clone();
        drop(fabric);
        setup::remove(&run)?;
        say("Fabric removed. make demo KEEP=1 leaves it up.");
        return Ok(());
    }
    write_env(&fabric.places)?;
    for daemons in std::mem::take(&mut fabric.daemons) {
        daemons.bgpd.leave();
        daemons.felix.leave();
    }
    if let Some(routers) = fabric.routers.take() {
        routers.leave();
    }
    let router = match fabric.kind {
        Kind::Frr => "vtysh -N tor-a",
        Kind::Manx => {
            "manxctl --store target/demo/state/tor-a/objects --run-dir /run/manx-demo/routers bgp routes"
        }
    };
    say(&format!(
        "Up. Look: . target/demo/env; manxctl status; manxctl bgp peers; {router}. Remove: make demo-down"
    ));
    Ok(())
}

/// What a shell needs to look at a fabric that was left up.
fn write_env(places: &Places) -> Result<()> {
    let show = |path: &Path| path.display().to_string();
    let text = format!(
        "# . target/demo/env\nexport MANX_STORE='{}'\nexport MANX_RUN_DIR='{}'\nexport PATH='{}':\"$PATH\"\n\
         # a shell inside: nsenter --net=/run/netns/manx-demo-n1\n",
        show(&places.objects),
        show(&places.run),
        show(&places.binaries)
    );
    fs::write(places.home.join("env"), text).context("target/demo/env")
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_takes_an_id_or_its_group() {
        assert_eq!(choose(&["6.1".to_owned()]).unwrap().len(), 1);
        assert_eq!(choose(&["6".to_owned()]).unwrap().len(), 2);
        assert_eq!(choose(&[]).unwrap().len(), 26);
        assert!(choose(&["9".to_owned()]).is_err());
    }
}
