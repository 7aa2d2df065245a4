//! Fail static: the datastore gives no answer, and felix is killed. What runs goes on, what is deleted goes, and a
//! sandbox that is made again is served from what was known.
//!
//! A directory that nobody may read is a datastore that does not answer: felix runs without CAP_DAC_OVERRIDE.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as PodObject;
use manx_crds::report::FelixStatus;
use manx_crds::store::Key;
use serde_json::{Value, json};

use crate::harness::{Node, Pod, addresses};
use crate::namespace::Namespace;

impl Node {
    fn silence(&self, silent: bool) {
        let mode = std::fs::Permissions::from_mode(if silent { 0 } else { 0o755 });
        std::fs::set_permissions(self.path("store"), mode).unwrap();
    }

    /// Until felix has written down what it knows.
    fn remembered(&self) -> std::path::PathBuf {
        let path = self.path("state/inputs-felix");
        self.wait("felix remembers its inputs", || path.exists());
        path
    }

    fn status(&self) -> FelixStatus {
        self.asked().expect("felix answers")
    }

    /// None: it does not listen yet.
    fn asked(&self) -> Option<FelixStatus> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let socket = self.path("run/felix-control.sock");
        let request = json!({"verb": "status"});
        let asked = manx_daemon::control::ask(&socket, &request, Duration::from_secs(5));
        Some(serde_json::from_value(runtime.block_on(asked).ok()?).unwrap())
    }

    fn serves(&self) -> bool {
        self.cni("STATUS", None, json!({})).is_ok()
    }

    /// Rules and routes; counters count on.
    fn kernel(&self) -> String {
        self.netns.sh("nft -s list ruleset; ip route; ip -6 route")
    }

    fn policy(&self, name: &str, from: &str) {
        self.object(
            &format!("networkpolicies.networking.k8s.io/shop/{name}.yaml"),
            &format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: shop}},
                  spec: {{podSelector: {{matchLabels: {{app: {name}}}}}, policyTypes: [Ingress],
                          ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {from}}}}}}}]}}]}}}}"
            ),
        );
    }

    fn labelled(&self, name: &str, app: &str) -> Pod {
        self.object(
            &format!("pods/shop/{name}.yaml"),
            &format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}},
                  spec: {{nodeName: n1, containers: [{{name: c, image: i}}]}}}}"
            ),
        );
        Pod { name: name.to_owned(), netns: Namespace::new(), container: format!("c0ffee-{name}") }
    }
}

/// As the kubelet makes it: the same Pod, another sandbox.
fn sandbox_again(pod: &Pod) -> Pod {
    Pod { name: pod.name.clone(), netns: Namespace::new(), container: format!("{}-again", pod.container) }
}

fn reached(from: &Pod, to: &Pod, address: &str) -> bool {
    let address: SocketAddr = (address.parse::<IpAddr>().unwrap(), 8080).into();
    let _listener = to.netns.run(|| TcpListener::bind(address).unwrap());
    from.netns.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(700))).is_ok()
}

struct Shop {
    node: Node,
    web: Pod,
    web_addresses: [String; 2],
    client: Pod,
    stranger: Pod,
    stranger_addresses: [String; 2],
}

/// Three pods, of which `web` lets `client` in alone; and a pod elsewhere, so that the table names peers.
fn shop() -> Shop {
    let mut node = Node::new();
    node.policy("web", "client");
    node.object(
        "pods/shop/elsewhere.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: elsewhere, namespace: shop, labels: {app: client}},
          spec: {nodeName: n2, containers: [{name: c, image: i}]},
          status: {phase: Running, podIP: 10.244.200.7, podIPs: [{ip: 10.244.200.7}]}}",
    );
    node.start();
    let (web, client, stranger) =
        (node.labelled("web", "web"), node.labelled("client", "client"), node.labelled("stranger", "x"));
    let web_addresses = addresses(&node.add(&web));
    node.add(&client);
    let stranger_addresses = addresses(&node.add(&stranger));
    for address in &web_addresses {
        assert!(reached(&client, &web, address), "client to {address}");
        assert!(!reached(&stranger, &web, address), "stranger to {address}");
    }
    // The second file, with the pods in it, would come after a minute: a clean stop writes at once.
    node.remembered();
    node.stop();
    node.start();
    node.wait("felix is in sync", || node.serves());
    Shop { node, web, web_addresses, client, stranger, stranger_addresses }
}

#[test]
fn a_felix_that_dies_while_the_datastore_is_silent_goes_on_from_what_it_knew() {
    let Shop { mut node, web, web_addresses, client, stranger, stranger_addresses } = shop();
    let before = node.kernel();
    node.silence(true);
    node.kill();
    node.start();
    node.wait("felix serves from its memory", || node.serves());
    assert_eq!(node.kernel(), before, "nothing is touched for nobody");
    let status = node.status();
    assert!(status.inputs.remembered && !status.in_sync && status.dataplane == "Programmed", "{status:?}");
    assert!(status.message.contains("on inputs remembered from"), "{status:?}");
    assert!(node.log().contains("working from remembered inputs"));

    // Another sandbox of a known pod, whose policy holds; the old one is deleted afterwards.
    let again = sandbox_again(&web);
    let added = node.add(&again);
    let new = addresses(&added);
    for (old, new) in web_addresses.iter().zip(&new) {
        assert_ne!(old, new);
        assert!(reached(&client, &again, new), "client to {new}");
        assert!(!reached(&stranger, &again, new), "stranger to {new}");
        assert!(reached(&client, &web, old) && !reached(&stranger, &web, old), "the old sandbox, {old}");
    }
    assert!(node.kernel().contains("10.244.200.7"), "{}", node.kernel());
    assert_eq!(node.cni("DEL", Some(&web), json!({})), Ok(Value::Null));
    assert_eq!(node.cni("DEL", Some(&stranger), json!({})), Ok(Value::Null));
    let ruleset = node.kernel();
    for gone in web_addresses.iter().chain(&stranger_addresses) {
        assert!(!ruleset.contains(gone), "{gone} in {ruleset}");
    }
    // Nothing is known of this one: its object is in no memory, and what nobody knows is not guessed.
    let unknown = Pod { name: "unknown".into(), netns: Namespace::new(), container: "c0ffee-unknown".into() };
    let refused = node.cni("ADD", Some(&unknown), json!({})).unwrap_err();
    assert_eq!(refused["code"], 11, "{refused}");

    // Once more, in the middle of it.
    let before = node.kernel();
    node.kill();
    node.start();
    node.wait("felix serves from its memory again", || node.serves());
    assert_eq!(node.kernel(), before);
    assert!(reached(&client, &again, &new[0]));

    // Meanwhile somebody deleted the policy, and a pod: the datastore's word replaces the memory.
    node.silence(false);
    std::fs::remove_file(node.path("store/networkpolicies.networking.k8s.io/shop/web.yaml")).unwrap();
    std::fs::remove_file(node.path("store/pods/shop/elsewhere.yaml")).unwrap();
    node.wait("felix is in sync", || node.asked().is_some_and(|status| status.in_sync));
    let other = node.labelled("other", "x");
    node.add(&other);
    for address in &new {
        assert!(reached(&other, &again, address), "the policy is gone");
    }
    assert!(!node.kernel().contains("10.244.200.7"));
    let status = node.status();
    assert!(!status.inputs.remembered && status.message.contains("did not answer: from"), "{status:?}");
    let object = || node.get::<PodObject>(&Key::namespaced("shop", "web")).unwrap().status;
    node.wait("the pod's status says its new address", || {
        object().and_then(|status| status.pod_ip).as_deref() == Some(new[0].as_str())
    });
}

/// As after a power-cut: the kernel holds nothing of ours.
#[test]
fn an_empty_kernel_gets_the_table_that_the_memory_makes() {
    let Shop { mut node, web, web_addresses, client, stranger, .. } = shop();
    let table = |node: &Node| node.netns.sh("nft -s list table inet manx || true");
    let before = table(&node);
    node.silence(true);
    node.kill();
    node.netns.sh("nft delete table inet manx; ip route flush proto 78; ip -6 route flush proto 78");
    node.start();
    node.wait("the memory's table is there", || table(&node) == before);
    for address in &web_addresses {
        assert!(reached(&client, &web, address) && !reached(&stranger, &web, address), "{address}");
    }
    // A second death on the way must not take the table made of the memory for less than it is.
    node.kill();
    node.start();
    node.wait("felix serves", || node.serves());
    let again = sandbox_again(&stranger);
    let [v4, _] = addresses(&node.add(&again));
    assert!(reached(&client, &again, &v4));
}

#[test]
fn a_damaged_memory_is_named_and_guesses_nothing() {
    // The third pod stays as well: its link would go with it, some time later.
    let Shop { mut node, web, web_addresses, client, stranger: _stays, .. } = shop();
    let path = node.remembered();
    let before = node.kernel();
    node.silence(true);
    node.kill();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    node.start();
    node.wait("the file is refused", || node.asked().is_some_and(|status| status.inputs.problem.is_some()));
    let status = node.status();
    assert!(status.message.contains("checksum") && status.message.contains(".corrupt-"), "{status:?}");
    assert!(!path.exists());
    let refused = node.cni("ADD", Some(&sandbox_again(&web)), json!({})).unwrap_err();
    assert_eq!(refused["code"], 11, "{refused}");
    assert!(reached(&client, &web, &web_addresses[0]));
    assert_eq!(node.kernel(), before);
    node.silence(false);
    node.wait("felix is in sync", || node.asked().is_some_and(|status| status.in_sync));
    node.remembered();
}
