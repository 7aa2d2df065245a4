//! What steps look at: fields of objects, pods, answers to a connection, the state of a node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::Node;
use e2e::netns::Netns;
use serde_json::Value;

use crate::lab::Lab;

/// The text at a JSON pointer, or nothing.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a JSON pointer, or an empty one.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A condition of an object.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Result<&'a Value> {
    list(object, "/status/conditions").iter().find(|one| text(one, "/type") == kind).with_context(|| {
        format!("{} {} has no condition {kind}", text(object, "/kind"), text(object, "/metadata/name"))
    })
}

/// A pod as the API server knows it.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Pods with this label `app` that are to stay.
pub(crate) fn pods(lab: &Lab, app: &str) -> Result<Vec<Pod>> {
    let selector = format!("app={app}");
    let found = lab.items(&["get", "pods", "-l", &selector])?;
    found
        .iter()
        .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none())
        .map(|pod| {
            let addresses = list(pod, "/status/podIPs").iter().map(|ip| text(ip, "/ip").parse());
            Ok(Pod {
                name: text(pod, "/metadata/name").to_owned(),
                node: text(pod, "/spec/nodeName").to_owned(),
                addresses: addresses.collect::<Result<_, _>>().context("podIPs")?,
            })
        })
        .collect()
}

/// `10.0.0.1:80` and `[fd00::1]:80`.
pub(crate) fn at(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::from((address, port)).to_string()
}

/// Asserts that a pod gets a TCP connection to each of these within the patience of one attempt.
pub(crate) fn connects(lab: &Lab, pod: &Pod, targets: &[String]) -> Result<()> {
    let each: Vec<String> = targets
        .iter()
        .map(|target| format!("/agnhost connect --timeout=3s '{target}' >/dev/null 2>&1 || echo '{target}'"))
        .collect();
    let silent = lab.in_pod(&pod.name, &each.join("; "))?;
    let silent: Vec<&str> = silent.split_whitespace().collect();
    ensure!(silent.is_empty(), "{} on {} gets no connection to {}", pod.name, pod.node, silent.join(", "));
    Ok(())
}

/// Every address that a packet from this namespace may carry.
pub(crate) fn own_addresses(netns: &Netns) -> Result<Vec<IpAddr>> {
    let links = netns.ip_json(&["addr"])?;
    let all = links.as_array().context("ip -j addr")?.iter().flat_map(|link| list(link, "/addr_info"));
    all.map(|address| text(address, "/local").parse().context("ip -j addr")).collect()
}

/// What a pod is answered. busybox-static's `wget -T` ends by a signal, hence `timeout`.
pub(crate) fn fetch(lab: &Lab, pod: &Pod, url: &str) -> Result<String> {
    let line = format!("timeout 3 wget -qO- '{url}'");
    lab.in_pod(&pod.name, &line).with_context(|| format!("{} on {} asks {url}", pod.name, pod.node))
}

/// What the outside client is answered.
pub(crate) fn fetch_outside(lab: &Lab, url: &str) -> Result<String> {
    let mut command = lab.cluster.client().command("timeout");
    command.args(["3", "busybox", "wget", "-qO-", url]);
    e2e::netns::stdout_of(command).with_context(|| format!("the client asks {url}"))
}

/// What Manx could have changed on a node, by the command that shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NodeState {
    seen: BTreeMap<&'static str, String>,
}

/// Commands whose output must be the same before and after. Tables kube-proxy and nat are not ours: the latter is what
/// the portmap plugin keeps its chains in, by iptables.
const COMMANDS: [&str; 8] = [
    "nft list tables | grep -v -e kube-proxy -e ' nat$'",
    "ip rule; ip -6 rule",
    "ip route show table all proto 77; ip -6 route show table all proto 77",
    "ip -o link | cut -d: -f2 | grep -E 'manx|tunl|vxlan'",
    "ip route; ip -6 route | grep -v fe80",
    "ls -A /etc/cni/net.d /opt/cni/bin",
    "find /var/lib/manx /run/manx ! -type d 2>/dev/null",
    "cd /proc/sys/net && grep -rsH . ipv4/ip_forward ipv6/conf/all/forwarding ipv4/conf/*/rp_filter \
     ipv4/conf/*/forwarding ipv6/conf/*/forwarding ipv6/conf/*/accept_ra netfilter | grep -v -e manx -e _count",
];

impl NodeState {
    pub(crate) fn of(node: &Node) -> Result<Self> {
        let mut seen = BTreeMap::new();
        for command in COMMANDS {
            // grep and ls that find nothing fail: what they print is what counts.
            let line = format!("{{ {command}; }} || true");
            seen.insert(command, node.run(&["bash", "-c", &line])?);
        }
        Ok(Self { seen })
    }

    /// Lines that only one of the two has.
    pub(crate) fn differences(&self, after: &Self) -> Vec<String> {
        let mut all = Vec::new();
        for (command, before) in &self.seen {
            let after = after.seen.get(command).map_or("", String::as_str);
            let only = |sign: &str, one: &str, other: &str| -> Vec<String> {
                let differs = |line: &&str| !other.lines().any(|known| known == *line);
                one.lines().filter(differs).map(|line| format!("{sign} {line}")).collect()
            };
            all.extend(only("-", before, after));
            all.extend(only("+", after, before));
        }
        all
    }
}
