//! Network namespaces for tests: each lives as long as a descriptor or a thread of it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::thread;

use felix_kernel::link::{self, MacAddress, Veth};
use felix_kernel::netlink::RouteSocket;
use felix_kernel::{addr, neigh};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

/// A network namespace with its loopback up.
#[derive(Debug)]
pub(crate) struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let fd = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; needs root or `unshare -Urn`");
            let socket = RouteSocket::open().unwrap();
            let lo = link::by_name(&socket, "lo").unwrap().unwrap();
            link::set_up(&socket, lo.index).unwrap();
            OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
        });
        Self { fd: fd.join().unwrap() }
    }

    /// That of a running process. (Not every test program that shares this file asks.)
    #[allow(dead_code)]
    pub(crate) fn of_process(pid: u32) -> Self {
        Self { fd: OwnedFd::from(File::open(format!("/proc/{pid}/ns/net")).unwrap()) }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Runs `work` on a thread inside, and takes its panic as this thread's.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(crate) fn socket(&self) -> RouteSocket {
        self.run(|| RouteSocket::open().unwrap())
    }

    /// `ip -j …` inside: the independent reader.
    pub(crate) fn ip(&self, arguments: &str) -> Vec<Value> {
        let text = self.sh(&format!("ip -j {arguments}"));
        serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).unwrap()
    }

    /// Runs a shell command inside; it must succeed.
    pub(crate) fn sh(&self, command: &str) -> String {
        let output = self.run(|| Command::new("sh").args(["-ec", command]).output().unwrap());
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A veth pair `e<n>` between two namespaces, up, with the addresses of subnet `n`, and neighbours known for good:
/// here 10.9.n.1 and fd09:n::1, there .2 and ::2. The index of the end here.
pub(crate) fn connect(here: &Namespace, there: &Namespace, n: u8) -> u32 {
    let (near, far) = (here.socket(), there.socket());
    let name = format!("e{n}");
    let [near_mac, far_mac] = [1, 2].map(|host| MacAddress([2, 0, 0, 0, n, host]));
    let veth = Veth {
        host_name: &name,
        host_mac: near_mac,
        pod_name: &name,
        pod_mac: far_mac,
        mtu: 1500,
        namespace: there.fd(),
    };
    let near_index = link::create_veth(&near, &veth).unwrap();
    let far_index = link::by_name(&far, &name).unwrap().unwrap().index;
    for (socket, index, own, peer, peer_mac) in
        [(&near, near_index, 1, 2, far_mac), (&far, far_index, 2, 1, near_mac)]
    {
        addr::add(socket, index, format!("10.9.{n}.{own}/24").parse().unwrap()).unwrap();
        addr::add(socket, index, format!("fd09:{n}::{own}/64").parse().unwrap()).unwrap();
        link::set_up(socket, index).unwrap();
        for address in [format!("10.9.{n}.{peer}"), format!("fd09:{n}::{peer}")] {
            neigh::set_permanent(socket, index, address.parse().unwrap(), peer_mac).unwrap();
        }
    }
    for (socket, index) in [(&near, near_index), (&far, far_index)] {
        assert!(link::settle(socket, index).unwrap().is_usable());
    }
    for (socket, host) in [(&near, 1), (&far, 2)] {
        for address in [format!("10.9.{n}.{host}"), format!("fd09:{n}::{host}")] {
            assert!(addr::settle(socket, address.parse().unwrap()).unwrap());
        }
    }
    near_index
}
