//! A node's life: taint, condition and FabricNode; another address; and the end, after which nothing of ours is left.

use k8s_openapi::api::core::v1::Node as NodeObject;
use manx_crds::store::Key;
use manx_crds::v1alpha1::FabricNode;
use serde_json::json;

use crate::harness::{NODE_V4, NODE_V6, Node, addresses};

fn condition(node: &NodeObject) -> Option<(String, String)> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == "NetworkUnavailable")?;
    Some((found.status.clone(), found.reason.clone().unwrap_or_default()))
}

fn taints(node: &NodeObject) -> Vec<String> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    taints.into_iter().map(|taint| taint.key).collect()
}

#[test]
fn a_node_that_is_ready_says_so() {
    let mut node = Node::new();
    node.start();
    let n1 = Key::cluster("n1");
    let object = || node.get::<NodeObject>(&n1).unwrap();
    node.wait("the taint goes", || taints(&object()) == ["other"]);
    assert_eq!(condition(&object()), Some(("False".to_owned(), "ManxReady".to_owned())));
    let fabric_node = || node.get::<FabricNode>(&n1).unwrap();
    let written = fabric_node();
    assert_eq!(written.metadata.labels.clone().unwrap()["rack"], "12");
    let owner = &written.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&owner.kind, Some(&owner.uid)), (&"Node".to_owned(), object().metadata.uid.as_ref()));
    let status = written.status.unwrap();
    assert_eq!(status.address_source.as_deref(), Some("Node InternalIP"));
    assert_eq!(status.addresses.unwrap().ipv4.unwrap().to_string(), NODE_V4);

    // A restart that ends where it began writes nothing.
    let before = object().metadata.resource_version;
    node.kill();
    node.start();
    node.wait("felix is in sync", || node.cni("STATUS", None, json!({})).is_ok());
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(node.get::<NodeObject>(&n1).unwrap().metadata.resource_version, before);

    // The FabricNode is deleted by mistake: it is made again.
    std::fs::remove_file(node.path("store/fabricnodes.manx.dev/n1.yaml")).unwrap();
    node.wait("it is there again", || {
        let made = node.get::<FabricNode>(&n1).and_then(|made| made.status);
        made.is_some_and(|status| !status.conditions.is_empty())
    });
}

#[test]
fn another_address_is_taken_up_live() {
    let mut node = Node::new();
    node.start();
    let pod = node.pod("one");
    let [v4, _] = addresses(&node.add(&pod));
    let route = || node.netns.sh(&format!("ip route show {v4}"));
    node.wait("the route's source", || route().contains(&format!("src {NODE_V4} ")));
    // felix's own write of the Node's file would meet the next one.
    node.wait("the taint goes", || {
        taints(&node.get::<NodeObject>(&Key::cluster("n1")).unwrap()) == ["other"]
    });
    node.netns.sh("ip addr add 10.9.1.7/24 dev e1");
    node.object(
        "nodes/n1.yaml",
        &format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: n1}},
              status: {{addresses: [{{type: InternalIP, address: 10.9.1.7}},
                                    {{type: InternalIP, address: '{NODE_V6}'}}]}}}}"
        ),
    );
    node.wait("the route's source follows", || route().contains("src 10.9.1.7 "));
    let status = || node.get::<FabricNode>(&Key::cluster("n1")).unwrap().status.unwrap().addresses.unwrap();
    node.wait("status follows", || status().ipv4.is_some_and(|ipv4| ipv4.to_string() == "10.9.1.7"));
    node.wait("an Event says so", || {
        let events = std::fs::read_dir(node.path("store/.events")).unwrap().flatten();
        events.map(|file| std::fs::read_to_string(file.path()).unwrap()).any(|text| {
            text.contains("AddressChanged") && text.contains(&format!("{NODE_V4} {NODE_V6} is now 10.9.1.7"))
        })
    });
}

#[test]
fn uninstalling_leaves_the_node_as_it_was() {
    let mut node = Node::new();
    let settings = "net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.e1.rp_filter \
         net.netfilter.nf_conntrack_tcp_loose net.ipv4.fib_multipath_hash_policy";
    let kernel =
        |node: &Node| node.netns.sh(&format!("sysctl {settings}; nft list ruleset; ip route; ip -6 route"));
    let before = kernel(&node);
    node.start();
    node.wait("the configuration is written", || node.path("net.d/10-manx.conflist").exists());
    let pod = node.pod("one");
    node.add(&pod);
    assert_ne!(kernel(&node), before);
    let refused = node.uninstall(&[]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("still answers"), "{refused:?}");
    node.kill();

    let done = node.uninstall(&["--pods"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    for part in
        ["10-manx.conflist", "bin/manx-cni", "table inet manx", "routes of protocol 78", "interface manx"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    node.wait("the kernel is as it was", || kernel(&node) == before);
    assert!(!node.path("state").exists() && !node.path("run").exists(), "{said}");
    let object = node.get::<NodeObject>(&Key::cluster("n1")).unwrap();
    assert_eq!(condition(&object), Some(("True".to_owned(), "Uninstalled".to_owned())));

    let again = node.uninstall(&["--pods"]);
    assert!(again.status.success());
    assert_eq!(String::from_utf8_lossy(&again.stdout), "nothing of Manx's was left on this node\n");
}
