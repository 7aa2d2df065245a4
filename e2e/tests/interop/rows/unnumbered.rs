//! A link without an address: bgpd knows its interface, IPv4 goes by IPv6 next hops.

use serde_json::json;

use super::checks::{both_ways, capability};
use super::{Row, row};
use crate::lacks::Evidence;
use crate::rig::Rig;
use crate::setup::Kind::{Bird, Frr, GoBgp, OpenBgpd};
use crate::setup::{FROM, Feature, LINK_LOCAL, Setup, THEIRS, TO};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "unnumbered",
            |_| on_the_interface(),
            // bgpd finds it all the same, and refuses its AS.
            |_, setup| setup.expects = 65010,
            |rig| carries(rig, 1),
        ),
        row(
            "extended next hop (RFC 8950)",
            |_| on_the_interface().with(&[Feature::ExtendedNextHop]),
            |kind, setup| match kind {
                Bird => {
                    setup.features.remove(&Feature::ExtendedNextHop);
                }
                // They offer it to whoever is on an interface, and cannot be told not to: bgpd is.
                Frr | GoBgp | OpenBgpd => setup.spec = "  families: [IPv6Unicast]\n".to_owned(),
            },
            |rig| {
                carries(rig, 0)?;
                capability(rig, "ExtendedNextHop")
            },
        )
        .lacking(&[OpenBgpd], || Evidence::Shows {
            what: "carries IPv6 on such a session, offers no capability 5, and tells IPv4 prefixes without it",
            setup: |_| on_the_interface(),
            check: without_the_capability,
        }),
    ]
}

fn on_the_interface() -> Setup {
    Setup { place: Some("interface: eth0"), ..Setup::default() }.with(&[Feature::Unnumbered])
}

/// Routes of a family both ways, in the kernel by way of the other end's link-local address, and packets that go there and back.
fn carries(rig: &mut Rig, family: usize) -> Result<(), String> {
    both_ways(rig, &[family])?;
    let route = rig.learned(THEIRS[family]);
    let via = match family {
        0 => json!({"via": {"family": "inet6", "host": LINK_LOCAL[1]}, "dev": "eth0"}),
        _ => json!({"gateway": LINK_LOCAL[1], "dev": "eth0"}),
    };
    if via.as_object().into_iter().flatten().any(|(key, value)| route[key] != *value) {
        return Err(format!("not {via}: {route}"));
    }
    let (from, to) = (FROM[family], TO[family]);
    rig.wait(&format!("{to} answers {from}"), |rig| rig.pings(from, to))
}

fn without_the_capability(rig: &mut Rig) -> Result<(), String> {
    carries(rig, 1)?;
    if capability(rig, "ExtendedNextHop").is_ok() {
        return Err(format!("it offers it: {}", rig.session()["capabilities"]));
    }
    rig.wait("bgpd says what is wrong with the IPv4 prefixes", |rig| {
        rig.said().contains("IPv4 prefixes, which were not negotiated")
    })
}
