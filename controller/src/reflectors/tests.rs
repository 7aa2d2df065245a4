use manx_crds::store::follow::Change as Follow;
use manx_crds::v1alpha1::BGPSession;

use super::*;
use crate::objects::Change;

const SECOND: Duration = Duration::from_secs(1);

/// A cluster whose BGPSessions follow what was elected, or do not.
struct Cluster {
    objects: Objects,
    election: Reflectors,
    now: Duration,
    events: Vec<String>,
}

fn address(name: &str) -> String {
    format!("10.0.0.{}", name.trim_start_matches('n'))
}

impl Cluster {
    /// Nodes `n1` to `n<count>`, three to a zone.
    fn new(count: u32, reflectors: &str) -> Cluster {
        let mut cluster = Cluster {
            objects: Objects::default(),
            election: Reflectors::default(),
            now: Duration::ZERO,
            events: Vec::new(),
        };
        for number in 1..=count {
            cluster.node(&format!("n{number}"), &format!("z{}", (number - 1) / 3), "");
        }
        cluster.configure(reflectors);
        cluster
    }

    fn configure(&mut self, reflectors: &str) {
        let object: FabricConfiguration = serde_saphyr::from_str(&format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {{name: default}}, spec: \
             {{topology: {{mode: RouteReflector, routeReflectors: {{{reflectors}}}}}}}}}"
        ))
        .unwrap();
        self.objects.take(Change::Configuration(Box::new(Follow::Put(object))));
    }

    fn node(&mut self, name: &str, zone: &str, spec: &str) {
        let ip = address(name);
        let object: FabricNode = serde_saphyr::from_str(&format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: {name}, labels: \
             {{topology.kubernetes.io/zone: {zone}}}}}, spec: {{{spec}}}, status: {{addresses: {{ipv4: {ip}}}, \
             bgp: {{routerID: {ip}}}}}}}"
        ))
        .unwrap();
        self.objects.take(Change::FabricNode(Follow::Put(object)));
    }

    fn session(&mut self, from: &str, to: &str, state: &str) {
        let remote = address(to);
        let object: BGPSession = serde_saphyr::from_str(&format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: BGPSession, metadata: {{name: {from}.topology.{remote}}}, spec: \
             {{nodeName: {from}, peer: topology, remote: {remote}}}, status: {{state: {state}}}}}"
        ))
        .unwrap();
        self.objects.take(Change::Session(Follow::Put(object)));
    }

    /// All nodes have sessions with these.
    fn reached(&mut self, reflectors: &[&str]) {
        let nodes: Vec<String> = self.objects.fabric_nodes.iter().map(|node| node.name_any()).collect();
        for reflector in reflectors {
            for node in nodes.iter().filter(|node| node != reflector) {
                self.session(node, reflector, "Established");
            }
        }
    }

    fn elect(&mut self) -> Vec<String> {
        let elected = self.election.elect(&self.objects, self.now);
        self.events.extend(elected.events.iter().map(|(reason, note)| format!("{reason}: {note}")));
        elected.reflectors.into_iter().map(|reflector| reflector.node_name).collect()
    }

    fn ready(&mut self) -> &'static str {
        self.election.elect(&self.objects, self.now).saying.unwrap().reason
    }
}

#[test]
fn three_are_chosen_one_a_zone() {
    let mut cluster = Cluster::new(9, "");
    assert_eq!(cluster.elect(), ["n1", "n4", "n7"]);
    assert_eq!(cluster.events, ["ReflectorElected: n1, n4, n7 reflects routes between the nodes"]);
    assert_eq!(cluster.elect(), ["n1", "n4", "n7"]);
    assert_eq!((cluster.events.len(), cluster.ready()), (1, "Ready"));
    // Fewer nodes than three are all of them; a number that somebody wrote is meant.
    assert_eq!(Cluster::new(2, "").elect(), ["n1", "n2"]);
    assert_eq!(Cluster::new(2, "").ready(), "Ready");
    assert_eq!(Cluster::new(2, "count: 3").ready(), "NotEnoughCandidates");
}

#[test]
fn only_those_who_can_are_candidates() {
    let mut cluster = Cluster::new(4, "nodeSelector: {matchLabels: {topology.kubernetes.io/zone: z0}}");
    cluster.node("n2", "z0", "adminState: Drained");
    assert_eq!(cluster.elect(), ["n1", "n3"]);
    cluster.configure("nodeSelector: {matchLabels: {role: reflector}}");
    assert_eq!((cluster.elect(), cluster.ready()), (Vec::new(), "NotEnoughCandidates"));
}

#[test]
fn one_that_leaves_goes_when_all_its_clients_reach_the_others() {
    let mut cluster = Cluster::new(6, "count: 2");
    assert_eq!(cluster.elect(), ["n1", "n4"]);
    cluster.reached(&["n1", "n4"]);
    cluster.elect();
    cluster.node("n1", "z0", "adminState: Drained");
    assert_eq!(cluster.elect(), ["n2", "n4", "n1"], "made before broken");
    for client in ["n3", "n4", "n5", "n6"] {
        cluster.session(client, "n2", "Established");
        assert_eq!(cluster.elect().len(), if client == "n6" { 2 } else { 3 }, "{client}");
    }
    assert_eq!(cluster.elect(), ["n2", "n4"]);
    assert_eq!(cluster.events.last().unwrap(), "ReflectorReplaced: n1 does so no longer; n2, n4 do");
    // Back again it is a candidate like others: nothing moves without need.
    cluster.node("n1", "z0", "");
    assert_eq!(cluster.elect(), ["n2", "n4"]);
}

#[test]
fn one_that_nobody_reaches_is_replaced_after_a_while_and_never_all_of_them() {
    let mut cluster = Cluster::new(9, "");
    cluster.elect();
    // Nobody reaches any: sessions are coming up, or the network is away.
    cluster.now += 300 * SECOND;
    assert_eq!(cluster.elect(), ["n1", "n4", "n7"]);
    cluster.reached(&["n1", "n4"]);
    for reflector in ["n1", "n4"] {
        cluster.session("n7", reflector, "Active");
    }
    assert_eq!(cluster.elect(), ["n1", "n4", "n7"]);
    assert_eq!(cluster.election.deadline(cluster.now), Some(cluster.now + 30 * SECOND));
    cluster.now += 29 * SECOND;
    assert_eq!(cluster.elect(), ["n1", "n4", "n7"]);
    cluster.now += SECOND;
    assert_eq!(cluster.elect(), ["n1", "n4", "n8"], "another one of its zone");
}

#[test]
fn a_node_that_is_gone_is_no_reflector() {
    let mut cluster = Cluster::new(3, "count: 1");
    cluster.reached(&["n1"]);
    assert_eq!(cluster.elect(), ["n1"]);
    let gone = cluster.objects.fabric_nodes.named("n1").cloned().unwrap();
    cluster.objects.take(Change::FabricNode(Follow::Deleted(gone)));
    assert_eq!(cluster.elect(), ["n2"]);
}

#[test]
fn a_zone_that_comes_late_gets_its_share_one_at_a_time() {
    let mut cluster = Cluster::new(3, "");
    cluster.reached(&["n1", "n2", "n3"]);
    assert_eq!(cluster.elect(), ["n1", "n2", "n3"]);
    for number in 4..=9 {
        cluster.node(&format!("n{number}"), &format!("z{}", (number - 1) / 3), "");
    }
    let first = cluster.elect();
    assert_eq!(first.iter().filter(|name| ["n4", "n7"].contains(&name.as_str())).count(), 1, "{first:?}");
    for _ in 0..4 {
        let all: Vec<String> = cluster.elect();
        cluster.reached(&all.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let settled = cluster.elect();
    let zones: BTreeSet<u32> =
        settled.iter().map(|name| (name[1..].parse::<u32>().unwrap() - 1) / 3).collect();
    assert_eq!((settled.len(), zones.len()), (3, 3), "{settled:?}");
}

#[test]
fn a_new_leader_believes_the_status() {
    let mut cluster = Cluster::new(9, "");
    let mut object = cluster.objects.the_configuration().unwrap().clone();
    let reflector = |name: &str| RouteReflectorStatus {
        node_name: name.to_owned(),
        cluster_id: address(name),
        addresses: vec![address(name)],
    };
    let status = manx_crds::v1alpha1::FabricConfigurationStatus {
        route_reflectors: vec![reflector("n2"), reflector("n5"), reflector("n9")],
        ..Default::default()
    };
    object.status = Some(status);
    cluster.objects.take(Change::Configuration(Box::new(Follow::Put(object))));
    assert_eq!(cluster.elect(), ["n2", "n5", "n9"]);
    assert!(cluster.events.is_empty());
}
