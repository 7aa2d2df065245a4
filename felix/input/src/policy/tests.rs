use super::*;

fn read(spec: &str) -> Translated {
    let object: NetworkPolicy = serde_saphyr::from_str(&format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: db, namespace: shop}}, spec: {spec}}}"
    ))
    .unwrap();
    network_policy(&object)
}

fn rules_left(translated: &Translated) -> Vec<u16> {
    let policy = &translated.policy;
    policy.ingress.iter().chain(&policy.egress).flatten().map(|rule| rule.index).collect()
}

/// Every rejected form, with the whole text that the Event quotes.
#[test]
fn what_cannot_be_honoured_is_named_and_its_rule_matches_nothing() {
    let cases = [
        (
            "from: [{ipBlock: {cidr: 10.0.0.300/24}}]",
            "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.300/24\": must be a CIDR such as 10.9.8.0/24 or 2001:db8::/64",
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 11.0.0.0/16]}}]",
            "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must lie inside 10.0.0.0/8 and be smaller",
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]",
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must lie inside 10.0.0.0/8 and be smaller",
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/64']}}]",
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"fd00::/64\": must lie inside 10.0.0.0/8 and be smaller",
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]",
            "spec.ingress[0].from[0]: Forbidden: ipBlock stands alone: it does not combine with namespaceSelector or podSelector",
        ),
        (
            "from: [{}]",
            "spec.ingress[0].from[0]: Required value: must have ipBlock, namespaceSelector or podSelector",
        ),
        (
            "from: [{podSelector: {}}, {podSelector: {matchExpressions: [{key: app, operator: Is}]}}]",
            "spec.ingress[0].from[1].podSelector.matchExpressions[0].operator: Invalid value: \"Is\": must be In, NotIn, Exists or DoesNotExist",
        ),
        (
            "from: [{namespaceSelector: {matchExpressions: [{key: 'a b', operator: DoesNotExist}]}}]",
            "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].key: Invalid value: \"a b\": must be a label key such as app or example.com/app",
        ),
        (
            "ports: [{port: 0}]",
            "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535",
        ),
        (
            "ports: [{port: 80}, {port: 70000}]",
            "spec.ingress[0].ports[1].port: Invalid value: 70000: must be between 1 and 65535",
        ),
        (
            "ports: [{port: 32000, endPort: 31000}]",
            "spec.ingress[0].ports[0].endPort: Invalid value: 31000: must not be below port",
        ),
        (
            "ports: [{endPort: 31000}]",
            "spec.ingress[0].ports[0].endPort: Forbidden: may not be given without port",
        ),
        (
            "ports: [{port: http, endPort: 31000}]",
            "spec.ingress[0].ports[0].endPort: Forbidden: may not be given with a named port",
        ),
        (
            "ports: [{port: '80-90'}]",
            "spec.ingress[0].ports[0].port: Invalid value: \"80-90\": must be a number, or a port name of at most 15 lower-case letters, digits and '-', with a letter",
        ),
        (
            "ports: [{port: 80, protocol: ICMP}]",
            "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
        ),
    ];
    for (bad, text) in cases {
        let read =
            read(&format!("{{podSelector: {{}}, ingress: [{{{bad}}}, {{from: [{{podSelector: {{}}}}]}}]}}"));
        assert_eq!(read.rejected.iter().map(|one| one.text.as_str()).collect::<Vec<_>>(), [text]);
        assert!(text.starts_with(&format!("{}: ", read.rejected[0].path)), "{}", read.rejected[0].path);
        assert_eq!(read.rejected[0].policy, read.key);
        // the rule is gone, its neighbour keeps the index its author sees, and the pods stay isolated
        assert_eq!(rules_left(&read), [1], "{bad}");
        assert_eq!(read.policy.applies_to.selector, Selector::All);
    }
}

#[test]
fn every_problem_of_a_rule_is_told_at_once() {
    let read = read(
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: x, except: [y]}}], ports: [{port: 0, protocol: GRE}]}]}",
    );
    let paths: Vec<&str> = read.rejected.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "spec.egress[0].to[0].ipBlock.cidr",
            "spec.egress[0].to[0].ipBlock.except[0]",
            "spec.egress[0].ports[0].protocol",
            "spec.egress[0].ports[0].port"
        ]
    );
    assert_eq!((read.policy.ingress, read.policy.egress), (None, Some(vec![])));
}

#[test]
fn a_policy_with_an_invalid_selector_of_its_own_selects_nobody() {
    let read = read("{podSelector: {matchExpressions: [{key: app, operator: In}]}, ingress: [{}]}");
    assert_eq!(
        read.rejected[0].text,
        "spec.podSelector.matchExpressions[0].values: Invalid value: \"\": must be given with the operators In and NotIn"
    );
    assert_eq!(read.policy.applies_to.selector, nothing());
}

#[test]
fn policy_types_default_by_the_rules_present() {
    for (spec, ingress, egress) in [
        ("{podSelector: {}}", true, false),
        ("{podSelector: {}, ingress: [{}]}", true, false),
        ("{podSelector: {}, egress: [{}]}", true, true),
        ("{podSelector: {}, egress: []}", true, false),
        ("{podSelector: {}, policyTypes: []}", true, false),
        ("{podSelector: {}, policyTypes: [Ingress], egress: [{}]}", true, false),
        ("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}", false, true),
        ("{podSelector: {}, policyTypes: [Egress, Ingress]}", true, true),
        ("{podSelector: {}, policyTypes: [Egres], egress: [{}]}", true, true),
        ("{podSelector: {}, policyTypes: [Egress, Ingres]}", true, true),
    ] {
        let policy = read(spec).policy;
        assert_eq!((policy.ingress.is_some(), policy.egress.is_some()), (ingress, egress), "{spec}");
    }
    assert_eq!(
        read("{policyTypes: [Egres]}").rejected[0].text,
        "spec.policyTypes[0]: Unsupported value: \"Egres\": supported values: \"Ingress\", \"Egress\""
    );
}

#[test]
fn ports_of_one_protocol_are_one_condition() {
    let read = read(
        "{ingress: [{ports: [{port: 80}, {port: 9000, endPort: 9010}, {port: http}, {port: 53, protocol: UDP}, {protocol: SCTP}, {port: 1, protocol: SCTP}]}]}",
    );
    let rules = read.policy.ingress.unwrap();
    let [tcp, udp, sctp] = rules[0].traffic.as_slice() else { panic!("{:?}", rules[0].traffic) };
    let ranges = |traffic: &felix_calc::Traffic| -> Vec<(u16, u16)> {
        traffic.ports.iter().map(|range| (range.first, range.last)).collect()
    };
    assert_eq!((tcp.protocol, ranges(tcp)), (Some(6), vec![(80, 80), (9000, 9010)]));
    assert!(tcp.port_names.contains("http"));
    assert_eq!((udp.protocol, ranges(udp)), (Some(17), vec![(53, 53)]));
    assert_eq!((sctp.protocol, ranges(sctp)), (Some(132), vec![]), "the whole protocol was named, too");
}

#[test]
fn host_bits_are_legal_upstream_and_mean_the_network() {
    let read = read("{ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8}}]}]}");
    assert_eq!(read.rejected, []);
    assert_eq!(read.policy.ingress.unwrap()[0].peers[0].nets, ["10.0.0.0/8".parse().unwrap()]);
}

#[test]
fn a_policy_that_asks_for_audit_is_enforced_and_says_so() {
    let object: NetworkPolicy = serde_saphyr::from_str(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: shop, annotations: {manx.dev/mode: Audit}}, spec: {podSelector: {}}}",
    )
    .unwrap();
    let read = network_policy(&object);
    assert_eq!(read.policy.ingress, Some(vec![]));
    assert_eq!(
        read.rejected[0].text,
        "metadata.annotations[manx.dev/mode]: Invalid value: \"Audit\": is not supported by this version: the policy is enforced"
    );
}

#[test]
fn tier_order_and_key_are_those_of_the_kind() {
    let read = read("{podSelector: {matchLabels: {app: db}}}");
    assert_eq!(read.key.to_string(), "netpol shop/db");
    assert_eq!((read.policy.tier.as_str(), read.policy.order), ("default", Some(1000)));
    assert_eq!(read.policy.applies_to.namespaces, Namespaces::One("shop".into()));
}
