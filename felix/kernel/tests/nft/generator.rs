//! Random tables that the kernel accepts: jumps go from lower to higher chains, ranges do not touch, keys fit their sets.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use felix_calc::table::{
    Base, Chain, Data, DataType, Element, Family, Field, Hook, KeyType, Rule, Set, Statement, Table, Value,
    Verdict,
};

/// Shapes of sets: key, with the fields that look such a key up.
const SHAPES: [(&[KeyType], &[Field]); 9] = [
    (&[KeyType::Ipv4], &[Field::SourceV4]),
    (&[KeyType::Ipv6], &[Field::DestinationV6]),
    (&[KeyType::Interface], &[Field::InputInterface]),
    (&[KeyType::Port], &[Field::DestinationPort]),
    (&[KeyType::Protocol], &[Field::Protocol]),
    (&[KeyType::Interface, KeyType::Ipv4], &[Field::OutputInterface, Field::DestinationV4]),
    (&[KeyType::Interface, KeyType::Interface], &[Field::InputInterface, Field::OutputInterface]),
    (
        &[KeyType::Ipv6, KeyType::Protocol, KeyType::Port],
        &[Field::SourceV6, Field::Protocol, Field::SourcePort],
    ),
    (&[KeyType::Protocol, KeyType::Port], &[Field::Protocol, Field::DestinationPort]),
];

const FIELDS: [(Field, KeyType); 14] = [
    (Field::InputInterface, KeyType::Interface),
    (Field::OutputInterface, KeyType::Interface),
    (Field::SourceV4, KeyType::Ipv4),
    (Field::DestinationV4, KeyType::Ipv4),
    (Field::SourceV6, KeyType::Ipv6),
    (Field::DestinationV6, KeyType::Ipv6),
    (Field::Protocol, KeyType::Protocol),
    (Field::SourcePort, KeyType::Port),
    (Field::DestinationPort, KeyType::Port),
    (Field::IcmpType, KeyType::Protocol),
    (Field::IcmpCode, KeyType::Protocol),
    (Field::Icmpv6Type, KeyType::Protocol),
    (Field::Icmpv6Code, KeyType::Protocol),
    (Field::HopLimit, KeyType::Protocol),
];

/// The table of this seed.
pub(crate) fn random_table(seed: u64) -> Table {
    let mut random = Random(seed | 1);
    let chains: Vec<String> = (0..1 + random.below(6)).map(|n| format!("chain{n}")).collect();
    let mut table = Table::default();
    let mut lookups = Vec::new();
    for n in 0..random.below(7) {
        let (set, fields) = random.set(&chains);
        // Verdicts of a map may go anywhere below the first chain, so only the first chain may look it up.
        lookups.push((format!("set{n}"), fields, set.data));
        table.sets.insert(format!("set{n}"), set);
    }
    for (place, name) in chains.iter().enumerate() {
        let base = (place == 0).then(|| random.base());
        let rules =
            (0..random.below(8)).map(|_| random.rule(&chains[place + 1..], place == 0, &lookups)).collect();
        table.chains.insert(name.clone(), Chain { base, rules });
    }
    if random.flip() {
        let base = Base { hook: Hook::Postrouting, priority: 100, drop: false };
        let rules = vec![Rule { statements: vec![Statement::Masquerade], comment: random.comment() }];
        table.chains.insert("nat".to_owned(), Chain { base: Some(base), rules });
    }
    table
}

/// xorshift64: any will do, as long as a seed gives the same table again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 33) % limit
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }

    fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    fn base(&mut self) -> Base {
        let hook = self.choose(&[Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output]);
        Base { hook, priority: self.choose(&[-150, -1, 0, 1, 100]), drop: self.flip() }
    }

    fn comment(&mut self) -> Option<String> {
        self.flip().then(|| "c".repeat(self.below(128) as usize))
    }

    fn set(&mut self, chains: &[String]) -> (Set, Vec<Field>) {
        let (key, fields) = self.choose(&SHAPES);
        let ranged =
            matches!(key.last(), Some(KeyType::Ipv4 | KeyType::Ipv6 | KeyType::Port | KeyType::Protocol));
        let interval = ranged && self.flip();
        let data = self.choose(&[None, None, Some(DataType::Verdict), Some(DataType::Word)]);
        let elements = if interval { self.ranges(key) } else { self.exact(key) };
        let elements = elements
            .into_iter()
            .map(|element| {
                let data = data.map(|data| match data {
                    DataType::Word => Data::Word(self.next() as u32),
                    DataType::Verdict => Data::Verdict(self.verdict(&chains[1..])),
                });
                (element, data)
            })
            .collect::<BTreeMap<_, _>>();
        (Set { key: key.to_vec(), interval, data, counter: self.flip(), elements }, fields.to_vec())
    }

    fn exact(&mut self, key: &[KeyType]) -> Vec<Element> {
        let count = self.below(12);
        (0..count).map(|_| Element::Exact(key.iter().map(|kind| self.value(*kind)).collect())).collect()
    }

    /// Disjoint ranges: between the sorted values of a list, two by two; adjacent ones occur, as do both extremes.
    fn ranges(&mut self, key: &[KeyType]) -> Vec<Element> {
        let (last, prefix) = key.split_last().unwrap();
        let mut bounds: Vec<Value> = (0..2 * self.below(6)).map(|_| self.value(*last)).collect();
        bounds.extend([lowest(*last), highest(*last)]);
        bounds.sort();
        bounds.dedup();
        let prefix: Vec<Value> = prefix.iter().map(|kind| self.value(*kind)).collect();
        bounds
            .chunks_exact(2)
            .map(|pair| Element::Range {
                prefix: prefix.clone(),
                first: pair[0].clone(),
                last: pair[1].clone(),
            })
            .collect()
    }

    fn value(&mut self, kind: KeyType) -> Value {
        match kind {
            KeyType::Interface => {
                Value::Interface(format!("manx{}", "0123456789a".split_at(self.below(12) as usize).0))
            }
            KeyType::Ipv4 => Value::Ipv4(Ipv4Addr::from(self.next() as u32)),
            KeyType::Ipv6 => {
                Value::Ipv6(Ipv6Addr::from(u128::from(self.next()) << 64 | u128::from(self.next())))
            }
            KeyType::Protocol => Value::Protocol(self.next() as u8),
            KeyType::Port => Value::Port(self.next() as u16),
            KeyType::Word => Value::Word(self.next() as u32),
        }
    }

    fn verdict(&mut self, targets: &[String]) -> Verdict {
        let mut verdicts = vec![Verdict::Accept, Verdict::Drop, Verdict::Return, Verdict::Continue];
        if !targets.is_empty() {
            let target = self.choose(targets);
            verdicts.extend([Verdict::Jump(target.clone()), Verdict::Goto(target)]);
        }
        self.choose(&verdicts)
    }

    fn rule(
        &mut self,
        targets: &[String],
        entered: bool,
        lookups: &[(String, Vec<Field>, Option<DataType>)],
    ) -> Rule {
        let mut statements: Vec<Statement> = (0..self.below(5)).map(|_| self.condition()).collect();
        let sets: Vec<_> = lookups.iter().filter(|(_, _, data)| data.is_none()).collect();
        if !sets.is_empty() && self.flip() {
            let (set, fields, _) = self.choose(&sets);
            statements.push(Statement::InSet {
                fields: fields.clone(),
                negated: self.flip(),
                set: set.clone(),
            });
        }
        let maps: Vec<_> = lookups.iter().filter(|(_, _, data)| *data == Some(DataType::Verdict)).collect();
        if entered && !maps.is_empty() && self.flip() {
            let (map, fields, _) = self.choose(&maps);
            statements.push(Statement::VerdictMap { fields: fields.clone(), map: map.clone() });
        } else {
            statements.push(self.action(targets));
        }
        Rule { statements, comment: self.comment() }
    }

    fn condition(&mut self) -> Statement {
        let (field, kind) = self.choose(&FIELDS);
        let interface = self.choose(&[Field::InputInterface, Field::OutputInterface]);
        match self.below(6) {
            0 => Statement::Family(self.choose(&[Family::Ipv4, Family::Ipv6])),
            1 => Statement::InterfacePrefix { field: interface, negated: self.flip(), prefix: "manx".into() },
            2 if kind != KeyType::Interface => {
                let mut ends = [self.value(kind), self.value(kind)];
                ends.sort();
                let [first, last] = ends;
                Statement::InRange { field, negated: self.flip(), first, last }
            }
            3 => Statement::ConnectionState {
                established: true,
                related: self.flip(),
                new: self.flip(),
                invalid: self.flip(),
                untracked: self.flip(),
            },
            4 => Statement::ConnectionDnat { negated: self.flip() },
            _ => Statement::Match { field, negated: self.flip(), value: self.value(kind) },
        }
    }

    fn action(&mut self, targets: &[String]) -> Statement {
        match self.below(6) {
            0 => Statement::Counter,
            1 => Statement::Limit {
                per_second: 1 + self.below(1000) as u32,
                burst: 1 + self.below(1000) as u32,
            },
            2 => Statement::Log { prefix: self.comment().unwrap_or_default(), group: self.next() as u16 },
            _ => Statement::Verdict(self.verdict(targets)),
        }
    }
}

fn lowest(kind: KeyType) -> Value {
    match kind {
        KeyType::Ipv4 => Value::Ipv4(Ipv4Addr::UNSPECIFIED),
        KeyType::Ipv6 => Value::Ipv6(Ipv6Addr::UNSPECIFIED),
        KeyType::Protocol => Value::Protocol(0),
        KeyType::Port => Value::Port(0),
        KeyType::Interface | KeyType::Word => unreachable!("no ranges of these"),
    }
}

fn highest(kind: KeyType) -> Value {
    match kind {
        KeyType::Ipv4 => Value::Ipv4(Ipv4Addr::BROADCAST),
        KeyType::Ipv6 => Value::Ipv6(Ipv6Addr::from(u128::MAX)),
        KeyType::Protocol => Value::Protocol(u8::MAX),
        KeyType::Port => Value::Port(u16::MAX),
        KeyType::Interface | KeyType::Word => unreachable!("no ranges of these"),
    }
}
