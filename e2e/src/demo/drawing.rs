//! The fabric as it stands at the end, drawn.

use super::fabric::Fabric;
use crate::topology::{CLIENT_V4, CLIENT_V6, NODES, Node, TORS};

/// One node's box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeBox {
    pub(crate) name: String,
    pub(crate) asn: u32,
    pub(crate) block: String,
    pub(crate) pods: String,
    /// Towards tor-a, tor-b; `None`: up. Else why not.
    pub(crate) legs: [Option<String>; 2],
}

/// All that the drawing shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// What the routers are, such as `FRR 8.4.4`.
    pub(crate) router: String,
    pub(crate) nodes: Vec<NodeBox>,
}

/// Looks at the fabric. What cannot be asked is down, and the reason says so.
#[must_use]
pub(crate) fn look(fabric: &Fabric, router: &str) -> Picture {
    let report = fabric.manxctl_json(&["bgp", "peers"]).ok();
    let blocks = fabric.blocks().unwrap_or_default();
    let nodes = NODES
        .into_iter()
        .map(|node| NodeBox {
            name: node.name.to_owned(),
            asn: node.asn,
            block: main_block(fabric, node, &blocks),
            pods: fabric
                .pods_of(node)
                .iter()
                .map(|pod| pod.sandbox.name.as_str())
                .collect::<Vec<_>>()
                .join(" "),
            legs: TORS.map(|tor| {
                let up = fabric.routers.as_ref().and_then(|routers| {
                    let sessions = routers.tor(tor.name).ok()?.sessions().ok()?;
                    Some(sessions.get(&node.link_v4(tor).to_string())?.families == 2)
                });
                (up != Some(true)).then(|| reason(report.as_ref(), node.name, tor.name))
            }),
        })
        .collect();
    Picture { router: router.to_owned(), nodes }
}

/// The IPv4 block that the node's first pod lives in; else its first.
fn main_block(fabric: &Fabric, node: Node, blocks: &[(Node, String)]) -> String {
    let own = |cidr: &String| {
        fabric.pods_of(node).iter().any(|pod| {
            let (network, length) = cidr.split_once('/').unwrap_or((cidr, "32"));
            let shift = 32 - length.parse::<u32>().unwrap_or(32).min(32);
            let start = network.parse::<std::net::Ipv4Addr>().map(u32::from).unwrap_or_default();
            (u64::from(u32::from(pod.addresses.v4)) >> shift) == (u64::from(start) >> shift)
        })
    };
    let v4: Vec<&String> = blocks
        .iter()
        .filter(|(owner, cidr)| *owner == node && !cidr.contains(':'))
        .map(|(_, cidr)| cidr)
        .collect();
    let found = v4.iter().find(|cidr| own(cidr)).or(v4.first());
    found.map_or_else(|| "no block".to_owned(), |cidr| (*cidr).clone())
}

fn reason(report: Option<&serde_json::Value>, node: &str, peer: &str) -> String {
    let sessions = report.and_then(|report| report.get("sessions")).and_then(serde_json::Value::as_array);
    let text = |session: &serde_json::Value, key: &str| {
        session.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let found = sessions.and_then(|list| {
        list.iter().find(|session| text(session, "node") == node && text(session, "peer") == peer)
    });
    found.map_or_else(|| "no answer".to_owned(), |session| text(session, "reason"))
}

impl Picture {
    fn up(&self, tor: usize) -> usize {
        self.nodes.iter().filter(|node| node.legs.get(tor).is_some_and(Option::is_none)).count()
    }

    /// The drawing of ux.md §2, and a line for each leg that is down.
    #[must_use]
    pub(crate) fn draw(&self) -> String {
        let [a, b] = TORS;
        let all = self.nodes.len();
        let mut lines = vec![
            format!("                    client  {CLIENT_V4}  {CLIENT_V6}"),
            "                          │                  │".to_owned(),
            format!(
                "  tor-a  ──────────┬──────┴───────────┬──────│───────────┬───────   AS {}  {}  {} of {all} up",
                a.asn,
                self.router,
                self.up(0)
            ),
            "                   │                  │      │           │".to_owned(),
            format!(
                "  tor-b  ───────┬──│───────────────┬──│──────┴────────┬──│───────   AS {}  {}  {} of {all} up",
                b.asn,
                self.router,
                self.up(1)
            ),
        ];
        let mut legs = String::from("              ");
        for node in &self.nodes {
            let word = |leg: usize| {
                let up = node.legs.get(leg).is_some_and(Option::is_none);
                if up { "up" } else { " x" }
            };
            legs.push_str(&format!("  {} {}            ", word(1), word(0)));
        }
        let both = self.up(0) + self.up(1);
        lines.push(format!("{:<68}{both} of {} sessions, v4 and v6 each", legs.trim_end(), all * TORS.len()));
        lines.push(self.row("┌──┴──┴──────────┐", |_| None));
        lines.push(self.row("", |node| Some(format!(" {}  {}", node.name, node.asn))));
        lines.push(self.row("", |node| Some(format!(" {}", node.block))));
        lines.push(self.row("", |node| Some(format!(" {}", node.pods))));
        lines.push(self.row("└────────────────┘", |_| None));
        for node in &self.nodes {
            for (tor, leg) in TORS.iter().zip(&node.legs) {
                if let Some(reason) = leg {
                    lines.push(format!("  x  {} with {}: {reason}", node.name, tor.name));
                }
            }
        }
        lines.join("\n")
    }

    fn row(&self, border: &str, text: impl Fn(&NodeBox) -> Option<String>) -> String {
        let boxes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| text(node).map_or_else(|| border.to_owned(), |text| format!("│{text:<16}│")))
            .collect();
        format!("             {}", boxes.join(" "))
    }
}

/// The drawing with `+ - |`, for a terminal that shows no UTF-8.
#[must_use]
pub(crate) fn plain(drawing: &str) -> String {
    drawing
        .chars()
        .map(|sign| match sign {
            '─' => '-',
            '│' => '|',
            '┬' | '┴' | '┌' | '┐' | '└' | '┘' => '+',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let node = |number: u32, block: &str, pods: &str| NodeBox {
            name: format!("n{number}"),
            asn: 4_200_000_000 + number,
            block: block.to_owned(),
            pods: pods.to_owned(),
            legs: [None, None],
        };
        Picture {
            router: "FRR 8.4.4".to_owned(),
            nodes: vec![
                node(1, "10.244.0.0/26", "web-1 api-1"),
                node(2, "10.244.0.64/26", "web-2 job-1"),
                node(3, "10.244.0.128/26", "db-1 job-2"),
            ],
        }
    }

    /// The mock of the specification, to the letter.
    const MOCK: &str = "                    client  198.51.100.10  fd00:c::10
                          │                  │
  tor-a  ──────────┬──────┴───────────┬──────│───────────┬───────   AS 65001  FRR 8.4.4  3 of 3 up
                   │                  │      │           │
  tor-b  ───────┬──│───────────────┬──│──────┴────────┬──│───────   AS 65002  FRR 8.4.4  3 of 3 up
                up up              up up              up up         6 of 6 sessions, v4 and v6 each
             ┌──┴──┴──────────┐ ┌──┴──┴──────────┐ ┌──┴──┴──────────┐
             │ n1  4200000001 │ │ n2  4200000002 │ │ n3  4200000003 │
             │ 10.244.0.0/26  │ │ 10.244.0.64/26 │ │ 10.244.0.128/26│
             │ web-1 api-1    │ │ web-2 job-1    │ │ db-1 job-2     │
             └────────────────┘ └────────────────┘ └────────────────┘";

    #[test]
    fn the_drawing_is_the_mock() {
        let drawn = picture().draw();
        assert_eq!(drawn, MOCK, "\n{drawn}\n{MOCK}");
    }

    #[test]
    fn a_leg_that_is_down_shows_its_reason() {
        let mut picture = picture();
        picture.nodes[0].legs[1] = Some("HoldTimerExpired".to_owned());
        let drawn = picture.draw();
        assert!(drawn.contains("5 of 6 sessions"), "{drawn}");
        assert!(drawn.contains("                 x up              up up"), "{drawn}");
        assert!(drawn.ends_with("  x  n1 with tor-b: HoldTimerExpired"), "{drawn}");
        assert!(!plain(&drawn).contains('─'));
    }
}
