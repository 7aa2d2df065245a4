//! The whole desired configuration, as one value.
//!
//! The shell hands in a complete [`SpeakerConfig`] whenever anything changed ([`crate::Input::Configure`]); the speaker
//! compares it with the one in force. What is equal is not touched. What a running session can take over is applied to
//! it (policies, prefix limits, retry and damping, graceful-restart times for the next OPEN); what was agreed in an OPEN
//! or decides who the peer is (addresses, AS numbers, families, hold time, hops) resets that one session with
//! Cease/Other Configuration Change (RFC 4486).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use crate::output::Reason;
use crate::policy::{ExportPolicy, ImportPolicy};
use crate::types::{AfiSafi, Asn, PeerName, RouterId};
use crate::wire::Role;

/// Everything the speaker should do, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our AS. A peer may see another one: [`PeerConfig::local_asn`].
    pub asn: Asn,
    /// Our BGP Identifier; a change resets every session.
    pub router_id: RouterId,
    /// How many equally good paths one FIB route may have; 1 is no multipath, 0 counts as 1.
    pub max_paths: u16,
    /// How long after a start with forwarding state in the kernel route selection waits for End-of-RIB at the most
    /// (RFC 4724 §4.1, Selection_Deferral_Timer).
    pub selection_deferral: Duration,
    /// The peers by name. A name that is gone is shut down with Cease/Peer De-configured.
    pub peers: BTreeMap<PeerName, PeerConfig>,
    /// Neighbours that dial us, by prefix. Each becomes a peer `<name>.<address>` (in which a colon is a `-`), and is told what
    /// an audience with the range's name is told.
    pub ranges: BTreeMap<PeerName, RangeConfig>,
}

/// Neighbours of one prefix, as many as dial us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeConfig {
    /// Who may dial. Of several ranges that hold an address the longest counts, of equal ones the first by name.
    pub prefix: IpNet,
    /// How many peers there may be at a time; whoever comes then is refused.
    pub limit: u16,
    /// The settings of each; its `remote` and `passive` mean nothing.
    pub peer: PeerConfig,
}

impl SpeakerConfig {
    /// A speaker without peers: 16 paths, 120 s of deferral.
    #[must_use]
    pub fn new(asn: Asn, router_id: RouterId) -> SpeakerConfig {
        SpeakerConfig {
            asn,
            router_id,
            max_paths: 16,
            selection_deferral: Duration::from_secs(120),
            peers: BTreeMap::new(),
            ranges: BTreeMap::new(),
        }
    }

    /// The range that an address belongs to.
    #[must_use]
    pub fn range_of(&self, address: IpAddr) -> Option<(&PeerName, &RangeConfig)> {
        let holding = self.ranges.iter().rev().filter(|(_, range)| range.prefix.contains(&address));
        holding.max_by_key(|(_, range)| range.prefix.prefix_len())
    }
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its address; a link-local one with its interface ([`crate::link_local`]). Two peers with one address: the first by name is served, the other stays Idle and
    /// [`crate::SessionEvent::PeerRefused`] says so.
    pub remote: IpAddr,
    /// The TCP port dialled.
    pub port: u16,
    /// Which AS it may claim.
    pub remote_asn: RemoteAsn,
    /// The AS we claim towards it alone, no-prepend and replace-as (RFC 7705); `None` is [`SpeakerConfig::asn`].
    pub local_asn: Option<Asn>,
    /// The address to dial from; `None` leaves it to the kernel. A connection that arrives on another one is refused.
    pub local_address: Option<IpAddr>,
    /// The families offered. One without a next hop ([`PeerConfig::next_hop`] or the session's own address) is not offered.
    pub families: BTreeSet<AfiSafi>,
    /// What we announce as next hop where we announce ourselves.
    pub next_hop: NextHopSelf,
    /// IPv4 prefixes go with our IPv6 address as next hop, and come with the peer's, where the peer agrees (RFC 8950). Where it does
    /// not, IPv4 is carried only if there is an IPv4 next hop.
    pub extended_next_hop: bool,
    /// The hold time proposed; 0 switches keepalives off, else at least 3 s. Whole seconds.
    pub hold_time: Duration,
    /// The longest interval between our keepalives; a third of the hold time agreed where `None` or longer.
    pub keepalive: Option<Duration>,
    /// The pause between two attempts to connect; jittered to 75–100 %.
    pub connect_retry: Duration,
    /// Never dial, only listen.
    pub passive: bool,
    /// How many hops away the peer may be: 1 is a direct neighbour. Handed through to [`crate::Output::Dial`].
    pub max_hops: u8,
    /// What the peer sends must have come over at most `max_hops` links (RFC 5082). The shell sees to it, on the sockets.
    pub ttl_security: bool,
    /// Segments are signed (RFC 2385). The shell has the key and sees to it; here a session that begins or ceases to be
    /// signed is another session.
    pub signed: bool,
    /// Graceful restart (RFC 4724).
    pub graceful_restart: GracefulRestart,
    /// Several paths per prefix (RFC 7911).
    pub add_path: AddPath,
    /// Our part in the relation to the peer's AS (RFC 9234); external peers only.
    pub role: Option<Role>,
    /// A peer that says no role is refused.
    pub role_strict: bool,
    /// The peer is a client of ours, a route reflector (RFC 4456); internal peers only.
    pub reflector_client: bool,
    /// Limits on what the peer may announce.
    pub max_prefixes: MaxPrefixes,
    /// What is taken from the peer.
    pub import: ImportPolicy,
    /// What is told to the peer.
    pub export: ExportPolicy,
    /// Whether the session should be up.
    pub admin: AdminState,
}

impl PeerConfig {
    /// Whether the peer may have kept our routes over our restart, and tell its own again.
    pub(crate) fn may_help(&self) -> bool {
        self.admin.may_come() && self.graceful_restart.mode != GracefulRestartMode::Disabled
    }

    /// A peer with the built-in session settings, both families, `import` and `export` as given.
    #[must_use]
    pub fn new(
        remote: IpAddr,
        remote_asn: RemoteAsn,
        import: ImportPolicy,
        export: ExportPolicy,
    ) -> PeerConfig {
        PeerConfig {
            remote,
            port: 179,
            remote_asn,
            local_asn: None,
            local_address: None,
            families: AfiSafi::ALL.into_iter().collect(),
            next_hop: NextHopSelf::default(),
            extended_next_hop: false,
            hold_time: Duration::from_secs(30),
            keepalive: None,
            connect_retry: Duration::from_secs(5),
            passive: false,
            max_hops: 1,
            ttl_security: false,
            signed: false,
            graceful_restart: GracefulRestart::default(),
            add_path: AddPath::default(),
            role: None,
            role_strict: false,
            reflector_client: false,
            max_prefixes: MaxPrefixes::default(),
            import,
            export,
            admin: AdminState::Up,
        }
    }
}

/// Which AS number the peer's OPEN may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteAsn {
    /// This one.
    Exactly(Asn),
    /// Any but ours.
    External,
    /// Ours.
    Internal,
}

/// Our own addresses as next hops, by family. `None`: the session's local address, if it is of that family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextHopSelf {
    /// For IPv4 prefixes.
    pub ipv4: Option<Ipv4Addr>,
    /// For IPv6 prefixes: a global address. Our link-local one needs no setting: where the session runs on it, it is told.
    pub ipv6: Option<Ipv6Addr>,
}

/// Graceful restart towards one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GracefulRestart {
    /// The roles taken.
    pub mode: GracefulRestartMode,
    /// How long the peer should keep our routes after the connection is gone. Whole seconds, at most 4095.
    pub restart_time: Duration,
    /// How long routes of a restarting peer are kept after it is back, should its End-of-RIB not come.
    pub stale_time: Duration,
    /// How long the peer should keep our routes as a last choice once the restart time is over (RFC 9494); zero does not
    /// offer it. Whole seconds, at most 16,777,215.
    pub long_lived_stale_time: Duration,
    /// NOTIFICATIONs and the hold timer leave routes as well, where the peer says so too (RFC 8538). For sessions that BFD
    /// watches: without it the hold timer is what tells that a node is dead, and its routes must go with it.
    pub notification: bool,
}

impl Default for GracefulRestart {
    fn default() -> GracefulRestart {
        GracefulRestart {
            mode: GracefulRestartMode::Full,
            restart_time: Duration::from_secs(120),
            stale_time: Duration::from_secs(360),
            long_lived_stale_time: Duration::ZERO,
            notification: false,
        }
    }
}

/// Several paths per prefix, in the directions that this session should carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddPath {
    /// They are taken.
    pub receive: bool,
    /// At most so many are told; 0: the best one alone, without path identifiers.
    pub send: u8,
}

/// The roles of RFC 4724.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GracefulRestartMode {
    /// Restarting speaker and helper.
    Full,
    /// Helper only: the capability is sent without any family, so End-of-RIB still works both ways (RFC 4724 §3).
    Helper,
    /// The capability is not sent, nothing is kept.
    Disabled,
}

/// Limits on the prefixes received, counted before the import policy (RFC 4486).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// For IPv4 unicast.
    pub ipv4: u32,
    /// For IPv6 unicast.
    pub ipv6: u32,
    /// What happens above the limit.
    pub action: MaxPrefixesAction,
    /// From how many percent of the limit on a warning is given; 100 or more: never before the limit.
    pub warn_percent: u8,
    /// After which time a session that was shut down is tried again; zero: only after a reset or a change of configuration.
    pub restart_after: Duration,
}

impl MaxPrefixes {
    /// The limit of one family.
    #[must_use]
    pub fn limit(&self, family: AfiSafi) -> u32 {
        match family {
            AfiSafi::Ipv4Unicast => self.ipv4,
            AfiSafi::Ipv6Unicast => self.ipv6,
        }
    }
}

impl Default for MaxPrefixes {
    fn default() -> MaxPrefixes {
        MaxPrefixes {
            ipv4: 50_000,
            ipv6: 50_000,
            action: MaxPrefixesAction::Shutdown,
            warn_percent: 80,
            restart_after: Duration::from_secs(15 * 60),
        }
    }
}

/// What happens when a peer announces more than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxPrefixesAction {
    /// Cease/Maximum Number of Prefixes Reached.
    Shutdown,
    /// An event, nothing else.
    Warn,
}

/// Whether a session should be up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminState {
    /// It should.
    Up,
    /// It should, and what it needs is missing: it is neither dialled nor accepted. A session that is Established when
    /// this comes runs on until something else ends it.
    Withheld {
        /// What is shown of it while it is down.
        reason: Reason,
        /// What is missing, and what to do.
        text: String,
    },
    /// It should not: Cease/Administrative Shutdown with this text (RFC 9003, at most 255 bytes), then Idle.
    Shutdown {
        /// Shown to the operator of the other side; empty sends none.
        message: String,
    },
}

impl AdminState {
    /// Whether the peer may come up without a change by a person: a neighbour that is looked for is found in moments, and after a
    /// restart its routes are worth the wait as those of any other peer.
    pub(crate) fn may_come(&self) -> bool {
        match self {
            AdminState::Up => true,
            AdminState::Withheld { reason, .. } => *reason == Reason::NeighborNotFound,
            AdminState::Shutdown { .. } => false,
        }
    }
}
