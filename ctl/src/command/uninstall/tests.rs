use serde_json::json;

use super::*;

fn pod(name: &str, node: Option<&str>, ready: bool) -> Pod {
    let ready = if ready { "True" } else { "False" };
    serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"nodeName": node, "containers": []},
        "status": {"conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}]},
    }))
    .unwrap()
}

fn set(generation: i64, observed: i64, desired: i32) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "manx-cleanup", "generation": generation},
        "status": {"observedGeneration": observed, "desiredNumberScheduled": desired,
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0},
    }))
    .unwrap()
}

fn cluster() -> BTreeMap<String, bool> {
    [("n1", true), ("n2", true), ("n3", false)].map(|(name, ready)| (name.to_owned(), ready)).into()
}

fn waiting(remaining: &Remaining) -> Vec<&str> {
    remaining.waiting.iter().map(String::as_str).collect()
}

#[test]
fn agents_are_waited_for_where_they_can_end() {
    let pods = [
        pod("felix-1", Some("n1"), true),
        pod("felix-3", Some("n3"), false),
        pod("bgpd-gone", Some("n9"), true),
        pod("bgpd-nowhere", None, false),
    ];
    let left = agents_left(&pods, &cluster());
    assert_eq!(waiting(&left), ["felix-1 on n1"]);
    assert_eq!(left.silent, ["n3".to_owned()].into());
    assert_eq!(agents_left(&[], &cluster()), Remaining::default());
}

#[test]
fn a_node_is_clean_when_its_pod_is_ready() {
    let clean = [pod("a", Some("n1"), true), pod("b", Some("n2"), true), pod("c", Some("n3"), false)];
    let left = nodes_left(&set(1, 1, 3), &clean, &cluster());
    assert_eq!(waiting(&left), Vec::<&str>::new());
    assert_eq!(left.silent, ["n3".to_owned()].into());
    let dirty = [pod("a", Some("n1"), true), pod("b", Some("n2"), false), pod("c", Some("n3"), false)];
    assert_eq!(waiting(&nodes_left(&set(1, 1, 3), &dirty, &cluster())), ["b on n2"]);
}

#[test]
fn no_pod_is_not_a_clean_node() {
    let one = [pod("a", Some("n1"), true)];
    assert_eq!(
        waiting(&nodes_left(&set(1, 1, 2), &one, &cluster())),
        ["1 more pods of DaemonSet manx-cleanup"]
    );
    // The controller has not counted the nodes yet: 0 desired says nothing.
    let unseen = ["DaemonSet manx-cleanup to be looked at by its controller"];
    assert_eq!(waiting(&nodes_left(&set(2, 1, 0), &[], &cluster())), unseen);
    let fresh: DaemonSet =
        serde_json::from_value(json!({"metadata": {"name": "x", "generation": 1}})).unwrap();
    assert_eq!(waiting(&nodes_left(&fresh, &[], &cluster())), unseen);
    assert_eq!(waiting(&nodes_left(&set(1, 1, 0), &[], &cluster())), Vec::<&str>::new());
}

#[test]
fn who_did_not_end_is_named_with_what_to_do() {
    let left = agents_left(&[pod("felix-1", Some("n1"), true)], &cluster());
    let failure = finish(&left, "these nodes are not clean", "kubectl -n NAMESPACE logs", "net")
        .unwrap_err()
        .to_string();
    assert_eq!(
        failure,
        "error: these nodes are not clean in time\n  where      felix-1 on n1\n  expected   none, or only on nodes \
         whose kubelet does not answer\n  do         kubectl -n net logs"
    );
}
