//! `make interop`: every capability of bgpd against FRR, BIRD, GoBGP and OpenBGPD, written to docs/interop.md.
//!
//! A cell runs its check twice: as it should pass, and spoilt, where the same check must fail; a check that passes then is
//! itself a failure. `ROW=` and `PEER=` choose a part by words of their names; the page keeps the rest from
//! target/interop.json. Needs root, the four daemons, and bgpd built in the same profile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod page;
mod peers;
mod rig;
mod rows;
mod setup;

use std::time::{Duration, Instant};

use e2e::topology;

use crate::page::{Cells, Outcome};
use crate::rig::Rig;
use crate::rows::{Proof, Row, rows};
use crate::setup::{Kind, Setup};

/// A session of 9 s hold time, its retries included.
const PATIENCE: Duration = Duration::from_secs(25);
/// For a check that is to fail: longer than any passes in.
const SPOILT: Duration = Duration::from_secs(12);

#[test]
fn matrix() {
    topology::remove_stale_tests().unwrap();
    let (row_words, peer_words) = (word("ROW"), word("PEER"));
    let mut cells = Cells::load();
    let mut failed = Vec::new();
    for row in rows() {
        for kind in Kind::ALL {
            let name = kind.name();
            if !row.name.to_lowercase().contains(&row_words) || !name.to_lowercase().contains(&peer_words) {
                continue;
            }
            let began = Instant::now();
            let outcome = cell(&row, kind);
            println!("{:<46} {name:<9} {outcome} ({:.1} s)", row.name, began.elapsed().as_secs_f64());
            if outcome.is_broken() {
                failed.push(format!("{} × {name}: {outcome}", row.name));
            }
            cells.set(row.name, name, outcome);
        }
        cells.write(&rows());
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn word(name: &str) -> String {
    std::env::var(name).unwrap_or_default().to_lowercase()
}

fn cell(row: &Row, kind: Kind) -> Outcome {
    if let Some((_, source)) = row.lacks.iter().find(|(lacking, _)| *lacking == kind) {
        return Outcome::Lacks((*source).to_owned());
    }
    match &row.proof {
        Proof::Untested(why) => Outcome::NotYet((*why).to_owned()),
        Proof::Setting(setup) => match run(kind, &setup(), SPOILT, |rig| {
            rig.wait("bgpd says what it thinks of the BGPPeer", |rig| {
                rig.session() != serde_json::Value::Null
            })
        }) {
            Ok(()) => Outcome::NotYet("bgpd takes the setting, and no test looks at what follows".to_owned()),
            Err(text) => Outcome::of(&text),
        },
        Proof::Check { setup, spoil, check } => {
            let good = setup(kind);
            if let Err(text) = run(kind, &good, PATIENCE, check) {
                return Outcome::of(&text);
            }
            let mut bad = good;
            spoil(kind, &mut bad);
            match run(kind, &bad, SPOILT, check) {
                Ok(()) => Outcome::Fail("the same check passes where it must not".to_owned()),
                Err(_) => Outcome::Pass,
            }
        }
    }
}

fn run(
    kind: Kind,
    setup: &Setup,
    patience: Duration,
    check: impl Fn(&mut Rig) -> Result<(), String>,
) -> Result<(), String> {
    let mut rig = Rig::start(kind, setup, patience)?;
    let outcome = check(&mut rig);
    if outcome.is_err() && std::env::var("EVIDENCE").is_ok() {
        println!("{}", rig.evidence());
    }
    outcome
}
