//! Short spellings for tables.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use felix_calc::plan::plan;
use felix_calc::table::{
    Base, Chain, Data, DataType, Element, Field, Hook, KeyType, Rule, Set, Statement, Table, Value, Verdict,
};
use felix_kernel::nft::{NftError, PolicyTable};

/// Puts `after` in place of `before`, as felix does it: three transactions.
pub(crate) fn put(kernel: &mut PolicyTable, before: &Table, after: &Table) -> Result<(), NftError> {
    plan(before, after).transactions().into_iter().try_for_each(|transaction| kernel.commit(transaction))
}

pub(crate) fn v4(text: &str) -> Value {
    Value::Ipv4(text.parse::<Ipv4Addr>().unwrap())
}

pub(crate) fn interface(name: &str) -> Value {
    Value::Interface(name.to_owned())
}

pub(crate) fn set(key: &[KeyType], elements: Vec<Element>) -> Set {
    let elements = elements.into_iter().map(|element| (element, None)).collect();
    Set { key: key.to_vec(), interval: false, data: None, counter: false, elements }
}

pub(crate) fn ranges(key: KeyType, ranges: &[(Value, Value)]) -> Set {
    let elements = ranges
        .iter()
        .map(|(first, last)| {
            (Element::Range { prefix: Vec::new(), first: first.clone(), last: last.clone() }, None)
        })
        .collect();
    Set { key: vec![key], interval: true, data: None, counter: false, elements }
}

pub(crate) fn verdict_map(key: &[KeyType], elements: Vec<(Vec<Value>, Verdict)>) -> Set {
    let elements: BTreeMap<_, _> = elements
        .into_iter()
        .map(|(key, verdict)| (Element::Exact(key), Some(Data::Verdict(verdict))))
        .collect();
    Set { key: key.to_vec(), interval: false, data: Some(DataType::Verdict), counter: false, elements }
}

pub(crate) fn equal(field: Field, value: Value) -> Statement {
    Statement::Match { field, negated: false, value }
}

pub(crate) fn rule(statements: Vec<Statement>) -> Rule {
    Rule { statements, comment: None }
}

pub(crate) fn chain(rules: Vec<Vec<Statement>>) -> Chain {
    Chain { base: None, rules: rules.into_iter().map(rule).collect() }
}

pub(crate) fn base(hook: Hook, priority: i32, rules: Vec<Vec<Statement>>) -> Chain {
    Chain { base: Some(Base { hook, priority, drop: false }), ..chain(rules) }
}

pub(crate) fn table(sets: Vec<(&str, Set)>, chains: Vec<(&str, Chain)>) -> Table {
    Table {
        sets: sets.into_iter().map(|(name, set)| (name.to_owned(), set)).collect(),
        chains: chains.into_iter().map(|(name, chain)| (name.to_owned(), chain)).collect(),
    }
}

/// A table with every statement, field, type of key and kind of set.
pub(crate) fn everything() -> Table {
    let exact = |values: Vec<Value>| Element::Exact(values);
    let v6 = |text: &str| Value::Ipv6(text.parse().unwrap());
    let mut word_map = set(&[KeyType::Ipv4], Vec::new());
    word_map.data = Some(DataType::Word);
    word_map.elements.insert(exact(vec![v4("10.0.0.1")]), Some(Data::Word(7)));
    let mut counting = verdict_map(
        &[KeyType::Protocol, KeyType::Port],
        vec![(vec![Value::Protocol(6), Value::Port(80)], Verdict::Return)],
    );
    counting.counter = true;
    let mut three_dimensions = ranges(KeyType::Port, &[]);
    three_dimensions.key = vec![KeyType::Ipv4, KeyType::Protocol, KeyType::Port];
    let prefix = vec![v4("10.0.0.1"), Value::Protocol(6)];
    let range = Element::Range { prefix, first: Value::Port(80), last: Value::Port(90) };
    three_dimensions.elements.insert(range, None);
    let last = |text: &str| (v4("255.0.0.0"), v4(text));
    let sets = vec![
        ("sel4", set(&[KeyType::Ipv4], vec![exact(vec![v4("10.0.0.1")]), exact(vec![v4("10.0.0.2")])])),
        ("sel6", set(&[KeyType::Ipv6], vec![exact(vec![v6("fd00::1")])])),
        ("known", set(&[KeyType::Interface], vec![exact(vec![interface("manx0123456789a")])])),
        (
            "own4",
            set(&[KeyType::Interface, KeyType::Ipv4], vec![exact(vec![interface("manx0"), v4("10.0.0.1")])]),
        ),
        (
            "own6",
            set(&[KeyType::Interface, KeyType::Ipv6], vec![exact(vec![interface("manx0"), v6("fd00::1")])]),
        ),
        (
            "np4",
            set(
                &[KeyType::Ipv4, KeyType::Protocol, KeyType::Port],
                vec![exact(vec![v4("10.0.0.1"), Value::Protocol(6), Value::Port(80)])],
            ),
        ),
        ("net4", ranges(KeyType::Ipv4, &[(v4("0.0.0.0"), v4("9.255.255.255")), last("255.255.255.255")])),
        ("net6", ranges(KeyType::Ipv6, &[(v6("fd00::"), v6("fd00::ffff")), (v6("fe80::"), v6("fe80::"))])),
        (
            "port",
            ranges(
                KeyType::Port,
                &[(Value::Port(0), Value::Port(1023)), (Value::Port(8080), Value::Port(65535))],
            ),
        ),
        ("cat", three_dimensions),
        ("class", word_map),
        ("words", set(&[KeyType::Word], vec![exact(vec![Value::Word(0x0102_0304)])])),
        (
            "disp",
            verdict_map(&[KeyType::Interface], vec![(vec![interface("manx0")], Verdict::Goto("pod".into()))]),
        ),
        ("cells", counting),
    ];
    let chains = vec![
        ("pod", chain(every_condition())),
        ("end", chain(every_action())),
        ("control", chain(every_icmp())),
        (
            "forward",
            base(
                Hook::Forward,
                -1,
                vec![
                    vec![Statement::VerdictMap { fields: vec![Field::InputInterface], map: "disp".into() }],
                    vec![
                        equal(Field::Protocol, Value::Protocol(58)),
                        Statement::Verdict(Verdict::Jump("control".into())),
                    ],
                ],
            ),
        ),
        (
            "input",
            Chain { base: Some(Base { hook: Hook::Input, priority: 0, drop: true }), rules: Vec::new() },
        ),
        ("nat", base(Hook::Postrouting, 100, vec![vec![Statement::Counter, Statement::Masquerade]])),
    ];
    table(sets, chains)
}

fn every_condition() -> Vec<Vec<Statement>> {
    use felix_calc::table::Family;
    let drop = || Statement::Verdict(Verdict::Drop);
    let prefix = |field, negated| Statement::InterfacePrefix { field, negated, prefix: "manx".into() };
    let within = |fields: &[Field], negated, set: &str| Statement::InSet {
        fields: fields.to_vec(),
        negated,
        set: set.into(),
    };
    let v6 = |text: &str| Value::Ipv6(text.parse().unwrap());
    vec![
        vec![prefix(Field::InputInterface, false), prefix(Field::OutputInterface, true), drop()],
        vec![
            equal(Field::InputInterface, interface("manx0")),
            equal(Field::OutputInterface, interface("eth0")),
        ],
        vec![Statement::Family(Family::Ipv4), equal(Field::SourceV4, v4("10.0.0.1")), drop()],
        vec![
            Statement::Family(Family::Ipv4),
            Statement::Match { field: Field::DestinationV4, negated: true, value: v4("10.0.0.2") },
        ],
        vec![Statement::Family(Family::Ipv6), equal(Field::SourceV6, v6("fd00::1"))],
        vec![Statement::Family(Family::Ipv6), equal(Field::DestinationV6, v6("fd00::2"))],
        vec![
            Statement::Family(Family::Ipv4),
            Statement::InRange {
                field: Field::SourceV4,
                negated: false,
                first: v4("10.0.0.1"),
                last: v4("10.0.0.9"),
            },
        ],
        vec![
            equal(Field::Protocol, Value::Protocol(6)),
            equal(Field::SourcePort, Value::Port(1)),
            equal(Field::DestinationPort, Value::Port(2)),
        ],
        vec![
            equal(Field::Protocol, Value::Protocol(17)),
            Statement::InRange {
                field: Field::DestinationPort,
                negated: true,
                first: Value::Port(5),
                last: Value::Port(9),
            },
            within(&[Field::DestinationPort], false, "port"),
        ],
        vec![Statement::Family(Family::Ipv4), within(&[Field::SourceV4], true, "sel4")],
        vec![Statement::Family(Family::Ipv4), within(&[Field::SourceV4], false, "net4")],
        vec![Statement::Family(Family::Ipv6), within(&[Field::DestinationV6], false, "sel6")],
        vec![Statement::Family(Family::Ipv6), within(&[Field::DestinationV6], true, "net6")],
        vec![
            Statement::Family(Family::Ipv4),
            within(&[Field::InputInterface, Field::SourceV4], true, "own4"),
            drop(),
        ],
        vec![
            Statement::Family(Family::Ipv6),
            within(&[Field::InputInterface, Field::SourceV6], true, "own6"),
            drop(),
        ],
        vec![
            Statement::Family(Family::Ipv4),
            equal(Field::Protocol, Value::Protocol(6)),
            within(&[Field::DestinationV4, Field::Protocol, Field::DestinationPort], false, "np4"),
        ],
        vec![
            Statement::Family(Family::Ipv4),
            equal(Field::Protocol, Value::Protocol(6)),
            within(&[Field::DestinationV4, Field::Protocol, Field::DestinationPort], false, "cat"),
        ],
        vec![
            equal(Field::Protocol, Value::Protocol(6)),
            Statement::VerdictMap {
                fields: vec![Field::Protocol, Field::DestinationPort],
                map: "cells".into(),
            },
        ],
        vec![Statement::Verdict(Verdict::Goto("end".into()))],
    ]
}

fn every_icmp() -> Vec<Vec<Statement>> {
    use felix_calc::table::Family;
    let icmpv6 = || [Statement::Family(Family::Ipv6), equal(Field::Protocol, Value::Protocol(58))];
    let listener = Statement::InRange {
        field: Field::Icmpv6Type,
        negated: false,
        first: Value::Protocol(130),
        last: Value::Protocol(132),
    };
    let solicitation = equal(Field::Icmpv6Type, Value::Protocol(135));
    vec![
        [&icmpv6()[..], &[solicitation, equal(Field::HopLimit, Value::Protocol(255))]].concat(),
        [&icmpv6()[..], &[listener, equal(Field::Icmpv6Code, Value::Protocol(0))]].concat(),
        vec![
            Statement::Family(Family::Ipv4),
            equal(Field::Protocol, Value::Protocol(1)),
            equal(Field::IcmpType, Value::Protocol(8)),
            Statement::Match { field: Field::IcmpCode, negated: true, value: Value::Protocol(0) },
        ],
    ]
}

fn every_action() -> Vec<Vec<Statement>> {
    let state = |established, related, new, invalid, untracked| Statement::ConnectionState {
        established,
        related,
        new,
        invalid,
        untracked,
    };
    let tcp = || equal(Field::Protocol, Value::Protocol(6));
    vec![
        vec![state(true, true, false, false, false), Statement::Verdict(Verdict::Accept)],
        vec![state(false, false, true, false, false), Statement::Counter],
        vec![state(false, false, false, true, true), Statement::Verdict(Verdict::Drop)],
        vec![Statement::ConnectionDnat { negated: false }, Statement::Verdict(Verdict::Return)],
        vec![Statement::ConnectionDnat { negated: true }, Statement::Verdict(Verdict::Continue)],
        vec![
            Statement::Limit { per_second: 10, burst: 20 },
            Statement::Log { prefix: "manx:deny:ns/policy/ingress-0".into(), group: 77 },
        ],
        vec![Statement::Log { prefix: String::new(), group: 0 }],
        vec![tcp(), Statement::Reject { tcp_reset: true }],
        vec![Statement::Counter, Statement::Reject { tcp_reset: false }],
        vec![Statement::Verdict(Verdict::Drop)],
    ]
}
