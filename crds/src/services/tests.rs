use proptest::prelude::*;
use serde_json::{Value, json};

use super::reference::{World, originated};
use super::*;
use crate::store::Key;
use crate::store::follow::key_of;
use crate::v1alpha1::BGPAdvertisement;

const NODE: &str = "n1";

fn rule(spec: &str) -> ServiceAdvertisement {
    let text = format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: BGPAdvertisement, metadata: {{name: a}}, spec: {{services: {{{spec}}}}}}}"
    );
    let advertisement: BGPAdvertisement =
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    advertisement.spec.services.unwrap()
}

fn service(spec: &str, ingress: &str) -> Service {
    let text = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop, labels: {{expose: fabric}}}},
          spec: {{{spec}}}, status: {{loadBalancer: {{ingress: [{ingress}]}}}}}}"
    );
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn slice(name: &str, family: &str, endpoints: &str) -> EndpointSlice {
    let text = format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: {family},
          metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: web}}}},
          endpoints: [{endpoints}]}}"
    );
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// An endpoint on a node, with `conditions`.
fn on(node: &str, conditions: &str) -> String {
    format!("{{addresses: [10.244.0.5], nodeName: {node}, conditions: {{{conditions}}}}}")
}

const READY: &str = "ready: true, serving: true, terminating: false";
const TERMINATING: &str = "ready: false, serving: true, terminating: true";

/// The dual-stack Service of most tests.
fn balancer(more: &str) -> Service {
    service(
        &format!(
            "type: LoadBalancer, clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, 'fd00:96::7'], externalIPs: [192.0.2.77]{more}"
        ),
        "{ip: 192.0.2.10}, {ip: '2001:db8::10'}",
    )
}

const EXTERNAL_LOCAL: &str = ", externalTrafficPolicy: Local";
const INTERNAL_LOCAL: &str = ", internalTrafficPolicy: Local";

/// What one rule makes of one Service with endpoints in IPv4 and IPv6 slices.
fn of(rule_text: &str, service: &Service, ipv4: &str, ipv6: &str) -> Vec<String> {
    let rule = rule(rule_text);
    let endpoints =
        Endpoints::of(&slice("a", "IPv4", ipv4), NODE).and(Endpoints::of(&slice("b", "IPv6", ipv6), NODE));
    let labels = BTreeMap::from([("expose".to_owned(), "public".to_owned())]);
    prefixes(&rule, &ServiceFacts::of(service), endpoints, &labels).iter().map(ToString::to_string).collect()
}

#[test]
fn each_address_type_announces_its_own_addresses() {
    let ready = on("n2", READY);
    for (rule, expected) in [
        ("addressTypes: [ClusterIP]", &["10.96.0.7/32", "fd00:96::7/128"][..]),
        ("addressTypes: [LoadBalancerIP]", &["192.0.2.10/32", "2001:db8::10/128"]),
        ("addressTypes: [ExternalIP], cidrs: [192.0.2.0/24]", &["192.0.2.77/32"]),
        ("addressTypes: [ExternalIP], cidrs: [198.51.100.0/24]", &[]),
        ("addressTypes: [LoadBalancerIP], cidrs: [192.0.2.0/24]", &["192.0.2.10/32"]),
        ("addressTypes: [LoadBalancerIP], cidrs: ['2001:db8::/64']", &["2001:db8::10/128"]),
        (
            "addressTypes: [ClusterIP, ExternalIP, LoadBalancerIP], cidrs: [192.0.2.0/24, 10.96.0.0/12]",
            &["10.96.0.7/32", "192.0.2.10/32", "192.0.2.77/32"],
        ),
    ] {
        assert_eq!(of(rule, &balancer(""), &ready, &ready), expected, "{rule}");
    }
}

#[test]
fn external_ips_are_never_announced_outside_a_range_even_without_one() {
    let rule = ServiceAdvertisement { cidrs: Vec::new(), ..rule("addressTypes: [ExternalIP]") };
    let endpoints = Endpoints::of(&slice("a", "IPv4", &on("n1", READY)), NODE);
    let facts = ServiceFacts::of(&balancer(""));
    assert_eq!(prefixes(&rule, &facts, endpoints, &BTreeMap::new()), BTreeSet::new());
}

#[test]
fn policies_decide_by_the_kind_of_address_and_by_its_family() {
    let (cluster_ip, balancer_ip) = ("addressTypes: [ClusterIP]", "addressTypes: [LoadBalancerIP]");
    let (here, there) = (on("n1", READY), on("n2", READY));
    let both = format!("{here}, {there}");
    let (cluster_v4, cluster_v6) = ("10.96.0.7/32", "fd00:96::7/128");
    let (balancer_v4, balancer_v6) = ("192.0.2.10/32", "2001:db8::10/128");
    for (rule, policy, ipv4, ipv6, expected) in [
        // Cluster: any ready endpoint, anywhere
        (cluster_ip, "", &here, &there, &[cluster_v4, cluster_v6][..]),
        (balancer_ip, "", &there, &there, &[balancer_v4, balancer_v6]),
        // Local: a ready one here
        (cluster_ip, INTERNAL_LOCAL, &here, &there, &[cluster_v4]),
        (cluster_ip, INTERNAL_LOCAL, &both, &both, &[cluster_v4, cluster_v6]),
        (balancer_ip, EXTERNAL_LOCAL, &here, &there, &[balancer_v4]),
        (balancer_ip, EXTERNAL_LOCAL, &there, &both, &[balancer_v6]),
        // one kind's policy says nothing of the other
        (cluster_ip, EXTERNAL_LOCAL, &there, &there, &[cluster_v4, cluster_v6]),
        (balancer_ip, INTERNAL_LOCAL, &there, &there, &[balancer_v4, balancer_v6]),
    ] {
        assert_eq!(
            of(rule, &balancer(policy), ipv4, ipv6),
            expected,
            "{rule} {policy} IPv4 {ipv4} IPv6 {ipv6}"
        );
    }
    let external = "addressTypes: [ExternalIP], cidrs: [192.0.2.0/24]";
    assert_eq!(of(external, &balancer(EXTERNAL_LOCAL), &there, &here), Vec::<String>::new());
    assert_eq!(of(external, &balancer(EXTERNAL_LOCAL), &here, ""), ["192.0.2.77/32"]);
}

#[test]
fn only_what_is_ready_and_not_terminating_counts() {
    for (conditions, counts) in [
        (READY, true),
        ("", true),
        ("ready: true", true),
        ("serving: true", true),
        ("ready: false", false),
        ("ready: false, serving: true", false),
        (TERMINATING, false),
        ("ready: false, serving: false, terminating: true", false),
        // publishNotReadyAddresses
        ("ready: true, serving: true, terminating: true", false),
    ] {
        for policy in ["", EXTERNAL_LOCAL] {
            let announced =
                of("addressTypes: [LoadBalancerIP]", &balancer(policy), &on("n1", conditions), "");
            assert_eq!(announced == ["192.0.2.10/32"], counts, "{conditions} {policy} {announced:?}");
            assert_eq!(announced.is_empty(), !counts);
        }
    }
    // One that goes does not hide one that stays.
    let some = format!("{}, {}", on("n1", TERMINATING), on("n2", READY));
    assert_eq!(of("addressTypes: [LoadBalancerIP]", &balancer(""), &some, ""), ["192.0.2.10/32"]);
    let none: Vec<String> = Vec::new();
    assert_eq!(of("addressTypes: [LoadBalancerIP]", &balancer(EXTERNAL_LOCAL), &some, ""), none);
}

#[test]
fn without_endpoints_the_rule_says_what_happens() {
    let announce = "addressTypes: [LoadBalancerIP], cidrs: [192.0.2.0/24], whenNoEndpoints: Announce";
    let none: Vec<String> = Vec::new();
    for policy in ["", EXTERNAL_LOCAL] {
        assert_eq!(of(announce, &balancer(policy), "", ""), ["192.0.2.10/32"], "{policy}");
        assert_eq!(of(announce, &balancer(policy), &on("n1", TERMINATING), ""), ["192.0.2.10/32"]);
        let withdraw = "addressTypes: [LoadBalancerIP], whenNoEndpoints: Withdraw";
        assert_eq!(of(withdraw, &balancer(policy), &on("n1", TERMINATING), ""), none);
    }
    // Endpoints elsewhere: Local announces there.
    assert_eq!(of(announce, &balancer(EXTERNAL_LOCAL), &on("n2", READY), ""), none);
}

#[test]
fn announce_cidrs_tells_ranges_and_hosts_of_local_services() {
    let rule = "addressTypes: [LoadBalancerIP], cidrs: [192.0.2.0/24, 192.0.2.0/28, 198.51.100.0/24], announce: CIDRs";
    let here = on("n1", READY);
    assert_eq!(of(rule, &balancer(""), &here, &here), ["192.0.2.0/24", "192.0.2.0/28"]);
    assert_eq!(
        of(rule, &balancer(EXTERNAL_LOCAL), &here, ""),
        ["192.0.2.0/24", "192.0.2.0/28", "192.0.2.10/32"]
    );
    let none: Vec<String> = Vec::new();
    assert_eq!(of(rule, &balancer(EXTERNAL_LOCAL), &on("n2", READY), ""), none);
    assert_eq!(of(rule, &balancer(""), &on("n2", TERMINATING), ""), none);
}

#[test]
fn selectors_choose_services_and_namespaces() {
    let here = on("n1", READY);
    for (selectors, selected) in [
        ("serviceSelector: {matchLabels: {expose: fabric}}", true),
        ("serviceSelector: {matchLabels: {expose: nobody}}", false),
        ("serviceSelector: {}", true),
        ("namespaceSelector: {matchLabels: {expose: public}}", true),
        ("namespaceSelector: {matchLabels: {expose: fabric}}", false),
        ("serviceSelector: {matchLabels: {expose: fabric}}, namespaceSelector: {matchLabels: {a: b}}", false),
    ] {
        let rule = format!("addressTypes: [LoadBalancerIP], {selectors}");
        assert_eq!(of(&rule, &balancer(""), &here, "").len(), usize::from(selected), "{selectors}");
    }
}

#[test]
fn what_kube_proxy_does_not_serve_is_not_announced() {
    let all = "addressTypes: [ClusterIP, ExternalIP, LoadBalancerIP], cidrs: [0.0.0.0/0, '::/0']";
    let here = on("n1", READY);
    for (spec, ingress, expected) in [
        ("type: ClusterIP, clusterIP: None, externalIPs: [192.0.2.1]", "", &[][..]),
        ("type: ExternalName, externalName: example.com, externalIPs: [192.0.2.1]", "", &[]),
        // the address of a LoadBalancer that is one no more
        ("type: ClusterIP, clusterIP: 10.96.0.7", "{ip: 192.0.2.10}", &["10.96.0.7/32"]),
        (
            "type: NodePort, clusterIP: 10.96.0.7, externalIPs: [192.0.2.1]",
            "",
            &["10.96.0.7/32", "192.0.2.1/32"],
        ),
        ("type: LoadBalancer", "{ip: 192.0.2.10, ipMode: VIP}", &["192.0.2.10/32"]),
        ("type: LoadBalancer", "{ip: 192.0.2.10, ipMode: Proxy}, {hostname: lb.example.com}", &[]),
        // text that names no host
        (
            "type: ClusterIP, clusterIP: 10.96.0.7, externalIPs: [127.0.0.1, 0.0.0.0, 224.0.0.1, 'fe80::1', x]",
            "",
            &["10.96.0.7/32"],
        ),
    ] {
        assert_eq!(of(all, &service(spec, ingress), &here, &here), expected, "{spec}");
    }
}

fn index_of(rules: &[(&str, &str)]) -> ServiceIndex {
    let mut index = ServiceIndex::new(NODE);
    index.set_rules(rules.iter().map(|(name, text)| ((*name).to_owned(), rule(text))).collect());
    index
}

fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn an_update_names_what_changed_and_nothing_else() {
    let mut index = index_of(&[
        ("hosts", "addressTypes: [LoadBalancerIP]"),
        ("range", "addressTypes: [LoadBalancerIP], cidrs: [192.0.2.0/24], announce: CIDRs"),
    ]);
    index.put_service(&balancer(""));
    assert_eq!(index.update(), BTreeSet::new(), "no endpoints yet");
    index.put_slice(&slice("a", "IPv4", &on("n1", READY)));
    assert_eq!(index.update(), nets(&["192.0.2.10/32", "192.0.2.0/24"]));
    assert_eq!(index.origins(&"192.0.2.0/24".parse().unwrap()).collect::<Vec<_>>(), ["range"]);
    // The same again, another endpoint more, a label that nobody asks for: nothing follows.
    index.put_slice(&slice("a", "IPv4", &on("n1", READY)));
    index.put_slice(&slice("b", "IPv4", &on("n2", READY)));
    assert_eq!(index.update(), BTreeSet::new());
    // A second Service in the range, then the first goes: the range stays.
    let mut second = service("type: LoadBalancer", "{ip: 192.0.2.11}");
    second.metadata.name = Some("api".to_owned());
    let mut of_second = slice("c", "IPv4", &on("n2", READY));
    of_second.metadata.labels = Some(BTreeMap::from([(SERVICE_NAME_LABEL.to_owned(), "api".to_owned())]));
    index.put_service(&second);
    index.put_slice(&of_second);
    assert_eq!(index.update(), nets(&["192.0.2.11/32"]));
    index.remove_service(&Key::namespaced("shop", "web"));
    assert_eq!(index.update(), nets(&["192.0.2.10/32"]));
    assert_eq!(index.of_service(&Key::namespaced("shop", "api")), nets(&["192.0.2.11/32", "192.0.2.0/24"]));
    index.put_slice(&{
        let mut gone = of_second.clone();
        gone.endpoints[0].conditions.as_mut().unwrap().terminating = Some(true);
        gone
    });
    assert_eq!(index.update(), nets(&["192.0.2.11/32", "192.0.2.0/24"]));
    assert_eq!(index.prefixes().count(), 0);
}

#[test]
fn an_excluded_node_announces_no_service() {
    let labels = |key: &str| BTreeMap::from([(key.to_owned(), String::new())]);
    assert!(excludes(&labels(EXCLUDE_LABEL)) && !excludes(&labels("exclude")));
    let rule = "addressTypes: [ClusterIP, LoadBalancerIP], whenNoEndpoints: Announce";
    let mut index = index_of(&[("all", rule)]);
    index.put_service(&balancer(""));
    let all = index.update();
    assert_eq!(all.len(), 4);
    index.set_excluded(true);
    assert_eq!(index.update(), all);
    assert_eq!(index.prefixes().count(), 0);
    index.set_excluded(false);
    assert_eq!(index.update(), all);
}

#[test]
fn a_slice_that_changes_its_service_takes_its_endpoints_along() {
    let mut index = index_of(&[("all", "addressTypes: [LoadBalancerIP]")]);
    index.put_service(&balancer(""));
    let mut moved = slice("a", "IPv4", &on("n1", READY));
    index.put_slice(&moved);
    assert_eq!(index.update(), nets(&["192.0.2.10/32"]));
    moved.metadata.labels = None;
    index.put_slice(&moved);
    assert_eq!(index.update(), nets(&["192.0.2.10/32"]));
    assert_eq!(index.prefixes().count(), 0);
    index.remove_slice(&key_of(&moved));
    assert_eq!(index.update(), BTreeSet::new());
}

#[test]
fn a_gate_is_open_while_its_service_has_an_endpoint_here_that_takes_traffic() {
    let web = Key::namespaced("shop", "web");
    let prefix: IpNet = "198.51.100.53/32".parse().unwrap();
    let mut index = ServiceIndex::new(NODE);
    index.set_gates(&Gates::from([("anycast".to_owned(), BTreeSet::from([(web, prefix)]))]));
    // No Service, no rule, and a node that announces no address of a Service: none of it matters.
    index.set_excluded(true);
    for (endpoints, is_open) in [
        (on("n2", READY), false),
        (on("n1", READY), true),
        (on("n1", "ready: false"), false),
        (on("n1", "ready: true, terminating: true"), false),
        (on("n1", READY), true),
    ] {
        index.put_slice(&slice("a", "IPv6", &endpoints));
        index.update();
        assert_eq!(index.origins(&prefix).count() == 1, is_open, "{endpoints}");
    }
    index.set_gates(&Gates::new());
    assert_eq!(index.update(), nets(&["198.51.100.53/32"]));
    assert_eq!(index.prefixes().count(), 0);
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Service(Value),
    NoService(Key),
    Slice(Value),
    NoSlice(Key),
    Namespace(String, Option<&'static str>),
    NoNamespace(String),
    Rules(BTreeMap<String, ServiceAdvertisement>),
    Gates(Gates),
    /// The watch of Services ends, and not that of their slices.
    NoServices,
    Excluded(bool),
    Update,
}

const NAMESPACES: [&str; 2] = ["shop", "lab"];
const SERVICES: [&str; 3] = ["a", "b", "c"];
const SLICES: [&str; 4] = ["s1", "s2", "s3", "s4"];
const TEAMS: [&str; 2] = ["red", "blue"];
const BALANCERS: [&str; 4] = ["192.0.2.1", "192.0.2.2", "192.0.2.200", "2001:db8::1"];

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    (0..from.len()).prop_map(move |index| from[index])
}

fn name(from: &'static [&'static str]) -> impl Strategy<Value = Key> {
    (pick(&NAMESPACES), pick(from)).prop_map(|(namespace, name)| Key::namespaced(namespace, name))
}

fn policy() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), Just(json!("Cluster")), Just(json!("Local"))]
}

fn a_service() -> impl Strategy<Value = Value> {
    let kinds = pick(&["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName"]);
    let cluster_ip = prop_oneof![Just("None"), Just("10.96.0.1"), Just("10.96.0.2")];
    let modes = prop_oneof![Just(Value::Null), Just(json!("VIP")), Just(json!("Proxy"))];
    (name(&SERVICES), pick(&TEAMS), kinds, cluster_ip, policy(), policy(), pick(&BALANCERS), modes, pick(&BALANCERS))
        .prop_map(|(key, team, kind, cluster_ip, internal, external, balancer, mode, external_ip)| {
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"namespace": key.namespace, "name": key.name, "labels": {"team": team}},
                "spec": {"type": kind, "clusterIP": cluster_ip,
                    "clusterIPs": if cluster_ip == "None" { json!(["None"]) } else { json!([cluster_ip, "fd00:96::1"]) },
                    "internalTrafficPolicy": internal, "externalTrafficPolicy": external,
                    "externalIPs": [external_ip]},
                "status": {"loadBalancer": {"ingress": [{"ip": balancer, "ipMode": mode}, {"ip": "192.0.2.3"}]}},
            })
        })
}

fn a_slice() -> impl Strategy<Value = Value> {
    let flag = || prop_oneof![Just(Value::Null), Just(json!(true)), Just(json!(false))];
    let node = prop_oneof![Just(json!("n1")), Just(json!("n2")), Just(Value::Null)];
    let endpoint = (node, flag(), flag(), flag()).prop_map(|(node, ready, serving, terminating)| {
        json!({"addresses": ["10.244.0.1"], "nodeName": node,
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
    });
    let service = prop_oneof![1 => Just(None), 6 => pick(&SERVICES).prop_map(Some)];
    let family = pick(&["IPv4", "IPv4", "IPv6", "FQDN"]);
    (name(&SLICES), service, family, prop::collection::vec(endpoint, 0..3)).prop_map(
        |(key, service, family, endpoints)| {
            let labels = service.map_or(json!({}), |name| json!({(SERVICE_NAME_LABEL): name}));
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
                "metadata": {"namespace": key.namespace, "name": key.name, "labels": labels},
                "endpoints": endpoints,
            })
        },
    )
}

fn a_rule() -> impl Strategy<Value = ServiceAdvertisement> {
    let types = prop::sample::subsequence(vec!["ClusterIP", "ExternalIP", "LoadBalancerIP"], 1..=3);
    let ranges = vec!["192.0.2.0/24", "192.0.2.0/28", "2001:db8::/64", "10.96.0.0/12"];
    let team = || {
        prop_oneof![Just(Value::Null), pick(&TEAMS).prop_map(|team| json!({"matchLabels": {"team": team}}))]
    };
    (
        types,
        prop::sample::subsequence(ranges, 0..=4),
        pick(&["Hosts", "CIDRs"]),
        pick(&["Withdraw", "Announce"]),
        team(),
        team(),
    )
        .prop_map(|(types, cidrs, announce, when, services, namespaces)| {
            serde_json::from_value(json!({"addressTypes": types, "cidrs": cidrs, "announce": announce,
                "whenNoEndpoints": when, "serviceSelector": services, "namespaceSelector": namespaces}))
            .unwrap()
        })
}

fn some_gates() -> impl Strategy<Value = BTreeSet<(Key, IpNet)>> {
    let prefix = pick(&["198.51.100.53/32", "198.51.100.0/24", "2001:db8:53::/48", "192.0.2.1/32"]);
    prop::collection::btree_set((name(&SERVICES), prefix.prop_map(|text| text.parse().unwrap())), 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let namespace = || pick(&NAMESPACES).prop_map(str::to_owned);
    prop_oneof![
        5 => a_service().prop_map(Step::Service),
        1 => name(&SERVICES).prop_map(Step::NoService),
        6 => a_slice().prop_map(Step::Slice),
        2 => name(&SLICES).prop_map(Step::NoSlice),
        2 => (namespace(), prop::option::of(pick(&TEAMS))).prop_map(|(name, team)| Step::Namespace(name, team)),
        1 => namespace().prop_map(Step::NoNamespace),
        2 => prop::collection::btree_map(pick(&["r1", "r2", "r3"]).prop_map(str::to_owned), a_rule(), 0..3).prop_map(Step::Rules),
        1 => prop::collection::btree_map(pick(&["g1", "g2"]).prop_map(str::to_owned), some_gates(), 0..3).prop_map(Step::Gates),
        1 => Just(Step::NoServices),
        1 => prop::bool::weighted(0.2).prop_map(Step::Excluded),
        3 => Just(Step::Update),
    ]
}

/// Takes one step in both worlds.
fn take(step: Step, index: &mut ServiceIndex, world: &mut World) {
    match step {
        Step::Service(value) => {
            let service: Service = serde_json::from_value(value).unwrap();
            index.put_service(&service);
            world.services.insert(key_of(&service), service);
        }
        Step::NoService(key) => {
            index.remove_service(&key);
            world.services.remove(&key);
        }
        Step::Slice(value) => {
            let slice: EndpointSlice = serde_json::from_value(value).unwrap();
            index.put_slice(&slice);
            world.slices.insert(key_of(&slice), slice);
        }
        Step::NoSlice(key) => {
            index.remove_slice(&key);
            world.slices.remove(&key);
        }
        Step::Namespace(name, team) => {
            let labels = team.map_or(json!({}), |team| json!({"team": team}));
            let namespace: k8s_openapi::api::core::v1::Namespace = serde_json::from_value(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
            )
            .unwrap();
            index.put_namespace(&namespace);
            world.namespaces.insert(name, namespace);
        }
        Step::NoNamespace(name) => {
            index.remove_namespace(&name);
            world.namespaces.remove(&name);
        }
        Step::Rules(rules) => {
            index.set_rules(rules.clone());
            world.rules = rules;
        }
        Step::Gates(gates) => {
            index.set_gates(&gates);
            world.gates = gates;
        }
        Step::NoServices => {
            index.remove_services();
            world.services.clear();
        }
        Step::Excluded(is_excluded) => {
            index.set_excluded(is_excluded);
            world.is_excluded = is_excluded;
        }
        Step::Update => {}
    }
}

fn state(index: &ServiceIndex) -> BTreeMap<IpNet, BTreeSet<String>> {
    index.prefixes().map(|(prefix, rules)| (prefix, rules.map(str::to_owned).collect())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the history: the index holds what the objects say now, and an update names exactly the differences.
    #[test]
    fn the_index_equals_the_reference_after_any_history(steps in prop::collection::vec(step(), 1..60)) {
        let mut index = ServiceIndex::new(NODE);
        let mut world = World { node: NODE.to_owned(), ..World::default() };
        let mut before = BTreeMap::new();
        for step in steps.into_iter().chain([Step::Update]) {
            let is_update = matches!(step, Step::Update);
            take(step, &mut index, &mut world);
            if is_update {
                let changed = index.update();
                let expected = originated(&world);
                prop_assert_eq!(&state(&index), &expected);
                let all: BTreeSet<IpNet> = before.keys().chain(expected.keys()).copied().collect();
                let differ: BTreeSet<IpNet> =
                    all.into_iter().filter(|prefix| before.get(prefix) != expected.get(prefix)).collect();
                prop_assert_eq!(changed, differ);
                before = expected;
            }
        }
    }
}
