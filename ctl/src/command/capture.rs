//! `manxctl bgp capture`: the messages of one session, as lines or as a file for tcpdump and Wireshark.

mod pcap;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use manx_crds::report::{BgpdCapture, BgpdRequest, CapturedMessage};

use self::pcap::Pcap;
use crate::error::Failure;
use crate::fabric::{Daemon, Fabric};

/// How long is looked where nothing is said of it.
const LOOK: Duration = Duration::from_secs(10);
/// Between two questions. bgpd keeps 4 MiB meanwhile.
const AGAIN: Duration = Duration::from_millis(250);

/// When it is enough: whatever comes first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) follow: bool,
    pub(crate) count: Option<u64>,
    pub(crate) seconds: Option<u64>,
}

impl Limits {
    fn time(&self) -> Option<Duration> {
        match (self.seconds, self.follow || self.count.is_some()) {
            (Some(seconds), _) => Some(Duration::from_secs(seconds)),
            (None, true) => None,
            (None, false) => Some(LOOK),
        }
    }
}

/// Where messages go.
enum Sink {
    Lines,
    File(Pcap<Box<dyn Write>>),
}

impl Sink {
    fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = file else { return Ok(Self::Lines) };
        let out: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout().lock())
        } else {
            let error = |error: io::Error| {
                let (what, place) = (error.to_string(), path.display().to_string());
                Failure::new(&what, &place, "a file that can be written, or -", "name another after -w")
            };
            Box::new(File::create(path).map_err(error)?)
        };
        Ok(Self::File(Pcap::new(out)?))
    }

    fn take(&mut self, message: &CapturedMessage) -> Result<(), Failure> {
        match self {
            Self::Lines => println!("{}", line(message)),
            Self::File(pcap) => pcap.write(message)?,
        }
        Ok(())
    }

    /// What was taken can be read by now.
    fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::Lines => io::stdout().flush()?,
            Self::File(pcap) => pcap.flush()?,
        }
        Ok(())
    }
}

pub(crate) async fn run(
    fabric: &Fabric,
    peer: &str,
    file: Option<&Path>,
    limits: Limits,
) -> Result<bool, Failure> {
    let [node] = &fabric.nodes[..] else {
        let nodes = fabric.nodes.len();
        let todo = format!("manxctl --node NODE bgp capture {peer}");
        return Err(Failure::new(
            "one node's session is captured",
            &format!("{nodes} nodes"),
            "--node",
            &todo,
        ));
    };
    let begun = ask(fabric, node, peer, None).await?;
    // The name stays, whatever becomes of the session.
    let (name, mut after) = (begun.peer.clone(), begun.next);
    let mut sink = Sink::open(file)?;
    let end = limits.time().map(|time| Instant::now() + time);
    let (mut seen, mut lost) = (0, 0);
    let mut answer = begun;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let more = !answer.messages.is_empty();
        lost += answer.lost;
        for message in &answer.messages {
            if limits.count.is_some_and(|count| seen >= count) {
                break;
            }
            seen += 1;
            if let Err(failure) = sink.take(message) {
                return closed_pipe(failure);
            }
        }
        sink.flush()?;
        let is_enough = limits.count.is_some_and(|count| seen >= count);
        let rest = end.map(|end| end.saturating_duration_since(Instant::now()));
        if is_enough || rest.is_some_and(|rest| rest.is_zero()) {
            break;
        }
        if !more {
            tokio::select! {
                _ = &mut interrupt => break,
                () = tokio::time::sleep(rest.map_or(AGAIN, |rest| rest.min(AGAIN))) => {}
            }
        }
        answer = tokio::select! {
            _ = &mut interrupt => break,
            answer = ask(fabric, node, &name, Some(after)) => answer?,
        };
        after = answer.next;
    }
    let gone =
        if lost > 0 { format!(", {lost} more came faster than they were fetched") } else { String::new() };
    eprintln!("{seen} messages of {name} on {node}{gone}");
    Ok(true)
}

/// Whoever reads what we write may have seen enough.
fn closed_pipe(failure: Failure) -> Result<bool, Failure> {
    if failure.is_broken_pipe() { Ok(true) } else { Err(failure) }
}

async fn ask(fabric: &Fabric, node: &str, peer: &str, after: Option<u64>) -> Result<BgpdCapture, Failure> {
    let request = serde_json::to_value(BgpdRequest::Capture { peer: peer.to_owned(), after })?;
    fabric.ask(node, Daemon::Bgpd, &request).await.map_err(|error| {
        let expected = "a BGPPeer of that node with one session, or the far end's address";
        Failure::new(
            &error,
            &format!("bgpd of {node}"),
            expected,
            &format!("manxctl --node {node} bgp peers"),
        )
    })
}

/// `2026-11-22T01:02:03.000004Z > 10.0.0.2 UPDATE 57 octets`
fn line(message: &CapturedMessage) -> String {
    let micros = i64::try_from(message.time).unwrap_or(i64::MAX);
    let time = Timestamp::from_microsecond(micros).map(|time| format!("{time:.6}")).unwrap_or_default();
    let way = if message.sent { '>' } else { '<' };
    let octets = &message.octets.0;
    let kind = match octets.get(18) {
        Some(1) => "OPEN",
        Some(2) => "UPDATE",
        Some(3) => "NOTIFICATION",
        Some(4) => "KEEPALIVE",
        Some(5) => "ROUTE-REFRESH",
        Some(_) | None => "?",
    };
    let kind = if octets.starts_with(&[0xff; 16]) { kind } else { "no BGP message" };
    format!("{time} {way} {} {kind} {} octets", message.remote.ip(), octets.len())
}

#[cfg(test)]
mod tests;
