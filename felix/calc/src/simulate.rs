//! A packet's walk through a table, with the kernel's semantics (policy-compiler.md §8).
//!
//! What a packet or its connection says is an input. A statement that does not match, or whose field the
//! packet lacks, ends its rule; `goto` replaces the chain, `jump` comes back; `accept` ends one base chain;
//! the end of a chain is a return, the end of a base chain its policy. `limit` lets everything through: a
//! walk is one packet.

use std::net::IpAddr;

use crate::compile::Place;
use crate::model::Answer;
use crate::packet::{Connection, Packet};
use crate::table::{
    Base, Chain, Data, Element, Family, Field, Hook, Rule, Set, Statement, Table, Value, Verdict as Jump,
};
use crate::verdict::Verdict;

/// What became of the packet and what it left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    pub verdict: Verdict,
    /// Rules that counted it, in order.
    pub counted: Vec<Place>,
    /// Prefixes of the lines that it would log, in order.
    pub logged: Vec<String>,
    /// It leaves under the node's address.
    pub masqueraded: bool,
}

/// The table is not one that the kernel would take, or not one that means what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimulateError {
    #[error("chain {0} does not exist")]
    NoChain(String),
    #[error("set {0} does not exist")]
    NoSet(String),
    #[error("map {0}: an element without a verdict")]
    NoVerdict(String),
    #[error("chain {chain} rule {position}: {field:?} without a match on its family")]
    WrongFamily { chain: String, position: usize, field: Field },
    #[error("more than 16 nested jumps")]
    TooDeep,
}

pub fn simulate(table: &Table, packet: &Packet) -> Result<Walk, SimulateError> {
    Walker { before: table, after: table, flips_at: 0, moment: 0, packet, walk: nothing_yet() }.run()
}

/// Whether the first packet of a connection leaves under the node's address, as the chains behind routing decide.
pub fn simulate_source_nat(table: &Table, packet: &Packet) -> Result<bool, SimulateError> {
    let mut walker =
        Walker { before: table, after: table, flips_at: 0, moment: 0, packet, walk: nothing_yet() };
    walker.walk_hook(Hook::Postrouting)?;
    Ok(walker.walk.masqueraded)
}

/// [`simulate`] while a transaction is committed: everything that the packet looks up before its
/// `flips_at`-th look (a base chain's rules or a set) it finds in `before`, the rest in `after`.
pub fn simulate_during(
    before: &Table,
    after: &Table,
    flips_at: usize,
    packet: &Packet,
) -> Result<(Walk, usize), SimulateError> {
    let mut walker = Walker { before, after, flips_at, moment: 0, packet, walk: nothing_yet() };
    walker.walk_hook(packet.hook())?;
    Ok((walker.walk, walker.moment))
}

fn nothing_yet() -> Walk {
    Walk { verdict: Verdict::Allow, counted: Vec::new(), logged: Vec::new(), masqueraded: false }
}

struct Walker<'a> {
    before: &'a Table,
    after: &'a Table,
    flips_at: usize,
    moment: usize,
    packet: &'a Packet,
    walk: Walk,
}

/// How a chain ended.
enum End {
    Accept,
    Deny(Answer),
    Return,
}

/// What a statement does to its rule.
enum Next {
    Statement,
    Rule,
    Go(Jump),
    Deny(Answer),
}

impl<'a> Walker<'a> {
    fn run(mut self) -> Result<Walk, SimulateError> {
        self.walk_hook(self.packet.hook())?;
        Ok(self.walk)
    }

    fn walk_hook(&mut self, hook: Hook) -> Result<(), SimulateError> {
        for (name, base) in base_chains(if self.flips_at == 0 { self.after } else { self.before }, hook) {
            // The kernel takes a base chain's rules, and those of all chains behind it, at its entry.
            let table = self.look();
            let Some(chain) = table.chains.get(name) else { continue };
            let end = self.walk_chain(table, name, chain, 0)?;
            match end {
                End::Accept => {}
                End::Deny(answer) => self.walk.verdict = Verdict::Deny(answer),
                End::Return if base.drop => self.walk.verdict = Verdict::Deny(Answer::Drop),
                End::Return => {}
            }
            if self.walk.verdict != Verdict::Allow {
                break;
            }
        }
        Ok(())
    }

    /// The table as it is at this look.
    fn look(&mut self) -> &'a Table {
        let table = if self.moment < self.flips_at { self.before } else { self.after };
        self.moment += 1;
        table
    }

    fn walk_chain(
        &mut self,
        table: &'a Table,
        name: &str,
        chain: &'a Chain,
        depth: usize,
    ) -> Result<End, SimulateError> {
        if depth > 16 {
            return Err(SimulateError::TooDeep);
        }
        let (mut name, mut chain) = (name.to_owned(), chain);
        'chain: loop {
            for (position, rule) in chain.rules.iter().enumerate() {
                let target = match self.walk_rule(&name, position, rule)? {
                    Next::Statement | Next::Rule | Next::Go(Jump::Continue) => continue,
                    Next::Deny(answer) => return Ok(End::Deny(answer)),
                    Next::Go(Jump::Accept) => return Ok(End::Accept),
                    Next::Go(Jump::Drop) => return Ok(End::Deny(Answer::Drop)),
                    Next::Go(Jump::Return) => return Ok(End::Return),
                    Next::Go(Jump::Goto(target)) => {
                        chain = table.chains.get(&target).ok_or(SimulateError::NoChain(target.clone()))?;
                        name = target;
                        continue 'chain;
                    }
                    Next::Go(Jump::Jump(target)) => target,
                };
                let below = table.chains.get(&target).ok_or(SimulateError::NoChain(target.clone()))?;
                match self.walk_chain(table, &target, below, depth + 1)? {
                    End::Return => {}
                    end @ (End::Accept | End::Deny(_)) => return Ok(end),
                }
            }
            return Ok(End::Return);
        }
    }

    fn walk_rule(&mut self, chain: &str, position: usize, rule: &Rule) -> Result<Next, SimulateError> {
        let mut family = None;
        for statement in &rule.statements {
            if let Some(field) =
                fields_of(statement).find(|field| needs(*field).is_some_and(|f| Some(f) != family))
            {
                return Err(SimulateError::WrongFamily { chain: chain.to_owned(), position, field });
            }
            if let Statement::Family(wanted) = statement {
                family = Some(*wanted);
            }
            match self.statement(chain, position, statement)? {
                Next::Statement => {}
                next @ (Next::Rule | Next::Go(_) | Next::Deny(_)) => return Ok(next),
            }
        }
        Ok(Next::Rule)
    }

    fn statement(
        &mut self,
        chain: &str,
        position: usize,
        statement: &Statement,
    ) -> Result<Next, SimulateError> {
        let holds = |holds: bool| if holds { Next::Statement } else { Next::Rule };
        Ok(match statement {
            Statement::Family(family) => holds(*family == self.packet.family()),
            Statement::Match { field, negated, value } => match self.field(*field) {
                None => Next::Rule,
                Some(found) => holds((found == *value) != *negated),
            },
            Statement::InterfacePrefix { field, negated, prefix } => {
                let name = match self.field(*field) {
                    Some(Value::Interface(name)) => name,
                    Some(_) | None => return Ok(Next::Rule),
                };
                holds(name.starts_with(prefix) != *negated)
            }
            Statement::InRange { field, negated, first, last } => match self.field(*field) {
                None => Next::Rule,
                Some(found) => holds((*first <= found && found <= *last) != *negated),
            },
            Statement::InSet { fields, negated, set } => match self.key(fields) {
                None => Next::Rule,
                Some(key) => holds(find(self.set(set)?, &key).is_some() != *negated),
            },
            Statement::VerdictMap { fields, map } => {
                let Some(key) = self.key(fields) else { return Ok(Next::Rule) };
                match find(self.set(map)?, &key) {
                    None => Next::Rule,
                    Some(Some(Data::Verdict(Jump::Continue))) => Next::Statement,
                    Some(Some(Data::Verdict(verdict))) => Next::Go(verdict.clone()),
                    Some(Some(Data::Word(_)) | None) => return Err(SimulateError::NoVerdict(map.clone())),
                }
            }
            Statement::ConnectionState { established, related, new, invalid, untracked } => {
                holds(match self.packet.connection {
                    Connection::New => *new,
                    Connection::Established => *established,
                    Connection::Related => *related,
                    Connection::Invalid => *invalid,
                    Connection::Untracked => *untracked,
                })
            }
            // Without a connection there is no status, and the rule ends here whatever it asks.
            Statement::ConnectionDnat { negated } => {
                let packet = self.packet;
                let followed = !matches!(packet.connection, Connection::Invalid | Connection::Untracked);
                holds(followed && packet.dnat != *negated)
            }
            Statement::Counter => {
                self.walk.counted.push(Place { chain: chain.to_owned(), position });
                Next::Statement
            }
            Statement::Log { prefix, .. } => {
                self.walk.logged.push(prefix.clone());
                Next::Statement
            }
            Statement::Limit { .. } => Next::Statement,
            // Ends the chain, and the other chains of source NAT are not asked.
            Statement::Masquerade => {
                self.walk.masqueraded = true;
                Next::Go(Jump::Accept)
            }
            Statement::Reject { .. } => Next::Deny(Answer::Reject),
            Statement::Verdict(verdict) => Next::Go(verdict.clone()),
        })
    }

    fn set(&mut self, name: &str) -> Result<&'a Set, SimulateError> {
        self.look().sets.get(name).ok_or_else(|| SimulateError::NoSet(name.to_owned()))
    }

    fn key(&self, fields: &[Field]) -> Option<Vec<Value>> {
        fields.iter().map(|field| self.field(*field)).collect()
    }

    /// What the packet carries there; `None`: nothing, so the load fails.
    fn field(&self, field: Field) -> Option<Value> {
        let packet = self.packet;
        let interface = |name: &Option<String>| Some(Value::Interface(name.clone().unwrap_or_default()));
        match field {
            Field::InputInterface => interface(&packet.input),
            Field::OutputInterface => interface(&packet.output),
            Field::SourceV4 | Field::SourceV6 => Some(address(packet.source)),
            Field::DestinationV4 | Field::DestinationV6 => Some(address(packet.destination)),
            Field::Protocol => Some(Value::Protocol(packet.protocol)),
            Field::SourcePort => packet.source_port().map(Value::Port),
            Field::DestinationPort => packet.destination_port().map(Value::Port),
            Field::IcmpType | Field::Icmpv6Type => packet.icmp_kind().map(Value::Protocol),
            Field::IcmpCode | Field::Icmpv6Code => packet.icmp_code().map(Value::Protocol),
            Field::HopLimit => Some(Value::Protocol(packet.hop_limit)),
        }
    }
}

/// In the order in which the kernel enters them.
fn base_chains(table: &Table, hook: Hook) -> Vec<(&str, Base)> {
    let mut chains: Vec<_> = table
        .chains
        .iter()
        .filter_map(|(name, chain)| Some((name.as_str(), chain.base?)))
        .filter(|(_, base)| base.hook == hook)
        .collect();
    chains.sort_by_key(|(name, base)| (base.priority, *name));
    chains
}

/// The element that holds the key, with its data.
fn find<'a>(set: &'a Set, key: &[Value]) -> Option<&'a Option<Data>> {
    if !set.interval {
        return set.elements.get(&Element::Exact(key.to_vec()));
    }
    let (last_field, fields_before) = key.split_last()?;
    set.elements.iter().find_map(|(element, data)| {
        let held = match element {
            Element::Exact(values) => values == key,
            Element::Range { prefix, first, last } => {
                prefix == fields_before && first <= last_field && last_field <= last
            }
        };
        held.then_some(data)
    })
}

fn address(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => Value::Ipv4(address),
        IpAddr::V6(address) => Value::Ipv6(address),
    }
}

/// The family without whose match a field would read other bytes.
fn needs(field: Field) -> Option<Family> {
    match field {
        Field::SourceV4 | Field::DestinationV4 => Some(Family::Ipv4),
        Field::SourceV6 | Field::DestinationV6 | Field::HopLimit => Some(Family::Ipv6),
        Field::InputInterface
        | Field::OutputInterface
        | Field::Protocol
        | Field::SourcePort
        | Field::DestinationPort
        | Field::IcmpType
        | Field::IcmpCode
        | Field::Icmpv6Type
        | Field::Icmpv6Code => None,
    }
}

fn fields_of(statement: &Statement) -> impl Iterator<Item = Field> {
    let (one, many): (Option<Field>, &[Field]) = match statement {
        Statement::Match { field, .. } | Statement::InRange { field, .. } => (Some(*field), &[]),
        Statement::InterfacePrefix { field, .. } => (Some(*field), &[]),
        Statement::InSet { fields, .. } | Statement::VerdictMap { fields, .. } => (None, fields),
        Statement::Family(_)
        | Statement::ConnectionState { .. }
        | Statement::ConnectionDnat { .. }
        | Statement::Counter
        | Statement::Limit { .. }
        | Statement::Log { .. }
        | Statement::Reject { .. }
        | Statement::Masquerade
        | Statement::Verdict(_) => (None, &[]),
    };
    one.into_iter().chain(many.iter().copied())
}
