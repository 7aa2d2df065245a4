//! Five kinds of peers, and the other ends of their sessions with us.

use bgp_proto::rib::{PeerFacts, Rib};
use bgp_proto::wire::Role;
use bgp_proto::{AfiSafi, PeerId};

use super::{OWN_AS, bodies, facts, settle};

pub(crate) const PEERS: u16 = 5;

/// An external peer with a role, one of two-octet AS numbers, a reflector client, one of IPv6 alone, one that tells and is told
/// several paths per prefix.
pub(crate) fn peer(number: u16) -> PeerFacts {
    match number {
        0 => PeerFacts { role: Some(Role::Peer), ..facts(1, 65001) },
        1 => PeerFacts { four_octet_as: false, ..facts(2, 65002) },
        2 => PeerFacts { reflector_client: true, ..facts(3, OWN_AS) },
        3 => PeerFacts { families: [AfiSafi::Ipv6Unicast].into(), ..facts(4, 70004) },
        _ => PeerFacts {
            add_path_receive: AfiSafi::ALL.into(),
            add_path_send: AfiSafi::ALL.into(),
            paths_sent: 3,
            ..facts(5, 65005)
        },
    }
}

/// The other end of a session with us: another table, which judges what it is sent.
pub(crate) struct Listener {
    rib: Rib,
    number: u16,
}

impl Listener {
    pub(crate) fn new(number: u16) -> Listener {
        let ours = peer(number);
        let mut rib = super::rib(ours.remote_asn.0, [10, 0, 9, 9]);
        let facts = PeerFacts {
            remote_asn: ours.local_asn,
            local_asn: ours.remote_asn,
            families: ours.families,
            four_octet_as: ours.four_octet_as,
            add_path_receive: ours.add_path_send,
            ..facts(9, 1)
        };
        rib.peer_up(PeerId(0), facts);
        Listener { rib, number }
    }

    pub(crate) fn listen(&mut self, stream: &[u8]) {
        for body in bodies(stream) {
            let outcome = self.rib.update(PeerId(0), body);
            assert!(outcome.faults.is_empty(), "peer {}: {:?} in {body:?}", self.number, outcome.faults);
        }
        settle(&mut self.rib);
    }
}
