//! Every table is one that the kernel takes and `nft list` prints (P6).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use felix_calc::compile::sets::SetsCompiler;
use felix_calc::compile::{Compiled, Compiler};
use felix_calc::model::{Action, NodeState};
use felix_calc::plan::SetShape;
use felix_calc::table::{
    Chain, Data, DataType, Element, Family, Field, KeyType, Rule, Set, Statement, Table, Value, Verdict,
};

use support::generate::{Random, Style, state};
use support::states;

#[test]
fn every_table_is_well_formed() {
    let mut shapes: BTreeMap<String, SetShape> = BTreeMap::new();
    for seed in 0..states() {
        let mut random = Random::new(seed);
        let style = if seed.is_multiple_of(3) { Style::Kubernetes } else { Style::General };
        let state = state(&mut random, style);
        let table = SetsCompiler::default().compile(&state).table;
        check(&table).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        for (name, set) in &table.sets {
            // A name decides the shape, so that no plan has to make a live set anew.
            let shape = shapes.entry(name.clone()).or_insert_with(|| set.shape());
            assert_eq!(*shape, set.shape(), "seed {seed}: {name}");
        }
    }
}

#[test]
fn long_names_are_shortened_and_told_apart() {
    let compiled =
        (0..50).map(with_long_names).max_by_key(|compiled| compiled.counters.log_prefixes.len()).unwrap();
    check(&compiled.table).unwrap();
    let reasons: BTreeSet<_> = compiled.counters.log_prefixes.values().collect();
    assert_eq!(reasons.len(), compiled.counters.log_prefixes.len(), "one prefix, one reason");
    assert!(reasons.len() > 8);
}

fn with_long_names(seed: u64) -> Compiled {
    let mut long: NodeState = state(&mut Random::new(seed), Style::General);
    let policies = std::mem::take(&mut long.policies);
    for (number, (mut key, mut policy)) in policies.into_iter().enumerate() {
        key.name = format!("{}{number}", "x".repeat(250));
        for (index, rule) in
            [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten().enumerate()
        {
            rule.action = [Action::Deny, Action::Log][index % 2];
            rule.name = Some("é".repeat(40));
        }
        long.policies.insert(key, policy);
    }
    SetsCompiler::default().compile(&long)
}

/// The checks themselves can fail.
#[test]
fn broken_tables_are_refused() {
    // One with policies that select somebody here.
    let tables = (0..50)
        .map(|seed| SetsCompiler::default().compile(&state(&mut Random::new(seed), Style::General)).table);
    let whole = tables.max_by_key(|table| table.chains.len()).unwrap();
    check(&whole).unwrap();
    type Break = fn(&mut Table);
    let breaks: [(&str, Break); 9] = [
        ("33 a chain without an end", |t| drop(chain(t, "p-").rules.pop())),
        ("a chain that is missing", |t| t.chains.retain(|name, _| !name.starts_with("deny-"))),
        ("a set that is missing", |t| t.sets.retain(|name, _| !name.starts_with("own6"))),
        ("a key of another type", |t| t.sets.get_mut("known").unwrap().key = vec![KeyType::Word]),
        ("a name that nft cannot print", |t| {
            let chain = t.chains.remove("fwd-e").unwrap();
            t.chains.insert("0fwd".to_owned(), chain);
        }),
        ("an address without its family", |t| {
            chain(t, "fwd-e").rules[0].statements.retain(|s| !matches!(s, Statement::Family(_)));
        }),
        ("a port without its protocol", |t| {
            let port =
                Statement::Match { field: Field::DestinationPort, negated: false, value: Value::Port(1) };
            chain(t, "p-").rules[0].statements.insert(0, port);
        }),
        ("a long comment", |t| chain(t, "p-").rules[0].comment = Some("x".repeat(128))),
        ("a loop", |t| {
            let name = t.chains.keys().find(|name| name.starts_with("p-")).unwrap().clone();
            chain(t, "p-").rules.insert(0, jump(&name));
        }),
    ];
    for (name, change) in breaks {
        let mut table = whole.clone();
        change(&mut table);
        assert!(check(&table).is_err(), "{name}");
    }
}

fn chain<'a>(table: &'a mut Table, prefix: &str) -> &'a mut Chain {
    table.chains.iter_mut().find(|(name, _)| name.starts_with(prefix)).unwrap().1
}

fn jump(to: &str) -> Rule {
    Rule { statements: vec![Statement::Verdict(Verdict::Jump(to.to_owned()))], comment: None }
}

fn check(table: &Table) -> Result<(), String> {
    let ensure = |holds: bool, why: &dyn Fn() -> String| if holds { Ok(()) } else { Err(why()) };
    for name in table.sets.keys().chain(table.chains.keys()) {
        let legal = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
        ensure(legal && name.len() <= 255, &|| format!("name {name}"))?;
    }
    for (name, set) in &table.sets {
        check_set(set, table).map_err(|why| format!("set {name}: {why}"))?;
    }
    let mut reached = BTreeSet::new();
    for (name, chain) in &table.chains {
        for rule in &chain.rules {
            check_rule(rule, table).map_err(|why| format!("chain {name}: {why}: {rule:?}"))?;
        }
        if chain.base.is_none() {
            let ends = chain.rules.last().is_some_and(|rule| match rule.statements.as_slice() {
                [Statement::Reject { .. }] => true,
                [Statement::Verdict(verdict)] => !matches!(verdict, Verdict::Continue | Verdict::Jump(_)),
                _ => false,
            });
            ensure(ends, &|| format!("chain {name} has no end"))?;
        } else {
            walk(name, table, 0, 0, &mut reached)?;
        }
    }
    ensure(reached.len() == table.chains.len(), &|| "a chain that nothing reaches".to_owned())?;
    let read: BTreeSet<&str> =
        table.chains.values().flat_map(|c| &c.rules).flat_map(|r| &r.statements).filter_map(set_of).collect();
    let unread = table
        .sets
        .keys()
        .find(|name| name.contains('-') && !name.starts_with("disp-") && !read.contains(name.as_str()));
    ensure(unread.is_none(), &|| format!("set {unread:?} that nothing reads"))
}

/// Chains below a base chain: no loop, at most two jumps deep, and few steps in all.
fn walk(
    name: &str,
    table: &Table,
    jumps: usize,
    steps: usize,
    reached: &mut BTreeSet<String>,
) -> Result<(), String> {
    if jumps > 2 || steps > 8 {
        return Err(format!("chain {name} is {jumps} jumps and {steps} steps deep"));
    }
    reached.insert(name.to_owned());
    let chain = table.chains.get(name).ok_or_else(|| format!("chain {name} is missing"))?;
    let by_rule =
        chain.rules.iter().flat_map(|rule| &rule.statements).filter_map(|statement| match statement {
            Statement::Verdict(verdict) => Some(verdict),
            _ => None,
        });
    let maps = chain.rules.iter().flat_map(|rule| &rule.statements).filter_map(|statement| match statement {
        Statement::VerdictMap { map, .. } => table.sets.get(map),
        _ => None,
    });
    let by_map = maps.flat_map(|set| set.elements.values()).filter_map(|data| match data {
        Some(Data::Verdict(verdict)) => Some(verdict),
        _ => None,
    });
    for verdict in by_rule.chain(by_map) {
        match verdict {
            Verdict::Jump(to) => walk(to, table, jumps + 1, steps + 1, reached)?,
            Verdict::Goto(to) => walk(to, table, jumps, steps + 1, reached)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_set(set: &Set, table: &Table) -> Result<(), String> {
    let bytes: usize = set.key.iter().map(|key| padded(*key)).sum();
    if bytes > 64 || set.key.is_empty() {
        return Err(format!("{bytes} bytes of key"));
    }
    let mut last_of_previous: Option<Value> = None;
    for (element, data) in &set.elements {
        let values: Vec<&Value> = match element {
            Element::Exact(values) => values.iter().collect(),
            Element::Range { prefix, first, last } => {
                if !set.interval || first > last || type_of(first) != type_of(last) {
                    return Err(format!("range {element:?}"));
                }
                if last_of_previous
                    .as_ref()
                    .is_some_and(|previous| *first <= *previous || next(previous).as_ref() == Some(first))
                {
                    return Err(format!("{element:?} overlaps or touches the one before"));
                }
                last_of_previous = Some(last.clone());
                prefix.iter().chain([first]).collect()
            }
        };
        if values.iter().map(|value| type_of(value)).ne(set.key.iter().copied()) {
            return Err(format!("key of {element:?}"));
        }
        match (set.data, data) {
            (None, None) | (Some(DataType::Word), Some(Data::Word(_))) => {}
            (Some(DataType::Verdict), Some(Data::Verdict(Verdict::Goto(to) | Verdict::Jump(to))))
                if table.chains.contains_key(to) => {}
            _ => return Err(format!("data of {element:?}")),
        }
    }
    Ok(())
}

fn check_rule(rule: &Rule, table: &Table) -> Result<(), String> {
    if rule.comment.as_ref().is_some_and(|comment| comment.len() > 127) {
        return Err("comment".to_owned());
    }
    let (mut family, mut protocol) = (None, false);
    for (position, statement) in rule.statements.iter().enumerate() {
        match statement {
            Statement::Family(wanted) => family = Some(*wanted),
            Statement::Match { field: Field::Protocol, negated: false, .. } => protocol = true,
            Statement::Log { prefix, .. } if prefix.len() > 127 => return Err("prefix".to_owned()),
            Statement::Verdict(_) | Statement::Reject { .. } if position + 1 < rule.statements.len() => {
                return Err("statements behind the verdict".to_owned());
            }
            _ => {}
        }
        let fields: &[Field] = match statement {
            Statement::Match { field, value, .. } => {
                matches_type(*field, value)?;
                std::slice::from_ref(field)
            }
            Statement::InRange { field, first, last, .. } => {
                matches_type(*field, first)?;
                matches_type(*field, last)?;
                std::slice::from_ref(field)
            }
            Statement::InterfacePrefix { field, .. } => std::slice::from_ref(field),
            Statement::InSet { fields, .. } | Statement::VerdictMap { fields, .. } => fields,
            _ => &[],
        };
        for field in fields {
            let needs = match field {
                Field::SourceV4 | Field::DestinationV4 => Some(Family::Ipv4),
                Field::SourceV6 | Field::DestinationV6 | Field::HopLimit => Some(Family::Ipv6),
                _ => None,
            };
            if needs.is_some() && needs != family {
                return Err(format!("{field:?} without its family"));
            }
            if (field_type(*field) == KeyType::Port || is_icmp(*field)) && !protocol {
                return Err(format!("{field:?} without its protocol"));
            }
        }
        if let Some(name) = set_of(statement) {
            let set = table.sets.get(name).ok_or_else(|| format!("set {name} is missing"))?;
            if fields.iter().map(|field| field_type(*field)).ne(set.key.iter().copied()) {
                return Err(format!("key of {name}"));
            }
        }
    }
    Ok(())
}

fn matches_type(field: Field, value: &Value) -> Result<(), String> {
    if field_type(field) == type_of(value) { Ok(()) } else { Err(format!("{field:?} against {value:?}")) }
}

fn set_of(statement: &Statement) -> Option<&str> {
    match statement {
        Statement::InSet { set, .. } => Some(set),
        Statement::VerdictMap { map, .. } => Some(map),
        _ => None,
    }
}

fn is_icmp(field: Field) -> bool {
    matches!(field, Field::IcmpType | Field::IcmpCode | Field::Icmpv6Type | Field::Icmpv6Code)
}

fn field_type(field: Field) -> KeyType {
    match field {
        Field::InputInterface | Field::OutputInterface => KeyType::Interface,
        Field::SourceV4 | Field::DestinationV4 => KeyType::Ipv4,
        Field::SourceV6 | Field::DestinationV6 => KeyType::Ipv6,
        Field::SourcePort | Field::DestinationPort => KeyType::Port,
        // One byte each.
        Field::Protocol
        | Field::IcmpType
        | Field::IcmpCode
        | Field::Icmpv6Type
        | Field::Icmpv6Code
        | Field::HopLimit => KeyType::Protocol,
    }
}

fn type_of(value: &Value) -> KeyType {
    match value {
        Value::Interface(_) => KeyType::Interface,
        Value::Ipv4(_) => KeyType::Ipv4,
        Value::Ipv6(_) => KeyType::Ipv6,
        Value::Protocol(_) => KeyType::Protocol,
        Value::Port(_) => KeyType::Port,
        Value::Word(_) => KeyType::Word,
    }
}

/// Bytes in a concatenation.
fn padded(key: KeyType) -> usize {
    match key {
        KeyType::Interface | KeyType::Ipv6 => 16,
        KeyType::Ipv4 | KeyType::Protocol | KeyType::Port | KeyType::Word => 4,
    }
}

fn next(value: &Value) -> Option<Value> {
    match value {
        Value::Ipv4(address) => u32::from(*address).checked_add(1).map(|a| Value::Ipv4(a.into())),
        Value::Ipv6(address) => u128::from(*address).checked_add(1).map(|a| Value::Ipv6(a.into())),
        Value::Port(port) => port.checked_add(1).map(Value::Port),
        _ => None,
    }
}
