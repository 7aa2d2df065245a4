//! A session as its object says it: from the speaker's words to the API's.

use std::net::IpAddr;
use std::time::Instant;

use bgp_proto::config::{AdminState, PeerConfig, SpeakerConfig};
use bgp_proto::fsm::State;
use bgp_proto::output::{ErrorFrom, Reason};
use bgp_proto::status::{PeerStatus, Synchronized};
use bgp_proto::{AfiSafi, PeerName, Speaker, link_local};
use felix_kernel::facts::Facts;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use manx_crds::v1alpha1 as api;
use manx_crds::v1alpha1::{
    BGPSessionStatus, ErrorSource, FamilyCounts, NodeBgpStatus, SessionError, SessionState, TOPOLOGY_PEER,
};

use crate::bfd::View;
use crate::desire::Desire;
use crate::fib::Report;
use crate::status::condition;
use crate::unnumbered::shown;

/// What is known of where a session runs from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) reason: Option<&'a String>,
    /// The names of interfaces.
    pub(crate) facts: &'a Facts,
}

/// The neighbour's address as people write it; none: nobody was found yet.
pub(crate) fn remote(facts: &Facts, address: IpAddr) -> Option<String> {
    (!link_local::is_nobody(address)).then(|| shown(facts, address))
}

/// The whole status of one session; `before` keeps transition times.
pub(crate) fn of(
    live: &PeerStatus,
    config: &PeerConfig,
    Source { reason: source_reason, facts }: Source<'_>,
    bfd: Option<&View>,
    before: Option<&BGPSessionStatus>,
    now: Instant,
    wall: Timestamp,
) -> BGPSessionStatus {
    let negotiated = live.negotiated.as_ref();
    BGPSessionStatus {
        observed_generation: None,
        state: Some(state(live.state)),
        since: Some(Time(at(live.since, now, wall))),
        local_address: live.local.map(|local| shown(facts, local.ip())),
        remote_address: remote(facts, config.remote),
        local_asn: negotiated.map(|n| n.local_asn.0),
        remote_asn: negotiated.map(|n| n.remote_asn.0).or(expected_asn(config)),
        remote_router_id: negotiated.map(|n| api::RouterId(n.remote_router_id.0)),
        source_reason: live.local.and(source_reason).cloned(),
        negotiated: negotiated.map(|n| api::Negotiated {
            hold_time: Some(api::Duration::from_secs(n.hold_time.into())),
            capabilities: n.capabilities.iter().map(|name| (*name).to_owned()).collect(),
            restart_time: n.restart_time.map(|seconds| api::Duration::from_secs(seconds.into())),
            long_lived_stale_time: n
                .long_lived_stale_time
                .map(|seconds| api::Duration::from_secs(seconds.into())),
        }),
        families: live
            .families
            .iter()
            .map(|family| FamilyCounts {
                name: family_name(family.family),
                received: Some(family.received),
                accepted: Some(family.accepted),
                advertised: Some(family.advertised),
            })
            .collect(),
        resets: Some(u32::try_from(live.resets).unwrap_or(u32::MAX)),
        last_error: live.last_error.as_ref().map(|(when, error)| SessionError {
            time: Time(at(*when, now, wall)),
            from: source(error.from),
            code: error.notification.as_ref().map(|n| n.code),
            subcode: error.notification.as_ref().map(|n| n.subcode),
            name: if error.name().is_empty() { "Transport".to_owned() } else { error.name() },
            text: Some(error.text.clone()).filter(|text| !text.is_empty()),
        }),
        bfd: bfd.map(|view| view.report(now, wall)),
        conditions: conditions(live, bfd, before, wall),
    }
}

fn conditions(
    live: &PeerStatus,
    bfd: Option<&View>,
    before: Option<&BGPSessionStatus>,
    wall: Timestamp,
) -> Vec<Condition> {
    let known = |kind: &str| before.and_then(|b| b.conditions.iter().find(|c| c.type_ == kind));
    let up = live.state == State::Established;
    let (synchronized, why) = match live.synchronized {
        Synchronized::Synchronized => (true, "Synchronized"),
        Synchronized::AwaitingEndOfRib => (false, "AwaitingEndOfRIB"),
        Synchronized::Stale => (false, "Stale"),
        Synchronized::LongLivedStale => (false, "LongLivedStale"),
        Synchronized::NotEstablished => (false, "NotEstablished"),
    };
    let mut all = vec![
        condition("Established", up, reason(live.reason), live.message.clone(), known("Established"), wall),
        condition("Synchronized", synchronized, why, String::new(), known("Synchronized"), wall),
    ];
    all.extend(bfd.map(|view| {
        let (is_up, reason, message) = view.condition();
        condition("BFDUp", is_up, reason, message, known("BFDUp"), wall)
    }));
    all
}

/// `status.bgp` of the FabricNode.
pub(crate) fn node_bgp(desire: &Desire) -> NodeBgpStatus {
    NodeBgpStatus {
        asn: desire.speaker.as_ref().map(|config| config.asn.0),
        router_id: desire.speaker.as_ref().map(|config| api::RouterId(config.router_id.0)),
        port: Some(desire.port),
    }
}

/// Condition BGPReady of the FabricNode.
pub(crate) fn ready(
    speaker: &Speaker,
    desire: &Desire,
    report: &Report,
    before: Option<&Condition>,
    wall: Timestamp,
) -> Condition {
    let (up, reason, mut sentences) = match (&desire.problem, &desire.speaker) {
        (Some(problem), _) => (false, problem.reason, vec![problem.message.clone()]),
        (None, Some(config)) => sessions(speaker, config, desire),
        (None, None) => (false, "NoneEstablished", vec!["the objects were not read yet".to_owned()]),
    };
    // api.md §4.2: a drained node is not ready, whatever its sessions.
    let (up, reason) = if up && desire.is_drained { (false, "Drained") } else { (up, reason) };
    sentences.extend(desire.homeless.iter().chain(desire.remarks.iter().take(5)).cloned());
    for (peer, refusal) in desire.refused.iter().take(5) {
        sentences.push(match peer.as_str() {
            TOPOLOGY_PEER => format!("no node-to-node session: {}", refusal.message),
            peer => format!("BGPPeer {peer} starts no session: {}", refusal.message),
        });
    }
    if let Some((prefix, error)) = report.refused.iter().next() {
        sentences
            .push(format!("the kernel refuses {} routes, such as {prefix}: {error}", report.refused.len()));
    }
    sentences.retain(|sentence| !sentence.is_empty());
    let ready = condition("BGPReady", up, reason, sentences.join("; "), before, wall);
    Condition { observed_generation: desire.generation, ..ready }
}

fn sessions(speaker: &Speaker, config: &SpeakerConfig, desire: &Desire) -> (bool, &'static str, Vec<String>) {
    // Whoever of a range begins to speak is no session that should be up.
    let live: Vec<(&PeerName, State, Reason)> = speaker
        .states()
        .filter(|(_, range, state, _)| range.is_none() || *state == State::Established)
        .map(|(name, _, state, why)| (name, state, why))
        .collect();
    let up = live.iter().filter(|(_, state, _)| *state == State::Established).count();
    let down: Vec<String> = live
        .iter()
        .filter(|(_, state, _)| *state != State::Established)
        .map(|(name, _, why)| format!("{name} {}", reason(*why)))
        .chain(config.ranges.iter().filter_map(|(name, range)| match &range.peer.admin {
            AdminState::Withheld { reason: why, .. } => Some(format!("{name} {}", reason(*why))),
            AdminState::Up | AdminState::Shutdown { .. } => None,
        }))
        .take(5)
        .collect();
    let shut = live.iter().all(|(_, _, why)| *why == Reason::AdminShutdown);
    let text = format!("{up} of {} sessions Established", live.len());
    if speaker.selection_deferred_until().is_some() {
        let waits =
            "after a restart: the kernel keeps an earlier life's routes until the peers have told theirs";
        return (false, "AwaitingEndOfRIB", vec![waits.to_owned(), text, down.join(", ")]);
    }
    match (live.len(), up) {
        (0, _) if !config.ranges.is_empty() => {
            let waits = "no neighbour of a listenRange has dialled yet".to_owned();
            (
                down.is_empty(),
                if down.is_empty() { "NoPeers" } else { "SomeDown" },
                vec![waits, down.join(", ")],
            )
        }
        (0, _) if desire.homeless.is_some() => (false, "NoneEstablished", Vec::new()),
        (0, _) if desire.refused.is_empty() => {
            (true, "NoPeers", vec!["no BGPPeer selects this node, and no other node is known".to_owned()])
        }
        (0, _) => (false, "NoneEstablished", vec!["every session that was asked for is refused".to_owned()]),
        (_, 0) if shut => (false, "Shutdown", vec![text]),
        (_, 0) => (false, "NoneEstablished", vec![text, down.join(", ")]),
        (all, up) if up < all => (false, "SomeDown", vec![text, down.join(", ")]),
        (_, _) => (true, "SessionsEstablished", vec![text]),
    }
}

/// One sentence about a session for an Event.
pub(crate) fn note(peer: &PeerName, speaker: &Speaker) -> String {
    let Some(live) = speaker.peer(peer) else { return String::new() };
    let remote = live.remote.map(|remote| link_local::wire(remote.ip()).to_string()).unwrap_or_default();
    match (live.state, live.last_error.as_ref()) {
        (State::Established, _) => format!("session with {peer} {remote} is Established"),
        (_, Some((_, error))) => format!("{}: {error}", reason(live.reason)),
        (_, None) => reason(live.reason).to_owned(),
    }
}

/// A moment of the speaker's clock on the wall.
pub(crate) fn at(moment: Instant, now: Instant, wall: Timestamp) -> Timestamp {
    let ago = now.saturating_duration_since(moment);
    // Whole seconds: a status must not differ from itself by rounding.
    let wall = wall.checked_sub(ago).unwrap_or(wall);
    Timestamp::from_second((wall.as_millisecond() + 500) / 1000).unwrap_or(wall)
}

pub(crate) fn family_name(family: AfiSafi) -> api::AddressFamily {
    match family {
        AfiSafi::Ipv4Unicast => api::AddressFamily::IPv4Unicast,
        AfiSafi::Ipv6Unicast => api::AddressFamily::IPv6Unicast,
    }
}

pub(crate) fn state(state: State) -> SessionState {
    match state {
        State::Idle => SessionState::Idle,
        State::Connect => SessionState::Connect,
        State::Active => SessionState::Active,
        State::OpenSent => SessionState::OpenSent,
        State::OpenConfirm => SessionState::OpenConfirm,
        State::Established => SessionState::Established,
    }
}

fn source(from: ErrorFrom) -> ErrorSource {
    match from {
        ErrorFrom::Local => ErrorSource::Local,
        ErrorFrom::Remote => ErrorSource::Remote,
        ErrorFrom::Transport => ErrorSource::Transport,
    }
}

/// The reason as api.md §5.2 spells it.
pub(crate) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Established => "Established",
        Reason::Connecting => "Connecting",
        Reason::ConnectionRefused => "ConnectionRefused",
        Reason::ConnectionTimedOut => "ConnectionTimedOut",
        Reason::NoRoute => "NoRoute",
        Reason::InterfaceDown => "InterfaceDown",
        Reason::NeighborNotFound => "NeighborNotFound",
        Reason::SecretMissing => "SecretMissing",
        Reason::AuthUnsupported => "AuthUnsupported",
        Reason::BadPeerAS => "BadPeerAS",
        Reason::HoldTimerExpired => "HoldTimerExpired",
        Reason::BFDDown => "BFDDown",
        Reason::NotificationSent => "NotificationSent",
        Reason::NotificationReceived => "NotificationReceived",
        Reason::MaxPrefixesReached => "MaxPrefixesReached",
        Reason::AdminShutdown => "AdminShutdown",
    }
}

pub(crate) fn expected_asn(config: &PeerConfig) -> Option<u32> {
    match config.remote_asn {
        bgp_proto::config::RemoteAsn::Exactly(asn) => Some(asn.0),
        bgp_proto::config::RemoteAsn::External | bgp_proto::config::RemoteAsn::Internal => None,
    }
}
