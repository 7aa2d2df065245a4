//! A rule as the kernel's expressions, in the forms that nft itself writes, so that nft lists them as we mean them.
//!
//! ```text
//! field == value     load field → register 0 ; cmp
//! a . b @set         load a → register 0 ; load b → register behind a ; lookup
//! ct state x,y       ct → register 0 ; bitwise & mask ; cmp != 0
//! ```
//! Registers are never carried from one statement to the next.

use felix_calc::table::{Family, Field, KeyType, Rule, Statement, Value, Verdict};

use super::error::NftError;
use super::keys::{INTERFACE_BYTES, check_range, encode, put_verdict, value_type, width};
use super::wire::{
    self, NetfilterMessage, REGISTER_VERDICT, REGISTER_WORDS, data_value, expression, expression_item,
    register, rule,
};
use crate::wire::Message;

/// What nft shows of a comment, and the kernel keeps of a log prefix, without the closing zero.
pub(super) const TEXT_BYTES: usize = 127;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;

/// Where a field's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Meta(u32),
    Network { offset: u32 },
    Transport { offset: u32 },
}

/// Where the kernel finds a field, and its type.
pub(super) fn source(field: Field) -> (Source, KeyType) {
    use expression::meta;
    match field {
        Field::InputInterface => (Source::Meta(meta::IIFNAME), KeyType::Interface),
        Field::OutputInterface => (Source::Meta(meta::OIFNAME), KeyType::Interface),
        Field::Protocol => (Source::Meta(meta::L4PROTO), KeyType::Protocol),
        Field::SourceV4 => (Source::Network { offset: 12 }, KeyType::Ipv4),
        Field::DestinationV4 => (Source::Network { offset: 16 }, KeyType::Ipv4),
        Field::SourceV6 => (Source::Network { offset: 8 }, KeyType::Ipv6),
        Field::DestinationV6 => (Source::Network { offset: 24 }, KeyType::Ipv6),
        Field::HopLimit => (Source::Network { offset: 7 }, KeyType::Protocol),
        Field::SourcePort => (Source::Transport { offset: 0 }, KeyType::Port),
        Field::DestinationPort => (Source::Transport { offset: 2 }, KeyType::Port),
        Field::IcmpType | Field::Icmpv6Type => (Source::Transport { offset: 0 }, KeyType::Protocol),
        Field::IcmpCode | Field::Icmpv6Code => (Source::Transport { offset: 1 }, KeyType::Protocol),
    }
}

/// For a field of ICMP or ICMPv6, which the kernel cannot tell apart: the protocol's IP version.
fn icmp_family(field: Field) -> Option<u8> {
    match field {
        Field::IcmpType | Field::IcmpCode => Some(4),
        Field::Icmpv6Type | Field::Icmpv6Code => Some(6),
        Field::InputInterface
        | Field::OutputInterface
        | Field::SourceV4
        | Field::DestinationV4
        | Field::SourceV6
        | Field::DestinationV6
        | Field::Protocol
        | Field::SourcePort
        | Field::DestinationPort
        | Field::HopLimit => None,
    }
}

/// Writes expressions and user data of a rule.
pub(super) fn put_rule(message: &mut Message, value: &Rule) -> Result<(), NftError> {
    let mut lowering = Lowering::default();
    let mut outcome = Ok(());
    message.nest(rule::EXPRESSIONS, |list| {
        outcome = value.statements.iter().try_for_each(|statement| lowering.statement(list, statement));
    });
    outcome?;
    let mut userdata = Vec::new();
    if let Some(comment) = &value.comment {
        text("comment", comment)?;
        let mut bytes = comment.clone().into_bytes();
        bytes.push(0);
        wire::userdata_piece(&mut userdata, rule::USERDATA_COMMENT, &bytes);
    }
    if !lowering.icmp_families.is_empty() {
        wire::userdata_piece(&mut userdata, rule::USERDATA_ICMP_FAMILIES, &lowering.icmp_families);
    }
    if !userdata.is_empty() {
        message.attribute(rule::USERDATA, &userdata);
    }
    Ok(())
}

fn text(what: &str, value: &str) -> Result<(), NftError> {
    if value.len() > TEXT_BYTES || value.contains('\0') {
        return Err(NftError::unsupported(
            format!("{what} {value:?}"),
            "at most 127 bytes without a zero are expected",
        ));
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Lowering {
    icmp_families: Vec<u8>,
}

impl Lowering {
    fn statement(&mut self, list: &mut Message, statement: &Statement) -> Result<(), NftError> {
        match statement {
            Statement::Family(family) => {
                load(list, Source::Meta(expression::meta::NFPROTO), 1, 0);
                compare(list, false, &[family_number(*family)]);
            }
            Statement::Match { field, negated, value } => {
                self.same_type(*field, value)?;
                self.load(list, *field, 0);
                compare(list, *negated, &encode(value)?);
            }
            Statement::InterfacePrefix { field, negated, prefix } => {
                self.same_type(*field, &Value::Interface(prefix.clone()))?;
                // A full name has its closing zero; without, it is a prefix.
                if prefix.is_empty() || prefix.len() >= INTERFACE_BYTES || prefix.contains('\0') {
                    let what = format!("interface prefix {prefix:?}");
                    return Err(NftError::unsupported(what, "1 to 15 bytes are expected"));
                }
                self.load(list, *field, 0);
                compare(list, *negated, prefix.as_bytes());
            }
            Statement::InRange { field, negated, first, last } => {
                self.same_type(*field, first)?;
                check_range(first, last)?;
                self.load(list, *field, 0);
                put_range(list, *negated, &encode(first)?, &encode(last)?);
            }
            Statement::InSet { fields, negated, set } => {
                self.load_key(list, fields, set)?;
                put_lookup(list, set, *negated, false);
            }
            Statement::VerdictMap { fields, map } => {
                self.load_key(list, fields, map)?;
                put_lookup(list, map, false, true);
            }
            Statement::ConnectionState { established, related, new, invalid, untracked } => {
                use expression::ct;
                let bits = [
                    (*established, ct::STATE_ESTABLISHED),
                    (*related, ct::STATE_RELATED),
                    (*new, ct::STATE_NEW),
                    (*invalid, ct::STATE_INVALID),
                    (*untracked, ct::STATE_UNTRACKED),
                ];
                let mask = bits.into_iter().filter(|(set, _)| *set).fold(0, |mask, (_, bit)| mask | bit);
                if mask == 0 {
                    return Err(NftError::unsupported("ct state", "at least one state is expected"));
                }
                put_connection(list, ct::STATE, mask, true);
            }
            Statement::ConnectionDnat { negated } => {
                put_connection(list, expression::ct::STATUS, expression::ct::STATUS_DNAT, !negated);
            }
            Statement::Counter => expression_item(list, "counter", |_| {}),
            Statement::Limit { per_second, burst } => {
                // The kernel takes 0 for its own default.
                if *per_second == 0 || *burst == 0 {
                    return Err(NftError::unsupported("limit", "a rate and a burst above 0 are expected"));
                }
                put_limit(list, *per_second, *burst);
            }
            Statement::Log { prefix, group } => {
                text("log prefix", prefix)?;
                put_log(list, prefix, *group);
            }
            Statement::Reject { tcp_reset } => put_reject(list, *tcp_reset),
            Statement::Masquerade => expression_item(list, "masq", |e| {
                e.be32(expression::masq::FLAGS, expression::masq::FULLY_RANDOM);
            }),
            Statement::Verdict(verdict) => put_immediate(list, verdict),
        }
        Ok(())
    }

    /// Loads the fields of a key one behind the other.
    fn load_key(&mut self, list: &mut Message, fields: &[Field], set: &str) -> Result<(), NftError> {
        let mut word = 0;
        for field in fields {
            self.load(list, *field, word);
            word += width(source(*field).1).div_ceil(4);
        }
        if word == 0 || word > REGISTER_WORDS {
            return Err(NftError::unsupported(
                format!("lookup in {set}"),
                "a key of 1 to 64 bytes is expected",
            ));
        }
        Ok(())
    }

    fn load(&mut self, list: &mut Message, field: Field, word: usize) {
        self.icmp_families.extend(icmp_family(field));
        let (place, kind) = source(field);
        load(list, place, width(kind), word);
    }

    fn same_type(&self, field: Field, value: &Value) -> Result<(), NftError> {
        if source(field).1 == value_type(value) {
            return Ok(());
        }
        Err(NftError::unsupported(format!("{field:?} against {value:?}"), "they are of different types"))
    }
}

pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => NFPROTO_IPV4,
        Family::Ipv6 => NFPROTO_IPV6,
    }
}

fn load(list: &mut Message, place: Source, bytes: usize, word: usize) {
    use expression::{meta, payload};
    let mut put_payload = |base, offset| {
        expression_item(list, "payload", |e| {
            e.be32(payload::DESTINATION, register(word));
            e.be32(payload::BASE, base);
            e.be32(payload::OFFSET, offset);
            e.be32(payload::LENGTH, u32::try_from(bytes).unwrap_or(u32::MAX));
        });
    };
    match place {
        Source::Network { offset } => put_payload(payload::BASE_NETWORK, offset),
        Source::Transport { offset } => put_payload(payload::BASE_TRANSPORT, offset),
        Source::Meta(key) => expression_item(list, "meta", |e| {
            e.be32(meta::DESTINATION, register(word));
            e.be32(meta::KEY, key);
        }),
    }
}

fn operator(negated: bool) -> u32 {
    if negated { expression::NOT_EQUAL } else { expression::EQUAL }
}

fn compare(list: &mut Message, negated: bool, bytes: &[u8]) {
    use expression::cmp;
    expression_item(list, "cmp", |e| {
        e.be32(cmp::SOURCE, register(0));
        e.be32(cmp::OPERATOR, operator(negated));
        data_value(e, cmp::DATA, bytes);
    });
}

fn put_range(list: &mut Message, negated: bool, first: &[u8], last: &[u8]) {
    use expression::range;
    expression_item(list, "range", |e| {
        e.be32(range::SOURCE, register(0));
        e.be32(range::OPERATOR, operator(negated));
        data_value(e, range::FROM, first);
        data_value(e, range::TO, last);
    });
}

fn put_lookup(list: &mut Message, set: &str, inverted: bool, verdict: bool) {
    use expression::lookup;
    expression_item(list, "lookup", |e| {
        e.attribute_str(lookup::SET, set);
        e.be32(lookup::SOURCE, register(0));
        if verdict {
            e.be32(lookup::DESTINATION, REGISTER_VERDICT);
        }
        if inverted {
            e.be32(lookup::FLAGS, lookup::FLAG_INVERTED);
        }
    });
}

/// Whether any of the bits of `mask` is set (or none, if not `any`).
fn put_connection(list: &mut Message, key: u32, mask: u32, any: bool) {
    use expression::{bitwise, ct};
    expression_item(list, "ct", |e| {
        e.be32(ct::DESTINATION, register(0));
        e.be32(ct::KEY, key);
    });
    expression_item(list, "bitwise", |e| {
        e.be32(bitwise::SOURCE, register(0));
        e.be32(bitwise::DESTINATION, register(0));
        e.be32(bitwise::LENGTH, 4);
        data_value(e, bitwise::MASK, &mask.to_ne_bytes());
        data_value(e, bitwise::XOR, &[0; 4]);
    });
    compare(list, any, &[0; 4]);
}

fn put_limit(list: &mut Message, per_second: u32, burst: u32) {
    use expression::limit;
    expression_item(list, "limit", |e| {
        e.be64(limit::RATE, per_second.into());
        e.be64(limit::UNIT, limit::UNIT_SECOND);
        e.be32(limit::BURST, burst);
        e.be32(limit::TYPE, limit::TYPE_PACKETS);
        e.be32(limit::FLAGS, 0);
    });
}

fn put_log(list: &mut Message, prefix: &str, group: u16) {
    use expression::log;
    expression_item(list, "log", |e| {
        e.be16(log::GROUP, group);
        if !prefix.is_empty() {
            e.attribute_str(log::PREFIX, prefix);
        }
    });
}

fn put_reject(list: &mut Message, tcp_reset: bool) {
    use expression::reject;
    expression_item(list, "reject", |e| {
        if tcp_reset {
            e.be32(reject::TYPE, reject::TYPE_TCP_RESET);
        } else {
            e.be32(reject::TYPE, reject::TYPE_ICMPX);
            e.attribute(reject::ICMP_CODE, &[reject::ADMINISTRATIVELY_PROHIBITED]);
        }
    });
}

fn put_immediate(list: &mut Message, verdict: &Verdict) {
    use expression::immediate;
    expression_item(list, "immediate", |e| {
        e.be32(immediate::DESTINATION, REGISTER_VERDICT);
        e.nest(immediate::DATA, |data| put_verdict(data, verdict));
    });
}
