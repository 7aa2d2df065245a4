//! The controller on a directory datastore, as felix runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use manx_controller::{Leadership, Lost, Settings};
use manx_crds::store::dir::DirStore;
use manx_crds::store::{Key, Object, Part, Store as _};
use manx_crds::v1alpha1::{
    BGPPeer, BGPSession, FabricConfiguration, FabricNode, IPBlock, IPPool, LoadBalancerPool,
};
use manx_daemon::secrets::NAMESPACE;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Lost>>,
}

fn start(root: &Path, identity: &str) -> Running {
    let store = DirStore::open(root).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let settings = Settings {
        identity: identity.to_owned(),
        directory: true,
        secrets_namespace: NAMESPACE.to_owned(),
        report: None,
    };
    let leadership = Leadership::Lock(root.join(".controller.lock"));
    let task = tokio::spawn(manx_controller::run(store, leadership, settings, async move {
        let _ = stopped.await;
    }));
    Running { stop, task }
}

impl Running {
    async fn end(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

fn write(root: &Path, folder: &str, name: &str, text: &str) {
    let path = root.join(folder);
    std::fs::create_dir_all(&path).unwrap();
    // As an editor that knows what it does: never half a file.
    let temporary = path.join(format!(".{name}.new"));
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, path.join(format!("{name}.yaml"))).unwrap();
}

fn ours(root: &Path, folder: &str, kind: &str, name: &str, spec: &str) {
    let text = format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
    );
    write(root, &format!("{folder}.manx.dev"), name, &text);
}

fn service(root: &Path, name: &str, annotations: &str) {
    let text = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}, \
         spec: {{type: LoadBalancer, ports: [{{port: 80}}], ipFamilies: [IPv4]}}}}\n"
    );
    write(root, "services/shop", name, &text);
}

async fn value<K: Object>(store: &DirStore, key: &Key) -> Value {
    serde_json::to_value(store.get::<K>(key).await.unwrap()).unwrap()
}

/// Waits until the object looks as wanted; what it looked like last, if it never does.
async fn until<K: Object>(store: &DirStore, key: &Key, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    let mut last = Value::Null;
    while begun.elapsed() < Duration::from_secs(30) {
        if let Ok(object) = store.get::<K>(key).await {
            last = serde_json::to_value(object).unwrap();
            if wanted(&last) {
                return last;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{key:?} never came to look as wanted; it is {last:#}")
}

fn condition(object: &Value, kind: &str) -> String {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default();
    found["reason"].as_str().unwrap_or("-").to_owned()
}

fn address(object: &Value) -> &str {
    object["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap_or("-")
}

fn events(root: &Path) -> String {
    std::fs::read_to_string(root.join(".events/manx-controller.jsonl")).unwrap_or_default()
}

/// Every file of the store and its text.
fn everything(root: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            everything(&path, into);
        } else {
            into.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
}

fn snapshot(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    everything(root, &mut files);
    files
}

async fn node(store: &DirStore, root: &Path, name: &str, ip: &str) {
    ours(root, "fabricnodes", "FabricNode", name, "");
    let status = json!({"addresses": {"ipv4": ip}, "bgp": {"routerID": ip}});
    let key = Key::cluster(name);
    store.apply::<FabricNode>(&key, None, "manx-felix", Part::Status, status).await.unwrap();
}

/// A fabric with something of every kind.
async fn fabric(store: &DirStore, root: &Path) {
    ours(root, "fabricconfigurations", "FabricConfiguration", "default", "topology: {mode: None}");
    node(store, root, "worker-1", "10.0.0.1").await;
    ours(root, "bgppeers", "BGPPeer", "tor", "address: 10.0.0.254, asn: 65001");
    ours(root, "bgppeers", "BGPPeer", "ours", "address: 10.0.0.1, asn: 65001");
    ours(root, "ippools", "IPPool", "pods", "cidr: 10.244.0.0/16");
    let block = "{apiVersion: manx.dev/v1alpha1, kind: IPBlock, metadata: {name: 10-244-0-0-26}, spec: {cidr: 10.244.0.0/26, \
                 pool: pods, allocations: [{ip: 10.244.0.1, owner: {kind: Pod, namespace: a, name: b}}]}}\n";
    write(root, "ipblocks.manx.dev", "10-244-0-0-26", block);
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: bad, namespace: shop}, \
                  spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/99}}]}]}}\n";
    write(root, "networkpolicies.networking.k8s.io/shop", "bad", policy);
    let session = "{apiVersion: manx.dev/v1alpha1, kind: BGPSession, metadata: {name: worker-1.tor}, \
                   spec: {nodeName: worker-1, peer: tor, remote: 10.0.0.254}}\n";
    write(root, "bgpsessions.manx.dev", "worker-1.tor", session);
    let session = Key::cluster("worker-1.tor");
    store
        .apply::<BGPSession>(&session, None, "manx-bgpd", Part::Status, json!({"state": "Established"}))
        .await
        .unwrap();
}

/// Nothing changes, so nothing is written; not by this one, and not by the next.
async fn nothing_is_written(root: &Path, running: Running) -> Running {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = snapshot(root);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(before == snapshot(root), "an idle cluster is written to");
    running.end().await;
    let running = start(root, "b");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut after = snapshot(root);
    // A policy has no status to remember by: each leader tells it once.
    after.retain(|path, _| !path.contains(".events"));
    let before: BTreeMap<String, Vec<u8>> =
        before.into_iter().filter(|(path, _)| !path.contains(".events")).collect();
    assert!(before == after, "a restart writes");
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_are_written_once_and_an_idle_cluster_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let store = DirStore::open(root).unwrap();
    fabric(&store, root).await;
    let running = start(root, "a");
    let tor = until::<BGPPeer>(&store, &Key::cluster("tor"), |o| condition(o, "Established") != "-").await;
    assert_eq!(
        (condition(&tor, "Accepted").as_str(), condition(&tor, "ResolvedRefs").as_str()),
        ("Accepted", "ResolvedRefs")
    );
    assert_eq!(condition(&tor, "Established"), "AllEstablished");
    assert_eq!(tor["status"]["sessions"], json!({"desired": 1, "established": 1}));
    assert_eq!(tor["status"]["observedGeneration"], tor["metadata"]["generation"]);
    let own = until::<BGPPeer>(&store, &Key::cluster("ours"), |o| condition(o, "Accepted") != "-").await;
    assert_eq!(condition(&own, "Accepted"), "AddressIsOurs");
    let key = Key::cluster("pods");
    let pods = until::<IPPool>(&store, &key, |o| {
        condition(o, "Allocatable") != "-" && o["metadata"]["finalizers"] == json!(["manx.dev/ipam"])
    });
    let pods = pods.await;
    assert_eq!(condition(&pods, "Allocatable"), "Allocatable");
    assert_eq!(pods["status"]["capacity"], json!({"addresses": "65536", "assigned": 1, "blocks": 1}));
    until::<FabricNode>(&store, &Key::cluster("worker-1"), |o| condition(o, "IdentityUnique") == "Unique")
        .await;
    let fabric =
        until::<FabricConfiguration>(&store, &Key::cluster("default"), |o| condition(o, "Accepted") != "-")
            .await;
    for (kind, reason) in [
        ("Accepted", "Accepted"),
        ("ResolvedRefs", "ResolvedRefs"),
        ("TopologyReady", "Ready"),
        ("SchemaCompatible", "Compatible"),
    ] {
        assert_eq!(condition(&fabric, kind), reason);
    }
    let begun = Instant::now();
    while !events(root).contains("PolicyRejected") && begun.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(events(root).contains("PolicyRejected"), "{}", events(root));

    // Younger by a second at least: creation times are whole seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    ours(root, "ippools", "IPPool", "again", "cidr: 10.244.0.0/17");
    let again = until::<IPPool>(&store, &Key::cluster("again"), |o| condition(o, "Accepted") != "-").await;
    assert_eq!(condition(&again, "Accepted"), "Overlaps");
    assert!(
        again
            .to_string()
            .contains("10.244.0.0/17 overlaps IPPool pods (10.244.0.0/16); the older pool is used")
    );
    ours(root, "bgppeers", "BGPPeer", "tor-again", "address: 10.0.0.254, asn: 65002");
    let peer =
        until::<BGPPeer>(&store, &Key::cluster("tor-again"), |o| condition(o, "Accepted") != "-").await;
    assert_eq!(condition(&peer, "Accepted"), "OverlapsPeer");

    let running = nothing_is_written(root, running).await;

    // The pool stays until the last address is gone.
    std::fs::remove_file(root.join("ippools.manx.dev/pods.yaml")).unwrap();
    until::<IPPool>(&store, &Key::cluster("pods"), |o| condition(o, "Allocatable") == "Terminating").await;
    store.delete::<IPBlock>(&Key::cluster("10-244-0-0-26"), None, None).await.unwrap();
    let begun = Instant::now();
    while store.get::<IPPool>(&Key::cluster("pods")).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the pool never goes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_get_addresses_and_keep_them_over_a_change_of_leader() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let store = DirStore::open(root).unwrap();
    ours(root, "loadbalancerpools", "LoadBalancerPool", "public", "addresses: [192.0.2.1-192.0.2.2]");
    let key = |name: &str| Key::namespaced("shop", name);
    service(root, "b", "manx.dev/load-balancer-ips: 192.0.2.2");
    let first = start(root, "a");
    let second = start(root, "b");
    let b = until::<Service>(&store, &key("b"), |o| address(o) != "-").await;
    assert_eq!(
        (address(&b), &b["status"]["loadBalancer"]["ingress"][0]["ipMode"]),
        ("192.0.2.2", &json!("VIP"))
    );
    service(root, "a", "");
    until::<Service>(&store, &key("a"), |o| address(o) == "192.0.2.1").await;
    service(root, "outside", "manx.dev/load-balancer-ips: 203.0.113.9");
    service(root, "waits", "");
    let begun = Instant::now();
    let told = || {
        let events = events(root);
        events.contains(
            "203.0.113.9, asked for by shop/outside (manx.dev/load-balancer-ips), is an address of no",
        ) && events.contains("no IPv4 address for shop/waits: public: every address is in use")
            && events.contains("shop/a has 192.0.2.1 from LoadBalancerPool public")
            && events.contains("PoolExhausted")
    };
    while !told() && begun.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told(), "{}", events(root));

    first.end().await;
    // Whoever has the lock leads, so that what is free now is given by the second.
    std::fs::remove_file(root.join("services/shop/a.yaml")).unwrap();
    until::<Service>(&store, &key("waits"), |o| address(o) == "192.0.2.1").await;
    assert_eq!(address(&value::<Service>(&store, &key("b")).await), "192.0.2.2");
    let public = Key::cluster("public");
    let pool = until::<LoadBalancerPool>(&store, &public, |o| {
        o["status"]["capacity"] == json!({"addresses": "2", "assigned": 2})
    });
    assert_eq!(condition(&pool.await, "AddressesAvailable"), "Exhausted");
    second.end().await;
}
