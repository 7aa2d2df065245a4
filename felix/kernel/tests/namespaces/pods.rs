//! A pod is wired through the descriptors that manx-cni passes, and only through those.

use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use felix_calc::host::{POD_GATEWAY_V4, POD_GATEWAY_V6, ROUTE_PROTOCOL_LOCAL};
use felix_kernel::descriptor::{
    DescriptorError, PodNamespace, check_pod_descriptors, peer_uid, receive_with_descriptors,
    send_with_descriptors,
};
use felix_kernel::link::{self, MacAddress, Veth};
use felix_kernel::netlink::RouteSocket;
use felix_kernel::route::{self, NextHop, Route};
use felix_kernel::{addr, neigh};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::namespace::Namespace;

fn route_socket(inside: &Namespace, protocol: SockProtocol) -> OwnedFd {
    inside.run(|| socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap())
}

/// What manx-cni passes for `pod`, as felix receives it.
pub(crate) fn pass_descriptors(pod: &Namespace) -> Vec<OwnedFd> {
    let (shim, felix) = UnixStream::pair().unwrap();
    assert_eq!(peer_uid(&felix).unwrap(), nix::unistd::geteuid().as_raw());
    let netlink = route_socket(pod, SockProtocol::NetlinkRoute);
    assert_eq!(send_with_descriptors(&shim, b"ADD", &[pod.fd(), netlink.as_fd()]).unwrap(), 3);
    let mut buffer = [0; 16];
    let (length, descriptors) = receive_with_descriptors(&felix, &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"ADD");
    descriptors
}

/// Wires a pod with one address of each family, as felix does. The index of the host's end.
pub(crate) fn wire_pod(host: &RouteSocket, pod: &PodNamespace, addresses: [IpAddr; 2]) -> u32 {
    let (host_mac, pod_mac) = (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2]));
    let veth = Veth {
        host_name: "manx0123456789a",
        host_mac,
        pod_name: "eth0",
        pod_mac,
        mtu: 1500,
        namespace: pod.namespace.as_fd(),
    };
    let index = link::create_veth(host, &veth).unwrap();
    link::secure_host_end(host, index).unwrap();
    link::set_up(host, index).unwrap();
    let inside = &pod.socket;
    let eth0 = link::by_name(inside, "eth0").unwrap().unwrap().index;
    link::set_up(inside, eth0).unwrap();
    assert!(link::settle(host, index).unwrap().is_usable());
    let gateways: [IpAddr; 2] = [POD_GATEWAY_V4.into(), POD_GATEWAY_V6.into()];
    for (address, gateway) in addresses.into_iter().zip(gateways) {
        addr::add(inside, eth0, address.into()).unwrap();
        neigh::set_permanent(inside, eth0, gateway, host_mac).unwrap();
        let default = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }.parse().unwrap();
        if address.is_ipv4() {
            route::replace(inside, Route::connected(gateway.into(), 0, eth0), 0).unwrap();
        }
        route::replace(inside, Route::unicast(default, 0, [NextHop::via_on(gateway, eth0)]), 0).unwrap();
        neigh::set_permanent(host, index, address, pod_mac).unwrap();
        route::replace(host, Route::connected(address.into(), 0, index), ROUTE_PROTOCOL_LOCAL).unwrap();
    }
    for address in addresses {
        assert!(addr::settle(inside, address).unwrap());
    }
    index
}

/// The node sends to the pod and is answered, in both families.
pub(crate) fn assert_reaches(host: &Namespace, pod: &Namespace, addresses: [IpAddr; 2]) {
    for address in addresses {
        let server = pod.run(|| UdpSocket::bind((address, 0)).unwrap());
        let client =
            host.run(|| UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap());
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        }
        let mut buffer = [0; 16];
        client.send_to(b"ping", server.local_addr().unwrap()).unwrap();
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"pong", from).unwrap();
        let (length, _) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"pong", "{address}");
    }
}

pub(crate) fn addresses() -> [IpAddr; 2] {
    ["10.244.0.5".parse().unwrap(), "fd00:244::5".parse().unwrap()]
}

/// The node has an address of its own, as every node does.
pub(crate) fn node() -> Namespace {
    let host = Namespace::new();
    host.sh("ip address add 192.0.2.1/32 dev lo; ip -6 address add 2001:db8::1/128 dev lo");
    host
}

#[test]
fn a_pod_is_wired_through_the_passed_socket_and_answers() {
    let (host, pod) = (node(), Namespace::new());
    let socket = host.socket();
    let checked = host.run(|| check_pod_descriptors(pass_descriptors(&pod)).unwrap());
    wire_pod(&socket, &checked, addresses());

    let eth0 = &pod.ip("address show dev eth0")[0];
    let held: Vec<&str> =
        eth0["addr_info"].as_array().unwrap().iter().filter_map(|a| a["local"].as_str()).collect();
    assert!(held.contains(&"10.244.0.5") && held.contains(&"fd00:244::5"), "{held:?}");
    let default = &pod.ip("route show default")[0];
    assert_eq!((&default["gateway"], &default["dev"]), (&"169.254.1.1".into(), &"eth0".into()));
    assert_eq!(pod.ip("-6 route show default")[0]["gateway"], "fe80::1");
    for neighbour in pod.ip("neigh show dev eth0").iter().chain(&host.ip("neigh show dev manx0123456789a")) {
        assert_eq!(neighbour["state"][0], "PERMANENT", "{neighbour}");
    }
    assert_reaches(&host, &pod, addresses());

    assert!(!addr::settle(&socket, addresses()[0]).unwrap(), "a pod's address is not the host's");

    // Once more is no error: every step may be repeated after a lost answer.
    let eth0 = link::by_name(&checked.socket, "eth0").unwrap().unwrap().index;
    for address in addresses() {
        addr::add(&checked.socket, eth0, address.into()).unwrap();
        addr::delete(&checked.socket, eth0, address.into()).unwrap();
        addr::delete(&checked.socket, eth0, address.into()).unwrap();
        neigh::delete(&checked.socket, eth0, address).unwrap();
    }
    assert!(
        addr::list(&checked.socket).unwrap().iter().all(|held| !addresses().contains(&held.address.addr()))
    );
}

#[test]
fn descriptors_that_are_not_a_pods_are_refused() {
    let (host, pod, other) = (Namespace::new(), Namespace::new(), Namespace::new());
    let namespace = |of: &Namespace| of.fd().try_clone_to_owned().unwrap();
    let file = || OwnedFd::from(std::fs::File::open("/proc/self/status").unwrap());
    let refuse = |descriptors: Vec<OwnedFd>| host.run(|| check_pod_descriptors(descriptors).unwrap_err());
    let netlink = |of| route_socket(of, SockProtocol::NetlinkRoute);
    let utsname = OwnedFd::from(std::fs::File::open("/proc/self/ns/uts").unwrap());

    assert!(matches!(refuse(vec![namespace(&pod)]), DescriptorError::Count(1)));
    assert!(matches!(refuse(vec![file(), netlink(&pod)]), DescriptorError::NotNetworkNamespace));
    assert!(matches!(refuse(vec![utsname, netlink(&pod)]), DescriptorError::NotNetworkNamespace));
    assert!(matches!(refuse(vec![namespace(&host), netlink(&host)]), DescriptorError::OwnNamespace));
    assert!(matches!(refuse(vec![namespace(&pod), file()]), DescriptorError::NotRouteSocket));
    let netfilter = route_socket(&pod, SockProtocol::NetlinkNetFilter);
    assert!(matches!(refuse(vec![namespace(&pod), netfilter]), DescriptorError::NotRouteSocket));
    assert!(matches!(refuse(vec![namespace(&pod), netlink(&host)]), DescriptorError::OtherNamespace));
    assert!(matches!(refuse(vec![namespace(&pod), netlink(&other)]), DescriptorError::OtherNamespace));
    assert!(host.run(|| check_pod_descriptors(vec![namespace(&pod), netlink(&pod)])).is_ok());
}

#[test]
fn too_many_descriptors_are_an_error_and_none_is_also_a_message() {
    let (shim, felix) = UnixStream::pair().unwrap();
    let files: Vec<_> = (0..5).map(|_| std::fs::File::open("/proc/self/status").unwrap()).collect();
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    send_with_descriptors(&shim, b"x", &fds).unwrap();
    let mut buffer = [0; 8];
    let error = receive_with_descriptors(&felix, &mut buffer).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);

    (&shim).write_all(b"plain").unwrap();
    let (length, descriptors) = receive_with_descriptors(&felix, &mut buffer).unwrap();
    assert_eq!((length, descriptors.len()), (5, 0));
    drop(shim);
    assert_eq!(receive_with_descriptors(&felix, &mut buffer).unwrap().0, 0, "closed");
}
