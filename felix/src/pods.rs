//! Pods as the graph sees them: those of this node by their attachments, all others by what their status says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use felix_calc::{Endpoint, EndpointId, Update};
use felix_input::pod::{self, Local};
use felix_kernel::route::Route;
use manx_crds::store::{Key, Store};
use manx_ipam::journal::Attachment;

use crate::driver::{Attached, Driver};
use crate::wiring;

impl<S: Store> Driver<S> {
    /// A link exists: its pod joins the graph, its addresses are routed to it.
    pub(crate) fn attach(&mut self, attachment: Attachment, attached: Attached) {
        let key = Key::namespaced(&attached.namespace, &attached.name);
        let routes = self.routes_of(&attached);
        self.programming.routes.set.extend(routes);
        self.programming.touch(&attached);
        self.attached.insert(attachment, attached);
        self.refresh_pod(&key);
        self.dirty(true);
    }

    /// A link is to go: nothing names it any more. False if nobody knew it.
    pub(crate) fn detach(&mut self, attachment: &Attachment) -> bool {
        let Some(attached) = self.attached.remove(attachment) else { return false };
        self.programming.touch(&attached);
        let routes = self.routes_of(&attached);
        for route in &routes {
            // A route set and withdrawn in one hand-over is not written at all.
            let key = route.key();
            self.programming.routes.set.retain(|set| set.key() != key);
            self.programming.routes.withdraw.push(key);
        }
        self.refresh_pod(&Key::namespaced(&attached.namespace, &attached.name));
        self.dirty(true);
        true
    }

    /// The node's own traffic to a pod carries the node's address, so that policies and logs name the node.
    pub(crate) fn routes_of(&self, attached: &Attached) -> Vec<Route> {
        let own = &self.graph.state().settings.node_addresses;
        let source = |address: &IpAddr| {
            let named = self.chosen.of_family(address.is_ipv4())?;
            // The kernel takes only an address that it holds.
            (own.contains(&named) && self.monitor.facts().is_local(named)).then_some(named)
        };
        attached
            .addresses
            .iter()
            .map(|address| wiring::pod_route(*address, attached.index, source(address)))
            .collect()
    }

    /// Tells the graph what is known of a pod now.
    pub(crate) fn refresh_pod(&mut self, key: &Key) {
        let (namespace, name) = (key.namespace.clone().unwrap_or_default(), key.name.clone());
        let object = self.objects.pods.get(key);
        let is_its = |attached: &&Attached| attached.namespace == namespace && attached.name == name;
        // Of the many pods elsewhere nobody asks.
        let allowed = object
            .filter(|_| self.attached.values().any(|attached| is_its(&attached)))
            .map(|object| self.objects.allowed_sources(&namespace, object));
        let sources = allowed.as_ref().and_then(|allowed| allowed.as_ref().ok());
        let mut now: Vec<(EndpointId, Endpoint)> = Vec::new();
        let mut here = false;
        for (attachment, attached) in &self.attached {
            if !is_its(&attached) {
                continue;
            }
            here = true;
            let local = Local {
                interface: attached.host_interface.clone(),
                addresses: attached.addresses.iter().copied().collect(),
                sources: sources.cloned().unwrap_or_default(),
            };
            // Without its Pod nobody knows its labels: the link stays closed.
            if let Some(endpoint) = object.and_then(|object| pod::endpoint(object, Some(&local))) {
                now.push((local_id(attachment, &namespace, &name), endpoint));
            }
        }
        if !here
            && let Some(object) = object
            && let Some(endpoint) = pod::endpoint(object, None)
        {
            now.push((pod::endpoint_id(object), endpoint));
        }
        let ids: BTreeSet<EndpointId> = now.iter().map(|(id, _)| id.clone()).collect();
        let before = if ids.is_empty() {
            self.endpoints.remove(key)
        } else {
            self.endpoints.insert(key.clone(), ids.clone())
        };
        for id in before.unwrap_or_default().difference(&ids) {
            self.graph.on_update(Update::Endpoint(id.clone(), None));
        }
        for (id, endpoint) in now {
            self.graph.on_update(Update::Endpoint(id, Some(endpoint)));
        }
        // What was not heard yet may allow more, and the kernel is as an earlier life left it.
        if let Some(allowed) = allowed.filter(|_| self.objects.known()) {
            self.follow_sources(key, &allowed);
        }
        self.dirty(false);
    }

    /// Takes in what changed in the store since the last look.
    pub(crate) fn digest_news(&mut self) {
        let news = std::mem::take(&mut self.objects.news);
        if news.any {
            self.inputs.touch();
        }
        if news.node {
            self.refresh_node();
        }
        if news.fabric_node_gone {
            self.status.forget_written();
        }
        for change in std::mem::take(&mut self.objects.service_changes) {
            self.services.take(change);
        }
        if news.services || news.node || !news.namespaces.is_empty() {
            self.refresh_services(&news.namespaces);
        }
        for key in &news.namespaces {
            let labels = self.objects.namespaces.get(key).map(felix_input::namespace::labels);
            self.graph.on_update(Update::Namespace(key.name.clone(), labels));
            self.dirty(false);
        }
        for key in &news.policies {
            self.refresh_policy(key);
        }
        let concerned = self.attached_in(|namespace| news.in_sync || news.namespaces.contains(namespace));
        for key in news.pods.union(&concerned) {
            self.refresh_pod(key);
        }
        if news.nat {
            self.refresh_nat();
        }
        if news.pools {
            self.refresh_pools();
        }
        self.refresh_blocks(news.blocks_listed, &news.blocks);
        if let Some(blocks) = news.remembered {
            self.remembered(blocks);
        }
        if news.in_sync {
            self.inputs.heard(Instant::now());
            tracing::info!(
                pods = self.objects.pods.objects.len(),
                policies = self.objects.policies.objects.len(),
                "the datastore was read"
            );
            self.programming.resync = true;
            self.dirty(true);
            self.say_addresses();
        }
        if news.in_sync || !news.pods.is_empty() || !news.namespaces.is_empty() {
            self.retry_adds();
        }
    }

    /// What an earlier life of ours did not come to say of its pods. Of two sandboxes the later ADD has said its own.
    fn say_addresses(&mut self) {
        let mut of_pods: BTreeMap<Key, Vec<BTreeSet<IpAddr>>> = BTreeMap::new();
        for attached in self.attached.values() {
            let key = Key::namespaced(&attached.namespace, &attached.name);
            of_pods.entry(key).or_default().push(attached.addresses.iter().copied().collect());
        }
        for (key, sandboxes) in of_pods {
            let said = self.objects.pods.get(&key).map(pod::status_addresses);
            if let [addresses] = sandboxes.as_slice()
                && said.is_some_and(|said| said != *addresses)
            {
                let addresses: Vec<IpAddr> = addresses.iter().copied().collect();
                self.status.pod_addresses(&key, &addresses, true);
            }
        }
    }

    fn refresh_policy(&mut self, key: &Key) {
        let namespace = key.namespace.clone().unwrap_or_default();
        let id = felix_calc::PolicyKey {
            name: key.name.clone(),
            namespace,
            kind: felix_calc::PolicyKind::KubernetesNetworkPolicy,
        };
        let policy = match self.objects.policies.get(key) {
            Some(object) => {
                let translated = felix_input::network_policy(object);
                for rejected in &translated.rejected {
                    tracing::warn!(policy = %id, error = rejected.text, effect = "the part fails closed", "policy rejected");
                }
                self.programming.last_policies.push(format!("{}/{}", id.namespace, id.name));
                Some(translated.policy)
            }
            None => None,
        };
        self.graph.on_update(Update::Policy(id, policy));
        self.dirty(false);
    }
}

/// Two sandboxes of one pod may exist for a moment: each is an endpoint of its own.
fn local_id(attachment: &Attachment, namespace: &str, name: &str) -> EndpointId {
    EndpointId(format!("{namespace}/{name}@{}/{}", attachment.container_id, attachment.interface))
}
