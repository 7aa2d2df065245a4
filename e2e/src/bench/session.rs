//! A session of the generator: enough of BGP to be believed, and no more.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use crate::bench::feed::{self, Profile};

const HEADER: usize = 19;
/// What a dial or a handshake may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who a session of the generator is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub address: Ipv4Addr,
    pub asn: u32,
    /// Seconds.
    pub hold: u16,
    /// Keeps a restarting daemon's routes, and says so.
    pub restart_time: Option<u16>,
}

/// A session that is up.
#[derive(Debug)]
pub struct Session {
    identity: Identity,
    frames: Frames,
    writer: OwnedWriteHalf,
}

/// What sinks report, each by its number.
#[derive(Debug)]
pub enum Heard {
    /// It holds every prefix that it waits for; how many UPDATEs that took.
    Complete { sink: usize, updates: u64, at: Instant },
    /// An UPDATE with prefixes after that.
    Update { at: Instant },
    /// The daemon ended the session.
    Ended { sink: usize, why: String },
}

#[derive(Debug)]
struct Frames {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    /// What is not read yet lies in `buffer[start..]`.
    start: usize,
}

impl Frames {
    async fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.reserve(256 << 10);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("closed");
        }
        Ok(())
    }

    /// The next whole message: its type and body.
    fn next(&mut self) -> Option<(u8, &[u8])> {
        let rest = self.buffer.get(self.start..)?;
        let length = usize::from(u16::from_be_bytes(rest.get(16..18)?.try_into().ok()?));
        let message = rest.get(..length.max(HEADER))?;
        self.start += length.max(HEADER);
        Some((*message.get(18)?, message.get(HEADER..)?))
    }

    async fn expect(&mut self, kind: u8) -> Result<()> {
        loop {
            if let Some((found, body)) = self.next() {
                if found == kind {
                    return Ok(());
                }
                bail!("message {found} where {kind} was awaited: {body:?}");
            }
            self.fill().await?;
        }
    }
}

impl Session {
    /// Dials until the session is up or the patience is over.
    pub async fn dial_until(identity: Identity, daemon: Ipv4Addr, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        loop {
            let error = match Self::dial(identity, daemon).await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("no session from {}", identity.address));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// One attempt.
    pub async fn dial(identity: Identity, daemon: Ipv4Addr) -> Result<Self> {
        let attempt = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::V4(SocketAddrV4::new(identity.address, 0)))?;
            let stream = socket.connect(SocketAddr::V4(SocketAddrV4::new(daemon, 179))).await?;
            Self::open(identity, stream).await
        };
        tokio::time::timeout(PATIENCE, attempt).await.context("no answer")?
    }

    /// The handshake on a connection, whoever dialled.
    pub async fn open(identity: Identity, stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        let (reader, mut writer) = stream.into_split();
        let mut frames = Frames { stream: reader, buffer: Vec::new(), start: 0 };
        let open = feed::open(identity.asn, identity.address, identity.hold, identity.restart_time);
        writer.write_all(&open).await?;
        frames.expect(1).await?;
        writer.write_all(&feed::message(4, &[])).await?;
        frames.expect(4).await?;
        Ok(Self { identity, frames, writer })
    }

    /// The source: writes what it is given, and keeps the session alive.
    pub async fn feed(self, mut streams: mpsc::Receiver<Vec<u8>>) -> Result<()> {
        let Self { identity, mut frames, mut writer } = self;
        // What the daemon says to the source is read, or it would wait for room.
        let reader = tokio::spawn(async move {
            loop {
                frames.start = frames.buffer.len();
                if let Err(error) = frames.fill().await {
                    return error;
                }
            }
        });
        let mut tick = ticks(identity.hold);
        loop {
            tokio::select! {
                stream = streams.recv() => match stream {
                    Some(stream) => writer.write_all(&stream).await.context("the source writes")?,
                    None => return Ok(()),
                },
                _ = tick.tick() => writer.write_all(&feed::message(4, &[])).await.context("the source writes")?,
            }
            if reader.is_finished() {
                return Err(reader.await?.context("the session of the source"));
            }
        }
    }

    /// A sink: counts until it holds `prefixes` of the profile, and reads on until `heard` is dropped.
    pub async fn sink(
        self,
        number: usize,
        profile: Profile,
        prefixes: u32,
        heard: mpsc::UnboundedSender<Heard>,
    ) {
        let Self { identity, mut frames, mut writer } = self;
        let mut tick = ticks(identity.hold);
        let mut held = Held {
            seen: vec![false; usize::try_from(prefixes).unwrap_or_default()],
            missing: prefixes,
            updates: 0,
        };
        loop {
            tokio::select! {
                filled = frames.fill() => {
                    if let Err(error) = filled {
                        drop(heard.send(Heard::Ended { sink: number, why: error.to_string() }));
                        return;
                    }
                    if !held.take(number, profile, &mut frames, &heard) {
                        return;
                    }
                }
                _ = tick.tick() => {
                    if heard.is_closed() || writer.write_all(&feed::message(4, &[])).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// What a sink holds.
struct Held {
    seen: Vec<bool>,
    missing: u32,
    updates: u64,
}

impl Held {
    /// Whether the sink goes on.
    fn take(
        &mut self,
        sink: usize,
        profile: Profile,
        frames: &mut Frames,
        heard: &mpsc::UnboundedSender<Heard>,
    ) -> bool {
        while let Some((kind, body)) = frames.next() {
            match kind {
                2 => {}
                3 => {
                    drop(heard.send(Heard::Ended { sink, why: format!("NOTIFICATION {body:?}") }));
                    return false;
                }
                _ => continue,
            }
            let (before, mut any) = (self.missing, false);
            let read = feed::prefixes(body, |address, length| {
                any = true;
                let number = profile.number(address, length).and_then(|number| usize::try_from(number).ok());
                let place = number.and_then(|number| self.seen.get_mut(number));
                if let Some(place) = place.filter(|place| !**place) {
                    *place = true;
                    self.missing -= 1;
                }
            });
            if read.is_none() {
                drop(heard.send(Heard::Ended { sink, why: "an UPDATE that cannot be read".to_owned() }));
                return false;
            }
            self.updates += u64::from(any);
            let at = Instant::now();
            if before > 0 && self.missing == 0 {
                drop(heard.send(Heard::Complete { sink, updates: self.updates, at }));
            } else if before == 0 && any {
                drop(heard.send(Heard::Update { at }));
            }
        }
        true
    }
}

fn ticks(hold: u16) -> tokio::time::Interval {
    let period = Duration::from_secs(u64::from(hold / 3).max(1));
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}
