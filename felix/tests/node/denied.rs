//! The kernel says no: a capability is missing, or everything is there and netlink answers EPERM all the same, as under
//! seccomp, AppArmor or SELinux. A user namespace of its own does that to a process: it has every capability, and none
//! over the network namespace that it is in.

use std::process::Child;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use manx_crds::store::Key;
use manx_crds::v1alpha1::FabricNode;
use serde_json::json;

use crate::harness::{Node, Pod, addresses};
use crate::outgoing::seen;

const DENIED: [&str; 3] = ["unshare", "--user", "--map-root-user"];
const WITHOUT: [&str; 4] = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"];

impl Node {
    fn fabric_node(&self) -> FabricNode {
        self.get(&Key::cluster("n1")).expect("FabricNode n1")
    }

    fn condition(&self, kind: &str) -> Option<Condition> {
        let conditions = self.get::<FabricNode>(&Key::cluster("n1"))?.status?.conditions;
        conditions.into_iter().find(|condition| condition.type_ == kind)
    }

    fn is(&self, kind: &str, status: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == status)
    }

    /// Rules and routes. Counters count on, and the table's flags say whether its owner lives.
    fn programmed(&self) -> String {
        let text = self.netns.sh("nft -s list table inet manx; ip route; ip -6 route");
        let (_, rest) = text.split_once("flags").unwrap();
        rest.split_once('\n').unwrap().1.to_owned()
    }

    fn lines(&self, log: &str) -> String {
        std::fs::read_to_string(self.path(log)).unwrap_or_default()
    }
}

/// Whoever may not work ends, and says so in its own words.
fn ends(mut daemon: Child) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = daemon.try_wait().unwrap() {
            assert!(!status.success());
            return;
        }
        assert!(Instant::now() < deadline, "it runs on");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn stop(mut daemon: Child) {
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

fn talk(one: &Pod, two: &Pod, two_addresses: &[String; 2]) {
    for address in two_addresses {
        seen(&one.netns, &two.netns, address);
    }
}

#[test]
fn a_felix_that_may_not_says_so_and_tears_nothing_down() {
    let mut node = Node::new();
    node.start();
    let (one, two) = (node.pod("one"), node.pod("two"));
    node.add(&one);
    let two_addresses = addresses(&node.add(&two));
    node.wait("felix is ready", || node.is("DataplaneReady", "True") && node.is("PolicyProgrammed", "True"));
    // One that is used and one spare of each family.
    node.wait("its blocks are told", || node.fabric_node().status.unwrap().blocks.len() == 4);
    node.kill();
    let (before, told) = (node.programmed(), node.fabric_node().status.unwrap());

    let capabilities = "securityContext.capabilities.add, or AmbientCapabilities= in felix.service";
    let profile = "look for what denies it: seccompProfile, an AppArmor or SELinux profile";
    for (through, problem, remedy, logged) in [
        (WITHOUT.as_slice(), "CAP_NET_ADMIN is missing", capabilities, "NET_ADMIN and NET_RAW, nothing more"),
        (
            DENIED.as_slice(),
            "Operation not permitted",
            profile,
            "netlink sockets in the network namespace of the node",
        ),
    ] {
        ends(node.felix(through));
        let log = node.log();
        assert!(log.contains(problem) && log.contains(remedy) && log.contains(logged), "{log}");
        assert!(log.contains("pods, routes and rules stay as they are in the kernel"), "{log}");
        for (kind, reason) in [("DataplaneReady", "KernelRejected"), ("PolicyProgrammed", "PartlyFailed")] {
            let condition = node.condition(kind).unwrap();
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", reason));
            let text = condition.message;
            println!("{kind}=False {reason}: {text}");
            assert!(text.starts_with("felix does not run: ") && text.contains(problem), "{text}");
            assert!(text.contains(remedy), "{text}");
        }
        // Others go by what is told here: it stays, and so does what the kernel holds.
        let now = node.fabric_node().status.unwrap();
        assert_eq!((&now.addresses, &now.blocks, now.pod_mtu), (&told.addresses, &told.blocks, told.pod_mtu));
        assert!(node.is("AddressesReady", "True"));
        assert_eq!(node.programmed(), before);
        talk(&one, &two, &two_addresses);
        assert_eq!(node.cni("STATUS", None, json!({})).unwrap_err()["code"], 50);
    }

    // The right is back.
    node.start();
    node.wait("felix is ready again", || {
        node.is("DataplaneReady", "True") && node.is("PolicyProgrammed", "True")
    });
    assert_eq!(node.programmed(), before);
    talk(&one, &two, &two_addresses);
    let three = node.pod("three");
    let three_addresses = addresses(&node.add(&three));
    talk(&one, &three, &three_addresses);
}

#[test]
fn a_bgpd_that_may_not_keeps_the_routes_there_are_and_names_those_that_are_refused() {
    let node = Node::new();
    let block = |cidr: &str| {
        let name = cidr.replace(['.', '/'], "-");
        node.object(
            &format!("ipblocks.manx.dev/{name}.yaml"),
            &format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: IPBlock, metadata: {{name: {name}}},
                  spec: {{cidr: {cidr}, pool: v4, nodeName: n1}}}}"
            ),
        );
    };
    node.object(
        "fabricnodes.manx.dev/n1.yaml",
        "{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {name: n1}, spec: {}}",
    );
    let routes = || node.netns.sh("ip route show type blackhole");
    block("10.244.7.0/26");
    let bgpd = node.bgpd(&[]);
    node.wait("the block's route", || routes().contains("10.244.7.0/26"));
    node.wait("bgpd is ready", || node.is("BGPReady", "True"));
    stop(bgpd);

    ends(node.bgpd(&WITHOUT));
    let text = node.condition("BGPReady").unwrap().message;
    println!("BGPReady=False: {text}");
    assert!(text.starts_with("bgpd does not run: CAP_NET_ADMIN is missing"), "{text}");
    assert!(node.is("BGPReady", "False") && routes().contains("10.244.7.0/26"));
    let log = node.lines("bgpd.log");
    assert!(log.contains("AmbientCapabilities= in bgpd.service") && log.contains("no session"), "{log}");

    // What the kernel may be asked, it is; what it is told, it refuses: route by route, and it is tried again.
    let mut bgpd = node.bgpd(&DENIED);
    node.wait("bgpd runs", || node.is("BGPReady", "True"));
    block("10.244.8.0/26");
    let refused = "the kernel refuses 1 routes, such as 10.244.8.0/26";
    node.wait("the refusal is told", || {
        node.condition("BGPReady").is_some_and(|condition| condition.message.contains(refused))
    });
    println!("BGPReady: {}", node.condition("BGPReady").unwrap().message);
    assert!(node.lines("bgpd.log").contains("the kernel refuses a route"));
    assert!(routes().contains("10.244.7.0/26") && !routes().contains("10.244.8.0/26"), "{}", routes());
    assert!(bgpd.try_wait().unwrap().is_none(), "{}", node.lines("bgpd.log"));
    stop(bgpd);

    let bgpd = node.bgpd(&[]);
    node.wait("both routes", || routes().contains("10.244.7.0/26") && routes().contains("10.244.8.0/26"));
    node.wait("and nothing is refused", || {
        node.condition("BGPReady").is_some_and(|condition| !condition.message.contains("refuses"))
    });
    stop(bgpd);
}
