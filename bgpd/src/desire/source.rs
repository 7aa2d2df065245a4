//! From which of our addresses a session runs, and why (api.md §5.1 `sourceInterface`, §5.2 `sourceReason`).

use bgp_proto::AfiSafi;
use bgp_proto::config::PeerConfig;
use bgp_proto::output::Reason;
use manx_crds::v1alpha1 as api;

use super::{LinkAddresses, World};
use crate::auth;

impl World<'_> {
    /// Sets the local address of a session: what `sourceInterface` says; else the node's address for a peer that is several
    /// hops away, and whatever the route says for one on a link. Returns why, and the link whose addresses are our next hops.
    pub(super) fn source(&self, spec: &api::BGPPeerSpec, config: &mut PeerConfig) -> (String, LinkAddresses) {
        if let Some(name) = &spec.interface {
            let link = (self.links.named)(name).unwrap_or_default();
            return (format!("link-local address of {name}, the interface of the peer"), link);
        }
        let family = AfiSafi::of_address(config.remote);
        if let Some(name) = &spec.source_interface {
            let link = (self.links.named)(name);
            config.local_address = link.as_ref().and_then(|link| link.of(family));
            if config.local_address.is_none() {
                auth::withhold(config, Reason::InterfaceDown, without_address(name, link.is_some(), family));
            }
            return (format!("address of {name}, the sourceInterface"), link.unwrap_or_default());
        }
        if config.max_hops > 1 {
            config.local_address = self.addresses.get(&family).copied();
            let why = "the node's address: the peer is more than one hop away";
            return (why.to_owned(), LinkAddresses::default());
        }
        let link = (self.links.towards)(config.remote);
        let why = match &link.name {
            Some(name) => format!("address of {name}, the interface of the route to the peer"),
            None => "address of the interface of the route to the peer".to_owned(),
        };
        (why, link)
    }
}

/// What is missing of an interface, and what to do.
fn without_address(name: &str, is_there: bool, family: AfiSafi) -> String {
    let kind = match family {
        AfiSafi::Ipv4Unicast => "IPv4",
        AfiSafi::Ipv6Unicast => "IPv6",
    };
    if is_there {
        return format!(
            "spec.sourceInterface {name} has no {kind} address that is usable: give it one of the peer's family, or name \
             another interface"
        );
    }
    format!("spec.sourceInterface {name}: this node has no such interface: create it, or name another")
}
