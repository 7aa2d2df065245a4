//! Addresses of Services that this node originates, for the rule that ends loops: a packet to one of them that
//! kube-proxy did not take would go back to the router that sent it.
//!
//! Services and EndpointSlices are watched only while an advertisement of this node is of `services`: where nothing is
//! originated, nobody sends such packets here.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use manx_crds::acceptance;
use manx_crds::services::{ServiceIndex, excludes};
use manx_crds::store::follow::{self, Follow, key_of};
use manx_crds::store::{Key, Object, Selection, Store};
use manx_crds::v1alpha1::ServiceAdvertisement;
use manx_crds::v1alpha1::selector::selects_opt;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::driver::Driver;
use crate::objects::Change;

/// One step of either kind, of the watch with this number.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "travels in a box, inside objects::Change")]
pub(crate) enum ServiceChange {
    Service(u64, follow::Change<Service>),
    Slice(u64, follow::Change<EndpointSlice>),
}

pub(crate) struct Services {
    index: ServiceIndex,
    changes: mpsc::Sender<Change>,
    /// Tells the changes of a watch that has ended from those of its successor.
    watch: u64,
    tasks: Vec<AbortHandle>,
    /// Services and slices were heard whole.
    heard: (bool, bool),
    namespaces: BTreeSet<String>,
}

impl Services {
    pub(crate) fn new(node: &str, changes: mpsc::Sender<Change>) -> Self {
        let index = ServiceIndex::new(node);
        Self {
            index,
            changes,
            watch: 0,
            tasks: Vec::new(),
            heard: (false, false),
            namespaces: BTreeSet::new(),
        }
    }

    /// Takes a change in; nothing follows before [`Driver::refresh_services`].
    pub(crate) fn take(&mut self, change: ServiceChange) {
        match change {
            ServiceChange::Service(watch, _) | ServiceChange::Slice(watch, _) if watch != self.watch => {}
            ServiceChange::Service(_, follow::Change::Put(service)) => self.index.put_service(&service),
            ServiceChange::Service(_, follow::Change::Deleted(service)) => {
                self.index.remove_service(&key_of(&service));
            }
            ServiceChange::Slice(_, follow::Change::Put(slice)) => self.index.put_slice(&slice),
            ServiceChange::Slice(_, follow::Change::Deleted(slice)) => {
                self.index.remove_slice(&key_of(&slice));
            }
            ServiceChange::Service(_, follow::Change::InSync) => self.heard.0 = true,
            ServiceChange::Slice(_, follow::Change::InSync) => self.heard.1 = true,
            // A directory's file that does not validate: its last good version stays.
            ServiceChange::Service(_, follow::Change::Invalid(_) | follow::Change::Valid(_))
            | ServiceChange::Slice(_, follow::Change::Invalid(_) | follow::Change::Valid(_)) => {}
        }
    }

    /// Watches while there is a rule, and forgets everything when there is none.
    fn follow_while<S: Store>(&mut self, store: &S, node: &str, wanted: bool) {
        if wanted != self.tasks.is_empty() {
            return;
        }
        self.watch += 1;
        self.heard = (false, false);
        if wanted {
            let watch = self.watch;
            self.tasks = vec![
                self.follow::<S, Service>(store, move |change| ServiceChange::Service(watch, change)),
                self.follow::<S, EndpointSlice>(store, move |change| ServiceChange::Slice(watch, change)),
            ];
        } else {
            self.tasks.drain(..).for_each(|task| task.abort());
            self.index = ServiceIndex::new(node);
            self.namespaces.clear();
        }
    }

    fn follow<S: Store, K: Object>(
        &self,
        store: &S,
        wrap: impl Fn(follow::Change<K>) -> ServiceChange + Send + 'static,
    ) -> AbortHandle {
        let mut follow = Follow::<S, K>::new(store.clone(), Selection::default());
        let changes = self.changes.clone();
        let task = tokio::spawn(async move {
            loop {
                let change = follow.next().await;
                if changes.send(Change::Service(Box::new(wrap(change)))).await.is_err() {
                    return;
                }
            }
        });
        task.abort_handle()
    }
}

impl<S: Store> Driver<S> {
    /// Services, namespaces, advertisements or this node's labels changed.
    pub(crate) fn refresh_services(&mut self, namespaces: &BTreeSet<Key>) {
        let rules = self.service_rules();
        self.services.follow_while(&self.store, &self.node, !rules.is_empty());
        if rules.is_empty() && self.service_prefixes.is_empty() {
            return;
        }
        let all = self.services.namespaces.is_empty();
        for (key, namespace) in &self.objects.namespaces.objects {
            if all || namespaces.contains(key) {
                self.services.index.put_namespace(namespace);
                self.services.namespaces.insert(key.name.clone());
            }
        }
        for key in namespaces.iter().filter(|key| !self.objects.namespaces.objects.contains_key(*key)) {
            self.services.index.remove_namespace(&key.name);
        }
        if !rules.is_empty() && self.services.heard != (true, true) {
            // Half of them are fewer than an earlier life may have announced.
            return;
        }
        self.services.index.set_excluded(excludes(&self.labels()));
        self.services.index.set_rules(rules);
        self.services.index.update();
        let prefixes: BTreeSet<IpNet> = self.services.index.prefixes().map(|(prefix, _)| prefix).collect();
        if prefixes != self.service_prefixes {
            self.service_prefixes = prefixes;
            self.refresh_node();
        }
    }

    /// The `services` part of every accepted advertisement of this node.
    fn service_rules(&self) -> BTreeMap<String, ServiceAdvertisement> {
        let labels = self.labels();
        let configuration = self.configuration();
        let accepted = self.objects.advertisements.iter().filter(|advertisement| {
            selects_opt(advertisement.spec.node_selector.as_ref(), &labels)
                && acceptance::bgp_advertisement(advertisement, configuration).is_ok()
        });
        accepted.filter_map(|object| Some((object.name_any(), object.spec.services.clone()?))).collect()
    }
}
