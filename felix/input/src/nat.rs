//! `natOutgoing` of all pools, for the one chain that translates.

use std::collections::BTreeMap;

use felix_calc::nat::OutgoingNat;
use manx_crds::v1alpha1::{Cidr, FabricNode, IPPool, NatOutgoing};

use crate::node::of_fabric_node;

/// What the API says of pods' addresses outside the cluster. A pool that is not used (it overlaps another, it is
/// drained) is inside all the same: pods of it may live on.
pub fn outgoing<'a>(
    pools: impl Iterator<Item = &'a IPPool>,
    nodes: impl Iterator<Item = &'a FabricNode>,
) -> OutgoingNat {
    let mut nat = OutgoingNat { nodes: nodes.flat_map(of_fabric_node).collect(), ..OutgoingNat::default() };
    let mut masquerade = BTreeMap::new();
    for pool in pools {
        let cidr = pool.spec.cidr.net();
        nat.pools.insert(cidr);
        match pool.spec.nat_outgoing {
            NatOutgoing::Masquerade => {
                let excluded = pool.spec.nat_exclude.iter().map(Cidr::net);
                masquerade.entry(cidr).or_insert_with(|| excluded.collect());
            }
            // The pool is refused with this value; whoever has an address of it keeps that address.
            NatOutgoing::None | NatOutgoing::Unknown(_) => {}
        }
    }
    nat.masquerade = masquerade;
    nat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pool_is_inside_and_those_that_ask_are_hidden() {
        let pool = |cidr: &str, rest: &str| -> IPPool {
            serde_saphyr::from_str(&format!(
                "{{apiVersion: manx.dev/v1alpha1, kind: IPPool, metadata: {{name: p}}, spec: {{cidr: '{cidr}'{rest}}}}}"
            ))
            .unwrap()
        };
        let node: FabricNode = serde_saphyr::from_str(
            "{apiVersion: manx.dev/v1alpha1, kind: FabricNode, metadata: {name: n}, spec: {},
              status: {addresses: {ipv4: 192.0.2.1, ipv6: '2001:db8::1'}}}",
        )
        .unwrap();
        let pools = [
            pool("10.244.0.0/16", ", natOutgoing: Masquerade, natExclude: [10.0.0.0/8]"),
            pool("10.245.0.0/16", ""),
            pool("fd00:10::/48", ", natOutgoing: Perhaps"),
        ];
        let nat = outgoing(pools.iter(), [node].iter());
        assert_eq!(nat.pools.len(), 3);
        assert_eq!(nat.nodes.len(), 2);
        let pod = "10.244.0.1".parse().unwrap();
        let hidden: Vec<bool> = ["198.51.100.1", "10.1.1.1", "192.0.2.1", "10.245.0.1"]
            .map(|to| nat.masquerades(pod, to.parse().unwrap()))
            .into();
        assert_eq!(hidden, [true, false, false, false]);
        assert!(!nat.masquerades("fd00:10::1".parse().unwrap(), "2001:db8:9::1".parse().unwrap()));
    }
}
