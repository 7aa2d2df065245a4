use super::*;
use crate::owner::Sandbox;

fn pod(name: &str, sandbox: &str) -> Owner {
    Owner::Pod(PodOwner {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        sandbox: Sandbox::of(sandbox),
        interface: "eth0".into(),
    })
}

fn block(cidr: &str) -> Block {
    Block::new(cidr.parse().unwrap(), "default-ipv4").unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const MINUTE: SignedDuration = SignedDuration::from_secs(60);

#[test]
fn every_address_is_given_once_the_first_and_the_last_too() {
    for (cidr, count) in
        [("10.244.17.0/26", 64), ("10.244.0.0/24", 256), ("fd00:10::40/122", 64), ("10.0.0.1/32", 1)]
    {
        let mut block = block(cidr);
        let mut given: Vec<IpAddr> = Vec::new();
        while let Some(ip) = block.assign(pod("web", "one"), &[]) {
            given.push(ip);
        }
        let net = block.cidr();
        assert_eq!(given.len(), count, "{cidr}");
        assert_eq!(given.first(), Some(&net.network()));
        assert_eq!(given.last(), Some(&net.broadcast()));
        given.dedup();
        assert_eq!(given.len(), count);
        assert!(given.iter().all(|ip| net.contains(ip)));
    }
}

#[test]
fn a_block_of_more_than_256_addresses_is_refused() {
    assert!(Block::new("10.0.0.0/23".parse().unwrap(), "p").is_err());
    assert!(Block::new("fd00::/119".parse().unwrap(), "p").is_err());
}

#[test]
fn the_oldest_free_address_comes_first() {
    let mut block = block("10.0.0.0/30");
    let first = block.assign(pod("a", "a"), &[]).unwrap();
    assert_eq!(first, ip("10.0.0.0"));
    assert_eq!(block.release(first, &pod("a", "a"), at(0)), Released::Now);
    block.expire(at(1), MINUTE);
    assert_eq!(block.assign(pod("b", "b"), &[]), Some(ip("10.0.0.1")));
    assert_eq!(block.assign(pod("c", "c"), &[]), Some(ip("10.0.0.2")));
    assert_eq!(block.assign(pod("d", "d"), &[]), Some(ip("10.0.0.3")));
    assert_eq!(block.assign(pod("e", "e"), &[]), Some(ip("10.0.0.0")));
}

#[test]
fn excluded_addresses_are_given_only_by_name() {
    let excluded: Vec<IpNet> = vec!["10.0.0.0/31".parse().unwrap()];
    let mut block = block("10.0.0.0/30");
    assert_eq!(block.assign(pod("a", "a"), &excluded), Some(ip("10.0.0.2")));
    assert_eq!(block.assign(pod("b", "b"), &excluded), Some(ip("10.0.0.3")));
    assert_eq!(block.assign(pod("c", "c"), &excluded), None);
    assert_eq!(block.assign_exactly(ip("10.0.0.1"), pod("c", "c")), Ok(()));
}

#[test]
fn exactly_this_address_is_given_once_and_to_the_same_owner_again() {
    let mut block = block("10.0.0.0/30");
    let wanted = ip("10.0.0.2");
    assert_eq!(block.assign_exactly(wanted, pod("a", "one")), Ok(()));
    assert_eq!(block.assign_exactly(wanted, pod("a", "one")), Ok(()));
    let refused = block.assign_exactly(wanted, pod("a", "two")).unwrap_err();
    assert_eq!(refused.to_string(), "10.0.0.2 belongs to shop/a (sandbox one)");
    assert_eq!(block.assign_exactly(ip("10.0.0.9"), pod("a", "one")), Err(Taken::Outside(ip("10.0.0.9"))));
    assert_eq!(block.assign_exactly(ip("fd00::1"), pod("a", "one")), Err(Taken::Outside(ip("fd00::1"))));
}

#[test]
fn a_late_release_is_harmless() {
    let mut block = block("10.0.0.0/31");
    let given = block.assign(pod("a", "two"), &[]).unwrap();
    let before = block.clone();
    for stranger in [pod("a", "one"), pod("b", "two"), Owner::Tunnel] {
        assert_eq!(block.release(given, &stranger, at(60)), Released::NotYours);
    }
    assert_eq!(block.release(ip("10.0.0.1"), &pod("a", "two"), at(60)), Released::NotYours);
    assert_eq!(block.release(ip("10.9.9.9"), &pod("a", "two"), at(60)), Released::NotYours);
    assert_eq!(block, before);
    assert_eq!(block.release(given, &pod("a", "two"), at(60)), Released::Now);
    assert_eq!(block.release(given, &pod("a", "two"), at(90)), Released::NotYours);
}

#[test]
fn a_released_address_cools_down_and_can_be_had_by_name() {
    let mut block = block("10.0.0.0/32");
    let given = block.assign(pod("a", "a"), &[]).unwrap();
    block.release(given, &pod("a", "a"), at(160));
    assert!(!block.has_free(&[]));
    assert_eq!(block.next_expiry(), Some(at(160)));
    assert!(!block.expire(at(159), MINUTE));
    assert!(!block.is_empty());
    let mut named = block.clone();
    assert_eq!(named.assign_exactly(given, pod("a", "b")), Ok(()));
    assert!(block.expire(at(160), MINUTE));
    assert!(block.is_empty());
    assert_eq!(block.assign(pod("b", "b"), &[]), Some(given));
}

#[test]
fn a_clock_set_back_holds_no_address_longer_than_the_cooldown() {
    let mut block = block("10.0.0.0/32");
    let given = block.assign(pod("a", "a"), &[]).unwrap();
    block.release(given, &pod("a", "a"), at(7_260));
    assert!(!block.expire(at(0), MINUTE));
    assert_eq!(block.next_expiry(), Some(at(60)));
    assert!(block.expire(at(60), MINUTE));
}

#[test]
fn cooldown_ends_are_whole_seconds_as_the_object_stores_them() {
    let mut block = block("10.0.0.0/32");
    let given = block.assign(pod("a", "a"), &[]).unwrap();
    block.release(given, &pod("a", "a"), Timestamp::new(60, 1_000_000).unwrap());
    assert_eq!(block.cooling().next(), Some((given, at(61))));
}
