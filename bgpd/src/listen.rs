//! Listening sockets of both families, each with the keys of those who must sign.
//!
//! ```text
//!           bound, keys set, then listening            the socket fails
//!   closed ───────────────────────────────► accepting ─────────────────┐
//!     ▲ └── cannot be bound ──► waiting 5 s ◄──────────────────────────┘
//!     └──────── Again ──────────────┘
//! ```
//! A key is on the socket before anybody can connect to it: the kernel drops every segment without the right signature,
//! and the speaker never hears of who sent it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_proto::link_local;
use felix_kernel::socket;
use futures::FutureExt as _;
use ipnet::IpNet;
use manx_daemon::secrets::SessionKey;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::by_prefix::ByPrefix;
use crate::net::NetEvent;

/// The pause after a listening socket could not be made, or refused to accept.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// One address that is listened on; none: it waits to be tried again.
struct Listener {
    socket: Option<Arc<TcpListener>>,
    /// Accepts, or waits.
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who must sign, and with what. `None`: nobody has the key, and nobody gets in.
struct Keyed {
    key: Option<SessionKey>,
    /// From when on every accepted connection was signed; none: a socket refused the key.
    since: Option<Instant>,
}

pub(crate) struct Listeners {
    events: mpsc::Sender<NetEvent>,
    port: Option<u16>,
    sockets: BTreeMap<SocketAddr, Listener>,
    keys: ByPrefix<Keyed>,
    /// The lowest TTL that any peer may come with, of IPv4 and IPv6.
    min_ttl: [u8; 2],
}

impl Listeners {
    pub(crate) fn new(events: mpsc::Sender<NetEvent>) -> Self {
        Self { events, port: None, sockets: BTreeMap::new(), keys: ByPrefix::default(), min_ttl: [0; 2] }
    }

    /// Listens on this port of both families; 0 listens nowhere. Returns what became of each socket; one that cannot be
    /// had is tried again.
    pub(crate) fn listen(&mut self, port: u16) -> Vec<(SocketAddr, io::Result<()>)> {
        if self.port == Some(port) {
            return Vec::new();
        }
        self.port = Some(port);
        self.sockets.clear();
        if port == 0 {
            return Vec::new();
        }
        let both = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        both.map(|ip| SocketAddr::new(ip, port)).map(|address| (address, self.open(address))).into()
    }

    /// Tries an address again; none: it is not listened on any more, or works.
    pub(crate) fn again(&mut self, address: SocketAddr) -> Option<io::Result<()>> {
        self.sockets
            .get(&address)
            .is_some_and(|listener| listener.socket.is_none())
            .then(|| self.open(address))
    }

    /// The socket refused to accept: it is made anew, later.
    pub(crate) fn failed(&mut self, address: SocketAddr) {
        if self.sockets.contains_key(&address) {
            self.wait(address);
        }
    }

    fn open(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut refused = Vec::new();
        let keys = self.keys.iter().filter_map(|(peers, keyed)| Some((peers, keyed.key.as_ref()?)));
        let min_ttl = self.min_ttl(address.is_ipv4());
        let made = socket::listen_with(address, |socket| {
            for (peers, key) in keys.filter(|(peers, _)| peers.addr().is_ipv4() == address.is_ipv4()) {
                if let Err(error) = set_md5_key(socket, peers, key.bytes()) {
                    refused.push((*peers, error));
                }
            }
            // A peer that wants 255 (RFC 5082) wants it of our SYN-ACK, too.
            say_ttl(socket::set_ttl_security(socket, address.ip(), min_ttl));
        });
        match made.and_then(TcpListener::from_std) {
            Ok(socket) => {
                let socket = Arc::new(socket);
                let task = tokio::spawn(accept(address, Arc::clone(&socket), self.events.clone()));
                let listener = Listener { socket: Some(socket), task: task.abort_handle() };
                self.sockets.insert(address, listener);
                for (peers, error) in refused {
                    self.lock_out(peers, &error);
                }
                Ok(())
            }
            Err(error) => {
                self.wait(address);
                Err(error)
            }
        }
    }

    fn wait(&mut self, address: SocketAddr) {
        let events = self.events.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(LISTEN_AGAIN).await;
            drop(events.send(NetEvent::ListenAgain(address)).await);
        });
        self.sockets.insert(address, Listener { socket: None, task: task.abort_handle() });
    }

    fn min_ttl(&self, ipv4: bool) -> u8 {
        let [of_ipv4, of_ipv6] = self.min_ttl;
        if ipv4 { of_ipv4 } else { of_ipv6 }
    }

    /// No peer of the family may come with a lower TTL: who does gets no answer at all.
    pub(crate) fn set_min_ttl(&mut self, ipv4: bool, min_ttl: u8) {
        let [of_ipv4, of_ipv6] = &mut self.min_ttl;
        let before = std::mem::replace(if ipv4 { of_ipv4 } else { of_ipv6 }, min_ttl);
        let of_family =
            self.sockets.iter().filter(|(address, _)| address.is_ipv4() == ipv4 && before != min_ttl);
        for (address, socket) in of_family.filter_map(|(address, l)| Some((address, l.socket.as_ref()?))) {
            say_ttl(socket::set_min_ttl(socket.as_ref(), address.ip(), min_ttl));
        }
    }

    /// The prefix by which a peer must sign, if it must.
    pub(crate) fn signer(&self, peer: IpAddr) -> Option<IpNet> {
        self.keys.prefix_of(peer)
    }

    /// What segments from and to this address are signed with; `Some(None)`: with a key that nobody has.
    pub(crate) fn key(&self, peer: IpAddr) -> Option<Option<&SessionKey>> {
        self.keys.of(peer).map(|keyed| keyed.key.as_ref())
    }

    /// Whether a connection that was accepted then may be one of this peer.
    pub(crate) fn lets_in(&self, peer: IpAddr, accepted: Instant) -> bool {
        self.keys
            .of(peer)
            .is_none_or(|keyed| keyed.key.is_some() && keyed.since.is_some_and(|since| since <= accepted))
    }

    /// Takes all keys; returns who has another one than before. Where a key is missing the kernel keeps the last one,
    /// so that nobody gets in without any.
    pub(crate) fn set_keys(
        &mut self,
        wanted: &BTreeMap<IpNet, Option<SessionKey>>,
    ) -> Vec<(IpNet, SessionKey)> {
        let known = self.keys.iter().map(|(peer, _)| *peer);
        let gone: Vec<IpNet> = known.filter(|peer| !wanted.contains_key(peer)).collect();
        for peer in gone {
            self.keys.remove(&peer);
            // The kernel has one key for an address, whatever the link: it stays for as long as a neighbour on another
            // link signs with it.
            match also_signs(&peer, wanted) {
                Some(Some(key)) => drop(self.set_key(peer, key.bytes())),
                // Nobody has that key: the last one keeps everybody out who does not sign with it.
                Some(None) => {}
                // There is nothing to remove where a socket never had it.
                None => drop(self.set_key(peer, &[])),
            }
        }
        let mut changed = Vec::new();
        for (peer, key) in wanted {
            let before = self.keys.get(peer);
            if before.is_some_and(|keyed| keyed.key == *key) {
                continue;
            }
            // Who signed with the last key signs with this one now; who did not sign at all is turned away.
            let signed_since = before.filter(|keyed| keyed.key.is_some()).and_then(|keyed| keyed.since);
            self.keys.insert(*peer, Keyed { key: key.clone(), since: signed_since });
            let Some(key) = key else { continue };
            changed.push((*peer, key.clone()));
            match self.set_key(*peer, key.bytes()) {
                Ok(()) if signed_since.is_none() => self.begin(*peer),
                Ok(()) => tracing::info!(source = %peer, "the session's key changed"),
                Err(error) => self.lock_out(*peer, &error),
            }
        }
        changed
    }

    /// From here on whoever is accepted has signed: who waits unsigned, whoever it is, is turned away and may try again.
    fn begin(&mut self, peer: IpNet) {
        for socket in self.sockets.values().filter_map(|listener| listener.socket.as_ref()) {
            while let Some(Ok(waiting)) = socket.accept().now_or_never() {
                drop(waiting);
            }
        }
        if let Some(keyed) = self.keys.get_mut(&peer) {
            keyed.since = Some(Instant::now());
        }
    }

    fn set_key(&self, peer: IpNet, key: &[u8]) -> io::Result<()> {
        let of_family = self.sockets.iter().filter(|(address, _)| address.is_ipv4() == peer.addr().is_ipv4());
        for socket in of_family.filter_map(|(_, listener)| listener.socket.as_ref()) {
            set_md5_key(socket.as_ref(), &peer, key)?;
        }
        Ok(())
    }

    /// A listening socket without the key would let anybody in: the peer can only be dialled.
    fn lock_out(&mut self, peer: IpNet, error: &io::Error) {
        if let Some(keyed) = self.keys.get_mut(&peer) {
            keyed.since = None;
        }
        tracing::error!(
            %error,
            source = %peer,
            expected = "a kernel with TCP-MD5 (CONFIG_TCP_MD5SIG), and room for one key a peer on a socket",
            r#do = "raise sysctl net.core.optmem_max where the error is about memory; meanwhile bgpd only dials this peer",
            "cannot listen with the session's key"
        );
    }
}

/// On a listening socket: the key of one peer, or of all in a range.
fn set_md5_key(socket: impl std::os::fd::AsFd, peers: &IpNet, key: &[u8]) -> io::Result<()> {
    let (address, length) = in_kernel(peers);
    let length = (length < peers.max_prefix_len()).then_some(length);
    socket::set_md5_key(socket, address, length, key)
}

/// The kernel knows keys by address alone: two neighbours with one link-local address on two links need the same key.
fn in_kernel(peers: &IpNet) -> (IpAddr, u8) {
    (link_local::wire(peers.addr()), peers.prefix_len())
}

/// The key of another neighbour of this address, if there is one.
fn also_signs<'a>(
    peer: &IpNet,
    wanted: &'a BTreeMap<IpNet, Option<SessionKey>>,
) -> Option<Option<&'a SessionKey>> {
    let other = wanted.iter().find(|(other, _)| in_kernel(other) == in_kernel(peer));
    other.map(|(_, key)| key.as_ref())
}

/// Every accepted connection is given its own limit all the same.
fn say_ttl(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "the listening socket takes no TTL");
    }
}

/// Accepts until the socket fails.
async fn accept(address: SocketAddr, socket: Arc<TcpListener>, events: mpsc::Sender<NetEvent>) {
    loop {
        let event = match socket.accept().await {
            Ok((stream, _)) => NetEvent::Accepted { stream, at: Instant::now() },
            // The peer left between SYN and accept: the socket itself is fine.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => NetEvent::Deaf { address, error: error.to_string() },
        };
        let is_over = matches!(event, NetEvent::Deaf { .. });
        if events.send(event).await.is_err() || is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_in_the_kernel_with_the_last_neighbour_of_its_address() {
        let neighbour = |ifindex| {
            let address = link_local::scoped("fe80::1".parse().unwrap(), ifindex);
            IpNet::from(IpAddr::V6(address))
        };
        let router = IpNet::from(IpAddr::from([10, 0, 0, 1]));
        let wanted = BTreeMap::from([(neighbour(3), None), (router, None)]);
        assert_eq!(also_signs(&neighbour(2), &wanted).map(|key| key.is_some()), Some(false));
        assert!(also_signs(&router, &BTreeMap::from([(neighbour(3), None)])).is_none());
        assert!(also_signs(&neighbour(2), &BTreeMap::from([(router, None)])).is_none());
    }
}
