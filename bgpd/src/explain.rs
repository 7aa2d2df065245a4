//! `manxctl bgp explain`: all that this node does with one prefix, and why. Reasons are the speaker's; nothing is guessed.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp_proto::decision::BestPathReason;
use bgp_proto::fsm::State;
use bgp_proto::policy::ImportRejection;
use bgp_proto::rib::{AdvertisedRoute, ExportView, PathStatus, PathView, Withheld};
use bgp_proto::wire::display;
use bgp_proto::{PeerId, link_local};
use felix_kernel::facts::Facts;
use felix_kernel::route::{NextHop, Route, RouteKind, RouteState};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use manx_crds::report::{
    BestRow, BgpdExplanation, ControlError, KernelRow, NotSentRow, OriginatedRow, ReceivedRow, RouteVerdict,
    SentRow, SilentRow,
};
use manx_daemon::control::Question;

use crate::driver::Driver;
use crate::originate::Origin;
use crate::session_status;

#[cfg(test)]
mod tests;

/// The thread of the routes may be writing a million of them.
const KERNEL_PATIENCE: Duration = Duration::from_secs(1);

/// Answers, once the thread of the routes said how the kernel stands.
pub(crate) fn answer(driver: &Driver, question: Question, asked: &str) {
    let Some(prefix) = meant(driver, asked) else {
        let expected = "a prefix such as 10.244.17.0/26, or an address".to_owned();
        question.answer(&ControlError {
            error: format!("{asked:?} is no prefix"),
            place: None,
            expected: Some(expected),
            remedy: None,
        });
        return;
    };
    let mut explanation = explain(driver, prefix);
    let wanted = driver.fib.wanted(&prefix);
    let refused = driver.fib.report().refused.get(&prefix).cloned();
    let state = driver.fib.state(&prefix);
    explanation.kernel = KernelRow {
        route: wanted.as_ref().map(|route| route_text(route, driver.monitor.facts())),
        next_hops: wanted.as_ref().map_or(0, next_hops),
        state: String::new(),
    };
    tokio::spawn(async move {
        let state = match tokio::time::timeout(KERNEL_PATIENCE, state).await {
            Ok(Ok(state)) => kernel_state(wanted.is_some(), &state),
            Ok(Err(_)) | Err(_) => match refused {
                Some(error) => format!("refused: {error}"),
                None => format!("unknown: busy for {}s", KERNEL_PATIENCE.as_secs()),
            },
        };
        explanation.kernel.state = state;
        question.answer(&explanation);
    });
}

/// The prefix that is asked for; for an address the longest in the table that holds it, else its host route.
fn meant(driver: &Driver, asked: &str) -> Option<IpNet> {
    if let Ok(prefix) = asked.parse::<IpNet>() {
        return Some(prefix.trunc());
    }
    let address: IpAddr = asked.parse().ok()?;
    Some(driver.speaker.rib().longest_match(address).unwrap_or_else(|| IpNet::from(address)))
}

fn explain(driver: &Driver, prefix: IpNet) -> BgpdExplanation {
    let views = driver.speaker.rib().paths_to(&prefix);
    let name = |id: PeerId| person(driver, id);
    let mut explanation = BgpdExplanation {
        node: driver.node.clone(),
        prefix: prefix.to_string(),
        originated: originated(driver, &prefix),
        received: received(&views, name, &taken_by_default(driver, &prefix)),
        best: best(&views, name),
        ..BgpdExplanation::default()
    };
    let (now, wall) = (Instant::now(), Timestamp::now());
    let mut withheld = Vec::new();
    for (peer, _, range) in driver.speaker.peers() {
        let Some(live) = driver.speaker.peer(peer) else { continue };
        let shown = driver.speaker.id(peer).map_or_else(|| peer.to_string(), name);
        let export = driver.speaker.id(peer).and_then(|id| driver.speaker.rib().export_to(id, &prefix));
        match export.filter(|_| live.state == State::Established) {
            Some(export) => {
                explanation.peers += 1;
                match sent(&shown, &export) {
                    Ok(row) => explanation.sent_to.push(row),
                    Err(row) => withheld.push(row),
                }
            }
            // Whoever of a range is on its way is no session that should be up.
            None if range.is_none() => explanation.silent.push(SilentRow {
                peer: shown,
                state: session_status::state(live.state),
                reason: session_status::reason(live.reason).to_owned(),
                lost: live.lost.map(|at| Time(session_status::at(at, now, wall))),
            }),
            None => {}
        }
    }
    // Sessions that are down first.
    let down = explanation.silent.iter().map(|row| NotSentRow {
        peer: row.peer.clone(),
        reason: "SessionDown".to_owned(),
        why: format!("session down: {}", row.reason),
    });
    explanation.not_sent_to = down.chain(withheld).collect();
    explanation
}

/// A session as people know it: by its BGPPeer, with the address where a BGPPeer has several.
fn person(driver: &Driver, id: PeerId) -> String {
    let Some(name) = driver.speaker.name(id) else { return String::new() };
    let class = driver.desire.class_of(driver.speaker.range(name).unwrap_or(name));
    let remote = driver.speaker.config().and_then(|config| config.peers.get(name)).map(|peer| peer.remote);
    match remote {
        Some(remote) if class != name.as_str() => format!("{class} {remote}"),
        Some(_) | None => name.to_string(),
    }
}

fn originated(driver: &Driver, prefix: &IpNet) -> Option<OriginatedRow> {
    let sources = driver.originated.sources(prefix)?;
    let origins = driver.desire.export.origins(prefix, driver.services.index());
    let advertisements = origins.iter().filter_map(|origin| match origin {
        Origin::Advertisement(name) => Some(name.clone()),
        Origin::Block => None,
    });
    Some(OriginatedRow {
        sources: sources.iter().map(|source| source.as_str().to_owned()).collect(),
        advertisements: advertisements.collect(),
        block: origins.contains(&Origin::Block),
    })
}

/// Why a path to a prefix is taken where no rule decides.
fn taken_by_default(driver: &Driver, prefix: &IpNet) -> String {
    if prefix.prefix_len() == 0 {
        return "default import policy".to_owned();
    }
    match driver.objects.pools.iter().find(|pool| pool.spec.cidr.net().contains(prefix)) {
        Some(pool) => format!("inside pool {}", pool.name_any()),
        None => "default import policy".to_owned(),
    }
}

fn received(views: &[PathView], name: impl Fn(PeerId) -> String, taken_by_default: &str) -> Vec<ReceivedRow> {
    let row = |view: &PathView, from: PeerId| {
        let (verdict, beaten_by) = match view.status {
            PathStatus::Rejected(_) => (RouteVerdict::Rejected, None),
            PathStatus::Beaten(reason) => (RouteVerdict::Accepted, Some(reason)),
            PathStatus::Best(_) | PathStatus::Multipath | PathStatus::NextHopUnreachable => {
                (RouteVerdict::Accepted, None)
            }
        };
        ReceivedRow {
            from: name(from),
            verdict,
            as_path: display::attributes(&view.attributes).as_path,
            next_hop: view.next_hop.map(|address| link_local::wire(address).to_string()),
            why: why(view, taken_by_default),
            best: matches!(view.status, PathStatus::Best(_)),
            used: matches!(view.status, PathStatus::Best(_) | PathStatus::Multipath),
            beaten_by: beaten_by.map(|reason| reason.as_str().to_owned()),
            stale: view.stale,
        }
    };
    let mut rows: Vec<ReceivedRow> = views.iter().filter_map(|view| Some(row(view, view.peer?))).collect();
    let rank = |row: &ReceivedRow| (!row.best, !row.used, row.verdict == RouteVerdict::Rejected);
    rows.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.from.cmp(&b.from)));
    rows
}

/// The rule or reason of import, then what keeps an accepted path out of use.
fn why(view: &PathView, taken_by_default: &str) -> String {
    let accepted = || match &view.rule {
        Some(rule) => rule.to_string(),
        None => taken_by_default.to_owned(),
    };
    match (view.status, &view.rule) {
        (PathStatus::Rejected(ImportRejection::Filter), Some(rule)) => rule.to_string(),
        (PathStatus::Rejected(rejection), _) => rejection.text().to_owned(),
        (PathStatus::NextHopUnreachable, _) => format!("{}; not used: its next hop has no route", accepted()),
        (PathStatus::Beaten(reason), _) => format!("{}; not used: {}", accepted(), reason.text()),
        (PathStatus::Best(_) | PathStatus::Multipath, _) => accepted(),
    }
}

/// Who won, and at which step of the decision.
fn best(views: &[PathView], name: impl Fn(PeerId) -> String) -> Option<BestRow> {
    let (winner, reason) = views.iter().find_map(|view| match view.status {
        PathStatus::Best(reason) => Some((view, reason)),
        PathStatus::Multipath
        | PathStatus::Beaten(_)
        | PathStatus::NextHopUnreachable
        | PathStatus::Rejected(_) => None,
    })?;
    let shown = |view: &PathView| view.peer.map_or_else(|| "this node".to_owned(), &name);
    // Of the others the one that came furthest: it is in use beside the winner, or fell at the step that settled it.
    let beside = views.iter().find(|view| view.status == PathStatus::Multipath);
    let runner_up = beside.or_else(|| views.iter().find(|view| view.status == PathStatus::Beaten(reason)));
    let text = match (runner_up, reason) {
        (_, BestPathReason::OnlyPath) | (None, _) => match (views.len(), winner.peer) {
            (1, None) => "the only path".to_owned(),
            (1, Some(_)) => format!("{}: the only path", shown(winner)),
            (_, _) => format!("{}: the only accepted path", shown(winner)),
        },
        (Some(other), reason) => {
            let used = views.iter().filter(|view| view.status == PathStatus::Multipath).count() + 1;
            let also = match used {
                1 => String::new(),
                2 => "; both used (multipath)".to_owned(),
                more => format!("; {more} used (multipath)"),
            };
            format!("{} before {}: {}{also}", shown(winner), shown(other), reason.text())
        }
    };
    Some(BestRow { from: winner.peer.map(&name), reason: reason.as_str().to_owned(), text })
}

/// How a peer is told, or why not.
fn sent(peer: &str, export: &ExportView) -> Result<SentRow, NotSentRow> {
    let route = export.told.as_ref().map_err(|reason| NotSentRow {
        peer: peer.to_owned(),
        reason: reason.as_str().to_owned(),
        why: match (reason, &export.rule) {
            (Withheld::Filter, Some(rule)) => rule.to_string(),
            (why, _) => why.text().to_owned(),
        },
    })?;
    let shown = display::attributes(&route.attributes);
    Ok(SentRow {
        peer: peer.to_owned(),
        next_hop: next_hop(route).map(|address| address.to_string()),
        as_path: shown.as_path,
        communities: shown.communities,
        rule: export.rule.as_ref().map(ToString::to_string),
    })
}

/// MP_REACH_NLRI's, of 16 or 32 octets, else attribute NEXT_HOP.
fn next_hop(route: &AdvertisedRoute) -> Option<IpAddr> {
    let octets = |bytes: &[u8]| -> Option<IpAddr> {
        if let Some(Ok(six)) = bytes.get(..16).map(<[u8; 16]>::try_from) {
            return Some(IpAddr::from(six));
        }
        bytes.get(..4).and_then(|four| <[u8; 4]>::try_from(four).ok()).map(IpAddr::from)
    };
    octets(&route.next_hop).or_else(|| octets(display::next_hop(&route.attributes)?))
}

fn next_hops(route: &Route) -> u64 {
    match &route.kind {
        RouteKind::Unicast { next_hops } => u64::try_from(next_hops.len()).unwrap_or(u64::MAX),
        RouteKind::Blackhole | RouteKind::Connected { .. } => 0,
    }
}

/// `10.244.17.0/26 via 10.0.13.3 dev eno2`, as `ip route` shows it.
fn route_text(route: &Route, facts: &Facts) -> String {
    let hop = |hop: &NextHop| {
        let resolved = hop.gateway.and_then(|gateway| facts.resolve(gateway, hop.ifindex));
        let link = hop.ifindex.or(resolved.map(|found| found.ifindex)).and_then(|index| facts.link(index));
        let via = hop.gateway.map(|gateway| format!("via {gateway}"));
        let dev = link.map(|link| format!("dev {}", link.name));
        via.into_iter().chain(dev).collect::<Vec<_>>().join(" ")
    };
    match &route.kind {
        RouteKind::Blackhole => "blackhole".to_owned(),
        RouteKind::Connected { ifindex } => {
            format!("dev {}", facts.link(*ifindex).map_or("?", |link| link.name.as_str()))
        }
        RouteKind::Unicast { next_hops } => {
            let hops: Vec<String> = next_hops.iter().map(hop).collect();
            format!("{} {}", route.destination, hops.join(", "))
        }
    }
}

fn kernel_state(is_wanted: bool, state: &RouteState) -> String {
    match state {
        RouteState::Installed => "ok".to_owned(),
        RouteState::NotYet(refusal) | RouteState::Wrong(refusal) => format!("refused: {refusal}"),
        RouteState::Absent if is_wanted => "pending".to_owned(),
        RouteState::Absent => "none".to_owned(),
        RouteState::Adopted => "kept from before the restart".to_owned(),
        RouteState::Pending => "pending".to_owned(),
    }
}
