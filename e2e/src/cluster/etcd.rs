//! What only etcd itself can be asked for, through its JSON gateway.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// Where it listens, in the control plane's namespace.
pub(crate) const CLIENTS: u16 = 2379;
pub(crate) const PEERS: u16 = 2380;

/// Forgets all history up to now: a watch or list from an older resourceVersion is answered 410 by etcd. Answers the
/// revision. To be called on a thread in the namespace.
pub(crate) fn compact() -> Result<u64> {
    // Any key will do: the header of the answer has the revision.
    let answer = post("/v3/kv/range", &json!({"key": "AA=="}))?;
    let revision = answer.pointer("/header/revision").and_then(Value::as_str).context("no revision")?;
    let revision: u64 = revision.parse().context("revision")?;
    post("/v3/kv/compaction", &json!({"revision": revision.to_string(), "physical": true}))?;
    Ok(revision)
}

fn post(path: &str, body: &Value) -> Result<Value> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, CLIENTS)).context("connecting to etcd")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let body = body.to_string();
    // HTTP/1.0: the answer ends where the connection does.
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("etcd {path}"))?;
    let (head, content) = text.split_once("\r\n\r\n").context("etcd sent no answer")?;
    if !head.lines().next().unwrap_or_default().contains(" 200 ") {
        bail!("etcd {path}: {content}");
    }
    serde_json::from_str(content).with_context(|| format!("JSON of etcd {path}"))
}
