//! What happened, as log lines: INFO is the timeline, WARN degraded and retrying (ux.md §8).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::bfd::{self, SessionStatus};
use bgp_proto::config::AdminState;
use bgp_proto::fsm::State;
use bgp_proto::output::Rejection;
use bgp_proto::{PeerName, SessionEvent, Speaker, link_local};
use manx_daemon::log::took;

use crate::desire::Desire;
use crate::session_status;

/// What was last said of each peer that does not come up: a failing attempt is retried for hours and said once.
#[derive(Debug, Default)]
pub(crate) struct Said {
    peers: BTreeMap<PeerName, String>,
    /// Connections that were refused, by why and from whom; past [`NAMED`] of these, together.
    rejected: BTreeMap<(Rejection, Option<IpAddr>), u64>,
}

/// How many that dial in vain are counted one by one: whoever wants can dial from any number of addresses.
const NAMED: usize = 256;

impl Said {
    /// The first of many says it, and each doubling after that: which one this is, where it should be said.
    fn rejected(&mut self, why: Rejection, from: IpAddr) -> Option<u64> {
        let is_named = self.rejected.len() < NAMED || self.rejected.contains_key(&(why, Some(from)));
        let count = self.rejected.entry((why, is_named.then_some(from))).or_default();
        *count += 1;
        count.is_power_of_two().then_some(*count)
    }
}

pub(crate) fn log(event: &SessionEvent, speaker: &Speaker, said: &mut Said) {
    // Of a range anybody may come and go: the same is said once for all its neighbours.
    let whose = |peer: &PeerName| speaker.range(peer).unwrap_or(peer).clone();
    match event {
        SessionEvent::StateChanged { peer, from, to, reason } => {
            if *to == State::Established {
                said.peers.remove(&whose(peer));
            }
            state(peer, *from, *to, *reason, speaker);
        }
        SessionEvent::Error { peer, error } => {
            let reason = session_status::reason(error.reason);
            let text = format!("{reason} {error}");
            if said.peers.get(&whose(peer)) == Some(&text) {
                tracing::debug!(%peer, reason, error = %error, from = ?error.from, "session error");
            } else {
                tracing::warn!(%peer, reason, error = %error, from = ?error.from, "session error");
                said.peers.insert(whose(peer), text);
            }
        }
        SessionEvent::EndOfRibReceived { peer, family } => {
            tracing::debug!(%peer, %family, "End-of-RIB received");
        }
        SessionEvent::EndOfRibSent { peer, family } => tracing::debug!(%peer, %family, "End-of-RIB sent"),
        SessionEvent::Synchronized { peer } => {
            let counts = speaker.peer(peer).map(|p| prefixes(&p)).unwrap_or_default();
            tracing::info!(%peer, prefixes = counts, "session synchronized");
        }
        SessionEvent::Stale { peer } => {
            tracing::info!(%peer, "routes kept as stale until the peer is back");
        }
        SessionEvent::LongLivedStale { peer } => {
            tracing::warn!(%peer, "the peer is gone for long: its routes stay as the last choice");
        }
        SessionEvent::Malformed { peer, what } => {
            // Comes once per reason: the counters tell of the rest.
            tracing::warn!(%peer, what, "malformed message");
        }
        SessionEvent::PrefixLimitNear { peer, family, count, limit } => {
            tracing::warn!(%peer, %family, count, limit, "prefix limit near");
        }
        SessionEvent::PrefixLimitReached { peer, family, count, limit } => {
            tracing::warn!(%peer, %family, count, limit, "prefix limit reached");
        }
        SessionEvent::PeerRefused { peer, why } => tracing::warn!(%peer, why, "peer refused"),
        SessionEvent::ConnectionRejected { remote, local, why } => {
            if let Some(n) = said.rejected(*why, remote.ip()) {
                let (remote, local) = (link_local::wire(remote.ip()), link_local::wire(local.ip()));
                tracing::warn!(source = %remote, %local, reason = ?why, n, "connection rejected");
            }
        }
    }
}

/// A BFD session changed its state.
pub(crate) fn bfd(peer: &PeerName, status: &SessionStatus) {
    match status.state {
        bfd::State::Up => tracing::info!(%peer, detection = status.detection_time.map(took), "BFD up"),
        bfd::State::Down => tracing::warn!(%peer, diagnostic = crate::bfd::why(status), "BFD down"),
        bfd::State::Init | bfd::State::AdminDown => {
            tracing::debug!(%peer, state = %status.state, "BFD state");
        }
    }
}

fn state(peer: &PeerName, from: State, to: State, reason: bgp_proto::output::Reason, speaker: &Speaker) {
    let status = speaker.peer(peer);
    match (from, to) {
        (_, State::Established) => {
            let remote = status.as_ref().and_then(|s| s.remote).map(|r| link_local::wire(r.ip()).to_string());
            let hold = status
                .as_ref()
                .and_then(|s| s.negotiated.as_ref())
                .map(|n| took(Duration::from_secs(n.hold_time.into())));
            tracing::info!(%peer, remote, hold, "session up");
        }
        (State::Established, _) => {
            let text = status.as_ref().and_then(|s| s.last_error.as_ref()).map(|(_, e)| e.to_string());
            tracing::warn!(%peer, reason = session_status::reason(reason), error = text, "session down");
        }
        (_, State::Idle | State::Connect | State::Active | State::OpenSent | State::OpenConfirm) => {
            tracing::debug!(%peer, from = ?from, to = ?to, reason = ?reason, "session state");
        }
    }
}

/// Accepted prefixes of all families.
pub(crate) fn prefixes(status: &bgp_proto::status::PeerStatus) -> u32 {
    status.families.iter().map(|f| f.accepted).sum()
}

/// Sessions that are not tried, by the peer that people know, with why.
fn withheld(desire: &Desire) -> BTreeMap<&str, (&'static str, &str)> {
    let ranges =
        desire.speaker.iter().flat_map(|config| &config.ranges).map(|(name, range)| (name, &range.peer));
    let peers = desire.speaker.iter().flat_map(|config| &config.peers).chain(ranges);
    let withheld = peers.filter_map(|(name, peer)| match &peer.admin {
        AdminState::Withheld { reason, text } => {
            Some((desire.class_of(name), (session_status::reason(*reason), text.as_str())))
        }
        AdminState::Up | AdminState::Shutdown { .. } => None,
    });
    withheld.collect()
}

/// Says what newly is, and what no longer is, refused.
pub(crate) fn log_refusals(before: &Desire, after: &Desire) {
    for (peer, refusal) in &after.refused {
        if before.refused.get(peer) != Some(refusal) {
            tracing::warn!(peer, reason = refusal.reason, refusal.message, "no session");
        }
    }
    for peer in before.refused.keys().filter(|p| !after.refused.contains_key(*p)) {
        tracing::info!(peer, "served again");
    }
    let (withheld_before, withheld_after) = (withheld(before), withheld(after));
    for (peer, (reason, message)) in &withheld_after {
        if withheld_before.get(peer).map(|(_, text)| text) != Some(message) {
            tracing::warn!(peer, reason, error = *message, "session is not tried");
        }
    }
    for peer in withheld_before.keys().filter(|peer| !withheld_after.contains_key(*peer)) {
        tracing::info!(peer, "session is tried again");
    }
    if let Some(problem) = &after.problem
        && before.problem.as_ref() != Some(problem)
    {
        let effect =
            if after.speaker.is_some() { "the last good settings stay" } else { "this node speaks no BGP" };
        tracing::warn!(reason = problem.reason, problem.message, effect, "BGP of this node");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_refusals_are_a_few_lines_and_little_memory() {
        let mut said = Said::default();
        let address = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + n));
        let lines = (0..10_000).filter_map(|n| said.rejected(Rejection::UnknownPeer, address(n))).count();
        assert_eq!(lines, 256 + 14, "one by one at first, then 1, 2, 4 … 8192");
        assert_eq!(said.rejected.len(), 257);
        assert_eq!(said.rejected(Rejection::UnknownPeer, address(3)), Some(2), "who is known is still named");
    }
}
