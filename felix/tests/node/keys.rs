//! The keys of Manx on Pods and Namespaces (api.md §8), from the object to the pod's own network namespace.

use serde_json::{Value, json};

use crate::harness::{Node, Pod, addresses};
use crate::namespace::Namespace;

impl Node {
    pub(crate) fn annotated(&self, name: &str, annotations: &str) -> Pod {
        // At once, so that felix sees it with its keys or not at all.
        self.annotate(name, annotations);
        Pod { name: name.to_owned(), netns: Namespace::new(), container: format!("c0ffee-{name}") }
    }

    pub(crate) fn annotate(&self, name: &str, annotations: &str) {
        self.object(
            &format!("pods/shop/{name}.yaml"),
            &format!(
                "{{apiVersion: v1, kind: Pod,
                  metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}},
                  spec: {{nodeName: n1, containers: [{{name: c, image: i}}]}}}}"
            ),
        );
    }

    /// Notes of Events of this reason.
    pub(crate) fn notes(&self, reason: &str) -> Vec<String> {
        let files = std::fs::read_dir(self.path("store/.events")).into_iter().flatten().flatten();
        let texts: Vec<String> = files.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .filter(|event| event["reason"] == reason)
            .map(|event| event["note"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

/// What ADD answers, which is what the pod has.
fn held(pod: &Pod, added: &Value) -> Vec<String> {
    let answered = added["ips"].as_array().unwrap().iter();
    let answered: Vec<String> =
        answered.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect();
    let there = pod.netns.sh("ip -o addr show dev eth0 scope global");
    assert_eq!(there.lines().count(), answered.len(), "{there}");
    for address in &answered {
        assert!(there.contains(&format!(" {address}/")), "{address} in {there}");
    }
    answered
}

#[test]
fn a_pod_has_the_addresses_that_its_keys_ask_for() {
    let mut node = Node::new();
    node.pool("special", "10.250.0.0/24", ", assignment: Manual");
    node.object(
        "namespaces/shop.yaml",
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {manx.dev/ip-families: IPv4}}}",
    );
    node.start();
    for (name, annotations, starts) in [
        ("of-namespace", "", &["10.244."][..]),
        ("replaced", "manx.dev/ip-families: IPv6", &["fd00:10::"]),
        ("both", "manx.dev/ip-families: 'IPv4,IPv6'", &["10.244.", "fd00:10::"]),
        ("pool", "manx.dev/ip-pools: special", &["10.250.0."]),
        ("address", "manx.dev/ip-pools: special, manx.dev/ip-addresses: 10.250.0.77", &["10.250.0.77"]),
    ] {
        let pod = node.annotated(name, annotations);
        let held = held(&pod, &node.add(&pod));
        assert_eq!(held.len(), starts.len(), "{name}: {held:?}");
        for (address, start) in held.iter().zip(starts) {
            assert!(address.starts_with(start), "{name}: {held:?}");
            if address.contains('.') {
                node.netns.sh(&format!("ping -c 1 -W 2 {address}"));
            }
        }
    }
}

#[test]
fn a_value_that_means_nothing_fails_the_add_and_an_event_quotes_it() {
    let mut node = Node::new();
    node.start();
    for (name, key, bad, problem, good) in [
        ("pools", "ip-pools", "v4,v4", "v4 is named twice", "v4,v6"),
        ("absent", "ip-pools", "v7", "there is no IPPool v7", "v4"),
        ("families", "ip-families", "IPv5", "must be IPv4, IPv6 or IPv4,IPv6", "IPv4"),
        ("addresses", "ip-addresses", "10.244.0.300", "\"10.244.0.300\" is no address", "10.244.0.30"),
    ] {
        let pod = node.annotated(name, &format!("manx.dev/{key}: '{bad}'"));
        let refused = node.cni("ADD", Some(&pod), json!({})).unwrap_err();
        let text = format!("annotation manx.dev/{key}: invalid value {bad:?}: {problem}");
        assert_eq!(refused["code"], 7, "{refused}");
        assert!(refused["msg"].as_str().unwrap().starts_with(&text), "{refused}");
        node.wait("an Event says so", || {
            node.notes("AddressAssignmentFailed").iter().any(|note| note.starts_with(&text))
        });
        assert_eq!(pod.netns.sh("ip -br link show type veth"), "");

        node.annotate(name, &format!("manx.dev/{key}: '{good}'"));
        node.wait("the mended pod is served", || node.cni("ADD", Some(&pod), json!({})).is_ok());
    }
}

/// The mode that is to come: what it asks for is not done, and is not passed over.
#[test]
fn a_policy_that_asks_for_audit_is_enforced_and_says_so() {
    let mut node = Node::new();
    node.object(
        "networkpolicies.networking.k8s.io/shop/closed.yaml",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,
          metadata: {name: closed, namespace: shop, annotations: {manx.dev/mode: Audit}},
          spec: {podSelector: {}, policyTypes: [Ingress]}}",
    );
    node.start();
    let (closed, other) = (node.pod("closed"), node.pod("other"));
    let added = node.add(&closed);
    node.add(&other);
    let text = "metadata.annotations[manx.dev/mode]: Invalid value: \"Audit\": is not supported by this version: the policy \
                is enforced";
    node.wait("an Event says so", || node.notes("PolicyRejected").iter().any(|note| note == text));
    let [v4, _] = addresses(&added);
    let ping = other.netns.run(|| {
        std::process::Command::new("ping").args(["-c", "1", "-W", "1", &v4]).output().unwrap().status
    });
    assert!(!ping.success(), "the policy is enforced");
}
