//! Services, EndpointSlices and Namespaces: watched only while a BGPAdvertisement that is in force here asks for them
//! (api.md §12), and kept as [`ServiceIndex`] keeps them, not as objects.
//!
//! ```text
//!             want(rules)                       all that is needed was heard
//!   nothing ─────────────► watching, old rules ─────────────────────────────► watching, these rules
//!      ▲                                                                           │
//!      └──────────────────────────── want(no rules): all is forgotten ◄────────────┘
//! ```
//! New rules wait for their lists: before these, what is missing is not gone, and the old rules stay in force.

use std::collections::{BTreeMap, BTreeSet};

use crate::inputs::ServicePrefixes;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use manx_crds::services::{Gates, ServiceIndex};
use manx_crds::store::follow::{Change, key_of};
use manx_crds::store::{Object, Selection, Store};
use manx_crds::v1alpha1::ServiceAdvertisement;
use manx_daemon::kind::{Invalid, follow, note_invalid, note_valid};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Changes that may wait for the loop.
const QUEUE: usize = 256;

/// One change of one kind.
#[derive(Debug)]
pub(crate) enum ServiceChange {
    Service(Box<Change<Service>>),
    Slice(Change<EndpointSlice>),
    Namespace(Change<Namespace>),
}

/// Begins to watch one of the kinds.
type Start = Box<dyn Fn(Watched, &mpsc::Sender<ServiceChange>) -> AbortHandle>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    Services,
    Slices,
    Namespaces,
}

/// A running watch of one kind.
#[derive(Debug)]
struct Watch {
    task: AbortHandle,
    in_sync: bool,
}

/// What the Services make this node originate.
pub(crate) struct Services {
    node: String,
    start: Start,
    changes: (mpsc::Sender<ServiceChange>, mpsc::Receiver<ServiceChange>),
    watches: BTreeMap<Watched, Watch>,
    wanted: BTreeMap<String, ServiceAdvertisement>,
    gates: Gates,
    is_excluded: bool,
    namespaces: BTreeSet<String>,
    index: ServiceIndex,
    invalid: Invalid,
}

impl Services {
    /// Watches nothing yet.
    pub(crate) fn new<S: Store>(store: S, node: &str) -> Self {
        let start = move |kind, changes: &mpsc::Sender<ServiceChange>| {
            let all = Selection::default;
            match kind {
                Watched::Services => {
                    follow(&store, all(), changes, |change| ServiceChange::Service(Box::new(change)))
                }
                Watched::Slices => follow(&store, all(), changes, ServiceChange::Slice),
                Watched::Namespaces => follow(&store, all(), changes, ServiceChange::Namespace),
            }
        };
        Self::with(Box::new(start), node)
    }

    fn with(start: Start, node: &str) -> Self {
        Self {
            node: node.to_owned(),
            start,
            changes: mpsc::channel(QUEUE),
            watches: BTreeMap::new(),
            wanted: BTreeMap::new(),
            gates: Gates::new(),
            is_excluded: false,
            namespaces: BTreeSet::new(),
            index: ServiceIndex::new(node),
            invalid: Invalid::new(),
        }
    }

    /// Which rules and gates should be in force, and whether the node announces addresses of Services at all.
    pub(crate) fn want(
        &mut self,
        rules: &BTreeMap<String, ServiceAdvertisement>,
        gates: &Gates,
        is_excluded: bool,
    ) {
        // What a watch said before it is ended belongs to it, not to a later one.
        while let Ok(change) = self.changes.1.try_recv() {
            self.take(change);
        }
        self.wanted.clone_from(rules);
        self.gates.clone_from(gates);
        self.is_excluded = is_excluded;
        let any = !rules.is_empty() || !gates.is_empty();
        self.watch(Watched::Services, !rules.is_empty());
        self.watch(Watched::Slices, any);
        self.watch(Watched::Namespaces, rules.values().any(|rule| rule.namespace_selector.is_some()));
        if !any {
            self.index = ServiceIndex::new(self.node.as_str());
            self.invalid.clear();
        }
        self.rule();
    }

    fn watch(&mut self, kind: Watched, is_wanted: bool) {
        if is_wanted == self.watches.contains_key(&kind) {
            return;
        }
        if is_wanted {
            let task = (self.start)(kind, &self.changes.0);
            self.watches.insert(kind, Watch { task, in_sync: false });
            return;
        }
        // The runtime has one thread, which is ours now: an aborted task says nothing more.
        if let Some(watch) = self.watches.remove(&kind) {
            watch.task.abort();
        }
        match kind {
            Watched::Services => self.index.remove_services(),
            // No gate is left either, and all is forgotten.
            Watched::Slices => {}
            Watched::Namespaces => {
                for name in std::mem::take(&mut self.namespaces) {
                    self.index.remove_namespace(&name);
                }
            }
        }
    }

    /// The rules come into force when every kind that they need was heard whole.
    fn rule(&mut self) {
        if self.in_sync() {
            self.index.forget();
            self.index.set_rules(self.wanted.clone());
            self.index.set_gates(&self.gates);
            self.index.set_excluded(self.is_excluded);
        }
    }

    /// What an earlier process made of them is in force until they were heard.
    pub(crate) fn remember(&mut self, prefixes: &ServicePrefixes) {
        self.index.remember(prefixes);
    }

    /// What they make this node originate.
    pub(crate) fn prefixes(&self) -> ServicePrefixes {
        let names = |rules: &mut dyn Iterator<Item = &str>| rules.map(str::to_owned).collect();
        self.index.prefixes().map(|(prefix, mut rules)| (prefix, names(&mut rules))).collect()
    }

    /// Whether the rules that were asked for are in force.
    pub(crate) fn in_sync(&self) -> bool {
        self.watches.values().all(|watch| watch.in_sync)
    }

    /// The next change; never, while nothing is watched.
    pub(crate) async fn next(&mut self) -> Option<ServiceChange> {
        self.changes.1.recv().await
    }

    pub(crate) fn take(&mut self, change: ServiceChange) {
        match change {
            ServiceChange::Service(change) => {
                self.step(Watched::Services, *change, |services, change| match change {
                    Step::Put(service) => services.index.put_service(&service),
                    Step::Gone(service) => services.index.remove_service(&key_of(&service)),
                });
            }
            ServiceChange::Slice(change) => {
                self.step(Watched::Slices, change, |services, change| match change {
                    Step::Put(slice) => services.index.put_slice(&slice),
                    Step::Gone(slice) => services.index.remove_slice(&key_of(&slice)),
                })
            }
            ServiceChange::Namespace(change) => {
                self.step(Watched::Namespaces, change, |services, change| match change {
                    Step::Put(namespace) => {
                        services.namespaces.insert(namespace.name_any());
                        services.index.put_namespace(&namespace);
                    }
                    Step::Gone(namespace) => {
                        services.namespaces.remove(&namespace.name_any());
                        services.index.remove_namespace(&namespace.name_any());
                    }
                });
            }
        }
    }

    fn step<K: Object>(&mut self, kind: Watched, change: Change<K>, act: fn(&mut Self, Step<K>)) {
        match change {
            Change::Put(object) => act(self, Step::Put(object)),
            Change::Deleted(object) => act(self, Step::Gone(object)),
            Change::InSync => {
                if let Some(watch) = self.watches.get_mut(&kind) {
                    watch.in_sync = true;
                }
                self.rule();
            }
            Change::Invalid(what) => note_invalid(what, &mut self.invalid),
            Change::Valid(key) => note_valid::<K>(&key, &mut self.invalid),
        }
    }

    /// Works out what follows; the prefixes that are told by other advertisements than before.
    pub(crate) fn update(&mut self) -> BTreeSet<IpNet> {
        self.index.update()
    }

    pub(crate) fn index(&self) -> &ServiceIndex {
        &self.index
    }

    /// Stored forms that do not validate.
    pub(crate) fn invalid(&self) -> &Invalid {
        &self.invalid
    }
}

/// An object that is, or is gone.
enum Step<K> {
    Put(K),
    Gone(K),
}

#[cfg(test)]
mod tests;
