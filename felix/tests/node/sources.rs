//! What a pod may send from beside its addresses: `manx.dev/allowed-source-prefixes` of Namespace and Pod, while it runs.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use serde_json::json;

use crate::harness::{NODE_V4, Node, OUTSIDE_V4, OUTSIDE_V6, Pod};
use crate::namespace::Namespace;

const KEY: &str = "manx.dev/allowed-source-prefixes";
const REFUSED: &str = "SourcePrefixesRefused";
const BORROWED: [&str; 4] = ["198.51.100.7", "198.51.100.200", "198.51.101.7", "2001:db8:5::7"];

impl Node {
    fn namespace(&self, annotations: &str) {
        let yaml = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, annotations: {{{annotations}}}}}}}"
        );
        self.object("namespaces/shop.yaml", &yaml);
    }

    /// Which of the addresses that are not the pod's reach the outside.
    fn passing(&self, pod: &Pod) -> Vec<&'static str> {
        BORROWED.into_iter().filter(|source| arrives(&pod.netns, source, &self.outside)).collect()
    }

    fn wait_passing(&self, pod: &Pod, wanted: &[&str]) {
        self.wait(&format!("only {wanted:?} pass"), || self.passing(pod) == wanted);
    }

    /// The kernel's own check at the host's ends of pods.
    fn reverse_paths(&self) -> String {
        self.netns.sh("cat /proc/sys/net/ipv4/conf/manx*/rp_filter").split_whitespace().collect()
    }
}

/// A packet under `source` from a pod, as the outside sees it.
fn arrives(from: &Namespace, source: &str, outside: &Namespace) -> bool {
    let source: IpAddr = source.parse().unwrap();
    let to: IpAddr = if source.is_ipv4() { OUTSIDE_V4 } else { OUTSIDE_V6 }.parse().unwrap();
    let server = outside.run(|| UdpSocket::bind((to, 0)).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let client = from.run(|| UdpSocket::bind((source, 0)).unwrap());
    client.send_to(b"borrowed", server.local_addr().unwrap()).unwrap();
    server.recv_from(&mut [0; 16]).is_ok_and(|(_, peer)| peer.ip() == source)
}

/// The pod has the addresses, as a router or a load balancer would; nobody has told the node.
fn borrow(pod: &Pod) {
    for address in BORROWED {
        pod.netns.sh(&format!("ip addr add {address} dev lo nodad"));
    }
}

#[test]
fn a_pod_sends_from_what_its_namespace_lists_and_the_pod_narrows() {
    let mut node = Node::new();
    node.start();
    let pod = node.annotated("router", "");
    node.add(&pod);
    borrow(&pod);
    assert_eq!((node.passing(&pod), node.reverse_paths()), (vec![], "1".to_owned()));

    node.namespace(&format!("{KEY}: '198.51.100.0/24, 2001:db8:5::/48'"));
    node.wait_passing(&pod, &["198.51.100.7", "198.51.100.200", "2001:db8:5::7"]);
    assert_eq!(node.reverse_paths(), "0");
    node.annotate("router", &format!("{KEY}: 198.51.100.128/25"));
    node.wait_passing(&pod, &["198.51.100.200"]);
    // It outlives felix, and felix finds it again.
    node.kill();
    assert_eq!(node.passing(&pod), ["198.51.100.200"]);
    node.start();
    for _ in 0..5 {
        assert_eq!(node.passing(&pod), ["198.51.100.200"]);
    }
    assert_eq!(node.notes(REFUSED), Vec::<String>::new(), "whatever it heard first");

    // More than the Namespace lists is nothing at all.
    node.annotate("router", &format!("{KEY}: '198.51.100.128/25,198.51.101.0/24'"));
    let text = "annotation manx.dev/allowed-source-prefixes: invalid value \"198.51.100.128/25,198.51.101.0/24\": \
                198.51.101.0/24 must lie inside what manx.dev/allowed-source-prefixes lists on the pod's Namespace";
    node.wait("an Event says so", || node.notes(REFUSED).iter().any(|note| note.starts_with(text)));
    node.wait_passing(&pod, &[]);
    assert_eq!(node.reverse_paths(), "1");
    node.annotate("router", "");
    node.wait_passing(&pod, &["198.51.100.7", "198.51.100.200", "2001:db8:5::7"]);
    // Only of IPv4 does the kernel check the way back.
    node.namespace(&format!("{KEY}: '2001:db8:5::/48'"));
    node.wait_passing(&pod, &["2001:db8:5::7"]);
    assert_eq!(node.reverse_paths(), "1");
}

#[test]
fn source_prefixes_that_mean_nothing_fail_the_add() {
    let mut node = Node::new();
    node.namespace(&format!("{KEY}: 198.51.100.0/24"));
    node.start();
    for (name, bad, problem) in [
        ("bits", "198.51.100.1/24", "must be a CIDR in canonical form with no host bits set"),
        (
            "outside",
            "198.51.101.0/24",
            "198.51.101.0/24 must lie inside what manx.dev/allowed-source-prefixes lists",
        ),
    ] {
        let pod = node.annotated(name, &format!("{KEY}: '{bad}'"));
        let refused = node.cni("ADD", Some(&pod), json!({})).unwrap_err();
        let text = format!("annotation {KEY}: invalid value {bad:?}: ");
        assert_eq!(refused["code"], 7, "{refused}");
        let message = refused["msg"].as_str().unwrap();
        assert!(message.starts_with(&text) && message.contains(problem), "{refused}");
        node.wait("an Event says so", || node.notes(REFUSED).iter().any(|note| note.starts_with(&text)));
        node.annotate(name, &format!("{KEY}: 198.51.100.128/25"));
        node.wait("the mended pod is served", || node.cni("ADD", Some(&pod), json!({})).is_ok());
        borrow(&pod);
        assert_eq!(node.passing(&pod), ["198.51.100.200"], "at once, with ADD's answer");
    }
}

#[test]
fn a_strict_node_says_why_source_prefixes_do_nothing() {
    let mut node = Node::new();
    node.netns.sh("echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
    node.namespace(&format!("{KEY}: 198.51.100.0/24"));
    node.start();
    let pod = node.annotated("router", "");
    node.add(&pod);
    borrow(&pod);
    let text = "sysctl net/ipv4/conf/all/rp_filter is 1, expected 0 (the kernel drops what pods send from \
                manx.dev/allowed-source-prefixes): it is the administrator's, and felix leaves it alone";
    node.wait("an Event says so", || node.notes("ReversePathFiltered").iter().any(|note| note == text));
    assert_eq!(node.passing(&pod), Vec::<&str>::new());
    node.netns.sh("echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter");
    assert_eq!(node.passing(&pod), ["198.51.100.7", "198.51.100.200"]);
}

/// Policy is of the pod, whatever it sends from: also for a connection that is under way.
#[test]
fn policy_holds_for_what_a_pod_sends_from_elsewhere() {
    let mut node = Node::new();
    node.namespace(&format!("{KEY}: 198.51.100.0/24"));
    node.start();
    let pod = node.annotated("router", "");
    node.add(&pod);
    borrow(&pod);
    node.outside.sh(&format!("ip route add 198.51.100.0/24 via {NODE_V4}"));
    node.netns.sh("ip route add 198.51.100.7/32 dev $(ip -br link | grep -o '^manx[0-9a-f]*')");
    let source: IpAddr = BORROWED[0].parse().unwrap();
    let server = node.outside.run(|| UdpSocket::bind((OUTSIDE_V4, 0)).unwrap());
    let client = pod.netns.run(|| UdpSocket::bind((source, 0)).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let exchange = || {
        client.send_to(b"ping", server.local_addr().unwrap()).unwrap();
        let Ok((_, peer)) = server.recv_from(&mut [0; 16]) else { return false };
        server.send_to(b"pong", peer).unwrap();
        client.recv_from(&mut [0; 16]).is_ok()
    };
    assert!(exchange() && exchange(), "the connection is established");
    let policy = |egress: &str| {
        node.object(
            "networkpolicies.networking.k8s.io/shop/closed.yaml",
            &format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: closed, namespace: shop}},
                  spec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{egress}]}}}}"
            ),
        );
    };
    policy("");
    node.wait("the connection is cut", || !exchange());
    policy(&format!("{{to: [{{ipBlock: {{cidr: {OUTSIDE_V4}/32}}}}]}}"));
    node.wait("policy lets it by", exchange);
}
