//! Capabilities and what follows from them: refreshing, long messages, words at the end of a session.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::checks::{QUIET, both_ways, capability, is_up, peer_says};
use super::{Row, no_capabilities, plain, row};
use crate::lacks::Evidence;
use crate::rig::Rig;
use crate::setup::Kind::{self, GoBgp, OpenBgpd};
use crate::setup::{Feature, OWN, Setup};

/// One BGPAdvertisement carries 32 communities; together these are 5,376 octets, more than any message that is not extended.
const MANY: u32 = 14;

/// It takes 8 minutes by its nature, and is begun first.
pub(crate) const SEND_HOLD: &str = "send hold timer (RFC 9687)";

pub(super) fn rows() -> Vec<Row> {
    ends().into_iter().chain(refreshes()).chain(lengths()).collect()
}

fn ends() -> Vec<Row> {
    vec![
        row(
            "shutdown text told (RFC 9003)",
            |_| Setup { text: "spine-swap-42", ..Setup::default() },
            |_, setup| setup.text = "another",
            |rig| {
                both_ways(rig, &[0])?;
                rig.put_peer(&format!("  adminState: Shutdown\n  adminMessage: {}\n", rig.setup.text));
                peer_says(rig, &["spine-swap-42"])
            },
        ),
        row(
            "shutdown text heard (RFC 9003)",
            |_| Setup { text: "spine-swap-42", ..Setup::default() },
            |_, setup| setup.text = "another",
            |rig| {
                is_up(rig)?;
                let ended = rig.peer().shut_down(&rig.setup, rig.setup.text);
                ended.map_err(|error| format!("{error:#}"))?;
                rig.wait("bgpd says why the peer ended the session", |rig| {
                    rig.session()["lastError"].to_string().contains("spine-swap-42")
                })
            },
        ),
        Row {
            // RFC 9687 §3 asks for 8 minutes at least.
            patience: Duration::from_secs(8 * 60 + 40),
            ..row(
                SEND_HOLD,
                |_| Setup { hold: "0s", falls_silent: true, ..Setup::default() }.with(&[Feature::NarrowPipe]),
                |_, setup| setup.falls_silent = false,
                stalled,
            )
            .lacking(&[GoBgp], || Evidence::Shows {
                what: "loses every session without hold time to its own write deadline, and with one its silence ends it first",
                setup: |_| Setup { hold: "0s", ..Setup::default() },
                check: |rig| rig.wait("its writes fail", |rig| rig.peer_log().contains("write-failed")),
            })
        },
    ]
}

fn refreshes() -> Vec<Row> {
    vec![
        row("route refresh (RFC 2918)", plain, no_capabilities, route_refresh).lacking(&[GoBgp], || {
            Evidence::Shows {
                what: "answers `softresetin` from its own memory: it sends no ROUTE-REFRESH",
                setup: plain,
                check: |rig| {
                    both_ways(rig, &[0])?;
                    rig.peer().refresh(&rig.setup).map_err(|error| format!("{error:#}"))?;
                    thread::sleep(QUIET);
                    let said = rig.peer().neighbour(&rig.setup);
                    let line = said.lines().find(|line| line.trim_start().starts_with("Route Refresh:"));
                    match line.and_then(|line| line.split_whitespace().nth(2)) {
                        Some("0") => Ok(()),
                        other => Err(format!("it sent {other:?} of them")),
                    }
                },
            }
        }),
        row(
            "enhanced route refresh (RFC 7313)",
            |_| Setup::default().with(&[Feature::Verbose]),
            no_capabilities,
            enhanced_refresh,
        )
        .lacking(&[GoBgp], || Evidence::Withholds(70)),
    ]
}

fn lengths() -> Vec<Row> {
    vec![
        row(
            "extended messages (RFC 8654)",
            |_| Setup::default().with(&[Feature::ExtendedMessages]),
            |kind, setup| {
                no_capabilities(kind, setup);
                setup.features.remove(&Feature::ExtendedMessages);
            },
            |rig| {
                capability(rig, "ExtendedMessage")?;
                many_communities(rig);
                let last = MANY - 1;
                let forms = [format!("64512:{last}:31"), format!("(64512, {last}, 31)")];
                rig.wait("a set of more than 4,096 octets at the peer", |rig| {
                    let route = rig.peer().route(OWN[0]);
                    forms.iter().any(|form| route.contains(form))
                })
            },
        )
        .lacking(&[GoBgp, OpenBgpd], || Evidence::Withholds(6)),
        row(
            "a set too long for the session is withdrawn",
            |kind| {
                let mut setup = Setup { text: "many", ..Setup::default() };
                // FRR offers extended messages, or nothing.
                if kind == Kind::Frr {
                    no_capabilities(kind, &mut setup);
                }
                setup
            },
            |_, setup| setup.text = "",
            too_long,
        ),
        row(
            "FQDN capability accepted",
            |kind| {
                let hostname = ["", "advertise hostname on;", "", ""];
                let setup = Setup::default().with_third(65003, &[]);
                let setup = setup.saying(kind, |says| &mut says.neighbor, hostname);
                setup.saying(kind, |says| &mut says.third, hostname)
            },
            |kind, setup| {
                no_capabilities(kind, setup);
                let silent = " neighbor 10.97.0.3 dont-capability-negotiate\n";
                setup.says.third = if kind == Kind::Frr { silent } else { "" };
            },
            |rig| {
                is_up(rig)?;
                rig.wait("capability 73 in the peer's OPEN to the third speaker, too", |rig| {
                    rig.third().with_peer.capabilities().iter().any(|(code, _)| *code == 73)
                })
            },
        )
        .lacking(&[OpenBgpd], || Evidence::Withholds(73)),
    ]
}

fn route_refresh(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    capability(rig, "RouteRefresh")?;
    // Let what belongs to the start arrive, so that what comes next is the answer.
    thread::sleep(Duration::from_secs(1));
    let before = rig.peer().updates(&rig.setup);
    rig.peer().refresh(&rig.setup).map_err(|error| format!("{error:#}"))?;
    rig.wait("the routes again after ROUTE-REFRESH", |rig| rig.peer().updates(&rig.setup) > before)
}

/// The borders come around the routes, and nothing is lost at the second.
fn enhanced_refresh(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    capability(rig, "EnhancedRouteRefresh")?;
    thread::sleep(Duration::from_secs(1));
    rig.peer().refresh(&rig.setup).map_err(|error| format!("{error:#}"))?;
    rig.wait("both borders at the peer", |rig| rig.peer().heard_borders(&rig.peer_log()))?;
    thread::sleep(Duration::from_secs(1));
    match rig.peer().route(OWN[0]).is_empty() {
        false => Ok(()),
        true => Err(format!("{} is gone after the refresh", OWN[0])),
    }
}

/// Without a hold time nobody else ends the session of a peer that does not read.
fn stalled(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    if rig.setup.falls_silent {
        rig.signal_peer(Signal::SIGSTOP);
    }
    // Every change of one of eight tells both routes again, with 3,000 octets of communities.
    for one in 0..200 {
        let all: Vec<String> = (0..32).map(|number| format!("\"64512:{one}:{number}\"")).collect();
        rig.put_advertisement(
            &format!("more-{}", one % 8),
            &format!("{{communities: [{}]}}", all.join(", ")),
        );
        thread::sleep(Duration::from_millis(100));
    }
    let ended = rig.wait("bgpd ends the session of a peer that does not read", |rig| {
        rig.said().contains("SendHoldTimerExpired")
    });
    rig.signal_peer(Signal::SIGCONT);
    ended
}

fn many_communities(rig: &Rig) {
    for one in 0..MANY {
        let all: Vec<String> = (0..32).map(|number| format!("\"64512:{one}:{number}\"")).collect();
        rig.put_advertisement(&format!("many-{one}"), &format!("{{communities: [{}]}}", all.join(", ")));
    }
}

fn too_long(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    if rig.setup.text == "many" {
        many_communities(rig);
    }
    rig.wait("the route is withdrawn from the peer", |rig| rig.peer().route(OWN[0]).is_empty())?;
    thread::sleep(QUIET);
    match rig.is_up() && rig.session()["resets"] == 0 {
        true => Ok(()),
        false => Err(format!("the session did not last: {}", rig.session())),
    }
}
