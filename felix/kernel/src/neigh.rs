//! Neighbours: permanent entries for pods and their gateways, and what the kernel has learned.
//!
//! Permanent entries need no ARP or neighbour discovery, and do not count against the kernel's table limits.

use std::net::IpAddr;

use crate::link::MacAddress;
use crate::netlink::{Intent, NetlinkError, RouteSocket};
use crate::wire::{self, AF_INET, AF_INET6, AF_UNSPEC, Message};

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_INCOMPLETE: u16 = 0x01;
const NUD_FAILED: u16 = 0x20;
const NUD_PERMANENT: u16 = 0x80;
const NTF_ROUTER: u8 = 0x80;

/// One neighbour of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub ifindex: u32,
    pub address: IpAddr,
    /// None while it is being asked for, or when nobody answered.
    pub mac: Option<MacAddress>,
    pub permanent: bool,
    /// Asked for in vain (NUD_FAILED).
    pub failed: bool,
    /// It says that it is a router (IPv6).
    pub router: bool,
}

/// Enters `address` on `ifindex` as known for good; replaces what was known.
///
/// # Errors
/// Refused.
pub fn set_permanent(
    socket: &RouteSocket,
    ifindex: u32,
    address: IpAddr,
    mac: MacAddress,
) -> Result<(), NetlinkError> {
    let mut message = message(
        wire::RTM_NEWNEIGH,
        wire::NLM_F_CREATE | wire::NLM_F_REPLACE,
        ifindex,
        address,
        NUD_PERMANENT,
    );
    message.attribute(NDA_LLADDR, &mac.0);
    socket.request(&format!("set neighbour {address} on interface {ifindex}"), message)
}

/// Removes a neighbour; one that is not there counts as removed.
///
/// # Errors
/// Refused.
pub fn delete(socket: &RouteSocket, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
    let message = message(wire::RTM_DELNEIGH, 0, ifindex, address, 0);
    socket.ensure(&format!("remove neighbour {address} from interface {ifindex}"), Intent::Delete, message)
}

/// All IP neighbours in the socket's namespace.
///
/// # Errors
/// The dump failed.
pub fn list(socket: &RouteSocket) -> Result<Vec<Neighbour>, NetlinkError> {
    let mut neighbours = Vec::new();
    socket.dump("list neighbours", &dump_request(), |kind, body| {
        if kind == wire::RTM_NEWNEIGH {
            neighbours.extend(Neighbour::parse(body));
        }
    })?;
    Ok(neighbours)
}

pub(crate) fn dump_request() -> Message {
    let mut message = Message::new(wire::RTM_GETNEIGH, 0);
    message.put(&[AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message
}

impl Neighbour {
    /// Reads the body of RTM_NEWNEIGH or RTM_DELNEIGH; `None` for a bridge's entries.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let &[family, _, _, _, _, _, _, _, s0, s1, flags, _] = body.first_chunk::<12>()?;
        if family != AF_INET && family != AF_INET6 {
            return None;
        }
        let state = u16::from_ne_bytes([s0, s1]);
        let mut address = None;
        let mut mac = None;
        for (kind, value) in wire::attributes(body.get(12..)?) {
            match kind {
                NDA_DST => address = wire::address(value),
                NDA_LLADDR => mac = value.try_into().ok().map(MacAddress),
                _ => {}
            }
        }
        Some(Self {
            ifindex: wire::u32_at(body, 4)?,
            address: address?,
            mac: mac.filter(|_| state & (NUD_INCOMPLETE | NUD_FAILED) == 0),
            permanent: state & NUD_PERMANENT != 0,
            failed: state & NUD_FAILED != 0,
            router: flags & NTF_ROUTER != 0,
        })
    }
}

fn message(kind: u16, flags: u16, ifindex: u32, address: IpAddr, state: u16) -> Message {
    let mut message = Message::new(kind, flags);
    message.put(&[wire::family_of(address), 0, 0, 0]);
    message.put(&ifindex.to_ne_bytes());
    let [s0, s1] = state.to_ne_bytes();
    message.put(&[s0, s1, 0, 0]);
    message.attribute(NDA_DST, &wire::octets(address));
    message
}
