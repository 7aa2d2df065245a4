//! Worlds that are wrong on purpose: the network does what the world does not say, as speakers with a fault would.

use std::collections::BTreeSet;
use std::time::Duration;

use bgp_proto::config::AddPath;
use bgp_proto::policy::NextHopMode;
use ipnet::IpNet;

use super::{Reference, Seen, Terms, World, prefixes};
use crate::sim::cabling::Cabling;
use crate::sim::{Net, name};

/// What the world forgets.
pub(crate) type Mutant = (&'static str, fn(&mut World));

pub(crate) const FORGOTTEN: [Mutant; 16] = [
    ("filters", |world| {
        world.each(|terms| (terms.withheld, terms.refused) = (BTreeSet::new(), BTreeSet::new()));
    }),
    ("drained sessions", |world| world.each(|terms| terms.drained = false)),
    ("roles", |world| world.each(|terms| terms.role = None)),
    ("clients", |world| world.each(|terms| terms.client = false)),
    ("several paths", |world| {
        world.each(|terms| terms.add_path = AddPath::default());
    }),
    ("how many paths", |world| {
        world.each(|terms| terms.add_path.send = terms.add_path.send.min(1));
    }),
    // Of the combinations each half alone: they must not hide each other.
    ("roles where there are several paths", |world| {
        world.where_several(|terms| terms.role = None);
    }),
    ("clients where there are several paths", |world| {
        world.where_several(|terms| terms.client = false);
    }),
    ("interfaces", |world| world.cabling = Cabling::default()),
    ("IPv6 next hops of IPv4 prefixes", |world| {
        world.each(|terms| terms.extended_next_hop = false);
    }),
    ("global addresses beside link-local ones", |world| {
        world.each(|terms| terms.names_ipv6 = !terms.names_ipv6);
    }),
    ("whose next hop is told", |world| {
        world.each(|terms| terms.next_hop = NextHopMode::Auto);
    }),
    ("what is unreachable", |world| world.unreachable.clear()),
    ("how many next hops are used", |world| {
        world.max_paths.iter_mut().for_each(|paths| *paths = if *paths == 1 { 16 } else { 1 })
    }),
    ("other AS numbers", |world| world.each(|terms| terms.local_asn = None)),
    ("our own AS in a path", |world| world.each(|terms| terms.allow_own_asn = 0)),
];

impl World {
    fn each(&mut self, forget: impl FnMut(&mut Terms)) {
        self.ends.values_mut().for_each(forget);
    }

    fn where_several(&mut self, forget: impl FnMut(&mut Terms)) {
        let several = |terms: &&mut Terms| terms.add_path.send > 0;
        self.ends.values_mut().filter(several).for_each(forget);
    }

    /// A speaker tells on what it should keep to itself.
    pub(crate) fn leak(&mut self, net: &mut Net) {
        for (node, peer) in self.ends.iter().filter(|(_, terms)| !terms.transit).map(|(end, _)| *end) {
            net.configure(node, |config| {
                let range = config.ranges.get_mut(&name(peer)).map(|range| &mut range.peer);
                range.or(config.peers.get_mut(&name(peer))).unwrap().export.transit = true;
            });
        }
    }

    /// A speaker goes on telling what it should have withdrawn.
    pub(crate) fn lose_a_withdrawal(&mut self, net: &mut Net) {
        let seen = Seen::of(self, net);
        let reference = Reference::of(self, &seen);
        let is_told = |prefix: &IpNet| {
            self.ends.keys().any(|(from, to)| !reference.told(*from, *to, *prefix).is_empty())
        };
        let prefix = prefixes().into_iter().find(is_told).unwrap();
        self.own.iter_mut().for_each(|own| drop(own.remove(&prefix)));
    }

    /// The speakers take what this world says they refuse.
    pub(crate) fn forget_an_import_policy(&mut self, net: &mut Net) {
        let nothing: IpNet = "192.0.2.0/24".parse().unwrap();
        let (node, _) = self.some_end(&mut net.rng);
        for (_, terms) in self.ends.iter_mut().filter(|(end, _)| end.0 == node) {
            terms.within = Some(nothing);
        }
    }

    pub(crate) fn cut_for_good(&mut self, net: &mut Net) {
        let (node, peer) = self.some_end(&mut net.rng);
        net.silence(node, peer);
    }

    /// A route that goes and comes back.
    pub(crate) fn flap(&self, net: &mut Net) {
        let node = self.own.iter().position(|own| !own.is_empty()).unwrap();
        let prefix = *self.own[node].keys().next().unwrap();
        net.withdraw(node, &prefix.to_string());
        net.run_for(Duration::from_secs(1));
        self.originate(net, node, prefix);
    }
}
