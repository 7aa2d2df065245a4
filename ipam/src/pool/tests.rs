use std::collections::BTreeSet;

use manx_crds::annotations::{IP_ADDRESSES, IP_FAMILIES, IP_POOLS};
use manx_crds::v1alpha1::IPPool;

use super::*;

fn pool(yaml: &str) -> Pool {
    let object: IPPool = serde_json::from_value(json(yaml)).unwrap();
    Pool::try_from(&object).unwrap()
}

/// `name cidr` and further fields of spec as JSON.
fn json(text: &str) -> serde_json::Value {
    let mut words = text.splitn(3, ' ');
    let (name, cidr) = (words.next().unwrap(), words.next().unwrap());
    let mut spec: serde_json::Value = serde_json::from_str(words.next().unwrap_or("{}")).unwrap();
    spec["cidr"] = cidr.into();
    serde_json::json!({"apiVersion": "manx.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": name}, "spec": spec})
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn serving(pools: &Pools, asking: &Asking<'_>) -> (Vec<String>, BTreeMap<String, String>) {
    let (serving, refused) = pools.serving(Family::Ipv4, asking);
    let names = serving.into_iter().map(|pool| pool.name.clone()).collect();
    (names, refused.into_iter().map(|(name, refusal)| (name, refusal.to_string())).collect())
}

#[test]
fn every_block_is_a_candidate_once_and_nodes_begin_apart() {
    for text in ["default-ipv4 10.244.0.0/16", "small 10.0.0.0/26", "six fd00:10:244::/112"] {
        let pool = pool(text);
        let mut firsts = BTreeSet::new();
        for node in 0..50 {
            let order: Vec<IpNet> = pool.candidates(&format!("worker-{node}")).collect();
            let distinct: BTreeSet<&IpNet> = order.iter().collect();
            assert_eq!(order.len() as u128, pool.block_count(), "{text}");
            assert_eq!(distinct.len(), order.len());
            assert!(
                order.iter().all(|block| pool.cidr.contains(block) && block.prefix_len() == pool.block_size)
            );
            firsts.insert(order[0]);
        }
        let apart = usize::try_from(pool.block_count().min(45)).unwrap();
        assert!(firsts.len() >= apart, "{text}: 50 nodes begin at {} places", firsts.len());
    }
}

#[test]
fn the_order_of_candidates_never_changes() {
    let order: Vec<String> = pool("default-ipv4 10.244.0.0/16")
        .candidates("worker-12")
        .take(3)
        .map(|block| block.to_string())
        .collect();
    assert_eq!(order, ["10.244.165.192/26", "10.244.222.0/26", "10.244.22.64/26"]);
}

#[test]
fn a_pool_too_large_to_try_is_tried_in_part_and_says_so() {
    let pool = pool("six fd00::/48");
    assert_eq!(pool.candidates("n").count(), 4_096);
    assert_eq!(pool.exhausted().to_string(), "none of 4096 blocks tried is free, borrowing Never");
}

#[test]
fn blocks_that_are_excluded_whole_are_no_candidates() {
    let pool = pool(r#"p 10.0.0.0/24 {"excluded": ["10.0.0.0/25", "10.0.0.128/27"]}"#);
    let order: BTreeSet<String> = pool.candidates("n").map(|block| block.to_string()).collect();
    assert_eq!(order.into_iter().collect::<Vec<_>>(), ["10.0.0.128/26", "10.0.0.192/26"]);
}

#[test]
fn every_refusal_has_its_reason() {
    let pools = Pools::new([
        pool("a 10.0.0.0/24"),
        pool(r#"b 10.1.0.0/24 {"nodeSelector": {"matchLabels": {"rack": "12"}}}"#),
        pool(r#"c 10.2.0.0/24 {"namespaceSelector": {"matchLabels": {"network": "db"}}}"#),
        pool(r#"d 10.3.0.0/24 {"assignment": "Manual"}"#),
        pool(r#"e 10.4.0.0/24 {"assignment": "None"}"#),
        Pool { terminating: true, ..pool("f 10.5.0.0/24") },
        pool("g fd00::/64"),
    ]);
    let (names, refused) = serving(&pools, &Asking::default());
    assert_eq!(names, ["a"]);
    let reasons: Vec<(&str, &str)> =
        refused.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(
        reasons,
        [
            ("b", "nodeSelector does not match"),
            ("c", "namespaceSelector does not match"),
            ("d", "assignment Manual: only pods that name it"),
            ("e", "assignment None"),
            ("f", "the pool is being deleted"),
        ]
    );
    let (rack, network) = (labels(&[("rack", "12")]), labels(&[("network", "db")]));
    let asking = Asking { node_labels: Some(&rack), namespace_labels: Some(&network), wanted: None };
    assert_eq!(serving(&pools, &asking).0, ["a", "b", "c"]);
    let named = Wanted { pools: Some(vec!["d".into(), "b".into(), "e".into()]), ..Wanted::default() };
    let asking = Asking { wanted: Some(&named), ..Asking::default() };
    let (names, refused) = serving(&pools, &asking);
    assert_eq!(names, ["d", "b"], "as the pod names them, whatever the selectors say");
    assert_eq!(refused["a"], "not named by manx.dev/ip-pools");
    assert_eq!(refused["e"], "assignment None");
}

#[test]
fn of_overlapping_pools_the_older_is_used() {
    let at = |second, text| Pool { created: Timestamp::from_second(second).ok(), ..pool(text) };
    let pools = Pools::new([
        at(9, "a 10.0.0.0/16"),
        at(5, "b 10.0.1.0/24"),
        at(7, "c 10.0.0.0/20"),
        at(8, "d 10.9.0.0/16"),
    ]);
    let (names, refused) = serving(&pools, &Asking::default());
    assert_eq!(names, ["b", "d"]);
    assert_eq!(refused["a"], "overlaps the older IPPool b, which is used");
    assert_eq!(pools.holding("10.0.1.7/32".parse().unwrap()).map(|pool| pool.name.as_str()), Some("b"));
    assert_eq!(pools.holding("10.0.9.7/32".parse().unwrap()), None);
}

#[test]
fn a_spare_block_is_kept_where_any_pod_may_need_it() {
    let none = BTreeMap::new();
    let prepares = |text: &str, in_use| Pools::new([pool(text)]).prepares(&pool(text), &none, in_use);
    assert!(prepares("a 10.0.0.0/24", false));
    let narrow = r#"a 10.0.0.0/24 {"namespaceSelector": {"matchLabels": {"network": "db"}}}"#;
    assert!(!prepares(narrow, false) && prepares(narrow, true));
    let manual = r#"a 10.0.0.0/24 {"assignment": "Manual"}"#;
    assert!(!prepares(manual, false) && prepares(manual, true));
    assert!(!prepares(r#"a 10.0.0.0/24 {"assignment": "None"}"#, true));
    assert!(!prepares(r#"a 10.0.0.0/24 {"nodeSelector": {"matchLabels": {"rack": "1"}}}"#, true));
}

#[test]
fn annotations_of_the_pod_replace_those_of_the_namespace_key_by_key() {
    let namespace = labels(&[(IP_POOLS.key, "a"), (IP_FAMILIES.key, "IPv4"), (IP_ADDRESSES.key, "10.0.0.1")]);
    let pod = labels(&[(IP_POOLS.key, "b, c")]);
    let wanted = Wanted::parse(&pod, &namespace).unwrap();
    assert_eq!(wanted.pools, Some(vec!["b".into(), "c".into()]));
    assert_eq!(wanted.families, Some(vec![Family::Ipv4]));
    assert!(wanted.addresses.is_empty(), "an address on a namespace would be every pod's");
    let fixed = Wanted::parse(&labels(&[(IP_ADDRESSES.key, "fd00::7,10.0.0.7")]), &labels(&[])).unwrap();
    assert_eq!(fixed.addresses.len(), 2);
}

#[test]
fn what_does_not_parse_is_refused_with_key_and_value() {
    for (key, value, text) in [
        (
            IP_POOLS.key,
            "a,,b",
            "annotation manx.dev/ip-pools: invalid value \"a,,b\": must be names of IPPools, comma-separated",
        ),
        (IP_POOLS.key, "a,a", "annotation manx.dev/ip-pools: invalid value \"a,a\": a is named twice"),
        (
            IP_FAMILIES.key,
            "IPv5",
            "annotation manx.dev/ip-families: invalid value \"IPv5\": must be IPv4, IPv6 or IPv4,IPv6",
        ),
        (
            IP_FAMILIES.key,
            "",
            "annotation manx.dev/ip-families: invalid value \"\": must be IPv4, IPv6 or IPv4,IPv6",
        ),
        (
            IP_ADDRESSES.key,
            "10.0.0.300",
            "annotation manx.dev/ip-addresses: invalid value \"10.0.0.300\": \"10.0.0.300\" is no address; must be at most one IPv4 and one IPv6 address",
        ),
        (
            IP_ADDRESSES.key,
            "10.0.0.1,10.0.0.2",
            "annotation manx.dev/ip-addresses: invalid value \"10.0.0.1,10.0.0.2\": two IPv4 addresses; must be at most one a family",
        ),
    ] {
        let refused = Wanted::parse(&labels(&[(key, value)]), &labels(&[])).unwrap_err();
        assert_eq!(refused.to_string(), text);
    }
    let contradiction = labels(&[(IP_FAMILIES.key, "IPv6"), (IP_ADDRESSES.key, "10.0.0.1")]);
    assert!(Wanted::parse(&contradiction, &labels(&[])).is_err());
    let unknown = Wanted { pools: Some(vec!["x".into()]), ..Wanted::default() };
    let refused = unknown.check(&Pools::default()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "annotation manx.dev/ip-pools: invalid value \"x\": there is no IPPool x"
    );
}

#[test]
fn no_address_says_which_pool_why_not_and_what_would_help() {
    let error = NoAddress {
        family: Family::Ipv4,
        namespace: "shop".into(),
        pod: "web-1".into(),
        node: "worker-12".into(),
        pools: vec![
            ("default-ipv4".into(), pool("default-ipv4 10.244.0.0/16").exhausted()),
            ("db".into(), Refusal::NodeSelector),
        ],
    };
    assert_eq!(
        error.to_string(),
        "no IPv4 address for shop/web-1 on worker-12: default-ipv4: all 1024 blocks claimed, borrowing Never; \
         db: nodeSelector does not match. Add an IPPool, or allow borrowing"
    );
    let empty = NoAddress { pools: Vec::new(), ..error };
    assert_eq!(
        empty.to_string(),
        "no IPv4 address for shop/web-1 on worker-12: no IPPool has the family IPv4. Add an IPPool"
    );
}

#[test]
fn a_pool_that_validation_should_have_refused_is_left_out() {
    for text in [
        r#"p 10.0.0.0/16 {"blockSize": 20}"#,
        r#"p fd00::/64 {"blockSize": 26}"#,
        "p 10.0.0.0/28",
        r#"p 10.0.0.0/16 {"assignment": "Later"}"#,
    ] {
        let object: IPPool = serde_json::from_value(json(text)).unwrap();
        assert!(Pool::try_from(&object).is_err(), "{text}");
    }
}
