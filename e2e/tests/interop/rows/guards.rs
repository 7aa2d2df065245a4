//! Who may speak, how much, and what may never enter.

use std::thread;
use std::time::Duration;

use super::checks::{QUIET, both_ways, is_up, peer_notified, peer_says};
use super::{Row, plain, row, with_spec};
use crate::lacks::Evidence;
use crate::rig::Rig;
use crate::setup::Kind::{self, Bird, Frr, GoBgp, OpenBgpd};
use crate::setup::{Feature, MORE, OWN, Setup, THEIRS};
use crate::third::TO_PEER;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = limits();
    rows.extend(keys());
    rows.extend(entering());
    rows.extend(paths());
    rows
}

fn keys() -> Vec<Row> {
    vec![
        row(
            "TCP-MD5",
            |_| Setup { manx_password: Some("one"), password: Some("one"), ..Setup::default() },
            |_, setup| setup.password = Some("two"),
            |rig| both_ways(rig, &[0]),
        ),
        // Both ends of bgpd's own do it: test peering, md5.
        row("TCP-MD5 rollover without a reset", plain, |_, _| {}, |_| Err("every peer lacks it".to_owned()))
            .lacking(&[Frr], || {
                rollover("sends Cease (Other Configuration Change) when its key changes, although bgpd has the new one")
            })
            .lacking(&[Bird], || {
                rollover("restarts its protocol when its key changes, although bgpd has the new one")
            })
            .lacking(&[GoBgp, OpenBgpd], || {
                rollover("ends the session when its key changes, although bgpd has the new one")
            }),
        row(
            "GTSM (RFC 5082)",
            |_| with_spec("  session: {ttlSecurity: true}\n").with(&[Feature::Gtsm]),
            // It sends with TTL 1.
            |_, setup| setup.features = [].into(),
            |rig| both_ways(rig, &[0]),
        ),
        row(
            "wrong AS is refused (OPEN error 2)",
            |_| Setup { expects: 65010, ..Setup::default() },
            |_, setup| setup.expects = 65001,
            |rig| {
                rig.wait("bgpd refuses the AS", |rig| rig.said().contains("BadPeerAS"))?;
                peer_notified(rig, &["Bad Peer AS", "Bad peer AS", "AS unacceptable"])
            },
        ),
    ]
}

fn rollover(what: &'static str) -> Evidence {
    let setup = |_| Setup { manx_password: Some("one"), password: Some("one"), ..Setup::default() };
    Evidence::Shows { what, setup, check: rollover_resets }
}

fn rollover_resets(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    rig.put_key("two");
    rig.rekey_peer("two")?;
    rig.wait("the session ends", |rig| {
        !rig.peer().established(&rig.setup) || rig.said().contains("session down")
    })?;
    match rig.kind() {
        Frr => peer_says(rig, &["Cease/Other Configuration Change"])?,
        Bird => peer_says(rig, &["Restarting protocol node"])?,
        // They say nothing of why.
        GoBgp | OpenBgpd => {}
    }
    // It is the change that ended it, and both have the new one. OpenBGPD waits for half a minute before it dials again.
    rig.patience = Duration::from_secs(75);
    both_ways(rig, &[0])
}

fn limits() -> Vec<Row> {
    vec![
        row(
            "maximum-prefix ends the session (Cease 1)",
            |_| with_spec("  session: {maxPrefixes: {ipv4: 1}}\n"),
            |_, setup| setup.spec = String::new(),
            |rig| {
                rig.wait("bgpd ends the session over its limit", |rig| {
                    let session = rig.session();
                    session["state"] != "Established" && session.to_string().contains("axPrefix")
                })?;
                peer_notified(
                    rig,
                    &[
                        "Maximum Number of Prefixes Reached",
                        "Maximum number of prefixes reached",
                        "max-prefix",
                    ],
                )
            },
        ),
        row(
            "maximum-prefix, back after a while",
            |_| with_spec("  session: {maxPrefixes: {ipv4: 1, restartAfter: 4s}}\n"),
            |_, setup| setup.spec = "  session: {maxPrefixes: {ipv4: 1, restartAfter: 0s}}\n".to_owned(),
            |rig| {
                rig.wait("a second session after the limit", |rig| {
                    rig.said().matches("session up").count() > 1
                })
            },
        ),
        row(
            "maximum-prefix, warning only",
            |_| with_spec("  session: {maxPrefixes: {ipv4: 1, action: Warn}}\n"),
            |_, setup| setup.spec = "  session: {maxPrefixes: {ipv4: 1}}\n".to_owned(),
            |rig| {
                rig.wait("bgpd warns", |rig| rig.said().contains("prefix limit"))?;
                both_ways(rig, &[0])?;
                rig.wait("what is over the limit", |rig| rig.has_learned(MORE))?;
                thread::sleep(QUIET);
                if rig.is_up() { Ok(()) } else { Err("the session ended".to_owned()) }
            },
        ),
    ]
}

/// The peer is a route server between the third speaker and bgpd: it does not add its AS.
const TRANSPARENT: [&str; 4] =
    ["  neighbor 10.9.0.2 route-server-client\n", "rs client;", ROUTE_SERVER, " transparent-as yes\n"];
/// GoBGP serves routes between two clients only.
const ROUTE_SERVER: &str = "  [neighbors.route-server.config]\n    route-server-client = true\n";

fn entering() -> Vec<Row> {
    vec![
        row(
            "nothing is told without a BGPAdvertisement (RFC 8212)",
            |_| Setup { advertises: false, ..Setup::default() },
            |_, setup| setup.advertises = true,
            |rig| {
                is_up(rig)?;
                rig.wait("the peer's own route", |rig| rig.has_learned(THEIRS[0]))?;
                thread::sleep(QUIET);
                match rig.peer().route(OWN[0]) {
                    route if route.is_empty() => Ok(()),
                    route => Err(format!("told: {route}")),
                }
            },
        ),
        row(
            "nothing enters from outside the pools (RFC 8212)",
            |_| Setup { more: "198.51.100.0/24", ..Setup::default() },
            |_, setup| setup.more = MORE,
            |rig| {
                both_ways(rig, &[0])?;
                rig.wait("bgpd refuses it and says why", |rig| {
                    rig.rejects("198.51.100.0/24", "outside all pools")
                })?;
                if rig.has_learned("198.51.100.0/24") {
                    Err("it is in the kernel".to_owned())
                } else {
                    Ok(())
                }
            },
        ),
        row(
            "a route into a block of this node never enters",
            |_| Setup { more: "10.244.0.32/27", ..Setup::default() },
            |_, setup| setup.more = MORE,
            |rig| {
                both_ways(rig, &[0])?;
                rig.wait("bgpd refuses it and says why", |rig| {
                    rig.rejects("10.244.0.32/27", "inside a block of this node")
                })?;
                if rig.has_learned("10.244.0.32/27") { Err("it is in the kernel".to_owned()) } else { Ok(()) }
            },
        ),
    ]
}

fn paths() -> Vec<Row> {
    vec![
        row(
            "a path that does not begin with the peer's AS is refused",
            |kind| {
                let setup = Setup::default().with_third(65003, &[]);
                match kind {
                    Kind::Frr => setup.saying(kind, |says| &mut says.family, TRANSPARENT),
                    Kind::Bird | Kind::OpenBgpd => setup.saying(kind, |says| &mut says.neighbor, TRANSPARENT),
                    Kind::GoBgp => setup.saying(kind, |says| &mut says.neighbor, TRANSPARENT).saying(
                        kind,
                        |says| &mut says.third,
                        ["", "", ROUTE_SERVER, ""],
                    ),
                }
            },
            |_, setup| (setup.says.family, setup.says.neighbor, setup.says.third) = ("", "", ""),
            |rig| {
                is_up(rig)?;
                rig.wait("bgpd says what is wrong", |rig| {
                    rig.said().contains("it does not begin with the peer's AS")
                })?;
                if rig.has_learned(TO_PEER) { Err("it is in the kernel".to_owned()) } else { Ok(()) }
            },
        ),
        row(
            "our own AS in a path: allowOwnASN",
            |kind| {
                let setup = with_spec("  allowOwnASN: 1\n");
                if kind == OpenBgpd {
                    let mut setup = setup.with_third(65003, &[]);
                    setup.third.as_mut().unwrap().behind = Some(setup.manx_asn);
                    return setup;
                }
                setup.saying(kind, |says| &mut says.export, LOOPED)
            },
            |_, setup| setup.spec = String::new(),
            |rig| {
                is_up(rig)?;
                let prefix = if rig.setup.third.is_some() { TO_PEER } else { THEIRS[0] };
                rig.wait("our AS in the path at bgpd", |rig| {
                    rig.path(prefix)["asPath"].as_str().is_some_and(|path| path.contains("4200000001"))
                })?;
                rig.wait("and the route in the kernel", |rig| rig.has_learned(prefix))
            },
        ),
    ]
}

/// Our AS in the path that the peer tells; OpenBGPD has it from the third speaker.
const LOOPED: [&str; 4] =
    [" set as-path prepend 4200000001\n", "bgp_path.prepend(4200000001);", "aspath 4200000001", ""];
