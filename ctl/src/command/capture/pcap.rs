//! Messages as a pcap file, each a TCP segment of an IP packet (link type RAW). What bgpd saw are octets of a connection; the headers
//! around them are made up: the addresses and ports are the real ones, the sequence numbers count from 1 what is in the file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use manx_crds::report::CapturedMessage;

/// LINKTYPE_RAW: a packet begins with its IP header, of either version.
const LINKTYPE_RAW: u32 = 101;
/// No packet is cut.
const SNAPLEN: u32 = 262_144;
/// Octets of one segment: an IPv4 packet has 65,535 with its headers, an extended message (RFC 8654) as many without.
const SEGMENT: usize = 60_000;

pub(super) struct Pcap<W> {
    out: W,
    /// Octets so far from one end to the other.
    positions: BTreeMap<(SocketAddr, SocketAddr), u32>,
}

impl<W: Write> Pcap<W> {
    /// Writes the file's header.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        let (major, minor) = (2u16, 4u16);
        // Timestamps of microseconds, in our byte order.
        out.write_all(&0xa1b2_c3d4_u32.to_ne_bytes())?;
        out.write_all(&major.to_ne_bytes())?;
        out.write_all(&minor.to_ne_bytes())?;
        out.write_all(&[0; 8])?;
        out.write_all(&SNAPLEN.to_ne_bytes())?;
        out.write_all(&LINKTYPE_RAW.to_ne_bytes())?;
        Ok(Self { out, positions: BTreeMap::new() })
    }

    pub(super) fn write(&mut self, message: &CapturedMessage) -> io::Result<()> {
        let (from, to) = match message.sent {
            true => (message.local, message.remote),
            false => (message.remote, message.local),
        };
        for segment in message.octets.0.chunks(SEGMENT) {
            let packet = self.packet(from, to, segment)?;
            self.record(message.time, &packet)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn packet(&mut self, from: SocketAddr, to: SocketAddr, segment: &[u8]) -> io::Result<Vec<u8>> {
        let position = |way: &(SocketAddr, SocketAddr)| self.positions.get(way).copied().unwrap_or(1);
        let (sequence, acknowledged) = (position(&(from, to)), position(&(to, from)));
        let length = u32::try_from(segment.len()).unwrap_or_default();
        self.positions.insert((from, to), sequence.wrapping_add(length));
        let ip = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                return Err(io::Error::other(format!("no connection leads from {from} to {to}")));
            }
        };
        let tcp = ip.tcp(from.port(), to.port(), sequence, 65_535).ack(acknowledged).psh();
        let mut packet = Vec::with_capacity(tcp.size(segment.len()));
        tcp.write(&mut packet, segment).map_err(io::Error::other)?;
        Ok(packet)
    }

    fn record(&mut self, microseconds: u64, packet: &[u8]) -> io::Result<()> {
        let seconds = u32::try_from(microseconds / 1_000_000).unwrap_or(u32::MAX);
        let fraction = u32::try_from(microseconds % 1_000_000).unwrap_or_default();
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        for field in [seconds, fraction, length, length] {
            self.out.write_all(&field.to_ne_bytes())?;
        }
        self.out.write_all(packet)
    }
}
