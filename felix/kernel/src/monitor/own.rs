//! Routes that are ours, and the filter that keeps them out of the monitor's queue.
//!
//! A speaker that writes a million routes would hear a million events of its own making, lose others over them and list
//! everything again, ever slower. The kernel asks a classic BPF program (linux/filter.h) of each message instead:
//!
//! ```text
//!  no route, or of another protocol ──────────► heard
//!  RTM_NEWNEXTHOP of anybody ─────────────────► dropped
//!  RTM_DELNEXTHOP ── whoever asked for it ────► heard, unless it was the socket that writes ours
//!  RTM_NEWROUTE of ours ──────────────────────► dropped
//!  RTM_DELROUTE of ours ── whoever asked for it ► heard, unless it was the socket that writes them
//! ```

use std::io;

use netlink_sys::Socket;
use socket2::{SockFilter, SockRef};

use crate::route::{PROTOCOL_AT, RTM_DELNEXTHOP, RTM_NEWNEXTHOP};

/// Routes of one protocol number: they resolve no next hop, so that only their loss matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnRoutes {
    pub protocol: u8,
    pub removals: Removals,
}

/// Whose removals are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removals {
    /// Everybody's, our own included.
    Told,
    /// All but those that the socket of this number asked for ([`crate::netlink::RouteSocket::port`]).
    ToldUnlessBy(u32),
    /// Nobody's: another program looks after them.
    NotTold,
}

impl OwnRoutes {
    pub fn new(protocol: u8, removals: Removals) -> Self {
        Self { protocol, removals }
    }
}

// Offsets in struct nlmsghdr.
const TYPE: u32 = 4;
const PORT: u32 = 12;
const HEADER: u32 = 16;

const HEARD: u32 = u32::MAX;
const DROPPED: u32 = 0;

/// Has the kernel drop what the monitor would not look at.
pub(super) fn attach(socket: &Socket, own: &[OwnRoutes]) -> io::Result<()> {
    SockRef::from(socket).attach_filter(&program(own))
}

fn program(own: &[OwnRoutes]) -> Vec<SockFilter> {
    let (new, gone) = (in_wire_order(libc::RTM_NEWROUTE), in_wire_order(libc::RTM_DELROUTE));
    let mut program = vec![load(libc::BPF_H, TYPE)];
    program.append(&mut objects(own));
    program.extend([jump(new, 2, 0), jump(gone, 1, 0), answer(HEARD)]);
    for OwnRoutes { protocol, removals } in own {
        let mut block = Vec::new();
        match removals {
            Removals::NotTold => block.push(answer(DROPPED)),
            Removals::Told => {
                block.extend([load(libc::BPF_H, TYPE), unless(new, 1), answer(DROPPED), answer(HEARD)]);
            }
            Removals::ToldUnlessBy(port) => {
                let port = u32::from_be_bytes(port.to_ne_bytes());
                block.extend([load(libc::BPF_H, TYPE), unless(new, 1), answer(DROPPED)]);
                block.extend([load(libc::BPF_W, PORT), unless(port, 1), answer(DROPPED), answer(HEARD)]);
            }
        }
        program.push(load(libc::BPF_B, HEADER + PROTOCOL_AT));
        program.push(unless(u32::from(*protocol), u8::try_from(block.len()).unwrap_or(0)));
        program.append(&mut block);
    }
    program.push(answer(HEARD));
    program
}

/// With the message's type loaded, which is loaded afterwards as well: next-hop objects, of which only those matter that others
/// remove.
fn objects(own: &[OwnRoutes]) -> Vec<SockFilter> {
    let mut of_ours = Vec::new();
    for removals in own.iter().map(|own| own.removals) {
        if let Removals::ToldUnlessBy(port) = removals {
            of_ours.extend([unless(u32::from_be_bytes(port.to_ne_bytes()), 1), answer(DROPPED)]);
        }
    }
    let mut program = vec![unless(in_wire_order(RTM_NEWNEXTHOP), 1), answer(DROPPED)];
    program.push(unless(in_wire_order(RTM_DELNEXTHOP), u8::try_from(of_ours.len() + 2).unwrap_or(0)));
    program.push(load(libc::BPF_W, PORT));
    program.append(&mut of_ours);
    program.push(answer(HEARD));
    program
}

/// The program reads numbers in network order, the kernel writes these in its own.
fn in_wire_order(kind: u16) -> u32 {
    u32::from(u16::from_be_bytes(kind.to_ne_bytes()))
}

fn load(width: u32, offset: u32) -> SockFilter {
    SockFilter::new(code(libc::BPF_LD | width | libc::BPF_ABS), 0, 0, offset)
}

/// Skips so many instructions unless what was loaded is `value`.
fn unless(value: u32, skip: u8) -> SockFilter {
    jump(value, 0, skip)
}

fn jump(value: u32, equal: u8, other: u8) -> SockFilter {
    SockFilter::new(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), equal, other, value)
}

fn answer(octets: u32) -> SockFilter {
    SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, octets)
}

fn code(code: u32) -> u16 {
    u16::try_from(code).unwrap_or(0)
}
