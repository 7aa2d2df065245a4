use super::pool::Pool;
use super::*;

/// The world of a test, written as people write it.
#[derive(Default)]
struct Lab {
    services: BTreeMap<Key, Service>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pools: Pools,
    class_only: bool,
    balancer: LoadBalancer,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pool(name: &str, spec: &str) -> (String, Result<Pool, manx_crds::acceptance::Refusal>) {
    let object: manx_crds::v1alpha1::LoadBalancerPool = serde_saphyr::from_str(&format!(
        "{{apiVersion: manx.dev/v1alpha1, kind: LoadBalancerPool, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    ))
    .unwrap();
    (name.to_owned(), Pool::try_from(&object))
}

impl Lab {
    fn new(pools: &[(&str, &str)]) -> Lab {
        let parsed = pools.iter().map(|(name, spec)| pool(name, spec));
        Lab { pools: Pools::new(parsed, &[], BTreeSet::new()), ..Lab::default() }
    }

    /// A Service of namespace `shop`; younger the later it is added.
    fn service(&mut self, name: &str, annotations: &str, spec: &str) -> Key {
        let key = Key::namespaced("shop", name);
        let second = self.services.len();
        let service: Service = serde_saphyr::from_str(&format!(
            "{{metadata: {{name: {name}, namespace: shop, uid: u-{name}, creationTimestamp: '2026-01-01T00:00:{second:02}Z', \
             annotations: {{{annotations}}}}}, spec: {{type: LoadBalancer, ports: [{{port: 80}}], {spec}}}}}"
        ))
        .unwrap();
        self.services.insert(key.clone(), service);
        key
    }

    fn store(&mut self, key: &Key, addresses: &[&str]) {
        let ingress: Vec<serde_json::Value> =
            addresses.iter().map(|ip| serde_json::json!({"ip": ip})).collect();
        let status = serde_json::json!({"loadBalancer": {"ingress": ingress}});
        self.services.get_mut(key).unwrap().status = Some(serde_json::from_value(status).unwrap());
    }

    fn settle(&mut self) -> BTreeMap<Key, Outcome> {
        self.settle_at(Duration::ZERO)
    }

    fn settle_at(&mut self, now: Duration) -> BTreeMap<Key, Outcome> {
        let world = World {
            services: &self.services,
            namespaces: &self.namespaces,
            pools: &self.pools,
            class_only: self.class_only,
        };
        self.balancer.settle(&world, now)
    }

    fn has(&mut self, key: &Key) -> Vec<String> {
        let outcomes = self.settle();
        outcomes.get(key).map(|o| o.addresses.iter().map(IpAddr::to_string).collect()).unwrap_or_default()
    }

    fn problem(&mut self, key: &Key) -> String {
        self.settle()[key].problem.clone().unwrap_or_default()
    }
}

const V4: &str = "ipFamilies: [IPv4], ipFamilyPolicy: SingleStack";
const PREFER: &str = "ipFamilies: [IPv6, IPv4], ipFamilyPolicy: PreferDualStack";
const REQUIRE: &str = "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack";

#[test]
fn the_lowest_free_address_is_given_and_kept() {
    let mut lab = Lab::new(&[("public", "addresses: [192.0.2.8/30], excluded: [192.0.2.8-192.0.2.8]")]);
    let a = lab.service("a", "", V4);
    let b = lab.service("b", "", V4);
    assert_eq!(lab.has(&a), ["192.0.2.9"]);
    assert_eq!(lab.has(&b), ["192.0.2.10"]);
    lab.services.remove(&a);
    let c = lab.service("c", "", V4);
    assert_eq!((lab.has(&b), lab.has(&c)), (vec!["192.0.2.10".into()], vec!["192.0.2.9".into()]));
}

#[test]
fn after_a_restart_the_statuses_are_the_record() {
    let mut lab = Lab::new(&[("public", "addresses: [192.0.2.0/29]")]);
    let pending = lab.service("old-and-pending", "", V4);
    let served = lab.service("young-and-served", "", V4);
    lab.store(&served, &["192.0.2.0"]);
    assert_eq!(lab.has(&served), ["192.0.2.0"]);
    assert_eq!(lab.has(&pending), ["192.0.2.1"]);
}

#[test]
fn of_two_that_have_one_address_the_older_keeps_it() {
    let mut lab = Lab::new(&[("public", "addresses: [192.0.2.0/29]")]);
    let old = lab.service("old", "", V4);
    let young = lab.service("young", "", V4);
    lab.store(&old, &["192.0.2.3"]);
    lab.store(&young, &["192.0.2.3"]);
    assert_eq!(lab.has(&old), ["192.0.2.3"]);
    assert_eq!(lab.has(&young), ["192.0.2.0"]);
}

#[test]
fn families_follow_the_service() {
    let mut lab = Lab::new(&[("v4", "addresses: [192.0.2.0/29]"), ("v6", "addresses: ['2001:db8::/64']")]);
    let prefer = lab.service("prefer", "", PREFER);
    let require = lab.service("require", "", REQUIRE);
    let undeclared = lab.service("undeclared", "", "clusterIP: 10.0.0.1");
    assert_eq!(lab.has(&prefer), ["2001:db8::", "192.0.2.0"]);
    assert_eq!(lab.has(&require), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(lab.has(&undeclared), ["192.0.2.2"]);

    let mut lab = Lab::new(&[("v4", "addresses: [192.0.2.0/29]")]);
    let prefer = lab.service("prefer", "", PREFER);
    let require = lab.service("require", "", REQUIRE);
    assert_eq!(lab.has(&prefer), ["192.0.2.0"]);
    assert_eq!(lab.has(&require), Vec::<String>::new());
    assert_eq!(
        lab.problem(&require),
        "no IPv6 address for shop/require: v4: it has no addresses of this family. Add a LoadBalancerPool, or \
         addresses to one that serves this Service"
    );
}

#[test]
fn pools_with_a_selector_come_first_and_naming_one_does_not_open_it() {
    let mut lab = Lab::new(&[
        ("a-open", "addresses: [192.0.2.0/29]"),
        ("b-manual", "addresses: [192.0.2.16/29], assignment: Manual"),
        ("c-drained", "addresses: [192.0.2.24/29], assignment: None"),
        ("z-public", "addresses: [198.51.100.0/29], namespaceSelector: {matchLabels: {expose: public}}"),
    ]);
    let any = lab.service("any", "", V4);
    let manual = lab.service("manual", "manx.dev/load-balancer-pool: b-manual", V4);
    let drained = lab.service("drained", "manx.dev/load-balancer-pool: c-drained", V4);
    let barred = lab.service("barred", "manx.dev/load-balancer-pool: z-public", V4);
    assert_eq!(lab.has(&any), ["192.0.2.0"]);
    assert_eq!(lab.has(&manual), ["192.0.2.16"]);
    assert!(lab.problem(&drained).contains("c-drained: assignment None"), "{}", lab.problem(&drained));
    assert!(lab.problem(&barred).contains("z-public: namespaceSelector does not match"));
    lab.namespaces.insert("shop".into(), BTreeMap::from([("expose".into(), "public".into())]));
    assert_eq!(lab.has(&barred), ["198.51.100.0"]);
    // What is held stays, also where a better pool serves now.
    assert_eq!(lab.has(&any), ["192.0.2.0"]);
    let new = lab.service("new", "", V4);
    assert_eq!(lab.has(&new), ["198.51.100.1"]);
}

#[test]
fn exactly_the_addresses_asked_for_or_a_text_that_says_why_not() {
    let mut lab = Lab::new(&[("public", "addresses: [192.0.2.0/29], excluded: [192.0.2.7/32]")]);
    let first = lab.service("first", "", V4);
    let exact = lab.service("exact", "manx.dev/load-balancer-ips: 192.0.2.0", V4);
    let legacy = lab.service("legacy", "", &format!("{V4}, loadBalancerIP: 192.0.2.5"));
    // Who asks for one address comes before who takes any.
    assert_eq!(lab.has(&exact), ["192.0.2.0"]);
    assert_eq!(lab.has(&first), ["192.0.2.1"]);
    assert_eq!(lab.has(&legacy), ["192.0.2.5"]);
    for (name, asked, text) in [
        (
            "outside",
            "203.0.113.1",
            "is an address of no LoadBalancerPool: add it to spec.addresses of a pool",
        ),
        ("excluded", "192.0.2.7", "is an address of no LoadBalancerPool"),
        ("taken", "192.0.2.1", "belongs to Service shop/first: ask for another address; to share it"),
        ("word", "web", "\"web\" is no IP address"),
        ("family", "'2001:db8::1'", "is IPv6, but spec.ipFamilies of the Service is IPv4"),
    ] {
        let key = lab.service(name, &format!("manx.dev/load-balancer-ips: {asked}"), V4);
        assert_eq!(lab.has(&key), Vec::<String>::new());
        assert!(lab.problem(&key).contains(text), "{name}: {}", lab.problem(&key));
    }
    // A request that cannot be met leaves what there is.
    let annotations = lab.services.get_mut(&first).unwrap().metadata.annotations.get_or_insert_default();
    annotations.insert("manx.dev/load-balancer-ips".into(), "192.0.2.5".into());
    assert_eq!(lab.has(&first), ["192.0.2.1"]);
    lab.services.remove(&legacy);
    assert_eq!(lab.has(&first), ["192.0.2.5"]);
}

#[test]
fn equal_keys_and_disjoint_ports_share() {
    let mut lab = Lab::new(&[("public", "addresses: [192.0.2.0/29]")]);
    let key = "manx.dev/shared-address-key: web";
    let http = lab.service("http", key, V4);
    let https = lab.service("https", key, V4);
    let other = lab.service("other", "manx.dev/shared-address-key: mail", V4);
    lab.services.get_mut(&https).unwrap().spec.as_mut().unwrap().ports =
        serde_json::from_value(serde_json::json!([{"port": 443}])).unwrap();
    assert_eq!((lab.has(&http), lab.has(&https)), (vec!["192.0.2.0".into()], vec!["192.0.2.0".into()]));
    assert_eq!(lab.has(&other), ["192.0.2.1"]);
    // The younger one takes a port of the older: it has to go.
    lab.services.get_mut(&https).unwrap().spec.as_mut().unwrap().ports =
        serde_json::from_value(serde_json::json!([{"port": 80}])).unwrap();
    assert_eq!((lab.has(&http), lab.has(&https)), (vec!["192.0.2.0".into()], vec!["192.0.2.2".into()]));
}

#[test]
fn another_class_is_another_controllers_and_its_addresses_are_never_given() {
    let mut lab = Lab::new(&[("public", "addresses: [192.0.2.0/29]")]);
    let foreign = lab.service("foreign", "", &format!("{V4}, loadBalancerClass: example.com/lb"));
    lab.store(&foreign, &["192.0.2.0"]);
    let ours = lab.service("ours", "", &format!("{V4}, loadBalancerClass: manx.dev/load-balancer"));
    let plain = lab.service("plain", "", V4);
    assert_eq!(lab.has(&ours), ["192.0.2.1"]);
    assert_eq!(lab.has(&plain), ["192.0.2.2"]);
    assert!(!lab.settle().contains_key(&foreign));
    lab.store(&plain, &["192.0.2.2"]);
    lab.class_only = true;
    assert!(!lab.settle().contains_key(&plain));
    let next = lab.service("next", "", &format!("{V4}, loadBalancerClass: manx.dev/load-balancer"));
    assert_eq!(lab.has(&next), ["192.0.2.3"]);
}

#[test]
fn an_address_is_free_only_when_the_store_shows_that_it_was_left() {
    let mut lab = Lab::new(&[("public", "addresses: [192.0.2.0/32]")]);
    let a = lab.service("a", "", V4);
    let b = lab.service("b", "", V4);
    assert_eq!(lab.has(&a), ["192.0.2.0"]);
    lab.balancer.sent(&a, &[ip("192.0.2.0")]);
    // No answer: the write may yet take place, even when the Service has another type by now.
    lab.balancer.answered(&a, None, Duration::from_secs(1));
    lab.services.get_mut(&a).unwrap().spec.as_mut().unwrap().type_ = Some("ClusterIP".into());
    assert_eq!(lab.has(&b), Vec::<String>::new());
    assert!(lab.problem(&b).contains("public: every address is in use"));
    let late = Duration::from_secs(92);
    assert_eq!(lab.settle_at(late)[&b].addresses, [ip("192.0.2.0")]);
}

#[test]
fn the_status_of_another_type_is_cleared_before_its_address_is_given() {
    let mut lab = Lab::new(&[("public", "addresses: [192.0.2.0/32]")]);
    let a = lab.service("a", "", V4);
    lab.store(&a, &["192.0.2.0"]);
    let b = lab.service("b", "", V4);
    lab.settle();
    lab.services.get_mut(&a).unwrap().spec.as_mut().unwrap().type_ = Some("NodePort".into());
    let outcomes = lab.settle();
    assert_eq!(outcomes[&a], Outcome::default());
    assert_eq!(outcomes[&b].addresses, Vec::<IpAddr>::new());
    lab.store(&a, &[]);
    assert_eq!(lab.has(&b), ["192.0.2.0"]);
}

#[test]
fn an_address_that_left_its_pool_is_kept_and_reported() {
    let mut lab = Lab::new(&[("public", "addresses: [192.0.2.0/29]")]);
    let a = lab.service("a", "", V4);
    assert_eq!(lab.has(&a), ["192.0.2.0"]);
    lab.pools = Pools::new([pool("public", "addresses: [198.51.100.0/29]")], &[], BTreeSet::new());
    assert_eq!(lab.has(&a), ["192.0.2.0"]);
    assert!(lab.problem(&a).contains("belongs to no LoadBalancerPool"));
}

#[test]
fn overlapping_pools_the_older_holds_and_ranges_of_pods_never() {
    let taken = [(
        range::Ranges::without(&[range::Range::from("10.244.0.0/16".parse::<ipnet::IpNet>().unwrap())], &[]),
        "IPPool pods".to_owned(),
    )];
    let pools = Pools::new(
        [
            pool("a", "addresses: [192.0.2.0/24]"),
            pool("b", "addresses: [192.0.2.128-192.0.3.4]"),
            pool("c", "addresses: [10.244.3.0/24]"),
            pool("d", "addresses: [192.0.2.9-192.0.2.1]"),
        ],
        &taken,
        BTreeSet::new(),
    );
    assert_eq!(pools.refusal("a"), None);
    let b = pools.refusal("b").unwrap();
    assert_eq!(
        (b.reason, b.message.as_str()),
        ("Overlaps", "192.0.2.128-192.0.3.4 overlaps LoadBalancerPool a; the older pool is used")
    );
    assert!(pools.refusal("c").unwrap().message.ends_with("overlaps IPPool pods"));
    assert_eq!(pools.refusal("d").unwrap().reason, "InvalidRange");
}
