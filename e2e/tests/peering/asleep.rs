//! A bgpd that did not run for longer than its hold time: who spoke meanwhile is not silent.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use e2e::bench::session::{Identity, Session};
use e2e::lab::{Lab, link};
use e2e::netns::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{mpsc, oneshot};

use crate::node::Node;

const BGPD: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PEER: Identity =
    Identity { address: Ipv4Addr::new(10, 9, 0, 1), asn: 65_001, hold: 3, restart_time: None };
/// Longer than the hold time, and what a machine out of memory or a live migration takes.
const ASLEEP: Duration = Duration::from_secs(5);

/// A peer that says a keepalive every second, or nothing at all, until the sender is dropped.
fn peer(netns: &Netns, speaks: bool) -> (oneshot::Sender<()>, thread::JoinHandle<Result<()>>) {
    let (end, ended) = oneshot::channel::<()>();
    let worker = netns.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let session = Session::dial_until(PEER, BGPD, Duration::from_secs(20)).await?;
            let (_nothing_to_tell, streams) = mpsc::channel(1);
            if speaks {
                tokio::select! { fed = session.feed(streams) => fed, _ = ended => Ok(()) }
            } else {
                // The session is held, and its socket with it.
                drop(ended.await);
                drop(session);
                Ok(())
            }
        })
    });
    (end, worker.unwrap())
}

fn sleeps(node: &Node, meanwhile: impl FnOnce()) {
    let pid = Pid::from_raw(i32::try_from(node.pid().unwrap()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    meanwhile();
    thread::sleep(ASLEEP);
    kill(pid, Signal::SIGCONT).unwrap();
}

#[test]
fn a_daemon_that_was_asleep_takes_nobody_for_silent_who_spoke() {
    let mut lab = Lab::new("asleep").unwrap();
    let [n1, router] = ["n1", "peer"].map(|name| lab.space(name).unwrap());
    link((&n1, "eth0", &["10.9.0.2/24"]), (&router, "eth0", &["10.9.0.1/24"])).unwrap();
    let mut node = Node::new("n1", &n1, lab.directory(), &["10.9.0.2"], 4_200_000_001);
    node.peer("tor", "address: 10.9.0.1, asn: 65001");
    node.start();

    let (end, worker) = peer(&router, true);
    node.await_that("up with one that speaks", |node| node.is_up("tor"));
    for _ in 0..3 {
        sleeps(&node, || {});
        // A hold time on: what waited was read, and more came.
        thread::sleep(Duration::from_secs(4));
        assert!(node.is_up("tor"), "{}", node.said());
        assert!(!node.said().contains("HoldTimerExpired"), "{}", node.said());
    }
    // Nor who ended the session in order, which keeps its routes where graceful restart was agreed.
    sleeps(&node, || {
        drop(end);
        worker.join().unwrap().unwrap();
    });
    node.await_that("ended by the peer", |node| !node.is_up("tor"));
    assert!(!node.said().contains("HoldTimerExpired"), "{}", node.said());

    let (end, worker) = peer(&router, false);
    node.await_that("up with one that says nothing more", |node| node.is_up("tor"));
    sleeps(&node, || {});
    node.await_that("silent after all", |node| node.said().contains("HoldTimerExpired"));
    drop(end);
    worker.join().unwrap().unwrap();
}
