//! The kinds of Kubernetes that we read, as people's files, and what agents write to them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use manx_crds::store::dir::DirStore;
use manx_crds::store::{Key, Object, Part, Selection, Store};
use serde_json::json;

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    if file.starts_with("secrets/") {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

async fn one<K: Object>(store: &DirStore) -> K {
    assert_eq!(store.invalid::<K>().await.unwrap(), []);
    let mut items = store.list::<K>(&Selection::default()).await.unwrap().items;
    assert_eq!(items.len(), 1);
    items.remove(0)
}

#[tokio::test]
async fn core_kinds_are_files_and_others_have_their_group() {
    let directory = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("nodes/n1.yaml", "{apiVersion: v1, kind: Node, metadata: {name: n1}}"),
        ("namespaces/shop.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}"),
        ("pods/shop/web-1.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: web-1}}"),
        (
            "services/shop/web.yaml",
            "{apiVersion: v1, kind: Service, metadata: {name: web, annotations: {manx.dev/load-balancer-pool: public}},
              spec: {type: LoadBalancer, ports: [{name: http, port: 80, targetPort: http}], externalTrafficPolicy: Local}}",
        ),
        (
            "endpointslices.discovery.k8s.io/shop/web-a1.yaml",
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
              metadata: {name: web-a1, labels: {kubernetes.io/service-name: web}}, addressType: IPv4,
              endpoints: [{addresses: [10.244.0.7], nodeName: n1, conditions: {ready: true}}], ports: [{port: 8080}]}",
        ),
        (
            "leases.coordination.k8s.io/manx-system/manx-controller.yaml",
            "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: manx-controller}, spec: {leaseDurationSeconds: 15}}",
        ),
        (
            "secrets/manx-system/tor-keys.yaml",
            "{apiVersion: v1, kind: Secret, metadata: {name: tor-keys}, data: {r12: b2xk, r13: a2V5}, stringData: {r12: hush}}",
        ),
    ] {
        write(directory.path(), file, text);
    }
    let store = DirStore::open(directory.path()).unwrap();
    assert_eq!(one::<Node>(&store).await.metadata.name.as_deref(), Some("n1"));
    assert_eq!(one::<Namespace>(&store).await.metadata.name.as_deref(), Some("shop"));
    assert_eq!(one::<Pod>(&store).await.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(one::<Service>(&store).await.spec.unwrap().external_traffic_policy.as_deref(), Some("Local"));
    assert_eq!(one::<EndpointSlice>(&store).await.endpoints[0].node_name.as_deref(), Some("n1"));
    assert_eq!(one::<Lease>(&store).await.spec.unwrap().lease_duration_seconds, Some(15));
    let secret = one::<Secret>(&store).await;
    assert_eq!(secret.string_data, None);
    let data = secret.data.unwrap();
    assert_eq!((data["r12"].0.as_slice(), data["r13"].0.as_slice()), (&b"hush"[..], &b"key"[..]));
}

#[tokio::test]
async fn the_controller_writes_the_address_of_a_service() {
    let directory = tempfile::tempdir().unwrap();
    let file = "services/shop/web.yaml";
    write(
        directory.path(),
        file,
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer}}",
    );
    let store = DirStore::open(directory.path()).unwrap();
    let key = Key::namespaced("shop", "web");
    let body = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}});
    store.apply::<Service>(&key, None, "manx-controller", Part::Status, body).await.unwrap();
    let ingress = one::<Service>(&store).await.status.unwrap().load_balancer.unwrap().ingress.unwrap();
    assert_eq!(ingress[0].ip.as_deref(), Some("192.0.2.7"));
    let text = std::fs::read_to_string(directory.path().join(file)).unwrap();
    assert!(!text.contains("192.0.2.7"), "people's file is people's");
    store.apply::<Service>(&key, None, "manx-controller", Part::Status, json!({})).await.unwrap();
    let status = one::<Service>(&store).await.status;
    assert!(status.and_then(|status| status.load_balancer).is_none_or(|lb| lb.ingress.is_none()));
}

#[tokio::test]
async fn a_field_that_no_service_has_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write(
        directory.path(),
        "services/shop/web.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspce: {}\n",
    );
    let store = DirStore::open(directory.path()).unwrap();
    let [what] = &store.invalid::<Service>().await.unwrap()[..] else { panic!("one") };
    assert_eq!(what.error, "unknown field \"spce\" of Service web");
    assert_eq!(what.expected.as_deref(), Some("spec"));
}
