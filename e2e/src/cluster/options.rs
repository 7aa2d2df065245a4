//! What a cluster is to be like, and the addresses that follow from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::topology::{self, POOL_V4, POOL_V6};

/// The control plane's addresses on the segment, which are also the nodes' default gateway in the L2 lab.
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 134, 1);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x134, 0, 0, 0, 0, 0, 1);

const SERVICES_V4: &str = "10.96.0.0/16";
const SERVICES_V6: &str = "fd00:96::/112";
const DNS_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const DNS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 10);

/// What the ToRs accept from nodes beside pods' blocks: ClusterIPs, and addresses for LoadBalancerPools and ExternalIPs.
pub const VIP_RANGES: [&str; 5] =
    [SERVICES_V4, SERVICES_V6, "192.0.2.0/24", "203.0.113.0/24", "2001:db8:0:1::/112"];

/// More would fill the machine, not prove more.
const MOST_NODES: u8 = 20;

/// The families of nodes, pods and Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Families {
    /// IPv4 first.
    Dual,
    Ipv4,
    Ipv6,
}

/// How kube-proxy programs Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum ProxyMode {
    Nftables,
    Iptables,
    /// No kube-proxy.
    None,
}

/// Who wires pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Cni {
    /// Nobody yet: nodes stay NotReady, with the taint of [`super::TAINT`], until Manx is installed.
    None,
    /// The stock ptp plugin and static routes between nodes: proves the cluster without Manx.
    Ptp,
}

/// What a cluster is to be like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// `n1`, `n2`, …; exactly 3 with `tors`.
    pub nodes: u8,
    /// Two FRR ToRs and a client behind both, as in the demo, around the nodes. Without: one L2 segment, and the
    /// client behind the segment's gateway.
    pub tors: bool,
    pub families: Families,
    pub proxy: ProxyMode,
    pub cni: Cni,
    /// CoreDNS, which stays Pending until a node is ready.
    pub dns: bool,
    /// helm, to install the chart of this checkout with; None: no Manx.
    #[serde(default)]
    pub helm: Option<PathBuf>,
    /// OCI archives that every node has from its start, beside the test images.
    pub images: Vec<PathBuf>,
    /// A folder of containerd, its shim and runc, to run instead of Debian's.
    #[serde(default)]
    pub runtime: Option<PathBuf>,
    /// Further flags of kube-apiserver.
    pub api_server_flags: Vec<String>,
    /// Further flags of kube-controller-manager, such as a shorter `--node-monitor-grace-period`.
    pub controller_manager_flags: Vec<String>,
    /// Where everything of the cluster lies; `target/cluster` of this checkout.
    pub home: PathBuf,
    /// Numbered steps on standard error.
    pub progress: bool,
}

impl Default for Options {
    fn default() -> Self {
        let checkout = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        Self {
            nodes: 3,
            tors: false,
            families: Families::Dual,
            proxy: ProxyMode::Nftables,
            cni: Cni::None,
            dns: true,
            images: Vec::new(),
            helm: None,
            runtime: None,
            api_server_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
            home: checkout.parent().unwrap_or(checkout).join("target/cluster"),
            progress: false,
        }
    }
}

impl Families {
    #[must_use]
    pub fn ipv4(self) -> bool {
        match self {
            Self::Dual | Self::Ipv4 => true,
            Self::Ipv6 => false,
        }
    }

    #[must_use]
    pub fn ipv6(self) -> bool {
        match self {
            Self::Dual | Self::Ipv6 => true,
            Self::Ipv4 => false,
        }
    }

    /// The values of the families that there are, IPv4 first.
    pub(crate) fn of<T>(self, v4: impl Into<T>, v6: impl Into<T>) -> Vec<T> {
        let mut all = Vec::new();
        if self.ipv4() {
            all.push(v4.into());
        }
        if self.ipv6() {
            all.push(v6.into());
        }
        all
    }
}

impl ProxyMode {
    /// As kube-proxy's `--proxy-mode`.
    pub(crate) fn flag(self) -> Option<&'static str> {
        match self {
            Self::Nftables => Some("nftables"),
            Self::Iptables => Some("iptables"),
            Self::None => None,
        }
    }
}

impl Options {
    /// An error that says what does not go together.
    pub fn check(&self) -> Result<()> {
        if self.nodes == 0 || self.nodes > MOST_NODES {
            bail!("--nodes {}: expected 1 to {MOST_NODES}", self.nodes);
        }
        if self.tors && usize::from(self.nodes) != topology::NODES.len() {
            bail!(
                "--nodes {} with --tors: the ToRs have ports for {} nodes",
                self.nodes,
                topology::NODES.len()
            );
        }
        if let Some(missing) = self.images.iter().find(|archive| !archive.is_file()) {
            bail!("{}: no such OCI archive", missing.display());
        }
        Ok(())
    }

    /// What the API server advertises.
    pub(crate) fn api_address(&self) -> IpAddr {
        if self.families.ipv4() { GATEWAY_V4.into() } else { GATEWAY_V6.into() }
    }

    /// What ClusterIPs are taken from.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        self.families.of(SERVICES_V4, SERVICES_V6)
    }

    /// What pods' addresses are taken from.
    #[must_use]
    pub fn pods(&self) -> Vec<String> {
        self.families.of(POOL_V4, POOL_V6)
    }

    /// The ClusterIPs of CoreDNS.
    #[must_use]
    pub fn dns_addresses(&self) -> Vec<IpAddr> {
        self.families.of(DNS_V4, DNS_V6)
    }

    /// Names of the nodes.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|number| format!("n{number}")).collect()
    }

    /// A node's addresses on the segment that the control plane is on.
    pub(crate) fn segment(number: u8) -> (Ipv4Addr, Ipv6Addr) {
        let [a, b, c, _] = GATEWAY_V4.octets();
        let [p, q, ..] = GATEWAY_V6.segments();
        (Ipv4Addr::new(a, b, c, 10 + number), Ipv6Addr::new(p, q, 0, 0, 0, 0, 0, 0x10 + u16::from(number)))
    }

    /// A node's InternalIPs: on the segment, or on its loopback behind the ToRs.
    pub fn internal_addresses(&self, number: u8) -> Result<Vec<IpAddr>> {
        if !self.tors {
            let (v4, v6) = Self::segment(number);
            return Ok(self.families.of(v4, v6));
        }
        let node = topology::node(&format!("n{number}")).context("a node that the ToRs do not know")?;
        Ok(self.families.of(node.v4(), node.v6()))
    }

    /// The ranges that the stock plugins give a node with [`Cni::Ptp`].
    pub(crate) fn node_pods(&self, number: u8) -> Vec<String> {
        self.families.of(format!("10.244.{number}.0/24"), format!("fd00:10:244::{number:x}00/120"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_families() {
        let dual = Options::default();
        assert_eq!(dual.services(), ["10.96.0.0/16", "fd00:96::/112"]);
        assert_eq!(dual.api_address().to_string(), "172.30.134.1");
        let ipv6 = Options { families: Families::Ipv6, ..Options::default() };
        assert_eq!(ipv6.dns_addresses(), ["fd00:96::a".parse::<IpAddr>().unwrap()]);
        assert_eq!(ipv6.api_address().to_string(), "fd00:134::1");
        assert_eq!(ipv6.internal_addresses(2).unwrap(), ["fd00:134::12".parse::<IpAddr>().unwrap()]);
        let routed = Options { tors: true, ..Options::default() };
        assert_eq!(routed.internal_addresses(1).unwrap().first().unwrap().to_string(), "10.0.0.11");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        Options::default().check().unwrap();
        assert!(Options { nodes: 0, ..Options::default() }.check().is_err());
        let many = Options { nodes: 4, ..Options::default() };
        many.check().unwrap();
        assert!(Options { tors: true, ..many }.check().is_err());
        assert!(Options { images: vec!["/nowhere.tar".into()], ..Options::default() }.check().is_err());
    }
}
