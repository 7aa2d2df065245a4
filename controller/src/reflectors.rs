//! Who reflects routes between the nodes (topology.mode RouteReflector; RFC 4456): chosen, spread, replaced.
//!
//! ```text
//!                chosen                      every client of one that leaves reaches every one that stays
//!   candidate ───────────► reflector ──────┐                                    or it is gone itself
//!       ▲                   │   ▲          │ no candidate any more,         ┌─────────► none
//!       │                   │   │          │ or another zone has none       │
//!       │                   │   └─ back ─┐ └──────────────► leaving ────────┘
//!       └── reached again ── silent ◄────┘
//!              nobody reaches it for 30 s while the others are reached
//! ```
//! The status is the memory: who reflects goes on doing so, whatever order things were heard in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt as _;
use manx_crds::conditions::TopologyReady;
use manx_crds::v1alpha1::settings::{EffectiveNode, topology_mode};
use manx_crds::v1alpha1::{
    AdminState, FabricConfiguration, FabricNode, RouteReflectorStatus, RouteReflectors, SessionState,
    TOPOLOGY_PEER, TopologyMode, selector,
};

use crate::judge::node::addresses_of;
use crate::objects::Objects;
use crate::wish::Saying;

const COUNT: u8 = 3;
const SPREAD_KEY: &str = "topology.kubernetes.io/zone";
/// As many as the status holds.
const MOST: usize = 16;
/// How long a reflector may be out of everybody's reach before it is replaced: longer than a restart of its speaker.
const SILENCE: Duration = Duration::from_secs(30);
/// How long after its silence began one that was replaced is no candidate.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// One node that may reflect.
#[derive(Debug)]
struct Candidate {
    name: String,
    zone: String,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Elected {
    /// For the status: those who stay by name, then those who leave.
    pub reflectors: Vec<RouteReflectorStatus>,
    pub saying: Option<Saying>,
    /// Reason and text of what changed.
    pub events: Vec<(&'static str, String)>,
}

/// The election.
#[derive(Debug, Default)]
pub struct Reflectors {
    /// Since when nobody reaches a reflector.
    silent: BTreeMap<String, Duration>,
    /// Who was elected last; none: the status says it.
    last: Option<Vec<String>>,
}

impl Reflectors {
    /// When a silence will have lasted long enough.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        self.silent.values().map(|since| since.saturating_add(SILENCE)).filter(|at| *at > now).min()
    }

    pub fn elect(&mut self, objects: &Objects, now: Duration) -> Elected {
        let configuration = objects.the_configuration();
        let Some(object) =
            configuration.filter(|_| topology_mode(configuration) == TopologyMode::RouteReflector)
        else {
            *self = Self::default();
            return Elected::default();
        };
        let said =
            object.status.as_ref().map(|status| status.route_reflectors.as_slice()).unwrap_or_default();
        let current = self
            .last
            .clone()
            .unwrap_or_else(|| said.iter().map(|reflector| reflector.node_name.clone()).collect());
        let spec = object.spec.topology.as_ref().and_then(|topology| topology.route_reflectors.clone());
        let spec = spec.unwrap_or_default();
        let nodes: BTreeMap<String, RouteReflectorStatus> =
            objects.fabric_nodes.iter().filter_map(|node| Some((node.name_any(), identity(node)?))).collect();
        let reach = reach(objects, &nodes);
        self.listen(&current, &reach, now);
        let candidates = self.candidates(objects, object, &spec, &nodes, now);
        let wanted = usize::from(spec.count.unwrap_or(COUNT)).clamp(1, MOST);
        let chosen = choose(&candidates, &current, wanted);
        let leaving: Vec<&String> = current
            .iter()
            .filter(|name| !chosen.contains(*name) && nodes.contains_key(*name))
            .filter(|name| is_needed(name, &chosen, &reach))
            .collect();
        let elected: Vec<String> = chosen.iter().chain(leaving).take(MOST).cloned().collect();
        let events = changes(&current, &chosen, &elected);
        let reflectors = elected.iter().filter_map(|name| nodes.get(name).cloned()).collect();
        self.last = Some(elected);
        Elected { reflectors, saying: Some(saying(&spec, candidates.len(), chosen.len())), events }
    }

    /// Notes who is out of reach. Where nobody is reached the fault is not a reflector's.
    fn listen(&mut self, current: &[String], reach: &BTreeMap<String, BTreeSet<String>>, now: Duration) {
        let is_reached = |name: &String| reach.get(name).is_some_and(|by| !by.is_empty());
        let some_reached = current.iter().any(is_reached);
        // Nobody dials one that was replaced: after a while it is believed to be well again.
        self.silent.retain(|name, since| {
            !is_reached(name) && (current.contains(name) || now < since.saturating_add(FORGOTTEN))
        });
        for name in current.iter().filter(|name| some_reached && !is_reached(name)) {
            self.silent.entry(name.clone()).or_insert(now);
        }
    }

    /// By name: matched, up, with an address and a listener, the only one of its identity, and not silent.
    fn candidates(
        &self,
        objects: &Objects,
        configuration: &FabricConfiguration,
        spec: &RouteReflectors,
        nodes: &BTreeMap<String, RouteReflectorStatus>,
        now: Duration,
    ) -> Vec<Candidate> {
        let key = spec.spread_key.as_deref().unwrap_or(SPREAD_KEY);
        let mut taken = BTreeSet::new();
        let mut candidates = Vec::new();
        let mut oldest: Vec<&FabricNode> = objects.fabric_nodes.iter().collect();
        oldest.sort_by_key(|node| crate::judge::age(*node));
        for node in oldest {
            let name = node.name_any();
            let effective = EffectiveNode::of(Some(configuration), Some(node), node.labels());
            let is_silent = self.silent.get(&name).is_some_and(|since| since.saturating_add(SILENCE) <= now);
            let Some(status) = nodes.get(&name) else { continue };
            let is_unique = taken.insert(status.cluster_id.clone());
            if is_unique
                && !is_silent
                && node.metadata.deletion_timestamp.is_none()
                && effective.admin_state == AdminState::Up
                && effective.bgp_port != 0
                && selector::selects_opt(spec.node_selector.as_ref(), node.labels())
            {
                let zone = node.labels().get(key).cloned().unwrap_or_default();
                candidates.push(Candidate { name, zone });
            }
        }
        candidates.sort_by(|a, b| a.name.cmp(&b.name));
        candidates
    }
}

/// All that a client needs to dial a node; `None`: not known yet.
fn identity(node: &FabricNode) -> Option<RouteReflectorStatus> {
    let addresses: Vec<String> = addresses_of(node).iter().map(ToString::to_string).collect();
    let router_id = node.status.as_ref()?.bgp.as_ref()?.router_id?;
    (!addresses.is_empty()).then(|| RouteReflectorStatus {
        node_name: node.name_any(),
        cluster_id: router_id.to_string(),
        addresses,
    })
}

/// Which nodes have a node-to-node session that is up with each node.
fn reach(
    objects: &Objects,
    nodes: &BTreeMap<String, RouteReflectorStatus>,
) -> BTreeMap<String, BTreeSet<String>> {
    let by_address: BTreeMap<&str, &String> = nodes
        .iter()
        .flat_map(|(name, status)| status.addresses.iter().map(move |address| (address.as_str(), name)))
        .collect();
    let mut reach: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for session in objects.sessions.iter().filter(|session| session.spec.peer == TOPOLOGY_PEER) {
        let is_up = session.status.as_ref().and_then(|status| status.state.as_ref())
            == Some(&SessionState::Established);
        let Some(remote) = by_address.get(session.spec.remote.as_str()).filter(|_| is_up) else { continue };
        let here = session.spec.node_name.clone();
        reach.entry((*remote).clone()).or_default().insert(here.clone());
        reach.entry(here).or_default().insert((*remote).clone());
    }
    reach
}

/// Those who reflect and may go on, then the least crowded zones, then by name; at last one is moved at a time from a zone
/// that has two more than another could have.
fn choose(candidates: &[Candidate], current: &[String], wanted: usize) -> BTreeSet<String> {
    let mut chosen: Vec<&Candidate> = current
        .iter()
        .filter_map(|name| candidates.iter().find(|candidate| candidate.name == *name))
        .collect();
    let in_zone = |chosen: &[&Candidate], zone: &str| chosen.iter().filter(|c| c.zone == zone).count();
    while chosen.len() > wanted {
        let crowd = |at: usize| chosen.get(at).map(|candidate| in_zone(&chosen, &candidate.zone));
        let Some(last) = (0..chosen.len()).max_by_key(|at| crowd(*at)) else { break };
        chosen.remove(last);
    }
    let least = |chosen: &[&Candidate]| {
        let free = candidates.iter().filter(|c| !chosen.iter().any(|known| known.name == c.name));
        free.min_by_key(|candidate| (in_zone(chosen, &candidate.zone), candidate.name.clone()))
    };
    while chosen.len() < wanted {
        let Some(next) = least(&chosen) else { break };
        chosen.push(next);
    }
    if let Some(next) = least(&chosen) {
        let crowded = (0..chosen.len()).max_by_key(|at| chosen.get(*at).map(|c| in_zone(&chosen, &c.zone)));
        let crowd = crowded.and_then(|at| chosen.get(at)).map_or(0, |c| in_zone(&chosen, &c.zone));
        if let Some(at) = crowded.filter(|_| crowd > in_zone(&chosen, &next.zone) + 1)
            && let Some(place) = chosen.get_mut(at)
        {
            *place = next;
        }
    }
    chosen.into_iter().map(|candidate| candidate.name.clone()).collect()
}

/// Whether one that leaves still serves somebody who does not reach all that stay.
fn is_needed(
    leaving: &String,
    chosen: &BTreeSet<String>,
    reach: &BTreeMap<String, BTreeSet<String>>,
) -> bool {
    let none = BTreeSet::new();
    let of = |name: &String| reach.get(name).unwrap_or(&none);
    of(leaving)
        .iter()
        .filter(|client| !chosen.contains(*client))
        .any(|client| chosen.iter().any(|reflector| !of(reflector).contains(client)))
}

fn changes(current: &[String], chosen: &BTreeSet<String>, elected: &[String]) -> Vec<(&'static str, String)> {
    let new: Vec<&str> = chosen.iter().filter(|name| !current.contains(name)).map(String::as_str).collect();
    let gone: Vec<&str> = current.iter().filter(|name| !elected.contains(name)).map(String::as_str).collect();
    let mut events = Vec::new();
    if !new.is_empty() {
        events.push(("ReflectorElected", format!("{} reflects routes between the nodes", new.join(", "))));
    }
    if !gone.is_empty() {
        events.push((
            "ReflectorReplaced",
            format!("{} does so no longer; {} do", gone.join(", "), elected.join(", ")),
        ));
    }
    events
}

fn saying(spec: &RouteReflectors, candidates: usize, chosen: usize) -> Saying {
    let wanted = spec.count.map_or(1, usize::from);
    if chosen >= wanted {
        return Saying::new(TopologyReady::Ready, "");
    }
    Saying::new(
        TopologyReady::NotEnoughCandidates,
        format!(
            "{wanted} route reflectors are wanted, {candidates} nodes can be one: label more of them for \
             spec.topology.routeReflectors.nodeSelector; a candidate has an address and a listener, its adminState is \
             Up, and the others reach it"
        ),
    )
}

#[cfg(test)]
mod tests;
