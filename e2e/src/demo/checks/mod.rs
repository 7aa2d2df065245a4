//! The checks of the demo, in the order of the table.

mod bad_input;
mod cni;
mod crash;
mod policy;
mod reach;
mod routes;
mod uplink;

use super::check::Check;

/// What one action told for the sake of several checks, and what later checks compare with.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    bgpd_crash: Option<crash::BgpdCrash>,
    felix_crash: Option<crash::FelixCrash>,
    cni: Option<cni::Run>,
    before_bad_input: Option<bad_input::Snapshot>,
}

/// All checks.
pub(crate) const ALL: [Check; 26] = [
    Check {
        id: "1.1",
        title: "sessions Established, by FRR and by manxctl",
        expected: "6 sessions, both families each, within 20s, in `show bgp summary` and in `manxctl bgp peers`",
        run: routes::sessions,
    },
    Check {
        id: "1.2",
        title: "each ToR holds every block, next hop the owner",
        expected: "on both ToRs, in BGP and in the kernel: every IPBlock over its owner's own link, AS path its ASN",
        run: routes::blocks_on_routers,
    },
    Check {
        id: "1.3",
        title: "each node holds every foreign block over both",
        expected: "in every node's kernel: every IPBlock of the other nodes, one next hop by each ToR",
        run: routes::blocks_on_nodes,
    },
    Check {
        id: "2.1",
        title: "pod to pod, same node, source address kept",
        expected: "udp and tcp answered in both families, the server saw the pod's own address",
        run: reach::same_node,
    },
    Check {
        id: "2.2",
        title: "pod to pod, across nodes, source address kept",
        expected: "udp and tcp answered in both families, the server saw the pod's own address",
        run: reach::across_nodes,
    },
    Check {
        id: "2.3",
        title: "client to pod, source address kept",
        expected: "udp and tcp answered in both families, the pod saw 198.51.100.10 or fd00:c::10",
        run: reach::client,
    },
    Check {
        id: "2.4",
        title: "node to its pods",
        expected: "udp and tcp answered in both families, the pod saw an address of its node",
        run: reach::node_to_pods,
    },
    Check {
        id: "3.1",
        title: "without policy everything reaches shop/db",
        expected: "five pods and the client get an answer of shop/db-1, both families",
        run: policy::open,
    },
    Check {
        id: "3.2",
        title: "shop/db-from-api refuses",
        expected: "within 5s of the file: no answer, udp or tcp, to the four other pods and the client",
        run: policy::refuses,
    },
    Check {
        id: "3.3",
        title: "shop/db-from-api lets through",
        expected: "shop/api-1 gets an answer of shop/db-1 in both families while the others get none",
        run: policy::lets_through,
    },
    Check {
        id: "3.4",
        title: "policy deleted: open again",
        expected: "within 5s of the file's removal everything reaches shop/db-1 again",
        run: policy::open_again,
    },
    Check {
        id: "3.5",
        title: "a policy change cuts an established flow",
        expected: "within 5s of the change web-1's open connection to db-1 is silent; 5 other flows lose nothing",
        run: policy::cuts,
    },
    Check {
        id: "4.1",
        title: "ADD; policy in the kernel before it returns",
        expected: "100 ADDs; of two packets sent at once after each, the refused source's first, only the allowed one's arrives",
        run: cni::add,
    },
    Check {
        id: "4.2",
        title: "DEL frees the address",
        expected: "100 DELs; within 5s no IPBlock, interface or route holds any of the 100 pods",
        run: cni::del,
    },
    Check {
        id: "5.1",
        title: "kill -9 bgpd on n1, 1,000 packets/s",
        expected: "0 packets lost to and from a pod of n1, over 16 flows, while bgpd is dead and while it starts",
        run: crash::bgpd_loss,
    },
    Check {
        id: "5.2",
        title: "its routes kept and adopted",
        expected: "the same routes before, while and after; none deleted in between; both sessions again within 20s",
        run: crash::bgpd_routes,
    },
    Check {
        id: "5.3",
        title: "kill -9 felix on n1, 1,000 packets/s",
        expected: "0 packets lost to and from a pod of n1, over 16 flows, while felix is dead and while it starts",
        run: crash::felix_loss,
    },
    Check {
        id: "5.4",
        title: "its pods, rules and addresses adopted",
        expected: "the same interfaces, routes and rules before, while and after; a new pod gets an address of its own",
        run: crash::felix_adopts,
    },
    Check {
        id: "6.1",
        title: "one uplink of n1 is cut: traffic again",
        expected: "an answer on each of 16 flows within 1s of `ip link set eth0 down` in n1",
        run: uplink::cut,
    },
    Check {
        id: "6.2",
        title: "uplink back: ECMP again",
        expected: "within 20s of `ip link set eth0 up` two next hops again on n1 and towards it; both uplinks carry",
        run: uplink::back,
    },
    Check {
        id: "7.1",
        title: "bad input: BGPPeer with a wrong AS",
        expected: "BadPeerAS for wrong-as in `manxctl bgp peers` and in bgpd's log within 15s",
        run: bad_input::wrong_as,
    },
    Check {
        id: "7.2",
        title: "bad input: a file that is no YAML",
        expected: "default-ipv4.yaml:3 in the logs and in `manxctl status`; the last good one serves an ADD",
        run: bad_input::no_yaml,
    },
    Check {
        id: "7.3",
        title: "bad input: NetworkPolicy with a bad CIDR",
        expected: "an Event PolicyRejected on jobs/bad-cidr; the pod it selects is isolated, no other is",
        run: bad_input::bad_cidr,
    },
    Check {
        id: "7.4",
        title: "bad input: 4 KiB of garbage on port 179",
        expected: "the connection is closed within 5s, one log line names 198.51.100.10; from a ToR's own address too",
        run: bad_input::garbage,
    },
    Check {
        id: "7.5",
        title: "bad input: malformed CNI config",
        expected: "CNI error code 6 on stdout that names line and column, exit code not 0",
        run: bad_input::cni_config,
    },
    Check {
        id: "7.6",
        title: "sessions, routes, rules as before 7.1",
        expected: "no session was reset, every node's routes and table inet manx are as they were",
        run: bad_input::nothing_else,
    },
];

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn ids_ascend_and_titles_fit_their_column() {
        assert!(ALL.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert!(ALL.iter().all(|check| check.title.len() <= 49));
    }
}
