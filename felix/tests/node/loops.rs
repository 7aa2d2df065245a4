//! A packet to a Service address that nobody translates is answered once, and does not go back to the router; one that
//! is of no connection, such as the rest of one that a router moved here, is dropped.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::harness::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use crate::namespace::{Namespace, connect};

const VIPS: [&str; 2] = ["203.0.113.10", "2001:db8:99::10"];

/// How many packets to Service addresses came back to the router.
fn returned(node: &Node) -> u64 {
    let listed = node.outside.sh("nft list chain inet count back");
    let counts = listed.split("counter packets ").skip(1);
    counts.map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// A port whose SYNs leave the client as ACKs.
const STRAY: u16 = 4712;

/// The acknowledgement of a connection that this node has never seen.
fn stray(client: &Namespace, vip: &str) -> ErrorKind {
    let to = SocketAddr::new(vip.parse::<IpAddr>().unwrap(), STRAY);
    client.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(700)).unwrap_err().kind())
}

/// One datagram and one connection to a port that no Service has.
fn knock(client: &Namespace, vip: &str) -> ErrorKind {
    let to = SocketAddr::new(vip.parse::<IpAddr>().unwrap(), 4711);
    client.run(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        UdpSocket::bind(any).unwrap().send_to(b"?", to).unwrap();
        TcpStream::connect_timeout(&to, Duration::from_millis(700)).unwrap_err().kind()
    })
}

/// A client of which the outside is the router. Router and node send each other what they do not know.
fn behind_a_router(node: &Node) -> Namespace {
    let client = Namespace::new();
    connect(&node.outside, &client, 2);
    client.sh("ip route add default via 10.9.2.1; ip -6 route add default via fd09:2::1");
    client.sh(&format!(
        "nft 'table inet stray {{ chain out {{ type filter hook output priority 0; tcp dport {STRAY} tcp flags set ack; }}; }}'"
    ));
    node.netns
        .sh(&format!("ip route add default via {OUTSIDE_V4}; ip -6 route add default via {OUTSIDE_V6}"));
    // Nobody is told of a better way: the next packet would take it past the node.
    node.outside
        .sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 \
         net.ipv4.conf.e1.rp_filter=0 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.e1.send_redirects=0");
    node.outside.sh(&format!(
        "ip route add {}/32 via {NODE_V4}; ip -6 route add {}/128 via {NODE_V6}",
        VIPS[0], VIPS[1]
    ));
    node.outside.sh(&format!(
        "nft 'table inet count {{ chain back {{ type filter hook prerouting priority 0; \
         iifname e1 ip daddr {} counter; iifname e1 ip6 daddr {} counter; }}; }}'",
        VIPS[0], VIPS[1]
    ));
    client
}

#[test]
fn an_unused_port_of_a_service_address_is_refused_and_nothing_loops() {
    let mut node = Node::new();
    let client = behind_a_router(&node);
    node.object(
        "loadbalancerpools.manx.dev/public.yaml",
        "{apiVersion: manx.dev/v1alpha1, kind: LoadBalancerPool, metadata: {name: public},
          spec: {addresses: [203.0.113.0/24, '2001:db8:99::/64']}}",
    );
    node.object(
        "services/shop/web.yaml",
        &format!(
            "{{apiVersion: v1, kind: Service,
              metadata: {{name: web, namespace: shop, annotations: {{manx.dev/load-balancer-ips: '{},{}'}}}},
              spec: {{type: LoadBalancer, clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10, 'fd00:96::10'],
                      ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6], ports: [{{port: 80}}]}}}}",
            VIPS[0], VIPS[1]
        ),
    );
    for (family, endpoint) in [("IPv4", "10.244.0.9"), ("IPv6", "fd00:10::9")] {
        let name = format!("web-{}", family.to_lowercase());
        node.object(
            &format!("endpointslices.discovery.k8s.io/shop/{name}.yaml"),
            &format!(
                "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: {family},
                  metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}},
                  endpoints: [{{addresses: ['{endpoint}'], nodeName: n1, conditions: {{ready: true}}}}], ports: []}}"
            ),
        );
    }
    node.start();
    node.wait("felix is in sync", || node.cni("STATUS", None, serde_json::json!({})).is_ok());
    for vip in VIPS {
        let before = returned(&node);
        knock(&client, vip);
        stray(&client, vip);
        println!("{vip} without the rule: {} packets came back", returned(&node) - before);
        assert!(
            returned(&node) > before + 10,
            "{vip}: without the rule it loops, or this test shows nothing: {}",
            returned(&node) - before
        );
    }
    node.object(
        "bgpadvertisements.manx.dev/services.yaml",
        "{apiVersion: manx.dev/v1alpha1, kind: BGPAdvertisement, metadata: {name: services},
          spec: {services: {addressTypes: [LoadBalancerIP]}}}",
    );
    let listed = || node.netns.sh("nft list table inet manx");
    node.wait("the addresses are known", || VIPS.iter().all(|vip| listed().contains(vip)));
    for vip in VIPS {
        let before = returned(&node);
        assert_eq!(knock(&client, vip), ErrorKind::ConnectionRefused, "{vip}");
        assert_eq!(returned(&node), before, "{vip} came back");
    }
    for vip in VIPS {
        let before = returned(&node);
        assert_eq!(stray(&client, vip), ErrorKind::TimedOut, "{vip}");
        assert_eq!(returned(&node), before, "{vip}: what is of no connection came back");
    }
    let counted = listed();
    for reason in ["service-loop", "invalid"] {
        let denied = counted.lines().find(|line| line.contains("counter") && line.contains(reason));
        assert!(denied.is_some_and(|line| !line.contains("packets 0")), "{reason}: {counted}");
    }

    // The advertisement goes: nobody watches Services, and the rule goes with it.
    std::fs::remove_file(node.path("store/bgpadvertisements.manx.dev/services.yaml")).unwrap();
    node.wait("the rule is gone", || !listed().contains(VIPS[0]));
}
