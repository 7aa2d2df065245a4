//! TCP: listening sockets, dialling, reading and writing. The driver owns all of it; tasks only carry bytes and
//! report back through one bounded channel, so a driver that is behind slows the readers down, not the memory up.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::input::TransportErrorKind;
use bgp_proto::{ConnId, PeerName};
use felix_kernel::socket::DialOptions;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// One read, and with it the most that the speaker handles before its timers are looked at.
const READ: usize = 64 * 1024;
/// Reads that may wait for the driver, over all connections.
const QUEUE: usize = 32;
/// A dial that got no answer by then has failed; the kernel alone would try for two minutes.
const DIAL: Duration = Duration::from_secs(10);
/// What a closing connection may take to send its last message.
const LINGER: Duration = Duration::from_secs(1);
/// The pause after a listening socket could not be made, or refused to accept.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// What tasks report to the driver.
#[derive(Debug)]
pub(crate) enum NetEvent {
    Dialled {
        peer: PeerName,
        attempt: u64,
        outcome: Result<TcpStream, DialError>,
    },
    Accepted(TcpStream),
    Bytes {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    Closed {
        conn: ConnId,
        error: Option<String>,
    },
    Writable(ConnId),
    /// The listening socket of one family: none if it works, else what is wrong.
    Listening {
        address: SocketAddr,
        error: Option<String>,
    },
}

#[derive(Debug)]
pub(crate) struct DialError {
    pub(crate) kind: TransportErrorKind,
    pub(crate) text: String,
}

struct Connection {
    stream: Arc<TcpStream>,
    reader: AbortHandle,
    /// The task that waits for room in a full socket; it holds the socket open.
    waiter: Option<AbortHandle>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(waiter) = &self.waiter {
            waiter.abort();
        }
    }
}

struct Attempt {
    number: u64,
    task: AbortHandle,
}

pub(crate) struct Net {
    events: mpsc::Sender<NetEvent>,
    connections: BTreeMap<ConnId, Connection>,
    attempts: BTreeMap<PeerName, Attempt>,
    listeners: Vec<AbortHandle>,
    port: Option<u16>,
    /// Connections and attempts are numbered and no number is used twice.
    next: u64,
}

impl Net {
    pub(crate) fn new() -> (Self, mpsc::Receiver<NetEvent>) {
        let (events, receiver) = mpsc::channel(QUEUE);
        let net = Self {
            events,
            connections: BTreeMap::new(),
            attempts: BTreeMap::new(),
            listeners: Vec::new(),
            port: None,
            next: 1,
        };
        (net, receiver)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Listens on this port of both families; 0 listens nowhere. What cannot be bound is reported and tried again.
    pub(crate) fn listen(&mut self, port: u16) {
        if self.port == Some(port) {
            return;
        }
        self.port = Some(port);
        for task in self.listeners.drain(..) {
            task.abort();
        }
        if port == 0 {
            return;
        }
        for ip in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let task = tokio::spawn(accept(SocketAddr::new(ip, port), self.events.clone()));
            self.listeners.push(task.abort_handle());
        }
    }

    /// Replaces an attempt for the same peer that is still under way.
    pub(crate) fn dial(&mut self, peer: PeerName, remote: SocketAddr, local: Option<IpAddr>, max_hops: u8) {
        self.cancel_dial(&peer);
        let number = self.number();
        let (events, name) = (self.events.clone(), peer.clone());
        let task = tokio::spawn(async move {
            let outcome = match tokio::time::timeout(DIAL, connect(remote, local, max_hops)).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(dial_error(&error)),
                Err(_) => Err(DialError {
                    kind: TransportErrorKind::TimedOut,
                    text: format!("no answer from {remote} within {}s", DIAL.as_secs()),
                }),
            };
            drop(events.send(NetEvent::Dialled { peer: name, attempt: number, outcome }).await);
        });
        self.attempts.insert(peer, Attempt { number, task: task.abort_handle() });
    }

    pub(crate) fn cancel_dial(&mut self, peer: &PeerName) {
        if let Some(attempt) = self.attempts.remove(peer) {
            attempt.task.abort();
        }
    }

    /// Whether the answer to this attempt is still wanted; it is then over.
    pub(crate) fn finish_dial(&mut self, peer: &PeerName, attempt: u64) -> bool {
        let wanted = self.attempts.get(peer).is_some_and(|a| a.number == attempt);
        if wanted {
            self.attempts.remove(peer);
        }
        wanted
    }

    /// Takes a connection over and begins to read.
    ///
    /// # Errors
    /// Where the connection is gone again already.
    pub(crate) fn adopt(&mut self, stream: TcpStream) -> io::Result<(ConnId, SocketAddr, SocketAddr)> {
        let (local, remote) = (canonical(stream.local_addr()?), canonical(stream.peer_addr()?));
        stream.set_nodelay(true)?;
        let conn = ConnId(self.number());
        let stream = Arc::new(stream);
        let reader = tokio::spawn(read_all(conn, Arc::clone(&stream), self.events.clone())).abort_handle();
        self.connections.insert(conn, Connection { stream, reader, waiter: None });
        Ok((conn, local, remote))
    }

    /// Writes what the socket takes; `None` if it is full or gone, and a `Writable` follows when it is not full.
    pub(crate) fn write(&mut self, conn: ConnId, bytes: &[u8]) -> Option<usize> {
        let connection = self.connections.get_mut(&conn)?;
        if connection.waiter.is_some() {
            return None;
        }
        match connection.stream.try_write(bytes) {
            Ok(n) => Some(n),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.wait_for_room(conn);
                None
            }
            // The reader sees the same failure and reports it.
            Err(_) => None,
        }
    }

    fn wait_for_room(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let (stream, events) = (Arc::clone(&connection.stream), self.events.clone());
        let task = tokio::spawn(async move {
            // An error shows at the next write and at the reader.
            drop(stream.writable().await);
            drop(events.send(NetEvent::Writable(conn)).await);
        });
        connection.waiter = Some(task.abort_handle());
    }

    pub(crate) fn room(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.waiter = None;
        }
    }

    /// Forgets a connection that ended by itself.
    pub(crate) fn forget(&mut self, conn: ConnId) -> bool {
        self.connections.remove(&conn).is_some()
    }

    /// Sends the last bytes within a second, then closes.
    pub(crate) fn close(&mut self, conn: ConnId, last_bytes: Vec<u8>) -> Option<tokio::task::JoinHandle<()>> {
        let connection = self.connections.remove(&conn)?;
        connection.reader.abort();
        let stream = Arc::clone(&connection.stream);
        Some(tokio::spawn(async move {
            // The peer may be gone or may not read: the session is over either way.
            drop(tokio::time::timeout(LINGER, write_all(&stream, &last_bytes)).await);
        }))
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn read_all(conn: ConnId, stream: Arc<TcpStream>, events: mpsc::Sender<NetEvent>) {
    let mut buffer = vec![0; READ];
    let error = loop {
        if let Err(error) = stream.readable().await {
            break Some(error.to_string());
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => break None,
            Ok(n) => {
                let bytes = buffer.get(..n).unwrap_or_default().to_vec();
                if events.send(NetEvent::Bytes { conn, bytes }).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => break Some(error.to_string()),
        }
    };
    drop(events.send(NetEvent::Closed { conn, error }).await);
}

/// Accepts for as long as the process runs; a socket that cannot be had is tried again and said once.
async fn accept(address: SocketAddr, events: mpsc::Sender<NetEvent>) {
    let mut said = None;
    loop {
        let error = match listener(address) {
            Ok(listener) => {
                if events.send(NetEvent::Listening { address, error: None }).await.is_err() {
                    return;
                }
                said = None;
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            if events.send(NetEvent::Accepted(stream)).await.is_err() {
                                return;
                            }
                        }
                        // The peer left between SYN and accept: the socket itself is fine.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                        Err(error) => break error,
                    }
                }
            }
            Err(error) => error,
        };
        let text = error.to_string();
        if said.as_ref() != Some(&text) {
            said = Some(text.clone());
            if events.send(NetEvent::Listening { address, error: Some(text) }).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(felix_kernel::socket::listen(address)?)
}

/// Nothing of ours travels further than the peer may be away.
async fn connect(remote: SocketAddr, local: Option<IpAddr>, max_hops: u8) -> io::Result<TcpStream> {
    let options = DialOptions { source: local, ttl: Some(max_hops.max(1)), ..DialOptions::default() };
    felix_kernel::socket::dial(remote.ip(), &options)?.connect(remote).await
}

fn dial_error(error: &io::Error) -> DialError {
    let kinds = [
        (io::ErrorKind::ConnectionRefused, TransportErrorKind::Refused),
        (io::ErrorKind::TimedOut, TransportErrorKind::TimedOut),
        (io::ErrorKind::HostUnreachable, TransportErrorKind::NoRoute),
        (io::ErrorKind::NetworkUnreachable, TransportErrorKind::NoRoute),
        (io::ErrorKind::NetworkDown, TransportErrorKind::InterfaceDown),
    ];
    let known = kinds.into_iter().find(|(kind, _)| *kind == error.kind());
    let kind = known.map_or(TransportErrorKind::Other, |(_, kind)| kind);
    DialError { kind, text: error.to_string() }
}

/// An IPv4 address that arrived on an IPv6 socket is IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
