#![allow(clippy::unwrap_used)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use manx_crds::report::{BestRow, Header, OriginatedRow, SilentRow, Source};
use manx_crds::v1alpha1::SessionState;

use super::*;

const NOW: i64 = 1_800_000_000;

fn report(nodes: Vec<BgpdExplanation>) -> BGPExplainReport {
    let time = Time(Timestamp::from_second(NOW).unwrap());
    BGPExplainReport {
        header: Header::new("BGPExplainReport", Source::Kubernetes, time),
        prefix: "10.244.17.0/26".to_owned(),
        owner: "IPBlock of default-ipv4, claimed by worker-12 41d ago".to_owned(),
        owner_node: Some("worker-12".to_owned()),
        nodes,
    }
}

fn silent(peer: &str, state: SessionState, reason: &str, ago: Option<i64>) -> SilentRow {
    let lost = ago.map(|ago| Time(Timestamp::from_second(NOW - ago).unwrap()));
    SilentRow { peer: peer.to_owned(), state, reason: reason.to_owned(), lost }
}

fn not_sent(peer: &str, reason: &str, why: &str) -> NotSentRow {
    NotSentRow { peer: peer.to_owned(), reason: reason.to_owned(), why: why.to_owned() }
}

fn owner() -> BgpdExplanation {
    BgpdExplanation {
        node: "worker-12".to_owned(),
        prefix: "10.244.17.0/26".to_owned(),
        originated: Some(OriginatedRow {
            sources: vec!["Block".to_owned()],
            advertisements: vec!["pool-blocks".to_owned()],
            block: true,
        }),
        silent: vec![silent("r12-tor-b", SessionState::Connect, "ConnectionTimedOut", Some(240))],
        peers: 2,
        best: Some(BestRow { from: None, reason: "OnlyPath".to_owned(), text: "the only path".to_owned() }),
        sent_to: vec![SentRow {
            peer: "r12-tor-a".to_owned(),
            next_hop: Some("10.0.12.23".to_owned()),
            as_path: "4200000012".to_owned(),
            communities: vec!["64512:100".to_owned()],
            rule: None,
        }],
        not_sent_to: vec![
            not_sent("r12-tor-b", "SessionDown", "session down: ConnectionTimedOut"),
            not_sent("lab", "Filter", "BGPFilter to-lab export rule 0"),
        ],
        kernel: KernelRow { route: Some("blackhole".to_owned()), next_hops: 0, state: "ok".to_owned() },
        ..BgpdExplanation::default()
    }
}

fn other(node: &str, next_hops: u64) -> BgpdExplanation {
    BgpdExplanation {
        node: node.to_owned(),
        prefix: "10.244.17.0/26".to_owned(),
        kernel: KernelRow {
            route: Some("10.244.17.0/26 via 10.0.13.3 dev eno2".to_owned()),
            next_hops,
            state: "ok".to_owned(),
        },
        ..BgpdExplanation::default()
    }
}

fn learner() -> BgpdExplanation {
    let row = |from: &str, verdict, as_path: &str, next_hop: &str, why: &str, best| ReceivedRow {
        from: from.to_owned(),
        verdict,
        as_path: as_path.to_owned(),
        next_hop: Some(next_hop.to_owned()),
        why: why.to_owned(),
        best,
        used: best,
        beaten_by: None,
        stale: false,
    };
    BgpdExplanation {
        received: vec![
            row(
                "r13-tor-b",
                RouteVerdict::Accepted,
                "65013 65000 65012 4200000012",
                "10.0.13.3",
                "inside pool default-ipv4",
                true,
            ),
            row(
                "lab",
                RouteVerdict::Rejected,
                "64999 64998",
                "10.0.99.9",
                "BGPFilter from-lab import \"no-pods\"",
                false,
            ),
        ],
        silent: vec![silent("r13-tor-a", SessionState::Idle, "MaxPrefixesReached", Some(41))],
        peers: 2,
        best: Some(BestRow {
            from: Some("r13-tor-b".to_owned()),
            reason: "OnlyPath".to_owned(),
            text: "r13-tor-b: the only accepted path".to_owned(),
        }),
        not_sent_to: vec![
            not_sent("r13-tor-a", "SessionDown", "session down: MaxPrefixesReached"),
            not_sent("lab", "NoTransit", "learned, and transit is false"),
            not_sent("r13-tor-b", "OwnPath", "the best path is its own"),
        ],
        ..other("worker-31", 1)
    }
}

#[test]
fn a_prefix_is_explained_for_the_fabric_and_for_a_node() {
    let now = Timestamp::from_second(NOW).unwrap();
    let mut nodes = vec![owner()];
    nodes.extend((0..44).map(|n| other(&format!("worker-{n}"), 2)));
    nodes.extend([other("worker-114", 1), other("worker-131", 1)]);
    nodes.push(BgpdExplanation { kernel: KernelRow::default(), ..other("worker-140", 0) });
    let shown = [
        text(&report(nodes), now),
        text(&report(vec![learner()]), now),
        text(&report(vec![learner(), other("worker-1", 2)]), now),
        text(&report(vec![BgpdExplanation { node: "n1".to_owned(), ..BgpdExplanation::default() }]), now),
    ];
    expectorate::assert_contents("tests/explain.txt", &shown.join("\n"));
}

#[test]
fn an_address_stands_for_the_longest_prefix_that_a_node_knows() {
    let node = |prefix: &str, known: bool| BgpdExplanation {
        prefix: prefix.to_owned(),
        originated: known.then(OriginatedRow::default),
        ..BgpdExplanation::default()
    };
    let nodes = [node("10.244.17.5/32", false), node("10.244.17.0/26", true), node("10.244.0.0/16", true)];
    assert_eq!(common_prefix(&nodes, "10.244.17.5"), "10.244.17.0/26");
    assert_eq!(common_prefix(&nodes[..1], "10.244.17.5/26"), "10.244.17.0/26");
}
