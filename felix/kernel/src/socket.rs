//! Sockets for BGP: options that the standard library does not know, listening, and dialling.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::sockopt::{self, Plain};

/// TCP-MD5 keys are at most this long, bytes (TCP_MD5SIG_MAXKEYLEN).
pub const MD5_KEY_MAX: usize = 80;
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
/// Connections that wait to be accepted, as far as net.core.somaxconn allows: the clients of a reflector that restarts come at
/// once, and whoever finds no room tries again after a second.
const BACKLOG: i32 = 4096;
/// Network control traffic (RFC 4271 appendix E: precedence 6): DSCP CS6.
const DSCP_CS6: u32 = 0xc0;

/// How a BGP connection is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DialOptions {
    /// Source address; left to the kernel if none.
    pub source: Option<IpAddr>,
    /// The interface of a link-local source address, by index.
    pub source_scope: u32,
    /// Leave through this interface only (needed for link-local neighbours).
    pub device: Option<String>,
    /// TTL of what we send: 1 for a neighbour on the link, more for multihop.
    pub ttl: Option<u8>,
    /// Accept only packets with at least this TTL, and send with 255 (RFC 5082: 255 − hops + 1).
    pub min_ttl: Option<u8>,
    /// Shared key (RFC 2385).
    pub md5_key: Option<Vec<u8>>,
    /// Give up on unacknowledged data after this long (TCP_USER_TIMEOUT).
    pub user_timeout: Option<Duration>,
}

/// A non-blocking TCP socket for `peer`, options set, ready to `connect`.
///
/// # Errors
/// The source address or device is not there, an option is refused, or the key is too long.
pub fn dial(peer: IpAddr, options: &DialOptions) -> io::Result<tokio::net::TcpSocket> {
    let DialOptions { source, source_scope, device, ttl, min_ttl, md5_key, user_timeout } = options;
    let socket = tcp_socket(peer)?;
    set_precedence(&socket, peer)?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(ttl) = ttl {
        set_ttl(&socket, peer, *ttl)?;
    }
    if let Some(min_ttl) = min_ttl {
        set_ttl_security(&socket, peer, *min_ttl)?;
    }
    if let Some(key) = md5_key {
        set_md5_key(&socket, peer, None, key)?;
    }
    if let Some(timeout) = user_timeout {
        set_user_timeout(&socket, *timeout)?;
    }
    if let Some(source) = source {
        let address = match source {
            IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(*ip, 0, 0, *source_scope)),
            IpAddr::V4(_) => SocketAddr::new(*source, 0),
        };
        socket.bind(&address.into())?;
    }
    // SAFETY: `into_raw_fd` gives up ownership of an open TCP socket, which the new value takes over.
    Ok(unsafe { tokio::net::TcpSocket::from_raw_fd(socket.into_raw_fd()) })
}

/// A non-blocking listening socket. An IPv6 one takes IPv6 only, so that both families listen on one port.
///
/// # Errors
/// `AddrInUse` and `PermissionDenied` as usual.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_with(address, |_| ())
}

/// The same; `prepare` gets the socket before anybody can connect to it, to set keys.
///
/// # Errors
/// As [`listen`].
pub fn listen_with(address: SocketAddr, prepare: impl FnOnce(&Socket)) -> io::Result<TcpListener> {
    let socket = tcp_socket(address.ip())?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_precedence(&socket, address.ip())?;
    socket.bind(&address.into())?;
    prepare(&socket);
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sends with TTL (hop limit) 255 and drops what arrives with less than `min_ttl` (RFC 5082, GTSM).
///
/// `peer` tells the address family of the socket.
///
/// # Errors
/// Not a socket of that family.
pub fn set_ttl_security(socket: impl AsFd, peer: IpAddr, min_ttl: u8) -> io::Result<()> {
    set_ttl(&socket, peer, u8::MAX)?;
    set_min_ttl(&socket, peer, min_ttl)
}

/// Drops what arrives with a lower TTL (hop limit); 0 drops nothing. On a listening socket it holds for the handshake, and for
/// every connection that is accepted from there on.
///
/// # Errors
/// Not a socket of that family.
pub fn set_min_ttl(socket: impl AsFd, peer: IpAddr, min_ttl: u8) -> io::Result<()> {
    let (level, option) = match peer {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    };
    sockopt::set(socket.as_fd(), level, option, &i32::from(min_ttl))
}

/// Sets the TTL (hop limit) of what the socket sends.
///
/// # Errors
/// Not a socket of that family.
pub fn set_ttl(socket: impl AsFd, peer: IpAddr, ttl: u8) -> io::Result<()> {
    let (level, option) = match peer {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    };
    sockopt::set(socket.as_fd(), level, option, &i32::from(ttl))
}

/// Gives up on a connection whose data stays unacknowledged for `timeout` (milliseconds count).
///
/// # Errors
/// Not a TCP socket.
pub fn set_user_timeout(socket: impl AsFd, timeout: Duration) -> io::Result<()> {
    let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    sockopt::set(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &milliseconds)
}

/// Sets the TCP-MD5 key (RFC 2385) for a peer, or for all of a prefix (then on a listening socket). An empty key
/// removes it.
///
/// # Errors
/// `InvalidInput` for a key over [`MD5_KEY_MAX`]; otherwise the kernel's refusal (it may lack TCP-MD5).
pub fn set_md5_key(socket: impl AsFd, peer: IpAddr, prefix_length: Option<u8>, key: &[u8]) -> io::Result<()> {
    let mut signature = TcpMd5Signature {
        address: [0; 128],
        flags: 0,
        prefix_length: 0,
        key_length: u16::try_from(key.len()).unwrap_or(u16::MAX),
        ifindex: 0,
        key: [0; MD5_KEY_MAX],
    };
    signature
        .key
        .get_mut(..key.len())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a TCP-MD5 key has at most 80 bytes"))?
        .copy_from_slice(key);
    let address = SockAddr::from(SocketAddr::new(peer, 0));
    let family = u16::from(crate::wire::family_of(peer)).to_ne_bytes();
    let octets = crate::wire::octets(peer);
    // sockaddr_in: family, port, address; sockaddr_in6: family, port, flow, address.
    let offset = if address.is_ipv4() { 4 } else { 8 };
    for (field, bytes) in [(0, family.as_slice()), (offset, octets.as_slice())] {
        if let Some(target) = signature.address.get_mut(field..field + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }
    let option = match prefix_length {
        None => libc::TCP_MD5SIG,
        Some(length) => {
            signature.flags = TCP_MD5SIG_FLAG_PREFIX;
            signature.prefix_length = length;
            libc::TCP_MD5SIG_EXT
        }
    };
    sockopt::set(socket.as_fd(), libc::IPPROTO_TCP, option, &signature)
}

/// `struct tcp_md5sig` of linux/tcp.h, its address as the bytes of a `sockaddr_storage`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct TcpMd5Signature {
    address: [u8; 128],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    ifindex: i32,
    key: [u8; MD5_KEY_MAX],
}

// SAFETY: integers and arrays of integers without padding between: 128 + 1 + 1 + 2 + 4 + 80 = 216, a multiple of 8.
unsafe impl Plain for TcpMd5Signature {}

fn tcp_socket(family_of: IpAddr) -> io::Result<Socket> {
    let domain = if family_of.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn set_precedence(socket: &Socket, peer: IpAddr) -> io::Result<()> {
    match peer {
        IpAddr::V4(_) => socket.set_tos_v4(DSCP_CS6),
        IpAddr::V6(_) => socket.set_tclass_v6(DSCP_CS6),
    }
}
