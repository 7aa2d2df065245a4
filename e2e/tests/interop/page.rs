//! docs/interop.md, and the outcomes between two runs of different parts.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::columns::Column;
use crate::rows::Row;

/// A cell; never empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Pass,
    /// The peer cannot, and how that is known.
    Lacks(String),
    Fail(String),
    /// bgpd cannot yet, and says so.
    NotYet(String),
}

impl Outcome {
    /// Of what a check said.
    pub(crate) fn of(text: &str) -> Self {
        let first = text.lines().next().unwrap_or_default().to_owned();
        if text.starts_with("not in bgpd yet") { Self::NotYet(first) } else { Self::Fail(first) }
    }

    /// Whether it is an error of this run, and not one that is known of bgpd.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, Self::Fail(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => write!(f, "pass"),
            Self::Lacks(_) => write!(f, "peer lacks it"),
            Self::Fail(text) | Self::NotYet(text) => write!(f, "fail: {text}"),
        }
    }
}

/// Capabilities without a column: both ends are ours, or the other end is no BGP speaker.
const ELSEWHERE: &str = "\n## What is shown elsewhere\n\n\
Tests of `e2e`, with real daemons too, unless another package is named:\n\n\
- full mesh and its off switch, reflectors between our nodes: `full_mesh`; elected reflectors: `manx_cluster`\n\
- `peerNodeSelector`: `peering`, `both_ends_are_made_and_one_reports`\n\
- an identity on lo between two ToRs: `peering`, `two_tors_and_an_identity_on_lo`; two uplinks without an address: \
`both_families_over_two_uplinks_without_an_address`\n\
- a TCP-MD5 key that rolls over without a reset: `peering`, `a_key_rolls_over_on_both_sides_without_a_reset`\n\
- BFD intervals, hot profiles, with graceful restart: `bfd`\n\
- BMP and captured messages, read by Wireshark: `peering`, `wireshark_reads_what_a_station_is_told`, \
`wireshark_reads_a_capture_of_a_signed_session`\n\
- `manxctl bgp`, node drain: `operate`\n\
- malformed messages, which none of these peers sends: `bgp-proto`, `malformed`; [rfc.md](rfc.md)\n\
- kernel routes: `felix-kernel`, `namespaces`\n";

/// All outcomes by row and peer.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Cells(BTreeMap<String, BTreeMap<String, Outcome>>);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn kept() -> PathBuf {
    root().join("target/interop.json")
}

impl Cells {
    pub(crate) fn load() -> Self {
        fs::read_to_string(kept()).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    pub(crate) fn set(&mut self, row: &str, peer: &str, outcome: Outcome) {
        self.0.entry(row.to_owned()).or_default().insert(peer.to_owned(), outcome);
    }

    /// Writes the page, and what the next run of another part adds to.
    pub(crate) fn write(&self, rows: &[Row], columns: &[Column]) {
        fs::write(kept(), serde_json::to_string_pretty(self).unwrap()).unwrap();
        fs::create_dir_all(root().join("docs")).unwrap();
        fs::write(root().join("docs/interop.md"), self.page(rows, columns)).unwrap();
    }

    fn page(&self, rows: &[Row], columns: &[Column]) -> String {
        let named = |newer: bool| {
            let of = columns.iter().filter(|column| column.root.is_some() == newer);
            of.map(Column::name).collect::<Vec<_>>().join(", ")
        };
        let heads: String = columns.iter().map(|column| format!(" {} |", column.name())).collect();
        let mut page = format!(
            "# bgpd and its peers\n\nWritten by `make interop`. Each check ran twice: as it should pass, and spoilt (another AS, \
             key, setting), where the same check had to fail; what a peer lacks is looked for in the same run.\n\nManx {}. Of \
             Debian {}: {}. Of Debian 13: {}.\n\n| |{heads}\n|---|{}\n",
            env!("CARGO_PKG_VERSION"),
            debian(),
            named(false),
            named(true),
            "---|".repeat(columns.len())
        );
        let mut notes = Vec::new();
        for row in rows {
            page += &format!("| {} |", row.name);
            for name in columns.iter().map(Column::name) {
                let outcome = self.0.get(row.name).and_then(|peers| peers.get(&name));
                let text = outcome.map_or("fail: not run".to_owned(), ToString::to_string);
                page += &format!(" {} |", text.replace('|', "\\|"));
                if let Some(Outcome::Lacks(source)) = outcome {
                    notes.push(format!("- {name}, {}: {source}", row.name));
                }
            }
            page.push('\n');
        }
        page += &format!("\n## What a peer lacks, and how that is known\n\n{}\n", notes.join("\n"));
        page += ELSEWHERE;
        page
    }
}

/// The release of this machine, such as `12`.
fn debian() -> String {
    let text = fs::read_to_string("/etc/debian_version").unwrap_or_default();
    text.split('.').next().unwrap_or_default().trim().to_owned()
}
