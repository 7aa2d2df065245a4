//! Packets that prove something: echo servers that report the source they saw, single exchanges, steady flows.
//!
//! Everything here runs on a thread inside the namespace concerned; no process is started for it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, bind, connect, setsockopt,
    socket, sockopt,
};

use crate::netns::Netns;

/// Ports that every pod answers on: the database's, and one that no policy names.
pub const PORT: u16 = 5432;

/// An answer to one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The source address that the server saw.
    pub source: IpAddr,
}

/// A server for UDP and TCP in one namespace. Dropping it ends it.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
}

impl EchoServer {
    /// Listens on all addresses of both families, those that come later included.
    pub fn start(netns: &Netns, port: u16) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (datagrams, listener) = netns.run(|| {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let datagrams = UdpSocket::bind(any).with_context(|| format!("udp {any}"))?;
            let listener = TcpListener::bind(any).with_context(|| format!("tcp {any}"))?;
            Ok((datagrams, listener))
        })?;
        enlarge(&datagrams);
        let stopped = Arc::clone(&stop);
        thread::spawn(move || serve_udp(&datagrams, &stopped));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || serve_tcp(&listener, &stopped));
        Ok(Self { stop })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A second's pause of this machine must not look like loss: 8 MiB hold some 10,000 small packets.
fn enlarge(socket: &UdpSocket) {
    // Without CAP_NET_ADMIN it stays as it is; a loss would then be reported, not hidden.
    let _ = setsockopt(socket, sockopt::RcvBufForce, &(8 << 20));
}

/// Whether the descriptor becomes readable before the time is over.
fn readable(fd: &impl std::os::fd::AsFd, patience: Duration) -> bool {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let mut waiting = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, timeout).is_ok_and(|ready| ready > 0)
}

const LOOK: Duration = Duration::from_millis(300);

/// The answer is the question's first 12 bytes and the source address as 16 bytes.
fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0u8; 2048];
    while !stop.load(Ordering::Relaxed) {
        if !readable(socket, LOOK) {
            continue;
        }
        let Ok((size, from)) = socket.recv_from(&mut buffer) else { continue };
        let mut answer = buffer.get(..size.min(12)).unwrap_or_default().to_vec();
        answer.resize(12, 0);
        answer.extend_from_slice(&octets(from.ip()));
        // A refused answer shows at the other end as a missing one.
        let _ = socket.send_to(&answer, from);
    }
}

/// The first 16 bytes are the source address; then every byte comes back.
fn serve_tcp(listener: &TcpListener, stop: &Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        if !readable(listener, LOOK) {
            continue;
        }
        let Ok((mut stream, from)) = listener.accept() else { continue };
        let stop = Arc::clone(stop);
        thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            let mut buffer = [0u8; 2048];
            if stream.write_all(&octets(from.ip())).is_err() {
                return;
            }
            while !stop.load(Ordering::Relaxed) {
                if !readable(&stream, LOOK) {
                    continue;
                }
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(size) => {
                        if stream.write_all(buffer.get(..size).unwrap_or_default()).is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }
}

/// An address as 16 bytes, IPv4 mapped.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let array: [u8; 16] = octets.try_into().ok()?;
    Some(Ipv6Addr::from(array).to_canonical())
}

/// A UDP socket at `local` that talks to `remote` only. Port 0 is any.
pub fn datagrams(local: SocketAddr, remote: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(local).with_context(|| format!("udp from {local}"))?;
    enlarge(&socket);
    socket.connect(remote).with_context(|| format!("udp to {remote}"))?;
    Ok(socket)
}

/// Any port at `source`, or at the unspecified address of the remote's family.
#[must_use]
pub fn from(source: Option<IpAddr>, remote: SocketAddr) -> SocketAddr {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(source.unwrap_or(any), 0)
}

/// One UDP question and its answer; `None` if there was none. Up to three questions are asked within the time:
/// the first packet of a flow may wait for a neighbour entry.
pub fn exchange_udp(local: SocketAddr, remote: SocketAddr, patience: Duration) -> Result<Option<Seen>> {
    let socket = datagrams(local, remote)?;
    let mut buffer = [0u8; 64];
    for _ in 0..3 {
        socket.send(&[0u8; 12]).with_context(|| format!("udp to {remote}"))?;
        if readable(&socket, patience / 3) {
            let size = socket.recv(&mut buffer).with_context(|| format!("udp {remote}"))?;
            let source = buffer.get(12..size).and_then(address).context("a short answer")?;
            return Ok(Some(Seen { source }));
        }
    }
    Ok(None)
}

/// One TCP connection, the source that the server reports, and a byte there and back; `None` if nothing answers.
pub fn exchange_tcp(local: SocketAddr, remote: SocketAddr, patience: Duration) -> Result<Option<Seen>> {
    let Some(mut stream) = connect_tcp(local, remote, patience)? else { return Ok(None) };
    stream.set_read_timeout(Some(patience))?;
    let mut source = [0u8; 16];
    stream.read_exact(&mut source).with_context(|| format!("tcp {remote}"))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0u8; 1]).with_context(|| format!("tcp {remote}: echo"))?;
    Ok(Some(Seen { source: address(&source).context("a short answer")? }))
}

/// A connection from `local`; `None` if nothing answers within the patience.
pub fn connect_tcp(local: SocketAddr, remote: SocketAddr, patience: Duration) -> Result<Option<TcpStream>> {
    let family = if remote.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
    let begun = match (local, remote) {
        (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
            bind(raw, &SockaddrIn::from(local))?;
            connect(raw, &SockaddrIn::from(remote))
        }
        (SocketAddr::V6(local), SocketAddr::V6(remote)) => {
            bind(raw, &SockaddrIn6::from(local))?;
            connect(raw, &SockaddrIn6::from(remote))
        }
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {
            bail!("{local} and {remote} are of two families")
        }
    };
    match begun {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(error) => bail!("tcp {remote}: {error}"),
    }
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let ready = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)], timeout)?;
    let stream = TcpStream::from(fd);
    if let Some(error) = stream.take_error()? {
        bail!("tcp {remote}: {error}");
    }
    if ready == 0 {
        return Ok(None);
    }
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    Ok(Some(stream))
}

/// UDP and TCP one after the other; both must be answered and both must have been seen from the same source.
pub fn exchange(
    netns: &Netns,
    source: Option<IpAddr>,
    remote: SocketAddr,
    patience: Duration,
) -> Result<Seen> {
    netns.run(|| {
        let udp = exchange_udp(from(source, remote), remote, patience)?;
        let tcp = exchange_tcp(from(source, remote), remote, patience)?;
        match (udp, tcp) {
            (Some(udp), Some(tcp)) if udp == tcp => Ok(udp),
            (Some(udp), Some(tcp)) => bail!("udp came from {}, tcp from {}", udp.source, tcp.source),
            (None, None) => bail!("{remote} answered neither udp nor tcp within {patience:?}"),
            (None, Some(_)) => bail!("{remote} answered tcp, but not udp within {patience:?}"),
            (Some(_), None) => bail!("{remote} answered udp, but not tcp within {patience:?}"),
        }
    })
}

/// Silence is what is asked for: neither UDP nor TCP gets an answer. An answer is an error, and so is a probe
/// that could not ask.
pub fn refused(netns: &Netns, source: Option<IpAddr>, remote: SocketAddr, patience: Duration) -> Result<()> {
    netns.run(|| {
        thread::scope(|scope| {
            // A thread keeps the namespace of the one that started it.
            let udp = scope.spawn(|| exchange_udp(from(source, remote), remote, patience));
            if exchange_tcp(from(source, remote), remote, patience)?.is_some() {
                bail!("{remote} answered tcp");
            }
            match udp.join() {
                Ok(Ok(None)) => Ok(()),
                Ok(Ok(Some(_))) => bail!("{remote} answered udp"),
                Ok(Err(error)) => Err(error),
                Err(_) => bail!("the udp probe panicked"),
            }
        })
    })
}
