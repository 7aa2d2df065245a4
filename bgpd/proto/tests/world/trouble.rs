//! What happens to a world.

use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::config::{AdminState, PeerConfig};
use bgp_proto::{AfiSafi, Input};

use super::{End, Reference, Seen, Since, World, prefixes};
use crate::sim::cabling::Attachment;
use crate::sim::{Net, Rng, address, address6, name};

const SECOND: Duration = Duration::from_secs(1);

/// What a node has configured towards a neighbour, wherever it stands.
fn config_of(net: &mut Net, (node, peer): End, change: impl FnOnce(&mut PeerConfig)) {
    net.configure(node, |config| {
        let range = config.ranges.get_mut(&name(peer)).map(|range| &mut range.peer);
        change(range.or(config.peers.get_mut(&name(peer))).unwrap());
    });
}

/// A while up to this.
fn pass(net: &mut Net, most: Duration) {
    let pause = net.rng.below(u64::try_from(most.as_millis()).unwrap());
    net.run_for(Duration::from_millis(pause));
}

impl World {
    pub(super) fn some_end(&self, rng: &mut Rng) -> End {
        *self.ends.keys().nth(rng.pick(self.ends.len())).unwrap()
    }

    /// One thing that goes wrong or is changed, and a while.
    pub(crate) fn trouble(&mut self, net: &mut Net) {
        let (node, peer) = self.some_end(&mut net.rng);
        let prefix = prefixes()[net.rng.pick(prefixes().len())];
        match net.rng.below(28) {
            0..4 => {
                let limited = self.kinds.filters && net.rng.once_in(4);
                let some = self.peers(node).into_iter().filter(|_| net.rng.once_in(2)).collect();
                self.own[node].insert(prefix, limited.then_some(some));
                self.originate(net, node, prefix);
            }
            4..7 => {
                self.own[node].remove(&prefix);
                net.withdraw(node, &prefix.to_string());
            }
            7 => net.reset_connections(node, peer),
            8 => net.silence(node, peer),
            9 => net.heal(),
            10 | 11 => restart(net, node),
            12 | 13 => say(net, (node, peer)),
            14 => net.latency = Duration::from_millis(1 + net.rng.below(400)),
            15 => {
                let deaf = net.rng.once_in(2);
                net.set_deaf(node, deaf);
            }
            // Where several nodes share an AS, one that leaves it would be another world.
            16 if !self.kinds.reflection => self.change_asn(net, node),
            17 if self.kinds.next_hops => self.change_reachability(net, (node, peer)),
            18 => self.renumber(net, (node, peer)),
            19 => {
                let limit = u32::try_from(net.rng.below(4)).unwrap();
                let shutdown = net.rng.once_in(4);
                config_of(net, (node, peer), |to| {
                    (to.max_prefixes.ipv4, to.max_prefixes.ipv6) = (limit, limit);
                    if shutdown {
                        to.admin = AdminState::Shutdown { message: "test".to_owned() };
                    }
                });
            }
            _ => self.change_terms(net, (node, peer)),
        }
        // Now and then long enough for what is kept of a lost session to grow old.
        let most = if net.rng.once_in(20) { 200 * SECOND } else { 4 * SECOND };
        pass(net, most);
    }

    /// People change their minds, at one end first.
    fn change_terms(&mut self, net: &mut Net, (node, peer): End) {
        let changes = self.kinds.changes();
        let change = changes[net.rng.pick(changes.len())];
        self.draw((node, peer), change, &mut net.rng);
        self.configure(net, node);
        pass(net, 3 * SECOND);
        self.configure(net, peer);
    }

    /// A node's AS changes, and its neighbours hear of it one after the other.
    fn change_asn(&mut self, net: &mut Net, node: usize) {
        self.asns[node] = self.fresh_asn();
        self.configure(net, node);
        for peer in self.peers(node) {
            pass(net, SECOND / 2);
            self.configure(net, peer);
        }
    }

    /// The way to a next hop breaks off, or is there again: a neighbour's address, or any node's.
    fn change_reachability(&mut self, net: &mut Net, (node, peer): End) {
        let other = net.rng.pick(self.nodes);
        let address = match net.rng.below(3) {
            0 => self.cabling.sees(node, peer),
            1 => address(other),
            _ => IpAddr::V6(address6(other)),
        };
        let was_reachable = self.unreachable.insert((node, address));
        if !was_reachable {
            self.unreachable.remove(&(node, address));
        }
        net.set_reachable(node, address, !was_reachable);
    }

    /// An interface is gone and comes back under another number.
    fn renumber(&mut self, net: &mut Net, (node, peer): End) {
        let Attachment::Interface { own, .. } = self.cabling.of(node, peer) else { return };
        self.interfaces[node] += 1;
        let index = self.interfaces[node];
        self.cabling.attach(node, peer, Attachment::Interface { index, own });
        self.configure(net, node);
    }

    /// Ends what would keep the network from its rest: silence, deafness, limits, shutdowns.
    pub(crate) fn lift(&self, net: &mut Net) {
        net.heal();
        for node in 0..self.nodes {
            net.set_deaf(node, false);
            net.configure(node, |config| {
                let ranges = config.ranges.values_mut().map(|range| &mut range.peer);
                for to in config.peers.values_mut().chain(ranges) {
                    (to.max_prefixes.ipv4, to.max_prefixes.ipv6) = (1000, 1000);
                    to.admin = AdminState::Up;
                }
            });
        }
    }

    // ---- what is gone for long

    /// A node dies, or a link is cut: how the world is then, at each of the times that restart times tell apart.
    pub(crate) fn lose(&self, net: &mut Net) -> Vec<(Since, World)> {
        let (node, peer) = self.some_end(&mut net.rng);
        let cut = net.rng.once_in(2);
        let ends: Vec<End> = match cut {
            true => vec![(node, peer), (peer, node)],
            false => self.peers(node).into_iter().map(|peer| (node, peer)).collect(),
        };
        let seen = Seen::of(self, net);
        let reference = Reference::of(self, &seen);
        let after = [Since::Moments, Since::Minutes, Since::Long].map(|since| {
            let kept = |(from, to): &End| ((*from, *to), reference.kept(*from, *to, since, cut));
            (since, World { lost: ends.iter().map(kept).collect(), ..self.clone() })
        });
        if cut {
            net.silence(node, peer);
        } else {
            net.kill(node);
        }
        after.into()
    }

    /// Whatever was lost is back.
    pub(crate) fn find(&self, net: &mut Net) {
        net.heal();
        for node in 0..self.nodes {
            if net.nodes[node].speaker.is_none() {
                net.start(node);
            }
        }
    }
}

/// A process dies or ends, and is back at once, soon, or when others have given up on it.
fn restart(net: &mut Net, node: usize) {
    let restarting = net.rng.once_in(2);
    if net.rng.once_in(2) {
        net.kill(node)
    } else {
        net.stop(node, restarting)
    }
    let pause = [0, 1, 2, 2, 30, 130][net.rng.pick(6)];
    net.run_for(pause * SECOND);
    net.start(node);
}

/// Somebody or something says a word about a session.
fn say(net: &mut Net, (node, peer): End) {
    let (peer, text) = (net.peer_name(node, peer), "test".to_owned());
    let family = AfiSafi::ALL[net.rng.pick(2)];
    let input = match net.rng.below(5) {
        0 => Input::Reset { peer, message: text },
        1 => Input::RequestRefresh { peer, family },
        2 => Input::TellAgain { peer, family },
        3 => Input::LinkDown { peer, text },
        _ => Input::BfdDown { peer, text },
    };
    net.input(node, input);
}
