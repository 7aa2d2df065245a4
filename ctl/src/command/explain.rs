//! `manxctl bgp explain`: one prefix, from where it comes to what the kernels do with it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ipnet::IpNet;
use jiff::Timestamp;
use kube::ResourceExt as _;
use manx_crds::report::{
    BGPExplainReport, BgpdExplanation, BgpdRequest, KernelRow, NotSentRow, ReceivedRow, RouteVerdict, SentRow,
};
use manx_crds::v1alpha1::{FabricNode, IPBlock, IPPool};

use crate::Global;
use crate::error::Failure;
use crate::fabric::{Daemon, Fabric, answered, missing_line};
use crate::words::{age, names};

#[cfg(test)]
mod tests;

/// The first two columns at their narrowest, and where the word about the kernel ends.
const NODE: usize = 17;
const WHAT: usize = 14;
const WIDTH: usize = 99;

pub(crate) async fn run(fabric: &Fabric, global: &Global, asked: &str) -> Result<bool, Failure> {
    let is_prefix = asked.parse::<IpNet>().is_ok() || asked.parse::<std::net::IpAddr>().is_ok();
    if !is_prefix {
        return Err(Failure::new(
            &format!("{asked:?} is no prefix"),
            "command line, word 3",
            "a prefix such as 10.244.17.0/26, or an address",
            "manxctl bgp explain 10.244.17.0/26",
        ));
    }
    let mut header = fabric.header("BGPExplainReport");
    let request = BgpdRequest::Explain { prefix: asked.to_owned() };
    let answers = fabric.ask_all::<BgpdExplanation>(Daemon::Bgpd, &serde_json::to_value(request)?).await;
    let nodes: Vec<BgpdExplanation> =
        answered(answers, &mut header).into_iter().map(|(_, answer)| answer).collect();
    let prefix = common_prefix(&nodes, asked);
    let (owner, owner_node) = owner(fabric, &prefix).await?;
    let report = BGPExplainReport { header, prefix, owner, owner_node, nodes };
    if global.printed(&report)? {
        return Ok(report.header.complete);
    }
    print!("{}", text(&report, Timestamp::now()));
    if let Some(line) = missing_line(&report.header, fabric.nodes.len()) {
        println!("{line}");
    }
    Ok(report.header.complete)
}

/// What an address stands for: the longest prefix that some node found for it.
fn common_prefix(nodes: &[BgpdExplanation], asked: &str) -> String {
    let found = nodes.iter().filter_map(|node| node.prefix.parse::<IpNet>().ok());
    let known = |node: &IpNet| nodes.iter().any(|one| one.prefix == node.to_string() && is_known(one));
    let longest = found.filter(known).max_by_key(IpNet::prefix_len);
    let asked = asked.parse::<IpNet>().map_or_else(|_| asked.to_owned(), |prefix| prefix.trunc().to_string());
    longest.map_or(asked, |prefix| prefix.to_string())
}

fn is_known(node: &BgpdExplanation) -> bool {
    node.originated.is_some() || !node.received.is_empty()
}

/// Whose prefix it is, as the objects say, and which node they name.
async fn owner(fabric: &Fabric, prefix: &str) -> Result<(String, Option<String>), Failure> {
    let Ok(prefix) = prefix
        .parse::<IpNet>()
        .or_else(|_| prefix.parse().map(|address: std::net::IpAddr| IpNet::from(address)))
    else {
        return Ok((String::new(), None));
    };
    let now = Timestamp::now();
    for block in fabric.list::<IPBlock>().await? {
        let cidr = block.spec.cidr.net();
        if !cidr.contains(&prefix) {
            continue;
        }
        let inside = if cidr == prefix { "IPBlock".to_owned() } else { format!("inside IPBlock {cidr}") };
        let claimed = match &block.spec.node_name {
            Some(node) => {
                format!("claimed by {node} {} ago", age(block.creation_timestamp().as_ref(), now))
            }
            None => "claimed by no node".to_owned(),
        };
        return Ok((format!("{inside} of {}, {claimed}", block.spec.pool), block.spec.node_name.clone()));
    }
    for node in fabric.list::<FabricNode>().await? {
        let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
        let has = addresses.is_some_and(|held| {
            let v4 = held.ipv4.as_ref().map(ToString::to_string);
            let v6 = held.ipv6.as_ref().map(ToString::to_string);
            v4.into_iter().chain(v6).any(|held| held == prefix.addr().to_string())
        });
        if has && prefix.prefix_len() == prefix.max_prefix_len() {
            return Ok((format!("address of node {}", node.name_any()), Some(node.name_any())));
        }
    }
    let pools = fabric.list::<IPPool>().await?;
    Ok((
        match pools.iter().find(|pool| pool.spec.cidr.net().contains(&prefix)) {
            Some(pool) if pool.spec.cidr.net() == prefix => format!("IPPool {}", pool.name_any()),
            Some(pool) => format!("inside IPPool {}, in no node's IPBlock", pool.name_any()),
            None => "in no IPPool of this fabric".to_owned(),
        },
        None,
    ))
}

/// What is printed, line by line.
struct Page {
    text: String,
    /// The width of the first column: every name in it fits.
    margin: usize,
    now: Timestamp,
}

fn text(report: &BGPExplainReport, now: Timestamp) -> String {
    let alone = report.nodes.len() == 1;
    let (detailed, others): (Vec<_>, Vec<_>) =
        report.nodes.iter().partition(|node| alone || node.originated.is_some());
    let names = detailed.iter().flat_map(|node| {
        let peers = node.received.iter().map(|row| &row.from).chain(node.silent.iter().map(|row| &row.peer));
        peers.map(|peer| peer.chars().count() + 4).chain([node.node.chars().count()])
    });
    let margin = names.max().map_or(NODE, |widest| NODE.max(widest + 3));
    let mut page = Page { text: format!("{}   {}\n", report.prefix, report.owner), margin, now };
    detailed.iter().for_each(|node| page.node(node));
    if !others.is_empty() {
        let what = if detailed.is_empty() { "nodes" } else { "other nodes" };
        page.line(&format!("{} {what}", others.len()), "kernel", &summary(&others));
        if detailed.is_empty() && others.iter().any(|node| is_known(node)) {
            page.line("", "more", &format!("manxctl bgp explain {} --node NODE", report.prefix));
        }
    }
    page.text
}

impl Page {
    fn line(&mut self, node: &str, what: &str, rest: &str) {
        let margin = self.margin;
        let line = format!("{node:<margin$}{what:<WHAT$}{rest}");
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn node(&mut self, node: &BgpdExplanation) {
        let mut name = node.node.as_str();
        if let Some(own) = &node.originated {
            let by = match (own.block, own.advertisements.as_slice()) {
                (true, []) => ", to other nodes".to_owned(),
                (_, []) => String::new(),
                (_, [one]) => format!(", by BGPAdvertisement {one}"),
                (_, several) => format!(", by BGPAdvertisements {}", several.join(" ")),
            };
            let best = node.best.as_ref().map(|best| format!("; best: {}", best.text)).unwrap_or_default();
            self.line(name, "originated", &format!("as {}{by}{best}", own.sources.join(", ")));
            name = "";
        }
        let learned = node.originated.is_none();
        if learned || !node.received.is_empty() {
            self.received(name, node);
        }
        if learned && let Some(best) = &node.best {
            self.line("", "best", &best.text);
        }
        self.exports(node);
        self.kernel(&node.kernel);
    }

    fn received(&mut self, name: &str, node: &BgpdExplanation) {
        let (of, margin) = (peers(node), self.margin);
        let from = match node.received.len() {
            0 => format!("received from none of {of} peers"),
            some => format!("received from {some} of {of} peers"),
        };
        let _ = writeln!(self.text, "{name:<margin$}{from}");
        for row in &node.received {
            let mark = if row.best { "  * " } else { "    " };
            let verdict = match row.verdict {
                RouteVerdict::Originated => "originated",
                RouteVerdict::Accepted => "accepted",
                RouteVerdict::Rejected => "rejected",
            };
            self.line(&format!("{mark}{}", row.from), verdict, &path(row));
        }
        for row in &node.silent {
            let since = match row.lost.as_ref() {
                Some(lost) => format!("gone {} ago", age(Some(lost), self.now)),
                None => "never up".to_owned(),
            };
            let rest = format!("session {}: {}", row.state, row.reason);
            self.line(&format!("    {}", row.peer), &format!("{since}  "), &rest);
        }
    }

    fn exports(&mut self, node: &BgpdExplanation) {
        if node.sent_to.is_empty() {
            let nobody = nobody(node);
            self.line("", "sent to", &nobody.text);
            if nobody.is_all {
                return;
            }
        }
        let widest = node.sent_to.iter().map(|row| row.peer.chars().count()).max().unwrap_or(0);
        for (index, row) in node.sent_to.iter().enumerate() {
            let what = if index == 0 { "sent to" } else { "" };
            self.line("", what, &format!("{:<widest$}   {}", row.peer, sent(row)));
        }
        let widest = node.not_sent_to.iter().map(|row| row.peer.chars().count()).max().unwrap_or(0);
        for (index, NotSentRow { peer, why, .. }) in node.not_sent_to.iter().enumerate() {
            let what = if index == 0 { "not sent to" } else { "" };
            self.line("", what, &format!("{peer:<widest$}   {why}"));
        }
    }

    fn kernel(&mut self, row: &KernelRow) {
        let route = row.route.as_deref().unwrap_or("no route of ours");
        let before = self.margin + WHAT + route.chars().count() + 3;
        let room = WIDTH.saturating_sub(before).max(row.state.chars().count());
        let state = if row.route.is_none() && row.state == "none" { "" } else { &row.state };
        self.line("", "kernel", &format!("{route}   {state:>room$}"));
    }
}

/// Sessions that are up, and those that are not.
fn peers(node: &BgpdExplanation) -> u64 {
    node.peers + u64::try_from(node.silent.len()).unwrap_or(u64::MAX)
}

/// `65013 4200000012 via 10.0.13.3: inside pool default-ipv4`
fn path(row: &ReceivedRow) -> String {
    let via = row.next_hop.as_ref().map(|next_hop| format!("via {next_hop}"));
    let path = Some(row.as_path.clone()).filter(|path| !path.is_empty());
    let route: Vec<String> = path.into_iter().chain(via).collect();
    let stale = if row.stale { " (stale)" } else { "" };
    format!("{}{stale}: {}", route.join(" "), row.why)
}

/// Why nobody is told.
struct Nobody {
    text: String,
    /// That says it for every peer.
    is_all: bool,
}

fn nobody(node: &BgpdExplanation) -> Nobody {
    let of = peers(node);
    // Whose path it is needs no other reason, and neither does a session that is down.
    let mut whys: Vec<&str> = node
        .not_sent_to
        .iter()
        .filter(|row| !matches!(row.reason.as_str(), "OwnPath" | "SessionDown"))
        .map(|row| row.why.as_str())
        .collect();
    whys.sort_unstable();
    whys.dedup();
    match whys.as_slice() {
        _ if of == 0 => Nobody { text: "nobody: there is no peer".to_owned(), is_all: true },
        [one] => Nobody { text: format!("nobody: {one} on all {of} peers"), is_all: true },
        _ => Nobody { text: "nobody".to_owned(), is_all: false },
    }
}

fn sent(row: &SentRow) -> String {
    let next_hop = row.next_hop.as_ref().map(|next_hop| format!("next hop {next_hop}"));
    let path = match row.as_path.as_str() {
        "" => "AS path empty".to_owned(),
        path => format!("AS path {path}"),
    };
    let communities = (!row.communities.is_empty()).then(|| row.communities.join(" "));
    let rule = row.rule.as_ref().map(|rule| format!("by {rule}"));
    next_hop.into_iter().chain([path]).chain(communities).chain(rule).collect::<Vec<_>>().join(", ")
}

/// `44 via 2 next hops; worker-14 worker-31 via 1`
fn summary(nodes: &[&BgpdExplanation]) -> String {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in nodes {
        let what = match (&node.kernel.route, node.kernel.state.as_str()) {
            (None, _) => "no route".to_owned(),
            (Some(_), "ok") if node.kernel.next_hops == 1 => "via 1 next hop".to_owned(),
            (Some(_), "ok") if node.kernel.next_hops > 1 => {
                format!("via {} next hops", node.kernel.next_hops)
            }
            (Some(_), "ok") => "blackhole".to_owned(),
            (Some(_), state) => state.to_owned(),
        };
        groups.entry(what).or_default().push(node.node.clone());
    }
    let mut groups: Vec<(String, Vec<String>)> = groups.into_iter().collect();
    groups.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then_with(|| a.0.cmp(&b.0)));
    let parts = groups.into_iter().enumerate().map(|(index, (what, who))| {
        // What most do in a number, the exceptions by name.
        match index {
            0 => format!("{} {what}", who.len()),
            _ => format!("{} {what}", names(&who)),
        }
    });
    parts.collect::<Vec<_>>().join("; ")
}
