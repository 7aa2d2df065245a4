//! What must come of a world: shortest paths along the links that may carry a prefix, and the lowest neighbour among equals.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{World, prefixes};
use crate::sim::{address, address6};

/// By prefix and node: the node's own, or the neighbours that it is reached by.
pub(crate) struct Reference {
    ways: BTreeMap<IpNet, Vec<Option<Way>>>,
}

#[derive(Debug, Clone)]
struct Way {
    distance: usize,
    /// Ascending; none at an origin. The first is the best: router ids ascend with the numbers.
    via: Vec<usize>,
}

impl World {
    pub(crate) fn reference(&self) -> Reference {
        Reference { ways: prefixes().into_iter().map(|prefix| (prefix, self.ways(prefix))).collect() }
    }

    /// Whether `to` takes the prefix of `from`, that having a route to it of its own or learned.
    fn carries(&self, from: usize, to: usize, prefix: IpNet, own: bool) -> bool {
        let told = own || self.transit.get(&(from, to)).copied().unwrap_or(false);
        let taken = |within: &Option<IpNet>| within.is_none_or(|within| within.contains(&prefix));
        told && self.within.get(&(to, from)).is_some_and(taken)
    }

    fn ways(&self, prefix: IpNet) -> Vec<Option<Way>> {
        let origin = |node: usize| self.own[node].contains(&prefix);
        let mut ways: Vec<Option<Way>> =
            (0..self.nodes).map(|node| origin(node).then(|| Way { distance: 0, via: vec![] })).collect();
        for distance in 1..=self.nodes {
            let mut found = Vec::new();
            for node in (0..self.nodes).filter(|node| ways[*node].is_none()) {
                let nearer =
                    |other: usize| ways[other].as_ref().is_some_and(|way| way.distance == distance - 1);
                let via: Vec<usize> = self
                    .peers(node)
                    .into_iter()
                    .filter(|other| nearer(*other) && self.carries(*other, node, prefix, origin(*other)))
                    .collect();
                if !via.is_empty() {
                    found.push((node, Way { distance, via }));
                }
            }
            for (node, way) in found {
                ways[node] = Some(way);
            }
        }
        ways
    }
}

impl Reference {
    /// What `from` tells `to`, with the AS path as `to` sees it: its own, and with transit its best routes but those that it has
    /// from `to` itself.
    pub(crate) fn told(&self, world: &World, from: usize, to: usize) -> BTreeMap<IpNet, String> {
        let mut told = BTreeMap::new();
        for (prefix, ways) in &self.ways {
            let Some(way) = &ways[from] else { continue };
            let tells = match way.via.first() {
                None => true,
                Some(best) => *best != to && world.transit[&(from, to)],
            };
            if tells {
                told.insert(*prefix, as_path(world, ways, from));
            }
        }
        told
    }

    pub(crate) fn kernel(&self, node: usize) -> BTreeMap<IpNet, Vec<IpAddr>> {
        let mut kernel = BTreeMap::new();
        for (prefix, ways) in &self.ways {
            let Some(way) = ways[node].as_ref().filter(|way| way.distance > 0) else { continue };
            let hop = |other: &usize| match prefix {
                IpNet::V4(_) => address(*other),
                IpNet::V6(_) => IpAddr::V6(address6(*other)),
            };
            kernel.insert(*prefix, way.via.iter().map(hop).collect());
        }
        kernel
    }
}

/// The AS numbers from a node to the origin along the best ways.
fn as_path(world: &World, ways: &[Option<Way>], from: usize) -> String {
    let (mut node, mut path) = (from, vec![world.asns[from].to_string()]);
    while let Some(next) = ways[node].as_ref().and_then(|way| way.via.first()) {
        node = *next;
        path.push(world.asns[node].to_string());
    }
    path.join(" ")
}
