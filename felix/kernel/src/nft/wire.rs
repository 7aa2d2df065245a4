//! Numbers and framing of nfnetlink and nf_tables (linux/netfilter/nfnetlink.h, nf_tables.h).
//!
//! The only module of `nft` that knows attribute numbers' values. Integers are in network byte order here, unlike in
//! rtnetlink; data of registers and keys is as the packet or the kernel holds it.

use crate::wire::{Message, attributes};

pub(super) const SUBSYSTEM_NFTABLES: u16 = 10 << 8;
pub(super) const SUBSYSTEM_MASK: u16 = 0xff00;
pub(super) const BATCH_BEGIN: u16 = 0x10;
pub(super) const BATCH_END: u16 = 0x11;
/// Multicast group of changes to any table.
pub(super) const GROUP_NFTABLES: u32 = 7;

const NLA_F_NESTED: u16 = 0x8000;
const NLM_F_APPEND: u16 = 0x800;
pub(super) const CREATE: u16 = crate::wire::NLM_F_CREATE;
pub(super) const APPEND: u16 = CREATE | NLM_F_APPEND;

const FAMILY_UNSPEC: u8 = 0;
const FAMILY_INET: u8 = 1;
/// Bytes of `nfgenmsg`: family, version, resource.
pub(crate) const GENERIC_HEADER: usize = 4;

/// Message types, to be added to [`SUBSYSTEM_NFTABLES`].
pub(super) mod kind {
    pub(in crate::nft) const NEWTABLE: u16 = 0;
    pub(in crate::nft) const GETTABLE: u16 = 1;
    pub(in crate::nft) const DELTABLE: u16 = 2;
    pub(in crate::nft) const NEWCHAIN: u16 = 3;
    pub(in crate::nft) const GETCHAIN: u16 = 4;
    pub(in crate::nft) const DELCHAIN: u16 = 5;
    pub(in crate::nft) const NEWRULE: u16 = 6;
    pub(in crate::nft) const GETRULE: u16 = 7;
    pub(in crate::nft) const DELRULE: u16 = 8;
    pub(in crate::nft) const NEWSET: u16 = 9;
    pub(in crate::nft) const GETSET: u16 = 10;
    pub(in crate::nft) const DELSET: u16 = 11;
    pub(in crate::nft) const NEWSETELEM: u16 = 12;
    pub(in crate::nft) const GETSETELEM: u16 = 13;
    pub(in crate::nft) const DELSETELEM: u16 = 14;
    pub(in crate::nft) const NEWGEN: u16 = 15;
    pub(in crate::nft) const GETGEN: u16 = 16;
}

/// Every message about a table, and about anything in a table, names the table in attribute 1.
pub(super) const TABLE_NAME: u16 = 1;

pub(super) mod table {
    pub(in crate::nft) const FLAGS: u16 = 2;
    pub(in crate::nft) const OWNER: u16 = 7;
    /// Only the socket that made the table may change it.
    pub(in crate::nft) const FLAG_OWNER: u32 = 2;
    /// The table outlives that socket (Linux 6.9).
    pub(in crate::nft) const FLAG_PERSIST: u32 = 4;
}

pub(super) mod generation {
    pub(in crate::nft) const ID: u16 = 1;
    pub(in crate::nft) const PROCESS_ID: u16 = 2;
    pub(in crate::nft) const PROCESS_NAME: u16 = 3;
}

pub(super) mod chain {
    pub(in crate::nft) const NAME: u16 = 3;
    pub(in crate::nft) const HOOK: u16 = 4;
    pub(in crate::nft) const POLICY: u16 = 5;
    pub(in crate::nft) const TYPE: u16 = 7;
    pub(in crate::nft) const HOOK_NUMBER: u16 = 1;
    pub(in crate::nft) const HOOK_PRIORITY: u16 = 2;
    pub(in crate::nft) const POLICY_DROP: u32 = 0;
    pub(in crate::nft) const POLICY_ACCEPT: u32 = 1;
}

pub(super) mod rule {
    pub(in crate::nft) const CHAIN: u16 = 2;
    pub(in crate::nft) const HANDLE: u16 = 3;
    pub(in crate::nft) const EXPRESSIONS: u16 = 4;
    pub(in crate::nft) const USERDATA: u16 = 7;
    /// Type of the piece of user data that nft prints as `comment`.
    pub(in crate::nft) const USERDATA_COMMENT: u8 = 0;
    /// Ours: one byte per ICMP field in the rule, 4 or 6. The kernel's form of `icmp type` and `icmpv6 type` is the
    /// same. nft skips types it does not know.
    pub(in crate::nft) const USERDATA_ICMP_FAMILIES: u8 = 0x4d;
}

pub(super) mod set {
    pub(in crate::nft) const NAME: u16 = 2;
    pub(in crate::nft) const FLAGS: u16 = 3;
    pub(in crate::nft) const KEY_TYPE: u16 = 4;
    pub(in crate::nft) const KEY_LENGTH: u16 = 5;
    pub(in crate::nft) const DATA_TYPE: u16 = 6;
    pub(in crate::nft) const DATA_LENGTH: u16 = 7;
    pub(in crate::nft) const DESCRIPTION: u16 = 9;
    pub(in crate::nft) const ID: u16 = 10;
    pub(in crate::nft) const USERDATA: u16 = 13;
    pub(in crate::nft) const EXPRESSION: u16 = 17;
    /// How many elements there are; newer kernels say it.
    pub(in crate::nft) const COUNT: u16 = 20;
    pub(in crate::nft) const DESCRIPTION_CONCATENATION: u16 = 2;
    pub(in crate::nft) const FIELD_LENGTH: u16 = 1;
    pub(in crate::nft) const FLAG_INTERVAL: u32 = 4;
    pub(in crate::nft) const FLAG_MAP: u32 = 8;
    pub(in crate::nft) const FLAG_CONCATENATION: u32 = 0x80;
    pub(in crate::nft) const DATA_VERDICT: u32 = 0xffff_ff00;
    pub(in crate::nft) const USERDATA_KEY_BYTE_ORDER: u8 = 0;
    pub(in crate::nft) const USERDATA_DATA_BYTE_ORDER: u8 = 1;
}

pub(super) mod element {
    pub(in crate::nft) const LIST_SET: u16 = 2;
    pub(in crate::nft) const LIST_ELEMENTS: u16 = 3;
    pub(in crate::nft) const KEY: u16 = 1;
    pub(in crate::nft) const DATA: u16 = 2;
    pub(in crate::nft) const FLAGS: u16 = 3;
    pub(in crate::nft) const EXPRESSION: u16 = 7;
    pub(in crate::nft) const KEY_END: u16 = 10;
    pub(in crate::nft) const EXPRESSIONS: u16 = 11;
    pub(in crate::nft) const FLAG_INTERVAL_END: u32 = 1;
}

pub(super) const LIST_ITEM: u16 = 1;
pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const EXPRESSION_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_CHAIN: u16 = 2;

/// Verdict codes: netfilter's, then the negative ones of nf_tables.
pub(super) mod verdict {
    pub(in crate::nft) const DROP: i32 = 0;
    pub(in crate::nft) const ACCEPT: i32 = 1;
    pub(in crate::nft) const CONTINUE: i32 = -1;
    pub(in crate::nft) const JUMP: i32 = -3;
    pub(in crate::nft) const GOTO: i32 = -4;
    pub(in crate::nft) const RETURN: i32 = -5;
}

/// Attributes of expressions, by expression; `DESTINATION` and `SOURCE` are registers.
pub(super) mod expression {
    pub(in crate::nft) mod meta {
        pub(in crate::nft) const DESTINATION: u16 = 1;
        pub(in crate::nft) const KEY: u16 = 2;
        pub(in crate::nft) const IIFNAME: u32 = 6;
        pub(in crate::nft) const OIFNAME: u32 = 7;
        pub(in crate::nft) const NFPROTO: u32 = 15;
        pub(in crate::nft) const L4PROTO: u32 = 16;
    }
    pub(in crate::nft) mod payload {
        pub(in crate::nft) const DESTINATION: u16 = 1;
        pub(in crate::nft) const BASE: u16 = 2;
        pub(in crate::nft) const OFFSET: u16 = 3;
        pub(in crate::nft) const LENGTH: u16 = 4;
        pub(in crate::nft) const BASE_NETWORK: u32 = 1;
        pub(in crate::nft) const BASE_TRANSPORT: u32 = 2;
    }
    pub(in crate::nft) mod ct {
        pub(in crate::nft) const DESTINATION: u16 = 1;
        pub(in crate::nft) const KEY: u16 = 2;
        pub(in crate::nft) const STATE: u32 = 0;
        pub(in crate::nft) const STATUS: u32 = 2;
        pub(in crate::nft) const STATUS_DNAT: u32 = 1 << 5;
        pub(in crate::nft) const STATE_INVALID: u32 = 1;
        pub(in crate::nft) const STATE_ESTABLISHED: u32 = 1 << 1;
        pub(in crate::nft) const STATE_RELATED: u32 = 1 << 2;
        pub(in crate::nft) const STATE_NEW: u32 = 1 << 3;
        pub(in crate::nft) const STATE_UNTRACKED: u32 = 1 << 6;
    }
    pub(in crate::nft) mod cmp {
        pub(in crate::nft) const SOURCE: u16 = 1;
        pub(in crate::nft) const OPERATOR: u16 = 2;
        pub(in crate::nft) const DATA: u16 = 3;
    }
    pub(in crate::nft) mod range {
        pub(in crate::nft) const SOURCE: u16 = 1;
        pub(in crate::nft) const OPERATOR: u16 = 2;
        pub(in crate::nft) const FROM: u16 = 3;
        pub(in crate::nft) const TO: u16 = 4;
    }
    /// Of `cmp` and `range`.
    pub(in crate::nft) const EQUAL: u32 = 0;
    pub(in crate::nft) const NOT_EQUAL: u32 = 1;
    pub(in crate::nft) mod bitwise {
        pub(in crate::nft) const SOURCE: u16 = 1;
        pub(in crate::nft) const DESTINATION: u16 = 2;
        pub(in crate::nft) const LENGTH: u16 = 3;
        pub(in crate::nft) const MASK: u16 = 4;
        pub(in crate::nft) const XOR: u16 = 5;
    }
    pub(in crate::nft) mod lookup {
        pub(in crate::nft) const SET: u16 = 1;
        pub(in crate::nft) const SOURCE: u16 = 2;
        pub(in crate::nft) const DESTINATION: u16 = 3;
        pub(in crate::nft) const FLAGS: u16 = 5;
        pub(in crate::nft) const FLAG_INVERTED: u32 = 1;
    }
    pub(in crate::nft) mod immediate {
        pub(in crate::nft) const DESTINATION: u16 = 1;
        pub(in crate::nft) const DATA: u16 = 2;
    }
    pub(in crate::nft) mod counter {
        pub(in crate::nft) const BYTES: u16 = 1;
        pub(in crate::nft) const PACKETS: u16 = 2;
    }
    pub(in crate::nft) mod limit {
        pub(in crate::nft) const RATE: u16 = 1;
        pub(in crate::nft) const UNIT: u16 = 2;
        pub(in crate::nft) const BURST: u16 = 3;
        pub(in crate::nft) const TYPE: u16 = 4;
        pub(in crate::nft) const FLAGS: u16 = 5;
        pub(in crate::nft) const UNIT_SECOND: u64 = 1;
        pub(in crate::nft) const TYPE_PACKETS: u32 = 0;
    }
    pub(in crate::nft) mod log {
        pub(in crate::nft) const GROUP: u16 = 1;
        pub(in crate::nft) const PREFIX: u16 = 2;
    }
    pub(in crate::nft) mod masq {
        pub(in crate::nft) const FLAGS: u16 = 1;
        /// NF_NAT_RANGE_PROTO_RANDOM_FULLY
        pub(in crate::nft) const FULLY_RANDOM: u32 = 1 << 4;
    }
    pub(in crate::nft) mod reject {
        pub(in crate::nft) const TYPE: u16 = 1;
        pub(in crate::nft) const ICMP_CODE: u16 = 2;
        pub(in crate::nft) const TYPE_TCP_RESET: u32 = 1;
        /// ICMP or ICMPv6, by the packet's family.
        pub(in crate::nft) const TYPE_ICMPX: u32 = 2;
        pub(in crate::nft) const ADMINISTRATIVELY_PROHIBITED: u8 = 3;
    }
}

/// Register of the verdict, and the first of sixteen of four bytes each.
pub(super) const REGISTER_VERDICT: u32 = 0;
const REGISTER_FIRST_WORD: u32 = 8;
/// Words of all registers together: the longest key is 64 bytes.
pub(super) const REGISTER_WORDS: usize = 16;
/// Type and key of the kernel's names for the same registers, four words each.
const REGISTER_FIRST_WIDE: u32 = 1;
const REGISTER_LAST_WIDE: u32 = 4;

/// Number of the register that begins at this word.
pub(super) fn register(word: usize) -> u32 {
    REGISTER_FIRST_WORD + u32::try_from(word).unwrap_or(u32::MAX - REGISTER_FIRST_WORD)
}

/// Word at which a register begins: the kernel answers with the wide name where it can.
pub(super) fn register_word(register: u32) -> Option<usize> {
    let word = match register {
        REGISTER_FIRST_WIDE..=REGISTER_LAST_WIDE => (register - REGISTER_FIRST_WIDE) * 4,
        _ => register.checked_sub(REGISTER_FIRST_WORD)?,
    };
    usize::try_from(word).ok().filter(|word| *word < REGISTER_WORDS)
}

/// What netfilter's messages need beyond those of rtnetlink.
pub(crate) trait NetfilterMessage {
    fn netfilter(kind: u16, flags: u16, family: u8, version: u8, resource: u16) -> Self;
    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self));
    fn be16(&mut self, kind: u16, value: u16);
    fn be32(&mut self, kind: u16, value: u32);
    fn be64(&mut self, kind: u16, value: u64);
}

impl NetfilterMessage for Message {
    fn netfilter(kind: u16, flags: u16, family: u8, version: u8, resource: u16) -> Self {
        let mut message = Self::new(kind, flags);
        let [high, low] = resource.to_be_bytes();
        message.put(&[family, version, high, low]);
        message
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.nested(kind | NLA_F_NESTED, fill);
    }

    fn be16(&mut self, kind: u16, value: u16) {
        self.attribute(kind, &value.to_be_bytes());
    }

    fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    fn be64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }
}

/// A message about an inet table or something in it.
pub(super) fn nft_message(kind: u16, flags: u16) -> Message {
    Message::netfilter(SUBSYSTEM_NFTABLES | kind, flags, FAMILY_INET, 0, 0)
}

/// The frame around a transaction.
pub(super) fn batch_frame(kind: u16) -> Message {
    Message::netfilter(kind, 0, FAMILY_UNSPEC, 0, SUBSYSTEM_NFTABLES >> 8)
}

/// One expression of a list.
pub(super) fn expression_item(message: &mut Message, name: &str, data: impl FnOnce(&mut Message)) {
    message.nest(LIST_ITEM, |item| expression_body(item, name, data));
}

/// Name and data of an expression, inside whichever attribute holds it.
pub(super) fn expression_body(message: &mut Message, name: &str, data: impl FnOnce(&mut Message)) {
    message.attribute_str(EXPRESSION_NAME, name);
    message.nest(EXPRESSION_DATA, data);
}

/// Bytes to compare with or to look up.
pub(super) fn data_value(message: &mut Message, kind: u16, bytes: &[u8]) {
    message.nest(kind, |data| data.attribute(DATA_VALUE, bytes));
}

/// The value of the first attribute of this kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub(crate) fn be16_of(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_be_bytes)
}

pub(crate) fn be32_of(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

pub(crate) fn be64_of(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

/// A number attribute of this kind.
pub(crate) fn find_be32(bytes: &[u8], kind: u16) -> Option<u32> {
    find(bytes, kind).and_then(be32_of)
}

/// A name attribute of this kind.
pub(crate) fn find_string(bytes: &[u8], kind: u16) -> Option<String> {
    find(bytes, kind).map(crate::wire::string)
}

/// Name and data of an expression, from inside whichever attribute holds it.
pub(super) fn expression_of(bytes: &[u8]) -> Option<(String, &[u8])> {
    Some((find_string(bytes, EXPRESSION_NAME)?, find(bytes, EXPRESSION_DATA).unwrap_or(&[])))
}

/// User data of nft: pieces of type, length and bytes, unpadded.
pub(super) fn userdata_piece(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(&[kind, u8::try_from(bytes.len()).ok()?]);
    out.extend_from_slice(bytes);
    Some(())
}

/// The bytes of the first piece of this type.
pub(super) fn userdata_find(userdata: &[u8], kind: u8) -> Option<&[u8]> {
    let mut rest = userdata;
    while let [found, length, tail @ ..] = rest {
        let bytes = tail.get(..usize::from(*length))?;
        if *found == kind {
            return Some(bytes);
        }
        rest = tail.get(usize::from(*length)..)?;
    }
    None
}
