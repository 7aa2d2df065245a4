//! Our own nodes as neighbours: `peerNodeSelector`.

use e2e::lab::{Lab, link};

use crate::node::Node;

#[test]
fn both_ends_are_made_and_one_reports() {
    let mut lab = Lab::new("nodes").unwrap();
    let [n1, n2] = ["n1", "n2"].map(|name| lab.space(name).unwrap());
    link((&n1, "eth0", &["10.9.0.1/24"]), (&n2, "eth0", &["10.9.0.2/24"])).unwrap();
    let mut nodes = [("n1", &n1, "10.9.0.1", 65001), ("n2", &n2, "10.9.0.2", 65002)]
        .map(|(name, netns, address, asn)| Node::new(name, netns, lab.directory(), &[address], asn));
    for node in &nodes {
        node.objects.put_node("n1", &["10.9.0.1"], 65001, "role: leaf").unwrap();
        node.objects.put_node("n2", &["10.9.0.2"], 65002, "role: spine").unwrap();
        let selectors =
            "nodeSelector: {matchLabels: {role: leaf}}, peerNodeSelector: {matchLabels: {role: spine}}";
        node.peer("spines", selectors);
    }
    nodes[0].claim("10.244.1.0/26");
    nodes[1].claim("10.244.2.0/26");
    for node in &mut nodes {
        node.start();
    }
    let [n1, n2] = &nodes;
    n1.await_that("up at the leaf", |node| node.is_up("spines"));
    n2.await_that("up at the spine, which no nodeSelector selects", |node| node.is_up("spines"));
    n1.await_that("the spine's block", |node| !node.route("10.244.2.0/26").is_null());
    n2.await_that("the leaf's block", |node| !node.route("10.244.1.0/26").is_null());
    n2.await_that("the higher router id dials, and reports", |node| {
        node.status("spines.10.9.0.1")["state"] == "Established"
    });
    assert!(n1.status("spines.10.9.0.2").is_null());
    // Without the label there is nothing to join.
    for node in &nodes {
        node.objects.put_node("n2", &["10.9.0.2"], 65002, "role: none").unwrap();
    }
    n1.await_that("no session any more", |node| node.sessions().is_empty());
    n2.await_that("at neither end", |node| {
        node.sessions().is_empty() && node.route("10.244.1.0/26").is_null()
    });
}
