//! Routes as BGPFilters, drain and names of communities change them, in and out.

use super::checks::{both_ways, is_up, route_says};
use super::{Row, plain, row, with_spec};
use crate::setup::{MORE, OWN, Setup, THEIRS};

/// GRACEFUL_SHUTDOWN as each peer writes it.
const GSHUT: [&str; 5] = ["65535:0", "(65535,0)", "graceful-shutdown", "planned-shut", "GRACEFUL_SHUTDOWN"];

/// A setup whose BGPPeer has one BGPFilter.
fn with_filter(rules: &str) -> Setup {
    let text = format!(
        "apiVersion: manx.dev/v1alpha1\nkind: BGPFilter\nmetadata: {{name: tor}}\nspec: {{{rules}}}\n"
    );
    Setup { objects: vec![("bgpfilters.manx.dev/tor".to_owned(), text)], ..with_spec("  filters: [tor]\n") }
}

pub(super) fn rows() -> Vec<Row> {
    filters().into_iter().chain(words()).collect()
}

fn filters() -> Vec<Row> {
    vec![
        row(
            "BGPFilter, import",
            |_| {
                with_filter(
                    "import: [{name: not-this, match: {prefixes: [{cidr: 10.244.8.0/26}]}, action: Reject}, \
                     {match: {communities: ['65001:77']}, action: Accept, set: {localPreference: 300}}]",
                )
            },
            |_, setup| setup.spec = String::new(),
            |rig| {
                both_ways(rig, &[0])?;
                rig.wait("what a rule refuses is refused by its name", |rig| rig.rejects(MORE, "not-this"))?;
                rig.wait("what a rule takes is changed", |rig| {
                    rig.path(THEIRS[0])["localPreference"] == 300
                })?;
                if rig.has_learned(MORE) { Err(format!("{MORE} is in the kernel")) } else { Ok(()) }
            },
        ),
        row(
            "BGPFilter, export",
            |_| {
                with_filter(
                    "export: [{match: {prefixes: [{cidr: 'fd00:10:244::/64', maxLength: 128}]}, action: Reject}, \
                     {match: {sources: [Block]}, action: Accept, set: {addCommunities: ['64512:9'], prepend: [64513], \
                     med: 4712}}]",
                )
            },
            |_, setup| setup.spec = String::new(),
            |rig| {
                is_up(rig)?;
                route_says(rig, OWN[0], &[&["64512:9", "(64512,9)"], &["64513"], &["4712"]])?;
                match rig.peer().route(OWN[1]) {
                    route if route.is_empty() => Ok(()),
                    route => Err(format!("what a rule refuses is told: {route}")),
                }
            },
        ),
    ]
}

fn words() -> Vec<Row> {
    vec![
        row(
            "MED and prepended AS of a BGPAdvertisement",
            |_| Setup { attributes: "{med: 4711, prepend: 2}", ..Setup::default() },
            |_, setup| setup.attributes = "{}",
            |rig| {
                is_up(rig)?;
                let thrice = "4200000001 4200000001 4200000001";
                route_says(rig, OWN[0], &[&[thrice], &["4711"]])
            },
        ),
        row(
            "GSHUT told (RFC 8326)",
            plain,
            |_, setup| setup.spec = "  adminState: Up\n".to_owned(),
            |rig| {
                both_ways(rig, &[0])?;
                // The spoilt one stays as it is.
                if rig.setup.spec.is_empty() {
                    rig.put_node(", adminState: Drained");
                }
                route_says(rig, OWN[0], &[&GSHUT])?;
                if rig.session()["resets"] == 0 { Ok(()) } else { Err("the session was reset".to_owned()) }
            },
        ),
        row(
            "GSHUT heard (RFC 8326)",
            |kind| {
                Setup::default().saying(
                    kind,
                    |says| &mut says.export,
                    [
                        " set community 65001:77 graceful-shutdown\n",
                        "bgp_community.add((65535,0));",
                        "community 65001:77,65535:0 large-community 65001:7:7",
                        "community GRACEFUL_SHUTDOWN",
                    ],
                )
            },
            |_, setup| setup.says.export = "",
            |rig| {
                both_ways(rig, &[0])?;
                rig.wait("its routes are the last choice", |rig| rig.path(THEIRS[0])["localPreference"] == 0)
            },
        ),
    ]
}
