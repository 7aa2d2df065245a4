//! What the calculation knows, in words of its own: no Kubernetes type reaches behind this door.
//!
//! Whoever reads the API translates into these types and decides there what an invalid part means
//! (an Allow rule that cannot be honoured is left out, a Deny becomes one without conditions), so that
//! everything here is valid by construction or has a defined meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::nat::OutgoingNat;
use crate::selector::Selector;
use crate::table::Family;

/// IP protocol numbers that carry ports, in the order in which they are tried.
pub const PORT_PROTOCOLS: [u8; 4] = [TCP, UDP, SCTP, UDP_LITE];
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
pub const UDP_LITE: u8 = 136;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// Name, order and default of the tiers that always exist (api.md §7).
pub const TIER_ADMIN: &str = "kube-admin";
pub const TIER_DEFAULT: &str = "default";
pub const TIER_BASELINE: &str = "kube-baseline";
/// Order of a Kubernetes NetworkPolicy inside tier `default`.
pub const KUBERNETES_ORDER: i32 = 1000;

pub type Labels = BTreeMap<String, String>;

/// Everything that decides what this node's kernel must do.
///
/// A value: two graphs that were told the same facts in any order hold equal states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    pub settings: NodeSettings,
    pub nat: OutgoingNat,
    /// Local endpoints and all others that rules may name as peers.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    /// Labels by namespace. A namespace that is not here has no labels.
    pub namespaces: BTreeMap<String, Labels>,
    pub tiers: BTreeMap<String, Tier>,
    pub policies: BTreeMap<PolicyKey, Policy>,
}

impl NodeState {
    /// No endpoint, no policy, and the three tiers that cannot be removed.
    pub fn new(settings: NodeSettings) -> Self {
        let tiers = [
            (TIER_ADMIN, Tier { order: 1_000, default: TierDefault::Pass }),
            (TIER_DEFAULT, Tier { order: 1_000_000, default: TierDefault::Deny }),
            (TIER_BASELINE, Tier { order: 10_000_000, default: TierDefault::Pass }),
        ];
        Self {
            settings,
            nat: OutgoingNat::default(),
            endpoints: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            tiers: tiers.into_iter().map(|(name, tier)| (name.to_owned(), tier)).collect(),
            policies: BTreeMap::new(),
        }
    }
}

/// What the administrator and the node itself say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeSettings {
    /// Every address of the node itself: a connection from one of them to a local pod is never policed
    /// (kubelet's probes), and conntrack entries of such are never cut.
    pub node_addresses: BTreeSet<IpAddr>,
    /// Prefixes of Services that this node announces. A forwarded packet to one of them that no DNAT
    /// caught would go round in circles, so it is rejected. Empty: no such rule.
    pub service_prefixes: BTreeSet<IpNet>,
    /// What a pod may send to its node once its own egress policy let it.
    pub workload_to_host: HostAction,
    /// The answer to a packet that no rule denied by name (end of a tier, Kubernetes isolation).
    pub implicit_deny: Answer,
    /// Logged denials and Log rules a second and rule; 0: none.
    pub deny_log_rate: u32,
    /// Protocol and port of bgpd's listeners on this node: closed to pods whatever a policy says.
    pub protected_ports: BTreeSet<(u8, u16)>,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            node_addresses: BTreeSet::new(),
            service_prefixes: BTreeSet::new(),
            workload_to_host: HostAction::Allow,
            implicit_deny: Answer::Drop,
            deny_log_rate: 10,
            // BGP; BFD single hop (RFC 5881 §4) and multihop (RFC 5883 §5)
            protected_ports: BTreeSet::from([(TCP, 179), (UDP, 3784), (UDP, 4784)]),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum HostAction {
    Allow,
    Deny,
}

/// What the sender of a denied packet sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Answer {
    Drop,
    /// TCP: RST; anything else: ICMP administratively prohibited.
    Reject,
}

/// Identity of an endpoint for as long as it lives; opaque here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct EndpointId(pub String);

impl EndpointId {
    /// The usual identity of a pod.
    pub fn pod(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}"))
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pod, here or elsewhere. Pods on the host network are none: their addresses are their node's.
///
/// Two endpoints may hold one address for a moment (a pod that goes and the one that inherits). Then a
/// rule that selects either selects the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Name of the host end of its link, `manx…`. Present: the endpoint is on this node.
    pub interface: Option<String>,
    pub addresses: BTreeSet<IpAddr>,
    /// What it may send from beside its addresses. Nothing is received at them: whoever is allowed them brings the way
    /// back.
    pub sources: BTreeSet<IpNet>,
    pub namespace: String,
    pub name: String,
    pub labels: Labels,
    pub ports: BTreeSet<NamedPort>,
}

impl Endpoint {
    pub fn is_local(&self) -> bool {
        self.interface.is_some()
    }

    /// A packet from there is not spoofed.
    pub fn may_send_from(&self, source: IpAddr) -> bool {
        self.addresses.contains(&source) || self.sources.iter().any(|prefix| prefix.contains(&source))
    }
}

/// A container port with a name. One name may stand for several numbers (TCP and UDP, init containers).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NamedPort {
    pub name: String,
    pub protocol: u8,
    pub number: u16,
}

/// Tiers are walked by `order`, then name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tier {
    pub order: i32,
    pub default: TierDefault,
}

/// What a tier does with a packet when a policy of it selects the endpoint and no rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TierDefault {
    Deny,
    Pass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy
    KubernetesNetworkPolicy,
    /// `policy.networking.k8s.io` ClusterNetworkPolicy
    ClusterNetworkPolicy,
    /// `manx.dev` NetworkPolicy
    NetworkPolicy,
    /// `manx.dev` GlobalNetworkPolicy
    GlobalNetworkPolicy,
}

impl PolicyKind {
    /// The short name by which people and logs call it (ux.md §3.5).
    pub fn short(self) -> &'static str {
        match self {
            Self::KubernetesNetworkPolicy => "netpol",
            Self::ClusterNetworkPolicy => "cnp",
            Self::NetworkPolicy => "mnp",
            Self::GlobalNetworkPolicy => "gnp",
        }
    }
}

/// Ordered as policies of equal `order` are evaluated: name, namespace, kind (api.md §7).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PolicyKey {
    pub name: String,
    /// Empty: cluster-scoped.
    pub namespace: String,
    pub kind: PolicyKind,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.short(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.short(), self.namespace, self.name)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// A policy whose tier does not exist selects nobody.
    pub tier: String,
    /// Absent: behind all that have one.
    pub order: Option<i32>,
    pub applies_to: Selection,
    /// Absent: the policy is not of this type. Present and empty: it isolates.
    pub ingress: Option<Vec<Rule>>,
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }
}

/// As the pod sees it: egress is what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Direction {
    Egress,
    Ingress,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// A rule matches when its family does, any of its peers does and any of its traffic does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Position in the object that its author wrote, from 0; survives rules that were left out.
    pub index: u16,
    pub name: Option<String>,
    pub action: Action,
    /// `ipVersion`; absent: both.
    pub family: Option<Family>,
    /// Empty: everybody, known or not.
    pub peers: Vec<Peer>,
    /// Empty: everything.
    pub traffic: Vec<Traffic>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    Allow,
    /// No answer to the sender.
    Deny,
    /// [`Answer::Reject`]
    Reject,
    /// Leave the tier without a verdict.
    Pass,
    /// Say so and go on with the next rule.
    Log,
}

/// The other end of a connection: all that is present must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Peer {
    /// An endpoint that this selects holds the address. Strangers are never selected.
    pub selection: Option<Selection>,
    /// No endpoint that this selects holds the address; true of every stranger.
    pub not_selection: Option<Selection>,
    /// Any of them contains the address; empty: no condition.
    pub nets: Vec<IpNet>,
    /// None of them contains the address. An address of the other family is in no net.
    pub not_nets: Vec<IpNet>,
}

/// Endpoints by namespace and labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Selection {
    pub namespaces: Namespaces,
    pub selector: Selector,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Namespaces {
    All,
    One(String),
    Matching(Selector),
}

/// What a packet says of itself: all that is present must hold. A condition on a header that the packet
/// lacks is false, negated or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Traffic {
    pub protocol: Option<u8>,
    pub not_protocol: Option<u8>,
    /// Any of these or of `port_names`; the protocol carries ports. Both empty: no condition.
    pub ports: Vec<PortRange>,
    /// Names of container ports of the packet's receiver: resolved by name, protocol and endpoint.
    pub port_names: BTreeSet<String>,
    /// None of these; the protocol carries ports.
    pub not_ports: Vec<PortRange>,
    pub source_ports: Vec<PortRange>,
    /// The protocol is ICMP or ICMPv6, and the message is this one.
    pub icmp: Option<Icmp>,
    /// The protocol is ICMP or ICMPv6, and the message is another one.
    pub not_icmp: Option<Icmp>,
}

/// First and last port, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    pub fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Icmp {
    pub kind: u8,
    /// Absent: any code.
    pub code: Option<u8>,
}

/// One rule of one policy, as counters, logs and traces name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RuleId {
    pub policy: PolicyKey,
    pub direction: Direction,
    pub index: u16,
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} rule {}", self.policy, self.direction.as_str(), self.index)
    }
}
