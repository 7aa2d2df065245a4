//! Our OPEN, the peer's OPEN, and what follows from both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::config::{AddPath, GracefulRestartMode, PeerConfig, RemoteAsn};
use crate::link_local;
use crate::output::NegotiatedStatus;
use crate::types::{AfiSafi, Asn, RouterId};
use crate::wire::notification::{Notification, open};
use crate::wire::{
    AddPathFamily, Capability, ExtendedNextHop, GracefulRestartCapability, LongLivedFamily, Open,
    RestartFamily, Role,
};

/// What we say about our own restart in an OPEN (RFC 4724 §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRestart {
    /// R: we have restarted.
    pub restarting: bool,
    /// F: the families whose forwarding state survived.
    pub forwarding: BTreeSet<AfiSafi>,
}

/// What two OPENs agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Our AS on this session.
    pub local_asn: Asn,
    /// The peer's AS.
    pub remote_asn: Asn,
    /// The peer's BGP Identifier.
    pub remote_router_id: RouterId,
    /// The smaller of both proposals; zero: no keepalives, no hold timer.
    pub hold_time: Duration,
    /// Between two KEEPALIVEs of ours, before jitter.
    pub keepalive: Duration,
    /// Families both sides offered.
    pub families: BTreeSet<AfiSafi>,
    /// AS numbers have four octets in both directions (RFC 6793).
    pub four_octet_as: bool,
    /// The peer answers ROUTE-REFRESH.
    pub route_refresh: bool,
    /// The beginning and the end of a refresh are told, both ways (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// The peer takes messages of up to 65,535 octets (RFC 8654); so do we.
    pub extended_message: bool,
    /// IPv4 prefixes have IPv6 next hops, both ways (RFC 8950).
    pub extended_next_hop: bool,
    /// The peer's graceful-restart capability, where we sent ours; its N bit only where ours is set.
    pub graceful_restart: Option<GracefulRestartCapability>,
    /// The peer's long-lived graceful-restart capability, where we sent ours (RFC 9494).
    pub long_lived: Vec<LongLivedFamily>,
    /// The peer sent that capability: it knows what a long-lived stale route is.
    pub knows_long_lived: bool,
    /// Families in which the peer sends several paths per prefix (RFC 7911).
    pub add_path_receive: BTreeSet<AfiSafi>,
    /// Families in which we do.
    pub add_path_send: BTreeSet<AfiSafi>,
    /// Our role, where we have one (RFC 9234).
    pub role: Option<Role>,
    /// The peer said the role that goes with ours.
    pub role_agreed: bool,
}

impl Negotiated {
    /// Whether the session is with another AS.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.local_asn != self.remote_asn
    }

    /// The families whose routes are kept when this session's connection is lost: those the peer named (RFC 4724 §4.2).
    #[must_use]
    pub fn retained_families(&self) -> BTreeSet<AfiSafi> {
        let Some(restart) = &self.graceful_restart else { return BTreeSet::new() };
        self.families.iter().copied().filter(|family| restart.family(*family).is_some()).collect()
    }

    /// Whether NOTIFICATIONs and the hold timer end a session without its routes (RFC 8538): both sides sent the N bit.
    #[must_use]
    pub fn survives_notifications(&self) -> bool {
        self.graceful_restart.as_ref().is_some_and(|restart| restart.notification)
    }

    /// What the peer says of one family's long-lived stale routes; `None`: none are kept.
    #[must_use]
    pub fn long_lived_family(&self, family: AfiSafi) -> Option<&LongLivedFamily> {
        self.long_lived.iter().find(|entry| (entry.afi, entry.safi) == (family.afi(), family.safi()))
    }

    /// Takes over another configured interval without a new OPEN: it is ours alone.
    pub(crate) fn set_keepalive(&mut self, configured: Option<Duration>) {
        self.keepalive = keepalive_interval(configured, self.hold_time);
    }

    /// As shown to people.
    #[must_use]
    pub fn status(&self) -> NegotiatedStatus {
        let mut capabilities = Vec::new();
        for (name, agreed) in [
            ("AddPath", !self.add_path_receive.is_empty() || !self.add_path_send.is_empty()),
            ("EnhancedRouteRefresh", self.enhanced_route_refresh),
            ("ExtendedMessage", self.extended_message),
            ("ExtendedNextHop", self.extended_next_hop),
            ("FourOctetASN", self.four_octet_as),
            ("GracefulRestart", self.graceful_restart.is_some()),
            ("GracefulRestartNotification", self.survives_notifications()),
            ("LongLivedGracefulRestart", !self.long_lived.is_empty()),
            ("Role", self.role_agreed),
            ("RouteRefresh", self.route_refresh),
        ] {
            if agreed {
                capabilities.push(name);
            }
        }
        NegotiatedStatus {
            local_asn: self.local_asn,
            remote_asn: self.remote_asn,
            remote_router_id: self.remote_router_id,
            hold_time: whole_seconds(self.hold_time),
            keepalive: whole_seconds(self.keepalive),
            capabilities,
            families: self.families.iter().copied().collect(),
            restart_time: self.graceful_restart.as_ref().map(|restart| restart.restart_time),
            long_lived_stale_time: self.long_lived.iter().map(|entry| entry.stale_time).max(),
        }
    }
}

/// Our side of a session, before the peer has spoken.
#[derive(Debug, Clone)]
pub struct Offer<'a> {
    /// Our AS towards this peer.
    pub asn: Asn,
    /// Our BGP Identifier.
    pub router_id: RouterId,
    /// The session's local address: a next hop where none is configured.
    pub local: IpAddr,
    /// The peer's configuration.
    pub config: &'a PeerConfig,
}

impl Offer<'_> {
    /// The families that can be offered: configured, and with an address to announce as next hop.
    #[must_use]
    pub fn families(&self) -> BTreeSet<AfiSafi> {
        let has_next_hop = |family: &AfiSafi| match family {
            AfiSafi::Ipv4Unicast => self.next_hop(*family).is_some() || self.offers_extended_next_hop(),
            AfiSafi::Ipv6Unicast => self.has_ipv6_next_hop(),
        };
        self.config.families.iter().copied().filter(has_next_hop).collect()
    }

    /// IPv4 prefixes with IPv6 next hops: where it is wanted, and there is an address for it.
    fn offers_extended_next_hop(&self) -> bool {
        self.config.extended_next_hop
            && self.config.families.contains(&AfiSafi::Ipv4Unicast)
            && self.has_ipv6_next_hop()
    }

    fn has_ipv6_next_hop(&self) -> bool {
        self.next_hop(AfiSafi::Ipv6Unicast).is_some() || self.link_local().is_some()
    }

    /// Our address on the link where the session runs on link-local ones.
    #[must_use]
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        link_local::parts(self.local).map(|(address, _)| address)
    }

    /// Our next hop for a family, other than [`Offer::link_local`].
    #[must_use]
    pub fn next_hop(&self, family: AfiSafi) -> Option<IpAddr> {
        let configured = match family {
            AfiSafi::Ipv4Unicast => self.config.next_hop.ipv4.map(IpAddr::V4),
            AfiSafi::Ipv6Unicast => self.config.next_hop.ipv6.map(IpAddr::V6),
        };
        let is_usable = AfiSafi::of_address(self.local) == family && self.link_local().is_none();
        configured.or_else(|| is_usable.then_some(self.local))
    }

    /// The OPEN we send.
    #[must_use]
    pub fn open(&self, restart: &OwnRestart) -> Open {
        let families = self.families();
        let mut capabilities: Vec<Capability> =
            families.iter().map(|f| Capability::multiprotocol(*f)).collect();
        capabilities.push(Capability::RouteRefresh);
        if self.offers_extended_next_hop() {
            capabilities.push(Capability::ExtendedNextHop(vec![ExtendedNextHop::IPV4_VIA_IPV6]));
        }
        capabilities.push(Capability::ExtendedMessage);
        capabilities.extend(self.role().map(Capability::Role));
        capabilities.push(Capability::FourOctetAsn(self.asn));
        capabilities.extend(self.add_path());
        capabilities.push(Capability::EnhancedRouteRefresh);
        self.restart_capabilities(restart, &mut capabilities);
        Open {
            my_as: self.asn.two_octets(),
            hold_time: self.hold_time(),
            router_id: self.router_id,
            capabilities,
        }
    }

    /// The role that we say: towards what is configured as another AS (RFC 9234 §4.1: eBGP only).
    fn role(&self) -> Option<Role> {
        let internal = match self.config.remote_asn {
            RemoteAsn::Exactly(asn) => asn == self.asn,
            RemoteAsn::External => false,
            RemoteAsn::Internal => true,
        };
        self.config.role.filter(|_| !internal)
    }

    fn add_path(&self) -> Option<Capability> {
        let (receive, send) = (self.config.add_path.receive, self.config.add_path.send > 0);
        let entry = |family: AfiSafi| AddPathFamily { afi: family.afi(), safi: family.safi(), receive, send };
        (receive || send).then(|| Capability::AddPath(self.families().into_iter().map(entry).collect()))
    }

    /// Graceful restart, long-lived or not: the second only with the first (RFC 9494 §4.1).
    fn restart_capabilities(&self, restart: &OwnRestart, capabilities: &mut Vec<Capability>) {
        let families = self.families();
        let settings = &self.config.graceful_restart;
        let named = match settings.mode {
            GracefulRestartMode::Full => Some(families),
            GracefulRestartMode::Helper => Some(BTreeSet::new()),
            GracefulRestartMode::Disabled => None,
        };
        let Some(named) = named else { return };
        let stale_time = u32::try_from(settings.long_lived_stale_time.as_secs()).unwrap_or(u32::MAX);
        let long_lived = (stale_time > 0).then(|| {
            let entry = |family: &AfiSafi| LongLivedFamily {
                afi: family.afi(),
                safi: family.safi(),
                forwarding: restart.forwarding.contains(family),
                stale_time: stale_time.min(0xff_ffff),
            };
            Capability::LongLivedGracefulRestart(named.iter().map(entry).collect())
        });
        capabilities.push(Capability::GracefulRestart(GracefulRestartCapability {
            restarting: restart.restarting,
            notification: settings.notification,
            restart_time: whole_seconds(settings.restart_time).min(4095),
            families: named
                .into_iter()
                .map(|family| RestartFamily {
                    afi: family.afi(),
                    safi: family.safi(),
                    forwarding: restart.forwarding.contains(&family),
                })
                .collect(),
        }));
        capabilities.extend(long_lived);
    }

    /// Judges the peer's OPEN (RFC 4271 §6.2).
    ///
    /// # Errors
    /// The NOTIFICATION to send and a text for our operator.
    pub fn accept(&self, theirs: &Open) -> Result<Negotiated, (Notification, String)> {
        let remote_asn = theirs.asn();
        // RFC 7607 §2: 0 is nobody's, whatever the capability says.
        self.check_asn(if theirs.my_as == 0 { Asn(0) } else { remote_asn })?;
        // RFC 6286 §2.1: within an AS identifiers differ; towards another AS equal ones are fine.
        if remote_asn == self.asn && theirs.router_id == self.router_id {
            let data = theirs.router_id.0.octets();
            return Err((
                Notification::with_data(2, open::BAD_BGP_IDENTIFIER, data),
                format!("the peer has our own BGP identifier {}", theirs.router_id),
            ));
        }
        let ours = self.families();
        let offered = offered_families(theirs);
        let extended_next_hop = self.offers_extended_next_hop() && takes_ipv4_via_ipv6(theirs);
        let mut families: BTreeSet<AfiSafi> = ours.intersection(&offered).copied().collect();
        // The peer goes by what both OPENs say: it puts identifiers also in a family that we come to leave out below, and only who
        // knows that can read past its prefixes.
        let told = add_path_of(theirs, &families);
        let lacks_next_hop = !extended_next_hop
            && self.next_hop(AfiSafi::Ipv4Unicast).is_none()
            && families.remove(&AfiSafi::Ipv4Unicast);
        if families.is_empty() {
            return Err(no_common_family(&ours, &offered, lacks_next_hop));
        }
        let role = self.role().filter(|_| remote_asn != self.asn);
        let role_agreed = self.check_role(role, theirs)?;
        let hold_time = Duration::from_secs(u64::from(self.hold_time().min(theirs.hold_time)));
        let settings = &self.config.graceful_restart;
        let speaks_graceful_restart = match settings.mode {
            GracefulRestartMode::Full | GracefulRestartMode::Helper => true,
            GracefulRestartMode::Disabled => false,
        };
        let mut graceful_restart = graceful_restart_of(theirs).filter(|_| speaks_graceful_restart);
        if let Some(restart) = &mut graceful_restart {
            restart.notification &= settings.notification;
        }
        let long_lived = match graceful_restart.is_some() && !settings.long_lived_stale_time.is_zero() {
            true => long_lived_of(theirs).unwrap_or_default(),
            false => Vec::new(),
        };
        let add_path = add_path_of(theirs, &families);
        let AddPath { receive, send } = self.config.add_path;
        Ok(Negotiated {
            local_asn: self.asn,
            remote_asn,
            remote_router_id: theirs.router_id,
            hold_time,
            keepalive: keepalive_interval(self.config.keepalive, hold_time),
            families,
            four_octet_as: theirs.four_octet_asn().is_some(),
            route_refresh: theirs.capabilities.contains(&Capability::RouteRefresh),
            enhanced_route_refresh: theirs.capabilities.contains(&Capability::EnhancedRouteRefresh),
            extended_next_hop,
            extended_message: theirs.capabilities.contains(&Capability::ExtendedMessage),
            graceful_restart,
            knows_long_lived: long_lived_of(theirs).is_some(),
            long_lived,
            // RFC 7911 §4: a direction is agreed where one side receives and the other one sends.
            add_path_receive: families_where(&told, |peer| receive && peer.send),
            add_path_send: families_where(&add_path, |peer| send > 0 && peer.receive),
            role,
            role_agreed,
        })
    }

    /// RFC 9234 §4.2: whether the peer said the role that goes with ours. None is fine unless we are strict.
    fn check_role(&self, ours: Option<Role>, theirs: &Open) -> Result<bool, (Notification, String)> {
        let Some(ours) = ours else { return Ok(false) };
        let mut said = None;
        let mismatch = |text: String| (Notification::new(2, open::ROLE_MISMATCH), text);
        for capability in &theirs.capabilities {
            if let Capability::Other { code: 9, value } = capability {
                return Err(mismatch(format!("the peer says a role that nobody defined: {value:?}")));
            }
            if let Capability::Role(role) = capability {
                if said.is_some_and(|said| said != *role) {
                    return Err(mismatch("the peer says several roles".to_owned()));
                }
                said = Some(*role);
            }
        }
        let wanted = ours.opposite().as_str();
        match said {
            Some(said) if said == ours.opposite() => Ok(true),
            Some(said) => {
                let (said, ours) = (said.as_str(), ours.as_str());
                Err(mismatch(format!("the peer says role {said}; to our {ours} belongs {wanted}")))
            }
            None if self.config.role_strict => {
                Err(mismatch(format!("the peer says no role; roleStrict asks for {wanted}")))
            }
            None => Ok(false),
        }
    }

    fn check_asn(&self, theirs: Asn) -> Result<(), (Notification, String)> {
        let (acceptable, expected) = match self.config.remote_asn {
            RemoteAsn::Exactly(asn) => (theirs == asn, format!("AS {asn}")),
            RemoteAsn::External => (theirs != self.asn, format!("any AS but ours, {}", self.asn)),
            RemoteAsn::Internal => (theirs == self.asn, format!("our own AS {}", self.asn)),
        };
        // RFC 7607: AS 0 is nobody's.
        if acceptable && theirs != Asn(0) {
            return Ok(());
        }
        let text = format!("the peer says AS {theirs}, expected {expected}");
        Err((Notification::with_data(2, open::BAD_PEER_AS, theirs.two_octets().to_be_bytes()), text))
    }

    /// What we propose, seconds: 0 or at least 3.
    fn hold_time(&self) -> u16 {
        match whole_seconds(self.config.hold_time) {
            0 => 0,
            seconds => seconds.max(3),
        }
    }
}

/// "KEEPALIVE messages MUST NOT be sent more frequently than one per second" (RFC 4271 §4.4).
pub(crate) const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// A third of the hold time (RFC 4271 §10), or less where configured; never more often than [`LEAST_INTERVAL`].
fn keepalive_interval(configured: Option<Duration>, hold_time: Duration) -> Duration {
    let third = hold_time / 3;
    configured.map_or(third, |interval| interval.max(LEAST_INTERVAL).min(third))
}

/// The families of the peer's OPEN that we know. Without any multiprotocol capability it is IPv4 unicast (RFC 4760 §8).
fn offered_families(open: &Open) -> BTreeSet<AfiSafi> {
    let mut any = false;
    let mut offered = BTreeSet::new();
    for capability in &open.capabilities {
        if let Capability::Multiprotocol { afi, safi } = capability {
            any = true;
            offered.extend(AfiSafi::from_numbers(*afi, *safi));
        }
    }
    if !any {
        offered.insert(AfiSafi::Ipv4Unicast);
    }
    offered
}

/// RFC 8950 §4: the peer understands IPv6 next hops of IPv4 prefixes.
fn takes_ipv4_via_ipv6(open: &Open) -> bool {
    open.capabilities.iter().any(|capability| {
        matches!(capability, Capability::ExtendedNextHop(list) if list.contains(&ExtendedNextHop::IPV4_VIA_IPV6))
    })
}

/// "If more than one instance of the capability is advertised, the receiver MUST ignore all but the last" (RFC 4724 §3).
fn graceful_restart_of(open: &Open) -> Option<GracefulRestartCapability> {
    open.capabilities.iter().rev().find_map(|capability| {
        if let Capability::GracefulRestart(restart) = capability { Some(restart.clone()) } else { None }
    })
}

/// As [`graceful_restart_of`] (RFC 9494 §4.1).
fn long_lived_of(open: &Open) -> Option<Vec<LongLivedFamily>> {
    open.capabilities.iter().rev().find_map(|capability| {
        if let Capability::LongLivedGracefulRestart(list) = capability { Some(list.clone()) } else { None }
    })
}

fn families_where(
    said: &BTreeMap<AfiSafi, AddPathFamily>,
    holds: impl Fn(&AddPathFamily) -> bool,
) -> BTreeSet<AfiSafi> {
    said.iter().filter(|(_, peer)| holds(peer)).map(|(family, _)| *family).collect()
}

/// What the peer says of several paths in the families of the session; of two entries the last counts.
fn add_path_of(open: &Open, families: &BTreeSet<AfiSafi>) -> BTreeMap<AfiSafi, AddPathFamily> {
    let mut said = BTreeMap::new();
    for capability in &open.capabilities {
        if let Capability::AddPath(list) = capability {
            for entry in list {
                let family = AfiSafi::from_numbers(entry.afi, entry.safi);
                said.extend(family.filter(|f| families.contains(f)).map(|family| (family, *entry)));
            }
        }
    }
    said
}

/// The refusal of a peer with which no family is left (RFC 5492 §5). `lacks_next_hop`: IPv4 would be, had the peer said that it takes
/// IPv6 next hops for it.
fn no_common_family(
    ours: &BTreeSet<AfiSafi>,
    offered: &BTreeSet<AfiSafi>,
    lacks_next_hop: bool,
) -> (Notification, String) {
    let mut data = Vec::new();
    for family in ours {
        Capability::multiprotocol(*family).encode(&mut data);
    }
    let mut text = format!("no family in common: we offer {}, the peer {}", names(ours), names(offered));
    if lacks_next_hop {
        text.push_str(
            "; IPv4Unicast needs the peer's extended next hop capability (RFC 8950), for we have no IPv4 address on this session",
        );
    }
    (Notification::with_data(2, open::UNSUPPORTED_CAPABILITY, data), text)
}

fn names(families: &BTreeSet<AfiSafi>) -> String {
    match families.iter().map(|family| family.as_str()).collect::<Vec<_>>() {
        names if names.is_empty() => "none".to_owned(),
        names => names.join(", "),
    }
}

/// Whole seconds, as OPEN carries them.
fn whole_seconds(duration: Duration) -> u16 {
    u16::try_from(duration.as_secs()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
