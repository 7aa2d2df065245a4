//! The fabric of the demo: two ToR routers, a client behind both, three nodes on both.
//!
//! One point-to-point link a node and router. Every link of a router carries the same address of the router
//! (`10.0.1.1 peer 10.0.1.11/32`), so two BGPPeers serve all nodes, as two racks' ToRs with one address do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::frr;
use crate::netns::{self, Netns};
use crate::process::wait_for;

/// The client's addresses, on its loopback.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xc, 0, 0, 0, 0, 0, 0x10);
/// The client's own AS; it announces its two addresses to both routers.
pub const CLIENT_AS: u32 = 65100;

/// What the pods' addresses are taken from.
pub const POOL_V4: &str = "10.244.0.0/16";
pub const POOL_V6: &str = "fd00:10:244::/64";

/// One router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tor {
    pub name: &'static str,
    pub asn: u32,
    /// Third octet of its addresses, and the index of a node's interface to it, plus one.
    pub number: u8,
}

/// One node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: &'static str,
    pub asn: u32,
    /// 1, 2, 3.
    pub number: u8,
}

pub const TORS: [Tor; 2] =
    [Tor { name: "tor-a", asn: 65001, number: 1 }, Tor { name: "tor-b", asn: 65002, number: 2 }];

pub const NODES: [Node; 3] = [
    Node { name: "n1", asn: 4_200_000_001, number: 1 },
    Node { name: "n2", asn: 4_200_000_002, number: 2 },
    Node { name: "n3", asn: 4_200_000_003, number: 3 },
];

/// The node of that name.
#[must_use]
pub fn node(name: &str) -> Option<Node> {
    NODES.into_iter().find(|node| node.name == name)
}

impl Tor {
    /// Its one address towards all nodes.
    #[must_use]
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.number, 1)
    }

    #[must_use]
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, self.number.into(), 0, 0, 0, 0, 0, 1)
    }

    /// A node's interface to it.
    #[must_use]
    pub fn uplink(self) -> &'static str {
        if self.number == 1 { "eth0" } else { "eth1" }
    }

    /// The client's address on the link to it.
    #[must_use]
    pub fn client_address(self) -> Ipv4Addr {
        self.client_link_v4().1
    }

    fn client_link_v4(self) -> (Ipv4Addr, Ipv4Addr) {
        let low = (self.number - 1) * 2;
        (Ipv4Addr::new(10, 0, 3, low), Ipv4Addr::new(10, 0, 3, low + 1))
    }

    fn client_link_v6(self) -> (Ipv6Addr, Ipv6Addr) {
        let address = |host| Ipv6Addr::new(0xfd00, 3, self.number.into(), 0, 0, 0, 0, host);
        (address(1), address(2))
    }
}

impl Node {
    /// Its InternalIPs, on its loopback.
    #[must_use]
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, 10 + self.number)
    }

    #[must_use]
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(self.number) + 0x10)
    }

    /// Its address on the link to `tor`.
    #[must_use]
    pub fn link_v4(self, tor: Tor) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, tor.number, 10 + self.number)
    }

    #[must_use]
    pub fn link_v6(self, tor: Tor) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, tor.number.into(), 0, 0, 0, 0, 0, u16::from(self.number) + 0x10)
    }

    /// All addresses that a packet of its own may carry.
    #[must_use]
    pub fn addresses(self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = vec![self.v4().into(), self.v6().into()];
        for tor in TORS {
            all.push(self.link_v4(tor).into());
            all.push(self.link_v6(tor).into());
        }
        all
    }

    /// The router's interface to it.
    #[must_use]
    pub fn downlink(self) -> String {
        format!("to-{}", self.name)
    }
}

/// How the names of one run differ from those of another.
#[derive(Clone, Debug)]
pub struct Scope {
    /// In front of every namespace name.
    pub namespaces: String,
    /// In front of every FRR path space.
    pub routers: String,
}

impl Scope {
    /// The demo's: one at a time on a machine, so that `vtysh -N tor-a` can be typed.
    #[must_use]
    pub fn demo() -> Self {
        Self { namespaces: "manx-demo-".to_owned(), routers: String::new() }
    }

    /// A test's: unique, and recognisable as stale once its process is gone.
    #[must_use]
    pub fn test(name: &str) -> Self {
        let prefix = format!("manx-test-{}-{name}-", std::process::id());
        Self { namespaces: prefix.clone(), routers: prefix }
    }

    #[must_use]
    pub fn netns(&self, name: &str) -> Netns {
        Netns::named(&format!("{}{name}", self.namespaces))
    }

    #[must_use]
    pub fn router(&self, name: &str) -> String {
        format!("{}{name}", self.routers)
    }
}

/// Removes what a demo that did not end in order left behind.
pub fn remove_stale_demo() -> Result<()> {
    let scope = Scope::demo();
    let names = netns::list(&scope.namespaces);
    netns::remove(names.iter().map(String::as_str))?;
    for name in TORS.iter().map(|tor| tor.name).chain(["client"]) {
        frr::forget(&scope.router(name));
    }
    Ok(())
}

/// Removes what tests left behind whose process is gone.
pub fn remove_stale_tests() -> Result<()> {
    let dead = |name: &String| {
        let pid = name.trim_start_matches("manx-test-").split('-').next().unwrap_or_default();
        !Path::new("/proc").join(pid).exists()
    };
    let names: Vec<String> = netns::list("manx-test-").into_iter().filter(dead).collect();
    netns::remove(names.iter().map(String::as_str))?;
    for name in frr::list("manx-test-").iter().filter(|name| dead(name)) {
        frr::forget(name);
    }
    Ok(())
}

/// Makes the six namespaces and eight links with all addresses; nothing runs in them yet.
pub fn build(scope: &Scope) -> Result<()> {
    build_routers(scope).context("routers and client")?;
    for node in NODES {
        build_node(scope, node).with_context(|| format!("node {}", node.name))?;
    }
    Ok(())
}

/// The two routers, the client behind them, and the links between these three.
pub fn build_routers(scope: &Scope) -> Result<()> {
    for name in TORS.iter().map(|tor| tor.name).chain(["client"]) {
        let netns = Netns::create(scope.netns(name).name())?;
        prepare(&netns)?;
        netns.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/all/proxy_ndp", "1"),
        ])?;
    }
    let mut client = format!("addr add {CLIENT_V4}/32 dev lo\naddr add {CLIENT_V6}/128 dev lo\n");
    for tor in TORS {
        connect(scope, ("client", tor.uplink()), (tor.name, "to-client"))?;
        let (mine4, yours4) = tor.client_link_v4();
        let (mine6, yours6) = tor.client_link_v6();
        scope.netns(tor.name).ip(&format!(
            "{}addr add {mine4}/31 dev to-client\naddr add {mine6}/64 dev to-client\nlink set to-client up\n",
            loopback(tor)
        ))?;
        client.push_str(&format!(
            "addr add {yours4}/31 dev {0}\naddr add {yours6}/64 dev {0}\nlink set {0} up\n",
            tor.uplink()
        ));
    }
    scope.netns("client").ip(&client)
}

/// One node with its links to both routers. The routers' ends of a node that was there before must be gone, as they
/// are once its namespace is.
pub fn build_node(scope: &Scope, node: Node) -> Result<()> {
    let netns = Netns::create(scope.netns(node.name).name())?;
    prepare(&netns)?;
    // What systemd sets on Debian 12.
    netns.sysctl(&[("ipv4/conf/all/rp_filter", "2"), ("ipv4/conf/default/rp_filter", "2")])?;
    for tor in TORS {
        connect(scope, (node.name, tor.uplink()), (tor.name, &node.downlink()))?;
        netns.ip(&uplink(tor, node))?;
        scope.netns(tor.name).ip(&downlink(tor, node))?;
    }
    for tor in TORS {
        // The kernel takes a route through a link only once it has seen both ends up, which it does by and by.
        let (router, routes) = (scope.netns(tor.name), node_routes(tor, node));
        if wait_for(Duration::from_secs(2), || router.ip(&routes).ok()).is_none() {
            router.ip(&routes)?;
        }
    }
    netns.ip(&format!("addr add {}/32 dev lo\naddr add {}/128 dev lo\n", node.v4(), node.v6()))
}

/// What every namespace of the fabric has in common.
fn prepare(netns: &Netns) -> Result<()> {
    netns.sysctl(&[
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/fib_multipath_hash_policy", "1"),
        ("ipv6/fib_multipath_hash_policy", "1"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/all/keep_addr_on_down", "1"),
        ("ipv6/conf/default/keep_addr_on_down", "1"),
    ])
}

/// A veth between two namespaces; an end is a namespace's short name and an interface's.
fn connect(scope: &Scope, left: (&str, &str), right: (&str, &str)) -> Result<()> {
    netns::batch(
        &[],
        &format!(
            "link add {} netns {} type veth peer name {} netns {}\n",
            left.1,
            scope.netns(left.0).name(),
            right.1,
            scope.netns(right.0).name()
        ),
    )
}

/// FRR takes a session's interface, and its IPv6 next hop, from the first interface that has the session's local
/// address. With the address on the loopback too, that is one that no cable takes down.
fn loopback(tor: Tor) -> String {
    format!("addr add {}/32 dev lo\naddr add {}/128 dev lo\n", tor.v4(), tor.v6())
}

/// The link comes up first: an IPv6 peer address added before that gets its route to the wrong end.
fn downlink(tor: Tor, node: Node) -> String {
    let interface = node.downlink();
    // Nodes take each other for neighbours, by the /64 of their links: the router answers for the others.
    let others: Vec<String> = NODES
        .iter()
        .filter(|other| other.number != node.number)
        .map(|other| format!("neigh add proxy {} dev {interface}\n", other.link_v6(tor)))
        .collect();
    format!(
        "link set {interface} up\naddr add {} peer {}/32 dev {interface}\n\
         addr add {} peer {}/128 dev {interface} nodad\n{}",
        tor.v4(),
        node.link_v4(tor),
        tor.v6(),
        node.link_v6(tor),
        others.concat()
    )
}

/// IPv6 is a /64 here, which survives a link that goes down and comes back; a peer's route would not.
fn uplink(tor: Tor, node: Node) -> String {
    let interface = tor.uplink();
    format!(
        "link set {interface} up\naddr add {} peer {}/32 dev {interface}\naddr add {}/64 dev {interface} nodad\n",
        node.link_v4(tor),
        tor.v4(),
        node.link_v6(tor)
    )
}

/// How a router reaches a node's InternalIPs. A provider's router has them from its own addressing plan.
fn node_routes(tor: Tor, node: Node) -> String {
    let interface = node.downlink();
    format!(
        "route replace {}/32 via {} dev {interface} proto static\nroute replace {}/128 via {} dev {interface} proto static\n",
        node.v4(),
        node.link_v4(tor),
        node.v6(),
        node.link_v6(tor)
    )
}

/// How the client reaches the nodes' InternalIPs where its ToRs announce blocks only: from the same addressing plan.
pub fn client_routes(scope: &Scope) -> Result<()> {
    let mut lines = String::new();
    for node in NODES {
        let hops = |address: &dyn Fn(Tor) -> IpAddr| {
            TORS.map(|tor| format!(" nexthop via {} dev {}", address(tor), tor.uplink())).concat()
        };
        let v4 = hops(&|tor| tor.client_link_v4().0.into());
        let v6 = hops(&|tor| tor.client_link_v6().0.into());
        lines.push_str(&format!("route add {}/32 proto static{v4}\n", node.v4()));
        lines.push_str(&format!("route add {}/128 proto static{v6}\n", node.v6()));
    }
    scope.netns("client").ip(&lines)
}

/// How each router reaches the links of the other: through the client. Whoever masquerades on a link has its address,
/// and the answer may come by the other router.
pub fn link_routes(scope: &Scope) -> Result<()> {
    let [a, b] = TORS;
    for (here, there) in [(a, b), (b, a)] {
        let (via4, via6) = (here.client_link_v4().1, here.client_link_v6().1);
        let low4 = there.client_link_v4().0;
        let number = there.number;
        scope.netns(here.name).ip(&format!(
            "route add 10.0.{number}.0/24 via {via4} proto static\nroute add {low4}/31 via {via4} proto static\n\
             route add fd00:{number}::/64 via {via6} proto static\nroute add fd00:3:{number}::/64 via {via6} proto static\n"
        ))?;
    }
    Ok(())
}

/// The configuration of one FRR ToR: nodes dial in, learn blocks and a default route; the client learns all.
///
/// The IPv6 next hop is spelled out: when any interface with that address goes down, FRR forgets it for all sessions and
/// announces `::ffff:10.0.1.1` instead.
///
/// `services` are ranges whose single addresses nodes may announce too, beside the blocks of the pools.
#[must_use]
pub fn tor_config(tor: Tor, services: &[&str]) -> String {
    let (_, client) = tor.client_link_v4();
    let number = tor.number;
    let mut ranges = String::new();
    for (range, sequence) in services.iter().zip((20..).step_by(10)) {
        let (family, length) = if range.contains(':') { ("ipv6", 128) } else { ("ip", 32) };
        ranges.push_str(&format!("{family} prefix-list BLOCKS seq {sequence} permit {range} le {length}\n"));
    }
    let family = |name: &str| {
        format!(
            " address-family {name} unicast\n  redistribute kernel\n  redistribute connected\n  neighbor NODES activate\n  \
             neighbor NODES default-originate\n  neighbor NODES route-map FROM-NODES in\n  \
             neighbor NODES route-map TO-NODES out\n  neighbor NODES maximum-prefix 500\n  \
             neighbor {client} activate\n  maximum-paths 64\n exit-address-family\n"
        )
    };
    format!(
        "frr defaults datacenter\nhostname {name}\n!\n\
         ip prefix-list BLOCKS seq 10 permit {POOL_V4} ge 24\n\
         ipv6 prefix-list BLOCKS seq 10 permit {POOL_V6} ge 120\n{ranges}!\n\
         route-map FROM-NODES permit 10\n match ip address prefix-list BLOCKS\nexit\n\
         route-map FROM-NODES permit 20\n match ipv6 address prefix-list BLOCKS\nexit\n\
         route-map TO-NODES permit 10\n match ip address prefix-list BLOCKS\nexit\n\
         route-map TO-NODES permit 20\n match ipv6 address prefix-list BLOCKS\n \
         set ipv6 next-hop global {id6}\nexit\n!\n\
         router bgp {asn}\n bgp router-id {id}\n bgp log-neighbor-changes\n bgp bestpath as-path multipath-relax\n \
         bgp graceful-restart\n neighbor NODES peer-group\n neighbor NODES remote-as external\n \
         neighbor NODES timers 3 9\n neighbor {client} remote-as {CLIENT_AS}\n neighbor {client} timers connect 1\n \
         bgp listen range 10.0.{number}.0/24 peer-group NODES\n bgp listen range fd00:{number}::/64 peer-group NODES\n \
         bgp listen limit 200\n{v4}{v6}exit\n",
        name = tor.name,
        asn = tor.asn,
        id = tor.v4(),
        id6 = tor.v6(),
        v4 = family("ipv4"),
        v6 = family("ipv6"),
    )
}

/// The client's FRR: it announces its two addresses, and never what it learned, so it is no way between ToRs. With
/// `default_originate` it is the way to everywhere for ToRs that originate nothing themselves.
#[must_use]
pub fn client_config(default_originate: bool) -> String {
    let mut neighbors = String::new();
    let mut activated = String::new();
    for tor in TORS {
        let (address, _) = tor.client_link_v4();
        neighbors.push_str(&format!(
            " neighbor {address} remote-as {}\n neighbor {address} timers connect 1\n",
            tor.asn
        ));
        activated
            .push_str(&format!("  neighbor {address} activate\n  neighbor {address} route-map OWN out\n"));
        if default_originate {
            activated.push_str(&format!("  neighbor {address} default-originate\n"));
        }
    }
    format!(
        "frr defaults datacenter\nhostname client\n!\n\
         ip prefix-list OWN seq 10 permit {CLIENT_V4}/32\nipv6 prefix-list OWN seq 10 permit {CLIENT_V6}/128\n!\n\
         route-map OWN permit 10\n match ip address prefix-list OWN\nexit\n\
         route-map OWN permit 20\n match ipv6 address prefix-list OWN\nexit\n!\n\
         router bgp {CLIENT_AS}\n bgp router-id {CLIENT_V4}\n bgp bestpath as-path multipath-relax\n{neighbors} \
         address-family ipv4 unicast\n  network {CLIENT_V4}/32\n{activated}  maximum-paths 64\n exit-address-family\n \
         address-family ipv6 unicast\n  network {CLIENT_V6}/128\n{activated}  maximum-paths 64\n exit-address-family\nexit\n"
    )
}
