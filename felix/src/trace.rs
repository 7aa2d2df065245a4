//! What the policies say of one packet: the reference evaluator's answer, step by step.

use std::net::IpAddr;

use felix_calc::evaluator::{Evaluator, Reason, Verdict};
use felix_calc::model::{Answer, SCTP, TCP, UDP};
use felix_calc::packet::{Connection, Packet};
use felix_calc::{Direction, Endpoint, NodeState};
use manx_crds::report::{ControlError, PolicyTrace, TracePacket, TraceStep};

/// A client's port: any that no rule names.
const SOURCE_PORT: u16 = 40_000;

/// `from` and `to`: `namespace/pod`, or an address.
pub(crate) fn trace(
    state: &NodeState,
    from: &str,
    to: &str,
    protocol: &str,
    port: u16,
) -> Result<PolicyTrace, ControlError> {
    let number = match protocol {
        "tcp" => TCP,
        "udp" => UDP,
        "sctp" => SCTP,
        other => return Err(refused(format!("unknown protocol {other:?}"), "tcp, udp or sctp")),
    };
    let sender = addresses(state, from)?;
    let receiver = addresses(state, to)?;
    let pair = sender
        .iter()
        .flat_map(|s| receiver.iter().map(move |r| (*s, *r)))
        .find(|(s, r)| s.is_ipv4() == r.is_ipv4())
        .ok_or_else(|| {
            refused(format!("{from} and {to} share no address family"), "two addresses of one family")
        })?;
    let [a, b] = SOURCE_PORT.to_be_bytes();
    let [c, d] = port.to_be_bytes();
    let evaluator = Evaluator::new(state);
    let interface = |address: IpAddr| evaluator.at(address).iter().find_map(|e| e.interface.clone());
    let uplink = || Some("uplink".to_owned());
    let packet = Packet {
        input: interface(pair.0).or_else(uplink),
        output: interface(pair.1).or_else(uplink),
        source: pair.0,
        destination: pair.1,
        protocol: number,
        header: Some([a, b, c, d]),
        hop_limit: 64,
        connection: Connection::New,
        dnat: false,
    };
    let outcome = evaluator.node(&packet);
    let mut considered = Vec::new();
    for (direction, address) in [(Direction::Egress, pair.0), (Direction::Ingress, pair.1)] {
        if let Some(endpoint) = evaluator.at(address).iter().find(|endpoint| endpoint.is_local()) {
            steps(&evaluator, endpoint, direction, &packet, &mut considered);
        }
    }
    let decided_by = outcome.reasons.last().map(|reason| decided(reason, state));
    Ok(PolicyTrace {
        packet: TracePacket { from: from.to_owned(), to: to.to_owned(), protocol: protocol.to_owned(), port },
        verdict: if outcome.verdict == Verdict::Allow { "Allow" } else { "Deny" }.to_owned(),
        answer: match outcome.verdict {
            Verdict::Allow => None,
            Verdict::Deny(Answer::Drop) => Some("Drop".to_owned()),
            Verdict::Deny(Answer::Reject) => Some("Reject".to_owned()),
        },
        decided_by,
        open_connections: None,
        considered,
        kernel: None,
    })
}

/// The policies of one direction with whether one of their rules decided.
fn steps(
    evaluator: &Evaluator<'_>,
    endpoint: &Endpoint,
    direction: Direction,
    packet: &Packet,
    considered: &mut Vec<TraceStep>,
) {
    let decision = evaluator.verdict(endpoint, direction, packet);
    for (tier, _, policies) in evaluator.applicable(endpoint, direction) {
        for (key, _) in policies {
            let mut rule = None;
            if let Reason::Rule(decided) = &decision.reason
                && decided.policy == *key
            {
                rule = Some(u32::from(decided.index));
            }
            considered.push(TraceStep {
                direction: direction.as_str().to_owned(),
                tier: tier.to_owned(),
                kind: key.kind.short().to_owned(),
                namespace: Some(key.namespace.clone()).filter(|namespace| !namespace.is_empty()),
                name: key.name.clone(),
                rule,
                rule_name: None,
                matches: Some(rule.is_some()),
                why: None,
            });
        }
    }
}

fn decided(reason: &Reason, state: &NodeState) -> TraceStep {
    match reason {
        Reason::Rule(rule) => TraceStep {
            direction: rule.direction.as_str().to_owned(),
            tier: state.policies.get(&rule.policy).map(|policy| policy.tier.clone()).unwrap_or_default(),
            kind: rule.policy.kind.short().to_owned(),
            namespace: Some(rule.policy.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: rule.policy.name.clone(),
            rule: Some(rule.index.into()),
            rule_name: None,
            matches: None,
            why: None,
        },
        Reason::TierDefault { tier, direction } => TraceStep {
            direction: direction.as_str().to_owned(),
            tier: tier.clone(),
            kind: "tier".to_owned(),
            name: tier.clone(),
            why: Some("policies select the pod and none allows the packet".to_owned()),
            ..TraceStep::default()
        },
        Reason::NoPolicy => because("no policy selects the pod in this direction"),
        Reason::Established => because("part of a connection that was allowed"),
        Reason::Itself => because("a pod may always talk to itself"),
        Reason::NotOurs => because("neither end is a pod of this node"),
        Reason::NeighborDiscovery => because("neighbour discovery"),
        Reason::WorkloadToHost => because("policy.workloadToHost of FabricConfiguration"),
        Reason::Invalid => because("connection tracking calls it invalid"),
        Reason::Spoofed => {
            because("the source is none of the pod's addresses, and not in manx.dev/allowed-source-prefixes")
        }
        Reason::UnknownInterface => because("the interface belongs to no known pod"),
        Reason::RouterAdvertisement => because("a pod is no router"),
        Reason::Redirect => because("a pod redirects nobody"),
        Reason::ProtectedPort => because("a port of bgpd"),
        Reason::ServiceLoop => because("a Service address that nothing translated"),
    }
}

fn because(why: &str) -> TraceStep {
    TraceStep { why: Some(why.to_owned()), ..TraceStep::default() }
}

fn addresses(state: &NodeState, name: &str) -> Result<Vec<IpAddr>, ControlError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![address]);
    }
    let found =
        state.endpoints.values().find(|endpoint| format!("{}/{}", endpoint.namespace, endpoint.name) == name);
    match found {
        Some(endpoint) => Ok(endpoint.addresses.iter().copied().collect()),
        None => Err(refused(format!("no pod {name:?} is known here"), "namespace/pod, or an address")),
    }
}

fn refused(error: String, expected: &str) -> ControlError {
    ControlError {
        error,
        place: Some("felix, policy trace".to_owned()),
        expected: Some(expected.to_owned()),
        remedy: Some("manxctl policy trace NAMESPACE/POD NAMESPACE/POD tcp 80".to_owned()),
    }
}
