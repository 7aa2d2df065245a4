use super::*;

/// A path of two ASes from an external peer.
fn path() -> Candidate {
    Candidate {
        key: Key { local_pref: 100, tail: 2 << 8, neighbor_as: 65001, flags: Key::EBGP, ..Key::default() },
        local: false,
        long_lived_stale: false,
        external: true,
        metric: 10,
        router_id: 5,
        peer_address: Some("192.0.2.5".parse().unwrap()),
        path_id: 0,
        place: 7,
    }
}

type Change = fn(&mut Candidate);

/// Each step: how a path gets better than another that is equal in all earlier steps, and worse in every later one.
const STEPS: [(BestPathReason, Change, Change); 12] = [
    (BestPathReason::LocallyOriginated, |c| c.local = true, |_| ()),
    (BestPathReason::NotLongLivedStale, |_| (), |c| c.long_lived_stale = true),
    (BestPathReason::LocalPref, |c| c.key.local_pref = 200, |_| ()),
    (BestPathReason::AsPathLength, |_| (), |c| c.key.tail += 1 << 8),
    (BestPathReason::Origin, |_| (), |c| c.key.tail += 2),
    (BestPathReason::Med, |_| (), |c| c.key.med = 1),
    (BestPathReason::ExternalOverInternal, |_| (), |c| c.external = false),
    (BestPathReason::IgpMetric, |_| (), |c| c.metric += 1),
    (BestPathReason::RouterId, |_| (), |c| c.router_id += 1),
    (BestPathReason::ClusterListLength, |_| (), |c| c.key.cluster_len = 1),
    (BestPathReason::PeerAddress, |_| (), |c| c.peer_address = Some("192.0.2.6".parse().unwrap())),
    (BestPathReason::PathId, |_| (), |c| c.path_id = 1),
];

#[test]
fn each_step_comes_before_all_that_follow() {
    for (at, (reason, better, worse)) in STEPS.iter().enumerate() {
        let (mut winner, mut loser) = (path(), path());
        (winner.place, loser.place) = (1, 2);
        better(&mut winner);
        worse(&mut loser);
        for (_, better, worse) in &STEPS[at + 1..] {
            better(&mut loser);
            worse(&mut winner);
        }
        for mut both in [vec![winner, loser], vec![loser, winner]] {
            let selection = select(&mut both, 1).unwrap();
            assert_eq!((selection.best.place, selection.reason), (1, *reason));
        }
        assert_eq!(beaten_by(&winner, &loser), *reason);
    }
}

#[test]
fn nothing_and_one() {
    assert_eq!(select(&mut Vec::new(), 16), None);
    let only = select(&mut vec![path()], 16).unwrap();
    assert_eq!((only.reason, only.multipath), (BestPathReason::OnlyPath, 1));
}

/// Two routers with an AS each: other AS, other MED, other address, same length.
#[test]
fn multipath_compares_the_length_of_the_path_not_its_content() {
    let (mut a, mut b) = (path(), path());
    (a.place, a.router_id) = (1, 1);
    (b.place, b.router_id, b.key.neighbor_as, b.key.med, b.key.next_hop) = (2, 2, 65002, 50, 1);
    let mut both = vec![b, a];
    let selection = select(&mut both, 16).unwrap();
    assert_eq!((selection.best.place, selection.multipath), (1, 2));
    assert_eq!(both.iter().map(|c| c.place).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(select(&mut vec![b, a], 1).unwrap().multipath, 1);
    assert_eq!(select(&mut vec![b, a], 0).unwrap().multipath, 1);
}

#[test]
fn what_loses_before_the_tie_is_no_member() {
    let steps: [Change; 7] = [
        |c| c.key.local_pref = 99,
        |c| c.key.tail += 1 << 8,
        |c| c.key.tail += 1,
        |c| c.key.med = 1,
        |c| c.external = false,
        |c| c.metric = 11,
        |c| c.long_lived_stale = true,
    ];
    for worse in steps {
        let mut loser = path();
        worse(&mut loser);
        assert_eq!(select(&mut vec![path(), loser], 16).unwrap().multipath, 1);
    }
}

/// RFC 4271 §9.1.2.2 (c): the classic case where comparing in pairs depends on the order.
#[test]
fn med_is_compared_within_an_as_whatever_the_order() {
    let (mut a, mut b, mut c) = (path(), path(), path());
    (a.place, a.key.neighbor_as, a.key.med, a.router_id) = (1, 1, 0, 3);
    (b.place, b.key.neighbor_as, b.key.med, b.router_id) = (2, 1, 10, 1);
    (c.place, c.key.neighbor_as, c.key.med, c.router_id) = (3, 2, 5, 2);
    for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
        let mut candidates = order.to_vec();
        let selection = select(&mut candidates, 16).unwrap();
        assert_eq!((selection.best.place, selection.multipath), (3, 2), "{order:?}");
    }
}

/// The rule as it is written, path by path, against the one that sorts: any number of paths and of ASes.
#[test]
fn med_removes_whatever_is_beaten_within_its_as() {
    let mut state = 3u64;
    let mut below = |n: u64| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        u32::try_from((state >> 33) % n).unwrap()
    };
    for round in 0..2000 {
        let mut paths = Vec::new();
        for place in 0..below(if round % 50 == 0 { 300 } else { 12 }) {
            let mut one = path();
            one.place = place;
            (one.key.neighbor_as, one.key.med) = (below(4), below(5));
            paths.push(one);
        }
        let beats =
            |a: &Candidate, b: &Candidate| a.key.neighbor_as == b.key.neighbor_as && a.key.med < b.key.med;
        let stays = |loser: &&Candidate| !paths.iter().any(|one| beats(one, loser));
        let mut expected: Vec<Candidate> = paths.iter().filter(stays).copied().collect();
        let (mut kept, mut settled) = (paths.clone(), BestPathReason::OnlyPath);
        keep_lowest_med(&mut kept, &mut settled);
        kept.sort_unstable_by_key(|one| one.place);
        expected.sort_unstable_by_key(|one| one.place);
        assert_eq!(kept, expected);
        assert_eq!(settled == BestPathReason::Med, kept.len() < paths.len());
    }
}

/// Two reflectors tell the same three paths: each next hop counts once.
#[test]
fn multipath_counts_next_hops_not_paths() {
    let mut paths = Vec::new();
    for place in 0..6 {
        let mut one = path();
        (one.place, one.router_id, one.key.next_hop) = (place, place / 2, place / 2);
        paths.push(one);
    }
    for (most, kept) in [(1, 2), (2, 4), (3, 6), (16, 6)] {
        let mut candidates = paths.clone();
        assert_eq!(select(&mut candidates, most).unwrap().multipath, kept);
        assert_eq!(candidates, paths[..kept]);
    }
}

/// By its definition: each is the best one where those before it are not there.
#[test]
fn a_ranking_is_what_repeated_decisions_say() {
    let mut state = 7u64;
    let mut below = |n: u64| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        u32::try_from((state >> 33) % n).unwrap()
    };
    for _ in 0..3000 {
        let mut paths = Vec::new();
        for place in 0..below(9) {
            let mut one = path();
            (one.place, one.local, one.long_lived_stale) = (place, below(9) == 0, below(6) == 0);
            one.key.tail = (1 + below(2)) << 8 | below(2);
            (one.key.local_pref, one.key.med, one.key.neighbor_as) = (100 + below(2), below(3), below(3));
            (one.external, one.metric, one.router_id, one.path_id) =
                (below(3) > 0, below(2), below(3), below(2));
            paths.push(one);
        }
        let (mut rest, mut expected) = (paths.clone(), Vec::new());
        while let Some(selection) = select(&mut rest.clone(), 1) {
            rest.retain(|one| one.place != selection.best.place);
            expected.push(selection.best);
        }
        rank(&mut paths);
        assert_eq!(paths, expected);
    }
}

#[test]
fn a_route_of_our_own_shares_with_nobody() {
    let mut own = path();
    own.local = true;
    assert_eq!(select(&mut vec![own, path()], 16).unwrap().multipath, 1);
}
