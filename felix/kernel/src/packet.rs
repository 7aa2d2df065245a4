//! rtnetlink messages in the types of netlink-packet-route, and the little that those lack.
//!
//! What is sent is a whole message of that crate. What is received is read header first, then attribute by attribute:
//! the crate's own reader of whole messages gives up on the first attribute that it cannot decode, and a dump must not
//! lose a link or a route because somebody else's tunnel or driver put something unusual there.
//!
//! What the crates lack, and why each piece stands here, is listed in DESIGN.md.

use std::net::IpAddr;

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NlaBuffer, NlasIterator, Parseable,
};
use netlink_packet_route::link::{AfSpecInet, InfoKind};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::wire;

const IFLA_INET_CONF: u16 = 1;

/// The address families of which routes and addresses are read.
pub(crate) const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// A message to the kernel; sequence number and length are entered when it is written out.
pub(crate) type Request = NetlinkMessage<RouteNetlinkMessage>;

/// A request with these flags beside `NLM_F_REQUEST`.
pub(crate) fn request(message: RouteNetlinkMessage, flags: u16) -> Request {
    let mut request = Request::from(message);
    request.header.flags = flags | NLM_F_REQUEST;
    request
}

/// A message that a route socket sends: one of the crate's, or one of ours where the crate has none.
pub(crate) trait Outgoing: Clone {
    /// Adds these to the flags of its header.
    fn add_flags(&mut self, flags: u16);
    /// Bytes, header included.
    fn length(&self) -> usize;
    /// Appends it to a datagram under this sequence number.
    fn append(self, sequence: u32, datagram: &mut Vec<u8>);
}

impl Outgoing for Request {
    fn add_flags(&mut self, flags: u16) {
        self.header.flags |= flags;
    }

    fn length(&self) -> usize {
        self.buffer_len()
    }

    fn append(self, sequence: u32, datagram: &mut Vec<u8>) {
        append(self, sequence, datagram);
    }
}

impl Outgoing for wire::Message {
    fn add_flags(&mut self, flags: u16) {
        Self::add_flags(self, flags);
    }

    fn length(&self) -> usize {
        self.len()
    }

    fn append(self, sequence: u32, datagram: &mut Vec<u8>) {
        self.finish_into(sequence, datagram);
    }
}

/// Appends the request to a datagram under this sequence number.
pub(crate) fn append(mut request: Request, sequence: u32, datagram: &mut Vec<u8>) {
    request.header.sequence_number = sequence;
    request.finalize();
    let start = datagram.len();
    // Messages lie at multiples of four.
    datagram.resize(start + request.buffer_len().next_multiple_of(4), 0);
    if let Some(room) = datagram.get_mut(start..) {
        request.serialize(room);
    }
}

/// The attributes behind a header of `header` bytes, still encoded. Ends at the first that does not fit.
pub(crate) fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(body.get(header..).unwrap_or(&[])).map_while(Result::ok)
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// What `veth`, `vxlan`, … an IFLA_LINKINFO says, whatever else is in it.
pub(crate) fn link_kind(info: &NlaBuffer<&[u8]>) -> Option<String> {
    attributes(info.value(), 0).find_map(|nla| InfoKind::parse(&nla).ok()).map(|kind| kind.to_string())
}

/// IFLA_INET_CONF as a request wants it: settings by their number in linux/ip.h (IPV4_DEVCONF_*), zeroes included.
pub(crate) fn inet_settings(settings: &[(u16, u32)]) -> AfSpecInet {
    let settings: Vec<_> =
        settings.iter().map(|&(key, value)| DefaultNla::new(key, value.to_ne_bytes().to_vec())).collect();
    let mut bytes = vec![0; settings.as_slice().buffer_len()];
    settings.as_slice().emit(&mut bytes);
    AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF, bytes))
}
