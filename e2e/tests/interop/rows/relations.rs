//! What bgpd and the peer are to each other: AS of another name, ranges, reflectors, roles.

use super::checks::{both_ways, is_up, peer_says};
use super::{Row, row, with_spec};
use crate::lacks::Evidence;
use crate::rig::Rig;
use crate::setup::Kind::{self, GoBgp};
use crate::setup::{OWN, Setup, THEIRS};
use crate::third::{TO_MANX, TO_PEER};

/// ONLY_TO_CUSTOMER, set by AS 65003.
const OTC: [u8; 7] = [0xc0, 35, 4, 0, 0, 0xfd, 0xeb];

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        row(
            "localASN (RFC 7705)",
            |_| Setup { expects_manx: 64999, ..with_spec("  localASN: 64999\n") },
            |_, setup| (setup.spec, setup.expects_manx) = (String::new(), 4_200_000_001),
            |rig| {
                both_ways(rig, &[0])?;
                let route = rig.peer().route(OWN[0]);
                match route.contains("64999") && !route.contains("4200000001") {
                    true => Ok(()),
                    false => Err(format!("at the peer: {route}")),
                }
            },
        ),
        row(
            "listenRange",
            |_| Setup { place: Some("listenRange: 10.9.0.0/24"), ..Setup::default() },
            |_, setup| setup.place = Some("listenRange: 10.66.0.0/24"),
            |rig| both_ways(rig, &[0]),
        ),
    ];
    rows.extend(reflectors());
    rows.extend(roles());
    rows
}

fn internal() -> Setup {
    Setup { manx_asn: 65001, expects_manx: 65001, ..Setup::default() }.with_third(65001, &[])
}

const CLIENT: &str = "  reflectorClient: true\n";
/// The third is on a link of its own: from there the session runs.
const THIRD_CLIENT: &str = "  reflectorClient: true\n  maxHops: 1\n";

fn reflectors() -> Vec<Row> {
    vec![
        row(
            "bgpd reflects, the peer is its client (RFC 4456)",
            |_| Setup { spec: CLIENT.to_owned(), third_spec: THIRD_CLIENT, ..internal() },
            |_, setup| (setup.spec, setup.third_spec) = (String::new(), "  maxHops: 1\n"),
            |rig| {
                is_up(rig)?;
                rig.wait("the third's route at the peer, its router id as originator", |rig| {
                    let route = rig.peer().route(TO_MANX);
                    route.contains("10.9.0.3") && route.contains("10.9.0.2")
                })?;
                rig.wait(
                    "the peer's route at the third speaker, with ORIGINATOR_ID and CLUSTER_LIST",
                    |rig| {
                        let path = rig.third().with_manx.path(THEIRS[0]).unwrap_or_default();
                        let has = |kind, value: [u8; 4]| {
                            path.iter().any(|one| one.kind == kind && one.value == value)
                        };
                        has(9, [10, 9, 0, 1]) && has(10, [10, 9, 0, 2])
                    },
                )
            },
        ),
        row(
            "the peer reflects, bgpd is its client (RFC 4456)",
            |kind| {
                let setup = internal();
                match kind {
                    Kind::Frr => {
                        let line = "  neighbor 10.9.0.2 route-reflector-client\n";
                        setup.saying(kind, |says| &mut says.family, [line, "", "", ""])
                    }
                    Kind::Bird | Kind::GoBgp | Kind::OpenBgpd => setup.saying(
                        kind,
                        |says| &mut says.neighbor,
                        [
                            "",
                            "rr client; rr cluster id 10.9.0.1;",
                            "  [neighbors.route-reflector.config]\n    route-reflector-client = true\n    \
                             route-reflector-cluster-id = \"10.9.0.1\"\n",
                            " route-reflector 10.9.0.1\n",
                        ],
                    ),
                }
            },
            |_, setup| (setup.says.family, setup.says.neighbor) = ("", ""),
            |rig| {
                is_up(rig)?;
                rig.wait("the third's route in the kernel", |rig| rig.has_learned(TO_PEER))?;
                rig.wait("our own at the third speaker", |rig| rig.third().with_peer.path(OWN[0]).is_some())
            },
        ),
    ]
}

/// The peer's own role, as a line of its session.
const CUSTOMER: [&str; 4] =
    [" neighbor 10.9.0.2 local-role customer\n", "local role customer;", "", " announce policy customer\n"];

fn as_customer(kind: Kind, spec: &str) -> Setup {
    with_spec(spec).saying(kind, |says| &mut says.neighbor, CUSTOMER)
}

fn roles() -> Vec<Row> {
    let no_roles = || Evidence::Withholds(9);
    vec![
        row(
            "roles: OTC towards a customer (RFC 9234)",
            |kind| as_customer(kind, "  role: Provider\n"),
            |_, setup| (setup.spec, setup.says.neighbor) = (String::new(), ""),
            |rig| {
                both_ways(rig, &[0])?;
                let shows = |route: String| {
                    let route = route.to_lowercase();
                    // What follows the word, whatever stands between.
                    let found = route.find("otc").and_then(|at| route.get(at..)).unwrap_or_default();
                    found.chars().take(40).collect::<String>().contains("4200000001")
                };
                rig.wait("OTC with our AS at the peer", |rig| shows(rig.peer().route(OWN[0])))
                    .map_err(|error| format!("{error}, but {}", rig.peer().route(OWN[0]).replace('\n', " ")))
            },
        )
        .lacking(&[GoBgp], no_roles),
        row(
            "roles: a mismatch is refused (OPEN error 11)",
            |kind| as_customer(kind, "  role: Customer\n"),
            |_, setup| setup.spec = "  role: Provider\n".to_owned(),
            |rig| {
                rig.wait("bgpd says what does not fit", |rig| rig.said().contains("RoleMismatch"))?;
                peer_says(rig, &["Role Mismatch", "Role mismatch", "role mismatch"])?;
                if rig.is_up() { Err("the session is up".to_owned()) } else { Ok(()) }
            },
        )
        .lacking(&[GoBgp], no_roles),
        row(
            "roles: who has none is refused where roleStrict asks",
            |_| with_spec("  role: Provider\n  roleStrict: true\n"),
            |_, setup| setup.spec = "  role: Provider\n".to_owned(),
            |rig| {
                rig.wait("bgpd says what is missing", |rig| rig.said().contains("RoleMismatch"))?;
                if rig.is_up() { Err("the session is up".to_owned()) } else { Ok(()) }
            },
        ),
        row(
            "roles: a leak through the peer is refused (RFC 9234)",
            |_| with_spec("  role: Provider\n").with_third(65003, &OTC),
            |_, setup| setup.spec = String::new(),
            leak,
        ),
    ]
}

/// The peer has no role and hands on what only customers may have.
fn leak(rig: &mut Rig) -> Result<(), String> {
    both_ways(rig, &[0])?;
    rig.wait("the third's route at the peer", |rig| !rig.peer().route(TO_PEER).is_empty())?;
    rig.wait("bgpd refuses it and says why", |rig| rig.rejects(TO_PEER, "route leak"))?;
    if rig.has_learned(TO_PEER) { Err("it is in the kernel".to_owned()) } else { Ok(()) }
}
