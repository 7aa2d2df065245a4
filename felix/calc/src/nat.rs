//! Which connections leave under the node's address (`natOutgoing`): what that means, plain and slow. The compiled
//! table is tested against it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

/// Where pods' addresses end. Outside is whatever is in no pool and no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutgoingNat {
    /// Every pool, whether it translates or not.
    pub pools: BTreeSet<IpNet>,
    /// Addresses of all nodes of the cluster.
    pub nodes: BTreeSet<IpAddr>,
    /// The pools whose pods are hidden from the outside, each with further destinations that see them as they are.
    pub masquerade: BTreeMap<IpNet, BTreeSet<IpNet>>,
}

impl OutgoingNat {
    /// Whether a connection that this node forwards leaves under the node's address. `destination`: behind DNAT.
    pub fn masquerades(&self, source: IpAddr, destination: IpAddr) -> bool {
        if self.nodes.contains(&destination) || self.pools.iter().any(|pool| pool.contains(&destination)) {
            return false;
        }
        self.masquerade.iter().any(|(pool, excluded)| {
            pool.contains(&source)
                && pool.addr().is_ipv4() == destination.is_ipv4()
                && !excluded.iter().any(|net| net.contains(&destination))
        })
    }
}
