//! What the peer says, as events.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Cause, Context, Peer, Slot, Then};
use crate::config::MaxPrefixesAction;
use crate::fsm::{Event, State};
use crate::negotiate::Negotiated;
use crate::output::{Reason, SessionEvent};
use crate::rib::PeerFacts;
use crate::types::{AfiSafi, ConnId};
use crate::wire::message::encode;
use crate::wire::notification::{cease, refresh as refresh_error};
use crate::wire::refresh::{BEGIN, END, REQUEST};
use crate::wire::verdict::ErrorAction;
use crate::wire::{Frame, MessageType, Notification, Open, RouteRefresh};

/// Connections this close in time collide. An OPEN that comes so soon after a session came up is a late collision and not a
/// restart of the peer: RFC 4724 §5 does not say how to tell them apart, and both sides would end what the other one keeps.
const COLLISION_WINDOW: Duration = Duration::from_secs(5);

/// Who stays when two connections meet (RFC 4271 §6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collision {
    /// There is no other connection that could collide.
    None,
    /// The one whose OPEN came.
    KeepThis,
    /// The other one.
    KeepOther,
    /// The other one is a session from before the peer's restart (RFC 4724 §5).
    ReplaceSession,
}

impl Peer {
    /// Bytes of one of the peer's connections.
    pub(crate) fn receive(&mut self, conn: ConnId, mut input: &[u8], ctx: &mut Context<'_>) {
        let Some(link) = self.link_mut(conn) else { return };
        let mut framer = std::mem::take(&mut link.framer);
        while let Some(frame) = framer.next(&mut input) {
            match frame {
                Ok(frame) => self.message(conn, frame, ctx),
                Err(notification) => {
                    let text = self.count_header(&notification);
                    self.fire_on(conn, Event::BgpHeaderErr, Some(Cause::local(notification, &text)), ctx);
                }
            }
            match self.slot_of(conn).and_then(|slot| self.connection(slot)) {
                None => return,
                // "MAY send … only if the … Capability was received" (RFC 8654 §4): from its OPEN on the peer has ours.
                Some(connection) if connection.negotiated.is_some() => framer.expect_extended(),
                Some(_) => {}
            }
        }
        if let Some(link) = self.link_mut(conn) {
            link.framer = framer;
        }
    }

    fn link_mut(&mut self, conn: ConnId) -> Option<&mut crate::connection::Link> {
        let slot = self.slot_of(conn)?;
        self.connection_mut(slot)?.link.as_mut()
    }

    fn fire_on(&mut self, conn: ConnId, event: Event, cause: Option<Cause>, ctx: &mut Context<'_>) {
        if let Some(slot) = self.slot_of(conn) {
            self.fire(slot, event, cause, ctx);
        }
    }

    fn state_of(&self, conn: ConnId) -> Option<State> {
        Some(self.connection(self.slot_of(conn)?)?.state)
    }

    fn message(&mut self, conn: ConnId, frame: Frame<'_>, ctx: &mut Context<'_>) {
        tracing::trace!(peer = %self.name, ?conn, kind = ?frame.message_type, length = frame.body.len(), "received");
        let received = &mut self.messages.received;
        match frame.message_type {
            MessageType::Open => {
                received.open += 1;
                self.open(conn, frame.body, ctx);
            }
            MessageType::Update => {
                received.update += 1;
                self.update(conn, frame.body, ctx);
            }
            MessageType::Notification => {
                received.notification += 1;
                // The header's check has seen to it that code and subcode are there.
                if let Some(notification) = Notification::decode(frame.body) {
                    self.count_notification(false, &notification);
                    let lost_collision = notification.code == 6
                        && notification.subcode == cease::CONNECTION_COLLISION_RESOLUTION
                        && self.second.is_some();
                    let cause = Cause { quiet: lost_collision, ..Cause::remote(notification) };
                    self.fire_on(conn, Event::NotifMsg, Some(cause), ctx);
                }
            }
            MessageType::Keepalive => {
                received.keepalive += 1;
                self.fire_on(conn, Event::KeepAliveMsg, None, ctx);
            }
            MessageType::RouteRefresh => {
                received.route_refresh += 1;
                self.fire_on(conn, Event::RouteRefreshMsg, None, ctx);
                self.refresh(conn, frame.body, ctx);
            }
        }
    }

    // ---- OPEN

    fn open(&mut self, conn: ConnId, body: &[u8], ctx: &mut Context<'_>) {
        let Some(slot) = self.slot_of(conn) else { return };
        let Some(connection) = self.connection(slot) else { return };
        let (state, link) = (connection.state, connection.link.as_ref());
        let (State::OpenSent, Some(link)) = (state, link) else {
            return self.fire(slot, Event::BgpOpen, None, ctx);
        };
        let local = link.local;
        let opened = match Open::decode(body) {
            Ok(open) => {
                self.count_capabilities(&open.capabilities, ctx);
                self.offer(local, ctx).accept(&open)
            }
            Err(notification) => {
                let text = self.count_open(body, &notification);
                Err((notification, text))
            }
        };
        let negotiated = match opened {
            Ok(negotiated) => negotiated,
            Err((notification, text)) => {
                let cause = Cause::local(notification, &text);
                return self.fire(slot, Event::BgpOpenMsgErr, Some(cause), ctx);
            }
        };
        let other = match slot {
            Slot::Primary => Slot::Second,
            Slot::Second => Slot::Primary,
        };
        match self.collision(slot, other, &negotiated, ctx) {
            Collision::None => {}
            Collision::KeepThis => {
                self.fire(other, Event::OpenCollisionDump, Some(Cause::collision()), ctx);
            }
            Collision::KeepOther => {
                return self.fire(slot, Event::OpenCollisionDump, Some(Cause::collision()), ctx);
            }
            Collision::ReplaceSession => {
                let text = "the peer restarted: it connected anew while the session was up";
                let cause = Cause { retain: true, ..Cause::transport(Reason::Connecting, text) };
                self.fire(other, Event::TcpConnectionFails, Some(cause), ctx);
            }
        }
        // The collision may have made the second machine the primary one.
        let Some(slot) = self.slot_of(conn) else { return };
        if let Some(connection) = self.connection_mut(slot) {
            connection.negotiated = Some(negotiated);
            if let Some(link) = &mut connection.link {
                link.open_at = Some(ctx.now);
                link.open_received.clear();
                encode(MessageType::Open, &mut link.open_received, |out| out.extend_from_slice(body));
            }
        }
        self.fire(slot, Event::BgpOpen, None, ctx);
    }

    /// "Upon receipt of an OPEN message, the local system MUST examine all of its connections that are in the OpenConfirm
    /// state. A BGP speaker MAY also examine connections in an OpenSent state if it knows the BGP Identifier of the peer by
    /// means outside of the protocol" (RFC 4271 §6.8). We know it: this OPEN names it. So both sides come to one verdict
    /// earlier, before either can reach Established on a connection that the other drops.
    fn collision(&self, this: Slot, other: Slot, agreed: &Negotiated, ctx: &Context<'_>) -> Collision {
        let Some(rival) = self.connection(other) else { return Collision::None };
        let initiated = |slot: Slot| self.connection(slot)?.link.as_ref().map(|link| link.initiated);
        let is_young = |since: Instant| ctx.now.saturating_duration_since(since) < COLLISION_WINDOW;
        match rival.state {
            State::Idle | State::Connect | State::Active => Collision::None,
            // One that has been silent for long must not cost us the one that speaks.
            State::OpenSent if !rival.link.as_ref().is_some_and(|link| is_young(link.since)) => {
                Collision::None
            }
            State::OpenSent | State::OpenConfirm if initiated(this) == initiated(other) => {
                // Not a collision: the peer connected twice, so it has given up the older one.
                Collision::KeepThis
            }
            State::OpenSent | State::OpenConfirm => {
                // The side with the higher identifier keeps the connection it dialled; RFC 6286 §2.3: equal identifiers
                // (of two AS) leave it to the AS number.
                let ours = (ctx.router_id, agreed.local_asn);
                let we_decide = ours > (agreed.remote_router_id, agreed.remote_asn);
                if initiated(this) == Some(we_decide) { Collision::KeepThis } else { Collision::KeepOther }
            }
            State::Established => {
                // A peer that dialled before it knew of this session says its OPEN a little later: that is a collision.
                match rival.negotiated.as_ref().and_then(|negotiated| negotiated.graceful_restart.as_ref()) {
                    Some(_) if !is_young(self.since) => Collision::ReplaceSession,
                    Some(_) | None => Collision::KeepOther,
                }
            }
        }
    }

    /// What the RIB has to know about the session.
    pub(super) fn facts(&self, agreed: &Negotiated, local: SocketAddr, ctx: &Context<'_>) -> PeerFacts {
        let offer = self.offer(local, ctx);
        PeerFacts {
            remote_asn: agreed.remote_asn,
            local_asn: agreed.local_asn,
            router_id: agreed.remote_router_id,
            address: self.config.remote,
            families: agreed.families.clone(),
            four_octet_as: agreed.four_octet_as,
            extended_message: agreed.extended_message,
            enhanced_route_refresh: agreed.enhanced_route_refresh,
            next_hop_ipv4: match offer.next_hop(AfiSafi::Ipv4Unicast) {
                Some(IpAddr::V4(address)) => Some(address),
                Some(IpAddr::V6(_)) | None => None,
            },
            next_hop_ipv6: match offer.next_hop(AfiSafi::Ipv6Unicast) {
                Some(IpAddr::V6(address)) => Some(address),
                Some(IpAddr::V4(_)) | None => None,
            },
            link_local: offer.link_local(),
            extended_next_hop: agreed.extended_next_hop,
            long_lived: agreed.knows_long_lived,
            add_path_receive: agreed.add_path_receive.clone(),
            add_path_send: agreed.add_path_send.clone(),
            paths_sent: self.config.add_path.send,
            role: agreed.role,
            reflector_client: self.config.reflector_client,
            import: self.config.import.clone(),
            export: self.config.export.clone(),
            tags: ctx.audiences.tags_of(self.audience()),
        }
    }

    // ---- UPDATE and ROUTE-REFRESH

    fn update(&mut self, conn: ConnId, body: &[u8], ctx: &mut Context<'_>) {
        if self.state_of(conn) != Some(State::Established) {
            return self.fire_on(conn, Event::UpdateMsg, None, ctx);
        }
        let outcome = ctx.rib.update(self.id, body);
        self.count_faults(&outcome.faults, ctx);
        if let Some(fault) = outcome.strongest()
            && let ErrorAction::SessionReset { subcode } = fault.action
        {
            let notification = Notification::with_data(3, subcode, fault.data.clone());
            let cause = Cause::local(notification, &fault.to_string());
            return self.fire_on(conn, Event::UpdateMsgErr, Some(cause), ctx);
        }
        self.fire_on(conn, Event::UpdateMsg, None, ctx);
        if let Some(family) = outcome.end_of_rib {
            self.end_of_rib_received(family, ctx);
        }
        if outcome.announced > 0 || outcome.withdrawn > 0 {
            self.check_limits(ctx);
        }
    }

    /// Compares what the peer announces with its limits (RFC 4271 §6.7, RFC 4486 §4). What is left from before its restart, or is to be
    /// told anew in a refresh, is not announced by it: with path identifiers the same routes may stand there twice meanwhile. Above
    /// twice the limit all counts: the limit is there for our memory.
    pub(super) fn check_limits(&mut self, ctx: &mut Context<'_>) {
        let Some(negotiated) = self.established() else { return };
        let limits = self.config.max_prefixes;
        for family in negotiated.families.clone() {
            let (held, limit) = (ctx.rib.counts(self.id, family), limits.limit(family));
            let is_twice = u64::from(held.received) > 2 * u64::from(limit);
            let count = if is_twice { held.received } else { held.received.saturating_sub(held.stale) };
            let warn_at = u64::from(limit) * u64::from(limits.warn_percent);
            let is_near = |count: u32| u64::from(count) * 100 >= warn_at && limits.warn_percent < 100;
            let near = is_near(count);
            let peer = || self.name.clone();
            if near && self.near_limit.insert(family) {
                ctx.event(SessionEvent::PrefixLimitNear { peer: peer(), family, count, limit });
            } else if !is_near(held.received) {
                self.near_limit.remove(&family);
            }
            if held.received <= limit {
                self.above_limit.remove(&family);
            }
            if count <= limit {
                continue;
            }
            if self.above_limit.insert(family) {
                ctx.event(SessionEvent::PrefixLimitReached { peer: peer(), family, count, limit });
            }
            match limits.action {
                MaxPrefixesAction::Warn => {}
                MaxPrefixesAction::Shutdown => return self.shut_down_for_limit(family, count, limit, ctx),
            }
        }
    }

    fn shut_down_for_limit(&mut self, family: AfiSafi, count: u32, limit: u32, ctx: &mut Context<'_>) {
        let mut data = family.afi().to_be_bytes().to_vec();
        data.push(family.safi());
        data.extend_from_slice(&limit.to_be_bytes());
        let notification = Notification::with_data(6, cease::MAXIMUM_NUMBER_OF_PREFIXES_REACHED, data);
        let text = format!("received {} of {} {family}", grouped(count), grouped(limit));
        let pause = self.config.max_prefixes.restart_after;
        let then = Then::HoldFor((!pause.is_zero()).then_some(pause));
        self.halt(Cause { then, ..Cause::local(notification, &text) }, ctx);
    }

    fn refresh(&mut self, conn: ConnId, body: &[u8], ctx: &mut Context<'_>) {
        let Some(refresh) = RouteRefresh::decode(body) else { return };
        let Some(negotiated) = self.established().filter(|_| self.state_of(conn) == Some(State::Established))
        else {
            return;
        };
        let enhanced = negotiated.enhanced_route_refresh;
        if enhanced && matches!(refresh.subtype, BEGIN | END) && body.len() != 4 {
            // RFC 7313 §5: the data is the whole message.
            let mut message = Vec::new();
            encode(MessageType::RouteRefresh, &mut message, |out| out.extend_from_slice(body));
            let notification = Notification::with_data(7, refresh_error::INVALID_MESSAGE_LENGTH, message);
            let cause = Cause::local(notification, "the border of a refresh is not four octets long");
            return self.fire_on(conn, Event::UpdateMsgErr, Some(cause), ctx);
        }
        // "If a BGP speaker receives … an AFI/SAFI that the speaker didn't advertise … SHALL ignore" (RFC 2918 §4)
        let family = AfiSafi::from_numbers(refresh.afi, refresh.safi);
        let Some(family) = family.filter(|family| negotiated.families.contains(family)) else { return };
        // RFC 7313 §4: not before End-of-RIB where one is to come.
        let told = negotiated.graceful_restart.is_none() || self.end_of_rib.contains(&family);
        match refresh.subtype {
            REQUEST => ctx.rib.refresh(self.id, family),
            // What was told since the first of several beginnings stays what was told.
            BEGIN if self.refreshing.contains_key(&family) => {}
            BEGIN if enhanced && told => {
                ctx.rib.begin_refresh(self.id, family);
                self.refreshing.insert(family, ctx.now + self.config.graceful_restart.stale_time);
            }
            END if self.refreshing.remove(&family).is_some() => self.refreshed(family, ctx),
            // Borders that nobody asked for, and subtypes that nobody defined (RFC 7313 §5).
            subtype => tracing::debug!(peer = %self.name, %family, subtype, "ROUTE-REFRESH ignored"),
        }
    }

    /// What the peer has not told anew is gone (RFC 7313 §4.2).
    fn refreshed(&mut self, family: AfiSafi, ctx: &mut Context<'_>) {
        let gone = ctx.rib.sweep_stale(self.id, family);
        tracing::debug!(peer = %self.name, %family, gone, "refreshed");
    }

    /// "an implementation MAY impose a locally configurable upper bound on how long it would retain any stale routes"
    /// (RFC 7313 §4.2)
    pub(super) fn refresh_timeout(&mut self, ctx: &mut Context<'_>) {
        while let Some((family, _)) = self.refreshing.iter().find(|(_, until)| **until <= ctx.now) {
            let family = *family;
            self.refreshing.remove(&family);
            self.refreshed(family, ctx);
        }
    }

    /// Asks the peer to send a family again. `false`: no session, or the peer does not answer such a request.
    pub(crate) fn request_refresh(&mut self, family: AfiSafi, ctx: &mut Context<'_>) -> bool {
        let agreed = self.established().is_some_and(|n| n.route_refresh && n.families.contains(&family));
        if agreed {
            let refresh = RouteRefresh { afi: family.afi(), subtype: REQUEST, safi: family.safi() };
            self.messages.sent.route_refresh += 1;
            self.send(Slot::Primary, MessageType::RouteRefresh, ctx, |out| refresh.encode(out));
        }
        agreed
    }

    /// Tells the peer a family again, as if it had asked for it.
    pub(crate) fn tell_again(&mut self, family: AfiSafi, ctx: &mut Context<'_>) {
        if self.established().is_some_and(|negotiated| negotiated.families.contains(&family)) {
            ctx.rib.refresh(self.id, family);
        }
    }
}

/// 5000 as 5,000.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
