//! A table in the JSON that `nft -j` speaks: for `manxctl policy dump`, goldens, and nft's own judgement in tests.
//!
//! Chains and rules go through the types of the `nftables` crate. Sets and maps are written by hand: the crate knows
//! neither verdict maps nor counters of elements, and lists flags in random order.

use std::borrow::Cow;

use felix_calc::host::TABLE;
use felix_calc::table::{
    Base, Chain, Data, DataType, Element, Family, Field, Hook, KeyType, Rule, Set, Statement, Table, Value,
    Verdict,
};
use nftables::expr::{
    BinaryOperation, CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Range,
};
use nftables::schema::{self, NfListObject};
use nftables::stmt::{
    self, Counter, JumpTarget, Limit, Log, Match, NAT, NATFlag, Operator, Reject, RejectType, VerdictMap,
};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook, RejectCode};
use serde_json::{Value as Json, json};

use super::write::chain_type;

/// The commands that make this table where there is none, as `{"nftables": [{"add": …}, …]}`; `nft -j -f` takes them.
///
/// # Errors
/// When a value has no form in JSON, which none of ours lacks.
pub fn render(table: &Table) -> Result<Json, serde_json::Error> {
    let own = schema::Table { family: NfFamily::INet, name: TABLE.into(), handle: None };
    let mut commands = vec![add(serde_json::to_value(NfListObject::Table(own))?)];
    for (name, chain) in &table.chains {
        commands.push(add(serde_json::to_value(NfListObject::Chain(chain_object(name, chain)))?));
    }
    // Behind the chains that verdicts go to, in front of the rules that look them up.
    for (name, set) in &table.sets {
        commands.push(add(set_object(name, set)));
    }
    for (name, chain) in &table.chains {
        for rule in &chain.rules {
            commands.push(add(serde_json::to_value(NfListObject::Rule(rule_object(name, rule)))?));
        }
    }
    Ok(json!({ "nftables": commands }))
}

/// An element as a person would write it.
pub(super) fn element_text(element: &Element) -> String {
    let join =
        |values: &[&Value]| values.iter().map(|value| value_text(value)).collect::<Vec<_>>().join(" . ");
    match element {
        Element::Exact(values) => join(&values.iter().collect::<Vec<_>>()),
        Element::Range { prefix, first, last } => {
            let first = join(&prefix.iter().chain([first]).collect::<Vec<_>>());
            format!("{first}-{}", value_text(last))
        }
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Interface(name) => name.clone(),
        Value::Ipv4(address) => address.to_string(),
        Value::Ipv6(address) => address.to_string(),
        Value::Protocol(number) => number.to_string(),
        Value::Port(port) => port.to_string(),
        Value::Word(word) => word.to_string(),
    }
}

fn add(object: Json) -> Json {
    json!({ "add": object })
}

fn chain_object<'a>(name: &'a str, chain: &Chain) -> schema::Chain<'a> {
    let mut object = schema::Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        ..schema::Chain::default()
    };
    if let Some(base) = &chain.base {
        object._type = Some(if chain_type(base) == "nat" { NfChainType::NAT } else { NfChainType::Filter });
        object.hook = Some(hook(base));
        object.prio = Some(base.priority);
        object.policy = Some(if base.drop { NfChainPolicy::Drop } else { NfChainPolicy::Accept });
    }
    object
}

fn hook(base: &Base) -> NfHook {
    match base.hook {
        Hook::Prerouting => NfHook::Prerouting,
        Hook::Input => NfHook::Input,
        Hook::Forward => NfHook::Forward,
        Hook::Output => NfHook::Output,
        Hook::Postrouting => NfHook::Postrouting,
    }
}

fn set_object(name: &str, set: &Set) -> Json {
    let types: Vec<_> = set.key.iter().map(|key| type_name(*key)).collect();
    let mut object = serde_json::Map::new();
    let mut put = |key: &str, value: Json| object.insert(key.to_owned(), value);
    put("family", json!("inet"));
    put("table", json!(TABLE));
    put("name", json!(name));
    put(
        "type",
        match types.as_slice() {
            [one] => json!(one),
            several => json!(several),
        },
    );
    match set.data {
        Some(DataType::Verdict) => put("map", json!("verdict")),
        Some(DataType::Word) => put("map", json!("mark")),
        None => None,
    };
    if set.interval {
        put("flags", json!(["interval"]));
    }
    if set.counter {
        put("stmt", json!([{ "counter": null }]));
    }
    if !set.elements.is_empty() {
        let elements = set.elements.iter().map(|(element, data)| match data {
            Some(data) => json!([element_json(element), data_json(data)]),
            None => element_json(element),
        });
        put("elem", elements.collect());
    }
    if set.data.is_some() { json!({ "map": object }) } else { json!({ "set": object }) }
}

fn type_name(key: KeyType) -> &'static str {
    match key {
        KeyType::Interface => "ifname",
        KeyType::Ipv4 => "ipv4_addr",
        KeyType::Ipv6 => "ipv6_addr",
        KeyType::Protocol => "inet_proto",
        KeyType::Port => "inet_service",
        KeyType::Word => "mark",
    }
}

fn element_json(element: &Element) -> Json {
    let key = |values: Vec<Json>| match <[Json; 1]>::try_from(values) {
        Ok([one]) => one,
        Err(several) => json!({ "concat": several }),
    };
    match element {
        Element::Exact(values) => key(values.iter().map(value_json).collect()),
        Element::Range { prefix, first, last } => {
            let range = if first == last {
                value_json(first)
            } else {
                json!({ "range": [value_json(first), value_json(last)] })
            };
            key(prefix.iter().map(value_json).chain([range]).collect())
        }
    }
}

fn value_json(value: &Value) -> Json {
    match value {
        Value::Interface(name) => json!(name),
        Value::Ipv4(address) => json!(address),
        Value::Ipv6(address) => json!(address),
        Value::Protocol(number) => json!(number),
        Value::Port(port) => json!(port),
        Value::Word(word) => json!(word),
    }
}

fn data_json(data: &Data) -> Json {
    match data {
        Data::Word(word) => json!(word),
        Data::Verdict(verdict) => match verdict {
            Verdict::Accept => json!({ "accept": null }),
            Verdict::Drop => json!({ "drop": null }),
            Verdict::Return => json!({ "return": null }),
            Verdict::Continue => json!({ "continue": null }),
            Verdict::Jump(chain) => json!({ "jump": { "target": chain } }),
            Verdict::Goto(chain) => json!({ "goto": { "target": chain } }),
        },
    }
}

fn rule_object<'a>(chain: &'a str, rule: &'a Rule) -> schema::Rule<'a> {
    schema::Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.into(),
        expr: Cow::Owned(rule.statements.iter().map(statement).collect()),
        comment: rule.comment.as_deref().map(Cow::Borrowed),
        ..schema::Rule::default()
    }
}

fn statement(statement: &Statement) -> stmt::Statement<'_> {
    match statement {
        Statement::Family(family) => {
            let name = match family {
                Family::Ipv4 => "ipv4",
                Family::Ipv6 => "ipv6",
            };
            matching(meta(MetaKey::Nfproto), Operator::EQ, Expression::String(name.into()))
        }
        Statement::Match { field, negated, value } => {
            matching(field_expression(*field), operator(*negated), value_expression(value))
        }
        Statement::InterfacePrefix { field, negated, prefix } => matching(
            field_expression(*field),
            operator(*negated),
            Expression::String(format!("{prefix}*").into()),
        ),
        Statement::InRange { field, negated, first, last } => {
            let range = Range { range: [value_expression(first), value_expression(last)] };
            matching(field_expression(*field), operator(*negated), Expression::Range(Box::new(range)))
        }
        Statement::InSet { fields, negated, set } => {
            matching(key_expression(fields), operator(*negated), set_reference(set))
        }
        Statement::VerdictMap { fields, map } => {
            stmt::Statement::VerdictMap(VerdictMap { key: key_expression(fields), data: set_reference(map) })
        }
        Statement::ConnectionState { established, related, new, invalid, untracked } => {
            let states = [
                (*established, "established"),
                (*related, "related"),
                (*new, "new"),
                (*invalid, "invalid"),
                (*untracked, "untracked"),
            ];
            let names =
                states.into_iter().filter(|(set, _)| *set).map(|(_, name)| Expression::String(name.into()));
            matching(connection("state"), Operator::IN, Expression::List(names.collect()))
        }
        Statement::ConnectionDnat { negated } => {
            let bit = || Expression::String("dnat".into());
            if *negated {
                let bits = BinaryOperation::AND(connection("status"), bit());
                matching(Expression::BinaryOperation(Box::new(bits)), Operator::EQ, Expression::Number(0))
            } else {
                matching(connection("status"), Operator::IN, bit())
            }
        }
        Statement::Counter => stmt::Statement::Counter(Counter::Anonymous(None)),
        Statement::Limit { per_second, burst } => stmt::Statement::Limit(Limit {
            rate: *per_second,
            rate_unit: None,
            per: Some("second".into()),
            burst: Some(*burst),
            burst_unit: None,
            inv: None,
        }),
        Statement::Log { prefix, group } => {
            let prefix = (!prefix.is_empty()).then_some(Cow::Borrowed(prefix.as_str()));
            stmt::Statement::Log(Some(Log { prefix, ..Log::new(Some((*group).into())) }))
        }
        Statement::Reject { tcp_reset: true } => {
            stmt::Statement::Reject(Some(Reject::new(Some(RejectType::TCPReset), None)))
        }
        Statement::Reject { tcp_reset: false } => {
            let code = Some(RejectCode::AdminProhibited);
            stmt::Statement::Reject(Some(Reject::new(Some(RejectType::ICMPX), code)))
        }
        Statement::Masquerade => {
            let flags = Some([NATFlag::FullyRandom].into());
            stmt::Statement::Masquerade(Some(NAT { addr: None, family: None, port: None, flags }))
        }
        Statement::Verdict(verdict) => verdict_statement(verdict),
    }
}

fn verdict_statement(verdict: &Verdict) -> stmt::Statement<'_> {
    match verdict {
        Verdict::Accept => stmt::Statement::Accept(None),
        Verdict::Drop => stmt::Statement::Drop(None),
        Verdict::Return => stmt::Statement::Return(None),
        Verdict::Continue => stmt::Statement::Continue(None),
        Verdict::Jump(chain) => stmt::Statement::Jump(JumpTarget { target: chain.into() }),
        Verdict::Goto(chain) => stmt::Statement::Goto(JumpTarget { target: chain.into() }),
    }
}

fn matching<'a>(left: Expression<'a>, op: Operator, right: Expression<'a>) -> stmt::Statement<'a> {
    stmt::Statement::Match(Match { left, right, op })
}

fn operator(negated: bool) -> Operator {
    if negated { Operator::NEQ } else { Operator::EQ }
}

fn set_reference(name: &str) -> Expression<'_> {
    Expression::String(format!("@{name}").into())
}

fn connection(key: &str) -> Expression<'_> {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

fn meta<'a>(key: MetaKey) -> Expression<'a> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn key_expression<'a>(fields: &[Field]) -> Expression<'a> {
    match fields {
        [one] => field_expression(*one),
        several => {
            let parts = several.iter().map(|field| field_expression(*field)).collect();
            Expression::Named(NamedExpression::Concat(parts))
        }
    }
}

fn field_expression<'a>(field: Field) -> Expression<'a> {
    let payload = |protocol: &'static str, field: &'static str| {
        let field = PayloadField { protocol: protocol.into(), field: field.into() };
        Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
    };
    match field {
        Field::InputInterface => meta(MetaKey::Iifname),
        Field::OutputInterface => meta(MetaKey::Oifname),
        Field::Protocol => meta(MetaKey::L4proto),
        Field::SourceV4 => payload("ip", "saddr"),
        Field::DestinationV4 => payload("ip", "daddr"),
        Field::SourceV6 => payload("ip6", "saddr"),
        Field::DestinationV6 => payload("ip6", "daddr"),
        Field::SourcePort => payload("th", "sport"),
        Field::DestinationPort => payload("th", "dport"),
        Field::IcmpType => payload("icmp", "type"),
        Field::IcmpCode => payload("icmp", "code"),
        Field::Icmpv6Type => payload("icmpv6", "type"),
        Field::Icmpv6Code => payload("icmpv6", "code"),
        Field::HopLimit => payload("ip6", "hoplimit"),
    }
}

fn value_expression(value: &Value) -> Expression<'_> {
    match value {
        Value::Interface(name) => Expression::String(name.into()),
        Value::Ipv4(address) => Expression::String(address.to_string().into()),
        Value::Ipv6(address) => Expression::String(address.to_string().into()),
        Value::Protocol(number) => Expression::Number((*number).into()),
        Value::Port(port) => Expression::Number((*port).into()),
        Value::Word(word) => Expression::Number(*word),
    }
}
