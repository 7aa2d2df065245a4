#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn view(peer: Option<u16>, status: PathStatus) -> PathView {
    PathView {
        prefix: "10.244.17.0/26".parse().unwrap(),
        peer: peer.map(PeerId),
        status,
        stale: false,
        path_id: None,
        next_hop: Some("10.0.13.3".parse().unwrap()),
        local_pref: 100,
        med: 0,
        as_path_len: 1,
        // AS_PATH 65013.
        attributes: vec![0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xf5],
        rule: None,
    }
}

fn name(id: PeerId) -> String {
    format!("tor-{}", id.0)
}

fn said(views: &[PathView]) -> Option<String> {
    best(views, name).map(|best| best.text)
}

#[test]
fn the_step_that_settled_the_decision_is_named() {
    let reason = BestPathReason::RouterId;
    let rejected = PathStatus::Rejected(ImportRejection::OutsidePools);
    let only = PathStatus::Best(BestPathReason::OnlyPath);
    assert_eq!(said(&[]), None);
    assert_eq!(said(&[view(Some(1), rejected)]), None);
    assert_eq!(said(&[view(None, only)]).as_deref(), Some("the only path"));
    assert_eq!(said(&[view(Some(1), only)]).as_deref(), Some("tor-1: the only path"));
    let one = [view(Some(1), only), view(Some(2), rejected)];
    assert_eq!(said(&one).as_deref(), Some("tor-1: the only accepted path"));
    let both = [view(Some(1), PathStatus::Best(reason)), view(Some(2), PathStatus::Multipath)];
    assert_eq!(said(&both).as_deref(), Some("tor-1 before tor-2: lower router id; both used (multipath)"));
    // The one that fell at an earlier step is not the runner-up.
    let three = [
        view(Some(3), PathStatus::Beaten(BestPathReason::LocalPref)),
        view(Some(2), PathStatus::Beaten(BestPathReason::Med)),
        view(Some(1), PathStatus::Best(BestPathReason::Med)),
    ];
    assert_eq!(said(&three).as_deref(), Some("tor-1 before tor-2: lower MED"));
}

#[test]
fn what_was_received_says_what_became_of_it_the_used_first() {
    let mut filtered = view(Some(4), PathStatus::Rejected(ImportRejection::Filter));
    filtered.rule = Some("BGPFilter from-lab import \"no-pods\"".into());
    let views = [
        filtered,
        view(Some(3), PathStatus::NextHopUnreachable),
        view(Some(2), PathStatus::Beaten(BestPathReason::AsPathLength)),
        view(Some(1), PathStatus::Best(BestPathReason::AsPathLength)),
        view(None, PathStatus::Beaten(BestPathReason::LocalPref)),
    ];
    let rows = received(&views, name, "inside pool default-ipv4");
    let shown: Vec<(&str, &str, bool)> =
        rows.iter().map(|row| (row.from.as_str(), row.why.as_str(), row.best)).collect();
    assert_eq!(
        shown,
        [
            ("tor-1", "inside pool default-ipv4", true),
            ("tor-2", "inside pool default-ipv4; not used: shorter AS path", false),
            ("tor-3", "inside pool default-ipv4; not used: its next hop has no route", false),
            ("tor-4", "BGPFilter from-lab import \"no-pods\"", false),
        ]
    );
    assert_eq!((rows[0].as_path.as_str(), rows[1].beaten_by.as_deref()), ("65013", Some("ASPathLength")));
}

#[test]
fn a_peer_is_told_a_next_hop_of_its_family() {
    let route = |next_hop: &[u8], attributes: &[u8]| AdvertisedRoute {
        prefix: "10.244.17.0/26".parse().unwrap(),
        source: None,
        path_id: None,
        next_hop: next_hop.to_vec(),
        attributes: attributes.to_vec(),
    };
    let four = route(&[], &[0x40, 1, 1, 0, 0x40, 3, 4, 10, 0, 0, 9]);
    assert_eq!(next_hop(&four), Some("10.0.0.9".parse().unwrap()));
    let mut both = [0; 32];
    (both[0], both[15], both[16]) = (0xfd, 9, 0xfe);
    assert_eq!(next_hop(&route(&both, &[])), Some("fd00::9".parse().unwrap()));
    let withheld = ExportView { told: Err(Withheld::NoTransit), rule: None };
    let row = sent("lab", &withheld).unwrap_err();
    assert_eq!((row.reason.as_str(), row.why.as_str()), ("NoTransit", "learned, and transit is false"));
}
