//! Filters of the model, and a naive evaluator of them.

use bgp_proto::Asn;
use bgp_proto::policy::{Action, Changes, Filter, Match, PrefixRange, Rule, Source, Sources};
use ipnet::IpNet;

use crate::wire::Attributes;

fn rule(matches: Match, action: Action, changes: Changes) -> Rule {
    Rule { name: "of the model".into(), matches, action, changes }
}

fn prefixes(net: &str, min_length: u8, max_length: u8) -> Match {
    let prefixes = vec![PrefixRange { net: net.parse().unwrap(), min_length, max_length }];
    Match { prefixes, ..Match::default() }
}

fn community(community: u32) -> Match {
    Match { communities: [community].into(), ..Match::default() }
}

pub(crate) fn import() -> Filter {
    let prefer = Changes {
        local_pref: Some(200),
        add_communities: [0xFDE9_0007].into(),
        remove_communities: [0xFDE9_0001].into(),
        ..Changes::default()
    };
    let avoid = Changes { med: Some(3), prepend: vec![Asn(70001), Asn(5)], ..Changes::default() };
    let forgive = Changes {
        remove_communities: [0xFFFF_0000, 0xFFFF_FF01].into(),
        local_pref: Some(90),
        ..Changes::default()
    };
    let rules = [
        rule(community(0xFDE9_0001), Action::Continue, prefer),
        rule(prefixes("10.2.0.0/16", 16, 32), Action::Accept, forgive.clone()),
        rule(prefixes("10.3.0.0/16", 26, 26), Action::Reject, Changes::default()),
        rule(community(0xFDE9_0007), Action::Continue, avoid),
        rule(prefixes("2001:db8:2::/48", 48, 128), Action::Accept, forgive),
    ];
    rules.into_iter().collect()
}

pub(crate) fn export(choice: u64) -> Filter {
    let mark = Changes {
        add_communities: [0xFDE9_0009].into(),
        prepend: vec![Asn(64512)],
        med: Some(11),
        local_pref: Some(120),
        ..Changes::default()
    };
    let of_source = |source: Source| Match { sources: source.into(), ..Match::default() };
    let begins = Match { path_starts_with: vec![Asn(70001)], ..Match::default() };
    let near = |net: &str| Match { next_hops: vec![net.parse().unwrap()], ..Match::default() };
    let reject = |matches| rule(matches, Action::Reject, Changes::default());
    let rules = match choice {
        0 => vec![
            rule(of_source(Source::External), Action::Continue, mark),
            reject(prefixes("10.4.0.0/16", 24, 24)),
        ],
        _ => vec![
            reject(of_source(Source::Block)),
            rule(begins, Action::Accept, mark),
            reject(near("192.0.2.2/32")),
            rule(community(0xFDE9_0001), Action::Accept, Changes { med: Some(1), ..Changes::default() }),
        ],
    };
    rules.into_iter().collect()
}

/// What is left of the rules in the route.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) prepended: usize,
    pub(crate) has_med: bool,
}

/// Rule by rule, on the route itself.
pub(crate) fn run(
    rules: &[Rule],
    prefix: &IpNet,
    sources: Sources,
    a: &mut Attributes,
) -> (Option<Action>, Done) {
    let mut done = Done::default();
    for rule in rules {
        let Match { prefixes, communities, path_starts_with, next_hops, .. } = &rule.matches;
        let length = prefix.prefix_len();
        let inside = |range: &PrefixRange| {
            range.net.contains(prefix) && range.min_length <= length && length <= range.max_length
        };
        let path: Vec<Asn> = a.path.iter().copied().map(Asn).collect();
        let holds = (prefixes.is_empty() || prefixes.iter().any(inside))
            && communities.is_subset(&a.communities)
            && path.starts_with(path_starts_with)
            && (rule.matches.sources == Sources::default() || rule.matches.sources.meets(sources))
            && (next_hops.is_empty()
                || !a.next_hop.is_unspecified() && next_hops.iter().any(|net| net.contains(&a.next_hop)));
        if !holds {
            continue;
        }
        let changes = &rule.changes;
        a.communities.retain(|one| !changes.remove_communities.contains(one));
        a.communities.extend(&changes.add_communities);
        a.local_pref = changes.local_pref.or(a.local_pref);
        a.med = changes.med.or(a.med);
        a.path.splice(0..0, changes.prepend.iter().map(|asn| asn.0));
        done.prepended += changes.prepend.len();
        done.has_med |= changes.med.is_some();
        if rule.action != Action::Continue {
            return (Some(rule.action), done);
        }
    }
    (None, done)
}
