//! The CNI socket: one connection a call. What comes in is checked here, before the loop hears of it: who asks, what
//! the descriptors are, whether the frame is one.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use felix_kernel::descriptor::{self, PodNamespace};
use manx_cni::error::{CniError, Code};
use manx_cni::request::{self, Request, Response, Verb};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// A shim that does not finish its request within this is gone.
const REQUEST: Duration = Duration::from_secs(10);
/// Calls that wait for the loop; more wait in the socket's backlog.
const QUEUE: usize = 256;

/// One call, checked.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    /// Present for ADD and CHECK.
    pub(crate) pod: Option<PodNamespace>,
    pub(crate) answer: oneshot::Sender<Response>,
}

/// Listens on `path`, mode 0600.
///
/// # Errors
/// Where the socket cannot be made, or another felix answers on it.
pub(crate) fn listen(path: &Path) -> io::Result<mpsc::Receiver<Call>> {
    let listener = manx_daemon::control::bind(path)?;
    let (calls, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(accept(listener, calls));
    Ok(receiver)
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    while !calls.is_closed() {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, calls.clone()))),
            Err(error) => {
                tracing::warn!(%error, "CNI socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve(mut stream: UnixStream, calls: mpsc::Sender<Call>) {
    let response = match tokio::time::timeout(REQUEST, receive(&mut stream)).await {
        Err(_) => return,
        Ok(Err(error)) => {
            tracing::warn!(
                code = error.code,
                error = error.msg,
                details = error.details,
                "CNI request refused"
            );
            Response::Failed(error)
        }
        Ok(Ok((request, pod))) => {
            let (answer, answered) = oneshot::channel();
            if calls.send(Call { request, pod, answer }).await.is_err() {
                return;
            }
            answered.await.unwrap_or_else(|_| {
                Response::Failed(CniError::new(Code::TryAgainLater, "felix is stopping").because(
                    "felix, CNI call",
                    "felix running; the runtime tries again by itself",
                    "nothing",
                ))
            })
        }
    };
    let written = match request::frame(&response) {
        Ok(bytes) => stream.write_all(&bytes).await,
        Err(error) => Err(io::Error::other(error)),
    };
    if let Err(error) = written {
        // The runtime gave up waiting: it will call DEL.
        tracing::warn!(%error, "the CNI answer found nobody");
    }
}

async fn receive(stream: &mut UnixStream) -> Result<(Request, Option<PodNamespace>), CniError> {
    match descriptor::peer_uid(stream.as_fd()) {
        Ok(0) => {}
        Ok(uid) => {
            return Err(refused(&format!("the caller has uid {uid}"), "uid 0, the container runtime's"));
        }
        Err(error) => return Err(refused(&format!("the caller is unknown: {error}"), "uid 0")),
    }
    let (first, descriptors) = first_bytes(stream).await.map_err(|error| broken(&error))?;
    let mut bytes = first;
    while bytes.len() < 4 {
        let mut more = [0; 4];
        match stream.read(&mut more).await.map_err(|error| broken(&error))? {
            0 => return Err(broken(&io::ErrorKind::UnexpectedEof.into())),
            n => bytes.extend_from_slice(more.get(..n).unwrap_or_default()),
        }
    }
    let (head, body) = bytes.split_at(4);
    let length = <[u8; 4]>::try_from(head)
        .ok()
        .and_then(request::frame_length)
        .filter(|length| *length >= body.len())
        .ok_or_else(|| refused("the frame is no request", "a length of at most 1 MiB, then JSON"))?;
    let mut body = body.to_vec();
    let had = body.len();
    body.resize(length, 0);
    let rest = body.get_mut(had..).unwrap_or_default();
    stream.read_exact(rest).await.map_err(|error| broken(&error))?;
    let request: Request = request::unframe(&body).map_err(|error| {
        CniError::new(Code::Decode, format!("the request is not understood: {error}")).because(
            "felix, CNI socket",
            "a request of this version's manx-cni",
            "install manx-cni and felix of one version",
        )
    })?;
    let pod = match request.verb {
        Verb::Add | Verb::Check => Some(descriptor::check_pod_descriptors(descriptors).map_err(|error| {
            refused(&error.to_string(), "the pod's network namespace and a route netlink socket inside it")
        })?),
        Verb::Del | Verb::Gc | Verb::Status => None,
    };
    Ok((request, pod))
}

/// The descriptors travel with the first bytes.
async fn first_bytes(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    loop {
        stream.readable().await?;
        let mut buffer = vec![0; 64 * 1024];
        let received = stream
            .try_io(Interest::READABLE, || descriptor::receive_with_descriptors(stream.as_fd(), &mut buffer));
        match received {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((n, descriptors)) => {
                buffer.truncate(n);
                return Ok((buffer, descriptors));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn refused(what: &str, expected: &str) -> CniError {
    CniError::new(Code::InvalidConfig, what).because(
        "felix, CNI socket",
        expected,
        "let the runtime call manx-cni",
    )
}

fn broken(error: &io::Error) -> CniError {
    CniError::new(Code::Io, format!("the request broke off: {error}"))
}
