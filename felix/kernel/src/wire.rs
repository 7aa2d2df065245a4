//! Bytes of nfnetlink messages: a writer of attributes, and the reader of headers and attributes that all netlink shares.
//!
//! Headers and attributes are read by netlink-packet-core. That crate writes an attribute from a type that knows its
//! length, or from finished bytes, which for the deep nests of nf_tables would be copied once per level: hence the writer
//! here. rtnetlink is written by netlink-packet-route (see `packet`), but for next-hop objects, which that crate lacks.
//! All integers are in host byte order, all attributes padded to four bytes.

use netlink_packet_core::{NLA_HEADER_SIZE, NetlinkBuffer, NlasIterator};
pub(crate) use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR,
};

pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

pub(crate) const HEADER: usize = 16;

/// One message under construction: header, then whatever is put, patched when finished.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes }
    }

    /// The fixed part of the message body (rtmsg, ifinfomsg, …), or raw bytes of an attribute.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |m| m.bytes.extend_from_slice(value));
    }

    pub(crate) fn attribute_u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// A name: its bytes and a closing zero.
    pub(crate) fn attribute_str(&mut self, kind: u16, value: &str) {
        self.nested(kind, |m| {
            m.bytes.extend_from_slice(value.as_bytes());
            m.bytes.push(0);
        });
    }

    /// An attribute whose value `fill` writes.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        self.patch_length_u16(start);
        self.pad();
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds `flags` to those the message was made with.
    pub(crate) fn add_flags(&mut self, flags: u16) {
        if let Some(field) = self.bytes.first_chunk_mut::<8>() {
            let now = u16::from_ne_bytes([field[6], field[7]]) | flags;
            field[6..8].copy_from_slice(&now.to_ne_bytes());
        }
    }

    /// Appends the finished message to `out` under this sequence number.
    pub(crate) fn finish_into(mut self, sequence: u32, out: &mut Vec<u8>) {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        if let Some(header) = self.bytes.first_chunk_mut::<HEADER>() {
            header[0..4].copy_from_slice(&length.to_ne_bytes());
            header[8..12].copy_from_slice(&sequence.to_ne_bytes());
        }
        out.append(&mut self.bytes);
    }

    fn patch_length_u16(&mut self, start: usize) {
        // Lists of elements are cut at 60 kB before they get here, so no attribute reaches 64 KiB.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages of one datagram; ends at the first that does not fit.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let length = usize::try_from(message.length()).ok()?;
        let received = Received {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            body: rest.get(HEADER..length)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(received)
    })
}

/// The attributes in `bytes`: kind without the nested and byte-order bits, and value. Ends at the first that does not fit.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).filter_map(|nla| {
        let (kind, length) = (nla.kind(), usize::from(nla.length()));
        Some((kind, nla.into_inner().get(NLA_HEADER_SIZE..length)?))
    })
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// A name attribute: up to its closing zero.
pub(crate) fn string(value: &[u8]) -> String {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or(value)).into_owned()
}

/// The bytes of an address, as an attribute carries them.
pub(crate) fn octets(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(crate) fn family_of(address: std::net::IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}
