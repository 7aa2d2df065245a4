//! Router discovery on one link (RFC 4861): who is there, and that we are.
//!
//! A router that wants no hosts says router lifetime 0 and no prefix: nobody takes it for a default router or an address from it,
//! and a neighbour that looks for a router finds it all the same.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt as option,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::link::MacAddress;
use crate::sockopt::{self, Plain};

/// RFC 4861 §4.1, §4.2.
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// "The IP Hop Limit field has a value of 255, i.e., the packet could not possibly have been forwarded by a router" (§6.1).
const HOP_LIMIT: u8 = 255;
/// Type and length of the option that tells the sender's Ethernet address (§4.6.1).
const SOURCE_LINK_LAYER_ADDRESS: [u8; 2] = [1, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// No advertisement with the options of any RFC is longer than an Ethernet frame.
const DATAGRAM: usize = 1500;
/// ICMPV6_FILTER of linux/icmpv6.h.
const FILTER: libc::c_int = 1;

/// `struct icmp6_filter`: a set bit keeps a type out.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Filter([u32; 8]);

// SAFETY: integers have no invalid bit patterns, and there is no padding between them.
unsafe impl Plain for Filter {}

impl Filter {
    fn only(types: &[u8]) -> Self {
        let mut words = [u32::MAX; 8];
        for kind in types {
            if let Some(word) = words.get_mut(usize::from(kind >> 5)) {
                *word &= !(1 << (kind & 31));
            }
        }
        Self(words)
    }
}

/// What somebody on the link said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A host looks for routers; one without an address yet is to be answered by multicast.
    Solicitation { from: Option<Ipv6Addr> },
    /// A router says that it is there, by its link-local address.
    Advertisement { from: Ipv6Addr },
}

/// A raw socket on one interface. Opening it takes CAP_NET_RAW.
#[derive(Debug)]
pub struct RouterDiscovery {
    socket: AsyncFd<Socket>,
    ifindex: u32,
}

impl RouterDiscovery {
    /// Opens it in the calling thread's network namespace; in a tokio runtime.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW; the interface is gone.
    pub fn open(name: &str, ifindex: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        let filter = Filter::only(&[ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT]);
        sockopt::set(socket.as_fd(), libc::IPPROTO_ICMPV6, FILTER, &filter)?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(name.as_bytes()))?;
        socket.set_multicast_if_v6(ifindex)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
        // Solicitations go there; the kernel hears itself what goes to all nodes.
        socket.join_multicast_v6(&ALL_ROUTERS, ifindex)?;
        setsockopt(&socket, option::Ipv6RecvHopLimit, &true)?;
        // SAFETY: the `Socket` moves into the `AsyncFd`, which keeps it open until it is itself dropped, and names the same
        // descriptor all that time.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, ifindex })
    }

    /// The next message that is valid; others are passed over.
    ///
    /// # Errors
    /// The interface went down or away.
    pub async fn receive(&self) -> io::Result<Message> {
        loop {
            let read = self.socket.async_io(Interest::READABLE, read).await?;
            if let Some(message) = read {
                return Ok(message);
            }
        }
    }

    /// Asks the routers of the link to say that they are there.
    ///
    /// # Errors
    /// The interface has no address to send from, or is down.
    pub fn solicit(&self) -> io::Result<()> {
        self.send(&[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0], ALL_ROUTERS)
    }

    /// Says that we are there, to one neighbour or to all; nobody's default router.
    ///
    /// # Errors
    /// As [`RouterDiscovery::solicit`].
    pub fn advertise(&self, to: Option<Ipv6Addr>, mac: Option<MacAddress>) -> io::Result<()> {
        self.send(&advertisement(mac), to.unwrap_or(ALL_NODES))
    }

    fn send(&self, message: &[u8], to: Ipv6Addr) -> io::Result<()> {
        let to = SocketAddrV6::new(to, 0, 0, self.ifindex);
        // The kernel puts the checksum in, as it does for every ICMPv6 socket (RFC 3542 §3.1).
        self.socket.get_ref().send_to(message, &to.into()).map(drop)
    }
}

/// One datagram; `None`: it is not valid.
fn read(socket: &Socket) -> io::Result<Option<Message>> {
    let mut datagram = [0; DATAGRAM];
    let mut control = nix::cmsg_space!(libc::c_int);
    let mut slices = [IoSliceMut::new(&mut datagram)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let source = received.address.as_ref().and_then(|from| from.as_sockaddr_in6().map(|from| from.ip()));
    let hop_limit = received.cmsgs()?.find_map(|control| {
        if let ControlMessageOwned::Ipv6HopLimit(limit) = control { u8::try_from(limit).ok() } else { None }
    });
    let length = received.bytes;
    Ok(parse(datagram.get(..length).unwrap_or_default(), source, hop_limit))
}

/// RFC 4861 §6.1.1 and §6.1.2; the kernel has checked the checksum.
fn parse(message: &[u8], source: Option<Ipv6Addr>, hop_limit: Option<u8>) -> Option<Message> {
    let source = source.filter(|_| hop_limit == Some(HOP_LIMIT))?;
    match message {
        [ROUTER_SOLICITATION, 0, _, _, _, _, _, _, options @ ..] if are_options(options) => {
            Some(Message::Solicitation { from: Some(source).filter(|source| !source.is_unspecified()) })
        }
        [ROUTER_ADVERTISEMENT, 0, rest @ ..] if source.is_unicast_link_local() => {
            let options = rest.get(14..)?;
            are_options(options).then_some(Message::Advertisement { from: source })
        }
        _ => None,
    }
}

/// "All included options have a length that is greater than zero" (RFC 4861 §6.1).
fn are_options(mut options: &[u8]) -> bool {
    while let [_, length, ..] = options {
        let Some(rest) = options.get(usize::from(*length) * 8..).filter(|_| *length > 0) else {
            return false;
        };
        options = rest;
    }
    options.is_empty()
}

/// RFC 4861 §4.2: hop limit, flags, lifetime, reachable time and retransmission timer all 0, unspecified.
fn advertisement(mac: Option<MacAddress>) -> Vec<u8> {
    let mut message = vec![0; 16];
    if let Some(kind) = message.first_mut() {
        *kind = ROUTER_ADVERTISEMENT;
    }
    if let Some(mac) = mac {
        message.extend_from_slice(&SOURCE_LINK_LAYER_ADDRESS);
        message.extend_from_slice(&mac.0);
    }
    message
}

#[cfg(test)]
mod tests;
