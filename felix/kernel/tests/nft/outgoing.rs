//! `natOutgoing` as the policy compiler makes it, with real packets: who the other end sees.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use felix_calc::compile::Compiler as _;
use felix_calc::compile::sets::SetsCompiler;
use felix_calc::model::{NodeSettings, NodeState};
use felix_calc::nat::OutgoingNat;
use felix_calc::table::Table;
use felix_kernel::nft::PolicyTable;
use ipnet::IpNet;

use crate::packets::{Path, bound};
use crate::table::put;

const POOLS: [&str; 2] = ["10.9.1.0/24", "fd09:1::/64"];

/// The path's client is a pod of both pools, its server stands outside.
fn hidden(change: impl FnOnce(&mut OutgoingNat)) -> Table {
    let pools = POOLS.map(|pool| pool.parse::<IpNet>().unwrap());
    let mut state = NodeState::new(NodeSettings::default());
    state.nat = OutgoingNat {
        pools: pools.into(),
        nodes: ["10.9.2.1", "fd09:2::1"].map(|node| node.parse().unwrap()).into(),
        masquerade: pools.map(|pool| (pool, [].into())).into(),
    };
    change(&mut state.nat);
    SetsCompiler::default().compile(&state).table
}

/// The address and port under which a datagram from the client reaches the server, of both families.
fn seen(path: &Path, port: u16) -> [IpAddr; 2] {
    ["10.9.2.2", "fd09:2::2"].map(|server| {
        let server: IpAddr = server.parse().unwrap();
        let socket = path.server.run(|| bound(|| UdpSocket::bind((server, port))));
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = path.client.run(|| UdpSocket::bind(any).unwrap());
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        client.send_to(b"ping", (server, port)).unwrap();
        let (_, from) = socket.recv_from(&mut [0; 16]).expect("the datagram reaches the server");
        socket.send_to(b"pong", from).unwrap();
        client.recv_from(&mut [0; 16]).expect("the answer finds its way back");
        from.ip()
    })
}

fn addresses(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap())
}

#[test]
fn outside_sees_the_node_and_the_cluster_sees_the_pod() {
    let path = Path::new();
    let mut kernel = path.node.run(|| PolicyTable::open().unwrap());
    let (node, pod) = (addresses(["10.9.2.1", "fd09:2::1"]), addresses(["10.9.1.2", "fd09:1::2"]));
    let mut before = Table::default();
    let mut port = 6000;
    let mut become_table = |after: Table| {
        put(&mut kernel, &before, &after).unwrap();
        assert_eq!(kernel.read().unwrap().table, after);
        before = after;
        port += 1;
        port
    };
    let port = become_table(hidden(|_| ()));
    assert_eq!(seen(&path, port), node);
    let other_pools = |nat: &mut OutgoingNat| {
        nat.pools.extend(["10.9.2.0/28", "fd09:2::/96"].map(|pool| pool.parse::<IpNet>().unwrap()));
    };
    let port = become_table(hidden(other_pools));
    assert_eq!(seen(&path, port), pod, "a pool is not outside");
    let other_nodes = |nat: &mut OutgoingNat| {
        nat.nodes.extend(addresses(["10.9.2.2", "fd09:2::2"]));
    };
    let port = become_table(hidden(other_nodes));
    assert_eq!(seen(&path, port), pod, "a node is not outside");
    let excluded = |nat: &mut OutgoingNat| {
        for nets in nat.masquerade.values_mut() {
            nets.extend(["10.9.0.0/16", "fd09:2::/64"].map(|net| net.parse::<IpNet>().unwrap()));
        }
    };
    let port = become_table(hidden(excluded));
    assert_eq!(seen(&path, port), pod, "natExclude");
    let port = become_table(hidden(|nat| nat.masquerade.clear()));
    assert_eq!(seen(&path, port), pod, "natOutgoing None");
    let port = become_table(hidden(|_| ()));
    assert_eq!(seen(&path, port), node, "natOutgoing again");
}

/// As kube-proxy has it, in the form of its nftables mode and in that of iptables: chains at the same priority.
#[test]
fn chains_of_others_translate_what_ours_leaves_alone() {
    let foreign = |family: &str, address: &str, to: &str| {
        format!(
            "nft 'table {family} other {{ chain postrouting {{ type nat hook postrouting priority srcnat; \
             udp dport 7001 snat to {to}; }}; }}' && nft list table {family} other | grep -q {address}"
        )
    };
    for ours_first in [true, false] {
        let path = Path::new();
        path.node.sh("ip addr add 10.9.2.9/24 dev e2; ip addr add fd09:2::9/64 dev e2 nodad");
        let mut kernel = path.node.run(|| PolicyTable::open().unwrap());
        let theirs =
            [foreign("ip", "10.9.2.9", "10.9.2.9"), foreign("ip6", "fd09:2::9", "fd09:2::9")].join("; ");
        if !ours_first {
            path.node.sh(&theirs);
        }
        // To the server ours decides nothing: it stands in a pool.
        let inside = hidden(|nat| {
            nat.pools.extend(["10.9.2.2/32", "fd09:2::2/128"].map(|pool| pool.parse::<IpNet>().unwrap()));
        });
        put(&mut kernel, &Table::default(), &inside).unwrap();
        if ours_first {
            path.node.sh(&theirs);
        }
        for (address, ifname) in [("10.9.2.2", "e2"), ("fd09:2::2", "e2")] {
            path.node.sh(&format!("ip neigh replace {address} lladdr 02:00:00:00:02:02 dev {ifname}"));
        }
        path.server.sh("ip neigh replace 10.9.2.9 lladdr 02:00:00:00:02:01 dev e2; \
             ip neigh replace fd09:2::9 lladdr 02:00:00:00:02:01 dev e2");
        let what = format!("ours first: {ours_first}");
        assert_eq!(seen(&path, 7001), addresses(["10.9.2.9", "fd09:2::9"]), "{what}");
        assert_eq!(seen(&path, 7002), addresses(["10.9.1.2", "fd09:1::2"]), "{what}");
    }
}
