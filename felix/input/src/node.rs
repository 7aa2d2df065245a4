//! This node, for policy.

use std::collections::BTreeSet;
use std::net::IpAddr;

use felix_calc::NodeSettings;
use felix_calc::model::{Answer, HostAction, TCP};
use k8s_openapi::api::core::v1::Node;
use manx_crds::v1alpha1::settings::{DEFAULT_BGP_PORT, EffectiveNode};
use manx_crds::v1alpha1::{FabricConfiguration, FabricNode, ImplicitDeny, WorkloadToHost};

/// What the API says of a node. `node_addresses` holds what Node and FabricNode name; the kernel may know more, which
/// the caller adds.
pub fn settings(
    node: Option<&Node>,
    fabric_node: Option<&FabricNode>,
    configuration: Option<&FabricConfiguration>,
) -> NodeSettings {
    let mut settings =
        NodeSettings { node_addresses: addresses(node, fabric_node), ..NodeSettings::default() };
    let policy = configuration.and_then(|configuration| configuration.spec.policy.as_ref());
    // A value of a newer version is never guessed: policy takes the closed one (api.md §14).
    settings.workload_to_host = match policy.and_then(|policy| policy.workload_to_host.as_ref()) {
        None | Some(WorkloadToHost::Allow) => HostAction::Allow,
        Some(WorkloadToHost::Deny | WorkloadToHost::Unknown(_)) => HostAction::Deny,
    };
    settings.implicit_deny = match policy.and_then(|policy| policy.implicit_deny.as_ref()) {
        None | Some(ImplicitDeny::Drop | ImplicitDeny::Unknown(_)) => Answer::Drop,
        Some(ImplicitDeny::Reject) => Answer::Reject,
    };
    if let Some(rate) = policy.and_then(|policy| policy.deny_log_rate) {
        settings.deny_log_rate = u32::from(rate);
    }
    let labels = node.and_then(|node| node.metadata.labels.clone()).unwrap_or_default();
    let port = EffectiveNode::of(configuration, fabric_node, &labels).bgp_port;
    if port != DEFAULT_BGP_PORT {
        settings.protected_ports.remove(&(TCP, DEFAULT_BGP_PORT));
        // 0 listens nowhere, so there is nothing to protect
        if port != 0 {
            settings.protected_ports.insert((TCP, port));
        }
    }
    settings
}

fn addresses(node: Option<&Node>, fabric_node: Option<&FabricNode>) -> BTreeSet<IpAddr> {
    let named = node.and_then(|node| node.status.as_ref()?.addresses.as_ref()).into_iter().flatten();
    let mut addresses: BTreeSet<IpAddr> = named
        .filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"))
        .filter_map(|address| address.address.parse().ok())
        .collect();
    addresses.extend(fabric_node.into_iter().flat_map(of_fabric_node));
    addresses
}

/// Every address that the FabricNode names, a person's and the agents'.
pub(crate) fn of_fabric_node(fabric_node: &FabricNode) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    if let Some(own) = &fabric_node.spec.addresses {
        addresses.extend([own.ipv4, own.ipv6].into_iter().flatten().map(IpAddr::from));
    }
    if let Some(status) = &fabric_node.status {
        let own = status.addresses.iter().flat_map(|own| [own.ipv4, own.ipv6]).flatten().map(IpAddr::from);
        let tunnels = status.tunnel_addresses.iter().filter_map(|text| text.parse().ok());
        addresses.extend(own.chain(tunnels));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<K: serde::de::DeserializeOwned>(yaml: &str) -> K {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn without_objects_every_default_applies() {
        assert_eq!(settings(None, None, None), NodeSettings::default());
    }

    #[test]
    fn every_address_of_the_node_counts() {
        let node: Node = read(
            "{apiVersion: v1, kind: Node, metadata: {name: n}, status: {addresses: [
               {type: Hostname, address: 192.0.2.200}, {type: InternalIP, address: 192.0.2.1},
               {type: ExternalIP, address: '2001:db8::1'}]}}",
        );
        let fabric_node: FabricNode = read(
            "{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {name: n},
              spec: {addresses: {ipv4: 192.0.2.2}},
              status: {addresses: {ipv6: '2001:db8::2'}, tunnelAddresses: [10.244.0.1]}}",
        );
        let read: Vec<String> = settings(Some(&node), Some(&fabric_node), None)
            .node_addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(read, ["10.244.0.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]);
    }

    #[test]
    fn the_configuration_is_obeyed_and_the_unknown_is_closed() {
        let configured = |policy: &str, node: &str| {
            let configuration: FabricConfiguration = read(&format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: FabricConfiguration, metadata: {{name: default}}, \
                  spec: {{policy: {policy}, node: {node}}}}}"
            ));
            settings(None, None, Some(&configuration))
        };
        let set =
            configured("{implicitDeny: Reject, workloadToHost: Deny, denyLogRate: 0}", "{bgpPort: 1790}");
        assert_eq!((set.implicit_deny, set.workload_to_host), (Answer::Reject, HostAction::Deny));
        assert_eq!(set.deny_log_rate, 0);
        assert!(set.protected_ports.contains(&(TCP, 1790)) && !set.protected_ports.contains(&(TCP, 179)));
        assert!(
            !configured("{}", "{bgpPort: 0}").protected_ports.iter().any(|(protocol, _)| *protocol == TCP)
        );
        let newer = configured("{implicitDeny: Melt, workloadToHost: Sometimes}", "{}");
        assert_eq!((newer.implicit_deny, newer.workload_to_host), (Answer::Drop, HostAction::Deny));
    }
}
