//! TCP: listening sockets, dialling, reading and writing. The driver owns all of it; tasks only carry bytes and
//! report back through one bounded channel, so a driver that is behind slows the readers down, not the memory up.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_proto::config::PeerConfig;
use bgp_proto::input::TransportErrorKind;
use bgp_proto::{ConnId, PeerName, SpeakerConfig, link_local};
use felix_kernel::socket::{self, DialOptions};
use ipnet::IpNet;
use manx_daemon::secrets::SessionKey;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinHandle};

use crate::by_prefix::ByPrefix;
use crate::listen::Listeners;

#[cfg(test)]
mod tests;

/// One read, and with it the most of one connection that the speaker handles at a time.
const READ: usize = 64 * 1024;
/// Reads that may wait for the driver, over all connections. Few: a keepalive waits behind all of them, and who has no place yet gets
/// one in turn, so that a peer with a million routes does not keep the others unheard for their hold time.
pub(crate) const QUEUE: usize = 4;
/// A dial that got no answer by then has failed; the kernel alone would try for two minutes.
const DIAL: Duration = Duration::from_secs(10);
/// What a closing connection may take to send its last message and hear the end of the other side.
const LINGER: Duration = Duration::from_secs(1);
/// Connections that wait for that end at one time; more are closed with their last message. Whoever is refused and stays has a
/// descriptor of ours until then, and may come again without pause.
const REFUSED: usize = 256;
/// As [`REFUSED`], for connections of peers: more than end at one time, also where a reflector stops. They have places of their
/// own, so that nobody from outside takes from a peer the word that its session is over. Whoever is in a range may come again too.
const ENDED: usize = 2048;

/// What tasks report to the driver.
#[derive(Debug)]
pub(crate) enum NetEvent {
    Dialled {
        peer: PeerName,
        attempt: u64,
        outcome: Result<TcpStream, DialError>,
    },
    Accepted {
        stream: TcpStream,
        at: Instant,
    },
    Bytes {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    Closed {
        conn: ConnId,
        error: Option<String>,
    },
    Writable(ConnId),
    /// A listening socket failed, and is tried again later.
    Deaf {
        address: SocketAddr,
        error: String,
    },
    /// It is time to try this one again.
    ListenAgain(SocketAddr),
}

#[derive(Debug)]
pub(crate) struct DialError {
    pub(crate) kind: TransportErrorKind,
    pub(crate) text: String,
}

struct Connection {
    stream: Arc<TcpStream>,
    remote: IpAddr,
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

/// How far away a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Distance {
    pub(crate) max_hops: u8,
    /// Its packets must prove it (RFC 5082).
    pub(crate) is_proven: bool,
}

impl Distance {
    /// "the receiver … checks that the TTL is within 255 - TrustRadius" (RFC 5082 §3): each router on the way takes one, and a
    /// neighbour on the link is one hop away. 0 lets everything in.
    fn min_ttl(self) -> u8 {
        if self.is_proven { u8::MAX - (self.max_hops.max(1) - 1) } else { 0 }
    }

    /// What a socket sends, and takes, from here on.
    fn set_on(self, stream: &TcpStream, peer: IpAddr) -> io::Result<()> {
        match self.is_proven {
            true => socket::set_ttl_security(stream, peer, self.min_ttl()),
            false => {
                // It may have come from a listening socket that asked for more.
                socket::set_min_ttl(stream, peer, 0)?;
                // Nothing of ours travels further than the peer may be away.
                socket::set_ttl(stream, peer, self.max_hops.max(1))
            }
        }
    }
}

/// Where a connection is made to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) remote: SocketAddr,
    /// From where; left to the kernel if none.
    pub(crate) local: Option<IpAddr>,
    pub(crate) distance: Distance,
}

struct Attempt {
    number: u64,
    target: Target,
    task: AbortHandle,
}

pub(crate) struct Net {
    events: mpsc::Sender<NetEvent>,
    connections: BTreeMap<ConnId, Connection>,
    attempts: BTreeMap<PeerName, Attempt>,
    listeners: Listeners,
    distances: ByPrefix<Distance>,
    refused: Arc<Semaphore>,
    ended: Arc<Semaphore>,
    /// Connections and attempts are numbered and no number is used twice.
    next: u64,
}

impl Net {
    pub(crate) fn new() -> (Self, mpsc::Receiver<NetEvent>) {
        let (events, receiver) = mpsc::channel(QUEUE);
        let net = Self {
            connections: BTreeMap::new(),
            attempts: BTreeMap::new(),
            listeners: Listeners::new(events.clone()),
            distances: ByPrefix::default(),
            refused: Arc::new(Semaphore::new(REFUSED)),
            ended: Arc::new(Semaphore::new(ENDED)),
            next: 1,
            events,
        };
        (net, receiver)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Listens on this port of both families, as [`Listeners::listen`].
    pub(crate) fn listen(&mut self, port: u16) -> Vec<(SocketAddr, io::Result<()>)> {
        self.listeners.listen(port)
    }

    /// A listening socket is to be tried again, as [`Listeners::again`].
    pub(crate) fn listen_again(&mut self, address: SocketAddr) -> Option<io::Result<()>> {
        self.listeners.again(address)
    }

    /// A listening socket failed.
    pub(crate) fn deaf(&mut self, address: SocketAddr) {
        self.listeners.failed(address);
    }

    /// Takes the keys of all peers; none: the key is missing. Another key is on every socket of its peer at once, and
    /// nothing is reset: TCP repeats what the far end refuses until it has the key too.
    pub(crate) fn set_keys(&mut self, keys: &BTreeMap<IpNet, Option<SessionKey>>) {
        for (peers, key) in self.listeners.set_keys(keys) {
            let is_its = |remote: IpAddr| self.listeners.signer(remote) == Some(peers);
            for connection in self.connections.values().filter(|connection| is_its(connection.remote)) {
                sign(&connection.stream, connection.remote, &key);
            }
            let attempts = self.attempts.iter().filter(|(_, attempt)| is_its(attempt.target.remote.ip()));
            let again: Vec<(PeerName, Target)> =
                attempts.map(|(name, attempt)| (name.clone(), attempt.target)).collect();
            for (name, target) in again {
                self.dial(name, target);
            }
        }
    }

    /// Takes over how far away the peers may be. What is connected stays as it is: the speaker resets whose distance changed.
    pub(crate) fn set_distances(&mut self, config: &SpeakerConfig) {
        let distance = |peer: &PeerConfig| Distance { max_hops: peer.max_hops, is_proven: peer.ttl_security };
        let peers = config.peers.values().map(|peer| (IpNet::from(peer.remote), distance(peer)));
        let ranges = config.ranges.values().map(|range| (range.prefix, distance(&range.peer)));
        self.distances = ranges.chain(peers).collect();
        for ipv4 in [true, false] {
            let of_family = self.distances.iter().filter(|(peers, _)| peers.addr().is_ipv4() == ipv4);
            let least = of_family.map(|(_, distance)| distance.min_ttl()).min();
            self.listeners.set_min_ttl(ipv4, least.unwrap_or(0));
        }
    }

    /// Replaces an attempt for the same peer that is still under way. A peer whose key is missing is not dialled.
    pub(crate) fn dial(&mut self, peer: PeerName, target: Target) {
        self.cancel_dial(&peer);
        let number = self.number();
        let (events, name) = (self.events.clone(), peer.clone());
        let key = self.listeners.key(target.remote.ip()).map(|key| key.cloned());
        let task = tokio::spawn(async move {
            let hint = if key.is_some() { "; its key may be another one" } else { "" };
            let outcome = match tokio::time::timeout(DIAL, connect(target, key)).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(dial_error(&error)),
                Err(_) => Err(DialError {
                    kind: TransportErrorKind::TimedOut,
                    text: format!(
                        "no answer from {} within {}s{hint}",
                        for_kernel(target.remote),
                        DIAL.as_secs()
                    ),
                }),
            };
            drop(events.send(NetEvent::Dialled { peer: name, attempt: number, outcome }).await);
        });
        self.attempts.insert(peer, Attempt { number, target, task: task.abort_handle() });
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

    /// Takes a connection over that came in, and begins to read.
    ///
    /// # Errors
    /// Where the connection is gone again already, or was made before its peer had to sign.
    pub(crate) fn adopt_accepted(
        &mut self,
        stream: TcpStream,
        at: Instant,
    ) -> io::Result<(ConnId, SocketAddr, SocketAddr)> {
        let remote = canonical(stream.peer_addr()?).ip();
        if !self.listeners.lets_in(remote, at) {
            let text = format!("{remote} must sign, and its key is missing or the connection older");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if let Some(distance) = self.distances.of(remote) {
            distance.set_on(&stream, remote)?;
        }
        self.adopt(stream)
    }

    /// Takes a connection over and begins to read.
    ///
    /// # Errors
    /// Where the connection is gone again already.
    pub(crate) fn adopt(&mut self, stream: TcpStream) -> io::Result<(ConnId, SocketAddr, SocketAddr)> {
        let (local, remote) = (canonical(stream.local_addr()?), canonical(stream.peer_addr()?));
        // It was made with the key of then.
        if let Some(Some(key)) = self.listeners.key(remote.ip()) {
            sign(&stream, remote.ip(), key);
        }
        stream.set_nodelay(true)?;
        let conn = ConnId(self.number());
        let stream = Arc::new(stream);
        let reader = tokio::spawn(read_all(conn, Arc::clone(&stream), self.events.clone())).abort_handle();
        self.connections.insert(conn, Connection { stream, remote: remote.ip(), reader, waiter: None });
        Ok((conn, local, remote))
    }

    /// Both ends of a connection that is open: ours, theirs.
    pub(crate) fn ends(&self, conn: ConnId) -> Option<(SocketAddr, SocketAddr)> {
        let stream = &self.connections.get(&conn)?.stream;
        Some((canonical(stream.local_addr().ok()?), canonical(stream.peer_addr().ok()?)))
    }

    /// Whether something waits in the socket: bytes, or its end, which a reader soon reports. The kernel is asked, since the runtime
    /// knows only what it saw when it last looked. More may be in the queue of events.
    pub(crate) fn has_unread(&self, conn: ConnId) -> bool {
        let Some(connection) = self.connections.get(&conn) else { return false };
        let mut socket = [PollFd::new(connection.stream.as_fd(), PollFlags::POLLIN)];
        poll(&mut socket, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Connections from here on have higher numbers.
    pub(crate) fn latest(&self) -> u64 {
        self.next
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

    /// Sends the last bytes and waits for the far end to close, a second at most and for so many at a time: a socket that is
    /// closed while bytes wait in it resets the connection, and the peer may lose the NOTIFICATION that says why. Who waits for
    /// the task knows that the peer knows.
    pub(crate) fn close(&mut self, conn: ConnId, last_bytes: Vec<u8>) -> Option<JoinHandle<()>> {
        let places = Arc::clone(&self.ended);
        self.part(conn, last_bytes, places)
    }

    /// As [`Self::close`], for a connection that is nobody's.
    pub(crate) fn refuse(&mut self, conn: ConnId, last_bytes: Vec<u8>) -> Option<JoinHandle<()>> {
        let places = Arc::clone(&self.refused);
        self.part(conn, last_bytes, places)
    }

    fn part(&mut self, conn: ConnId, last_bytes: Vec<u8>, places: Arc<Semaphore>) -> Option<JoinHandle<()>> {
        let connection = self.connections.remove(&conn)?;
        connection.reader.abort();
        let stream = Arc::clone(&connection.stream);
        Some(match places.try_acquire_owned() {
            Ok(place) => tokio::spawn(async move {
                goodbye(stream, last_bytes).await;
                drop(place);
            }),
            Err(_) => tokio::spawn(last_words(stream, last_bytes)),
        })
    }
}

/// Writes what the far end takes of these within a second. It may be gone or may not read: it is over either way.
pub(crate) async fn last_words(stream: Arc<TcpStream>, last_bytes: Vec<u8>) {
    drop(tokio::time::timeout(LINGER, write_all(&stream, &last_bytes)).await);
}

async fn goodbye(stream: Arc<TcpStream>, last_bytes: Vec<u8>) {
    let goodbye = async {
        write_all(&stream, &last_bytes).await?;
        SockRef::from(&*stream).shutdown(Shutdown::Write)?;
        until_closed(&stream).await
    };
    drop(tokio::time::timeout(LINGER, goodbye).await);
}

/// Waits for the far end to close; what it says meanwhile nobody reads.
///
/// # Errors
/// As the socket says.
pub(crate) async fn until_closed(stream: &TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        // Nothing that waits holds it: there may be thousands.
        let read = {
            let mut nobody_reads = [0; 16 * 1024];
            stream.try_read(&mut nobody_reads)
        };
        match read {
            Ok(0) => return Ok(()),
            // One that talks without pause keeps nobody from the loop.
            Ok(_) => tokio::task::yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
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
    loop {
        let ready = stream.readable().await;
        // First, so that bytes are in the socket or in the queue, and in no task between them where nobody would see them.
        let Ok(place) = events.reserve().await else { return };
        match ready.and_then(|()| stream.try_read(&mut buffer)) {
            Ok(0) => return place.send(NetEvent::Closed { conn, error: None }),
            Ok(n) => {
                place.send(NetEvent::Bytes { conn, bytes: buffer.get(..n).unwrap_or_default().to_vec() })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return place.send(NetEvent::Closed { conn, error: Some(error.to_string()) }),
        }
    }
}

/// Nothing of ours travels further than the peer may be away, unless it has to prove that it came from here. `key`: the peer
/// must sign; with which key, if it is there.
async fn connect(target: Target, key: Option<Option<SessionKey>>) -> io::Result<TcpStream> {
    let Target { remote, local, distance } = target;
    let remote = for_kernel(remote);
    let own = local.and_then(link_local::parts);
    let md5_key = match key {
        None => None,
        Some(Some(key)) => Some(key.bytes().to_vec()),
        Some(None) => return Err(io::Error::other("the session's key is missing")),
    };
    let options = DialOptions {
        source: local.map(link_local::wire),
        source_scope: own.map_or(0, |(_, interface)| interface),
        ttl: Some(distance.max_hops.max(1)),
        min_ttl: distance.is_proven.then(|| distance.min_ttl()),
        md5_key,
        ..DialOptions::default()
    };
    socket::dial(remote.ip(), &options)?.connect(remote).await
}

/// What is sent and taken on a connection is signed with this from here on.
fn sign(stream: &TcpStream, peer: IpAddr, key: &SessionKey) {
    if let Err(error) = socket::set_md5_key(stream, link_local::wire(peer), None, key.bytes()) {
        tracing::error!(
            %error, source = %peer, effect = "the session ends when its peer has another key",
            "the key of a session cannot be changed"
        );
    }
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
/// A link-local one is one on its interface.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            IpAddr::V6(link_local::scoped(*v6.ip(), v6.scope_id()))
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.ip().to_canonical(),
    };
    SocketAddr::new(ip, address.port())
}

/// As the kernel takes it: what [`canonical`] made, undone.
fn for_kernel(address: SocketAddr) -> SocketAddr {
    match link_local::parts(address.ip()) {
        Some((ip, interface)) => SocketAddr::V6(SocketAddrV6::new(ip, address.port(), 0, interface)),
        None => address,
    }
}
