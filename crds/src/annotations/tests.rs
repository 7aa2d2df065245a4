use super::*;

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn refused<T: std::fmt::Debug>(annotation: Annotation<T>, value: &str) -> String {
    annotation.parse(value).unwrap_err().to_string()
}

#[test]
fn what_does_not_parse_is_refused_with_key_and_value() {
    assert_eq!(
        refused(IP_POOLS, "a,,b"),
        "annotation manx.dev/ip-pools: invalid value \"a,,b\": must be names of IPPools, comma-separated"
    );
    assert_eq!(
        refused(IP_POOLS, "a,a"),
        "annotation manx.dev/ip-pools: invalid value \"a,a\": a is named twice"
    );
    for value in ["", "IPv5", "IPv4,IPv4", "ipv4"] {
        assert_eq!(
            refused(IP_FAMILIES, value),
            format!(
                "annotation manx.dev/ip-families: invalid value {value:?}: must be IPv4, IPv6 or IPv4,IPv6"
            )
        );
    }
    assert_eq!(
        refused(IP_ADDRESSES, "10.0.0.1,10.0.0.2"),
        "annotation manx.dev/ip-addresses: invalid value \"10.0.0.1,10.0.0.2\": two IPv4 addresses; must be at most one a family"
    );
    assert_eq!(
        refused(LOAD_BALANCER_IPS, "10.0.0.300"),
        "annotation manx.dev/load-balancer-ips: invalid value \"10.0.0.300\": \"10.0.0.300\" is no address; must be at most one IPv4 and one IPv6 address"
    );
    assert_eq!(
        refused(ALLOWED_SOURCE_PREFIXES, "10.0.0.0/8,10.1.2.3/16"),
        "annotation manx.dev/allowed-source-prefixes: invalid value \"10.0.0.0/8,10.1.2.3/16\": \"10.1.2.3/16\" must be a CIDR in canonical form with no host bits set, such as 10.244.0.0/16 or fd00:10::/48"
    );
    for value in ["", "Public", "a b", "-a"] {
        assert_eq!(
            refused(LOAD_BALANCER_POOL, value),
            format!(
                "annotation manx.dev/load-balancer-pool: invalid value {value:?}: must be the name of a LoadBalancerPool"
            )
        );
    }
    for value in ["", "one", "-1", "1.0"] {
        assert_eq!(
            refused(SCHEMA_REVISION, value),
            format!("annotation manx.dev/schema-revision: invalid value {value:?}: must be an integer")
        );
    }
}

#[test]
fn values_are_typed() {
    assert_eq!(IP_POOLS.parse("b, a").unwrap(), ["b", "a"]);
    assert_eq!(IP_FAMILIES.parse("IPv6,IPv4").unwrap(), [IpFamily::IPv4, IpFamily::IPv6]);
    let addresses = LOAD_BALANCER_IPS.parse("2001:db8::7, 192.0.2.7").unwrap();
    let text: Vec<String> = addresses.iter().map(|ip| ip.to_string()).collect();
    assert_eq!(text, ["192.0.2.7", "2001:db8::7"]);
    assert_eq!(IP_ADDRESSES.parse("192.0.2.7").unwrap().ipv6, None);
    assert_eq!(LOAD_BALANCER_POOL.parse("public").unwrap(), "public");
    assert_eq!(SHARED_ADDRESS_KEY.parse("any, text").unwrap(), "any, text");
    assert_eq!(SCHEMA_REVISION.parse("1").unwrap(), 1);
}

#[test]
fn any_mode_but_audit_enforces() {
    assert_eq!(MODE.parse("Audit").unwrap(), PolicyMode::Audit);
    for value in ["", "audit", "Enforce", "Shadow"] {
        assert_eq!(MODE.parse(value).unwrap(), PolicyMode::Enforce, "{value}");
    }
}

#[test]
fn the_value_of_the_pod_replaces_that_of_the_namespace() {
    let namespace = map(&[(IP_POOLS.key, "a"), (IP_FAMILIES.key, "none")]);
    let pod = map(&[(IP_POOLS.key, "b")]);
    let read = |pod: &BTreeMap<String, String>| IP_POOLS.read_pod(Some(pod), Some(&namespace)).unwrap();
    assert_eq!(read(&pod), Some(vec!["b".to_owned()]));
    assert_eq!(read(&map(&[])), Some(vec!["a".to_owned()]));
    assert_eq!(IP_POOLS.read_pod(None, None), Ok(None));
    assert!(IP_FAMILIES.read_pod(Some(&pod), Some(&namespace)).is_err());
    let own = map(&[(IP_FAMILIES.key, "IPv4")]);
    assert_eq!(IP_FAMILIES.read_pod(Some(&own), Some(&namespace)), Ok(Some(vec![IpFamily::IPv4])));
}

#[test]
fn a_pod_sends_from_what_its_namespace_lists_or_a_part_of_it() {
    let key = ALLOWED_SOURCE_PREFIXES.key;
    let namespace = map(&[(key, "10.0.0.0/8,fd00::/48")]);
    let of = |pod: &BTreeMap<String, String>, namespace: Option<&BTreeMap<String, String>>| {
        allowed_source_prefixes(Some(pod), namespace)
            .map(|cidrs| cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            .map_err(|error| error.to_string())
    };
    assert_eq!(of(&map(&[]), Some(&namespace)), Ok("10.0.0.0/8 fd00::/48".to_owned()));
    assert_eq!(of(&map(&[]), None), Ok(String::new()));
    assert_eq!(of(&map(&[(key, "10.1.0.0/16")]), Some(&namespace)), Ok("10.1.0.0/16".to_owned()));
    for listed in [Some(&namespace), None] {
        let error = of(&map(&[(key, "11.0.0.0/8")]), listed).unwrap_err();
        assert_eq!(
            error,
            "annotation manx.dev/allowed-source-prefixes: invalid value \"11.0.0.0/8\": 11.0.0.0/8 must lie inside what manx.dev/allowed-source-prefixes lists on the pod's Namespace"
        );
    }
}
