//! Neighbours that dial us, by prefix (api.md §5.1 `listenRange`).

use bgp_proto::AfiSafi;
use bgp_proto::config::RangeConfig;
use ipnet::IpNet;
use kube::ResourceExt as _;
use manx_crds::acceptance::Refusal;
use manx_crds::v1alpha1::BGPPeer;

use super::{Taken, World, refusal};

/// How many neighbours of one range there may be at a time: enough for a rack, and bounded whoever dials.
const NEIGHBOURS: u16 = 256;

impl World<'_> {
    /// The range of a BGPPeer, and why its sessions run from the address that they run from.
    pub(super) fn range(
        &self,
        peer: &BGPPeer,
        prefix: IpNet,
        taken: &mut Taken,
    ) -> Result<(RangeConfig, String), Refusal> {
        let needs_interface = match prefix {
            IpNet::V4(_) => false,
            IpNet::V6(prefix) => prefix.network().is_unicast_link_local(),
        };
        if needs_interface {
            let text = format!(
                "spec.listenRange {prefix}: link-local neighbours are reached through spec.interface"
            );
            return Err(refusal("UnknownValue", text));
        }
        if self.effective.bgp_port == 0 {
            let text = "spec.listenRange waits for neighbours to dial, but node.bgpPort 0 listens nowhere";
            return Err(refusal("NoListener", text.to_owned()));
        }
        if let Some(older) = taken.ranges.get(&prefix) {
            let text = format!("spec.listenRange {prefix} is served by the older BGPPeer {older}");
            return Err(refusal("OverlapsPeer", text));
        }
        let (mut settings, source) = self.settings(peer, prefix.network())?;
        if settings.max_hops == 1 && peer.spec.source_interface.is_none() {
            // Each neighbour may be on another link: what a session runs on is right for its family.
            match AfiSafi::of_address(prefix.network()) {
                AfiSafi::Ipv4Unicast => settings.next_hop.ipv4 = None,
                AfiSafi::Ipv6Unicast => settings.next_hop.ipv6 = None,
            }
        }
        taken.ranges.insert(prefix, peer.name_any());
        Ok((RangeConfig { prefix, limit: NEIGHBOURS, peer: settings }, source))
    }
}
