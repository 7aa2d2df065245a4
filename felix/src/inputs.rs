//! What felix works from while the datastore gives no answer (`manx_daemon::inputs` keeps the file).
//!
//! All pods are among it, not only this node's: policy compiled without those of other nodes would deny what they may.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodSpec, PodStatus};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use manx_crds::store::Store;
use manx_crds::v1alpha1::{BGPAdvertisement, FabricConfiguration, FabricNode, IPBlock, IPPool};
use manx_daemon::inputs::keeper::Gather;
use manx_daemon::inputs::{Draft, Inputs, Refusal};
use manx_ipam::allocator::Input;

use crate::driver::Driver;
use crate::objects::Objects;

/// Prefixes of Services that this node originates: the Services themselves are too many.
const SERVICE_PREFIXES: &str = "servicePrefixes";

/// Everything, as it stood when it was written.
#[derive(Debug)]
pub(crate) struct Memory {
    configuration: Vec<FabricConfiguration>,
    fabric_nodes: Vec<FabricNode>,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    namespaces: Vec<Namespace>,
    policies: Vec<NetworkPolicy>,
    pools: Vec<IPPool>,
    blocks: Vec<IPBlock>,
    advertisements: Vec<BGPAdvertisement>,
    service_prefixes: BTreeSet<IpNet>,
}

impl Memory {
    pub(crate) fn read(mut inputs: Inputs) -> Result<Self, Refusal> {
        Ok(Self {
            configuration: inputs.take()?,
            fabric_nodes: inputs.take()?,
            nodes: inputs.take()?,
            pods: inputs.take()?,
            namespaces: inputs.take()?,
            policies: inputs.take()?,
            pools: inputs.take()?,
            blocks: inputs.take()?,
            advertisements: inputs.take()?,
            service_prefixes: inputs.value(SERVICE_PREFIXES)?,
        })
    }
}

impl Objects {
    /// The objects as they are now, to be written down by another thread.
    pub(crate) fn gather(&self, service_prefixes: &BTreeSet<IpNet>) -> Gather {
        let configuration = self.configuration.share();
        let fabric_nodes = self.fabric_nodes.share();
        let nodes = self.nodes.share();
        let pods = self.pods.share();
        let namespaces = self.namespaces.share();
        let policies = self.policies.share();
        let pools = self.pools.share();
        let blocks = self.blocks.share();
        let advertisements = self.advertisements.share();
        let service_prefixes = service_prefixes.clone();
        Box::new(move || {
            let mut draft = Draft::default();
            draft.kind(configuration.1, whole(&configuration.0))?;
            draft.kind(fabric_nodes.1, whole(&fabric_nodes.0))?;
            draft.kind(nodes.1, whole(&nodes.0))?;
            draft.kind(pods.1, pods.0.iter().map(|pod| trimmed(pod)))?;
            draft.kind(namespaces.1, whole(&namespaces.0))?;
            draft.kind(policies.1, whole(&policies.0))?;
            draft.kind(pools.1, whole(&pools.0))?;
            draft.kind(blocks.1, whole(&blocks.0))?;
            draft.kind(advertisements.1, whole(&advertisements.0))?;
            draft.value(SERVICE_PREFIXES, &service_prefixes)?;
            Ok(draft)
        })
    }

    /// Takes the memory for what is; what was heard already is newer.
    pub(crate) fn remember(&mut self, memory: Memory) {
        let news = &mut self.news;
        self.configuration.remember(memory.configuration);
        self.fabric_nodes.remember(memory.fabric_nodes);
        self.nodes.remember(memory.nodes);
        self.pools.remember(memory.pools);
        self.advertisements.remember(memory.advertisements);
        news.pods.extend(self.pods.remember(memory.pods));
        news.namespaces.extend(self.namespaces.remember(memory.namespaces));
        news.policies.extend(self.policies.remember(memory.policies));
        news.remembered = Some(memory.blocks.clone());
        self.blocks.remember(memory.blocks);
        (news.node, news.nat, news.pools, news.services) = (true, true, true, true);
    }
}

fn whole<K: Clone>(objects: &[Arc<K>]) -> impl Iterator<Item = K> + '_ {
    objects.iter().map(|object| K::clone(object))
}

/// What felix reads of a pod, wherever it runs: there may be very many.
pub(crate) fn trimmed(pod: &Pod) -> Pod {
    let mut trimmed = Pod { metadata: pod.metadata.clone(), ..Pod::default() };
    trimmed.metadata.finalizers = None;
    if let Some(spec) = &pod.spec {
        trimmed.spec = Some(PodSpec {
            node_name: spec.node_name.clone(),
            host_network: spec.host_network,
            containers: spec.containers.clone(),
            init_containers: spec.init_containers.clone(),
            ..PodSpec::default()
        });
    }
    if let Some(status) = &pod.status {
        trimmed.status = Some(PodStatus {
            phase: status.phase.clone(),
            pod_ip: status.pod_ip.clone(),
            pod_ips: status.pod_ips.clone(),
            ..PodStatus::default()
        });
    }
    trimmed
}

impl<S: Store> Driver<S> {
    /// Falls back on the memory where the store is silent, and writes a new one where something changed.
    pub(crate) fn tick_inputs(&mut self, now: Instant) {
        if self.inputs.is_silent(now)
            && !self.objects.in_sync()
            && let Some(memory) = self.inputs.recall(|inputs, _| Memory::read(inputs))
        {
            if self.service_prefixes.is_empty() {
                self.service_prefixes.clone_from(&memory.service_prefixes);
            }
            self.objects.remember(memory);
            self.digest_news();
            self.status.touch();
        }
        self.inputs.tick(now, || self.objects.gather(&self.service_prefixes));
    }

    /// The memory's objects are in the graph.
    pub(crate) fn remembered(&mut self, blocks: Vec<IPBlock>) {
        if !self.objects.blocks.in_sync() {
            let now = self.now();
            self.allocator.handle_input(Input::Remembered(blocks), now);
        }
        self.programming.resync = true;
        self.dirty(true);
        self.retry_adds();
    }
}

#[cfg(test)]
mod tests;
