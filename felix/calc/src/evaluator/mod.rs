//! The reference: what policy means, read off the state rule by rule. Plain and slow on purpose.
//!
//! It shares types with the compilers and nothing else: no predicate, no index, no sorting. The compiled
//! table must give every packet the verdict, the deciding rule and the log lines that come out here.

mod matching;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::host::INTERFACE_PREFIX;
use crate::model::{
    Action, Answer, Direction, Endpoint, EndpointId, HostAction, ICMPV6, NodeState, Policy, PolicyKey,
    RuleId, Selection, TierDefault,
};
use crate::packet::{Connection, Packet};
use crate::table::Hook;
pub use crate::verdict::{Reason, Verdict};

/// The answer of one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    pub verdict: Verdict,
    pub reason: Reason,
    /// Log rules that the packet met on the way.
    pub logs: Vec<RuleId>,
}

/// A packet's whole way through the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub verdict: Verdict,
    /// One for each stage that the packet reached: egress then ingress; or egress then the node itself.
    pub reasons: Vec<Reason>,
    pub logs: Vec<RuleId>,
}

/// What applies to one endpoint in one direction: tiers in order, each with its policies in order.
pub type Applicable<'a> = Vec<(&'a str, TierDefault, Vec<(&'a PolicyKey, &'a Policy)>)>;

/// Verdict of `endpoint`'s policies of one direction.
pub fn verdict(state: &NodeState, endpoint: &Endpoint, direction: Direction, packet: &Packet) -> Decision {
    Evaluator::new(state).verdict(endpoint, direction, packet)
}

/// Verdict of the node: everything that the packet meets on its way.
pub fn node(state: &NodeState, packet: &Packet) -> Outcome {
    Evaluator::new(state).node(packet)
}

/// A state with its endpoints by address, for more than one question.
#[derive(Debug)]
pub struct Evaluator<'a> {
    state: &'a NodeState,
    by_address: BTreeMap<IpAddr, Vec<&'a Endpoint>>,
    by_interface: BTreeMap<&'a str, (&'a EndpointId, &'a Endpoint)>,
}

impl<'a> Evaluator<'a> {
    pub fn new(state: &'a NodeState) -> Self {
        let mut by_address: BTreeMap<IpAddr, Vec<&Endpoint>> = BTreeMap::new();
        let mut by_interface = BTreeMap::new();
        for (id, endpoint) in &state.endpoints {
            if let Some(interface) = &endpoint.interface {
                by_interface.entry(interface.as_str()).or_insert((id, endpoint));
            }
            for address in &endpoint.addresses {
                by_address.entry(*address).or_default().push(endpoint);
            }
        }
        Self { state, by_address, by_interface }
    }

    /// All endpoints that hold the address.
    pub fn at(&self, address: IpAddr) -> &[&'a Endpoint] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The endpoint behind a link of ours; the first by id if two claim it.
    pub fn local(&self, interface: &str) -> Option<(&'a EndpointId, &'a Endpoint)> {
        self.by_interface.get(interface).copied()
    }

    pub fn selects(&self, selection: &Selection, endpoint: &Endpoint) -> bool {
        matching::selects(self.state, selection, endpoint)
    }

    pub fn applicable(&self, endpoint: &Endpoint, direction: Direction) -> Applicable<'a> {
        let mut tiers: Vec<_> = self.state.tiers.iter().collect();
        tiers.sort_by_key(|(name, tier)| (tier.order, name.as_str()));
        let mut applicable = Vec::new();
        for (name, tier) in tiers {
            let mut policies: Vec<_> = self
                .state
                .policies
                .iter()
                .filter(|(_, policy)| policy.tier == *name && policy.rules(direction).is_some())
                .filter(|(_, policy)| self.selects(&policy.applies_to, endpoint))
                .collect();
            policies.sort_by_key(|(key, policy)| {
                (policy.order.is_none(), policy.order, &key.name, &key.namespace, key.kind)
            });
            if !policies.is_empty() {
                applicable.push((name.as_str(), tier.default, policies));
            }
        }
        applicable
    }

    pub fn verdict(&self, endpoint: &Endpoint, direction: Direction, packet: &Packet) -> Decision {
        self.decide(&self.applicable(endpoint, direction), endpoint, direction, packet)
    }

    /// [`Self::verdict`] with the policies already found.
    pub fn decide(
        &self,
        applicable: &Applicable<'_>,
        endpoint: &Endpoint,
        direction: Direction,
        packet: &Packet,
    ) -> Decision {
        let mut logs = Vec::new();
        'tiers: for (tier, default, policies) in applicable {
            for (key, policy) in policies {
                for rule in policy.rules(direction).into_iter().flatten() {
                    if !matching::rule(self, rule, endpoint, direction, packet) {
                        continue;
                    }
                    let id = RuleId { policy: (*key).clone(), direction, index: rule.index };
                    let verdict = match rule.action {
                        Action::Allow => Verdict::Allow,
                        Action::Deny => Verdict::Deny(Answer::Drop),
                        Action::Reject => Verdict::Deny(Answer::Reject),
                        Action::Pass => continue 'tiers,
                        Action::Log => {
                            logs.push(id);
                            continue;
                        }
                    };
                    return Decision { verdict, reason: Reason::Rule(id), logs };
                }
            }
            if *default == TierDefault::Deny {
                let verdict = Verdict::Deny(self.state.settings.implicit_deny);
                let reason = Reason::TierDefault { tier: (*tier).to_owned(), direction };
                return Decision { verdict, reason, logs };
            }
        }
        Decision { verdict: Verdict::Allow, reason: Reason::NoPolicy, logs }
    }

    pub fn node(&self, packet: &Packet) -> Outcome {
        let stages: &[fn(&Self, &Packet) -> Decision] = match packet.hook() {
            // The node reaches its own pods always, or kubelet's probes would fail: not policed.
            Hook::Output | Hook::Prerouting | Hook::Postrouting => &[],
            Hook::Forward => &[Self::forward_egress, Self::forward_ingress],
            Hook::Input => &[Self::input_egress, Self::input_host],
        };
        let mut outcome = Outcome { verdict: Verdict::Allow, reasons: Vec::new(), logs: Vec::new() };
        for stage in stages {
            let decision = stage(self, packet);
            outcome.verdict = decision.verdict;
            outcome.reasons.push(decision.reason);
            outcome.logs.extend(decision.logs);
            if outcome.verdict != Verdict::Allow {
                break;
            }
        }
        outcome
    }

    /// What a forwarded packet meets because of where it comes from.
    pub fn forward_egress(&self, packet: &Packet) -> Decision {
        let pod = match self.sender(packet) {
            Ok(pod) => pod,
            Err(denied) => return denied,
        };
        if connected(packet) {
            return allow(Reason::Established);
        }
        if let Some(denied) = self.service_loop(packet) {
            return denied;
        }
        let Some(pod) = pod else { return allow(Reason::NotOurs) };
        if packet.connection == Connection::Invalid {
            return deny(Answer::Drop, Reason::Invalid);
        }
        if packet.input == packet.output {
            return allow(Reason::Itself);
        }
        self.verdict(pod, Direction::Egress, packet)
    }

    /// What is addressed to a Service of ours and was not translated would go back to the router.
    fn service_loop(&self, packet: &Packet) -> Option<Decision> {
        let prefixes = &self.state.settings.service_prefixes;
        if !prefixes.iter().any(|prefix| prefix.contains(&packet.destination)) {
            return None;
        }
        match packet.connection {
            Connection::Invalid | Connection::Untracked => Some(deny(Answer::Drop, Reason::Invalid)),
            Connection::New | Connection::Established | Connection::Related if packet.dnat => None,
            Connection::New | Connection::Established | Connection::Related => {
                Some(deny(Answer::Reject, Reason::ServiceLoop))
            }
        }
    }

    /// What a forwarded packet meets because of where it goes.
    pub fn forward_ingress(&self, packet: &Packet) -> Decision {
        if connected(packet) {
            return allow(Reason::Established);
        }
        let Some(interface) = ours(packet.output.as_ref()) else { return allow(Reason::NotOurs) };
        let Some((_, pod)) = self.local(interface) else {
            return deny(Answer::Drop, Reason::UnknownInterface);
        };
        if packet.connection == Connection::Invalid {
            return deny(Answer::Drop, Reason::Invalid);
        }
        if packet.input == packet.output {
            return allow(Reason::Itself);
        }
        self.verdict(pod, Direction::Ingress, packet)
    }

    /// What a pod's packet to its node meets because of the pod.
    pub fn input_egress(&self, packet: &Packet) -> Decision {
        let Some(interface) = ours(packet.input.as_ref()) else { return allow(Reason::NotOurs) };
        if self.local(interface).is_none() {
            return deny(Answer::Drop, Reason::UnknownInterface);
        }
        if let Some(decision) = neighbor_discovery(packet) {
            return decision;
        }
        let pod = match self.sender(packet) {
            Ok(Some(pod)) => pod,
            Ok(None) => return allow(Reason::NotOurs),
            Err(denied) => return denied,
        };
        if connected(packet) {
            return allow(Reason::Established);
        }
        if packet.connection == Connection::Invalid {
            return deny(Answer::Drop, Reason::Invalid);
        }
        self.verdict(pod, Direction::Egress, packet)
    }

    /// What a pod's packet to its node meets because of the node.
    pub fn input_host(&self, packet: &Packet) -> Decision {
        if ours(packet.input.as_ref()).is_none() {
            return allow(Reason::NotOurs);
        }
        if let Some(decision) = neighbor_discovery(packet) {
            return decision;
        }
        let settings = &self.state.settings;
        let port = packet.destination_port().map(|port| (packet.protocol, port));
        if port.is_some_and(|port| settings.protected_ports.contains(&port)) {
            return deny(Answer::Drop, Reason::ProtectedPort);
        }
        if connected(packet) {
            return allow(Reason::Established);
        }
        match settings.workload_to_host {
            HostAction::Allow => allow(Reason::WorkloadToHost),
            HostAction::Deny => deny(Answer::Drop, Reason::WorkloadToHost),
        }
    }

    /// The pod that sent the packet, if one did.
    fn sender(&self, packet: &Packet) -> Result<Option<&'a Endpoint>, Decision> {
        let Some(interface) = ours(packet.input.as_ref()) else { return Ok(None) };
        match self.local(interface) {
            None => Err(deny(Answer::Drop, Reason::UnknownInterface)),
            Some((_, pod)) if pod.may_send_from(packet.source) => Ok(Some(pod)),
            Some(_) => Err(deny(Answer::Drop, Reason::Spoofed)),
        }
    }
}

fn neighbor_discovery(packet: &Packet) -> Option<Decision> {
    if packet.protocol != ICMPV6 || packet.source.is_ipv4() {
        return None;
    }
    match packet.icmp_kind()? {
        // RFC 4861 §7.1.1: "The IP Hop Limit field has a value of 255, i.e., the packet could not possibly
        // have been forwarded by a router."
        133 | 135 | 136 if packet.hop_limit == 255 => Some(allow(Reason::NeighborDiscovery)),
        130..=132 | 143 => Some(allow(Reason::NeighborDiscovery)),
        134 => Some(deny(Answer::Drop, Reason::RouterAdvertisement)),
        137 => Some(deny(Answer::Drop, Reason::Redirect)),
        _ => None,
    }
}

fn ours(interface: Option<&String>) -> Option<&str> {
    interface.map(String::as_str).filter(|name| name.starts_with(INTERFACE_PREFIX))
}

fn connected(packet: &Packet) -> bool {
    matches!(packet.connection, Connection::Established | Connection::Related)
}

fn allow(reason: Reason) -> Decision {
    Decision { verdict: Verdict::Allow, reason, logs: Vec::new() }
}

fn deny(answer: Answer, reason: Reason) -> Decision {
    Decision { verdict: Verdict::Deny(answer), reason, logs: Vec::new() }
}
