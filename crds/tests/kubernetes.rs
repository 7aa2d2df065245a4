//! What every datastore owes, asked of a real kube-apiserver; and what only an API server has: pages, bookmarks,
//! compaction, an outage, rights, tokens that end, kinds that are not installed.
//!
//! `make store-test` runs it: it needs root and Kubernetes' binaries. One API server serves all steps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    unreachable_pub
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use e2e::cluster::ControlPlane;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use manx_crds::store::follow::{Change, Follow};
use manx_crds::store::kube::KubeStore;
use manx_crds::store::{Key, NewEvent, Object, Part, Selection, Store, StoreError};
use manx_crds::v1alpha1::{BGPPeer, FabricNode, IPBlock, IPPool};
use objects::*;
use serde_json::json;
use suite::Backend;

#[allow(dead_code)] // what it says of files, only the directory is asked
mod api;
#[path = "kubernetes/api_objects.rs"]
mod api_objects;
#[path = "conformance/model.rs"]
mod model;
#[path = "conformance/objects.rs"]
mod objects;
#[path = "kubernetes/rotation.rs"]
mod rotation;
#[path = "conformance/suite.rs"]
mod suite;

/// Runs `work` inside the control plane's namespace, on a runtime of its own.
fn inside<T: Send>(plane: &ControlPlane, work: impl AsyncFnOnce() -> T + Send) -> T {
    plane
        .run(|| {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            Ok(runtime.block_on(work()))
        })
        .unwrap()
}

async fn open(kubeconfig: &Path) -> KubeStore {
    KubeStore::from_kubeconfig(kubeconfig, None).await.unwrap()
}

async fn clear<K: Object>(store: &KubeStore) {
    for object in store.list::<K>(&Selection::default()).await.unwrap().items {
        let key = Key { namespace: object.namespace(), name: object.name_any() };
        if object.meta().finalizers.is_some() {
            store.apply::<K>(&key, None, "manx-controller", Part::Finalizers, json!([])).await.unwrap();
        }
        match store.delete::<K>(&key, None, None).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

async fn backend(kubeconfig: &Path) -> Backend<KubeStore> {
    let backend = Backend { here: open(kubeconfig).await, there: open(kubeconfig).await };
    clear::<IPPool>(&backend.here).await;
    clear::<IPBlock>(&backend.here).await;
    clear::<BGPPeer>(&backend.here).await;
    clear::<FabricNode>(&backend.here).await;
    backend
}

fn install_crds(plane: &ControlPlane) {
    for crd in manx_crds::v1alpha1::crds().unwrap() {
        plane.feed(&["apply", "--server-side", "-f", "-"], &serde_json::to_string(&crd).unwrap()).unwrap();
    }
    plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).unwrap();
}

macro_rules! one_step_each {
    ($plane:expr, $config:expr, $($name:ident),+ $(,)?) => {
        $({
            let begun = Instant::now();
            inside($plane, async || suite::$name(&backend($config).await).await);
            println!("{} {:.1}s", stringify!($name), begun.elapsed().as_secs_f64());
        })+
    };
}

#[test]
fn an_api_server_is_a_datastore() {
    let mut plane = ControlPlane::up("store").unwrap();
    let config = plane.admin_kubeconfig();
    a_kind_that_is_not_installed_says_what_to_do(&plane, &config);
    install_crds(&plane);
    suite::every!(one_step_each, &plane, &config);
    inside(&plane, async || {
        let b = backend(&config).await;
        model::a_follower_ends_where_the_store_does(&b, open(&config).await).await;
    });
    inside(&plane, async || {
        let b = backend(&config).await;
        model::an_interrupted_reader_ends_where_the_store_does(&b, open(&config).await).await;
    });
    api_objects(&plane, &config);
    pages_are_one_list(&plane, &config);
    what_is_watched_is_pruned_and_what_is_read_is_whole(&plane, &config);
    events_are_a_series(&plane, &config);
    what_an_older_crd_does_not_know_is_left_out(&plane, &config);
    a_compacted_moment_is_expired(&plane, &config);
    a_right_that_is_missing_is_named(&plane);
    a_follower_survives_an_outage(&mut plane, &config);
    rotation::a_rotated_token_is_taken_up(&mut plane, &config);
}

fn a_kind_that_is_not_installed_says_what_to_do(plane: &ControlPlane, config: &Path) {
    let text = inside(plane, async || {
        let error = open(config).await.list::<IPPool>(&everything()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        error.to_string()
    });
    assert!(text.contains("serves no IPPool of manx.dev/v1alpha1: install or upgrade the CRDs"), "{text}");
}

/// good.yaml applies, and every object of bad.yaml is refused with its text.
fn api_objects(plane: &ControlPlane, config: &Path) {
    let version = plane.kubectl(&["version"]).unwrap();
    let server = version.lines().find_map(|line| line.strip_prefix("Server Version: ")).unwrap();
    if let Ok(wanted) = std::env::var("KUBERNETES") {
        assert_eq!(server, wanted, "KUBERNETES names another version");
    }
    let begun = Instant::now();
    let (accepted, refused) = inside(plane, async || {
        let file = kube::config::Kubeconfig::read_from(config).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        api_objects::every_object_gets_its_verdict(client, server.starts_with("v1.34.")).await
    });
    let took = begun.elapsed().as_secs_f64();
    println!(
        "kube-apiserver {server}: {accepted} objects accepted, {refused} refused with their text, {took:.1}s"
    );
}

/// CRDs of one field less, as in an upgrade that forgot them: the rest is written, and all of it once they are mended.
fn what_an_older_crd_does_not_know_is_left_out(plane: &ControlPlane, config: &Path) {
    let all = manx_crds::v1alpha1::crds().unwrap();
    let newer = all.into_iter().find(|crd| crd["metadata"]["name"] == "ippools.manx.dev").unwrap();
    let mut older = newer.clone();
    let capacity = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/capacity/properties";
    older.pointer_mut(capacity).unwrap().as_object_mut().unwrap().remove("blocks").unwrap();
    let wish = json!({"capacity": {"addresses": "65536", "assigned": 7, "blocks": 3}});
    let written = |known: Option<i64>| {
        inside(plane, async || {
            let store = open(config).await;
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                // The server takes a CRD into force some time after it stores it.
                let uid = store.get::<IPPool>(&cluster("older")).await.unwrap().uid();
                let key = cluster("older");
                let put = store.apply::<IPPool>(
                    &key,
                    uid.as_deref(),
                    "manx-controller",
                    Part::Status,
                    wish.clone(),
                );
                let capacity = put.await.unwrap().status.unwrap().capacity.unwrap();
                assert_eq!(capacity.assigned, Some(7));
                if capacity.blocks == known {
                    return;
                }
                assert!(Instant::now() < deadline, "{capacity:?}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    };
    inside(plane, async || {
        open(config).await.create(&pool("older", "10.98.0.0/16")).await.unwrap();
    });
    let put = |crd: &serde_json::Value| {
        inside(plane, async || open(config).await.install_crd(crd).await.unwrap());
    };
    written(Some(3));
    // As its own manager would: what it no longer lists goes.
    plane.feed(&["replace", "-f", "-"], &with_revision(plane, older)).unwrap();
    written(None);
    put(&newer);
    written(Some(3));
}

fn with_revision(plane: &ControlPlane, mut crd: serde_json::Value) -> String {
    let held = plane.kubectl(&["get", "crd", "ippools.manx.dev", "-o", "json"]).unwrap();
    let held: serde_json::Value = serde_json::from_str(&held).unwrap();
    crd["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"].clone();
    crd.to_string()
}

/// More objects than a page holds, with one that changes while the pages are read.
fn pages_are_one_list(plane: &ControlPlane, config: &Path) {
    let maps = 1_203;
    let list: String = (0..maps)
        .map(|n| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m{n}, namespace: default, labels: {{page: a}}}}}}\n---\n"))
        .collect();
    plane.feed(&["create", "-f", "-"], &list).unwrap();
    inside(plane, async || {
        let labels = serde_saphyr::from_str("{matchLabels: {page: a}}").unwrap();
        let selection = Selection { labels: Some(labels), ..everything() };
        let list = open(config).await.list::<ConfigMap>(&selection).await.unwrap();
        assert_eq!(list.items.len(), maps);
    });
    plane.kubectl(&["delete", "configmap", "-l", "page=a", "--wait=false"]).unwrap();
}

fn what_is_watched_is_pruned_and_what_is_read_is_whole(plane: &ControlPlane, config: &Path) {
    // No controller manager runs here to make it.
    plane
        .apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: default}}")
        .unwrap();
    plane
        .apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: default, labels: {app: a}}, spec: {nodeName: n1,
              serviceAccountName: default, containers: [{name: c, image: i, env: [{name: A, value: b}],
              ports: [{name: web, containerPort: 80}]}]}}",
        )
        .unwrap();
    inside(plane, async || {
        let store = open(config).await;
        let fields = BTreeMap::from([("spec.nodeName".to_owned(), "n1".to_owned())]);
        let list = store.list::<Pod>(&Selection { fields, ..everything() }).await.unwrap();
        let [pod] = list.items.as_slice() else { panic!("one Pod of n1, not {}", list.items.len()) };
        let spec = pod.spec.as_ref().unwrap();
        assert!(pod.metadata.managed_fields.is_none() && spec.containers[0].env.is_none());
        assert_eq!(spec.containers[0].ports.as_ref().unwrap()[0].name.as_deref(), Some("web"));
        assert_eq!((spec.node_name.as_deref(), pod.labels()["app"].as_str()), (Some("n1"), "a"));
        let whole = store.get::<Pod>(&Key::namespaced("default", "p")).await.unwrap();
        assert!(whole.metadata.managed_fields.is_some());
        assert!(whole.spec.unwrap().containers[0].env.is_some());
    });
}

fn events_are_a_series(plane: &ControlPlane, config: &Path) {
    plane.apply("{apiVersion: v1, kind: Node, metadata: {name: n1}}").unwrap();
    let event = |note: &str| NewEvent {
        warning: true,
        reason: "AddressChanged".to_owned(),
        action: "Reconcile".to_owned(),
        note: note.to_owned(),
        controller: "manx.dev/felix".to_owned(),
        instance: "felix-n1".to_owned(),
    };
    inside(plane, async || {
        let store = open(config).await;
        let node = store.get::<Node>(&Key::cluster("n1")).await.unwrap();
        store.record_event(&node, event("first")).await.unwrap();
        store.record_event(&node, event("within a minute: not written")).await.unwrap();
        // Another process, or the same after a restart: the series goes on.
        open(config).await.record_event(&node, event("first")).await.unwrap();
        let all = store.list::<Event>(&Selection { namespace: Some("default".into()), ..everything() }).await;
        let ours: Vec<Event> = all
            .unwrap()
            .items
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some("AddressChanged"))
            .collect();
        let [one] = ours.as_slice() else { panic!("{} Events", ours.len()) };
        assert_eq!(one.series.as_ref().map(|series| series.count), Some(2));
        assert_eq!(one.note.as_deref(), Some("first"));
        assert_eq!(one.regarding.as_ref().unwrap().uid, node.uid());
    });
    let shown = plane.kubectl(&["events", "--for", "node/n1", "-A"]).unwrap();
    assert!(shown.contains("AddressChanged"), "{shown}");
}

fn a_compacted_moment_is_expired(plane: &ControlPlane, config: &Path) {
    let from = inside(plane, async || {
        let store = open(config).await;
        let list = store.list::<IPPool>(&everything()).await.unwrap();
        store.create(&pool("compacted", "10.99.0.0/16")).await.unwrap();
        list.revision
    });
    // The watch cache would still know: only a restarted API server reads what etcd forgot.
    plane.compact().unwrap();
    inside(plane, async || {
        let store = open(config).await;
        let old = manx_crds::store::Revision("1".to_owned());
        let error = match store.watch::<IPPool>(&everything(), &old).await {
            Ok(mut watch) => soon(manx_crds::store::Watch::next(&mut watch)).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(error, StoreError::Expired { .. }), "{error:?}");
        assert!(from.0.parse::<u64>().is_ok());
        // Who follows lists again and misses nothing.
        let mut follow = Follow::<KubeStore, IPPool>::new(store.clone(), everything());
        assert!(matches!(soon(follow.next()).await, Change::Put(_)));
    });
}

fn a_right_that_is_missing_is_named(plane: &ControlPlane) {
    plane
        .apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: nobody, namespace: default}}")
        .unwrap();
    let token = plane.token("default", "nobody", Duration::from_secs(600)).unwrap();
    let nobody = plane.token_kubeconfig("nobody", &token).unwrap();
    inside(plane, async || {
        let error = open(&nobody).await.list::<IPPool>(&everything()).await.unwrap_err();
        let StoreError::Forbidden(text) = &error else { panic!("{error:?}") };
        assert!(text.contains("ippools.manx.dev") && text.contains("default:nobody"), "{text}");
    });
}

/// The API server goes and comes back: what changed is told, what did not is not, and nothing is told to be gone.
fn a_follower_survives_an_outage(plane: &mut ControlPlane, config: &Path) {
    inside(plane, async || {
        let b = backend(config).await;
        b.here.create(&peer("kept", "tor", 179)).await.unwrap();
    });
    let (tell, told) = mpsc::channel::<String>();
    let (stop, stopped) = mpsc::channel::<()>();
    let netns = plane.netns().clone();
    let path: PathBuf = config.to_owned();
    let reader = std::thread::spawn(move || {
        netns.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut follow = Follow::<KubeStore, BGPPeer>::new(open(&path).await, everything());
                while stopped.try_recv().is_err() {
                    let Ok(change) = tokio::time::timeout(Duration::from_millis(200), follow.next()).await
                    else {
                        continue;
                    };
                    let _ = tell.send(match change {
                        Change::Put(peer) => format!("put {}", peer.name_any()),
                        Change::Deleted(peer) => format!("deleted {}", peer.name_any()),
                        other => format!("{other:?}"),
                    });
                }
            });
            Ok(())
        })
    });
    let next = || told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!([next(), next()], ["put kept", "InSync"]);
    plane.stop_api_server().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    plane.start_api_server().unwrap();
    inside(plane, async || {
        open(config).await.create(&peer("new", "tor", 179)).await.unwrap();
    });
    let mut heard = next();
    // A list after the gap tells again that it is whole.
    while heard == "InSync" {
        heard = next();
    }
    assert_eq!(heard, "put new");
    stop.send(()).unwrap();
    reader.join().unwrap().unwrap();
}
