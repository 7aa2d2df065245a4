//! Several paths per prefix (RFC 7911), each way.

use std::collections::BTreeSet;

use super::checks::is_up;
use super::{Row, row, with_spec};
use crate::setup::{Kind, Setup};
use crate::third::{TO_MANX, TO_PEER};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "add-path, receive (RFC 7911)",
            receiving,
            |_, setup| setup.spec = "  session: {addPath: {receive: false}}\n".to_owned(),
            |rig| {
                is_up(rig)?;
                rig.wait(
                    "both paths at bgpd, each with its identifier, and the prefix in the kernel",
                    |rig| {
                        let answer = rig.ask(&format!("{{\"verb\": \"routes\", \"prefix\": \"{TO_PEER}\"}}"));
                        let rows = answer["routes"].as_array().cloned().unwrap_or_default();
                        let ids: BTreeSet<u64> =
                            rows.iter().filter_map(|row| row["pathId"].as_u64()).collect();
                        let from_third =
                            |row: &serde_json::Value| row["asPath"].to_string().contains("65004");
                        ids.len() == 2
                            && rows.iter().filter(|row| from_third(row)).count() == 1
                            && rig.has_learned(TO_PEER)
                    },
                )
            },
        ),
        row(
            "add-path, send (RFC 7911)",
            sending,
            |_, setup| setup.spec = "  transit: true\n".to_owned(),
            |rig| {
                is_up(rig)?;
                // Our own is the better one: the third's comes beside it or not at all.
                rig.wait("the third's path at the peer beside the node's own", |rig| {
                    let route = rig.peer().route(TO_MANX);
                    route.contains("65003") && route.matches("4200000001").count() >= 2
                })
            },
        ),
    ]
}

/// The peer has two paths to a prefix, its own and the third speaker's, and tells all that it has.
fn receiving(kind: Kind) -> Setup {
    let setup = Setup { more: TO_PEER, ..with_spec("  session: {addPath: {receive: true}}\n") };
    several(setup.with_third(65003, &[]), kind)
}

/// bgpd has two, too, of which its own is the best.
fn sending(kind: Kind) -> Setup {
    let own = format!(
        "apiVersion: manx.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {{name: own}}\nspec: {{prefixes: [{{cidr: {TO_MANX}}}]}}\n"
    );
    let setup = Setup {
        objects: vec![("bgpadvertisements.manx.dev/own".to_owned(), own)],
        ..with_spec("  transit: true\n  session: {addPath: {send: 4}}\n")
    };
    several(setup.with_third(65003, &[]), kind)
}

/// The peer tells and takes several paths.
fn several(setup: Setup, kind: Kind) -> Setup {
    let add_paths = "  [neighbors.add-paths.config]\n    receive = true\n    send-max = 4\n";
    let open_bgpd = " announce add-path recv yes\n announce add-path send all\n";
    let frr = "  neighbor 10.9.0.2 addpath-tx-all-paths\n";
    setup.saying(kind, |says| &mut says.neighbor, ["", "", add_paths, open_bgpd]).saying(
        kind,
        |says| &mut says.family,
        [frr, "add paths on;", "", ""],
    )
}
