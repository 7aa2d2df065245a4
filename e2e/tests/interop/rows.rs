//! The rows: what is set up, what is checked, and what must make the same check fail.

mod bfd;
mod checks;
mod filters;
mod guards;
mod handed_on;
mod identity;
mod messages;
mod paths;
mod relations;
mod restarts;
mod unnumbered;

use std::time::Duration;

use crate::PATIENCE;
use crate::lacks::{Evidence, Lack};
use crate::rig::Rig;
use crate::setup::{Feature, Kind, OWN, Setup};

pub(crate) use messages::SEND_HOLD;

use crate::third::TO_MANX;
use checks::{both_ways, capability, collision, heard, hold_timer, told};

/// One capability of bgpd.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Who cannot, and what shows it.
    pub(crate) lacks: Vec<Lack>,
    pub(crate) setup: fn(Kind) -> Setup,
    /// With this the check must fail.
    pub(crate) spoil: fn(Kind, &mut Setup),
    pub(crate) check: fn(&mut Rig) -> Result<(), String>,
    /// How long anything is waited for where it should come.
    pub(crate) patience: Duration,
}

use Kind::GoBgp;

fn plain(_: Kind) -> Setup {
    Setup::default()
}

fn wrong_as(_: Kind, setup: &mut Setup) {
    setup.expects_manx = 65009;
}

/// The peer says nothing of what it can; GoBGP cannot be told so, and expects another AS.
fn no_capabilities(kind: Kind, setup: &mut Setup) {
    match kind {
        Kind::OpenBgpd => setup.features.extend([Feature::NoCapabilities]),
        // Without them BIRD does not start with a neighbour whose AS has four octets. FRR looks into no AS4_PATH then, and
        // since release 10 refuses a path that begins with another AS than the neighbour's: AS_TRANS.
        Kind::Frr | Kind::Bird => {
            (setup.manx_asn, setup.expects_manx) = (64512, 64512);
            setup.features.extend([Feature::NoCapabilities]);
        }
        Kind::GoBgp => setup.expects_manx = 65009,
    }
}

fn with_spec(spec: &str) -> Setup {
    Setup { spec: spec.to_owned(), ..Setup::default() }
}

pub(crate) fn rows() -> Vec<Row> {
    sessions()
        .into_iter()
        .chain(identity::rows())
        .chain(attributes())
        .chain(handed_on::rows())
        .chain(messages::rows())
        .chain(guards::rows())
        .chain(filters::rows())
        .chain(relations::rows())
        .chain(restarts::rows())
        .chain(bfd::rows())
        .chain(paths::rows())
        .chain(unnumbered::rows())
        .collect()
}

fn row(
    name: &'static str,
    setup: fn(Kind) -> Setup,
    spoil: fn(Kind, &mut Setup),
    check: fn(&mut Rig) -> Result<(), String>,
) -> Row {
    Row { name, lacks: Vec::new(), setup, spoil, check, patience: PATIENCE }
}

impl Row {
    /// Who cannot.
    fn lacking(mut self, kinds: &[Kind], evidence: fn() -> Evidence) -> Self {
        self.lacks.extend(kinds.iter().map(|&kind| Lack { kind, evidence: evidence() }));
        self
    }
}

fn sessions() -> Vec<Row> {
    let internal = |_: Kind| Setup { manx_asn: 65001, expects_manx: 65001, ..Setup::default() };
    let over_v6 = |_: Kind| Setup { remote: "fd09::1", ..Setup::default() };
    vec![
        row("session, eBGP over IPv4", plain, wrong_as, |rig| both_ways(rig, &[0])),
        row("session, iBGP", internal, wrong_as, |rig| both_ways(rig, &[0])),
        row("session over IPv6", over_v6, wrong_as, |rig| both_ways(rig, &[1])),
        row(
            "both families on one session",
            |kind| {
                // OpenBGPD 7.7 on Linux takes ::1 for its own address of the other family, unless its neighbour is far.
                let setup =
                    Setup::default().saying(kind, |says| &mut says.neighbor, ["", "", "", " multihop 2\n"]);
                let keep = "match to 10.9.0.2 inet6 set nexthop no-modify\n";
                setup.saying(kind, |says| &mut says.global, ["", "", "", keep])
            },
            |_, setup| setup.spec = "  families: [IPv4Unicast]\n".to_owned(),
            |rig| both_ways(rig, &[0, 1]),
        ),
        row(
            "passive",
            |_| with_spec("  passive: true\n"),
            |_, setup| setup.features.extend([Feature::Passive]),
            |rig| both_ways(rig, &[0]),
        ),
        row(
            "multihop",
            |_| Setup { remote: "10.99.0.1", ..with_spec("  maxHops: 2\n") }.with(&[Feature::Multihop]),
            |_, setup| setup.spec = String::new(),
            |rig| {
                rig.wait("the session is up at both ends", Rig::is_up)?;
                rig.wait("a route at the peer", |rig| !rig.peer().route(OWN[0]).is_empty())
            },
        ),
        row("both ends dial at once (collision)", plain, wrong_as, collision),
        row(
            "hold timer",
            |_| Setup { falls_silent: true, ..Setup::default() },
            |_, setup| setup.falls_silent = false,
            hold_timer,
        ),
    ]
}

fn attributes() -> Vec<Row> {
    vec![
        row(
            "four-octet AS",
            plain,
            |_, setup| (setup.manx_asn, setup.expects_manx) = (64512, 64512),
            |rig| {
                capability(rig, "FourOctetASN")?;
                told(rig, &["4200000001"])
            },
        ),
        row(
            "four-octet AS and an old speaker (AS4_PATH)",
            |kind| {
                let setup = Setup { manx_asn: 64512, expects_manx: 64512, ..with_spec("  transit: true\n") };
                setup.with_third(4_200_000_003, &[]).with(&[if kind == Kind::Frr {
                    Feature::NoCapabilities
                } else {
                    Feature::OldAs
                }])
            },
            |_, setup| setup.third.as_mut().unwrap().asn = 65003,
            |rig| {
                both_ways(rig, &[0])?;
                if capability(rig, "FourOctetASN").is_ok() {
                    return Err("the peer has four-octet AS numbers".to_owned());
                }
                // As AS_PATH has it, or AS4_PATH.
                rig.wait("the third's AS at the peer", |rig| {
                    let route = rig.peer().route(TO_MANX);
                    route.contains("23456") || route.contains("4200000003")
                })
            },
        )
        .lacking(&[GoBgp], || Evidence::Shows {
            what: "offers capability 65 to everybody, and has no switch for it",
            setup: |_| Setup::default().with_third(65003, &[]),
            check: |rig| {
                let offers = |rig: &Rig| rig.third().with_peer.capabilities().iter().any(|one| one.0 == 65);
                rig.wait("capability 65", offers)
            },
        }),
        row(
            "communities",
            |_| Setup { attributes: "{communities: [\"64512:100\"]}", ..Setup::default() },
            |_, setup| setup.attributes = "{med: 5}",
            |rig| {
                told(rig, &["64512:100", "(64512,100)"])?;
                heard(rig, "65001:77")
            },
        ),
        row(
            "large communities",
            |_| Setup { attributes: "{communities: [\"64512:1:2\"]}", ..Setup::default() },
            |_, setup| setup.attributes = "{med: 5}",
            |rig| {
                told(rig, &["64512:1:2", "(64512, 1, 2)"])?;
                heard(rig, "65001:7:7")
            },
        ),
    ]
}
