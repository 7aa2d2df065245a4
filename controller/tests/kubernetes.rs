//! The controller as its Deployment runs it: the binary, the token of its ServiceAccount, the chart's rights and nothing
//! else, on a real kube-apiserver, whose audit log counts what it writes.
//!
//! `make controller-test` runs it: it needs root, Kubernetes' binaries and helm.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use manx_crds::store::Key;
use manx_crds::v1alpha1::{
    BGPAdvertisement, BGPPeer, FabricConfiguration, FabricNode, HostEndpoint, IPBlock, IPPool,
    LoadBalancerPool, Tier,
};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use stage::{Controller, Stage, Write, condition, ingress};

#[path = "kubernetes/bad_input.rs"]
mod bad_input;
#[path = "kubernetes/stage.rs"]
mod stage;

/// What the issue grants a second controller.
const TAKEOVER: Duration = Duration::from_secs(20);

fn service(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}, \
         spec: {{type: LoadBalancer, selector: {{app: web}}, ports: [{{port: 80}}]{spec}}}}}\n---\n"
    )
}

fn pool(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: LoadBalancerPool, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n"
    )
}

fn peer(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: BGPPeer, metadata: {{name: {name}}}, spec: {{asn: 65001, {spec}}}}}\n---\n"
    )
}

fn shop(name: &str) -> Key {
    Key::namespaced("shop", name)
}

fn has(stage: &Stage, name: &str, addresses: &[&str]) {
    stage.until::<Service>(&shop(name), |object| ingress(object) == addresses);
}

/// Waits for a condition of an object.
fn says<K: manx_crds::store::Object>(stage: &Stage, name: &str, kind: &str, text: &str) -> Value {
    stage.until::<K>(&Key::cluster(name), |object| condition(object, kind) == text)
}

#[test]
fn a_cluster_is_served() {
    let stage = Stage::up("serve");
    let first = stage.controller("a");
    stage.until_probe(&first, "/readyz", 200);
    let second = stage.controller("b");
    stage.until_probe(&second, "/readyz", 200);
    for one in [&first, &second] {
        assert_eq!(stage.probe(one, "/livez"), (200, "ok".to_owned()), "{}", one.name);
    }
    assert_eq!(stage.holder().as_deref(), Some("manx-controller-a"));
    a_node_that_is_gone_leaves_a_block(&stage);
    statuses_say_what_is_so(&stage);
    keys_of_sessions_are_looked_up(&stage);
    pools_of_pods_meet_nobody_else(&stage);
    what_nobody_acts_on_says_so(&stage);
    services_have_what_they_ask_for(&stage);
    an_exhausted_pool_is_told_and_given_more(&stage);
    an_address_outside_every_pool_is_refused_and_then_given(&stage);
    pools_that_cannot_be_used_say_why(&stage);
    two_nodes_with_one_address_are_told_apart(&stage);
    a_pool_in_use_stays(&stage);
    its_block_is_collected(&stage);
    an_idle_cluster_is_not_written_to(&stage);
    let writes = stage.writes();
    let refused: Vec<&Write> = writes.iter().filter(|write| write.code >= 300 && write.code != 409).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(writes.iter().all(|write| write.by == "manx-controller-a"), "the second one wrote, too");
}

fn statuses_say_what_is_so(stage: &Stage) {
    for (node, ip) in [("n1", "10.0.0.1"), ("n2", "10.0.0.2")] {
        let status = json!({"addresses": {"ipv4": ip}, "bgp": {"asn": 64512, "routerID": ip}});
        stage.status("fabricnode", node, &status.to_string());
        stage.apply(&format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: BGPSession, metadata: {{name: {node}.tor}}, \
             spec: {{nodeName: {node}, peer: tor, remote: 10.0.0.254}}}}"
        ));
        stage.status("bgpsession", &format!("{node}.tor"), r#"{"state":"Established"}"#);
    }
    stage.apply(
        "{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {name: default},
          spec: {topology: {mode: FullMesh}, ipam: {cooldown: 1s}}}",
    );
    stage.apply(&peer("tor", "address: 10.0.0.254"));
    for (kind, text) in [
        ("Accepted", "True Accepted"),
        ("ResolvedRefs", "True ResolvedRefs"),
        ("TopologyReady", "True Ready"),
        ("SchemaCompatible", "True Compatible"),
    ] {
        says::<FabricConfiguration>(stage, "default", kind, text);
    }
    let tor = says::<BGPPeer>(stage, "tor", "Established", "True AllEstablished");
    assert_eq!(tor["status"]["sessions"], json!({"desired": 2, "established": 2}));
    assert_eq!(condition(&tor, "Accepted"), "True Accepted");
    for name in ["pool-blocks", "load-balancer-ips"] {
        let object = says::<BGPAdvertisement>(stage, name, "Accepted", "True Accepted");
        assert_eq!(condition(&object, "ResolvedRefs"), "True ResolvedRefs");
    }
    for name in ["default-ipv4", "default-ipv6"] {
        let object = says::<IPPool>(stage, name, "Allocatable", "True Allocatable");
        assert_eq!(condition(&object, "Accepted"), "True Accepted");
        assert_eq!(condition(&object, "AddressesAvailable"), "True Available");
        assert_eq!(object["metadata"]["finalizers"], json!(["manx.dev/ipam"]));
    }
    for node in ["n1", "n2"] {
        says::<FabricNode>(stage, node, "IdentityUnique", "True Unique");
    }
    // What people see of it.
    let row = stage.kubectl(&["get", "bgppeer", "tor", "--no-headers"]);
    assert!(row.contains("AllEstablished") || row.contains("True"), "{row}");

    // Younger by a second at least: creation times are whole seconds.
    std::thread::sleep(Duration::from_millis(1_100));
    stage.apply(&peer("again", "address: 10.0.0.254"));
    stage.apply(&peer("ours", "address: 10.0.0.2"));
    stage.apply(&peer("fast", "address: 10.0.0.253, session: {bfdProfile: fast}"));
    let again =
        stage.until::<BGPPeer>(&Key::cluster("again"), |o| condition(o, "Accepted").contains("OverlapsPeer"));
    assert!(
        condition(&again, "Accepted").contains("is served by the older BGPPeer tor on node n1"),
        "{again}"
    );
    let ours =
        stage.until::<BGPPeer>(&Key::cluster("ours"), |o| condition(o, "Accepted").contains("AddressIsOurs"));
    assert!(condition(&ours, "Accepted").contains("is the address of node n2 itself"), "{ours}");
    let missing = "spec.session.bfdProfile: there is no BFDProfile fast: create it, or name another";
    says::<BGPPeer>(stage, "fast", "ResolvedRefs", &format!("False BFDProfileNotFound: {missing}"));
    assert_eq!(stage.told("BGPPeer", "fast", "ReferenceNotFound"), missing);
    stage.apply("{apiVersion: manx.dev/v1alpha1, kind: BFDProfile, metadata: {name: fast}, spec: {}}");
    says::<BGPPeer>(stage, "fast", "ResolvedRefs", "True ResolvedRefs");
}

/// In the namespace of the session keys alone, by the chart's own rights.
fn keys_of_sessions_are_looked_up(stage: &Stage) {
    stage.apply(&peer(
        "keyed",
        "address: 10.0.0.252, session: {auth: {md5: {secretRef: {name: tor-keys, key: r12}}}}",
    ));
    let secret = |namespace: &str, key: &str| {
        stage.apply(&format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: tor-keys, namespace: {namespace}}}, stringData: {{{key}: pw}}}}"
        ));
    };
    secret("shop", "r12");
    let missing = "spec.session.auth.md5.secretRef: there is no Secret manx-secrets/tor-keys: create it with the session's \
                   password under key r12, or name another";
    says::<BGPPeer>(stage, "keyed", "ResolvedRefs", &format!("False SecretNotFound: {missing}"));
    assert_eq!(stage.told("BGPPeer", "keyed", "ReferenceNotFound"), missing);
    secret("manx-secrets", "r13");
    let text = "spec.session.auth.md5.secretRef: Secret manx-secrets/tor-keys has no key r12 (it has r13): put the session's \
                password there, or name another key";
    says::<BGPPeer>(stage, "keyed", "ResolvedRefs", &format!("False SecretKeyMissing: {text}"));
    secret("manx-secrets", "r12");
    says::<BGPPeer>(stage, "keyed", "ResolvedRefs", "True ResolvedRefs");
    stage.kubectl(&["delete", "secret", "-n", "manx-secrets", "tor-keys"]);
    says::<BGPPeer>(stage, "keyed", "ResolvedRefs", &format!("False SecretNotFound: {missing}"));
    stage.kubectl(&["delete", "bgppeer", "keyed"]);
}

/// The Service ranges are the API server's own.
fn pools_of_pods_meet_nobody_else(stage: &Stage) {
    let remedy = "exclude it by spec.excluded, or set assignment None and create a pool of another range; until then pods \
                  may be given addresses that are not theirs";
    for (name, cidr, whose) in [
        ("over-services", "10.96.64.0/20", "the Service range 10.96.0.0/16 (ServiceCIDR kubernetes)"),
        ("over-nodes", "10.0.0.0/24", "10.0.0.1, the address of node n1"),
    ] {
        stage.apply(&format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: IPPool, metadata: {{name: {name}}}, spec: {{cidr: {cidr}}}}}"
        ));
        let text = format!("{cidr} overlaps {whose}: {remedy}");
        says::<IPPool>(stage, name, "Accepted", &format!("False Overlaps: {text}"));
        assert_eq!(stage.told("IPPool", name, "PoolOverlaps"), text);
    }
    let excluded = r#"{"spec":{"excluded":["10.0.0.0/28"]}}"#;
    stage.kubectl(&["patch", "ippool", "over-nodes", "--type=merge", "-p", excluded]);
    says::<IPPool>(stage, "over-nodes", "Accepted", "True Accepted");
}

fn what_nobody_acts_on_says_so(stage: &Stage) {
    stage.apply("{apiVersion: manx.dev/v1alpha1, kind: HostEndpoint, metadata: {name: uplinks}, spec: {}}");
    stage
        .apply("{apiVersion: manx.dev/v1alpha1, kind: Tier, metadata: {name: security}, spec: {order: 500}}");
    let text = "is not supported by this version and changes nothing: remove it, or upgrade the agents first";
    says::<HostEndpoint>(stage, "uplinks", "Accepted", &format!("False UnknownValue: HostEndpoint {text}"));
    let tier = "a Tier other than kube-admin, default and kube-baseline";
    says::<Tier>(stage, "security", "Accepted", &format!("False UnknownValue: {tier} {text}"));
    for fixed in ["kube-admin", "default", "kube-baseline"] {
        says::<Tier>(stage, fixed, "Accepted", "True Accepted");
    }
}

fn services_have_what_they_ask_for(stage: &Stage) {
    stage.apply(&pool(
        "public",
        "addresses: [192.0.2.1-192.0.2.4], namespaceSelector: {matchLabels: {expose: public}}",
    ));
    stage.apply(&pool("six", "addresses: ['2001:db8::1-2001:db8::1']"));
    stage.apply(&pool("shared", "addresses: [198.51.100.1-198.51.100.1], assignment: Manual"));
    stage.apply(&service("asks", "manx.dev/load-balancer-ips: 192.0.2.3", ""));
    stage.apply(&service("old", "", ", loadBalancerIP: 192.0.2.2"));
    stage.apply(&service("foreign", "", ", loadBalancerClass: example.com/other"));
    has(stage, "asks", &["192.0.2.3"]);
    has(stage, "old", &["192.0.2.2"]);
    stage.apply(&service("any", "", ""));
    has(stage, "any", &["192.0.2.1"]);
    assert_eq!(
        stage.told("Service", "any", "AddressAssigned"),
        "shop/any has 192.0.2.1 from LoadBalancerPool public"
    );
    stage.apply(&service("dual", "", ", ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]"));
    has(stage, "dual", &["192.0.2.4", "2001:db8::1"]);
    assert_eq!(
        stage.told("Service", "dual", "AddressAssigned"),
        "shop/dual has 192.0.2.4 from LoadBalancerPool public and 2001:db8::1 from LoadBalancerPool six"
    );
    let named = "manx.dev/load-balancer-pool: shared, manx.dev/shared-address-key: web";
    stage.apply(&service("one", named, ""));
    stage.apply(&service("two", named, "").replace("port: 80", "port: 443"));
    has(stage, "one", &["198.51.100.1"]);
    has(stage, "two", &["198.51.100.1"]);
    let object = stage.object::<Service>(&shop("any")).unwrap();
    assert_eq!(object["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]));
    assert!(ingress(&stage.object::<Service>(&shop("foreign")).unwrap()).is_empty());
}

fn an_exhausted_pool_is_told_and_given_more(stage: &Stage) {
    let text = "every address is assigned: add LoadBalancerPool capacity";
    let object =
        says::<LoadBalancerPool>(stage, "public", "AddressesAvailable", &format!("False Exhausted: {text}"));
    assert_eq!(object["status"]["capacity"], json!({"addresses": "4", "assigned": 4}));
    assert_eq!(stage.told("LoadBalancerPool", "public", "PoolExhausted"), text);
    let row = stage.kubectl(&["get", "lbp", "public", "--no-headers"]);
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(columns[2..6], ["Automatic", "4", "4", "Allocatable"], "{row}");

    stage.apply(&service("waits", "", ""));
    assert_eq!(
        stage.told("Service", "waits", "AddressRequestFailed"),
        "no IPv4 address for shop/waits: shared: assignment Manual, and the Service does not name it; six: it has no \
         addresses of this family; public: every address is in use. Add a LoadBalancerPool, or addresses to one that \
         serves this Service"
    );
    stage.kubectl(&["delete", "service", "-n", "shop", "any"]);
    has(stage, "waits", &["192.0.2.1"]);
    stage.apply(&service("next", "", ""));
    stage.told("Service", "next", "AddressRequestFailed");
    let grown = r#"{"spec":{"addresses":["192.0.2.1-192.0.2.4","192.0.2.16/28"]}}"#;
    stage.kubectl(&["patch", "lbp", "public", "--type=merge", "-p", grown]);
    has(stage, "next", &["192.0.2.16"]);
    says::<LoadBalancerPool>(stage, "public", "AddressesAvailable", "True Available");
    // Of another type it gives its address back.
    stage.kubectl(&["patch", "service", "-n", "shop", "waits", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]);
    has(stage, "waits", &[]);
    stage.apply(&service("heir", "", ""));
    has(stage, "heir", &["192.0.2.1"]);
}

fn an_address_outside_every_pool_is_refused_and_then_given(stage: &Stage) {
    stage.apply(&service("outside", "manx.dev/load-balancer-ips: 203.0.113.9", ""));
    assert_eq!(
        stage.told("Service", "outside", "AddressRequestFailed"),
        "203.0.113.9, asked for by shop/outside (manx.dev/load-balancer-ips), is an address of no LoadBalancerPool: add it \
         to spec.addresses of a pool, or ask for another (there are: public, shared, six)"
    );
    stage.apply(&service("nonsense", "manx.dev/load-balancer-ips: next", ""));
    let told = stage.told("Service", "nonsense", "AddressRequestFailed");
    assert!(told.contains("manx.dev/load-balancer-ips \"next\": \"next\" is no IP address"), "{told}");
    stage.apply(&pool("more", "addresses: [203.0.113.0/28]"));
    has(stage, "outside", &["203.0.113.9"]);
    // In use it cannot be taken back: it stays, and says so.
    let less = r#"{"spec":{"addresses":["203.0.113.0/29"]}}"#;
    stage.kubectl(&["patch", "lbp", "more", "--type=merge", "-p", less]);
    let kept = "203.0.113.9 of shop/outside belongs to no LoadBalancerPool (any more); it stays until the Service goes";
    // It is of the same object and reason as the Event before: api.md §10 grants one a minute.
    let begun = Instant::now();
    while !stage.events().iter().any(|event| event.note.as_ref().is_some_and(|note| note.contains(kept))) {
        assert!(begun.elapsed() < Duration::from_secs(90), "nobody tells that {kept}");
        std::thread::sleep(Duration::from_millis(100));
    }
    has(stage, "outside", &["203.0.113.9"]);
}

fn pools_that_cannot_be_used_say_why(stage: &Stage) {
    stage.apply(&pool("younger", "addresses: [192.0.2.0/28]"));
    let text = "192.0.2.0-192.0.2.15 overlaps LoadBalancerPool public; the older pool is used";
    says::<LoadBalancerPool>(stage, "younger", "Accepted", &format!("False Overlaps: {text}"));
    says::<LoadBalancerPool>(stage, "younger", "Allocatable", &format!("False Overlaps: {text}"));
    assert_eq!(stage.told("LoadBalancerPool", "younger", "PoolOverlaps"), text);
    stage.apply(&pool("upside-down", "addresses: [198.51.100.128/25, 192.0.2.20-192.0.2.10]"));
    let text = "False InvalidRange: addresses[1]: the first address is above the last";
    says::<LoadBalancerPool>(stage, "upside-down", "Accepted", text);
}

fn two_nodes_with_one_address_are_told_apart(stage: &Stage) {
    stage.status("fabricnode", "n2", r#"{"addresses":{"ipv4":"10.0.0.1"}}"#);
    let text = "10.0.0.1 is the address of node n1, too, which is older: correct the Node's InternalIP, or set \
                spec.addresses of FabricNode n2";
    says::<FabricNode>(stage, "n2", "IdentityUnique", &format!("False DuplicateAddress: {text}"));
    assert_eq!(stage.told("FabricNode", "n2", "IdentityConflict"), text);
    says::<FabricNode>(stage, "n1", "IdentityUnique", "True Unique");
    stage.status("fabricnode", "n2", r#"{"addresses":{"ipv4":"10.0.0.2"}}"#);
    says::<FabricNode>(stage, "n2", "IdentityUnique", "True Unique");
}

fn a_pool_in_use_stays(stage: &Stage) {
    stage.kubectl(&["delete", "lbp", "six", "--wait=false"]);
    let text = "False Terminating: the pool is being deleted: it goes when no Service has an address of it";
    says::<LoadBalancerPool>(stage, "six", "Allocatable", text);
    stage.kubectl(&["delete", "service", "-n", "shop", "dual"]);
    stage.kubectl(&["wait", "--for=delete", "lbp/six", "--timeout=30s"]);
}

const BLOCK: &str = "10-244-3-0-26";

/// Neither Node nor FabricNode n3 is there.
fn a_node_that_is_gone_leaves_a_block(stage: &Stage) {
    for (name, cidr, node) in [(BLOCK, "10.244.3.0/26", "n3"), ("10-244-1-0-26", "10.244.1.0/26", "n1")] {
        let ip = cidr.replace("0/26", "1");
        stage.apply(&format!(
            "{{apiVersion: manx.dev/v1alpha1, kind: IPBlock, metadata: {{name: {name}, annotations: \
             {{manx.dev/incarnation: '1'}}}}, spec: {{cidr: {cidr}, pool: default-ipv4, nodeName: {node}, allocations: \
             [{{ip: {ip}, owner: {{kind: Pod, namespace: shop, name: web}}}}]}}}}"
        ));
    }
}

fn its_block_is_collected(stage: &Stage) {
    // Suspected for a minute, asked for every 20 s; then cleared, cooled down and deleted.
    stage.kubectl(&["wait", "--for=delete", &format!("ipblock/{BLOCK}"), "--timeout=150s"]);
    assert_eq!(
        stage.told("FabricNode", "n3", "AddressesReclaimed"),
        "1 addresses in 1 IPBlocks of node n3, which is gone"
    );
    let kept = stage.object::<IPBlock>(&Key::cluster("10-244-1-0-26")).unwrap();
    assert_eq!(kept["spec"]["allocations"].as_array().unwrap().len(), 1);
}

/// Longer than what was written is believed: what the API server keeps in another form would be written again.
fn an_idle_cluster_is_not_written_to(stage: &Stage) {
    let mut before = stage.writes();
    let mut quiet = Instant::now();
    let begun = Instant::now();
    while quiet.elapsed() < Duration::from_secs(5) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never rests: {:#?}", before.last());
        std::thread::sleep(Duration::from_millis(500));
        let now = stage.writes();
        if now.len() != before.len() {
            quiet = Instant::now();
            before = now;
        }
    }
    let renewals = stage.renewals();
    std::thread::sleep(Duration::from_secs(45));
    let after = stage.writes();
    assert!(after.len() == before.len(), "an idle cluster is written to: {:#?}", &after[before.len()..]);
    let renewed = stage.renewals() - renewals;
    println!("idle for 45 s: 0 writes, {renewed} renewals of the Lease");
    assert!((18..=25).contains(&renewed), "{renewed} renewals");
}

/// Each Service has one address, nobody else has it, and it was written once, whoever wrote it.
fn nothing_is_doubled(stage: &Stage, services: usize) {
    let addresses = stage.addresses();
    assert_eq!(addresses.len(), services);
    let mut owners: BTreeMap<&String, &String> = BTreeMap::new();
    for (name, held) in &addresses {
        let [ip] = held.as_slice() else { panic!("{name} has {held:?}") };
        if let Some(other) = owners.insert(ip, name) {
            panic!("{ip} is given to {other} and {name}");
        }
    }
    let mut written: BTreeMap<String, Vec<Write>> = BTreeMap::new();
    for write in stage.writes().into_iter().filter(|write| write.resource == "services/status") {
        written.entry(write.name.clone()).or_default().push(write);
    }
    assert_eq!(written.len(), services);
    for (name, writes) in &written {
        let done: Vec<&Write> = writes.iter().filter(|write| write.code < 300).collect();
        // Whoever is killed hears no answer, and the audit log has none; what was asked may be done all the same.
        let one = match done.as_slice() {
            [one] => one,
            [] => &writes[0],
            more => panic!("{name} is written {} times: {more:#?}", more.len()),
        };
        assert!(!done.is_empty() || writes.len() == 1, "{writes:#?}");
        assert_eq!(ingress(&one.body), addresses[name], "{name}");
    }
}

fn many(from: usize, to: usize) -> String {
    (from..to).map(|n| service(&format!("s{n}"), "", "")).collect()
}

/// Waits until another leads, with a Service that asks for an address meanwhile; the time from the leader's end on.
fn taken_over(stage: &Stage, ended: Instant, name: &str) -> Duration {
    let begun = Instant::now();
    while ingress(&stage.object::<Service>(&shop(name)).unwrap()).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody gives {name} an address");
        std::thread::sleep(Duration::from_millis(100));
    }
    ended.elapsed()
}

#[test]
fn a_killed_leader_is_followed_and_nothing_is_doubled() {
    let stage = Stage::up("lead");
    let mut first = stage.controller("a");
    stage.until_probe(&first, "/readyz", 200);
    let second = stage.controller("b");
    stage.until_probe(&second, "/readyz", 200);
    stage.apply(&pool("public", "addresses: [192.0.2.0/24]"));
    says::<LoadBalancerPool>(&stage, "public", "Accepted", "True Accepted");

    // In the middle of its work.
    let creation = many(0, 40);
    std::thread::scope(|scope| {
        scope.spawn(|| stage.apply(&creation));
        let begun = Instant::now();
        while stage.writes().iter().filter(|write| write.resource == "services/status").count() < 5 {
            assert!(begun.elapsed() < Duration::from_secs(30), "the leader gives no addresses");
            std::thread::sleep(Duration::from_millis(20));
        }
        first.process.kill().unwrap();
    });
    let killed = Instant::now();
    stage.apply(&service("after", "", ""));
    let took = taken_over(&stage, killed, "after");
    println!("kill -9 of the leader: a new Service has its address after {:.1}s", took.as_secs_f64());
    assert!(took < TAKEOVER, "{took:?}");
    assert_eq!(stage.holder().as_deref(), Some("manx-controller-b"));
    for n in 0..40 {
        stage.until::<Service>(&shop(&format!("s{n}")), |object| ingress(object).len() == 1);
    }
    nothing_is_doubled(&stage, 41);
    let of_second: Vec<Write> =
        stage.writes().into_iter().filter(|write| write.by == "manx-controller-b").collect();
    let others: Vec<&Write> = of_second
        .iter()
        .filter(|write| !matches!(write.resource.as_str(), "services/status" | "events"))
        .filter(|write| {
            (write.resource.as_str(), write.name.as_str()) != ("loadbalancerpools/status", "public")
        })
        .collect();
    assert!(others.is_empty(), "it writes again what stands there: {others:#?}");
    println!(
        "it wrote {} times, {} of them addresses",
        of_second.len(),
        of_second.iter().filter(|w| w.resource == "services/status").count()
    );

    a_frozen_leader_writes_nothing_when_it_wakes(&stage, second);
}

fn a_frozen_leader_writes_nothing_when_it_wakes(stage: &Stage, mut second: Controller) {
    let mut third = stage.controller("c");
    stage.until_probe(&third, "/readyz", 200);
    kill(second.pid(), Signal::SIGSTOP).unwrap();
    let frozen = Instant::now();
    let before = stage.writes().iter().filter(|write| write.by == second.name).count();
    stage.apply(&many(40, 60));
    let took = taken_over(stage, frozen, "s59");
    println!("SIGSTOP of the leader: a new Service has its address after {:.1}s", took.as_secs_f64());
    assert!(took < TAKEOVER, "{took:?}");
    kill(second.pid(), Signal::SIGCONT).unwrap();
    second.says("leadership is lost: the Lease could not be renewed in time");
    assert!(
        second.process.check_running().is_err() || {
            std::thread::sleep(Duration::from_secs(2));
            second.process.check_running().is_err()
        }
    );
    nothing_is_doubled(stage, 61);
    let after = stage.writes().iter().filter(|write| write.by == second.name).count();
    assert_eq!(before, after, "it wrote after its term");

    // Asked to end, it gives the Lease back: nobody waits.
    let fourth = stage.controller("d");
    stage.until_probe(&fourth, "/readyz", 200);
    third.process.terminate(Duration::from_secs(10)).unwrap();
    let ended = Instant::now();
    stage.apply(&service("last", "", ""));
    let took = taken_over(stage, ended, "last");
    println!("SIGTERM of the leader: a new Service has its address after {:.1}s", took.as_secs_f64());
    assert!(took < Duration::from_secs(8), "{took:?}");
    nothing_is_doubled(stage, 62);
}
