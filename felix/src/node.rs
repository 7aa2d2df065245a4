//! What this node is: addresses, labels, settings, pools and blocks, from objects and the kernel's facts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use felix_calc::Update;
use felix_calc::host::INTERFACE_PREFIX;
use ipnet::IpNet;
use jiff::SignedDuration;
use kube::ResourceExt as _;
use manx_crds::acceptance;
use manx_crds::store::{Key, Store};
use manx_crds::v1alpha1::FabricConfiguration;
use manx_crds::v1alpha1::settings::EffectiveNode;
use manx_ipam::allocator::{Input, Settings};
use manx_ipam::pool::Pool;

use crate::address::{Chosen, Offer};
use crate::allocation::cidr_of;
use crate::driver::Driver;

/// A pod's MTU where no uplink says another.
const MTU: u32 = 1500;

impl<S: Store> Driver<S> {
    pub(crate) fn configuration(&self) -> Option<&FabricConfiguration> {
        self.objects.configuration.iter().next()
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.objects.nodes.named(&self.node).map(|node| node.labels().clone()).unwrap_or_default()
    }

    pub(crate) fn effective(&self) -> EffectiveNode {
        EffectiveNode::of(self.configuration(), self.objects.fabric_nodes.named(&self.node), &self.labels())
    }

    /// Chooses again what this node goes by. Says so where it goes by another address than before.
    fn choose_address(&mut self) {
        if !self.objects.nodes.known() || !self.objects.fabric_nodes.known() {
            return;
        }
        let said = self.said_addresses();
        let before = if self.chosen.is_empty() { said } else { self.chosen.clone() };
        let facts = self.monitor.facts();
        let names: BTreeMap<u32, &str> = facts
            .links()
            .filter(|link| !link.name.starts_with(INTERFACE_PREFIX))
            .map(|link| (link.index, link.name.as_str()))
            .collect();
        let held: Vec<(String, IpAddr)> = facts
            .addresses()
            .filter(|held| !held.link_scope && held.usable && !held.address.addr().is_loopback())
            .filter_map(|held| Some(((*names.get(&held.ifindex)?).to_owned(), held.address.addr())))
            .collect();
        let offer = Offer {
            name: &self.node,
            effective: &self.effective(),
            node: self.objects.nodes.named(&self.node),
            held: &held,
            before: &before,
        };
        let chosen = offer.choose();
        let (old, new) = (before.text(), chosen.text());
        if !before.is_empty() && !chosen.is_empty() && old != new {
            tracing::info!(old, new, source = chosen.source, "the node's address changed");
            self.status.address_changed(&old, &new, &chosen.source);
        }
        if old != new {
            // Routes to pods carry the node's address as source.
            self.look_routes = self.look_routes.or_else(|| Some(Instant::now()));
        }
        self.chosen = chosen;
    }

    /// What the FabricNode says that we go by: an earlier life of ours chose it.
    fn said_addresses(&self) -> Chosen {
        let node = self.objects.fabric_nodes.named(&self.node);
        let said = node.and_then(|node| node.status.as_ref()?.addresses.clone()).unwrap_or_default();
        Chosen { ipv4: said.ipv4.map(IpAddr::from), ipv6: said.ipv6.map(IpAddr::from), ..Chosen::default() }
    }

    /// The smallest MTU of the interfaces that lead away from this node, or what the configuration says.
    pub(crate) fn pod_mtu(&self) -> u32 {
        if let Some(mtu) = self.effective().mtu {
            return mtu.into();
        }
        let uplinks =
            self.monitor.facts().links().filter(|link| {
                !link.loopback && link.is_usable() && !link.name.starts_with(INTERFACE_PREFIX)
            });
        uplinks.map(|link| link.mtu).min().unwrap_or(MTU)
    }

    /// Node, FabricNode, configuration or the kernel's addresses changed.
    pub(crate) fn refresh_node(&mut self) {
        self.choose_address();
        let mut settings = felix_input::node::settings(
            self.objects.nodes.named(&self.node),
            self.objects.fabric_nodes.named(&self.node),
            self.configuration(),
        );
        settings.service_prefixes.clone_from(&self.service_prefixes);
        let facts = self.monitor.facts();
        let pod_links: BTreeSet<u32> = facts
            .links()
            .filter(|link| link.name.starts_with(INTERFACE_PREFIX))
            .map(|link| link.index)
            .collect();
        settings.node_addresses.extend(
            facts
                .addresses()
                .filter(|held| !held.link_scope && !pod_links.contains(&held.ifindex))
                .map(|held| held.address.addr()),
        );
        if *self.graph.settings() != settings {
            self.graph.on_update(Update::Settings(settings));
            self.dirty(false);
        }
        let ipam = self.configuration().and_then(|configuration| configuration.spec.ipam.as_ref());
        let mut limits = Settings::default();
        if let Some(cooldown) = ipam.and_then(|ipam| ipam.cooldown) {
            limits.cooldown = SignedDuration::try_from(cooldown.get()).unwrap_or(limits.cooldown);
        }
        if let Some(spare) = ipam.and_then(|ipam| ipam.spare_blocks) {
            limits.spare_blocks = spare;
        }
        let (labels, now) = (self.labels(), self.now());
        self.allocator.handle_input(Input::Settings(limits), now);
        self.allocator.handle_input(Input::NodeLabels(labels), now);
        self.status.touch();
    }

    /// Pools or nodes came, went or changed. Half of them known, too much would seem to be outside.
    pub(crate) fn refresh_nat(&mut self) {
        if !self.objects.pools.known() || !self.objects.fabric_nodes.known() {
            return;
        }
        let nat = felix_input::nat::outgoing(self.objects.pools.iter(), self.objects.fabric_nodes.iter());
        if *self.graph.nat() != nat {
            self.graph.on_update(Update::OutgoingNat(nat));
            self.dirty(false);
        }
    }

    pub(crate) fn refresh_pools(&mut self) {
        if !self.objects.pools.known() {
            return;
        }
        let mut pools = Vec::new();
        for object in self.objects.pools.iter() {
            if let Err(refusal) = acceptance::ip_pool(object) {
                tracing::warn!(pool = object.name_any(), refusal.message, "IPPool serves nothing");
                continue;
            }
            match Pool::try_from(object) {
                Ok(pool) => pools.push(pool),
                Err(error) => tracing::warn!(%error, "IPPool serves nothing"),
            }
        }
        let now = self.now();
        self.allocator.handle_input(Input::Pools(pools), now);
        self.status.touch();
    }

    pub(crate) fn refresh_blocks(&mut self, listed: bool, changed: &BTreeSet<Key>) {
        let now = self.now();
        if listed {
            let blocks = self.objects.blocks.iter().cloned().collect();
            self.allocator.handle_input(Input::Listed(blocks), now);
            return;
        }
        if !self.objects.blocks.in_sync() {
            return;
        }
        for key in changed {
            let input = match self.objects.blocks.get(key) {
                Some(block) => Some(Input::Changed(block.clone())),
                None => {
                    let held: Vec<IpNet> =
                        self.allocator.blocks().map(manx_ipam::block::Block::cidr).collect();
                    cidr_of(held.into_iter(), key).map(Input::Gone)
                }
            };
            if let Some(input) = input {
                self.allocator.handle_input(input, now);
            }
        }
        if !changed.is_empty() {
            self.status.touch();
        }
    }
}
