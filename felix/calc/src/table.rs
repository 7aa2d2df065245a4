//! The one value between policy and kernel: our nftables table, as data.
//!
//! A compiler makes it, the simulator runs packets through it, the planner compares two of them, the
//! kernel crate writes and reads it. So it holds what nftables can express and we use, typed, and nothing
//! about bytes, registers or netlink. Two tables are equal when the kernel would treat all packets alike
//! and count them under the same names.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

/// Everything in `table inet manx`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Sets and maps share one name space in the kernel: a map is a set whose elements carry data.
    pub sets: BTreeMap<String, Set>,
    pub chains: BTreeMap<String, Chain>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Set {
    /// One entry per word of the key; several make a concatenation.
    pub key: Vec<KeyType>,
    /// Elements are ranges (of the last field); disjoint and merged.
    pub interval: bool,
    /// Present: a map.
    pub data: Option<DataType>,
    /// Every element counts packets and bytes.
    pub counter: bool,
    pub elements: BTreeMap<Element, Option<Data>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum KeyType {
    /// 16 bytes, zero-padded.
    Interface,
    Ipv4,
    Ipv6,
    /// One byte: `meta l4proto`.
    Protocol,
    /// Two bytes, of the transport header: `th sport`, `th dport`.
    Port,
    /// Four bytes in host order: an identity of ours.
    Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum DataType {
    Verdict,
    Word,
}

/// A key: exact, or a range of its last field with the fields before it exact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Element {
    Exact(Vec<Value>),
    /// First and last, both included.
    Range {
        prefix: Vec<Value>,
        first: Value,
        last: Value,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Value {
    Interface(String),
    Ipv4(Ipv4Addr),
    Ipv6(Ipv6Addr),
    Protocol(u8),
    Port(u16),
    Word(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Data {
    Verdict(Verdict),
    Word(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// Ends this base chain only.
    Accept,
    Drop,
    /// Back to behind the jump; at the end of a base chain, its policy.
    Return,
    Continue,
    Jump(String),
    Goto(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Present: the kernel enters here.
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Base {
    pub hook: Hook,
    pub priority: i32,
    /// What happens to a packet that no rule decided.
    pub drop: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Statements in order; the first that does not match ends the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub statements: Vec<Statement>,
    /// Shown by `nft list`, at most 127 bytes: what a person would call this rule.
    pub comment: Option<String>,
}

/// What a packet or its connection says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Field {
    InputInterface,
    OutputInterface,
    SourceV4,
    DestinationV4,
    SourceV6,
    DestinationV6,
    /// `meta l4proto`
    Protocol,
    /// `th sport`: reads bytes 0–1 of any transport header, so always beside a protocol match.
    SourcePort,
    DestinationPort,
    IcmpType,
    IcmpCode,
    /// `icmpv6 type`, `icmpv6 code`: behind a match on protocol 58.
    Icmpv6Type,
    Icmpv6Code,
    /// `ip6 hoplimit`
    HopLimit,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Statement {
    /// `meta nfproto ipv4|ipv6`; needed before a field of that family in an inet table.
    Family(Family),
    /// `field == value` or `!=`.
    Match {
        field: Field,
        negated: bool,
        value: Value,
    },
    /// `iifname "manx*"`
    InterfacePrefix {
        field: Field,
        negated: bool,
        prefix: String,
    },
    /// `field first-last`, both included.
    InRange {
        field: Field,
        negated: bool,
        first: Value,
        last: Value,
    },
    /// `a . b @set`
    InSet {
        fields: Vec<Field>,
        negated: bool,
        set: String,
    },
    /// `a . b vmap @map`: a miss ends the rule.
    VerdictMap {
        fields: Vec<Field>,
        map: String,
    },
    /// `ct state …`, any of.
    ConnectionState {
        established: bool,
        related: bool,
        new: bool,
        invalid: bool,
        untracked: bool,
    },
    /// `ct status dnat`. Negated or not, no packet matches that connection tracking does not follow.
    ConnectionDnat {
        negated: bool,
    },
    Counter,
    /// `limit rate N/second burst N packets`; over the limit ends the rule.
    Limit {
        per_second: u32,
        burst: u32,
    },
    /// `log prefix P group G`, prefix at most 127 bytes.
    Log {
        prefix: String,
        group: u16,
    },
    /// TCP: RST; anything else: ICMP administratively prohibited.
    Reject {
        tcp_reset: bool,
    },
    /// `masquerade fully-random`, in a nat chain: under the address that the kernel picks, from a port that cannot be
    /// foretold and hardly ever is one that another connection has just taken.
    Masquerade,
    Verdict(Verdict),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Family {
    Ipv4,
    Ipv6,
}
