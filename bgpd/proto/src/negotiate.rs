//! Our OPEN, the peer's OPEN, and what follows from both.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::{GracefulRestartMode, PeerConfig, RemoteAsn};
use crate::output::NegotiatedStatus;
use crate::types::{AfiSafi, Asn, RouterId};
use crate::wire::notification::{Notification, open};
use crate::wire::{Capability, GracefulRestartCapability, Open, RestartFamily};

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
    /// The peer's graceful-restart capability, where we sent ours.
    pub graceful_restart: Option<GracefulRestartCapability>,
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

    /// Takes over another configured interval without a new OPEN: it is ours alone.
    pub(crate) fn set_keepalive(&mut self, configured: Option<Duration>) {
        self.keepalive = keepalive_interval(configured, self.hold_time);
    }

    /// As shown to people.
    #[must_use]
    pub fn status(&self) -> NegotiatedStatus {
        let mut capabilities = Vec::new();
        for (name, agreed) in [
            ("FourOctetASN", self.four_octet_as),
            ("GracefulRestart", self.graceful_restart.is_some()),
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
        self.config.families.iter().copied().filter(|family| self.next_hop(*family).is_some()).collect()
    }

    /// Our next hop for a family.
    #[must_use]
    pub fn next_hop(&self, family: AfiSafi) -> Option<IpAddr> {
        let configured = match family {
            AfiSafi::Ipv4Unicast => self.config.next_hop.ipv4.map(IpAddr::V4),
            AfiSafi::Ipv6Unicast => self.config.next_hop.ipv6.map(IpAddr::V6),
        };
        configured.or_else(|| (AfiSafi::of_address(self.local) == family).then_some(self.local))
    }

    /// The OPEN we send.
    #[must_use]
    pub fn open(&self, restart: &OwnRestart) -> Open {
        let families = self.families();
        let mut capabilities: Vec<Capability> =
            families.iter().map(|f| Capability::multiprotocol(*f)).collect();
        capabilities.push(Capability::RouteRefresh);
        capabilities.push(Capability::FourOctetAsn(self.asn));
        let settings = &self.config.graceful_restart;
        let named = match settings.mode {
            GracefulRestartMode::Full => Some(families),
            GracefulRestartMode::Helper => Some(BTreeSet::new()),
            GracefulRestartMode::Disabled => None,
        };
        if let Some(named) = named {
            capabilities.push(Capability::GracefulRestart(GracefulRestartCapability {
                restarting: restart.restarting,
                notification: false,
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
        }
        Open {
            my_as: self.asn.two_octets(),
            hold_time: self.hold_time(),
            router_id: self.router_id,
            capabilities,
        }
    }

    /// Judges the peer's OPEN (RFC 4271 §6.2).
    ///
    /// # Errors
    /// The NOTIFICATION to send and a text for our operator.
    pub fn accept(&self, theirs: &Open) -> Result<Negotiated, (Notification, String)> {
        let remote_asn = theirs.asn();
        self.check_asn(remote_asn)?;
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
        let families: BTreeSet<AfiSafi> = ours.intersection(&offered).copied().collect();
        if families.is_empty() {
            let mut data = Vec::new();
            for family in &ours {
                Capability::multiprotocol(*family).encode(&mut data);
            }
            return Err((
                Notification::with_data(2, open::UNSUPPORTED_CAPABILITY, data),
                format!("no family in common: we offer {}, the peer {}", names(&ours), names(&offered)),
            ));
        }
        let hold_time = Duration::from_secs(u64::from(self.hold_time().min(theirs.hold_time)));
        let speaks_graceful_restart = match self.config.graceful_restart.mode {
            GracefulRestartMode::Full | GracefulRestartMode::Helper => true,
            GracefulRestartMode::Disabled => false,
        };
        Ok(Negotiated {
            local_asn: self.asn,
            remote_asn,
            remote_router_id: theirs.router_id,
            hold_time,
            keepalive: keepalive_interval(self.config.keepalive, hold_time),
            families,
            four_octet_as: theirs.four_octet_asn().is_some(),
            route_refresh: theirs.capabilities.contains(&Capability::RouteRefresh),
            graceful_restart: graceful_restart_of(theirs).filter(|_| speaks_graceful_restart),
        })
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

/// A third of the hold time (RFC 4271 §10), or less where configured; never more often than once a second (§4.4).
fn keepalive_interval(configured: Option<Duration>, hold_time: Duration) -> Duration {
    let third = hold_time / 3;
    configured.map_or(third, |interval| interval.max(Duration::from_secs(1)).min(third))
}

/// The families of the peer's OPEN that we know. Without any multiprotocol capability it is IPv4 unicast (RFC 4760 §8).
fn offered_families(open: &Open) -> BTreeSet<AfiSafi> {
    let mut any = false;
    let mut offered = BTreeSet::new();
    for capability in &open.capabilities {
        match capability {
            Capability::Multiprotocol { afi, safi } => {
                any = true;
                offered.extend(AfiSafi::from_numbers(*afi, *safi));
            }
            Capability::RouteRefresh
            | Capability::GracefulRestart(_)
            | Capability::FourOctetAsn(_)
            | Capability::Other { .. } => {}
        }
    }
    if !any {
        offered.insert(AfiSafi::Ipv4Unicast);
    }
    offered
}

/// "If more than one instance of the capability is advertised, the receiver MUST ignore all but the last" (RFC 4724 §3).
fn graceful_restart_of(open: &Open) -> Option<GracefulRestartCapability> {
    open.capabilities.iter().rev().find_map(|capability| match capability {
        Capability::GracefulRestart(restart) => Some(restart.clone()),
        Capability::Multiprotocol { .. }
        | Capability::RouteRefresh
        | Capability::FourOctetAsn(_)
        | Capability::Other { .. } => None,
    })
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
