//! Answers on the control socket: the speaker as it stands, in the words of `crds/src/report`.

use std::time::Instant;

use bgp_proto::PeerName;
use bgp_proto::fsm::State;
use bgp_proto::status::Malformation;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use manx_crds::report::{
    BgpdOriginated, BgpdPeers, BgpdRequest, BgpdStatus, Drain, FamilyRow, MalformedRow, SessionRow,
};
use manx_daemon::control::Question;

use crate::driver::Driver;
use crate::session_status::Source;
use crate::unnumbered::shown;
use crate::{clear, explain, metrics, routes, session_status};

const VERBS: [&str; 8] =
    ["status", "peers", "originated", "routes", "capture", "explain", "clear", "metrics"];

pub(crate) fn answer(driver: &mut Driver, question: Question) {
    match serde_json::from_value(question.request.clone()) {
        Ok(BgpdRequest::Status) => question.answer(&status(driver)),
        Ok(BgpdRequest::Peers) => question.answer(&peers(driver)),
        Ok(BgpdRequest::Originated) => question.answer(&BgpdOriginated {
            node: driver.node.clone(),
            prefixes: driver.originated.prefixes().copied().collect(),
        }),
        Ok(BgpdRequest::Routes { peer, prefix }) => {
            question.answer(&routes::of(driver, peer.as_deref(), prefix.as_deref()));
        }
        Ok(BgpdRequest::Capture { peer, after }) => match driver.capture(&peer, after) {
            Ok(capture) => question.answer(&capture),
            Err(error) => question.answer(&error),
        },
        Ok(BgpdRequest::Explain { prefix }) => explain::answer(driver, question, &prefix),
        Ok(BgpdRequest::Clear { peer, soft, message }) => {
            question.answer(&clear::clear(driver, &peer, soft, &message));
        }
        Ok(BgpdRequest::Metrics) => metrics::answer(driver, question),
        Err(_) => question.unknown(&VERBS),
    }
}

fn status(driver: &Driver) -> BgpdStatus {
    let (now, wall) = (Instant::now(), Timestamp::now());
    let desire = &driver.desire;
    let report = driver.fib.report();
    let ready = session_status::ready(&driver.speaker, desire, &report, None, wall);
    let live: Vec<_> = driver.speaker.peers().filter_map(|(peer, _, _)| driver.speaker.peer(peer)).collect();
    let own = |v4: bool| driver.originated.prefixes().filter(|p| p.addr().is_ipv4() == v4).count() as u64;
    let mut message = vec![ready.message, driver.inputs.remark()];
    message.extend(driver.deaf.iter().map(|(address, error)| format!("cannot listen on {address}: {error}")));
    message.extend(driver.stations.problems());
    BgpdStatus {
        node: driver.node.clone(),
        version: manx_daemon::VERSION.to_owned(),
        started: Some(Time(session_status::at(driver.started, now, wall))),
        asn: desire.speaker.as_ref().map(|config| config.asn.0),
        router_id: desire.speaker.as_ref().map(|config| config.router_id.to_string()),
        addresses: desire.addresses.iter().copied().collect(),
        port: Some(desire.port),
        in_sync: driver.objects.in_sync() && driver.services.in_sync(),
        inputs: driver.inputs.report(),
        ready: ready.reason,
        drain: Some(match (desire.is_drained, driver.drains) {
            (false, _) => Drain::Up,
            (true, Some(_)) => Drain::Draining,
            (true, None) => Drain::Drained,
        }),
        message: message.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; "),
        sessions: live.len() as u64,
        sessions_established: live.iter().filter(|peer| peer.state == State::Established).count() as u64,
        own_ipv4: own(true),
        own_ipv6: own(false),
        kernel_routes: report.programmed as u64,
        kernel_routes_wanted: report.desired as u64,
        kernel_multipath: report.multipath as u64,
        kernel_refused: report
            .refused
            .iter()
            .map(|(prefix, error)| (prefix.to_string(), error.clone()))
            .collect(),
        refused_peers: desire
            .refused
            .iter()
            .map(|(peer, refusal)| (peer.clone(), refusal.message.clone()))
            .collect(),
        invalid: driver.objects.invalid.values().chain(driver.services.invalid().values()).cloned().collect(),
    }
}

/// The sessions that a word names, each with its far end as people write it: a BGPPeer or another class, one session of it, the
/// far end's address, or the interface behind which it is.
pub(crate) fn sessions_named(driver: &Driver, word: &str) -> Vec<(PeerName, String)> {
    let named = driver.speaker.peers().filter_map(|(name, config, range)| {
        let remote = shown(driver.monitor.facts(), config.remote);
        let is_meant = name.as_str() == word
            || driver.desire.class_of(range.unwrap_or(name)) == word
            || driver.desire.remote_of(name, config) == word
            || remote == word;
        is_meant.then(|| (name.clone(), remote))
    });
    named.collect()
}

fn peers(driver: &Driver) -> BgpdPeers {
    let (now, wall) = (Instant::now(), Timestamp::now());
    let mut sessions = Vec::new();
    for (peer, config, range) in driver.speaker.peers() {
        let Some(live) = driver.speaker.peer(peer) else { continue };
        let facts = driver.monitor.facts();
        let why = Source { reason: driver.desire.source_reasons.get(range.unwrap_or(peer)), facts };
        let status = session_status::of(&live, config, why, None, None, now, wall);
        sessions.push(SessionRow {
            node: driver.node.clone(),
            peer: driver.desire.class_of(range.unwrap_or(peer)).to_owned(),
            remote: session_status::remote(facts, config.remote)
                .unwrap_or_else(|| driver.desire.remote_of(peer, config)),
            asn: live.negotiated.as_ref().map(|n| n.remote_asn.0).or(session_status::expected_asn(config)),
            state: session_status::state(live.state),
            since: status.since,
            reason: Some(session_status::reason(live.reason).to_owned()),
            message: Some(live.message.clone()).filter(|text| !text.is_empty()),
            bfd: driver.bfd.view(peer).map(|view| view.state()),
            families: live
                .families
                .iter()
                .map(|family| FamilyRow {
                    name: session_status::family_name(family.family),
                    received: family.received.into(),
                    accepted: family.accepted.into(),
                    advertised: family.advertised.into(),
                })
                .collect(),
            last_error: status.last_error,
            resets: Some(live.resets),
            local_address: status.local_address,
            hold_seconds: live.negotiated.as_ref().map(|n| n.hold_time.into()),
            capabilities: status.negotiated.map(|n| n.capabilities).unwrap_or_default(),
            retry_seconds: live.retry_at.map(|at| at.saturating_duration_since(now).as_secs()),
            malformed: live.malformed.iter().map(malformed).collect(),
        });
    }
    BgpdPeers { node: driver.node.clone(), sessions }
}

fn malformed((what, count): (&Malformation, &u64)) -> MalformedRow {
    MalformedRow {
        message: what.message.to_owned(),
        attribute: (what.attribute != 0).then_some(what.attribute),
        reason: what.reason.to_owned(),
        action: what.action.to_owned(),
        rfc: what.rfc.to_owned(),
        count: *count,
    }
}
