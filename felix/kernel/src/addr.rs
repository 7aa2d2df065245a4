//! Addresses of interfaces, in whatever namespace the socket belongs to.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressScope,
};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{Intent, NetlinkError, RouteSocket};
use crate::packet::{self, Request};

/// How long [`settle`] waits for an address to be delivered.
pub const SETTLE: Duration = Duration::from_millis(500);

/// Bytes of `struct ifaddrmsg`.
const HEADER: usize = 8;

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub ifindex: u32,
    /// The address itself with its prefix length, not the network.
    pub address: IpNet,
    /// Valid on the link only.
    pub link_scope: bool,
    /// Neither tentative, nor found to be a duplicate, nor deprecated: may be a source address.
    pub usable: bool,
}

/// Adds an address without duplicate address detection: it is usable at once. One that is already there counts as added.
///
/// # Errors
/// Refused.
pub fn add(socket: &RouteSocket, ifindex: u32, address: IpNet) -> Result<(), NetlinkError> {
    let mut message = message(ifindex, address);
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    let message = packet::request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
    socket.ensure(&format!("add address {address} to interface {ifindex}"), Intent::Create, message)
}

/// Waits until the kernel delivers what arrives for an own address, at most [`SETTLE`]; whether it does.
///
/// IPv4 does so when the address is added. For IPv6 the route to the address is entered a moment later by a task of the
/// kernel's, even without duplicate address detection, and only once the interface is up: what arrives before is lost.
///
/// # Errors
/// The kernel did not answer.
pub fn settle(socket: &RouteSocket, address: IpAddr) -> Result<bool, NetlinkError> {
    let deadline = Instant::now() + SETTLE;
    loop {
        if is_delivered(socket, address)? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_delivered(socket: &RouteSocket, address: IpAddr) -> Result<bool, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = packet::family(address);
    message.header.destination_prefix_length = IpNet::from(address).prefix_len();
    message.attributes = vec![RouteAttribute::Destination(address.into())];
    let message = packet::request(RouteNetlinkMessage::GetRoute(message), 0);
    let is_local = |body: &[u8]| RouteHeader::parse(body).is_ok_and(|header| header.kind == RouteType::Local);
    match socket.query(&format!("see address {address} ready"), message) {
        Ok(answers) => Ok(answers.iter().any(|(_, body)| is_local(body))),
        // No route at all is an answer too.
        Err(NetlinkError::Refused { .. }) => Ok(false),
        Err(err) => Err(err),
    }
}

/// Removes an address; one that is not there counts as removed.
///
/// # Errors
/// Refused.
pub fn delete(socket: &RouteSocket, ifindex: u32, address: IpNet) -> Result<(), NetlinkError> {
    let message = packet::request(RouteNetlinkMessage::DelAddress(message(ifindex, address)), 0);
    socket.ensure(&format!("remove address {address} from interface {ifindex}"), Intent::Delete, message)
}

/// All addresses of both families in the socket's namespace.
///
/// # Errors
/// The dump failed.
pub fn list(socket: &RouteSocket) -> Result<Vec<Address>, NetlinkError> {
    let mut addresses = Vec::new();
    for family in packet::FAMILIES {
        let parse = |kind, body: &_| if kind == libc::RTM_NEWADDR { Address::parse(body) } else { None };
        addresses.append(&mut socket.dump("list addresses", &dump_request(family), parse)?);
    }
    Ok(addresses)
}

fn dump_request(family: AddressFamily) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family;
    packet::request(RouteNetlinkMessage::GetAddress(message), 0)
}

impl Address {
    /// Reads the body of RTM_NEWADDR or RTM_DELADDR.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let header = AddressHeader::parse(body).ok()?;
        if !packet::FAMILIES.contains(&header.family) {
            return None;
        }
        let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
        let mut local = None;
        let mut address = None;
        for attribute in packet::attributes(body, HEADER) {
            match AddressAttribute::parse(&attribute) {
                Ok(AddressAttribute::Address(found)) => address = Some(found),
                Ok(AddressAttribute::Local(found)) => local = Some(found),
                Ok(AddressAttribute::Flags(found)) => flags = found,
                Ok(_) | Err(_) => {}
            }
        }
        let unusable = AddressFlags::Dadfailed | AddressFlags::Deprecated | AddressFlags::Tentative;
        // On a point-to-point link IFA_ADDRESS is the other end.
        Some(Self {
            ifindex: header.index,
            address: IpNet::new(local.or(address)?, header.prefix_len).ok()?,
            link_scope: header.scope == AddressScope::Link,
            usable: !flags.intersects(unusable),
        })
    }
}

fn message(ifindex: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header = AddressHeader {
        family: packet::family(address.addr()),
        prefix_len: address.prefix_len(),
        scope: scope(address.addr()),
        index: ifindex,
        ..AddressHeader::default()
    };
    message.attributes =
        vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    message
}

fn scope(address: IpAddr) -> AddressScope {
    match address {
        _ if address.is_loopback() => AddressScope::Host,
        IpAddr::V4(v4) if v4.is_link_local() => AddressScope::Link,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => AddressScope::Link,
        IpAddr::V4(_) | IpAddr::V6(_) => AddressScope::Universe,
    }
}
