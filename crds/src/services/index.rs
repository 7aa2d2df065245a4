//! The answers for all Services, kept while objects change. Cost follows what changed: a Service, its slices, its
//! namespace; only a change of the rules or of the node asks for all.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use super::{Endpoints, SERVICE_NAME_LABEL, ServiceFacts, prefixes};
use crate::store::Key;
use crate::store::follow::key_of;
use crate::v1alpha1::ServiceAdvertisement;

/// What every namespace carries by itself, also one whose object was not seen.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Prefixes that wait for a Service to have a ready endpoint on the node (`prefixes[].gate.service`), by the
/// BGPAdvertisement's name.
pub type Gates = BTreeMap<String, BTreeSet<(Key, IpNet)>>;

/// Which prefixes the Services of a cluster make one node originate, and by which BGPAdvertisements.
///
/// Changes only mark; [`ServiceIndex::update`] works out what was marked. The state after it depends on the objects as
/// they are, never on the order in which they came.
#[derive(Clone, Debug)]
pub struct ServiceIndex {
    node: String,
    is_excluded: bool,
    rules: BTreeMap<String, ServiceAdvertisement>,
    /// Each Service that opens gates: the advertisements and their prefixes.
    gates: BTreeMap<Key, BTreeMap<String, BTreeSet<IpNet>>>,
    services: BTreeMap<Key, ServiceFacts>,
    /// Each slice: its Service, and what it says.
    slices: BTreeMap<Key, (Key, Endpoints)>,
    slices_of: BTreeMap<Key, BTreeSet<Key>>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// What each Service makes each rule originate; Services that make none are absent.
    made: BTreeMap<Key, BTreeMap<String, BTreeSet<IpNet>>>,
    /// Each prefix: its rules, and how many Services of each.
    prefixes: BTreeMap<IpNet, BTreeMap<String, u32>>,
    marked: BTreeSet<Key>,
}

impl ServiceIndex {
    /// Of this node; nothing is originated before rules and Services are there.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            is_excluded: false,
            rules: BTreeMap::new(),
            gates: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slices_of: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            made: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            marked: BTreeSet::new(),
        }
    }

    /// The `services` part of every accepted BGPAdvertisement that selects this node, by the advertisement's name.
    pub fn set_rules(&mut self, rules: BTreeMap<String, ServiceAdvertisement>) {
        if self.rules != rules {
            self.rules = rules;
            self.mark_all();
        }
    }

    /// The gates of every accepted BGPAdvertisement that selects this node. A Service opens its gates by its slices alone:
    /// it may be headless, and an excluded node may serve what is no Service's address.
    pub fn set_gates(&mut self, gates: &Gates) {
        let mut by_service: BTreeMap<Key, BTreeMap<String, BTreeSet<IpNet>>> = BTreeMap::new();
        for (advertisement, (service, prefix)) in
            gates.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one)))
        {
            let of_service = by_service.entry(service.clone()).or_default();
            of_service.entry(advertisement.clone()).or_default().insert(*prefix);
        }
        if self.gates != by_service {
            self.marked.extend(self.gates.keys().chain(by_service.keys()).cloned());
            self.gates = by_service;
        }
    }

    /// Whether the node announces no Service at all: [`super::excludes`].
    pub fn set_excluded(&mut self, is_excluded: bool) {
        if self.is_excluded != is_excluded {
            self.is_excluded = is_excluded;
            self.mark_all();
        }
    }

    pub fn put_service(&mut self, service: &Service) {
        let (key, facts) = (key_of(service), ServiceFacts::of(service));
        if self.services.get(&key) != Some(&facts) {
            self.services.insert(key.clone(), facts);
            self.marked.insert(key);
        }
    }

    pub fn remove_service(&mut self, key: &Key) {
        if self.services.remove(key).is_some() {
            self.marked.insert(key.clone());
        }
    }

    /// Services are watched no more, while slices are.
    pub fn remove_services(&mut self) {
        self.marked.extend(std::mem::take(&mut self.services).into_keys());
    }

    /// A slice that names no Service counts for none.
    pub fn put_slice(&mut self, slice: &EndpointSlice) {
        let key = key_of(slice);
        let Some(service) = slice.labels().get(SERVICE_NAME_LABEL) else { return self.remove_slice(&key) };
        let service = Key { namespace: key.namespace.clone(), name: service.clone() };
        let entry = (service.clone(), Endpoints::of(slice, &self.node));
        if self.slices.get(&key) == Some(&entry) {
            return;
        }
        self.remove_slice(&key);
        self.slices_of.entry(service.clone()).or_default().insert(key.clone());
        self.slices.insert(key, entry);
        self.marked.insert(service);
    }

    pub fn remove_slice(&mut self, key: &Key) {
        let Some((service, _)) = self.slices.remove(key) else { return };
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(key);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        self.marked.insert(service);
    }

    /// Namespaces matter only while a rule has a `namespaceSelector`.
    pub fn put_namespace(&mut self, namespace: &Namespace) {
        let (name, labels) = (namespace.name_any(), namespace.labels().clone());
        if self.namespaces.get(&name) != Some(&labels) {
            self.namespaces.insert(name.clone(), labels);
            self.mark_namespace(&name);
        }
    }

    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.mark_namespace(name);
        }
    }

    /// What an earlier process originated, in force beside what follows from the objects, until [`Self::forget`].
    pub fn remember(&mut self, prefixes: &BTreeMap<IpNet, BTreeSet<String>>) {
        let mut made: BTreeMap<String, BTreeSet<IpNet>> = BTreeMap::new();
        for (prefix, rules) in prefixes {
            for rule in rules {
                if made.entry(rule.clone()).or_default().insert(*prefix) {
                    self.count(*prefix, rule);
                }
            }
        }
        self.made.insert(nobody(), made);
    }

    /// The objects are known: what was remembered goes with the next update.
    pub fn forget(&mut self) {
        if self.made.contains_key(&nobody()) {
            self.marked.insert(nobody());
        }
    }

    /// Works out what was marked; the prefixes that are now originated by other rules than before, or newly, or no more.
    pub fn update(&mut self) -> BTreeSet<IpNet> {
        let mut touched: BTreeMap<IpNet, BTreeSet<String>> = BTreeMap::new();
        for key in std::mem::take(&mut self.marked) {
            let makes = self.makes(&key);
            let made =
                if makes.is_empty() { self.made.remove(&key) } else { self.made.insert(key, makes.clone()) }
                    .unwrap_or_default();
            for (rule, prefix) in pairs(&made).chain(pairs(&makes)) {
                touched.entry(*prefix).or_insert_with(|| self.rules_of(prefix));
                let is_more = makes.get(rule).is_some_and(|prefixes| prefixes.contains(prefix));
                let was = made.get(rule).is_some_and(|prefixes| prefixes.contains(prefix));
                // One that was and is comes by twice, and counts as it did.
                match (was, is_more) {
                    (false, true) => self.count(*prefix, rule),
                    (true, false) => self.uncount(*prefix, rule),
                    (true, true) | (false, false) => {}
                }
            }
        }
        touched
            .into_iter()
            .filter(|(prefix, before)| self.rules_of(prefix) != *before)
            .map(|(p, _)| p)
            .collect()
    }

    /// Every prefix, with the BGPAdvertisements that originate it, by name.
    pub fn prefixes(&self) -> impl Iterator<Item = (IpNet, impl Iterator<Item = &str>)> {
        self.prefixes.iter().map(|(prefix, rules)| (*prefix, rules.keys().map(String::as_str)))
    }

    /// The BGPAdvertisements that originate a prefix, by name.
    pub fn origins(&self, prefix: &IpNet) -> impl Iterator<Item = &str> {
        self.prefixes.get(prefix).into_iter().flat_map(|rules| rules.keys().map(String::as_str))
    }

    /// The prefixes that one Service makes this node originate, for reports.
    pub fn of_service(&self, key: &Key) -> BTreeSet<IpNet> {
        self.made.get(key).into_iter().flat_map(|made| made.values().flatten().copied()).collect()
    }

    fn makes(&self, key: &Key) -> BTreeMap<String, BTreeSet<IpNet>> {
        let slices = self.slices_of.get(key).into_iter().flatten();
        let endpoints = slices
            .filter_map(|slice| self.slices.get(slice))
            .fold(Endpoints::default(), |sum, (_, endpoints)| sum.and(*endpoints));
        let mut makes = self.gates.get(key).filter(|_| endpoints.any_here()).cloned().unwrap_or_default();
        makes.extend(self.by_rules(key, endpoints));
        makes
    }

    /// What the addresses of a Service make each rule originate. An advertisement has rules or gates, never both.
    fn by_rules(&self, key: &Key, endpoints: Endpoints) -> BTreeMap<String, BTreeSet<IpNet>> {
        let Some(service) = self.services.get(key).filter(|_| !self.is_excluded) else {
            return BTreeMap::new();
        };
        let namespace = key.namespace.clone().unwrap_or_default();
        let mut labels = self.namespaces.get(&namespace).cloned().unwrap_or_default();
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), namespace);
        self.rules
            .iter()
            .map(|(name, rule)| (name.clone(), prefixes(rule, service, endpoints, &labels)))
            .filter(|(_, prefixes)| !prefixes.is_empty())
            .collect()
    }

    fn rules_of(&self, prefix: &IpNet) -> BTreeSet<String> {
        self.prefixes.get(prefix).map(|rules| rules.keys().cloned().collect()).unwrap_or_default()
    }

    fn count(&mut self, prefix: IpNet, rule: &str) {
        *self.prefixes.entry(prefix).or_default().entry(rule.to_owned()).or_default() += 1;
    }

    fn uncount(&mut self, prefix: IpNet, rule: &str) {
        let Some(rules) = self.prefixes.get_mut(&prefix) else { return };
        if let Some(services) = rules.get_mut(rule) {
            *services = services.saturating_sub(1);
            if *services == 0 {
                rules.remove(rule);
            }
        }
        if rules.is_empty() {
            self.prefixes.remove(&prefix);
        }
    }

    fn mark_all(&mut self) {
        self.marked.extend(self.services.keys().cloned());
    }

    fn mark_namespace(&mut self, name: &str) {
        let from = Key::namespaced(name, "");
        let inside = self.services.range(from..).map(|(key, _)| key);
        self.marked.extend(inside.take_while(|key| key.namespace.as_deref() == Some(name)).cloned());
    }
}

/// The key of no Service, under which stands what is remembered.
fn nobody() -> Key {
    Key::cluster("")
}

fn pairs(made: &BTreeMap<String, BTreeSet<IpNet>>) -> impl Iterator<Item = (&String, &IpNet)> {
    made.iter().flat_map(|(rule, prefixes)| prefixes.iter().map(move |prefix| (rule, prefix)))
}
