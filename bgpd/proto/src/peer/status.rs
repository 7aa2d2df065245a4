//! A peer as people see it.

use super::Peer;
use crate::config::AdminState;
use crate::fsm::State;
use crate::rib::Rib;
use crate::status::{FamilyStatus, PeerStatus, Synchronized};

impl Peer {
    pub(crate) fn status(&self, rib: &Rib) -> PeerStatus {
        let furthest = match &self.second {
            Some(second) if second.state > self.primary.state => second,
            Some(_) | None => &self.primary,
        };
        let link = furthest.link.as_ref();
        let error = self.last_error.as_ref().filter(|(_, error)| error.reason == self.reason);
        PeerStatus {
            state: self.state,
            since: self.since,
            reason: self.reason,
            message: match &self.config.admin {
                AdminState::Withheld { text, .. } => text.clone(),
                AdminState::Up | AdminState::Shutdown { .. } => {
                    error.map(|(_, error)| error.to_string()).unwrap_or_default()
                }
            },
            local: link.map(|link| link.local),
            remote: link.map(|link| link.remote),
            negotiated: furthest.negotiated.as_ref().map(|negotiated| negotiated.status()),
            last_error: self.last_error.clone(),
            resets: self.resets,
            synchronized: self.synchronized_status(),
            families: self.family_status(rib),
            messages: self.messages,
            malformed: self.malformed.clone(),
            retry_at: self.idle_until.or(furthest.timers.connect_retry),
        }
    }

    fn synchronized_status(&self) -> Synchronized {
        match (self.state, self.synchronized, &self.stale) {
            (State::Established, true, _) => Synchronized::Synchronized,
            (State::Established, false, _) => Synchronized::AwaitingEndOfRib,
            (_, _, Some(stale)) if stale.is_long_lived() => Synchronized::LongLivedStale,
            (_, _, Some(_)) => Synchronized::Stale,
            (_, _, None) => Synchronized::NotEstablished,
        }
    }

    fn family_status(&self, rib: &Rib) -> Vec<FamilyStatus> {
        let of = |family| {
            let counts = rib.counts(self.id, family);
            FamilyStatus {
                family,
                received: counts.received,
                accepted: counts.accepted,
                advertised: rib.advertised(self.id, family),
                limit: self.config.max_prefixes.limit(family),
            }
        };
        self.config.families.iter().copied().map(of).collect()
    }
}
