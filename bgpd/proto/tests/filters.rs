//! Random filters over random routes, against an evaluator that changes the route rule by rule and knows nothing of bytes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use bgp_proto::Asn;
use bgp_proto::policy::{Action, Changes, Filter, Match, PrefixRange, Route, Rule, Source, Sources};
use bgp_proto::wire::attr::{self, code};
use ipnet::IpNet;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn some<T: Copy>(&mut self, of: &[T], chance: u64) -> Vec<T> {
        of.iter().filter(|_| self.one_in(chance)).copied().collect()
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

const SOURCES: [Source; 7] = [
    Source::Block,
    Source::BorrowedAddress,
    Source::Service,
    Source::Static,
    Source::NodeAddress,
    Source::Internal,
    Source::External,
];
const COMMUNITIES: [u32; 4] = [1, 2, 0xFFFF_0000, 0xFFFF_FF01];
const LARGE: [[u32; 3]; 2] = [[1, 2, 3], [1, 2, 4]];
const ASNS: [u32; 4] = [64512, 65001, 70000, 5];

/// A route as a person would write it down.
#[derive(Debug, Clone, PartialEq)]
struct Plain {
    prefix: IpNet,
    sources: BTreeSet<Source>,
    next_hop: Option<IpAddr>,
    path: Vec<u32>,
    med: Option<u32>,
    local_pref: Option<u32>,
    communities: Vec<u32>,
    large: Vec<[u32; 3]>,
}

fn nets() -> Vec<IpNet> {
    let texts =
        ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "0.0.0.0/0", "2001:db8::/32", "2001:db8:1::/48", "::/0"];
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn plain(rng: &mut Rng) -> Plain {
    let next_hops = [None, Some(IpAddr::from([10, 1, 2, 3])), Some(IpAddr::from([192, 0, 2, 1]))];
    Plain {
        prefix: rng.pick(&nets()),
        sources: rng.some(&SOURCES, 3).into_iter().collect(),
        next_hop: rng.pick(&next_hops),
        path: (0..rng.below(4)).map(|_| rng.pick(&ASNS)).collect(),
        med: rng.one_in(2).then_some(7),
        local_pref: rng.one_in(2).then_some(150),
        communities: rng.some(&COMMUNITIES, 2),
        large: rng.some(&LARGE, 2),
    }
}

fn rule(rng: &mut Rng) -> Rule {
    let action = rng.pick(&[Action::Continue, Action::Continue, Action::Accept, Action::Reject]);
    let ranges: Vec<PrefixRange> = rng
        .some(&nets(), 4)
        .into_iter()
        .map(|net| {
            let (min_length, max_length) =
                (rng.pick(&[0, net.prefix_len(), 24]), rng.pick(&[net.prefix_len(), 24, 128]));
            PrefixRange { net, min_length, max_length }
        })
        .collect();
    let matches = Match {
        prefixes: if rng.one_in(2) { ranges } else { vec![] },
        sources: if rng.one_in(3) { rng.some(&SOURCES, 2).into_iter().collect() } else { Sources::default() },
        communities: rng.some(&COMMUNITIES, 8).into_iter().collect(),
        large_communities: rng.some(&LARGE, 8).into_iter().collect(),
        path_starts_with: if rng.one_in(5) {
            (0..=rng.below(2)).map(|_| Asn(rng.pick(&ASNS))).collect()
        } else {
            vec![]
        },
        origin_asn: rng.one_in(6).then(|| Asn(rng.pick(&ASNS))),
        path_max_length: rng.one_in(5).then(|| rng.below(4) as u32),
        next_hops: if rng.one_in(5) { rng.some(&nets(), 2) } else { vec![] },
    };
    let changes = if action == Action::Reject { Changes::default() } else { changes(rng) };
    Rule { name: "rule".into(), matches, action, changes }
}

fn changes(rng: &mut Rng) -> Changes {
    Changes {
        local_pref: rng.one_in(3).then(|| rng.below(3) as u32),
        med: rng.one_in(3).then(|| rng.below(3) as u32),
        remove_communities: rng.some(&COMMUNITIES, 4).into_iter().collect(),
        add_communities: rng.some(&COMMUNITIES, 4).into_iter().collect(),
        remove_large_communities: rng.some(&LARGE, 4).into_iter().collect(),
        add_large_communities: rng.some(&LARGE, 4).into_iter().collect(),
        prepend: (0..rng.below(3)).map(|_| Asn(rng.pick(&ASNS))).collect(),
    }
}

/// api.md §5.4, sentence by sentence.
fn is_matched(route: &Plain, matches: &Match) -> bool {
    let holds = |range: &PrefixRange| {
        let length = route.prefix.prefix_len();
        let inside = match (range.net, route.prefix) {
            (IpNet::V4(net), IpNet::V4(prefix)) => {
                prefix.prefix_len() >= net.prefix_len() && net.contains(&prefix.network())
            }
            (IpNet::V6(net), IpNet::V6(prefix)) => {
                prefix.prefix_len() >= net.prefix_len() && net.contains(&prefix.network())
            }
            _ => false,
        };
        inside && range.min_length <= length && length <= range.max_length
    };
    let of_source = |source: &Source| matches.sources.meets((*source).into());
    let starts: Vec<u32> = matches.path_starts_with.iter().map(|asn| asn.0).collect();
    (matches.prefixes.is_empty() || matches.prefixes.iter().any(holds))
        && (matches.sources == Sources::default() || route.sources.iter().any(of_source))
        && matches.communities.iter().all(|one| route.communities.contains(one))
        && matches.large_communities.iter().all(|one| route.large.contains(one))
        && route.path.starts_with(&starts)
        && matches.origin_asn.is_none_or(|asn| route.path.last() == Some(&asn.0))
        && matches.path_max_length.is_none_or(|max| route.path.len() <= max as usize)
        && (matches.next_hops.is_empty()
            || route
                .next_hop
                .is_some_and(|address| matches.next_hops.iter().any(|net| net.contains(&address))))
}

fn change(route: &mut Plain, changes: &Changes) {
    route.local_pref = changes.local_pref.or(route.local_pref);
    route.med = changes.med.or(route.med);
    route.communities.retain(|one| !changes.remove_communities.contains(one));
    route.large.retain(|one| !changes.remove_large_communities.contains(one));
    for one in &changes.add_communities {
        if !route.communities.contains(one) {
            route.communities.push(*one);
        }
    }
    for one in &changes.add_large_communities {
        if !route.large.contains(one) {
            route.large.push(*one);
        }
    }
    route.path.splice(0..0, changes.prepend.iter().map(|asn| asn.0));
}

/// The action that decided, and the route as the rules leave it.
fn naive(rules: &[Rule], mut route: Plain) -> (Option<Action>, Plain) {
    for rule in rules {
        if is_matched(&route, &rule.matches) {
            change(&mut route, &rule.changes);
            if rule.action != Action::Continue {
                return (Some(rule.action), route);
            }
        }
    }
    (None, route)
}

fn encode(route: &Plain) -> Vec<u8> {
    let mut out = Vec::new();
    let mut path = Vec::new();
    if !route.path.is_empty() {
        path.extend([2, route.path.len() as u8]);
        path.extend(route.path.iter().flat_map(|asn| asn.to_be_bytes()));
    }
    attr::put(&mut out, 0x40, code::ORIGIN, &[0]);
    attr::put(&mut out, 0x40, code::AS_PATH, &path);
    attr::put(&mut out, 0x40, code::NEXT_HOP, &[192, 0, 2, 1]);
    if let Some(med) = route.med {
        attr::put(&mut out, 0x80, code::MULTI_EXIT_DISC, &med.to_be_bytes());
    }
    if let Some(local_pref) = route.local_pref {
        attr::put(&mut out, 0x40, code::LOCAL_PREF, &local_pref.to_be_bytes());
    }
    let mut sorted = |code, value: Vec<u8>| {
        if !value.is_empty() {
            attr::put(&mut out, 0xC0, code, &value);
        }
    };
    sorted(code::COMMUNITIES, route.communities.iter().flat_map(|one| one.to_be_bytes()).collect());
    sorted(
        code::LARGE_COMMUNITIES,
        route.large.iter().flatten().flat_map(|word| word.to_be_bytes()).collect(),
    );
    out
}

/// Reads back what [`encode`] and changes write; communities sorted, since their order means nothing.
fn decode(bytes: &[u8], like: &Plain) -> Plain {
    let word = |code| attr::find(bytes, code).map(attr::be32);
    let words = |code| -> Vec<u32> {
        attr::find(bytes, code).unwrap_or_default().chunks_exact(4).map(attr::be32).collect()
    };
    let mut path = Vec::new();
    let mut rest = attr::find(bytes, code::AS_PATH).unwrap();
    while let [2, count, behind @ ..] = rest {
        let (numbers, behind) = behind.split_at(usize::from(*count) * 4);
        path.extend(numbers.chunks_exact(4).map(attr::be32));
        rest = behind;
    }
    assert!(rest.is_empty(), "AS_PATH {rest:?}");
    let mut communities = words(code::COMMUNITIES);
    communities.sort_unstable();
    let mut large: Vec<[u32; 3]> =
        words(code::LARGE_COMMUNITIES).chunks_exact(3).map(|one| [one[0], one[1], one[2]]).collect();
    large.sort_unstable();
    let (med, local_pref) = (word(code::MULTI_EXIT_DISC), word(code::LOCAL_PREF));
    Plain { path, med, local_pref, communities, large, ..like.clone() }
}

#[test]
fn rules_do_what_an_evaluator_without_bytes_does() {
    let mut rng = Rng(0x9E37_79B9_7F4A_7C15);
    let mut seen = [0; 4];
    for round in 0..40_000 {
        let rules: Vec<Rule> = (0..=rng.below(6)).map(|_| rule(&mut rng)).collect();
        let route = plain(&mut rng);
        let filter: Filter = rules.iter().cloned().collect();
        let attributes = encode(&route);
        let sources = route.sources.iter().copied().collect();
        let (prefix, next_hop) = (&route.prefix, route.next_hop);
        let outcome = filter.judge(&Route { prefix, sources, next_hop, attributes: &attributes });

        let (decided, mut expected) = naive(&rules, route.clone());
        assert_eq!(outcome.by.map(|rule| rule.action), decided, "round {round}: {rules:#?} {route:?}");
        let mut changed = attributes.clone();
        if let Some(changes) = &outcome.changes {
            changes.apply(&attributes, &mut changed);
            let growth = changes.growth();
            assert!(changed.len() <= attributes.len() + growth, "round {round}: {growth}");
        }
        let codes: Vec<u8> = attr::attributes(&changed).map(|attribute| attribute.code).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "round {round}: {codes:?}");
        expected.communities.sort_unstable();
        expected.large.sort_unstable();
        assert_eq!(decode(&changed, &route), expected, "round {round}: {rules:#?} {route:?}");
        seen[decided.map_or(3, |action| action as usize)] += 1;
    }
    assert!(seen[0] > 1000 && seen[1] > 1000 && seen[3] > 1000, "{seen:?}");
}
