//! `make interop`: every capability of bgpd against FRR, BIRD, GoBGP and OpenBGPD, the first two in two releases each, written
//! to docs/interop.md.
//!
//! A cell runs its check twice: as it should pass, and spoilt, where the same check must fail; a check that passes then is
//! itself a failure. What a peer lacks it shows itself (`lacks`). `ROW=` and `PEER=` choose a part by words of their names; the
//! page keeps the rest from target/interop.json. Cells run side by side, each in namespaces of its own: `JOBS=`.
//! Needs root, the four daemons, `make trixie`, nftables, and bgpd built in the same profile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod columns;
mod configs;
mod lacks;
mod page;
mod peers;
mod rig;
mod rows;
mod setup;
mod third;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::columns::Column;
use crate::page::{Cells, Outcome};
use crate::rig::Rig;
use crate::rows::{Row, SEND_HOLD, rows};
use crate::setup::Setup;

/// A session of 9 s hold time, its retries included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);
/// For a check that is to fail: longer than any passes in.
const SPOILT: Duration = Duration::from_secs(12);

#[test]
fn matrix() {
    let (row_words, peer_words) = (word("ROW"), word("PEER"));
    let (rows, columns) = (rows(), Column::all().expect("every peer"));
    let chosen = |row: &Row, column: &Column| {
        row.name.to_lowercase().contains(&row_words) && column.name().to_lowercase().contains(&peer_words)
    };
    let all = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
    let (first, then): (Vec<_>, Vec<_>) =
        all.filter(|(row, column)| chosen(row, column)).partition(|(row, _)| row.name == SEND_HOLD);
    let left: Mutex<VecDeque<(&Row, &Column)>> = Mutex::new(first.into_iter().chain(then).collect());
    let done = Mutex::new((Cells::load(), Vec::new()));
    let work = |number: usize| {
        while let Some((row, column)) = next(&left) {
            let (name, began) = (column.name(), Instant::now());
            let outcome = cell(row, column, number);
            println!("{:<46} {name:<12} {outcome} ({:.1} s)", row.name, began.elapsed().as_secs_f64());
            let mut done = done.lock().unwrap();
            if outcome.is_broken() {
                done.1.push(format!("{} × {name}: {outcome}", row.name));
            }
            done.0.set(row.name, &name, outcome);
            done.0.write(&rows, &columns);
        }
    };
    thread::scope(|scope| {
        for number in 0..word("JOBS").parse().unwrap_or(8) {
            scope.spawn(move || work(number));
        }
    });
    let failed = done.into_inner().unwrap().1;
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn next<T>(queue: &Mutex<VecDeque<T>>) -> Option<T> {
    queue.lock().unwrap().pop_front()
}

fn word(name: &str) -> String {
    std::env::var(name).unwrap_or_default().to_lowercase()
}

fn cell(row: &Row, column: &Column, number: usize) -> Outcome {
    let kind = column.kind;
    if let Some(lack) = row.lacks.iter().find(|lack| lack.kind == kind) {
        return match lacks::look(lack, |setup| Rig::start(column, setup, PATIENCE, number)) {
            Ok(()) => Outcome::Lacks(lack.evidence.to_string()),
            Err(seen) => Outcome::Fail(format!("it is said that the peer {}, and: {seen}", lack.evidence)),
        };
    }
    let good = (row.setup)(kind);
    if let Err(text) = run(column, &good, row.patience, number, row.check) {
        return Outcome::of(&text);
    }
    let mut bad = good;
    (row.spoil)(kind, &mut bad);
    // A rig that does not start says nothing of the check.
    let mut rig = match Rig::start(column, &bad, SPOILT, number) {
        Ok(rig) => rig,
        Err(text) => return Outcome::Fail(format!("spoilt, {text}")),
    };
    match (row.check)(&mut rig) {
        Ok(()) => Outcome::Fail("the same check passes where it must not".to_owned()),
        Err(text) => {
            println!("  {} × {}, spoilt: {text}", row.name, column.name());
            Outcome::Pass
        }
    }
}

fn run(
    column: &Column,
    setup: &Setup,
    patience: Duration,
    number: usize,
    check: impl Fn(&mut Rig) -> Result<(), String>,
) -> Result<(), String> {
    let mut rig = Rig::start(column, setup, patience, number)?;
    let outcome = check(&mut rig);
    if outcome.is_err() && std::env::var("EVIDENCE").is_ok() {
        println!("{}", rig.evidence());
    }
    outcome
}
