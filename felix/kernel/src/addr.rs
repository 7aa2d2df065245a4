//! Addresses of interfaces, in whatever namespace the socket belongs to.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::netlink::{Intent, NetlinkError, RouteSocket};
use crate::wire::{self, AF_INET, AF_INET6, Message};

/// How long [`settle`] waits for an address to be delivered.
pub const SETTLE: Duration = Duration::from_millis(500);

const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
/// Where `struct rtmsg` has its type.
const ROUTE_TYPE: usize = 7;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_HOST: u8 = 254;

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
    let mut message = message(wire::RTM_NEWADDR, wire::NLM_F_CREATE | wire::NLM_F_EXCL, ifindex, address);
    message.attribute_u32(IFA_FLAGS, IFA_F_NODAD);
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
    let octets = wire::octets(address);
    let mut message = Message::new(wire::RTM_GETROUTE, 0);
    let bits = IpNet::from(address).prefix_len();
    message.put(&[wire::family_of(address), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.attribute(RTA_DST, &octets);
    match socket.query(&format!("see address {address} ready"), message) {
        Ok(answers) => Ok(answers.iter().any(|(_, body)| body.get(ROUTE_TYPE) == Some(&RTN_LOCAL))),
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
    let message = message(wire::RTM_DELADDR, 0, ifindex, address);
    socket.ensure(&format!("remove address {address} from interface {ifindex}"), Intent::Delete, message)
}

/// All addresses of both families in the socket's namespace.
///
/// # Errors
/// The dump failed.
pub fn list(socket: &RouteSocket) -> Result<Vec<Address>, NetlinkError> {
    let mut addresses = Vec::new();
    for family in [AF_INET, AF_INET6] {
        socket.dump("list addresses", &dump_request(family), |kind, body| {
            if kind == wire::RTM_NEWADDR {
                addresses.extend(Address::parse(body));
            }
        })?;
    }
    Ok(addresses)
}

pub(crate) fn dump_request(family: u8) -> Message {
    let mut message = Message::new(wire::RTM_GETADDR, 0);
    message.put(&[family, 0, 0, 0, 0, 0, 0, 0]);
    message
}

impl Address {
    /// Reads the body of RTM_NEWADDR or RTM_DELADDR.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let &[family, length, flags, scope, ..] = body.first_chunk::<8>()?;
        if family != AF_INET && family != AF_INET6 {
            return None;
        }
        let ifindex = wire::u32_at(body, 4)?;
        let mut flags = u32::from(flags);
        let mut local = None;
        let mut address = None;
        for (kind, value) in wire::attributes(body.get(8..)?) {
            match kind {
                IFA_ADDRESS => address = wire::address(value),
                IFA_LOCAL => local = wire::address(value),
                IFA_FLAGS => flags = wire::u32_at(value, 0)?,
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the other end.
        Some(Self {
            ifindex,
            address: IpNet::new(local.or(address)?, length).ok()?,
            link_scope: scope == RT_SCOPE_LINK,
            usable: flags & (IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE) == 0,
        })
    }
}

fn message(kind: u16, flags: u16, ifindex: u32, address: IpNet) -> Message {
    let mut message = Message::new(kind, flags);
    message.put(&[wire::family_of(address.addr()), address.prefix_len(), 0, scope(address.addr())]);
    message.put(&ifindex.to_ne_bytes());
    let octets = wire::octets(address.addr());
    message.attribute(IFA_LOCAL, &octets);
    message.attribute(IFA_ADDRESS, &octets);
    message
}

fn scope(address: IpAddr) -> u8 {
    match address {
        _ if address.is_loopback() => RT_SCOPE_HOST,
        IpAddr::V4(v4) if v4.is_link_local() => RT_SCOPE_LINK,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => RT_SCOPE_LINK,
        IpAddr::V4(_) | IpAddr::V6(_) => RT_SCOPE_UNIVERSE,
    }
}
