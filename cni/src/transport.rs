//! One request and one answer over felix's socket.

use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use manx_cni::args::Args;
use manx_cni::error::{CniError, Code};
use manx_cni::request::{self, Request, Response, Verb};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::namespace::Inside;

/// felix waits up to 5 s for a Pod that it does not know yet; the runtime gives up after minutes.
const ANSWER: Duration = Duration::from_secs(60);

pub(crate) fn connect(path: &str, args: &Args) -> Result<UnixStream, CniError> {
    let (verb, code) = (args.verb.as_str(), silence(args.verb));
    let pod = args
        .pod
        .as_ref()
        .map_or_else(|| args.container_id.clone(), |pod| format!("{}/{}", pod.namespace, pod.name));
    let silent = |error: std::io::Error| {
        CniError::new(code, "felix does not answer").because(
            &format!("manx-cni {verb} {pod}: {path}: {error}"),
            "felix running on this node; the runtime tries again by itself",
            "kubectl -n manx-system get pod -o wide",
        )
    };
    let stream = UnixStream::connect(path).map_err(silent)?;
    stream.set_read_timeout(Some(ANSWER)).map_err(silent)?;
    stream.set_write_timeout(Some(ANSWER)).map_err(silent)?;
    Ok(stream)
}

/// What it means for this call that felix is silent.
fn silence(verb: Verb) -> Code {
    match verb {
        Verb::Status => Code::NotAvailable,
        Verb::Add | Verb::Del | Verb::Check | Verb::Gc => Code::TryAgainLater,
    }
}

pub(crate) fn ask(
    mut stream: UnixStream,
    request: &Request,
    inside: Option<&Inside>,
) -> Result<Response, CniError> {
    let bytes = request::frame(request)
        .map_err(|error| CniError::new(Code::Decode, format!("the request cannot be encoded: {error}")))?;
    send(&mut stream, &bytes, inside).map_err(|error| broken(&error, request.verb))?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).map_err(|error| broken(&error, request.verb))?;
    let length = request::frame_length(head)
        .ok_or_else(|| CniError::new(Code::Decode, "felix answered with a frame that is too long"))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(|error| broken(&error, request.verb))?;
    request::unframe(&body)
        .map_err(|error| CniError::new(Code::Decode, format!("felix's answer is not understood: {error}")))
}

/// The descriptors travel with the first bytes; what the socket did not take follows without them.
fn send(stream: &mut UnixStream, bytes: &[u8], inside: Option<&Inside>) -> std::io::Result<()> {
    let descriptors: Vec<_> =
        inside.iter().flat_map(|i| [i.namespace.as_raw_fd(), i.netlink.as_raw_fd()]).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control: &[ControlMessage<'_>] = if descriptors.is_empty() { &[] } else { &rights };
    let sent =
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    stream.write_all(bytes.get(sent..).unwrap_or_default())
}

fn broken(error: &std::io::Error, verb: Verb) -> CniError {
    CniError::new(silence(verb), format!("felix did not finish its answer: {error}")).because(
        "manx-cni, felix's socket",
        "an answer within 60s; the runtime tries again by itself",
        "look at felix's log",
    )
}
