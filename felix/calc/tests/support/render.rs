//! A table as text, near to what `nft list` shows, for people to read in a golden file.

use std::fmt::Write as _;

use felix_calc::table::{Data, Element, Family, Field, Rule, Statement, Table, Value, Verdict};

pub fn table(table: &Table) -> String {
    let mut text = String::new();
    for (name, set) in &table.sets {
        let kind = if set.data.is_some() { "map" } else { "set" };
        writeln!(text, "{kind} {name} {{").unwrap();
        for (element, data) in &set.elements {
            let data = data.as_ref().map(|data| format!(" : {}", data_text(data))).unwrap_or_default();
            writeln!(text, "    {}{data}", element_text(element)).unwrap();
        }
        writeln!(text, "}}").unwrap();
    }
    for (name, chain) in &table.chains {
        writeln!(text, "chain {name} {{").unwrap();
        if let Some(base) = chain.base {
            let policy = if base.drop { "drop" } else { "accept" };
            let hook = format!("{:?}", base.hook).to_lowercase();
            writeln!(text, "    hook {hook} priority {} policy {policy}", base.priority).unwrap();
        }
        for rule in &chain.rules {
            writeln!(text, "    {}", rule_text(rule)).unwrap();
        }
        writeln!(text, "}}").unwrap();
    }
    text
}

fn rule_text(rule: &Rule) -> String {
    let mut parts: Vec<String> = rule.statements.iter().map(statement).collect();
    parts.extend(rule.comment.as_ref().map(|comment| format!("comment \"{comment}\"")));
    parts.join(" ")
}

fn statement(statement: &Statement) -> String {
    let not = |negated: &bool| if *negated { "!= " } else { "" };
    match statement {
        Statement::Family(Family::Ipv4) => "nfproto ipv4".to_owned(),
        Statement::Family(Family::Ipv6) => "nfproto ipv6".to_owned(),
        Statement::Match { field, negated, value } => {
            format!("{} {}{}", name(*field), not(negated), value_text(value))
        }
        Statement::InterfacePrefix { field, negated, prefix } => {
            format!("{} {}\"{prefix}*\"", name(*field), not(negated))
        }
        Statement::InRange { field, negated, first, last } => {
            format!("{} {}{}-{}", name(*field), not(negated), value_text(first), value_text(last))
        }
        Statement::InSet { fields, negated, set } => format!("{} {}@{set}", names(fields), not(negated)),
        Statement::VerdictMap { fields, map } => format!("{} vmap @{map}", names(fields)),
        Statement::ConnectionState { established, related, new, invalid, untracked } => {
            let all = [
                ("established", established),
                ("related", related),
                ("new", new),
                ("invalid", invalid),
                ("untracked", untracked),
            ];
            let set: Vec<&str> = all.iter().filter(|(_, on)| **on).map(|(name, _)| *name).collect();
            format!("ct state {}", set.join(","))
        }
        Statement::ConnectionDnat { negated } => format!("ct status {}dnat", not(negated)),
        Statement::Counter => "counter".to_owned(),
        Statement::Limit { per_second, burst } => {
            format!("limit rate {per_second}/second burst {burst} packets")
        }
        Statement::Log { prefix, group } => format!("log prefix \"{prefix}\" group {group}"),
        Statement::Reject { tcp_reset: true } => "reject with tcp reset".to_owned(),
        Statement::Reject { tcp_reset: false } => "reject with icmpx admin-prohibited".to_owned(),
        Statement::Masquerade => "masquerade fully-random".to_owned(),
        Statement::Verdict(verdict) => verdict_text(verdict),
    }
}

fn names(fields: &[Field]) -> String {
    fields.iter().map(|field| name(*field)).collect::<Vec<_>>().join(" . ")
}

fn name(field: Field) -> &'static str {
    match field {
        Field::InputInterface => "iifname",
        Field::OutputInterface => "oifname",
        Field::SourceV4 => "ip saddr",
        Field::DestinationV4 => "ip daddr",
        Field::SourceV6 => "ip6 saddr",
        Field::DestinationV6 => "ip6 daddr",
        Field::Protocol => "l4proto",
        Field::SourcePort => "th sport",
        Field::DestinationPort => "th dport",
        Field::IcmpType => "icmp type",
        Field::IcmpCode => "icmp code",
        Field::Icmpv6Type => "icmpv6 type",
        Field::Icmpv6Code => "icmpv6 code",
        Field::HopLimit => "ip6 hoplimit",
    }
}

fn element_text(element: &Element) -> String {
    match element {
        Element::Exact(values) => values.iter().map(value_text).collect::<Vec<_>>().join(" . "),
        Element::Range { prefix, first, last } => {
            let range = format!("{}-{}", value_text(first), value_text(last));
            prefix.iter().map(value_text).chain([range]).collect::<Vec<_>>().join(" . ")
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

fn data_text(data: &Data) -> String {
    match data {
        Data::Verdict(verdict) => verdict_text(verdict),
        Data::Word(word) => word.to_string(),
    }
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}
