use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream as Far};

use tokio::net::TcpListener;

use super::*;

/// A connection that came in, and its other end.
async fn comes_in(listener: &TcpListener, net: &mut Net) -> (ConnId, Far) {
    let far = Far::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (net.adopt(stream).unwrap().0, far)
}

/// What the other end reads until ours is closed.
fn heard(mut far: &Far) -> Vec<u8> {
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).unwrap();
    heard
}

#[tokio::test]
async fn strangers_take_no_place_of_a_session_that_ends() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (mut net, _events) = Net::new();
    let mut strangers = Vec::new();
    for _ in 0..REFUSED {
        let (conn, far) = comes_in(&listener, &mut net).await;
        strangers.push((net.refuse(conn, b"go".to_vec()).unwrap(), far));
    }
    // One more is told why, and is not waited for.
    let (conn, far) = comes_in(&listener, &mut net).await;
    net.refuse(conn, b"go".to_vec()).unwrap().await.unwrap();
    assert_eq!(heard(&far), b"go");
    let (conn, far) = comes_in(&listener, &mut net).await;
    let ended = net.close(conn, b"Cease".to_vec()).unwrap();
    // Its words are written and its end is said, and ours waits for theirs.
    tokio::task::yield_now().await;
    assert_eq!(heard(&far), b"Cease");
    assert!(!ended.is_finished());
    assert!(strangers.iter().any(|(farewell, _)| !farewell.is_finished()), "their places are taken");
    let began = Instant::now();
    drop(far);
    ended.await.unwrap();
    assert!(began.elapsed() < LINGER, "it ended with the far end's FIN");
}
