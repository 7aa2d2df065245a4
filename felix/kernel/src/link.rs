//! Interfaces: pods' veth pairs, and what may be asked or set of any link.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::str::FromStr;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, ParseableParametrized};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkHeader, LinkInfo, LinkMessage, State,
};

use crate::netlink::{Intent, NetlinkError, RouteSocket};
use crate::packet::{self, Request};
use crate::wire;

#[cfg(test)]
mod tests;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
/// Bytes of `struct ifinfomsg`.
const HEADER: usize = 16;

// Indexes of the per-interface IPv4 settings (linux/ip.h, IPV4_DEVCONF_*).
const CONF_FORWARDING: u16 = 1;
const CONF_PROXY_ARP: u16 = 3;
const CONF_ACCEPT_REDIRECTS: u16 = 4;
const CONF_SEND_REDIRECTS: u16 = 6;
const CONF_RP_FILTER: u16 = 8;

/// How long [`settle`] waits for a link to become usable.
pub const SETTLE: Duration = Duration::from_millis(500);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not six pairs of hexadecimal digits with colons between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Ethernet address; expected six pairs of hexadecimal digits such as 02:00:5e:10:00:01")]
pub struct InvalidMacAddress(pub String);

impl FromStr for MacAddress {
    type Err = InvalidMacAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMacAddress(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(Self(octets)) }
    }
}

/// One interface as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Set up by the administrator (IFF_UP).
    pub up: bool,
    /// There is a carrier and the interface may pass packets (IFF_LOWER_UP, operational state up or unknown).
    pub carrier: bool,
    pub loopback: bool,
    /// Bytes.
    pub mtu: u32,
    pub mac: Option<MacAddress>,
    /// `veth`, `vxlan`, `bridge`, …; none for a physical one.
    pub kind: Option<String>,
    /// The bridge or VRF it belongs to.
    pub master: Option<u32>,
    /// The other end or the interface below; in another namespace the number means nothing here.
    pub lower: Option<u32>,
}

impl Link {
    /// Whether packets can leave through it now.
    pub fn is_usable(&self) -> bool {
        self.up && self.carrier
    }

    /// Reads the body of RTM_NEWLINK or RTM_DELLINK.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let header = LinkHeader::parse(body).ok()?;
        let mut link = Self {
            index: header.index,
            name: String::new(),
            up: header.flags.contains(LinkFlags::Up),
            carrier: header.flags.contains(LinkFlags::LowerUp),
            loopback: header.flags.contains(LinkFlags::Loopback),
            mtu: 0,
            mac: None,
            kind: None,
            master: None,
            lower: None,
        };
        for attribute in packet::attributes(body, HEADER) {
            match attribute.kind() {
                // A name is bytes to the kernel; one that is not UTF-8 is no reason to lose the link.
                IFLA_IFNAME => link.name = wire::string(attribute.value()),
                IFLA_LINKINFO => link.kind = packet::link_kind(&attribute),
                _ => match LinkAttribute::parse_with_param(&attribute, header.interface_family) {
                    Ok(LinkAttribute::Mtu(mtu)) => link.mtu = mtu,
                    Ok(LinkAttribute::Address(bytes)) => link.mac = bytes.try_into().ok().map(MacAddress),
                    Ok(LinkAttribute::Controller(index)) => link.master = Some(index),
                    Ok(LinkAttribute::Link(index)) => link.lower = Some(index).filter(|&index| index != 0),
                    Ok(LinkAttribute::OperState(state)) => {
                        link.carrier &= matches!(state, State::Unknown | State::Up);
                    }
                    Ok(_) | Err(_) => {}
                },
            }
        }
        Some(link)
    }
}

/// A veth pair to be made: one end here, the other straight in a pod's namespace.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    pub host_name: &'a str,
    pub host_mac: MacAddress,
    pub pod_name: &'a str,
    pub pod_mac: MacAddress,
    /// Bytes, on both ends.
    pub mtu: u32,
    /// The pod's network namespace.
    pub namespace: BorrowedFd<'a>,
}

/// Makes both ends in one request, both down. The index of the host's end.
///
/// # Errors
/// Refused; [`NetlinkError::is_exists`] where one of the names is taken, and then nothing was made.
pub fn create_veth(socket: &RouteSocket, veth: &Veth<'_>) -> Result<u32, NetlinkError> {
    let &Veth { host_name, host_mac, pod_name, pod_mac, mtu, namespace } = veth;
    let what = format!("create interface {host_name} with {pod_name} in the pod");
    let end = |name: &str, mac: MacAddress| {
        let name = LinkAttribute::IfName(name.to_owned());
        vec![name, LinkAttribute::Address(mac.0.to_vec()), LinkAttribute::Mtu(mtu)]
    };
    let mut peer = message(0, end(pod_name, pod_mac));
    peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let mut message = message(0, end(host_name, host_mac));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let message = packet::request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
    socket.request(&what, message)?;
    let link = by_name(socket, host_name)?;
    link.map(|link| link.index).ok_or(NetlinkError::Malformed { what, missing: "the interface just made" })
}

/// Sets the host's end of a pod's link before it is up: forwarding, strict reverse path, no proxy ARP, no redirects, no
/// link-local address of the kernel's own making.
///
/// By netlink, which CAP_NET_ADMIN suffices for. `accept_ra` has no such way: see [`crate::sysctl::host_end`].
///
/// # Errors
/// Refused.
pub fn secure_host_end(socket: &RouteSocket, index: u32) -> Result<(), NetlinkError> {
    let conf = [
        (CONF_FORWARDING, 1),
        (CONF_PROXY_ARP, 0),
        (CONF_ACCEPT_REDIRECTS, 0),
        (CONF_SEND_REDIRECTS, 0),
        (CONF_RP_FILTER, 1),
    ];
    let settings = LinkAttribute::AfSpecUnspec(vec![
        AfSpecUnspec::Inet(vec![packet::inet_settings(&conf)]),
        // No link-local address by itself.
        AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]),
    ]);
    let message = packet::request(RouteNetlinkMessage::SetLink(message(index, vec![settings])), 0);
    socket.request(&format!("set IPv4 and IPv6 settings of interface {index}"), message)
}

/// Whether the host's end takes only what is routed back through it (RFC 3704 §2.2), of IPv4. The kernel takes the
/// larger number of this (1, else 0) and `net/ipv4/conf/all/rp_filter`.
///
/// # Errors
/// Refused.
pub fn set_strict_reverse_path(socket: &RouteSocket, index: u32, strict: bool) -> Result<(), NetlinkError> {
    let conf = [(CONF_RP_FILTER, u32::from(strict))];
    let settings = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![packet::inet_settings(&conf)])]);
    let message = packet::request(RouteNetlinkMessage::SetLink(message(index, vec![settings])), 0);
    socket.request(&format!("set the reverse path filter of interface {index}"), message)
}

/// Sets an interface up.
///
/// # Errors
/// Refused.
pub fn set_up(socket: &RouteSocket, index: u32) -> Result<(), NetlinkError> {
    socket.request(&format!("set interface {index} up"), set_flags(index, LinkFlags::Up))
}

/// Waits until an interface can pass packets, at most [`SETTLE`]; how it then stands.
///
/// A carrier that comes on takes effect in the kernel a moment later: until then the interface discards what it is given.
/// So the first packet to a new pod would be lost between both ends being up and this. Kernels from 6.8 finish the work
/// when they are asked for the link; older ones are asked again.
///
/// # Errors
/// The interface is not there, or the kernel did not answer. That it is still unusable is no error here.
pub fn settle(socket: &RouteSocket, index: u32) -> Result<Link, NetlinkError> {
    let what = format!("see interface {index} ready");
    let deadline = Instant::now() + SETTLE;
    loop {
        let message = RouteNetlinkMessage::GetLink(message(index, vec![without_statistics()]));
        let message = packet::request(message, 0);
        let answers = socket.query(&what, message)?;
        let Some(link) = answers.iter().find_map(|(_, body)| Link::parse(body)) else {
            return Err(NetlinkError::Malformed { what, missing: "the interface" });
        };
        if link.is_usable() || Instant::now() >= deadline {
            return Ok(link);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sets an interface down.
///
/// # Errors
/// Refused.
pub fn set_down(socket: &RouteSocket, index: u32) -> Result<(), NetlinkError> {
    socket.request(&format!("set interface {index} down"), set_flags(index, LinkFlags::empty()))
}

/// Sets the MTU, bytes.
///
/// # Errors
/// Refused.
pub fn set_mtu(socket: &RouteSocket, index: u32, mtu: u32) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::SetLink(message(index, vec![LinkAttribute::Mtu(mtu)]));
    let message = packet::request(message, 0);
    socket.request(&format!("set MTU {mtu} of interface {index}"), message)
}

/// Deletes an interface, with its other end if it is a veth; one that is not there counts as deleted.
///
/// # Errors
/// Refused.
pub fn delete(socket: &RouteSocket, index: u32) -> Result<(), NetlinkError> {
    socket.ensure(&format!("delete interface {index}"), Intent::Delete, delete_message(index, vec![]))
}

/// Deletes an interface by name; one that is not there counts as deleted.
///
/// # Errors
/// Refused.
pub fn delete_by_name(socket: &RouteSocket, name: &str) -> Result<(), NetlinkError> {
    let message = delete_message(0, vec![LinkAttribute::IfName(name.to_owned())]);
    socket.ensure(&format!("delete interface {name}"), Intent::Delete, message)
}

/// Deletes many interfaces in few datagrams. Each veth costs the kernel some 16 ms under its routing lock: background
/// work. Those it would not delete come back with its reason.
///
/// # Errors
/// The socket failed; which ones were deleted is unknown.
pub fn delete_all(
    socket: &RouteSocket,
    indexes: &[u32],
) -> Result<Vec<(u32, crate::netlink::Refusal)>, NetlinkError> {
    let messages = indexes.iter().map(|&index| delete_message(index, vec![])).collect();
    let outcomes = socket.batch("delete interfaces", messages)?;
    let refused = indexes.iter().copied().zip(outcomes).filter_map(|(index, outcome)| {
        let refusal = outcome?;
        let gone = refusal.disagreement(Intent::Delete) == crate::netlink::Disagreement::AlreadySo;
        (!gone).then_some((index, refusal))
    });
    Ok(refused.collect())
}

/// The interface of this name, if there is one.
///
/// # Errors
/// The kernel did not answer.
pub fn by_name(socket: &RouteSocket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let attributes = vec![LinkAttribute::IfName(name.to_owned()), without_statistics()];
    let message = packet::request(RouteNetlinkMessage::GetLink(message(0, attributes)), 0);
    match socket.query(&format!("find interface {name}"), message) {
        Ok(answers) => {
            Ok(answers.iter().find(|(kind, _)| *kind == libc::RTM_NEWLINK).and_then(|(_, b)| Link::parse(b)))
        }
        Err(err) if err.is_absent() => Ok(None),
        Err(err) => Err(err),
    }
}

/// All interfaces of the socket's namespace.
///
/// # Errors
/// The dump failed.
pub fn list(socket: &RouteSocket) -> Result<Vec<Link>, NetlinkError> {
    let request = RouteNetlinkMessage::GetLink(message(0, vec![without_statistics()]));
    let parse = |kind, body: &_| if kind == libc::RTM_NEWLINK { Link::parse(body) } else { None };
    socket.dump("list interfaces", &packet::request(request, 0), parse)
}

/// The hosts' ends of pods' links: every interface whose name begins with `felix_calc::host::INTERFACE_PREFIX`.
///
/// # Errors
/// The dump failed.
pub fn list_pod_links(socket: &RouteSocket) -> Result<Vec<Link>, NetlinkError> {
    let mut links = list(socket)?;
    links.retain(|link| link.name.starts_with(felix_calc::host::INTERFACE_PREFIX));
    Ok(links)
}

fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

/// Sets or clears IFF_UP.
fn set_flags(index: u32, up: LinkFlags) -> Request {
    let mut message = message(index, vec![]);
    message.header.flags = up;
    message.header.change_mask = LinkFlags::Up;
    packet::request(RouteNetlinkMessage::SetLink(message), 0)
}

fn delete_message(index: u32, attributes: Vec<LinkAttribute>) -> Request {
    packet::request(RouteNetlinkMessage::DelLink(message(index, attributes)), 0)
}

/// About one link, or with index 0 about the one that the attributes name.
fn message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}
