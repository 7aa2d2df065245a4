//! Random changes of a state, as the updates that bring them about.

use felix_calc::graph::Update;
use felix_calc::model::{Answer, EndpointId, HostAction, NodeState, Tier, TierDefault};

use super::generate::{Random, Style, endpoint, interface, labels, nat, policy, sources};

/// One change of one kind; a packet in flight then sees the old or the new of this one thing.
pub fn change(random: &mut Random, state: &NodeState, style: Style) -> Vec<Update> {
    // Where rules deny or negate, an address that changes sides in two sets is judged by a mixture for the
    // time between two looks (DESIGN.md, "What a packet in flight sees"): membership changes only where
    // Kubernetes semantics hold.
    let kinds = if style == Style::Kubernetes { 10 } else { 6 };
    match random.below(kinds) {
        0 | 1 => {
            let number = random.below(5);
            let (key, policy) = policy(random, style, number);
            vec![Update::Policy(key, Some(policy))]
        }
        2 => {
            let keys: Vec<_> = state.policies.keys().cloned().collect();
            if keys.is_empty() { Vec::new() } else { vec![Update::Policy(random.pick(&keys), None)] }
        }
        3 => {
            let mut settings = state.settings.clone();
            match random.below(4) {
                0 => settings.implicit_deny = random.pick(&[Answer::Drop, Answer::Reject]),
                1 => settings.workload_to_host = random.pick(&[HostAction::Allow, HostAction::Deny]),
                2 => settings.deny_log_rate = random.pick(&[0, 5]),
                _ => {
                    settings.service_prefixes =
                        random.pick(&[[].into(), ["192.168.0.0/16".parse().unwrap()].into()])
                }
            }
            vec![Update::Settings(settings)]
        }
        4 => {
            let tier = Tier {
                order: random.pick(&[1, 2_000_000]),
                default: random.pick(&[TierDefault::Deny, TierDefault::Pass]),
            };
            vec![Update::Tier("first".to_owned(), random.pick(&[Some(tier), None]))]
        }
        5 => vec![Update::OutgoingNat(nat(random))],
        6 => {
            let labels = labels(random);
            let namespace = random.pick(&["blue", "green"]).to_owned();
            vec![Update::Namespace(namespace, random.pick(&[Some(labels), None]))]
        }
        7 => relabel(random, state),
        8 => {
            let ids: Vec<_> = state.endpoints.keys().cloned().collect();
            if ids.is_empty() { Vec::new() } else { vec![Update::Endpoint(random.pick(&ids), None)] }
        }
        _ => arrive(random, state),
    }
}

fn relabel(random: &mut Random, state: &NodeState) -> Vec<Update> {
    let ids: Vec<_> = state.endpoints.keys().cloned().collect();
    if ids.is_empty() {
        return Vec::new();
    }
    let id = random.pick(&ids);
    let mut endpoint = state.endpoints[&id].clone();
    if endpoint.is_local() && random.chance(30) {
        endpoint.sources = sources(random);
    } else {
        endpoint.labels = labels(random);
    }
    vec![Update::Endpoint(id, Some(endpoint))]
}

/// A pod that was not here, or another that takes a number over.
fn arrive(random: &mut Random, state: &NodeState) -> Vec<Update> {
    let number = random.below(8) as u8;
    let mut endpoint = endpoint(random, number);
    // A link never changes hands: its name is made of the sandbox.
    if endpoint.is_local() {
        endpoint.interface = Some(interface(16 + random.below(200) as u8));
    }
    let mut updates: Vec<Update> = state
        .endpoints
        .iter()
        .filter(|(_, old)| old.name == endpoint.name)
        .map(|(id, _)| Update::Endpoint(id.clone(), None))
        .collect();
    let id = EndpointId::pod(&endpoint.namespace, &endpoint.name);
    updates.push(Update::Endpoint(id, Some(endpoint)));
    updates
}

/// The updates that make the state out of nothing.
pub fn facts(state: &NodeState) -> Vec<Update> {
    let mut facts = vec![Update::Settings(state.settings.clone()), Update::OutgoingNat(state.nat.clone())];
    facts.extend(state.namespaces.iter().map(|(k, v)| Update::Namespace(k.clone(), Some(v.clone()))));
    facts.extend(state.endpoints.iter().map(|(k, v)| Update::Endpoint(k.clone(), Some(v.clone()))));
    facts.extend(state.policies.iter().map(|(k, v)| Update::Policy(k.clone(), Some(v.clone()))));
    facts.extend(state.tiers.iter().map(|(k, v)| Update::Tier(k.clone(), Some(*v))));
    facts
}
