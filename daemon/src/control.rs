//! The control socket: one JSON request a line, one JSON answer a line. The socket's tasks hold nothing of
//! the daemon: a request goes to the daemon's one loop and comes back answered.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// A longer request is an error, not a buffer that grows.
const LONGEST_REQUEST: u64 = 64 * 1024;
/// A silent client is let go.
const IDLE: Duration = Duration::from_secs(60);
/// Clients served at once; more wait in the socket's backlog.
const CLIENTS: usize = 16;

/// One request, and where its answer goes.
#[derive(Debug)]
pub struct Question {
    pub request: Value,
    answer: oneshot::Sender<Value>,
}

impl Question {
    /// The verb, if there is one.
    pub fn verb(&self) -> &str {
        self.request.get("verb").and_then(Value::as_str).unwrap_or_default()
    }

    /// A string argument of the request.
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.request.get(name).and_then(Value::as_str)
    }

    /// Answers; a client that left misses it.
    pub fn answer(self, value: &impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or_else(|error| json!({"error": error.to_string()}));
        drop(self.answer.send(value));
    }

    /// Answers a verb that the daemon does not know.
    pub fn unknown(self, verbs: &[&str]) {
        let error = format!("unknown verb {:?}", self.verb());
        self.answer(&json!({"error": error, "expected": verbs.join(", ")}));
    }
}

/// Listens on `path`, mode 0600. The questions end when the receiver is dropped.
///
/// # Errors
/// Where the socket cannot be made, or another process answers on it.
pub fn listen(path: &Path) -> io::Result<mpsc::Receiver<Question>> {
    let listener = bind(path)?;
    let (questions, receiver) = mpsc::channel(CLIENTS);
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS));
    tokio::spawn(async move {
        while !questions.is_closed() {
            let Ok(permit) = std::sync::Arc::clone(&permits).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let questions = questions.clone();
                    tokio::spawn(async move {
                        if let Err(error) = serve(stream, questions).await {
                            tracing::debug!(%error, "control client");
                        }
                        drop(permit);
                    });
                }
                // Out of descriptors, most likely: what is open may close meanwhile.
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(receiver)
}

/// A unix socket at `path`, mode 0600, over a file that a dead process may have left.
///
/// # Errors
/// `AddrInUse` where a living process answers; else what the system says, with the path.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(named(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process answers on this socket",
        )));
    }
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(named(error)),
    }
    let listener = UnixListener::bind(path).map_err(named)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(named)?;
    Ok(listener)
}

async fn serve(stream: UnixStream, questions: mpsc::Sender<Question>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read.take(LONGEST_REQUEST));
    let mut line = String::new();
    loop {
        line.clear();
        read.get_mut().set_limit(LONGEST_REQUEST);
        let length = tokio::time::timeout(IDLE, read.read_line(&mut line)).await??;
        if length == 0 {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        let answer = match serde_json::from_str(&line) {
            Err(error) => json!({"error": format!("the request is not JSON: {error}")}),
            Ok(request) => {
                if questions.send(Question { request, answer }).await.is_err() {
                    return Ok(());
                }
                answered.await.unwrap_or_else(|_| json!({"error": "the daemon is stopping"}))
            }
        };
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

/// Asks a daemon: what `manxctl` does.
///
/// # Errors
/// Where nobody answers within `timeout`, or not in JSON.
pub async fn ask(path: &Path, request: &Value, timeout: Duration) -> io::Result<Value> {
    let path: PathBuf = path.to_owned();
    let conversation = async {
        let mut stream = UnixStream::connect(&path).await?;
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        serde_json::from_str(&line).map_err(io::Error::other)
    };
    tokio::time::timeout(timeout, conversation).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn daemon(path: &Path) {
        let mut questions = listen(path).unwrap();
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                match question.verb() {
                    "echo" => {
                        let said = json!(question.argument("text"));
                        question.answer(&said);
                    }
                    _ => question.unknown(&["echo"]),
                }
            }
        });
    }

    #[tokio::test]
    async fn a_question_is_answered_and_nonsense_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        daemon(&path).await;
        let second = Duration::from_secs(5);
        assert_eq!(ask(&path, &json!({"verb": "echo", "text": "a"}), second).await.unwrap(), json!("a"));
        let unknown = ask(&path, &json!({"verb": "dance"}), second).await.unwrap();
        assert_eq!(unknown["error"], "unknown verb \"dance\"");
        let mut raw = UnixStream::connect(&path).await.unwrap();
        raw.write_all(b"no json\n").await.unwrap();
        let mut line = String::new();
        BufReader::new(raw).read_line(&mut line).await.unwrap();
        assert!(line.contains("the request is not JSON"), "{line}");
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let _questions = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
