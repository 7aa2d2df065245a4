//! The agents run as uid 0 with all but a few capabilities dropped: everything must work so.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use felix_calc::host::{METRIC_LEARNED, ROUTE_PROTOCOL_BGP};
use felix_kernel::capability::{self, CapabilityError};
use felix_kernel::descriptor::check_pod_descriptors;
use felix_kernel::monitor::{Monitor, OwnRoutes, Removals};
use felix_kernel::netlink::RouteSocket;
use felix_kernel::route::{NextHop, Route, RouteTable};
use felix_kernel::sysctl::{self, Record, Sysctl};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use crate::namespace::{Namespace, connect};
use crate::pods;

/// Gives up everything but `keep` on this thread, for good, and proves it.
fn confine(keep: &[capability::Capability], elsewhere: &OwnedFd) {
    capability::keep_only(keep).unwrap();
    let mask: u64 = keep.iter().map(|capability| capability.bitmask()).sum();
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    assert_eq!((field("CapEff"), field("CapPrm"), field("CapBnd")), (mask, mask, mask));
    assert!(nix::unistd::geteuid().is_root());
    assert_eq!(setns(elsewhere.as_fd(), CloneFlags::CLONE_NEWNET), Err(Errno::EPERM));
}

#[test]
fn felix_wires_a_pod_with_two_capabilities() {
    let (host, pod) = (pods::node(), Namespace::new());
    let descriptors = pods::pass_descriptors(&pod);
    let elsewhere = pod.fd().try_clone_to_owned().unwrap();
    host.run(|| {
        confine(capability::FELIX, &elsewhere);
        let socket = RouteSocket::open().unwrap();
        let checked = check_pod_descriptors(descriptors).unwrap();
        pods::wire_pod(&socket, &checked, pods::addresses());
        let mut record = Record::new();
        let sysctl = Sysctl::default();
        let settings = [sysctl::host_settings(&[]), sysctl::host_end("manx0123456789a")].concat();
        let problems = sysctl.apply(&settings, &mut record);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(sysctl.read("net/ipv6/conf/manx0123456789a/accept_ra").unwrap(), "0");
    });
    pods::assert_reaches(&host, &pod, pods::addresses());
}

#[test]
fn bgpd_writes_routes_and_hears_events_with_two_capabilities() {
    let (host, peer) = (Namespace::new(), Namespace::new());
    connect(&host, &peer, 1);
    let elsewhere = peer.fd().try_clone_to_owned().unwrap();
    host.run(|| {
        confine(capability::BGPD, &elsewhere);
        let socket = RouteSocket::open().unwrap();
        let mut table = RouteTable::new(ROUTE_PROTOCOL_BGP);
        table.adopt(&socket).unwrap();
        let hop = NextHop::via("10.9.1.2".parse().unwrap());
        table.set(Route::unicast("10.20.0.0/24".parse().unwrap(), METRIC_LEARNED, [hop])).unwrap();
        assert_eq!(table.apply(&socket, Instant::now()).unwrap().pending, 0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let monitor = Monitor::start(&[OwnRoutes::new(ROUTE_PROTOCOL_BGP, Removals::Told)]).unwrap();
            assert!(monitor.facts().resolve("10.9.1.2".parse().unwrap(), None).is_some());
        });
        felix_kernel::socket::listen("0.0.0.0:179".parse().unwrap()).unwrap();
    });
    assert_eq!(host.ip("route show proto 77").len(), 1);
}

#[test]
fn a_missing_capability_is_named_with_what_there_is() {
    Namespace::new().run(|| {
        capability::keep_only(&[capability::Capability::CAP_NET_RAW]).unwrap();
        let Err(CapabilityError::Missing(missing)) = capability::check(capability::FELIX) else {
            panic!("NET_ADMIN is gone")
        };
        assert_eq!(missing.to_string(), "CAP_NET_ADMIN is missing");
        assert_eq!(missing.place(), "effective capabilities 0x2000 (NET_RAW)");
        assert_eq!(missing.expected(), "NET_ADMIN and NET_RAW, nothing more");
        let denied = RouteTable::new(ROUTE_PROTOCOL_BGP);
        let socket = RouteSocket::open().unwrap();
        let mut table = denied;
        table.set(Route::blackhole("10.0.0.0/8".parse().unwrap(), METRIC_LEARNED)).unwrap();
        let applied = table.apply(&socket, Instant::now()).unwrap();
        assert_eq!(applied.refused[0].2.errno, libc::EPERM);
    });
}
