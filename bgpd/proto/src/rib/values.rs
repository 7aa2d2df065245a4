//! What goes into the RIB and comes out of it, as values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::decision::BestPathReason;
use crate::policy::{ExportPolicy, ImportPolicy, ImportRejection, Sources};
use crate::types::{AfiSafi, Asn, PeerId, RouterId};
use crate::wire::Role;
use crate::wire::verdict::{ErrorAction, Fault};

/// Facts about this speaker that the RIB needs; a change of AS or router id takes a new RIB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RibConfig {
    /// Our AS: a path that contains it is a loop.
    pub asn: Asn,
    /// Our BGP Identifier: a path with it as ORIGINATOR_ID or in its CLUSTER_LIST is a loop. It is also our cluster id.
    pub router_id: RouterId,
    /// How many equally good paths one FIB route may have; 0 counts as 1.
    pub max_paths: u16,
    /// Whether anybody asks for FIB routes; where nobody does, none are kept ready.
    pub feeds_fib: bool,
    /// Seed of the hash tables. Random in production, since peers choose prefixes; no output depends on it.
    pub seed: u64,
    /// What is assumed of a next hop that [`super::Rib::set_next_hop`] was not called for.
    pub unknown_next_hops: UnknownNextHops,
}

impl RibConfig {
    /// 16 paths, next hops that wait to be resolved.
    #[must_use]
    pub fn new(asn: Asn, router_id: RouterId, seed: u64) -> RibConfig {
        let unknown_next_hops = UnknownNextHops::Unreachable;
        RibConfig { asn, router_id, max_paths: 16, feeds_fib: true, seed, unknown_next_hops }
    }
}

/// Whether routes are used before anybody has looked at their next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownNextHops {
    /// They are, with metric 0.
    Reachable,
    /// They wait for [`super::Rib::set_next_hop`].
    Unreachable,
}

/// What an established session brings along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFacts {
    /// The peer's AS. Different from `local_asn`: eBGP.
    pub remote_asn: Asn,
    /// Our AS towards this peer (RFC 7705).
    pub local_asn: Asn,
    /// The peer's BGP Identifier.
    pub router_id: RouterId,
    /// The peer's address.
    pub address: IpAddr,
    /// The families negotiated.
    pub families: BTreeSet<AfiSafi>,
    /// Both sides sent the 4-octet AS capability (RFC 6793).
    pub four_octet_as: bool,
    /// The peer takes messages of up to 65,535 octets (RFC 8654).
    pub extended_message: bool,
    /// The beginning and the end of a refresh are told (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// Our next hop for IPv4 prefixes; without it none is announced.
    pub next_hop_ipv4: Option<Ipv4Addr>,
    /// Our next hop for IPv6 prefixes, a global address; without it none is announced.
    pub next_hop_ipv6: Option<Ipv6Addr>,
    /// Our link-local address, sent beside it where the peer is on the same link (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
    /// The peer knows what a long-lived stale route is (RFC 9494): only then it is told such ones.
    pub long_lived: bool,
    /// Families in which the peer tells several paths per prefix, each with an identifier (RFC 7911).
    pub add_path_receive: BTreeSet<AfiSafi>,
    /// Families in which it is told several.
    pub add_path_send: BTreeSet<AfiSafi>,
    /// How many of them at most; 0 counts as 1.
    pub paths_sent: u8,
    /// Our role towards the peer (RFC 9234).
    pub role: Option<Role>,
    /// The peer is a client of ours (RFC 4456).
    pub reflector_client: bool,
    /// IPv4 prefixes have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// What is taken from the peer.
    pub import: ImportPolicy,
    /// What is told to the peer of learned routes.
    pub export: ExportPolicy,
    /// Which originated routes it is told.
    pub tags: BTreeSet<Tag>,
}

impl PeerFacts {
    /// A four-octet session of both families that takes everything and is told nothing: without next hops, tags or transit.
    #[must_use]
    pub fn new(remote_asn: Asn, local_asn: Asn, router_id: RouterId, address: IpAddr) -> PeerFacts {
        PeerFacts {
            remote_asn,
            local_asn,
            router_id,
            address,
            families: AfiSafi::ALL.into_iter().collect(),
            four_octet_as: true,
            extended_message: false,
            enhanced_route_refresh: false,
            next_hop_ipv4: None,
            next_hop_ipv6: None,
            link_local: None,
            extended_next_hop: false,
            long_lived: false,
            add_path_receive: BTreeSet::new(),
            add_path_send: BTreeSet::new(),
            paths_sent: 0,
            role: None,
            reflector_client: false,
            import: ImportPolicy::accept_all(),
            export: ExportPolicy::default(),
            tags: BTreeSet::new(),
        }
    }

    /// Whether the peer is in another AS.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.remote_asn != self.local_asn
    }
}

/// What one UPDATE did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdateOutcome {
    /// What was wrong with it, in the order found; empty for almost every UPDATE. At most 16.
    pub faults: Vec<Fault>,
    /// It was the End-of-RIB marker of this family (RFC 4724 §2).
    pub end_of_rib: Option<AfiSafi>,
    /// Prefixes announced, by the families' order in [`AfiSafi::ALL`].
    pub announced: u32,
    /// Prefixes withdrawn, also those by treat-as-withdraw.
    pub withdrawn: u32,
}

impl UpdateOutcome {
    /// The answer: that of the strongest fault. After a session reset nothing of the UPDATE was applied.
    #[must_use]
    pub fn action(&self) -> Option<ErrorAction> {
        self.faults.iter().map(|fault| fault.action).max()
    }

    /// The fault behind [`UpdateOutcome::action`], the first of its strength.
    #[must_use]
    pub fn strongest(&self) -> Option<&Fault> {
        let action = self.action()?;
        self.faults.iter().find(|fault| fault.action == action)
    }
}

/// How many paths of one family a peer sent, and what became of them: a prefix counts as often as it has paths (RFC 7911).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Paths held, rejected ones too.
    pub received: u32,
    /// Paths that import accepted.
    pub accepted: u32,
    /// Paths kept from before the peer's restart, not heard again yet.
    pub stale: u32,
}

/// Names a set of peers towards which routes are originated. A route carries tags ([`Origination::exports`]), a peer takes
/// tags ([`PeerFacts::tags`], [`super::Rib::set_tags`]); whoever maps audiences to peers chooses the numbers: one per distinct
/// audience keeps peers with equal tags in one update group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

/// Towards whom a route of our own is told, and with which attributes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origination {
    /// A peer that takes several of the tags gets the lowest one's attributes. Empty: told to nobody, yet it wins over
    /// learned routes to the same prefix, so that these stay out of the FIB.
    pub exports: BTreeMap<Tag, OriginAttributes>,
}

/// Attributes of a route of our own beyond the mandatory ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct OriginAttributes {
    /// RFC 1997 communities, `high << 16 | low`.
    pub communities: BTreeSet<u32>,
    /// RFC 8092 large communities.
    pub large_communities: BTreeSet<[u32; 3]>,
    /// LOCAL_PREF towards iBGP; `None` is 100.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How often our AS is prepended beyond the once that eBGP asks for.
    pub prepend: u8,
    /// How the route came to be here, for filters.
    pub sources: Sources,
}

/// What the RIB wants somebody to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RibEvent {
    /// A route is not told to these peers since its attributes pass the message length after rewriting; what they were told before
    /// is withdrawn.
    AttributesTooLong {
        /// Whom it concerns.
        peers: Vec<PeerId>,
        /// How many prefixes.
        prefixes: u32,
        /// One of them.
        example: IpNet,
        /// Length of the attributes as they would be sent.
        length: usize,
    },
    /// A peer read too slowly and left the shared log; it is told the present state when it reads again.
    PeerFellBehind {
        /// The peer.
        peer: PeerId,
        /// How many prefixes it has to catch up with.
        prefixes: u32,
    },
    /// A next hop is used by paths from here on, or by none any more. Answered by [`super::Rib::set_next_hop`].
    TrackNextHop {
        /// The next hop.
        address: IpAddr,
        /// Start or stop.
        wanted: bool,
    },
}

/// One path as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathView {
    /// The prefix.
    pub prefix: IpNet,
    /// Who sent it; `None`: this node originates it.
    pub peer: Option<PeerId>,
    /// The path identifier that the peer gave it, if its session carries them in this family (RFC 7911).
    pub path_id: Option<u32>,
    /// Whether and why it is in use.
    pub status: PathStatus,
    /// Kept from before the peer's restart.
    pub stale: bool,
    /// The next hop; `None` for an originated path.
    pub next_hop: Option<IpAddr>,
    /// LOCAL_PREF in force.
    pub local_pref: u32,
    /// MULTI_EXIT_DISC; 0 without one.
    pub med: u32,
    /// Length of the AS_PATH as the decision counts it.
    pub as_path_len: u32,
    /// The canonical attributes, as import changed them: [`crate::wire::display`] reads them.
    pub attributes: Vec<u8>,
    /// The rule of a filter that decided on import, as people know it.
    pub rule: Option<Arc<str>>,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathStatus {
    /// Selected, for this reason.
    Best(BestPathReason),
    /// Used beside the best one.
    Multipath,
    /// A candidate that another one beat, for this reason.
    Beaten(BestPathReason),
    /// Its next hop is not reachable.
    NextHopUnreachable,
    /// Import refused it.
    Rejected(ImportRejection),
}

impl fmt::Display for PathStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathStatus::Best(reason) => write!(f, "best: {}", reason.text()),
            PathStatus::Multipath => f.write_str("multipath"),
            PathStatus::Beaten(reason) => write!(f, "not best: {}", reason.text()),
            PathStatus::NextHopUnreachable => f.write_str("next hop unreachable"),
            PathStatus::Rejected(rejection) => write!(f, "rejected: {}", rejection.text()),
        }
    }
}
