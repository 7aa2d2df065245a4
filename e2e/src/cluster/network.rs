//! Namespaces and links of a cluster.
//!
//! ```text
//!   L2 lab                                      --tors
//!
//!   client ── ctl (API server, bridge br0)      client ─┬─ tor-a ─┬─ n1 n2 n3    eth0, eth1: the fabric
//!                │      │      │                  │     └─ tor-b ─┘
//!               n1     n2     n3  (eth0)          └── ctl (API server, bridge br0) ── n1 n2 n3    mgmt
//! ```
//!
//! In the L2 lab `ctl` is also the nodes' gateway. It knows no pod: what leaves a node for the client must have the
//! node's address. Behind ToRs, nodes reach the API server by a link of its own, as they must before any BGP session
//! is up, and `ctl` finds pods through the client, who learned them from the ToRs.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::netns::{self, Netns};
use crate::process::wait_for;
use crate::topology::{self, CLIENT_V4, CLIENT_V6, Scope};

use super::options::{Cni, GATEWAY_V4, GATEWAY_V6, Options};

/// In front of every namespace of a cluster.
pub(crate) const PREFIX: &str = "manx-cluster-";

/// Between `ctl` and the client.
const CTL_UPLINK_V4: &str = "198.51.100.1/24";
const CTL_UPLINK_V6: &str = "fd00:c::1/64";
/// The same behind ToRs, where the client's own addresses are single.
const CTL_FABRIC_V4: [&str; 2] = ["10.0.4.0", "10.0.4.1"];
const CTL_FABRIC_V6: [&str; 2] = ["fd00:4::1", "fd00:4::2"];

/// The names of a cluster: one at a time on a machine, so that people can type them.
pub(crate) fn scope() -> Scope {
    Scope { namespaces: PREFIX.to_owned(), routers: "cluster-".to_owned() }
}

/// The namespace of the control plane.
pub(crate) fn control() -> Netns {
    scope().netns("ctl")
}

/// Makes everything but the nodes.
pub(crate) fn build(options: &Options) -> Result<()> {
    let control = Netns::create(control().name())?;
    forward(&control)?;
    control.ip(&format!(
        "link add br0 type bridge\nlink set br0 up\naddr add {GATEWAY_V4}/24 dev br0\naddr add {GATEWAY_V6}/64 dev br0 nodad\n"
    ))?;
    if options.tors {
        topology::build_routers(&scope())?;
        topology::link_routes(&scope())?;
        return behind_fabric(&control);
    }
    let client = Netns::create(scope().netns("client").name())?;
    link(&client, "eth0", &control, "to-client")?;
    control.ip(&format!(
        "link set to-client up\naddr add {CTL_UPLINK_V4} dev to-client\naddr add {CTL_UPLINK_V6} dev to-client nodad\n"
    ))?;
    client.ip(&format!(
        "link set eth0 up\naddr add {CLIENT_V4}/24 dev eth0\naddr add {CLIENT_V6}/64 dev eth0 nodad\n\
         route add default via {}\nroute add default via {}\n",
        host(CTL_UPLINK_V4),
        host(CTL_UPLINK_V6)
    ))
}

fn behind_fabric(control: &Netns) -> Result<()> {
    let client = scope().netns("client");
    link(&client, "to-ctl", control, "to-client")?;
    let ([mine4, yours4], [mine6, yours6]) = (CTL_FABRIC_V4, CTL_FABRIC_V6);
    client.ip(&format!(
        "link set to-ctl up\naddr add {yours4}/31 dev to-ctl\naddr add {yours6}/64 dev to-ctl nodad\n"
    ))?;
    // The source is one that nodes answer by their own link. What a node sends to a ClusterIP before kube-proxy knows
    // it ends here.
    control.ip(&format!(
        "route add unreachable 10.96.0.0/16\nroute add unreachable fd00:96::/112\n\
        link set to-client up\naddr add {mine4}/31 dev to-client\naddr add {mine6}/64 dev to-client nodad\n\
         route add default via {yours4} src {GATEWAY_V4}\nroute add default via {yours6} src {GATEWAY_V6}\n"
    ))
}

/// Makes one node's namespace and links, anew after a power cut.
pub(crate) fn build_node(options: &Options, number: u8) -> Result<Netns> {
    let scope = scope();
    let name = format!("n{number}");
    let netns = scope.netns(&name);
    let interface = if options.tors {
        let node = topology::node(&name).context("a node that the ToRs do not know")?;
        topology::build_node(&scope, node)?;
        "mgmt"
    } else {
        Netns::create(netns.name())?;
        "eth0"
    };
    // What kubeadm asks for, and what systemd sets on Debian 12.
    forward(&netns)?;
    netns.sysctl(&[("ipv4/conf/all/rp_filter", "2"), ("ipv4/conf/default/rp_filter", "2")])?;
    let control = control();
    link(&netns, interface, &control, &name)?;
    control.ip(&format!("link set {name} master br0 up\n"))?;
    let (v4, v6) = Options::segment(number);
    let mut lines = format!("link set {interface} up\n");
    let addresses: Vec<String> = options.families.of(
        format!("addr add {v4}/24 dev {interface}\n"),
        format!("addr add {v6}/64 dev {interface} nodad\n"),
    );
    lines.push_str(&addresses.concat());
    if !options.tors {
        let routes: Vec<String> = options.families.of(
            format!("route add default via {GATEWAY_V4}\n"),
            format!("route add default via {GATEWAY_V6}\n"),
        );
        lines.push_str(&routes.concat());
    }
    netns.ip(&lines).with_context(|| format!("addresses of {name}"))?;
    if options.tors {
        control.ip(&to_loopback(options, number)?)?;
        netns.ip(&to_api_server(options))?;
    }
    Ok(netns)
}

/// Waits until the far ends of a node's links are gone. The kernel takes a namespace apart after `ip netns del` answers.
pub(crate) fn unplug(options: &Options, number: u8) -> Result<()> {
    let name = format!("n{number}");
    let mut ends = vec![(control(), name.clone())];
    if let Some(node) = topology::node(&name).filter(|_| options.tors) {
        ends.extend(topology::TORS.map(|tor| (scope().netns(tor.name), node.downlink())));
    }
    for (netns, interface) in ends {
        wait_for(Duration::from_secs(5), || {
            netns.ip_json(&["link", "show", &interface]).is_err().then_some(())
        })
        .with_context(|| format!("{interface} of {} is still there", netns.name()))?;
    }
    Ok(())
}

/// Agents find the API server by its ClusterIP before any BGP session is up, and the kernel wants a route even for an
/// address that kube-proxy will rewrite.
fn to_api_server(options: &Options) -> String {
    let routes: Vec<String> = options.families.of(
        format!("route add 10.96.0.1/32 via {GATEWAY_V4}\n"),
        format!("route add fd00:96::1/128 via {GATEWAY_V6}\n"),
    );
    routes.concat()
}

/// How the control plane reaches kubelets behind ToRs; `replace`, because it may know from before a power cut.
fn to_loopback(options: &Options, number: u8) -> Result<String> {
    let (v4, v6) = Options::segment(number);
    let routes = options.internal_addresses(number)?.into_iter().map(|address| {
        if address.is_ipv4() {
            format!("route replace {address}/32 via {v4}\n")
        } else {
            format!("route replace {address}/128 via {v6}\n")
        }
    });
    Ok(routes.collect())
}

/// Routes to every node's pods, on every other and beside the API server: they stand in for a routing daemon with
/// [`Cni::Ptp`].
pub(crate) fn route_pods(options: &Options) -> Result<()> {
    if options.cni == Cni::None {
        return Ok(());
    }
    for here in 0..=options.nodes {
        let netns = if here == 0 { control() } else { scope().netns(&format!("n{here}")) };
        let mut lines = String::new();
        for there in (1..=options.nodes).filter(|there| *there != here) {
            let (v4, v6) = Options::segment(there);
            for range in options.node_pods(there) {
                let hop = if range.contains(':') { v6.to_string() } else { v4.to_string() };
                lines.push_str(&format!("route replace {range} via {hop}\n"));
            }
        }
        netns.ip(&lines)?;
    }
    Ok(())
}

fn forward(netns: &Netns) -> Result<()> {
    netns.sysctl(&[
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/default/accept_dad", "0"),
    ])
}

fn link(left: &Netns, left_interface: &str, right: &Netns, right_interface: &str) -> Result<()> {
    let line = format!(
        "link add {left_interface} netns {} type veth peer name {right_interface} netns {}\n",
        left.name(),
        right.name()
    );
    netns::batch(&[], &line).with_context(|| format!("link {left_interface} of {}", left.name()))
}

fn host(address: &str) -> &str {
    address.split('/').next().unwrap_or_default()
}
