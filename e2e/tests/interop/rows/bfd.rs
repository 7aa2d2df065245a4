//! BFD beside a session whose hold time is longer than what BFD needs to see a loss.

use std::time::{Duration, Instant};

use super::checks::{both_ways, is_up};
use super::{Row, row, with_spec};
use crate::lacks::Evidence;
use crate::rig::Rig;
use crate::setup::Kind::{GoBgp, OpenBgpd};
use crate::setup::{Feature, OWN, Setup};

/// 300 ms five times, and what a busy machine adds; no hold time is below 9 s.
const NOTICED: Duration = Duration::from_secs(6);

/// The BFDProfile that `bfdProfile: fast` names.
pub(super) fn profile() -> Vec<(String, String)> {
    let text = "apiVersion: manx.dev/v1alpha1\nkind: BFDProfile\nmetadata: {name: fast}\nspec: {transmitInterval: \
                300ms, receiveInterval: 300ms, detectMultiplier: 5}\n";
    vec![("bfdprofiles.manx.dev/fast".to_owned(), text.to_owned())]
}

fn with_bfd(more: &str) -> Setup {
    Setup {
        hold: "60s",
        objects: profile(),
        ..with_spec(&format!("{more}  session: {{bfdProfile: fast}}\n"))
    }
    .with(&[Feature::Bfd])
}

fn without(setup: &mut Setup) {
    setup.spec = setup.spec.replace("  session: {bfdProfile: fast}\n", "");
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "BFD, single-hop (RFC 5881)",
            |_| with_bfd(""),
            |_, setup| without(setup),
            |rig| {
                loss_is_noticed(rig)?;
                both_ways(rig, &[0])
            },
        )
        .lacking(&[GoBgp], || Evidence::Refuses("  [neighbors.bfd.config]\n    enabled = true\n"))
        .lacking(&[OpenBgpd], || Evidence::Refuses(" bfd yes\n")),
        row(
            "BFD, multihop (RFC 5883)",
            |_| Setup { remote: "10.99.0.1", ..with_bfd("  maxHops: 2\n") }.with(&[Feature::Multihop]),
            |_, setup| without(setup),
            |rig| {
                loss_is_noticed(rig)?;
                is_up(rig)?;
                rig.wait("a route at the peer", |rig| !rig.peer().route(OWN[0]).is_empty())
            },
        )
        .lacking(&[GoBgp], || Evidence::Refuses("  [neighbors.bfd.config]\n    enabled = true\n"))
        .lacking(&[OpenBgpd], || Evidence::Refuses(" bfd yes\n")),
    ]
}

/// What crosses the link is lost: BFD says so in its time, and ends the session; afterwards both come back.
fn loss_is_noticed(rig: &mut Rig) -> Result<(), String> {
    is_up(rig)?;
    rig.wait("BFD is up", |rig| rig.session()["bfd"] == "Up")?;
    std::thread::sleep(Duration::from_secs(3));
    rig.wait("both are up still", |rig| rig.is_up() && rig.session()["bfd"] == "Up")?;
    let before = rig.said().matches("BFDDown").count();
    rig.cut()?;
    let began = Instant::now();
    let down = rig.wait("BFD ends the session", |rig| rig.said().matches("BFDDown").count() > before);
    let took = began.elapsed();
    rig.mend()?;
    down?;
    match took < NOTICED {
        true => Ok(()),
        false => Err(format!("noticed after {took:?} only")),
    }
}
