//! A bare control plane: what datastore, CRD and RBAC tests stand on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use e2e::cluster::ControlPlane;

const ACCOUNT: &str = "\
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules: [{apiGroups: [\"\"], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
";

#[test]
fn identities_rights_outage_and_compaction() {
    let begun = Instant::now();
    let mut plane = ControlPlane::up("plane").unwrap();
    let version = plane.kubectl(&["version"]).unwrap();
    assert!(version.contains("Server Version: v1.34."), "{version}");
    // A figure for people, not a bound: the machine may be busy.
    println!("up after {:.1}s", begun.elapsed().as_secs_f64());

    // A service account's token has that account's rights and no more.
    plane.apply(ACCOUNT).unwrap();
    let token = plane.token("default", "reader", Duration::from_secs(600)).unwrap();
    let reader = plane.token_kubeconfig("reader", &token).unwrap();
    plane.kubectl_as(&reader, &["get", "configmaps"]).unwrap();
    let refused = plane.kubectl_as(&reader, &["get", "secrets"]).unwrap_err();
    assert!(format!("{refused:#}").contains("is forbidden"), "{refused:#}");

    // A certificate is who it says: the node authorizer knows nodes, and no node may write another.
    for name in ["n1", "n2"] {
        plane.apply(&format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}")).unwrap();
    }
    let node = plane.kubeconfig("n1", "system:node:n1", &["system:nodes"]).unwrap();
    plane.kubectl_as(&node, &["label", "node", "n1", "a=b"]).unwrap();
    let refused = plane.kubectl_as(&node, &["label", "node", "n2", "a=b"]).unwrap_err();
    assert!(format!("{refused:#}").contains("forbidden"), "{refused:#}");

    // An outage is one, and nothing is forgotten.
    plane.stop_api_server().unwrap();
    assert!(plane.kubectl(&["get", "nodes"]).is_err(), "a stopped API server answered");
    plane.start_api_server().unwrap();
    assert_eq!(plane.kubectl(&["get", "nodes", "-l", "a=b", "-o", "name"]).unwrap().trim(), "node/n1");
    assert!(plane.compact().unwrap() > 0);

    // And it is not on the machine's own network.
    let netns = plane.netns().clone();
    drop(plane);
    assert!(!netns.path().exists(), "namespace {} is left", netns.name());
}
