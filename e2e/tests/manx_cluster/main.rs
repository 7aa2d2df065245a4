//! A real cluster runs on Manx, installed by its chart as people install it.
//!
//! `make cluster-core` runs `core`, the part of the gate; `make cluster-test` runs all, or `theirs` on the cluster that
//! KUBECONFIG points to. One cluster serves the steps of
//! a test: a step that fails says what was seen, and the next ones are made all the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod asks;
mod change;
mod fabric;
mod install;
mod lab;
mod load;
mod outage;
mod policy;
mod reflectors;
mod removal;
mod services;
mod traffic;

use e2e::cluster::{Families, Options, ProxyMode, newer_containerd};

use lab::Lab;

/// One L2 segment, no values: what somebody sees who tries Manx for the first time.
#[test]
fn core() {
    let mut lab = Lab::up(Options::default());
    lab.step("helm install, no values: Ready, untainted, network available", install::without_values);
    lab.step("pods of every node reach all pods, both families", |lab| traffic::pods_reach_pods(lab, 1));
    lab.step("pods reach the outside as their node", traffic::masqueraded);
    lab.step("CoreDNS answers a pod", traffic::dns);
    lab.step("a Service by ClusterIP, NodePort and LoadBalancer address", services::of_each_kind);
    lab.step("a hostPort leads to its pod, and no longer once that is gone", traffic::host_port);
    lab.step("a pod's bandwidth annotations limit it, and go with it", traffic::bandwidth);
    lab.step("kubectl manx: every daemon answers", install::manxctl_answers);
    lab.step("deny all: probes pass, pods do not; then allowed again", policy::deny_all);
    lab.step("API server stopped: traffic, agents killed, container restarted", outage::fail_static);
    lab.step("helm uninstall leaves the nodes as they were", removal::helm_uninstall);
    lab.end();
}

/// Two FRR ToRs, ten pods a node, clients outside who may not notice what is done to the cluster.
#[test]
fn full() {
    let mut lab = Lab::up(Options { tors: true, ..Options::default() });
    lab.step("helm install, sessions with both ToRs", fabric::behind_tors);
    lab.step("30 pods, all to all, both families", |lab| traffic::pods_reach_pods(lab, 10));
    lab.step("the outside reaches every pod", traffic::from_outside);
    lab.step("pods reach the outside as their node", traffic::masqueraded);
    lab.step("CoreDNS answers pods", traffic::dns);
    lab.step("LoadBalancer Services of both traffic policies, ClusterIP, NodePort", services::behind_tors);
    lab.step("deny all: probes pass, pods do not; then allowed again", policy::deny_all);
    lab.step("rolling update of 30 pods under load", change::pods_rolled);
    lab.step("rolling restart of felix and bgpd under load", change::agents_rolled);
    lab.step("a node drained and taken back under load", change::node_drained);
    lab.step("the leading controller killed", change::leader_killed);
    lab.step("API server stopped: traffic, agents killed, container restarted", outage::fail_static);
    lab.step("a node power-cut while the API server is away", outage::power_cut);
    lab.step("another version and back under load, bgpd apart from felix", change::upgraded);
    lab.step("helm uninstall after kill -9 leaves the nodes as they were", removal::after_kill);
    lab.end();
}

/// The whole of `core` where there is no IPv4.
#[test]
fn ipv6_only() {
    let mut lab = Lab::up(Options { families: Families::Ipv6, ..Options::default() });
    lab.step("helm install, no values, IPv6 only", install::without_values);
    lab.step("pods of every node reach all pods", |lab| traffic::pods_reach_pods(lab, 2));
    lab.step("pods reach the outside as their node", traffic::masqueraded);
    lab.step("CoreDNS answers a pod", traffic::dns);
    lab.step("a Service by ClusterIP, NodePort and LoadBalancer address", services::of_each_kind);
    lab.step("deny all: probes pass, pods do not; then allowed again", policy::deny_all);
    lab.step("API server stopped: traffic, agents killed, container restarted", outage::fail_static);
    lab.step("helm uninstall leaves the nodes as they were", removal::helm_uninstall);
    lab.end();
}

/// Who speaks to whom is the operator's to change, while pods talk.
#[test]
fn reflectors() {
    let mut lab = Lab::up(Options { nodes: 4, ..Options::default() });
    lab.step("helm install, no values, four nodes", install::without_values);
    lab.step("full mesh, two reflectors, full mesh: no connection lost", reflectors::there_and_back);
    lab.step("a session's messages by kubectl manx bgp capture", reflectors::captured);
    lab.end();
}

/// kube-proxy in its other mode beside us, and restarted.
#[test]
fn iptables_proxy() {
    let mut lab = Lab::up(Options { proxy: ProxyMode::Iptables, ..Options::default() });
    lab.step("helm install, no values, kube-proxy in iptables mode", install::without_values);
    lab.step("pods of every node reach all pods", |lab| traffic::pods_reach_pods(lab, 2));
    lab.step("a Service by ClusterIP, NodePort and LoadBalancer address", services::of_each_kind);
    lab.step("deny all: probes pass, pods do not; then allowed again", policy::deny_all);
    lab.step("kube-proxy restarted on every node", services::proxy_restarted);
    lab.step("helm uninstall leaves the nodes as they were", removal::helm_uninstall);
    lab.end();
}

/// Another containerd, for pods whose root is nobody on the node: Debian's cannot start them.
#[test]
fn user_namespaces() {
    let runtime = newer_containerd().unwrap_or_else(|error| panic!("{error:#}"));
    let mut lab = Lab::up(Options { nodes: 2, runtime: Some(runtime), ..Options::default() });
    lab.step("helm install, no values, a newer containerd", install::without_values);
    lab.step("pods of every node reach all pods, both families", |lab| traffic::pods_reach_pods(lab, 1));
    lab.step("hostUsers: false: probed, reaches all pods, goes", traffic::user_namespace);
    lab.step("a hostPort leads to its pod, and no longer once that is gone", traffic::host_port);
    lab.step("helm uninstall leaves the nodes as they were", removal::helm_uninstall);
    lab.end();
}

/// The cluster that KUBECONFIG points to, with nothing but its API server to ask.
#[test]
fn theirs() {
    let mut lab = Lab::theirs();
    let had = lab.cluster.has_manx();
    lab.step("Manx runs on the cluster of KUBECONFIG", install::on_theirs);
    lab.step("pods of every node reach all pods", |lab| traffic::pods_reach_pods(lab, 2));
    lab.step("CoreDNS answers pods", traffic::dns);
    lab.step("a Service by ClusterIP, NodePort and LoadBalancer address", services::inside);
    lab.step("deny all: probes pass, pods do not; then allowed again", policy::deny_all);
    lab.step("kubectl manx: every daemon answers", install::manxctl_answers);
    lab.step("what was made is removed", |lab| removal::from_theirs(lab, had));
    lab.end();
}
