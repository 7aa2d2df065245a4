//! Keys and data of sets: our typed values as the kernel's bytes, both ways.
//!
//! A key of several words is a concatenation, each word padded to four bytes. An interval set of one word (the kernel's
//! rbtree) holds a start for every range and an end one behind its last value; with several words (pipapo) every element
//! has both ends, and only the last word may differ.

use std::net::{Ipv4Addr, Ipv6Addr};

use felix_calc::plan::SetShape;
use felix_calc::table::{Data, DataType, Element, KeyType, Value, Verdict};

use super::error::NftError;
use super::wire::{
    self, DATA_VALUE, DATA_VERDICT, LIST_ITEM, NetfilterMessage, REGISTER_WORDS, VERDICT_CHAIN, VERDICT_CODE,
    element, set, verdict,
};
use crate::wire::{Message, attributes};

/// Bytes of an interface name in the kernel, with its closing zero.
pub(super) const INTERFACE_BYTES: usize = 16;
/// nft's numbers of byte orders in user data.
const ORDER_MIXED: u32 = 0;
const ORDER_HOST: u32 = 1;
const ORDER_NETWORK: u32 = 2;
/// Bits of one type in the type number of a concatenation.
const TYPE_BITS: u32 = 6;

/// nft's number of a type: how it prints keys.
fn type_number(key: KeyType) -> u32 {
    match key {
        KeyType::Interface => 41,
        KeyType::Ipv4 => 7,
        KeyType::Ipv6 => 8,
        KeyType::Protocol => 12,
        KeyType::Port => 13,
        KeyType::Word => 19, // a packet mark: four bytes, printed as a number
    }
}

fn type_of_number(number: u32) -> Option<KeyType> {
    [KeyType::Interface, KeyType::Ipv4, KeyType::Ipv6, KeyType::Protocol, KeyType::Port, KeyType::Word]
        .into_iter()
        .find(|key| type_number(*key) == number)
}

/// Bytes of a value of this type.
pub(super) fn width(key: KeyType) -> usize {
    match key {
        KeyType::Interface => INTERFACE_BYTES,
        KeyType::Ipv4 | KeyType::Word => 4,
        KeyType::Ipv6 => 16,
        KeyType::Protocol => 1,
        KeyType::Port => 2,
    }
}

fn byte_order(key: KeyType) -> u32 {
    match key {
        KeyType::Interface | KeyType::Word => ORDER_HOST,
        KeyType::Ipv4 | KeyType::Ipv6 | KeyType::Protocol | KeyType::Port => ORDER_NETWORK,
    }
}

pub(super) fn value_type(value: &Value) -> KeyType {
    match value {
        Value::Interface(_) => KeyType::Interface,
        Value::Ipv4(_) => KeyType::Ipv4,
        Value::Ipv6(_) => KeyType::Ipv6,
        Value::Protocol(_) => KeyType::Protocol,
        Value::Port(_) => KeyType::Port,
        Value::Word(_) => KeyType::Word,
    }
}

/// The bytes of a value; an interface name is padded with zeros, and refused when it is longer than 15 bytes.
pub(super) fn encode(value: &Value) -> Result<Vec<u8>, NftError> {
    Ok(match value {
        Value::Interface(name) => {
            if name.is_empty() || name.len() >= INTERFACE_BYTES || name.contains('\0') {
                return Err(NftError::unsupported(
                    format!("interface name {name:?}"),
                    "1 to 15 bytes are expected",
                ));
            }
            let mut bytes = name.clone().into_bytes();
            bytes.resize(INTERFACE_BYTES, 0);
            bytes
        }
        Value::Ipv4(address) => address.octets().to_vec(),
        Value::Ipv6(address) => address.octets().to_vec(),
        Value::Protocol(number) => vec![*number],
        Value::Port(port) => port.to_be_bytes().to_vec(),
        Value::Word(word) => word.to_ne_bytes().to_vec(),
    })
}

/// The value that these bytes are, if they are one of this type.
pub(super) fn decode(key: KeyType, bytes: &[u8]) -> Option<Value> {
    Some(match key {
        KeyType::Interface => {
            let _: [u8; INTERFACE_BYTES] = bytes.try_into().ok()?;
            Value::Interface(crate::wire::string(bytes))
        }
        KeyType::Ipv4 => Value::Ipv4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        KeyType::Ipv6 => Value::Ipv6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        KeyType::Protocol => Value::Protocol(<[u8; 1]>::try_from(bytes).ok()?[0]),
        KeyType::Port => Value::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
        KeyType::Word => Value::Word(u32::from_ne_bytes(bytes.try_into().ok()?)),
    })
}

/// Writes what NEWSET says of a set's shape.
pub(super) fn put_shape(message: &mut Message, name: &str, shape: &SetShape) -> Result<(), NftError> {
    check_shape(name, shape)?;
    let concatenated = shape.key.len() > 1;
    let mut flags = 0;
    if shape.interval {
        flags |= set::FLAG_INTERVAL | if concatenated { set::FLAG_CONCATENATION } else { 0 };
    }
    if shape.data.is_some() {
        flags |= set::FLAG_MAP;
    }
    let number = shape.key.iter().fold(0, |number, key| number << TYPE_BITS | type_number(*key));
    message.be32(set::FLAGS, flags);
    message.be32(set::KEY_TYPE, number);
    message.be32(set::KEY_LENGTH, length_number(key_length(&shape.key)));
    match shape.data {
        Some(DataType::Verdict) => message.be32(set::DATA_TYPE, set::DATA_VERDICT),
        Some(DataType::Word) => {
            message.be32(set::DATA_TYPE, type_number(KeyType::Word));
            message.be32(set::DATA_LENGTH, length_number(width(KeyType::Word)));
        }
        None => {}
    }
    if concatenated && shape.interval {
        message.nest(set::DESCRIPTION, |description| {
            description.nest(set::DESCRIPTION_CONCATENATION, |fields| {
                for key in &shape.key {
                    fields.nest(LIST_ITEM, |f| f.be32(set::FIELD_LENGTH, length_number(width(*key))));
                }
            });
        });
    }
    message.attribute(set::USERDATA, &shape_userdata(shape));
    if shape.counter {
        message.nest(set::EXPRESSION, |e| wire::expression_body(e, "counter", |_| {}));
    }
    Ok(())
}

fn check_shape(name: &str, shape: &SetShape) -> Result<(), NftError> {
    let refuse = |why: &str| Err(NftError::unsupported(format!("set {name}"), why));
    let Some(last) = shape.key.last() else {
        return refuse("a key has at least one word");
    };
    if key_length(&shape.key) > REGISTER_WORDS * 4 {
        return refuse("a key has at most 64 bytes");
    }
    if shape.interval && byte_order(*last) == ORDER_HOST {
        return refuse("ranges of interfaces or host-order words do not compare");
    }
    Ok(())
}

/// Byte orders for nft, which would print 7 as 0x07000000 otherwise.
fn shape_userdata(shape: &SetShape) -> Vec<u8> {
    let order = match shape.key.as_slice() {
        [key] => byte_order(*key),
        _ => ORDER_MIXED,
    };
    let mut userdata = Vec::new();
    let mut put = |kind, order: u32| wire::userdata_piece(&mut userdata, kind, &order.to_ne_bytes());
    put(set::USERDATA_KEY_BYTE_ORDER, order);
    match shape.data {
        Some(DataType::Word) => put(set::USERDATA_DATA_BYTE_ORDER, ORDER_HOST),
        // Any other order, and nft aborts when it lists an element.
        Some(DataType::Verdict) => put(set::USERDATA_DATA_BYTE_ORDER, ORDER_MIXED),
        None => None,
    };
    userdata
}

/// The shape that a set of the kernel has, if it is one of ours.
pub(super) fn read_shape(attributes: &[u8]) -> Option<SetShape> {
    let flags = wire::find_be32(attributes, set::FLAGS).unwrap_or(0);
    if flags & !(set::FLAG_INTERVAL | set::FLAG_MAP | set::FLAG_CONCATENATION) != 0 {
        return None;
    }
    let mut number = wire::find_be32(attributes, set::KEY_TYPE)?;
    let mut key = Vec::new();
    while number != 0 {
        key.insert(0, type_of_number(number & ((1 << TYPE_BITS) - 1))?);
        number >>= TYPE_BITS;
    }
    let interval = flags & set::FLAG_INTERVAL != 0;
    let concatenated = flags & set::FLAG_CONCATENATION != 0;
    if concatenated != (interval && key.len() > 1)
        || wire::find_be32(attributes, set::KEY_LENGTH)? != length_number(key_length(&key))
    {
        return None;
    }
    let data = match (flags & set::FLAG_MAP != 0, wire::find_be32(attributes, set::DATA_TYPE)) {
        (false, None) => None,
        (true, Some(set::DATA_VERDICT)) => Some(DataType::Verdict),
        (true, Some(kind)) if kind == type_number(KeyType::Word) => Some(DataType::Word),
        (true | false, _) => return None,
    };
    let counter = match wire::find(attributes, set::EXPRESSION).map(wire::expression_of) {
        None => false,
        Some(Some((name, _))) if name == "counter" => true,
        Some(_) => return None,
    };
    Some(SetShape { key, interval, data, counter })
}

/// Bytes of a key: one word as it is, several padded.
fn key_length(key: &[KeyType]) -> usize {
    match key {
        [one] => width(*one),
        several => several.iter().map(|key| width(*key).next_multiple_of(4)).sum(),
    }
}

fn length_number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn encode_key(values: &[&Value]) -> Result<Vec<u8>, NftError> {
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend(encode(value)?);
        if values.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    Ok(bytes)
}

/// The values of a key of this type.
fn decode_key(key: &[KeyType], bytes: &[u8]) -> Option<Vec<Value>> {
    if bytes.len() != key_length(key) {
        return None;
    }
    let mut rest = bytes;
    key.iter()
        .map(|kind| {
            let value = decode(*kind, rest.get(..width(*kind))?)?;
            rest = rest.get(width(*kind).next_multiple_of(4)..).unwrap_or(&[]);
            Some(value)
        })
        .collect()
}

/// Writes one element as one or two items of a list: a range of a single word takes a second item for its end.
pub(super) fn put_element(
    list: &mut Message,
    element: &Element,
    data: Option<&Data>,
) -> Result<(), NftError> {
    match element {
        Element::Exact(values) => {
            put_item(list, &encode_key(&values.iter().collect::<Vec<_>>())?, None, data);
        }
        Element::Range { prefix, first, last } => {
            check_range(first, last)?;
            if prefix.is_empty() {
                put_item(list, &encode(first)?, None, data);
                if let Some(end) = behind(&encode(last)?) {
                    put_end(list, &end);
                }
            } else {
                let with = |value| encode_key(&prefix.iter().chain([value]).collect::<Vec<_>>());
                put_item(list, &with(first)?, Some(&with(last)?), data);
            }
        }
    }
    Ok(())
}

/// That two ends are of one type that has an order, and in order.
pub(super) fn check_range(first: &Value, last: &Value) -> Result<(), NftError> {
    let kind = value_type(first);
    if kind != value_type(last) || byte_order(kind) == ORDER_HOST || first > last {
        let what = format!("range {first:?} to {last:?}");
        return Err(NftError::unsupported(what, "two addresses, protocols or ports in order are expected"));
    }
    Ok(())
}

fn put_item(list: &mut Message, key: &[u8], key_end: Option<&[u8]>, data: Option<&Data>) {
    list.nest(LIST_ITEM, |item| {
        wire::data_value(item, element::KEY, key);
        if let Some(key_end) = key_end {
            wire::data_value(item, element::KEY_END, key_end);
        }
        match data {
            Some(Data::Verdict(verdict)) => item.nest(element::DATA, |data| put_verdict(data, verdict)),
            Some(Data::Word(word)) => wire::data_value(item, element::DATA, &word.to_ne_bytes()),
            None => {}
        }
    });
}

fn put_end(list: &mut Message, key: &[u8]) {
    list.nest(LIST_ITEM, |item| {
        wire::data_value(item, element::KEY, key);
        item.be32(element::FLAGS, element::FLAG_INTERVAL_END);
    });
}

/// The number one above, in network byte order; none above the last, whose range stays open.
fn behind(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}

/// The number one below a number above zero.
fn before(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        let (difference, borrow) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrow {
            return Some(next);
        }
    }
    None
}

/// Writes a verdict into data of an element or of an immediate expression.
pub(super) fn put_verdict(data: &mut Message, value: &Verdict) {
    let (code, target) = match value {
        Verdict::Accept => (verdict::ACCEPT, None),
        Verdict::Drop => (verdict::DROP, None),
        Verdict::Return => (verdict::RETURN, None),
        Verdict::Continue => (verdict::CONTINUE, None),
        Verdict::Jump(chain) => (verdict::JUMP, Some(chain)),
        Verdict::Goto(chain) => (verdict::GOTO, Some(chain)),
    };
    data.nest(DATA_VERDICT, |verdict| {
        verdict.attribute(VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = target {
            verdict.attribute_str(VERDICT_CHAIN, chain);
        }
    });
}

/// A verdict in data.
pub(super) fn read_verdict(data: &[u8]) -> Option<Verdict> {
    let bytes = wire::find(data, DATA_VERDICT)?;
    let code = i32::from_be_bytes(wire::find(bytes, VERDICT_CODE)?.try_into().ok()?);
    let chain = || wire::find_string(bytes, VERDICT_CHAIN);
    Some(match code {
        verdict::ACCEPT => Verdict::Accept,
        verdict::DROP => Verdict::Drop,
        verdict::RETURN => Verdict::Return,
        verdict::CONTINUE => Verdict::Continue,
        verdict::JUMP => Verdict::Jump(chain()?),
        verdict::GOTO => Verdict::Goto(chain()?),
        _ => return None,
    })
}

/// What an expression or an element has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

impl Count {
    /// Reads the attributes of a counter expression.
    pub(super) fn read(attributes: &[u8]) -> Option<Self> {
        use super::wire::expression::counter;
        let number = |kind| wire::find(attributes, kind).and_then(wire::be64_of);
        Some(Self { packets: number(counter::PACKETS)?, bytes: number(counter::BYTES)? })
    }
}

/// One element as the kernel lists it.
#[derive(Clone, Debug)]
pub(super) struct RawElement {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    end: bool,
    data: Option<Data>,
    count: Option<Count>,
}

impl RawElement {
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }
}

/// One element of a set, understood.
pub(super) type ReadElement = (Element, Option<Data>, Option<Count>);

/// Reads one item of a list of elements.
pub(super) fn read_item(item: &[u8]) -> Option<RawElement> {
    let value =
        |kind| wire::find(item, kind).and_then(|data| wire::find(data, DATA_VALUE)).map(<[u8]>::to_vec);
    let data = match wire::find(item, element::DATA) {
        None => None,
        Some(data) => Some(match wire::find(data, DATA_VALUE) {
            Some(bytes) => Data::Word(u32::from_ne_bytes(bytes.try_into().ok()?)),
            None => Data::Verdict(read_verdict(data)?),
        }),
    };
    let expression = wire::find(item, element::EXPRESSION)
        .or_else(|| wire::find(item, element::EXPRESSIONS).and_then(|list| wire::find(list, LIST_ITEM)));
    let count = expression
        .and_then(wire::expression_of)
        .filter(|(name, _)| name == "counter")
        .and_then(|(_, attributes)| Count::read(attributes));
    let flags = wire::find_be32(item, element::FLAGS).unwrap_or(0);
    Some(RawElement {
        key: value(element::KEY)?,
        key_end: value(element::KEY_END),
        end: flags & element::FLAG_INTERVAL_END != 0,
        data,
        count,
    })
}

/// The items of a message that lists elements.
pub(super) fn items(attributes_: &[u8]) -> impl Iterator<Item = &[u8]> {
    let list = wire::find(attributes_, element::LIST_ELEMENTS).unwrap_or(&[]);
    attributes(list).filter(|(kind, _)| *kind == LIST_ITEM).map(|(_, item)| item)
}

/// All elements of a set of this shape; `None` when one is none of ours.
pub(super) fn assemble(shape: &SetShape, raw: Vec<RawElement>) -> Option<Vec<ReadElement>> {
    if !shape.interval {
        let exact =
            |raw: RawElement| Some((Element::Exact(decode_key(&shape.key, &raw.key)?), raw.data, raw.count));
        return raw.into_iter().map(exact).collect();
    }
    match shape.key.as_slice() {
        [key] => assemble_ranges(*key, raw),
        key => raw.into_iter().map(|raw| range_of_concatenation(key, raw)).collect(),
    }
}

fn range_of_concatenation(key: &[KeyType], raw: RawElement) -> Option<ReadElement> {
    let mut first = decode_key(key, &raw.key)?;
    let mut last = match &raw.key_end {
        Some(end) => decode_key(key, end)?,
        None => first.clone(),
    };
    let (first_value, last_value) = (first.pop()?, last.pop()?);
    let element = Element::Range { prefix: first, first: first_value, last: last_value };
    Some((element, raw.data, raw.count))
}

/// Starts and ends in any order; an end may stand without a start (nft writes one at 0), the last start without an end.
fn assemble_ranges(key: KeyType, mut raw: Vec<RawElement>) -> Option<Vec<ReadElement>> {
    raw.sort_by(|a, b| a.key.cmp(&b.key).then(b.end.cmp(&a.end)));
    let mut ranges = Vec::new();
    let mut open: Option<RawElement> = None;
    for item in raw {
        if item.end {
            if let Some(start) = open.take() {
                ranges.push(range(key, start, &before(&item.key)?)?);
            }
        } else if open.replace(item).is_some() {
            return None;
        }
    }
    if let Some(start) = open {
        let last = vec![0xff; start.key.len()];
        ranges.push(range(key, start, &last)?);
    }
    Some(ranges)
}

fn range(key: KeyType, start: RawElement, last: &[u8]) -> Option<ReadElement> {
    let element =
        Element::Range { prefix: Vec::new(), first: decode(key, &start.key)?, last: decode(key, last)? };
    Some((element, start.data, start.count))
}
