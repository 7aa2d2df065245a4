//! The rows: what is set up, what is checked, and what must make the same check fail.

use std::thread;
use std::time::Duration;

use e2e::netns::stdout_of;
use nix::sys::signal::{Signal, kill};

use crate::rig::Rig;
use crate::setup::{Feature, Kind, OWN, Setup, THEIRS};

/// One capability of bgpd.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Who cannot, and how that is known.
    pub(crate) lacks: &'static [(Kind, &'static str)],
    pub(crate) proof: Proof,
}

pub(crate) enum Proof {
    Check {
        setup: fn(Kind) -> Setup,
        /// With this the check must fail.
        spoil: fn(Kind, &mut Setup),
        check: fn(&mut Rig) -> Result<(), String>,
    },
    /// A setting that is tried, and nothing yet that looks at what follows from it.
    Setting(fn() -> Setup),
    /// Nothing tests it yet.
    Untested(&'static str),
}

use Kind::{Bird, GoBgp, OpenBgpd};

fn plain(_: Kind) -> Setup {
    Setup::default()
}

fn wrong_as(_: Kind, setup: &mut Setup) {
    setup.expects_manx = 65009;
}

/// The peer says nothing of what it can; GoBGP cannot be told so, and expects another AS.
fn no_capabilities(kind: Kind, setup: &mut Setup) {
    match kind {
        Kind::Frr | Kind::Bird | Kind::OpenBgpd => setup.features.extend([Feature::NoCapabilities]),
        Kind::GoBgp => setup.expects_manx = 65009,
    }
}

fn both_ways(rig: &Rig, families: &[usize]) -> Result<(), String> {
    rig.wait("the session is up at both ends", Rig::is_up)?;
    for &family in families {
        let (own, theirs) = (OWN[family], THEIRS[family]);
        rig.wait(&format!("{own} at the peer"), |rig| !rig.peer().route(own).is_empty())?;
        rig.wait(&format!("{theirs} in the kernel"), |rig| rig.has_learned(theirs))?;
    }
    Ok(())
}

fn told(rig: &Rig, words: &[&str]) -> Result<(), String> {
    let what = format!("{} at the peer with {}", OWN[0], words.join(" or "));
    rig.wait(&what, |rig| {
        let route = rig.peer().route(OWN[0]);
        words.iter().any(|word| route.contains(word))
    })
}

fn heard(rig: &Rig, community: &str) -> Result<(), String> {
    rig.wait(&format!("{} with {community} at bgpd", THEIRS[0]), |rig| {
        let question = format!("{{\"verb\": \"routes\", \"prefix\": \"{}\"}}", THEIRS[0]);
        rig.ask(&question)["routes"].to_string().contains(&format!("\"{community}\""))
    })
}

fn capability(rig: &Rig, name: &str) -> Result<(), String> {
    rig.wait("the session is up at both ends", Rig::is_up)?;
    let agreed = rig.session()["capabilities"].clone();
    let found = agreed.as_array().is_some_and(|agreed| agreed.iter().any(|one| one == name));
    if found { Ok(()) } else { Err(format!("{name} is not agreed on: {agreed}")) }
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

fn hold_timer(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    let signal = |rig: &Rig, signal| {
        for pid in rig.router.pids() {
            kill(pid, signal).unwrap();
        }
    };
    if rig.setup.falls_silent {
        signal(rig, Signal::SIGSTOP);
    }
    let ended = rig.wait("bgpd ends the session of a silent peer", |rig| {
        let log = std::fs::read_to_string(rig.log()).unwrap_or_default();
        log.contains("HoldTimerExpired")
    });
    signal(rig, Signal::SIGCONT);
    ended
}

/// Both ends dial, again and again; one connection is left each time.
fn collision(rig: &mut Rig) -> Result<(), String> {
    for _ in 0..3 {
        both_ways(rig, &[0])?;
        let mut command = rig.router.command("ss");
        command.args(["-Htn", "state", "established", "( sport = :179 or dport = :179 )"]);
        let connections = stdout_of(command).map_err(|error| format!("{error:#}"))?;
        if connections.lines().count() != 1 {
            return Err(format!("not one connection:\n{connections}"));
        }
        rig.kill_bgpd();
        rig.wait("the peer notices that bgpd is gone", |rig| !rig.peer().established(&rig.setup))?;
        rig.start_bgpd();
    }
    both_ways(rig, &[0])
}

fn shutdown_text(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    rig.put_peer(&format!("  adminState: Shutdown\n  adminMessage: {}\n", rig.setup.text));
    rig.wait("the peer says why the session was shut down", |rig| {
        rig.peer().neighbour(&rig.setup).contains("spine-swap-42") || rig.peer_log().contains("spine-swap-42")
    })
}

fn max_prefixes(rig: &mut Rig) -> Result<(), String> {
    rig.wait("bgpd ends the session over its limit", |rig| {
        let session = rig.session();
        session["state"] != "Established" && session.to_string().contains("axPrefix")
    })
}

fn restart_setup(_: Kind) -> Setup {
    Setup::default().with(&[Feature::GracefulRestart])
}

fn no_restart(_: Kind, setup: &mut Setup) {
    setup.features.remove(&Feature::GracefulRestart);
}

fn with_spec(spec: &str) -> Setup {
    Setup { spec: spec.to_owned(), ..Setup::default() }
}

pub(crate) fn rows() -> Vec<Row> {
    sessions()
        .into_iter()
        .chain(attributes())
        .chain(guards())
        .chain(capabilities())
        .chain(restarts())
        .chain(later())
        .collect()
}

const fn row(
    name: &'static str,
    lacks: &'static [(Kind, &'static str)],
    setup: fn(Kind) -> Setup,
    spoil: fn(Kind, &mut Setup),
    check: fn(&mut Rig) -> Result<(), String>,
) -> Row {
    Row { name, lacks, proof: Proof::Check { setup, spoil, check } }
}

fn sessions() -> Vec<Row> {
    let internal = |_: Kind| Setup { manx_asn: 65001, expects_manx: 65001, ..Setup::default() };
    let over_v6 = |_: Kind| Setup { remote: "fd09::1", ..Setup::default() };
    vec![
        row("session, eBGP over IPv4", &[], plain, wrong_as, |rig| both_ways(rig, &[0])),
        row("session, iBGP", &[], internal, wrong_as, |rig| both_ways(rig, &[0])),
        row("session over IPv6", &[], over_v6, wrong_as, |rig| both_ways(rig, &[1])),
        row(
            "both families on one session",
            &[],
            plain,
            |_, setup| setup.spec = "  families: [IPv4Unicast]\n".to_owned(),
            |rig| both_ways(rig, &[0, 1]),
        ),
        row(
            "passive",
            &[],
            |_| with_spec("  passive: true\n"),
            |_, setup| setup.features.extend([Feature::Passive]),
            |rig| both_ways(rig, &[0]),
        ),
        row(
            "multihop",
            &[],
            |_| Setup { remote: "10.99.0.1", ..with_spec("  maxHops: 2\n") }.with(&[Feature::Multihop]),
            |_, setup| setup.spec = String::new(),
            |rig| {
                rig.wait("the session is up at both ends", Rig::is_up)?;
                rig.wait("a route at the peer", |rig| !rig.peer().route(OWN[0]).is_empty())
            },
        ),
        row("both ends dial at once (collision)", &[], plain, wrong_as, collision),
        row(
            "hold timer",
            &[],
            |_| Setup { falls_silent: true, ..Setup::default() },
            |_, setup| setup.falls_silent = false,
            hold_timer,
        ),
        row(
            "shutdown text (RFC 9003)",
            &[],
            |_| Setup { text: "spine-swap-42", ..Setup::default() },
            |_, setup| setup.text = "another",
            shutdown_text,
        ),
    ]
}

fn attributes() -> Vec<Row> {
    vec![
        row(
            "four-octet AS",
            &[],
            plain,
            |_, setup| (setup.manx_asn, setup.expects_manx) = (64512, 64512),
            |rig| {
                capability(rig, "FourOctetASN")?;
                told(rig, &["4200000001"])
            },
        ),
        row(
            "four-octet AS and an old speaker (AS4_PATH)",
            &[(GoBgp, "always sends capability 65; docs/sources/configuration.md has no switch")],
            |kind| {
                let setup = Setup { expects_manx: 23456, ..Setup::default() };
                setup.with(&[if kind == Kind::Frr { Feature::NoCapabilities } else { Feature::OldAs }])
            },
            wrong_as,
            |rig| {
                both_ways(rig, &[0])?;
                told(rig, &["23456", "4200000001"])
            },
        ),
        row(
            "communities",
            &[],
            |_| Setup { attributes: "{communities: [\"64512:100\"]}", ..Setup::default() },
            |_, setup| setup.attributes = "{med: 5}",
            |rig| {
                told(rig, &["64512:100", "(64512,100)"])?;
                heard(rig, "65001:77")
            },
        ),
        row(
            "large communities",
            &[],
            |_| Setup { attributes: "{communities: [\"64512:1:2\"]}", ..Setup::default() },
            |_, setup| setup.attributes = "{med: 5}",
            |rig| {
                told(rig, &["64512:1:2", "(64512, 1, 2)"])?;
                heard(rig, "65001:7:7")
            },
        ),
    ]
}

fn guards() -> Vec<Row> {
    const RESETS: &str = "resets the session when its key changes";
    vec![
        row(
            "TCP-MD5",
            &[],
            |_| Setup { manx_password: Some("one"), password: Some("one"), ..Setup::default() },
            |_, setup| setup.password = Some("two"),
            |rig| both_ways(rig, &[0]),
        ),
        Row {
            name: "TCP-MD5 rollover without a reset",
            lacks: &[
                (Kind::Frr, "FRR 8.4: `neighbor password` ends the session, bgp_vty.c peer_password_set"),
                (Bird, "BIRD 2.0: a changed password restarts the protocol, bgp.c bgp_reconfigure"),
                (GoBgp, "GoBGP 3.10: the password is set when the session is made; a change takes a reset"),
                (
                    OpenBgpd,
                    "bgpd.conf(5): after changing keys, a session needs to be reset to use the new keys",
                ),
            ],
            proof: Proof::Untested(RESETS),
        },
        row(
            "maximum-prefix",
            &[],
            |_| with_spec("  session: {maxPrefixes: {ipv4: 1}}\n"),
            |_, setup| setup.spec = String::new(),
            max_prefixes,
        ),
    ]
}

fn capabilities() -> Vec<Row> {
    vec![
        row("route refresh (RFC 2918)", &[], plain, no_capabilities, route_refresh),
        row(
            "enhanced route refresh (RFC 7313)",
            &[(GoBgp, "GoBGP 3.10 does not offer capability 70: README, supported features")],
            plain,
            no_capabilities,
            |rig| capability(rig, "EnhancedRouteRefresh"),
        ),
        row(
            "extended messages (RFC 8654)",
            &[
                (GoBgp, "GoBGP 3.10 does not offer capability 6: README, supported features"),
                (OpenBgpd, "OpenBGPD 7.7: bgpd.conf(5) has no `announce extended`; it came with 8.1"),
            ],
            |_| Setup::default().with(&[Feature::ExtendedMessages]),
            no_capabilities,
            |rig| capability(rig, "ExtendedMessage"),
        ),
        row(
            "FQDN capability accepted",
            &[
                (Bird, "BIRD 2.0.12 does not offer capability 73"),
                (OpenBgpd, "OpenBGPD 7.7 does not offer capability 73"),
            ],
            plain,
            no_capabilities,
            |rig| {
                rig.wait("the session is up at both ends", Rig::is_up)?;
                let said = rig.peer().neighbour(&rig.setup).to_lowercase();
                let lines =
                    said.lines().filter(|line| line.contains("hostname cap") || line.contains("fqdn"));
                if lines.into_iter().any(|line| line.contains("advertised")) {
                    Ok(())
                } else {
                    Err("the peer did not send it".to_owned())
                }
            },
        ),
    ]
}

fn restarts() -> Vec<Row> {
    vec![
        row(
            "graceful restart, the peer helps (RFC 4724)",
            &[],
            restart_setup,
            |_, setup| {
                setup.spec = "  session: {gracefulRestart: {mode: Disabled}}\n".to_owned();
            },
            restarting,
        ),
        row(
            "graceful restart, bgpd helps (RFC 4724)",
            &[(OpenBgpd, "bgpd.conf(5): with `announce restart` only the End-of-RIB marker is supported")],
            restart_setup,
            no_restart,
            helper,
        ),
    ]
}

fn later() -> Vec<Row> {
    let setting = |name, setup| Row { name, lacks: &[], proof: Proof::Setting(setup) };
    let untested = |name, why| Row { name, lacks: &[], proof: Proof::Untested(why) };
    vec![
        setting("GTSM (RFC 5082)", || with_spec("  session: {ttlSecurity: true}\n").with(&[Feature::Gtsm])),
        setting("long-lived graceful restart (RFC 9494)", || {
            with_spec("  session: {gracefulRestart: {longLivedStaleTime: 60s}}\n")
        }),
        setting("add-path, receive (RFC 7911)", || with_spec("  session: {addPath: {receive: true}}\n")),
        setting("add-path, send (RFC 7911)", || with_spec("  session: {addPath: {send: 4}}\n")),
        setting("roles and OTC (RFC 9234)", || with_spec("  role: Customer\n")),
        setting("reflector client (RFC 4456)", || with_spec("  reflectorClient: true\n")),
        setting("BFD, single-hop (RFC 5881)", || with_spec("  session: {bfdProfile: default}\n")),
        setting("BFD, multihop (RFC 5883)", || Setup {
            remote: "10.99.0.1",
            ..with_spec("  maxHops: 2\n  session: {bfdProfile: default}\n")
        }),
        setting("GSHUT (RFC 8326)", || with_spec("  adminState: Drained\n")),
        setting("unnumbered", || Setup { place: Some("interface: eth0"), ..Setup::default() }),
        setting("extended next hop (RFC 8950)", || Setup {
            place: Some("interface: eth0"),
            ..Setup::default()
        }),
        setting("listen range", || Setup { place: Some("listenRange: 10.9.0.0/24"), ..Setup::default() }),
        untested("unknown transitive attributes kept", "no test yet beside bgp-proto's own"),
        untested("graceful restart over NOTIFICATION (RFC 8538)", "no test yet beside bgp-proto's own"),
        untested("route reflector (RFC 4456)", "no test yet beside bgp-proto's own"),
    ]
}
