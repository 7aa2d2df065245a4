//! Neighbours on an interface (api.md §5.1 `interface`): a session by link-local addresses that carries both families (RFC 8950).

use std::net::IpAddr;

use bgp_proto::config::{NextHopSelf, PeerConfig};
use bgp_proto::{AfiSafi, PeerName, link_local};
use kube::ResourceExt as _;
use manx_crds::acceptance::Refusal;
use manx_crds::v1alpha1::BGPPeer;

use super::{Desire, Taken, World, refusal};
use crate::auth;
use crate::unnumbered::Place;

impl World<'_> {
    /// The session of a BGPPeer with an interface, and why it runs from the address that it runs from. While nobody is there it is
    /// withheld, and says so.
    pub(super) fn on_interface(
        &self,
        peer: &BGPPeer,
        name: &str,
        taken: &mut Taken,
        desire: &mut Desire,
    ) -> Result<(PeerConfig, String), Refusal> {
        if let Some(older) = taken.interfaces.get(name) {
            let text = format!("spec.interface {name} is served by the older BGPPeer {older}");
            return Err(refusal("OverlapsPeer", text));
        }
        if peer.spec.passive && self.effective.bgp_port == 0 {
            let text = "spec.passive waits for the peer to dial, but node.bgpPort 0 listens nowhere";
            return Err(refusal("NoListener", text.to_owned()));
        }
        // Numbers that no interface has, for those that are not there: each is another nobody.
        let absent = u32::MAX - u32::try_from(taken.interfaces.len()).unwrap_or(0);
        let (remote, local, missing) = match (self.links.on)(name) {
            Place::Neighbour { local, remote, others } => {
                if !others.is_empty() {
                    let others: Vec<String> = others.iter().map(|other| format!("{other}%{name}")).collect();
                    let spoken = link_local::wire(remote);
                    desire.remarks.push(format!(
                        "there are several routers on {name}: BGPPeer {} speaks to {spoken}%{name}, not to {}",
                        peer.name_any(),
                        others.join(", ")
                    ));
                }
                (remote, Some(local), None)
            }
            Place::Nobody { reason, text, ifindex } => {
                (link_local::nobody(ifindex.unwrap_or(absent)), None, Some((reason, text)))
            }
        };
        let (mut config, source) = self.settings(peer, remote)?;
        config.local_address = local;
        config.next_hop = self.next_hop_on(name, &config);
        config.extended_next_hop = config.families.contains(&AfiSafi::Ipv4Unicast);
        if let Some((reason, text)) = missing {
            auth::withhold(&mut config, reason, text);
        }
        taken.interfaces.insert(name.to_owned(), peer.name_any());
        desire.interfaces.insert(name.to_owned(), PeerName::from(peer.name_any().as_str()));
        Ok((config, source))
    }

    /// Addresses of the link beside our link-local one, and no others: the neighbour has no route to those before it hears of them.
    fn next_hop_on(&self, name: &str, config: &PeerConfig) -> NextHopSelf {
        let link = (self.links.named)(name).unwrap_or_default();
        let of = |family| link.of(family).filter(|_| config.families.contains(&family));
        NextHopSelf {
            ipv4: match of(AfiSafi::Ipv4Unicast) {
                Some(IpAddr::V4(ip)) => Some(ip),
                Some(IpAddr::V6(_)) | None => None,
            },
            ipv6: match of(AfiSafi::Ipv6Unicast) {
                Some(IpAddr::V6(ip)) => Some(ip),
                Some(IpAddr::V4(_)) | None => None,
            },
        }
    }
}
