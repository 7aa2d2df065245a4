//! Neighbours: permanent entries for pods and their gateways, and what the kernel has learned.
//!
//! Permanent entries need no ARP or neighbour discovery, and do not count against the kernel's table limits.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, ParseableParametrized};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
};

use crate::link::MacAddress;
use crate::netlink::{Intent, NetlinkError, RouteSocket};
use crate::packet;

/// Bytes of `struct ndmsg`.
const HEADER: usize = 12;

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
    let mut message = message(ifindex, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    let message = packet::request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE);
    socket.request(&format!("set neighbour {address} on interface {ifindex}"), message)
}

/// Removes a neighbour; one that is not there counts as removed.
///
/// # Errors
/// Refused.
pub fn delete(socket: &RouteSocket, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
    let message = packet::request(RouteNetlinkMessage::DelNeighbour(message(ifindex, address)), 0);
    socket.ensure(&format!("remove neighbour {address} from interface {ifindex}"), Intent::Delete, message)
}

/// All IP neighbours in the socket's namespace.
///
/// # Errors
/// The dump failed.
pub fn list(socket: &RouteSocket) -> Result<Vec<Neighbour>, NetlinkError> {
    let request = packet::request(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), 0);
    let parse = |kind, body: &_| if kind == libc::RTM_NEWNEIGH { Neighbour::parse(body) } else { None };
    socket.dump("list neighbours", &request, parse)
}

impl Neighbour {
    /// Reads the body of RTM_NEWNEIGH or RTM_DELNEIGH; `None` for a bridge's entries.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let header = NeighbourHeader::parse(body).ok()?;
        if !packet::FAMILIES.contains(&header.family) {
            return None;
        }
        let mut address = None;
        let mut mac = None;
        for attribute in packet::attributes(body, HEADER) {
            match NeighbourAttribute::parse_with_param(&attribute, header.family) {
                Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet(v4))) => address = Some(v4.into()),
                Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6))) => address = Some(v6.into()),
                Ok(NeighbourAttribute::LinkLayerAddress(bytes)) => {
                    mac = bytes.try_into().ok().map(MacAddress)
                }
                Ok(_) | Err(_) => {}
            }
        }
        // The crate has one state where the kernel has a set of bits.
        let state = u16::from(header.state);
        let is = |bit: NeighbourState| state & u16::from(bit) != 0;
        Some(Self {
            ifindex: header.ifindex,
            address: address?,
            mac: mac.filter(|_| !is(NeighbourState::Incomplete) && !is(NeighbourState::Failed)),
            permanent: is(NeighbourState::Permanent),
            failed: is(NeighbourState::Failed),
            router: header.flags.contains(NeighbourFlags::Router),
        })
    }
}

fn message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = packet::family(address);
    message.header.ifindex = ifindex;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}
