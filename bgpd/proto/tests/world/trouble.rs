//! What happens to a world, and how it is broken on purpose.

use std::time::Duration;

use bgp_proto::config::AdminState;
use bgp_proto::{Asn, Input};
use ipnet::IpNet;

use super::{End, Policies, World, prefixes};
use crate::sim::{Net, name};

fn pick(net: &mut Net, bound: usize) -> usize {
    usize::try_from(net.rng.below(u64::try_from(bound).unwrap())).unwrap()
}

impl World {
    fn some_end(&self, net: &mut Net) -> End {
        let ends = self.transit.len();
        *self.transit.keys().nth(pick(net, ends)).unwrap()
    }

    /// One thing that goes wrong or is changed, and a while.
    pub(crate) fn trouble(&mut self, net: &mut Net) {
        let (node, peer) = self.some_end(net);
        let prefix = prefixes()[pick(net, prefixes().len())];
        let policies = self.policies != Policies::default();
        match net.rng.below(if policies { 26 } else { 20 }) {
            0..4 => {
                self.own[node].insert(prefix);
                net.originate(node, &prefix.to_string());
            }
            4..7 => {
                self.own[node].remove(&prefix);
                net.withdraw(node, &prefix.to_string());
            }
            7 => net.reset_connections(node, peer),
            8 => net.silence(node, peer),
            9 => net.heal(),
            10 | 11 => {
                let restarting = net.rng.below(2) == 0;
                if net.rng.below(2) == 0 {
                    net.kill(node)
                } else {
                    net.stop(node, restarting)
                }
                let pause = net.rng.below(3);
                net.run_for(Duration::from_secs(pause));
                net.start(node);
            }
            12 => net.input(node, Input::Reset { peer: name(peer), message: "test".to_owned() }),
            13 => net.latency = Duration::from_millis(1 + net.rng.below(400)),
            14 | 15 => {
                let transit = !self.transit[&(node, peer)];
                self.transit.insert((node, peer), transit);
                self.configure(net, node);
            }
            16 | 17 => {
                let within = ["10.244.0.0/22", "fd00:244::/46", "10.0.0.0/8"][pick(net, 3)].parse().unwrap();
                let within: Option<IpNet> = (net.rng.below(2) == 0).then_some(within);
                self.within.insert((node, peer), within);
                self.configure(net, node);
            }
            // Where several nodes share an AS, one that leaves it would be another world.
            18 if !self.policies.reflection => self.change_asn(net, node),
            20..26 => self.change_policy(net, (node, peer), prefix),
            _ => {
                let limit = u32::try_from(net.rng.below(4)).unwrap();
                let shutdown = net.rng.below(4) == 0;
                net.configure(node, |config| {
                    let to = config.peers.get_mut(&name(peer)).unwrap();
                    (to.max_prefixes.ipv4, to.max_prefixes.ipv6) = (limit, limit);
                    if shutdown {
                        to.admin = AdminState::Shutdown { message: "test".to_owned() };
                    }
                });
            }
        }
        let pause = net.rng.below(4000);
        net.run_for(Duration::from_millis(pause));
    }

    /// A filter gets or loses a rule, a reflector a client, or two neighbours become something else to each other, one after the other.
    fn change_policy(&mut self, net: &mut Net, end: End, prefix: IpNet) {
        let (node, peer) = end;
        if self.policies.roles && net.rng.below(3) == 0 {
            let which = net.rng.below(6);
            self.relate(node, peer, which);
            self.configure(net, node);
            let pause = net.rng.below(3000);
            net.run_for(Duration::from_millis(pause));
            return self.configure(net, peer);
        }
        if self.policies.reflection && net.rng.below(2) == 0 {
            let end = (node.min(peer), node.max(peer));
            if !self.clients.remove(&end) {
                self.clients.insert(end);
            }
            return self.configure(net, end.0);
        }
        if !self.policies.filters {
            return;
        }
        let filters = if net.rng.below(2) == 0 { &mut self.withheld } else { &mut self.refused };
        let filter = filters.entry(end).or_default();
        if !filter.remove(&prefix) {
            filter.insert(prefix);
        }
        self.configure(net, node);
    }

    /// A node's AS changes, and its neighbours hear of it one after the other.
    fn change_asn(&mut self, net: &mut Net, node: usize) {
        self.next_asn += 1;
        self.asns[node] = Asn(self.next_asn);
        self.configure(net, node);
        for peer in self.peers(node) {
            let pause = net.rng.below(500);
            net.run_for(Duration::from_millis(pause));
            self.configure(net, peer);
        }
    }

    /// Ends what would keep the network from its rest: silence, limits, shutdowns.
    pub(crate) fn lift(&self, net: &mut Net) {
        net.heal();
        for node in 0..self.nodes {
            net.configure(node, |config| {
                for to in config.peers.values_mut() {
                    (to.max_prefixes.ipv4, to.max_prefixes.ipv6) = (1000, 1000);
                    to.admin = AdminState::Up;
                }
            });
        }
    }

    // ---- mutants: the network does what this world does not say, as a speaker with a fault would

    /// A speaker tells on what it should keep to itself.
    pub(crate) fn leak(&mut self, net: &mut Net) {
        for end in
            self.transit.iter().filter(|(_, transit)| !**transit).map(|(end, _)| *end).collect::<Vec<_>>()
        {
            net.configure(end.0, |config| {
                config.peers.get_mut(&name(end.1)).unwrap().export.transit = true;
            });
        }
    }

    /// A speaker goes on telling what it should have withdrawn.
    pub(crate) fn lose_a_withdrawal(&mut self, _: &mut Net) {
        let reference = self.reference();
        let mut told = self.transit.keys().flat_map(|(from, to)| reference.told(self, *from, *to));
        let (prefix, _) = told.next().unwrap();
        self.own.iter_mut().for_each(|own| {
            own.remove(&prefix);
        });
    }

    /// The speakers take what this world says they refuse.
    pub(crate) fn forget_an_import_policy(&mut self, net: &mut Net) {
        let nothing: IpNet = "192.0.2.0/24".parse().unwrap();
        let (node, _) = self.some_end(net);
        for within in self.within.iter_mut().filter(|(end, _)| end.0 == node).map(|(_, within)| within) {
            *within = Some(nothing);
        }
    }

    /// The speakers' filters do what this world knows nothing of.
    pub(crate) fn forget_the_filters(&mut self, _: &mut Net) {
        (self.withheld, self.refused) = Default::default();
    }

    /// Nobody is a client, as this world has it.
    pub(crate) fn forget_the_clients(&mut self, _: &mut Net) {
        self.clients.clear();
    }

    /// Nobody is anything to anybody, as this world has it.
    pub(crate) fn forget_the_roles(&mut self, _: &mut Net) {
        self.roles.clear();
    }

    pub(crate) fn cut_for_good(&mut self, net: &mut Net) {
        let (node, peer) = self.some_end(net);
        net.silence(node, peer);
    }

    /// A route that goes and comes back.
    pub(crate) fn flap(&self, net: &mut Net) {
        let node = self.own.iter().position(|own| !own.is_empty()).unwrap();
        let prefix = self.own[node].first().unwrap().to_string();
        net.withdraw(node, &prefix);
        net.run_for(Duration::from_secs(1));
        net.originate(node, &prefix);
    }
}
