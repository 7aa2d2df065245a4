//! `/livez` and `/readyz` of the controller turn red and green with its loop, not with its process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use manx_controller::leadership::LOCK;
use manx_controller::{Leadership, Settings};
use manx_crds::store::dir::DirStore;
use manx_daemon::secrets::NAMESPACE;
use nix::fcntl::{Flock, FlockArg};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn probe(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.trim().to_owned())
}

async fn until(address: SocketAddr, path: &str, code: u16) -> String {
    for _ in 0..200 {
        let (got, text) = probe(address, path).await;
        if got == code {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} never answers {code}: {:?}", probe(address, path).await);
}

/// The loop on one thread that the test can hold up; probes and the control socket on others, as they are in the binary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_green_while_the_loop_turns_and_red_while_it_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("controller.sock");
    let questions = manx_daemon::control::listen(&socket).unwrap();
    let address = manx_daemon::health::serve("127.0.0.1:0".parse().unwrap(), socket).await.unwrap();
    let store = directory.path().join("store");
    std::fs::create_dir(&store).unwrap();
    // Another leads at first.
    let lock = std::fs::File::create(store.join(LOCK)).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    let (hold, held) = mpsc::channel::<mpsc::Receiver<()>>();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let looping = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(async move {
                loop {
                    if let Ok(release) = held.try_recv() {
                        // Nothing else runs on this thread meanwhile.
                        release.recv().unwrap();
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
            let settings = Settings {
                identity: "a".to_owned(),
                directory: true,
                secrets_namespace: NAMESPACE.to_owned(),
                report: Some(questions),
            };
            let leadership = Leadership::Lock(store.join(LOCK));
            let end = async move { stopped.await.unwrap() };
            manx_controller::run(DirStore::open(&store).unwrap(), leadership, settings, end).await
        })
    });
    let red_then_green = async || {
        let (release, released) = mpsc::channel();
        hold.send(released).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        for path in ["/livez", "/readyz"] {
            let (code, text) = probe(address, path).await;
            assert_eq!(code, 503, "{path}: {text}");
            assert!(text.starts_with("the loop does not answer on"), "{text}");
        }
        release.send(()).unwrap();
        assert_eq!(until(address, "/livez", 200).await, "ok");
    };
    // Waiting for leadership.
    assert_eq!(until(address, "/readyz", 200).await, "ok");
    red_then_green().await;
    drop(lock);
    // Leading, with every kind heard.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(until(address, "/readyz", 200).await, "ok");
    red_then_green().await;
    // Ended.
    stop.send(()).unwrap();
    looping.join().unwrap().unwrap();
    assert_eq!(probe(address, "/livez").await.0, 503);
}
