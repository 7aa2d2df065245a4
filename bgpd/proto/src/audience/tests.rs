use super::*;

fn only(peers: &[&str]) -> Audience {
    Audience::Only(peers.iter().map(|peer| PeerName::from(*peer)).collect())
}

fn route(med: u32, audience: Audience) -> OwnRoute {
    OwnRoute { med: Some(med), audience, ..OwnRoute::default() }
}

/// What the RIB tells a peer: the route of the tag it takes.
fn told(audiences: &Audiences, origination: &Origination, peer: &str) -> Option<u32> {
    let tags = audiences.tags_of(&PeerName::from(peer));
    let mut routes = origination.exports.iter().filter(|(tag, _)| tags.contains(tag));
    let first = routes.next()?.1.med;
    assert!(routes.next().is_none(), "{peer} takes two tags of one prefix");
    first
}

#[test]
fn the_first_route_whose_audience_holds_a_peer_counts() {
    let mut audiences = Audiences::default();
    let (origination, is_new) = audiences.acquire(&[
        route(1, only(&["a", "b"])),
        route(2, only(&["b", "c"])),
        route(3, Audience::All),
        route(4, only(&["d"])),
    ]);
    assert!(is_new);
    for (peer, med) in [("a", 1), ("b", 1), ("c", 2), ("d", 3), ("new", 3)] {
        assert_eq!(told(&audiences, &origination, peer), Some(med), "{peer}");
    }
}

#[test]
fn nobody_is_told_of_a_prefix_without_routes() {
    let mut audiences = Audiences::default();
    let (origination, is_new) = audiences.acquire(&[]);
    assert!(origination.exports.is_empty() && !is_new);
}

#[test]
fn equal_audiences_share_a_tag_until_the_last_is_gone() {
    let mut audiences = Audiences::default();
    let routes = [route(1, only(&["a"]))];
    let (first, is_new) = audiences.acquire(&routes);
    assert!(is_new);
    let (second, is_new) = audiences.acquire(&routes);
    assert!(!is_new && first == second);
    audiences.release(&routes);
    assert_eq!(audiences.tags_of(&PeerName::from("a")).len(), 1);
    audiences.release(&routes);
    assert!(audiences.tags_of(&PeerName::from("a")).is_empty());
    assert_ne!(audiences.acquire(&routes).0, first, "a tag is not used again for other peers");
}
