//! A session as monitoring stations are told of it (RFC 7854 §4.9, §4.10).

use super::{Cause, Context, Peer, Slot};
use crate::bmp::message::{PeerDown, PeerUp, Subject};
use crate::bmp::{Monitor, Monitored};
use crate::connection::Connection;
use crate::fsm::State;
use crate::output::ErrorFrom;
use crate::status::SessionOpens;
use crate::wire::Notification;

impl Peer {
    fn established_connection(&self) -> Option<&Connection> {
        let connections = [Slot::Primary, Slot::Second].into_iter().filter_map(|slot| self.connection(slot));
        connections.into_iter().find(|connection| connection.state == State::Established)
    }

    /// The session that is up, for a station that comes later.
    pub(crate) fn monitored(&self, monitor: &Monitor) -> Option<Monitored> {
        let connection = self.established_connection()?;
        described(connection, monitor.time(self.since))
    }

    /// The session came up.
    pub(super) fn tell_up(&self, slot: Slot, ctx: &mut Context<'_>) {
        if ctx.monitor.is_watching() {
            let at = ctx.monitor.time(ctx.now);
            let session = self.connection(slot).and_then(|connection| described(connection, at));
            if let Some(session) = session {
                ctx.monitor.session_up(self.id, session);
                ctx.rib.note_held(self.id);
            }
        }
    }

    /// The session goes down: who ended it, and with which last word.
    pub(super) fn tell_down(
        &self,
        slot: Slot,
        event: crate::fsm::Event,
        last_word: Option<&Notification>,
        cause: Option<&Cause>,
        ctx: &mut Context<'_>,
    ) {
        if !ctx.monitor.is_watching() {
            return;
        }
        let said = cause.filter(|cause| cause.error.from == ErrorFrom::Remote);
        let said = said.and_then(|cause| cause.error.notification.clone());
        let is_gone = self.connection(slot).is_none_or(|connection| connection.link.is_none());
        let down = match (last_word, said) {
            (Some(notification), _) => PeerDown::LocalNotification(notification.clone()),
            (None, Some(notification)) => PeerDown::RemoteNotification(notification),
            (None, None) if is_gone => PeerDown::RemoteClosed,
            (None, None) => PeerDown::LocalEvent(event.number()),
        };
        ctx.monitor.session_down(self.id, &down, ctx.now);
    }

    /// The OPENs of the session that is up.
    pub(crate) fn opens(&self) -> Option<SessionOpens> {
        let link = self.established_connection()?.link.as_ref()?;
        Some(SessionOpens {
            conn: link.conn,
            local: link.local,
            remote: link.remote,
            sent: (link.since, link.open_sent.clone()),
            received: (link.open_at.unwrap_or(link.since), link.open_received.clone()),
        })
    }
}

fn described(connection: &Connection, at: Option<std::time::Duration>) -> Option<Monitored> {
    let (link, agreed) = (connection.link.as_ref()?, connection.negotiated.as_ref()?);
    let subject = Subject {
        address: Some(link.remote.ip().to_canonical()),
        asn: agreed.remote_asn,
        router_id: agreed.remote_router_id,
    };
    let up = PeerUp {
        subject,
        at,
        local: link.local,
        remote_port: link.remote.port(),
        sent: link.open_sent.clone(),
        received: link.open_received.clone(),
    };
    Some(Monitored { up, families: agreed.families.clone(), two_octets: !agreed.four_octet_as })
}
