//! The cluster itself, before Manx runs on it: what a failing test of Manx may take for granted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use e2e::cluster::{Cluster, Cni, Component, Families, Options, ProxyMode, TAINT};
use e2e::netns;
use e2e::process::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);

/// One cluster at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A home of this test process, so that a person's target/cluster is not touched.
fn options(name: &str) -> Options {
    Options { home: Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), ..Options::default() }
}

/// Nothing of a cluster is on the machine.
fn assert_gone(home: &Path) {
    assert!(netns::list("manx-cluster-").is_empty());
    assert!(!Path::new("/sys/fs/cgroup/pids/manx-cluster").exists());
    assert!(!Path::new("/run/manx-cluster.json").exists());
    let left: Vec<_> = fs::read_dir(home).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["logs"], "left in {}", home.display());
}

fn workload(families: &str) -> String {
    let container = "{name: web, image: \"localhost/agnhost:1\", imagePullPolicy: Never, \
                     args: [netexec, --http-port=8080], \
                     readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}}";
    let mut text = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{type: NodePort, ipFamilyPolicy: {families}, \
         selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]}}}}\n"
    );
    for (name, node) in [("one", "n1"), ("two", "n1"), ("three", "n3")] {
        text.push_str(&format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: web}}}}, spec: {{nodeName: {node}, \
             terminationGracePeriodSeconds: 1, containers: [{container}]}}}}\n"
        ));
    }
    text
}

fn addresses(cluster: &Cluster, pod: &str) -> Vec<String> {
    let path = "jsonpath={.status.podIPs[*].ip}";
    let text = cluster.kubectl(&["get", "pod", pod, "-o", path]).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

fn url(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("http://[{host}]:{port}/hostname")
    } else {
        format!("http://{host}:{port}/hostname")
    }
}

/// What a pod is answered (busybox-static's `wget -T` ends by a signal, hence `timeout`), with patience for what kube-proxy has not heard yet.
fn fetch_from(cluster: &Cluster, pod: &str, url: &str) -> Option<String> {
    wait_for(PATIENCE, || cluster.kubectl(&["exec", pod, "--", "timeout", "2", "wget", "-qO-", url]).ok())
}

/// What the outside client is answered.
fn fetch_outside(cluster: &Cluster, url: &str) -> Option<String> {
    wait_for(PATIENCE, || {
        let mut command = cluster.client().command("timeout");
        command.args(["2", "busybox", "wget", "-qO-", url]);
        netns::stdout_of(command).ok()
    })
}

#[test]
fn pods_services_names_and_failures_with_the_stock_plugins() {
    let _alone = alone();
    let options = Options { cni: Cni::Ptp, ..options("stock") };
    let mut cluster = Cluster::up(&options).unwrap();
    assert!(Cluster::up(&options).is_err(), "a second cluster came up beside the first");
    cluster.apply(&workload("RequireDualStack")).unwrap();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]).unwrap();

    // On one node, and between nodes, in both families.
    for to in ["two", "three"] {
        let all = addresses(&cluster, to);
        assert_eq!(all.len(), 2, "{to}: {all:?}");
        for address in all {
            assert_eq!(fetch_from(&cluster, "one", &url(&address, 8080)).as_deref(), Some(to), "{address}");
        }
    }
    // A Service by name: CoreDNS and kube-proxy.
    let by_name = fetch_from(&cluster, "one", "http://web.default.svc.cluster.local/hostname").unwrap();
    assert!(["one", "two", "three"].contains(&by_name.as_str()), "{by_name}");
    // From outside, by any node.
    for address in cluster.node("n2").unwrap().addresses().unwrap() {
        assert!(fetch_outside(&cluster, &url(&address.to_string(), 30080)).is_some(), "{address}");
    }

    component_that_is_stopped(&cluster);
    api_server_that_is_gone(&mut cluster);
    node_without_power(&mut cluster);
    drop(cluster);
    assert_gone(&options.home);
}

/// A kubelet that is held back starts no pod; let go, it does.
fn component_that_is_stopped(cluster: &Cluster) {
    let node = cluster.node("n2").unwrap();
    node.stop(Component::Kubelet).unwrap();
    let pod =
        workload("SingleStack").replace("name: one", "name: late").replace("nodeName: n1", "nodeName: n2");
    let late = pod.split("---\n").nth(1).unwrap();
    cluster.apply(late).unwrap();
    let wait = |timeout| cluster.kubectl(&["wait", "--for=condition=Ready", "pod/late", timeout]);
    assert!(wait("--timeout=4s").is_err(), "a node without kubelet started a pod");
    node.start(Component::Kubelet).unwrap();
    wait("--timeout=60s").unwrap();
}

/// Pods answer while nobody can ask about them.
fn api_server_that_is_gone(cluster: &mut Cluster) {
    let address = addresses(cluster, "three").remove(0);
    cluster.stop_api_server().unwrap();
    assert!(cluster.kubectl(&["get", "nodes"]).is_err());
    let seen =
        cluster.node("n1").unwrap().run(&["timeout", "2", "busybox", "wget", "-qO-", &url(&address, 8080)]);
    assert_eq!(seen.unwrap(), "three");
    cluster.start_api_server().unwrap();
    cluster.kubectl(&["get", "nodes"]).unwrap();
}

/// A power cut takes pods and kernel state; with power, the same pods come back from the node's disk.
fn node_without_power(cluster: &mut Cluster) {
    let node = cluster.node_mut("n3").unwrap();
    node.run(&["sh", "-c", "echo kept > /var/lib/kubelet/mark; ip link add lost type bridge"]).unwrap();
    node.power_cut().unwrap();
    assert!(!node.is_on());
    assert!(node.run(&["true"]).is_err(), "a node without power ran a command");
    node.power_on().unwrap();
    let on = wait_for(PATIENCE, || node.run(&["cat", "/var/lib/kubelet/mark"]).ok());
    assert_eq!(on.as_deref().map(str::trim), Some("kept"));
    assert!(node.run(&["ip", "link", "show", "lost"]).is_err(), "kernel state outlived a power cut");
    let back = wait_for(PATIENCE, || {
        let address = addresses(cluster, "three").into_iter().next()?;
        let one = ["exec", "one", "--", "timeout", "1", "wget", "-qO-"];
        cluster.kubectl(&[&one[..], &[&url(&address, 8080)]].concat()).ok()
    });
    assert_eq!(back.as_deref(), Some("three"));
}

const AGENT: &str = "\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      hostNetwork: true
      tolerations: [{operator: Exists}]
      containers:
      - name: agent
        image: localhost/agnhost:1
        imagePullPolicy: Never
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: agent}
spec: {type: NodePort, selector: {app: agent}, ports: [{port: 80, targetPort: 8080, nodePort: 30081}]}
";

/// What Manx finds: nodes that nobody made ready, tainted, IPv6 only, behind ToRs; agents run all the same.
#[test]
fn nodes_that_wait_for_a_network_behind_tors_with_ipv6_only() {
    let _alone = alone();
    let options =
        Options { tors: true, families: Families::Ipv6, proxy: ProxyMode::Iptables, ..options("routed") };
    let cluster = Cluster::up(&options).unwrap();
    let taints = "jsonpath={.items[*].spec.taints[*].key}";
    let keys = cluster.kubectl(&["get", "nodes", "-o", taints]).unwrap();
    assert_eq!(keys.split_whitespace().filter(|key| *key == TAINT).count(), 3, "{keys}");
    assert!(cluster.await_ready(Duration::from_secs(1)).is_err(), "nodes are ready without a CNI plugin");

    cluster.apply(AGENT).unwrap();
    cluster.kubectl(&["rollout", "status", "daemonset/agent", "--timeout=90s"]).unwrap();
    // An agent reaches the API server by its ClusterIP, before any route is learned.
    let pod = cluster.kubectl(&["get", "pods", "-o", "name"]).unwrap();
    let pod = pod.lines().next().unwrap();
    let answer = wait_for(PATIENCE, || {
        let ask = "/agnhost connect --timeout=2s [$KUBERNETES_SERVICE_HOST]:443 && echo connected";
        cluster.kubectl(&["exec", pod, "--", "sh", "-c", ask]).ok()
    });
    assert_eq!(answer.as_deref().map(str::trim), Some("connected"));
    // The client reaches InternalIPs through the ToRs; the way back is what bgpd would learn.
    let back =
        "route add default src fd00::12 nexthop via fd00:1::1 dev eth0 nexthop via fd00:2::1 dev eth1\n";
    cluster.node("n2").unwrap().netns().ip(back).unwrap();
    let seen = fetch_outside(&cluster, &url("fd00::12", 8080));
    assert!(seen.is_some(), "no way from the client to a node");
    let mut command = cluster.client().command("ip");
    command.args(["-6", "route", "get", "fd00::12"]);
    let route = netns::stdout_of(command).unwrap();
    assert!(!route.contains("to-ctl"), "the client's way to a node is not the fabric: {route}");
    drop(cluster);
    assert_gone(&options.home);
}
