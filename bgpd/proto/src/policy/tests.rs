use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A node with one block of a pool, one address of it lent to another node, and two addresses of its own.
fn policy() -> ImportPolicy {
    ImportPolicy {
        within: [net("10.244.0.0/16"), net("fd00:244::/48")].into(),
        never: [net("10.244.7.0/26"), net("10.244.99.1/32"), net("192.0.2.1/32")].into(),
        except: [net("10.244.7.9/32")].into(),
        default_route: true,
        ..ImportPolicy::default()
    }
}

#[test]
fn each_prefix_gets_its_verdict() {
    let cases = [
        ("10.244.3.0/26", None),
        ("10.244.0.0/16", None),
        ("10.0.0.0/8", Some(ImportRejection::OutsidePools)),
        ("172.16.0.0/12", Some(ImportRejection::OutsidePools)),
        ("fd00:244:0:1::/122", None),
        ("fd00:245::/64", Some(ImportRejection::OutsidePools)),
        ("0.0.0.0/0", None),
        ("::/0", None),
        ("10.244.7.0/26", Some(ImportRejection::OwnBlock)),
        ("10.244.7.8/32", Some(ImportRejection::OwnBlock)),
        ("10.244.7.0/24", None),
        ("10.244.7.9/32", None),
        ("10.244.7.8/31", Some(ImportRejection::OwnBlock)),
        ("10.244.99.1/32", Some(ImportRejection::OwnAddress)),
        ("192.0.2.1/32", Some(ImportRejection::OwnAddress)),
    ];
    for (prefix, expected) in cases {
        assert_eq!(policy().refuses(&net(prefix)), expected, "{prefix}");
    }
}

#[test]
fn nothing_is_implicit() {
    let none = ImportPolicy::default();
    assert_eq!(none.refuses(&net("10.0.0.0/8")), Some(ImportRejection::OutsidePools));
    assert_eq!(none.refuses(&net("0.0.0.0/0")), Some(ImportRejection::DefaultRoute));
    let all = ImportPolicy { never: policy().never, ..ImportPolicy::accept_all() };
    assert_eq!(all.refuses(&net("10.0.0.0/8")), None);
    assert_eq!(all.refuses(&net("2001:db8::/32")), None);
    assert_eq!(all.refuses(&net("0.0.0.0/0")), None);
    assert_eq!(all.refuses(&net("10.244.7.0/27")), Some(ImportRejection::OwnBlock));
}

#[test]
fn own_addresses_are_refused_as_next_hops() {
    let own = Some(ImportRejection::NextHopOwnAddress);
    assert_eq!(policy().refuses_next_hop("192.0.2.1".parse().unwrap()), own);
    assert_eq!(policy().refuses_next_hop("192.0.2.2".parse().unwrap()), None);
}
