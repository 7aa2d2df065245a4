//! Routes for people: what was received and originated, what became of it, and why.

use std::collections::{BTreeMap, BTreeSet};

use bgp_proto::policy::ImportRejection;
use bgp_proto::rib::{PathStatus, PathView};
use bgp_proto::wire::display;
use bgp_proto::{AfiSafi, PeerId};
use ipnet::IpNet;
use manx_crds::report::{BgpdRoutes, RouteRow, RouteVerdict};

use crate::driver::Driver;
use crate::unnumbered::shown;

/// Of one BGPPeer and one prefix only, where asked for.
pub(crate) fn of(driver: &Driver, peer: Option<&str>, prefix: Option<&str>) -> BgpdRoutes {
    let mut routes = Vec::new();
    let peer_id = peer.map(|name| driver.speaker.id(&name.into()));
    // A peer that does not exist has no routes.
    if !matches!(peer_id, Some(None)) {
        let told = told(driver);
        let refused = driver.fib.report().refused;
        for view in views(driver, peer_id.flatten(), prefix) {
            routes.push(row(driver, &view, told.get(&view.prefix), refused.get(&view.prefix)));
        }
    }
    BgpdRoutes { node: driver.node.clone(), routes }
}

fn views(driver: &Driver, peer: Option<PeerId>, prefix: Option<&str>) -> Vec<PathView> {
    let rib = driver.speaker.rib();
    let Some(prefix) = prefix else {
        return AfiSafi::ALL.into_iter().flat_map(|family| rib.paths(family, peer)).collect();
    };
    let Ok(prefix) = prefix.parse::<IpNet>() else { return Vec::new() };
    let mut views = rib.paths_to(&prefix.trunc());
    views.retain(|view| peer.is_none() || view.peer == peer);
    views
}

/// Which peers are told of which prefix.
fn told(driver: &Driver) -> BTreeMap<IpNet, BTreeSet<String>> {
    let mut told: BTreeMap<IpNet, BTreeSet<String>> = BTreeMap::new();
    for name in driver.desire.speaker.iter().flat_map(|config| config.peers.keys()) {
        let Some(id) = driver.speaker.id(name) else { continue };
        for family in AfiSafi::ALL {
            for route in driver.speaker.rib().adj_rib_out(id, family) {
                told.entry(route.prefix).or_default().insert(name.as_str().to_owned());
            }
        }
    }
    told
}

fn row(
    driver: &Driver,
    view: &PathView,
    told: Option<&BTreeSet<String>>,
    refused: Option<&String>,
) -> RouteRow {
    let attributes = display::attributes(&view.attributes);
    let from = view.peer.and_then(|id| driver.speaker.name(id)).map(|name| name.as_str().to_owned());
    let own = view.peer.is_none();
    let selected = matches!(view.status, PathStatus::Best(_) | PathStatus::Multipath);
    let verdict = match view.status {
        PathStatus::Rejected(_) => RouteVerdict::Rejected,
        PathStatus::Best(_)
        | PathStatus::Multipath
        | PathStatus::Beaten(_)
        | PathStatus::NextHopUnreachable => {
            if own {
                RouteVerdict::Originated
            } else {
                RouteVerdict::Accepted
            }
        }
    };
    let status = match view.status {
        PathStatus::Rejected(rejection) => match &view.rule {
            Some(rule) if rejection == ImportRejection::Filter => rule.to_string(),
            Some(_) | None => rejection.text().to_owned(),
        },
        PathStatus::Best(_)
        | PathStatus::Multipath
        | PathStatus::Beaten(_)
        | PathStatus::NextHopUnreachable => match &view.rule {
            Some(rule) => format!("{}; accepted by {rule}", view.status),
            None => view.status.to_string(),
        },
    };
    let why = match refused {
        Some(error) if selected => format!("{status}; the kernel refuses it: {error}"),
        Some(_) | None => status,
    };
    RouteRow {
        node: driver.node.clone(),
        prefix: view.prefix.to_string(),
        from,
        path_id: view.path_id,
        as_path: attributes.as_path,
        next_hop: view.next_hop.map(|address| shown(driver.monitor.facts(), address)),
        verdict,
        why,
        best: matches!(view.status, PathStatus::Best(_)),
        installed: selected && !own && refused.is_none(),
        local_preference: Some(view.local_pref),
        med: attributes.med,
        communities: attributes.communities,
        stale: view.stale,
        sent_to: told.filter(|_| own).map(|peers| peers.iter().cloned().collect()).unwrap_or_default(),
    }
}
