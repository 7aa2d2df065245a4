//! Connection tracking: lists entries, and deletes exactly the ones that are meant.
//!
//! Blocking, in the network namespace where the handle was opened; every answer is waited for at most
//! [`crate::nft::TIMEOUT`]. A full listing of 100,000 entries takes about 0.2 s, one by IPv4 address a fifth of that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use felix_calc::conntrack::{Entry, Transport, Tuple};

use crate::nft::NftError;
use crate::nft::socket::{Answer, NetfilterSocket};
use crate::nft::wire::{NetfilterMessage, be16_of, find, find_be32};
use crate::wire::{AF_INET, AF_INET6, Message};

const SUBSYSTEM_CONNTRACK: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const TUPLE_MASTER: u16 = 14;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const TUPLE_ZONE: u16 = 3;
const IPV4_SOURCE: u16 = 1;
const IPV4_DESTINATION: u16 = 2;
const IPV6_SOURCE: u16 = 3;
const IPV6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const ICMP_ID: u16 = 4;
const ICMP_TYPE: u16 = 5;
const ICMP_CODE: u16 = 6;
const ICMPV6_ID: u16 = 7;
const ICMPV6_TYPE: u16 = 8;
const ICMPV6_CODE: u16 = 9;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const FILTER_SOURCE: u32 = 1;
/// Version of `nfgenmsg` from which a listing may be filtered by address (Linux 5.8).
const VERSION_FILTER: u8 = 1;
/// Refusals that all fit into the receive buffer.
const DELETE_BATCH: usize = 128;

/// Which entries are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All, of both IP versions.
    All,
    /// Those whose original direction comes from this address.
    From(IpAddr),
    /// Those whose answers come from this address: its receiver, behind DNAT.
    AnsweredBy(IpAddr),
}

/// A handle to connection tracking.
#[derive(Debug)]
pub struct Conntrack {
    socket: NetfilterSocket,
}

impl Conntrack {
    /// Opens a handle in the calling thread's network namespace.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self { socket: NetfilterSocket::open()? })
    }

    /// Lists entries. Those that come or go meanwhile may be in it or not; an entry of the listing may be gone.
    pub fn list(&mut self, wanted: Wanted) -> Result<Vec<Entry>, NftError> {
        let families: &[u8] = match wanted {
            Wanted::All => &[AF_INET, AF_INET6],
            Wanted::From(IpAddr::V4(_)) | Wanted::AnsweredBy(IpAddr::V4(_)) => &[AF_INET],
            Wanted::From(IpAddr::V6(_)) | Wanted::AnsweredBy(IpAddr::V6(_)) => &[AF_INET6],
        };
        let mut entries = Vec::new();
        for family in families {
            let answers = self.socket.dump("list connections", &listing(*family, wanted), |_| false)?;
            entries.extend(answers.iter().filter_map(read_entry));
        }
        // Unfiltered: all IPv6, and what a kernel before 5.8 lists.
        entries.retain(|entry| match wanted {
            Wanted::All => true,
            Wanted::From(address) => entry.original.source == address,
            Wanted::AnsweredBy(address) => entry.reply.source == address,
        });
        Ok(entries)
    }

    /// Deletes exactly these entries; how many were there to be deleted.
    ///
    /// Each is named by original tuple, zone and id, so an entry that has meanwhile taken the tuple of a former one
    /// stays, unless the kernel also gave it the same memory, which makes the same id. One that is gone counts as done.
    /// On an error some of them may remain.
    pub fn delete(&mut self, entries: &[Entry]) -> Result<usize, NftError> {
        let mut deleted = 0;
        for batch in entries.chunks(DELETE_BATCH) {
            let mut messages: Vec<_> = batch.iter().map(deletion).collect();
            if let Some(last) = messages.last_mut() {
                last.add_flags(crate::wire::NLM_F_ACK);
            }
            deleted += self.delete_batch(batch, messages)?;
        }
        Ok(deleted)
    }

    fn delete_batch(&mut self, batch: &[Entry], messages: Vec<Message>) -> Result<usize, NftError> {
        let what = "delete connections";
        let mut gone = 0;
        for outcome in self.socket.exchange(what, messages)? {
            match outcome.refusal {
                None => {}
                Some(refusal) if refusal.errno == libc::ENOENT => gone += 1,
                Some(refusal) => {
                    let index = usize::try_from(outcome.index).unwrap_or(usize::MAX);
                    let what = match batch.get(index) {
                        Some(Entry { original: Tuple { source, destination, protocol, .. }, .. }) => {
                            format!("delete the connection {source} to {destination}, protocol {protocol}")
                        }
                        None => what.to_owned(),
                    };
                    return Err(NftError::Refused { what, refusal });
                }
            }
        }
        Ok(batch.len().saturating_sub(gone))
    }
}

/// For IPv4, the kernel filters. For IPv6 its filter (as of Linux 6.18) is the wrong way round, listing all but those
/// that are asked for: so there it is not asked.
fn listing(family: u8, wanted: Wanted) -> Message {
    let (tuple, filter, address) = match wanted {
        Wanted::From(address @ IpAddr::V4(_)) => (TUPLE_ORIGINAL, FILTER_ORIGINAL, address),
        Wanted::AnsweredBy(address @ IpAddr::V4(_)) => (TUPLE_REPLY, FILTER_REPLY, address),
        Wanted::All | Wanted::From(IpAddr::V6(_)) | Wanted::AnsweredBy(IpAddr::V6(_)) => {
            return Message::netfilter(SUBSYSTEM_CONNTRACK | GET, 0, family, 0, 0);
        }
    };
    let mut message = Message::netfilter(SUBSYSTEM_CONNTRACK | GET, 0, family, VERSION_FILTER, 0);
    message.nest(tuple, |tuple| {
        tuple.nest(TUPLE_ADDRESSES, |addresses| put_address(addresses, [IPV4_SOURCE, IPV6_SOURCE], address));
    });
    // These flags, unlike all other numbers here, are in host byte order.
    message.nest(FILTER, |filters| filters.attribute_u32(filter, FILTER_SOURCE));
    message
}

fn deletion(entry: &Entry) -> Message {
    let family = crate::wire::family_of(entry.original.source);
    let mut message = Message::netfilter(SUBSYSTEM_CONNTRACK | DELETE, 0, family, 0, 0);
    message.nest(TUPLE_ORIGINAL, |tuple| put_tuple(tuple, &entry.original));
    message.be16(ZONE, entry.zone);
    message.be32(ID, entry.id);
    message
}

fn put_address(message: &mut Message, [v4, v6]: [u16; 2], address: IpAddr) {
    match address {
        IpAddr::V4(address) => message.attribute(v4, &address.octets()),
        IpAddr::V6(address) => message.attribute(v6, &address.octets()),
    }
}

fn put_tuple(message: &mut Message, tuple: &Tuple) {
    message.nest(TUPLE_ADDRESSES, |addresses| {
        put_address(addresses, [IPV4_SOURCE, IPV6_SOURCE], tuple.source);
        put_address(addresses, [IPV4_DESTINATION, IPV6_DESTINATION], tuple.destination);
    });
    message.nest(TUPLE_PROTOCOL, |protocol| {
        protocol.attribute(PROTOCOL_NUMBER, &[tuple.protocol]);
        match tuple.transport {
            Transport::Ports { source, destination } => {
                protocol.be16(SOURCE_PORT, source);
                protocol.be16(DESTINATION_PORT, destination);
            }
            Transport::Icmp { kind, code, identifier } => {
                let [id_attribute, kind_attribute, code_attribute] = match tuple.protocol {
                    ICMPV6 => [ICMPV6_ID, ICMPV6_TYPE, ICMPV6_CODE],
                    _ => [ICMP_ID, ICMP_TYPE, ICMP_CODE],
                };
                protocol.be16(id_attribute, identifier);
                protocol.attribute(kind_attribute, &[kind]);
                protocol.attribute(code_attribute, &[code]);
            }
            Transport::Other => {}
        }
    });
}

/// An entry of a listing; `None` for one without tuples or id, which no kernel sends.
fn read_entry(answer: &Answer) -> Option<Entry> {
    let attributes = answer.attributes();
    let original = find(attributes, TUPLE_ORIGINAL)?;
    let zone = find(attributes, ZONE).or_else(|| find(original, TUPLE_ZONE)).and_then(be16_of);
    Some(Entry {
        id: find_be32(attributes, ID)?,
        zone: zone.unwrap_or(0),
        original: read_tuple(original)?,
        reply: read_tuple(find(attributes, TUPLE_REPLY)?)?,
        master: find(attributes, TUPLE_MASTER).and_then(read_tuple),
    })
}

fn read_tuple(bytes: &[u8]) -> Option<Tuple> {
    let addresses = find(bytes, TUPLE_ADDRESSES)?;
    let address = |v4, v6| -> Option<IpAddr> {
        if let Some(bytes) = find(addresses, v4) {
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
        }
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(find(addresses, v6)?).ok()?).into())
    };
    let protocol = find(bytes, TUPLE_PROTOCOL)?;
    let [number] = <[u8; 1]>::try_from(find(protocol, PROTOCOL_NUMBER)?).ok()?;
    Some(Tuple {
        source: address(IPV4_SOURCE, IPV6_SOURCE)?,
        destination: address(IPV4_DESTINATION, IPV6_DESTINATION)?,
        protocol: number,
        transport: read_transport(number, protocol),
    })
}

fn read_transport(number: u8, attributes: &[u8]) -> Transport {
    let short = |kind| find(attributes, kind).and_then(be16_of);
    let byte = |kind| find(attributes, kind).and_then(|bytes| bytes.first().copied());
    let icmp = |id, kind, code| Some((short(id)?, byte(kind)?, byte(code)?));
    let found = match number {
        ICMP => icmp(ICMP_ID, ICMP_TYPE, ICMP_CODE),
        ICMPV6 => icmp(ICMPV6_ID, ICMPV6_TYPE, ICMPV6_CODE),
        _ => None,
    };
    if let Some((identifier, kind, code)) = found {
        return Transport::Icmp { kind, code, identifier };
    }
    match (short(SOURCE_PORT), short(DESTINATION_PORT)) {
        (Some(source), Some(destination)) => Transport::Ports { source, destination },
        (_, _) => Transport::Other,
    }
}
