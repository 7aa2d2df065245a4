//! The table under construction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::digest::{digest, shorten};
use super::super::{Compiled, SetSource};
use crate::host::NFLOG_GROUP;
use crate::model::{Answer, NodeState, Rule as PolicyRule, RuleId, TCP};
use crate::plan::sets_read;
use crate::resolve::Members;
use crate::table::{
    Chain, Data, DataType, Element, Family, Field, KeyType, Rule, Set, Statement, Value, Verdict,
};
use crate::verdict::Reason;

/// Kernel limit of a log prefix and of what nft shows of a comment, without the closing zero.
const TEXT_LIMIT: usize = 127;
/// Denials of one rule that are logged at once before the rate applies.
const LOG_BURST: u32 = 5;

pub(super) struct Builder<'a> {
    pub(super) state: &'a NodeState,
    compiled: Compiled,
}

impl<'a> Builder<'a> {
    pub(super) fn new(state: &'a NodeState) -> Self {
        Self { state, compiled: Compiled::default() }
    }

    /// Without sets that were made for conditions which then turned out to exclude each other.
    pub(super) fn finish(mut self) -> Compiled {
        let Compiled { table, members, .. } = &mut self.compiled;
        let rules = table.chains.values().flat_map(|chain| &chain.rules);
        let read: BTreeSet<&str> = rules.flat_map(sets_read).collect();
        table.sets.retain(|name, _| read.contains(name.as_str()));
        members.retain(|name, _| read.contains(name.as_str()));
        self.compiled
    }

    /// Takes over what another builder made; equal names are equal things.
    pub(super) fn include(&mut self, made: &Compiled) {
        fn copy<K: Ord + Clone, V: Clone>(into: &mut BTreeMap<K, V>, from: &BTreeMap<K, V>) {
            for (key, value) in from {
                if !into.contains_key(key) {
                    into.insert(key.clone(), value.clone());
                }
            }
        }
        let Compiled { table, counters, members } = made;
        copy(&mut self.compiled.table.sets, &table.sets);
        copy(&mut self.compiled.table.chains, &table.chains);
        copy(&mut self.compiled.counters.places, &counters.places);
        copy(&mut self.compiled.counters.log_prefixes, &counters.log_prefixes);
        copy(&mut self.compiled.members, members);
    }

    /// A base chain, or another that keeps its name.
    pub(super) fn fixed_chain(&mut self, name: &str, chain: Chain) {
        self.compiled.table.chains.insert(name.to_owned(), chain);
    }

    /// A chain named `<kind>-<digest><suffix>` by its rules; equal rules are one chain. `counted`: which of
    /// them count, for what.
    pub(super) fn chain(
        &mut self,
        kind: &str,
        suffix: &str,
        rules: Vec<Rule>,
        counted: Vec<(usize, Reason)>,
    ) -> String {
        let name = format!("{kind}-{}{suffix}", digest(&(&rules, &counted)));
        for (position, reason) in counted {
            let place = super::super::Place { chain: name.clone(), position };
            self.compiled.counters.places.insert(place, reason);
        }
        self.compiled.table.chains.entry(name.clone()).or_insert(Chain { base: None, rules });
        name
    }

    /// The chain in which a packet ends that is denied for `reason`.
    pub(super) fn deny(&mut self, reason: Reason, text: &str, answer: Answer) -> Verdict {
        let prefix = shorten(&format!("manx:deny:{text}"), TEXT_LIMIT);
        let mut rules = vec![rule(vec![Statement::Counter])];
        if let Some(log) = self.limited_log(&prefix, &reason) {
            rules.push(rule(log));
        }
        match answer {
            Answer::Drop => rules.push(rule(vec![Statement::Verdict(Verdict::Drop)])),
            Answer::Reject => {
                let tcp =
                    Statement::Match { field: Field::Protocol, negated: false, value: Value::Protocol(TCP) };
                rules.push(rule(vec![tcp, Statement::Reject { tcp_reset: true }]));
                rules.push(rule(vec![Statement::Reject { tcp_reset: false }]));
            }
        }
        // The comment keeps reasons apart whose chains would be the same without logging.
        for (position, rule) in rules.iter_mut().enumerate() {
            rule.comment = (position == 0).then(|| shorten(text, TEXT_LIMIT));
        }
        Verdict::Goto(self.chain("deny", "", rules, vec![(0, reason)]))
    }

    /// The statements of a Log rule, and of each denial. Absent when logging is off.
    pub(super) fn limited_log(&mut self, prefix: &str, reason: &Reason) -> Option<Vec<Statement>> {
        let per_second = self.state.settings.deny_log_rate;
        if per_second == 0 {
            return None;
        }
        self.compiled.counters.log_prefixes.insert(prefix.to_owned(), reason.clone());
        let limit = Statement::Limit { per_second, burst: per_second.max(LOG_BURST) };
        Some(vec![limit, Statement::Log { prefix: prefix.to_owned(), group: NFLOG_GROUP }])
    }

    pub(super) fn log_prefix(rule: &PolicyRule, id: &RuleId) -> String {
        shorten(&format!("manx:log:{}", rule_text(rule, id)), TEXT_LIMIT)
    }

    /// A set or map by a fixed name; its shape never depends on the state.
    pub(super) fn fixed_set(
        &mut self,
        name: &str,
        key: &[KeyType],
        data: Option<DataType>,
        elements: BTreeMap<Element, Option<Data>>,
    ) {
        let set = Set { key: key.to_vec(), interval: false, data, counter: false, elements };
        self.compiled.table.sets.insert(name.to_owned(), set);
    }

    /// A set of disjoint ranges, named by its content, so never edited.
    pub(super) fn ranges(&mut self, kind: &str, key: KeyType, ranges: &[(Value, Value)]) -> String {
        let name = format!("{kind}-{}", digest(&ranges));
        let element = |(first, last): &(Value, Value)| {
            (Element::Range { prefix: Vec::new(), first: first.clone(), last: last.clone() }, None)
        };
        let elements = ranges.iter().map(element).collect();
        let set = Set { key: vec![key], interval: true, data: None, counter: false, elements };
        self.compiled.table.sets.entry(name.clone()).or_insert(set);
        name
    }

    /// The set of a peer's addresses (and port numbers), of one family; empty here, filled by its source.
    pub(super) fn members(&mut self, members: Members, family: Family) -> String {
        let ports = members.port_names.is_some();
        let kind = match (family, ports) {
            (Family::Ipv4, false) => "sel4",
            (Family::Ipv6, false) => "sel6",
            (Family::Ipv4, true) => "np4",
            (Family::Ipv6, true) => "np6",
        };
        let name = format!("{kind}-{}", digest(&members));
        let mut key = vec![address_key(family)];
        if ports {
            key.extend([KeyType::Protocol, KeyType::Port]);
        }
        let set = Set { key, interval: false, data: None, counter: false, elements: BTreeMap::new() };
        self.compiled.table.sets.entry(name.clone()).or_insert(set);
        let source = SetSource { members: Arc::new(members), family };
        self.compiled.members.entry(name.clone()).or_insert(source);
        name
    }
}

pub(super) fn address_key(family: Family) -> KeyType {
    match family {
        Family::Ipv4 => KeyType::Ipv4,
        Family::Ipv6 => KeyType::Ipv6,
    }
}

pub(super) fn rule(statements: Vec<Statement>) -> Rule {
    Rule { statements, comment: None }
}

pub(super) fn commented(statements: Vec<Statement>, comment: &str) -> Rule {
    Rule { statements, comment: Some(shorten(comment, TEXT_LIMIT)) }
}

/// `<namespace>/<policy>/<rule>`, the rule by direction, position and name if it has one: names need not
/// differ. Kinds other than the Kubernetes one are named, as policies of two kinds may share a name.
pub(super) fn rule_text(rule: &PolicyRule, id: &RuleId) -> String {
    use crate::model::PolicyKind;
    let key = &id.policy;
    let kind = match key.kind {
        PolicyKind::KubernetesNetworkPolicy => String::new(),
        PolicyKind::ClusterNetworkPolicy | PolicyKind::NetworkPolicy | PolicyKind::GlobalNetworkPolicy => {
            format!("{}:", key.kind.short())
        }
    };
    let name = rule.name.as_ref().map(|name| format!("-{name}")).unwrap_or_default();
    format!("{}/{kind}{}/{}-{}{name}", key.namespace, key.name, id.direction.as_str(), id.index)
}
