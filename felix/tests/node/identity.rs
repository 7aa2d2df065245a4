//! What a node goes by is missing, or is another's: said where people look, by felix, bgpd and the controller that runs
//! inside felix; and what follows when it is mended.

use std::process::Child;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node as NodeObject;
use manx_crds::store::dir::DirStore;
use manx_crds::store::{Key, Part, Store as _, StoreError};
use manx_crds::v1alpha1::FabricNode;
use serde_json::json;

use crate::harness::{NODE_V4, Node, addresses};

/// Ended with the test.
struct Bgpd(Child);

impl Drop for Bgpd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Node {
    /// `False NoMatchingAddress: …`
    fn says(&self, kind: &str) -> String {
        let conditions = self.get::<FabricNode>(&Key::cluster("n1")).and_then(|node| node.status);
        let conditions = conditions.unwrap_or_default().conditions;
        let found = conditions.iter().find(|condition| condition.type_ == kind);
        let Some(condition) = found else { return String::new() };
        format!("{} {}: {}", condition.status, condition.reason, condition.message)
    }

    fn until_says(&self, kind: &str, text: &str) {
        self.wait(&format!("{kind} says {text}"), || self.says(kind).contains(text));
        println!("{kind}={}", self.says(kind));
    }

    fn tainted(&self) -> bool {
        let node = self.get::<NodeObject>(&Key::cluster("n1")).unwrap();
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        taints.iter().any(|taint| taint.key == "manx.dev/agent-not-ready")
    }

    fn named(&self, addresses: &str) {
        self.object(
            "nodes/n1.yaml",
            &format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: n1}},
                  spec: {{taints: [{{key: manx.dev/agent-not-ready, effect: NoSchedule}}]}},
                  status: {{addresses: [{{type: Hostname, address: n1}}{addresses}]}}}}"
            ),
        );
    }

    /// Node n2 as its felix tells of it: a status that a person wrote counts for nothing.
    fn other(&self, address: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = DirStore::open(self.path("store")).unwrap();
            match store.create(&FabricNode::new("n2", Default::default())).await {
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            let status = json!({"addresses": {"ipv4": address}});
            let key = Key::cluster("n2");
            store.apply::<FabricNode>(&key, None, "manx-felix", Part::Status, status).await.unwrap();
        });
    }

    fn events(&self) -> String {
        let files = std::fs::read_dir(self.path("store/.events")).into_iter().flatten().flatten();
        files.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect()
    }
}

#[test]
fn a_node_without_an_address_says_so_and_goes_on_when_it_has_one() {
    let mut node = Node::new();
    node.named("");
    node.other("10.9.1.2");
    node.start();
    let mut bgpd = Bgpd(node.bgpd(&[]));
    let text = "False NoMatchingAddress: Node n1 has no InternalIP and FabricNode spec.addresses is empty: set either";
    node.until_says("AddressesReady", text);
    node.until_says(
        "BGPReady",
        "False NoneEstablished: no node-to-node session: node n1 has no address: give Node n1 an InternalIP, or FabricNode \
         n1 spec.addresses",
    );
    assert!(node.tainted(), "no pod may come");
    // Whoever calls all the same is served: a pod needs no address of its node.
    let pod = node.pod("early");
    let [v4, _] = addresses(&node.add(&pod));
    node.netns.sh(&format!("ping -c 1 -W 2 {v4}"));

    node.named(&format!(", {{type: InternalIP, address: {NODE_V4}}}"));
    node.until_says("AddressesReady", "True Selected");
    node.wait("the taint goes", || !node.tainted());
    node.wait("its pod's route has its address as source", || {
        node.netns.sh(&format!("ip route show {v4}")).contains(&format!("src {NODE_V4} "))
    });
    // n2 runs nowhere: what counts is that it is called.
    node.until_says("BGPReady", "0 of 1 sessions Established");
    assert!(bgpd.0.try_wait().unwrap().is_none());
    assert!(node.cni("STATUS", None, json!({})).is_ok());
}

#[test]
fn two_nodes_with_one_address_are_told_apart() {
    let mut node = Node::new();
    node.other(NODE_V4);
    // Ages have whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    node.start();
    let _bgpd = Bgpd(node.bgpd(&[]));
    let older = format!("{NODE_V4} is the address of node n2, too, which is older");
    node.until_says("IdentityUnique", &format!("False DuplicateAddress: {older}"));
    node.until_says(
        "BGPReady",
        &format!("False IdentityNotUnique: address {NODE_V4} is also that of the older node n2"),
    );
    node.wait("an Event says so", || {
        node.events().contains("IdentityConflict") && node.events().contains(&older)
    });

    node.other("10.9.1.2");
    node.until_says("IdentityUnique", "True Unique");
    node.until_says("BGPReady", "0 of 1 sessions Established");
}
