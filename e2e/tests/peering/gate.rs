//! Prefixes with a gate (api.md §5.3): a router has them while what they name works here.

use e2e::frr::Frr;
use e2e::lab::{Lab, link};
use e2e::netns::Netns;

use crate::node::Node;

const ADVERTISEMENT: &str = "apiVersion: manx.dev/v1alpha1
kind: BGPAdvertisement
metadata: {name: anycast}
spec:
  prefixes:
  - cidr: 198.51.100.0/24
  - cidr: 198.51.100.53/32
    gate: {service: {namespace: kube-system, name: dns}}
  - cidr: 203.0.113.0/24
    gate: {interface: uplink}
";

fn tor(lab: &mut Lab, n1: &Netns) -> (Netns, Frr) {
    let netns = lab.space("t1").unwrap();
    link((n1, "eth0", &["10.9.1.2/24"]), (&netns, "eth0", &["10.9.1.1/24"])).unwrap();
    let config = "frr defaults datacenter\nhostname t1\nrouter bgp 65001\n bgp router-id 10.255.1.1\n \
         neighbor 10.9.1.2 remote-as 4200000001\n neighbor 10.9.1.2 timers connect 1\nexit\n";
    let frr = Frr::start(&lab.router("t1"), &netns, lab.directory(), config).expect("FRR");
    (netns, frr)
}

/// The endpoint of the Service: on this node, and ready or not.
fn endpoint(node: &Node, ready: bool) {
    let text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{namespace: kube-system, name: \
         dns-1, labels: {{kubernetes.io/service-name: dns}}}}\nendpoints: [{{addresses: [10.244.0.3], nodeName: n1, \
         conditions: {{ready: {ready}}}}}]\n"
    );
    node.objects.put("endpointslices.discovery.k8s.io/kube-system/dns-1", &text).unwrap();
}

#[test]
fn a_prefix_is_told_while_its_gate_is_open() {
    let mut lab = Lab::new("gate").unwrap();
    let n1 = lab.space("n1").unwrap();
    let (_t1, frr) = tor(&mut lab, &n1);
    let far = lab.space("far").unwrap();
    link((&n1, "uplink", &[]), (&far, "eth0", &[])).unwrap();
    let mut node = Node::new("n1", &n1, lab.directory(), &["10.9.1.2"], 4_200_000_001);
    node.peer("t1", "address: 10.9.1.1, asn: 65001");
    node.objects.put("bgpadvertisements.manx.dev/anycast", ADVERTISEMENT).unwrap();
    endpoint(&node, false);
    node.start();
    let told = || -> Vec<String> {
        let table = frr.json("show bgp ipv4 unicast json").unwrap_or_default();
        let mut all: Vec<String> =
            table["routes"].as_object().into_iter().flatten().map(|(prefix, _)| prefix.clone()).collect();
        all.sort();
        all
    };
    let ungated = "198.51.100.0/24";
    let (served, linked) = ("198.51.100.53/32", "203.0.113.0/24");
    node.await_that("no endpoint, a link that is up", |_| told() == [ungated, linked]);
    endpoint(&node, true);
    node.await_that("an endpoint here", |_| told() == [ungated, served, linked]);
    far.ip("link set eth0 down\n").unwrap();
    node.await_that("the link lost its carrier", |_| told() == [ungated, served]);
    endpoint(&node, false);
    node.await_that("the endpoint is not ready", |_| told() == [ungated]);
    far.ip("link set eth0 up\n").unwrap();
    node.await_that("the link is back", |_| told() == [ungated, linked]);
    frr.stop();
}
