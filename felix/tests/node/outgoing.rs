//! natOutgoing from a real pod, and that its own node always reaches it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::harness::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6, addresses};
use crate::namespace::Namespace;

/// Whom a UDP server at `to` sees when `from` sends to it; the answer must arrive, too.
pub(crate) fn seen(from: &Namespace, server: &Namespace, to: &str) -> IpAddr {
    let address: IpAddr = to.parse().unwrap();
    let socket = server.run(|| UdpSocket::bind((address, 0)).unwrap());
    let to = socket.local_addr().unwrap();
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = from.run(|| UdpSocket::bind(any).unwrap());
    for socket in [&socket, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    }
    client.send_to(b"ping", to).unwrap();
    let (_, peer) = socket.recv_from(&mut [0; 16]).unwrap_or_else(|error| panic!("{to}: {error}"));
    socket.send_to(b"pong", peer).unwrap();
    client.recv_from(&mut [0; 16]).unwrap_or_else(|error| panic!("answer of {to}: {error}"));
    peer.ip()
}

#[test]
fn outside_sees_the_node_and_pods_see_each_other() {
    let mut node = Node::new();
    node.pool("v4", "10.244.0.0/16", ", natOutgoing: Masquerade");
    node.pool("v6", "'fd00:10::/112'", ", natOutgoing: Masquerade");
    node.start();
    let (one, two) = (node.pod("one"), node.pod("two"));
    let [one_v4, one_v6] = addresses(&node.add(&one));
    let [two_v4, two_v6] = addresses(&node.add(&two));
    // The outside knows no way back to a pod: an answer needs the node's address.
    assert_eq!(seen(&one.netns, &node.outside, OUTSIDE_V4).to_string(), NODE_V4);
    assert_eq!(seen(&one.netns, &node.outside, OUTSIDE_V6).to_string(), NODE_V6);
    assert_eq!(seen(&one.netns, &two.netns, &two_v4).to_string(), one_v4);
    assert_eq!(seen(&one.netns, &two.netns, &two_v6).to_string(), one_v6);
    assert_eq!(seen(&one.netns, &node.netns, NODE_V4).to_string(), one_v4, "its node sees the pod");

    // The destination becomes another node's: pods are seen as they are.
    node.outside.sh(&format!(
        "ip route add 10.244.0.0/16 via {NODE_V4}; ip -6 route add fd00:10::/112 via {NODE_V6}"
    ));
    node.object(
        "fabricnodes.manx.dev/n2.yaml",
        &format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {{name: n2}},
              spec: {{addresses: {{ipv4: {OUTSIDE_V4}, ipv6: '{OUTSIDE_V6}'}}}}}}"
        ),
    );
    node.wait("the other node is known", || node.netns.sh("nft list table inet manx").contains(OUTSIDE_V6));
    assert_eq!(seen(&one.netns, &node.outside, OUTSIDE_V4).to_string(), one_v4);
    assert_eq!(seen(&one.netns, &node.outside, OUTSIDE_V6).to_string(), one_v6);

    // The pools say otherwise, one of them for this destination only.
    std::fs::remove_file(node.path("store/fabricnodes.manx.dev/n2.yaml")).unwrap();
    node.pool("v4", "10.244.0.0/16", &format!(", natOutgoing: Masquerade, natExclude: [{OUTSIDE_V4}/32]"));
    node.pool("v6", "'fd00:10::/112'", "");
    node.wait("the pools are known", || {
        let listed = node.netns.sh("nft list table inet manx");
        listed.contains("nomasq-") && !listed.contains("nodes6")
    });
    assert_eq!(seen(&one.netns, &node.outside, OUTSIDE_V4).to_string(), one_v4);
    assert_eq!(seen(&one.netns, &node.outside, OUTSIDE_V6).to_string(), one_v6);
}

/// A kubelet's probe comes from the node, whatever policy isolates the pod; everybody else is kept out.
#[test]
fn a_node_reaches_its_pods_under_a_policy_that_denies_all() {
    let mut node = Node::new();
    node.object(
        "networkpolicies.networking.k8s.io/shop/closed.yaml",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: shop},
          spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}",
    );
    node.start();
    let (closed, other) = (node.pod("closed"), node.pod("other"));
    let added = node.add(&closed);
    node.add(&other);
    let reached = |from: &Namespace, to: &str| {
        let address: SocketAddr = (to.parse::<IpAddr>().unwrap(), 8080).into();
        let listener = closed.netns.run(|| TcpListener::bind(address).unwrap());
        let probe = from.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)));
        let Ok(mut probe) = probe else { return false };
        let (mut peer, _) = listener.accept().unwrap();
        probe.write_all(b"GET").unwrap();
        let mut heard = [0; 3];
        peer.read_exact(&mut heard).unwrap();
        peer.write_all(b"200").unwrap();
        probe.read_exact(&mut heard).is_ok()
    };
    for address in addresses(&added) {
        assert!(reached(&node.netns, &address), "the node's probe of {address}");
        assert!(!reached(&other.netns, &address), "another pod to {address}");
    }
}
