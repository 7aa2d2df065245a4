//! Descriptors that come over a unix socket: passing them, and never trusting them.
//!
//! manx-cni runs as root in the host's namespaces, opens the pod's network namespace and a route socket inside it, and
//! passes both. Without these checks felix would be a confused deputy that rewrites the host's routes for whoever reaches
//! its socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, getsockopt, recvmsg, sendmsg, sockopt,
};
use nix::sys::stat::fstat;

use crate::netlink::RouteSocket;

/// Descriptors accepted with one message.
pub const MAX_DESCRIPTORS: usize = 2;
/// Descriptors that one message can carry (SCM_MAX_FD): room for all, so that none is left open unseen.
const CARRIED_DESCRIPTORS: usize = 253;

/// `_IO(0xb7, 3)`: the CLONE_NEW* flag of a namespace descriptor (linux/nsfs.h).
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
/// A socket's network namespace, as a new descriptor (linux/sockios.h).
const SIOCGSKNS: libc::c_ulong = 0x894c;

/// A pod's network namespace, checked: links can be made into it and configured there.
#[derive(Debug)]
pub struct PodNamespace {
    pub namespace: OwnedFd,
    /// Acts inside the pod's namespace.
    pub socket: RouteSocket,
}

/// Why the descriptors of a request are refused (CNI error 7). Nothing was done with them.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    #[error(
        "the request carries {0} descriptors, expected two: the pod's network namespace and a route socket in it"
    )]
    Count(usize),
    #[error("the first descriptor is no network namespace")]
    NotNetworkNamespace,
    #[error("the first descriptor is the host's own network namespace, not a pod's")]
    OwnNamespace,
    #[error("the second descriptor is no route netlink socket")]
    NotRouteSocket,
    #[error("the second descriptor is a socket of another network namespace than the first")]
    OtherNamespace,
    #[error("cannot examine the descriptors: {what}")]
    Examine { what: &'static str, source: io::Error },
}

/// Checks what came with a request: exactly a network namespace that is not ours, and a route socket in it.
///
/// "Ours" is the calling thread's network namespace.
///
/// # Errors
/// Anything else; the descriptors are closed.
pub fn check_pod_descriptors(descriptors: Vec<OwnedFd>) -> Result<PodNamespace, DescriptorError> {
    let count = descriptors.len();
    let Ok([namespace, socket]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return Err(DescriptorError::Count(count));
    };
    let identity = network_namespace(namespace.as_fd())?;
    if identity == own_namespace()? {
        return Err(DescriptorError::OwnNamespace);
    }
    check_route_socket(socket.as_fd())?;
    if socket_namespace(socket.as_fd())? != identity {
        return Err(DescriptorError::OtherNamespace);
    }
    Ok(PodNamespace { namespace, socket: RouteSocket::from_fd(socket) })
}

/// The user id of the process that connected this unix socket (SO_PEERCRED).
///
/// # Errors
/// Not a connected unix socket.
pub fn peer_uid(stream: impl AsFd) -> io::Result<u32> {
    Ok(getsockopt(&stream.as_fd(), sockopt::PeerCredentials)?.uid())
}

/// Sends `bytes`, which must not be empty, with descriptors (SCM_RIGHTS). How many bytes went; the descriptors go with
/// the first of them.
///
/// # Errors
/// `WouldBlock` on a non-blocking socket that is full; nothing was sent.
pub fn send_with_descriptors(
    stream: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        let sent = sendmsg::<UnixAddr>(
            stream.as_fd().as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Err(Errno::EINTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

/// Receives bytes into `buffer` and the descriptors that came with them. 0 bytes: the other side closed.
///
/// All descriptors are closed on exec.
///
/// # Errors
/// `WouldBlock` where a non-blocking socket has nothing; `InvalidData` for more than [`MAX_DESCRIPTORS`], which are closed.
pub fn receive_with_descriptors(stream: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; CARRIED_DESCRIPTORS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = loop {
        let fd = stream.as_fd().as_raw_fd();
        match recvmsg::<UnixAddr>(fd, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just installed these descriptors for us; nobody else knows them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors in one message"));
    }
    Ok((message.bytes, descriptors))
}

/// What tells namespaces apart: device and inode of their file.
type NamespaceId = (u64, u64);

fn identity(fd: BorrowedFd<'_>) -> Result<NamespaceId, DescriptorError> {
    let stat = fstat(fd).map_err(|errno| examine("stat", errno.into()))?;
    Ok((stat.st_dev, stat.st_ino))
}

fn own_namespace() -> Result<NamespaceId, DescriptorError> {
    let own = std::fs::File::open("/proc/thread-self/ns/net")
        .map_err(|err| examine("open our own namespace", err))?;
    identity(own.as_fd())
}

fn network_namespace(fd: BorrowedFd<'_>) -> Result<NamespaceId, DescriptorError> {
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours; on any other descriptor it fails.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    if kind != libc::CLONE_NEWNET {
        return Err(DescriptorError::NotNetworkNamespace);
    }
    identity(fd)
}

fn check_route_socket(fd: BorrowedFd<'_>) -> Result<(), DescriptorError> {
    let option = |option| crate::sockopt::get(fd, libc::SOL_SOCKET, option, 0i32);
    match (option(libc::SO_DOMAIN), option(libc::SO_PROTOCOL)) {
        (Ok(libc::AF_NETLINK), Ok(libc::NETLINK_ROUTE)) => Ok(()),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(DescriptorError::NotRouteSocket),
    }
}

fn socket_namespace(fd: BorrowedFd<'_>) -> Result<NamespaceId, DescriptorError> {
    // SAFETY: SIOCGSKNS takes no argument; it returns a new descriptor or -1.
    let namespace = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCGSKNS) };
    if namespace < 0 {
        return Err(examine("find the socket's namespace", io::Error::last_os_error()));
    }
    // SAFETY: the call above made this descriptor for us and nobody else knows it.
    let namespace = unsafe { OwnedFd::from_raw_fd(namespace) };
    identity(namespace.as_fd())
}

fn examine(what: &'static str, source: io::Error) -> DescriptorError {
    DescriptorError::Examine { what, source }
}
