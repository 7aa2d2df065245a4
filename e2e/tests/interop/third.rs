//! A third speaker, made of bytes: it announces what no daemon can be told to announce, and keeps what it hears.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use e2e::netns::Netns;
use e2e::probe;

/// What it announces to the peer, and what to bgpd.
pub(crate) const TO_PEER: &str = "10.244.9.0/26";
pub(crate) const TO_MANX: &str = "10.244.10.0/26";

/// As a setup has it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) asn: u32,
    /// The AS of the one that it speaks to, for LOCAL_PREF and an empty path between internal peers.
    pub(crate) peer_asn: u32,
    /// What stands behind its own AS in the path, between external peers.
    pub(crate) behind: Option<u32>,
    /// Path attributes beside the mandatory ones, as they stand on the wire.
    pub(crate) attributes: Vec<u8>,
}

impl Told {
    /// An external one has another AS towards the peer: a path through both would lead back to it, and GoBGP tells no such.
    pub(crate) fn to_peer(&self) -> Self {
        Self { asn: if self.asn == self.peer_asn { self.asn } else { 65004 }, ..self.clone() }
    }
}

/// A path attribute on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) flags: u8,
    pub(crate) kind: u8,
    pub(crate) value: Vec<u8>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The body of the other end's OPEN.
    open: Vec<u8>,
    /// The bodies of its UPDATEs.
    updates: Vec<Vec<u8>>,
}

/// One connection of the third speaker; it dials until it is dropped.
pub(crate) struct Third {
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
}

impl Third {
    pub(crate) fn dial(netns: &Netns, local: &str, remote: &str, prefix: &'static str, told: &Told) -> Self {
        let [local, remote]: [SocketAddr; 2] =
            [format!("{local}:0"), format!("{remote}:179")].map(|text| text.parse().unwrap());
        let third = Self { heard: Arc::default(), stop: Arc::default() };
        let (heard, stop) = (Arc::clone(&third.heard), Arc::clone(&third.stop));
        let (open, update) = (open(told), update(told, local, prefix));
        // The thread ends with the value, and its socket with it.
        let _ = netns
            .spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Who does not listen yet, or ends the session, is dialled again.
                    let _ = session(local, remote, &open, &update, &heard, &stop);
                    thread::sleep(Duration::from_millis(300));
                }
                Ok(())
            })
            .unwrap();
        third
    }

    /// The capabilities of the other end's OPEN: code and value.
    pub(crate) fn capabilities(&self) -> Vec<(u8, Vec<u8>)> {
        let heard = self.heard.lock().unwrap();
        let mut found = Vec::new();
        let mut parameters = heard.open.get(10..).unwrap_or_default();
        while let [2, length, rest @ ..] = parameters {
            let (mut one, after) = rest.split_at(usize::from(*length).min(rest.len()));
            while let [code, length, rest @ ..] = one {
                let (value, after) = rest.split_at(usize::from(*length).min(rest.len()));
                found.push((*code, value.to_vec()));
                one = after;
            }
            parameters = after;
        }
        found
    }

    /// The attributes with which it heard of an IPv4 prefix at last.
    pub(crate) fn path(&self, prefix: &str) -> Option<Vec<Attribute>> {
        let wire = nlri(prefix);
        let heard = self.heard.lock().unwrap();
        heard.updates.iter().rev().find_map(|update| {
            let (attributes, nlri) = parts(update)?;
            nlri.windows(wire.len()).any(|part| part == wire).then(|| read_attributes(attributes))
        })
    }
}

impl Drop for Third {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn session(
    local: SocketAddr,
    remote: SocketAddr,
    open: &[u8],
    update: &[u8],
    heard: &Mutex<Heard>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let Some(mut stream) = probe::connect_tcp(local, remote, Duration::from_secs(2))? else { return Ok(()) };
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(open)?;
    let mut buffer = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut part = [0u8; 65536];
        match stream.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(size) => buffer.extend_from_slice(&part[..size]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                stream.write_all(&message(4, &[]))?;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        while let Some(length) =
            buffer.get(16..18).map(|field| usize::from(field[0]) << 8 | usize::from(field[1]))
        {
            if buffer.len() < length || length < 19 {
                break;
            }
            let one: Vec<u8> = buffer.drain(..length).collect();
            let mut heard = heard.lock().unwrap();
            match one[18] {
                1 => {
                    heard.open = one[19..].to_vec();
                    stream.write_all(&message(4, &[]))?;
                }
                2 => heard.updates.push(one[19..].to_vec()),
                // The first KEEPALIVE says that our OPEN was taken; to be told the same again does no harm.
                4 => stream.write_all(update)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 19).unwrap();
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// Version 4, hold time 90 s; IPv4 unicast and four-octet AS numbers.
fn open(told: &Told) -> Vec<u8> {
    let short = u16::try_from(told.asn).unwrap_or(23456);
    let capabilities = [&[1, 4, 0, 1, 0, 1, 65, 4][..], &told.asn.to_be_bytes()].concat();
    let length = u8::try_from(capabilities.len()).unwrap();
    let head = [&[4][..], &short.to_be_bytes(), &90u16.to_be_bytes(), &[10, 9, 0, 3]].concat();
    message(1, &[&head[..], &[length + 2, 2, length], &capabilities].concat())
}

fn update(told: &Told, local: SocketAddr, prefix: &str) -> Vec<u8> {
    let SocketAddr::V4(local) = local else { panic!("IPv4 only") };
    let mut attributes = vec![0x40, 1, 1, 0];
    if told.asn == told.peer_asn {
        attributes.extend([0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100]);
    } else {
        let path: Vec<u32> = [Some(told.asn), told.behind].into_iter().flatten().collect();
        let count = u8::try_from(path.len()).unwrap();
        attributes.extend([0x40, 2, 2 + 4 * count, 2, count]);
        attributes.extend(path.iter().flat_map(|asn| asn.to_be_bytes()));
    }
    attributes.extend([0x40, 3, 4]);
    attributes.extend(local.ip().octets());
    attributes.extend(&told.attributes);
    let length = u16::try_from(attributes.len()).unwrap();
    message(2, &[&[0, 0][..], &length.to_be_bytes(), &attributes, &nlri(prefix)].concat())
}

/// A prefix as it stands in NLRI.
fn nlri(prefix: &str) -> Vec<u8> {
    let (address, length) = prefix.split_once('/').unwrap();
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    let length: u8 = length.parse().unwrap();
    [&[length][..], &address.octets()[..usize::from(length.div_ceil(8))]].concat()
}

/// Attributes and NLRI of an UPDATE.
fn parts(update: &[u8]) -> Option<(&[u8], &[u8])> {
    let take = |bytes: &[u8]| Some(usize::from(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?)));
    let rest = update.get(2 + take(update)?..)?;
    let length = take(rest)?;
    Some((rest.get(2..2 + length)?, rest.get(2 + length..)?))
}

fn read_attributes(mut bytes: &[u8]) -> Vec<Attribute> {
    let mut found = Vec::new();
    while let [flags, kind, rest @ ..] = bytes {
        let (length, rest) = match (flags & 0x10 != 0, rest) {
            (true, [high, low, rest @ ..]) => (usize::from(*high) << 8 | usize::from(*low), rest),
            (false, [length, rest @ ..]) => (usize::from(*length), rest),
            (true | false, _) => break,
        };
        let (value, after) = rest.split_at(length.min(rest.len()));
        found.push(Attribute { flags: *flags, kind: *kind, value: value.to_vec() });
        bytes = after;
    }
    found
}
