//! What the kubelet asks: `/livez` and `/readyz`, and Prometheus: `/metrics`, answered from the control socket.
//!
//! The daemon asks itself, as manxctl would: an answer proves that its loop turns, which a flag set at start would not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::control;

/// Shorter than any probe's own patience, so that the kubelet's event has our words.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a connection may take over its request.
const HEADERS: Duration = Duration::from_secs(5);
/// What Prometheus takes metrics for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers probes and scrapes on `address` for as long as the process lives. The daemon whose control socket is `socket` is ready
/// once its answer to `status` says `inSync`. Returns the address, with the port that port 0 became.
///
/// # Errors
/// The address cannot be listened on; the text names it.
pub async fn serve(address: SocketAddr, socket: PathBuf) -> std::io::Result<SocketAddr> {
    let named = |error: std::io::Error| {
        std::io::Error::new(error.kind(), format!("--health-address {address}: {error}"))
    };
    let listener = TcpListener::bind(address).await.map_err(named)?;
    let bound = listener.local_addr()?;
    let socket = Arc::new(socket);
    tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: others may end meanwhile.
                    tracing::warn!(%error, "a probe's connection");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    continue;
                }
            };
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, Arc::clone(&socket)));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADERS)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                // A prober that goes away is its own business.
                let _ = connection.await;
            });
        }
    });
    Ok(bound)
}

async fn answer(
    request: Request<Incoming>,
    socket: Arc<PathBuf>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => match ask(&socket).await {
            Ok(_) => (StatusCode::OK, "ok".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        },
        (&Method::GET | &Method::HEAD, "/readyz") => readiness(ask(&socket).await),
        (&Method::GET | &Method::HEAD, "/metrics") => return Ok(metrics(&socket).await),
        _ => (StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics".to_owned()),
    };
    Ok(said(status, text))
}

fn said(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text + "\n")));
    *response.status_mut() = status;
    response
}

/// What the daemon's loop counted. A daemon that counts nothing says so.
async fn metrics(socket: &std::path::Path) -> Response<Full<Bytes>> {
    match ask_for(socket, "metrics").await {
        Err(why) => said(StatusCode::SERVICE_UNAVAILABLE, why),
        Ok(answer) => match answer.get("text").and_then(Value::as_str) {
            None => said(StatusCode::NOT_FOUND, "this daemon has no metrics".to_owned()),
            Some(text) => {
                let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
                let kind = HeaderValue::from_static(OPEN_METRICS);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
        },
    }
}

async fn ask(socket: &std::path::Path) -> Result<Value, String> {
    ask_for(socket, "status").await
}

async fn ask_for(socket: &std::path::Path, verb: &str) -> Result<Value, String> {
    let answer = control::ask(socket, &json!({"verb": verb}), PATIENCE).await;
    answer.map_err(|error| format!("the loop does not answer on {}: {error}", socket.display()))
}

fn readiness(status: Result<Value, String>) -> (StatusCode, String) {
    match status {
        Ok(status) if status.get("inSync") == Some(&Value::Bool(true)) => (StatusCode::OK, "ok".to_owned()),
        Ok(_) => {
            let text =
                "not every kind was heard from the datastore yet; the log says which one does not answer";
            (StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
        }
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_who_heard_everything_once() {
        assert_eq!(readiness(Ok(json!({"inSync": true}))).0, StatusCode::OK);
        assert_eq!(readiness(Ok(json!({"inSync": false}))).0, StatusCode::SERVICE_UNAVAILABLE);
        let (status, text) = readiness(Err("the loop does not answer".to_owned()));
        assert_eq!((status, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "the loop does not answer"));
    }
}
