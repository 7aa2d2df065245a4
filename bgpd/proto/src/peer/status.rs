//! A peer as people see it.

use super::Peer;
use crate::config::AdminState;
use crate::fsm::State;
use crate::output::Reason;
use crate::rib::Rib;
use crate::status::{FamilyStatus, PeerStatus, Synchronized};

impl Peer {
    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

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
            resets: self.resets_by.values().sum(),
            resets_by: self.resets_by.clone(),
            lost: self.lost,
            synchronized: self.synchronized_status(),
            families: self.family_status(rib),
            messages: self.messages,
            notifications: self.notifications.clone(),
            send_queue: rib.behind(self.id) + link.map_or(0, |link| link.outbox.rest().len() as u64),
            malformed: self.malformed.clone(),
            retry_at: self.idle_until.or(furthest.timers.connect_retry),
        }
    }

    /// Nothing waits to be told to it; also where no session is up.
    pub(crate) fn has_all(&self, rib: &Rib) -> bool {
        let links = [Some(&self.primary), self.second.as_ref()].into_iter().flatten();
        let mut up = links.filter(|one| one.state == State::Established).filter_map(|one| one.link.as_ref());
        up.all(|link| link.outbox.is_empty() && rib.has_all(self.id))
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
                stale: counts.stale,
                limit: self.config.max_prefixes.limit(family),
            }
        };
        self.config.families.iter().copied().map(of).collect()
    }
}
