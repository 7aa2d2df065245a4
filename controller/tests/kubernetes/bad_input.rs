//! Bad input of the kind that comes from the installation: rights taken away, CRDs of another release. Each with the text
//! that people see, and what happens when it is mended.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use manx_crds::store::Key;
use manx_crds::v1alpha1::{FabricConfiguration, LoadBalancerPool};
use serde_json::{Value, json};

use super::stage::{NAMESPACE, Stage, condition, ingress};
use super::{has, pool, says, service, shop};

const ACCOUNT: &str = "system:serviceaccount:manx-system:manx-controller";
/// A write that failed for a while is tried again after a minute at most.
const LONGEST_FAILURE: Duration = Duration::from_secs(70);

impl Stage {
    fn json(&self, what: &[&str]) -> Value {
        let mut arguments = vec!["get", "-o", "json"];
        arguments.extend(what);
        serde_json::from_str(&self.kubectl(&arguments)).unwrap()
    }

    /// Takes a resource out of the ClusterRole; the rules as they were.
    fn take_away(&self, resource: &str) -> Value {
        let role = self.json(&["clusterrole", "manx-controller"]);
        let mut rules = role["rules"].clone();
        let mut taken = false;
        for rule in rules.as_array_mut().unwrap() {
            let resources = rule["resources"].as_array_mut().unwrap();
            let before = resources.len();
            resources.retain(|name| name != resource);
            taken |= resources.len() < before;
        }
        assert!(taken, "the chart grants no {resource}");
        rules.as_array_mut().unwrap().retain(|rule| rule["resources"] != json!([]));
        self.rules(&rules);
        role["rules"].clone()
    }

    fn rules(&self, rules: &Value) {
        let patch = json!({"rules": rules}).to_string();
        self.kubectl(&["patch", "clusterrole", "manx-controller", "--type=merge", "-p", &patch]);
        // RBAC hears of it by a watch of its own.
        std::thread::sleep(Duration::from_secs(1));
    }

    fn until_address(&self, name: &str, patience: Duration) {
        let begun = Instant::now();
        while ingress(&self.object::<Service>(&shop(name)).unwrap()).is_empty() {
            assert!(begun.elapsed() < patience, "{name} has no address after {patience:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn a_right_that_is_taken_away_is_named_and_used_when_it_is_back() {
    let stage = Stage::up("rights");
    let mut controller = stage.controller("a");
    stage.until_probe(&controller, "/readyz", 200);
    stage.apply(&pool("public", "addresses: [192.0.2.0/24]"));
    stage.apply(&service("before", "", ""));
    has(&stage, "before", &["192.0.2.0"]);

    // To write, while it runs: everything else goes on.
    let rules = stage.take_away("services/status");
    stage.apply(&service("during", "", ""));
    let refused = format!("User \"{ACCOUNT}\" cannot patch resource \"services/status\" in API group \"\"");
    controller.says("Status of Service shop/during");
    let line = controller.says("services \\\"during\\\" is forbidden");
    assert!(line.replace('\\', "").contains(&refused), "{line}");
    let report = stage.report(&controller);
    assert!(report["error"].as_str().unwrap().contains(&refused), "{report}");
    stage.apply(&pool("more", "addresses: [198.51.100.0/24]"));
    says::<LoadBalancerPool>(&stage, "more", "Accepted", "True Accepted");
    assert_eq!(stage.probe(&controller, "/readyz").0, 200);
    assert_eq!(stage.probe(&controller, "/livez").0, 200);
    stage.rules(&rules);
    stage.until_address("during", LONGEST_FAILURE);
    controller.says("written after all");
    assert_eq!(stage.report(&controller)["error"], Value::Null);

    // To read: a watch that runs goes on; who starts anew waits, says for what, and needs no second start.
    let rules = stage.take_away("loadbalancerpools");
    stage.apply(&service("watched", "", ""));
    stage.until_address("watched", LONGEST_FAILURE);
    stage.restart(&mut controller);
    controller.says("\"leads\"");
    let line = controller.says("loadbalancerpools.manx.dev is forbidden");
    assert!(line.replace('\\', "").contains(&format!("User \"{ACCOUNT}\" cannot list resource")), "{line}");
    let text = stage.until_probe(&controller, "/readyz", 503);
    assert!(text.starts_with("not every kind was heard from the datastore yet"), "{text}");
    assert_eq!(stage.report(&controller)["waitsFor"], "LoadBalancerPool");
    assert_eq!(stage.probe(&controller, "/livez").0, 200);
    stage.apply(&service("waits", "", ""));
    stage.rules(&rules);
    stage.until_address("waits", LONGEST_FAILURE);
    assert_eq!(stage.probe(&controller, "/readyz").0, 200);

    the_lease_is_taken_away(&stage, &mut controller);
}

/// Without its Lease a leader ends; the next process waits for the right, ready to be asked and not to work.
fn the_lease_is_taken_away(stage: &Stage, controller: &mut super::Controller) {
    let of = ["-n", NAMESPACE, "rolebinding", "manx-controller-lease"];
    let mut binding = stage.json(&of);
    let metadata = binding["metadata"].as_object_mut().unwrap();
    metadata.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "labels"));
    stage.kubectl(&["delete", "rolebinding", "-n", NAMESPACE, "manx-controller-lease"]);
    let line = controller.says("leases.coordination.k8s.io");
    assert!(line.contains("leadership ends if this lasts"), "{line}");
    controller.says("leadership is lost: the Lease could not be renewed in time");
    let begun = Instant::now();
    while controller.process.check_running().is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it leads no more and still runs");
        std::thread::sleep(Duration::from_millis(100));
    }
    stage.restart(controller);
    controller.says("cannot get resource");
    assert_eq!(stage.until_probe(controller, "/livez", 200), "ok");
    assert_eq!(stage.probe(controller, "/readyz").0, 503);
    stage.apply(&binding.to_string());
    stage.until_probe(controller, "/readyz", 200);
    stage.apply(&service("last", "", ""));
    stage.until_address("last", LONGEST_FAILURE);
}

#[test]
fn crds_older_than_the_agents_are_named_until_they_are_applied() {
    let stage = Stage::up("older");
    stage.apply(
        "{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {name: default}, spec: {}}",
    );
    let newer = manx_crds::v1alpha1::crds().unwrap();
    let newer =
        newer.into_iter().find(|crd| crd["metadata"]["name"] == "loadbalancerpools.manx.dev").unwrap();
    let mut older = newer.clone();
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    older.pointer_mut(status).unwrap().as_object_mut().unwrap().remove("observedGeneration").unwrap();
    let held = stage.json(&["crd", "loadbalancerpools.manx.dev"]);
    older["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"].clone();
    stage.plane.feed(&["replace", "-f", "-"], &older.to_string()).unwrap();
    // The server takes it into force some time after it stores it.
    std::thread::sleep(Duration::from_secs(3));

    let controller = stage.controller("a");
    stage.until_probe(&controller, "/readyz", 200);
    // One field less: everything else is written, and the field is named.
    stage.apply(&pool("public", "addresses: [192.0.2.0/24]"));
    let object = says::<LoadBalancerPool>(&stage, "public", "Accepted", "True Accepted");
    assert_eq!(object["status"]["observedGeneration"], Value::Null);
    assert_eq!(object["status"]["capacity"], json!({"addresses": "256", "assigned": 0}));
    let line = controller.says("the CRDs are older than this program");
    assert!(line.contains("\"field\":\".status.observedGeneration\""), "{line}");
    assert!(line.contains("apply the CRDs of this release (helm upgrade does)"), "{line}");

    // Two revisions apart: agents and CRDs do not fit together.
    let agents = json!({"agents": [{"name": "felix", "version": "0.3.0", "schemaRevision": 3}]});
    stage.status("fabricnode", "n1", &agents.to_string());
    let text = "felix on n1 has schema revision 3, the CRDs 1: the API server drops fields that agents need; apply the CRDs \
                of the release (helm upgrade does)";
    let told = format!("False SchemaOlderThanAgents: {text}");
    says::<FabricConfiguration>(&stage, "default", "SchemaCompatible", &told);

    stage.store(async |store| store.install_crd(&newer).await.unwrap());
    stage.kubectl(&[
        "annotate",
        "crd",
        "fabricconfigurations.manx.dev",
        "manx.dev/schema-revision=3",
        "--overwrite",
    ]);
    says::<FabricConfiguration>(&stage, "default", "SchemaCompatible", "True Compatible");
    // What the store did not keep is written again, ever less often: half a minute after the first time.
    let begun = Instant::now();
    loop {
        let object = stage.object::<LoadBalancerPool>(&Key::cluster("public")).unwrap();
        if object["status"]["observedGeneration"] == 1 {
            assert_eq!(condition(&object, "Accepted"), "True Accepted");
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(100), "{object:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
}
