//! Notices when somebody else changes our table.
//!
//! The kernel tells members of a multicast group of every change to any table, and who made it. What the table's own
//! socket did is filtered out in the kernel, so that a large transaction of ours neither wakes the watcher nor floods
//! its buffer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use felix_calc::host::TABLE;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use socket2::{SockFilter, SockRef};

use super::error::NftError;
use super::socket::open_fd;
use super::wire::{
    GENERIC_HEADER, GROUP_NFTABLES, SUBSYSTEM_MASK, SUBSYSTEM_NFTABLES, TABLE_NAME, find_be32, find_string,
    generation, kind,
};
use crate::wire;

const RECEIVE_BUFFER: usize = 4 << 20;
const RECEIVE_BYTES: usize = 256 << 10;

/// What happened to our table since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Nothing, or only what we did.
    Unchanged,
    /// Somebody else changed or removed something: read the table.
    Changed {
        /// Who, as far as the kernel says: process (or thread) number and name.
        by: Option<(u32, String)>,
    },
    /// So much happened that the kernel dropped news: read the table.
    Unknown,
}

/// A socket that hears of changes. Readable (`AsFd`) when there may be news; [`Watch::look`] never blocks.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Watch {
    /// Hears of all changes but those made through the netlink socket of this port.
    pub(super) fn open(own_port: u32) -> Result<Self, NftError> {
        let fd = subscribe(own_port).map_err(NftError::Open)?;
        Ok(Self { fd, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Takes all news there is, and says what it means for our table. Does not block.
    pub fn look(&mut self) -> Result<Foreign, NftError> {
        let mut ours_touched = false;
        let mut by = None;
        let mut lost = false;
        loop {
            let length = match recv(
                self.fd.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC,
            ) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOBUFS) => {
                    lost = true;
                    continue;
                }
                Err(errno) => {
                    let what = "changes of nftables".to_owned();
                    return Err(NftError::Receive { what, source: errno.into() });
                }
            };
            let Some(datagram) = self.buffer.get(..length) else {
                lost = true;
                continue;
            };
            for message in wire::messages(datagram) {
                match read_change(&message) {
                    Change::OurTable => ours_touched = true,
                    // Closes the news of one transaction.
                    Change::Generation(who) if ours_touched && by.is_none() => by = who,
                    Change::Generation(_) | Change::Elsewhere => {}
                }
            }
        }
        Ok(match (lost, ours_touched) {
            (true, _) => Foreign::Unknown,
            (false, true) => Foreign::Changed { by },
            (false, false) => Foreign::Unchanged,
        })
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

enum Change {
    OurTable,
    Generation(Option<(u32, String)>),
    Elsewhere,
}

fn read_change(message: &wire::Received<'_>) -> Change {
    const FAMILY_INET: u8 = 1;
    if message.kind & SUBSYSTEM_MASK != SUBSYSTEM_NFTABLES {
        return Change::Elsewhere;
    }
    let attributes = message.body.get(GENERIC_HEADER..).unwrap_or(&[]);
    if message.kind == SUBSYSTEM_NFTABLES | kind::NEWGEN {
        let id = find_be32(attributes, generation::PROCESS_ID);
        let name = find_string(attributes, generation::PROCESS_NAME).unwrap_or_default();
        return Change::Generation(id.map(|id| (id, name)));
    }
    let ours = message.body.first() == Some(&FAMILY_INET)
        && find_string(attributes, TABLE_NAME).is_some_and(|table| table == TABLE);
    if ours { Change::OurTable } else { Change::Elsewhere }
}

fn subscribe(own_port: u32) -> io::Result<OwnedFd> {
    let (fd, _) = open_fd()?;
    // Before joining the group, so that nothing of ours is heard.
    SockRef::from(&fd).attach_filter(&all_but(own_port))?;
    if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    crate::sockopt::set(fd.as_fd(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &GROUP_NFTABLES)?;
    Ok(fd)
}

/// Classic BPF over a netlink message: refuses those whose `nlmsg_pid`, the port of who asked for the change, is this.
fn all_but(port: u32) -> [SockFilter; 4] {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const OFFSET_OF_PORT: u32 = 12;
    // A filter loads in network byte order what the header holds in the host's.
    let port = u32::from_be_bytes(port.to_ne_bytes());
    [
        SockFilter::new(LOAD_WORD, 0, 0, OFFSET_OF_PORT),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, port),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}
