//! What stays while one end is gone: graceful restart, after a NOTIFICATION too, and for long.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::bfd::profile;
use super::checks::both_ways;
use super::{Row, row, with_spec};
use crate::lacks::Evidence;
use crate::rig::Rig;
use crate::setup::Kind::{self, Bird, OpenBgpd};
use crate::setup::{Feature, OWN, RESTART_TIME, Setup, THEIRS};

fn restart_setup(_: Kind) -> Setup {
    Setup::default().with(&[Feature::GracefulRestart])
}

fn long_lived(_: Kind) -> Setup {
    let spec = format!(
        "  session: {{gracefulRestart: {{restartTime: {RESTART_TIME}s, longLivedStaleTime: 60s}}}}\n"
    );
    with_spec(&spec).with(&[Feature::GracefulRestart, Feature::LongLived])
}

/// LLGR_STALE as each peer writes it.
const LLGR_STALE: [&str; 4] = ["llgr-stale", "llgrStale", "(65535,6)", "65535:6"];

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "graceful restart, the peer helps (RFC 4724)",
            restart_setup,
            |_, setup| setup.spec = "  session: {gracefulRestart: {mode: Disabled}}\n".to_owned(),
            restarting,
        ),
        row(
            "graceful restart, bgpd helps (RFC 4724)",
            restart_setup,
            |_, setup| {
                setup.features.remove(&Feature::GracefulRestart);
            },
            helper,
        )
        .lacking(&[OpenBgpd], || Evidence::Shows {
            what: "offers the End-of-RIB marker only: no family in its capability 64, so its routes leave with it",
            setup: restart_setup,
            check: |rig| {
                both_ways(rig, &[0])?;
                rig.kill_peer();
                rig.wait("its route leaves the kernel", |rig| !rig.has_learned(THEIRS[0]))
            },
        }),
        row(
            "graceful restart over NOTIFICATION (RFC 8538)",
            // bgpd offers it where BFD can tell a dead peer from a silent one; the peer's BFD stays off.
            |_| {
                let setup = Setup { objects: profile(), ..with_spec("  session: {bfdProfile: fast}\n") };
                setup.with(&[Feature::GracefulRestart, Feature::RestartNotification])
            },
            |_, setup| {
                setup.features.remove(&Feature::RestartNotification);
            },
            after_notification,
        )
        .lacking(&[Bird, OpenBgpd], || Evidence::NoNotificationBit),
        row(
            "long-lived graceful restart, the peer keeps (RFC 9494)",
            long_lived,
            |_, setup| setup.spec = with_spec("  session: {gracefulRestart: {restartTime: 3s}}\n").spec,
            |rig| {
                both_ways(rig, &[0])?;
                rig.kill_bgpd();
                rig.wait("the route at the peer with LLGR_STALE", |rig| {
                    let route = rig.peer().route(OWN[0]);
                    LLGR_STALE.iter().any(|word| route.contains(word))
                })?;
                rig.start_bgpd();
                both_ways(rig, &[0])
            },
        )
        .lacking(&[OpenBgpd], || Evidence::Withholds(71)),
        row(
            "long-lived graceful restart, bgpd keeps (RFC 9494)",
            long_lived,
            |_, setup| {
                setup.features.remove(&Feature::LongLived);
                setup.spec = with_spec("  session: {gracefulRestart: {restartTime: 3s}}\n").spec;
            },
            |rig| {
                both_ways(rig, &[0])?;
                rig.kill_peer();
                rig.wait("bgpd marks its route LLGR_STALE", |rig| {
                    rig.path(THEIRS[0]).to_string().contains("llgr-stale")
                        || rig.path(THEIRS[0]).to_string().contains("65535:6")
                })?;
                thread::sleep(Duration::from_secs(2));
                if !rig.has_learned(THEIRS[0]) {
                    return Err(format!("{} left the kernel", THEIRS[0]));
                }
                rig.start_peer()?;
                both_ways(rig, &[0])?;
                rig.wait("the mark is gone when the peer is back", |rig| {
                    let path = rig.path(THEIRS[0]);
                    path["stale"] != true && !path.to_string().contains("65535:6")
                })
            },
        )
        .lacking(&[OpenBgpd], || Evidence::Withholds(71)),
    ]
}

fn helper(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    rig.kill_peer();
    rig.wait("bgpd notices that the peer is gone", |rig| rig.session()["state"] != "Established")?;
    thread::sleep(Duration::from_secs(1));
    if !rig.has_learned(THEIRS[0]) {
        return Err(format!("{} left the kernel while the peer was dead", THEIRS[0]));
    }
    rig.start_peer()?;
    both_ways(rig, &[0])
}

fn restarting(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    rig.kill_bgpd();
    rig.wait("the peer notices that bgpd is gone", |rig| !rig.peer().established(&rig.setup))?;
    thread::sleep(Duration::from_secs(1));
    if rig.peer().route(OWN[0]).is_empty() {
        return Err(format!("the peer dropped {} while bgpd was dead", OWN[0]));
    }
    if !rig.has_learned(THEIRS[0]) {
        return Err(format!("{} left the kernel while bgpd was dead", THEIRS[0]));
    }
    rig.start_bgpd();
    both_ways(rig, &[0])
}

/// A hold time that runs out ends the session with a NOTIFICATION, and its routes stay all the same.
fn after_notification(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    rig.signal_peer(Signal::SIGSTOP);
    let ended =
        rig.wait("bgpd ends the session of a silent peer", |rig| rig.said().contains("HoldTimerExpired"));
    thread::sleep(Duration::from_secs(1));
    let kept = rig.has_learned(THEIRS[0]);
    rig.signal_peer(Signal::SIGCONT);
    ended?;
    if !kept {
        return Err(format!("{} left the kernel with the session", THEIRS[0]));
    }
    both_ways(rig, &[0])
}
