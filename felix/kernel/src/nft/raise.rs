//! The kernel's expressions back as a rule: the inverse of [`super::lower`], and of nothing else.
//!
//! An expression in a form that we never write is not ours; the rule is then reported as unknown and replaced with its
//! chain, instead of being taken for something it may not be.

use std::ops::ControlFlow;

use felix_calc::table::{Family, Field, Rule, Statement, Value};

use super::keys::{Count, INTERFACE_BYTES, decode, read_verdict, width};
use super::lower::{NFPROTO_IPV4, NFPROTO_IPV6, Source, source};
use super::wire::{
    self, DATA_VALUE, LIST_ITEM, REGISTER_VERDICT, expression, expression_of, find, find_be32, find_string,
    register_word, rule,
};
use crate::wire::attributes;

/// All fields. Of two that the kernel reads alike, the ICMPv4 one stands first.
const FIELDS: [Field; 14] = [
    Field::InputInterface,
    Field::OutputInterface,
    Field::SourceV4,
    Field::DestinationV4,
    Field::SourceV6,
    Field::DestinationV6,
    Field::Protocol,
    Field::SourcePort,
    Field::DestinationPort,
    Field::IcmpType,
    Field::IcmpCode,
    Field::Icmpv6Type,
    Field::Icmpv6Code,
    Field::HopLimit,
];

/// A rule and what its counter says, if it has one (of several, the first).
#[derive(Debug)]
pub(super) struct ReadRule {
    pub(super) rule: Rule,
    pub(super) count: Option<Count>,
}

/// Reads the attributes of a rule; `None` when it is none of ours.
pub(super) fn read_rule(bytes: &[u8]) -> Option<ReadRule> {
    let userdata = find(bytes, rule::USERDATA).unwrap_or(&[]);
    let comment = match wire::userdata_find(userdata, rule::USERDATA_COMMENT) {
        Some(bytes) => Some(String::from_utf8(bytes.strip_suffix(&[0])?.to_vec()).ok()?),
        None => None,
    };
    let icmp_families = wire::userdata_find(userdata, rule::USERDATA_ICMP_FAMILIES).unwrap_or(&[]);
    let mut raising = Raising { icmp_families: icmp_families.to_vec(), ..Raising::default() };
    let list = find(bytes, rule::EXPRESSIONS).unwrap_or(&[]);
    for (_, item) in attributes(list).filter(|(kind, _)| *kind == LIST_ITEM) {
        let (name, data) = expression_of(item)?;
        raising.expression(&name, data)?;
    }
    raising.finish(comment)
}

/// What a register was loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Field(Field),
    NetworkProtocol,
    Connection(u32),
    /// The same behind a mask.
    ConnectionBits {
        key: u32,
        mask: u32,
    },
}

#[derive(Debug, Default)]
struct Raising {
    icmp_families: Vec<u8>,
    /// Loaded and not yet used.
    loads: Vec<Load>,
    /// Word behind the last load.
    word: usize,
    statements: Vec<Statement>,
    count: Option<Count>,
}

impl Raising {
    fn expression(&mut self, name: &str, data: &[u8]) -> Option<()> {
        let statement = match name {
            "meta" => return self.meta(data),
            "payload" => return self.payload(data),
            "ct" => return self.connection(data),
            "bitwise" => return self.bitwise(data),
            "cmp" => self.compare(data)?,
            "range" => self.range(data)?,
            "lookup" => self.lookup(data)?,
            "counter" => {
                self.count = self.count.or(Count::read(data));
                Statement::Counter
            }
            "limit" => limit(data)?,
            "log" => log(data)?,
            "reject" => reject(data)?,
            "masq" => masquerade(data)?,
            "immediate" => immediate(data)?,
            _ => return None,
        };
        if !self.loads.is_empty() {
            return None;
        }
        self.statements.push(statement);
        Some(())
    }

    fn finish(self, comment: Option<String>) -> Option<ReadRule> {
        let used = self.loads.is_empty() && self.icmp_families.is_empty();
        used.then_some(ReadRule { rule: Rule { statements: self.statements, comment }, count: self.count })
    }

    /// Notes a load into the register behind those already loaded.
    fn load(&mut self, register: Option<u32>, load: Load, bytes: usize) -> Option<()> {
        if register_word(register?)? != self.word {
            return None;
        }
        self.word += bytes.div_ceil(4);
        self.loads.push(load);
        Some(())
    }

    /// The loads that an expression with this source register uses: all.
    fn take(&mut self, register: Option<u32>) -> Option<Vec<Load>> {
        if register_word(register?)? != 0 || self.loads.is_empty() {
            return None;
        }
        self.word = 0;
        Some(std::mem::take(&mut self.loads))
    }

    fn take_one(&mut self, register: Option<u32>) -> Option<Load> {
        match self.take(register)?.as_slice() {
            [load] => Some(*load),
            _ => None,
        }
    }

    fn meta(&mut self, data: &[u8]) -> Option<()> {
        use expression::meta;
        let key = find_be32(data, meta::KEY)?;
        let register = find_be32(data, meta::DESTINATION);
        if key == meta::NFPROTO {
            return self.load(register, Load::NetworkProtocol, 1);
        }
        let field = field_from(Source::Meta(key), None)?;
        self.load(register, Load::Field(field), width(source(field).1))
    }

    fn payload(&mut self, data: &[u8]) -> Option<()> {
        use expression::payload;
        let offset = find_be32(data, payload::OFFSET)?;
        let place = match find_be32(data, payload::BASE)? {
            payload::BASE_NETWORK => Source::Network { offset },
            payload::BASE_TRANSPORT => Source::Transport { offset },
            _ => return None,
        };
        let bytes = usize::try_from(find_be32(data, payload::LENGTH)?).ok()?;
        let mut field = field_from(place, Some(bytes))?;
        if matches!(field, Field::IcmpType | Field::IcmpCode) {
            field = self.icmp(field)?;
        }
        self.load(find_be32(data, payload::DESTINATION), Load::Field(field), bytes)
    }

    /// Which of the two ICMP protocols is meant: the next byte of the user data says it.
    fn icmp(&mut self, field: Field) -> Option<Field> {
        if self.icmp_families.is_empty() {
            return None;
        }
        match (self.icmp_families.remove(0), field) {
            (4, field) => Some(field),
            (6, Field::IcmpType) => Some(Field::Icmpv6Type),
            (6, _) => Some(Field::Icmpv6Code),
            (_, _) => None,
        }
    }

    fn connection(&mut self, data: &[u8]) -> Option<()> {
        use expression::ct;
        let key = find_be32(data, ct::KEY).filter(|key| [ct::STATE, ct::STATUS].contains(key))?;
        self.load(find_be32(data, ct::DESTINATION), Load::Connection(key), 4)
    }

    fn bitwise(&mut self, data: &[u8]) -> Option<()> {
        use expression::bitwise;
        let word = |kind| {
            let bytes = find(find(data, kind)?, DATA_VALUE)?;
            bytes.try_into().ok().map(u32::from_ne_bytes)
        };
        let Load::Connection(key) = self.take_one(find_be32(data, bitwise::SOURCE))? else {
            return None;
        };
        if word(bitwise::XOR)? != 0 || find_be32(data, bitwise::LENGTH)? != 4 {
            return None;
        }
        let load = Load::ConnectionBits { key, mask: word(bitwise::MASK)? };
        self.load(find_be32(data, bitwise::DESTINATION), load, 4)
    }

    fn compare(&mut self, data: &[u8]) -> Option<Statement> {
        use expression::cmp;
        let load = self.take_one(find_be32(data, cmp::SOURCE))?;
        let negated = negated(find_be32(data, cmp::OPERATOR)?)?;
        let bytes = find(find(data, cmp::DATA)?, DATA_VALUE)?;
        match load {
            Load::NetworkProtocol => match (negated, bytes) {
                (false, [NFPROTO_IPV4]) => Some(Statement::Family(Family::Ipv4)),
                (false, [NFPROTO_IPV6]) => Some(Statement::Family(Family::Ipv6)),
                (true | false, _) => None,
            },
            Load::Field(field @ (Field::InputInterface | Field::OutputInterface))
                if bytes.len() < INTERFACE_BYTES =>
            {
                let prefix = String::from_utf8(bytes.to_vec()).ok()?;
                Some(Statement::InterfacePrefix { field, negated, prefix })
            }
            Load::Field(field) => Some(Statement::Match { field, negated, value: value(field, bytes)? }),
            Load::ConnectionBits { key, mask } => {
                if bytes != [0; 4] {
                    return None;
                }
                connection_bits(key, mask, negated)
            }
            Load::Connection(_) => None,
        }
    }

    fn range(&mut self, data: &[u8]) -> Option<Statement> {
        use expression::range;
        let Load::Field(field) = self.take_one(find_be32(data, range::SOURCE))? else {
            return None;
        };
        let end = |kind| value(field, find(find(data, kind)?, DATA_VALUE)?);
        Some(Statement::InRange {
            field,
            negated: negated(find_be32(data, range::OPERATOR)?)?,
            first: end(range::FROM)?,
            last: end(range::TO)?,
        })
    }

    fn lookup(&mut self, data: &[u8]) -> Option<Statement> {
        use expression::lookup;
        let set = find_string(data, lookup::SET)?;
        let loads = self.take(find_be32(data, lookup::SOURCE))?;
        let fields = loads.into_iter().map(|load| match load {
            Load::Field(field) => Some(field),
            Load::NetworkProtocol | Load::Connection(_) | Load::ConnectionBits { .. } => None,
        });
        let fields = fields.collect::<Option<Vec<_>>>()?;
        let flags = find_be32(data, lookup::FLAGS).unwrap_or(0);
        match find_be32(data, lookup::DESTINATION) {
            None if flags & !lookup::FLAG_INVERTED == 0 => {
                Some(Statement::InSet { fields, negated: flags != 0, set })
            }
            Some(REGISTER_VERDICT) if flags == 0 => Some(Statement::VerdictMap { fields, map: set }),
            None | Some(_) => None,
        }
    }
}

fn field_from(place: Source, bytes: Option<usize>) -> Option<Field> {
    let found = FIELDS.iter().try_for_each(|field| {
        let (known, kind) = source(*field);
        if known == place && bytes.is_none_or(|bytes| bytes == width(kind)) {
            return ControlFlow::Break(*field);
        }
        ControlFlow::Continue(())
    });
    found.break_value()
}

fn value(field: Field, bytes: &[u8]) -> Option<Value> {
    decode(source(field).1, bytes)
}

fn negated(operator: u32) -> Option<bool> {
    match operator {
        expression::EQUAL => Some(false),
        expression::NOT_EQUAL => Some(true),
        _ => None,
    }
}

/// `negated` is the comparison with zero: some bit is set.
fn connection_bits(key: u32, mask: u32, negated: bool) -> Option<Statement> {
    use expression::ct;
    match (key, mask, negated) {
        (ct::STATUS, ct::STATUS_DNAT, _) => Some(Statement::ConnectionDnat { negated: !negated }),
        (ct::STATE, mask, true) => {
            let known = ct::STATE_ESTABLISHED
                | ct::STATE_RELATED
                | ct::STATE_NEW
                | ct::STATE_INVALID
                | ct::STATE_UNTRACKED;
            (mask & !known == 0).then_some(Statement::ConnectionState {
                established: mask & ct::STATE_ESTABLISHED != 0,
                related: mask & ct::STATE_RELATED != 0,
                new: mask & ct::STATE_NEW != 0,
                invalid: mask & ct::STATE_INVALID != 0,
                untracked: mask & ct::STATE_UNTRACKED != 0,
            })
        }
        (_, _, _) => None,
    }
}

fn limit(data: &[u8]) -> Option<Statement> {
    use expression::limit;
    let long = |kind| find(data, kind).and_then(wire::be64_of);
    let plain = long(limit::UNIT)? == limit::UNIT_SECOND
        && find_be32(data, limit::TYPE)? == limit::TYPE_PACKETS
        && find_be32(data, limit::FLAGS).unwrap_or(0) == 0;
    let per_second = u32::try_from(long(limit::RATE)?).ok()?;
    plain.then_some(Statement::Limit { per_second, burst: find_be32(data, limit::BURST)? })
}

fn log(data: &[u8]) -> Option<Statement> {
    use expression::log;
    let plain = attributes(data).all(|(kind, _)| [log::GROUP, log::PREFIX].contains(&kind));
    let group = find(data, log::GROUP).and_then(wire::be16_of)?;
    plain.then(|| Statement::Log { prefix: find_string(data, log::PREFIX).unwrap_or_default(), group })
}

fn reject(data: &[u8]) -> Option<Statement> {
    use expression::reject;
    match (find_be32(data, reject::TYPE)?, find(data, reject::ICMP_CODE)) {
        (reject::TYPE_TCP_RESET, _) => Some(Statement::Reject { tcp_reset: true }),
        (reject::TYPE_ICMPX, Some([reject::ADMINISTRATIVELY_PROHIBITED])) => {
            Some(Statement::Reject { tcp_reset: false })
        }
        (_, _) => None,
    }
}

fn masquerade(data: &[u8]) -> Option<Statement> {
    use expression::masq;
    // Addresses and ports of other rules are in registers, whose loads would be left over.
    (find_be32(data, masq::FLAGS)? == masq::FULLY_RANDOM).then_some(Statement::Masquerade)
}

fn immediate(data: &[u8]) -> Option<Statement> {
    use expression::immediate;
    if find_be32(data, immediate::DESTINATION)? != REGISTER_VERDICT {
        return None;
    }
    read_verdict(find(data, immediate::DATA)?).map(Statement::Verdict)
}
