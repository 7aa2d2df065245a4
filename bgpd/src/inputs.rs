//! What bgpd works from while the datastore gives no answer (`manx_daemon::inputs` keeps the file).
//!
//! Of Services it is what they made this node originate: they and their endpoints are too many. It counts only while
//! the kernel is the one of then. After a power-cut neither the pods behind a Service nor kube-proxy's rules are there
//! before the API server is, and other nodes announce the same address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_proto::AfiSafi;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Secret};
use manx_crds::v1alpha1::{
    BFDProfile, BGPAdvertisement, BGPFilter, BGPPeer, FabricConfiguration, FabricNode, IPBlock, IPPool,
};
use manx_daemon::inputs::keeper::Gather;
use manx_daemon::inputs::{Draft, Inputs, Refusal};

use crate::auth::SecretKey;
use crate::driver::Driver;
use crate::objects::Objects;

/// Prefixes of Services, each with the BGPAdvertisements that announce it.
const SERVICES: &str = "services";

/// Prefixes of Services, each with the BGPAdvertisements that announce it.
pub(crate) type ServicePrefixes = BTreeMap<IpNet, BTreeSet<String>>;

/// Everything, as it stood when it was written.
#[derive(Debug)]
pub(crate) struct Memory {
    configuration: Vec<FabricConfiguration>,
    fabric_nodes: Vec<FabricNode>,
    nodes: Vec<Node>,
    peers: Vec<BGPPeer>,
    filters: Vec<BGPFilter>,
    advertisements: Vec<BGPAdvertisement>,
    bfd_profiles: Vec<BFDProfile>,
    pools: Vec<IPPool>,
    blocks: Vec<IPBlock>,
    /// The keys that sessions of this node use, and nothing else.
    secrets: Vec<Secret>,
    services: ServicePrefixes,
}

impl Memory {
    pub(crate) fn read(mut inputs: Inputs, same_boot: bool) -> Result<Self, Refusal> {
        let services = inputs.value(SERVICES)?;
        Ok(Self {
            configuration: inputs.take()?,
            fabric_nodes: inputs.take()?,
            nodes: inputs.take()?,
            peers: inputs.take()?,
            filters: inputs.take()?,
            advertisements: inputs.take()?,
            bfd_profiles: inputs.take()?,
            pools: inputs.take()?,
            blocks: inputs.take()?,
            secrets: inputs.take()?,
            services: if same_boot { services } else { ServicePrefixes::new() },
        })
    }
}

impl Objects {
    /// The objects as they are now, to be written down by another thread.
    pub(crate) fn gather(&self, services: ServicePrefixes, keys: &BTreeSet<SecretKey>) -> Gather {
        let configuration = self.configuration.share();
        let fabric_nodes = self.fabric_nodes.share();
        let nodes = self.nodes.share();
        let peers = self.peers.share();
        let filters = self.filters.share();
        let advertisements = self.advertisements.share();
        let bfd_profiles = self.bfd_profiles.share();
        let pools = self.pools.share();
        let blocks = self.blocks.share();
        let secrets = self.secrets.excerpt(keys);
        Box::new(move || {
            let mut draft = Draft::default();
            draft.kind(configuration.1, whole(&configuration.0))?;
            draft.kind(fabric_nodes.1, whole(&fabric_nodes.0))?;
            draft.kind(nodes.1, whole(&nodes.0))?;
            draft.kind(peers.1, whole(&peers.0))?;
            draft.kind(filters.1, whole(&filters.0))?;
            draft.kind(advertisements.1, whole(&advertisements.0))?;
            draft.kind(bfd_profiles.1, whole(&bfd_profiles.0))?;
            draft.kind(pools.1, whole(&pools.0))?;
            draft.kind(blocks.1, whole(&blocks.0))?;
            draft.kind(None, secrets)?;
            draft.value(SERVICES, &services)?;
            Ok(draft)
        })
    }

    /// Takes the memory for what is; what was heard already is newer.
    fn remember(&mut self, memory: Memory) {
        self.configuration.remember(memory.configuration);
        self.fabric_nodes.remember(memory.fabric_nodes);
        self.nodes.remember(memory.nodes);
        self.peers.remember(memory.peers);
        self.filters.remember(memory.filters);
        self.advertisements.remember(memory.advertisements);
        self.bfd_profiles.remember(memory.bfd_profiles);
        self.pools.remember(memory.pools);
        self.blocks.remember(memory.blocks);
        self.secrets.kind.remember(memory.secrets);
    }
}

fn whole<K: Clone>(objects: &[Arc<K>]) -> impl Iterator<Item = K> + '_ {
    objects.iter().map(|object| K::clone(object))
}

impl Driver {
    /// Falls back on the memory where the store is silent, and writes a new one where something changed.
    pub(crate) fn tick_inputs(&mut self, now: Instant) {
        let heard = self.objects.in_sync() && self.services.in_sync();
        // What the objects ask for of Services is known once they were looked at.
        if heard && !self.objects_changed {
            self.inputs.heard(now);
            self.status.introduce();
        } else if !heard && self.inputs.is_silent(now) {
            match self.inputs.recall(Memory::read) {
                Some(memory) => {
                    self.services.remember(&memory.services);
                    self.objects.remember(memory);
                }
                // The Secrets alone may be closed to us: sessions that need none do not wait for them.
                None => self.objects.is_without_secrets = true,
            }
            self.status.touch();
            self.look(now);
        }
        for family in self.sweep.due(now) {
            self.fib.complete(family);
        }
        let Self { inputs, objects, services, desire, .. } = self;
        inputs.tick(now, || objects.gather(services.prefixes(), &desire.secrets));
    }
}

/// How long routes of a peer that only the store knew of are kept for it to announce them again: what RFC 4724 §4.2
/// suggests for a session to come back.
const RETURN: Duration = Duration::from_secs(180);

/// When routes of an earlier life leave the kernel: the speaker has all of its own, and the store was heard. A memory
/// may lack a peer, whose routes are then nobody's.
///
/// ```text
///   FibComplete ──► held ── the store was heard, its peers are the same ──► swept
///                    └───── and there are others: 180 s ──────────────────► swept
/// ```
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    families: BTreeSet<AfiSafi>,
    /// The store was heard; from then on nothing waits for it.
    not_before: Option<Instant>,
}

impl Sweep {
    /// The speaker has handed over every route of the family.
    pub(crate) fn complete(&mut self, family: AfiSafi) {
        self.families.insert(family);
    }

    /// The store was heard whole; `is_other`: it changed what the speaker was configured to.
    pub(crate) fn heard(&mut self, is_other: bool, now: Instant) {
        let wait = if is_other && !self.families.is_empty() { RETURN } else { Duration::ZERO };
        self.not_before = self.not_before.or_else(|| now.checked_add(wait));
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.families.is_empty())
    }

    fn due(&mut self, now: Instant) -> BTreeSet<AfiSafi> {
        if self.not_before.is_some_and(|at| at <= now) {
            std::mem::take(&mut self.families)
        } else {
            BTreeSet::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_an_earlier_life_wait_for_the_store() {
        let begun = Instant::now();
        let v4 = BTreeSet::from([AfiSafi::Ipv4Unicast]);
        let mut same = Sweep::default();
        same.complete(AfiSafi::Ipv4Unicast);
        assert_eq!((same.next_tick(), same.due(begun)), (None, BTreeSet::new()));
        same.heard(false, begun);
        assert_eq!((same.next_tick(), same.due(begun)), (Some(begun), v4.clone()));
        // Heard before the speaker was done: nothing waits.
        let mut first = Sweep::default();
        first.heard(true, begun);
        first.complete(AfiSafi::Ipv4Unicast);
        assert_eq!(first.due(begun), v4);
        // A peer that the memory did not have: its routes are given time.
        let mut other = Sweep::default();
        other.complete(AfiSafi::Ipv4Unicast);
        other.heard(true, begun);
        other.heard(false, begun);
        assert_eq!(other.due(begun), BTreeSet::new());
        assert_eq!(other.due(begun + RETURN), v4);
    }
}
