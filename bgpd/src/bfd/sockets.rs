//! UDP for BFD: four ports to hear on, and one socket a session to send from (RFC 5881 §4, RFC 5883 §5).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bgp_proto::bfd::{Arrival, Path};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// RFC 5881 §4.
const SINGLE_HOP_PORT: u16 = 3784;
/// RFC 5883 §5.
const MULTIHOP_PORT: u16 = 4784;
/// "The source port MUST be in the range 49152 through 65535" (RFC 5881 §4).
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
/// How many ports are tried that somebody else has.
const ATTEMPTS: usize = 64;
/// Network control traffic, as BGP's: DSCP CS6.
const DSCP_CS6: u32 = 0xc0;
/// Packets of 200 sessions in a burst, while the thread does not run.
const RECEIVE_BUFFER: usize = 512 * 1024;
/// An IPv4 packet with the longest options is not longer than an Ethernet frame; a BFD packet is far shorter.
const DATAGRAM: usize = 256;

/// A port to hear on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) is_ipv4: bool,
    pub(super) multihop: bool,
}

impl Port {
    /// Every port that there is.
    pub(super) const ALL: [Port; 4] = [
        Port { is_ipv4: true, multihop: false },
        Port { is_ipv4: false, multihop: false },
        Port { is_ipv4: true, multihop: true },
        Port { is_ipv4: false, multihop: true },
    ];

    /// The port that packets of this path arrive on.
    pub(super) fn of(path: &Path) -> Port {
        Port { is_ipv4: path.remote.is_ipv4(), multihop: path.multihop }
    }

    pub(super) fn number(self) -> u16 {
        if self.multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT }
    }
}

/// A socket that hears all packets of one port.
#[derive(Debug)]
pub(super) struct Receiver {
    socket: Socket,
    port: Port,
}

/// What a receiver reads into, made once.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) datagram: [u8; DATAGRAM],
    control: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        let control = nix::cmsg_space!(nix::libc::in6_pktinfo, nix::libc::in_pktinfo, nix::libc::c_int);
        Self { datagram: [0; DATAGRAM], control }
    }
}

impl Receiver {
    /// # Errors
    /// `AddrInUse` where another BFD daemon runs on this host.
    pub(super) fn open(port: Port) -> io::Result<Self> {
        let any: IpAddr =
            if port.is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = udp_socket(any)?;
        if port.is_ipv4 {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
        } else {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        }
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind(&SocketAddr::new(any, port.number()).into())?;
        Ok(Self { socket, port })
    }

    /// The next datagram in `buffers.datagram`: its length, and how it came in.
    ///
    /// # Errors
    /// `WouldBlock`: there is none.
    pub(super) fn receive(&self, buffers: &mut Buffers) -> io::Result<Option<(usize, Arrival)>> {
        let mut slices = [IoSliceMut::new(&mut buffers.datagram)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut buffers.control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let source = message.address.as_ref().and_then(address);
        let (mut local, mut interface, mut hop_limit) = (None, 0, None);
        for control in message.cmsgs()? {
            if let ControlMessageOwned::Ipv4PacketInfo(info) = control {
                local = Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))));
                interface = u32::try_from(info.ipi_ifindex).unwrap_or(0);
            } else if let ControlMessageOwned::Ipv6PacketInfo(info) = control {
                local = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                interface = info.ipi6_ifindex;
            } else if let ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) = control
            {
                hop_limit = u8::try_from(ttl).ok();
            }
        }
        let (Some(source), Some(local)) = (source, local) else { return Ok(None) };
        let arrival = Arrival { source, local, interface, hop_limit, multihop: self.port.multihop };
        Ok(Some((message.bytes, arrival)))
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(from: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
    v4.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))
}

/// What one session sends from: a port of its own, the same for all its packets (RFC 5881 §4).
#[derive(Debug)]
pub(super) struct Sender(Socket);

impl Sender {
    /// `number` decides which port is tried first.
    ///
    /// # Errors
    /// The address or interface is not there, or the kernel has no route.
    pub(super) fn open(path: &Path, number: u32) -> io::Result<Self> {
        let Path { remote, local, interface, multihop: _ } = *path;
        let socket = udp_socket(local)?;
        felix_kernel::socket::set_ttl(&socket, local, u8::MAX)?;
        if local.is_ipv4() {
            socket.set_tos_v4(DSCP_CS6)?;
        } else {
            socket.set_tclass_v6(DSCP_CS6)?;
        }
        if let Some(interface) = interface {
            let name = nix::net::if_::if_indextoname(interface)?;
            socket.bind_device(Some(name.as_bytes()))?;
        }
        bind(&socket, local, interface, number)?;
        socket.connect(&scoped(remote, Port::of(path).number(), interface).into())?;
        Ok(Self(socket))
    }

    /// Sends one packet. A packet that is lost on the way out is one that is lost: BFD is made for that.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self.0.send(packet) {
            // The kernel hands in what an earlier packet met, and has not sent this one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.0.send(packet).map(drop),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}

fn bind(socket: &Socket, local: IpAddr, interface: Option<u32>, number: u32) -> io::Result<()> {
    let ports = SOURCE_PORTS.len();
    let first = usize::try_from(number).unwrap_or(0) % ports;
    let mut outcome = Err(io::Error::from(io::ErrorKind::AddrInUse));
    for port in SOURCE_PORTS.cycle().skip(first).take(ATTEMPTS) {
        outcome = socket.bind(&scoped(local, port, interface).into());
        match &outcome {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(_) | Ok(()) => return outcome,
        }
    }
    outcome
}

/// A link-local address means nothing without its link.
fn scoped(ip: IpAddr, port: u16, interface: Option<u32>) -> SocketAddr {
    match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(ip, port, 0, interface.unwrap_or(0)))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(ip, port),
    }
}

fn udp_socket(family_of: IpAddr) -> io::Result<Socket> {
    let domain = if family_of.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
