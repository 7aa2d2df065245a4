//! What a node runs with: FabricConfiguration's `node`, its overrides in order, then FabricNode's own word.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use sha2::{Digest, Sha256};

use super::selector::selects;
use super::{
    AddressSettings, AddressSource, AdminState, Asn, AsnFromLabel, FabricConfiguration, FabricNode, LogLevel,
    NodeSettings, RouterId, TopologyMode,
};

/// The ASN where nobody set one.
pub const DEFAULT_ASN: Asn = Asn(64512);
/// IANA's port of BGP.
pub const DEFAULT_BGP_PORT: u16 = 179;
/// ECMP width where nobody set one.
pub const DEFAULT_MAX_PATHS: u16 = 64;

/// Why a node has no ASN; BGPReady says `InvalidASNLabel`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AsnLabelError {
    #[error("the node has no label {key}, which asnFromLabel reads")]
    Missing { key: String },
    #[error("label {key}={value:?} is no decimal number, which asnFromLabel reads")]
    NotDecimal { key: String, value: String },
    #[error("base {base} + label {key}={value} is no ASN that may be used")]
    OutOfRange { key: String, value: String, base: u32 },
}

/// What a node runs with.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveNode {
    /// No ASN, no BGP: never a wrong one.
    pub asn: Result<Asn, AsnLabelError>,
    /// As a person set it; else derived from the address by [`router_id`].
    pub router_id: Option<RouterId>,
    pub address: AddressSettings,
    /// A person's addresses beat `address`, family by family.
    pub ipv4: Option<IpAddr>,
    pub ipv6: Option<IpAddr>,
    /// 0 listens nowhere.
    pub bgp_port: u16,
    /// `None`: from the uplinks.
    pub mtu: Option<u16>,
    pub log_level: LogLevel,
    pub admin_state: AdminState,
    pub admin_message: Option<String>,
}

impl EffectiveNode {
    /// What a node with these labels runs with.
    pub fn of(
        configuration: Option<&FabricConfiguration>,
        node: Option<&FabricNode>,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let settings = merged(configuration, labels);
        let own = node.map(|node| &node.spec);
        let asn = match (own.and_then(|spec| spec.asn), settings.asn, &settings.asn_from_label) {
            (Some(asn), _, _) | (None, Some(asn), _) => Ok(asn),
            (None, None, Some(from)) => asn_from_label(from, labels),
            (None, None, None) => Ok(DEFAULT_ASN),
        };
        let addresses = own.and_then(|spec| spec.addresses.as_ref());
        Self {
            asn,
            router_id: own.and_then(|spec| spec.router_id),
            address: settings.address.unwrap_or(AddressSettings {
                source: AddressSource::InternalIP,
                interface: None,
                subnets: Vec::new(),
            }),
            ipv4: addresses.and_then(|a| a.ipv4).map(IpAddr::from),
            ipv6: addresses.and_then(|a| a.ipv6).map(IpAddr::from),
            bgp_port: settings.bgp_port.unwrap_or(DEFAULT_BGP_PORT),
            mtu: settings.mtu,
            log_level: settings.log_level.unwrap_or(LogLevel::Info),
            admin_state: own.map(|spec| spec.admin_state.clone()).unwrap_or_default(),
            admin_message: own.and_then(|spec| spec.admin_message.clone()),
        }
    }
}

/// `node`, then every override that matches, in order; a later one wins field by field.
fn merged(configuration: Option<&FabricConfiguration>, labels: &BTreeMap<String, String>) -> NodeSettings {
    let Some(spec) = configuration.map(|c| &c.spec) else {
        return NodeSettings::default();
    };
    let mut settings = spec.node.clone().unwrap_or_default();
    for rule in spec.overrides.iter().filter(|rule| selects(&rule.node_selector, labels)) {
        let NodeSettings { asn, asn_from_label, address, bgp_port, mtu, log_level } = rule.node.clone();
        // asn and asnFromLabel are one slot: setting either replaces both
        if asn.is_some() || asn_from_label.is_some() {
            settings.asn = asn;
            settings.asn_from_label = asn_from_label;
        }
        settings.address = address.or(settings.address);
        settings.bgp_port = bgp_port.or(settings.bgp_port);
        settings.mtu = mtu.or(settings.mtu);
        settings.log_level = log_level.or(settings.log_level);
    }
    settings
}

fn asn_from_label(from: &AsnFromLabel, labels: &BTreeMap<String, String>) -> Result<Asn, AsnLabelError> {
    let key = from.key.clone();
    let Some(value) = labels.get(&key).cloned() else {
        return Err(AsnLabelError::Missing { key });
    };
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AsnLabelError::NotDecimal { key, value });
    }
    let base = from.base.unwrap_or(0);
    value
        .parse::<u32>()
        .ok()
        .and_then(|number| base.checked_add(number))
        .and_then(Asn::checked)
        .ok_or(AsnLabelError::OutOfRange { key, value, base })
}

/// The BGP identifier (RFC 6286): as set, the node's IPv4 address, or a hash of its name that is a unicast
/// address of class A (never 0, loopback or multicast).
pub fn router_id(set: Option<RouterId>, ipv4: Option<Ipv4Addr>, node_name: &str) -> RouterId {
    if let Some(id) = set {
        return id;
    }
    if let Some(ipv4) = ipv4.filter(|ip| !ip.is_unspecified()) {
        return RouterId(ipv4);
    }
    let digest = Sha256::digest(node_name.as_bytes());
    let mut octets = [0_u8; 4];
    octets.iter_mut().zip(digest).for_each(|(octet, byte)| *octet = byte);
    let [first, second, third, fourth] = octets;
    RouterId(Ipv4Addr::new(first % 126 + 1, second, third, fourth))
}

/// `topology.mode`, FullMesh where unset.
pub fn topology_mode(configuration: Option<&FabricConfiguration>) -> TopologyMode {
    configuration.and_then(|c| c.spec.topology.as_ref()?.mode.clone()).unwrap_or(TopologyMode::FullMesh)
}

/// `maxPaths`, 64 where unset.
pub fn max_paths(configuration: Option<&FabricConfiguration>) -> u16 {
    configuration.and_then(|c| c.spec.max_paths).unwrap_or(DEFAULT_MAX_PATHS)
}

#[cfg(test)]
mod tests;
