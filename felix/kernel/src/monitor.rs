//! Hears what changes in a network namespace and keeps [`Facts`] up to date.
//!
//! ```text
//!  start: subscribe, then list ──► listening ──events──► facts changed, told to the caller
//!                                      │ ▲
//!   buffer overrun (ENOBUFS), or what  ▼ │
//!   the kernel changes without a word: list again (all, or routes only)
//! ```
//!
//! Multicast and requests use sockets of their own, so that a flood of events never delays or loses an answer.

use std::io;
use std::sync::Arc;

use netlink_packet_core::NLMSG_OVERRUN;
use netlink_sys::Socket;
use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::addr::{self, Address};
use crate::facts::Facts;
use crate::link::{self, Link};
use crate::neigh::{self, Neighbour};
use crate::netlink::{self, NetlinkError, RouteSocket};
use crate::route::{self, KernelRoute, MAIN_TABLE};
use crate::wire::{self, Received};

mod own;
pub use own::{OwnRoutes, Removals};

// Multicast groups (linux/rtnetlink.h, RTMGRP_*).
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400 | 1 << (libc::RTNLGRP_NEXTHOP - 1);
/// Room for some 5,000 events between two turns of the loop.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// One datagram of events; the kernel sends one event each.
const DATAGRAM: usize = 64 * 1024;
/// Events taken in one turn; what is left is taken in the next.
const TURN: usize = 4096;

/// Something changed; [`Monitor::facts`] has it already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEvent {
    /// A link is new or changed (state, MTU, name, address).
    Link(Link),
    LinkGone(Link),
    Address(Address),
    AddressGone(Address),
    Neighbour(Neighbour),
    NeighbourGone(Neighbour),
    /// Routes that are not ours changed; they were listed again.
    Routes,
    /// A route of ours was removed, by the kernel or by one of those of whom we are told ([`Removals`]).
    OwnRouteGone(KernelRoute),
    /// A next-hop object of ours was removed by another, and with it, without a word, the routes that went by it.
    OwnObjectGone,
    /// Events were lost and everything was listed again: compare with what you hold, kernel routes included.
    Resync,
}

/// Why the monitor cannot go on. Start a new one.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error("cannot hear the kernel's network events")]
    Listen(#[source] io::Error),
    #[error("cannot list the kernel's network state")]
    List(#[from] NetlinkError),
    #[error("the task that lists the kernel's network state ended early")]
    Interrupted,
}

/// What must be listed again before the facts are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Relist {
    Nothing,
    Routes,
    All,
}

/// Facts about the network namespace in which it was started, and a stream of what changes.
#[derive(Debug)]
pub struct Monitor {
    events: AsyncFd<Socket>,
    requests: Arc<RouteSocket>,
    state: State,
}

#[derive(Debug)]
struct State {
    own: Vec<OwnRoutes>,
    facts: Facts,
    /// In the facts, not told yet.
    pending: Vec<KernelEvent>,
    relist: Relist,
}

impl Monitor {
    /// Subscribes, then lists everything. Runs in a tokio runtime; the sockets are of the calling thread's network
    /// namespace. Blocks for the listing (milliseconds).
    ///
    /// Routes of `own` are not kept in the facts: what we install ourselves resolves no next hop. bgpd and felix give both
    /// of ours, so that neither learned routes nor pods' cost a listing.
    ///
    /// # Errors
    /// A socket or a listing failed.
    pub fn start(own: &[OwnRoutes]) -> Result<Self, MonitorError> {
        let events = netlink::open_route_socket(GROUPS).map_err(MonitorError::Listen)?;
        Self::with_sockets(events, RouteSocket::open()?, own, RECEIVE_BUFFER)
    }

    fn with_sockets(
        events: Socket,
        requests: RouteSocket,
        own: &[OwnRoutes],
        receive_buffer: usize,
    ) -> Result<Self, MonitorError> {
        netlink::set_receive_buffer(&events, receive_buffer).map_err(MonitorError::Listen)?;
        own::attach(&events, own).map_err(MonitorError::Listen)?;
        let state = State {
            own: own.to_vec(),
            facts: list_all(&requests, own)?,
            pending: Vec::new(),
            relist: Relist::Nothing,
        };
        // SAFETY: the `Socket` moves into the `AsyncFd`, which keeps it open until it is itself dropped, and names the
        // same descriptor all that time.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }
            .map_err(|err| MonitorError::Listen(err.into()))?;
        Ok(Self { events, requests: Arc::new(requests), state })
    }

    /// What is known now.
    pub fn facts(&self) -> &Facts {
        &self.state.facts
    }

    /// Waits until something changed, takes in everything that has arrived, and says what it was.
    ///
    /// Cancel safe: what was heard before a cancelled call is told by the next.
    ///
    /// # Errors
    /// The socket or a listing failed.
    pub async fn changed(&mut self) -> Result<Vec<KernelEvent>, MonitorError> {
        loop {
            match self.state.relist {
                Relist::Nothing => {}
                Relist::Routes => {
                    let routes = self.list(list_routes).await?;
                    self.state.facts.set_routes(routes);
                    self.state.pending.push(KernelEvent::Routes);
                }
                Relist::All => {
                    self.state.facts = self.list(list_all).await?;
                    self.state.pending = vec![KernelEvent::Resync];
                }
            }
            self.state.relist = Relist::Nothing;
            if !self.state.pending.is_empty() {
                return Ok(std::mem::take(&mut self.state.pending));
            }
            let mut guard = self.events.readable().await.map_err(MonitorError::Listen)?;
            let state = &mut self.state;
            // Err: the socket was found empty, which is waited for again.
            if let Ok(Err(err)) = guard.try_io(|socket| state.read(socket.get_ref())) {
                return Err(MonitorError::Listen(err));
            }
        }
    }

    async fn list<T: Send + 'static>(
        &self,
        what: fn(&RouteSocket, &[OwnRoutes]) -> Result<T, NetlinkError>,
    ) -> Result<T, MonitorError> {
        let (socket, own) = (Arc::clone(&self.requests), self.state.own.clone());
        let listed = tokio::task::spawn_blocking(move || what(&socket, &own)).await;
        Ok(listed.map_err(|_| MonitorError::Interrupted)??)
    }
}

impl State {
    /// Takes in what has arrived. `WouldBlock` once the socket is empty and nothing was heard.
    fn read(&mut self, socket: &Socket) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM];
        let mut turns = 0;
        loop {
            match netlink::receive(socket, &mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // After an overrun what is still queued is older than what was lost: dropped, and all listed again. The
                // kernel queues nothing new until the queue has been emptied, so this ends.
                Ok(_) if self.relist == Relist::All => {}
                Ok(length) => {
                    wire::messages(buffer.get(..length).unwrap_or(&buffer)).for_each(|m| self.take_in(&m))
                }
                Err(Errno::ENOBUFS) => self.relist = Relist::All,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.is_silent() => return Err(io::ErrorKind::WouldBlock.into()),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
            turns += 1;
            if turns >= TURN && self.relist != Relist::All {
                return Ok(());
            }
        }
    }

    fn is_silent(&self) -> bool {
        self.pending.is_empty() && self.relist == Relist::Nothing
    }

    fn take_in(&mut self, message: &Received<'_>) {
        let facts = &mut self.facts;
        let event = match message.kind {
            libc::RTM_NEWLINK => Link::parse(message.body).map(|link| {
                // IPv4 routes come and go with the state of their links without a word.
                if facts
                    .link(link.index)
                    .is_none_or(|held| held.is_usable() != link.is_usable() || held.up != link.up)
                {
                    self.relist = self.relist.max(Relist::Routes);
                }
                facts.set_link(link.clone());
                KernelEvent::Link(link)
            }),
            libc::RTM_DELLINK => Link::parse(message.body).map(|link| {
                facts.remove_link(link.index);
                self.relist = self.relist.max(Relist::Routes);
                KernelEvent::LinkGone(link)
            }),
            libc::RTM_NEWADDR => Address::parse(message.body).map(|address| {
                facts.set_address(address.clone());
                KernelEvent::Address(address)
            }),
            libc::RTM_DELADDR => Address::parse(message.body).map(|address| {
                facts.remove_address(&address);
                self.relist = self.relist.max(Relist::Routes);
                KernelEvent::AddressGone(address)
            }),
            libc::RTM_NEWNEIGH => Neighbour::parse(message.body).map(|neighbour| {
                facts.set_neighbour(neighbour.clone());
                KernelEvent::Neighbour(neighbour)
            }),
            libc::RTM_DELNEIGH => Neighbour::parse(message.body).map(|neighbour| {
                facts.remove_neighbour(&neighbour);
                KernelEvent::NeighbourGone(neighbour)
            }),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => self.route(message),
            route::RTM_DELNEXTHOP => self.object(message.body),
            NLMSG_OVERRUN => {
                self.relist = Relist::All;
                None
            }
            _ => None,
        };
        self.pending.extend(event);
    }

    fn object(&mut self, body: &[u8]) -> Option<KernelEvent> {
        let protocol = body.get(route::OBJECT_PROTOCOL_AT as usize)?;
        match self.own.iter().find(|own| own.protocol == *protocol) {
            Some(own) => (own.removals != Removals::NotTold).then_some(KernelEvent::OwnObjectGone),
            // Its routes went along without a word.
            None => {
                self.relist = self.relist.max(Relist::Routes);
                None
            }
        }
    }

    fn route(&mut self, message: &Received<'_>) -> Option<KernelEvent> {
        let route = KernelRoute::parse(message.body)?;
        if let Some(own) = self.own.iter().find(|own| own.protocol == route.protocol) {
            let is_told = message.kind == libc::RTM_DELROUTE && own.removals != Removals::NotTold;
            return is_told.then_some(KernelEvent::OwnRouteGone(route));
        }
        if route.table == MAIN_TABLE {
            // One message may speak of one next hop of several; the listing has them all.
            self.relist = self.relist.max(Relist::Routes);
        }
        None
    }
}

fn list_all(socket: &RouteSocket, own: &[OwnRoutes]) -> Result<Facts, NetlinkError> {
    let mut facts = Facts::default();
    link::list(socket)?.into_iter().for_each(|link| facts.set_link(link));
    addr::list(socket)?.into_iter().for_each(|address| facts.set_address(address));
    neigh::list(socket)?.into_iter().for_each(|neighbour| facts.set_neighbour(neighbour));
    facts.set_routes(list_routes(socket, own)?);
    Ok(facts)
}

fn list_routes(socket: &RouteSocket, own: &[OwnRoutes]) -> Result<Vec<KernelRoute>, NetlinkError> {
    let own: Vec<u8> = own.iter().map(|own| own.protocol).collect();
    route::dump_others(socket, &own)
}
