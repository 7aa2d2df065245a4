//! What follows from the memory is what follows from the datastore.

use std::collections::BTreeSet;

use felix_calc::{CalcGraph, NodeSettings, Update};
use felix_input::pod::Local;
use k8s_openapi::api::core::v1::Pod;
use manx_crds::store::follow::Change as Step;
use manx_crds::store::{Key, Object};
use manx_daemon::inputs::Owner;
use manx_daemon::inputs::keeper::Keeper;
use manx_daemon::kind::Shared;
use manx_ipam::pool::Pool;

use super::Memory;
use crate::objects::{Change, Objects};

const PODS: [&str; 6] = [
    "{name: web, labels: {app: web}}, spec: {nodeName: n1, serviceAccountName: sa, containers: [
        {name: c, image: i, env: [{name: A, value: b}], ports: [{name: http, containerPort: 8080}]}]},
        status: {phase: Running, podIP: 10.244.0.1, podIPs: [{ip: 10.244.0.1}, {ip: 'fd00::1'}],
                 conditions: [{type: Ready, status: 'True'}]}",
    "{name: db, labels: {app: db}, annotations: {manx.dev/pools: v4}}, spec: {nodeName: n2, containers: [{name: c}],
        initContainers: [{name: side, restartPolicy: Always, ports: [{name: sql, containerPort: 5432}]},
                         {name: once, ports: [{name: sql, containerPort: 1}]}]},
        status: {phase: Running, podIP: 10.244.9.1}",
    "{name: host, labels: {app: db}}, spec: {hostNetwork: true, containers: [{name: c}]},
        status: {phase: Running, podIP: 192.0.2.7}",
    "{name: over, labels: {app: db}}, spec: {containers: [{name: c}]}, status: {phase: Succeeded, podIP: 10.244.9.9}",
    "{name: failed, labels: {app: db}}, spec: {containers: [{name: c}]}, status: {phase: Failed, podIP: 10.244.9.8}",
    "{name: new, labels: {app: db}}, spec: {containers: [{name: c}]}",
];

const POLICIES: [&str; 2] = [
    "{name: web}, spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress],
        ingress: [{from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: http}]}],
        egress: [{to: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {}}], ports: [{port: sql}]},
                 {to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.8/29]}}]}]}",
    "{name: closed}, spec: {podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}",
];

fn parsed<K: Object>(kind: &str, rest: &str) -> K {
    serde_saphyr::from_str(&format!("{{{kind}, metadata: {rest}}}")).unwrap()
}

/// As the store delivers them; the API server's own additions included.
fn objects() -> Objects {
    let mut objects = Objects { node: "n1".to_owned(), ..Objects::default() };
    let ours = |kind: &str| format!("apiVersion: manx.dev/v1alpha1, kind: {kind}");
    for pod in PODS {
        let mut pod: Pod = parsed("apiVersion: v1, kind: Pod", pod);
        pod.metadata.namespace = Some("shop".to_owned());
        pod.metadata.uid = Some(format!("uid-{}", pod.metadata.name.clone().unwrap()));
        pod.metadata.managed_fields = Some(vec![Default::default()]);
        objects.take(Change::Pod(Box::new(Step::Put(pod))));
    }
    for policy in POLICIES {
        let policy = parsed("apiVersion: networking.k8s.io/v1, kind: NetworkPolicy", policy);
        let mut policy: k8s_openapi::api::networking::v1::NetworkPolicy = policy;
        policy.metadata.namespace = Some("shop".to_owned());
        objects.take(Change::Policy(Step::Put(policy)));
    }
    let shop = parsed("apiVersion: v1, kind: Namespace", "{name: shop, labels: {team: a}}");
    objects.take(Change::Namespace(Step::Put(shop)));
    let node =
        "{name: n1, labels: {rack: '1'}}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}";
    objects.take(Change::Node(Step::Put(parsed("apiVersion: v1, kind: Node", node))));
    let fabric_node = "{name: n2}, spec: {}, status: {addresses: {ipv4: 192.0.2.2}}";
    objects.take(Change::FabricNode(Step::Put(parsed(&ours("FabricNode"), fabric_node))));
    let pool = "{name: v4, uid: u}, spec: {cidr: 10.244.0.0/16, natOutgoing: Masquerade}";
    objects.take(Change::Pool(Step::Put(parsed(&ours("IPPool"), pool))));
    let block = "{name: 10-244-0-0-26, uid: b, resourceVersion: '9'}, spec: {cidr: 10.244.0.0/26, pool: v4,
                 nodeName: n1, cursor: 3}";
    objects.take(Change::Block(Step::Put(parsed(&ours("IPBlock"), block))));
    let configuration = "{name: default}, spec: {policy: {denyLogRate: 3}}";
    objects.take(Change::Configuration(Step::Put(parsed(&ours("FabricConfiguration"), configuration))));
    let advertisement = "{name: pods}, spec: {pools: {announce: Blocks}}";
    objects.take(Change::Advertisement(Step::Put(parsed(&ours("BGPAdvertisement"), advertisement))));
    objects
}

/// The table of node n1, on which pods `web` and `new` have links.
fn table(objects: &Objects) -> felix_calc::table::Table {
    let settings = felix_input::node::settings(
        objects.nodes.named("n1"),
        objects.fabric_nodes.named("n1"),
        objects.configuration.iter().next(),
    );
    let mut graph = CalcGraph::new(NodeSettings::default());
    graph.on_update(Update::Settings(settings));
    let nat = felix_input::nat::outgoing(objects.pools.iter(), objects.fabric_nodes.iter());
    graph.on_update(Update::OutgoingNat(nat));
    for (key, namespace) in &objects.namespaces.objects {
        graph.on_update(Update::Namespace(key.name.clone(), Some(felix_input::namespace::labels(namespace))));
    }
    for (key, policy) in &objects.policies.objects {
        let id = felix_calc::PolicyKey {
            kind: felix_calc::PolicyKind::KubernetesNetworkPolicy,
            namespace: "shop".to_owned(),
            name: key.name.clone(),
        };
        graph.on_update(Update::Policy(id, Some(felix_input::network_policy(policy).policy)));
    }
    for (key, pod) in &objects.pods.objects {
        let local = ["web", "new"].contains(&key.name.as_str()).then(|| Local {
            interface: format!("manx{}", key.name),
            addresses: BTreeSet::from(["10.244.0.1".parse().unwrap()]),
            sources: BTreeSet::new(),
        });
        let endpoint = felix_input::pod::endpoint(pod, local.as_ref());
        graph.on_update(Update::Endpoint(felix_input::pod::endpoint_id(pod), endpoint));
    }
    graph.flush();
    graph.table().clone()
}

fn keeper(directory: &std::path::Path) -> Keeper {
    let owner = Owner { agent: "felix".into(), node: "n1".into(), store: "kubernetes".into() };
    Keeper::new(directory, owner)
}

/// Written by one process, read by the next.
async fn remembered(objects: &Objects, service_prefixes: &BTreeSet<ipnet::IpNet>) -> Memory {
    let directory = tempfile::tempdir().unwrap();
    let mut first = keeper(directory.path());
    first.heard(std::time::Instant::now());
    first.finish(objects.gather(service_prefixes)).await;
    keeper(directory.path()).recall(|inputs, _| Memory::read(inputs)).unwrap()
}

#[tokio::test]
async fn the_table_is_the_same_from_the_memory() {
    let heard = objects();
    let prefixes = BTreeSet::from(["198.51.100.1/32".parse().unwrap()]);
    let memory = remembered(&heard, &prefixes).await;
    assert_eq!(memory.service_prefixes, prefixes);
    let mut recalled = Objects { node: "n1".to_owned(), ..Objects::default() };
    recalled.remember(memory);
    assert!(recalled.known() && !recalled.in_sync());
    let expected = table(&heard);
    assert!(expected.chains.len() > 10 && expected.chains.contains_key("srcnat"));
    assert_eq!(table(&recalled), expected);
    // And what an ADD asks of a pod, its namespace, the pools and the blocks.
    let web = Key::namespaced("shop", "db");
    let annotations = |objects: &Objects| objects.pods.get(&web).unwrap().metadata.annotations.clone();
    assert!(annotations(&heard).is_some());
    assert_eq!(annotations(&recalled), annotations(&heard));
    let pools = |objects: &Objects| {
        objects.pools.iter().map(|pool| Pool::try_from(pool).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(pools(&recalled), pools(&heard));
    let blocks = |objects: &Objects| objects.blocks.iter().cloned().collect::<Vec<_>>();
    assert_eq!(blocks(&recalled), blocks(&heard));
}

#[tokio::test]
async fn what_is_remembered_and_not_there_is_gone_and_what_was_heard_is_newer() {
    let memory = remembered(&objects(), &BTreeSet::new()).await;
    let mut objects = Objects { node: "n1".to_owned(), ..Objects::default() };
    let db = || -> Pod {
        parsed("apiVersion: v1, kind: Pod", "{name: db, namespace: shop, labels: {app: other}}")
    };
    // A list that has come half way.
    objects.take(Change::Pod(Box::new(Step::Put(db()))));
    objects.remember(memory);
    let names = |pods: &Shared<Pod>| pods.objects.keys().map(|key| key.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&objects.pods), ["db", "failed", "host", "new", "over", "web"]);
    assert_eq!(
        objects.pods.get(&Key::namespaced("shop", "db")).unwrap().metadata.labels,
        db().metadata.labels
    );
    let news = std::mem::take(&mut objects.news);
    assert!(news.remembered.is_some_and(|blocks| blocks.len() == 1));
    objects.take(Change::Pod(Box::new(Step::Put(parsed(
        "apiVersion: v1, kind: Pod",
        "{name: web, namespace: shop}",
    )))));
    objects.take(Change::Pod(Box::new(Step::InSync)));
    assert_eq!(names(&objects.pods), ["db", "web"]);
    let said: BTreeSet<String> = objects.news.pods.iter().map(|key| key.name.clone()).collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    assert_eq!(said, ["failed", "host", "new", "over", "web"]);
}
