//! Probes turn red and green again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use manx_daemon::{control, health};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What a daemon's loop does.
#[derive(Clone, Copy, PartialEq)]
enum Loop {
    Starting,
    InSync,
    Stuck,
}

async fn probe(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_say_what_the_loop_does() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("d.sock");
    let mut questions = control::listen(&socket).unwrap();
    let (state, mut watched) = watch::channel(Loop::Starting);
    tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            watched.wait_for(|state| *state != Loop::Stuck).await.unwrap();
            let in_sync = *watched.borrow() == Loop::InSync;
            match question.verb() {
                "metrics" => question.answer(&json!({"text": "# EOF\n"})),
                _ => question.answer(&json!({"inSync": in_sync})),
            }
        }
    });
    let address = health::serve("127.0.0.1:0".parse().unwrap(), socket.clone()).await.unwrap();

    assert_eq!(probe(address, "/livez").await, (200, "ok".to_owned()));
    let (code, text) = probe(address, "/readyz").await;
    assert!(code == 503 && text.contains("not every kind was heard"), "{code} {text}");
    state.send(Loop::InSync).unwrap();
    assert_eq!(probe(address, "/readyz").await, (200, "ok".to_owned()));

    state.send(Loop::Stuck).unwrap();
    for path in ["/livez", "/readyz"] {
        let (code, text) = probe(address, path).await;
        assert!(code == 503 && text.contains("the loop does not answer"), "{path}: {code} {text}");
    }
    state.send(Loop::InSync).unwrap();
    for path in ["/livez", "/readyz"] {
        assert_eq!(probe(address, path).await, (200, "ok".to_owned()), "{path}");
    }
    assert_eq!(probe(address, "/metrics").await, (200, "# EOF".to_owned()));
    assert_eq!(probe(address, "/").await.0, 404);
    let taken = health::serve(address, socket).await.unwrap_err();
    assert!(taken.to_string().contains(&format!("--health-address {address}")), "{taken}");
}
